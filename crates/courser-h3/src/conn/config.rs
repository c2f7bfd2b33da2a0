//! What a connection permits, and what its calls answer.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use courser_core::ids::{StreamId, VARINT_MAX};
use http::HeaderMap;

use crate::error::{Code, ConnectionError};
use crate::settings::Settings;

/// What a connection permits and limits. The default suits a server of web pages as well as a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of table that the peer's QPACK encoder may make us keep.
    pub qpack_table_capacity: usize,
    /// Requests that may wait for the peer's QPACK encoder stream.
    pub qpack_blocked_streams: usize,
    /// Bytes of table that our QPACK encoder uses at most, whatever the peer offers.
    pub qpack_encoder_capacity: usize,
    /// Requests that our QPACK encoder makes wait at most, whatever the peer permits.
    pub qpack_encoder_blocked: usize,
    /// The largest field section that is taken, with 32 bytes added per line. Requests beyond it are answered with 431.
    pub max_field_section_size: u64,
    /// The most field lines that are taken.
    pub max_fields: usize,
    /// Offers extended CONNECT (RFC 9220) as a server.
    pub connect_protocol: bool,
    /// Takes HTTP datagrams (RFC 9297). The transport has to take datagrams then.
    pub datagrams: bool,
    /// How many WebTransport sessions may be open; 0 speaks no WebTransport. Needs the two before. Those beyond are rejected with
    /// H3_REQUEST_REJECTED, and may be begun again elsewhere.
    pub webtransport_sessions: u64,
    /// Two-way streams that the peer may have open in a WebTransport session. This and the next two limit sessions only when the
    /// peer says limits too; without them a peer that speaks the newest draft has one session at a time. 0 in all three declares
    /// that there are no such limits.
    pub webtransport_streams_bidi: u64,
    /// One-way streams that the peer may have open in a WebTransport session.
    pub webtransport_streams_uni: u64,
    /// Bytes of all streams of a WebTransport session that may be on their way or wait to be read.
    pub webtransport_window: u64,
    /// Sends identifiers that mean nothing, so that peers stay able to ignore them.
    pub grease: bool,
    /// Requests that may be in work at the same time; those beyond are rejected, and may be tried again. The transport's limit
    /// of streams should be no larger.
    pub max_requests: usize,
    /// Requests that the peer may cancel before they are answered, or get reset by breaking a rule, in one go. Beyond them the connection ends with
    /// H3_EXCESSIVE_LOAD ("rapid reset"). Each answered request gives one back, and each second [`Self::cancel_refill`].
    pub cancel_budget: u32,
    /// Cancelled requests that are forgiven per second; see [`super::Connection::set_now`].
    pub cancel_refill: u32,
    /// Frames, streams and instructions without effect (unknown, empty, changes of priority, cancellations in QPACK) that the peer
    /// may send in one go.
    pub noise_budget: u32,
    /// Such frames that are forgiven per second.
    pub noise_refill: u32,
    /// Changes of priority that are remembered for requests that have not come yet; the oldest gives way.
    pub early_priorities: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            qpack_table_capacity: 4096,
            qpack_blocked_streams: 16,
            qpack_encoder_capacity: 4096,
            qpack_encoder_blocked: 16,
            max_field_section_size: 64 * 1024,
            max_fields: 256,
            connect_protocol: true,
            datagrams: false,
            webtransport_sessions: 0,
            webtransport_streams_bidi: 100,
            webtransport_streams_uni: 100,
            webtransport_window: 8 << 20,
            grease: true,
            max_requests: 1024,
            cancel_budget: 1000,
            cancel_refill: 100,
            noise_budget: 10_000,
            noise_refill: 1000,
            early_priorities: 64,
        }
    }
}

impl Config {
    /// The settings that tell the peer of this. Extended CONNECT is a server's to offer.
    #[must_use]
    pub fn settings(&self, server: bool) -> Settings {
        let sessions = self.webtransport_sessions > 0;
        let limit = |limit: u64| if sessions { limit.min(VARINT_MAX) } else { 0 };
        Settings {
            qpack_max_table_capacity: crate::wide(self.qpack_table_capacity),
            qpack_blocked_streams: crate::wide(self.qpack_blocked_streams),
            max_field_section_size: self.max_field_section_size,
            connect_protocol: server && self.connect_protocol,
            datagrams: self.datagrams,
            webtransport_sessions: self.webtransport_sessions,
            webtransport_newest: sessions,
            wt_max_streams_bidi: limit(self.webtransport_streams_bidi),
            wt_max_streams_uni: limit(self.webtransport_streams_uni),
            wt_max_data: limit(self.webtransport_window),
        }
    }
}

