//! Honest handshakes in a flood of spoofed Initials, over loopback with real cryptography:
//! `cargo run --release -p courser --example flood -- [SPOOFED [PER_SECOND [HONEST]]]`.
//!
//! The flood comes from 250 addresses of the loopback network, each packet with another connection ID; one half carries a
//! whole ClientHello, the other half its beginning. Nobody answers at these addresses. Prints how long honest handshakes take
//! without and with the flood, and the resident memory of this process, which holds both ends, before, at the end, and 35
//! seconds later. Linux only: other systems have one loopback address.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use courser::certs::Throwaway;
use courser::tls::{ClientConfig, Credentials, Group, Roots, ServerConfig};
use courser::{ClientOptions, ServerOptions, blocking};
use courser_core::crypto::KeyFactory;
use courser_core::engine::{Engine, EngineConfig, Train};
use courser_core::ids::{Cid, Level, Side, Version};
use courser_core::wire::header::{self, LongSpec};
use courser_core::wire::{Writer, frame::Frame};
use courser_tls::{AwsLc, SystemRandom};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Sources of the flood.
const SOURCES: u8 = 250;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let mut next = |default| args.next().unwrap_or(Ok(default));
    let (spoofed, rate, honest) = (next(100_000)?, next(20_000)?, next(200)?);
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let server = ServerConfig::builder().certificate(credentials).alpn(["flood"]).build()?;
    let roots = Roots::empty().add_der(identity.certificate_der())?;
    let client = ClientConfig::builder().roots(roots).alpn(["flood"]).groups(&[Group::X25519]).build()?;
    let payloads = payloads(&client)?;
    let endpoint = blocking::Endpoint::server("127.0.0.1:0".parse()?, ServerOptions::new(server))?;
    let to = endpoint.local_addr();
    let endpoint = Arc::new(endpoint);
    let accepting = endpoint.clone();
    thread::spawn(move || {
        while let Ok(incoming) = accepting.accept() {
            thread::spawn(move || incoming.accept().map(|connection| connection.closed()));
        }
    });
    let pause = Duration::from_secs_f64(spoofed as f64 / rate as f64 / honest as f64);
    let quiet = handshakes(&client, to, honest, pause)?;
    let before = resident();
    let flood = thread::spawn(move || spoof(to, spoofed, rate, &payloads));
    let under = handshakes(&client, to, honest, pause)?;
    let sent = flood.join().map_err(|_| "the flood ended early")??;
    println!("quiet: {}", line(&quiet, honest));
    println!("flood: {}, {sent} spoofed Initials", line(&under, honest));
    let after = resident();
    println!("{:?}", endpoint.stats());
    thread::sleep(Duration::from_secs(35));
    println!("{:?}", endpoint.stats());
    println!("resident: {before} KiB before, {after} KiB after the flood, {} KiB 35 s later", resident());
    Ok(())
}

fn line(took: &[Duration], honest: u64) -> String {
    let at =
        |percent: usize| took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
    format!("{} of {honest} succeeded, median {:.2?}, p99 {:.2?}", took.len(), at(50), at(99))
}

/// Makes connections one after the other; how long those took that succeeded, shortest first.
fn handshakes(tls: &ClientConfig, to: SocketAddr, count: u64, pause: Duration) -> Result<Vec<Duration>> {
    let client = blocking::Endpoint::client(ClientOptions::new(tls.clone()))?;
    let (start, mut took) = (Instant::now(), Vec::new());
    for n in 0..count {
        thread::sleep((start + pause * u32::try_from(n)?).saturating_duration_since(Instant::now()));
        let began = Instant::now();
        if client.connect_to(to, "localhost").is_ok() {
            took.push(began.elapsed());
        }
    }
    took.sort();
    Ok(took)
}

/// Frames of an Initial with a whole ClientHello, and of one with its beginning; and the client's connection ID.
fn payloads(tls: &ClientConfig) -> Result<(Cid, [Vec<u8>; 2])> {
    let mut engine = Engine::new(EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new())));
    let now = courser_core::time::Instant::from_micros(1);
    engine
        .connect(now, "127.0.0.1:1".parse()?, "localhost", tls, &courser::Settings::default())
        .map_err(|alert| alert.to_string())?;
    engine.process(now);
    let mut train = Train::new();
    let meta = engine.fill(now, &mut train).ok_or("a client says something")?;
    let mut packet = train.bytes()[..meta.segment].to_vec();
    let long = header::decode(&packet, 8).ok().and_then(|h| h.long().map(|l| (l.dcid, l.scid, l.pn_at, l.end)));
    let (dcid, scid, pn_at, end) = long.ok_or("it is an Initial")?;
    let keys = AwsLc.initial(Version::V1, &dcid, Side::Server);
    packet.truncate(end);
    let (pn, len) = keys.open.unmask(&mut packet, pn_at).ok_or("it is long enough")?;
    let payload = keys.open.open(pn.into(), &mut packet, pn_at + len).ok_or("it is authentic")?;
    let mut part = vec![0; 1000];
    let mut w = Writer::new(&mut part);
    let data = [&[1, 0, 0x0f, 0x9c][..], &[7; 896]].concat();
    Frame::Crypto { offset: 0, data: &data }.encode(&mut w).ok_or("there is room")?;
    let written = w.len();
    part.truncate(written);
    Ok((scid, [packet[payload].to_vec(), part]))
}

/// Sends the flood; says how much of it the sockets took.
fn spoof(to: SocketAddr, count: u64, rate: u64, (scid, payloads): &(Cid, [Vec<u8>; 2])) -> Result<u64> {
    let bind = |n| UdpSocket::bind((Ipv4Addr::new(127, 9, 0, n), 0));
    let sockets = (1..=SOURCES).map(bind).collect::<std::io::Result<Vec<_>>>()?;
    let (start, mut sent) = (Instant::now(), 0);
    for n in 0..count {
        if n % 20 == 0 {
            let due = start + Duration::from_secs_f64(n as f64 / rate as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let dcid = Cid::new(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_be_bytes()).ok_or("eight bytes")?;
        let datagram = forge(&dcid, scid, &payloads[usize::from(n % 2 == 1)]).ok_or("there is room")?;
        sent += u64::from(sockets[n as usize % sockets.len()].send_to(&datagram, to).is_ok());
    }
    Ok(sent)
}

fn forge(dcid: &Cid, scid: &Cid, payload: &[u8]) -> Option<Vec<u8>> {
    let mut packet = vec![0; 1500];
    let mut w = Writer::new(&mut packet);
    let spec = LongSpec { level: Level::Initial, version: Version::V1, dcid, scid, token: &[], pn: 0, pn_len: 4 };
    let layout = header::write_long(&mut w, &spec)?;
    w.bytes(payload)?;
    let end = w.len() + 16;
    packet.truncate(end);
    header::patch_length(&mut packet, layout, end)?;
    AwsLc.initial(Version::V1, dcid, Side::Client).seal.seal(0, &mut packet, layout.head(), &[]).ok()?;
    packet.resize(end.max(1200), 0);
    Some(packet)
}

/// Resident memory of this process in KiB; zero where nobody tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
