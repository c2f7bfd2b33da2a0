//! What leaves again after a loss and what does not, seen on the wire by a peer that acknowledges nothing.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::engine::{ConnStats, Event};
use courser_core::error::CloseReason;
use courser_core::ids::{Cid, Dir, Level, ResetToken, Side, StreamId};
use courser_core::protect::null::NullTlsServer;
use courser_core::spans::FrameKind;
use courser_core::stream::StreamEvent;
use courser_core::wire::Writer;
use courser_core::wire::frame::{Extensions, Frame, frames, write_ack};
use courser_core::wire::header;
use courser_testing::rig::{Plan, Rig, Seen, Stage, encode, numbered, packets};

/// Kinds of the frames that were sent, apart from PADDING, which makes the smallest packets long enough to be sealed.
fn kinds(seen: &Seen) -> Vec<FrameKind> {
    let mut kinds = Vec::new();
    for datagram in &seen.datagrams {
        for (level, payload) in packets(datagram) {
            kinds.extend(frames(&payload, level, Extensions::ALL).map(|f| f.unwrap().kind()));
        }
    }
    kinds.retain(|k| *k != FrameKind::Padding);
    kinds
}

/// A confirmed connection of a server whose packets are all acknowledged, and that looks for no larger datagrams.
fn quiet() -> Rig {
    let mut plan = Plan::new(Side::Server, Stage::Confirmed);
    plan.settings.mtu_discovery = false;
    let mut rig = Rig::new(plan);
    for _ in 0..3 {
        rig.collect();
        rig.acknowledge();
    }
    rig
}

/// Goes to the next deadline and takes what is sent then.
fn next(rig: &mut Rig) -> Seen {
    rig.now = rig.now.max(rig.victim.deadline().unwrap());
    rig.collect()
}

#[test]
fn an_answer_to_a_challenge_is_never_repeated_and_a_retirement_is() {
    // OSSL-FIFM-05, OSSL-FIFM-08: nothing is acknowledged, so both are lost again and again.
    let mut rig = quiet();
    let retire = Frame::NewConnectionId {
        sequence: 20,
        retire_prior_to: 20,
        cid: Cid::new(&[9; 8]).unwrap(),
        token: ResetToken([9; 16]),
    };
    let challenge = Frame::PathChallenge([5; 8]);
    let first = kinds(&rig.inject(Level::OneRtt, &encode(&[challenge, retire, Frame::Ping])));
    assert!(first.contains(&FrameKind::PathResponse) && first.contains(&FrameKind::RetireConnectionId), "{first:?}");
    let mut later = Vec::new();
    while rig.victim.conn_stats(rig.key).unwrap().ptos < 5 {
        later.extend(kinds(&next(&mut rig)));
    }
    assert!(later.contains(&FrameKind::RetireConnectionId), "{later:?}");
    // What was acknowledged, and an ACK that was lost, is not said again either. The second probe of a pair asks alone.
    let repeated = [FrameKind::RetireConnectionId, FrameKind::Ping];
    assert!(later.iter().all(|k| repeated.contains(k)), "{later:?}");
}

#[test]
fn a_ping_that_was_lost_is_followed_by_probes_alone() {
    //= rfc9002#6.2.4-2 type=test
    //= rfc9002#6.2.4-5 type=test
    // OSSL-FIFM-05: each further PING is a probe of its own, at most two for each timeout.
    let mut rig = quiet();
    rig.victim.ping(rig.key).unwrap();
    assert_eq!(kinds(&rig.collect()), [FrameKind::Ping]);
    for timeouts in 1..4 {
        let mut probes = Vec::new();
        while rig.victim.conn_stats(rig.key).unwrap().ptos < timeouts {
            probes = kinds(&next(&mut rig));
        }
        assert!((1..=2).contains(&probes.len()) && probes.iter().all(|k| *k == FrameKind::Ping), "{probes:?}");
        assert_eq!(kinds(&rig.collect()), [], "the loss itself sends nothing");
    }
}

