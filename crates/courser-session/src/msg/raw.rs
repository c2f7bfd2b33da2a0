//! Messages as 32 bytes.
//!
//! | Bytes | Field | Meaning |
//! |--:|---|---|
//! | 0–7 | handle | the session; 0 when the message names none |
//! | 8–15 | arg | token, tag, code, offset, limit, parent or number of bytes |
//! | 16–19 | len | length of the payload; low half of the number of a session that was opened or came in, or of a reliable size |
//! | 20–23 | chunk | where the payload lies, for whoever moves payloads by place; high half of that number |
//! | 24 | op | what is said |
//! | 25 | flags | end of stream, whether a datagram has a tag or arrived, why a submission was rejected, or the index of a reason |
//! | 26–31 | – | 0 |
//!
//! All numbers are little-endian. [`Submission::split`] and [`Completion::split`] take a message apart into the 32 bytes
//! and its payload, `join` puts them together again and checks everything: the fields may come from another process.
//! The one exception is `chunk` of a message with payload, which belongs to whoever stores payloads and is not looked at
//! here.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use core::fmt;

use bytes::Bytes;

use super::{
    Addresses, Completion, Endpoint, SessionStats, Submission,
    parts::{Parts, rejection_byte},
};
use crate::{
    handle::Handle,
    num::{clamp, low},
};

/// What a message says. Submissions are below 64, completions above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the submission or completion of the same name")]
pub enum Op {
    Listen = 1,
    Connect = 2,
    Accept = 3,
    Refuse = 4,
    OpenBi = 5,
    OpenUni = 6,
    Write = 7,
    Finish = 8,
    Consumed = 9,
    Reset = 10,
    Stop = 11,
    Close = 12,
    Datagram = 13,
    Stats = 14,
    Wake = 15,
    ResetAt = 16,
    Opened = 64,
    Failed = 65,
    Established = 66,
    Accepted = 67,
    CreditGranted = 68,
    AllAcked = 69,
    Readable = 70,
    Data = 71,
    WasReset = 72,
    Stopped = 73,
    Closed = 74,
    DatagramIn = 75,
    StatsReply = 76,
    Rejected = 77,
    WakeUp = 78,
    DatagramFate = 79,
    DatagramRoom = 80,
    Addresses = 81,
}

impl Op {
    /// All ops.
    pub const ALL: [Self; 34] = [
        Self::Listen,
        Self::Connect,
        Self::Accept,
        Self::Refuse,
        Self::OpenBi,
        Self::OpenUni,
        Self::Write,
        Self::Finish,
        Self::Consumed,
        Self::Reset,
        Self::Stop,
        Self::Close,
        Self::Datagram,
        Self::Stats,
        Self::Wake,
        Self::ResetAt,
        Self::Opened,
        Self::Failed,
        Self::Established,
        Self::Accepted,
        Self::CreditGranted,
        Self::AllAcked,
        Self::Readable,
        Self::Data,
        Self::WasReset,
        Self::Stopped,
        Self::Closed,
        Self::DatagramIn,
        Self::StatsReply,
        Self::Rejected,
        Self::WakeUp,
        Self::DatagramFate,
        Self::DatagramRoom,
        Self::Addresses,
    ];

    /// The byte on the ring.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The op of that byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        #[expect(clippy::indexing_slicing, reason = "made when it is compiled")]
        const BY_BYTE: [Option<Op>; 256] = {
            let mut table = [None; 256];
            let mut n = 0;
            while n < Op::ALL.len() {
                table[Op::ALL[n].byte() as usize] = Some(Op::ALL[n]);
                n += 1;
            }
            table
        };
        #[expect(clippy::indexing_slicing, reason = "a byte, into a table of 256")]
        BY_BYTE[byte as usize]
    }
}

/// A message as it lies on a ring between processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Raw {
    /// The session; 0 when the message names none.
    pub handle: u64,
    /// Token, tag, code, offset, limit, parent or number of bytes.
    pub arg: u64,
    /// Length of the payload, or half of a number.
    pub len: u32,
    /// Where the payload lies, or half of a number.
    pub chunk: u32,
    /// [`Op::byte`].
    pub op: u8,
    /// Depends on the op.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<Raw>() == Raw::SIZE && align_of::<Raw>() == 8);

/// Flag of the end of a stream, of a tag, and of a datagram that arrived.
pub(super) const FIN: u8 = 1;

impl Raw {
    /// Length of a message in bytes.
    pub const SIZE: usize = 32;

    fn new(op: Op, handle: Option<Handle>, arg: u64) -> Self {
        Self { handle: handle.map_or(0, Handle::raw), arg, op: op.byte(), ..Self::default() }
    }

