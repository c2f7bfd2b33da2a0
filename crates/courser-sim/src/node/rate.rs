//! The serialiser: how long a datagram occupies the link.
//!
//! Time is in nanoseconds here, because a short datagram on a fast link takes less than a microsecond. The remainder of
//! each division is carried to the next datagram of a busy period, so the rate is exact in the long run.

/// The rate of a link over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// Serialising takes no time.
    #[default]
    Unlimited,
    /// So many bits per second for ever.
    Constant(u64),
    /// One step after the other.
    Steps {
        /// The steps, starting at time zero.
        steps: Vec<Step>,
        /// After the last step: start again, or let the last one hold for ever.
        repeat: bool,
    },
}

/// A stretch of time with one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long it holds, in microseconds.
    pub for_us: u64,
    /// The rate in bits per second; zero is an outage, in which datagrams wait.
    pub bits_per_s: u64,
}

const NS_PER_S: u128 = 1_000_000_000;

impl Rate {
    /// Whole bytes that the link can serialise between two points in time; `None` if it is unlimited.
    #[must_use]
    pub fn capacity_bytes(&self, from_us: u64, to_us: u64) -> Option<u64> {
        let mut at = from_us.saturating_mul(1_000);
        let end = to_us.saturating_mul(1_000);
        let mut bit_ns = 0u128;
        while at < end {
            let (bits_per_s, until) = match self {
                Self::Unlimited => return None,
                Self::Constant(r) => (*r, u64::MAX),
                Self::Steps { steps, repeat } => step_at(steps, *repeat, at),
            };
            let until = until.min(end);
            bit_ns += u128::from(bits_per_s) * u128::from(until - at);
            at = until;
        }
        Some(u64::try_from(bit_ns / NS_PER_S / 8).unwrap_or(u64::MAX))
    }
}

/// The rate that holds at a point in time, and when it ends (`u64::MAX` for never).
fn step_at(steps: &[Step], repeat: bool, at_ns: u64) -> (u64, u64) {
    let ns = |s: &Step| s.for_us.saturating_mul(1_000);
    let cycle = steps.iter().fold(0u64, |sum, s| sum.saturating_add(ns(s)));
    let repeat = repeat && cycle > 0;
    let mut begin = if repeat { at_ns - at_ns % cycle } else { 0 };
    for s in steps {
        let end = begin.saturating_add(ns(s));
        if at_ns < end {
            return (s.bits_per_s, end);
        }
        begin = end;
    }
    (steps.last().map_or(0, |s| s.bits_per_s), u64::MAX)
}

/// A serialiser at work.
#[derive(Clone, Debug)]
pub struct RateNode {
    rate: Rate,
    /// End of the last datagram; a start at this very time continues the busy period.
    last_end_ns: u64,
    /// What the last division left over, in bit-nanoseconds times the rate's unit; below the rate.
    carry: u64,
}

impl RateNode {
    /// An idle serialiser.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self { rate, last_end_ns: 0, carry: 0 }
    }

    /// The rate it works by.
    #[must_use]
    pub const fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Changes the rate for datagrams that start from now on.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
        self.carry = 0;
    }

    /// True if nothing that starts at `start_ns` or later will ever be served, unless the rate is changed.
    #[must_use]
    pub fn is_stalled(&self, start_ns: u64) -> bool {
        match &self.rate {
            Rate::Unlimited => false,
            Rate::Constant(r) => *r == 0,
            Rate::Steps { steps, repeat } => {
                serves_nothing(steps, *repeat) || (!*repeat && step_at(steps, false, start_ns) == (0, u64::MAX))
            }
        }
    }

    /// When a datagram of this size ends whose first bit leaves at `start_ns`; `None` if it never does.
    pub fn end_ns(&mut self, start_ns: u64, wire_bytes: u64) -> Option<u64> {
        if start_ns != self.last_end_ns {
            self.carry = 0;
        }
        let work = u128::from(wire_bytes) * 8 * NS_PER_S;
        let end = match &self.rate {
            Rate::Unlimited => Some(start_ns),
            Rate::Constant(0) => None,
            Rate::Constant(r) => {
                let work = work + u128::from(self.carry);
                self.carry = (work % u128::from(*r)) as u64;
                Some(start_ns.saturating_add(u64::try_from(work / u128::from(*r)).unwrap_or(u64::MAX)))
            }
            Rate::Steps { steps, repeat } => end_over_steps(steps, *repeat, start_ns, work),
        };
        self.last_end_ns = end.unwrap_or(u64::MAX);
        end
    }
}

