//! What a server may say after the handshake, as far as QUIC has rules of its own for it (RFC 9001 sections 4.4 and 4.6.1).
//!
//! Messages of the 1-RTT level are looked at before rustls gets them: it would answer with alerts, or know nothing of the
//! rule. A message is read when it is complete; what rustls makes of a malformed one is its own business. Of one that is
//! longer than rustls takes nothing is kept.

use courser_core::error::{PeerViolation, TransportCode};

const NEW_SESSION_TICKET: u8 = 4;
const CERTIFICATE_REQUEST: u8 = 13;
/// The extension of a ticket that allows 0-RTT.
const EARLY_DATA: u16 = 42;
/// Longest message that rustls takes, in bytes.
const MESSAGE_MAX: usize = 0xffff;

/// Reads the messages of a server after the handshake.
#[derive(Default)]
pub(crate) struct PostHandshake {
    /// The beginning of a message whose rest has not come.
    begun: Vec<u8>,
    /// A whole ticket came.
    ticket: bool,
    /// Something began that is no ticket.
    other: bool,
}

impl PostHandshake {
    /// Reads what came next.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION for a CertificateRequest, and for a ticket that limits 0-RTT in the manner of TLS.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), PeerViolation> {
        self.begun.extend_from_slice(bytes);
        let mut rest = &self.begun[..];
        while let Some((kind, len, body)) = split(rest) {
            self.other |= kind != NEW_SESSION_TICKET;
            //= rfc9001#4.4-3
            if kind == CERTIFICATE_REQUEST {
                return Err(violation("a CertificateRequest after the handshake", "rfc9001#4.4"));
            }
            if len > MESSAGE_MAX {
                rest = &[];
                break;
            }
            let Some((body, later)) = body.split_at_checked(len) else { break };
            //= rfc9001#4.6.1-2
            if kind == NEW_SESSION_TICKET && early_data_limit(body).is_some_and(|limit| limit != u32::MAX) {
                return Err(violation("a ticket that allows 0-RTT with a limit of TLS", "rfc9001#4.6.1"));
            }
            self.ticket |= kind == NEW_SESSION_TICKET;
            rest = later;
        }
        let read = self.begun.len() - rest.len();
        if read == self.begun.len() {
            // Tickets come once: their memory is not kept for others.
            self.begun = Vec::new();
        } else {
            self.begun.drain(..read);
        }
        Ok(())
    }

    /// Whether tickets came, and none of which the rest is still to come.
    pub(crate) fn has_tickets(&self) -> bool {
        self.ticket && self.begun.is_empty()
    }

    /// Whether something came that is no ticket.
    pub(crate) const fn has_other(&self) -> bool {
        self.other
    }
}

/// Type and length of the first message, and all that is behind its header.
fn split(bytes: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (&[kind, a, b, c], rest) = bytes.split_first_chunk()?;
    Some((kind, u32::from_be_bytes([0, a, b, c]) as usize, rest))
}

/// The `max_early_data_size` of a NewSessionTicket.
fn early_data_limit(ticket: &[u8]) -> Option<u32> {
    // Lifetime and the number that is added to the age.
    let (_, rest) = ticket.split_at_checked(8)?;
    let (nonce, rest) = rest.split_first()?;
    let (_, rest) = rest.split_at_checked(usize::from(*nonce))?;
    let (_, rest) = vector16(rest)?;
    let (mut extensions, _) = vector16(rest)?;
    while let Some((kind, rest)) = extensions.split_first_chunk::<2>() {
        let (value, later) = vector16(rest)?;
        if u16::from_be_bytes(*kind) == EARLY_DATA {
            return Some(u32::from_be_bytes(value.try_into().ok()?));
        }
        extensions = later;
    }
    None
}

/// A vector with a length of two bytes, and what is behind it.
fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

const fn violation(reason: &'static str, section: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, len[1], len[2], len[3]], body].concat()
    }

    fn ticket(extensions: &[u8]) -> Vec<u8> {
        let len = u16::try_from(extensions.len()).unwrap().to_be_bytes();
        message(4, &[&[0; 8][..], &[2, 7, 7], &[0, 3, 1, 2, 3], &len, extensions].concat())
    }

    fn early(limit: u32) -> Vec<u8> {
        [&[0, 42, 0, 4][..], &limit.to_be_bytes()].concat()
    }

    /// Reads in pieces of that length.
    fn read(bytes: &[u8], piece: usize) -> Result<PostHandshake, PeerViolation> {
        let mut post = PostHandshake::default();
        bytes.chunks(piece).try_for_each(|b| post.read(b)).map(|()| post)
    }

    #[test]
    fn tickets_allow_all_early_data_or_none() {
        //= rfc9001#4.6.1-2 type=test
        let other = [0x1a, 0x1a, 0, 1, 9];
        for piece in [1, 3, 1000] {
            for good in [vec![], early(u32::MAX), other.to_vec(), [&other[..], &early(u32::MAX)].concat()] {
                let post = read(&[ticket(&good), ticket(&good)].concat(), piece).unwrap();
                assert_eq!(post.begun.capacity(), 0, "nothing is kept of what was read");
            }
            for limit in [0, 1, 1 << 14, u32::MAX - 1] {
                for bad in [early(limit), [&other[..], &early(limit)].concat()] {
                    let code = read(&[ticket(&[]), ticket(&bad)].concat(), piece).err().map(|v| v.code);
                    assert_eq!(code, Some(TransportCode::PROTOCOL_VIOLATION), "{limit}");
                }
            }
        }
    }

    #[test]
    fn a_request_for_a_certificate_is_refused_at_its_header() {
        //= rfc9001#4.4-3 type=test
        let bytes = [ticket(&[]), vec![13, 0, 1, 0]].concat();
        assert_eq!(read(&bytes, 1).err().map(|v| v.code), Some(TransportCode::PROTOCOL_VIOLATION));
        assert!(read(&bytes[..bytes.len() - 1], 1).is_ok(), "without its length it is none yet");
    }

    #[test]
    fn what_is_malformed_or_too_long_is_left_to_others() {
        let whole = ticket(&early(5));
        for cut in 4..whole.len() {
            let cut = message(4, &whole[4..cut]);
            assert!(read(&cut, 1000).is_ok(), "{cut:02x?}");
        }
        let mut post = PostHandshake::default();
        for _ in 0..100 {
            // A message of 16 MiB: none of it is kept.
            post.read(&[4, 0xff, 0xff, 0xff, 0, 0]).unwrap();
            assert_eq!(post.begun.len(), 0);
        }
        post.read(&[24, 0, 0, 1]).unwrap();
        assert_eq!(post.begun.len(), 4, "a message that goes on");
    }
}
