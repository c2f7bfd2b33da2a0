//! Messages become field lines.
//!
//! Each function gives the lines to a caller's closure-free iterator, so that the QPACK encoder takes them one by one and
//! nothing is gathered in between. Fields of connections of HTTP/1.1 are left out, with those that a Connection field names.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, request};

use super::{Protocol, is_connection_specific, parse_length};
use crate::qpack::Field;

/// What has to be known of a map before its lines are written: found in one pass, because look-ups by name cost more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outline<'a> {
    /// Its size as the peer counts it, with lines that are left out.
    size: u64,
    /// The first Content-Length.
    length: Option<&'a [u8]>,
    /// The first Host.
    host: Option<&'a [u8]>,
    /// The first Priority.
    pub priority: Option<&'a [u8]>,
    /// There is a Connection field, which may name others.
    connection: bool,
}

impl<'a> Outline<'a> {
    /// The outline of a map.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut outline = Self::default();
        for (name, value) in headers {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            outline.size += crate::wide(name.len() + value.len() + 32);
            match name {
                b"host" => outline.host = outline.host.or(Some(value)),
                b"priority" => outline.priority = outline.priority.or(Some(value)),
                b"connection" => outline.connection = true,
                b"content-length" => outline.length = outline.length.or(Some(value)),
                _ => {}
            }
        }
        outline
    }

    /// The size of the map's lines as a peer counts it, with those that are left out: never less than that of the section
    /// without its pseudo-header fields.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The length of the content that the head declares.
    ///
    /// # Errors
    /// It is no number.
    pub fn content_length(&self) -> Result<Option<u64>, &'static str> {
        let number = |value| parse_length(value).ok_or("a Content-Length that is no number");
        self.length.map(number).transpose()
    }
}

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
    pub fn new(head: &'a request::Parts, outline: &Outline<'a>) -> Result<Self, &'static str> {
        let protocol = head.extensions.get::<Protocol>().map(Protocol::as_str);
        let connect = head.method == Method::CONNECT;
        if protocol.is_some() && !connect {
            return Err("a protocol is only asked for by CONNECT");
        }
        //= rfc9114#4.3.1-3
        let authority = outline.host.or_else(|| head.uri.authority().map(|a| without_user(a.as_str()).as_bytes()));
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
    pub fn lines(&'a self, headers: &'a HeaderMap, outline: &Outline<'_>) -> impl Iterator<Item = Field<'a>> {
        self.pseudo().chain(regular(headers, true, outline.connection))
    }

    /// The pseudo-header fields alone.
    pub fn pseudo(&'a self) -> impl Iterator<Item = Field<'a>> {
        let pseudo = [
            Some(Field::new(b":method", self.method.as_bytes())),
            self.scheme.map(|s| Field::new(b":scheme", s.as_bytes())),
            self.authority.map(|a| Field::new(b":authority", a)),
            self.path.as_ref().map(|p| Field::new(b":path", p.as_bytes())),
            self.protocol.map(|p| Field::new(b":protocol", p.as_bytes())),
        ];
        pseudo.into_iter().flatten()
    }
}

/// An authority without the part in front of an `@`.
fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// The lines of a response.
//= rfc9114#4.3.2-1
pub fn response_lines<'a>(
    status: &'a StatusCode,
    headers: &'a HeaderMap,
    outline: &Outline<'_>,
) -> impl Iterator<Item = Field<'a>> {
    std::iter::once(Field::new(b":status", status.as_str().as_bytes())).chain(regular(
        headers,
        false,
        outline.connection,
    ))
}

/// The lines of trailers.
pub fn trailer_lines(trailers: &HeaderMap) -> impl Iterator<Item = Field<'_>> {
    let named = trailers.contains_key(header::CONNECTION);
    regular(trailers, false, named).filter(|field| field.name != b"content-length")
}

/// The lines of a map that have a place in HTTP/3.
//= rfc9114#4.2-1, rfc9114#4.2-3, rfc9114#4.1-5, rfc9114#4.2-5
/// `named` says whether there is a Connection field, which may name others.
fn regular(headers: &HeaderMap, request: bool, named: bool) -> impl Iterator<Item = Field<'_>> {
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
