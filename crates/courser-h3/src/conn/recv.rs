//! The receiving half of a request stream: frames in the order that messages have (RFC 9114 section 4.1).
//!
//! One deframer serves every question: whether there is a head, content, trailers or the end. At most one piece of what the
//! transport gave is held, and a HEADERS frame as far as it came, up to a limit; content is handed on in slices of the piece.

use bytes::Bytes;
use courser_core::ids::{Side, StreamId};

use super::budget::Budget;
use super::config::Error;
use crate::error::Code;
use crate::frame::{FrameReader, Header, Kind, kind};
use crate::transport::{Read, Transport};
use crate::watch::{Told, Watcher};
use crate::webtransport::is_session_id;
use crate::wide;

/// Which part of a message comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// A head: of a request, or of an informational or final response.
    #[default]
    Head,
    /// Content, then perhaps trailers.
    Body,
    /// Nothing but the end.
    Tail,
    /// The stream ended, was reset, or is not read any more.
    Over,
}

/// The next thing in a stream.
#[derive(Debug)]
pub(super) enum Item {
    /// A complete encoded field section: head or trailers, by phase.
    Section(Bytes),
    /// A field section that is longer than the limit; it was not read.
    Oversized,
    /// Content.
    Data(Bytes),
    /// The end, where it may be.
    End,
    /// Nothing yet.
    Blocked,
    /// The rest of the stream belongs to that session.
    WebTransport(StreamId),
}

/// What does not change from call to call.
pub(super) struct Rules<'a> {
    pub(super) side: Side,
    /// The longest encoded field section.
    pub(super) section_max: u64,
    /// Whether streams may begin with the signal of WebTransport.
    pub(super) webtransport: bool,
    /// What frames without effect cost.
    pub(super) noise: &'a mut Budget,
    /// Who is told of frames.
    pub(super) watch: &'a mut Watcher,
}

/// The receiving half.
#[derive(Debug, Default)]
pub(super) struct Recv {
    frames: FrameReader,
    /// What the transport gave and is not used up.
    pub(super) piece: Bytes,
    pub(super) phase: Phase,
    /// A HEADERS frame that did not come in one piece, as far as it came.
    section: Vec<u8>,
    /// A field section that waits for the QPACK table.
    pub(super) waiting: Option<Bytes>,
    /// The transport said that the stream ended.
    ended: bool,
    /// Some frame came: what follows cannot be the signal of WebTransport any more.
    begun: bool,
    /// Only DATA may follow a head: CONNECT (RFC 9114 section 4.4).
    pub(super) tunnel: bool,
    /// Bytes of content that the head promised.
    pub(super) expected: Option<u64>,
    got: u64,
}

/// Tells of a frame by its header; of field sections when they were decoded.
fn tell(rules: &mut Rules<'_>, stream: StreamId, header: Header, (first, webtransport): (bool, bool)) {
    if first && stream.initiator() != rules.side {
        rules.watch.tell(|| Told::StreamType { stream, kind: webtransport.then_some(header.kind) });
    }
    if header.kind != kind::HEADERS && !webtransport {
        rules.watch.frame(false, stream, header.kind, header.len);
    }
}

/// Ends the connection: that frame may not stand there.
fn unexpected(reason: &'static str) -> Error {
    Error::connection(Code::FRAME_UNEXPECTED, reason)
}

