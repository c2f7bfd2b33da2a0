//! Frames (RFC 9000 section 19, RFC 9221, and the drafts on ACK frequency and on resets with partial delivery).
//!
//! A [`Frame`] borrows its data from the packet it was parsed from. Parsing is total: every byte string is a frame or
//! a [`PeerViolation`](crate::error::PeerViolation) with the code that the RFC asks for, and everything that can be
//! judged from the frame alone is judged there. The size of a frame is known before it is written, and a writer
//! without room for the whole frame gets nothing of it.

mod ack;
#[cfg(test)]
mod bounds_tests;
mod encode;
mod head;
mod parse;
mod permitted;
#[cfg(test)]
mod tests;

pub use ack::{Ack, AckRangesIter, EcnCounts, ack_size, write_ack};
pub use head::{
    crypto_header_size, datagram_header_size, stream_header_size, write_crypto_header, write_datagram_header,
    write_stream_header,
};
pub use parse::{Extensions, Frames, frames, parse};
pub use permitted::{check_permitted, permitted};

use crate::error::TransportCode;
use crate::ids::{Cid, Dir, ResetToken, StreamId};
use crate::spans::FrameKind;

/// The most streams of one direction that a limit may allow (RFC 9000 section 4.6).
pub const STREAMS_MAX: u64 = 1 << 60;

/// A frame; byte strings are borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A run of PADDING frames of one byte each.
    Padding(usize),
    /// PING.
    Ping,
    /// ACK.
    Ack(Ack<'a>),
    /// RESET_STREAM.
    ResetStream {
        /// The stream.
        id: StreamId,
        /// The application's error code.
        code: u64,
        /// How many bytes the sender counts for the stream.
        final_size: u64,
    },
    /// STOP_SENDING.
    StopSending {
        /// The stream.
        id: StreamId,
        /// The application's error code.
        code: u64,
    },
    /// CRYPTO.
    Crypto {
        /// Offset of the first byte.
        offset: u64,
        /// The bytes; offset and length never exceed 2^62 - 1 together.
        data: &'a [u8],
    },
    /// NEW_TOKEN.
    NewToken {
        /// The token; never empty.
        token: &'a [u8],
    },
    /// STREAM.
    Stream {
        /// The stream.
        id: StreamId,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes; offset and length never exceed 2^62 - 1 together.
        data: &'a [u8],
        /// Whether the stream ends with this frame.
        fin: bool,
        /// Whether the frame tells its length; otherwise it reaches to the end of the packet.
        length_present: bool,
    },
    /// MAX_DATA.
    MaxData {
        /// Credit of the connection in bytes.
        max: u64,
    },
    /// MAX_STREAM_DATA.
    MaxStreamData {
        /// The stream.
        id: StreamId,
        /// Its credit in bytes.
        max: u64,
    },
    /// MAX_STREAMS.
    MaxStreams {
        /// For which streams.
        dir: Dir,
        /// How many may be opened over the connection's life; at most 2^60.
        max: u64,
    },
    /// DATA_BLOCKED.
    DataBlocked {
        /// The credit that is used up.
        limit: u64,
    },
    /// STREAM_DATA_BLOCKED.
    StreamDataBlocked {
        /// The stream.
        id: StreamId,
        /// The credit that is used up.
        limit: u64,
    },
    /// STREAMS_BLOCKED.
    StreamsBlocked {
        /// For which streams.
        dir: Dir,
        /// The number of streams that is used up; at most 2^60.
        limit: u64,
    },
    /// NEW_CONNECTION_ID.
    NewConnectionId {
        /// Sequence number of the connection ID.
        sequence: u64,
        /// Connection IDs below this number are to be retired; at most `sequence`.
        retire_prior_to: u64,
        /// The connection ID; never empty.
        cid: Cid,
        /// Its stateless reset token.
        token: ResetToken,
    },
    /// RETIRE_CONNECTION_ID.
    RetireConnectionId {
        /// Sequence number of the connection ID.
        sequence: u64,
    },
    /// PATH_CHALLENGE.
    PathChallenge([u8; 8]),
    /// PATH_RESPONSE.
    PathResponse([u8; 8]),
    /// CONNECTION_CLOSE of the transport.
    ConnectionClose {
        /// Why.
        code: TransportCode,
        /// The frame type that is to blame; 0 when none.
        frame_type: u64,
        /// A text for people.
        reason: &'a [u8],
    },
    /// CONNECTION_CLOSE of the application.
    ApplicationClose {
        /// The application's error code.
        code: u64,
        /// A text for people.
        reason: &'a [u8],
    },
    /// HANDSHAKE_DONE.
    HandshakeDone,
    /// DATAGRAM.
    Datagram {
        /// The bytes.
        data: &'a [u8],
        /// Whether the frame tells its length; otherwise it reaches to the end of the packet.
        length_present: bool,
    },
    /// ACK_FREQUENCY.
    AckFrequency {
        /// Older frames than the newest are ignored.
        sequence: u64,
        /// Ack-eliciting packets that may come without an acknowledgement.
        eliciting_threshold: u64,
        /// The longest delay of an acknowledgement in microseconds.
        max_ack_delay_us: u64,
        /// Reordering that may pass without an acknowledgement at once.
        reordering_threshold: u64,
    },
    /// IMMEDIATE_ACK.
    ImmediateAck,
    /// RESET_STREAM_AT.
    ResetStreamAt {
        /// The stream.
        id: StreamId,
        /// The application's error code.
        code: u64,
        /// How many bytes the sender counts for the stream.
        final_size: u64,
        /// How many bytes still arrive; at most `final_size`.
        reliable_size: u64,
    },
}

