//! The packetiser alone: real owners of frames, a plain buffer, a clock that is a number; no key, no socket.

mod order;
mod shared_fate;

use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::buf::pool::ChunkPool;
use crate::config::{Settings, TransportParams};
use crate::ids::{Cid, Ecn, ResetToken, Side, Space, StreamId};
use crate::path::{Challenges, Responses};
use crate::spans::Fate;
use crate::wire::frame::{Extensions, frames};
use crate::wire::legality;

const NOW: Instant = Instant::from_micros(1_000_000);

/// Everybody who may have something to say.
struct House {
    acks: AckSchedule,
    crypto: CryptoStream,
    done: Once,
    streams: Streams,
    control: ControlQueue,
    challenges: Challenges,
    responses: Responses,
    datagrams: DatagramQueue,
    tolerance: Tolerance,
    pool: ChunkPool,
    records: Vec<Record>,
}

fn plenty() -> TransportParams {
    TransportParams {
        max_data: 1 << 30,
        max_stream_data_bidi_local: 1 << 24,
        max_stream_data_bidi_remote: 1 << 24,
        max_stream_data_uni: 1 << 24,
        max_streams_bidi: 1000,
        max_streams_uni: 1000,
        ..TransportParams::default()
    }
}

impl House {
    fn new() -> Self {
        Self::with(&Settings::default(), &plenty())
    }

    fn with(settings: &Settings, peer: &TransportParams) -> Self {
        let mut streams = Streams::new(Side::Client, settings);
        streams.set_peer_params(peer);
        let mut datagrams = DatagramQueue::default();
        datagrams.set_peer_max(65_535);
        Self {
            acks: AckSchedule::new(Space::Data, Duration::from_millis(25)),
            crypto: CryptoStream::default(),
            done: Once::default(),
            streams,
            control: ControlQueue::default(),
            challenges: Challenges::default(),
            responses: Responses::default(),
            datagrams,
            tolerance: Tolerance::default(),
            pool: ChunkPool::new(64 << 20),
            records: Vec::new(),
        }
    }

    fn stream(&mut self, len: usize) -> StreamId {
        let id = self.streams.open(Dir::Uni).unwrap();
        if len > 0 {
            assert_eq!(self.streams.write(id, &vec![id.0 as u8; len], &mut self.pool).unwrap(), len);
        }
        id
    }

    fn plan() -> Plan<'static> {
        Plan {
            level: Level::OneRtt,
            archetype: Archetype::Normal,
            now: NOW,
            ack_delay_exponent: 3,
            must_elicit: false,
            immediate: false,
            last: true,
            close: None,
        }
    }

    /// Builds one packet with that much room for frames; returns the whole payload and the draft.
    fn build(&mut self, plan: &Plan<'_>, room: usize) -> (Vec<u8>, Draft) {
        let mut buffer = vec![0xee; room];
        let mut w = Writer::new(&mut buffer);
        self.records.clear();
        let app = matches!(plan.level, Level::ZeroRtt | Level::OneRtt).then_some(AppVoices {
            done: &mut self.done,
            streams: &mut self.streams,
            control: &mut self.control,
            challenges: &mut self.challenges,
            responses: &mut self.responses,
            datagrams: &mut self.datagrams,
            tolerance: &mut self.tolerance,
        });
        let mut voices = Voices { acks: &mut self.acks, crypto: Some(&mut self.crypto), app };
        let draft = build(&mut voices, plan, &mut w, &mut self.records);
        let mut payload = w.written().to_vec();
        if let Some(span) = &draft.tail {
            payload.extend_from_slice(self.streams.slice(span));
        }
        assert!(payload.len() <= room, "{} bytes in a room of {room}", payload.len());
        if !payload.is_empty() {
            assert_eq!(legality::check_packet(plan.level, &payload), Ok(draft.frames), "{payload:02x?}");
        }
        (payload, draft)
    }

    fn kinds(&mut self, plan: &Plan<'_>, room: usize) -> Vec<FrameKind> {
        let (payload, _) = self.build(plan, room);
        kinds_of(plan.level, &payload)
    }
}

