//! Connection IDs that tell a load balancer which server they belong to (draft-ietf-quic-load-balancers, "QUIC-LB").
//!
//! Behind a first byte stand the server's ID and a nonce. Without a key they are readable for everybody. With one they are
//! encrypted: 16 bytes as one AES block, other lengths by a Feistel network of four rounds around AES. The first byte has
//! the number of the configuration and, if wanted, the length of what follows.

use zeroize::Zeroizing;

use super::CidGenerator;
use crate::crypto::{KeyFactory, Random};
use crate::ids::{CID_LEN_MAX, Cid};

/// Server ID and nonce together, at most: a connection ID less its first byte.
const BODY_MAX: usize = CID_LEN_MAX - 1;
/// The shortest nonce.
const NONCE_MIN: usize = 4;
/// Three bits of configuration; all ones mean that there is none.
const CONFIGS: u8 = 7;
const BLOCK: usize = 16;

/// A configuration of a load balancer as one of its servers has it.
#[derive(Clone, PartialEq, Eq)]
pub struct QuicLb {
    config: u8,
    server_id: Vec<u8>,
    nonce_len: usize,
    key: Option<Zeroizing<[u8; BLOCK]>>,
    /// The first byte tells the length; else those bits are random.
    tell_len: bool,
    /// The next nonce, when there is a key: a counter never repeats, and nobody sees it. Drawn when first needed.
    nonce: Option<u128>,
}

impl core::fmt::Debug for QuicLb {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The key is a secret.
        f.debug_struct("QuicLb")
            .field("config", &self.config)
            .field("server_id", &self.server_id)
            .finish_non_exhaustive()
    }
}

/// A configuration that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidQuicLb(&'static str);

impl core::fmt::Display for InvalidQuicLb {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a QUIC-LB configuration needs {}", self.0)
    }
}

impl core::error::Error for InvalidQuicLb {}

impl QuicLb {
    /// Configuration number `config` (0 to 6) for the server with that ID. With `key` server ID and nonce are encrypted.
    ///
    /// # Errors
    /// When the number, or a length, is outside of what the draft allows, or connection IDs have less than 8 bytes: they
    /// would repeat.
    pub fn new(
        config: u8,
        server_id: &[u8],
        nonce_len: usize,
        key: Option<[u8; 16]>,
        tell_len: bool,
    ) -> Result<Self, InvalidQuicLb> {
        if config >= CONFIGS {
            return Err(InvalidQuicLb("a number below 7"));
        }
        if server_id.is_empty() {
            return Err(InvalidQuicLb("a server ID of at least one byte"));
        }
        if nonce_len < NONCE_MIN {
            return Err(InvalidQuicLb("a nonce of at least 4 bytes"));
        }
        let body = server_id.len().saturating_add(nonce_len);
        if !(super::OWN_CID_LEN - 1..=BODY_MAX).contains(&body) {
            return Err(InvalidQuicLb("7 to 19 bytes of server ID and nonce"));
        }
        Ok(Self {
            config,
            server_id: server_id.to_vec(),
            nonce_len,
            key: key.map(Zeroizing::new),
            tell_len,
            nonce: None,
        })
    }

    fn body_len(&self) -> usize {
        self.server_id.len() + self.nonce_len
    }

    /// The connection ID with that nonce; `low` are the five low bits of the first byte when they do not tell the length.
    #[must_use]
    pub fn encode(&self, keys: &dyn KeyFactory, nonce: &[u8], low: u8) -> Cid {
        let mut bytes = [0; CID_LEN_MAX];
        let len = self.body_len();
        let low = if self.tell_len { u8::try_from(len).unwrap_or(0) } else { low };
        bytes[0] = self.config << 5 | low & 0x1f;
        let body = &mut bytes[1..=len];
        let (id, rest) = body.split_at_mut(self.server_id.len());
        id.copy_from_slice(&self.server_id);
        for (to, from) in rest.iter_mut().zip(nonce) {
            *to = *from;
        }
        if let Some(key) = &self.key {
            match <&mut [u8; BLOCK]>::try_from(&mut *body) {
                Ok(block) => keys.aes128_block(key, block),
                Err(_) => four_passes(keys, key, body, [1, 2, 3, 4]),
            }
        }
        Cid::new(&bytes[..=len]).unwrap_or(Cid::EMPTY)
    }

    fn next_nonce(&mut self, random: &mut dyn Random) -> [u8; BODY_MAX] {
        let mut nonce = [0; BODY_MAX];
        random.fill(&mut nonce[..self.nonce_len]);
        if self.key.is_some() {
            let mut first = [0; 16];
            random.fill(&mut first);
            let counter = self.nonce.map_or(u128::from_be_bytes(first), |n| n.wrapping_add(1));
            self.nonce = Some(counter);
            let counted = self.nonce_len.min(16);
            nonce[..counted].copy_from_slice(&counter.to_be_bytes()[16 - counted..]);
        }
        nonce
    }
}

