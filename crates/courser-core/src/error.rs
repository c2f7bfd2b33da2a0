//! Whose fault, and which code.
//!
//! A [`PeerViolation`] closes the connection, an [`ApiMisuse`] goes back to the caller, a [`CloseReason`] tells why a
//! connection ended. "Would block" and "took n bytes" are values, not errors.

use core::fmt;

/// A transport error code (RFC 9000 section 20.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransportCode(pub u64);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl TransportCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The RFC's name of the code, when it has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    0x100..=0x1ff => Some("CRYPTO_ERROR"),
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Closed without an error.
    NO_ERROR = 0x0;
    /// The endpoint met an error of its own.
    INTERNAL_ERROR = 0x1;
    /// The server refuses the connection.
    CONNECTION_REFUSED = 0x2;
    /// More data than the credit allowed.
    FLOW_CONTROL_ERROR = 0x3;
    /// A stream beyond the limit.
    STREAM_LIMIT_ERROR = 0x4;
    /// A frame for a stream in the wrong state.
    STREAM_STATE_ERROR = 0x5;
    /// Data beyond, or a change of, the final size.
    FINAL_SIZE_ERROR = 0x6;
    /// A badly formed frame.
    FRAME_ENCODING_ERROR = 0x7;
    /// Bad transport parameters.
    TRANSPORT_PARAMETER_ERROR = 0x8;
    /// More connection IDs than the limit.
    CONNECTION_ID_LIMIT_ERROR = 0x9;
    /// Another broken rule.
    PROTOCOL_VIOLATION = 0xa;
    /// A token that a server does not take.
    INVALID_TOKEN = 0xb;
    /// The application or its protocol closed during the handshake.
    APPLICATION_ERROR = 0xc;
    /// More CRYPTO data than can be buffered.
    CRYPTO_BUFFER_EXCEEDED = 0xd;
    /// A key update that breaks the rules.
    KEY_UPDATE_ERROR = 0xe;
    /// The packet protection limit was reached.
    AEAD_LIMIT_REACHED = 0xf;
    /// No path can carry the connection.
    NO_VIABLE_PATH = 0x10;
    /// Version negotiation failed (RFC 9368).
    VERSION_NEGOTIATION_ERROR = 0x11;
}

impl TransportCode {
    /// The code of a TLS alert (RFC 9001 section 4.8).
    #[must_use]
    pub const fn tls_alert(alert: u8) -> Self {
        Self(0x100 + alert as u64)
    }

    /// The TLS alert inside a CRYPTO_ERROR code.
    #[must_use]
    pub const fn alert(self) -> Option<u8> {
        if self.0 >> 8 == 1 { Some((self.0 & 0xff) as u8) } else { None }
    }
}

impl fmt::Debug for TransportCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TransportCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.alert(), self.name()) {
            (Some(alert), _) => write!(f, "CRYPTO_ERROR({alert})"),
            (_, Some(name)) => f.write_str(name),
            _ => write!(f, "{:#x}", self.0),
        }
    }
}

/// The peer broke a rule; the connection ends with this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerViolation {
    /// What goes on the wire.
    pub code: TransportCode,
    /// The frame type that broke the rule; 0 when none is to blame.
    pub frame_type: u64,
    /// One sentence; goes on the wire as the reason phrase.
    pub reason: &'static str,
    /// Where the rule stands, for example `"rfc9000#4.1"`.
    pub section: &'static str,
}

impl PeerViolation {
    /// A violation with no frame to blame yet.
    #[must_use]
    pub const fn new(code: TransportCode, reason: &'static str, section: &'static str) -> Self {
        Self { code, frame_type: 0, reason, section }
    }

    /// The same, blamed on a frame type when none was blamed before.
    #[must_use]
    pub const fn in_frame(mut self, frame_type: u64) -> Self {
        if self.frame_type == 0 {
            self.frame_type = frame_type;
        }
        self
    }
}

impl fmt::Display for PeerViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.code, self.reason, self.section)
    }
}

impl core::error::Error for PeerViolation {}

/// The caller asked for something that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// The connection is gone or never was.
    UnknownConnection,
    /// The stream is closed, was never opened, or belongs to another connection.
    UnknownStream,
    /// Data cannot flow in that direction on this stream.
    WrongDirection,
    /// Data after the end of the stream was set.
    WriteAfterFinish,
    /// An error code beyond 2^62 - 1.
    CodeTooLarge,
    /// The call needs a finished handshake.
    HandshakePending,
    /// The connection is closing or closed.
    Closing,
    /// The extension was not negotiated.
    NotNegotiated,
    /// The argument is larger than the peer or the path takes.
    TooLarge,
    /// The peer has issued no connection ID that could be used at another address.
    NoConnectionId,
    /// The argument counts bytes that were never written.
    NotWritten,
}

