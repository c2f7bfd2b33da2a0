//! Which connection IDs packets carry, which ones are taken, and what an Initial that is wrong in its middle leaves behind.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::time::Duration;

use courser_core::config::Settings;
use courser_core::crypto::KeyFactory;
use courser_core::engine::{Connect, Engine, Meta, SendOutcome, Train};
use courser_core::ids::{Cid, Ecn, Level, Side};
use courser_core::protect::null::{NullKeys, NullTlsClient, NullTlsServer};
use courser_core::wire::Writer;
use courser_core::wire::frame::{Extensions, Frame, frames};
use courser_core::wire::header::{self, Header};
use courser_testing::duo::{SERVER, null_client, null_server};
use courser_testing::rig::{FORGER, Plan, Rig, Stage, encode, packets};

fn cid(byte: u8) -> Cid {
    Cid::new(&[byte; 8]).unwrap()
}

fn received(rig: &Rig) -> u64 {
    rig.victim.conn_stats(rig.key).unwrap().received.packets
}

/// Destination connection IDs of all packets with long headers in these datagrams.
fn destinations(datagrams: &[Vec<u8>]) -> Vec<Cid> {
    let mut all = Vec::new();
    for datagram in datagrams {
        let mut rest = &datagram[..];
        while let Some((dcid, end)) = header::decode(rest, 8).ok().and_then(|h| h.long().map(|l| (l.dcid, l.end))) {
            all.push(dcid);
            rest = &rest[end..];
        }
    }
    all
}

/// What the engine under test says to a PING, by the destination of its packets.
#[track_caller]
fn answered_to(rig: &mut Rig, level: Level) -> Vec<Cid> {
    let seen = rig.inject(level, &[0x01, 0, 0, 0]);
    let mut all = destinations(&seen.datagrams);
    assert!(!all.is_empty(), "there is an answer");
    all.dedup();
    all
}

#[test]
fn clients_begin_with_eight_bytes_at_least_whatever_their_own_connection_ids_are() {
    //= rfc9000#7.2-1 type=test
    for len in [0, 8, 20] {
        for seed in 0..4 {
            let mut config = null_client(seed);
            config.cids = Box::new(courser_core::cid::RandomCids::new(len));
            let (mut engine, mut train) = (Engine::new(config), Train::new());
            let (tls, settings) = (NullTlsClient::default(), Settings::default());
            let now = courser_core::time::Instant::from_micros(1_000_000);
            engine.connect(now, SERVER, "localhost", &tls, &settings).unwrap();
            engine.process(now);
            engine.fill(now, &mut train).unwrap();
            let Ok(Header::Initial(long)) = header::decode(train.bytes(), len) else { panic!("no Initial") };
            assert!(long.dcid.len() >= 8 && long.scid.len() == len, "{}", long.dcid.len());
        }
    }
}

