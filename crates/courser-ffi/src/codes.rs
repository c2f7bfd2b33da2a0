//! Errors as numbers, and their sentences.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};

use courser_session::stack::Error;

/// What a call failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum courser_error {
    /// It did not fail.
    COURSER_OK = 0,
    /// It would have to wait, and the session does not block.
    COURSER_WOULD_BLOCK = -1,
    /// The session's time for a call ran out.
    COURSER_TIMED_OUT = -2,
    /// There is no session of that number any more.
    COURSER_NO_SESSION = -3,
    /// A session of that kind, or in that state, cannot do that.
    COURSER_UNFIT = -4,
    /// The address makes no sense.
    COURSER_ADDRESS = -5,
    /// The session ended, or was not opened; courser_end tells why.
    COURSER_ENDED = -6,
    /// The peer gave up sending.
    COURSER_RESET = -7,
    /// The peer does not want what is sent.
    COURSER_STOPPED = -8,
    /// The datagram is too long, or the peer takes none.
    COURSER_DATAGRAM = -9,
    /// The host turned the request down.
    COURSER_REFUSED = -10,
    /// There are as many sessions as there may be.
    COURSER_FULL = -11,
    /// Nobody serves at the socket, or it may not be used.
    COURSER_ATTACH = -12,
    /// The service is gone, and all sessions with it.
    COURSER_SERVICE_GONE = -13,
    /// The configuration cannot be used.
    COURSER_CONFIG = -14,
    /// The operating system refused.
    COURSER_SYSTEM = -15,
    /// An argument makes no sense: a null pointer, text that is not UTF-8, an unknown constant.
    COURSER_ARGUMENT = -16,
    /// An error of the library.
    COURSER_INTERNAL = -17,
}

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum courser_protocol {
    /// Connections with streams and datagrams, encrypted.
    COURSER_QUIC = 0,
    /// One stream for each connection, not encrypted.
    COURSER_TCP = 1,
    /// Datagrams, not encrypted.
    COURSER_UDP = 2,
}

/// Settings of a session, for courser_set_option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum courser_option {
    /// Milliseconds of silence after which a connection is over.
    COURSER_IDLE_TIMEOUT_MS = 0,
    /// Milliseconds of silence after which a packet keeps the connection.
    COURSER_KEEP_ALIVE_MS = 1,
    /// Whether unreliable datagrams are taken: 0 or 1.
    COURSER_DATAGRAMS = 2,
    /// How many workers a listener has.
    COURSER_WORKERS = 3,
    /// How many streams the peer may have open at a time, of each direction.
    COURSER_STREAMS = 4,
    /// Whether calls answer COURSER_WOULD_BLOCK instead of waiting: 0 or 1. At any time.
    COURSER_NONBLOCKING = 5,
    /// Milliseconds that a call may take; negative: for ever. At any time.
    COURSER_TIMEOUT_MS = 6,
}

/// What a session is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum courser_state {
    /// Created.
    COURSER_FRESH = 0,
    /// It has an address and does not listen.
    COURSER_BOUND = 1,
    /// It takes connections.
    COURSER_LISTENING = 2,
    /// It is being opened.
    COURSER_OPENING = 3,
    /// In use.
    COURSER_OPEN = 4,
    /// Over. What arrived before can still be read.
    COURSER_OVER = 5,
}

/// Why a session ended or could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum courser_reason {
    /// It did all that it was there for; the peer has everything.
    COURSER_WHY_DONE = 0,
    /// It was given up before everything had arrived, here or by the peer.
    COURSER_WHY_GIVEN_UP = 1,
    /// The program closed it.
    COURSER_WHY_CLOSED_HERE = 2,
    /// The peer's program closed it; code and text are the peer's.
    COURSER_WHY_CLOSED_BY_PEER = 3,
    /// The peer broke a rule.
    COURSER_WHY_PEER_BROKE = 4,
    /// The peer's transport closed it; the code is a transport code.
    COURSER_WHY_PEER_TRANSPORT = 5,
    /// TLS failed; the code is the alert.
    COURSER_WHY_TLS = 6,
    /// Nothing was heard for the idle timeout.
    COURSER_WHY_IDLE = 7,
    /// The handshake took too long.
    COURSER_WHY_HANDSHAKE_TIMEOUT = 8,
    /// The peer lost its state.
    COURSER_WHY_PEER_RESET = 9,
    /// There is no common version of the protocol.
    COURSER_WHY_VERSION = 10,
    /// The server did not want the connection.
    COURSER_WHY_DECLINED = 11,
    /// An error of the host.
    COURSER_WHY_OWN_ERROR = 12,
    /// A connection that came in had gone by the time the program wanted it.
    COURSER_WHY_TOO_LATE = 13,
    /// There is no room for another session.
    COURSER_WHY_NO_ROOM = 14,
    /// Too many streams wait to be opened.
    COURSER_WHY_TOO_MANY_WAITING = 15,
    /// Nobody takes connections there.
    COURSER_WHY_NO_LISTENER = 16,
    /// The settings were not registered.
    COURSER_WHY_NO_PROFILE = 17,
    /// The connection that a stream was to be opened in is over.
    COURSER_WHY_CONNECTION_OVER = 18,
    /// No new connections are taken any more; those that there are go on.
    COURSER_WHY_DRAINING = 19,
    /// Nobody answers at the address, or no way leads there.
    COURSER_WHY_UNREACHABLE = 20,
    /// The system refused; the text says what.
    COURSER_WHY_SYSTEM_REFUSED = 21,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct courser_ended {
    /// One of courser_reason.
    pub reason: u32,
    /// The code that came with it; 0 when there is none.
    pub code: u64,
}

