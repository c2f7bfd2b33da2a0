//! A client that has not sent its whole ClientHello (seed: the mini connection).
//!
//! Between the first Initial of a client and the last byte of its ClientHello, which may come in several datagrams and in
//! any order, there is neither a TLS session nor a connection: only addresses, connection IDs, what came of the
//! ClientHello, which packets that were, how much was received and sent, and a few 0-RTT packets. It acknowledges, so that
//! the client goes on; it never sends anything that it would have to send again, so that it needs no loss recovery. Keys
//! are made when they are needed, see [`InitialKeys`]. With the last byte of the ClientHello everything that it knows
//! passes to a connection; until then each limit is that of a stranger who has proven nothing: packets sent, bytes, time.

use core::net::{IpAddr, SocketAddr};

use super::hello::{Hello, NotTaken};
use super::initial::{self, Address, InitialKeys};
use super::{Env, Meta};
use crate::ack::EcnCounts;
use crate::config::Settings;
use crate::conn::{Begun, EarlyPacket, Traffic};
use crate::crypto::TAG_LEN;
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Cid, ConnKey, Ecn, Level, PacketNumber, Version};
use crate::observe::{Dropped, Event as Observed, Kind};
use crate::path::Amplification;
use crate::protect::{OpenError, Opened, open_initial};
use crate::spans::{FrameKind, FrameSet};
use crate::time::{Instant, micros};
use crate::wire::frame::{self, Extensions, Frame};
use crate::wire::header::{self, Header};
use crate::wire::{Reader, Writer};

/// Packets that it sends, at most; each acknowledges something.
const SENT_MAX: u8 = 64;
/// The longest ACK frame that it sends; the newest ranges count.
const ACK_FRAME_MAX: usize = 100;
/// Room for a packet with one: the largest header, the frame, the tag.
const ACK_ROOM: usize = 7 + 1 + 20 + 1 + 20 + 1 + 2 + 2 + ACK_FRAME_MAX + TAG_LEN;
/// 0-RTT packets that wait for the ClientHello, at most.
const EARLY_MAX: usize = 8;
/// Their bytes, at most.
const EARLY_BYTES_MAX: usize = 12 << 10;
/// The exponent of ACK delays that counts before transport parameters.
const ACK_DELAY_EXPONENT: u32 = 3;

/// The packet numbers that came: the largest, and which of the 63 below it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// One more than the largest.
    end: PacketNumber,
    /// Bit n: number `end - 1 - n` came.
    mask: u64,
}

impl Numbers {
    /// Whether the number came before, or is too old to tell.
    fn is_known(self, pn: PacketNumber) -> bool {
        match self.end.checked_sub(pn + 1) {
            Some(below) => below >= 64 || self.mask >> below & 1 == 1,
            None => false,
        }
    }

    fn insert(&mut self, pn: PacketNumber) {
        match self.end.checked_sub(pn + 1) {
            Some(below) => self.mask |= 1_u64.checked_shl(u32::try_from(below).unwrap_or(64)).unwrap_or(0),
            None => {
                let up = u32::try_from(pn + 1 - self.end).unwrap_or(64);
                self.mask = self.mask.checked_shl(up).unwrap_or(0) | 1;
                self.end = pn + 1;
            }
        }
    }

    /// As ranges, newest first.
    pub(super) fn ranges(self) -> impl Iterator<Item = (PacketNumber, PacketNumber)> + Clone {
        let (mut mask, mut at) = (self.mask, self.end);
        core::iter::from_fn(move || {
            if mask == 0 {
                return None;
            }
            let gap = mask.trailing_zeros();
            let run = (mask >> gap).trailing_ones();
            let last = at - 1 - u64::from(gap);
            at = last + 1 - u64::from(run);
            mask = mask.checked_shr(gap + run).unwrap_or(0);
            Some((at, last))
        })
    }
}

/// Who decides over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nobody was asked: it is let in, with the settings of the server.
    NotAsked,
    /// The application was asked and has not answered. Nothing is sent.
    Waiting,
    /// The application lets it in.
    Accepted,
}

/// What few of them have.
#[derive(Default)]
struct Rare {
    /// The client's first choice of a connection ID, when a Retry came before.
    retried_from: Option<Cid>,
    /// Those that the application accepted it with.
    settings: Option<Box<Settings>>,
    /// 0-RTT packets that wait.
    early: Vec<EarlyPacket>,
}

