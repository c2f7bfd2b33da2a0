//! Web servers on Courser: files, a reverse proxy, their configuration, and HTTP/1.1 and HTTP/2 over TCP beside HTTP/3.
//!
//! ```text
//! config   one TOML schema: what is served, where, by whose leave     error   what cannot be configured or begun
//! app      a request finds its site; counted, logged, answered        body    what answers are made of
//! files    a folder: paths, conditions, ranges, listings              log, metrics   what was done, for people and programs
//! proxy    an origin: fields, pool, time limits                       front   sockets, TLS, HTTP over TCP and QUIC, operation
//! ```
//!
//! A [`Server`](front::Server) has everything: it binds what a [`Config`](config::Config) names and serves until it is told
//! to end. [`App`](app::App) is the part without sockets: requests in, answers out, whatever carried them.

#![forbid(unsafe_code)]
#![cfg(unix)]

pub mod app;
pub mod body;
pub mod config;
pub mod error;
pub mod files;
pub mod front;
pub mod log;
pub mod metrics;
pub mod proxy;
pub mod units;
