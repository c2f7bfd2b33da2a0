//! What other encoders made of lists of header fields is decoded, and what this one makes of them.
//!
//! The project carries a choice of the files of the offline interop. All of them are run by
//!
//!     QPACK_INTEROP=FOLDER cargo test -p courser-h3 --test qpack_interop -- --ignored
//!
//! where the folder has `qifs/*.qif`, `encoded/ENCODER/QIF.out.CAPACITY.BLOCKED.ACK` and `errors/err*`.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

#[path = "support/qif.rs"]
mod qif;

use std::path::Path;

use courser_h3::Code;
use qif::{Delivery, Limits, List, Reading, encode, lists, records};

const QIFS: [(&str, &str); 4] = [
    ("netbsd", include_str!("../testdata/qpack-interop/netbsd.qif")),
    ("netbsd-hq", include_str!("../testdata/qpack-interop/netbsd-hq.qif")),
    ("fb-req-hq", include_str!("../testdata/qpack-interop/fb-req-hq.qif")),
    ("fb-resp-hq", include_str!("../testdata/qpack-interop/fb-resp-hq.qif")),
];

const ENCODED: &[u8] = include_bytes!("../testdata/qpack-interop/encoded.bin");

const ALL: [Delivery; 3] = [Delivery::InOrder, Delivery::Bytes, Delivery::Late];

/// The qif's name and the limits, from `QIF.out.CAPACITY.BLOCKED.ACK`.
fn limits(name: &str) -> (&str, Limits) {
    let (qif, numbers) = name.split_once(".out.").unwrap();
    let numbers: Vec<usize> = numbers.split('.').map(|number| number.parse().unwrap()).collect();
    (qif, Limits { capacity: numbers[0], blocked: numbers[1], acks: numbers[2] == 1 })
}

/// Files behind each other: a name behind its length in a byte, the file behind its length in four.
fn files(mut bytes: &'static [u8]) -> Vec<(&'static str, &'static [u8])> {
    let mut all = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at(usize::from(length));
        let (length, rest) = rest.split_first_chunk::<4>().unwrap();
        let (file, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        all.push((std::str::from_utf8(name).unwrap(), file));
        bytes = rest;
    }
    all
}

fn others(limits: Limits) -> Reading {
    Reading::new(limits).with_capacity_at_once()
}

fn check(name: &str, file: &[u8], expected: &[List], limits: Limits, new: fn(Limits) -> Reading) {
    let records = records(file);
    for delivery in ALL {
        let (decoded, reading) =
            new(limits).run(&records, delivery).unwrap_or_else(|e| panic!("{name}, {delivery:?}: {e}"));
        assert!(decoded == expected, "{name}, {delivery:?}");
        assert!(reading.most_blocked <= limits.blocked, "{name}, {delivery:?}");
    }
}

#[test]
fn files_of_other_encoders_give_their_lists_in_any_pieces_and_late() {
    let qifs = QIFS.map(|(name, text)| (name, lists(text)));
    let all = files(ENCODED);
    for (path, file) in &all {
        let (_, name) = path.split_once('/').unwrap();
        if name.starts_with("err") {
            continue;
        }
        let (qif, limits) = limits(name);
        let expected = &qifs.iter().find(|known| known.0 == qif).unwrap().1;
        check(path, file, expected, limits, others);
    }
    assert_eq!(all.len(), 149);
}

#[test]
//= rfc9204#2.2.3-1 type=test
fn broken_files_end_with_the_code_of_their_fault() {
    let limits = Limits { capacity: 4096, blocked: 100, acks: true };
    let mut seen = 0;
    for (path, file) in files(ENCODED).iter().filter(|file| file.0.contains("/err")) {
        let number: u32 = path.rsplit("err").next().unwrap().parse().unwrap();
        let outcome = others(limits).run(&records(file), Delivery::InOrder);
        let expected = match number {
            1..=8 => Some(Code::QPACK_DECOMPRESSION_FAILED),
            11 | 12 => Some(Code::QPACK_ENCODER_STREAM_ERROR),
            // Made for a static table that began with 1.
            _ => None,
        };
        assert_eq!(outcome.err().map(|error| error.code), expected, "{path}");
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn own_files_give_their_lists_at_every_limit() {
    for (name, text) in QIFS {
        let lists = lists(text);
        for capacity in [0, 256, 512, 4096] {
            for blocked in [0, 100] {
                for acks in [false, true] {
                    let limits = Limits { capacity, blocked, acks };
                    check(&format!("{name} {limits:?}"), &encode(&lists, limits), &lists, limits, Reading::new);
                }
            }
        }
    }
}

/// The sum of all records' bytes, which is what the size of a file is compared by.
fn own_size(text: &str, limits: Limits) -> usize {
    encode(&lists(text), limits).len()
}

#[test]
fn own_files_are_not_larger_than_those_of_the_best_other_encoder_by_more_than_a_tenth() {
    for (name, text) in QIFS {
        for numbers in ["4096.100.1", "4096.0.1"] {
            let file = format!("{name}.out.{numbers}");
            let others = files(ENCODED).into_iter().filter(|other| other.0.ends_with(&format!("/{file}")));
            let best = others.map(|other| other.1.len()).min().unwrap();
            let own = own_size(text, limits(&file).1);
            assert!(own * 10 <= best * 11, "{file}: {own} against {best} bytes");
        }
    }
}

#[test]
#[ignore = "reads a folder that is not part of the project"]
fn all_files_of_the_folder_give_their_lists() {
    let folder = std::env::var("QPACK_INTEROP").unwrap();
    let folder = Path::new(&folder);
    let mut seen = 0;
    for encoder in std::fs::read_dir(folder.join("encoded")).unwrap() {
        for file in std::fs::read_dir(encoder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let (qif, limits) = limits(path.file_name().unwrap().to_str().unwrap());
            let expected = lists(&std::fs::read_to_string(folder.join(format!("qifs/{qif}.qif"))).unwrap());
            check(path.to_str().unwrap(), &std::fs::read(&path).unwrap(), &expected, limits, others);
            seen += 1;
        }
    }
    eprintln!("{seen} files");
    assert!(seen > 0);
}
