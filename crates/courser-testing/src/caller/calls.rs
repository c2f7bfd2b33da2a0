//! What applications call, with arguments from the ordinary to the absurd.

use bytes::Bytes;
use courser_core::config::StreamSchedule;
use courser_core::error::ApiMisuse;
use courser_core::ids::{ConnKey, Side, StreamId, VARINT_MAX};
use courser_core::stream::{Priority, Read, ReadError, WriteError};

use super::{Caller, Stream, stream_dir};

/// The byte at an offset of what that side writes to a stream.
fn byte(port: u16, side: Side, id: StreamId, offset: u64) -> u8 {
    let of_stream = u64::from(port).wrapping_mul(31) ^ (id.0 << 3) ^ u64::from(side == Side::Client);
    (of_stream.wrapping_mul(0x9e37_79b9) >> 7 ^ offset.wrapping_mul(167) ^ offset >> 8) as u8
}

impl Caller {
    /// A stream that the connection has, or may have, or cannot have.
    fn draw_stream(&mut self, e: usize, key: ConnKey) -> StreamId {
        let n = self.chance.below(20);
        let streams = self.ends[e].conns.get(&key).map(|c| &c.streams).filter(|s| !s.is_empty());
        match (n, streams) {
            (0, _) => StreamId(VARINT_MAX),
            (1, _) => StreamId(u64::MAX),
            (2, _) => StreamId(self.chance.below(1 << 62)),
            (3..6, _) | (_, None) => StreamId(self.chance.below(140)),
            (_, Some(streams)) => {
                let nth = self.chance.below(streams.len() as u64) as usize;
                StreamId(streams.keys().nth(nth).copied().unwrap_or(0))
            }
        }
    }

    fn draw_code(&mut self) -> u64 {
        [0, 7, VARINT_MAX, VARINT_MAX + 1, u64::MAX][self.chance.below(5) as usize]
    }

    fn draw_len(&mut self) -> usize {
        match self.chance.below(40) {
            0..4 => 0,
            4 => 300_000,
            5..8 => 20_000,
            _ => self.chance.below(2_000) as usize,
        }
    }

    fn model(&mut self, e: usize, key: ConnKey, id: StreamId) -> &mut Stream {
        self.ends[e].learn(key).streams.entry(id.0).or_default()
    }

    pub(super) fn call_stream(&mut self, e: usize) {
        let key = self.draw_key(e);
        if self.chance.below(5) == 0 {
            return self.open_or_accept(e, key);
        }
        let id = self.draw_stream(e, key);
        match self.chance.below(40) {
            0..20 => self.write(e, key, id),
            20..24 => self.finish(e, key, id),
            24..26 => self.reset(e, key, id),
            26 => {
                let code = self.draw_code();
                let result = self.ends[e].engine.stop_sending(key, id, code);
                self.note(e, key, &result);
                if result.is_ok() {
                    assert!(code <= VARINT_MAX);
                    self.model(e, key, id).over = true;
                }
            }
            27..29 => {
                let corked = self.chance.below(3) == 0;
                let result = self.ends[e].engine.cork(key, id, corked);
                self.note(e, key, &result);
            }
            29..32 => {
                let result = self.ends[e].engine.flush(key, id);
                self.note(e, key, &result);
            }
            32 => {
                let priority =
                    Priority { urgency: self.chance.below(256) as u8, incremental: self.chance.below(2) == 0 };
                let result = self.ends[e].engine.set_priority(key, id, priority);
                self.note(e, key, &result);
                if result.is_ok() {
                    assert_eq!(self.ends[e].engine.priority(key, id).map(|p| p.urgency), Ok(priority.urgency.min(7)));
                }
            }
            33 => {
                let result = self.ends[e].engine.meter_stream(key, id);
                self.note(e, key, &result);
            }
            34 => {
                let result = self.ends[e].engine.stream_extent(key, id);
                self.note(e, key, &result);
            }
            35 => {
                let result = self.ends[e].engine.is_early(key, id);
                self.note(e, key, &result);
                assert_ne!(result, Ok(true), "nobody sends 0-RTT here");
            }
            36 => {
                let result = self.ends[e].engine.is_finished_acked(key, id);
                self.note(e, key, &result);
            }
            _ => {
                let result = self.ends[e].engine.is_at_end(key, id);
                self.note(e, key, &result);
            }
        }
    }

