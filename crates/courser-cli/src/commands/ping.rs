//! `courser ping`: one step after the other, until one fails.
//!
//! The handshake takes any certificate, and the chain is judged afterwards: a certificate that is not believed is the one
//! that somebody wants to see. Nothing but PING frames goes over the connection.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use courser::net::target::Target;
use courser::worker::Worker;
use courser_core::engine::{Engine, Event as EngineEvent};
use courser_core::ids::{ConnKey, Version};

use crate::args::address;
use crate::args::ping::PingArgs;
use crate::certificate::Described;
use crate::certificate::verdict::{self, Judge};
use crate::failure::{Failure, Outcome};
use crate::link::Peer;
use crate::link::drive::{self, DONE, Dial};
use crate::link::serve::Stop;
use crate::link::setup::{self, TlsChoice, Trust};
use crate::output::Ui;
use crate::probe::{self, Answer};
use crate::report::ping::{PingReport, Shown};
use crate::text;
use crate::tuning::Tuning;

/// The port of QUIC on the web.
const PORT: u16 = 443;

/// Tries the server and tells.
///
/// # Errors
/// The first step that failed.
pub fn run(args: &PingArgs, ui: &Ui) -> Outcome {
    let target = address::target_or_port(&args.host, PORT)?;
    let mut report = PingReport::new(&target.to_string());
    let mut tuning = Tuning { qlog: super::traces(&args.traces, ui)?, ..Tuning::default() };
    tuning.settings.handshake_timeout = args.timeout;
    let outcome = steps(args, &tuning, &target, &mut report);
    ui.say(report.summary(ui.out));
    ui.object(&report);
    outcome
}

fn steps(args: &PingArgs, tuning: &Tuning, target: &Target, report: &mut PingReport) -> Outcome {
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
    handshake(args, tuning, &addrs, target, report)
}

/// A whole handshake, and then round trips on the connection.
fn handshake(
    args: &PingArgs,
    tuning: &Tuning,
    addrs: &[SocketAddr],
    target: &Target,
    report: &mut PingReport,
) -> Outcome {
    let key_log = TlsChoice::of(b"")?.key_log;
    let alpn = args.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let choice = TlsChoice { alpn, key_log, ..TlsChoice::default() };
    let tls = setup::tls_client(&Trust::Anybody, &choice, tuning)?;
    let name = args.trust.server_name.clone().unwrap_or_else(|| target.host.server_name());
    let peer = Peer { name: target.to_string(), patience: args.timeout };
    let dial = Dial { addrs, name: &name, tls: &tls, settings: &tuning.settings, peer: &peer, stop: &Stop::default() };
    let mut worker = setup::client(addrs, tuning)?;
    let outcome = report
        .step("handshake", || drive::reach(&mut worker, &dial), |(_, addr)| format!("with {addr}"))
        .and_then(|(key, _)| {
            facts(worker.machine(), key, report);
            certificate(worker.machine(), key, args, &dial, report)?;
            let found =
                |n: &Trips| format!("{} of {} answered, smallest {}", n.answered, args.count, text::time(n.min));
            report.step("round trips", || round_trips(&mut worker, key, args, &peer), found)?;
            path(worker.machine(), key, report);
            Ok(())
        });
    // Also a server whose certificate is not believed hears that nobody needs it any more.
    drive::close_all(&mut worker, &outcome);
    outcome
}

/// What the handshake agreed on.
fn facts(engine: &Engine, key: ConnKey, report: &mut PingReport) {
    report.fact("version", engine.version(key).map(|v| format!("{v:?}")).unwrap_or_default());
    let Ok(Some(id)) = engine.identity(key) else { return };
    let words = |bytes: &[u8]| text::harmless(bytes);
    report.fact("protocol", id.alpn.as_deref().map_or_else(|| "none".into(), words));
    let suite = id.suite.map_or("unknown suite", text::suite);
    report.fact("TLS", format!("{suite}, {}", id.group.as_deref().unwrap_or("unknown group")));
}

