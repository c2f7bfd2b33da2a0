//! From a connection ID, or a stateless reset token, to the connection.
//!
//! Connection IDs of ours that have no bytes are told apart by the peer's address.
//!
//! All maps are keyed with a secret, so that a peer cannot choose names that collide: destination connection IDs of
//! clients and reset tokens are the peer's choice. The last hit is remembered, so that a train of datagrams costs one
//! look-up.

use core::hash::{BuildHasher, Hasher};
use core::net::SocketAddr;
use std::collections::HashMap;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::cid::{OWN_CID_LEN, SHORT_CID_LEN};
use crate::crypto::Random;
use crate::ids::{Cid, ConnKey, ResetToken};

/// Keyed hashing of connection IDs (SipHash-1-3) and tokens (SipHash-2-4).
#[derive(Clone, Copy)]
pub(crate) struct CidHasher {
    k0: u64,
    k1: u64,
}

impl CidHasher {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        let word = |at: usize| key[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self { k0: word(0), k1: word(8) }
    }

    /// With a fresh secret.
    pub(crate) fn drawn(random: &mut dyn Random) -> Self {
        let mut key = [0; 16];
        random.fill(&mut key);
        Self::new(key)
    }

    /// What is kept of a reset token, and compared, in its place: how long a comparison takes tells nothing about tokens.
    fn disguise(self, token: &ResetToken) -> u128 {
        let mut hasher = SipHasher24::new_with_keys(self.k0, self.k1);
        hasher.write(&token.0);
        hasher.finish128().as_u128()
    }
}

impl BuildHasher for CidHasher {
    type Hasher = siphasher::sip::SipHasher13;

    fn build_hasher(&self) -> Self::Hasher {
        siphasher::sip::SipHasher13::new_with_keys(self.k0, self.k1)
    }
}

/// Cheap hashing for connection IDs that we made, and for tokens in disguise: their bytes are random already.
#[derive(Clone, Copy, Default)]
struct OwnCid;

/// Takes eight bytes of a connection ID as the hash.
#[derive(Default)]
struct OwnCidHasher(u64);

impl BuildHasher for OwnCid {
    type Hasher = OwnCidHasher;

    fn build_hasher(&self) -> OwnCidHasher {
        OwnCidHasher::default()
    }
}

impl Hasher for OwnCidHasher {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0 << 8 | u64::from(*b);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        // The map takes its position from one end and its tag from the other.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The engine's routing table.
pub(crate) struct Routes {
    /// Connection IDs that we issue have [`SHORT_CID_LEN`] bytes.
    short: bool,
    /// Connection IDs that we issued, as numbers.
    own: HashMap<u64, ConnKey, OwnCid>,
    /// Destination connection IDs that clients chose for their first packets.
    chosen: HashMap<Cid, ConnKey, CidHasher>,
    /// Peers of connections without connection IDs of ours.
    addresses: HashMap<SocketAddr, ConnKey, CidHasher>,
    /// Reset tokens of the peers' connection IDs in use, in disguise.
    tokens: HashMap<u128, ConnKey, OwnCid>,
    /// Disguises them.
    hasher: CidHasher,
    last: Option<(u64, ConnKey)>,
}

impl Routes {
    /// No routes yet, for an engine whose connection IDs have that length.
    pub(crate) fn new(hasher: CidHasher, cid_len: usize) -> Self {
        Self {
            short: cid_len == SHORT_CID_LEN,
            own: HashMap::default(),
            chosen: HashMap::with_hasher(hasher),
            addresses: HashMap::with_hasher(hasher),
            tokens: HashMap::default(),
            hasher,
            last: None,
        }
    }

    /// The number of a connection ID that may be one of ours, when theirs have a length that makes numbers.
    fn own_number(&self, cid: &[u8]) -> Option<u64> {
        if self.short {
            let bytes = <[u8; SHORT_CID_LEN]>::try_from(cid).ok()?;
            return Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        <[u8; OWN_CID_LEN]>::try_from(cid).ok().map(u64::from_be_bytes)
    }

    /// Adds a connection ID that we issued; false when it is taken already.
    pub(crate) fn add_own(&mut self, cid: &Cid, key: ConnKey) -> bool {
        let Some(number) = self.own_number(cid.as_slice()) else {
            return *self.chosen.entry(*cid).or_insert(key) == key;
        };
        match self.own.entry(number) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(key);
                true
            }
        }
    }

