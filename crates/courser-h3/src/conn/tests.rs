//! Two connections over a transport in memory.

use bytes::Bytes;
use courser_core::ids::{Dir, Side, StreamId};
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, request, response};

use super::*;
use crate::testing::Memory;

mod end;
mod exchange;
mod more;
mod resume;
mod wire;

/// A client and a server with their transports.
struct Pair {
    client: Connection,
    server: Connection,
    c: Memory,
    s: Memory,
}

impl Pair {
    fn new() -> Self {
        Self::with(Config::default(), Config::default())
    }

    fn with(client: Config, server: Config) -> Self {
        let mut pair = Self::silent(client, server);
        pair.client.start(&mut pair.c).unwrap();
        pair.server.start(&mut pair.s).unwrap();
        pair.turn();
        assert_eq!(pair.client.poll_event(), Some(Event::Settings));
        assert_eq!(pair.server.poll_event(), Some(Event::Settings));
        pair
    }

    /// Nothing was said yet.
    fn silent(client: Config, server: Config) -> Self {
        Self {
            client: Connection::new(Side::Client, client, 7),
            server: Connection::new(Side::Server, server, 8),
            c: Memory::new(Side::Client),
            s: Memory::new(Side::Server),
        }
    }

    /// Delivers what both ends wrote, and reads the one-way streams, until nothing moves any more.
    fn turn(&mut self) {
        for _ in 0..4 {
            let (to_c, to_s) = Memory::exchange(&mut self.c, &mut self.s);
            for id in to_c.into_iter().filter(|id| id.dir() == Dir::Uni && id.initiator() == Side::Server) {
                let _ = self.client.on_uni(&mut self.c, id);
            }
            for id in to_s.into_iter().filter(|id| id.dir() == Dir::Uni && id.initiator() == Side::Client) {
                let _ = self.server.on_uni(&mut self.s, id);
            }
            let _ = (self.client.pump(&mut self.c), self.server.pump(&mut self.s));
        }
    }

    fn ask(&mut self, head: &request::Parts, end: bool) -> StreamId {
        let id = self.client.send_request(&mut self.c, head, end).unwrap().unwrap();
        self.turn();
        id
    }

    fn request(&mut self, id: StreamId) -> request::Parts {
        match self.server.poll_request(&mut self.s, id).unwrap() {
            Head::Ready(parts) => parts,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, id: StreamId, head: &response::Parts, end: bool) {
        self.server.send_response(&mut self.s, id, head, end).unwrap();
        self.turn();
    }

    fn response(&mut self, id: StreamId) -> response::Parts {
        match self.client.poll_response(&mut self.c, id).unwrap() {
            Head::Ready(parts) => parts,
            other => panic!("{other:?}"),
        }
    }

    /// The whole of a message's content and its trailers, while both ends are driven.
    fn content(&mut self, side: Side, id: StreamId) -> (Vec<u8>, Option<HeaderMap>) {
        let (mut content, mut trailers) = (Vec::new(), None);
        for _ in 0..100_000 {
            let body = match side {
                Side::Client => self.client.poll_body(&mut self.c, id),
                Side::Server => self.server.poll_body(&mut self.s, id),
            };
            match body.unwrap() {
                Body::Data(data) => content.extend_from_slice(&data),
                Body::Trailers(map) => trailers = Some(map),
                Body::End => return (content, trailers),
                Body::Blocked | Body::WaitsForTable => self.turn(),
            }
        }
        panic!("no end in sight");
    }
}

fn get(uri: &str) -> request::Parts {
    Request::get(uri).body(()).unwrap().into_parts().0
}

fn post(uri: &str, length: Option<u64>) -> request::Parts {
    let mut head = Request::post(uri).body(()).unwrap().into_parts().0;
    if let Some(length) = length {
        head.headers.insert("content-length", length.into());
    }
    head
}

fn ok() -> response::Parts {
    Response::new(()).into_parts().0
}
