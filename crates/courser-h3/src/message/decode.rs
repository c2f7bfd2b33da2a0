//! Field lines become messages.
//!
//! A [`Collector`] is told each field line as it is decoded. It never stops the decoder: a fault is remembered, and the rest is
//! only looked at, so that the state of QPACK stays right. Its buffers are kept from message to message.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::ops::Range;

use bytes::Bytes;
use courser_core::stream::Priority;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, request, response};

use super::{Protocol, is_connection_specific, is_token, parse_length};
use crate::priority;
use crate::qpack::Field;

/// Which kind of field section is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The head of a request.
    Request,
    /// The head of a response.
    Response,
    /// Trailers of either.
    Trailers,
}

/// What a head says about the message besides its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The declared length of the content.
    pub content_length: Option<u64>,
    /// Whether `:protocol` was there: an extended CONNECT.
    pub extended: bool,
    /// What the Priority field says, when it is there and understood.
    pub priority: Option<Priority>,
}

/// A line whose value lies in the buffer.
#[derive(Debug)]
struct Line {
    name: HeaderName,
    value: Range<usize>,
    sensitive: bool,
}

/// Gathers the field lines of one section.
#[derive(Debug, Default)]
pub struct Collector {
    section: Option<Section>,
    values: Vec<u8>,
    lines: Vec<Line>,
    /// How many lines are cookies; more than one are joined.
    cookies: usize,
    /// The first thing that was wrong.
    fault: Option<&'static str>,
    /// Pseudo-header fields come before the others.
    regular: bool,
    method: Option<Range<usize>>,
    scheme: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    path: Option<Range<usize>>,
    protocol: Option<Range<usize>>,
    status: Option<StatusCode>,
    content_length: Option<u64>,
    host: Option<Range<usize>>,
    /// Whether capsules are announced: by one field, no more.
    capsules: Option<bool>,
    priority: Option<Priority>,
    /// The authority of the request before: most often it is that of the next one.
    known: Option<Authority>,
}

/// Why a message is malformed.
pub type Fault = &'static str;

impl Collector {
    /// Begins a section; what was gathered before is gone.
    pub fn begin(&mut self, section: Section) {
        let (mut values, mut lines) = (std::mem::take(&mut self.values), std::mem::take(&mut self.lines));
        values.clear();
        lines.clear();
        let known = self.known.take();
        *self = Self { section: Some(section), values, lines, known, ..Self::default() };
    }

    /// The next field line.
    pub fn field(&mut self, field: Field<'_>) {
        if self.fault.is_some() {
            return;
        }
        let done = if field.name.first() == Some(&b':') { self.pseudo(field) } else { self.regular(field) };
        self.fault = done.err();
    }

    fn keep(&mut self, value: &[u8]) -> Range<usize> {
        let start = self.values.len();
        self.values.extend_from_slice(value);
        start..self.values.len()
    }

