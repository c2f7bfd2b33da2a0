//! What hostile ends do: a list.
//!
//! A script says which end is hostile, what it does, and what the victim has to answer. It ends after so many packets or so
//! much time, whichever comes first.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use courser_core::config::Settings;
use courser_core::ids::Side;
use courser_testing::kinds::{KINDS, Kind, Speaker};

use crate::hand::{Hand, socket};
use crate::identity::Identity;
use crate::raw::{self, Chance, Make, drain, tolerate};
use crate::web::WEB;
use crate::web::visit::Visit;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Packets at most.
    pub packets: u64,
    /// Time at most.
    pub time: Duration,
}

/// What is done.
#[derive(Clone, Copy)]
pub enum Attack {
    /// Datagrams without a connection.
    Raw(Make),
    /// One kind of frame over and over, by its name in [`KINDS`], while nothing is acknowledged.
    Frames(&'static str),
    /// Something of its own, with a connection.
    Own(fn(&mut Play) -> io::Result<()>),
    /// Connections of its own.
    Many(fn(&mut Tally, SocketAddr) -> io::Result<()>),
    /// Streams of HTTP/3, over an engine that keeps the rules of QUIC.
    Web(fn(&mut Visit) -> io::Result<()>),
}

/// What is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `courser perf server` and `courser perf client`.
    Perf,
    /// `courser serve`.
    Serve,
    /// `courser proxy`, with an origin that can misbehave as well.
    Proxy,
    /// `courser get`, with these arguments.
    Get(&'static [&'static str]),
}

/// Whether, and with which code, a victim closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// It need not.
    Free,
    /// It has to, with that code.
    With(u64),
    /// It may, and then with that code: where it depends on how much came in which time.
    Perhaps(u64),
}

impl Close {
    const fn of(code: Option<u64>) -> Self {
        match code {
            Some(code) => Self::With(code),
            None => Self::Free,
        }
    }

    /// Whether a victim did that.
    #[must_use]
    pub fn allows(self, code: Option<u64>) -> bool {
        match self {
            Self::Free => true,
            Self::With(wanted) => code == Some(wanted),
            Self::Perhaps(wanted) => code.is_none_or(|c| c == wanted),
        }
    }
}

/// A script.
#[derive(Clone, Copy)]
pub struct Script {
    /// Its name.
    pub name: &'static str,
    /// The hostile end.
    pub role: Side,
    /// What it does, in a sentence.
    pub what: &'static str,
    /// How.
    pub attack: Attack,
    /// What is attacked.
    pub victim: Program,
    /// Whether the victim has to close.
    pub close: Close,
}

/// What was done so far, and how much may be.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Packets that were sent.
    pub sent: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Bytes that came back.
    pub heard_bytes: u64,
    /// Code with which the victim closed.
    pub code: Option<u64>,
    pub(crate) packets: u64,
    pub(crate) until: Instant,
}

impl Tally {
    pub(crate) fn new(bound: Bound) -> Self {
        let until = Instant::now() + bound.time;
        Self { sent: 0, sent_bytes: 0, heard_bytes: 0, code: None, packets: bound.packets, until }
    }

    pub(crate) fn goes_on(&self) -> bool {
        self.sent < self.packets && Instant::now() < self.until
    }
}

/// A connection under attack.
pub struct Play {
    /// The attacker's end.
    pub hand: Hand,
    /// What was done.
    pub tally: Tally,
}

impl Play {
    /// Sends a payload and looks now and then what came; says whether there is reason to go on.
    fn say(&mut self, payload: &[u8]) -> io::Result<bool> {
        self.hand.send(payload)?;
        self.said(payload.len())
    }

    fn said(&mut self, len: usize) -> io::Result<bool> {
        self.tally.sent += 1;
        self.tally.sent_bytes += len as u64;
        if self.tally.sent.is_multiple_of(32) {
            self.hand.listen();
        }
        Ok(self.hand.heard.code.is_none() && self.tally.goes_on())
    }
}

/// Plays a script of a hostile client.
///
/// # Errors
/// Those of the system; a handshake that fails.
pub fn as_client(script: &Script, server: SocketAddr, bound: Bound) -> io::Result<Tally> {
    let tally = Tally::new(bound);
    match script.attack {
        Attack::Raw(make) => flood(&socket()?, server, make, tally),
        Attack::Many(run) => {
            let mut tally = tally;
            run(&mut tally, server).map(|()| tally)
        }
        Attack::Web(run) => on_the_web(run, Visit::connect(server, tally)?),
        attack => with_hand(attack, Hand::connect(server, &Settings::default())?, tally),
    }
}

