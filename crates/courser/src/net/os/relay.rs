//! Linux: trains from one process to another, and descriptors along with bytes.
//!
//! A relay is a pair of local sockets that keep messages apart and tell when the other end is gone (`SOCK_SEQPACKET`). A
//! message is what the network told of a train, in [`HEAD`] bytes, and the train.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use courser_core::ids::Ecn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use super::RelayFault;
use crate::net::adapter::{Arrival, SLOT_BYTES};

/// Mark, whether our address is known, stride, remote address, port and scope, our address.
const HEAD: usize = 1 + 1 + 2 + 16 + 2 + 4 + 16;
/// So much may wait in a relay; the system may allow less.
const BUFFER: usize = 4 << 20;

/// The end that trains go in.
#[derive(Debug)]
pub(crate) struct RelayIn(OwnedFd);

/// The end that they come out of.
#[derive(Debug)]
pub(crate) struct RelayOut(OwnedFd);

/// A relay.
pub(crate) fn relay() -> io::Result<(RelayIn, RelayOut)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    if rustix::net::sockopt::set_socket_send_buffer_size_force(&one, BUFFER).is_err() {
        // Less is no failure: what finds no room is sent again by the peer.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&one, BUFFER);
    }
    Ok((RelayIn(one), RelayOut(other)))
}

impl RelayIn {
    /// Sends a train.
    pub(crate) fn send(&self, about: &Arrival, train: &[u8]) -> Result<(), RelayFault> {
        let head = encode(about);
        let parts = [IoSlice::new(&head), IoSlice::new(train)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.0, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED | Errno::NOTCONN) => Err(RelayFault::Gone),
            Err(_) => Err(RelayFault::Full),
        }
    }

    /// Whether nobody is at the other end any more.
    pub(crate) fn is_gone(&self) -> bool {
        is_hung_up(&self.0)
    }

    /// The same end once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Whether the other end of a local socket is closed.
fn is_hung_up(end: &OwnedFd) -> bool {
    let mut ends = [PollFd::new(end, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut ends, Some(&now)).is_ok() && ends[0].revents().contains(PollFlags::HUP)
}

impl RelayOut {
    /// Whether nobody is at the other end any more; what was sent before may still wait here.
    pub(crate) fn is_gone(&self) -> bool {
        is_hung_up(&self.0)
    }

    /// Reads trains like an adapter; `None` when the other end is gone.
    pub(crate) fn receive(&self, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<Option<usize>> {
        let mut filled = 0;
        for (slot, arrival) in slots.chunks_exact_mut(SLOT_BYTES).zip(arrivals) {
            let mut head = [0; HEAD];
            let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(slot)];
            let mut none = RecvAncillaryBuffer::default();
            let len = match rustix::net::recvmsg(&self.0, &mut parts, &mut none, RecvFlags::DONTWAIT) {
                Ok(read) => read.bytes,
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNRESET) => 0,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if len == 0 {
                return Ok((filled > 0).then_some(filled));
            }
            *arrival = decode(&head, len.saturating_sub(HEAD));
            filled += 1;
        }
        Ok(Some(filled))
    }
}

impl AsFd for RelayOut {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for RelayIn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for RelayIn {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

fn encode(about: &Arrival) -> [u8; HEAD] {
    let six = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let scope = if let SocketAddr::V6(v6) = about.remote { v6.scope_id() } else { 0 };
    let mut head = [0; HEAD];
    head[0] = about.ecn.bits();
    head[1] = about.local.is_some().into();
    head[2..4].copy_from_slice(&u16::try_from(about.stride).unwrap_or(u16::MAX).to_ne_bytes());
    head[4..20].copy_from_slice(&six(about.remote.ip()));
    head[20..22].copy_from_slice(&about.remote.port().to_ne_bytes());
    head[22..26].copy_from_slice(&scope.to_ne_bytes());
    if let Some(local) = about.local {
        head[26..].copy_from_slice(&six(local));
    }
    head
}

fn decode(head: &[u8; HEAD], len: usize) -> Arrival {
    let ip = |at: usize| {
        let octets: [u8; 16] = core::array::from_fn(|i| head[at + i]);
        IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
    };
    let port = u16::from_ne_bytes([head[20], head[21]]);
    let remote = match ip(4) {
        IpAddr::V6(v6) => {
            let scope = u32::from_ne_bytes([head[22], head[23], head[24], head[25]]);
            SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope))
        }
        v4 => SocketAddr::new(v4, port),
    };
    Arrival {
        remote,
        local: (head[1] != 0).then(|| ip(26)),
        ecn: Ecn::from_bits(head[0]),
        len,
        stride: u16::from_ne_bytes([head[2], head[3]]).into(),
    }
}

/// Descriptors that go together, at most.
const DESCRIPTORS_MAX: usize = 8;

/// Sends descriptors with one byte that tells their number.
pub(crate) fn send_descriptors(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let count = u8::try_from(descriptors.len()).map_err(io::Error::other)?;
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for so many descriptors"));
    }
    rustix::net::sendmsg(to, &[IoSlice::new(&[count])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives what [`send_descriptors`] sent.
pub(crate) fn receive_descriptors(from: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut count = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let read = rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut count)], &mut control, flags)?;
    let mut found = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found.extend(descriptors);
        }
    }
    if read.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if found.len() != usize::from(count[0]) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trains_arrive_whole_with_what_the_network_told_and_the_end_is_noticed() {
        let (into, out) = relay().unwrap();
        let about = [
            ("192.0.2.7:443", Some("198.51.100.1"), Ecn::Ce, 1200),
            ("[fe80::1%3]:9", None, Ecn::NotEct, 65_000),
            ("[2001:db8::1]:1", Some("2001:db8::2"), Ecn::Ect0, 1),
        ];
        let (mut slots, mut arrivals) = (vec![0; 4 * SLOT_BYTES], [Arrival::NONE; 4]);
        assert_eq!(out.receive(&mut slots, &mut arrivals).unwrap(), Some(0));
        for (remote, local, ecn, stride) in about {
            let train = vec![stride as u8; 65_000];
            let local = local.map(|ip| ip.parse().unwrap());
            let sent = Arrival { remote: remote.parse().unwrap(), local, ecn, len: train.len(), stride };
            into.send(&sent, &train).unwrap();
            assert_eq!(out.receive(&mut slots, &mut arrivals).unwrap(), Some(1));
            let got = arrivals[0];
            assert_eq!((got.remote, got.local, got.ecn, got.stride), (sent.remote, sent.local, ecn, stride));
            assert!(got.len == 65_000 && slots[..got.len] == train);
        }
        while into.send(&Arrival::NONE, &[0; 60_000]).is_ok() {}
        assert_eq!(into.send(&Arrival::NONE, &[0; 60_000]), Err(RelayFault::Full));
        drop(into);
        while let Some(read) = out.receive(&mut slots, &mut arrivals).unwrap() {
            assert!(read > 0, "what was sent before the end is read first");
        }
        let (into, out) = relay().unwrap();
        assert!(!into.is_gone());
        drop(out);
        assert!(into.is_gone() && into.try_clone().unwrap().is_gone());
        assert_eq!(into.send(&Arrival::NONE, &[0; 10]), Err(RelayFault::Gone));
    }
}
