//! Streams of sessions: opening and taking in, bytes each way, the ends.
//!
//! A direction is over when nothing more can happen in it: sending with the last acknowledgement, a reset here or a stop by
//! the peer; receiving when the end or a reset was told, or the application wants no more. The session is closed when both
//! are.

use std::collections::VecDeque;

use bytes::Bytes;
use courser_core::engine::Engine;
use courser_core::error::ApiMisuse;
use courser_core::ids::{ConnKey, Dir, StreamId, VARINT_MAX};
use courser_core::spans::Fate;
use courser_core::stream::{self, PartialReset};
use courser_session::blocks::{BLOCK, Blocks};
use courser_session::handle::{Handle, Kind};
use courser_session::msg::Addresses;
use courser_session::port::{Event, Origin, Outbox, Read, Source};

use super::{Books, Key, Sessions, connection};
use crate::session::reason::{Ended, Reason};

/// Streams of one connection and direction that wait to be opened, at most.
const OPENS_MAX: usize = 1 << 16;
/// A write of so many bytes may let the stream's window grow.
const BULK: usize = 16 << 10;
/// The largest window of a stream.
const WINDOW_MAX: u64 = 4 << 20;

/// A stream as its session keeps it.
pub struct StreamState {
    pub(super) conn: ConnKey,
    pub(super) id: StreamId,
    /// Position of the next byte to deliver.
    pub(super) offset: u64,
    /// Bytes that the application wrote, without those that it gave up before the engine had them.
    pub(super) written: u64,
    /// Whether something may still happen in this direction.
    pub(super) sends: bool,
    pub(super) receives: bool,
    /// The application set the end.
    pub(super) finished: bool,
    /// Sending was given up.
    aborted: bool,
    /// What does not wait in the engine; most streams have nothing.
    parked: Option<Box<Parked>>,
}

// A stream costs little beside the engine's own state.
const _: () = assert!(size_of::<Key>() <= 56);

#[derive(Default)]
struct Parked {
    /// Written, and not yet taken by the engine.
    out: VecDeque<Bytes>,
    /// How sending ends behind them, when it was given up.
    reset: Option<PartialReset>,
    /// What the peer had sent when the connection ended, and how it went on.
    rest: VecDeque<Bytes>,
    end: Option<Read>,
}

impl StreamState {
    /// What it is doing, in a word.
    pub(super) const fn word(&self) -> &'static str {
        match (self.sends, self.receives) {
            (true, true) => "open",
            (true, false) => "sending",
            (false, true) => "receiving",
            (false, false) => "over",
        }
    }

    fn over(&self) -> Option<Reason> {
        let over = !self.sends && !self.receives;
        over.then_some(if self.aborted { Reason::GivenUp } else { Reason::Done })
    }
}

fn stream(sessions: &mut Sessions, handle: Handle) -> Option<&mut StreamState> {
    match &mut sessions.get_mut(handle).ok()?.key {
        Key::Stream(s) => Some(s),
        _ => None,
    }
}

impl Books {
    pub(super) fn open(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        handle: Handle,
        (dir, token): (Dir, u64),
    ) {
        let Some(key) = connection(sessions, handle) else { return };
        let Some(conn) = self.conn(key) else {
            return outbox.reply(Ended::plain(Reason::ConnectionOver).failure(token));
        };
        let line = &mut conn.opens[dir as usize];
        if line.len() >= OPENS_MAX {
            return outbox.reply(Ended::plain(Reason::TooManyWaiting).failure(token));
        }
        line.push_back(token);
        self.open_waiting(outbox, sessions, key, dir);
    }

    /// Opens streams for those who wait, as far as the peer and the application's share let us.
    pub(in crate::session) fn open_waiting(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        key: ConnKey,
        dir: Dir,
    ) {
        while let Some(conn) = self.conn(key).filter(|conn| !conn.opens[dir as usize].is_empty()) {
            let handle = conn.handle;
            if !outbox.has_share() {
                return self.starve(key);
            }
            let Ok(Some(id)) = self.engine.open_stream(key, dir) else { return };
            let Some(token) = self.conn(key).and_then(|conn| conn.opens[dir as usize].pop_front()) else { return };
            if !self.enter_stream(outbox, sessions, (key, id), Origin::Token(token)) {
                let _ = self.engine.reset(key, id, 0);
                // There is no room for another session; the token is told with the end of its connection.
                debug_assert!(sessions.contains(handle), "a connection in the books has a session");
                return;
            }
        }
    }

