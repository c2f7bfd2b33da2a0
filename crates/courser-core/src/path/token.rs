//! Address tokens: what a Retry or a NEW_TOKEN frame gives to a client so that it can prove its address.
//!
//! A token is readable but not forgeable: kind, issue time, port (Retry only), original destination connection ID
//! (Retry only), then an HMAC over all of it, the version, and the client's IP address. Engines that share the key take each other's
//! tokens.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::crypto::KeyFactory;
use crate::ids::{Cid, Version};
use crate::time::Instant;

/// Length of the authentication code at the end of a token.
const MAC_LEN: usize = 16;
/// A Retry token is used at once.
pub const RETRY_LIFETIME: Duration = Duration::from_secs(15);
/// A NEW_TOKEN token serves a later connection.
pub const NEW_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Longest token that is looked at; ours have at most 56 bytes.
const TOKEN_MAX: usize = 64;

const RETRY: u8 = 0xc1;
const FRAME: u8 = 0xc2;

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The client answered a Retry; the Retry replaced this destination connection ID.
    Retry {
        /// What the client had chosen.
        original_dcid: Cid,
    },
    /// The client was here before, at this address.
    Frame,
}

/// Issues and checks tokens.
pub struct TokenKey {
    key: [u8; 32],
}

impl TokenKey {
    /// Tokens under this key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A token for a Retry that goes to `to`.
    pub fn retry(
        &self,
        keys: &dyn KeyFactory,
        version: Version,
        now: Instant,
        to: SocketAddr,
        original_dcid: &Cid,
    ) -> Vec<u8> {
        let mut token = vec![RETRY];
        token.extend_from_slice(&now.as_micros().to_be_bytes());
        token.extend_from_slice(&to.port().to_be_bytes());
        token.extend_from_slice(original_dcid.as_slice());
        self.finish(keys, version, token, to.ip())
    }

    /// A token for a NEW_TOKEN frame; `serial` makes it unlike all others.
    pub fn frame(&self, keys: &dyn KeyFactory, version: Version, now: Instant, to: IpAddr, serial: u64) -> Vec<u8> {
        let mut token = vec![FRAME];
        token.extend_from_slice(&now.as_micros().to_be_bytes());
        //= rfc9000#8.1.3-5
        token.extend_from_slice(&serial.to_be_bytes());
        self.finish(keys, version, token, to)
    }

