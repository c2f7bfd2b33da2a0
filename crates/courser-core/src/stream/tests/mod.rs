//! Streams of two ends in memory, without packets' headers, protection or recovery: what `fill` writes is parsed and given
//! to the other end, or lost, or late.

mod credit;
mod edges;
mod exchange;
mod extent;
mod fates;
mod life;
mod partial;
mod room;
mod rules;
mod schedule;
mod violations;

use core::time::Duration;

use super::{PartialReset, Streams};
use crate::buf::ChunkPool;
use crate::config::{Settings, TransportParams};
use crate::error::PeerViolation;
use crate::ids::{Level, Side, StreamId};
use crate::spans::{Fate, FrameKind, FrameSet, Record};
use crate::time::Instant;
use crate::wire::Writer;
use crate::wire::frame::{Extensions, Frame, frames};

/// The frames that belong to the connection's streams as a whole.
const CONN_KINDS: [FrameKind; 6] = [
    FrameKind::MaxData,
    FrameKind::DataBlocked,
    FrameKind::MaxStreamsBidi,
    FrameKind::MaxStreamsUni,
    FrameKind::StreamsBlockedBidi,
    FrameKind::StreamsBlockedUni,
];

/// What was put into a packet.
#[derive(Clone, Debug)]
struct Packet {
    payload: Vec<u8>,
    records: Vec<Record>,
    frames: FrameSet,
    conn: Vec<FrameKind>,
}

/// One end of a connection.
struct End {
    s: Streams,
    pool: ChunkPool,
    now: Instant,
}

impl End {
    fn new(side: Side, settings: &Settings) -> Self {
        Self { s: Streams::new(side, settings), pool: ChunkPool::new(64 << 20), now: Instant::from_micros(1) }
    }

    /// Builds a packet of at most `size` bytes; `None` when there is nothing to say.
    fn packet(&mut self, size: usize, last: bool) -> Option<Packet> {
        let mut buf = vec![0; size];
        let mut w = Writer::new(&mut buf);
        let mut p = Packet { payload: Vec::new(), records: Vec::new(), frames: FrameSet::EMPTY, conn: Vec::new() };
        for kind in CONN_KINDS {
            let Some(value) = self.s.due(kind) else { continue };
            if conn_frame(kind, value).encode(&mut w).is_some() {
                self.s.mark_sent(kind);
                p.conn.push(kind);
                p.frames.insert(kind);
            }
        }
        let tail = self.s.fill(&mut w, &mut p.records, &mut p.frames, last);
        let room = w.room();
        p.payload.extend_from_slice(w.written());
        if let Some(span) = tail {
            assert!(last, "bytes are left uncopied only at the end of a packet");
            let rest = self.s.slice(&span);
            assert!(rest.len() == span.len as usize && rest.len() <= room);
            p.payload.extend_from_slice(rest);
        }
        (!p.payload.is_empty()).then_some(p)
    }