/// An encoded NEW_CONNECTION_ID frame.
fn new_connection_id(sequence: u64) -> Vec<u8> {
    let mut bytes = [0; 64];
    let mut w = Writer::new(&mut bytes);
    let cid = Cid::new(&[sequence as u8; 8]).unwrap();
    let frame = Frame::NewConnectionId { sequence, retire_prior_to: 0, cid, token: ResetToken([1; 16]) };
    frame.encode(&mut w).unwrap();
    w.written().to_vec()
}

fn kinds_of(level: Level, payload: &[u8]) -> Vec<FrameKind> {
    frames(payload, level, Extensions::ALL).map(|f| f.unwrap().kind()).collect()
}

#[test]
fn window_updates_leave_before_stream_data() {
    let mut h = House::new();
    // The peer fills more than half of the connection's window and the application reads it.
    let peer = StreamId::new(Side::Server, Dir::Uni, 0);
    let half = usize::try_from(Settings::default().stream_window).unwrap() - 100;
    let data = vec![1; half];
    for (at, part) in data.chunks(1000).enumerate() {
        h.streams.on_stream(peer, 1000 * at as u64, part, false, &mut h.pool).unwrap();
    }
    assert_eq!(h.streams.accept(Dir::Uni), Some(peer));
    h.streams.read_with(peer, &mut h.pool, |b| b.len()).unwrap();
    h.stream(5000);
    let kinds = h.kinds(&House::plan(), 1200);
    assert_eq!(kinds, [FrameKind::MaxData, FrameKind::MaxStreamData, FrameKind::Stream]);
}

#[test]
fn an_ack_only_packet_has_nothing_else() {
    // OSSL-PKT-07
    let mut h = House::new();
    h.stream(5000);
    h.done.request();
    h.acks.on_packet(NOW, 0, true, Ecn::NotEct);
    let plan = Plan { archetype: Archetype::AckOnly, ..House::plan() };
    assert_eq!(h.kinds(&plan, 1200), [FrameKind::Ack]);
    // And without anything to acknowledge there is no packet (OSSL-PKT-10, OSSL-FIFD-09).
    assert_eq!(h.build(&plan, 1200).0, []);
}

#[test]
fn a_long_history_leaves_room_for_data() {
    // OSSL-PRI-06: thousands of ranges, and still most of the packet is data.
    let mut h = House::new();
    for pn in 0..5000 {
        h.acks.on_packet(NOW, 2 * pn, true, Ecn::NotEct);
    }
    h.stream(5000);
    let (payload, draft) = h.build(&House::plan(), 1200);
    assert_eq!(payload.len(), 1200);
    assert!(draft.tail.is_some_and(|t| t.len >= 1200 - ACK_ROOM_MAX as u32 - 16), "{:?}", draft.tail);
    let first = frames(&payload, Level::OneRtt, Extensions::NONE).next().unwrap().unwrap();
    assert!(matches!(first, Frame::Ack(ack) if ack.largest == 9998 && ack.ranges.count() > 100));
}

#[test]
fn packets_are_filled_to_the_last_byte() {
    // OSSL-TXP-12, OSSL-TXP-23, LS-STRM-45: bulk data leaves no byte unused, and its last frame has no Length.
    for room in 20..1500 {
        let mut h = House::new();
        h.stream(10_000);
        let (payload, draft) = h.build(&House::plan(), room);
        assert_eq!(payload.len(), room);
        assert!(draft.tail.is_some());
        assert_eq!(payload[0] & 0x02, 0, "no Length field");
    }
}

