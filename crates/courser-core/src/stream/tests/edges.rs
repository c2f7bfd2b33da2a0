//! The edges of calls and turns: both sides of what is just enough, just full, or just over.

use bytes::Bytes;

use super::*;
use crate::config::StreamSchedule;
use crate::ids::Dir;
use crate::stream::{Read, StreamEvent};

/// The smallest send window, which `send_window: 0` stands for.
const WINDOW: usize = 64 << 10;

fn small_window() -> (End, End, StreamId) {
    let (mut a, b) = pair(&Settings { send_window: 0, ..Settings::default() });
    let id = a.s.open(Dir::Uni).unwrap();
    (a, b, id)
}

/// Whether the application hears that it can write when everything arrived.
fn hears_of_room(a: &mut End, b: &mut End, id: StreamId) -> bool {
    settle(a, b);
    let told = a.s.poll_event();
    assert!(told.is_none_or(|event| event == StreamEvent::Writable(id)), "{told:?}");
    told.is_some()
}

/// What the peer reads; of a stream that carried nothing it does not know.
fn received(b: &mut End, id: StreamId, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    assert_eq!(b.s.accept(Dir::Uni), (len > 0).then_some(id));
    if len > 0 {
        assert!(!b.read_all(id, &mut got));
    }
    got
}

#[test]
fn slices_are_taken_one_behind_the_other_until_the_window_is_full() {
    let half = vec![1; WINDOW / 2];
    let (full, over) = (&half[..], &half[..1]);
    for (slices, taken, waits) in [
        (vec![], 0, false),
        (vec![&half[..3], &[][..], &half[..4], &half[..5]], 12, false),
        (vec![full, full], WINDOW, false),
        (vec![full, full, over], WINDOW, true),
        (vec![full, over, full, over], WINDOW, true),
        (vec![full, full, &[][..]], WINDOW, false),
    ] {
        let (mut a, mut b, id) = small_window();
        assert_eq!(a.s.write_vectored(id, &slices, &mut a.pool), Ok(taken));
        assert_eq!(a.s.send_room(id), (WINDOW - taken) as u64);
        assert!(a.s.starved.is_empty(), "it was the window that was full, not the pool");
        assert_eq!(hears_of_room(&mut a, &mut b, id), waits, "{taken} bytes");
        assert_eq!(received(&mut b, id, taken), vec![1; taken]);
    }
}

#[test]
fn who_hands_bytes_over_hears_of_room_only_when_some_were_left() {
    for (len, taken) in
        [(0, 0), (1, 1), (WINDOW - 1, WINDOW - 1), (WINDOW, WINDOW), (WINDOW + 1, WINDOW), (WINDOW * 2, WINDOW)]
    {
        let (mut a, mut b, id) = small_window();
        let mut data = Bytes::from(pattern(id, 0, len));
        assert_eq!(a.s.write_owned(id, &mut data, &mut a.pool), Ok(taken));
        assert_eq!(data, pattern(id, taken, len - taken), "the rest stays with the caller");
        assert_eq!(a.s.stats().buffered_out, taken as u64);
        assert_eq!(hears_of_room(&mut a, &mut b, id), taken < len, "{len} bytes");
        assert_eq!(received(&mut b, id, taken), pattern(id, 0, taken));
    }
}

#[test]
fn a_stream_is_at_its_end_when_all_was_read_and_the_end_is_known_but_not_told() {
    let (mut a, mut b, id) = small_window();
    assert!(!b.s.is_at_end(id), "nobody knows the stream");
    a.write(id, b"data");
    settle(&mut a, &mut b);
    b.s.accept(Dir::Uni);
    assert_eq!(b.s.consume(id, 4, &mut b.pool), Ok(Read::Bytes(4)));
    assert!(!b.s.is_at_end(id), "more may come");
    a.write(id, b"x");
    a.s.finish(id).unwrap();
    settle(&mut a, &mut b);
    assert!(!b.s.is_at_end(id), "a byte is not read");
    assert_eq!(b.s.consume(id, 1, &mut b.pool), Ok(Read::Bytes(1)));
    assert!(b.s.is_at_end(id));
    assert_eq!(b.s.consume(id, 1, &mut b.pool), Ok(Read::Finished));
    assert!(!b.s.is_at_end(id), "the end is told once");
    // The end alone is enough.
    let empty = a.s.open(Dir::Uni).unwrap();
    a.s.finish(empty).unwrap();
    settle(&mut a, &mut b);
    assert!(b.s.is_at_end(empty));
}

