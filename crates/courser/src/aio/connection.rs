//! Connections, and those that are being made.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use courser_core::engine::{ConnStats, EarlyData};
use courser_core::ids::{Dir, Version};
use courser_session::handle::Handle;

use super::{RecvStream, SendStream};
use crate::error::{ConnectError, ConnectionError, DatagramError, DatagramFate, ExportError};
use crate::face::ConnRef;
use crate::hub::stream::StreamSlot;

type Dialling = Pin<Box<dyn Future<Output = Result<ConnRef, ConnectError>> + Send>>;

/// A connection that is being made; the future gives it when the handshake is complete. Dropped, the attempt is given up.
#[must_use = "dropping it gives the attempt up"]
pub struct Connecting {
    /// Until the name is resolved.
    dialling: Option<Dialling>,
    conn: Option<ConnRef>,
}

impl Connecting {
    pub(super) const fn dialled(conn: ConnRef) -> Self {
        Self { dialling: None, conn: Some(conn) }
    }

    pub(super) fn resolving(dialling: impl Future<Output = Result<ConnRef, ConnectError>> + Send + 'static) -> Self {
        Self { dialling: Some(Box::pin(dialling)), conn: None }
    }
}

impl Future for Connecting {
    type Output = Result<Connection, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(dialling) = &mut self.dialling {
            let Poll::Ready(dialled) = dialling.as_mut().poll(cx) else { return Poll::Pending };
            self.dialling = None;
            match dialled {
                Ok(conn) => self.conn = Some(conn),
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        let conn = self.conn.as_ref().expect("a future is not polled after it is ready");
        let Poll::Ready(result) = conn.0.poll_given(cx) else { return Poll::Pending };
        let conn = self.conn.take();
        Poll::Ready(result.map(|()| Connection { conn: conn.expect("it was there a line above") }))
    }
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

/// A connection whose handshake is complete. Clones are handles of the same connection; when the last handle is dropped,
/// those of streams included, it closes (see [the table](crate::blocking#what-dropping-means)).
#[derive(Clone)]
pub struct Connection {
    conn: ConnRef,
}

impl Connection {
    #[cfg(feature = "h3")]
    pub(crate) const fn conn(&self) -> &ConnRef {
        &self.conn
    }

    async fn open(&self, dir: Dir) -> Result<Arc<StreamSlot>, ConnectionError> {
        let mut opener = self.conn.0.opener(dir);
        poll_fn(move |cx| opener.poll(cx)).await
    }

    fn both(&self, slot: Arc<StreamSlot>) -> (SendStream, RecvStream) {
        (SendStream::new(Arc::clone(&slot), self.conn.clone()), RecvStream::new(slot, self.conn.clone()))
    }

    /// Opens a stream that carries data both ways; waits while the peer lets no more be open. Cancel-safe.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        Ok(self.both(self.open(Dir::Bi).await?))
    }

    /// Opens a stream that carries data to the peer; waits while the peer lets no more be open. Cancel-safe.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        Ok(SendStream::new(self.open(Dir::Uni).await?, self.conn.clone()))
    }

