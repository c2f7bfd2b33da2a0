//! The commands: each turns its flags into a job, runs it, and tells the result.

pub mod completions;
#[cfg(unix)]
pub mod config;
#[cfg(unix)]
pub mod ctl;
pub mod demo;
pub mod doctor;
pub mod echo;
pub mod get;
pub mod interop;
mod interop_h3;
pub mod man;
pub mod perf;
pub mod ping;
#[cfg(unix)]
pub mod proxy;
pub mod qlog;
#[cfg(unix)]
pub mod serve;
#[cfg(unix)]
pub mod stack;
#[cfg(unix)]
pub mod vcl_test;
#[cfg(unix)]
pub mod web;

use std::net::SocketAddr;

use courser::qlog::{Qlog, QlogConfig};
use courser_tls::ServerConfig as TlsServer;

use crate::args::Command;
use crate::args::common::{IdentityArgs, OperateArgs, QlogArgs, TransportArgs};
use crate::failure::{Failure, Outcome};
use crate::identity::Identity;
use crate::link::setup::{self, TlsChoice};
use crate::operate::Operator;
use crate::output::Ui;
use crate::tuning::Tuning;

/// Runs a command. The value is the exit code of a run without failure.
///
/// # Errors
/// Why the job was not done.
pub fn run(command: &Command, ui: &Ui) -> Outcome<u8> {
    match command {
        #[cfg(unix)]
        Command::Serve(args) => serve::run(args, ui).map(|()| 0),
        #[cfg(unix)]
        Command::Proxy(args) => proxy::run(args, ui).map(|()| 0),
        #[cfg(unix)]
        Command::Config(args) => config::run(args, ui).map(|()| 0),
        #[cfg(unix)]
        Command::Stack(args) => stack::run(args, ui).map(|()| 0),
        #[cfg(unix)]
        Command::Ctl(args) => ctl::run(args, ui.is_json(), ui).map(|()| 0),
        #[cfg(unix)]
        Command::VclTest(args) => vcl_test::run(args, ui).map(|()| 0),
        Command::Demo(args) => demo::run(args, ui).map(|()| 0),
        Command::Echo(args) => echo::run(args, ui).map(|()| 0),
        Command::Perf(args) => perf::run(args, ui).map(|()| 0),
        Command::Interop(args) => interop::run(args, ui),
        Command::Get(args) => get::run(args, ui),
        Command::Ping(args) => ping::run(args, ui).map(|()| 0),
        Command::Qlog(args) => qlog::run(args, ui).map(|()| 0),
        Command::Doctor(_) => doctor::run(ui).map(|()| 0),
        Command::Completions(args) => completions::run(args).map(|()| 0),
        Command::Man(args) => man::run(args, ui).map(|()| 0),
    }
}

/// The transport as the flags want it.
fn tuning(args: &TransportArgs, ui: &Ui) -> Outcome<Tuning> {
    let mut tuning = args.tuning();
    tuning.qlog = traces(&args.traces, ui)?;
    Ok(tuning)
}

/// Opens the folder of traces, when there is to be one.
fn traces(args: &QlogArgs, ui: &Ui) -> Outcome<Option<Qlog>> {
    let Some(dir) = args.qlog.as_ref().filter(|dir| !dir.as_os_str().is_empty()) else { return Ok(None) };
    let qlog = Qlog::open(QlogConfig::new(dir)).map_err(|e| Failure::writing(dir, &e))?;
    ui.watch_traces(qlog.clone());
    Ok(Some(qlog))
}

/// Serves under an operator who can have certificate and key read again, when they come from files.
fn operated(
    identity: &IdentityArgs,
    operate: &OperateArgs,
    (choice, tuning): (&TlsChoice, &Tuning),
    ui: &Ui,
    serve: impl FnOnce(&Operator<'_>) -> Outcome,
) -> Outcome {
    let again = || setup::tls_server(&Identity::from_args(identity)?, choice, tuning);
    let again: &(dyn Fn() -> Outcome<TlsServer> + Sync) = &again;
    serve(&Operator {
        drain: operate.drain,
        again: identity.cert.is_some().then_some(again),
        note: &|text| ui.note(text),
        warn: &|failure| ui.warn(failure),
    })
}

/// What a server says once clients can come.
fn announce(ui: &Ui, addr: Option<SocketAddr>, identity: &Identity) {
    if let Some(addr) = addr {
        ui.note(format_args!("listening on {addr}"));
    }
    if let Some(print) = identity.fingerprint().filter(|_| identity.is_throwaway()) {
        ui.note(format_args!("throw-away certificate, SHA-256 {print}; clients need --insecure"));
    }
}
