//! Whether a path carries ECN marks unharmed (RFC 9000 section 13.4.2 and appendix A.4).
//!
//! Testing: the first packets are marked with ECT(0). Unknown: enough were sent, the next ones are unmarked until the
//! peer's counts prove the path. Capable: every packet is marked. Failed: never again on this path. Any contradiction in
//! the counts leads to Failed; ECT(1) is never sent, so a count of it is one.

use crate::ack::EcnCounts;
use crate::ids::Space;

/// Marked packets in the testing period.
const TESTING_PACKETS: u64 = 10;

/// What is known about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcnState {
    /// Packets are marked to find out.
    Testing,
    /// Waiting for the verdict, unmarked.
    Unknown,
    /// Marks pass.
    Capable,
    /// Marks do not pass, or are not wanted.
    Failed,
}

/// ECT(0) and CE as the peer counted them; ECT(1) would have been the end of it. Handshakes have few packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    early: [(u32, u32); 2],
    data: (u64, u64),
}

impl Told {
    const NOTHING: Self = Self { early: [(0, 0); 2], data: (0, 0) };

    fn get(&self, space: Space) -> (u64, u64) {
        match space {
            Space::Data => self.data,
            early => {
                let (ect0, ce) = self.early[early.index()];
                (ect0.into(), ce.into())
            }
        }
    }

    /// `None` for counts that no handshake has.
    fn with(mut self, space: Space, (ect0, ce): (u64, u64)) -> Option<Self> {
        match space {
            Space::Data => self.data = (ect0, ce),
            early => self.early[early.index()] = (u32::try_from(ect0).ok()?, u32::try_from(ce).ok()?),
        }
        Some(self)
    }

    fn sum(&self) -> Option<u64> {
        let early = self.early.iter().map(|(ect0, ce)| u64::from(*ect0) + u64::from(*ce)).sum::<u64>();
        self.data.0.checked_add(self.data.1)?.checked_add(early)
    }
}

/// Validates ECN on one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcnValidator {
    state: EcnState,
    /// The newest counts of the peer. Counts never start again, so a new path inherits them.
    counts: Told,
    /// Marked packets sent, on this path and the ones before it.
    marked_sent: u64,
    /// Marked packets sent during the testing period of this path.
    testing_sent: u64,
    /// Marked packets of this path that were declared lost.
    marked_lost: u64,
    /// Whether a marked packet of this path was acknowledged.
    marked_acked: bool,
}

impl EcnValidator {
    /// Starts testing, or never marks at all.
    #[must_use]
    pub const fn new(enabled: bool) -> Self {
        Self {
            state: if enabled { EcnState::Testing } else { EcnState::Failed },
            counts: Told::NOTHING,
            marked_sent: 0,
            testing_sent: 0,
            marked_lost: 0,
            marked_acked: false,
        }
    }

    /// Starts testing on a new path; the counts so far are the baseline.
    #[must_use]
    pub const fn for_new_path(&self, enabled: bool) -> Self {
        Self { counts: self.counts, marked_sent: self.marked_sent, ..Self::new(enabled) }
    }

    /// The connection moved here from another path: counts go on from where they were there, what this path is known to
    /// carry stays.
    pub const fn adopt(&mut self, from: &Self) {
        self.counts = from.counts;
        self.marked_sent = from.marked_sent;
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> EcnState {
        self.state
    }

    /// Whether the next packet should carry ECT(0).
    #[must_use]
    pub const fn wants_mark(&self) -> bool {
        matches!(self.state, EcnState::Testing | EcnState::Capable)
    }

    /// A packet with an ECT(0) mark was sent.
    pub const fn on_sent(&mut self) {
        self.marked_sent += 1;
        if matches!(self.state, EcnState::Testing) {
            self.testing_sent += 1;
            if self.testing_sent >= TESTING_PACKETS {
                self.state = EcnState::Unknown;
            }
        }
    }

    /// The testing period took too long (three PTO).
    pub const fn end_testing(&mut self) {
        if matches!(self.state, EcnState::Testing) {
            self.state = EcnState::Unknown;
        }
    }

    /// Marked packets of this path were declared lost. When all of the testing period are lost, the marks are to blame.
    pub const fn on_lost(&mut self, marked: u64) {
        self.marked_lost = self.marked_lost.saturating_add(marked);
        if matches!(self.state, EcnState::Unknown) && !self.marked_acked && self.marked_lost >= self.testing_sent {
            self.state = EcnState::Failed;
        }
    }

    /// An ACK newly acknowledged `marked` packets that were sent with ECT(0) on this path. `counts` are the frame's;
    /// `largest_increased` tells whether the frame raised the largest acknowledged number. Returns by how much the count
    /// of CE marks grew, when the counts can be trusted.
    pub fn on_ack(&mut self, space: Space, marked: u64, counts: Option<EcnCounts>, largest_increased: bool) -> u64 {
        //= rfc9000#13.4.2.1-1
        if self.state == EcnState::Failed || !largest_increased {
            return 0;
        }
        let Some(new) = counts else {
            if marked > 0 {
                self.state = EcnState::Failed;
            }
            return 0;
        };
        let Some((counts, ce)) = self.validate(space, marked, new) else {
            //= rfc9000#13.4.2.2-1, rfc9000#13.4.2.2-2
            self.state = EcnState::Failed;
            return 0;
        };
        self.counts = counts;
        self.marked_acked |= marked > 0;
        if self.state == EcnState::Unknown && self.marked_acked {
            self.state = EcnState::Capable;
        }
        ce
    }

    /// All counts now and the growth of CE, or `None` when they contradict what was sent.
    fn validate(&self, space: Space, marked: u64, new: EcnCounts) -> Option<(Told, u64)> {
        let old = self.counts.get(space);
        let ect0 = new.ect0.checked_sub(old.0)?;
        let ce = new.ce.checked_sub(old.1)?;
        if new.ect1 != 0 || ect0.checked_add(ce)? < marked {
            return None;
        }
        let counts = self.counts.with(space, (new.ect0, new.ce))?;
        (counts.sum()? <= self.marked_sent).then_some((counts, ce))
    }
}

const _: () = assert!(size_of::<EcnValidator>() <= 64, "every connection carries one");

#[cfg(test)]
mod tests {
    use super::*;

