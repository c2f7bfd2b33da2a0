//! The peer's one-way streams, and the frames of its control stream (RFC 9114 sections 6.2 and 7.2).
//!
//! A stream is nothing until its type came; how many may be in that state, the transport's limit of streams says. Of each kind
//! that has to stay there is one. Payloads on the control stream are gathered, each type up to a limit of its own.

use bytes::Bytes;
use courser_core::ids::{Dir, Side, StreamId};
use courser_core::wire::{Reader, varint};
use rustc_hash::FxHashMap;

use super::Connection;
use super::config::Uni;
use crate::error::{Code, ConnectionError};
use crate::frame::{FrameReader, Header, Kind, Partial, kind, stream_type};
use crate::settings::{self, Settings};
use crate::transport::{Read, Transport};
use crate::watch::{Content, Told};
use crate::webtransport::is_session_id;
use crate::{priority, wide};

/// The longest value of a PRIORITY_UPDATE that is read, in bytes.
const PRIORITY_MAX: usize = 256;

/// The peer's one-way streams.
#[derive(Debug, Default)]
pub(super) struct Peer {
    control: Option<StreamId>,
    encoder: Option<StreamId>,
    decoder: Option<StreamId>,
    /// Streams whose type came in part, and that part.
    undecided: FxHashMap<StreamId, Partial>,
    frames: FrameReader,
    /// The payload of a frame on the control stream, as far as it came.
    payload: Vec<u8>,
    /// What the peer permits; absent until its SETTINGS came.
    pub(super) settings: Option<Settings>,
    max_push_id: Option<u64>,
}

fn fault(code: Code, reason: &'static str) -> ConnectionError {
    ConnectionError::new(code, reason)
}

