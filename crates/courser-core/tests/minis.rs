//! Clients whose ClientHello is not complete: what is kept of them, what they hear, how they become connections, and how
//! they go.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Arc, Mutex};

use courser_core::config::Settings;
use courser_core::engine::{Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train};
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::{Cid, ConnKey, Ecn, Level};
use courser_core::observe::{self, Interest, Kind, Observer};
use courser_core::protect::null::{NullTlsClient, NullTlsServer};
use courser_core::time::Instant;
use courser_core::wire::frame::{Extensions, Frame, frames};
use courser_core::wire::header::{self, Header};
use courser_testing::alloc::{Counting, count};
use courser_testing::duo::{null_client, null_server};
use courser_testing::initial::Forged;
use courser_testing::rig::{encode, numbered, packets};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const START: Instant = Instant::from_micros(1_000_000);
const SERVER: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2)), 443);

fn address(n: u32) -> SocketAddr {
    SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::from(0x0b00_0000 + n)), 5000)
}

fn cid(n: u64) -> Cid {
    Cid::new(&n.to_be_bytes()).unwrap()
}

/// Packets that were dropped or kept.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Observer for Seen {
    fn interest(&self) -> Interest {
        Interest::NONE.with(Kind::PacketDropped).with(Kind::Life)
    }

    fn on(&mut self, _: Instant, _: ConnKey, event: &observe::Event<'_>) {
        let text = match event {
            observe::Event::PacketDropped { level, why, .. } => format!("{level:?} dropped: {why:?}"),
            observe::Event::PacketBuffered { level, .. } => format!("{level:?} kept"),
            observe::Event::Life(observe::Step::Closing(CloseReason::Violation(v))) => format!("violation {}", v.code),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

impl Seen {
    fn count(&self, text: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|t| *t == text).count()
    }
}

/// A server, and whoever talks to it.
struct Bench {
    server: Engine,
    now: Instant,
    seen: Seen,
    train: Train,
}

impl Bench {
    fn new(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::with(change, |_| {})
    }

    fn with(change: impl FnOnce(&mut ServerConfig), engine: impl FnOnce(&mut EngineConfig)) -> Self {
        let mut config = null_server(3, NullTlsServer::default(), &Settings::default());
        change(config.server.as_mut().unwrap());
        let seen = Seen::default();
        config.observer = Some(Box::new(seen.clone()));
        engine(&mut config);
        Self { server: Engine::new(config), now: START, seen, train: Train::new() }
    }

    fn give(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.give_marked(from, datagram, Ecn::NotEct);
    }

    fn give_marked(&mut self, from: SocketAddr, datagram: &[u8], ecn: Ecn) {
        let mut bytes = datagram.to_vec();
        let meta = Meta { local: None, remote: from, ecn, stride: bytes.len() };
        self.server.receive(self.now, &meta, &mut bytes);
    }

    /// What the server says, and to whom.
    fn take(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        self.server.process(self.now);
        while let Some(meta) = self.server.fill(self.now, &mut self.train) {
            self.server.sent(self.now, &meta, SendOutcome::Sent);
            all.extend(self.train.bytes().chunks(meta.segment).map(|d| (meta.to, d.to_vec())));
        }
        all
    }

    fn answers(&mut self) -> Vec<Vec<u8>> {
        self.take().into_iter().map(|(_, datagram)| datagram).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let _ = self.take();
    }

    fn accepted(&mut self) -> Vec<ConnKey> {
        let mut keys = Vec::new();
        while let Some((key, event)) = self.server.poll_event() {
            if event == Event::Accepted {
                keys.push(key);
            }
        }
        keys
    }
}

/// A client whose ClientHello has that length.
struct Client {
    engine: Engine,
    key: ConnKey,
    train: Train,
}

impl Client {
    fn new(hello_len: usize) -> Self {
        let mut engine = Engine::new(null_client(9));
        let tls = NullTlsClient { hello_len, ..NullTlsClient::default() };
        let key = engine.connect(START, SERVER, "localhost", &tls, &Settings::default()).unwrap();
        Self { engine, key, train: Train::new() }
    }

    fn take(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        self.engine.process(now);
        while let Some(meta) = self.engine.fill(now, &mut self.train) {
            self.engine.sent(now, &meta, SendOutcome::Sent);
            all.extend(self.train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
        }
        all
    }

    fn give(&mut self, now: Instant, datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            let meta = Meta { local: None, remote: SERVER, ecn: Ecn::NotEct, stride: datagram.len() };
            self.engine.receive(now, &meta, &mut datagram.clone());
        }
    }

    /// Both talk until neither has anything to say; whether the client's handshake was confirmed.
    fn finish(&mut self, bench: &mut Bench, from: SocketAddr) -> bool {
        for _ in 0..40 {
            for datagram in self.take(bench.now) {
                bench.give(from, &datagram);
            }
            let answers = bench.answers();
            self.give(bench.now, &answers);
            bench.now += Duration::from_millis(1);
        }
        let mut confirmed = false;
        while let Some((key, event)) = self.engine.poll_event() {
            confirmed |= (key, event) == (self.key, Event::Confirmed);
        }
        confirmed
    }
}

/// ACK frames in a datagram, as ranges.
fn acked(datagram: &[u8]) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for (level, payload) in packets(datagram) {
        for frame in frames(&payload, level, Extensions::ALL) {
            if let Frame::Ack(ack) = frame.unwrap() {
                ranges.extend(ack.ranges);
            }
        }
    }
    ranges
}

