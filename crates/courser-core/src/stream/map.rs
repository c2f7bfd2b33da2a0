//! All streams of a connection: opening, accepting, closing, credit of the connection and of numbers of streams.

use core::time::Duration;

use super::active::Active;
use super::entry::{Stream, Want};
use super::events::{Events, StreamEvent};
use super::flow::{Demand, RecvCredit, SendCredit};
use super::lean::Spares;
use super::lists::Lists;
use super::phase::RecvPhase;
use super::room;
use super::table::Table;
use crate::buf::lazy::Lazy;
use crate::buf::{ChunkPool, RangeSet, Reassembly, SendBuffer};
use crate::config::{Settings, StreamSchedule, TransportParams};
use crate::error::{ApiMisuse, PeerViolation, TransportCode};
use crate::ids::{Dir, Side, StreamId};
use crate::time::Instant;

/// Emptied buffers that are kept for the next stream, however few streams are open. With more open streams there may be
/// one for each, so that streams which fall idle and become busy again allocate nothing.
const SPARES_MIN: usize = 32;
/// Credit that the peer gives us on streams: opened here two-way, opened there two-way, one-way.
type StreamLimits = [u64; 3];

/// Streams that the peer opens, of one direction.
#[derive(Debug)]
pub(super) struct Remote {
    /// Index of the first stream that the peer has not opened.
    pub(super) next: u64,
    /// Index of the first stream that the application has not accepted.
    pub(super) accepted: u64,
    /// How many streams the peer may open over the connection's life, as told.
    pub(super) limit: u64,
    /// How many the peer may have open at once.
    pub(super) concurrent: u64,
    /// Indexes of closed streams; holds few ranges, because the streams between them are open.
    pub(super) closed: RangeSet,
    pub(super) closed_count: u64,
    /// Whether the newest MAX_STREAMS was lost.
    pub(super) lost: bool,
}

impl Remote {
    const fn new(concurrent: u64) -> Self {
        Self {
            next: 0,
            accepted: 0,
            limit: concurrent,
            concurrent,
            closed: RangeSet::new(),
            closed_count: 0,
            lost: false,
        }
    }

    /// The limit that a MAX_STREAMS frame would carry.
    pub(super) fn next_limit(&self) -> u64 {
        self.limit.max(self.closed_count + self.concurrent).min(1 << 60)
    }

    /// Whether the peer should be told: a quarter was closed, or the peer is about to run out.
    pub(super) fn is_due(&self) -> bool {
        let (more, left, quarter) =
            (self.next_limit() - self.limit, self.limit.saturating_sub(self.next), self.concurrent / 4);
        //= rfc9000#4.6-6
        self.lost || (more > 0 && (more >= quarter || left <= quarter))
    }
}

/// Streams that are opened here, of one direction. The index of the next stream is what is used of the credit.
#[derive(Debug, Default)]
pub(super) struct Local {
    pub(super) credit: SendCredit,
    /// The application was told that no stream can be opened.
    pub(super) wanted: bool,
    /// So many streams it was told it may open before a rejection of 0-RTT lowered the limit; those beyond the limit wait.
    pub(super) promised: u64,
}

impl Local {
    /// How many more streams may be opened; of those that only were promised nothing is sent yet.
    const fn room(&self) -> u64 {
        let promised = self.promised.saturating_sub(self.credit.used());
        if self.credit.room() > promised { self.credit.room() } else { promised }
    }
}

/// Figures of a connection's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Streams with state.
    pub open: usize,
    /// Streams that have something to send.
    pub active: usize,
    /// Streams that ended.
    pub closed: u64,
    /// Times that opening a stream had to wait for the peer.
    pub delayed: u64,
    /// Bytes buffered for sending.
    pub buffered_out: u64,
    /// Bytes received and not read.
    pub buffered_in: u64,
}