    fn sized(mut self, payload: &Bytes) -> Self {
        self.len = clamp(payload.len());
        self
    }

    fn numbered(mut self, number: u64) -> Self {
        (self.len, self.chunk) = (low(number), low(number >> 32));
        self
    }

    fn flagged(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// The message as four words of this machine, for rings of words.
    pub(crate) fn to_words(self) -> [u64; 4] {
        let two = u64::from(self.chunk) << 32 | u64::from(self.len);
        let [a, b, c, d, e, f] = self.reserved;
        [self.handle, self.arg, two, u64::from_le_bytes([self.op, self.flags, a, b, c, d, e, f])]
    }

    /// The message in those four words.
    pub(crate) fn from_words([handle, arg, two, rest]: [u64; 4]) -> Self {
        let [op, flags, reserved @ ..] = rest.to_le_bytes();
        Self { handle, arg, len: low(two), chunk: low(two >> 32), op, flags, reserved }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.handle.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.arg.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[24] = self.op;
        bytes[25] = self.flags;
        bytes[26..32].copy_from_slice(&self.reserved);
        bytes
    }

    /// The message in those 32 bytes. Every content is a `Raw`; `join` says whether it means anything.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            handle: u64::from_le_bytes(field(bytes, 0)),
            arg: u64::from_le_bytes(field(bytes, 8)),
            len: u32::from_le_bytes(field(bytes, 16)),
            chunk: u32::from_le_bytes(field(bytes, 20)),
            op: bytes[24],
            flags: bytes[25],
            reserved: field(bytes, 26),
        }
    }
}

/// `N` bytes from `at`; callers name places inside the 32 bytes.
fn field<const N: usize>(bytes: &[u8; Raw::SIZE], at: usize) -> [u8; N] {
    core::array::from_fn(|n| bytes.get(at + n).copied().unwrap_or_default())
}

/// What a message carries beside the 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Data, a datagram, or the text of a reason.
    Bytes(Bytes),
    /// Where to listen or to connect.
    Endpoint(Box<Endpoint>),
    /// Figures.
    Stats(Box<SessionStats>),
    /// The two ends of a session.
    Addresses(Box<Addresses>),
}

/// The fields do not make a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadMessage {
    /// No op of this direction has that number.
    Op,
    /// The handle is missing, not a handle, or of the wrong kind for the op.
    Handle,
    /// The payload is missing, of the wrong type, of another length than announced, or one too many.
    Payload,
    /// A field that the op does not use is not 0, or a flag is unknown.
    Field,
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Op => "unknown op",
            Self::Handle => "the handle does not fit the op",
            Self::Payload => "the payload does not fit the op",
            Self::Field => "a field that must be zero is not",
        })
    }
}

impl core::error::Error for BadMessage {}

