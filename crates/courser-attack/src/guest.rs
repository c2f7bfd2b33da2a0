//! An application that means harm, on an engine that keeps the rules: what can be done with streams alone.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Wall};

use bytes::Bytes;
use courser_core::config::Settings;
use courser_core::engine::{Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train};
use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Dir, Ecn, StreamId};
use courser_core::stream::{Read, StreamEvent};
use courser_core::time::Instant;
use courser_tls::{AwsLc, SystemRandom};

use crate::hand::socket;
use crate::identity::{self, Identity};
use crate::raw::tolerate;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Datagrams that are read in one turn.
const BATCH: usize = 64;

/// How a stream of the victim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its end.
    Fin,
    /// It was reset with that code.
    Reset(u64),
}

/// A connection whose application is the attacker.
pub struct Guest {
    socket: UdpSocket,
    engine: Engine,
    key: Option<ConnKey>,
    start: Wall,
    train: Train,
    bytes: Vec<u8>,
    arrived: VecDeque<StreamId>,
    /// Code with which the victim closed; `u64::MAX` when the connection ended otherwise.
    pub closed: Option<u64>,
    /// Streams of ours that the victim does not want more of.
    pub stopped: HashSet<StreamId>,
    /// Bytes of datagrams that came.
    pub heard: u64,
}

