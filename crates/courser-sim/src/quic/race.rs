//! Runs a sender over one of the forty [`paths`](crate::paths) and takes the figures by which it is judged.
//!
//! Clients fetch by request; the sender that is judged is the server.

use courser_core::cid::{CidGenerator, RandomCids, SHORT_CID_LEN, ShortCids};
use courser_core::config::{Congestion, Settings};
use courser_core::engine::ConnStats;
use courser_core::protect::null::{NullTlsClient, NullTlsServer};

use super::{AppConfig, HostConfig, Job, Provider, QuicHost, Watch};
use crate::datagram::Datagram;
use crate::host::{Host, Outbox};
use crate::late::Late;
use crate::paths::{Path, Sender};
use crate::topology::addr;
use crate::world::HostId;

/// Payload of a full datagram, for what the link could carry.
const PAYLOAD: u64 = 1_472;
const SAMPLE_US: u64 = 50_000;

/// What a run over a path gave.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Bytes of the application per second that were delivered while judged, in percent of the link's capacity, all flows.
    pub goodput: f64,
    /// The same of the second half of the time.
    pub steady: f64,
    /// Datagrams that the way down dropped, in percent of what entered it.
    pub loss: f64,
    /// Waits in the bottleneck's queue that 95 % do not exceed, in milliseconds.
    pub queue_p95_ms: f64,
    /// Round trips that 95 % of the samples do not exceed, in milliseconds (smoothed, of the first flow's sender).
    pub rtt_p95_ms: f64,
    /// Losses that were none, in percent of the packets sent.
    pub needless: f64,
    /// Datagrams on the way back per 100 on the way down.
    pub back: f64,
    /// When a fetch with an end was done, in milliseconds.
    pub done_ms: Option<f64>,
    /// Jain's index of the flows' shares.
    pub jain: f64,
    /// Share of the first flow, in percent of what all flows got.
    pub share: f64,
    /// Probe timeouts of all senders.
    pub ptos: u64,
    /// Bytes that each flow's client had, with the time in microseconds, each 50 ms.
    pub progress: Vec<Vec<(u64, u64)>>,
    /// What should not have been; empty when all went well.
    pub wrong: Vec<String>,
}

/// Datagrams in flight, on average, of Reno with that loss (RFC 5681's sawtooth: the square root of 3/2 over the loss).
#[must_use]
pub fn reno_window(loss: f64) -> f64 {
    (1.5 / loss).sqrt()
}

/// Datagrams in flight, on average, of CUBIC with a round trip in seconds and that loss (RFC 9438 section 5.1), or Reno's
/// where those are more.
#[must_use]
pub fn cubic_window(rtt: f64, loss: f64) -> f64 {
    let curve = (0.4f64 * 3.7 / 1.2).powf(0.25) * rtt.powf(0.75) / loss.powf(0.75);
    curve.max(reno_window(loss))
}

/// The share of a link that so many full datagrams per round trip fill.
#[must_use]
pub fn response_share(window: f64, bits_per_s: u64, rtt: f64) -> f64 {
    window * (PAYLOAD as f64) * 8.0 / rtt / bits_per_s as f64
}

/// A client with the bytes it had at each time.
struct Racer {
    host: QuicHost,
    history: Vec<(u64, u64)>,
}

impl Racer {
    fn bytes(&self) -> u64 {
        self.host.app(0).map_or(0, |a| a.report.bytes_in)
    }

    fn at(&self, us: u64) -> u64 {
        let i = self.history.partition_point(|h| h.0 <= us);
        i.checked_sub(1).map_or(0, |i| self.history[i].1)
    }
}

impl Host for Racer {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        self.host.receive(now_us, d);
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        self.host.poll(now_us, out);
        let bytes = self.bytes();
        if self.history.last().is_none_or(|h| h.1 != bytes) {
            self.history.push((now_us, bytes));
        }
    }

    fn deadline(&self) -> Option<u64> {
        self.host.deadline()
    }
}

/// A client and its server.
type Pair = (HostId<Late<Racer>>, HostId<Late<QuicHost>>);

fn settings(congestion: Congestion) -> Settings {
    let mut settings = Settings::default();
    settings.congestion = congestion;
    settings.ack_frequency = true;
    settings
}

/// What connection IDs clients have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIds {
    /// Of three bytes, as client endpoints of `courser` have by default.
    #[default]
    Short,
    /// Of eight bytes, as endpoints have that take connections too.
    Long,
    /// None.
    None,
}

impl ClientIds {
    fn generator(self) -> Box<dyn CidGenerator> {
        match self {
            Self::Short => Box::new(ShortCids::default()),
            Self::Long => Box::new(RandomCids::default()),
            Self::None => Box::new(RandomCids::new(0)),
        }
    }

    const fn len(self) -> usize {
        match self {
            Self::Short => SHORT_CID_LEN,
            Self::Long => courser_core::cid::OWN_CID_LEN,
            Self::None => 0,
        }
    }
}

/// Runs a path with that congestion control.
///
/// # Panics
/// When a host never comes to rest.
#[must_use]
pub fn run(path: &Path, congestion: Congestion, seed: u64) -> Figures {
    run_with(path, congestion, seed, ClientIds::Short)
}

