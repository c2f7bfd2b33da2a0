//! Opening, closing, resetting, limits on numbers, events.

use super::*;
use crate::error::ApiMisuse;
use crate::ids::Dir;
use crate::stream::{ReadError, StreamEvent, WriteError};

fn events(end: &mut End) -> Vec<StreamEvent> {
    core::iter::from_fn(|| end.s.poll_event()).collect()
}

/// A stream that carries a few bytes each way and is over.
fn request(a: &mut End, b: &mut End) -> StreamId {
    let id = a.s.open(Dir::Bi).unwrap();
    a.write(id, b"ask");
    a.s.finish(id).unwrap();
    settle(a, b);
    assert_eq!(b.s.accept(Dir::Bi), Some(id));
    let mut got = Vec::new();
    assert!(b.read_all(id, &mut got));
    assert_eq!(got, b"ask");
    b.write(id, b"answer");
    b.s.finish(id).unwrap();
    settle(a, b);
    got.clear();
    assert!(a.read_all(id, &mut got));
    assert_eq!(got, b"answer");
    id
}

#[test]
fn the_bytes_that_are_held_in_each_direction_are_counted() {
    // LS-STRM-18
    let (mut a, mut b) = pair(&Settings::default());
    let id = a.s.open(Dir::Uni).unwrap();
    a.write(id, &[7; 3000]);
    let packet = a.packet(1200, true).unwrap();
    assert_eq!((a.s.stats().buffered_out, a.s.stats().buffered_in), (3000, 0), "sent bytes are held too");
    b.deliver(&packet).unwrap();
    let came = b.s.stats().buffered_in;
    assert!((1190..1200).contains(&came) && b.s.stats().buffered_out == 0, "{came}");
    a.fate(&packet, Fate::Acked);
    assert_eq!(a.s.stats().buffered_out, 3000 - came, "what arrived is freed");
    b.s.accept(Dir::Uni);
    b.s.consume(id, 1000, &mut b.pool).unwrap();
    assert_eq!(b.s.stats().buffered_in, came - 1000);
}

/// Holds that an end remembers nothing of `closed` streams but that they are closed.
#[track_caller]
fn assert_nothing_left(end: &End, closed: u64) {
    let stats = end.s.stats();
    assert_eq!((stats.open, stats.active, stats.closed), (0, 0, closed));
    assert_eq!((stats.buffered_in, stats.buffered_out, end.pool.in_use()), (0, 0, 0));
    assert!(end.s.remote.iter().all(|r| r.closed.len() <= 1), "closed streams are one range");
    assert!(end.pool.stats().allocated < 10);
    assert_eq!((end.s.active.blocked(), end.s.control.len(), end.s.starved.len()), (0, 0, 0), "no list holds one");
    assert!(end.s.events.is_empty() && end.s.table.len() == 0);
}

#[test]
fn a_hundred_thousand_streams_leave_nothing() {
    // LS-STRM-19
    let (mut a, mut b) = pair(&Settings::default());
    for i in 0..100_000 {
        let id = request(&mut a, &mut b);
        //= rfc9000#2.1-1 type=test
        assert_eq!(id, StreamId(i * 4), "IDs grow by four without gaps");
        events(&mut a);
        events(&mut b);
    }
    assert_nothing_left(&a, 100_000);
    assert_nothing_left(&b, 100_000);
}

#[test]
fn a_million_streams_one_after_the_other_are_remembered_as_one_range() {
    // LS-GQ-04
    let (mut a, mut b) = pair(&Settings::default());
    let mut got = Vec::new();
    for i in 0..1_000_000 {
        let id = a.s.open(Dir::Uni).unwrap();
        assert_eq!(id, StreamId(i * 4 + 2));
        a.write(id, b"tell");
        a.s.finish(id).unwrap();
        let p = a.packet(40, true).unwrap();
        b.deliver(&p).unwrap();
        assert_eq!(b.s.accept(Dir::Uni), Some(id));
        got.clear();
        assert!(b.read_all(id, &mut got) && got == b"tell");
        a.fate(&p, Fate::Acked);
        let (mine, theirs) = (&a.s.remote, &b.s.remote);
        assert!(mine.iter().chain(theirs).all(|r| r.closed.len() <= 1), "closed streams are one range");
        if i % 16 == 0 {
            // Credit for more streams; and whoever looks at events finds few.
            settle(&mut a, &mut b);
            assert!(events(&mut a).len() <= 17 && events(&mut b).len() <= 34);
        }
    }
    settle(&mut a, &mut b);
    events(&mut a);
    events(&mut b);
    assert_nothing_left(&a, 1_000_000);
    assert_nothing_left(&b, 1_000_000);
}