impl Guest {
    fn new(socket: UdpSocket, server: Option<ServerConfig>) -> Self {
        let mut config = EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new()));
        config.server = server;
        Self {
            socket,
            engine: Engine::new(config),
            key: None,
            start: Wall::now(),
            train: Train::new(),
            bytes: vec![0; 65_536],
            arrived: VecDeque::new(),
            closed: None,
            stopped: HashSet::new(),
            heard: 0,
        }
    }

    /// Connects to a server on loopback.
    ///
    /// # Errors
    /// Those of the system; a handshake that fails; a target elsewhere.
    pub fn connect(server: SocketAddr, alpn: &str, settings: &Settings) -> io::Result<Self> {
        if !server.ip().is_loopback() {
            return Err(io::Error::other("only loopback addresses are attacked"));
        }
        let mut guest = Self::new(socket()?, None);
        let (now, tls) = (guest.now(), identity::client(alpn)?);
        let begun = guest.engine.connect(now, server, "localhost", &*tls, settings);
        guest.key = Some(begun.map_err(|e| io::Error::other(format!("{e:?}")))?);
        guest.shake()
    }

    /// Waits for a client at that socket.
    ///
    /// # Errors
    /// Those of the system; nobody comes, or the handshake fails.
    pub fn accept(socket: UdpSocket, identity: &Identity, alpn: &str, settings: &Settings) -> io::Result<Self> {
        let server = ServerConfig::new(identity.server(alpn)?, settings.clone());
        Self::new(socket, Some(server)).shake()
    }

    fn shake(mut self) -> io::Result<Self> {
        while self.start.elapsed() < HANDSHAKE && self.closed.is_none() {
            if self.turn(Duration::from_millis(5))? {
                return Ok(self);
            }
        }
        Err(io::Error::other(format!("the handshake did not end: {:?}", self.closed)))
    }

    fn now(&self) -> Instant {
        Instant::from_micros(1_000_000 + u64::try_from(self.start.elapsed().as_micros()).unwrap_or(0))
    }

    /// Sends what is to be sent, waits at most so long for something, and takes in what came. Says whether the handshake was
    /// confirmed by that.
    ///
    /// # Errors
    /// Those of the system.
    pub fn turn(&mut self, wait: Duration) -> io::Result<bool> {
        self.flush()?;
        self.socket.set_read_timeout(Some(wait.max(Duration::from_micros(1))))?;
        for n in 0..BATCH {
            let Ok((len, from)) = self.socket.recv_from(&mut self.bytes) else { break };
            if n == 0 {
                self.socket.set_nonblocking(true)?;
            }
            self.heard += len as u64;
            let meta = Meta { local: None, remote: from, ecn: Ecn::NotEct, stride: len };
            let now = self.now();
            self.engine.receive(now, &meta, &mut self.bytes[..len]);
        }
        self.socket.set_nonblocking(false)?;
        let confirmed = self.events();
        self.flush()?;
        Ok(confirmed)
    }

    fn events(&mut self) -> bool {
        let now = self.now();
        self.engine.process(now);
        let mut confirmed = false;
        while let Some((key, event)) = self.engine.poll_event() {
            match event {
                Event::Accepted => self.key = Some(key),
                Event::Confirmed => confirmed = true,
                Event::Stream(StreamEvent::Opened { dir }) => {
                    while let Ok(Some(id)) = self.engine.accept_stream(key, dir) {
                        self.arrived.push_back(id);
                    }
                }
                Event::Stream(StreamEvent::Stopped { id, .. }) => _ = self.stopped.insert(id),
                Event::Closed(reason) => {
                    self.closed = Some(match reason {
                        CloseReason::PeerApplication { code, .. } => code,
                        CloseReason::PeerTransport { code, .. } => code.0,
                        _ => u64::MAX,
                    });
                }
                _ => {}
            }
        }
        confirmed
    }

    fn flush(&mut self) -> io::Result<()> {
        let now = self.now();
        self.engine.process(now);
        while let Some(meta) = self.engine.fill(now, &mut self.train) {
            for datagram in self.train.bytes().chunks(meta.segment) {
                tolerate(self.socket.send_to(datagram, meta.to))?;
            }
            self.engine.sent(now, &meta, SendOutcome::Sent);
        }
        Ok(())
    }

    /// A new stream, where the victim's limit leaves one.
    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.engine.open_stream(self.key?, dir).ok().flatten()
    }

    /// A new stream; waits for the victim's credit until then.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open_until(&mut self, dir: Dir, until: Wall) -> io::Result<Option<StreamId>> {
        loop {
            let id = self.open(dir);
            if id.is_some() || self.closed.is_some() || Wall::now() > until {
                return Ok(id);
            }
            self.turn(Duration::from_millis(2))?;
        }
    }

    /// The next stream that the victim opened.
    pub fn next_stream(&mut self) -> Option<StreamId> {
        self.arrived.pop_front()
    }

    /// Writes what is taken at once; nothing on a stream that is not to be written.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> usize {
        self.key.map_or(0, |key| self.engine.write(key, id, data).unwrap_or(0))
    }

    /// Writes all of it, waiting for room until then; says whether all was taken.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write_until(&mut self, id: StreamId, mut data: &[u8], until: Wall) -> io::Result<bool> {
        while !data.is_empty() {
            let took = self.write(id, data);
            data = &data[took..];
            if took == 0 {
                let over = self.closed.is_some() || self.stopped.contains(&id);
                if over || Wall::now() > until {
                    return Ok(false);
                }
                self.turn(Duration::from_millis(2))?;
            }
        }
        Ok(true)
    }

    /// Ends a stream.
    pub fn finish(&mut self, id: StreamId) {
        let _ = self.key.map(|key| self.engine.finish(key, id));
    }

    /// Gives a stream up in both directions.
    pub fn abandon(&mut self, id: StreamId, code: u64) {
        if let Some(key) = self.key {
            let _ = self.engine.reset(key, id, code);
            let _ = self.engine.stop_sending(key, id, code);
        }
    }

    /// Resets a stream.
    pub fn reset(&mut self, id: StreamId, code: u64) {
        let _ = self.key.map(|key| self.engine.reset(key, id, code));
    }

    /// Sends a datagram if there is room.
    pub fn datagram(&mut self, data: &[u8]) -> bool {
        self.key.is_some_and(|key| self.engine.send_datagram(key, Bytes::copy_from_slice(data), None).unwrap_or(false))
    }

    /// What a stream has, put behind `into`, and its end when that was reached.
    pub fn read(&mut self, id: StreamId, into: &mut Vec<u8>) -> Option<End> {
        let key = self.key?;
        let mut piece = [0; 16_384];
        loop {
            match self.engine.read(key, id, &mut piece) {
                Ok(Read::Bytes(n)) => into.extend_from_slice(&piece[..n]),
                Ok(Read::Blocked) => return None,
                Ok(Read::Finished) => return Some(End::Fin),
                Err(courser_core::stream::ReadError::Reset(code)) => return Some(End::Reset(code)),
                Err(_) => return Some(End::Reset(u64::MAX)),
            }
        }
    }

    /// Reads a stream to its end, or until then.
    ///
    /// # Errors
    /// Those of the system.
    pub fn read_until(&mut self, id: StreamId, until: Wall) -> io::Result<(Vec<u8>, Option<End>)> {
        let mut all = Vec::new();
        loop {
            if let Some(end) = self.read(id, &mut all) {
                return Ok((all, Some(end)));
            }
            if self.closed.is_some() || Wall::now() > until {
                return Ok((all, None));
            }
            self.turn(Duration::from_millis(5))?;
        }
    }

    /// Takes turns until the victim closed, or until then.
    ///
    /// # Errors
    /// Those of the system.
    pub fn linger(&mut self, until: Wall) -> io::Result<()> {
        while self.closed.is_none() && Wall::now() < until {
            self.turn(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Closes the connection, as an honest client does that has what it came for.
    pub fn close(&mut self) {
        let now = self.now();
        if let Some(key) = self.key {
            let _ = self.engine.close(now, key, 0x100, b"");
            let _ = self.flush();
        }
    }
}
