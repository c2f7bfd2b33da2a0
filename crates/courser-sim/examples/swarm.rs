//! Runs that are drawn from seeds: `cargo run --release -p courser-sim --example swarm -- [--seeds A..B] [--replay SEED] [--json]`.
//!
//! Without words: the seeds 1 to 2,000. What goes wrong is told with its seed, and `--replay` runs that alone and prints what
//! was drawn. The exit code is 1 when something went wrong.
#![allow(missing_docs, reason = "a program")]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use courser_sim::quic::swarm::{End, Ran, plan, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| words.iter().position(|w| w == name).and_then(|at| words.get(at + 1));
    let range = |text: &String| {
        let (from, to) = text.split_once("..")?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    if let Some(seed) = after("--replay") {
        return seed.parse().map_or_else(|_| usage(), replay);
    }
    match after("--seeds").map_or(Some((1, 2_001)), range) {
        Some((from, to)) if from < to => all(from, to, words.iter().any(|w| w == "--json")),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: swarm [--seeds A..B] [--replay SEED] [--json]");
    ExitCode::from(2)
}

fn replay(seed: u64) -> ExitCode {
    println!("{}", plan(seed).text);
    match run(seed) {
        Ok(ran) => {
            println!("{ran:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("wrong: {}", violation.what);
            ExitCode::FAILURE
        }
    }
}

fn all(from: u64, to: u64, json: bool) -> ExitCode {
    // A seed that goes wrong is told below, in a line and not as a panic.
    std::panic::set_hook(Box::new(|_| ()));
    let (began, show) = (Instant::now(), std::io::stderr().is_terminal());
    let (mut ran, mut wrong) = (Vec::<Ran>::new(), Vec::new());
    for seed in from..to {
        match run(seed) {
            Ok(one) => ran.push(one),
            Err(violation) => {
                eprintln!("seed {seed}: {}", violation.what.lines().next().unwrap_or_default());
                wrong.push(seed);
            }
        }
        if show && seed % 64 == 0 {
            eprint!("\r{} of {} seeds, {} wrong ", seed - from + 1, to - from, wrong.len());
            let _ = std::io::stderr().flush();
        }
    }
    if show {
        eprintln!();
    }
    let count = |end| ran.iter().filter(|r| r.end == end).count();
    let (done, closed, gave_up) = (count(End::Done), count(End::Closed), count(End::GaveUp));
    let (bytes, seconds) = (ran.iter().map(|r| r.bytes).sum::<u64>(), began.elapsed().as_secs_f64());
    let sum = |of: fn(&Ran) -> u64| ran.iter().map(of).sum::<u64>();
    let (connections, early, moved) = (sum(|r| r.connections), sum(|r| r.early), sum(|r| r.moved));
    let virtual_s = ran.iter().map(|r| r.time_us).sum::<u64>() / 1_000_000;
    if json {
        println!(
            "{{\"seeds\": {}, \"done\": {done}, \"closed\": {closed}, \"gave_up\": {gave_up}, \"wrong\": {wrong:?}, \
             \"connections\": {connections}, \"early\": {early}, \"moved\": {moved}, \
             \"bytes\": {bytes}, \"virtual_s\": {virtual_s}, \"seconds\": {seconds:.1}}}",
            to - from
        );
    } else {
        println!(
            "{} seeds in {seconds:.1} s ({virtual_s} virtual ones): {done} done, {closed} closed, {gave_up} gave up, {} wrong; \
             {connections} connections, {early} with 0-RTT, {moved} moved; {} MB",
            to - from,
            wrong.len(),
            bytes / 1_000_000
        );
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
