//! What observers are told of a connection.
//!
//! Every call tests one bit of the observer's interest before it looks at anything; without an observer that is all that
//! it costs. Events that belong to no other place in particular are found at the tick.

use super::setup::{ServerStart, local_params};
use super::{Connection, Env};
use crate::ids::{Cid, ConnKey, Level, Side, StreamId};
use crate::observe::{Dropped, Event as Observed, Kind, Marks, Metrics, Start, Step, Way};
use crate::path::Path;
use crate::protect::Opened;
use crate::recovery::ecn::EcnState;
use crate::stream::Read;
use crate::time::Instant;

impl Connection {
    /// A connection begins; `original` is the client's first choice of a connection ID, where it is not the present one.
    pub(crate) fn observe_start(&self, env: &mut Env, now: Instant, original: Option<Cid>) {
        if !env.interest.wants(Kind::Life) {
            return;
        }
        let chosen = self.handshake.as_ref().map_or(Cid::EMPTY, |h| h.original_dcid);
        let settings = self.settings(env).clone();
        let start = Start {
            side: self.side,
            version: self.version,
            versions: &settings.versions,
            original_dcid: original.unwrap_or(chosen),
            local_cid: self.local_cids.first().cid,
            remote_cid: self.remote_cids.active(),
            remote: self.path.remote(),
            local: self.path.local(),
            params: &local_params(&settings, self.version),
            metrics: self.metrics(),
        };
        env.tell(now, self.key, Kind::Life, &Observed::Life(Step::Started(&start)));
        if let Some(remembered) = self.handshake.as_ref().and_then(|h| h.remembered.as_deref()) {
            env.tell(now, self.key, Kind::Life, &Observed::Life(Step::Restored(remembered)));
        }
    }

    /// The connection is freed.
    pub(crate) fn observe_end(&mut self, env: &mut Env, now: Instant) {
        self.observe_tick(env, now);
        env.tell(now, self.key, Kind::Life, &Observed::Life(Step::Ended));
    }

    /// What came about since the last tick.
    pub(crate) fn observe_tick(&mut self, env: &mut Env, now: Instant) {
        self.observe_update(env, now, false);
        if !self.end_told
            && let Some(reason) = &self.reason
        {
            env.tell(now, self.key, Kind::Life, &Observed::Life(Step::Closing(reason)));
            self.end_told = true;
        }
    }

    /// Counts an update of the sending keys, once.
    pub(super) fn observe_update(&mut self, env: &mut Env, now: Instant, remote: bool) {
        let generation = self.keys.generation();
        if generation > self.stats.rare.key_updates {
            self.stats.rare.key_updates = generation;
            env.observe(now, self.key, Kind::Life, || Observed::Life(Step::KeyUpdate { generation, remote }));
        }
    }

    /// A packet was opened.
    pub(super) fn observe_opened(
        &self,
        env: &mut Env,
        now: Instant,
        level: Level,
        packet: &[u8],
        opened: &Opened,
        waited: bool,
    ) {
        if env.interest.wants(Kind::PacketOpened) {
            let header = packet.get(..opened.header_len).unwrap_or(&[]);
            let payload = packet.get(opened.payload.clone()).unwrap_or(&[]);
            let (pn, packet_len) = (opened.pn, packet.len());
            let event = Observed::PacketOpened { level, pn, header, packet_len, payload, waited };
            env.tell(now, self.key, Kind::PacketOpened, &event);
        }
    }

    /// Counts a packet that is dropped.
    pub(super) fn drop_packet(&mut self, env: &mut Env, now: Instant, level: Option<Level>, size: usize, why: Dropped) {
        let stats = &mut self.stats;
        *match why {
            Dropped::Duplicate => &mut stats.rare.duplicates,
            Dropped::NotAuthentic => &mut stats.rare.undecryptable,
            Dropped::Unexpected | Dropped::NoKeys => &mut stats.rare.dropped_packets,
            Dropped::Address => &mut stats.rare.dropped_address,
        } += 1;
        env.observe(now, self.key, Kind::PacketDropped, || Observed::PacketDropped { level, size, why });
    }

    /// Data went between the application and the connection. An end without bytes is told too.
    pub(super) fn moved(&self, env: &mut Env, stream: Option<StreamId>, len: usize, way: Way, fin: bool) {
        if len > 0 || fin {
            env.observe(env.now, self.key, Kind::Data, || Observed::Moved { stream, len, way, fin });
        }
    }

    /// The application read from a stream.
    pub(super) fn moved_in(&self, env: &mut Env, id: StreamId, read: Read) {
        match read {
            Read::Bytes(n) => self.moved(env, Some(id), n, Way::In, false),
            Read::Finished => self.moved(env, Some(id), 0, Way::In, true),
            Read::Blocked => {}
        }
    }

    /// Recovery or congestion control changed.
    pub(super) fn observe_metrics(&self, env: &mut Env, now: Instant) {
        if env.interest.wants(Kind::Congestion) {
            env.tell(now, self.key, Kind::Congestion, &Observed::Congestion(self.metrics()));
        }
    }

    fn metrics(&self) -> Metrics {
        metrics_of(&self.path, self.recovery.pto_count())
    }
}

/// Tells observers of a client that a server lets begin; `local` is our connection ID.
pub(crate) fn observe_server(env: &mut Env, now: Instant, key: ConnKey, start: &ServerStart<'_>, local: Cid) {
    if !env.interest.wants(Kind::Life) {
        return;
    }
    let path = Path::new(start.remote, start.local, start.scid, start.validated, start.settings, now);
    let told = Start {
        side: Side::Server,
        version: start.version,
        versions: &start.settings.versions,
        original_dcid: start.retried_from.unwrap_or(start.dcid),
        local_cid: local,
        remote_cid: start.scid,
        remote: start.remote,
        local: start.local,
        params: &local_params(start.settings, start.version),
        metrics: metrics_of(&path, 0),
    };
    env.tell(now, key, Kind::Life, &Observed::Life(Step::Started(&told)));
}

fn metrics_of(path: &Path, pto_count: u32) -> Metrics {
    Metrics {
        window: path.congestion.window(),
        in_flight: path.congestion.in_flight(),
        ssthresh: path.congestion.ssthresh(),
        latest_rtt: path.rtt.latest(),
        rtt: path.rtt.smoothed(),
        min_rtt: path.rtt.min(),
        rtt_var: path.rtt.var(),
        rtt_known: path.rtt.has_sample(),
        pto_count,
        pacing_rate: path.pacer.rate(),
        mtu: path.pmtud.current(),
        mtu_done: path.pmtud.is_complete(),
        phase: path.congestion.phase(),
        marks: match path.ecn.state() {
            EcnState::Testing => Marks::Testing,
            EcnState::Unknown => Marks::Unknown,
            EcnState::Capable => Marks::Capable,
            EcnState::Failed => Marks::Failed,
        },
    }
}
