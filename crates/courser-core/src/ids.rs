//! Names of things: streams, packet numbers, connection IDs, levels, versions, connections, paths.

use core::fmt;

/// Which end of the connection somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The end that sends the first packet.
    Client,
    /// The end that answers.
    Server,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Whether this is the client.
    #[must_use]
    pub const fn is_client(self) -> bool {
        matches!(self, Self::Client)
    }

    /// Whether this is the server.
    #[must_use]
    pub const fn is_server(self) -> bool {
        matches!(self, Self::Server)
    }
}

/// Whether a stream carries data one way or both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    /// Both ends send.
    Bi,
    /// Only the initiator sends.
    Uni,
}

/// A stream's 62-bit identifier (RFC 9000 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The `index`-th stream of that initiator and direction.
    #[must_use]
    pub const fn new(initiator: Side, dir: Dir, index: u64) -> Self {
        Self(index << 2 | (matches!(dir, Dir::Uni) as u64) << 1 | initiator.is_server() as u64)
    }

    /// Who opened the stream.
    #[must_use]
    pub const fn initiator(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// One-way or two-way.
    #[must_use]
    pub const fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bi } else { Dir::Uni }
    }

    /// How many streams of the same initiator and direction come before this one.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }

    /// Whether `side` may send data on this stream.
    #[must_use]
    pub fn sends(self, side: Side) -> bool {
        self.dir() == Dir::Bi || self.initiator() == side
    }

    /// Whether `side` may receive data on this stream.
    #[must_use]
    pub fn receives(self, side: Side) -> bool {
        self.sends(side.peer())
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A full packet number; at most 2^62 - 1.
pub type PacketNumber = u64;

/// The largest value that a variable-length integer holds.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// Encryption level, in the order in which packets are coalesced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Initial packets.
    Initial,
    /// 0-RTT packets.
    ZeroRtt,
    /// Handshake packets.
    Handshake,
    /// 1-RTT packets.
    OneRtt,
}

impl Level {
    /// All levels in coalescing order.
    pub const ALL: [Self; 4] = [Self::Initial, Self::ZeroRtt, Self::Handshake, Self::OneRtt];

    /// The packet number space that the level counts in.
    #[must_use]
    pub const fn space(self) -> Space {
        match self {
            Self::Initial => Space::Initial,
            Self::Handshake => Space::Handshake,
            Self::ZeroRtt | Self::OneRtt => Space::Data,
        }
    }
}

/// Packet number space (RFC 9000 section 12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Initial packets.
    Initial,
    /// Handshake packets.
    Handshake,
    /// 0-RTT and 1-RTT packets.
    Data,
}

impl Space {
    /// All spaces, earliest first.
    pub const ALL: [Self; 3] = [Self::Initial, Self::Handshake, Self::Data];

    /// Position in arrays of three.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The level that acknowledgements of this space travel in.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Initial => Level::Initial,
            Self::Handshake => Level::Handshake,
            Self::Data => Level::OneRtt,
        }
    }
}

/// A QUIC version number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// RFC 9000.
    pub const V1: Self = Self(1);
    /// RFC 9369.
    pub const V2: Self = Self(0x6b33_43cf);
    /// What marks a Version Negotiation packet.
    pub const NEGOTIATION: Self = Self(0);

    /// Whether this implementation speaks the version.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        matches!(self, Self::V1 | Self::V2)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V1 => f.write_str("v1"),
            Self::V2 => f.write_str("v2"),
            Self(other) => write!(f, "{other:#010x}"),
        }
    }
}

/// The longest connection ID of versions 1 and 2, in bytes.
pub const CID_LEN_MAX: usize = 20;

/// A connection ID of at most 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid {
    len: u8,
    bytes: [u8; CID_LEN_MAX],
}

impl Cid {
    /// The connection ID without bytes.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; CID_LEN_MAX] };

    /// A connection ID with these bytes; `None` when there are more than 20.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut cid = Self::EMPTY;
        cid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        cid.len = u8::try_from(bytes.len()).ok()?;
        Some(cid)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl AsRef<[u8]> for Cid {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Length of a stateless reset token in bytes.
pub const RESET_TOKEN_LEN: usize = 16;

/// A stateless reset token (RFC 9000 section 10.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResetToken(pub [u8; RESET_TOKEN_LEN]);

impl fmt::Debug for ResetToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret until it is used.
        f.write_str("ResetToken(..)")
    }
}

/// A connection inside one engine. A key is never valid again after its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey {
    /// Slot in the engine's table.
    pub index: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

/// Position of a path in its connection's table of at most four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(pub u8);

impl PathId {
    /// Paths of a connection at once.
    pub const SLOTS: usize = 4;

    /// Its position.
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 & 3) as usize
    }
}

/// Explicit congestion notification mark of an IP packet (RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct,
    /// ECT(1), used by L4S.
    Ect1,
    /// ECT(0).
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// From the two low bits of the traffic class.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two low bits of the traffic class.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_follow_the_table() {
        for (id, side, dir) in [
            (0, Side::Client, Dir::Bi),
            (1, Side::Server, Dir::Bi),
            (2, Side::Client, Dir::Uni),
            (3, Side::Server, Dir::Uni),
        ] {
            let s = StreamId(id + 4 * 7);
            assert_eq!((s.initiator(), s.dir(), s.index()), (side, dir, 7));
            assert_eq!(StreamId::new(side, dir, 7), s);
            assert!(s.sends(side));
            assert_eq!(s.sends(side.peer()), dir == Dir::Bi);
            assert_eq!(s.receives(side), dir == Dir::Bi);
        }
    }

    #[test]
    fn connection_ids_have_at_most_twenty_bytes() {
        //= rfc9000#17.2-2 type=test
        //= rfc9000#17.2-5 type=test
        assert_eq!(Cid::new(&[7; 20]).map(|c| c.len()), Some(20));
        assert!(Cid::new(&[7; 21]).is_none());
        assert!(Cid::EMPTY.is_empty());
        assert_eq!(Cid::new(&[0xab, 1]).unwrap().to_string(), "ab01");
    }

    #[test]
    fn sizes() {
        assert_eq!(size_of::<Cid>(), 21);
        assert_eq!(size_of::<ConnKey>(), 8);
    }
}
