//! The programs that run on a connection: perf, echo, hq-interop, and the demonstration, which is perf with files.
//!
//! Each is a state machine over [`crate::transport::Streams`]: it opens no socket and reads no clock except to time its
//! own transactions. What a peer can make it keep is one small record per open stream; the transport's stream limit
//! bounds how many.

pub mod body;
pub mod by_stream;
pub mod echo;
pub mod exchange;
pub mod flip;
pub mod hq_client;
pub mod hq_server;
pub mod perf_client;
pub mod perf_server;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
