//! The search for the largest datagram that passes (DPLPMTUD, RFC 8899 as profiled by RFC 9000 section 14.3).
//!
//! The search asks for the upper end first, since that is what most paths take, and then halves the interval. A size
//! counts as refused after three lost probes. While the search runs, data flows in datagrams of the size that is known to
//! pass, so it never stalls on a probe. A window that is small for the next size makes the search go up in smaller steps. A
//! black hole, that is, full-sized datagrams that all vanish while smaller ones
//! pass, brings the size down to the base; the search starts again later.

use core::time::Duration;

use crate::config::MIN_DATAGRAM;
use crate::time::Instant;

/// Lost probes of one size before the size counts as refused (RFC 8899 section 5.1.2, MAX_PROBES).
const PROBES_MAX: u8 = 3;
/// The search ends when the interval is at most this wide.
const CLOSE_ENOUGH: u16 = 20;
/// A step that the window cuts short raises the size by this part of it at least.
const STEP_MIN: u16 = 4;
/// After a search that ended below the upper end, or a black hole, the next one starts after this time.
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// Lost full-sized datagrams in a row that make a black hole.
const BLACK_HOLE: u8 = 6;

/// A probe to be sent: a datagram of exactly this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// UDP payload in bytes.
    pub size: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to search for.
    Off,
    /// `size` is being asked for; `lost` probes of it are gone, `in_flight` tells whether one is on its way.
    Searching { size: u16, lost: u8, in_flight: bool },
    /// Done until then.
    Complete { again: Instant },
}

/// Datagram size of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pmtud {
    /// Known to pass.
    current: u16,
    /// Assumed to pass always.
    base: u16,
    /// Not worth asking beyond: our setting, the peer's limit, or what the path refused.
    upper: u16,
    /// Our setting and the peer's limit alone; where a new search may go.
    ceiling: u16,
    /// Lost full-sized datagrams since the last one that passed.
    lost_full: u8,
    state: State,
}

impl Pmtud {
    /// Starts with `initial` bytes; searches up to `max` when `search` says so, once [`start`](Self::start) is called.
    #[must_use]
    pub fn new(initial: u16, max: u16) -> Self {
        debug_assert!(initial >= MIN_DATAGRAM);
        let max = max.max(initial);
        Self { current: initial, base: MIN_DATAGRAM, upper: max, ceiling: max, lost_full: 0, state: State::Off }
    }

    /// The same for a path between the same hosts with another port: what passed there passes here, and the search goes on
    /// where it was, without the probe that is on its way there.
    #[must_use]
    pub fn carried_over(&self) -> Self {
        let state = match self.state {
            State::Searching { size, lost, .. } => State::Searching { size, lost, in_flight: false },
            other => other,
        };
        Self { state, lost_full: 0, ..*self }
    }

    /// Takes over what the peer said that it takes, for another path of the same connection.
    pub fn limit_like(&mut self, other: &Self) {
        self.ceiling = self.ceiling.min(other.ceiling);
        self.upper = self.upper.min(self.ceiling);
        self.current = self.current.min(self.ceiling);
    }

    /// Largest datagram for data now.
    #[must_use]
    pub fn current(&self) -> u16 {
        self.current
    }

    /// The peer takes no datagram above this.
    pub fn set_peer_max(&mut self, max: u64) {
        let max = u16::try_from(max).unwrap_or(u16::MAX).max(MIN_DATAGRAM);
        self.ceiling = self.ceiling.min(max);
        self.upper = self.upper.min(max);
        self.current = self.current.min(max);
    }

    /// Begins to search; called when the handshake is confirmed.
    pub fn start(&mut self) {
        if self.state == State::Off && self.upper > self.current {
            self.state = State::Searching { size: self.upper, lost: 0, in_flight: false };
        }
    }

    /// The probe that should be sent now, if any.
    pub fn poll(&mut self, now: Instant) -> Option<Probe> {
        if let State::Complete { again } = self.state
            && now >= again
            && self.ceiling > self.current
        {
            self.upper = self.ceiling;
            self.state = State::Searching { size: self.upper, lost: 0, in_flight: false };
        }
        match self.state {
            //= rfc8899#8-1
            State::Searching { size, in_flight: false, .. } => Some(Probe { size }),
            _ => None,
        }
    }

    /// The probe that should be sent now, when none may be larger than `most`: a smaller one than the search would have, if
    /// it is worth sending.
    pub fn poll_within(&mut self, now: Instant, most: u16) -> Option<Probe> {
        let probe = self.poll(now)?;
        if probe.size <= most {
            return Some(probe);
        }
        let worth = self.current.saturating_add(self.current / STEP_MIN);
        (most >= worth).then_some(Probe { size: most })
    }

