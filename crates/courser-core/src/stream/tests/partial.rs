//! Resets that still deliver the beginning of a stream.

use proptest::prelude::*;

use super::*;
use crate::error::{ApiMisuse, TransportCode};
use crate::ids::Dir;
use crate::stream::{Read, ReadError, StreamEvent, WriteError};

fn reset(code: u64, reliable_size: u64) -> PartialReset {
    PartialReset { code, reliable_size }
}

impl End {
    fn reset_at(&mut self, id: StreamId, reliable_size: u64) {
        self.s.reset_at(id, reset(7, reliable_size), &mut self.pool).unwrap();
    }

    /// Reads until nothing more comes; the bytes and how it ended.
    fn read_to_stop(&mut self, id: StreamId) -> (Vec<u8>, Result<Read, ReadError>) {
        let (mut all, mut buf) = (Vec::new(), [0; 700]);
        loop {
            match self.s.read(id, &mut buf, &mut self.pool) {
                Ok(Read::Bytes(n)) => all.extend_from_slice(&buf[..n]),
                end => return (all, end),
            }
        }
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let stats = self.s.stats();
        assert_eq!((stats.open, stats.active, stats.buffered_in, stats.buffered_out), (0, 0, 0, 0));
        assert_eq!(self.pool.in_use(), 0);
        assert_eq!(self.s.received, self.s.recv_credit.consumed(), "every byte that counts was given back as credit");
    }
}

/// The RESET_STREAM_AT frames of a packet: final and reliable size.
fn resets(p: &Packet) -> Vec<(u64, u64)> {
    let all = frames(&p.payload, Level::OneRtt, Extensions { reset_stream_at: true, ..Extensions::NONE });
    all.filter_map(|f| match f.unwrap() {
        Frame::ResetStreamAt { final_size, reliable_size, code, .. } => {
            assert_eq!(code, 7, "the first code stays");
            Some((final_size, reliable_size))
        }
        _ => None,
    })
    .collect()
}

fn packets(end: &mut End) -> Vec<Packet> {
    core::iter::from_fn(|| end.packet(1200, true)).collect()
}

/// A stream of `a` with so many bytes written.
fn written(len: usize) -> (End, End, StreamId) {
    let (mut a, b) = pair(&Settings::default());
    let id = a.s.open(Dir::Uni).unwrap();
    assert_eq!(a.write(id, &pattern(id, 0, len)), len);
    (a, b, id)
}

#[test]
fn what_is_promised_arrives_and_then_the_reset_is_told() {
    //= reset-stream-at#5-1 type=test
    let (mut a, mut b, id) = written(5000);
    a.reset_at(id, 3000);
    assert_eq!(a.s.stats().buffered_out, 3000, "the rest is dropped at once");
    settle(&mut a, &mut b);
    assert_eq!(b.s.accept(Dir::Uni), Some(id));
    assert_eq!(b.s.peek(id).map(|p| p.len()), Ok(3000));
    assert!(!b.s.is_at_end(id));
    assert_eq!(b.read_to_stop(id), (pattern(id, 0, 3000), Err(ReadError::Reset(7))));
    assert_eq!(b.s.read(id, &mut [0; 9], &mut b.pool), Err(ReadError::Misuse(ApiMisuse::UnknownStream)));
    a.assert_nothing_left();
    b.assert_nothing_left();
    let events: Vec<_> = core::iter::from_fn(|| a.s.poll_event()).collect();
    assert_eq!(events, [StreamEvent::ResetDelivered(id)], "what was dropped is not reported as arrived");
}

#[test]
fn the_reset_is_told_behind_the_bytes_however_they_are_read() {
    let (mut a, mut b, id) = written(100);
    a.reset_at(id, 100);
    settle(&mut a, &mut b);
    b.s.accept(Dir::Uni).unwrap();
    assert_eq!(b.s.peek(id).map(|p| p.len()), Ok(100));
    assert_eq!(b.s.consume(id, 100, &mut b.pool), Ok(Read::Bytes(100)));
    assert!(!b.s.is_at_end(id), "the next read does not say that the stream finished");
    assert_eq!(b.s.peek(id), Err(ReadError::Reset(7)));
    assert_eq!(b.s.consume(id, 0, &mut b.pool), Err(ReadError::Reset(7)));
    b.assert_nothing_left();
}

