//! Scenarios: what each rule of RFC 9002 makes of a short story.

use core::time::Duration;

use super::sent::{Found, LossRule, SPAN_SLACK, SentHistory};
use super::timer::TimeoutOutcome;
use super::*;
use crate::ack::merge::AckInfo;
use crate::ids::StreamId;
use crate::spans::{FrameKind, FrameSet};

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) const fn at(n: u64) -> Instant {
    Instant::from_micros(n * 1000)
}

/// An ack-eliciting packet of 1,200 bytes.
pub(super) fn packet(time: Instant) -> SentPacket {
    SentPacket {
        time,
        frames: FrameSet::of(&[FrameKind::Stream]),
        size: 1200,
        level: Level::OneRtt,
        path: PathId(0),
        ack_eliciting: true,
        in_flight: true,
        mtu_probe: false,
        ect: false,
    }
}

fn pure_ack(time: Instant) -> SentPacket {
    SentPacket {
        frames: FrameSet::of(&[FrameKind::Ack]),
        size: 40,
        ack_eliciting: false,
        in_flight: false,
        ..packet(time)
    }
}

pub(super) const CONFIRMED: Context = Context {
    path: PathId(0),
    first: [0; 4],
    max_ack_delay: ms(25),
    handshake_confirmed: true,
    has_handshake_keys: true,
    peer_validated_address: true,
    amplification_blocked: false,
};

/// Recovery with its RTT estimate and a diary of fates.
pub(super) struct Rig {
    pub(super) r: Recovery,
    pub(super) rtt: Rtt,
    pub(super) cx: Context,
    pub(super) fates: Vec<(Fate, u64, bool)>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self { r: Recovery::new(), rtt: Rtt::default(), cx: CONFIRMED, fates: Vec::new() }
    }

    /// With a round trip of `rtt` ms known, without deviation, since the beginning of time.
    pub(super) fn with_rtt(rtt: u64) -> Self {
        let mut rig = Self::new();
        (0..100).for_each(|_| rig.rtt.sample(Instant::ZERO, ms(rtt), Duration::ZERO, None));
        rig
    }

    pub(super) fn send_in(&mut self, space: Space, t: u64) -> u64 {
        let pn = self.r.next_pn(space);
        self.r.on_packet_sent(space, pn, &packet(at(t)), &[]);
        pn
    }

    pub(super) fn send(&mut self, t: u64) -> u64 {
        self.send_in(Space::Data, t)
    }

    pub(super) fn ack_in(&mut self, space: Space, t: u64, ranges: &[(u64, u64)]) -> Result<AckOutcome, PeerViolation> {
        let info = AckInfo { space, delay: Duration::ZERO, ecn: None, received: at(t) };
        let ack = AckRanges::from_frame(info, ranges.iter().copied());
        let fates = &mut self.fates;
        self.r.on_ack(at(t), &ack, &mut self.rtt, &self.cx, &mut |fate, s| fates.push((fate, s.pn, s.spurious)))
    }

    pub(super) fn ack(&mut self, t: u64, ranges: &[(u64, u64)]) -> AckOutcome {
        self.ack_in(Space::Data, t, ranges).unwrap()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.r.deadline(&self.rtt, &self.cx)
    }

    pub(super) fn timeout(&mut self, t: Instant) -> TimeoutOutcome {
        let fates = &mut self.fates;
        self.r.on_timeout(t, &mut self.rtt, &self.cx, &mut |fate, s| fates.push((fate, s.pn, s.spurious)))
    }

    pub(super) fn lost(&self) -> Vec<u64> {
        self.fates.iter().filter(|f| f.0 == Fate::Lost).map(|f| f.1).collect()
    }

    pub(super) fn acked(&self) -> Vec<u64> {
        self.fates.iter().filter(|f| f.0 == Fate::Acked).map(|f| f.1).collect()
    }
}

