//! Who sends when, and how packets fill.

use super::*;
use crate::config::StreamSchedule;
use crate::ids::Dir;
use crate::stream::Priority;

/// Streams of the packet in the order of their frames.
fn ids(p: &Packet) -> Vec<u64> {
    p.records.iter().filter_map(|r| if let Record::Stream(s) = r { Some(s.id.index()) } else { None }).collect()
}

/// An end with so many one-way streams, `len` bytes in each, and credit for all.
fn sender(schedule: StreamSchedule, streams: usize, len: usize) -> (End, Vec<StreamId>) {
    let settings = Settings { schedule, max_streams_uni: 20_000, conn_window: 1 << 30, ..Settings::default() };
    let settings = Settings { conn_window_max: 1 << 30, stream_window: 1 << 20, ..settings };
    let (mut a, _) = pair(&settings);
    let ids: Vec<_> = (0..streams).map(|_| a.s.open(Dir::Uni).unwrap()).collect();
    for id in &ids {
        assert_eq!(a.write(*id, &vec![1; len]), len);
    }
    (a, ids)
}

fn sequence(a: &mut End, packets: usize) -> Vec<u64> {
    (0..packets).flat_map(|_| ids(&a.packet(1200, true).unwrap())).collect()
}

#[test]
fn a_run_of_one_packet_alternates() {
    let (mut a, _) = sender(StreamSchedule::RoundRobin(1), 3, 50_000);
    assert_eq!(sequence(&mut a, 7), [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn a_run_of_eight_packets_keeps_streams_apart() {
    let (mut a, _) = sender(StreamSchedule::RoundRobin(8), 2, 50_000);
    let seen = sequence(&mut a, 32);
    for (i, id) in seen.iter().enumerate() {
        assert_eq!(*id, (i / 8 % 2) as u64, "packet {i}");
    }
    a.s.set_schedule(StreamSchedule::RoundRobin(1));
    let seen = sequence(&mut a, 6);
    assert!(seen.windows(2).all(|w| w[0] != w[1]), "the run can be changed meanwhile: {seen:?}");
}

#[test]
fn sequential_streams_end_one_after_the_other() {
    let (mut a, _) = sender(StreamSchedule::Sequential, 3, 3000);
    let mut seen = Vec::new();
    while let Some(p) = a.packet(1200, true) {
        seen.extend(ids(&p));
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.iter().max(), Some(&2));
}

#[test]
fn urgent_streams_go_first_and_the_priority_reads_back() {
    //= rfc9000#2.3-1 type=test
    let (mut a, s) = sender(StreamSchedule::RoundRobin(1), 4, 2000);
    let set = |a: &mut End, i: usize, urgency, incremental| {
        a.s.set_priority(s[i], Priority { urgency, incremental }).unwrap();
    };
    set(&mut a, 2, 0, true);
    set(&mut a, 3, 1, false);
    set(&mut a, 1, 1, false);
    assert_eq!(a.s.priority(s[3]), Priority { urgency: 1, incremental: false });
    let mut seen = Vec::new();
    while let Some(p) = a.packet(1200, true) {
        seen.extend(ids(&p));
    }
    seen.dedup();
    assert_eq!(seen, [2, 1, 3, 0]);
}

#[test]
fn one_after_the_other_and_in_turns_share_an_urgency() {
    let (mut a, s) = sender(StreamSchedule::RoundRobin(2), 4, 50_000);
    for id in &s[2..] {
        a.s.set_priority(*id, Priority { urgency: 3, incremental: false }).unwrap();
    }
    assert_eq!(sequence(&mut a, 12), [2, 2, 0, 0, 2, 2, 1, 1, 2, 2, 0, 0]);
}

#[test]
fn a_change_of_priority_between_packets_neither_skips_nor_repeats_bytes() {
    let (mut a, s) = sender(StreamSchedule::RoundRobin(1), 3, 20_000);
    let mut spans: Vec<(StreamId, u64, u64)> = Vec::new();
    let mut i = 0u8;
    while let Some(p) = a.packet(1200, i.is_multiple_of(2)) {
        i = i.wrapping_add(1);
        for r in &p.records {
            if let Record::Stream(span) = r {
                spans.push((span.id, span.offset, span.end()));
            }
        }
        let id = s[usize::from(i) % 3];
        a.s.set_priority(id, Priority { urgency: i % 8, incremental: i.is_multiple_of(3) }).unwrap();
    }
    spans.sort();
    for id in s {
        let mut at = 0;
        for (_, from, to) in spans.iter().filter(|x| x.0 == id) {
            assert_eq!(*from, at);
            at = *to;
        }
        assert_eq!(at, 20_000);
    }
}

#[test]
fn a_packet_is_filled_by_the_next_stream() {
    let (mut a, _) = sender(StreamSchedule::RoundRobin(8), 30, 100);
    let p = a.packet(1200, true).unwrap();
    assert!(p.payload.len() == 1200 && ids(&p).len() > 10, "no half-empty packet while others have data");
}

#[test]
fn lost_bytes_of_a_stream_leave_before_its_new_ones() {
    let (mut a, s) = sender(StreamSchedule::RoundRobin(8), 1, 20_000);
    let first = a.packet(1200, true).unwrap();
    a.packet(1200, true).unwrap();
    a.fate(&first, Fate::Lost);
    let again = a.packet(1200, true).unwrap();
    assert_eq!(again.records, first.records);
    a.fate(&again, Fate::Lost);
    a.fate(&first, Fate::Acked);
    let Some(Record::Stream(span)) = a.packet(1200, true).unwrap().records.pop() else { panic!() };
    assert_eq!((span.id, span.offset), (s[0], 2394), "the late acknowledgement cancelled the repetition");
}

#[test]
fn lost_bytes_leave_before_new_bytes_of_other_streams() {
    // OSSL-TXP-07: and nobody's run is longer or shorter for it.
    for (run, before, after) in [
        (8, vec![0, 0, 0], vec![0, 0, 0, 0, 0, 1]),
        (1, vec![0, 1, 2, 0, 1], vec![2, 0, 1, 2]),
        (3, vec![0, 0, 0, 1], vec![1, 1, 2, 2, 2, 0]),
    ] {
        let (mut a, _) = sender(StreamSchedule::RoundRobin(run), 3, 50_000);
        let sent: Vec<Packet> = before.iter().map(|_| a.packet(1200, true).unwrap()).collect();
        assert_eq!(sent.iter().flat_map(ids).collect::<Vec<_>>(), before);
        let mut lost = [sent[0].clone(), sent[sent.len() - 1].clone()];
        lost.iter().for_each(|p| a.fate(p, Fate::Lost));
        for p in &lost {
            assert_eq!(a.packet(1200, true).unwrap().records, p.records, "run of {run}");
        }
        lost.reverse();
        lost.iter().for_each(|p| a.fate(p, Fate::Acked));
        assert_eq!(sequence(&mut a, after.len()), after, "run of {run}");
    }
}

#[test]
fn lost_bytes_do_not_overtake_what_is_more_urgent() {
    let (mut a, s) = sender(StreamSchedule::RoundRobin(8), 2, 50_000);
    let first = a.packet(1200, true).unwrap();
    a.fate(&first, Fate::Lost);
    let urgent = a.s.open(Dir::Uni).unwrap();
    a.s.set_priority(urgent, Priority { urgency: 1, incremental: true }).unwrap();
    a.write(urgent, &[9; 100]);
    // Its new priority takes the lost bytes of the first stream along.
    a.s.set_priority(s[0], Priority { urgency: 5, incremental: true }).unwrap();
    assert_eq!(ids(&a.packet(1200, true).unwrap()), [2, 1]);
    assert_eq!(ids(&a.packet(1200, true).unwrap()), [1]);
    a.s.set_priority(s[0], Priority { urgency: 3, incremental: true }).unwrap();
    assert_eq!(a.packet(1200, true).unwrap().records, first.records);
}

#[test]
fn ten_thousand_idle_streams_are_in_no_list() {
    let (mut a, s) = sender(StreamSchedule::RoundRobin(1), 10_000, 0);
    assert!(!a.s.has_data() && a.s.stats().open == 10_000);
    a.write(s[5000], &[1; 5000]);
    assert_eq!((a.s.stats().active, a.s.control.len()), (1, 0));
    assert_eq!(sequence(&mut a, 3), [5000, 5000, 5000]);
    assert!(s.iter().all(|id| a.s.table.lookup(*id).is_some_and(|stream| stream.id == *id)));
    assert_eq!(sequence(&mut a, 2), [5000, 5000]);
    assert_eq!((a.s.stats().active, a.packet(1200, true).is_none()), (0, true), "who has nothing to say is inactive");
    // Nor do streams exist that the peer's higher number opened and nobody touched.
    let settings = Settings { max_streams_bidi: 1 << 40, ..Settings::default() };
    let mut b = End::new(Side::Server, &settings);
    let far = StreamId::new(Side::Client, Dir::Bi, (1 << 40) - 1);
    b.s.on_stream(far, 0, b"x", false, &mut b.pool).unwrap();
    assert_eq!(b.s.stats().open, 1);
    //= rfc9000#3.2-1 type=test
    assert_eq!(b.s.accept(Dir::Bi), Some(StreamId(0)));
    assert_eq!(b.s.read(StreamId(0), &mut [0; 1], &mut b.pool), Ok(crate::stream::Read::Blocked));
}

#[test]
fn small_writes_of_one_batch_share_a_packet() {
    let (mut a, s) = sender(StreamSchedule::RoundRobin(8), 1, 0);
    (0..100).for_each(|_| assert_eq!(a.write(s[0], b"ten bytes."), 10));
    assert_eq!(ids(&a.packet(1200, true).unwrap()).len(), 1);
    assert!(a.packet(1200, true).is_none());
}

#[test]
fn a_corked_stream_sends_full_frames_until_it_is_flushed() {
    let (mut a, s) = sender(StreamSchedule::RoundRobin(8), 1, 0);
    a.s.cork(s[0], true).unwrap();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        a.write(s[0], &[1; 8000]);
        while let Some(p) = a.packet(1200, true) {
            sizes.push(p.payload.len());
        }
    }
    assert!(sizes.iter().all(|n| *n == 1200), "{sizes:?}");
    a.s.flush(s[0]).unwrap();
    let rest = a.packet(1200, true).unwrap();
    assert!(rest.payload.len() < 1200 && a.packet(1200, true).is_none());
    a.write(s[0], b"x");
    assert!(a.packet(1200, true).is_none());
    a.s.flush(s[0]).unwrap();
    // LS-STRM-37: type, stream ID, offset, length and the byte.
    assert_eq!(a.packet(1200, true).unwrap().payload.len(), 8, "a flushed single byte leaves at once");
    a.write(s[0], b"y");
    assert!(a.packet(1200, true).is_none(), "what comes later waits again");
    a.s.finish(s[0]).unwrap();
    assert!(a.packet(1200, true).is_some());
    assert_eq!(a.s.table.lookup(s[0]).unwrap().send.state.next(), 24_002);
}

#[test]
fn the_send_window_follows_the_target_and_tells_when_there_is_room() {
    let (window, conn_window) = (256 << 20, 256 << 20);
    let settings = Settings {
        send_window: 4096,
        stream_window: window,
        stream_window_max: window,
        conn_window,
        conn_window_max: conn_window,
        ..Settings::default()
    };
    let (mut a, mut b) = pair(&settings);
    let id = a.s.open(Dir::Uni).unwrap();
    assert_eq!(a.write(id, &vec![1; 1 << 20]), 64 << 10, "there is a floor");
    assert_eq!((a.write(id, b"x"), a.s.send_room(id)), (0, 0));
    a.s.set_send_target(100_000);
    assert_eq!(a.write(id, &vec![1; 1 << 20]), 100_000 - 65_536);
    a.s.set_send_target(u64::MAX);
    assert_eq!(a.s.send_room(id), (64 << 20) - 100_000, "and a ceiling");
    a.s.set_send_target(0);
    assert_eq!(a.s.poll_event(), None);
    settle(&mut a, &mut b);
    assert_eq!(a.s.poll_event(), Some(crate::stream::StreamEvent::Writable(id)));
    assert_eq!(a.s.poll_event(), None);
}

#[test]
fn a_write_that_the_pool_cut_short_is_told_when_memory_came_back() {
    let (mut a, mut b) = pair(&Settings::default());
    a.pool = ChunkPool::new(8192);
    let (x, y) = (a.s.open(Dir::Uni).unwrap(), a.s.open(Dir::Uni).unwrap());
    assert_eq!(a.write(x, &[1; 8192]), 8192);
    assert_eq!(a.write(y, b"more"), 0);
    settle(&mut a, &mut b);
    assert_eq!(a.s.poll_event(), Some(crate::stream::StreamEvent::Writable(y)));
    assert_eq!(a.write(y, b"more"), 4);
}

#[test]
fn a_steady_transfer_takes_no_new_memory() {
    let (mut a, mut b) = pair(&Settings::default());
    let id = a.s.open(Dir::Uni).unwrap();
    let (data, mut made) = ([5; 20_000], 0);
    for i in 0..300 {
        a.write(id, &data);
        settle(&mut a, &mut b);
        b.s.accept(Dir::Uni);
        let got = b.s.consume(id, usize::MAX, &mut b.pool).unwrap();
        assert_eq!(got, crate::stream::Read::Bytes(20_000));
        if i == 100 {
            made = a.pool.stats().allocated + b.pool.stats().allocated;
        }
    }
    assert_eq!(a.pool.stats().allocated + b.pool.stats().allocated, made);
}
