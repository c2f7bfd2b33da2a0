//! Runs that nobody thought of: everything about them is drawn from a seed.
//!
//! A [`Plan`] is a path (rates, delays, queues, losses, reordering, copies, damage, holes for large datagrams, what becomes of ECN, a
//! translator that rebinds), settings of both ends, streams of both, and [`Act`]s: what applications and operators do in the
//! middle of it. [`run`] carries it out and judges:
//!
//! - every byte that is read is the one that was written there, every stream that nobody gave up ends where it should;
//! - both ends finish, or say why not, with one of the few reasons that a bad network is;
//! - no datagram that is built breaks a rule (`wire::legality`), no host works without end;
//! - at the end there is no connection, route, buffer or timer left.
//!
//! ```
//! use courser_sim::quic::swarm;
//!
//! let ran = swarm::run(7).expect("nothing is wrong");
//! assert_eq!(swarm::run(7), Ok(ran), "the same seed, the same run");
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use courser_core::cid::{RandomCids, ShortCids};
use courser_core::config::{Congestion, Settings, StreamSchedule};
use courser_core::engine::{EngineConfig, RetryPolicy};
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::{Side, StreamId, Version};
use courser_core::stream::Priority;

use super::{Job, Net, NetConfig, Pace, QuicHost};
use crate::config::{Duplex, LinkConfig};
use crate::nat::NatConfig;
use crate::node::codel::Codel;
use crate::node::corrupt::Damage;
use crate::node::ecn::Ecn;
use crate::rng::Rng;
use crate::topology::addr;
use crate::world::HostId;

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
    /// A further stream.
    Add(Job),
    /// It reads in another way.
    Pace(Pace),
    /// The translator gives another outside address; without one nothing happens.
    Rebind,
    /// The connection is closed.
    Close,
}

/// A run that was drawn.
pub struct Plan {
    /// What is connected, and how.
    pub net: NetConfig,
    /// What happens meanwhile: when, at which end, what.
    pub acts: Vec<(u64, Side, Act)>,
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
    /// Bytes that were read and right, at both ends.
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

/// Draws the run of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut rng = Rng::stream(seed, 0x5741_524d);
    let (up, down) = (draw_link(&mut rng), draw_link(&mut rng));
    let text = format!("up {up:?}\ndown {down:?}");
    let mut net = NetConfig::new(seed, Duplex::new(up, down));
    (net.client, net.server) = (draw_settings(&mut rng), draw_settings(&mut rng));
    if rng.chance(0.3) {
        net.client.versions = vec![Version::V1];
    }
    if rng.chance(0.25) {
        net = net.nat(NatConfig::new(addr::public(1)).next_address(addr::public(2)));
        // An inside host that is silent is not found again from outside.
        net.client.keep_alive = Some(Duration::from_millis(500));
    }
    net.hello_len = if rng.chance(0.2) { 1_800 } else { 0 };
    let retry = rng.chance(0.2);
    net = net.engine(move |e| {
        if let Some(server) = e.server.as_mut().filter(|_| retry) {
            server.retry = RetryPolicy::Always;
        }
    });
    let ids = rng.below(4);
    net = net.client_engine(move |e| choose_ids(e, ids));
    net.app.jobs = draw_jobs(&mut rng, 1);
    net.accept.jobs = draw_jobs(&mut rng, 0);
    net.app.pace = draw_pace(&mut rng);
    net.accept.pace = draw_pace(&mut rng);
    let acts = draw_acts(&mut rng);
    let text = format!(
        "{text}\nclient {:?}\nserver {:?}\njobs {:?} and {:?}, nat {}, retry {retry}, ids {ids}\nacts {acts:?}",
        net.client,
        net.server,
        net.app.jobs,
        net.accept.jobs,
        net.nat.is_some()
    );
    Plan { net, acts, text }
}

fn choose_ids(engine: &mut EngineConfig, kind: u64) {
    match kind {
        0 => engine.cids = Box::new(RandomCids::new(0)),
        1 => engine.cids = Box::new(ShortCids::default()),
        2 => engine.cids = Box::new(RandomCids::new(20)),
        _ => {}
    }
}

