//! Flags that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use courser_core::config::Congestion;

use super::units;
use crate::tuning::{Cipher, Tuning};

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Tell more on standard error; twice for packets.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Output")]
    pub verbose: u8,
    /// Tell errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// When to use colours; NO_COLOR turns them off as well.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    pub color: When,
    /// What to log on standard error: a level (error, warn, info, debug, trace) or a filter like `courser=debug`.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "COURSER_LOG",
        hide_env_values = true,
        help_heading = "Output"
    )]
    pub log: Option<String>,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On terminals.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How an application talks to the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// Calls into the engine, in the thread that drives it.
    #[default]
    Direct,
    /// Messages to a worker thread, through a session port.
    Session,
    /// Handles that block, and threads to wait on them.
    Blocking,
    /// Futures on a Tokio runtime.
    Tokio,
}

/// Congestion controllers by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Cc {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// NewReno (RFC 9002).
    Newreno,
    /// BBR, version 3.
    Bbr,
    /// CUBIC below a round trip of 1.5 ms, BBR above.
    Adaptive,
}

impl Cc {
    /// As the transport calls it.
    #[must_use]
    pub const fn controller(self) -> Congestion {
        match self {
            Self::Cubic => Congestion::Cubic,
            Self::Newreno => Congestion::NewReno,
            Self::Bbr => Congestion::Bbr,
            Self::Adaptive => Congestion::ADAPTIVE,
        }
    }
}

/// Where traces go.
#[derive(Args, Clone, Debug, Default)]
pub struct QlogArgs {
    /// Write a qlog trace of each connection into this folder; `courser qlog` reads them.
    #[arg(long, value_name = "DIR", env = "QLOGDIR", hide_env_values = true, help_heading = "Output")]
    pub qlog: Option<PathBuf>,
}

/// Flags of the transport.
#[derive(Args, Clone, Debug)]
pub struct TransportArgs {
    /// Congestion controller.
    #[arg(long, value_name = "NAME", default_value = "cubic", help_heading = "Transport")]
    pub cc: Cc,
    /// Cipher to offer first.
    #[arg(long, value_name = "NAME", default_value = "aes128", help_heading = "Transport")]
    pub cipher: Cipher,
    /// Largest UDP payload, in bytes.
    #[arg(long, value_name = "N", default_value_t = 1472, help_heading = "Transport",
          value_parser = clap::value_parser!(u16).range(1200..=65527))]
    pub max_udp_payload: u16,
    /// UDP payload until a larger one is known to pass, in bytes.
    #[arg(long, value_name = "N", default_value_t = 1200, help_heading = "Transport",
          value_parser = clap::value_parser!(u16).range(1200..=65527))]
    pub initial_udp_payload: u16,
    /// Do not search for a larger datagram size.
    #[arg(long, help_heading = "Transport")]
    pub no_mtu_discovery: bool,
    /// Let the peer ask for fewer acknowledgements, and ask for fewer (an extension).
    #[arg(long, help_heading = "Transport")]
    pub ack_frequency: bool,
    /// Send one datagram a call.
    #[arg(long, help_heading = "Transport")]
    pub no_gso: bool,
    /// Most bytes that the peer may send ahead on a stream.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = units::size, help_heading = "Transport")]
    pub stream_window: u64,
    /// Most bytes that the peer may send ahead on a connection.
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = units::size, help_heading = "Transport")]
    pub conn_window: u64,
    /// Socket buffers; the system may give less.
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = units::size, help_heading = "Transport")]
    pub socket_buffer: u64,
    /// Look so long for the next datagram before sleeping, while they come that close together; 0s: never.
    #[arg(long, value_name = "TIME", default_value = "50us", value_parser = units::duration, help_heading = "Transport")]
    pub busy_poll: Duration,
    /// Streams that the peer may have open at once.
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Transport",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_streams: u64,
    /// End a connection that is silent for so long.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::duration, help_heading = "Transport")]
    pub idle_timeout: Duration,
    /// Say something after such a silence, so that connections stay: below both ends' idle timeouts.
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Transport")]
    pub keep_alive: Option<Duration>,
    /// Traces.
    #[command(flatten)]
    pub traces: QlogArgs,
}

impl TransportArgs {
    /// As the transport wants it.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        let mut t = Tuning::default();
        t.settings.congestion = self.cc.controller();
        t.settings.initial_udp_payload = self.initial_udp_payload;
        t.settings.max_udp_payload = self.max_udp_payload.max(self.initial_udp_payload);
        t.settings.mtu_discovery = !self.no_mtu_discovery;
        t.settings.ack_frequency = self.ack_frequency;
        t.settings.idle_timeout = self.idle_timeout;
        t.settings.keep_alive = self.keep_alive;
        t.windows(self.stream_window, self.conn_window);
        t.streams(self.max_streams);
        t.offload = !self.no_gso;
        t.socket_buffer = usize::try_from(self.socket_buffer).unwrap_or(usize::MAX);
        t.busy_poll = self.busy_poll;
        t.cipher = self.cipher;
        t
    }
}