    const fn counts(ect0: u64, ect1: u64, ce: u64) -> Option<EcnCounts> {
        Some(EcnCounts { ect0, ect1, ce })
    }

    fn tested(sent: u64) -> EcnValidator {
        let mut v = EcnValidator::new(true);
        (0..sent).for_each(|_| v.on_sent());
        v
    }

    #[test]
    fn testing_lasts_ten_packets() {
        let v = tested(9);
        assert!(v.wants_mark());
        let v = tested(10);
        assert_eq!((v.state(), v.wants_mark()), (EcnState::Unknown, false));
        let mut v = tested(1);
        v.end_testing();
        assert_eq!(v.state(), EcnState::Unknown);
        assert!(!EcnValidator::new(false).wants_mark());
    }

    #[test]
    fn the_table_of_verdicts() {
        //= rfc9000#13.4.2.2-1 type=test
        use EcnState::{Capable, Failed, Unknown};
        for (what, marked, seen, state, ce) in [
            ("all arrived marked", 10, counts(10, 0, 0), Capable, 0),
            ("some were marked CE", 10, counts(7, 0, 3), Capable, 3),
            ("earlier ACKs were lost", 4, counts(10, 0, 0), Capable, 0),
            ("no counts", 10, None, Failed, 0),
            ("no counts, but nothing marked acknowledged", 0, None, Unknown, 0),
            ("counts, but nothing marked acknowledged", 0, counts(0, 0, 0), Unknown, 0),
            ("the path clears the marks", 10, counts(0, 0, 0), Failed, 0),
            ("the path clears one mark", 10, counts(8, 0, 1), Failed, 0),
            ("the path rewrites to ECT(1)", 10, counts(0, 10, 0), Failed, 0),
            ("more than were sent", 10, counts(11, 0, 0), Failed, 0),
            ("absurd counts", 10, counts(u64::MAX, 0, u64::MAX), Failed, 0),
            ("a sum that is absurd", 10, counts(0, 0, u64::MAX), Failed, 0),
            ("more than 32 bits", 10, counts(1 << 32 | 10, 0, 0), Failed, 0),
        ] {
            for space in Space::ALL {
                let mut v = tested(10);
                assert_eq!(v.on_ack(space, marked, seen, true), ce, "{what}");
                assert_eq!(v.state(), state, "{what}");
            }
        }
    }

    #[test]
    fn later_failure_disables() {
        //= rfc9000#13.4.2.2-2 type=test
        let mut v = tested(10);
        v.on_ack(Space::Data, 10, counts(10, 0, 0), true);
        assert!(v.wants_mark());
        (0..5).for_each(|_| v.on_sent());
        assert_eq!(v.on_ack(Space::Data, 5, counts(10, 0, 0), true), 0);
        assert_eq!(v.state(), EcnState::Failed);
        assert_eq!(v.on_ack(Space::Data, 1, counts(15, 0, 9), true), 0);
    }

    #[test]
    fn reordered_acks_do_not_fail_validation() {
        //= rfc9000#13.4.2.1-1 type=test
        let mut v = tested(10);
        v.on_ack(Space::Data, 5, counts(9, 0, 0), true);
        v.on_ack(Space::Data, 2, counts(4, 0, 0), false);
        v.on_ack(Space::Data, 1, None, false);
        assert_eq!(v.state(), EcnState::Capable);
        v.on_ack(Space::Data, 1, counts(4, 0, 0), true);
        assert_eq!(v.state(), EcnState::Failed);
    }

    #[test]
    fn spaces_count_apart() {
        let mut v = tested(10);
        assert_eq!(v.on_ack(Space::Initial, 3, counts(2, 0, 1), true), 1);
        assert_eq!(v.on_ack(Space::Data, 4, counts(3, 0, 1), true), 1);
        assert_eq!(v.on_ack(Space::Initial, 3, counts(5, 0, 1), true), 0);
        assert_eq!(v.state(), EcnState::Capable);
    }

    #[test]
    fn losing_every_marked_packet_fails_the_path() {
        let mut v = tested(10);
        v.on_lost(9);
        assert_eq!(v.state(), EcnState::Unknown);
        v.on_lost(1);
        assert_eq!(v.state(), EcnState::Failed);
    }

    #[test]
    fn a_new_path_takes_the_counts_as_baseline() {
        let mut v = tested(10);
        v.on_ack(Space::Data, 10, counts(10, 0, 0), true);
        let mut n = v.for_new_path(true);
        assert_eq!(n.state(), EcnState::Testing);
        (0..10).for_each(|_| n.on_sent());
        n.on_ack(Space::Data, 10, counts(20, 0, 0), true);
        assert_eq!(n.state(), EcnState::Capable);
    }
}
