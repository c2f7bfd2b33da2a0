//! A simulated network in virtual time.
//!
//! Ten minutes of traffic over a bad link take a second or so, and the same seed gives the same run, byte for byte. It is
//! made for testing protocols that do no input and output of their own: give them a [`Host`] face, put them into a
//! [`World`], and run. An application over QUIC needs no more than [`quic::Application`]. The same link model also stands between
//! real UDP sockets: see [`relay`].
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
//! | an application of one's own over QUIC | [`quic::Application`], [`quic::EngineHost`] |
//! | hosts that speak QUIC and check every byte | [`quic::Net`] |
//! | whole runs drawn from a seed | [`quic::swarm`] |
//!
//! What a network can do, and where that is:
//!
//! | | |
//! |---|---|
//! | rates, also changing ones; delays | [`LinkConfig::rate`], [`rate_steps`](LinkConfig::rate_steps), [`delay_us`](LinkConfig::delay_us) |
//! | queues: drop-tail, CoDel, ECN marks | [`queue_bytes`](LinkConfig::queue_bytes), [`queue_datagrams`](LinkConfig::queue_datagrams), [`codel`](LinkConfig::codel), [`ce_above_us`](LinkConfig::ce_above_us) |
//! | policers, radio links that let out bunches | [`policer`](LinkConfig::policer), [`bunch`](LinkConfig::bunch) |
//! | losses by chance, in bursts, in bad times, chosen ones | [`loss`](LinkConfig::loss), [`loss_bursts`](LinkConfig::loss_bursts), [`loss_time`](LinkConfig::loss_time), [`lose`](LinkConfig::lose), [`loss_model`](LinkConfig::loss_model) |
//! | jitter, other order, copies, damage | [`jitter`](LinkConfig::jitter), [`reorder`](LinkConfig::reorder), [`duplicate`](LinkConfig::duplicate), [`corrupt`](LinkConfig::corrupt) |
//! | holes for large datagrams, ECN erased or abused | [`mtu`](LinkConfig::mtu), [`ecn`](LinkConfig::ecn) |
//! | outages | [`dead`](LinkConfig::dead), [`Link::set_dead`] |
//! | links that change | [`Link::set_rate`], [`Link::set_delay_us`], [`Link::replace`], by [`World::with_link`] |
//! | translators that rebind | [`NatConfig`], [`World::rebind`], [`home`] |
//! | hosts with several networks | [`World::add_address`], [`World::choose_link`] |
//! | adversaries: see, drop, delay, change, inject, answer | [`script::Tap`], [`Link::set_tap`], [`World::inject`] |
//! | hosts that are woken late | [`late::Late`] |
//!
//! The book of the project has a line of code for each (`docs/book/src/simulation.md`), which its tests compile.
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
