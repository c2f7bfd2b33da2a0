//! Tests of the key slots with null keys; the provider of real keys repeats the important ones.

use super::null::NullKeys;
use super::*;

const KEYS: &NullKeys = &NullKeys;
const KEEP: Duration = Duration::from_millis(300);
const PN_AT: usize = 5;

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn cid() -> Cid {
    Cid::new(b"12345678").unwrap()
}

fn end(side: Side) -> KeySlots {
    let mut slots = KeySlots::new(side, AeadLimits::OF_THE_SUITE);
    slots.install(KEYS, Level::OneRtt, Suite::Aes128Gcm, &[1; 32], &[2; 32]).unwrap();
    slots.set_confirmed();
    slots
}

fn pair() -> (KeySlots, KeySlots) {
    (end(Side::Client), end(Side::Server))
}

/// A short header packet with a 4-byte connection ID, a 2-byte number and `extra` set in the first byte.
fn packet_with(from: &mut KeySlots, pn: PacketNumber, extra: u8) -> Result<Vec<u8>, SealError> {
    let first = 0x41 | extra | u8::from(from.key_phase()) << 2;
    let mut packet = vec![first, 9, 9, 9, 9];
    packet.extend(&pn.to_be_bytes()[6..]);
    packet.extend(b"head");
    let at = Head { pn_at: PN_AT, payload_at: PN_AT + 2 };
    packet.resize(packet.len() + b"tail".len() + TAG_LEN, 0);
    from.seal(Level::OneRtt, pn, &mut packet, at, b"tail")?;
    Ok(packet)
}

fn packet(from: &mut KeySlots, pn: PacketNumber) -> Vec<u8> {
    packet_with(from, pn, 0).unwrap()
}

fn open(to: &mut KeySlots, packet: &[u8], expected: PacketNumber) -> Result<Opened, OpenError> {
    let mut copy = packet.to_vec();
    let result = to.open(KEYS, Level::OneRtt, &mut copy, PN_AT, expected);
    if let Ok(opened) = &result {
        assert_eq!(&copy[opened.payload.clone()], b"headtail");
    }
    result
}

fn violation(result: Result<Opened, OpenError>) -> TransportCode {
    match result {
        Err(OpenError::Violation(v)) => v.code,
        other => panic!("expected a violation, got {other:?}"),
    }
}

#[test]
fn each_level_seals_and_opens_with_its_own_keys() {
    let mut client = KeySlots::new(Side::Client, AeadLimits::OF_THE_SUITE);
    let mut server = KeySlots::new(Side::Server, AeadLimits::OF_THE_SUITE);
    for slots in [&mut client, &mut server] {
        slots.install_initial(KEYS, Version::V1, &cid());
        for (level, secret) in [(Level::ZeroRtt, 3), (Level::Handshake, 4), (Level::OneRtt, 6)] {
            slots.install(KEYS, level, Suite::Aes256Gcm, &[secret; 48], &[secret + 1; 48]).unwrap();
        }
        slots.set_complete();
    }
    for level in Level::ALL {
        let first = if level == Level::OneRtt { 0x40 } else { 0xc0 };
        let mut sealed = vec![first, 0, 0, 0, 1, 7, 1, 2, 3, 0, 0, 0, 0];
        sealed.resize(4 + 2 + 3 + 4 + TAG_LEN, 0);
        let head = Head { pn_at: 5, payload_at: 6 };
        client.seal(level, 7, &mut sealed, head, &[4, 5, 6, 7]).unwrap();
        for other in Level::ALL {
            let mut copy = sealed.clone();
            let result = server.open(KEYS, other, &mut copy, 5, 7);
            assert_eq!(result.is_ok(), level == other, "{level:?} opened as {other:?}");
        }
        // What a server seals at 0-RTT does not exist; at the other levels the directions differ.
        let mut reflected = sealed.clone();
        let back = client.open(KEYS, level, &mut reflected, 5, 7);
        assert!(back.is_err(), "{level:?} reflected");
    }
    //= rfc9001#5.6-4 type=test
    assert!(!server.has_send(Level::ZeroRtt) && server.has_recv(Level::ZeroRtt));
    //= rfc9001#5.6-5 type=test
    assert!(client.has_send(Level::ZeroRtt) && !client.has_recv(Level::ZeroRtt));
    assert_eq!(client.open(KEYS, Level::ZeroRtt, &mut [0; 64], 5, 0), Err(OpenError::NoKeys));
}

