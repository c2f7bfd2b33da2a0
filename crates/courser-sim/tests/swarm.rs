//! Runs that are drawn from seeds; see [`courser_sim::quic::swarm`].
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use courser_sim::quic::swarm::{End, Ran, run};

/// Runs of a test; `COURSER_SEEDS` says otherwise.
const SEEDS: u64 = 2_000;

#[test]
fn whatever_is_drawn_arrives_or_ends_with_a_reason() {
    let seeds = std::env::var("COURSER_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let mut ran = Vec::<Ran>::new();
    for seed in 1..=seeds {
        match run(seed) {
            Ok(one) => ran.push(one),
            Err(violation) => panic!(
                "seed {seed} (again: cargo run --release -p courser-sim --example swarm -- --replay {seed}):\n{}\n{}",
                violation.what, violation.plan
            ),
        }
    }
    // A swarm that moves nothing would pass otherwise.
    let count = |end| ran.iter().filter(|r| r.end == end).count() as u64;
    assert!(count(End::Done) * 100 >= seeds * 80, "{} done of {seeds}", count(End::Done));
    let sum = |of: fn(&Ran) -> u64| ran.iter().map(of).sum::<u64>();
    assert!(
        sum(|r| r.connections) * 100 >= seeds * 140,
        "several connections at one server: {}",
        sum(|r| r.connections)
    );
    assert!(sum(|r| r.early) * 100 >= seeds * 10, "0-RTT that was accepted: {}", sum(|r| r.early));
    assert!(sum(|r| r.moved) * 100 >= seeds * 10, "connections that moved: {}", sum(|r| r.moved));
    assert!(count(End::GaveUp) * 100 <= seeds * 5, "{} gave up of {seeds}", count(End::GaveUp));
    assert!(ran.iter().map(|r| r.bytes).sum::<u64>() >= seeds * 50_000);
    assert!(ran.iter().map(|r| r.datagrams).sum::<u64>() >= seeds / 10);
}

#[test]
fn the_same_seed_is_the_same_run_to_the_last_byte() {
    for seed in 1..=100 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
