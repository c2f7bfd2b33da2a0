//! A connection over a real socket whose keys the attacker keeps.
//!
//! An honest engine shakes hands; its key factory is tapped. Then the engine is left alone, and packets are made and read
//! here: numbers begin far behind those that the engine used, so that the two never meet.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Wall};

use courser_core::config::Settings;
use courser_core::crypto::{KeyFactory, Keys, Material, Opener, Sealer, Secret, Suite, TAG_LEN};
use courser_core::engine::{Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train};
use courser_core::ids::{Cid, Ecn, Level, Side, Version};
use courser_core::time::Instant;
use courser_core::wire::frame::{self, Extensions, Frame};
use courser_core::wire::header::{self, Header, LongSpec, ShortSpec};
use courser_core::wire::{Reader, Writer, pn};
use courser_tls::{AwsLc, SystemRandom};

use crate::identity::{self, Identity};

/// Numbers of forged packets begin here.
const FIRST_NUMBER: u64 = 100_000;
/// Length of the connection IDs of the attacker's engine.
const CID_LEN: usize = 8;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What keys for sending and for receiving were made from, in order.
type Made = [Vec<(Suite, Material)>; 2];

/// What the tapped factory made.
#[derive(Clone, Default)]
struct Tap(Arc<Mutex<Made>>);

impl Tap {
    fn note(&self, which: usize, suite: Suite, material: &Material) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[which].push((suite, material.clone()));
    }

    fn made(&self, which: usize, at: usize) -> io::Result<(Suite, Material)> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made[which].get(at).cloned().ok_or_else(|| io::Error::other("there are no such keys yet"))
    }
}

/// Real keys, of which a copy is kept.
struct Tapped(Tap);

impl KeyFactory for Tapped {
    fn initial(&self, version: Version, dcid: &Cid, side: Side) -> Keys {
        AwsLc.initial(version, dcid, side)
    }

    fn material(&self, version: Version, suite: Suite, secret: &Secret) -> Material {
        AwsLc.material(version, suite, secret)
    }

    fn sealer(&self, suite: Suite, material: &Material) -> Box<dyn Sealer> {
        self.0.note(0, suite, material);
        AwsLc.sealer(suite, material)
    }

    fn opener(&self, suite: Suite, material: &Material) -> Box<dyn Opener> {
        self.0.note(1, suite, material);
        AwsLc.opener(suite, material)
    }

    fn next_secret(&self, version: Version, suite: Suite, secret: &Secret) -> Secret {
        AwsLc.next_secret(version, suite, secret)
    }

    fn retry_tag(&self, version: Version, original_dcid: &Cid, retry: &[u8]) -> [u8; TAG_LEN] {
        AwsLc.retry_tag(version, original_dcid, retry)
    }

    fn mac(&self, key: &[u8; 32], data: &[&[u8]]) -> [u8; 32] {
        AwsLc.mac(key, data)
    }

    fn aes128_block(&self, key: &[u8; 16], block: &mut [u8; 16]) {
        AwsLc.aes128_block(key, block);
    }

    fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        AwsLc.equal(a, b)
    }
}

/// What the victim sent.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Code of the first CONNECTION_CLOSE.
    pub code: Option<u64>,
    /// Largest packet number of a 1-RTT packet.
    pub largest: Option<u64>,
}

/// An engine, its socket, and the keys.
pub struct Hand {
    socket: UdpSocket,
    peer: Option<SocketAddr>,
    engine: Engine,
    tap: Tap,
    side: Side,
    start: Wall,
    train: Train,
    to: Cid,
    from: Cid,
    next: u64,
    keys: Option<(Box<dyn Sealer>, Box<dyn Opener>)>,
    /// What was heard since the handshake.
    pub heard: Heard,
}

/// A socket on loopback that is waited at for moments.
///
/// # Errors
/// Those of the system.
pub fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    Ok(socket)
}

impl Hand {
    fn new(side: Side, socket: UdpSocket, settings: &Settings) -> io::Result<Self> {
        let tap = Tap::default();
        let mut config = EngineConfig::new(Box::new(Tapped(tap.clone())), Box::new(SystemRandom::new()));
        if side.is_server() {
            config.server = Some(ServerConfig::new(Identity::new()?.server("perf")?, settings.clone()));
        }
        Ok(Self {
            socket,
            peer: None,
            engine: Engine::new(config),
            tap,
            side,
            start: Wall::now(),
            train: Train::new(),
            to: Cid::EMPTY,
            from: Cid::EMPTY,
            next: FIRST_NUMBER,
            keys: None,
            heard: Heard::default(),
        })
    }