/// Flags of a server's identity.
#[derive(Args, Clone, Debug, Default)]
pub struct IdentityArgs {
    /// Certificate chain in PEM, leaf first; without it a throw-away certificate is made.
    #[arg(long, value_name = "PEM", requires = "key", help_heading = "Identity")]
    pub cert: Option<PathBuf>,
    /// Private key in PEM.
    #[arg(long, value_name = "PEM", requires = "cert", help_heading = "Identity")]
    pub key: Option<PathBuf>,
}

/// Flags of a server's operation.
#[derive(Args, Clone, Debug)]
pub struct OperateArgs {
    /// How long connections may go on after SIGTERM; 0s: not at all. See --help for all signals.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration, help_heading = "Operation")]
    pub drain: Duration,
}

/// What servers say about signals.
pub const SIGNALS: &str = "\
Signals:
  SIGTERM  take no new connections, let those that there are go on for --drain, close what is left;
           a second one ends at once
  SIGINT   end at once
  SIGHUP   read --cert and --key again, for new connections; all others go on
  SIGUSR2  start the program anew, from the file it was started from and with the same flags, and give
           it the port; this process ends when its last connection has (Linux; not with --api direct)";

/// Flags of a client's trust.
#[derive(Args, Clone, Debug, Default)]
pub struct TrustArgs {
    /// Trust the certificates in this PEM file instead of the system's.
    #[arg(long, value_name = "PEM", conflicts_with = "insecure", help_heading = "Trust")]
    pub ca: Option<PathBuf>,
    /// Take any certificate. Whoever is on the path can read and change everything.
    #[arg(long, help_heading = "Trust")]
    pub insecure: bool,
    /// The name that the certificate must have, when it is not the host's.
    #[arg(long, value_name = "NAME", help_heading = "Trust")]
    pub server_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        transport: TransportArgs,
        #[command(flatten)]
        identity: IdentityArgs,
        #[command(flatten)]
        trust: TrustArgs,
    }

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["x"].iter().chain(args))
    }

    #[test]
    fn the_defaults_are_those_of_the_peers_and_valid() {
        let t = parse(&[]).unwrap().transport.tuning();
        let s = &t.settings;
        assert_eq!(s.validate(), Ok(()));
        assert_eq!((s.max_udp_payload, s.initial_udp_payload, s.mtu_discovery), (1472, 1200, true));
        assert_eq!((s.stream_window_max, s.conn_window_max), (16 << 20, 32 << 20));
        assert_eq!((s.max_streams_bidi, s.max_streams_uni), (128, 128));
        assert_eq!((t.offload, t.socket_buffer, t.cipher), (true, 8 << 20, Cipher::Aes128));
    }

    #[test]
    fn every_flag_arrives() {
        let t = parse(&[
            "--cc=newreno",
            "--cipher=chacha20",
            "--max-udp-payload=1300",
            "--initial-udp-payload=1252",
            "--no-gso",
            "--no-mtu-discovery",
            "--stream-window=1M",
            "--conn-window=2M",
            "--socket-buffer=64K",
            "--max-streams=7",
            "--idle-timeout=5s",
        ])
        .unwrap()
        .transport
        .tuning();
        let s = &t.settings;
        assert_eq!(s.validate(), Ok(()));
        assert_eq!((s.congestion, t.cipher), (Congestion::NewReno, Cipher::Chacha20));
        assert_eq!((s.max_udp_payload, s.initial_udp_payload, s.mtu_discovery), (1300, 1252, false));
        assert_eq!((s.stream_window_max, s.conn_window_max, t.socket_buffer), (1 << 20, 2 << 20, 65_536));
        assert_eq!((s.max_streams_bidi, s.idle_timeout, t.offload), (7, Duration::from_secs(5), false));
    }

    #[test]
    fn tiny_windows_stay_valid() {
        let t = parse(&["--stream-window=0", "--conn-window=1"]).unwrap().transport.tuning();
        assert_eq!(t.settings.validate(), Ok(()));
    }

    #[test]
    fn controllers_go_by_their_names() {
        for (name, congestion) in [("bbr", Congestion::Bbr), ("adaptive", Congestion::ADAPTIVE)] {
            let t = parse(&[&format!("--cc={name}")]).unwrap().transport.tuning();
            assert_eq!(t.settings.congestion, congestion);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            &["--cc=vegas"][..],
            &["--max-udp-payload=1199"],
            &["--max-streams=0"],
            &["--cert=x"],
            &["--key=x"],
            &["--ca=x", "--insecure"],
            &["--stream-window=x"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&["--cert=x", "--key=y", "--ca=z", "--server-name=n"]).is_ok());
    }
}
