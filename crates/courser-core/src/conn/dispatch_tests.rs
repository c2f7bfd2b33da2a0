//! Each fate of each class of frame reaches the owner of the frame.

use bytes::Bytes;

use super::*;
use crate::config::{Settings, TransportParams};
use crate::control::ControlQueue;
use crate::ids::{Dir, Ecn, PacketNumber, PathId, Side, StreamId};
use crate::packetiser::{AppVoices, Archetype, PRIORITY_CID, PRIORITY_TOKEN, Plan, Voices, build};
use crate::path::{Challenges, Responses};
use crate::spans::{FrameSet, SentPacket};
use crate::stream::PartialReset;
use crate::wire::Writer;
use crate::wire::frame::{Extensions, Frame, frames};

const NOW: Instant = Instant::from_micros(1_000_000);

impl Connection {
    /// What is remembered of sent packets: control items, packets that ask for an acknowledgement, further records, bytes
    /// in flight.
    pub(crate) fn remembered(&self) -> [usize; 4] {
        let sent = self.recovery.sent_data();
        let in_flight = usize::try_from(self.path.congestion.in_flight()).unwrap();
        [self.control.len(), sent.eliciting(), sent.records_in_use(), in_flight]
    }

    /// Uses up packet numbers of the data space, before anything was sent there.
    pub(crate) fn begin_numbers_at(&mut self, next: PacketNumber) {
        self.recovery.start_at(Space::Data, next);
    }
}

/// The owners of everything that a 1-RTT packet can carry.
struct House {
    acks: Acks,
    streams: Streams,
    control: ControlQueue,
    datagrams: DatagramQueue,
    done: Once,
    tolerance: Tolerance,
    crypto: CryptoStream,
    challenges: Challenges,
    responses: Responses,
    stats: Counts,
    pool: ChunkPool,
    /// The packet that was built last.
    payload: Vec<u8>,
}

impl House {
    fn new() -> Self {
        let settings = Settings { max_streams_bidi: 4, max_streams_uni: 4, ..Settings::default() };
        let mut streams = Streams::new(Side::Client, &settings);
        streams.set_peer_params(&TransportParams {
            max_data: 5000,
            max_stream_data_bidi_remote: 1000,
            max_stream_data_uni: 1 << 20,
            max_streams_bidi: 1,
            max_streams_uni: 3,
            reset_stream_at: true,
            ..TransportParams::default()
        });
        let mut datagrams = DatagramQueue::default();
        datagrams.set_peer_max(65_535);
        Self {
            acks: Acks::new(core::time::Duration::from_millis(25)),
            streams,
            control: ControlQueue::default(),
            datagrams,
            done: Once::default(),
            tolerance: Tolerance::default(),
            crypto: CryptoStream::default(),
            challenges: Challenges::default(),
            responses: Responses::default(),
            stats: Counts::default(),
            pool: ChunkPool::new(8 << 20),
            payload: Vec::new(),
        }
    }

    fn build(&mut self) -> (FrameSet, Vec<Record>) {
        let (mut buffer, mut records) = ([0; 1200], Vec::new());
        let mut w = Writer::new(&mut buffer);
        let plan = Plan {
            level: Level::OneRtt,
            archetype: Archetype::Normal,
            now: NOW,
            ack_delay_exponent: 3,
            must_elicit: false,
            immediate: false,
            last: true,
            close: None,
        };
        let app = AppVoices {
            done: &mut self.done,
            streams: &mut self.streams,
            control: &mut self.control,
            challenges: &mut self.challenges,
            responses: &mut self.responses,
            datagrams: &mut self.datagrams,
            tolerance: &mut self.tolerance,
        };
        let mut voices = Voices { acks: &mut self.acks[2], crypto: Some(&mut self.crypto), app: Some(app) };
        let draft = build(&mut voices, &plan, &mut w, &mut records);
        self.payload = w.written().to_vec();
        if let Some(span) = &draft.tail {
            self.payload.extend_from_slice(self.streams.slice(span));
        }
        (draft.frames, records)
    }

    /// Frames of that kind in the packet that was built last: what they name, the value that may grow, and all else.
    fn said(&self, kind: FrameKind) -> Vec<(Option<StreamId>, u64, String)> {
        if self.payload.is_empty() {
            return Vec::new();
        }
        let all = frames(&self.payload, Level::OneRtt, Extensions::ALL).map(Result::unwrap);
        all.filter(|f| f.kind() == kind)
            .map(|f| match f {
                Frame::MaxData { max } | Frame::MaxStreams { max, .. } => (None, max, String::new()),
                Frame::MaxStreamData { id, max } => (Some(id), max, String::new()),
                // Whether a Length field is needed depends on the rest of the packet.
                Frame::Stream { id, offset, data, fin, .. } => (Some(id), offset, format!("{data:?} {fin}")),
                other => (None, 0, format!("{other:?}")),
            })
            .collect()
    }

