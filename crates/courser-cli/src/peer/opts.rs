//! The comparison's command line. It is read by hand: its rules (a flag that is not known is skipped, numbers are cut to
//! what can be) are not those of the `courser` command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::args::common::{Api, Cc};
use crate::job::{Job, Mode};
use crate::tuning::Tuning;

/// How to call it.
pub const USAGE: &str = "\
usage: peer-courser server --listen ADDR --cert PEM --key PEM [common]
       peer-courser client --connect ADDR --mode MODE [mode options] [common]
modes: download upload requests handshakes idle-connections multi
mode options: --bytes N(K|M|G) --streams S --conns N --count N --concurrency C
              --response-bytes N --server-pid PID --hold-ms N --timeout SECONDS
common: --max-udp-payload N (1472) --initial-udp-payload N (1200) --no-mtu-discovery
        --stream-window N (16M) --conn-window N (32M) --socket-buffer N (8M)
        --no-gso --cc cubic|bbr|newreno|adaptive --cipher aes128|aes256|chacha20
        --idle-timeout-ms N (60000) --max-streams N (128) --api direct|session|tokio
        --workers N (1; 0: as many as can run at once) --busy-poll-us N (50; 0: never)
A flag that is not known is skipped together with its value.";

/// Flags without a value that other programs may know and this one does not.
const BARE: [&str; 2] = ["--no-gso", "--no-mtu-discovery"];

/// Which end.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Serves with these files.
    Server {
        /// Certificate chain.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// Does this.
    Client(Box<Job>),
}

/// Everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Opts {
    /// Which end.
    pub end: End,
    /// Where to listen or connect.
    pub addr: SocketAddr,
    /// Transport.
    pub tuning: Tuning,
    /// How the program talks to the transport.
    pub api: Api,
    /// Workers of a server; 0: as many as can run at once.
    pub workers: u16,
}

/// What is collected on the way.
struct Draft {
    server: bool,
    addr: SocketAddr,
    cert: PathBuf,
    key: PathBuf,
    job: Job,
    tuning: Tuning,
    windows: (u64, u64),
    streams: u64,
    cc: Cc,
    api: Api,
    workers: u16,
}

/// Reads the arguments after the program's name. `name` chooses the face by its end (`peer-courser-tokio`), so that the
/// comparison can run several from links to one file.
///
/// # Errors
/// What to print on standard error before exiting with 2.
pub fn parse(name: &str, args: impl IntoIterator<Item = String>) -> Result<Opts, String> {
    let mut args = args.into_iter();
    let server = match args.next().as_deref() {
        Some("server") => true,
        Some("client") => false,
        _ => return Err(USAGE.into()),
    };
    let api = Api::value_variants().iter().copied().find(|a| name.ends_with(&format!("-{}", word(*a))));
    let mut draft = Draft {
        server,
        addr: SocketAddr::from(([127, 0, 0, 1], 4433)),
        cert: PathBuf::new(),
        key: PathBuf::new(),
        job: Job::default(),
        tuning: Tuning::default(),
        windows: (16 << 20, 32 << 20),
        streams: 128,
        cc: Cc::Cubic,
        api: api.unwrap_or_default(),
        workers: 1,
    };
    draft.tuning.settings.idle_timeout = Duration::from_secs(60);
    while let Some(flag) = args.next() {
        if BARE.contains(&flag.as_str()) {
            draft.bare(&flag);
        } else {
            let value = args.next().ok_or(USAGE)?;
            draft.set(&flag, value)?;
        }
    }
    draft.finish()
}

/// The word of a choice on the command line.
fn word(v: impl ValueEnum) -> String {
    v.to_possible_value().map(|p| p.get_name().to_owned()).unwrap_or_default()
}

fn choice<V: ValueEnum>(text: &str) -> Result<V, String> {
    V::from_str(text, true).map_err(|_| format!("`{text}` is unknown\n{USAGE}"))
}

fn number(text: &str) -> Result<u64, String> {
    crate::args::units::size(text).map_err(|_| format!("not a number: {text}"))
}

impl Draft {
    fn bare(&mut self, flag: &str) {
        match flag {
            "--no-gso" => self.tuning.offload = false,
            _ => self.tuning.settings.mtu_discovery = false,
        }
    }

    fn set(&mut self, flag: &str, value: String) -> Result<(), String> {
        match flag {
            "--listen" | "--connect" => self.addr = value.parse().map_err(|_| USAGE)?,
            "--cert" => self.cert = value.into(),
            "--key" => self.key = value.into(),
            "--mode" => self.job.mode = choice(&value)?,
            "--cc" => self.cc = choice(&value)?,
            "--cipher" => self.tuning.cipher = choice(&value)?,
            "--api" => self.api = choice(&value)?,
            _ => return self.set_number(flag, &value),
        }
        Ok(())
    }

