//! Control streams, QPACK streams, and one-way streams of other kinds.

use courser_core::ids::Side;
use courser_h3::Code;

use super::play::{After, Expect, Row, frame, int};

const UNEXPECTED: Expect = Expect::Connection(Code::FRAME_UNEXPECTED);
const FRAME: Expect = Expect::Connection(Code::FRAME_ERROR);
const ID: Expect = Expect::Connection(Code::ID_ERROR);
const MISSING: Expect = Expect::Connection(Code::MISSING_SETTINGS);
const SETTINGS: Expect = Expect::Connection(Code::SETTINGS_ERROR);
const LOAD: Expect = Expect::Connection(Code::EXCESSIVE_LOAD);

pub fn frames() -> Vec<Row> {
    let mut rows = Vec::new();
    for side in [Side::Server, Side::Client] {
        rows.extend(first(side));
        rows.extend(later(side));
    }
    // More, behind SETTINGS, at one side.
    let at = |side, name: &str, bytes: Vec<u8>, expect| Row::new(name, side, expect).uni(0, bytes, After::Open);
    let (server, client) = (Side::Server, Side::Client);
    //= rfc9114#7.2.7-4 type=test
    //= rfc9114#7.2.7-3 type=test
    //= rfc9114#7.2.6-1 type=test
    //= rfc9114#5.2-6 type=test
    //= rfc9218#7.2-4 type=test
    //= rfc9218#7.2-8 type=test
    //= rfc9218#7.2-10 type=test
    rows.extend([
        at(
            server,
            "MAX_PUSH_ID that grows",
            [frame(0xd, &[3]), frame(0xd, &[3]), frame(0xd, &[4])].concat(),
            Expect::Fine,
        ),
        at(server, "MAX_PUSH_ID that shrinks", [frame(0xd, &[3]), frame(0xd, &[2])].concat(), ID),
        at(client, "MAX_PUSH_ID", frame(0xd, &[3]), UNEXPECTED),
        at(
            server,
            "CANCEL_PUSH of a push that is permitted but not promised",
            [frame(0xd, &[9]), frame(3, &[1])].concat(),
            ID,
        ),
        at(client, "GOAWAY of a request", frame(7, &[8]), Expect::Fine),
        at(client, "GOAWAY that shrinks", [frame(7, &[8]), frame(7, &[8]), frame(7, &[4])].concat(), Expect::Fine),
        at(client, "GOAWAY that grows", [frame(7, &[4]), frame(7, &[8])].concat(), ID),
        at(client, "GOAWAY of a stream of the server", frame(7, &[1]), ID),
        at(client, "GOAWAY of a one-way stream", frame(7, &[2]), ID),
        at(server, "GOAWAY of any push", [frame(7, &[7]), frame(7, &[5])].concat(), Expect::Fine),
        at(server, "GOAWAY of more pushes than before", [frame(7, &[5]), frame(7, &[7])].concat(), ID),
        at(client, "PRIORITY_UPDATE", frame(0xf_0700, &[0]), UNEXPECTED),
        at(client, "PRIORITY_UPDATE of a push", frame(0xf_0701, &[0]), UNEXPECTED),
        at(server, "PRIORITY_UPDATE", frame(0xf_0700, b"\0u=1"), Expect::Fine),
        at(server, "PRIORITY_UPDATE that nobody understands", frame(0xf_0700, b"\0u=="), Expect::Fine),
        at(server, "PRIORITY_UPDATE of nothing", frame(0xf_0700, &[]), FRAME),
        at(server, "PRIORITY_UPDATE of half a number", frame(0xf_0700, &[0x40]), FRAME),
        at(server, "PRIORITY_UPDATE of a stream of the server", frame(0xf_0700, &[1]), ID),
        at(server, "PRIORITY_UPDATE of a one-way stream", frame(0xf_0700, &[2]), ID),
        at(server, "PRIORITY_UPDATE of a push", frame(0xf_0701, &[0]), ID),
        at(server, "PRIORITY_UPDATE of a kilobyte", frame(0xf_0700, &[b' '; 1000]), LOAD),
        at(server, "too many changes of priority", frame(0xf_0700, b"\0u=1").repeat(50), LOAD)
            .with(|c| c.noise_budget = 49),
    ]);
    rows
}