#[test]
fn discarded_keys_neither_seal_nor_open() {
    let (mut client, mut server) = pair();
    for slots in [&mut client, &mut server] {
        slots.install_initial(KEYS, Version::V1, &cid());
        slots.install(KEYS, Level::Handshake, Suite::Aes128Gcm, &[3; 32], &[4; 32]).unwrap();
    }
    for level in [Level::Initial, Level::Handshake, Level::OneRtt] {
        assert!(client.has_send(level) && server.has_recv(level));
        client.discard(level);
        server.discard(level);
        assert!(!client.has_send(level) && !client.has_recv(level), "{level:?}");
        let sealed = client.seal(level, 0, &mut [0x40; 64], Head { pn_at: 1, payload_at: 2 }, &[]);
        assert_eq!(sealed, Err(SealError::NoKeys));
        assert_eq!(server.open(KEYS, level, &mut [0x40; 64], 1, 0), Err(OpenError::NoKeys));
    }
    assert!(client.before.is_none() && client.app.is_none());
}

#[test]
fn application_packets_wait_for_the_end_of_the_handshake() {
    //= rfc9001#5.7-1, rfc9001#5.7-2, rfc9001#5.7-3 type=test
    for (from, to) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        let mut sender = end(from);
        let mut receiver = KeySlots::new(to, AeadLimits::OF_THE_SUITE);
        receiver.install(KEYS, Level::OneRtt, Suite::Aes128Gcm, &[1; 32], &[2; 32]).unwrap();
        let sealed = packet(&mut sender, 0);
        assert!(!receiver.has_recv(Level::OneRtt) && receiver.has_send(Level::OneRtt));
        assert_eq!(open(&mut receiver, &sealed, 0), Err(OpenError::NoKeys));
        receiver.set_complete();
        assert!(open(&mut receiver, &sealed, 0).is_ok());
    }
}

#[test]
fn a_packet_without_room_for_a_sample_is_too_short() {
    //= rfc9001#5.4.2-1 type=test
    let (mut client, mut server) = pair();
    let sealed = packet(&mut client, 0);
    for n in 0..=sealed.len() {
        let result = open(&mut server, &sealed[..n], 0);
        if n < PN_AT + 4 + SAMPLE_LEN {
            assert_eq!(result, Err(OpenError::TooShort), "{n} bytes");
        } else if n < sealed.len() {
            assert_eq!(result, Err(OpenError::NotAuthentic), "{n} bytes");
        }
    }
}

#[test]
fn reserved_bits_are_checked_after_authentication() {
    //= rfc9000#17.3.1-3 type=test
    let (mut client, mut server) = pair();
    let sealed = packet_with(&mut client, 0, 0x08).unwrap();
    let mut forged = packet(&mut client, 1);
    forged[0] |= 0x10;
    assert_eq!(open(&mut server, &forged, 1), Err(OpenError::NotAuthentic));
    assert_eq!(violation(open(&mut server, &sealed, 0)), TransportCode::PROTOCOL_VIOLATION);

    //= rfc9000#17.2-9 type=test
    for slots in [&mut client, &mut server] {
        slots.install(KEYS, Level::Handshake, Suite::Aes128Gcm, &[3; 32], &[4; 32]).unwrap();
    }
    for (first, good) in [(0xe0, true), (0xe4, false), (0xe8, false)] {
        let mut sealed = vec![first; 40];
        client.seal(Level::Handshake, 0xe0, &mut sealed, Head { pn_at: 5, payload_at: 6 }, &[]).unwrap();
        let result = server.open(KEYS, Level::Handshake, &mut sealed, 5, 0xe0);
        assert_eq!(result.is_ok(), good, "{first:#x}");
    }
}