/// Frame types on the wire.
pub(crate) mod types {
    pub(crate) const PADDING: u64 = 0x00;
    pub(crate) const PING: u64 = 0x01;
    pub(crate) const ACK: u64 = 0x02;
    pub(crate) const ACK_ECN: u64 = 0x03;
    pub(crate) const RESET_STREAM: u64 = 0x04;
    pub(crate) const STOP_SENDING: u64 = 0x05;
    pub(crate) const CRYPTO: u64 = 0x06;
    pub(crate) const NEW_TOKEN: u64 = 0x07;
    pub(crate) const STREAM: u64 = 0x08;
    pub(crate) const STREAM_LAST: u64 = 0x0f;
    pub(crate) const MAX_DATA: u64 = 0x10;
    pub(crate) const MAX_STREAM_DATA: u64 = 0x11;
    pub(crate) const MAX_STREAMS_BIDI: u64 = 0x12;
    pub(crate) const MAX_STREAMS_UNI: u64 = 0x13;
    pub(crate) const DATA_BLOCKED: u64 = 0x14;
    pub(crate) const STREAM_DATA_BLOCKED: u64 = 0x15;
    pub(crate) const STREAMS_BLOCKED_BIDI: u64 = 0x16;
    pub(crate) const STREAMS_BLOCKED_UNI: u64 = 0x17;
    pub(crate) const NEW_CONNECTION_ID: u64 = 0x18;
    pub(crate) const RETIRE_CONNECTION_ID: u64 = 0x19;
    pub(crate) const PATH_CHALLENGE: u64 = 0x1a;
    pub(crate) const PATH_RESPONSE: u64 = 0x1b;
    pub(crate) const CONNECTION_CLOSE: u64 = 0x1c;
    pub(crate) const APPLICATION_CLOSE: u64 = 0x1d;
    pub(crate) const HANDSHAKE_DONE: u64 = 0x1e;
    pub(crate) const IMMEDIATE_ACK: u64 = 0x1f;
    pub(crate) const RESET_STREAM_AT: u64 = 0x24;
    pub(crate) const DATAGRAM: u64 = 0x30;
    pub(crate) const DATAGRAM_WITH_LENGTH: u64 = 0x31;
    pub(crate) const ACK_FREQUENCY: u64 = 0xaf;

    /// Bit of a STREAM type: the stream ends here.
    pub(crate) const FIN_BIT: u64 = 0x01;
    /// Bit of a STREAM type: a Length field is there.
    pub(crate) const LEN_BIT: u64 = 0x02;
    /// Bit of a STREAM type: an Offset field is there.
    pub(crate) const OFF_BIT: u64 = 0x04;
}

