//! The commands: each turns its flags into a job, runs it, and tells the result.

pub mod completions;
pub mod demo;
pub mod doctor;
pub mod echo;
pub mod interop;
pub mod man;
pub mod perf;
pub mod ping;

use crate::args::Command;
use crate::failure::Outcome;
use crate::output::Ui;

/// Runs a command. The value is the exit code of a run without failure.
///
/// # Errors
/// Why the job was not done.
pub fn run(command: &Command, ui: &Ui) -> Outcome<u8> {
    match command {
        Command::Demo(args) => demo::run(args, ui).map(|()| 0),
        Command::Echo(args) => echo::run(args, ui).map(|()| 0),
        Command::Perf(args) => perf::run(args, ui).map(|()| 0),
        Command::Interop(args) => interop::run(args, ui),
        Command::Ping(args) => ping::run(args, ui).map(|()| 0),
        Command::Doctor(_) => doctor::run(ui).map(|()| 0),
        Command::Completions(args) => completions::run(args).map(|()| 0),
        Command::Man(args) => man::run(args, ui).map(|()| 0),
    }
}

/// What the commands that move data say until the engine is there.
fn no_transport() -> crate::failure::Failure {
    let why = "this build has no engine yet".into();
    crate::failure::Failure::Local { what: "opening a connection".into(), why }
}

fn handshake_steps(
    _args: &crate::args::ping::PingArgs,
    _target: &courser::net::target::Target,
    _addrs: &[std::net::SocketAddr],
    report: &mut crate::report::ping::PingReport,
) -> Outcome {
    report.step("handshake", || Err::<(), _>(no_transport()), |()| String::new())
}