    /// Adds a destination connection ID that a client chose.
    pub(crate) fn add_chosen(&mut self, cid: Cid, key: ConnKey) {
        self.chosen.insert(cid, key);
    }

    /// Removes a connection ID of either kind if it leads to that connection.
    pub(crate) fn remove(&mut self, cid: &Cid, key: ConnKey) {
        self.last = None;
        if let Some(number) = self.own_number(cid.as_slice())
            && self.own.get(&number) == Some(&key)
        {
            self.own.remove(&number);
            return;
        }
        if self.chosen.get(cid) == Some(&key) {
            self.chosen.remove(cid);
        }
    }

    /// Where packets with this destination connection ID go.
    pub(crate) fn find(&mut self, cid: &[u8]) -> Option<ConnKey> {
        if let Some(number) = self.own_number(cid) {
            if let Some((known, key)) = self.last
                && known == number
            {
                return Some(key);
            }
            if let Some(key) = self.own.get(&number) {
                self.last = Some((number, *key));
                return Some(*key);
            }
        }
        if self.chosen.is_empty() {
            return None;
        }
        self.chosen.get(&Cid::new(cid)?).copied()
    }

    /// The same for a connection ID that we issued, and without remembering it.
    pub(crate) fn peek(&self, cid: &[u8]) -> Option<ConnKey> {
        self.own.get(&self.own_number(cid)?).copied()
    }

    /// Packets without a connection ID from that address lead to the connection; false when they lead to another one.
    pub(crate) fn add_address(&mut self, remote: SocketAddr, key: ConnKey) -> bool {
        *self.addresses.entry(remote).or_insert(key) == key
    }

    /// They do no longer.
    pub(crate) fn remove_address(&mut self, remote: SocketAddr, key: ConnKey) {
        if self.addresses.get(&remote) == Some(&key) {
            self.addresses.remove(&remote);
        }
    }

    /// Where packets without a connection ID from that address go.
    pub(crate) fn find_address(&self, remote: SocketAddr) -> Option<ConnKey> {
        self.addresses.get(&remote).copied()
    }

    /// Adds a reset token of a peer's connection ID. Who was first keeps it: tokens are the peers' choice, and one peer
    /// must not take another one's.
    pub(crate) fn add_token(&mut self, token: ResetToken, key: ConnKey) {
        self.tokens.entry(self.hasher.disguise(&token)).or_insert(key);
    }

    /// Removes a reset token.
    pub(crate) fn remove_token(&mut self, token: &ResetToken, key: ConnKey) {
        let token = self.hasher.disguise(token);
        if self.tokens.get(&token) == Some(&key) {
            self.tokens.remove(&token);
        }
    }

    /// The connection that a datagram which ends in this token resets.
    pub(crate) fn find_reset(&self, datagram: &[u8]) -> Option<ConnKey> {
        if self.tokens.is_empty() {
            return None;
        }
        //= rfc9000#10.3.1-3
        let token = datagram.last_chunk::<16>()?;
        self.tokens.get(&self.hasher.disguise(&ResetToken(*token))).copied()
    }

