//! Typed events for statistics and traces. An event is built only when somebody wants its kind.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::config::TransportParams;
use crate::error::CloseReason;
use crate::ids::{Cid, ConnKey, Level, PacketNumber, Side, Space, StreamId, Version};
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
    /// [`Event::Congestion`] and [`Event::ProbeTimeout`].
    Congestion,
    /// [`Event::Life`].
    Life,
    /// [`Event::PacketOpened`].
    PacketOpened,
    /// [`Event::PacketDropped`] and [`Event::PacketBuffered`].
    PacketDropped,
    /// [`Event::Moved`].
    Data,
    /// [`Event::Limited`].
    Limit,
    /// [`Event::Path`].
    Path,
    /// [`Event::Note`].
    Note,
}

/// What keeps a connection from sending more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Limit {
    /// It has nothing to send: the application, or during the handshake the peer, is to speak.
    #[default]
    Application,
    /// All that waits is on streams for which the peer grants nothing more.
    StreamCredit,
    /// What waits is more than the peer grants the connection.
    ConnCredit,
    /// As much is in flight as congestion control lets be.
    CongestionWindow,
    /// The pacer spreads what may leave.
    Pacing,
    /// The peer's address is not proven, and three times what came from it was sent.
    Amplification,
    /// It could send: the socket is full, or this machine is busy with something else.
    Socket,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Application,
        Self::StreamCredit,
        Self::ConnCredit,
        Self::CongestionWindow,
        Self::Pacing,
        Self::Amplification,
        Self::Socket,
    ];

    /// One word for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::StreamCredit => "stream_credit",
            Self::ConnCredit => "connection_credit",
            Self::CongestionWindow => "congestion_window",
            Self::Pacing => "pacing",
            Self::Amplification => "amplification",
            Self::Socket => "socket",
        }
    }
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// It had been received before.
    Duplicate,
    /// It could not be opened.
    NotAuthentic,
    /// Its header has no sense here: another version, another connection ID, too short, a Retry that is none.
    Unexpected,
    /// Its keys are not there, and will not come or there is no room to wait for them.
    NoKeys,
    /// Its datagram came from an address that is not the peer's.
    Address,
}

/// Which way data goes between application and transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// To the application.
    In,
    /// From the application.
    Out,
}

/// Where congestion control is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The window doubles per round trip.
    SlowStart,
    /// After a congestion event, until a packet that was sent later is acknowledged.
    Recovery,
    /// The window grows slowly.
    Avoidance,
}

/// Whether a path carries ECN marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Marks {
    /// Packets are marked to find out.
    Testing,
    /// Waiting for the verdict.
    Unknown,
    /// They pass.
    Capable,
    /// They do not pass, or are not wanted.
    Failed,
}

/// Recovery and congestion control of the path in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Window in bytes.
    pub window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Slow start threshold in bytes; `None` before the first congestion.
    pub ssthresh: Option<u64>,
    /// Newest round-trip time; the assumed one as long as there is no sample.
    pub latest_rtt: Duration,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Smallest round-trip time.
    pub min_rtt: Duration,
    /// Mean deviation of the round-trip time.
    pub rtt_var: Duration,
    /// Whether any of them was measured.
    pub rtt_known: bool,
    /// Probe timeouts in a row.
    pub pto_count: u32,
    /// What the pacer lets go, in bytes per second.
    pub pacing_rate: u64,
    /// Largest datagram that is sent now, in bytes of UDP payload.
    pub mtu: u16,
    /// Whether the search for a larger one has ended.
    pub mtu_done: bool,
    /// Where congestion control is.
    pub phase: Phase,
    /// Whether marks pass.
    pub marks: Marks,
}

