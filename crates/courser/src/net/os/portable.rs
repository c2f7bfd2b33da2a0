//! The standard library alone: one datagram per call, of 1,200 bytes at most, no marks, no packet information.
//!
//! Without `poll` a thread waits by looking at the socket in blocking mode with a time limit, and the bell is an empty
//! datagram to the socket itself, which the receive path ignores like every empty datagram.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use courser_core::ids::Ecn;

use crate::net::adapter::{Adapter, Arrival, Offload, Outgoing, SLOT_BYTES};

/// Longest single wait where the system cannot wait for room in the send buffer.
const WRITABLE_WAIT: Duration = Duration::from_millis(1);

/// The plain socket.
pub(crate) struct Udp(());

impl Udp {
    /// Sets the socket up: non-blocking.
    pub(crate) fn new(udp: &UdpSocket) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        Ok(Self(()))
    }
}

impl Adapter for Udp {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        debug_assert!(out.segment.is_none_or(|s| s >= out.bytes.len()), "several datagrams without offload");
        udp.send_to(out.bytes, out.to).map(|_| ())
    }

    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        let mut filled = 0;
        for (slot, arrival) in slots.chunks_exact_mut(SLOT_BYTES).zip(arrivals) {
            match udp.recv_from(slot) {
                Ok((len, remote)) => {
                    *arrival = Arrival { remote, local: None, ecn: Ecn::NotEct, len, stride: len };
                    filled += 1;
                }
                // What was read before is not lost; the error comes again, or was of no importance.
                Err(_) if filled > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn offload(&self) -> Offload {
        Offload { send_segments: 1, receive_segments: 1 }
    }

    fn may_fragment(&self) -> bool {
        // The standard library has no way to forbid it.
        true
    }

    fn forgive(&mut self, _: &UdpSocket) {}
}

/// Wakes a thread that waits in [`wait`].
pub(crate) struct Bell {
    striker: UdpSocket,
    to: SocketAddr,
}

impl Bell {
    /// A silent bell for the thread that waits on `udp`.
    pub(crate) fn new(udp: &UdpSocket) -> io::Result<Self> {
        let mut to = udp.local_addr()?;
        match to.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => to.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => to.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let striker = UdpSocket::bind(SocketAddr::new(to.ip(), 0))?;
        striker.set_nonblocking(true)?;
        Ok(Self { striker, to })
    }

    /// Makes the present or next wait return.
    pub(crate) fn ring(&self) {
        // A full buffer means that there is something to wake up for already.
        let _ = self.striker.send_to(&[], self.to);
    }
}

/// There are no other bells.
pub(crate) type Ear<'a> = std::marker::PhantomData<&'a ()>;
/// The worker's own bell, and no others.
pub(crate) type Bells<'a> = (&'a Bell, &'a [Ear<'a>]);

/// Waits until the socket has something to read, the bell rings, or the time is over. May return early.
pub(crate) fn wait(udp: &UdpSocket, _: Bells<'_>, writable: bool, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = match timeout {
        Some(t) if writable => Some(t.min(WRITABLE_WAIT)),
        None if writable => Some(WRITABLE_WAIT),
        other => other,
    };
    if timeout.is_some_and(|t| t.is_zero()) {
        return Ok(());
    }
    udp.set_nonblocking(false)?;
    udp.set_read_timeout(timeout.map(|t| t.max(Duration::from_micros(1))))?;
    // Whatever the outcome (data, an empty datagram, the end of time, a report of an earlier datagram), the next turn
    // reads the socket and finds out.
    let _ = udp.peek_from(&mut [0; 1]);
    udp.set_nonblocking(true)
}

/// Waiting apart from the socket: nobody does that here, see [`THREADS_WAIT_APART`](super::THREADS_WAIT_APART).
pub(crate) fn wait_apart(
    udp: &UdpSocket,
    _: Option<&super::RelayOut>,
    bells: Bells<'_>,
    writable: bool,
    timeout: Option<Duration>,
) -> io::Result<()> {
    wait(udp, bells, writable, timeout)
}

/// Asks for a receive buffer beyond the system's limit: not here.
pub(crate) fn force_receive_buffer(_: &socket2::Socket, _: usize) -> bool {
    false
}

/// Asks for a send buffer beyond the system's limit: not here.
pub(crate) fn force_send_buffer(_: &socket2::Socket, _: usize) -> bool {
    false
}

/// How many files the process may have open: unknown here.
pub(crate) fn open_files() -> (Option<u64>, Option<u64>) {
    (None, None)
}

/// The step of the monotonic clock: unknown here.
pub(crate) fn clock_step() -> Option<Duration> {
    None
}