#[test]
fn lost_data_is_sent_again_as_far_as_it_is_promised() {
    //= reset-stream-at#5-2, reset-stream-at#5-3 type=test
    let (mut a, mut b, id) = written(5000);
    let lost = packets(&mut a);
    a.reset_at(id, 1500);
    lost.iter().for_each(|p| a.fate(p, Fate::Lost));
    let again = packets(&mut a);
    let ranges = again.iter().flat_map(|p| &p.records).filter_map(|r| match r {
        Record::Stream(s) => Some(s.offset..s.end()),
        _ => None,
    });
    let mut at = 0;
    for range in ranges {
        assert_eq!(range.start, at);
        at = range.end;
    }
    assert_eq!(at, 1500);
    assert_eq!(again.iter().flat_map(resets).collect::<Vec<_>>(), [(5000, 1500)], "what left counts");
    for p in &again {
        b.deliver(p).unwrap();
        a.fate(p, Fate::Acked);
    }
    a.assert_nothing_left();
    b.s.accept(Dir::Uni).unwrap();
    assert_eq!(b.read_to_stop(id), (pattern(id, 0, 1500), Err(ReadError::Reset(7))));
    b.assert_nothing_left();
}

#[test]
fn the_frame_is_sent_again_until_it_arrived() {
    //= reset-stream-at#4-5 type=test
    let (mut a, mut b, id) = written(100);
    a.reset_at(id, 100);
    let data = a.packet(1200, true).unwrap();
    assert_eq!(resets(&data), []);
    for _ in 0..3 {
        let p = a.packet(1200, true).unwrap();
        assert_eq!(resets(&p), [(100, 100)]);
        assert!(a.packet(1200, true).is_none(), "once");
        a.fate(&p, Fate::Lost);
    }
    let p = a.packet(1200, true).unwrap();
    b.deliver(&p).unwrap();
    a.fate(&p, Fate::Acked);
    assert_eq!(a.s.stats().open, 1, "the data is not there yet");
    b.deliver(&data).unwrap();
    a.fate(&data, Fate::Acked);
    a.assert_nothing_left();
}

#[test]
fn the_frame_is_not_needed_when_everything_arrived_with_its_end() {
    //= reset-stream-at#4-5 type=test
    let (mut a, mut b, id) = written(100);
    a.s.finish(id).unwrap();
    let data = a.packet(1200, true).unwrap();
    a.reset_at(id, 50);
    let frame = a.packet(1200, true).unwrap();
    assert_eq!(resets(&frame), [(100, 50)], "the end that FIN told stays");
    a.fate(&frame, Fate::Lost);
    b.deliver(&data).unwrap();
    a.fate(&data, Fate::Acked);
    assert!(a.packet(1200, true).is_none());
    a.assert_nothing_left();
    assert_eq!(core::iter::from_fn(|| a.s.poll_event()).collect::<Vec<_>>(), [StreamEvent::AllAcked(id)]);
    assert!(a.s.is_finished_acked(id));
    // A reset that overtakes the FIN, or comes behind it, changes nothing for a reader who has everything.
    b.deliver(&frame).unwrap();
    b.s.accept(Dir::Uni).unwrap();
    assert_eq!(b.read_to_stop(id), (pattern(id, 0, 100), Ok(Read::Finished)));
    b.assert_nothing_left();
}

