//! `courser interop`: an endpoint of the QUIC interop runner.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use courser::qlog::Qlog;
use courser::worker::Worker;
use courser_core::engine::{EarlyData, Engine, RetryPolicy};
use courser_core::ids::{ConnKey, Version};

use super::interop_h3;
use crate::apps::hq_client::HqClient;
use crate::apps::hq_server::{self, HqServer};
use crate::args::address;
use crate::args::common::QlogArgs;
use crate::args::interop::{InteropArgs, Role};
use crate::failure::{Failure, Outcome};
use crate::hq::{self, Url};
use crate::identity::Identity;
use crate::interop_env::{Asked, Case, Environment, UNSUPPORTED};
use crate::link::drive::{self, DONE, Dial};
use crate::link::serve::{self, Stop};
use crate::link::setup::{self, Service, Tickets, TlsChoice, Trust};
use crate::link::{Link, Peer, tell};
use crate::output::Ui;
use crate::transport::{App, Event};
use crate::tuning::{Cipher, Tuning};

/// The port of the contract.
pub(super) const PORT: u16 = 443;
/// A handshake over a bad path takes its time: the cases lose or damage every third packet.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Streams that a peer may have open at once; the runner allows a server 1,000 at most.
const STREAMS: u64 = 500;
/// Credit at the start of a case about flow control, in bytes: of a stream and of the connection.
const SMALL_WINDOWS: (u64, u64) = (32 << 10, 64 << 10);

/// Does what the environment asks. The value is the exit code.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &InteropArgs, ui: &Ui) -> Outcome<u8> {
    match Environment::read(args.role, |name| std::env::var(name).ok())? {
        Asked::Unsupported { case } => {
            ui.note(format_args!("test case {} is not supported", crate::text::harmless(case.as_bytes())));
            Ok(UNSUPPORTED)
        }
        Asked::Job(env) => match env.role {
            Role::Client => client(&env, traces(args, &env, ui)?, ui),
            Role::Server => server(&env, traces(args, &env, ui)?, args.workers, ui),
        }
        .map(|()| 0),
    }
}

/// The transport that a case wants.
fn tuning(case: Case, role: Role) -> Tuning {
    let mut t = Tuning::default();
    let s = &mut t.settings;
    s.handshake_timeout = PATIENCE;
    // The runner's cases are about version 1 unless they say otherwise.
    s.versions = match (case, role) {
        (Case::Version2, _) => vec![Version::V2, Version::V1],
        _ => vec![Version::V1],
    };
    if (case, role) == (Case::Version2, Role::Client) {
        s.initial_version = Some(Version::V1);
    }
    if case == Case::Transfer {
        (s.stream_window, s.conn_window) = SMALL_WINDOWS;
    }
    if case == Case::Chacha20 {
        (t.cipher, t.cipher_only) = (Cipher::Chacha20, true);
    }
    t.streams(STREAMS);
    t
}

fn tls(env: &Environment) -> Outcome<TlsChoice> {
    let key_log = env.key_log.as_deref().map(setup::key_log).transpose()?;
    let tickets = match env.case {
        Case::Resumption => Tickets::Resume,
        Case::ZeroRtt => Tickets::EarlyData,
        _ => Tickets::Unused,
    };
    let alpn = if env.case == Case::Http3 { interop_h3::alpn() } else { vec![hq::ALPN.to_vec()] };
    Ok(TlsChoice { alpn, x25519_only: false, key_log, tickets })
}

/// The folder on the command line wins.
fn traces(args: &InteropArgs, env: &Environment, ui: &Ui) -> Outcome<Option<Qlog>> {
    super::traces(&QlogArgs { qlog: args.traces.qlog.clone().or_else(|| env.qlog.clone()) }, ui)
}

fn server(env: &Environment, qlog: Option<Qlog>, workers: u16, ui: &Ui) -> Outcome {
    if env.case == Case::Http3 {
        return interop_h3::serve(env, &tls(env)?, Tuning { qlog, ..tuning(env.case, env.role) });
    }
    hq_server::check_root(&env.www)?;
    let identity = Identity::from_files(&env.certs.join("cert.pem"), &env.certs.join("priv.key"))?;
    let mut tuning = Tuning { qlog, ..tuning(env.case, env.role) };
    if env.case == Case::ConnectionMigration {
        prefer_other_addresses(&mut tuning);
    }
    let tls = setup::tls_server(&identity, &tls(env)?, &tuning)?;
    let retry = if env.case == Case::Retry { RetryPolicy::Always } else { RetryPolicy::Never };
    let listen = |listen| {
        setup::servers(&Service {
            listen,
            tls: &tls,
            tuning: &tuning,
            retry,
            workers,
            steering: courser::Steering::default(),
        })
    };
    // Where there is no IPv6, IPv4 is all there can be.
    let workers = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))).or_else(|first| match first {
        Failure::PortBusy { .. } | Failure::PortForbidden { .. } => Err(first),
        _ => listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))),
    })?;
    let stop = Stop::on_signals(workers.iter().map(Worker::waker).collect())?;
    let root = Arc::new(env.www.clone());
    serve::serve_all(workers, &stop, move || HqServer::new(root.clone()), &serve::warner(ui))
}

