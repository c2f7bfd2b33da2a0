//! Connection IDs that the peer issues and we put in our packets.
//!
//! One is in use; others wait for a change of path. What the peer retires through Retire Prior To, or issues beyond
//! need, comes out of [`RemoteCids::take_retired`] as sequence numbers for RETIRE_CONNECTION_ID frames.

use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Cid, ResetToken};

/// Most connection IDs that are stored; the largest limit that settings can advertise.
pub const STORED_MAX: usize = 8;
/// Retirements that wait for a frame, at most. The RFC asks for twice the limit at least.
const RETIRED_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remote {
    sequence: u64,
    cid: Cid,
    token: Option<ResetToken>,
    /// Whether packets were sent with it; only then its token is honoured.
    used: bool,
}

/// The peer's connection IDs of one connection.
pub struct RemoteCids {
    stored: Vec<Remote>,
    /// Sequence number of the one in use.
    active: u64,
    retire_prior_to: u64,
    retired: Vec<u64>,
    limit: usize,
    had: Had,
}

/// Which sequence numbers came already: frames are repeated, also after their connection ID was retired.
#[derive(Clone, Copy, Debug, Default)]
struct Had {
    /// All below have come.
    below: u64,
    /// A bit for each of those from there on.
    bits: u64,
}

impl Had {
    /// Notes a number; says whether it came before. Numbers count up, and a peer has a few under way at most: of those that lie
    /// far behind the newest one nothing comes any more.
    fn note(&mut self, sequence: u64) -> bool {
        let Some(mut ahead) = sequence.checked_sub(self.below) else { return true };
        if ahead >= u64::from(u64::BITS) {
            self.move_on(ahead - u64::from(u64::BITS - 1));
            ahead = u64::from(u64::BITS - 1);
        }
        let bit = 1 << ahead;
        let before = self.bits & bit != 0;
        self.bits |= bit;
        self.move_on(u64::from(self.bits.trailing_ones()));
        before
    }

    fn move_on(&mut self, by: u64) {
        self.below += by;
        self.bits = u32::try_from(by).ok().and_then(|by| self.bits.checked_shr(by)).unwrap_or(0);
    }
}

impl RemoteCids {
    /// Starts with the peer's first connection ID. `limit` is what we advertised as active_connection_id_limit.
    #[must_use]
    pub fn new(first: Cid, limit: u8) -> Self {
        let stored = vec![Remote { sequence: 0, cid: first, token: None, used: true }];
        let had = Had { below: 1, bits: 0 };
        Self {
            stored,
            active: 0,
            retire_prior_to: 0,
            retired: Vec::new(),
            limit: usize::from(limit).min(STORED_MAX),
            had,
        }
    }

    /// Gives the room back that nothing needs.
    pub fn shrink(&mut self) {
        self.stored.shrink_to_fit();
        self.retired.shrink_to_fit();
    }

    /// The connection ID for our next packet.
    #[must_use]
    pub fn active(&self) -> Cid {
        self.find(self.active).map_or(Cid::EMPTY, |r| r.cid)
    }

    /// Replaces the first one during the handshake (the server's choice, or a Retry's).
    pub fn replace_first(&mut self, cid: Cid) {
        debug_assert!(self.stored.len() == 1, "only during the handshake");
        if let Some(first) = self.stored.first_mut() {
            first.cid = cid;
        }
    }

    /// Remembers the stateless reset token of the first one, from the transport parameters.
    pub fn set_first_token(&mut self, token: ResetToken) {
        if let Some(first) = self.stored.iter_mut().find(|r| r.sequence == 0) {
            first.token = Some(token);
        }
    }

