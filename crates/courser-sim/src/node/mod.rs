//! The small parts that a link is made of; each models one thing that a network does to datagrams.
//!
//! Gates look at a datagram once, when it enters the link: [`blackhole`], [`mtu`], [`ecn`], [`loss`], [`corrupt`],
//! [`duplicate`], [`policer`]. Then it waits in the [`queue`] (perhaps under [`codel`]) for the [`rate`], may be held for
//! the next [`bunch`], and travels for the [`delay`] plus [`jitter`] plus [`reorder`]. No node knows another one; the link
//! wires them.

pub mod blackhole;
pub mod bunch;
pub mod codel;
pub mod corrupt;
pub mod delay;
pub mod duplicate;
pub mod ecn;
pub mod jitter;
pub mod loss;
pub mod mtu;
pub mod policer;
pub mod queue;
pub mod rate;
pub mod reorder;