    fn pseudo(&mut self, field: Field<'_>) -> Result<(), Fault> {
        //= rfc9114#4.3-5, rfc9114#4.3-6
        if self.regular {
            return Err("a pseudo-header field behind other fields");
        }
        //= rfc9114#4.3-2, rfc9114#4.3-3, rfc9114#4.3-4
        if self.section == Some(Section::Response) {
            if field.name != b":status" {
                return Err("a pseudo-header field that responses do not have");
            }
            let status = StatusCode::from_bytes(field.value).map_err(|_| "a status that is none")?;
            if self.status.replace(status).is_some() {
                return Err("two statuses");
            }
            return Ok(());
        }
        if self.section != Some(Section::Request) {
            return Err("a pseudo-header field in trailers");
        }
        let value = self.keep(field.value);
        let slot = match field.name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err("a pseudo-header field that requests do not have"),
        };
        //= rfc9114#4.3.1-6
        if slot.replace(value).is_some() {
            return Err("a pseudo-header field that comes twice");
        }
        Ok(())
    }

    fn regular(&mut self, field: Field<'_>) -> Result<(), Fault> {
        self.regular = true;
        //= rfc9114#10.3-1, rfc9114#4.2-2
        // The library takes quotation marks, too, which no token has (RFC 9110 section 5.6.2).
        let name = HeaderName::from_lowercase(field.name)
            .ok()
            .filter(|_| !field.name.contains(&b'"'))
            .ok_or("a field name with a character that is not permitted")?;
        //= rfc9114#4.2-3, rfc9114#4.1-5
        if is_connection_specific(field.name) {
            return Err("a field that belongs to a connection of HTTP/1.1");
        }
        //= rfc9114#10.3-2
        let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        if blank(field.value.first()) || blank(field.value.last()) {
            return Err("a field value that begins or ends with a blank");
        }
        if name == header::TE {
            //= rfc9114#4.2-4
            if self.section != Some(Section::Request) || !field.value.eq_ignore_ascii_case(b"trailers") {
                return Err("a TE field that says more than trailers");
            }
        } else if name == header::CONTENT_LENGTH {
            if self.section == Some(Section::Trailers) {
                return Err("a length in trailers");
            }
            let length = parse_length(field.value).ok_or("a content length that is no number")?;
            if self.content_length.replace(length).is_some() {
                return Err("two content lengths");
            }
        } else if name == header::COOKIE {
            self.cookies += 1;
        }
        let value = self.keep(field.value);
        match field.name {
            b"host" if self.host.replace(value.clone()).is_some() => return Err("two hosts"),
            b"priority" if self.priority.is_none() => self.priority = priority::parse(field.value),
            //= rfc9297#3.4-1
            b"capsule-protocol" => {
                let first = self.capsules.is_none();
                self.capsules = Some(first && crate::capsule::is_announced_by(field.value));
            }
            _ => {}
        }
        self.lines.push(Line { name, value, sensitive: field.sensitive });
        Ok(())
    }

    /// The request that was gathered. `extended` says whether this end offered extended CONNECT.
    ///
    /// # Errors
    /// Why it is malformed.
    pub fn request(&mut self, extended: bool) -> Result<(request::Parts, Facts), Fault> {
        debug_assert_eq!(self.section, Some(Section::Request));
        self.check()?;
        let whole = self.join();
        let part = |range: &Option<Range<usize>>| range.as_ref().map(|r| whole.slice(r.clone()));
        let method = self.method.as_ref().ok_or("no method")?;
        let method = Method::from_bytes(whole.get(method.clone()).unwrap_or_default())
            .map_err(|_| "a method that is no token")?;
        let headers = self.headers(&whole)?;
        let target = Target {
            scheme: part(&self.scheme),
            authority: part(&self.authority),
            path: part(&self.path),
            host: part(&self.host),
            known: &mut self.known,
        };
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let protocol = part(&self.protocol);
        parts.uri = match (&method, &protocol) {
            (_, Some(_)) if !extended => return Err("an extended CONNECT, which was not offered"),
            (&Method::CONNECT, None) => target.tunnel()?,
            (&Method::CONNECT, Some(_)) | (_, None) => target.resource(&method)?,
            (_, Some(_)) => return Err("a protocol without CONNECT"),
        };
        if let Some(protocol) = protocol {
            parts.extensions.insert(Protocol::from_bytes(protocol).ok_or("a protocol that is no token")?);
        }
        let facts = self.facts();
        self.check_capsules(&headers, None)?;
        parts.version = http::Version::HTTP_3;
        parts.method = method;
        parts.headers = headers;
        Ok((parts, facts))
    }

    /// The response that was gathered.
    ///
    /// # Errors
    /// Why it is malformed.
    pub fn response(&mut self) -> Result<(response::Parts, Facts), Fault> {
        debug_assert_eq!(self.section, Some(Section::Response));
        self.check()?;
        //= rfc9114#4.3.2-1
        let status = self.status.ok_or("no status")?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err("HTTP/3 does not switch protocols");
        }
        let whole = self.join();
        let headers = self.headers(&whole)?;
        let facts = self.facts();
        self.check_capsules(&headers, Some(status))?;
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.version = http::Version::HTTP_3;
        parts.status = status;
        parts.headers = headers;
        Ok((parts, facts))
    }

    /// The trailers that were gathered.
    ///
    /// # Errors
    /// Why they are malformed.
    pub fn trailers(&mut self) -> Result<HeaderMap, Fault> {
        debug_assert_eq!(self.section, Some(Section::Trailers));
        self.check()?;
        let whole = self.join();
        self.headers(&whole)
    }

    fn facts(&self) -> Facts {
        Facts { content_length: self.content_length, extended: self.protocol.is_some(), priority: self.priority }
    }

    /// Messages that use capsules have no length and no type, and responses not every status (RFC 9297 section 3.2).
    //= rfc9297#3.2-4, rfc9297#3.2-5, rfc9297#3.2-6
    fn check_capsules(&self, headers: &HeaderMap, status: Option<StatusCode>) -> Result<(), Fault> {
        // A response that refuses to switch may have what content it likes; the field means nothing there.
        let switched = status.is_none_or(|s| s.is_success());
        if self.capsules != Some(true) || !switched {
            return Ok(());
        }
        if self.content_length.is_some() || headers.contains_key(header::CONTENT_TYPE) {
            return Err("capsules in a message with a length or type of its own");
        }
        if status.is_some_and(|s| matches!(s.as_u16(), 204..=206)) {
            return Err("capsules with a status that has none");
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }

    /// All values in one piece. Cookies that came in several lines become one, at the end (RFC 9114 section 4.2.1).
    //= rfc9114#4.2.1-1
    fn join(&mut self) -> Bytes {
        if self.cookies > 1 {
            let (mut joined, mut sensitive) = (Vec::new(), false);
            let values = &self.values;
            self.lines.retain(|line| {
                let cookie = line.name == header::COOKIE;
                if cookie {
                    if !joined.is_empty() {
                        joined.extend_from_slice(b"; ");
                    }
                    joined.extend_from_slice(values.get(line.value.clone()).unwrap_or_default());
                    sensitive |= line.sensitive;
                }
                !cookie
            });
            let value = self.keep(&joined);
            self.lines.push(Line { name: header::COOKIE, value, sensitive });
            self.cookies = 1;
        }
        Bytes::copy_from_slice(&self.values)
    }

    fn headers(&mut self, whole: &Bytes) -> Result<HeaderMap, Fault> {
        let mut headers = HeaderMap::with_capacity(self.lines.len());
        for Line { name, value, sensitive } in self.lines.drain(..) {
            //= rfc9114#10.3-2
            let mut value = HeaderValue::from_maybe_shared(whole.slice(value))
                .map_err(|_| "a field value with a character that is not permitted")?;
            value.set_sensitive(sensitive);
            headers.try_append(name, value).map_err(|_| "more fields than a map holds")?;
        }
        Ok(headers)
    }
}

