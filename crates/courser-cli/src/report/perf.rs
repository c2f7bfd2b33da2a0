//! The result of a perf client, in three forms: for people, as an object, and as the line that the comparison reads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use courser_core::engine::Limits;
use courser_core::observe::Limit;
use serde::Serialize;

use crate::job::{Job, Mode};
use crate::measure::{self, Latencies, Percentiles, Usage};
use crate::output::{Ink, Palette};
use crate::text;

/// Memory before and after idle connections were opened, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

impl Growth {
    /// KiB per connection.
    #[must_use]
    pub fn per(&self, count: u64) -> f64 {
        (self.after as f64 - self.before as f64) / count.max(1) as f64
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct PerfResult {
    /// The job.
    pub job: Job,
    /// Transactions or connections that ended well.
    pub done: u64,
    /// Seconds of the measured part.
    pub seconds: f64,
    /// Cost of the measured part.
    pub usage: Usage,
    /// Percentiles of the transactions' times.
    pub times: Percentiles,
    /// The server's memory, when its process was named.
    pub server: Option<Growth>,
    /// This process's memory.
    pub client: Option<Growth>,
    /// Largest UDP payload that was asked for.
    pub max_udp_payload: u16,
    /// Whether every byte was checked, or only counts and ends.
    pub verified: bool,
    /// Seconds that each limit kept this end from sending more, all connections together; empty where nobody looked.
    pub limited_s: BTreeMap<&'static str, f64>,
}

/// The object of `courser perf --json`.
#[derive(Debug, Serialize)]
struct Object {
    mode: &'static str,
    bytes: u64,
    verified: bool,
    seconds: f64,
    user_s: f64,
    sys_s: f64,
    peak_rss_kb: u64,
    goodput_gbps: f64,
    #[serde(rename = "cpu_s_per_GB")]
    cpu_s_per_gb: f64,
    count: u64,
    per_s: f64,
    #[serde(flatten)]
    times: Percentiles,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limited_s: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_per_conn_kb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_rss_per_conn_kb: Option<f64>,
}

impl PerfResult {
    /// A result whose times are read off `latencies`.
    #[must_use]
    pub fn new(job: &Job, done: u64, seconds: f64, usage: Usage, latencies: &mut Latencies) -> Self {
        Self {
            job: job.clone(),
            done,
            seconds,
            usage,
            times: latencies.percentiles(),
            server: None,
            client: None,
            max_udp_payload: 1472,
            verified: false,
            limited_s: BTreeMap::new(),
        }
    }

    /// Adds what limited a connection.
    pub fn add_limits(&mut self, limits: &Limits) {
        for limit in Limit::ALL {
            *self.limited_s.entry(limit.name()).or_default() += limits.time(limit).as_secs_f64();
        }
    }

    /// What kept this end from sending more, the longest first; only where it was to send a lot.
    fn limits_text(&self) -> Option<String> {
        let mut all: Vec<_> = self.limited_s.iter().filter(|(_, s)| **s >= 0.001).collect();
        all.sort_by(|a, b| b.1.total_cmp(a.1));
        let one = |(name, s): (&&str, &f64)| {
            format!("{} {}", name.replace('_', " "), text::time(Duration::from_secs_f64(*s)))
        };
        (self.job.mode == Mode::Upload && !all.is_empty())
            .then(|| all.into_iter().map(one).collect::<Vec<_>>().join(", "))
    }

    /// Bytes that count.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.job.counted(self.done)
    }

    fn gbps(&self) -> f64 {
        measure::gbps(self.bytes(), self.seconds)
    }

    fn cpu_s_per_gb(&self) -> f64 {
        measure::cpu_s_per_gb(&self.usage, self.bytes())
    }

    fn per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.done as f64 / self.seconds } else { 0.0 }
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> impl Serialize + use<> {
        Object {
            mode: self.job.mode.name(),
            bytes: self.bytes(),
            verified: self.verified,
            seconds: self.seconds,
            user_s: self.usage.user_s,
            sys_s: self.usage.sys_s,
            peak_rss_kb: self.usage.peak_rss_kb,
            goodput_gbps: self.gbps(),
            cpu_s_per_gb: self.cpu_s_per_gb(),
            count: self.done,
            per_s: self.per_s(),
            times: self.times,
            limited_s: self.limited_s.clone(),
            server_rss_per_conn_kb: self.server.map(|g| g.per(self.done)),
            client_rss_per_conn_kb: self.client.map(|g| g.per(self.done)),
        }
    }

