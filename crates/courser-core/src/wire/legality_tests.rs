//! Tests of the legality checker: legal packets pass, and each illegal one is refused by its own rule.

use super::*;
use crate::config::MIN_DATAGRAM;
use crate::error::TransportCode;
use crate::ids::{Cid, Dir, ResetToken};
use crate::wire::Writer;
use crate::wire::frame::{EcnCounts, frames, write_ack};
use crate::wire::testing::hex;

const A: StreamId = StreamId(0);
const B: StreamId = StreamId(4);

/// The bytes of frames, one behind the other.
fn bytes(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut buf = vec![0; 4096];
    let mut w = Writer::new(&mut buf);
    for frame in frames {
        frame.encode(&mut w).unwrap();
    }
    w.written().to_vec()
}

fn stream(id: StreamId, offset: u64, data: &[u8], length_present: bool) -> Frame<'_> {
    Frame::Stream { id, offset, data, fin: false, length_present }
}

fn new_cid() -> Frame<'static> {
    Frame::NewConnectionId {
        sequence: 1,
        retire_prior_to: 0,
        cid: Cid::new(&[1; 8]).unwrap(),
        token: ResetToken([2; 16]),
    }
}

const CLOSE: Frame<'static> =
    Frame::ConnectionClose { code: TransportCode::NO_ERROR, frame_type: 0, reason: b"because" };

/// An ACK frame of numbers 3 to 9.
fn ack() -> Vec<u8> {
    let mut buf = [0; 32];
    let mut w = Writer::new(&mut buf);
    write_ack(&mut w, [(8, 9), (3, 5)], 100, None, 32).unwrap();
    w.written().to_vec()
}

#[test]
fn legal_packets_pass() {
    let early = [stream(A, 0, b"x", true), Frame::Datagram { data: b"y", length_present: false }];
    let mut everything = bytes(&[
        Frame::HandshakeDone,
        Frame::MaxData { max: 1 },
        Frame::MaxStreams { dir: Dir::Bi, max: 1 },
        Frame::MaxStreams { dir: Dir::Uni, max: 1 },
        Frame::DataBlocked { limit: 1 },
        Frame::StreamsBlocked { dir: Dir::Bi, limit: 1 },
        new_cid(),
        Frame::RetireConnectionId { sequence: 0 },
        Frame::RetireConnectionId { sequence: 1 },
        Frame::PathChallenge([1; 8]),
        Frame::PathResponse([1; 8]),
        Frame::PathResponse([2; 8]),
    ]);
    everything.extend(ack());
    everything.extend(bytes(&[
        Frame::NewToken { token: b"t" },
        Frame::Crypto { offset: 0, data: b"c" },
        Frame::Datagram { data: b"d", length_present: true },
        Frame::StopSending { id: A, code: 0 },
        Frame::MaxStreamData { id: A, max: 1 },
        stream(A, 0, b"a", true),
        stream(A, 9, b"a", true),
        Frame::ResetStream { id: B, code: 0, final_size: 0 },
        Frame::ResetStreamAt { id: StreamId(20), code: 0, final_size: 9, reliable_size: 9 },
        stream(StreamId(20), 0, b"a", true),
        Frame::StreamDataBlocked { id: StreamId(8), limit: 3 },
        Frame::ImmediateAck,
        Frame::Stream { id: StreamId(12), offset: 7, data: b"", fin: true, length_present: true },
        stream(StreamId(16), 0, b"", true),
        Frame::Padding(5),
    ]));
    // Nothing in the list hides behind a frame that reaches to the end.
    assert_eq!(frames(&everything, Level::OneRtt, Extensions::ALL).filter(Result::is_ok).count(), 12 + 1 + 15);
    for (level, payload) in [
        (Level::Initial, [ack(), bytes(&[Frame::Crypto { offset: 0, data: b"c" }, Frame::Padding(900)])].concat()),
        (Level::Handshake, ack()),
        (Level::Handshake, [ack(), bytes(&[CLOSE])].concat()),
        (Level::ZeroRtt, bytes(&early)),
        (Level::OneRtt, [ack(), bytes(&[Frame::Ping, Frame::Padding(1)])].concat()),
        (Level::OneRtt, bytes(&[Frame::ApplicationClose { code: 0, reason: b"" }, Frame::Padding(3)])),
        (Level::OneRtt, everything),
    ] {
        assert_eq!(check_packet(level, &payload).err(), None, "{level:?} {payload:02x?}");
    }
}

