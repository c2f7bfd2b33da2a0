//! The two ends: an engine each, with an application that asks or answers.

use bytes::Bytes;
use courser_core::config::Settings;
use courser_core::crypto::TlsClientConfig;
use courser_core::engine::{Engine, Event, SendOutcome, Train, TrainMeta};
use courser_core::ids::{ConnKey, Dir, StreamId};
use courser_core::stream::{Read, StreamEvent};
use courser_core::time::Instant;

use crate::Options;
use crate::pipe::Pipe;
use crate::provider::Provider;

const CLIENT: &str = "10.0.0.1:1000";
const SERVER: &str = "10.0.0.2:443";
/// A turn reads so many bytes.
const RECEIVE_BYTES: usize = 256 << 10;
/// A turn sends so many datagrams.
const DATAGRAMS: u64 = 1024;

/// What the turns of an end did.
#[derive(Clone, Copy, Default)]
pub struct Turns {
    pub turns: u64,
    pub received: u64,
    pub sent: u64,
    pub trains: u64,
    pub ticks: u64,
}

impl Turns {
    pub fn since(&self, before: &Self) -> Self {
        Self {
            turns: self.turns - before.turns,
            received: self.received - before.received,
            sent: self.sent - before.sent,
            trains: self.trains - before.trains,
            ticks: self.ticks - before.ticks,
        }
    }
}

/// An engine and the train that its pipe had no room for.
struct Driven {
    engine: Engine,
    train: Train,
    kept: Option<TrainMeta>,
    /// Trains of a receive call.
    slots: usize,
}

impl Driven {
    fn receive(&mut self, now: Instant, from: &mut Pipe, remote: &str) -> u64 {
        let (mut bytes, mut datagrams, mut trains) = (0, 0, 0);
        while bytes < RECEIVE_BYTES {
            if self.slots > 0 && trains % self.slots == 0 {
                self.engine.expect(from.front(self.slots));
            }
            trains += 1;
            let Some((len, count)) = from.receive(remote, |meta, train| self.engine.receive(now, meta, train)) else {
                break;
            };
            bytes += len;
            datagrams += count;
        }
        self.engine.process(now);
        datagrams
    }

    /// Returns datagrams and trains that were sent.
    fn send(&mut self, now: Instant, to: &mut Pipe) -> (u64, u64) {
        self.engine.process(now);
        let (mut datagrams, mut trains) = (0, 0);
        while datagrams < DATAGRAMS {
            let Some(meta) = self.kept.take().or_else(|| self.engine.fill(now, &mut self.train)) else { break };
            if !to.send(&meta, &self.train) {
                self.kept = Some(meta);
                break;
            }
            self.engine.sent(now, &meta, SendOutcome::Sent);
            datagrams += meta.len.div_ceil(meta.segment) as u64;
            trains += 1;
        }
        (datagrams, trains)
    }

    /// Sends what a turn led to and counts it; the datagrams.
    fn finish_turn(&mut self, now: Instant, to: &mut Pipe, turns: &mut Turns) -> u64 {
        let (sent, trains) = self.send(now, to);
        turns.turns += 1;
        turns.sent += sent;
        turns.trains += trains;
        turns.ticks = self.engine.stats().ticks;
        sent
    }
}

fn driven(provider: &Provider, settings: &Settings, options: &Options, server: bool) -> Driven {
    let engine = Engine::new(provider.engine(server, settings));
    Driven { engine, train: Train::new(), kept: None, slots: options.slots }
}

/// The end that asks.
pub struct Client {
    end: Driven,
    settings: Settings,
    tls: Box<dyn TlsClientConfig>,
    keys: Vec<ConnKey>,
    active: usize,
    answer: usize,
    pub confirmed: usize,
    pub answers: u64,
    pub turns: Turns,
}

