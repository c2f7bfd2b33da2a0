//! Connection IDs that we issue and the peer puts in its packets.
//!
//! At most eight are active. A peer that retires one gets another, but at a limited rate, so that churning through
//! connection IDs costs the peer more than us.

use core::time::Duration;

use crate::error::{PeerViolation, TransportCode};
use crate::ids::Cid;
use crate::time::Instant;

/// Most connection IDs active at once, whatever the peer would store.
pub const ACTIVE_MAX: usize = 8;
/// Most that are kept, those included that the peer was told to retire and has not.
const KEPT_MAX: usize = 3 * ACTIVE_MAX;
/// A connection may issue this many without waiting.
const BURST: u32 = 32;
/// After the burst, one connection ID per this time.
const REFILL: Duration = Duration::from_millis(100);

/// A connection ID that was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its sequence number.
    pub sequence: u64,
    /// Its bytes.
    pub cid: Cid,
}

/// Our own connection IDs of one connection.
pub struct LocalCids {
    /// With those that the peer was told to retire and has not: it can do that only when it has others.
    active: Vec<Issued>,
    /// Sequence number of the next one.
    next: u64,
    /// The peer was asked to retire those with smaller sequence numbers.
    retire_prior_to: u64,
    /// How many the peer stores, at most [`ACTIVE_MAX`].
    limit: usize,
    /// What may be issued without waiting.
    allowance: u32,
    refilled: Instant,
    /// The highest sequence number by which the peer reached us.
    reached: u64,
    /// How many of the following it may have used since then, for each of our moves one.
    spent: usize,
}

impl LocalCids {
    /// Starts with the connection ID of the handshake, sequence number 0.
    #[must_use]
    pub fn new(first: Cid, now: Instant) -> Self {
        Self {
            active: vec![Issued { sequence: 0, cid: first }],
            next: 1,
            retire_prior_to: 0,
            limit: 1,
            allowance: BURST,
            refilled: now,
            reached: 0,
            spent: 0,
        }
    }

    /// The peer's active_connection_id_limit; before it is known none but the first is issued.
    pub fn set_peer_limit(&mut self, limit: u64) {
        //= rfc9000#5.1.1-4
        self.limit = usize::try_from(limit).unwrap_or(usize::MAX).min(ACTIVE_MAX);
    }

    /// Issues the connection ID of a preferred address, which travels in the transport parameters: sequence number 1.
    pub fn issue_preferred(&mut self, cid: Cid) {
        debug_assert!(self.next == 1 && self.count() == 1, "before any other");
        self.active.push(Issued { sequence: 1, cid });
        self.next = 2;
    }

    /// Whether another one should be issued now.
    #[must_use]
    pub fn wants_issue(&self, now: Instant) -> bool {
        self.is_short() && self.allowance(now) > 0
    }

    /// Whether the peer has fewer than it stores, those apart that it is to retire.
    fn is_short(&self) -> bool {
        let count = self.count();
        if count >= KEPT_MAX {
            return false;
        }
        // Asked after every packet, while somebody is told to retire once in a while.
        let leaving = |prior| self.iter().filter(|i| i.sequence < prior).count();
        let staying = count - if self.retire_prior_to > 0 { leaving(self.retire_prior_to) } else { 0 };
        // The list itself is looked at last: it is in memory of its own.
        staying < self.limit && !self.first().cid.is_empty()
    }

    /// What new ones tell the peer to retire.
    #[must_use]
    pub fn retire_prior_to(&self) -> u64 {
        self.retire_prior_to
    }

    /// Has all connection IDs replaced by new ones; false while the peer has not retired those of the time before.
    pub fn rotate(&mut self) -> bool {
        //= rfc9000#5.1.2-7
        let pending = self.iter().any(|i| i.sequence < self.retire_prior_to);
        if !pending && !self.first().cid.is_empty() && self.limit > 1 {
            self.retire_prior_to = self.next;
        }
        !pending
    }

    /// The peer put this one in a packet, the first one on its path.
    pub fn on_reached(&mut self, cid: &Cid) {
        // One from before says nothing: it may have been under way when we moved.
        if let Some(issued) = self.active.iter().find(|i| i.cid == *cid && i.sequence > self.reached) {
            (self.reached, self.spent) = (issued.sequence, 0);
        }
    }

    /// We move, and the peer needs one that it has not used to follow us. False when it may have none and cannot be given any.
    pub fn on_move(&mut self) -> bool {
        if self.first().cid.is_empty() {
            return true;
        }
        self.spent += 1;
        // It is assumed to take them in order; who does not is helped by `replace`.
        let left = |i: &&Issued| i.sequence > self.reached && i.sequence >= self.retire_prior_to;
        self.active.iter().filter(left).count() >= self.spent || self.replace()
    }

