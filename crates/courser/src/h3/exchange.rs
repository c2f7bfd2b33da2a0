//! What a service can ask and tell about the request in hand beside its message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use courser_core::ids::StreamId;
use courser_core::stream::Priority;
use http::Response;

use super::error::Error;
use super::link::{Hold, Link};
use crate::aio::Connection;

/// In the extensions of each request that a server receives: the connection and the stream behind it.
///
/// ```no_run
/// # fn handle(request: http::Request<courser::h3::RecvBody>) -> Option<std::net::SocketAddr> {
/// let exchange = request.extensions().get::<courser::h3::Exchange>()?;
/// Some(exchange.remote_address())
/// # }
/// ```
#[derive(Clone)]
pub struct Exchange {
    pub(super) link: Arc<Link>,
    pub(super) stream: StreamId,
}

impl Exchange {
    pub(super) fn new(hold: &Hold) -> Self {
        Self { link: Arc::clone(&hold.link), stream: hold.stream }
    }

    /// The client's address, as of now.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.link.quic.remote_address()
    }

    /// The connection: the server's name, certificates, counters, and so on. Its streams are HTTP/3's.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.link.quic
    }

    /// The request's stream.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// Whether the request may be a replay: it came as 0-RTT, and the handshake is not complete (RFC 8470).
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.link.state(|state| state.is_early(self.stream))
    }

    /// Sends an informational response, such as 103 with links to preload, before the final one (RFC 9110 section 15.2).
    ///
    /// # Errors
    /// [`Error::Misuse`] when the status is none of 100 to 199 or 101, or the final response was sent; otherwise see [`Error`].
    pub fn send_informational(&self, response: Response<()>) -> Result<(), Error> {
        if !response.status().is_informational() || response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Misuse("an informational response has a status of 100 or 102 to 199".into()));
        }
        let (head, ()) = response.into_parts();
        let sent = self.link.at_once(|h3, carrier| h3.send_response(carrier, self.stream, &head, false));
        sent.map_err(|e| Error::of(e, &self.link.quic))
    }

    /// How urgent the answer is; overrides what the client asked for (RFC 9218 section 8).
    pub fn set_priority(&self, priority: Priority) {
        self.link.at_once(|h3, carrier| h3.update_priority(carrier, self.stream, priority));
    }

    /// Sends an HTTP datagram of this request (RFC 9297); `false` when it was dropped: the client takes none, it is too
    /// large, or too many wait.
    pub fn send_datagram(&self, payload: &[u8]) -> bool {
        self.link.at_once(|h3, carrier| h3.send_datagram(carrier, self.stream, payload))
    }

    /// The next HTTP datagram of this request; `None` when no more will come. Cancel-safe. Datagrams are dropped when nobody
    /// takes them, oldest first.
    pub async fn recv_datagram(&self) -> Option<Bytes> {
        self.link.state(|state| state.sessions.claim(self.stream));
        std::future::poll_fn(|cx| self.poll_datagram(cx)).await
    }

    fn poll_datagram(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        self.link.state(|state| state.sessions.poll_datagram(cx, self.stream))
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("stream", &self.stream).finish_non_exhaustive()
    }
}
