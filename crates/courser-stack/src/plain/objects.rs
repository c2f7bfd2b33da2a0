//! What the worker holds of the operating system, by slot.
//!
//! The slot is the event loop's token. An event that is late and meets the next object of its slot does no harm: readiness
//! is a hint, every operation may answer that it would block. What must not be confused, timers, carry the object's own
//! number.
//!
//! Invariant: `timers` has `(due, id)` exactly while the object `id` exists and its `due` is set.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use courser_session::handle::Handle;
use mio::net::{TcpListener, TcpStream, UdpSocket};

use super::peers::Peers;

/// What a session stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A listener, of either protocol.
    Listener(u32),
    /// A TCP connection.
    Stream(u32),
    /// A UDP socket with one peer.
    Link(u32),
    /// A UDP listener's slot, and the place of one of its peers.
    Peer(u32, u32),
    /// Nothing is left but to say so, with this reason.
    Over(u8),
}

/// How far sending is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// The application set the end; bytes, or the end itself, are still to be handed to the system.
    Finishing,
    /// The system has everything, or sending was given up.
    Over,
}

/// A TCP connection.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    pub(super) handle: Handle,
    /// The listener that it came in on.
    pub(super) parent: Option<Handle>,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: SocketAddr,
    /// Written, and not yet taken by the system. Never more than the application's credit.
    pub(super) out: VecDeque<Bytes>,
    /// Bytes that the application wrote.
    pub(super) written: u64,
    /// Position of the next byte to deliver.
    pub(super) offset: u64,
    pub(super) sending: Sending,
    /// Whether the application still wants to hear what comes.
    pub(super) receives: bool,
    /// The peer's end, or its reset, was seen.
    pub(super) ended: bool,
    /// Writing found the connection broken. The system tells that once; reading would take it for a clean end.
    pub(super) broken: bool,
    /// Not everything arrived.
    pub(super) aborted: bool,
    /// Stands in the list of those with something to hand to the system.
    pub(super) dirty: bool,
}

/// A UDP socket with one peer.
pub(super) struct Link {
    pub(super) socket: UdpSocket,
    pub(super) handle: Handle,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: SocketAddr,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Datagrams that the system would not take.
    pub(super) dropped: u64,
    /// When something was heard or sent last.
    pub(super) last: Instant,
    /// The application waits for room.
    pub(super) blocked: bool,
}

/// A UDP socket whose peers are told apart by their addresses.
pub(super) struct Dispatcher {
    pub(super) socket: UdpSocket,
    /// `None` once the listener was closed: no new peers are taken in.
    pub(super) handle: Option<Handle>,
    pub(super) local: SocketAddr,
    pub(super) peers: Peers,
    /// Peers whose applications wait for room to send.
    pub(super) blocked: Vec<u32>,
}

/// An object of the operating system.
pub(super) enum Object {
    TcpListener {
        socket: TcpListener,
        handle: Handle,
        local: SocketAddr,
        /// The same socket, for whoever takes the application over.
        _shown: Arc<OwnedFd>,
    },
    Connecting {
        socket: TcpStream,
        token: u64,
        peer: SocketAddr,
    },
    Stream(Box<Stream>),
    /// Everything was sent; what the peer still sends is thrown away until its end comes. To close at once would make the
    /// system reset the connection, and what was sent could be lost.
    Lingering(TcpStream),
    Link(Box<Link>),
    Dispatcher(Box<Dispatcher>),
}

/// An object in its slot.
pub(super) struct Place {
    /// Never used again.
    id: u64,
    /// The port whose application it belongs to.
    pub(super) port: u32,
    pub(super) object: Object,
    due: Option<Instant>,
    /// Waits for another turn, or for room: stands in one of the lists of those.
    pub(super) waits: bool,
}

/// All objects, and when something is to be done about them.
#[derive(Default)]
pub(super) struct Objects {
    places: Vec<Option<Place>>,
    free: Vec<u32>,
    timers: BTreeMap<(Instant, u64), u32>,
    next_id: u64,
}

impl Objects {
    /// The slot of the next object.
    pub(super) fn vacant(&self) -> u32 {
        // A slot needs a descriptor, of which there are fewer than 2^32.
        self.free.last().copied().unwrap_or_else(|| u32::try_from(self.places.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn insert(&mut self, port: u32, object: Object) -> u32 {
        let slot = self.vacant();
        let place = Place { id: self.next_id, port, object, due: None, waits: false };
        self.next_id += 1;
        if self.free.pop().is_some() {
            self.places[slot as usize] = Some(place);
        } else {
            self.places.push(Some(place));
        }
        slot
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Place> {
        self.places.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Place> {
        self.places.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Place> {
        let place = self.places.get_mut(slot as usize)?.take()?;
        if let Some(due) = place.due {
            self.timers.remove(&(due, place.id));
        }
        self.free.push(slot);
        Some(place)
    }

    /// Something is to be done about the object then; an earlier date is forgotten.
    pub(super) fn set_due(&mut self, slot: u32, due: Option<Instant>) {
        let Some(place) = self.places.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if let Some(old) = std::mem::replace(&mut place.due, due) {
            self.timers.remove(&(old, place.id));
        }
        if let Some(due) = due {
            self.timers.insert((due, place.id), slot);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next object about which something is to be done by now; its date is forgotten.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u32> {
        let entry = self.timers.first_entry().filter(|entry| entry.key().0 <= now)?;
        let slot = entry.remove();
        if let Some(place) = self.get_mut(slot) {
            place.due = None;
        }
        Some(slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Place)> {
        (0u32..).zip(&self.places).filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    pub(super) fn stream(&mut self, slot: u32) -> Option<&mut Stream> {
        match &mut self.get_mut(slot)?.object {
            Object::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn link(&mut self, slot: u32) -> Option<&mut Link> {
        match &mut self.get_mut(slot)?.object {
            Object::Link(link) => Some(link),
            _ => None,
        }
    }

    pub(super) fn dispatcher(&mut self, slot: u32) -> Option<&mut Dispatcher> {
        match &mut self.get_mut(slot)?.object {
            Object::Dispatcher(dispatcher) => Some(dispatcher),
            _ => None,
        }
    }
}