/// True for steps without any service; only others let a loop over them end.
fn serves_nothing(steps: &[Step], repeat: bool) -> bool {
    let last_holds = !repeat && steps.last().is_some_and(|s| s.bits_per_s > 0);
    !last_holds && steps.iter().all(|s| s.bits_per_s == 0 || s.for_us == 0)
}

/// Works off `work` bit-nanoseconds step by step. Fractions round up, which costs at most a nanosecond per datagram.
fn end_over_steps(steps: &[Step], repeat: bool, start_ns: u64, mut work: u128) -> Option<u64> {
    if serves_nothing(steps, repeat) {
        return None;
    }
    let mut at = start_ns;
    loop {
        let (bits_per_s, until) = step_at(steps, repeat, at);
        let room = u128::from(bits_per_s) * u128::from(until - at);
        if work <= room {
            let took = if bits_per_s == 0 { 0 } else { work.div_ceil(u128::from(bits_per_s)) };
            return Some(at.saturating_add(u64::try_from(took).unwrap_or(u64::MAX)));
        }
        if until == u64::MAX {
            return None;
        }
        work -= room;
        at = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(list: &[(u64, u64)], repeat: bool) -> Rate {
        Rate::Steps { steps: list.iter().map(|&(for_us, bits_per_s)| Step { for_us, bits_per_s }).collect(), repeat }
    }

    #[test]
    fn a_constant_rate_is_exact_over_a_busy_period() {
        for (rate, bytes) in [(10_000_000u64, 1_500u64), (3, 1), (7_777_777, 61), (40_000_000_000, 28)] {
            let mut node = RateNode::new(Rate::Constant(rate));
            let mut at = 5;
            for _ in 0..10_000 {
                at = node.end_ns(at, bytes).unwrap();
            }
            let want = 5 + (10_000 * u128::from(bytes) * 8 * NS_PER_S / u128::from(rate)) as u64;
            assert_eq!(at, want);
        }
    }

    #[test]
    fn an_unlimited_rate_takes_no_time_and_a_zero_rate_for_ever() {
        assert_eq!(RateNode::new(Rate::Unlimited).end_ns(17, 1_500), Some(17));
        assert_eq!(RateNode::new(Rate::Constant(0)).end_ns(17, 1_500), None);
        assert_eq!(RateNode::new(steps(&[(10, 0)], true)).end_ns(17, 1), None);
        assert_eq!(RateNode::new(steps(&[(10, 8), (1, 0)], false)).end_ns(17_000, 1), None);
        assert_eq!(RateNode::new(steps(&[], true)).end_ns(17_000, 1), None);
        assert_eq!(RateNode::new(steps(&[(0, 5)], true)).end_ns(0, 1), None, "steps of no length serve nothing");
    }

    #[test]
    fn a_stall_is_known_before_a_datagram_starts() {
        assert!(!RateNode::new(Rate::Unlimited).is_stalled(0));
        assert!(RateNode::new(Rate::Constant(0)).is_stalled(0));
        let ends = RateNode::new(steps(&[(10, 8), (10, 0)], false));
        assert!(!ends.is_stalled(9_999) && ends.is_stalled(20_000));
        assert!(!RateNode::new(steps(&[(10, 8), (10, 0)], true)).is_stalled(15_000));
        assert!(!RateNode::new(steps(&[(10, 0), (10, 8)], false)).is_stalled(0));
    }

    #[test]
    fn a_datagram_may_span_steps_and_outages() {
        // 8 kbit/s for 1 s, nothing for 1 s, then 16 kbit/s: 2,000 bytes need 1 s, the pause, and half a second.
        let mut node = RateNode::new(steps(&[(1_000_000, 8_000), (1_000_000, 0), (1_000_000, 16_000)], false));
        assert_eq!(node.end_ns(0, 2_000), Some(2_500_000_000));
        assert_eq!(node.end_ns(2_500_000_000, 2_000), Some(3_500_000_000), "the last step holds on");
        let mut cycle = RateNode::new(steps(&[(1_000_000, 8_000), (1_000_000, 0)], true));
        assert_eq!(cycle.end_ns(0, 2_500), Some(4_500_000_000));
    }

    #[test]
    fn capacity_is_the_area_under_the_rate() {
        assert_eq!(Rate::Unlimited.capacity_bytes(0, 5), None);
        assert_eq!(Rate::Constant(8_000_000).capacity_bytes(1_000_000, 3_000_000), Some(2_000_000));
        let lte = steps(&[(1_500_000, 20_000_000), (1_500_000, 5_000_000)], true);
        assert_eq!(lte.capacity_bytes(0, 6_000_000), Some(9_375_000));
        assert_eq!(lte.capacity_bytes(1_000_000, 2_000_000), Some(1_562_500));
        assert_eq!(lte.capacity_bytes(5, 5), Some(0));
    }
}