/// What admission knows of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) remote: SocketAddr,
    pub(super) local: Option<IpAddr>,
    pub(super) version: Version,
    /// The connection ID that it sends to: its own choice, or ours when a Retry came before.
    pub(super) dcid: Cid,
    /// Its own.
    pub(super) scid: Cid,
    /// A token proved its address.
    pub(super) validated: bool,
}

/// A client whose ClientHello is not complete.
pub(super) struct MiniConn {
    pub(super) client: Client,
    /// Our connection ID.
    pub(super) cid: Cid,
    pub(super) decision: Decision,
    numbers: Numbers,
    /// Marks received.
    ecn: [u16; 3],
    /// When the largest number came.
    largest_at: Instant,
    pub(super) started: Instant,
    hello: Hello,
    /// The ClientHello is complete; it waits for a decision.
    complete: bool,
    ack_due: bool,
    /// Packets sent, all of them acknowledgements.
    sent: u8,
    /// Packets with a QUIC bit of 0 are taken.
    takes_cleared_bit: bool,
    bytes_received: u32,
    bytes_sent: u32,
    packets: u16,
    datagrams: u16,
    /// Size of the packet with the largest number.
    last_size: u16,
    rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<MiniConn>() <= 256, "a flood makes many");

/// What a call of a mini connection needs beside it.
pub(super) struct Around<'a> {
    pub(super) env: &'a mut Env,
    pub(super) keys: &'a mut InitialKeys,
    pub(super) now: Instant,
    pub(super) key: ConnKey,
}

impl Around<'_> {
    fn dropped(&mut self, level: Option<Level>, size: usize, why: Dropped) {
        self.env.tell(self.now, self.key, Kind::PacketDropped, &Observed::PacketDropped { level, size, why });
    }
}

/// What a datagram did.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing in it was authentic.
    Nothing,
    /// Something was.
    Taken,
    /// The ClientHello is complete. The connection gets the rest of the datagram, from there on.
    Complete(usize),
    /// The client gave up.
    Closed,
    /// The client broke a rule.
    Violation(PeerViolation),
}

/// Why the frames of a packet are not read to their end.
enum Stop {
    Violation(PeerViolation),
    /// As if the packet had not come.
    NotTaken,
    Closed,
}

impl From<PeerViolation> for Stop {
    fn from(violation: PeerViolation) -> Self {
        Self::Violation(violation)
    }
}

impl MiniConn {
    pub(super) fn new(client: Client, cid: Cid, decision: Decision, takes_cleared_bit: bool, now: Instant) -> Self {
        Self {
            client,
            cid,
            decision,
            numbers: Numbers::default(),
            ecn: [0; 3],
            largest_at: now,
            started: now,
            hello: Hello::default(),
            complete: false,
            ack_due: false,
            sent: 0,
            takes_cleared_bit,
            bytes_received: 0,
            bytes_sent: 0,
            packets: 0,
            datagrams: 0,
            last_size: 0,
            rare: None,
        }
    }

    /// Takes a datagram; its packets are decrypted in place.
    pub(super) fn receive(&mut self, around: &mut Around<'_>, meta: &Meta, datagram: &mut [u8]) -> Outcome {
        let whole = datagram.len();
        if meta.remote != self.client.remote {
            around.dropped(None, whole, Dropped::Address);
            return Outcome::Nothing;
        }
        //= rfc9000#8.1-2
        self.bytes_received = self.bytes_received.saturating_add(u32::try_from(whole).unwrap_or(u32::MAX));
        self.datagrams = self.datagrams.saturating_add(1);
        let (mut outcome, mut at, mut to) = (Outcome::Nothing, 0, None);
        while at < whole {
            let rest = &mut datagram[at..];
            let Some(packet) = self.packet_of(around, rest, whole) else { break };
            //= rfc9000#12.2-4
            if *to.get_or_insert(packet.dcid) != packet.dcid {
                around.dropped(Some(packet.level), rest.len(), Dropped::Unexpected);
                break;
            }
            let bytes = &mut rest[..packet.end];
            at += packet.end;
            match packet.level {
                Level::Initial => match self.receive_initial(around, meta, bytes, packet.pn_at) {
                    Outcome::Nothing => {}
                    Outcome::Taken if self.may_become() => return Outcome::Complete(at),
                    Outcome::Taken => outcome = Outcome::Taken,
                    over => return over,
                },
                Level::ZeroRtt => self.keep_early(around, meta, bytes, whole),
                // Nobody can have keys of the later levels.
                _ => around.dropped(Some(packet.level), bytes.len(), Dropped::NoKeys),
            }
        }
        outcome
    }

