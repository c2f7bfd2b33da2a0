//! The forty paths, with the senders of `courser-core`:
//! `cargo run --release --example paths -- [cubic|newreno|bbr|adaptive] [--late] [--no-ids|--long-ids] [name…]`; `--late`: with
//! hosts that are woken late and whose timers have a grain, as on a busy machine; `--no-ids`, `--long-ids`: with clients that have
//! no connection IDs, or such of eight bytes; `--goals [--seeds=N]`: the medians that goals are judged by instead of one seed. Other modes:
//! `bbr --random SEED COUNT` draws paths that nobody chose and lists the weakest; `--ablation [SEEDS]` runs BBR without each
//! of its departures from the draft.

use courser_core::config::Congestion;
use courser_sim::draw::{Drawn, draw};
use courser_sim::late::Lateness;
use courser_sim::paths;
use courser_sim::quic::goals::{self, Figure, Runs};
use courser_sim::quic::race::{self, ClientIds, Figures};

/// BBR's departures, in the order of their bits (see decision D83).
const DEPARTURES: [&str; 11] = [
    "margin only while a queue is seen",
    "a queue slows and ends Startup",
    "Up goes on while the rate grows",
    "losses at any rate are put up with",
    "a round trip seen again needs no ProbeRTT",
    "cruising leans on the path",
    "a budget of losses",
    "headroom is not taken from the BDP",
    "a rate that falls is followed",
    "a probe begins where cruising was",
    "the first flights are paced by the window",
];

/// Median and 95th percentile of a fetch over twenty seeds.
fn times(path: &paths::Path, kind: Congestion, ids: ClientIds) -> String {
    let mut all: Vec<f64> =
        (0..20).map(|seed| race::run_with(path, kind, seed, ids).done_ms.unwrap_or(f64::INFINITY)).collect();
    all.sort_by(f64::total_cmp);
    format!("{:.0}/{:.0}", all[10], all[18])
}

fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

fn random(kind: Congestion, seed: u64, count: u64) {
    let mut all: Vec<(f64, Drawn, Figures)> = (0..count)
        .map(|n| {
            let drawn = draw(seed, n);
            let figures = race::run(&drawn.path, kind, seed);
            (figures.steady, drawn, figures)
        })
        .collect();
    let line = |name: &str, of: &dyn Fn(&(f64, Drawn, Figures)) -> f64| {
        let values: Vec<f64> = all.iter().map(of).collect();
        let q = |percent| quantile(values.clone(), percent);
        println!("{name:34} {:8.2} {:8.2} {:8.2} {:8.2} {:8.2}", q(5), q(10), q(50), q(90), q(95));
    };
    println!(
        "{:34} {:>8} {:>8} {:>8} {:>8} {:>8}",
        format!("{count} paths of seed {seed}"),
        "5 %",
        "10 %",
        "median",
        "90 %",
        "95 %"
    );
    line("steady, % of what it can carry", &|a| a.0);
    line("goodput, % of what it can carry", &|a| a.2.goodput);
    line("lost, %", &|a| a.2.loss);
    line("queue p95, round trips", &|a| a.2.queue_p95_ms * 500.0 / a.1.path.bottleneck.down.delay_us as f64);
    println!("wrong: {}", all.iter().filter(|a| !a.2.wrong.is_empty()).count());
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (steady, drawn, f) in all.iter().take(10) {
        println!("{steady:6.1} % lost {:5.2} % queue {:6.1} ms  {}", f.loss, f.queue_p95_ms, drawn.text);
    }
}

/// Goals of BBR that are missed, by runs of each path with some seeds, and the paths concerned.
fn missed(kind: Congestion, seeds: u64) -> (usize, String) {
    let (mut count, mut names) = (0, Vec::new());
    for path in paths::all().into_iter().filter(|p| p.flows[0].bytes.is_none()) {
        let runs = Runs { all: (1..=seeds).map(|seed| race::run(&path, kind, seed)).collect() };
        for goal in goals::all().iter().filter(|g| g.path == path.name && g.figure != Figure::Needless) {
            let value = runs.value(goal.figure);
            if goal.bbr.is_some_and(|b| !b.holds(value)) {
                count += 1;
                names.push(format!("{} {} {value:.1}", path.name.split('-').next().unwrap_or(""), goal.figure.name()));
            }
        }
    }
    (count, names.join(", "))
}

