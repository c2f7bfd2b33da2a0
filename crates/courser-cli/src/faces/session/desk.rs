//! The application's side of its sessions: what arrived, what may be written, which streams are in stock.
//!
//! Programs see a connection as [`Streams`]. What they do becomes submissions, which are handed over together at the end of a
//! round; an end that follows a write goes with it. Opening a stream is an exchange with the worker, so that some are opened
//! in advance: as many as the program took at once, up to [`STOCK`].
//!
//! Invariants: a stream is in its connection's table from the message that tells of it until it is closed and everything that
//! it brought was taken; a place in `places` belongs to the session whose handle it has.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, Bytes};
use courser::session::{Completion, Ended, Handle, Kind, Reason, Submission, Waited, WriteCredit, look_time};
use courser_core::ids::{Dir, StreamId};

use super::failure;
use super::gate::Gate;
use crate::failure::{Failure, Outcome};
use crate::link::Peer;
use crate::transport::{App, Event, Peek, Streams, Wrote};

/// Streams of a connection and direction that are opened in advance, at most.
const STOCK: u64 = 64;
/// Consumed bytes are reported when they are worth a message.
const REPORT: u64 = 128 << 10;
/// Messages that are read at a time.
const BATCH: usize = 256;

/// One stream.
struct Flow {
    handle: Handle,
    credit: WriteCredit,
    chunks: VecDeque<Bytes>,
    /// Bytes taken and not yet reported.
    consumed: u64,
    /// The end was read behind the chunks.
    fin: bool,
    reset: Option<u64>,
    stopped: Option<u64>,
    /// A write took less than it was given.
    wants_room: bool,
    /// The session is over.
    closed: bool,
    /// The program knows the end, or wants no more.
    ended: bool,
}

impl Flow {
    /// Whether nothing is left that the program has to read.
    fn told(&self) -> bool {
        self.ended || (!self.fin && self.reset.is_none())
    }

    fn new(handle: Handle) -> Self {
        Self {
            handle,
            credit: WriteCredit::new(),
            chunks: VecDeque::new(),
            consumed: 0,
            fin: false,
            reset: None,
            stopped: None,
            wants_room: false,
            closed: false,
            ended: false,
        }
    }
}

/// What a connection has besides its program.
#[derive(Default)]
struct Tables {
    flows: HashMap<StreamId, Flow>,
    /// Open streams that the program did not take yet, by direction.
    stock: [VecDeque<StreamId>; 2],
    /// Streams that were asked for and are not there yet.
    asked: [u64; 2],
    /// How many the program would have taken at once.
    wanted: [u64; 2],
    /// The program found the stock empty.
    hungry: [bool; 2],
}

struct Conn<A> {
    app: A,
    tables: Tables,
}

enum Place<A> {
    Free,
    Connection(Handle, Box<Conn<A>>),
    Stream { handle: Handle, connection: Handle, id: StreamId },
}

/// What a message was about.
pub enum What {
    /// A connection that was asked for with this token exists.
    Opened(u64),
    /// A connection came in.
    Accepted,
    /// Its handshake is done; its program knows.
    Established,
    /// It ended; its program knew, and is gone.
    Closed(Failure),
    /// It could not be begun.
    Failed(Failure),
    /// Its program was told of something.
    Event,
    /// Nothing that anybody waits for.
    Nothing,
}

/// What became of a message.
pub struct Told {
    /// The connection, when it was about one.
    pub session: Option<Handle>,
    /// What it was about.
    pub what: What,
    /// What the program says.
    pub outcome: Outcome,
}

/// A port and what its application knows.
pub struct Desk<A> {
    port: Gate,
    peer: Peer,
    /// By the handle's index.
    places: Vec<Place<A>>,
    out: VecDeque<Submission>,
    heard: VecDeque<Completion>,
    batch: Vec<Completion>,
    look: Duration,
}

/// One connection, for the length of one call.
pub struct Link<'a> {
    handle: Handle,
    tables: &'a mut Tables,
    out: &'a mut VecDeque<Submission>,
}

impl<A: App> Desk<A> {
    pub fn new(port: impl Into<Gate>, peer: Peer) -> Self {
        Self {
            port: port.into(),
            peer,
            places: Vec::new(),
            out: VecDeque::new(),
            heard: VecDeque::new(),
            batch: Vec::with_capacity(BATCH),
            look: look_time(),
        }
    }

    /// Submits at the end of the round.
    pub fn say(&mut self, submission: Submission) {
        self.out.push_back(submission);
    }

