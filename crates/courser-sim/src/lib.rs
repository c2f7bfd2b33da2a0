//! A simulated network in virtual time.
//!
//! Ten minutes of traffic over a bad link take a second or so, and the same seed gives the same run, byte for byte. It is
//! made for testing protocols that do no input and output of their own: give them a [`Host`] face, put them into a
//! [`World`], and run. The same link model also stands between real UDP sockets: see [`relay`].
//!
//! | You want | Look at |
//! |---|---|
//! | one direction of a link, by itself | [`Link`], [`LinkConfig`] |
//! | what a link can do, with units | [`node`] |
//! | hosts, routers, address translation | [`World`], [`topology`], [`nat`] |
//! | drop exactly this datagram; be an adversary | [`script`] |
//! | forty well-known paths for congestion control | [`paths`] |
//! | real sockets | [`relay`] |
//! | the same run again | [`World::trace_hash`] |
//! | hosts that are woken late, as on a busy machine | [`late`] |
//! | hosts that speak QUIC | [`quic`] |
//!
//! Times are microseconds, rates bits per second, sizes bytes. Only [`quic`] knows a protocol above
//! UDP.

#![forbid(unsafe_code)]

mod agenda;
pub mod config;
pub mod datagram;
pub mod draw;
pub mod host;
pub mod late;
pub mod link;
pub mod nat;
pub mod node;
pub mod outcome;
pub mod paths;
pub mod quic;
pub mod relay;
pub mod rng;
mod route;
pub mod script;
pub mod stats;
pub mod topology;
pub mod trace;
pub mod world;

pub use config::{Duplex, LinkConfig};
pub use datagram::{CE, Datagram, ECT0, ECT1, NOT_ECT, Pool};
pub use host::{Host, Outbox};
pub use link::Link;
pub use nat::{Nat, NatConfig};
pub use outcome::{Limits, Stop, Stuck};
pub use rng::Rng;
pub use stats::{Cause, LinkStats};
pub use topology::{Dumbbell, addr, home, point_to_point};
pub use trace::Event;
pub use world::{HostId, LinkId, NodeId, World};