#[test]
fn acknowledged_packets_are_settled_once() {
    let mut rig = Rig::new();
    (0..10).for_each(|t| assert_eq!(rig.send(t), t));
    let out = rig.ack(50, &[(2, 5)]);
    assert_eq!((out.newly_acked, out.paths[0].acked_bytes, out.paths[0].acked_sent), (4, 4800, Some(at(5))));
    assert!(out.newly_acked_eliciting && out.rtt_sampled && out.largest_increased);
    assert_eq!(rig.rtt.latest(), ms(45));
    // The same frame again, and an older one, change nothing.
    assert_eq!(rig.ack(60, &[(2, 5)]), AckOutcome::default());
    assert_eq!(rig.ack(60, &[(3, 4)]), AckOutcome::default());
    assert_eq!(rig.rtt.latest(), ms(45));
    assert_eq!(rig.acked(), [5, 4, 3, 2]);
}

#[test]
fn an_acknowledgement_of_an_unsent_number_is_a_violation() {
    //= rfc9000#13.1-2 type=test
    let mut rig = Rig::new();
    rig.send(0);
    for ranges in [[(1, 1)], [(0, 1)], [(0, u64::MAX >> 2)]] {
        let e = rig.ack_in(Space::Data, 1, &ranges).unwrap_err();
        assert_eq!(e.code, TransportCode::PROTOCOL_VIOLATION);
    }
    assert!(rig.ack_in(Space::Initial, 1, &[(0, 0)]).is_err(), "spaces count apart");
    assert!(rig.fates.is_empty() && rig.r.largest_acked(Space::Data).is_none());
}

#[test]
fn numbers_continue_where_a_mini_connection_stopped() {
    let mut rig = Rig::new();
    rig.r.start_at(Space::Initial, 2);
    assert_eq!(rig.send_in(Space::Initial, 0), 2);
    assert_eq!(rig.ack_in(Space::Initial, 1, &[(0, 1)]).unwrap().newly_acked, 0);
    assert_eq!(rig.ack_in(Space::Initial, 1, &[(0, 2)]).unwrap().newly_acked, 1);
    assert!(rig.ack_in(Space::Initial, 1, &[(3, 3)]).is_err());
}

#[test]
fn an_optimistic_acknowledgement_is_caught_by_a_skipped_number() {
    //= rfc9000#13.1-2 type=test
    let mut rig = Rig::new();
    assert!(!rig.r.reserve_skip(Space::Data, 3), "the first call draws only");
    let (mut skipped, mut t) = (None, 0);
    while skipped.is_none() {
        let next = rig.r.next_pn(Space::Data);
        if rig.r.reserve_skip(Space::Data, 5) {
            skipped = Some(next);
        }
        t += 1;
        rig.send(t);
    }
    let skipped = skipped.unwrap();
    assert!(rig.r.next_pn(Space::Data) > skipped + 1);
    // One at a time: no further number is left out until this one was passed.
    assert!(!rig.r.skip_due(Space::Data));
    let honest = rig.ack(100, &[(skipped + 1, skipped + 1), (0, skipped - 1)]);
    assert_eq!(u64::from(honest.newly_acked), skipped + 1);
    // Even later, when the number is no longer in the ring.
    for _ in 0..5 {
        rig.send(200);
    }
    assert!(rig.ack_in(Space::Data, 250, &[(0, skipped + 3)]).is_err());
    rig.ack(251, &[(skipped + 1, skipped + 3)]);
}

#[test]
fn the_packet_threshold_is_three() {
    //= rfc9002#6.1.1-1 type=test
    let mut rig = Rig::with_rtt(100);
    (0..5).for_each(|_| _ = rig.send(1000));
    rig.ack(1100, &[(2, 2)]);
    assert!(rig.lost().is_empty());
    let out = rig.ack(1100, &[(3, 3)]);
    assert_eq!(rig.lost(), [0]);
    assert_eq!((out.lost, out.paths[0].lost_bytes, out.paths[0].lost_sent), (1, 1200, Some(at(1000))));
    rig.ack(1100, &[(4, 4)]);
    assert_eq!(rig.lost(), [0, 1]);
}

#[test]
fn the_time_threshold_is_nine_eighths() {
    //= rfc9002#6.1.2-1, rfc9002#6.1.2-3, rfc9002#6.1.2-4 type=test
    let mut rig = Rig::with_rtt(80);
    rig.send(1000);
    rig.send(1001);
    rig.ack(1081, &[(1, 1)]);
    assert!(rig.lost().is_empty());
    //= rfc9002#6.2.1-6 type=test
    assert_eq!(rig.deadline(), Some(at(1090)));
    assert_eq!(rig.timeout(at(1089)), TimeoutOutcome::NotDue);
    let TimeoutOutcome::Lost(out) = rig.timeout(at(1090)) else { panic!("it is due") };
    assert_eq!((out.lost, rig.lost()), (1, vec![0]));
    assert_eq!(rig.deadline(), None);
}

