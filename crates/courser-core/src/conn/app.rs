//! What applications call, through the engine.

use bytes::Bytes;

use super::{ConnStats, Connection, EarlyData, Env, Life, PacketLog};
use crate::config::{Settings, StreamSchedule};
use crate::crypto::Identity;
use crate::error::{ApiMisuse, CloseReason};
use crate::ids::{Dir, StreamId, VARINT_MAX, Version};
use crate::observe::Way;
use crate::path::PathInfo;
use crate::spans::Fate;
use crate::stream::{Extent, PartialReset, Priority, Read, ReadError, StreamStats, WriteError};
use crate::time::Instant;

impl Connection {
    fn check_open(&self) -> Result<(), ApiMisuse> {
        if self.is_open() { Ok(()) } else { Err(ApiMisuse::Closing) }
    }

    pub(crate) fn open_stream(&mut self, dir: Dir) -> Result<Option<StreamId>, ApiMisuse> {
        self.check_open()?;
        if !self.peer_known && self.early != EarlyData::Offered {
            return Err(ApiMisuse::HandshakePending);
        }
        Ok(self.streams.open(dir))
    }

    pub(crate) fn open_room(&self, dir: Dir) -> u64 {
        let known = self.peer_known || self.early == EarlyData::Offered;
        if self.is_open() && known { self.streams.open_room(dir) } else { 0 }
    }

    pub(crate) fn accept_stream(&mut self, dir: Dir) -> Option<StreamId> {
        self.streams.accept(dir)
    }

    pub(crate) fn write(&mut self, env: &mut Env, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        self.check_open()?;
        let taken = self.streams.write(id, data, &mut env.pool)?;
        self.moved(env, Some(id), taken, Way::Out, false);
        Ok(taken)
    }

    pub(crate) fn write_owned(&mut self, env: &mut Env, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        self.check_open()?;
        let taken = self.streams.write_owned(id, data, &mut env.pool)?;
        self.moved(env, Some(id), taken, Way::Out, false);
        Ok(taken)
    }

    pub(crate) fn write_vectored(&mut self, env: &mut Env, id: StreamId, data: &[&[u8]]) -> Result<usize, WriteError> {
        self.check_open()?;
        let taken = self.streams.write_vectored(id, data, &mut env.pool)?;
        self.moved(env, Some(id), taken, Way::Out, false);
        Ok(taken)
    }

    pub(crate) fn send_room(&self, id: StreamId) -> Result<usize, WriteError> {
        Ok(usize::try_from(self.streams.send_room(id)).unwrap_or(usize::MAX))
    }

    pub(crate) fn cork(&mut self, id: StreamId, corked: bool) -> Result<(), WriteError> {
        self.streams.cork(id, corked)
    }

    pub(crate) fn flush(&mut self, id: StreamId) -> Result<(), WriteError> {
        self.streams.flush(id)
    }

    pub(crate) fn finish(&mut self, env: &mut Env, id: StreamId) -> Result<(), WriteError> {
        self.check_open()?;
        self.streams.finish(id)?;
        self.moved(env, Some(id), 0, Way::Out, true);
        Ok(())
    }

    pub(crate) fn reset(&mut self, env: &mut Env, id: StreamId, code: u64) -> Result<(), WriteError> {
        self.check_open()?;
        check_code(code)?;
        Ok(self.streams.reset(id, code, &mut env.pool)?)
    }

    pub(crate) fn reset_at(&mut self, env: &mut Env, id: StreamId, reset: PartialReset) -> Result<(), WriteError> {
        self.check_open()?;
        check_code(reset.code)?;
        Ok(self.streams.reset_at(id, reset, &mut env.pool)?)
    }

    pub(crate) fn can_reset_at(&self) -> bool {
        self.streams.can_reset_at()
    }

    pub(crate) fn stop_sending(&mut self, env: &mut Env, id: StreamId, code: u64) -> Result<(), ReadError> {
        self.check_open()?;
        check_code(code)?;
        Ok(self.streams.stop_sending(id, code, &mut env.pool)?)
    }

    pub(crate) fn meter_stream(&mut self, id: StreamId) -> Result<(), ApiMisuse> {
        self.streams.meter(id)
    }

    pub(crate) fn stream_extent(&self, id: StreamId) -> Option<Extent> {
        self.streams.extent(id)
    }

    pub(crate) fn read(&mut self, env: &mut Env, id: StreamId, out: &mut [u8]) -> Result<Read, ReadError> {
        let read = self.streams.read(id, out, &mut env.pool)?;
        self.moved_in(env, id, read);
        Ok(read)
    }

    pub(crate) fn peek(&mut self, id: StreamId) -> Result<&[u8], ReadError> {
        self.streams.peek(id)
    }

