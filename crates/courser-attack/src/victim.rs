//! The command as server or client, and what it takes of the machine.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A built `courser`, and how much it is to tell.
#[derive(Clone, Debug)]
pub struct Build {
    /// The command.
    pub path: PathBuf,
    /// Victims log everything at TRACE, and those that can trace every event to files.
    pub detailed: bool,
}

/// A process that is killed when dropped.
pub struct Victim {
    child: Child,
    /// Files that are there as long as it is: its traces, the certificate that it trusts.
    _files: TempDir,
    /// Where it listens, if it is a server.
    pub address: Option<SocketAddr>,
}

/// Memory and time of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// The most resident memory so far in KiB.
    pub peak_kib: u64,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
}

fn command(courser: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(courser);
    command.args(args).env_remove("COURSER_LOG").env_remove("SSLKEYLOGFILE").stdin(Stdio::null());
    command
}

/// The command of a victim, with the folder for its traces.
fn victim(build: &Build, args: &[&str], files: &TempDir) -> Command {
    let mut command = command(&build.path, args);
    if build.detailed {
        command.env("COURSER_LOG", "trace");
        if args.first() == Some(&"perf") {
            command.arg("--qlog").arg(files.path());
        }
    }
    command
}

impl Victim {
    /// A server with these arguments that says where it listens.
    fn listening(build: &Build, args: &[&str]) -> io::Result<Self> {
        let files = TempDir::new()?;
        let mut child = victim(build, args, &files).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?);
        let mut victim = Self { child, _files: files, address: None };
        let mut all = String::new();
        while victim.address.is_none() {
            let mut line = String::new();
            if said.read_line(&mut line)? == 0 {
                return Err(io::Error::other(format!("the server says: {all}")));
            }
            victim.address = address_in(&line);
            all += &line;
        }
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
        Ok(victim)
    }

    /// A perf server on loopback.
    ///
    /// # Errors
    /// It does not start.
    pub fn server(build: &Build) -> io::Result<Self> {
        Self::listening(build, &["perf", "server", "--listen", "127.0.0.1:0"])
    }

    /// A web server for that folder.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve(build: &Build, root: &Path) -> io::Result<Self> {
        let root = root.to_string_lossy();
        Self::listening(build, &["serve", "--listen", "127.0.0.1:0", "--access-log", "off", &root])
    }

    /// A proxy of that origin.
    ///
    /// # Errors
    /// It does not start.
    pub fn proxy(build: &Build, origin: SocketAddr) -> io::Result<Self> {
        let origin = format!("http://{origin}");
        let args = ["proxy", "--listen", "127.0.0.1:0", "--access-log", "off", "--response-timeout", "2s"];
        Self::listening(build, &[&args[..], &["--origin", &origin]].concat())
    }

    fn quiet(build: &Build, args: &[&str], files: TempDir) -> io::Result<Self> {
        let child = victim(build, args, &files).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, _files: files, address: None })
    }

    /// A perf client that downloads from there and gives up after three seconds.
    ///
    /// # Errors
    /// It does not start.
    pub fn client(build: &Build, server: SocketAddr) -> io::Result<Self> {
        let server = server.to_string();
        let args = ["perf", "client", &server, "--insecure", "--mode", "download", "--bytes", "50M", "--timeout", "3s"];
        Self::quiet(build, &args, TempDir::new()?)
    }

    /// A download from there over HTTP/3 that gives up after three seconds and trusts that certificate.
    ///
    /// # Errors
    /// It does not start.
    pub fn get(build: &Build, server: SocketAddr, certificate: &str, more: &[&str]) -> io::Result<Self> {
        let (files, url) = (TempDir::new()?, format!("https://{server}/"));
        let path = files.path().join("cert.pem");
        std::fs::write(&path, certificate)?;
        let certificate = path.to_string_lossy();
        let args = ["get", "--http3-only", "--max-time", "3s", "--no-https-records", "-o", "-", "--cacert"];
        let args = [&args[..], &[&certificate], more, &[&url]].concat();
        Self::quiet(build, &args, files)
    }

    /// What it has taken; nothing where the system does not say.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let read =
            |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", self.child.id())).unwrap_or_default();
        let status = read("status");
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
        };
        let stat = read("stat");
        let ticks = stat.rsplit_once(')').map_or(0, |(_, rest)| {
            let words: Vec<&str> = rest.split_whitespace().collect();
            [11, 12].iter().filter_map(|at| words.get(*at)?.parse::<u64>().ok()).sum()
        });
        Usage { rss_kib: field("VmRSS:"), peak_kib: field("VmHWM:"), cpu_ms: ticks * 10 }
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends of itself; its exit code, or `None` when it does not end in time or was killed.
    pub fn end(&mut self, time: Duration) -> Option<i32> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last word of a line that says where a server listens.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split_whitespace().find_map(|w| w.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok())
}

/// What honest clients saw.
#[derive(Clone, Copy, Debug)]
pub struct Honest {
    /// Whether all of their connections did what they should.
    pub all: bool,
    /// The 99th percentile of their handshakes in microseconds.
    pub p99_us: f64,
}

/// So many honest connections, five at a time: a handshake and a request each.
///
/// # Errors
/// The command does not start.
pub fn honest(build: &Build, server: SocketAddr, connections: u32) -> io::Result<Honest> {
    let (server, count) = (server.to_string(), connections.to_string());
    let args = [
        "perf",
        "client",
        &server,
        "--insecure",
        "--mode",
        "handshakes",
        "-n",
        &count,
        "-c",
        "5",
        "--timeout",
        "30s",
        "--json",
    ];
    let mut child = command(&build.path, &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut text = String::new();
    if let Some(out) = &mut child.stdout {
        out.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    let told: serde_json::Value = serde_json::from_str(text.trim()).unwrap_or_default();
    let all = status.success() && told["count"].as_u64() == Some(u64::from(connections));
    Ok(Honest { all, p99_us: told["p99_us"].as_f64().unwrap_or(0.0) })
}