    fn settle(&mut self, fate: Fate, frames: FrameSet, records: &[Record]) {
        let packet = SentPacket {
            time: NOW,
            frames,
            size: 1000,
            level: Level::OneRtt,
            path: PathId(0),
            ack_eliciting: true,
            in_flight: true,
            mtu_probe: false,
            ect: false,
        };
        let settled =
            Settled { space: Space::Data, pn: 7, packet: &packet, records, spurious: false, overtaken: false };
        let mut owners = self.owners();
        owners.settle(fate, &settled);
        owners.tell_arrived();
    }

    fn owners(&mut self) -> Owners<'_> {
        Owners {
            acks: &mut self.acks,
            streams: &mut self.streams,
            control: &mut self.control,
            datagrams: &mut self.datagrams,
            done: &mut self.done,
            tolerance: &mut self.tolerance,
            handshake: None,
            late_crypto: Some(&mut self.crypto),
            stats: &mut self.stats,
            arrived: None,
            pool: &mut self.pool,
        }
    }
}

/// What follows when a packet with the frame was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The same again, byte for byte or range for range.
    Same,
    /// The newest value, if another one holds by then.
    Newest,
    /// Nothing.
    Never,
}

/// A way to make the owners want to send a frame of that kind, and what happens when it is lost.
type Wish = (FrameKind, Rule, fn(&mut House));

fn uni(h: &mut House) -> StreamId {
    let id = h.streams.open(Dir::Uni).unwrap();
    h.streams.write(id, b"data", &mut h.pool).unwrap();
    id
}

/// The peer fills that stream and the application reads it: more than half of both windows is used up.
fn read_much(h: &mut House) {
    let len = usize::try_from(Settings::default().conn_window / 2).unwrap();
    read_at(h, 0, 0, len / 2);
    read_at(h, 1, 0, len / 2);
}

/// The peer sends that much of one of its streams, and the application reads it.
fn read_at(h: &mut House, index: u64, offset: u64, len: usize) {
    let peer = StreamId::new(Side::Server, Dir::Uni, index);
    h.streams.on_stream(peer, offset, &vec![1; len], false, &mut h.pool).unwrap();
    while h.streams.accept(Dir::Uni).is_some() {}
    while h.streams.read_with(peer, &mut h.pool, |b| b.len()).is_ok_and(|n| n != crate::stream::Read::Blocked) {}
}

/// The peer opens a stream, and both ends are done with it.
fn close_one(h: &mut House, dir: Dir, index: u64) {
    let peer = StreamId::new(Side::Server, dir, index);
    h.streams.on_stream(peer, 0, b"", true, &mut h.pool).unwrap();
    while h.streams.accept(dir).is_some() {}
    assert_eq!(h.streams.read_with(peer, &mut h.pool, |b| b.len()), Ok(crate::stream::Read::Finished));
    if dir == Dir::Bi {
        h.streams.reset(peer, 0, &mut h.pool).unwrap();
        h.streams.on_reset_fate(peer, Fate::Acked, &mut h.pool);
    }
}

fn item(h: &mut House, priority: u8, kind: FrameKind, frame: &Frame<'_>) {
    let mut bytes = [0; 200];
    let mut w = Writer::new(&mut bytes);
    frame.encode(&mut w).unwrap();
    h.control.add(priority, Space::Data, kind, w.written()).unwrap();
}

