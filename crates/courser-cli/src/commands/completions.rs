//! `courser completions`.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::args::Cli;
use crate::args::completions::CompletionsArgs;
use crate::failure::{Failure, Outcome};

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Outcome {
    io::stdout().write_all(&script(args.shell)).map_err(|e| Failure::local("writing to standard output", &e))
}

fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "courser", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in clap_complete::Shell::value_variants() {
            let text = String::from_utf8(script(*shell)).unwrap();
            for word in ["demo", "echo", "perf", "interop", "ping", "doctor", "completions", "flip-byte", "nclient"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