#[test]
fn a_reset_leaves_nothing_of_the_data_on_the_wire() {
    //= rfc9000#3.3-2 type=test
    let (mut a, mut b) = pair(&Settings::default());
    let id = a.s.open(Dir::Uni).unwrap();
    a.write(id, &[7; 50_000]);
    let first = a.packet(1200, true).unwrap();
    a.s.reset(id, 42, &mut a.pool).unwrap();
    assert_eq!(a.pool.in_use(), 0);
    a.fate(&first, Fate::Lost);
    let only = a.packet(1200, true).unwrap();
    assert_eq!(only.records, [Record::ResetStream(id)]);
    assert!(only.payload.len() < 20 && a.packet(1200, true).is_none());
    a.fate(&only, Fate::Lost);
    let again = a.packet(1200, true).unwrap();
    //= rfc9000#13.3-1 type=test
    assert_eq!(again.payload, only.payload);
    b.deliver(&again).unwrap();
    assert_eq!(b.s.accept(Dir::Uni), Some(id));
    assert_eq!(events(&mut b), [StreamEvent::Opened { dir: Dir::Uni }, StreamEvent::Readable(id)]);
    assert_eq!(b.s.read(id, &mut [0; 9], &mut b.pool), Err(ReadError::Reset(42)));
    a.fate(&again, Fate::Acked);
    assert_eq!((a.s.stats().open, b.s.stats().open), (0, 0));
    assert_eq!(b.s.received, b.s.recv_credit.consumed(), "bytes that never came count as consumed");
    assert_eq!(b.s.read(id, &mut [0; 9], &mut b.pool), Err(ReadError::Misuse(ApiMisuse::UnknownStream)));
}

#[test]
fn stop_sending_is_answered_with_a_reset_and_the_same_code() {
    //= rfc9000#3.5-2 type=test
    //= rfc9000#3.5-4 type=test
    let (mut a, mut b) = pair(&Settings::default());
    let id = a.s.open(Dir::Uni).unwrap();
    a.write(id, &[7; 5000]);
    let p = a.packet(1200, true).unwrap();
    b.deliver(&p).unwrap();
    b.s.accept(Dir::Uni).unwrap();
    b.s.stop_sending(id, 99, &mut b.pool).unwrap();
    assert_eq!(b.pool.in_use(), 0, "what came is thrown away");
    assert_eq!(b.s.read(id, &mut [0; 9], &mut b.pool), Err(ReadError::Stopped));
    settle(&mut a, &mut b);
    assert_eq!(events(&mut a), [StreamEvent::Stopped { id, code: 99 }]);
    assert_eq!((a.s.stats().open, b.s.stats().open), (0, 0));
    assert_eq!(b.s.received, b.s.recv_credit.consumed());
}

#[test]
fn opening_waits_for_the_peer_and_goes_on_when_streams_close() {
    //= rfc9000#4.6-2 type=test
    //= rfc9000#4.6-5 type=test
    let settings = Settings { max_streams_bidi: 100, ..Settings::default() };
    let (mut a, mut b) = pair(&settings);
    // LS-GQ-09: whoever is refused is told once when there is room, and opens the rest then.
    let ids: Vec<_> = (0..200).filter_map(|_| a.s.open(Dir::Bi)).collect();
    assert_eq!((ids.len(), a.s.stats().delayed), (100, 1));
    // LS-IF-04
    assert!(ids.windows(2).all(|w| w[1].0 == w[0].0 + 4), "numbers without gaps");
    assert_eq!(a.s.due(FrameKind::StreamsBlockedBidi), Some(100));
    for id in &ids {
        a.s.finish(*id).unwrap();
    }
    settle(&mut a, &mut b);
    assert_eq!(b.s.due(FrameKind::MaxStreamsBidi), None);
    while let Some(id) = b.s.accept(Dir::Bi) {
        assert!(b.read_all(id, &mut Vec::new()));
        b.s.finish(id).unwrap();
    }
    settle(&mut a, &mut b);
    for id in &ids {
        assert!(a.read_all(*id, &mut Vec::new()));
    }
    let available = |e: &StreamEvent| *e == StreamEvent::Available { dir: Dir::Bi };
    assert_eq!(events(&mut a).into_iter().filter(available).count(), 1);
    assert_eq!((0..200).filter_map(|_| a.s.open(Dir::Bi)).count(), 100, "the other hundred");
    assert_eq!(a.s.stats().delayed, 2, "and at the new limit it waits again");
}

#[test]
fn misuse_has_a_defined_answer() {
    let (mut a, mut b) = pair(&Settings::default());
    let uni = a.s.open(Dir::Uni).unwrap();
    let misuse = |m| Err(WriteError::Misuse(m));
    assert_eq!(a.s.read(uni, &mut [0; 1], &mut a.pool), Err(ReadError::Misuse(ApiMisuse::WrongDirection)));
    assert_eq!(b.s.write(uni, b"x", &mut b.pool), misuse(ApiMisuse::WrongDirection));
    assert_eq!(a.s.write(StreamId(400), b"x", &mut a.pool), misuse(ApiMisuse::UnknownStream));
    assert_eq!(a.s.reset(uni, u64::MAX, &mut a.pool), Err(ApiMisuse::CodeTooLarge));
    a.s.finish(uni).unwrap();
    assert_eq!(a.s.write(uni, b"x", &mut a.pool), misuse(ApiMisuse::WriteAfterFinish));
    assert_eq!(a.s.finish(uni), Err(WriteError::Misuse(ApiMisuse::WriteAfterFinish)));
    assert_eq!(a.s.accept(Dir::Bi), None);
}
