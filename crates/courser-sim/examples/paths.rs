//! The forty paths, with the senders of `courser-core`: `cargo run --release --example paths -- [cubic|newreno|bbr|adaptive] [name…]`.

use courser_core::config::Congestion;
use courser_sim::paths;
use courser_sim::quic::race;

/// Median and 95th percentile of a fetch over twenty seeds.
fn times(path: &paths::Path, kind: Congestion) -> String {
    let mut all: Vec<f64> = (0..20).map(|seed| race::run(path, kind, seed).done_ms.unwrap_or(f64::INFINITY)).collect();
    all.sort_by(f64::total_cmp);
    format!("{:.0}/{:.0}", all[10], all[18])
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (kind, names) = match arguments.split_first() {
        Some((first, rest)) if first == "newreno" => (Congestion::NewReno, rest),
        Some((first, rest)) if first == "cubic" => (Congestion::Cubic, rest),
        Some((first, rest)) if first == "bbr" => (Congestion::Bbr, rest),
        Some((first, rest)) if first == "adaptive" => (Congestion::ADAPTIVE, rest),
        _ => (Congestion::Cubic, &arguments[..]),
    };
    println!(
        "{:26} {:>7} {:>7} {:>6} {:>8} {:>8} {:>6} {:>6} {:>9} {:>6} {:>6} {:>5}",
        "path", "goodput", "steady", "loss", "queue95", "rtt95", "need", "back", "p50/p95", "jain", "share", "ptos"
    );
    for path in paths::all().into_iter().filter(|p| names.is_empty() || names.iter().any(|n| p.name.starts_with(n))) {
        let f = race::run(&path, kind, 1);
        let done = if path.flows[0].bytes.is_some() { times(&path, kind) } else { String::new() };
        println!(
            "{:26} {:7.1} {:7.1} {:6.2} {:8.1} {:8.1} {:6.2} {:6.1} {:>9} {:6.2} {:6.1} {:5} {}",
            path.name,
            f.goodput,
            f.steady,
            f.loss,
            f.queue_p95_ms,
            f.rtt_p95_ms,
            f.needless,
            f.back,
            done,
            f.jain,
            f.share,
            f.ptos,
            if f.wrong.is_empty() { String::new() } else { format!(" WRONG {:?}", &f.wrong[..f.wrong.len().min(2)]) },
        );
    }
}