/// What a request is for, as its fields say.
struct Target<'a> {
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    host: Option<Bytes>,
    known: &'a mut Option<Authority>,
}

impl Target<'_> {
    /// The target of a plain CONNECT: a host and a port (RFC 9114 section 4.4).
    //= rfc9114#4.4-1
    fn tunnel(self) -> Result<Uri, Fault> {
        if self.scheme.is_some() || self.path.is_some() {
            return Err("a CONNECT with a scheme or path");
        }
        let bytes = self.authority.ok_or("a CONNECT to nowhere")?;
        if self.host.is_some_and(|host| host != bytes) {
            return Err("a host that differs from the authority");
        }
        let authority = authority(bytes, self.known)?;
        if authority.port_u16().is_none() {
            return Err("a CONNECT without a port");
        }
        let mut parts = http::uri::Parts::default();
        parts.authority = Some(authority);
        Uri::from_parts(parts).map_err(|_| "a target that is none")
    }

    /// The target of every other request.
    fn resource(self, method: &Method) -> Result<Uri, Fault> {
        let scheme = scheme(&self.scheme.ok_or("no scheme")?)?;
        let path = self.path.ok_or("no path")?;
        //= rfc9114#4.3.1-5
        let good = match path.first() {
            Some(b'/') => true,
            Some(b'*') => path.len() == 1 && method == Method::OPTIONS,
            _ => false,
        };
        // The parser would cut a fragment off without a word, and take what is no ASCII.
        if !good || path.iter().any(|b| !matches!(b, 0x21..=0x7e) || *b == b'#') {
            return Err("a path that is none");
        }
        //= rfc9114#4.3.1-9
        if let (Some(authority), Some(host)) = (&self.authority, &self.host)
            && authority != host
        {
            return Err("a host that differs from the authority");
        }
        //= rfc9114#4.3.1-7, rfc9114#4.3.1-8
        let bytes = self.authority.or(self.host);
        let needed = scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
        let mut parts = http::uri::Parts::default();
        match bytes {
            None if needed => return Err("neither authority nor host"),
            None => {}
            Some(bytes) => parts.authority = Some(authority(bytes, self.known)?),
        }
        if parts.authority.is_some() {
            parts.scheme = Some(scheme);
        }
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| "a path that is none")?);
        Uri::from_parts(parts).map_err(|_| "a target that is none")
    }
}

fn scheme(bytes: &[u8]) -> Result<Scheme, Fault> {
    match bytes {
        b"https" => Ok(Scheme::HTTPS),
        b"http" => Ok(Scheme::HTTP),
        // The parser takes what RFC 3986 does not.
        [first, rest @ ..]
            if first.is_ascii_alphabetic()
                && rest.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
        {
            Scheme::try_from(bytes).map_err(|_| "a scheme that is none")
        }
        _ => Err("a scheme that is none"),
    }
}

/// An authority without user information.
//= rfc9114#4.3.1-1, rfc9114#4.3.1-8
fn authority(bytes: Bytes, known: &mut Option<Authority>) -> Result<Authority, Fault> {
    if let Some(known) = known.as_ref().filter(|known| known.as_str().as_bytes() == bytes) {
        return Ok(known.clone());
    }
    let printable = |b: &u8| is_token(*b) || b":[](),;=@".contains(b);
    if bytes.is_empty() || bytes.contains(&b'@') || !bytes.iter().all(printable) {
        return Err("an authority that is none, or with user information");
    }
    let authority = Authority::from_maybe_shared(bytes).map_err(|_| "an authority that is none")?;
    let host = authority.host();
    if host.is_empty() {
        return Err("an authority without a host");
    }
    // The parser takes any text behind the colon.
    let port = authority.as_str().get(host.len()..).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
    let no_colon = authority.as_str().len() == host.len();
    if !(no_colon || (port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))) {
        return Err("an authority with a port that is none");
    }
    // As an allocation of its own: the one of the message would stay with it.
    *known = Authority::from_maybe_shared(Bytes::copy_from_slice(authority.as_str().as_bytes())).ok();
    Ok(authority)
}