/// What polling for a head gave.
#[derive(Debug)]
pub enum Head<T> {
    /// The head.
    Ready(T),
    /// Nothing yet; the transport wakes.
    Blocked,
    /// The head came, but what it refers to did not: [`Event::Unblocked`] tells.
    WaitsForTable,
    /// The head asks for a WebTransport session, and the peer's SETTINGS did not come: [`Event::Settings`] tells.
    WaitsForSettings,
    /// No request: the rest of the stream belongs to a WebTransport session. What was read of it is had by
    /// [`super::Connection::take_rest`].
    WebTransportStream {
        /// The session: the stream of its CONNECT request.
        session: StreamId,
    },
    /// The stream was refused, and nothing is to be done about it.
    Gone,
}

/// What polling for content gave.
#[derive(Debug)]
pub enum Body {
    /// The next bytes of content; at least one.
    Data(Bytes),
    /// The trailers. Nothing but the end follows.
    Trailers(HeaderMap),
    /// The message is complete.
    End,
    /// Nothing yet; the transport wakes.
    Blocked,
    /// Trailers came, but what they refer to did not: [`Event::Unblocked`] tells.
    WaitsForTable,
}

/// What is to be done with a peer's one-way stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uni {
    /// The connection keeps it: call [`super::Connection::on_uni`] again when there is more to read.
    Kept,
    /// Nothing more is to be read.
    Done,
    /// The rest belongs to a WebTransport session. What was read of it is had by [`super::Connection::take_rest`].
    WebTransport {
        /// The session: the stream of its CONNECT request.
        session: StreamId,
    },
}

/// What happened on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer's SETTINGS came; [`super::Connection::peer_settings`] has them.
    Settings,
    /// A message that waited for the QPACK table can be polled again.
    Unblocked(StreamId),
    /// The peer is about to leave. At a client, requests from that stream on were not and will not be processed, and may be
    /// made again elsewhere; at a server the number is that of a push and has no meaning.
    GoAway {
        /// The first stream that is refused.
        first_rejected: StreamId,
    },
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The connection broke a rule of HTTP/3, and was closed.
    Connection(ConnectionError),
    /// The message broke a rule. Both directions of its stream were given up.
    Stream {
        /// The code that the peer was told.
        code: Code,
        /// What was wrong.
        reason: Cow<'static, str>,
    },
    /// The peer gave up sending, with this code.
    Reset(u64),
    /// The peer wants no more, with this code. What it sends may still be read.
    Stopped(u64),
    /// The peer did not process the request and will not; it is safe to make it again elsewhere.
    Rejected,
    /// A field section larger than a limit. A request that is too large was answered with 431 and its stream given up; a
    /// response that is too large was cancelled; a head of ours that the peer's limit forbids was not sent at all.
    TooLarge,
    /// The connection ended.
    Closed,
    /// The call does not fit the state of the message: an error of the caller.
    Misuse(&'static str),
}

impl Error {
    /// A stream error.
    pub(crate) fn stream(code: Code, reason: &'static str) -> Self {
        Self::Stream { code, reason: Cow::Borrowed(reason) }
    }

    /// A malformed message (RFC 9114 section 4.1.2).
    //= rfc9114#4.1.2-2
    pub(crate) fn malformed(reason: &'static str) -> Self {
        Self::stream(Code::MESSAGE_ERROR, reason)
    }

    /// A connection error.
    pub(crate) fn connection(code: Code, reason: &'static str) -> Self {
        Self::Connection(ConnectionError::new(code, reason))
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(e) => write!(f, "the connection failed: {e}"),
            Self::Stream { code, reason } => write!(f, "the message failed: {code}: {reason}"),
            Self::Reset(code) => write!(f, "the peer gave the message up: {}", Code(*code)),
            Self::Stopped(code) => write!(f, "the peer wants no more of the message: {}", Code(*code)),
            Self::Rejected => f.write_str("the peer did not process the request"),
            Self::TooLarge => f.write_str("a head or trailers larger than the limit"),
            Self::Closed => f.write_str("the connection ended"),
            Self::Misuse(what) => write!(f, "misuse: {what}"),
        }
    }
}

impl std::error::Error for Error {}
