//! The network as the operating system gives it.
//!
//! * [`socket`] — a UDP socket that sends and receives trains of datagrams, with offload where the system has it;
//! * [`adapter`] — one system call as a trait, so that tests can make it fail;
//! * [`target`] — `HOST:PORT` and `quic://` addresses as text;
//! * [`resolve`] — names to addresses, and the order in which to try these;
//! * `os` — everything that differs between systems, in one place.

pub mod adapter;
pub(crate) mod os;
pub mod resolve;
pub mod socket;
pub mod target;
