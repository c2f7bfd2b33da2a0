//! The socket between applications and a host: who may do what, and where the shared memory is.
//!
//! An application connects to the service's socket (`SOCK_SEQPACKET`: one message is one packet), says who it is
//! ([`Request::Attach`]) and is answered with its limits and a bell. From then on it opens and closes *endpoints*: a QUIC
//! listener's, a QUIC dialler's, or the one of all its TCP and UDP sessions. The answer carries a segment and a bell for
//! each worker of the endpoint. Everything else goes through the ports in those segments ([`crate::port`]).
//!
//! Requests are answered in order, each with one [`Reply`] ([`Reply::Output`] with `more` set is followed by another one).
//! A [`Notice`] may come at any time between them. The end of the socket is the end of the application: everything that it
//! had is closed.
//!
//! **Nothing is believed.** Messages are bounded as a whole ([`MESSAGE_MAX`]) and in each field, and decoding is total and
//! exact: what is taken is what encoding makes of it, bit by bit, so that no two texts say the same.

#[cfg(target_os = "linux")]
mod client;
mod codec;
pub mod fuzz;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(target_os = "linux")]
mod transport;

use core::fmt;
use std::net::SocketAddr;

#[cfg(target_os = "linux")]
pub use client::Client;
pub use codec::Malformed;
#[cfg(target_os = "linux")]
pub use transport::{FDS_MAX, connect, receive, send};

use crate::port::SharedSetup;

/// The version of the messages that this code speaks.
pub const VERSION: u16 = 2;
/// Bytes of the longest message.
pub const MESSAGE_MAX: usize = 192 * 1024;
/// Bytes of the longest name of an application.
pub const NAME_MAX: usize = 64;
/// Bytes of the longest certificate chain, set of roots or private key.
pub const PEM_MAX: usize = 88 * 1024;
/// Bytes of the longest explanation; a longer one is cut.
pub const TEXT_MAX: usize = 4096;
/// Bytes of the longest piece of a command's output; longer output is several pieces.
pub const OUTPUT_MAX: usize = 128 * 1024;
/// Certificates, and protocols (ALPN), of a profile at most.
pub const LIST_MAX: usize = 16;
/// Words of a command at most.
pub const WORDS_MAX: usize = 64;
/// Bytes of the longest word of a command.
pub const WORD_MAX: usize = 1024;

/// What sessions are carried by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections with streams and datagrams, encrypted.
    Quic,
    /// One stream per connection, not encrypted.
    Tcp,
    /// Datagrams, not encrypted.
    Udp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Quic, Self::Tcp, Self::Udp];

    /// The word before `://` in addresses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose certificates a dialler believes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those that the machine's administrator believes.
    #[default]
    System,
    /// Those that lead to one of these roots, in PEM.
    Roots(Vec<u8>),
    /// Everybody's. For trials: whoever is between the two can read and change everything.
    Anybody,
}

/// Settings of an endpoint. The default leaves all of them to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Profile {
    /// What a listener proves itself with: numbers from [`Reply::Certificate`].
    pub certificates: Vec<u32>,
    /// Protocols of the application (ALPN), the most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// Whose certificates a dialler believes.
    pub trust: Trust,
    /// After so many milliseconds without a packet a connection is over.
    pub idle_timeout_ms: Option<u64>,
    /// After so many milliseconds without a packet one is sent to keep the connection.
    pub keep_alive_ms: Option<u64>,
    /// Whether unreliable datagrams are taken.
    pub datagrams: bool,
    /// How many workers the endpoint has.
    pub workers: Option<u16>,
    /// The name of the congestion controller.
    pub congestion: Option<String>,
    /// How many streams the peer may have open at a time, of each direction.
    pub streams: Option<u64>,
}

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes connections at this address; port 0 lets the system choose.
    Listen(SocketAddr),
    /// Makes connections, from this address or from any.
    Dial(Option<SocketAddr>),
}

/// What an application wants to open. TCP and UDP sessions share one endpoint, for which role and profile say nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    /// What carries the sessions.
    pub protocol: Protocol,
    /// What it is for.
    pub role: Role,
    /// Its settings.
    pub profile: Profile,
}

