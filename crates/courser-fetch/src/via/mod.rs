//! One connection to a server, whatever carries it, and ways to get one.
//!
//! Everything above speaks to [`Via`] and [`Dial`]. TCP with TLS is in [`tcp`], QUIC in [`quic`].

pub mod quic;
pub mod tcp;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

    /// Whether requests go before the server has proven to be there (0-RTT), at present.
    fn is_early(&self) -> bool {
        false
    }

    /// What became of what went so, once it is known.
    fn early(&self) -> Option<Early> {
        None
    }

    /// Ends it in good order; waits as long as the last words take.
    fn close(&self) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What became of requests that went as 0-RTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Early {
    /// The server took them.
    Accepted,
    /// It did not; they went again behind the handshake.
    Rejected,
}

/// How long the steps of a connection took, each from the start of the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// The name was resolved.
    pub dns: Duration,
    /// TCP stood.
    pub connect: Option<Duration>,
    /// TLS or QUIC stood; none: requests do not wait for it.
    pub handshake: Option<Duration>,
}

/// Who told that an origin speaks HTTP/3 somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// The server, in a field of an earlier answer.
    AltSvc,
    /// A record of the DNS.
    HttpsRecord,
    /// Nobody: the user wanted it tried.
    Option,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AltSvc => "known from Alt-Svc",
            Self::HttpsRecord => "known from an HTTPS record",
            Self::Option => "tried as wanted",
        })
    }
}

/// Where an origin speaks HTTP/3, and who told so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Another host; none: the origin's.
    pub host: Option<String>,
    /// The UDP port.
    pub port: u16,
    /// Who told.
    pub told: Told,
}

impl Route {
    /// Whether it leads to another place than the origin's own.
    #[must_use]
    pub fn is_elsewhere(&self, origin: &Origin) -> bool {
        self.host.as_ref().is_some_and(|h| *h != origin.host) || self.port != origin.port
    }
}

/// A connection that was just made.
#[derive(Clone, Debug)]
pub struct Dialled {
    /// The connection.
    pub via: Arc<dyn Via>,
    /// What it took.
    pub steps: Steps,
    /// Where it goes, with HTTP/3.
    pub route: Option<Route>,
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
    /// Addresses there, when they are known; nobody is asked then.
    pub addresses: Vec<IpAddr>,
    /// When the way to the connection began: steps are counted from there.
    pub since: Instant,
    /// How long its name took, when that is over.
    pub named: Option<Duration>,
    /// Whether it has to be HTTP/1.1.
    pub http1: bool,
}

impl Target {
    /// The origin itself.
    #[must_use]
    pub fn itself(origin: &Origin) -> Self {
        Self::alternative(origin, None, origin.port)
    }

    /// An alternative of the origin.
    #[must_use]
    pub fn alternative(origin: &Origin, host: Option<&str>, port: u16) -> Self {
        Self {
            origin: origin.clone(),
            host: host.unwrap_or(&origin.host).to_owned(),
            port,
            addresses: Vec::new(),
            since: Instant::now(),
            named: None,
            http1: false,
        }
    }
}

/// A way to get connections.
pub trait Dial: Send + Sync + std::fmt::Debug {
    /// Makes one, within the time that a connection may take.
    fn dial(&self, target: Target) -> Boxed<'static, Outcome<Dialled>>;
}
