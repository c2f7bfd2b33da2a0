//! Sessions and the objects behind them: what submissions do, where bytes come from.
//!
//! A session's key names the slot of its object; the object names its session's handle. Invariant: they name each other, or
//! the key is [`Key::Over`] and the object is gone. The object goes as soon as nothing more can happen, not when the
//! application hears of it: an application that does not listen holds no descriptors of sessions that are over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use courser_session::control::Protocol;
use courser_session::handle::{Handle, HandleTable, Kind};
use courser_session::msg::{Addresses, Completion, Endpoint, Op, Rejection, SessionStats, Submission};
use courser_session::port::{Event as Told, Origin, Outbox, Read, Serve, Session, Source};
use courser_session::reason::{Ended, Reason};
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};

use super::PlainSetup;
use super::door::Door;
use super::objects::{Key, Object, Objects};

/// Connections that are being made at a time.
pub const CONNECTS_MAX: usize = 1024;
/// A listener without descriptors tries again after so long.
const PAUSE: Duration = Duration::from_millis(100);
/// The largest datagram, and then some, so that none is cut.
const SCRATCH: usize = 64 << 10;

pub(super) type Sessions = HandleTable<Session<Key>>;

/// What the worker keeps.
pub(super) struct Books {
    pub(super) registry: Registry,
    /// Where listeners are shown.
    door: Arc<Door>,
    /// The time of the turn.
    pub(super) now: Instant,
    pub(super) setup: PlainSetup,
    pub(super) objects: Objects,
    /// Connections that are being made.
    pub(super) connecting: usize,
    /// Objects with more to take than one turn does.
    pub(super) hungry: Vec<u32>,
    /// Listeners whose next connection waits for room.
    pub(super) starved: Vec<u32>,
    /// Streams with something to hand to the system: it is done once per turn, however many writes there were.
    pub(super) dirty: Vec<u32>,
    /// UDP sockets whose session is over because of what reading them said.
    pub(super) refused: Vec<(u32, Handle)>,
    /// Sockets that wait for the peer's end.
    pub(super) lingering: usize,
    /// Where the system puts what was received.
    pub(super) scratch: Box<[u8]>,
}

/// What the system said, with what it was about.
pub(super) fn system(what: &str, address: SocketAddr, error: &io::Error) -> Ended {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Reason::Unreachable
        }
        _ => Reason::System,
    };
    Ended { text: Bytes::from(format!("{what} {address}: {error}")), ..Ended::plain(reason) }
}

impl Books {
    pub(super) fn new(registry: Registry, door: Arc<Door>, setup: PlainSetup) -> Self {
        // A time of nothing would have the worker look all the time.
        let setup = PlainSetup { udp_idle: setup.udp_idle.max(Duration::from_millis(1)), ..setup };
        Self {
            registry,
            door,
            now: Instant::now(),
            setup,
            objects: Objects::default(),
            connecting: 0,
            hungry: Vec::new(),
            starved: Vec::new(),
            dirty: Vec::new(),
            refused: Vec::new(),
            lingering: 0,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        }
    }

    /// Whether another session may come in. An eighth of the table is kept for those that applications open themselves.
    pub(super) fn has_room_inside(&self, sessions: &Sessions) -> bool {
        let max = self.setup.sessions_max as usize;
        sessions.len() < (max - max / 8).max(1)
    }

    /// Another turn is to look at the object.
    pub(super) fn hunger(&mut self, slot: u32) {
        if let Some(place) = self.objects.get_mut(slot).filter(|place| !place.waits) {
            place.waits = true;
            self.hungry.push(slot);
        }
    }

    /// A listener waits until there is room for what comes in.
    pub(super) fn starve(&mut self, slot: u32) {
        if let Some(place) = self.objects.get_mut(slot).filter(|place| !place.waits) {
            place.waits = true;
            self.starved.push(slot);
        }
    }

    /// A listener waits until there may be descriptors again.
    pub(super) fn pause(&mut self, slot: u32) {
        self.objects.set_due(slot, Some(self.now + PAUSE));
    }

    /// A session is over, and the application is told.
    pub(super) fn tell_end(outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle, ended: &Ended) {
        if let Ok(session) = sessions.get_mut(handle) {
            session.key = Key::Over(ended.reason.index());
        }
        let _ = outbox.event(sessions, handle, ended.event());
    }

    fn listen(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, token: u64, at: &Endpoint) {
        let opened = match protocol_of(at) {
            None | Some(Protocol::Quic) => Err(unknown(&at.server_name)),
            Some(protocol) if !self.may_listen(protocol, at.address) => {
                let text = Bytes::from(format!("nobody may listen at {protocol}://{}", at.address));
                Err(Ended { text, ..Ended::plain(Reason::NoListener) })
            }
            Some(Protocol::Tcp) => self.listen_tcp(outbox, sessions, token, at.address),
            Some(Protocol::Udp) => self.listen_udp(outbox, sessions, token, at.address),
        };
        if let Err(ended) = opened {
            outbox.reply(ended.failure(token));
        }
    }

