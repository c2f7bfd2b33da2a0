//! `courser ping`: one step after the other, until one fails.

use std::time::Duration;

use courser::net::target::Target;
use courser_core::ids::Version;

use crate::args::address;
use crate::args::ping::PingArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Ui;
use crate::probe::{self, Answer};
use crate::report::ping::PingReport;

/// The port of QUIC on the web.
const PORT: u16 = 443;

/// Tries the server and tells.
///
/// # Errors
/// The first step that failed.
pub fn run(args: &PingArgs, ui: &Ui) -> Outcome {
    let target = address::target_or_port(&args.host, PORT)?;
    let mut report = PingReport::new(&target.to_string());
    let outcome = steps(args, &target, &mut report);
    ui.say(report.summary(ui.out));
    ui.object(&report);
    outcome
}

fn steps(args: &PingArgs, target: &Target, report: &mut PingReport) -> Outcome {
    let addrs = report.step(
        "name",
        || address::resolve_all(target),
        |found| found.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", "),
    )?;
    let patience = args.timeout / u32::try_from(addrs.len().max(1)).unwrap_or(1);
    report.step(
        "versions",
        || ask_any(&addrs, patience),
        |answer| match answer {
            Some(a) => probe::worded(&a.versions),
            None => "the server does not tell".into(),
        },
    )?;
    super::handshake_steps(args, target, &addrs, report)
}

/// Asks one address after the other.
fn ask_any(addrs: &[std::net::SocketAddr], patience: Duration) -> Outcome<Option<Answer>> {
    let mut last = Ok(None);
    for addr in addrs {
        match probe::ask(*addr, patience) {
            Ok(Some(answer)) if answer.versions.iter().any(|v| Version::is_supported(*v)) => return Ok(Some(answer)),
            Ok(Some(answer)) => {
                last = Err(Failure::NoVersion { offered: probe::worded(&answer.versions) });
            }
            // A later address that is silent says less than an earlier one that refused.
            Ok(None) => {}
            Err(e) => last = Err(e),
        }
    }
    last
}
