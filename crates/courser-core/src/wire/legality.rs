//! What every packet and every datagram that we build has to fulfil.
//!
//! The checker looks at plaintext payloads, as an observer sees them, and knows nothing of the packetiser. Every debug
//! build of the library uses it on each datagram of a connection before it is sealed, wherever that runs. Each rule has
//! its own [`Illegal`] variant.
//!
//! Order of frames: HANDSHAKE_DONE; MAX_DATA, MAX_STREAMS and their BLOCKED; connection IDs; path frames; ACK;
//! CONNECTION_CLOSE; NEW_TOKEN; CRYPTO; stream frames; PING; PADDING. For one stream: RESET_STREAM, RESET_STREAM_AT and
//! STOP_SENDING, then MAX_STREAM_DATA and STREAM_DATA_BLOCKED, then STREAM. DATAGRAM stands among the stream frames, before or
//! behind them, because a packet ends with whichever frame has no Length field. IMMEDIATE_ACK may stand anywhere.

use crate::config::MIN_DATAGRAM;
use crate::crypto::TAG_LEN;
use crate::error::PeerViolation;
use crate::ids::{Level, Side, StreamId};
use crate::spans::{FrameKind, FrameSet};
use crate::wire::codec::Reader;
use crate::wire::frame::{Extensions, Frame, ack_size, parse, permitted};

/// Bytes of packet number and payload that header protection needs: the sample starts four bytes behind the start of
/// the packet number and is as long as the tag.
const SAMPLED: usize = 4;

/// Streams of one packet whose order is checked; a packet that names more has the later ones unchecked.
const STREAMS_CHECKED: usize = 64;

/// A rule that a packet or datagram breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illegal {
    /// A packet has no frame.
    EmptyPacket,
    /// A frame cannot be parsed.
    Malformed(PeerViolation),
    /// A frame is not permitted at this level.
    NotPermitted(FrameKind, Level),
    /// A number in a frame is not in its shortest form, or an offset of zero is spelled out.
    NotShortest(FrameKind),
    /// A packet has more than one ACK.
    SecondAck,
    /// A packet has more than one PING.
    SecondPing,
    /// A packet has a PING beside another ack-eliciting frame.
    NeedlessPing,
    /// A packet has more than one PATH_CHALLENGE.
    SecondPathChallenge,
    /// A packet has more than one frame of a kind that only makes sense once.
    Repeated(FrameKind),
    /// A frame stands behind PADDING.
    PaddingNotLast,
    /// A frame stands behind a STREAM or DATAGRAM frame without Length.
    BehindOpenEnd,
    /// A frame stands behind one that comes later in the order: (earlier, later).
    Order(FrameKind, FrameKind),
    /// A STREAM frame carries neither data nor the end of the stream, at an offset that says nothing.
    EmptyStream,
    /// A CRYPTO frame carries no data.
    EmptyCrypto,
    /// Something else than ACK and PADDING stands beside a CONNECTION_CLOSE.
    BesideClose,
    /// The frames that were recorded for the packet are not those in its payload.
    RecordDiffers,
    /// A datagram has no packet.
    EmptyDatagram,
    /// A packet's length is not that of its header, payload and tag.
    PacketLength,
    /// The packets' lengths do not add up to the datagram's.
    DatagramLength,
    /// A datagram is larger than the path or the peer takes.
    TooLarge,
    /// A packet is too short for the sample of header protection.
    NoSample,
    /// A packet number does not have 1 to 4 bytes.
    PacketNumberLength,
    /// Packets are not in the order of their levels.
    LevelOrder,
    /// Two packets of a datagram have the same level.
    SecondOfLevel(Level),
    /// A packet stands behind one with a short header.
    BehindShort,
    /// Packets of one datagram have different destination connection IDs.
    DestinationDiffers,
    /// A client's datagram with an Initial is smaller than 1200 bytes.
    SmallClientInitial,
    /// A server's datagram with an ack-eliciting Initial is smaller than 1200 bytes.
    SmallServerInitial,
    /// A datagram with PATH_CHALLENGE or PATH_RESPONSE is smaller than 1200 bytes.
    SmallPathFrame,
    /// A server sent a 0-RTT packet.
    EarlyFromServer,
    /// A server sent an Initial with a token, or another packet has one.
    Token,
    /// A client sent a frame that only servers send.
    FromClient(FrameKind),
}

