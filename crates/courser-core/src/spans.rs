//! What a packet carried and what became of it: the vocabulary shared by packetiser, recovery and dispatch.

use crate::ids::{Level, PacketNumber, PathId, StreamId};
use crate::time::Instant;

/// What became of a sent packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The peer has it.
    Acked,
    /// Declared lost; a late acknowledgement may still come.
    Lost,
    /// Its keys are gone; nobody will ever know.
    Discarded,
}

/// A range of a stream's bytes inside one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamSpan {
    /// The stream.
    pub id: StreamId,
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes; zero for a frame that carries nothing but FIN.
    pub len: u32,
    /// Whether the frame ended the stream.
    pub fin: bool,
}

impl StreamSpan {
    /// Offset behind the last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

/// One fact that a packet carried and that must survive its loss (the seed's transmitted packet information).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// STREAM data.
    Stream(StreamSpan),
    /// CRYPTO data of the packet's own level.
    Crypto {
        /// The level, which decides the send state.
        level: Level,
        /// Offset of the first byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
    },
    /// RESET_STREAM of that stream.
    ResetStream(StreamId),
    /// RESET_STREAM_AT of that stream.
    ResetStreamAt {
        /// The stream.
        id: StreamId,
        /// Bytes that the frame promised to deliver.
        reliable_size: u64,
    },
    /// STOP_SENDING of that stream.
    StopSending(StreamId),
    /// MAX_STREAM_DATA of that stream.
    MaxStreamData(StreamId),
    /// STREAM_DATA_BLOCKED of that stream.
    StreamDataBlocked(StreamId),
    /// An item of the control frame queue.
    Item(u32),
    /// A DATAGRAM frame, by the number that the queue gave it.
    Datagram(u64),
    /// An ACK_FREQUENCY frame, by its sequence number.
    AckFrequency(u64),
    /// An ACK frame whose largest acknowledged number was this.
    Ack(PacketNumber),
}

/// A kind of frame, small enough to be a bit position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameKind {
    /// PADDING.
    Padding,
    /// PING.
    Ping,
    /// ACK with or without ECN counts.
    Ack,
    /// RESET_STREAM.
    ResetStream,
    /// STOP_SENDING.
    StopSending,
    /// CRYPTO.
    Crypto,
    /// NEW_TOKEN.
    NewToken,
    /// STREAM.
    Stream,
    /// MAX_DATA.
    MaxData,
    /// MAX_STREAM_DATA.
    MaxStreamData,
    /// MAX_STREAMS for two-way streams.
    MaxStreamsBidi,
    /// MAX_STREAMS for one-way streams.
    MaxStreamsUni,
    /// DATA_BLOCKED.
    DataBlocked,
    /// STREAM_DATA_BLOCKED.
    StreamDataBlocked,
    /// STREAMS_BLOCKED for two-way streams.
    StreamsBlockedBidi,
    /// STREAMS_BLOCKED for one-way streams.
    StreamsBlockedUni,
    /// NEW_CONNECTION_ID.
    NewConnectionId,
    /// RETIRE_CONNECTION_ID.
    RetireConnectionId,
    /// PATH_CHALLENGE.
    PathChallenge,
    /// PATH_RESPONSE.
    PathResponse,
    /// CONNECTION_CLOSE of the transport (0x1c).
    ConnectionClose,
    /// CONNECTION_CLOSE of the application (0x1d).
    ApplicationClose,
    /// HANDSHAKE_DONE.
    HandshakeDone,
    /// DATAGRAM (RFC 9221).
    Datagram,
    /// ACK_FREQUENCY (draft).
    AckFrequency,
    /// IMMEDIATE_ACK (draft).
    ImmediateAck,
    /// RESET_STREAM_AT (draft).
    ResetStreamAt,
}

/// A set of frame kinds: which frames a packet carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrameSet(u32);

impl FrameSet {
    /// No frame.
    pub const EMPTY: Self = Self(0);

    /// The set with these kinds.
    #[must_use]
    pub const fn of(kinds: &[FrameKind]) -> Self {
        let mut set = Self::EMPTY;
        let mut i = 0;
        while i < kinds.len() {
            set.0 |= 1 << kinds[i] as u8;
            i += 1;
        }
        set
    }

    /// Adds a kind.
    pub const fn insert(&mut self, kind: FrameKind) {
        self.0 |= 1 << kind as u8;
    }

    /// Takes a kind out.
    pub const fn remove(&mut self, kind: FrameKind) {
        self.0 &= !(1 << kind as u8);
    }

