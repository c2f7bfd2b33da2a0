//! Times in which a link swallows everything that enters it. What is already on its way still arrives.

/// A set of time windows, in microseconds of virtual time; each includes its start and excludes its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Each `(from_us, to_us)`; they may overlap and need no order.
    list: Vec<(u64, u64)>,
}

impl Windows {
    /// No window.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Adds the window from `from_us` until `to_us`.
    #[must_use]
    pub fn with(mut self, from_us: u64, to_us: u64) -> Self {
        self.list.push((from_us, to_us));
        self
    }

    /// Adds `times` windows: the link works for `alive_us`, is dead for `dead_us`, and so on.
    #[must_use]
    pub fn with_cycle(mut self, alive_us: u64, dead_us: u64, times: u32) -> Self {
        let mut from = alive_us;
        for _ in 0..times {
            let to = from.saturating_add(dead_us);
            self.list.push((from, to));
            from = to.saturating_add(alive_us);
        }
        self
    }

    /// True if `now_us` lies inside a window.
    #[must_use]
    pub fn contains(&self, now_us: u64) -> bool {
        self.list.iter().any(|&(from, to)| from <= now_us && now_us < to)
    }

    /// True if there is no window at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_includes_its_start_and_excludes_its_end() {
        let w = Windows::new().with(10, 20).with(15, 30);
        let inside: Vec<u64> = (0..40).filter(|&t| w.contains(t)).collect();
        assert_eq!(inside, (10..30).collect::<Vec<_>>());
        assert!(Windows::new().is_empty() && !w.is_empty());
    }

    #[test]
    fn a_cycle_repeats_and_then_stops() {
        let w = Windows::new().with_cycle(100, 10, 2);
        assert!(!w.contains(99) && w.contains(100) && w.contains(109) && !w.contains(110));
        assert!(w.contains(210) && !w.contains(220) && !w.contains(320));
    }
}
