//! The description of one direction of a link. Its parts are the nodes; the order in which datagrams meet them is fixed
//! (see [`crate::link`]). For another order, put two links in a row with a router between them.

use crate::node::{
    blackhole::Windows,
    bunch::Bunch,
    codel::Codel,
    corrupt::{Corrupt, Damage},
    duplicate::Duplicate,
    ecn::Ecn,
    jitter::Jitter,
    loss::{GilbertElliott, Loss},
    mtu::Mtu,
    policer::Policer,
    queue::Queue,
    rate::{Rate, Step},
    reorder::Reorder,
};
use crate::script::Rule;

/// Bytes that IPv4 and UDP headers add to each payload.
pub const IPV4_UDP_BYTES: u64 = 28;

/// One direction of a link. The default is perfect: no delay, no limit, no fault.
///
/// Times are microseconds, rates bits per second, sizes bytes. Queue, rate and policer count payload plus
/// [`overhead_bytes`](Self::overhead_bytes); the MTU hole counts the payload alone.
///
/// ```
/// use courser_sim::LinkConfig;
/// let down = LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(20_000).loss(0.01);
/// assert_eq!(down.delay_us, 20_000);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// Scripted treatment of single datagrams, first of all.
    pub script: Vec<Rule>,
    /// Times in which everything that enters is lost.
    pub blackhole: Windows,
    /// Payloads over a size vanish.
    pub mtu: Option<Mtu>,
    /// What the path does to ECN, before the queue.
    pub ecn: Ecn,
    /// Loss models; any of them may hit.
    pub loss: Vec<Loss>,
    /// Damage; each may hit.
    pub corrupt: Vec<Corrupt>,
    /// Duplication, before the policer and the queue.
    pub duplicate: Option<Duplicate>,
    /// Token bucket that drops.
    pub policer: Option<Policer>,
    /// Waiting room of the serialiser. Without a rate nothing ever waits.
    pub queue: Queue,
    /// Serialisation.
    pub rate: Rate,
    /// Bunched release after serialisation.
    pub bunch: Option<Bunch>,
    /// Propagation in one direction.
    pub delay_us: u64,
    /// Random extra delay.
    pub jitter: Option<Jitter>,
    /// Datagrams held back.
    pub reorder: Option<Reorder>,
    /// Headers below UDP's payload, for queue, rate and policer. 28 is IPv4, 48 is IPv6.
    pub overhead_bytes: u64,
    /// The link never holds more datagrams than this; further ones are dropped with [`crate::Cause::Limit`]. It guards
    /// memory and is meant never to be reached.
    pub in_flight_max: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            script: Vec::new(),
            blackhole: Windows::new(),
            mtu: None,
            ecn: Ecn::Keep,
            loss: Vec::new(),
            corrupt: Vec::new(),
            duplicate: None,
            policer: None,
            queue: Queue::default(),
            rate: Rate::Unlimited,
            bunch: None,
            delay_us: 0,
            jitter: None,
            reorder: None,
            overhead_bytes: IPV4_UDP_BYTES,
            in_flight_max: 1 << 20,
        }
    }
}

impl LinkConfig {
    /// A perfect link.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A constant rate in bits per second.
    #[must_use]
    pub fn rate(mut self, bits_per_s: u64) -> Self {
        self.rate = Rate::Constant(bits_per_s);
        self
    }

    /// A rate that changes: `(for_us, bits_per_s)` each. Starts again after the last step if `repeat`, else that one holds.
    #[must_use]
    pub fn rate_steps(mut self, steps: &[(u64, u64)], repeat: bool) -> Self {
        let steps = steps.iter().map(|&(for_us, bits_per_s)| Step { for_us, bits_per_s }).collect();
        self.rate = Rate::Steps { steps, repeat };
        self
    }

