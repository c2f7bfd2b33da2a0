//! UDP: sockets with one peer, and sockets that tell their peers apart.
//!
//! A socket with one peer is read when there is room for the datagram in the application's completion ring: until then the
//! system keeps it, and drops the newest when its buffer is full. A listener's socket is read at once, since one address
//! must not keep the others waiting; see [`super::peers`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use courser_session::handle::{Handle, Kind};
use courser_session::msg::{Addresses, Rejection};
use courser_session::port::{Event as Told, Origin, Outbox};
use courser_session::reason::{Ended, Reason};
use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Token};

use super::books::{Books, Sessions, system};
use super::objects::{Dispatcher, Key, Link, Object};
use super::peers::Peers;

/// Datagrams that a listener takes in per turn.
const RECEIVES: usize = 256;
/// The largest content of a datagram over IPv4 and over IPv6.
const V4_MAX: usize = 65_507;
const V6_MAX: usize = 65_527;

const V4_ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6_ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The number that an accepted session is told with: an IPv4 peer's address in the bits from 16 on, its port in the lowest
/// 16. Of an IPv6 peer only the port fits.
#[must_use]
pub fn peer_number(peer: SocketAddr) -> u64 {
    let port = u64::from(peer.port());
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)) << 16 | port,
        IpAddr::V6(_) => port,
    }
}

const fn largest(peer: SocketAddr) -> usize {
    if peer.is_ipv4() { V4_MAX } else { V6_MAX }
}

fn idle() -> Ended {
    Ended::plain(Reason::Idle)
}

impl Books {
    pub(super) fn number_of(&self, key: Key) -> u64 {
        let (Key::Listener(slot) | Key::Stream(slot) | Key::Link(slot) | Key::Peer(slot, _)) = key else { return 0 };
        let port = |local: Option<SocketAddr>| local.map_or(0, |local| u64::from(local.port()));
        match self.objects.get(slot).map(|place| &place.object) {
            Some(Object::TcpListener { local, .. }) => port(Some(*local)),
            Some(Object::Stream(stream)) if stream.parent.is_some() => peer_number(stream.peer),
            Some(Object::Stream(stream)) => port(stream.local),
            Some(Object::Link(link)) => port(link.local),
            Some(Object::Dispatcher(dispatcher)) => match key {
                Key::Peer(_, at) => dispatcher.peers.get(at).map_or(0, |peer| peer_number(peer.address)),
                _ => port(Some(dispatcher.local)),
            },
            Some(Object::Connecting { .. } | Object::Lingering(_)) | None => 0,
        }
    }

    /// Where the two ends of a session are.
    pub(super) fn addresses_of(&self, key: Key) -> Option<Addresses> {
        let (Key::Listener(slot) | Key::Stream(slot) | Key::Link(slot) | Key::Peer(slot, _)) = key else { return None };
        let (local, peer) = match (self.objects.get(slot).map(|place| &place.object)?, key) {
            (Object::Stream(stream), _) => (stream.local, stream.peer),
            (Object::Link(link), _) => (link.local, link.peer),
            (Object::Dispatcher(of), Key::Peer(_, at)) => (Some(of.local), of.peers.get(at)?.address),
            _ => return None,
        };
        let unknown = SocketAddr::new(if peer.is_ipv4() { V4_ANY } else { V6_ANY }, 0);
        Some(Addresses { local: local.unwrap_or(unknown), peer })
    }

