//! What calls of a stack fail with.

use std::{fmt, io};

use crate::{
    control::{Fault, Refused},
    reason::{Ended, Reason},
};

/// Why a call did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// It would have to wait, and the session does not block. What was begun goes on; call again when
    /// [`Stack::poll`](super::Stack::poll) tells of the session.
    WouldBlock,
    /// The session's time for one call ran out. What was begun goes on.
    TimedOut,
    /// There is no session of that number (any more).
    NoSession,
    /// A session of that kind, or in that state, cannot do that; what can.
    Unfit(&'static str),
    /// The address makes no sense; what is wrong with it.
    Address(String),
    /// The session ended, or was not opened.
    Ended(Ended),
    /// The peer gave up sending, with this code.
    Reset(u64),
    /// The peer does not want what is sent, with this code.
    Stopped(u64),
    /// A datagram that is too long for the path, or that the peer does not take.
    Datagram,
    /// The service turned a request down.
    Refused(Refused),
    /// There are as many sessions as there may be.
    Full,
    /// Nobody serves at the socket, or it may not be used.
    Attach {
        /// Where the socket was looked for.
        socket: String,
        /// What the system says.
        kind: io::ErrorKind,
        /// The same in words.
        text: String,
    },
    /// The service is gone, and with it all sessions of this stack; see [`Stack::reattach`](super::Stack::reattach).
    ServiceGone,
    /// The configuration cannot be used; where and why.
    Config(String),
    /// The operating system refused.
    System(String),
}

impl Error {
    pub(super) fn system(what: &str, error: &dyn fmt::Display) -> Self {
        Self::System(format!("{what}: {error}"))
    }

    /// What this is in the standard library's words.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        use io::ErrorKind;
        match self {
            Self::WouldBlock => ErrorKind::WouldBlock,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::NoSession | Self::Unfit(_) | Self::Address(_) | Self::Datagram | Self::Config(_) => {
                ErrorKind::InvalidInput
            }
            Self::Ended(ended) => match ended.reason {
                Reason::Done | Reason::ClosedHere => ErrorKind::NotConnected,
                Reason::Idle | Reason::HandshakeTimeout => ErrorKind::TimedOut,
                Reason::Refused | Reason::Unreachable | Reason::NoListener => ErrorKind::ConnectionRefused,
                Reason::ClosedByPeer | Reason::PeerReset | Reason::PeerTransport => ErrorKind::ConnectionReset,
                _ => ErrorKind::ConnectionAborted,
            },
            Self::Reset(_) => ErrorKind::ConnectionReset,
            Self::Stopped(_) => ErrorKind::BrokenPipe,
            Self::Refused(refused) => match refused.fault {
                Fault::Denied => ErrorKind::PermissionDenied,
                Fault::Address => ErrorKind::AddrInUse,
                Fault::Malformed | Fault::Certificate | Fault::Unknown => ErrorKind::InvalidInput,
                _ => ErrorKind::Other,
            },
            Self::Attach { kind, .. } => *kind,
            Self::ServiceGone => ErrorKind::ConnectionAborted,
            Self::Full | Self::System(_) => ErrorKind::Other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("nothing can be done now; wait until poll tells of the session"),
            Self::TimedOut => f.write_str("the time for the call ran out"),
            Self::NoSession => f.write_str("there is no such session; it was closed, or never created"),
            Self::Unfit(text) => f.write_str(text),
            Self::Address(text) | Self::Config(text) | Self::System(text) => f.write_str(text),
            Self::Ended(ended) => ended.fmt(f),
            Self::Reset(code) => write!(f, "the peer gave up sending, with code {code}"),
            Self::Stopped(code) => write!(f, "the peer does not want what is sent, and gave code {code}"),
            Self::Datagram => f.write_str("the datagram is too long for the path, or the peer takes no datagrams"),
            Self::Refused(refused) => refused.fmt(f),
            Self::Full => f.write_str("there are as many sessions as there may be; close some"),
            Self::Attach { socket, text, .. } => {
                write!(
                    f,
                    "no service at {socket}: {text}; start `courser stack --socket {socket}`, or name its socket in COURSER_SOCKET"
                )
            }
            Self::ServiceGone => f.write_str("the service is gone, and all sessions with it; attach again"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
