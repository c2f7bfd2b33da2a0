//! What a server adds to responses: length and date.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue};
use http::{Method, StatusCode, response};
use http_body::Body;

/// What `content-length` says, when it is a number.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Adds `content-length` when the body knows it (RFC 9110 section 8.6) and `date` (section 6.6.1), unless they are there.
/// Takes a length out where none may stand, or where it would be that of a body which is left out.
pub(super) fn complete(head: &mut response::Parts, body: &impl Body, method: &Method) {
    let status = head.status;
    let bodiless = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless || (*method == Method::CONNECT && status.is_success()) {
        head.headers.remove(CONTENT_LENGTH);
    } else if !head.headers.contains_key(CONTENT_LENGTH)
        // An empty body in answer to HEAD says nothing of what GET would give.
        && let Some(length) = body.size_hint().exact().filter(|length| *length > 0 || *method != Method::HEAD)
    {
        head.headers.insert(CONTENT_LENGTH, decimal(length));
    }
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, date());
    }
}

/// A number as a field value, with one allocation.
pub(super) fn decimal(mut number: u64) -> HeaderValue {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while at == digits.len() || number > 0 {
        at -= 1;
        // Below ten.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    HeaderValue::from_bytes(&digits[at..]).unwrap_or(HeaderValue::from_static("0"))
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

    fn completed(status: u16, body: &'static str, method: &Method) -> HeaderMap {
        let (mut head, body) = Response::builder().status(status).body(Full::from(body)).unwrap().into_parts();
        complete(&mut head, &body, method);
        head.headers
    }

    #[test]
    fn length_and_date_are_added_where_they_belong() {
        assert_eq!(completed(200, "four", &Method::GET)[CONTENT_LENGTH], "4");
        assert_eq!(completed(200, "four", &Method::HEAD)[CONTENT_LENGTH], "4");
        assert_eq!(completed(404, "", &Method::GET)[CONTENT_LENGTH], "0");
        assert!(completed(200, "", &Method::GET)[DATE].to_str().unwrap().ends_with(" GMT"));
        let without =
            [(204, Method::GET), (304, Method::GET), (103, Method::GET), (200, Method::CONNECT), (200, Method::HEAD)];
        for (status, method) in without {
            assert!(!completed(status, "", &method).contains_key(CONTENT_LENGTH), "{status} {method}");
        }
    }

    #[test]
    fn numbers_are_written_with_all_their_digits() {
        for number in [0, 7, 10, 909, u64::MAX] {
            assert_eq!(decimal(number), HeaderValue::from(number));
        }
    }

    #[test]
    fn what_the_application_says_stays_where_it_may() {
        let said = |status| {
            let response = Response::builder().status(status).header(CONTENT_LENGTH, "9").header(DATE, "then");
            let (mut head, body) = response.body(Full::from("")).unwrap().into_parts();
            complete(&mut head, &body, &Method::GET);
            (head.headers.remove(CONTENT_LENGTH), head.headers.remove(DATE))
        };
        assert_eq!(said(200), (Some("9".parse().unwrap()), Some("then".parse().unwrap())));
        assert_eq!(said(204), (None, Some("then".parse().unwrap())));
    }
}