#[test]
fn the_peer_follows_an_update_and_both_directions_keep_working() {
    //= rfc9001#6.2-1, rfc9001#6.2-2 type=test
    let (mut client, mut server) = pair();
    let mut pn = 0;
    for generation in 1..=5_u64 {
        open(&mut server, &packet(&mut client, pn), pn).unwrap();
        client.on_ack(at(0), pn, client.generation(), KEEP).unwrap();
        client.initiate_update(KEYS, at(generation * 1000)).unwrap();
        assert_eq!((client.generation(), client.key_phase()), (generation, generation % 2 == 1));
        pn += 1;
        let opened = open(&mut server, &packet(&mut client, pn), pn).unwrap();
        assert!(opened.updated && opened.generation == generation);
        assert_eq!(server.generation(), generation, "the server's next packet is sealed with new keys");
        let opened = open(&mut client, &packet(&mut server, pn), pn).unwrap();
        assert!(opened.updated && opened.generation == generation);
        for slots in [&mut client, &mut server] {
            slots.keep_previous_until(at(generation * 1000 + 300));
            assert_eq!(slots.deadline(), Some(at(generation * 1000 + 300)));
            slots.drop_previous(KEYS, at(generation * 1000 + 300));
            assert_eq!(slots.deadline(), None);
        }
        pn += 1;
    }
}

#[test]
fn both_ends_may_update_at_the_same_time() {
    let (mut client, mut server) = pair();
    for slots in [&mut client, &mut server] {
        packet(slots, 0);
        slots.on_ack(at(0), 0, 0, KEEP).unwrap();
        slots.initiate_update(KEYS, at(0)).unwrap();
    }
    let (from_client, from_server) = (packet(&mut client, 1), packet(&mut server, 1));
    assert!(open(&mut server, &from_client, 1).unwrap().updated);
    assert!(open(&mut client, &from_server, 1).unwrap().updated);
    assert_eq!((client.generation(), server.generation()), (1, 1));
}

#[test]
fn late_packets_of_the_old_phase_open_until_the_deadline() {
    //= rfc9001#6.1-3, rfc9001#6.1-4, rfc9001#6.5-2 type=test
    let (mut client, mut server) = pair();
    let old: Vec<_> = (0..4).map(|pn| packet(&mut client, pn)).collect();
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    client.initiate_update(KEYS, at(0)).unwrap();
    let new: Vec<_> = (4..8).map(|pn| packet(&mut client, pn)).collect();
    open(&mut server, &old[1], 0).unwrap();
    assert!(open(&mut server, &new[2], 2).unwrap().updated);
    server.keep_previous_until(at(300));
    let late = open(&mut server, &old[0], 7).unwrap();
    assert_eq!((late.generation, late.updated), (0, false));
    assert_eq!(open(&mut server, &new[0], 7).unwrap().generation, 1);
    server.drop_previous(KEYS, at(299));
    open(&mut server, &old[3], 7).unwrap();
    //= rfc9001#6.5-3 type=test
    server.drop_previous(KEYS, at(300));
    assert_eq!(open(&mut server, &old[2], 7), Err(OpenError::NotAuthentic));
    open(&mut server, &new[3], 7).unwrap();
}

#[test]
fn old_keys_with_a_number_above_new_ones_end_the_connection() {
    //= rfc9001#6.4-2 type=test
    let (mut client, mut server) = pair();
    let mut twin = end(Side::Client);
    packet(&mut client, 0);
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    client.initiate_update(KEYS, at(0)).unwrap();
    open(&mut server, &packet(&mut twin, 0), 0).unwrap();
    open(&mut server, &packet(&mut client, 5), 1).unwrap();
    open(&mut server, &packet(&mut client, 9), 1).unwrap();
    let late = packet(&mut twin, 7);
    assert_eq!(violation(open(&mut server, &late, 10)), TransportCode::KEY_UPDATE_ERROR);
}

