//! Flow control of a WebTransport session (draft-ietf-webtrans-http3 section 5): how many streams each end may open in it, and
//! how many bytes it may send on them.
//!
//! Limits are totals over the life of the session, as in QUIC; the first ones stand in SETTINGS, larger ones come in capsules on
//! the session's own stream, in order. Each end counts what the other may count on: bytes behind the heads of streams, of
//! streams that were reset up to their final size. Credit is given back as the application reads and as streams end: when half
//! of the bytes or a quarter of the streams can be granted anew, and earlier when the other end is about to run out. Each end
//! says once for each limit that it is held back by it, and hears of what there is then, though it be little.
//!
//! When the ends did not agree on flow control, nothing is limited, no capsule is sent, and those that come mean nothing.
//!
//! Invariants: `sent <= send_max`, `opened <= may_open`; `received <= recv_max` and `came <= granted` unless a call said
//! [`Broken`]; `consumed <= received`.

use courser_core::ids::{Dir, VARINT_MAX};
use courser_core::wire::varint;

use crate::capsule;
use crate::frame::push_varint;
use crate::settings::Settings;
use crate::wide;

/// The session is closed because a limit was exceeded, or a capsule about limits is not as it has to be.
pub const WT_FLOW_CONTROL_ERROR: u64 = 0x045d_4487;
/// The largest number of streams that a capsule may name.
const STREAMS_MAX: u64 = 1 << 60;

/// What one end lets the other do in each new session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Streams, by direction: two-way, one-way.
    pub streams: [u64; 2],
    /// Bytes on all streams.
    pub data: u64,
}

impl Limits {
    /// What the settings of an end say.
    #[must_use]
    pub const fn of(settings: &Settings) -> Self {
        Self { streams: [settings.wt_max_streams_bidi, settings.wt_max_streams_uni], data: settings.wt_max_data }
    }

    /// Whether saying so declares that flow control is wanted.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.streams[0] > 0 || self.streams[1] > 0 || self.data > 0
    }
}

/// The peer broke a rule; how the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A limit was exceeded, or moved in a way that is not permitted: [`WT_FLOW_CONTROL_ERROR`].
    Limit,
    /// A capsule does not fit its layout: H3_MESSAGE_ERROR.
    Malformed,
}

/// What a capsule made possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// Bytes can be sent.
    Data,
    /// Streams can be opened.
    Streams(Dir),
    /// Nothing.
    Nothing,
}

/// Streams of one direction, both ways.
#[derive(Clone, Copy, Debug, Default)]
struct Streams {
    may_open: u64,
    opened: u64,
    /// The limit at which the peer was told that this end is held back.
    told_blocked: Option<u64>,
    blocked: bool,
    granted: u64,
    came: u64,
    over: u64,
    /// How many the peer may have open at once.
    concurrent: u64,
}

impl Streams {
    fn next_grant(&self) -> u64 {
        self.over.saturating_add(self.concurrent).min(STREAMS_MAX)
    }

    fn is_grant_due(&self) -> bool {
        let quarter = self.concurrent / 4;
        let (more, left) = (self.next_grant().saturating_sub(self.granted), self.granted.saturating_sub(self.came));
        more > 0 && (more >= quarter || left <= quarter)
    }
}

/// The counters of a session.
#[derive(Clone, Debug)]
pub struct Flow {
    agreed: bool,
    streams: [Streams; 2],
    send_max: u64,
    sent: u64,
    blocked: bool,
    told_blocked: Option<u64>,
    recv_max: u64,
    received: u64,
    consumed: u64,
    window: u64,
    /// The peer said that it is held back by the present limit.
    asked: bool,
}

impl Flow {
    /// The counters of a new session: `ours` is what the peer may do, `theirs` what this end may do.
    #[must_use]
    pub fn new(ours: Limits, theirs: Limits) -> Self {
        let agreed = ours.is_any() && theirs.is_any();
        let streams = |i: usize| Streams {
            may_open: if agreed { theirs.streams[i] } else { STREAMS_MAX },
            granted: if agreed { ours.streams[i] } else { STREAMS_MAX },
            concurrent: if agreed { ours.streams[i] } else { STREAMS_MAX },
            ..Streams::default()
        };
        Self {
            agreed,
            streams: [streams(0), streams(1)],
            send_max: if agreed { theirs.data } else { VARINT_MAX },
            sent: 0,
            blocked: false,
            told_blocked: None,
            recv_max: if agreed { ours.data } else { VARINT_MAX },
            received: 0,
            consumed: 0,
            window: ours.data,
            asked: false,
        }
    }

