//! Bytes to frames, total and without copies.

use crate::config::TransportParams;
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Cid, Dir, Level, ResetToken, StreamId, VARINT_MAX};
use crate::wire::codec::{Reader, wide};
use crate::wire::frame::ack::{self, AckError};
use crate::wire::frame::{Frame, STREAMS_MAX, check_permitted, types};
use crate::wire::varint;

/// What we agreed to beyond RFC 9000, from the transport parameters that *we* sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The largest DATAGRAM frame that we take, type and length included; 0: none.
    pub max_datagram_frame: u64,
    /// The smallest ACK delay that we can keep, in microseconds; `None`: ACK_FREQUENCY and IMMEDIATE_ACK are unknown.
    pub min_ack_delay_us: Option<u64>,
    /// Whether RESET_STREAM_AT is known.
    pub reset_stream_at: bool,
}

impl Extensions {
    /// Nothing beyond RFC 9000.
    pub const NONE: Self = Self { max_datagram_frame: 0, min_ack_delay_us: None, reset_stream_at: false };
    /// Everything that this module can read.
    pub const ALL: Self = Self { max_datagram_frame: u64::MAX, min_ack_delay_us: Some(0), reset_stream_at: true };

    /// What a peer may use that got these parameters from us.
    #[must_use]
    pub const fn of(ours: &TransportParams) -> Self {
        Self {
            max_datagram_frame: ours.max_datagram_frame,
            min_ack_delay_us: ours.min_ack_delay_us,
            reset_stream_at: ours.reset_stream_at,
        }
    }
}

/// ACK_FREQUENCY may not ask for this delay or more, in microseconds: 2^14 ms.
const ACK_DELAY_LIMIT_US: u64 = (1 << 14) * 1000;

const fn malformed(reason: &'static str, section: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::FRAME_ENCODING_ERROR, reason, section)
}

const fn forbidden(reason: &'static str, section: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, section)
}

const TRUNCATED: PeerViolation = malformed("a frame ends too early", "rfc9000#12.4");

/// Reads one frame. A run of PADDING is one frame. The caller checks before whether anything is left.
///
/// # Errors
/// The violation, blamed on the frame's type. The reader's position has no meaning then.
#[inline]
pub fn parse<'a>(r: &mut Reader<'a>, ext: Extensions) -> Result<Frame<'a>, PeerViolation> {
    let start = r.remaining();
    let kind = frame_type(r)?;
    body(r, kind, start, ext).map_err(|v| v.in_frame(kind))
}

/// The frame's type, which has to be in its shortest form.
#[inline]
fn frame_type(r: &mut Reader<'_>) -> Result<u64, PeerViolation> {
    let start = r.position();
    let kind = r.varint().ok_or(TRUNCATED)?;
    if varint::size(kind) != r.position() - start {
        //= rfc9000#12.4-5
        return Err(forbidden("a frame type is longer than necessary", "rfc9000#12.4").in_frame(kind));
    }
    Ok(kind)
}

/// What is behind the type. `start` is what remained in front of the type.
fn body<'a>(r: &mut Reader<'a>, kind: u64, start: usize, ext: Extensions) -> Result<Frame<'a>, PeerViolation> {
    match kind {
        types::STREAM..=types::STREAM_LAST => stream(r, kind),
        types::PADDING => Ok(Frame::Padding(1 + r.skip_run(0))),
        types::PING => Ok(Frame::Ping),
        types::ACK | types::ACK_ECN => match ack::parse(r, kind == types::ACK_ECN) {
            Ok(ack) => Ok(Frame::Ack(ack)),
            Err(AckError::Truncated) => Err(TRUNCATED),
            //= rfc9000#19.3.1-1
            Err(AckError::Negative) => Err(malformed("an ACK names a negative packet number", "rfc9000#19.3.1")),
        },
        types::CRYPTO => crypto(r),
        types::DATAGRAM | types::DATAGRAM_WITH_LENGTH => datagram(r, kind, start, ext),
        types::NEW_CONNECTION_ID => new_connection_id(r),
        types::NEW_TOKEN => match r.prefixed().ok_or(TRUNCATED)? {
            //= rfc9000#19.7-2
            [] => Err(malformed("a NEW_TOKEN frame has no token", "rfc9000#19.7")),
            token => Ok(Frame::NewToken { token }),
        },
        types::MAX_STREAMS_BIDI => Ok(Frame::MaxStreams { dir: Dir::Bi, max: streams(r, "rfc9000#19.11")? }),
        types::MAX_STREAMS_UNI => Ok(Frame::MaxStreams { dir: Dir::Uni, max: streams(r, "rfc9000#19.11")? }),
        types::STREAMS_BLOCKED_BIDI => Ok(Frame::StreamsBlocked { dir: Dir::Bi, limit: streams(r, "rfc9000#19.14")? }),
        types::STREAMS_BLOCKED_UNI => Ok(Frame::StreamsBlocked { dir: Dir::Uni, limit: streams(r, "rfc9000#19.14")? }),
        types::IMMEDIATE_ACK if ext.min_ack_delay_us.is_some() => Ok(Frame::ImmediateAck),
        types::ACK_FREQUENCY if ext.min_ack_delay_us.is_some() => ack_frequency(r, ext),
        types::RESET_STREAM_AT if ext.reset_stream_at => reset_stream_at(r),
        types::HANDSHAKE_DONE => Ok(Frame::HandshakeDone),
        types::RESET_STREAM..=types::APPLICATION_CLOSE => plain(r, kind).ok_or(TRUNCATED),
        //= rfc9000#12.4-4
        _ => Err(malformed("a frame has an unknown type", "rfc9000#12.4")),
    }
}

