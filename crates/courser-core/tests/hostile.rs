//! Peers that break rules: every violation is answered with the code that the RFCs ask for, on the wire.
//!
//! A forger holds the keys of a connection to the engine under test and sends packets of its own making at every level.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::config::{Settings, TransportParams};
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::{Cid, Dir, Level, ResetToken, Side, StreamId, Version};
use courser_core::protect::null::NullTlsServer;
use courser_core::wire::Reader;
use courser_core::wire::frame::{Extensions, Frame, frames};
use courser_testing::rig::{Plan, Rig, Seen, SeenClose, Stage, encode, numbered};

const FLOW_CONTROL: u64 = 0x3;
const STREAM_LIMIT: u64 = 0x4;
const STREAM_STATE: u64 = 0x5;
const FINAL_SIZE: u64 = 0x6;
const FRAME_ENCODING: u64 = 0x7;
const PARAMETER: u64 = 0x8;
const CID_LIMIT: u64 = 0x9;
const PROTOCOL: u64 = 0xa;
const CRYPTO_BUFFER: u64 = 0xd;

const BIDI: StreamId = StreamId(0);
const UNI: StreamId = StreamId(2);
/// Opened by the server, two-way.
const THEIR_BIDI: StreamId = StreamId(1);
/// Opened by the server, one-way.
const THEIR_UNI: StreamId = StreamId(3);

fn stream(id: StreamId, offset: u64, data: &[u8], fin: bool) -> Frame<'_> {
    Frame::Stream { id, offset, data, fin, length_present: true }
}

fn new_cid(sequence: u64, retire_prior_to: u64, byte: u8) -> Frame<'static> {
    let cid = Cid::new(&[byte; 8]).unwrap();
    Frame::NewConnectionId { sequence, retire_prior_to, cid, token: ResetToken([byte; 16]) }
}

/// What the engine under test says must be the code, at the level, and its own view of the end must be the same.
#[track_caller]
fn assert_violation(rig: &Rig, seen: &Seen, what: &str, level: Level, code: u64) -> SeenClose {
    let close = seen.close.clone().unwrap_or_else(|| panic!("{what}: nothing was said"));
    assert_eq!(rig.victim.stats().resets, 0, "{what}");
    assert_eq!((close.code, close.level), (code, level), "{what}: {close:?}");
    assert!(close.frame_type.is_some(), "{what}: the transport closes, not the application");
    match rig.victim.close_reason(rig.key).unwrap() {
        Some(CloseReason::Violation(v)) => {
            assert_eq!(v.code, TransportCode(code), "{what}");
            assert_eq!(v.reason.as_bytes(), close.reason, "{what}");
        }
        Some(CloseReason::Tls { alert, .. }) => assert_eq!(TransportCode::tls_alert(*alert), TransportCode(code)),
        other => panic!("{what}: {other:?}"),
    }
    close
}

