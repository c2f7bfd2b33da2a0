//! What a server adds to responses: length and date.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue};
use http::{StatusCode, response};
use http_body::Body;

/// What `content-length` says, when it is a number.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Adds `content-length` when the body knows it (RFC 9110 section 8.6) and `date` (section 6.6.1), unless they are there.
pub(super) fn complete(head: &mut response::Parts, body: &impl Body, is_connect: bool) {
    let status = head.status;
    let no_length = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || is_connect && status.is_success();
    if !no_length
        && !head.headers.contains_key(CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, date());
    }
}

/// The time as HTTP writes it, made once a second in each thread.
fn date() -> HeaderValue {
    thread_local! {
        static NOW: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    NOW.with_borrow_mut(|(second, text)| {
        if *second != since || text.is_empty() {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
            *text = HeaderValue::try_from(httpdate::fmt_http_date(at)).unwrap_or(HeaderValue::from_static(""));
            *second = since;
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::h3::Full;

    fn completed(status: u16, body: &'static str, is_connect: bool) -> HeaderMap {
        let (mut head, body) = Response::builder().status(status).body(Full::from(body)).unwrap().into_parts();
        complete(&mut head, &body, is_connect);
        head.headers
    }

    #[test]
    fn length_and_date_are_added_where_they_belong() {
        assert_eq!(completed(200, "four", false)[CONTENT_LENGTH], "4");
        assert_eq!(completed(404, "", false)[CONTENT_LENGTH], "0");
        assert!(completed(200, "", false)[DATE].to_str().unwrap().ends_with(" GMT"));
        for (status, is_connect) in [(204, false), (304, false), (103, false), (200, true)] {
            assert!(!completed(status, "", is_connect).contains_key(CONTENT_LENGTH), "{status}");
        }
    }

    #[test]
    fn what_the_application_says_stays() {
        let (mut head, body) = Response::builder()
            .header(CONTENT_LENGTH, "9")
            .header(DATE, "then")
            .body(Full::from(""))
            .unwrap()
            .into_parts();
        complete(&mut head, &body, false);
        assert_eq!(
            (&head.headers[CONTENT_LENGTH], &head.headers[DATE]),
            (&"9".parse().unwrap(), &"then".parse().unwrap())
        );
    }
}
