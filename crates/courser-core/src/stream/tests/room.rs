//! What streams hold for sending, and who is told when there is room again.

use super::*;
use crate::ids::Dir;
use crate::stream::StreamEvent;

/// Windows of the peer: of a stream, and of the connection.
fn windows(stream: u64, conn: u64) -> (End, End) {
    let settings = Settings {
        stream_window: stream,
        stream_window_max: stream,
        conn_window: conn,
        conn_window_max: conn,
        max_streams_bidi: 200,
        max_streams_uni: 200,
        ..Settings::default()
    };
    let (a, b) = pair(&settings);
    (a, b)
}

fn open(a: &mut End, n: usize) -> Vec<StreamId> {
    (0..n).map(|_| a.s.open(Dir::Uni).unwrap()).collect()
}

/// Writes as much as is taken to each; what all took.
fn fill(a: &mut End, ids: &[StreamId]) -> usize {
    let data = vec![7; 4 << 20];
    ids.iter().map(|id| a.write(*id, &data)).sum()
}

fn writable(a: &mut End) -> Vec<StreamId> {
    let mut told = Vec::new();
    while let Some(event) = a.s.poll_event() {
        if let StreamEvent::Writable(id) = event {
            told.push(id);
        }
    }
    told
}

fn counted(a: &End) {
    let sum: u64 = a.s.table.slots().map(|slot| a.s.table[slot].unsent()).sum();
    assert_eq!(a.s.unsent, sum);
}

#[test]
fn a_hundred_streams_that_nobody_reads_hold_little() {
    for (stream, conn, most) in [
        // No credit at all; a little for the connection; much for the connection and little for streams; much of everything.
        (0, 0, ALL_AHEAD),
        (1 << 30, 10_000, 10_000 + ALL_AHEAD),
        (1000, 1 << 30, 100 * 1000 + ALL_AHEAD),
        (1 << 30, 1 << 30, (2 << 20) + 100 * (32 << 10)),
    ] {
        let (mut a, _) = windows(stream, conn);
        let ids = open(&mut a, 100);
        let mut taken = fill(&mut a, &ids);
        // The peer acknowledges what is sent, and grants no more.
        for _ in 0..5 {
            while let Some(p) = a.packet(1200, true) {
                a.fate(&p, Fate::Acked);
            }
            taken += fill(&mut a, &ids);
            counted(&a);
        }
        let held = a.s.stats().buffered_out;
        assert!(held <= most, "{held} bytes are held with windows of {stream} and {conn}");
        assert!(taken as u64 <= held + conn.min(100 * stream), "{taken}");
    }
}

#[test]
fn a_peer_that_acknowledges_nothing_has_little_held_for_it() {
    let (mut a, _) = windows(1 << 40, 1 << 40);
    let ids = open(&mut a, 100);
    for _ in 0..10 {
        fill(&mut a, &ids);
        while a.packet(1200, true).is_some() {}
    }
    counted(&a);
    assert!(a.s.stats().buffered_out <= (2 << 20) + 100 * (32 << 10), "{}", a.s.stats().buffered_out);
}

#[test]
fn streams_that_are_not_read_do_not_stop_those_that_are() {
    let (mut a, mut b) = windows(100_000, 100 << 20);
    let (paused, id) = (open(&mut a, 50), a.s.open(Dir::Uni).unwrap());
    fill(&mut a, &paused);
    let (total, mut written, mut got) = (5 << 20, 0, Vec::new());
    let data = vec![1; total];
    while got.len() < total {
        written += a.write(id, &data[written..]);
        settle(&mut a, &mut b);
        while b.s.accept(Dir::Uni).is_some() {}
        b.read_all(id, &mut got);
        settle(&mut a, &mut b);
        assert!(writable(&mut a).contains(&id) || written == total, "nobody is told of room behind {written} bytes");
    }
    assert_eq!((written, got.len()), (total, total));
}

#[test]
fn the_smallest_windows_move_everything() {
    // Windows of the peer that are far below what is worth a call.
    for (stream, conn) in [(1, 1 << 20), (1 << 20, 1), (1, 1), (100, 50), (50, 1000)] {
        let (mut a, mut b) = windows(stream, conn);
        let ids = open(&mut a, 3);
        let data = vec![1; 400_000];
        let mut written = [0; 3];
        let mut got = vec![Vec::new(); 3];
        let mut told = ids.clone();
        for _ in 0..1_000_000 {
            for (n, id) in ids.iter().enumerate() {
                // As an application does: it writes until it is told to wait, and again when it is called.
                while told.contains(id) && written[n] < 3000 {
                    let took = a.write(*id, &data[..3000 - written[n]]);
                    written[n] += took;
                    if written[n] < 3000 {
                        told.retain(|t| t != id);
                    }
                }
            }
            settle(&mut a, &mut b);
            while b.s.accept(Dir::Uni).is_some() {}
            for (n, id) in ids.iter().enumerate() {
                if written[n] > got[n].len() || got[n].len() < 3000 {
                    let _ = b.s.read(*id, &mut [0; 3000], &mut b.pool).map(|r| {
                        if let crate::stream::Read::Bytes(len) = r {
                            got[n].extend(std::iter::repeat_n(1_u8, len));
                        }
                    });
                }
            }
            settle(&mut a, &mut b);
            told.extend(writable(&mut a));
            if got.iter().all(|g| g.len() == 3000) {
                break;
            }
        }
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [3000; 3], "windows of {stream} and {conn}");
        counted(&a);
    }
}

#[test]
fn a_stream_that_is_given_up_leaves_its_room_to_those_that_wait() {
    let (mut a, _) = windows(1 << 30, 0);
    let ids = open(&mut a, 10);
    fill(&mut a, &ids);
    assert_eq!((a.write(ids[9], b"x"), writable(&mut a)), (0, vec![]));
    let held: Vec<StreamId> = ids.iter().copied().filter(|id| a.s.send_room(*id) == 0).collect();
    assert_eq!(held.len(), 10);
    a.s.reset(ids[0], 7, &mut a.pool).unwrap();
    counted(&a);
    assert!(writable(&mut a).contains(&ids[9]), "the room of the stream that was reset");
    assert!(a.write(ids[9], b"x") == 1);
}

#[test]
fn credit_for_the_connection_is_told_to_everybody_who_waits_for_it() {
    let (mut a, _) = windows(1 << 30, 0);
    let ids = open(&mut a, 10);
    fill(&mut a, &ids);
    assert_eq!(a.s.stats().buffered_out, ALL_AHEAD);
    a.s.on_max_data(10 << 20);
    assert_eq!(writable(&mut a).len(), 10);
    a.s.on_max_data(11 << 20);
    assert_eq!(writable(&mut a), [], "nobody is told twice");
}

const ALL_AHEAD: u64 = 256 << 10;
