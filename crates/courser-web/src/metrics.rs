//! Figures of a server as text for Prometheus.
//!
//! Every series is known beforehand: nothing that a client sends becomes a label, so nobody can make the text grow.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use courser::ConnStats;
use http::{StatusCode, Version};

/// Upper ends of the classes of durations, in milliseconds.
const CLASSES_MS: [u64; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000, 30_000];
/// Versions by name.
const VERSIONS: [&str; 4] = ["1.0", "1.1", "2", "3"];

/// Counters of a server.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By version, then by the first digit of the status less one.
    requests: [[AtomicU64; 5]; 4],
    /// Bodies that ended before their end.
    broken: AtomicU64,
    body_bytes: AtomicU64,
    in_flight: AtomicI64,
    /// Durations by class; the last is for what is longer than all.
    durations: [AtomicU64; CLASSES_MS.len() + 1],
    duration_sum_us: AtomicU64,
    /// TCP connections that there are.
    pub(crate) connections: AtomicI64,
    /// TCP connections that there were.
    pub(crate) accepted: AtomicU64,
    /// TLS handshakes over TCP that failed.
    pub(crate) handshakes_failed: AtomicU64,
    /// QUIC connections with HTTP/3 that ended, and what they sent and lost.
    quic_ended: AtomicU64,
    quic_sent_packets: AtomicU64,
    quic_lost_packets: AtomicU64,
    quic_retransmitted_bytes: AtomicU64,
    /// Requests that an origin did not answer.
    pub(crate) origin_failed: AtomicU64,
    /// Lines that the access log did not take.
    pub(crate) log_dropped: AtomicU64,
    /// Configurations that were read again.
    pub(crate) reloads: AtomicU64,
    /// Configurations that were refused.
    pub(crate) reloads_failed: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) != 0
    }

    /// A QUIC connection is over.
    pub(crate) fn end_connection(&self, stats: &ConnStats) {
        add(&self.quic_ended);
        for (counter, n) in [
            (&self.quic_sent_packets, stats.sent.packets),
            (&self.quic_lost_packets, stats.lost_packets),
            (&self.quic_retransmitted_bytes, stats.retransmitted_bytes),
        ] {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// An answer is over.
    pub(crate) fn end(&self, version: Version, status: StatusCode, bytes: u64, took: Duration, complete: bool) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let version = match version {
            Version::HTTP_3 => 3,
            Version::HTTP_2 => 2,
            Version::HTTP_11 => 1,
            _ => 0,
        };
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        add(&self.requests[version][class]);
        if !complete {
            add(&self.broken);
        }
        self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        let class = CLASSES_MS.iter().position(|ms| took <= Duration::from_millis(*ms)).unwrap_or(CLASSES_MS.len());
        add(&self.durations[class]);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.duration_sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// All of them, in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(4096);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP courser_{name} {help}\n# TYPE courser_{name} {kind}");
        };
        head(
            &mut out,
            "http_requests_total",
            "counter",
            "Requests that were answered, by version and class of status.",
        );
        for (version, classes) in VERSIONS.iter().zip(&self.requests) {
            for (class, counter) in (1..).zip(classes) {
                let labels = format!("version=\"{version}\",class=\"{class}xx\"");
                let _ = writeln!(out, "courser_http_requests_total{{{labels}}} {}", get(counter));
            }
        }
        head(&mut out, "http_request_duration_seconds", "histogram", "From the fields of a request to the last byte.");
        let mut below = 0;
        for (ms, counter) in CLASSES_MS.iter().zip(&self.durations) {
            below += get(counter);
            let end = Duration::from_millis(*ms).as_secs_f64();
            let _ = writeln!(out, "courser_http_request_duration_seconds_bucket{{le=\"{end}\"}} {below}");
        }
        below += self.durations.last().map_or(0, get);
        let _ = writeln!(out, "courser_http_request_duration_seconds_bucket{{le=\"+Inf\"}} {below}");
        let sum = Duration::from_micros(get(&self.duration_sum_us)).as_secs_f64();
        let _ = writeln!(out, "courser_http_request_duration_seconds_sum {sum}");
        let _ = writeln!(out, "courser_http_request_duration_seconds_count {below}");
        for (name, counter, help) in [
            ("http_response_body_bytes_total", &self.body_bytes, "Bytes of bodies."),
            ("http_responses_broken_total", &self.broken, "Answers that ended before their end."),
            ("tcp_connections_total", &self.accepted, "TCP connections that were accepted."),
            ("tls_handshakes_failed_total", &self.handshakes_failed, "TLS handshakes over TCP that failed."),
            ("quic_ended_connections_total", &self.quic_ended, "QUIC connections that carried HTTP/3 and ended."),
            ("quic_ended_sent_packets_total", &self.quic_sent_packets, "Packets that these sent."),
            ("quic_ended_lost_packets_total", &self.quic_lost_packets, "Packets that these declared lost."),
            (
                "quic_ended_retransmitted_bytes_total",
                &self.quic_retransmitted_bytes,
                "Bytes of streams that these sent again.",
            ),
            ("origin_failed_total", &self.origin_failed, "Requests that an origin did not answer."),
            ("access_log_dropped_total", &self.log_dropped, "Lines that the access log did not take."),
            ("reloads_total", &self.reloads, "Configurations that were read again."),
            ("reloads_failed_total", &self.reloads_failed, "Configurations that were refused."),
        ] {
            head(&mut out, name, "counter", help);
            let _ = writeln!(out, "courser_{name} {}", get(counter));
        }
        for (name, gauge, help) in [
            ("http_requests_in_flight", &self.in_flight, "Requests that are being answered."),
            ("tcp_connections", &self.connections, "TCP connections that there are."),
        ] {
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "courser_{name} {}", gauge.load(Ordering::Relaxed));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_once_in_order() {
        let metrics = Metrics::default();
        for (version, status, ms, complete) in [
            (Version::HTTP_3, 200, 0, true),
            (Version::HTTP_3, 404, 3, true),
            (Version::HTTP_2, 200, 7, false),
            (Version::HTTP_10, 599, 60_000, true),
        ] {
            metrics.begin();
            let status = StatusCode::from_u16(status).unwrap();
            metrics.end(version, status, 10, Duration::from_millis(ms), complete);
        }
        metrics.begin();
        let text = metrics.text();
        for line in [
            "courser_http_requests_total{version=\"3\",class=\"2xx\"} 1",
            "courser_http_requests_total{version=\"3\",class=\"4xx\"} 1",
            "courser_http_requests_total{version=\"1.0\",class=\"5xx\"} 1",
            "courser_http_request_duration_seconds_bucket{le=\"0.005\"} 2",
            "courser_http_request_duration_seconds_bucket{le=\"+Inf\"} 4",
            "courser_http_request_duration_seconds_sum 60.01",
            "courser_http_response_body_bytes_total 40",
            "courser_http_responses_broken_total 1",
            "courser_http_requests_in_flight 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        // Each family has one head, before its samples.
        let heads: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let distinct: std::collections::BTreeSet<&str> = heads.iter().copied().collect();
        assert_eq!(heads.len(), distinct.len());
    }
}
