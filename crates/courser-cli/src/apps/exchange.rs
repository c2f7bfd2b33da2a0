//! One two-way stream of a client: an optional head, bytes up, the end; bytes down, the end. And what clients that have
//! such streams make of events alike.

use std::time::Instant;

use courser_core::ids::StreamId;

use crate::apps::body::{Feed, Sink};
use crate::apps::by_stream::ByStream;
use crate::failure::{Failure, Outcome};
use crate::transport::{CODE_DIFFERS, Event, Streams, Wrote};

/// Longest head that is sent together with a short body, in bytes.
const HEAD_MAX: usize = 64;

/// A stream's work.
#[derive(Debug)]
pub struct Exchange {
    id: StreamId,
    /// Sent before the feed's bytes.
    head: [u8; HEAD_MAX],
    head_len: usize,
    head_sent: usize,
    up: Feed,
    down: Sink,
    started: Instant,
}

impl Exchange {
    /// A stream that was just opened. `head` has at most 64 bytes.
    #[must_use]
    pub fn new(id: StreamId, head: &[u8], up: Feed, down: Sink) -> Self {
        let mut own = [0; HEAD_MAX];
        own[..head.len()].copy_from_slice(head);
        Self { id, head: own, head_len: head.len(), head_sent: 0, up, down, started: Instant::now() }
    }

    /// Sends what the stream takes.
    ///
    /// # Errors
    /// A source that cannot be read.
    pub fn write<S: Streams>(&mut self, link: &mut S) -> Outcome {
        if self.write_head(link) { self.up.pump(link, self.id) } else { Ok(()) }
    }

    /// Sends what the stream takes of the first `stop` bytes, and no end.
    ///
    /// # Errors
    /// A source that cannot be read.
    pub fn write_to<S: Streams>(&mut self, link: &mut S, stop: u64) -> Outcome {
        if self.write_head(link) { self.up.pump_to(link, self.id, stop) } else { Ok(()) }
    }

    /// Whether the head is out.
    fn write_head<S: Streams>(&mut self, link: &mut S) -> bool {
        while self.head_sent < self.head_len {
            match link.write(self.id, &self.head[self.head_sent..self.head_len]) {
                Wrote::Took(0) => return false,
                Wrote::Took(n) => self.head_sent += n,
                // The peer may refuse the request and still answer; the reading side tells.
                Wrote::Stopped(_) | Wrote::Gone => self.head_sent = self.head_len,
            }
        }
        true
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// A byte differs, the length is wrong, or the peer gave up.
    pub fn read<S: Streams>(&mut self, link: &mut S) -> Outcome {
        self.down.drain(link, self.id)
    }

    /// Whether both directions are at their end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.up.is_finished() && self.down.is_ended()
    }

    /// Bytes that the stream took, without the head.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.up.taken()
    }

    /// Bytes that came back.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.down.got()
    }

    /// Nanoseconds since the stream was opened.
    #[must_use]
    pub fn age_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What an event means that is not about the progress of one of the client's streams. `done` says whether the client has
/// done its job.
///
/// # Errors
/// The server gave up a stream or the connection before that.
pub fn on<S: Streams>(link: &mut S, event: Event, streams: &ByStream<Exchange>, done: bool) -> Outcome {
    match event {
        Event::Opened(id) => {
            // The server has nothing to say on streams of its own.
            link.stop(id, 0);
            Ok(())
        }
        Event::Stopped { id, code } if streams.get(&id).is_some_and(|x| !x.is_done()) => {
            Err(Failure::PeerReset { stream: id.0, code })
        }
        Event::Closed(why) if !done => Err(why),
        _ => Ok(()),
    }
}

/// Passes `outcome` on, and tells the server when it is that bytes differ.
///
/// # Errors
/// That of `outcome`.
pub fn close_if_different<S: Streams>(link: &mut S, outcome: Outcome) -> Outcome {
    if let Err(Failure::Differs { .. }) = outcome {
        link.close(CODE_DIFFERS, "received bytes differ from those sent");
    }
    outcome
}
