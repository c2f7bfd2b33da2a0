//! The `courser` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(courser_cli::main_with(std::env::args_os()))
}
