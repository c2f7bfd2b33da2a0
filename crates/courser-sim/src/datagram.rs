//! What travels: one UDP datagram, and the pool that its bytes return to.

use std::net::SocketAddr;

/// ECN field: the sender does not support ECN.
pub const NOT_ECT: u8 = 0;
/// ECN field: ECN-capable, codepoint ECT(1).
pub const ECT1: u8 = 1;
/// ECN field: ECN-capable, codepoint ECT(0).
pub const ECT0: u8 = 2;
/// ECN field: a queue on the way experienced congestion.
pub const CE: u8 = 3;

/// One UDP datagram with its addresses and its ECN field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, as the receiver sees it (a NAT may have changed it).
    pub src: SocketAddr,
    /// Where it goes.
    pub dst: SocketAddr,
    /// The two ECN bits: [`NOT_ECT`], [`ECT1`], [`ECT0`] or [`CE`].
    pub ecn: u8,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

impl Datagram {
    /// A datagram that is not ECN-capable.
    #[must_use]
    pub const fn new(src: SocketAddr, dst: SocketAddr, bytes: Vec<u8>) -> Self {
        Self { src, dst, ecn: NOT_ECT, bytes }
    }

    /// True if a queue may mark it instead of dropping it.
    #[must_use]
    pub const fn is_ect(&self) -> bool {
        self.ecn == ECT0 || self.ecn == ECT1
    }
}

/// Empty byte vectors that keep their capacity, so that a long run does not allocate for each datagram.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
}

/// More free buffers than this are given back to the allocator.
const FREE_MAX: usize = 16_384;

impl Pool {
    /// An empty pool.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// An empty vector, recycled if there is one.
    pub fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// A vector with a copy of `bytes`.
    pub fn copy_of(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut v = self.take();
        v.extend_from_slice(bytes);
        v
    }

    /// Takes a vector back.
    pub fn give(&mut self, mut bytes: Vec<u8>) {
        if self.free.len() < FREE_MAX && bytes.capacity() > 0 {
            bytes.clear();
            self.free.push(bytes);
        }
    }

    /// Takes over all free vectors of another pool.
    pub fn absorb(&mut self, other: &mut Self) {
        while let Some(v) = other.free.pop() {
            self.give(v);
        }
    }

    /// Number of free vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// True if nothing can be recycled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_vector_is_used_again_and_is_empty() {
        let mut pool = Pool::new();
        let v = pool.copy_of(b"hello");
        let at = v.as_ptr();
        pool.give(v);
        assert_eq!(pool.len(), 1);
        let again = pool.take();
        assert_eq!(again.as_ptr(), at);
        assert!(again.is_empty() && pool.is_empty());
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = Pool::new();
        for _ in 0..FREE_MAX + 10 {
            pool.give(Vec::with_capacity(1));
        }
        assert_eq!(pool.len(), FREE_MAX);
        let mut other = Pool::new();
        other.give(Vec::with_capacity(1));
        pool.absorb(&mut other);
        assert!(other.is_empty());
        assert_eq!(pool.len(), FREE_MAX);
    }

    #[test]
    fn only_ect_can_be_marked() {
        let a: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut d = Datagram::new(a, a, vec![]);
        let mut capable = |ecn| {
            d.ecn = ecn;
            d.is_ect()
        };
        assert!(!capable(NOT_ECT) && capable(ECT0) && capable(ECT1) && !capable(CE));
    }
}