#[test]
fn new_keys_with_a_number_below_old_ones_end_the_connection() {
    //= rfc9001#6.4-1 type=test
    let (mut client, mut server) = pair();
    let mut twin = end(Side::Client);
    packet(&mut client, 0);
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    client.initiate_update(KEYS, at(0)).unwrap();
    let below = packet(&mut client, 6);
    open(&mut server, &packet(&mut twin, 7), 0).unwrap();
    assert_eq!(violation(open(&mut server, &below, 8)), TransportCode::KEY_UPDATE_ERROR);

    let mut server = end(Side::Server);
    let below = packet(&mut client, 6);
    open(&mut server, &packet(&mut client, 9), 0).unwrap();
    open(&mut server, &packet(&mut twin, 8), 10).unwrap();
    assert_eq!(violation(open(&mut server, &below, 10)), TransportCode::KEY_UPDATE_ERROR);
}

#[test]
fn an_update_needs_a_confirmed_handshake_an_acknowledgement_and_some_time() {
    let (mut client, mut server) = pair();
    //= rfc9001#6.1-1 type=test
    client.confirmed = false;
    packet(&mut client, 0);
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    assert_eq!(client.initiate_update(KEYS, at(0)), Err(UpdateRefused::NotConfirmed));
    client.set_confirmed();
    client.initiate_update(KEYS, at(0)).unwrap();
    //= rfc9001#6.1-2 type=test
    assert_eq!(client.initiate_update(KEYS, at(1)), Err(UpdateRefused::Unacknowledged));
    let sealed = packet(&mut client, 1);
    assert_eq!(client.initiate_update(KEYS, at(1)), Err(UpdateRefused::Unacknowledged));
    open(&mut server, &sealed, 1).unwrap();
    let answer = open(&mut client, &packet(&mut server, 1), 1).unwrap();
    client.on_ack(at(10), 0, answer.generation, KEEP).unwrap();
    assert_eq!(client.initiate_update(KEYS, at(10)), Err(UpdateRefused::Unacknowledged), "0 was of the old phase");
    client.on_ack(at(10), 1, answer.generation, KEEP).unwrap();
    //= rfc9001#6.5-1 type=test
    assert_eq!(client.initiate_update(KEYS, at(309)), Err(UpdateRefused::TooSoon));
    client.initiate_update(KEYS, at(310)).unwrap();
}

#[test]
fn old_keys_cannot_acknowledge_new_ones() {
    let (mut client, mut server) = pair();
    packet(&mut client, 0);
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    client.initiate_update(KEYS, at(0)).unwrap();
    packet(&mut client, 1);
    let old = open(&mut client, &packet(&mut server, 0), 0).unwrap();
    client.on_ack(at(1), 0, old.generation, KEEP).unwrap();
    let error = client.on_ack(at(1), 1, old.generation, KEEP).unwrap_err();
    assert_eq!(error.code, TransportCode::KEY_UPDATE_ERROR);
}

#[test]
fn a_second_update_before_anything_was_sent_ends_the_connection() {
    let mut client = end(Side::Client);
    let mut server = end(Side::Server);
    packet(&mut client, 0);
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    client.initiate_update(KEYS, at(0)).unwrap();
    open(&mut server, &packet(&mut client, 1), 1).unwrap();
    // A peer that does not keep the rules: it behaves as if the server had followed and acknowledged.
    client.app.as_deref_mut().unwrap().force_update(KEYS);
    let second = packet(&mut client, 2);
    assert_eq!(violation(open(&mut server, &second, 2)), TransportCode::KEY_UPDATE_ERROR);
}

#[test]
fn a_quick_second_update_is_followed_while_old_keys_are_kept() {
    let (mut client, mut server) = pair();
    packet(&mut client, 0);
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    client.initiate_update(KEYS, at(0)).unwrap();
    open(&mut server, &packet(&mut client, 1), 1).unwrap();
    packet(&mut server, 1);
    client.app.as_deref_mut().unwrap().force_update(KEYS);
    let opened = open(&mut server, &packet(&mut client, 2), 2).unwrap();
    assert_eq!((opened.generation, opened.updated, server.generation()), (2, true, 2));
}