#[test]
fn a_final_size_beyond_the_credit_waits_for_it() {
    //= reset-stream-at#4-2 type=test
    let settings = Settings { stream_window: 1000, stream_window_max: 1000, ..Settings::default() };
    for (stream, conn) in [(1000, 1 << 20), (1 << 20, 1000)] {
        let settings = Settings {
            stream_window: stream,
            stream_window_max: stream,
            conn_window: conn,
            conn_window_max: conn,
            ..settings.clone()
        };
        let (mut a, mut b) = pair(&settings);
        let id = a.s.open(Dir::Uni).unwrap();
        a.write(id, &pattern(id, 0, 2500));
        a.reset_at(id, 2500);
        let mut got = Vec::new();
        let mut told = Vec::new();
        let end = loop {
            for p in packets(&mut a) {
                for (final_size, reliable_size) in resets(&p) {
                    let limit = b.s.recv_credit.limit().min(b.s.table.lookup(id).unwrap().recv.credit.limit());
                    assert!(final_size <= limit && reliable_size == 2500, "{final_size} within {limit}");
                    told.push(final_size);
                }
                b.deliver(&p).unwrap();
                a.fate(&p, Fate::Acked);
            }
            b.s.accept(Dir::Uni);
            let (bytes, end) = b.read_to_stop(id);
            got.extend(bytes);
            if end != Ok(Read::Blocked) {
                break end;
            }
            assert!(got.len() < 2500);
            settle(&mut a, &mut b);
        };
        assert_eq!((got, end), (pattern(id, 0, 2500), Err(ReadError::Reset(7))));
        assert!(told.iter().all(|f| *f == 2500));
        settle(&mut a, &mut b);
        a.assert_nothing_left();
        b.assert_nothing_left();
    }
}

#[test]
fn a_promise_can_be_lowered_and_never_raised() {
    //= reset-stream-at#5.2-1, reset-stream-at#5.2-2, reset-stream-at#5.2-5 type=test
    let (mut a, mut b, id) = written(5000);
    let data = packets(&mut a);
    a.reset_at(id, 4000);
    let high = a.packet(1200, true).unwrap();
    assert_eq!(resets(&high), [(5000, 4000)]);
    a.reset_at(id, 4500);
    assert!(a.packet(1200, true).is_none(), "it is not raised");
    // Another code is ignored: the first one was told.
    a.s.reset_at(id, reset(99, 1000), &mut a.pool).unwrap();
    let low = a.packet(1200, true).unwrap();
    assert_eq!(resets(&low), [(5000, 1000)]);
    // The acknowledgement of the higher promise says nothing of the lower one; its loss has nothing sent.
    a.fate(&high, Fate::Acked);
    data.iter().for_each(|p| a.fate(p, Fate::Acked));
    assert_eq!(a.s.stats().open, 1);
    a.fate(&low, Fate::Lost);
    let again = a.packet(1200, true).unwrap();
    assert_eq!(resets(&again), [(5000, 1000)]);
    a.fate(&high, Fate::Lost);
    assert!(a.packet(1200, true).is_none());
    a.fate(&again, Fate::Acked);
    a.assert_nothing_left();
    // The frames arrive in the wrong order: the lower one stays.
    //= reset-stream-at#5.2-4 type=test
    b.deliver(&data[0]).unwrap();
    b.deliver(&again).unwrap();
    b.deliver(&high).unwrap();
    b.s.accept(Dir::Uni).unwrap();
    assert_eq!(b.read_to_stop(id), (pattern(id, 0, 1000), Err(ReadError::Reset(7))));
    b.assert_nothing_left();
}

#[test]
fn nothing_behind_the_lower_promise_is_waited_for() {
    //= reset-stream-at#5.2-3 type=test
    let (mut a, mut b, id) = written(5000);
    let data = packets(&mut a);
    a.reset_at(id, 4000);
    let high = a.packet(1200, true).unwrap();
    a.reset_at(id, 500);
    let low = a.packet(1200, true).unwrap();
    b.deliver(&data[3]).unwrap();
    b.deliver(&data[0]).unwrap();
    b.deliver(&high).unwrap();
    b.s.accept(Dir::Uni).unwrap();
    let mut first = [0; 200];
    assert_eq!(b.s.read(id, &mut first, &mut b.pool), Ok(Read::Bytes(200)));
    b.deliver(&low).unwrap();
    assert!(b.pool.in_use() <= 1, "what nobody will read is forgotten");
    b.deliver(&data[1]).unwrap();
    assert_eq!(b.s.stats().buffered_in, 300, "and what still comes is not kept");
    let (rest, end) = b.read_to_stop(id);
    assert_eq!(([&first[..], &rest].concat(), end), (pattern(id, 0, 500), Err(ReadError::Reset(7))));
    b.assert_nothing_left();
}

#[test]
fn a_reader_who_is_beyond_the_promise_already_is_told_at_once() {
    let (mut a, mut b, id) = written(1000);
    let data = packets(&mut a);
    b.deliver(&data[0]).unwrap();
    b.s.accept(Dir::Uni).unwrap();
    assert_eq!(b.read_to_stop(id).0.len(), 1000);
    a.reset_at(id, 300);
    settle(&mut a, &mut b);
    assert_eq!(b.read_to_stop(id), (vec![], Err(ReadError::Reset(7))));
    b.assert_nothing_left();
}

