//! Two ends joined by queues: small windows, odd portions, a stream limit, and a byte to flip. For tests only.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};
use courser_core::ids::{Dir, Side, StreamId};

use crate::failure::{Failure, Outcome};
use crate::transport::{App, Event, Peek, Streams, Wrote};

/// One direction of a stream.
#[derive(Debug, Default)]
struct Half {
    queue: Vec<u8>,
    passed: u64,
    fin: bool,
    reset: Option<u64>,
    stopped: Option<u64>,
    writer_waits: bool,
    /// The reader saw the end or the reset, or nobody will.
    over: bool,
}

/// How the joint behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Bytes that a direction holds.
    pub window: usize,
    /// Two-way and one-way streams that an end may have open at once.
    pub streams: usize,
    /// Flip a bit of this byte of this stream, sent by that side.
    pub flip: Option<(Side, StreamId, u64)>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { window: 5000, streams: 3, flip: None }
    }
}

/// The joint.
pub(crate) struct Joint {
    rules: Rules,
    /// Halves by stream: what the client sends, what the server sends.
    streams: BTreeMap<StreamId, [Half; 2]>,
    opened: [[u64; 2]; 2],
    events: [VecDeque<Event>; 2],
    pub closed: Option<(Side, u64)>,
    dice: u64,
}

/// One end's view.
pub(crate) struct End<'a> {
    pub joint: &'a mut Joint,
    pub side: Side,
}

fn at(side: Side) -> usize {
    usize::from(side.is_server())
}

impl Joint {
    pub(crate) fn new(rules: Rules) -> Self {
        let start = || VecDeque::from([Event::Connected]);
        Self { rules, streams: BTreeMap::new(), opened: [[0; 2]; 2], events: [start(), start()], closed: None, dice: 1 }
    }

    pub(crate) fn end(&mut self, side: Side) -> End<'_> {
        End { joint: self, side }
    }

    /// A number from 1 to `most`.
    fn roll(&mut self, most: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (self.dice >> 33) as usize % most
    }

    fn tell(&mut self, side: Side, event: Event) {
        let queue = &mut self.events[at(side)];
        if !queue.contains(&event) {
            queue.push_back(event);
        }
    }

    /// Forgets a stream whose directions are both over, and gives its opener credit.
    fn sweep(&mut self, id: StreamId) {
        let over = self.streams.get(&id).is_some_and(|halves| halves.iter().all(|h| h.over));
        if over {
            self.streams.remove(&id);
            self.tell(id.initiator(), Event::Credit);
        }
    }

    /// Runs both programs until nothing happens any more.
    pub(crate) fn run(&mut self, client: &mut impl App, server: &mut impl App) -> (Outcome, Outcome) {
        let (mut c, mut s) = (Ok(()), Ok(()));
        loop {
            let mut quiet = true;
            if let Some(e) = self.events[0].pop_front() {
                quiet = false;
                c = c.and(client.on(&mut self.end(Side::Client), e));
            }
            if let Some(e) = self.events[1].pop_front() {
                quiet = false;
                s = s.and(server.on(&mut self.end(Side::Server), e));
            }
            if quiet {
                return (c, s);
            }
        }
    }

    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }
}

impl End<'_> {
    fn half(&mut self, id: StreamId, sender: Side) -> Option<&mut Half> {
        self.joint.streams.get_mut(&id).map(|h| &mut h[at(sender)])
    }
}

