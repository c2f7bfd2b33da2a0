//! Encryption levels of a handshake: where handshake data ends, and how long keys of 0-RTT stay.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use super::pair::{CLIENT, Pair, SERVER, Way};
use crate::config::Settings;
use crate::crypto::{KeyFactory, TAG_LEN};
use crate::engine::{Meta, SendOutcome, Train};
use crate::error::{CloseReason, TransportCode};
use crate::ids::{ConnKey, Dir, Ecn, Level, Side, Version};
use crate::protect::null::{NullKeys, NullTlsClient, NullTlsServer, told_by};
use crate::wire::Writer;
use crate::wire::frame::{Extensions, Frame, frames};
use crate::wire::header::{self, Header, Long, LongSpec};

fn long(datagram: &[u8]) -> Long<'_> {
    *header::decode(datagram, 8).unwrap().long().unwrap()
}

/// The length of the server's first message, which stands in one frame of the first packet.
fn server_hello_len(datagram: &[u8]) -> u64 {
    let long = long(datagram);
    let from = long.pn_at + header::pn_len(datagram[0]);
    let mut all = frames(&datagram[from..long.end - TAG_LEN], Level::Initial, Extensions::ALL);
    let len = all.find_map(|f| match f.unwrap() {
        Frame::Crypto { offset: 0, data } => Some(data.len() as u64),
        _ => None,
    });
    len.unwrap()
}

/// A client that waits for the answer, its first datagram, and the server's first one.
fn asked() -> (Pair, ConnKey, Vec<u8>, Vec<u8>) {
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let mut train = Train::new();
    let mut first = Vec::new();
    for up in [true, false] {
        let engine = if up { &mut pair.client } else { &mut pair.server };
        engine.process(pair.now);
        let meta = engine.fill(pair.now, &mut train).unwrap();
        engine.sent(pair.now, &meta, SendOutcome::Sent);
        let datagram = train.bytes()[..meta.segment].to_vec();
        if up {
            let meta = Meta { local: None, remote: CLIENT.parse().unwrap(), ecn: Ecn::NotEct, stride: datagram.len() };
            pair.server.receive(pair.now, &meta, &mut datagram.clone());
        }
        first.push(datagram);
    }
    let answer = first.pop().unwrap();
    (pair, client, first.pop().unwrap(), answer)
}

/// An Initial of the server with handshake data of somebody's own making.
fn initial(hello: &[u8], answer: &[u8], pn: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let (asked, scid) = (long(hello), long(answer).scid);
    let mut packet = vec![0; 200];
    let mut w = Writer::new(&mut packet);
    let spec = LongSpec {
        level: Level::Initial,
        version: Version::V1,
        dcid: &asked.scid,
        scid: &scid,
        token: &[],
        pn,
        pn_len: 4,
    };
    let layout = header::write_long(&mut w, &spec).unwrap();
    Frame::Crypto { offset, data }.encode(&mut w).unwrap();
    let len = w.len() + TAG_LEN;
    packet.truncate(len);
    header::patch_length(&mut packet, layout, len).unwrap();
    let keys = NullKeys.initial(Version::V1, &asked.dcid, Side::Server);
    keys.seal.seal(pn, &mut packet, layout.head(), &[]).unwrap();
    packet
}

/// Gives the client these datagrams at once, and tells how it ends.
fn end_of(pair: &mut Pair, client: ConnKey, datagrams: &[&[u8]]) -> Option<TransportCode> {
    for datagram in datagrams {
        let meta = Meta { local: None, remote: SERVER.parse().unwrap(), ecn: Ecn::NotEct, stride: datagram.len() };
        pair.client.receive(pair.now, &meta, &mut datagram.to_vec());
    }
    match pair.client.close_reason(client).unwrap() {
        Some(CloseReason::Violation(v)) => Some(v.code),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn handshake_data_goes_on_at_no_level_that_is_over() {
    let (mut pair, client, hello, answer) = asked();
    let end = server_hello_len(&answer);
    let again = initial(&hello, &answer, 70, end - 9, &[0; 9]);
    assert_eq!(end_of(&mut pair, client, &[&answer, &again]), None, "what came before may come again");
    //= rfc9001#4.1.3-1, rfc9001#4.1.3-2 type=test
    for (offset, data) in [(end, &[8][..]), (end - 9, &[0; 10]), (end + 3_000, &[8])] {
        let (mut pair, client, hello, answer) = asked();
        let late = initial(&hello, &answer, 70, offset, data);
        assert_eq!(end_of(&mut pair, client, &[&answer, &late]), Some(TransportCode::PROTOCOL_VIOLATION), "{offset}");
    }
}

#[test]
fn handshake_data_that_waits_for_a_gap_when_its_level_ends_is_a_violation() {
    //= rfc9001#4.1.3-3 type=test
    let (mut pair, client, hello, answer) = asked();
    let ahead = initial(&hello, &answer, 70, server_hello_len(&answer) + 5, &[8; 3]);
    assert_eq!(end_of(&mut pair, client, &[&ahead]), None, "something may be missing");
    assert_eq!(end_of(&mut pair, client, &[&answer]), Some(TransportCode::PROTOCOL_VIOLATION));
}

#[test]
fn keys_of_early_data_stay_for_three_probe_timeouts() {
    //= rfc9001#4.9.3-2 type=test
    // The packets of 0-RTT that stand in datagrams of their own come late.
    let settings = Settings { mtu_discovery: false, ..Settings::default() };
    let tls = NullTlsServer { accept_early_data: true, ..NullTlsServer::default() };
    let mut pair = Pair::with(tls, &settings, |_| {});
    let held = Arc::new(Mutex::new(Vec::new()));
    let keep = held.clone();
    pair.filter = Box::new(move |way, _, datagram| {
        let early = matches!(header::decode(datagram, 8), Ok(Header::ZeroRtt(_)));
        if way == Way::Up && early {
            keep.lock().unwrap().push(datagram.clone());
        }
        !early
    });
    let tls = NullTlsClient { remembered: Some(told_by(&settings)), ..NullTlsClient::default() };
    let client = pair.connect_with(&tls, &settings);
    let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    assert_eq!(pair.client.write(client, id, &[1; 5_000]), Ok(5_000));
    let server = pair.establish();
    let held = held.lock().unwrap().clone();
    assert!(held.len() >= 3, "{}", held.len());
    let confirmed = pair.now;
    let stats = pair.server.conn_stats(server).unwrap();
    let keep = (stats.rtt + 4 * stats.rtt_var + Duration::from_millis(25)) * 3;
    for (at, late, opened) in [(confirmed + keep / 2, &held[0], 1), (confirmed + keep * 2, &held[1], 0)] {
        pair.now = pair.now.max(at);
        pair.server.process(pair.now);
        let before = pair.server.conn_stats(server).unwrap();
        let meta = Meta { local: None, remote: CLIENT.parse().unwrap(), ecn: Ecn::NotEct, stride: late.len() };
        pair.server.receive(pair.now, &meta, &mut late.clone());
        let since = pair.server.conn_stats(server).unwrap().since(&before);
        assert_eq!(since.received.packets, opened, "after {:?} of {keep:?}", at - confirmed);
    }
}
