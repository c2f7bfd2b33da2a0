//! When an ACK frame has to leave, per packet number space.
//!
//! Initial and Handshake packets are acknowledged at once. In the Data space an ACK is due at once after reordering, a
//! gap, a CE mark or `tolerance` ack-eliciting packets, and else a little less than `max_ack_delay` after the first
//! ack-eliciting packet that is not acknowledged yet. All of that only sets a time: the owner asks [`AckSchedule::due`] once after each receive
//! batch, so that a batch of 44 packets gives one ACK frame, not 22. Packets that are not ack-eliciting are acknowledged
//! along with others and never cause an ACK.

use core::time::Duration;

use super::EcnCounts;
use super::history::{Inserted, RecvHistory};
use crate::ids::{Ecn, PacketNumber, Space};
use crate::time::{Instant, micros};

/// Ack-eliciting packets per ACK unless the peer asks for something else (RFC 9000 section 13.2.2).
pub const TOLERANCE: u32 = 2;

/// What a timer may be late, and a datagram takes to leave, at most as much as this part of the delay.
const LATE_MAX_US: u64 = 5000;

/// How long an ACK is held back so that it leaves within the delay that the peer was told: a peer that is close would else
/// probe for what is about to be acknowledged.
//= rfc9000#18.2-2
fn held_back(delay_us: u64) -> u64 {
    delay_us - (delay_us / 4).min(LATE_MAX_US)
}

/// Reordering that is reported at once: any.
pub const REORDERING: u64 = 1;

/// What was received in one space, and when to acknowledge it.
#[derive(Clone, Debug)]
pub struct AckSchedule {
    /// The received numbers.
    history: RecvHistory,
    /// Marks received, for ACK frames of type 0x03.
    ecn: EcnCounts,
    /// When the ACK is due; `None` while no ack-eliciting packet waits for one.
    due_at: Option<Instant>,
    /// When the largest number arrived: the ACK Delay field counts from here.
    largest_time: Instant,
    /// The largest ack-eliciting number; gaps and reordering are judged against it.
    largest_eliciting: Option<PacketNumber>,
    /// The largest number that an ACK frame of ours reported.
    largest_acked: Option<PacketNumber>,
    /// Longest delay of an ACK that the peer reckons with, in microseconds; zero in the Initial and Handshake spaces.
    max_delay_us: u64,
    /// Ack-eliciting packets since the last ACK.
    waiting: u32,
    /// Ack-eliciting packets that make an ACK due.
    tolerance: u32,
    /// Reordering threshold of the peer's loss detection; 0: do not report reordering at once.
    reordering: u64,
    /// What the next acknowledged ACK lets us forget: everything below.
    forget_next: PacketNumber,
    /// Whether the packet before this one had a CE mark.
    last_was_ce: bool,
    /// One more than the number of the last ACK_FREQUENCY frame; 0: none came.
    wishes: u64,
}

impl AckSchedule {
    /// Nothing received. `max_ack_delay` is what our transport parameters said; it counts in the Data space only.
    #[must_use]
    pub const fn new(space: Space, max_ack_delay: Duration) -> Self {
        let max_delay = if matches!(space, Space::Data) { max_ack_delay } else { Duration::ZERO };
        Self {
            history: RecvHistory::new(),
            ecn: EcnCounts { ect0: 0, ect1: 0, ce: 0 },
            due_at: None,
            largest_time: Instant::ZERO,
            largest_eliciting: None,
            largest_acked: None,
            max_delay_us: micros(max_delay),
            waiting: 0,
            tolerance: TOLERANCE,
            reordering: REORDERING,
            forget_next: 0,
            last_was_ce: false,
            wishes: 0,
        }
    }

    /// Gives the room back that nothing needs.
    pub fn shrink(&mut self) {
        self.history.shrink();
    }