#[test]
fn early_packets_with_higher_numbers_than_a_1_rtt_packet_are_not_opened() {
    //= rfc9001#5.5-1 type=test
    let (mut client, mut server) = pair();
    for slots in [&mut client, &mut server] {
        slots.install(KEYS, Level::ZeroRtt, Suite::Aes128Gcm, &[5; 32], &[]).unwrap();
    }
    let mut early = |pn: PacketNumber| {
        let mut sealed = vec![0xd0; 5];
        sealed.push(u8::try_from(pn).unwrap());
        sealed.resize(6 + 8 + TAG_LEN, 0);
        client.seal(Level::ZeroRtt, pn, &mut sealed, Head { pn_at: PN_AT, payload_at: PN_AT + 1 }, &[]).unwrap();
        sealed
    };
    let mut numbers = [3, 4, 7, 8].map(&mut early);
    let late = packet(&mut client, 5);
    let mut open_early = |server: &mut KeySlots, at: usize| {
        server.open(KEYS, Level::ZeroRtt, &mut numbers[at], PN_AT, 5).map(|opened| opened.pn)
    };
    assert_eq!(open_early(&mut server, 2), Ok(7), "nothing came with later keys yet");
    open(&mut server, &late, 5).unwrap();
    assert_eq!(open_early(&mut server, 3), Err(OpenError::NotAuthentic));
    assert_eq!(open_early(&mut server, 0), Ok(3), "sent before and reordered");
    assert_eq!(server.failed(), 0, "it is the peer's packet and no forgery");
}

#[test]
fn a_forged_key_phase_changes_nothing() {
    //= rfc9001#6.3-3 type=test
    //= rfc9001#5.5-2, rfc9001#6.3-2 type=test
    let (mut client, mut server) = pair();
    let good = packet(&mut client, 3);
    let mut forged = good.clone();
    forged[0] ^= 0x04;
    assert_eq!(open(&mut server, &forged, 0), Err(OpenError::NotAuthentic));
    assert_eq!((server.generation(), server.failed()), (0, 1));
    assert!(server.app.as_deref().unwrap().has_next(), "the next keys stay");
    open(&mut server, &good, 0).unwrap();
}

#[test]
fn the_sending_key_is_replaced_before_its_limit() {
    //= rfc9001#5.3-3, rfc9001#6.6-1, rfc9001#6.6-3 type=test
    let mut client = end(Side::Client);
    client.limits = AeadLimits { confidentiality: 100, integrity: u64::MAX };
    let mut server = end(Side::Server);
    let mut updates = 0;
    for pn in 0..1000 {
        client.prepare_send(KEYS, at(pn * 400));
        let before = server.generation();
        let opened = open(&mut server, &packet(&mut client, pn), pn).unwrap();
        if opened.updated {
            updates += 1;
            assert_eq!(opened.generation, before + 1);
        }
        let answer = open(&mut client, &packet(&mut server, pn), pn).unwrap();
        client.on_ack(at(pn * 400), pn, answer.generation, KEEP).unwrap();
        for slots in [&mut client, &mut server] {
            slots.keep_previous_until(at(pn * 400 + 300));
            slots.drop_previous(KEYS, at(pn * 400 + 300));
        }
        assert!(!client.is_exhausted());
    }
    assert_eq!(updates, 1000 / 75);
}

#[test]
fn a_key_that_cannot_be_replaced_stops_at_its_limit() {
    //= rfc9001#6.6-2, rfc9001#6.6-5 type=test
    let mut client = end(Side::Client);
    client.limits = AeadLimits { confidentiality: 80, integrity: u64::MAX };
    for pn in 0..80 {
        assert_eq!(client.is_exhausted(), pn >= 70, "{pn} sent");
        client.prepare_send(KEYS, at(0));
        packet(&mut client, pn);
    }
    assert_eq!(packet_with(&mut client, 80, 0), Err(SealError::Exhausted));
    let mut early = KeySlots::new(Side::Client, AeadLimits { confidentiality: 5, integrity: u64::MAX });
    early.install_initial(KEYS, Version::V1, &cid());
    let head = Head { pn_at: 1, payload_at: 2 };
    assert_eq!(early.seal(Level::Initial, 4, &mut [0xc0; 64], head, &[]), Ok(()));
    assert_eq!(early.seal(Level::Initial, 5, &mut [0xc0; 64], head, &[]), Err(SealError::Exhausted));
}

