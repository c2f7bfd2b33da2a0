//! CUBIC or BBR, whichever suits the round trip (seed: adaptive congestion control).
//!
//! Within a data centre a round trip is shorter than what timers, batches and offloads add to it, so that a model of delivery
//! rates and smallest round trips sees mostly its own machine; CUBIC does not look. Over longer ways BBR keeps queues short
//! and does not mistake every loss for congestion. Until the first sample of the round trip both run side by side, CUBIC's
//! window counts, and both hear of everything: the one that is chosen goes on with what it has seen.

use core::time::Duration;

use super::bbr::Bbr;
use super::cubic::Cubic;
use super::{Controller, Growth};
use crate::time::Instant;

/// Both, while the round trip is unknown.
#[derive(Clone, Debug)]
pub(crate) struct Adaptive {
    pub cubic: Cubic,
    pub bbr: Bbr,
    /// Round trips from here on are for BBR.
    bbr_from: Duration,
}

impl Adaptive {
    pub fn new(bbr_from: Duration, mtu: u16, now: Instant) -> Self {
        Self { cubic: Cubic::new(mtu), bbr: Bbr::new(mtu, now, 0), bbr_from }
    }

    /// The one that goes on alone.
    pub(super) fn choose(&self, rtt: Duration) -> Controller {
        if rtt < self.bbr_from { Controller::Cubic(self.cubic) } else { Controller::Bbr(Box::new(self.bbr.clone())) }
    }

    pub fn on_acked(&mut self, g: &Growth) {
        self.cubic.on_acked(g);
        self.bbr.on_acked(g);
    }

    pub fn on_congestion(&mut self, now: Instant) {
        self.cubic.on_congestion(now);
    }

    pub fn on_persistent(&mut self, now: Instant) {
        self.cubic.on_persistent(now);
        self.bbr.on_persistent(now);
    }

    pub fn on_idle_end(&mut self, now: Instant) {
        self.cubic.on_idle_end(now);
        self.bbr.on_idle_end(now);
    }

    pub fn on_long_idle(&mut self, periods: u32) {
        self.cubic.on_long_idle(periods);
        self.bbr.on_long_idle(periods);
    }

    pub fn set_mtu(&mut self, mtu: u16, untouched: bool) {
        self.cubic.set_mtu(mtu, untouched);
        self.bbr.set_mtu(mtu, untouched);
    }

    pub fn window(&self) -> u64 {
        self.cubic.window()
    }

    pub fn ssthresh(&self) -> u64 {
        self.cubic.ssthresh()
    }

    pub fn in_slow_start(&self) -> bool {
        self.cubic.in_slow_start()
    }
}
