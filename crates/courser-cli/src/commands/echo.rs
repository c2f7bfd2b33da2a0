//! `courser echo`.

use crate::args::echo::EchoArgs;
use crate::failure::Outcome;
use crate::output::Ui;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(_args: &EchoArgs, _ui: &Ui) -> Outcome {
    Err(super::no_transport())
}