/// The server's certificate, and whether it is believed.
fn certificate(engine: &Engine, key: ConnKey, args: &PingArgs, dial: &Dial<'_>, report: &mut PingReport) -> Outcome {
    let chain: &[Vec<u8>] = engine.identity(key).ok().flatten().map_or(&[], |id| &id.certificates);
    let now = SystemTime::now();
    let says = Described::of(chain, now);
    match &says {
        Some(c) => {
            report.fact("subject", if c.subject.is_empty() { "without a name" } else { c.subject.as_str() });
            report.fact("names", c.names_shown());
            report.fact("issuer", if c.self_issued { "itself" } else { c.issuer.as_str() });
            report.fact("validity", c.validity_shown());
            if c.is_worrying() {
                report.warn();
            }
            report.fact("key", c.key.clone());
            let chain = text::count(c.chain as u64, "certificate");
            report.fact("chain", format!("{chain}, the server's SHA-256 {}", c.sha256));
        }
        None => {
            report.fact("subject", "the certificate cannot be read");
            report.warn();
        }
    }
    let judge = match Judge::from_args(&args.trust) {
        Err(_) if args.trust.insecure => {
            report.fact("certificate", "not verified (--insecure), and there are no roots to compare it with");
            report.warn();
            return Ok(());
        }
        judge => judge.or_else(|e| report.step("certificate", || Err(e), |_| String::new()))?,
    };
    let judged = judge.judge(chain, dial.name, now);
    let why_not = judged.as_ref().err().map(|e| verdict::worded(e, says.as_ref()));
    report.certificate =
        says.map(|says| Shown { says, verified: judged.is_ok(), roots: judge.of.clone(), why_not: why_not.clone() });
    match judged {
        Ok(()) => report.fact("certificate", format!("verified with {}", judge.of)),
        Err(_) if args.trust.insecure => {
            let why = why_not.unwrap_or_default();
            report.fact("certificate", format!("taken unverified (--insecure); with {}: {why}", judge.of));
            report.warn();
        }
        Err(e) => {
            let failed = verdict::failure(&e, &dial.peer.name);
            let why = why_not.unwrap_or_default();
            report.failed("certificate", format!("not verified with {}: {why}", judge.of));
            return Err(failed);
        }
    }
    Ok(())
}

/// What the path carries.
fn path(engine: &Engine, key: ConnKey, report: &mut PingReport) {
    let Ok(stats) = engine.conn_stats(key) else { return };
    report.fact("MTU", format!("{} bytes of UDP payload", stats.mtu));
    report.fact("ECN", if stats.ecn { "marks pass" } else { "marks do not pass" });
}

/// Round trips on a connection.
#[derive(Debug, Default)]
struct Trips {
    answered: u32,
    min: Duration,
}

/// Asks for acknowledgements, one after the other. The times are those of the transport, which takes off what the
/// server says that it held an acknowledgement back.
fn round_trips(worker: &mut Worker<Engine>, key: ConnKey, args: &PingArgs, peer: &Peer) -> Outcome<Trips> {
    let mut trips = Trips::default();
    for _ in 0..args.count {
        let before = worker.machine().conn_stats(key).map_err(Failure::misuse)?.ack_frames;
        let until = worker.clock().now() + args.timeout;
        worker.machine().ping(key).map_err(Failure::misuse)?;
        let mut answered = false;
        drive::drive(worker, &mut |engine, now| {
            while let Some((of, event)) = engine.poll_event() {
                if let (true, EngineEvent::Closed(reason)) = (of == key, event) {
                    return Err(peer.failure(&reason));
                }
            }
            let stats = engine.conn_stats(key).map_err(Failure::misuse)?;
            (answered, trips.min) = (stats.ack_frames > before, stats.min_rtt);
            Ok(if answered || now >= until { DONE } else { ControlFlow::Continue(Some(until)) })
        })?;
        trips.answered += u32::from(answered);
    }
    if trips.answered == 0 { Err(Failure::Silent { peer: peer.name.clone() }) } else { Ok(trips) }
}

/// Asks one address after the other.
fn ask_any(addrs: &[SocketAddr], patience: Duration) -> Outcome<Option<Answer>> {
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