impl Connection {
    /// A one-way stream of the peer has something to read, or is new: reads as far as there is something.
    ///
    /// # Errors
    /// The connection broke, and was closed.
    pub fn on_uni(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Uni, ConnectionError> {
        self.alive()?;
        debug_assert!(id.dir() == Dir::Uni && id.initiator() != self.side, "a one-way stream of the peer");
        let done = self.read_uni(t, id);
        // What the peer says on its QPACK streams may want an answer.
        done.and_then(|uni| self.pump_streams(t).map(|()| uni)).map_err(|e| self.fail(t, e))
    }

    fn read_uni(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Uni, ConnectionError> {
        if self.peer.control == Some(id) || self.peer.encoder == Some(id) || self.peer.decoder == Some(id) {
            return self.read_critical(t, id, Bytes::new());
        }
        let webtransport = self.config.webtransport_sessions > 0;
        let mut partial = self.peer.undecided.remove(&id).unwrap_or_default();
        loop {
            let mut piece = match t.read(id) {
                Read::Data(piece) => piece,
                Read::Blocked => {
                    self.peer.undecided.insert(id, partial);
                    return Ok(Uni::Kept);
                }
                //= rfc9114#6.2-9
                Read::End | Read::Reset(_) | Read::Closed => return Ok(Uni::Done),
            };
            //= rfc9114#6.2-7
            let kind = partial.parse(&mut piece, |r| {
                let kind = r.varint()?;
                let session = if webtransport && kind == stream_type::WEBTRANSPORT { Some(r.varint()?) } else { None };
                Some((kind, session))
            });
            if let Some((kind, session)) = kind {
                return self.begin_uni(t, id, kind, session, piece);
            }
        }
    }

    fn begin_uni(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
        kind: u64,
        session: Option<u64>,
        piece: Bytes,
    ) -> Result<Uni, ConnectionError> {
        self.watch.tell(|| Told::StreamType { stream: id, kind: Some(kind) });
        if let Some(session) = session {
            if !is_session_id(session) {
                return Err(fault(Code::ID_ERROR, "a WebTransport session that cannot be"));
            }
            self.keep_rest(id, piece);
            return Ok(Uni::WebTransport { session: StreamId(session) });
        }
        let slot = match kind {
            stream_type::CONTROL => &mut self.peer.control,
            stream_type::QPACK_ENCODER => &mut self.peer.encoder,
            stream_type::QPACK_DECODER => &mut self.peer.decoder,
            //= rfc9114#6.2.2-1
            stream_type::PUSH if self.side.is_server() => {
                return Err(fault(Code::STREAM_CREATION_ERROR, "a push stream from a client"));
            }
            //= rfc9114#4.6-2
            stream_type::PUSH => return Err(fault(Code::ID_ERROR, "a push stream that was not permitted")),
            //= rfc9114#6.2-4, rfc9114#6.2-5, rfc9114#6.2-6, rfc9114#6.2.3-1, rfc9114#9-2
            _ => {
                if !self.noise.spend() {
                    return Err(fault(Code::EXCESSIVE_LOAD, "too many streams of unknown types"));
                }
                t.stop(id, Code::STREAM_CREATION_ERROR.0);
                return Ok(Uni::Done);
            }
        };
        //= rfc9114#6.2.1-3, rfc9204#4.2-2, rfc9204#4.2-5
        if slot.replace(id).is_some() {
            return Err(fault(Code::STREAM_CREATION_ERROR, "a second stream of a kind that comes once"));
        }
        self.read_critical(t, id, piece)
    }

    /// Reads a stream that has to stay, beginning with `piece`.
    fn read_critical(&mut self, t: &mut dyn Transport, id: StreamId, piece: Bytes) -> Result<Uni, ConnectionError> {
        let mut next = Read::Data(piece);
        loop {
            match next {
                Read::Data(mut piece) if self.peer.control == Some(id) => self.read_control(t, &mut piece)?,
                Read::Data(piece) if piece.is_empty() => {}
                Read::Data(piece) if self.peer.encoder == Some(id) => self.decoder.on_encoder_stream(&piece)?,
                Read::Data(piece) => {
                    self.encoder.on_decoder_stream(&piece)?;
                    if !(0..self.encoder.take_cancellations()).all(|_| self.noise.spend()) {
                        return Err(fault(Code::EXCESSIVE_LOAD, "too many cancelled streams in QPACK"));
                    }
                }
                Read::Blocked => return Ok(Uni::Kept),
                //= rfc9114#6.2.1-5, rfc9204#4.2-4
                Read::End | Read::Reset(_) => {
                    return Err(fault(Code::CLOSED_CRITICAL_STREAM, "a stream that has to stay was closed"));
                }
                Read::Closed => return Ok(Uni::Done),
            }
            next = t.read(id);
        }
    }

    fn read_control(&mut self, t: &mut dyn Transport, piece: &mut Bytes) -> Result<(), ConnectionError> {
        loop {
            if self.peer.frames.open().is_none() {
                let Some(header) = self.peer.frames.header(piece) else { return Ok(()) };
                self.judge_control(header)?;
                if Kind::of(header.kind) != Kind::Control
                    && let Some(stream) = self.peer.control
                {
                    self.watch.frame(false, stream, header.kind, header.len);
                }
                self.peer.payload.clear();
            }
            let Some(open) = self.peer.frames.open() else { continue };
            let part = self.peer.frames.payload(piece);
            let wanted = Kind::of(open.kind) == Kind::Control;
            if wanted && self.peer.frames.open().is_none() && self.peer.payload.is_empty() {
                self.control_frame(t, open.kind, &part)?;
                continue;
            }
            if wanted {
                self.peer.payload.extend_from_slice(&part);
            }
            if self.peer.frames.open().is_some() {
                return Ok(());
            }
            if wanted {
                let payload = std::mem::take(&mut self.peer.payload);
                let done = self.control_frame(t, open.kind, &payload);
                self.peer.payload = payload;
                done?;
            }
        }
    }

    /// Judges a frame of the control stream by its header.
    fn judge_control(&mut self, header: Header) -> Result<(), ConnectionError> {
        let unexpected = |reason| Err(fault(Code::FRAME_UNEXPECTED, reason));
        //= rfc9114#6.2.1-2, rfc9114#9-3
        if self.peer.settings.is_none() && header.kind != kind::SETTINGS {
            return Err(fault(Code::MISSING_SETTINGS, "a control stream that does not begin with SETTINGS"));
        }
        let max = match (Kind::of(header.kind), header.kind) {
            //= rfc9114#7.2.4-2
            (_, kind::SETTINGS) if self.peer.settings.is_some() => return unexpected("SETTINGS for the second time"),
            (_, kind::SETTINGS) => settings::PAYLOAD_MAX,
            //= rfc9218#7.2-10, rfc9218#7.2-9
            (_, kind::PRIORITY_UPDATE | kind::PRIORITY_UPDATE_PUSH) if self.side.is_client() => {
                return unexpected("PRIORITY_UPDATE from a server");
            }
            (_, kind::PRIORITY_UPDATE | kind::PRIORITY_UPDATE_PUSH) => varint::SIZE_MAX + PRIORITY_MAX,
            //= rfc9114#7.2.7-3
            (_, kind::MAX_PUSH_ID) if self.side.is_client() => return unexpected("MAX_PUSH_ID from a server"),
            (Kind::Control, _) if header.len > wide(varint::SIZE_MAX) => {
                return Err(fault(Code::FRAME_ERROR, "a frame with more than its number"));
            }
            (Kind::Control, _) => varint::SIZE_MAX,
            //= rfc9114#7.2.1-2, rfc9114#7.2.2-1, rfc9114#7.2.5-8
            (Kind::Data | Kind::Headers | Kind::PushPromise, _) => {
                return unexpected("a frame of a message on the control stream");
            }
            //= rfc9114#7.2.8-2
            (Kind::Forbidden, _) => return unexpected("a frame type of HTTP/2"),
            (Kind::WebTransport, _) if self.config.webtransport_sessions > 0 => {
                return Err(fault(Code::FRAME_ERROR, "WT_STREAM on the control stream"));
            }
            (Kind::WebTransport | Kind::Unknown, _) => usize::MAX,
        };
        if header.len > wide(max) || (header.kind != kind::SETTINGS && !self.noise.spend()) {
            return Err(fault(Code::EXCESSIVE_LOAD, "control frames that are too large or too many"));
        }
        Ok(())
    }

    /// Tells of a frame of the peer's control stream.
    fn tell_control(&mut self, kind: u64, payload: &[u8], content: Content<'_>) {
        let Some(stream) = self.peer.control else { return };
        self.watch.tell(|| Told::Frame { created: false, stream, kind, len: wide(payload.len()), content });
    }

    fn control_frame(&mut self, t: &mut dyn Transport, kind: u64, payload: &[u8]) -> Result<(), ConnectionError> {
        match kind {
            kind::SETTINGS => {
                let settings = Settings::decode(payload)?;
                self.tell_control(kind, payload, Content::Settings(&settings));
                self.watch.tell(|| Told::Parameters { local: false, settings: &settings });
                self.on_settings(settings, payload)
            }
            kind::GOAWAY => {
                let id = only_number(payload)?;
                self.tell_control(kind, payload, Content::Number(id));
                self.on_goaway(id)
            }
            kind::MAX_PUSH_ID => {
                let id = only_number(payload)?;
                self.tell_control(kind, payload, Content::Number(id));
                //= rfc9114#7.2.7-4
                if self.peer.max_push_id.is_some_and(|before| id < before) {
                    return Err(fault(Code::ID_ERROR, "a maximum of pushes that shrinks"));
                }
                self.peer.max_push_id = Some(id);
                Ok(())
            }
            //= rfc9114#7.2.3-7, rfc9114#7.2.3-8
            kind::CANCEL_PUSH => {
                only_number(payload)?;
                Err(fault(Code::ID_ERROR, "a push that was never promised"))
            }
            _ => {
                let mut r = Reader::new(payload);
                let id = r.varint().ok_or_else(|| fault(Code::FRAME_ERROR, "PRIORITY_UPDATE without a stream"))?;
                //= rfc9218#7.2-4, rfc9218#7.2-8
                let of_client = StreamId(id).dir() == Dir::Bi && StreamId(id).initiator() == Side::Client;
                if kind == kind::PRIORITY_UPDATE_PUSH || !of_client {
                    return Err(fault(Code::ID_ERROR, "a priority of what is no request"));
                }
                if let Some(priority) = priority::parse(r.rest()) {
                    self.tell_control(kind, payload, Content::Priority(StreamId(id), priority));
                    self.reprioritise(t, StreamId(id), priority);
                }
                Ok(())
            }
        }
    }

    fn on_goaway(&mut self, id: u64) -> Result<(), ConnectionError> {
        //= rfc9114#7.2.6-1
        let stream = StreamId(id);
        if self.side.is_client() && (stream.dir() != Dir::Bi || stream.initiator() != Side::Client) {
            return Err(fault(Code::ID_ERROR, "GOAWAY with what is no request"));
        }
        //= rfc9114#5.2-6
        if self.goaway_received.is_some_and(|before| id > before) {
            return Err(fault(Code::ID_ERROR, "GOAWAY with a larger number than before"));
        }
        self.goaway_received = Some(id);
        self.events.goaway = Some(stream);
        Ok(())
    }
}

/// A payload that is one number and nothing else.
//= rfc9114#7.1-2, rfc9114#10.8-1
fn only_number(payload: &[u8]) -> Result<u64, ConnectionError> {
    match varint::decode(payload) {
        Some((number, used)) if used == payload.len() => Ok(number),
        _ => Err(fault(Code::FRAME_ERROR, "a frame with more or less than its number")),
    }
}
