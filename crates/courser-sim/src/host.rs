//! What lives at the edge of the network: hosts, and the box into which they put what they send.

use std::any::Any;
use std::net::SocketAddr;

use crate::datagram::{Datagram, NOT_ECT, Pool};

/// A protocol without sockets and clocks.
///
/// In each step of the simulation the world first hands over **all** datagrams that arrived at this time (`receive`), then
/// calls `poll` once. So a host may merge what it has to say about a burst, as a real one does after reading its socket.
/// `poll` is also called when `deadline` has come, once at the very start, and after [`crate::World::host_mut`].
///
/// After `poll`, `deadline` must be later than `now_us` or `None`, else the host is polled again at the same time; a host
/// that keeps doing so is reported as stuck.
pub trait Host: Any {
    /// One datagram has arrived. It may be changed in place (decrypted, for instance); its buffer is recycled afterwards.
    fn receive(&mut self, now_us: u64, d: &mut Datagram);

    /// Does what is due, and sends.
    fn poll(&mut self, now_us: u64, out: &mut Outbox);

    /// When to poll next, if nothing arrives.
    fn deadline(&self) -> Option<u64>;
}

/// A host made elsewhere is a host too.
impl<H: Host + ?Sized> Host for Box<H> {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        (**self).receive(now_us, d);
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        (**self).poll(now_us, out);
    }

    fn deadline(&self) -> Option<u64> {
        (**self).deadline()
    }
}

/// Datagrams that a host sends in one poll. They leave in this order, at the time of the poll.
#[derive(Debug)]
pub struct Outbox {
    pub(crate) list: Vec<Datagram>,
    pub(crate) pool: Pool,
    limit: usize,
}

impl Outbox {
    /// Room for `limit` datagrams in one poll.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { list: Vec::new(), pool: Pool::new(), limit }
    }

    /// Sends a copy of `payload`, not ECN-capable. False, and nothing sent, if the box is full.
    pub fn send(&mut self, src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> bool {
        self.send_with(src, dst, NOT_ECT, |bytes| bytes.extend_from_slice(payload))
    }

    /// Sends what `write` puts into an empty, recycled buffer. False, and `write` not called, if the box is full.
    pub fn send_with(&mut self, src: SocketAddr, dst: SocketAddr, ecn: u8, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.is_full() {
            return false;
        }
        let mut bytes = self.pool.take();
        write(&mut bytes);
        self.list.push(Datagram { src, dst, ecn: ecn & 3, bytes });
        true
    }

    /// True if nothing more can be sent in this poll. A host that ends its poll because of this must have a deadline.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.list.len() >= self.limit
    }

    /// Datagrams that can still be sent in this poll.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.limit.saturating_sub(self.list.len())
    }

    /// What was sent so far, for tests of a host outside a world.
    #[must_use]
    pub fn sent(&self) -> &[Datagram] {
        &self.list
    }

    /// Takes what was sent, for whoever drives a host outside a world.
    pub fn take(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::ECT0;

    #[test]
    fn the_box_is_bounded_and_keeps_the_order() {
        let (a, b): (SocketAddr, SocketAddr) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let mut out = Outbox::new(2);
        assert!(out.send(a, b, b"one"));
        assert_eq!(out.room(), 1);
        assert!(out.send_with(b, a, ECT0 | 0xf0, |v| v.push(2)));
        assert!(out.is_full() && !out.send(a, b, b"three"));
        assert_eq!(out.sent()[1].ecn, ECT0, "only the two bits count");
        let all = out.take();
        assert_eq!((all[0].bytes.as_slice(), all[1].bytes.as_slice()), (&b"one"[..], &[2][..]));
        assert_eq!(out.room(), 2);
    }
}
