//! How a run is drawn.

use std::time::Duration;

use courser_core::cid::{RandomCids, ShortCids};
use courser_core::config::{Congestion, Settings, StreamSchedule};
use courser_core::engine::{EngineConfig, RetryPolicy};
use courser_core::ids::{Side, Version};
use courser_core::protect::null::{NullTlsClient, told_by};

use super::{Act, Deed, MS, Other, Plan, S};
use crate::config::{Duplex, LinkConfig};
use crate::nat::NatConfig;
use crate::node::codel::Codel;
use crate::node::corrupt::Damage;
use crate::node::ecn::Ecn;
use crate::quic::{AppConfig, Job, NetConfig, Pace, Provider};
use crate::rng::Rng;
use crate::topology::addr;

/// Draws the run of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut rng = Rng::stream(seed, 0x5741_524d);
    let link = draw_duplex(&mut rng);
    let mut text = format!("up {:?}\ndown {:?}", link.up, link.down);
    let mut net = NetConfig::new(seed, link);
    (net.client, net.server) = (draw_settings(&mut rng), draw_settings(&mut rng));
    draw_versions(&mut rng, &mut net);
    net.hello_len = if rng.chance(0.2) { 1_800 } else { 0 };
    let (retry, ids) = (rng.chance(0.2), rng.below(4));
    net = net.engine(move |e| {
        if let Some(server) = e.server.as_mut().filter(|_| retry) {
            server.retry = RetryPolicy::Always;
        }
    });
    net = net.client_engine(move |e| choose_ids(e, ids));
    net = draw_places(&mut rng, net);
    let early = draw_early(&mut rng, &mut net);
    let others: Vec<Other> =
        if rng.chance(0.75) { Vec::new() } else { (0..1 + rng.below(3)).map(|_| draw_other(&mut rng, &net)).collect() };
    net.app = draw_app(&mut rng, &[&net.client, &net.server], 1);
    // The server does the same for all clients: what the narrowest of them can take.
    let ends: Vec<&Settings> = others.iter().map(|o| &o.settings).chain([&net.client, &net.server]).collect();
    net.accept = draw_app(&mut rng, &ends, 0);
    // Without connection IDs an address of the client is one connection to a server.
    let more = if ids == 0 || rng.chance(0.7) { 0 } else { 1 + rng.below(3) };
    let dials: Vec<_> =
        (0..more).map(|_| (rng.below(3 * S), draw_app(&mut rng, &[&net.client, &net.server], 1))).collect();
    let deeds = draw_deeds(&mut rng);
    text += &format!(
        "\nclient {:?}\nserver {:?}\njobs {:?} and {:?}, nat {}, retry {retry}, ids {ids}, 0-RTT {early:?}, preferred {:?}\n\
         further connections {dials:?}\nfurther clients {:?}\ndeeds {deeds:?}",
        net.client,
        net.server,
        net.app,
        net.accept,
        net.nat.is_some(),
        net.server.preferred_v4,
        others.iter().map(|o| (&o.link, &o.settings, &o.dial)).collect::<Vec<_>>(),
    );
    Plan { net, dials, others, ids, deeds, text }
}

/// A further client. Servers speak to all with the same settings, so that only what is the client's own is drawn.
fn draw_other(rng: &mut Rng, net: &NetConfig) -> Other {
    let (mut settings, link) = (draw_settings(rng), draw_duplex(rng));
    settings.versions = net.client.versions.clone();
    let app = draw_app(rng, &[&settings, &net.server], 1);
    Other { link, settings, dial: (rng.below(3 * S), app) }
}

/// Both versions at both ends most of the time; one end may know the first one alone.
fn draw_versions(rng: &mut Rng, net: &mut NetConfig) {
    match rng.below(10) {
        0..=2 => net.client.versions = vec![Version::V1],
        3 => net.server.versions = vec![Version::V1],
        4 => net.client.versions = vec![Version::V2, Version::V1],
        5 => net.client.initial_version = net.client.versions.last().copied(),
        _ => {}
    }
}

/// A translator, a second address of the client, a preferred one of the server.
fn draw_places(rng: &mut Rng, mut net: NetConfig) -> NetConfig {
    net.client_also = vec![addr::client(7).ip()];
    if rng.chance(0.25) {
        net = net.nat(NatConfig::new(addr::public(1)).next_address(addr::public(2)));
        net.client_also.clear();
        // An inside host that is silent is not found again from outside.
        net.client.keep_alive = Some(Duration::from_millis(500));
    }
    if rng.chance(0.2)
        && let std::net::SocketAddr::V4(at) = addr::server(1)
    {
        net.server_also = vec![addr::server(1).ip()];
        net.server.preferred_v4 = Some(at);
    }
    net
}

