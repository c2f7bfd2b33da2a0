//! Messages: requests, responses and trailers of the `http` crate as field lines, and back, with every rule about them
//! (RFC 9114 sections 4.2 to 4.4, RFC 9220).
//!
//! Reading is strict, because leniency here is how requests are smuggled past intermediaries: [`decode::Collector`] takes the
//! field lines as they are decoded and remembers the first fault; a message with a fault is malformed. Values are gathered in
//! one buffer, and those of the finished message are slices of one allocation. Writing is by [`encode`]: fields that have no
//! place in HTTP/3 are left out, so that a message that came over HTTP/1.1 can be passed on.

use bytes::Bytes;

pub mod decode;
pub mod encode;

#[cfg(test)]
mod tests;

/// What an extended CONNECT asks for (RFC 9220): an extension of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(Bytes);

impl Protocol {
    /// A protocol by its name in the registry of upgrade tokens; `None` when it is no token.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        Self::from_bytes(Bytes::copy_from_slice(name.as_bytes()))
    }

    /// The same for bytes.
    #[must_use]
    pub fn from_bytes(name: Bytes) -> Option<Self> {
        (!name.is_empty() && name.iter().all(|b| is_token(*b) || *b == b'/')).then_some(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Tokens are ASCII; the constructors see to it.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Whether a field belongs to one connection and has no place in HTTP/3 (RFC 9114 section 4.2). `te` has, with one value.
pub(crate) fn is_connection_specific(name: &[u8]) -> bool {
    match name.len() {
        7 => name == b"upgrade",
        10 => name == b"connection" || name == b"keep-alive",
        16 => name == b"proxy-connection",
        17 => name == b"transfer-encoding",
        _ => false,
    }
}

/// A Content-Length: digits only, at most 2^62 - 1.
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let digit = |n: u64, b: &u8| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0'));
    value.iter().try_fold(0, digit).filter(|n| *n <= courser_core::ids::VARINT_MAX)
}
