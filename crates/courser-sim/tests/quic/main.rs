//! Scenarios: two engines, a network that misbehaves, and what has to come out.
//!
//! Each run asserts that everything built is legal, that bytes arrive as they were sent, and that nothing is left at the
//! end ([`Net::finish`](courser_sim::quic::Net::finish)).
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod address;
mod aead;
mod amplified;
mod awaited;
mod counted;
mod early;
mod ext;
mod frames;
mod goals;
mod handshake;
mod life;
mod limits;
mod lossy;
mod migration;
mod mtu;
mod onwire;
mod opening;
mod own;
mod packets;
mod partial;
mod preferred;
mod race;
mod shares;
mod support;
mod tls;
mod transfer;
mod versions;
