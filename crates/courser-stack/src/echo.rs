//! Echo programs inside the service: what the debug command line tests itself with.
//!
//! The client opens all connections first, then all streams, then sends (seed: `nclient`), so that each phase has a time of its
//! own; every byte that comes back is compared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use courser::certs::Throwaway;
use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Error, Readiness, Ready, Session, Stack};
use serde_json::{Value, json};

use crate::host::Host;

/// Application protocol name, as that of `courser echo`.
pub const ALPN: &[u8] = b"courser-echo";
/// Bytes that are moved at a time.
const BLOCK: usize = 64 << 10;
/// How long the server's thread waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// An echo server inside the host; dropped, it ends.
#[derive(Debug)]
pub struct Server {
    uri: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at a URI, with a throw-away certificate where one is needed.
    ///
    /// # Errors
    /// A sentence: what could not be done.
    pub fn start(host: &Host, uri: &str) -> Result<Self, String> {
        let stack = host.stack("echo server").map_err(|e| e.to_string())?;
        let listener = open(&stack, uri)?;
        let said = |e: Error| e.to_string();
        if stack.protocol(listener).map_err(said)? == Protocol::Quic {
            let identity = Throwaway::local().map_err(|e| e.to_string())?;
            stack
                .add_certificate(listener, identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())
                .map_err(said)?;
            stack.set_alpn(listener, &[ALPN]).map_err(said)?;
        }
        stack.bind(listener, uri).map_err(said)?;
        stack.listen(listener, BACKLOG).map_err(said)?;
        let at = stack.local_addr(listener).map_err(said)?;
        let uri = format!("{}://{at}", stack.protocol(listener).map_err(said)?.name());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("courser-echo".into()).spawn({
            let stop = Arc::clone(&stop);
            move || serve(&stack, listener, &stop)
        });
        Ok(Self { uri, stop, thread: Some(thread.map_err(|e| format!("no thread: {e}"))?) })
    }

    /// Where it listens.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A session of the protocol that the URI names.
fn open(stack: &Stack, uri: &str) -> Result<Session, String> {
    let scheme = uri.split("://").next().unwrap_or_default();
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == scheme);
    let protocol = protocol.ok_or_else(|| format!("{uri:?} begins with none of quic://, tcp:// and udp://"))?;
    stack.create(protocol).map_err(|e| e.to_string())
}

/// Bytes on their way back.
struct Pipe {
    block: Box<[u8]>,
    held: std::ops::Range<usize>,
    /// The peer sent its end.
    ended: bool,
}

/// Echoes until it is told to stop, or the listener is over.
fn serve(stack: &Stack, listener: Session, stop: &AtomicBool) {
    let mut pipes: HashMap<Session, Pipe> = HashMap::new();
    let mut events: Vec<Ready> = Vec::new();
    if stack.set_nonblocking(listener, true).is_err() {
        return;
    }
    while !stop.load(Ordering::Acquire) {
        events.clear();
        if stack.poll(&mut events, Some(LOOK)).is_err() {
            return;
        }
        for ready in &events {
            let session = ready.session;
            if ready.readiness.has(Readiness::ACCEPT) {
                while let Ok(new) = stack.accept(session) {
                    let _ = stack.set_nonblocking(new, true);
                    if !stack.is_connectable_listener(new) {
                        let block = vec![0; BLOCK].into_boxed_slice();
                        pipes.insert(new, Pipe { block, held: 0..0, ended: false });
                    }
                }
            }
            if let Some(pipe) = pipes.get_mut(&session)
                && move_on(stack, session, pipe).is_none()
            {
                pipes.remove(&session);
                let _ = stack.close(session);
            } else if ready.readiness.has(Readiness::HANGUP) && !pipes.contains_key(&session) && session != listener {
                let _ = stack.close(session);
            }
        }
    }
}