impl Submission {
    /// What is asked.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self {
            Self::Listen { .. } => Op::Listen,
            Self::Connect { .. } => Op::Connect,
            Self::Accept { .. } => Op::Accept,
            Self::Refuse { .. } => Op::Refuse,
            Self::OpenBi { .. } => Op::OpenBi,
            Self::OpenUni { .. } => Op::OpenUni,
            Self::Write { .. } => Op::Write,
            Self::Finish { .. } => Op::Finish,
            Self::Consumed { .. } => Op::Consumed,
            Self::Reset { .. } => Op::Reset,
            Self::Stop { .. } => Op::Stop,
            Self::Close { .. } => Op::Close,
            Self::Datagram { .. } => Op::Datagram,
            Self::Stats { .. } => Op::Stats,
            Self::Wake => Op::Wake,
            Self::ResetAt { .. } => Op::ResetAt,
        }
    }

    /// The session that it is about.
    #[must_use]
    pub const fn handle(&self) -> Option<Handle> {
        match *self {
            Self::Listen { .. } | Self::Connect { .. } | Self::Wake => None,
            Self::Accept { handle }
            | Self::Refuse { handle, .. }
            | Self::Close { handle, .. }
            | Self::Stats { handle, .. } => Some(handle),
            Self::OpenBi { connection, .. } | Self::OpenUni { connection, .. } | Self::Datagram { connection, .. } => {
                Some(connection)
            }
            Self::Write { stream, .. }
            | Self::Finish { stream }
            | Self::Consumed { stream, .. }
            | Self::Reset { stream, .. }
            | Self::ResetAt { stream, .. }
            | Self::Stop { stream, .. } => Some(stream),
        }
    }

    /// The 32 bytes and what goes beside them.
    #[must_use]
    pub fn split(self) -> (Raw, Option<Payload>) {
        let (op, handle) = (self.op(), self.handle());
        let head = |arg| Raw::new(op, handle, arg);
        match self {
            Self::Listen { token, at: endpoint } | Self::Connect { token, to: endpoint } => {
                (head(token), Some(Payload::Endpoint(endpoint)))
            }
            Self::Accept { .. } | Self::Finish { .. } | Self::Wake => (head(0), None),
            Self::OpenBi { token, .. } | Self::OpenUni { token, .. } | Self::Stats { token, .. } => (head(token), None),
            Self::Refuse { code, .. } | Self::Reset { code, .. } | Self::Stop { code, .. } => (head(code), None),
            Self::Consumed { bytes, .. } => (head(bytes), None),
            Self::Write { data, fin, .. } => (head(0).sized(&data).flagged(u8::from(fin)), Some(Payload::Bytes(data))),
            Self::Close { code, reason, .. } => (head(code).sized(&reason), Some(Payload::Bytes(reason))),
            Self::Datagram { data, tag, .. } => {
                let raw = head(tag.unwrap_or(0)).sized(&data).flagged(u8::from(tag.is_some()));
                (raw, Some(Payload::Bytes(data)))
            }
            Self::ResetAt { code, reliable_size, .. } => (head(code).numbered(reliable_size), None),
        }
    }

    /// Puts a message together, checking every field.
    pub fn join(raw: Raw, payload: Option<Payload>) -> Result<Self, BadMessage> {
        let op = Op::from_byte(raw.op).ok_or(BadMessage::Op)?;
        let mut parts = Parts::new(raw, payload)?;
        let submission = match op {
            Op::Listen => Self::Listen { token: parts.arg(), at: parts.endpoint()? },
            Op::Connect => Self::Connect { token: parts.arg(), to: parts.endpoint()? },
            Op::Accept => Self::Accept { handle: parts.handle()? },
            Op::Refuse => Self::Refuse { handle: parts.handle()?, code: parts.arg() },
            Op::OpenBi => Self::OpenBi { connection: parts.connection()?, token: parts.arg() },
            Op::OpenUni => Self::OpenUni { connection: parts.connection()?, token: parts.arg() },
            Op::Write => Self::Write { stream: parts.stream()?, data: parts.bytes()?, fin: parts.fin()? },
            Op::Finish => Self::Finish { stream: parts.stream()? },
            Op::Consumed => Self::Consumed { stream: parts.stream()?, bytes: parts.arg() },
            Op::Reset => Self::Reset { stream: parts.stream()?, code: parts.arg() },
            Op::Stop => Self::Stop { stream: parts.stream()?, code: parts.arg() },
            Op::Close => Self::Close { handle: parts.handle()?, code: parts.arg(), reason: parts.bytes()? },
            Op::Datagram => Self::Datagram { connection: parts.connection()?, tag: parts.tag()?, data: parts.bytes()? },
            Op::ResetAt => Self::ResetAt { stream: parts.stream()?, code: parts.arg(), reliable_size: parts.number() },
            Op::Stats => Self::Stats { handle: parts.handle()?, token: parts.arg() },
            Op::Wake => Self::Wake,
            _ => return Err(BadMessage::Op),
        };
        parts.finish()?;
        Ok(submission)
    }
}

