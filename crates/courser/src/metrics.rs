//! Counters as text for Prometheus (text exposition format 0.0.4).
//!
//! [`Metrics`] collects figures of engines, workers and connections and renders them; what asks for them, and how, is the
//! application's affair. Every figure has one name and one meaning; docs/observability.md lists them, and a test holds
//! that list.
//!
//! ```
//! use courser::metrics::Metrics;
//! use courser_core::engine::EngineStats;
//!
//! let mut metrics = Metrics::default();
//! metrics.engine(&[("worker", "0")], &EngineStats::default(), 3);
//! assert!(metrics.render().contains("courser_engine_connections{worker=\"0\"} 3"));
//! ```

use std::fmt::Write;

use courser_core::engine::{ConnStats, EngineStats};
use courser_core::observe::Limit;

use crate::hub::crew::WorkerFigures;
use crate::worker::WorkerStats;

/// Pairs of name and value that tell series of one figure apart.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A figure: name, help, and how it is read. Names of counters end in `_total`.
type Figure<S> = (&'static str, &'static str, fn(&S) -> f64);

const ENGINE: [Figure<EngineStats>; 26] = [
    ("courser_engine_received_datagrams_total", "Datagrams received.", |s| s.datagrams as f64),
    ("courser_engine_sent_datagrams_total", "Datagrams built for sending.", |s| s.sent_datagrams as f64),
    ("courser_engine_sent_trains_total", "Trains of datagrams built for sending.", |s| s.trains as f64),
    ("courser_engine_connected_total", "Connections begun here.", |s| s.connected as f64),
    ("courser_engine_accepted_total", "Connections accepted.", |s| s.accepted as f64),
    ("courser_engine_ended_total", "Connections freed.", |s| s.ended as f64),
    ("courser_engine_ticks_total", "Ticks of connections.", |s| s.ticks as f64),
    ("courser_engine_malformed_total", "Datagrams that made no sense.", |s| s.malformed as f64),
    ("courser_engine_bad_tokens_total", "Initials with a token that is not valid.", |s| s.bad_tokens as f64),
    ("courser_engine_not_authentic_total", "Initials that could not be opened.", |s| s.gate_not_authentic as f64),
    ("courser_engine_handshake_limit_total", "Initials beyond the limit of handshakes.", |s| s.gate_handshakes as f64),
    ("courser_engine_version_negotiations_total", "Version Negotiation packets sent.", |s| {
        s.version_negotiations as f64
    }),
    ("courser_engine_retries_total", "Retry packets sent.", |s| s.retries as f64),
    ("courser_engine_resets_total", "Stateless resets sent.", |s| s.resets as f64),
    ("courser_engine_replies_dropped_total", "Replies that found no room.", |s| s.replies_dropped as f64),
    ("courser_engine_refused_total", "Trains that the network refused.", |s| s.refused as f64),
    ("courser_engine_too_big_total", "Datagrams larger than the local interface takes.", |s| s.too_big as f64),
    ("courser_engine_cooldown_dropped_total", "Initials that came during cooldown.", |s| s.gate_cooldown as f64),
    ("courser_engine_clients_total", "Clients that were let begin.", |s| s.minis as f64),
    ("courser_engine_clients_expired_total", "Clients that did not complete their ClientHello in time.", |s| {
        s.minis_expired as f64
    }),
    ("courser_engine_clients_evicted_total", "Clients that had to go before they completed it.", |s| {
        s.minis_evicted as f64
    }),
    ("courser_engine_client_violations_total", "Clients that broke a rule before that.", |s| s.mini_violations as f64),
    ("courser_engine_source_limit_total", "Initials of sources that left too much unfinished.", |s| {
        s.gate_source as f64
    }),
    ("courser_engine_source_retries_total", "Clients asked for a proof because of their source.", |s| {
        s.retry_source as f64
    }),
    ("courser_engine_dead_ids_total", "Packets to connection IDs that died recently.", |s| s.gate_purgatory as f64),
    ("courser_engine_resets_limited_total", "Stateless resets that were one too many.", |s| s.resets_limited as f64),
];

