//! Request streams: sequences of frames, ends, lengths.

use courser_core::ids::{Side, StreamId};
use courser_h3::Code;

use super::play::{After, Asked, Expect, Row, frame, get, headers, int, ok};

const UNEXPECTED: Expect = Expect::Connection(Code::FRAME_UNEXPECTED);
const FRAME: Expect = Expect::Connection(Code::FRAME_ERROR);
const MESSAGE: Expect = Expect::Stream(Code::MESSAGE_ERROR);

fn post(length: &[u8]) -> Vec<u8> {
    let target: [(&[u8], &[u8]); 3] = [(b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/")];
    headers(&[&[(b":method" as &[u8], b"POST" as &[u8])], &target[..], &[(b"content-length", length)]].concat())
}

/// The frames that no request stream may have, wherever they stand.
fn misplaced() -> Vec<(&'static str, Vec<u8>, Expect)> {
    //= rfc9114#7.2.3-6 type=test
    //= rfc9114#7.2.4-4 type=test
    //= rfc9114#7.2.6-2 type=test
    //= rfc9114#7.2.7-1 type=test
    //= rfc9114#7.2.8-2 type=test
    //= rfc9218#7.2-2 type=test
    vec![
        ("CANCEL_PUSH", frame(3, &[0]), UNEXPECTED),
        ("SETTINGS", frame(4, &[]), UNEXPECTED),
        ("GOAWAY", frame(7, &[0]), UNEXPECTED),
        ("MAX_PUSH_ID", frame(0xd, &[0]), UNEXPECTED),
        ("PRIORITY_UPDATE", frame(0xf_0700, &[0]), UNEXPECTED),
        ("PRIORITY_UPDATE of a push", frame(0xf_0701, &[0]), UNEXPECTED),
        ("PRIORITY of HTTP/2", frame(2, &[]), UNEXPECTED),
        ("PING of HTTP/2", frame(6, &[]), UNEXPECTED),
        ("WINDOW_UPDATE of HTTP/2", frame(8, &[]), UNEXPECTED),
        ("CONTINUATION of HTTP/2", frame(9, &[]), UNEXPECTED),
    ]
}

pub fn at_server() -> Vec<Row> {
    let row = |name: &str, bytes: Vec<u8>, after, expect| Row::new(name, Side::Server, expect).request(bytes, after);
    let data = frame(0, b"abc");
    let trailers = headers(&[(b"x", b"y")]);
    let connect = headers(&[(b":method", b"CONNECT"), (b":authority", b"a.example:1")]);
    let mut rows = Vec::new();
    for (name, bytes, expect) in misplaced() {
        rows.push(row(name, bytes.clone(), After::Open, expect));
        rows.push(row(&format!("{name} behind the head"), [get(), bytes].concat(), After::Open, expect));
    }
    //= rfc9114#4.1-3 type=test
    //= rfc9114#7.2.1-1 type=test
    rows.extend([
        row("DATA before HEADERS", data.clone(), After::Open, UNEXPECTED),
        row("empty DATA before HEADERS", frame(0, &[]), After::Open, UNEXPECTED),
        row(
            "DATA behind trailers",
            [get(), data.clone(), trailers.clone(), data.clone()].concat(),
            After::Open,
            UNEXPECTED,
        ),
        row("HEADERS behind trailers", [get(), trailers.clone(), trailers.clone()].concat(), After::Open, UNEXPECTED),
    ]);
    //= rfc9114#7.2.5-10 type=test
    rows.push(row("PUSH_PROMISE", frame(5, &[0, 0, 0]), After::Open, UNEXPECTED));
    rows.push(row("PUSH_PROMISE behind the head", [get(), frame(5, &[0, 0, 0])].concat(), After::Open, UNEXPECTED));
    //= rfc9114#4.4-2 type=test
    rows.push(row(
        "HEADERS in a tunnel",
        [connect.clone(), data.clone(), trailers.clone()].concat(),
        After::Open,
        UNEXPECTED,
    ));
    rows.push(row("SETTINGS in a tunnel", [connect, frame(4, &[])].concat(), After::Open, UNEXPECTED));
    //= rfc9114#4.1-10 type=test
    let incomplete = Expect::Stream(Code::REQUEST_INCOMPLETE);
    rows.push(row("an end before anything", vec![], After::Fin, incomplete));
    rows.push(row("an end behind a reserved frame", frame(0x21, b"xyz"), After::Fin, incomplete));
    //= rfc9114#7.1-4 type=test
    let cut = |bytes: &[u8], by: usize| bytes[..bytes.len() - by].to_vec();
    rows.extend([
        row("an end inside a frame type", vec![0x40], After::Fin, FRAME),
        row("an end inside a frame length", vec![0x01, 0x40], After::Fin, FRAME),
        row("an end behind a header", vec![0x01, 0x05], After::Fin, FRAME),
        row("an end inside a head", cut(&get(), 1), After::Fin, FRAME),
        row("an end inside DATA", [get(), cut(&data, 1)].concat(), After::Fin, FRAME),
        row("an end inside a reserved frame", [get(), cut(&frame(0x21, b"abc"), 1)].concat(), After::Fin, FRAME),
        row("an end inside trailers", [get(), cut(&trailers, 1)].concat(), After::Fin, FRAME),
    ]);
    //= rfc9114#4.1.2-2 type=test
    rows.extend([
        row("content as long as promised", [post(b"3"), data.clone()].concat(), After::Fin, Expect::Fine),
        row("less content than promised", [post(b"4"), data.clone()].concat(), After::Fin, MESSAGE),
        row("no content where it was promised", post(b"1"), After::Fin, MESSAGE),
        row("more content than promised", [post(b"2"), data.clone()].concat(), After::Open, MESSAGE),
        row("more content in a second frame", [post(b"3"), data.clone(), data.clone()].concat(), After::Open, MESSAGE),
        row(
            "less content than promised before trailers",
            [post(b"4"), data.clone(), trailers].concat(),
            After::Open,
            MESSAGE,
        ),
        row("content where none was promised", [post(b"0"), data].concat(), After::Open, MESSAGE),
    ]);
    let decompression = Expect::Connection(Code::QPACK_DECOMPRESSION_FAILED);
    rows.extend([
        row("a head of no bytes", frame(1, &[]), After::Open, decompression),
        row("a head that is cut inside a line", frame(1, &[0, 0, 0x23]), After::Open, decompression),
        row("a line of the static table that is not there", frame(1, &[0, 0, 0xff, 0x40]), After::Open, decompression),
        row("a line of a table that is empty", frame(1, &[0, 0, 0x80]), After::Open, decompression),
    ]);
    rows.push(row("a reset", get(), After::Reset(0x10c), Expect::Reset(0x10c)));
    //= rfc9114#8-1 type=test
    rows.push(row(
        "a reset with a code that nobody knows",
        get(),
        After::Reset(0x1234_5678),
        Expect::Reset(0x1234_5678),
    ));
    rows.push(row("a reset with a code out of its place", get(), After::Reset(0x109), Expect::Reset(0x109)));
    rows.extend(at_server_beyond());
    rows
}

/// Extensions and limits.
fn at_server_beyond() -> Vec<Row> {
    let row = |name: &str, bytes: Vec<u8>, expect| Row::new(name, Side::Server, expect).request(bytes, After::Open);
    let wt = |name: &str, bytes: Vec<u8>, expect| row(name, bytes, expect).with(|c| c.webtransport_sessions = 1);
    let id = Expect::Connection(Code::ID_ERROR);
    let noise: Vec<u8> = (0..40).flat_map(|n| frame(0x1f * n + 0x21, &[n as u8; 9])).collect();
    let few = |r: Row| r.with(|c| c.noise_budget = 39);
    let load = Expect::Connection(Code::EXCESSIVE_LOAD);
    //= rfc9114#7.2.8-1 type=test
    //= rfc9114#9-1 type=test
    vec![
        row(
            "reserved frames everywhere",
            [noise.clone(), get(), noise.clone(), frame(0, b"x"), noise.clone()].concat(),
            Expect::Fine,
        ),
        few(row("too many reserved frames", noise, load)),
        few(row("too many empty DATA frames", [get(), [0, 0].repeat(40)].concat(), load)),
        row(
            "a megabyte of a frame that nobody knows",
            [frame(0x1234_5678, &[1; 1 << 20]), get()].concat(),
            Expect::Fine,
        ),
        row(
            "the signal of WebTransport where nobody speaks it",
            [frame(0x41, &[1, 2, 3]), get()].concat(),
            Expect::Fine,
        ),
        wt("a stream of a session", [int(0x41), int(4), b"raw".to_vec()].concat(), Expect::Fine),
        wt("a stream of a session that cannot be", [int(0x41), int(2)].concat(), id),
        wt("a stream of a server's session", [int(0x41), int(5)].concat(), id),
        wt("the signal of WebTransport behind a head", [get(), int(0x41), int(4)].concat(), FRAME),
        wt("the signal of WebTransport behind a reserved frame", [frame(0x21, &[]), int(0x41), int(4)].concat(), FRAME),
    ]
}

pub fn at_client() -> Vec<Row> {
    let row = |name: &str, bytes: Vec<u8>, after, expect| Row::new(name, Side::Client, expect).request(bytes, after);
    let data = frame(0, b"abc");
    let early = headers(&[(b":status", b"103")]);
    let length = |n: &[u8], status: &[u8]| headers(&[(b":status", status), (b"content-length", n)]);
    let mut rows = Vec::new();
    for (name, bytes, expect) in misplaced() {
        rows.push(row(name, [ok(), bytes].concat(), After::Open, expect));
    }
    //= rfc9114#7.2.5-2 type=test
    let id = Expect::Connection(Code::ID_ERROR);
    rows.push(row("PUSH_PROMISE before the head", frame(5, &[0, 0, 0]), After::Open, id));
    rows.push(row("PUSH_PROMISE behind the head", [ok(), frame(5, &[0, 0, 0])].concat(), After::Open, id));
    //= rfc9114#4.1-3 type=test
    rows.extend([
        row("DATA before HEADERS", data.clone(), After::Open, UNEXPECTED),
        row("DATA behind an informational response", [early.clone(), data.clone()].concat(), After::Open, UNEXPECTED),
        row("a second final response", [ok(), ok()].concat(), After::Open, MESSAGE),
        row("a response behind trailers", [ok(), headers(&[(b"x", b"y")]), ok()].concat(), After::Open, UNEXPECTED),
        row("two informational responses", [early.clone(), early.clone(), ok()].concat(), After::Fin, Expect::Fine),
        row("an end before anything", vec![], After::Fin, MESSAGE),
        row("an end behind an informational response", early.clone(), After::Fin, MESSAGE),
        row("an end inside a head", ok()[..3].to_vec(), After::Fin, FRAME),
        row("content for 204", [length(b"3", b"204"), data.clone()].concat(), After::Open, MESSAGE),
        row("content for 304", [length(b"3", b"304"), data.clone()].concat(), After::Open, MESSAGE),
        row("content for HEAD", [length(b"3", b"200"), data.clone()].concat(), After::Open, MESSAGE).asked(Asked::Head),
        row("less content than promised", [length(b"4", b"200"), data.clone()].concat(), After::Fin, MESSAGE),
        row("more content than promised", [length(b"2", b"200"), data.clone()].concat(), After::Fin, MESSAGE),
        row("trailers in a tunnel", [ok(), data.clone(), headers(&[(b"x", b"y")])].concat(), After::Open, UNEXPECTED)
            .asked(Asked::Connect),
        row(
            "a refused CONNECT with content and trailers",
            [headers(&[(b":status", b"403")]), data.clone(), headers(&[(b"x", b"y")])].concat(),
            After::Fin,
            Expect::Fine,
        )
        .asked(Asked::Connect),
        row(
            "too many informational responses",
            early.repeat(30),
            After::Open,
            Expect::Connection(Code::EXCESSIVE_LOAD),
        )
        .with(|c| c.noise_budget = 29),
        row("the signal of WebTransport on a request", [int(0x41), int(0)].concat(), After::Open, FRAME)
            .with(|c| c.webtransport_sessions = 1),
    ]);
    //= rfc9114#6.1-3 type=test
    let creation = Expect::Connection(Code::STREAM_CREATION_ERROR);
    let from_server =
        |name: &str, bytes: Vec<u8>, expect| Row::new(name, Side::Client, expect).on(StreamId(1), bytes, After::Open);
    rows.extend([
        from_server("a two-way stream from a server", vec![], creation),
        from_server("a request from a server", get(), creation).with(|c| c.webtransport_sessions = 1),
        from_server("DATA from a server on its own stream", data, UNEXPECTED).with(|c| c.webtransport_sessions = 1),
        from_server("a stream of a session", [int(0x41), int(0)].concat(), Expect::Fine)
            .with(|c| c.webtransport_sessions = 1),
    ]);
    rows
}
