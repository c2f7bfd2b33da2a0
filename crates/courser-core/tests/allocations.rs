//! No allocation per datagram: after a warm-up, both ends together ask the allocator for nothing while thousands of
//! datagrams pass. Everything runs over the null provider; the twin of this test with real keys is with the provider.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::config::Settings;
use courser_core::engine::{Engine, Event, Train};
use courser_core::error::ApiMisuse;
use courser_core::ids::{ConnKey, Dir, StreamId};
use courser_core::observe::{self, Interest, Kind, Observer};
use courser_core::protect::null::{NullTlsClient, NullTlsServer};
use courser_core::stream::Read;
use courser_core::time::Instant;
use courser_testing::alloc::{Counting, Counts, count, largest, now};
use courser_testing::duo::{Duo, SERVER, null_client, null_server};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: usize = 600;
const MEASURED: usize = 400;

/// A transfer under way, with buffers that are reused.
struct Bench {
    duo: Duo,
    client: ConnKey,
    server: ConnKey,
    out: Vec<u8>,
    into: Vec<u8>,
    moved: u64,
    /// Rounds before anything is counted.
    warm_up: usize,
}

impl Bench {
    fn new(settings: &Settings) -> Self {
        Self::of(Duo::null(settings), settings)
    }

    fn of(mut duo: Duo, settings: &Settings) -> Self {
        let (client, server) = duo.connect(settings);
        Self { duo, client, server, out: vec![0x42; 64 << 10], into: vec![0; 64 << 10], moved: 0, warm_up: WARM_UP }
    }

    fn open(&mut self, dir: Dir) -> StreamId {
        self.duo.client.open_stream(self.client, dir).unwrap().expect("within the limit")
    }

    /// Takes events like an application that looks at all of them.
    fn drop_events(&mut self) {
        while let Some((_, event)) = self.duo.client.poll_event() {
            assert!(!matches!(event, Event::Closed(_)), "{event:?}");
        }
        while let Some((_, event)) = self.duo.server.poll_event() {
            assert!(!matches!(event, Event::Closed(_)), "{event:?}");
        }
    }

    fn read_at_server(&mut self, id: StreamId) {
        while let Ok(Read::Bytes(n)) = self.duo.server.read(self.server, id, &mut self.into) {
            self.moved += n as u64;
        }
    }

    /// Warms up, then counts. Returns the counts, and the datagrams and bytes that passed meanwhile.
    fn measure(&mut self, mut round: impl FnMut(&mut Self, usize)) -> (Counts, u64, u64) {
        let warm_up = self.warm_up;
        for n in 0..warm_up {
            round(self, n);
            self.duo.round();
            self.drop_events();
        }
        let (datagrams, bytes) = (self.duo.datagrams, self.moved);
        let ((), counts) = count(|| {
            for n in warm_up..warm_up + MEASURED {
                round(self, n);
                self.duo.round();
                self.drop_events();
            }
        });
        (counts, self.duo.datagrams - datagrams, self.moved - bytes)
    }
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.max_streams_bidi = 2000;
    settings.max_streams_uni = 2000;
    settings
}

fn bulk(bench: &mut Bench) -> (Counts, u64, u64) {
    let id = bench.open(Dir::Uni);
    bench.measure(|b, _| {
        b.duo.client.write(b.client, id, &b.out).unwrap();
        b.read_at_server(id);
    })
}

#[test]
fn bulk_data_takes_no_memory_once_it_flows() {
    let (counts, datagrams, bytes) = bulk(&mut Bench::new(&settings()));
    assert!(datagrams > 4000 && bytes > 4 << 20, "{datagrams} datagrams, {bytes} bytes");
    assert_eq!(counts.calls, 0, "{datagrams} datagrams");
}

/// Allocates once for every packet that is sent: what the other tests must notice.
struct Wasteful;

impl Observer for Wasteful {
    fn interest(&self) -> Interest {
        Interest::NONE.with(Kind::PacketSent)
    }

    fn on(&mut self, now: Instant, _: ConnKey, _: &observe::Event<'_>) {
        drop(std::hint::black_box(Box::new(now)));
    }
}

#[test]
fn one_allocation_for_each_datagram_is_noticed() {
    let settings = settings();
    let mut client = null_client(1);
    client.observer = Some(Box::new(Wasteful));
    let server = null_server(2, NullTlsServer::default(), &settings);
    let (counts, datagrams, _) = bulk(&mut Bench::of(Duo::of(client, server), &settings));
    assert!(counts.calls * 2 > datagrams && datagrams > 4000, "{counts:?} in {datagrams} datagrams");
}

#[test]
fn owned_bytes_take_no_memory_once_they_flow() {
    let mut bench = Bench::new(&settings());
    let id = bench.open(Dir::Uni);
    static BODY: [u8; 64 << 10] = [7; 64 << 10];
    let (counts, datagrams, bytes) = bench.measure(|b, _| {
        let mut body = bytes::Bytes::from_static(&BODY);
        b.duo.client.write_owned(b.client, id, &mut body).unwrap();
        b.read_at_server(id);
    });
    assert!(datagrams > 4000 && bytes > 4 << 20, "{datagrams} datagrams, {bytes} bytes");
    assert_eq!(counts.calls, 0, "{datagrams} datagrams");
}