impl Streams for End<'_> {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let side = self.side;
        let mine = self.joint.streams.keys().filter(|id| id.initiator() == side && id.dir() == dir).count();
        if mine >= self.joint.rules.streams || self.joint.closed.is_some() {
            return None;
        }
        let n = &mut self.joint.opened[at(side)][dir as usize];
        let id = StreamId::new(side, dir, *n);
        *n += 1;
        let mut halves = [Half::default(), Half::default()];
        halves[at(side.peer())].over = dir == Dir::Uni;
        self.joint.streams.insert(id, halves);
        self.joint.tell(side.peer(), Event::Opened(id));
        Some(id)
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> Wrote {
        let (side, window, flip) = (self.side, self.joint.rules.window, self.joint.rules.flip);
        let portion = self.joint.roll(data.len().max(1));
        let Some(h) = self.half(id, side) else { return Wrote::Gone };
        assert!(!h.fin, "write after the end");
        if let Some(code) = h.stopped {
            return Wrote::Stopped(code);
        }
        if h.reset.is_some() {
            return Wrote::Gone;
        }
        // Mostly whole, sometimes an odd part of it.
        let portion = if portion.is_multiple_of(3) { portion } else { data.len() };
        let n = portion.min(window.saturating_sub(h.queue.len()));
        let start = h.passed + h.queue.len() as u64;
        h.queue.extend_from_slice(&data[..n]);
        let flip =
            flip.filter(|(who, which, at)| (*who, *which) == (side, id) && (start..start + n as u64).contains(at));
        if let Some((_, _, at)) = flip {
            h.queue[(at - h.passed) as usize] ^= 0x40;
        }
        h.writer_waits = n < data.len();
        let room = h.queue.len() < window;
        if n > 0 {
            self.joint.tell(side.peer(), Event::Readable(id));
        }
        if n < data.len() && room {
            self.joint.tell(side, Event::Writable(id));
        }
        Wrote::Took(n)
    }

    fn write_owned(&mut self, id: StreamId, data: &mut Bytes) -> Wrote {
        let wrote = self.write(id, &data.clone());
        if let Wrote::Took(n) = wrote {
            data.advance(n);
        }
        wrote
    }

    fn finish(&mut self, id: StreamId) {
        let side = self.side;
        if let Some(h) = self.half(id, side) {
            h.fin = true;
            self.joint.tell(side.peer(), Event::Readable(id));
        }
    }

    fn peek(&mut self, id: StreamId) -> Peek<'_> {
        let peer = self.side.peer();
        let portion = self.joint.roll(2000);
        let Some(h) = self.half(id, peer) else { return Peek::Gone };
        let (ended, code) = (h.fin && h.queue.is_empty(), h.reset);
        if code.is_some() || ended {
            h.over = true;
            self.joint.sweep(id);
            return code.map_or(Peek::End, Peek::Reset);
        }
        let Some(h) = self.half(id, peer) else { return Peek::Gone };
        if h.queue.is_empty() {
            return Peek::Blocked;
        }
        let n = portion.min(h.queue.len());
        Peek::Data(&h.queue[..n])
    }

    fn consume(&mut self, id: StreamId, n: usize) {
        let peer = self.side.peer();
        let Some(h) = self.half(id, peer) else { panic!("consume on a stream that is gone") };
        h.queue.drain(..n);
        h.passed += n as u64;
        if std::mem::take(&mut h.writer_waits) {
            self.joint.tell(peer, Event::Writable(id));
        }
    }

    fn reset(&mut self, id: StreamId, code: u64) {
        let side = self.side;
        if let Some(h) = self.half(id, side) {
            h.reset = Some(code);
            h.queue.clear();
            self.joint.tell(side.peer(), Event::Readable(id));
        }
    }

    fn stop(&mut self, id: StreamId, code: u64) {
        let peer = self.side.peer();
        if let Some(h) = self.half(id, peer) {
            h.stopped = Some(code);
            h.over = true;
            self.joint.tell(peer, Event::Stopped { id, code });
            self.joint.sweep(id);
        }
    }

    fn close(&mut self, code: u64, reason: &str) {
        let side = self.side;
        if self.joint.closed.is_none() {
            self.joint.closed = Some((side, code));
            self.joint.streams.clear();
            let why = Failure::PeerClosed { code: code.to_string(), reason: reason.into() };
            self.joint.tell(side.peer(), Event::Closed(why));
        }
    }
}
