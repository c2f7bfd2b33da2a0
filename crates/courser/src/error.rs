//! What can go wrong, as the faces tell it. Every error says what to do about it: [`ConnectError::remedy`] and its like.

use std::fmt;
use std::io;

use courser_core::config::InvalidSetting;
use courser_core::error::{CloseReason, TransportCode};

use crate::net::target::BadTarget;

/// Why an endpoint could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum EndpointError {
    /// The socket could not be bound.
    Bind(std::net::SocketAddr, io::Error),
    /// The worker could not be started.
    Worker(io::Error),
    /// A setting that cannot be.
    Settings(InvalidSetting),
}

impl EndpointError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Bind(_, e) if e.kind() == io::ErrorKind::AddrInUse => "choose another port, or 0 for any",
            Self::Bind(_, e) if e.kind() == io::ErrorKind::AddrNotAvailable => "bind an address of this machine",
            Self::Bind(_, e) if e.kind() == io::ErrorKind::PermissionDenied => "choose a port above 1023",
            Self::Bind(..) => "check the address and the limits of open files",
            Self::Worker(_) => "check the limits of threads and open files; a Tokio endpoint needs a running runtime",
            Self::Settings(_) => "correct the setting",
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(addr, e) => write!(f, "{addr} could not be bound: {e}")?,
            Self::Worker(e) => write!(f, "the worker could not be started: {e}")?,
            Self::Settings(e) => e.fmt(f)?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for EndpointError {}

impl From<EndpointError> for io::Error {
    fn from(e: EndpointError) -> Self {
        let kind = match &e {
            EndpointError::Bind(_, inner) | EndpointError::Worker(inner) => inner.kind(),
            EndpointError::Settings(_) => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, e)
    }
}

/// Why a port could not be handed over. Everything is as before then.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandoverError {
    /// The endpoint takes no connections.
    NoServer,
    /// A worker of the endpoint has ended.
    WorkerGone,
    /// The system has no means for it, or not now.
    System(io::Error),
    /// The workers did not answer in time.
    TimedOut,
    /// Too many processes that had the port before have connections still.
    TooManyElders,
    /// Another endpoint has the port already, or is about to.
    Given,
}

impl HandoverError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoServer => "hand over an endpoint that takes connections",
            Self::WorkerGone => "start the new process on the port as if for the first time",
            Self::System(e) if e.kind() == io::ErrorKind::Unsupported => "this needs Linux: stop the old process first",
            Self::System(_) => "check the limit of open files",
            Self::TimedOut => "try again, with more time",
            Self::TooManyElders => "wait until one of them has ended",
            Self::Given => "drop the earlier handover, or let the endpoint that took it give the port on",
        }
    }
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => write!(f, "the endpoint takes no connections")?,
            Self::WorkerGone => write!(f, "a worker of the endpoint has ended")?,
            Self::System(e) => write!(f, "the port could not be handed over: {e}")?,
            Self::TimedOut => write!(f, "the workers did not answer in time")?,
            Self::TooManyElders => write!(f, "three processes that had the port before have connections still")?,
            Self::Given => write!(f, "the port was handed over already")?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for HandoverError {}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address in text form cannot be understood.
    Target(BadTarget),
    /// The name could not be resolved.
    Resolve(io::ErrorKind, String),
    /// TLS could not start, for example for a server name that cannot be.
    Tls(String),
    /// A setting that cannot be.
    Settings(InvalidSetting),
    /// The endpoint was made without a configuration for connecting.
    NoClient,
    /// Every address was tried; this is what became of the last one.
    Failed(ConnectionError),
    /// More connections are being made than the endpoint takes.
    TooMany,
}

