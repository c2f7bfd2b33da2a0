//! The targets for fuzzing, without a fuzzer: over what other implementations' fuzzers found, over scripts that go deep, and
//! over some thousand inputs that are made from these in the same way every time.
#![allow(clippy::unwrap_used)]

use courser_h3::testing::fuzz;
use courser_testing::fuzz::mutate;

const FILES: [&[u8]; 5] = [
    include_bytes!("../testdata/fuzz/frame-neqo.bin"),
    include_bytes!("../testdata/fuzz/settings-neqo.bin"),
    include_bytes!("../testdata/fuzz/capsule-neqo.bin"),
    include_bytes!("../testdata/fuzz/priority-neqo.bin"),
    include_bytes!("../testdata/fuzz/session-nghttp3.bin"),
];

/// What runs of the targets here found: together they reach every branch that the fuzzer reached.
const FOUND_FRAMES: &[u8] = include_bytes!("../testdata/fuzz/found-frame.bin");
const FOUND_SCRIPTS: &[u8] = include_bytes!("../testdata/fuzz/found-connection.bin");

/// Inputs of a file, each behind its length in two bytes.
fn inputs(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    while let Some((len, rest)) = file.split_first_chunk::<2>() {
        let (input, rest) = rest.split_at(u16::from_be_bytes(*len).into());
        inputs.push(input.to_vec());
        file = rest;
    }
    inputs
}

fn all() -> Vec<Vec<u8>> {
    FILES.iter().flat_map(|file| inputs(file)).collect()
}

fn rounds(run: fn(&[u8]), corpus: &[Vec<u8>], rounds: usize) {
    corpus.iter().for_each(|input| run(input));
    for seed in 0..rounds {
        let pick = |n: usize| &corpus[n % corpus.len()];
        let mut input = mutate(pick(seed), pick(seed * 31 + 7), seed as u64);
        for more in 0..seed % 4 {
            input = mutate(&input, pick(seed + more), (seed ^ more << 20) as u64);
        }
        run(&input);
    }
}

/// An operation of a script with bytes.
fn op(op: u8, which: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap() | 0x4000;
    [&[op, which][..], &len.to_be_bytes(), bytes].concat()
}

/// Scripts: other implementations' inputs on each kind of stream, behind a good beginning.
fn scripts() -> Vec<Vec<u8>> {
    let get: &[u8] = &[1, 14, 0, 0, 0xd1, 0xd7, 0xc1, 0x50, 7, b'a', b'.', b'e', b'x', b'a', b'm', b'p'];
    let greeting = op(0, 0, &[0, 4, 0]);
    // A message that nobody holds is cancelled, and its number polled again.
    let again: &[u8] = &[
        38, 0, 201, 0, 64, 3, 0, 4, 0, 3, 0, 1, 16, 1, 14, 0, 0, 209, 215, 193, 201, 250, 7, 97, 46, 101, 15, 7, 0, 6,
        33, 113, 61, 112, 67, 197, 7, 0, 24, 12, 0, 11, 0, 120, 97, 109, 1, 3, 0, 64, 11, 128, 15, 7, 0, 6, 33, 113,
        61, 112, 67, 197, 7, 0, 24, 12, 0, 11, 40, 41, 44, 114, 61, 40, 41, 0,
    ];
    let mut scripts = vec![again.to_vec()];
    for (n, input) in all().iter().enumerate() {
        // Each fourth client has 0-RTT.
        let flags = (n % 128) as u8;
        let request = op(3, 0, get);
        let answer = [7, 0, 0x18];
        scripts.push([&[flags][..], &greeting, &request, &op(3, 0, input), &answer, &[12, 0, 11, 0]].concat());
        scripts
            .push([&[flags][..], &op(0, 0, &[&[0], &input[..]].concat()), &op(0, 1, &[2]), &op(0, 1, input)].concat());
        scripts.push(
            [
                &[flags | 1][..],
                &greeting,
                &[8, 0, 8, 2],
                &op(3, 0, &[1, 3, 0, 0, 0xd9]),
                &op(4, 0, input),
                &[13, 6],
                &op(10, 0, input),
            ]
            .concat(),
        );
    }
    scripts
}

#[test]
fn decoders_survive_what_fuzzers_found() {
    let corpus = [all(), inputs(FOUND_FRAMES)].concat();
    assert!(corpus.len() > 250, "{} inputs", corpus.len());
    rounds(fuzz::frames, &corpus, 10_000);
}

#[test]
fn the_connection_survives_mutated_scripts() {
    let corpus = [scripts(), inputs(FOUND_SCRIPTS)].concat();
    rounds(fuzz::connection, &corpus, 20_000);
}
