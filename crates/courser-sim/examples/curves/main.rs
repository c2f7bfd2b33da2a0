//! Curves of the congestion controllers and the table of goals, written into `docs/`:
//! `cargo run --release -p courser-sim --example curves`. Virtual time: the same on every machine.

mod svg;

use std::fmt::Write as _;
use std::path::{Path as File, PathBuf};

use courser_core::config::Congestion::{self, Bbr, Cubic, NewReno};
use courser_sim::late::Lateness;
use courser_sim::paths::{self, Flow, Path, Sender};
use courser_sim::quic::goals::{self, Bound, Runs};
use courser_sim::quic::race;
use courser_sim::{Duplex, LinkConfig};

use crate::svg::{Chart, Line};

/// A chart and the name of its file.
type Named = (&'static str, fn() -> Chart);

const KINDS: [(&str, Congestion); 3] = [("CUBIC", Cubic), ("BBR", Bbr), ("NewReno", NewReno)];
const MBIT: u64 = 1_000_000;
const SEEDS: u64 = 5;
const FETCH_SEEDS: u64 = 20;

/// A bottleneck of `mbit`, a round trip in ms, a queue in bandwidth-delay products, random loss.
fn path(mbit: f64, rtt_ms: f64, bdps: f64, loss: f64) -> Path {
    let rate = (mbit * 1e6) as u64;
    let queue = (rate as f64 / 8.0 * rtt_ms / 1e3 * bdps).max(3_000.0) as u64;
    let delay = (rtt_ms * 500.0) as u64;
    let down = LinkConfig::new().rate(rate).queue_bytes(queue).delay_us(delay).loss(loss);
    Path {
        name: "curve",
        bottleneck: Duplex::new(LinkConfig::new().delay_us(delay), down),
        flows: vec![flow(Sender::Subject, 0)],
        duration_us: 20_000_000,
        judge_from_us: 0,
        lateness: Lateness::NONE,
    }
}

fn flow(sender: Sender, access_delay_us: u64) -> Flow {
    Flow { sender, start_us: 0, access_delay_us, bytes: None }
}

fn mean(path: &Path, kind: Congestion, of: impl Fn(&race::Figures) -> f64) -> f64 {
    (1..=3).map(|seed| of(&race::run(path, kind, seed))).sum::<f64>() / 3.0
}

/// One line for each controller over the values of `xs`.
fn lines(xs: &[f64], path_of: impl Fn(f64) -> Path, of: impl Fn(&race::Figures) -> f64 + Copy) -> Vec<Line> {
    let line = |(name, kind): &(&str, Congestion)| {
        Line::new(name, xs.iter().map(|&x| (x, mean(&path_of(x), *kind, of))).collect())
    };
    KINDS.iter().map(line).collect()
}

fn chart(title: &str, x: &str, y: &str, y_max: f64, lines: Vec<Line>) -> Chart {
    Chart { title: title.into(), x: x.into(), y: y.into(), log_x: true, y_range: (0.0, y_max), lines }
}

fn by_rate() -> Chart {
    let xs = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
    let lines = lines(&xs, |x| path(x, 40.0, 1.0, 0.0), |f| f.goodput);
    chart("Goodput: 40 ms, queue of 1 BDP, 20 s", "rate, Mbit/s", "% of the link", 100.0, lines)
}

fn by_rtt() -> Chart {
    let xs = [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
    let lines = lines(&xs, |x| path(20.0, x, 1.0, 0.0), |f| f.goodput);
    chart("Goodput: 20 Mbit/s, queue of 1 BDP, 20 s", "round trip, ms", "% of the link", 100.0, lines)
}

fn by_queue(title: &str, y: &str, y_max: f64, of: fn(&race::Figures) -> f64) -> Chart {
    let xs = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    let lines = lines(&xs, |x| path(20.0, 40.0, x, 0.0), of);
    chart(title, "queue, bandwidth-delay products", y, y_max, lines)
}

fn by_loss() -> Chart {
    let xs = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
    let mut all = lines(&xs, |x| path(100.0, 20.0, 1.0, x / 100.0), |f| f.goodput);
    let formula = |w: fn(f64, f64) -> f64| {
        let share = move |x: f64| 100.0 * race::response_share(w(0.02, x / 100.0), 100 * MBIT, 0.02);
        xs.iter().map(|&x| (x, share(x).min(100.0))).collect::<Vec<_>>()
    };
    all.push(Line::dashed("Reno's formula", formula(|_, p| race::reno_window(p))));
    all.push(Line::dashed("CUBIC's formula", formula(race::cubic_window)));
    chart("Goodput with random loss: 100 Mbit/s, 20 ms, 20 s", "loss, %", "% of the link", 100.0, all)
}

/// Fairness among `n` flows, of which those with odd numbers are BBR when `mixed`, with round trips of 20 to 80 ms when
/// `spread`.
fn fairness(n: u32, kind: Congestion, mixed: bool, spread: bool) -> f64 {
    let mut p = path(10.0 * f64::from(n), 40.0, 1.0, 0.0);
    if spread {
        (p.bottleneck.up.delay_us, p.bottleneck.down.delay_us) = (0, 0);
    }
    p.flows = (0..n)
        .map(|i| {
            let sender = if mixed && i % 2 == 1 { Sender::RivalBbr } else { Sender::Subject };
            let delay = if spread { 10_000 + u64::from(30_000 * i / (n - 1)) } else { 0 };
            Flow { start_us: u64::from(i) * 100_000, ..flow(sender, delay) }
        })
        .collect();
    p.judge_from_us = 5_000_000;
    mean(&p, kind, |f| f.jain)
}

fn by_flows() -> Chart {
    let counts = [2u32, 3, 4, 6, 8];
    let line = |name: &str, kind, mixed, spread| {
        Line::new(name, counts.map(|n| (f64::from(n), fairness(n, kind, mixed, spread))).to_vec())
    };
    let lines = vec![
        line("CUBIC", Cubic, false, false),
        line("BBR", Bbr, false, false),
        line("both", Cubic, true, false),
        line("CUBIC, 20–80 ms", Cubic, false, true),
        line("BBR, 20–80 ms", Bbr, false, true),
    ];
    Chart { log_x: false, ..chart("Jain's index, from 5 s to 20 s", "flows", "index", 1.0, lines) }
}

/// Megabits per second of the first flow over time, in steps of 250 ms.
fn rate_over_time(figures: &race::Figures, flow: usize) -> Vec<(f64, f64)> {
    let samples: Vec<(u64, u64)> = figures.progress[flow].iter().copied().step_by(5).collect();
    let rate = |w: &[(u64, u64)]| (w[1].0 as f64 / 1e6, (w[1].1 - w[0].1) as f64 * 8.0 / (w[1].0 - w[0].0) as f64);
    samples.windows(2).map(rate).collect()
}

fn step() -> Chart {
    let mut p = path(40.0, 40.0, 1.0, 0.0);
    p.bottleneck.down = LinkConfig::new()
        .rate_steps(&[(5_000_000, 10 * MBIT), (5_000_000, 40 * MBIT), (5_000_000, 10 * MBIT)], false)
        .queue_bytes(200_000)
        .delay_us(20_000);
    p.duration_us = 15_000_000;
    let line = |(name, kind): (&str, Congestion)| Line::new(name, rate_over_time(&race::run(&p, kind, 1), 0));
    let all = KINDS.map(line).into();
    Chart { log_x: false, ..chart("A link of 10, 40 and 10 Mbit/s: 40 ms", "seconds", "Mbit/s delivered", 50.0, all) }
}

fn late_comer() -> Chart {
    let mut p = path(20.0, 40.0, 1.0, 0.0);
    p.flows.push(Flow { start_us: 5_000_000, ..flow(Sender::Subject, 0) });
    let mut all = Vec::new();
    for (name, kind) in [("CUBIC", Cubic), ("BBR", Bbr)] {
        let figures = race::run(&p, kind, 1);
        all.push(Line::new(&format!("{name}, first"), rate_over_time(&figures, 0)));
        all.push(Line::new(&format!("{name}, second"), rate_over_time(&figures, 1)));
    }
    Chart {
        log_x: false,
        ..chart("A second flow after 5 s: 20 Mbit/s, 40 ms", "seconds", "Mbit/s delivered", 25.0, all)
    }
}

fn runs(path: &Path, kind: Congestion) -> Runs {
    let seeds = if path.flows[0].bytes.is_some() { FETCH_SEEDS } else { SEEDS };
    Runs { all: (1..=seeds).map(|seed| race::run(path, kind, seed)).collect() }
}

/// The table of goals, and how many are met and missed, and how many runs went wrong.
fn table() -> (String, [u32; 3]) {
    let results: Vec<(&str, Runs, Runs)> =
        paths::all().iter().map(|p| (p.name, runs(p, Cubic), runs(p, Bbr))).collect();
    let mut counts = [0; 3];
    let wrong = |r: &Runs| u32::try_from(r.all.iter().filter(|f| !f.wrong.is_empty()).count()).unwrap_or(u32::MAX);
    counts[2] = results.iter().map(|(_, cubic, bbr)| wrong(cubic) + wrong(bbr)).sum();
    let mut out =
        String::from("| # | path | figure | CUBIC: goal | is | BBR: goal | is |\n|---|---|---|--:|--:|--:|--:|\n");
    let mut needless = [0.0f64; 2];
    for goal in goals::all() {
        let Some((_, cubic, bbr)) = results.iter().find(|r| r.0 == goal.path) else { continue };
        if goal.id == "C20" {
            needless = [needless[0].max(cubic.value(goal.figure)), needless[1].max(bbr.value(goal.figure))];
            continue;
        }
        let mut cell = |bound: Option<Bound>, runs: &Runs| {
            let value = runs.value(goal.figure);
            let Some(bound) = bound else { return format!("| {} ", number(value)) };
            let met = bound.holds(value);
            counts[usize::from(!met)] += 1;
            let shown = if met { number(value) } else { format!("**{}**", number(value)) };
            format!("{bound} | {shown} ")
        };
        let (cubic, bbr) = (cell(goal.cubic, cubic), cell(goal.bbr, bbr));
        let _ = writeln!(out, "| {} | {} | {} | {cubic}| {bbr}|", goal.id, goal.path, goal.figure.name());
    }
    for value in needless {
        counts[usize::from(value > 0.3)] += 1;
    }
    let _ = writeln!(
        out,
        "| C20 | the worst of 37 | needless % | ≤ 0.3 | {} | ≤ 0.3 | {} |",
        number(needless[0]),
        number(needless[1])
    );
    (out, counts)
}

fn number(v: f64) -> String {
    if v >= 100.0 {
        format!("{v:.0}")
    } else if v >= 10.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.2}")
    }
}