    /// Reads a word of each line of memory that the next packet needs, so that they are in the cache by then.
    #[must_use]
    pub fn touch(&self) -> u64 {
        let history = self.history.largest().unwrap_or(0);
        history ^ self.largest_acked.unwrap_or(0) ^ self.ecn.ce ^ self.max_delay_us ^ u64::from(self.waiting)
    }

    /// Goes on where somebody else stopped: these numbers came, as first and last, newest first, and these marks; the largest
    /// number came at that time. `due` is set when an ACK has to leave.
    pub fn take_over(
        &mut self,
        received: &[(PacketNumber, PacketNumber)],
        ecn: EcnCounts,
        largest_at: Instant,
        due: Option<Instant>,
    ) {
        for pn in received.iter().rev().flat_map(|(first, last)| *first..=*last) {
            self.history.insert(pn);
        }
        (self.ecn, self.largest_time, self.due_at) = (ecn, largest_at, due);
        self.largest_eliciting = self.history.largest();
        self.waiting = due.is_some().into();
    }

    /// Follows the peer's wishes (ACK_FREQUENCY): an ACK per `packets` ack-eliciting packets, that is one more than the
    /// frame's Ack-Eliciting Threshold; the delay; and the Reordering Threshold (0: never at once, 1: RFC 9000).
    pub const fn set_tolerance(&mut self, packets: u32, max_delay: Duration, reordering: u64) {
        self.tolerance = if packets == 0 { 1 } else { packets };
        self.max_delay_us = micros(max_delay);
        self.reordering = reordering;
    }

    /// An ACK_FREQUENCY frame came: `threshold` ack-eliciting packets may come without an ACK. Returns whether it was newer
    /// than those before.
    pub fn on_wishes(&mut self, sequence: u64, threshold: u64, max_delay: Duration, reordering: u64) -> bool {
        //= ack-frequency#4-5
        if sequence < self.wishes {
            return false;
        }
        self.wishes = sequence.saturating_add(1);
        let packets = u32::try_from(threshold.saturating_add(1)).unwrap_or(u32::MAX);
        //= ack-frequency#4-3
        self.set_tolerance(packets, max_delay, reordering);
        true
    }

    /// A packet was authenticated and its frames were processed. `now` is when its datagram arrived; for a packet that
    /// had to wait for keys this is the original time, so that the wait is part of the reported delay.
    pub fn on_packet(&mut self, now: Instant, pn: PacketNumber, ack_eliciting: bool, ecn: Ecn) -> Inserted {
        let inserted = self.history.insert(pn);
        if inserted == Inserted::Duplicate {
            return inserted;
        }
        //= rfc9000#13.4.1-1
        match ecn {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ecn.ect0 += 1,
            Ecn::Ect1 => self.ecn.ect1 += 1,
            Ecn::Ce => self.ecn.ce += 1,
        }
        if self.history.largest() == Some(pn) {
            self.largest_time = now;
        }
        let ce_began = ecn == Ecn::Ce && !(self.last_was_ce && self.tolerance > TOLERANCE);
        self.last_was_ce = ecn == Ecn::Ce;
        if !ack_eliciting {
            return inserted;
        }
        self.waiting = self.waiting.saturating_add(1);
        let out_of_order = self.is_out_of_order(pn);
        self.largest_eliciting = self.largest_eliciting.max(Some(pn));
        //= rfc9000#13.2.1-2, rfc9000#13.2.1-7, rfc9000#13.2.1-8, rfc9000#13.2.2-1
        let at_once = self.max_delay_us == 0 || self.waiting >= self.tolerance || ce_began || out_of_order;
        let due = if at_once { now } else { now.after_micros(held_back(self.max_delay_us)) };
        self.due_at = Some(self.due_at.map_or(due, |earlier| earlier.min(due)));
        inserted
    }