#[test]
fn a_queued_datagram_leaves_beside_bulk_data() {
    let mut h = House::new();
    h.stream(100_000);
    h.build(&House::plan(), 1200);
    h.datagrams.push(Bytes::from(vec![5; 300]), None, 1200).unwrap();
    let (payload, _) = h.build(&House::plan(), 1200);
    let kinds = kinds_of(Level::OneRtt, &payload);
    assert_eq!(kinds, [FrameKind::Stream, FrameKind::Datagram]);
    assert!(payload.len() > 1195, "{} bytes", payload.len());
    assert_eq!(h.datagrams.waiting(), 0);
}

#[test]
fn several_datagrams_share_a_packet() {
    let mut h = House::new();
    for n in 0..10 {
        h.datagrams.push(Bytes::from(vec![n; 100]), None, 1200).unwrap();
    }
    assert_eq!(h.kinds(&House::plan(), 520), [FrameKind::Datagram; 5]);
    assert_eq!(h.datagrams.waiting(), 5);
}

#[test]
fn crypto_data_is_split_to_the_room_and_repeated_in_other_pieces() {
    // OSSL-FIFM-10, LS-STRM-38
    let mut h = House::new();
    let plan = Plan { level: Level::Handshake, last: false, ..House::plan() };
    h.crypto.write(&(0..250u8).collect::<Vec<_>>(), &mut h.pool);
    let (first, _) = h.build(&plan, 120);
    let (second, _) = h.build(&plan, 200);
    assert_eq!(kinds_of(Level::Handshake, &first), [FrameKind::Crypto]);
    assert_eq!(kinds_of(Level::Handshake, &second), [FrameKind::Crypto]);
    assert_eq!(h.build(&plan, 200).0, []);
    h.crypto.settle(Fate::Lost, 0, 110, &mut h.pool);
    let (again, _) = h.build(&plan, 60);
    let Some(Ok(Frame::Crypto { offset: 0, data })) = frames(&again, Level::Handshake, Extensions::NONE).next() else {
        panic!("{again:02x?}")
    };
    assert!(data.iter().copied().eq(0..data.len() as u8) && data.len() < 110);
}

#[test]
fn a_reason_is_cut_to_the_room() {
    // OSSL-PRI-07
    let mut h = House::new();
    let reason = [b'x'; 5000];
    for room in [30, 60, 100, 1200] {
        let close = Close { code: 7, frame_type: None, reason: &reason };
        let plan = Plan { close: Some(close), archetype: Archetype::AckOnly, last: false, ..House::plan() };
        let (payload, _) = h.build(&plan, room);
        let Some(Ok(Frame::ApplicationClose { code: 7, reason })) =
            frames(&payload, Level::OneRtt, Extensions::NONE).next()
        else {
            panic!("{payload:02x?}")
        };
        assert!(reason.len() + 6 >= room, "{} of {room}", reason.len());
    }
}

#[test]
fn a_close_stands_behind_an_ack_and_beside_nothing_else() {
    let mut h = House::new();
    h.stream(5000);
    h.acks.on_packet(NOW, 0, true, Ecn::NotEct);
    let close = Close { code: 0x0a, frame_type: Some(6), reason: b"why" };
    let plan = Plan { close: Some(close), archetype: Archetype::AckOnly, last: false, ..House::plan() };
    assert_eq!(h.kinds(&plan, 1200), [FrameKind::Ack, FrameKind::ConnectionClose]);
}

#[test]
fn handshake_packets_carry_no_application_frames() {
    // OSSL-PKT-11: what belongs to 1-RTT never leaves in another level.
    let mut h = House::new();
    h.stream(5000);
    h.done.request();
    for level in [Level::Initial, Level::Handshake] {
        h.crypto.write(b"hello", &mut h.pool);
        let plan = Plan { level, last: false, ..House::plan() };
        let kinds = h.kinds(&plan, 1000);
        assert_eq!(kinds, [FrameKind::Crypto]);
    }
}

