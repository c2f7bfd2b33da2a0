//! Putting a message together from its fields, each of which is used once.

use bytes::Bytes;

use super::{
    Addresses, Endpoint, Rejection, SessionStats,
    raw::{BadMessage, FIN, Op, Payload, Raw},
};
use crate::handle::{Handle, HandleError, Kind};

const REJECTIONS: [Rejection; 6] = [
    Rejection::Handle(HandleError::Late),
    Rejection::Handle(HandleError::Unknown),
    Rejection::Handle(HandleError::Foreign),
    Rejection::Handle(HandleError::WrongKind),
    Rejection::Overrun,
    Rejection::Argument,
];

pub(super) const fn rejection_byte(why: Rejection) -> u8 {
    match why {
        Rejection::Handle(HandleError::Late) => 1,
        Rejection::Handle(HandleError::Unknown) => 2,
        Rejection::Handle(HandleError::Foreign) => 3,
        Rejection::Handle(HandleError::WrongKind) => 4,
        Rejection::Overrun => 5,
        Rejection::Argument => 6,
    }
}

/// Fields and payload of a message while it is put together. Each field is zeroed when it is used, so that what is left
/// in the end must be zero: no field can say anything that the message does not.
pub(super) struct Parts {
    raw: Raw,
    payload: Option<Payload>,
}

impl Parts {
    pub(super) fn new(raw: Raw, payload: Option<Payload>) -> Result<Self, BadMessage> {
        if raw.reserved != [0; 6] {
            return Err(BadMessage::Field);
        }
        // With a payload the chunk number is not the message's.
        let chunk = if payload.is_some() { 0 } else { raw.chunk };
        Ok(Self { raw: Raw { op: 0, chunk, ..raw }, payload })
    }

    pub(super) fn arg(&mut self) -> u64 {
        core::mem::take(&mut self.raw.arg)
    }

    pub(super) fn reason(&mut self) -> u8 {
        core::mem::take(&mut self.raw.flags)
    }

    pub(super) fn number(&mut self) -> u64 {
        let (low, high) = (core::mem::take(&mut self.raw.len), core::mem::take(&mut self.raw.chunk));
        u64::from(high) << 32 | u64::from(low)
    }

    pub(super) fn handle(&mut self) -> Result<Handle, BadMessage> {
        Handle::from_raw(core::mem::take(&mut self.raw.handle)).ok_or(BadMessage::Handle)
    }

    pub(super) fn of_kind(&mut self, kind: Kind) -> Result<Handle, BadMessage> {
        let handle = self.handle()?;
        if handle.kind() == kind { Ok(handle) } else { Err(BadMessage::Handle) }
    }

    pub(super) fn connection(&mut self) -> Result<Handle, BadMessage> {
        self.of_kind(Kind::Connection)
    }

    pub(super) fn stream(&mut self) -> Result<Handle, BadMessage> {
        self.of_kind(Kind::Stream)
    }

    pub(super) fn fin(&mut self) -> Result<bool, BadMessage> {
        match core::mem::take(&mut self.raw.flags) {
            0 => Ok(false),
            FIN => Ok(true),
            _ => Err(BadMessage::Field),
        }
    }

    /// A tag; without the flag the field has to be zero.
    pub(super) fn tag(&mut self) -> Result<Option<u64>, BadMessage> {
        Ok(if self.fin()? { Some(self.arg()) } else { None })
    }

    pub(super) fn rejected_op(&mut self) -> Result<Op, BadMessage> {
        u8::try_from(self.arg()).ok().and_then(Op::from_byte).ok_or(BadMessage::Field)
    }

    pub(super) fn why(&mut self) -> Result<Rejection, BadMessage> {
        let byte = core::mem::take(&mut self.raw.flags);
        REJECTIONS.into_iter().find(|why| rejection_byte(*why) == byte).ok_or(BadMessage::Field)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, BadMessage> {
        let announced = core::mem::take(&mut self.raw.len);
        match self.payload.take() {
            Some(Payload::Bytes(bytes)) if u32::try_from(bytes.len()) == Ok(announced) => Ok(bytes),
            _ => Err(BadMessage::Payload),
        }
    }

    pub(super) fn endpoint(&mut self) -> Result<Box<Endpoint>, BadMessage> {
        match self.payload.take() {
            Some(Payload::Endpoint(endpoint)) => Ok(endpoint),
            _ => Err(BadMessage::Payload),
        }
    }

    pub(super) fn addresses(&mut self) -> Result<Box<Addresses>, BadMessage> {
        match self.payload.take() {
            Some(Payload::Addresses(ends)) => Ok(ends),
            _ => Err(BadMessage::Payload),
        }
    }

    pub(super) fn stats(&mut self) -> Result<Box<SessionStats>, BadMessage> {
        match self.payload.take() {
            Some(Payload::Stats(stats)) => Ok(stats),
            _ => Err(BadMessage::Payload),
        }
    }

    /// Everything was used.
    pub(super) fn finish(self) -> Result<(), BadMessage> {
        match self {
            Self { payload: Some(_), .. } => Err(BadMessage::Payload),
            Self { raw, .. } if raw == Raw::default() => Ok(()),
            Self { raw, .. } if raw.handle != 0 => Err(BadMessage::Handle),
            Self { .. } => Err(BadMessage::Field),
        }
    }
}
