//! What applications and workers say to each other.
//!
//! A [`Submission`] goes from the application to the worker, a [`Completion`] comes back. Whatever opens a session
//! carries a token of the application's choice, and the answer ([`Completion::Opened`] or [`Completion::Failed`])
//! carries it back; from then on the session's handle names it. Opening works the same on every level: listeners and
//! connections are opened at an [`Endpoint`], streams on a connection's handle; listeners yield connections, connections
//! yield streams, and the application accepts or refuses each.
//!
//! Bulk bytes are `Bytes`: the message moves their ownership, nothing is copied. Between processes the same messages
//! travel as 32 bytes beside a chunk, see [`Raw`].

mod parts;
mod raw;

#[cfg(test)]
mod tests;

use core::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

pub use raw::{BadMessage, Op, Payload, Raw};

use crate::handle::{Handle, HandleError};

/// Where to listen or to connect, and with which settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address to listen on or to connect to.
    pub address: SocketAddr,
    /// The name that the server must prove to have; empty for a listener.
    pub server_name: String,
    /// A set of settings (certificates, limits, protocols) that was registered with the worker before.
    pub profile: u32,
}

/// Figures of a session. Those that make no sense for its kind are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Bytes that the application wrote.
    pub written_bytes: u64,
    /// Bytes that the application was given.
    pub read_bytes: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u64,
    /// Congestion window in bytes.
    pub congestion_window_bytes: u64,
    /// Sessions that live inside this one.
    pub children: u64,
}

/// The two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where this end is. Of a UDP listener's session, and of a QUIC connection before its path is known, the address that the
    /// socket is bound to.
    pub local: SocketAddr,
    /// Where the peer is.
    pub peer: SocketAddr,
}

/// What an application asks of its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// Open a listener.
    Listen {
        /// Comes back with the answer.
        token: u64,
        /// Where to listen.
        at: Box<Endpoint>,
    },
    /// Open a connection.
    Connect {
        /// Comes back with the answer.
        token: u64,
        /// The server.
        to: Box<Endpoint>,
    },
    /// Keep a session that was [`Completion::Accepted`].
    Accept {
        /// The accepted session.
        handle: Handle,
    },
    /// Turn an accepted session away.
    Refuse {
        /// The accepted session.
        handle: Handle,
        /// The application's error code.
        code: u64,
    },
    /// Open a stream that carries data both ways.
    OpenBi {
        /// The connection.
        connection: Handle,
        /// Comes back with the answer.
        token: u64,
    },
    /// Open a stream that carries data to the peer only.
    OpenUni {
        /// The connection.
        connection: Handle,
        /// Comes back with the answer.
        token: u64,
    },
    /// Send bytes.
    Write {
        /// The stream.
        stream: Handle,
        /// At most as many bytes as the credit allows.
        data: Bytes,
        /// Whether these are the stream's last bytes.
        fin: bool,
    },
    /// The stream ends after what was written.
    Finish {
        /// The stream.
        stream: Handle,
    },
    /// The application is done with bytes that it was given.
    Consumed {
        /// The stream.
        stream: Handle,
        /// How many bytes.
        bytes: u64,
    },
    /// Give up sending.
    Reset {
        /// The stream.
        stream: Handle,
        /// The application's error code.
        code: u64,
    },
    /// Give up sending, but have the first bytes of the stream arrive: the peer's application reads them, then it is told of
    /// the reset. [`Completion::AllAcked`], or the end of the session, tells when that has happened. Given again, it can
    /// only lower the number; [`Self::Reset`] gives up the rest. Rejected when fewer bytes were written, and when the peer
    /// does not take such resets.
    ResetAt {
        /// The stream.
        stream: Handle,
        /// The application's error code; the first one counts.
        code: u64,
        /// Bytes from the beginning of the stream that still arrive.
        reliable_size: u64,
    },
    /// Ask the peer to give up sending.
    Stop {
        /// The stream.
        stream: Handle,
        /// The application's error code.
        code: u64,
    },
    /// End a session: a listener takes no more connections, a connection closes with this code, a stream is given up
    /// in both directions unless it is finished.
    Close {
        /// The session.
        handle: Handle,
        /// The application's error code.
        code: u64,
        /// A reason for the peer's log; may be empty.
        reason: Bytes,
    },
    /// Send one unreliable datagram. Rejected with [`Rejection::Overrun`] when too many wait;
    /// [`Completion::DatagramRoom`] follows when there is room again.
    Datagram {
        /// The connection.
        connection: Handle,
        /// The content.
        data: Bytes,
        /// With a tag, [`Completion::DatagramFate`] tells what became of it.
        tag: Option<u64>,
    },
    /// Ask for figures.
    Stats {
        /// The session.
        handle: Handle,
        /// Comes back with the answer.
        token: u64,
    },
    /// Nothing; the worker takes a turn.
    Wake,
}

