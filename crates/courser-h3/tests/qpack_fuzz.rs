//! What other implementations' fuzzers found in QPACK, and scripts with mutations of them.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

#[path = "support/qif.rs"]
mod qif;

use courser_core::ids::StreamId;
use courser_h3::qpack::{Decoder, DecoderConfig};
use courser_h3::testing::fuzz;
use courser_testing::fuzz::mutate;

const SECTIONS: &[u8] = include_bytes!("../testdata/fuzz/qpack-section-quiche.bin");
const SESSIONS: &[u8] = include_bytes!("../testdata/fuzz/qpack-session-neqo.bin");
/// Scripts that runs of the target here found: together they reach every branch that the fuzzer reached.
const FOUND: &[u8] = include_bytes!("../testdata/fuzz/found-qpack.bin");
const FILES: &[u8] = include_bytes!("../testdata/fuzz/qpack-file-ls-qpack.bin");

/// Inputs of a file, each behind its length in two bytes.
fn inputs(mut file: &[u8]) -> Vec<&[u8]> {
    let mut inputs = Vec::new();
    while let Some((len, rest)) = file.split_first_chunk::<2>() {
        let (input, rest) = rest.split_at(u16::from_be_bytes(*len).into());
        inputs.push(input);
        file = rest;
    }
    inputs
}

/// The encoder stream and the section of a session; what is cut off is left out.
fn session(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = input.split_first_chunk::<10>()?;
    rest.split_at_checked(u16::from_le_bytes([head[8], head[9]]).into())
}

#[test]
fn inputs_of_other_fuzzers_do_no_harm() {
    let mut seen = 0;
    for capacity in [0, 220, 4096] {
        let config = DecoderConfig { max_table_capacity: capacity, ..DecoderConfig::default() };
        for section in inputs(SECTIONS) {
            let _ = Decoder::new(config).decode(StreamId(0), section, |_| seen += 1);
        }
        for (stream, section) in inputs(SESSIONS).into_iter().filter_map(session) {
            let mut decoder = Decoder::new(config);
            if decoder.on_encoder_stream(stream).is_ok() {
                let _ = decoder.decode(StreamId(0), section, |_| seen += 1);
            }
        }
        for file in inputs(FILES) {
            let mut decoder = Decoder::new(config);
            for (stream, body) in qif::records(file) {
                let outcome = match stream {
                    0 => decoder.on_encoder_stream(&body),
                    _ => decoder.decode(StreamId(stream), &body, |_| seen += 1).map(|_| ()),
                };
                if outcome.is_err() {
                    break;
                }
            }
        }
    }
    assert!(seen > 400, "{seen} lines were decoded");
}

/// One operation of a script with bytes, as many as fit.
fn operation(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    [&[kind, length][..], &bytes[..length.into()]].concat()
}

#[test]
fn scripts_and_mutations_of_them_hold_every_rule() {
    let mut corpus: Vec<Vec<u8>> = inputs(FOUND).into_iter().map(<[u8]>::to_vec).collect();
    let lines = b"\x00/path/a\x01a cookie\x02own val\x83agent 1\x05123456789";
    for (n, section) in (0_u8..).zip(inputs(SECTIONS).into_iter().take(200)) {
        let own =
            [operation(5, lines), operation(0x15, section), operation(4, &[0x80]), operation(0x25, lines)].concat();
        corpus.push([&[n, n / 4][..], &own, &operation(2, section), &[0x17]].concat());
    }
    for (n, (stream, section)) in (0_u8..).zip(inputs(SESSIONS).into_iter().filter_map(session)) {
        corpus.push(
            [&[3, n][..], &operation(0, &[0x3f, 0xe1, 0x1f]), &operation(0, stream), &operation(2, section)].concat(),
        );
    }
    // A capacity, insertions of each kind, and a section that refers to them.
    let inserts = [0x3f, 0xe1, 0x1f, 0x41, b'a', 1, b'1', 0xc0, 1, b'2', 0x80, 1, b'3', 2];
    for kind in 0..4 {
        let blocked = operation(0x12, &[5, 0, 0x80, 0x81, 0x82, 0x83]);
        corpus.push([&[kind, 3][..], &blocked, &operation(0, &inserts), &[7], &blocked, &[0x17]].concat());
    }
    corpus.iter().for_each(|input| fuzz::qpack(input));
    for seed in 0..20_000_usize {
        let pick = |n: usize| &corpus[n % corpus.len()];
        let mut input = mutate(pick(seed), pick(seed * 31 + 7), seed as u64);
        for more in 0..seed % 4 {
            input = mutate(&input, pick(seed + more), (seed ^ more << 20) as u64);
        }
        fuzz::qpack(&input);
    }
}