#[test]
fn a_probe_carries_data_when_there_is_any() {
    // OSSL-PKT-06
    let mut rig = quiet();
    let id = rig.victim.open_stream(rig.key, Dir::Uni).unwrap().unwrap();
    rig.victim.write(rig.key, id, b"old words").unwrap();
    assert_eq!(kinds(&rig.collect()), [FrameKind::Stream]);
    let mut probe = Seen::default();
    while rig.victim.conn_stats(rig.key).unwrap().ptos == 0 {
        probe = next(&mut rig);
    }
    let said = |seen: &Seen, what: &[u8]| seen.datagrams.iter().any(|d| d.windows(what.len()).any(|w| w == what));
    assert!(said(&probe, b"old words"), "old data is repeated when there is no new one: {:?}", kinds(&probe));
    assert_eq!(kinds(&probe).first(), Some(&FrameKind::Stream));
}

#[test]
fn a_probe_carries_new_data_when_some_waits() {
    //= rfc9002#6.2.4-4 type=test
    //= rfc9002#7.5-1 type=test
    // OSSL-PKT-06: the window is full, nothing is acknowledged, and more waits behind it.
    let mut rig = quiet();
    let id = rig.victim.open_stream(rig.key, Dir::Uni).unwrap().unwrap();
    rig.victim.write(rig.key, id, &[7; 100_000]).unwrap();
    let mut sent = 0;
    let mut probes = Vec::new();
    for _ in 0..100 {
        let spans = spans(&rig.collect(), id);
        let before = rig.victim.conn_stats(rig.key).unwrap();
        if before.ptos > 0 {
            probes = spans;
            break;
        }
        spans.iter().for_each(|s| sent = sent.max(s.1));
        rig.now = rig.now.max(rig.victim.deadline().unwrap());
    }
    assert!(sent > 8_000, "{sent} bytes filled the window");
    assert!(!probes.is_empty(), "the window does not hold a probe back");
    assert!(probes.iter().all(|s| s.0 >= sent), "{probes:?} behind {sent}");
}

/// Offsets and ends of the STREAM frames of that stream.
fn spans(seen: &Seen, of: StreamId) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for (level, payload) in seen.datagrams.iter().flat_map(|d| packets(d)) {
        for frame in frames(&payload, level, Extensions::ALL) {
            if let Frame::Stream { id, offset, data, .. } = frame.unwrap()
                && id == of
            {
                all.push((offset, offset + data.len() as u64));
            }
        }
    }
    all
}

/// Acknowledges all 1-RTT packets but these. Gives what leaves then.
fn acknowledge_others(rig: &mut Rig, lost: &[u64]) -> Seen {
    let all = rig.sent.iter().rev().flat_map(|r| (r.0..=r.1).rev()).filter(|pn| !lost.contains(pn));
    let ranges = all.take(40).fold(Vec::new(), |mut ranges: Vec<(u64, u64)>, pn| {
        match ranges.last_mut() {
            Some(range) if range.0 == pn + 1 => range.0 = pn,
            _ => ranges.push((pn, pn)),
        }
        ranges
    });
    ack(rig, Level::OneRtt, &ranges)
}

/// The same behind so many later packets that these count as lost.
fn lose(rig: &mut Rig, lost: &[u64]) -> Seen {
    for _ in 0..4 {
        rig.victim.ping(rig.key).unwrap();
        rig.collect();
        rig.now += core::time::Duration::from_millis(1);
    }
    acknowledge_others(rig, lost)
}

#[test]
fn a_lost_packet_with_two_ranges_of_a_stream_gives_both_back_and_an_end_alone_is_repeated() {
    // OSSL-FIFM-01, OSSL-FIFM-11, OSSL-FIFM-13
    let mut rig = quiet();
    let id = rig.victim.open_stream(rig.key, Dir::Uni).unwrap().unwrap();
    let mut numbers = Vec::new();
    for part in 0..3u8 {
        rig.victim.write(rig.key, id, &[part; 50]).unwrap();
        assert_eq!(spans(&rig.collect(), id), [(50 * u64::from(part), 50 * u64::from(part) + 50)]);
        numbers.push(rig.sent.last().unwrap().1);
    }
    let both = [(0, 50), (100, 150)];
    let mut lost = vec![numbers[0], numbers[2]];
    let again = lose(&mut rig, &lost);
    assert_eq!((again.datagrams.len(), spans(&again, id)), (1, both.to_vec()), "the middle arrived");
    for _ in 0..3 {
        lost.push(rig.sent.last().unwrap().1);
        let again = lose(&mut rig, &lost);
        assert_eq!((again.datagrams.len(), spans(&again, id)), (1, both.to_vec()));
        assert_eq!(kinds(&again), [FrameKind::Stream; 2], "exactly what still matters");
    }
    assert_eq!(kinds(&acknowledge_others(&mut rig, &lost)), []);
    assert_eq!(rig.victim.pool_stats().in_use, 0, "all of it arrived");
    // The end by itself.
    rig.victim.finish(rig.key, id).unwrap();
    assert_eq!(spans(&rig.collect(), id), [(150, 150)]);
    for _ in 0..3 {
        lost.push(rig.sent.last().unwrap().1);
        let again = lose(&mut rig, &lost);
        assert_eq!((kinds(&again), spans(&again, id)), (vec![FrameKind::Stream], vec![(150, 150)]));
    }
    assert!(!rig.events.contains(&Event::Stream(StreamEvent::AllAcked(id))));
    assert_eq!(kinds(&acknowledge_others(&mut rig, &lost)), []);
    assert!(rig.events.contains(&Event::Stream(StreamEvent::AllAcked(id))));
}