    /// Has all connection IDs replaced although the peer may not have retired those of the time before: it could not tell us,
    /// since we moved meanwhile (docs/decisions/D171-moves-in-a-hurry.md). False when there are too many already.
    pub fn replace(&mut self) -> bool {
        if self.count() + self.limit > KEPT_MAX || self.limit < 2 || self.first().cid.is_empty() {
            return false;
        }
        if self.is_short() && self.retire_prior_to > 0 {
            // Those of the last time are not all out yet.
            return true;
        }
        self.retire_prior_to = self.next;
        // One for the path that the peer uses, one for that to which it may return, one for the way to us.
        self.spent = self.limit.min(3);
        true
    }

    /// When another one may be issued, if one is missing and the rate forbids it now.
    #[must_use]
    pub fn next_issue(&self) -> Option<Instant> {
        (self.is_short() && self.allowance == 0).then(|| self.refilled + REFILL)
    }

    /// Issues `cid`; call only after [`wants_issue`](Self::wants_issue).
    pub fn issue(&mut self, now: Instant, cid: Cid) -> Issued {
        let allowance = self.allowance(now);
        if allowance > self.allowance {
            self.refilled = now;
        }
        self.allowance = allowance.saturating_sub(1);
        //= rfc9000#5.1.1-1
        let issued = Issued { sequence: self.next, cid };
        self.next += 1;
        debug_assert!(self.count() < KEPT_MAX, "issue was asked for");
        if self.active.len() == self.active.capacity() {
            // Most peers store a few and keep them.
            self.active.reserve_exact(self.limit.saturating_sub(self.active.len()).max(1));
        }
        self.active.push(issued);
        issued
    }

    /// The peer retires a sequence number in a packet that was sent to `used`. Returns the connection ID that no longer
    /// routes, or `None` when it was retired before.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION for a number that was never issued, or the one that the packet itself used.
    pub fn retire(&mut self, sequence: u64, used: &Cid) -> Result<Option<Cid>, PeerViolation> {
        //= rfc9000#19.16-1
        if sequence >= self.next {
            return Err(violation("retires a connection ID that was never issued"));
        }
        //= rfc9000#19.16-3
        if self.first().cid.is_empty() {
            return Err(violation("retires a connection ID where none has bytes"));
        }
        let Some(at) = self.active.iter().position(|i| i.sequence == sequence) else { return Ok(None) };
        //= rfc9000#19.16-2
        if self.active[at].cid == *used {
            return Err(violation("retires the connection ID that the packet itself uses"));
        }
        Ok(Some(self.active.remove(at).cid))
    }

    /// Active ones.
    pub fn iter(&self) -> impl Iterator<Item = Issued> + '_ {
        self.active.iter().copied()
    }

    /// Any active one; the connection always has one, since the one in use cannot be retired.
    #[must_use]
    pub fn first(&self) -> Issued {
        self.iter().next().unwrap_or(Issued { sequence: 0, cid: Cid::EMPTY })
    }

    /// Number of active ones.
    #[must_use]
    pub fn count(&self) -> usize {
        self.active.len()
    }

    fn allowance(&self, now: Instant) -> u32 {
        let steps = now.since(self.refilled).as_millis() / REFILL.as_millis();
        self.allowance.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX)).min(BURST)
    }
}