const WORKER: [Figure<WorkerStats>; 15] = [
    ("courser_worker_turns_total", "Turns taken.", |s| s.turns as f64),
    ("courser_worker_waits_total", "Waits for something to happen.", |s| s.waits as f64),
    ("courser_worker_received_trains_total", "Trains received.", |s| s.trains_received as f64),
    ("courser_worker_received_bytes_total", "Bytes of UDP payload received.", |s| s.bytes_received as f64),
    ("courser_worker_sent_trains_total", "Trains that went out.", |s| s.sent as f64),
    ("courser_worker_sent_bytes_total", "Bytes of UDP payload sent.", |s| s.bytes_sent as f64),
    ("courser_worker_refused_trains_total", "Trains that a path refused.", |s| s.refused as f64),
    ("courser_worker_too_big_trains_total", "Trains too big for the first link.", |s| s.too_big as f64),
    ("courser_worker_socket_full_total", "Times that the socket had no room.", |s| s.full as f64),
    ("courser_worker_misrouted_datagrams_total", "Datagrams received that belong to other workers.", |s| {
        s.misrouted as f64
    }),
    ("courser_worker_forwarded_datagrams_total", "Datagrams handed over to other workers.", |s| s.forwarded as f64),
    ("courser_worker_forward_dropped_datagrams_total", "Datagrams for other workers that found no room.", |s| {
        s.forward_dropped as f64
    }),
    ("courser_worker_received_from_mates_datagrams_total", "Datagrams that other workers handed over.", |s| {
        s.received_from_mates as f64
    }),
    ("courser_worker_relayed_datagrams_total", "Datagrams handed over to processes that had the port before.", |s| {
        s.relayed as f64
    }),
    ("courser_worker_relay_dropped_datagrams_total", "Datagrams for such processes that found no room.", |s| {
        s.relay_dropped as f64
    }),
];

const CONNECTION: [Figure<ConnStats>; 24] = [
    ("courser_connection_sent_datagrams_total", "Datagrams sent.", |s| s.sent.datagrams as f64),
    ("courser_connection_sent_packets_total", "Packets sent.", |s| s.sent.packets as f64),
    ("courser_connection_sent_bytes_total", "Bytes of UDP payload sent.", |s| s.sent.bytes as f64),
    ("courser_connection_received_datagrams_total", "Datagrams received.", |s| s.received.datagrams as f64),
    ("courser_connection_received_packets_total", "Packets opened.", |s| s.received.packets as f64),
    ("courser_connection_received_bytes_total", "Bytes of UDP payload received.", |s| s.received.bytes as f64),
    ("courser_connection_lost_packets_total", "Packets declared lost.", |s| s.lost_packets as f64),
    ("courser_connection_lost_bytes_total", "Bytes of packets declared lost.", |s| s.lost_bytes as f64),
    ("courser_connection_spurious_losses_total", "Packets declared lost that had arrived.", |s| {
        s.spurious_losses as f64
    }),
    ("courser_connection_retransmitted_bytes_total", "Bytes of streams sent again.", |s| s.retransmitted_bytes as f64),
    ("courser_connection_probe_timeouts_total", "Probe timeouts.", |s| s.ptos as f64),
    ("courser_connection_congestion_events_total", "Reductions of the congestion window.", |s| {
        s.congestion_events as f64
    }),
    ("courser_connection_duplicate_packets_total", "Packets received twice.", |s| s.duplicates as f64),
    ("courser_connection_undecryptable_packets_total", "Packets that could not be opened.", |s| s.undecryptable as f64),
    ("courser_connection_dropped_packets_total", "Packets dropped unopened.", |s| s.dropped_packets as f64),
    ("courser_connection_key_updates_total", "Updates of the sending keys.", |s| s.key_updates as f64),
    ("courser_connection_rtt_seconds", "Smoothed round-trip time.", |s| s.rtt.as_secs_f64()),
    ("courser_connection_min_rtt_seconds", "Smallest round-trip time.", |s| s.min_rtt.as_secs_f64()),
    ("courser_connection_handshake_seconds", "Duration of the handshake.", |s| s.handshake.as_secs_f64()),
    ("courser_connection_congestion_window_bytes", "Congestion window.", |s| s.congestion_window as f64),
    ("courser_connection_in_flight_bytes", "Bytes in flight.", |s| s.bytes_in_flight as f64),
    ("courser_connection_pacing_bytes_per_second", "What the pacer lets go.", |s| s.pacing_rate as f64),
    ("courser_connection_datagram_bytes_max", "Largest datagram that is sent.", |s| f64::from(s.mtu)),
    ("courser_connection_ecn", "1 when the path carries ECN marks.", |s| f64::from(u8::from(s.ecn))),
];

