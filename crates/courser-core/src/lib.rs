//! Sans-IO QUIC.
//!
//! This crate holds everything of QUIC that needs no operating system: wire codecs, buffers, packet protection traits,
//! recovery, congestion control, streams, the packetiser, connections and the engine over many of them. It opens no
//! socket, reads no clock, starts no thread and has no unsafe code; time and randomness are arguments.
//!
//! The modules form rows; a module uses its own row's vocabulary and rows below it:
//!
//! ```text
//! 7  engine        many connections, routes, queues, admission, trains
//! 6  conn          one connection: wiring, and what happened to each packet
//! 5  packetiser    what goes into the next datagram
//! 4  stream   control   path   cid   datagram
//! 3  recovery   ack   cc   protect
//! 2  buf   wire   crypto
//! 1  time  ids  error  config  observe  spans
//! ```
#![forbid(unsafe_code)]

pub mod ack;
pub mod buf;
pub mod cc;
pub mod cid;
pub mod config;
pub mod conn;
pub mod control;
pub mod crypto;
pub mod datagram;
pub mod engine;
pub mod error;
pub mod ids;
pub mod observe;
pub mod packetiser;
pub mod path;
pub mod protect;
pub mod recovery;
pub mod spans;
pub mod stream;
pub mod time;
pub mod wire;