    /// A drop-tail queue of so many bytes on the wire.
    #[must_use]
    pub const fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue.bytes_max = Some(bytes);
        self
    }

    /// A drop-tail queue of so many datagrams.
    #[must_use]
    pub const fn queue_datagrams(mut self, datagrams: usize) -> Self {
        self.queue.datagrams_max = Some(datagrams);
        self
    }

    /// CoDel in the queue.
    #[must_use]
    pub const fn codel(mut self, codel: Codel) -> Self {
        self.queue.codel = Some(codel);
        self
    }

    /// CE for ECN-capable datagrams that waited longer than this.
    #[must_use]
    pub const fn ce_above_us(mut self, wait_us: u64) -> Self {
        self.queue.ce_above_us = Some(wait_us);
        self
    }

    /// One-way delay.
    #[must_use]
    pub const fn delay_us(mut self, us: u64) -> Self {
        self.delay_us = us;
        self
    }

    /// Jitter up to `max_us`; with `in_order` nobody overtakes.
    #[must_use]
    pub const fn jitter(mut self, max_us: u64, in_order: bool) -> Self {
        self.jitter = Some(Jitter { max_us, in_order });
        self
    }

    /// Adds independent loss.
    #[must_use]
    pub fn loss(self, p: f64) -> Self {
        self.loss_model(Loss::Independent(p))
    }

    /// Adds loss in bursts: mean share, mean length.
    #[must_use]
    pub fn loss_bursts(self, mean: f64, burst: f64) -> Self {
        self.loss_model(Loss::GilbertElliott(GilbertElliott::bursts(mean, burst)))
    }

    /// Adds bad times, in which everything is lost: their share of all time, and their mean length in microseconds.
    #[must_use]
    pub fn loss_time(self, share: f64, bad_us: u64) -> Self {
        self.loss_model(Loss::Times { share, bad_us })
    }

    /// Adds the loss of the datagrams with these numbers, counted from 0.
    #[must_use]
    pub fn lose(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.loss_model(Loss::List(numbers.into_iter().collect()))
    }

    /// Adds a loss model.
    #[must_use]
    pub fn loss_model(mut self, model: Loss) -> Self {
        self.loss.push(model);
        self
    }

    /// Holds a share of the datagrams back.
    #[must_use]
    pub const fn reorder(mut self, p: f64, hold_us: u64) -> Self {
        self.reorder = Some(Reorder { p, hold_us });
        self
    }

    /// Duplicates a share of the datagrams once.
    #[must_use]
    pub const fn duplicate(mut self, p: f64) -> Self {
        self.duplicate = Some(Duplicate { p, copies: 1 });
        self
    }

    /// Adds random damage.
    #[must_use]
    pub fn corrupt(mut self, p: f64, damage: Damage) -> Self {
        self.corrupt.push(Corrupt::random(p, damage));
        self
    }

    /// Adds damage to the datagrams with these numbers, counted from 0.
    #[must_use]
    pub fn corrupt_listed(mut self, numbers: impl IntoIterator<Item = u64>, damage: Damage) -> Self {
        self.corrupt.push(Corrupt::listed(numbers, damage));
        self
    }

    /// A policer before the queue.
    #[must_use]
    pub const fn policer(mut self, bits_per_s: u64, burst_bytes: u64) -> Self {
        self.policer = Some(Policer { bits_per_s, burst_bytes });
        self
    }

    /// Bunched release with pauses between `min_us` and `max_us`.
    #[must_use]
    pub const fn bunch(mut self, min_us: u64, max_us: u64) -> Self {
        self.bunch = Some(Bunch { min_us, max_us });
        self
    }

    /// Payloads over this many bytes vanish.
    #[must_use]
    pub const fn mtu(mut self, payload_max: usize) -> Self {
        self.mtu = Some(Mtu { payload_max });
        self
    }

    /// What the path does to ECN.
    #[must_use]
    pub const fn ecn(mut self, ecn: Ecn) -> Self {
        self.ecn = ecn;
        self
    }

    /// Adds a time in which everything that enters is lost.
    #[must_use]
    pub fn dead(mut self, from_us: u64, to_us: u64) -> Self {
        self.blackhole = self.blackhole.with(from_us, to_us);
        self
    }

    /// Adds a scripted rule.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.script.push(rule);
        self
    }

    /// Payload bytes that the rate (or the policer, if that is tighter) lets through between two times when each datagram
    /// carries `payload` bytes; `None` without any such limit.
    #[must_use]
    pub fn capacity_bytes(&self, from_us: u64, to_us: u64, payload: u64) -> Option<u64> {
        let policed = self.policer.and_then(|p| Rate::Constant(p.bits_per_s).capacity_bytes(from_us, to_us));
        let wire = match (self.rate.capacity_bytes(from_us, to_us), policed) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        let share = u128::from(wire) * u128::from(payload) / u128::from((payload + self.overhead_bytes).max(1));
        Some(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// Both directions of a link. "Up" goes from the first end (by custom the client) to the second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duplex {
    /// First end to second end.
    pub up: LinkConfig,
    /// Second end to first end.
    pub down: LinkConfig,
}

impl Duplex {
    /// Two directions.
    #[must_use]
    pub const fn new(up: LinkConfig, down: LinkConfig) -> Self {
        Self { up, down }
    }

    /// The same in both directions.
    #[must_use]
    pub fn symmetric(both: LinkConfig) -> Self {
        Self { up: both.clone(), down: both }
    }

    /// Nothing but a one-way delay in both directions.
    #[must_use]
    pub fn delay_us(us: u64) -> Self {
        Self::symmetric(LinkConfig::new().delay_us(us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_what_the_tighter_of_rate_and_policer_lets_through() {
        let c = LinkConfig::new();
        assert_eq!(c.capacity_bytes(0, 1_000_000, 1_000), None);
        let c = c.rate(100_000_000).policer(8_000_000, 50_000);
        assert_eq!(c.capacity_bytes(0, 1_000_000, 972), Some(972_000));
        assert_eq!(LinkConfig::new().rate(8_000_000).capacity_bytes(0, 2_000_000, 972), Some(1_944_000));
    }
}
