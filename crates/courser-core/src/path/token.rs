//! Address tokens: what a Retry or a NEW_TOKEN frame gives to a client so that it can prove its address.
//!
//! A token is two readable bytes (kind, name of the key), then what it says, hidden, then an authentication code. It says when
//! it was issued, and for a Retry the port and the original destination connection ID. The code is an HMAC over that, the
//! version, the client's IP address, and for a Retry the connection ID that the client has to use from then on. What
//! the token says is hidden with a mask that is derived from the code, so that nobody can recognise by the time in a token the
//! connection on which it was given out.
//!
//! Whoever has the keys takes the tokens, also in another process: times are counted from 1970, as far as the caller said
//! what time it is. The first key makes tokens, the others are still (or already) taken.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::KeyFactory;
use crate::ids::{Cid, Version};
use crate::time::{Instant, micros};

/// Length of the authentication code at the end of a token.
const MAC_LEN: usize = 16;
/// A Retry token is used at once.
pub const RETRY_LIFETIME: Duration = Duration::from_secs(15);
/// A NEW_TOKEN token serves a later connection.
pub const NEW_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// So much may the clocks of those that share keys differ.
const SKEW: Duration = Duration::from_secs(10);
/// Longest token that is looked at; ours have at most 48 bytes.
const TOKEN_MAX: usize = 64;
/// Keys that are taken at once, at most; the oldest go first.
pub const TOKEN_KEYS_MAX: usize = 4;

const RETRY: u8 = 0xc1;
const FRAME: u8 = 0xc2;

/// Keys of address tokens, as those that share them are given them. They are erased when they are dropped.
///
/// To change the key of a service without a moment in which one refuses what another issued, give everybody the new key to
/// accept ([`also`](Self::also)), then [`rotate`](Self::rotate) to it, one after the other.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKeys {
    /// The first one makes tokens.
    keys: Vec<Zeroizing<[u8; 32]>>,
}

impl TokenKeys {
    /// Makes and takes tokens under this key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { keys: vec![Zeroizing::new(key)] }
    }

    /// Also takes tokens under this key. Of more than [`TOKEN_KEYS_MAX`] keys the last ones are not taken.
    #[must_use]
    pub fn also(mut self, key: [u8; 32]) -> Self {
        if !self.keys.iter().any(|k| **k == key) {
            self.keys = listed(self.keys.iter().cloned().chain([Zeroizing::new(key)]));
        }
        self
    }

    /// The keys, the one that makes tokens first: for whoever hands them on to another process.
    pub fn expose(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys.iter().map(|key| &**key)
    }

    /// Makes tokens under this key from now on; those under the earlier keys are still taken, until
    /// [`TOKEN_KEYS_MAX`] newer keys are there.
    pub fn rotate(&mut self, next: [u8; 32]) {
        let others = self.keys.iter().filter(|k| ***k != next).cloned();
        self.keys = listed([Zeroizing::new(next)].into_iter().chain(others));
    }
}

/// The first keys as a list that never grows or closes gaps, because both leave copies behind in memory.
fn listed(keys: impl Iterator<Item = Zeroizing<[u8; 32]>>) -> Vec<Zeroizing<[u8; 32]>> {
    let mut list = Vec::with_capacity(TOKEN_KEYS_MAX);
    list.extend(keys.take(TOKEN_KEYS_MAX));
    list
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeys").field("count", &self.keys.len()).finish()
    }
}

/// Where and when a token is made or shown.
#[derive(Clone, Copy, Debug)]
pub struct Showing {
    /// The version of the packet.
    pub version: Version,
    /// The present.
    pub now: Instant,
    /// The client's address.
    pub peer: SocketAddr,
    /// Where a packet with a token of a Retry goes: the connection ID that the Retry gave. Others are not tied to it.
    pub dcid: Cid,
}

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The client answered a Retry; the Retry replaced this destination connection ID.
    Retry {
        /// What the client had chosen.
        original_dcid: Cid,
    },
    /// The client was here before, at this address.
    Frame(Ticket),
}

/// Which token of a NEW_TOKEN frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// When it was issued, in microseconds since 1970.
    pub issued_us: u64,
    /// Its own number.
    pub number: u64,
}

/// What became of a token that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It proves something.
    Good(Proof),
    /// It came from a Retry, and proves nothing (any more). Its client takes no other Retry.
    BadRetry,
    /// It proves nothing.
    Nothing,
}

struct Key {
    /// Stands in tokens, so that only one key has to be tried.
    name: u8,
    key: Zeroizing<[u8; 32]>,
}

/// Issues and checks tokens.
pub struct Tokens {
    /// The first one issues.
    keys: Vec<Key>,
    /// Microseconds from 1970 to the origin of the caller's time.
    origin_us: u64,
}

impl Tokens {
    /// Tokens under these keys; time begins at `origin` after 1970.
    #[must_use]
    pub fn new(factory: &dyn KeyFactory, keys: &TokenKeys, origin: Duration) -> Self {
        let named = |key: &Zeroizing<[u8; 32]>| Key { name: factory.mac(key, &[b"token key"])[0], key: key.clone() };
        Self { keys: keys.keys.iter().map(named).collect(), origin_us: micros(origin) }
    }

