//! Heads and trailers: each row is a field section.

use courser_core::ids::Side;
use courser_h3::Code;

use super::play::{After, Asked, Expect, Row, get, headers, ok};

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

const METHOD: (&[u8], &[u8]) = (b":method", b"GET");
const SCHEME: (&[u8], &[u8]) = (b":scheme", b"https");
const AUTHORITY: (&[u8], &[u8]) = (b":authority", b"a.example");
const PATH: (&[u8], &[u8]) = (b":path", b"/");
const CONNECT: (&[u8], &[u8]) = (b":method", b"CONNECT");
const STATUS: (&[u8], &[u8]) = (b":status", b"200");

/// A request that is good but for one more line.
fn plus<'a>(line: (&'a [u8], &'a [u8])) -> Vec<(&'a [u8], &'a [u8])> {
    vec![METHOD, SCHEME, AUTHORITY, PATH, line]
}

fn request(name: &str, fields: Fields<'_>, expect: Expect) -> Row {
    Row::new(name, Side::Server, expect).request(headers(fields), After::Fin)
}

pub fn requests() -> Vec<Row> {
    const BAD: Expect = Expect::Stream(Code::MESSAGE_ERROR);
    let mut rows = pseudo(BAD);
    rows.extend(targets(BAD));
    rows.extend(connects(BAD));
    rows.extend(fields(BAD));
    rows.extend(sizes());
    rows
}

fn pseudo(bad: Expect) -> Vec<Row> {
    //= rfc9114#4.1.2-1 type=test
    //= rfc9114#4.1.2-2 type=test
    //= rfc9114#4.3.1-6 type=test
    //= rfc9114#4.3-4 type=test
    //= rfc9114#4.3-5 type=test
    //= rfc9114#4.3-6 type=test
    //= rfc9114#4.3-2 type=test
    vec![
        request("nothing at all", &[], bad),
        request("no method", &[SCHEME, AUTHORITY, PATH], bad),
        request("no scheme", &[METHOD, AUTHORITY, PATH], bad),
        request("no path", &[METHOD, SCHEME, AUTHORITY], bad),
        request("two methods", &[METHOD, METHOD, SCHEME, AUTHORITY, PATH], bad),
        request("two schemes", &[METHOD, SCHEME, SCHEME, AUTHORITY, PATH], bad),
        request("two authorities", &[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH], bad),
        request("two paths", &[METHOD, SCHEME, AUTHORITY, PATH, PATH], bad),
        request("a pseudo-header behind a field", &[METHOD, SCHEME, AUTHORITY, (b"a", b"b"), PATH], bad),
        request("a pseudo-header of responses", &plus(STATUS), bad),
        request("a pseudo-header that nobody knows", &plus((b":version", b"3")), bad),
        request("a pseudo-header with a capital", &[(b":Method", b"GET"), SCHEME, AUTHORITY, PATH], bad),
        request("a pseudo-header of nothing", &plus((b":", b"x")), bad),
        request("an empty method", &[(b":method", b""), SCHEME, AUTHORITY, PATH], bad),
        request("a method with a blank", &[(b":method", b"GET "), SCHEME, AUTHORITY, PATH], bad),
        request("a method that is no token", &[(b":method", b"G(T"), SCHEME, AUTHORITY, PATH], bad),
        request("a method of ten letters", &[(b":method", b"ABCDEFGHIJ"), SCHEME, AUTHORITY, PATH], Expect::Fine),
        request("an order of its own", &[PATH, AUTHORITY, SCHEME, METHOD], Expect::Fine),
    ]
}