    /// A NEW_CONNECTION_ID frame. Returns whether the one in use changed, so that routes of tokens have to be renewed.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION when a number or a connection ID comes with other content than before, or when we send packets
    /// without a connection ID; CONNECTION_ID_LIMIT_ERROR when there are more than the limit, or too many to retire.
    pub fn on_new(
        &mut self,
        sequence: u64,
        retire_prior_to: u64,
        cid: Cid,
        token: ResetToken,
    ) -> Result<bool, PeerViolation> {
        //= rfc9000#19.15-3
        if self.active().is_empty() {
            return Err(violation(TransportCode::PROTOCOL_VIOLATION, "issues a connection ID where none is used"));
        }
        let new = Remote { sequence, cid, token: Some(token), used: false };
        for old in &self.stored {
            let same_number = old.sequence == sequence;
            let same = old.cid == cid && old.token == Some(token);
            if same_number != (old.cid == cid) || (same_number && !same) {
                return Err(violation(
                    TransportCode::PROTOCOL_VIOLATION,
                    "issues a connection ID twice with other content",
                ));
            }
        }
        //= rfc9000#19.15-4
        let known = self.had.note(sequence);
        //= rfc9000#19.15-7
        self.retire_prior_to = self.retire_prior_to.max(retire_prior_to);
        //= rfc9000#19.15-8
        if sequence < self.retire_prior_to && !known {
            self.retire_number(sequence)?;
        } else if !known {
            self.stored.push(new);
        }
        let changed = self.retire_old()?;
        //= rfc9000#5.1.1-5
        if self.stored.len() > self.limit {
            return Err(violation(
                TransportCode::CONNECTION_ID_LIMIT_ERROR,
                "issues more connection IDs than the limit",
            ));
        }
        Ok(changed)
    }

    /// Sequence number of the one in use.
    #[must_use]
    pub fn active_sequence(&self) -> u64 {
        self.active
    }

    /// A connection ID that is still stored.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<Cid> {
        self.find(sequence).map(|r| r.cid)
    }

    /// Takes a connection ID that was not used before for another path: its sequence number, its bytes, and its token,
    /// which counts from now on.
    pub fn take(&mut self) -> Option<(u64, Cid, Option<ResetToken>)> {
        let next = self.stored.iter_mut().filter(|r| !r.used).min_by_key(|r| r.sequence)?;
        next.used = true;
        Some((next.sequence, next.cid, next.token))
    }

    /// Connection IDs that were not used yet.
    #[must_use]
    pub fn unused(&self) -> usize {
        self.stored.iter().filter(|r| !r.used).count()
    }

    /// The connection moved to a path with that connection ID; the one before stays with its path.
    pub fn set_active(&mut self, sequence: u64) {
        debug_assert!(self.find(sequence).is_some(), "the path has one that is stored");
        self.active = sequence;
    }

    /// No path uses that connection ID any more. Returns its token, which is void now.
    pub fn retire(&mut self, sequence: u64) -> Option<ResetToken> {
        debug_assert!(sequence != self.active);
        let at = self.stored.iter().position(|r| r.sequence == sequence)?;
        // Beyond the limit of frames it stays stored until there is room, rather than being forgotten.
        if self.retired.len() >= RETIRED_MAX || self.stored[at].cid.is_empty() {
            return None;
        }
        //= rfc9000#5.1.2-1
        self.retired.push(sequence);
        self.stored.remove(at).token
    }

    /// Switches to a connection ID that was not used before and retires the present one; `None` when there is none.
    pub fn rotate(&mut self) -> Option<Cid> {
        let next = self.stored.iter_mut().filter(|r| !r.used).min_by_key(|r| r.sequence)?;
        next.used = true;
        let (sequence, cid) = (next.sequence, next.cid);
        let old = core::mem::replace(&mut self.active, sequence);
        self.stored.retain(|r| r.sequence != old);
        if self.retired.len() < RETIRED_MAX {
            self.retired.push(old);
        }
        Some(cid)
    }

    /// The next sequence number to be retired by a frame.
    pub fn take_retired(&mut self) -> Option<u64> {
        self.retired.pop()
    }

    /// Puts a number back that found no room in the control queue.
    pub fn put_back(&mut self, sequence: u64) {
        self.retired.push(sequence);
    }

    /// Reset tokens of connection IDs that were used.
    pub fn tokens(&self) -> impl Iterator<Item = ResetToken> + '_ {
        //= rfc9000#10.3.1-2
        self.stored.iter().filter(|r| r.used).filter_map(|r| r.token)
    }

    /// Number of stored ones.
    #[must_use]
    pub fn count(&self) -> usize {
        self.stored.len()
    }

    fn find(&self, sequence: u64) -> Option<&Remote> {
        self.stored.iter().find(|r| r.sequence == sequence)
    }

    fn retire_number(&mut self, sequence: u64) -> Result<(), PeerViolation> {
        if self.retired.contains(&sequence) {
            return Ok(());
        }
        //= rfc9000#5.1.2-6
        if self.retired.len() >= RETIRED_MAX {
            return Err(violation(TransportCode::CONNECTION_ID_LIMIT_ERROR, "makes us retire too many connection IDs"));
        }
        self.retired.push(sequence);
        Ok(())
    }

    /// Retires what lies below Retire Prior To; moves on to another one when the one in use goes.
    fn retire_old(&mut self) -> Result<bool, PeerViolation> {
        //= rfc9000#5.1.2-3
        let floor = self.retire_prior_to;
        while let Some(at) = self.stored.iter().position(|r| r.sequence < floor) {
            // Kept when it cannot be retired: the connection closes then, and needs somewhere to send that to.
            self.retire_number(self.stored[at].sequence)?;
            self.stored.remove(at);
        }
        if self.active >= floor {
            return Ok(false);
        }
        match self.stored.iter_mut().min_by_key(|r| (r.used, r.sequence)) {
            Some(next) => {
                next.used = true;
                self.active = next.sequence;
                Ok(true)
            }
            None => Err(violation(TransportCode::PROTOCOL_VIOLATION, "retires every connection ID and issues none")),
        }
    }
}

