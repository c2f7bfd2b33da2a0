//! `courser perf`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::common::{Api, IdentityArgs, OperateArgs, SIGNALS, TransportArgs, TrustArgs};
use super::units;
use crate::job::{Job, Mode};

/// The two ends.
#[derive(Args, Clone, Debug)]
pub struct PerfArgs {
    /// Which end.
    #[command(subcommand)]
    pub end: PerfEnd,
}

/// Which end.
#[derive(Subcommand, Clone, Debug)]
pub enum PerfEnd {
    /// Answer perf clients. Anybody who reaches it can make it work: not for the open internet.
    Server(PerfServerArgs),
    /// Load a perf server and measure.
    Client(PerfClientArgs),
}

/// Flags of the server.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = format!("\
Examples:
  courser perf server
  courser perf server --workers 4
  courser perf server --listen 0.0.0.0:4433 --cert cert.pem --key key.pem --verify
  courser perf server --api tokio --drain 30s

{SIGNALS}"))]
pub struct PerfServerArgs {
    /// Where to listen.
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:4433")]
    pub listen: String,
    /// Send bytes that are made from their offset, and check those that arrive; for clients with --verify.
    #[arg(long)]
    pub verify: bool,
    /// Workers, each with an engine and a socket of its own; 0: as many as can run at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=128))]
    pub workers: u16,
    /// How datagrams find their worker, as far as the system has that.
    #[arg(long, value_name = "HOW", default_value = "filter")]
    pub steering: Steering,
    /// How the program talks to the transport.
    #[arg(long, value_name = "FACE", default_value = "direct")]
    pub api: Api,
    /// Certificate and key.
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// Flags of operation.
    #[command(flatten)]
    pub operate: OperateArgs,
    /// Flags of the transport.
    #[command(flatten)]
    pub transport: TransportArgs,
}

/// How datagrams that come to one port find their worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Steering {
    /// A filter in the system reads connection IDs.
    #[default]
    Filter,
    /// The system goes by addresses; workers hand over what came to the wrong one.
    Hash,
    /// The first worker reads everything.
    One,
}

impl From<Steering> for courser::Steering {
    fn from(steering: Steering) -> Self {
        match steering {
            Steering::Filter => Self::Filter,
            Steering::Hash => Self::Hash,
            Steering::One => Self::One,
        }
    }
}

/// Flags of the client.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser perf client localhost:4433 --insecure --bytes 10G
  courser perf client quic://10.0.0.7:4433 --ca cert.pem --mode requests --count 100000 --concurrency 32
  courser perf client localhost:4433 --insecure --verify --mode upload --streams 8 --json")]
pub struct PerfClientArgs {
    /// Whom to talk to: HOST:PORT or quic://HOST:PORT.
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// What to measure.
    #[arg(short, long, value_name = "MODE", default_value = "download")]
    pub mode: Mode,
    /// Bytes of download, upload and multi, over all streams.
    #[arg(short, long, value_name = "SIZE", default_value = "1G", value_parser = units::size)]
    pub bytes: u64,
    /// Streams of each connection in download, upload and multi.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub streams: u64,
    /// Connections of multi.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub conns: u64,
    /// Requests, handshakes or idle connections.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000)]
    pub count: u64,
    /// How many of them at once.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub concurrency: u64,
    /// Bytes that a request gets.
    #[arg(long, value_name = "SIZE", default_value = "1K", value_parser = units::size)]
    pub response_bytes: u64,
    /// Check every byte; the server needs --verify as well. Without it, counts and ends are checked.
    #[arg(long)]
    pub verify: bool,
    /// How long idle connections are held.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::duration)]
    pub hold: Duration,
    /// Give up after so long.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::duration)]
    pub timeout: Duration,
    /// How the program talks to the transport.
    #[arg(long, value_name = "FACE", default_value = "direct")]
    pub api: Api,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Flags of the transport.
    #[command(flatten)]
    pub transport: TransportArgs,
}

impl PerfClientArgs {
    /// What is to be done.
    #[must_use]
    pub fn job(&self) -> Job {
        Job {
            mode: self.mode,
            bytes: self.bytes,
            streams: self.streams,
            conns: self.conns,
            count: self.count,
            concurrency: self.concurrency,
            response_bytes: self.response_bytes,
            server_pid: None,
            hold: self.hold,
            timeout: self.timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Result<PerfEnd, clap::Error> {
        let cli = Cli::try_parse_from(["courser", "perf"].iter().chain(args))?;
        match cli.command {
            Command::Perf(p) => Ok(p.end),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_a_job() {
        let PerfEnd::Client(c) = parse(&[
            "client",
            "h:1",
            "--mode=idle",
            "--bytes=2M",
            "--streams=3",
            "--conns=5",
            "-n",
            "7",
            "-c",
            "2",
            "--verify",
            "--response-bytes=9",
            "--api=tokio",
            "--timeout=3",
            "--hold=1s",
        ])
        .unwrap() else {
            panic!()
        };
        assert!(c.verify && !c.trust.insecure);
        assert_eq!(c.api, Api::Tokio);
        let expected = Job {
            mode: Mode::Idle,
            bytes: 2 << 20,
            streams: 3,
            conns: 5,
            count: 7,
            concurrency: 2,
            response_bytes: 9,
            server_pid: None,
            hold: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
        };
        assert_eq!(c.job(), expected);
    }

    #[test]
    fn every_mode_has_its_name() {
        for mode in ["download", "upload", "requests", "handshakes", "idle-connections", "multi"] {
            match parse(&["client", "h:1", "--mode", mode]).unwrap() {
                PerfEnd::Client(c) => assert_eq!(c.mode.name(), mode),
                PerfEnd::Server(s) => panic!("{s:?}"),
            }
        }
        assert!(parse(&["client", "h:1", "--mode=sideways"]).is_err());
        assert!(parse(&["client", "h:1", "--streams=0"]).is_err());
        assert!(parse(&["client"]).is_err());
    }

    #[test]
    fn a_server_has_defaults() {
        match parse(&["server"]).unwrap() {
            PerfEnd::Server(s) => {
                assert_eq!((s.listen.as_str(), s.verify, s.api), ("127.0.0.1:4433", false, Api::Direct))
            }
            PerfEnd::Client(c) => panic!("{c:?}"),
        }
    }
}
