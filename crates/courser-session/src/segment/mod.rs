//! Memory that an application in another process shares with its worker.
//!
//! A port between processes is a *segment*: a sealed file in memory that the service makes and both map. In it lie
//!
//! | Part | Written by | Read by |
//! |---|---|---|
//! | header: the sizes | the service, once | the application |
//! | submission ring, 32 bytes a message | the application | the worker |
//! | arena: bytes that go with submissions | the application | the worker, once: it copies them |
//! | completion ring | the worker | the application |
//! | pool: chunks with bytes that go with completions | the worker | the application, which may keep them for a while |
//! | board: a bit for each chunk that comes back | the application, from any thread | the worker |
//! | a word each: who sleeps, who is gone | each side its own | the other |
//!
//! Bytes cross the border by one copy in and one copy out: the application writes into the arena and the worker takes them into
//! a buffer of its own; the worker writes into chunks and the application reads them there.
//!
//! **Nothing in a segment is believed.** The worker copies an index, a message, a region or a bit once, checks it against its own
//! account, and works with the copy. What cannot be true is a [`Fault`]: the port is over, its sessions end, nobody else
//! notices. What a segment costs the service is its size, one message that waits for chunks, and a buffer for what it just
//! took.

#[cfg(target_os = "linux")]
mod application;
#[cfg(target_os = "linux")]
mod arena;
#[cfg(target_os = "linux")]
mod copy;
#[cfg(test)]
#[cfg(all(target_os = "linux", not(loom)))]
mod hostile_tests;
#[cfg(target_os = "linux")]
mod layout;
#[cfg(target_os = "linux")]
mod payload;
#[cfg(target_os = "linux")]
mod pool;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod ring;
mod setup;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
#[cfg(target_os = "linux")]
mod worker;

use core::fmt;

pub use setup::{BadSetup, PAYLOAD_MAX, SEGMENT_MAX, SharedSetup};
#[cfg(target_os = "linux")]
pub(crate) use worker::WorkerLink;
#[cfg(all(target_os = "linux", not(all(loom, test))))]
pub use {
    application::SharedPort,
    shared::{Offer, shared},
};

use crate::msg::BadMessage;

#[cfg(all(target_os = "linux", not(all(loom, test))))]
mod shared;

/// What an application in another process did that no honest one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An index of a ring that cannot be true.
    Index,
    /// Bytes outside of the place for them, or more than a message may carry.
    Region,
    /// A message that makes no sense.
    Message(BadMessage),
    /// A chunk came back that the application did not have.
    Chunk,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the application broke the rules of its segment: ")?;
        match self {
            Self::Index => f.write_str("an index of a ring cannot be true"),
            Self::Region => f.write_str("a message's bytes lie outside of the place for them"),
            Self::Message(why) => why.fmt(f),
            Self::Chunk => f.write_str("a chunk came back that it did not have"),
        }
    }
}

impl core::error::Error for Fault {}
