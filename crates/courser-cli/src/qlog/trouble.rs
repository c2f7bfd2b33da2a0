//! What went wrong, by name.
//!
//! Each detector looks at events as they come and keeps a few numbers:
//!
//! - *blackhole*: probe timeouts in a row while nothing was received;
//! - *loss burst*: many packets declared lost close together, where no blackhole explains them;
//! - *flow-control stall*: data waited for credit for a good part of the time;
//! - *address change*: the peer's packets came from elsewhere, or the connection moved;
//! - *amplification limit*: a server waited for its client's address to be proven.
//!
//! Packets that were sent before and during a blackhole and are declared lost after it belong to it.

use serde::Serialize;

use super::event::Event;

/// Troubles that are kept; more are counted.
const KEPT_MAX: usize = 64;
/// Probe timeouts in a row that are a blackhole.
const BLACKHOLE_PTOS: u32 = 3;
/// Losses close together that are a burst.
const BURST_LEAST: u64 = 8;
/// Losses belong to one burst when they are that close, in milliseconds, or two round trips.
const BURST_GAP_MS: f64 = 50.0;
/// A stall is told when it took so much of the time between the first and the last byte,
const STALL_SHARE: f64 = 0.2;
/// and so many round trips;
const STALL_ROUNDS: f64 = 3.0;
/// only waits of this part of a round trip count: credit that is renewed in time makes the sender wait a little, too.
const WAIT_ROUNDS: f64 = 0.8;
/// Round trip that is assumed without a sample, in milliseconds.
const RTT_ASSUMED_MS: f64 = 100.0;
/// A server that waited less for a proof of address than this part of a round trip was not held up.
const AMPLIFICATION_ROUNDS: f64 = 0.4;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The peer's address changed.
    AddressChange,
    /// Nothing came through for a while.
    Blackhole,
    /// Many packets were lost close together.
    LossBurst,
    /// Data waited for credit.
    FlowControlStall,
    /// A server had to wait until the address was proven.
    AmplificationLimit,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trouble {
    /// What.
    pub cause: Cause,
    /// From when, in milliseconds of the trace.
    pub from_ms: f64,
    /// Until when.
    pub to_ms: f64,
    /// One sentence.
    pub detail: String,
}

/// A run of losses.
#[derive(Clone, Copy, Debug)]
struct Burst {
    from: f64,
    to: f64,
    count: u64,
}

/// What limits the sender, as events tell it.
#[derive(Clone, Debug, Default)]
struct Held {
    since: Option<f64>,
    total: f64,
    from: f64,
    to: f64,
    /// The total when something was last received.
    marked: f64,
}

impl Held {
    fn begin(&mut self, ms: f64) {
        if self.since.is_none() {
            self.since = Some(ms);
        }
    }

    fn mark(&mut self, ms: f64) {
        self.marked = self.total + self.since.map_or(0.0, |since| (ms - since).max(0.0));
    }

    /// It ends. Waits that are shorter than `least` are the usual rhythm of credit and do not count.
    fn end(&mut self, ms: f64, least: f64) {
        if let Some(since) = self.since.take().filter(|since| ms - since >= least) {
            if self.total == 0.0 {
                self.from = since;
            }
            self.total += ms - since;
            self.to = ms;
        }
    }
}

/// Whether a probe timeout fired.
pub(super) fn is_probe_timeout(event: &Event) -> bool {
    event.text("/timer_type") == Some("pto") && event.text("/event_type") == Some("expired")
}

/// Looks at events and finds troubles.
#[derive(Clone, Debug, Default)]
pub struct Detective {
    /// When something was last received.
    heard: Option<f64>,
    /// Probe timeouts since.
    silent_ptos: u32,
    /// The last blackhole, and when a packet came after it.
    dark: Option<(f64, f64)>,
    burst: Option<Burst>,
    rtt_ms: Option<f64>,
    stream_credit: Held,
    conn_credit: Held,
    amplification: Held,
    /// The file tells what limits the sender; otherwise frames do.
    told_limits: bool,
    first_data: Option<f64>,
    last_data: f64,
    moved: Option<(f64, f64, String)>,
    elsewhere: u64,
    found: Vec<Trouble>,
    /// Troubles beyond those that are kept.
    pub more: u64,
}