#[test]
fn the_checker_gives_the_frames_of_a_packet() {
    let frames = check_packet(Level::OneRtt, &bytes(&[Frame::MaxData { max: 9 }, Frame::Padding(3)]));
    assert_eq!(frames, Ok(FrameSet::of(&[FrameKind::MaxData, FrameKind::Padding])));
}

/// Illegal packets of frames that are encoded well.
fn illegal_frames() -> Vec<(&'static str, Level, Vec<Frame<'static>>, Illegal)> {
    use FrameKind as K;
    use Level::{Handshake, Initial, OneRtt, ZeroRtt};
    let data = |id, offset| stream(id, offset, b"data", true);
    let crypto = || Frame::Crypto { offset: 0, data: b"c" };
    let stop = |id| Frame::StopSending { id, code: 1 };
    let credit = |id| Frame::MaxStreamData { id, max: 1 };
    let max_data = || Frame::MaxData { max: 1 };
    let reset_at = |id, reliable_size| Frame::ResetStreamAt { id, code: 1, final_size: 9, reliable_size };
    vec![
        ("no frame", OneRtt, vec![], Illegal::EmptyPacket),
        ("STREAM in Initial", Initial, vec![data(A, 0)], Illegal::NotPermitted(K::Stream, Initial)),
        ("STREAM in Handshake", Handshake, vec![data(A, 0)], Illegal::NotPermitted(K::Stream, Handshake)),
        ("MAX_DATA in Handshake", Handshake, vec![max_data()], Illegal::NotPermitted(K::MaxData, Handshake)),
        ("CRYPTO in 0-RTT", ZeroRtt, vec![crypto()], Illegal::NotPermitted(K::Crypto, ZeroRtt)),
        (
            "HANDSHAKE_DONE in Handshake",
            Handshake,
            vec![Frame::HandshakeDone],
            Illegal::NotPermitted(K::HandshakeDone, Handshake),
        ),
        (
            "PATH_RESPONSE in 0-RTT",
            ZeroRtt,
            vec![Frame::PathResponse([0; 8])],
            Illegal::NotPermitted(K::PathResponse, ZeroRtt),
        ),
        (
            "RETIRE_CONNECTION_ID in 0-RTT",
            ZeroRtt,
            vec![Frame::RetireConnectionId { sequence: 0 }],
            Illegal::NotPermitted(K::RetireConnectionId, ZeroRtt),
        ),
        (
            "NEW_TOKEN in 0-RTT",
            ZeroRtt,
            vec![Frame::NewToken { token: b"t" }],
            Illegal::NotPermitted(K::NewToken, ZeroRtt),
        ),
        (
            "CONNECTION_CLOSE of the application in Initial",
            Initial,
            vec![Frame::ApplicationClose { code: 0, reason: b"" }],
            Illegal::NotPermitted(K::ApplicationClose, Initial),
        ),
        (
            "DATAGRAM in Initial",
            Initial,
            vec![Frame::Datagram { data: b"d", length_present: true }],
            Illegal::NotPermitted(K::Datagram, Initial),
        ),
        ("IMMEDIATE_ACK in 0-RTT", ZeroRtt, vec![Frame::ImmediateAck], Illegal::NotPermitted(K::ImmediateAck, ZeroRtt)),
        ("two PINGs", OneRtt, vec![Frame::Ping, Frame::Ping], Illegal::SecondPing),
        ("PING beside STREAM", OneRtt, vec![data(A, 0), Frame::Ping], Illegal::NeedlessPing),
        ("PING beside CRYPTO", Initial, vec![crypto(), Frame::Ping, Frame::Padding(9)], Illegal::NeedlessPing),
        (
            "two PATH_CHALLENGEs",
            OneRtt,
            vec![Frame::PathChallenge([1; 8]), Frame::PathChallenge([2; 8])],
            Illegal::SecondPathChallenge,
        ),
        ("two MAX_DATA", OneRtt, vec![max_data(), max_data()], Illegal::Repeated(K::MaxData)),
        (
            "two HANDSHAKE_DONE",
            OneRtt,
            vec![Frame::HandshakeDone, Frame::HandshakeDone],
            Illegal::Repeated(K::HandshakeDone),
        ),
        ("two CONNECTION_CLOSE", OneRtt, vec![CLOSE, CLOSE], Illegal::Repeated(K::ConnectionClose)),
        ("PADDING in front", OneRtt, vec![Frame::Padding(1), data(A, 0)], Illegal::PaddingNotLast),
        ("PADDING between", Initial, vec![Frame::Padding(9), crypto()], Illegal::PaddingNotLast),
        ("MAX_DATA behind STREAM", OneRtt, vec![data(A, 0), max_data()], Illegal::Order(K::Stream, K::MaxData)),
        (
            "HANDSHAKE_DONE behind MAX_DATA",
            OneRtt,
            vec![max_data(), Frame::HandshakeDone],
            Illegal::Order(K::MaxData, K::HandshakeDone),
        ),
        (
            "NEW_CONNECTION_ID behind PATH_RESPONSE",
            OneRtt,
            vec![Frame::PathResponse([0; 8]), new_cid()],
            Illegal::Order(K::PathResponse, K::NewConnectionId),
        ),
        (
            "NEW_TOKEN behind CRYPTO",
            OneRtt,
            vec![crypto(), Frame::NewToken { token: b"t" }],
            Illegal::Order(K::Crypto, K::NewToken),
        ),
        //= reset-stream-at#4-4 type=test
        ("RESET_STREAM_AT in Initial", Initial, vec![reset_at(A, 9)], Illegal::NotPermitted(K::ResetStreamAt, Initial)),
        (
            "RESET_STREAM_AT in Handshake",
            Handshake,
            vec![reset_at(A, 9)],
            Illegal::NotPermitted(K::ResetStreamAt, Handshake),
        ),
        (
            "RESET_STREAM_AT behind STREAM of one stream",
            OneRtt,
            vec![data(A, 0), reset_at(A, 9)],
            Illegal::Order(K::Stream, K::ResetStreamAt),
        ),
        ("CRYPTO behind STREAM", OneRtt, vec![data(A, 0), crypto()], Illegal::Order(K::Stream, K::Crypto)),
        ("MAX_DATA behind PING", OneRtt, vec![Frame::Ping, max_data()], Illegal::Order(K::Ping, K::MaxData)),
        (
            "STOP_SENDING behind STREAM of that stream",
            OneRtt,
            vec![data(A, 0), stop(A)],
            Illegal::Order(K::Stream, K::StopSending),
        ),
        (
            "MAX_STREAM_DATA behind STREAM of that stream, another between",
            OneRtt,
            vec![data(A, 0), data(B, 0), credit(A)],
            Illegal::Order(K::Stream, K::MaxStreamData),
        ),
        (
            "STOP_SENDING behind MAX_STREAM_DATA of that stream",
            OneRtt,
            vec![credit(B), stop(B)],
            Illegal::Order(K::MaxStreamData, K::StopSending),
        ),
        ("STREAM that says nothing", OneRtt, vec![stream(A, 5, b"", true)], Illegal::EmptyStream),
        ("CRYPTO without data", Handshake, vec![Frame::Crypto { offset: 3, data: b"" }], Illegal::EmptyCrypto),
        ("STREAM beside CONNECTION_CLOSE", OneRtt, vec![CLOSE, data(A, 0)], Illegal::BesideClose),
    ]
}

