//! What applications call. Every call names a connection by key; after its end the answer is
//! [`ApiMisuse::UnknownConnection`].

use core::net::IpAddr;

use bytes::Bytes;

use super::{ConnStats, Engine, PacketLog, PathInfo};
use crate::cid::Issued;
use crate::config::StreamSchedule;
use crate::conn::{Connection, EarlyData, Env};
use crate::crypto::{Identity, Secret, Suite};
use crate::error::{ApiMisuse, CloseReason};
use crate::ids::{ConnKey, Dir, StreamId, Version};
use crate::spans::Fate;
use crate::stream::{Extent, PartialReset, Priority, Read, ReadError, StreamStats, WriteError};
use crate::time::Instant;

use super::Kind;

impl Engine {
    /// A connection, and the environment that its calls need; it will be ticked, since the call may give it work.
    #[inline]
    fn touch<E: From<ApiMisuse>>(&mut self, key: ConnKey) -> Result<(&mut Connection, &mut Env), E> {
        match self.table.get_mut(key).map(|e| &mut e.kind) {
            Some(Kind::Live(conn)) => {
                self.tickable.push(key.index);
                // What it is worth is told anew by each tick.
                if !self.env.pool.charges(key.index) {
                    self.env.pool.charge(key.index, conn.worth());
                }
                Ok((conn, &mut self.env))
            }
            _ => Err(E::from(ApiMisuse::UnknownConnection)),
        }
    }

    fn look(&self, key: ConnKey) -> Result<&Connection, ApiMisuse> {
        self.conn(key).ok_or(ApiMisuse::UnknownConnection)
    }

    /// Opens a stream; `None` when the peer's limit is reached, in which case [`Event::Stream`](super::Event::Stream) with
    /// `Available` tells when to try again.
    ///
    /// # Errors
    /// [`ApiMisuse::HandshakePending`], [`ApiMisuse::Closing`], [`ApiMisuse::UnknownConnection`].
    pub fn open_stream(&mut self, key: ConnKey, dir: Dir) -> Result<Option<StreamId>, ApiMisuse> {
        self.touch::<ApiMisuse>(key)?.0.open_stream(dir)
    }