impl Detective {
    /// Looks at one event.
    pub fn see(&mut self, event: &Event) {
        if let Some(rtt) = event.number("/smoothed_rtt").filter(|_| event.name == "recovery_metrics_updated") {
            self.rtt_ms = Some(rtt);
        }
        match event.name.as_str() {
            "packet_received" => self.on_received(event),
            "packet_sent" => self.on_sent(event),
            "packet_lost" => self.on_lost(event),
            "packet_dropped" => self.on_dropped(event),
            "timer_updated" if is_probe_timeout(event) => self.silent_ptos += 1,
            "recovery_metrics_updated" => {
                // Files of others tell the count and not the timer.
                if let Some(count) = event.number("/pto_count") {
                    self.silent_ptos = self.silent_ptos.max(count as u32);
                }
            }
            "connection_data_blocked_updated" => self.on_limit(event),
            "tuple_assigned" | "migration_state_updated" => self.on_move(event),
            _ => {}
        }
    }

    fn rtt(&self) -> f64 {
        self.rtt_ms.unwrap_or(RTT_ASSUMED_MS)
    }

    fn on_received(&mut self, event: &Event) {
        if self.silent_ptos >= BLACKHOLE_PTOS {
            self.tell_dark(event.ms);
        }
        self.heard = Some(event.ms);
        self.silent_ptos = 0;
        self.stream_credit.mark(event.ms);
        self.conn_credit.mark(event.ms);
    }

    /// It was dark until now.
    fn tell_dark(&mut self, until: f64) {
        let from = self.heard.unwrap_or(0.0);
        self.dark = Some((from, until));
        // Credit that did not come through is no stall.
        for held in [&mut self.stream_credit, &mut self.conn_credit] {
            held.total = held.total.min(held.marked);
            held.since = held.since.map(|_| until);
        }
        let (ptos, silence) = (self.silent_ptos, until - from);
        let detail = format!("nothing was received for {silence:.0} ms, and {ptos} probe timeouts went unanswered");
        self.keep(Cause::Blackhole, from, until, detail);
    }

    fn on_sent(&mut self, event: &Event) {
        let mut blocked = (false, false);
        let mut data = false;
        for frame in event.frames() {
            match frame.get("frame_type").and_then(|t| t.as_str()) {
                Some("stream") => data = true,
                Some("data_blocked") => blocked.0 = true,
                Some("stream_data_blocked") => blocked.1 = true,
                Some("path_challenge") if event.packet_type() == "1RTT" => {
                    self.note_move(event.ms, "a path is being validated".into());
                }
                _ => {}
            }
        }
        if data {
            self.first_data.get_or_insert(event.ms);
            self.last_data = event.ms;
        }
        if !self.told_limits {
            if data {
                let least = WAIT_ROUNDS * self.rtt();
                self.conn_credit.end(event.ms, least);
                self.stream_credit.end(event.ms, least);
            }
            if blocked.0 {
                self.conn_credit.begin(event.ms);
            } else if blocked.1 {
                self.stream_credit.begin(event.ms);
            }
        }
    }

    fn on_lost(&mut self, event: &Event) {
        if event.data.get("is_mtu_probe_packet") == Some(&serde_json::Value::Bool(true)) {
            return;
        }
        // Losses that a blackhole explains: they are found within a round trip or two of its end.
        if self.silent_ptos >= BLACKHOLE_PTOS
            || self.dark.is_some_and(|(_, until)| event.ms <= until + 3.0 * self.rtt().max(BURST_GAP_MS))
        {
            return;
        }
        let gap = BURST_GAP_MS.max(2.0 * self.rtt());
        match &mut self.burst {
            Some(burst) if event.ms - burst.to <= gap => {
                burst.to = event.ms;
                burst.count += 1;
            }
            _ => {
                self.end_burst();
                self.burst = Some(Burst { from: event.ms, to: event.ms, count: 1 });
            }
        }
    }

    fn end_burst(&mut self) {
        let Some(b) = self.burst.take().filter(|b| b.count >= BURST_LEAST) else { return };
        let detail = format!("{} packets were lost within {:.0} ms", b.count, b.to - b.from);
        self.keep(Cause::LossBurst, b.from, b.to, detail);
    }