/// The same with clients whose connection IDs are like that.
///
/// # Panics
/// When a host never comes to rest.
#[must_use]
pub fn run_with(path: &Path, congestion: Congestion, seed: u64, client_ids: ClientIds) -> Figures {
    let mut net = path.dumbbell(seed);
    let mut pairs: Vec<Pair> = Vec::new();
    let mut watches = Vec::new();
    let mut figures = Figures::default();
    for (i, flow) in (0u16..).zip(&path.flows) {
        let kind = match flow.sender {
            Sender::Subject => congestion,
            Sender::RivalCubic => Congestion::Cubic,
            Sender::RivalBbr => Congestion::Bbr,
        };
        let most = path.capacity_bytes(0, path.duration_us, PAYLOAD).saturating_mul(2);
        let app = AppConfig { jobs: vec![Job::fetch(flow.bytes.unwrap_or(most))], ..AppConfig::default() };
        let n = seed.wrapping_mul(64).wrapping_add(i.into());
        let mut host = |me, provider, ids: ClientIds, peer_ids: ClientIds| {
            let watch = Watch::new(false);
            watch.set_cid_len(peer_ids.len());
            watches.push(watch.clone());
            let config = HostConfig { me, provider, settings: settings(kind), accept: AppConfig::default(), watch };
            QuicHost::new(config, move |engine| engine.cids = ids.generator())
        };
        let (dials, answers) =
            (Provider::null_client(n, NullTlsClient::default()), Provider::null_server(n, NullTlsServer::default()));
        let mut client = host(addr::client(i), dials, client_ids, ClientIds::Long);
        let server = host(addr::server(i), answers, ClientIds::Long, client_ids);
        client.dial(flow.start_us, addr::server(i), app);
        let client = Late::new(Racer { host: client, history: Vec::new() }, path.lateness, 2 * n);
        pairs.push(net.add_pair(client, Late::new(server, path.lateness, 2 * n + 1), &flow.access()));
    }
    let bounded = path.flows[0].bytes.is_some();
    let mut rtts = crate::stats::Histogram::default();
    let mut next_us = SAMPLE_US;
    while next_us <= path.duration_us {
        net.world.run_until(next_us).expect("time goes on");
        if let Some(stats) = sender_stats(net.world.host(pairs[0].1).host()) {
            rtts.add(u64::try_from(stats.rtt.as_micros()).unwrap_or(u64::MAX));
        }
        figures.progress.resize(pairs.len(), Vec::new());
        for (progress, pair) in figures.progress.iter_mut().zip(&pairs) {
            progress.push((next_us, net.world.host(pair.0).host().bytes()));
        }
        if bounded && net.world.host(pairs[0].0).host().host.is_done() {
            break;
        }
        next_us += SAMPLE_US;
    }
    figures.rtt_p95_ms = rtts.quantile(0.95) as f64 / 1e3;
    let clients: Vec<&Racer> = pairs.iter().map(|p| net.world.host(p.0).host()).collect();
    judge(&mut figures, path, &clients);
    let (up, down) = (net.world.link(net.up).stats(), net.world.link(net.down).stats());
    figures.loss = percent(down.dropped(), down.sent);
    figures.back = percent(up.sent, down.sent);
    figures.queue_p95_ms = down.waits_us.quantile(0.95) as f64 / 1e3;
    let (mut spurious, mut sent) = (0, 0);
    for stats in pairs.iter().filter_map(|p| sender_stats(net.world.host(p.1).host())) {
        spurious += stats.spurious_losses;
        sent += stats.sent.packets;
        figures.ptos += stats.ptos;
    }
    figures.needless = percent(spurious, sent);
    figures.wrong.extend(watches.iter().flat_map(Watch::complaints));
    for host in pairs.iter().flat_map(|p| [&net.world.host(p.0).host().host, net.world.host(p.1).host()]) {
        figures.wrong.extend(host.wrong.iter().cloned());
        figures.wrong.extend(host.apps().flat_map(|a| a.report.wrong.iter().cloned()));
        figures.wrong.extend(host.apps().filter_map(|a| a.report.closed.as_ref().map(|c| format!("{c:?}"))));
    }
    figures
}

fn sender_stats(host: &QuicHost) -> Option<ConnStats> {
    host.engine.conn_stats(*host.keys().first()?).ok()
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn judge(figures: &mut Figures, path: &Path, clients: &[&Racer]) {
    let first = &clients[0].host;
    let report = first.app(0).map(|a| a.report.clone()).unwrap_or_default();
    let last = report.last_byte_us.filter(|_| report.ends > 0);
    figures.done_ms = last.map(|us| us.saturating_sub(path.flows[0].start_us) as f64 / 1e3);
    let to = report.last_byte_us.filter(|_| path.flows[0].bytes.is_some()).unwrap_or(path.duration_us);
    let from = path.judge_from_us.max(report.first_byte_us.unwrap_or(0).min(to));
    let got = |from: u64, to: u64| -> Vec<u64> { clients.iter().map(|c| c.at(to) - c.at(from)).collect() };
    let share = |from: u64, to: u64| percent(got(from, to).iter().sum(), path.capacity_bytes(from, to, PAYLOAD));
    figures.goodput = share(from, to);
    figures.steady = share(from + (to - from) / 2, to);
    let shares: Vec<f64> = got(from, to).into_iter().map(|b| b as f64).collect();
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|s| s * s).sum();
    figures.jain = sum * sum / (shares.len() as f64 * squares).max(1.0);
    figures.share = 100.0 * shares[0] / sum.max(1.0);
}