#[test]
fn a_write_of_a_megabyte_asks_for_64_kib_at_most_at_once() {
    // NGX-BUF-07, NGX-BUF-01: as the decision about chunk classes says; and nothing lies outside of chunks.
    // The peer grants enough.
    let mut settings = settings();
    (settings.stream_window, settings.conn_window) = (2 << 20, 4 << 20);
    let mut bench = Bench::new(&settings);
    let id = bench.open(Dir::Uni);
    let data = vec![7; 1 << 20];
    let ((taken, small), most) = largest(|| {
        let taken = bench.duo.client.write(bench.client, id, &data).unwrap();
        let other = bench.duo.client.open_stream(bench.client, Dir::Uni).unwrap().unwrap();
        (taken, bench.duo.client.write(bench.client, other, &data[..300]).unwrap())
    });
    assert_eq!((taken, small), (1 << 20, 300));
    assert_eq!(most, 64 << 10, "bytes at once");
    assert_eq!(bench.duo.client.pool_stats().in_use_bytes, (1 << 20) + 512);
}

#[test]
fn both_directions_at_once_take_no_memory() {
    let mut bench = Bench::new(&settings());
    let id = bench.open(Dir::Bi);
    let (counts, datagrams, bytes) = bench.measure(|b, _| {
        b.duo.client.write(b.client, id, &b.out).unwrap();
        b.read_at_server(id);
        // The stream is known to the server once its first bytes came.
        if b.moved > 0 {
            b.duo.server.write(b.server, id, &b.out).unwrap();
        }
        while let Ok(Read::Bytes(n)) = b.duo.client.read(b.client, id, &mut b.into) {
            b.moved += n as u64;
        }
    });
    assert!(datagrams > 8000 && bytes > 8 << 20, "{datagrams} datagrams, {bytes} bytes");
    assert_eq!(counts.calls, 0, "{datagrams} datagrams");
}

#[test]
fn acknowledgements_alone_take_no_memory() {
    let mut bench = Bench::new(&settings());
    let (counts, datagrams, _) = bench.measure(|b, _| {
        // The warm-up has to see a few of the deliberate gaps in the packet numbers.
        for _ in 0..8 {
            b.duo.client.ping(b.client).unwrap();
            b.duo.round();
        }
    });
    assert!(datagrams >= 2 * MEASURED as u64, "{datagrams} datagrams");
    assert_eq!(counts.calls, 0, "{datagrams} datagrams");
}

#[test]
fn a_mix_of_a_thousand_streams_takes_no_memory() {
    let mut bench = Bench::new(&settings());
    // A stream goes on in large chunks behind its first 64 KiB; each has to come that far.
    bench.warm_up = 2500;
    let ids: Vec<_> = (0..1000).map(|n| bench.open(if n % 2 == 0 { Dir::Uni } else { Dir::Bi })).collect();
    let (counts, datagrams, bytes) = bench.measure(|b, n| {
        for id in ids.iter().skip(n % 7).step_by(7) {
            let len = 20 + (id.index() as usize * 131 + n * 17) % 1500;
            b.duo.client.write(b.client, *id, &b.out[..len]).unwrap();
        }
        for id in &ids {
            b.read_at_server(*id);
        }
    });
    assert!(datagrams > 8000 && bytes > 8 << 20, "{datagrams} datagrams, {bytes} bytes");
    assert_eq!(counts.calls, 0, "{datagrams} datagrams");
}

#[test]
fn acknowledged_losses_and_reordering_take_no_memory() {
    // A link that loses a datagram now and then: retransmission, gaps in histories, spurious losses.
    let mut bench = Bench::new(&settings());
    // The stream has to wait for the credit of the connection once: it is put on a list then.
    bench.warm_up = 2500;
    let id = bench.open(Dir::Uni);
    let (counts, datagrams, bytes) = bench.measure(|b, n| {
        b.duo.client.write(b.client, id, &b.out).unwrap();
        b.duo.drop_next = n % 5 == 0;
        b.read_at_server(id);
    });
    assert!(datagrams > 500 && bytes > 1 << 19, "{datagrams} datagrams, {bytes} bytes");
    assert_eq!(counts.calls, 0, "{datagrams} datagrams");
}

#[test]
fn nothing_ready_means_nothing_done_and_nothing_allocated() {
    // LS-PROC-01
    let mut bench = Bench::new(&settings());
    for _ in 0..50 {
        bench.duo.round();
        bench.drop_events();
    }
    let (now, engine) = (bench.duo.now, &mut bench.duo.client);
    assert!(engine.deadline().is_some_and(|at| at > now), "an idle connection has its timers");
    let mut train = Train::new();
    let before = engine.stats();
    let (built, counts) = count(|| {
        for _ in 0..1000 {
            engine.process(now);
            if engine.fill(now, &mut train).is_some() {
                return true;
            }
        }
        engine.poll_event().is_some()
    });
    assert!(!built);
    assert_eq!(counts, Counts::default());
    assert_eq!(engine.stats(), before, "no tick, no train");
}

