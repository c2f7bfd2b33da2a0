//! Encodes a list of header fields into a file of the offline interop of QPACK, or prints the sizes at all limits.
//!
//!     cargo run -p courser-h3 --example qif -- encode FILE.qif CAPACITY BLOCKED ACK OUT
//!     cargo run -p courser-h3 --example qif -- sizes FILE.qif…

#[path = "../tests/support/qif.rs"]
mod qif;

use std::error::Error;
use std::path::Path;

use qif::{Limits, encode, lists};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["encode", file, capacity, blocked, acks, out] => {
            let limits = Limits { capacity: capacity.parse()?, blocked: blocked.parse()?, acks: acks == "1" };
            std::fs::write(out, encode(&lists(&std::fs::read_to_string(file)?), limits))?;
        }
        ["sizes", ref files @ ..] => {
            for file in files {
                print_sizes(Path::new(file))?;
            }
        }
        _ => return Err("qif encode FILE.qif CAPACITY BLOCKED ACK OUT | qif sizes FILE.qif…".into()),
    }
    Ok(())
}

fn print_sizes(file: &Path) -> Result<(), Box<dyn Error>> {
    let lists = lists(&std::fs::read_to_string(file)?);
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    for capacity in [0, 256, 512, 4096] {
        for blocked in [0, 100] {
            for acks in [false, true] {
                let bytes = encode(&lists, Limits { capacity, blocked, acks }).len();
                println!("{name}.out.{capacity}.{blocked}.{}\t{bytes}", u8::from(acks));
            }
        }
    }
    Ok(())
}
