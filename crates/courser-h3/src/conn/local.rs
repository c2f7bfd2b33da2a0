//! Our one-way streams: control, QPACK encoder, QPACK decoder. One of each, opened first and never closed.

use courser_core::ids::{Dir, StreamId};
use courser_core::stream::Priority;

use crate::error::{Code, ConnectionError};
use crate::frame::push_varint;
use crate::transport::{Transport, WriteError};

/// What waits on the control stream at most, in bytes; changes of priority beyond are dropped.
pub(super) const CONTROL_MAX: usize = 16 * 1024;

/// One of our streams.
//= rfc9204#4.2-1, rfc9204#4.2-3
#[derive(Debug)]
pub(super) struct Local {
    kind: u64,
    id: Option<StreamId>,
    /// Bytes that the transport had no room for; the stream type when it was not opened yet.
    pub(super) unsent: Vec<u8>,
}

impl Local {
    pub(super) fn new(kind: u64) -> Self {
        let mut unsent = Vec::new();
        push_varint(&mut unsent, kind);
        Self { kind, id: None, unsent }
    }

    /// Whether the stream is open and nothing waits on it.
    pub(super) fn is_idle(&self) -> bool {
        self.id.is_some() && self.unsent.is_empty()
    }

    /// The stream, once it is open.
    pub(super) const fn id(&self) -> Option<StreamId> {
        self.id
    }

    /// Opens the stream when it can be, and writes what waits.
    pub(super) fn pump(&mut self, t: &mut dyn Transport) -> Result<(), ConnectionError> {
        let mut unsent = std::mem::take(&mut self.unsent);
        let done = self.pump_bytes(t, &mut unsent);
        self.unsent = unsent;
        done
    }

    /// The same, then those of `more` that there is room for; they are taken off its front.
    pub(super) fn pump_with(&mut self, t: &mut dyn Transport, more: &mut Vec<u8>) -> Result<(), ConnectionError> {
        if !self.is_idle() {
            self.pump(t)?;
        }
        if !more.is_empty() && self.is_idle() {
            self.pump_bytes(t, more)?;
        }
        Ok(())
    }

    fn pump_bytes(&mut self, t: &mut dyn Transport, bytes: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let id = match self.id {
            Some(id) => id,
            None => {
                let Some(id) = t.open(Dir::Uni) else { return Ok(()) };
                // What these say makes other streams understandable.
                t.set_priority(id, Priority { urgency: 0, incremental: true });
                *self.id.insert(id)
            }
        };
        if bytes.is_empty() {
            return Ok(());
        }
        match t.write_copy(id, bytes) {
            Ok(taken) if taken >= bytes.len() => bytes.clear(),
            Ok(taken) => drop(bytes.drain(..taken)),
            // Whoever calls will notice the end of the connection elsewhere.
            Err(WriteError::Closed) => {}
            //= rfc9114#6.2.1-5
            Err(WriteError::Stopped(_) | WriteError::Finished) => {
                let which =
                    if self.kind == 0 { "our control stream was closed" } else { "our QPACK stream was closed" };
                return Err(ConnectionError::new(Code::CLOSED_CRITICAL_STREAM, which));
            }
        }
        Ok(())
    }
}
