//! Messages go to the wire and come back.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use proptest::prelude::*;

use super::decode::{Collector, Section};
use super::encode::{Outline, RequestLine, response_lines, section_size, trailer_lines};
use crate::qpack::Field;

fn lines<'a>(lines: impl Iterator<Item = Field<'a>>) -> Vec<(String, String)> {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    lines.map(|f| (text(f.name), text(f.value))).collect()
}

fn collect<'a>(section: Section, lines: impl Iterator<Item = Field<'a>>) -> Collector {
    let mut collector = Collector::default();
    collector.begin(section);
    lines.for_each(|field| collector.field(field));
    collector
}

fn there_and_back(head: &request::Parts) -> request::Parts {
    let line = RequestLine::new(head, &Outline::of(&head.headers)).unwrap();
    collect(Section::Request, line.lines(&head.headers, &Outline::of(&head.headers))).request(true).unwrap().0
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    let name = "[a-z][a-z0-9-]{0,12}".prop_filter("a field with rules", |name| {
        !matches!(name.as_str(), "te" | "host" | "cookie" | "upgrade" | "connection")
    });
    let value = "([!-~\u{e4}]([ -~]{0,20}[!-~])?)?";
    proptest::collection::vec((name, value, any::<bool>()), 0..12).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value, sensitive) in fields {
            let mut value =
                HeaderValue::from_str(&value).or_else(|_| HeaderValue::from_bytes(value.as_bytes())).unwrap();
            value.set_sensitive(sensitive);
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        headers
    })
}

proptest! {
    #[test]
    fn requests_survive(
        method in "[A-Z]{1,8}",
        host in "[a-z]{1,10}(:[1-9][0-9]{0,3})?",
        path in "/[a-z0-9/._~%-]{0,20}(\\?[a-z0-9=&]{0,10})?",
        headers in headers(),
    ) {
        let uri = format!("https://{host}{path}");
        let (mut head, ()) = Request::builder().method(method.as_str()).uri(&uri).body(()).unwrap().into_parts();
        prop_assume!(head.method != Method::CONNECT);
        head.headers = headers;
        let got = there_and_back(&head);
        prop_assert_eq!(got.uri.to_string(), uri);
        prop_assert_eq!(got.method, head.method);
        prop_assert_eq!(&got.headers, &head.headers);
        for (name, value) in &head.headers {
            let same = got.headers.get_all(name).iter().any(|v| v == value && v.is_sensitive() == value.is_sensitive());
            prop_assert!(same, "{} is as sensitive as before", name);
        }
    }

    #[test]
    fn responses_and_trailers_survive(status in 100..1000u16, headers in headers()) {
        prop_assume!(status != 101);
        let status = StatusCode::from_u16(status).unwrap();
        let got = collect(Section::Response, response_lines(&status, &headers, &Outline::of(&headers))).response().unwrap().0;
        prop_assert_eq!((got.status, &got.headers), (status, &headers));
        let got = collect(Section::Trailers, trailer_lines(&headers)).trailers().unwrap();
        prop_assert_eq!(got, headers);
    }

    #[test]
    fn no_lines_whatever_make_a_collector_fail_otherwise_than_by_a_fault(
        lines in proptest::collection::vec((
            prop_oneof![
                proptest::sample::select(vec![":method", ":path", ":scheme", ":authority", ":protocol", ":status", "host", "te"])
                    .prop_map(|n| n.as_bytes().to_vec()),
                proptest::collection::vec(any::<u8>(), 0..8),
            ],
            prop_oneof![
                proptest::sample::select(vec!["GET", "CONNECT", "/", "https", "a:1", "200", "", "[::1]:", "trailers", "*"])
                    .prop_map(|n| n.as_bytes().to_vec()),
                proptest::collection::vec(any::<u8>(), 0..8),
            ],
        ), 0..8)
    ) {
        for section in [Section::Request, Section::Response, Section::Trailers] {
            let mut collector = collect(section, lines.iter().map(|(n, v)| Field::new(n, v)));
            // Whatever is taken has to be sendable again.
            match section {
                Section::Request => if let Ok((head, _)) = collector.request(true) {
                    let line = RequestLine::new(&head, &Outline::of(&head.headers)).unwrap();
                    collect(section, line.lines(&head.headers, &Outline::of(&head.headers))).request(true).unwrap();
                },
                Section::Response => drop(collector.response()),
                Section::Trailers => drop(collector.trailers()),
            }
        }
    }
}