#[test]
fn only_earlier_packets_are_lost() {
    let mut rig = Rig::with_rtt(10);
    rig.send(0);
    rig.send(0);
    rig.ack(5000, &[(0, 0)]);
    assert!(rig.lost().is_empty());
}

#[test]
fn a_probe_timeout_backs_off_and_loses_nothing() {
    //= rfc9002#6.2-1, rfc9002#6.2.1-5, rfc9002#6.2.4-1 type=test
    let mut rig = Rig::with_rtt(100);
    let pto = rig.rtt.pto_base() + ms(25);
    let first = rig.send(1000);
    let mut due = at(1000) + pto;
    assert_eq!(rig.deadline(), Some(due));
    for n in 1..6u32 {
        assert_eq!(rig.timeout(due - ms(1)), TimeoutOutcome::NotDue);
        assert_eq!(rig.timeout(due), TimeoutOutcome::Probe { space: Space::Data, count: 2 });
        assert_eq!(rig.r.pto_count(), n);
        let pn = rig.r.next_pn(Space::Data);
        rig.r.on_packet_sent(Space::Data, pn, &packet(due), &[]);
        due += pto * 2u32.pow(n);
        assert_eq!(rig.deadline(), Some(due));
    }
    assert!(rig.fates.is_empty());
    rig.ack(9000, &[(first, first)]);
    assert_eq!(rig.r.pto_count(), 0);
}

#[test]
fn the_backoff_never_overflows() {
    let mut rig = Rig::with_rtt(100);
    rig.send(0);
    for _ in 0..200 {
        let due = rig.deadline().unwrap();
        assert!(matches!(rig.timeout(due), TimeoutOutcome::Probe { .. }));
    }
}

#[test]
fn the_earliest_space_is_probed() {
    //= rfc9002#6.2.1-2 type=test
    let mut rig = Rig::with_rtt(100);
    rig.cx.handshake_confirmed = false;
    rig.send_in(Space::Handshake, 10);
    rig.send_in(Space::Initial, 20);
    let due = rig.deadline().unwrap();
    assert_eq!(due, at(10) + rig.rtt.pto_base());
    assert_eq!(rig.timeout(due), TimeoutOutcome::Probe { space: Space::Handshake, count: 2 });
}

#[test]
fn the_data_space_waits_for_confirmation() {
    //= rfc9002#6.2.1-3 type=test
    let mut rig = Rig::with_rtt(100);
    rig.cx.handshake_confirmed = false;
    rig.send(10);
    assert_eq!(rig.deadline(), None);
    rig.cx.handshake_confirmed = true;
    assert!(rig.deadline().is_some());
}

#[test]
fn a_client_keeps_a_timer_against_deadlock() {
    //= rfc9002#6.2.2.1-2, rfc9002#6.2.2.1-3 type=test
    let mut rig = Rig::new();
    rig.cx =
        Context { handshake_confirmed: false, has_handshake_keys: false, peer_validated_address: false, ..CONFIRMED };
    rig.send_in(Space::Initial, 0);
    rig.ack_in(Space::Initial, 40, &[(0, 0)]).unwrap();
    // Nothing is in flight, but the server may be out of credit. An acknowledged Initial does not reset the backoff.
    let due = rig.deadline().unwrap();
    assert_eq!(due, at(40) + rig.rtt.pto_base());
    assert_eq!(rig.timeout(due), TimeoutOutcome::Probe { space: Space::Initial, count: 1 });
    rig.cx.has_handshake_keys = true;
    let again = rig.deadline().unwrap();
    assert_eq!(again, due + 2 * rig.rtt.pto_base());
    assert_eq!(rig.timeout(again), TimeoutOutcome::Probe { space: Space::Handshake, count: 1 });
    // The same while only 0-RTT packets are in flight.
    rig.send(5000);
    assert!(rig.deadline().is_some());
    rig.cx.peer_validated_address = true;
    assert_eq!(rig.deadline(), None);
}

