//! Error codes of HTTP/3 and QPACK, and errors that end a connection.

use std::borrow::Cow;
use std::fmt;

/// An error code of HTTP/3 (RFC 9114 section 8.1), QPACK (RFC 9204 section 6) or capsules (RFC 9297 section 5.2), as it
/// stands in QUIC frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u64);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $word:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The code's name in its document; `None` for others.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($word),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Nothing went wrong.
    NO_ERROR = 0x100, "H3_NO_ERROR";
    /// The peer broke the protocol in a way that no other code tells.
    GENERAL_PROTOCOL_ERROR = 0x101, "H3_GENERAL_PROTOCOL_ERROR";
    /// A fault of this end.
    INTERNAL_ERROR = 0x102, "H3_INTERNAL_ERROR";
    /// A stream that the peer may not open.
    STREAM_CREATION_ERROR = 0x103, "H3_STREAM_CREATION_ERROR";
    /// A stream that has to stay was closed.
    CLOSED_CRITICAL_STREAM = 0x104, "H3_CLOSED_CRITICAL_STREAM";
    /// A frame where it is not permitted.
    FRAME_UNEXPECTED = 0x105, "H3_FRAME_UNEXPECTED";
    /// A frame whose contents do not fit its layout or size.
    FRAME_ERROR = 0x106, "H3_FRAME_ERROR";
    /// The peer makes too much work.
    EXCESSIVE_LOAD = 0x107, "H3_EXCESSIVE_LOAD";
    /// A stream or push ID was used in a way that is not permitted.
    ID_ERROR = 0x108, "H3_ID_ERROR";
    /// What a SETTINGS frame says is not permitted.
    SETTINGS_ERROR = 0x109, "H3_SETTINGS_ERROR";
    /// The control stream does not begin with SETTINGS.
    MISSING_SETTINGS = 0x10a, "H3_MISSING_SETTINGS";
    /// The request was not processed at all.
    REQUEST_REJECTED = 0x10b, "H3_REQUEST_REJECTED";
    /// Nobody wants the request or its answer any more.
    REQUEST_CANCELLED = 0x10c, "H3_REQUEST_CANCELLED";
    /// The stream ended before the request did.
    REQUEST_INCOMPLETE = 0x10d, "H3_REQUEST_INCOMPLETE";
    /// A malformed message.
    MESSAGE_ERROR = 0x10e, "H3_MESSAGE_ERROR";
    /// The connection that CONNECT asked for broke.
    CONNECT_ERROR = 0x10f, "H3_CONNECT_ERROR";
    /// The request has to be made over another version of HTTP.
    VERSION_FALLBACK = 0x110, "H3_VERSION_FALLBACK";
    /// A datagram or capsule that does not fit its layout.
    DATAGRAM_ERROR = 0x33, "H3_DATAGRAM_ERROR";
    /// A field section that cannot be decoded.
    QPACK_DECOMPRESSION_FAILED = 0x200, "QPACK_DECOMPRESSION_FAILED";
    /// The encoder stream cannot be understood.
    QPACK_ENCODER_STREAM_ERROR = 0x201, "QPACK_ENCODER_STREAM_ERROR";
    /// The decoder stream cannot be understood.
    QPACK_DECODER_STREAM_ERROR = 0x202, "QPACK_DECODER_STREAM_ERROR";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ends the connection: the code goes to the peer with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// The code on the wire.
    pub code: Code,
    /// What was wrong, in words for a log.
    pub reason: Cow<'static, str>,
}

impl ConnectionError {
    /// An error with its reason.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

impl std::error::Error for ConnectionError {}
