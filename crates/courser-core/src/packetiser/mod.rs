//! What goes into the next packet (seed: TX packetiser).
//!
//! [`build`] asks the owners of frames, one priority group after the other, to write into the room that is left:
//!
//! | order | frames | owner |
//! |--:|---|---|
//! | 1 | HANDSHAKE_DONE | [`Once`] |
//! | 2 | MAX_DATA, DATA_BLOCKED, MAX_STREAMS, STREAMS_BLOCKED | [`Streams`] |
//! | 3 | NEW_CONNECTION_ID, RETIRE_CONNECTION_ID | [`ControlQueue`] |
//! | 3 | ACK_FREQUENCY, IMMEDIATE_ACK | [`Tolerance`], the plan |
//! | 4 | PATH_CHALLENGE, PATH_RESPONSE | [`Path`](crate::path) |
//! | 5 | ACK | [`AckSchedule`] |
//! | 6 | CONNECTION_CLOSE | the plan |
//! | 7 | NEW_TOKEN | [`ControlQueue`] |
//! | 8 | CRYPTO | [`CryptoStream`] |
//! | 9–11 | per stream: RESET_STREAM, RESET_STREAM_AT, STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED, STREAM | [`Streams`] |
//! | 12 | DATAGRAM | [`DatagramQueue`] |
//! | 13 | PING | the plan |
//! | 14 | PADDING | the plan |
//!
//! It knows neither keys nor sockets: room comes as a [`Writer`], what was said comes back as a [`Draft`]. The room of a
//! packet follows the seed's size vocabulary in [`sizes`].

pub mod sizes;

mod archetype;
mod train;

#[cfg(test)]
mod tests;

pub use archetype::Archetype;
pub use train::{Meta, SendOutcome, TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX, Train, TrainMeta};

use core::time::Duration;

use crate::ack::schedule::AckSchedule;
use crate::ack::tolerance::Tolerance;
use crate::control::{ControlQueue, Once};
use crate::datagram::DatagramQueue;
use crate::error::TransportCode;
use crate::ids::{Dir, Level, PacketNumber};
use crate::path::{Challenges, Responses};
use crate::spans::{FrameKind, FrameSet, Record, StreamSpan};
use crate::stream::Streams;
use crate::stream::crypto::CryptoStream;
use crate::time::{Instant, micros};
use crate::wire::frame::{self, Frame};
use crate::wire::{Writer, varint};

/// Control queue priority of connection ID frames.
pub const PRIORITY_CID: u8 = 200;
/// Control queue priority of NEW_TOKEN.
pub const PRIORITY_TOKEN: u8 = 100;
/// Room that an ACK frame leaves to others, so that a long history does not crowd out data.
const ACK_ROOM_MAX: usize = 512;

/// Those who may have something to say, for one packet.
pub struct Voices<'a> {
    /// Acknowledgements of the packet's space.
    pub acks: &'a mut AckSchedule,
    /// CRYPTO data of the packet's level.
    pub crypto: Option<&'a mut CryptoStream>,
    /// What only 1-RTT packets carry.
    pub app: Option<AppVoices<'a>>,
}

/// Owners of frames that only 1-RTT packets carry.
pub struct AppVoices<'a> {
    /// HANDSHAKE_DONE.
    pub done: &'a mut Once,
    /// Streams and flow control.
    pub streams: &'a mut Streams,
    /// Frames whose bytes are kept.
    pub control: &'a mut ControlQueue,
    /// Our challenges on the path.
    pub challenges: &'a mut Challenges,
    /// Answers to the peer's challenges.
    pub responses: &'a mut Responses,
    /// DATAGRAM frames.
    pub datagrams: &'a mut DatagramQueue,
    /// ACK_FREQUENCY.
    pub tolerance: &'a mut Tolerance,
}

/// A CONNECTION_CLOSE frame.
#[derive(Clone, Copy, Debug)]
pub struct Close<'a> {
    /// Error code.
    pub code: u64,
    /// Frame type to blame; `None` makes it an application's close.
    pub frame_type: Option<u64>,
    /// Reason phrase, cut to the room.
    pub reason: &'a [u8],
}

/// What the packet is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Its level.
    pub level: Level,
    /// What may be in it.
    pub archetype: Archetype,
    /// Now, for ACK delays.
    pub now: Instant,
    /// ACK delays are sent in units of 2^this microseconds.
    pub ack_delay_exponent: u8,
    /// It must ask for an acknowledgement, by a PING if by nothing else.
    pub must_elicit: bool,
    /// It asks for an acknowledgement that is not held back (IMMEDIATE_ACK).
    pub immediate: bool,
    /// Nothing comes behind this packet in the datagram, and no padding: its last STREAM frame may leave out the Length
    /// and stay where it lies.
    pub last: bool,
    /// The connection closes.
    pub close: Option<Close<'a>>,
}

/// What a built packet says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Frames.
    pub frames: FrameSet,
    /// Stream data that was not copied: it follows what was written.
    pub tail: Option<StreamSpan>,
    /// Largest number that its ACK frame acknowledges.
    pub acked: Option<PacketNumber>,
}

