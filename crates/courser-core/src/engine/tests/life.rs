//! How the engine cares for its connections: turns, deadlines, tokens, what observers and figures tell.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::pair::{CLIENT, Pair, SERVER, Watcher, Way, config};
use crate::config::Settings;
use crate::engine::{Connect, Engine, Event, Kind as Entry, Meta, SendOutcome, Train};
use crate::error::CloseReason;
use crate::ids::{ConnKey, Dir, Ecn, Level, Version};
use crate::observe::{self, Interest, Kind, Observer, Step};
use crate::protect::null::{NullTlsClient, NullTlsServer};
use crate::stream::{Read, StreamEvent};
use crate::time::Instant;
use crate::wire::Writer;
use crate::wire::header::{self, Header};

/// Brings `n` connections to the point where each has a window of several trains, and nothing in flight.
fn ready(n: usize) -> (Pair, Vec<ConnKey>) {
    let settings = Settings {
        pacing: false,
        mtu_discovery: false,
        // Nobody reads in these tests.
        stream_window: 1 << 20,
        conn_window: 32 << 20,
        ..Settings::default()
    };
    let mut pair = Pair::new(&settings);
    let mut keys = Vec::new();
    for _ in 0..n {
        keys.push(pair.connect(&settings));
        pair.events = [Vec::new(), Vec::new()];
        pair.establish();
    }
    for key in &keys {
        load(&mut pair, *key, 200_000);
    }
    let landed = |p: &mut Pair| {
        keys.iter().all(|k| p.client.conn_stats(*k).is_ok_and(|s| s.bytes_in_flight == 0 && s.sent.bytes > 200_000))
    };
    assert!(pair.run_until(Duration::from_secs(10), landed));
    (pair, keys)
}

fn load(pair: &mut Pair, key: ConnKey, len: usize) {
    let id = pair.client.open_stream(key, Dir::Uni).unwrap().unwrap();
    assert_eq!(pair.client.write(key, id, &vec![1; len]), Ok(len));
}

/// Builds the next train and says whose it is.
fn turn(pair: &mut Pair, train: &mut Train) -> Option<ConnKey> {
    let meta = pair.client.fill(pair.now, train)?;
    pair.client.sent(pair.now, &meta, SendOutcome::Sent);
    meta.key
}

#[test]
fn a_hundred_senders_are_never_more_than_one_turn_apart() {
    // LS-LIFE-09: nobody has more than one turn more than anybody else, at any moment of three rounds.
    let (mut pair, keys) = ready(100);
    for key in &keys {
        load(&mut pair, *key, 190_000);
    }
    pair.client.process(pair.now);
    let mut train = Train::new();
    let mut turns = std::collections::HashMap::new();
    for _ in 0..300 {
        let key = turn(&mut pair, &mut train).expect("windows of several trains");
        *turns.entry(key).or_insert(0) += 1;
        let least = if turns.len() < keys.len() { 0 } else { turns.values().min().copied().unwrap() };
        assert!(turns.values().max() <= Some(&(least + 1)), "{turns:?}");
    }
    assert_eq!((turns.len(), turns.values().min()), (100, Some(&3)));
}

#[test]
fn a_connection_that_is_always_ready_delays_others_by_one_round_at_most() {
    // LS-LIFE-10: three have something all the time; the others get something, one after the other, in between.
    let (mut pair, keys) = ready(10);
    let (busy, rest) = keys.split_at(3);
    let mut train = Train::new();
    for (round, key) in rest.iter().enumerate() {
        let more = |pair: &mut Pair, len| {
            busy.iter().for_each(|key| load(pair, *key, len));
            pair.client.process(pair.now);
        };
        // More than one turn takes.
        more(&mut pair, 140_000);
        // Begin with another one each time.
        for _ in 0..round % 3 {
            turn(&mut pair, &mut train);
        }
        load(&mut pair, *key, 100);
        pair.client.process(pair.now);
        // Everybody who waits may go first, once.
        let mut order = Vec::new();
        while order.last() != Some(key) {
            order.push(turn(&mut pair, &mut train).expect("somebody has something"));
            more(&mut pair, 10);
        }
        // A turn may take several trains.
        order.dedup();
        let once: std::collections::HashSet<_> = order.iter().collect();
        assert_eq!(once.len(), order.len(), "{key:?} waited for more than one turn of each: {order:?}");
        assert!(round > 0 || order.len() == 4, "all three were before it: {order:?}");
        // What was sent is acknowledged; then the next one.
        let landed = |p: &mut Pair| busy.iter().all(|k| p.client.conn_stats(*k).is_ok_and(|s| s.bytes_in_flight == 0));
        assert!(pair.run_until(Duration::from_secs(1), landed));
    }
}

