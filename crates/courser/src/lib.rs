//! Courser: QUIC for Rust services.
//!
//! `courser-core` is QUIC without an operating system; this crate adds the operating system.
//!
//! ```text
//! driving    worker: machine (engine) + socket, one turn at a time
//! system     net::socket, net::target, net::resolve, clock
//! beside     certs (throw-away certificates), doctor (what this machine offers)
//! ```
//!
//! A *worker* owns one engine and one socket and shares nothing with other workers. Its
//! [`turn`](worker::Worker::turn) is a plain function: it reads what came, lets the engine work, sends what is to be
//! sent and says when it wants to run again. Who calls it (the application's own thread, a thread of its own, a Tokio
//! task) is the only difference between the drivers.

pub mod certs;
pub mod clock;
pub mod doctor;
pub mod net;
pub mod worker;

pub use courser_core as core;
