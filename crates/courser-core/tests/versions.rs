//! Packets of other versions, lists of versions that come too late, and first flights that are answered in another version.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::{Arc, Mutex};

use courser_core::config::{Settings, VersionInformation};
use courser_core::crypto::{KeyFactory, TAG_LEN};
use courser_core::engine::{Engine, EngineConfig, Meta, Train};
use courser_core::error::CloseReason;
use courser_core::ids::{Cid, ConnKey, Ecn, Level, Side, Version};
use courser_core::observe::{Event, Interest, Kind, Observer, Step};
use courser_core::protect::null::{NullKeys, NullTlsServer};
use courser_core::time::Instant;
use courser_core::wire::Writer;
use courser_core::wire::frame::{Extensions, Frame, frames};
use courser_core::wire::header::{self, Header, LongSpec};
use courser_testing::duo::{Duo, null_client, null_server};
use courser_testing::rig::{FORGER, Plan, Rig, Stage, encode, packets};

const V1: Version = Version::V1;
const V2: Version = Version::V2;
const PARAMETER: u64 = 0x8;

fn received(rig: &Rig) -> u64 {
    rig.victim.conn_stats(rig.key).unwrap().received.packets
}

fn is_open(rig: &Rig) -> bool {
    rig.victim.close_reason(rig.key).is_ok_and(|reason| reason.is_none())
}

/// An Initial to a client in any version, sealed as that version wants it.
fn initial_in(rig: &Rig, version: Version) -> Vec<u8> {
    let mut packet = vec![0; 1_200];
    let payload = encode(&[Frame::Ping, Frame::Padding(9)]);
    let spec =
        LongSpec { level: Level::Initial, version, dcid: &rig.to, scid: &rig.from, token: &[], pn: 40, pn_len: 4 };
    let mut w = Writer::new(&mut packet);
    let layout = header::write_long(&mut w, &spec).unwrap();
    w.bytes(&payload).unwrap();
    let len = w.len() + TAG_LEN;
    packet.truncate(len);
    header::patch_length(&mut packet, layout, len).unwrap();
    let keys = NullKeys.initial(version, &rig.original, Side::Server);
    keys.seal.seal(40, &mut packet, layout.head(), &[]).unwrap();
    packet
}

/// A client that waits for the first answer to its Initial.
fn waiting(versions: &[Version]) -> Rig {
    let mut plan = Plan::new(Side::Client, Stage::Initial);
    plan.settings.versions = versions.to_vec();
    Rig::new(plan)
}

#[test]
fn a_client_discards_packets_of_versions_that_it_did_not_choose() {
    //= rfc9000#5.2.1-1 type=test
    let mut rig = waiting(&[V1]);
    let mut unknown = initial_in(&rig, V1);
    unknown[1..5].copy_from_slice(&[0xff, 0, 0, 0x1d]);
    for mut packet in [initial_in(&rig, V2), unknown] {
        rig.deliver(&mut packet);
        assert!(received(&rig) == 0 && is_open(&rig));
    }
    // The same in the right version is taken, and so is the other version by a client that offered it.
    let mut packet = initial_in(&rig, V1);
    rig.deliver(&mut packet);
    assert_eq!(received(&rig), 1);
    let mut rig = waiting(&[V1, V2]);
    let mut packet = initial_in(&rig, V2);
    rig.deliver(&mut packet);
    assert_eq!((received(&rig), rig.victim.version(rig.key)), (1, Ok(V2)));
}

#[test]
fn packets_of_another_version_than_the_negotiated_one_are_dropped() {
    //= rfc9369#4.1-8 type=test
    for victim in [Side::Client, Side::Server] {
        let mut rig = Rig::at(victim, Stage::Handshake);
        assert_eq!(rig.victim.version(rig.key), Ok(V1));
        let before = received(&rig);
        // Sealed with the keys in use: nothing but the version is wrong. Types have other bits in version 2.
        let changes: [fn(&mut [u8]); 2] = [
            |packet| {
                packet[0] |= 0x30;
                packet[1..5].copy_from_slice(&V2.0.to_be_bytes());
            },
            |packet| packet[1..5].copy_from_slice(&[0xff, 0, 0, 0x1d]),
        ];
        for change in changes {
            let packet = rig.forge_with(Level::Handshake, &[0x01, 0, 0, 0], change);
            rig.give_packet(Level::Handshake, packet);
            assert_eq!(received(&rig), before, "to the {victim:?}");
        }
        rig.give(Level::Handshake, &[0x01, 0, 0, 0]);
        assert_eq!(received(&rig), before + 1, "to the {victim:?}");
    }
}

