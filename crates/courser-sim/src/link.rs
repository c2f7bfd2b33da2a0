//! One direction of a link in virtual time.
//!
//! A datagram meets the nodes in this order:
//!
//! ```text
//! rules, tap → blackhole → MTU hole → ECN treatment → loss → corrupt → duplicate → policer
//!   → queue (drop-tail, CoDel, CE) → rate → bunch → delay + jitter + reorder → out
//! ```
//!
//! A link is passive: it never asks for the time. `send` puts a datagram in, `next` says when something may come out, `poll`
//! takes it out. `next` may be early (then `poll` gives nothing, and `next` a later time) but never late. The queue is
//! worked off when somebody looks, with the times at which it would have happened, so a link costs nothing while it waits.
//!
//! Invariant: `sent + injected + duplicated = delivered + dropped + in flight`. Without jitter out of order, reordering
//! and delaying rules, datagrams leave in the order in which they entered.

use crate::config::LinkConfig;
use crate::datagram::{Datagram, Pool};
use crate::node::{
    bunch::BunchNode,
    delay::DelayLine,
    ecn::Outcome,
    loss::LossNode,
    policer::PolicerNode,
    queue::{Left, QueueNode},
    rate::{Rate, RateNode},
};
use crate::rng::{Rng, mix};
use crate::script::{Act, Tap, TapView, Verdict};
use crate::stats::{Cause, LinkStats};

/// A datagram that a link dropped, for whoever traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropRecord {
    /// When it was dropped.
    pub at_us: u64,
    /// Why.
    pub cause: Cause,
    /// Length of its payload.
    pub bytes: usize,
}

/// Drop records that nobody takes are not kept beyond this number.
const RECORDS_MAX: usize = 65_536;

/// Independent random streams of one link, so that no node's draws depend on another node.
#[derive(Debug)]
struct Streams {
    damage: Rng,
    ecn: Rng,
    duplicate: Rng,
    jitter: Rng,
    reorder: Rng,
}

/// One direction of a link.
///
/// ```
/// use courser_sim::{Datagram, Link, LinkConfig};
/// let (a, b) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
/// // 1,000 bytes of payload and 28 of headers at 8,224 kbit/s take one millisecond.
/// let mut link = Link::new(&LinkConfig::new().rate(8_224_000).delay_us(10_000), 1);
/// link.send(0, Datagram::new(a, b, vec![0; 1_000]));
/// assert_eq!(link.next(), Some(11_000));
/// assert!(link.poll(10_999).is_none());
/// assert_eq!(link.poll(11_000).unwrap().bytes.len(), 1_000);
/// ```
pub struct Link {
    config: LinkConfig,
    /// What its draws begin from; another one after each change of the whole.
    seed: u64,
    streams: Streams,
    loss: Vec<LossNode>,
    policer: Option<PolicerNode>,
    queue: QueueNode,
    rate: RateNode,
    bunch: Option<BunchNode>,
    /// Datagrams that rules, the tap or the injector put off; they have yet to pass the gates.
    put_off: DelayLine<(Option<u64>, Datagram)>,
    /// Datagrams that travel.
    line: DelayLine<Datagram>,
    /// The serialiser is busy until then.
    free_ns: u64,
    /// No datagram that keeps the order may arrive before this.
    last_arrival_us: u64,
    /// The latest time the link was told; it never goes back.
    now_us: u64,
    /// Set by hand: everything that enters is lost.
    dead: bool,
    tap: Option<Tap>,
    /// Scratch for the tap's own datagrams.
    injected: Vec<(u64, Datagram)>,
    back: Vec<Datagram>,
    stats: LinkStats,
    /// Buffers of dropped datagrams, for copies and for the owner to fetch.
    pool: Pool,
    /// Kept only while somebody wants them.
    records: Option<Vec<DropRecord>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("now_us", &self.now_us).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl Link {
    /// An empty link. Equal configurations and seeds treat equal datagrams equally.
    #[must_use]
    pub fn new(config: &LinkConfig, seed: u64) -> Self {
        Self {
            seed,
            loss: losses(config, seed),
            streams: Streams {
                damage: Rng::stream(seed, 1),
                ecn: Rng::stream(seed, 2),
                duplicate: Rng::stream(seed, 3),
                jitter: Rng::stream(seed, 4),
                reorder: Rng::stream(seed, 5),
            },
            policer: config.policer.map(PolicerNode::new),
            queue: QueueNode::new(config.queue),
            rate: RateNode::new(config.rate.clone()),
            bunch: config.bunch.map(|b| BunchNode::new(b, Rng::stream(seed, 6))),
            put_off: DelayLine::new(),
            line: DelayLine::new(),
            free_ns: 0,
            last_arrival_us: 0,
            now_us: 0,
            dead: false,
            tap: None,
            injected: Vec::new(),
            back: Vec::new(),
            stats: LinkStats::default(),
            pool: Pool::new(),
            records: None,
            config: config.clone(),
        }
    }

    /// Puts a datagram in.
    pub fn send(&mut self, now_us: u64, mut d: Datagram) {
        self.advance(now_us);
        let now_us = self.now_us;
        let number = self.stats.sent;
        self.stats.sent += 1;
        self.stats.sent_bytes += d.bytes.len() as u64;
        match self.treat(now_us, number, &mut d) {
            Verdict::Drop => self.drop(now_us, Cause::Tap, d),
            Verdict::Delay(us) if us > 0 => self.put_off(now_us.saturating_add(us), Some(number), d),
            Verdict::Pass | Verdict::Delay(_) => self.enter(now_us, Some(number), d),
        }
        self.take_injected(now_us);
    }

    /// Puts a datagram in that rules and the tap do not see, after `after_us`.
    pub fn inject(&mut self, now_us: u64, after_us: u64, d: Datagram) {
        self.advance(now_us);
        self.injected.push((after_us, d));
        self.take_injected(self.now_us);
    }

    /// The next datagram that has arrived by now.
    pub fn poll(&mut self, now_us: u64) -> Option<Datagram> {
        self.advance(now_us);
        let (at_us, d) = self.line.pop(self.now_us)?;
        debug_assert!(at_us <= self.now_us);
        self.stats.delivered += 1;
        self.stats.delivered_bytes += d.bytes.len() as u64;
        Some(d)
    }

    /// When to poll next; `None` if nothing will ever come out. May be too early, never too late.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        let travelling = self.line.next_us().filter(|&t| t != u64::MAX);
        let put_off = self.put_off.next_us();
        let waiting = (!self.queue.is_empty() && !self.rate.is_stalled(self.free_ns))
            .then(|| us_ceil(self.free_ns).saturating_add(self.config.delay_us));
        [travelling, put_off, waiting].into_iter().flatten().min()
    }

