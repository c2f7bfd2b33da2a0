//! What a perf client is to do, as `courser perf` and `peer-courser` both put it.

use std::time::Duration;

use clap::ValueEnum;

use crate::apps::perf_client::Plan;
use crate::apps::perf_server::Content;

/// Bytes that a request sends after its head.
const REQUEST_BYTES: u64 = 56;
/// Bytes that a connection of the handshake modes asks for.
const GREETING_BYTES: u64 = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Bytes from the server, on one connection.
    #[default]
    Download,
    /// Bytes to the server, on one connection.
    Upload,
    /// Small requests on one connection.
    Requests,
    /// Connections, one after the other.
    Handshakes,
    /// Connections that stay open and do nothing.
    #[value(name = "idle-connections", alias = "idle")]
    Idle,
    /// Bytes from the server, on several connections.
    Multi,
}

impl Mode {
    /// The name on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Requests => "requests",
            Self::Handshakes => "handshakes",
            Self::Idle => "idle-connections",
            Self::Multi => "multi",
        }
    }

    /// Whether bytes per second are what counts.
    #[must_use]
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::Download | Self::Upload | Self::Multi)
    }

    /// Whether every transaction has a connection of its own.
    #[must_use]
    pub const fn connects(self) -> bool {
        matches!(self, Self::Handshakes | Self::Idle)
    }
}

/// The whole job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What is measured.
    pub mode: Mode,
    /// Bytes of the bulk modes, over all streams.
    pub bytes: u64,
    /// Streams of each connection of the bulk modes.
    pub streams: u64,
    /// Connections of `multi`.
    pub conns: u64,
    /// Requests or connections of the other modes.
    pub count: u64,
    /// How many of them at once.
    pub concurrency: u64,
    /// Bytes that a request gets.
    pub response_bytes: u64,
    /// The server's process, whose memory is looked at.
    pub server_pid: Option<u32>,
    /// How long idle connections are held.
    pub hold: Duration,
    /// How long everything may take.
    pub timeout: Duration,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            mode: Mode::Download,
            bytes: 256 << 20,
            streams: 1,
            conns: 4,
            count: 1000,
            concurrency: 1,
            response_bytes: 1024,
            server_pid: None,
            hold: Duration::from_millis(500),
            timeout: Duration::from_secs(55),
        }
    }
}

impl Job {
    /// Connections that exist at once at the start: those of the bulk modes and of requests.
    #[must_use]
    pub fn total_conns(&self) -> u64 {
        if self.mode == Mode::Multi { self.conns.max(1) } else { 1 }
    }

    /// Bytes of each stream of the bulk modes.
    #[must_use]
    pub fn per_stream(&self) -> u64 {
        (self.bytes / self.streams.max(1).saturating_mul(self.total_conns())).max(1)
    }

    /// Bytes that are really moved in the bulk modes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.per_stream().saturating_mul(self.streams.max(1)).saturating_mul(self.total_conns())
    }

    /// What one connection has to do.
    #[must_use]
    pub fn plan(&self, content: Content) -> Plan {
        let streams = self.streams.max(1);
        let (count, at_once, up, down) = match self.mode {
            Mode::Download | Mode::Multi => (streams, streams, 0, self.per_stream()),
            Mode::Upload => (streams, streams, self.per_stream(), 0),
            Mode::Requests => (self.count, self.concurrency.max(1), REQUEST_BYTES, self.response_bytes),
            Mode::Handshakes | Mode::Idle => (1, 1, REQUEST_BYTES, GREETING_BYTES),
        };
        Plan { timed: self.mode == Mode::Requests, ..Plan::uniform(count, at_once, up, down, content) }
    }

    /// Bytes that count when `ended` transactions are through.
    #[must_use]
    pub fn counted(&self, ended: u64) -> u64 {
        match self.mode {
            Mode::Download | Mode::Upload | Mode::Multi => ended.saturating_mul(self.per_stream()),
            Mode::Requests => ended.saturating_mul(self.response_bytes),
            Mode::Handshakes | Mode::Idle => ended.saturating_mul(GREETING_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shared_among_streams_and_connections() {
        let j = Job { bytes: 1000, streams: 3, ..Job::default() };
        assert_eq!((j.per_stream(), j.total_bytes(), j.total_conns()), (333, 999, 1));
        let j = Job { mode: Mode::Multi, bytes: 1 << 20, streams: 4, conns: 8, ..Job::default() };
        assert_eq!((j.per_stream(), j.total_bytes(), j.total_conns()), (32_768, 1 << 20, 8));
        let j = Job { bytes: 0, streams: 0, ..Job::default() };
        assert_eq!((j.per_stream(), j.total_bytes()), (1, 1));
    }

    #[test]
    fn plans_follow_the_modes() {
        let plan = |mode| {
            let p = Job { mode, streams: 2, concurrency: 8, bytes: 100, ..Job::default() }.plan(Content::Fill);
            (p.count, p.at_once, p.up[0], p.down[0], p.timed)
        };
        assert_eq!(plan(Mode::Download), (2, 2, 0, 50, false));
        assert_eq!(plan(Mode::Upload), (2, 2, 50, 0, false));
        assert_eq!(plan(Mode::Requests), (1000, 8, 56, 1024, true));
        assert_eq!(plan(Mode::Handshakes), (1, 1, 56, 64, false));
        assert_eq!(plan(Mode::Idle), (1, 1, 56, 64, false));
        assert_eq!(plan(Mode::Multi), (2, 2, 0, 12, false));
        assert!(Mode::Multi.is_bulk() && !Mode::Requests.is_bulk() && Mode::Idle.connects());
    }

    #[test]
    fn counted_bytes_are_those_of_ended_transactions() {
        assert_eq!(Job { mode: Mode::Requests, ..Job::default() }.counted(3), 3072);
        assert_eq!(Job { mode: Mode::Handshakes, ..Job::default() }.counted(3), 192);
        assert_eq!(Job { bytes: 100, streams: 2, ..Job::default() }.counted(2), 100);
    }
}