/// A Version Negotiation packet to a client that tried version 1, with this one alone.
fn negotiation(rig: &Rig, version: Version) -> Vec<u8> {
    let mut bytes = [0; 100];
    let mut w = Writer::new(&mut bytes);
    let (to, from) = (rig.to.as_slice(), rig.original.as_slice());
    header::write_version_negotiation(&mut w, to, from, &[version], 7).unwrap();
    w.written().to_vec()
}

/// A Retry to a client, from another connection ID.
fn retry(rig: &Rig) -> Vec<u8> {
    let mut bytes = [0; 200];
    let mut w = Writer::new(&mut bytes);
    let scid = Cid::new(&[0x77; 8]).unwrap();
    header::write_retry(&mut w, V1, &rig.to, &scid, b"a token", 7).unwrap();
    let tag = NullKeys.retry_tag(V1, &rig.original, w.written());
    w.bytes(&tag).unwrap();
    w.written().to_vec()
}

#[test]
fn a_list_of_versions_behind_any_other_packet_is_discarded() {
    //= rfc9000#6.2-2 type=test
    // Before anything else it ends the attempt.
    let mut rig = waiting(&[V1]);
    let mut list = negotiation(&rig, V2);
    rig.deliver(&mut list);
    assert!(matches!(rig.victim.close_reason(rig.key), Ok(Some(CloseReason::VersionNegotiation { .. }))));

    let mut one_initial = waiting(&[V1]);
    one_initial.give(Level::Initial, &[0x01, 0, 0, 0]);
    let mut retried = waiting(&[V1]);
    let mut packet = retry(&retried);
    retried.deliver(&mut packet);
    assert_eq!(retried.victim.conn_stats(retried.key).unwrap().retries, 1);
    let others = [Rig::at(Side::Client, Stage::Handshake), Rig::at(Side::Client, Stage::Confirmed)];
    for mut rig in others.into_iter().chain([one_initial, retried]) {
        for version in [V2, Version(0xff00_001d)] {
            let mut list = negotiation(&rig, version);
            rig.deliver(&mut list);
            assert!(is_open(&rig), "{:?}: {:?}", rig.stage(), rig.victim.close_reason(rig.key));
        }
    }
}

/// A server that would rather speak version 2, and a client that begins in version 1 and offers both.
fn upgrading(twist: Option<courser_testing::rig::Twist>) -> Rig {
    let mut plan = Plan { twist, ..Plan::new(Side::Server, Stage::Confirmed) };
    plan.settings.versions = vec![V2, V1];
    Rig::new(plan)
}

/// Whether the server said anything of the handshake.
fn said_something(rig: &Rig) -> bool {
    let payloads = rig.first.datagrams.iter().flat_map(|d| packets(d));
    payloads.into_iter().any(|(level, payload)| {
        frames(&payload, level, Extensions::ALL).any(|frame| matches!(frame, Ok(Frame::Crypto { .. })))
    })
}

#[test]
fn a_first_flight_that_cannot_be_converted_ends_the_handshake() {
    //= rfc9368#2.3-2 type=test
    let rig = upgrading(None);
    assert!(said_something(&rig) && rig.victim.version(rig.key) == Ok(V2), "a good one is converted");
    let bad: [courser_testing::rig::Twist; 3] = [
        |params| params.iter_mut().filter(|(id, _)| *id == 0x11).for_each(|(_, value)| value.truncate(5)),
        |params| params.iter_mut().filter(|(id, _)| *id == 0x11).for_each(|(_, value)| value.clear()),
        |params| params.push((0x04, vec![0xff])),
    ];
    for twist in bad {
        let rig = upgrading(Some(twist));
        assert_eq!(rig.first.code(), Some(PARAMETER), "{:?}", rig.first.close);
        assert!(!said_something(&rig), "neither in one version nor in the other");
    }
}

#[test]
fn a_converted_first_flight_is_validated_like_one_in_the_negotiated_version() {
    //= rfc9368#2.3-5 type=test
    let bad: [courser_testing::rig::Twist; 3] = [
        |params| params.iter_mut().filter(|(id, _)| *id == 0x0f).for_each(|(_, value)| value[0] ^= 1),
        |params| params.retain(|(id, _)| *id != 0x0f),
        |params| params.push((0x00, vec![1; 8])),
    ];
    for twist in bad {
        let rig = upgrading(Some(twist));
        assert_eq!(rig.first.code(), Some(PARAMETER), "{:?}", rig.first.close);
    }
}

