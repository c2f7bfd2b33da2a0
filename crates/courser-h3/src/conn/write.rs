//! Sending a message: head, content, trailers, the end.
//!
//! A head, the header of the first DATA frame and short content are one write. The peer's QPACK decoder is told first what the
//! head refers to.

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};
use http::{HeaderMap, StatusCode, header, request, response};

use super::config::Error;
use super::send::Stage;
use super::{Connection, Exchange, Method};
use crate::frame::{Header, kind};
use crate::message::encode::{Outline, RequestLine, response_lines, section_size, trailer_lines};
use crate::priority;
use crate::qpack::Field;
use crate::transport::Transport;
use crate::watch::{Content, Told};
use crate::{webtransport, wide};

/// Content that is copied to stand in one write with its head, in bytes.
const SMALL: usize = 2048;
/// What a peer counts for `:status`.
const STATUS_SIZE: u64 = 7 + 3 + 32;
/// Room for the header of a HEADERS frame: a type of one byte, and a length of up to four.
const ROOM: usize = 5;

impl Connection {
    /// Begins a request; `None` when the peer permits no more streams now (the transport wakes). With `end`, there is no
    /// content. An extended CONNECT has the extension [`crate::Protocol`], and the peer's settings have to permit it.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::Rejected`] when this connection takes no more requests, or no more WebTransport sessions.
    pub fn send_request(
        &mut self,
        t: &mut dyn Transport,
        head: &request::Parts,
        end: bool,
    ) -> Result<Option<StreamId>, Error> {
        self.send_request_with(t, head, &mut Bytes::new(), end)
    }

    /// The same with the first content, which is taken from the front of `body` as far as there is room. With `end`, that is
    /// all of the content: what stays in `body` is sent by [`Self::send_body`] with `end` again.
    ///
    /// # Errors
    /// See [`Self::send_request`].
    pub fn send_request_with(
        &mut self,
        t: &mut dyn Transport,
        head: &request::Parts,
        body: &mut Bytes,
        end: bool,
    ) -> Result<Option<StreamId>, Error> {
        self.alive()?;
        if self.side.is_server() {
            return Err(Error::Misuse("a server makes no requests"));
        }
        //= rfc9114#5.2-3
        if self.is_draining() {
            return Err(Error::Rejected);
        }
        let outline = Outline::of(&head.headers);
        let line = RequestLine::new(head, &outline).map_err(Error::Misuse)?;
        //= rfc9114#7.2.4.2-1, rfc9114#9-4
        if line.is_extended() && !self.permitted().is_some_and(|s| s.connect_protocol) {
            return Err(Error::Misuse("the server does not offer extended CONNECT, or did not say yet"));
        }
        let session = line.is_extended() && webtransport::is_asked_for_by(head);
        if session && !self.may_begin_session() {
            return Err(Error::Rejected);
        }
        let pseudo = section_size(line.pseudo());
        self.fits_peer(pseudo + outline.size(), || line.lines(&head.headers, &outline))?;
        let method = Method::of(&head.method);
        let declared = outline.content_length().map_err(Error::Misuse)?;
        let content_left = if method == Method::Connect { None } else { declared };
        fits_declared(content_left, body, end)?;
        //= rfc9114#4.1-1
        let Some(id) = t.open(Dir::Bi) else { return Ok(None) };
        self.watch.tell(|| Told::StreamType { stream: id, kind: None });
        if let Some(p) = outline.priority.and_then(priority::parse) {
            t.set_priority(id, p);
        }
        let mut exchange = Exchange { method, extended: line.is_extended(), session, ..Exchange::default() };
        exchange.send.content_left = content_left;
        self.exchanges.insert(id, exchange);
        let done = self.send_head(t, id, line.lines(&head.headers, &outline), body, end);
        done.map(|()| Some(id)).map_err(|e| self.settle(t, id, e))
    }