impl Recv {
    /// Nothing is read any more, and nothing of what came is kept: the exchange may stay for long, with an answer that waits for
    /// room.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Over;
        (self.piece, self.section, self.waiting) = (Bytes::new(), Vec::new(), None);
    }

    /// The next thing in the stream.
    pub(super) fn next(&mut self, t: &mut dyn Transport, id: StreamId, rules: &mut Rules<'_>) -> Result<Item, Error> {
        loop {
            if self.phase == Phase::Over {
                return Ok(Item::End);
            }
            if self.frames.open().is_none() {
                if self.piece.is_empty() && !self.fill(t, id)? {
                    return if self.ended { self.end(rules.side) } else { Ok(Item::Blocked) };
                }
                let Some(header) = self.frames.header(&mut self.piece) else { continue };
                let first = !self.begun;
                let session = self.begin(header, rules)?;
                if rules.watch.is_on() {
                    tell(rules, id, header, (first, session.is_some()));
                }
                if let Some(session) = session {
                    return Ok(Item::WebTransport(session));
                }
                if header.kind == kind::HEADERS && header.len > rules.section_max {
                    return Ok(Item::Oversized);
                }
            }
            let Some(open) = self.frames.open() else { continue };
            if open.len > 0 && self.piece.is_empty() && !self.fill(t, id)? {
                return if self.ended { self.end(rules.side) } else { Ok(Item::Blocked) };
            }
            if let Some(item) = self.payload(open)? {
                return Ok(item);
            }
        }
    }

    /// A part of the open frame's payload, when somebody wants it.
    fn payload(&mut self, open: Header) -> Result<Option<Item>, Error> {
        let part = self.frames.payload(&mut self.piece);
        match open.kind {
            kind::DATA => {
                self.got += wide(part.len());
                //= rfc9114#4.1.2-2
                if self.expected.is_some_and(|expected| self.got > expected) {
                    return Err(Error::malformed("more content than was declared"));
                }
                Ok((!part.is_empty()).then_some(Item::Data(part)))
            }
            kind::HEADERS if self.frames.open().is_some() => {
                self.section.extend_from_slice(&part);
                Ok(None)
            }
            kind::HEADERS if self.section.is_empty() => Ok(Some(Item::Section(part))),
            kind::HEADERS => {
                self.section.extend_from_slice(&part);
                Ok(Some(Item::Section(Bytes::from(std::mem::take(&mut self.section)))))
            }
            _ => Ok(None),
        }
    }

    /// Judges a frame by its header. The session, when the stream is one of WebTransport.
    fn begin(&mut self, header: Header, rules: &mut Rules<'_>) -> Result<Option<StreamId>, Error> {
        let first = !std::mem::replace(&mut self.begun, true);
        let mut quiet = header.kind == kind::DATA && header.len == 0;
        match (Kind::of(header.kind), self.phase) {
            (Kind::Data, Phase::Body) | (Kind::Headers, Phase::Head) => {}
            //= rfc9114#4.4-2
            (Kind::Headers, Phase::Body) if self.tunnel => return Err(unexpected("HEADERS in a tunnel")),
            (Kind::Headers, Phase::Body) => {}
            //= rfc9114#4.1-3
            (Kind::Data, _) => return Err(unexpected("DATA outside of a message")),
            (Kind::Headers, _) => return Err(unexpected("HEADERS behind trailers")),
            //= rfc9114#7.2.5-10
            (Kind::PushPromise, _) if rules.side.is_server() => return Err(unexpected("PUSH_PROMISE from a client")),
            //= rfc9114#7.2.5-2
            (Kind::PushPromise, _) => return Err(Error::connection(Code::ID_ERROR, "a push that was not permitted")),
            //= rfc9114#7.2.3-6, rfc9114#7.2.4-4, rfc9114#7.2.6-2, rfc9114#7.2.7-1, rfc9218#7.2-2
            (Kind::Control, _) => return Err(unexpected("a frame of the control stream on another")),
            //= rfc9114#7.2.8-2
            (Kind::Forbidden, _) => return Err(unexpected("a frame type of HTTP/2")),
            (Kind::WebTransport, _) if rules.webtransport => {
                if !first {
                    return Err(Error::connection(Code::FRAME_ERROR, "WT_STREAM inside of a stream"));
                }
                if !is_session_id(header.len) {
                    return Err(Error::connection(Code::ID_ERROR, "a WebTransport session that cannot be"));
                }
                return Ok(Some(StreamId(header.len)));
            }
            //= rfc9114#7.2.8-1, rfc9114#9-1
            (Kind::WebTransport | Kind::Unknown, _) => quiet = true,
        }
        //= rfc9114#10.5-2
        if quiet && !rules.noise.spend() {
            return Err(Error::connection(Code::EXCESSIVE_LOAD, "too many frames without effect"));
        }
        Ok(None)
    }

    /// Takes the next piece from the transport; `false` when there is none.
    fn fill(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<bool, Error> {
        if self.ended {
            return Ok(false);
        }
        match t.read(id) {
            Read::Data(piece) => {
                self.piece = piece;
                Ok(true)
            }
            Read::Blocked => Ok(false),
            Read::End => {
                self.ended = true;
                Ok(false)
            }
            Read::Reset(code) => {
                self.phase = Phase::Over;
                Err(Error::Reset(code))
            }
            Read::Closed => Err(Error::Closed),
        }
    }

    /// While a section waits for the table: notices a reset, and takes the next piece in.
    pub(super) fn look(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<(), Error> {
        if self.piece.is_empty() {
            self.fill(t, id)?;
        }
        Ok(())
    }

    /// The transport said that the stream ended.
    fn end(&mut self, side: Side) -> Result<Item, Error> {
        //= rfc9114#7.1-4
        if !self.frames.is_between_frames() {
            return Err(Error::connection(Code::FRAME_ERROR, "a stream that ends inside a frame"));
        }
        match self.phase {
            //= rfc9114#4.1-10
            Phase::Head if side.is_server() => {
                Err(Error::stream(Code::REQUEST_INCOMPLETE, "a stream that ends before its request"))
            }
            Phase::Head => Err(Error::malformed("a stream that ends before its response")),
            _ => {
                self.check_length()?;
                self.phase = Phase::Over;
                Ok(Item::End)
            }
        }
    }

    /// At the end of the content: it is as long as was declared.
    pub(super) fn check_length(&self) -> Result<(), Error> {
        if self.expected.is_some_and(|expected| expected != self.got) {
            return Err(Error::malformed("less content than was declared"));
        }
        Ok(())
    }

    /// Whether everything that will come was handed on, as far as is known without asking the transport.
    pub(super) fn is_over(&self) -> bool {
        let between = self.frames.is_between_frames() && self.waiting.is_none();
        self.phase == Phase::Over || (self.ended && self.piece.is_empty() && between)
    }
}