    fn on_dropped(&mut self, event: &Event) {
        if event.text("/details/reason").is_some_and(|r| r.contains("another address")) {
            self.elsewhere += 1;
            let detail =
                format!("{} came from another address than the peer's", crate::text::count(self.elsewhere, "datagram"));
            self.note_move(event.ms, detail);
        }
    }

    fn on_move(&mut self, event: &Event) {
        let first = event.name == "tuple_assigned" && event.text("/tuple_id").is_none_or(str::is_empty);
        if first {
            return;
        }
        let to =
            event.text("/tuple_id").map_or(String::new(), |id| format!(" to {}", crate::text::harmless(id.as_bytes())));
        let detail = match event.text("/new") {
            Some("migration_complete") => format!("the connection moved{to}"),
            Some("probing_abandoned" | "migration_abandoned") => format!("a move{to} failed"),
            _ => format!("the connection is moving{to}"),
        };
        self.note_move(event.ms, detail);
    }

    fn note_move(&mut self, ms: f64, detail: String) {
        let from = self.moved.as_ref().map_or(ms, |m| m.0);
        self.moved = Some((from, ms, detail));
    }

    fn on_limit(&mut self, event: &Event) {
        if !std::mem::replace(&mut self.told_limits, true) {
            (self.stream_credit, self.conn_credit) = (Held::default(), Held::default());
        }
        let least = WAIT_ROUNDS * self.rtt();
        self.stream_credit.end(event.ms, least);
        self.conn_credit.end(event.ms, least);
        self.amplification.end(event.ms, 0.0);
        if event.text("/new") == Some("blocked") {
            match event.text("/reason") {
                Some("stream_flow_control") => self.stream_credit.begin(event.ms),
                Some("connection_flow_control") => self.conn_credit.begin(event.ms),
                Some("amplification_protection") => self.amplification.begin(event.ms),
                _ => {}
            }
        }
    }

    fn keep(&mut self, cause: Cause, from_ms: f64, to_ms: f64, detail: String) {
        if self.found.len() < KEPT_MAX {
            self.found.push(Trouble { cause, from_ms, to_ms, detail });
        } else {
            self.more += 1;
        }
    }

    /// The end of the trace. Gives what was found, the most telling first.
    #[must_use]
    pub fn conclude(mut self, end_ms: f64) -> (Vec<Trouble>, u64) {
        if self.silent_ptos >= BLACKHOLE_PTOS {
            self.tell_dark(end_ms);
        }
        self.end_burst();
        self.conclude_credit(end_ms);
        self.amplification.end(end_ms, 0.0);
        let a = self.amplification.clone();
        if a.total > AMPLIFICATION_ROUNDS * self.rtt() {
            let detail =
                format!("for {:.0} ms no more could be sent, because the client's address was not proven", a.total);
            self.keep(Cause::AmplificationLimit, a.from, a.to, detail);
        }
        if let Some((from, to, detail)) = self.moved.take() {
            // What was on its way to the old address is lost, and found out about afterwards.
            let until = to + 4.0 * self.rtt().max(BURST_GAP_MS);
            self.found.retain(|t| t.cause != Cause::LossBurst || !(from..=until).contains(&t.from_ms));
            self.keep(Cause::AddressChange, from, to, detail);
        }
        // An address change explains the silence and the losses around it.
        self.found.sort_by(|a, b| a.cause.cmp(&b.cause).then(a.from_ms.total_cmp(&b.from_ms)));
        (self.found, self.more)
    }

    fn conclude_credit(&mut self, end_ms: f64) {
        let least = WAIT_ROUNDS * self.rtt();
        self.stream_credit.end(end_ms, least);
        self.conn_credit.end(end_ms, least);
        let span = self.last_data - self.first_data.unwrap_or(self.last_data);
        for (held, of) in [(self.stream_credit.clone(), "a stream"), (self.conn_credit.clone(), "the connection")] {
            if held.total > STALL_SHARE * span && held.total > STALL_ROUNDS * self.rtt() {
                let detail = format!("data waited {:.0} ms for credit of {of} from the peer", held.total);
                self.keep(Cause::FlowControlStall, held.from, held.to, detail);
            }
        }
    }
}
