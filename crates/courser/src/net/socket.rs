//! A UDP socket that sends and receives trains.
//!
//! A *train* is a run of datagrams of equal size to one destination (the last may be shorter), back to back in memory:
//! what segmentation offload takes in one system call and receive offload gives. [`Socket::send`] hides what the system
//! cannot do:
//!
//! * without offload, or beyond its limits, a train goes out in several calls;
//! * an adapter that refuses to cut datagrams apart (`EIO`, `EINVAL`) is found out by sending the first datagram alone:
//!   when that passes, offload is to blame and stays off, and the rest follows in single calls; when it fails too, the
//!   destination is to blame and offload stays on. So a peer with an odd address cannot switch offload off;
//! * when the buffer fills up in the middle, the caller's cursor tells how far the train went; the same call later
//!   goes on from there. No datagram is lost or sent twice.
//!
//! Addresses are always in their own family here: a dual-stack socket's mapped addresses (`::ffff:192.0.2.1`) are
//! turned into IPv4 ones on the way in and back on the way out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use courser_core::config::MIN_DATAGRAM;
use socket2::{Domain, Protocol, Type};

use super::adapter::{Adapter, Arrival, Offload, Outgoing, SLOT_BYTES, SLOTS_MAX};
use super::os::{self, Fault, RelayOut};

/// Most payload bytes that one send call takes: an IPv4 packet's length field less the smallest headers.
const CALL_BYTES_MAX: usize = 65_535 - 20 - 8;

/// How often a receive call is repeated in a row when it reports the fate of earlier datagrams.
const OLD_NEWS_MAX: usize = 16;

/// How to make a socket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketConfig {
    /// Address and port to bind; port 0 lets the system choose.
    pub local: SocketAddr,
    /// Whether an IPv6 wildcard socket takes IPv4 as well.
    pub dual_stack: bool,
    /// Whether several sockets may share the port, each receiving a part of the traffic. Unix only.
    pub reuse_port: bool,
    /// Wanted receive buffer in bytes; the system may give less.
    pub receive_buffer: usize,
    /// Wanted send buffer in bytes; the system may give less.
    pub send_buffer: usize,
    /// Whether segmentation offload may be used for sending.
    pub offload: bool,
    /// How long a worker looks for the next datagram before it sleeps, while they come that close together; zero: never.
    pub busy_poll: Duration,
}

/// The default of [`SocketConfig::busy_poll`]: what two ends cost each other that sleep and wake each other, and as long as a
/// peer works at a batch of small requests.
pub const BUSY_POLL: Duration = Duration::from_micros(50);

impl SocketConfig {
    /// The defaults for a socket at `local`.
    #[must_use]
    pub const fn new(local: SocketAddr) -> Self {
        Self {
            local,
            dual_stack: true,
            reuse_port: false,
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
            offload: true,
            busy_poll: BUSY_POLL,
        }
    }

    /// For a client that talks to `remote`: any port, of the same family.
    #[must_use]
    pub const fn towards(remote: SocketAddr) -> Self {
        let ip = match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self::new(SocketAddr::new(ip, 0))
    }
}

/// Wanted and achieved size of a socket's buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSize {
    /// As asked for.
    pub wanted: usize,
    /// As the system gave it, without what Linux adds for its own bookkeeping.
    pub achieved: usize,
}

/// What became of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything went out.
    Sent,
    /// Everything went out, and the system refused offload on the way: trains of one datagram are as good from now on.
    SentSplit,
    /// The socket's buffer is full; call again with the same cursor once the socket is writable.
    Full,
    /// A queue below the socket is full; call again with the same cursor after a short while.
    Pause,
    /// What is left is larger than the first link takes.
    TooBig,
    /// What is left cannot be sent to this destination now.
    Refused,
    /// What is left cannot leave from the address that was asked for: it is not this machine's any more.
    NoAddress,
}

