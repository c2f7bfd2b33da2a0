//! Courser behind the command line of the comparison's programs.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(courser_cli::peer::main_with(std::env::args()))
}