#[test]
fn a_stream_that_is_asked_for_too_early_is_refused_and_costs_nothing() {
    // LS-STRM-09, LS-CONN-04
    let (mut engine, keys) = with_connections(1);
    let before = engine.stream_stats(keys[0]).unwrap();
    let (answers, counts) = count(|| {
        [
            engine.open_stream(keys[0], Dir::Bi).err(),
            engine.open_stream(keys[0], Dir::Uni).err(),
            engine.exporter_secret(keys[0]).err(),
            engine.update_keys(Instant::from_micros(1_000_001), keys[0]).err(),
        ]
    });
    assert_eq!(answers, [Some(ApiMisuse::HandshakePending); 4]);
    assert_eq!(counts, Counts::default());
    assert_eq!(engine.stream_stats(keys[0]).unwrap(), before, "nor does anything wait");
}

#[test]
fn ten_thousand_engines_come_and_go_and_memory_stays_flat() {
    // LS-ENG-02: ten thousand of each kind; what is held never exceeds what the first ones held.
    let settings = settings();
    let once = |seed| {
        let held = |engine: Engine| {
            let live = now().live;
            drop(engine);
            live
        };
        let client = held(Engine::new(null_client(seed)));
        client.max(held(Engine::new(null_server(seed, NullTlsServer::default(), &settings))))
    };
    let most = once(0);
    let (flat, counts) = count(|| (1..10_000).all(|seed| once(seed) == most));
    assert!(flat && counts.calls > 20_000, "{counts:?}");
    assert_eq!(counts.live, 0);
}

/// An engine with that many connections whose first flights are under way.
fn with_connections(n: usize) -> (Engine, Vec<ConnKey>) {
    let mut engine = Engine::new(null_client(1));
    let (settings, tls, now) = (Settings::default(), NullTlsClient::default(), Instant::from_micros(1_000_000));
    let mut train = Train::new();
    let keys = (0..n).map(|_| engine.connect(now, SERVER, "localhost", &tls, &settings).unwrap()).collect();
    engine.process(now);
    while let Some(meta) = engine.fill(now, &mut train) {
        engine.sent(now, &meta, courser_core::engine::SendOutcome::Sent);
    }
    (engine, keys)
}

#[test]
fn an_engine_that_is_dropped_takes_ten_thousand_connections_along() {
    // LS-ENG-01
    let ((), counts) = count(|| {
        let (engine, keys) = with_connections(10_000);
        assert_eq!((engine.connections(), keys.len()), (10_000, 10_000));
    });
    assert!(counts.calls > 100_000, "{counts:?}");
    assert_eq!(counts.live, 0);
}

#[test]
fn engines_that_are_dropped_take_established_connections_and_their_data_along() {
    // LS-ENG-01, LS-LIFE-01: with data that was not sent, not acknowledged and not read.
    const CONNECTIONS: usize = 3000;
    let ((), counts) = count(|| {
        let settings = settings();
        let mut duo = Duo::null(&settings);
        let keys: Vec<_> = (0..CONNECTIONS).map(|_| duo.connect(&settings).0).collect();
        for key in keys {
            let id = duo.client.open_stream(key, Dir::Uni).unwrap().unwrap();
            assert_eq!(duo.client.write(key, id, &[7; 20_000]), Ok(20_000));
        }
        duo.round();
        for engine in [&duo.client, &duo.server] {
            assert_eq!(engine.connections(), CONNECTIONS);
            assert!(engine.pool_stats().in_use >= CONNECTIONS, "{:?}", engine.pool_stats());
        }
    });
    assert_eq!(counts.live, 0);
}

#[test]
fn ten_thousand_connections_that_close_leave_nothing() {
    // NGX-BUF-24
    let ((), counts) = count(|| {
        let (mut engine, keys) = with_connections(10_000);
        let mut now = Instant::from_micros(2_000_000);
        for key in keys {
            engine.close(now, key, 3, b"enough").unwrap();
        }
        let mut train = Train::new();
        let held = engine.pool_stats().in_use;
        for _ in 0..100 {
            engine.process(now);
            while let Some(meta) = engine.fill(now, &mut train) {
                engine.sent(now, &meta, courser_core::engine::SendOutcome::Sent);
            }
            while engine.poll_event().is_some() {}
            let Some(at) = engine.deadline() else { break };
            now = now.max(at);
        }
        assert_eq!((engine.connections(), engine.route_count()), (0, 0));
        assert!(held > 0 && engine.pool_stats().in_use == 0);
    });
    assert_eq!(counts.live, 0);
}
