//! Replies outside of connections: each for its trigger, once, within limits, behind established connections; and the
//! connection ID that a client chose, as long as late packets bear it.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use super::pair::{CLIENT, Pair, SERVER, Way};
use crate::config::Settings;
use crate::engine::replies::Request;
use crate::engine::{Engine, Event, Meta, RetryPolicy, SendOutcome, ServerConfig, Train, TrainMeta};
use crate::ids::{ConnKey, Dir, Ecn, Version};
use crate::protect::null::NullTlsServer;
use crate::time::Instant;
use crate::wire::header::{self, Header};

fn meta(remote: &str, len: usize) -> Meta {
    Meta { local: None, remote: remote.parse().unwrap(), ecn: Ecn::NotEct, stride: len }
}

/// A datagram of a version that nobody speaks, from a client with these connection IDs.
fn unknown_version(dcid: u8, scid: u8, len: usize) -> Vec<u8> {
    let mut datagram = vec![0xc3, 0x1a, 0x2a, 0x3a, 0x4a, 8];
    datagram.extend([dcid; 8]);
    datagram.push(4);
    datagram.extend([scid; 4]);
    datagram.resize(len, 0x33);
    datagram
}

fn give(engine: &mut Engine, now: Instant, remote: &str, datagram: &[u8]) {
    engine.receive(now, &meta(remote, datagram.len()), &mut datagram.to_vec());
}

/// What leaves now, with its bytes.
fn all(engine: &mut Engine, now: Instant) -> Vec<(TrainMeta, Vec<u8>)> {
    let (mut train, mut all) = (Train::new(), Vec::new());
    engine.process(now);
    while let Some(meta) = engine.fill(now, &mut train) {
        engine.sent(now, &meta, SendOutcome::Sent);
        all.push((meta, train.bytes().to_vec()));
    }
    all
}

fn server(change: impl FnOnce(&mut ServerConfig)) -> Pair {
    Pair::with(NullTlsServer::default(), &Settings::default(), change)
}

/// The first datagram of a new client.
fn hello(pair: &mut Pair) -> Vec<u8> {
    pair.connect(&Settings::default());
    all(&mut pair.client, pair.now).remove(0).1
}

#[test]
fn each_kind_of_reply_answers_its_trigger() {
    // LS-EVAN-01
    let one = |engine: &mut Engine, now: Instant, datagram: &[u8]| {
        give(engine, now, CLIENT, datagram);
        let mut sent = all(engine, now);
        assert_eq!(sent.len(), 1, "one reply");
        let (meta, bytes) = sent.remove(0);
        assert_eq!((meta.key, meta.to, meta.len), (None, CLIENT.parse().unwrap(), bytes.len()));
        bytes
    };
    let mut pair = server(|s| s.retry = RetryPolicy::Always);
    let now = pair.now;
    let reply = one(&mut pair.server, now, &unknown_version(1, 2, 1200));
    assert!(matches!(header::decode(&reply, 4), Ok(Header::VersionNegotiation { .. })));
    let reply = one(&mut pair.server, now, &[&[0x40][..], &[9; 99]].concat());
    assert!(matches!(header::decode(&reply, 8), Ok(Header::Short { .. })));
    let token = pair.server.env.reset_token(&crate::ids::Cid::new(&[9; 8]).unwrap());
    assert_eq!((reply.len(), reply.last_chunk()), (42, Some(&token.0)), "a stateless reset");
    let first = hello(&mut pair);
    let reply = one(&mut pair.server, now, &first);
    assert!(matches!(header::decode(&reply, 8), Ok(Header::Retry { version: Version::V1, .. })));
    // Refused by the application: an Initial with CONNECTION_CLOSE.
    let mut pair = server(|s| s.ask = true);
    let first = hello(&mut pair);
    give(&mut pair.server, now, CLIENT, &first);
    let (key, _) = pair.server.poll_incoming().unwrap();
    pair.server.refuse(key).unwrap();
    let sent = all(&mut pair.server, now);
    assert_eq!(sent.len(), 1);
    assert!(matches!(header::decode(&sent[0].1, 8), Ok(Header::Initial(_))) && sent[0].0.key.is_none());
    assert_eq!(sent[0].1.iter().rev().nth(16 + 3), Some(&0x1c), "the close ends with code, frame type, length");
    assert_eq!(pair.server.connections(), 0);
}

