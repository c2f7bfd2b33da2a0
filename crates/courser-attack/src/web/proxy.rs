//! What hostile clients and hostile origins do to `courser proxy`.

use std::io;

use courser_testing::web::{frame, headers};

use super::bytes::{head, head_with};
use super::visit::Visit;

/// Paths at which the origin answers in a bad way, and whether a client may be told 200 before that shows.
const BAD: &[(&str, bool)] = &[
    ("/endless-head", false),
    ("/endless-line", false),
    ("/interim", false),
    ("/noise", false),
    ("/two-lengths", false),
    ("/both", true),
    ("/gone", false),
    ("/short", true),
    ("/long", true),
    ("/huge-chunk", true),
    ("/chunk-extension", true),
    ("/endless-trailers", true),
];

/// Answers of the origin that are none.
pub fn bad_answers(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    for (path, begins) in BAD.iter().cycle() {
        if !v.goes_on() {
            break;
        }
        let answer = v.exchange(&headers(&head("GET", path)))?;
        if answer.fine && !begins {
            return Err(io::Error::other(format!("{path} was answered with 200")));
        }
        if v.guest.closed.is_none() && answer.end.is_none() {
            return Err(io::Error::other(format!("{path} was not answered: {} bytes", answer.body.len())));
        }
    }
    Ok(())
}

/// Many requests that the origin answers byte by byte.
pub fn slow_answers(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let slow = headers(&head("GET", "/slow-head"));
    for _ in 0..50 {
        let id = v.request()?;
        v.say(id, &slow)?;
        v.guest.finish(id);
    }
    v.wait()
}

/// Requests that would be two at an origin of HTTP/1.1.
pub fn splitting(v: &mut Visit) -> io::Result<()> {
    v.control()?;
    let inner: &[u8] = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let post = |fields: &[(&[u8], &[u8])]| [headers(&head_with("POST", "/", fields)), frame(0, inner)].concat();
    let rows: [(&str, Vec<u8>); 8] = [
        ("content beyond its length", post(&[(b"content-length", b"5")])),
        ("a length and chunks", post(&[(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])),
        ("chunks", post(&[(b"transfer-encoding", b"chunked")])),
        ("a field in a value", headers(&head_with("GET", "/", &[(b"a", b"b\r\nsmuggled: 1")]))),
        ("a field in a name", headers(&head_with("GET", "/", &[(b"a: b\r\nsmuggled", b"1")]))),
        ("a request in a path", headers(&head("GET", "/ HTTP/1.1\r\nsmuggled: 1\r\n\r\n"))),
        ("a request in a method", headers(&head("GET / HTTP/1.1\r\nsmuggled: 1\r\n\r\nGET", "/"))),
        (
            "a field in a name of a host",
            headers(&[
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", b"localhost\r\nsmuggled: 1"),
                (b":path", b"/"),
            ]),
        ),
    ];
    for (what, request) in rows.iter().cycle() {
        if !v.goes_on() {
            break;
        }
        v.refused(what, request)?;
    }
    // With a length of nothing the answer may be there before the content is looked at: what counts is that it goes nowhere.
    v.exchange(&post(&[(b"content-length", b"0")]))?;
    // A content that looks like a request is content all the same.
    let length = inner.len().to_string();
    let good = [headers(&head_with("POST", "/", &[(b"content-length", length.as_bytes())])), frame(0, inner)].concat();
    let answer = v.exchange(&good)?;
    if v.guest.closed.is_none() && !answer.fine {
        return Err(io::Error::other("a good request was refused"));
    }
    Ok(())
}