/// Plays a script of a hostile server to the client that comes to that socket.
///
/// # Errors
/// Those of the system; nobody comes, or the handshake fails.
pub fn as_server(script: &Script, socket: UdpSocket, identity: &Identity, bound: Bound) -> io::Result<Tally> {
    match script.attack {
        Attack::Raw(make) => {
            let mut bytes = vec![0; 65_536];
            let until = Instant::now() + Duration::from_secs(5);
            loop {
                match socket.recv_from(&mut bytes) {
                    Ok((_, client)) => return flood(&socket, client, make, Tally::new(bound)),
                    Err(e) if Instant::now() > until => return Err(e),
                    Err(_) => {}
                }
            }
        }
        Attack::Web(run) => on_the_web(run, Visit::accept(socket, identity, Tally::new(bound))?),
        attack => {
            let hand = Hand::accept(socket, &Settings::default())?;
            with_hand(attack, hand, Tally::new(bound))
        }
    }
}

fn with_hand(attack: Attack, hand: Hand, tally: Tally) -> io::Result<Tally> {
    let mut play = Play { hand, tally };
    match attack {
        Attack::Frames(name) => {
            let kind = KINDS.iter().find(|k| k.name == name);
            frames(&mut play, kind.ok_or_else(|| io::Error::other(name))?)?;
        }
        Attack::Own(run) => run(&mut play)?,
        Attack::Raw(_) | Attack::Many(_) | Attack::Web(_) => {}
    }
    play.hand.linger(Duration::from_millis(200));
    play.tally.code = play.hand.heard.code;
    play.tally.heard_bytes = play.hand.heard.bytes;
    Ok(play.tally)
}

fn on_the_web(run: fn(&mut Visit) -> io::Result<()>, mut visit: Visit) -> io::Result<Tally> {
    let played = run(&mut visit);
    // What a step misses because the victim closed is told by the code.
    if visit.guest.closed.is_none() {
        played?;
    }
    visit.guest.linger(Instant::now() + Duration::from_millis(200))?;
    visit.tally.code = visit.guest.closed;
    visit.tally.heard_bytes = visit.guest.heard;
    Ok(visit.tally)
}

fn flood(socket: &UdpSocket, to: SocketAddr, make: Make, mut tally: Tally) -> io::Result<Tally> {
    if !to.ip().is_loopback() {
        return Err(io::Error::other("only loopback addresses are attacked"));
    }
    let mut chance = Chance(0x1234_5678_9abc_def1);
    while tally.goes_on() {
        let datagram = make(&mut chance, tally.sent)?;
        tolerate(socket.send_to(&datagram, to))?;
        tally.sent += 1;
        tally.sent_bytes += datagram.len() as u64;
        if tally.sent.is_multiple_of(32) {
            tally.heard_bytes += drain(socket);
        }
    }
    tally.heard_bytes += drain(socket);
    Ok(tally)
}

fn frames(play: &mut Play, kind: &Kind) -> io::Result<()> {
    let speaker = Speaker { side: play.hand.side(), acked: 0 };
    let mut n = 0;
    loop {
        let mut payload = Vec::with_capacity(1300);
        while payload.len() < 1000 && n % 64 != 63 {
            payload.extend((kind.make)(speaker, n));
            n += 1;
            if kind.open_ended {
                break;
            }
        }
        n += u64::from(n % 64 == 63);
        // What is shorter than a sample of the header protection is filled up, where something may stand behind it.
        if payload.len() < 4 && !kind.open_ended && !payload.is_empty() {
            payload.resize(4, 0);
        }
        if payload.is_empty() && kind.name != "nothing" {
            continue;
        }
        if !play.say(&payload)? {
            return Ok(());
        }
    }
}

/// Asks a perf server for so many bytes on the stream of that number.
fn request(stream: u64, bytes: u64, fin: bool) -> Vec<u8> {
    let id = u32::try_from(stream * 4).unwrap_or(0) | 0x8000_0000;
    let mut payload = vec![0x0a | u8::from(fin)];
    payload.extend(id.to_be_bytes());
    payload.push(8);
    payload.extend(bytes.to_be_bytes());
    payload
}