/// Fills the packet's payload. Nothing written means that nobody had anything to say.
pub fn build(v: &mut Voices<'_>, plan: &Plan<'_>, w: &mut Writer<'_>, records: &mut Vec<Record>) -> Draft {
    let mut draft = Draft::default();
    if let Some(close) = plan.close {
        write_acks(v, plan, w, records, &mut draft);
        write_close(&close, w, &mut draft.frames);
        return draft;
    }
    let full = plan.archetype.allows_eliciting();
    if let Some(app) = v.app.as_mut().filter(|_| full) {
        let late = v.acks.wanted_if_sending() && v.acks.delay(plan.now) > v.acks.max_delay();
        write_first_groups(app, plan, late, w, records, &mut draft.frames);
    }
    write_acks(v, plan, w, records, &mut draft);
    if full {
        write_bulk(v, plan, w, records, &mut draft);
        if plan.must_elicit && !draft.frames.is_ack_eliciting() && Frame::Ping.encode(w).is_some() {
            draft.frames.insert(FrameKind::Ping);
        }
    }
    debug_assert!(full || !draft.frames.is_ack_eliciting(), "an ACK_ONLY packet elicits nothing");
    draft
}

/// Groups 1 to 4.
fn write_first_groups(
    app: &mut AppVoices<'_>,
    plan: &Plan<'_>,
    late_ack: bool,
    w: &mut Writer<'_>,
    records: &mut Vec<Record>,
    frames: &mut FrameSet,
) {
    // A peer that learns first that the handshake is confirmed caps the delay of an ACK behind it, and takes the time that
    // packets waited for keys for the path's. Such an ACK leaves in the packet before.
    if app.done.is_due() && !late_ack && Frame::HandshakeDone.encode(w).is_some() {
        app.done.mark_sent();
        frames.insert(FrameKind::HandshakeDone);
    }
    // An address that is not validated may leave so little that only a challenge fits.
    let tests = app.challenges.due().is_some() || app.responses.front().is_some();
    if !tests || w.room() >= TESTS_AND_MORE {
        write_conn_frames(app.streams, w, frames);
        write_queued(app.control, PRIORITY_CID..=u8::MAX, w, records, frames);
        write_ack_wishes(app.tolerance, plan, w, records, frames);
    }
    //= rfc9000#8.2.1-1
    if let Some(data) = app.challenges.due()
        && Frame::PathChallenge(data).encode(w).is_some()
    {
        app.challenges.mark_sent(plan.now);
        frames.insert(FrameKind::PathChallenge);
    }
    //= rfc9000#8.2.2-1
    if let Some(data) = app.responses.front()
        && Frame::PathResponse(data).encode(w).is_some()
    {
        app.responses.pop();
        frames.insert(FrameKind::PathResponse);
    }
}

/// Room in which control frames may stand before a challenge.
const TESTS_AND_MORE: usize = 256;

/// How the peer should acknowledge.
fn write_ack_wishes(
    tolerance: &mut Tolerance,
    plan: &Plan<'_>,
    w: &mut Writer<'_>,
    records: &mut Vec<Record>,
    frames: &mut FrameSet,
) {
    //= ack-frequency#3-3
    if plan.level != Level::OneRtt {
        return;
    }
    if let Some((sequence, terms)) = tolerance.due() {
        let frame = Frame::AckFrequency {
            sequence,
            eliciting_threshold: u64::from(terms.packets.saturating_sub(1)),
            max_ack_delay_us: micros(terms.max_delay),
            reordering_threshold: terms.reordering,
        };
        if frame.encode(w).is_some() {
            tolerance.mark_sent();
            records.push(Record::AckFrequency(sequence));
            frames.insert(FrameKind::AckFrequency);
        }
    }
    if plan.immediate && Frame::ImmediateAck.encode(w).is_some() {
        frames.insert(FrameKind::ImmediateAck);
    }
}

/// Groups 7 to 12, which may be large.
fn write_bulk(v: &mut Voices<'_>, plan: &Plan<'_>, w: &mut Writer<'_>, records: &mut Vec<Record>, draft: &mut Draft) {
    if let Some(app) = &mut v.app {
        write_queued(app.control, 0..=PRIORITY_CID - 1, w, records, &mut draft.frames);
    }
    // A PING may be needed: its byte stays free until something else elicits an acknowledgement.
    let reserve = usize::from(plan.must_elicit && !draft.frames.is_ack_eliciting());
    if w.room() <= reserve {
        return;
    }
    if let Some(crypto) = &mut v.crypto {
        crypto.fill(plan.level, w, records, &mut draft.frames);
    }
    let Some(app) = &mut v.app else { return };
    let datagram = app.datagrams.front().map(|d| datagram_size(d.len()));
    match datagram {
        // A queued datagram leaves with this packet: bulk data takes what it leaves.
        Some(size) if size <= w.room() => {
            draft.tail = fill_around_datagram(app, w, records, draft, size);
        }
        _ => draft.tail = app.streams.fill(w, records, &mut draft.frames, plan.last),
    }
}