    /// Whether the ends agreed on flow control.
    #[must_use]
    pub const fn is_agreed(&self) -> bool {
        self.agreed
    }

    /// Takes credit for so many bytes, or for as many as there is credit for; says for how many.
    pub fn take(&mut self, wanted: u64) -> u64 {
        let n = wanted.min(self.send_max.saturating_sub(self.sent));
        self.sent += n;
        self.blocked |= n < wanted;
        n
    }

    /// Bytes for which credit was taken were not sent, and never will.
    pub fn give_back(&mut self, n: u64) {
        self.sent = self.sent.saturating_sub(n);
    }

    /// Takes credit for a stream; `false` when there is none.
    pub fn open(&mut self, dir: Dir) -> bool {
        let streams = &mut self.streams[dir as usize];
        let may = streams.opened < streams.may_open;
        streams.opened += u64::from(may);
        streams.blocked |= !may;
        may
    }

    /// A stream for which credit was taken was not opened.
    pub fn give_stream_back(&mut self, dir: Dir) {
        let streams = &mut self.streams[dir as usize];
        streams.opened = streams.opened.saturating_sub(1);
    }

    /// The peer opened a stream.
    ///
    /// # Errors
    /// It is one more than permitted.
    pub fn on_stream(&mut self, dir: Dir) -> Result<(), Broken> {
        let streams = &mut self.streams[dir as usize];
        streams.came = streams.came.saturating_add(1);
        if streams.came > streams.granted { Err(Broken::Limit) } else { Ok(()) }
    }

    /// A stream of the peer's is over in both directions.
    pub fn on_stream_over(&mut self, dir: Dir) {
        self.streams[dir as usize].over += 1;
    }

    /// So many more bytes came, and so many were read or thrown away.
    ///
    /// # Errors
    /// More came than was permitted.
    pub fn on_data(&mut self, received: u64, consumed: u64) -> Result<(), Broken> {
        self.received = self.received.saturating_add(received);
        self.consumed = self.consumed.saturating_add(consumed);
        if self.received > self.recv_max { Err(Broken::Limit) } else { Ok(()) }
    }