/// An ACK of one range.
fn ack(largest: u64, first_range: u64) -> Vec<u8> {
    let mut payload = vec![0x02];
    let long = |n: u64| (n | 0xc000_0000_0000_0000).to_be_bytes();
    payload.extend(long(largest));
    payload.extend([0, 0]);
    payload.extend(long(first_range));
    payload
}

fn ahead(play: &mut Play) -> io::Result<()> {
    play.say(&request(0, 1 << 30, true))?;
    loop {
        play.hand.linger(Duration::from_millis(5));
        let largest = play.hand.heard.largest.unwrap_or(0) + 20;
        if !play.say(&ack(largest, 40.min(largest)))? {
            return Ok(());
        }
    }
}

fn never_sent(play: &mut Play) -> io::Result<()> {
    play.say(&ack(1 << 40, 0)).map(|_| ())
}

fn withheld(play: &mut Play) -> io::Result<()> {
    let mut stream = 0;
    while play.say(&request(stream, 1 << 30, true))? && stream < 100 {
        stream += 1;
    }
    while play.say(&[1, 0, 0, 0])? {}
    Ok(())
}

fn half_requests(play: &mut Play) -> io::Result<()> {
    for stream in 0..100_u64 {
        let mut payload = request(stream, 0, false);
        payload.truncate(payload.len() - 4);
        payload[5] = 4;
        if !play.say(&payload)? {
            return Ok(());
        }
    }
    while play.say(&[1, 0, 0, 0])? {}
    Ok(())
}

fn numbers_with_gaps(play: &mut Play) -> io::Result<()> {
    while play.say(&[1, 0, 0, 0])? {
        play.hand.skip_to(play.hand.next_number() + 1);
    }
    Ok(())
}

fn copies(play: &mut Play) -> io::Result<()> {
    let packet = play.hand.forge(play.hand.next_number(), &[1, 0, 0, 0], false)?;
    loop {
        play.hand.send_raw(&packet)?;
        if !play.said(packet.len())? {
            return Ok(());
        }
    }
}

fn forgeries(play: &mut Play) -> io::Result<()> {
    loop {
        let number = play.hand.next_number();
        let mut packet = play.hand.forge(number, &[1; 40], false)?;
        play.hand.skip_to(number + 1);
        if let Some(last) = packet.last_mut() {
            *last ^= 1;
        }
        play.hand.send_raw(&packet)?;
        if !play.said(packet.len())? {
            return Ok(());
        }
    }
}

fn key_phases(play: &mut Play) -> io::Result<()> {
    loop {
        let number = play.hand.next_number();
        let packet = play.hand.forge(number, &[1; 40], true)?;
        play.hand.skip_to(number + 1);
        play.hand.send_raw(&packet)?;
        if !play.said(packet.len())? {
            return Ok(());
        }
    }
}

fn addresses(play: &mut Play) -> io::Result<()> {
    let sockets = (0..64).map(|_| socket()).collect::<io::Result<Vec<_>>>()?;
    for n in 0.. {
        let number = play.hand.next_number();
        let packet = play.hand.forge(number, &[1, 0, 0, 0], false)?;
        play.hand.skip_to(number + 1);
        play.hand.send_from(&sockets[n % sockets.len()], &packet)?;
        if !play.said(packet.len())? {
            return Ok(());
        }
    }
    Ok(())
}

fn churn(play: &mut Play) -> io::Result<()> {
    let mut stream = 0;
    while play.say(&[request(stream, 0, true), request(stream + 1, 0, true)].concat())? {
        stream += 2;
    }
    Ok(())
}

fn resets(play: &mut Play) -> io::Result<()> {
    let mut stream = 0_u64;
    loop {
        // Opened, reset, and told to stop.
        let id = (u32::try_from(stream * 4).unwrap_or(0) | 0x8000_0000).to_be_bytes();
        let payload = [&request(stream, 1 << 20, false)[..], &[0x04], &id, &[1, 8], &[0x05], &id, &[1]].concat();
        stream += 1;
        if !play.say(&payload)? {
            return Ok(());
        }
    }
}

fn silence(play: &mut Play) -> io::Result<()> {
    while play.tally.goes_on() && play.hand.heard.code.is_none() {
        play.hand.linger(Duration::from_millis(20));
    }
    Ok(())
}

