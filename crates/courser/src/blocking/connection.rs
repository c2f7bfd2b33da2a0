//! Connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use courser_core::engine::{ConnStats, EarlyData};
use courser_core::ids::{Dir, Version};
use courser_session::handle::Handle;

use super::{RecvStream, SendStream};
use crate::error::{ConnectError, ConnectionError, DatagramError, DatagramFate, ExportError};
use crate::face::ConnRef;
use crate::hub::stream::StreamSlot;
use crate::wait::block;

/// A connection whose handshake is complete. Clones are handles of the same connection; when the last handle is dropped,
/// those of streams included, it closes (see [the face's table](super#what-dropping-means)).
#[derive(Clone)]
pub struct Connection {
    conn: ConnRef,
    timeout: Option<Duration>,
}

impl Connection {
    pub(super) const fn new(conn: ConnRef) -> Self {
        Self { conn, timeout: None }
    }

    /// How long each call of this handle waits at most. Streams have timeouts of their own.
    pub const fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn block<T>(
        &self,
        poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        block(self.timeout, poll).unwrap_or(Err(ConnectionError::TimedOut))
    }

    fn open(&self, dir: Dir) -> Result<Arc<StreamSlot>, ConnectionError> {
        let mut opener = self.conn.0.opener(dir);
        self.block(|cx| opener.poll(cx))
    }

    fn both(&self, slot: Arc<StreamSlot>) -> (SendStream, RecvStream) {
        (SendStream::new(Arc::clone(&slot), self.conn.clone()), RecvStream::new(slot, self.conn.clone()))
    }

    /// Opens a stream that carries data both ways; waits while the peer lets no more be open.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        Ok(self.both(self.open(Dir::Bi)?))
    }

    /// Opens a stream that carries data to the peer; waits while the peer lets no more be open.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        Ok(SendStream::new(self.open(Dir::Uni)?, self.conn.clone()))
    }

    /// The next two-way stream that the peer opened.
    ///
    /// # Errors
    /// See [`ConnectionError`]; streams that came before the end are given first.
    pub fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        Ok(self.both(self.block(|cx| self.conn.0.poll_accept(cx, Dir::Bi))?))
    }

    /// The next one-way stream that the peer opened.
    ///
    /// # Errors
    /// See [`ConnectionError`]; streams that came before the end are given first.
    pub fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        Ok(RecvStream::new(self.block(|cx| self.conn.0.poll_accept(cx, Dir::Uni))?, self.conn.clone()))
    }

    /// Closes at once; the peer sees code and reason verbatim (a reason as far as it fits into a packet). Data that was not
    /// acknowledged is lost: [`SendStream::wait_acked`] comes before. Codes end at 2^62 - 1, larger ones are cut to it. The
    /// first close counts.
    pub fn close(&self, code: u64, reason: &[u8]) {
        self.conn.close(code, reason);
    }

    /// Waits for the end of the connection and tells why.
    #[must_use]
    pub fn closed(&self) -> ConnectionError {
        block(self.timeout, |cx| self.conn.0.poll_closed(cx)).unwrap_or(ConnectionError::TimedOut)
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

    /// Waits for the end of the handshake, for connections that were taken early; others are past it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn established(&self) -> Result<(), ConnectError> {
        block(self.timeout, |cx| self.conn.0.poll_established(cx))
            .unwrap_or(Err(ConnectError::Failed(ConnectionError::TimedOut)))
    }

    /// Sends an unreliable datagram; waits while the queue is full.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn send_datagram(&self, data: impl Into<Bytes>) -> Result<(), DatagramError> {
        let data = data.into();
        block(self.timeout, |cx| self.conn.0.poll_send_datagram(cx, &data, None))
            .unwrap_or(Err(DatagramError::Closed(ConnectionError::TimedOut)))
    }

    /// The same with a tag of the application's own: [`datagram_fate`](Self::datagram_fate) tells what became of it. Fates
    /// have to be read: the queue counts as full while about a thousand are unknown or wait.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn send_datagram_tagged(&self, data: impl Into<Bytes>, tag: u64) -> Result<(), DatagramError> {
        let data = data.into();
        block(self.timeout, |cx| self.conn.0.poll_send_datagram(cx, &data, Some(tag)))
            .unwrap_or(Err(DatagramError::Closed(ConnectionError::TimedOut)))
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
    /// what was in flight then has none. One that is told as lost may have arrived, see [`DatagramFate`].
    ///
    /// # Errors
    /// See [`ConnectionError`]; fates that were known before the end are given first.
    pub fn datagram_fate(&self) -> Result<(u64, DatagramFate), ConnectionError> {
        self.block(|cx| self.conn.0.poll_fate(cx))
    }

    /// The oldest datagram that came. Datagrams are dropped when nobody takes them, oldest first.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub fn recv_datagram(&self) -> Result<Bytes, ConnectionError> {
        self.block(|cx| self.conn.0.poll_datagram(cx))
    }

    /// The largest datagram now; `None` when the peer takes none.
    #[must_use]
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.conn.0.datagram_max()
    }

    /// Counters and gauges, as of now; after the end the last ones.
    #[must_use]
    pub fn stats(&self) -> ConnStats {
        let mut ticket = None;
        block(self.timeout, |cx| self.conn.0.poll_stats(cx, &mut ticket)).unwrap_or_default()
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