/// A server with connections that have much to send.
fn busy(n: usize) -> (Pair, Vec<ConnKey>) {
    let settings = Settings { pacing: false, mtu_discovery: false, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let mut keys = Vec::new();
    for _ in 0..n {
        pair.connect(&settings);
        pair.events = [Vec::new(), Vec::new()];
        keys.push(pair.establish());
    }
    pair.run_for(Duration::from_secs(1));
    for key in &keys {
        let id = pair.server.open_stream(*key, Dir::Uni).unwrap().unwrap();
        pair.server.write(*key, id, &[1; 400_000]).unwrap();
    }
    (pair, keys)
}

#[test]
fn a_flood_of_bad_packets_takes_one_turn_in_nine_from_those_who_have_data() {
    // LS-EVAN-02
    let (mut pair, keys) = busy(40);
    pair.server.process(pair.now);
    for n in 0..250u8 {
        give(&mut pair.server, pair.now, CLIENT, &unknown_version(n, n, 1200));
    }
    let mut order: Vec<bool> = all(&mut pair.server, pair.now).iter().map(|(meta, _)| meta.key.is_some()).collect();
    let last = order.iter().rposition(|data| *data).unwrap();
    order.truncate(last + 1);
    let data = order.iter().filter(|data| **data).count();
    assert!(data >= keys.len(), "{data} trains of data");
    let replies = order.len() - data;
    assert!(replies > 0 && replies * 8 <= data + 8, "{replies} replies before {data} trains of data had left");
    assert!(order.windows(2).all(|w| w[0] || w[1]), "never two replies in a row while data waits");
    assert_eq!(pair.server.stats().replies_dropped, 0);
}

#[test]
fn a_reply_that_is_built_later_is_right() {
    // LS-EVAN-03
    let mut pair = server(|s| s.retry = RetryPolicy::Always);
    let first = hello(&mut pair);
    give(&mut pair.server, pair.now, "10.3.0.1:31", &unknown_version(1, 2, 1200));
    give(&mut pair.server, pair.now, CLIENT, &first);
    give(&mut pair.server, pair.now, "10.3.0.3:33", &[&[0x40][..], &[7; 29]].concat());
    // The socket has room again two seconds later.
    let later = pair.now + Duration::from_secs(2);
    let sent = all(&mut pair.server, later);
    let to: Vec<String> = sent.iter().map(|(meta, _)| meta.to.to_string()).collect();
    assert_eq!(to, ["10.3.0.1:31", CLIENT, "10.3.0.3:33"]);
    match header::decode(&sent[0].1, 4) {
        Ok(Header::VersionNegotiation { dcid, scid, versions }) => {
            assert_eq!((dcid, scid), (&[2; 4][..], &[1; 8][..]), "the client's IDs, exchanged");
            let listed: Vec<Version> = versions.collect();
            assert!(listed.contains(&Version::V1) && listed.contains(&Version::V2));
        }
        other => panic!("{other:?}"),
    }
    let token = pair.server.env.reset_token(&crate::ids::Cid::new(&[7; 8]).unwrap());
    assert_eq!((sent[2].1.len(), sent[2].1.last_chunk()), (29, Some(&token.0)), "one byte less than the question");
    // The Retry is one that its client takes, and whose token the server takes.
    pair.now = later;
    let mut retry = sent[1].1.clone();
    pair.client.receive(later, &meta(SERVER, retry.len()), &mut retry);
    pair.establish();
    assert_eq!((pair.server.stats().retries, pair.server.stats().accepted), (1, 1));
}

#[test]
fn five_datagrams_of_one_hello_get_one_version_negotiation() {
    // LS-EVAN-04: parts of one ClientHello have the same connection IDs and other contents.
    let mut pair = server(|_| {});
    for part in 0..5u8 {
        let mut datagram = unknown_version(1, 2, 1200 + usize::from(part) * 10);
        datagram[40..].fill(part);
        give(&mut pair.server, pair.now, CLIENT, &datagram);
    }
    assert_eq!(all(&mut pair.server, pair.now).len(), 1);
    let stats = pair.server.stats();
    assert_eq!((stats.gate_version, stats.version_negotiations, stats.replies_dropped), (5, 1, 0));
    // Another connection ID is another client.
    give(&mut pair.server, pair.now, CLIENT, &unknown_version(1, 3, 1200));
    assert_eq!(all(&mut pair.server, pair.now).len(), 1);
}

#[test]
fn a_reply_that_waits_takes_a_hundred_bytes() {
    // LS-EVAN-05
    assert!(size_of::<Request>() <= 100, "{} bytes", size_of::<Request>());
}

#[test]
fn waiting_replies_have_a_limit_and_are_built_one_at_a_time() {
    // LS-EVAN-06, LS-EVAN-07, LS-EVAN-08: a built reply is a train like any other, and lies in the caller's buffer.
    let mut pair = server(|_| {});
    let room = pair.server.replies.room();
    for n in 0..1000u32 {
        let remote = format!("10.8.{}.{}:99", n / 250, n % 250 + 1);
        give(&mut pair.server, pair.now, &remote, &unknown_version(1, 2, 1200));
    }
    assert_eq!((pair.server.replies.len(), pair.server.stats().replies_dropped), (256, 744));
    let mut train = Train::new();
    pair.server.process(pair.now);
    for left in (0..256).rev() {
        let meta = pair.server.fill(pair.now, &mut train).expect("a reply waits");
        assert!(meta.key.is_none() && train.len() == meta.len && meta.segment == meta.len);
        assert_eq!(pair.server.replies.len(), left, "one was built, and the others wait as they were");
        pair.server.sent(pair.now, &meta, SendOutcome::Sent);
    }
    assert!(pair.server.fill(pair.now, &mut train).is_none());
    assert_eq!(pair.server.replies.room(), room, "the memory of the queue is there from the start");
    assert_eq!((pair.server.stats().version_negotiations, pair.server.deadline()), (256, None));
}

#[test]
fn the_connection_id_that_a_client_chose_leads_to_its_connection_for_two_seconds_after_the_handshake() {
    // LS-CID-06
    let settings = Settings { mtu_discovery: false, ..Settings::default() };
    let mut pair = Pair::new(&settings);
    pair.connect(&settings);
    let hello = Arc::new(Mutex::new(Vec::new()));
    let first = hello.clone();
    pair.filter = Box::new(move |way, at, datagram| {
        if (way, at) == (Way::Up, 0) {
            first.lock().unwrap().clone_from(datagram);
        }
        true
    });
    let confirmed = |p: &mut Pair| {
        p.flush(Way::Down);
        p.events[1].iter().any(|(_, e)| *e == Event::Confirmed)
    };
    assert!(pair.run_until(Duration::from_secs(5), confirmed));
    let (end, server) = (pair.now, pair.events[1][0].0);
    let hello = hello.lock().unwrap().clone();
    let arrived = |p: &Pair| p.server.conn_stats(server).unwrap().received.datagrams;
    for (after, routed) in [(0, true), (1_000, true), (1_900, true), (2_100, false), (20_000, false)] {
        pair.now = end + Duration::from_millis(after);
        pair.server.process(pair.now);
        let before = (arrived(&pair), pair.server.stats());
        give(&mut pair.server, pair.now, CLIENT, &hello);
        assert_eq!(arrived(&pair) - before.0, u64::from(routed), "after {after} ms");
        let late = pair.server.stats().gate_purgatory - before.1.gate_purgatory;
        assert_eq!((late, pair.server.stats().accepted), (u64::from(!routed), 1), "it begins no connection either");
    }
}