    /// Whether the kind is in the set.
    #[must_use]
    pub const fn contains(self, kind: FrameKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Whether there is no kind in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Kinds that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Kinds that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every kind of this set is in the other.
    #[must_use]
    pub const fn is_subset(self, of: Self) -> bool {
        self.0 & !of.0 == 0
    }

    /// Kinds that do not make a packet ack-eliciting (RFC 9000 section 13.2).
    pub const NOT_ELICITING: Self =
        Self::of(&[FrameKind::Padding, FrameKind::Ack, FrameKind::ConnectionClose, FrameKind::ApplicationClose]);

    /// Kinds that may be in a probing packet (RFC 9000 section 9.1).
    pub const PROBING: Self =
        Self::of(&[FrameKind::PathChallenge, FrameKind::PathResponse, FrameKind::NewConnectionId, FrameKind::Padding]);

    /// Whether a packet with these frames asks for an acknowledgement.
    #[must_use]
    pub const fn is_ack_eliciting(self) -> bool {
        !self.is_subset(Self::NOT_ELICITING)
    }

    /// Whether a packet with these frames counts as in flight: ack-eliciting, or padded.
    #[must_use]
    pub const fn is_in_flight(self) -> bool {
        self.is_ack_eliciting() || self.contains(FrameKind::Padding)
    }

    /// Whether a packet with these frames only probes a path.
    #[must_use]
    pub const fn is_probing(self) -> bool {
        !self.is_empty() && self.is_subset(Self::PROBING)
    }
}

/// What is remembered of a sent packet, apart from its [`Record`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// When it was handed to the network.
    pub time: Instant,
    /// Which frames it had; the kinds without a record of their own (MAX_DATA and the like) are regenerated from here.
    pub frames: FrameSet,
    /// Bytes on the wire, UDP payload only.
    pub size: u16,
    /// Its level.
    pub level: Level,
    /// The path that it left on.
    pub path: PathId,
    /// Whether it asked for an acknowledgement.
    pub ack_eliciting: bool,
    /// Whether it counts against the congestion window.
    pub in_flight: bool,
    /// Whether it probes the path MTU, so that its loss says nothing about congestion.
    pub mtu_probe: bool,
    /// Whether it left with an ECT mark.
    pub ect: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns N, C and P of RFC 9000 table 3, typed in once more: not ack-eliciting, not counted against the window, fit
    /// for probing. Extensions' frames have none.
    const CLASSES: &[(FrameKind, &str)] = &[
        (FrameKind::Padding, "NP"),
        (FrameKind::Ping, ""),
        (FrameKind::Ack, "NC"),
        (FrameKind::ResetStream, ""),
        (FrameKind::StopSending, ""),
        (FrameKind::Crypto, ""),
        (FrameKind::NewToken, ""),
        (FrameKind::Stream, ""),
        (FrameKind::MaxData, ""),
        (FrameKind::MaxStreamData, ""),
        (FrameKind::MaxStreamsBidi, ""),
        (FrameKind::MaxStreamsUni, ""),
        (FrameKind::DataBlocked, ""),
        (FrameKind::StreamDataBlocked, ""),
        (FrameKind::StreamsBlockedBidi, ""),
        (FrameKind::StreamsBlockedUni, ""),
        (FrameKind::NewConnectionId, "P"),
        (FrameKind::RetireConnectionId, ""),
        (FrameKind::PathChallenge, "P"),
        (FrameKind::PathResponse, "P"),
        (FrameKind::ConnectionClose, "N"),
        (FrameKind::ApplicationClose, "N"),
        (FrameKind::HandshakeDone, ""),
        (FrameKind::Datagram, ""),
        (FrameKind::AckFrequency, ""),
        (FrameKind::ImmediateAck, ""),
        (FrameKind::ResetStreamAt, ""),
    ];

    #[test]
    fn classes_follow_the_table_of_frames() {
        //= rfc9000#19.21-3 type=test
        // OSSL-TXP-29: a packet has a property only if all of its frames have it. In flight is what RFC 9002 section 2
        // says: ack-eliciting or padded, so a CONNECTION_CLOSE is not, although the table has no C there.
        for (a, first) in CLASSES {
            for (b, second) in CLASSES {
                let packet = FrameSet::of(&[*a, *b]);
                let all = |class| first.contains(class) && second.contains(class);
                assert_eq!(packet.is_ack_eliciting(), !all('N'), "{a:?} {b:?}");
                let padded = [a, b].contains(&&FrameKind::Padding);
                assert_eq!(packet.is_in_flight(), !all('N') || padded, "{a:?} {b:?}");
                assert_eq!(packet.is_probing(), all('P'), "{a:?} {b:?}");
            }
        }
        let both = FrameSet::of(&[FrameKind::Ack, FrameKind::Stream]);
        assert!(both.is_ack_eliciting() && both.is_in_flight());
        assert!(!FrameSet::EMPTY.is_probing() && !FrameSet::EMPTY.is_in_flight());
    }

    #[test]
    fn sets_add_and_remove() {
        let mut s = FrameSet::EMPTY;
        s.insert(FrameKind::ImmediateAck);
        assert!(s.contains(FrameKind::ImmediateAck) && !s.contains(FrameKind::Padding));
        s.remove(FrameKind::ImmediateAck);
        assert!(s.is_empty());
    }

    #[test]
    fn sizes() {
        assert!(size_of::<SentPacket>() <= 24, "{}", size_of::<SentPacket>());
        assert!(size_of::<Record>() <= 24, "{}", size_of::<Record>());
    }
}