    /// A line or two for people.
    #[must_use]
    pub fn summary(&self, p: Palette) -> String {
        let took = text::time(Duration::from_secs_f64(self.seconds.max(0.0)));
        let strong = |s: String| p.paint(Ink::Strong, s);
        let us = |v: f64| text::time(Duration::from_secs_f64(v.max(0.0) / 1e6));
        let checked = if self.verified { "every byte checked" } else { "counts and ends checked" };
        match self.job.mode {
            Mode::Download | Mode::Upload | Mode::Multi => format!(
                "{} {} in {took}: {}, {:.2} processor seconds per GB at this end, {checked}{}",
                self.job.mode.name(),
                text::size(self.bytes()),
                strong(text::rate(self.gbps())),
                self.cpu_s_per_gb(),
                self.limits_text().map_or(String::new(), |t| format!("\n  sending was limited by: {t}")),
            ),
            Mode::Requests | Mode::Handshakes => format!(
                "{} {} in {took}: {} per second\n  half within {}, 99 % within {}, 99.9 % within {}",
                self.done,
                self.job.mode.name(),
                strong(format!("{:.0}", self.per_s())),
                us(self.times.p50_us),
                us(self.times.p99_us),
                us(self.times.p999_us),
            ),
            Mode::Idle => {
                let mut s = format!("{} idle connections in {took}", self.done);
                for (who, growth) in [("server", self.server), ("client", self.client)] {
                    if let Some(g) = growth {
                        let _ = write!(s, "; {who} {} KiB each", strong(format!("{:.2}", g.per(self.done))));
                    }
                }
                s
            }
        }
    }