/// There is something to read.
pub const COURSER_READ: u32 = 1;
/// Something can be written, or opened in a connection.
pub const COURSER_WRITE: u32 = 2;
/// There is something to accept.
pub const COURSER_ACCEPT: u32 = 4;
/// The session is over.
pub const COURSER_HANGUP: u32 = 8;
/// It did not end well.
pub const COURSER_ERROR: u32 = 16;

/// A session to which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct courser_event {
    /// Which.
    pub session: u64,
    /// What can be done with it: COURSER_READ and so on.
    pub ready: u32,
}

/// Figures of a session. Those that make no sense for its kind are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct courser_stats {
    /// Bytes that the program wrote.
    pub written_bytes: u64,
    /// Bytes that the program was given.
    pub read_bytes: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Packets declared lost, or datagrams that there was no room for.
    pub packets_lost: u64,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u64,
    /// Congestion window in bytes.
    pub congestion_window_bytes: u64,
    /// Sessions that live inside this one.
    pub children: u64,
}

/// Why a call failed: its number and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number.
    pub code: courser_error,
    /// The sentence.
    pub text: String,
    /// What the peer gave as its reason; 0 when there is no such number.
    pub peer_code: u64,
}

impl Failure {
    /// An argument that makes no sense.
    #[must_use]
    pub fn argument(text: &str) -> Self {
        Self { code: courser_error::COURSER_ARGUMENT, text: text.to_owned(), peer_code: 0 }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use courser_error as code;
        let number = match &error {
            Error::WouldBlock => code::COURSER_WOULD_BLOCK,
            Error::TimedOut => code::COURSER_TIMED_OUT,
            Error::NoSession => code::COURSER_NO_SESSION,
            Error::Unfit(_) => code::COURSER_UNFIT,
            Error::Address(_) => code::COURSER_ADDRESS,
            Error::Ended(_) => code::COURSER_ENDED,
            Error::Reset(_) => code::COURSER_RESET,
            Error::Stopped(_) => code::COURSER_STOPPED,
            Error::Datagram => code::COURSER_DATAGRAM,
            Error::Refused(_) => code::COURSER_REFUSED,
            Error::Full => code::COURSER_FULL,
            Error::Attach { .. } => code::COURSER_ATTACH,
            Error::ServiceGone => code::COURSER_SERVICE_GONE,
            Error::Config(_) => code::COURSER_CONFIG,
            Error::System(_) => code::COURSER_SYSTEM,
            _ => code::COURSER_INTERNAL,
        };
        let peer_code = match &error {
            Error::Ended(ended) => ended.code,
            Error::Reset(code) | Error::Stopped(code) => *code,
            _ => 0,
        };
        Self { code: number, text: error.to_string(), peer_code }
    }
}