    /// Reads the next header. `None` ends the datagram.
    fn packet_of(&self, around: &mut Around<'_>, bytes: &[u8], whole: usize) -> Option<Packet> {
        let fit = |long: &header::Long<'_>| {
            //= rfc9000#14.1-3
            let small = long.level == Level::Initial && whole < super::admit::FIRST_DATAGRAM_MIN;
            //= rfc9000#7.2-3
            let fits = !small && long.scid == self.client.scid && long.version == self.client.version;
            //= rfc9000#17.2-1
            fits && (self.takes_cleared_bit || header::fixed_bit(bytes))
        };
        match header::decode(bytes, around.env.cid_len) {
            Ok(Header::Initial(long) | Header::ZeroRtt(long) | Header::Handshake(long)) if fit(&long) => {
                Some(Packet { level: long.level, dcid: long.dcid, pn_at: long.pn_at, end: long.end })
            }
            _ => {
                around.dropped(None, bytes.len(), Dropped::Unexpected);
                None
            }
        }
    }

    fn receive_initial(&mut self, around: &mut Around<'_>, meta: &Meta, bytes: &mut [u8], pn_at: usize) -> Outcome {
        let keys = around.keys.get(around.env.keys.as_ref(), self.client.version, &self.client.dcid);
        let opened = match open_initial(keys, bytes, pn_at, self.numbers.end) {
            Ok(opened) => opened,
            Err(OpenError::Violation(violation)) => return Outcome::Violation(violation),
            Err(_) => {
                around.dropped(Some(Level::Initial), bytes.len(), Dropped::NotAuthentic);
                return Outcome::Nothing;
            }
        };
        //= rfc9000#12.3-4
        //= rfc9000#12.3-5
        if self.numbers.is_known(opened.pn) {
            around.dropped(Some(Level::Initial), bytes.len(), Dropped::Duplicate);
            return Outcome::Taken;
        }
        let event = Observed::PacketOpened {
            level: Level::Initial,
            pn: opened.pn,
            header: &bytes[..opened.header_len],
            packet_len: bytes.len(),
            payload: &bytes[opened.payload.clone()],
            waited: false,
        };
        around.env.tell(around.now, around.key, Kind::PacketOpened, &event);
        match self.read_frames(&bytes[opened.payload.clone()]) {
            Ok(frames) => self.on_read(around, meta, &opened, bytes.len(), frames),
            Err(Stop::NotTaken) => {
                around.dropped(Some(Level::Initial), bytes.len(), Dropped::Unexpected);
                Outcome::Taken
            }
            Err(Stop::Closed) => Outcome::Closed,
            //= rfc9000#5.2-1
            Err(Stop::Violation(violation)) => Outcome::Violation(violation),
        }
    }

    fn read_frames(&mut self, payload: &[u8]) -> Result<FrameSet, Stop> {
        let violation = |reason, section| PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, section);
        //= rfc9000#12.4-2
        if payload.is_empty() {
            return Err(violation("a packet has no frames", "rfc9000#12.4").into());
        }
        let (mut frames, mut reader) = (FrameSet::EMPTY, Reader::new(payload));
        while !reader.is_empty() {
            let frame = frame::parse(&mut reader, Extensions::ALL)?;
            //= rfc9000#12.4-3
            let kind = frame.kind();
            frame::check_permitted(kind, Level::Initial).map_err(|v| v.in_frame(frame.type_id()))?;
            frames.insert(kind);
            match frame {
                Frame::Crypto { offset, data } => match self.hello.insert(offset, data) {
                    Ok(()) => {}
                    Err(NotTaken::Violation(v)) => return Err(v.in_frame(CRYPTO).into()),
                    Err(NotTaken::Pieces) => return Err(Stop::NotTaken),
                },
                Frame::Ack(ack) if ack.largest >= self.sent.into() => {
                    let v = violation("a packet is acknowledged that was never sent", "rfc9000#13.1");
                    return Err(v.in_frame(ack.type_id()).into());
                }
                Frame::ConnectionClose { .. } => return Err(Stop::Closed),
                // What was sent is never sent again, so that acknowledgements change nothing.
                _ => {}
            }
        }
        self.complete = self.hello.check().map_err(|v| v.in_frame(CRYPTO))?;
        Ok(frames)
    }

    /// The frames of a packet were read.
    fn on_read(
        &mut self,
        around: &mut Around<'_>,
        meta: &Meta,
        opened: &Opened,
        size: usize,
        frames: FrameSet,
    ) -> Outcome {
        if opened.pn >= self.numbers.end {
            (self.largest_at, self.last_size) = (around.now, u16::try_from(size).unwrap_or(u16::MAX));
        }
        self.numbers.insert(opened.pn);
        self.packets = self.packets.saturating_add(1);
        //= rfc9000#13.4.1-1
        let mark = match meta.ecn {
            Ecn::NotEct => None,
            Ecn::Ect0 => Some(0),
            Ecn::Ect1 => Some(1),
            Ecn::Ce => Some(2),
        };
        if let Some(count) = mark.and_then(|mark| self.ecn.get_mut(mark)) {
            *count = count.saturating_add(1);
        }
        //= rfc9000#13.2.1-2
        self.ack_due |= frames.is_ack_eliciting();
        let event = Observed::PacketReceived { level: Level::Initial, pn: opened.pn, size, frames };
        around.env.tell(around.now, around.key, Kind::PacketReceived, &event);
        Outcome::Taken
    }

    /// Keeps a 0-RTT packet until there is a connection.
    fn keep_early(&mut self, around: &mut Around<'_>, meta: &Meta, bytes: &[u8], whole: usize) {
        let early = &mut self.rare.get_or_insert_default().early;
        let held: usize = early.iter().map(|packet| packet.bytes.len()).sum();
        let full = early.len() >= EARLY_MAX || held + bytes.len() > EARLY_BYTES_MAX;
        let (level, size) = (Level::ZeroRtt, bytes.len());
        if full || size < TAG_LEN {
            return around.dropped(Some(level), size, Dropped::NoKeys);
        }
        early.push(EarlyPacket { bytes: bytes.into(), arrived: around.now, ecn: meta.ecn, len: whole });
        let event = Observed::PacketBuffered { level, size };
        around.env.tell(around.now, around.key, Kind::PacketDropped, &event);
    }

    /// Whether an acknowledgement is to be sent, and may be.
    pub(super) fn wants_send(&self) -> bool {
        let may_speak = self.decision != Decision::Waiting && self.sent < SENT_MAX;
        self.ack_due && may_speak && self.amplification().room() >= ACK_ROOM
    }

    /// Builds a datagram with an ACK.
    pub(super) fn fill(&mut self, around: &mut Around<'_>, slot: &mut [u8]) -> Option<usize> {
        if !self.wants_send() {
            return None;
        }
        let (ranges, ecn) = (self.numbers.ranges(), self.ecn_counts());
        //= rfc9000#13.2.5-3
        let delay = micros(around.now.since(self.largest_at)) >> ACK_DELAY_EXPONENT;
        let len = self.build(around, slot, |w| {
            frame::write_ack(w, ranges, delay, ecn, ACK_FRAME_MAX)?;
            Some(FrameSet::of(&[FrameKind::Ack]))
        })?;
        self.ack_due = false;
        Some(len)
    }

    /// Builds a datagram with a CONNECTION_CLOSE; `None` when not even that may be sent.
    pub(super) fn fill_close(&mut self, around: &mut Around<'_>, v: &PeerViolation, slot: &mut [u8]) -> Option<usize> {
        let room = self.amplification().room().min(slot.len());
        let close = Frame::ConnectionClose { code: v.code, frame_type: v.frame_type, reason: v.reason.as_bytes() };
        self.build(around, slot.get_mut(..room)?, |w| {
            close.encode(w)?;
            Some(FrameSet::of(&[FrameKind::ConnectionClose]))
        })
    }

    fn build(
        &mut self,
        around: &mut Around<'_>,
        slot: &mut [u8],
        say: impl FnOnce(&mut Writer<'_>) -> Option<FrameSet>,
    ) -> Option<usize> {
        let Client { version, dcid, scid, .. } = self.client;
        let limited = self.amplification().room() < super::admit::FIRST_DATAGRAM_MIN;
        let (key, pn) = (Some(around.key), self.sent);
        let address = Address { version, to: &scid, from: &self.cid, pn, key, limited };
        let keys = around.keys.get(around.env.keys.as_ref(), version, &dcid);
        // Keys borrow the cache, not the environment.
        let len = initial::build(around.env, around.now, &address, keys, slot, say)?;
        self.sent += 1;
        self.bytes_sent = self.bytes_sent.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        Some(len)
    }

    /// What may be sent to the client.
    pub(super) fn amplification(&self) -> Amplification {
        let mut amplification = if self.client.validated { Amplification::VALIDATED } else { Amplification::default() };
        amplification.on_received(self.bytes_received as usize);
        amplification.on_sent(self.bytes_sent as usize);
        amplification
    }

    fn ecn_counts(&self) -> Option<EcnCounts> {
        let [ect0, ect1, ce] = self.ecn.map(u64::from);
        (self.ecn != [0; 3]).then_some(EcnCounts { ect0, ect1, ce })
    }

    /// The application lets it in.
    pub(super) fn accept(&mut self, settings: Option<&Settings>) {
        self.decision = Decision::Accepted;
        if let Some(settings) = settings {
            self.rare.get_or_insert_default().settings = Some(Box::new(settings.clone()));
        }
    }

    /// The settings that it was accepted with.
    pub(super) fn take_settings(&mut self) -> Option<Box<Settings>> {
        self.rare.as_mut()?.settings.take()
    }

    /// A Retry came before, and this was the client's first choice of a connection ID.
    pub(super) fn set_retried_from(&mut self, cid: Cid) {
        self.rare.get_or_insert_default().retried_from = Some(cid);
    }

    /// The client's first choice of a connection ID, when a Retry came before.
    pub(super) fn retried_from(&self) -> Option<Cid> {
        self.rare.as_ref()?.retried_from
    }

    /// Whether a connection can be made of it.
    pub(super) fn may_become(&self) -> bool {
        self.complete && self.decision != Decision::Waiting
    }

    /// Whether the client may know our connection ID.
    pub(super) fn has_spoken(&self) -> bool {
        self.sent > 0
    }

    /// Bytes that are held for the client beside this.
    pub(super) fn held(&self) -> usize {
        let early = self.rare.iter().flat_map(|rare| &rare.early);
        self.hello.len() + early.map(|packet| packet.bytes.len()).sum::<usize>()
    }

    /// All that a connection has to know.
    pub(super) fn begun(&mut self, around: &mut Around<'_>) -> Begun {
        let Client { version, dcid, .. } = self.client;
        let hello = core::mem::take(&mut self.hello);
        Begun {
            local: self.cid,
            keys: around.keys.take(around.env.keys.as_ref(), version, &dcid),
            beyond: hello.beyond().map(|(offset, bytes)| (offset, bytes.into())).collect(),
            hello: hello.into_prefix(),
            received: self.numbers.ranges().collect(),
            ecn: self.ecn_counts().unwrap_or_default(),
            largest_at: self.largest_at,
            last_size: self.last_size.into(),
            ack_due: self.ack_due,
            next_pn: self.sent.into(),
            amplification: self.amplification(),
            came: Traffic {
                datagrams: self.datagrams.into(),
                packets: self.packets.into(),
                bytes: self.bytes_received.into(),
            },
            left: Traffic { datagrams: self.sent.into(), packets: self.sent.into(), bytes: self.bytes_sent.into() },
            started: self.started,
            early: self.rare.as_mut().map(|rare| core::mem::take(&mut rare.early)).unwrap_or_default(),
        }
    }
}

/// Type of the frame that is to blame for what TLS messages say.
const CRYPTO: u64 = 0x06;

/// Where a packet lies in what is left of its datagram.
struct Packet {
    level: Level,
    dcid: Cid,
    pn_at: usize,
    end: usize,
}