#[test]
fn control_items_that_are_lost_leave_again_byte_for_byte() {
    // OSSL-FIFM-02
    let mut h = House::new();
    let frame = new_connection_id(1);
    h.control.add(PRIORITY_CID, Space::Data, FrameKind::NewConnectionId, &frame).unwrap();
    for losses in 0..=3 {
        let (payload, _) = h.build(&House::plan(), 100);
        assert_eq!(payload, frame, "after {losses} losses");
        let [Record::Item(id)] = h.records[..] else { panic!("{:?}", h.records) };
        assert_eq!(h.build(&House::plan(), 100).0, []);
        if losses < 3 {
            h.control.mark_lost(id, None);
        }
    }
}

#[test]
fn ack_delays_are_told_in_the_units_of_the_exponent() {
    let mut h = House::new();
    h.acks.on_packet(NOW, 0, true, Ecn::NotEct);
    let plan = Plan { now: NOW + Duration::from_micros(8000), ..House::plan() };
    let (payload, _) = h.build(&plan, 100);
    let ack = frames(&payload, Level::OneRtt, Extensions::NONE).next();
    assert!(matches!(ack, Some(Ok(Frame::Ack(a))) if a.delay == 1000));
}

#[test]
fn an_ack_that_waited_for_keys_leaves_before_the_handshake_is_confirmed() {
    let mut h = House::new();
    h.acks.on_packet(NOW, 0, true, Ecn::NotEct);
    h.done.request();
    h.stream(10);
    let plan = Plan { now: NOW + Duration::from_secs(2), ..House::plan() };
    let (payload, _) = h.build(&plan, 1200);
    let ack = frames(&payload, Level::OneRtt, Extensions::NONE).next();
    assert!(matches!(ack, Some(Ok(Frame::Ack(a))) if a.delay == 250_000), "the wait is told");
    assert!(!kinds_of(Level::OneRtt, &payload).contains(&FrameKind::HandshakeDone));
    assert_eq!(h.kinds(&plan, 1200), [FrameKind::HandshakeDone]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_frame_needs_more_room_than_there_is(
        ops in prop::collection::vec((0u8..9, 1usize..3000), 1..40),
        rooms in prop::collection::vec(1usize..1500, 1..60),
        last: bool,
    ) {
        // LS-STRM-43, LS-STRM-45: whoever speaks and however little room there is, what is written is whole, legal and
        // within the room (`build` looks), nothing stands behind an open end, and all of it leaves in the end.
        let mut h = House::new();
        let mut streams = Vec::new();
        for (n, (op, len)) in ops.into_iter().enumerate() {
            match op {
                0 => streams.push(h.stream(len)),
                1 => {
                    if let Some(id) = streams.pop() {
                        h.streams.reset(id, len as u64, &mut h.pool).unwrap();
                    }
                }
                2 => {
                    if let Some(id) = streams.pop() {
                        h.streams.finish(id).unwrap();
                    }
                }
                3 => {
                    let _ = h.datagrams.push(Bytes::from(vec![5; len % 1100]), None, 1200);
                }
                4 => {
                    h.acks.on_packet(NOW, 3 * n as u64 * len as u64, true, Ecn::NotEct);
                }
                5 => {
                    h.crypto.write(&vec![6; len], &mut h.pool);
                }
                6 => {
                    h.responses.push([len as u8; 8]);
                }
                7 => {
                    let mut frame = [0; 256];
                    let mut w = Writer::new(&mut frame);
                    Frame::NewToken { token: &vec![9; 1 + len % 200] }.encode(&mut w).unwrap();
                    let _ = h.control.add(PRIORITY_TOKEN, Space::Data, FrameKind::NewToken, w.written());
                }
                _ => h.done.request(),
            }
        }
        for room in rooms {
            h.build(&Plan { last, ..House::plan() }, room);
        }
        for _ in 0..1000 {
            if h.build(&House::plan(), 1500).0.is_empty() {
                break;
            }
        }
        prop_assert!(!h.streams.has_data() && h.datagrams.waiting() == 0 && !h.done.is_due(), "something stays");
        prop_assert!(h.build(&House::plan(), 1500).0.is_empty());
    }
}