fn targets(bad: Expect) -> Vec<Row> {
    let scheme = |s| [METHOD, (b":scheme" as &[u8], s), AUTHORITY, PATH];
    let path = |p| [METHOD, SCHEME, AUTHORITY, (b":path" as &[u8], p)];
    let authority = |a| [METHOD, SCHEME, (b":authority" as &[u8], a), PATH];
    let host = |h| [METHOD, SCHEME, PATH, (b"host" as &[u8], h)];
    //= rfc9114#4.3.1-5 type=test
    //= rfc9114#4.3.1-7 type=test
    //= rfc9114#4.3.1-8 type=test
    //= rfc9114#4.3.1-9 type=test
    //= rfc9114#4.3.1-1 type=test
    vec![
        request("an empty scheme", &scheme(b""), bad),
        request("a scheme with a colon", &scheme(b"https:"), bad),
        request("a scheme that begins with a digit", &scheme(b"1x"), bad),
        request("http over HTTP/3", &scheme(b"http"), Expect::Fine),
        request("another scheme", &scheme(b"masque"), Expect::Fine),
        request("an empty path", &path(b""), bad),
        request("a path without a slash", &path(b"index.html"), bad),
        request("a whole URI as path", &path(b"https://a.example/"), bad),
        request("a path with a blank", &path(b"/a b"), bad),
        request("a path with a fragment", &path(b"/a#b"), bad),
        request("a path with a line end", &path(b"/a\r\nx: y"), bad),
        request("a path with a null", &path(b"/a\0"), bad),
        request("a path that is no ASCII", &path(b"/\xe4"), bad),
        request("a star for GET", &path(b"*"), bad),
        request("a star for OPTIONS", &[(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")], Expect::Fine),
        request("a query", &path(b"/a?b=c&d=%20e"), Expect::Fine),
        request("neither authority nor host", &[METHOD, SCHEME, PATH], bad),
        request("an empty authority", &authority(b""), bad),
        request("an authority with a user", &authority(b"me@a.example"), bad),
        request("an authority with a path", &authority(b"a.example/b"), bad),
        request("an authority with a blank", &authority(b"a example"), bad),
        request("an authority with a port that is none", &authority(b"a.example:x"), bad),
        request("an authority of a port alone", &authority(b":443"), bad),
        request("an address as authority", &authority(b"[2001:db8::1]:4433"), Expect::Fine),
        request("a host and no authority", &host(b"a.example"), Expect::Fine),
        request("an empty host", &host(b""), bad),
        request("two hosts", &[METHOD, SCHEME, PATH, (b"host", b"a.example"), (b"host", b"a.example")], bad),
        request("a host like the authority", &plus((b"host", b"a.example")), Expect::Fine),
        request("a host unlike the authority", &plus((b"host", b"b.example")), bad),
        request("a host with a user", &host(b"me@a.example"), bad),
    ]
}

fn connects(bad: Expect) -> Vec<Row> {
    let to = |a| [CONNECT, (b":authority" as &[u8], a)];
    let protocol: (&[u8], &[u8]) = (b":protocol", b"websocket");
    let extended = [CONNECT, SCHEME, AUTHORITY, PATH, protocol];
    //= rfc9114#4.4-1 type=test
    vec![
        request("CONNECT", &to(b"a.example:443"), Expect::Fine),
        request("CONNECT to nowhere", &[CONNECT], bad),
        request("CONNECT without a port", &to(b"a.example"), bad),
        request("CONNECT with a user", &to(b"me@a.example:443"), bad),
        request("CONNECT with a scheme", &[CONNECT, SCHEME, (b":authority", b"a.example:443")], bad),
        request("CONNECT with a path", &[CONNECT, PATH, (b":authority", b"a.example:443")], bad),
        request(
            "CONNECT with another host",
            &[CONNECT, (b":authority", b"a.example:1"), (b"host", b"b.example:1")],
            bad,
        ),
        request("extended CONNECT", &extended, Expect::Fine),
        request("extended CONNECT that was not offered", &extended, bad).with(|c| c.connect_protocol = false),
        request("a protocol without CONNECT", &[METHOD, SCHEME, AUTHORITY, PATH, protocol], bad),
        request("extended CONNECT without a scheme", &[CONNECT, AUTHORITY, PATH, protocol], bad),
        request("extended CONNECT without a path", &[CONNECT, SCHEME, AUTHORITY, protocol], bad),
        request("extended CONNECT without an authority", &[CONNECT, SCHEME, PATH, protocol], bad),
        request(
            "extended CONNECT for a protocol that is no token",
            &[CONNECT, SCHEME, AUTHORITY, PATH, (b":protocol", b"a b")],
            bad,
        ),
        request("extended CONNECT for nothing", &[CONNECT, SCHEME, AUTHORITY, PATH, (b":protocol", b"")], bad),
        request("two protocols", &[CONNECT, SCHEME, AUTHORITY, PATH, protocol, protocol], bad),
    ]
}

fn fields(bad: Expect) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut one = |name: &str, value: &[u8], expect| {
        let title = format!("the field {name}: {}", value.escape_ascii());
        rows.push(request(&title, &plus((name.as_bytes(), value)), expect));
    };
    //= rfc9114#4.2-2 type=test
    //= rfc9114#10.3-1 type=test
    for name in ["Accept", "aCCEPT", "x y", "x\u{e4}", "x\0", "x:y", "", "x\r\n", "x\t", "x(", "x/y"] {
        one(name, b"v", bad);
    }
    //= rfc9114#4.2-3 type=test
    //= rfc9114#4.1-5 type=test
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ] {
        one(name, value.as_bytes(), bad);
    }
    //= rfc9114#4.2-4 type=test
    for value in ["gzip", "trailers, gzip", "", "deflate;q=0.5"] {
        one("te", value.as_bytes(), bad);
    }
    one("te", b"trailers", Expect::Fine);
    //= rfc9114#10.3-2 type=test
    for value in [&b"a\r\nb"[..], b"a\nb", b"a\rb", b"a\0b", b"a\x7fb", b"\x01", b" a", b"a ", b"\ta"] {
        one("x-a", value, bad);
    }
    one("x-a", b"a\tb c", Expect::Fine);
    one("x-a", b"\xff\x80", Expect::Fine);
    one("x-a", b"", Expect::Fine);
    for value in ["x", "-1", "+1", "1,1", "1 ", "", "0x10", "18446744073709551616", "4611686018427387904"] {
        one("content-length", value.as_bytes(), bad);
    }
    one("content-length", b"0", Expect::Fine);
    let twice: (&[u8], &[u8]) = (b"content-length", b"0");
    rows.push(request("two lengths", &[METHOD, SCHEME, AUTHORITY, PATH, twice, twice], bad));
    //= rfc9297#3.2-4 type=test
    //= rfc9297#3.2-6 type=test
    let capsules: (&[u8], &[u8]) = (b"capsule-protocol", b"?1");
    let protocol: (&[u8], &[u8]) = (b":protocol", b"connect-udp");
    let with = |line| [CONNECT, SCHEME, AUTHORITY, PATH, protocol, capsules, line];
    rows.push(request("capsules with a length", &with(twice), bad));
    rows.push(request("capsules with a type", &with((b"content-type", b"a/b")), bad));
    rows.push(request("capsules and nothing else", &with((b"x", b"y")), Expect::Fine));
    rows
}

fn sizes() -> Vec<Row> {
    let long = vec![b'a'; 960];
    let eight: Vec<(&[u8], &[u8])> = (0..8).map(|_| (b"x" as &[u8], b"" as &[u8])).collect();
    let nine: Vec<(&[u8], &[u8])> = (0..9).map(|_| (b"x" as &[u8], b"" as &[u8])).collect();
    let base = [METHOD, SCHEME, AUTHORITY, PATH];
    vec![
        request("a head that is too large", &plus((b"x", &long)), Expect::TooLarge),
        request("a head that is much too large", &plus((b"x", &[b'a'; 5000])), Expect::TooLarge),
        request("as many fields as permitted", &[&base[..], &eight].concat(), Expect::Fine),
        request("a field more than permitted", &[&base[..], &nine].concat(), Expect::TooLarge),
    ]
}

pub fn responses() -> Vec<Row> {
    const BAD: Expect = Expect::Stream(Code::MESSAGE_ERROR);
    let row = |name: &str, fields: Fields<'_>, expect| {
        Row::new(name, Side::Client, expect).request(headers(fields), After::Fin)
    };
    //= rfc9297#3.2-5 type=test
    //= rfc9297#3.4-3 type=test
    //= rfc9114#4.3.2-1 type=test
    //= rfc9114#4.1.2-3 type=test
    //= rfc9114#4.3-2 type=test
    let mut rows = vec![
        row("a status alone", &[STATUS], Expect::Fine),
        row("nothing at all", &[], BAD),
        row("no status", &[(b"x", b"y")], BAD),
        row("two statuses", &[STATUS, STATUS], BAD),
        row("a status behind a field", &[(b"x", b"y"), STATUS], BAD),
        row("an empty status", &[(b":status", b"")], BAD),
        row("a status of two digits", &[(b":status", b"20")], BAD),
        row("a status of four digits", &[(b":status", b"2000")], BAD),
        row("a status that is no number", &[(b":status", b"2xx")], BAD),
        row("a status with a reason", &[(b":status", b"200 OK")], BAD),
        row("a status below 100", &[(b":status", b"099")], BAD),
        row("switching protocols", &[(b":status", b"101")], BAD),
        row("only an informational response", &[(b":status", b"103")], BAD),
        row("a pseudo-header of requests", &[STATUS, PATH], BAD),
        row("a method", &[METHOD, STATUS], BAD),
        row("a pseudo-header that nobody knows", &[STATUS, (b":reason", b"OK")], BAD),
        row("a capital letter", &[STATUS, (b"Server", b"x")], BAD),
        row("connection", &[STATUS, (b"connection", b"close")], BAD),
        row("transfer-encoding", &[STATUS, (b"transfer-encoding", b"chunked")], BAD),
        row("te", &[STATUS, (b"te", b"trailers")], BAD),
        row("a value with a line end", &[STATUS, (b"location", b"/\r\nset-cookie: a")], BAD),
        row("more content promised than there is", &[STATUS, (b"content-length", b"5")], BAD),
        row("two lengths", &[STATUS, (b"content-length", b"0"), (b"content-length", b"0")], BAD),
        row("capsules with a length", &[STATUS, (b"capsule-protocol", b"?1"), (b"content-length", b"0")], BAD),
        row("capsules with a status of nothing", &[(b":status", b"204"), (b"capsule-protocol", b"?1")], BAD),
        row(
            "capsules of an error are none",
            &[(b":status", b"404"), (b"capsule-protocol", b"?1"), (b"content-length", b"0")],
            Expect::Fine,
        ),
        row("a head that is too large", &[STATUS, (b"x", &[b'a'; 960])], Expect::TooLarge),
        row("a status that is not in the registry", &[(b":status", b"599")], Expect::Fine),
        row("a length without content for 304", &[(b":status", b"304"), (b"content-length", b"5")], Expect::Fine),
    ];
    let length: Fields<'_> = &[STATUS, (b"content-length", b"5")];
    rows.push(row("a length without content for HEAD", length, Expect::Fine).asked(Asked::Head));
    rows
}