    /// Whether this ack-eliciting packet, already in the history, tells of reordering that the peer should know at once.
    fn is_out_of_order(&self, pn: PacketNumber) -> bool {
        match self.reordering {
            //= ack-frequency#6.2-1
            0 => false,
            1 => match self.largest_eliciting {
                Some(largest) if pn < largest => true,
                Some(largest) => self.history.first_missing(largest + 1, pn).is_some(),
                None => self.history.first_missing(0, pn).is_some(),
            },
            //= ack-frequency#6.2-2
            threshold => {
                // Numbers up to here could be declared lost from what we reported last.
                let reported = self.largest_acked.and_then(|l| l.checked_sub(threshold));
                if reported.is_some_and(|r| pn <= r) {
                    return true;
                }
                let largest = self.largest_eliciting.map_or(pn, |l| l.max(pn));
                self.history
                    .first_missing(reported.map_or(0, |r| r + 1), largest)
                    .is_some_and(|missing| largest - missing >= threshold)
            }
        }
    }

    /// Makes an ACK due now (IMMEDIATE_ACK); the packet that carries the frame is itself ack-eliciting.
    //= ack-frequency#5-1
    pub const fn demand(&mut self, now: Instant) {
        self.due_at = Some(now);
    }

    /// Whether an ACK frame has to leave now. Asked once per receive batch.
    #[must_use]
    pub fn due(&self, now: Instant) -> bool {
        self.due_at.is_some_and(|at| at <= now)
    }