    fn open_or_accept(&mut self, e: usize, key: ConnKey) {
        let dir = stream_dir(&mut self.chance);
        let end = &mut self.ends[e];
        let side = end.side;
        if self.chance.below(2) == 0 {
            let room = end.engine.open_room(key, dir);
            let result = end.engine.open_stream(key, dir);
            self.note(e, key, &result);
            if let Ok(opened) = result {
                assert_eq!(opened.is_some(), room != Ok(0), "room and opening do not agree");
                let Some(id) = opened else { return };
                let conn = self.ends[e].learn(key);
                assert_eq!(id, StreamId::new(side, dir, conn.opened[dir as usize]), "opened out of order");
                conn.opened[dir as usize] += 1;
                assert!(conn.streams.insert(id.0, Stream::default()).is_none_or(|s| s.written + s.read == 0));
            }
        } else {
            let result = end.engine.accept_stream(key, dir);
            self.note(e, key, &result);
            if let Ok(Some(id)) = result {
                let conn = self.ends[e].learn(key);
                let theirs = if side.is_client() { Side::Server } else { Side::Client };
                assert_eq!(id, StreamId::new(theirs, dir, conn.accepted[dir as usize]), "accepted out of order");
                conn.accepted[dir as usize] += 1;
                conn.streams.entry(id.0).or_default();
            }
        }
    }

    fn write(&mut self, e: usize, key: ConnKey, id: StreamId) {
        let (len, way) = (self.draw_len(), self.chance.below(3));
        let end = &mut self.ends[e];
        let (side, conn) = (end.side, end.conns.get(&key));
        let at = conn.and_then(|c| c.streams.get(&id.0)).map_or(0, |s| s.written);
        // The port of a connection that the model has not seen yet.
        let port = conn.map(|c| c.port).or_else(|| end.engine.remote(key).ok().map(|a| a.port())).unwrap_or(0);
        let data: Vec<u8> = (at..at + len as u64).map(|o| byte(port, side, id, o)).collect();
        let engine = &mut end.engine;
        let room = engine.send_room(key, id);
        let short = |s: courser_core::buf::pool::PoolStats| s.refused + s.over_share;
        let before = short(engine.pool_stats());
        let result = match way {
            0 => engine.write(key, id, &data),
            1 => {
                let mut owned = Bytes::from(data);
                let result = engine.write_owned(key, id, &mut owned);
                assert_eq!(owned.len(), len - result.unwrap_or(0), "what was not taken is left");
                result
            }
            _ => {
                let (a, b) = data.split_at(len / 3);
                engine.write_vectored(key, id, &[a, &[], b])
            }
        };
        let starved = short(engine.pool_stats()) > before;
        self.note(e, key, &result);
        if let Ok(n) = result {
            let room = room.expect("what can be written to has room or none");
            assert!(n == len.min(room) || (n < room && starved), "wrote {n} of {len}, room {room}");
            let stream = self.model(e, key, id);
            assert!(!stream.ended, "written after the end");
            stream.written += n as u64;
        }
    }

    fn finish(&mut self, e: usize, key: ConnKey, id: StreamId) {
        let result = self.ends[e].engine.finish(key, id);
        self.note(e, key, &result);
        if result.is_ok() {
            let stream = self.model(e, key, id);
            assert!(!stream.ended, "ended twice");
            (stream.ended, stream.finished) = (true, true);
        }
    }

