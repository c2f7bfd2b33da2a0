//! A budget: what a peer may do in one go, and what is forgiven per second.

use courser_core::time::{Instant, micros};

/// Tokens that are spent and come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    tokens: u32,
    max: u32,
    per_second: u32,
    /// Until when tokens were given back.
    since: Instant,
}

impl Budget {
    pub(super) const fn new(max: u32, per_second: u32) -> Self {
        Self { tokens: max, max, per_second, since: Instant::ZERO }
    }

    /// Takes a token; `false` when there is none.
    #[must_use]
    pub(super) fn spend(&mut self) -> bool {
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }

    /// Gives a token back.
    pub(super) fn earn(&mut self) {
        self.tokens = self.tokens.saturating_add(1).min(self.max);
    }

    /// Gives back what the time has brought.
    pub(super) fn refill(&mut self, now: Instant) {
        let passed = micros(now.since(self.since));
        let due = passed.saturating_mul(self.per_second.into()) / 1_000_000;
        if due == 0 {
            return;
        }
        // Parts of a token are not lost: the rest of the time counts next time.
        self.since = if due >= self.max.into() {
            now
        } else {
            self.since.after_micros(due * 1_000_000 / u64::from(self.per_second))
        };
        self.tokens = self.tokens.saturating_add(u32::try_from(due).unwrap_or(u32::MAX)).min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_comes_back_with_time_and_merit() {
        let mut budget = Budget::new(3, 10);
        assert!([(); 3].iter().all(|()| budget.spend()) && !budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        budget.refill(Instant::from_micros(99_999));
        assert!(!budget.spend());
        for step in 1..=10 {
            budget.refill(Instant::from_micros(99_999 + step * 15_000));
        }
        assert!(budget.spend() && budget.spend() && !budget.spend(), "a quarter of a second brings two");
        budget.refill(Instant::from_micros(u64::MAX / 2));
        assert!([(); 3].iter().all(|()| budget.spend()) && !budget.spend(), "never more than it held");
    }
}