    pub(super) fn connect_udp(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        token: u64,
        peer: SocketAddr,
    ) -> Result<(), Ended> {
        let failed = |error| system("connect to", peer, &error);
        let any = if peer.is_ipv4() { V4_ANY } else { V6_ANY };
        let mut socket = UdpSocket::bind(SocketAddr::new(any, 0)).map_err(failed)?;
        socket.connect(peer).map_err(failed)?;
        let slot = self.objects.vacant();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut socket, Token(slot as usize), both).map_err(failed)?;
        let handle = outbox
            .open(sessions, Kind::Connection, Key::Link(slot), Origin::Token(token))
            .map_err(|_| Ended::plain(Reason::Full))?;
        let local = socket.local_addr().ok();
        let last = self.now;
        let link = Link { socket, handle, local, peer, sent: 0, received: 0, dropped: 0, last, blocked: false };
        self.objects.insert(outbox.port(), Object::Link(Box::new(link)));
        self.objects.set_due(slot, Some(self.now + self.setup.udp_idle));
        let _ = outbox.event(sessions, handle, Told::Addresses);
        let _ = outbox.event(sessions, handle, Told::Established);
        Ok(())
    }

    pub(super) fn listen_udp(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        token: u64,
        at: SocketAddr,
    ) -> Result<(), Ended> {
        let failed = |error| system("listen at", at, &error);
        let mut socket = UdpSocket::bind(at).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let slot = self.objects.vacant();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut socket, Token(slot as usize), both).map_err(failed)?;
        let handle = outbox
            .open(sessions, Kind::Listener, Key::Listener(slot), Origin::Token(token))
            .map_err(|_| Ended::plain(Reason::Full))?;
        let peers = Peers::new(self.setup.udp_peers_max);
        let dispatcher = Dispatcher { socket, handle: Some(handle), local, peers, blocked: Vec::new() };
        self.objects.insert(outbox.port(), Object::Dispatcher(Box::new(dispatcher)));
        Ok(())
    }

    pub(super) fn on_link_event(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32, event: &Event) {
        let Some(link) = self.objects.link(slot) else { return };
        let handle = link.handle;
        if event.is_writable() && std::mem::take(&mut link.blocked) {
            let _ = outbox.event(sessions, handle, Told::DatagramRoom);
        }
        if event.is_readable() || event.is_error() {
            let _ = outbox.event(sessions, handle, Told::Datagram);
        }
    }

    /// The next datagram of a socket with one peer.
    pub(super) fn receive_on(&mut self, slot: u32) -> Option<Bytes> {
        let (now, scratch) = (self.now, &mut self.scratch);
        let place = self.objects.get_mut(slot)?;
        let Object::Link(link) = &mut place.object else { return None };
        loop {
            match link.socket.recv(scratch) {
                Ok(count) => {
                    link.received += 1;
                    link.last = now;
                    return Some(Bytes::copy_from_slice(&scratch[..count]));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.refused.push((place.port, link.handle));
                    return None;
                }
                // Would block, or an error that is over with having been told.
                Err(_) => return None,
            }
        }
    }

    /// The peer's system says that nobody listens there.
    pub(super) fn refuse_link(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle) {
        let Ok(Key::Link(slot)) = sessions.get(handle).map(|session| session.key) else { return };
        let Some(peer) = self.objects.link(slot).map(|link| link.peer) else { return };
        self.objects.remove(slot);
        let text = Bytes::from(format!("nobody listens at udp://{peer}"));
        Self::tell_end(outbox, sessions, handle, &Ended { text, ..Ended::plain(Reason::Refused) });
    }

    pub(super) fn look_whether_idle(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Some(link) = self.objects.link(slot) else { return };
        let (handle, ends) = (link.handle, link.last + self.setup.udp_idle);
        if ends > self.now {
            return self.objects.set_due(slot, Some(ends));
        }
        self.objects.remove(slot);
        Self::tell_end(outbox, sessions, handle, &idle());
    }

    pub(super) fn send_datagram(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        handle: Handle,
        data: &[u8],
    ) -> Result<(), Rejection> {
        match sessions.get(handle).map(|session| session.key) {
            Ok(Key::Link(slot)) => self.send_on(outbox, sessions, slot, data),
            Ok(Key::Peer(slot, at)) => self.send_to_peer((slot, at), data),
            _ => Ok(()),
        }
    }

    fn send_on(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        slot: u32,
        data: &[u8],
    ) -> Result<(), Rejection> {
        let now = self.now;
        let Some(link) = self.objects.link(slot) else { return Ok(()) };
        if data.len() > largest(link.peer) {
            return Err(Rejection::Argument);
        }
        match link.socket.send(data) {
            Ok(_) => {
                link.sent += 1;
                link.last = now;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                link.blocked = true;
                return Err(Rejection::Overrun);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let handle = link.handle;
                self.refuse_link(outbox, sessions, handle);
            }
            // A datagram that the system cannot send is a datagram that got lost.
            Err(_) => link.dropped += 1,
        }
        Ok(())
    }

    fn send_to_peer(&mut self, (slot, at): (u32, u32), data: &[u8]) -> Result<(), Rejection> {
        let now = self.now;
        let Some(dispatcher) = self.objects.dispatcher(slot) else { return Ok(()) };
        let Some(peer) = dispatcher.peers.get_mut(at) else { return Ok(()) };
        if data.len() > largest(peer.address) {
            return Err(Rejection::Argument);
        }
        match dispatcher.socket.send_to(data, peer.address) {
            Ok(_) => dispatcher.peers.answered(at, now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !std::mem::replace(&mut peer.blocked, true) {
                    dispatcher.blocked.push(at);
                }
                return Err(Rejection::Overrun);
            }
            Err(_) => peer.dropped += 1,
        }
        Ok(())
    }

    /// A listener's socket takes datagrams again.
    pub(super) fn tell_of_room(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let Some(dispatcher) = self.objects.dispatcher(slot) else { return };
        for at in std::mem::take(&mut dispatcher.blocked) {
            // A place that has another peer by now has nobody who waits.
            let Some(peer) = dispatcher.peers.get_mut(at).filter(|peer| peer.blocked) else { continue };
            peer.blocked = false;
            let _ = outbox.event(sessions, peer.handle, Told::DatagramRoom);
        }
    }

    /// Takes in what came for a listener.
    pub(super) fn receive(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let (now, idle_after) = (self.now, self.setup.udp_idle);
        for _ in 0..RECEIVES {
            let has_room = self.has_room_inside(sessions);
            let Self { objects, scratch, .. } = self;
            let Some(dispatcher) = objects.dispatcher(slot) else { return };
            let (count, from) = match dispatcher.socket.recv_from(scratch) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Each error is told once, so that this ends.
                Err(_) => continue,
            };
            let known = dispatcher.peers.find(from);
            let at = match known {
                Some(at) => at,
                None => match welcome(dispatcher, (outbox, sessions), (slot, from), (now, has_room)) {
                    Some(at) => at,
                    None => {
                        dispatcher.peers.dropped += 1;
                        continue;
                    }
                },
            };
            if dispatcher.peers.receive(at, &scratch[..count], now)
                && let Some(peer) = dispatcher.peers.get(at)
            {
                let _ = outbox.event(sessions, peer.handle, Told::Datagram);
            }
            if known.is_none() && dispatcher.peers.len() == 1 {
                objects.set_due(slot, Some(now + idle_after));
            }
        }
        self.hunger(slot);
    }

    /// Ends the sessions of a listener that were silent for too long.
    pub(super) fn sweep(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, slot: u32) {
        let (now, idle_after) = (self.now, self.setup.udp_idle);
        let Some(dispatcher) = self.objects.dispatcher(slot) else { return };
        while let Some(peer) = dispatcher.peers.take_idle(now, idle_after) {
            Self::tell_end(outbox, sessions, peer.handle, &idle());
        }
        if dispatcher.peers.len() > 0 {
            // Not each at its own moment: a session may live a quarter longer.
            self.objects.set_due(slot, Some(now + idle_after / 4));
        } else if dispatcher.handle.is_none() {
            self.objects.remove(slot);
        }
    }

    /// The application wants no more of that peer.
    pub(super) fn forget_peer(&mut self, slot: u32, at: u32) {
        let Some(dispatcher) = self.objects.dispatcher(slot) else { return };
        dispatcher.peers.remove(at);
        if dispatcher.handle.is_none() && dispatcher.peers.len() == 0 {
            self.objects.remove(slot);
        }
    }
}

/// Takes an address in that nobody has heard of, if there is room; where it is then.
fn welcome(
    dispatcher: &mut Dispatcher,
    (outbox, sessions): (&mut Outbox, &mut Sessions),
    (slot, from): (u32, SocketAddr),
    (now, has_room): (std::time::Instant, bool),
) -> Option<u32> {
    let listener = dispatcher.handle.filter(|_| has_room)?;
    if let Some(gone) = dispatcher.peers.make_room(now).ok()? {
        let _ = outbox.discard(sessions, gone.handle);
        let text = Bytes::from_static(b"it made room for another address");
        Books::tell_end(outbox, sessions, gone.handle, &Ended { text, ..idle() });
    }
    let key = Key::Peer(slot, dispatcher.peers.vacant());
    let handle = outbox.open(sessions, Kind::Connection, key, Origin::Parent(listener)).ok()?;
    Some(dispatcher.peers.insert(from, handle, now))
}