pub fn trailers() -> Vec<Row> {
    const BAD: Expect = Expect::Stream(Code::MESSAGE_ERROR);
    let mut rows = Vec::new();
    //= rfc9114#4.3-3 type=test
    //= rfc9114#4.1-2 type=test
    for (name, fields, expect) in [
        ("good trailers", &[(b"x-sum" as &[u8], b"1" as &[u8])] as Fields<'_>, Expect::Fine),
        ("empty trailers", &[], Expect::Fine),
        ("a status in trailers", &[STATUS], BAD),
        ("a method in trailers", &[METHOD], BAD),
        ("a second request", &[METHOD, SCHEME, AUTHORITY, PATH], BAD),
        ("a capital in trailers", &[(b"X", b"y")], BAD),
        ("te in trailers", &[(b"te", b"trailers")], BAD),
        ("connection in trailers", &[(b"connection", b"x")], BAD),
        ("a length in trailers", &[(b"content-length", b"0")], BAD),
        ("a value with a null in trailers", &[(b"x", b"\0")], BAD),
    ] {
        for side in [Side::Server, Side::Client] {
            let head = if side.is_server() { get() } else { ok() };
            rows.push(Row::new(name, side, expect).request([head, headers(fields)].concat(), After::Fin));
        }
    }
    rows
}
