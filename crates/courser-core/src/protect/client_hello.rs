//! A small total parser for the first message of a TLS client.
//!
//! A server needs a few things before it creates a TLS session: whether the ClientHello is all there, the transport
//! parameters (for the versions that the client speaks), the server name and the application protocols. Nothing here
//! replaces the checks of the TLS session, which reads the same bytes again; what is refused here would be refused
//! there.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use crate::error::{PeerViolation, TransportCode};

/// The longest ClientHello that is waited for, header included, in bytes.
pub const CLIENT_HELLO_MAX: usize = 16 * 1024;

/// Handshake type of a ClientHello.
pub(crate) const CLIENT_HELLO: u8 = 1;
/// Extension types.
pub(crate) const EXT_SERVER_NAME: u16 = 0;
pub(crate) const EXT_ALPN: u16 = 16;
pub(crate) const EXT_EARLY_DATA: u16 = 42;
pub(crate) const EXT_TRANSPORT_PARAMS: u16 = 57;

/// What is told to the peer when the message cannot be parsed; TLS alert decode_error.
const DECODE_ERROR: u8 = 50;
const UNEXPECTED_MESSAGE: u8 = 10;
const ILLEGAL_PARAMETER: u8 = 47;

/// What a ClientHello says, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHelloInfo<'a> {
    /// Length of the message, its header included.
    pub len: usize,
    /// The client's random bytes.
    pub random: &'a [u8],
    /// The legacy session ID; empty in QUIC (RFC 9001 section 8.4).
    pub session_id: &'a [u8],
    /// The host name of the server_name extension; `None` when it is missing or no text.
    pub server_name: Option<&'a str>,
    /// The application protocols in the client's order of preference.
    pub alpn: AlpnList<'a>,
    /// The body of the quic_transport_parameters extension.
    pub transport_params: Option<&'a [u8]>,
    /// Whether the client announces 0-RTT.
    pub early_data: bool,
}

/// The protocols of an ALPN extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlpnList<'a>(&'a [u8]);

impl<'a> AlpnList<'a> {
    /// The protocol names; none of them is empty.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = Cursor(self.0);
        // The list was checked when it was made, so nothing is cut off here.
        core::iter::from_fn(move || rest.vector8())
    }

    /// Whether the client named that protocol.
    #[must_use]
    pub fn contains(self, protocol: &[u8]) -> bool {
        self.iter().any(|p| p == protocol)
    }
}

/// Reads the ClientHello at the start of the CRYPTO data of the Initial level. `None` when more bytes are needed.
///
/// # Errors
/// The violation that ends the connection: the data is no ClientHello, is malformed, or is longer than
/// [`CLIENT_HELLO_MAX`].
pub fn parse_client_hello(bytes: &[u8]) -> Result<Option<ClientHelloInfo<'_>>, PeerViolation> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    if kind != CLIENT_HELLO {
        return Err(alert(UNEXPECTED_MESSAGE, "the first handshake message is no ClientHello"));
    }
    let &[_, a, b, c, ..] = bytes else { return Ok(None) };
    let body_len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let len = 4 + body_len;
    if len > CLIENT_HELLO_MAX {
        return Err(PeerViolation::new(
            TransportCode::CRYPTO_BUFFER_EXCEEDED,
            "the ClientHello is too long",
            "rfc9000#7.5",
        ));
    }
    match bytes.get(4..len) {
        None => Ok(None),
        Some(body) => match parse_body(body, len) {
            Some(result) => result.map(Some),
            None => Err(alert(DECODE_ERROR, "the ClientHello is malformed")),
        },
    }
}

fn alert(code: u8, reason: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::tls_alert(code), reason, "rfc8446#4.1.2")
}

