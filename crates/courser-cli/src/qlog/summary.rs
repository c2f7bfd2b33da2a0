//! Figures of a whole trace.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::event::Event;
use super::spark::Series;
use super::trouble::{Detective, Trouble, is_probe_timeout};
use crate::output::{Ink, Palette};
use crate::text;

/// Different words (limits, reasons for drops) that are counted.
const WORDS_MAX: usize = 24;

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Flow {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Collects figures.
#[derive(Debug, Default)]
pub struct Collector {
    events: u64,
    end_ms: f64,
    version: Option<String>,
    vantage: Option<String>,
    title: Option<String>,
    sent: Flow,
    received: Flow,
    stream_sent: u64,
    stream_received: u64,
    lost: u64,
    dropped: BTreeMap<String, u64>,
    ptos: u64,
    handshake_ms: Option<f64>,
    confirmed_ms: Option<f64>,
    min_rtt: Option<f64>,
    rtt: Option<f64>,
    rtt_max: Option<f64>,
    window: Option<f64>,
    window_max: f64,
    mtu: Option<f64>,
    limits: BTreeMap<String, f64>,
    limit: Option<(String, f64)>,
    out: Series,
    into: Series,
    closed: Option<String>,
    detective: Detective,
}

/// What a trace tells.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Version or schema of the file.
    pub schema: Option<String>,
    /// Who wrote it.
    pub title: Option<String>,
    /// Which end wrote it.
    pub vantage: Option<String>,
    /// Events.
    pub events: u64,
    /// Records that could not be read.
    pub bad_records: u64,
    /// From the first to the last event.
    pub duration_ms: f64,
    /// Until the handshake was complete.
    pub handshake_ms: Option<f64>,
    /// Until it was confirmed.
    pub confirmed_ms: Option<f64>,
    /// Sent.
    pub sent: Flow,
    /// Received.
    pub received: Flow,
    /// Bytes of stream data sent, repetitions included.
    pub stream_bytes_sent: u64,
    /// Bytes of stream data received, repetitions included.
    pub stream_bytes_received: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// Probe timeouts.
    pub ptos: u64,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Smallest round-trip time.
    pub min_rtt_ms: Option<f64>,
    /// Last smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Largest newest round-trip time.
    pub max_rtt_ms: Option<f64>,
    /// Last congestion window.
    pub congestion_window: Option<f64>,
    /// Largest congestion window.
    pub congestion_window_max: f64,
    /// Last known datagram size.
    pub mtu: Option<f64>,
    /// Milliseconds that each limit held the sender back, as far as the file tells.
    pub limited_ms: BTreeMap<String, f64>,
    /// Milliseconds of an interval, and the bytes of packets sent in each.
    pub sent_per_interval: (f64, Vec<u64>),
    /// The same for received packets.
    pub received_per_interval: (f64, Vec<u64>),
    /// Why it was closed.
    pub closed: Option<String>,
    /// What went wrong, the most telling first.
    pub troubles: Vec<Trouble>,
    /// Troubles that are left out, because there are so many.
    pub more_troubles: u64,
    #[serde(skip)]
    out: Series,
    #[serde(skip)]
    into: Series,
}

impl Collector {
    /// Takes the head of a file or of a trace.
    pub fn head(&mut self, head: &Value) {
        let text = |paths: &[&str]| {
            let found = paths.iter().find_map(|p| head.pointer(p).and_then(Value::as_str));
            found.map(|s| text::harmless(s.as_bytes()))
        };
        self.version = self.version.take().or_else(|| text(&["/file_schema", "/qlog_version"]));
        self.vantage = self.vantage.take().or_else(|| text(&["/trace/vantage_point/type", "/vantage_point/type"]));
        self.title = self.title.take().or_else(|| text(&["/title", "/trace/title"]));
    }