/// The rules inside one packet, fed with its frames one by one.
#[derive(Clone, Debug)]
pub struct PacketRules {
    level: Level,
    /// Kinds so far.
    frames: FrameSet,
    /// Place in the order and kind of the latest ranked frame.
    latest: (u8, FrameKind),
    /// Whether the latest frame reaches to the end of the packet.
    open_ended: bool,
    /// The streams so far, each with the place of its latest frame.
    streams: [(StreamId, u8, FrameKind); STREAMS_CHECKED],
    /// How many of these are in use.
    used: usize,
}

/// Place of a frame in the order of a packet; `None` when it may stand anywhere.
const fn rank(kind: FrameKind) -> Option<u8> {
    Some(match kind {
        FrameKind::HandshakeDone => 1,
        FrameKind::MaxData
        | FrameKind::DataBlocked
        | FrameKind::MaxStreamsBidi
        | FrameKind::MaxStreamsUni
        | FrameKind::StreamsBlockedBidi
        | FrameKind::StreamsBlockedUni => 2,
        FrameKind::NewConnectionId | FrameKind::RetireConnectionId | FrameKind::AckFrequency => 3,
        FrameKind::PathChallenge | FrameKind::PathResponse => 4,
        FrameKind::Ack => 5,
        FrameKind::ConnectionClose | FrameKind::ApplicationClose => 6,
        FrameKind::NewToken => 7,
        FrameKind::Crypto => 8,
        FrameKind::ResetStream
        | FrameKind::ResetStreamAt
        | FrameKind::StopSending
        | FrameKind::MaxStreamData
        | FrameKind::StreamDataBlocked
        | FrameKind::Stream
        | FrameKind::Datagram => 9,
        FrameKind::Ping => 13,
        FrameKind::Padding => 14,
        FrameKind::ImmediateAck => return None,
    })
}

/// The stream that a frame is about and the place of the frame among those of that stream.
const fn stream_rank(frame: &Frame<'_>) -> Option<(StreamId, u8)> {
    match frame {
        Frame::ResetStream { id, .. } | Frame::ResetStreamAt { id, .. } | Frame::StopSending { id, .. } => {
            Some((*id, 9))
        }
        Frame::MaxStreamData { id, .. } | Frame::StreamDataBlocked { id, .. } => Some((*id, 10)),
        Frame::Stream { id, .. } => Some((*id, 11)),
        _ => None,
    }
}

/// Frames that say a value of the whole connection, or nothing but that they are there.
const ONCE: FrameSet = FrameSet::of(&[
    FrameKind::HandshakeDone,
    FrameKind::MaxData,
    FrameKind::DataBlocked,
    FrameKind::MaxStreamsBidi,
    FrameKind::MaxStreamsUni,
    FrameKind::StreamsBlockedBidi,
    FrameKind::StreamsBlockedUni,
    FrameKind::ConnectionClose,
    FrameKind::ApplicationClose,
    FrameKind::AckFrequency,
    FrameKind::ImmediateAck,
]);

/// What may stand beside a CONNECTION_CLOSE.
const BESIDE_CLOSE: FrameSet = FrameSet::NOT_ELICITING;

impl PacketRules {
    /// Rules for a packet of that level.
    #[must_use]
    pub const fn new(level: Level) -> Self {
        Self {
            level,
            frames: FrameSet::EMPTY,
            latest: (0, FrameKind::HandshakeDone),
            open_ended: false,
            streams: [(StreamId(0), 0, FrameKind::Stream); STREAMS_CHECKED],
            used: 0,
        }
    }