/// Illegal packets that only bytes can show.
fn illegal_bytes() -> Vec<(&'static str, Level, Vec<u8>, Illegal)> {
    let malformed = |reason, section, frame_type| {
        Illegal::Malformed(
            PeerViolation::new(TransportCode::FRAME_ENCODING_ERROR, reason, section).in_frame(frame_type),
        )
    };
    let over_long =
        PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, "a frame type is longer than necessary", "rfc9000#12.4");
    let negative = malformed("an ACK names a negative packet number", "rfc9000#19.3.1", 2);
    let data = bytes(&[stream(A, 0, b"data", true)]);
    let one = Level::OneRtt;
    vec![
        ("two ACKs", one, [ack(), ack()].concat(), Illegal::SecondAck),
        ("ACK behind STREAM", one, [data, ack()].concat(), Illegal::Order(FrameKind::Stream, FrameKind::Ack)),
        (
            "ACK behind CONNECTION_CLOSE",
            one,
            [bytes(&[CLOSE]), ack()].concat(),
            Illegal::Order(FrameKind::ConnectionClose, FrameKind::Ack),
        ),
        ("ACK in 0-RTT", Level::ZeroRtt, ack(), Illegal::NotPermitted(FrameKind::Ack, Level::ZeroRtt)),
        ("ACK below zero", one, hex("02 05 00 00 06"), negative),
        ("long frame type", one, hex("4001"), Illegal::Malformed(over_long.in_frame(1))),
        ("unknown frame", one, hex("21"), malformed("a frame has an unknown type", "rfc9000#12.4", 0x21)),
        ("cut frame", one, hex("10"), malformed("a frame ends too early", "rfc9000#12.4", 0x10)),
        ("offset 0 spelled out", one, hex("0e 00 00 01 61"), Illegal::NotShortest(FrameKind::Stream)),
        ("long Length", one, hex("0a 00 4001 61"), Illegal::NotShortest(FrameKind::Stream)),
        ("long limit", one, hex("10 80000001"), Illegal::NotShortest(FrameKind::MaxData)),
        ("long ACK delay", one, hex("02 05 4000 00 05"), Illegal::NotShortest(FrameKind::Ack)),
        ("long gap in ACK", one, hex("02 05 00 01 00 4000 00"), Illegal::NotShortest(FrameKind::Ack)),
    ]
}