/// The earliest time at which any connection of an engine wants to be ticked.
fn earliest(engine: &Engine) -> Option<Instant> {
    let deadline = |entry: &crate::engine::Entry| match &entry.kind {
        Entry::Live(conn) => conn.deadline(&engine.env),
        Entry::Mini(_) | Entry::Remains(_) => entry.deadline,
    };
    engine.table.iter().filter_map(|(_, entry)| deadline(entry)).min()
}

/// Holds that the engine's deadline is that of its connections. Deadlines that became later may still be in the heap: then
/// the engine comes up early, ticks nobody, and has the right one afterwards.
fn check_deadline(engine: &mut Engine, now: &mut Instant) {
    let (expected, ticks) = (earliest(engine), engine.stats().ticks);
    for _ in 0..20 {
        let told = engine.deadline();
        if told == expected {
            return;
        }
        let at = told.expect("a connection has a deadline, and so has the engine");
        assert!(expected.is_none_or(|e| at < e), "told {told:?}, expected {expected:?} at {now:?}");
        *now = at.max(*now);
        engine.process(*now);
        assert_eq!(engine.stats().ticks, ticks, "nobody was due");
    }
    panic!("the deadline stays early: {:?}, expected {expected:?}", engine.deadline());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_deadline_is_the_earliest_of_all_connections_whatever_they_do(
        timeouts in prop::collection::vec((1u64..40, 0u64..20), 1..7),
        ops in prop::collection::vec((0usize..7, 0u8..5, 0u64..30_000), 1..40),
    ) {
        // LS-LIFE-11
        let mut pair = Pair::new(&Settings::default());
        let mut keys = Vec::new();
        for (idle, alive) in timeouts {
            let settings = Settings {
                idle_timeout: Duration::from_secs(idle),
                keep_alive: (alive > 0).then(|| Duration::from_secs(alive)),
                ..Settings::default()
            };
            keys.push(pair.connect(&settings));
        }
        for (which, op, wait) in ops {
            let key = keys[which % keys.len()];
            match op {
                0 => pair.client.ping(key).unwrap_or(()),
                1 => {
                    if let Ok(Some(id)) = pair.client.open_stream(key, Dir::Uni) {
                        let _ = pair.client.write(key, id, &[1; 3000]);
                    }
                }
                2 => pair.client.close(pair.now, key, 0, b"").unwrap_or(()),
                _ => {}
            }
            // One step moves to what happens next; sometimes a while passes first.
            pair.now += Duration::from_millis(if op == 4 { wait } else { 0 });
            pair.flush(Way::Up);
            check_deadline(&mut pair.client, &mut pair.now);
            pair.flush(Way::Down);
            check_deadline(&mut pair.server, &mut pair.now);
            pair.step();
        }
    }
}

/// Notes steps of lives and packets that were received.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    started: Vec<ConnKey>,
    ended: Vec<ConnKey>,
    closing: Vec<(ConnKey, CloseReason)>,
    received: Vec<(Level, usize)>,
}

impl Observer for Diary {
    fn interest(&self) -> Interest {
        Interest::NONE.with(Kind::Life).with(Kind::PacketReceived)
    }

    fn on(&mut self, _: Instant, key: ConnKey, event: &observe::Event<'_>) {
        let mut pages = self.0.lock().unwrap();
        match event {
            observe::Event::Life(Step::Started(_)) => pages.started.push(key),
            observe::Event::Life(Step::Closing(reason)) => pages.closing.push((key, (*reason).clone())),
            observe::Event::Life(Step::Ended) => pages.ended.push(key),
            observe::Event::PacketReceived { level, size, .. } => pages.received.push((*level, *size)),
            _ => {}
        }
    }
}

/// A pair whose server keeps a diary.
fn watched(settings: &Settings) -> (Pair, Diary) {
    let diary = Diary::default();
    let mut pair = Pair::new(settings);
    let mut server = config(2, &Watcher::default());
    server.observer = Some(Box::new(diary.clone()));
    server.server = Some(crate::engine::ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone()));
    pair.server = Engine::new(server);
    (pair, diary)
}