/// Frames in which every value is allowed; `None` when one ends too early.
fn plain<'a>(r: &mut Reader<'a>, kind: u64) -> Option<Frame<'a>> {
    Some(match kind {
        types::RESET_STREAM => Frame::ResetStream { id: id(r)?, code: r.varint()?, final_size: r.varint()? },
        types::STOP_SENDING => Frame::StopSending { id: id(r)?, code: r.varint()? },
        types::MAX_DATA => Frame::MaxData { max: r.varint()? },
        types::MAX_STREAM_DATA => Frame::MaxStreamData { id: id(r)?, max: r.varint()? },
        types::DATA_BLOCKED => Frame::DataBlocked { limit: r.varint()? },
        types::STREAM_DATA_BLOCKED => Frame::StreamDataBlocked { id: id(r)?, limit: r.varint()? },
        types::RETIRE_CONNECTION_ID => Frame::RetireConnectionId { sequence: r.varint()? },
        types::PATH_CHALLENGE => Frame::PathChallenge(r.array()?),
        types::PATH_RESPONSE => Frame::PathResponse(r.array()?),
        types::CONNECTION_CLOSE => {
            Frame::ConnectionClose { code: TransportCode(r.varint()?), frame_type: r.varint()?, reason: r.prefixed()? }
        }
        types::APPLICATION_CLOSE => Frame::ApplicationClose { code: r.varint()?, reason: r.prefixed()? },
        _ => return None,
    })
}

fn id(r: &mut Reader<'_>) -> Option<StreamId> {
    r.varint().map(StreamId)
}

#[inline]
fn stream<'a>(r: &mut Reader<'a>, kind: u64) -> Result<Frame<'a>, PeerViolation> {
    let length_present = kind & types::LEN_BIT != 0;
    let stream_id = id(r).ok_or(TRUNCATED)?;
    let offset = if kind & types::OFF_BIT != 0 { r.varint().ok_or(TRUNCATED)? } else { 0 };
    let data = if length_present { r.prefixed().ok_or(TRUNCATED)? } else { r.rest() };
    if !within(offset, data) {
        //= rfc9000#19.8-2
        return Err(malformed("a STREAM frame reaches beyond 2^62 - 1", "rfc9000#19.8"));
    }
    Ok(Frame::Stream { id: stream_id, offset, data, fin: kind & types::FIN_BIT != 0, length_present })
}

fn crypto<'a>(r: &mut Reader<'a>) -> Result<Frame<'a>, PeerViolation> {
    let (offset, data) = r.varint().and_then(|offset| Some((offset, r.prefixed()?))).ok_or(TRUNCATED)?;
    if !within(offset, data) {
        //= rfc9000#19.6-1
        return Err(malformed("a CRYPTO frame reaches beyond 2^62 - 1", "rfc9000#19.6"));
    }
    Ok(Frame::Crypto { offset, data })
}

/// Whether data at that offset ends where offsets end.
#[inline]
fn within(offset: u64, data: &[u8]) -> bool {
    offset.checked_add(wide(data.len())).is_some_and(|end| end <= VARINT_MAX)
}

/// A number of streams, which is at most 2^60.
fn streams(r: &mut Reader<'_>, section: &'static str) -> Result<u64, PeerViolation> {
    let limit = r.varint().ok_or(TRUNCATED)?;
    if limit > STREAMS_MAX {
        //= rfc9000#4.6-1, rfc9000#19.11-1, rfc9000#19.14-2
        return Err(malformed("a limit of streams is more than 2^60", section));
    }
    Ok(limit)
}