#[test]
fn what_stands_behind_a_partial_reset_is_not_the_end() {
    let (mut a, mut b) = pair(&Settings { reset_stream_at: true, ..Settings::default() });
    let id = a.s.open(Dir::Uni).unwrap();
    a.write(id, b"data");
    a.s.reset_at(id, PartialReset { code: 7, reliable_size: 4 }, &mut a.pool).unwrap();
    settle(&mut a, &mut b);
    b.s.accept(Dir::Uni);
    assert_eq!(b.s.consume(id, 4, &mut b.pool), Ok(Read::Bytes(4)));
    assert!(!b.s.is_at_end(id));
    assert_eq!(b.s.consume(id, 4, &mut b.pool), Err(crate::stream::ReadError::Reset(7)));
}

#[test]
fn everything_arrived_when_the_end_did_or_the_stream_is_closed() {
    let (mut a, mut b) = pair(&Settings { reset_stream_at: true, ..Settings::default() });
    let ids = [Dir::Bi, Dir::Uni].map(|dir| [0, 1, 2].map(|i| StreamId::new(Side::Client, dir, i)));
    assert!(ids.as_flattened().iter().all(|id| !a.s.is_finished_acked(*id) && !b.s.is_finished_acked(*id)));
    for [first, second, unopened] in ids {
        assert_eq!((a.s.open(first.dir()), a.s.open(first.dir())), (Some(first), Some(second)));
        a.write(first, b"data");
        settle(&mut a, &mut b);
        assert!(!a.s.is_finished_acked(first), "it may go on");
        a.s.finish(first).unwrap();
        assert!(!a.s.is_finished_acked(first), "the end has not left");
        let end = a.packet(1200, true).unwrap();
        assert!(!a.s.is_finished_acked(first), "the end is on its way");
        a.fate(&end, Fate::Acked);
        assert!(a.s.is_finished_acked(first));
        assert!(!a.s.is_finished_acked(second) && !a.s.is_finished_acked(unopened));
        b.deliver(&end).unwrap();
    }
    let [[first, second, _], [one_way, other, _]] = ids;
    // The answer may still come in one direction; the other stream is gone.
    assert!(a.s.table.lookup(first).is_some() && a.s.table.lookup(one_way).is_none());
    // A reset that arrived is not the arrival of everything; of a stream that is closed nobody knows any more.
    for id in [second, other] {
        a.write(id, b"data");
        a.s.reset(id, 1, &mut a.pool).unwrap();
    }
    settle(&mut a, &mut b);
    assert_eq!((a.s.is_finished_acked(second), a.s.is_finished_acked(other)), (false, true));
    // Nor is a promise that was kept.
    let promised = a.s.open(Dir::Bi).unwrap();
    a.write(promised, b"data");
    a.s.reset_at(promised, PartialReset { code: 1, reliable_size: 2 }, &mut a.pool).unwrap();
    settle(&mut a, &mut b);
    assert!(!a.s.is_finished_acked(promised));
    // The other end knows of its own half, and of what is closed.
    assert!(!b.s.is_finished_acked(first) && !b.s.is_finished_acked(one_way));
    b.s.accept(Dir::Uni);
    b.read_all(one_way, &mut Vec::new());
    assert!(b.s.is_finished_acked(one_way));
}

