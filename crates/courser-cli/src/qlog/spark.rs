//! Amounts over time in a fixed number of intervals, and as a line of blocks.

/// Intervals that are kept; when time goes beyond the last, pairs are joined.
const INTERVALS: usize = 128;
/// Blocks of a line, at most.
const WIDTH: usize = 48;

/// Amounts over time.
#[derive(Clone, Debug)]
pub struct Series {
    /// Milliseconds of an interval.
    step: f64,
    sums: Vec<u64>,
}

impl Default for Series {
    fn default() -> Self {
        Self { step: 1.0, sums: Vec::new() }
    }
}

impl Series {
    /// Adds an amount at a time. Times that no interval can hold are left out.
    pub fn add(&mut self, ms: f64, amount: u64) {
        if !(0.0..1e15).contains(&ms) {
            return;
        }
        while ms / self.step >= INTERVALS as f64 {
            self.step *= 2.0;
            self.sums = self.sums.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        let at = (ms / self.step) as usize;
        if self.sums.len() <= at {
            self.sums.resize(at + 1, 0);
        }
        self.sums[at] = self.sums[at].saturating_add(amount);
    }

    /// Joined so that a line has room for all of them: milliseconds of an interval, and the sums.
    #[must_use]
    pub fn intervals(&self) -> (f64, Vec<u64>) {
        let join = self.sums.len().div_ceil(WIDTH).max(1);
        (self.step * join as f64, self.sums.chunks(join).map(|part| part.iter().sum()).collect())
    }

    /// The line: an empty interval is a space, the largest a full block.
    #[must_use]
    pub fn line(&self) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let (_, sums) = self.intervals();
        let most = sums.iter().copied().max().unwrap_or(0).max(1) as f64;
        let block =
            |n: u64| if n == 0 { ' ' } else { BLOCKS[((n as f64 / most * 8.0).ceil() as usize).clamp(1, 8) - 1] };
        sums.into_iter().map(block).collect()
    }

    /// The largest amount in an interval, per second.
    #[must_use]
    pub fn peak_per_s(&self) -> f64 {
        let (step, sums) = self.intervals();
        sums.into_iter().max().unwrap_or(0) as f64 / step * 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_become_coarser_and_lose_nothing() {
        let mut s = Series::default();
        for ms in 0..100_000 {
            s.add(f64::from(ms), 3);
        }
        let (step, sums) = s.intervals();
        assert_eq!(sums.iter().sum::<u64>(), 300_000);
        assert!(sums.len() <= WIDTH && step * sums.len() as f64 >= 100_000.0, "{step} {}", sums.len());
        s.add(f64::NAN, 1);
        s.add(-1.0, 1);
        assert_eq!(s.intervals().1.iter().sum::<u64>(), 300_000);
    }

    #[test]
    fn the_line_shows_pauses_and_peaks() {
        let mut s = Series::default();
        for (ms, n) in [(0, 1), (1, 8), (3, 4)] {
            s.add(f64::from(ms), n);
        }
        assert_eq!(s.line(), "▁█ ▄");
        assert_eq!(s.peak_per_s(), 8000.0);
        assert_eq!(Series::default().line(), "");
    }
}