#[test]
fn every_connection_that_began_is_told_to_have_ended_once() {
    // LS-LIFE-05
    let settings = Settings::default();
    let (mut pair, diary) = watched(&settings);
    for n in 0..30 {
        let client = pair.connect(&settings);
        pair.establish();
        if n % 2 == 0 {
            pair.client.close(pair.now, client, 0, b"").unwrap();
        }
        pair.events = [Vec::new(), Vec::new()];
    }
    // The others time out.
    pair.run_for(Duration::from_secs(100));
    let mut pages = diary.0.lock().unwrap();
    let sort = |keys: &mut Vec<ConnKey>| keys.sort_by_key(|k| (k.index, k.generation));
    sort(&mut pages.started);
    sort(&mut pages.ended);
    assert_eq!(pages.started.len(), 30);
    assert_eq!(pages.started, pages.ended);
    let idle = pages.closing.iter().filter(|(_, reason)| *reason == CloseReason::IdleTimeout).count();
    assert_eq!((pages.closing.len(), idle), (30, 15), "and why, once");
    pages.closing.sort_by_key(|(k, _)| (k.index, k.generation));
    assert!(pages.closing.iter().map(|(key, _)| key).eq(&pages.started));
    assert_eq!(pair.server.connections(), 0);
}

/// Levels and sizes of the packets in a datagram.
fn parts(datagram: &[u8]) -> Vec<(Level, usize)> {
    let (mut parts, mut rest) = (Vec::new(), datagram);
    while let Ok(header) = header::decode(rest, 8) {
        let Some(long) = header.long() else {
            parts.extend(matches!(header, Header::Short { .. }).then_some((Level::OneRtt, rest.len())));
            break;
        };
        parts.push((long.level, long.end));
        rest = &rest[long.end..];
    }
    parts
}

#[test]
fn an_initial_a_handshake_and_a_1_rtt_packet_in_one_datagram_are_three_received_packets() {
    // LS-IN-03
    let settings = Settings::default();
    let (mut pair, diary) = watched(&settings);
    let client = pair.connect(&settings);
    let coalesced = Arc::new(Mutex::new(Vec::new()));
    let found = coalesced.clone();
    pair.filter = Box::new(move |way, _, datagram| {
        let all = parts(datagram);
        if way == Way::Up && all.len() == 3 {
            found.lock().unwrap().push(all);
        }
        true
    });
    // What the application has to say when it hears of the handshake's end leaves with that end.
    let connected = |p: &mut Pair| {
        while let Some(event) = p.client.poll_event() {
            p.events[0].push(event);
        }
        p.events[0].iter().any(|(_, e)| *e == Event::Connected)
    };
    assert!(pair.run_until(Duration::from_secs(1), connected));
    pair.run_for(Duration::from_secs(1));
    assert!(pair.client.conn_stats(client).is_ok());
    let coalesced = coalesced.lock().unwrap();
    assert!(!coalesced.is_empty());
    let received = &diary.0.lock().unwrap().received;
    for all in coalesced.iter() {
        assert_eq!(all.iter().map(|p| p.0).collect::<Vec<_>>(), [Level::Initial, Level::Handshake, Level::OneRtt]);
        assert!(received.windows(3).any(|w| w == &all[..]), "{all:?} in {received:?}");
    }
}

#[test]
fn coalesced_datagrams_keep_to_the_path_and_1_rtt_packets_end_them() {
    // LS-PROC-12, LS-PROC-13
    for (first, certificate_len) in [(1200, 0), (1200, 3000), (1350, 900), (1452, 5000), (1472, 20_000)] {
        let settings = Settings { initial_udp_payload: first, mtu_discovery: false, ..Settings::default() };
        let mut pair = Pair::with(NullTlsServer { certificate_len, ..NullTlsServer::default() }, &settings, |_| {});
        let client = pair.connect(&settings);
        let shared = Arc::new(Mutex::new((0, 0)));
        let seen = shared.clone();
        pair.filter = Box::new(move |_, _, datagram| {
            let all = parts(datagram);
            assert!(datagram.len() <= first.into(), "{} bytes: {all:?}", datagram.len());
            assert_eq!(all.iter().map(|p| p.1).sum::<usize>(), datagram.len(), "nothing behind the last packet");
            let levels: Vec<_> = all.iter().map(|p| p.0).collect();
            assert!(levels.windows(2).all(|w| w[0] < w[1]), "one packet of each level: {levels:?}");
            let mut seen = seen.lock().unwrap();
            seen.0 += usize::from(all.len() > 1);
            seen.1 += usize::from(levels == [Level::OneRtt]);
            true
        });
        let server = pair.establish();
        assert_eq!(pair.transfer(client, server, &[1; 50_000]).len(), 50_000);
        let shared = shared.lock().unwrap();
        assert!(shared.0 > 0 && shared.1 > 30, "{shared:?}");
        pair.assert_legal();
    }
}