    pub fn close(&mut self, handle: Handle, code: u64) {
        self.say(Submission::Close { handle, code, reason: Bytes::new() });
    }

    /// The next message of this round.
    pub fn hear(&mut self) -> Option<Completion> {
        if self.heard.is_empty() {
            self.port.poll_into(&mut self.batch, BATCH);
            self.heard.extend(self.batch.drain(..));
        }
        self.heard.pop_front()
    }

    /// Ends the round: hands over what was said, and waits for news. `false` when the worker is gone.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.port.submit_batch(&mut std::iter::from_fn(|| self.out.pop_front()));
        let waited = if self.out.is_empty() {
            self.port.look_then_wait(self.look, timeout)
        } else {
            self.port.wait_for_room(timeout)
        };
        waited != Waited::Closed
    }

    fn place(&mut self, handle: Handle, place: Place<A>) {
        let at = handle.index() as usize;
        if self.places.len() <= at {
            self.places.resize_with(at + 1, || Place::Free);
        }
        self.places[at] = place;
    }

    /// Gives a connection its program.
    pub fn insert(&mut self, connection: Handle, app: A) {
        self.place(connection, Place::Connection(connection, Box::new(Conn { app, tables: Tables::default() })));
    }

    /// Takes a connection's program away; what happens to the connection afterwards is nobody's business.
    pub fn remove(&mut self, connection: Handle) -> Option<A> {
        let place = self.places.get_mut(connection.index() as usize)?;
        match std::mem::replace(place, Place::Free) {
            Place::Connection(handle, conn) if handle == connection => Some(conn.app),
            other => {
                *place = other;
                None
            }
        }
    }

    /// All connections that have a program.
    pub fn connections(&self) -> Vec<Handle> {
        let handle = |place: &Place<A>| if let Place::Connection(handle, _) = place { Some(*handle) } else { None };
        self.places.iter().filter_map(handle).collect()
    }

    /// The program of a connection.
    pub fn app(&mut self, connection: Handle) -> Option<&mut A> {
        self.conn(connection).map(|(conn, _)| &mut conn.app)
    }

    /// Calls a program.
    pub fn with(&mut self, connection: Handle, f: impl FnOnce(&mut A, &mut Link<'_>) -> Outcome) -> Outcome {
        let Some((conn, out)) = self.conn(connection) else { return Ok(()) };
        f(&mut conn.app, &mut Link { handle: connection, tables: &mut conn.tables, out })
    }

    fn conn(&mut self, connection: Handle) -> Option<(&mut Conn<A>, &mut VecDeque<Submission>)> {
        match self.places.get_mut(connection.index() as usize)? {
            Place::Connection(handle, conn) if *handle == connection => Some((conn, &mut self.out)),
            _ => None,
        }
    }

    /// Tells a program.
    fn tell(&mut self, connection: Handle, event: Event) -> Told {
        let outcome = self.with(connection, |app, link| app.on(link, event));
        Told { session: Some(connection), what: What::Event, outcome }
    }

    /// Takes a message in, and tells the program whose connection it is about.
    pub fn on(&mut self, message: Completion) -> Told {
        let about = |session, what| Told { session, what, outcome: Ok(()) };
        match message {
            Completion::Opened { token, handle, number } if handle.kind() == Kind::Stream => {
                self.stocked(token, handle, StreamId(number))
            }
            Completion::Opened { token, handle, .. } => about(Some(handle), What::Opened(token)),
            Completion::Accepted { handle, parent, number } if handle.kind() == Kind::Stream => {
                let id = StreamId(number);
                self.enter(parent, handle, id);
                self.tell(parent, Event::Opened(id))
            }
            Completion::Accepted { handle, .. } => about(Some(handle), What::Accepted),
            Completion::Established { connection } => {
                Told { what: What::Established, ..self.tell(connection, Event::Connected) }
            }
            Completion::Closed { handle, .. } if handle.kind() == Kind::Connection => self.closed(handle, &message),
            Completion::Failed { token, .. } => match Ended::of(&message) {
                // Streams are asked for with the handle of their connection, connections with small numbers.
                Some(ended) if Handle::from_raw(token).is_none() => {
                    about(None, What::Failed(failure(&self.peer, &ended)))
                }
                _ => about(None, What::Nothing),
            },
            message => match self.stream_event(message) {
                Some((connection, event)) => self.tell(connection, event),
                None => about(None, What::Nothing),
            },
        }
    }

    /// A stream that was asked for is there.
    fn stocked(&mut self, token: u64, handle: Handle, id: StreamId) -> Told {
        let nothing = Told { session: None, what: What::Nothing, outcome: Ok(()) };
        let Some(connection) = Handle::from_raw(token) else { return nothing };
        self.enter(connection, handle, id);
        let Some((conn, _)) = self.conn(connection) else { return nothing };
        let dir = id.dir() as usize;
        conn.tables.stock[dir].push_back(id);
        conn.tables.asked[dir] = conn.tables.asked[dir].saturating_sub(1);
        if std::mem::take(&mut conn.tables.hungry[dir]) { self.tell(connection, Event::Credit) } else { nothing }
    }

    fn enter(&mut self, connection: Handle, handle: Handle, id: StreamId) {
        if let Some((conn, _)) = self.conn(connection) {
            conn.tables.flows.insert(id, Flow::new(handle));
            self.place(handle, Place::Stream { handle, connection, id });
        }
    }

    fn closed(&mut self, connection: Handle, message: &Completion) -> Told {
        let nothing = Told { session: None, what: What::Nothing, outcome: Ok(()) };
        let Some(ended) = Ended::of(message) else { return nothing };
        let why = failure(&self.peer, &ended);
        let told = self.tell(connection, Event::Closed(why.clone()));
        Told { what: What::Closed(why), ..told }
    }

    /// What a message about a stream means for the program of its connection.
    fn stream_event(&mut self, message: Completion) -> Option<(Handle, Event)> {
        let stream = message.handle()?;
        let (connection, id) = match self.places.get(stream.index() as usize)? {
            Place::Stream { handle, connection, id } if *handle == stream => (*connection, *id),
            _ => return None,
        };
        let tables = &mut self.conn(connection)?.0.tables;
        let flow = tables.flows.get_mut(&id)?;
        let event = match message {
            Completion::Data { data, fin, .. } => {
                flow.chunks.extend(Some(data).filter(|data| !data.is_empty()));
                flow.fin = fin;
                Event::Readable(id)
            }
            Completion::Reset { code, .. } => {
                flow.reset = Some(code);
                Event::Readable(id)
            }
            Completion::CreditGranted { limit, .. } => {
                let news = flow.credit.grant(limit);
                if !news || !std::mem::take(&mut flow.wants_room) {
                    return None;
                }
                Event::Writable(id)
            }
            Completion::Stopped { code, .. } => {
                flow.stopped = Some(code);
                Event::Stopped { id, code }
            }
            Completion::AllAcked { .. } => Event::Acked(id),
            Completion::Closed { reason, .. } => {
                flow.closed = true;
                tables.forget(id);
                if reason != Reason::Done.index() {
                    return None;
                }
                Event::Acked(id)
            }
            _ => return None,
        };
        Some((connection, event))
    }
}