const WISHES: &[Wish] = &[
    (FrameKind::HandshakeDone, Rule::Same, |h| h.done.request()),
    (FrameKind::AckFrequency, Rule::Same, |h| h.tolerance = crate::ack::tolerance::asked()),
    (FrameKind::NewConnectionId, Rule::Same, |h| {
        let (cid, token) = (crate::ids::Cid::new(&[8; 8]).unwrap(), crate::ids::ResetToken([9; 16]));
        let frame = Frame::NewConnectionId { sequence: 3, retire_prior_to: 1, cid, token };
        item(h, PRIORITY_CID, FrameKind::NewConnectionId, &frame);
    }),
    (FrameKind::RetireConnectionId, Rule::Same, |h| {
        item(h, PRIORITY_CID, FrameKind::RetireConnectionId, &Frame::RetireConnectionId { sequence: 5 });
    }),
    (FrameKind::NewToken, Rule::Same, |h| {
        item(h, PRIORITY_TOKEN, FrameKind::NewToken, &Frame::NewToken { token: &[7; 100] });
    }),
    (FrameKind::Crypto, Rule::Same, |h| {
        h.crypto.write(b"a ticket", &mut h.pool);
    }),
    (FrameKind::Stream, Rule::Same, |h| {
        uni(h);
    }),
    (FrameKind::ResetStream, Rule::Same, |h| {
        let id = uni(h);
        h.build();
        h.streams.reset(id, 1, &mut h.pool).unwrap();
    }),
    (FrameKind::ResetStreamAt, Rule::Same, |h| {
        let id = uni(h);
        h.build();
        h.streams.reset_at(id, PartialReset { code: 1, reliable_size: 2 }, &mut h.pool).unwrap();
    }),
    (FrameKind::StopSending, Rule::Same, |h| {
        let peer = StreamId::new(Side::Server, Dir::Uni, 0);
        h.streams.on_stream(peer, 0, b"x", false, &mut h.pool).unwrap();
        h.streams.stop_sending(peer, 1, &mut h.pool).unwrap();
    }),
    (FrameKind::MaxData, Rule::Newest, read_much),
    (FrameKind::MaxStreamData, Rule::Newest, read_much),
    (FrameKind::MaxStreamsBidi, Rule::Newest, |h| (0..3).for_each(|i| close_one(h, Dir::Bi, i))),
    (FrameKind::MaxStreamsUni, Rule::Newest, |h| (0..3).for_each(|i| close_one(h, Dir::Uni, i))),
    (FrameKind::StreamDataBlocked, Rule::Same, |h| {
        let id = h.streams.open(Dir::Bi).unwrap();
        h.streams.write(id, &[1; 2000], &mut h.pool).unwrap();
        h.build();
    }),
    (FrameKind::DataBlocked, Rule::Same, |h| {
        let id = h.streams.open(Dir::Uni).unwrap();
        h.streams.write(id, &[1; 9000], &mut h.pool).unwrap();
        (0..5).for_each(|_| drop(h.build()));
    }),
    (FrameKind::StreamsBlockedBidi, Rule::Same, |h| while h.streams.open(Dir::Bi).is_some() {}),
    (FrameKind::StreamsBlockedUni, Rule::Same, |h| while h.streams.open(Dir::Uni).is_some() {}),
    (FrameKind::Datagram, Rule::Never, |h| {
        h.datagrams.push(Bytes::from_static(b"datagram"), None, 1200).unwrap();
    }),
    (FrameKind::PathChallenge, Rule::Never, |h| {
        h.challenges.start([1; 8], core::time::Duration::ZERO, Instant::FAR_FUTURE)
    }),
    (FrameKind::PathResponse, Rule::Never, |h| h.responses.push([2; 8])),
    (FrameKind::Ack, Rule::Never, |h| {
        h.acks[2].on_packet(NOW, 3, true, Ecn::NotEct);
    }),
];

/// More is read and closed while the first frame travels: other values hold then.
fn go_on(h: &mut House) {
    read_at(h, 0, Settings::default().conn_window / 4, 1000);
    close_one(h, Dir::Bi, 3);
    close_one(h, Dir::Uni, 3);
}

#[test]
fn each_fate_of_each_class_of_frame_reaches_its_owner() {
    // OSSL-FIFD-02, OSSL-FIFM-08, OSSL-FIFM-09: what arrived never leaves again; what was lost follows its rule. What was
    // discarded with its keys leaves again where it may have been in 0-RTT packets that the server rejected.
    const ENDS_WITH_ITS_KEYS: FrameSet = FrameSet::of(&[
        FrameKind::HandshakeDone,
        FrameKind::AckFrequency,
        FrameKind::NewConnectionId,
        FrameKind::RetireConnectionId,
        FrameKind::NewToken,
        FrameKind::Crypto,
    ]);
    for (kind, rule, wish) in WISHES {
        for fate in [Fate::Acked, Fate::Lost, Fate::Discarded] {
            let mut h = House::new();
            wish(&mut h);
            let (frames, records) = h.build();
            assert!(frames.contains(*kind), "{kind:?} is sent: {frames:?}");
            let first = h.said(*kind);
            assert!(!h.build().0.contains(*kind), "{kind:?} waits for its fate");
            h.settle(fate, frames, &records);
            let again = h.build().0.contains(*kind);
            let expected = match fate {
                Fate::Acked => false,
                Fate::Lost => *rule != Rule::Never,
                Fate::Discarded => *rule != Rule::Never && !ENDS_WITH_ITS_KEYS.contains(*kind),
            };
            assert_eq!(again, expected, "{kind:?}, {fate:?}");
            if again {
                assert_eq!(h.said(*kind), first, "{kind:?}, {fate:?}");
                assert!(!h.build().0.contains(*kind), "{kind:?} leaves once for each loss");
            }
        }
    }
}