/// 0-RTT of the first client: what it remembers is what the server is, or what another one was that it is not any more.
fn draw_early(rng: &mut Rng, net: &mut NetConfig) -> Option<bool> {
    let accept = rng.chance(0.3).then(|| rng.chance(0.7));
    if let Some(accept) = accept {
        let remembered = if accept { told_by(&net.server) } else { told_by(&draw_settings(rng)) };
        let hello_len = net.hello_len;
        let client = NullTlsClient { hello_len, remembered: Some(remembered), ..NullTlsClient::default() };
        net.client_provider = Some(Provider::null_client(net.seed, client));
        net.tls.accept_early_data = accept;
    }
    accept
}

pub(super) fn choose_ids(engine: &mut EngineConfig, kind: u64) {
    match kind {
        0 => engine.cids = Box::new(RandomCids::new(0)),
        1 => engine.cids = Box::new(ShortCids::default()),
        2 => engine.cids = Box::new(RandomCids::new(20)),
        _ => {}
    }
}

fn draw_duplex(rng: &mut Rng) -> Duplex {
    Duplex::new(draw_link(rng), draw_link(rng))
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
    s.stream_window = if rng.chance(0.1) { between(rng, 16, 1_000) } else { between(rng, 1_000, 300_000) };
    s.stream_window_max = s.stream_window * (1 + rng.below(8));
    s.conn_window = s.stream_window * (1 + rng.below(3));
    s.conn_window_max = s.conn_window.max(s.stream_window_max) * (1 + rng.below(3));
    s.send_window = between(rng, 4_096, 1 << 20);
    let streams = if rng.chance(0.3) { 2 } else { 20 };
    (s.max_streams_bidi, s.max_streams_uni) = (1 + rng.below(streams), 1 + rng.below(streams));
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

/// A job; no stream is so long that its windows make it take for ever.
fn draw_job(rng: &mut Rng, longest: u64) -> Job {
    let (up, down) = (between(rng, 1, longest) - 1, between(rng, 1, longest) - 1);
    let job = if rng.chance(0.3) { Job::send(up) } else { Job::exchange(up, down) };
    if rng.chance(0.5) { job.at(rng.below(3 * S)) } else { job }
}

/// What an application does between ends with these settings.
fn draw_app(rng: &mut Rng, ends: &[&Settings], least: u64) -> AppConfig {
    let narrowest = ends.iter().map(|s| s.stream_window).min().unwrap_or(0);
    let longest = (narrowest * 40).clamp(500, 150_000);
    let mut jobs: Vec<Job> = (0..least + rng.below(6)).map(|_| draw_job(rng, longest)).collect();
    jobs.sort_by_key(|j| j.at_us);
    AppConfig { jobs, pace: draw_pace(rng), close_when_done: false }
}

fn draw_pace(rng: &mut Rng) -> Pace {
    if rng.chance(0.8) {
        return Pace::Greedy;
    }
    Pace::Every { bytes: between(rng, 500, 50_000) as usize, us: between(rng, 500, 20 * MS) }
}

fn draw_deeds(rng: &mut Rng) -> Vec<Deed> {
    let mut deeds: Vec<Deed> = (0..rng.below(12))
        .map(|_| {
            let act = draw_act(rng);
            draw_deed(rng, act)
        })
        .collect();
    // What ends things is rare, so that most runs have something to show for themselves.
    for (chance, act) in [(0.08, Act::Close), (0.03, Act::CloseAll), (0.05, Act::Drain(true))] {
        if rng.chance(chance) {
            deeds.push(draw_deed(rng, act));
        }
    }
    if rng.chance(0.2) {
        deeds.push(draw_deed(rng, Act::Move));
    }
    if deeds.iter().any(|d| d.act == Act::Drain(true)) && rng.chance(0.7) {
        deeds.push(draw_deed(rng, Act::Drain(false)));
    }
    deeds.sort_by_key(|d| d.at_us);
    deeds
}

fn draw_deed(rng: &mut Rng, act: Act) -> Deed {
    let side = if rng.chance(0.5) { Side::Client } else { Side::Server };
    Deed { at_us: rng.below(4 * S), side, which: rng.next_u64() >> 1, act }
}

fn draw_act(rng: &mut Rng) -> Act {
    match rng.below(11) {
        0 | 1 => Act::UpdateKeys,
        2 => Act::RotateIds,
        3 => Act::Datagram(rng.below(1_300) as usize),
        4 => Act::Abandon(rng.next_u64()),
        5 => Act::Prioritise(rng.next_u64(), rng.below(9) as u8, rng.chance(0.5)),
        6 => Act::Add(draw_job(rng, 20_000)),
        7 => Act::Pace(draw_pace(rng)),
        8 => Act::Flush(rng.next_u64()),
        9 => [Act::Ping, Act::FullSocket(rng.below(2_000))][rng.below(2) as usize],
        _ => Act::Rebind,
    }
}