#[test]
fn too_many_forgeries_end_the_connection() {
    //= rfc9001#6.6-6, rfc9001#6.6-7 type=test
    let (mut client, mut server) = pair();
    server.limits = AeadLimits { confidentiality: u64::MAX, integrity: 3 };
    server.install_initial(KEYS, Version::V1, &cid());
    let mut forged = packet(&mut client, 0);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(open(&mut server, &forged, 0), Err(OpenError::NotAuthentic));
    // Other keys count too: the limit is the connection's.
    let initial = server.open(KEYS, Level::Initial, &mut [0xc0; 64], 9, 0);
    assert_eq!(initial, Err(OpenError::NotAuthentic));
    assert_eq!(violation(open(&mut server, &forged, 0)), TransportCode::AEAD_LIMIT_REACHED);
}

#[test]
fn dormant_keys_come_back_in_the_same_phase() {
    let (mut client, mut server) = pair();
    for (round, pn) in [(0, 0_u64), (1, 10), (2, 20)] {
        assert!(client.sleep() && server.sleep());
        assert!(client.has_send(Level::OneRtt), "sleeping keys are still there");
        let dormant = packet_with(&mut client, pn, 0);
        assert_eq!(dormant, Err(SealError::NoKeys));
        client.prepare_send(KEYS, at(pn * 1000));
        let opened = open(&mut server, &packet(&mut client, pn), pn).unwrap();
        assert_eq!(opened.generation, round);
        client.on_ack(at(pn * 1000), pn, round, KEEP).unwrap();
        client.initiate_update(KEYS, at(pn * 1000 + 500)).unwrap();
        open(&mut server, &packet(&mut client, pn + 1), pn + 1).unwrap();
        open(&mut client, &packet(&mut server, pn + 1), pn + 1).unwrap();
        assert!(!client.sleep(), "old keys are still needed");
        for slots in [&mut client, &mut server] {
            slots.keep_previous_until(at(0));
            slots.drop_previous(KEYS, at(0));
        }
    }
}

#[test]
fn an_update_of_dormant_keys_wakes_both_directions() {
    let (mut client, mut server) = pair();
    open(&mut server, &packet(&mut client, 0), 0).unwrap();
    client.on_ack(at(0), 0, 0, KEEP).unwrap();
    assert!(client.sleep());
    client.initiate_update(KEYS, at(0)).unwrap();
    open(&mut server, &packet(&mut client, 1), 1).unwrap();
    open(&mut client, &packet(&mut server, 0), 0).unwrap();
}

#[test]
fn both_versions_of_initial_packets_open_after_a_switch() {
    let mut server = KeySlots::new(Side::Server, AeadLimits::OF_THE_SUITE);
    server.install_initial(KEYS, Version::V1, &cid());
    server.switch_version(KEYS, Version::V1, &cid());
    assert_eq!(server.version(), Version::V1);
    server.switch_version(KEYS, Version::V2, &cid());
    for version in [Version::V1, Version::V2] {
        let mut client = KeySlots::new(Side::Client, AeadLimits::OF_THE_SUITE);
        client.install_initial(KEYS, version, &cid());
        let mut sealed = vec![0xc0];
        sealed.extend(version.0.to_be_bytes());
        sealed.resize(40, 0);
        let head = Head { pn_at: 5, payload_at: 6 };
        client.seal(Level::Initial, 0, &mut sealed, head, &[]).unwrap();
        assert!(server.open(KEYS, Level::Initial, &mut sealed, 5, 0).is_ok(), "{version:?}");
        let mut answer = vec![0xc0];
        answer.extend(version.0.to_be_bytes());
        answer.resize(40, 0);
        server.seal(Level::Initial, 0, &mut answer, head, &[]).unwrap();
        let understood = client.open(KEYS, Level::Initial, &mut answer, 5, 0).is_ok();
        assert_eq!(understood, version == Version::V2, "answers go out in the chosen version");
    }
}

