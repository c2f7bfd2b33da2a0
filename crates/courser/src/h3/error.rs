//! What can go wrong with a request, and with a connection.

use std::borrow::Cow;
use std::fmt;

use courser_h3::Code;

use crate::aio;
use crate::error::ConnectionError;

/// Any error of an application's service or body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request, its answer, or the whole connection came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The QUIC connection ended.
    Closed(ConnectionError),
    /// One end broke HTTP/3 and the connection was closed (RFC 9114 section 8).
    Protocol {
        /// The code that the peer was told.
        code: Code,
        /// What was wrong.
        reason: Cow<'static, str>,
    },
    /// The message was malformed or too large, and its stream was given up.
    Message {
        /// The code that the peer was told.
        code: Code,
        /// What was wrong.
        reason: Cow<'static, str>,
    },
    /// The peer gave the stream up.
    Reset(Code),
    /// The peer wants no more of what is being sent.
    Stopped(Code),
    /// The peer did nothing of the request and never will; it can be made again on another connection (RFC 9114 section 4.1.1).
    Rejected,
    /// A head or trailers over a limit: ours, or the peer's for what is sent.
    TooLarge,
    /// The application's own body or service failed.
    Application(BoxError),
    /// Nothing came, or nothing could be sent, for longer than the limit.
    TimedOut(&'static str),
    /// A call that cannot be, such as a request without a host.
    Misuse(Cow<'static, str>),
}

impl Error {
    /// What HTTP/3 said, with the QUIC connection's reason when that is what ended.
    pub(super) fn of(e: courser_h3::conn::Error, quic: &aio::Connection) -> Self {
        use courser_h3::conn::Error as Inner;
        match e {
            Inner::Connection(e) => Self::Protocol { code: e.code, reason: e.reason },
            Inner::Stream { code, reason } => Self::Message { code, reason },
            Inner::Reset(code) => Self::Reset(Code(code)),
            Inner::Stopped(code) => Self::Stopped(Code(code)),
            Inner::Rejected => Self::Rejected,
            Inner::TooLarge => Self::TooLarge,
            Inner::Closed => Self::closed(quic),
            Inner::Misuse(what) => Self::Misuse(what.into()),
        }
    }

    pub(super) fn closed(quic: &aio::Connection) -> Self {
        Self::Closed(quic.close_reason().cloned().unwrap_or(ConnectionError::EndpointGone))
    }

    /// Whether the peer certainly did nothing of the request, so that any request may be made again.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::Rejected | Self::Reset(Code::REQUEST_REJECTED))
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Closed(e) => e.remedy(),
            Self::Protocol { .. } => "report this to the project of the faulty end",
            Self::Message { .. } => "correct the message, or raise the limit that it is over",
            Self::Reset(_) | Self::Stopped(_) => "the code says why",
            Self::Rejected => "make the request again on a new connection",
            Self::TooLarge => "send fewer fields, or raise the limit of the end that receives them",
            Self::Application(_) => "see the application's error",
            Self::TimedOut(_) => "try again, or set a longer limit",
            Self::Misuse(_) => "correct the call",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(e) => return e.fmt(f),
            Self::Protocol { code, reason } => write!(f, "the connection was closed with {code}: {reason}")?,
            Self::Message { code, reason } => write!(f, "the stream was given up with {code}: {reason}")?,
            Self::Reset(code) => write!(f, "the peer gave the stream up with {code}")?,
            Self::Stopped(code) => write!(f, "the peer wants no more of it, {code}")?,
            Self::Rejected => f.write_str("the peer did not process the request")?,
            Self::TooLarge => f.write_str("a head or trailers larger than the limit")?,
            Self::Application(e) => write!(f, "the application failed: {e}")?,
            Self::TimedOut(what) => write!(f, "{what} took too long")?,
            Self::Misuse(what) => f.write_str(what)?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Closed(e) => Some(e),
            Self::Application(e) => Some(&**e),
            _ => None,
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(e: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &e {
            Error::TimedOut(_) => ErrorKind::TimedOut,
            Error::Reset(_) | Error::Stopped(_) => ErrorKind::ConnectionReset,
            Error::Misuse(_) => ErrorKind::InvalidInput,
            Error::Message { .. } => ErrorKind::InvalidData,
            _ => ErrorKind::ConnectionAborted,
        };
        Self::new(kind, e)
    }
}