impl ConnectError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Target(_) => "write HOST:PORT or quic://HOST:PORT",
            Self::Resolve(..) => "check the name and the resolver",
            Self::Tls(_) => "check the server name and the TLS configuration",
            Self::Settings(_) => "correct the setting",
            Self::NoClient => "give the endpoint client options",
            Self::Failed(e) => e.remedy(),
            Self::TooMany => "wait until earlier attempts are done",
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(e) => e.fmt(f)?,
            Self::Resolve(_, text) => write!(f, "the name could not be resolved: {text}")?,
            Self::Tls(text) => write!(f, "TLS could not start: {text}")?,
            Self::Settings(e) => e.fmt(f)?,
            Self::NoClient => f.write_str("this endpoint takes connections, but makes none")?,
            Self::Failed(e) => return e.fmt(f),
            Self::TooMany => f.write_str("too many connections are being made")?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for ConnectError {}

impl From<BadTarget> for ConnectError {
    fn from(e: BadTarget) -> Self {
        Self::Target(e)
    }
}

impl From<ConnectionError> for ConnectError {
    fn from(e: ConnectionError) -> Self {
        Self::Failed(e)
    }
}

impl From<ConnectError> for io::Error {
    fn from(e: ConnectError) -> Self {
        let kind = match &e {
            ConnectError::Target(_) | ConnectError::Settings(_) | ConnectError::NoClient => io::ErrorKind::InvalidInput,
            ConnectError::Resolve(kind, _) => *kind,
            ConnectError::Failed(inner) => inner.kind(),
            ConnectError::Tls(_) | ConnectError::TooMany => io::ErrorKind::Other,
        };
        Self::new(kind, e)
    }
}

/// Why a connection, or an endpoint, is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The connection ended.
    Closed(CloseReason),
    /// The endpoint was dropped, or its socket failed.
    EndpointGone,
    /// The caller's own time limit passed; the connection goes on.
    TimedOut,
}

