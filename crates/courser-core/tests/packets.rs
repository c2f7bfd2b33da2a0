//! What a receiver does with single packets and datagrams: opening, duplicates, acknowledgements, sizes.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::time::Duration;

use courser_core::engine::{Meta, SendOutcome, Train};
use courser_core::ids::{Ecn, Level, Side, StreamId};
use courser_core::stream::Read;
use courser_core::wire::Writer;
use courser_core::wire::frame::{Extensions, Frame, frames, write_ack};
use courser_testing::rig::{FORGER, Plan, Rig, Seen, Stage, encode, numbered, packets};

/// An ACK frame on the wire: its level, its ranges, its delay in microseconds, whether it has ECN counts.
#[derive(Debug, PartialEq, Eq)]
struct Acked {
    level: Level,
    ranges: Vec<(u64, u64)>,
    delay_us: u64,
    ecn: Option<[u64; 3]>,
}

impl Acked {
    fn has(&self, pn: u64) -> bool {
        self.ranges.iter().any(|r| (r.0..=r.1).contains(&pn))
    }
}

fn acks(seen: &Seen) -> Vec<Acked> {
    let mut all = Vec::new();
    for (level, payload) in seen.datagrams.iter().flat_map(|d| packets(d)) {
        for frame in frames(&payload, level, Extensions::ALL) {
            if let Frame::Ack(ack) = frame.unwrap() {
                let ecn = ack.ecn.map(|c| [c.ect0, c.ect1, c.ce]);
                all.push(Acked { level, ranges: ack.ranges.collect(), delay_us: ack.delay << 3, ecn });
            }
        }
    }
    all
}

/// A confirmed connection with nothing on its way, and that looks for no larger datagrams.
fn quiet(side: Side) -> Rig {
    let mut plan = Plan::new(side, Stage::Confirmed);
    plan.settings.mtu_discovery = false;
    let mut rig = Rig::new(plan);
    for _ in 0..3 {
        rig.collect();
        rig.acknowledge();
    }
    rig.collect();
    rig
}

/// Takes everything that leaves until nothing has been due for that long.
fn all_within(rig: &mut Rig, time: Duration) -> Seen {
    let (end, mut all) = (rig.now + time, rig.collect());
    while let Some(at) = rig.victim.deadline().filter(|at| *at <= end) {
        rig.now = rig.now.max(at);
        all.datagrams.extend(rig.collect().datagrams);
    }
    rig.now = end;
    all
}

fn received(rig: &Rig) -> u64 {
    rig.victim.conn_stats(rig.key).unwrap().received.packets
}

#[test]
fn a_packet_that_cannot_be_opened_hides_none_behind_it() {
    //= rfc9000#12.2-6 type=test
    let ping = encode(&[Frame::Ping, Frame::Padding(40)]);
    // The first one is forged, or of a level whose keys are gone.
    for (side, stage, levels) in [
        (Side::Server, Stage::Handshake, [Level::Initial, Level::Handshake]),
        (Side::Client, Stage::Handshake, [Level::Handshake, Level::Handshake]),
        (Side::Server, Stage::Confirmed, [Level::Initial, Level::OneRtt]),
        (Side::Client, Stage::Confirmed, [Level::Handshake, Level::OneRtt]),
    ] {
        let mut rig = Rig::at(side, stage);
        let before = rig.victim.conn_stats(rig.key).unwrap();
        let mut bad = rig.forge(levels[0], &ping);
        *bad.last_mut().unwrap() ^= 1;
        let good = rig.forge_numbered(levels[1], 500, &encode(&[Frame::Ping, Frame::Padding(1100)]), |_| {});
        let mut datagram = [bad, good].concat();
        rig.deliver(&mut datagram);
        let after = rig.victim.conn_stats(rig.key).unwrap().since(&before);
        assert_eq!(after.received.packets, 1, "{side:?} {stage:?}: {after:?}");
        let said = acks(&all_within(&mut rig, Duration::from_millis(50)));
        assert!(said.iter().any(|a| a.level == levels[1] && a.has(500)), "{side:?} {stage:?}: {said:?}");
    }
}

