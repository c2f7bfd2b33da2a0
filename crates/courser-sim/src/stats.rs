//! What a link counted, and a small histogram for waits.

/// Why a link did not deliver a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A tap or script said so.
    Tap,
    /// It entered inside a blackhole window or while the link was dead.
    Blackhole,
    /// Its payload was larger than the MTU hole lets through.
    Mtu,
    /// The path drops ECN-capable datagrams.
    Ecn,
    /// A loss model hit it.
    Loss,
    /// The policer had no tokens.
    Policer,
    /// The queue was full.
    QueueFull,
    /// CoDel dropped it from the head of the queue.
    Codel,
    /// The link held as many datagrams as the simulation allows.
    Limit,
}

impl Cause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Tap,
        Self::Blackhole,
        Self::Mtu,
        Self::Ecn,
        Self::Loss,
        Self::Policer,
        Self::QueueFull,
        Self::Codel,
        Self::Limit,
    ];
}

/// Counters of one link. At any time `sent + injected + duplicated = delivered + dropped() + in flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams handed to the link by its sender.
    pub sent: u64,
    /// Their payload bytes.
    pub sent_bytes: u64,
    /// Datagrams that a tap added.
    pub injected: u64,
    /// Copies made by the duplicate node.
    pub duplicated: u64,
    /// Datagrams that left the link.
    pub delivered: u64,
    /// Their payload bytes.
    pub delivered_bytes: u64,
    /// Datagrams dropped, by [`Cause`] number.
    pub dropped_by: [u64; Cause::ALL.len()],
    /// Datagrams damaged.
    pub corrupted: u64,
    /// Datagrams held back by the reorder node.
    pub held_back: u64,
    /// Datagrams marked CE, by the queue or by the path.
    pub marked: u64,
    /// Datagrams whose ECN field was cleared.
    pub bleached: u64,
    /// Most bytes on the wire that waited at once.
    pub queue_bytes_max: u64,
    /// Most datagrams that waited at once.
    pub queue_datagrams_max: usize,
    /// Waits in the queue, in microseconds, of datagrams that reached the serialiser.
    pub waits_us: Histogram,
}

impl LinkStats {
    /// Datagrams dropped for one cause.
    #[must_use]
    pub const fn dropped_for(&self, cause: Cause) -> u64 {
        self.dropped_by[cause as usize]
    }

    /// Datagrams dropped for any cause.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_by.iter().sum()
    }

    /// Datagrams that are neither delivered nor dropped yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let entered = self.sent + self.injected + self.duplicated;
        entered - self.delivered - self.dropped()
    }
}

/// Counts of values in buckets that are at most 1/16 of the value wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// Values below this have a bucket each; above, each power of two is cut in so many buckets.
const FINE: u64 = 16;

impl Histogram {
    fn bucket(value: u64) -> usize {
        if value < FINE {
            return value as usize;
        }
        let shift = value.ilog2() - FINE.ilog2();
        (u64::from(shift) * FINE + (value >> shift)) as usize
    }

    /// The largest value of a bucket.
    fn upper(bucket: usize) -> u64 {
        let b = bucket as u64;
        if b < 2 * FINE {
            return b;
        }
        let shift = b / FINE - 1;
        let low = u128::from(b % FINE + FINE + 1) << shift;
        u64::try_from(low - 1).unwrap_or(u64::MAX)
    }

    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let b = Self::bucket(value);
        if b >= self.counts.len() {
            self.counts.resize(b + 1, 0);
        }
        self.counts[b] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Values counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The largest value, exactly.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// A value that at least the share `q` of all values does not exceed; up to 1/16 too high. Zero when empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = ((self.total as f64 * q).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (b, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Self::upper(b).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_numbered_as_listed() {
        for (i, c) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(c as usize, i);
        }
    }

    #[test]
    fn buckets_are_narrow_and_without_gaps() {
        let mut last = 0;
        for v in (0..5_000).chain([1 << 20, (1 << 40) + 12345, u64::MAX - 1, u64::MAX]) {
            let b = Histogram::bucket(v);
            assert!(b == last || b == last + 1 || v > 5_000, "{v}");
            last = b;
            let upper = Histogram::upper(b);
            assert!(upper >= v && (upper - v) <= v / 16, "{v} in bucket up to {upper}");
        }
    }

    #[test]
    fn quantiles_are_near_the_true_ones() {
        let mut h = Histogram::default();
        assert_eq!(h.quantile(0.5), 0);
        (1..=1_000).for_each(|v| h.add(v));
        assert_eq!((h.count(), h.max(), h.quantile(1.0)), (1_000, 1_000, 1_000));
        assert!((500..=532).contains(&h.quantile(0.5)), "{}", h.quantile(0.5));
        assert!((950..=1_000).contains(&h.quantile(0.95)));
        assert_eq!(h.quantile(0.0), 1);
    }
}