#[test]
fn a_server_out_of_credit_sets_no_probe_timer() {
    //= rfc9002#6.2.2.1-1 type=test
    let mut rig = Rig::new();
    rig.send_in(Space::Initial, 0);
    assert!(rig.deadline().is_some());
    rig.cx.amplification_blocked = true;
    assert_eq!(rig.deadline(), None);
    assert_eq!(rig.timeout(at(100_000)), TimeoutOutcome::NotDue);
}

#[test]
fn the_backoff_stays_until_the_address_is_validated() {
    let mut rig = Rig::new();
    rig.cx = Context { handshake_confirmed: false, peer_validated_address: false, ..CONFIRMED };
    rig.send_in(Space::Initial, 0);
    let due = rig.deadline().unwrap();
    _ = rig.timeout(due);
    rig.ack_in(Space::Initial, 2000, &[(0, 0)]).unwrap();
    assert_eq!(rig.r.pto_count(), 1);
}

#[test]
fn discarding_a_space_frees_its_packets() {
    //= rfc9002#6.4-1, rfc9002#6.2.2-3 type=test
    let mut rig = Rig::new();
    (0..3).for_each(|_| _ = rig.send_in(Space::Initial, 0));
    rig.send_in(Space::Handshake, 0);
    _ = rig.timeout(at(5000));
    assert_eq!(rig.r.pto_count(), 1);
    let mut fates = Vec::new();
    let freed = rig.r.discard(at(6000), Space::Initial, &mut |fate, s| fates.push((fate, s.pn)));
    assert_eq!(freed.bytes, [3600, 0, 0, 0]);
    assert_eq!(fates, [(Fate::Discarded, 0), (Fate::Discarded, 1), (Fate::Discarded, 2)]);
    assert_eq!((rig.r.pto_count(), rig.r.eliciting_in_flight(Space::Initial)), (0, 0));
    assert_eq!(rig.r.eliciting_in_flight(Space::Handshake), 1);
    // Numbers are not used again.
    //= rfc9000#12.3-2 type=test
    assert_eq!(rig.r.next_pn(Space::Initial), 3);
    // After the second early space both are gone, and late calls find nothing.
    assert_eq!(rig.r.discard(at(7000), Space::Handshake, &mut |_, _| {}).bytes, [1200, 0, 0, 0]);
    assert!(rig.r.early.is_none());
    assert_eq!(rig.ack_in(Space::Handshake, 7001, &[(0, 0)]).unwrap(), AckOutcome::default());
    assert_eq!(rig.r.discard(at(7002), Space::Initial, &mut |_, _| {}), Freed::default());
    assert_eq!(rig.deadline(), None);
    assert!(size_of::<Recovery>() <= 320, "{}", size_of::<Recovery>());
}

#[test]
fn abandoning_a_level_leaves_the_other_packets_of_the_space() {
    let mut rig = Rig::new();
    let early = SentPacket { level: Level::ZeroRtt, ..packet(at(0)) };
    rig.r.on_packet_sent(Space::Data, 0, &early, &[Record::Item(7)]);
    rig.r.on_packet_sent(Space::Data, 1, &early, &[Record::Item(8), Record::Item(9)]);
    rig.send(1);
    let mut seen = Vec::new();
    let freed = rig.r.abandon(at(2), Level::ZeroRtt, &mut |fate, s| seen.push((fate, s.pn, s.records.to_vec())));
    assert_eq!(freed.bytes[0], 2400);
    assert_eq!(
        seen,
        [(Fate::Lost, 0, vec![Record::Item(7)]), (Fate::Lost, 1, vec![Record::Item(8), Record::Item(9)]),]
    );
    assert_eq!(rig.r.eliciting_in_flight(Space::Data), 1);
    assert_eq!(rig.ack(50, &[(0, 2)]).newly_acked, 1);
}