/// The streams of one connection.
#[derive(Debug)]
pub struct Streams {
    pub(super) side: Side,
    pub(super) table: Table,
    pub(super) local: [Local; 2],
    pub(super) remote: [Remote; 2],
    pub(super) active: Active,
    /// Streams with a frame other than STREAM to send (list 0).
    pub(super) control: Lists<1>,
    pub(super) events: Events,
    /// What the peer grants the connection.
    pub(super) send_credit: SendCredit,
    /// What the peer is granted.
    pub(super) recv_credit: RecvCredit,
    /// Sum of what all streams received, by highest offset.
    pub(super) received: u64,
    pub(super) peer_limits: StreamLimits,
    /// Whether the peer takes RESET_STREAM_AT.
    pub(super) peer_takes_partial: bool,
    /// What a round trip brings, for tuning windows.
    pub(super) demand: Demand,
    pub(super) window: u64,
    pub(super) window_max: u64,
    pub(super) conn_window_max: u64,
    pub(super) send_window: u64,
    pub(super) send_target: u64,
    /// Payload of a usual packet: a corked stream moves when it has that much.
    pub(super) full_frame: u64,
    pub(super) buffered_out: u64,
    /// Of that, what never left.
    pub(super) unsent: u64,
    pub(super) buffered_in: u64,
    /// Ranges behind first gaps, of all streams.
    pub(super) gaps_in: usize,
    closed_count: u64,
    delayed: u64,
    /// Streams that have data and lack credit of their own.
    lacking_credit: usize,
    /// Streams whose last write found the pool at its limit.
    pub(super) starved: Vec<StreamId>,
    /// Streams whose last write found the connection's room used up.
    pub(super) short: Vec<StreamId>,
    pub(super) spares: Lazy<Spares>,
}

impl Streams {
    /// No stream yet. Nothing can be sent before [`Self::set_peer_params`].
    #[must_use]
    pub fn new(side: Side, settings: &Settings) -> Self {
        Self {
            side,
            table: Table::default(),
            local: Default::default(),
            remote: [Remote::new(settings.max_streams_bidi), Remote::new(settings.max_streams_uni)],
            active: Active::new(settings.schedule),
            control: Lists::new(),
            events: Events::default(),
            send_credit: SendCredit::default(),
            recv_credit: RecvCredit::new(settings.conn_window),
            received: 0,
            peer_limits: [0; 3],
            peer_takes_partial: false,
            demand: Demand::default(),
            window: settings.stream_window,
            window_max: settings.stream_window_max,
            conn_window_max: settings.conn_window_max,
            send_window: settings.send_window.clamp(room::WINDOW_MIN, room::WINDOW_MAX),
            send_target: 0,
            full_frame: u64::from(crate::config::MIN_DATAGRAM),
            buffered_out: 0,
            unsent: 0,
            buffered_in: 0,
            gaps_in: 0,
            closed_count: 0,
            delayed: 0,
            lacking_credit: 0,
            starved: Vec::new(),
            short: Vec::new(),
            spares: Lazy::new(),
        }
    }

    /// The peer's transport parameters, or those remembered for 0-RTT. Limits only grow.
    pub fn set_peer_params(&mut self, params: &TransportParams) {
        self.peer_limits =
            [params.max_stream_data_bidi_remote, params.max_stream_data_bidi_local, params.max_stream_data_uni];
        self.peer_takes_partial = params.reset_stream_at;
        self.on_max_data(params.max_data);
        for slot in self.table.slots() {
            let limit = self.initial_limit(self.table[slot].id);
            if self.table[slot].send.credit.raise(limit) {
                self.update_send(slot);
                self.tell_writable(slot);
            }
        }
        for (dir, max) in [(Dir::Bi, params.max_streams_bidi), (Dir::Uni, params.max_streams_uni)] {
            self.raise_streams(dir, max);
        }
    }