/// Streams first, in the room that the waiting datagram leaves, then the datagram and those that still fit.
fn fill_around_datagram(
    app: &mut AppVoices<'_>,
    w: &mut Writer<'_>,
    records: &mut Vec<Record>,
    draft: &mut Draft,
    size: usize,
) -> Option<StreamSpan> {
    let room = w.room() - size;
    let mut part = Writer::new(&mut w.spare()[..room]);
    app.streams.fill(&mut part, records, &mut draft.frames, false);
    let written = part.len();
    w.skip(written);
    while let Some(front) = app.datagrams.front() {
        if datagram_size(front.len()) > w.room() {
            break;
        }
        let Some((number, data)) = app.datagrams.pop() else { break };
        let written = Frame::Datagram { data: &data, length_present: true }.encode(w);
        debug_assert!(written.is_some(), "the room was checked");
        draft.frames.insert(FrameKind::Datagram);
        records.push(Record::Datagram(number));
    }
    None
}

/// Group 2: flow control of the connection, each with its newest value.
fn write_conn_frames(streams: &mut Streams, w: &mut Writer<'_>, frames: &mut FrameSet) {
    if !streams.any_due() {
        return;
    }
    for kind in [
        FrameKind::MaxData,
        FrameKind::DataBlocked,
        FrameKind::MaxStreamsBidi,
        FrameKind::MaxStreamsUni,
        FrameKind::StreamsBlockedBidi,
        FrameKind::StreamsBlockedUni,
    ] {
        let Some(value) = streams.due(kind) else { continue };
        let frame = match kind {
            FrameKind::MaxData => Frame::MaxData { max: value },
            FrameKind::DataBlocked => Frame::DataBlocked { limit: value },
            FrameKind::MaxStreamsBidi => Frame::MaxStreams { dir: Dir::Bi, max: value },
            FrameKind::MaxStreamsUni => Frame::MaxStreams { dir: Dir::Uni, max: value },
            FrameKind::StreamsBlockedBidi => Frame::StreamsBlocked { dir: Dir::Bi, limit: value },
            _ => Frame::StreamsBlocked { dir: Dir::Uni, limit: value },
        };
        if frame.encode(w).is_some() {
            streams.mark_sent(kind);
            frames.insert(kind);
        }
    }
}

fn datagram_size(len: usize) -> usize {
    frame::datagram_header_size(Some(len as u64)) + len
}

fn write_queued(
    control: &mut ControlQueue,
    priorities: core::ops::RangeInclusive<u8>,
    w: &mut Writer<'_>,
    records: &mut Vec<Record>,
    frames: &mut FrameSet,
) {
    while let Some(id) = control.next(crate::ids::Space::Data, priorities.clone(), w.room()) {
        let Some((kind, bytes)) = control.frame(id) else { return };
        if w.bytes(bytes).is_none() {
            return;
        }
        frames.insert(kind);
        records.push(Record::Item(id));
        control.mark_tx(id);
    }
}

fn write_acks(v: &mut Voices<'_>, plan: &Plan<'_>, w: &mut Writer<'_>, records: &mut Vec<Record>, draft: &mut Draft) {
    //= rfc9000#17.2.3-4
    if !v.acks.wanted_if_sending() || plan.level == Level::ZeroRtt {
        return;
    }
    let Some(largest) = v.acks.history().largest() else { return };
    let delay = match plan.level {
        //= rfc9000#13.2.5-3
        Level::Initial | Level::Handshake => Duration::ZERO,
        _ => v.acks.delay(plan.now),
    };
    let raw = (micros(delay) >> plan.ack_delay_exponent).min(crate::ids::VARINT_MAX);
    let full = plan.archetype.allows_eliciting();
    // A PING may have to follow: its byte stays free.
    let reserve = usize::from(full && plan.must_elicit && !draft.frames.is_ack_eliciting());
    let room = w.room().saturating_sub(reserve);
    let room = if full { room.min(ACK_ROOM_MAX) } else { room };
    if frame::write_ack(w, v.acks.history().ranges(), raw, v.acks.ecn(), room).is_some() {
        v.acks.on_sent(largest);
        draft.frames.insert(FrameKind::Ack);
        draft.acked = Some(largest);
        records.push(Record::Ack(largest));
    }
}

fn write_close(close: &Close<'_>, w: &mut Writer<'_>, frames: &mut FrameSet) {
    let fixed = 1 + varint::size(close.code) + close.frame_type.map_or(0, varint::size) + 2;
    let reason = &close.reason[..close.reason.len().min(w.room().saturating_sub(fixed)).min(16_383)];
    let (frame, kind) = match close.frame_type {
        Some(frame_type) => {
            (Frame::ConnectionClose { code: TransportCode(close.code), frame_type, reason }, FrameKind::ConnectionClose)
        }
        None => (Frame::ApplicationClose { code: close.code, reason }, FrameKind::ApplicationClose),
    };
    if frame.encode(w).is_some() {
        frames.insert(kind);
    }
}