#[test]
fn a_late_acknowledgement_is_told_as_spurious_and_adapts() {
    let mut rig = Rig::with_rtt(40);
    (0..10).for_each(|_| _ = rig.send(1000));
    rig.ack(1040, &[(1, 8)]);
    assert_eq!(rig.lost(), [0]);
    rig.fates.clear();
    let out = rig.ack(1045, &[(0, 9)]);
    assert_eq!(rig.fates, [(Fate::Acked, 9, false), (Fate::Acked, 0, true)]);
    assert_eq!((out.newly_acked, out.spurious), (1, 1));
    assert_eq!((out.paths[0].spurious_bytes, out.paths[0].acked_bytes), (1200, 1200));
    assert_eq!(out.paths[0].spurious_sent, Some(at(1000)));
    // The next packet that is overtaken as much is not declared lost any more.
    let next = rig.send(2000);
    (0..9).for_each(|_| _ = rig.send(2000));
    rig.fates.clear();
    rig.ack(2040, &[(next + 1, next + 8)]);
    assert!(rig.lost().is_empty());
    assert_eq!(rig.ack(2045, &[(next, next)]).spurious, 0);
}

#[test]
fn a_lost_packet_is_remembered_for_three_probe_timeouts() {
    let mut rig = Rig::with_rtt(40);
    (0..6).for_each(|_| _ = rig.send(1000));
    rig.ack(1040, &[(1, 4)]);
    assert_eq!(rig.lost(), [0]);
    let keep = (rig.rtt.pto_base() + ms(25)).as_millis() as u64 * 3;
    let mut later = rig.r.clone();
    let mut rtt = rig.rtt;
    // Just in time.
    assert_eq!(rig.ack(1040 + keep - 10, &[(0, 0)]).spurious, 1);
    // Too late: the acknowledgement of a younger packet comes first and lets it be forgotten.
    let info = |t| AckInfo { space: Space::Data, delay: Duration::ZERO, ecn: None, received: at(t) };
    later.on_packet_sent(Space::Data, 6, &packet(at(1200 + keep)), &[]);
    let mut ack = |t, pn: u64| {
        let ack = AckRanges::from_frame(info(t), core::iter::once((pn, pn)));
        later.on_ack(at(t), &ack, &mut rtt, &CONFIRMED, &mut |_, _| {}).unwrap()
    };
    ack(1240 + keep, 6);
    assert_eq!(ack(1240 + keep, 0), AckOutcome::default());
    assert_eq!(later.sent_data().lowest(), 5);
}

#[test]
fn persistent_congestion_follows_the_example() {
    //= rfc9002#7.6.2-1, rfc9002#7.6.2-2 type=test
    let mut rig = Rig::new();
    rig.r = Recovery::with_reordering(Reordering::fixed());
    // smoothed_rtt + 4 * rttvar + max_ack_delay is about 2 s.
    (0..100).for_each(|_| rig.rtt.sample(Instant::ZERO, ms(1000), Duration::ZERO, None));
    rig.cx.max_ack_delay = ms(1000);
    let mut story = rig.r.clone();
    let mut rtt = rig.rtt;
    for (seconds, acked_at_end) in [(0, false), (1, false)] {
        assert!(!acked_at_end);
        let pn = story.next_pn(Space::Data);
        story.on_packet_sent(Space::Data, pn, &packet(at(seconds * 1000 + 1)), &[]);
    }
    let info = |t| AckInfo { space: Space::Data, delay: Duration::ZERO, ecn: None, received: at(t) };
    let one = |t, pn: u64| AckRanges::from_frame(info(t), core::iter::once((pn, pn)));
    story.on_ack(at(1001), &one(1001, 0), &mut rtt, &rig.cx, &mut |_, _| {}).unwrap();
    for seconds in [2, 3, 4, 5, 6, 8, 12] {
        let pn = story.next_pn(Space::Data);
        story.on_packet_sent(Space::Data, pn, &packet(at(seconds * 1000)), &[]);
    }
    let mut lost = Vec::new();
    let mut with_gap = story.clone();
    let out = story
        .on_ack(at(13_000), &one(13_000, 8), &mut rtt.clone(), &rig.cx, &mut |fate, s| {
            if fate == Fate::Lost {
                lost.push(s.pn);
            }
        })
        .unwrap();
    assert_eq!(lost, [1, 2, 3, 4, 5, 6, 7]);
    assert!(out.persistent_congestion);
    // An acknowledged packet in between breaks the period.
    let ranges = AckRanges::from_frame(info(13_000), [(8, 8), (4, 4)].into_iter());
    let out = with_gap.on_ack(at(13_000), &ranges, &mut rtt, &rig.cx, &mut |_, _| {}).unwrap();
    assert!(!out.persistent_congestion);
}