fn violation(code: TransportCode, reason: &'static str) -> PeerViolation {
    PeerViolation::new(code, reason, "rfc9000#19.15").in_frame(0x18)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(n: u8) -> Cid {
        Cid::new(&[n; 8]).unwrap()
    }

    fn token(n: u8) -> ResetToken {
        ResetToken([n; 16])
    }

    fn remote() -> RemoteCids {
        RemoteCids::new(cid(0), 4)
    }

    #[test]
    fn a_frame_that_is_repeated_after_its_connection_id_was_retired_changes_nothing() {
        //= rfc9000#19.15-4 type=test
        let mut r = remote();
        for n in [1, 2, 3] {
            r.on_new(n.into(), 0, cid(n), token(n)).unwrap();
        }
        assert_eq!(r.rotate(), Some(cid(1)));
        assert_eq!(r.rotate(), Some(cid(2)));
        assert_eq!((r.take_retired(), r.take_retired(), r.take_retired()), (Some(1), Some(0), None));
        // The peer has issued others in their places; what it had sent of number 1 comes once more.
        r.on_new(4, 0, cid(4), token(4)).unwrap();
        r.on_new(5, 0, cid(5), token(5)).unwrap();
        for _ in 0..3 {
            assert_eq!(r.on_new(1, 0, cid(1), token(1)), Ok(false));
        }
        assert_eq!((r.count(), r.take_retired()), (4, None));
        assert_eq!(r.rotate(), Some(cid(3)), "not the one that is gone");
    }

    #[test]
    fn numbers_are_known_again_in_whatever_order_they_come() {
        let mut had = Had { below: 1, bits: 0 };
        let mut naive = std::collections::BTreeSet::from([0]);
        let mut random = 7_u64;
        for step in 0..20_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Around a place that moves on, as the numbers of an honest peer do.
            let sequence = step / 8 + (random >> 33) % 30;
            assert_eq!(had.note(sequence), !naive.insert(sequence), "{sequence} at {step}");
        }
        // A number far ahead: everything far behind counts as known.
        assert!(!had.note(1 << 40) && had.note((1 << 40) - 64) && !had.note((1 << 40) - 63));
        assert!(!had.note(u64::MAX) && had.note(u64::MAX) && had.note(0));
    }

    #[test]
    fn the_limit_holds_and_repetition_is_no_error() {
        //= rfc9000#19.15-4 type=test
        let mut r = remote();
        for n in [1, 2, 2, 3, 1] {
            assert_eq!(r.on_new(n.into(), 0, cid(n), token(n)), Ok(false));
        }
        //= rfc9000#5.1.1-5 type=test
        assert_eq!(r.on_new(4, 0, cid(4), token(4)).unwrap_err().code, TransportCode::CONNECTION_ID_LIMIT_ERROR);
    }

    #[test]
    fn too_many_retirements_leave_a_connection_id_for_the_close() {
        let mut r = remote();
        let error = (1..100).find_map(|n| r.on_new(n, n, cid(n as u8), token(n as u8)).err());
        assert_eq!(error.map(|e| e.code), Some(TransportCode::CONNECTION_ID_LIMIT_ERROR));
        assert_eq!(r.active().len(), 8);
    }

    #[test]
    fn content_may_not_change() {
        let mut r = remote();
        r.on_new(1, 0, cid(1), token(1)).unwrap();
        for (n, c, t) in [(1, 9, 1), (1, 1, 9), (2, 1, 1), (0, 7, 7)] {
            let e = r.on_new(n, 0, cid(c), token(t)).unwrap_err();
            assert_eq!(e.code, TransportCode::PROTOCOL_VIOLATION);
        }
    }

    #[test]
    fn retire_prior_to_moves_us_on() {
        //= rfc9000#5.1.2-3 type=test
        let mut r = remote();
        r.on_new(1, 0, cid(1), token(1)).unwrap();
        assert_eq!(r.on_new(2, 2, cid(2), token(2)), Ok(true));
        assert_eq!(r.active(), cid(2));
        let mut retired = vec![r.take_retired().unwrap(), r.take_retired().unwrap()];
        retired.sort_unstable();
        assert_eq!((retired, r.take_retired()), (vec![0, 1], None));
        //= rfc9000#19.15-7 type=test
        assert_eq!(r.on_new(3, 0, cid(3), token(3)), Ok(false));
        //= rfc9000#19.15-8 type=test
        // One that comes late is retired at once, and once.
        let mut r = remote();
        assert_eq!(r.on_new(2, 2, cid(2), token(2)), Ok(true));
        assert_eq!((r.take_retired(), r.take_retired()), (Some(0), None));
        for retired in [Some(1), None] {
            assert_eq!(r.on_new(1, 0, cid(1), token(1)), Ok(false));
            assert_eq!(r.take_retired(), retired);
        }
    }

    #[test]
    fn a_storm_of_retirements_is_bounded() {
        let mut r = remote();
        let outcome = (1..1000u64).try_for_each(|n| {
            let c = Cid::new(&n.to_be_bytes()).unwrap();
            r.on_new(n, n, c, token(1)).map(|_| ())
        });
        //= rfc9000#5.1.2-6 type=test
        assert_eq!(outcome.unwrap_err().code, TransportCode::CONNECTION_ID_LIMIT_ERROR);
        assert!(r.retired.len() <= RETIRED_MAX && r.count() <= 5);
    }

    #[test]
    fn rotation_uses_each_once() {
        let mut r = remote();
        assert_eq!(r.rotate(), None);
        r.on_new(1, 0, cid(1), token(1)).unwrap();
        assert_eq!(r.rotate(), Some(cid(1)));
        assert_eq!((r.active(), r.rotate(), r.take_retired()), (cid(1), None, Some(0)));
    }

    #[test]
    fn paths_take_fresh_ones_and_give_them_back() {
        //= rfc9000#5.1.2-1 type=test
        let mut r = remote();
        assert_eq!(r.take(), None);
        for n in [1, 2] {
            r.on_new(n.into(), 0, cid(n), token(n)).unwrap();
        }
        assert_eq!(r.take(), Some((1, cid(1), Some(token(1)))));
        assert_eq!((r.active(), r.unused(), r.get(1)), (cid(0), 1, Some(cid(1))));
        r.set_active(1);
        assert_eq!((r.active(), r.retire(0)), (cid(1), None), "the first one had no token");
        assert_eq!((r.take_retired(), r.get(0)), (Some(0), None));
        assert_eq!(r.take().map(|t| t.0), Some(2));
        assert_eq!((r.retire(2), r.tokens().collect::<Vec<_>>()), (Some(token(2)), vec![token(1)]));
    }

    #[test]
    fn tokens_count_only_after_use() {
        //= rfc9000#10.3.1-2 type=test
        let mut r = remote();
        r.set_first_token(token(0));
        r.on_new(1, 0, cid(1), token(1)).unwrap();
        assert_eq!(r.tokens().collect::<Vec<_>>(), [token(0)]);
        r.rotate();
        assert_eq!(r.tokens().collect::<Vec<_>>(), [token(1)]);
    }

    #[test]
    fn an_empty_connection_id_takes_no_others() {
        //= rfc9000#19.15-3 type=test
        let mut r = RemoteCids::new(Cid::EMPTY, 4);
        assert_eq!(r.on_new(1, 0, cid(1), token(1)).unwrap_err().code, TransportCode::PROTOCOL_VIOLATION);
    }
}
