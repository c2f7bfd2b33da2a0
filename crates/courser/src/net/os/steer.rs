//! Linux: a classic filter that tells which of the sockets of one port takes a datagram (`SO_ATTACH_REUSEPORT_CBPF`).
//!
//! The program looks at the last byte of the destination connection ID, in a short header at a known place, in a long one
//! behind the length: that byte modulo the number of sockets is the number of the socket. A datagram that is too short for
//! this goes to socket 0.

use std::io;
use std::net::UdpSocket;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// The filter of a group of sockets.
    AttachReusePortCbpf,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_ATTACH_REUSEPORT_CBPF,
    libc::sock_fprog
);

/// The instructions, by their numbers in `linux/bpf_common.h`.
fn program(cid_len: u8, sockets: u8) -> [libc::sock_filter; 10] {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_BYTE_BEHIND_X: u16 = 0x50;
    const JUMP_IF_SET: u16 = 0x45;
    const X_FROM_A: u16 = 0x07;
    const MODULO: u16 = 0x94;
    const RETURN_A: u16 = 0x16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_BYTE, 0, 0, 0),
        // The highest bit tells a long header.
        step(JUMP_IF_SET, 3, 0, 0x80),
        step(LOAD_BYTE, 0, 0, cid_len.into()),
        step(MODULO, 0, 0, sockets.into()),
        step(RETURN_A, 0, 0, 0),
        // The length of the connection ID stands behind the version.
        step(LOAD_BYTE, 0, 0, 5),
        step(X_FROM_A, 0, 0, 0),
        step(LOAD_BYTE_BEHIND_X, 0, 0, 5),
        step(MODULO, 0, 0, sockets.into()),
        step(RETURN_A, 0, 0, 0),
    ]
}

/// Attaches the filter to the group of `udp`: socket number `n`, in the order in which they were bound, gets what names
/// worker `n` of `sockets`.
pub(crate) fn steer(udp: &UdpSocket, cid_len: u8, sockets: u8) -> io::Result<()> {
    if sockets == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut steps = program(cid_len, sockets);
    let len = u16::try_from(steps.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    // The system copies the steps before the call returns.
    setsockopt(udp, AttachReusePortCbpf, &program)?;
    Ok(())
}