#[test]
fn secrets_that_are_too_long_are_refused() {
    let mut slots = KeySlots::new(Side::Client, AeadLimits::OF_THE_SUITE);
    let too_long = slots.install(KEYS, Level::Handshake, Suite::Aes128Gcm, &[0; 49], &[0; 32]);
    assert_eq!(too_long, Err(CryptoFailed));
    assert_eq!(slots.install(KEYS, Level::Initial, Suite::Aes128Gcm, &[0; 32], &[0; 32]), Err(CryptoFailed));
    assert!(format!("{slots:?}").contains("V1") || format!("{slots:?}").contains("v1"));
}

/// One honest end over a network that loses, delays and reorders.
struct Honest {
    slots: KeySlots,
    next_pn: PacketNumber,
    largest: Option<PacketNumber>,
    /// What the other end sent and the network still has: number, generation, the acknowledgement it carries, bytes.
    arriving: Vec<(PacketNumber, u64, Option<PacketNumber>, Vec<u8>)>,
    /// The highest generation that was opened.
    generation: u64,
}

impl Honest {
    fn new(side: Side) -> Self {
        Self { slots: end(side), next_pn: 0, largest: None, arriving: Vec::new(), generation: 0 }
    }

    fn send(&mut self, now: Instant, to: &mut Self) {
        self.slots.prepare_send(KEYS, now);
        let pn = self.next_pn;
        self.next_pn += 1;
        let sealed = packet(&mut self.slots, pn);
        to.arriving.push((pn, self.slots.generation(), self.largest, sealed));
    }

    fn receive(&mut self, now: Instant, at: usize) {
        let (pn, generation, ack, bytes) = self.arriving.swap_remove(at);
        match open(&mut self.slots, &bytes, self.largest.map_or(0, |l| l + 1)) {
            Ok(opened) => {
                assert_eq!((opened.pn, opened.generation), (pn, generation));
                assert_eq!(opened.updated, generation > self.generation);
                self.generation = self.generation.max(generation);
                if opened.updated {
                    self.slots.keep_previous_until(now + KEEP);
                }
                self.largest = self.largest.max(Some(pn));
                if let Some(largest) = ack {
                    self.slots.on_ack(now, largest, opened.generation, KEEP).unwrap();
                }
            }
            Err(OpenError::NotAuthentic) => assert!(generation < self.generation, "only old keys may be gone"),
            Err(other) => panic!("an honest peer was accused: {other:?}"),
        }
        assert!(self.slots.generation() >= self.generation && self.slots.generation() <= self.generation + 1);
    }
}

proptest::proptest! {
    #[test]
    fn honest_ends_are_never_accused(
        steps in proptest::collection::vec((0_u8..12, proptest::num::usize::ANY, 0_u64..120), 1..300),
    ) {
        let (mut client, mut server) = (Honest::new(Side::Client), Honest::new(Side::Server));
        let mut now = 0;
        for (action, choice, ms) in steps {
            now += ms;
            let now = at(now);
            let (a, b) = if choice % 2 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            match action {
                0..=3 => a.send(now, b),
                4..=8 if !a.arriving.is_empty() => {
                    let which = (choice / 2) % a.arriving.len();
                    a.receive(now, which);
                }
                9 if !a.arriving.is_empty() => {
                    a.arriving.remove((choice / 2) % a.arriving.len());
                }
                10 => {
                    let _ = a.slots.initiate_update(KEYS, now);
                }
                11 => {
                    a.slots.sleep();
                }
                _ => {}
            }
            for slots in [&mut client.slots, &mut server.slots] {
                slots.drop_previous(KEYS, now);
            }
        }
    }
}