    fn set_number(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let payload = |n: u64| u16::try_from(n.clamp(1200, 65_527)).unwrap_or(1200);
        let (job, settings) = (&mut self.job, &mut self.tuning.settings);
        match flag {
            "--bytes" => job.bytes = number(value)?,
            "--streams" => job.streams = number(value)?,
            "--conns" => job.conns = number(value)?,
            "--count" => job.count = number(value)?,
            "--concurrency" => job.concurrency = number(value)?.max(1),
            "--response-bytes" => job.response_bytes = number(value)?,
            "--server-pid" => job.server_pid = u32::try_from(number(value)?).ok(),
            "--hold-ms" => job.hold = Duration::from_millis(number(value)?),
            "--timeout" => job.timeout = Duration::from_secs(number(value)?),
            "--max-udp-payload" => settings.max_udp_payload = payload(number(value)?),
            "--initial-udp-payload" => settings.initial_udp_payload = payload(number(value)?),
            "--stream-window" => self.windows.0 = number(value)?,
            "--conn-window" => self.windows.1 = number(value)?,
            "--socket-buffer" => self.tuning.socket_buffer = usize::try_from(number(value)?).unwrap_or(usize::MAX),
            "--idle-timeout-ms" => settings.idle_timeout = Duration::from_millis(number(value)?),
            "--busy-poll-us" => self.tuning.busy_poll = Duration::from_micros(number(value)?),
            "--workers" => self.workers = u16::try_from(number(value)?).unwrap_or(u16::MAX),
            "--max-streams" => self.streams = number(value)?.max(1),
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Opts, String> {
        if self.server && (self.cert.as_os_str().is_empty() || self.key.as_os_str().is_empty()) {
            return Err(USAGE.into());
        }
        let settings = &mut self.tuning.settings;
        settings.congestion = self.cc.controller();
        settings.max_udp_payload = settings.max_udp_payload.max(settings.initial_udp_payload);
        self.tuning.windows(self.windows.0, self.windows.1);
        // The comparison's windows are what is granted from the start.
        let settings = &mut self.tuning.settings;
        (settings.stream_window, settings.conn_window) = (settings.stream_window_max, settings.conn_window_max);
        self.tuning.streams(self.streams.min(1 << 60));
        self.tuning.settings.validate().map_err(|e| e.to_string())?;
        let end =
            if self.server { End::Server { cert: self.cert, key: self.key } } else { End::Client(Box::new(self.job)) };
        Ok(Opts { end, addr: self.addr, tuning: self.tuning, api: self.api, workers: self.workers })
    }
}

impl Opts {
    /// The name of the mode, for lines about failures.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &self.end {
            End::Client(job) => job.mode,
            End::Server { .. } => Mode::default(),
        }
    }
}

/// The line of a failure.
#[must_use]
pub fn error_line(mode: Mode, why: &str) -> String {
    let why = why.replace(['"', '\\', '\n'], " ");
    format!("{{\"peer\":\"courser\",\"mode\":\"{}\",\"error\":\"{why}\"}}", mode.name())
}

/// The line of a server that was asked to end.
#[must_use]
pub fn server_line(usage: &crate::measure::Usage) -> String {
    format!(
        "{{\"role\":\"server\",\"peer\":\"courser\",\"user_s\":{:.6},\"sys_s\":{:.6},\"peak_rss_kb\":{}}}",
        usage.user_s, usage.sys_s, usage.peak_rss_kb
    )
}

#[cfg(test)]
mod tests {
    use courser_core::config::Congestion;

    use super::*;

    fn opts(args: &[&str]) -> Result<Opts, String> {
        parse("peer-courser", args.iter().map(ToString::to_string))
    }

    fn job(args: &[&str]) -> Job {
        match opts(args).unwrap().end {
            End::Client(job) => *job,
            End::Server { .. } => panic!("a server"),
        }
    }

