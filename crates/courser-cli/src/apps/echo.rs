//! Echo: the server sends back what it receives, the client checks that it did.
//!
//! The client works in phases that somebody else steps it through, so that many connections change phase together and
//! each phase can be timed: open all streams (a stream counts as open when its first byte has come back), then move
//! the rest.

use courser_core::ids::{Dir, StreamId};

use crate::apps::body::{Body, Counter, Feed, Sink};
use crate::apps::by_stream::ByStream;
use crate::apps::exchange::{self, Exchange};
use crate::failure::Outcome;
use crate::pattern::{Pattern, Way};
use crate::transport::{App, Event, Peek, Streams, Wrote};

/// Application protocol name.
pub const ALPN: &[u8] = b"courser-echo";
/// Bytes that are copied at a time.
const BLOCK: usize = 16 << 10;

/// The server's part of one connection. It keeps nothing per stream: what cannot be written stays unread, so that the
/// peer's own credit holds it back.
#[derive(Debug)]
pub struct EchoServer {
    block: Box<[u8]>,
    /// Bytes sent back.
    echoed: Counter,
}

impl EchoServer {
    /// A server for one new connection.
    #[must_use]
    pub fn new(echoed: Counter) -> Self {
        Self { block: vec![0; BLOCK].into_boxed_slice(), echoed }
    }

    /// Moves bytes from the stream's one direction to the other: a piece as it is, others by way of a block.
    fn turn<S: Streams>(&mut self, link: &mut S, id: StreamId) {
        loop {
            let (offered, wrote) = if let Some(mut piece) = link.piece(id) {
                (piece.len(), link.write_owned(id, &mut piece))
            } else {
                let have = match link.peek(id) {
                    Peek::Data(data) => {
                        let n = data.len().min(BLOCK);
                        self.block[..n].copy_from_slice(&data[..n]);
                        n
                    }
                    Peek::Blocked | Peek::Gone => return,
                    Peek::End => return link.finish(id),
                    Peek::Reset(code) => return link.reset(id, code),
                };
                (have, link.write(id, &self.block[..have]))
            };
            match wrote {
                Wrote::Took(n) => {
                    link.consume(id, n);
                    self.echoed.add(n as u64);
                    if n < offered {
                        return;
                    }
                }
                Wrote::Stopped(code) => return link.stop(id, code),
                Wrote::Gone => return,
            }
        }
    }
}

impl App for EchoServer {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        match event {
            Event::Opened(id) if id.dir() == Dir::Uni => link.stop(id, 0),
            Event::Opened(id) | Event::Readable(id) | Event::Writable(id) => self.turn(link, id),
            Event::Stopped { id, code } => link.stop(id, code),
            Event::Connected | Event::Credit | Event::Acked(_) | Event::Closed(_) => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Connecting,
    Opening,
    Moving,
}

/// The client's part of one connection.
#[derive(Debug)]
pub struct EchoClient {
    phase: Phase,
    /// Streams to open.
    wanted: u64,
    /// Bytes that each sends and gets back.
    bytes: u64,
    /// Distinguishes the patterns of the connections of one run.
    salt: u64,
    received: Counter,
    streams: ByStream<Exchange>,
    opened: u64,
    done: u64,
}

impl EchoClient {
    /// A client for the `index`-th connection.
    #[must_use]
    pub fn new(index: u64, streams: u64, bytes: u64, received: Counter) -> Self {
        Self {
            phase: Phase::Connecting,
            wanted: streams,
            bytes,
            salt: index << 32,
            received,
            streams: ByStream::default(),
            opened: 0,
            done: 0,
        }
    }

    /// Begins to open the streams.
    ///
    /// # Errors
    /// None that a fresh connection has.
    pub fn open<S: Streams>(&mut self, link: &mut S) -> Outcome {
        self.phase = Phase::Opening;
        self.open_more(link)
    }

    /// Begins to move the bytes.
    ///
    /// # Errors
    /// A byte that came back differs.
    pub fn transfer<S: Streams>(&mut self, link: &mut S) -> Outcome {
        self.phase = Phase::Moving;
        let mut ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().try_for_each(|id| self.turn(link, id))
    }

    /// Whether every stream's first byte has come back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let first = self.bytes.min(1);
        self.opened == self.wanted && self.streams.values().all(|x| x.received() >= first)
    }

    /// Streams on which everything has come back.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.done
    }

    /// Streams that the peer let us open.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened
    }

    fn open_more<S: Streams>(&mut self, link: &mut S) -> Outcome {
        while self.phase == Phase::Opening && self.opened < self.wanted {
            let Some(id) = link.open(Dir::Bi) else { return Ok(()) };
            let body = Body::Pattern(Pattern::of(self.salt + id.0, Way::Up));
            let up = Feed::new(&body, 0, self.bytes)?;
            let down = Sink::new(&body, Some(self.bytes), self.received.clone())?;
            self.streams.insert(id, Exchange::new(id, &[], up, down));
            self.opened += 1;
            self.turn(link, id)?;
        }
        Ok(())
    }

    fn turn<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        let Some(x) = self.streams.get_mut(&id) else { return Ok(()) };
        let was_done = x.is_done();
        if self.phase == Phase::Moving {
            x.write(link)?;
        } else {
            x.write_to(link, 1)?;
        }
        x.read(link)?;
        if x.is_done() && !was_done {
            self.done += 1;
        }
        Ok(())
    }
}

impl App for EchoClient {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        let done = match event {
            Event::Credit => self.open_more(link),
            Event::Readable(id) | Event::Writable(id) => self.turn(link, id),
            other => exchange::on(link, other, &self.streams, self.done()),
        };
        exchange::close_if_different(link, done)
    }

    fn done(&self) -> bool {
        self.phase == Phase::Moving && self.done == self.wanted
    }
}
