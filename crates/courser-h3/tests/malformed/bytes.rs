//! Every byte in every place of a field, names in every case, and content of every length against the length that was
//! declared, however both are cut. Requests, responses and trailers alike.

use courser_core::ids::Side;
use courser_h3::Code;

use super::play::{After, Expect, Row, frame, get, headers, ok, play};

const BAD: Expect = Expect::Stream(Code::MESSAGE_ERROR);

type Line<'a> = (&'a [u8], &'a [u8]);

/// Where lines stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Request,
    Response,
    RequestTrailers,
    ResponseTrailers,
}

const PARTS: [Part; 4] = [Part::Request, Part::Response, Part::RequestTrailers, Part::ResponseTrailers];

/// The pseudo-header fields of a good request, each of which can be another one.
struct Target<'a> {
    method: &'a [u8],
    scheme: &'a [u8],
    authority: &'a [u8],
    path: &'a [u8],
}

const TARGET: Target<'static> = Target { method: b"GET", scheme: b"https", authority: b"a.example", path: b"/" };

fn request(target: &Target<'_>) -> Vec<u8> {
    headers(&[
        (b":method", target.method),
        (b":scheme", target.scheme),
        (b":authority", target.authority),
        (b":path", target.path),
    ])
}

/// What comes of a good message with one more line in that part.
fn with_line(part: Part, line: Line<'_>) -> Expect {
    let status: Line<'_> = (b":status", b"200");
    let (side, bytes) = match part {
        Part::Request => {
            let head: [Line<'_>; 5] =
                [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/"), line];
            (Side::Server, headers(&head))
        }
        Part::Response => (Side::Client, headers(&[status, line])),
        Part::RequestTrailers => (Side::Server, [get(), headers(&[line])].concat()),
        Part::ResponseTrailers => (Side::Client, [ok(), headers(&[line])].concat()),
    };
    play(&Row::new("a line", side, Expect::Fine).request(bytes, After::Fin), usize::MAX)
}

fn of_request(target: &Target<'_>) -> Expect {
    play(&Row::new("a target", Side::Server, Expect::Fine).request(request(target), After::Fin), usize::MAX)
}

/// A byte of a name: the characters of a token (RFC 9110 section 5.6.2) that are no capitals.
fn in_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte inside of a value (RFC 9110 section 5.5): visible ones, blanks, and those above ASCII.
fn in_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn expect(good: bool) -> Expect {
    if good { Expect::Fine } else { BAD }
}

/// Values in which a byte stands alone, first, inside, and last, and whether it stands at an end.
fn places(byte: u8) -> [(Vec<u8>, bool); 4] {
    [(vec![byte], true), (vec![byte, b'y'], true), (vec![b'x', byte, b'y'], false), (vec![b'x', byte], true)]
}

pub fn names_and_values() -> usize {
    //= rfc9114#4.2-2 type=test
    //= rfc9114#10.3-1 type=test
    //= rfc9114#10.3-2 type=test
    let mut cells = 0;
    for part in PARTS {
        for byte in 0..=255 {
            for (bytes, at_end) in places(byte) {
                let name = with_line(part, (&bytes, b"v"));
                assert_eq!(name, expect(in_name(byte)), "{part:?}: the name {}", bytes.escape_ascii());
                let good = in_value(byte) && !(at_end && matches!(byte, b' ' | b'\t'));
                for of in [&b"x-a"[..], b"cookie", b"content-type"] {
                    let value = with_line(part, (of, &bytes));
                    let what = format!("{part:?}: {} of {}", bytes.escape_ascii(), of.escape_ascii());
                    assert_eq!(value, expect(good), "{what}");
                    cells += 1;
                }
                cells += 1;
            }
        }
    }
    cells
}

pub fn targets() -> usize {
    //= rfc9114#4.1.2-1 type=test
    let mut cells = 0;
    for byte in 0..=255_u8 {
        let token = in_name(byte) || byte.is_ascii_uppercase();
        let what = [byte].escape_ascii().to_string();
        let method = of_request(&Target { method: &[b'G', byte, b'T'], ..TARGET });
        assert_eq!(method, expect(token), "a method with {what}");
        let scheme = of_request(&Target { scheme: &[b'h', byte, b's'], ..TARGET });
        let of_scheme = byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        assert_eq!(scheme, expect(of_scheme), "a scheme with {what}");
        // What splits a target, ends a line, or is no ASCII never passes; letters and digits always do.
        let path = of_request(&Target { path: &[b'/', byte, b'b'], ..TARGET });
        if byte <= b' ' || byte >= 0x7f || byte == b'#' {
            assert_eq!(path, BAD, "a path with {what}");
        } else if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte) {
            assert_eq!(path, Expect::Fine, "a path with {what}");
        }
        let authority = of_request(&Target { authority: &[b'a', byte, b'b'], ..TARGET });
        if byte <= b' ' || byte == 0x7f || b"/@?#:\\[]".contains(&byte) {
            assert_eq!(authority, BAD, "an authority with {what}");
        } else if byte.is_ascii_alphanumeric() || b"-.".contains(&byte) {
            assert_eq!(authority, Expect::Fine, "an authority with {what}");
        }
        for got in [path, authority] {
            assert!(matches!(got, Expect::Fine | BAD), "{what}: {got:?}");
        }
        for at in 0..3 {
            let mut status = *b"200";
            status[at] = byte;
            let row = Row::new("a status", Side::Client, Expect::Fine);
            let got = play(&row.request(headers(&[(b":status", &status)]), After::Fin), usize::MAX);
            // One that begins with 1 is followed by another response; one below or above means nothing.
            let good = byte.is_ascii_digit() && (at > 0 || (b'2'..=b'9').contains(&byte));
            assert_eq!(got, expect(good), "a status with {what} at {at}");
        }
        cells += 7;
    }
    cells
}

/// Names that mean something here, with each of their letters as a capital, and as a whole.
pub fn cases() -> usize {
    //= rfc9114#4.2-2 type=test
    let mut cells = 0;
    for part in PARTS {
        for name in [&b"content-length"[..], b"host", b"te", b"cookie", b"connection", b":path", b":status", b":method"]
        {
            let upper = |at: usize| {
                let mut bytes = name.to_vec();
                bytes[at].make_ascii_uppercase();
                bytes
            };
            let letters = (0..name.len()).filter(|at| name[*at].is_ascii_lowercase()).map(upper);
            for written in letters.chain([name.to_ascii_uppercase()]) {
                let got = with_line(part, (&written, b"0"));
                assert_eq!(got, BAD, "{part:?}: {}", written.escape_ascii());
                cells += 1;
            }
        }
    }
    cells
}

/// Content of up to five bytes in DATA frames cut at any places, with and without empty frames between them; the end comes
/// with the last byte or alone. It is as long as declared, or the message is malformed.
pub fn lengths() -> usize {
    //= rfc9114#4.1.2-2 type=test
    let mut cells = 0;
    for len in 0..=5_usize {
        for cuts in 0..1_u32 << len.saturating_sub(1) {
            for empty in [false, true] {
                let content = content(len, cuts, empty);
                for declared in 0..=6_usize {
                    for (side, alone) in
                        [(Side::Server, false), (Side::Server, true), (Side::Client, false), (Side::Client, true)]
                    {
                        let got = declared_as(side, &content, declared, alone);
                        let what = format!(
                            "{len} bytes cut {cuts:b}, empty frames {empty}, end alone {alone}: {declared} to {side:?}"
                        );
                        assert_eq!(got, expect(declared == len), "{what}");
                        cells += 1;
                    }
                }
            }
        }
    }
    cells
}

fn content(len: usize, cuts: u32, empty: bool) -> Vec<u8> {
    let (mut out, mut piece) = (Vec::new(), Vec::new());
    let mut flush = |piece: &mut Vec<u8>| {
        if empty {
            out.extend(frame(0, &[]));
        }
        out.extend(frame(0, piece));
        piece.clear();
    };
    for at in 0..len {
        piece.push(b'x');
        if cuts >> at & 1 == 1 {
            flush(&mut piece);
        }
    }
    if !piece.is_empty() || empty {
        flush(&mut piece);
    }
    out
}

fn declared_as(side: Side, content: &[u8], declared: usize, alone: bool) -> Expect {
    let length = declared.to_string();
    let line: Line<'_> = (b"content-length", length.as_bytes());
    let head = match side {
        Side::Server => headers(&[
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"a.example"),
            (b":path", b"/"),
            line,
        ]),
        Side::Client => headers(&[(b":status", b"200"), line]),
    };
    let row = Row::new("a length", side, Expect::Fine);
    let bytes = [head, content.to_vec()].concat();
    let row = if alone {
        row.request(bytes, After::Open).request(Vec::new(), After::Fin)
    } else {
        row.request(bytes, After::Fin)
    };
    play(&row, usize::MAX)
}
