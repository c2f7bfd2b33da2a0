//! NewReno as in RFC 9002 section 7: double per round until the threshold, then one datagram per round; half on
//! congestion.

use super::{Growth, initial_window, min_window};
use crate::time::Instant;

/// The controller's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewReno {
    window: u64,
    ssthresh: u64,
    /// Bytes acknowledged in congestion avoidance that did not yet open the window.
    acked: u64,
    mtu: u16,
}

impl NewReno {
    pub fn new(mtu: u16) -> Self {
        Self { window: initial_window(mtu), ssthresh: u64::MAX, acked: 0, mtu }
    }

    pub fn on_acked(&mut self, g: &Growth) {
        if !g.may_grow {
            return;
        }
        let mut bytes = g.bytes;
        if self.in_slow_start() {
            // What is acknowledged beyond the threshold counts for congestion avoidance.
            let step = bytes.min(self.ssthresh - self.window);
            self.window += step;
            bytes -= step;
        }
        //= rfc9002#7.3.3-1
        self.acked += bytes;
        while self.acked >= self.window {
            self.acked -= self.window;
            self.window += u64::from(self.mtu);
        }
    }

    //= rfc9002#7.3.2-1, rfc9002#7.3.2-2
    pub fn on_congestion(&mut self, _now: Instant) {
        self.ssthresh = (self.window / 2).max(min_window(self.mtu));
        self.window = self.ssthresh;
        self.acked = 0;
    }

    pub fn on_persistent(&mut self, _now: Instant) {
        self.window = min_window(self.mtu);
        self.acked = 0;
    }

    pub fn on_idle_end(&mut self, _now: Instant) {}

    /// Halves the window for each period, down to the initial one, and remembers where it was.
    pub fn on_long_idle(&mut self, periods: u32) {
        let floor = initial_window(self.mtu).min(self.window);
        self.ssthresh = self.ssthresh.max(self.window / 4 * 3);
        self.window = self.window.checked_shr(periods).unwrap_or(0).max(floor);
    }

    pub fn undo(&mut self, saved: &Self) {
        if self.window < saved.window {
            *self = Self { mtu: self.mtu, ..*saved };
        }
    }

    pub fn set_mtu(&mut self, mtu: u16, untouched: bool) {
        self.mtu = mtu;
        if untouched {
            self.window = self.window.min(initial_window(mtu));
        }
    }

    pub const fn window(&self) -> u64 {
        self.window
    }

    pub const fn ssthresh(&self) -> u64 {
        self.ssthresh
    }

    pub const fn in_slow_start(&self) -> bool {
        self.window < self.ssthresh
    }
}