/// Remembers what the peer told of its versions.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Option<VersionInformation>>>>);

impl Observer for Told {
    fn interest(&self) -> Interest {
        Interest::NONE.with(Kind::Life)
    }

    fn on(&mut self, _: Instant, _: ConnKey, event: &Event<'_>) {
        if let Event::Life(Step::PeerParams(params)) = event {
            self.0.lock().unwrap().push(params.version_information.clone());
        }
    }
}

#[test]
fn both_ends_tell_which_version_they_chose_and_which_they_speak() {
    //= rfc9369#4-2 type=test
    for (client, server, chosen) in [
        (vec![V1, V2], vec![V1, V2], V1),
        (vec![V1, V2], vec![V2, V1], V2),
        (vec![V2], vec![V1, V2], V2),
        (vec![V2, V1], vec![V1], V1),
    ] {
        let (of_server, of_client) = (Told::default(), Told::default());
        let speaking = |versions: &[Version]| {
            let mut settings = Settings::default();
            settings.versions = versions.to_vec();
            settings
        };
        let watched = |mut config: EngineConfig, told: &Told| {
            config.observer = Some(Box::new(told.clone()));
            config
        };
        let mut settings = speaking(&client);
        if !server.contains(&client[0]) {
            settings.initial_version = Some(server[0]);
        }
        let first = settings.initial_version.unwrap_or(client[0]);
        let mut duo = Duo::of(
            watched(null_client(1), &of_server),
            watched(null_server(2, NullTlsServer::default(), &speaking(&server)), &of_client),
        );
        let (key, _) = duo.connect(&settings);
        assert_eq!(duo.client.version(key), Ok(chosen));
        let real = |told: &Told| {
            let told = told.0.lock().unwrap();
            let [Some(info)] = &told[..] else { panic!("{told:?}") };
            let mut available = info.available.clone();
            available.retain(|v| v.is_supported());
            (info.chosen, available)
        };
        assert_eq!(real(&of_client), (first, client));
        assert_eq!(real(&of_server), (chosen, server));
    }
}

#[test]
fn a_list_of_versions_goes_back_with_the_connection_ids_exchanged() {
    for (dcid, scid) in
        [(vec![1; 8], vec![2; 8]), (vec![3; 20], vec![]), (vec![4; 9], vec![5; 17]), (vec![6; 8], vec![7; 1])]
    {
        let mut engine = Engine::new(null_server(2, NullTlsServer::default(), &Settings::default()));
        let mut datagram =
            [&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, dcid.len() as u8][..], &dcid, &[scid.len() as u8], &scid].concat();
        datagram.resize(1_200, 0x55);
        let (now, mut train) = (Instant::from_micros(1_000_000), Train::new());
        let meta = Meta { local: None, remote: FORGER, ecn: Ecn::NotEct, stride: 1_200 };
        engine.receive(now, &meta, &mut datagram);
        engine.process(now);
        assert_eq!(engine.fill(now, &mut train).map(|sent| sent.to), Some(FORGER));
        let Ok(Header::VersionNegotiation { dcid: to, scid: from, .. }) = header::decode(train.bytes(), 8) else {
            panic!("{:02x?}", train.bytes())
        };
        //= rfc8999#6-3 type=test
        assert_eq!(to, scid);
        //= rfc8999#6-4 type=test
        assert_eq!(from, dcid);
    }
}

#[test]
fn a_server_that_went_on_in_another_version_still_reads_initials_of_the_first() {
    //= rfc9369#4.1-6 type=test
    let mut plan = Plan::new(Side::Server, Stage::Initial);
    plan.settings.versions = vec![V2, V1];
    let mut rig = Rig::new(plan);
    assert_eq!(rig.victim.version(rig.key), Ok(V2), "it has chosen, and said its flight");
    for n in 1..4 {
        let before = received(&rig);
        let seen = rig.inject(Level::Initial, &[0x01, 0, 0, 0]);
        assert_eq!(received(&rig), before + 1, "packet {n}");
        assert!(!seen.datagrams.is_empty(), "and acknowledges them");
    }
}
