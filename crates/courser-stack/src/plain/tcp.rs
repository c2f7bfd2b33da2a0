//! TCP: taking connections in, making them, bytes each way, the ends.
//!
//! Reading happens when there is room in the application's completion ring and delivery window, straight from the socket:
//! a reader that waits leaves the bytes with the system, and TCP's own window holds the sender back. Writing hands over
//! what the system takes; the rest waits within the application's credit until the socket is writable again.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use courser_session::handle::{Handle, Kind};
use courser_session::port::{Event as Told, Origin, Outbox, Read};
use courser_session::reason::{Ended, Reason};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::{SockRef, TcpKeepalive};

use super::books::{Books, CONNECTS_MAX, Sessions, system};
use super::objects::{Key, Object, Sending, Stream};

/// Connections that a listener takes in per turn.
const ACCEPTS: usize = 64;
/// Reads of bytes that nobody wants, per turn and socket.
const THROWS: usize = 16;
/// Most bytes of one message.
const PIECE_MAX: usize = 64 << 10;
/// Pieces from here on are handed over as they are, smaller ones that wait are joined before.
const WHOLE: usize = 16 << 10;
/// When the system takes so much at once, the stream's window grows.
const BULK: u64 = 16 << 10;
/// How far it grows.
const WINDOW_MAX: u32 = 1 << 20;
/// Sockets that wait for the peer's end at a time, and how long.
pub(super) const LINGERING_MAX: usize = 1024;
const LINGER: Duration = Duration::from_secs(5);

impl Stream {
    fn new(socket: TcpStream, handle: Handle, parent: Option<Handle>, peer: SocketAddr) -> Self {
        Self {
            local: socket.local_addr().ok(),
            socket,
            handle,
            parent,
            peer,
            out: VecDeque::new(),
            written: 0,
            offset: 0,
            sending: Sending::Open,
            receives: true,
            ended: false,
            broken: false,
            aborted: false,
            dirty: false,
        }
    }