#[test]
fn persistent_congestion_needs_an_earlier_rtt_sample() {
    //= rfc9002#7.6.2-2 type=test
    let mut rig = Rig::new();
    (0..9).for_each(|i| _ = rig.send(1000 * i));
    let out = rig.ack(8100, &[(8, 8)]);
    assert_eq!((out.lost, out.persistent_congestion), (8, false));
}

#[test]
fn a_lost_mtu_probe_says_nothing_about_congestion() {
    //= rfc9000#14.4-1 type=test
    let mut rig = Rig::with_rtt(40);
    let probe = SentPacket { mtu_probe: true, size: 1452, ..packet(at(1000)) };
    rig.r.on_packet_sent(Space::Data, 0, &probe, &[]);
    (0..3).for_each(|_| _ = rig.send(1000));
    let out = rig.ack(1040, &[(1, 3)]);
    assert_eq!(out.mtu_lost, Some((0, 1452)));
    assert_eq!((out.paths[0].lost_bytes, out.paths[0].released_bytes), (0, 1452));
    rig.r.on_packet_sent(Space::Data, 4, &SentPacket { time: at(1100), ..probe }, &[]);
    assert_eq!(rig.ack(1140, &[(4, 4)]).mtu_acked, Some((4, 1452)));
}

#[test]
fn tallies_and_samples_are_kept_apart_by_path() {
    //= rfc9000#9.4-1 type=test
    let mut rig = Rig::with_rtt(40);
    let old = SentPacket { path: PathId(2), ect: true, ..packet(at(1000)) };
    rig.r.on_packet_sent(Space::Data, 0, &old, &[]);
    rig.send(1000);
    rig.r.on_packet_sent(Space::Data, 2, &old, &[]);
    let out = rig.ack(1500, &[(0, 2)]);
    assert_eq!((out.paths[0].acked_bytes, out.paths[2].acked_bytes), (1200, 2400));
    assert_eq!((out.paths[0].acked_ect, out.paths[2].acked_ect), (0, 2));
    assert!(!out.rtt_sampled, "the largest packet left on another path");
    assert_eq!(rig.rtt.latest(), ms(40));
}

#[test]
fn packets_of_a_predecessor_at_the_same_position_count_for_nobody() {
    //= rfc9000#9.4-1 type=test
    let mut rig = Rig::with_rtt(40);
    // The position changed hands between two packets of one moment.
    rig.send(2000);
    rig.send(2000);
    rig.cx.first[0] = 1;
    let out = rig.ack(2030, &[(0, 1)]);
    assert_eq!((out.newly_acked, out.paths[0].acked_bytes, out.paths[0].acked_sent), (2, 1200, Some(at(2000))));
    rig.cx.first[0] = 3;
    rig.send(3000);
    assert!(!rig.ack(3100, &[(2, 2)]).rtt_sampled);
}

#[test]
fn no_rtt_sample_without_an_ack_eliciting_packet() {
    //= rfc9002#5.1-2 type=test
    let mut rig = Rig::with_rtt(40);
    rig.r.on_packet_sent(Space::Data, 0, &pure_ack(at(1000)), &[Record::Ack(9)]);
    let out = rig.ack(1900, &[(0, 0)]);
    assert_eq!((out.newly_acked, out.rtt_sampled, out.paths[0].acked_bytes), (1, false, 0));
    // Nor when the largest number was acknowledged before.
    //= rfc9002#5.1-1 type=test
    rig.send(2000);
    rig.send(2000);
    rig.ack(2040, &[(2, 2)]);
    assert!(!rig.ack(2900, &[(0, 2)]).rtt_sampled);
}

