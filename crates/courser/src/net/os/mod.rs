//! Everything that differs between operating systems.
//!
//! `native` is for Unix: offload, ECN and packet information, `poll` and a descriptor to wake it. `portable` uses the
//! standard library alone; the feature of that name chooses it, and so do systems that are not Unix. Both offer the same
//! names: `Udp` (an adapter), `Bell` (wakes a waiting thread), `wait`, and the facts for `doctor`.
//!
//! `steer` and `relay` are for Linux: which socket of a port takes a datagram, and trains for another process; `no_relay`
//! says elsewhere that there are none.

use std::io;

#[cfg(all(unix, not(feature = "portable")))]
mod native;
#[cfg(all(unix, not(feature = "portable")))]
pub(crate) use native::*;

#[cfg(any(not(unix), feature = "portable"))]
mod portable;
#[cfg(any(not(unix), feature = "portable"))]
pub(crate) use portable::*;

#[cfg(all(any(target_os = "linux", target_os = "android"), not(feature = "portable")))]
mod relay;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(feature = "portable")))]
mod steer;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(feature = "portable")))]
pub(crate) use self::{relay::*, steer::steer};

#[cfg(any(not(any(target_os = "linux", target_os = "android")), feature = "portable"))]
mod no_relay;
#[cfg(any(not(any(target_os = "linux", target_os = "android")), feature = "portable"))]
pub(crate) use no_relay::*;

/// Whether sockets of one port share its datagrams, so that each worker can have one. Elsewhere one of them gets all.
pub(crate) const PORTS_ARE_SHARED: bool =
    cfg!(all(any(target_os = "linux", target_os = "android"), not(feature = "portable")));
/// Whether several threads can wait apart although they use one socket.
pub(crate) const THREADS_WAIT_APART: bool = cfg!(all(unix, not(feature = "portable")));

/// Why a train did not go into a relay.
#[cfg_attr(
    any(not(any(target_os = "linux", target_os = "android")), feature = "portable"),
    allow(dead_code, reason = "there are no relays")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayFault {
    /// No room now.
    Full,
    /// Nobody is at the other end any more.
    Gone,
}

/// What a failed send means for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The socket's buffer is full; it becomes writable again.
    Full,
    /// A queue below the socket is full; nobody tells when it has room again.
    Pause,
    /// Larger than the path's first link.
    TooBig,
    /// The arguments were refused, as adapters do that cannot cut datagrams apart.
    Arguments,
    /// This destination cannot be reached now.
    Refused,
}

/// The system's numbers of the errors that matter here.
pub(crate) mod errno {
    /// EMSGSIZE.
    pub(crate) const TOO_BIG: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        90
    } else if cfg!(windows) {
        10_040
    } else {
        40
    };
    /// ENOBUFS.
    pub(crate) const NO_BUFFERS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        105
    } else if cfg!(windows) {
        10_055
    } else {
        55
    };
    /// EIO.
    pub(crate) const INPUT_OUTPUT: i32 = 5;
    /// EINVAL.
    pub(crate) const INVALID: i32 = if cfg!(windows) { 10_022 } else { 22 };
}

/// Sorts an error of a send call.
pub(crate) fn fault(e: &io::Error) -> Fault {
    if e.kind() == io::ErrorKind::WouldBlock {
        return Fault::Full;
    }
    match e.raw_os_error() {
        Some(errno::NO_BUFFERS) => Fault::Pause,
        Some(errno::TOO_BIG) => Fault::TooBig,
        Some(errno::INPUT_OUTPUT | errno::INVALID) => Fault::Arguments,
        _ => Fault::Refused,
    }
}

/// Whether a failed receive call tells of an earlier datagram's fate or of a passing shortage, not of the socket: trying
/// again is right.
pub(crate) fn is_old_news(e: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, OutOfMemory,
        PermissionDenied,
    };
    // A firewall's "prohibited" is news of an earlier datagram too.
    matches!(
        e.kind(),
        Interrupted
            | PermissionDenied
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | OutOfMemory
    ) || matches!(e.raw_os_error(), Some(errno::TOO_BIG | errno::NO_BUFFERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_errors_are_sorted_by_what_the_sender_has_to_do() {
        for (number, expected) in [
            (errno::NO_BUFFERS, Fault::Pause),
            (errno::TOO_BIG, Fault::TooBig),
            (errno::INPUT_OUTPUT, Fault::Arguments),
            (errno::INVALID, Fault::Arguments),
        ] {
            assert_eq!(fault(&io::Error::from_raw_os_error(number)), expected, "error {number}");
        }
        assert_eq!(fault(&io::ErrorKind::WouldBlock.into()), Fault::Full);
        assert_eq!(fault(&io::ErrorKind::PermissionDenied.into()), Fault::Refused);
    }

    #[test]
    fn only_a_broken_socket_ends_a_worker() {
        for number in [errno::TOO_BIG, errno::NO_BUFFERS] {
            assert!(is_old_news(&io::Error::from_raw_os_error(number)));
        }
        assert!(is_old_news(&io::ErrorKind::ConnectionReset.into()));
        assert!(is_old_news(&io::ErrorKind::PermissionDenied.into()));
        assert!(!is_old_news(&io::ErrorKind::NotConnected.into()));
        assert!(!is_old_news(&io::ErrorKind::InvalidInput.into()));
    }
}