    /// Hands over what the system takes. How many bytes it took, and whether that was all.
    fn push_out(&mut self, scratch: &mut [u8]) -> (u64, io::Result<bool>) {
        let mut taken = 0;
        while let Some(front) = self.out.front() {
            let written = if front.len() >= WHOLE || self.out.len() == 1 {
                self.socket.write(front)
            } else {
                let mut joined = 0;
                for piece in &self.out {
                    let count = piece.len().min(scratch.len() - joined);
                    scratch[joined..joined + count].copy_from_slice(&piece[..count]);
                    joined += count;
                }
                self.socket.write(&scratch[..joined])
            };
            match written {
                Ok(count) => {
                    taken += count as u64;
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (taken, Ok(false)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (taken, Err(error)),
            }
        }
        (taken, Ok(true))
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.out.front_mut() {
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if !front.is_empty() {
                return;
            }
            self.out.pop_front();
        }
    }

    /// Nothing is sent any more; what waited is dropped.
    fn give_up(&mut self) {
        self.out.clear();
        self.aborted |= self.sending != Sending::Over;
        self.sending = Sending::Over;
    }

    fn over(&self) -> Option<Reason> {
        let over = self.sending == Sending::Over && !self.receives;
        over.then_some(if self.aborted { Reason::GivenUp } else { Reason::Done })
    }
}

/// Makes the system reset the connection when the socket is closed, which tells the peer that something is missing.
fn reset_on_close(socket: &TcpStream) {
    // Without it the peer sees a clean end, which is the system's own behaviour.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// How far a socket was emptied.
enum Drained {
    /// Nothing more for now; the event loop will tell.
    Dry,
    /// Enough for one turn.
    More,
    Ended,
    Broken,
}

fn drain(socket: &mut TcpStream, scratch: &mut [u8]) -> Drained {
    for _ in 0..THROWS {
        match socket.read(scratch) {
            Ok(0) => return Drained::Ended,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained::Dry,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Drained::Broken,
        }
    }
    Drained::More
}

fn stream_slot(sessions: &Sessions, handle: Handle) -> Option<u32> {
    match sessions.get(handle).ok()?.key {
        Key::Stream(slot) => Some(slot),
        _ => None,
    }
}

/// Making connections and taking them in.
impl Books {
    pub(super) fn accept(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        for _ in 0..ACCEPTS {
            if !outbox.has_share() || !self.has_room_inside(sessions) {
                return self.starve(slot);
            }
            let Some(Object::TcpListener { socket, handle, .. }) = self.objects.get(slot).map(|place| &place.object)
            else {
                return;
            };
            let parent = *handle;
            match socket.accept() {
                Ok((socket, peer)) => self.take_in(outbox, sessions, (socket, peer), parent),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // That one connection had gone before it was taken.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    // No descriptors, or no memory. The connection stays in the backlog, and the event loop does not
                    // tell of it again.
                    _ => return self.pause(slot),
                },
            }
        }
        self.hunger(slot);
    }

    fn take_in(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        (mut socket, peer): (TcpStream, SocketAddr),
        parent: Handle,
    ) {
        let slot = self.objects.vacant();
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = self.registry.register(&mut socket, Token(slot as usize), both);
        let opened = registered
            .ok()
            .and_then(|()| outbox.open(sessions, Kind::Stream, Key::Stream(slot), Origin::Parent(parent)).ok());
        let Some(handle) = opened else {
            return reset_on_close(&socket);
        };
        self.settle(&socket);
        self.objects.insert(outbox.port(), Object::Stream(Box::new(Stream::new(socket, handle, Some(parent), peer))));
        let _ = outbox.event(sessions, handle, Told::Addresses);
    }

    /// Options of a connection. One that cannot have them works all the same.
    fn settle(&self, socket: &TcpStream) {
        // Applications write what belongs together in one turn; the system need not wait for more.
        let _ = socket.set_nodelay(true);
        if let Some(after) = self.setup.keep_alive {
            let _ = SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(after));
        }
    }

    pub(super) fn connect_tcp(&mut self, outbox: &mut Outbox, token: u64, peer: SocketAddr) -> Result<(), Ended> {
        let failed = |error| system("connect to", peer, &error);
        if !outbox.has_share() {
            return Err(Ended::plain(Reason::Full));
        }
        if self.connecting >= CONNECTS_MAX {
            return Err(Ended::plain(Reason::TooManyWaiting));
        }
        let mut socket = TcpStream::connect(peer).map_err(failed)?;
        let slot = self.objects.vacant();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut socket, Token(slot as usize), both).map_err(failed)?;
        self.objects.insert(outbox.port(), Object::Connecting { socket, token, peer });
        self.objects.set_due(slot, Some(self.now + self.setup.connect_timeout));
        self.connecting += 1;
        Ok(())
    }

    /// A connection that is being made may be made, or have failed.
    pub(super) fn look_at_connecting(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Some(Object::Connecting { socket, token, peer }) = self.objects.get(slot).map(|place| &place.object) else {
            return;
        };
        let (token, peer) = (*token, *peer);
        let found = match socket.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => socket.peer_addr(),
        };
        match found {
            Ok(_) => self.connected(outbox, sessions, slot),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => {
                self.give_up_connecting(slot);
                outbox.reply(system("connect to", peer, &error).failure(token));
            }
        }
    }

    pub(super) fn give_up_connecting(&mut self, slot: u32) {
        self.connecting -= usize::from(self.objects.remove(slot).is_some());
    }

    pub(super) fn connecting_timed_out(&mut self, outbox: &mut Outbox, slot: u32) {
        let Some(Object::Connecting { token, peer, .. }) = self.objects.get(slot).map(|place| &place.object) else {
            return;
        };
        let text = Bytes::from(format!("{peer} did not answer for {:?}", self.setup.connect_timeout));
        let ended = Ended { text, ..Ended::plain(Reason::Unreachable) };
        outbox.reply(ended.failure(*token));
        self.give_up_connecting(slot);
    }

    fn connected(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        self.objects.set_due(slot, None);
        let Some(place) = self.objects.remove(slot) else { return };
        self.connecting -= 1;
        let Object::Connecting { socket, token, peer } = place.object else { return };
        // The object goes back to the slot that the event loop knows it by: the one freed last is the next.
        debug_assert_eq!(self.objects.vacant(), slot);
        let Ok(handle) = outbox.open(sessions, Kind::Stream, Key::Stream(slot), Origin::Token(token)) else {
            reset_on_close(&socket);
            return outbox.reply(Ended::plain(Reason::Full).failure(token));
        };
        self.settle(&socket);
        self.objects.insert(place.port, Object::Stream(Box::new(Stream::new(socket, handle, None, peer))));
        let _ = outbox.event(sessions, handle, Told::Addresses);
        // What came with the same event.
        let _ = outbox.event(sessions, handle, Told::Readable);
    }
}