/// Moves bytes until one direction waits; `None` when the stream is over.
fn move_on(stack: &Stack, session: Session, pipe: &mut Pipe) -> Option<()> {
    loop {
        if pipe.held.is_empty() {
            if pipe.ended {
                return None;
            }
            match stack.read(session, &mut pipe.block) {
                Ok(0) => {
                    pipe.ended = true;
                    stack.finish(session).ok()?;
                    return None;
                }
                Ok(n) => pipe.held = 0..n,
                Err(Error::WouldBlock) => return Some(()),
                Err(_) => return None,
            }
        }
        match stack.write(session, &pipe.block[pipe.held.clone()]) {
            Ok(n) => pipe.held.start += n,
            Err(Error::WouldBlock) => return Some(()),
            Err(_) => return None,
        }
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Connections.
    pub connections: usize,
    /// Streams on each.
    pub streams: usize,
    /// Bytes that each stream sends and gets back.
    pub bytes: u64,
}

impl Job {
    /// Reads `nclient C/S` and `bytes N`, in any order.
    ///
    /// # Errors
    /// A sentence: what is wrong.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let mut job = Self { connections: 1, streams: 1, bytes: 1 << 20 };
        let mut rest = words;
        while let [name, value, more @ ..] = rest {
            match *name {
                "nclient" => {
                    let (connections, streams) = value.split_once('/').unwrap_or((value, "1"));
                    job.connections = count(connections)?;
                    job.streams = count(streams)?;
                }
                "bytes" => job.bytes = size(value)?,
                _ => return Err(format!("{name:?} is no option; nclient C/S and bytes N are")),
            }
            rest = more;
        }
        match rest {
            [] => Ok(job),
            more => Err(format!("{:?} needs a value", more.join(" "))),
        }
    }
}

/// Connections or streams that one test has at most.
const COUNT_MAX: usize = 10_000;

fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=COUNT_MAX).contains(n));
    number.ok_or_else(|| format!("{text:?} is no number from 1 to {COUNT_MAX}"))
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    number.ok_or_else(|| format!("{text:?} is no size; write it like 65536, 64K or 1M"))
}

/// A stream of the client.
struct Flow {
    session: Session,
    salt: u8,
    sent: u64,
    received: u64,
    finished: bool,
}

/// Runs a client inside the host: what it measured, as one JSON object.
///
/// # Errors
/// A sentence: what went wrong.
pub fn call(host: &Host, uri: &str, job: &Job, limit: Duration) -> Result<Value, String> {
    let stack = host.stack("echo client").map_err(|e| e.to_string())?;
    let until = Instant::now() + limit;
    let said = |e: Error| e.to_string();
    let began = Instant::now();
    let mut connections = Vec::with_capacity(job.connections);
    for _ in 0..job.connections {
        let session = open(&stack, uri)?;
        if stack.protocol(session).map_err(said)? == Protocol::Quic {
            stack.set_alpn(session, &[ALPN]).map_err(said)?;
            stack.set_trust(session, Trust::Anybody).map_err(said)?;
        }
        stack.connect(session, uri).map_err(said)?;
        connections.push(session);
    }
    let connected = Instant::now();
    let mut flows = Vec::new();
    for &connection in &connections {
        if !stack.is_connectable_listener(connection) {
            flows.push(flow(connection, flows.len()));
            continue;
        }
        for _ in 0..job.streams {
            let stream = stack.create(Protocol::Quic).map_err(said)?;
            stack.connect_stream(stream, connection, Dir::Bi).map_err(said)?;
            flows.push(flow(stream, flows.len()));
        }
    }
    let opened = Instant::now();
    transfer(&stack, &mut flows, job.bytes, until)?;
    let transferred = Instant::now();
    for &connection in &connections {
        stack.close(connection).map_err(said)?;
    }
    let closed = Instant::now();
    let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    let bytes: u64 = flows.iter().map(|flow| flow.received).sum();
    let gbps = bytes as f64 * 8.0 / (transferred - opened).as_secs_f64() / 1e9;
    Ok(json!({
        "connections": connections.len(), "streams": flows.len(), "bytes": bytes, "verified": true,
        "connect_ms": ms(began, connected), "open_ms": ms(connected, opened),
        "transfer_ms": ms(opened, transferred), "close_ms": ms(transferred, closed), "gbps": gbps,
    }))
}

