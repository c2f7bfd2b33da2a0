//! Sans-IO HTTP/3 (RFC 9114) with QPACK (RFC 9204), extensible priorities (RFC 9218), extended CONNECT (RFC 9220) and HTTP
//! datagrams (RFC 9297).
//!
//! This crate knows no socket, clock, thread or QUIC packet: it speaks to whatever carries streams through a small byte
//! contract, [`Transport`], so that the same code runs over QUIC, in a simulator, and between two buffers in a test
//! ([`testing`]). [`Connection`] is the whole of it; what it is made of:
//!
//! | Module | What it holds |
//! |---|---|
//! | [`frame`] | frame types, headers, the incremental reader |
//! | [`settings`] | the SETTINGS frame, and what a peer permits |
//! | [`message`] | requests and responses as field lines, with every rule about them |
//! | [`priority`] | the Priority field and PRIORITY_UPDATE |
//! | [`datagram`], [`capsule`] | HTTP datagrams, with and without a stream |
//! | [`webtransport`] | what begins a stream of a WebTransport session, and its error codes |
//! | [`conn`] | the connection: control and QPACK streams, requests, graceful end, limits |
//! | [`watch`] | what is told to whoever writes traces |
//! | [`qpack`] | field sections by reference to tables |
#![forbid(unsafe_code)]

pub mod capsule;
pub mod conn;
pub mod datagram;
pub mod error;
pub mod frame;
pub mod message;
pub mod priority;
pub mod qpack;
pub mod settings;
pub mod testing;
pub mod transport;
pub mod watch;
pub mod webtransport;

pub use conn::{Body, Config, Connection, Error, Event, Head, Uni};
pub use error::{Code, ConnectionError};
pub use message::Protocol;
pub use settings::Settings;
pub use transport::{Read, Transport, WriteError};

/// A length as the 64-bit number that the wire format calculates with.
pub(crate) fn wide(n: usize) -> u64 {
    // No platform of the standard library has addresses of more than 64 bits.
    u64::try_from(n).unwrap_or(u64::MAX)
}
