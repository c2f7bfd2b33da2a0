//! Messages and descriptors through a local socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};

use super::MESSAGE_MAX;

/// Descriptors of one message at most: a segment and a bell for each of 64 workers.
pub const FDS_MAX: usize = 128;

/// Connects to the service's socket.
///
/// # Errors
/// What the system says: nobody listens there, or the file's permissions forbid it.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Err(Errno::INTR) => {}
            done => return Ok(done.map(|()| socket)?),
        }
    }
}

/// Sends one message whole.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for one that is empty or longer than [`MESSAGE_MAX`], or has more than
/// [`FDS_MAX`] descriptors; otherwise what the system says.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > MESSAGE_MAX || fds.len() > FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Ok(sent) if sent == bytes.len() => return Ok(()),
            // Messages of such sockets are sent whole or not at all.
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message into `buf` and its descriptors into `fds`, in place of what both held; how long it is. 0 is the end.
///
/// # Errors
/// [`InvalidData`](io::ErrorKind::InvalidData) for a message that is longer than [`MESSAGE_MAX`] or has more than
/// [`FDS_MAX`] descriptors, which is dropped; otherwise what the system says.
pub fn receive(socket: BorrowedFd<'_>, buf: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    receive_with(socket, (buf, fds), RecvFlags::empty())
}

pub(super) fn receive_with(
    socket: BorrowedFd<'_>,
    (buf, fds): (&mut Vec<u8>, &mut Vec<OwnedFd>),
    flags: RecvFlags,
) -> io::Result<usize> {
    fds.clear();
    buf.resize(MESSAGE_MAX, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, flags | RecvFlags::CMSG_CLOEXEC);
        let got = match got {
            Err(Errno::INTR) => continue,
            Err(error) => {
                buf.clear();
                return Err(error.into());
            }
            Ok(got) => got,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            buf.clear();
            fds.clear();
            return Err(io::ErrorKind::InvalidData.into());
        }
        buf.truncate(got.bytes);
        return Ok(got.bytes);
    }
}
