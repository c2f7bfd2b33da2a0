//! Paths that nobody chose: drawn from a seed, to see whether a controller only knows the forty it was made on.

use crate::config::{Duplex, LinkConfig};
use crate::late::Lateness;
use crate::node::{bunch::Bunch, policer::Policer};
use crate::paths::{Flow, Path, Sender};
use crate::rng::Rng;

/// What was drawn, in a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The path.
    pub path: Path,
    /// Its parameters, for people.
    pub text: String,
}

/// The path of a number under a seed: 1 to 500 Mbit/s and 2 to 600 ms, evenly over their logarithms, a queue of 0.1 to 10
/// bandwidth-delay products; one in three loses up to 3 %, one in six each has jitter, reordering, bunched release or a
/// policer of a third of the rate.
#[must_use]
pub fn draw(seed: u64, n: u64) -> Drawn {
    let mut rng = Rng::new(seed.wrapping_mul(1_000_003).wrapping_add(n));
    let mut unit = || rng.range(0..=1_000_000) as f64 / 1e6;
    let between = |low: f64, high: f64, at: f64| (low.ln() + (high.ln() - low.ln()) * at).exp();
    let (mbit, rtt_ms, bdps) = (between(1.0, 500.0, unit()), between(2.0, 600.0, unit()), between(0.1, 10.0, unit()));
    let bits_per_s = (mbit * 1e6) as u64;
    let rtt_us = (rtt_ms * 1e3) as u64;
    let queue = ((mbit * 125.0 * rtt_ms * bdps) as u64).max(6_000);
    let mut down = LinkConfig::new().rate(bits_per_s).queue_bytes(queue).delay_us(rtt_us / 2);
    let mut up = LinkConfig::new().delay_us(rtt_us / 2);
    let mut text = format!("{mbit:.1} Mbit/s, {rtt_ms:.1} ms, {bdps:.2} BDP");
    if unit() < 1.0 / 3.0 {
        let loss = unit() * 0.03;
        down = down.loss(loss);
        text += &format!(", {:.1} % lost", loss * 100.0);
    }
    let (kind, strength) = (unit(), unit());
    match (kind * 6.0) as u32 {
        0 => {
            let us = ((rtt_us as f64 * strength / 2.0) as u64).min(20_000);
            down = down.jitter(us, true);
            text += &format!(", jitter of {:.1} ms", us as f64 / 1e3);
        }
        1 => {
            let us = (rtt_us as f64 * strength / 2.0) as u64;
            down = down.reorder(0.02, us);
            text += &format!(", 2 % held back {:.1} ms", us as f64 / 1e3);
        }
        2 => {
            let us = 2_000 + (strength * 8_000.0) as u64;
            down.bunch = Some(Bunch { min_us: us / 2, max_us: us });
            up.bunch = Some(Bunch { min_us: us / 4, max_us: us / 2 });
            text += &format!(", bunches each {:.1} ms", us as f64 / 1e3);
        }
        3 => {
            let burst = (mbit * 125.0 * (2.0 + strength * 100.0)) as u64;
            down.policer = Some(Policer { bits_per_s: bits_per_s / 3, burst_bytes: (burst / 3).max(15_000) });
            text += ", policed to a third";
        }
        _ => {}
    }
    let path = Path {
        name: "drawn",
        bottleneck: Duplex::new(up, down),
        flows: vec![Flow { sender: Sender::Subject, start_us: 0, access_delay_us: 0, bytes: None }],
        // Short enough for many, long enough for some dozens of round trips.
        duration_us: (rtt_us * 60).clamp(8_000_000, 20_000_000),
        judge_from_us: 0,
        lateness: Lateness::NONE,
    };
    Drawn { path, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_paths_and_others_draw_others() {
        assert_eq!(draw(1, 7), draw(1, 7));
        assert_ne!(draw(1, 7), draw(1, 8));
        assert_ne!(draw(1, 7), draw(2, 7));
    }

    #[test]
    fn drawn_paths_cover_their_ranges() {
        let all: Vec<Drawn> = (0..300).map(|n| draw(3, n)).collect();
        for word in ["lost", "jitter", "held back", "bunches", "policed"] {
            let count = all.iter().filter(|d| d.text.contains(word)).count();
            assert!((20..150).contains(&count), "{count} with {word}");
        }
        let rtts: Vec<u64> = all.iter().map(|d| 2 * d.path.bottleneck.down.delay_us).collect();
        assert!(rtts.iter().all(|us| (1_900..=600_000).contains(us)));
        assert!(rtts.iter().any(|us| *us < 5_000) && rtts.iter().any(|us| *us > 300_000));
    }
}