/// Connects a client with that token and tells whether the server took it for a proof of the address.
fn is_proof(server_key: [u8; 32], token: &[u8], now: Instant) -> bool {
    let settings = Settings::default();
    let mut server = config(5, &Watcher::default());
    server.token_keys = Some(crate::engine::TokenKeys::new(server_key));
    let mut part = crate::engine::ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone());
    part.retry = crate::engine::RetryPolicy::Always;
    server.server = Some(part);
    let mut pair = Pair::new(&settings);
    pair.server = Engine::new(server);
    pair.now = now;
    let start = Connect {
        remote: SERVER.parse().unwrap(),
        server_name: "localhost",
        tls: &NullTlsClient::default(),
        settings: &settings,
        token,
        restart: None,
    };
    pair.client.connect_with(now, &start).unwrap();
    pair.establish();
    let stats = pair.server.stats();
    assert_eq!(stats.gate_retry, stats.bad_tokens, "whoever has no proof is asked for one");
    stats.retries == 0
}

#[test]
fn a_token_of_one_engine_is_taken_by_another_with_the_same_key_alone() {
    // LS-ENG-04
    let settings = Settings::default();
    let mut server = config(2, &Watcher::default());
    server.token_keys = Some(crate::engine::TokenKeys::new([1; 32]));
    server.server = Some(crate::engine::ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone()));
    let mut pair = Pair::new(&settings);
    pair.server = Engine::new(server);
    let client = pair.connect(&settings);
    pair.establish();
    pair.run_for(Duration::from_secs(1));
    let token = pair.client.take_token(client).unwrap().expect("the server gave one");
    assert!(is_proof([1; 32], &token, pair.now), "the same key");
    assert!(!is_proof([2; 32], &token, pair.now), "another key");
}