    fn may_listen(&self, protocol: Protocol, address: SocketAddr) -> bool {
        self.setup.allowed.as_ref().is_none_or(|allowed| allowed(protocol, address))
    }

    fn listen_tcp(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        token: u64,
        at: SocketAddr,
    ) -> Result<(), Ended> {
        let failed = |error| system("listen at", at, &error);
        let bound = TcpListener::bind(at).or_else(|error| {
            let inherits = self.setup.inherits.as_ref().filter(|_| error.kind() == io::ErrorKind::AddrInUse);
            inherits.and_then(|inherits| inherits(at)).map(TcpListener::from_std).ok_or(error)
        });
        let mut socket = bound.map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let shown = Arc::new(socket.as_fd().try_clone_to_owned().map_err(failed)?);
        let slot = self.objects.vacant();
        self.registry.register(&mut socket, Token(slot as usize), Interest::READABLE).map_err(failed)?;
        let handle = outbox
            .open(sessions, Kind::Listener, Key::Listener(slot), Origin::Token(token))
            .map_err(|_| Ended::plain(Reason::Full))?;
        self.door.show(local, &shown);
        self.objects.insert(outbox.port(), Object::TcpListener { socket, handle, local, _shown: shown });
        Ok(())
    }

    fn connect(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, token: u64, to: &Endpoint) {
        let opened = match protocol_of(to) {
            None | Some(Protocol::Quic) => Err(unknown(&to.server_name)),
            Some(Protocol::Tcp) => self.connect_tcp(outbox, token, to.address),
            Some(Protocol::Udp) => self.connect_udp(outbox, sessions, token, to.address),
        };
        if let Err(ended) = opened {
            outbox.reply(ended.failure(token));
        }
    }

    /// Ends a session for the application.
    fn close(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle) {
        match sessions.get(handle).map(|session| session.key) {
            Ok(Key::Listener(slot)) => {
                self.close_listener(slot);
                Self::tell_end(outbox, sessions, handle, &Ended::plain(Reason::ClosedHere));
            }
            Ok(Key::Stream(slot)) => self.close_stream(outbox, sessions, slot),
            Ok(Key::Link(slot)) => {
                self.objects.remove(slot);
                Self::tell_end(outbox, sessions, handle, &Ended::plain(Reason::ClosedHere));
            }
            Ok(Key::Peer(slot, at)) => {
                self.forget_peer(slot, at);
                // What waits to be read is not wanted any more.
                let _ = outbox.discard(sessions, handle);
                Self::tell_end(outbox, sessions, handle, &Ended::plain(Reason::ClosedHere));
            }
            Ok(Key::Over(_)) | Err(_) => {}
        }
    }

    fn close_listener(&mut self, slot: u32) {
        if let Some(dispatcher) = self.objects.dispatcher(slot) {
            dispatcher.handle = None;
            if dispatcher.peers.len() > 0 {
                return;
            }
        }
        let gone = self.objects.remove(slot);
        if let Some(Object::TcpListener { mut socket, .. }) = gone.map(|place| place.object) {
            // Another process may have the socket too: the event loop would go on to hear of it.
            let _ = self.registry.deregister(&mut socket);
        }
    }

    fn stats(&self, sessions: &Sessions, handle: Handle) -> Box<SessionStats> {
        let mut stats = Box::<SessionStats>::default();
        let Ok(session) = sessions.get(handle) else { return stats };
        let row = self.row(handle, session.key);
        stats.children = row.children;
        if row.protocol == Some(Protocol::Udp) {
            (stats.datagrams_sent, stats.datagrams_received) = (row.written, row.read);
            stats.packets_lost = row.dropped;
        } else {
            (stats.written_bytes, stats.read_bytes) = (row.written, row.read);
        }
        stats
    }

    /// The port's application is gone: so is everything that it had.
    pub(super) fn end_port(&mut self, port: u32) {
        let gone: Vec<u32> =
            self.objects.iter().filter(|(_, place)| place.port == port).map(|(slot, _)| slot).collect();
        for slot in gone {
            match self.objects.get(slot).map(|place| &place.object) {
                Some(Object::Lingering(_)) | None => {}
                Some(Object::Stream(_)) => self.lay_down(slot),
                Some(Object::Connecting { .. }) => self.give_up_connecting(slot),
                Some(_) => _ = self.objects.remove(slot),
            }
        }
    }

    /// The worker ends: streams that were not finished are reset, so that no peer takes what it has for everything.
    pub(super) fn end_all(&mut self) {
        let streams: Vec<u32> = self.objects.iter().map(|(slot, _)| slot).collect();
        streams.into_iter().for_each(|slot| self.lay_down(slot));
    }