fn close_of(datagram: &[u8]) -> Option<(TransportCode, u64)> {
    packets(datagram).into_iter().find_map(|(level, payload)| {
        frames(&payload, level, Extensions::ALL).find_map(|frame| match frame.unwrap() {
            Frame::ConnectionClose { code, frame_type, .. } => Some((code, frame_type)),
            _ => None,
        })
    })
}

fn scid_of(datagram: &[u8]) -> Cid {
    header::decode(datagram, 8).ok().and_then(|h| h.long().map(|l| l.scid)).unwrap()
}

/// The beginning of a ClientHello of 4,000 bytes.
fn beginning(len: usize) -> Vec<u8> {
    let mut bytes = vec![7; len];
    bytes[..4].copy_from_slice(&[1, 0, 0x0f, 0x9c]);
    encode(&[Frame::Crypto { offset: 0, data: &bytes }])
}

#[test]
fn ten_thousand_half_open_clients_take_a_kibibyte_each_beside_what_they_sent() {
    // LS-MINI-01
    const CLIENTS: u32 = 10_000;
    const CRYPTO: usize = 900;
    let mut bench = Bench::new(|part| {
        (part.minis_max, part.handshakes_max) = (CLIENTS as usize, CLIENTS as usize);
        part.mini_bytes_max = 1 << 30;
        part.retry = courser_core::engine::RetryPolicy::Never;
    });
    let payload = beginning(CRYPTO);
    let ((), counts) = count(|| {
        for n in 0..CLIENTS {
            bench.give(address(n), &Forged::new(cid(n.into()), cid(77), &payload).datagram());
            let _ = bench.take();
        }
    });
    assert_eq!((bench.server.handshakes(), bench.server.stats().accepted), (CLIENTS as usize, 0));
    let each = counts.live / i64::from(CLIENTS) - CRYPTO as i64;
    println!("{each} bytes for each half-open client beside {CRYPTO} of its ClientHello");
    assert!(each <= 1024, "{each} bytes");
    // All of it comes back.
    bench.pass(Duration::from_secs(10));
    assert_eq!((bench.server.connections(), bench.server.route_count()), (0, 0));
    assert_eq!(bench.server.stats().minis_expired, u64::from(CLIENTS));
}

#[test]
fn a_client_that_stops_is_forgotten_after_ten_seconds_or_what_the_settings_say() {
    // LS-MINI-02
    for seconds in [10, 3] {
        let mut bench = Bench::new(|part| part.settings.handshake_timeout = Duration::from_secs(seconds));
        bench.give(address(1), &Forged::new(cid(1), cid(2), &beginning(100)).datagram());
        bench.pass(Duration::from_secs(seconds) - Duration::from_micros(1));
        assert_eq!(bench.server.connections(), 1);
        // More of it does not buy more time.
        bench.give(address(1), &Forged { pn: 1, ..Forged::new(cid(1), cid(2), &[1]) }.datagram());
        bench.pass(Duration::from_micros(1));
        assert_eq!((bench.server.connections(), bench.server.route_count(), bench.server.handshakes()), (0, 0, 0));
        assert_eq!((bench.server.stats().minis_expired, bench.server.deadline()), (1, None));
    }
}