/// A number whose logarithm is even between those of two.
fn between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    (low as f64 * (high as f64 / low as f64).powf(rng.unit())) as u64
}

fn draw_link(rng: &mut Rng) -> LinkConfig {
    let rate = between(rng, 300_000, 200_000_000);
    let delay = between(rng, 50, 300 * MS);
    let queue = between(rng, 6_000, 400_000);
    let mut link = LinkConfig::new().rate(rate).delay_us(delay).queue_bytes(queue);
    if rng.chance(0.2) {
        link = link.codel(Codel { target_us: 5 * MS, interval_us: 100 * MS, mark: rng.chance(0.5) });
    }
    link = match rng.below(4) {
        0 => link.loss(rng.unit() * 0.3),
        1 => link.loss_bursts(rng.unit() * 0.15, 1.5 + rng.unit() * 3.0),
        _ => link,
    };
    if rng.chance(0.2) {
        link = link.reorder(rng.unit() * 0.2, between(rng, 1_000, 100 * MS));
    }
    if rng.chance(0.2) {
        link = link.jitter(between(rng, 100, 50 * MS), rng.chance(0.5));
    }
    if rng.chance(0.2) {
        link = link.duplicate(rng.unit() * 0.2);
    }
    if rng.chance(0.2) {
        let damage = match rng.below(4) {
            0 => Damage::FlipBits(1 + rng.below(8) as u32),
            1 => Damage::ChangeByte { span: 20 },
            2 => Damage::Truncate,
            _ => Damage::TruncateTo(rng.below(1_300) as usize),
        };
        link = link.corrupt(rng.unit() * 0.2, damage);
    }
    if rng.chance(0.2) {
        link = link.mtu(1_200 + rng.below(280) as usize);
    }
    if rng.chance(0.3) {
        let bits = [Ecn::Bleach, Ecn::Mark(rng.unit()), Ecn::DropCapable];
        link = link.ecn(bits[rng.below(3) as usize]);
    }
    if rng.chance(0.1) {
        let from = rng.below(5 * S);
        link = link.dead(from, from + rng.below(2 * S));
    }
    link
}

fn draw_settings(rng: &mut Rng) -> Settings {
    let mut s = Settings::default();
    s.stream_window = between(rng, 1_000, 300_000);
    s.stream_window_max = s.stream_window * (1 + rng.below(8));
    s.conn_window = s.stream_window * (1 + rng.below(3));
    s.conn_window_max = s.conn_window.max(s.stream_window_max) * (1 + rng.below(3));
    s.send_window = between(rng, 4_096, 1 << 20);
    s.max_streams_bidi = 1 + rng.below(20);
    s.max_streams_uni = 1 + rng.below(20);
    s.max_udp_payload = 1_200 + rng.below(273) as u16;
    s.mtu_discovery = rng.chance(0.7);
    s.congestion =
        [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr, Congestion::ADAPTIVE][rng.below(4) as usize];
    s.pacing = rng.chance(0.9);
    s.schedule =
        if rng.chance(0.2) { StreamSchedule::Sequential } else { StreamSchedule::RoundRobin(1 + rng.below(16) as u16) };
    s.active_cid_limit = 2 + rng.below(7) as u8;
    s.rotate_after = rng.chance(0.2).then(|| Duration::from_millis(50 + rng.below(500)));
    s.dormant_after = rng.chance(0.8).then(|| Duration::from_millis(1 + rng.below(300)));
    s.max_ack_delay = Duration::from_millis(1 + rng.below(100));
    s.ack_frequency = rng.chance(0.5);
    s.ecn = rng.chance(0.8);
    s.max_datagram_frame = if rng.chance(0.2) { 0 } else { 65_535 };
    s.reset_stream_at = rng.chance(0.5);
    s.grease = rng.chance(0.5);
    s.spin = rng.chance(0.5);
    s
}

