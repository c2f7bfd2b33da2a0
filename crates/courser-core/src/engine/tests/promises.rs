//! More of the engine's promises: what a tick tells, the first flight, strangers' packets, what can be looked up.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use super::pair::{CLIENT, Pair, SERVER, Watcher, Way, config};
use crate::config::Settings;
use crate::engine::{Engine, Event, Kind as Entry, Meta, SendOutcome, Train};
use crate::error::{ApiMisuse, CloseReason};
use crate::ids::{ConnKey, Dir, Ecn, Level, Version};
use crate::observe::{self, Interest, Kind, Observer};
use crate::protect::null::{NullTlsClient, NullTlsServer};
use crate::time::Instant;
use crate::wire::header::{self, Header};
use crate::wire::legality;

/// Ticks one connection: whether it wants to send, has a deadline, and is over.
fn tick(engine: &mut Engine, now: Instant, key: ConnKey) -> (bool, bool, bool) {
    let entry = engine.table.get_mut(key).expect("a live connection");
    let Entry::Live(conn) = &mut entry.kind else { panic!("a held connection") };
    let tick = conn.tick(&mut engine.env, now);
    (tick.wants_send, tick.deadline.is_some(), tick.ended)
}

fn send_all(engine: &mut Engine, now: Instant) -> Vec<Vec<u8>> {
    let (mut train, mut datagrams) = (Train::new(), Vec::new());
    engine.process(now);
    while let Some(meta) = engine.fill(now, &mut train) {
        datagrams.extend(train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
        engine.sent(now, &meta, SendOutcome::Sent);
    }
    datagrams
}

/// Levels of the packets in a datagram.
fn levels(datagram: &[u8]) -> Vec<Level> {
    let (mut levels, mut rest) = (Vec::new(), datagram);
    while let Ok(header) = header::decode(rest, 8) {
        let Some(long) = header.long() else {
            levels.extend(matches!(header, Header::Short { .. }).then_some(Level::OneRtt));
            break;
        };
        levels.push(long.level);
        rest = &rest[long.end..];
    }
    levels
}

#[test]
fn a_tick_has_six_results_and_each_puts_the_connection_where_it_belongs() {
    // LS-PROC-02
    let settings = Settings { idle_timeout: Duration::ZERO, mtu_discovery: false, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let now = pair.now;
    assert_eq!(tick(&mut pair.client, now, client), (true, true, false), "the first flight, and a limit for it");
    send_all(&mut pair.client, now);
    assert_eq!(tick(&mut pair.client, now, client), (false, true, false), "waiting for the answer");
    let server = pair.establish();
    pair.run_for(Duration::from_secs(100));
    let now = pair.now;
    assert_eq!(tick(&mut pair.server, now, server), (false, false, false), "dormant");
    pair.server.process(now);
    assert_eq!((pair.server.turns.len(), pair.server.deadline()), (0, None));
    let id = pair.server.open_stream(server, Dir::Uni).unwrap().unwrap();
    pair.server.write(server, id, b"x").unwrap();
    assert_eq!(tick(&mut pair.server, now, server), (true, false, false), "data and no timer");
    pair.server.process(now);
    assert_eq!(pair.server.turns.len(), 1);
    assert!(pair.server.deadline().is_some_and(|at| at <= now), "a turn that waits is due at once");
    assert_eq!(send_all(&mut pair.server, now).len(), 1);
    assert!(pair.server.deadline().is_some(), "sending sets the timer");
    pair.server.close(now, server, 0, b"").unwrap();
    assert_eq!(tick(&mut pair.server, now, server), (true, true, false), "a close to be said, and its end");
    assert_eq!(send_all(&mut pair.server, now).len(), 1);
    assert_eq!(tick(&mut pair.server, now, server), (false, true, false), "a close that was said");
    let end = now + Duration::from_secs(60);
    assert_eq!(tick(&mut pair.server, end, server), (false, false, true), "over: neither packets nor timers");
    pair.server.close(end, server, 0, b"").ok();
    pair.server.process(end);
    assert_eq!((pair.server.connections(), pair.server.turns.len(), pair.server.deadline()), (0, 0, None));
}

#[test]
fn the_first_flight_of_a_server_takes_the_fewest_datagrams() {
    // LS-PROC-11: a chain of 3,000 bytes and the other messages fit three datagrams of 1,200 bytes, not two.
    let settings = Settings::default();
    let tls = NullTlsServer { certificate_len: 3000, ..NullTlsServer::default() };
    let mut pair = Pair::with(tls, &settings, |_| {});
    let client = pair.connect(&settings);
    let now = pair.now;
    for (remote, mut datagram) in send_all(&mut pair.client, now).into_iter().map(|d| (CLIENT, d)) {
        pair.server.receive(now, &meta(remote, datagram.len()), &mut datagram);
    }
    let flight = send_all(&mut pair.server, now);
    assert_eq!(flight.len(), 3, "{:?}", flight.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(levels(&flight[0]), [Level::Initial, Level::Handshake], "levels share a datagram");
    for mut datagram in flight {
        pair.client.receive(now, &meta(SERVER, datagram.len()), &mut datagram);
    }
    pair.client.process(now);
    let events: Vec<_> = core::iter::from_fn(|| pair.client.poll_event()).collect();
    assert!(events.contains(&(client, Event::Connected)), "the flight is complete: {events:?}");
}

fn meta(remote: &str, len: usize) -> Meta {
    Meta { local: None, remote: remote.parse().unwrap(), ecn: Ecn::NotEct, stride: len }
}

#[test]
fn levels_of_a_datagram_ascend() {
    // OSSL-PKT-09
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let found = seen.clone();
    pair.filter = Box::new(move |_, _, datagram| {
        found.lock().unwrap().push(levels(datagram));
        true
    });
    // LS-CONN-04, LS-STRM-09: a stream cannot be had before the peer's limits are known, and asking costs nothing.
    let held = pair.client.pool_stats().in_use;
    assert_eq!(pair.client.open_stream(client, Dir::Uni), Err(ApiMisuse::HandshakePending));
    assert_eq!(pair.client.pool_stats().in_use, held);
    pair.establish();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|l| l.windows(2).all(|w| w[0] < w[1])), "{seen:?}");
    assert!(seen.iter().any(|l| l[..] == [Level::Initial, Level::Handshake, Level::OneRtt]), "{seen:?}");
}

#[test]
fn a_server_drops_version_negotiation_and_retry_without_touching_the_connection() {
    // LS-IN-02: both go to a connection ID that is in use.
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    pair.connect(&settings);
    let server = pair.establish();
    pair.run_for(Duration::from_secs(1));
    let now = pair.now;
    pair.server.process(now);
    let cids: Vec<_> = pair.server.conn(server).unwrap().own_cids().collect();
    let look = |p: &Pair| {
        let s = p.server.conn_stats(server).unwrap();
        (s.received.packets, s.sent, s.undecryptable, s.retries, p.server.version(server), p.server.remote(server))
    };
    let (before, log) = (look(&pair), format!("{:?}", pair.server.packet_log(server)));
    for cid in cids {
        let retry = [&[0xf0, 0, 0, 0, 1, 8][..], cid.as_slice(), &[8], &[7; 60]].concat();
        let negotiation = [&[0x80, 0, 0, 0, 0, 8][..], cid.as_slice(), &[0], &[0x6b, 0x33, 0x43, 0xcf]].concat();
        for mut datagram in [retry, negotiation] {
            pair.server.receive(now, &meta(CLIENT, datagram.len()), &mut datagram);
        }
    }
    assert_eq!(send_all(&mut pair.server, now), Vec::<Vec<u8>>::new(), "no answer");
    assert_eq!(look(&pair), before);
    assert_eq!(format!("{:?}", pair.server.packet_log(server)), log);
    assert_eq!(pair.server.connections(), 1);
}

#[test]
fn one_call_takes_a_datagram_with_both_addresses_its_mark_and_its_time() {
    // LS-IN-01
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    pair.connect(&settings);
    let now = pair.now;
    let mut hello = send_all(&mut pair.client, now).remove(0);
    let local = "10.0.0.2".parse().unwrap();
    let meta = Meta { local: Some(local), remote: CLIENT.parse().unwrap(), ecn: Ecn::Ce, stride: hello.len() };
    let later = now + Duration::from_millis(7);
    pair.server.receive(later, &meta, &mut hello);
    pair.server.process(later);
    let mut train = Train::new();
    let sent = pair.server.fill(later, &mut train).expect("an answer");
    assert_eq!((sent.from, sent.to), (Some(local), CLIENT.parse().unwrap()), "back the way it came");
    let key = sent.key.expect("of a connection");
    let received: Vec<_> = pair.server.packet_log(key).unwrap().last_received().map(|l| l.time).collect();
    assert_eq!(received, [later]);
    // Null protection leaves the payload readable: the ACK in the first packet counts the mark.
    let end = header::decode(train.bytes(), 8).unwrap().long().unwrap().end;
    let first = &train.bytes()[..end];
    assert!(first.windows(8).any(|w| w[0] == 0x03 && w[1] == 0 && w[3..8] == [0, 0, 0, 0, 1]), "ACK_ECN: {first:02x?}");
}

#[test]
fn version_and_the_times_of_the_last_packets_and_the_ticks_can_be_looked_up() {
    // LS-CONN-07
    let settings = Settings { mtu_discovery: false, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.client.version(client), Ok(Version::V1));
    let ticks = pair.client.conn_stats(client).unwrap().ticks;
    let came = pair.now;
    pair.server.ping(server).unwrap();
    let now = came + Duration::from_millis(3);
    for mut datagram in send_all(&mut pair.server, came) {
        pair.client.receive(now, &meta(SERVER, datagram.len()), &mut datagram);
    }
    pair.client.ping(client).unwrap();
    assert_eq!(send_all(&mut pair.client, now).len(), 1);
    assert_eq!(pair.client.conn_stats(client).unwrap().ticks, ticks + 1);
    let log = pair.client.packet_log(client).unwrap();
    let last = [log.last_sent().last(), log.last_received().last()];
    assert_eq!(last.map(|l| l.map(|l| (l.time, l.level))), [Some((now, Level::OneRtt)); 2]);
    // Of the flags: whether it closes, and why.
    assert_eq!(pair.client.close_reason(client), Ok(None));
    pair.client.close(now, client, 3, b"").unwrap();
    let reason = CloseReason::LocalApplication { code: 3, reason: vec![] };
    assert_eq!(pair.client.close_reason(client), Ok(Some(&reason)));
}

#[test]
fn what_a_write_accepts_is_what_the_peer_sees() {
    // LS-STRM-23, LS-STRM-41: memory runs out in the middle of a write; what was accepted is a prefix, and exactly that
    // arrives.
    let settings = Settings::default();
    for memory in [64 << 10, 100_000, 131_077] {
        let mut pair = Pair::new(&settings);
        let mut small = config(1, &Watcher::default());
        small.memory_max = memory;
        pair.client = Engine::new(small);
        let client = pair.connect(&settings);
        let server = pair.establish();
        let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        let data: Vec<u8> = (0..400_000u32).map(|i| (i * 31 + i / 253) as u8).collect();
        let mut accepted = Vec::new();
        for (turn, part) in data.chunks(70_001).take(3).enumerate() {
            let (front, back) = part.split_at(20_003);
            let n = match turn {
                1 => pair.client.write(client, id, part),
                _ => pair.client.write_vectored(client, id, &[front, &[], &back[..9], &back[9..]]),
            };
            let n = n.unwrap();
            accepted.extend_from_slice(&part[..n]);
        }
        assert!(!accepted.is_empty() && accepted.len() < 210_003, "{} accepted", accepted.len());
        pair.client.finish(client, id).unwrap();
        let mut got = Vec::new();
        assert!(pair.run_until(Duration::from_secs(20), |p| p.read_all(server, id, &mut got)));
        assert!(got == accepted, "{} bytes came, {} were accepted", got.len(), accepted.len());
    }
}

#[test]
fn a_fast_path_is_ticked_again_in_every_round_trip() {
    // LS-LIFE-15
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    pair.delay = Duration::from_micros(25);
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.transfer(client, server, &[1; 200_000]);
    let (began, ticks) = (pair.now, pair.client.stats().ticks);
    let data = vec![2; 2_000_000];
    assert!(pair.transfer(client, server, &data) == data);
    let (took, ticks) = (pair.now - began, pair.client.stats().ticks - ticks);
    // The last acknowledgement may take 25 ms.
    let rounds = took.saturating_sub(Duration::from_millis(25)).as_micros() / 50;
    assert!(rounds < 40 && u128::from(ticks) > rounds, "{ticks} ticks in {took:?}");
}

#[test]
fn datagrams_that_the_interface_refuses_are_no_loss_and_stop_nobody() {
    // LS-PROC-21: the search for larger datagrams meets a link of 1,300 bytes.
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    pair.link_mtu = 1300;
    let client = pair.connect(&settings);
    let server = pair.establish();
    let data = vec![4; 400_000];
    assert!(pair.transfer(client, server, &data) == data);
    assert!(pair.client.stats().too_big > 0, "there were probes");
    let stats = pair.client.conn_stats(client).unwrap();
    assert_eq!((stats.lost_packets, stats.congestion_events, stats.ptos), (0, 0, 0));
    assert!((1200..=1300).contains(&stats.mtu), "{}", stats.mtu);
}

#[test]
fn once_all_is_acknowledged_nothing_is_remembered_of_what_was_sent() {
    // OSSL-FIFM-16, OSSL-TXPIM-01, OSSL-FIFD-06: many streams, connection IDs and a token, with every ninth datagram lost.
    let settings = Settings { active_cid_limit: 8, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.filter = Box::new(|_, n, _| n % 9 != 4);
    let mut most = [[0; 4]; 2];
    let ids: Vec<_> = (0..40).map(|_| pair.client.open_stream(client, Dir::Uni).unwrap().unwrap()).collect();
    for id in &ids {
        assert_eq!(pair.client.write(client, *id, &[7; 3_000]), Ok(3_000));
        pair.client.finish(client, *id).unwrap();
    }
    let mut sink = Vec::new();
    let arrived = pair.run_until(Duration::from_secs(20), |p| {
        for (end, conn) in [p.client.conn(client), p.server.conn(server)].into_iter().enumerate() {
            let now = conn.unwrap().remembered();
            (0..4).for_each(|i| most[end][i] = now[i].max(most[end][i]));
        }
        ids.iter().for_each(|id| _ = p.read_all(server, *id, &mut sink));
        sink.len() == 120_000
    });
    assert!(arrived, "{} bytes", sink.len());
    assert!(most[0][1] > 5 && most[0][2] > 3 && most[0][3] > 5_000 && most[1][0] > 1, "{most:?}");
    pair.filter = Box::new(|_, _, _| true);
    // A lost packet is known until the next acknowledgement comes so late that its own cannot come any more.
    pair.run_for(Duration::from_secs(1));
    pair.client.ping(client).unwrap();
    pair.server.ping(server).unwrap();
    let nothing = pair.run_until(Duration::from_secs(5), |p| {
        [p.client.conn(client), p.server.conn(server)].iter().all(|c| c.unwrap().remembered() == [0; 4])
    });
    assert!(nothing, "{:?} {:?}", pair.client.conn(client).unwrap().remembered(), most);
}

/// Remembers which kinds it was told.
struct Listener(Interest, Arc<Mutex<std::collections::HashSet<Kind>>>);

impl Observer for Listener {
    fn interest(&self) -> Interest {
        self.0
    }

    fn on(&mut self, _: Instant, _: ConnKey, event: &observe::Event<'_>) {
        let kind = match event {
            observe::Event::PacketSent { .. } => Kind::PacketSent,
            observe::Event::PacketReceived { .. } => Kind::PacketReceived,
            observe::Event::PacketFate { .. } => Kind::PacketFate,
            observe::Event::DatagramBuilt { .. } | observe::Event::DatagramSealed { .. } => Kind::DatagramBuilt,
            observe::Event::Congestion(_) | observe::Event::ProbeTimeout { .. } => Kind::Congestion,
            observe::Event::PacketOpened { .. } => Kind::PacketOpened,
            observe::Event::PacketDropped { .. } | observe::Event::PacketBuffered { .. } => Kind::PacketDropped,
            observe::Event::Moved { .. } => Kind::Data,
            observe::Event::Limited { .. } => Kind::Limit,
            observe::Event::Path { .. } => Kind::Path,
            observe::Event::Life(_) => Kind::Life,
            observe::Event::Note(_) => Kind::Note,
        };
        self.1.lock().unwrap().insert(kind);
    }
}

#[test]
fn an_observer_hears_the_kind_that_it_asked_for_and_nothing_else() {
    // NGX-BUF-26
    const KINDS: [Kind; 9] = [
        Kind::PacketSent,
        Kind::PacketReceived,
        Kind::PacketFate,
        Kind::DatagramBuilt,
        Kind::Congestion,
        Kind::Life,
        Kind::PacketOpened,
        Kind::Data,
        Kind::Limit,
    ];
    for kind in KINDS {
        let settings = Settings::default();
        let mut pair = Pair::new(&settings);
        let heard = Arc::default();
        let mut watched = config(1, &Watcher::default());
        watched.observer = Some(Box::new(Listener(Interest::NONE.with(kind), Arc::clone(&heard))));
        pair.client = Engine::new(watched);
        let client = pair.connect_with(&NullTlsClient::default(), &settings);
        let server = pair.establish();
        pair.transfer(client, server, &[1; 20_000]);
        pair.client.close(pair.now, client, 0, b"").unwrap();
        pair.run_for(Duration::from_secs(10));
        assert!(
            pair.take(Way::Up).iter().any(|(_, e)| matches!(e, Event::Closed(_))) || pair.client.connections() == 0
        );
        assert_eq!(*heard.lock().unwrap(), [kind].into_iter().collect());
    }
}

/// Notes packets whose shown bytes are not exactly those that were written.
struct Measure(Arc<Mutex<(u64, Vec<String>)>>);

impl Observer for Measure {
    fn interest(&self) -> Interest {
        Interest::NONE.with(Kind::DatagramBuilt)
    }

    fn on(&mut self, _: Instant, _: ConnKey, event: &observe::Event<'_>) {
        let observe::Event::DatagramBuilt { level, pn, header, packet_len, payload, recorded, .. } = event else {
            return;
        };
        let mut seen = self.0.lock().unwrap();
        seen.0 += 1;
        if legality::check_packet(*level, payload) != Ok(*recorded) {
            seen.1.push(format!("{level:?} {pn}: {recorded:?} is not what {payload:02x?} decodes to"));
        }
        if header.len() + payload.len() + crate::crypto::TAG_LEN != *packet_len {
            seen.1.push(format!("{level:?} {pn}: {} + {} of {packet_len}", header.len(), payload.len()));
        }
    }
}

#[test]
fn an_observer_is_shown_what_was_written_and_not_the_rest_of_the_buffer() {
    // NGX-BUF-29
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let seen = Arc::default();
    let mut watched = config(1, &Watcher::default());
    watched.observer = Some(Box::new(Measure(Arc::clone(&seen))));
    pair.client = Engine::new(watched);
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.transfer(client, server, &[1; 50_000]);
    let seen = seen.lock().unwrap();
    assert!(seen.0 > 40 && seen.1.is_empty(), "{seen:?}");
}

#[test]
fn the_age_of_a_connection_grows_with_the_clock_and_never_goes_back() {
    // LS-IF-17
    let mut pair = Pair::new(&Settings::default());
    let begin = pair.now;
    let client = pair.connect(&Settings::default());
    let server = pair.establish();
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        pair.transfer(client, server, &[7; 20_000]);
        let age = pair.client.conn_stats(client).unwrap().age();
        assert!(age > last && age <= pair.now.since(begin), "{age:?} after {last:?}");
        last = age;
    }
    assert!(last >= Duration::from_millis(20), "{last:?}");
}

#[test]
fn a_client_whose_address_is_gone_goes_on_from_another_one_if_it_may() {
    for (migration, moves) in [(true, true), (false, false)] {
        let settings = Settings { migration, ..Settings::default() };
        let mut pair = Pair::new(&Settings::default());
        let client = pair.connect(&settings);
        let server = pair.establish();
        let data = vec![6; 50_000];
        assert!(pair.transfer(client, server, &data) == data);
        let home = Some("10.0.0.1".parse().unwrap());
        pair.client.conn_mut(client).unwrap().set_home(home);
        pair.take(Way::Up);
        let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        pair.client.write(client, id, &[1; 100]).unwrap();
        pair.client.process(pair.now);
        let mut train = Train::new();
        let meta = pair.client.fill(pair.now, &mut train).unwrap();
        assert_eq!(meta.from, home);
        pair.client.sent(pair.now, &meta, SendOutcome::NoAddress);
        assert_eq!(pair.client.stats().refused, 1);
        // A second train of the same batch says nothing new.
        pair.client.sent(pair.now, &meta, SendOutcome::NoAddress);
        assert!(pair.transfer(client, server, &data) == data, "what was refused is repaired like a loss");
        assert_eq!(pair.client.conn_stats(client).unwrap().migrations, u64::from(moves));
        let path = pair.client.paths(client).unwrap()[0];
        assert_eq!((path.local, path.validated), (home.filter(|_| !moves), true));
    }
}
