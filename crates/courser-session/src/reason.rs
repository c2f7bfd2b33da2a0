//! Why sessions end: a number for the message, a sentence for people.

use std::fmt;

use bytes::Bytes;

use crate::{msg::Completion, port::Event};

/// Why a session ended or could not be opened: what the `reason` of [`Completion::Closed`] and [`Completion::Failed`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It did all that it was there for; the peer has everything.
    Done,
    /// It was given up before everything had arrived, here or by the peer.
    GivenUp,
    /// The application closed it.
    ClosedHere,
    /// The peer's application closed it; code and text are the peer's.
    ClosedByPeer,
    /// The peer broke a rule.
    PeerBroke,
    /// The peer's transport closed it; the code is a transport code.
    PeerTransport,
    /// TLS failed; the code is the alert.
    Tls,
    /// Nothing was heard for the idle timeout.
    Idle,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The peer lost its state.
    PeerReset,
    /// There is no common version of the protocol.
    Version,
    /// The server did not want the connection.
    Refused,
    /// An error of the engine.
    Internal,
    /// An accepted connection had gone by the time the application wanted it.
    TooLate,
    /// There is no room for another session.
    Full,
    /// Too many streams wait to be opened.
    TooManyWaiting,
    /// The worker takes no connections, or not at that address.
    NoListener,
    /// No profile of that number was registered.
    NoProfile,
    /// The connection that a stream was to be opened on is over.
    ConnectionOver,
    /// The endpoint takes no new connections any more; those that there are go on.
    Draining,
    /// Nobody answers at the address, or no way leads there.
    Unreachable,
    /// The system refused; the text says what.
    System,
}

impl Reason {
    /// All of them, by index.
    pub const ALL: [Self; 22] = [
        Self::Done,
        Self::GivenUp,
        Self::ClosedHere,
        Self::ClosedByPeer,
        Self::PeerBroke,
        Self::PeerTransport,
        Self::Tls,
        Self::Idle,
        Self::HandshakeTimeout,
        Self::PeerReset,
        Self::Version,
        Self::Refused,
        Self::Internal,
        Self::TooLate,
        Self::Full,
        Self::TooManyWaiting,
        Self::NoListener,
        Self::NoProfile,
        Self::ConnectionOver,
        Self::Draining,
        Self::Unreachable,
        Self::System,
    ];

    /// The number in a message.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The reason with that number.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "everything was sent and read",
            Self::GivenUp => "given up before everything had arrived",
            Self::ClosedHere => "closed here",
            Self::ClosedByPeer => "closed by the peer",
            Self::PeerBroke => "the peer broke a rule",
            Self::PeerTransport => "the peer's transport closed",
            Self::Tls => "TLS failed",
            Self::Idle => "nothing was heard from the peer for the idle timeout",
            Self::HandshakeTimeout => "the handshake took too long",
            Self::PeerReset => "the peer lost its state",
            Self::Version => "there is no common version",
            Self::Refused => "the server did not want the connection",
            Self::Internal => "an error of our own",
            Self::TooLate => "the connection had gone before it was accepted",
            Self::Full => "there is no room for another session",
            Self::TooManyWaiting => "too many streams wait to be opened",
            Self::NoListener => "this worker takes no connections there",
            Self::NoProfile => "no such profile was registered with the worker",
            Self::ConnectionOver => "the connection is over",
            Self::Draining => "no new connections are taken any more",
            Self::Unreachable => "nobody answers at the address",
            Self::System => "the system refused",
        })
    }
}

/// How a session ended, or why it was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What happened.
    pub reason: Reason,
    /// The error code; 0 when there is none.
    pub code: u64,
    /// What reason and code do not say. A peer's words are not to be trusted.
    pub text: Bytes,
}

impl Ended {
    /// What a [`Completion::Closed`] or [`Completion::Failed`] says; `None` for other completions.
    #[must_use]
    pub fn of(message: &Completion) -> Option<Self> {
        let (reason, code, text) = match message {
            Completion::Closed { reason, code, text, .. } => (*reason, *code, text),
            Completion::Failed { reason, text, .. } => (*reason, 0, text),
            _ => return None,
        };
        Some(Self { reason: Reason::from_index(reason).unwrap_or(Reason::Internal), code, text: text.clone() })
    }

    /// Without code and text.
    #[must_use]
    pub const fn plain(reason: Reason) -> Self {
        Self { reason, code: 0, text: Bytes::new() }
    }

    /// The event that ends a session so.
    #[must_use]
    pub fn event(&self) -> Event {
        Event::Closed { code: self.code, reason: self.reason.index(), text: self.text.clone() }
    }

    /// The answer to whoever asked for a session with that token.
    #[must_use]
    pub fn failure(self, token: u64) -> Completion {
        Completion::Failed { token, reason: self.reason.index(), text: self.text }
    }

    /// Whether nothing went wrong: the session did its work, an operator ended it in good order, or one of the applications
    /// closed it with code 0.
    #[must_use]
    pub fn is_good(&self) -> bool {
        match self.reason {
            Reason::Done | Reason::Draining => true,
            Reason::ClosedHere | Reason::ClosedByPeer => self.code == 0,
            _ => false,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)?;
        if self.code != 0 {
            write!(f, " with code {}", self.code)?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text.escape_ascii()) }
    }
}

impl std::error::Error for Ended {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_index_and_has_a_sentence_of_its_own() {
        for (index, reason) in (0..).zip(Reason::ALL) {
            assert_eq!((reason.index(), Reason::from_index(index)), (index, Some(reason)));
            let same = Reason::ALL.iter().filter(|other| other.to_string() == reason.to_string());
            assert_eq!(same.count(), 1);
        }
        assert_eq!(Reason::from_index(u8::try_from(Reason::ALL.len()).unwrap()), None);
        assert_eq!(Reason::Done.index(), 0, "the number that needs no values");
    }

    #[test]
    fn foreign_words_are_escaped() {
        let ended = Ended { reason: Reason::ClosedByPeer, code: 7, text: Bytes::from_static(b"bye\n") };
        assert_eq!(ended.to_string(), "closed by the peer with code 7: bye\\n");
        assert!(!ended.is_good());
    }
}