#[test]
fn a_write_that_finds_the_window_full_takes_nothing_and_is_told_when_there_is_room() {
    // LS-STRM-39
    let settings = Settings { send_window: 64 << 10, pacing: false, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    pair.establish();
    let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    let taken = pair.client.write(client, id, &vec![1; 1 << 20]).unwrap();
    assert!((1..1 << 20).contains(&taken), "{taken}");
    // All that the congestion window admits is in flight; nothing comes back.
    pair.filter = Box::new(|_, _, _| false);
    pair.flush(Way::Up);
    let stats = pair.client.conn_stats(client).unwrap();
    assert!(stats.bytes_in_flight + 1200 > stats.congestion_window, "{stats:?}");
    assert_eq!(pair.client.write(client, id, &[1; 1000]), Ok(0));
    let writable = |p: &mut Pair| p.take(Way::Up).iter().any(|(_, e)| *e == Event::Stream(StreamEvent::Writable(id)));
    assert!(!writable(&mut pair), "nothing was acknowledged yet");
    pair.filter = Box::new(|_, _, _| true);
    assert!(pair.run_until(Duration::from_secs(5), writable));
    assert!(pair.client.write(client, id, &[1; 1000]).unwrap() > 0);
}

#[test]
fn the_difference_of_two_looks_at_the_figures_is_what_passed_on_the_wire() {
    // LS-GQ-14
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.run_for(Duration::from_secs(1));
    let look = |p: &Pair| {
        let of = |e: &Engine, key| e.conn_stats(key).unwrap();
        (of(&p.client, client), of(&p.server, server), p.sent, p.bytes)
    };
    let before = look(&pair);
    pair.transfer(client, server, &[1; 200_000]);
    pair.run_for(Duration::from_secs(1));
    let after = look(&pair);
    let (ours, theirs) = (after.0.since(&before.0), after.1.since(&before.1));
    for (way, sender, receiver) in [(Way::Up, ours, theirs), (Way::Down, theirs, ours)] {
        let at = way as usize;
        let (datagrams, bytes) = (after.2[at] - before.2[at], after.3[at] - before.3[at]);
        assert!(datagrams > 10);
        for told in [sender.sent, receiver.received] {
            assert_eq!((told.datagrams, told.bytes), (datagrams as u64, bytes as u64), "{way:?}");
            assert_eq!(told.packets, told.datagrams, "1-RTT packets stand alone");
        }
    }
    let nothing = after.0.since(&after.0);
    assert_eq!((nothing.sent, nothing.received, nothing.ticks), Default::default());
    assert_eq!(nothing.mtu, after.0.mtu, "gauges stay");
}

/// A Version Negotiation packet as an attacker makes it who saw the client's first datagram.
fn forged_negotiation(hello: &[u8], versions: &[Version]) -> Vec<u8> {
    let header = header::decode(hello, 8).unwrap();
    let long = header.long().unwrap();
    let mut bytes = [0; 100];
    let mut w = Writer::new(&mut bytes);
    header::write_version_negotiation(&mut w, long.scid.as_slice(), long.dcid.as_slice(), versions, 7).unwrap();
    w.written().to_vec()
}

#[test]
fn a_forged_version_negotiation_never_leads_to_another_version() {
    // LS-GQ-13: the client speaks version 2 and, if need be, version 1; an attacker says that the server knows 1 alone.
    let settings = Settings { versions: vec![Version::V2, Version::V1], ..Settings::default() };
    for (offered, believed) in [(vec![Version::V1], true), (vec![Version::V1, Version::V2], false)] {
        let mut pair = Pair::new(&settings);
        let client = pair.connect(&settings);
        let hello = Arc::new(Mutex::new(Vec::new()));
        let first = hello.clone();
        pair.filter = Box::new(move |_, _, datagram| {
            first.lock().unwrap().extend_from_slice(datagram);
            true
        });
        pair.flush(Way::Up);
        let mut forged = forged_negotiation(&hello.lock().unwrap(), &offered);
        let meta = Meta { local: None, remote: SERVER.parse().unwrap(), ecn: Ecn::NotEct, stride: forged.len() };
        pair.client.receive(pair.now, &meta, &mut forged);
        if !believed {
            // It lists the version that was tried, so no server can have sent it.
            pair.establish();
            assert_eq!(pair.client.version(client), Ok(Version::V2));
            continue;
        }
        pair.run_for(Duration::from_secs(1));
        let told = CloseReason::VersionNegotiation { offered };
        assert!(pair.take(Way::Up).contains(&(client, Event::Closed(told))), "the application decides, not the packet");
        assert_eq!((pair.client.connections(), pair.client.stats().connected), (0, 1), "nothing goes on in version 1");
    }
}

#[test]
fn each_peer_and_connection_id_gets_its_own_answer_to_an_unknown_version() {
    // LS-IN-08
    let mut pair = Pair::new(&Settings::default());
    let mut asked = Vec::new();
    for n in 0..12u8 {
        let remote = if n % 2 == 0 { CLIENT } else { "10.0.0.9:1000" };
        let mut datagram = vec![0; 1200];
        datagram[..14].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, n / 2 % 3, 2, 3, 4, 5, 6, 7, 8]);
        let meta = Meta { local: None, remote: remote.parse().unwrap(), ecn: Ecn::NotEct, stride: 1200 };
        pair.server.receive(pair.now, &meta, &mut datagram);
        asked.push((remote.to_owned(), n / 2 % 3));
    }
    let mut answered = Vec::new();
    let mut train = Train::new();
    while let Some(meta) = pair.server.fill(pair.now, &mut train) {
        let Ok(Header::VersionNegotiation { scid, .. }) = header::decode(train.bytes(), 8) else { panic!("no answer") };
        answered.push((meta.to.to_string(), scid[0]));
    }
    asked.sort();
    asked.dedup();
    answered.sort();
    assert_eq!(asked.len(), 6);
    assert_eq!(answered, asked, "exactly one each");
}

#[test]
fn a_connection_that_is_being_set_up_finishes_during_cooldown_and_old_ones_close_cleanly() {
    // LS-IN-05
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let old = pair.connect(&settings);
    pair.establish();
    let young = pair.connect(&settings);
    assert!(pair.run_until(Duration::from_secs(1), |p| p.server.connections() == 2));
    pair.server.set_cooldown(true);
    pair.events = [Vec::new(), Vec::new()];
    let server = pair.establish();
    assert!(pair.transfer(young, server, b"in time") == b"in time");
    let late = pair.connect(&settings);
    pair.run_for(Duration::from_millis(500));
    assert_eq!((pair.server.connections(), pair.server.stats().accepted), (2, 2));
    for key in [old, young, late] {
        pair.client.close(pair.now, key, 5, b"done").unwrap();
    }
    pair.run_for(Duration::from_secs(3));
    let closed = CloseReason::PeerApplication { code: 5, reason: b"done".to_vec() };
    let clean = pair.take(Way::Down).iter().filter(|(_, e)| *e == Event::Closed(closed.clone())).count();
    assert_eq!((clean, pair.server.connections(), pair.server.route_count()), (2, 0, 0));
}

