//! Plays the hostile scripts against a built `courser`.
//!
//! `courser-attack PATH-TO-COURSER [--json] [--detailed] [--packets N] [--seconds N] [--honest N] [NAME...]`: each script for so many packets or
//! so much time; the exit code is 1 when something is wrong. Without names, all of them.

use std::process::ExitCode;
use std::time::Duration;

use courser_attack::runner::{heads, play};
use courser_attack::scripts::{Bound, all};
use courser_attack::victim::Build;

struct Options {
    courser: Build,
    json: bool,
    bound: Bound,
    honest: u32,
    names: Vec<String>,
}

fn options() -> Option<Options> {
    let mut words = std::env::args().skip(1);
    let bound = Bound { packets: 20_000, time: Duration::from_secs(2) };
    let mut options = Options {
        courser: Build { path: words.next()?.into(), detailed: false },
        json: false,
        bound,
        honest: 50,
        names: Vec::new(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.json = true,
            "--detailed" => options.courser.detailed = true,
            "--packets" => options.bound.packets = words.next()?.parse().ok()?,
            "--seconds" => options.bound.time = Duration::from_secs(words.next()?.parse().ok()?),
            "--honest" => options.honest = words.next()?.parse().ok()?,
            name if all().any(|s| s.name == name) => options.names.push(word),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!(
            "courser-attack PATH-TO-COURSER [--json] [--detailed] [--packets N] [--seconds N] [--honest N] [NAME...]"
        );
        all().for_each(|s| eprintln!("  {:<26} {:?}: {}", s.name, s.role, s.what));
        return ExitCode::from(2);
    };
    if !options.json {
        println!("{}", heads());
    }
    let mut wrong = 0;
    for script in all().filter(|s| options.names.is_empty() || options.names.iter().any(|n| n == s.name)) {
        match play(&options.courser, script, options.bound, options.honest) {
            Ok(report) => {
                wrong += usize::from(!report.wrong.is_empty());
                println!("{}", if options.json { report.json().to_string() } else { report.line() });
            }
            Err(error) => {
                wrong += 1;
                eprintln!("{}: {error}", script.name);
            }
        }
    }
    ExitCode::from(u8::from(wrong > 0))
}
