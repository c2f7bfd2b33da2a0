//! What HTTP/3 costs without a transport: requests and answers between two connections in memory.
//!
//! `exchange_costs ROUNDS [CONTENT]` makes that many requests with the header fields of a browser or a small program and
//! answers them. To be counted by `valgrind --tool=callgrind` with two numbers of rounds: the difference is what they cost.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use courser_core::ids::{Dir, Side, StreamId};
use courser_core::stream::Priority;
use courser_h3::{Body, Config, Connection, Head, Read, Transport, WriteError};
use http::{Request, Response};

/// What one end sent on a stream.
#[derive(Default)]
struct Half {
    pieces: VecDeque<Bytes>,
    end: bool,
}

/// Both directions of some streams: few are open at a time, so that they are found by their number.
#[derive(Default)]
struct Wire {
    /// By the sender's side, then by the stream's number modulo the length.
    halves: [Vec<Half>; 2],
}

const STREAMS: usize = 64;

impl Wire {
    fn half(&mut self, sender: Side, id: StreamId) -> &mut Half {
        let halves = &mut self.halves[usize::from(sender.is_server())];
        if halves.is_empty() {
            halves.resize_with(STREAMS, Half::default);
        }
        // One-way streams have few numbers and stay; two-way ones come and go.
        let at = if id.dir() == Dir::Uni { id.0 % 16 } else { 16 + id.index() % 32 };
        &mut halves[usize::try_from(at).unwrap()]
    }
}

struct End<'a> {
    side: Side,
    wire: &'a mut Wire,
    opened: &'a mut [u64; 2],
}

impl Transport for End<'_> {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let at = usize::from(dir == Dir::Uni);
        let id = StreamId::new(self.side, dir, self.opened[at]);
        self.opened[at] += 1;
        for side in [Side::Client, Side::Server] {
            *self.wire.half(side, id) = Half::default();
        }
        Some(id)
    }

    fn read(&mut self, stream: StreamId) -> Read {
        let half = self.wire.half(self.side.peer(), stream);
        match half.pieces.pop_front() {
            Some(piece) => Read::Data(piece),
            None if half.end => Read::End,
            None => Read::Blocked,
        }
    }

    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let n = data.len();
        self.wire.half(self.side, stream).pieces.push_back(data.split_to(n));
        Ok(n)
    }

    fn write_copy(&mut self, stream: StreamId, mut data: &[u8]) -> Result<usize, WriteError> {
        let n = data.len();
        self.wire.half(self.side, stream).pieces.push_back(data.copy_to_bytes(n));
        Ok(n)
    }

    fn finish(&mut self, stream: StreamId) {
        self.wire.half(self.side, stream).end = true;
    }

    fn reset(&mut self, _: StreamId, _: u64) {
        unreachable!("nothing goes wrong here");
    }

    fn stop(&mut self, _: StreamId, _: u64) {
        unreachable!("nothing goes wrong here");
    }

    fn set_priority(&mut self, _: StreamId, _: Priority) {}

    fn send_datagram(&mut self, _: Bytes) -> bool {
        false
    }

    fn close(&mut self, code: u64, reason: &str) {
        panic!("{code:#x}: {reason}");
    }
}

/// Reads the one-way streams of the peer.
fn listen(conn: &mut Connection, t: &mut End<'_>) {
    for index in 0..3 {
        let id = StreamId::new(t.side.peer(), Dir::Uni, index);
        conn.on_uni(t, id).unwrap();
    }
    while conn.poll_event().is_some() {}
}

fn main() {
    let mut args = std::env::args().skip(1);
    let rounds: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let content = Bytes::from(vec![b'x'; args.next().and_then(|n| n.parse().ok()).unwrap_or(1024)]);
    let browser = args.next().is_some();
    let (mut wire, mut of_client, mut of_server) = (Wire::default(), [0; 2], [0; 2]);
    let mut client = Connection::new(Side::Client, Config::default(), 1);
    let mut server = Connection::new(Side::Server, Config::default(), 2);
    macro_rules! ends {
        (client) => {
            &mut End { side: Side::Client, wire: &mut wire, opened: &mut of_client }
        };
        (server) => {
            &mut End { side: Side::Server, wire: &mut wire, opened: &mut of_server }
        };
    }
    client.start(ends!(client)).unwrap();
    server.start(ends!(server)).unwrap();
    let mut request = Request::get("https://www.example.org/assets/style.css").body(()).unwrap().into_parts().0;
    if browser {
        for (name, value) in [
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            ("accept", "text/css,*/*;q=0.1"),
            ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("referer", "https://www.example.org/"),
            ("cookie", "session=0123456789abcdef0123456789abcdef"),
            ("priority", "u=2"),
        ] {
            request.headers.insert(name, http::HeaderValue::from_static(value));
        }
    }
    let mut response = Response::new(()).into_parts().0;
    response.headers.insert("content-length", content.len().into());
    response.headers.insert("content-type", http::HeaderValue::from_static("text/css"));
    let mut received = 0;
    for round in 0..rounds {
        let id = client.send_request(ends!(client), &request, true).unwrap().unwrap();
        listen(&mut server, ends!(server));
        let Ok(Head::Ready(_)) = server.poll_request(ends!(server), id) else { panic!("a request in one piece") };
        let Ok(Body::End) = server.poll_body(ends!(server), id) else { panic!("without content") };
        let mut body = content.clone();
        server.send_response_with(ends!(server), id, &response, &mut body, true).unwrap();
        server.forget(ends!(server), id);
        if round % 8 == 0 {
            server.pump(ends!(server)).unwrap();
            listen(&mut client, ends!(client));
        }
        let Ok(Head::Ready(_)) = client.poll_response(ends!(client), id) else { panic!("an answer in one piece") };
        while let Body::Data(data) = client.poll_body(ends!(client), id).unwrap() {
            received += data.len();
        }
        client.forget(ends!(client), id);
        if round % 8 == 0 {
            client.pump(ends!(client)).unwrap();
        }
    }
    println!("{rounds} requests, {received} bytes of content");
}
