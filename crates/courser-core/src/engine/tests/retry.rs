//! Answers that come before there is a connection: which Retry a client follows, and which a server sends; Version
//! Negotiation for connection IDs that are none in our versions.

use core::time::Duration;

use super::pair::{CLIENT, Pair, SERVER, Watcher, config};
use crate::config::Settings;
use crate::crypto::KeyFactory;
use crate::engine::{Engine, Meta, RetryPolicy, SendOutcome, Train};
use crate::ids::{Cid, ConnKey, Ecn, Level, Version};
use crate::protect::null::{NullKeys, NullTlsServer};
use crate::time::Instant;
use crate::wire::Writer;
use crate::wire::frame::{Extensions, Frame, frames};
use crate::wire::header::{self, Header, Long};

/// The datagrams that an engine has to send now.
fn sent(engine: &mut Engine, now: Instant) -> Vec<Vec<u8>> {
    let (mut train, mut all) = (Train::new(), Vec::new());
    engine.process(now);
    while let Some(meta) = engine.fill(now, &mut train) {
        engine.sent(now, &meta, SendOutcome::Sent);
        all.extend(train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
    }
    all
}

fn give(engine: &mut Engine, now: Instant, remote: &str, datagram: &[u8]) {
    let meta = Meta { local: None, remote: remote.parse().unwrap(), ecn: Ecn::NotEct, stride: datagram.len() };
    engine.receive(now, &meta, &mut datagram.to_vec());
}

fn long(datagram: &[u8]) -> Long<'_> {
    *header::decode(datagram, 8).unwrap().long().unwrap()
}

fn cid(byte: u8) -> Cid {
    Cid::new(&[byte; 8]).unwrap()
}

/// The handshake bytes of Initials, put in order.
fn hello_in(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut pieces = Vec::new();
    for datagram in datagrams {
        let long = long(datagram);
        assert_eq!(long.level, Level::Initial);
        let from = long.pn_at + header::pn_len(datagram[0]);
        for frame in frames(&datagram[from..long.end - 16], Level::Initial, Extensions::ALL) {
            if let Frame::Crypto { offset, data } = frame.unwrap() {
                pieces.push((offset, data.to_vec()));
            }
        }
    }
    pieces.sort();
    pieces.dedup();
    pieces.into_iter().flat_map(|p| p.1).collect()
}

type Spoil = fn(&mut Vec<u8>);

/// A Retry with that content, made for a client that chose `dcid`; `change` spoils it afterwards.
fn retry(to: &Cid, dcid: &Cid, scid: &Cid, token: &[u8], change: Spoil) -> Vec<u8> {
    let mut bytes = [0; 200];
    let mut w = Writer::new(&mut bytes);
    header::write_retry(&mut w, Version::V1, to, scid, token, 0).unwrap();
    let tag = NullKeys.retry_tag(Version::V1, dcid, w.written());
    w.bytes(&tag).unwrap();
    let mut retry = w.written().to_vec();
    change(&mut retry);
    retry
}

/// A client whose ClientHello takes two datagrams, and these.
fn begun() -> (Pair, ConnKey, Vec<Vec<u8>>) {
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let tls = crate::protect::null::NullTlsClient { hello_len: 1_700, ..Default::default() };
    let client = pair.connect_with(&tls, &settings);
    let hello = sent(&mut pair.client, pair.now);
    assert_eq!(hello.len(), 2);
    (pair, client, hello)
}

/// What leaves next, when nothing arrives.
fn next(pair: &mut Pair) -> Vec<Vec<u8>> {
    loop {
        pair.now = pair.now.max(pair.client.deadline().unwrap());
        let datagrams = sent(&mut pair.client, pair.now);
        if !datagrams.is_empty() {
            return datagrams;
        }
    }
}

#[test]
fn a_client_follows_one_retry_with_the_same_hello_from_the_same_connection_id() {
    let (mut pair, client, hello) = begun();
    let (original, own) = (long(&hello[0]).dcid, long(&hello[0]).scid);
    give(&mut pair.client, pair.now, SERVER, &retry(&own, &original, &cid(1), b"first", |_| ()));
    let again = sent(&mut pair.client, pair.now);
    //= rfc9000#17.2.5.1-3 type=test
    assert!(!again.is_empty() && again.iter().all(|d| long(d).dcid == cid(1) && long(d).token == b"first"));
    //= rfc9000#17.2.5.2-5 type=test
    assert!(again.iter().all(|d| long(d).scid == own));
    //= rfc9000#17.2.5.3-1 type=test
    assert_eq!(hello_in(&again), hello_in(&hello));
    //= rfc9000#17.2.5.2-1 type=test
    for made_for in [original, cid(1)] {
        give(&mut pair.client, pair.now, SERVER, &retry(&own, &made_for, &cid(2), b"second", |_| ()));
        let later = next(&mut pair);
        assert!(!later.is_empty() && later.iter().all(|d| long(d).dcid == cid(1) && long(d).token == b"first"));
    }
    assert_eq!(pair.client.conn_stats(client).unwrap().retries, 1);
}

