//! `courser demo`.

use crate::args::demo::DemoArgs;
use crate::failure::Outcome;
use crate::output::Ui;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(_args: &DemoArgs, _ui: &Ui) -> Outcome {
    Err(super::no_transport())
}