/// The first frame of a control stream.
fn first(side: Side) -> Vec<Row> {
    let row = |name: &str, bytes: Vec<u8>, expect| {
        Row::new(name, side, expect).ungreeted().uni(0, [vec![0], bytes].concat(), After::Open)
    };
    let setting = |id: u64, value: u64| frame(4, &[int(id), int(value)].concat());
    //= rfc9114#6.2.1-2 type=test
    //= rfc9114#9-3 type=test
    //= rfc9114#7.2.4.1-3 type=test
    //= rfc9114#7.2.4-6 type=test
    vec![
        row("GOAWAY before SETTINGS", frame(7, &[0]), MISSING),
        row("DATA before SETTINGS", frame(0, &[]), MISSING),
        row("HEADERS before SETTINGS", frame(1, &[]), MISSING),
        row("a reserved frame before SETTINGS", frame(0x21, &[]), MISSING),
        row("MAX_PUSH_ID before SETTINGS", frame(0xd, &[0]), MISSING),
        row("empty SETTINGS", frame(4, &[]), Expect::Fine),
        row("a setting that nobody knows", setting(0x1234, 5), Expect::Fine),
        row("a setting of HTTP/2: ENABLE_PUSH", setting(2, 0), SETTINGS),
        row("a setting of HTTP/2: MAX_CONCURRENT_STREAMS", setting(3, 100), SETTINGS),
        row("a setting of HTTP/2: INITIAL_WINDOW_SIZE", setting(4, 100), SETTINGS),
        row("a setting of HTTP/2: MAX_FRAME_SIZE", setting(5, 100), SETTINGS),
        row("a setting with the number 0", setting(0, 0), SETTINGS),
        row("a setting twice", frame(4, &[6, 1, 6, 1]), SETTINGS),
        row("a setting that is cut", frame(4, &[6]), FRAME),
        row("a setting whose value is cut", frame(4, &[6, 0x40]), FRAME),
        row("datagrams that are neither on nor off", setting(0x33, 2), SETTINGS),
        row("extended CONNECT that is neither on nor off", setting(8, 2), SETTINGS),
        row("WebTransport that is neither on nor off", setting(0x2c7c_f000, 2), SETTINGS),
        row("SETTINGS of 5 kB", frame(4, &[0; 5000]), LOAD),
    ]
}

/// Frames behind SETTINGS that neither side may send, or get wrong.
fn later(side: Side) -> Vec<Row> {
    let row = |name: &str, bytes: Vec<u8>, expect| Row::new(name, side, expect).uni(0, bytes, After::Open);
    //= rfc9114#7.2.4-2 type=test
    //= rfc9114#7.2.1-2 type=test
    //= rfc9114#7.2.2-1 type=test
    //= rfc9114#7.2.5-8 type=test
    //= rfc9114#7.2.8-2 type=test
    //= rfc9114#7.2.3-7 type=test
    //= rfc9114#7.2.3-8 type=test
    //= rfc9114#7.1-1 type=test
    //= rfc9114#7.1-2 type=test
    //= rfc9114#7.1-3 type=test
    //= rfc9114#10.8-1 type=test
    vec![
        row("SETTINGS again", frame(4, &[]), UNEXPECTED),
        row("DATA", frame(0, b"x"), UNEXPECTED),
        row("HEADERS", frame(1, b"\0\0"), UNEXPECTED),
        row("PUSH_PROMISE", frame(5, &[0, 0, 0]), UNEXPECTED),
        row("PRIORITY of HTTP/2", frame(2, &[]), UNEXPECTED),
        row("PING of HTTP/2", frame(6, &[]), UNEXPECTED),
        row("WINDOW_UPDATE of HTTP/2", frame(8, &[]), UNEXPECTED),
        row("CONTINUATION of HTTP/2", frame(9, &[]), UNEXPECTED),
        row("CANCEL_PUSH", frame(3, &[0]), ID),
        row("CANCEL_PUSH of nothing", frame(3, &[]), FRAME),
        row("CANCEL_PUSH of two", frame(3, &[0, 0]), FRAME),
        row("GOAWAY of nothing", frame(7, &[]), FRAME),
        row("GOAWAY of half a number", frame(7, &[0x40]), FRAME),
        row("GOAWAY with more than its number", frame(7, &[0, 0]), FRAME),
        row("GOAWAY of a kilobyte", frame(7, &[0; 1000]), FRAME),
        row("the signal of WebTransport", frame(0x41, &[]), FRAME).with(|c| c.webtransport_sessions = 1),
        row(
            "frames that nobody knows",
            (0..50).flat_map(|n| frame(0x1f * n + 0x21, &[7; 100])).collect(),
            Expect::Fine,
        ),
        row("too many frames that nobody knows", frame(0x21, &[]).repeat(50), LOAD).with(|c| c.noise_budget = 49),
    ]
}

