//! Mixed load over a bad network for as long as one likes, while servers reload and make way for new processes: every byte is
//! checked, nothing fails, and memory, descriptors and processes stay what they were.
//!
//! `COURSER_SOAK` says for how many seconds:
//!
//! ```text
//! COURSER_SOAK=3600 cargo test -p courser-cli --test soak -- --nocapture
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use courser::tls::ClientConfig;
use courser::{ClientOptions, Connection, Endpoint};
use courser_cli::pattern::{Pattern, Way};
use courser_cli::perf_proto;
use courser_sim::LinkConfig;
use courser_sim::node::corrupt::Damage;
use courser_sim::relay::Relay;

use common::web::{Place, Web};
use common::{Server, courser, held};

/// Seconds when nobody says otherwise.
const SECONDS: u64 = 12;
/// Nothing that a client does takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two acts of whoever operates the servers.
const PAUSE: Duration = Duration::from_secs(3);
/// Sizes of the files that are downloaded.
const FILES: [usize; 6] = [0, 1, 1_000, 65_537, 300_000, 2_000_000];

/// What was done.
#[derive(Default)]
struct Done {
    over: AtomicBool,
    downloads: AtomicU64,
    runs: AtomicU64,
    exchanges: AtomicU64,
    bytes: AtomicU64,
    moves: AtomicU64,
}

impl Done {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn count(what: &AtomicU64, n: u64) {
        what.fetch_add(n, Ordering::Relaxed);
    }
}

/// Ends the clients when it goes, also when something has failed.
struct Ends<'a>(&'a Done);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// A link that loses, repeats, damages and disorders.
fn bad(up: bool) -> LinkConfig {
    let link = LinkConfig::new().rate(80_000_000).queue_bytes(200_000).delay_us(8_000).jitter(4_000, false);
    let link = link.loss_bursts(0.01, 3.0).reorder(0.01, 3_000).duplicate(0.005);
    if up { link.corrupt(0.002, Damage::FlipBits(3)) } else { link.corrupt(0.001, Damage::Truncate) }
}

fn relay(to: SocketAddr, seed: u64) -> Relay {
    Relay::start("127.0.0.1:0".parse().unwrap(), to, bad(true), bad(false), seed).unwrap()
}

fn file(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n / 3 % 253) as u8).collect()
}

/// Downloads one file after the other by processes of their own.
fn download(place: &Place, port: u16, mine: usize, done: &Done) {
    let _ends = Ends(done);
    let here = format!("localhost:{port}:127.0.0.1");
    let to = place.dir.path().join(format!("got{mine}"));
    for size in FILES.iter().cycle().skip(mine) {
        if done.is_over() {
            return;
        }
        let (uri, to) = (format!("https://localhost:{port}/f{size}"), to.to_str().unwrap());
        let args = ["get", "--http3-only", "--retry", "3", "--cacert", &place.cert, "--resolve", &here, "-o", to, &uri];
        let got = courser(&args);
        assert!(got.status.success(), "{uri}: {}", String::from_utf8_lossy(&got.stderr));
        assert!(fs::read(to).unwrap() == file(*size), "{uri}: other bytes");
        Done::count(&done.downloads, 1);
        Done::count(&done.bytes, *size as u64);
        fs::remove_file(to).unwrap();
    }
}

/// Small requests and uploads by the measuring command, which checks what it gets.
fn measure(at: &str, done: &Done) {
    let _ends = Ends(done);
    let modes: [&[&str]; 2] =
        [&["--mode", "requests", "--count", "200"], &["--mode", "upload", "--bytes", "2M", "--streams", "4"]];
    for mode in modes.iter().cycle() {
        if done.is_over() {
            return;
        }
        let out = courser(
            &[&["perf", "client", at, "--insecure", "--verify", "--quiet", "--timeout", "60s"], *mode].concat(),
        );
        assert!(out.status.success(), "{mode:?}: {}", String::from_utf8_lossy(&out.stderr));
        Done::count(&done.runs, 1);
    }
}

/// Streams of both directions on connections whose client moves to another port in the middle of each.
fn roam(at: SocketAddr, done: &Done) {
    let _ends = Ends(done);
    while !done.is_over() {
        let tls = ClientConfig::builder().danger_accept_any_certificate().alpn([perf_proto::ALPN]).build().unwrap();
        let mut end = Endpoint::client(ClientOptions::new(tls).bind("127.0.0.1:0".parse().unwrap())).unwrap();
        end.set_timeout(Some(PATIENCE));
        let mut connection = end.connect_to(at, "localhost").unwrap();
        connection.set_timeout(Some(PATIENCE));
        for exchange in 0..8 {
            let len = [10, 5_000, 200_000, 900_000][exchange % 4];
            trade(&connection, len, || {
                // The first time the server may not know yet that the handshake is complete.
                end.rebind("127.0.0.1:0".parse().unwrap()).unwrap();
                Done::count(&done.moves, 1);
            });
            Done::count(&done.exchanges, 1);
            Done::count(&done.bytes, 2 * len as u64);
        }
        connection.close(0, b"");
    }
}

/// So many bytes each way.
fn trade(connection: &Connection, len: usize, between: impl FnOnce()) {
    let (mut send, mut receive) = connection.open_bi().unwrap();
    send.set_timeout(Some(PATIENCE));
    receive.set_timeout(Some(PATIENCE));
    let id = send.id().0;
    let (up, down) = (Pattern::of(id, Way::Up), Pattern::of(id, Way::Down));
    let mut heard = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| receive.read_to_end(&mut heard).unwrap());
        send.write_all(&perf_proto::head(len as u64)).unwrap();
        send.write_all(&up.bytes(0, len / 2)).unwrap();
        between();
        send.write_all(&up.bytes((len / 2) as u64, len - len / 2)).unwrap();
        send.finish().unwrap();
    });
    assert_eq!(heard.len(), len);
    assert_eq!(down.check(0, &heard), Ok(()));
}