fn hoard(tally: &mut Tally, server: SocketAddr) -> io::Result<()> {
    let mut held = Vec::new();
    while tally.goes_on() && held.len() < 200 {
        held.push(Hand::connect(server, &Settings::default())?);
        tally.sent += 1;
    }
    while Instant::now() < tally.until {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn come_and_go(tally: &mut Tally, server: SocketAddr) -> io::Result<()> {
    while tally.goes_on() {
        let mut hand = Hand::connect(server, &Settings::default())?;
        hand.send(&[0x1d, 1, 0, 0])?;
        tally.sent += 1;
    }
    Ok(())
}

fn replay(tally: &mut Tally, server: SocketAddr) -> io::Result<()> {
    let (flight, socket) = (crate::hand::first_flight()?, socket()?);
    while tally.goes_on() {
        for datagram in &flight {
            tolerate(socket.send_to(datagram, server))?;
            tally.sent += 1;
            tally.sent_bytes += datagram.len() as u64;
        }
        tally.heard_bytes += drain(&socket);
    }
    Ok(())
}

/// Handshakes that stop behind the first flight: what comes back is counted against what was sent.
fn amplify(tally: &mut Tally, server: SocketAddr) -> io::Result<()> {
    while tally.goes_on() {
        let (socket, flight) = (socket()?, crate::hand::first_flight()?);
        let (mut sent, mut heard) = (0, 0);
        for datagram in &flight {
            tolerate(socket.send_to(datagram, server))?;
            sent += datagram.len() as u64;
        }
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(2));
            heard += drain(&socket);
        }
        if heard > 3 * sent {
            return Err(io::Error::other(format!("{heard} bytes came back for {sent}")));
        }
        (tally.sent, tally.sent_bytes, tally.heard_bytes) =
            (tally.sent + 1, tally.sent_bytes + sent, tally.heard_bytes + heard);
    }
    Ok(())
}

const fn raw_script(name: &'static str, what: &'static str, make: Make) -> Script {
    Script { name, role: Side::Client, what, attack: Attack::Raw(make), victim: Program::Perf, close: Close::Free }
}

const fn own(
    name: &'static str,
    what: &'static str,
    run: fn(&mut Play) -> io::Result<()>,
    code: Option<u64>,
) -> Script {
    Script { name, role: Side::Client, what, attack: Attack::Own(run), victim: Program::Perf, close: Close::of(code) }
}

const fn many(name: &'static str, what: &'static str, run: fn(&mut Tally, SocketAddr) -> io::Result<()>) -> Script {
    Script { name, role: Side::Client, what, attack: Attack::Many(run), victim: Program::Perf, close: Close::Free }
}

const fn kind(role: Side, name: &'static str, of: &'static str, code: Option<u64>) -> Script {
    Script { name, role, what: of, attack: Attack::Frames(of), victim: Program::Perf, close: Close::of(code) }
}

const fn to_client(name: &'static str, what: &'static str, attack: Attack, code: Option<u64>) -> Script {
    Script { name, role: Side::Server, what, attack, victim: Program::Perf, close: Close::of(code) }
}

use Side::{Client, Server};

/// All scripts.
pub fn all() -> impl Iterator<Item = &'static Script> {
    TRANSPORT.iter().chain(WEB)
}