    /// Takes these keys from now on.
    pub fn replace(&mut self, factory: &dyn KeyFactory, keys: &TokenKeys) {
        self.keys = Self::new(factory, keys, Duration::ZERO).keys;
    }

    /// Microseconds since 1970.
    pub fn wall_us(&self, now: Instant) -> u64 {
        self.origin_us.saturating_add(now.as_micros())
    }

    /// A token for a Retry that goes to `at.peer` and makes it use `at.dcid`.
    pub fn retry(&self, factory: &dyn KeyFactory, at: &Showing, original_dcid: &Cid) -> Vec<u8> {
        let mut says = self.wall_us(at.now).to_be_bytes().to_vec();
        says.extend_from_slice(&at.peer.port().to_be_bytes());
        says.extend_from_slice(original_dcid.as_slice());
        self.finish(factory, at, RETRY, says)
    }

    /// A token for a NEW_TOKEN frame; `number` makes it unlike all others.
    pub fn frame(&self, factory: &dyn KeyFactory, at: &Showing, number: u64) -> Vec<u8> {
        let mut says = self.wall_us(at.now).to_be_bytes().to_vec();
        //= rfc9000#8.1.3-5
        says.extend_from_slice(&number.to_be_bytes());
        self.finish(factory, at, FRAME, says)
    }

    /// What the token proves.
    pub fn check(&self, factory: &dyn KeyFactory, at: &Showing, token: &[u8]) -> Checked {
        if token.len() > TOKEN_MAX {
            return Checked::Nothing;
        }
        let Some((&[kind, name], rest)) = token.split_first_chunk::<2>() else { return Checked::Nothing };
        //= rfc9000#8.1.1-1
        if (kind != RETRY && kind != FRAME) || !self.keys.iter().any(|k| k.name == name) {
            return Checked::Nothing;
        }
        let proof = self.keys.iter().filter(|k| k.name == name).find_map(|k| self.open(factory, k, at, kind, rest));
        match proof {
            Some(proof) => Checked::Good(proof),
            None if kind == RETRY => Checked::BadRetry,
            None => Checked::Nothing,
        }
    }

    fn open(&self, factory: &dyn KeyFactory, key: &Key, at: &Showing, kind: u8, rest: &[u8]) -> Option<Proof> {
        let (hidden, code) = rest.split_at_checked(rest.len().checked_sub(MAC_LEN)?)?;
        let mut says = hidden.to_vec();
        mask(factory, key, code, &mut says);
        //= rfc9000#8.1.4-2
        if !factory.equal(&code_of(factory, key, at, kind, &says), code) {
            return None;
        }
        let (issued, said) = says.split_first_chunk::<8>()?;
        let issued_us = u64::from_be_bytes(*issued);
        let now_us = self.wall_us(at.now);
        if issued_us > now_us.saturating_add(micros(SKEW)) {
            return None;
        }
        let age = Duration::from_micros(now_us.saturating_sub(issued_us));
        match kind {
            //= rfc9000#8.1.4-7
            RETRY if age <= RETRY_LIFETIME => {
                let (port, dcid) = said.split_first_chunk::<2>()?;
                //= rfc9000#8.1.4-3
                let same_port = u16::from_be_bytes(*port) == at.peer.port();
                same_port.then_some(Proof::Retry { original_dcid: Cid::new(dcid)? })
            }
            //= rfc9000#8.1.3-3
            FRAME if age <= NEW_TOKEN_LIFETIME => {
                let number = u64::from_be_bytes(said.try_into().ok()?);
                Some(Proof::Frame(Ticket { issued_us, number }))
            }
            _ => None,
        }
    }

    fn finish(&self, factory: &dyn KeyFactory, at: &Showing, kind: u8, mut says: Vec<u8>) -> Vec<u8> {
        // There is always a key: keys are made with one, and added.
        let Some(key) = self.keys.first() else { return Vec::new() };
        let code = code_of(factory, key, at, kind, &says);
        //= rfc9000#8.1.3-4
        mask(factory, key, &code, &mut says);
        [&[kind, key.name], &says[..], &code].concat()
    }
}

/// Hides what a token says, or shows it again.
fn mask(factory: &dyn KeyFactory, key: &Key, code: &[u8], says: &mut [u8]) {
    let mask = factory.mac(&key.key, &[b"token mask", code]);
    says.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

fn code_of(factory: &dyn KeyFactory, key: &Key, at: &Showing, kind: u8, says: &[u8]) -> [u8; MAC_LEN] {
    //= rfc9369#5-2
    let version = at.version.0.to_be_bytes();
    //= rfc9000#8.1.4-4
    let address = match at.peer.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let bound = if kind == RETRY { at.dcid.as_slice() } else { &[] };
    // Of the parts all but two have a fixed length, and the length of one of these is told.
    let len = u8::try_from(bound.len()).unwrap_or(u8::MAX);
    //= rfc9000#8.1.4-1
    let full = factory.mac(&key.key, &[b"token", &version, &address, &[kind, len], bound, says]);
    let mut code = [0; MAC_LEN];
    code.copy_from_slice(&full[..MAC_LEN]);
    code
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
