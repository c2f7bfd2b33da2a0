//! The result of an echo client.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::args::echo::Phase;
use crate::output::{Ink, Palette};
use crate::{measure, text};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EchoReport {
    /// Connections.
    pub connections: u64,
    /// Streams on each.
    pub streams: u64,
    /// Bytes that came back, over all streams.
    pub bytes: u64,
    /// Whether all of them were those that were sent.
    pub verified: bool,
    /// Seconds until all connections were up.
    pub connect_s: f64,
    /// Seconds until every stream was open.
    pub open_s: f64,
    /// Seconds until the last byte was back.
    pub transfer_s: f64,
    /// Seconds until all connections were gone.
    pub close_s: f64,
    /// 10^9 bits per second of the transfer, in each direction.
    pub goodput_gbps: f64,
    /// Handshakes per second of the first phase.
    pub connects_per_s: f64,
    /// Streams per second of the second phase.
    pub opens_per_s: f64,
}

impl EchoReport {
    /// Works out the rates.
    #[must_use]
    pub fn with_rates(mut self) -> Self {
        let per = |n: u64, s: f64| if s > 0.0 { n as f64 / s } else { 0.0 };
        self.goodput_gbps = measure::gbps(self.bytes, self.transfer_s);
        self.connects_per_s = per(self.connections, self.connect_s);
        self.opens_per_s = per(self.connections * self.streams, self.open_s);
        self
    }

    /// A few lines for people, with the phases that were asked for.
    #[must_use]
    pub fn summary(&self, phases: &[Phase], p: Palette) -> String {
        let mut s = String::new();
        for phase in phases {
            let (name, seconds, what) = match phase {
                Phase::Connect => ("connect", self.connect_s, format!("{:.0} handshakes/s", self.connects_per_s)),
                Phase::Open => ("open", self.open_s, format!("{:.0} streams/s", self.opens_per_s)),
                Phase::Transfer => ("transfer", self.transfer_s, text::rate(self.goodput_gbps) + " each way"),
                Phase::Close => ("close", self.close_s, String::new()),
            };
            let took = text::time(Duration::from_secs_f64(seconds.max(0.0)));
            let _ = writeln!(s, "  {name:<9} {took:>8}  {}", p.paint(Ink::Dim, what));
        }
        let (connections, streams) = (text::count(self.connections, "connection"), text::count(self.streams, "stream"));
        let ok = if self.verified { p.paint(Ink::Good, "all as sent") } else { p.paint(Ink::Bad, "not as sent") };
        let took = text::time(Duration::from_secs_f64(self.transfer_s.max(0.0)));
        let _ = write!(
            s,
            "{connections} with {streams}: {} came back in {took}, {}, {ok}",
            text::size(self.bytes),
            p.paint(Ink::Strong, text::rate(self.goodput_gbps)),
        );
        s.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> EchoReport {
        EchoReport {
            connections: 2,
            streams: 4,
            bytes: 1_000_000_000,
            verified: true,
            connect_s: 0.004,
            open_s: 0.001,
            transfer_s: 2.0,
            close_s: 0.0005,
            ..EchoReport::default()
        }
        .with_rates()
    }

    #[test]
    fn phases_are_printed_as_asked() {
        let all = [Phase::Connect, Phase::Open, Phase::Transfer, Phase::Close];
        let expected = "  connect    4.00 ms  500 handshakes/s
  open       1.00 ms  8000 streams/s
  transfer    2.00 s  4.00 Gb/s each way
  close       500 µs
2 connections with 4 streams: 954 MiB came back in 2.00 s, 4.00 Gb/s, all as sent";
        assert_eq!(report().summary(&all, Palette::PLAIN), expected);
        assert_eq!(report().summary(&[], Palette::PLAIN).lines().count(), 1);
        let bad = EchoReport { verified: false, ..report() };
        assert!(bad.summary(&[Phase::Close], Palette::PLAIN).ends_with("not as sent"));
    }

    #[test]
    fn json_has_every_phase() {
        let v = serde_json::to_value(report()).unwrap();
        for key in ["connect_s", "open_s", "transfer_s", "close_s", "bytes", "verified", "goodput_gbps"] {
            assert!(!v[key].is_null(), "{key}");
        }
    }
}