fn signal(pid: u32, which: &str) {
    assert!(Command::new("kill").args([which, &pid.to_string()]).status().unwrap().success());
}

fn runs(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// The web server, whichever process is it now.
struct Generations {
    web: Web,
    pid: u32,
    count: usize,
}

impl Generations {
    /// A new process takes the place of the one that runs, which ends when its last request has.
    fn succeed(&mut self) {
        let before = self.pid;
        signal(before, "-USR2");
        let said = self.web.until("has the sockets");
        self.pid = said.split("process ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        self.count += 1;
        let until = Instant::now() + PATIENCE;
        loop {
            // The first one is our child, whose entry stays until it is looked at.
            let _ = self.web.child.try_wait();
            if !runs(before) {
                return;
            }
            assert!(Instant::now() < until, "the process before is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        let _ =
            Command::new("kill").args(["-KILL", &self.pid.to_string()]).stderr(std::process::Stdio::null()).status();
    }
}

/// Memory at the beginning and at the end: medians of the second and of the last quarter.
fn course(samples: &[u64]) -> (u64, u64) {
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let quarter = samples.len() / 4;
    (median(&samples[quarter..=2 * quarter]), median(&samples[samples.len() - 1 - quarter..]))
}

/// Operates the servers until the time is over; what each held, in KiB, and the descriptors of the measuring server.
fn operate(site: &mut Generations, perf: &Server, time: Duration, done: &Done) -> [Vec<u64>; 3] {
    let begin = Instant::now();
    let [mut web, mut measuring, mut descriptors] = [const { Vec::new() }; 3];
    while begin.elapsed() < time {
        std::thread::sleep(PAUSE);
        assert!(!done.is_over(), "a client has failed");
        web.push(held(site.pid).0);
        let (kib, files) = held(perf.child.id());
        measuring.push(kib);
        descriptors.push(files as u64);
        match web.len() % 3 {
            0 => site.succeed(),
            1 => signal(site.pid, "-HUP"),
            _ => signal(perf.child.id(), "-HUP"),
        }
        if web.len() % 20 == 1 {
            let n = |what: &AtomicU64| what.load(Ordering::Relaxed);
            println!(
                "{:5} s: {} downloads, {} runs, {} exchanges with {} moves, {} MB; web {} KiB in process {}, perf {kib} KiB, {files} descriptors",
                begin.elapsed().as_secs(),
                n(&done.downloads),
                n(&done.runs),
                n(&done.exchanges),
                n(&done.moves),
                n(&done.bytes) / 1_000_000,
                web[web.len() - 1],
                site.count,
            );
        }
    }
    [web, measuring, descriptors]
}

#[test]
fn servers_hold_a_mixed_load_over_a_bad_network() {
    let seconds = std::env::var("COURSER_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(SECONDS);
    let place = Place::new();
    for size in FILES {
        fs::write(place.dir.path().join(format!("www/f{size}")), file(size)).unwrap();
    }
    let www = place.www();
    let args = ["serve", &www, "--listen=127.0.0.1:0", "--cert", &place.cert, "--key", &place.key, "--access-log=off"];
    let web = Web::start(&args);
    let perf = Server::perf(&["--verify", "--api", "tokio", "--cert", &place.cert, "--key", &place.key]);
    let (to_web, to_perf) = (relay(web.addr.parse().unwrap(), 1), relay(perf.addr.parse().unwrap(), 2));
    let mut site = Generations { pid: web.child.id(), web, count: 1 };
    let done = Done::default();
    let before = held(perf.child.id()).1;
    let [web, measuring, descriptors] = std::thread::scope(|scope| {
        for mine in 0..2 {
            let (place, done, port) = (&place, &done, to_web.addr().port());
            scope.spawn(move || download(place, port, mine * 3, done));
        }
        scope.spawn(|| measure(&to_perf.addr().to_string(), &done));
        for _ in 0..2 {
            scope.spawn(|| roam(to_perf.addr(), &done));
        }
        let ends = Ends(&done);
        let held = operate(&mut site, &perf, Duration::from_secs(seconds), &done);
        drop(ends);
        held
    });
    let (web, measuring) = (course(&web), course(&measuring));
    let n = |what: &AtomicU64| what.load(Ordering::Relaxed);
    println!(
        "{seconds} s: {} downloads, {} runs, {} exchanges, {} moves, {} bytes checked; {} processes served; web {} to {} KiB, perf {} to {} KiB, {} to {} descriptors",
        n(&done.downloads),
        n(&done.runs),
        n(&done.exchanges),
        n(&done.moves),
        n(&done.bytes),
        site.count,
        web.0,
        web.1,
        measuring.0,
        measuring.1,
        before,
        descriptors.iter().max().unwrap(),
    );
    for what in [&done.downloads, &done.runs, &done.exchanges, &done.moves] {
        assert!(n(what) > 0, "somebody did nothing");
    }
    for (first, last) in [web, measuring] {
        assert!(last <= first + first / 10 + 4_096, "memory grows from {first} to {last} KiB");
    }
    assert!(*descriptors.iter().max().unwrap() <= before as u64 + 8, "descriptors grow from {before}: {descriptors:?}");
}
