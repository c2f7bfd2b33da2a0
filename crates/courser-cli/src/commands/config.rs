//! `courser config`.

use courser_web::config::{Config, DEFAULT_TEXT};
use courser_web::front;
use serde::Serialize;

use crate::args::config::{CheckArgs, ConfigArgs, ConfigWhat};
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::text;

use super::web::failure;

/// What was found.
#[derive(Serialize)]
struct Report {
    sites: usize,
    addresses: usize,
}

/// Runs it.
///
/// # Errors
/// The mistake that was found.
pub fn run(args: &ConfigArgs, ui: &Ui) -> Outcome {
    match &args.what {
        ConfigWhat::Default => {
            ui.say(DEFAULT_TEXT.trim_end());
            ui.object(&serde_json::json!({ "toml": DEFAULT_TEXT }));
            Ok(())
        }
        ConfigWhat::Check(args) => check(args, ui),
    }
}

fn check(args: &CheckArgs, ui: &Ui) -> Outcome {
    let config = Config::load(&args.file).map_err(|mistake| Failure::Usage(mistake.to_string()))?;
    let named = |mistake| courser_web::error::Mistake { file: Some(args.file.clone()), ..mistake };
    config.check().map_err(|mistake| Failure::Usage(named(mistake).to_string()))?;
    front::check(&config).map_err(failure)?;
    let (sites, addresses) = (config.sites.len(), config.server.listen.len());
    let n = text::count(sites as u64, "site");
    ui.say(format_args!("{}: {n}, addresses: {addresses}; no mistake found", args.file.display()));
    ui.object(&Report { sites, addresses });
    Ok(())
}
