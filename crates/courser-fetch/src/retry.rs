//! When a job is tried again, and after how long.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method};

use crate::error::Error;

/// The longest rest that this client chooses by itself.
const REST_MAX: Duration = Duration::from_secs(60);
/// The longest rest that a server is granted; who wants more is not tried again.
const GRANTED_MAX: Duration = Duration::from_secs(300);

/// Whether two of the same requests do the same as one (RFC 9110 section 9.2.2).
#[must_use]
pub const fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE)
}

/// How long to rest before try number `done + 1`; none: it is no use.
#[must_use]
pub fn rest(error: &Error, method: &Method, done: u32, first: Duration) -> Option<Duration> {
    if !error.is_passing() || !(is_idempotent(method) || error.is_before_request()) {
        return None;
    }
    let own = first.saturating_mul(1 << done.saturating_sub(1).min(16)).min(REST_MAX);
    match error {
        Error::Status { retry_after: Some(wish), .. } => (*wish <= GRANTED_MAX).then(|| own.max(*wish)),
        _ => Some(own),
    }
}

/// The server's wish (RFC 9110 section 10.2.3): seconds, or a date.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        // A number too large for us is longer than we wait.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FIRST: Duration = Duration::from_secs(1);

    fn status(status: u16, after: Option<u64>) -> Error {
        Error::Status { status, retry_after: after.map(Duration::from_secs) }
    }

    #[test]
    fn rests_double_up_to_a_minute() {
        let rests: Vec<_> =
            (1..10).map(|n| rest(&status(503, None), &Method::GET, n, FIRST).unwrap().as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(rest(&status(503, None), &Method::GET, u32::MAX, FIRST), Some(REST_MAX));
    }

    #[test]
    fn the_servers_wish_counts_within_bounds() {
        assert_eq!(rest(&status(429, Some(20)), &Method::GET, 1, FIRST), Some(Duration::from_secs(20)));
        assert_eq!(rest(&status(429, Some(0)), &Method::GET, 2, FIRST), Some(Duration::from_secs(2)));
        assert_eq!(rest(&status(429, Some(301)), &Method::GET, 1, FIRST), None);
    }

    #[test]
    fn only_what_does_no_harm_is_done_twice() {
        let closed = |sent| Error::Closed { peer: "p".into(), why: "w".into(), sent };
        assert!(rest(&closed(true), &Method::PUT, 1, FIRST).is_some());
        assert!(rest(&closed(true), &Method::POST, 1, FIRST).is_none());
        assert!(rest(&closed(false), &Method::POST, 1, FIRST).is_some());
        assert!(rest(&status(503, None), &Method::POST, 1, FIRST).is_none());
        assert!(rest(&status(404, None), &Method::GET, 1, FIRST).is_none());
    }

    #[test]
    fn wishes_are_seconds_or_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let read = |text: &str| {
            let mut h = HeaderMap::new();
            h.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry_after(&h, now).map(|d| d.as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(&httpdate::fmt_http_date(now + Duration::from_secs(90))), Some(90));
        assert_eq!(read(&httpdate::fmt_http_date(now - Duration::from_secs(90))), Some(0));
        assert_eq!(read("99999999999999999999999"), Some(u64::from(u32::MAX)));
        for bad in ["", "-1", "soon", "1.5"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
