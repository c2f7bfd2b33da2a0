//! Floods of every item of HTTP/3 and QPACK by a peer that reads nothing, so that whatever is said in answer piles up: memory
//! stays small, or the connection ends with a code for it.
//!
//! Twenty thousand of each; `COURSER_FLOOD` says another number, a million in the form that runs before a release. What the
//! transport in memory holds does not count: a real one has its own limits, and a test of them.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant as Clock;

use bytes::Bytes;
use courser_core::ids::{Dir, Side, StreamId};
use courser_core::time::Instant;
use courser_h3::testing::Memory;
use courser_h3::watch::{Told, Watch};
use courser_h3::{Body, Config, Connection, Error, Head, Uni};
use courser_testing::alloc::{Counting, now};
use courser_testing::web::{capacity, frame, headers, insert, int, referring};
use http::{Request, Response};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a connection may hold more than before.
const BEYOND: i64 = 256 << 10;
/// Streams of a kind that the peer may have open: what a transport grants.
const STREAMS: usize = 100;
/// Items between two looks, for each of which a millisecond passes.
const BATCH: u64 = 40;

/// Where an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Control,
    Encoder,
    Decoder,
    /// A one-way stream of its own.
    Uni,
    /// The first request, or its answer, before anything else.
    Bare,
    /// The same behind a head.
    Message,
    /// A request of its own, which the peer leaves open, ends, or gives up.
    Open,
    Ended,
    GivenUp,
    Datagram,
}

use Place::{Bare, Control, Datagram, Decoder, Encoder, Ended, GivenUp, Message, Open};

struct Item {
    name: &'static str,
    place: Place,
    make: fn(u64) -> Vec<u8>,
    /// Codes with which a connection may end for it, at a server and at a client; `None`: it does not come there.
    server: Option<&'static [u64]>,
    client: Option<&'static [u64]>,
}

const fn item(
    name: &'static str,
    place: Place,
    make: fn(u64) -> Vec<u8>,
    server: Option<&'static [u64]>,
    client: Option<&'static [u64]>,
) -> Item {
    Item { name, place, make, server, client }
}