    /// Sends a response's head: informational ones, then a final one. With `end`, there is no content.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn send_response(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
        head: &response::Parts,
        end: bool,
    ) -> Result<(), Error> {
        self.send_response_with(t, id, head, &mut Bytes::new(), end)
    }

    /// The same with the first content, which is taken from the front of `body` as far as there is room. With `end`, that is
    /// all of the content: what stays in `body` is sent by [`Self::send_body`] with `end` again.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn send_response_with(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
        head: &response::Parts,
        body: &mut Bytes,
        end: bool,
    ) -> Result<(), Error> {
        self.alive()?;
        let outline = Outline::of(&head.headers);
        let declared = outline.content_length().map_err(Error::Misuse)?;
        self.fits_peer(STATUS_SIZE + outline.size(), || response_lines(&head.status, &head.headers, &outline))?;
        let x = self.stage(id, Stage::Head)?;
        let informational = head.status.is_informational();
        if head.status == StatusCode::SWITCHING_PROTOCOLS || (informational && (end || !body.is_empty())) {
            return Err(Error::Misuse("an informational response that switches, ends, or has content"));
        }
        let bare = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || x.method == Method::Head;
        x.send.content_left = match (x.method == Method::Connect && head.status.is_success(), bare) {
            (true, _) => None,
            (_, true) => Some(0),
            _ => declared,
        };
        if !informational {
            fits_declared(x.send.content_left, body, end)?;
        }
        let done = self.send_head(t, id, response_lines(&head.status, &head.headers, &outline), body, end);
        if informational && let Some(x) = self.exchanges.get_mut(&id) {
            x.send.stage = if x.send.stage == Stage::Body { Stage::Head } else { x.send.stage };
        }
        done.map_err(|e| self.settle(t, id, e))
    }

    /// Sends content off the front of `data`, as much as there is room for; says how much. Nothing while earlier bytes wait.
    /// With `end`, the message ends when all of `data` was taken.
    ///
    /// # Errors
    /// See [`Error`]. [`Error::Misuse`] when it is more or less than the head declared.
    pub fn send_body(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
        data: &mut Bytes,
        end: bool,
    ) -> Result<usize, Error> {
        self.alive()?;
        self.stage(id, Stage::Body)?;
        let Some(x) = self.exchanges.get_mut(&id) else { return Err(Error::Closed) };
        let mut done = x.send.content(t, id, data, &mut self.watch);
        if end && data.is_empty() {
            done = done.and_then(|taken| x.send.end(t, id).map(|()| taken));
        }
        done.map_err(|e| self.settle(t, id, e))
    }

    /// Sends trailers, and the end.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn send_trailers(&mut self, t: &mut dyn Transport, id: StreamId, trailers: &HeaderMap) -> Result<(), Error> {
        self.alive()?;
        self.fits_peer(Outline::of(trailers).size(), || trailer_lines(trailers))?;
        let x = self.stage(id, Stage::Body)?;
        x.send.check_complete()?;
        if x.method == Method::Connect {
            return Err(Error::Misuse("a tunnel has no trailers"));
        }
        let done = if trailers.is_empty() {
            x.send.end(t, id)
        } else {
            self.send_head(t, id, trailer_lines(trailers), &mut Bytes::new(), true)
        };
        done.map_err(|e| self.settle(t, id, e))
    }

    /// Sends what waits of a message. Whether nothing of it waits any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn flush(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<bool, Error> {
        self.alive()?;
        let Some(x) = self.exchanges.get_mut(&id) else { return Ok(true) };
        let done = x.send.flush(t, id);
        done.map_err(|e| self.settle(t, id, e))
    }

    fn stage(&mut self, id: StreamId, stage: Stage) -> Result<&mut Exchange, Error> {
        match self.exchanges.get_mut(&id) {
            Some(x) if x.send.stage == stage => Ok(x),
            Some(x) if x.send.stage == Stage::Dead => Err(Error::Misuse("sending was given up")),
            Some(_) => Err(Error::Misuse("the message is not at that part")),
            None => Err(Error::Misuse("there is no such message")),
        }
    }

    /// Whether the peer takes a field section of these lines, whose size is at most `most`.
    //= rfc9114#4.2.2-1
    fn fits_peer<'a, L: Iterator<Item = Field<'a>>>(&self, most: u64, lines: impl FnOnce() -> L) -> Result<(), Error> {
        let max = self.permitted().map_or(u64::MAX, |settings| settings.max_field_section_size);
        // What is left out is only counted when it matters.
        if most > max && section_size(lines()) > max {
            return Err(Error::TooLarge);
        }
        Ok(())
    }

    /// Encodes a field section and writes it, with the beginning of the content.
    pub(super) fn send_head<'a>(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
        lines: impl IntoIterator<Item = Field<'a>>,
        body: &mut Bytes,
        end: bool,
    ) -> Result<(), Error> {
        self.scratch.clear();
        self.scratch.resize(ROOM, 0);
        if self.watch.is_on() {
            let fields: Vec<Field<'_>> = lines.into_iter().collect();
            self.encoder.encode(id, fields.iter().copied(), &mut self.scratch);
            let (kind, len) = (kind::HEADERS, wide(self.scratch.len() - ROOM));
            let content = Content::Fields(&fields);
            self.watch.tell(|| Told::Frame { created: true, stream: id, kind, len, content });
        } else {
            self.encoder.encode(id, lines, &mut self.scratch);
        }
        let section = self.scratch.len() - ROOM;
        let (head, n) = Header { kind: kind::HEADERS, len: wide(section) }.encode();
        let Some(room) = self.scratch.get_mut(..ROOM).and_then(|room| room.last_chunk_mut::<ROOM>()) else {
            return Err(Error::Misuse("a head without room"));
        };
        let begin = ROOM.checked_sub(n).ok_or(Error::Misuse("a head of more than a gigabyte"))?;
        room[begin..].copy_from_slice(&head[..n]);
        let Some(x) = self.exchanges.get_mut(&id) else { return Err(Error::Closed) };
        x.send.stage = Stage::Body;
        if !body.is_empty() {
            let header = x.send.open_frame(body.len())?;
            self.watch.frame(true, id, header.kind, header.len);
            let (head, n) = header.encode();
            self.scratch.extend_from_slice(&head[..n]);
            if body.len() <= SMALL {
                self.scratch.extend_from_slice(body);
                x.send.wrote(body.len());
                body.clear();
            }
        }
        // Before the head, so that it need not wait for them.
        self.encoder_stream.pump_with(t, self.encoder.instructions())?;
        x.send.push(t, id, self.scratch.get(begin..).unwrap_or_default())?;
        if !body.is_empty() {
            x.send.content(t, id, body, &mut self.watch)?;
        }
        //= rfc9114#4.1-6, rfc9114#4.1-8
        if end && body.is_empty() {
            x.send.end(t, id)?;
        }
        Ok(())
    }

    /// Answers a request whose head is too large (RFC 9114 section 4.2.2), and reads no more of it.
    pub(super) fn refuse_large(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("0"));
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.send_head(t, id, response_lines(&status, &headers, &Outline::default()), &mut Bytes::new(), true)?;
        self.stop_body(t, id, crate::Code::NO_ERROR);
        Ok(())
    }
}

/// Whether content fits to the declared length, before anything is sent.
fn fits_declared(declared: Option<u64>, body: &Bytes, end: bool) -> Result<(), Error> {
    let len = wide(body.len());
    match declared {
        Some(declared) if len > declared => Err(Error::Misuse("more content than was declared")),
        Some(declared) if end && len < declared => Err(Error::Misuse("less content than was declared")),
        _ => Ok(()),
    }
}