impl Client {
    pub fn new(provider: &Provider, settings: Settings, options: &Options, active: usize) -> Self {
        Self {
            end: driven(provider, &settings, options, false),
            settings,
            tls: provider.client(),
            keys: Vec::new(),
            active,
            answer: options.answer,
            confirmed: 0,
            answers: 0,
            turns: Turns::default(),
        }
    }

    pub fn connect(&mut self, now: Instant) {
        let remote = SERVER.parse().expect("an address");
        let key = self.end.engine.connect(now, remote, "localhost", self.tls.as_ref(), &self.settings);
        self.keys.push(key.expect("TLS starts"));
    }

    /// Lets the active connections ask for the first time. They lie evenly among the others.
    pub fn start(&mut self, _: Instant) {
        for n in 0..self.active {
            self.ask(self.keys[n * self.keys.len() / self.active]);
        }
    }

    fn ask(&mut self, key: ConnKey) {
        let engine = &mut self.end.engine;
        let Ok(Some(id)) = engine.open_stream(key, Dir::Bi) else { return };
        let written = engine.write(key, id, &(self.answer as u64).to_be_bytes());
        assert_eq!(written, Ok(8));
        engine.finish(key, id).expect("an open stream");
    }

    fn read(&mut self, key: ConnKey, id: StreamId) {
        loop {
            let n = match self.end.engine.peek(key, id) {
                Ok([]) | Err(_) => 0,
                Ok(bytes) => bytes.len(),
            };
            match self.end.engine.consume(key, id, n) {
                Ok(Read::Finished) => {
                    self.answers += 1;
                    return self.ask(key);
                }
                Ok(Read::Bytes(n)) if n > 0 => {}
                _ => return,
            }
        }
    }

    /// Returns the datagrams that it sent.
    pub fn turn(&mut self, now: Instant, from: &mut Pipe, to: &mut Pipe) -> u64 {
        self.turns.received += self.end.receive(now, from, SERVER);
        while let Some((key, event)) = self.end.engine.poll_event() {
            match event {
                Event::Confirmed => self.confirmed += 1,
                Event::Stream(StreamEvent::Readable(id)) => self.read(key, id),
                Event::Stream(StreamEvent::Available { .. }) => self.ask(key),
                Event::Closed(reason) => panic!("closed: {reason:?}"),
                _ => {}
            }
        }
        self.end.finish_turn(now, to, &mut self.turns)
    }
}

/// The end that answers.
pub struct Server {
    end: Driven,
    body: Bytes,
    pub turns: Turns,
}

impl Server {
    pub fn new(provider: &Provider, settings: &Settings, options: &Options) -> Self {
        Self {
            end: driven(provider, settings, options, true),
            body: Bytes::from(vec![0x42; options.answer]),
            turns: Turns::default(),
        }
    }

    fn serve(&mut self, key: ConnKey, id: StreamId) {
        let mut request = [0; 8];
        let engine = &mut self.end.engine;
        if engine.read(key, id, &mut request) != Ok(Read::Bytes(8)) {
            return;
        }
        assert_eq!(u64::from_be_bytes(request), self.body.len() as u64);
        let mut body = self.body.clone();
        engine.write_owned(key, id, &mut body).expect("an open stream");
        assert!(body.is_empty(), "an answer fits the send window");
        engine.finish(key, id).expect("an open stream");
        let end = engine.read(key, id, &mut request);
        debug_assert_eq!(end, Ok(Read::Finished));
    }

    /// Returns the datagrams that it sent.
    pub fn turn(&mut self, now: Instant, from: &mut Pipe, to: &mut Pipe) -> u64 {
        self.turns.received += self.end.receive(now, from, CLIENT);
        while let Some((key, event)) = self.end.engine.poll_event() {
            match event {
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Ok(Some(id)) = self.end.engine.accept_stream(key, Dir::Bi) {
                        self.serve(key, id);
                    }
                }
                Event::Closed(reason) => panic!("closed: {reason:?}"),
                _ => {}
            }
        }
        self.end.finish_turn(now, to, &mut self.turns)
    }
}
