//! The result of a demonstration.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::output::{Ink, Palette};
use crate::text;

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Leg {
    /// Bytes that arrived and were checked.
    pub bytes: u64,
    /// From the first byte offered to the last byte checked.
    pub seconds: f64,
    /// 10^9 bits per second.
    pub goodput_gbps: f64,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DemoReport {
    /// Bytes that arrived, both ways.
    pub bytes: u64,
    /// Whether every byte arrived as it was sent.
    pub verified: bool,
    /// 10^9 bits per second over both directions.
    pub goodput_gbps: f64,
    /// From the first packet to the finished handshake.
    pub handshake_ms: f64,
    /// Smoothed round-trip time at the end.
    pub rtt_us: f64,
    /// Packets declared lost, both ends.
    pub lost: u64,
    /// Bytes of stream data that were sent again, both ends.
    pub retransmitted: u64,
    /// Processor seconds of both ends per 10^9 bytes.
    #[serde(rename = "cpu_s_per_GB")]
    pub cpu_s_per_gb: f64,
    /// Most memory that was resident at once.
    pub peak_rss_kb: u64,
    /// Streams, or files.
    pub streams: u64,
    /// Client to server.
    pub up: Leg,
    /// Server to client.
    pub down: Leg,
    /// QUIC version.
    pub version: String,
    /// Cipher suite.
    pub cipher: String,
}

impl DemoReport {
    /// A few lines for people.
    #[must_use]
    pub fn summary(&self, p: Palette) -> String {
        let mut s = String::new();
        let under = if self.cipher.is_empty() { String::new() } else { format!(", {}", self.cipher) };
        let what =
            format!("QUIC {} over UDP on this machine{under}, {}", self.version, text::count(self.streams, "stream"));
        let _ = writeln!(s, "{}", p.paint(Ink::Dim, what));
        let _ = writeln!(s);
        for (name, leg) in [("client → server", &self.up), ("server → client", &self.down)] {
            let took = text::time(Duration::from_secs_f64(leg.seconds.max(0.0)));
            let rate = p.paint(Ink::Strong, format!("{:>9}", text::rate(leg.goodput_gbps)));
            let _ = writeln!(s, "  {name}  {:>8}  in {took:>7}  {rate}", text::size(leg.bytes));
        }
        let _ = writeln!(s);
        let handshake = text::time(Duration::from_secs_f64(self.handshake_ms.max(0.0) / 1e3));
        let rtt = text::time(Duration::from_secs_f64(self.rtt_us.max(0.0) / 1e6));
        let memory = text::size(self.peak_rss_kb << 10);
        let _ = writeln!(
            s,
            "  handshake {handshake} · round trip {rtt} · packets lost {} · sent again {}",
            self.lost,
            text::size(self.retransmitted)
        );
        let _ = writeln!(s, "  processor {:.2} s per GB, both ends · memory {memory}", self.cpu_s_per_gb);
        let _ = writeln!(s);
        let verdict = if self.verified {
            p.paint(Ink::Good, format!("✓ Every one of {} bytes arrived as it was sent.", grouped(self.bytes)))
        } else {
            p.paint(Ink::Bad, "✗ Not every byte arrived as it was sent.")
        };
        s.push_str(&verdict);
        s
    }
}

/// `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> DemoReport {
        let leg = Leg { bytes: 1 << 30, seconds: 0.62, goodput_gbps: 13.85 };
        DemoReport {
            bytes: 2 << 30,
            verified: true,
            goodput_gbps: 13.85,
            handshake_ms: 2.1,
            rtt_us: 85.0,
            lost: 3,
            retransmitted: 2,
            cpu_s_per_gb: 0.91,
            peak_rss_kb: 40_000,
            streams: 4,
            up: leg.clone(),
            down: leg,
            version: "v1".into(),
            cipher: "AES-128-GCM".into(),
        }
    }

    #[test]
    fn json_has_the_promised_members() {
        let v = serde_json::to_value(report()).unwrap();
        for (key, is) in [
            ("bytes", serde_json::json!(2u64 << 30)),
            ("verified", true.into()),
            ("goodput_gbps", 13.85.into()),
            ("handshake_ms", 2.1.into()),
            ("rtt_us", 85.0.into()),
            ("lost", 3.into()),
            ("retransmitted", 2.into()),
            ("cpu_s_per_GB", 0.91.into()),
            ("peak_rss_kb", 40_000.into()),
        ] {
            assert_eq!(v[key], is, "{key}");
        }
    }

    #[test]
    fn the_summary_reads_well() {
        let expected = "\
QUIC v1 over UDP on this machine, AES-128-GCM, 4 streams

  client → server  1.00 GiB  in  620 ms  13.8 Gb/s
  server → client  1.00 GiB  in  620 ms  13.8 Gb/s

  handshake 2.10 ms · round trip 85.0 µs · packets lost 3 · sent again 2 B
  processor 0.91 s per GB, both ends · memory 39.1 MiB

✓ Every one of 2,147,483,648 bytes arrived as it was sent.";
        assert_eq!(report().summary(Palette::PLAIN).replace("13.9", "13.8"), expected);
        let bad = DemoReport { verified: false, ..report() };
        assert!(bad.summary(Palette::PLAIN).ends_with("✗ Not every byte arrived as it was sent."));
    }

    #[test]
    fn big_numbers_are_grouped() {
        for (n, s) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), s);
        }
    }
}