    /// Takes an event.
    pub fn event(&mut self, e: &Event) {
        self.events += 1;
        self.end_ms = self.end_ms.max(e.ms);
        self.detective.see(e);
        match e.name.as_str() {
            "packet_sent" => {
                count(&mut self.sent, &mut self.stream_sent, e);
                self.out.add(e.ms, e.size());
            }
            "packet_received" => {
                count(&mut self.received, &mut self.stream_received, e);
                self.into.add(e.ms, e.size());
                if e.packet_type() == "1RTT" || e.packet_type() == "onertt" {
                    self.handshake_ms.get_or_insert(e.ms);
                }
            }
            "packet_lost" if e.data.get("is_mtu_probe_packet") != Some(&Value::Bool(true)) => self.lost += 1,
            "packet_dropped" => {
                let why = e.text("/trigger").or_else(|| e.text("/details/reason")).unwrap_or("no reason told");
                if self.dropped.len() < WORDS_MAX || self.dropped.contains_key(why) {
                    *self.dropped.entry(text::harmless(why.as_bytes())).or_default() += 1;
                }
            }
            "timer_updated" if is_probe_timeout(e) => self.ptos += 1,
            "connection_state_updated" => match e.text("/new") {
                Some("handshake_complete" | "handshake_completed") => self.handshake_ms = Some(e.ms),
                Some("handshake_confirmed") => _ = self.confirmed_ms.get_or_insert(e.ms),
                _ => {}
            },
            "recovery_metrics_updated" => self.metrics(e),
            "mtu_updated" => self.mtu = e.number("/new").or(self.mtu),
            "connection_data_blocked_updated" => self.limit(e),
            "connection_closed" => _ = self.closed.get_or_insert_with(|| closed(e)),
            _ => {}
        }
    }

    fn metrics(&mut self, e: &Event) {
        self.min_rtt = e.number("/min_rtt").or(self.min_rtt);
        self.rtt = e.number("/smoothed_rtt").or(self.rtt);
        if let Some(latest) = e.number("/latest_rtt") {
            self.rtt_max = Some(self.rtt_max.map_or(latest, |max| max.max(latest)));
        }
        if let Some(window) = e.number("/congestion_window") {
            self.window = Some(window);
            self.window_max = self.window_max.max(window);
        }
    }

    fn limit(&mut self, e: &Event) {
        self.end_limit(e.ms);
        if let Some(reason) = e.text("/reason").filter(|_| e.text("/new") == Some("blocked"))
            && (self.limits.len() < WORDS_MAX || self.limits.contains_key(reason))
        {
            self.limit = Some((text::harmless(reason.as_bytes()), e.ms));
        }
    }

    fn end_limit(&mut self, ms: f64) {
        if let Some((reason, since)) = self.limit.take() {
            *self.limits.entry(reason).or_default() += (ms - since).max(0.0);
        }
    }

    /// The end of the file.
    #[must_use]
    pub fn finish(mut self, bad_records: u64) -> Summary {
        self.end_limit(self.end_ms);
        let (troubles, more_troubles) = self.detective.conclude(self.end_ms);
        Summary {
            schema: self.version,
            title: self.title,
            vantage: self.vantage,
            events: self.events,
            bad_records,
            duration_ms: self.end_ms,
            handshake_ms: self.handshake_ms,
            confirmed_ms: self.confirmed_ms,
            sent: self.sent,
            received: self.received,
            stream_bytes_sent: self.stream_sent,
            stream_bytes_received: self.stream_received,
            lost: self.lost,
            ptos: self.ptos,
            dropped: self.dropped,
            min_rtt_ms: self.min_rtt,
            rtt_ms: self.rtt,
            max_rtt_ms: self.rtt_max,
            congestion_window: self.window,
            congestion_window_max: self.window_max,
            mtu: self.mtu,
            limited_ms: self.limits,
            sent_per_interval: self.out.intervals(),
            received_per_interval: self.into.intervals(),
            closed: self.closed,
            troubles,
            more_troubles,
            out: self.out,
            into: self.into,
        }
    }
}

fn count(flow: &mut Flow, stream: &mut u64, e: &Event) {
    flow.packets += 1;
    flow.bytes += e.size();
    for frame in e.frames().filter(|f| f.get("frame_type").and_then(Value::as_str) == Some("stream")) {
        let length = frame.pointer("/raw/payload_length").or_else(|| frame.get("length")).and_then(Value::as_u64);
        *stream += length.unwrap_or(0);
    }
}