const CONNECTIONS: &str = "courser_engine_connections";
const LIMITED: &str = "courser_connection_limited_seconds_total";

/// One figure with all its series.
#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    /// Labels as text with their braces, and the value.
    series: Vec<(String, f64)>,
}

/// Figures that are rendered together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    families: Vec<Family>,
}

impl Metrics {
    /// Adds an engine, with the connections that it has now.
    pub fn engine(&mut self, labels: Labels<'_>, stats: &EngineStats, connections: usize) {
        self.add(CONNECTIONS, "Connections of all states.", labels, connections as f64);
        self.all(&ENGINE, labels, stats);
    }

    /// Adds the workers of an endpoint, each under its number: `endpoint.workers()` of both faces has them. Sums are the
    /// reader's affair.
    pub fn endpoint(&mut self, labels: Labels<'_>, workers: &[WorkerFigures]) {
        for (number, figures) in workers.iter().enumerate() {
            let number = number.to_string();
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("worker", number.as_str())]).collect();
            self.engine(&labels, &figures.engine, figures.connections);
            self.worker(&labels, &figures.worker);
        }
    }

    /// Adds a worker.
    pub fn worker(&mut self, labels: Labels<'_>, stats: &WorkerStats) {
        self.all(&WORKER, labels, stats);
    }

    /// Adds a connection; the labels name it.
    pub fn connection(&mut self, labels: Labels<'_>, stats: &ConnStats) {
        self.all(&CONNECTION, labels, stats);
        for limit in Limit::ALL {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("limit", limit.name())]).collect();
            self.add(
                LIMITED,
                "Time that each limit held the sender back.",
                &labels,
                stats.limits.time(limit).as_secs_f64(),
            );
        }
    }

    fn all<S>(&mut self, figures: &[Figure<S>], labels: Labels<'_>, stats: &S) {
        for (name, help, of) in figures {
            self.add(name, help, labels, of(stats));
        }
    }

    fn add(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        let series = (render_labels(labels), value);
        match self.families.iter_mut().find(|f| f.name == name) {
            Some(family) => family.series.push(series),
            None => self.families.push(Family { name, help, series: vec![series] }),
        }
    }

    /// Names of all figures there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let engine = ENGINE.iter().map(|f| f.0);
        engine.chain(WORKER.iter().map(|f| f.0)).chain(CONNECTION.iter().map(|f| f.0)).chain([CONNECTIONS, LIMITED])
    }

    /// The text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for family in &self.families {
            let name = family.name;
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            // Writing to a string does not fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, value) in &family.series {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        }
        out
    }
}