    /// Checks the next frame.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn observe(&mut self, frame: &Frame<'_>) -> Result<(), Illegal> {
        let kind = frame.kind();
        if self.open_ended {
            return Err(Illegal::BehindOpenEnd);
        }
        if !permitted(kind, self.level) {
            //= rfc9000#12.4-3, rfc9000#12.5-1, rfc9000#12.5-2, rfc9221#5-3
            return Err(Illegal::NotPermitted(kind, self.level));
        }
        if self.frames.contains(FrameKind::Padding) {
            return Err(Illegal::PaddingNotLast);
        }
        self.check_once(kind)?;
        match frame {
            Frame::Stream { data: [], fin: false, offset, .. } if *offset > 0 => return Err(Illegal::EmptyStream),
            Frame::Crypto { data: [], .. } => return Err(Illegal::EmptyCrypto),
            _ => {}
        }
        self.check_order(frame)?;
        self.frames.insert(kind);
        self.open_ended = frame.is_open_ended();
        Ok(())
    }

    /// Frames that a packet has at most one of.
    fn check_once(&self, kind: FrameKind) -> Result<(), Illegal> {
        if !self.frames.contains(kind) {
            return Ok(());
        }
        match kind {
            FrameKind::Ack => Err(Illegal::SecondAck),
            FrameKind::Ping => Err(Illegal::SecondPing),
            //= rfc9000#8.2.1-1
            FrameKind::PathChallenge => Err(Illegal::SecondPathChallenge),
            _ if ONCE.contains(kind) => Err(Illegal::Repeated(kind)),
            _ => Ok(()),
        }
    }

    fn check_order(&mut self, frame: &Frame<'_>) -> Result<(), Illegal> {
        let kind = frame.kind();
        if let Some(rank) = rank(kind) {
            if rank < self.latest.0 {
                return Err(Illegal::Order(self.latest.1, kind));
            }
            self.latest = (rank, kind);
        }
        let Some((id, rank)) = stream_rank(frame) else { return Ok(()) };
        let known = self.streams.iter_mut().take(self.used).find(|s| s.0 == id);
        match known {
            Some((_, latest, before)) if rank < *latest => return Err(Illegal::Order(*before, kind)),
            Some(stream) => *stream = (id, rank, kind),
            None => {
                if let Some(free) = self.streams.get_mut(self.used) {
                    *free = (id, rank, kind);
                    self.used += 1;
                }
            }
        }
        Ok(())
    }

    /// Checks the packet as a whole and gives its frames.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn finish(&self) -> Result<FrameSet, Illegal> {
        let frames = self.frames;
        if frames.is_empty() {
            //= rfc9000#12.4-1
            return Err(Illegal::EmptyPacket);
        }
        let mut others = frames;
        others.remove(FrameKind::Ping);
        if frames.contains(FrameKind::Ping) && others.is_ack_eliciting() {
            return Err(Illegal::NeedlessPing);
        }
        let closes = FrameSet::of(&[FrameKind::ConnectionClose, FrameKind::ApplicationClose]);
        if !frames.intersection(closes).is_empty() && !frames.is_subset(BESIDE_CLOSE) {
            return Err(Illegal::BesideClose);
        }
        Ok(frames)
    }
}

/// Checks the plaintext payload of one packet and gives its frames.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_packet(level: Level, payload: &[u8]) -> Result<FrameSet, Illegal> {
    let mut rules = PacketRules::new(level);
    let mut r = Reader::new(payload);
    while !r.is_empty() {
        let start = r.position();
        let frame = parse(&mut r, Extensions::ALL).map_err(Illegal::Malformed)?;
        if shortest(&frame) != r.position() - start {
            return Err(Illegal::NotShortest(frame.kind()));
        }
        rules.observe(&frame)?;
    }
    rules.finish()
}

/// Bytes that the frame takes when every number is in its shortest form.
fn shortest(frame: &Frame<'_>) -> usize {
    match frame {
        Frame::Ack(ack) => ack_size(ack.ranges, ack.delay, ack.ecn),
        other => other.size(),
    }
}

/// A packet of a datagram, as its builder describes it.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    /// Its level.
    pub level: Level,
    /// Destination connection ID.
    pub dcid: &'a [u8],
    /// Bytes of the Initial's token; 0 for other packets.
    pub token_len: usize,
    /// Bytes of the header, packet number included.
    pub header_len: usize,
    /// Bytes of the packet number.
    pub pn_len: usize,
    /// The plaintext frames.
    pub payload: &'a [u8],
    /// Bytes of the whole packet with its tag.
    pub packet_len: usize,
    /// The frames that were recorded for it, to be settled by its fate; PADDING need not be recorded.
    pub recorded: FrameSet,
}

impl<'a> PacketView<'a> {
    /// Reads a header back, by other code than that which wrote it. `dcid_len` is the length of the destination connection
    /// ID, which short headers do not tell. `None` when the header does not describe the packet.
    #[must_use]
    pub fn read(
        level: Level,
        header: &'a [u8],
        dcid_len: usize,
        payload: &'a [u8],
        packet_len: usize,
        recorded: FrameSet,
    ) -> Option<Self> {
        let mut r = Reader::new(header);
        let first = r.u8()?;
        if (first & 0x80 == 0) != (level == Level::OneRtt) {
            return None;
        }
        let mut token_len = 0;
        let dcid = if level == Level::OneRtt {
            r.bytes(dcid_len)?
        } else {
            r.u32()?;
            let len = r.u8()?;
            let dcid = r.bytes(len.into())?;
            let len = r.u8()?;
            r.bytes(len.into())?;
            if level == Level::Initial {
                token_len = r.prefixed()?.len();
            }
            let length = r.varint()?;
            let rest = packet_len.checked_sub(r.position())?;
            if length != rest as u64 {
                return None;
            }
            dcid
        };
        let (header_len, pn_len) = (header.len(), usize::from(first & 3) + 1);
        let view = Self { level, dcid, token_len, header_len, pn_len, payload, packet_len, recorded };
        (r.remaining() == pn_len).then_some(view)
    }
}