#[test]
fn a_half_open_client_is_never_ticked_and_asks_for_no_time_before_its_last() {
    // LS-MINI-03
    let mut bench = Bench::new(|_| {});
    bench.give(address(1), &Forged::new(cid(1), cid(2), &beginning(100)).datagram());
    assert_eq!(bench.answers().len(), 1, "an acknowledgement");
    for ms in 0..9_000 {
        bench.now = START + Duration::from_millis(ms);
        assert_eq!(bench.server.deadline(), Some(START + Duration::from_secs(10)));
        assert_eq!(bench.answers().len(), 0);
    }
    assert_eq!(bench.server.stats().ticks, 0);
}

#[test]
fn packets_of_levels_that_have_no_keys_are_dropped() {
    // LS-MINI-04
    let mut bench = Bench::new(|_| {});
    bench.give(address(1), &Forged::new(cid(1), cid(2), &beginning(100)).datagram());
    let ours = scid_of(&bench.answers()[0]);
    let short = [&[0x40][..], ours.as_slice(), &[9; 60]].concat();
    bench.give(address(1), &short);
    let mut handshake = Forged { pn: 3, ..Forged::new(cid(1), cid(2), &[1]) }.datagram();
    handshake[0] |= 0x20;
    bench.give(address(1), &handshake);
    assert_eq!(bench.answers().len(), 0);
    assert_eq!(bench.seen.count("Some(Handshake) dropped: NoKeys"), 1, "{:?}", bench.seen.0);
    assert_eq!((bench.server.connections(), bench.server.pool_stats().in_use), (1, 0));
}

#[test]
fn what_came_is_acknowledged_whatever_the_number_it_began_with() {
    // LS-MINI-15
    for first in [0, 1, 1 << 31] {
        let mut bench = Bench::new(|_| {});
        let give = |bench: &mut Bench, pn, mark| {
            let datagram = Forged { pn, ..Forged::new(cid(1), cid(2), &beginning(100)) }.datagram();
            bench.give_marked(address(1), &datagram, mark);
            bench.answers()
        };
        assert_eq!(acked(&give(&mut bench, first, Ecn::NotEct)[0]), [(first, first)]);
        assert_eq!(give(&mut bench, first, Ecn::NotEct).len(), 0, "a duplicate");
        assert_eq!(acked(&give(&mut bench, first + 3, Ecn::Ect0)[0]), [(first + 3, first + 3), (first, first)]);
        let last = give(&mut bench, first + 2, Ecn::Ce);
        assert_eq!(acked(&last[0]), [(first + 2, first + 3), (first, first)]);
        // Beyond the sixty-four that are remembered nothing is taken.
        assert_eq!(acked(&give(&mut bench, first + 67, Ecn::NotEct)[0])[0], (first + 67, first + 67));
        assert_eq!(give(&mut bench, first + 1, Ecn::NotEct).len(), 0);
        assert_eq!(acked(&give(&mut bench, first + 4, Ecn::NotEct)[0])[1], (first + 4, first + 4));
        let numbers: Vec<u64> = last.iter().flat_map(|d| numbered(d)).map(|(_, pn, _)| pn).collect();
        assert_eq!(numbers, [2], "its own packets are numbered one by one");
        let counts = packets(&last[0]).iter().any(|(_, payload)| payload[0] == 3);
        assert!(counts, "marks are reported");
    }
}

#[test]
fn it_says_no_more_than_sixty_four_packets_and_three_times_what_came() {
    // LS-MINI-14
    let mut bench = Bench::new(|_| {});
    let mut said = 0;
    for pn in 0..100 {
        bench.give(address(1), &Forged { pn, ..Forged::new(cid(1), cid(2), &[1, 1, 1, 1]) }.datagram());
        said += bench.answers().len();
    }
    assert_eq!(said, 64);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.server.connections(), 0);
    // What is not authentic counts as received, but nothing is said for it.
    let mut bench = Bench::new(|_| {});
    bench.give(address(1), &Forged::new(cid(1), cid(2), &[0, 0, 0, 0]).datagram());
    let mut wrong = Forged::new(cid(1), cid(2), &[1, 1, 1, 1]).datagram();
    wrong[60] ^= 1;
    bench.give(address(1), &wrong);
    assert_eq!(bench.answers().len(), 0);
}