    /// A probe was handed to the network.
    pub fn on_probe_sent(&mut self, size: u16) {
        if let State::Searching { size: asked, lost, in_flight } = &mut self.state {
            if *asked != size {
                (*asked, *lost) = (size, 0);
            }
            *in_flight = true;
        }
    }

    /// A probe arrived. Returns whether the size for data changed.
    pub fn on_probe_acked(&mut self, now: Instant, size: u16) -> bool {
        let grown = size > self.current && size <= self.ceiling;
        if grown {
            self.current = size;
            self.lost_full = 0;
        }
        if grown && size > self.upper {
            // It counted as refused because its probes were late: the path takes more than was thought.
            self.upper = self.ceiling;
            self.next(now);
        } else if matches!(self.state, State::Searching { .. }) {
            self.next(now);
        }
        grown
    }

    /// A probe was lost, or the local network refused its size (`refused`: no need to ask again).
    pub fn on_probe_lost(&mut self, now: Instant, size: u16, refused: bool) {
        let State::Searching { size: asked, lost, in_flight } = &mut self.state else { return };
        if *asked != size {
            return;
        }
        *in_flight = false;
        *lost += 1;
        //= rfc8899#3-7
        if refused || *lost >= PROBES_MAX {
            self.upper = size - 1;
            self.next(now);
        }
    }

    /// A datagram with data arrived.
    pub fn on_acked(&mut self, size: u16) {
        if size > self.base {
            self.lost_full = 0;
        }
    }

    /// A datagram with data was lost, or the local network refused its size. Returns whether the size for data changed:
    /// the path has a black hole.
    pub fn on_lost(&mut self, now: Instant, size: u16, refused: bool) -> bool {
        if size <= self.base || self.current <= self.base {
            return false;
        }
        //= rfc8899#4.3-1
        self.lost_full = if refused { BLACK_HOLE } else { self.lost_full.saturating_add(1) };
        if self.lost_full < BLACK_HOLE {
            return false;
        }
        self.lost_full = 0;
        self.upper = self.current.saturating_sub(1).max(self.base);
        self.current = self.base;
        self.state = State::Off;
        self.start();
        if self.state == State::Off {
            self.state = State::Complete { again: now + RAISE_AFTER };
        }
        true
    }

    /// Probe timeouts followed each other: perhaps full-sized datagrams vanish, perhaps everything does. Data flows in
    /// datagrams of the base size, and the search starts again with the size that passed before. Returns whether the size
    /// for data changed.
    pub fn on_timeouts(&mut self) -> bool {
        if self.current <= self.base {
            return false;
        }
        self.upper = self.current;
        self.current = self.base;
        self.lost_full = 0;
        self.state = State::Searching { size: self.upper, lost: 0, in_flight: false };
        true
    }