    /// What it counted.
    #[must_use]
    pub const fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Its description.
    #[must_use]
    pub const fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Datagrams inside the link.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queue.len() + self.line.len() + self.put_off.len()
    }

    /// Bytes on the wire that wait for the serialiser.
    #[must_use]
    pub const fn queued_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// From now on everything that enters is lost, or no longer.
    pub const fn set_dead(&mut self, dead: bool) {
        self.dead = dead;
    }

    /// Changes the rate for datagrams that begin to be serialised from now on.
    pub fn set_rate(&mut self, now_us: u64, rate: Rate) {
        self.advance(now_us);
        self.config.rate = rate.clone();
        self.rate.set_rate(rate);
        // Datagrams that stood still start now and not in the past. One that was cut by the last step of a schedule
        // never ends (`u64::MAX`); those behind it go on.
        let now_ns = self.now_us.saturating_mul(1_000);
        self.free_ns = if self.free_ns == u64::MAX { now_ns } else { self.free_ns.max(now_ns) };
    }

    /// Changes the one-way delay; datagrams still keep their order.
    pub fn set_delay_us(&mut self, now_us: u64, delay_us: u64) {
        self.advance(now_us);
        self.config.delay_us = delay_us;
    }

    /// From now on it is another link, as when a host goes from one network to another: every part is as the configuration says.
    /// What waits in the queue is served at the new rate, what travels arrives as it would have, and counters and the adversary
    /// stay. Numbers of datagrams go on.
    pub fn replace(&mut self, now_us: u64, config: &LinkConfig) {
        self.set_rate(now_us, config.rate.clone());
        self.seed = mix(self.seed);
        self.loss = losses(config, self.seed);
        self.policer = config.policer.map(PolicerNode::new);
        self.queue.set_config(config.queue);
        self.bunch = config.bunch.map(|b| BunchNode::new(b, Rng::stream(self.seed, 6)));
        self.config = config.clone();
    }

    /// Sets or removes the adversary.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// Datagrams that the tap sent the other way; whoever owns the link routes them.
    pub fn take_back(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.back)
    }

    /// Starts or stops to keep a record of each drop.
    pub fn record_drops(&mut self, on: bool) {
        self.records = on.then(Vec::new);
    }

    /// The records since the last call.
    pub fn take_records(&mut self) -> Vec<DropRecord> {
        self.records.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The pool of buffers that dropped datagrams left.
    pub const fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Brings the link to a point in time: late entrants pass the gates, the serialiser works.
    fn advance(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        while let Some((at_us, (number, d))) = self.put_off.pop(self.now_us) {
            self.enter(at_us, number, d);
        }
        self.serve(self.now_us.saturating_mul(1_000));
    }

    /// Rules, then the tap.
    fn treat(&mut self, now_us: u64, number: u64, d: &mut Datagram) -> Verdict {
        let mut delay_us = 0u64;
        for rule in &self.config.script {
            if !rule.picks(number, now_us, d) {
                continue;
            }
            match rule.act {
                Act::Drop => return Verdict::Drop,
                Act::Delay(us) => delay_us = delay_us.saturating_add(us),
                Act::Damage(damage) => {
                    self.stats.corrupted += u64::from(damage.apply(&mut d.bytes, &mut self.streams.damage));
                }
                Act::SetEcn(ecn) => d.ecn = ecn & 3,
                Act::Copies(n) => {
                    for _ in 0..n {
                        let copy = Datagram { bytes: self.pool.copy_of(&d.bytes), ..*d };
                        self.injected.push((delay_us, copy));
                    }
                }
            }
        }
        let verdict = match &mut self.tap {
            None => Verdict::Pass,
            Some(tap) => tap(&mut TapView { now_us, number, inject: &mut self.injected, back: &mut self.back }, d),
        };
        match verdict {
            Verdict::Drop => Verdict::Drop,
            Verdict::Pass => Verdict::Delay(delay_us),
            Verdict::Delay(us) => Verdict::Delay(us.saturating_add(delay_us)),
        }
    }

    fn put_off(&mut self, at_us: u64, number: Option<u64>, d: Datagram) {
        if self.in_flight() >= self.config.in_flight_max {
            self.drop(self.now_us, Cause::Limit, d);
        } else {
            self.put_off.push(at_us, true, (number, d));
        }
    }

    fn take_injected(&mut self, now_us: u64) {
        let mut list = std::mem::take(&mut self.injected);
        for (after_us, d) in list.drain(..) {
            self.stats.injected += 1;
            if after_us == 0 {
                self.enter(now_us, None, d);
            } else {
                self.put_off(now_us.saturating_add(after_us), None, d);
            }
        }
        self.injected = list;
    }

    /// The gates, then the queue.
    fn enter(&mut self, now_us: u64, number: Option<u64>, mut d: Datagram) {
        if let Some(cause) = self.stopped_by(now_us, number, &mut d) {
            return self.drop(now_us, cause, d);
        }
        for corrupt in &self.config.corrupt {
            self.stats.corrupted += u64::from(corrupt.apply(number, &mut d.bytes, &mut self.streams.damage));
        }
        let copies = self.config.duplicate.map_or(0, |dup| dup.copies(&mut self.streams.duplicate));
        for _ in 0..copies {
            let copy = Datagram { bytes: self.pool.copy_of(&d.bytes), ..d };
            self.stats.duplicated += 1;
            self.line_up(now_us, copy);
        }
        self.line_up(now_us, d);
    }

    /// The gate that stops a datagram, if any.
    fn stopped_by(&mut self, now_us: u64, number: Option<u64>, d: &mut Datagram) -> Option<Cause> {
        if self.dead || self.config.blackhole.contains(now_us) {
            return Some(Cause::Blackhole);
        }
        if self.config.mtu.is_some_and(|m| !m.passes(d.bytes.len())) {
            return Some(Cause::Mtu);
        }
        match self.config.ecn.apply(d, &mut self.streams.ecn) {
            Outcome::Untouched => {}
            Outcome::Bleached => self.stats.bleached += 1,
            Outcome::Marked => self.stats.marked += 1,
            Outcome::Dropped => return Some(Cause::Ecn),
        }
        // Every model is asked, so that its sequence does not depend on the others.
        let lost = self.loss.iter_mut().fold(false, |lost, model| model.loses(now_us, number) | lost);
        lost.then_some(Cause::Loss)
    }

    /// Policer and queue; then the serialiser may start at once.
    fn line_up(&mut self, now_us: u64, d: Datagram) {
        let wire_bytes = d.bytes.len() as u64 + self.config.overhead_bytes;
        if self.in_flight() >= self.config.in_flight_max {
            return self.drop(now_us, Cause::Limit, d);
        }
        if self.policer.as_mut().is_some_and(|p| !p.passes(now_us, wire_bytes)) {
            return self.drop(now_us, Cause::Policer, d);
        }
        let now_ns = now_us.saturating_mul(1_000);
        self.serve(now_ns);
        if self.queue.is_empty() && self.free_ns <= now_ns && !self.rate.is_stalled(now_ns) {
            // An idle serialiser takes it at once, whatever the size of the queue.
            return self.serialise(now_ns, Left { d, wire_bytes, wait_ns: 0, marked: false });
        }
        if let Err(d) = self.queue.push(now_ns, wire_bytes, d) {
            return self.drop(now_us, Cause::QueueFull, d);
        }
        self.stats.queue_bytes_max = self.stats.queue_bytes_max.max(self.queue.bytes());
        self.stats.queue_datagrams_max = self.stats.queue_datagrams_max.max(self.queue.len());
    }

    /// Serialises what could start by `now_ns`.
    fn serve(&mut self, now_ns: u64) {
        while self.free_ns <= now_ns {
            let Some(since_ns) = self.queue.head_since_ns() else { return };
            let start_ns = self.free_ns.max(since_ns);
            if self.rate.is_stalled(start_ns) {
                return;
            }
            let (stats, pool, records) = (&mut self.stats, &mut self.pool, &mut self.records);
            let left =
                self.queue.pop(start_ns, |d| count_drop(stats, pool, records, start_ns / 1_000, Cause::Codel, d));
            let Some(left) = left else { return };
            self.serialise(start_ns, left);
        }
    }

    /// Puts one datagram on the serialiser and, with its times known, on its way.
    fn serialise(&mut self, start_ns: u64, left: Left) {
        self.stats.waits_us.add(left.wait_ns / 1_000);
        self.stats.marked += u64::from(left.marked);
        let Some(end_ns) = self.rate.end_ns(start_ns, left.wire_bytes) else {
            self.free_ns = u64::MAX;
            return self.line.push(u64::MAX, true, left.d);
        };
        self.free_ns = end_ns;
        let end_us = us_ceil(end_ns);
        let out_us = self.bunch.as_mut().map_or(end_us, |b| b.release_us(end_us));
        let arrival_us = out_us.saturating_add(self.config.delay_us);
        let jitter_us = self.config.jitter.map(|j| (j.draw(&mut self.streams.jitter), j.in_order));
        let hold_us = self.config.reorder.and_then(|r| r.draw(&mut self.streams.reorder));
        let (extra_us, in_order) = jitter_us.unwrap_or((0, true));
        let mut at_us = arrival_us.saturating_add(extra_us);
        if in_order {
            at_us = at_us.max(self.last_arrival_us);
            self.last_arrival_us = at_us;
        }
        // A datagram that is held back must not hold back those behind it, so it does not move the order's mark.
        if let Some(us) = hold_us {
            self.stats.held_back += 1;
            at_us = at_us.saturating_add(us);
        }
        self.line.push(at_us, hold_us.is_some() || !in_order, left.d);
    }

    fn drop(&mut self, at_us: u64, cause: Cause, d: Datagram) {
        count_drop(&mut self.stats, &mut self.pool, &mut self.records, at_us, cause, d);
    }
}

fn losses(config: &LinkConfig, seed: u64) -> Vec<LossNode> {
    config.loss.iter().zip(100..).map(|(m, tag)| LossNode::new(m.clone(), Rng::stream(seed, tag))).collect()
}

fn count_drop(
    stats: &mut LinkStats,
    pool: &mut Pool,
    records: &mut Option<Vec<DropRecord>>,
    at_us: u64,
    cause: Cause,
    d: Datagram,
) {
    stats.dropped_by[cause as usize] += 1;
    if let Some(list) = records.as_mut().filter(|l| l.len() < RECORDS_MAX) {
        list.push(DropRecord { at_us, cause, bytes: d.bytes.len() });
    }
    pool.give(d.bytes);
}

const fn us_ceil(ns: u64) -> u64 {
    ns.div_ceil(1_000)
}
