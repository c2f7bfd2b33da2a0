//! How a run ends, and what it may use.

use std::fmt;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What was waited for has come true.
    Reached,
    /// The time is over.
    Time,
    /// Nothing will ever happen again.
    Idle,
}

/// The simulation did not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Where the clock stood.
    pub now_us: u64,
    /// Steps done in all.
    pub steps: u64,
    /// Steps done since the clock last moved.
    pub steps_at_this_time: u64,
    /// Nodes of the hosts polled in the last step.
    pub polled: Vec<u32>,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the simulation is stuck at {} us: {} steps, {} of them without any progress of time; last polled nodes {:?}",
            self.now_us, self.steps, self.steps_at_this_time, self.polled
        )
    }
}

impl std::error::Error for Stuck {}

/// What a run may use before it counts as stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps in all.
    pub steps_max: u64,
    /// Steps at one and the same time.
    pub steps_at_one_time_max: u64,
    /// Datagrams that a host may send in one poll.
    pub sends_per_poll_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps_max: 1_000_000_000, steps_at_one_time_max: 10_000, sends_per_poll_max: 65_536 }
    }
}
