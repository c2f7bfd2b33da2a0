//! The client: threads that block, two for each stream, one for each UDP session.
//!
//! Every call has a short time, so that a thread sees that the program is to end or that another one failed; a call whose time
//! ran out is made again, which goes on with what was begun. The first failure ends the run and is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Error, Session, Stack};
use serde::Serialize;

use super::{ALPN, TICK, address, attach, failure};
use crate::args::vcl_test::VclClientArgs;
use crate::failure::{Failure, Moved, Outcome};
use crate::link::serve::Stop;
use crate::measure;
use crate::output::Ui;
use crate::pattern::{Mismatch, Pattern, Way};
use crate::progress::{INTERVAL, Progress};
use crate::text;

/// Streams of one run: each is two threads.
const STREAMS_MAX: u32 = 512;
/// Bytes of a call, without the flag.
const BLOCK: u64 = 64 * 1024;
/// Bytes of a datagram, without the flag: what goes everywhere.
const DATAGRAM: u64 = 1200;
/// Bytes of a call, at least and at most.
const BLOCKS: std::ops::RangeInclusive<u64> = 16..=1 << 20;
/// Bytes at the start of a datagram that say where the others belong.
const HEADER: usize = 8;
/// After so long without an answer a datagram is sent again.
const RESEND: Duration = Duration::from_millis(500);
/// What a connection or stream is closed with when the run failed.
const GIVEN_UP: u64 = 1;

/// What a run did.
#[derive(Debug, Serialize)]
struct Report {
    protocol: &'static str,
    connections: u32,
    streams: u64,
    /// Bytes of all streams that went there and came back.
    bytes: u64,
    seconds: f64,
    gbps: f64,
    /// Datagrams that were sent again.
    resent: u64,
    verified: bool,
}

/// What the threads of a run share.
struct Run<'a> {
    stack: Stack,
    protocol: Protocol,
    uri: String,
    trust: Trust,
    args: &'a VclClientArgs,
    block: usize,
    stop: Stop,
    echoed: AtomicU64,
    resent: AtomicU64,
    streams: AtomicU64,
    /// Whether a thread failed; the first one's failure.
    over: AtomicBool,
    first: Mutex<Option<Failure>>,
}

/// Connects, sends and checks.
pub(super) fn run(args: &VclClientArgs, ui: &Ui) -> Outcome {
    let (protocol, uri) = address(&args.uri, &args.over)?;
    let total = args.connections * args.streams;
    if total > STREAMS_MAX {
        return Err(Failure::Usage(format!("{total} streams are more than {STREAMS_MAX}, as many as one run has")));
    }
    let block = args.block.unwrap_or(if protocol == Protocol::Udp { DATAGRAM } else { BLOCK });
    if !BLOCKS.contains(&block) {
        return Err(Failure::Usage("--block is from 16 to 1M".into()));
    }
    let trust = match &args.ca {
        _ if args.insecure => Trust::Anybody,
        Some(path) => Trust::Roots(std::fs::read(path).map_err(|e| Failure::reading(path, &e))?),
        None => Trust::System,
    };
    let stop = Stop::on_signals(Vec::new())?;
    let stack = attach(&args.over)?;
    let run = Run {
        stack,
        protocol,
        uri,
        trust,
        args,
        block: usize::try_from(block).unwrap_or(usize::MAX),
        stop,
        echoed: AtomicU64::new(0),
        resent: AtomicU64::new(0),
        streams: AtomicU64::new(0),
        over: AtomicBool::new(false),
        first: Mutex::new(None),
    };
    let began = Instant::now();
    run.all(&Progress::new(ui, &[("echoed", u64::from(total).saturating_mul(args.bytes))]));
    run.tell(began.elapsed().as_secs_f64(), ui)
}