#[test]
fn a_copy_of_a_number_counts_only_when_its_packet_is_authentic() {
    //= rfc9000#12.3-5 type=test
    let mut rig = quiet(Side::Server);
    let counts = |rig: &Rig| {
        let s = rig.victim.conn_stats(rig.key).unwrap();
        (s.duplicates, s.undecryptable)
    };
    let first = counts(&rig);
    let packet = rig.forge_numbered(Level::OneRtt, 90, &encode(&[Frame::Ping]), |_| {});
    let mut forged = packet.clone();
    *forged.last_mut().unwrap() ^= 0x10;
    rig.deliver(&mut packet.clone());
    assert_eq!(counts(&rig), first);
    rig.deliver(&mut forged.clone());
    assert_eq!(counts(&rig), (first.0, first.1 + 1), "a forgery is none, whatever its number says");
    rig.deliver(&mut packet.clone());
    assert_eq!(counts(&rig), (first.0 + 1, first.1 + 1));
    rig.deliver(&mut forged);
    assert_eq!(counts(&rig), (first.0 + 1, first.1 + 2));
}

#[test]
fn nothing_is_acknowledged_before_it_was_opened_and_all_of_it_handled() {
    //= rfc9000#13.1-1 type=test
    let mut rig = quiet(Side::Server);
    let ping = encode(&[Frame::Ping]);
    let mut forged = rig.forge_numbered(Level::OneRtt, 700, &ping, |_| {});
    *forged.last_mut().unwrap() ^= 1;
    rig.deliver(&mut forged);
    let good = rig.forge_numbered(Level::OneRtt, 702, &ping, |_| {});
    rig.give_packet(Level::OneRtt, good);
    let said = acks(&all_within(&mut rig, Duration::from_millis(50)));
    assert!(!said.is_empty() && said.iter().all(|a| a.has(702) && !a.has(700)), "{said:?}");
    // The last frame breaks a rule: the packet as a whole was not handled, and the close acknowledges others alone.
    let other = rig.forge_numbered(Level::OneRtt, 704, &ping, |_| {});
    rig.give_packet(Level::OneRtt, other);
    let broken = rig.forge_numbered(Level::OneRtt, 706, &encode(&[Frame::Ping, Frame::HandshakeDone]), |_| {});
    rig.give_packet(Level::OneRtt, broken);
    let seen = rig.collect();
    assert!(seen.close.is_some());
    let said = acks(&seen);
    assert!(said.iter().any(|a| a.has(704)) && said.iter().all(|a| !a.has(706)), "{said:?}");
}

#[test]
fn a_packet_that_asks_is_answered_by_one_packet_with_nothing_but_an_ack() {
    //= rfc9000#13.2.1-3 type=test
    for side in [Side::Server, Side::Client] {
        let mut rig = quiet(side);
        rig.give(Level::OneRtt, &encode(&[Frame::Ping]));
        let seen = all_within(&mut rig, Duration::from_secs(5));
        assert_eq!((seen.datagrams.len(), acks(&seen).len()), (1, 1), "{side:?}");
        // Out of order, which is reported at once, and a copy of it, which asks for nothing.
        let late = rig.forge_numbered(Level::OneRtt, 900, &encode(&[Frame::Ping]), |_| {});
        rig.give_packet(Level::OneRtt, late.clone());
        assert_eq!(rig.collect().datagrams.len(), 1, "{side:?}");
        rig.give_packet(Level::OneRtt, late);
        assert_eq!(all_within(&mut rig, Duration::from_secs(5)).datagrams.len(), 0, "{side:?}");
    }
}

#[test]
fn the_delay_of_an_ack_is_the_time_for_which_it_was_held_back() {
    //= rfc9000#13.2.5-1 type=test
    let mut rig = quiet(Side::Server);
    rig.pass(Duration::from_secs(3));
    let came = rig.now;
    rig.give(Level::OneRtt, &encode(&[Frame::Ping]));
    let mut said = Vec::new();
    while said.is_empty() {
        said = acks(&rig.collect());
        rig.now = if said.is_empty() { rig.victim.deadline().unwrap() } else { rig.now };
    }
    let held = rig.now.since(came);
    assert_eq!(said[0].delay_us, held.as_micros() as u64, "of {held:?}");
    assert!(held >= Duration::from_millis(1), "it was held back: {held:?}");
    // One that leaves at once was not held back, however long ago the one before came.
    rig.pass(Duration::from_secs(3));
    let gap = rig.forge_numbered(Level::OneRtt, 800, &encode(&[Frame::Ping]), |_| {});
    rig.give_packet(Level::OneRtt, gap);
    assert_eq!(acks(&rig.collect()).iter().map(|a| a.delay_us).collect::<Vec<_>>(), [0]);
}