#[test]
fn who_only_lacks_credit_of_the_connection_has_nothing_to_fill_in() {
    let settings = Settings { conn_window: 1000, conn_window_max: 1000, ..Settings::default() };
    // The first stream takes the packet and the credit to the last byte, or leaves one byte of each.
    for (len, blocked) in [(1000, true), (999, false)] {
        let (mut a, _) = pair(&settings);
        let ids = [(); 2].map(|()| a.s.open(Dir::Uni).unwrap());
        a.write(ids[0], &vec![1; len]);
        a.write(ids[1], &[2; 50]);
        let p = a.packet(len + 2, true).unwrap();
        assert_eq!((p.payload.len(), p.records.len()), (len + 2, 1));
        assert_eq!((a.s.has_data(), a.s.waits_for_conn_credit()), (!blocked, blocked));
        assert_eq!(a.s.due(FrameKind::DataBlocked), blocked.then_some(1000));
        a.s.on_max_data(1100);
        assert!(a.s.has_data() && !a.s.waits_for_conn_credit());
    }
}

#[test]
fn a_repair_gives_the_rest_of_its_packet_back_to_whose_turn_it_is() {
    let settings = Settings { schedule: StreamSchedule::RoundRobin(1), ..Settings::default() };
    let (mut a, _) = pair(&settings);
    let ids = [(); 2].map(|()| a.s.open(Dir::Uni).unwrap());
    ids.iter().for_each(|id| assert_eq!(a.write(*id, &[1; 9000]), 9000));
    let sent = [(); 2].map(|()| a.packet(300, true).unwrap());
    let spans = |p: &Packet| -> Vec<(StreamId, u64)> {
        p.records.iter().filter_map(|r| if let Record::Stream(s) = r { Some((s.id, s.offset)) } else { None }).collect()
    };
    assert_eq!(sent.each_ref().map(spans), [vec![(ids[0], 0)], vec![(ids[1], 0)]]);
    a.fate(&sent[1], Fate::Lost);
    // It is the first stream's turn; the second one has lost bytes, and new ones that have to wait.
    assert_eq!(spans(&a.packet(1200, true).unwrap()), [(ids[1], 0), (ids[0], 298)]);
}

#[test]
fn a_table_that_got_empty_keeps_the_lists_of_64_streams_and_no_more() {
    for (streams, kept) in [(64, true), (65, false)] {
        let (mut a, mut b) = pair(&Settings { max_streams_uni: 100, ..Settings::default() });
        let ids: Vec<_> = (0..streams).map(|_| a.s.open(Dir::Uni).unwrap()).collect();
        for id in ids {
            a.write(id, b"data");
            a.s.finish(id).unwrap();
        }
        let all = a.packet(4000, true).unwrap();
        a.fate(&all, Fate::Lost);
        let turns = a.s.active.kept();
        assert!(turns.0 >= streams && turns.1 >= streams);
        settle(&mut a, &mut b);
        assert_eq!((a.s.stats().open, a.s.table.is_vacant()), (0, !kept));
        assert_eq!(a.s.active.kept(), if kept { turns } else { (0, 0) });
    }
}

#[test]
fn what_came_is_told_once_and_anew_when_it_was_heard() {
    let (mut a, mut b, id) = small_window();
    let send = |a: &mut End, b: &mut End, data: &[u8]| {
        a.write(id, data);
        settle(a, b);
    };
    send(&mut a, &mut b, b"one");
    assert_eq!((b.s.poll_event(), b.s.poll_event()), (Some(StreamEvent::Opened { dir: Dir::Uni }), None));
    assert_eq!((b.s.accept(Dir::Uni), b.s.accept(Dir::Uni)), (Some(id), None));
    send(&mut a, &mut b, b"two");
    assert_eq!((b.s.poll_event(), b.s.has_events()), (Some(StreamEvent::Readable(id)), false));
    send(&mut a, &mut b, b"three");
    send(&mut a, &mut b, b"four");
    assert_eq!((b.s.poll_event(), b.s.poll_event()), (Some(StreamEvent::Readable(id)), None));
    // What was read to its end meanwhile is not told any more.
    a.s.finish(id).unwrap();
    settle(&mut a, &mut b);
    assert!(b.s.has_events() && b.read_all(id, &mut Vec::new()));
    assert_eq!((b.s.stats().open, b.s.poll_event()), (0, None));
}