/// `None` when the structure is broken.
fn parse_body(body: &[u8], len: usize) -> Option<Result<ClientHelloInfo<'_>, PeerViolation>> {
    let mut c = Cursor(body);
    let _legacy_version = c.take(2)?;
    let random = c.take(32)?;
    let session_id = c.vector8()?;
    let suites = c.vector16()?;
    let compressions = c.vector8()?;
    if session_id.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return None;
    }
    let mut info = ClientHelloInfo {
        len,
        random,
        session_id,
        server_name: None,
        alpn: AlpnList::default(),
        transport_params: None,
        early_data: false,
    };
    if c.0.is_empty() {
        // Clients before TLS 1.2 sent no extensions; TLS will refuse the version.
        return Some(Ok(info));
    }
    let mut extensions = Cursor(c.vector16()?);
    if !c.0.is_empty() {
        return None;
    }
    let mut seen = Seen::default();
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        if seen.again(kind) {
            return Some(Err(alert(ILLEGAL_PARAMETER, "an extension of the ClientHello is there twice")));
        }
        match kind {
            EXT_SERVER_NAME => info.server_name = parse_server_name(data)?,
            EXT_ALPN => info.alpn = parse_alpn(data)?,
            EXT_TRANSPORT_PARAMS => info.transport_params = Some(data),
            EXT_EARLY_DATA => info.early_data = true,
            _ => {}
        }
    }
    Some(Ok(info))
}

/// Which of the extensions that are read here were there already; the TLS session checks the others.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn again(&mut self, kind: u16) -> bool {
        let bit = match kind {
            EXT_SERVER_NAME => 1,
            EXT_ALPN => 2,
            EXT_TRANSPORT_PARAMS => 4,
            EXT_EARLY_DATA => 8,
            _ => return false,
        };
        let again = self.0 & bit != 0;
        self.0 |= bit;
        again
    }
}

/// The outer `None` means malformed, the inner one that there is no host name.
fn parse_server_name(data: &[u8]) -> Option<Option<&str>> {
    let mut c = Cursor(data);
    let mut names = Cursor(c.vector16()?);
    if !c.0.is_empty() || names.0.is_empty() {
        return None;
    }
    let mut host = None;
    while !names.0.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?;
        if kind == 0 && host.is_none() {
            host = core::str::from_utf8(name).ok().filter(|n| !n.is_empty());
        }
    }
    Some(host)
}

fn parse_alpn(data: &[u8]) -> Option<AlpnList<'_>> {
    let mut c = Cursor(data);
    let list = c.vector16()?;
    let mut rest = Cursor(list);
    while !rest.0.is_empty() {
        if rest.vector8()?.is_empty() {
            return None;
        }
    }
    (c.0.is_empty() && !list.is_empty()).then_some(AlpnList(list))
}

