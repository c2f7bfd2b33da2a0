//! Handshakes over terrible paths, between the built web server and the built download command: each is to come about.
//!
//! `COURSER_HANDSHAKES` says how many over each kind of path.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::courser;
use common::web::{Place, Web};
use courser_sim::node::corrupt::Damage;
use courser_sim::node::loss::Loss;
use courser_sim::relay::Relay;
use courser_sim::{Cause, LinkConfig};

const HANDSHAKES: u64 = 6;
/// So many clients are under way at once, each with a relay of its own.
const AT_ONCE: usize = 10;
/// Half the round trip of the paths with faults, in microseconds.
const DELAY_US: u64 = 15_000;
const FAULTS: f64 = 0.3;

/// What the relays of all handshakes over one kind of path counted.
#[derive(Debug, Default)]
struct Counts {
    datagrams: AtomicU64,
    lost: AtomicU64,
    damaged: AtomicU64,
}

impl Counts {
    fn add(&self, relay: &Relay) {
        let stats = relay.stats();
        for link in [&stats.up, &stats.down] {
            self.datagrams.fetch_add(link.sent, Ordering::Relaxed);
            self.lost.fetch_add(link.dropped_for(Cause::Loss), Ordering::Relaxed);
            self.damaged.fetch_add(link.corrupted, Ordering::Relaxed);
        }
    }

    /// The share of the datagrams that was hit.
    fn share(&self) -> f64 {
        let hit = self.lost.load(Ordering::Relaxed) + self.damaged.load(Ordering::Relaxed);
        hit as f64 / self.datagrams.load(Ordering::Relaxed) as f64
    }
}

/// One connection and one page; what went wrong.
fn one(place: &Place, server: &Web, link: &LinkConfig, seed: u64, counts: &Counts) -> Result<Duration, String> {
    let upstream = server.addr.parse().unwrap();
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), upstream, link.clone(), link.clone(), seed).unwrap();
    let port = relay.addr().port();
    let (uri, here) = (format!("https://localhost:{port}/"), format!("localhost:{port}:127.0.0.1"));
    let way = ["--http3-only", "--no-alt-svc", "--no-https-records", "--cacert", &place.cert, "--resolve", &here];
    // No second try: one handshake is to do it.
    let patience = ["--retry", "0", "--connect-timeout", "30s", "--stall-timeout", "30s"];
    let began = Instant::now();
    let got = courser(&[&["get", "-o", "-", &uri][..], &way, &patience].concat());
    counts.add(&relay);
    if !got.status.success() || got.stdout != b"home" {
        let (out, err) = (String::from_utf8_lossy(&got.stdout), String::from_utf8_lossy(&got.stderr));
        return Err(format!("seed {seed} after {:?}: {} {out:?} {err}", began.elapsed(), got.status));
    }
    Ok(began.elapsed())
}

/// All handshakes over one kind of path.
fn all(kind: &str, link: impl Fn(u64) -> LinkConfig + Sync) -> Counts {
    let number = std::env::var("COURSER_HANDSHAKES").ok().and_then(|n| n.parse().ok()).unwrap_or(HANDSHAKES);
    let place = Place::new();
    let files = ["--cert", &place.cert, "--key", &place.key, "--access-log", "off"];
    let server = Web::start(&[&["serve", &place.www(), "--listen", "127.0.0.1:0"][..], &files].concat());
    let (counts, next, results) = (Counts::default(), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= number {
                        break;
                    }
                    let result = one(&place, &server, &link(seed), seed, &counts);
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    let (good, bad): (Vec<_>, Vec<_>) = results.into_inner().unwrap().into_iter().partition(Result::is_ok);
    let worst = good.iter().filter_map(|time| time.as_ref().ok()).max();
    println!("{kind}: {} of {number}, the slowest page after {worst:?}, {counts:?}", good.len());
    assert!(bad.is_empty(), "{kind}: {bad:#?}");
    assert_eq!(good.len() as u64, number);
    counts
}

#[test]
fn handshakes_come_about_where_three_of_ten_datagrams_are_lost_each_way() {
    let loss = || Loss::Limited { p: FAULTS, in_a_row_max: 3 };
    let counts = all("lost", |_| LinkConfig::new().delay_us(DELAY_US).loss_model(loss()));
    assert!((0.1..0.5).contains(&counts.share()), "{counts:?}");
}

#[test]
fn handshakes_come_about_where_three_of_ten_datagrams_are_damaged_each_way() {
    // Somewhere, in the header, in many places, and cut.
    let damages =
        [Damage::ChangeByte { span: 1_500 }, Damage::ChangeByte { span: 24 }, Damage::FlipBits(9), Damage::Truncate];
    let counts = all("damaged", |seed| {
        LinkConfig::new().delay_us(DELAY_US).corrupt(FAULTS, damages[seed as usize % damages.len()])
    });
    assert!((0.1..0.5).contains(&counts.share()), "{counts:?}");
}

#[test]
fn handshakes_come_about_where_a_round_trip_takes_a_second_and_a_half() {
    let counts = all("slow", |_| LinkConfig::new().delay_us(750_000));
    assert_eq!(counts.share(), 0.0, "{counts:?}");
}