/// CRYPTO ranges of each packet of that level, with the packet's number.
fn crypto(seen: &Seen, of: Level) -> Vec<(u64, Vec<(u64, u64)>)> {
    let of_packet = |payload: &[u8]| {
        let range = |f| match f {
            Ok(Frame::Crypto { offset, data }) => Some((offset, offset + data.len() as u64)),
            _ => None,
        };
        frames(payload, of, Extensions::ALL).filter_map(range).collect::<Vec<_>>()
    };
    let all = seen.datagrams.iter().flat_map(|d| numbered(d)).filter(|p| p.0 == of);
    all.map(|(_, pn, payload)| (pn, of_packet(&payload))).filter(|p| !p.1.is_empty()).collect()
}

fn ack(rig: &mut Rig, level: Level, ranges: &[(u64, u64)]) -> Seen {
    let mut bytes = [0; 1100];
    let mut w = Writer::new(&mut bytes);
    write_ack(&mut w, ranges.iter().copied(), 0, None, 1100).unwrap();
    let len = w.len();
    rig.inject(level, &bytes[..len])
}

#[test]
fn handshake_data_around_what_arrived_leaves_again_at_each_level() {
    //= rfc9001#4-1 type=test
    //= rfc9001#4.9-1 type=test
    // OSSL-FIFM-12: the packet in the middle arrives; a probe carries the ranges on both sides of it in one packet.
    let tls = NullTlsServer { certificate_len: 2300, ..NullTlsServer::default() };
    let server = Plan { tls, ..Plan::new(Side::Server, Stage::Handshake) };
    let client = Plan { hello_len: 2500, ..Plan::new(Side::Client, Stage::Initial) };
    for (plan, level) in [(server, Level::Handshake), (client, Level::Initial)] {
        let mut rig = Rig::new(plan);
        let first = crypto(&rig.first, level);
        let [(_, a), (middle, b), (_, c)] = &first[..] else { panic!("{first:?}") };
        let (a, b, c) = (a[0], b[0], c[0]);
        assert_eq!((a.0, a.1, b.1), (0, b.0, c.0), "three packets in a row");
        let mut again = crypto(&ack(&mut rig, level, &[(*middle, *middle)]), level);
        while rig.victim.conn_stats(rig.key).unwrap().ptos < 2 {
            again.extend(crypto(&next(&mut rig), level));
        }
        let mut ranges: Vec<_> = again.iter().flat_map(|p| p.1.clone()).collect();
        ranges.sort_unstable();
        assert!(ranges.iter().all(|r| r.1 <= b.0 || r.0 >= b.1), "{ranges:?} and {b:?} arrived");
        assert!(ranges.contains(&a) && ranges.iter().any(|r| r.0 == c.0) && ranges.iter().any(|r| r.1 == c.1));
        // Only the server's first packet leaves room for a part of the last one.
        let both = again.iter().any(|p| p.1.len() == 2 && (p.1[0], p.1[1].0) == (a, c.0));
        assert!(both || level == Level::Initial, "{again:?}");
        // These arrive, and with them all of their ranges: nothing is left to say.
        let last = again.last().unwrap().0;
        let mut later = ack(&mut rig, level, &[(*middle + 2, last)]);
        for _ in 0..6 {
            assert_eq!(crypto(&later, level), [], "{level:?}");
            let Some(at) = rig.victim.deadline() else { break };
            rig.now = rig.now.max(at);
            later = rig.collect();
        }
    }
}