#[test]
fn each_order_of_three_datagrams_with_repetitions_gives_one_connection() {
    // LS-MINI-07, LS-MINI-13
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (order, twice) in orders.into_iter().flat_map(|order| [(order, false), (order, true)]) {
        let (mut bench, mut client) = (Bench::new(|_| {}), Client::new(3000));
        let flight = client.take(START);
        assert_eq!(flight.len(), 3);
        for (at, n) in order.into_iter().enumerate() {
            assert_eq!(bench.server.stats().accepted, 0, "{order:?}");
            bench.give(address(1), &flight[n]);
            if twice && at < 2 {
                bench.give(address(1), &flight[n]);
            }
            let answers = if at == 1 { bench.answers() } else { Vec::new() };
            client.give(bench.now, &answers);
        }
        assert_eq!(bench.accepted().len(), 1, "{order:?}");
        bench.give(address(1), &flight[order[0]]);
        assert!(client.finish(&mut bench, address(1)), "{order:?} {twice}");
        assert_eq!((bench.accepted().len(), bench.server.stats().accepted), (0, 1));
        assert_eq!((bench.server.connections(), bench.server.handshakes()), (1, 0));
    }
}

#[test]
fn numbers_and_acknowledgements_go_on_without_a_gap() {
    // LS-MINI-08, LS-MINI-20
    let (mut bench, mut client) = (Bench::new(|_| {}), Client::new(2000));
    let flight = client.take(START);
    bench.give(address(1), &flight[0]);
    let first = bench.answers();
    assert_eq!(numbered(&first[0]).iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(Level::Initial, 0)]);
    assert!(first[0].len() < 100, "an ACK need not be padded: {}", first[0].len());
    bench.give(address(1), &flight[1]);
    let second = bench.answers();
    let initial: Vec<u64> =
        second.iter().flat_map(|d| numbered(d)).filter(|p| p.0 == Level::Initial).map(|p| p.1).collect();
    assert_eq!(initial[0], 1, "{initial:?}");
    assert_eq!(acked(&second[0]), [(0, 1)], "both packets, and no others");
    assert_eq!(scid_of(&first[0]), scid_of(&second[0]));
    let key = bench.accepted()[0];
    let stats = bench.server.conn_stats(key).unwrap();
    assert_eq!((stats.received.datagrams, stats.received.packets, stats.received.bytes), (2, 2, 2400));
    assert_eq!(stats.sent.datagrams, 1 + second.len() as u64);
    let sent: usize = first.iter().chain(&second).map(Vec::len).sum();
    assert_eq!(stats.sent.bytes, sent as u64);
    client.give(bench.now, &[first, second].concat());
    assert!(client.finish(&mut bench, address(1)));
}

#[test]
fn both_connection_ids_lead_to_it_before_and_after() {
    // LS-MINI-18
    let (mut bench, mut client) = (Bench::new(|_| {}), Client::new(2000));
    let flight = client.take(START);
    let original = header::decode(&flight[0], 8).unwrap().long().map(|l| (l.dcid, l.scid)).unwrap();
    bench.give(address(1), &flight[0]);
    let ours = scid_of(&bench.answers()[0]);
    assert_eq!(bench.server.route_count(), 2);
    let ping = |pn, dcid| {
        let keys = Some(original.0);
        Forged { pn, keys, ..Forged::new(dcid, original.1, &[1, 1, 1, 1]) }.datagram()
    };
    for (pn, dcid) in [(5, ours), (6, original.0)] {
        bench.give(address(1), &ping(pn, dcid));
        assert_eq!(acked(&bench.answers()[0])[0].1, pn, "a PING is answered");
    }
    bench.give(address(1), &flight[1]);
    assert_eq!((bench.accepted().len(), bench.server.stats().cid_collisions), (1, 0));
    for (pn, dcid) in [(9, ours), (11, original.0)] {
        bench.give(address(1), &ping(pn, dcid));
        assert!(bench.answers().iter().flat_map(|d| acked(d)).any(|r| r.1 == pn));
    }
}

