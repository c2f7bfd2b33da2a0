//! The hot paths one by one, for counting instructions: two engines back to back in virtual time, with the null provider,
//! so that what is counted is this crate and the loop around it.
//!
//! ```text
//! cargo run --release -p courser-core --example hot_paths -- bulk 2000
//! ```
//!
//! Walks a path for so many rounds and prints how many units (datagrams, requests, messages, handshakes) that were.
//! `tools/bench/instructions.py` runs each path under Callgrind at two lengths: their difference has no beginning and no end
//! in it.
#![expect(clippy::unwrap_used, reason = "a benchmark that meets an error has failed")]

use std::process::ExitCode;

use bytes::Bytes;
use courser_core::config::Settings;
use courser_core::engine::Event;
use courser_core::ids::{ConnKey, Dir, StreamId};
use courser_core::protect::null::NullTlsClient;
use courser_core::stream::{Read, StreamEvent};
use courser_testing::duo::{Duo, SERVER};

/// Rounds before any path is counted.
const WARM_UP: usize = 200;

/// What walks a path for so many rounds and returns units.
type Walk = fn(usize) -> u64;

const PATHS: [(&str, Walk); 8] = [
    ("bulk", bulk),
    ("bulk-owned", bulk_owned),
    ("bulk-lossy", bulk_lossy),
    ("streams-100", many_streams),
    ("requests-32", |rounds| requests(rounds, 32)),
    ("requests-1", |rounds| requests(rounds, 1)),
    ("datagrams-160", datagrams),
    ("handshakes", handshakes),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let path = args.next().and_then(|name| PATHS.into_iter().find(|p| p.0 == name));
    let rounds = args.next().and_then(|n| n.parse().ok());
    let (Some((_, walk)), Some(rounds)) = (path, rounds) else {
        let names: Vec<_> = PATHS.into_iter().map(|p| p.0).collect();
        eprintln!("usage: hot_paths {} ROUNDS", names.join("|"));
        return ExitCode::from(2);
    };
    println!("{}", walk(rounds));
    ExitCode::SUCCESS
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.initial_udp_payload = 1472;
    settings.mtu_discovery = false;
    settings.max_streams_bidi = 200;
    settings.max_streams_uni = 200;
    settings
}

/// Two connected engines.
struct Bench {
    duo: Duo,
    client: ConnKey,
    server: ConnKey,
    into: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let mut duo = Duo::null(&settings());
        let (client, server) = duo.connect(&settings());
        Self { duo, client, server, into: vec![0; 64 << 10] }
    }

    fn open(&mut self, dir: Dir) -> StreamId {
        self.duo.client.open_stream(self.client, dir).unwrap().unwrap()
    }

    fn write(&mut self, id: StreamId, data: &[u8]) {
        self.duo.client.write(self.client, id, data).unwrap();
    }

    /// Reads all that came at the server; events are dropped.
    fn drain(&mut self, ids: &[StreamId]) {
        for id in ids {
            while let Ok(Read::Bytes(n)) = self.duo.server.read(self.server, *id, &mut self.into) {
                assert!(n > 0);
            }
        }
        while self.duo.client.poll_event().is_some() {}
        while self.duo.server.poll_event().is_some() {}
    }

    /// Does rounds after a warm-up; the datagrams that passed.
    fn run(&mut self, rounds: usize, mut round: impl FnMut(&mut Self)) -> u64 {
        (0..WARM_UP).for_each(|_| round(self));
        let before = self.duo.datagrams;
        (0..rounds).for_each(|_| round(self));
        self.duo.datagrams - before
    }
}

/// One stream, bytes that are copied once.
fn bulk(rounds: usize) -> u64 {
    let mut bench = Bench::new();
    let (id, data) = (bench.open(Dir::Uni), vec![7; 64 << 10]);
    bench.run(rounds, |b| {
        b.write(id, &data);
        b.duo.round();
        b.drain(&[id]);
    })
}

/// One stream, bytes that change hands.
fn bulk_owned(rounds: usize) -> u64 {
    static BODY: [u8; 64 << 10] = [7; 64 << 10];
    let mut bench = Bench::new();
    let id = bench.open(Dir::Uni);
    bench.run(rounds, |b| {
        b.duo.client.write_owned(b.client, id, &mut Bytes::from_static(&BODY)).unwrap();
        b.duo.round();
        b.drain(&[id]);
    })
}

