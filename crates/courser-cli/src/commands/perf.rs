//! `courser perf`.

use crate::args::perf::PerfArgs;
use crate::failure::Outcome;
use crate::output::Ui;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(_args: &PerfArgs, _ui: &Ui) -> Outcome {
    Err(super::no_transport())
}