#[test]
fn a_full_reset_replaces_the_partial_one_with_the_same_code_and_size() {
    //= reset-stream-at#5.2-5 type=test
    let (mut a, _, id) = written(3000);
    let data = packets(&mut a);
    a.reset_at(id, 3000);
    let partial = a.packet(1200, true).unwrap();
    a.s.reset(id, 99, &mut a.pool).unwrap();
    assert_eq!(a.pool.in_use(), 0);
    let full = a.packet(1200, true).unwrap();
    let frame = frames(&full.payload, Level::OneRtt, Extensions::NONE).next();
    assert_eq!(frame, Some(Ok(Frame::ResetStream { id, code: 7, final_size: 3000 })));
    a.fate(&partial, Fate::Lost);
    data.iter().for_each(|p| a.fate(p, Fate::Lost));
    assert!(a.packet(1200, true).is_none());
    a.fate(&full, Fate::Acked);
    a.assert_nothing_left();
    for order in [[&partial, &full], [&full, &partial]] {
        let (_, mut b) = pair(&Settings::default());
        order.iter().for_each(|p| b.deliver(p).unwrap());
        b.deliver(&data[0]).unwrap();
        b.s.accept(Dir::Uni).unwrap();
        assert_eq!(b.read_to_stop(id), (vec![], Err(ReadError::Reset(7))));
        b.assert_nothing_left();
    }
}

#[test]
fn stop_sending_is_answered_with_a_full_reset() {
    //= reset-stream-at#5.4-1 type=test
    for lost_first in [false, true] {
        let (mut a, mut b, id) = written(3000);
        let data = packets(&mut a);
        a.reset_at(id, 2000);
        let partial = a.packet(1200, true).unwrap();
        b.deliver(&data[0]).unwrap();
        if lost_first {
            a.fate(&partial, Fate::Lost);
        } else {
            b.deliver(&partial).unwrap();
        }
        b.s.accept(Dir::Uni).unwrap();
        b.s.stop_sending(id, 55, &mut b.pool).unwrap();
        assert_eq!(b.pool.in_use(), 0);
        let stop = b.packet(1200, true).unwrap();
        a.deliver(&stop).unwrap();
        b.fate(&stop, Fate::Acked);
        let answer = a.packet(1200, true).unwrap();
        let frame = frames(&answer.payload, Level::OneRtt, Extensions::NONE).next();
        assert_eq!(frame, Some(Ok(Frame::ResetStream { id, code: 7, final_size: 3000 })), "the code cannot change");
        b.deliver(&answer).unwrap();
        a.fate(&answer, Fate::Acked);
        a.assert_nothing_left();
        settle(&mut a, &mut b);
        b.assert_nothing_left();
    }
}

#[test]
fn a_stream_that_the_peer_stopped_is_reset_fully() {
    let (mut a, _, id) = written(1000);
    a.s.finish(id).unwrap();
    packets(&mut a);
    a.frame(&Frame::StopSending { id, code: 55 }).unwrap();
    assert!(a.packet(1200, true).is_none(), "all of it is in flight and may arrive");
    a.reset_at(id, 1000);
    let answer = a.packet(1200, true).unwrap();
    let frame = frames(&answer.payload, Level::OneRtt, Extensions::NONE).next();
    assert_eq!(frame, Some(Ok(Frame::ResetStream { id, code: 7, final_size: 1000 })));
}