    /// Takes in the streams that the peer opened, as far as the application's share lets us.
    pub(in crate::session) fn accept_streams(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        key: ConnKey,
        dir: Dir,
    ) {
        let Some(parent) = self.conn(key).map(|conn| conn.handle) else { return };
        loop {
            if dir == Dir::Bi && !outbox.has_share() {
                return self.starve(key);
            }
            let Ok(Some(id)) = self.engine.accept_stream(key, dir) else { return };
            if self.enter_stream(outbox, sessions, (key, id), Origin::Parent(parent)) {
                if let Some(handle) = self.conn(key).and_then(|conn| conn.streams.get(&id).copied()) {
                    let _ = outbox.event(sessions, handle, Event::Readable);
                }
            } else {
                let _ = self.engine.stop_sending(key, id, 0);
                let _ = self.engine.reset(key, id, 0);
            }
        }
    }

    fn starve(&mut self, key: ConnKey) {
        if !self.starved.contains(&key) {
            self.starved.push(key);
        }
    }

    fn enter_stream(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        (key, id): (ConnKey, StreamId),
        origin: Origin,
    ) -> bool {
        let Some(conn) = self.conn(key) else { return false };
        let state = StreamState {
            conn: key,
            id,
            offset: 0,
            written: 0,
            sends: id.sends(conn.side),
            receives: id.receives(conn.side),
            finished: false,
            aborted: false,
            parked: None,
        };
        let entered = if state.sends {
            outbox.open(sessions, Kind::Stream, Key::Stream(state), origin)
        } else {
            outbox.open_inward(sessions, Key::Stream(state), origin)
        };
        entered.is_ok_and(|handle| conn.streams.insert(id, handle).is_none())
    }

    /// Hands what the application wrote to the engine, as much as it takes, and the end behind it.
    pub(super) fn write(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        handle: Handle,
        (mut data, fin): (Bytes, bool),
    ) {
        let Some(s) = stream(sessions, handle).filter(|s| s.sends && !s.finished) else { return };
        s.written += data.len() as u64;
        s.finished = fin;
        if let Some(parked) = s.parked.as_mut().filter(|parked| !parked.out.is_empty()) {
            // Behind what waits already; the engine tells when it has room.
            if !data.is_empty() {
                parked.out.push_back(data);
            }
            return;
        }
        let mut taken = 0;
        if !data.is_empty() {
            // What the peer stopped, or is gone, is dropped: the event that says so is on its way.
            taken = self.engine.write_owned(s.conn, s.id, &mut data).unwrap_or_else(|_| {
                data.clear();
                0
            });
        }
        if !data.is_empty() {
            s.parked.get_or_insert_default().out.push_back(data);
        } else if fin {
            let _ = self.engine.finish(s.conn, s.id);
        }
        self.released(outbox, sessions, handle, taken);
    }

    /// The engine has room for a stream's bytes again.
    pub(in crate::session) fn pump(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle) {
        let Some(s) = stream(sessions, handle).filter(|s| s.sends) else { return };
        let Some(parked) = s.parked.as_mut() else { return };
        let mut taken = 0;
        while let Some(piece) = parked.out.front_mut() {
            match self.engine.write_owned(s.conn, s.id, piece) {
                Ok(n) => taken += n,
                Err(_) => piece.clear(),
            }
            if !piece.is_empty() {
                break;
            }
            parked.out.pop_front();
        }
        if parked.out.is_empty() {
            let reset = parked.reset;
            s.parked = None;
            if let Some(reset) = reset {
                let _ = self.engine.reset_at(s.conn, s.id, reset.code, reset.reliable_size);
            } else if s.finished {
                let _ = self.engine.finish(s.conn, s.id);
            }
        }
        self.released(outbox, sessions, handle, taken);
    }