impl CidGenerator for QuicLb {
    fn cid_len(&self) -> usize {
        1 + self.body_len()
    }

    fn generate(&mut self, keys: &dyn KeyFactory, random: &mut dyn Random) -> Cid {
        let nonce = self.next_nonce(random);
        let mut low = [0];
        random.fill(&mut low);
        self.encode(keys, &nonce[..self.nonce_len], low[0])
    }
}

/// The Feistel network over a body of any length but 16: passes 1 to 4 encrypt, 4 to 1 decrypt. With an odd length the
/// halves share the byte in the middle, four bits each.
fn four_passes(keys: &dyn KeyFactory, key: &[u8; BLOCK], body: &mut [u8], passes: [u8; 4]) {
    let (len, half) = (body.len(), body.len().div_ceil(2));
    let odd = len % 2 == 1;
    let (mut left, mut right) = ([0; BLOCK], [0; BLOCK]);
    left[..half].copy_from_slice(&body[..half]);
    right[..half].copy_from_slice(&body[len - half..]);
    if odd {
        left[half - 1] &= 0xf0;
        right[0] &= 0x0f;
    }
    for pass in passes {
        // Odd passes change the right half by the left one, even passes the other way.
        let (from, to) = if pass % 2 == 1 { (&left, &mut right) } else { (&right, &mut left) };
        let mut block = [0; BLOCK];
        block[..half].copy_from_slice(&from[..half]);
        block[BLOCK - 2] = u8::try_from(len).unwrap_or(0);
        block[BLOCK - 1] = pass;
        keys.aes128_block(key, &mut block);
        to[..half].iter_mut().zip(&block).for_each(|(a, b)| *a ^= b);
        if odd && pass % 2 == 1 {
            right[0] &= 0x0f;
        } else if odd {
            left[half - 1] &= 0xf0;
        }
    }
    body[len - half..].copy_from_slice(&right[..half]);
    let middle = body[len - half];
    body[..half].copy_from_slice(&left[..half]);
    if odd {
        body[half - 1] |= middle;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protect::null::{NullKeys, NullRandom};

    #[test]
    fn impossible_configurations_are_refused() {
        let make = |config, id: &[u8], nonce| QuicLb::new(config, id, nonce, None, true);
        assert!(make(7, &[1; 4], 4).is_err() && make(0, &[], 8).is_err() && make(0, &[1; 8], 3).is_err());
        assert!(make(0, &[1; 16], 4).is_err() && make(0, &[1], 5).is_err());
        assert!(make(6, &[1; 3], 4).is_ok() && make(0, &[1; 15], 4).is_ok());
        assert_eq!(make(7, &[1; 4], 4).unwrap_err().to_string(), "a QUIC-LB configuration needs a number below 7");
    }

    #[test]
    fn without_a_key_the_server_is_readable() {
        // The first vector of the draft's appendix B.1. The others of B.1 have half a byte too much.
        let lb = QuicLb::new(0, &[0xc4, 0x60, 0x5e], 4, None, true).unwrap();
        let cid = lb.encode(&NullKeys, &[0x45, 0x04, 0xcc, 0x4f], 0);
        assert_eq!(cid.to_string(), "07c4605e4504cc4f");
    }

    #[test]
    fn connection_ids_do_not_repeat_and_have_one_length() {
        for key in [None, Some([7; 16])] {
            for (id, nonce) in [(3, 4), (8, 8), (10, 9)] {
                let mut lb = QuicLb::new(1, &vec![5; id], nonce, key, false).unwrap();
                let mut random = NullRandom::new(3);
                let made: std::collections::BTreeSet<Cid> =
                    (0..1_000).map(|_| lb.generate(&NullKeys, &mut random)).collect();
                assert_eq!(made.len(), 1_000);
                assert!(made.iter().all(|c| c.len() == lb.cid_len() && c.as_slice()[0] >> 5 == 1));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn four_passes_backwards_give_the_server_back(body in prop::collection::vec(any::<u8>(), 5..20), key: [u8; 16]) {
            prop_assume!(body.len() != 16);
            let mut coded = body.clone();
            four_passes(&NullKeys, &key, &mut coded, [1, 2, 3, 4]);
            prop_assert_ne!(&coded, &body);
            four_passes(&NullKeys, &key, &mut coded, [4, 3, 2, 1]);
            prop_assert_eq!(coded, body);
        }
    }
}
