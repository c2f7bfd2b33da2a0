//! One system call at a time.
//!
//! [`Adapter`] is the line between this crate and the system: everything above it (offload fallback, partial sends,
//! batches) can be tested with an adapter that fails on purpose, and an application can put its own below a worker in
//! order to record, drop or reorder what goes out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use courser_core::ids::Ecn;

/// Bytes of one receive slot: the longest train that a system hands over at once.
pub const SLOT_BYTES: usize = 64 << 10;

/// Most slots of one receive call. All slots together stay below half a mebibyte, so that what was read is still in the
/// processor's second-level cache when it is decrypted.
pub const SLOTS_MAX: usize = 8;

/// What one send call hands to the system: a datagram, or equal datagrams back to back.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Destination.
    pub to: SocketAddr,
    /// Source address, when the system shall not choose it.
    pub from: Option<IpAddr>,
    /// Mark of every datagram.
    pub ecn: Ecn,
    /// Size of every datagram but the last, which may be shorter; `None` for a single datagram.
    pub segment: Option<usize>,
    /// The datagrams.
    pub bytes: &'a [u8],
}

/// What is known of the datagrams in one receive slot.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Where they came from.
    pub remote: SocketAddr,
    /// Which of our addresses they were sent to, when the system tells.
    pub local: Option<IpAddr>,
    /// Their mark.
    pub ecn: Ecn,
    /// Bytes in the slot.
    pub len: usize,
    /// Size of every datagram but the last, which may be shorter.
    pub stride: usize,
}

impl Arrival {
    /// What a slot holds before anything was read into it.
    pub const NONE: Self = Self {
        remote: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        local: None,
        ecn: Ecn::NotEct,
        len: 0,
        stride: 0,
    };

    /// Whether there is anything that a QUIC endpoint may look at. Empty datagrams carry nothing, and port 0 cannot be
    /// answered: a reply would fail in a way that looks like a broken network adapter.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.len > 0 && self.stride > 0 && self.remote.port() != 0
    }
}

/// What a socket can do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Datagrams that one send call takes; 1 without segmentation offload.
    pub send_segments: usize,
    /// Datagrams that one slot can receive; 1 without receive offload.
    pub receive_segments: usize,
}

/// Sends and receives with one system call each. The socket does not block.
pub trait Adapter: Send {
    /// Hands `out` to the system, whole or not at all.
    ///
    /// # Errors
    /// As the system reports it; `WouldBlock` when the send buffer is full.
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()>;

    /// Reads into `slots` (pieces of [`SLOT_BYTES`]), describes what came in `arrivals` (as many as there are slots)
    /// and returns how many slots were filled.
    ///
    /// # Errors
    /// As the system reports it; `WouldBlock` when nothing is there.
    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize>;

    /// What the socket can do at once, as found out when it was made.
    fn offload(&self) -> Offload;

    /// Whether [`receive`](Self::receive) has emptied the socket when it leaves slots empty. If so, drivers that are told of
    /// new datagrams spare themselves a call.
    fn empties(&self) -> bool {
        false
    }

    /// Whether the system may split datagrams that are larger than a link on the way. If so, the socket sends none of more
    /// than 1,200 bytes.
    fn may_fragment(&self) -> bool {
        false
    }

    /// Called after the system refused a call for its arguments: forget what was concluded from this.
    fn forgive(&mut self, udp: &UdpSocket);
}