#[test]
fn who_breaks_a_rule_before_its_hello_is_complete_is_told_and_nothing_else_is_kept() {
    let crypto = |offset, data| encode(&[Frame::Crypto { offset, data }]);
    let ack = [2, 5, 0, 0, 0];
    let cases: [(Vec<u8>, TransportCode, u64); 6] = [
        (vec![], TransportCode::PROTOCOL_VIOLATION, 0),
        (encode(&[Frame::MaxData { max: 1 }]), TransportCode::PROTOCOL_VIOLATION, 0x10),
        (vec![0x3f; 4], TransportCode::FRAME_ENCODING_ERROR, 0x3f),
        (ack.to_vec(), TransportCode::PROTOCOL_VIOLATION, 2),
        (crypto(0, &[2, 0, 0, 9]), TransportCode::tls_alert(10), 6),
        (crypto(16 << 10, &[1]), TransportCode::CRYPTO_BUFFER_EXCEEDED, 6),
    ];
    for (payload, code, frame_type) in cases {
        let mut bench = Bench::new(|_| {});
        bench.give(address(1), &Forged::new(cid(1), cid(2), &[1, 1, 1, 1]).datagram());
        assert_eq!(acked(&bench.answers()[0]), [(0, 0)]);
        bench.give(address(1), &Forged { pn: 1, ..Forged::new(cid(1), cid(2), &payload) }.datagram());
        let (answers, mut said) = (bench.answers(), 1);
        assert_eq!(answers.len(), 1, "{code}");
        assert_eq!(close_of(&answers[0]).map(|c| c.0), Some(code));
        if frame_type != 0x3f {
            assert_eq!(close_of(&answers[0]).map(|c| c.1), Some(frame_type), "{code}");
        }
        assert_eq!(numbered(&answers[0])[0].1, 1, "behind the acknowledgement");
        assert_eq!((bench.server.stats().mini_violations, bench.server.handshakes()), (1, 0));
        assert_eq!((bench.accepted().len(), bench.seen.count(&format!("violation {code}"))), (0, 1));
        for pn in 2..30 {
            bench.give(address(1), &Forged { pn, ..Forged::new(cid(1), cid(2), &[1]) }.datagram());
            let again = bench.answers();
            assert!(again.iter().all(|a| *a == answers[0]), "the same again");
            said += again.len();
        }
        assert!((3..=6).contains(&said), "{said} times");
        bench.pass(Duration::from_secs(4));
        assert_eq!((bench.server.connections(), bench.server.route_count()), (0, 0));
        bench.give(address(1), &Forged { pn: 40, ..Forged::new(cid(1), cid(2), &[1]) }.datagram());
        assert_eq!((bench.server.connections(), bench.server.stats().gate_purgatory), (0, 1));
    }
}

#[test]
fn a_client_that_gives_up_is_gone_at_once() {
    let close = Frame::ConnectionClose { code: TransportCode::NO_ERROR, frame_type: 0, reason: b"" };
    let mut bench = Bench::new(|_| {});
    bench.give(address(1), &Forged::new(cid(1), cid(2), &encode(std::slice::from_ref(&close))).datagram());
    assert_eq!((bench.server.connections(), bench.server.stats().minis), (0, 0), "and was never let in with that");
    bench.give(address(1), &Forged::new(cid(1), cid(2), &beginning(100)).datagram());
    let ours = scid_of(&bench.answers()[0]);
    let payload = encode(&[close]);
    let last = Forged { pn: 1, keys: Some(cid(1)), ..Forged::new(ours, cid(2), &payload) };
    bench.give(address(1), &last.datagram());
    assert_eq!((bench.server.connections(), bench.server.route_count(), bench.answers().len()), (0, 0, 0));
    bench.give(address(1), &Forged { pn: 2, ..last }.datagram());
    assert_eq!(bench.server.stats().gate_purgatory, 1, "what is late finds nothing");
}

