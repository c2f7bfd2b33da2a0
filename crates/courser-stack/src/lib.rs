//! A host stack: sessions over QUIC, TCP and UDP for applications inside the process and in other ones.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`plain`] | the worker of TCP and UDP sessions, which serves the same ports as the workers of QUIC do |
//!
//! Everything here needs Unix.
#![cfg(unix)]
#![forbid(unsafe_code)]

pub mod plain;
