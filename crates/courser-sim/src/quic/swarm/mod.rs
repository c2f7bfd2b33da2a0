//! Runs that nobody thought of: everything about them is drawn from a seed.
//!
//! A [`Plan`] is a path (rates, delays, queues, losses, reordering, copies, damage, holes for large datagrams, what becomes of ECN, a
//! translator that rebinds), settings of both ends, clients that come at once or later, with and without 0-RTT, streams of both
//! ends, and [`Deed`]s: what applications and operators do in the middle of it. [`run`] carries it out and judges:
//!
//! - every byte that is read is the one that was written there, every stream that nobody gave up ends where it should;
//! - each end of each connection finishes, or says why not, with one of the few reasons that a bad network is;
//! - no datagram that is built breaks a rule (`wire::legality`), no host works without end, no engine holds more than its
//!   connections were granted;
//! - at the end there is no connection, route, buffer or timer left.
//!
//! ```
//! use courser_sim::quic::swarm;
//!
//! let ran = swarm::run(7).expect("nothing is wrong");
//! assert_eq!(swarm::run(7), Ok(ran), "the same seed, the same run");
//! ```

mod deeds;
mod draw;

use std::panic::{AssertUnwindSafe, catch_unwind};

use courser_core::config::Settings;
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::Side;

use super::{AppConfig, Job, Net, NetConfig, Pace};
use crate::config::Duplex;
use crate::outcome::Stop;
use deeds::{Meanwhile, perform, read_datagrams};
pub use draw::plan;

const MS: u64 = 1_000;
const S: u64 = 1_000 * MS;
/// Virtual time after which a run that neither finished nor gave up is stuck.
const PATIENCE_US: u64 = 900 * S;

/// What somebody does in the middle of a run. What is not possible at that moment is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The sending keys are replaced.
    UpdateKeys,
    /// The connection IDs that this end issued are replaced.
    RotateIds,
    /// A datagram of so many bytes is sent.
    Datagram(usize),
    /// A stream is reset and stopped; which one is drawn.
    Abandon(u64),
    /// A stream gets another priority.
    Prioritise(u64, u8, bool),
    /// What a stream holds back is let go.
    Flush(u64),
    /// A packet that asks for an answer is sent.
    Ping,
    /// A further stream.
    Add(Job),
    /// It reads in another way.
    Pace(Pace),
    /// The translator gives another outside address; without one nothing happens.
    Rebind,
    /// The client's host takes another address; the server's does not.
    Move,
    /// From now on the host's socket takes nothing for so many microseconds after each train.
    FullSocket(u64),
    /// The server takes no new connections from now on, or takes them again.
    Drain(bool),
    /// The connection is closed.
    Close,
    /// All connections of the host are closed.
    CloseAll,
}

/// An act: when, at which end, and at which of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// When, in microseconds.
    pub at_us: u64,
    /// At which end.
    pub side: Side,
    /// A number that picks the host and the connection among those that there are.
    pub which: u64,
    /// What.
    pub act: Act,
}

/// A client beside the first one, with a host and a link of its own.
pub struct Other {
    /// Its link.
    pub link: Duplex,
    /// Its settings.
    pub settings: Settings,
    /// When it comes, and what it does.
    pub dial: (u64, AppConfig),
}

/// A run that was drawn.
pub struct Plan {
    /// What is connected, and how.
    pub net: NetConfig,
    /// Further connections of the first client: when they begin, and what they do.
    pub dials: Vec<(u64, AppConfig)>,
    /// Further clients.
    pub others: Vec<Other>,
    /// The kind of the clients' connection IDs, as [`plan`] draws it.
    pub ids: u64,
    /// What happens meanwhile.
    pub deeds: Vec<Deed>,
    /// It, in a line.
    pub text: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything that was to be moved was.
    Done,
    /// One end closed in the middle, as it was told to.
    Closed,
    /// The network was so bad that one end gave up, in time and with that reason.
    GaveUp,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// Connections that clients began.
    pub connections: u64,
    /// Those of them whose 0-RTT was accepted.
    pub early: u64,
    /// Those of them that ended at another address of the client or the server than they began with.
    pub moved: u64,
    /// Bytes that were read and right, at all ends.
    pub bytes: u64,
    /// DATAGRAM frames that arrived.
    pub datagrams: u64,
    /// Its virtual time, in microseconds.
    pub time_us: u64,
    /// The hash of everything that happened on the wire.
    pub trace: u64,
}

/// A run that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was drawn.
    pub plan: String,
    /// What is wrong.
    pub what: String,
}

/// Carries the run of a seed out.
///
/// # Errors
/// Whatever is not as it should be, a panic included.
pub fn run(seed: u64) -> Result<Ran, Violation> {
    let plan = plan(seed);
    let text = plan.text.clone();
    catch_unwind(AssertUnwindSafe(|| carry_out(plan)))
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
        })
        .map_err(|what| Violation { plan: text, what })
}

/// What one connection may make its host hold: what it grants, what it may have under way, and chunks that are not full.
fn share(settings: &Settings) -> usize {
    2 * (settings.conn_window_max + settings.send_window) as usize + (512 << 10)
}

