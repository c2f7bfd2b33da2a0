//! One connection to a server, whatever carries it, and ways to get one.
//!
//! Everything above speaks to [`Via`] and [`Dial`]. TCP with TLS is in [`tcp`], QUIC in [`quic`].

pub mod quic;
pub mod tcp;
pub mod tls;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use serde::Serialize;

use crate::alt_svc::Origin;
use crate::body::{Incoming, Outgoing};
use crate::error::Outcome;

/// A future that a trait object gives.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The version of HTTP that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// One request at a time.
    #[serde(rename = "HTTP/1.1")]
    Http11,
    /// Many on one TCP connection.
    #[serde(rename = "HTTP/2")]
    Http2,
    /// Many on one QUIC connection.
    #[serde(rename = "HTTP/3")]
    Http3,
}

impl Protocol {
    /// Whether one connection carries many requests at a time.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        !matches!(self, Self::Http11)
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        })
    }
}

/// An open connection.
pub trait Via: Send + Sync + std::fmt::Debug {
    /// What it speaks.
    fn protocol(&self) -> Protocol;

    /// The server's address.
    fn remote(&self) -> SocketAddr;

    /// Whether another request can be made.
    fn is_open(&self) -> bool;

    /// Makes a request. The answer is here when its header section is.
    fn send(&self, request: Request<Outgoing>) -> Boxed<'_, Outcome<Response<Incoming>>>;

    /// Waits until another request can be made; `false` when none can.
    fn ready(&self) -> Boxed<'_, bool>;

    /// Ends it in good order; waits as long as the last words take.
    fn close(&self) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// How long the steps of a connection took, each from the start of the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// The name was resolved.
    pub dns: Duration,
    /// TCP stood.
    pub connect: Option<Duration>,
    /// TLS or QUIC stood.
    pub handshake: Duration,
}

/// A connection that was just made.
#[derive(Clone, Debug)]
pub struct Dialled {
    /// The connection.
    pub via: Arc<dyn Via>,
    /// What it took.
    pub steps: Steps,
    /// Where it goes, when that is not the origin itself: host and port as the advice had them.
    pub alternative: Option<(Option<String>, u16)>,
}

/// Whom to connect to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whose certificate it has to be.
    pub origin: Origin,
    /// Where the connection goes: the origin itself, or an alternative.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl Target {
    /// The origin itself.
    #[must_use]
    pub fn itself(origin: &Origin) -> Self {
        Self { origin: origin.clone(), host: origin.host.clone(), port: origin.port }
    }

    /// An alternative of the origin.
    #[must_use]
    pub fn alternative(origin: &Origin, host: Option<&str>, port: u16) -> Self {
        Self { origin: origin.clone(), host: host.unwrap_or(&origin.host).to_owned(), port }
    }
}

/// A way to get connections.
pub trait Dial: Send + Sync + std::fmt::Debug {
    /// Makes one, within the time that a connection may take.
    fn dial(&self, target: Target) -> Boxed<'static, Outcome<Dialled>>;
}