/// What is known of a datagram apart from its packets.
#[derive(Clone, Copy, Debug)]
pub struct DatagramRules {
    /// Who built it.
    pub sender: Side,
    /// Its bytes.
    pub len: usize,
    /// The most that path and peer take.
    pub len_max: usize,
    /// Whether the anti-amplification limit may have kept it small.
    pub amplification_limited: bool,
}

/// Checks a datagram and all packets in it, and gives all of its frames.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_datagram(packets: &[PacketView<'_>], rules: &DatagramRules) -> Result<FrameSet, Illegal> {
    let mut all = FrameSet::EMPTY;
    let first = packets.first().ok_or(Illegal::EmptyDatagram)?;
    let mut sum = 0usize;
    let mut before: Option<Level> = None;
    let mut eliciting_initial = false;
    for packet in packets {
        check_level(before, packet.level)?;
        before = Some(packet.level);
        if packet.dcid != first.dcid {
            //= rfc9000#12.2-3
            return Err(Illegal::DestinationDiffers);
        }
        let frames = check_view(packet, rules.sender)?;
        eliciting_initial |= packet.level == Level::Initial && frames.is_ack_eliciting();
        sum = sum.saturating_add(packet.packet_len);
        all = all.union(frames);
    }
    if sum != rules.len {
        return Err(Illegal::DatagramLength);
    }
    if rules.len > rules.len_max {
        return Err(Illegal::TooLarge);
    }
    let small = rules.len < usize::from(MIN_DATAGRAM);
    if small && rules.sender.is_client() && first.level == Level::Initial {
        //= rfc9000#14.1-1
        return Err(Illegal::SmallClientInitial);
    }
    if small && rules.sender.is_server() && eliciting_initial {
        //= rfc9000#14.1-2
        return Err(Illegal::SmallServerInitial);
    }
    let path = all.contains(FrameKind::PathChallenge) || all.contains(FrameKind::PathResponse);
    if small && path && !rules.amplification_limited {
        //= rfc9000#8.2.1-4, rfc9000#8.2.2-5
        return Err(Illegal::SmallPathFrame);
    }
    Ok(all)
}

/// Levels go up, and nothing comes behind 1-RTT.
fn check_level(before: Option<Level>, level: Level) -> Result<(), Illegal> {
    match before {
        Some(Level::OneRtt) => Err(Illegal::BehindShort),
        //= rfc9000#12.2-2
        Some(before) if before == level => Err(Illegal::SecondOfLevel(level)),
        Some(before) if before > level => Err(Illegal::LevelOrder),
        _ => Ok(()),
    }
}

/// One packet with what its builder says of it.
fn check_view(packet: &PacketView<'_>, sender: Side) -> Result<FrameSet, Illegal> {
    if packet.level == Level::ZeroRtt && sender.is_server() {
        return Err(Illegal::EarlyFromServer);
    }
    if packet.token_len > 0 && (packet.level != Level::Initial || sender.is_server()) {
        //= rfc9000#17.2.2-1
        return Err(Illegal::Token);
    }
    if !(1..=4).contains(&packet.pn_len) {
        return Err(Illegal::PacketNumberLength);
    }
    let frames = check_packet(packet.level, packet.payload)?;
    for kind in [FrameKind::HandshakeDone, FrameKind::NewToken] {
        //= rfc9000#19.7-3
        if sender.is_client() && frames.contains(kind) {
            return Err(Illegal::FromClient(kind));
        }
    }
    let mut unpadded = (frames, packet.recorded);
    unpadded.0.remove(FrameKind::Padding);
    unpadded.1.remove(FrameKind::Padding);
    if unpadded.0 != unpadded.1 {
        return Err(Illegal::RecordDiffers);
    }
    if packet.packet_len != packet.header_len.saturating_add(packet.payload.len()).saturating_add(TAG_LEN) {
        return Err(Illegal::PacketLength);
    }
    if packet.pn_len + packet.payload.len() < SAMPLED {
        return Err(Illegal::NoSample);
    }
    Ok(frames)
}

#[cfg(test)]
#[path = "legality_tests.rs"]
mod tests;