#[test]
fn misuse_has_a_defined_answer() {
    let (mut a, mut b, id) = written(100);
    let call = |end: &mut End, code, size| end.s.reset_at(id, reset(code, size), &mut end.pool);
    assert_eq!(call(&mut a, 1, 101), Err(ApiMisuse::NotWritten));
    assert_eq!(call(&mut a, 1 << 62, 1), Err(ApiMisuse::CodeTooLarge));
    assert_eq!(call(&mut b, 1, 1), Err(ApiMisuse::WrongDirection));
    assert_eq!(call(&mut a, 7, 100), Ok(()));
    let refused = Err(WriteError::Misuse(ApiMisuse::WriteAfterFinish));
    assert_eq!(a.s.write(id, b"x", &mut a.pool).map(|_| ()), refused);
    assert_eq!(a.s.finish(id), refused);
    // A peer that does not know the frame gets none; giving everything up it does understand.
    let mut old = End::new(Side::Client, &Settings::default());
    old.s.set_peer_params(&TransportParams {
        reset_stream_at: false,
        ..TransportParams::limits_of(&Settings::default())
    });
    let id = old.s.open(Dir::Uni).unwrap();
    old.write(id, b"ab");
    assert_eq!(old.s.reset_at(id, reset(1, 1), &mut old.pool), Err(ApiMisuse::NotNegotiated));
    assert_eq!(old.s.reset_at(id, reset(1, 0), &mut old.pool), Ok(()));
    assert_eq!(old.packet(1200, true).unwrap().records, [Record::ResetStream(id)]);
}

#[test]
fn rejected_early_data_is_promised_anew_or_given_up() {
    let settings = Settings::default();
    for still in [true, false] {
        let (mut a, _, id) = written(3000);
        packets(&mut a);
        a.reset_at(id, 1000);
        packets(&mut a);
        a.s.restart(&TransportParams { reset_stream_at: still, ..TransportParams::limits_of(&settings) });
        a.s.drop_partial(&mut a.pool);
        let again = packets(&mut a);
        let told: Vec<_> = again.iter().flat_map(resets).collect();
        assert_eq!(told, if still { vec![(1000, 1000)] } else { vec![] }, "what never came does not count");
        let reset = again.iter().any(|p| p.records == [Record::ResetStream(id)]);
        assert_eq!(reset, !still);
    }
}

/// What a server says to these frames of its client.
fn verdict(all: &[Frame<'_>]) -> Option<TransportCode> {
    let settings = Settings { stream_window: 100, conn_window: 150, ..Settings::default() };
    let (_, mut server) = pair(&settings);
    let (last, first) = all.split_last().unwrap();
    first.iter().for_each(|f| server.frame(f).unwrap());
    server.frame(last).err().map(|v| v.code)
}

#[test]
fn each_broken_rule_has_its_code() {
    let id = StreamId::new(Side::Client, Dir::Uni, 0);
    let other = StreamId::new(Side::Client, Dir::Uni, 1);
    let at = |code, final_size, reliable_size| Frame::ResetStreamAt { id, code, final_size, reliable_size };
    let full = |code, final_size| Frame::ResetStream { id, code, final_size };
    let stream = |offset, data: &'static [u8], fin| Frame::Stream { id, offset, data, fin, length_present: true };
    //= reset-stream-at#4-3 type=test
    assert_eq!(verdict(&[at(1, 100, 100)]), None);
    assert_eq!(verdict(&[at(1, 101, 0)]), Some(TransportCode::FLOW_CONTROL_ERROR));
    let much = Frame::Stream { id: other, offset: 99, data: b"x", fin: false, length_present: true };
    assert_eq!(verdict(&[much.clone(), at(1, 50, 0)]), None);
    assert_eq!(verdict(&[much, at(1, 51, 0)]), Some(TransportCode::FLOW_CONTROL_ERROR));
    //= reset-stream-at#5.2-6 type=test
    let (state, size) = (Some(TransportCode::STREAM_STATE_ERROR), Some(TransportCode::FINAL_SIZE_ERROR));
    assert_eq!(verdict(&[at(1, 50, 40), at(2, 50, 30)]), state);
    assert_eq!(verdict(&[at(1, 50, 40), full(2, 50)]), state);
    assert_eq!(verdict(&[full(1, 50), at(2, 50, 30)]), state);
    assert_eq!(verdict(&[at(1, 50, 0), at(2, 50, 0)]), state, "also when nothing is left to be delivered");
    assert_eq!(verdict(&[at(1, 50, 40), at(1, 51, 30)]), size);
    assert_eq!(verdict(&[at(1, 50, 40), at(1, 49, 30)]), size);
    assert_eq!(verdict(&[at(1, 50, 40), full(1, 49)]), size);
    assert_eq!(verdict(&[full(1, 50), at(1, 49, 30)]), size);
    assert_eq!(verdict(&[at(1, 50, 40), stream(50, b"x", false)]), size);
    assert_eq!(verdict(&[at(1, 50, 40), stream(40, b"x", true)]), size);
    assert_eq!(verdict(&[stream(0, b"abc", true), at(1, 4, 0)]), size);
    assert_eq!(verdict(&[stream(0, b"abc", false), at(1, 2, 0)]), size);
    for fine in [at(1, 50, 40), at(1, 50, 50), at(1, 50, 0), full(1, 50), stream(49, b"x", true)] {
        assert_eq!(verdict(&[at(1, 50, 40), fine.clone()]), None, "{fine:?}");
    }
}

/// One step of a random life of one stream.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64),
    Send(u64),
    /// A packet in flight arrives: from either end.
    Arrive(u64),
    /// It is declared lost; it may still arrive.
    Lose(u64),
    Read(u64),
    ResetAt(u64),
    Reset,
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..900u64).prop_map(Step::Write),
        8 => (60..700u64).prop_map(Step::Send),
        8 => (0..64u64).prop_map(Step::Arrive),
        4 => (0..64u64).prop_map(Step::Lose),
        4 => (1..900u64).prop_map(Step::Read),
        2 => (0..3000u64).prop_map(Step::ResetAt),
        1 => Just(Step::Finish),
        1 => prop::bool::weighted(0.2).prop_map(|yes| if yes { Step::Reset } else { Step::Send(100) }),
    ]
}

