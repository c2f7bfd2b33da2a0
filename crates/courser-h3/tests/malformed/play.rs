//! Rows, and how they are played.

use bytes::Bytes;
use courser_core::ids::{Dir, Side, StreamId};
use courser_h3::testing::Memory;
use courser_h3::{Body, Code, Config, Connection, Error, Head};
use http::Request;

/// How the peer leaves a stream behind its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Open,
    Fin,
    Reset(u64),
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The connection ends.
    Connection(Code),
    /// The stream is given up.
    Stream(Code),
    /// The request is answered with 431.
    TooLarge,
    /// The peer gave the stream up.
    Reset(u64),
    /// Nothing is wrong.
    Fine,
}

/// What a row's client asked for before the peer says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Get,
    Head,
    Connect,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// The end that is tested.
    pub side: Side,
    pub asked: Asked,
    /// Whether the peer's SETTINGS come first.
    pub greeted: bool,
    pub config: Config,
    pub feed: Vec<(StreamId, Vec<u8>, After)>,
    pub expect: Expect,
}

/// A small limit on heads, so that rows can exceed it.
pub fn config() -> Config {
    Config { max_field_section_size: 1000, max_fields: 12, grease: false, ..Config::default() }
}

impl Row {
    pub fn new(name: impl Into<String>, side: Side, expect: Expect) -> Self {
        let name = format!("{side:?}: {}", name.into());
        Self { name, side, asked: Asked::Get, greeted: true, config: config(), feed: Vec::new(), expect }
    }

    /// Bytes on the request stream.
    pub fn request(self, bytes: Vec<u8>, after: After) -> Self {
        self.on(StreamId(0), bytes, after)
    }

    /// Bytes on the peer's one-way stream of that index; 0 is its control stream.
    pub fn uni(self, index: u64, bytes: Vec<u8>, after: After) -> Self {
        let id = StreamId::new(self.side.peer(), Dir::Uni, index);
        self.on(id, bytes, after)
    }

    pub fn on(mut self, id: StreamId, bytes: Vec<u8>, after: After) -> Self {
        self.feed.push((id, bytes, after));
        self
    }

    pub fn ungreeted(mut self) -> Self {
        self.greeted = false;
        self
    }

    pub fn asked(mut self, asked: Asked) -> Self {
        self.asked = asked;
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }
}

pub use courser_testing::web::{frame, headers, int};

/// The head of a good request.
pub fn get() -> Vec<u8> {
    headers(&[(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/")])
}

/// The head of a good response.
pub fn ok() -> Vec<u8> {
    headers(&[(b":status", b"200")])
}

pub const SETTINGS: &[u8] = &[0, 4, 0];

/// Plays a row.
pub fn play(row: &Row, piece: usize) -> Expect {
    let mut t = Memory::new(row.side);
    t.piece = piece;
    let mut conn = Connection::new(row.side, row.config.clone(), 1);
    conn.start(&mut t).unwrap();
    if row.side.is_client() {
        ask(&mut conn, &mut t, row.asked);
    }
    if row.greeted {
        let id = StreamId::new(row.side.peer(), Dir::Uni, 0);
        t.receive(id, SETTINGS, false);
        conn.on_uni(&mut t, id).unwrap();
    }
    let mut last = None;
    for (id, bytes, after) in &row.feed {
        t.receive(*id, bytes, *after == After::Fin);
        if let After::Reset(code) = after {
            t.stream(*id).incoming_reset = Some(*code);
        }
        let done = if id.dir() == Dir::Uni {
            conn.on_uni(&mut t, *id).map(|_| ()).map_err(Error::from)
        } else {
            read(&mut conn, &mut t, *id)
        };
        if let Err(error) = done {
            last = Some((*id, error));
        }
    }
    judge(&mut conn, &t, last)
}

fn ask(conn: &mut Connection, t: &mut Memory, asked: Asked) {
    let request = match asked {
        Asked::Get => Request::get("https://a.example/"),
        Asked::Head => Request::head("https://a.example/"),
        Asked::Connect => Request::connect("a.example:443"),
    };
    let (head, ()) = request.body(()).unwrap().into_parts();
    conn.send_request(t, &head, asked != Asked::Connect).unwrap().unwrap();
}

/// Polls a message until nothing more comes.
fn read(conn: &mut Connection, t: &mut Memory, id: StreamId) -> Result<(), Error> {
    loop {
        let begun = if conn.side().is_server() || id.initiator() == Side::Server {
            conn.poll_request(t, id).map(|head| matches!(head, Head::Ready(_)).then_some(false))
        } else {
            conn.poll_response(t, id).map(|head| match head {
                Head::Ready(parts) => Some(parts.status.is_informational()),
                _ => None,
            })
        };
        match begun {
            Ok(Some(true)) => {}
            Ok(Some(false)) | Err(Error::Misuse("the head was read before")) => break,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    loop {
        match conn.poll_body(t, id)? {
            Body::Data(_) | Body::Trailers(_) => {}
            Body::End | Body::Blocked | Body::WaitsForTable => return Ok(()),
        }
    }
}

fn judge(conn: &mut Connection, t: &Memory, last: Option<(StreamId, Error)>) -> Expect {
    if let Some((code, reason)) = &t.closed {
        assert!(!reason.is_empty());
        assert_eq!(conn.error().map(|e| e.code.0), Some(*code));
        assert!(matches!(conn.on_datagram(&mut Memory::new(conn.side()), Bytes::new()), Err(e) if e.code.0 == *code));
        return Expect::Connection(Code(*code));
    }
    assert_eq!(conn.error(), None);
    match last {
        Some((_, Error::Connection(e))) => panic!("{e}, but nothing was closed"),
        Some((id, Error::Stream { code, .. })) => {
            let stream = &t.streams[&id];
            assert!(stream.finished || stream.reset == Some(code.0), "the sending half: {stream:?}");
            assert!(stream.incoming_end || stream.stopped == Some(code.0), "the receiving half: {stream:?}");
            Expect::Stream(code)
        }
        Some((id, Error::TooLarge)) if conn.side().is_server() => {
            let stream = &t.streams[&id];
            assert!(stream.finished && stream.reset.is_none() && stream.outgoing.len() > 3);
            assert_eq!(stream.stopped, Some(Code::NO_ERROR.0));
            Expect::TooLarge
        }
        Some((_, Error::TooLarge)) => Expect::TooLarge,
        Some((_, Error::Reset(code))) => Expect::Reset(code),
        Some((_, other)) => panic!("{other}"),
        None => {
            // A stream may have been given up without a call that failed.
            let given_up = t.streams.values().find_map(|s| s.reset);
            given_up.map_or(Expect::Fine, |code| Expect::Stream(Code(code)))
        }
    }
}