/// Bytes each way.
impl Books {
    pub(super) fn on_stream_event(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32, event: &Event) {
        let Some(stream) = self.objects.stream(slot) else { return };
        let handle = stream.handle;
        let gone = event.is_error() || event.is_write_closed();
        if stream.receives {
            if event.is_readable() || event.is_read_closed() || gone {
                let _ = outbox.event(sessions, handle, Told::Readable);
            }
        } else if !stream.ended {
            self.hunger(slot);
        } else if gone {
            return self.break_off(outbox, sessions, slot);
        }
        if event.is_writable() {
            self.pump(outbox, sessions, slot);
        }
    }

    /// Takes what the application wrote; it is handed over at the end of the turn.
    pub(super) fn write(&mut self, sessions: &Sessions, handle: Handle, (data, fin): (Bytes, bool)) {
        let Some(slot) = stream_slot(sessions, handle) else { return };
        let Some(stream) = self.objects.stream(slot).filter(|stream| stream.sending == Sending::Open) else { return };
        stream.written += data.len() as u64;
        if !data.is_empty() {
            stream.out.push_back(data);
        }
        if fin {
            stream.sending = Sending::Finishing;
        }
        if !stream.dirty {
            stream.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Hands over as much as the system takes, and the end behind it.
    pub(super) fn pump(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Self { objects, scratch, .. } = self;
        let Some(stream) = objects.stream(slot).filter(|stream| stream.sending != Sending::Over) else { return };
        stream.dirty = false;
        let handle = stream.handle;
        let (taken, outcome) = stream.push_out(scratch);
        let finishes = stream.sending == Sending::Finishing;
        match outcome {
            Ok(all) => {
                if taken > 0 && !finishes {
                    let target = if taken >= BULK { WINDOW_MAX } else { 0 };
                    let _ = outbox.released(sessions, handle, taken, target);
                }
                if !(all && finishes) {
                    return;
                }
                if stream.socket.shutdown(Shutdown::Write).is_err() {
                    return self.break_off(outbox, sessions, slot);
                }
                stream.sending = Sending::Over;
                match stream.over() {
                    Some(reason) => self.end_stream(outbox, sessions, slot, &Ended::plain(reason)),
                    None => _ = outbox.event(sessions, handle, Told::AllAcked),
                }
            }
            Err(_) => self.break_off(outbox, sessions, slot),
        }
    }

    /// The connection is broken: nothing can be sent, and what had come before can still be read.
    fn break_off(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Some(stream) = self.objects.stream(slot) else { return };
        let handle = stream.handle;
        let was_sending = stream.sending != Sending::Over;
        stream.give_up();
        stream.broken = true;
        if stream.receives {
            if was_sending {
                let _ = outbox.event(sessions, handle, Told::Stopped(0));
            }
            let _ = outbox.event(sessions, handle, Told::Readable);
            return;
        }
        let text = Bytes::from_static(b"the peer reset the TCP connection");
        let reason = stream.over().unwrap_or(Reason::GivenUp);
        self.end_stream(outbox, sessions, slot, &Ended { text, ..Ended::plain(reason) });
    }

    /// The next bytes for the application.
    pub(super) fn read_stream(&mut self, key: &mut Key, max: u32) -> Read {
        let Key::Stream(slot) = *key else { return Read::Nothing };
        let Self { objects, scratch, .. } = self;
        let Some(stream) = objects.stream(slot).filter(|stream| stream.receives) else { return Read::Nothing };
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(PIECE_MAX);
        if max == 0 {
            return Read::Nothing;
        }
        let offset = stream.offset;
        let read = loop {
            match stream.socket.read(&mut scratch[..max]) {
                Ok(0) if !stream.broken => break Read::Data { offset, data: Bytes::new(), fin: true },
                Ok(0) => break Read::Reset(0),
                Ok(count) => {
                    stream.offset += count as u64;
                    return Read::Data { offset, data: Bytes::copy_from_slice(&scratch[..count]), fin: false };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break Read::Reset(0),
            }
        };
        (stream.receives, stream.ended) = (false, true);
        if matches!(read, Read::Reset(_)) {
            stream.give_up();
            stream.aborted = true;
        }
        if let Some(reason) = stream.over() {
            *key = Key::Over(reason.index());
            self.lay_down(slot);
        }
        read
    }

    /// Reads what a stream's application does not want, until the peer's end.
    pub(super) fn throw_away(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Self { objects, scratch, .. } = self;
        let Some(stream) = objects.stream(slot).filter(|s| !s.receives && !s.ended) else { return };
        match drain(&mut stream.socket, scratch) {
            Drained::Dry => {}
            Drained::More => self.hunger(slot),
            Drained::Ended => stream.ended = true,
            Drained::Broken => {
                stream.ended = true;
                self.break_off(outbox, sessions, slot);
            }
        }
    }

    /// The same of a socket that only waits for the peer's end, whose application may be gone.
    pub(super) fn linger_on(&mut self, slot: u32) {
        let Self { objects, scratch, .. } = self;
        let Some(Object::Lingering(socket)) = objects.get_mut(slot).map(|place| &mut place.object) else { return };
        match drain(socket, scratch) {
            Drained::Dry => {}
            Drained::More => self.hunger(slot),
            Drained::Ended | Drained::Broken => self.end_lingering(slot),
        }
    }
}

/// Ends.
impl Books {
    /// TCP gives up both directions or none.
    pub(super) fn reset(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle) {
        let Some(slot) = stream_slot(sessions, handle) else { return };
        let Some(stream) = self.objects.stream(slot) else { return };
        stream.give_up();
        (stream.receives, stream.aborted) = (false, true);
        let _ = outbox.discard(sessions, handle);
        self.end_stream(outbox, sessions, slot, &Ended::plain(Reason::GivenUp));
    }

    /// The application does not want what comes. TCP has no way to tell the peer, which may go on.
    pub(super) fn stop(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle) {
        let Some(slot) = stream_slot(sessions, handle) else { return };
        let Some(stream) = self.objects.stream(slot).filter(|stream| stream.receives) else { return };
        stream.receives = false;
        let over = stream.over();
        let _ = outbox.discard(sessions, handle);
        match over {
            Some(reason) => self.end_stream(outbox, sessions, slot, &Ended::plain(reason)),
            None => self.hunger(slot),
        }
    }

    /// What is finished still arrives; what is not is given up.
    pub(super) fn close_stream(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Some(stream) = self.objects.stream(slot) else { return };
        let handle = stream.handle;
        if stream.sending == Sending::Open {
            self.reset(outbox, sessions, handle)
        } else {
            self.stop(outbox, sessions, handle)
        }
    }

    fn end_stream(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32, ended: &Ended) {
        let Some(handle) = self.objects.stream(slot).map(|stream| stream.handle) else { return };
        Self::tell_end(outbox, sessions, handle, ended);
        self.lay_down(slot);
    }

    /// Closes the socket: by a reset when something was not sent, after the peer's end when that is still to come.
    pub(super) fn lay_down(&mut self, slot: u32) {
        let Some(stream) = self.objects.stream(slot) else { return };
        if stream.aborted || stream.sending != Sending::Over {
            reset_on_close(&stream.socket);
        } else if !stream.ended && self.lingering < LINGERING_MAX {
            return self.linger(slot);
        }
        self.objects.remove(slot);
    }

    fn linger(&mut self, slot: u32) {
        let Some(place) = self.objects.remove(slot) else { return };
        let Object::Stream(stream) = place.object else { return };
        // As when a connection was made, the object keeps its slot.
        debug_assert_eq!(self.objects.vacant(), slot);
        self.objects.insert(place.port, Object::Lingering(stream.socket));
        self.objects.set_due(slot, Some(self.now + LINGER));
        self.lingering += 1;
        // What came already is not told again.
        self.hunger(slot);
    }

    pub(super) fn end_lingering(&mut self, slot: u32) {
        if self.objects.get(slot).is_some_and(|place| matches!(place.object, Object::Lingering(_))) {
            self.objects.remove(slot);
            self.lingering -= 1;
        }
    }
}
