//! Courser: QUIC for Rust services.
//!
//! `courser-core` is QUIC without an operating system; this crate adds the operating system.
//!
//! ```text
//! faces      blocking (also re-exported here), aio (feature "tokio")
//! sessions   hub: slots that handles and worker share, one turn at a time; session: ports, messages instead of handles
//! driving    worker: machine (hub with its engine) + socket, one turn at a time
//! system     net::socket, net::target, net::resolve, clock
//! http       h3: HTTP/3 servers and clients (feature "h3")
//! beside     certs (throw-away certificates), doctor (what this machine offers), qlog (traces),
//!            metrics (counters as text, feature "metrics"), spans (of `tracing`), address_tokens (no second Retry)
//! ```
//!
//! Begin with [`blocking`], which explains what dropping and closing mean; `aio` (feature `tokio`) is the same for Tokio.
//!
//! A *worker* owns one engine and one socket and shares nothing with other workers; several of them can have one port
//! ([`ServerOptions::workers`]), and another process can take it over ([`Handover`]). Its
//! [`turn`](worker::Worker::turn) is a plain function: it reads what came, lets the engine work, sends what is to be
//! sent and says when it wants to run again. Who calls it (the application's own thread, a thread of its own, a Tokio
//! task) is the only difference between the drivers.

#![forbid(unsafe_code)]

mod address_tokens;
#[cfg(feature = "tokio")]
pub mod aio;
pub mod blocking;
pub mod certs;
pub mod clock;
pub mod doctor;
mod error;
mod estate;
mod face;
#[cfg(feature = "h3")]
pub mod h3;
mod handover;
pub mod hub;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod net;
mod options;
pub mod qlog;
pub mod session;
mod spans;
mod staff;
mod wait;
pub mod worker;

pub use address_tokens::TokenStore;
pub use blocking::{Connection, Endpoint, Incoming, RecvStream, SendStream};
pub use courser_core as core;
pub use courser_core::config::Settings;
pub use courser_core::engine::{ConnStats, EarlyData, EngineStats, RetryPolicy, SourceLimits};
pub use courser_core::error::CloseReason;
pub use courser_core::ids::StreamId;
pub use courser_core::stream::Priority;
pub use courser_session::handle::Handle;
pub use courser_tls as tls;
pub use error::{
    ConnectError, ConnectionError, DatagramError, DatagramFate, EndpointError, ExportError, HandoverError, ReadError,
    WriteError,
};
pub use face::Request;
pub use handover::Handover;
pub use hub::crew::WorkerFigures;
pub use options::{ClientOptions, ServerOptions, SocketFacts, SocketOptions};
pub use worker::group::Steering;
