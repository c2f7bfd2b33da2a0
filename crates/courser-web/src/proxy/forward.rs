//! CONNECT: tunnels of bytes to other servers, for clients of each version (RFC 9110 section 9.3.6, RFC 9114 section 4.4).
//!
//! A tunnel leads only where the configuration permits it: without a list this is no forward proxy. The place is compared as it was
//! asked for, and its name is looked up afterwards, so that a name's addresses are its owner's affair. Tunnels have places; who finds
//! none is refused at once. What goes through, and how a tunnel ends, is the same as for WebSockets.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::Unanswered;
use super::tunnel::{self, Far};
use crate::body::{Body, RequestBody};
use crate::config::{Connect, Place};
use crate::error::WebError;

/// Makes tunnels. The default refuses all.
#[derive(Debug)]
pub struct Forward {
    config: Connect,
    places: Vec<Place>,
    tunnels: Arc<Semaphore>,
}

impl Default for Forward {
    fn default() -> Self {
        Self { config: Connect::default(), places: Vec::new(), tunnels: Arc::new(Semaphore::new(0)) }
    }
}

impl Forward {
    /// To the places of a configuration.
    ///
    /// # Errors
    /// One of them is none.
    pub fn new(config: &Connect) -> Result<Self, WebError> {
        let tunnels = Arc::new(Semaphore::new(config.tunnels.min(Semaphore::MAX_PERMITS)));
        Ok(Self { config: config.clone(), places: config.places()?, tunnels })
    }

    //= rfc9114#4.4-8
    /// Opens the tunnel that a request asks for. The answer is there when its other end is.
    ///
    /// # Errors
    /// The answer to give in its place.
    pub async fn open(&self, mut parts: Parts, body: RequestBody) -> Result<Response<Body>, Unanswered> {
        if self.places.is_empty() {
            return Err(Unanswered(StatusCode::NOT_IMPLEMENTED, "This server makes no tunnels (CONNECT)."));
        }
        let asked = parts.uri.authority().and_then(Place::of);
        let Some(asked) = asked else {
            return Err(Unanswered(StatusCode::BAD_REQUEST, "CONNECT names a host and a port, and nothing else."));
        };
        if !self.places.iter().any(|place| place.covers(&asked)) {
            return Err(Unanswered(StatusCode::FORBIDDEN, "This server makes no tunnels to that place."));
        }
        let Ok(place) = Arc::clone(&self.tunnels).try_acquire_owned() else {
            tracing::warn!("all {} places for tunnels are taken", self.config.tunnels);
            return Err(Unanswered(StatusCode::SERVICE_UNAVAILABLE, "There are too many tunnels."));
        };
        let (host, port) = asked.host_and_port();
        let connecting = TcpStream::connect((host.as_str(), port));
        let tcp = match tokio::time::timeout(self.config.connect_timeout, connecting).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(e)) => {
                tracing::warn!(host, port, "a tunnel cannot be made: {e}");
                return Err(Unanswered(StatusCode::BAD_GATEWAY, "That place cannot be reached."));
            }
            Err(_) => {
                tracing::warn!(host, port, "a tunnel cannot be made in time");
                return Err(Unanswered(StatusCode::GATEWAY_TIMEOUT, "That place cannot be reached in time."));
            }
        };
        // What small pieces are good for is known at the ends.
        let _ = tcp.set_nodelay(true);
        let (client, far): (_, Far) = (parts.extensions.remove::<OnUpgrade>(), Box::new(tcp));
        Ok(Response::new(tunnel::begin((client, body), far, self.config.idle_timeout, place)))
    }
}