    /// Connects to a server on loopback and takes the connection over.
    ///
    /// # Errors
    /// Those of the system; a handshake that fails; a target elsewhere.
    pub fn connect(server: SocketAddr, settings: &Settings) -> io::Result<Self> {
        if !server.ip().is_loopback() {
            return Err(io::Error::other("only loopback addresses are attacked"));
        }
        let mut hand = Self::new(Side::Client, socket()?, settings)?;
        let now = hand.now();
        let begun = hand.engine.connect(now, server, "localhost", &*identity::client("perf")?, settings);
        begun.map_err(|e| io::Error::other(format!("{e:?}")))?;
        hand.shake()?;
        Ok(hand)
    }

    /// Waits for a client at that socket and takes the connection over.
    ///
    /// # Errors
    /// Those of the system; nobody comes, or the handshake fails.
    pub fn accept(socket: UdpSocket, settings: &Settings) -> io::Result<Self> {
        let mut hand = Self::new(Side::Server, socket, settings)?;
        hand.shake()?;
        Ok(hand)
    }

    fn now(&self) -> Instant {
        Instant::from_micros(1_000_000 + u64::try_from(self.start.elapsed().as_micros()).unwrap_or(0))
    }

    /// Honest turns until the handshake is confirmed.
    fn shake(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; 65_536];
        while self.start.elapsed() < HANDSHAKE {
            self.flush()?;
            while let Some((_, event)) = self.engine.poll_event() {
                if event == Event::Confirmed {
                    let (suite, sealing) = self.tap.made(0, 1)?;
                    let (_, opening) = self.tap.made(1, 1)?;
                    self.keys = Some((AwsLc.sealer(suite, &sealing), AwsLc.opener(suite, &opening)));
                }
            }
            if self.keys.is_some() {
                // A server says last that the handshake is done.
                return self.flush();
            }
            let Ok((len, from)) = self.socket.recv_from(&mut bytes) else { continue };
            self.peer = Some(from);
            watch(&bytes[..len], |_, scid| self.to = scid);
            let meta = Meta { local: None, remote: from, ecn: Ecn::NotEct, stride: len };
            let now = self.now();
            self.engine.receive(now, &meta, &mut bytes[..len]);
        }
        Err(io::Error::other("the handshake did not end"))
    }

    /// Sends what the honest engine has to say.
    fn flush(&mut self) -> io::Result<()> {
        let now = self.now();
        self.engine.process(now);
        while let Some(meta) = self.engine.fill(now, &mut self.train) {
            for datagram in self.train.bytes().chunks(meta.segment) {
                watch(datagram, |_, scid| self.from = scid);
                self.socket.send_to(datagram, meta.to)?;
            }
            self.engine.sent(now, &meta, SendOutcome::Sent);
        }
        Ok(())
    }

    /// Which end the attacker is.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Number of the next packet.
    #[must_use]
    pub const fn next_number(&self) -> u64 {
        self.next
    }

    /// Goes on with another number.
    pub const fn skip_to(&mut self, number: u64) {
        self.next = number;
    }

    /// A 1-RTT packet with that payload and number.
    ///
    /// # Errors
    /// The payload does not fit.
    pub fn forge(&self, number: u64, payload: &[u8], key_phase: bool) -> io::Result<Vec<u8>> {
        let short = || io::Error::other("the payload does not fit");
        let mut packet = vec![0; 64 + payload.len()];
        let mut w = Writer::new(&mut packet);
        let spec = ShortSpec { dcid: &self.to, spin: false, key_phase, pn: number, pn_len: 4 };
        let head = header::write_short(&mut w, &spec).ok_or_else(short)?;
        // A header sample needs four bytes behind the number.
        w.bytes(payload).ok_or_else(short)?;
        let len = w.len() + TAG_LEN;
        packet.truncate(len);
        let (sealer, _) = self.keys.as_ref().ok_or_else(short)?;
        sealer.seal(number, &mut packet, head, &[]).map_err(|e| io::Error::other(format!("{e:?}")))?;
        Ok(packet)
    }

    /// Sends a 1-RTT packet with that payload.
    ///
    /// # Errors
    /// Those of the system.
    pub fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let packet = self.forge(self.next, payload, false)?;
        self.next += 1;
        self.send_raw(&packet)
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// Those of the system, apart from a victim that is gone and a queue that is full.
    pub fn send_raw(&self, bytes: &[u8]) -> io::Result<()> {
        let socket = &self.socket;
        self.send_from(socket, bytes)
    }

    /// Sends any bytes from another socket.
    ///
    /// # Errors
    /// As [`send_raw`](Self::send_raw).
    pub fn send_from(&self, socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
        let Some(peer) = self.peer else { return Err(io::Error::other("there is no peer")) };
        crate::raw::tolerate(socket.send_to(bytes, peer))
    }

    /// Reads what has come so far.
    pub fn listen(&mut self) {
        let mut bytes = vec![0; 65_536];
        let _ = self.socket.set_nonblocking(true);
        // What a refused datagram leaves at the socket is passed over.
        for _ in 0..2000 {
            match self.socket.recv_from(&mut bytes) {
                Ok((len, _)) => self.read(&mut bytes[..len]),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        let _ = self.socket.set_nonblocking(false);
    }

    fn read(&mut self, datagram: &mut [u8]) {
        self.heard.datagrams += 1;
        self.heard.bytes += datagram.len() as u64;
        // A close before the handshake is confirmed at the victim stands in a packet of each level.
        let mut at = 0;
        while let Ok(found) = header::decode(&datagram[at..], CID_LEN) {
            let Some(long) = found.long() else { break };
            at += long.end;
        }
        let datagram = &mut datagram[at..];
        let (Some((_, opener)), Some(first)) = (&self.keys, datagram.first()) else { return };
        let pn_at = 1 + self.from.len();
        // The victim may have gone on to another connection ID that it was given; all of them have one length.
        if header::is_long(*first) || datagram.len() < pn_at {
            return;
        }
        let Some((cut, len)) = opener.unmask(datagram, pn_at) else { return };
        let number = pn::expand(cut, len, self.heard.largest.map_or(0, |n| n + 1));
        if let Some(at) = opener.open(number, datagram, pn_at + len) {
            self.heard.largest = self.heard.largest.max(Some(number));
            self.heard.code = self.heard.code.or_else(|| close_in(&datagram[at]));
        }
    }

    /// Listens until the victim closed or the time is over.
    pub fn linger(&mut self, time: Duration) {
        let until = Wall::now() + time;
        while self.heard.code.is_none() && Wall::now() < until {
            self.listen();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Tells the connection IDs of long headers in a datagram.
fn watch(datagram: &[u8], mut tell: impl FnMut(Cid, Cid)) {
    let mut rest = datagram;
    while let Ok(found) = header::decode(rest, CID_LEN) {
        let Some(long) = found.long() else { return };
        tell(long.dcid, long.scid);
        rest = &rest[long.end..];
    }
}

/// The code of a close in a payload.
fn close_in(payload: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(payload);
    let extensions = Extensions { min_ack_delay_us: None, ..Extensions::ALL };
    while !reader.is_empty() {
        match frame::parse(&mut reader, extensions).ok()? {
            Frame::ConnectionClose { code, .. } => return Some(code.0),
            Frame::ApplicationClose { code, .. } => return Some(code),
            _ => {}
        }
    }
    None
}

/// An Initial packet of a client, real keys, padded to `len`.
///
/// # Errors
/// The payload does not fit.
pub fn initial(version: Version, dcid: &Cid, token: &[u8], payload: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let short = || io::Error::other("the payload does not fit");
    let mut packet = vec![0; len.max(200) + payload.len() + token.len()];
    let mut w = Writer::new(&mut packet);
    let spec = LongSpec { level: Level::Initial, version, dcid, scid: dcid, token, pn: 0, pn_len: 4 };
    let layout = header::write_long(&mut w, &spec).ok_or_else(short)?;
    w.bytes(payload).ok_or_else(short)?;
    // Padding is inside of the packet, as clients do it.
    let padding = len.saturating_sub(w.len() + TAG_LEN);
    w.bytes(&vec![0; padding]).ok_or_else(short)?;
    let end = w.len() + TAG_LEN;
    packet.truncate(end);
    header::patch_length(&mut packet, layout, end).ok_or_else(short)?;
    let sealer = AwsLc.initial(version, dcid, Side::Client).seal;
    sealer.seal(0, &mut packet, layout.head(), &[]).map_err(|e| io::Error::other(format!("{e:?}")))?;
    Ok(packet)
}

/// The first flight of an honest client that will hear nothing: its datagrams.
///
/// # Errors
/// TLS does not start.
pub fn first_flight() -> io::Result<Vec<Vec<u8>>> {
    let mut hand = Hand::new(Side::Client, socket()?, &Settings::default())?;
    let (now, nobody) = (hand.now(), SocketAddr::from(([127, 0, 0, 1], 9)));
    let begun = hand.engine.connect(now, nobody, "localhost", &*identity::client("perf")?, &Settings::default());
    begun.map_err(|e| io::Error::other(format!("{e:?}")))?;
    hand.engine.process(now);
    let mut flight = Vec::new();
    while let Some(meta) = hand.engine.fill(now, &mut hand.train) {
        flight.extend(hand.train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
        hand.engine.sent(now, &meta, SendOutcome::Sent);
    }
    Ok(flight)
}

/// Whether a datagram begins with a Version Negotiation packet.
#[must_use]
pub fn lists_versions(datagram: &[u8]) -> bool {
    matches!(header::decode(datagram, CID_LEN), Ok(Header::VersionNegotiation { .. }))
}