    #[test]
    fn the_defaults_are_the_comparisons() {
        let o = opts(&["client"]).unwrap();
        let s = &o.tuning.settings;
        assert_eq!(o.addr.to_string(), "127.0.0.1:4433");
        assert_eq!((s.max_udp_payload, s.initial_udp_payload, s.mtu_discovery), (1472, 1200, true));
        assert_eq!((s.stream_window_max, s.conn_window_max, s.max_streams_bidi), (16 << 20, 32 << 20, 128));
        assert_eq!((s.idle_timeout, s.congestion), (Duration::from_secs(60), Congestion::Cubic));
        assert_eq!((o.tuning.socket_buffer, o.tuning.offload, o.api), (8 << 20, true, Api::Direct));
        assert_eq!((o.workers, opts(&["client", "--workers", "4"]).unwrap().workers), (1, 4));
        let j = job(&["client"]);
        assert_eq!(j, Job::default());
        assert_eq!((j.bytes, j.streams, j.conns, j.count, j.timeout.as_secs()), (256 << 20, 1, 4, 1000, 55));
    }

    #[test]
    fn the_comparisons_own_calls_are_understood() {
        let o = opts(&["server", "--listen", "127.0.0.1:46001", "--cert", "c.pem", "--key", "k.pem"]).unwrap();
        assert_eq!(o.end, End::Server { cert: "c.pem".into(), key: "k.pem".into() });
        let j = job(&[
            "client",
            "--connect",
            "127.0.0.1:46001",
            "--timeout",
            "55",
            "--mode",
            "idle-connections",
            "--concurrency",
            "8",
            "--count",
            "2000",
            "--server-pid",
            "77",
        ]);
        assert_eq!((j.mode, j.concurrency, j.count, j.server_pid), (Mode::Idle, 8, 2000, Some(77)));
        assert_eq!(job(&["client", "--mode", "idle"]).mode, Mode::Idle);
        let j = job(&["client", "--mode", "multi", "--conns", "8", "--streams", "4", "--bytes", "2G"]);
        assert_eq!((j.conns, j.streams, j.bytes), (8, 4, 2 << 30));
    }

    #[test]
    fn numbers_are_cut_to_what_can_be() {
        let o = opts(&["client", "--max-udp-payload", "100000", "--initial-udp-payload", "5", "--max-streams", "0"])
            .unwrap();
        let s = &o.tuning.settings;
        assert_eq!((s.max_udp_payload, s.initial_udp_payload, s.max_streams_bidi), (65_527, 1200, 1));
        let o = opts(&["client", "--initial-udp-payload", "1472", "--max-udp-payload", "1300"]).unwrap();
        assert_eq!(o.tuning.settings.max_udp_payload, 1472);
        assert_eq!(job(&["client", "--concurrency", "0"]).concurrency, 1);
    }

    #[test]
    fn flags_without_value_and_unknown_ones_are_taken() {
        let o = opts(&["client", "--no-gso", "--new-thing", "7", "--no-mtu-discovery", "--count", "3"]).unwrap();
        assert!(!o.tuning.offload && !o.tuning.settings.mtu_discovery);
        assert_eq!(job(&["client", "--new-thing", "7", "--count", "3"]).count, 3);
    }

    #[test]
    fn controllers_go_by_their_names() {
        let names = [("bbr", Congestion::Bbr), ("newreno", Congestion::NewReno), ("adaptive", Congestion::ADAPTIVE)];
        for (name, congestion) in names {
            assert_eq!(opts(&["client", "--cc", name]).unwrap().tuning.settings.congestion, congestion);
        }
    }

    #[test]
    fn the_programs_name_chooses_the_face() {
        let face = |name: &str, args: &[&str]| parse(name, args.iter().map(ToString::to_string)).unwrap().api;
        assert_eq!(face("peer-courser-tokio", &["client"]), Api::Tokio);
        assert_eq!(face("peer-courser-session", &["client"]), Api::Session);
        assert_eq!(face("peer-courser-tokio", &["client", "--api", "direct"]), Api::Direct);
    }

    #[test]
    fn nonsense_gets_the_usage() {
        for bad in [
            &[][..],
            &["both"],
            &["server"],
            &["server", "--cert", "c"],
            &["client", "--count"],
            &["client", "--connect", "x"],
            &["client", "--mode", "sideways"],
        ] {
            assert!(opts(bad).unwrap_err().contains("usage:"), "{bad:?}");
        }
        assert!(opts(&["client", "--bytes", "many"]).unwrap_err().contains("many"));
    }

    #[test]
    fn lines_are_json_whatever_they_say() {
        let v: serde_json::Value = serde_json::from_str(&error_line(Mode::Idle, "a \"b\" \\ c\nd")).unwrap();
        assert_eq!(v["error"], "a  b    c d");
        let u = crate::measure::Usage { user_s: 1.5, sys_s: 0.25, peak_rss_kb: 9 };
        assert_eq!(
            server_line(&u),
            "{\"role\":\"server\",\"peer\":\"courser\",\"user_s\":1.500000,\"sys_s\":0.250000,\"peak_rss_kb\":9}"
        );
    }
}
