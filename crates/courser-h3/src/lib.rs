//! Sans-IO HTTP/3 (RFC 9114) with QPACK (RFC 9204), extensible priorities (RFC 9218), extended CONNECT (RFC 9220) and HTTP
//! datagrams (RFC 9297).
//!
//! This crate knows no socket, clock, thread or QUIC packet: it speaks to whatever carries streams through a small byte
//! contract, [`Transport`], so that the same code runs over QUIC, in a simulator, and between two buffers in a test.
#![forbid(unsafe_code)]

pub mod error;
pub mod qpack;
pub mod transport;

pub use error::{Code, ConnectionError};
pub use transport::{Read, Transport, WriteError};