pub fn streams() -> Vec<Row> {
    let mut rows = Vec::new();
    for side in [Side::Server, Side::Client] {
        let row = |name: &str, kind: &[u8], after, expect| Row::new(name, side, expect).uni(1, kind.to_vec(), after);
        let creation = Expect::Connection(Code::STREAM_CREATION_ERROR);
        let closed = Expect::Connection(Code::CLOSED_CRITICAL_STREAM);
        let stream = Expect::Connection(Code::QPACK_ENCODER_STREAM_ERROR);
        //= rfc9114#6.2.1-3 type=test
        for (name, kind) in [("QPACK encoder", 2), ("QPACK decoder", 3)] {
            rows.push(row(&format!("a second {name} stream"), &[kind], After::Open, creation).uni(
                2,
                vec![kind],
                After::Open,
            ));
        }
        rows.push(row("a second control stream", &[0, 4, 0], After::Open, creation));
        let cancels = |n| [vec![3], vec![0x44; n]].concat();
        rows.push(row("cancellations of streams without sections", &cancels(1000), After::Open, Expect::Fine));
        rows.push(row("too many of them", &cancels(50), After::Open, LOAD).with(|c| c.noise_budget = 49));
        let idle = |n| [vec![2, 0x3f, 0xe1, 0x1f], [0x41, b'n', 1, b'v'].repeat(n)].concat();
        rows.push(row("insertions without sections", &idle(9_999), After::Open, Expect::Fine));
        rows.push(row("too many of them", &idle(10_000), After::Open, LOAD));
        //= rfc9114#6.2.1-5 type=test
        rows.push(Row::new("a control stream that ends", side, closed).uni(0, vec![], After::Fin));
        rows.push(Row::new("a control stream that is reset", side, closed).uni(0, vec![], After::Reset(0x100)));
        rows.push(Row::new("a control stream that ends inside a frame", side, closed).uni(0, vec![7], After::Fin));
        rows.push(Row::new("a control stream that ends at once", side, closed).ungreeted().uni(0, vec![0], After::Fin));
        rows.push(row("a QPACK encoder stream that ends", &[2], After::Fin, closed));
        rows.push(row("a QPACK decoder stream that ends", &[3], After::Fin, closed));
        rows.push(row("a QPACK decoder stream that is reset", &[3], After::Open, closed).uni(
            1,
            vec![],
            After::Reset(0),
        ));
        rows.push(row("a table larger than permitted", &[2, 0x3f, 0xff, 0xff, 0x7f], After::Open, stream));
        rows.push(row("an insertion by a name that is not there", &[2, 0x80, 0], After::Open, stream));
        let decoder = Expect::Connection(Code::QPACK_DECODER_STREAM_ERROR);
        rows.push(row("an acknowledgment of nothing", &[3, 0x80], After::Open, decoder));
        rows.push(row("an increment of nothing", &[3, 0x00], After::Open, decoder));
        rows.push(row("an increment of what was not inserted", &[3, 0x01], After::Open, decoder));
        //= rfc9114#6.2-6 type=test
        //= rfc9114#6.2-4 type=test
        //= rfc9114#6.2.3-1 type=test
        //= rfc9114#9-2 type=test
        rows.push(row("a stream that nobody knows", &[0x21, 1, 2, 3], After::Open, Expect::Fine));
        rows.push(row("a stream of a long type", &[0xc0, 0, 0, 0, 0, 1, 2, 3, 4], After::Fin, Expect::Fine));
        //= rfc9114#6.2-9 type=test
        rows.push(row("a stream that ends before its type", &[], After::Fin, Expect::Fine));
        rows.push(row("a stream that ends inside its type", &[0x40], After::Fin, Expect::Fine));
        rows.push(row("a stream that is reset before its type", &[], After::Reset(9), Expect::Fine));
        rows.push(row("a stream of WebTransport where nobody speaks it", &[0x40, 0x54, 0], After::Open, Expect::Fine));
        let wt = |r: Row| r.with(|c| c.webtransport_sessions = 1);
        rows.push(wt(row("a stream of a session", &[0x40, 0x54, 0, 7, 7], After::Open, Expect::Fine)));
        rows.push(wt(row("a stream of a session that cannot be", &[0x40, 0x54, 3], After::Open, ID)));
        rows.push(
            row("too many streams that nobody knows", &[0x21], After::Open, LOAD)
                .uni(2, vec![0x40, 0x40], After::Open)
                .with(|c| c.noise_budget = 1),
        );
    }
    //= rfc9114#6.2.2-1 type=test
    let creation = Expect::Connection(Code::STREAM_CREATION_ERROR);
    rows.push(Row::new("a push stream", Side::Server, creation).uni(1, vec![1, 0], After::Open));
    //= rfc9114#4.6-2 type=test
    rows.push(Row::new("a push stream", Side::Client, ID).uni(1, vec![1, 0], After::Open));
    rows
}