/// Those of QUIC alone.
const TRANSPORT: &[Script] = &[
    raw_script("half-hellos", "Initials with half a ClientHello, each of another client", raw::half_hellos),
    raw_script("initial-pings", "Initials that only say PING", raw::pings),
    raw_script("chosen-names", "connection IDs that weak hashes take for one", raw::chosen_names),
    raw_script("dribble", "a ClientHello byte by byte from its end, and never whole", raw::dribble),
    raw_script("hellos", "whole ClientHellos of clients that are never heard of again", raw::hellos),
    raw_script("tokens", "tokens of every length that nobody gave out", raw::tokens),
    raw_script("small-initials", "Initials in datagrams below 1,200 bytes", raw::small),
    raw_script("coalesced", "a second packet for another connection in each datagram", raw::coalesced),
    raw_script("versions", "versions that nobody speaks", raw::versions),
    raw_script("version-lists", "Version Negotiation packets to a server", raw::version_lists),
    raw_script("early-strangers", "0-RTT packets before any ClientHello", raw::early),
    raw_script("handshake-strangers", "Handshake packets of nobody", raw::handshakes),
    raw_script("retries", "Retry packets to a server", raw::retries),
    raw_script("short-strangers", "short headers to connections that are not there", raw::strangers),
    raw_script("noise", "bytes by chance", raw::noise),
    raw_script("empty-datagrams", "datagrams of no bytes", raw::empty),
    raw_script("hurt-initials", "Initials that were changed on the way", raw::hurt),
    raw_script("large-datagrams", "Initials in datagrams of 60,000 bytes", raw::large),
    many("replay", "one first flight over and over", replay),
    many("amplification", "handshakes that stop behind the first flight; what comes back is counted", amplify),
    many("hoard", "200 connections that say nothing", hoard),
    many("come-and-go", "connections that close at once", come_and_go),
    own("acks-ahead", "acknowledgements ahead of what came, in a download", ahead, Some(0xa)),
    own("acks-never-sent", "an acknowledgement of what was never sent", never_sent, Some(0xa)),
    own("no-acks", "a hundred downloads of which nothing is acknowledged", withheld, None),
    own("half-requests", "requests that are never whole", half_requests, None),
    own("number-gaps", "every second packet number is left out", numbers_with_gaps, None),
    own("copies", "one packet over and over", copies, None),
    own("forgeries", "packets that are not authentic", forgeries, None),
    own("key-phases", "a key phase that was never begun", key_phases, None),
    own("addresses", "64 addresses in turn", addresses, None),
    own("churn", "requests for nothing beyond the limit of streams", churn, Some(0x4)),
    own("resets", "requests that are reset and stopped at once, beyond the limit of streams", resets, Some(0x4)),
    kind(Client, "ping-flood", "PING", None),
    kind(Client, "reset-flood", "RESET_STREAM", None),
    kind(Client, "stop-flood", "STOP_SENDING", None),
    kind(Client, "crypto-flood", "CRYPTO", Some(0x10a)),
    kind(Client, "token-flood", "NEW_TOKEN", Some(0xa)),
    kind(Client, "fragments", "STREAM, OFF and LEN", Some(0xa)),
    kind(Client, "max-data-flood", "MAX_DATA", None),
    kind(Client, "blocked-flood", "STREAM_DATA_BLOCKED", None),
    kind(Client, "cid-flood", "NEW_CONNECTION_ID", Some(0x9)),
    kind(Client, "retire-flood", "RETIRE_CONNECTION_ID", Some(0xa)),
    kind(Client, "challenge-flood", "PATH_CHALLENGE", None),
    kind(Client, "response-flood", "PATH_RESPONSE", None),
    kind(Client, "done-flood", "HANDSHAKE_DONE", Some(0xa)),
    kind(Client, "unknown-frames", "a frame type of no document", Some(0x7)),
    kind(Client, "long-types", "PING with a type of two bytes", Some(0xa)),
    kind(Server, "client-ping-flood", "PING", None),
    kind(Server, "client-cid-flood", "NEW_CONNECTION_ID", Some(0x9)),
    kind(Server, "client-challenge-flood", "PATH_CHALLENGE", None),
    kind(Server, "client-done-flood", "HANDSHAKE_DONE", None),
    kind(Server, "client-token-flood", "NEW_TOKEN", None),
    kind(Server, "client-crypto-flood", "CRYPTO", Some(0xd)),
    kind(Server, "client-retire-flood", "RETIRE_CONNECTION_ID", Some(0xa)),
    kind(Server, "client-max-streams-flood", "MAX_STREAMS, two-way", None),
    kind(Server, "client-unknown-frames", "a frame type of no document", Some(0x7)),
    to_client("client-noise", "bytes by chance instead of a handshake", Attack::Raw(raw::noise), None),
    to_client("client-version-lists", "Version Negotiation packets for others", Attack::Raw(raw::version_lists), None),
    to_client("client-retries", "Retry packets that are not authentic", Attack::Raw(raw::retries), None),
    to_client("client-strangers", "short headers instead of a handshake", Attack::Raw(raw::strangers), None),
    to_client("client-silence", "a handshake, and then nothing", Attack::Own(silence), None),
    to_client(
        "client-acks-never-sent",
        "an acknowledgement of what was never sent",
        Attack::Own(never_sent),
        Some(0xa),
    ),
    to_client("client-forgeries", "packets that are not authentic", Attack::Own(forgeries), None),
];