#[test]
fn what_came_in_1_rtt_packets_is_acknowledged_in_1_rtt_packets() {
    //= rfc9000#13.2.6-2 type=test
    for side in [Side::Server, Side::Client] {
        let mut rig = quiet(side);
        let packet = rig.forge_numbered(Level::OneRtt, 5000, &encode(&[Frame::Ping]), |_| {});
        rig.give_packet(Level::OneRtt, packet);
        let seen = all_within(&mut rig, Duration::from_millis(50));
        let said = acks(&seen);
        assert!(!said.is_empty() && said.iter().all(|a| a.level == Level::OneRtt && a.has(5000)), "{said:?}");
    }
}

#[test]
fn marks_are_reported_by_who_sets_none() {
    //= rfc9000#13.4.1-1 type=test
    for ecn in [false, true] {
        let mut plan = Plan::new(Side::Server, Stage::Confirmed);
        (plan.settings.ecn, plan.settings.mtu_discovery) = (ecn, false);
        let mut rig = Rig::new(plan);
        rig.collect();
        for mark in [Ecn::Ect0, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            let mut packet = rig.forge(Level::OneRtt, &encode(&[Frame::Ping]));
            let meta = Meta { local: None, remote: FORGER, ecn: mark, stride: packet.len() };
            rig.victim.receive(rig.now, &meta, &mut packet);
        }
        let said = acks(&all_within(&mut rig, Duration::from_millis(50)));
        assert_eq!(said.last().unwrap().ecn, Some([2, 1, 1]), "{said:?}");
    }
}

#[test]
fn a_lost_packet_makes_the_window_smaller() {
    //= rfc9000#13.3-7 type=test
    let mut rig = quiet(Side::Server);
    let before = rig.victim.conn_stats(rig.key).unwrap();
    let mut numbers = Vec::new();
    for _ in 0..6 {
        rig.victim.ping(rig.key).unwrap();
        rig.collect();
        numbers.push(rig.sent.last().unwrap().1);
        rig.now += Duration::from_millis(1);
    }
    let mut bytes = [0; 100];
    let mut w = Writer::new(&mut bytes);
    let ranges = numbers[1..].iter().rev().fold(Vec::new(), |mut all: Vec<(u64, u64)>, pn| {
        match all.last_mut() {
            Some(range) if range.0 == pn + 1 => range.0 = *pn,
            _ => all.push((*pn, *pn)),
        }
        all
    });
    write_ack(&mut w, ranges.iter().copied(), 0, None, 100).unwrap();
    let len = w.len();
    rig.inject(Level::OneRtt, &bytes[..len]);
    let after = rig.victim.conn_stats(rig.key).unwrap();
    assert_eq!((after.lost_packets - before.lost_packets, after.congestion_events - before.congestion_events), (1, 1));
    assert!(after.congestion_window < before.congestion_window, "{before:?} {after:?}");
}

#[test]
fn an_initial_in_a_small_datagram_is_dropped_and_the_connection_goes_on() {
    let mut rig = Rig::at(Side::Server, Stage::Initial);
    let before = received(&rig);
    for len in [1199, 600, 60] {
        let mut packet = rig.forge(Level::Initial, &encode(&[Frame::Ping, Frame::Padding(9)]));
        packet.resize(len, 0);
        rig.deliver(&mut packet);
        //= rfc9000#14.1-3 type=test
        assert_eq!(received(&rig), before, "{len} bytes");
        //= rfc9000#14-4 type=test
        assert_eq!(rig.victim.close_reason(rig.key), Ok(None), "{len} bytes");
    }
    let packet = rig.forge(Level::Initial, &encode(&[Frame::Ping, Frame::Padding(9)]));
    rig.give_packet(Level::Initial, packet);
    assert_eq!((received(&rig), rig.victim.close_reason(rig.key)), (before + 1, Ok(None)));
    // Probes of paths are to have 1,200 bytes as well; smaller ones are answered all the same.
    let mut rig = quiet(Side::Server);
    let seen = rig.inject(Level::OneRtt, &encode(&[Frame::PathChallenge([3; 8])]));
    assert_eq!((seen.close, rig.victim.close_reason(rig.key)), (None, Ok(None)));
}