/// Every number with its sentence.
const SENTENCES: [(courser_error, &CStr); 18] = [
    (courser_error::COURSER_OK, c"it did not fail"),
    (courser_error::COURSER_WOULD_BLOCK, c"nothing can be done now"),
    (courser_error::COURSER_TIMED_OUT, c"the time for the call ran out"),
    (courser_error::COURSER_NO_SESSION, c"there is no such session"),
    (courser_error::COURSER_UNFIT, c"the session cannot do that"),
    (courser_error::COURSER_ADDRESS, c"the address makes no sense"),
    (courser_error::COURSER_ENDED, c"the session ended, or was not opened"),
    (courser_error::COURSER_RESET, c"the peer gave up sending"),
    (courser_error::COURSER_STOPPED, c"the peer does not want what is sent"),
    (courser_error::COURSER_DATAGRAM, c"the datagram is too long, or the peer takes none"),
    (courser_error::COURSER_REFUSED, c"the host turned the request down"),
    (courser_error::COURSER_FULL, c"there are as many sessions as there may be"),
    (courser_error::COURSER_ATTACH, c"nobody serves at the socket, or it may not be used"),
    (courser_error::COURSER_SERVICE_GONE, c"the service is gone, and all sessions with it"),
    (courser_error::COURSER_CONFIG, c"the configuration cannot be used"),
    (courser_error::COURSER_SYSTEM, c"the operating system refused"),
    (courser_error::COURSER_ARGUMENT, c"an argument makes no sense"),
    (courser_error::COURSER_INTERNAL, c"an error of the library"),
];

/// The sentence of a number, which lives as long as the program.
#[must_use]
pub fn sentence(code: c_int) -> *const c_char {
    let known = SENTENCES.iter().find(|(known, _)| *known as c_int == code);
    known.map_or(c"no number of this library", |(_, sentence)| sentence).as_ptr()
}

thread_local! {
    static LAST: RefCell<(CString, u64)> = RefCell::default();
}

/// Keeps what went wrong for the calling thread.
pub fn keep(failure: &Failure) {
    // A peer's words may have a zero, which C takes for the end.
    let text = CString::new(failure.text.replace('\0', "\\0")).unwrap_or_default();
    // A thread that is ending keeps nothing.
    let _ = LAST.try_with(|last| *last.borrow_mut() = (text, failure.peer_code));
}

/// What went wrong last in the calling thread; valid until its next call that fails.
#[must_use]
pub fn last() -> *const c_char {
    LAST.try_with(|last| last.borrow().0.as_ptr()).unwrap_or_else(|_| c"".as_ptr())
}

/// The code that came with it.
#[must_use]
pub fn last_code() -> u64 {
    LAST.try_with(|last| last.borrow().1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_sentence_of_its_own() {
        for (code, sentence) in SENTENCES {
            assert_eq!(super::sentence(code as c_int), sentence.as_ptr());
            assert_eq!(SENTENCES.iter().filter(|(_, other)| *other == sentence).count(), 1);
        }
        let codes: Vec<c_int> = SENTENCES.iter().map(|(code, _)| *code as c_int).collect();
        assert_eq!(codes, (0..18).map(|n| -n).collect::<Vec<_>>());
    }

    #[test]
    fn reasons_have_the_numbers_that_they_have_in_messages() {
        use courser_reason as of;
        use courser_session::reason::Reason;
        let same = [
            (of::COURSER_WHY_DONE, Reason::Done),
            (of::COURSER_WHY_GIVEN_UP, Reason::GivenUp),
            (of::COURSER_WHY_CLOSED_HERE, Reason::ClosedHere),
            (of::COURSER_WHY_CLOSED_BY_PEER, Reason::ClosedByPeer),
            (of::COURSER_WHY_PEER_BROKE, Reason::PeerBroke),
            (of::COURSER_WHY_PEER_TRANSPORT, Reason::PeerTransport),
            (of::COURSER_WHY_TLS, Reason::Tls),
            (of::COURSER_WHY_IDLE, Reason::Idle),
            (of::COURSER_WHY_HANDSHAKE_TIMEOUT, Reason::HandshakeTimeout),
            (of::COURSER_WHY_PEER_RESET, Reason::PeerReset),
            (of::COURSER_WHY_VERSION, Reason::Version),
            (of::COURSER_WHY_DECLINED, Reason::Refused),
            (of::COURSER_WHY_OWN_ERROR, Reason::Internal),
            (of::COURSER_WHY_TOO_LATE, Reason::TooLate),
            (of::COURSER_WHY_NO_ROOM, Reason::Full),
            (of::COURSER_WHY_TOO_MANY_WAITING, Reason::TooManyWaiting),
            (of::COURSER_WHY_NO_LISTENER, Reason::NoListener),
            (of::COURSER_WHY_NO_PROFILE, Reason::NoProfile),
            (of::COURSER_WHY_CONNECTION_OVER, Reason::ConnectionOver),
            (of::COURSER_WHY_DRAINING, Reason::Draining),
            (of::COURSER_WHY_UNREACHABLE, Reason::Unreachable),
            (of::COURSER_WHY_SYSTEM_REFUSED, Reason::System),
        ];
        assert_eq!(same.len(), Reason::ALL.len());
        for (here, there) in same {
            assert_eq!(here as u32, u32::from(there.index()), "{there}");
        }
    }
}
