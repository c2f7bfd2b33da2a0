//! TLS 1.3 sessions on rustls and packet protection on aws-lc-rs for `courser-core`.
//!
//! - [`ClientConfig`] and [`ServerConfig`] start sessions; they are made by builders or from rustls configurations.
//! - [`AwsLc`] makes packet protection keys from the secrets that sessions hand out, and exports keying material.
//! - [`SystemRandom`] gives unpredictable bytes.
//!
//! Sessions hand out secrets, never keys: the version whose labels are used, key updates and dormant keys are the
//! core's business, and go on when the session is gone.

#![forbid(unsafe_code)]

mod alert;
mod client;
mod early;
pub mod fuzz;
mod hash;
mod hkdf;
mod key_log;
mod keys;
mod post;
mod random;
mod server;
mod session;
mod settings;
mod store;
mod suites;
mod tap;
mod tickets;

pub use client::{ClientBuilder, ClientConfig};
pub use key_log::KeyLogFile;
pub use keys::AwsLc;
pub use random::SystemRandom;
pub use rustls::KeyLog;
pub use server::{ServerBuilder, ServerConfig};
pub use settings::{ALL_GROUPS, ALL_SUITES, ConfigError, Credentials, Group, Roots};
pub use store::{CertificateStore, Certificates};