#[test]
fn every_illegal_packet_is_refused_by_its_own_rule() {
    for (what, level, frames, illegal) in illegal_frames() {
        assert_eq!(check_packet(level, &bytes(&frames)), Err(illegal), "{what}");
    }
    for (what, level, payload, illegal) in illegal_bytes() {
        assert_eq!(check_packet(level, &payload), Err(illegal), "{what}");
    }
    assert!(illegal_frames().len() + illegal_bytes().len() >= 40);
}

#[test]
fn a_frame_behind_an_open_end_is_seen_where_frames_are_listed() {
    for open in [stream(A, 0, b"x", false), Frame::Datagram { data: b"x", length_present: false }] {
        let mut rules = PacketRules::new(Level::OneRtt);
        assert_eq!(rules.observe(&open), Ok(()));
        assert_eq!(rules.observe(&Frame::Padding(1)), Err(Illegal::BehindOpenEnd));
    }
}

#[test]
fn an_ack_with_ecn_counts_is_measured_with_them() {
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    let ecn = EcnCounts { ect0: 100, ect1: 0, ce: 20_000 };
    write_ack(&mut w, [(0, 9)], 1 << 20, Some(ecn), 64).unwrap();
    assert_eq!(check_packet(Level::OneRtt, w.written()), Ok(FrameSet::of(&[FrameKind::Ack])));
}

