//! Unix: offload, marks and packet information through `quinn-udp`; `poll` through `rustix`.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use courser_core::ids::Ecn;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::net::adapter::{Adapter, Arrival, Offload, Outgoing, SLOT_BYTES, SLOTS_MAX};

/// The socket options and capabilities that were set up and found when the socket was made.
pub(crate) struct Udp {
    state: UdpSocketState,
}

impl Udp {
    /// Sets the socket up: non-blocking, marks, packet information, offload, no fragmentation.
    pub(crate) fn new(udp: &UdpSocket) -> io::Result<Self> {
        //= rfc9000#14-3
        //= rfc8899#3-3
        //= rfc8899#4.5-1
        Ok(Self { state: UdpSocketState::new(UdpSockRef::from(udp))? })
    }
}

impl Adapter for Udp {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: out.to,
            ecn: EcnCodepoint::from_bits(out.ecn.bits()),
            contents: out.bytes,
            segment_size: out.segment,
            src_ip: out.from,
        };
        self.state.try_send(UdpSockRef::from(udp), &transmit)
    }

    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        let mut pieces = slots.chunks_exact_mut(SLOT_BYTES);
        let mut buffers: [IoSliceMut<'_>; SLOTS_MAX] =
            core::array::from_fn(|_| IoSliceMut::new(pieces.next().unwrap_or_default()));
        let mut metas = [RecvMeta::default(); SLOTS_MAX];
        let count = arrivals.len().min(SLOTS_MAX);
        let n = self.state.recv(UdpSockRef::from(udp), &mut buffers[..count], &mut metas[..count])?;
        for (arrival, meta) in arrivals.iter_mut().zip(&metas[..n]) {
            *arrival = Arrival {
                remote: meta.addr,
                local: meta.dst_ip,
                ecn: meta.ecn.map_or(Ecn::NotEct, |e| Ecn::from_bits(e as u8)),
                len: meta.len,
                stride: meta.stride,
            };
        }
        Ok(n)
    }

    fn offload(&self) -> Offload {
        Offload { send_segments: self.state.max_gso_segments(), receive_segments: self.state.gro_segments() }
    }

    fn empties(&self) -> bool {
        // There one call reads as many datagrams as there are slots; elsewhere it may read fewer than there are.
        cfg!(any(target_os = "linux", target_os = "android"))
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn forgive(&mut self, udp: &UdpSocket) {
        // After one refused call the state leaves out ECN marks for good; a fresh one starts without that suspicion.
        if let Ok(fresh) = UdpSocketState::new(UdpSockRef::from(udp)) {
            self.state = fresh;
        }
    }
}

/// Wakes a thread that waits in [`wait`].
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) struct Bell(std::os::fd::OwnedFd);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Bell {
    /// A silent bell.
    pub(crate) fn new(_: &UdpSocket) -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes the present or next wait return.
    pub(crate) fn ring(&self) {
        // Only a counter at its maximum can refuse, and then the bell rings already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Silences the bell.
    fn clear(&self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes a thread that waits in [`wait`].
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) struct Bell {
    hear: std::os::unix::net::UnixDatagram,
    strike: std::os::unix::net::UnixDatagram,
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Bell {
    /// A silent bell.
    pub(crate) fn new(_: &UdpSocket) -> io::Result<Self> {
        let (hear, strike) = std::os::unix::net::UnixDatagram::pair()?;
        hear.set_nonblocking(true)?;
        strike.set_nonblocking(true)?;
        Ok(Self { hear, strike })
    }

    /// Makes the present or next wait return.
    pub(crate) fn ring(&self) {
        // A full queue means that the bell rings already.
        let _ = self.strike.send(&[1]);
    }

    /// Silences the bell.
    fn clear(&self) {
        while self.hear.recv(&mut [0; 1]).is_ok() {}
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hear.as_fd()
    }
}

/// Somebody else's bell, readable when it was rung.
pub(crate) type Ear<'a> = BorrowedFd<'a>;
/// The worker's own bell, which a wait silences, and those of others, which it does not.
pub(crate) type Bells<'a> = (&'a Bell, &'a [Ear<'a>]);

/// Waits until the socket has something to read, has room (when `writable` is asked for), a bell rings, or the time is
/// over. May return early.
pub(crate) fn wait(udp: &UdpSocket, bells: Bells<'_>, writable: bool, timeout: Option<Duration>) -> io::Result<()> {
    let interest = if writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    poll_all([PollFd::new(bells.0, PollFlags::IN), PollFd::new(udp, interest)], bells, timeout)
}

/// The same where the socket is only for sending; what comes in comes out of a relay, if there is one.
pub(crate) fn wait_apart(
    udp: &UdpSocket,
    heard: Option<&super::RelayOut>,
    bells: Bells<'_>,
    writable: bool,
    timeout: Option<Duration>,
) -> io::Result<()> {
    // The bell in the places of what is not waited for.
    let ring = || PollFd::new(bells.0, PollFlags::IN);
    let room = if writable { PollFd::new(udp, PollFlags::OUT) } else { ring() };
    let heard = heard.map_or_else(ring, |relay| PollFd::new(relay, PollFlags::IN));
    poll_all([ring(), room, heard], bells, timeout)
}

/// Polls these, of which the worker's bell is the first, and the other bells.
fn poll_all<const N: usize>(
    mut fds: [PollFd<'_>; N],
    (bell, ears): Bells<'_>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    if ears.is_empty() {
        return poll_these(&mut fds, bell, timeout);
    }
    let ears = ears.iter().map(|ear| PollFd::from_borrowed_fd(*ear, PollFlags::IN));
    poll_these(&mut fds.into_iter().chain(ears).collect::<Vec<_>>(), bell, timeout)
}

fn poll_these(fds: &mut [PollFd<'_>], bell: &Bell, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    if fds.first().is_some_and(|ring| ring.revents().contains(PollFlags::IN)) {
        bell.clear();
    }
    Ok(())
}

/// Asks for a receive buffer beyond the system's limit, as privileged processes may on Linux.
pub(crate) fn force_receive_buffer(udp: &socket2::Socket, bytes: usize) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return rustix::net::sockopt::set_socket_recv_buffer_size_force(udp, bytes).is_ok();
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return {
        let _ = (udp, bytes);
        false
    };
}

/// Like [`force_receive_buffer`] for the send buffer.
pub(crate) fn force_send_buffer(udp: &socket2::Socket, bytes: usize) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return rustix::net::sockopt::set_socket_send_buffer_size_force(udp, bytes).is_ok();
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return {
        let _ = (udp, bytes);
        false
    };
}

/// How many files the process may have open: (now, at most); `None` where there is no limit.
pub(crate) fn open_files() -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limit.current, limit.maximum)
}

/// The step of the monotonic clock.
pub(crate) fn clock_step() -> Option<Duration> {
    let step = rustix::time::clock_getres(rustix::time::ClockId::Monotonic);
    Some(Duration::new(u64::try_from(step.tv_sec).ok()?, u32::try_from(step.tv_nsec).ok()?))
}
