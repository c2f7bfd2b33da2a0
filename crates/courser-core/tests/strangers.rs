//! Packets that belong to no connection: what begins one, what is answered, and what is dropped without a word.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::config::Settings;
use courser_core::crypto::{KeyFactory, TAG_LEN};
use courser_core::engine::{Engine, Meta, Train};
use courser_core::ids::{Cid, Ecn, Level, Side, Version};
use courser_core::protect::null::{NullKeys, NullTlsServer};
use courser_core::time::Instant;
use courser_core::wire::Writer;
use courser_core::wire::header::{self, LongSpec};
use courser_testing::duo::{null_client, null_server};
use courser_testing::rig::{FORGER, Rig, Stage, packets};

const NOW: Instant = Instant::from_micros(1_000_000);

/// The frames of a client's first Initial, without padding.
fn hello() -> Vec<u8> {
    let rig = Rig::at(Side::Server, Stage::Initial);
    let (level, mut payload) = packets(&rig.hello).remove(0);
    assert_eq!(level, Level::Initial);
    while payload.last() == Some(&0) {
        payload.pop();
    }
    payload
}

/// A packet with a long header that a client seals as it has to, padded to that length.
fn packet(level: Level, version: Version, dcid: &[u8], payload: &[u8], len: usize) -> Vec<u8> {
    let (dcid, scid) = (Cid::new(dcid).unwrap(), Cid::new(&[0x55; 8]).unwrap());
    let mut packet = vec![0; len];
    let mut w = Writer::new(&mut packet);
    let spec = LongSpec { level, version, dcid: &dcid, scid: &scid, token: &[], pn: 0, pn_len: 2 };
    let layout = header::write_long(&mut w, &spec).unwrap();
    w.bytes(payload).unwrap();
    assert!(w.len() + TAG_LEN <= len, "there is room");
    header::patch_length(&mut packet, layout, len).unwrap();
    NullKeys.initial(version, &dcid, Side::Client).seal.seal(0, &mut packet, layout.head(), &[]).unwrap();
    packet
}

fn receive(engine: &mut Engine, mut datagram: Vec<u8>) -> Vec<Vec<u8>> {
    let meta = Meta { local: None, remote: FORGER, ecn: Ecn::NotEct, stride: datagram.len() };
    let (mut train, mut answers) = (Train::new(), Vec::new());
    engine.receive(NOW, &meta, &mut datagram);
    engine.process(NOW);
    while let Some(sent) = engine.fill(NOW, &mut train) {
        answers.extend(train.bytes().chunks(sent.segment).map(<[u8]>::to_vec));
    }
    answers
}

fn server() -> Engine {
    Engine::new(null_server(2, NullTlsServer::default(), &Settings::default()))
}

#[test]
fn a_server_drops_what_neither_begins_a_connection_nor_asks_for_versions() {
    //= rfc9000#5.2.2-6 type=test
    let (hello, cid) = (hello(), [1; 8]);
    let good = packet(Level::Initial, Version::V1, &cid, &hello, 1_200);
    let mut engine = server();
    assert!(!receive(&mut engine, good.clone()).is_empty() && engine.connections() == 1, "the good one is taken");

    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut all = vec![
        ("an Initial in a small datagram", packet(Level::Initial, Version::V1, &cid, &hello, 1_199)),
        ("an Initial to seven bytes", packet(Level::Initial, Version::V1, &[1; 7], &hello, 1_200)),
        ("an Initial to nobody", packet(Level::Initial, Version::V1, &[], &hello, 1_200)),
        ("an Initial that is not authentic", forged),
        ("an Initial that ends early", good[..700].to_vec()),
        ("a connection ID of 21 bytes", [&[0xc0, 0, 0, 0, 1, 21][..], &[1; 1_194]].concat()),
        ("noise of our version", [&[0xd5, 0, 0, 0, 1][..], &[0xa7; 1_195]].concat()),
    ];
    for version in [Version::V1, Version::V2] {
        all.push(("a Handshake packet", packet(Level::Handshake, version, &cid, &hello, 1_200)));
        all.push(("a 0-RTT packet", packet(Level::ZeroRtt, version, &cid, &hello, 1_200)));
        let kind = if version == Version::V1 { 0xf0 } else { 0xc0 };
        let retry = [&[kind][..], &version.0.to_be_bytes(), &[8], &cid, &[8], &cid, &[7; 1_178]].concat();
        all.push(("a Retry", retry));
    }
    for (what, datagram) in all {
        let mut engine = server();
        assert_eq!(receive(&mut engine, datagram), Vec::<Vec<u8>>::new(), "{what}");
        let (connections, routes, handshakes) = (engine.connections(), engine.route_count(), engine.handshakes());
        assert_eq!((connections, routes, handshakes, engine.stats().accepted), (0, 0, 0, 0), "{what}");
    }
}

#[test]
fn nobody_answers_a_list_of_versions() {
    // As long as a client's first datagram, so that its size is no reason.
    let versions = [[0, 0, 0, 1], [0x6b, 0x33, 0x43, 0xcf], [0x1a, 0x2a, 0x3a, 0x4a]].concat();
    for (to, from) in [(vec![1; 8], vec![2; 8]), (vec![1; 8], vec![]), (vec![], vec![2; 8])] {
        let mut list = [&[0xc0, 0, 0, 0, 0, to.len() as u8][..], &to, &[from.len() as u8], &from].concat();
        while list.len() < 1_200 {
            list.extend(&versions);
        }
        //= rfc9000#6.1-1 type=test
        //= rfc9368#2.1-5 type=test
        for mut engine in [server(), Engine::new(null_client(1))] {
            assert_eq!(receive(&mut engine, list.clone()), Vec::<Vec<u8>>::new());
            assert_eq!((engine.stats().version_negotiations, engine.connections()), (0, 0));
        }
        // A client sends no list, whoever asks.
        let mut unknown = list.clone();
        unknown[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
        assert_eq!(receive(&mut server(), unknown.clone()).len(), 1, "a server does");
        //= rfc9368#2.1-5 type=test
        assert_eq!(receive(&mut Engine::new(null_client(1)), unknown), Vec::<Vec<u8>>::new());
    }
}