/// The first datagram of every tenth round is lost.
fn bulk_lossy(rounds: usize) -> u64 {
    let mut bench = Bench::new();
    let (id, data) = (bench.open(Dir::Uni), vec![7; 64 << 10]);
    let mut n = 0;
    bench.run(rounds, |b| {
        n += 1;
        b.duo.drop_next = n % 10 == 0;
        b.write(id, &data);
        b.duo.round();
        b.drain(&[id]);
    })
}

/// A kilobyte on each of a hundred streams.
fn many_streams(rounds: usize) -> u64 {
    let mut bench = Bench::new();
    let ids: Vec<_> = (0..100).map(|_| bench.open(Dir::Uni)).collect();
    bench.run(rounds, |b| {
        ids.iter().for_each(|id| b.write(*id, &[7; 1000]));
        b.duo.round();
        b.drain(&ids);
    })
}

/// So many requests at once, 64 bytes there and 1 KiB back.
fn requests(rounds: usize, at_once: usize) -> u64 {
    let mut bench = Bench::new();
    let (mut answered, mut warm) = (0, 0);
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            warm = answered;
        }
        for _ in 0..at_once {
            let Some(id) = bench.duo.client.open_stream(bench.client, Dir::Bi).unwrap() else { break };
            bench.write(id, &[1; 64]);
            bench.duo.client.finish(bench.client, id).unwrap();
        }
        bench.duo.round();
        answer(&mut bench);
        bench.duo.round();
        while let Some((key, event)) = bench.duo.client.poll_event() {
            let Event::Stream(StreamEvent::Readable(id)) = event else { continue };
            answered += u64::from(ends(&mut bench.into, |into| bench.duo.client.read(key, id, into).ok()));
        }
    }
    answered - warm
}

fn answer(bench: &mut Bench) {
    while let Some((key, event)) = bench.duo.server.poll_event() {
        match event {
            Event::Stream(StreamEvent::Opened { dir }) => {
                while let Ok(Some(id)) = bench.duo.server.accept_stream(key, dir) {
                    answer_stream(bench, key, id);
                }
            }
            Event::Stream(StreamEvent::Readable(id)) => answer_stream(bench, key, id),
            _ => {}
        }
    }
}

fn answer_stream(bench: &mut Bench, key: ConnKey, id: StreamId) {
    // A stream that was accepted may be told of as readable once more.
    if ends(&mut bench.into, |into| bench.duo.server.read(key, id, into).ok())
        && bench.duo.server.write(key, id, &[2; 1024]).is_ok()
    {
        bench.duo.server.finish(key, id).unwrap();
    }
}

/// Reads what is there; whether the end of the stream was in it.
fn ends(into: &mut [u8], mut read: impl FnMut(&mut [u8]) -> Option<Read>) -> bool {
    loop {
        match read(into) {
            Some(Read::Bytes(_)) => {}
            other => return other == Some(Read::Finished),
        }
    }
}

/// Messages of 160 bytes, each a DATAGRAM frame, 64 at once.
fn datagrams(rounds: usize) -> u64 {
    let (mut bench, mut got, mut warm) = (Bench::new(), 0, 0);
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            warm = got;
        }
        for tag in 0..64 {
            let message = Bytes::from_static(&[3; 160]);
            assert!(bench.duo.client.send_datagram(bench.client, message, Some(tag)).unwrap());
        }
        bench.duo.round();
        while bench.duo.server.read_datagram(bench.server).unwrap().is_some() {
            got += 1;
        }
        while bench.duo.client.poll_datagram_fate(bench.client).unwrap().is_some() {}
        bench.drain(&[]);
    }
    got - warm
}

/// Connections that are made, confirmed and closed, one after the other.
fn handshakes(rounds: usize) -> u64 {
    let settings = settings();
    let mut duo = Duo::null(&settings);
    for _ in 0..WARM_UP + rounds {
        let tls = NullTlsClient::default();
        let key = duo.client.connect(duo.now, SERVER, "localhost", &tls, &settings).unwrap();
        let mut confirmed = false;
        while !confirmed {
            duo.round();
            while let Some((_, event)) = duo.client.poll_event() {
                confirmed |= event == Event::Confirmed;
            }
            while duo.server.poll_event().is_some() {}
        }
        duo.client.close(duo.now, key, 0, b"").unwrap();
        duo.round();
    }
    rounds as u64
}
