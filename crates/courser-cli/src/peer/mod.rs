//! `peer-courser`: Courser behind the command line and the JSON of the comparison's programs.
//!
//! Like them it takes any certificate chain, offers X25519 only, and runs one thread of work.

pub mod opts;

use std::cell::Cell;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use courser_core::engine::RetryPolicy;

use crate::apps::body::Counter;
use crate::apps::perf_server::{Content, PerfServer};
use crate::args::common::Api;
use crate::faces::{self, Host};
use crate::failure::{Failure, Outcome};
use crate::identity::Identity;
use crate::job::Job;
use crate::link::drive::Dial;
use crate::link::serve::{self, Seen, Stop};
use crate::link::setup::{self, Service, TlsChoice, Trust};
use crate::link::{Peer, perf};
use crate::measure::Meter;
use crate::operate::Operator;
use crate::perf_proto;
use crate::report::perf::PerfResult;
use opts::{End, Opts};

/// What the programs of the comparison call the server, wherever it is.
const SERVER_NAME: &str = "localhost";
/// How each of them is called in its lines.
const NAME: &str = "courser";

/// The program: arguments in, exit code out.
pub fn main_with(args: impl IntoIterator<Item = String>) -> u8 {
    let mut args = args.into_iter();
    let name = args.next().unwrap_or_default();
    match opts::parse(&name, args) {
        Ok(opts) => run(&opts),
        Err(usage) => {
            eprintln!("{usage}");
            2
        }
    }
}

fn run(opts: &Opts) -> u8 {
    let outcome = match &opts.end {
        End::Server { cert, key } => server(opts, cert, key),
        End::Client(job) => client(opts, job).map(|r| say(&r.peer_line(NAME))),
    };
    let Err(failure) = outcome else { return 0 };
    eprintln!("error: {failure}");
    if let End::Client(_) = opts.end {
        say(&opts::error_line(opts.mode(), &failure.to_string()));
    }
    failure.code()
}

/// A line on standard output, at once. A reader that went away is no reason to complain.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn tls() -> Outcome<TlsChoice> {
    Ok(TlsChoice { x25519_only: true, ..TlsChoice::of(perf_proto::ALPN)? })
}

fn server(opts: &Opts, cert: &Path, key: &Path) -> Outcome {
    let identity = Identity::from_files(cert, key)?;
    let tls = setup::tls_server(&identity, &tls()?, &opts.tuning)?;
    let service = Service {
        listen: opts.addr,
        tls: &tls,
        tuning: &opts.tuning,
        retry: RetryPolicy::Never,
        workers: opts.workers,
        steering: courser::Steering::default(),
    };
    if opts.api != Api::Direct {
        return face_server(opts, service);
    }
    let workers = setup::servers(&service)?;
    let stop = Stop::on_signals(workers.iter().map(courser::worker::Worker::waker).collect())?;
    let meter = Meter::start();
    say("ready");
    let make = || PerfServer::new(Content::Fill, Counter::unread());
    let outcome = serve::serve_all(workers, &stop, make, &|seen| match seen {
        Seen::Failed(failure) => eprintln!("warning: {failure}"),
        Seen::Left(number, accepted, stats) => eprintln!("{}", serve::left_line(number, accepted, stats)),
        Seen::Ended(_) => {}
    });
    say(&opts::server_line(&meter.stop().1));
    outcome
}

/// The same behind one of the other faces.
fn face_server(opts: &Opts, service: Service<'_>) -> Outcome {
    let meter = Cell::new(Meter::start());
    let ready = |_| {
        meter.set(Meter::start());
        say("ready");
    };
    let warn = |e: &Failure| eprintln!("warning: {e}");
    // Whoever asks it to end wants that at once.
    let operator = Operator { drain: Duration::ZERO, again: None, note: &|_| (), warn: &warn };
    let (content, inherited) = (Content::Fill, None.into());
    let host = Host { service, content, ready: &ready, warn: &warn, operator: &operator, inherited };
    let outcome = faces::serve(opts.api, &host);
    say(&opts::server_line(&meter.get().stop().1));
    outcome
}

fn client(opts: &Opts, job: &Job) -> Outcome<PerfResult> {
    let mut tuning = opts.tuning.clone();
    tuning.patience(job.timeout);
    let tls = setup::tls_client(&Trust::Anybody, &tls()?, &tuning)?;
    let peer = Peer { name: opts.addr.to_string(), patience: tuning.settings.handshake_timeout };
    let addrs = [opts.addr];
    let settings = &tuning.settings;
    let dial = Dial { addrs: &addrs, name: SERVER_NAME, tls: &tls, settings, peer: &peer, stop: &Stop::default() };
    if opts.api != Api::Direct {
        return faces::call(opts.api, &dial, &opts.tuning, job, &Content::Fill);
    }
    perf::run(&mut setup::client(&addrs, &tuning)?, &dial, job, &Content::Fill)
}