#[test]
fn the_oldest_goes_when_there_are_too_many_or_they_hold_too_much() {
    for by_count in [true, false] {
        let mut bench = Bench::new(|part| {
            (part.minis_max, part.mini_bytes_max) = if by_count { (10, 1 << 20) } else { (1 << 20, 10 * 900) };
        });
        let mut client = Client::new(2000);
        let flight = client.take(START);
        let payload = beginning(900);
        for n in 0..100 {
            bench.give(address(n), &Forged::new(cid(n.into()), cid(77), &payload).datagram());
            if n == 50 {
                bench.give(address(1000), &flight[0]);
            }
            if n == 55 {
                bench.give(address(1000), &flight[1]);
            }
        }
        let stats = bench.server.stats();
        assert_eq!((stats.accepted, stats.minis, stats.minis_evicted), (1, 101, 90), "{stats:?}");
        assert_eq!(bench.server.handshakes(), 11);
        assert!(client.finish(&mut bench, address(1000)), "who means it is in time");
        // One that was evicted may begin again.
        bench.give(address(5), &Forged::new(cid(5), cid(77), &payload).datagram());
        assert_eq!(bench.server.stats().minis, 102);
    }
}

#[test]
fn another_address_another_source_and_another_version_change_nothing() {
    let mut bench = Bench::new(|_| {});
    bench.give(address(1), &Forged::new(cid(1), cid(2), &beginning(100)).datagram());
    let _ = bench.answers();
    let ping = Forged { pn: 1, ..Forged::new(cid(1), cid(2), &[1, 1, 1, 1]) };
    bench.give(address(2), &ping.datagram());
    bench.give(address(1), &Forged { scid: cid(3), ..ping }.datagram());
    bench.give(address(1), &Forged { version: courser_core::ids::Version::V2, ..ping }.datagram());
    bench.give(address(1), &Forged { len: 1199, ..ping }.datagram());
    bench.give(address(1), &Forged { keys: Some(cid(9)), ..ping }.datagram());
    assert_eq!(bench.answers().len(), 0);
    // The padding behind the first packet, and behind the one that is not authentic, is no packet either.
    assert_eq!((bench.seen.count("None dropped: Address"), bench.seen.count("None dropped: Unexpected")), (1, 5));
    assert_eq!(bench.seen.count("Some(Initial) dropped: NotAuthentic"), 1);
    bench.give(address(1), &ping.datagram());
    assert_eq!(bench.answers().len(), 1);
}

#[test]
fn a_few_early_packets_wait_and_the_others_are_dropped() {
    // LS-MINI-06
    let mut bench = Bench::new(|_| {});
    bench.give(address(1), &Forged::new(cid(1), cid(2), &beginning(100)).datagram());
    let mut early = Forged { pn: 0, len: 0, ..Forged::new(cid(1), cid(2), &[1; 300]) }.datagram();
    early[0] |= 0x10;
    // The packet has no token; its length field would be one.
    early.remove(1 + 4 + 1 + 8 + 1 + 8);
    let ((), counts) = count(|| (0..100).for_each(|_| bench.give(address(1), &early)));
    assert_eq!(bench.seen.count("ZeroRtt kept"), 8, "{:?}", bench.seen.0);
    assert_eq!(bench.seen.count("Some(ZeroRtt) dropped: NoKeys"), 92);
    assert!(counts.live < (16 << 10), "{}", counts.live);
    assert!(matches!(header::decode(&early, 8), Ok(Header::ZeroRtt(_))));
}

