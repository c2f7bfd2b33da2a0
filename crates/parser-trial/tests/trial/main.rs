//! The goal G4: parsers under mutated input by the million, with the worst input of each.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod corpus;
mod fields;
mod mill;
mod mutate;
mod targets;
mod texts;

use std::ops::Range;
use std::thread;

use courser_testing::alloc::Counting;
use mill::{Limits, Outcome, run};
use targets::{Target, targets};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The whole number of executions when nobody says otherwise.
const EXECUTIONS: u64 = 400_000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.replace('_', "").parse().unwrap())
}

/// Runs a target on all threads; each has its own numbers of it.
fn on_threads(target: &Target, numbers: Range<u64>, threads: u64) -> Outcome {
    let limits = Limits { time: target.time(), allocation: target.allocation };
    let of_thread = |nth| (numbers.start + nth..numbers.end).step_by(usize::try_from(threads).unwrap());
    thread::scope(|scope| {
        let parts: Vec<_> =
            (0..threads).map(of_thread).map(|own| scope.spawn(move || run(target, own, limits))).collect();
        parts.into_iter().map(|part| part.join().unwrap()).reduce(Outcome::and).unwrap()
    })
}

#[test]
fn no_parser_panics_takes_long_or_asks_for_much_memory() {
    let total = number("COURSER_EXECUTIONS", EXECUTIONS);
    // Inputs that another run had.
    let skipped = number("COURSER_SKIP", 0);
    let threads = number("COURSER_THREADS", 2);
    let only = std::env::var("COURSER_TARGET").ok();
    let targets: Vec<_> = targets().into_iter().filter(|t| only.as_ref().is_none_or(|name| name == t.name)).collect();
    let weights: u64 = targets.iter().map(|target| target.weight).sum();
    println!(
        "{:<16} {:>11} {:>7} {:>18} {:>15}",
        "target", "executions", "panics", "largest allocation", "slowest input"
    );
    let (mut executions, mut bad) = (0, Vec::new());
    for target in &targets {
        let count = (total * target.weight / weights).max(target.corpus.len() as u64);
        let begin = skipped * target.weight / weights;
        let outcome = on_threads(target, begin..begin + count, threads);
        println!(
            "{:<16} {:>11} {:>7} {:>16} B {:>12.1} µs",
            target.name,
            outcome.executions,
            outcome.panics,
            outcome.allocation,
            outcome.slowest.as_secs_f64() * 1e6
        );
        executions += outcome.executions;
        bad.extend(outcome.complaints);
    }
    println!("{:<16} {executions:>11} over {} targets", "all", targets.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(executions >= total / 2);
}

#[test]
fn there_are_fourteen_targets_at_least_and_each_has_inputs() {
    let targets = targets();
    assert!(targets.len() >= 14, "{}", targets.len());
    for target in targets {
        assert!(!target.corpus.is_empty(), "{}", target.name);
        assert!(target.corpus.iter().all(|input| input.len() <= mutate::LEN_MAX), "{}", target.name);
    }
}

#[test]
fn the_trial_finds_a_panic_a_large_allocation_and_a_slow_input() {
    fn faulty(data: &[u8]) {
        match data.first() {
            Some(b'p') => panic!("on purpose"),
            Some(b'a') => drop(std::hint::black_box(Vec::<u8>::with_capacity(65_537))),
            Some(b's') => thread::sleep(std::time::Duration::from_millis(30)),
            _ => {}
        }
    }
    let limits = Limits { time: std::time::Duration::from_millis(20), allocation: 65_536 };
    let found = |input: &[u8]| {
        let target = Target::new("faulty", faulty, 1, vec![input.to_vec()]);
        let outcome = run(&target, 0..1, limits);
        assert_eq!(outcome.executions, 1);
        outcome.complaints
    };
    assert!(found(b"x").is_empty());
    for (input, what) in [(b"p", "panic"), (b"a", "65537 bytes"), (b"s", "took")] {
        let complaints = found(input);
        assert!(complaints.len() == 1 && complaints[0].contains(what), "{complaints:?}");
    }
}

#[test]
fn the_same_number_is_the_same_input_and_most_numbers_are_others() {
    let corpus = vec![b"quic://example.org:4433".to_vec(), b"[stack]".to_vec()];
    let target = Target::new("any", |_| (), 1, corpus);
    let input = |n| {
        let mut out = Vec::new();
        mutate::input(&target, n, &mut out);
        out
    };
    let all: std::collections::BTreeSet<_> = (0..1000).map(input).collect();
    assert!(all.len() > 900, "{}", all.len());
    assert!((0..1000).all(|n| input(n) == input(n)));
}