#[test]
fn what_came_before_the_idle_timeout_can_be_read_for_a_while_and_then_is_gone() {
    for len in [0, 5_000] {
        let settings = Settings { idle_timeout: Duration::from_secs(3), ..Settings::default() };
        let mut pair = Pair::new(&settings);
        let client = pair.connect(&settings);
        let server = pair.establish();
        let id = pair.client.open_stream(client, Dir::Bi).unwrap().unwrap();
        pair.client.write(client, id, &[7; 5_000][..len]).unwrap();
        pair.run_for(Duration::from_secs(1));
        pair.take(Way::Down);
        let told = |p: &mut Pair| {
            let events = p.take(Way::Down);
            events.iter().any(|(_, e)| *e == Event::Closed(CloseReason::IdleTimeout))
        };
        assert!(pair.run_until(Duration::from_secs(10), told));
        if len > 0 {
            assert_eq!(pair.server.accept_stream(server, Dir::Bi), Ok(Some(id)));
            let mut out = [0; 8_000];
            assert_eq!(pair.server.read(server, id, &mut out), Ok(Read::Bytes(len)));
            assert!(out[..len].iter().all(|b| *b == 7));
        } else {
            assert!(pair.server.conn_stats(server).is_err(), "with nothing to read it is gone at once");
        }
        pair.run_for(Duration::from_secs(10));
        assert!(pair.server.conn_stats(server).is_err(), "the time to read is bounded");
        assert!(pair.server.pool_stats().in_use == 0);
    }
}

#[test]
fn a_machine_that_slept_goes_on_where_it_was_or_ends_by_the_idle_rule() {
    let settings = Settings::default();
    for (asleep, survives) in [(20, true), (29, true), (40, false), (40_000, false)] {
        let mut pair = Pair::new(&settings);
        let client = pair.connect(&settings);
        let server = pair.establish();
        let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        let data = vec![7; 400_000];
        let (mut written, mut got) = (0, Vec::new());
        let mut move_on = |p: &mut Pair, until: usize| {
            p.run_until(Duration::from_secs(20), |p| {
                written += p.client.write(client, id, &data[written..]).unwrap_or(0);
                p.read_all(server, id, &mut got);
                got.len() >= until
            })
        };
        assert!(move_on(&mut pair, 100_000));
        let before = pair.client.conn_stats(client).unwrap();
        // Nothing runs at either end meanwhile; what was on its way arrives late.
        pair.now += Duration::from_secs(asleep);
        assert_eq!(move_on(&mut pair, 400_000), survives, "{asleep} s");
        if survives {
            let stats = pair.client.conn_stats(client).unwrap().since(&before);
            assert!(stats.ptos <= 2 && stats.lost_packets <= 16, "no burst of losses: {stats:?}");
        } else {
            let idle = |e: &[(ConnKey, Event)]| e.iter().any(|(_, e)| *e == Event::Closed(CloseReason::IdleTimeout));
            assert!(idle(&pair.events[0]) || idle(&pair.events[1]), "{asleep} s");
        }
    }
}

#[test]
fn a_connection_that_rested_hundreds_of_times_can_be_busy_again() {
    // What comes every two seconds, and sooner at first, wakes it soon after it went to rest, each time: the count of its rests
    // is at its end.
    let dormant_after = Some(Duration::from_millis(100));
    let settings =
        Settings { idle_timeout: Duration::ZERO, mtu_discovery: false, dormant_after, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    pair.establish();
    for n in 0..320 {
        pair.client.ping(client).unwrap();
        pair.run_for(Duration::from_millis(if n < 20 { 1500 } else { 2000 }));
    }
    for _ in 0..400 {
        pair.client.ping(client).unwrap();
        pair.run_for(Duration::from_millis(10));
    }
    assert!(pair.client.close_reason(client).unwrap().is_none());
}
