//! Targets for fuzzing: each takes any bytes and returns when nothing bad happened, or panics.
//!
//! Decoders are held to: no panic, the same from whole input and from single bytes, and what was understood can be written again
//! and means the same. The connection is held to: no panic, every call returns, what it closes with is a code of the documents,
//! it is closed once, and what it holds stays within its limits.

use bytes::Bytes;
use courser_core::ids::{Dir, Side, StreamId};
use courser_core::stream::Priority;
use courser_core::wire::Reader;
use http::{HeaderMap, Request, Response};

use super::Memory;
pub use super::fuzz_qpack::qpack;
use crate::capsule::{Capsule, CapsuleReader};
use crate::frame::FrameReader;
use crate::settings::Settings;
use crate::{Body, Code, Config, Connection, Error, Head, Protocol, datagram, priority, webtransport};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 3] = [("h3_frame", frames), ("h3_connection", connection), ("qpack", qpack)];

/// How many frames a reader sees in pieces of that size, and a checksum over their types, lengths and payloads.
fn read_frames(data: &[u8], piece: usize) -> (usize, u64, bool) {
    let (mut reader, mut count, mut sum) = (FrameReader::new(), 0, 0_u64);
    let mix = |sum: u64, value: u64| (sum ^ value).wrapping_mul(0x0100_0000_01b3);
    for part in data.chunks(piece.max(1)) {
        let mut part = Bytes::copy_from_slice(part);
        loop {
            if reader.open().is_none() {
                let Some(header) = reader.header(&mut part) else { break };
                count += 1;
                sum = mix(mix(sum, header.kind), header.len);
            }
            sum = reader.payload(&mut part).iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
            if reader.open().is_some() {
                break;
            }
        }
        assert!(part.is_empty(), "everything is taken");
    }
    (count, sum, reader.is_between_frames())
}

/// Capsules that a reader finds in pieces of that size.
fn read_capsules(data: &[u8], piece: usize) -> (Vec<Capsule>, bool) {
    let mut reader = CapsuleReader::new(64, |kind| kind < 100);
    let mut found = Vec::new();
    for part in data.chunks(piece.max(1)) {
        let mut part = Bytes::copy_from_slice(part);
        while let Some(capsule) = reader.next(&mut part) {
            found.push(capsule);
        }
        assert!(part.is_empty(), "everything is taken");
    }
    (found, reader.is_complete())
}

/// Frames, capsules, SETTINGS, priorities, datagrams.
///
/// # Panics
/// When something is understood differently in pieces, or not the same again.
pub fn frames(data: &[u8]) {
    let whole = read_frames(data, data.len());
    let capsules = read_capsules(data, data.len());
    for piece in [1, 2, 7] {
        assert_eq!(read_frames(data, piece), whole);
        assert_eq!(read_capsules(data, piece), capsules);
    }
    if let Ok(settings) = Settings::decode(data) {
        let mut again = Vec::new();
        settings.encode(None, &mut again);
        let again = Settings::decode(&again).expect("what is written is understood");
        let known = |s: &Settings| Settings { webtransport_sessions: s.webtransport_sessions.min(1), ..*s };
        assert_eq!(known(&again), known(&settings));
    }
    if let Some(value) = priority::parse(data) {
        let (again, n) = priority::format(value);
        assert_eq!(priority::parse(&again[..n]), Some(value));
    }
    if let Ok((stream, payload)) = datagram::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(datagram::decode(datagram::encode(stream, &payload)), Ok((stream, payload)));
    }
    let _ = webtransport::CloseSession::decode(Bytes::copy_from_slice(data));
}

/// A connection, its transport, and the script it follows.
struct Play<'a> {
    conn: Connection,
    t: Memory,
    script: Reader<'a>,
    /// How often an error was told that closes.
    closed: Option<Code>,
}

