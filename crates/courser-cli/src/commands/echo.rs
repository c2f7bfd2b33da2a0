//! `courser echo`.

use std::path::Path;

use courser::worker::Worker;
use courser_core::engine::{RetryPolicy, UNPROVEN_MAX};

use crate::apps::body::Counter;
use crate::apps::echo::{ALPN, EchoServer};
use crate::apps::perf_server::Content;
use crate::args::address;
use crate::args::echo::{EchoApi, EchoArgs, EchoClientArgs, EchoEnd, EchoServerArgs};
use crate::faces;
use crate::failure::{Failure, Outcome};
use crate::identity::Identity;
use crate::link::Peer;
use crate::link::drive::Dial;
use crate::link::echo::{self, EchoJob};
use crate::link::serve::{self, Stop};
use crate::link::setup::{self, Service, TlsChoice, Trust};
use crate::operate::upgrade;
use crate::output::Ui;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &EchoArgs, ui: &Ui) -> Outcome {
    #[cfg(unix)]
    let socket = args.socket.as_deref();
    #[cfg(not(unix))]
    let socket = None;
    // Where the socket stands before the subcommand the parser does not see the two together.
    let has_api = match &args.end {
        EchoEnd::Server(args) => args.api != EchoApi::Direct || args.workers != 1,
        EchoEnd::Client(args) => args.api != EchoApi::Direct || args.threads != 1,
    };
    if socket.is_some() && has_api {
        return Err(Failure::Usage(
            "--socket has the service's workers; leave --api, --workers and --threads out".to_owned(),
        ));
    }
    match &args.end {
        EchoEnd::Server(args) => server(args, socket, ui),
        EchoEnd::Client(args) => client(args, socket, ui),
    }
}

fn server(args: &EchoServerArgs, _socket: Option<&Path>, ui: &Ui) -> Outcome {
    #[cfg(unix)]
    if let Some(socket) = _socket {
        let ready = |addr| {
            ui.note(format_args!("listening on {addr}, through the service"));
            if args.identity.cert.is_none() {
                ui.note("throw-away certificate; clients need --insecure");
            }
        };
        let at = (address::listen(&args.uri)?, &args.identity);
        return faces::session::away::serve(socket, at, &ready, &|failure| ui.warn(failure));
    }
    let inherited = upgrade::inherit()?;
    let tuning = super::tuning(&args.transport, ui)?;
    let choice = TlsChoice::of(ALPN)?;
    let identity = Identity::from_args(&args.identity)?;
    let tls = setup::tls_server(&identity, &choice, &tuning)?;
    let service = Service {
        listen: address::listen(&args.uri)?,
        tls: &tls,
        tuning: &tuning,
        retry: RetryPolicy::Above(UNPROVEN_MAX),
        workers: args.workers,
        steering: courser::Steering::default(),
    };
    let make = || EchoServer::new(Counter::default());
    let ready = |addr| super::announce(ui, Some(addr), &identity);
    super::operated(&args.identity, &args.operate, (&choice, &tuning), ui, |operator| {
        if args.api == EchoApi::Session {
            let (content, warn) = (Content::Fill, |e: &Failure| ui.warn(e));
            let inherited = inherited.into();
            let host = faces::Host { service, content, ready: &ready, warn: &warn, operator, inherited };
            return faces::session::serve_with(&host, make);
        }
        let workers = setup::servers(&service)?;
        let addr = workers.first().map(|w| w.socket().local_addr());
        serve::serve_operated(workers, operator, || super::announce(ui, addr, &identity), make, &serve::warner(ui))
    })
}

fn client(args: &EchoClientArgs, _socket: Option<&Path>, ui: &Ui) -> Outcome {
    let mut tuning = super::tuning(&args.transport, ui)?;
    tuning.patience(args.timeout);
    let target = address::target(&args.uri)?;
    let addrs = address::resolve_all(&target)?;
    let tls = setup::tls_client(&Trust::from_args(&args.trust)?, &TlsChoice::of(ALPN)?, &tuning)?;
    let name = args.trust.server_name.clone().unwrap_or_else(|| target.host.server_name());
    let peer = Peer { name: target.to_string(), patience: tuning.settings.handshake_timeout };
    let stop = Stop::default();
    let dial = Dial { addrs: &addrs, name: &name, tls: &tls, settings: &tuning.settings, peer: &peer, stop: &stop };
    let (connections, streams) = (args.nclient.connections, args.nclient.streams);
    // A thread without a connection has nothing to do.
    let threads = u64::from(args.threads).min(connections).max(1);
    let job = EchoJob { connections, streams, bytes: args.bytes, timeout: args.timeout };
    #[cfg(unix)]
    let away = _socket.map(|socket| faces::session::away::Away::new(socket, &args.trust)).transpose()?;
    #[cfg(not(unix))]
    let away: Option<std::convert::Infallible> = None;
    let report = if let Some(_away) = &away {
        stop.listen(Vec::new())?;
        #[cfg(unix)]
        let report = faces::session::echo::call_away(&dial, _away, &job)?;
        #[cfg(not(unix))]
        let report = match *_away {};
        report
    } else if args.api == EchoApi::Session {
        stop.listen(Vec::new())?;
        faces::session::echo::call(&dial, &tuning, &job)?
    } else {
        let workers = (0..threads).map(|_| setup::client(&addrs, &tuning)).collect::<Outcome<Vec<_>>>()?;
        stop.listen(workers.iter().map(Worker::waker).collect())?;
        echo::run(workers, &dial, &job)?
    };
    ui.say(report.summary(&args.timing, ui.out));
    ui.object(&report);
    let expected = connections.saturating_mul(streams).saturating_mul(args.bytes);
    if report.verified {
        Ok(())
    } else {
        Err(Failure::WrongLength { what: "the echo".into(), expected, found: report.bytes })
    }
}