impl fmt::Display for ApiMisuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownConnection => "there is no such connection: it ended, or the key is of another engine",
            Self::UnknownStream => "there is no such stream: it ended, or was never opened",
            Self::WrongDirection => "this stream carries data the other way only",
            Self::WriteAfterFinish => "the stream's end was already set",
            Self::CodeTooLarge => "an application error code is at most 2^62 - 1",
            Self::HandshakePending => "the handshake is not done yet",
            Self::Closing => "the connection is closing",
            Self::NotNegotiated => "the peer did not agree to this extension",
            Self::TooLarge => "larger than the peer or the path takes",
            Self::NoConnectionId => "the peer has issued no connection ID for another address",
            Self::NotWritten => "that many bytes were never written",
        })
    }
}

impl core::error::Error for ApiMisuse {}

/// Why a connection ended. The first reason is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The local application closed it.
    LocalApplication {
        /// The application's error code.
        code: u64,
        /// The reason phrase.
        reason: Vec<u8>,
    },
    /// The peer's application closed it.
    PeerApplication {
        /// The application's error code.
        code: u64,
        /// The reason phrase, as the peer sent it: not to be trusted.
        reason: Vec<u8>,
    },
    /// The peer broke a rule and was told so.
    Violation(PeerViolation),
    /// The peer's transport closed it.
    PeerTransport {
        /// Transport error code.
        code: TransportCode,
        /// The frame type that the peer blames; 0 when none.
        frame_type: u64,
        /// The reason phrase, as the peer sent it: not to be trusted.
        reason: Vec<u8>,
    },
    /// TLS failed here.
    Tls {
        /// The alert that the peer was sent.
        alert: u8,
        /// What was wrong.
        reason: String,
    },
    /// Nothing was heard for the idle timeout.
    IdleTimeout,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The peer lost its state.
    StatelessReset,
    /// The server speaks none of our versions.
    VersionNegotiation {
        /// What the server offers.
        offered: Vec<Version>,
    },
    /// No path to the peer is left: it moved and could not be validated there, it does not let us move, or the network here
    /// does not take datagrams of 1,200 bytes.
    NoPath,
    /// The server's Retry, or what it says of itself, does not fit together.
    Refused,
    /// An error of our own; the peer was told INTERNAL_ERROR.
    Internal(&'static str),
}

use crate::ids::Version;

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalApplication { code, reason } => {
                write!(f, "closed here with code {code}: {}", reason.escape_ascii())
            }
            Self::PeerApplication { code, reason } => {
                write!(f, "closed by the peer with code {code}: {}", reason.escape_ascii())
            }
            Self::Violation(v) => write!(f, "the peer broke a rule: {v}"),
            Self::PeerTransport { code, frame_type, reason } => {
                write!(f, "the peer closed with {code} (frame {frame_type:#x}): {}", reason.escape_ascii())
            }
            Self::Tls { alert, reason } => write!(f, "TLS failed (alert {alert}): {reason}"),
            Self::IdleTimeout => f.write_str("nothing was heard from the peer for the idle timeout"),
            Self::HandshakeTimeout => f.write_str("the handshake took too long"),
            Self::StatelessReset => f.write_str("the peer lost its state (stateless reset)"),
            Self::VersionNegotiation { offered } => {
                write!(f, "no common version; the server offers {offered:?}")
            }
            Self::NoPath => f.write_str("no path to the peer is left"),
            Self::Refused => f.write_str("refused"),
            Self::Internal(what) => write!(f, "internal error: {what}"),
        }
    }
}

impl core::error::Error for CloseReason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names() {
        assert_eq!(TransportCode::KEY_UPDATE_ERROR.to_string(), "KEY_UPDATE_ERROR");
        assert_eq!(TransportCode::tls_alert(40).to_string(), "CRYPTO_ERROR(40)");
        assert_eq!(TransportCode::tls_alert(40).alert(), Some(40));
        assert_eq!(TransportCode(0x4242).to_string(), "0x4242");
    }

    #[test]
    fn first_blamed_frame_stays() {
        let v = PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, "x", "rfc9000#12.4");
        assert_eq!(v.in_frame(6).in_frame(8).frame_type, 6);
    }

    #[test]
    fn peer_bytes_are_escaped() {
        let r = CloseReason::PeerApplication { code: 7, reason: b"\x1b[31mred".to_vec() };
        assert!(!r.to_string().contains('\x1b'));
    }
}