    pub(crate) fn consume(&mut self, env: &mut Env, id: StreamId, n: usize) -> Result<Read, ReadError> {
        let read = self.streams.consume(id, n, &mut env.pool)?;
        self.moved_in(env, id, read);
        Ok(read)
    }

    pub(crate) fn read_with(
        &mut self,
        env: &mut Env,
        id: StreamId,
        f: impl FnMut(&[u8]) -> usize,
    ) -> Result<Read, ReadError> {
        let read = self.streams.read_with(id, &mut env.pool, f)?;
        self.moved_in(env, id, read);
        Ok(read)
    }

    pub(crate) fn is_at_end(&self, id: StreamId) -> bool {
        self.streams.is_at_end(id)
    }

    pub(crate) fn is_finished_acked(&self, id: StreamId) -> bool {
        self.streams.is_finished_acked(id)
    }

    pub(crate) fn stream_stats(&self) -> StreamStats {
        self.streams.stats()
    }

    pub(crate) fn set_schedule(&mut self, schedule: StreamSchedule) {
        self.streams.set_schedule(schedule);
    }

    pub(crate) fn set_priority(&mut self, id: StreamId, priority: Priority) -> Result<(), ApiMisuse> {
        self.streams.set_priority(id, priority)
    }

    pub(crate) fn priority(&self, id: StreamId) -> Result<Priority, ApiMisuse> {
        Ok(self.streams.priority(id))
    }

    pub(crate) fn send_datagram(&mut self, env: &mut Env, data: Bytes, tag: Option<u64>) -> Result<bool, ApiMisuse> {
        self.check_open()?;
        let (room, len) = (self.datagram_room(), data.len());
        let taken = self.datagrams.push(data, tag, room)?;
        if taken {
            self.moved(env, None, len, Way::Out, false);
        }
        Ok(taken)
    }

    pub(crate) fn datagram_max(&self) -> Option<usize> {
        self.datagrams.payload_max(self.datagram_room())
    }

    pub(crate) fn read_datagram(&mut self, env: &mut Env) -> Option<Bytes> {
        let data = self.datagrams.read()?;
        self.moved(env, None, data.len(), Way::In, false);
        Some(data)
    }

    pub(crate) fn poll_datagram_fate(&mut self) -> Option<(u64, Fate)> {
        self.datagrams.poll_fate()
    }

    /// Closes with the application's code and reason; the peer sees both verbatim.
    pub(crate) fn close(&mut self, now: Instant, code: u64, reason: &[u8]) -> Result<(), ApiMisuse> {
        check_code(code)?;
        self.begin_close(now, CloseReason::LocalApplication { code, reason: reason.to_vec() });
        Ok(())
    }

    /// Asks for a packet that elicits an acknowledgement.
    pub(crate) fn ping(&mut self) -> Result<(), ApiMisuse> {
        self.check_open()?;
        self.ping = true;
        Ok(())
    }

    /// Starts a key update; an error when the rules do not allow one now.
    pub(crate) fn update_keys(&mut self, env: &mut Env, now: Instant) -> Result<(), ApiMisuse> {
        self.check_open()?;
        self.keys.initiate_update(env.keys.as_ref(), now).map_err(|_| ApiMisuse::HandshakePending)
    }

    pub(crate) fn stats(&self) -> ConnStats {
        let path = &self.path;
        ConnStats {
            rtt: path.rtt.smoothed(),
            min_rtt: path.rtt.min(),
            latest_rtt: path.rtt.latest(),
            rtt_var: path.rtt.var(),
            congestion_window: path.congestion.window(),
            bytes_in_flight: path.congestion.in_flight(),
            ssthresh: path.congestion.ssthresh(),
            pacing_rate: path.pacer.rate(),
            mtu: path.pmtud.current(),
            ecn: path.ecn.wants_mark(),
            ..self.stats.snapshot()
        }
    }

    pub(crate) fn path_infos(&self) -> Vec<PathInfo> {
        core::iter::once(self.path.info(true)).chain(self.standby.iter().map(|path| path.info(false))).collect()
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn settings<'e>(&self, env: &'e Env) -> &'e Settings {
        env.common.get(&self.settings)
    }

    pub(crate) fn remote(&self) -> core::net::SocketAddr {
        self.path.remote()
    }

    pub(crate) fn packet_log(&self) -> &PacketLog {
        &self.log
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.life, Life::Handshaking)
    }

    /// Takes a token for a later connection that the server sent.
    pub(crate) fn take_token(&mut self) -> Option<Box<[u8]>> {
        self.new_token.take().map(|token| super::versions::keep_token(self.version, &token))
    }
}

fn check_code(code: u64) -> Result<(), ApiMisuse> {
    if code <= VARINT_MAX { Ok(()) } else { Err(ApiMisuse::CodeTooLarge) }
}
