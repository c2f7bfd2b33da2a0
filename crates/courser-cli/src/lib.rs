//! The `courser` command and the `peer-courser` program, as a library so that tests can call their parts.
//!
//! ```text
//! args      flags as text → jobs            failure   why not, exit codes, remedies
//! commands  one file a command              output    where words and JSON go
//! apps      programs on streams             report    results
//! transport what they need of a connection  pattern   bytes that can be checked
//! certificate  what a server shows, and whether it is believed
//! link      the engine below them           faces     perf as a user of the blocking or Tokio face writes it
//! qlog      reading traces            operate   signals that drain, reload and upgrade a server
//! ```

#![forbid(unsafe_code)]

pub mod apps;
pub mod args;
pub mod certificate;
pub mod commands;
pub mod faces;
pub mod failure;
pub mod hq;
pub mod identity;
pub mod interop_env;
pub mod job;
pub mod link;
pub mod logging;
pub mod measure;
pub mod operate;
pub mod output;
pub mod pattern;
pub mod peer;
pub mod perf_proto;
pub mod probe;
pub mod progress;
pub mod qlog;
pub mod report;
pub mod text;
pub mod transport;
pub mod tuning;

use std::ffi::OsString;

use clap::Parser;

/// The `courser` command: arguments in, exit code out.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are printed on standard output and are no error.
            let _ = e.print();
            return if e.use_stderr() { 2 } else { 0 };
        }
    };
    let ui = output::Ui::new(&cli.global);
    let outcome = logging::install(&cli.global, &ui).and_then(|()| commands::run(&cli.command, &ui));
    ui.settle_traces();
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            ui.fail(&failure);
            failure.code()
        }
    }
}