#[test]
fn what_the_initial_space_held_is_free_when_its_keys_go() {
    //= rfc9001#4.9.1-1 type=test
    //= rfc9001#4.9.1-2 type=test
    // OSSL-FIFD-07: the ServerHello was never acknowledged; the client's first Handshake packet ends its keys.
    let mut rig = Rig::at(Side::Server, Stage::Handshake);
    let held = |rig: &Rig| (rig.victim.pool_stats().in_use, rig.victim.conn_stats(rig.key).unwrap().bytes_in_flight);
    let (chunks, in_flight) = held(&rig);
    let first = &rig.first.datagrams[0];
    assert_eq!(packets(first)[0].0, Level::Initial);
    let size = header::decode(first, 8).unwrap().long().unwrap().end as u64;
    rig.give(Level::Handshake, &encode(&[Frame::Ping, Frame::Padding(9)]));
    assert_eq!(held(&rig), (chunks - 1, in_flight - size));
    let mut later = Vec::new();
    for _ in 0..5 {
        later.extend(next(&mut rig).datagrams.iter().flat_map(|d| packets(d)).map(|p| p.0));
    }
    assert!(!later.is_empty() && !later.contains(&Level::Initial), "{later:?}");
}

#[test]
fn each_space_acknowledges_its_own_numbers_in_its_own_packets() {
    // OSSL-PKT-11
    //= rfc9000#13.2.6-1 type=test
    let mut rig = Rig::at(Side::Server, Stage::Handshake);
    let mut acked = Vec::new();
    let ping = encode(&[Frame::Ping, Frame::Padding(1100)]);
    // Both come before an answer, twice. The client's first Handshake packet ends the Initial keys of the server.
    for (first, numbers) in [(Level::Initial, [700, 900]), (Level::Handshake, [905, 907])] {
        for (level, pn) in [first, Level::Handshake].into_iter().zip(numbers) {
            let packet = rig.forge_numbered(level, pn, &ping, |_| {});
            rig.give_packet(level, packet);
            if level == Level::Initial {
                note_acks(&rig.collect(), &mut acked);
            }
        }
        note_acks(&rig.collect(), &mut acked);
    }
    assert_eq!(acked, [(Level::Initial, 700), (Level::Handshake, 900), (Level::Handshake, 907)]);
}

fn note_acks(seen: &Seen, acked: &mut Vec<(Level, u64)>) {
    for (level, payload) in seen.datagrams.iter().flat_map(|d| packets(d)) {
        for frame in frames(&payload, level, Extensions::ALL) {
            if let Frame::Ack(ack) = frame.unwrap() {
                acked.push((level, ack.largest));
            }
        }
    }
}

#[test]
fn the_next_packet_after_a_retirement_goes_to_the_new_connection_id() {
    // LS-PARS-04, OSSL-TXP-02: the data was queued before the change; headers are made when packets are sealed.
    let mut rig = quiet();
    let old = rig.from;
    let id = rig.victim.open_stream(rig.key, Dir::Uni).unwrap().unwrap();
    rig.victim.write(rig.key, id, &[7; 3000]).unwrap();
    let before = rig.collect();
    assert!(before.datagrams.iter().all(|d| d[1..9] == *old.as_slice()));
    rig.acknowledge();
    rig.victim.write(rig.key, id, &[7; 3000]).unwrap();
    let new = Cid::new(&[0xd7; 8]).unwrap();
    let frame = Frame::NewConnectionId { sequence: 20, retire_prior_to: 20, cid: new, token: ResetToken([9; 16]) };
    let after = rig.inject(Level::OneRtt, &encode(&[frame]));
    assert!(kinds(&after).contains(&FrameKind::Stream));
    assert!(after.datagrams.iter().all(|d| d[1..9] == *new.as_slice()), "every packet from now on");
}

