//! A transport in memory, for tests of this crate and of what is built on it: no sockets, no packets, no time.
//!
//! Two [`Memory`] ends exchange what they wrote when [`Memory::exchange`] is called: in pieces of any size, with a limit on what
//! a stream holds, so that every call is met in the middle. Tests also write raw bytes into an end, and look at what it was
//! asked to do.

pub mod fuzz;
mod fuzz_qpack;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};
use courser_core::ids::{Dir, Side, StreamId};
use courser_core::stream::Priority;

use crate::transport::{Read, Transport, WriteError};

/// One end of a stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// What came and was not read.
    pub incoming: VecDeque<Bytes>,
    /// The peer ended it behind that.
    pub incoming_end: bool,
    /// The peer reset it.
    pub incoming_reset: Option<u64>,
    /// What was written and not delivered.
    pub outgoing: Vec<u8>,
    /// How many writes there were, with those that took nothing.
    pub writes: usize,
    /// It was finished.
    pub finished: bool,
    /// It was reset by this end.
    pub reset: Option<u64>,
    /// The peer was asked to send no more.
    pub stopped: Option<u64>,
    /// The peer asked this end to send no more.
    pub stopped_by_peer: Option<u64>,
    /// The last priority that was set.
    pub priority: Option<Priority>,
    /// The end of what this end sends was told to the peer.
    told: bool,
}

/// One end of a transport in memory.
#[derive(Debug)]
pub struct Memory {
    side: Side,
    /// All streams that were used.
    pub streams: BTreeMap<StreamId, Stream>,
    /// How many streams of each direction this end opened.
    opened: [u64; 2],
    /// How many streams of each direction it may open: two-way, one-way.
    pub may_open: [u64; 2],
    /// How many bytes a stream takes before they are delivered.
    pub room: usize,
    /// The largest piece that is delivered.
    pub piece: usize,
    /// Datagrams that were sent.
    pub datagrams: Vec<Bytes>,
    /// Whether datagrams are taken.
    pub takes_datagrams: bool,
    /// With what the connection was closed.
    pub closed: Option<(u64, String)>,
}

impl Memory {
    /// An end with room for much.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            streams: BTreeMap::new(),
            opened: [0; 2],
            may_open: [1 << 20; 2],
            room: 1 << 30,
            piece: usize::MAX,
            datagrams: Vec::new(),
            takes_datagrams: true,
            closed: None,
        }
    }

    /// A stream, which is there from now on.
    pub fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams.entry(id).or_default()
    }

    /// Lets the end receive bytes, as if the peer had sent them.
    pub fn receive(&mut self, id: StreamId, bytes: &[u8], end: bool) {
        let size = self.piece;
        let stream = self.stream(id);
        stream.incoming.extend(bytes.chunks(size.max(1)).map(Bytes::copy_from_slice));
        stream.incoming_end |= end;
    }

    /// Delivers everything that either end wrote or asked for. Streams that got something, at each end, in order of their
    /// numbers.
    pub fn exchange(a: &mut Self, b: &mut Self) -> (Vec<StreamId>, Vec<StreamId>) {
        let to_b = a.deliver(b);
        let to_a = b.deliver(a);
        (to_a, to_b)
    }

    fn deliver(&mut self, to: &mut Self) -> Vec<StreamId> {
        let mut reached = Vec::new();
        for (id, from) in &mut self.streams {
            let ends = (from.finished || from.reset.is_some()) && !from.told;
            if from.outgoing.is_empty() && !ends && from.stopped.is_none() {
                continue;
            }
            let bytes = std::mem::take(&mut from.outgoing);
            from.told |= ends;
            let there = to.streams.entry(*id).or_default();
            if let Some(code) = from.stopped {
                there.stopped_by_peer = Some(code);
            }
            if there.stopped.is_none() {
                there.incoming.extend(bytes.chunks(to.piece.max(1)).map(Bytes::copy_from_slice));
            }
            there.incoming_end |= from.finished;
            there.incoming_reset = from.reset;
            reached.push(*id);
        }
        reached
    }

    fn room(&mut self, id: StreamId) -> Result<usize, WriteError> {
        if self.closed.is_some() {
            return Err(WriteError::Closed);
        }
        let room = self.room;
        let stream = self.stream(id);
        stream.writes += 1;
        match stream.stopped_by_peer {
            _ if stream.finished || stream.reset.is_some() => Err(WriteError::Finished),
            Some(code) => Err(WriteError::Stopped(code)),
            None => Ok(room.saturating_sub(stream.outgoing.len())),
        }
    }
}

impl Transport for Memory {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let at = usize::from(dir == Dir::Uni);
        if self.opened[at] >= self.may_open[at] {
            return None;
        }
        let id = StreamId::new(self.side, dir, self.opened[at]);
        self.opened[at] += 1;
        self.stream(id);
        Some(id)
    }

    fn read(&mut self, stream: StreamId) -> Read {
        if self.closed.is_some() {
            return Read::Closed;
        }
        let s = self.stream(stream);
        if let Some(code) = s.incoming_reset {
            return Read::Reset(code);
        }
        match s.incoming.pop_front() {
            Some(piece) => Read::Data(piece),
            None if s.incoming_end => Read::End,
            None => Read::Blocked,
        }
    }

    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let n = self.room(stream)?.min(data.len());
        self.stream(stream).outgoing.extend_from_slice(&data[..n]);
        data.advance(n);
        Ok(n)
    }

    fn write_copy(&mut self, stream: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let n = self.room(stream)?.min(data.len());
        self.stream(stream).outgoing.extend_from_slice(&data[..n]);
        Ok(n)
    }

    fn finish(&mut self, stream: StreamId) {
        let s = self.stream(stream);
        s.finished |= s.reset.is_none();
    }

    fn reset(&mut self, stream: StreamId, code: u64) {
        let s = self.stream(stream);
        s.outgoing.clear();
        s.reset.get_or_insert(code);
    }

    fn stop(&mut self, stream: StreamId, code: u64) {
        let s = self.stream(stream);
        s.incoming.clear();
        s.stopped.get_or_insert(code);
    }

    fn set_priority(&mut self, stream: StreamId, priority: Priority) {
        self.stream(stream).priority = Some(priority);
    }

    fn send_datagram(&mut self, data: Bytes) -> bool {
        if self.takes_datagrams {
            self.datagrams.push(data);
        }
        self.takes_datagrams
    }

    fn close(&mut self, code: u64, reason: &str) {
        self.closed.get_or_insert((code, reason.to_owned()));
    }
}