/// What an application asks. `Debug` does not show private keys.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// The first message of an application.
    Attach {
        /// The [`VERSION`] that it speaks.
        version: u16,
        /// What operators see it as.
        name: String,
    },
    /// Keeps a certificate for endpoints to be opened.
    AddCertificate {
        /// The certificate and those that lead from it to a root, in PEM.
        chain: Vec<u8>,
        /// Its private key, in PEM.
        key: Vec<u8>,
    },
    /// Forgets a certificate. Endpoints that have it keep it.
    RemoveCertificate {
        /// Its number.
        id: u32,
    },
    /// Opens an endpoint.
    Open(Box<Open>),
    /// Closes an endpoint and everything in it.
    Close {
        /// Its number.
        endpoint: u32,
    },
    /// The first and only message of an operator: a line of the debug command line.
    Command {
        /// The command and its arguments.
        words: Vec<String>,
        /// Whether the output is for programs.
        json: bool,
    },
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach { version, name } => {
                f.debug_struct("Attach").field("version", version).field("name", name).finish()
            }
            Self::AddCertificate { chain, .. } => {
                f.debug_struct("AddCertificate").field("chain", &chain.len()).finish_non_exhaustive()
            }
            Self::RemoveCertificate { id } => f.debug_struct("RemoveCertificate").field("id", id).finish(),
            Self::Open(open) => f.debug_tuple("Open").field(open).finish(),
            Self::Close { endpoint } => f.debug_struct("Close").field("endpoint", endpoint).finish(),
            Self::Command { words, json } => {
                f.debug_struct("Command").field("words", words).field("json", json).finish()
            }
        }
    }
}

/// What an application may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// What the host calls it.
    pub application: u64,
    /// Endpoints at a time.
    pub endpoints_max: u32,
    /// Sessions at a time, in each endpoint.
    pub sessions_max: u32,
    /// Bytes of shared memory, over all endpoints.
    pub memory_max: u64,
}

/// An endpoint that was opened. With the message come the descriptors: for each port its segment and the bell of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedMsg {
    /// What closes it, and what it is called in notices.
    pub endpoint: u32,
    /// Where it is bound.
    pub local: SocketAddr,
    /// The sizes of its segments.
    pub setup: SharedSetup,
    /// How many ports there are: one for each worker.
    pub ports: u16,
    /// The number of the first worker in its handles; the others count on from it.
    pub first_worker: u8,
}

/// Why a request was turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The session layer is not enabled.
    Disabled,
    /// This user may not do that.
    Denied,
    /// The application has as much as it may have.
    Quota,
    /// The address cannot be used.
    Address,
    /// The certificate, the key, or a root cannot be used.
    Certificate,
    /// There is no endpoint or certificate of that number, or no such command.
    Unknown,
    /// The two speak different versions.
    Version,
    /// The request makes no sense.
    Malformed,
    /// The operating system refused.
    System,
    /// The service takes nothing new any more; another one may be taking its place.
    Draining,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Disabled,
        Self::Denied,
        Self::Quota,
        Self::Address,
        Self::Certificate,
        Self::Unknown,
        Self::Version,
        Self::Malformed,
        Self::System,
        Self::Draining,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "the session layer is not enabled",
            Self::Denied => "this user may not do that",
            Self::Quota => "the application has as much as it may have",
            Self::Address => "the address cannot be used",
            Self::Certificate => "the certificate cannot be used",
            Self::Unknown => "there is nothing of that name",
            Self::Version => "the two speak different versions",
            Self::Malformed => "the request makes no sense",
            Self::System => "the operating system refused",
            Self::Draining => "the service takes nothing new any more",
        })
    }
}

/// A request that was turned down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub fault: Fault,
    /// What the fault alone does not say, with the remedy; may be empty.
    pub text: String,
}

impl Refused {
    /// A refusal with its explanation.
    #[must_use]
    pub fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

impl core::error::Error for Refused {}

/// What a host answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The application is attached. With the message comes its bell.
    Attached(Attached),
    /// A certificate is kept.
    Certificate {
        /// Its number.
        id: u32,
    },
    /// An endpoint is open.
    Opened(OpenedMsg),
    /// It was done; there is nothing to say of it.
    Done,
    /// It was turned down.
    Failed {
        /// Why.
        fault: Fault,
        /// What the fault alone does not say, with the remedy.
        text: String,
    },
    /// What a command prints.
    Output {
        /// A piece of it.
        text: String,
        /// Whether another piece follows.
        more: bool,
    },
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        Self::Failed { fault: refused.fault, text: refused.text }
    }
}

/// What a host says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The service takes nothing new any more; what there is goes on.
    Draining,
    /// The same, and a successor serves at the same socket: attach there for what is new. What there is goes on.
    Succeeded,
    /// An endpoint was closed by the host.
    EndpointGone {
        /// Its number.
        endpoint: u32,
        /// Why, with the remedy.
        text: String,
    },
}

/// What comes from a host: applications do not know which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost {
    /// The answer to the oldest request without one.
    Reply(Reply),
    /// Something unasked.
    Notice(Notice),
}