fn draw_job(rng: &mut Rng) -> Job {
    let (up, down) = (between(rng, 1, 150_000) - 1, between(rng, 1, 150_000) - 1);
    let job = if rng.chance(0.3) { Job::send(up) } else { Job::exchange(up, down) };
    if rng.chance(0.5) { job.at(rng.below(3 * S)) } else { job }
}

fn draw_jobs(rng: &mut Rng, least: u64) -> Vec<Job> {
    let count = least + rng.below(6);
    let mut jobs: Vec<Job> = (0..count).map(|_| draw_job(rng)).collect();
    jobs.sort_by_key(|j| j.at_us);
    jobs
}

fn draw_pace(rng: &mut Rng) -> Pace {
    if rng.chance(0.8) {
        return Pace::Greedy;
    }
    Pace::Every { bytes: between(rng, 500, 50_000) as usize, us: between(rng, 500, 20 * MS) }
}

fn draw_acts(rng: &mut Rng) -> Vec<(u64, Side, Act)> {
    let mut acts: Vec<_> = (0..rng.below(12)).map(|_| (rng.below(4 * S), draw_side(rng), draw_act(rng))).collect();
    if rng.chance(0.1) {
        acts.push((rng.below(4 * S), draw_side(rng), Act::Close));
    }
    acts.sort_by_key(|(at, ..)| *at);
    acts
}

fn draw_side(rng: &mut Rng) -> Side {
    if rng.chance(0.5) { Side::Client } else { Side::Server }
}