/// Payloads at 1-RTT, sent to that end: name, payload, code, blamed frame type.
type Case = (&'static str, Vec<u8>, u64, u64);

#[track_caller]
fn run(victim: Side, cases: Vec<Case>) {
    for (what, payload, code, frame_type) in cases {
        let mut rig = Rig::at(victim, Stage::Confirmed);
        let seen = rig.inject(Level::OneRtt, &payload);
        let close = assert_violation(&rig, &seen, what, Level::OneRtt, code);
        assert_eq!(close.frame_type, Some(frame_type), "{what}");
    }
}

#[test]
fn frames_that_make_no_sense_are_told_so() {
    //= rfc9000#12.4-2 type=test
    //= rfc9000#12.4-4 type=test
    //= rfc9000#10.3-1 type=test
    let cases = vec![
        ("no frame at all", vec![], PROTOCOL, 0),
        ("an unknown frame type", vec![0x21, 0, 0], FRAME_ENCODING, 0x21),
        ("an unknown frame type of eight bytes", vec![0xc0, 0, 0, 1, 2, 3, 4, 5], FRAME_ENCODING, 0x1_0203_0405),
        ("a PING whose type has two bytes", vec![0x40, 0x01], PROTOCOL, 0x01),
        ("a PADDING whose type has four bytes", vec![0x80, 0, 0, 0], PROTOCOL, 0x00),
        ("a frame type that ends early", vec![0x01, 0xc0, 0], FRAME_ENCODING, 0),
        ("MAX_DATA without its value", vec![0x10], FRAME_ENCODING, 0x10),
        ("STREAM with a length beyond the packet", vec![0x0a, 0, 9, 1], FRAME_ENCODING, 0x0a),
        ("RESET_STREAM that ends early", vec![0x04, 0, 0], FRAME_ENCODING, 0x04),
        ("PATH_CHALLENGE of seven bytes", vec![0x1a, 1, 2, 3, 4, 5, 6, 7], FRAME_ENCODING, 0x1a),
        ("an ACK whose first range goes below zero", vec![0x02, 1, 0, 0, 5], FRAME_ENCODING, 0x02),
        ("an ACK whose gap goes below zero", vec![0x02, 3, 0, 1, 1, 9, 0], FRAME_ENCODING, 0x02),
        ("STREAM beyond 2^62 - 1", [&[0x0e, 0][..], &[0xff; 8], &[1, 7]].concat(), FRAME_ENCODING, 0x0e),
        ("MAX_STREAMS beyond 2^60", [&[0x12][..], &[0xd0, 0, 0, 0, 0, 0, 0, 1]].concat(), FRAME_ENCODING, 0x12),
    ];
    run(Side::Server, cases.clone());
    run(Side::Client, cases);
}

/// Payloads that other implementations' fuzzers found, each behind its length in two bytes.
fn found_by_fuzzing() -> Vec<&'static [u8]> {
    let mut all = Vec::new();
    let files: [&[u8]; 3] = [
        include_bytes!("../testdata/fuzz/frame-neqo.bin"),
        include_bytes!("../testdata/fuzz/frame-ngtcp2.bin"),
        include_bytes!("../testdata/fuzz/frame-s2n.bin"),
    ];
    for mut r in files.map(Reader::new) {
        while let Some(len) = r.u16() {
            all.push(r.bytes(usize::from(len)).unwrap());
        }
    }
    all
}

#[test]
fn every_malformed_frame_of_the_corpora_closes_with_its_code() {
    // LS-GQ-21: a frame that cannot be read, in front of a packet and behind frames that can.
    let known = Extensions::of(&TransportParams {
        max_datagram_frame: 65_535,
        reset_stream_at: true,
        ..TransportParams::default()
    });
    let mut seen = std::collections::BTreeMap::new();
    for input in found_by_fuzzing() {
        // Every beginning of an input is one more input.
        for end in 1..=input.len().min(64) {
            let Some(Err(violation)) = frames(&input[..end], Level::OneRtt, known).next() else { continue };
            for before in [&[][..], &[0x00, 0x01, 0x00]] {
                let payload = [before, &input[..end]].concat();
                let mut rig = Rig::at(Side::Server, Stage::Confirmed);
                let answer = rig.inject(Level::OneRtt, &payload);
                let what = format!("{payload:02x?}");
                assert_violation(&rig, &answer, &what, Level::OneRtt, violation.code.0);
                *seen.entry(violation.code.0).or_insert(0) += 1;
            }
        }
    }
    assert!(seen[&FRAME_ENCODING] > 100, "{seen:?}");
}

