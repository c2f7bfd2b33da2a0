//! A web server dies at once in the middle of transfers, and the next one begins at its port: its clients learn of it.
//!
//! `COURSER_KILLS` says how often.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use courser::tls::ClientConfig;
use courser::{ClientOptions, CloseReason, Connection, ConnectionError, Endpoint};

use common::web::{Place, Web};
use common::{COURSER, command};
use courser_sim::LinkConfig;
use courser_sim::relay::Relay;

const KILLS: usize = 3;
/// Bytes of what is downloaded, which takes some seconds.
const FILE: usize = 4_000_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// The time limit of a client that neither sends nor hears.
const IDLE: Duration = Duration::from_secs(2);
/// How often a client that has nothing to say says so.
const PINGS: Duration = Duration::from_millis(100);

fn bytes() -> Vec<u8> {
    (0..FILE).map(|n| (n / 7 % 251) as u8).collect()
}

struct Site {
    place: Place,
    at: SocketAddr,
}

impl Site {
    fn new() -> Self {
        let place = Place::new();
        std::fs::write(place.dir.path().join("www/big"), bytes()).unwrap();
        // A port that nobody has, which every server is to have in its turn.
        let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { place, at }
    }

    fn path(&self, name: &str) -> String {
        self.place.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn serve(&self) -> Web {
        let (root, secret, at) = (self.path("www"), self.path("secret"), self.at.to_string());
        let files = ["--cert", &self.place.cert, "--key", &self.place.key, "--secret", &secret, "--access-log", "off"];
        Web::start(&[&["serve", &root, "--listen", &at][..], &files].concat())
    }

    /// A connection that does nothing but show that it lives, when it is to.
    fn connect(&self, keep_alive: Option<Duration>, idle: Duration) -> (Endpoint, Connection) {
        let tls = ClientConfig::builder().danger_accept_any_certificate().alpn([b"h3"]).build().unwrap();
        let mut options = ClientOptions::new(tls);
        (options.settings.keep_alive, options.settings.idle_timeout) = (keep_alive, idle);
        let mut end = Endpoint::client(options).unwrap();
        end.set_timeout(Some(PATIENCE));
        let mut connection = end.connect_to(self.at, "localhost").unwrap();
        connection.set_timeout(Some(PATIENCE));
        (end, connection)
    }

    /// A download over HTTP/3 that lasts longer than the server.
    fn download(&self, slow: &Relay, to: &str) -> Child {
        let port = slow.addr().port();
        let (uri, here) = (format!("https://localhost:{port}/big"), format!("localhost:{port}:127.0.0.1"));
        let patience = ["--retry", "5", "--retry-delay", "100ms", "--stall-timeout", "2s"];
        let args = ["get", "--http3-only", "--cacert", &self.place.cert, "--resolve", &here, "-o", to, &uri];
        command(COURSER, &[&args[..], &patience].concat()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

#[test]
fn clients_of_a_server_that_was_killed_learn_of_it() {
    let kills = std::env::var("COURSER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let site = Site::new();
    let mut server = site.serve();
    let link = || LinkConfig::new().rate(16_000_000).queue_bytes(100_000).delay_us(2_000);
    let slow = Relay::start("127.0.0.1:0".parse().unwrap(), site.at, link(), link(), 1).unwrap();
    let (mut worst_told, mut worst_silent) = (Duration::ZERO, Duration::ZERO);
    for kill in 0..kills {
        let (_end, alive) = site.connect(Some(PINGS), PATIENCE);
        let (_silent_end, silent) = site.connect(None, IDLE);
        let file = site.path(&format!("got{kill}"));
        let download = site.download(&slow, &file);
        std::thread::sleep(Duration::from_millis(300 + 37 * (kill as u64 % 10)));
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        let killed = Instant::now();
        server = site.serve();
        let began = Instant::now();
        // Who sends is told by the next server; probes that found nobody have doubled their pauses meanwhile.
        assert_eq!(alive.closed(), ConnectionError::Closed(CloseReason::StatelessReset), "kill {kill}");
        worst_told = worst_told.max(began.elapsed());
        // Who neither sends nor hears gives up in its time.
        let reason = silent.closed();
        assert_eq!(reason, ConnectionError::Closed(CloseReason::IdleTimeout), "kill {kill}");
        worst_silent = worst_silent.max(killed.elapsed());
        let done = download.wait_with_output().unwrap();
        assert!(done.status.success(), "kill {kill}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(std::fs::read(&file).unwrap() == bytes(), "kill {kill}: the file is another one");
        std::fs::remove_file(file).unwrap();
    }
    println!("{kills} kills: told {worst_told:?} after the next server began at most, silent {worst_silent:?}");
}
