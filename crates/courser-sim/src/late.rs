//! Hosts that are not always there: a scheduler wakes them late, and timers have a grain.
//!
//! In a [`World`](crate::World) a host hears of a datagram in the microsecond in which it arrives. A process that waits for a
//! socket hears of it when it is given a processor, together with all that arrived meanwhile; what it sends in answer leaves
//! as one burst. [`Late`] puts that between the world and a host, drawn from a seed.

use crate::datagram::Datagram;
use crate::host::{Host, Outbox};
use crate::rng::Rng;

/// How late a host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// It is awake so many microseconds after its cause, at most; each time is as likely.
    pub usual_us: u64,
    /// One time in sixteen it is so many, at most.
    pub seldom_us: u64,
    /// Timers go off at multiples of this; zero: whenever they are due.
    pub tick_us: u64,
}

impl Lateness {
    /// As a process on a machine that does other things besides: a tenth of a millisecond, sometimes five; timers by the
    /// millisecond.
    pub const BUSY: Self = Self { usual_us: 100, seldom_us: 5_000, tick_us: 1_000 };

    /// Always there.
    pub const NONE: Self = Self { usual_us: 0, seldom_us: 0, tick_us: 0 };

    fn draw(self, rng: &mut Rng) -> u64 {
        let most = if rng.below(16) == 0 { self.seldom_us } else { self.usual_us };
        rng.range(0..=most)
    }
}

/// A host that is woken late.
#[derive(Debug)]
pub struct Late<H> {
    host: H,
    lateness: Lateness,
    rng: Rng,
    /// What arrived since it was last awake.
    inbox: Vec<Datagram>,
    /// When it will have noticed that.
    wake_us: Option<u64>,
    /// How late its next timer will be.
    timer_late_us: u64,
}

impl<H: Host> Late<H> {
    /// A host and how late it is. With [`Lateness::NONE`] it is as if this were not there.
    pub const fn new(host: H, lateness: Lateness, seed: u64) -> Self {
        let rng = Rng::stream(seed, 7_001);
        Self { host, lateness, rng, inbox: Vec::new(), wake_us: None, timer_late_us: 0 }
    }

    /// The host.
    pub const fn host(&self) -> &H {
        &self.host
    }

    fn timer_us(&self) -> Option<u64> {
        let tick_us = self.lateness.tick_us.max(1);
        self.host.deadline().map(|at| at.div_ceil(tick_us).saturating_mul(tick_us).saturating_add(self.timer_late_us))
    }
}

impl<H: Host> Host for Late<H> {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        if self.lateness == Lateness::NONE {
            return self.host.receive(now_us, d);
        }
        if self.wake_us.is_none() {
            self.wake_us = Some(now_us + self.lateness.draw(&mut self.rng));
        }
        self.inbox.push(Datagram { bytes: std::mem::take(&mut d.bytes), ..*d });
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now_us);
        if !self.inbox.is_empty() && !is_due(self.wake_us) && !is_due(self.timer_us()) {
            return;
        }
        for mut d in self.inbox.drain(..) {
            self.host.receive(now_us, &mut d);
            out.pool.give(d.bytes);
        }
        self.wake_us = None;
        self.host.poll(now_us, out);
        self.timer_late_us = self.lateness.draw(&mut self.rng);
    }

    fn deadline(&self) -> Option<u64> {
        [self.wake_us, self.timer_us()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes when it was polled with how many datagrams; its timer is every ten milliseconds.
    #[derive(Default)]
    struct Clerk {
        arrived: usize,
        polls: Vec<(u64, usize)>,
        next_us: u64,
    }

    impl Host for Clerk {
        fn receive(&mut self, _: u64, _: &mut Datagram) {
            self.arrived += 1;
        }

        fn poll(&mut self, now_us: u64, _: &mut Outbox) {
            self.polls.push((now_us, std::mem::take(&mut self.arrived)));
            if self.next_us <= now_us {
                self.next_us = now_us + 10_300;
            }
        }

        fn deadline(&self) -> Option<u64> {
            Some(self.next_us)
        }
    }

    /// A second in which a datagram arrives each millisecond.
    fn second(lateness: Lateness, seed: u64) -> Vec<(u64, usize)> {
        let mut host = Late::new(Clerk::default(), lateness, seed);
        let mut out = Outbox::new(100);
        host.poll(0, &mut out);
        let address = "192.0.2.1:1".parse().unwrap();
        for us in 1..1_000_000u64 {
            if us % 1_000 == 0 {
                host.receive(us, &mut Datagram::new(address, address, vec![0; 10]));
                host.poll(us, &mut out);
            }
            if host.deadline().is_some_and(|at| at <= us) {
                host.poll(us, &mut out);
            }
        }
        host.host.polls
    }

    #[test]
    fn who_is_always_there_hears_of_each_datagram_at_once() {
        let polls = second(Lateness::NONE, 1);
        let heard: Vec<_> = polls.iter().filter(|p| p.1 > 0).collect();
        assert!(heard.len() == 999 && heard.iter().all(|p| p.0 % 1_000 == 0 && p.1 == 1));
    }

    #[test]
    fn who_is_late_hears_of_all_that_came_meanwhile() {
        let polls = second(Lateness::BUSY, 1);
        let count: usize = polls.iter().map(|p| p.1).sum();
        assert!((994..=999).contains(&count), "{count} datagrams");
        let most = polls.iter().map(|p| p.1).max();
        assert!((3..=6).contains(&most.unwrap()), "at most {most:?} at once");
        let lone = polls.iter().filter(|p| p.1 == 1).count();
        assert!(lone > 700, "{lone} alone");
        assert_eq!(polls, second(Lateness::BUSY, 1));
        assert_ne!(polls, second(Lateness::BUSY, 2));
    }

    #[test]
    fn timers_have_a_grain() {
        let grain = Lateness { tick_us: 1_000, ..Lateness::NONE };
        let timers: Vec<u64> = second(grain, 1).iter().map(|p| p.0).filter(|us| us % 1_000 != 0).collect();
        assert!(timers.is_empty(), "{timers:?}");
    }
}