fn ablation(seeds: u64) {
    println!("| without | goals missed | which |\n|---|--:|---|");
    let (count, names) = missed(Congestion::Bbr, seeds);
    println!("| nothing | {count} | {names} |");
    for (bit, name) in DEPARTURES.iter().enumerate() {
        let (count, names) = missed(Congestion::BbrWithout(1 << bit), seeds);
        println!("| {name} | {count} | {names} |");
    }
    let (count, names) = missed(Congestion::BbrWithout(u16::MAX), seeds);
    println!("| all of them | {count} | {names} |");
}

fn table(kind: Congestion, names: &[String], lateness: Lateness, ids: ClientIds) {
    println!(
        "{:26} {:>7} {:>7} {:>6} {:>8} {:>8} {:>6} {:>6} {:>9} {:>6} {:>6} {:>5}",
        "path", "goodput", "steady", "loss", "queue95", "rtt95", "need", "back", "p50/p95", "jain", "share", "ptos"
    );
    let is_wanted = |p: &paths::Path| names.is_empty() || names.iter().any(|n| p.name.starts_with(n));
    for path in paths::all().into_iter().filter(is_wanted).map(|p| p.with(lateness)) {
        let f = race::run_with(&path, kind, 1, ids);
        let done = if path.flows[0].bytes.is_some() { times(&path, kind, ids) } else { String::new() };
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

/// The goals of the wanted paths with what is reached, as the table of `curves` counts it, to more places.
fn judged(kind: Congestion, names: &[String], lateness: Lateness, ids: ClientIds, seeds: Option<u64>) {
    let is_wanted = |p: &paths::Path| names.is_empty() || names.iter().any(|n| p.name.starts_with(n));
    for path in paths::all().into_iter().filter(is_wanted).map(|p| p.with(lateness)) {
        let seeds = seeds.unwrap_or(if path.flows[0].bytes.is_some() { 20 } else { 5 });
        let runs = Runs { all: (1..=seeds).map(|seed| race::run_with(&path, kind, seed, ids)).collect() };
        for goal in goals::all().iter().filter(|g| g.path == path.name && g.id != "C20") {
            let Some(bound) = (if kind == Congestion::Bbr { goal.bbr } else { goal.cubic }) else { continue };
            let value = runs.value(goal.figure);
            let verdict = if bound.holds(value) { "" } else { "missed" };
            println!("{:4} {:26} {:18} {bound:10} {value:9.3} {verdict}", goal.id, path.name, goal.figure.name());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: u64| arguments.get(at).and_then(|a| a.parse().ok()).unwrap_or(otherwise);
    let (kind, names) = match arguments.split_first() {
        Some((first, _)) if first == "--ablation" => return ablation(number(1, 5)),
        Some((first, rest)) if first == "newreno" => (Congestion::NewReno, rest),
        Some((first, rest)) if first == "cubic" => (Congestion::Cubic, rest),
        Some((first, rest)) if first == "bbr" => (Congestion::Bbr, rest),
        Some((first, rest)) if first == "adaptive" => (Congestion::ADAPTIVE, rest),
        _ => (Congestion::Cubic, &arguments[..]),
    };
    if names.first().is_some_and(|n| n == "--random") {
        return random(kind, number(2, 1), number(3, 200));
    }
    let (options, names): (Vec<String>, Vec<String>) = names.iter().cloned().partition(|n| n.starts_with("--"));
    let has = |name: &str| options.iter().any(|o| o == name);
    let ids = match (has("--no-ids"), has("--long-ids")) {
        (true, _) => ClientIds::None,
        (_, true) => ClientIds::Long,
        _ => ClientIds::Short,
    };
    let lateness = if has("--late") { Lateness::BUSY } else { Lateness::NONE };
    if has("--goals") {
        let seeds = options.iter().find_map(|o| o.strip_prefix("--seeds=")?.parse().ok());
        return judged(kind, &names, lateness, ids, seeds);
    }
    table(kind, &names, lateness, ids);
}
