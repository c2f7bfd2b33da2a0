//! Messages become field lines.
//!
//! Each function gives the lines to a caller's closure-free iterator, so that the QPACK encoder takes them one by one and
//! nothing is gathered in between. Fields of connections of HTTP/1.1 are left out, with those that a Connection field names.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, request};

use super::{Protocol, is_connection_specific, parse_length};
use crate::qpack::Field;

/// The pseudo-header fields of a request.
#[derive(Debug)]
pub struct RequestLine<'a> {
    method: &'a str,
    scheme: Option<&'a str>,
    authority: Option<&'a [u8]>,
    path: Option<Cow<'a, str>>,
    protocol: Option<&'a str>,
}

impl<'a> RequestLine<'a> {
    /// The pseudo-header fields for a request's head.
    ///
    /// # Errors
    /// What the request lacks to be one.
    pub fn new(head: &'a request::Parts) -> Result<Self, &'static str> {
        let protocol = head.extensions.get::<Protocol>().map(Protocol::as_str);
        let connect = head.method == Method::CONNECT;
        if protocol.is_some() && !connect {
            return Err("a protocol is only asked for by CONNECT");
        }
        //= rfc9114#4.3.1-3
        let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
        let authority = host.or_else(|| head.uri.authority().map(|a| without_user(a.as_str()).as_bytes()));
        if connect && protocol.is_none() {
            let to = authority.ok_or("a CONNECT without an authority")?;
            if !to.contains(&b':') {
                return Err("a CONNECT without a port");
            }
            //= rfc9114#4.4-1
            return Ok(Self { method: "CONNECT", scheme: None, authority: Some(to), path: None, protocol: None });
        }
        let scheme = head.uri.scheme_str().unwrap_or("https");
        //= rfc9114#4.3.1-7, rfc9114#4.3.1-8
        if matches!(scheme, "http" | "https") && authority.is_none_or(<[u8]>::is_empty) {
            return Err("a request without an authority");
        }
        //= rfc9114#4.3.1-5
        let path = match head.uri.path_and_query().map_or("/", |p| p.as_str()) {
            "" => Cow::Borrowed("/"),
            path if path.starts_with(['/', '*']) => Cow::Borrowed(path),
            query => Cow::Owned(format!("/{query}")),
        };
        Ok(Self { method: head.method.as_str(), scheme: Some(scheme), authority, path: Some(path), protocol })
    }

    /// Whether this is an extended CONNECT.
    #[must_use]
    pub const fn is_extended(&self) -> bool {
        self.protocol.is_some()
    }

    /// The lines: first these, then those of `headers`.
    //= rfc9114#4.3-1, rfc9114#4.3-5
    pub fn lines(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = Field<'a>> {
        let pseudo = [
            Some(Field::new(b":method", self.method.as_bytes())),
            self.scheme.map(|s| Field::new(b":scheme", s.as_bytes())),
            self.authority.map(|a| Field::new(b":authority", a)),
            self.path.as_ref().map(|p| Field::new(b":path", p.as_bytes())),
            self.protocol.map(|p| Field::new(b":protocol", p.as_bytes())),
        ];
        pseudo.into_iter().flatten().chain(regular(headers, true))
    }
}

/// An authority without the part in front of an `@`.
fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// The lines of a response.
//= rfc9114#4.3.2-1
pub fn response_lines<'a>(status: &'a StatusCode, headers: &'a HeaderMap) -> impl Iterator<Item = Field<'a>> {
    std::iter::once(Field::new(b":status", status.as_str().as_bytes())).chain(regular(headers, false))
}

/// The lines of trailers.
pub fn trailer_lines(trailers: &HeaderMap) -> impl Iterator<Item = Field<'_>> {
    regular(trailers, false).filter(|field| field.name != b"content-length")
}

/// The lines of a map that have a place in HTTP/3.
//= rfc9114#4.2-1, rfc9114#4.2-3, rfc9114#4.1-5, rfc9114#4.2-5
fn regular(headers: &HeaderMap, request: bool) -> impl Iterator<Item = Field<'_>> {
    // Only messages that came over HTTP/1.1 have one; the others pay for one look-up.
    let named = headers.contains_key(header::CONNECTION);
    headers.iter().filter(move |(name, value)| fits(name, value, request) && !(named && is_named(headers, name))).map(
        |(name, value)| Field {
            name: name.as_str().as_bytes(),
            value: trim(value.as_bytes()),
            sensitive: value.is_sensitive(),
        },
    )
}

fn fits(name: &HeaderName, value: &HeaderValue, request: bool) -> bool {
    let bytes = name.as_str().as_bytes();
    match bytes.len() {
        //= rfc9114#4.2-4
        2 => bytes != b"te" || (request && value.as_bytes().eq_ignore_ascii_case(b"trailers")),
        // It stands in `:authority`.
        4 => !(request && bytes == b"host"),
        _ => !is_connection_specific(bytes),
    }
}

/// Whether a Connection field names the field.
fn is_named(headers: &HeaderMap, name: &HeaderName) -> bool {
    let names = |v: &HeaderValue| {
        v.as_bytes().split(|b| *b == b',').any(|n| trim(n).eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    headers.get_all(header::CONNECTION).iter().any(names)
}

/// A field value has no blanks at its ends.
fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// The size that a peer's limit counts: names, values, and 32 bytes per line (RFC 9114 section 4.2.2).
pub fn section_size<'a>(lines: impl Iterator<Item = Field<'a>>) -> u64 {
    lines.map(|f| crate::wide(f.name.len() + f.value.len() + 32)).sum()
}

/// The length of the content that the head declares.
///
/// # Errors
/// It is no number.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    parse_length(value.as_bytes()).map(Some).ok_or("a Content-Length that is no number")
}