    /// The line of the comparison's programs, with their members in their order and with their digits.
    #[must_use]
    pub fn peer_line(&self, peer: &str) -> String {
        let (mode, bytes, seconds) = (self.job.mode.name(), self.bytes(), self.seconds);
        let (user, sys) = (self.usage.user_s, self.usage.sys_s);
        let mut s = format!(
            "{{\"peer\":\"{peer}\",\"mode\":\"{mode}\",\"bytes\":{bytes},\"seconds\":{seconds:.6},\
             \"user_s\":{user:.6},\"sys_s\":{sys:.6}"
        );
        // `write!` to a string cannot fail.
        let _ = match self.job.mode {
            Mode::Download | Mode::Upload | Mode::Multi => write!(
                s,
                ",\"goodput_gbps\":{:.4},\"cpu_s_per_GB\":{:.4},\"streams\":{},\"conns\":{}",
                self.gbps(),
                self.cpu_s_per_gb(),
                self.job.streams,
                self.job.total_conns()
            ),
            Mode::Requests | Mode::Handshakes => write!(
                s,
                ",\"goodput_gbps\":{:.4},\"cpu_s_per_GB\":{:.4},\"count\":{},\"concurrency\":{},\"{mode}_per_s\":{:.1},\
                 \"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1}",
                self.gbps(),
                self.cpu_s_per_gb(),
                self.done,
                self.job.concurrency,
                self.per_s(),
                self.times.p50_us,
                self.times.p99_us,
                self.times.p999_us
            ),
            Mode::Idle => write!(s, ",\"count\":{}", self.done),
        };
        if self.job.mode == Mode::Idle {
            if let Some(g) = self.server {
                let _ = write!(
                    s,
                    ",\"server_rss_before_kb\":{},\"server_rss_after_kb\":{},\"server_rss_per_conn_kb\":{:.3}",
                    g.before,
                    g.after,
                    g.per(self.done)
                );
            }
            if let Some(g) = self.client {
                let _ = write!(s, ",\"client_rss_per_conn_kb\":{:.3}", g.per(self.done));
            }
        }
        let (peak, payload) = (self.usage.peak_rss_kb, self.max_udp_payload);
        let _ = write!(s, ",\"peak_rss_kb\":{peak},\"max_udp_payload\":{payload}}}");
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(mode: Mode) -> PerfResult {
        let job = Job { mode, bytes: 1_000_000_000, streams: 2, conns: 5, concurrency: 8, ..Job::default() };
        let usage = Usage { user_s: 0.25, sys_s: 0.5, peak_rss_kb: 4321 };
        let mut times = Latencies::default();
        times.push(1500);
        let done = if mode.is_bulk() { job.streams * job.total_conns() } else { 100 };
        let mut r = PerfResult::new(&job, done, 2.0, usage, &mut times);
        r.server = Some(Growth { before: 1000, after: 1500 });
        r.client = Some(Growth { before: 2000, after: 1900 });
        r
    }

    #[test]
    fn what_limited_an_upload_is_told() {
        let mut up = result(Mode::Upload);
        assert!(!up.summary(Palette::PLAIN).contains("limited"));
        up.add_limits(&Limits::default());
        up.limited_s.extend([("pacing", 1.5), ("congestion_window", 0.25)]);
        let text = up.summary(Palette::PLAIN);
        assert!(text.ends_with("\n  sending was limited by: pacing 1.50 s, congestion window 250 ms"), "{text}");
        let object = serde_json::to_value(up.object()).unwrap();
        assert_eq!(object["limited_s"]["pacing"], 1.5);
        assert_eq!(object["limited_s"].as_object().unwrap().len(), 7);
        let mut down = up;
        down.job.mode = Mode::Download;
        assert!(!down.summary(Palette::PLAIN).contains("limited"));
    }

    #[test]
    fn peer_lines_have_the_members_of_the_others() {
        assert_eq!(
            result(Mode::Download).peer_line("courser"),
            "{\"peer\":\"courser\",\"mode\":\"download\",\"bytes\":1000000000,\"seconds\":2.000000,\"user_s\":0.250000,\
             \"sys_s\":0.500000,\"goodput_gbps\":4.0000,\"cpu_s_per_GB\":0.7500,\"streams\":2,\"conns\":1,\
             \"peak_rss_kb\":4321,\"max_udp_payload\":1472}"
        );
        assert_eq!(
            result(Mode::Requests).peer_line("courser"),
            "{\"peer\":\"courser\",\"mode\":\"requests\",\"bytes\":102400,\"seconds\":2.000000,\"user_s\":0.250000,\
             \"sys_s\":0.500000,\"goodput_gbps\":0.0004,\"cpu_s_per_GB\":7324.2188,\"count\":100,\"concurrency\":8,\
             \"requests_per_s\":50.0,\"p50_us\":1.5,\"p99_us\":1.5,\"p999_us\":1.5,\"peak_rss_kb\":4321,\
             \"max_udp_payload\":1472}"
        );
        assert_eq!(
            result(Mode::Idle).peer_line("courser"),
            "{\"peer\":\"courser\",\"mode\":\"idle-connections\",\"bytes\":6400,\"seconds\":2.000000,\
             \"user_s\":0.250000,\"sys_s\":0.500000,\"count\":100,\"server_rss_before_kb\":1000,\
             \"server_rss_after_kb\":1500,\"server_rss_per_conn_kb\":5.000,\"client_rss_per_conn_kb\":-1.000,\
             \"peak_rss_kb\":4321,\"max_udp_payload\":1472}"
        );
        assert!(result(Mode::Handshakes).peer_line("x").contains("\"handshakes_per_s\":50.0"));
        assert!(result(Mode::Multi).peer_line("x").contains("\"streams\":2,\"conns\":5"));
    }

    #[test]
    fn every_line_and_object_is_json() {
        for mode in [Mode::Download, Mode::Upload, Mode::Requests, Mode::Handshakes, Mode::Idle, Mode::Multi] {
            let r = result(mode);
            let v: serde_json::Value = serde_json::from_str(&r.peer_line("courser")).unwrap();
            assert_eq!(v["mode"], mode.name());
            let o = serde_json::to_value(r.object()).unwrap();
            assert_eq!(o["bytes"], v["bytes"]);
            assert!(o["p50_us"].is_number() && o["cpu_s_per_GB"].is_number());
        }
    }

    #[test]
    fn summaries_read_well() {
        assert_eq!(
            result(Mode::Download).summary(Palette::PLAIN),
            "download 954 MiB in 2.00 s: 4.00 Gb/s, 0.75 processor seconds per GB at this end, counts and ends checked"
        );
        assert_eq!(
            result(Mode::Requests).summary(Palette::PLAIN),
            "100 requests in 2.00 s: 50 per second\n  half within 1.50 µs, 99 % within 1.50 µs, 99.9 % within 1.50 µs"
        );
        assert_eq!(
            result(Mode::Idle).summary(Palette::PLAIN),
            "100 idle connections in 2.00 s; server 5.00 KiB each; client -1.00 KiB each"
        );
    }
}