    /// `taken` bytes are the engine's now: the application may write as many more.
    fn released(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle, taken: usize) {
        let Some(s) = stream(sessions, handle) else { return };
        if taken == 0 || s.finished {
            return;
        }
        let mut target = 0;
        if taken >= BULK
            && let Ok(stats) = self.engine.conn_stats(s.conn)
        {
            target = u32::try_from((2 * stats.congestion_window).min(WINDOW_MAX)).unwrap_or(0);
        }
        let _ = outbox.released(sessions, handle, taken as u64, target);
    }

    pub(super) fn reset(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle, code: u64) -> bool {
        let Some(s) = stream(sessions, handle).filter(|s| s.sends) else { return true };
        if self.engine.reset(s.conn, s.id, code) == Err(stream::WriteError::Misuse(ApiMisuse::CodeTooLarge)) {
            return false;
        }
        s.aborted = true;
        self.end_sending(outbox, sessions, handle, None);
        true
    }

    /// Gives up sending, but has the first bytes arrive; `false` when that cannot be.
    pub(super) fn reset_at(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        handle: Handle,
        reset: PartialReset,
    ) -> bool {
        if reset.reliable_size == 0 {
            return self.reset(outbox, sessions, handle, reset.code);
        }
        let Some(s) = stream(sessions, handle).filter(|s| s.sends) else { return true };
        let possible = self.engine.can_reset_at(s.conn) == Ok(true) && reset.code <= VARINT_MAX;
        if !possible || (reset.reliable_size > s.written && !s.aborted) {
            return false;
        }
        (s.finished, s.aborted) = (true, true);
        // One that waits behind bytes has said its code already.
        let code = s.parked.as_ref().and_then(|parked| parked.reset).map_or(reset.code, |first| first.code);
        if let Some(parked) = s.parked.as_mut().filter(|parked| !parked.out.is_empty()) {
            let waiting: u64 = parked.out.iter().map(|piece| piece.len() as u64).sum();
            let taken = s.written - waiting;
            s.written -= shorten(&mut parked.out, reset.reliable_size.saturating_sub(taken));
            if !parked.out.is_empty() {
                let reliable_size = reset.reliable_size.min(s.written);
                parked.reset = Some(PartialReset { code, reliable_size });
                return true;
            }
        }
        s.parked = None;
        let _ = self.engine.reset_at(s.conn, s.id, code, reset.reliable_size);
        true
    }

    pub(super) fn stop(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle, code: u64) -> bool {
        let Some(s) = stream(sessions, handle).filter(|s| s.receives) else { return true };
        if self.engine.stop_sending(s.conn, s.id, code) == Err(stream::ReadError::Misuse(ApiMisuse::CodeTooLarge)) {
            return false;
        }
        s.receives = false;
        let over = s.over();
        let _ = outbox.discard(sessions, handle);
        if let Some(reason) = over {
            self.end_stream(outbox, sessions, handle, reason);
        }
        true
    }

    /// Nothing more happens in the sending direction; `event` tells of it, unless the stream is over with it.
    pub(in crate::session) fn end_sending(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        handle: Handle,
        event: Option<Event>,
    ) {
        let Some(s) = stream(sessions, handle).filter(|s| s.sends) else { return };
        s.sends = false;
        s.aborted |= matches!(event, Some(Event::Stopped(_)));
        s.parked = None;
        let over = s.over();
        if let Some(event) = event.filter(|event| over.is_none() || *event != Event::AllAcked) {
            let _ = outbox.event(sessions, handle, event);
        }
        if let Some(reason) = over {
            self.end_stream(outbox, sessions, handle, reason);
        }
    }

    fn end_stream(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle, reason: Reason) {
        let Some(s) = stream(sessions, handle) else { return };
        let (key, id) = (s.conn, s.id);
        if let Some(conn) = self.conn(key) {
            conn.streams.remove(&id);
        }
        let _ = outbox.event(sessions, handle, Ended::plain(reason).event());
    }

    /// The connection of a stream ended. What the peer had sent before can still be read.
    pub(in crate::session) fn cut_stream(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        handle: Handle,
        ended: &Ended,
    ) {
        let Some(s) = stream(sessions, handle) else { return };
        (s.sends, s.parked) = (false, None);
        if s.receives && ended.reason != Reason::ClosedHere {
            let mut parked = Parked::default();
            parked.end = Some(loop {
                match fetch((&mut self.engine, &mut self.blocks), s.conn, s.id, u32::MAX) {
                    (data, None) => parked.rest.push_back(data),
                    (data, Some(end)) => {
                        parked.rest.extend(Some(data).filter(|data| !data.is_empty()));
                        break end;
                    }
                }
            });
            s.parked = Some(Box::new(parked));
            let _ = outbox.event(sessions, handle, Event::Readable);
        } else {
            s.receives = false;
            let _ = outbox.discard(sessions, handle);
        }
        let _ = outbox.event(sessions, handle, ended.event());
    }
}

