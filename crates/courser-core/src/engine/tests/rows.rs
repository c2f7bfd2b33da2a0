//! The engine's promises one by one: life of connections, input, processing, sending.

use core::time::Duration;

use super::pair::{CLIENT, Pair, SERVER, Watcher, Way, config};
use crate::config::Settings;
use crate::engine::{Engine, Event, Meta, RetryPolicy, SendOutcome, Train};
use crate::error::{ApiMisuse, CloseReason};
use crate::ids::{Cid, ConnKey, Dir, Ecn, Level, Version};
use crate::path::{Checked, Proof, Showing, TokenKeys, Tokens};
use crate::protect::null::{NullKeys, NullTlsClient, NullTlsServer};
use crate::stream::Read;
use crate::time::Instant;
use crate::wire::header::{self, Header};

fn now() -> Instant {
    Instant::from_micros(1_000_000)
}

fn meta(remote: &str, len: usize) -> Meta {
    Meta { local: None, remote: remote.parse().unwrap(), ecn: Ecn::NotEct, stride: len }
}

/// An engine with `n` connections whose first flights have not left.
fn with_clients(n: usize) -> (Engine, Vec<ConnKey>) {
    let mut engine = Engine::new(config(1, &Watcher::default()));
    let settings = Settings::default();
    let tls = NullTlsClient::default();
    let connect = |_| engine.connect(now(), SERVER.parse().unwrap(), "localhost", &tls, &settings).unwrap();
    let keys = (0..n).map(connect).collect();
    (engine, keys)
}

/// A pair with `n` confirmed connections; keys at the client and at the server.
fn connected(n: usize) -> (Pair, Vec<(ConnKey, ConnKey)>) {
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let mut keys = Vec::new();
    for _ in 0..n {
        let client = pair.connect(&settings);
        pair.events = [Vec::new(), Vec::new()];
        keys.push((client, pair.establish()));
    }
    (pair, keys)
}

#[test]
fn engines_come_and_go_and_take_their_connections_along() {
    for _ in 0..300 {
        let (engine, keys) = with_clients(3);
        assert_eq!((engine.connections(), keys.len()), (3, 3));
    }
}

#[test]
fn settings_are_copied_when_they_are_given() {
    // LS-ENG-03
    let mut settings = Settings {
        idle_timeout: Duration::from_secs(5),
        keep_alive: None,
        stream_window: 77_777,
        max_streams_uni: 9,
        ..Settings::default()
    };
    let given = settings.clone();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    settings.idle_timeout = Duration::from_secs(500);
    settings.stream_window = 1;
    let server = pair.establish();
    assert_ne!(settings, given);
    assert_eq!(pair.client.settings(client), Ok(&given), "each of them reads back as it was");
    assert_eq!(pair.server.settings(server), Ok(&given));
    pair.run_for(Duration::from_secs(7));
    let idle = |events: &[(ConnKey, Event)]| events.iter().any(|(_, e)| *e == Event::Closed(CloseReason::IdleTimeout));
    assert!(idle(&pair.events[0]) && idle(&pair.events[1]));
    assert_eq!(pair.client.conn_stats(client).unwrap_err(), ApiMisuse::UnknownConnection);
}

#[test]
fn tokens_are_taken_by_engines_with_the_same_key_alone() {
    let of = |key| Tokens::new(&NullKeys, &TokenKeys::new(key), Duration::ZERO);
    let (a, b, same) = (of([1; 32]), of([2; 32]), of([1; 32]));
    let original_dcid = Cid::new(&[5; 8]).unwrap();
    let at = Showing { version: Version::V1, now: now(), peer: CLIENT.parse().unwrap(), dcid: original_dcid };
    let token = a.retry(&NullKeys, &at, &original_dcid);
    assert_eq!(b.check(&NullKeys, &at, &token), Checked::Nothing);
    assert_eq!(same.check(&NullKeys, &at, &token), Checked::Good(Proof::Retry { original_dcid }));
}

