//! What leaves again after a loss and what does not, seen on the wire by a peer that acknowledges nothing.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::engine::{ConnStats, Event};
use courser_core::error::CloseReason;
use courser_core::ids::{Cid, Dir, Level, ResetToken, Side};
use courser_core::spans::FrameKind;
use courser_core::wire::Writer;
use courser_core::wire::frame::{Extensions, Frame, frames, write_ack};
use courser_testing::rig::{Plan, Rig, Seen, Stage, encode, packets};

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
