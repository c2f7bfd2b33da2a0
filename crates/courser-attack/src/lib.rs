//! Hostile clients and servers over real UDP sockets, on loopback alone, against the built `courser` command.
//!
//! - [`hand`]: a connection with real TLS whose keys the attacker keeps: it can send any packet.
//! - [`guest`]: an application that means harm, on an engine that keeps the rules.
//! - [`web`]: what is done with that to `serve`, `proxy` and `get`.
//! - [`scripts`]: what is done, by which end, and what has to come of it.
//! - [`victim`]: the command as server or client, and what it takes meanwhile.
//! - [`runner`]: plays scripts, with honest clients beside them, and tells what was seen.
//!
//! Nothing here is part of the product, and nothing leaves this machine: a target that is not a loopback address is refused.

#![forbid(unsafe_code)]

pub mod guest;
pub mod hand;
pub mod identity;
pub mod raw;
pub mod runner;
pub mod scripts;
pub mod victim;
pub mod web;
