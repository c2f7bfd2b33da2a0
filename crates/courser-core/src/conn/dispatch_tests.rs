//! Each fate of each class of frame reaches the owner of the frame.

use bytes::Bytes;

use super::*;
use crate::config::{Settings, TransportParams};
use crate::control::ControlQueue;
use crate::ids::{Dir, PathId, Side, StreamId};
use crate::packetiser::{AppVoices, Archetype, PRIORITY_CID, Plan, Voices, build};
use crate::path::{Challenges, Responses};
use crate::spans::{FrameSet, SentPacket};
use crate::wire::Writer;

const NOW: Instant = Instant::from_micros(1_000_000);

/// The owners of everything that a 1-RTT packet can carry.
struct House {
    acks: [AckSchedule; 3],
    streams: Streams,
    control: ControlQueue,
    datagrams: DatagramQueue,
    done: Once,
    crypto: CryptoStream,
    challenges: Challenges,
    responses: Responses,
    stats: ConnStats,
    pool: ChunkPool,
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
            ..TransportParams::default()
        });
        let mut datagrams = DatagramQueue::default();
        datagrams.set_peer_max(65_535);
        Self {
            acks: Space::ALL.map(|space| AckSchedule::new(space, core::time::Duration::from_millis(25))),
            streams,
            control: ControlQueue::default(),
            datagrams,
            done: Once::default(),
            crypto: CryptoStream::default(),
            challenges: Challenges::default(),
            responses: Responses::default(),
            stats: ConnStats::default(),
            pool: ChunkPool::new(8 << 20),
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
        };
        let mut voices = Voices { acks: &mut self.acks[2], crypto: Some(&mut self.crypto), app: Some(app) };
        let draft = build(&mut voices, &plan, &mut w, &mut records);
        (draft.frames, records)
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
        let mut owners = Owners {
            acks: &mut self.acks,
            streams: &mut self.streams,
            control: &mut self.control,
            datagrams: &mut self.datagrams,
            done: &mut self.done,
            handshake: None,
            late_crypto: Some(&mut self.crypto),
            stats: &mut self.stats,
            pool: &mut self.pool,
        };
        owners.settle(fate, &settled);
    }
}

/// A way to make the owners want to send a frame of that kind.
type Wish = (FrameKind, fn(&mut House));

fn uni(h: &mut House) -> StreamId {
    let id = h.streams.open(Dir::Uni).unwrap();
    h.streams.write(id, b"data", &mut h.pool).unwrap();
    id
}

/// The peer fills that stream and the application reads it: more than half of both windows is used up.
fn read_much(h: &mut House) {
    let peer = StreamId::new(Side::Server, Dir::Uni, 0);
    let len = usize::try_from(Settings::default().stream_window).unwrap() - 100;
    h.streams.on_stream(NOW, peer, 0, &vec![1; len], false, &mut h.pool).unwrap();
    assert_eq!(h.streams.accept(Dir::Uni), Some(peer));
    while h.streams.read_with(peer, &mut h.pool, |b| b.len()).is_ok_and(|n| n != crate::stream::Read::Blocked) {}
}

const WISHES: &[Wish] = &[
    (FrameKind::HandshakeDone, |h| h.done.request()),
    (FrameKind::RetireConnectionId, |h| {
        h.control.add(PRIORITY_CID, Space::Data, FrameKind::RetireConnectionId, &[0x19, 5]).unwrap();
    }),
    (FrameKind::Crypto, |h| {
        h.crypto.write(b"a ticket", &mut h.pool);
    }),
    (FrameKind::Stream, |h| {
        uni(h);
    }),
    (FrameKind::ResetStream, |h| {
        let id = uni(h);
        h.build();
        h.streams.reset(id, 1, &mut h.pool).unwrap();
    }),
    (FrameKind::StopSending, |h| {
        let peer = StreamId::new(Side::Server, Dir::Uni, 0);
        h.streams.on_stream(NOW, peer, 0, b"x", false, &mut h.pool).unwrap();
        h.streams.stop_sending(peer, 1, &mut h.pool).unwrap();
    }),
    (FrameKind::MaxStreamData, read_much),
    (FrameKind::StreamDataBlocked, |h| {
        let id = h.streams.open(Dir::Bi).unwrap();
        h.streams.write(id, &[1; 2000], &mut h.pool).unwrap();
        h.build();
    }),
    (FrameKind::DataBlocked, |h| {
        let id = h.streams.open(Dir::Uni).unwrap();
        h.streams.write(id, &[1; 9000], &mut h.pool).unwrap();
        (0..5).for_each(|_| drop(h.build()));
    }),
    (FrameKind::StreamsBlockedBidi, |h| while h.streams.open(Dir::Bi).is_some() {}),
    (FrameKind::StreamsBlockedUni, |h| while h.streams.open(Dir::Uni).is_some() {}),
    (FrameKind::Datagram, |h| {
        h.datagrams.push(Bytes::from_static(b"datagram"), 1200).unwrap();
    }),
];

#[test]
fn each_fate_of_each_class_of_frame_reaches_its_owner() {
    // OSSL-FIFD-02, OSSL-FIFM-09: what arrived never leaves again; what was lost does, apart from a DATAGRAM. What was
    // discarded with its keys leaves again where it may have been in 0-RTT packets that the server rejected.
    const ENDS_WITH_ITS_KEYS: [FrameKind; 4] =
        [FrameKind::HandshakeDone, FrameKind::RetireConnectionId, FrameKind::Crypto, FrameKind::Datagram];
    for (kind, wish) in WISHES {
        for fate in [Fate::Acked, Fate::Lost, Fate::Discarded] {
            let mut h = House::new();
            wish(&mut h);
            let (frames, records) = h.build();
            assert!(frames.contains(*kind), "{kind:?} is sent: {frames:?}");
            assert!(!h.build().0.contains(*kind), "{kind:?} waits for its fate");
            h.settle(fate, frames, &records);
            let again = h.build().0.contains(*kind);
            let expected = match fate {
                Fate::Acked => false,
                Fate::Lost => *kind != FrameKind::Datagram,
                Fate::Discarded => !ENDS_WITH_ITS_KEYS.contains(kind),
            };
            assert_eq!(again, expected, "{kind:?}, {fate:?}");
        }
    }
}