    /// 0-RTT was rejected: everything sent so far has to be sent again, within the limits of `params`, even where they are
    /// smaller than the remembered ones. Streams beyond the new limit on their number wait for it to grow. Fates of 0-RTT
    /// packets need not be told.
    pub fn restart(&mut self, params: &TransportParams) {
        self.peer_limits =
            [params.max_stream_data_bidi_remote, params.max_stream_data_bidi_local, params.max_stream_data_uni];
        self.peer_takes_partial = params.reset_stream_at;
        self.send_credit.restart(params.max_data, 0);
        for (dir, max) in [(Dir::Bi, params.max_streams_bidi), (Dir::Uni, params.max_streams_uni)] {
            let local = &mut self.local[dir as usize];
            local.promised = local.credit.limit();
            local.credit.restart(max, local.credit.used());
        }
        for slot in self.table.slots() {
            let limit = self.initial_limit(self.table[slot].id);
            self.table[slot].restart(limit);
            self.update_send(slot);
            self.update_control(slot);
        }
        self.unsent = self.table.slots().map(|slot| self.table[slot].unsent()).sum();
        // Only now is it known what all of them together hold.
        self.table.slots().for_each(|slot| self.tell_writable(slot));
    }

    /// The time and the smoothed round-trip time, for tuning windows; once per tick is enough.
    pub fn on_tick(&mut self, now: Instant, rtt: Duration) {
        self.demand.on_tick(now, rtt, self.received);
    }

    /// Payload bytes of a full packet, which corked streams wait for.
    pub fn set_full_frame(&mut self, bytes: u64) {
        self.full_frame = bytes.max(1);
    }

    /// Changes how streams share packets.
    pub fn set_schedule(&mut self, schedule: StreamSchedule) {
        self.resort(|active| active.set_schedule(schedule));
    }

