//! The engine behind [`crate::transport::Streams`]: programs call straight into it, in the thread that drives it.
//!
//! ```text
//! mod     one connection as its program sees it; events of the engine become events of programs
//! setup   TLS, engine, socket and worker from flags
//! drive   turns of a worker until a job is done; the race for the first connection
//! echo    an echo client: its connections, threads and phases
//! perf    a perf client: its connections and what is measured
//! scout   finds out early that no program has a port
//! serve   a program for every connection that comes in, until the process is asked to end
//! table   programs by connection
//! ```

pub mod drive;
pub mod echo;
pub mod perf;
pub mod scout;
pub mod serve;
pub mod setup;
pub mod table;

use std::time::Duration;

use bytes::Bytes;
use courser_core::engine::{Engine, Event as EngineEvent};
use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Dir, StreamId};
use courser_core::stream::{Read, ReadError, StreamEvent, WriteError};
use courser_core::time::Instant;

use crate::failure::{Failure, Outcome};
use crate::transport::{App, Event, Peek, Streams, Wrote};

/// Who is at the other end, for sentences about failures.
#[derive(Clone, Debug)]
pub struct Peer {
    /// As the user wrote it.
    pub name: String,
    /// How long a handshake may take.
    pub patience: Duration,
}

impl Peer {
    /// Why the connection ended.
    #[must_use]
    pub fn failure(&self, reason: &CloseReason) -> Failure {
        Failure::from_close(reason, &self.name, self.patience)
    }
}

/// One connection of an engine, for the length of one call.
pub struct Link<'a> {
    /// The engine.
    pub engine: &'a mut Engine,
    /// The connection.
    pub key: ConnKey,
    /// The present.
    pub now: Instant,
}

/// What a write to the engine means for a program.
fn wrote(result: Result<usize, WriteError>) -> Wrote {
    match result {
        Ok(n) => Wrote::Took(n),
        Err(WriteError::Stopped(code)) => Wrote::Stopped(code),
        Err(WriteError::Misuse(_)) => Wrote::Gone,
    }
}

impl Streams for Link<'_> {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.engine.open_stream(self.key, dir).ok().flatten()
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> Wrote {
        wrote(self.engine.write(self.key, id, data))
    }

    fn write_owned(&mut self, id: StreamId, data: &mut Bytes) -> Wrote {
        wrote(self.engine.write_owned(self.key, id, data))
    }

    fn finish(&mut self, id: StreamId) {
        // A stream that is gone needs no end.
        let _ = self.engine.finish(self.key, id);
    }

    fn peek(&mut self, id: StreamId) -> Peek<'_> {
        if self.engine.peek(self.key, id).is_ok_and(|data| !data.is_empty()) {
            return self.engine.peek(self.key, id).map_or(Peek::Gone, Peek::Data);
        }
        // A read of nothing tells the end from a pause, and takes note that end or reset were told.
        match self.engine.consume(self.key, id, 0) {
            Ok(Read::Finished) => Peek::End,
            Ok(Read::Blocked | Read::Bytes(_)) => Peek::Blocked,
            Err(ReadError::Reset(code)) => Peek::Reset(code),
            Err(ReadError::Stopped | ReadError::Misuse(_)) => Peek::Gone,
        }
    }

    fn consume(&mut self, id: StreamId, n: usize) {
        let _ = self.engine.consume(self.key, id, n);
    }

    fn reset(&mut self, id: StreamId, code: u64) {
        let _ = self.engine.reset(self.key, id, code);
    }

    fn stop(&mut self, id: StreamId, code: u64) {
        let _ = self.engine.stop_sending(self.key, id, code);
    }

    fn close(&mut self, code: u64, reason: &str) {
        let _ = self.engine.close(self.now, self.key, code, reason.as_bytes());
    }
}

/// Tells a program what happened to its connection.
///
/// # Errors
/// What the program says.
pub fn tell<A: App>(link: &mut Link<'_>, event: EngineEvent, app: &mut A, peer: &Peer) -> Outcome {
    let event = match event {
        EngineEvent::Connected => Event::Connected,
        EngineEvent::Closed(reason) => Event::Closed(peer.failure(&reason)),
        EngineEvent::Stream(event) => match event {
            StreamEvent::Opened { dir } => {
                while let Ok(Some(id)) = link.engine.accept_stream(link.key, dir) {
                    app.on(link, Event::Opened(id))?;
                }
                return Ok(());
            }
            StreamEvent::Readable(id) => Event::Readable(id),
            StreamEvent::Writable(id) => Event::Writable(id),
            StreamEvent::Stopped { id, code } => Event::Stopped { id, code },
            StreamEvent::AllAcked(id) => Event::Acked(id),
            StreamEvent::Available { .. } => Event::Credit,
            // No program here resets streams partly, or meters them.
            StreamEvent::ResetDelivered(_) | StreamEvent::Settled { .. } => return Ok(()),
        },
        EngineEvent::DatagramReceived => {
            // No program here has a use for them.
            while let Ok(Some(_)) = link.engine.read_datagram(link.key) {}
            return Ok(());
        }
        _ => return Ok(()),
    };
    app.on(link, event)
}
