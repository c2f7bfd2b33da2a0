//! What peers write above HTTP: fields, and paths of requests.

use std::path::Component;
use std::time::{Duration, SystemTime};

use courser_fetch::alt_svc::parse::{Advice, advice};
use courser_fetch::{name, redirect};
use courser_web::files::coding::Coding;
use courser_web::files::condition::Version;
use courser_web::files::range::Asked;
use courser_web::files::resolve::Wanted;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use crate::texts::text;

pub(crate) const ALT_SVC_WORDS: &[&str] = &[
    "h3=",
    "\":443\"",
    "; ma=",
    ";persist=1",
    "clear",
    ",",
    "\\",
    "\"",
    "%68",
    "18446744073709551616",
    "h2",
    "a.example",
];
pub(crate) const PATH_WORDS: &[&str] =
    &["%2f", "%2e", "%00", "..", "/", "//", ".", "\\", "%5c", "%", ".well-known", "%e2%82", "é", "?", "#", "%7f"];
pub(crate) const FIELD_WORDS: &[&str] = &[
    "\n",
    "bytes=",
    "-",
    ",",
    "18446744073709551615",
    "\"1-2-3\"",
    "W/",
    "*",
    "gzip;q=0.5",
    "br",
    ";q=",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "https://",
    "//",
    "..",
    "?",
    "#",
    "@",
    ":",
    "http://",
    "\\",
    "%2e%2e",
];

/// The Alt-Svc field.
pub(crate) fn alt_svc(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Some(Advice::Use(found)) = advice(text.split('\n'), 60) else { return };
    assert!(found.len() <= 32);
    for a in found {
        assert!(a.port != 0 && a.max_age <= Duration::from_secs(30 * 86_400));
        assert!(a.host.is_none_or(|host| !host.is_empty() && host.len() <= 255 && !host.contains(['/', '@'])));
    }
}

/// Paths of requests for files.
pub(crate) fn request_path(data: &[u8]) {
    let Some(text) = text(data) else { return };
    for hidden in [false, true] {
        let Ok(wanted) = Wanted::read(text, hidden) else { continue };
        let path = wanted.path();
        assert!(path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)), "{path:?}");
        assert!(path.is_relative());
        let again = wanted.uri(wanted.is_folder);
        assert_eq!(Wanted::read(&again, hidden).as_ref().map(Wanted::path), Ok(path), "{text:?}");
    }
}

/// Fields of requests that choose what of a file is sent; a line of the input is the value of one of them.
pub(crate) fn request_fields(data: &[u8]) {
    const NAMES: [HeaderName; 6] = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::ACCEPT_ENCODING,
    ];
    for (line, size) in data.split(|byte| *byte == b'\n').zip([0, 1, 1000, u64::MAX]) {
        if let Some(Asked::Parts(parts)) = text(line).map(|line| Asked::read(line, size)) {
            assert!(!parts.is_empty() && parts.iter().all(|(start, end)| start < end && *end <= size));
        }
    }
    let mut headers = HeaderMap::new();
    for (name, line) in NAMES.into_iter().cycle().zip(data.split(|byte| *byte == b'\n')).take(12) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let version = Version::of(1000, 7, changed, changed + Duration::from_secs(86_400));
    let _ = (version.judge(&headers, true), version.judge(&headers, false), version.permits_range(&headers));
    assert!(Coding::accepted(&headers).count() <= 3);
}

/// Where answers lead, and what files are called that come from there.
pub(crate) fn answer_fields(data: &[u8]) {
    let url = Url::parse("https://a.example/b/c?q#f").unwrap();
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(data) {
        headers.insert(header::LOCATION, value);
    }
    if let Ok(Some(hop)) = redirect::next(StatusCode::FOUND, &headers, &url, &Method::GET) {
        assert_eq!(hop.url.scheme(), "https");
        check_name(&name::for_url(&hop.url));
    }
    if let Some(text) = text(data) {
        check_name(&name::safe(text));
    }
}

/// A name that stays in its folder and does nothing odd there.
fn check_name(name: &str) {
    assert!(!name.is_empty() && name.len() <= 201 && !name.starts_with(['.', '-', '~']), "{name:?}");
    assert!(!name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control()), "{name:?}");
}