// A frame is returned by value once per frame received; an ACK is the largest.
const _: () = assert!(size_of::<Frame<'_>>() <= 104);

impl Frame<'_> {
    /// Its kind, as a bit position.
    #[must_use]
    pub const fn kind(&self) -> FrameKind {
        match self {
            Self::Padding(_) => FrameKind::Padding,
            Self::Ping => FrameKind::Ping,
            Self::Ack(_) => FrameKind::Ack,
            Self::ResetStream { .. } => FrameKind::ResetStream,
            Self::StopSending { .. } => FrameKind::StopSending,
            Self::Crypto { .. } => FrameKind::Crypto,
            Self::NewToken { .. } => FrameKind::NewToken,
            Self::Stream { .. } => FrameKind::Stream,
            Self::MaxData { .. } => FrameKind::MaxData,
            Self::MaxStreamData { .. } => FrameKind::MaxStreamData,
            Self::MaxStreams { dir: Dir::Bi, .. } => FrameKind::MaxStreamsBidi,
            Self::MaxStreams { dir: Dir::Uni, .. } => FrameKind::MaxStreamsUni,
            Self::DataBlocked { .. } => FrameKind::DataBlocked,
            Self::StreamDataBlocked { .. } => FrameKind::StreamDataBlocked,
            Self::StreamsBlocked { dir: Dir::Bi, .. } => FrameKind::StreamsBlockedBidi,
            Self::StreamsBlocked { dir: Dir::Uni, .. } => FrameKind::StreamsBlockedUni,
            Self::NewConnectionId { .. } => FrameKind::NewConnectionId,
            Self::RetireConnectionId { .. } => FrameKind::RetireConnectionId,
            Self::PathChallenge(_) => FrameKind::PathChallenge,
            Self::PathResponse(_) => FrameKind::PathResponse,
            Self::ConnectionClose { .. } => FrameKind::ConnectionClose,
            Self::ApplicationClose { .. } => FrameKind::ApplicationClose,
            Self::HandshakeDone => FrameKind::HandshakeDone,
            Self::Datagram { .. } => FrameKind::Datagram,
            Self::AckFrequency { .. } => FrameKind::AckFrequency,
            Self::ImmediateAck => FrameKind::ImmediateAck,
            Self::ResetStreamAt { .. } => FrameKind::ResetStreamAt,
        }
    }

    /// Its type on the wire.
    #[must_use]
    pub const fn type_id(&self) -> u64 {
        match self {
            Self::Padding(_) => types::PADDING,
            Self::Ping => types::PING,
            Self::Ack(ack) => ack.type_id(),
            Self::ResetStream { .. } => types::RESET_STREAM,
            Self::StopSending { .. } => types::STOP_SENDING,
            Self::Crypto { .. } => types::CRYPTO,
            Self::NewToken { .. } => types::NEW_TOKEN,
            Self::Stream { offset, fin, length_present, .. } => head::stream_type(*offset, *fin, *length_present),
            Self::MaxData { .. } => types::MAX_DATA,
            Self::MaxStreamData { .. } => types::MAX_STREAM_DATA,
            Self::MaxStreams { dir: Dir::Bi, .. } => types::MAX_STREAMS_BIDI,
            Self::MaxStreams { dir: Dir::Uni, .. } => types::MAX_STREAMS_UNI,
            Self::DataBlocked { .. } => types::DATA_BLOCKED,
            Self::StreamDataBlocked { .. } => types::STREAM_DATA_BLOCKED,
            Self::StreamsBlocked { dir: Dir::Bi, .. } => types::STREAMS_BLOCKED_BIDI,
            Self::StreamsBlocked { dir: Dir::Uni, .. } => types::STREAMS_BLOCKED_UNI,
            Self::NewConnectionId { .. } => types::NEW_CONNECTION_ID,
            Self::RetireConnectionId { .. } => types::RETIRE_CONNECTION_ID,
            Self::PathChallenge(_) => types::PATH_CHALLENGE,
            Self::PathResponse(_) => types::PATH_RESPONSE,
            Self::ConnectionClose { .. } => types::CONNECTION_CLOSE,
            Self::ApplicationClose { .. } => types::APPLICATION_CLOSE,
            Self::HandshakeDone => types::HANDSHAKE_DONE,
            Self::Datagram { length_present: true, .. } => types::DATAGRAM_WITH_LENGTH,
            Self::Datagram { length_present: false, .. } => types::DATAGRAM,
            Self::AckFrequency { .. } => types::ACK_FREQUENCY,
            Self::ImmediateAck => types::IMMEDIATE_ACK,
            Self::ResetStreamAt { .. } => types::RESET_STREAM_AT,
        }
    }

    /// Whether the frame reaches to the end of its packet, so that nothing can follow it.
    #[must_use]
    pub const fn is_open_ended(&self) -> bool {
        matches!(self, Self::Stream { length_present: false, .. } | Self::Datagram { length_present: false, .. })
    }
}