#[test]
fn a_large_packet_with_nothing_but_padding_behind_a_ping_is_acknowledged() {
    //= rfc8899#3-4 type=test
    for side in [Side::Server, Side::Client] {
        let mut rig = quiet(side);
        for (n, size) in [(600u64, 1_472usize), (602, 9_000), (604, 65_000)] {
            let mut payload = vec![0; size - 13 - 16];
            payload[0] = 1;
            let probe = rig.forge_numbered(Level::OneRtt, n, &payload, |_| {});
            assert_eq!(probe.len(), size);
            rig.give_packet(Level::OneRtt, probe);
            let said = acks(&all_within(&mut rig, Duration::from_millis(50)));
            assert!(said.iter().any(|a| a.has(n)), "{side:?}, {size} bytes: {said:?}");
        }
    }
}

#[test]
fn data_is_told_from_the_padding_around_it() {
    //= rfc8899#4.1-1 type=test
    let mut rig = quiet(Side::Server);
    let id = StreamId(2);
    let data = |offset, data| Frame::Stream { id, offset, data, fin: offset > 0, length_present: true };
    let payload = encode(&[
        Frame::Padding(100),
        data(0, b"\0\0one"),
        Frame::Padding(400),
        data(5, b"two\0\0"),
        Frame::Padding(9),
    ]);
    rig.inject(Level::OneRtt, &payload);
    let mut out = [0xff; 1000];
    assert_eq!(rig.victim.read(rig.key, id, &mut out), Ok(Read::Bytes(10)));
    assert_eq!(&out[..10], b"\0\0onetwo\0\0");
    assert_eq!(rig.victim.read(rig.key, id, &mut out), Ok(Read::Finished));
}

/// Acknowledges these 1-RTT packets.
fn acknowledge(rig: &mut Rig, numbers: &[u64]) {
    let mut bytes = [0; 1000];
    let mut w = Writer::new(&mut bytes);
    let newest = numbers.iter().rev().map(|n| (*n, *n));
    write_ack(&mut w, newest, 0, None, 1000).unwrap();
    let len = w.len();
    rig.inject(Level::OneRtt, &bytes[..len]);
}

#[test]
fn a_size_passes_when_its_own_probe_is_acknowledged_and_not_before() {
    //= rfc8899#4.1-2 type=test
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    let mtu = |rig: &Rig| rig.victim.conn_stats(rig.key).unwrap().mtu;
    // The first acknowledgement begins the search, the second one ends it.
    rig.acknowledge();
    rig.collect();
    rig.acknowledge();
    assert_eq!(mtu(&rig), 1472, "the honest handshake ended with a search");
    // Nobody answers for a while: what passed before has to show itself again.
    rig.victim.ping(rig.key).unwrap();
    let probe = loop {
        let seen = rig.collect();
        if let Some(probe) = seen.datagrams.iter().find(|d| d.len() > 1200) {
            break numbered(probe)[0].1;
        }
        rig.now = rig.now.max(rig.victim.deadline().unwrap());
    };
    assert_eq!(mtu(&rig), 1200);
    let others: Vec<u64> = rig.sent.iter().flat_map(|r| r.0..=r.1).filter(|pn| *pn < probe).collect();
    // Answers to others that come late, and again, say nothing about it.
    for pn in others.iter().rev().take(5) {
        acknowledge(&mut rig, &[*pn]);
        assert_eq!(mtu(&rig), 1200);
    }
    acknowledge(&mut rig, &[probe]);
    assert_eq!(mtu(&rig), 1472);
    acknowledge(&mut rig, &[probe]);
    assert_eq!(mtu(&rig), 1472, "a copy of the answer changes nothing");
}

#[test]
fn a_test_of_another_path_that_is_too_big_there_ends_nothing() {
    let mut rig = quiet(Side::Server);
    let mut probe = rig.forge(Level::OneRtt, &encode(&[Frame::PathChallenge([3; 8]), Frame::Padding(1150)]));
    rig.deliver_from("10.7.7.7:7".parse().unwrap(), &mut probe);
    rig.victim.process(rig.now);
    let (mut train, mut refused) = (Train::new(), 0);
    while let Some(meta) = rig.victim.fill(rig.now, &mut train) {
        let elsewhere = meta.to != FORGER;
        refused += usize::from(elsewhere);
        rig.victim.sent(rig.now, &meta, if elsewhere { SendOutcome::TooBig } else { SendOutcome::Sent });
    }
    rig.victim.process(rig.now);
    assert!(refused > 0, "there was a test");
    assert_eq!(rig.victim.close_reason(rig.key), Ok(None));
}