/// How a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start<'a> {
    /// Which end this is.
    pub side: Side,
    /// Version of the first packet.
    pub version: Version,
    /// Versions that this end speaks, best first.
    pub versions: &'a [Version],
    /// Destination connection ID of the client's very first packet: names the connection at both ends.
    pub original_dcid: Cid,
    /// Our connection ID.
    pub local_cid: Cid,
    /// The peer's connection ID, as far as known.
    pub remote_cid: Cid,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address, when the socket told.
    pub local: Option<IpAddr>,
    /// Our transport parameters, without connection IDs and tokens.
    pub params: &'a TransportParams,
    /// Recovery and congestion control before anything is known.
    pub metrics: Metrics,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathStep {
    /// It is being validated, beside the one in use.
    Probing,
    /// The peer answered on it.
    Validated,
    /// The peer did not answer on it.
    Failed,
    /// The connection moves to it: the peer's doing, or ours. It may have to be validated yet.
    Moving,
    /// The connection moved, and the path is proven.
    Moved,
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
    Started(&'a Start<'a>),
    /// None of the first packets was authentic: there never was a connection. Nothing follows.
    Dismissed,
    /// The peer's transport parameters.
    PeerParams(&'a TransportParams),
    /// What the peer granted an earlier connection, and what holds for 0-RTT.
    Restored(&'a TransportParams),
    /// The application protocol that TLS settled on.
    Alpn(Option<&'a [u8]>),
    /// A server's list of versions, all unknown here.
    VersionsOffered(&'a [Version]),
    /// TLS is complete at this end.
    HandshakeComplete,
    /// The handshake is confirmed (RFC 9001 section 4.1.2).
    HandshakeConfirmed,
    /// Keys of a level came.
    KeysInstalled(Level),
    /// Keys of a level went.
    KeysDiscarded(Level),
    /// The sending keys were updated.
    KeyUpdate {
        /// How often, this time included.
        generation: u64,
        /// The peer began it.
        remote: bool,
    },
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
        /// Bytes with header and tag.
        size: u16,
        /// What became of it.
        fate: Fate,
        /// It was declared lost before and is acknowledged now.
        spurious: bool,
        /// Lost because of the packets that overtook it; otherwise because of the time that went by.
        overtaken: bool,
        /// A probe of the path's datagram size.
        mtu_probe: bool,
    },
    /// A packet was opened; its frames follow one by one to their owners.
    PacketOpened {
        /// Level.
        level: Level,
        /// Number.
        pn: PacketNumber,
        /// The header in plaintext, packet number included.
        header: &'a [u8],
        /// Bytes of the whole packet with its tag.
        packet_len: usize,
        /// Frames in plaintext.
        payload: &'a [u8],
        /// It had waited for its keys.
        waited: bool,
    },
    /// A packet, or a whole datagram, was dropped.
    PacketDropped {
        /// Level, where it could be read.
        level: Option<Level>,
        /// Bytes.
        size: usize,
        /// Why.
        why: Dropped,
    },
    /// A packet waits for its keys.
    PacketBuffered {
        /// Level.
        level: Level,
        /// Bytes.
        size: usize,
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
        /// A probe of the path's datagram size.
        mtu_probe: bool,
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
    /// Recovery or congestion control changed.
    Congestion(Metrics),
    /// A probe timeout fired.
    ProbeTimeout {
        /// Whose packets went without an acknowledgement.
        space: Space,
        /// How many in a row.
        count: u32,
    },
    /// Sending stops for another reason than before.
    Limited {
        /// What had limited the connection.
        before: Limit,
        /// For how long, at least: since it was last counted.
        held: Duration,
        /// What limits it now.
        by: Limit,
    },
    /// Data went between the application and the transport.
    Moved {
        /// The stream; `None` for a datagram.
        stream: Option<StreamId>,
        /// Bytes.
        len: usize,
        /// Which way.
        way: Way,
        /// The end of the stream went with it.
        fin: bool,
    },
    /// Something happened to a path.
    Path {
        /// What.
        step: PathStep,
        /// The peer's address on it.
        remote: SocketAddr,
        /// Our address on it, when known.
        local: Option<IpAddr>,
    },
    /// A step in its life.
    Life(Step<'a>),
    /// What a protocol above has to say, in words that it and its observer agreed on.
    Note(&'a [u8]),
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