    /// Whether the search is over for now.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !matches!(self.state, State::Searching { .. })
    }

    fn next(&mut self, now: Instant) {
        let gap = self.upper.saturating_sub(self.current);
        self.state = if gap <= CLOSE_ENOUGH {
            State::Complete { again: now + RAISE_AFTER }
        } else {
            let size = if self.upper == self.ceiling { self.upper } else { self.current + gap.div_ceil(2) };
            State::Searching { size, lost: 0, in_flight: false }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_was_refused_because_its_probes_were_late_is_searched_beyond() {
        let mut p = Pmtud::new(1200, 9000);
        p.start();
        let now = Instant::ZERO;
        for _ in 0..2 * PROBES_MAX {
            let size = p.poll(now).unwrap().size;
            p.on_probe_sent(size);
            p.on_probe_lost(now, size, false);
        }
        let late = 5100;
        assert!(p.poll(now).unwrap().size < late, "9,000 and 5,100 are refused");
        assert!(p.on_probe_acked(now, late) && p.current() == late);
        let found = search(&mut p, 7000).0;
        assert!((6980..=7000).contains(&found), "{found}");
        // The same when the search is over.
        assert!(p.is_complete() && p.on_probe_acked(now, 8000));
        assert!(search(&mut p, 9000).0 == 9000);
    }

    #[test]
    fn after_timeouts_the_size_that_passed_before_is_asked_for_first() {
        let mut p = Pmtud::new(1200, 1472);
        p.start();
        assert_eq!(search(&mut p, 1472).0, 1472);
        assert!(p.on_timeouts() && !p.on_timeouts());
        assert_eq!(p.current(), 1200);
        let mut outage = p;
        assert_eq!(search(&mut outage, 1472), (1472, 1));
        let found = search(&mut p, 1300).0;
        assert!((1280..=1300).contains(&found), "{found}");
    }

    /// Runs the search over a path that takes at most `limit`; returns the size found and the probes used.
    fn search(p: &mut Pmtud, limit: u16) -> (u16, u32) {
        let now = Instant::ZERO;
        let mut probes = 0;
        while let Some(probe) = p.poll(now) {
            probes += 1;
            p.on_probe_sent(probe.size);
            assert_eq!(p.poll(now), None, "one probe at a time");
            if probe.size <= limit {
                p.on_probe_acked(now, probe.size);
            } else {
                p.on_probe_lost(now, probe.size, false);
            }
            assert!(probes < 100);
        }
        (p.current(), probes)
    }

    #[test]
    fn the_upper_end_is_asked_first() {
        let mut p = Pmtud::new(1200, 1472);
        assert_eq!(p.poll(Instant::ZERO), None, "not before it is started");
        p.start();
        assert_eq!(search(&mut p, 9000), (1472, 1));
    }

    #[test]
    fn every_limit_is_found_closely() {
        for limit in 1200..=1472 {
            let mut p = Pmtud::new(1200, 1472);
            p.start();
            let (found, probes) = search(&mut p, limit);
            assert!(found <= limit && limit - found <= CLOSE_ENOUGH, "{found} for {limit}");
            assert!(probes <= 20);
        }
    }

    #[test]
    fn a_black_hole_brings_the_size_down_and_the_search_goes_on_below() {
        let now = Instant::ZERO;
        let mut p = Pmtud::new(1200, 1472);
        p.start();
        search(&mut p, 1472);
        for _ in 0..BLACK_HOLE - 1 {
            assert!(!p.on_lost(now, 1472, false));
        }
        // A full-sized one that passes says that it was ordinary loss.
        p.on_acked(1472);
        for i in 0..BLACK_HOLE {
            assert_eq!(p.on_lost(now, 1472, false), i == BLACK_HOLE - 1);
        }
        assert_eq!(p.current(), 1200);
        let (found, _) = search(&mut p, 1300);
        assert!((1280..=1300).contains(&found), "{found}");
        // Later the path may have become better.
        assert_eq!(p.poll(now + Duration::from_secs(601)), Some(Probe { size: 1472 }));
    }

    #[test]
    fn small_losses_are_no_black_hole() {
        let mut p = Pmtud::new(1200, 1472);
        for _ in 0..100 {
            assert!(!p.on_lost(Instant::ZERO, 1200, false));
        }
        assert_eq!(p.current(), 1200);
    }

    #[test]
    fn the_peers_limit_holds() {
        let mut p = Pmtud::new(1472, 1472);
        p.set_peer_max(1250);
        p.start();
        assert_eq!((p.current(), p.poll(Instant::ZERO)), (1250, None));
        p.set_peer_max(3);
        assert_eq!(p.current(), 1200);
    }

    #[test]
    fn a_small_window_makes_smaller_steps() {
        let now = Instant::ZERO;
        let mut p = Pmtud::new(1200, 8952);
        p.start();
        assert_eq!(p.poll_within(now, 1499), None, "not worth a probe");
        let mut asked = Vec::new();
        for most in [3000, 3100, 6000, 20_000] {
            let Some(probe) = p.poll_within(now, most) else { continue };
            asked.push(probe.size);
            p.on_probe_sent(probe.size);
            assert_eq!(p.poll_within(now, most), None, "one probe at a time");
            assert!(p.on_probe_acked(now, probe.size));
        }
        assert_eq!((asked, p.current()), (vec![3000, 6000, 8952], 8952));
        // A step that does not pass is the upper end from then on.
        let mut p = Pmtud::new(1200, 8952);
        p.start();
        for _ in 0..PROBES_MAX {
            let probe = p.poll_within(now, 4000).unwrap();
            p.on_probe_sent(probe.size);
            p.on_probe_lost(now, probe.size, false);
        }
        let (found, _) = search(&mut p, 3500);
        assert!((3480..=3500).contains(&found), "{found}");
    }

    #[test]
    fn a_refused_probe_is_not_repeated() {
        let mut p = Pmtud::new(1200, 1472);
        p.start();
        p.on_probe_sent(1472);
        p.on_probe_lost(Instant::ZERO, 1472, true);
        assert_ne!(p.poll(Instant::ZERO), Some(Probe { size: 1472 }));
    }
}
