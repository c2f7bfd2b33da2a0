//! Everything written arrives, byte for byte, whatever the network does.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::StreamSchedule;
use crate::ids::Dir;
use crate::stream::{Priority, StreamEvent};

/// What the application of one end still has to do with a stream.
#[derive(Default)]
struct Job {
    total: usize,
    written: usize,
    finished: bool,
    acked: u32,
    got: Vec<u8>,
    ended: bool,
}

/// An end with its application.
struct Node {
    end: End,
    jobs: BTreeMap<StreamId, Job>,
    /// Packets in flight: packet, time of arrival, whether it was declared lost before.
    flight: Vec<(Packet, u64)>,
    lost: Vec<Packet>,
}

fn write_some(node: &mut Node, step: usize) {
    for (id, job) in &mut node.jobs {
        if !id.sends(node.end.s.side) || job.finished {
            continue;
        }
        let want = (job.total - job.written).min(step * 97 % 5000 + 1);
        let data = pattern(*id, job.written, want);
        let s = &mut node.end.s;
        job.written += match step % 3 {
            0 => s.write(*id, &data, &mut node.end.pool).unwrap(),
            1 => s.write_owned(*id, &mut Bytes::from(data), &mut node.end.pool).unwrap(),
            _ => {
                let (a, b) = data.split_at(want / 3);
                s.write_vectored(*id, &[a, b], &mut node.end.pool).unwrap()
            }
        };
        if job.written == job.total {
            s.finish(*id).unwrap();
            job.finished = true;
        }
    }
}

fn read_some(node: &mut Node, step: usize) {
    while let Some(event) = node.end.s.poll_event() {
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(id) = node.end.s.accept(dir) {
                    node.jobs.insert(id, Job { total: 3000, ..Job::default() });
                }
            }
            StreamEvent::AllAcked(id) => node.jobs.get_mut(&id).unwrap().acked += 1,
            _ => {}
        }
    }
    let side = node.end.s.side;
    for (id, job) in &mut node.jobs {
        if job.ended || !id.receives(side) {
            continue;
        }
        if step.is_multiple_of(3) {
            job.ended = node.end.read_all(*id, &mut job.got);
            continue;
        }
        let (s, pool) = (&mut node.end.s, &mut node.end.pool);
        match step % 3 {
            1 => {
                let piece = s.peek(*id).unwrap().to_vec();
                job.got.extend_from_slice(&piece);
                job.ended = s.consume(*id, piece.len(), pool).unwrap() == crate::stream::Read::Finished;
            }
            _ => {
                let got = &mut job.got;
                let read = s.read_with(*id, pool, |piece| {
                    let n = piece.len().min(700);
                    got.extend_from_slice(&piece[..n]);
                    n
                });
                job.ended = read.unwrap() == crate::stream::Read::Finished;
            }
        }
    }
}

/// Sends, delivers, loses and acknowledges for one round.
fn exchange(from: &mut Node, to: &mut Node, round: u64, chaos: &[u8]) {
    let luck = |i: u64| chaos.get(((round * 5 + i) % 997) as usize % chaos.len().max(1)).copied().unwrap_or(255);
    for i in 0..4 {
        let size = 60 + usize::from(luck(i)) * 5;
        let Some(p) = from.end.packet(size, luck(i + 1) % 2 == 0) else { break };
        if luck(i + 2) < 40 {
            from.lost.push(p);
        } else {
            let late = if luck(i + 3) < 50 { 3 } else { 0 };
            from.flight.push((p, round + late));
        }
    }
    let (now, later): (Vec<_>, Vec<_>) = from.flight.drain(..).partition(|(_, at)| *at <= round);
    from.flight = later;
    for (p, _) in now {
        to.end.deliver(&p).unwrap();
        if luck(7) < 30 {
            // Taken for lost, and then the acknowledgement comes after all.
            from.end.fate(&p, Fate::Lost);
            to.end.deliver(&p).unwrap();
        }
        from.end.fate(&p, Fate::Acked);
    }
    if round.is_multiple_of(3) {
        core::mem::take(&mut from.lost).iter().for_each(|p| from.end.fate(p, Fate::Lost));
    }
}

