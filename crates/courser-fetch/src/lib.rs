//! Downloads and uploads over HTTP/3, HTTP/2 and HTTP/1.1: what `courser get` is made of.
//!
//! ```text
//! download  a job to its file: retries, resume        batch     several jobs at once
//! client    one request to its answer: redirects, alternatives, pool
//! race      HTTP/3 against TCP                          pool      connections by origin
//! via       one connection, whatever carries it         dns       names to addresses
//! offers    what HTTPS records say about HTTP/3         redirect  where an answer points
//! alt_svc   what servers say about it                   informational  what they say before they answer
//! partial   files that are not complete yet             name      names for files
//! body      bytes out and in                            coding    what servers compressed
//! retry     when and how often again                    error     why not
//! ```
//!
//! # Rules that hold everywhere
//!
//! - Only `https`: an answer counts when it came whole, over a certificate that was verified.
//! - Bodies stream. What is held of one is a few buffers, however long it is.
//! - A file has its final name only when it is complete.
//! - What a server says is bounded: header fields by the protocols below, redirects, alternatives, delays before a
//!   further try by constants of the modules.

#![forbid(unsafe_code)]

pub mod alt_svc;
pub mod batch;
pub mod body;
pub mod client;
pub mod coding;
pub mod dns;
pub mod download;
pub mod error;
pub mod informational;
pub mod name;
pub mod offers;
pub mod options;
pub mod partial;
pub mod pool;
pub mod race;
pub mod redirect;
pub mod retry;
pub mod timing;
pub mod via;

pub use client::{Answer, Client};
pub use download::{Done, Job, Sink};
pub use error::Error;
pub use options::{Http, Options, Trust};
pub use timing::Timing;