#[test]
fn a_retry_that_no_server_sends_is_dropped_and_a_good_one_is_still_followed() {
    let (mut pair, client, hello) = begun();
    let (original, own) = (long(&hello[0]).dcid, long(&hello[0]).scid);
    let spoiled: [(Cid, Spoil); 4] = [
        //= rfc9000#17.2.5.1-2 type=test
        (original, |_| ()),
        //= rfc9000#17.2.5.2-3 type=test
        (cid(3), |retry| *retry.last_mut().unwrap() ^= 1),
        (cid(3), |retry| retry[0] ^= 1),
        (cid(3), |retry| *retry.iter_mut().rev().nth(16).unwrap() ^= 1),
    ];
    for (scid, change) in spoiled {
        give(&mut pair.client, pair.now, SERVER, &retry(&own, &original, &scid, b"token", change));
        assert_eq!(sent(&mut pair.client, pair.now), Vec::<Vec<u8>>::new());
        assert_eq!(pair.client.conn_stats(client).unwrap().retries, 0);
    }
    assert!(next(&mut pair).iter().all(|d| long(d).dcid == original && long(d).token.is_empty()));
    give(&mut pair.client, pair.now, SERVER, &retry(&own, &original, &cid(3), b"token", |_| ()));
    assert!(sent(&mut pair.client, pair.now).iter().all(|d| long(d).dcid == cid(3)));
    assert_eq!(pair.client.conn_stats(client).unwrap().retries, 1);
}

#[test]
fn after_an_initial_of_the_server_a_retry_comes_too_late() {
    //= rfc9000#17.2.5.2-2 type=test
    let (mut pair, client, hello) = begun();
    let (original, own) = (long(&hello[0]).dcid, long(&hello[0]).scid);
    hello.iter().for_each(|d| give(&mut pair.server, pair.now, CLIENT, d));
    let flight = sent(&mut pair.server, pair.now);
    give(&mut pair.client, pair.now, SERVER, &flight[0]);
    give(&mut pair.client, pair.now, SERVER, &retry(&own, &original, &cid(4), b"late", |_| ()));
    assert_eq!(pair.client.conn_stats(client).unwrap().retries, 0);
    flight[1..].iter().for_each(|d| give(&mut pair.client, pair.now, SERVER, d));
    pair.establish();
}

#[test]
fn a_server_answers_a_datagram_with_one_retry_and_another_connection_id() {
    let settings = Settings::default();
    let mut pair = Pair::with(NullTlsServer::default(), &settings, |s| s.retry = RetryPolicy::Always);
    pair.connect(&settings);
    let mut other = Engine::new(config(9, &Watcher::default()));
    let tls = crate::protect::null::NullTlsClient::default();
    other.connect(pair.now, SERVER.parse().unwrap(), "localhost", &tls, &settings).unwrap();
    // Two Initials of two connections in one datagram.
    let (one, two) = (sent(&mut pair.client, pair.now).remove(0), sent(&mut other, pair.now).remove(0));
    assert_ne!(long(&one).dcid, long(&two).dcid);
    give(&mut pair.server, pair.now, CLIENT, &[one.clone(), two].concat());
    let answers = sent(&mut pair.server, pair.now);
    //= rfc9000#17.2.5.1-4 type=test
    assert_eq!(answers.len(), 1);
    let Ok(Header::Retry { dcid, scid, .. }) = header::decode(&answers[0], 8) else { panic!("{answers:02x?}") };
    assert_eq!(dcid, long(&one).scid);
    //= rfc9000#17.2.5.1-1 type=test
    assert_ne!(scid, long(&one).dcid);
}

/// The beginning of a connection in some version, with connection IDs of these lengths.
fn first_packet(version: u32, dcid: u8, scid: u8) -> Vec<u8> {
    let mut bytes = vec![0xc0];
    bytes.extend(version.to_be_bytes());
    bytes.push(dcid);
    bytes.extend((0..dcid).map(|n| n ^ 0x55));
    bytes.push(scid);
    bytes.extend((0..scid).map(|n| n ^ 0xaa));
    // What would be a token, a length and the rest in our versions.
    bytes.extend([0, 0x43, 0xe8]);
    bytes.resize(1_200, 0);
    bytes
}

#[test]
fn version_negotiation_gives_connection_ids_of_any_length_back() {
    let settings = Settings { versions: vec![Version::V1], ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let unknown = [(0, 0), (1, 0), (8, 8), (20, 20), (21, 0), (0, 21), (255, 3), (255, 255)];
    let cases = unknown.map(|(d, s)| (0x1a2a_3a4a, d, s));
    //= rfc9000#17.2.1-6 type=test
    // A version that could be spoken, but is not; in our versions a client chooses at least eight bytes.
    for (version, d, s) in cases.into_iter().chain([(Version::V2.0, 8, 8), (Version::V2.0, 7, 0)]) {
        let mut first = first_packet(version, d, s);
        if version == Version::V2.0 {
            first[0] = 0xd0;
        }
        give(&mut pair.server, pair.now, CLIENT, &first);
        let answers = sent(&mut pair.server, pair.now);
        assert_eq!(answers.len(), 1, "{version:#x} {d} {s}");
        let Ok(Header::VersionNegotiation { dcid, scid, .. }) = header::decode(&answers[0], 8) else {
            panic!("{:02x?}", answers[0])
        };
        //= rfc9000#17.2.1-4 type=test
        assert_eq!(dcid, (0..s).map(|n| n ^ 0xaa).collect::<Vec<_>>());
        //= rfc9000#17.2.1-5 type=test
        assert_eq!(scid, (0..d).map(|n| n ^ 0x55).collect::<Vec<_>>());
        pair.now += Duration::from_secs(1);
    }
}