/// Room for what one receive call reads.
pub struct Slots {
    /// The slots back to back.
    bytes: Vec<u8>,
    /// What each slot holds.
    arrivals: Vec<Arrival>,
    /// Slots that the last call filled.
    filled: usize,
    /// Those of them that were taken out by [`next_train`](Self::next_train).
    taken: usize,
}

impl Slots {
    /// Room for `count` trains, at least one and at most [`SLOTS_MAX`].
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = count.clamp(1, SLOTS_MAX);
        Self { bytes: vec![0; count * SLOT_BYTES], arrivals: vec![Arrival::NONE; count], filled: 0, taken: 0 }
    }

    /// How many trains fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.arrivals.len()
    }

    /// The next train of those that the last receive call read and that was not given yet.
    pub fn next_train(&mut self) -> Option<(&Arrival, &mut [u8])> {
        let left = self.arrivals.get(self.taken..self.filled)?;
        self.taken += 1 + left.iter().position(Arrival::is_usable)?;
        let arrival = self.arrivals.get(self.taken - 1)?;
        let slot = self.bytes.get_mut((self.taken - 1) * SLOT_BYTES..)?;
        Some((arrival, slot.get_mut(..arrival.len)?))
    }

    /// The bytes of those that were not given yet.
    pub fn rest(&self) -> impl Iterator<Item = &[u8]> {
        let slots = self.bytes.chunks_exact(SLOT_BYTES).zip(&self.arrivals).take(self.filled).skip(self.taken);
        slots.filter_map(|(slot, arrival)| slot.get(..arrival.len).filter(|_| arrival.is_usable()))
    }

    /// Whether there may be another one.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.taken < self.filled
    }

    /// All trains that the last receive call read.
    pub fn trains(&mut self) -> impl Iterator<Item = (&Arrival, &mut [u8])> {
        let slots = self.bytes.chunks_exact_mut(SLOT_BYTES);
        self.arrivals
            .iter()
            .zip(slots)
            .take(self.filled)
            .filter(|(a, _)| a.is_usable())
            .filter_map(|(a, slot)| Some((a, slot.get_mut(..a.len)?)))
    }
}

/// Where a socket's trains come from.
enum Inbound {
    /// From the network.
    Udp,
    /// From nowhere: another worker reads what comes to the port.
    Nothing,
    /// From the process that has the port now; `read` tells whether they came from the network before.
    Relay { out: Arc<RelayOut>, read: bool },
}

/// A bound UDP socket.
pub struct Socket {
    udp: UdpSocket,
    adapter: Box<dyn Adapter>,
    inbound: Inbound,
    /// All calls of the last reading failed.
    failing: bool,
    /// Where it is bound.
    local: SocketAddr,
    /// Datagrams that one send call takes now; falls to 1 when an adapter refuses offload.
    send_segments: usize,
    receive_buffer: BufferSize,
    send_buffer: BufferSize,
    busy_poll: Duration,
}

impl Socket {
    /// Binds a socket.
    ///
    /// # Errors
    /// As the system reports it: the address is taken or not ours, the family is not supported.
    pub fn bind(config: &SocketConfig) -> io::Result<Self> {
        Self::with_adapter(config, |udp| Ok(Box::new(os::Udp::new(udp)?)))
    }

