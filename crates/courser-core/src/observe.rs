//! Typed events for statistics and traces. An event is built only when somebody wants its kind.

use crate::error::CloseReason;
use crate::ids::{ConnKey, Level, PacketNumber, Side};
use crate::spans::{Fate, FrameSet};
use crate::time::Instant;

/// Kinds of events, as bit positions of [`Interest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Event::PacketSent`].
    PacketSent,
    /// [`Event::PacketReceived`].
    PacketReceived,
    /// [`Event::PacketFate`].
    PacketFate,
    /// [`Event::DatagramBuilt`] for each packet, and [`Event::DatagramSealed`].
    DatagramBuilt,
    /// [`Event::Congestion`].
    Congestion,
    /// [`Event::Life`].
    Life,
}

/// Which kinds an observer wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest(u16);

impl Interest {
    /// Nothing: observation costs one test of a bit.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(u16::MAX);

    /// The same with one kind more.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// Whether the kind is wanted.
    #[must_use]
    pub const fn wants(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// A step in a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step<'a> {
    /// Created.
    Started,
    /// TLS is complete at this end.
    HandshakeComplete,
    /// The handshake is confirmed (RFC 9001 section 4.1.2).
    HandshakeConfirmed,
    /// Keys of a level came.
    KeysInstalled(Level),
    /// Keys of a level went.
    KeysDiscarded(Level),
    /// A key update to this phase.
    KeyUpdate(u64),
    /// Closing or draining began.
    Closing(&'a CloseReason),
    /// Freed.
    Ended,
}

/// Something that happened in a connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A packet was built and sealed.
    PacketSent {
        /// Level.
        level: Level,
        /// Number.
        pn: PacketNumber,
        /// Bytes with header and tag.
        size: usize,
        /// Frames.
        frames: FrameSet,
    },
    /// A packet was opened and processed.
    PacketReceived {
        /// Level.
        level: Level,
        /// Number.
        pn: PacketNumber,
        /// Bytes with header and tag.
        size: usize,
        /// Frames.
        frames: FrameSet,
    },
    /// A sent packet's fate is known.
    PacketFate {
        /// Level.
        level: Level,
        /// Number.
        pn: PacketNumber,
        /// What became of it.
        fate: Fate,
    },
    /// A packet as it was built, before sealing: what the legality checker looks at.
    DatagramBuilt {
        /// Level.
        level: Level,
        /// Number.
        pn: PacketNumber,
        /// The header in plaintext, packet number included.
        header: &'a [u8],
        /// Bytes of the whole packet with its tag.
        packet_len: usize,
        /// Frames that were recorded for it, to be settled by its fate.
        recorded: FrameSet,
        /// Frames in plaintext; complete, also where the last STREAM frame is sealed from elsewhere.
        payload: &'a [u8],
    },
    /// The packets since the last such event are one datagram now.
    DatagramSealed {
        /// Which end built it.
        from: Side,
        /// Its bytes.
        len: usize,
        /// The most that path and peer are known or asked to take.
        len_max: usize,
        /// The limit before the peer's address is validated leaves no room for a datagram of 1,200 bytes.
        limited: bool,
    },
    /// The congestion state changed.
    Congestion {
        /// Window in bytes.
        window: u64,
        /// Bytes in flight.
        in_flight: u64,
        /// Smoothed round-trip time in microseconds.
        srtt_us: u64,
    },
    /// A step in its life.
    Life(Step<'a>),
}

/// Somebody who watches connections.
pub trait Observer: Send {
    /// Which kinds to build; asked once when the observer is installed.
    fn interest(&self) -> Interest;

    /// Called for each event of a wanted kind.
    fn on(&mut self, now: Instant, key: ConnKey, event: &Event<'_>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interest_is_a_set() {
        let i = Interest::NONE.with(Kind::Life);
        assert!(i.wants(Kind::Life) && !i.wants(Kind::PacketSent));
        assert!(Interest::ALL.wants(Kind::DatagramBuilt));
    }
}