impl ConnectionError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::EndpointGone => "keep the endpoint as long as its connections",
            Self::TimedOut => "try again, or set a longer timeout",
            Self::Closed(reason) => match reason {
                CloseReason::IdleTimeout => "use keep-alive, or a longer idle timeout",
                CloseReason::HandshakeTimeout => "check that the server runs and that UDP reaches it",
                CloseReason::Refused => "try again later",
                CloseReason::PeerTransport { code, .. } if *code == TransportCode::CONNECTION_REFUSED => {
                    "the server takes no connections now; try again later"
                }
                CloseReason::PeerTransport { code, .. } if code.alert() == Some(120) => {
                    "offer an application protocol that the peer speaks"
                }
                CloseReason::Tls { .. } => "check certificates, roots and server name",
                CloseReason::VersionNegotiation { .. } => "speak a version that the server offers",
                CloseReason::StatelessReset => "connect again",
                CloseReason::Violation(_) | CloseReason::Internal(_) => "report this to the project of the faulty end",
                CloseReason::LocalApplication { .. } => "open streams before closing",
                _ => "see the code for what the peer means",
            },
        }
    }

    /// The application's code and reason, when an application closed the connection.
    #[must_use]
    pub fn application(&self) -> Option<(u64, &[u8])> {
        match self {
            Self::Closed(
                CloseReason::PeerApplication { code, reason } | CloseReason::LocalApplication { code, reason },
            ) => Some((*code, reason)),
            _ => None,
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::TimedOut => io::ErrorKind::TimedOut,
            Self::EndpointGone => io::ErrorKind::NotConnected,
            Self::Closed(reason) => match reason {
                CloseReason::IdleTimeout | CloseReason::HandshakeTimeout => io::ErrorKind::TimedOut,
                CloseReason::PeerTransport { code, .. } if *code == TransportCode::CONNECTION_REFUSED => {
                    io::ErrorKind::ConnectionRefused
                }
                CloseReason::Refused => io::ErrorKind::ConnectionRefused,
                CloseReason::StatelessReset => io::ErrorKind::ConnectionReset,
                CloseReason::LocalApplication { .. } => io::ErrorKind::NotConnected,
                _ => io::ErrorKind::ConnectionAborted,
            },
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => reason.fmt(f)?,
            Self::EndpointGone => f.write_str("the endpoint is gone")?,
            Self::TimedOut => f.write_str("the time limit passed")?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for ConnectionError {}

impl From<ConnectionError> for io::Error {
    fn from(e: ConnectionError) -> Self {
        Self::new(e.kind(), e)
    }
}

/// Why nothing can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer does not want more; its code.
    Stopped(u64),
    /// The stream was finished or reset here before.
    Finished,
    /// Waiting for acknowledgements of a stream that was not finished.
    NotFinished,
    /// The peer does not take resets that still deliver the beginning of a stream.
    Unsupported,
    /// More bytes were promised than were written; how many that were.
    NotWritten(u64),
    /// The connection ended.
    Closed(ConnectionError),
}

impl WriteError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Stopped(_) => "stop writing; the code says why",
            Self::Finished => "open another stream",
            Self::NotFinished => "call finish first",
            Self::Unsupported => "finish the stream, or reset it without a promise",
            Self::NotWritten(_) => "promise no more than was written",
            Self::Closed(e) => e.remedy(),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(code) => write!(f, "the peer stopped the stream with code {code}")?,
            Self::Finished => f.write_str("the stream was finished or reset here")?,
            Self::NotFinished => f.write_str("the stream is not finished")?,
            Self::Unsupported => f.write_str("the peer does not take partial resets")?,
            Self::NotWritten(n) => write!(f, "only {n} bytes were written")?,
            Self::Closed(e) => return e.fmt(f),
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for WriteError {}

impl From<WriteError> for io::Error {
    fn from(e: WriteError) -> Self {
        let kind = match &e {
            WriteError::Stopped(_) => io::ErrorKind::ConnectionReset,
            WriteError::Finished | WriteError::NotFinished => io::ErrorKind::NotConnected,
            WriteError::Unsupported => io::ErrorKind::Unsupported,
            WriteError::NotWritten(_) => io::ErrorKind::InvalidInput,
            WriteError::Closed(inner) => inner.kind(),
        };
        Self::new(kind, e)
    }
}

/// Why nothing can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer gave the stream up; its code.
    Reset(u64),
    /// Reading was stopped here before.
    Stopped,
    /// The connection ended before the stream did.
    Closed(ConnectionError),
}

impl ReadError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Reset(_) => "the code says why the rest does not come",
            Self::Stopped => "read before stopping",
            Self::Closed(e) => e.remedy(),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(code) => write!(f, "the peer reset the stream with code {code}")?,
            Self::Stopped => f.write_str("reading was stopped here")?,
            Self::Closed(e) => return e.fmt(f),
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for ReadError {}

impl From<ReadError> for io::Error {
    fn from(e: ReadError) -> Self {
        let kind = match &e {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::Stopped => io::ErrorKind::NotConnected,
            ReadError::Closed(inner) => inner.kind(),
        };
        Self::new(kind, e)
    }
}

/// Why a datagram was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatagramError {
    /// The peer takes no datagrams.
    Unsupported,
    /// The datagram is larger than the path or the peer takes; the limit in bytes.
    TooLarge(usize),
    /// The connection ended.
    Closed(ConnectionError),
}

impl DatagramError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unsupported => "use a stream",
            Self::TooLarge(_) => "send smaller datagrams, or use a stream",
            Self::Closed(e) => e.remedy(),
        }
    }
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("the peer takes no datagrams")?,
            Self::TooLarge(max) => write!(f, "a datagram has at most {max} bytes now")?,
            Self::Closed(e) => return e.fmt(f),
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for DatagramError {}

/// What became of a datagram that was sent with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramFate {
    /// The peer has acknowledged it.
    Acknowledged,
    /// It was declared lost. It may have arrived after all: what the peer says later is not told.
    Lost,
}

/// Keying material of that length cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportError;

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keying material of that length cannot be had; ask for less")
    }
}

impl std::error::Error for ExportError {}
