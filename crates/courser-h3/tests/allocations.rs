//! What a warm request costs in allocations: those of the message types alone, none of framing, tables or streams.
//!
//! The transport here takes no memory inside a counted call: it writes into a buffer that is long enough and hands out pieces
//! that were made outside.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use courser_core::ids::{Dir, Side, StreamId};
use courser_core::stream::Priority;
use courser_h3::{Body, Config, Connection, Head, Read, Transport, WriteError};
use courser_testing::alloc::{Counting, count};
use http::header::HeaderValue;
use http::{Request, Response, request, response};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Writes of a turn, and what is to be read.
struct Quiet {
    side: Side,
    opened: [u64; 2],
    /// Everything that was written since the last turn: the stream and where its bytes end in `bytes`.
    writes: Vec<(StreamId, usize)>,
    bytes: Vec<u8>,
    ends: Vec<StreamId>,
    incoming: VecDeque<(StreamId, Bytes)>,
    ended: Vec<StreamId>,
}

impl Quiet {
    fn new(side: Side) -> Self {
        Self {
            side,
            opened: [0; 2],
            writes: Vec::with_capacity(100),
            bytes: Vec::with_capacity(1 << 16),
            ends: Vec::with_capacity(100),
            incoming: VecDeque::with_capacity(100),
            ended: Vec::with_capacity(100),
        }
    }

    /// Hands over what was written; streams that got something.
    fn deliver(&mut self, to: &mut Self) -> Vec<StreamId> {
        let (all, mut from) = (Bytes::copy_from_slice(&self.bytes), 0);
        to.ended.clear();
        to.ended.append(&mut self.ends);
        let mut reached = Vec::new();
        for (id, until) in self.writes.drain(..) {
            to.incoming.push_back((id, all.slice(from..until)));
            from = until;
            reached.push(id);
        }
        self.bytes.clear();
        reached
    }
}

impl Transport for Quiet {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let n = &mut self.opened[usize::from(dir == Dir::Uni)];
        *n += 1;
        Some(StreamId::new(self.side, dir, *n - 1))
    }

    fn read(&mut self, stream: StreamId) -> Read {
        match self.incoming.iter().position(|(id, _)| *id == stream) {
            Some(at) => Read::Data(self.incoming.remove(at).unwrap().1),
            None if self.ended.contains(&stream) => Read::End,
            None => Read::Blocked,
        }
    }

    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let n = self.write_copy(stream, data)?;
        data.advance(n);
        Ok(n)
    }

    fn write_copy(&mut self, stream: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        self.bytes.extend_from_slice(data);
        self.writes.push((stream, self.bytes.len()));
        Ok(data.len())
    }

    fn finish(&mut self, stream: StreamId) {
        self.ends.push(stream);
    }

    fn reset(&mut self, _: StreamId, _: u64) {}

    fn stop(&mut self, _: StreamId, _: u64) {}

    fn set_priority(&mut self, _: StreamId, _: Priority) {}

    fn send_datagram(&mut self, _: Bytes) -> bool {
        false
    }

    fn close(&mut self, _: u64, reason: &str) {
        panic!("{reason}");
    }
}

/// Both ends.
struct Pair {
    client: (Connection, Quiet),
    server: (Connection, Quiet),
}

/// Allocations of a call.
fn calls<T>(sum: &mut u64, f: impl FnOnce() -> T) -> T {
    let (value, counts) = count(f);
    *sum += counts.calls;
    value
}

impl Pair {
    fn new() -> Self {
        let end = |side| {
            let mut end = (Connection::new(side, Config::default(), 5), Quiet::new(side));
            end.0.start(&mut end.1).unwrap();
            end
        };
        Self { client: end(Side::Client), server: end(Side::Server) }
    }

    /// Delivers both ways; the allocations of reading what all requests share.
    fn turn(&mut self) -> u64 {
        let mut sum = 0;
        let (to_s, to_c) = (self.client.1.deliver(&mut self.server.1), self.server.1.deliver(&mut self.client.1));
        for (end, ids, peer) in [(&mut self.client, to_c, Side::Server), (&mut self.server, to_s, Side::Client)] {
            for id in ids.into_iter().filter(|id| id.dir() == Dir::Uni && id.initiator() == peer) {
                calls(&mut sum, || end.0.on_uni(&mut end.1, id)).unwrap();
            }
            while end.0.poll_event().is_some() {}
        }
        sum
    }

    /// One request and its answer; the allocations at the client, at the server, and for both ends' shared streams.
    fn exchange(&mut self, ask: &request::Parts, answer: &response::Parts, body: &Bytes) -> [u64; 3] {
        let [mut asking, mut serving, mut shared] = [0; 3];
        let (client, t) = &mut self.client;
        let id = calls(&mut asking, || client.send_request(t, ask, true)).unwrap().unwrap();
        shared += self.turn();
        let (server, t) = &mut self.server;
        let mut data = body.clone();
        calls(&mut serving, || {
            let Head::Ready(head) = server.poll_request(t, id).unwrap() else { panic!("no request") };
            assert_eq!(head.headers.len(), ask.headers.len());
            assert!(server.is_read(t, id));
            server.send_response_with(t, id, answer, &mut data, true).unwrap();
            server.forget(t, id);
        });
        shared += self.turn();
        let (client, t) = &mut self.client;
        calls(&mut asking, || {
            let Head::Ready(head) = client.poll_response(t, id).unwrap() else { panic!("no response") };
            assert_eq!(head.headers.len(), answer.headers.len());
            let mut left = body.len();
            while let Body::Data(data) = client.poll_body(t, id).unwrap() {
                left -= data.len();
            }
            assert_eq!(left, 0);
            client.forget(t, id);
        });
        shared += self.turn();
        [asking, serving, shared]
    }
}

fn messages() -> (request::Parts, response::Parts) {
    let request = Request::get("https://www.example.com/index.html?a=b")
        .header("user-agent", "a program that asks for something/1.0")
        .header("accept", "text/html,application/xhtml+xml")
        .header("accept-language", "en-GB,en;q=0.5")
        .header("accept-encoding", "gzip, br, zstd");
    let response = Response::builder()
        .header("content-type", "text/html; charset=utf-8")
        .header("cache-control", "max-age=3600")
        .header("server", "something of ours");
    (request.body(()).unwrap().into_parts().0, response.body(()).unwrap().into_parts().0)
}

#[test]
fn a_warm_exchange_allocates_for_its_message_types_alone() {
    let (request, mut response) = messages();
    for (len, budget) in [(0, [4, 4]), (1_000, [4, 4]), (100_000, [4, 4])] {
        let body = Bytes::from(vec![7; len]);
        response.headers.insert("content-length", HeaderValue::from(len));
        let mut pair = Pair::new();
        // Tables, maps and buffers come to their sizes.
        (0..100).for_each(|_| _ = pair.exchange(&request, &response, &body));
        let mut sum = [0; 3];
        for _ in 0..100 {
            sum.iter_mut().zip(pair.exchange(&request, &response, &body)).for_each(|(sum, n)| *sum += n);
        }
        assert_eq!(sum, [budget[0] * 100, budget[1] * 100, 0], "{len} bytes: client, server, streams of both");
    }
}