    /// Opens a stream; `None` at the peer's limit. [`StreamEvent::Available`] follows when the limit grows.
    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        //= rfc9000#2.1-1
        //= rfc9000#4.6-2
        let local = &mut self.local[dir as usize];
        if local.room() == 0 {
            //= rfc9000#4.6-5, rfc9000#19.14-1
            local.credit.block();
            self.delayed += u64::from(!local.wanted);
            local.wanted = true;
            return None;
        }
        let id = StreamId::new(self.side, dir, local.credit.used());
        local.credit.count_beyond(1);
        self.create(id);
        Some(id)
    }

    /// Streams that could be opened now.
    #[must_use]
    pub const fn open_room(&self, dir: Dir) -> u64 {
        self.local[dir as usize].room()
    }

    /// The next stream that the peer opened, in the order of their numbers.
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let remote = &mut self.remote[dir as usize];
        if remote.accepted >= remote.next {
            return None;
        }
        let id = StreamId::new(self.side.peer(), dir, remote.accepted);
        remote.accepted += 1;
        if let Some(slot) = self.table.find(id) {
            self.tell_readable(slot);
        }
        Some(id)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        while let Some(event) = self.events.pop() {
            match event {
                StreamEvent::Readable(id) | StreamEvent::Writable(id) => {
                    let Some(slot) = self.table.find(id) else { continue };
                    let stream = &mut self.table[slot];
                    let (told, still) = match event {
                        StreamEvent::Readable(_) => (&mut stream.told_readable, true),
                        _ => (&mut stream.told_writable, stream.send.phase.may_send()),
                    };
                    *told = false;
                    if !still {
                        continue;
                    }
                }
                _ => {}
            }
            return Some(event);
        }
        None
    }

    /// Whether [`Self::poll_event`] may have something.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether streams have data that only lacks credit of the connection.
    #[must_use]
    pub const fn waits_for_conn_credit(&self) -> bool {
        self.active.blocked() > 0
    }

    /// Whether streams have data that only lacks credit of their own.
    #[must_use]
    pub const fn waits_for_stream_credit(&self) -> bool {
        self.lacking_credit > 0
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        StreamStats {
            open: self.table.len(),
            active: self.active.len(),
            closed: self.closed_count,
            delayed: self.delayed,
            buffered_out: self.buffered_out,
            buffered_in: self.buffered_in,
        }
    }

    /// Ends all streams and gives every chunk back; for a connection that is over. No event follows.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        for slot in self.table.slots() {
            self.drop_out(slot, pool);
            self.drop_in(slot, pool);
            self.forget(slot);
        }
        self.spares = Lazy::new();
        self.events = Events::default();
    }

    /// The slot of a stream that the application names.
    pub(super) fn app_slot(&mut self, id: StreamId) -> Result<u32, ApiMisuse> {
        if let Some(slot) = self.table.find(id) {
            return Ok(slot);
        }
        if self.is_untouched(id) { Ok(self.create(id)) } else { Err(ApiMisuse::UnknownStream) }
    }

    /// The slot of a stream that the peer names; `None` when it is closed. Opens streams up to it.
    pub(super) fn peer_slot(&mut self, id: StreamId) -> Result<Option<u32>, PeerViolation> {
        if let Some(slot) = self.table.find(id) {
            return Ok(Some(slot));
        }
        if id.initiator() == self.side {
            if id.index() < self.local[id.dir() as usize].credit.used() {
                return Ok(None);
            }
            return Err(PeerViolation::new(
                TransportCode::STREAM_STATE_ERROR,
                "a frame for a stream that was not opened",
                "rfc9000#19.8",
            ));
        }
        let remote = &mut self.remote[id.dir() as usize];
        if id.index() >= remote.limit {
            //= rfc9000#4.6-3, rfc9000#19.11-4
            return Err(PeerViolation::new(
                TransportCode::STREAM_LIMIT_ERROR,
                "a stream beyond the limit",
                "rfc9000#4.6",
            ));
        }
        if id.index() >= remote.next {
            //= rfc9000#3.2-1
            remote.next = id.index() + 1;
            self.events.push_opened(id.dir());
        } else if remote.closed.contains(id.index()) {
            return Ok(None);
        }
        Ok(Some(self.create(id)))
    }

    /// Frees the stream when both parts are done and the application knows.
    pub(super) fn free_if_done(&mut self, slot: u32, pool: &mut ChunkPool) {
        let stream = &self.table[slot];
        if !stream.send_done(self.side) || !stream.recv_done(self.side) {
            return;
        }
        let id = stream.id;
        self.settle_metered(slot);
        self.drop_out(slot, pool);
        self.drop_in(slot, pool);
        self.forget(slot);
        self.closed_count += 1;
        if id.initiator() != self.side {
            //= rfc9000#4.6-6
            let remote = &mut self.remote[id.dir() as usize];
            remote.closed.insert(id.index()..id.index() + 1);
            remote.closed_count += 1;
        }
    }

    /// Puts the stream in the list where it belongs now: it can send, waits for credit, or has nothing to say.
    pub(super) fn update_send(&mut self, slot: u32) {
        let stream = &self.table[slot];
        let (id, priority) = (stream.id, stream.priority);
        let want =
            if self.is_beyond(id) { Want::Nothing } else { stream.want(self.send_credit.room(), self.full_frame) };
        let lost = stream.send.state.has_lost();
        self.note_credit(slot, matches!(want, Want::StreamCredit));
        let took_turns =
            core::mem::replace(&mut self.table[slot].takes_turns, matches!(want, Want::Send | Want::ConnCredit));
        match want {
            Want::Send => {
                self.active.insert(slot, id, priority);
                self.active.set_repair(slot, priority, lost);
            }
            Want::ConnCredit => {
                //= rfc9000#4.1-4, rfc9000#19.12-1
                self.send_credit.block();
                self.active.block(slot, id, priority);
            }
            Want::Nothing if !took_turns => {}
            Want::Nothing => self.active.remove(slot, id, priority),
            Want::StreamCredit => {
                //= rfc9000#4.1-4, rfc9000#19.13-1
                self.active.remove(slot, id, priority);
                self.table[slot].send.credit.block();
                self.update_control(slot);
            }
        }
    }

    /// Counts the streams that lack credit of their own.
    fn note_credit(&mut self, slot: u32, lacks: bool) {
        if core::mem::replace(&mut self.table[slot].lacks_credit, lacks) != lacks {
            self.lacking_credit = if lacks { self.lacking_credit + 1 } else { self.lacking_credit - 1 };
        }
    }

    /// Queues the stream when a frame other than STREAM is due.
    pub(super) fn update_control(&mut self, slot: u32) {
        let due = self.table[slot].control_due() && !self.is_beyond(self.table[slot].id);
        match (due, self.control.list_of(slot).is_some()) {
            (true, false) => self.control.push_back(0, slot),
            (false, true) => self.control.remove(slot),
            _ => {}
        }
    }

    /// Takes all streams out of their turns, lets `change` work, and puts them back.
    pub(super) fn resort(&mut self, change: impl FnOnce(&mut Active)) {
        let mut slots = core::mem::take(&mut self.spares.scratch);
        self.active.drain_into(&mut slots);
        change(&mut self.active);
        slots.drain(..).for_each(|slot| self.update_send(slot));
        self.spares.scratch = slots;
    }

    /// Tells the application that there is something to read, unless it is told already or has not accepted the stream.
    pub(super) fn tell_readable(&mut self, slot: u32) {
        let stream = &self.table[slot];
        let id = stream.id;
        let phase = stream.recv.state.phase();
        let something =
            stream.readable() > 0 || matches!(phase, RecvPhase::ResetRecvd { .. } | RecvPhase::DataRecvd { .. });
        let known = id.initiator() == self.side || id.index() < self.remote[id.dir() as usize].accepted;
        if something && known && !stream.told_readable {
            self.table[slot].told_readable = true;
            self.events.push(StreamEvent::Readable(id));
        }
    }

    /// The pool may have room again: streams whose write it cut short are told.
    pub fn on_pool_room(&mut self) {
        while let Some(id) = self.starved.pop() {
            if let Some(slot) = self.table.find(id) {
                self.table[slot].starved = false;
                self.tell_writable(slot);
            }
        }
    }

    /// A buffer for sending from `base` on.
    pub(super) fn take_out(&mut self, base: u64) -> Box<SendBuffer> {
        let mut buffer = self.spares.get_mut().and_then(|s| s.out.pop()).unwrap_or_default();
        buffer.restart(base);
        buffer
    }

    /// Gives the sending buffer and all its chunks back.
    pub(super) fn drop_out(&mut self, slot: u32, pool: &mut ChunkPool) {
        self.unsent -= self.table[slot].unsent();
        if let Some(mut buffer) = self.table[slot].send.buffer.take() {
            self.buffered_out -= buffer.len();
            buffer.clear(pool);
            if self.spares.out.len() < self.spares_max() {
                self.spares.out.push(buffer);
            }
        }
    }

    /// A buffer for receiving from offset zero on.
    pub(super) fn take_in(&mut self) -> Box<Reassembly> {
        self.spares.get_mut().and_then(|s| s.incoming.pop()).unwrap_or_default()
    }

    /// Gives the receiving buffer and all its chunks back.
    pub(super) fn drop_in(&mut self, slot: u32, pool: &mut ChunkPool) {
        if let Some(mut bytes) = self.table[slot].recv.bytes.take() {
            self.buffered_in -= bytes.held();
            self.gaps_in -= bytes.gaps();
            bytes.restart(pool);
            if self.spares.incoming.len() < self.spares_max() {
                self.spares.incoming.push(bytes);
            }
        }
    }

    /// Takes the stream out of every list and of the table.
    fn forget(&mut self, slot: u32) {
        self.note_credit(slot, false);
        let Stream { id, priority, takes_turns, .. } = self.table[slot];
        if takes_turns {
            self.active.remove(slot, id, priority);
        }
        self.control.remove(slot);
        self.table.remove(slot);
        let spares = self.spares_max();
        if let Some(kept) = self.spares.get_mut() {
            kept.out.truncate(spares);
            kept.incoming.truncate(spares);
        }
        if self.table.is_vacant() {
            self.active.shrink();
            self.control.shrink();
        }
    }

    fn spares_max(&self) -> usize {
        self.table.len().max(SPARES_MIN)
    }

    fn create(&mut self, id: StreamId) -> u32 {
        let limit = self.initial_limit(id);
        self.table.insert(Stream::new(id, limit, RecvCredit::new(self.window)))
    }

    /// What the peer granted a new stream in its transport parameters.
    pub(super) fn initial_limit(&self, id: StreamId) -> u64 {
        match (id.dir(), id.initiator() == self.side) {
            (Dir::Bi, true) => self.peer_limits[0],
            (Dir::Bi, false) => self.peer_limits[1],
            (Dir::Uni, _) => self.peer_limits[2],
        }
    }
}