#[test]
fn a_client_keeps_its_choice_until_it_hears_something() {
    //= rfc9000#7.2-2 type=test
    let mut engine = Engine::new(null_client(3));
    let (mut now, mut train) = (courser_core::time::Instant::from_micros(1_000_000), Train::new());
    let mut remembered = Vec::new();
    let params = courser_core::config::TransportParams { max_data: 9_000, ..Default::default() };
    let params = courser_core::config::TransportParams { max_stream_data_uni: 9_000, max_streams_uni: 3, ..params };
    courser_core::wire::params::encode(&params, Side::Server, 1, &mut remembered);
    let tls = NullTlsClient { remembered: Some(remembered), hello_len: 1_700, ..NullTlsClient::default() };
    let settings = Settings::default();
    let start =
        Connect { remote: SERVER, server_name: "localhost", tls: &tls, settings: &settings, token: &[], restart: None };
    let key = engine.connect_with(now, &start).unwrap();
    let id = engine.open_stream(key, courser_core::ids::Dir::Uni).unwrap().unwrap();
    engine.write(key, id, &[7; 4_000]).unwrap();
    let mut sent = Vec::new();
    for _ in 0..200 {
        engine.process(now);
        while let Some(meta) = engine.fill(now, &mut train) {
            sent.extend(train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
            engine.sent(now, &meta, SendOutcome::Sent);
        }
        now += Duration::from_millis(50);
    }
    let levels: Vec<Level> = sent.iter().flat_map(|d| packets(d)).map(|(level, _)| level).collect();
    assert!(levels.contains(&Level::ZeroRtt) && levels.iter().filter(|l| **l == Level::Initial).count() > 6);
    let mut all = destinations(&sent);
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
}

#[test]
fn a_client_follows_the_first_initial_and_hears_no_other_source_from_then_on() {
    let mut rig = Rig::at(Side::Client, Stage::Initial);
    let right = rig.from;
    //= rfc9000#7.2-4 type=test
    assert_eq!(answered_to(&mut rig, Level::Initial), [right], "from the first answer on");
    for level in [Level::Initial, Level::Handshake] {
        let stage = if level == Level::Initial { Stage::Initial } else { Stage::Handshake };
        let mut rig = Rig::at(Side::Client, stage);
        let right = rig.from;
        answered_to(&mut rig, level);
        let before = received(&rig);
        rig.from = cid(0x99);
        //= rfc9000#7.2-3 type=test
        rig.give(level, &[0x01, 0, 0, 0]);
        assert_eq!(received(&rig), before, "{level:?} from another source");
        assert!(rig.collect().datagrams.iter().all(|d| destinations(core::slice::from_ref(d)) == [right]));
        rig.from = right;
        assert!(answered_to(&mut rig, level).iter().all(|to| *to == right));
        assert_eq!(received(&rig), before + 1);
    }
}

#[test]
fn a_client_follows_one_retry_and_then_one_initial() {
    //= rfc9000#7.2-4 type=test
    let mut rig = Rig::at(Side::Client, Stage::Initial);
    for (byte, counts) in [(0x77, 1), (0x78, 1)] {
        let mut bytes = [0; 200];
        let mut w = Writer::new(&mut bytes);
        let version = courser_core::ids::Version::V1;
        header::write_retry(&mut w, version, &rig.to, &cid(byte), b"a token", 7).unwrap();
        let tag = NullKeys.retry_tag(version, &rig.original, w.written());
        w.bytes(&tag).unwrap();
        let mut retry = w.written().to_vec();
        rig.deliver(&mut retry);
        assert_eq!(rig.victim.conn_stats(rig.key).unwrap().retries, counts);
        rig.pass(Duration::from_millis(1));
    }
    rig.victim.ping(rig.key).unwrap();
    let mut sent = Vec::new();
    for _ in 0..100 {
        rig.now += Duration::from_millis(50);
        sent.extend(rig.collect().datagrams);
    }
    let mut all = destinations(&sent);
    all.dedup();
    assert_eq!(all, [cid(0x77)], "the first Retry counts");
    // Keys come from the Retry's choice now.
    rig.original = cid(0x77);
    let right = rig.from;
    assert_eq!(answered_to(&mut rig, Level::Initial), [right], "and then the first Initial");
}

#[test]
fn a_server_answers_to_the_source_of_the_first_initial_and_hears_no_other() {
    let mut rig = Rig::at(Side::Server, Stage::Initial);
    let right = rig.from;
    let mut all = destinations(&rig.first.datagrams);
    all.dedup();
    //= rfc9000#7.2-5 type=test
    assert_eq!(all, [right]);
    let before = received(&rig);
    rig.from = cid(0x99);
    //= rfc9000#7.2-6 type=test
    rig.give(Level::Initial, &[0x01, 0, 0, 0]);
    assert_eq!(received(&rig), before);
    assert!(destinations(&rig.collect().datagrams).iter().all(|to| *to == right));
    rig.from = right;
    //= rfc9000#7.2-5 type=test
    assert_eq!(answered_to(&mut rig, Level::Initial), [right]);
    assert_eq!(received(&rig), before + 1);
}

#[test]
fn each_issued_connection_id_is_taken_until_the_peer_retires_it() {
    //= rfc9000#5.1.1-2 type=test
    for victim in [Side::Server, Side::Client] {
        let mut plan = Plan::new(victim, Stage::Confirmed);
        plan.settings.idle_timeout = Duration::from_secs(300);
        plan.forger.idle_timeout = Duration::from_secs(300);
        plan.forger.active_cid_limit = 8;
        let mut rig = Rig::new(plan);
        rig.acknowledge();
        rig.collect();
        let issued = rig.victim.connection_ids(rig.key).unwrap();
        assert_eq!(issued.len(), 8);
        let taken = |rig: &mut Rig, cid: Cid| {
            let before = received(rig);
            rig.to = cid;
            let seen = rig.inject(Level::OneRtt, &[0x01, 0, 0, 0]);
            assert_eq!(seen.close, None);
            received(rig) > before
        };
        for _ in 0..3 {
            assert!(issued.iter().rev().all(|i| taken(&mut rig, i.cid)), "to the {victim:?}");
            rig.pass(Duration::from_secs(20));
        }
        // All but two are given back, one by one.
        let (stay, go) = issued.split_at(2);
        for gone in go {
            rig.to = stay[0].cid;
            rig.give(Level::OneRtt, &encode(&[Frame::RetireConnectionId { sequence: gone.sequence }]));
            rig.collect();
            assert!(!taken(&mut rig, gone.cid), "to the {victim:?}: {gone:?}");
            assert!(stay.iter().all(|i| taken(&mut rig, i.cid)));
        }
    }
}

#[test]
fn an_initial_that_is_wrong_behind_its_first_frames_ends_the_connection() {
    //= rfc9000#5.2-1 type=test
    for victim in [Side::Client, Side::Server] {
        for (wrong, code) in [(vec![0x21], 0x7), (encode(&[Frame::HandshakeDone]), 0xa), (vec![0x06, 0, 9, 1], 0x7)] {
            let mut rig = Rig::at(victim, Stage::Initial);
            let good = [encode(&[Frame::Ping, Frame::Padding(3)]), vec![0x06, 0x40, 0x00, 0x01, 0x7f]].concat();
            let good = if victim.is_server() { good } else { encode(&[Frame::Ping, Frame::Padding(3)]) };
            let payload = [good, wrong].concat();
            assert_eq!(rig.inject(Level::Initial, &payload).code(), Some(code), "{payload:02x?} to the {victim:?}");
        }
    }
}

/// Numbers that ACK frames in these datagrams report at a level.
fn acknowledged(datagrams: &[Vec<u8>], level: Level) -> Vec<u64> {
    let mut all = Vec::new();
    for (_, payload) in datagrams.iter().flat_map(|d| packets(d)).filter(|(l, _)| *l == level) {
        for frame in frames(&payload, level, Extensions::ALL) {
            if let Frame::Ack(ack) = frame.unwrap() {
                all.push(ack.largest);
            }
        }
    }
    all
}

#[test]
fn packets_whose_handshake_data_is_thrown_away_are_acknowledged() {
    //= rfc9000#7.5-3 type=test
    // The ClientHello was read: what repeats it is of no use any more.
    let mut rig = Rig::at(Side::Server, Stage::Initial);
    let old = encode(&[Frame::Crypto { offset: 0, data: &[1; 40] }]);
    let pn = rig.next_pn[0];
    let seen = rig.inject(Level::Initial, &old);
    assert_eq!((acknowledged(&seen.datagrams, Level::Initial), seen.close), (vec![pn], None));
}

#[test]
fn engines_that_share_no_key_are_no_oracle_of_resets() {
    //= rfc9000#5.2.3-2 type=test
    // Two servers behind one address, as a balancer that goes by addresses makes them. What belongs to a connection of
    // one reaches the other; its reset must not be one that the client believes.
    let settings = Settings::default();
    let mut duo = courser_testing::duo::Duo::of(null_client(1), null_server(2, NullTlsServer::default(), &settings));
    let (key, _) = duo.connect(&settings);
    let ask = |duo: &mut courser_testing::duo::Duo, other: &mut Engine| {
        duo.client.ping(key).unwrap();
        let (now, mut train) = (duo.now, Train::new());
        duo.client.process(now);
        let sent = duo.client.fill(now, &mut train).unwrap();
        duo.client.sent(now, &sent, SendOutcome::Sent);
        // As long as it may be, so that the reset is long enough.
        let mut astray = train.bytes().to_vec();
        astray.resize(100, 0x55);
        let meta = Meta { local: None, remote: FORGER, ecn: Ecn::NotEct, stride: 100 };
        other.receive(now, &meta, &mut astray);
        other.process(now);
        other.fill(now, &mut train).unwrap();
        let mut reset = train.bytes().to_vec();
        let meta = Meta { local: None, remote: SERVER, ecn: Ecn::NotEct, stride: reset.len() };
        duo.client.receive(now, &meta, &mut reset);
        duo.client.process(now);
        duo.client.close_reason(key).is_ok_and(|reason| reason.is_none())
    };
    let mut other = Engine::new(null_server(3, NullTlsServer::default(), &settings));
    assert!(ask(&mut duo, &mut other), "the client goes on");
    assert_eq!(other.stats().resets, 1);
    // With the same key, given to both on purpose, it is believed.
    let keyed = |seed| {
        let mut config = null_server(seed, NullTlsServer::default(), &settings);
        config.reset_key = Some([7; 32]);
        config
    };
    let mut duo = courser_testing::duo::Duo::of(null_client(1), keyed(2));
    duo.connect(&settings);
    assert!(!ask(&mut duo, &mut Engine::new(keyed(3))), "it really was a reset");
}