    /// The next two-way stream that the peer opened. Cancel-safe.
    ///
    /// # Errors
    /// See [`ConnectionError`]; streams that came before the end are given first.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        Ok(self.both(poll_fn(|cx| self.conn.0.poll_accept(cx, Dir::Bi)).await?))
    }

    /// The next one-way stream that the peer opened. Cancel-safe.
    ///
    /// # Errors
    /// See [`ConnectionError`]; streams that came before the end are given first.
    pub async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        let slot = poll_fn(|cx| self.conn.0.poll_accept(cx, Dir::Uni)).await?;
        Ok(RecvStream::new(slot, self.conn.clone()))
    }

    /// Closes at once; the peer sees code and reason verbatim (a reason as far as it fits into a packet). Data that was not
    /// acknowledged is lost: [`SendStream::wait_acked`] comes before. Codes end at 2^62 - 1, larger ones are cut to it. The
    /// first close counts.
    pub fn close(&self, code: u64, reason: &[u8]) {
        self.conn.close(code, reason);
    }

    /// Waits for the end of the connection and tells why. Cancel-safe.
    pub async fn closed(&self) -> ConnectionError {
        poll_fn(|cx| self.conn.0.poll_closed(cx)).await
    }

    /// Why it ended; `None` while it is open.
    #[must_use]
    pub fn close_reason(&self) -> Option<&ConnectionError> {
        self.conn.0.close_reason()
    }

    /// Where 0-RTT stands.
    #[must_use]
    pub fn early_data(&self) -> EarlyData {
        self.conn.0.early_data()
    }

    /// Waits for the end of the handshake, for connections that were taken early; others are past it. Cancel-safe.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn established(&self) -> Result<(), ConnectError> {
        poll_fn(|cx| self.conn.0.poll_established(cx)).await
    }

    /// Sends an unreliable datagram; waits while the queue is full. Cancel-safe.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub async fn send_datagram(&self, data: impl Into<Bytes>) -> Result<(), DatagramError> {
        let data = data.into();
        poll_fn(|cx| self.conn.0.poll_send_datagram(cx, &data, None)).await
    }

    /// The same with a tag of the application's own: [`datagram_fate`](Self::datagram_fate) tells what became of it. Fates
    /// have to be read: the queue counts as full while about a thousand are unknown or wait. Cancel-safe.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub async fn send_datagram_tagged(&self, data: impl Into<Bytes>, tag: u64) -> Result<(), DatagramError> {
        let data = data.into();
        poll_fn(|cx| self.conn.0.poll_send_datagram(cx, &data, Some(tag))).await
    }

    /// Sends an unreliable datagram, with a tag or without, if there is room; `false` when the queue is full. The calls
    /// that wait go on when there is room again.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn try_send_datagram(&self, data: impl Into<Bytes>, tag: Option<u64>) -> Result<bool, DatagramError> {
        self.conn.0.try_send_datagram(&data.into(), tag)
    }

    /// Waits for the next fate of a datagram that was sent with a tag. Each is told once, unless the connection ends before:
    /// what was in flight then has none. One that is told as lost may have arrived, see [`DatagramFate`]. Cancel-safe.
    ///
    /// # Errors
    /// See [`ConnectionError`]; fates that were known before the end are given first.
    pub async fn datagram_fate(&self) -> Result<(u64, DatagramFate), ConnectionError> {
        poll_fn(|cx| self.conn.0.poll_fate(cx)).await
    }

    /// The oldest datagram that came. Datagrams are dropped when nobody takes them, oldest first. Cancel-safe.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn recv_datagram(&self) -> Result<Bytes, ConnectionError> {
        poll_fn(|cx| self.conn.0.poll_datagram(cx)).await
    }

    /// The largest datagram now; `None` when the peer takes none.
    #[must_use]
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.conn.0.datagram_max()
    }

    /// Counters and gauges, as of now; after the end the last ones. Cancel-safe.
    pub async fn stats(&self) -> ConnStats {
        let mut ticket = None;
        poll_fn(|cx| self.conn.0.poll_stats(cx, &mut ticket)).await
    }

    /// The peer's address.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.conn.remote()
    }

    /// The peer's certificate chain in DER, leaf first; empty when it showed none.
    #[must_use]
    pub fn peer_certificates(&self) -> &[Vec<u8>] {
        self.conn.certificates()
    }

    /// The application protocol that was agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.conn.alpn()
    }

    /// The name that the client asked for.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.conn.server_name()
    }

    /// The QUIC version in use.
    #[must_use]
    pub fn version(&self) -> Version {
        self.conn.version()
    }

    /// The connection's 64-bit session handle, unique in its endpoint.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.conn.handle()
    }

    /// Fills `out` with keying material for `label` and `context` (RFC 8446 section 7.5), which both ends get alike.
    ///
    /// # Errors
    /// When `out` is longer than the cipher suite's hash can expand to.
    pub fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> Result<(), ExportError> {
        if self.conn.0.export(label, context, out) { Ok(()) } else { Err(ExportError) }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("remote", &self.remote_address())
            .field("handle", &self.handle())
            .finish_non_exhaustive()
    }
}
