//! Where an answer points (RFC 9110 section 15.4), and what goes along.

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, COOKIE, LOCATION,
    PROXY_AUTHORIZATION,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use url::Url;

use crate::alt_svc::Origin;
use crate::error::{Error, Outcome};

/// Fields that speak of the body; they go where it goes.
const OF_THE_BODY: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION];
/// Fields that are for one origin only.
const OF_THE_ORIGIN: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its URL.
    pub url: Url,
    /// Its method.
    pub method: Method,
    /// Whether the body is sent again.
    pub keeps_body: bool,
    /// Whether it goes to another origin.
    pub leaves_origin: bool,
}

impl Hop {
    /// Takes the fields out that do not go along.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let strip = |headers: &mut HeaderMap, names: &[HeaderName]| names.iter().for_each(|n| drop(headers.remove(n)));
        if !self.keeps_body {
            strip(headers, &OF_THE_BODY);
        }
        if self.leaves_origin {
            strip(headers, &OF_THE_ORIGIN);
        }
    }
}

/// The next request after an answer; none when the answer is the last one.
///
/// # Errors
/// It points to where this client does not go.
pub fn next(status: StatusCode, headers: &HeaderMap, url: &Url, method: &Method) -> Outcome<Option<Hop>> {
    let (method, keeps_body) = match status.as_u16() {
        // As everybody does it, and as the RFC permits.
        301 | 302 if *method == Method::POST => (Method::GET, false),
        303 if *method != Method::HEAD => (Method::GET, false),
        301 | 302 | 303 | 307 | 308 => (method.clone(), true),
        _ => return Ok(None),
    };
    // Without a place to go to, the answer is what it is.
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let text = String::from_utf8_lossy(location.as_bytes()).into_owned();
    let bad = |why: &str| Error::BadRedirect { to: text.clone(), why: why.into() };
    let mut next = url.join(&text).map_err(|e| bad(&e.to_string()))?;
    if next.scheme() != "https" {
        return Err(bad("it is not https"));
    }
    if next.fragment().is_none() {
        next.set_fragment(url.fragment());
    }
    let leaves_origin = Origin::of(&next) != Origin::of(url);
    Ok(Some(Hop { url: next, method, keeps_body, leaves_origin }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn hop(status: u16, method: &Method, to: &str) -> Outcome<Option<Hop>> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_str(to).unwrap());
        next(StatusCode::from_u16(status).unwrap(), &headers, &Url::parse("https://a/b/c?q#f").unwrap(), method)
    }

    #[test]
    fn methods_change_as_the_rfc_says() {
        for (status, method, then, keeps) in [
            (301, Method::GET, Method::GET, true),
            (301, Method::POST, Method::GET, false),
            (302, Method::POST, Method::GET, false),
            (302, Method::PUT, Method::PUT, true),
            (303, Method::PUT, Method::GET, false),
            (303, Method::HEAD, Method::HEAD, true),
            (307, Method::POST, Method::POST, true),
            (308, Method::PUT, Method::PUT, true),
        ] {
            let h = hop(status, &method, "/x").unwrap().unwrap();
            assert_eq!((h.method, h.keeps_body), (then, keeps), "{status} {method}");
        }
        for status in [200, 204, 300, 304, 305, 306, 404] {
            assert_eq!(hop(status, &Method::GET, "/x"), Ok(None), "{status}");
        }
    }

    #[test]
    fn places_are_relative_to_where_the_answer_came_from() {
        for (to, url, leaves) in [
            ("/x", "https://a/x#f", false),
            ("x", "https://a/b/x#f", false),
            ("?y#g", "https://a/b/c?y#g", false),
            ("//b/x", "https://b/x#f", true),
            ("https://a:443/x", "https://a/x#f", false),
            ("https://a:444/x", "https://a:444/x#f", true),
        ] {
            let h = hop(302, &Method::GET, to).unwrap().unwrap();
            assert_eq!((h.url.as_str(), h.leaves_origin), (url, leaves), "{to}");
        }
        for bad in ["http://a/x", "file:///etc/passwd", "ftp://a/", "https://"] {
            assert_eq!(hop(302, &Method::GET, bad).unwrap_err().code(), 10, "{bad}");
        }
        assert_eq!(
            next(StatusCode::FOUND, &HeaderMap::new(), &Url::parse("https://a").unwrap(), &Method::GET),
            Ok(None)
        );
    }

    #[test]
    fn secrets_stay_with_their_origin() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "proxy-authorization", "content-type", "x-mine"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let mut same = headers.clone();
        hop(302, &Method::POST, "/x").unwrap().unwrap().strip(&mut same);
        assert_eq!((same.len(), same.contains_key("content-type")), (4, false));
        hop(307, &Method::POST, "https://b/").unwrap().unwrap().strip(&mut headers);
        assert_eq!(
            (headers.len(), headers.contains_key("x-mine"), headers.contains_key("content-type")),
            (2, true, true)
        );
    }
}
