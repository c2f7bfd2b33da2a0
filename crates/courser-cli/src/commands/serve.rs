//! `courser serve`.

use crate::args::serve::ServeArgs;
use crate::failure::Outcome;
use crate::output::Ui;

use super::web;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &ServeArgs, ui: &Ui) -> Outcome {
    web::serve(&|| args.config(), ui)
}