    /// Number of routes of all kinds.
    pub(crate) fn len(&self) -> usize {
        self.own.len() + self.chosen.len() + self.addresses.len() + self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnKey = ConnKey { index: 1, generation: 0 };
    const B: ConnKey = ConnKey { index: 2, generation: 0 };

    fn routes() -> Routes {
        Routes::new(CidHasher::new([9; 16]), 8)
    }

    fn cid(bytes: &[u8]) -> Cid {
        Cid::new(bytes).unwrap()
    }

    #[test]
    fn eight_connection_ids_lead_to_one_connection() {
        let mut r = routes();
        for n in 0..8u8 {
            assert!(r.add_own(&cid(&[n; 8]), A));
        }
        assert!(!r.add_own(&cid(&[3; 8]), B), "taken");
        for n in 0..8u8 {
            assert_eq!(r.find(&[n; 8]), Some(A));
        }
        r.remove(&cid(&[3; 8]), B);
        assert_eq!(r.find(&[3; 8]), Some(A), "only its owner removes it");
        r.remove(&cid(&[3; 8]), A);
        assert_eq!(r.find(&[3; 8]), None);
        assert_eq!(r.len(), 7);
    }

    #[test]
    fn chosen_ones_are_found_by_all_their_bytes() {
        let mut r = routes();
        r.add_chosen(cid(&[1; 8]), A);
        r.add_chosen(cid(&[1; 20]), B);
        assert_eq!((r.find(&[1; 8]), r.find(&[1; 20]), r.find(&[1; 19])), (Some(A), Some(B), None));
        assert_eq!(r.find(&[1; 40]), None);
        r.remove(&cid(&[1; 8]), A);
        assert_eq!(r.find(&[1; 8]), None);
    }

    #[test]
    fn three_bytes_are_not_taken_for_eight_with_the_same_number() {
        let mut r = Routes::new(CidHasher::new([9; 16]), 3);
        assert!(r.add_own(&cid(&[0, 0, 7]), A));
        assert!(!r.add_own(&cid(&[0, 0, 7]), A) && !r.add_own(&cid(&[0, 0, 7]), B), "taken");
        r.add_chosen(cid(&[0, 0, 0, 0, 0, 0, 0, 7]), B);
        for _ in 0..2 {
            assert_eq!((r.find(&[0, 0, 7]), r.find(&[0, 0, 0, 0, 0, 0, 0, 7])), (Some(A), Some(B)));
        }
        assert_eq!((r.peek(&[0, 0, 7]), r.peek(&[0, 0, 8]), r.find(&[0, 7]), r.find(&[])), (Some(A), None, None, None));
        r.remove(&cid(&[0, 0, 7]), A);
        r.remove(&cid(&[0, 0, 0, 0, 0, 0, 0, 7]), B);
        assert_eq!((r.find(&[0, 0, 7]), r.len()), (None, 0));
    }

    #[test]
    fn a_reset_is_known_by_its_last_sixteen_bytes() {
        let mut r = routes();
        r.add_token(ResetToken([7; 16]), A);
        let mut datagram = vec![0x40; 30];
        datagram.extend([7; 16]);
        assert_eq!(r.find_reset(&datagram), Some(A));
        assert_eq!(r.find_reset(&[7; 15]), None);
        r.add_token(ResetToken([7; 16]), B);
        assert_eq!(r.find_reset(&datagram), Some(A), "the first keeps it");
        r.remove_token(&ResetToken([7; 16]), A);
        assert_eq!((r.find_reset(&datagram), r.len()), (None, 0));
    }

    #[test]
    fn tokens_are_compared_in_a_form_that_follows_from_a_secret() {
        //= rfc9000#10.3.1-3 type=test
        let mut forms = std::collections::BTreeSet::new();
        let mut tokens: Vec<ResetToken> = (0..128).map(|bit| ResetToken((1u128 << bit).to_be_bytes())).collect();
        tokens.push(ResetToken([0; 16]));
        for secret in 0..4 {
            let mut r = Routes::new(CidHasher::new([secret; 16]), 8);
            tokens.iter().for_each(|t| r.add_token(*t, A));
            for token in &tokens {
                let raw = u128::from_be_bytes(token.0);
                assert!(!r.tokens.contains_key(&raw) && !r.tokens.contains_key(&raw.swap_bytes()));
                let mut other = *token;
                other.0[15] ^= 2;
                let known = tokens.contains(&other);
                assert_eq!((r.find_reset(&token.0), r.find_reset(&other.0)), (Some(A), known.then_some(A)));
            }
            forms.extend(r.tokens.keys().copied());
        }
        assert_eq!(forms.len(), 4 * 129, "each secret and each bit makes another one");
        // Neighbours share nothing: half of the bits differ, more or less.
        let at = |token: u128| CidHasher::new([1; 16]).disguise(&ResetToken(token.to_be_bytes()));
        assert!((0..128).all(|bit| (32..96).contains(&(at(0) ^ at(1 << bit)).count_ones())));
    }
}