fn violation(reason: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, "rfc9000#19.16").in_frame(0x19)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(n: u64) -> Cid {
        Cid::new(&n.to_be_bytes()).unwrap()
    }

    fn issue_all(l: &mut LocalCids, now: Instant, serial: &mut u64) -> usize {
        let mut n = 0;
        while l.wants_issue(now) {
            *serial += 1;
            l.issue(now, cid(*serial));
            n += 1;
        }
        n
    }

    #[test]
    fn at_most_eight_and_never_more_than_the_peer_stores() {
        //= rfc9000#5.1.1-4 type=test
        let now = Instant::ZERO;
        for (limit, expected) in [(0, 1), (2, 2), (5, 5), (8, 8), (1 << 40, 8)] {
            let mut l = LocalCids::new(cid(0), now);
            assert!(!l.wants_issue(now), "the peer's limit is not known yet");
            l.set_peer_limit(limit);
            issue_all(&mut l, now, &mut 0);
            assert_eq!(l.count(), expected);
            //= rfc9000#5.1.1-1 type=test
            assert!(l.iter().map(|i| i.sequence).eq(0..expected as u64));
        }
    }

    #[test]
    fn a_retired_one_is_replaced_and_rules_are_kept() {
        let now = Instant::ZERO;
        let mut l = LocalCids::new(cid(0), now);
        l.set_peer_limit(3);
        issue_all(&mut l, now, &mut 0);
        //= rfc9000#19.16-1 type=test
        assert_eq!(l.retire(3, &cid(0)).unwrap_err().code, TransportCode::PROTOCOL_VIOLATION);
        //= rfc9000#19.16-2 type=test
        assert_eq!(l.retire(0, &cid(0)).unwrap_err().code, TransportCode::PROTOCOL_VIOLATION);
        assert_eq!(l.retire(0, &cid(1)), Ok(Some(cid(0))));
        assert_eq!(l.retire(0, &cid(1)), Ok(None));
        //= rfc9000#5.1.1-6 type=test
        assert!(l.wants_issue(now));
        assert_eq!(l.issue(now, cid(9)).sequence, 3);
    }

    #[test]
    fn rotation_replaces_all_and_waits_for_the_peer() {
        //= rfc9000#5.1.2-7 type=test
        //= rfc9000#5.1.2-2 type=test
        let now = Instant::ZERO;
        for limit in [2, 8] {
            let mut l = LocalCids::new(cid(0), now);
            l.set_peer_limit(limit);
            let mut serial = 0;
            issue_all(&mut l, now, &mut serial);
            assert!(l.rotate());
            assert_eq!(l.retire_prior_to(), limit);
            assert!(issue_all(&mut l, now, &mut serial) >= 1, "the peer needs one before it can retire the others");
            assert!(!l.rotate(), "not before the peer has done its part");
            assert!(l.iter().any(|i| i.sequence == 0), "the old ones are taken until then");
            for old in 0..limit {
                l.retire(old, &cid(serial)).unwrap();
                issue_all(&mut l, now, &mut serial);
            }
            assert_eq!(l.count() as u64, limit);
            assert!(l.iter().all(|i| i.sequence >= limit) && l.rotate());
        }
    }

    #[test]
    fn churn_is_limited_in_rate_and_an_honest_pace_is_not() {
        let mut now = Instant::ZERO;
        let mut l = LocalCids::new(cid(0), now);
        l.set_peer_limit(8);
        let mut serial = 0;
        let mut issued = issue_all(&mut l, now, &mut serial);
        for _ in 0..1000 {
            let (oldest, used) =
                (l.iter().map(|i| i.sequence).min().unwrap(), l.iter().max_by_key(|i| i.sequence).unwrap().cid);
            if l.count() > 1 {
                l.retire(oldest, &used).unwrap();
            }
            issued += issue_all(&mut l, now, &mut serial);
        }
        assert_eq!(issued, BURST as usize);
        let next = l.next_issue().unwrap();
        assert!(!l.wants_issue(next - Duration::from_micros(1)) && l.wants_issue(next));
        // Ten seconds later there is room for the full burst again.
        now += Duration::from_secs(10);
        assert!(issue_all(&mut l, now, &mut serial) > 0);
    }

    #[test]
    fn a_peer_that_may_have_used_all_gets_others_although_it_has_not_retired_those() {
        let now = Instant::ZERO;
        for limit in [2, 4, 8] {
            let mut l = LocalCids::new(cid(0), now);
            l.set_peer_limit(limit);
            let mut serial = 0;
            issue_all(&mut l, now, &mut serial);
            // Every move may cost one; nothing is heard.
            for _ in 1..limit {
                assert!(l.on_move());
                assert_eq!(l.retire_prior_to(), 0, "there is one left");
            }
            assert!(l.on_move());
            assert_eq!(l.retire_prior_to(), limit);
            assert_eq!(issue_all(&mut l, now, &mut serial) as u64, limit);
            assert_eq!(l.iter().filter(|i| i.sequence >= limit).count() as u64, limit, "what the peer stores");
            // It is reached by one of them: that, and what came before, is used; nothing else.
            l.on_reached(&l.active[l.count() - 2].cid.clone());
            assert!(l.on_move());
            assert_eq!(l.retire_prior_to(), limit, "one is left");
        }
    }

    #[test]
    fn a_client_that_never_hears_anything_keeps_a_bounded_number() {
        let mut now = Instant::ZERO;
        let mut l = LocalCids::new(cid(0), now);
        l.set_peer_limit(8);
        let mut serial = 0;
        let (mut given, mut refused) = (0, 0);
        for _ in 0..1_000 {
            issue_all(&mut l, now, &mut serial);
            if l.on_move() {
                given += 1
            } else {
                refused += 1
            }
            now += Duration::from_secs(1);
            assert!(l.count() <= KEPT_MAX);
        }
        assert!(given >= 16 && refused > 900, "{given} {refused}");
        // What reached us before we moved says nothing about now.
        let reached = l.reached;
        l.on_reached(&cid(0));
        assert_eq!((l.reached, l.on_move()), (reached, false));
        l.on_reached(&cid(serial));
        assert!(l.spent == 0 && !l.replace(), "those that the peer was told to retire are still there");
    }

    #[test]
    fn a_connection_without_ids_issues_none() {
        let mut l = LocalCids::new(Cid::EMPTY, Instant::ZERO);
        l.set_peer_limit(8);
        assert!(!l.wants_issue(Instant::ZERO));
        //= rfc9000#19.16-3 type=test
        assert!(l.retire(0, &Cid::EMPTY).is_err());
    }
}