fn get() -> Vec<u8> {
    headers(&[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/")])
}

const LOAD: Option<&[u64]> = Some(&[0x107]);
const UNEXPECTED: Option<&[u64]> = Some(&[0x105]);
const ID: Option<&[u64]> = Some(&[0x108]);
const FINE: Option<&[u64]> = Some(&[]);
const CREATION: Option<&[u64]> = Some(&[0x103]);

/// All there is. Codes beside 0x107 are those that the RFCs have for one of them.
const ITEMS: &[Item] = &[
    item("DATA", Control, |_| frame(0, b"x"), UNEXPECTED, UNEXPECTED),
    item("HEADERS", Control, |_| frame(1, &[0, 0]), UNEXPECTED, UNEXPECTED),
    item("CANCEL_PUSH", Control, |n| frame(3, &int(n)), ID, ID),
    item("SETTINGS", Control, |_| frame(4, b""), UNEXPECTED, UNEXPECTED),
    item("PUSH_PROMISE", Control, |_| frame(5, &[0, 0, 0]), UNEXPECTED, UNEXPECTED),
    item("GOAWAY", Control, |_| frame(7, &int(0)), LOAD, LOAD),
    item("GOAWAY that rises", Control, |n| frame(7, &int(4 * n)), ID, ID),
    item("MAX_PUSH_ID", Control, |_| frame(13, &int(1)), LOAD, UNEXPECTED),
    item("MAX_PUSH_ID that rises", Control, |n| frame(13, &int(n)), LOAD, UNEXPECTED),
    item(
        "PRIORITY_UPDATE",
        Control,
        |n| frame(0xf_0700, &[int(4 * (n % 100)), b"u=1".to_vec()].concat()),
        LOAD,
        UNEXPECTED,
    ),
    item("PRIORITY_UPDATE of a push", Control, |n| frame(0xf_0701, &int(n)), ID, UNEXPECTED),
    item("reserved frame", Control, |n| frame(0x21 + 0x1f * (n % 9999), b""), LOAD, LOAD),
    item("unknown frame of a KiB", Control, |_| frame(0x1234, &[0; 1024]), LOAD, LOAD),
    item("WINDOW_UPDATE of HTTP/2", Control, |_| frame(8, &[0; 4]), UNEXPECTED, UNEXPECTED),
    item("frame of any length", Control, |n| frame(0x3fff, &vec![0; (n % 300) as usize]), LOAD, LOAD),
    item(
        "byte of a frame without end",
        Control,
        |n| if n == 0 { [int(0x1234), int(u64::MAX)].concat() } else { vec![0] },
        FINE,
        FINE,
    ),
    item("DATA before a head", Bare, |_| frame(0, b"x"), UNEXPECTED, UNEXPECTED),
    item("reserved frame before a head", Bare, |n| frame(0x21 + 0x1f * (n % 9999), b""), LOAD, LOAD),
    item("unknown frame of a KiB before a head", Bare, |_| frame(0x1234, &[0; 1024]), LOAD, LOAD),
    item("interim head", Bare, |_| headers(&[(b":status", b"103"), (b"link", b"</a>")]), None, LOAD),
    item(
        "byte of a head without end",
        Bare,
        |n| if n == 0 { [int(1), int(u64::MAX)].concat() } else { vec![0] },
        FINE,
        FINE,
    ),
    item("DATA", Message, |_| frame(0, b"content"), FINE, FINE),
    item("DATA of a KiB", Message, |_| frame(0, &[0; 1024]), FINE, FINE),
    item("DATA of no bytes", Message, |_| frame(0, b""), LOAD, LOAD),
    item(
        "byte of DATA without end",
        Message,
        |n| if n == 0 { [int(0), int(u64::MAX)].concat() } else { vec![0] },
        FINE,
        FINE,
    ),
    item("trailers", Message, |_| headers(&[(b"a", b"b")]), UNEXPECTED, UNEXPECTED),
    item("PUSH_PROMISE", Message, |_| frame(5, &[0, 0, 0]), UNEXPECTED, ID),
    item("CANCEL_PUSH", Message, |_| frame(3, &int(0)), UNEXPECTED, UNEXPECTED),
    item("GOAWAY", Message, |_| frame(7, &int(0)), UNEXPECTED, UNEXPECTED),
    item("MAX_PUSH_ID", Message, |_| frame(13, &int(0)), UNEXPECTED, UNEXPECTED),
    item("SETTINGS", Message, |_| frame(4, b""), UNEXPECTED, UNEXPECTED),
    item("PRIORITY of HTTP/2", Message, |_| frame(2, b""), UNEXPECTED, UNEXPECTED),
    item("reserved frame", Message, |n| frame(0x21 + 0x1f * (n % 9999), b""), LOAD, LOAD),
    item("unknown frame of a KiB", Message, |_| frame(0x1234, &[0; 1024]), LOAD, LOAD),
    item("request whose answer nobody reads", Ended, |_| get(), LOAD, None),
    item("request that is given up", GivenUp, |_| get(), LOAD, None),
    item("request without an end", Open, |_| get(), LOAD, None),
    item("half a head", Open, |_| get()[..20].to_vec(), LOAD, None),
    item("half a head that is given up", GivenUp, |_| get()[..20].to_vec(), LOAD, None),
    item("half a head that ends", Ended, |_| get()[..20].to_vec(), Some(&[0x106]), None),
    item("stream of no bytes", Ended, |_| Vec::new(), LOAD, None),
    item("malformed head", Ended, |_| headers(&[(b"A", b"b")]), LOAD, None),
    item("head of 300 fields", Ended, |_| headers(&[(&b"a"[..], &b"b"[..]); 300]), LOAD, None),
    item("head of 100 kB", Ended, |_| headers(&[(b"a", &[b'v'; 50_000]), (b"b", &[b'v'; 50_000])]), LOAD, None),
    item("head that waits for the table", Open, |_| referring(&[], 9, 128, 1), Some(&[0x200]), None),
    item("head that waits for the table and is given up", GivenUp, |_| referring(&[], 9, 128, 1), LOAD, None),
    item("head with a reference to nothing", Ended, |_| frame(1, &[0, 0, 0x80]), Some(&[0x200]), None),
    item("Set Dynamic Table Capacity", Encoder, |n| capacity(if n % 2 == 0 { 4096 } else { 0 }), LOAD, LOAD),
    item("capacity that was not offered", Encoder, |_| capacity(1 << 30), Some(&[0x201]), Some(&[0x201])),
    item("Insert with Literal Name", Encoder, |n| insert(b"name", &int(n)), LOAD, LOAD),
    item("Insert with Name Reference", Encoder, |_| vec![0xc1, 1, b'/'], LOAD, LOAD),
    item("Duplicate", Encoder, |n| if n == 0 { insert(b"name", &[b'v'; 1900]) } else { vec![0] }, LOAD, LOAD),
    item("entry larger than the table", Encoder, |_| insert(b"name", &[b'v'; 5000]), Some(&[0x201]), Some(&[0x201])),
    item("name reference to nothing", Encoder, |_| vec![0x80, 1, b'/'], Some(&[0x201]), Some(&[0x201])),
    item("Section Acknowledgment", Decoder, |_| vec![0x84], Some(&[0x202]), Some(&[0x202])),
    item("Stream Cancellation", Decoder, |n| vec![0x40 | (n % 60) as u8], LOAD, LOAD),
    item("Insert Count Increment", Decoder, |_| vec![1], Some(&[0x202]), Some(&[0x202])),
    item(
        "stream of an unknown type",
        Place::Uni,
        |n| [int(0x21 + 0x1f * (n % 9999)), vec![0; 100]].concat(),
        LOAD,
        LOAD,
    ),
    item("stream without a type", Place::Uni, |_| Vec::new(), FINE, FINE),
    item("stream with half a type", Place::Uni, |_| vec![0xc0], FINE, FINE),
    item("control stream", Place::Uni, |_| vec![0, 4, 0], CREATION, CREATION),
    item("encoder stream", Place::Uni, |_| vec![2], CREATION, CREATION),
    item("decoder stream", Place::Uni, |_| vec![3], CREATION, CREATION),
    item("push stream", Place::Uni, |n| [int(1), int(n)].concat(), CREATION, ID),
    item("datagram", Datagram, |n| [int(n % 100), vec![0; 100]].concat(), FINE, FINE),
    item("datagram without a number", Datagram, |_| Vec::new(), Some(&[0x33]), Some(&[0x33])),
];

fn wanted() -> u64 {
    std::env::var("COURSER_FLOOD").map_or(20_000, |v| v.parse().unwrap())
}

/// The end that is flooded.
struct Victim {
    side: Side,
    conn: Connection,
    t: Memory,
    /// Streams that the peer has open.
    open: VecDeque<StreamId>,
    /// How many streams of each direction the peer opened.
    next: [u64; 2],
}

impl Victim {
    fn new(side: Side, watch: Option<Box<dyn Watch>>) -> Self {
        let mut t = Memory::new(side);
        // Its control stream gets through; then the window is shut.
        let mut conn = Connection::new(side, Config { datagrams: true, ..Config::default() }, 1);
        if let Some(watch) = watch {
            conn.set_watch(watch);
        }
        conn.start(&mut t).unwrap();
        t.room = 0;
        let mut victim = Self { side, conn, t, open: VecDeque::new(), next: [0; 2] };
        for begin in [vec![0, 4, 2, 0x33, 1], [vec![2], capacity(4096)].concat(), vec![3]] {
            let id = victim.stream(Dir::Uni);
            victim.t.receive(id, &begin, false);
            victim.conn.on_uni(&mut victim.t, id).unwrap();
        }
        if side.is_client() {
            let (head, ()) = Request::get("https://a.example/").body(()).unwrap().into_parts();
            victim.conn.send_request(&mut victim.t, &head, true).unwrap().unwrap();
        }
        victim
    }

    /// The next stream of the peer.
    fn stream(&mut self, dir: Dir) -> StreamId {
        let at = usize::from(dir == Dir::Uni);
        self.next[at] += 1;
        StreamId::new(self.side.peer(), dir, self.next[at] - 1)
    }

    /// The peer's one-way stream of that number.
    fn uni(&mut self, index: u64, bytes: &[u8]) {
        let id = StreamId::new(self.side.peer(), Dir::Uni, index);
        self.t.receive(id, bytes, false);
        let _ = self.conn.on_uni(&mut self.t, id);
    }

    /// The application reads what there is of a message, and answers a request; whether it is done with it.
    fn read(&mut self, id: StreamId) -> bool {
        if self.side.is_server() {
            match self.conn.poll_request(&mut self.t, id) {
                Ok(Head::Ready(_)) => self.answer(id),
                Ok(_) => return false,
                Err(Error::Misuse("the head was read before")) => {}
                Err(_) => return true,
            }
        } else {
            loop {
                match self.conn.poll_response(&mut self.t, id) {
                    Ok(Head::Ready(_)) => {}
                    Ok(_) => return false,
                    Err(Error::Misuse("the head was read before")) => break,
                    Err(_) => return true,
                }
            }
        }
        loop {
            match self.conn.poll_body(&mut self.t, id) {
                Ok(Body::Data(_) | Body::Trailers(_)) => {}
                Ok(Body::End) | Err(_) => return true,
                Ok(Body::Blocked | Body::WaitsForTable) => return false,
            }
        }
    }

    fn answer(&mut self, id: StreamId) {
        let (head, ()) = Response::builder().header("content-length", 5).body(()).unwrap().into_parts();
        let _ = self.conn.send_response_with(&mut self.t, id, &head, &mut Bytes::from_static(b"hello"), true);
    }

    /// A request of its own.
    fn request(&mut self, bytes: &[u8], place: Place) {
        if self.open.len() >= STREAMS {
            // The peer wants no answer after all: only then is there credit for another stream.
            let Some(id) = self.open.pop_front() else { return };
            self.over(id);
        }
        let id = self.stream(Dir::Bi);
        self.t.receive(id, bytes, place == Ended);
        let done = self.read(id);
        if done {
            self.conn.forget(&mut self.t, id);
        }
        if place == GivenUp {
            self.over(id);
        } else {
            self.open.push_back(id);
        }
    }

    /// The peer gives a stream up, both ways.
    fn over(&mut self, id: StreamId) {
        let stream = self.t.stream(id);
        (stream.stopped_by_peer, stream.incoming_reset) = (Some(0x10c), Some(0x10c));
        let _ = self.conn.flush(&mut self.t, id);
        self.read(id);
        self.conn.forget(&mut self.t, id);
        let _ = self.conn.pump(&mut self.t);
        self.t.streams.remove(&id);
    }

    /// Bytes of the first request, or of its answer.
    fn message(&mut self, bytes: &[u8]) {
        let id = StreamId(0);
        // A transport throws away what comes on a stream that it was told to stop.
        if self.t.stream(id).stopped.is_none() {
            self.t.receive(id, bytes, false);
            self.read(id);
        }
    }

    fn give(&mut self, item: &Item, n: u64) {
        let bytes = (item.make)(n);
        match item.place {
            Control => self.uni(0, &bytes),
            Encoder => self.uni(1, &bytes),
            Decoder => self.uni(2, &bytes),
            Bare | Message => self.message(&bytes),
            Open | Ended | GivenUp => self.request(&bytes, item.place),
            Datagram => _ = self.conn.on_datagram(&mut self.t, bytes.into()),
            Place::Uni if self.open.len() < STREAMS => {
                let id = self.stream(Dir::Uni);
                self.t.receive(id, &bytes, bytes.is_empty());
                match self.conn.on_uni(&mut self.t, id) {
                    Ok(Uni::Kept) => self.open.push_back(id),
                    _ => _ = self.t.streams.remove(&id),
                }
            }
            Place::Uni => {}
        }
    }
}

/// Bytes that the transport in memory holds.
fn held(t: &Memory) -> i64 {
    let streams = t.streams.values().map(|s| s.incoming.iter().map(Bytes::len).sum::<usize>() + s.outgoing.capacity());
    (streams.sum::<usize>() + t.datagrams.len() * 200 + t.streams.len() * 400) as i64
}

/// What became of a flood: how many came, the most that was held, the code.
fn flood(side: Side, item: &Item, watch: Option<Box<dyn Watch>>) -> (u64, i64, Option<u64>) {
    let mut victim = Victim::new(side, watch);
    if item.place == Message {
        victim.message(&if side.is_server() { get() } else { headers(&[(b":status", b"200")]) });
    }
    let (before, mut most, mut sent) = (now().live - held(&victim.t), 0, 0);
    let (begin, mut tenth) = (Clock::now(), None);
    while sent < wanted() && victim.t.closed.is_none() {
        for _ in 0..BATCH {
            victim.give(item, sent);
            sent += 1;
        }
        victim.conn.set_now(Instant::from_micros(1_000_000 + sent / BATCH * 1000));
        while victim.conn.poll_event().is_some() {}
        most = most.max(now().live - held(&victim.t) - before);
        if sent >= wanted() / 10 {
            tenth.get_or_insert_with(|| begin.elapsed());
        }
    }
    let code = victim.t.closed.as_ref().map(|(code, _)| *code);
    let times = tenth.map_or(String::new(), |tenth| {
        format!(", a tenth in {:.1} ms, all in {:.1}", tenth.as_secs_f64() * 1e3, begin.elapsed().as_secs_f64() * 1e3)
    });
    let (name, place) = (item.name, item.place);
    println!("{name} ({place:?}) to a {side:?}: {sent}, {} KiB, closed {code:x?}{times}", most >> 10);
    (sent, most, code)
}

/// A log that has everything in words, in memory that it uses again.
#[derive(Default)]
struct Log {
    line: String,
    written: Arc<AtomicU64>,
}

impl Watch for Log {
    fn on(&mut self, told: &Told<'_>) {
        self.line.clear();
        write!(self.line, "{told:?}").unwrap();
        self.written.fetch_add(self.line.len() as u64, Ordering::Relaxed);
    }
}

#[test]
fn the_most_detailed_log_changes_nothing_about_a_flood() {
    let mut lines = 0;
    for item in ITEMS {
        for (side, codes) in [(Side::Server, item.server), (Side::Client, item.client)] {
            if codes.is_none() {
                continue;
            }
            let log = Log { line: String::with_capacity(64 << 10), ..Log::default() };
            let written = Arc::clone(&log.written);
            let (plain, logged) = (flood(side, item, None), flood(side, item, Some(Box::new(log))));
            let what = format!("{} ({:?}) to a {side:?}", item.name, item.place);
            assert_eq!((plain.0, plain.2), (logged.0, logged.2), "{what}");
            assert!(logged.1 <= BEYOND, "{what}: {} bytes are held", logged.1);
            lines += written.load(Ordering::Relaxed);
        }
    }
    println!("{lines} bytes of log");
    assert!(lines > 1 << 20, "{lines} bytes were logged");
}

#[test]
fn no_item_of_http_3_or_qpack_fills_memory_while_nothing_is_read() {
    for item in ITEMS {
        for (side, codes) in [(Side::Server, item.server), (Side::Client, item.client)] {
            let Some(codes) = codes else { continue };
            let (sent, most, code) = flood(side, item, None);
            let what = format!("{} ({:?}) to a {side:?}", item.name, item.place);
            assert!(most <= BEYOND, "{what}: {most} bytes are held after {sent}");
            assert!(code.is_none_or(|code| codes.contains(&code)), "{what} ended with {code:x?} after {sent}");
            // What is wrong by itself ends at once; what is too much ends when it is.
            let must = codes.first().is_some_and(|code| *code != 0x107);
            assert!(code.is_some() || !must, "{what} went on after {sent}");
        }
    }
}
