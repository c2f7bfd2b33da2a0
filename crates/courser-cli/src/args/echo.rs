//! `courser echo`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::common::{IdentityArgs, OperateArgs, SIGNALS, TransportArgs, TrustArgs};
use super::units::{self, Clients};

/// The two ends.
#[derive(Args, Clone, Debug)]
pub struct EchoArgs {
    /// Which end.
    #[command(subcommand)]
    pub end: EchoEnd,
    /// Have no transport, but a port of the service at this socket (`courser stack`).
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<std::path::PathBuf>,
}

/// Which end.
#[derive(Subcommand, Clone, Debug)]
pub enum EchoEnd {
    /// Send back whatever arrives, on every stream of every connection.
    Server(EchoServerArgs),
    /// Open connections, then streams, then send; check what comes back.
    Client(EchoClientArgs),
}

/// Flags of the server.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = format!("\
Examples:
  courser echo server quic://0.0.0.0:4433
  courser echo server quic://[::]:4433 --cert cert.pem --key key.pem --workers 4

{SIGNALS}"))]
pub struct EchoServerArgs {
    /// Where to listen: quic://HOST:PORT (quic://HOST/PORT is understood too).
    #[arg(value_name = "URI")]
    pub uri: String,
    /// Workers that serve, each with an engine and a socket of its own; 0: as many as can run at once.
    #[arg(long, visible_alias = "threads", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(0..=128))]
    #[cfg_attr(unix, arg(conflicts_with = "socket"))]
    pub workers: u16,
    /// How the program talks to the transport: direct or session.
    #[arg(long, value_name = "FACE", default_value = "direct")]
    #[cfg_attr(unix, arg(conflicts_with = "socket"))]
    pub api: EchoApi,
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

/// Flags of the client.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser echo client quic://localhost:4433 --insecure
  courser echo client quic://10.0.0.7:4433 --ca cert.pem --nclient 2/4 --bytes 256M --timing
          2 connections first, then 4 streams on each, then 256 MiB on each stream
  courser echo client quic://10.0.0.7:4433 --insecure --nclient 1000 --timing=connect,close")]
pub struct EchoClientArgs {
    /// Whom to talk to: quic://HOST:PORT (quic://HOST/PORT is understood too).
    #[arg(value_name = "URI")]
    pub uri: String,
    /// Connections, and streams on each of them.
    #[arg(long, value_name = "C/S", default_value = "1/1", value_parser = units::clients)]
    pub nclient: Clients,
    /// Bytes that each stream sends and gets back.
    #[arg(short, long, value_name = "SIZE", default_value = "1M", value_parser = units::size)]
    pub bytes: u64,
    /// Threads among which the connections are shared.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    #[cfg_attr(unix, arg(conflicts_with = "socket"))]
    pub threads: u16,
    /// Print how long phases took: all, or some of connect, open, transfer, close.
    #[arg(long, value_name = "PHASE", value_delimiter = ',', num_args = 0..=4, require_equals = true,
          default_missing_value = "connect,open,transfer,close")]
    pub timing: Vec<Phase>,
    /// Give up when a phase takes so long.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::duration)]
    pub timeout: Duration,
    /// How the program talks to the transport: direct or session. Through a session port it is one thread.
    #[arg(long, value_name = "FACE", default_value = "direct")]
    #[cfg_attr(unix, arg(conflicts_with = "socket"))]
    pub api: EchoApi,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Flags of the transport.
    #[command(flatten)]
    pub transport: TransportArgs,
}

/// How the echo programs talk to the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EchoApi {
    /// Calls into the engine, in the threads that drive it.
    #[default]
    Direct,
    /// Messages to a worker thread, through a session port.
    Session,
}

/// Parts of a run, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Phase {
    /// Until all connections are up.
    Connect,
    /// Until the first byte of every stream has come back.
    Open,
    /// Until the last byte has come back.
    Transfer,
    /// Until all connections are gone.
    Close,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Result<EchoEnd, clap::Error> {
        let cli = Cli::try_parse_from(["courser", "echo"].iter().chain(args))?;
        match cli.command {
            Command::Echo(e) => Ok(e.end),
            other => panic!("{other:?}"),
        }
    }

    fn client(args: &[&str]) -> Result<EchoClientArgs, clap::Error> {
        match parse(&[&["client", "quic://h:1"], args].concat())? {
            EchoEnd::Client(c) => Ok(c),
            EchoEnd::Server(s) => panic!("{s:?}"),
        }
    }

    #[test]
    fn the_tools_options_are_there() {
        let c = client(&["--nclient", "2/4", "--bytes", "3K", "--threads", "2", "--log", "debug"]).unwrap();
        assert_eq!(c.nclient, Clients { connections: 2, streams: 4 });
        assert_eq!((c.bytes, c.threads, c.timing.len()), (3072, 2, 0));
        assert!(client(&["--nclient", "0"]).is_err());
        assert!(client(&["--threads", "0"]).is_err());
        assert!(parse(&["server"]).is_err());
        assert!(matches!(parse(&["server", "quic://h/1"]).unwrap(), EchoEnd::Server(_)));
    }

    #[cfg(unix)]
    #[test]
    fn the_service_may_be_named_before_the_end_or_behind_it() {
        for args in [["--socket", "/s", "server", "quic://h:1"], ["server", "quic://h:1", "--socket", "/s"]] {
            let cli = Cli::try_parse_from(["courser", "echo"].iter().chain(&args)).unwrap();
            let Command::Echo(echo) = cli.command else { panic!("{:?}", cli.command) };
            assert_eq!(echo.socket.as_deref(), Some(std::path::Path::new("/s")), "{args:?}");
        }
        for flags in [["--api", "session"], ["--threads", "2"]] {
            assert!(client(&[&["--socket", "/s"], &flags[..]].concat()).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn phases_are_all_or_chosen() {
        assert_eq!(client(&["--timing"]).unwrap().timing, [Phase::Connect, Phase::Open, Phase::Transfer, Phase::Close]);
        assert_eq!(client(&["--timing=connect,close"]).unwrap().timing, [Phase::Connect, Phase::Close]);
        assert!(client(&["--timing=never"]).is_err());
    }
}