    /// A capsule came.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn on_capsule(&mut self, kind: u64, value: &[u8]) -> Result<Raised, Broken> {
        if matches!(kind, capsule::WT_MAX_STREAM_DATA | capsule::WT_STREAM_DATA_BLOCKED) {
            return Err(Broken::Limit);
        }
        if !self.agreed || !capsule::is_about_limits(kind) {
            return Ok(Raised::Nothing);
        }
        let number = match varint::decode(value) {
            Some((number, used)) if used == value.len() => number,
            _ => return Err(Broken::Malformed),
        };
        let dir = if matches!(kind, capsule::WT_MAX_STREAMS_BIDI | capsule::WT_STREAMS_BLOCKED_BIDI) {
            Dir::Bi
        } else {
            Dir::Uni
        };
        match kind {
            capsule::WT_MAX_DATA if number > self.send_max => {
                self.send_max = number;
                self.blocked = false;
                Ok(Raised::Data)
            }
            capsule::WT_MAX_STREAMS_BIDI | capsule::WT_MAX_STREAMS_UNI
                if number <= STREAMS_MAX && number > self.streams[dir as usize].may_open =>
            {
                let streams = &mut self.streams[dir as usize];
                (streams.may_open, streams.blocked) = (number, false);
                Ok(Raised::Streams(dir))
            }
            capsule::WT_DATA_BLOCKED => {
                // What is there to be granted is granted, though it be little: a stream that nobody reads may hold the rest.
                self.asked |= number >= self.recv_max;
                Ok(Raised::Nothing)
            }
            capsule::WT_STREAMS_BLOCKED_BIDI | capsule::WT_STREAMS_BLOCKED_UNI if number <= STREAMS_MAX => {
                Ok(Raised::Nothing)
            }
            _ => Err(Broken::Limit),
        }
    }

    /// Whether [`Self::write_due`] has something to say.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.agreed
            && (self.is_data_due()
                || (self.blocked && self.told_blocked != Some(self.send_max))
                || self.streams.iter().any(|s| s.is_grant_due() || (s.blocked && s.told_blocked != Some(s.may_open))))
    }

    fn is_data_due(&self) -> bool {
        let (more, left) = (self.next_max() - self.recv_max, self.recv_max.saturating_sub(self.received));
        let near = left <= self.window / 4 && more >= self.window.div_ceil(8);
        more > 0 && (near || more >= self.window.div_ceil(2) || self.asked)
    }

    /// The limit that a capsule would carry.
    fn next_max(&self) -> u64 {
        self.consumed.saturating_add(self.window).min(VARINT_MAX).max(self.recv_max)
    }

    /// Appends the capsules that are due; they count as said then.
    pub fn write_due(&mut self, out: &mut Vec<u8>) {
        if !self.agreed {
            return;
        }
        if self.is_data_due() {
            (self.recv_max, self.asked) = (self.next_max(), false);
            number(capsule::WT_MAX_DATA, self.recv_max, out);
        }
        if self.blocked && self.told_blocked != Some(self.send_max) {
            self.told_blocked = Some(self.send_max);
            number(capsule::WT_DATA_BLOCKED, self.send_max, out);
        }
        let kinds = [
            (capsule::WT_MAX_STREAMS_BIDI, capsule::WT_STREAMS_BLOCKED_BIDI),
            (capsule::WT_MAX_STREAMS_UNI, capsule::WT_STREAMS_BLOCKED_UNI),
        ];
        for (streams, (max, blocked)) in self.streams.iter_mut().zip(kinds) {
            if streams.is_grant_due() {
                streams.granted = streams.next_grant();
                number(max, streams.granted, out);
            }
            if streams.blocked && streams.told_blocked != Some(streams.may_open) {
                streams.told_blocked = Some(streams.may_open);
                number(blocked, streams.may_open, out);
            }
        }
    }
}

