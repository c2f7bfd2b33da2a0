//! Lets each token of a NEW_TOKEN frame prove an address once.
//!
//! Tokens that were used are remembered, ordered by when they were issued. When there is no room for another one, the one that
//! was issued first is forgotten, and from then on nothing that was issued before it proves anything: a lack of memory makes
//! tokens live shorter, but never lets one pass twice. Clients whose token is not taken get a Retry at worst.

use core::time::Duration;
use std::collections::BTreeSet;

use super::token::{NEW_TOKEN_LIFETIME, Ticket};
use crate::time::micros;

/// Used tokens that are remembered, at most; they take about 1.5 MB.
const USED_MAX: usize = 65_536;

/// Remembers which tokens were used. Engines that share token keys share one, so that a token proves an address once
/// whichever of them it is shown to.
pub trait TokenLedger: Send {
    /// Whether the token was used, or may have been.
    fn is_used(&mut self, ticket: &Ticket) -> bool;

    /// Remembers that it was used; the time is that of the present, in microseconds since 1970.
    fn set_used(&mut self, ticket: Ticket, now_us: u64);
}

impl TokenLedger for UsedTokens {
    fn is_used(&mut self, ticket: &Ticket) -> bool {
        self.contains(ticket)
    }

    fn set_used(&mut self, ticket: Ticket, now_us: u64) {
        self.insert(ticket, now_us);
    }
}

/// The tokens that were used.
#[derive(Debug)]
pub struct UsedTokens {
    used: BTreeSet<Ticket>,
    /// Tokens issued until then count as used.
    horizon_us: u64,
    max: usize,
}

impl Default for UsedTokens {
    fn default() -> Self {
        Self::new()
    }
}

impl UsedTokens {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_max(USED_MAX)
    }

    const fn with_max(max: usize) -> Self {
        Self { used: BTreeSet::new(), horizon_us: 0, max }
    }

    /// Whether the token was used, or may have been.
    fn contains(&self, ticket: &Ticket) -> bool {
        //= rfc9000#8.1.4-6
        //= rfc9000#8.1.4-8
        ticket.issued_us <= self.horizon_us || self.used.contains(ticket)
    }

    /// Remembers that it was used.
    fn insert(&mut self, ticket: Ticket, now_us: u64) {
        /// Longer than a token is taken, whoever's clock issued it.
        const KEPT: Duration = Duration::from_secs(NEW_TOKEN_LIFETIME.as_secs() + 60);
        let end = now_us.saturating_sub(micros(KEPT));
        while self.used.first().is_some_and(|t| t.issued_us < end) {
            self.used.pop_first();
        }
        self.used.insert(ticket);
        if self.used.len() > self.max
            && let Some(first) = self.used.pop_first()
        {
            self.horizon_us = self.horizon_us.max(first.issued_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket(issued_us: u64, number: u64) -> Ticket {
        Ticket { issued_us, number }
    }

    #[test]
    fn a_token_that_is_too_old_to_pass_is_forgotten() {
        let mut used = UsedTokens::new();
        let day = micros(NEW_TOKEN_LIFETIME);
        used.insert(ticket(1_000, 1), 1_000);
        used.insert(ticket(2_000, 2), day);
        assert!(used.contains(&ticket(1_000, 1)), "it would still pass");
        used.insert(ticket(day * 2, 3), day * 2);
        assert_eq!(used.used.len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_passes_twice_and_memory_is_bounded(shown in proptest::collection::vec((1u64..50, 0u64..4), 1..200)) {
            //= rfc9000#8.1.4-6 type=test
            let mut used = UsedTokens::with_max(8);
            let mut passed = std::collections::HashSet::new();
            for (issued, number) in shown {
                let ticket = ticket(issued, number);
                if !used.contains(&ticket) {
                    prop_assert!(passed.insert(ticket_key(&ticket)), "{ticket:?} passed twice");
                    used.insert(ticket, 100);
                }
                prop_assert!(used.used.len() <= 8);
            }
        }
    }

    fn ticket_key(ticket: &Ticket) -> (u64, u64) {
        (ticket.issued_us, ticket.number)
    }
}
