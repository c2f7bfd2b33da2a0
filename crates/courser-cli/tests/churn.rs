//! Many connections: that come and go (G15), and that stay while others work on a bad network (G14).
//!
//! ```text
//! COURSER_CHURN=500000 cargo test --release -p courser-cli --test churn come_and_go -- --nocapture
//! COURSER_HOLD=1800 cargo test --release -p courser-cli --test churn are_held -- --nocapture
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use courser_sim::LinkConfig;
use courser_sim::relay::Relay;

use common::{COURSER, Server, command, courser, held, object};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// Runs a client to its end; how many transactions it had.
fn client(at: &str, mode: &str, count: u64, more: &[&str]) -> u64 {
    let count = count.to_string();
    let args = ["perf", "client", at, "--insecure", "--json", "--timeout", "60m", "--mode", mode, "--count", &count];
    object(&courser(&[&args, more].concat()))["count"].as_u64().unwrap()
}

#[test]
fn connections_and_requests_come_and_go_and_leave_nothing() {
    let connections = number("COURSER_CHURN", 1_000);
    let (rounds, warm) = (10, 2);
    let server = Server::perf(&[]);
    let pid = server.child.id();
    let before = held(pid);
    let mut after = Vec::new();
    let begin = Instant::now();
    for _ in 0..rounds {
        let share = connections / rounds;
        assert_eq!(client(&server.addr, "handshakes", share, &["--concurrency", "8"]), share);
        assert_eq!(client(&server.addr, "requests", share * 10, &["--concurrency", "32"]), share * 10);
        after.push(held(pid));
        println!("{:4} s: {:?} KiB and descriptors", begin.elapsed().as_secs(), after.last().unwrap());
    }
    let first = after[warm - 1].0;
    let most = after[warm..].iter().map(|at| at.0).max().unwrap();
    println!(
        "{connections} connections and {} requests: {} KiB before, {first} after a fifth of them, at most {most} later, {} descriptors before, {} at the end",
        connections * 10,
        before.0,
        before.1,
        after.last().unwrap().1
    );
    // A fiftieth, and a mebibyte for short runs, in which the allocator has not come to rest.
    assert!(most <= first + first / 50 + 1024, "memory grows from {first} to {most} KiB");
    assert_eq!(after.last().unwrap().1, before.1, "descriptors");
    // Nothing is left to wait for: asked to end, with 10 s for connections that go on, it ends at once.
    let asked = Instant::now();
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(5), "something was still there");
}

/// A client in the background; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn connections_are_held_while_others_work_on_a_lossy_path() {
    let seconds = number("COURSER_HOLD", 6);
    let full = seconds >= 60;
    let (idle, active) = if full { (20_000u64, 2_000) } else { (200, 50) };
    let server = Server::perf(&["--verify", "--idle-timeout", "30s"]);
    let link = || LinkConfig::new().loss(0.005);
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), server.addr.parse().unwrap(), link(), link(), 7).unwrap();
    let at = relay.addr().to_string();
    let (count, hold) = (idle.to_string(), format!("{seconds}s"));
    let args = ["perf", "client", &server.addr, "--insecure", "--json", "--mode", "idle-connections", "--verify"];
    let more = [
        "--count",
        &count,
        "--concurrency",
        "8",
        "--timeout",
        "60m",
        "--hold",
        &hold,
        "--idle-timeout",
        "30s",
        "--keep-alive",
        "10s",
    ];
    let mut waiting = Running(command(COURSER, &[&args[..], &more].concat()).stdout(Stdio::null()).spawn().unwrap());
    // Those have their handshakes first: how handshakes fare beside many others is shown elsewhere (G9).
    std::thread::sleep(Duration::from_millis(idle));
    // A stream of every connection, each byte compared, again and again.
    let conns = active.to_string();
    let bytes = (active * 20_000).to_string();
    let args = ["perf", "client", &at, "--insecure", "--json", "--verify", "--mode", "multi", "--timeout", "10m"];
    let (mut runs, mut peak) = (0u64, 0);
    let ended = loop {
        let run = object(&courser(&[&args, &["--conns", &conns, "--bytes", &bytes][..]].concat()));
        assert_eq!(run["bytes"].as_u64(), Some(active * 20_000), "{run}");
        runs += 1;
        peak = peak.max(held(server.child.id()).0);
        if let Some(status) = waiting.0.try_wait().unwrap() {
            break status;
        }
    };
    assert!(ended.success(), "connections that were to stay have ended: {ended}");
    let lost = relay.stats().up.dropped() + relay.stats().down.dropped();
    println!(
        "{idle} connections held for {seconds} s, {runs} runs of {active} others with 20,000 bytes each, {lost} datagrams lost; the server held {peak} KiB"
    );
    assert!(lost > 0 && runs > 0);
    drop(relay);
    assert_eq!(server.end().0, Some(0));
}