/// A whole connection: the bytes are a script of what the peer sends and what the application does.
///
/// # Panics
/// When the connection does what it must not.
pub fn connection(data: &[u8]) {
    let mut script = Reader::new(data);
    let flags = script.u8().unwrap_or(0);
    let side = if flags & 1 == 0 { Side::Server } else { Side::Client };
    let config = Config {
        max_field_section_size: 2000,
        max_fields: 20,
        qpack_table_capacity: if flags & 2 == 0 { 200 } else { 0 },
        qpack_blocked_streams: 2,
        webtransport_sessions: u64::from(flags >> 2 & 1),
        datagrams: flags & 8 == 0,
        max_requests: 8,
        noise_budget: 200,
        early_priorities: 4,
        ..Config::default()
    };
    let mut t = Memory::new(side);
    t.piece = if flags & 16 == 0 { usize::MAX } else { 1 };
    t.room = if flags & 32 == 0 { 1 << 20 } else { 9 };
    t.may_open = [12, 12];
    let remembered = config.settings(true);
    let mut play = Play { conn: Connection::new(side, config, 3), t, script, closed: None };
    if flags & 64 != 0 {
        play.conn.resume(remembered);
    }
    let started = play.conn.start(&mut play.t);
    assert!(started.is_ok(), "nothing came yet");
    for _ in 0..400 {
        if play.step().is_none() {
            break;
        }
        play.check();
    }
}

