//! Single rules of RFC 9000 (sections 17 to 21), RFC 9001 and RFC 9002, seen on the wire by a peer that can do anything.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::time::Duration;
use std::collections::BTreeMap;

use courser_core::config::Settings;
use courser_core::crypto::KeyFactory;
use courser_core::engine::{Connect, Engine, Meta, SendOutcome, Train};
use courser_core::ids::{Cid, Dir, Ecn, Level, Side, StreamId, Version};
use courser_core::protect::null::{NullKeys, NullTlsClient, NullTlsServer};
use courser_core::spans::FrameKind;
use courser_core::wire::Writer;
use courser_core::wire::frame::{Extensions, Frame, frames, write_ack};
use courser_core::wire::header::{self, LongSpec};
use courser_testing::rig::{FORGER, Plan, Rig, Seen, Stage, encode, numbered, packets};

const PROTOCOL: u64 = 0xa;

/// Runs `look` for each frame that was sent.
fn each(seen: &Seen, mut look: impl FnMut(Level, Frame<'_>)) {
    for (level, payload) in seen.datagrams.iter().flat_map(|d| packets(d)) {
        frames(&payload, level, Extensions::ALL).for_each(|f| look(level, f.unwrap()));
    }
}

fn count(seen: &Seen, kind: FrameKind) -> usize {
    let mut n = 0;
    each(seen, |_, f| n += usize::from(f.kind() == kind));
    n
}

/// Packets of the connection that were opened.
fn opened(rig: &Rig) -> u64 {
    rig.victim.conn_stats(rig.key).unwrap().received.packets
}

#[test]
fn early_packets_carry_no_handshake_data_and_no_answers() {
    let ack = {
        let mut bytes = [0; 20];
        let mut w = Writer::new(&mut bytes);
        write_ack(&mut w, [(0, 0)], 0, None, 20).unwrap();
        w.written().to_vec()
    };
    let refused: Vec<(u64, Vec<u8>)> = vec![
        //= rfc9001#8.3-2 type=test
        (0x06, encode(&[Frame::Crypto { offset: 0, data: &[5, 0, 0, 0] }])),
        (0x02, ack),
        (0x07, encode(&[Frame::NewToken { token: b"x" }])),
        (0x19, encode(&[Frame::RetireConnectionId { sequence: 0 }])),
        (0x1b, encode(&[Frame::PathResponse([1; 8])])),
        (0x1e, encode(&[Frame::HandshakeDone])),
    ];
    let rig = || Rig::new(Plan { early: true, ..Plan::new(Side::Server, Stage::Handshake) });
    for (frame_type, payload) in refused {
        let close = rig().inject(Level::ZeroRtt, &payload).close.unwrap_or_else(|| panic!("{frame_type:#x} is taken"));
        assert_eq!((close.code, close.frame_type), (PROTOCOL, Some(frame_type)));
    }
    let mut rig = rig();
    let stream = Frame::Stream { id: StreamId(2), offset: 0, data: b"early", fin: true, length_present: true };
    assert_eq!(rig.inject_frames(Level::ZeroRtt, &[stream]).close, None);
    assert_eq!(opened(&rig), 2, "the ClientHello and that");
}

#[test]
fn a_server_reads_no_handshake_data_behind_the_client_hello() {
    let mut rig = Rig::at(Side::Server, Stage::Handshake);
    let hello = hello_of(&rig);
    let again = Frame::Crypto { offset: 0, data: &hello };
    assert_eq!(rig.inject_frames(Level::Initial, &[again]).close, None, "it may come again");
    //= rfc9001#4.1.3-1, rfc9001#4.1.3-2 type=test
    for offset in [hello.len() as u64, hello.len() as u64 + 1_000] {
        let mut rig = Rig::at(Side::Server, Stage::Handshake);
        let more = Frame::Crypto { offset, data: &[1] };
        assert_eq!(rig.inject_frames(Level::Initial, &[more]).code(), Some(PROTOCOL));
    }
}

/// The client's first message.
fn hello_of(rig: &Rig) -> Vec<u8> {
    let payload = packets(&rig.hello).remove(0).1;
    let mut found = frames(&payload, Level::Initial, Extensions::ALL);
    let crypto = found.find_map(|f| match f.unwrap() {
        Frame::Crypto { offset: 0, data } => Some(data.to_vec()),
        _ => None,
    });
    crypto.unwrap()
}

/// The first Initial of another connection.
fn first_initial(payload: &[u8]) -> Vec<u8> {
    let (dcid, scid) = (Cid::new(&[0x77; 8]).unwrap(), Cid::new(&[0x66; 8]).unwrap());
    let mut packet = vec![0; 1_400];
    let mut w = Writer::new(&mut packet);
    let (level, version) = (Level::Initial, Version::V1);
    let spec = LongSpec { level, version, dcid: &dcid, scid: &scid, token: &[], pn: 0, pn_len: 4 };
    let layout = header::write_long(&mut w, &spec).unwrap();
    w.bytes(payload).unwrap();
    let end = (w.len() + 16).max(1_200);
    packet.truncate(end);
    header::patch_length(&mut packet, layout, end).unwrap();
    NullKeys.initial(version, &dcid, Side::Client).seal.seal(0, &mut packet, layout.head(), &[]).unwrap();
    packet
}

#[test]
fn a_client_hello_in_the_compatibility_mode_is_refused() {
    //= rfc9001#8.4-2 type=test
    for session_id in [0_u8, 32] {
        let mut rig = Rig::at(Side::Server, Stage::Initial);
        let mut hello = hello_of(&rig);
        // Behind type, length, version and 32 random bytes.
        assert_eq!(hello[38], 0);
        hello.splice(38..39, core::iter::once(session_id).chain(core::iter::repeat_n(7, session_id.into())));
        let len = u32::try_from(hello.len() - 4).unwrap().to_be_bytes();
        hello[1..4].copy_from_slice(&len[1..]);
        let mut datagram = first_initial(&encode(&[Frame::Crypto { offset: 0, data: &hello }]));
        rig.deliver_from("192.0.2.7:7".parse().unwrap(), &mut datagram);
        let code = rig.collect().code();
        // The transport parameters name the connection ID of the first connection.
        let other = Some(0x8);
        assert_eq!(code, if session_id == 0 { other } else { Some(PROTOCOL) });
    }
}

#[test]
fn a_client_forgets_initial_keys_with_its_first_handshake_packet() {
    //= rfc9001#4.9.1-1 type=test
    let ping = encode(&[Frame::Ping, Frame::Padding(20)]);
    for (stage, counted) in [(Stage::Initial, 1), (Stage::Handshake, 0)] {
        let mut rig = Rig::at(Side::Client, stage);
        let before = opened(&rig);
        let packet = rig.forge(Level::Initial, &ping);
        rig.give_packet(Level::Initial, packet);
        assert_eq!(opened(&rig) - before, counted, "{stage:?}");
        //= rfc9001#4.9.1-2 type=test
        let mut later = Vec::new();
        for _ in 0..6 {
            rig.now = rig.now.max(rig.victim.deadline().unwrap());
            later.extend(rig.collect().datagrams.iter().flat_map(|d| packets(d)).map(|p| p.0));
        }
        assert_eq!(later.contains(&Level::Initial), stage == Stage::Initial, "{later:?}");
    }
}

#[test]
fn handshake_keys_are_gone_once_the_handshake_is_confirmed() {
    //= rfc9001#4.9.2-1 type=test
    let ping = encode(&[Frame::Ping, Frame::Padding(20)]);
    for side in [Side::Client, Side::Server] {
        for (stage, counted) in [(Stage::Handshake, 1), (Stage::Confirmed, 0)] {
            let mut rig = Rig::at(side, stage);
            let before = opened(&rig);
            let packet = rig.forge_numbered(Level::Handshake, 900, &ping, |_| {});
            rig.give_packet(Level::Handshake, packet);
            assert_eq!(opened(&rig) - before, counted, "{side:?} {stage:?}");
        }
    }
}

#[test]
fn a_duplicate_is_told_only_after_it_was_opened() {
    //= rfc9001#9.5-1 type=test
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    let packet = rig.forge(Level::OneRtt, &encode(&[Frame::Ping, Frame::Padding(20)]));
    rig.give_packet(Level::OneRtt, packet.clone());
    // Whoever guesses a number that was used learns no more than with any other one.
    let fresh = rig.forge(Level::OneRtt, &encode(&[Frame::Ping, Frame::Padding(20)]));
    let before = rig.victim.conn_stats(rig.key).unwrap();
    for mut forged in [packet.clone(), fresh] {
        *forged.last_mut().unwrap() ^= 1;
        rig.give_packet(Level::OneRtt, forged);
    }
    let since = rig.victim.conn_stats(rig.key).unwrap().since(&before);
    assert_eq!((since.undecryptable, since.duplicates), (2, 0));
    rig.give_packet(Level::OneRtt, packet);
    let since = rig.victim.conn_stats(rig.key).unwrap().since(&before);
    assert_eq!((since.undecryptable, since.duplicates, since.received.packets), (2, 1, 0));
}

#[test]
fn tokens_for_later_are_never_empty_and_go_back_as_they_came() {
    let rig = Rig::at(Side::Server, Stage::Confirmed);
    //= rfc9000#19.7-1 type=test
    let mut tokens = Vec::new();
    each(&rig.first, |_, f| {
        if let Frame::NewToken { token } = f {
            tokens.push(token.to_vec());
        }
    });
    assert!(!tokens.is_empty() && tokens.iter().all(|t| !t.is_empty()), "{tokens:?}");
    //= rfc9001#9.2-2 type=test
    for token in [&[0][..], &[0xff; 300], b"\x00\x01anything"] {
        let mut rig = Rig::at(Side::Client, Stage::Confirmed);
        assert_eq!(rig.inject_frames(Level::OneRtt, &[Frame::NewToken { token }]).close, None);
        let kept = rig.victim.take_token(rig.key).unwrap().unwrap();
        let (tls, settings) = (NullTlsClient::default(), Settings::default());
        let start = Connect {
            remote: FORGER,
            server_name: "localhost",
            tls: &tls,
            settings: &settings,
            token: &kept,
            restart: None,
        };
        rig.victim.connect_with(rig.now, &start).unwrap();
        let again = rig.collect();
        let initial = again.datagrams.iter().find_map(|d| header::decode(d, 8).ok()?.long().map(|l| l.token.to_vec()));
        assert_eq!(initial.as_deref(), Some(token));
    }
}

#[test]
fn handshake_done_waits_for_the_end_of_the_handshake() {
    //= rfc9000#19.20-1 type=test
    let mut rig = Rig::at(Side::Server, Stage::Handshake);
    assert_eq!(count(&rig.first, FrameKind::HandshakeDone), 0);
    rig.give(Level::Handshake, &encode(&[Frame::Ping, Frame::Padding(20)]));
    for _ in 0..6 {
        assert_eq!(count(&rig.collect(), FrameKind::HandshakeDone), 0);
        rig.now = rig.now.max(rig.victim.deadline().unwrap());
    }
    let done = Rig::at(Side::Server, Stage::Confirmed);
    assert_eq!(count(&done.first, FrameKind::HandshakeDone), 1);
}

/// The largest end of each stream, whether data or a reset says it.
fn ends(seen: &Seen, ends: &mut BTreeMap<StreamId, u64>) {
    each(seen, |_, f| {
        let (id, end) = match f {
            Frame::Stream { id, offset, data, .. } => (id, offset + data.len() as u64),
            Frame::ResetStream { id, final_size, .. } => (id, final_size),
            _ => return,
        };
        let known = ends.entry(id).or_default();
        *known = end.max(*known);
    });
}

#[test]
fn the_ends_of_all_streams_together_stay_within_the_connections_credit() {
    //= rfc9000#19.9-1 type=test
    let mut plan = Plan::new(Side::Server, Stage::Confirmed);
    (plan.forger.conn_window, plan.forger.conn_window_max) = (5_000, 5_000);
    let mut rig = Rig::new(plan);
    let mut told = BTreeMap::new();
    for round in 0..8 {
        let id = rig.victim.open_stream(rig.key, Dir::Uni).unwrap().unwrap();
        rig.victim.write(rig.key, id, &[7; 1_300]).unwrap();
        ends(&rig.collect(), &mut told);
        match round % 3 {
            // What was written and not sent takes no credit when the stream ends early.
            0 => rig.victim.reset(rig.key, id, 1).unwrap(),
            1 => rig.victim.finish(rig.key, id).unwrap(),
            _ => {}
        }
        ends(&rig.collect(), &mut told);
        rig.acknowledge();
        rig.now += Duration::from_millis(5);
    }
    rig.pass(Duration::from_secs(2));
    assert!(told.len() >= 4, "{told:?}");
    assert_eq!(told.values().sum::<u64>(), 5_000, "{told:?}");
}

#[test]
fn no_more_streams_are_opened_than_the_peer_allows_whatever_it_says_later() {
    for (dir, kind) in [(Dir::Bi, FrameKind::StreamsBlockedBidi), (Dir::Uni, FrameKind::StreamsBlockedUni)] {
        let mut plan = Plan::new(Side::Server, Stage::Confirmed);
        (plan.forger.max_streams_bidi, plan.forger.max_streams_uni) = (3, 3);
        let mut rig = Rig::new(plan);
        let open = |rig: &mut Rig| {
            let mut n = 0;
            while rig.victim.open_stream(rig.key, dir).unwrap().is_some() {
                n += 1;
            }
            n
        };
        //= rfc9000#19.11-2 type=test
        for max in [0, 2, 3] {
            assert_eq!(rig.inject_frames(Level::OneRtt, &[Frame::MaxStreams { dir, max }]).close, None);
        }
        //= rfc9000#19.11-3 type=test
        assert_eq!(open(&mut rig), 3);
        //= rfc9000#19.14-1 type=test
        assert_eq!(count(&rig.collect(), kind), 1, "the peer hears of it");
        rig.inject_frames(Level::OneRtt, &[Frame::MaxStreams { dir, max: 4 }, Frame::MaxStreams { dir, max: 1 }]);
        assert_eq!(open(&mut rig), 1);
    }
}

#[test]
fn no_reset_answers_a_packet_to_a_connection_that_is_there() {
    //= rfc9000#21.11-2 type=test
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    let forged = |cid: &Cid| [&[0x41][..], cid.as_slice(), &[0x5a; 60]].concat();
    let own: Vec<Cid> = rig.victim.connection_ids(rig.key).unwrap().iter().map(|i| i.cid).collect();
    assert!(own.len() >= 2 && own.contains(&rig.to));
    let elsewhere = "192.0.2.7:7".parse().unwrap();
    for closing in [false, true] {
        for cid in &own {
            rig.deliver(&mut forged(cid));
            rig.deliver_from(elsewhere, &mut forged(cid));
        }
        rig.collect();
        assert_eq!(rig.victim.stats().resets, 0, "closing: {closing}");
        rig.victim.close(rig.now, rig.key, 0, b"").unwrap();
    }
    rig.deliver(&mut forged(&Cid::new(&[0x11; 8]).unwrap()));
    rig.collect();
    assert_eq!(rig.victim.stats().resets, 1, "one that nobody knows is answered");
}

#[test]
fn losses_behind_the_first_acknowledged_packet_of_a_space_count() {
    //= rfc9002#7.4-1 type=test
    let tls = NullTlsServer { certificate_len: 12_000, ..NullTlsServer::default() };
    let mut rig = Rig::new(Plan { tls, ..Plan::new(Side::Server, Stage::Handshake) });
    // With a Handshake packet the address is proven, and the rest of the flight leaves.
    let mut last = 0;
    let seen = rig.inject_frames(Level::Handshake, &[Frame::Ping, Frame::Padding(20)]);
    for (level, pn, _) in seen.datagrams.iter().flat_map(|d| numbered(d)) {
        last = if level == Level::Handshake { pn } else { last };
    }
    assert!(last >= 6, "{last}");
    let before = rig.victim.conn_stats(rig.key).unwrap();
    let mut bytes = [0; 30];
    let mut w = Writer::new(&mut bytes);
    write_ack(&mut w, [(last, last), (0, 0)], 0, None, 30).unwrap();
    let ack = w.written().to_vec();
    rig.now += Duration::from_millis(20);
    rig.inject(Level::Handshake, &ack);
    let since = rig.victim.conn_stats(rig.key).unwrap().since(&before);
    assert!(since.lost_packets >= 3 && since.congestion_events == 1, "{since:?}");
    let window = rig.victim.conn_stats(rig.key).unwrap().congestion_window;
    assert!(window < before.congestion_window, "{window} of {}", before.congestion_window);
}

#[test]
fn used_up_keys_are_told_once_and_then_there_are_resets_alone() {
    //= rfc9001#6.6-4 type=test
    //= rfc9001#6.6-7 type=test
    let mut plan = Plan::new(Side::Server, Stage::Confirmed);
    plan.engine = |e| e.aead_limits.integrity = 10;
    let mut rig = Rig::new(plan);
    let to = rig.to;
    let forged = || [&[0x41][..], to.as_slice(), &[0x5a; 60]].concat();
    for _ in 0..9 {
        rig.deliver(&mut forged());
    }
    assert_eq!(rig.collect().close, None);
    rig.deliver(&mut forged());
    let close = rig.collect();
    assert_eq!((close.code(), close.datagrams.len()), (Some(0xf), 1), "AEAD_LIMIT_REACHED");
    rig.victim.process(rig.now);
    assert_eq!(rig.victim.connections(), 0);
    let answers = |engine: &mut Engine, now, mut packet: Vec<u8>| {
        let meta = Meta { local: None, remote: FORGER, ecn: Ecn::NotEct, stride: packet.len() };
        engine.receive(now, &meta, &mut packet);
        engine.process(now);
        let (mut train, mut all) = (Train::new(), Vec::new());
        while let Some(meta) = engine.fill(now, &mut train) {
            engine.sent(now, &meta, SendOutcome::Sent);
            all.push(train.bytes().to_vec());
        }
        all
    };
    for n in 1..5 {
        // A packet that could be opened, and one that could not.
        let good = rig.forge(Level::OneRtt, &encode(&[Frame::Ping, Frame::Padding(40)]));
        let packet = if n % 2 == 0 { good } else { forged() };
        let answer = answers(&mut rig.victim, rig.now, packet);
        assert_eq!((answer.len(), rig.victim.stats().resets), (1, n));
        assert!(answer[0].len() < 64 && answer[0][0] & 0xc0 == 0x40);
        rig.now += Duration::from_millis(40);
    }
    // Another end of a connection leaves silence behind.
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    rig.victim.close(rig.now, rig.key, 0, b"").unwrap();
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.victim.connections(), 0);
    assert_eq!(answers(&mut rig.victim, rig.now, forged()), Vec::<Vec<u8>>::new());
}