#[test]
fn a_lost_limit_is_told_with_its_newest_value_alone() {
    // OSSL-FIFM-03, OSSL-FIFM-15, OSSL-TXPIM-04
    for (kind, rule, wish) in WISHES.iter().filter(|w| w.1 == Rule::Newest) {
        let mut h = House::new();
        wish(&mut h);
        let (frames, records) = h.build();
        let first = h.said(*kind);
        go_on(&mut h);
        h.settle(Fate::Lost, frames, &records);
        assert!(h.build().0.contains(*kind));
        let again = h.said(*kind);
        let newer = again.iter().any(|(id, value, _)| first.iter().any(|f| f.0 == *id && f.1 < *value));
        let older = again.iter().any(|(id, value, _)| first.iter().any(|f| f.0 == *id && f.1 > *value));
        assert!(newer && !older, "{kind:?} {rule:?}: {first:?}, then {again:?}");
    }
}

#[test]
fn the_table_has_each_kind_that_a_packet_carries() {
    // The rest is made by the packet's plan, never sent by us, or ends the connection.
    let mut kinds = FrameSet::of(&[
        FrameKind::Padding,
        FrameKind::Ping,
        FrameKind::ConnectionClose,
        FrameKind::ApplicationClose,
        FrameKind::ImmediateAck,
    ]);
    for (kind, ..) in WISHES {
        assert!(!kinds.contains(*kind), "{kind:?} stands there twice");
        kinds.insert(*kind);
    }
    let all = FrameKind::ResetStreamAt as usize + 1;
    assert_eq!(WISHES.len() + 5, all);
}

#[test]
fn an_acknowledged_ack_ends_the_report_of_what_it_reported() {
    // OSSL-TXPIM-04, OSSL-TXPIM-05: through the records of packets; two of them, so that late packets are still taken.
    let mut h = House::new();
    let mut reported = Vec::new();
    for pn in [0, 2, 4, 6, 8] {
        h.acks[2].on_packet(NOW, pn, true, Ecn::NotEct);
        let (frames, records) = h.build();
        assert_eq!(records, [Record::Ack(pn)]);
        reported.push(h.acks[2].history().ranges().len());
        h.settle(Fate::Acked, frames, &records);
    }
    assert_eq!(reported, [1, 2, 2, 2, 2], "instead of one more each time");
}

#[test]
fn a_probe_repeats_credit_and_the_end_of_the_handshake_too() {
    let mut house = House::new();
    house.done.request();
    house.streams.on_frame_fate(FrameKind::MaxData, Fate::Lost);
    let (frames, records) = house.build();
    for kind in [FrameKind::HandshakeDone, FrameKind::MaxData] {
        assert!(frames.contains(kind), "{kind:?}");
    }
    assert!(house.build().0.is_empty(), "once is enough while nothing happens");
    house.owners().repeat(Space::Data, frames, &records);
    let (again, _) = house.build();
    for kind in [FrameKind::HandshakeDone, FrameKind::MaxData] {
        assert!(again.contains(kind), "{kind:?}");
    }
}

#[test]
fn acknowledged_frames_behind_each_other_are_told_as_one_and_before_anything_else() {
    let mut house = House::new();
    let id = StreamId::new(Side::Client, Dir::Bi, 0);
    let span = |offset, len, fin| StreamSpan { id, offset, len, fin };
    let mut owners = house.owners();
    // From the newest to the oldest, as recovery tells them.
    for (offset, fin) in [(2400, true), (1200, false), (0, false)] {
        owners.settle_record(Fate::Acked, Space::Data, &Record::Stream(span(offset, 1200, fin)));
    }
    assert_eq!(owners.arrived, Some(span(0, 3600, true)));
    // A gap, another stream, or an end in between begins anew.
    owners.settle_record(Fate::Acked, Space::Data, &Record::Stream(span(9000, 10, false)));
    assert_eq!(owners.arrived, Some(span(9000, 10, false)));
    owners.settle_record(Fate::Acked, Space::Data, &Record::Stream(span(8990, 10, true)));
    assert_eq!(owners.arrived, Some(span(8990, 10, true)));
    let other = StreamSpan { id: StreamId::new(Side::Client, Dir::Bi, 1), ..span(8980, 10, false) };
    owners.settle_record(Fate::Acked, Space::Data, &Record::Stream(other));
    assert_eq!(owners.arrived, Some(other));
    // An acknowledged ACK touches no stream; a loss may.
    owners.settle_record(Fate::Acked, Space::Data, &Record::Ack(7));
    assert_eq!(owners.arrived, Some(other));
    owners.settle_record(Fate::Lost, Space::Data, &Record::Stream(span(0, 10, false)));
    assert_eq!(owners.arrived, None);
}
