//! A datagram in: packet by packet.
//!
//! Datagrams of one connection that arrive together, each one packet with a short header, are unmasked together first
//! ([`Connection::unmask_group`]); everything else happens one by one, in their order.

use core::net::{IpAddr, SocketAddr};

use super::frames::Carrier;
use super::handshake::Retry;
use super::{Connection, Env, Life, Stashed};
use crate::crypto::{TAG_LEN, Unmasking};
use crate::error::{CloseReason, PeerViolation, TransportCode};
use crate::ids::{Cid, Ecn, Level, PathId};
use crate::observe::{Dropped, Event as Observed, Kind};
use crate::packetiser::Meta;
use crate::protect::{KEEP_OLD_KEYS_PTOS, OpenError, Opened};
use crate::spans::{FrameKind, FrameSet};
use crate::time::Instant;
use crate::wire::Reader;
use crate::wire::frame::{self, Extensions, Frame};
use crate::wire::header::{self, Header, Long};

/// Packets that wait for keys, at most; what a flight of the peer can have in the air before its keys are here.
const STASH_MAX: usize = 16;
/// Their bytes, at most: nobody has proven anything yet, and each connection may hold so much.
const STASH_BYTES_MAX: usize = 32 << 10;

/// Whether a datagram was of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A packet in it was understood, or kept.
    Handled,
    /// Nothing in it could be opened: it may be a stateless reset.
    Opaque,
}

/// When, from where and with which mark a packet's datagram arrived; a packet that waits for its keys keeps that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) arrived: Instant,
    pub(super) ecn: Ecn,
    /// The path; `None` when it is none of ours yet.
    pub(super) path: Option<PathId>,
    pub(super) remote: SocketAddr,
    pub(super) local: Option<IpAddr>,
    /// Bytes of the datagram.
    pub(super) len: usize,
}

/// Where one packet lies in its datagram.
struct Packet {
    level: Level,
    dcid: Cid,
    pn_at: usize,
    end: usize,
    /// Set when the packet was unmasked with its group.
    number: Number,
}

/// Datagrams that are unmasked together, at most.
pub(crate) const GROUP: usize = 16;

/// The truncated packet number of an unmasked packet and its length; `None` for one that is masked.
pub(crate) type Number = Option<(u32, usize)>;

impl Packet {
    fn short(dcid: Cid, pn_at: usize, end: usize) -> Self {
        Self { level: Level::OneRtt, dcid, pn_at, end, number: None }
    }

    fn long(header: &Long<'_>) -> Self {
        Self { level: header.level, dcid: header.dcid, pn_at: header.pn_at, end: header.end, number: None }
    }
}