#[test]
fn streams_of_the_wrong_kind_or_state_are_told_so() {
    //= rfc9000#11.1-1 type=test
    //= rfc9000#19.4-1 type=test
    //= rfc9000#19.5-1 type=test
    //= rfc9000#19.5-2 type=test
    //= rfc9000#19.8-1 type=test
    //= rfc9000#19.10-1 type=test
    //= rfc9000#19.10-2 type=test
    //= rfc9000#19.13-2 type=test
    let one = |frame: Frame<'_>| encode(&[frame]);
    let cases: Vec<Case> = vec![
        ("STREAM on a stream that we never opened", one(stream(THEIR_BIDI, 0, b"x", false)), STREAM_STATE, 0x0a),
        ("STREAM on our one-way stream", one(stream(THEIR_UNI, 0, b"x", false)), STREAM_STATE, 0x0a),
        (
            "RESET_STREAM on our one-way stream",
            one(Frame::ResetStream { id: THEIR_UNI, code: 0, final_size: 0 }),
            STREAM_STATE,
            0x04,
        ),
        ("STOP_SENDING on their one-way stream", one(Frame::StopSending { id: UNI, code: 0 }), STREAM_STATE, 0x05),
        ("STOP_SENDING before we opened", one(Frame::StopSending { id: THEIR_BIDI, code: 0 }), STREAM_STATE, 0x05),
        ("MAX_STREAM_DATA before we opened", one(Frame::MaxStreamData { id: THEIR_BIDI, max: 9 }), STREAM_STATE, 0x11),
        ("MAX_STREAM_DATA on their one-way stream", one(Frame::MaxStreamData { id: UNI, max: 9 }), STREAM_STATE, 0x11),
        (
            "STREAM_DATA_BLOCKED on our one-way stream",
            one(Frame::StreamDataBlocked { id: THEIR_UNI, limit: 9 }),
            STREAM_STATE,
            0x15,
        ),
    ];
    run(Side::Server, cases);
}

#[test]
fn limits_that_are_exceeded_are_told_so() {
    //= rfc9000#4.6-3 type=test
    //= rfc9000#4.5-4 type=test
    //= rfc9000#19.9-2 type=test
    //= rfc9000#19.10-4 type=test
    //= rfc9000#19.11-4 type=test
    let over = |dir| StreamId::new(Side::Client, dir, 128);
    let window = Settings::default().stream_window;
    let fill = |n: u64| stream(StreamId::new(Side::Client, Dir::Bi, n), window - 1, b"x", false);
    let cases: Vec<Case> = vec![
        (
            "the first stream beyond the limit, two-way",
            encode(&[stream(over(Dir::Bi), 0, b"", false)]),
            STREAM_LIMIT,
            0x0a,
        ),
        (
            "the first stream beyond the limit, one-way",
            encode(&[stream(over(Dir::Uni), 0, b"", false)]),
            STREAM_LIMIT,
            0x0a,
        ),
        (
            "RESET_STREAM beyond the limit",
            encode(&[Frame::ResetStream { id: over(Dir::Uni), code: 1, final_size: 0 }]),
            STREAM_LIMIT,
            0x04,
        ),
        ("one byte beyond the stream's credit", encode(&[stream(BIDI, window, b"x", false)]), FLOW_CONTROL, 0x0e),
        ("one byte beyond the connection's credit", encode(&[fill(0), fill(1), fill(2)]), FLOW_CONTROL, 0x0e),
        (
            "a final size beyond the stream's credit",
            encode(&[Frame::ResetStream { id: BIDI, code: 1, final_size: window + 1 }]),
            FLOW_CONTROL,
            0x04,
        ),
        (
            "data behind the end",
            encode(&[stream(BIDI, 0, b"abc", true), stream(BIDI, 5, b"x", false)]),
            FINAL_SIZE,
            0x0e,
        ),
        ("two ends", encode(&[stream(BIDI, 0, b"abc", true), stream(BIDI, 0, b"ab", true)]), FINAL_SIZE, 0x0b),
        (
            "an end before what came already",
            encode(&[stream(BIDI, 0, b"abcdef", false), stream(BIDI, 0, b"ab", true)]),
            FINAL_SIZE,
            0x0b,
        ),
        (
            "a reset with another size than the end",
            encode(&[stream(UNI, 0, b"abc", true), Frame::ResetStream { id: UNI, code: 0, final_size: 4 }]),
            FINAL_SIZE,
            0x04,
        ),
    ];
    run(Side::Server, cases);
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    let exactly =
        [stream(StreamId::new(Side::Client, Dir::Bi, 127), 0, b"x", true), stream(BIDI, window - 1, b"x", false)];
    assert_eq!(rig.inject_frames(Level::OneRtt, &exactly).close, None, "what is just allowed is no violation");
}