    fn reset(&mut self, e: usize, key: ConnKey, id: StreamId) {
        let (code, partial) = (self.draw_code(), self.chance.below(2) == 0);
        let reliable = [0, 1, 500, u64::MAX][self.chance.below(4) as usize];
        let engine = &mut self.ends[e].engine;
        let stopped = matches!(engine.write(key, id, &[]), Err(WriteError::Stopped(_)));
        let result = if partial { engine.reset_at(key, id, code, reliable) } else { engine.reset(key, id, code) };
        self.note(e, key, &result);
        if result.is_ok() {
            assert!(code <= VARINT_MAX, "a code that no frame can carry");
            // Where nothing happens any more nothing is promised either: it was reset before, or the peer stopped it.
            let over = self.ends[e].engine.write(key, id, &[]).is_err();
            let stream = self.model(e, key, id);
            assert!(!partial || reliable <= stream.written || stream.ended || stopped, "promised what was not written");
            assert!(over, "a stream that was reset takes bytes");
            stream.ended = true;
        }
    }

    pub(super) fn read_something(&mut self, e: usize) {
        let key = self.draw_key(e);
        let id = self.draw_stream(e, key);
        let mut got = Vec::new();
        let len = self.draw_len();
        let engine = &mut self.ends[e].engine;
        let result = match self.chance.below(5) {
            0 => {
                let result = engine.peek(key, id).map(<[u8]>::to_vec);
                self.note(e, key, &result);
                if let Ok(bytes) = result {
                    self.check(e, key, id, &bytes);
                }
                return;
            }
            1 => engine.consume(key, id, [0, len, usize::MAX][self.chance.below(3) as usize]),
            2 => engine.read_with(key, id, |piece| {
                let n = piece.len().min(len.saturating_sub(got.len()));
                got.extend_from_slice(&piece[..n]);
                if n == piece.len() { usize::MAX } else { n }
            }),
            _ => {
                got.resize(len, 0);
                let result = engine.read(key, id, &mut got);
                got.truncate(if let Ok(Read::Bytes(n)) = result { n } else { 0 });
                result
            }
        };
        self.note(e, key, &result);
        match result {
            Ok(Read::Bytes(n)) => {
                self.check(e, key, id, &got);
                let stream = self.model(e, key, id);
                assert!(!stream.over || n == 0, "read after the end");
                stream.read += n as u64;
                self.reached.bytes += n as u64;
                self.check_extent(e, key, id, false);
            }
            Ok(Read::Finished) => {
                self.check_extent(e, key, id, true);
                self.model(e, key, id).over = true;
                self.reached.finished += 1;
            }
            Err(ReadError::Reset(_)) => self.model(e, key, id).over = true,
            _ => {}
        }
    }

    /// Holds that these are the next bytes.
    fn check(&mut self, e: usize, key: ConnKey, id: StreamId, bytes: &[u8]) {
        let writer = self.ends[1 - e].side;
        let conn = self.ends[e].learn(key);
        let at = conn.streams.get(&id.0).map_or(0, |s| s.read);
        let wrong = bytes.iter().zip(at..).position(|(b, offset)| *b != byte(conn.port, writer, id, offset));
        assert_eq!(wrong, None, "a byte of stream {id:?} behind {at} that was not written there");
    }

    /// Holds that no more was read than was written at the other end, and at the end all of it.
    fn check_extent(&mut self, e: usize, key: ConnKey, id: StreamId, at_end: bool) {
        let conn = self.ends[e].learn(key);
        let (read, port) = (conn.streams.get(&id.0).map_or(0, |s| s.read), conn.port);
        let there = &self.ends[1 - e];
        let peers = there.ports.get(&port).into_iter().flatten().filter_map(|k| there.conns.get(k));
        let fits = |s: &Stream| if at_end { s.finished && s.written == read } else { s.written >= read };
        let mut streams = peers.filter_map(|c| c.streams.get(&id.0));
        assert!(streams.any(fits), "{read} bytes of {id:?} were read (the end: {at_end}), which nobody wrote");
    }