#[test]
fn what_belongs_to_connections_of_http_1_is_left_out() {
    //= rfc9114#4.2-3 type=test
    //= rfc9114#4.1-5 type=test
    //= rfc9114#4.2-4 type=test
    //= rfc9114#4.2-5 type=test
    //= rfc9114#4.2-1 type=test
    let (head, ()) = Request::get("https://a.example/")
        .header("Connection", "close, X-Hop")
        .header("connection", "x-other")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "close")
        .header("Transfer-Encoding", "chunked")
        .header("Upgrade", "h2c")
        .header("TE", "gzip")
        .header("X-Hop", "1")
        .header("X-Other", "1")
        .header("Accept", "a/b ")
        .body(())
        .unwrap()
        .into_parts();
    let line = RequestLine::new(&head, &Outline::of(&head.headers)).unwrap();
    let left = lines(line.lines(&head.headers, &Outline::of(&head.headers)).skip(4));
    assert_eq!(left, [("accept".to_owned(), "a/b".to_owned())]);
    let left = lines(response_lines(&StatusCode::OK, &head.headers, &Outline::of(&head.headers)).skip(1));
    assert_eq!(left, [("accept".to_owned(), "a/b".to_owned())]);
    let (head, ()) = Request::get("https://a.example/").header("te", "trailers").body(()).unwrap().into_parts();
    assert_eq!(
        RequestLine::new(&head, &Outline::of(&head.headers))
            .unwrap()
            .lines(&head.headers, &Outline::of(&head.headers))
            .count(),
        5
    );
}

#[test]
fn a_request_line_says_where_it_goes() {
    //= rfc9114#4.3.1-3 type=test
    //= rfc9114#4.3.1-1 type=test
    //= rfc9114#4.3.1-5 type=test
    //= rfc9114#4.3-1 type=test
    let of = |request: http::request::Builder| {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let line = RequestLine::new(&head, &Outline::of(&head.headers)).unwrap();
        let values: Vec<String> = lines(line.lines(&head.headers, &Outline::of(&head.headers)))
            .into_iter()
            .map(|(n, v)| n + "=" + &v)
            .collect();
        values.join(" ")
    };
    assert_eq!(
        of(Request::get("https://me:secret@a.example:8443/x?y")),
        ":method=GET :scheme=https :authority=a.example:8443 :path=/x?y"
    );
    assert_eq!(of(Request::get("http://a.example")), ":method=GET :scheme=http :authority=a.example :path=/");
    assert_eq!(of(Request::get("https://a.example?q")), ":method=GET :scheme=https :authority=a.example :path=/?q");
    assert_eq!(
        of(Request::get("https://a.example/").header("host", "b.example")),
        ":method=GET :scheme=https :authority=b.example :path=/"
    );
    assert_eq!(
        of(Request::get("/x").header("host", "b.example")),
        ":method=GET :scheme=https :authority=b.example :path=/x"
    );
    assert_eq!(of(Request::options("*").header("host", "b")), ":method=OPTIONS :scheme=https :authority=b :path=*");
    //= rfc9114#4.4-1 type=test
    assert_eq!(of(Request::connect("a.example:443")), ":method=CONNECT :authority=a.example:443");
}

#[test]
fn cookies_in_several_lines_become_one() {
    //= rfc9114#4.2.1-1 type=test
    let base = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
    let cookies = [("cookie", "a=b"), ("x", "y"), ("cookie", "c=d; e=f"), ("cookie", "g=h")];
    let fields = base.iter().chain(&cookies).map(|(n, v)| Field::new(n.as_bytes(), v.as_bytes()));
    let (head, _) = collect(Section::Request, fields).request(false).unwrap();
    let all: Vec<_> = head.headers.get_all("cookie").iter().collect();
    assert_eq!(all, ["a=b; c=d; e=f; g=h"]);
    assert_eq!(head.headers["x"], "y");
}

#[test]
fn sizes_are_counted_as_the_document_says() {
    let mut headers = HeaderMap::new();
    headers.insert("ab", HeaderValue::from_static("cde"));
    assert_eq!(
        section_size(response_lines(&StatusCode::OK, &headers, &Outline::of(&headers))),
        (7 + 3 + 32) + (2 + 3 + 32)
    );
    assert_eq!(Outline::of(&headers).content_length(), Ok(None));
    headers.insert("content-length", HeaderValue::from_static("12x"));
    assert!(Outline::of(&headers).content_length().is_err());
}

#[test]
fn a_collector_forgets_the_section_before() {
    let mut collector = Collector::default();
    for _ in 0..3 {
        collector.begin(Section::Response);
        collector.field(Field::new(b"Bad", b""));
        assert!(collector.response().is_err());
        collector.begin(Section::Response);
        collector.field(Field::new(b":status", b"204"));
        let (parts, _) = collector.response().unwrap();
        assert_eq!(parts.status, Response::builder().status(204).body(()).unwrap().status());
        assert!(parts.headers.is_empty());
    }
}