/// What a worker tells an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The session that was asked for exists now.
    Opened {
        /// From the submission.
        token: u64,
        /// Names the session from now on.
        handle: Handle,
        /// What both ends call it in the transport (QUIC: the stream ID); 0 for other sessions than streams.
        number: u64,
    },
    /// The session that was asked for could not be opened.
    Failed {
        /// From the submission.
        token: u64,
        /// Index in the worker's list of reasons.
        reason: u8,
        /// What the index alone does not say; may be empty.
        text: Bytes,
    },
    /// Where the two ends of a session are. Told of connections before they are established, and of streams that are
    /// connections of their own (TCP) next to [`Self::Opened`] or [`Self::Accepted`]; not of streams in a connection.
    Addresses {
        /// The session.
        handle: Handle,
        /// Its ends.
        ends: Box<Addresses>,
    },
    /// The connection's handshake is done.
    Established {
        /// The connection.
        connection: Handle,
    },
    /// A session came in. The application answers [`Submission::Accept`] or [`Submission::Refuse`]; a stream goes on
    /// without an answer.
    Accepted {
        /// The new session.
        handle: Handle,
        /// The listener or connection that it came in on.
        parent: Handle,
        /// As in [`Self::Opened`].
        number: u64,
    },
    /// More may be written.
    CreditGranted {
        /// The stream.
        stream: Handle,
        /// The total number of bytes that may ever have been written.
        limit: u64,
    },
    /// The peer has everything, the end included; after [`Submission::ResetAt`] all that was promised. Left out when a [`Self::Closed`] that says as much follows at once.
    AllAcked {
        /// The stream.
        stream: Handle,
    },
    /// There is something to read. Only for applications that read by themselves.
    Readable {
        /// The stream.
        stream: Handle,
    },
    /// Bytes of the stream, in order. They are the application's now; [`Submission::Consumed`] returns the credit.
    Data {
        /// The stream.
        stream: Handle,
        /// Position of the first byte in the stream.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// Whether these are the stream's last bytes.
        fin: bool,
    },
    /// The peer gave up sending.
    Reset {
        /// The stream.
        stream: Handle,
        /// The peer's error code.
        code: u64,
    },
    /// The peer does not want what is sent.
    Stopped {
        /// The stream.
        stream: Handle,
        /// The peer's error code.
        code: u64,
    },
    /// The session ended. This is the last message that names the handle.
    Closed {
        /// The session.
        handle: Handle,
        /// The error code; 0 when none was given.
        code: u64,
        /// Index in the worker's list of reasons. 0: it did all it was there for, so that the peer has everything.
        reason: u8,
        /// What the index alone does not say, for example the peer's own words; may be empty.
        text: Bytes,
    },
    /// One unreliable datagram.
    Datagram {
        /// The connection.
        connection: Handle,
        /// The content.
        data: Bytes,
    },
    /// What became of a datagram with a tag; told once. One that is told as lost may have arrived after all.
    DatagramFate {
        /// The connection.
        connection: Handle,
        /// From the submission.
        tag: u64,
        /// Whether the peer acknowledged it; otherwise it was declared lost.
        arrived: bool,
    },
    /// Datagrams can be sent, after one had been rejected for want of room.
    DatagramRoom {
        /// The connection.
        connection: Handle,
    },
    /// Figures of a session.
    Stats {
        /// The session.
        handle: Handle,
        /// From the submission.
        token: u64,
        /// The figures.
        stats: Box<SessionStats>,
    },
    /// A submission made no sense and was dropped, with what it carried. Normal when a session ended while the
    /// submission was on its way.
    Rejected {
        /// The handle that was used.
        handle: Handle,
        /// What was asked.
        op: Op,
        /// Why not.
        why: Rejection,
    },
    /// Nothing; the application looks around.
    Wake,
}

// One message is at most one cache line.
const _: () = assert!(size_of::<Submission>() <= 64 && size_of::<Completion>() <= 64);

/// Why a submission was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The handle does not name a session that the application can use so.
    Handle(HandleError),
    /// More bytes than the credit allows, or more datagrams than there is room for.
    Overrun,
    /// A number or a size that the transport cannot carry, or something that the peer did not agree to.
    Argument,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(error) => error.fmt(f),
            Self::Overrun => f.write_str("more than the credit allows, or than there is room for"),
            Self::Argument => f.write_str("a number or size that the transport or the peer does not take"),
        }
    }
}

impl core::error::Error for Rejection {}