/// The runner gives the server's host a second address of each family, under names of their own.
fn prefer_other_addresses(tuning: &mut Tuning) {
    let of = |name: &str| (name, PORT).to_socket_addrs().into_iter().flatten();
    for address in of("server-alt4").chain(of("server-alt6")) {
        match address {
            SocketAddr::V4(v4) => tuning.settings.preferred_v4 = Some(v4),
            SocketAddr::V6(v6) => tuning.settings.preferred_v6 = Some(v6),
        }
    }
}

fn client(env: &Environment, qlog: Option<Qlog>, ui: &Ui) -> Outcome {
    if env.case == Case::Http3 {
        let failed = interop_h3::fetch(env, &tls(env)?, Tuning { qlog, ..tuning(env.case, env.role) }, ui)?;
        return if failed == 0 { Ok(()) } else { Err(Failure::Incomplete { failed, of: env.requests.len() as u64 }) };
    }
    let tuning = Tuning { qlog, ..tuning(env.case, env.role) };
    // The runner's certificates are made for each run; some chains are longer than anybody would verify.
    let tls = setup::tls_client(&Trust::Anybody, &tls(env)?, &tuning)?;
    let groups = env.connections();
    let of = groups.len() as u64;
    let mut failed = 0;
    for urls in groups {
        let Some(first) = urls.first() else { continue };
        let target = first.server.clone();
        let addrs = address::resolve_all(&target)?;
        let (name, peer) = (target.host.server_name(), Peer { name: target.to_string(), patience: PATIENCE });
        let dial = Dial {
            addrs: &addrs,
            name: &name,
            tls: &tls,
            settings: &tuning.settings,
            peer: &peer,
            stop: &Stop::default(),
        };
        let mut worker = setup::client(&addrs, &tuning)?;
        if let Err(e) = fetch(&mut worker, &dial, env, urls) {
            ui.warn(format_args!("{target}: {e}"));
            failed += 1;
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Incomplete { failed, of }) }
}

/// Fetches some files over one connection.
fn fetch(worker: &mut Worker<Engine>, dial: &Dial<'_>, env: &Environment, urls: Vec<Url>) -> Outcome {
    let early = if env.case == Case::ZeroRtt { begin_early(worker, dial)? } else { None };
    let key = match early {
        Some(key) => key,
        None => drive::reach(worker, dial)?.0,
    };
    let update = env.case == Case::KeyUpdate;
    let outcome = converse(worker, dial.peer, key, update, HqClient::new(urls, env.downloads.clone()));
    let now = worker.clock().now();
    // One that the server closed is closed already.
    let _ = worker.machine().close(now, key, 0, b"");
    drive::flush(worker);
    outcome
}

/// Begins a connection to the first address, if a ticket lets requests leave before anything is heard; the race of
/// addresses is for those that have to wait anyway.
fn begin_early(worker: &mut Worker<Engine>, dial: &Dial<'_>) -> Outcome<Option<ConnKey>> {
    let now = worker.clock().now();
    let Some(to) = dial.addrs.first() else { return Ok(None) };
    let key = dial.connect(worker.machine(), now, *to)?;
    let engine = worker.machine();
    if engine.early_data(key) == Ok(EarlyData::Offered) {
        return Ok(Some(key));
    }
    let _ = engine.close(now, key, 0, b"");
    Ok(None)
}

/// Runs one program on one connection that is up, or that may send already; `update` changes keys as soon as that is allowed.
fn converse(worker: &mut Worker<Engine>, peer: &Peer, key: ConnKey, mut update: bool, mut app: impl App) -> Outcome {
    let mut begun = false;
    drive::drive(worker, &mut |engine, now| {
        if !std::mem::replace(&mut begun, true) {
            app.on(&mut Link { engine, key, now }, Event::Connected)?;
        }
        while let Some((of, event)) = engine.poll_event() {
            if of == key {
                tell(&mut Link { engine, key, now }, event, &mut app, peer)?;
            }
        }
        update = update && engine.update_keys(now, key).is_err();
        Ok(if app.done() { DONE } else { ControlFlow::Continue(None) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_valid_settings_that_show_what_it_is_about() {
        for case in Case::ALL {
            let t = tuning(case, Role::Server);
            assert_eq!(t.settings.validate(), Ok(()), "{case:?}");
            assert!(t.settings.max_streams_bidi <= 1000);
            assert_eq!(t.cipher_only, case == Case::Chacha20);
        }
        assert_eq!(tuning(Case::Transfer, Role::Client).settings.stream_window, 32 << 10);
        assert!(tuning(Case::Handshake, Role::Client).settings.stream_window > 32 << 10);
    }
}
