//! Sessions between applications and workers.
//!
//! Everything that an application holds is a *session* with a 64-bit [`handle::Handle`]: listeners, connections and
//! streams. Applications speak to workers in [`msg`] submissions, workers answer in completions; opening on a
//! connection's handle opens a stream, and a connection yields its peer's streams the way a listener yields connections.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`handle`] | handles, and the table that gives them out and never gives one out twice |
//! | [`msg`] | the vocabulary, typed for use in one process and as 32 bytes for use between processes |
//! | [`ring`] | bounded single-producer single-consumer rings |
//! | [`doorbell`] | waking the other side only when it sleeps |
//! | [`blocks`] | memory of pieces that go from one thread to another, used again |
//! | [`credit`] | how many bytes may wait per stream and direction |
//! | [`reason`] | why sessions end, as a number and as a sentence |
//! | [`control`] | the socket between applications and a host: messages and descriptors |
//! | `stack` | what programs call: sockets that are QUIC, TCP or UDP, over a host (Linux) |
//! | [`port`] | the meeting place: two rings between threads or none on one thread, and events that cannot overflow |
//! | [`segment`] | the memory of a port between processes, of which the worker believes nothing |
//!
//! Bulk bytes never pass through a ring: a message carries the *ownership* of a chunk, or, between processes, the place of
//! one. Nothing here knows QUIC; a worker for another transport could use the same ports. All unsafe code is in `ring::raw` and
//! `segment::raw`.
//!
//! # Tests
//!
//! `cargo test -p courser-session` runs all but the interleaving tests, which need
//! `RUSTFLAGS="--cfg loom" cargo test -p courser-session --release loom`.

#![deny(unsafe_code)]

pub mod blocks;
// The model checker looks at what is shared between threads and processes, not at what uses it.
#[cfg(not(all(loom, test)))]
pub mod control;
pub mod credit;
pub mod doorbell;
pub mod handle;
pub mod msg;
mod num;
pub mod port;
pub mod reason;
pub mod ring;
pub mod segment;
#[cfg(all(target_os = "linux", not(all(loom, test))))]
pub mod stack;
mod sync;