#[test]
fn partial_resets_that_break_a_rule_are_told_so() {
    let at = |id, code, final_size, reliable_size| Frame::ResetStreamAt { id, code, final_size, reliable_size };
    let window = Settings::default().stream_window;
    let cases: Vec<Case> = vec![
        //= reset-stream-at#4-1 type=test
        ("a promise beyond the final size", vec![0x24, 0, 1, 5, 6], FRAME_ENCODING, 0x24),
        ("RESET_STREAM_AT that ends early", vec![0x24, 0, 1, 5], FRAME_ENCODING, 0x24),
        //= reset-stream-at#4-3 type=test
        ("a final size beyond the credit", encode(&[at(BIDI, 1, window + 1, 0)]), FLOW_CONTROL, 0x24),
        //= reset-stream-at#5.2-6 type=test
        ("another code", encode(&[at(UNI, 1, 9, 5), at(UNI, 2, 9, 4)]), STREAM_STATE, 0x24),
        ("another size", encode(&[at(UNI, 1, 9, 5), at(UNI, 1, 8, 4)]), FINAL_SIZE, 0x24),
        (
            "another code of RESET_STREAM",
            encode(&[at(UNI, 1, 9, 5), Frame::ResetStream { id: UNI, code: 2, final_size: 9 }]),
            STREAM_STATE,
            0x04,
        ),
        ("another size than the end", encode(&[at(UNI, 1, 9, 5), stream(UNI, 0, b"abc", true)]), FINAL_SIZE, 0x0b),
        ("RESET_STREAM_AT on our one-way stream", encode(&[at(THEIR_UNI, 1, 0, 0)]), STREAM_STATE, 0x24),
        ("RESET_STREAM_AT before we opened", encode(&[at(THEIR_BIDI, 1, 0, 0)]), STREAM_STATE, 0x24),
    ];
    run(Side::Server, cases);
    let mut settings = Settings::default();
    settings.reset_stream_at = false;
    let mut rig = Rig::new(Plan { settings, ..Plan::new(Side::Server, Stage::Confirmed) });
    let seen = rig.inject_frames(Level::OneRtt, &[at(UNI, 1, 9, 5)]);
    assert_eq!(seen.code(), Some(FRAME_ENCODING), "the frame is unknown to who did not offer it");
}

#[test]
fn frames_that_only_the_other_end_sends_are_refused() {
    //= rfc9000#19.7-4 type=test
    //= rfc9000#19.7-3 type=test
    //= rfc9000#19.20-2 type=test
    let cases: Vec<Case> = vec![
        ("HANDSHAKE_DONE from a client", encode(&[Frame::HandshakeDone]), PROTOCOL, 0x1e),
        ("NEW_TOKEN from a client", encode(&[Frame::NewToken { token: b"x" }]), PROTOCOL, 0x07),
        ("CRYPTO from a client after the handshake", encode(&[Frame::Crypto { offset: 0, data: b"x" }]), 0x10a, 0x06),
    ];
    run(Side::Server, cases);
    run(Side::Client, vec![("NEW_TOKEN without a token", vec![0x07, 0], FRAME_ENCODING, 0x07)]);
}