/// Replaces what stands between two marks of the page.
fn fill(page: &mut String, mark: &str, with: &str) {
    let (open, close) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->"));
    let from = page.find(&open).expect("the page has the mark") + open.len();
    let to = page.find(&close).expect("the page has the end of the mark");
    page.replace_range(from..to, with);
}

fn write(file: &File, text: &str) {
    if let Err(error) = std::fs::write(file, text) {
        eprintln!("{}: {error}", file.display());
        std::process::exit(1);
    }
}

fn main() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let folder = docs.join("congestion");
    let charts: [Named; 8] = [
        ("rate", by_rate),
        ("rtt", by_rtt),
        ("loss", by_loss),
        ("queue", || by_queue("Goodput: 20 Mbit/s, 40 ms, 20 s", "% of the link", 100.0, |f| f.goodput)),
        ("delay", || by_queue("Wait in the queue: 20 Mbit/s, 40 ms", "95th percentile, ms", 400.0, |f| f.queue_p95_ms)),
        ("fairness", by_flows),
        ("step", step),
        ("late", late_comer),
    ];
    for (name, make) in charts {
        let chart = make();
        println!("{}", chart.title);
        for line in &chart.lines {
            let points: Vec<String> =
                line.points.iter().map(|(x, y)| format!("{}: {}", number(*x), number(*y))).collect();
            println!("  {:16} {}", line.name, points.join("  "));
        }
        write(&folder.join(format!("{name}.svg")), &chart.render());
    }
    let page_file = docs.join("congestion.md");
    let mut page = std::fs::read_to_string(&page_file).expect("docs/congestion.md is part of the project");
    let (rows, [met, missed, wrong]) = table();
    let sum = format!("{met} goals are met, {missed} missed; runs in which something went wrong: {wrong}.\n\n{rows}");
    println!("{sum}");
    fill(&mut page, "goals", &sum);
    write(&page_file, &page);
}
