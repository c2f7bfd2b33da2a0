//! Who makes our connection IDs.
//!
//! The default draws random bytes. A fleet behind a load balancer puts in a generator whose connection IDs say which
//! server they belong to: [`QuicLb`](super::QuicLb), or one of its own.

use super::OWN_CID_LEN;
use crate::crypto::{KeyFactory, Random};
use crate::ids::{CID_LEN_MAX, Cid};

/// Makes the connection IDs that an engine issues.
///
/// All have the same length, so that packets with short headers can be read. They must not repeat while connections live,
/// and must not tell a stranger which of them belong together (RFC 9000 section 5.1).
pub trait CidGenerator: Send {
    /// Length of every connection ID: 0 to 20 bytes. Without bytes an engine can only begin connections, one for each
    /// address of a server at a time.
    fn cid_len(&self) -> usize;

    /// Makes one.
    fn generate(&mut self, keys: &dyn KeyFactory, random: &mut dyn Random) -> Cid;
}

/// Random connection IDs of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomCids {
    len: usize,
}

impl Default for RandomCids {
    fn default() -> Self {
        Self { len: OWN_CID_LEN }
    }
}

impl RandomCids {
    /// Connection IDs of that length: none, or 8 to 20 bytes. Shorter ones would repeat; they get 8 bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { len: if len == 0 { 0 } else { len.clamp(OWN_CID_LEN, CID_LEN_MAX) } }
    }
}

impl CidGenerator for RandomCids {
    fn cid_len(&self) -> usize {
        self.len
    }

    fn generate(&mut self, _: &dyn KeyFactory, random: &mut dyn Random) -> Cid {
        random_cid(random, self.len)
    }
}

/// Unpredictable bytes as a connection ID.
pub(crate) fn random_cid(random: &mut dyn Random, len: usize) -> Cid {
    let mut bytes = [0; CID_LEN_MAX];
    let bytes = &mut bytes[..len.min(CID_LEN_MAX)];
    //= rfc9000#10.3.2-3
    //= rfc9000#10.3.2-4
    random.fill(bytes);
    //= rfc9000#5.1-1
    Cid::new(bytes).unwrap_or(Cid::EMPTY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::null::{NullKeys, NullRandom};

    #[test]
    fn lengths_are_none_or_long_enough_not_to_repeat() {
        //= rfc9000#5.1-1 type=test
        for (asked, got) in [(0, 0), (1, 8), (8, 8), (13, 13), (20, 20), (99, 20)] {
            let mut g = RandomCids::new(asked);
            let mut random = NullRandom::new(1);
            let (a, b) = (g.generate(&NullKeys, &mut random), g.generate(&NullKeys, &mut random));
            assert_eq!((g.cid_len(), a.len(), b.len()), (got, got, got));
            assert!(got == 0 || a != b);
        }
    }
}