#[test]
fn rules_of_connection_ids_are_kept() {
    //= rfc9000#5.1.1-5 type=test
    //= rfc9000#19.15-1 type=test
    //= rfc9000#19.15-6 type=test
    //= rfc9000#19.16-1 type=test
    //= rfc9000#19.16-2 type=test
    let bytes = |len: usize, retire: u8| [&[0x18, 9, retire, len as u8][..], &vec![7; len], &[1; 16]].concat();
    let cases: Vec<Case> = vec![
        ("a connection ID without bytes", bytes(0, 0), FRAME_ENCODING, 0x18),
        ("a connection ID of 21 bytes", bytes(21, 0), FRAME_ENCODING, 0x18),
        ("Retire Prior To beyond the number", bytes(8, 10), FRAME_ENCODING, 0x18),
        ("more connection IDs than the limit", encode(&[new_cid(50, 0, 50), new_cid(51, 0, 51)]), CID_LIMIT, 0x18),
        ("one number with two connection IDs", encode(&[new_cid(9, 9, 1), new_cid(9, 9, 2)]), PROTOCOL, 0x18),
        ("one connection ID with two numbers", encode(&[new_cid(9, 9, 1), new_cid(10, 9, 1)]), PROTOCOL, 0x18),
        ("a number that was never issued", encode(&[Frame::RetireConnectionId { sequence: 99 }]), PROTOCOL, 0x19),
        ("the one that the packet uses", encode(&[Frame::RetireConnectionId { sequence: 0 }]), PROTOCOL, 0x19),
    ];
    run(Side::Server, cases.clone());
    run(Side::Client, cases);
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_refused() {
    //= rfc9000#13.1-2 type=test
    let ack = |largest: u64| {
        let mut payload = vec![0x02, 0xc0, 0, 0, 0];
        payload.extend(u32::try_from(largest).unwrap().to_be_bytes());
        payload.extend([0, 0, 0]);
        payload
    };
    run(Side::Server, vec![("an ACK of the future", ack(1_000_000), PROTOCOL, 0)]);
    for level in [Level::Initial, Level::Handshake] {
        let mut rig = Rig::at(Side::Server, Stage::Handshake);
        let seen = rig.inject(level, &ack(500_000));
        assert!(seen.close.is_some_and(|c| c.code == PROTOCOL), "{level:?}");
    }
}

#[test]
fn acknowledgements_of_skipped_numbers_are_refused() {
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    let mut sent = std::collections::BTreeSet::new();
    // An acknowledgement may be answered, too: by a probe for larger datagrams.
    let mut answer = Vec::new();
    for _ in 0..2000 {
        rig.victim.ping(rig.key).unwrap();
        let seen = rig.collect();
        for datagram in answer.iter().chain(&seen.datagrams) {
            for (_, pn, _) in numbered(datagram) {
                sent.insert(pn);
            }
        }
        let largest = *sent.last().unwrap();
        let skipped = (*sent.first().unwrap()..largest).find(|pn| !sent.contains(pn));
        let Some(skipped) = skipped else {
            let acked = encode(&[Frame::Ping]);
            let mut payload = vec![0x02];
            payload.extend((0x8000_0000 | u32::try_from(largest).unwrap()).to_be_bytes());
            payload.extend([0, 0, 0]);
            payload.extend(acked);
            let seen = rig.inject(Level::OneRtt, &payload);
            assert_eq!(seen.close, None);
            answer = seen.datagrams;
            rig.now += core::time::Duration::from_millis(5);
            continue;
        };
        let mut payload = vec![0x02];
        payload.extend((0x8000_0000 | u32::try_from(skipped).unwrap()).to_be_bytes());
        payload.extend([0, 0, 0]);
        let seen = rig.inject(Level::OneRtt, &payload);
        assert_violation(&rig, &seen, "an ACK of a skipped number", Level::OneRtt, PROTOCOL);
        return;
    }
    panic!("no number was skipped");
}

#[test]
fn reserved_bits_must_be_zero() {
    //= rfc9000#17.2-9 type=test
    //= rfc9000#17.3.1-3 type=test
    for (level, stage, bits) in [
        (Level::OneRtt, Stage::Confirmed, 0x18),
        (Level::Initial, Stage::Initial, 0x0c),
        (Level::Handshake, Stage::Handshake, 0x04),
    ] {
        for victim in [Side::Client, Side::Server] {
            let mut rig = Rig::at(victim, stage);
            let packet = rig.forge_with(level, &[0x01], |packet| packet[0] |= bits);
            rig.give_packet(level, packet);
            let seen = rig.collect();
            assert_eq!(seen.code(), Some(PROTOCOL), "{level:?} to the {victim:?}");
        }
    }
}

#[test]
fn a_cleared_quic_bit_is_taken_by_those_who_offered_it_and_dropped_by_others() {
    //= rfc9287#3-2 type=test
    //= rfc9000#17.2-1 type=test
    //= rfc9000#17.3.1-1 type=test
    let stages =
        [(Level::OneRtt, Stage::Confirmed), (Level::Handshake, Stage::Handshake), (Level::Initial, Stage::Initial)];
    for ((level, stage), grease) in stages.into_iter().flat_map(|s| [(s, false), (s, true)]) {
        for victim in [Side::Client, Side::Server] {
            let mut plan = Plan::new(victim, stage);
            plan.settings.grease = grease;
            let mut rig = Rig::new(plan);
            let count = |rig: &mut Rig| rig.victim.conn_stats(rig.key).unwrap().received.packets;
            let before = count(&mut rig);
            let packet = rig.forge_with(level, &[0x01, 0, 0, 0], |packet| packet[0] &= !0x40);
            rig.give_packet(level, packet);
            assert_eq!(count(&mut rig) - before, u64::from(grease), "{level:?} to the {victim:?}");
            let packet = rig.forge(level, &[0x01, 0, 0, 0]);
            rig.give_packet(level, packet);
            assert_eq!(count(&mut rig) - before, 1 + u64::from(grease), "the connection lives");
        }
    }
}

#[test]
fn a_first_packet_with_a_cleared_quic_bit_is_read_by_servers_that_offer_that() {
    //= rfc9000#17.2-1 type=test
    //= rfc9287#3-2 type=test
    for grease in [false, true] {
        let mut plan = Plan::new(Side::Server, Stage::Initial);
        plan.settings.grease = grease;
        let mut rig = Rig::new(plan);
        let mut hello = rig.hello.clone();
        // Another connection ID, so that it belongs to no connection; its keys do not fit either then.
        (hello[0], hello[6]) = (hello[0] & !0x40, hello[6] ^ 1);
        let before = rig.victim.stats();
        rig.deliver_from("192.0.2.9:9".parse().unwrap(), &mut hello);
        let after = rig.victim.stats();
        let counts = (after.malformed - before.malformed, after.gate_not_authentic - before.gate_not_authentic);
        assert_eq!(counts, if grease { (0, 1) } else { (1, 0) });
    }
}

#[test]
fn early_packets_carry_few_kinds_of_frames() {
    //= rfc9000#12.4-3 type=test
    //= rfc9000#17.2.4-1 type=test
    let frames: Vec<(u64, Vec<u8>)> = vec![
        (0x04, encode(&[Frame::ResetStream { id: BIDI, code: 0, final_size: 0 }])),
        (0x05, encode(&[Frame::StopSending { id: BIDI, code: 0 }])),
        (0x07, encode(&[Frame::NewToken { token: b"x" }])),
        (0x0a, encode(&[stream(BIDI, 0, b"x", false)])),
        (0x10, encode(&[Frame::MaxData { max: 1 << 40 }])),
        (0x11, encode(&[Frame::MaxStreamData { id: BIDI, max: 1 << 40 }])),
        (0x12, encode(&[Frame::MaxStreams { dir: Dir::Bi, max: 1 }])),
        (0x14, encode(&[Frame::DataBlocked { limit: 1 }])),
        (0x16, encode(&[Frame::StreamsBlocked { dir: Dir::Bi, limit: 1 }])),
        (0x18, encode(&[new_cid(1, 0, 1)])),
        (0x19, encode(&[Frame::RetireConnectionId { sequence: 0 }])),
        (0x1a, encode(&[Frame::PathChallenge([1; 8])])),
        (0x1b, encode(&[Frame::PathResponse([1; 8])])),
        (0x1d, encode(&[Frame::ApplicationClose { code: 1, reason: b"" }])),
        (0x1e, encode(&[Frame::HandshakeDone])),
        //= reset-stream-at#4-4 type=test
        (0x24, encode(&[Frame::ResetStreamAt { id: BIDI, code: 0, final_size: 0, reliable_size: 0 }])),
        (0x31, encode(&[Frame::Datagram { data: b"x", length_present: true }])),
    ];
    for (frame_type, payload) in frames {
        for victim in [Side::Client, Side::Server] {
            for (level, stage) in [(Level::Initial, Stage::Initial), (Level::Handshake, Stage::Handshake)] {
                let mut rig = Rig::at(victim, stage);
                let close = rig.inject(level, &payload).close.unwrap_or_else(|| panic!("{frame_type:#x} at {level:?}"));
                assert_eq!((close.code, close.frame_type), (PROTOCOL, Some(frame_type)), "{level:?} to the {victim:?}");
            }
        }
    }
}

#[test]
fn handshake_data_far_ahead_is_not_kept() {
    //= rfc9000#7.5-2 type=test
    let far = encode(&[Frame::Crypto { offset: 70_000, data: b"x" }]);
    for victim in [Side::Client, Side::Server] {
        for (level, stage) in [(Level::Initial, Stage::Initial), (Level::Handshake, Stage::Handshake)] {
            let mut rig = Rig::at(victim, stage);
            // A server reads nothing behind the ClientHello at that level, however near it is.
            let over = victim.is_server() && level == Level::Initial;
            let code = if over { PROTOCOL } else { CRYPTO_BUFFER };
            assert_eq!(rig.inject(level, &far).code(), Some(code), "{level:?} to the {victim:?}");
        }
    }
    let mut rig = Rig::at(Side::Client, Stage::Confirmed);
    let far = encode(&[Frame::Crypto { offset: 1 << 20, data: b"x" }]);
    assert_eq!(rig.inject(Level::OneRtt, &far).code(), Some(CRYPTO_BUFFER));
}

#[test]
fn what_tls_refuses_goes_out_as_its_alert() {
    //= rfc9001#4.8-1 type=test
    let wrong = encode(&[Frame::Crypto { offset: 0, data: &[99, 0, 0, 0] }]);
    for victim in [Side::Client, Side::Server] {
        let mut rig = Rig::at(victim, Stage::Handshake);
        // The client under test has read the beginning of the flight already: what follows there makes no sense either.
        let seen = match victim {
            Side::Server => rig.inject(Level::Handshake, &wrong),
            Side::Client => {
                let late = [0; 4000];
                for at in (0..4000).step_by(1000) {
                    rig.give(Level::Handshake, &encode(&[Frame::Crypto { offset: at as u64, data: &late[..1000] }]));
                }
                rig.collect()
            }
        };
        let code = seen.code().unwrap();
        assert!((0x100..0x200).contains(&code), "{victim:?}: {code:#x}");
        assert!(matches!(rig.victim.close_reason(rig.key), Ok(Some(CloseReason::Tls { .. }))));
    }
    let tls = NullTlsServer { refuse: Some(120), ..NullTlsServer::default() };
    let rig = Rig::new(Plan { tls, ..Plan::new(Side::Server, Stage::Initial) });
    assert_eq!(rig.first.code(), Some(0x178));
}

#[test]
fn datagrams_must_have_been_negotiated() {
    //= rfc9221#3-3 type=test
    let mut settings = Settings::default();
    settings.max_datagram_frame = 0;
    let mut rig = Rig::new(Plan { settings: settings.clone(), ..Plan::new(Side::Server, Stage::Confirmed) });
    let frame = Frame::Datagram { data: b"hello", length_present: true };
    assert_eq!(rig.inject_frames(Level::OneRtt, &[frame]).code(), Some(PROTOCOL));
    settings.max_datagram_frame = 100;
    let mut rig = Rig::new(Plan { settings, ..Plan::new(Side::Server, Stage::Confirmed) });
    let frame = |n: usize| Frame::Datagram { data: &[7; 200][..n], length_present: true };
    assert_eq!(rig.inject_frames(Level::OneRtt, &[frame(97)]).close, None);
    assert_eq!(rig.inject_frames(Level::OneRtt, &[frame(98)]).code(), Some(PROTOCOL));
}

type Params = Vec<(u64, Vec<u8>)>;

fn set(list: &mut Params, id: u64, value: &[u8]) {
    list.retain(|(known, _)| *known != id);
    list.push((id, value.to_vec()));
}

#[test]
fn transport_parameters_that_cannot_be_are_refused() {
    //= rfc9000#7.3-2 type=test
    //= rfc9000#7.4-2 type=test
    //= rfc9000#18.2-7 type=test
    type Twist = fn(&mut Params);
    let both: [(&str, Twist); 9] = [
        ("another initial_source_connection_id", |p| set(p, 0x0f, &[9; 8])),
        ("no initial_source_connection_id", |p| p.retain(|(id, _)| *id != 0x0f)),
        ("max_udp_payload_size below 1200", |p| set(p, 0x03, &[0x44, 0xaf])),
        ("ack_delay_exponent of 21", |p| set(p, 0x0a, &[21])),
        ("max_ack_delay of 2^14", |p| set(p, 0x0b, &[0x80, 0, 0x40, 0])),
        ("active_connection_id_limit of 1", |p| set(p, 0x0e, &[1])),
        ("more than 2^60 streams", |p| set(p, 0x08, &[0xd0, 0, 0, 0, 0, 0, 0, 1])),
        ("a parameter twice", |p| p.push((0x0f, vec![1; 8]))),
        ("bytes behind a value", |p| set(p, 0x04, &[1, 1])),
    ];
    let from_clients: [(&str, Twist); 4] = [
        ("original_destination_connection_id", |p| set(p, 0x00, &[1; 8])),
        ("stateless_reset_token", |p| set(p, 0x02, &[1; 16])),
        ("preferred_address", |p| set(p, 0x0d, &[1; 41])),
        ("retry_source_connection_id", |p| set(p, 0x10, &[1; 8])),
    ];
    let from_servers: [(&str, Twist); 3] = [
        ("another original_destination_connection_id", |p| set(p, 0x00, &[1; 8])),
        ("no original_destination_connection_id", |p| p.retain(|(id, _)| *id != 0)),
        ("retry_source_connection_id without a Retry", |p| set(p, 0x10, &[1; 8])),
    ];
    let cases = both
        .iter()
        .flat_map(|c| [(Side::Client, c), (Side::Server, c)])
        .chain(from_clients.iter().map(|c| (Side::Server, c)))
        .chain(from_servers.iter().map(|c| (Side::Client, c)));
    for (victim, (what, twist)) in cases {
        let rig = Rig::new(Plan { twist: Some(*twist), ..Plan::new(victim, Stage::Confirmed) });
        assert_eq!(rig.first.code(), Some(PARAMETER), "{what} to the {victim:?}: {:?}", rig.first.close);
    }
}

#[test]
fn a_version_that_is_not_the_one_in_use_ends_the_handshake() {
    //= rfc9368#4-8, rfc9368#4-9, rfc9368#4-17 type=test
    // Chosen is version 2, available are both; the packets are of version 1.
    //= rfc9368#4-3 type=test
    let twist: fn(&mut Vec<(u64, Vec<u8>)>) = |params| {
        params.retain(|(id, _)| *id != 0x11);
        let versions = [Version::V2, Version::V2, Version::V1];
        params.push((0x11, versions.iter().flat_map(|v| v.0.to_be_bytes()).collect()));
    };
    for victim in [Side::Client, Side::Server] {
        let rig = Rig::new(Plan { twist: Some(twist), ..Plan::new(victim, Stage::Confirmed) });
        assert_eq!(rig.first.code(), Some(TransportCode::VERSION_NEGOTIATION_ERROR.0), "to the {victim:?}");
    }
}

#[test]
fn a_packet_after_the_close_changes_nothing_but_is_answered_less_and_less() {
    //= rfc9000#10.2.1-1 type=test
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    let first = rig.inject(Level::OneRtt, &[]);
    assert_eq!(first.code(), Some(PROTOCOL));
    let mut answers = 0;
    for _ in 0..1000 {
        let seen =
            rig.inject_frames(Level::OneRtt, &[Frame::MaxStreams { dir: Dir::Bi, max: 0 }, Frame::HandshakeDone]);
        answers += seen.datagrams.len();
        assert!(seen.close.is_none_or(|c| c.code == PROTOCOL && Some(c) == first.close), "the first reason stays");
    }
    assert!((1..=12).contains(&answers), "{answers} answers");
}

#[test]
fn an_initial_of_a_server_has_no_token() {
    //= rfc9000#17.2.2-1 type=test
    let mut rig = Rig::at(Side::Client, Stage::Initial);
    let received = |rig: &Rig| rig.victim.conn_stats(rig.key).unwrap().received.packets;
    let with_token = rig.forge_token(&[5; 20], &encode(&[Frame::Ping]));
    rig.give_packet(Level::Initial, with_token);
    assert_eq!(received(&rig), 0);
    rig.give(Level::Initial, &encode(&[Frame::Ping]));
    assert_eq!(received(&rig), 1);
}