fn new_connection_id<'a>(r: &mut Reader<'a>) -> Result<Frame<'a>, PeerViolation> {
    let (sequence, retire_prior_to) = r.varint().zip(r.varint()).ok_or(TRUNCATED)?;
    let len = usize::from(r.u8().ok_or(TRUNCATED)?);
    if len == 0 || len > crate::ids::CID_LEN_MAX {
        //= rfc9000#19.15-1
        return Err(malformed("a new connection ID does not have 1 to 20 bytes", "rfc9000#19.15"));
    }
    let cid = r.bytes(len).and_then(Cid::new).ok_or(TRUNCATED)?;
    let token = ResetToken(r.array().ok_or(TRUNCATED)?);
    if retire_prior_to > sequence {
        //= rfc9000#19.15-6
        return Err(malformed("a new connection ID retires itself", "rfc9000#19.15"));
    }
    Ok(Frame::NewConnectionId { sequence, retire_prior_to, cid, token })
}

fn datagram<'a>(r: &mut Reader<'a>, kind: u64, start: usize, ext: Extensions) -> Result<Frame<'a>, PeerViolation> {
    if ext.max_datagram_frame == 0 {
        //= rfc9221#3-3
        return Err(forbidden("a DATAGRAM frame came without being agreed on", "rfc9221#3"));
    }
    let length_present = kind == types::DATAGRAM_WITH_LENGTH;
    let data = if length_present { r.prefixed().ok_or(TRUNCATED)? } else { r.rest() };
    if wide(start - r.remaining()) > ext.max_datagram_frame {
        //= rfc9221#3-4
        return Err(forbidden("a DATAGRAM frame is larger than agreed on", "rfc9221#3"));
    }
    Ok(Frame::Datagram { data, length_present })
}

fn reset_stream_at<'a>(r: &mut Reader<'a>) -> Result<Frame<'a>, PeerViolation> {
    let mut field = || r.varint().ok_or(TRUNCATED);
    let (id, code, final_size, reliable_size) = (StreamId(field()?), field()?, field()?, field()?);
    if reliable_size > final_size {
        //= reset-stream-at#4-1
        return Err(malformed("a RESET_STREAM_AT frame promises more than the stream has", "reset-stream-at#4"));
    }
    Ok(Frame::ResetStreamAt { id, code, final_size, reliable_size })
}

fn ack_frequency<'a>(r: &mut Reader<'a>, ext: Extensions) -> Result<Frame<'a>, PeerViolation> {
    let mut field = || r.varint().ok_or(TRUNCATED);
    let (sequence, eliciting_threshold, max_ack_delay_us, reordering_threshold) =
        (field()?, field()?, field()?, field()?);
    let smallest = ext.min_ack_delay_us.unwrap_or(0);
    if max_ack_delay_us >= ACK_DELAY_LIMIT_US || max_ack_delay_us < smallest {
        //= ack-frequency#4-4
        return Err(forbidden("an ACK_FREQUENCY frame asks for an impossible delay", "ack-frequency#4"));
    }
    Ok(Frame::AckFrequency { sequence, eliciting_threshold, max_ack_delay_us, reordering_threshold })
}

/// The frames of a packet's payload, each checked against the packet's level. Ends after the first violation.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    r: Reader<'a>,
    level: Level,
    ext: Extensions,
    /// Whether a frame was asked for already: a payload without any is a violation of its own.
    begun: bool,
}

/// Walks over the payload of a packet of that level.
#[must_use]
pub const fn frames(payload: &[u8], level: Level, ext: Extensions) -> Frames<'_> {
    Frames { r: Reader::new(payload), level, ext, begun: false }
}

impl<'a> Frames<'a> {
    /// Bytes of the payload that were read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.r.position()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, PeerViolation>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.r.is_empty() {
            //= rfc9000#12.4-2
            let empty = !core::mem::replace(&mut self.begun, true);
            return empty.then_some(Err(forbidden("a packet has no frames", "rfc9000#12.4")));
        }
        self.begun = true;
        let frame = parse(&mut self.r, self.ext)
            .and_then(|f| check_permitted(f.kind(), self.level).map_err(|v| v.in_frame(f.type_id())).map(|()| f));
        if frame.is_err() {
            self.r = Reader::new(&[]);
        }
        Some(frame)
    }
}