fn flow(session: Session, number: usize) -> Flow {
    // Streams differ, so that bytes of the wrong one are noticed.
    let salt = u8::try_from(number % 251).unwrap_or(0);
    Flow { session, salt, sent: 0, received: 0, finished: false }
}

/// The byte at a place of a stream.
const fn byte(salt: u8, at: u64) -> u8 {
    (at % 251) as u8 ^ salt
}

/// Sends everything on all streams and compares what comes back.
fn transfer(stack: &Stack, flows: &mut [Flow], bytes: u64, until: Instant) -> Result<(), String> {
    for flow in &*flows {
        stack.set_nonblocking(flow.session, true).map_err(|e| e.to_string())?;
    }
    let mut block = vec![0; BLOCK];
    let (mut events, mut open): (Vec<Ready>, usize) = (Vec::new(), flows.len());
    let places: HashMap<Session, usize> = flows.iter().enumerate().map(|(n, flow)| (flow.session, n)).collect();
    for flow in &mut *flows {
        open -= usize::from(step(stack, flow, bytes, &mut block)?);
    }
    while open > 0 {
        let left = until.checked_duration_since(Instant::now()).ok_or("the echo took too long")?;
        events.clear();
        stack.poll(&mut events, Some(left.min(LOOK))).map_err(|e| e.to_string())?;
        for ready in &events {
            let Some(flow) = places.get(&ready.session).map(|n| &mut flows[*n]) else { continue };
            if flow.received < bytes {
                open -= usize::from(step(stack, flow, bytes, &mut block)?);
            }
        }
    }
    Ok(())
}

/// Moves what can be moved now; whether everything came back.
fn step(stack: &Stack, flow: &mut Flow, bytes: u64, block: &mut [u8]) -> Result<bool, String> {
    let failed = |e: Error| format!("a stream failed: {e}");
    while flow.sent < bytes {
        let n = usize::try_from(bytes - flow.sent).unwrap_or(usize::MAX).min(block.len());
        block[..n].iter_mut().zip(flow.sent..).for_each(|(b, at)| *b = byte(flow.salt, at));
        match stack.write(flow.session, &block[..n]) {
            Ok(took) => flow.sent += took as u64,
            Err(Error::WouldBlock) => break,
            Err(e) => return Err(failed(e)),
        }
    }
    if flow.sent == bytes && !flow.finished {
        stack.finish(flow.session).map_err(failed)?;
        flow.finished = true;
    }
    while flow.received < bytes {
        match stack.read(flow.session, block) {
            Ok(0) => return Err(format!("{} of {bytes} bytes came back", flow.received)),
            Ok(n) => {
                let right = block[..n].iter().zip(flow.received..).all(|(b, at)| *b == byte(flow.salt, at));
                if !right {
                    return Err("a byte that came back differs".to_owned());
                }
                flow.received += n as u64;
            }
            Err(Error::WouldBlock) => return Ok(false),
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_read() {
        assert_eq!(Job::parse(&[]), Ok(Job { connections: 1, streams: 1, bytes: 1 << 20 }));
        let all = Job::parse(&["bytes", "64K", "nclient", "2/4"]);
        assert_eq!(all, Ok(Job { connections: 2, streams: 4, bytes: 65_536 }));
        for bad in [&["nclient"][..], &["nclient", "0/1"], &["nclient", "1/x"], &["bytes", "1Q"], &["speed", "1"]] {
            assert!(Job::parse(bad).is_err(), "{bad:?}");
        }
    }
}