fn carry_out(plan: Plan) -> Result<Ran, String> {
    plan.net.client.validate().and(plan.net.server.validate()).map_err(|e| format!("{e:?}"))?;
    let most = plan.others.iter().map(|o| &o.settings).chain([&plan.net.client, &plan.net.server]).map(share).max();
    let most = most.unwrap_or(0);
    let mut net = Net::new(plan.net);
    for (at_us, app) in plan.dials {
        net.world.host_mut(net.client).dial(at_us, crate::addr::server(0), app);
    }
    for other in plan.others {
        other.settings.validate().map_err(|e| format!("{e:?}"))?;
        let client = net.add_client(other.settings, &other.link, |e| draw::choose_ids(e, plan.ids));
        net.world.host_mut(client).dial(other.dial.0, crate::addr::server(0), other.dial.1);
    }
    let mut meanwhile = Meanwhile::default();
    let mut arrived = 0;
    for deed in plan.deeds {
        net.run_until(deed.at_us);
        arrived += read_datagrams(&mut net)?;
        hold(&net, most)?;
        perform(&mut net, deed, &mut meanwhile);
    }
    let (clients, server) = (net.clients(), net.server);
    let stop = net.world.run_until_true(PATIENCE_US, |w| {
        clients.iter().all(|c| w.host(*c).is_settled()) && w.host(server).apps().all(|a| is_over(a) || has_done(a))
    });
    net.assert_sound();
    if stop != Ok(Stop::Reached) {
        return Err(format!("stuck ({stop:?}): {}", net.state()));
    }
    arrived += read_datagrams(&mut net)?;
    hold(&net, most)?;
    let end = judge(&net, meanwhile)?;
    let (early, moved) = counts(&net);
    net.finish();
    judge_reasons(&net, end, meanwhile)?;
    let hosts = net.hosts();
    let bytes = hosts.iter().flat_map(|(_, h, _)| h.apps()).map(|a| a.report.bytes_in).sum();
    let connections = clients.iter().map(|c| net.world.host(*c).keys().len() as u64).sum();
    let (time_us, trace) = (net.world.now_us(), net.world.trace_hash());
    Ok(Ran { end, connections, early, moved, bytes, datagrams: arrived, time_us, trace })
}

/// No engine holds more than its connections may make it hold.
fn hold(net: &Net, most: usize) -> Result<(), String> {
    for (name, host, _) in net.hosts() {
        let (held, connections) = (host.engine.pool_stats().in_use_bytes, host.engine.connections());
        if held > most * connections {
            return Err(format!("{name} holds {held} bytes for {connections} connections of {most} each"));
        }
    }
    Ok(())
}

/// Connections of clients with 0-RTT that was accepted, and those that moved.
fn counts(net: &Net) -> (u64, u64) {
    let (mut early, mut moved) = (0, 0);
    for client in net.clients() {
        let host = net.world.host(client);
        early += host.apps().filter(|a| a.report.early == Some(true)).count() as u64;
        let stats = host.keys().iter().filter_map(|k| host.engine.conn_stats(*k).ok());
        moved += stats.filter(|s| s.migrations > 0).count() as u64;
    }
    (early, moved)
}

fn is_over(app: &super::App) -> bool {
    app.report.closed.is_some()
}

/// Whether the server's application has nothing to do any more: its own streams are over, and what came was read.
fn has_done(app: &super::App) -> bool {
    app.is_done() || app.report.connected_us.is_some() && app.is_idle()
}

/// What a run is, and whether those that did not come to their end have a reason.
fn judge(net: &Net, meanwhile: Meanwhile) -> Result<End, String> {
    let mut end = End::Done;
    let hosts = net.hosts();
    let reasons = || hosts.iter().flat_map(|(_, h, _)| h.apps()).filter_map(|a| a.report.closed.as_ref());
    let gave_up = reasons().any(|(_, r)| is_the_network(r));
    for (name, host, _) in &hosts {
        for app in host.apps() {
            match &app.report.closed {
                None => {}
                Some(_) if meanwhile.closed => end = End::Closed,
                Some((_, reason)) if is_the_network(reason) || meanwhile.refuses(reason) => end = End::GaveUp,
                Some((_, CloseReason::StatelessReset)) if gave_up => end = End::GaveUp,
                Some((_, reason)) => return Err(format!("{name} ended without a reason of the network: {reason:?}")),
            }
        }
    }
    Ok(end)
}

/// Whether a connection may end so although nobody did anything wrong: nothing came any more, no address answers, or a client
/// whose address changed within the handshake showed the token of its old one.
fn is_the_network(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::IdleTimeout | CloseReason::HandshakeTimeout | CloseReason::NoPath => true,
        CloseReason::PeerTransport { code, .. } => {
            [TransportCode::INVALID_TOKEN, TransportCode::NO_VIABLE_PATH].contains(code)
        }
        _ => false,
    }
}

/// Every end says why its connection is over, and what it says goes together with what was done.
fn judge_reasons(net: &Net, end: End, meanwhile: Meanwhile) -> Result<(), String> {
    let told = |r: &CloseReason| {
        matches!(
            r,
            CloseReason::LocalApplication { code: 0 | 7, .. } | CloseReason::PeerApplication { code: 0 | 7, .. }
        )
    };
    // A close before the handshake is complete is told in another frame, without a code of the application (RFC 9000 section 10.2.3).
    let early = |r: &CloseReason| meanwhile.closed && matches!(r, CloseReason::PeerTransport { .. });
    // Whoever did not hear of the end of its connection is told by a reset, once the other end has forgotten it.
    let forgotten = |r: &CloseReason| end != End::Done && *r == CloseReason::StatelessReset;
    let fits = |r: &CloseReason| is_the_network(r) || told(r) || early(r) || forgotten(r) || meanwhile.refuses(r);
    for (name, host, _) in net.hosts() {
        for app in host.apps() {
            match &app.report.closed {
                Some((_, r)) if fits(r) => {}
                reason => return Err(format!("{name} ended with {reason:?} ({end:?})")),
            }
        }
    }
    Ok(())
}