#[test]
fn an_older_acknowledgement_that_comes_late_changes_nothing() {
    // LS-GQ-05
    let mut rig = quiet();
    let id = rig.victim.open_stream(rig.key, Dir::Uni).unwrap().unwrap();
    let mut old = [0; 200];
    let mut w = Writer::new(&mut old);
    write_ack(&mut w, rig.sent.iter().rev().copied(), 0, None, 200).unwrap();
    let old_len = w.len();
    rig.victim.write(rig.key, id, &[7; 3000]).unwrap();
    rig.collect();
    rig.acknowledge();
    rig.collect();
    let before = rig.victim.conn_stats(rig.key).unwrap();
    rig.now += core::time::Duration::from_millis(3);
    let seen = rig.inject(Level::OneRtt, &old[..old_len]);
    let after = rig.victim.conn_stats(rig.key).unwrap();
    assert_eq!((seen.datagrams.len(), after.ack_frames), (0, before.ack_frames + 1));
    let state = |s: &ConnStats| (s.rtt, s.congestion_window, s.bytes_in_flight, s.lost_packets, s.congestion_events);
    assert_eq!(state(&after), state(&before));
}

#[test]
fn only_packets_that_can_be_opened_keep_a_connection_alive() {
    // LS-GQ-20: ends at the idle timeout after the last authentic packet, whatever else arrives.
    for authentic in [false, true] {
        let mut rig = quiet();
        for second in 0..40u64 {
            rig.pass(core::time::Duration::from_secs(1));
            if rig.victim.conn_stats(rig.key).is_err() {
                break;
            }
            let mut packet = rig.forge(Level::OneRtt, &encode(&[Frame::Ping]));
            if !authentic {
                let last = packet.len() - 1 - second as usize % 8;
                packet[last] ^= 1;
            }
            rig.deliver(&mut packet);
        }
        let idle = rig.events.contains(&Event::Closed(CloseReason::IdleTimeout));
        assert_eq!(idle, !authentic, "{:?}", rig.events);
    }
}

#[test]
fn the_report_of_an_end_tells_the_first_error() {
    // LS-GQ-15: the peer breaks a second rule, and the application closes, before the first error was said.
    let mut rig = quiet();
    rig.give(Level::OneRtt, &encode(&[Frame::MaxStreams { dir: Dir::Bi, max: (1 << 60) + 1 }]));
    rig.give(Level::OneRtt, &encode(&[Frame::HandshakeDone]));
    rig.victim.close(rig.now, rig.key, 99, b"late").ok();
    let seen = rig.collect();
    assert_eq!(seen.code(), Some(0x7), "FRAME_ENCODING_ERROR, not PROTOCOL_VIOLATION: {:?}", seen.close);
    let told = rig.events.iter().find_map(|e| match e {
        Event::Closed(CloseReason::Violation(v)) => Some(v.code.0),
        _ => None,
    });
    assert_eq!(told, Some(0x7), "{:?}", rig.events);
}

/// Connection IDs that were issued in these datagrams, with their sequence numbers.
fn issued(datagrams: &[Vec<u8>]) -> Vec<(u64, Cid)> {
    let mut found = Vec::new();
    for (level, payload) in datagrams.iter().flat_map(|d| packets(d)) {
        for frame in frames(&payload, level, Extensions::ALL) {
            if let Frame::NewConnectionId { sequence, cid, .. } = frame.unwrap() {
                found.push((sequence, cid));
            }
        }
    }
    found
}

#[test]
fn a_peer_that_stores_eight_connection_ids_gets_eight_and_each_leads_to_the_connection() {
    // LS-LIFE-06, LS-LIFE-07
    let mut plan = Plan::new(Side::Server, Stage::Confirmed);
    plan.forger.active_cid_limit = 8;
    let mut rig = Rig::new(plan);
    let mut all = issued(&rig.first.datagrams);
    for _ in 0..20 {
        rig.now += core::time::Duration::from_secs(1);
        rig.acknowledge();
        all.extend(issued(&rig.collect().datagrams));
    }
    all.push((0, rig.to));
    all.sort();
    all.dedup();
    assert!(all.iter().map(|(sequence, _)| *sequence).eq(0..8), "no ninth: {all:?}");
    let received = |rig: &Rig| rig.victim.conn_stats(rig.key).unwrap().received.packets;
    for (_, cid) in all {
        let before = received(&rig);
        rig.to = cid;
        rig.inject(Level::OneRtt, &encode(&[Frame::Ping]));
        assert_eq!(received(&rig), before + 1, "{cid}");
    }
    assert_eq!(rig.victim.connections(), 1);
}