    /// The event loop has news of an object.
    pub(super) fn on_event(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32, event: &Event) {
        match self.objects.get(slot).map(|place| &place.object) {
            Some(Object::TcpListener { .. } | Object::Lingering(_)) => self.hunger(slot),
            Some(Object::Connecting { .. }) => self.look_at_connecting(outbox, sessions, slot),
            Some(Object::Stream(_)) => self.on_stream_event(outbox, sessions, slot, event),
            Some(Object::Link(_)) => self.on_link_event(outbox, sessions, slot, event),
            Some(Object::Dispatcher(_)) => {
                if event.is_writable() {
                    self.tell_of_room(outbox, sessions, slot);
                }
                self.hunger(slot);
            }
            None => {}
        }
    }

    /// An object that has more than one turn took.
    pub(super) fn feed(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Some(place) = self.objects.get_mut(slot) else { return };
        place.waits = false;
        match &place.object {
            Object::TcpListener { .. } => self.accept(outbox, sessions, slot),
            Object::Stream(_) => self.throw_away(outbox, sessions, slot),
            Object::Lingering(_) => self.linger_on(slot),
            Object::Dispatcher(_) => self.receive(outbox, sessions, slot),
            Object::Connecting { .. } | Object::Link(_) => {}
        }
    }

    /// The same of an object that has outlived its application: a socket that lingers.
    pub(super) fn feed_orphan(&mut self, slot: u32) {
        if let Some(place) = self.objects.get_mut(slot) {
            place.waits = false;
            self.linger_on(slot);
        }
    }

    /// The time of an object has come.
    pub(super) fn on_due(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        match self.objects.get(slot).map(|place| &place.object) {
            Some(Object::TcpListener { .. }) => self.hunger(slot),
            Some(Object::Connecting { .. }) => self.connecting_timed_out(outbox, slot),
            Some(Object::Lingering(_)) => self.end_lingering(slot),
            Some(Object::Link(_)) => self.look_whether_idle(outbox, sessions, slot),
            Some(Object::Dispatcher(_)) => self.sweep(outbox, sessions, slot),
            Some(Object::Stream(_)) | None => {}
        }
    }
}

fn protocol_of(endpoint: &Endpoint) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.name() == endpoint.server_name)
}

fn unknown(name: &str) -> Ended {
    let text = Bytes::from(format!("this worker has sessions over tcp and udp, not over {name:?}"));
    Ended { text, ..Ended::plain(Reason::NoProfile) }
}

impl Serve for Books {
    type Key = Key;

    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, submission: Submission) {
        let op = submission.op();
        match submission {
            Submission::Listen { token, at } => self.listen(outbox, sessions, token, &at),
            Submission::Connect { token, to } => self.connect(outbox, sessions, token, &to),
            Submission::Accept { handle } => {
                if handle.kind() == Kind::Connection {
                    let _ = outbox.event(sessions, handle, Told::Addresses);
                    let _ = outbox.event(sessions, handle, Told::Established);
                }
            }
            Submission::OpenBi { token, .. } | Submission::OpenUni { token, .. } => {
                let text = Bytes::from_static(b"a UDP session has no streams");
                outbox.reply(Ended { text, ..Ended::plain(Reason::Refused) }.failure(token));
            }
            Submission::Write { stream, data, fin } => self.write(sessions, stream, (data, fin)),
            Submission::Finish { stream } => self.write(sessions, stream, (Bytes::new(), true)),
            Submission::Reset { stream, .. } => self.reset(outbox, sessions, stream),
            Submission::ResetAt { stream, .. } => {
                outbox.reply(Completion::Rejected { handle: stream, op, why: Rejection::Argument });
            }
            Submission::Stop { stream, .. } => self.stop(outbox, sessions, stream),
            Submission::Refuse { handle, .. } if handle.kind() == Kind::Stream => self.reset(outbox, sessions, handle),
            Submission::Refuse { handle, .. } | Submission::Close { handle, .. } => {
                self.close(outbox, sessions, handle);
            }
            Submission::Datagram { connection, data, tag } => {
                let sent = match tag {
                    // Nobody tells what became of it.
                    Some(_) => Err(Rejection::Argument),
                    None => self.send_datagram(outbox, sessions, connection, &data),
                };
                if let Err(why) = sent {
                    outbox.reply(Completion::Rejected { handle: connection, op: Op::Datagram, why });
                }
            }
            Submission::Stats { handle, token } => {
                let stats = self.stats(sessions, handle);
                outbox.reply(Completion::Stats { handle, token, stats });
            }
            Submission::Consumed { .. } | Submission::Wake => {}
        }
    }
}

impl Source<Key> for Books {
    fn read(&mut self, key: &mut Key, max: u32) -> Read {
        self.read_stream(key, max)
    }

    fn datagram(&mut self, key: &Key) -> Option<Bytes> {
        match *key {
            Key::Link(slot) => self.receive_on(slot),
            Key::Peer(slot, at) => self.objects.dispatcher(slot)?.peers.take(at),
            _ => None,
        }
    }

    fn number(&self, key: &Key) -> u64 {
        self.number_of(*key)
    }

    fn addresses(&self, key: &Key) -> Option<Addresses> {
        self.addresses_of(*key)
    }

    fn over(&self, key: &Key) -> Option<u8> {
        match key {
            Key::Over(reason) => Some(*reason),
            _ => None,
        }
    }
}
