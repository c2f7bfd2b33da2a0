//! Frames to bytes: size first, write later.

use crate::wire::codec::{Writer, wide};
use crate::wire::frame::{Frame, head};
use crate::wire::varint::size;

/// Bytes of a byte string behind its length.
const fn prefixed_size(bytes: &[u8]) -> usize {
    size(wide(bytes.len())) + bytes.len()
}

/// The Length field of data, when there is one.
fn optional_len(data: &[u8], present: bool) -> Option<u64> {
    present.then_some(wide(data.len()))
}

impl Frame<'_> {
    /// Bytes of the whole frame as [`encode`](Self::encode) writes it.
    #[must_use]
    pub fn size(&self) -> usize {
        match *self {
            Self::Padding(n) => n,
            Self::Ping | Self::HandshakeDone | Self::ImmediateAck => 1,
            Self::Ack(ref ack) => ack.size(),
            Self::ResetStream { id, code, final_size } => 1 + size(id.0) + size(code) + size(final_size),
            Self::StopSending { id, code } => 1 + size(id.0) + size(code),
            Self::Crypto { offset, data } => head::crypto_header_size(offset, wide(data.len())) + data.len(),
            Self::NewToken { token } => 1 + prefixed_size(token),
            Self::Stream { id, offset, data, length_present, .. } => {
                head::stream_header_size(id, offset, optional_len(data, length_present)) + data.len()
            }
            Self::MaxData { max } => 1 + size(max),
            Self::MaxStreamData { id, max } => 1 + size(id.0) + size(max),
            Self::MaxStreams { max, .. } => 1 + size(max),
            Self::DataBlocked { limit } => 1 + size(limit),
            Self::StreamDataBlocked { id, limit } => 1 + size(id.0) + size(limit),
            Self::StreamsBlocked { limit, .. } => 1 + size(limit),
            Self::NewConnectionId { sequence, retire_prior_to, cid, token } => {
                1 + size(sequence) + size(retire_prior_to) + 1 + cid.len() + token.0.len()
            }
            Self::RetireConnectionId { sequence } => 1 + size(sequence),
            Self::PathChallenge(data) | Self::PathResponse(data) => 1 + data.len(),
            Self::ConnectionClose { code, frame_type, reason } => {
                1 + size(code.0) + size(frame_type) + prefixed_size(reason)
            }
            Self::ApplicationClose { code, reason } => 1 + size(code) + prefixed_size(reason),
            Self::Datagram { data, length_present } => {
                head::datagram_header_size(optional_len(data, length_present)) + data.len()
            }
            Self::AckFrequency { sequence, eliciting_threshold, max_ack_delay_us, reordering_threshold } => {
                2 + size(sequence) + size(eliciting_threshold) + size(max_ack_delay_us) + size(reordering_threshold)
            }
            Self::ResetStreamAt { id, code, final_size, reliable_size } => {
                1 + size(id.0) + size(code) + size(final_size) + size(reliable_size)
            }
        }
    }

    /// Writes the whole frame. `None`, and nothing written, when there is no room for all of it or a number in it has
    /// more than 62 bits.
    pub fn encode(&self, w: &mut Writer<'_>) -> Option<()> {
        let size = self.size();
        w.need(size)?;
        let start = w.len();
        head::whole(w, |w| self.put(w))?;
        debug_assert_eq!(w.len() - start, size, "the size of a frame is known before");
        Some(())
    }

    /// Writes the frame into room that is known to suffice.
    fn put(&self, w: &mut Writer<'_>) -> Option<()> {
        match *self {
            Self::Padding(n) => return w.zeros(n),
            Self::Ack(ref ack) => return ack.put(w),
            Self::Stream { id, offset, data, fin, length_present } => {
                head::write_stream_header(w, id, offset, fin, optional_len(data, length_present))?;
                return w.bytes(data);
            }
            _ => w.varint(self.type_id())?,
        }
        match *self {
            Self::Padding(_) | Self::Ack(_) | Self::Stream { .. } => None,
            Self::Ping | Self::HandshakeDone | Self::ImmediateAck => Some(()),
            Self::ResetStream { id, code, final_size } => put_all(w, &[id.0, code, final_size]),
            Self::StopSending { id, code } => put_all(w, &[id.0, code]),
            Self::Crypto { offset, data } => put_all(w, &[offset]).and_then(|()| w.prefixed(data)),
            Self::NewToken { token } => w.prefixed(token),
            Self::MaxData { max } | Self::MaxStreams { max, .. } => w.varint(max),
            Self::MaxStreamData { id, max: limit } | Self::StreamDataBlocked { id, limit } => {
                put_all(w, &[id.0, limit])
            }
            Self::DataBlocked { limit } | Self::StreamsBlocked { limit, .. } => w.varint(limit),
            Self::NewConnectionId { sequence, retire_prior_to, cid, token } => {
                put_all(w, &[sequence, retire_prior_to])?;
                w.u8(u8::try_from(cid.len()).ok()?)?;
                w.bytes(cid.as_slice())?;
                w.bytes(&token.0)
            }
            Self::RetireConnectionId { sequence } => w.varint(sequence),
            Self::PathChallenge(data) | Self::PathResponse(data) => w.bytes(&data),
            Self::ConnectionClose { code, frame_type, reason } => {
                put_all(w, &[code.0, frame_type]).and_then(|()| w.prefixed(reason))
            }
            Self::ApplicationClose { code, reason } => w.varint(code).and_then(|()| w.prefixed(reason)),
            Self::Datagram { data, length_present: true } => w.prefixed(data),
            Self::Datagram { data, length_present: false } => w.bytes(data),
            Self::AckFrequency { sequence, eliciting_threshold, max_ack_delay_us, reordering_threshold } => {
                put_all(w, &[sequence, eliciting_threshold, max_ack_delay_us, reordering_threshold])
            }
            Self::ResetStreamAt { id, code, final_size, reliable_size } => {
                put_all(w, &[id.0, code, final_size, reliable_size])
            }
        }
    }
}

/// Writes several variable-length integers.
fn put_all(w: &mut Writer<'_>, values: &[u64]) -> Option<()> {
    values.iter().try_for_each(|v| w.varint(*v))
}