    /// When the ACK frame has to leave at the latest.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.due_at
    }

    /// Whether a packet that leaves for another reason should carry an ACK frame.
    //= rfc9000#13.2.1-5
    #[must_use]
    pub const fn wanted_if_sending(&self) -> bool {
        self.due_at.is_some()
    }

    /// Whether the number was received before, or is too old to know.
    #[must_use]
    pub fn is_duplicate(&self, pn: PacketNumber) -> bool {
        self.history.is_duplicate(pn)
    }

    /// The received numbers, for writing the frame.
    #[must_use]
    pub const fn history(&self) -> &RecvHistory {
        &self.history
    }

    /// The marks to report; `None` when no mark was ever seen, so that the shorter frame type is enough.
    #[must_use]
    pub fn ecn(&self) -> Option<EcnCounts> {
        (self.ecn != EcnCounts::default()).then_some(self.ecn)
    }

    /// How long the largest number has waited: what the ACK Delay field says.
    //= rfc9000#13.2.5-3
    #[must_use]
    pub const fn delay(&self, now: Instant) -> Duration {
        now.since(self.largest_time)
    }

    /// The longest delay that the peer expects of an ACK.
    #[must_use]
    pub const fn max_delay(&self) -> Duration {
        Duration::from_micros(self.max_delay_us)
    }

    /// An ACK frame with this largest number was sent.
    pub fn on_sent(&mut self, largest: PacketNumber) {
        self.largest_acked = self.largest_acked.max(Some(largest));
        self.waiting = 0;
        self.due_at = None;
    }

    /// The peer acknowledged a packet with an ACK frame whose largest number was this: older numbers need no report. They
    /// are forgotten with the acknowledged ACK after this one, so that packets which are late on a path that reorders are
    /// still taken: a number below what is forgotten counts as received.
    //= rfc9000#13.2.3-2
    pub fn on_ack_of_ack(&mut self, largest: PacketNumber) {
        self.history.forget_below(self.forget_next);
        self.forget_next = self.forget_next.max(largest.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DELAY: Duration = Duration::from_millis(25);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn data() -> AckSchedule {
        AckSchedule::new(Space::Data, DELAY)
    }

    /// Feeds an unmarked ack-eliciting packet; tells whether an ACK is due, and sends it.
    fn feed(s: &mut AckSchedule, ms: u64, pn: u64) -> bool {
        s.on_packet(at(ms), pn, true, Ecn::NotEct);
        let due = s.due(at(ms));
        if due {
            s.on_sent(s.history().largest().unwrap());
        }
        due
    }

    #[test]
    fn handshake_packets_are_acknowledged_at_once() {
        //= rfc9000#13.2.1-2 type=test
        for space in [Space::Initial, Space::Handshake] {
            let mut s = AckSchedule::new(space, DELAY);
            assert!(feed(&mut s, 1, 0));
            assert!(feed(&mut s, 1, 1));
        }
    }

    #[test]
    fn a_single_packet_is_acknowledged_within_max_ack_delay() {
        //= rfc9000#13.2.1-1, rfc9000#18.2-2 type=test
        let mut s = data();
        assert!(!feed(&mut s, 10, 0));
        assert_eq!(s.deadline(), Some(at(30)), "5 ms before it is late");
        assert!(s.wanted_if_sending() && !s.due(at(29)) && s.due(at(30)));
        assert_eq!(s.delay(at(30)), DELAY - Duration::from_micros(LATE_MAX_US));
        s.on_sent(0);
        assert!(!s.wanted_if_sending() && s.deadline().is_none());
    }

    #[test]
    fn every_second_packet_is_acknowledged() {
        //= rfc9000#13.2.2-1 type=test
        let mut s = data();
        let acks = (0..100).filter(|&pn| feed(&mut s, pn, pn)).count();
        assert_eq!(acks, 50);
    }

    #[test]
    fn a_batch_gives_one_ack() {
        let mut s = data();
        for pn in 0..44 {
            s.on_packet(at(5), pn, true, Ecn::NotEct);
        }
        assert!(s.due(at(5)));
        s.on_sent(43);
        assert!(!s.due(at(1000)));
    }

    #[test]
    fn packets_that_do_not_ask_get_no_ack() {
        //= rfc9000#13.2.1-4 type=test
        let mut s = data();
        for pn in [0, 1, 5, 3] {
            s.on_packet(at(1), pn, false, Ecn::Ce);
        }
        assert!(!s.wanted_if_sending() && s.deadline().is_none());
        // They are reported along with the next one that asks, which also reveals the gaps before it.
        assert!(feed(&mut s, 2, 6));
        assert_eq!(s.history().ranges().len(), 3);
    }

    #[test]
    fn gaps_and_reordering_are_reported_at_once() {
        //= rfc9000#13.2.1-7 type=test
        let mut s = data();
        assert!(!feed(&mut s, 0, 0));
        assert!(feed(&mut s, 1, 2), "a gap");
        assert!(!feed(&mut s, 2, 3), "the gap is known");
        assert!(feed(&mut s, 3, 1), "reordered");
        assert!(!feed(&mut s, 4, 4));
    }

    #[test]
    fn congestion_marks_are_reported_at_once() {
        //= rfc9000#13.2.1-8 type=test
        let mut s = data();
        for pn in 0..3 {
            s.on_packet(at(pn), pn, true, Ecn::Ce);
            assert!(s.due(at(pn)));
            s.on_sent(pn);
        }
        assert_eq!(s.ecn(), Some(EcnCounts { ect0: 0, ect1: 0, ce: 3 }));
    }

    #[test]
    fn with_a_larger_tolerance_only_the_first_mark_of_a_run_is_urgent() {
        //= ack-frequency#6.3-1 type=test
        let mut s = data();
        s.set_tolerance(10, DELAY, 1);
        let marks = [Ecn::Ce, Ecn::Ce, Ecn::Ect0, Ecn::Ce];
        let due: Vec<bool> = marks
            .into_iter()
            .zip(0..)
            .map(|(mark, pn)| {
                s.on_packet(at(pn), pn, true, mark);
                let due = s.due(at(pn));
                if due {
                    s.on_sent(pn);
                }
                due
            })
            .collect();
        assert_eq!(due, [true, false, false, true]);
    }

    #[test]
    fn reordering_threshold_follows_the_drafts_tables() {
        //= ack-frequency#6.2-2 type=test
        for (threshold, steps) in [
            (3, vec![(0, false), (1, false), (3, false), (4, false), (5, true), (8, false), (9, true), (10, true)]),
            (5, vec![(0, false), (1, false), (3, false), (5, false), (6, false), (7, true), (8, false), (9, true)]),
        ] {
            let mut s = data();
            s.set_tolerance(1000, DELAY, threshold);
            for (pn, expected) in steps {
                assert_eq!(feed(&mut s, 0, pn), expected, "threshold {threshold}, packet {pn}");
            }
        }
    }

    #[test]
    fn threshold_zero_reports_reordering_late() {
        //= ack-frequency#6.2-1 type=test
        let mut s = data();
        s.set_tolerance(100, DELAY, 0);
        for pn in [0, 9, 5, 3] {
            assert!(!feed(&mut s, 0, pn));
        }
        assert!(s.due(at(25)));
    }

    #[test]
    fn tolerance_and_delay_are_the_peers_to_choose() {
        //= ack-frequency#4-2, ack-frequency#4-3 type=test
        let mut s = data();
        s.set_tolerance(10, 100 * MS, 1);
        let acks = (0..100).filter(|&pn| feed(&mut s, 0, pn)).count();
        assert_eq!(acks, 10);
        feed(&mut s, 7, 100);
        assert_eq!(s.deadline(), Some(at(102)));
        s.demand(at(8));
        assert!(s.due(at(8)));
    }

    #[test]
    fn older_wishes_are_ignored() {
        //= ack-frequency#4-5 type=test
        let mut s = data();
        assert!(s.on_wishes(0, 9, 40 * MS, 1), "the first number is 0");
        assert!(!s.on_wishes(0, 99, 40 * MS, 1));
        assert!(s.on_wishes(7, 4, 50 * MS, 1));
        for sequence in [0, 6, 7] {
            assert!(!s.on_wishes(sequence, 99, DELAY, 0));
        }
        assert_eq!(s.max_delay(), 50 * MS);
        assert_eq!((0..100).filter(|&pn| feed(&mut s, 0, pn)).count(), 20);
        assert!(s.on_wishes(crate::ids::VARINT_MAX, crate::ids::VARINT_MAX, DELAY, 0));
        assert_eq!((100..10_000).filter(|&pn| feed(&mut s, 0, pn)).count(), 0);
        assert!(s.due(at(25)), "the delay still counts");
    }

    #[test]
    fn delay_counts_from_the_largest_number() {
        let mut s = data();
        s.on_packet(at(10), 7, true, Ecn::NotEct);
        s.on_packet(at(20), 3, true, Ecn::NotEct);
        assert_eq!(s.delay(at(21)), 11 * MS);
    }

    #[test]
    fn an_acknowledged_ack_ends_the_report_of_old_ranges() {
        //= rfc9000#13.2.3-2 type=test
        let mut s = data();
        for pn in [0, 2, 4, 6] {
            s.on_packet(at(0), pn, true, Ecn::NotEct);
        }
        s.on_sent(4);
        s.on_ack_of_ack(4);
        assert!(!s.is_duplicate(3), "a late packet is still taken");
        s.on_sent(6);
        s.on_ack_of_ack(6);
        assert_eq!(s.history().ranges().collect::<Vec<_>>(), [(6, 6)]);
        assert!(s.is_duplicate(3) && !s.is_duplicate(5));
    }

    #[test]
    fn duplicates_change_nothing() {
        let mut s = data();
        feed(&mut s, 0, 0);
        s.on_sent(0);
        assert_eq!(s.on_packet(at(9), 0, true, Ecn::Ce), Inserted::Duplicate);
        assert!(s.deadline().is_none() && s.ecn().is_none());
    }

    #[test]
    fn sizes() {
        assert!(size_of::<AckSchedule>() <= 240, "{}", size_of::<AckSchedule>());
    }
}