impl Play<'_> {
    /// One step of the script; `None` at its end.
    fn step(&mut self) -> Option<()> {
        let op = self.script.u8()?;
        let which = u64::from(self.script.u8()?);
        match op % 14 {
            0..=2 => self.feed(op, which),
            3..=5 => self.feed_message(op, which),
            6 => self.poll(StreamId(which & !3)),
            7 => self.answer(StreamId(which & !3)),
            8 => self.ask(which),
            9 => self.send(StreamId(which & !3)),
            10 => {
                let datagram = Bytes::copy_from_slice(self.script.prefixed().unwrap_or_default());
                let done = self.conn.on_datagram(&mut self.t, datagram);
                self.note(done.err().map(Error::from));
                self.conn.send_datagram(&mut self.t, StreamId(which & !3), b"x");
            }
            11 => match which % 4 {
                0 => self.conn.forget(&mut self.t, StreamId(which & !3)),
                1 => self.conn.cancel(&mut self.t, StreamId(which & !3), Code::REQUEST_CANCELLED),
                2 => self.conn.stop_body(&mut self.t, StreamId(which & !3), Code::NO_ERROR),
                _ => {
                    let priority = Priority { urgency: 1, incremental: true };
                    self.conn.update_priority(&mut self.t, StreamId(which & !3), priority);
                }
            },
            12 => {
                // The peer takes what was written, and everything in pieces.
                for stream in self.t.streams.values_mut() {
                    stream.outgoing.clear();
                }
                let done = self.conn.pump(&mut self.t);
                self.note(done.err().map(Error::from));
            }
            _ if which % 8 == 6 => {
                let done = self.conn.on_early_data(&mut self.t, which & 8 != 0);
                self.note(done.err().map(Error::from));
            }
            _ if which % 8 == 7 => self.conn.goaway(&mut self.t, which & 8 != 0),
            _ => {
                let id = self.own_or_peer(which);
                self.t.stream(id).stopped_by_peer = Some(which);
            }
        }
        while self.conn.poll_event().is_some() {}
        Some(())
    }

    fn own_or_peer(&self, which: u64) -> StreamId {
        let side = self.conn.side();
        let initiator = if which & 1 == 0 { side } else { side.peer() };
        StreamId::new(initiator, if which & 2 == 0 { Dir::Bi } else { Dir::Uni }, which >> 2 & 7)
    }

    /// Bytes on a one-way stream of the peer.
    fn feed(&mut self, op: u8, which: u64) {
        let id = StreamId::new(self.conn.side().peer(), Dir::Uni, which & 7);
        self.receive(id, op, which);
        let done = self.conn.on_uni(&mut self.t, id);
        self.note(done.err().map(Error::from));
    }

    /// Bytes on a two-way stream.
    fn feed_message(&mut self, op: u8, which: u64) {
        let id = StreamId(which & 0x1c);
        self.receive(id, op, which);
        self.poll(id);
    }

    fn receive(&mut self, id: StreamId, op: u8, which: u64) {
        let bytes = self.script.prefixed().unwrap_or_default();
        self.t.receive(id, bytes, op % 3 == 1);
        if op % 3 == 2 && which & 0x80 != 0 {
            self.t.stream(id).incoming_reset = Some(0x10c);
        }
    }

    fn poll(&mut self, id: StreamId) {
        for _ in 0..64 {
            let head = if self.conn.side().is_server() {
                self.conn.poll_request(&mut self.t, id).map(|head| matches!(head, Head::Ready(_)))
            } else {
                self.conn.poll_response(&mut self.t, id).map(|head| matches!(head, Head::Ready(_)))
            };
            let more = *head.as_ref().unwrap_or(&false);
            self.note(head.err());
            if !more {
                break;
            }
        }
        for _ in 0..10_000 {
            match self.conn.poll_body(&mut self.t, id) {
                Ok(Body::Data(data)) => assert!(!data.is_empty()),
                Ok(Body::Trailers(_)) => {}
                Ok(_) => return,
                Err(error) => return self.note(Some(error)),
            }
        }
        assert_eq!(self.t.piece, 1, "a message without end");
    }

    fn answer(&mut self, id: StreamId) {
        let (mut head, ()) = Response::new(()).into_parts();
        let how = self.script.u8().unwrap_or(0);
        head.status = http::StatusCode::from_u16([200, 204, 103, 404][usize::from(how % 4)]).unwrap_or_default();
        if how & 4 != 0 {
            head.headers.insert("content-length", 3.into());
        }
        let mut body = Bytes::from_static(if how & 8 == 0 { b"" } else { b"abc" });
        let done = self.conn.send_response_with(&mut self.t, id, &head, &mut body, how & 16 != 0);
        self.note(done.err());
    }

    fn ask(&mut self, which: u64) {
        let request =
            if which & 1 == 0 { Request::post("https://a.example/") } else { Request::connect("https://a.example/") };
        let Ok(request) = request.body(()) else { return };
        let (mut head, ()) = request.into_parts();
        if which & 1 == 1 {
            head.extensions.extend(
                Protocol::new("webtransport")
                    .map(|p| {
                        let mut extensions = http::Extensions::new();
                        extensions.insert(p);
                        extensions
                    })
                    .unwrap_or_default(),
            );
        }
        let done = self.conn.send_request(&mut self.t, &head, which & 2 == 0);
        self.note(done.err());
    }

    fn send(&mut self, id: StreamId) {
        let how = self.script.u8().unwrap_or(0);
        let mut data = Bytes::from(vec![how; usize::from(how)]);
        let done = self.conn.send_body(&mut self.t, id, &mut data, how & 1 == 0);
        self.note(done.err());
        if how.is_multiple_of(5) {
            let mut trailers = HeaderMap::new();
            trailers.insert("x", http::HeaderValue::from_static("y"));
            let done = self.conn.send_trailers(&mut self.t, id, &trailers);
            self.note(done.err());
        }
        let done = self.conn.flush(&mut self.t, id);
        self.note(done.err());
    }

    fn note(&mut self, error: Option<Error>) {
        if let Some(Error::Connection(error)) = error {
            assert!(self.closed.is_none_or(|code| code == error.code), "another error than before");
            self.closed = Some(error.code);
        }
    }

    fn check(&self) {
        match (&self.t.closed, self.conn.error()) {
            (Some((code, reason)), Some(error)) => {
                assert_eq!((*code, reason.as_str()), (error.code.0, &*error.reason));
                assert!(error.code.name().is_some() && error.code != Code::INTERNAL_ERROR, "{error}");
            }
            (None, None) => {}
            other => panic!("closed and not, or the other way round: {other:?}"),
        }
        let most = if self.conn.side().is_server() { 8 } else { 12 + 64 };
        assert!(self.conn.active_requests() <= most, "more requests than permitted");
        for (id, stream) in &self.t.streams {
            let codes = [stream.reset, stream.stopped];
            assert!(codes.into_iter().flatten().all(|code| Code(code).name().is_some()), "stream {id}: {codes:?}");
        }
    }
}