/// Leaves the first `keep` bytes; how many went.
fn shorten(pieces: &mut VecDeque<Bytes>, mut keep: u64) -> u64 {
    let mut gone = 0;
    for piece in pieces.iter_mut() {
        let kept = usize::try_from(keep).unwrap_or(usize::MAX).min(piece.len());
        gone += (piece.len() - kept) as u64;
        piece.truncate(kept);
        keep -= kept as u64;
    }
    pieces.retain(|piece| !piece.is_empty());
    gone
}

/// The next bytes of a stream, at most `max`, and what follows them when that is not more bytes.
fn fetch((engine, blocks): (&mut Engine, &mut Blocks), key: ConnKey, id: StreamId, max: u32) -> (Bytes, Option<Read>) {
    let max = BLOCK.min(max as usize);
    let data = engine.peek(key, id).map_or_else(|_| Bytes::new(), |p| blocks.copy(&p[..p.len().min(max)]));
    if !data.is_empty() {
        let _ = engine.consume(key, id, data.len());
        if !engine.is_at_end(key, id).unwrap_or(false) {
            return (data, None);
        }
    }
    let end = match engine.consume(key, id, 0) {
        Ok(stream::Read::Finished) => Read::Data { offset: 0, data: Bytes::new(), fin: true },
        Err(stream::ReadError::Reset(code)) => Read::Reset(code),
        _ => Read::Nothing,
    };
    (data, Some(end))
}

impl Source<Key> for Books {
    fn read(&mut self, key: &mut Key, max: u32) -> Read {
        let Key::Stream(s) = key else { return Read::Nothing };
        if !s.receives {
            return Read::Nothing;
        }
        let offset = s.offset;
        let (data, end) = match s.parked.as_deref_mut() {
            Some(Parked { rest, end: Some(end), .. }) => match rest.front_mut() {
                Some(piece) => {
                    let data = piece.split_to(piece.len().min(max as usize));
                    if piece.is_empty() {
                        rest.pop_front();
                    }
                    (data, (rest.is_empty() && matches!(end, Read::Data { .. })).then(|| end.clone()))
                }
                None => (Bytes::new(), Some(end.clone())),
            },
            _ => fetch((&mut self.engine, &mut self.blocks), s.conn, s.id, max),
        };
        s.offset += data.len() as u64;
        let read = match end {
            None | Some(Read::Nothing) if !data.is_empty() => return Read::Data { offset, data, fin: false },
            Some(Read::Data { .. }) => Read::Data { offset, data, fin: true },
            Some(Read::Reset(code)) => Read::Reset(code),
            _ => return Read::Nothing,
        };
        s.receives = false;
        let (conn, id, over) = (s.conn, s.id, s.over().is_some());
        if over && let Some(conn) = self.conn(conn) {
            conn.streams.remove(&id);
        }
        read
    }

    fn datagram(&mut self, key: &Key) -> Option<Bytes> {
        let Key::Connection(key) = key else { return None };
        self.engine.read_datagram(*key).ok().flatten()
    }

    fn datagram_fate(&mut self, key: &Key) -> Option<(u64, bool)> {
        let Key::Connection(key) = key else { return None };
        let (tag, fate) = self.engine.poll_datagram_fate(*key).ok().flatten()?;
        Some((tag, fate == Fate::Acked))
    }

    fn number(&self, key: &Key) -> u64 {
        if let Key::Stream(s) = key { s.id.0 } else { 0 }
    }

    fn addresses(&self, key: &Key) -> Option<Addresses> {
        match key {
            Key::Connection(key) => self.addresses_of(*key),
            _ => None,
        }
    }

    fn over(&self, key: &Key) -> Option<u8> {
        match key {
            Key::Stream(s) => s.over().map(Reason::index),
            _ => None,
        }
    }
}
