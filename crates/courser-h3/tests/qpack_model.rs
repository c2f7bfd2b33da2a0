//! Encoder and decoder over a network that delivers three kinds of streams in any order and any pieces, with a referee.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

#[path = "support/qif.rs"]
mod qif;
#[path = "support/referee.rs"]
mod referee;

use std::collections::{BTreeMap, VecDeque};

use courser_core::ids::StreamId;
use courser_h3::qpack::{Decoded, Decoder, DecoderConfig, Encoder, EncoderConfig, Field};
use proptest::prelude::*;
use qif::Line;
use referee::{Referee, plain};

#[derive(Clone, Debug)]
struct Sent {
    lines: Vec<(Line, bool)>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A section on one of a few streams, or on a new one.
    Send(Option<usize>, Vec<(usize, usize, bool)>),
    /// The transport takes so many bytes of the encoder stream.
    Take(usize),
    /// So many bytes of the encoder stream arrive.
    Encoder(usize),
    /// The next section of one of the streams arrives.
    Section(usize),
    /// So many bytes of the decoder stream arrive.
    Answers(usize),
    /// One of the streams is given up: what was not delivered never is.
    Cancel(usize),
    /// The peer's settings arrive.
    Limits,
}

const NAMES: [&str; 9] =
    [":path", ":authority", "cookie", "authorization", "etag", "x-custom-name", "x-other", "y", "content-length"];

fn line(name: usize, value: usize) -> Line {
    let name = NAMES[name % NAMES.len()];
    let value = match value % 9 {
        0 => String::new(),
        short @ 1..5 => format!("{short}/{}", name.len()),
        long => "a longer value, which pays ".repeat(long - 4),
    };
    (name.into(), value.into())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lines = prop::collection::vec((0..9_usize, 0..9_usize, prop::bool::weighted(0.1)), 0..8);
    let step = prop_oneof![
        6 => (prop::option::weighted(0.3, 0..8_usize), lines).prop_map(|(stream, lines)| Step::Send(stream, lines)),
        5 => prop_oneof![Just(usize::MAX), 0..60_usize].prop_map(Step::Take),
        5 => prop_oneof![Just(usize::MAX), 0..60_usize].prop_map(Step::Encoder),
        5 => (0..8_usize).prop_map(Step::Section),
        4 => prop_oneof![Just(usize::MAX), 0..4_usize].prop_map(Step::Answers),
        1 => (0..8_usize).prop_map(Step::Cancel),
        1 => Just(Step::Limits),
    ];
    prop::collection::vec(step, 0..150)
}

/// The two ends and what is between them.
struct World {
    encoder: Encoder,
    decoder: Decoder,
    referee: Referee,
    limits: (u64, u64),
    next_stream: u64,
    /// Sections on their way, by stream.
    streams: BTreeMap<u64, VecDeque<Sent>>,
    /// Streams whose first section waits at the decoder.
    blocked: Vec<u64>,
    instructions: VecDeque<u8>,
    /// How much of the encoder's instructions the referee has seen, that the transport has not taken.
    seen: usize,
    answers: VecDeque<u8>,
    partial_answer: Vec<u8>,
    delivered: usize,
}

impl World {
    fn new(capacity: usize, blocked: usize, own_capacity: usize, own_blocked: usize) -> Self {
        let config = EncoderConfig { max_table_capacity: own_capacity, max_blocked_streams: own_blocked };
        Self {
            encoder: Encoder::new(config),
            decoder: Decoder::new(DecoderConfig {
                max_table_capacity: capacity,
                max_blocked_streams: blocked,
                ..DecoderConfig::default()
            }),
            referee: Referee::new(capacity, blocked),
            limits: (capacity as u64, blocked as u64),
            next_stream: 0,
            streams: BTreeMap::new(),
            blocked: Vec::new(),
            instructions: VecDeque::new(),
            seen: 0,
            answers: VecDeque::new(),
            partial_answer: Vec::new(),
            delivered: 0,
        }
    }

    fn stream(&self, at: usize) -> Option<u64> {
        let count = self.streams.len();
        self.streams.keys().nth(at.checked_rem(count)?).copied()
    }

    fn send(&mut self, on: Option<usize>, lines: Vec<(usize, usize, bool)>) {
        let lines: Vec<(Line, bool)> = lines.into_iter().map(|(n, v, sensitive)| (line(n, v), sensitive)).collect();
        let fields =
            lines.iter().map(|(line, sensitive)| Field { sensitive: *sensitive, ..Field::new(&line.0, &line.1) });
        let stream = on.and_then(|at| self.stream(at)).unwrap_or_else(|| {
            self.next_stream += 4;
            self.next_stream
        });
        let mut bytes = vec![0xee];
        self.encoder.encode(StreamId(stream), fields, &mut bytes);
        assert_eq!(bytes.remove(0), 0xee, "what was there stays");
        let said = &self.encoder.instructions()[self.seen..];
        self.referee.encoder_says(said);
        self.seen += said.len();
        let seen = self.referee.encoder_sends(stream, &bytes);
        //= rfc9204#2.1-1 type=test
        assert_eq!(plain(&seen), plain(&lines));
        //= rfc9204#4.5.4-1 type=test
        //= rfc9204#7.1.3-1 type=test
        assert!(seen.iter().zip(&lines).all(|(seen, line)| seen.1 || !line.1), "sensitive lines say so");
        let secret = |line: &Line| [&b"authorization"[..], b"cookie"].contains(&&line.0[..]);
        assert!(seen.iter().zip(&lines).all(|(seen, line)| seen.1 <= (line.1 || secret(&line.0))), "and no others");
        self.streams.entry(stream).or_default().push_back(Sent { lines: seen, bytes });
    }