fn render_labels(labels: Labels<'_>) -> String {
    let mut out = String::new();
    for (i, (name, value)) in labels.iter().enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{name}=\"{value}\"");
    }
    if !labels.is_empty() {
        out.push('}');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// A strict reader of the text format: names, labels, values, and the order of lines.
    fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
        let (mut series, mut families) = (BTreeMap::new(), BTreeSet::new());
        let mut family = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or("no help")?;
                let kind = lines.next().and_then(|l| l.strip_prefix(&format!("# TYPE {name} "))).ok_or("no type")?;
                if help.is_empty() || !matches!((kind, name.ends_with("_total")), ("counter", true) | ("gauge", false))
                {
                    return Err(format!("{name}: {kind}"));
                }
                let fits = |c: char| c.is_ascii_lowercase() || c == '_';
                if !name.chars().all(fits) || !families.insert(name.to_owned()) {
                    return Err(format!("the name {name}"));
                }
                family = name.to_owned();
                continue;
            }
            let (id, value) = line.rsplit_once(' ').ok_or("no value")?;
            let value: f64 = value.parse().map_err(|e| format!("{line}: {e}"))?;
            let name = id.split('{').next().unwrap_or("");
            if name != family || !value.is_finite() {
                return Err(format!("{line} stands under {family}"));
            }
            check_labels(&id[name.len()..])?;
            if series.insert(id.to_owned(), value).is_some() {
                return Err(format!("{id} comes twice"));
            }
        }
        if text.is_empty() || text.ends_with('\n') { Ok(series) } else { Err("no end of line".into()) }
    }

    fn check_labels(text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let mut rest = text.strip_prefix('{').ok_or("no brace")?;
        loop {
            let (name, after) = rest.split_once("=\"").ok_or("no value of a label")?;
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                return Err(format!("the label {name}"));
            }
            let mut escaped = false;
            let end = after.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = &after[end.ok_or("a label does not end")? + 1..];
            match rest {
                "}" => return Ok(()),
                more => rest = more.strip_prefix(',').ok_or("no comma")?,
            }
        }
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut m = Metrics::default();
        for worker in ["0", "1"] {
            m.engine(&[("worker", worker)], &EngineStats::default(), 7);
            m.worker(&[("worker", worker)], &WorkerStats { bytes_sent: 12, ..WorkerStats::default() });
        }
        let both = [WorkerFigures { connections: 3, ..WorkerFigures::default() }; 2];
        m.endpoint(&[("port", "443")], &both);
        for id in ["a", "b\"}\n\\"] {
            m.connection(&[("connection", id)], &ConnStats::default());
        }
        let series = parse(&m.render()).unwrap();
        assert_eq!(series["courser_engine_connections{worker=\"1\"}"], 7.0);
        assert_eq!(series["courser_worker_sent_bytes_total{worker=\"0\"}"], 12.0);
        assert_eq!(series["courser_engine_connections{port=\"443\",worker=\"1\"}"], 3.0);
        assert!(series.contains_key("courser_connection_limited_seconds_total{connection=\"a\",limit=\"pacing\"}"));
        assert_eq!(series.len(), 4 * (1 + ENGINE.len() + WORKER.len()) + 2 * (CONNECTION.len() + 7));
        assert_eq!(parse(&Metrics::default().render()), Ok(BTreeMap::new()));
    }

    #[test]
    fn the_reader_notices_what_is_wrong() {
        let head = "# HELP a_total x\n# TYPE a_total counter\n";
        assert!(parse(&format!("{head}a_total 1\na_total{{b=\"\\\"\"}} 2\n")).is_ok());
        for bad in [
            "a 1\n".to_owned(),
            "# HELP a_total x\na_total 1\n".into(),
            "# HELP a x\n# TYPE a counter\na 1\n".into(),
            format!("{head}b 1\n"),
            format!("{head}a_total one\n"),
            format!("{head}a_total NaN\n"),
            format!("{head}a_total 1\na_total 2\n"),
            format!("{head}a_total{{B=\"\"}} 1\n"),
            format!("{head}a_total{{b=\"}} 1\n"),
            format!("{head}a_total 1"),
            format!("{head}a_total 1\n{head}"),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_name_is_documented() {
        let doc = include_str!("../../../docs/observability.md");
        for name in Metrics::names() {
            assert!(doc.contains(&format!("\n{name} ")), "docs/observability.md does not list {name}");
        }
    }
}