#[test]
fn who_asks_its_application_says_nothing_before_it_has_decided() {
    for (accept, late) in [(true, false), (true, true), (false, false)] {
        let (mut bench, mut client) = (Bench::new(|part| part.ask = true), Client::new(2000));
        let flight = client.take(START);
        bench.give(address(1), &flight[0]);
        assert_eq!(bench.answers().len(), 0);
        let (key, incoming) = bench.server.poll_incoming().unwrap();
        assert_eq!((incoming.remote, incoming.validated), (address(1), false));
        if late {
            bench.give(address(1), &flight[1]);
            assert_eq!((bench.answers().len(), bench.server.stats().accepted), (0, 0));
        }
        if accept {
            let mut own = Settings::default();
            own.max_streams_bidi = 3;
            bench.server.accept(bench.now, key, Some(&own)).unwrap();
            assert!(bench.server.accept(bench.now, key, None).is_err(), "once");
            assert_eq!(bench.accepted().len(), usize::from(late), "as soon as the client has said what it wants");
            let answers = bench.answers();
            assert!(!answers.is_empty());
            client.give(bench.now, &answers);
            bench.give(address(1), &flight[1]);
            assert!(client.finish(&mut bench, address(1)));
            assert_eq!(bench.server.settings(key).unwrap(), &own);
        } else {
            bench.server.refuse(key).unwrap();
            let answers = bench.answers();
            assert_eq!(close_of(&answers[0]).unwrap().0, TransportCode::CONNECTION_REFUSED);
            bench.give(address(1), &flight[1]);
            assert_eq!((bench.answers().len(), bench.server.connections()), (1, 0), "told again, not asked again");
        }
        assert!(bench.server.poll_incoming().is_none());
    }
}

#[test]
fn who_let_a_client_in_hears_that_it_never_said_what_it_wants() {
    for timely in [false, true] {
        let mut bench = Bench::new(|part| part.ask = true);
        bench.give(address(1), &Client::new(2000).take(START)[0]);
        let (key, _) = bench.server.poll_incoming().unwrap();
        if timely {
            bench.server.accept(bench.now, key, None).unwrap();
        }
        bench.pass(Duration::from_secs(11));
        let told = timely.then_some((key, Event::Closed(CloseReason::HandshakeTimeout)));
        assert_eq!((bench.server.poll_event(), bench.server.poll_event()), (told, None));
        assert_eq!((bench.server.connections(), bench.server.stats().minis_expired), (0, 1));
    }
}

#[test]
fn a_hello_in_shuffled_crumbs_is_put_together() {
    let mut client = Client::new(2500);
    let flight = client.take(START);
    let ids = header::decode(&flight[0], 8).unwrap().long().map(|l| (l.dcid, l.scid)).unwrap();
    let mut hello = Vec::new();
    for (level, payload) in flight.iter().flat_map(|d| packets(d)) {
        for frame in frames(&payload, level, Extensions::ALL) {
            if let Frame::Crypto { offset, data } = frame.unwrap() {
                assert_eq!(offset, hello.len() as u64);
                hello.extend_from_slice(data);
            }
        }
    }
    // Crumbs of 60 bytes, every seventh of them after another, with PINGs in between, 20 to a packet.
    let crumbs: Vec<(u64, &[u8])> = (0_u64..).step_by(60).zip(hello.chunks(60)).collect();
    let order: Vec<usize> = (0..7).flat_map(|from| (from..crumbs.len()).step_by(7)).collect();
    let mut bench = Bench::new(|_| {});
    for (pn, part) in order.chunks(15).enumerate() {
        let crypto = |at: &usize| [Frame::Ping, Frame::Crypto { offset: crumbs[*at].0, data: crumbs[*at].1 }];
        let payload = encode(&part.iter().rev().flat_map(crypto).collect::<Vec<_>>());
        let datagram = Forged { pn: pn as u64, ..Forged::new(ids.0, ids.1, &payload) }.datagram();
        bench.give(address(1), &datagram);
    }
    assert_eq!(bench.accepted().len(), 1);
}

#[test]
fn what_a_connection_takes_at_its_beginning_counts_for_it_and_not_for_whoever_was_served_last() {
    // The engine itself holds, in debug builds, that who is gone holds nothing.
    let mut bench = Bench::new(|_| {});
    let payload = packets(&Client::new(0).take(START)[0]).remove(0).1;
    let scid = scid_of(&Client::new(0).take(START)[0]);
    for n in 0..20 {
        bench.give(address(n), &Forged::new(cid(n.into()), scid, &payload).datagram());
        bench.now += Duration::from_millis(50);
        let _ = bench.take();
    }
    assert_eq!((bench.accepted().len(), bench.server.connections()), (20, 20));
    assert!(bench.server.pool_stats().in_use >= 20);
    for _ in 0..200 {
        bench.pass(Duration::from_millis(100));
    }
    assert_eq!((bench.server.connections(), bench.server.pool_stats().in_use), (0, 0));
}
