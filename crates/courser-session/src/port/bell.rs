//! Bells that are descriptors, so that event loops and other processes hear them.
//!
//! **A bell must never block whoever rings it**, and whoever holds a descriptor can change the flags of what it stands for:
//! an application that turns "non-blocking" off, and fills what its worker writes to, would hang the worker. Hence an
//! application's bell is a pipe, whose two ends have flags of their own: the worker's end never leaves the service. A worker's
//! bell is an event counter, which an application in C can ring without risking a signal when the worker is gone; reading it
//! asks for "do not wait" in the call itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::doorbell::Bell;

/// A [`Bell`] that is readable from a ring until it is [cleared](Self::clear). Clones are the same bell.
#[derive(Clone, Debug)]
pub struct EventBell {
    /// What is polled, and what another process is given.
    fd: Arc<OwnedFd>,
    /// Where a ring is written, when that is another end.
    strike: Option<Arc<OwnedFd>>,
}

impl EventBell {
    /// A silent bell. This process can ring it and hear it; one that is given a [descriptor](Self::to_fd) can hear it.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (hear, strike) = io::pipe()?;
        let (hear, strike) = (OwnedFd::from(hear), OwnedFd::from(strike));
        rustix::io::ioctl_fionbio(&hear, true)?;
        rustix::io::ioctl_fionbio(&strike, true)?;
        Ok(Self { fd: Arc::new(hear), strike: Some(Arc::new(strike)) })
    }

    /// A silent bell that a process rings when it is given a [descriptor](Self::to_fd), and this one hears.
    #[cfg(target_os = "linux")]
    pub(crate) fn counter() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd), strike: None })
    }

    /// The bell that another process gave this descriptor of: an application's own bell, to be heard, or a worker's, to be
    /// rung.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd), strike: None }
    }

    /// A descriptor for another process.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn to_fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Silences the bell.
    pub fn clear(&self) {
        let mut heard = [0; 128];
        // As many as fit may mean that there are more; the end of a pipe is no ring.
        while matches!(read_now(&self.fd, &mut heard), Ok(n) if n == heard.len()) {}
    }

    /// Waits for a ring, or for that long, and silences the bell. Whether there was one.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        let _ = poll(&mut fds, timeout.as_ref());
        let rung = !fds[0].revents().is_empty();
        self.clear();
        rung
    }
}

/// Reads what there is now, though somebody else may have made the descriptor a blocking one.
fn read_now(fd: &OwnedFd, into: &mut [u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        // The present position: there is none.
        match preadv2(fd, &mut [io::IoSliceMut::new(into)], u64::MAX, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            read => return Ok(read?),
        }
    }
    Ok(rustix::io::read(fd, into)?)
}

impl Bell for EventBell {
    fn ring(&self) {
        // It can only fail when there are many rings that nobody cleared, or when nobody hears any more.
        let _ = rustix::io::write(self.strike.as_ref().unwrap_or(&self.fd), &1u64.to_ne_bytes());
    }
}

impl AsFd for EventBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_millis(1));

    fn is_rung(bell: &EventBell) -> bool {
        let mut fds = [PollFd::new(bell, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn rings_are_heard_until_they_are_cleared_and_do_not_add_up() {
        let bell = EventBell::new().unwrap();
        assert!(!bell.wait(SOON));
        (0..100).for_each(|_| bell.clone().ring());
        assert!(is_rung(&bell));
        bell.clear();
        assert!(!is_rung(&bell));
        bell.ring();
        assert!(bell.wait(None));
        assert!(!bell.wait(SOON));
    }

    #[test]
    fn a_bell_that_nobody_clears_never_blocks_its_ringer() {
        let bell = EventBell::new().unwrap();
        (0..100_000).for_each(|_| bell.ring());
        assert!(is_rung(&bell));
        bell.clear();
        assert!(!is_rung(&bell));
    }

    #[test]
    fn whoever_hears_a_bell_cannot_make_it_block_its_ringer() {
        let bell = EventBell::new().unwrap();
        let theirs = EventBell::from_fd(bell.to_fd().unwrap());
        rustix::io::ioctl_fionbio(&theirs, false).unwrap();
        // More than a pipe holds.
        (0..100_000).for_each(|_| bell.ring());
        assert!(is_rung(&theirs));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn whoever_rings_a_counter_cannot_make_it_block_its_owner() {
        let bell = EventBell::counter().unwrap();
        let theirs = EventBell::from_fd(bell.to_fd().unwrap());
        rustix::io::ioctl_fionbio(&theirs, false).unwrap();
        bell.clear();
        theirs.ring();
        assert!(is_rung(&bell));
        bell.clear();
        assert!(!is_rung(&bell));
    }
}