    /// Binds a socket whose system calls go through an adapter of the caller's. `make` gets the bound socket; it can
    /// wrap [`system_adapter`].
    ///
    /// # Errors
    /// As for [`bind`](Self::bind), and what `make` reports.
    pub fn with_adapter(
        config: &SocketConfig,
        make: impl FnOnce(&UdpSocket) -> io::Result<Box<dyn Adapter>>,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(config.local), Type::DGRAM, Some(Protocol::UDP))?;
        if config.local.is_ipv6() {
            // Some systems have no sockets of both families; there an IPv6 one is what can be had.
            let asked = socket.set_only_v6(!config.dual_stack);
            if !config.dual_stack {
                asked?;
            }
        }
        #[cfg(unix)]
        if config.reuse_port {
            socket.set_reuse_port(true)?;
        }
        let receive_buffer = enlarge_receive(&socket, config.receive_buffer)?;
        let send_buffer = enlarge_send(&socket, config.send_buffer)?;
        socket.bind(&config.local.into())?;
        let udp = UdpSocket::from(socket);
        let adapter = make(&udp)?;
        Self::finish(config, udp, adapter, [receive_buffer, send_buffer])
    }

    /// Uses a socket that somebody else bound, with buffers as large as wanted.
    ///
    /// # Errors
    /// As the system reports it, and [`io::ErrorKind::InvalidInput`] for one that is of another kind, not bound, or connected.
    pub(crate) fn given(config: &SocketConfig, udp: UdpSocket) -> io::Result<Self> {
        let socket = socket2::SockRef::from(&udp);
        let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if socket.r#type()? != Type::DGRAM {
            return wrong("the socket that was given is not one of UDP");
        }
        if udp.local_addr()?.port() == 0 {
            return wrong("the socket that was given is not bound");
        }
        if udp.peer_addr().is_ok() {
            return wrong("the socket that was given is connected to somebody");
        }
        enlarge_receive(&socket, config.receive_buffer)?;
        enlarge_send(&socket, config.send_buffer)?;
        Self::adopt(config, udp)
    }

    /// Takes over a socket that is bound already; of the configuration only offload and the wanted sizes matter.
    ///
    /// # Errors
    /// As the system reports it.
    pub(crate) fn adopt(config: &SocketConfig, udp: UdpSocket) -> io::Result<Self> {
        let socket = socket2::SockRef::from(&udp);
        let receive = BufferSize { wanted: config.receive_buffer, achieved: usable(socket.recv_buffer_size()?) };
        let send = BufferSize { wanted: config.send_buffer, achieved: usable(socket.send_buffer_size()?) };
        let adapter = Box::new(os::Udp::new(&udp)?);
        Self::finish(config, udp, adapter, [receive, send])
    }

    fn finish(
        config: &SocketConfig,
        udp: UdpSocket,
        adapter: Box<dyn Adapter>,
        [receive_buffer, send_buffer]: [BufferSize; 2],
    ) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        let send_segments = if config.offload { adapter.offload().send_segments.max(1) } else { 1 };
        let local = udp.local_addr()?;
        Ok(Self {
            udp,
            adapter,
            inbound: Inbound::Udp,
            failing: false,
            local,
            send_segments,
            receive_buffer,
            send_buffer,
            busy_poll: config.busy_poll,
        })
    }

    /// From now on this end only sends: another worker reads what comes.
    pub(crate) fn only_send(mut self) -> Self {
        self.inbound = Inbound::Nothing;
        self
    }

    /// From now on trains come out of a relay.
    pub(crate) fn hear(&mut self, relay: Arc<RelayOut>) {
        let read = match self.inbound {
            Inbound::Udp => true,
            Inbound::Nothing => false,
            Inbound::Relay { read, .. } => read,
        };
        self.inbound = Inbound::Relay { out: relay, read };
    }

    /// Whether trains come out of a relay.
    pub(crate) const fn is_relayed(&self) -> bool {
        matches!(self.inbound, Inbound::Relay { .. })
    }

    /// Waits until there is something to read or room to send (when those are asked for), a bell rings, or the time is over.
    pub(crate) fn wait(
        &self,
        bells: os::Bells<'_>,
        (readable, writable): (bool, bool),
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        match &self.inbound {
            Inbound::Udp if readable => os::wait(&self.udp, bells, writable, timeout),
            Inbound::Udp | Inbound::Nothing => os::wait_apart(&self.udp, None, bells, writable, timeout),
            Inbound::Relay { out, .. } => os::wait_apart(&self.udp, Some(out), bells, writable, timeout),
        }
    }

    /// What tells that there is something to read, if anything does.
    #[cfg(all(unix, feature = "tokio"))]
    pub(crate) fn heard(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match &self.inbound {
            Inbound::Udp => Some(self.udp.as_fd()),
            Inbound::Nothing => None,
            Inbound::Relay { out, .. } => Some(out.as_fd()),
        }
    }

    /// The bound address.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The socket itself, for waiting on it.
    #[must_use]
    pub const fn udp(&self) -> &UdpSocket {
        &self.udp
    }

    /// What the socket can do at once now.
    #[must_use]
    pub fn offload(&self) -> Offload {
        Offload { send_segments: self.send_segments, ..self.adapter.offload() }
    }

    /// Whether a receive call that leaves slots empty has emptied the socket.
    pub(crate) fn empties(&self) -> bool {
        self.adapter.empties()
    }

    /// Size of the receive buffer.
    #[must_use]
    pub const fn receive_buffer(&self) -> BufferSize {
        self.receive_buffer
    }

    /// Size of the send buffer.
    #[must_use]
    pub const fn send_buffer(&self) -> BufferSize {
        self.send_buffer
    }

    /// How long its worker looks for the next datagram before it sleeps.
    #[must_use]
    pub const fn busy_poll(&self) -> Duration {
        self.busy_poll
    }

    /// Reads what is waiting, as much as one call gives; returns how many slots were filled, 0 when nothing was there.
    ///
    /// # Errors
    /// Only when the socket itself has failed.
    pub fn receive(&mut self, slots: &mut Slots) -> io::Result<usize> {
        (slots.filled, slots.taken) = (0, 0);
        self.failing = false;
        match &self.inbound {
            Inbound::Udp => {}
            Inbound::Nothing => return Ok(0),
            Inbound::Relay { out, read } => match out.receive(&mut slots.bytes, &mut slots.arrivals)? {
                Some(filled) => {
                    slots.filled = filled.min(slots.arrivals.len());
                    return Ok(slots.filled);
                }
                // Whoever had the port is gone; it is ours again.
                None if *read => self.inbound = Inbound::Udp,
                None => {
                    self.inbound = Inbound::Nothing;
                    return Ok(0);
                }
            },
        }
        for _ in 0..OLD_NEWS_MAX {
            match self.adapter.receive(&self.udp, &mut slots.bytes, &mut slots.arrivals) {
                Ok(n) => {
                    slots.filled = n.min(slots.arrivals.len());
                    for arrival in &mut slots.arrivals[..slots.filled] {
                        arrival.remote = unmapped(arrival.remote);
                        arrival.local = arrival.local.map(|ip| ip.to_canonical());
                    }
                    return Ok(slots.filled);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(e) if os::is_old_news(&e) => {}
                Err(e) => return Err(e),
            }
        }
        self.failing = true;
        Ok(0)
    }

    /// Whether the last [`receive`](Self::receive) gave nothing because each of its calls failed: there may be something.
    pub(crate) const fn is_failing(&self) -> bool {
        self.failing
    }

    /// Sends a train from `*cursor` on and moves the cursor past what went out. `out.segment` is the size of all
    /// datagrams but the last.
    pub fn send(&mut self, out: &Outgoing<'_>, cursor: &mut usize) -> Outcome {
        debug_assert!(*cursor <= out.bytes.len(), "a cursor beyond its train");
        if out.to.port() == 0 {
            // The system would refuse it with the error of an adapter without offload.
            return Outcome::Refused;
        }
        let segment = out.segment.unwrap_or(out.bytes.len()).max(1);
        //= rfc9000#14-2
        if segment.min(out.bytes.len()) > usize::from(MIN_DATAGRAM) && self.adapter.may_fragment() {
            return Outcome::TooBig;
        }
        let wire = Outgoing { to: self.mapped(out.to), from: self.source(out.from), ..*out };
        let mut split = false;
        while *cursor < out.bytes.len() {
            let left = out.bytes.len() - *cursor;
            let segments = self.send_segments.min(CALL_BYTES_MAX / segment).max(1);
            let take = left.min(segments.saturating_mul(segment));
            match self.call(&wire, *cursor, take, segment) {
                Ok(()) => *cursor += take,
                Err(Fault::Arguments) if take > segment => match self.call(&wire, *cursor, segment, segment) {
                    Ok(()) => {
                        *cursor += segment;
                        self.send_segments = 1;
                        split = true;
                    }
                    Err(fault) => return self.blame(&wire, fault),
                },
                Err(fault) => return self.blame(&wire, fault),
            }
        }
        if split { Outcome::SentSplit } else { Outcome::Sent }
    }

    /// What a fault means for the train that met it. Arguments are also refused when the source address is gone.
    fn blame(&self, wire: &Outgoing<'_>, fault: Fault) -> Outcome {
        match fault {
            Fault::Full => Outcome::Full,
            Fault::Pause => Outcome::Pause,
            Fault::TooBig => Outcome::TooBig,
            Fault::Arguments | Fault::Refused if wire.from.is_some_and(|ip| !is_ours(ip)) => Outcome::NoAddress,
            Fault::Arguments | Fault::Refused => Outcome::Refused,
        }
    }

    /// One system call with `take` bytes of the train.
    fn call(&mut self, wire: &Outgoing<'_>, at: usize, take: usize, segment: usize) -> Result<(), Fault> {
        let part = Outgoing {
            segment: (take > segment).then_some(segment),
            bytes: wire.bytes.get(at..at + take).unwrap_or_default(),
            ..*wire
        };
        self.adapter.send(&self.udp, &part).map_err(|e| {
            let fault = os::fault(&e);
            if fault == Fault::Arguments {
                self.adapter.forgive(&self.udp);
            }
            fault
        })
    }

    /// The destination as this socket's family writes it.
    fn mapped(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.local.is_ipv6() => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            other => other,
        }
    }

    /// The source address to ask for: none when the socket is bound to one.
    fn source(&self, from: Option<IpAddr>) -> Option<IpAddr> {
        let from = from.filter(|_| self.local.ip().is_unspecified())?;
        Some(match from {
            IpAddr::V4(v4) if self.local.is_ipv6() => v4.to_ipv6_mapped().into(),
            other => other,
        })
    }
}