#[test]
fn records_come_back_whole_and_in_order() {
    let records: Vec<Record> =
        (0..5).map(|i| Record::ResetStream(StreamId(i))).chain([Record::Ack(77), Record::Item(3)]).collect();
    let mut h = SentHistory::new();
    let mut expected = Vec::new();
    for n in 0..50u64 {
        let some = &records[..(n % 8).min(7) as usize];
        h.push(n, &packet(at(n)), some);
        expected.push((n, some.to_vec()));
    }
    assert_eq!(h.records_in_use(), expected.iter().map(|e| if e.1.len() > 1 { e.1.len() } else { 0 }).sum::<usize>());
    let mut seen = Vec::new();
    let rule = LossRule { largest_acked: 60, packet_threshold: 50, sent_before: Instant::ZERO };
    h.detect_lost(at(100), &rule, |f, _| seen.push((f.pn, f.records.to_vec())));
    assert_eq!(seen.len(), 11);
    let visit = |f: Found<'_>| {
        assert_eq!(f.was_lost, f.pn <= 10);
        (f.pn, f.records.to_vec())
    };
    let mut acked = Vec::new();
    h.begin_ack();
    h.ack_range(0, 49, |f| acked.push(visit(f)));
    h.finish_ack();
    acked.sort_by_key(|e| e.0);
    assert_eq!(acked, expected);
    assert_eq!(seen, expected[..11]);
    assert_eq!((h.records_in_use(), h.entries(), h.live()), (0, 0, 0));
}

#[test]
fn one_straggler_does_not_hold_a_hundred_thousand_packets() {
    let mut h = SentHistory::new();
    h.push(0, &packet(at(0)), &[Record::Item(1), Record::Item(2)]);
    for pn in 1..=100_000u64 {
        h.push(pn, &packet(at(pn)), &[]);
        h.begin_ack();
        h.ack_range(pn, pn, |_| {});
        h.finish_ack();
        assert!(h.entries() <= 4 * h.live() + SPAN_SLACK, "{} entries", h.entries());
    }
    assert_eq!(h.live(), 1);
    // It is still known, and can be acknowledged or lost.
    let mut copy = h.clone();
    let mut seen = Vec::new();
    copy.begin_ack();
    copy.ack_range(0, 0, |f| seen.push((f.pn, f.records.len(), f.was_lost)));
    assert_eq!(seen, [(0, 2, false)]);
    let rule = LossRule { largest_acked: 100_000, packet_threshold: 3, sent_before: Instant::ZERO };
    assert_eq!(h.detect_lost(at(1), &rule, |f, _| assert_eq!(f.pn, 0)), None);
    assert_eq!((h.live(), h.entries()), (0, 1));
}

#[test]
fn pure_acks_that_nobody_acknowledges_are_forgotten() {
    let mut r = Recovery::new();
    for pn in 0..50_000 {
        r.on_packet_sent(Space::Data, pn, &pure_ack(at(pn)), &[Record::Ack(pn), Record::Item(0)]);
    }
    let sent = r.sent_data();
    assert!(sent.entries() <= SPAN_SLACK && sent.records_in_use() <= 2 * SPAN_SLACK);
    assert_eq!(r.eliciting_in_flight(Space::Data), 0);
}

#[test]
fn lost_packets_in_memory_are_bounded() {
    let mut rig = Rig::with_rtt(40);
    for i in 0..20_000 {
        rig.send(1000);
        if i % 10 == 9 {
            rig.ack(1001, &[(i, i)]);
            let sent = rig.r.sent_data();
            assert!(sent.entries() <= 2 * (4 * sent.live() + SPAN_SLACK), "{}", sent.entries());
        }
    }
}

#[test]
fn reading_an_ack_steps_over_what_is_known() {
    // Every other packet of a long window is missing; each ACK repeats all ranges. With the runs remembered this takes
    // microseconds per frame; a walk over the window each time would make it quadratic.
    let mut h = SentHistory::new();
    for pn in 0..200_000u64 {
        h.push(pn, &packet(at(0)), &[]);
    }
    let mut settled = 0;
    for top in 1..100_000u64 {
        h.begin_ack();
        h.ack_range(1, top, |_| settled += 1);
        h.finish_ack();
    }
    assert_eq!((settled, h.live()), (99_999, 100_001));
}

#[test]
fn a_path_change_forgets_what_was_learned() {
    let mut rig = Rig::with_rtt(40);
    (0..10).for_each(|_| _ = rig.send(1000));
    rig.ack(1040, &[(1, 8)]);
    rig.ack(1045, &[(0, 0)]);
    assert!(rig.r.reordering().packets() > 3);
    rig.send(1100);
    let due = rig.deadline().unwrap();
    _ = rig.timeout(due);
    rig.r.reset_for_path_change(due);
    assert_eq!((rig.r.reordering().packets(), rig.r.pto_count()), (3, 0));
}