impl Connection {
    /// Removes the header protection of a group of datagrams that were routed here, each of them one packet with a short
    /// header; at most [`GROUP`]. What cannot be unmasked, or would not be looked at, stays as it is.
    pub(crate) fn unmask_group(&mut self, env: &Env, meta: &Meta, group: &mut [u8]) -> [Number; GROUP] {
        let mut numbers = [None; GROUP];
        if !self.is_open() || self.locate(meta).is_none() && !self.may_open_path() {
            return numbers;
        }
        let mut batch: [Unmasking<'_>; GROUP] = Default::default();
        let mut count = 0;
        for (place, packet) in batch.iter_mut().zip(group.chunks_mut(meta.stride.max(1))) {
            *place = Unmasking { packet, pn_at: 1 + env.cid_len, number: None };
            count += 1;
        }
        self.keys.unmask_batch(env.keys.as_ref(), &mut batch[..count]);
        for (number, packet) in numbers.iter_mut().zip(&batch) {
            *number = packet.number;
        }
        numbers
    }

    /// Takes a datagram that was routed here; `number` is set when it was unmasked with its group. The bytes are decrypted
    /// in place.
    pub(crate) fn receive(
        &mut self,
        env: &mut Env,
        now: Instant,
        meta: &Meta,
        datagram: &mut [u8],
        number: Number,
    ) -> Received {
        self.stats.received.datagrams += 1;
        self.stats.received.bytes += datagram.len() as u64;
        match &mut self.life {
            Life::Handshaking | Life::Established => {}
            Life::Closing(closing) => {
                if meta.remote == self.path.remote() {
                    self.path.amplification.on_received(datagram.len());
                }
                closing.words.on_datagram(datagram.len());
                // Nothing is opened any more, but the peer may have lost its state.
                return Received::Opaque;
            }
            Life::Draining { .. } | Life::Ended => return Received::Handled,
        }
        let path = self.locate(meta);
        if path.is_none() && !self.may_open_path() && !self.may_be_completed_from_elsewhere() {
            self.drop_packet(env, now, None, datagram.len(), Dropped::Address);
            return Received::Handled;
        }
        if let Some(path) = path.and_then(|id| self.path_mut(id)) {
            //= rfc9000#8.1-2
            path.amplification.on_received(datagram.len());
        }
        let (remote, local, len) = (meta.remote, meta.local, datagram.len());
        let origin = Origin { arrived: now, ecn: meta.ecn, path, remote, local, len };
        self.receive_packets(env, now, origin, datagram, number)
    }

    /// Takes the last packets of a datagram of `len` bytes whose first ones made this connection.
    pub(crate) fn receive_rest(&mut self, env: &mut Env, now: Instant, meta: &Meta, len: usize, rest: &mut [u8]) {
        let (path, remote, local) = (self.locate(meta), meta.remote, meta.local);
        let origin = Origin { arrived: now, ecn: meta.ecn, path, remote, local, len };
        self.receive_packets(env, now, origin, rest, None);
    }

    fn receive_packets(
        &mut self,
        env: &mut Env,
        now: Instant,
        origin: Origin,
        datagram: &mut [u8],
        number: Number,
    ) -> Received {
        let mut first_dcid = None;
        let mut outcome = Received::Opaque;
        let whole = origin.len;
        let mut rest = datagram;
        while !rest.is_empty() && self.is_open() {
            let Some(mut packet) = self.next_packet(env, now, rest, whole) else { break };
            packet.number = number;
            //= rfc9000#12.2-4
            if first_dcid.is_some_and(|cid| cid != packet.dcid) {
                self.drop_packet(env, now, Some(packet.level), rest.len(), Dropped::Unexpected);
                break;
            }
            first_dcid = Some(packet.dcid);
            //= rfc9000#12.2-5
            //= rfc9000#12.2-6
            let (bytes, tail) = rest.split_at_mut(packet.end);
            if self.receive_packet(env, now, origin, bytes, &packet) {
                outcome = Received::Handled;
            }
            rest = tail;
        }
        outcome
    }

    /// Reads the next header; handles what is no packet with frames. `None` ends the datagram.
    fn next_packet(&mut self, env: &mut Env, now: Instant, bytes: &[u8], whole: usize) -> Option<Packet> {
        match header::decode(bytes, env.cid_len) {
            Ok(
                Header::Short { .. }
                | Header::Initial(_)
                | Header::ZeroRtt(_)
                | Header::Handshake(_)
                | Header::Retry { .. },
            ) if !self.takes_quic_bit(env, bytes) => {
                self.drop_packet(env, now, None, bytes.len(), Dropped::Unexpected);
                None
            }
            Ok(Header::Short { dcid, pn_at }) => Some(Packet::short(dcid, pn_at, bytes.len())),
            Ok(Header::Initial(long) | Header::ZeroRtt(long) | Header::Handshake(long)) => {
                //= rfc9000#14.1-3
                let short_initial = self.side.is_server() && long.level == Level::Initial && whole < 1200;
                //= rfc9000#17.2.2-1
                let tokened = self.side.is_client() && !long.token.is_empty();
                let wrong = short_initial || tokened || !self.check_peer_cid(&long.scid);
                if wrong || !self.fits_version(env, &long, bytes) {
                    self.drop_packet(env, now, Some(long.level), bytes.len(), Dropped::Unexpected);
                    return None;
                }
                Some(Packet::long(&long))
            }
            Ok(Header::Retry { version, dcid, scid, token, tag, without_tag }) => {
                if self.side.is_client() && version == self.version && self.local_cids.first().cid == dcid {
                    self.on_retry(env, now, &Retry { scid, token, tag: &tag, without_tag });
                }
                None
            }
            Ok(Header::VersionNegotiation { dcid, scid, versions }) => {
                if self.side.is_client() {
                    self.on_version_negotiation(env, now, dcid, scid, versions);
                }
                None
            }
            Ok(Header::UnknownVersion { .. }) | Err(_) => {
                self.drop_packet(env, now, None, bytes.len(), Dropped::Unexpected);
                None
            }
        }
    }

    /// Whether a long header's source connection ID is the peer's; the first one is learnt when its packet is authentic.
    fn check_peer_cid(&self, scid: &Cid) -> bool {
        //= rfc9000#7.2-3
        self.handshake.as_ref().is_none_or(|h| !h.peer_cid_known || h.peer_first_cid == *scid)
    }

    /// Opens a packet and handles its frames. Returns whether it was authentic or kept.
    fn receive_packet(
        &mut self,
        env: &mut Env,
        now: Instant,
        origin: Origin,
        bytes: &mut [u8],
        packet: &Packet,
    ) -> bool {
        if origin.path.is_none() && packet.level != Level::Handshake && !self.may_open_path() {
            // An Initial packet proves nothing; of the others the client has more.
            self.drop_packet(env, now, Some(packet.level), bytes.len(), Dropped::Address);
            return true;
        }
        let space = packet.level.space();
        let expected = self.acks[space.index()].history().largest().map_or(0, |largest| largest + 1);
        let keys = env.keys.as_ref();
        let opened = match packet.number {
            Some(number) => self.keys.open_unmasked(keys, bytes, packet.pn_at, number, expected),
            None => self.keys.open(keys, packet.level, bytes, packet.pn_at, expected),
        };
        match opened {
            Ok(opened) => {
                self.on_opened(env, now, origin, bytes, packet, &opened);
                true
            }
            Err(OpenError::NoKeys) => self.stash(env, now, packet.level, origin, bytes),
            Err(OpenError::TooShort | OpenError::NotAuthentic) => {
                self.drop_packet(env, now, Some(packet.level), bytes.len(), Dropped::NotAuthentic);
                false
            }
            Err(OpenError::Violation(violation)) => {
                self.fail(now, violation);
                true
            }
        }
    }

    fn on_opened(
        &mut self,
        env: &mut Env,
        now: Instant,
        origin: Origin,
        bytes: &[u8],
        packet: &Packet,
        opened: &Opened,
    ) {
        let space = packet.level.space();
        //= rfc9000#12.3-4
        //= rfc9000#12.3-5
        if self.acks[space.index()].is_duplicate(opened.pn) {
            self.drop_packet(env, now, Some(packet.level), packet.end, Dropped::Duplicate);
            return;
        }
        if origin.path.is_none() && packet.level == Level::OneRtt {
            self.learn_connection_ids(env, &bytes[opened.payload.clone()]);
        }
        let Some(path) = self.path_of(env, now, &origin, packet) else {
            self.drop_packet(env, now, Some(packet.level), packet.end, Dropped::Address);
            return;
        };
        self.stats.received.packets += 1;
        let (side, spin) = (self.side, header::spin(bytes[0]));
        if let Some(path) = self.path_mut(path).filter(|_| packet.level == Level::OneRtt) {
            path.spin.on_packet(side, opened.pn, spin);
        }
        if opened.updated {
            let keep = self.pto() * KEEP_OLD_KEYS_PTOS;
            self.keys.keep_previous_until(now + keep);
            self.observe_update(env, now, true);
        }
        self.observe_opened(env, now, packet.level, &bytes[..packet.end], opened, origin.arrived != now);
        self.on_authentic(now, packet.level, origin.path.is_some(), bytes);
        let (level, dcid, generation) = (packet.level, packet.dcid, opened.generation);
        let carrier = Carrier { level, dcid, generation, received: now, path };
        let read = self.receive_frames(env, now, &carrier, &bytes[opened.payload.clone()]);
        if read.as_ref().map_or(true, |frames| frames.contains(FrameKind::NewConnectionId)) {
            // After the last one: the first may only say which are to go.
            self.renew_destinations(0);
        }
        match read {
            Ok(frames) => {
                let newest = path == self.path.id
                    || self.acks[space.index()].history().largest().is_none_or(|largest| opened.pn > largest);
                self.on_processed(env, now, origin, packet, opened, frames);
                if path != self.path.id && self.is_open() {
                    self.consider_move(env, now, path, frames, newest);
                }
            }
            //= rfc9000#5.2-1
            Err(violation) => self.fail(now, violation),
        }
        self.log.received(now, packet.level, opened.pn, packet.end);
    }

    /// The path that an authentic packet came on, opened if need be; `None` when there can be none.
    fn path_of(&mut self, env: &mut Env, now: Instant, origin: &Origin, packet: &Packet) -> Option<PathId> {
        if packet.level == Level::Handshake && self.side.is_server() {
            // The same leads here in 1-RTT packets.
            self.path.reached_by = packet.dcid;
            // Nothing is sent to there before the handshake is confirmed, and nothing is believed of the address.
            return origin.path.or(Some(self.path.id));
        }
        if packet.level != Level::OneRtt {
            return origin.path;
        }
        let Some(id) = origin.path else { return self.open_path(env, now, origin, packet.dcid) };
        let path = self.path_mut(id)?;
        if path.reached_by != packet.dcid {
            path.reached_by = packet.dcid;
            if self.side.is_client() && id == self.path.id {
                self.local_cids.on_reached(&packet.dcid);
            }
        }
        Some(id)
    }

    /// A packet from elsewhere may bring the very connection IDs without which there is no path to there. Its other frames,
    /// and violations, have their time when there is one.
    fn learn_connection_ids(&mut self, env: &Env, payload: &[u8]) {
        let (extensions, mut reader) = (self.extensions(env), Reader::new(payload));
        while !reader.is_empty() {
            let Ok(frame) = frame::parse(&mut reader, extensions) else { break };
            if let Frame::NewConnectionId { sequence, retire_prior_to, cid, token } = frame
                && self.on_new_connection_id(sequence, retire_prior_to, cid, token).is_err()
            {
                break;
            }
        }
        // The way there comes before others that may be given up.
        self.renew_destinations(1);
    }

    /// What an authentic packet says before its frames are read.
    fn on_authentic(&mut self, now: Instant, level: Level, from_here: bool, bytes: &[u8]) {
        if self.recovery.pto_count() > 0 && now.since(self.last_activity) > self.pto() {
            self.recovery.on_heard_again(now, &self.path.rtt);
        }
        //= rfc9000#10.1-1
        self.last_activity = now;
        self.eliciting_since_receive = false;
        if level == Level::Handshake && self.side.is_server() && from_here {
            // Only somebody who read our Initial can send a Handshake packet.
            self.path.validate();
        }
        if let Some(handshake) = self.handshake.as_mut().filter(|h| !h.peer_cid_known)
            && let Some(scid) = header::decode(bytes, 0).ok().and_then(|h| h.long().map(|l| l.scid))
        {
            //= rfc9000#7.2-4
            handshake.peer_cid_known = true;
            handshake.peer_first_cid = scid;
            self.remote_cids.replace_first(scid);
            self.path.to.cid = scid;
        }
    }

    fn receive_frames(
        &mut self,
        env: &mut Env,
        now: Instant,
        carrier: &Carrier,
        payload: &[u8],
    ) -> Result<FrameSet, PeerViolation> {
        //= rfc9000#12.4-2
        if payload.is_empty() {
            return Err(PeerViolation::new(
                TransportCode::PROTOCOL_VIOLATION,
                "a packet has no frames",
                "rfc9000#12.4",
            ));
        }
        let extensions = self.extensions(env);
        let mut frames = FrameSet::EMPTY;
        let mut reader = Reader::new(payload);
        while !reader.is_empty() {
            let frame = frame::parse(&mut reader, extensions)?;
            //= rfc9000#12.4-3
            let frame_type = frame.type_id();
            frame::check_permitted(frame.kind(), carrier.level).map_err(|v| v.in_frame(frame_type))?;
            frames.insert(frame.kind());
            self.on_frame(env, now, carrier, frame).map_err(|v| v.in_frame(frame_type))?;
            if !self.is_open() {
                break;
            }
        }
        Ok(frames)
    }

    /// The extensions that we offered.
    fn extensions(&self, env: &Env) -> Extensions {
        let settings = self.settings(env);
        Extensions {
            max_datagram_frame: settings.max_datagram_frame.into(),
            min_ack_delay_us: super::setup::min_ack_delay_us(settings),
            reset_stream_at: settings.reset_stream_at,
        }
    }

    fn on_processed(
        &mut self,
        env: &mut Env,
        now: Instant,
        origin: Origin,
        packet: &Packet,
        opened: &Opened,
        frames: FrameSet,
    ) {
        let space = packet.level.space();
        //= rfc9000#13.2.5-2
        //= rfc9000#7.5-3
        //= rfc9000#13.1-1
        //= rfc9000#13.2.5-1
        //= rfc9000#13.2.6-1
        //= rfc9000#13.4.1-1
        //= rfc8899#3-4
        self.acks[space.index()].on_packet(origin.arrived, opened.pn, frames.is_ack_eliciting(), origin.ecn);
        let size = packet.end;
        let (level, pn) = (packet.level, opened.pn);
        env.observe(now, self.key, Kind::PacketReceived, || Observed::PacketReceived { level, pn, size, frames });
        if !self.is_open() {
            return;
        }
        if packet.level == Level::Handshake && self.side.is_server() {
            //= rfc9001#4.9.1-2
            self.discard(env, now, Level::Initial);
        }
        self.after_handshake_packet(env, now);
    }

    /// Keeps a packet whose keys may come; false when it is of no use.
    fn stash(&mut self, env: &mut Env, now: Instant, level: Level, origin: Origin, bytes: &[u8]) -> bool {
        let complete = !matches!(self.life, Life::Handshaking);
        let Some(handshake) = self.handshake.as_mut() else { return false };
        let may_come = match level {
            Level::Handshake => !complete,
            Level::OneRtt => !complete,
            // A part of the ClientHello is still on its way.
            Level::ZeroRtt => self.side.is_server() && !self.keys.has_send(Level::Handshake),
            Level::Initial => false,
        };
        let held: usize = handshake.stash.iter().map(|s| s.bytes.len()).sum();
        let full = handshake.stash.len() >= STASH_MAX || held + bytes.len() > STASH_BYTES_MAX;
        if !may_come || full || bytes.len() < TAG_LEN {
            self.drop_packet(env, now, Some(level), bytes.len(), Dropped::NoKeys);
            return false;
        }
        handshake.stash.push(Stashed { level, origin, bytes: bytes.into() });
        if self.side.is_client() && !self.keys.has_recv(Level::Handshake) {
            // The server's Initial is missing.
            self.recovery.on_unreadable(now);
        }
        let size = bytes.len();
        env.observe(now, self.key, Kind::PacketDropped, || Observed::PacketBuffered { level, size });
        true
    }

    /// Handles kept packets of a level whose keys came.
    pub(super) fn unstash(&mut self, env: &mut Env, now: Instant, level: Level) {
        let Some(handshake) = self.handshake.as_mut() else { return };
        let mut ready: Vec<Stashed> = Vec::new();
        let mut at = 0;
        while at < handshake.stash.len() {
            if handshake.stash[at].level == level {
                ready.push(handshake.stash.remove(at));
            } else {
                at += 1;
            }
        }
        for mut kept in ready {
            let Some(packet) = packet_of(&kept, env.cid_len) else { continue };
            self.receive_packet(env, now, kept.origin, &mut kept.bytes, &packet);
        }
    }

    /// The peer broke a rule: the connection closes with its code.
    pub(super) fn fail(&mut self, now: Instant, violation: PeerViolation) {
        //= rfc9000#10.3-1
        //= rfc9000#11.1-1
        self.begin_close(now, CloseReason::Violation(violation));
    }
}

fn packet_of(kept: &Stashed, cid_len: usize) -> Option<Packet> {
    match header::decode(&kept.bytes, cid_len).ok()? {
        Header::Short { dcid, pn_at } => Some(Packet::short(dcid, pn_at, kept.bytes.len())),
        Header::Handshake(long) | Header::ZeroRtt(long) => Some(Packet::long(&long)),
        _ => None,
    }
}