    /// How many streams [`open_stream`](Self::open_stream) would open now. Asking does not make the peer hear of a wish for
    /// more, as trying in vain does.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn open_room(&self, key: ConnKey, dir: Dir) -> Result<u64, ApiMisuse> {
        Ok(self.look(key)?.open_room(dir))
    }

    /// The next stream that the peer opened.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn accept_stream(&mut self, key: ConnKey, dir: Dir) -> Result<Option<StreamId>, ApiMisuse> {
        Ok(self.touch::<ApiMisuse>(key)?.0.accept_stream(dir))
    }

    /// Copies bytes to a stream; returns how many were taken, which may be none: `Writable` tells when to try again.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&mut self, key: ConnKey, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let (conn, env) = self.touch::<WriteError>(key)?;
        conn.write(env, id, data)
    }

    /// Hands bytes over to a stream without a copy; what was taken is split off the front of `data`.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write_owned(&mut self, key: ConnKey, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let (conn, env) = self.touch::<WriteError>(key)?;
        conn.write_owned(env, id, data)
    }

    /// Copies bytes of several slices to a stream as if they were one.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write_vectored(&mut self, key: ConnKey, id: StreamId, data: &[&[u8]]) -> Result<usize, WriteError> {
        let (conn, env) = self.touch::<WriteError>(key)?;
        conn.write_vectored(env, id, data)
    }

    /// Bytes that a write would take now.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn send_room(&self, key: ConnKey, id: StreamId) -> Result<usize, WriteError> {
        self.look(key)?.send_room(id)
    }

    /// Holds back (or lets go) data that does not fill a packet.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn cork(&mut self, key: ConnKey, id: StreamId, corked: bool) -> Result<(), WriteError> {
        self.touch::<WriteError>(key)?.0.cork(id, corked)
    }

    /// Sends what was written so far although it does not fill a packet.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn flush(&mut self, key: ConnKey, id: StreamId) -> Result<(), WriteError> {
        self.touch::<WriteError>(key)?.0.flush(id)
    }

    /// Ends a stream after what was written. `AllAcked` tells when the peer has everything.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(&mut self, key: ConnKey, id: StreamId) -> Result<(), WriteError> {
        let (conn, env) = self.touch::<WriteError>(key)?;
        conn.finish(env, id)
    }

    /// Abandons the sending half; unsent data is dropped.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn reset(&mut self, key: ConnKey, id: StreamId, code: u64) -> Result<(), WriteError> {
        let (conn, env) = self.touch::<WriteError>(key)?;
        conn.reset(env, id, code)
    }

    /// Abandons the sending half as [`reset`](Self::reset) does, but the first `reliable_size` bytes of the stream still
    /// arrive: the peer's application reads them, then it is told of the reset. What was written behind them is dropped as
    /// far as it has not left.
    ///
    /// It may follow [`finish`](Self::finish). A second call can lower `reliable_size`; one that would raise it changes
    /// nothing, and the first code stays. `reset` gives up the rest. With a `reliable_size` of zero it is `reset`, which
    /// every peer understands. Nothing happens when everything arrived, when the stream was reset before, or when the peer
    /// stopped it; then there is nobody to read.
    ///
    /// [`ResetDelivered`](crate::stream::StreamEvent::ResetDelivered) tells when the peer has what was promised, or
    /// [`AllAcked`](crate::stream::StreamEvent::AllAcked) when it got the whole stream all the same. Closing the connection
    /// before loses it.
    ///
    /// # Errors
    /// [`ApiMisuse::NotNegotiated`] when the peer does not know RESET_STREAM_AT, [`ApiMisuse::NotWritten`] when fewer bytes
    /// were written; and see [`WriteError`].
    pub fn reset_at(&mut self, key: ConnKey, id: StreamId, code: u64, reliable_size: u64) -> Result<(), WriteError> {
        let (conn, env) = self.touch::<WriteError>(key)?;
        conn.reset_at(env, id, PartialReset { code, reliable_size })
    }

    /// Whether the peer takes what [`reset_at`](Self::reset_at) sends; known with its transport parameters.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn can_reset_at(&self, key: ConnKey) -> Result<bool, ApiMisuse> {
        Ok(self.look(key)?.can_reset_at())
    }

    /// Asks the peer to stop sending; what was received is dropped.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn stop_sending(&mut self, key: ConnKey, id: StreamId, code: u64) -> Result<(), ReadError> {
        let (conn, env) = self.touch::<ReadError>(key)?;
        conn.stop_sending(env, id, code)
    }

    /// Reads into `out`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&mut self, key: ConnKey, id: StreamId, out: &mut [u8]) -> Result<Read, ReadError> {
        let (conn, env) = self.touch::<ReadError>(key)?;
        conn.read(env, id, out)
    }

    /// The next bytes in one piece, without taking them; empty when none are there.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn peek(&mut self, key: ConnKey, id: StreamId) -> Result<&[u8], ReadError> {
        match self.table.get_mut(key).map(|e| &mut e.kind) {
            Some(Kind::Live(conn)) => conn.peek(id),
            _ => Err(ApiMisuse::UnknownConnection.into()),
        }
    }

    /// Takes bytes that [`peek`](Self::peek) showed.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn consume(&mut self, key: ConnKey, id: StreamId, n: usize) -> Result<Read, ReadError> {
        let (conn, env) = self.touch::<ReadError>(key)?;
        conn.consume(env, id, n)
    }

    /// Shows `f` the received bytes piece by piece, until it takes fewer than it was shown.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_with(&mut self, key: ConnKey, id: StreamId, f: impl FnMut(&[u8]) -> usize) -> Result<Read, ReadError> {
        let (conn, env) = self.touch::<ReadError>(key)?;
        conn.read_with(env, id, f)
    }

    /// Whether everything was read and the stream has ended, so that the next read says `Finished`.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn is_at_end(&self, key: ConnKey, id: StreamId) -> Result<bool, ApiMisuse> {
        Ok(self.look(key)?.is_at_end(id))
    }

    /// Whether the peer acknowledged everything that was written, the end of the stream included.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn is_finished_acked(&self, key: ConnKey, id: StreamId) -> Result<bool, ApiMisuse> {
        Ok(self.look(key)?.is_finished_acked(id))
    }

    /// Whether an observer takes notes of protocols above.
    #[must_use]
    pub fn takes_notes(&self) -> bool {
        self.env.interest.wants(crate::observe::Kind::Note)
    }

    /// Hands a note of a protocol above to the observer, in its place among the other events of the connection.
    pub fn note(&mut self, now: Instant, key: ConnKey, note: &[u8]) {
        let now = self.clock.read(now);
        self.env.tell(now, key, crate::observe::Kind::Note, &crate::observe::Event::Note(note));
    }

    /// Has a stream tell how far it went when it is over, however that comes about:
    /// [`Settled`](crate::stream::StreamEvent::Settled), exactly once.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownStream`] when it is over already, [`ApiMisuse::UnknownConnection`].
    pub fn meter_stream(&mut self, key: ConnKey, id: StreamId) -> Result<(), ApiMisuse> {
        self.touch::<ApiMisuse>(key)?.0.meter_stream(id)
    }

    /// How far a stream went until now, in bytes as its final sizes count them; `None` when it is over, or nothing came yet.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn stream_extent(&self, key: ConnKey, id: StreamId) -> Result<Option<Extent>, ApiMisuse> {
        Ok(self.look(key)?.stream_extent(id))
    }

    /// Counts of streams and of buffered bytes.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn stream_stats(&self, key: ConnKey) -> Result<StreamStats, ApiMisuse> {
        Ok(self.look(key)?.stream_stats())
    }

    /// Changes how streams share packets.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn set_schedule(&mut self, key: ConnKey, schedule: StreamSchedule) -> Result<(), ApiMisuse> {
        self.touch::<ApiMisuse>(key)?.0.set_schedule(schedule);
        Ok(())
    }

    /// Sets a stream's priority.
    ///
    /// # Errors
    /// [`ApiMisuse`] when there is no such stream.
    pub fn set_priority(&mut self, key: ConnKey, id: StreamId, priority: Priority) -> Result<(), ApiMisuse> {
        self.touch::<ApiMisuse>(key)?.0.set_priority(id, priority)
    }

    /// A stream's priority.
    ///
    /// # Errors
    /// [`ApiMisuse`] when there is no such stream.
    pub fn priority(&self, key: ConnKey, id: StreamId) -> Result<Priority, ApiMisuse> {
        self.look(key)?.priority(id)
    }

    /// Queues a datagram of at most [`datagram_max`](Self::datagram_max) bytes; `false` when the queue is full, in which
    /// case [`Event::DatagramRoom`](super::Event::DatagramRoom) tells when to try again. With a tag, which is the
    /// application's own and may repeat, [`poll_datagram_fate`](Self::poll_datagram_fate) tells what became of it.
    ///
    /// The queue holds 256 KiB, and the fates of 1024 datagrams at most are on their way to the application: one that
    /// asks for fates and does not read them finds the queue full.
    ///
    /// # Errors
    /// [`ApiMisuse::NotNegotiated`], [`ApiMisuse::TooLarge`].
    pub fn send_datagram(&mut self, key: ConnKey, data: Bytes, tag: Option<u64>) -> Result<bool, ApiMisuse> {
        let (conn, env) = self.touch::<ApiMisuse>(key)?;
        conn.send_datagram(env, data, tag)
    }

    /// Largest datagram payload now; `None` when the peer takes none. It changes with the path: one that waits in the queue
    /// and does not fit any more is lost.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn datagram_max(&self, key: ConnKey) -> Result<Option<usize>, ApiMisuse> {
        Ok(self.look(key)?.datagram_max())
    }

    /// The oldest received datagram.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn read_datagram(&mut self, key: ConnKey) -> Result<Option<Bytes>, ApiMisuse> {
        let (conn, env) = self.touch::<ApiMisuse>(key)?;
        Ok(conn.read_datagram(env))
    }

    /// The next fate that became known of datagrams that were sent with a tag: [`Fate::Acked`] or [`Fate::Lost`].
    /// [`Event::DatagramFates`](super::Event::DatagramFates) tells that there is one.
    ///
    /// Each is told exactly once, unless the connection ends before. The first verdict counts: a datagram that was declared
    /// lost may have arrived, and an acknowledgement that comes after all is not told.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn poll_datagram_fate(&mut self, key: ConnKey) -> Result<Option<(u64, Fate)>, ApiMisuse> {
        Ok(self.touch::<ApiMisuse>(key)?.0.poll_datagram_fate())
    }

    /// Closes a connection; the peer sees code and reason verbatim. Data that is not acknowledged is lost.
    ///
    /// # Errors
    /// [`ApiMisuse::CodeTooLarge`], [`ApiMisuse::UnknownConnection`].
    pub fn close(&mut self, now: Instant, key: ConnKey, code: u64, reason: &[u8]) -> Result<(), ApiMisuse> {
        let now = self.clock.read(now);
        self.touch::<ApiMisuse>(key)?.0.close(now, code, reason)
    }

    /// Sends a PING.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`], [`ApiMisuse::Closing`].
    pub fn ping(&mut self, key: ConnKey) -> Result<(), ApiMisuse> {
        self.touch::<ApiMisuse>(key)?.0.ping()
    }

    /// Where 0-RTT stands. A client whose answer is [`EarlyData::Offered`] right after
    /// [`connect_with`](Engine::connect_with) may open streams and write at once.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn early_data(&self, key: ConnKey) -> Result<EarlyData, ApiMisuse> {
        Ok(self.look(key)?.early_data())
    }

    /// Whether what was received on a stream may be a replay (RFC 9001 section 9.2): bytes came as 0-RTT and the handshake
    /// is not complete. A server acts on such a request only if doing so twice does no harm; others wait for
    /// [`Event::Connected`](super::Event::Connected).
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn is_early(&self, key: ConnKey, id: StreamId) -> Result<bool, ApiMisuse> {
        Ok(self.look(key)?.is_early(id))
    }

    /// Moves a client's connection to another address of ours: the path from there is tested first, and used once the
    /// server has answered. [`Event::PathChanged`](super::Event::PathChanged) tells that it is,
    /// [`Event::PathFailed`](super::Event::PathFailed) that it will not be. Datagrams that are to leave from there have that
    /// address in [`TrainMeta::from`](super::TrainMeta::from), and those that arrive there must have it in
    /// [`Meta::local`](super::Meta::local).
    ///
    /// # Errors
    /// [`ApiMisuse::HandshakePending`] before the handshake is confirmed; [`ApiMisuse::NotNegotiated`] on a server, or when
    /// one end does not allow migration; [`ApiMisuse::NoConnectionId`] when the server has issued no spare connection ID.
    pub fn migrate(&mut self, now: Instant, key: ConnKey, local: IpAddr) -> Result<(), ApiMisuse> {
        let now = self.clock.read(now);
        let (conn, env) = self.touch::<ApiMisuse>(key)?;
        let result = conn.migrate(env, now, local);
        self.apply_routes(now, key);
        result
    }

    /// The addresses that datagrams left from are gone: the socket is another one now, or the network changed. Every
    /// client's connection goes on from the new address at once, with a fresh connection ID, and has it validated. `local`
    /// is the new address when it is known and matters. A connection whose server does not allow migration ends with
    /// [`CloseReason::NoPath`].
    pub fn rebind(&mut self, now: Instant, local: Option<IpAddr>) {
        let now = self.clock.read(now);
        let keys: Vec<ConnKey> = self.keys().collect();
        for key in keys {
            if let Ok((conn, env)) = self.touch::<ApiMisuse>(key) {
                conn.rebind(env, now, local);
            }
            self.apply_routes(now, key);
        }
    }

    /// Has the connection IDs of both ends replaced by others. True when that is under way for both directions; false when the
    /// peer has issued no spare one for us, or has not yet replaced ours of the last time: call again later.
    ///
    /// # Errors
    /// [`ApiMisuse::HandshakePending`], [`ApiMisuse::Closing`], [`ApiMisuse::UnknownConnection`].
    pub fn rotate_connection_ids(&mut self, now: Instant, key: ConnKey) -> Result<bool, ApiMisuse> {
        let now = self.clock.read(now);
        let done = self.touch::<ApiMisuse>(key)?.0.rotate_cids();
        self.apply_routes(now, key);
        done
    }

    /// Starts a key update.
    ///
    /// # Errors
    /// [`ApiMisuse::HandshakePending`] when the rules of RFC 9001 section 6 do not allow one now.
    pub fn update_keys(&mut self, now: Instant, key: ConnKey) -> Result<(), ApiMisuse> {
        let now = self.clock.read(now);
        let (conn, env) = self.touch::<ApiMisuse>(key)?;
        conn.update_keys(env, now)
    }

    /// Counters and gauges.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn conn_stats(&self, key: ConnKey) -> Result<ConnStats, ApiMisuse> {
        Ok(self.look(key)?.stats())
    }

    /// What TLS found out; `None` before the handshake is complete.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn identity(&self, key: ConnKey) -> Result<Option<&Identity>, ApiMisuse> {
        Ok(self.look(key)?.identity())
    }

    /// Suite and exporter secret, for [`Exporter`](crate::crypto::Exporter).
    ///
    /// # Errors
    /// [`ApiMisuse::HandshakePending`], [`ApiMisuse::UnknownConnection`].
    pub fn exporter_secret(&self, key: ConnKey) -> Result<(Suite, &Secret), ApiMisuse> {
        self.look(key)?.exporter_secret().ok_or(ApiMisuse::HandshakePending)
    }

    /// Version in use.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn version(&self, key: ConnKey) -> Result<Version, ApiMisuse> {
        Ok(self.look(key)?.version())
    }

    /// The peer's address.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn remote(&self, key: ConnKey) -> Result<core::net::SocketAddr, ApiMisuse> {
        match self.table.get(key).map(|entry| &entry.kind) {
            // One that was accepted may not be a connection yet.
            Some(Kind::Mini(mini)) => Ok(mini.client.remote),
            _ => Ok(self.look(key)?.remote()),
        }
    }

    /// Our connection IDs of a connection with their sequence numbers: those that its peer may use now.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn connection_ids(&self, key: ConnKey) -> Result<Vec<Issued>, ApiMisuse> {
        let conn = self.look(key)?;
        Ok(conn.issued().collect())
    }

    /// The paths of a connection, the one in use first; four at most.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn paths(&self, key: ConnKey) -> Result<Vec<PathInfo>, ApiMisuse> {
        Ok(self.look(key)?.path_infos())
    }

    /// The last packets each way.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn packet_log(&self, key: ConnKey) -> Result<&PacketLog, ApiMisuse> {
        Ok(self.look(key)?.packet_log())
    }

    /// Why a connection that still answers packets has ended; `None` while it is open.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn close_reason(&self, key: ConnKey) -> Result<Option<&CloseReason>, ApiMisuse> {
        Ok(self.look(key)?.close_reason())
    }

    /// Takes the newest token that the server sent for later connections.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn take_token(&mut self, key: ConnKey) -> Result<Option<Box<[u8]>>, ApiMisuse> {
        Ok(self.touch::<ApiMisuse>(key)?.0.take_token())
    }

    /// Keys of all connections that are not held.
    pub fn keys(&self) -> impl Iterator<Item = ConnKey> + '_ {
        self.table.iter().filter(|(_, e)| matches!(e.kind, Kind::Live(_))).map(|(key, _)| key)
    }
}