impl Completion {
    /// What is said.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self {
            Self::Opened { .. } => Op::Opened,
            Self::Failed { .. } => Op::Failed,
            Self::Established { .. } => Op::Established,
            Self::Accepted { .. } => Op::Accepted,
            Self::CreditGranted { .. } => Op::CreditGranted,
            Self::AllAcked { .. } => Op::AllAcked,
            Self::Readable { .. } => Op::Readable,
            Self::Data { .. } => Op::Data,
            Self::Reset { .. } => Op::WasReset,
            Self::Stopped { .. } => Op::Stopped,
            Self::Closed { .. } => Op::Closed,
            Self::Datagram { .. } => Op::DatagramIn,
            Self::Stats { .. } => Op::StatsReply,
            Self::Rejected { .. } => Op::Rejected,
            Self::Wake => Op::WakeUp,
            Self::DatagramFate { .. } => Op::DatagramFate,
            Self::DatagramRoom { .. } => Op::DatagramRoom,
            Self::Addresses { .. } => Op::Addresses,
        }
    }

    /// The session that it is about.
    #[must_use]
    pub const fn handle(&self) -> Option<Handle> {
        match *self {
            Self::Failed { .. } | Self::Wake => None,
            Self::Opened { handle, .. }
            | Self::Accepted { handle, .. }
            | Self::Closed { handle, .. }
            | Self::Stats { handle, .. }
            | Self::Addresses { handle, .. }
            | Self::Rejected { handle, .. } => Some(handle),
            Self::Established { connection }
            | Self::Datagram { connection, .. }
            | Self::DatagramFate { connection, .. }
            | Self::DatagramRoom { connection } => Some(connection),
            Self::CreditGranted { stream, .. }
            | Self::AllAcked { stream }
            | Self::Readable { stream }
            | Self::Data { stream, .. }
            | Self::Reset { stream, .. }
            | Self::Stopped { stream, .. } => Some(stream),
        }
    }

    /// The 32 bytes and what goes beside them.
    #[must_use]
    pub fn split(self) -> (Raw, Option<Payload>) {
        let (op, handle) = (self.op(), self.handle());
        let head = |arg| Raw::new(op, handle, arg);
        match self {
            Self::Opened { token, number, .. } => (head(token).numbered(number), None),
            Self::Failed { token, reason, text } => {
                (head(token).sized(&text).flagged(reason), Some(Payload::Bytes(text)))
            }
            Self::Accepted { parent, number, .. } => (head(parent.raw()).numbered(number), None),
            Self::CreditGranted { limit, .. } => (head(limit), None),
            Self::Established { .. }
            | Self::AllAcked { .. }
            | Self::Readable { .. }
            | Self::DatagramRoom { .. }
            | Self::Wake => (head(0), None),
            Self::DatagramFate { tag, arrived, .. } => (head(tag).flagged(u8::from(arrived)), None),
            Self::Reset { code, .. } | Self::Stopped { code, .. } => (head(code), None),
            Self::Closed { code, reason, text, .. } => {
                (head(code).sized(&text).flagged(reason), Some(Payload::Bytes(text)))
            }
            Self::Rejected { op, why, .. } => (head(u64::from(op.byte())).flagged(rejection_byte(why)), None),
            Self::Data { offset, data, fin, .. } => {
                (head(offset).sized(&data).flagged(u8::from(fin)), Some(Payload::Bytes(data)))
            }
            Self::Datagram { data, .. } => (head(0).sized(&data), Some(Payload::Bytes(data))),
            Self::Stats { token, stats, .. } => (head(token), Some(Payload::Stats(stats))),
            Self::Addresses { ends, .. } => (head(0), Some(Payload::Addresses(ends))),
        }
    }

    /// Puts a message together, checking every field.
    pub fn join(raw: Raw, payload: Option<Payload>) -> Result<Self, BadMessage> {
        let op = Op::from_byte(raw.op).ok_or(BadMessage::Op)?;
        let mut parts = Parts::new(raw, payload)?;
        let completion = match op {
            Op::Opened => Self::Opened { token: parts.arg(), handle: parts.handle()?, number: parts.number() },
            Op::Failed => Self::Failed { token: parts.arg(), reason: parts.reason(), text: parts.bytes()? },
            Op::Established => Self::Established { connection: parts.connection()? },
            Op::Accepted => {
                let parent = Handle::from_raw(parts.arg()).filter(|parent| parent.kind().is_connectable_listener());
                let parent = parent.ok_or(BadMessage::Handle)?;
                Self::Accepted { handle: parts.handle()?, parent, number: parts.number() }
            }
            Op::CreditGranted => Self::CreditGranted { stream: parts.stream()?, limit: parts.arg() },
            Op::AllAcked => Self::AllAcked { stream: parts.stream()? },
            Op::Readable => Self::Readable { stream: parts.stream()? },
            Op::Data => {
                Self::Data { stream: parts.stream()?, offset: parts.arg(), data: parts.bytes()?, fin: parts.fin()? }
            }
            Op::WasReset => Self::Reset { stream: parts.stream()?, code: parts.arg() },
            Op::Stopped => Self::Stopped { stream: parts.stream()?, code: parts.arg() },
            Op::Closed => Self::Closed {
                handle: parts.handle()?,
                code: parts.arg(),
                reason: parts.reason(),
                text: parts.bytes()?,
            },
            Op::DatagramIn => Self::Datagram { connection: parts.connection()?, data: parts.bytes()? },
            Op::StatsReply => Self::Stats { handle: parts.handle()?, token: parts.arg(), stats: parts.stats()? },
            Op::Rejected => Self::Rejected { handle: parts.handle()?, op: parts.rejected_op()?, why: parts.why()? },
            Op::WakeUp => Self::Wake,
            Op::DatagramFate => {
                Self::DatagramFate { connection: parts.connection()?, tag: parts.arg(), arrived: parts.fin()? }
            }
            Op::DatagramRoom => Self::DatagramRoom { connection: parts.connection()? },
            Op::Addresses => Self::Addresses { handle: parts.handle()?, ends: parts.addresses()? },
            _ => return Err(BadMessage::Op),
        };
        parts.finish()?;
        Ok(completion)
    }
}
