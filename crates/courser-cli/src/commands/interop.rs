//! `courser interop`: an endpoint of the QUIC interop runner.

use crate::args::interop::InteropArgs;
use crate::failure::Outcome;
use crate::interop_env::{Asked, Environment, UNSUPPORTED};
use crate::output::Ui;

/// Does what the environment asks. The value is the exit code.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &InteropArgs, ui: &Ui) -> Outcome<u8> {
    match Environment::read(args.role, |name| std::env::var(name).ok())? {
        Asked::Unsupported { case } => {
            ui.note(format_args!("test case {} is not supported", crate::text::harmless(case.as_bytes())));
            Ok(UNSUPPORTED)
        }
        Asked::Job(_) => Err(super::no_transport()),
    }
}