/// What the writer did, told without any of the machinery.
#[derive(Default)]
struct Story {
    written: u64,
    finished: bool,
    /// The lowest promise; `Some(0)` after a full reset.
    promised: Option<u64>,
}

/// A packet on its way, whether from the writer, and whether it was declared lost.
type Flight = (Packet, bool, bool);

struct Life {
    a: End,
    b: End,
    id: StreamId,
    story: Story,
    flight: Vec<Flight>,
    got: Vec<u8>,
    end: Option<Result<Read, ReadError>>,
}

impl Life {
    fn new(window: u64) -> Self {
        let settings = Settings {
            stream_window: window,
            stream_window_max: window,
            conn_window: window + 100,
            conn_window_max: window + 100,
            ..Settings::default()
        };
        let (mut a, b) = pair(&settings);
        let id = a.s.open(Dir::Uni).unwrap();
        Self { a, b, id, story: Story::default(), flight: Vec::new(), got: Vec::new(), end: None }
    }

    fn send(&mut self, size: usize) -> bool {
        let from_a = self.a.packet(size, true);
        let from_b = self.b.packet(size, true);
        let any = from_a.is_some() || from_b.is_some();
        self.flight.extend(from_a.map(|p| (p, true, false)));
        self.flight.extend(from_b.map(|p| (p, false, false)));
        any
    }

    fn arrive(&mut self, at: usize) {
        let (p, from_a, _) = self.flight.swap_remove(at);
        let (from, to) = if from_a { (&mut self.a, &mut self.b) } else { (&mut self.b, &mut self.a) };
        to.deliver(&p).unwrap();
        from.fate(&p, Fate::Acked);
    }

    fn lose(&mut self, at: usize, arrives_late: bool) {
        let (p, from_a, lost) = &mut self.flight[at];
        if !core::mem::replace(lost, true) {
            let from = if *from_a { &mut self.a } else { &mut self.b };
            from.fate(p, Fate::Lost);
        }
        if !arrives_late {
            self.flight.swap_remove(at);
        }
    }

    fn read(&mut self, n: usize) {
        while self.b.s.accept(Dir::Uni).is_some() {}
        if self.end.is_some() || self.b.s.remote[Dir::Uni as usize].accepted == 0 {
            return;
        }
        let mut buf = vec![0; n];
        match self.b.s.read(self.id, &mut buf, &mut self.b.pool) {
            Ok(Read::Bytes(n)) => self.got.extend_from_slice(&buf[..n]),
            Ok(Read::Blocked) => {}
            end => self.end = Some(end),
        }
    }

