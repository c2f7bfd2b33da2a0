//! The host stack: QUIC, TCP and UDP for applications of the same process and of other ones.
//!
//! A [`Host`](host::Host) keeps applications and what each of them has. An application inside the process
//! [attaches](host::Host::attach) directly; for those outside, a [`Service`](service::Service) lets them in through a Unix socket and
//! exchanges messages and bytes with them over shared memory. Both use the calls of `courser_session::stack::Stack`, which contains no
//! QUIC.
//!
//! ```text
//! application ──┬── endpoint (QUIC listener) ──┬── worker: engine, UDP socket, thread ── port ──┐
//!               │                              └── worker …                              port ──┤
//!               ├── endpoint (QUIC dialler) ─────── worker                                port ──┼── Stack: the application's calls
//!               └── endpoint (TCP, UDP) ─────────── worker: sockets, thread               port ──┘
//! ```
//!
//! An endpoint belongs to one application and ends with it: what an application does at its end of a port, a worker of another
//! one never sees.

#![cfg(unix)]
#![forbid(unsafe_code)]

pub mod echo;
pub mod host;
pub mod plain;
pub mod service;