    /// What the token proves; `None` when it is not ours, too old, or for another address.
    pub fn check(
        &self,
        keys: &dyn KeyFactory,
        version: Version,
        now: Instant,
        from: SocketAddr,
        token: &[u8],
    ) -> Option<Proof> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let (body, mac) = token.split_at_checked(token.len().checked_sub(MAC_LEN)?)?;
        //= rfc9000#8.1.4-2
        if !keys.equal(&self.mac(keys, version, body, from.ip()), mac) {
            return None;
        }
        let (kind, rest) = body.split_first()?;
        let (issued, rest) = rest.split_first_chunk::<8>()?;
        let age = now.since(Instant::from_micros(u64::from_be_bytes(*issued)));
        match *kind {
            //= rfc9000#8.1.4-7
            RETRY if age <= RETRY_LIFETIME => {
                let (port, dcid) = rest.split_first_chunk::<2>()?;
                //= rfc9000#8.1.4-3
                let same_port = u16::from_be_bytes(*port) == from.port();
                same_port.then_some(Proof::Retry { original_dcid: Cid::new(dcid)? })
            }
            FRAME if age <= NEW_TOKEN_LIFETIME => Some(Proof::Frame),
            _ => None,
        }
    }

    fn finish(&self, keys: &dyn KeyFactory, version: Version, mut token: Vec<u8>, to: IpAddr) -> Vec<u8> {
        let mac = self.mac(keys, version, &token, to);
        token.extend_from_slice(&mac);
        token
    }

    fn mac(&self, keys: &dyn KeyFactory, version: Version, body: &[u8], ip: IpAddr) -> [u8; MAC_LEN] {
        //= rfc9369#5-2
        let version = version.0.to_be_bytes();
        //= rfc9000#8.1.4-4
        let full = match ip {
            IpAddr::V4(v4) => keys.mac(&self.key, &[b"token", &version, body, &v4.octets()]),
            IpAddr::V6(v6) => keys.mac(&self.key, &[b"token", &version, body, &v6.octets()]),
        };
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&full[..MAC_LEN]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::null::NullKeys;

    const NOW: Instant = Instant::from_micros(5_000_000);

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_retry_token_proves_address_and_port_for_a_short_time() {
        let key = TokenKey::new([1; 32]);
        let dcid = Cid::new(&[7; 8]).unwrap();
        let token = key.retry(&NullKeys, Version::V1, NOW, from("10.0.0.1:5"), &dcid);
        let check = |at, who| key.check(&NullKeys, Version::V1, at, from(who), &token);
        assert_eq!(check(NOW, "10.0.0.1:5"), Some(Proof::Retry { original_dcid: dcid }));
        //= rfc9000#8.1.4-3 type=test
        assert_eq!(check(NOW, "10.0.0.1:6"), None);
        assert_eq!(check(NOW, "10.0.0.2:5"), None);
        //= rfc9000#8.1.4-7 type=test
        assert_eq!(check(NOW + RETRY_LIFETIME + Duration::from_secs(1), "10.0.0.1:5"), None);
    }

    #[test]
    fn a_frame_token_proves_the_address_for_a_day() {
        let key = TokenKey::new([1; 32]);
        let token = key.frame(&NullKeys, Version::V1, NOW, from("[::1]:5").ip(), 1);
        assert_eq!(
            key.check(&NullKeys, Version::V1, NOW + Duration::from_secs(3600), from("[::1]:9"), &token),
            Some(Proof::Frame)
        );
        //= rfc9000#8.1.4-4 type=test
        assert_eq!(key.check(&NullKeys, Version::V1, NOW, from("[::2]:5"), &token), None);
        //= rfc9000#8.1.3-5 type=test
        assert_ne!(token, key.frame(&NullKeys, Version::V1, NOW, from("[::1]:5").ip(), 2));
        assert_eq!(key.check(&NullKeys, Version::V1, NOW + NEW_TOKEN_LIFETIME * 2, from("[::1]:5"), &token), None);
    }

    #[test]
    fn engines_that_share_the_key_take_each_others_tokens_and_others_do_not() {
        let token = TokenKey::new([1; 32]).frame(&NullKeys, Version::V1, NOW, from("10.0.0.1:5").ip(), 1);
        assert!(TokenKey::new([1; 32]).check(&NullKeys, Version::V1, NOW, from("10.0.0.1:5"), &token).is_some());
        assert_eq!(TokenKey::new([2; 32]).check(&NullKeys, Version::V1, NOW, from("10.0.0.1:5"), &token), None);
    }

    #[test]
    fn no_changed_byte_passes() {
        //= rfc9000#8.1.4-2 type=test
        let key = TokenKey::new([1; 32]);
        let token = key.retry(&NullKeys, Version::V1, NOW, from("10.0.0.1:5"), &Cid::new(&[7; 20]).unwrap());
        for at in 0..token.len() {
            let mut forged = token.clone();
            forged[at] ^= 1;
            assert_eq!(key.check(&NullKeys, Version::V1, NOW, from("10.0.0.1:5"), &forged), None, "byte {at}");
        }
        for len in 0..token.len() {
            assert_eq!(key.check(&NullKeys, Version::V1, NOW, from("10.0.0.1:5"), &token[..len]), None);
        }
        assert_eq!(key.check(&NullKeys, Version::V1, NOW, from("10.0.0.1:5"), &[0xc1; 200]), None);
    }
}