impl Run<'_> {
    /// All connections, each in a thread of its own; returns when all are over.
    fn all(&self, progress: &Progress) {
        let (alive, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            for number in 0..self.args.connections {
                let alive = alive.clone();
                scope.spawn(move || {
                    self.note(self.connection(number));
                    drop(alive);
                });
            }
            drop(alive);
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(INTERVAL) {
                progress.set(0, self.echoed.load(Ordering::Relaxed));
            }
        });
        progress.clear();
    }

    fn tell(&self, seconds: f64, ui: &Ui) -> Outcome {
        let (bytes, streams) = (self.echoed.load(Ordering::Relaxed), self.streams.load(Ordering::Relaxed));
        if let Some(failure) = self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Each byte went there and back.
            return Err(failure.having_moved(|| Moved { bytes: bytes.saturating_mul(2), streams, seconds }));
        }
        let report = Report {
            protocol: self.protocol.name(),
            connections: self.args.connections,
            streams,
            bytes,
            seconds,
            gbps: measure::gbps(bytes, seconds),
            resent: self.resent.load(Ordering::Relaxed),
            verified: true,
        };
        let size = text::size(bytes);
        let (streams, rate) = (text::count(streams, "stream"), text::rate(report.gbps));
        let mut said = format!(
            "{size} over {} there and back on {streams} in {seconds:.2} s, {rate} each way; every byte checked",
            report.protocol
        );
        if report.resent > 0 {
            said.push_str(&format!("; {} sent again", text::count(report.resent, "datagram")));
        }
        ui.say(said);
        ui.object(&report);
        Ok(())
    }

    /// Keeps the first failure, and ends the others.
    fn note(&self, outcome: Outcome) {
        if let Err(failure) = outcome {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            self.over.store(true, Ordering::Release);
        }
    }

    /// Makes a call until it is done, or nothing has moved for too long, or the run is over.
    fn patient<T>(&self, mut call: impl FnMut() -> Result<T, Error>) -> Outcome<T> {
        let until = Instant::now() + self.args.timeout;
        loop {
            match call() {
                Ok(done) => return Ok(done),
                Err(Error::TimedOut) => self.go_on(until)?,
                Err(e) => return Err(failure(e, &self.uri)),
            }
        }
    }

    fn go_on(&self, until: Instant) -> Outcome {
        self.stop.check()?;
        if self.over.load(Ordering::Acquire) {
            // Whoever failed first is the one that is told.
            return Err(Failure::Incomplete { failed: 1, of: 1 });
        }
        if Instant::now() >= until {
            return Err(Failure::TimeOut { after: self.args.timeout });
        }
        Ok(())
    }

    fn create(&self, tick: Duration) -> Outcome<Session> {
        let made = self.stack.create(self.protocol).and_then(|session| {
            self.stack.set_timeout(session, Some(tick))?;
            if self.protocol == Protocol::Quic {
                self.stack.set_alpn(session, &[ALPN])?;
                self.stack.set_trust(session, self.trust.clone())?;
            }
            Ok(session)
        });
        made.map_err(|e| failure(e, &self.uri))
    }

    /// A session that is connected.
    fn connect(&self, tick: Duration) -> Outcome<Session> {
        let session = self.create(tick)?;
        match self.patient(|| self.stack.connect(session, &self.uri)) {
            Ok(()) => Ok(session),
            Err(Failure::TimeOut { after }) => Err(Failure::NoAnswer { peer: self.uri.clone(), waited: after }),
            Err(e) => Err(e),
        }
    }

    /// One connection and its streams; without QUIC that many connections.
    fn connection(&self, number: u32) -> Outcome {
        let quic = self.protocol == Protocol::Quic;
        let connection = if quic { Some(self.connect(TICK)?) } else { None };
        thread::scope(|scope| {
            for stream in 0..self.args.streams {
                let index = u64::from(number) * u64::from(self.args.streams) + u64::from(stream);
                scope.spawn(move || self.note(self.stream(connection, index)));
            }
        });
        // Closing waits for the last bytes; what is closed twice is closed.
        if let Some(connection) = connection {
            let _ = self.stack.close(connection);
        }
        Ok(())
    }

    /// One stream from its beginning to its end.
    fn stream(&self, connection: Option<Session>, index: u64) -> Outcome {
        let session = match connection {
            Some(connection) => {
                let stream = self.create(TICK)?;
                self.patient(|| self.stack.connect_stream(stream, connection, Dir::Bi))?;
                stream
            }
            None if self.protocol == Protocol::Udp => self.connect(RESEND)?,
            None => self.connect(TICK)?,
        };
        let pattern = Pattern::of(index, Way::Up);
        let exchanged = match self.protocol {
            Protocol::Udp => self.datagrams(session, index, pattern),
            Protocol::Quic | Protocol::Tcp => thread::scope(|scope| {
                scope.spawn(|| self.note(self.send(session, pattern)));
                self.check(session, index, pattern)
            }),
        };
        let _ = match exchanged {
            Ok(()) => self.stack.close(session),
            Err(_) => self.stack.close_with(session, GIVEN_UP, b""),
        };
        exchanged?;
        self.streams.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the stream's bytes.
    fn send(&self, session: Session, pattern: Pattern) -> Outcome {
        let mut block = vec![0; self.block];
        let mut at = 0;
        while at < self.args.bytes {
            let now = usize::try_from(self.args.bytes - at).unwrap_or(usize::MAX).min(block.len());
            pattern.fill(at, &mut block[..now]);
            let mut sent = 0;
            while sent < now {
                sent += self.patient(|| self.stack.write(session, &block[sent..now]))?;
            }
            at += now as u64;
        }
        self.stack.finish(session).map_err(|e| failure(e, &self.uri))
    }

    /// Reads to the end, and compares.
    fn check(&self, session: Session, index: u64, pattern: Pattern) -> Outcome {
        let mut block = vec![0; self.block];
        let mut at = 0;
        loop {
            let count = self.patient(|| self.stack.read(session, &mut block))?;
            if count == 0 {
                break;
            }
            let differs = |mismatch| Failure::Differs { stream: index, mismatch };
            pattern.check(at, &block[..count]).map_err(differs)?;
            at += count as u64;
            self.echoed.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.whole(index, self.args.bytes, at)
    }

    fn whole(&self, index: u64, expected: u64, found: u64) -> Outcome {
        if expected == found {
            return Ok(());
        }
        Err(Failure::WrongLength { what: format!("stream {index} of {}", self.uri), expected, found })
    }

    /// Sends datagrams, each when the one before has come back.
    fn datagrams(&self, session: Session, index: u64, pattern: Pattern) -> Outcome {
        let mut at = 0;
        while at < self.args.bytes {
            let room = (self.block - HEADER) as u64;
            let mut sent = at.to_le_bytes().to_vec();
            sent.resize(HEADER + usize::try_from(room.min(self.args.bytes - at)).unwrap_or(0), 0);
            pattern.fill(at, &mut sent[HEADER..]);
            self.there_and_back(session, index, (at, &sent))?;
            at += (sent.len() - HEADER) as u64;
            self.echoed.fetch_add((sent.len() - HEADER) as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn there_and_back(&self, session: Session, index: u64, (at, sent): (u64, &[u8])) -> Outcome {
        let until = Instant::now() + self.args.timeout;
        self.patient(|| self.stack.send_datagram(session, sent))?;
        loop {
            match self.stack.recv_datagram(session) {
                Ok(found) if found[..] == *sent => return Ok(()),
                Ok(found) if is_late(&found, at) => {}
                Ok(found) => return Err(differs(index, (at, sent), &found)),
                Err(Error::TimedOut) => {
                    self.go_on(until).map_err(|e| match e {
                        Failure::TimeOut { after } if at == 0 => {
                            Failure::NoAnswer { peer: self.uri.clone(), waited: after }
                        }
                        e => e,
                    })?;
                    self.resent.fetch_add(1, Ordering::Relaxed);
                    self.patient(|| self.stack.send_datagram(session, sent))?;
                }
                Err(e) => return Err(failure(e, &self.uri)),
            }
        }
    }
}

/// Whether it is the answer to a datagram that was sent twice.
fn is_late(found: &[u8], at: u64) -> bool {
    found.first_chunk::<HEADER>().is_some_and(|header| u64::from_le_bytes(*header) < at)
}

/// How a datagram that came back differs from the one that was sent.
fn differs(index: u64, (at, sent): (u64, &[u8]), found: &[u8]) -> Failure {
    match sent.iter().zip(found).position(|(sent, found)| sent != found) {
        Some(place) => {
            let mismatch = Mismatch { offset: at + place as u64, expected: sent[place], found: found[place] };
            Failure::Differs { stream: index, mismatch }
        }
        None => Failure::WrongLength {
            what: format!("a datagram of session {index}"),
            expected: sent.len() as u64,
            found: found.len() as u64,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_that_differs_is_told_where_and_late_ones_are_known() {
        let sent = [&8_u64.to_le_bytes()[..], b"abc"].concat();
        let mut found = sent.clone();
        found[9] = b'x';
        let Failure::Differs { stream: 3, mismatch } = differs(3, (8, &sent), &found) else { panic!() };
        assert_eq!(mismatch, Mismatch { offset: 17, expected: b'b', found: b'x' });
        assert_eq!(differs(3, (8, &sent), &sent[..9]).code(), 1);
        assert!(is_late(&0_u64.to_le_bytes(), 8));
        assert!(!is_late(&sent, 8) && !is_late(b"", 8));
    }
}