/// Appends a capsule whose value is one number.
fn number(kind: u64, value: u64, out: &mut Vec<u8>) {
    push_varint(out, kind);
    push_varint(out, wide(varint::size(value)));
    push_varint(out, value);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::capsule::{Capsule, CapsuleReader};

    const SMALL: Limits = Limits { streams: [3, 2], data: 100 };

    fn value(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        push_varint(&mut out, number);
        out
    }

    fn capsules(flow: &mut Flow) -> Vec<(u64, Bytes)> {
        let mut out = Vec::new();
        flow.write_due(&mut out);
        assert!(!flow.is_due(), "what was said is not due any more");
        let (mut wire, mut reader) = (Bytes::from(out), CapsuleReader::new(64, |_| true));
        std::iter::from_fn(|| match reader.next(&mut wire) {
            Some(Capsule::Whole { kind, value }) => Some((kind, value)),
            _ => None,
        })
        .collect()
    }

    fn numbers(flow: &mut Flow) -> Vec<(u64, u64)> {
        capsules(flow).into_iter().map(|(kind, value)| (kind, varint::decode(&value).unwrap().0)).collect()
    }

    #[test]
    fn without_an_agreement_nothing_is_limited_and_capsules_mean_nothing() {
        for (ours, theirs) in [(SMALL, Limits::default()), (Limits::default(), SMALL)] {
            let mut flow = Flow::new(ours, theirs);
            assert!(!flow.is_agreed());
            assert_eq!(flow.take(1 << 40), 1 << 40);
            assert!((0..1000).all(|_| flow.open(Dir::Bi) && flow.on_stream(Dir::Uni).is_ok()));
            assert_eq!(flow.on_data(1 << 40, 1 << 40), Ok(()));
            assert_eq!(flow.on_capsule(capsule::WT_MAX_DATA, &[0]), Ok(Raised::Nothing));
            assert_eq!(flow.on_capsule(capsule::WT_MAX_STREAMS_BIDI, b"rubbish"), Ok(Raised::Nothing));
            assert!(!flow.is_due() && capsules(&mut flow).is_empty());
        }
    }

    #[test]
    fn who_is_held_back_says_so_once_for_each_limit() {
        let mut flow = Flow::new(SMALL, SMALL);
        assert_eq!((flow.take(60), flow.take(60)), (60, 40));
        assert!(flow.open(Dir::Uni) && flow.open(Dir::Uni) && !flow.open(Dir::Uni));
        let said = [(capsule::WT_DATA_BLOCKED, 100), (capsule::WT_STREAMS_BLOCKED_UNI, 2)];
        assert_eq!(numbers(&mut flow), said);
        assert_eq!(flow.take(1), 0);
        assert!(numbers(&mut flow).is_empty());
        assert_eq!(flow.on_capsule(capsule::WT_MAX_DATA, &value(110)), Ok(Raised::Data));
        assert_eq!(flow.take(60), 10);
        assert_eq!(numbers(&mut flow), [(capsule::WT_DATA_BLOCKED, 110)]);
        flow.give_back(5);
        assert_eq!(flow.take(60), 5);
        flow.give_stream_back(Dir::Uni);
        assert!(flow.open(Dir::Uni));
    }

    #[test]
    fn limits_that_are_exceeded_are_noticed_with_the_first_byte_and_stream_beyond() {
        let mut flow = Flow::new(SMALL, SMALL);
        assert_eq!(flow.on_data(100, 0), Ok(()));
        assert_eq!(flow.clone().on_data(1, 0), Err(Broken::Limit));
        assert_eq!(flow.on_data(0, 12), Ok(()));
        assert!(!flow.is_due());
        assert_eq!(flow.on_data(0, 38), Ok(()));
        assert_eq!(numbers(&mut flow), [(capsule::WT_MAX_DATA, 150)]);
        assert_eq!(flow.on_data(0, 1), Ok(()));
        assert!(!flow.is_due());
        assert_eq!(flow.on_capsule(capsule::WT_DATA_BLOCKED, &value(149)), Ok(Raised::Nothing));
        assert!(!flow.is_due(), "it will hear of a larger one");
        assert_eq!(flow.on_capsule(capsule::WT_DATA_BLOCKED, &value(150)), Ok(Raised::Nothing));
        assert_eq!(numbers(&mut flow), [(capsule::WT_MAX_DATA, 151)]);
        assert_eq!(flow.on_data(51, 0), Ok(()));
        assert_eq!(flow.on_data(1, 0), Err(Broken::Limit));
        let mut flow = Flow::new(SMALL, SMALL);
        assert!((0..3).all(|_| flow.on_stream(Dir::Bi).is_ok()));
        assert_eq!(flow.clone().on_stream(Dir::Bi), Err(Broken::Limit));
        flow.on_stream_over(Dir::Bi);
        assert_eq!(numbers(&mut flow), [(capsule::WT_MAX_STREAMS_BIDI, 4)]);
        assert_eq!(flow.on_stream(Dir::Bi), Ok(()));
        assert_eq!(flow.on_stream(Dir::Bi), Err(Broken::Limit));
    }

    #[test]
    fn capsules_that_must_not_be_break_the_session() {
        let most = STREAMS_MAX;
        for (kind, value, expected) in [
            (capsule::WT_MAX_DATA, value(100), Err(Broken::Limit)),
            (capsule::WT_MAX_DATA, value(101), Ok(Raised::Data)),
            (capsule::WT_MAX_DATA, vec![], Err(Broken::Malformed)),
            (capsule::WT_MAX_DATA, vec![0x40], Err(Broken::Malformed)),
            (capsule::WT_MAX_DATA, vec![63, 0], Err(Broken::Malformed)),
            (capsule::WT_MAX_STREAMS_BIDI, value(3), Err(Broken::Limit)),
            (capsule::WT_MAX_STREAMS_BIDI, value(most), Ok(Raised::Streams(Dir::Bi))),
            (capsule::WT_MAX_STREAMS_UNI, value(most + 1), Err(Broken::Limit)),
            (capsule::WT_MAX_STREAMS_UNI, value(3), Ok(Raised::Streams(Dir::Uni))),
            (capsule::WT_STREAMS_BLOCKED_UNI, value(most + 1), Err(Broken::Limit)),
            (capsule::WT_STREAMS_BLOCKED_BIDI, value(0), Ok(Raised::Nothing)),
            (capsule::WT_DATA_BLOCKED, value(VARINT_MAX), Ok(Raised::Nothing)),
            (capsule::WT_DATA_BLOCKED, vec![], Err(Broken::Malformed)),
            (capsule::WT_MAX_STREAM_DATA, vec![0, 9], Err(Broken::Limit)),
            (capsule::WT_STREAM_DATA_BLOCKED, vec![0, 9], Err(Broken::Limit)),
            (0x1234, vec![9; 9], Ok(Raised::Nothing)),
        ] {
            assert_eq!(Flow::new(SMALL, SMALL).on_capsule(kind, &value), expected, "{kind:#x} {value:?}");
        }
    }

    /// What one end does in a step of the model.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Open(Dir),
        Send(u64),
        /// Half of what is under way is never sent.
        Abort,
        Read(u64),
        EndStream(Dir),
        Deliver,
    }

    fn act() -> impl Strategy<Value = Act> {
        let dir = || prop_oneof![Just(Dir::Bi), Just(Dir::Uni)];
        prop_oneof![
            dir().prop_map(Act::Open),
            (1..80u64).prop_map(Act::Send),
            Just(Act::Abort),
            (1..80u64).prop_map(Act::Read),
            dir().prop_map(Act::EndStream),
            Just(Act::Deliver),
        ]
    }

    /// A sender, a receiver, and what is between them.
    struct Pair {
        from: Flow,
        to: Flow,
        flying: u64,
        unread: u64,
        open: [u64; 2],
    }

    impl Pair {
        fn deliver(&mut self) -> Result<(), Broken> {
            self.to.on_data(std::mem::take(&mut self.flying), 0)?;
            for (kind, value) in capsules(&mut self.to) {
                self.from.on_capsule(kind, &value)?;
            }
            for (kind, value) in capsules(&mut self.from) {
                self.to.on_capsule(kind, &value)?;
            }
            Ok(())
        }

        fn step(&mut self, act: Act) -> Result<(), Broken> {
            match act {
                Act::Open(dir) if self.from.open(dir) => {
                    self.open[dir as usize] += 1;
                    self.to.on_stream(dir)?;
                }
                Act::Send(n) => {
                    let n = self.from.take(n);
                    (self.flying, self.unread) = (self.flying + n, self.unread + n);
                }
                Act::Abort => {
                    let n = self.flying / 2;
                    (self.flying, self.unread) = (self.flying - n, self.unread - n);
                    self.from.give_back(n);
                }
                Act::Read(n) => {
                    let n = n.min(self.unread - self.flying);
                    self.unread -= n;
                    self.to.on_data(0, n)?;
                }
                Act::EndStream(dir) if self.open[dir as usize] > 0 => {
                    self.open[dir as usize] -= 1;
                    self.to.on_stream_over(dir);
                }
                Act::Deliver => self.deliver()?,
                Act::Open(_) | Act::EndStream(_) => {}
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn honest_ends_never_break_a_limit_and_never_stall(
            acts in proptest::collection::vec(act(), 0..200),
            (bi, uni, data) in (1..6u64, 1..6u64, 1..200u64),
        ) {
            let limits = Limits { streams: [bi, uni], data };
            let mut pair =
                Pair { from: Flow::new(limits, limits), to: Flow::new(limits, limits), flying: 0, unread: 0, open: [0; 2] };
            for act in acts {
                prop_assert_eq!(pair.step(act), Ok(()));
            }
            // When everything is read and every stream has ended, all can go on.
            prop_assert_eq!(pair.deliver(), Ok(()));
            pair.step(Act::Read(u64::MAX)).unwrap();
            for dir in [Dir::Bi, Dir::Uni] {
                while pair.open[dir as usize] > 0 {
                    pair.step(Act::EndStream(dir)).unwrap();
                }
            }
            prop_assert_eq!(pair.deliver(), Ok(()));
            prop_assert_eq!(pair.from.take(1), 1);
            prop_assert!(pair.from.open(Dir::Bi) && pair.from.open(Dir::Uni));
        }
    }
}