    fn take(&mut self, count: usize) {
        let count = count.min(self.encoder.instructions().len());
        self.instructions.extend(self.encoder.instructions().drain(..count));
        self.seen -= count;
    }

    fn deliver_instructions(&mut self, count: usize) {
        let bytes: Vec<u8> = self.instructions.drain(..count.min(self.instructions.len())).collect();
        self.decoder.on_encoder_stream(&bytes).unwrap();
        while let Some(stream) = self.decoder.unblocked() {
            let at = self.blocked.iter().position(|blocked| *blocked == stream.0).expect("it waited");
            self.blocked.remove(at);
            self.deliver_section(stream.0);
        }
    }

    fn deliver_section(&mut self, stream: u64) {
        let Some(sent) = self.streams.get(&stream).and_then(|sections| sections.front()) else { return };
        if self.blocked.contains(&stream) {
            return;
        }
        let mut lines = Vec::new();
        let each = |field: Field<'_>| lines.push(((field.name.to_vec(), field.value.to_vec()), field.sensitive));
        match self.decoder.decode(StreamId(stream), &sent.bytes, each).unwrap() {
            //= rfc9204#2.2-1 type=test
            Decoded::Done => {
                assert_eq!(lines, sent.lines);
                self.streams.get_mut(&stream).unwrap().pop_front();
                self.delivered += 1;
            }
            Decoded::Blocked => self.blocked.push(stream),
            Decoded::TooLarge => panic!("sections are small"),
        }
    }

    fn deliver_answers(&mut self, count: usize) {
        self.answers.extend(self.decoder.instructions().drain(..));
        let bytes: Vec<u8> = self.answers.drain(..count.min(self.answers.len())).collect();
        self.encoder.on_decoder_stream(&bytes).unwrap();
        self.partial_answer.extend_from_slice(&bytes);
        // Numbers are small here: an instruction ends with its first byte, or with the first one without a high bit.
        let whole = whole_answers(&self.partial_answer);
        self.referee.encoder_hears(&self.partial_answer[..whole]);
        self.partial_answer.drain(..whole);
    }

    fn cancel(&mut self, stream: u64) {
        self.streams.remove(&stream);
        self.blocked.retain(|blocked| *blocked != stream);
        self.decoder.cancel(StreamId(stream));
    }

    fn set_limits(&mut self) {
        self.encoder.set_peer_limits(self.limits.0, self.limits.1).unwrap();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(stream, lines) => self.send(stream, lines),
            Step::Take(count) => self.take(count),
            Step::Encoder(count) => self.deliver_instructions(count),
            Step::Answers(count) => self.deliver_answers(count),
            Step::Limits => self.set_limits(),
            Step::Section(at) => {
                if let Some(stream) = self.stream(at) {
                    self.deliver_section(stream);
                }
            }
            Step::Cancel(at) => {
                if let Some(stream) = self.stream(at) {
                    self.cancel(stream);
                }
            }
        }
    }

    fn finish(&mut self) {
        self.take(usize::MAX);
        self.deliver_instructions(usize::MAX);
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            while self.streams.get(&stream).is_some_and(|sections| !sections.is_empty()) {
                self.deliver_section(stream);
                assert!(!self.blocked.contains(&stream), "everything has come");
            }
        }
        self.deliver_answers(usize::MAX);
        assert_eq!(self.referee.outstanding(), 0);
        assert!(self.partial_answer.is_empty());
    }
}

/// The length of the whole instructions at the front.
fn whole_answers(bytes: &[u8]) -> usize {
    let (mut at, mut whole) = (0, 0);
    while let Some(first) = bytes.get(at) {
        let mask = if first & 0x80 != 0 { 0x7f } else { 0x3f };
        at += 1;
        if first & mask == mask {
            let Some(end) = bytes[at..].iter().position(|byte| byte & 0x80 == 0) else { break };
            at += end + 1;
        }
        whole = at;
    }
    whole
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn whatever_the_order_everything_arrives_and_no_rule_is_broken(
        steps in steps(),
        capacity in prop_oneof![Just(0_usize), Just(40), 33..400_usize, Just(4096)],
        blocked in 0..4_usize,
        own in prop_oneof![Just((4096_usize, 16_usize)), (0..300_usize, 0..3_usize)],
        early in any::<bool>(),
    ) {
        let mut world = World::new(capacity, blocked, own.0, own.1);
        if early {
            world.set_limits();
        }
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}

/// Requests that are answered after a while, for as long as it takes to use everything.
#[test]
fn a_long_life_over_a_small_table_uses_every_instruction() {
    for (capacity, blocked) in [(300, 0), (300, 2), (700, 8), (4096, 16)] {
        let mut world = World::new(capacity, blocked, 4096, 16);
        world.set_limits();
        for n in 0..600_usize {
            let lines =
                (0..6).map(|at| ((n / 7 * at + at) % 9, (n / (5 + at) + at) % 9, at == 5 && n % 11 == 0)).collect();
            world.send(None, lines);
            world.take(usize::MAX);
            if n % 3 > 0 {
                world.deliver_instructions(if n % 2 == 0 { 40 } else { usize::MAX });
            }
            for at in 0..n % 4 {
                world.step(Step::Section(at * 5 + n));
            }
            if n % 5 < 3 {
                world.deliver_answers(if n % 4 == 0 { 3 } else { usize::MAX });
            }
            if n % 37 == 0 {
                world.step(Step::Cancel(n));
            }
            world.streams.retain(|_, sections| !sections.is_empty());
        }
        world.finish();
        let [capacities, inserts, duplicates] = world.referee.seen;
        assert_eq!(capacities, 1);
        assert!(inserts > 20 && world.delivered > 500, "{inserts} inserts, {} sections", world.delivered);
        assert!(capacity > 300 || duplicates > 0, "{duplicates} duplicates");
    }
}