impl Tables {
    /// Drops a stream when it is closed and has brought everything.
    fn forget(&mut self, id: StreamId) {
        if self.flows.get(&id).is_some_and(|flow| flow.closed && flow.chunks.is_empty() && flow.told()) {
            self.flows.remove(&id);
        }
    }
}

impl Link<'_> {
    /// Asks for streams, so that as many are in stock as the program takes at once.
    fn order(&mut self, dir: Dir) {
        let at = dir as usize;
        let (stock, asked) = (self.tables.stock[at].len() as u64, &mut self.tables.asked[at]);
        while stock + *asked < self.tables.wanted[at] {
            *asked += 1;
            let (connection, token) = (self.handle, self.handle.raw());
            self.out.push_back(match dir {
                Dir::Bi => Submission::OpenBi { connection, token },
                Dir::Uni => Submission::OpenUni { connection, token },
            });
        }
    }
}

impl Streams for Link<'_> {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let at = dir as usize;
        let id = self.tables.stock[at].pop_front();
        if id.is_none() {
            self.tables.hungry[at] = true;
            self.tables.wanted[at] = (2 * self.tables.wanted[at]).clamp(1, STOCK);
        }
        self.order(dir);
        id
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> Wrote {
        let room = self.tables.flows.get(&id).map_or(0, |flow| flow.credit.room());
        let mut part = Bytes::copy_from_slice(&data[..data.len().min(room.max(1))]);
        let wrote = self.write_owned(id, &mut part);
        if let (Wrote::Took(count), Some(flow)) = (&wrote, self.tables.flows.get_mut(&id)) {
            // The part may have gone whole.
            flow.wants_room = *count < data.len();
        }
        wrote
    }

    fn write_owned(&mut self, id: StreamId, data: &mut Bytes) -> Wrote {
        let Some(flow) = self.tables.flows.get_mut(&id) else { return Wrote::Gone };
        if let Some(code) = flow.stopped {
            return Wrote::Stopped(code);
        }
        if flow.closed {
            return Wrote::Gone;
        }
        let count = flow.credit.spend(data.len());
        flow.wants_room = count < data.len();
        if count > 0 {
            let data = data.split_to(count);
            self.out.push_back(Submission::Write { stream: flow.handle, data, fin: false });
        }
        Wrote::Took(count)
    }

    fn finish(&mut self, id: StreamId) {
        let Some(flow) = self.tables.flows.get(&id) else { return };
        match self.out.back_mut() {
            Some(Submission::Write { stream, fin, .. }) if *stream == flow.handle => *fin = true,
            _ => self.out.push_back(Submission::Finish { stream: flow.handle }),
        }
    }

    fn peek(&mut self, id: StreamId) -> Peek<'_> {
        let Some(flow) = self.tables.flows.get_mut(&id) else { return Peek::Gone };
        if !flow.chunks.is_empty() {
            let flow = self.tables.flows.get(&id);
            return flow.and_then(|flow| flow.chunks.front()).map_or(Peek::Gone, |chunk| Peek::Data(chunk));
        }
        let peek = match (flow.reset, flow.fin) {
            (Some(code), _) => Peek::Reset(code),
            (None, true) => Peek::End,
            (None, false) if flow.closed => Peek::Gone,
            (None, false) => return Peek::Blocked,
        };
        flow.ended = true;
        self.tables.forget(id);
        peek
    }

    fn piece(&self, id: StreamId) -> Option<Bytes> {
        self.tables.flows.get(&id)?.chunks.front().cloned()
    }

    fn consume(&mut self, id: StreamId, n: usize) {
        let Some(flow) = self.tables.flows.get_mut(&id) else { return };
        let mut left = n;
        while let Some(chunk) = flow.chunks.front_mut().filter(|_| left > 0) {
            let part = left.min(chunk.len());
            chunk.advance(part);
            left -= part;
            if chunk.is_empty() {
                flow.chunks.pop_front();
            }
        }
        flow.consumed += (n - left) as u64;
        if !flow.fin && flow.consumed >= REPORT {
            let bytes = std::mem::take(&mut flow.consumed);
            self.out.push_back(Submission::Consumed { stream: flow.handle, bytes });
        }
    }

    fn reset(&mut self, id: StreamId, code: u64) {
        if let Some(flow) = self.tables.flows.get(&id) {
            self.out.push_back(Submission::Reset { stream: flow.handle, code });
        }
    }

    fn stop(&mut self, id: StreamId, code: u64) {
        if let Some(flow) = self.tables.flows.get_mut(&id) {
            self.out.push_back(Submission::Stop { stream: flow.handle, code });
            flow.chunks.clear();
            flow.ended = true;
        }
    }

    fn close(&mut self, code: u64, reason: &str) {
        let reason = Bytes::copy_from_slice(reason.as_bytes());
        self.out.push_back(Submission::Close { handle: self.handle, code, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wrote_a_part_for_want_of_credit_waits_for_more() {
        let (connection, stream) = (Handle::from_raw(0x0020_0000_0100_0001), Handle::from_raw(0x0030_0000_0100_0002));
        let (id, mut tables, mut out) = (StreamId(0), Tables::default(), VecDeque::new());
        let mut flow = Flow::new(stream.unwrap());
        let room = flow.credit.room();
        flow.credit.grant(room as u64 + 100);
        tables.flows.insert(id, flow);
        let mut link = Link { handle: connection.unwrap(), tables: &mut tables, out: &mut out };
        let data = vec![7; room + 250];
        assert_eq!(link.write(id, &data), Wrote::Took(room + 100));
        assert!(link.tables.flows[&id].wants_room, "credit is news for it");
        assert_eq!(link.write(id, &data), Wrote::Took(0));
        assert!(link.tables.flows[&id].wants_room);
        assert!(link.tables.flows.get_mut(&id).unwrap().credit.grant(room as u64 + 1_000));
        assert_eq!(link.write(id, &data[..100]), Wrote::Took(100));
        assert!(!link.tables.flows[&id].wants_room, "all of it went");
    }
}
