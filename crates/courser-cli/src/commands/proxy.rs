//! `courser proxy`.

use crate::args::proxy::ProxyArgs;
use crate::failure::Outcome;
use crate::output::Ui;

use super::web;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &ProxyArgs, ui: &Ui) -> Outcome {
    web::serve(&|| args.config(), ui)
}
