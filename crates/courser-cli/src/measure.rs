//! What a run cost: processor seconds, memory, and the percentiles of many small times.

use std::time::Instant;

use serde::Serialize;

/// Processor time of this process; zero where the system is not asked for it.
fn processor_seconds() -> f64 {
    #[cfg(unix)]
    {
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        clock.tv_sec as f64 + clock.tv_nsec as f64 / 1e9
    }
    #[cfg(not(unix))]
    0.0
}

/// Processor time and memory of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds in the program's own code.
    pub user_s: f64,
    /// Seconds in the kernel on the program's behalf.
    pub sys_s: f64,
    /// Most memory that was resident at once, in KiB; 0 where the system does not tell.
    pub peak_rss_kb: u64,
}

impl Usage {
    /// What this process used until now, over all its threads.
    ///
    /// The sum is exact to the microsecond. Its division between program and kernel comes from counts of 10 ms; where
    /// the system has none, everything counts as the program's.
    #[must_use]
    pub fn now() -> Self {
        let total = processor_seconds();
        let sys_share = std::fs::read_to_string("/proc/self/stat").ok().and_then(|s| sys_share(&s)).unwrap_or(0.0);
        Self {
            user_s: total * (1.0 - sys_share),
            sys_s: total * sys_share,
            peak_rss_kb: status_kb("/proc/self/status", "VmHWM:").unwrap_or(0),
        }
    }

    /// User and kernel seconds.
    #[must_use]
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.sys_s
    }

    /// The cost since `earlier`. The peak of memory is not a difference and stays.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        // The total never goes back, but a share that moved between the two looks could make one part negative.
        let total = (self.cpu_s() - earlier.cpu_s()).max(0.0);
        let sys_s = (self.sys_s - earlier.sys_s).clamp(0.0, total);
        Self { user_s: total - sys_s, sys_s, peak_rss_kb: self.peak_rss_kb }
    }
}

/// The kernel's part of the processor time in the text of `/proc/PID/stat`.
fn sys_share(stat: &str) -> Option<f64> {
    // The program's name is in parentheses and may hold anything; the fields are counted after the last one.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let sys: f64 = fields.next()?.parse().ok()?;
    if user + sys > 0.0 { Some(sys / (user + sys)) } else { None }
}

/// Resident memory of a process in KiB; `None` when it is gone or the system does not tell.
#[must_use]
pub fn rss_kb(pid: u32) -> Option<u64> {
    status_kb(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn status_kb(path: &str, key: &str) -> Option<u64> {
    field_kb(&std::fs::read_to_string(path).ok()?, key)
}

fn field_kb(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|l| l.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// A running measurement.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    start: Instant,
    base: Usage,
}

impl Meter {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), base: Usage::now() }
    }

    /// Seconds and usage since the start.
    #[must_use]
    pub fn stop(&self) -> (f64, Usage) {
        (self.start.elapsed().as_secs_f64(), Usage::now().since(&self.base))
    }
}

/// Gigabits per second; 0 for no time at all.
#[must_use]
pub fn gbps(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 * 8.0 / seconds / 1e9 } else { 0.0 }
}

/// Processor seconds per 10^9 bytes; 0 for no bytes.
#[must_use]
pub fn cpu_s_per_gb(usage: &Usage, bytes: u64) -> f64 {
    if bytes > 0 { usage.cpu_s() / (bytes as f64 / 1e9) } else { 0.0 }
}

/// Times of many transactions, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    ns: Vec<u64>,
}

/// What is told of them, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half are quicker.
    pub p50_us: f64,
    /// 99 % are quicker.
    pub p99_us: f64,
    /// 99.9 % are quicker.
    pub p999_us: f64,
}

impl Latencies {
    /// Room for so many without growing; at most a million are reserved ahead.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        Self { ns: Vec::with_capacity(n.min(1 << 20)) }
    }

    /// Notes one.
    pub fn push(&mut self, ns: u64) {
        self.ns.push(ns);
    }

    /// Takes over those of another.
    pub fn append(&mut self, other: &mut Self) {
        self.ns.append(&mut other.ns);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ns.is_empty()
    }

    /// Sorts and reads off.
    pub fn percentiles(&mut self) -> Percentiles {
        self.ns.sort_unstable();
        let at = |per_mille: usize| nearest_rank(&self.ns, per_mille) as f64 / 1000.0;
        Percentiles { p50_us: at(500), p99_us: at(990), p999_us: at(999) }
    }
}

/// The smallest value that at least `per_mille` thousandths of the sorted values do not exceed; 0 of nothing.
fn nearest_rank(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut l = Latencies::default();
        assert_eq!(l.percentiles(), Percentiles::default());
        (1..=1000).rev().for_each(|n| l.push(n * 1000));
        let p = l.percentiles();
        assert_eq!((p.p50_us, p.p99_us, p.p999_us), (500.0, 990.0, 999.0));
        let mut one = Latencies::with_capacity(1);
        one.push(1500);
        assert_eq!(one.percentiles(), Percentiles { p50_us: 1.5, p99_us: 1.5, p999_us: 1.5 });
        one.append(&mut l);
        assert_eq!((one.len(), l.is_empty()), (1001, true));
    }

    #[test]
    fn percentiles_agree_with_counting() {
        for n in [1usize, 2, 3, 7, 10, 99, 100, 101] {
            let sorted: Vec<u64> = (0..n as u64).map(|i| i * 3).collect();
            for per_mille in [1, 500, 990, 999, 1000] {
                let v = nearest_rank(&sorted, per_mille);
                let not_above = sorted.iter().filter(|x| **x <= v).count();
                assert!(not_above * 1000 >= n * per_mille);
                let below = sorted.iter().filter(|x| **x < v).count();
                assert!(below * 1000 < n * per_mille);
            }
        }
    }

    #[test]
    fn processor_time_grows_with_work() {
        let m = Meter::start();
        let mut x = 1u64;
        while m.stop().1.cpu_s() < 0.02 {
            for _ in 0..100_000 {
                x = std::hint::black_box(x.wrapping_mul(3));
            }
            assert!(m.stop().0 < 60.0, "a minute of work and no processor time");
        }
        let (wall, used) = m.stop();
        assert!(wall > 0.0 && used.user_s >= 0.0 && used.sys_s >= 0.0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_read_from_the_system() {
        assert!(Usage::now().peak_rss_kb > 100);
        assert!(rss_kb(std::process::id()).is_some_and(|kb| kb > 100));
        assert_eq!(rss_kb(u32::MAX), None);
    }

    #[test]
    fn the_system_files_are_read_by_their_fields() {
        assert_eq!(field_kb("Name:\tx\nVmHWM:\t  1234 kB\nVmRSS:\t 99 kB\n", "VmHWM:"), Some(1234));
        assert_eq!(field_kb("Name:\tx\n", "VmHWM:"), None);
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 30 10 0 0 20";
        assert_eq!(sys_share(stat), Some(0.25));
        assert_eq!(sys_share("12 (x) S 1 2 3 4 5 6 7 8 9 10 0 0"), None);
        assert_eq!(sys_share("nonsense"), None);
    }

    #[test]
    fn rates_of_nothing_are_zero() {
        assert_eq!(gbps(1_000_000_000, 8.0), 1.0);
        assert_eq!(gbps(1, 0.0), 0.0);
        let u = Usage { user_s: 1.0, sys_s: 0.5, peak_rss_kb: 0 };
        assert_eq!(cpu_s_per_gb(&u, 500_000_000), 3.0);
        assert_eq!(cpu_s_per_gb(&u, 0), 0.0);
    }
}
