//! What programs call: sockets that are QUIC, TCP or UDP, whoever hosts them.
//!
//! A [`Stack`] is an application's place at a host: a service in another process ([`Stack::attach`]), or one inside this
//! process ([`Stack::over`]). A program creates *sessions* in it and uses them as it would use sockets: `bind`, `listen`,
//! `accept`, `connect`, `read`, `write`, `close`. In QUIC a connection is a session from which the peer's streams are accepted,
//! and connecting a session to a connection's ([`Stack::connect_stream`]) opens a stream; all other calls are the same
//! for the three protocols. There is no QUIC and no TLS in this crate.
//!
//! ```no_run
//! use courser_session::control::{Protocol, Trust};
//! use courser_session::stack::{Dir, Stack};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = Stack::from_environment()?;
//! let connection = stack.create(Protocol::Quic)?;
//! stack.set_alpn(connection, &[b"hello"])?;
//! stack.set_trust(connection, Trust::Roots(std::fs::read("root.pem")?))?;
//! stack.connect(connection, "quic://localhost:4433")?;
//! let stream = stack.create(Protocol::Quic)?;
//! stack.connect_stream(stream, connection, Dir::Bi)?;
//! stack.write_all(stream, b"hello")?;
//! stack.finish(stream)?;
//! let mut answer = [0; 1024];
//! while stack.read(stream, &mut answer)? > 0 {}
//! stack.close(stream)?;
//! stack.close(connection)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Threads and waiting
//!
//! A stack is cloned and used by any number of threads; each may block in a call of its own. Sessions block until
//! [`Stack::set_nonblocking`] says otherwise, then they answer [`Error::WouldBlock`], and [`Stack::poll`] tells when it is worth
//! calling again; [`Stack::descriptor`] is readable in the meantime, for programs with an event loop.
//!
//! A stack has no thread of its own but for names: it takes what comes in while one of its calls is being made. A server whose threads are all
//! busy elsewhere answers new connections when one of them is back in [`Stack::accept`], [`Stack::poll`] or any other call that
//! waits.
//!
//! # Names
//!
//! A name is looked up in a thread that ends with the last name, by the system's resolver or by [another](Stack::set_resolver),
//! and its addresses race as in RFC 8305: the families take turns, the next address is begun when one failed or has not
//! answered for 250 ms, the first connection wins. All of it may take 30 seconds. A session that does not block does not do so
//! for its name, and [`Stack::connect`] called again says how far it is. A UDP session, which no peer answers, takes the first
//! IPv4 address; so does [`Stack::bind`], which waits for the resolver.
//!
//! # Bounds
//!
//! | What | At most | When full |
//! |---|---|---|
//! | sessions | what the host allows | [`Error::Full`]; what comes in is refused |
//! | connections that wait to be accepted | the backlog | they are refused |
//! | streams that wait to be accepted | 1,024 of a connection | they are turned away |
//! | names that are looked up at a time | 8 | the others wait, within their 30 seconds |
//! | addresses of one name | 16 | further ones are not tried |
//! | bytes that wait to be read | the delivery window of each stream | the sender is held back |
//! | datagrams that wait to be read | 256 and 1 MiB of a connection | the oldest are dropped and counted |
//!
//! # What is kept
//!
//! A listener's endpoint ends with its last connection, one that makes connections [some time after](Stack::set_keep) its last
//! one, or at once when the host has no room for another. A certificate is given back when its listener is bound.
//!
//! # The end
//!
//! When the service goes, every call that waits, and every later one, fails with [`Error::ServiceGone`]; what had arrived can be
//! read. [`Stack::reattach`] brings listeners and settings back once a service listens again. A service that makes way for its
//! successor is followed there without the program's doing: see [`Stack::reattach`] for what stays and what moves. When the
//! last clone of a stack is dropped, everything in it is closed at once.

mod again;
#[cfg(feature = "tokio")]
pub mod aio;
mod attach;
mod clock;
mod config;
mod data;
mod entry;
mod error;
pub mod fuzz;
mod hear;
mod keep;
#[cfg(test)]
#[cfg(not(loom))]
mod limits_tests;
mod lines;
mod name;
mod open;
mod poll;
mod reach;
mod release;
mod state;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod uri;
mod wait;

use std::{fmt, sync::Arc, time::Duration};

pub use attach::{Attachment, Control, Opened};
pub use config::Config;
pub use data::SessionState;
pub use error::Error;
pub use name::Resolve;
pub use open::Setting;
pub use poll::{Readiness, Ready};

pub use crate::control::Refused;

use crate::control::Attached;
use wait::Inner;

/// One session of a stack. Numbers begin with 1 and are never used again in the life of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(u64);

impl Session {
    /// Its number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The session of that number; whether there is one is for the stack to say.
    #[must_use]
    pub const fn from_raw(number: u64) -> Self {
        Self(number)
    }
}

/// Which way a stream carries bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// Both ways.
    Bi,
    /// From whoever opens it to the peer.
    Uni,
}

/// An application's sessions at a host. Clones are the same stack.
#[derive(Clone)]
pub struct Stack(Arc<Inner>);

impl Stack {
    /// A stack over an attachment, for programs that have one already, for example to a host in the same process.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn over(attachment: Attachment) -> Result<Self, Error> {
        Self::over_with(attachment, look_time())
    }

    /// The same, with the time that a thread looks around before it sleeps; see [`Config::look`].
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn over_with(attachment: Attachment, look: Duration) -> Result<Self, Error> {
        Self::made(attachment, look, None)
    }

    fn made(attachment: Attachment, look: Duration, home: Option<Config>) -> Result<Self, Error> {
        match Inner::new(attachment, look, home) {
            Ok(inner) => Ok(Self(inner)),
            Err(error) => Err(Error::system("a stack needs descriptors", &error)),
        }
    }

    /// What the application may have.
    #[must_use]
    pub fn limits(&self) -> Attached {
        self.0.limits
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("limits", &self.0.limits).field("look", &self.0.look).finish_non_exhaustive()
    }
}

/// How long a thread looks for news before it sleeps: a few wake-ups' worth, and no time at all where only one thread can
/// run at once.
fn look_time() -> Duration {
    let alone = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
    if alone { Duration::ZERO } else { Duration::from_micros(50) }
}