    pub(super) fn call_connection(&mut self, e: usize) {
        let key = self.draw_key(e);
        let now = self.now;
        match self.chance.below(40) {
            0..8 => self.send_datagram(e, key),
            8..16 => self.read_datagram(e, key),
            16 if self.chance.below(10) == 0 => {
                let code = self.draw_code();
                let reason = vec![b'x'; self.draw_len()];
                let result = self.ends[e].engine.close(now, key, code, &reason);
                self.note(e, key, &result);
                assert!(result.is_err() || code <= VARINT_MAX);
            }
            17 => {
                let result = self.ends[e].engine.ping(key);
                self.note(e, key, &result);
            }
            18 => {
                let result = self.ends[e].engine.update_keys(now, key);
                self.note(e, key, &result);
            }
            19 => {
                let result = self.ends[e].engine.rotate_connection_ids(now, key);
                self.note(e, key, &result);
            }
            20 if self.chance.below(10) == 0 => {
                let local = core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));
                let result = self.ends[e].engine.migrate(now, key, local);
                self.note(e, key, &result);
            }
            21 => {
                let n = [0, 1, u16::MAX][self.chance.below(3) as usize];
                let schedule = if n == 0 { StreamSchedule::Sequential } else { StreamSchedule::RoundRobin(n - 1) };
                let result = self.ends[e].engine.set_schedule(key, schedule);
                self.note(e, key, &result);
            }
            22 => {
                let result = self.ends[e].engine.take_token(key);
                self.note(e, key, &result);
            }
            23..27 => {
                let result = self.ends[e].engine.poll_datagram_fate(key);
                self.note(e, key, &result);
            }
            27 => self.ends[e].engine.note(now, key, b"note"),
            _ => self.ask(e, key),
        }
    }

    /// Questions, all of which agree on whether the connection is there.
    fn ask(&mut self, e: usize, key: ConnKey) {
        let engine = &self.ends[e].engine;
        let known = engine.conn_stats(key).is_ok();
        let answers = [
            engine.stream_stats(key).is_ok(),
            engine.identity(key).is_ok(),
            engine.version(key).is_ok(),
            engine.connection_ids(key).is_ok(),
            engine.paths(key).is_ok(),
            engine.packet_log(key).is_ok(),
            engine.close_reason(key).is_ok(),
            engine.settings(key).is_ok(),
            engine.early_data(key).is_ok(),
            engine.can_reset_at(key).is_ok(),
            engine.datagram_max(key).is_ok(),
            engine.exporter_secret(key).err() != Some(ApiMisuse::UnknownConnection),
            engine.keys().any(|k| k == key),
        ];
        assert_eq!(answers, [known; 13], "one knows {key:?} and another does not");
        let result = engine.conn_stats(key).map(drop);
        self.note(e, key, &result);
    }

    fn send_datagram(&mut self, e: usize, key: ConnKey) {
        let (port, serial) = self.ends[e].conns.get(&key).map_or((0, 0), |c| (c.port, c.datagrams));
        let mut data = serial.to_be_bytes().to_vec();
        data.extend_from_slice(&port.to_be_bytes());
        data.resize(10 + self.draw_len(), 1);
        let tag = (self.chance.below(2) == 0).then_some(u64::MAX);
        let max = self.ends[e].engine.datagram_max(key);
        let len = data.len();
        let result = self.ends[e].engine.send_datagram(key, data.into(), tag);
        self.note(e, key, &result);
        if result == Ok(true) {
            assert!(max.is_ok_and(|m| m.is_some_and(|m| len <= m)), "{len} bytes were taken, of {max:?}");
            self.ends[e].learn(key).datagrams += 1;
        }
    }

    fn read_datagram(&mut self, e: usize, key: ConnKey) {
        let result = self.ends[e].engine.read_datagram(key);
        self.note(e, key, &result);
        let Ok(Some(data)) = result else { return };
        let conn = self.ends[e].learn(key);
        let (serial, rest) = data.split_first_chunk().expect("every datagram has a number");
        let (port, _) = rest.split_first_chunk().expect("and a port");
        assert!(u16::from_be_bytes(*port) == conn.port || *port == [0; 2], "a datagram of another connection");
        let fresh = conn.received.insert(u64::from_be_bytes(*serial));
        assert!(fresh || *port == [0; 2], "a datagram came twice");
        self.reached.datagrams += 1;
    }
}