#[test]
fn room_for_writing_is_told_anew_and_not_after_a_reset() {
    let (mut a, mut b, id) = small_window();
    let data = vec![1; WINDOW + 1];
    for _ in 0..2 {
        assert_eq!(a.write(id, &data), WINDOW);
        assert!(hears_of_room(&mut a, &mut b, id));
        assert_eq!(a.s.poll_event(), None, "once");
    }
    assert_eq!(a.write(id, &data), WINDOW);
    settle(&mut a, &mut b);
    a.s.reset(id, 1, &mut a.pool).unwrap();
    assert!(a.s.has_events() && a.s.table.lookup(id).is_some());
    assert_eq!(a.s.poll_event(), None);
}

#[test]
fn who_lacks_credit_of_which_kind_is_known() {
    let settings = Settings { stream_window: 1000, conn_window: 1500, ..Settings::default() };
    let (mut a, _) = pair(&settings);
    let lacks = |a: &End| (a.s.waits_for_stream_credit(), a.s.waits_for_conn_credit(), a.s.has_data());
    let ids = [(); 3].map(|()| a.s.open(Dir::Uni).unwrap());
    a.write(ids[0], &[1; 1000]);
    assert_eq!(lacks(&a), (false, false, true));
    while a.packet(1200, true).is_some() {}
    assert_eq!(lacks(&a), (false, false, false), "the credit is used up, and nothing is left to be sent");
    a.write(ids[0], b"x");
    // STREAM_DATA_BLOCKED is due.
    assert_eq!(lacks(&a), (true, false, true));
    assert!(a.packet(1200, true).is_some());
    assert_eq!(lacks(&a), (true, false, false));
    a.write(ids[1], &[1; 501]);
    while a.packet(1200, true).is_some() {}
    assert_eq!(lacks(&a), (true, true, false));
    a.s.on_max_data(1501);
    assert_eq!(lacks(&a), (true, false, true));
    while a.packet(1200, true).is_some() {}
    // A third stream is beyond the credit of the connection, and the first one is so now as well.
    a.write(ids[2], b"x");
    assert_eq!(lacks(&a), (true, true, false));
    a.s.on_max_stream_data(ids[0], 1001).unwrap();
    assert_eq!(lacks(&a), (false, true, false));
    a.s.on_max_data(2000);
    assert_eq!(lacks(&a), (false, false, true));
    // A stream that is given up lacks nothing.
    a.s.on_max_stream_data(ids[2], 1000).unwrap();
    while a.packet(1200, true).is_some() {}
    a.write(ids[0], b"y");
    assert!(a.s.waits_for_stream_credit());
    a.s.reset(ids[0], 1, &mut a.pool).unwrap();
    assert!(!a.s.waits_for_stream_credit());
}

#[test]
fn more_streams_are_granted_for_a_quarter_of_them_or_when_a_quarter_is_left() {
    for (closed, opened, due) in [
        (0, 0, false),
        (0, 100, false),
        (1, 74, false),
        (1, 75, true),
        (1, 100, true),
        (24, 50, false),
        (25, 50, true),
        (26, 50, true),
    ] {
        let mut b = End::new(Side::Server, &Settings { max_streams_bidi: 100, ..Settings::default() });
        let remote = &mut b.s.remote[Dir::Bi as usize];
        (remote.closed_count, remote.next) = (closed, opened);
        assert_eq!((remote.is_due(), remote.next_limit()), (due, 100 + closed), "{closed} of {opened}");
        remote.lost = true;
        assert!(remote.is_due(), "what was lost is told anew");
    }
    // The number of streams has a limit of its own, behind which nothing more is granted.
    let mut b = End::new(Side::Server, &Settings { max_streams_bidi: 1 << 60, ..Settings::default() });
    let remote = &mut b.s.remote[Dir::Bi as usize];
    (remote.closed_count, remote.next) = (9, 1 << 60);
    assert_eq!((remote.is_due(), remote.next_limit()), (false, 1 << 60));
}