fn draw_act(rng: &mut Rng) -> Act {
    match rng.below(8) {
        0 => Act::UpdateKeys,
        1 => Act::RotateIds,
        2 => Act::Datagram(rng.below(1_300) as usize),
        3 => Act::Abandon(rng.next_u64()),
        4 => Act::Prioritise(rng.next_u64(), rng.below(9) as u8, rng.chance(0.5)),
        5 => Act::Add(draw_job(rng)),
        6 => Act::Pace(draw_pace(rng)),
        _ => Act::Rebind,
    }
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

fn carry_out(plan: Plan) -> Result<Ran, String> {
    plan.net.client.validate().and(plan.net.server.validate()).map_err(|e| format!("{e:?}"))?;
    let mut net = Net::new(plan.net);
    let (mut closed, mut arrived) = (None, 0);
    for (at, side, act) in plan.acts {
        net.run_until(at);
        arrived += read_datagrams(&mut net)?;
        // The first one to close is who has it told; the other end may do as it likes.
        if perform(&mut net, side, act) && closed.is_none() {
            closed = Some(side);
        }
    }
    let (client, server) = (net.client, net.server);
    let over = |h: &QuicHost| h.app(0).is_some_and(|a| a.report.closed.is_some());
    let done = |c: &QuicHost, s: &QuicHost| c.is_done() && has_done(s);
    let stop = net.world.run_until_true(PATIENCE_US, |w| {
        let (c, s) = (w.host(client), w.host(server));
        done(c, s) || over(c) || over(s)
    });
    stop.map_err(|stuck| format!("{stuck:?}"))?;
    net.assert_sound();
    arrived += read_datagrams(&mut net)?;
    let end = if done(net.client(), net.server()) { End::Done } else { judge(&net, closed)? };
    net.finish();
    judge_reasons(&net, end, closed)?;
    let bytes = net.client().apps().chain(net.server().apps()).map(|a| a.report.bytes_in).sum();
    Ok(Ran { end, bytes, datagrams: arrived, time_us: net.world.now_us(), trace: net.world.trace_hash() })
}

/// Whether the server's application has nothing to do any more: its own streams are over, and what came was read.
fn has_done(server: &QuicHost) -> bool {
    server.app(0).is_some_and(|a| a.is_done() || a.report.connected_us.is_some() && a.is_idle())
}

/// What a run is that did not come to its end.
fn judge(net: &Net, closed: Option<Side>) -> Result<End, String> {
    match (net.client_reason().or(net.server_reason()), closed) {
        (Some(_), Some(_)) => Ok(End::Closed),
        (Some(reason), None) if is_the_network(&reason) => Ok(End::GaveUp),
        (reason, None) => Err(format!("stuck, or ended without a reason of the network: {reason:?}")),
        (None, Some(side)) => Err(format!("closed by the {side:?}, and nobody knows")),
    }
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

/// Both ends say why the connection is over, and what they say goes together.
fn judge_reasons(net: &Net, end: End, closed: Option<Side>) -> Result<(), String> {
    let told = |r: &CloseReason| {
        matches!(
            r,
            CloseReason::LocalApplication { code: 0 | 7, .. } | CloseReason::PeerApplication { code: 0 | 7, .. }
        )
    };
    // A close before the handshake is complete is told in another frame, without a code of the application (RFC 9000 section 10.2.3).
    let early = |r: &CloseReason| closed.is_some() && matches!(r, CloseReason::PeerTransport { .. });
    for (name, reason) in [("client", net.client_reason()), ("server", net.server_reason())] {
        match reason {
            Some(reason) if is_the_network(&reason) || told(&reason) || early(&reason) => {}
            // A server that never heard of the client, or had no time to accept it.
            None if name == "server" && end != End::Done => {}
            reason => return Err(format!("{name} ended with {reason:?} ({end:?})")),
        }
    }
    Ok(())
}

fn id_of(net: &Net, side: Side) -> HostId<QuicHost> {
    if side == Side::Client { net.client } else { net.server }
}

/// Does it; says whether that has closed the connection.
fn perform(net: &mut Net, side: Side, act: Act) -> bool {
    let (id, now_us) = (id_of(net, side), net.world.now_us());
    if act == Act::Rebind {
        if let Some(nat) = net.nat {
            net.world.rebind(nat);
        }
        return false;
    }
    let Some(&key) = net.world.host(id).keys().first() else { return false };
    let host = net.world.host_mut(id);
    let now = QuicHost::instant(now_us);
    // What is not possible now, before the handshake or after the end, is said so and changes nothing.
    match act {
        Act::UpdateKeys => drop(host.engine.update_keys(now, key)),
        Act::RotateIds => drop(host.engine.rotate_connection_ids(now, key)),
        Act::Datagram(len) => drop(host.engine.send_datagram(key, Bytes::from(vec![len as u8; len]), None)),
        Act::Abandon(which) => {
            if let Some(stream) = pick(host, which) {
                let _ = host.engine.reset(key, stream, 9);
                let _ = host.engine.stop_sending(key, stream, 9);
                if let Some(app) = host.app_mut(0) {
                    app.abandon(now_us, stream);
                }
            }
        }
        Act::Prioritise(which, urgency, incremental) => {
            if let Some(stream) = pick(host, which) {
                let _ = host.engine.set_priority(key, stream, Priority { urgency, incremental });
            }
        }
        Act::Add(job) => {
            if let Some(app) = host.app_mut(0).filter(|a| a.report.closed.is_none()) {
                app.add(job.at(now_us + 1));
            }
        }
        Act::Pace(pace) => {
            if let Some(app) = host.app_mut(0) {
                app.set_pace(pace);
            }
        }
        Act::Close => {
            let closes = host.engine.close(now, key, 7, b"enough").is_ok();
            if let Some(app) = host.app_mut(0).filter(|_| closes) {
                app.give_up();
            }
            return closes;
        }
        Act::Rebind => {}
    }
    false
}

/// One of the streams that are not over at that end.
fn pick(host: &QuicHost, which: u64) -> Option<StreamId> {
    let streams: Vec<StreamId> = host.app(0)?.streams().collect();
    streams.get((which % streams.len().max(1) as u64) as usize).copied()
}

fn read_datagrams(net: &mut Net) -> Result<u64, String> {
    let mut count = 0;
    for id in [net.client, net.server] {
        let Some(&key) = net.world.host(id).keys().first() else { continue };
        while let Ok(Some(datagram)) = net.world.host_mut(id).engine.read_datagram(key) {
            if datagram.iter().any(|b| usize::from(*b) != datagram.len() & 0xff) {
                return Err(format!("a datagram of {} bytes is not as it was sent", datagram.len()));
            }
            count += 1;
        }
    }
    Ok(count)
}