/// The bytes that are not read yet.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|b| u16::from_be_bytes(*b))
    }

    pub(crate) fn vector8(&mut self) -> Option<&'a [u8]> {
        let n = self.u8()?;
        self.take(usize::from(n))
    }

    pub(crate) fn vector16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello with these extensions.
    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut ext = Vec::new();
        for (kind, data) in extensions {
            ext.extend(kind.to_be_bytes());
            ext.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            ext.extend(data);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16::try_from(ext.len()).unwrap().to_be_bytes());
        body.extend(ext);
        let mut message = vec![CLIENT_HELLO];
        message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    fn sni(name: &[u8]) -> (u16, Vec<u8>) {
        let n = u16::try_from(name.len()).unwrap();
        let mut data = (n + 3).to_be_bytes().to_vec();
        data.push(0);
        data.extend(n.to_be_bytes());
        data.extend(name);
        (EXT_SERVER_NAME, data)
    }

    fn full() -> Vec<u8> {
        hello(&[
            sni(b"example.org"),
            (0x0a0a, vec![]),
            (EXT_ALPN, b"\0\x06\x02h3\x02hq".to_vec()),
            (EXT_TRANSPORT_PARAMS, vec![1, 2, 3]),
            (EXT_EARLY_DATA, vec![]),
        ])
    }

    #[test]
    fn everything_that_matters_is_found() {
        let mut bytes = full();
        let len = bytes.len();
        bytes.extend(b"more");
        let info = parse_client_hello(&bytes).unwrap().unwrap();
        assert_eq!(info.len, len);
        assert_eq!(info.random, [7; 32]);
        assert_eq!(info.server_name, Some("example.org"));
        assert_eq!(info.alpn.iter().collect::<Vec<_>>(), [b"h3", b"hq"]);
        assert!(info.alpn.contains(b"hq") && !info.alpn.contains(b"h"));
        assert_eq!(info.transport_params, Some(&[1_u8, 2, 3][..]));
        assert!(info.early_data && info.session_id.is_empty());
    }

    #[test]
    fn a_part_of_a_hello_asks_for_more() {
        let bytes = full();
        for n in 0..bytes.len() {
            assert_eq!(parse_client_hello(&bytes[..n]), Ok(None), "{n} bytes");
        }
    }

    #[test]
    fn a_hello_beyond_the_limit_is_refused_at_its_first_bytes() {
        let at = |len: usize| {
            let n = u32::try_from(len - 4).unwrap().to_be_bytes();
            parse_client_hello(&[CLIENT_HELLO, n[1], n[2], n[3]]).map(|info| info.is_some())
        };
        assert_eq!(at(CLIENT_HELLO_MAX), Ok(false));
        assert_eq!(at(CLIENT_HELLO_MAX + 1).unwrap_err().code, TransportCode::CRYPTO_BUFFER_EXCEEDED);
    }

    #[test]
    fn other_messages_and_broken_ones_get_their_alert() {
        let code = |bytes: &[u8]| parse_client_hello(bytes).unwrap_err().code.alert();
        assert_eq!(code(&[2]), Some(UNEXPECTED_MESSAGE));
        assert_eq!(code(&[1, 0, 0, 1, 3]), Some(DECODE_ERROR));
        let twice = hello(&[(EXT_TRANSPORT_PARAMS, vec![]), (EXT_TRANSPORT_PARAMS, vec![])]);
        assert_eq!(code(&twice), Some(ILLEGAL_PARAMETER));
        for bad in [b"\0\x01\x00".to_vec(), b"\0\x02\x02h".to_vec(), b"\0\0".to_vec(), b"\0\x03\x02h3x".to_vec()] {
            assert_eq!(code(&hello(&[(EXT_ALPN, bad.clone())])), Some(DECODE_ERROR), "{bad:?}");
        }
        let mut long = full();
        // The extension list claims one byte more than there is.
        long[4 + 2 + 32 + 7 + 1] += 1;
        assert_eq!(code(&long), Some(DECODE_ERROR));
    }

    #[test]
    fn a_name_that_is_no_text_is_no_name() {
        let bytes = hello(&[sni(&[0xff, 0xfe])]);
        assert_eq!(parse_client_hello(&bytes).unwrap().unwrap().server_name, None);
    }

    #[test]
    fn the_corpus_is_parsed_or_refused() {
        let mut complete = 0;
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/client-hello");
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some() {
                continue;
            }
            files += 1;
            let bytes = std::fs::read(path).unwrap();
            complete += usize::from(matches!(parse_client_hello(&bytes), Ok(Some(_))));
        }
        assert_eq!(files, 22);
        assert!(complete >= 1, "at least the well-formed one");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            fix in any::<bool>(),
        ) {
            if fix && bytes.len() > 4 {
                let n = u32::try_from(bytes.len() - 4).unwrap().to_be_bytes();
                bytes[..4].copy_from_slice(&[CLIENT_HELLO, n[1], n[2], n[3]]);
            }
            if let Ok(Some(info)) = parse_client_hello(&bytes) {
                prop_assert!(info.len <= bytes.len());
            }
        }

        #[test]
        fn a_changed_byte_is_parsed_or_refused(at in 0_usize..130, to in any::<u8>()) {
            let mut bytes = full();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = parse_client_hello(&bytes);
        }
    }
}
