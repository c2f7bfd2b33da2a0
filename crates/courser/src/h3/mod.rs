//! HTTP/3 for Tokio programs, on the types of the `http` and `http-body` crates and the traits of Tower.
//!
//! A server gives each request to a [`tower_service::Service`]; a router of axum is one, unchanged. A client's
//! [`SendRequest`] is one itself. What HTTP/3 is made of stands in [`courser_h3`], which this module drives over the streams
//! of [`aio`](crate::aio).
//!
//! ```text
//! server, client   a task per connection; serving: a request from its head to the last byte of its answer
//! body             what is received piece by piece; how an application's body is sent
//! exchange         what a service can ask about the connection
//! web_transport    sessions: what applications call; capsules: what both ends say on a session's own stream
//! sessions, meter  what came for sessions and is not taken; the limits of one
//! early            0-RTT: what is remembered of servers, which requests go early
//! driver           control and QPACK streams, datagrams, events
//! trace            what is told to the connection's qlog file
//! link, carrier    the one lock per connection, and the byte contract of courser-h3 over slots of the hub
//! ```
//!
//! # Dropping
//!
//! | dropped | what happens |
//! |---|---|
//! | a request's future at the client | the request is cancelled (`H3_REQUEST_CANCELLED`) |
//! | [`RecvBody`] before its end | the peer is asked to send no more; the answer goes on |
//! | the last [`SendRequest`] | the connection closes when the requests that it made are over |
//! | [`Session`] | the WebTransport session ends |

mod body;
mod capsules;
mod carrier;
mod client;
mod driver;
mod early;
mod error;
mod exchange;
mod link;
mod meter;
mod respond;
mod server;
mod serving;
mod sessions;
mod trace;
mod web_transport;

pub use body::RecvBody;
pub use capsules::SessionBody;
pub use client::{Client, Driving, Informational, ResponseFuture, SendRequest};
pub use courser_h3::Code;
pub use courser_h3::conn::Config;
pub use courser_h3::message::Protocol;
pub use early::Replayable;
pub use error::{BoxError, Error};
pub use exchange::Exchange;
pub use server::{Full, Server, ServiceFn, service_fn};
pub use web_transport::{Session, SessionEnd};

/// The application protocol of HTTP/3 in TLS (RFC 9114 section 3.1).
pub const ALPN: &str = "h3";

/// Randomness for reserved names (RFC 9114 section 7.2.8).
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the names are the same each time, which harms nobody.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// Whether the end of a connection is an error for who drove it.
fn outcome(e: Error) -> Result<(), Error> {
    use courser_core::error::CloseReason;

    use crate::error::ConnectionError;
    match &e {
        Error::Closed(ConnectionError::Closed(reason)) => match reason {
            CloseReason::IdleTimeout => Ok(()),
            CloseReason::PeerApplication { code, .. } | CloseReason::LocalApplication { code, .. }
                if *code == Code::NO_ERROR.0 || *code == 0 =>
            {
                Ok(())
            }
            _ => Err(e),
        },
        Error::Closed(ConnectionError::EndpointGone) => Ok(()),
        _ => Err(e),
    }
}