/// The adapter that [`Socket::bind`] uses.
///
/// # Errors
/// As the system reports it.
pub fn system_adapter(udp: &UdpSocket) -> io::Result<Box<dyn Adapter>> {
    Ok(Box::new(os::Udp::new(udp)?))
}

/// Whether a socket could be bound to an address, which then is one of this machine.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// An address in its own family.
fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

/// Linux reports twice what was asked for, the other half being for its bookkeeping.
const fn usable(reported: usize) -> usize {
    if cfg!(any(target_os = "linux", target_os = "android")) { reported / 2 } else { reported }
}

/// Makes the receive buffer as large as wanted, if it is not yet and the system lets us.
fn enlarge_receive(socket: &socket2::Socket, wanted: usize) -> io::Result<BufferSize> {
    if usable(socket.recv_buffer_size()?) < wanted && !os::force_receive_buffer(socket, wanted) {
        // Less than wanted is no failure; systems differ in whether they cut or refuse.
        let _ = socket.set_recv_buffer_size(wanted);
    }
    Ok(BufferSize { wanted, achieved: usable(socket.recv_buffer_size()?) })
}

/// Like [`enlarge_receive`] for the send buffer.
fn enlarge_send(socket: &socket2::Socket, wanted: usize) -> io::Result<BufferSize> {
    if usable(socket.send_buffer_size()?) < wanted && !os::force_send_buffer(socket, wanted) {
        let _ = socket.set_send_buffer_size(wanted);
    }
    Ok(BufferSize { wanted, achieved: usable(socket.send_buffer_size()?) })
}

#[cfg(test)]
mod tests;