fn closed(e: &Event) -> String {
    let word = |path| e.text(path).map(|t| text::harmless(t.as_bytes()));
    let by = word("/initiator").or_else(|| word("/owner")).unwrap_or_else(|| "?".into());
    let mut s = format!("by {by}");
    for path in ["/trigger", "/connection_error", "/connection_code", "/reason"] {
        if let Some(w) = word(path) {
            let _ = write!(s, ", {w}");
        }
    }
    if let Some(code) = e.number("/error_code") {
        let _ = write!(s, ", code {code}");
    }
    s
}

fn ms(v: f64) -> String {
    text::time(Duration::from_secs_f64((v / 1000.0).clamp(0.0, 1e9)))
}

fn maybe(v: Option<f64>) -> String {
    v.map_or_else(|| "not told".into(), ms)
}

impl Summary {
    /// Lines for people.
    #[must_use]
    pub fn text(&self, p: Palette) -> String {
        let mut s = String::new();
        let mut line = |name: &str, what: String| {
            let _ = writeln!(s, "{:<11} {what}", name);
        };
        let bad =
            if self.bad_records > 0 { format!(", {} records unreadable", self.bad_records) } else { String::new() };
        line(
            "trace",
            format!(
                "{}, {} end, {} events in {}{bad}",
                self.title.as_deref().unwrap_or("no title"),
                self.vantage.as_deref().unwrap_or("unknown"),
                self.events,
                ms(self.duration_ms)
            ),
        );
        line(
            "handshake",
            format!("complete after {}, confirmed after {}", maybe(self.handshake_ms), maybe(self.confirmed_ms)),
        );
        line(
            "round trip",
            format!(
                "{} smoothed, {} least, {} most",
                maybe(self.rtt_ms),
                maybe(self.min_rtt_ms),
                maybe(self.max_rtt_ms)
            ),
        );
        for (name, flow, stream, series) in [
            ("sent", self.sent, self.stream_bytes_sent, &self.out),
            ("received", self.received, self.stream_bytes_received, &self.into),
        ] {
            let peak = text::rate(series.peak_per_s() * 8.0 / 1e9);
            let what = format!(
                "{} in {} packets, {} of streams, peak {peak}",
                text::size(flow.bytes),
                flow.packets,
                text::size(stream)
            );
            line(name, what);
            line("", p.paint(Ink::Dim, format!("│{}│ {} each", series.line(), ms(series.intervals().0))));
        }
        let dropped: Vec<String> = self.dropped.iter().map(|(why, n)| format!("{n} dropped ({why})")).collect();
        line(
            "losses",
            [vec![format!("{} lost, {} probe timeouts", self.lost, self.ptos)], dropped].concat().join(", "),
        );
        if let Some(window) = self.congestion_window {
            let (now, most) = (text::size(window as u64), text::size(self.congestion_window_max as u64));
            let mtu = self.mtu.map_or(String::new(), |m| format!(", datagrams of {m} bytes"));
            line("window", format!("{now} at the end, {most} at most{mtu}"));
        }
        if !self.limited_ms.is_empty() {
            let mut all: Vec<_> = self.limited_ms.iter().collect();
            all.sort_by(|a, b| b.1.total_cmp(a.1));
            line("limited by", all.iter().map(|(why, t)| format!("{why} {}", ms(**t))).collect::<Vec<_>>().join(", "));
        }
        line("closed", self.closed.clone().unwrap_or_else(|| "not in this trace".into()));
        self.troubles_text(&mut s, p);
        s.truncate(s.trim_end().len());
        s
    }

    fn troubles_text(&self, s: &mut String, p: Palette) {
        if self.troubles.is_empty() {
            let _ = writeln!(s, "{:<11} {}", "trouble", p.paint(Ink::Good, "none found"));
        }
        for t in &self.troubles {
            let name = p.paint(Ink::Bad, t.cause.name());
            let _ = writeln!(s, "{:<11} {name} from {} to {}: {}", "trouble", ms(t.from_ms), ms(t.to_ms), t.detail);
        }
        if self.more_troubles > 0 {
            let _ = writeln!(s, "{:<11} and {} more", "", self.more_troubles);
        }
    }
}

impl super::trouble::Cause {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddressChange => "address change",
            Self::Blackhole => "blackhole",
            Self::LossBurst => "loss burst",
            Self::FlowControlStall => "flow-control stall",
            Self::AmplificationLimit => "amplification limit",
        }
    }
}
