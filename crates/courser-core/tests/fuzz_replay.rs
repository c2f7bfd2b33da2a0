//! What fuzzing found, and seeded mutations of it, without a fuzzer: each target runs over its committed corpus and over
//! some thousand inputs that are made from it in the same way every time.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;

use courser_testing::alloc::{Counting, count};
use courser_testing::fuzz::{TARGETS, mutate, target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Inputs of a target in a fixed order.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../courser-testing/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs the corpus and `rounds` mutations; returns how many inputs that were.
fn replay(name: &str, rounds: u64) -> usize {
    let run = target(name).unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has a corpus");
    corpus.iter().for_each(|input| run(input));
    let pick = |n: u64| &corpus[usize::try_from(n % corpus.len() as u64).unwrap()];
    for seed in 0..rounds {
        // What one mutation leads to, a few more lead further.
        let mut input = mutate(pick(seed), pick(seed.wrapping_mul(31) + 7), seed);
        for more in 0..seed % 4 {
            input = mutate(&input, pick(seed + more), seed ^ more << 40);
        }
        run(&input);
    }
    corpus.len() + usize::try_from(rounds).unwrap()
}

#[test]
fn every_target_has_a_corpus() {
    for (name, _) in TARGETS {
        assert!(!corpus(name).is_empty(), "{name}");
    }
}

#[test]
fn decoders_survive_mutated_input() {
    for name in ["varint", "header", "frame", "params", "client_hello", "token"] {
        assert!(replay(name, 10_000) > 10_000);
    }
}

#[test]
fn the_engine_survives_mutated_scripts_and_keeps_nothing_of_them() {
    // The first run makes what is made once per thread.
    target("engine").unwrap()(&[4]);
    let (inputs, counts) = count(|| replay("engine", 20_000));
    assert!(inputs > 20_000);
    assert_eq!(counts.live, 0, "every engine gave all its memory back");
}
