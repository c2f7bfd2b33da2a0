//! Systems on which a port cannot be steered or handed over: relays of which there are none.

use std::io;
use std::net::UdpSocket;

use super::RelayFault;
use crate::net::adapter::Arrival;

/// The end that trains go in.
#[derive(Debug)]
pub(crate) enum RelayIn {}

/// The end that they come out of.
#[derive(Debug)]
pub(crate) enum RelayOut {}

impl RelayIn {
    /// Sends a train.
    pub(crate) fn send(&self, _: &Arrival, _: &[u8]) -> Result<(), RelayFault> {
        match *self {}
    }

    /// Whether nobody is at the other end any more.
    pub(crate) fn is_gone(&self) -> bool {
        match *self {}
    }

    /// The same end once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match *self {}
    }
}

impl RelayOut {
    /// Whether nobody is at the other end any more.
    pub(crate) fn is_gone(&self) -> bool {
        match *self {}
    }

    /// Reads trains.
    pub(crate) fn receive(&self, _: &mut [u8], _: &mut [Arrival]) -> io::Result<Option<usize>> {
        match *self {}
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for RelayOut {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match *self {}
    }
}

/// A relay: not here.
pub(crate) fn relay() -> io::Result<(RelayIn, RelayOut)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A filter for the sockets of a port: not here.
pub(crate) fn steer(_: &UdpSocket, _: u8, _: u8) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
