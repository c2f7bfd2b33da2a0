//! `courser vcl-test`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::common::IdentityArgs;
use super::stack::SocketArgs;
use super::units;

/// The two ends.
#[derive(Args, Clone, Debug)]
pub struct VclTestArgs {
    /// Which end.
    #[command(subcommand)]
    pub end: VclTestEnd,
}

/// Which end.
#[derive(Subcommand, Clone, Debug)]
pub enum VclTestEnd {
    /// Send back whatever arrives.
    Server(VclServerArgs),
    /// Connect, send, and check every byte that comes back.
    Client(VclClientArgs),
}

/// Who carries the sessions, and over what.
#[derive(Args, Clone, Debug)]
pub struct OverArgs {
    /// The protocol; without it the address says which, or it is quic.
    #[arg(short, long, value_name = "PROTOCOL")]
    pub protocol: Option<Carrier>,
    /// Where the service is.
    #[command(flatten)]
    pub place: SocketArgs,
    /// Use no service: host the sessions inside this process.
    #[arg(long)]
    pub inside: bool,
}

/// What sessions are carried by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// Connections with streams, encrypted.
    Quic,
    /// One stream per connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Flags of the server.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser vcl-test server -p quic 127.0.0.1:4433
  courser vcl-test server -p tcp 127.0.0.1:4433 --socket /tmp/courser.sock
  courser vcl-test server udp://127.0.0.1:4433 --inside

The service is the one at --socket, or the one that the file in COURSER_CONFIG names.")]
pub struct VclServerArgs {
    /// Where to listen: HOST:PORT, or with the protocol before it, like quic://HOST:PORT. Port 0: any.
    #[arg(value_name = "URI")]
    pub uri: String,
    /// Protocol and service.
    #[command(flatten)]
    pub over: OverArgs,
    /// Workers of a QUIC listener.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Certificate and key, for QUIC.
    #[command(flatten)]
    pub identity: IdentityArgs,
}

/// Flags of the client.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  courser vcl-test client -p quic 127.0.0.1:4433 --insecure --connections 2 --streams 4 --bytes 64M
  courser vcl-test client -p tcp 127.0.0.1:4433 --socket /tmp/courser.sock
  courser vcl-test client udp://127.0.0.1:4433 --inside --bytes 1M --block 1000

Over TCP and UDP, which have no streams, each stream is a connection of its own. Datagrams that get
lost are sent again, and counted.")]
pub struct VclClientArgs {
    /// Whom to talk to: HOST:PORT, or with the protocol before it, like quic://HOST:PORT.
    #[arg(value_name = "URI")]
    pub uri: String,
    /// Protocol and service.
    #[command(flatten)]
    pub over: OverArgs,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub connections: u32,
    /// Streams on each of them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub streams: u32,
    /// Bytes that each stream sends and gets back.
    #[arg(short, long, value_name = "SIZE", default_value = "1M", value_parser = units::size)]
    pub bytes: u64,
    /// Bytes in each call: 64K by default; over UDP each is a datagram, of 1200.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub block: Option<u64>,
    /// Give up when nothing moves for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub timeout: Duration,
    /// Trust the certificates in this PEM file instead of the system's.
    #[arg(long, value_name = "PEM", conflicts_with = "insecure", help_heading = "Trust")]
    pub ca: Option<PathBuf>,
    /// Take any certificate. Whoever is on the path can read and change everything.
    #[arg(long, help_heading = "Trust")]
    pub insecure: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn client(args: &[&str]) -> Result<VclClientArgs, clap::Error> {
        let cli = Cli::try_parse_from(["courser", "vcl-test", "client", "h:1"].iter().chain(args))?;
        match cli.command {
            Command::VclTest(args) => match args.end {
                VclTestEnd::Client(client) => Ok(client),
                VclTestEnd::Server(server) => panic!("{server:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_flag_chooses_the_protocol() {
        for (name, carrier) in [("quic", Carrier::Quic), ("tcp", Carrier::Tcp), ("udp", Carrier::Udp)] {
            assert_eq!(client(&["-p", name]).unwrap().over.protocol, Some(carrier));
        }
        assert_eq!(client(&[]).unwrap().over.protocol, None);
        assert!(client(&["-p", "sctp"]).is_err());
        assert!(client(&["--streams", "0"]).is_err() && client(&["--connections", "257"]).is_err());
    }
}