fn run(settings: &Settings, totals: &[(bool, usize, u8)], chaos: &[u8]) {
    let (client, server) = pair(settings);
    let node = |end| Node { end, jobs: BTreeMap::new(), flight: Vec::new(), lost: Vec::new() };
    let (mut a, mut b) = (node(client), node(server));
    for &(bi, total, urgency) in totals {
        let id = a.end.s.open(if bi { Dir::Bi } else { Dir::Uni }).unwrap();
        let priority = Priority { urgency: urgency / 2 % 8, incremental: urgency % 2 == 0 };
        a.end.s.set_priority(id, priority).unwrap();
        a.jobs.insert(id, Job { total, ..Job::default() });
    }
    let mut round = 0;
    loop {
        round += 1;
        assert!(round < 20_000, "no progress: {:?} {:?}", a.end.s.stats(), b.end.s.stats());
        for node in [&mut a, &mut b] {
            node.end.tick(2000);
            write_some(node, round as usize);
            read_some(node, round as usize);
        }
        exchange(&mut a, &mut b, round, chaos);
        exchange(&mut b, &mut a, round, chaos);
        let done = |n: &Node| n.flight.is_empty() && n.lost.is_empty() && n.end.s.stats().open == 0;
        if done(&a) && done(&b) && b.jobs.len() == totals.len() {
            break;
        }
    }
    for (mine, theirs) in [(&a, &b), (&b, &a)] {
        for (id, job) in mine.jobs.iter().filter(|(id, _)| id.sends(mine.end.s.side)) {
            assert_eq!(job.acked, 1, "{id} is reported exactly once");
            assert!(theirs.jobs[id].got == pattern(*id, 0, job.total), "{id} arrived byte for byte");
        }
        assert_eq!(mine.end.pool.in_use(), 0);
        let stats = mine.end.s.stats();
        assert_eq!((stats.buffered_in, stats.buffered_out, stats.active), (0, 0, 0));
        assert_eq!(mine.end.s.received, mine.end.s.recv_credit.consumed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn everything_arrives_byte_for_byte(
        totals in prop::collection::vec((any::<bool>(), 0usize..60_000, 0u8..16), 1..8),
        chaos in prop::collection::vec(any::<u8>(), 20..200),
        // Smaller windows are right but slow: they have a test of their own.
        window in 100u64..20_000,
        run_len in 1u16..9,
    ) {
        //= rfc9000#2.2-1 type=test
        let settings = Settings {
            stream_window: window,
            stream_window_max: window * 8,
            conn_window: window + window / 2,
            conn_window_max: window * 10,
            schedule: StreamSchedule::RoundRobin(run_len),
            ..Settings::default()
        };
        run(&settings, &totals, &chaos);
    }
}

#[test]
fn a_window_of_one_byte_ends_too() {
    let settings =
        Settings { stream_window: 1, stream_window_max: 1, conn_window: 1, conn_window_max: 1, ..Settings::default() };
    run(&settings, &[(true, 300, 0), (false, 200, 1)], &[255]);
}

#[test]
fn frames_that_cross_pieces_are_whole() {
    // NGX-BUF-09: pieces of every size between packets of every size, empty ones among them. The limit is used to the
    // byte, and the next frame begins where the last one ended.
    for size in [60, 517, 1200] {
        let (mut a, mut b) = pair(&Settings::default());
        let id = a.s.open(Dir::Uni).unwrap();
        let mut at = 0;
        for len in [1500, 0, 1, 512, 0, 0, 4096, 700, 4097, 3, 1500, 1200, 12_000].into_iter().cycle().take(16) {
            let piece = pattern(id, at, len);
            at += len;
            match len % 2 {
                0 => assert_eq!(a.s.write_owned(id, &mut Bytes::from(piece), &mut a.pool).unwrap(), len),
                _ => assert_eq!(a.write(id, &piece), len),
            }
        }
        a.s.finish(id).unwrap();
        let (mut out, mut next) = (Vec::new(), 0);
        while let Some(p) = a.packet(size, true) {
            let [Record::Stream(span)] = p.records[..] else { panic!("{:?}", p.records) };
            assert_eq!(span.offset, next);
            next = span.end();
            assert!(p.payload.len() == size || (span.fin && !a.s.has_data() && p.payload.len() < size));
            b.deliver(&p).unwrap();
        }
        assert_eq!(next, at as u64);
        assert_eq!(b.s.accept(Dir::Uni), Some(id));
        assert!(b.read_all(id, &mut out));
        assert!(out == pattern(id, 0, at));
    }
}

#[test]
fn the_bytes_at_the_end_of_a_packet_are_not_copied() {
    // LS-STRM-35: of an 8 kB write, each packet's bytes are those that the application gave, where it gave them.
    let (mut a, _) = pair(&Settings::default());
    let id = a.s.open(Dir::Uni).unwrap();
    let body = Bytes::from(pattern(id, 0, 8192));
    assert_eq!(a.s.write_owned(id, &mut body.clone(), &mut a.pool), Ok(8192));
    assert_eq!(a.pool.in_use(), 0, "nothing was copied into a buffer");
    let mut at = 0;
    while at + 1200 < 8192 {
        let (mut buf, mut records, mut frames) = ([0; 1200], Vec::new(), FrameSet::EMPTY);
        let mut w = Writer::new(&mut buf);
        let span = a.s.fill(&mut w, &mut records, &mut frames, true).unwrap();
        // Of the packet's own buffer only the frame's head is written.
        assert_eq!((w.len() <= 5, span.offset), (true, at as u64));
        assert_eq!(a.s.slice(&span).as_ptr(), body[at..].as_ptr());
        assert_eq!(records, [Record::Stream(span)]);
        at += span.len as usize;
    }
    assert_eq!(a.packet(1200, true).unwrap().payload.len(), 8192 - at + 6, "the rest shares a packet");
}