    /// Takes a packet in.
    fn deliver(&mut self, p: &Packet) -> Result<(), PeerViolation> {
        for frame in frames(&p.payload, Level::OneRtt, Extensions { reset_stream_at: true, ..Extensions::NONE }) {
            self.frame(&frame?)?;
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), PeerViolation> {
        let (s, pool) = (&mut self.s, &mut self.pool);
        match *frame {
            Frame::Stream { id, offset, data, fin, .. } => s.on_stream(id, offset, data, fin, pool),
            Frame::ResetStream { id, code, final_size } => s.on_reset_stream(id, code, final_size, pool),
            Frame::ResetStreamAt { id, code, final_size, reliable_size } => {
                s.on_reset_stream_at(id, PartialReset { code, reliable_size }, final_size, pool)
            }
            Frame::StopSending { id, code } => s.on_stop_sending(id, code, pool),
            Frame::MaxData { max } => {
                s.on_max_data(max);
                Ok(())
            }
            Frame::MaxStreamData { id, max } => s.on_max_stream_data(id, max),
            Frame::MaxStreams { dir, max } => s.on_max_streams(dir, max),
            Frame::DataBlocked { limit } => {
                s.on_data_blocked(limit);
                Ok(())
            }
            Frame::StreamDataBlocked { id, limit } => s.on_stream_data_blocked(id, limit),
            Frame::StreamsBlocked { dir, limit } => s.on_streams_blocked(dir, limit),
            ref other => panic!("streams do not write {other:?}"),
        }
    }

    /// Tells the fate of a packet.
    fn fate(&mut self, p: &Packet, fate: Fate) {
        for record in &p.records {
            match record {
                Record::Stream(span) => self.s.on_span(fate, span, &mut self.pool),
                Record::ResetStream(id) => self.s.on_reset_fate(*id, fate, &mut self.pool),
                Record::ResetStreamAt { id, reliable_size } => {
                    self.s.on_reset_at_fate(*id, *reliable_size, fate, &mut self.pool);
                }
                Record::StopSending(id) => self.s.on_stop_fate(*id, fate, &mut self.pool),
                Record::MaxStreamData(id) => self.s.on_max_stream_data_fate(*id, fate),
                Record::StreamDataBlocked(id) => self.s.on_blocked_fate(*id, fate),
                other => panic!("streams do not record {other:?}"),
            }
        }
        p.conn.iter().for_each(|kind| self.s.on_frame_fate(*kind, fate));
    }

    fn tick(&mut self, us: u64) {
        self.now += Duration::from_micros(us);
        self.s.on_tick(self.now, Duration::from_millis(20));
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> usize {
        self.s.write(id, data, &mut self.pool).unwrap()
    }

    /// Reads everything there is; says whether the end was reached.
    fn read_all(&mut self, id: StreamId, out: &mut Vec<u8>) -> bool {
        let mut buf = [0; 3000];
        loop {
            match self.s.read(id, &mut buf, &mut self.pool).unwrap() {
                super::Read::Bytes(n) => out.extend_from_slice(&buf[..n]),
                super::Read::Blocked => return false,
                super::Read::Finished => return true,
            }
        }
    }
}

fn conn_frame(kind: FrameKind, value: u64) -> Frame<'static> {
    use crate::ids::Dir::{Bi, Uni};
    match kind {
        FrameKind::MaxData => Frame::MaxData { max: value },
        FrameKind::DataBlocked => Frame::DataBlocked { limit: value },
        FrameKind::MaxStreamsBidi => Frame::MaxStreams { dir: Bi, max: value },
        FrameKind::MaxStreamsUni => Frame::MaxStreams { dir: Uni, max: value },
        FrameKind::StreamsBlockedBidi => Frame::StreamsBlocked { dir: Bi, limit: value },
        _ => Frame::StreamsBlocked { dir: Uni, limit: value },
    }
}

/// Client and server that know each other's parameters.
fn pair(settings: &Settings) -> (End, End) {
    let (mut client, mut server) = (End::new(Side::Client, settings), End::new(Side::Server, settings));
    client.s.set_peer_params(&TransportParams::limits_of(settings));
    server.s.set_peer_params(&TransportParams::limits_of(settings));
    (client, server)
}

/// Moves packets both ways without loss until nobody has anything to say.
fn settle(a: &mut End, b: &mut End) {
    for round in 0.. {
        assert!(round < 100_000, "the ends never fall silent");
        let (x, y) = (a.packet(1200, true), b.packet(1200, true));
        if x.is_none() && y.is_none() {
            return;
        }
        if let Some(p) = x {
            b.deliver(&p).unwrap();
            a.fate(&p, Fate::Acked);
        }
        if let Some(p) = y {
            a.deliver(&p).unwrap();
            b.fate(&p, Fate::Acked);
        }
    }
}

fn pattern(id: StreamId, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|i| (i as u64 * 31 + id.0 * 7) as u8).collect()
}