/// A packet that fits together; `payload` decides the rest.
fn view<'a>(level: Level, payload: &'a [u8]) -> PacketView<'a> {
    PacketView {
        level,
        dcid: &[1, 2, 3],
        token_len: 0,
        header_len: 20,
        pn_len: 2,
        payload,
        packet_len: 20 + payload.len() + TAG_LEN,
        recorded: check_packet(level, payload).unwrap_or_default(),
    }
}

fn check(packets: &[PacketView<'_>], sender: Side) -> Result<FrameSet, Illegal> {
    let len = packets.iter().map(|p| p.packet_len).sum();
    check_datagram(packets, &DatagramRules { sender, len, len_max: 1472, amplification_limited: false })
}

/// A payload of CRYPTO and PADDING with which a packet of [`view`] has 1200 bytes.
fn full_crypto() -> Vec<u8> {
    let mut payload = bytes(&[Frame::Crypto { offset: 0, data: b"hello" }]);
    payload.resize(usize::from(MIN_DATAGRAM) - 20 - TAG_LEN, 0);
    payload
}

#[test]
fn legal_datagrams_pass() {
    let (crypto, ack) = (full_crypto(), ack());
    let data = bytes(&[stream(A, 0, b"data", false)]);
    let path = bytes(&[Frame::PathChallenge([1; 8]), Frame::Padding(1200)]);
    let client = |packets: &[PacketView<'_>]| check(packets, Side::Client).err();
    let server = |packets: &[PacketView<'_>]| check(packets, Side::Server).err();
    let token = PacketView { token_len: 9, ..view(Level::Initial, &crypto) };
    assert_eq!(client(&[token]), None);
    assert_eq!(client(&[view(Level::Initial, &crypto), view(Level::ZeroRtt, &data)]), None);
    assert_eq!(
        server(&[view(Level::Initial, &crypto), view(Level::Handshake, &ack), view(Level::OneRtt, &data)]),
        None
    );
    // An acknowledgement alone need not be large when a server sends it.
    assert_eq!(server(&[view(Level::Initial, &ack)]), None);
    assert_eq!(client(&[view(Level::OneRtt, &path)]), None);
    assert_eq!(server(&[view(Level::OneRtt, &bytes(&[Frame::HandshakeDone, Frame::Padding(1)]))]), None);
}

#[test]
fn a_small_path_frame_is_legal_under_the_amplification_limit() {
    let path = bytes(&[Frame::PathChallenge([1; 8])]);
    let packet = [view(Level::OneRtt, &path)];
    let rules =
        DatagramRules { sender: Side::Server, len: packet[0].packet_len, len_max: 1472, amplification_limited: true };
    assert!(check_datagram(&packet, &rules).is_ok());
}

#[test]
fn every_illegal_datagram_is_refused_by_its_own_rule() {
    use Level::{Handshake, Initial, OneRtt, ZeroRtt};
    use Side::{Client, Server};
    let (crypto, ack, data) = (full_crypto(), ack(), bytes(&[stream(A, 0, b"data", false)]));
    let path = |f| bytes(&[f]);
    let (challenge, response) = (path(Frame::PathChallenge([1; 8])), path(Frame::PathResponse([1; 8])));
    let (done, token) = (path(Frame::HandshakeDone), path(Frame::NewToken { token: b"t" }));
    let (ping, big) = (path(Frame::Ping), [&data[..], &[9; 1500]].concat());
    let small = bytes(&[Frame::Crypto { offset: 0, data: b"hello" }]);
    // PADDING behind a STREAM frame without Length becomes stream data; what was recorded tells.
    let hidden = bytes(&[stream(A, 0, b"x", false), Frame::MaxData { max: 1 }]);
    let hidden_record = FrameSet::of(&[FrameKind::Stream, FrameKind::MaxData]);
    let v = view;
    let table: Vec<(&str, Side, Vec<PacketView<'_>>, Illegal)> = vec![
        ("nothing", Client, vec![], Illegal::EmptyDatagram),
        ("Handshake in front", Client, vec![v(Handshake, &ack), v(Initial, &crypto)], Illegal::LevelOrder),
        ("0-RTT behind Handshake", Client, vec![v(Handshake, &ack), v(ZeroRtt, &data)], Illegal::LevelOrder),
        ("two Initials", Server, vec![v(Initial, &crypto), v(Initial, &ack)], Illegal::SecondOfLevel(Initial)),
        ("behind 1-RTT", Server, vec![v(OneRtt, &data), v(OneRtt, &data)], Illegal::BehindShort),
        ("Handshake behind 1-RTT", Server, vec![v(OneRtt, &data), v(Handshake, &ack)], Illegal::BehindShort),
        (
            "other destination",
            Server,
            vec![v(Initial, &crypto), PacketView { dcid: &[9], ..v(Handshake, &ack) }],
            Illegal::DestinationDiffers,
        ),
        ("small client Initial", Client, vec![v(Initial, &ack)], Illegal::SmallClientInitial),
        ("small server Initial", Server, vec![v(Initial, &small)], Illegal::SmallServerInitial),
        ("small PATH_CHALLENGE", Client, vec![v(OneRtt, &challenge)], Illegal::SmallPathFrame),
        ("small PATH_RESPONSE", Server, vec![v(OneRtt, &response)], Illegal::SmallPathFrame),
        ("0-RTT from a server", Server, vec![v(ZeroRtt, &data)], Illegal::EarlyFromServer),
        ("token of a server", Server, vec![PacketView { token_len: 1, ..v(Initial, &crypto) }], Illegal::Token),
        ("token in Handshake", Client, vec![PacketView { token_len: 1, ..v(Handshake, &ack) }], Illegal::Token),
        ("client is done", Client, vec![v(OneRtt, &done)], Illegal::FromClient(FrameKind::HandshakeDone)),
        ("client has a token", Client, vec![v(OneRtt, &token)], Illegal::FromClient(FrameKind::NewToken)),
        ("no number", Client, vec![PacketView { pn_len: 0, ..v(OneRtt, &data) }], Illegal::PacketNumberLength),
        ("5-byte number", Client, vec![PacketView { pn_len: 5, ..v(OneRtt, &data) }], Illegal::PacketNumberLength),
        ("no sample", Client, vec![v(OneRtt, &ping)], Illegal::NoSample),
        ("too large", Client, vec![v(OneRtt, &big)], Illegal::TooLarge),
        ("wrong packet length", Client, vec![PacketView { packet_len: 9, ..v(OneRtt, &data) }], Illegal::PacketLength),
        (
            "recorded but not there",
            Client,
            vec![PacketView { recorded: hidden_record, ..v(OneRtt, &hidden) }],
            Illegal::RecordDiffers,
        ),
        (
            "there but not recorded",
            Client,
            vec![PacketView { recorded: FrameSet::EMPTY, ..v(OneRtt, &data) }],
            Illegal::RecordDiffers,
        ),
        ("illegal packet inside", Client, vec![v(OneRtt, &[])], Illegal::EmptyPacket),
    ];
    for (what, sender, packets, illegal) in table {
        assert_eq!(check(&packets, sender), Err(illegal), "{what}");
    }
    let packet = [view(OneRtt, &data)];
    let rules = DatagramRules { sender: Client, len: 99, len_max: 1472, amplification_limited: false };
    assert_eq!(check_datagram(&packet, &rules), Err(Illegal::DatagramLength));
}

/// A packet of that many bytes: a frame, and PADDING.
fn padded(frame: &Frame<'_>, len: usize) -> Vec<u8> {
    let mut payload = bytes(core::slice::from_ref(frame));
    payload.resize(len - 20 - TAG_LEN, 0);
    payload
}

#[test]
fn a_datagram_is_just_large_enough_and_just_small_enough() {
    let crypto = Frame::Crypto { offset: 0, data: b"hello" };
    for (level, sender, frame, illegal) in [
        (Level::Initial, Side::Client, &crypto, Illegal::SmallClientInitial),
        (Level::Initial, Side::Server, &crypto, Illegal::SmallServerInitial),
        (Level::OneRtt, Side::Client, &Frame::PathChallenge([1; 8]), Illegal::SmallPathFrame),
        (Level::OneRtt, Side::Server, &Frame::PathResponse([1; 8]), Illegal::SmallPathFrame),
    ] {
        assert_eq!(check(&[view(level, &padded(frame, 1199))], sender), Err(illegal));
        assert!(check(&[view(level, &padded(frame, 1200))], sender).is_ok(), "{illegal:?}");
    }
    for (len, err) in [(1472, None), (1473, Some(Illegal::TooLarge))] {
        assert_eq!(check(&[view(Level::OneRtt, &padded(&Frame::Ping, len))], Side::Client).err(), err);
    }
}

#[test]
fn number_and_payload_have_the_four_bytes_in_front_of_the_sample() {
    for (pn_len, payload, illegal) in [
        (1, 3, None),
        (1, 2, Some(Illegal::NoSample)),
        (2, 2, None),
        (2, 1, Some(Illegal::NoSample)),
        (3, 1, None),
        (4, 1, None),
    ] {
        let payload = bytes(&[Frame::Ping, Frame::Padding(payload - 1)]);
        let packet = PacketView { pn_len, ..view(Level::OneRtt, &payload) };
        assert_eq!(check(&[packet], Side::Client).err(), illegal, "{pn_len} and {}", payload.len());
    }
}

#[test]
fn frames_stand_in_the_order_of_their_places() {
    let (id, ack) = (StreamId, ack());
    let Ok(ack) = parse(&mut Reader::new(&ack), Extensions::NONE) else { panic!("not an ACK") };
    let ack_frequency =
        Frame::AckFrequency { sequence: 0, eliciting_threshold: 1, max_ack_delay_us: 1, reordering_threshold: 1 };
    let places: Vec<Vec<Frame<'_>>> = vec![
        vec![Frame::HandshakeDone],
        vec![
            Frame::MaxData { max: 1 },
            Frame::DataBlocked { limit: 1 },
            Frame::MaxStreams { dir: Dir::Bi, max: 1 },
            Frame::MaxStreams { dir: Dir::Uni, max: 1 },
            Frame::StreamsBlocked { dir: Dir::Bi, limit: 1 },
            Frame::StreamsBlocked { dir: Dir::Uni, limit: 1 },
        ],
        vec![new_cid(), Frame::RetireConnectionId { sequence: 1 }, ack_frequency],
        vec![Frame::PathChallenge([1; 8]), Frame::PathResponse([1; 8])],
        vec![ack],
        vec![CLOSE, Frame::ApplicationClose { code: 1, reason: b"" }],
        vec![Frame::NewToken { token: b"t" }],
        vec![Frame::Crypto { offset: 0, data: b"c" }],
        vec![
            Frame::ResetStream { id: id(0), code: 1, final_size: 1 },
            Frame::ResetStreamAt { id: id(4), code: 1, final_size: 1, reliable_size: 1 },
            Frame::StopSending { id: id(8), code: 1 },
            Frame::MaxStreamData { id: id(12), max: 1 },
            Frame::StreamDataBlocked { id: id(16), limit: 1 },
            stream(id(20), 0, b"x", true),
            Frame::Datagram { data: b"d", length_present: true },
        ],
        vec![Frame::Ping],
        vec![Frame::Padding(1)],
    ];
    check_places(&places);
    // Those of one stream have an order of their own.
    check_places(&[
        vec![
            Frame::ResetStream { id: A, code: 1, final_size: 1 },
            Frame::ResetStreamAt { id: A, code: 1, final_size: 1, reliable_size: 1 },
            Frame::StopSending { id: A, code: 1 },
        ],
        vec![Frame::MaxStreamData { id: A, max: 1 }, Frame::StreamDataBlocked { id: A, limit: 1 }],
        vec![stream(A, 0, b"x", true)],
    ]);
    let all = places.into_iter().flatten();
    for frame in all.filter(|f| f.kind() != FrameKind::Padding) {
        assert_eq!((pair(&frame, &Frame::ImmediateAck), pair(&Frame::ImmediateAck, &frame)), (Ok(()), Ok(())));
    }
}

fn pair(first: &Frame<'_>, second: &Frame<'_>) -> Result<(), Illegal> {
    let mut rules = PacketRules::new(Level::OneRtt);
    rules.observe(first).and_then(|()| rules.observe(second))
}

/// Frames of one place may stand in any order, and those of different places only in that of the places.
fn check_places(places: &[Vec<Frame<'_>>]) {
    let all = || places.iter().enumerate().flat_map(|(place, frames)| frames.iter().map(move |f| (place, f)));
    for (place, first) in all() {
        for (other, second) in all().filter(|(_, second)| second.kind() != first.kind()) {
            let expected = match first.kind() {
                _ if place <= other => Ok(()),
                FrameKind::Padding => Err(Illegal::PaddingNotLast),
                kind => Err(Illegal::Order(kind, second.kind())),
            };
            assert_eq!(pair(first, second), expected, "{first:?} before {second:?}");
        }
    }
}

#[test]
fn the_order_of_the_64th_stream_is_checked_and_that_of_the_65th_is_not() {
    for (others, checked) in [(63, true), (64, false)] {
        let mut rules = PacketRules::new(Level::OneRtt);
        for i in 1..=others {
            assert_eq!(rules.observe(&Frame::MaxStreamData { id: StreamId(4 * i), max: 1 }), Ok(()));
        }
        assert_eq!(rules.observe(&stream(A, 0, b"x", true)), Ok(()));
        let late = rules.observe(&Frame::MaxStreamData { id: A, max: 1 });
        assert_eq!(late.is_err(), checked, "behind {others}");
    }
}

#[test]
fn more_streams_than_are_remembered_are_not_an_error() {
    let frames: Vec<_> =
        (0..STREAMS_CHECKED as u64 + 9).map(|i| Frame::MaxStreamData { id: StreamId(4 * i), max: 1 }).collect();
    assert!(check_packet(Level::OneRtt, &bytes(&frames)).is_ok());
}

#[test]
fn headers_are_read_back_and_lies_are_noticed() {
    let mut long = vec![0xc1, 0, 0, 0, 1, 2, 7, 7, 1, 8, 3, 9, 9, 9, 0x40, 40, 0, 5];
    let read = |level, header: &[u8], len| {
        PacketView::read(level, header, 2, &[1; 22], len, FrameSet::EMPTY)
            .map(|v| (v.dcid.to_vec(), v.token_len, v.header_len, v.pn_len))
    };
    let packet_len = 16 + 40;
    assert_eq!(read(Level::Initial, &long, packet_len), Some((vec![7, 7], 3, 18, 2)));
    assert_eq!(read(Level::Initial, &long, packet_len + 1), None, "the Length field lies");
    assert_eq!(read(Level::Initial, &long[..17], packet_len), None, "the packet number is shorter than said");
    assert_eq!(read(Level::OneRtt, &long, packet_len), None, "a long header is not that of a 1-RTT packet");
    long[0] = 0x41;
    assert_eq!(read(Level::Initial, &long, packet_len), None);
    assert_eq!(read(Level::OneRtt, &[0x42, 5, 6, 0, 0, 1], 44), Some((vec![5, 6], 0, 6, 3)));
    assert_eq!(read(Level::OneRtt, &[0x42, 5, 6, 0, 0], 44), None);
    assert_eq!(read(Level::OneRtt, &[], 44), None);
}