    /// The writer's calls; those that come too late change nothing.
    fn call(&mut self, step: Step) {
        let (s, pool, id) = (&mut self.a.s, &mut self.a.pool, self.id);
        let over = self.story.finished || self.story.promised.is_some();
        match step {
            Step::Write(n) if !over => {
                let data = pattern(id, self.story.written as usize, n as usize);
                self.story.written += s.write(id, &data, pool).unwrap() as u64;
            }
            Step::Finish if !over => {
                s.finish(id).unwrap();
                self.story.finished = true;
            }
            // A stream that is done is gone.
            Step::ResetAt(at) if s.table.lookup(id).is_some() => {
                let at = at.min(self.story.promised.unwrap_or(self.story.written));
                s.reset_at(id, reset(7, at), pool).unwrap();
                self.story.promised = Some(at);
            }
            Step::Reset if s.table.lookup(id).is_some() => {
                s.reset(id, 7, pool).unwrap();
                self.story.promised = Some(0);
            }
            _ => {}
        }
    }

    fn step(&mut self, step: Step) {
        self.a.tick(500);
        self.b.tick(500);
        let pick = |n: u64, flight: &[Flight]| (!flight.is_empty()).then(|| n as usize % flight.len());
        match step {
            Step::Send(size) => _ = self.send(size as usize),
            Step::Arrive(n) => _ = pick(n, &self.flight).map(|at| self.arrive(at)),
            Step::Lose(n) => _ = pick(n, &self.flight).map(|at| self.lose(at, n % 3 != 0)),
            Step::Read(n) => self.read(n as usize),
            call => self.call(call),
        }
    }

    /// The network heals: everything that has to arrive does.
    fn finish(&mut self) {
        if !self.story.finished && self.story.promised.is_none() {
            self.call(Step::Finish);
        }
        for round in 0.. {
            assert!(round < 10_000, "no progress at {} of {}", self.got.len(), self.story.written);
            self.a.tick(500);
            self.b.tick(500);
            let any = self.send(1200);
            while !self.flight.is_empty() {
                // What was declared lost before and never came is gone for good.
                if self.flight[0].2 && round % 2 == 0 { self.lose(0, false) } else { self.arrive(0) }
            }
            let before = self.got.len();
            self.read(5000);
            if !any && before == self.got.len() && self.end.is_some() {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn nothing_below_the_lowest_promise_is_ever_lost(
        steps in prop::collection::vec(step(), 1..120),
        window in 200..4000u64,
    ) {
        let mut life = Life::new(window);
        steps.iter().for_each(|s| life.step(*s));
        life.finish();
        let got = life.got.len() as u64;
        prop_assert_eq!(&life.got, &pattern(life.id, 0, life.got.len()), "byte for byte");
        prop_assert!(got <= life.story.written);
        match life.end.unwrap() {
            Ok(Read::Finished) => prop_assert!(life.story.finished && got == life.story.written),
            Err(ReadError::Reset(7)) => prop_assert!(got >= life.story.promised.unwrap()),
            other => prop_assert!(false, "{:?}", other),
        }
        life.a.assert_nothing_left();
        life.b.assert_nothing_left();
    }
}

#[test]
fn a_stream_that_was_reset_or_has_arrived_promises_nothing_any_more() {
    let (mut a, mut b, id) = written(1_000);
    a.s.reset(id, 7, &mut a.pool).unwrap();
    a.reset_at(id, 500);
    let sent = packets(&mut a);
    assert!(
        sent.iter().all(|p| resets(p).is_empty()) && sent.iter().any(|p| p.frames.contains(FrameKind::ResetStream))
    );
    sent.iter().for_each(|p| b.deliver(p).unwrap());
    assert_eq!(b.s.accept(Dir::Uni), Some(id));
    assert_eq!(b.read_to_stop(id), (Vec::new(), Err(ReadError::Reset(7))), "the full reset stands");

    let (mut a, mut b, id) = written(1_000);
    a.s.finish(id).unwrap();
    let sent = packets(&mut a);
    sent.iter().for_each(|p| b.deliver(p).unwrap());
    assert_eq!(b.s.accept(Dir::Uni), Some(id));
    sent.iter().for_each(|p| a.fate(p, Fate::Acked));
    let _ = a.s.reset_at(id, reset(7, 500), &mut a.pool);
    assert!(packets(&mut a).is_empty(), "everything has arrived");
    assert_eq!(b.read_to_stop(id), (pattern(id, 0, 1_000).to_vec(), Ok(Read::Finished)));
}