#[test]
fn a_connection_is_reached_by_each_of_its_connection_ids() {
    let settings = Settings { active_cid_limit: 8, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.run_for(Duration::from_secs(20));
    let conn = pair.server.conn(server).unwrap();
    let cids: Vec<Cid> = conn.own_cids().collect();
    assert!(cids.len() >= 8, "{}", cids.len());
    for cid in &cids {
        assert_eq!(pair.server.routes.find(cid.as_slice()), Some(server));
    }
    assert!(pair.client.conn(client).is_some());
}

#[test]
fn connections_that_are_always_ready_send_in_turn() {
    let (mut pair, keys) = connected(20);
    let mut streams = Vec::new();
    for (client, _) in &keys {
        let id = pair.client.open_stream(*client, Dir::Uni).unwrap().unwrap();
        pair.client.write(*client, id, &[1; 500_000]).unwrap();
        streams.push(id);
    }
    pair.client.process(pair.now);
    let mut train = Train::new();
    let mut order = Vec::new();
    while let Some(meta) = pair.client.fill(pair.now, &mut train) {
        pair.client.sent(pair.now, &meta, SendOutcome::Sent);
        order.push(meta.key.unwrap());
    }
    assert!(order.len() >= keys.len());
    let first: std::collections::HashSet<_> = order[..keys.len()].iter().collect();
    assert_eq!(first.len(), keys.len(), "nobody sends twice before everybody sent once");
    for round in order.chunks(keys.len()) {
        let unique: std::collections::HashSet<_> = round.iter().collect();
        assert_eq!(unique.len(), round.len());
    }
}

#[test]
fn one_call_ticks_each_ready_connection_once() {
    let (mut pair, keys) = connected(10);
    pair.run_for(Duration::from_secs(1));
    let before = pair.client.stats().ticks;
    for _ in 0..5 {
        for (client, _) in &keys {
            pair.client.ping(*client).unwrap();
        }
    }
    pair.client.process(pair.now);
    assert_eq!(pair.client.stats().ticks - before, 10, "five calls each, one tick each");
    pair.client.process(pair.now);
    assert_eq!(pair.client.stats().ticks - before, 10, "nobody is ready any more");
}

#[test]
fn an_idle_connection_is_not_ticked_between_its_deadlines() {
    let (mut pair, _) = connected(5);
    pair.run_for(Duration::from_secs(8));
    let deadline = pair.client.deadline().unwrap();
    assert!(deadline > pair.now);
    let before = pair.client.stats();
    let mut now = pair.now;
    while now + Duration::from_millis(10) < deadline {
        now += Duration::from_millis(10);
        pair.client.process(now);
        assert!(pair.client.fill(now, &mut Train::new()).is_none());
    }
    assert_eq!(pair.client.stats().ticks, before.ticks);
    // A deadline that has moved since it was entered comes up once more before anybody is due.
    for _ in 0..10 {
        let at = pair.client.deadline().unwrap();
        pair.client.process(at);
        if pair.client.stats().ticks > before.ticks {
            return;
        }
        assert!(pair.client.deadline() > Some(at));
    }
    panic!("nobody was ticked when the deadline came");
}

#[test]
fn the_engines_deadline_is_the_earliest_of_its_connections() {
    let (mut engine, keys) = with_clients(0);
    assert!(keys.is_empty());
    let mut train = Train::new();
    let mut earliest = None;
    for (n, timeout) in [7u64, 3, 9, 4].into_iter().enumerate() {
        let settings = Settings { handshake_timeout: Duration::from_millis(timeout * 10), ..Settings::default() };
        let tls = NullTlsClient { seed: n as u64, ..NullTlsClient::default() };
        engine.connect(now(), SERVER.parse().unwrap(), "localhost", &tls, &settings).unwrap();
        engine.process(now());
        while let Some(meta) = engine.fill(now(), &mut train) {
            engine.sent(now(), &meta, SendOutcome::Sent);
        }
        let at = now() + settings.handshake_timeout;
        earliest = Some(earliest.map_or(at, |e: Instant| e.min(at)));
        assert_eq!(engine.deadline(), earliest, "the heap's first is the minimum");
    }
    let at = earliest.unwrap();
    engine.process(at - Duration::from_micros(1));
    assert_eq!(engine.connections(), 4);
    engine.process(at);
    assert_eq!(engine.connections(), 3, "one call after the deadline runs the timer");
    assert_eq!(engine.deadline(), Some(now() + Duration::from_millis(40)));
}

#[test]
fn a_closed_connection_answers_calls_until_it_is_ticked_and_its_key_never_means_another() {
    let (mut pair, keys) = connected(1);
    let (client, _) = keys[0];
    let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    pair.client.close(pair.now, client, 3, b"").unwrap();
    assert!(pair.client.conn_stats(client).is_ok(), "its state can still be read");
    assert_eq!(pair.client.write(client, id, b"x").unwrap_err(), ApiMisuse::Closing.into());
    pair.run_for(Duration::from_secs(10));
    let again = pair.connect(&Settings::default());
    assert_eq!(again.index, client.index, "the slot is used again");
    assert_ne!(again, client);
    assert_eq!(pair.client.conn_stats(client).unwrap_err(), ApiMisuse::UnknownConnection);
}

#[test]
fn the_close_leaves_after_the_socket_was_blocked_and_then_the_connection_goes() {
    let (mut pair, keys) = connected(1);
    let (client, _) = keys[0];
    pair.run_for(Duration::from_secs(1));
    pair.client.close(pair.now, client, 3, b"late").unwrap();
    // The socket is full: the worker does not ask for trains, however long.
    pair.client.process(pair.now);
    pair.now += Duration::from_secs(5);
    pair.client.process(pair.now);
    assert_eq!(pair.client.connections(), 1, "nothing was said yet");
    let mut train = Train::new();
    let meta = pair.client.fill(pair.now, &mut train).expect("the close");
    pair.client.sent(pair.now, &meta, SendOutcome::Sent);
    let mut datagram = train.bytes().to_vec();
    let len = datagram.len();
    pair.server.receive(pair.now, &self::meta(CLIENT, len), &mut datagram);
    pair.run_for(Duration::from_secs(10));
    let closed = CloseReason::PeerApplication { code: 3, reason: b"late".to_vec() };
    assert!(pair.take(Way::Down).iter().any(|(_, e)| *e == Event::Closed(closed.clone())));
    assert_eq!(pair.client.connections(), 0);
}

#[test]
fn without_timers_a_connection_sleeps_until_it_hears_something() {
    let settings = Settings { idle_timeout: Duration::ZERO, mtu_discovery: false, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.run_for(Duration::from_secs(100));
    assert_eq!(pair.server.deadline(), None, "neither idle nor ping timer");
    let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    pair.client.write(client, id, b"good morning").unwrap();
    pair.run_for(Duration::from_secs(1));
    let mut out = [0; 20];
    assert_eq!(pair.server.read(server, id, &mut out), Ok(Read::Bytes(12)));
}

#[test]
fn a_coalesced_datagram_gives_all_its_packets() {
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let found = seen.clone();
    pair.filter = Box::new(move |way, _, datagram| {
        let mut levels = Vec::new();
        let mut rest = &datagram[..];
        while let Ok(header) = header::decode(rest, 8) {
            match (&header, header.long()) {
                (_, Some(long)) => {
                    levels.push(long.level);
                    rest = &rest[long.end..];
                }
                (Header::Short { .. }, _) => {
                    levels.push(Level::OneRtt);
                    break;
                }
                _ => break,
            }
        }
        found.lock().unwrap().push((way, levels));
        true
    });
    let server = pair.establish();
    let seen = seen.lock().unwrap();
    let sent: usize = seen.iter().filter(|(way, _)| *way == Way::Down).map(|(_, l)| l.len()).sum();
    assert!(seen.iter().any(|(_, l)| l.len() > 1), "something was coalesced: {seen:?}");
    // Each 1-RTT packet ends its datagram.
    assert!(seen.iter().all(|(_, l)| l.iter().rev().skip(1).all(|l| *l != Level::OneRtt)));
    let stats = pair.client.conn_stats(client).unwrap();
    assert_eq!(stats.received.packets + stats.dropped_packets + stats.undecryptable, sent as u64);
    assert!(pair.server.conn_stats(server).is_ok());
}

#[test]
fn packets_to_nobody_touch_no_connection() {
    let (mut pair, keys) = connected(1);
    pair.run_for(Duration::from_secs(1));
    pair.server.process(pair.now);
    let before = (pair.server.conn_stats(keys[0].1).unwrap(), pair.server.stats());
    let retry = [&[0xf0, 0, 0, 0, 1, 8][..], &[1; 8], &[0], &[7; 40]].concat();
    let negotiation = [&[0x80, 0, 0, 0, 0, 8][..], &[1; 8], &[0], &[0, 0, 0, 1]].concat();
    let short = [&[0x40][..], &[9; 30]].concat();
    for datagram in [retry, negotiation, short] {
        let meta = meta(CLIENT, datagram.len());
        pair.server.receive(pair.now, &meta, &mut datagram.clone());
    }
    pair.server.process(pair.now);
    assert_eq!(pair.server.conn_stats(keys[0].1).unwrap(), before.0);
    assert_eq!(pair.server.stats().ticks, before.1.ticks);
    assert_eq!(pair.server.connections(), 1);
}

#[test]
fn during_cooldown_old_connections_go_on_and_new_ones_get_nothing() {
    let (mut pair, keys) = connected(1);
    pair.server.set_cooldown(true);
    pair.connect(&Settings::default());
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.server.connections(), 1);
    assert!(pair.server.stats().gate_cooldown > 0);
    assert!(pair.transfer(keys[0].0, keys[0].1, b"still here") == b"still here");
}

#[test]
fn an_unknown_version_gets_one_answer_for_a_peer_and_connection_id() {
    let mut pair = Pair::new(&Settings::default());
    let mut datagram = vec![0; 1200];
    datagram[..14].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    for _ in 0..3 {
        pair.server.receive(pair.now, &meta(CLIENT, 1200), &mut datagram.clone());
    }
    let mut train = Train::new();
    let sent = pair.server.fill(pair.now, &mut train).unwrap();
    assert_eq!((sent.key, sent.to), (None, CLIENT.parse().unwrap()));
    assert!(matches!(header::decode(train.bytes(), 8), Ok(Header::VersionNegotiation { .. })));
    assert!(pair.server.fill(pair.now, &mut train).is_none());
    assert_eq!(pair.server.stats().version_negotiations, 1);
}

#[test]
fn under_a_forced_retry_there_is_no_state_before_the_token_comes_back() {
    let settings = Settings::default();
    let mut pair = Pair::with(NullTlsServer::default(), &settings, |s| s.retry = RetryPolicy::Always);
    pair.connect(&settings);
    pair.run_until(Duration::from_secs(1), |p| p.server.stats().gate_retry == 1);
    assert_eq!((pair.server.connections(), pair.server.route_count()), (0, 0));
    pair.establish();
    assert_eq!(pair.server.stats().retries, 1);
}

#[test]
fn replies_are_neither_starved_nor_first_under_load() {
    let (mut pair, keys) = connected(12);
    // The servers have much to say.
    for (_, server) in &keys {
        let id = pair.server.open_stream(*server, Dir::Uni).unwrap().unwrap();
        pair.server.write(*server, id, &[1; 400_000]).unwrap();
    }
    let mut unknown = vec![0; 1200];
    unknown[..14].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    pair.server.process(pair.now);
    pair.server.receive(pair.now, &meta("10.7.7.7:7", 1200), &mut unknown);
    let mut train = Train::new();
    let mut order = Vec::new();
    while let Some(meta) = pair.server.fill(pair.now, &mut train) {
        pair.server.sent(pair.now, &meta, SendOutcome::Sent);
        order.push(meta.key);
    }
    let at = order.iter().position(Option::is_none).unwrap();
    assert!((1..12).contains(&at), "the reply left as number {at}");
}

#[test]
fn processing_comes_before_sending_and_every_train_belongs_to_one_connection() {
    let (mut pair, keys) = connected(3);
    for (client, _) in &keys {
        let id = pair.client.open_stream(*client, Dir::Bi).unwrap().unwrap();
        pair.client.write(*client, id, &[5; 30_000]).unwrap();
    }
    pair.client.process(pair.now);
    let ticks = pair.client.stats().ticks;
    let mut train = Train::new();
    while let Some(meta) = pair.client.fill(pair.now, &mut train) {
        let cids: Vec<_> = train.bytes().chunks(meta.segment).map(|d| d[1..9].to_vec()).collect();
        assert!(cids.windows(2).all(|w| w[0] == w[1]), "one connection, one path");
        assert!(train.bytes().chunks(meta.segment).rev().skip(1).all(|d| d.len() == meta.segment));
        assert_eq!(pair.client.stats().ticks, ticks, "sending ticks nobody");
        pair.client.sent(pair.now, &meta, SendOutcome::Sent);
    }
}

#[test]
fn data_that_was_ready_before_the_handshake_ended_leaves_with_its_end() {
    // LS-PROC-03: the datagram that carries the client's Finished is the one that carries the first words.
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let finished = |datagram: &[u8]| {
        let first = header::decode(datagram, 8).unwrap();
        let long = first.long().unwrap();
        matches!(header::decode(&datagram[long.end..], 8).unwrap().long(), Some(l) if l.level == Level::Handshake)
    };
    let mut train = Train::new();
    let (mut now, mut to_server) = (pair.now, true);
    for _ in 0..10 {
        let (from, to, remote) = if to_server {
            (&mut pair.client, &mut pair.server, CLIENT)
        } else {
            (&mut pair.server, &mut pair.client, SERVER)
        };
        from.process(now);
        while let Some(sent) = from.fill(now, &mut train) {
            from.sent(now, &sent, SendOutcome::Sent);
            to.receive(now, &meta(remote, sent.segment), &mut train.bytes().to_vec());
        }
        to_server = !to_server;
        now += Duration::from_millis(10);
        // One processing call finishes the handshake and tells so; the application answers; then the socket is asked.
        pair.client.process(now);
        if core::iter::from_fn(|| pair.client.poll_event()).any(|(_, e)| e == Event::Connected) {
            break;
        }
    }
    let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    pair.client.write(client, id, b"first words").unwrap();
    let mut leaves = Vec::new();
    pair.client.process(now);
    while let Some(sent) = pair.client.fill(now, &mut train) {
        leaves.extend(train.bytes().chunks(sent.segment).map(<[u8]>::to_vec));
        pair.client.sent(now, &sent, SendOutcome::Sent);
    }
    assert_eq!(leaves.len(), 1, "{leaves:02x?}");
    assert!(finished(&leaves[0]) && leaves[0].windows(11).any(|w| w == b"first words"));
}

#[test]
fn both_versions_pass_the_same_exchange() {
    //= rfc9369#3-1 type=test
    for version in [Version::V1, Version::V2] {
        let settings = Settings { versions: vec![version], ..Settings::default() };
        let mut pair = Pair::new(&settings);
        let client = pair.connect(&settings);
        let server = pair.establish();
        assert_eq!((pair.client.version(client), pair.server.version(server)), (Ok(version), Ok(version)));
        let data = vec![3; 50_000];
        assert!(pair.transfer(client, server, &data) == data);
        assert_eq!(pair.server.read(server, crate::ids::StreamId(2), &mut [0]).ok(), None::<Read>);
    }
}

#[test]
fn code_and_reason_reach_the_other_application_verbatim() {
    let (mut pair, keys) = connected(1);
    let reason = b"\x00reason \xff with any bytes";
    pair.server.close(pair.now, keys[0].1, (1 << 62) - 1, reason).unwrap();
    assert_eq!(pair.server.close(pair.now, keys[0].1, 1 << 62, b"").unwrap_err(), ApiMisuse::CodeTooLarge);
    pair.run_for(Duration::from_secs(1));
    let expected = CloseReason::PeerApplication { code: (1 << 62) - 1, reason: reason.to_vec() };
    assert!(pair.take(Way::Up).iter().any(|(_, e)| *e == Event::Closed(expected.clone())));
}
