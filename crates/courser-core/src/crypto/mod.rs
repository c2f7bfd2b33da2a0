//! The edges of cryptography: traits that a provider implements.
//!
//! The core protects packets and runs TLS through these traits only. `dyn` calls cost 1.5 ns beside about 300 ns of
//! AEAD per packet.
//!
//! Packets go through in batches of one key: a train of datagrams is sealed in one call, and a train that came in is
//! unmasked in one call. A provider may implement the forms for one packet alone; those for batches follow from them.

use core::ops::Range;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::PeerViolation;
use crate::ids::{Cid, Level, PacketNumber, Side, Version};

/// Length of the authentication tag of every QUIC cipher suite, in bytes.
pub const TAG_LEN: usize = 16;

/// Length of the header protection sample, in bytes.
pub const SAMPLE_LEN: usize = 16;

/// Longest traffic secret, in bytes (SHA-384).
pub const SECRET_LEN_MAX: usize = 48;

/// Cipher suites of QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// TLS_AES_128_GCM_SHA256.
    Aes128Gcm,
    /// TLS_AES_256_GCM_SHA384.
    Aes256Gcm,
    /// TLS_CHACHA20_POLY1305_SHA256.
    ChaCha20Poly1305,
}

impl Suite {
    /// Packets that may be protected with one key (RFC 9001 section 6.6).
    #[must_use]
    pub const fn confidentiality_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 23,
            Self::ChaCha20Poly1305 => 1 << 62,
        }
    }

    /// Packets that may fail to authenticate over the life of a connection (RFC 9001 section 6.6).
    #[must_use]
    pub const fn integrity_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 52,
            Self::ChaCha20Poly1305 => 1 << 36,
        }
    }
}

/// A traffic secret; 32 or 48 bytes. It is erased when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    len: u8,
    bytes: [u8; SECRET_LEN_MAX],
}

impl Secret {
    /// A secret with these bytes; `None` when there are more than 48.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self { len: u8::try_from(bytes.len()).ok()?, bytes: [0; SECRET_LEN_MAX] };
        secret.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(secret)
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Most bytes of a packet protection key.
pub const KEY_LEN_MAX: usize = 32;

/// What a traffic secret gives for one direction (RFC 9001 section 5.1): a provider's key objects are made from it. They are
/// many times as large, and making them from this takes a fraction of the time that the secret would take, so this is what
/// an idle connection keeps. It is erased when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The AEAD key, in its first bytes.
    pub key: [u8; KEY_LEN_MAX],
    /// The header protection key, in its first bytes. It outlives key updates.
    pub header: [u8; KEY_LEN_MAX],
    /// The IV.
    pub iv: [u8; 12],
}

impl Material {
    /// Nothing but zeros, for a provider to fill in.
    #[must_use]
    pub const fn empty() -> Self {
        Self { key: [0; KEY_LEN_MAX], header: [0; KEY_LEN_MAX], iv: [0; 12] }
    }

    /// The same with the header protection key of the first secret (RFC 9001 section 6.1).
    #[must_use]
    pub fn with_header_of(mut self, first: &Self) -> Self {
        self.header = first.header;
        self
    }
}

impl Drop for Material {
    fn drop(&mut self) {
        self.key.zeroize();
        self.header.zeroize();
        self.iv.zeroize();
    }
}

impl ZeroizeOnDrop for Material {}

impl core::fmt::Debug for Material {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Material(..)")
    }
}

/// Where things lie in a packet that is to be sealed.
///
/// The packet is laid out as header (with an unprotected packet number at `pn_at`), plaintext prefix from `payload_at`,
/// room for the tail, room for the tag: `packet.len() == payload_at + prefix + tail.len() + TAG_LEN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Offset of the packet number.
    pub pn_at: usize,
    /// Offset of the payload; `pn_at` plus 1 to 4.
    pub payload_at: usize,
}

/// One packet of a batch that is to be sealed.
#[derive(Debug, Default)]
pub struct Sealing<'a> {
    /// Its number.
    pub pn: PacketNumber,
    /// The packet, laid out as [`Head`] says.
    pub packet: &'a mut [u8],
    /// Where its parts lie.
    pub head: Head,
    /// The plaintext that belongs behind the prefix.
    pub tail: &'a [u8],
}

/// One packet of a batch whose header protection is to be removed.
#[derive(Debug, Default)]
pub struct Unmasking<'a> {
    /// The packet; it ends where the packet ends.
    pub packet: &'a mut [u8],
    /// Offset of the packet number.
    pub pn_at: usize,
    /// The truncated packet number with its length in bytes (1 to 4); `None` as long as the packet is not unmasked.
    pub number: Option<(u32, usize)>,
}

/// Sealing failed; only an exhausted key or a broken layout can cause it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoFailed;

impl core::fmt::Display for CryptoFailed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the cryptographic library refused")
    }
}

impl core::error::Error for CryptoFailed {}

/// Protects packets of one level in one direction.
pub trait Sealer: Send {
    /// Encrypts the plaintext prefix in place and `tail` from where it lies, writes the tag, and applies header
    /// protection.
    ///
    /// # Errors
    /// [`CryptoFailed`] when the layout does not fit or the library refuses; the packet must not be sent then.
    fn seal(&self, pn: PacketNumber, packet: &mut [u8], head: Head, tail: &[u8]) -> Result<(), CryptoFailed>;

    /// Seals each packet of a batch; the bytes are those that [`seal`](Self::seal) makes.
    ///
    /// # Errors
    /// [`CryptoFailed`] when one packet cannot be sealed; no packet of the batch must be sent then.
    fn seal_batch(&self, packets: &mut [Sealing<'_>]) -> Result<(), CryptoFailed> {
        packets.iter_mut().try_for_each(|p| self.seal(p.pn, p.packet, p.head, p.tail))
    }
}

/// Opens packets of one level in one direction.
pub trait Opener: Send {
    /// Removes header protection in place and returns the truncated packet number with its length in bytes (1 to 4).
    /// `None` when the packet is too short for a sample; nothing is changed then.
    fn unmask(&self, packet: &mut [u8], pn_at: usize) -> Option<(u32, usize)>;

    /// Removes the header protection of each packet of a batch in place, as [`unmask`](Self::unmask) does, and notes its
    /// number. A packet that is too short is left unchanged and without number; the others do not suffer.
    fn unmask_batch(&self, packets: &mut [Unmasking<'_>]) {
        for p in packets {
            p.number = self.unmask(p.packet, p.pn_at);
        }
    }

    /// Authenticates and decrypts in place. `header` is the length of the header including the packet number. Returns
    /// where the plaintext lies, or `None` when the packet is not authentic; the payload is garbage then.
    fn open(&self, pn: PacketNumber, packet: &mut [u8], header: usize) -> Option<Range<usize>>;
}

/// Both directions of one level.
pub struct Keys {
    /// For what we send.
    pub seal: Box<dyn Sealer>,
    /// For what we receive.
    pub open: Box<dyn Opener>,
}

/// Makes keys; shared by all connections of an engine.
pub trait KeyFactory: Send + Sync {
    /// Initial keys of `side` (RFC 9001 section 5.2, RFC 9369 section 3.3).
    fn initial(&self, version: Version, dcid: &Cid, side: Side) -> Keys;

    /// Derives what the keys of one direction are made from.
    fn material(&self, version: Version, suite: Suite, secret: &Secret) -> Material;

    /// Key for what we send.
    fn sealer(&self, suite: Suite, material: &Material) -> Box<dyn Sealer>;

    /// Key for what we receive.
    fn opener(&self, suite: Suite, material: &Material) -> Box<dyn Opener>;

    /// The secret that follows in a key update (RFC 9001 section 6.1).
    fn next_secret(&self, version: Version, suite: Suite, secret: &Secret) -> Secret;

    /// Integrity tag of a Retry packet without its tag (RFC 9001 section 5.8).
    fn retry_tag(&self, version: Version, original_dcid: &Cid, retry: &[u8]) -> [u8; TAG_LEN];

    /// A keyed digest (HMAC-SHA-256): for stateless reset tokens, address tokens and the like.
    fn mac(&self, key: &[u8; 32], data: &[&[u8]]) -> [u8; 32];

    /// Encrypts a block in place with AES-128: connection IDs that a load balancer can read.
    fn aes128_block(&self, key: &[u8; 16], block: &mut [u8; 16]);

    /// Whether two byte strings are equal, in a time that does not depend on where they differ.
    fn equal(&self, a: &[u8], b: &[u8]) -> bool;
}

/// Unpredictable bytes.
pub trait Random: Send {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]);
}

/// What TLS found out about the peer and agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The application protocol.
    pub alpn: Option<Vec<u8>>,
    /// The peer's certificate chain, DER, leaf first.
    pub certificates: Vec<Vec<u8>>,
    /// The server name that the client asked for.
    pub server_name: Option<String>,
    /// The cipher suite.
    pub suite: Option<Suite>,
    /// The IANA name of the key exchange group.
    pub group: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// TLS failed; the alert goes to the peer as CRYPTO_ERROR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// TLS alert description.
    pub code: u8,
    /// What was wrong, for the local log.
    pub reason: String,
}

impl core::fmt::Display for Alert {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "TLS alert {}: {}", self.code, self.reason)
    }
}

impl core::error::Error for Alert {}

/// What a TLS session hands out. `Debug` shows no secret of it.
pub enum TlsOut<'a> {
    /// Handshake bytes to be sent in CRYPTO frames of that level.
    Bytes(Level, &'a [u8]),
    /// Traffic secrets. At level ZeroRtt only the client's direction is there and `server` is empty.
    Secrets {
        /// For which level.
        level: Level,
        /// The cipher suite.
        suite: Suite,
        /// Protects what the client sends.
        client: &'a [u8],
        /// Protects what the server sends.
        server: &'a [u8],
    },
    /// The peer's transport parameters, encoded.
    PeerParams(&'a [u8]),
    /// Client: the server's transport parameters of the connection that the ticket came from. Given before the 0-RTT secrets.
    RememberedParams(&'a [u8]),
    /// Whether 0-RTT data will be taken (client: known with the server's first flight; server: at once).
    EarlyData(bool),
    /// The handshake is complete at this end.
    Complete(Identity),
    /// The exporter secret (RFC 8446 section 7.5).
    Exporter(&'a [u8]),
    /// The peer broke a rule that QUIC adds to TLS: the connection ends with this and not with an alert. Nothing follows.
    Violation(PeerViolation),
}

impl core::fmt::Debug for TlsOut<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Bytes(level, bytes) => f.debug_tuple("Bytes").field(level).field(&bytes.len()).finish(),
            Self::Secrets { level, suite, .. } => {
                f.debug_struct("Secrets").field("level", level).field("suite", suite).finish_non_exhaustive()
            }
            Self::PeerParams(bytes) => f.debug_tuple("PeerParams").field(&bytes.len()).finish(),
            Self::RememberedParams(bytes) => f.debug_tuple("RememberedParams").field(&bytes.len()).finish(),
            Self::EarlyData(taken) => f.debug_tuple("EarlyData").field(taken).finish(),
            Self::Complete(identity) => f.debug_tuple("Complete").field(identity).finish(),
            Self::Exporter(_) => f.write_str("Exporter(..)"),
            Self::Violation(violation) => f.debug_tuple("Violation").field(violation).finish(),
        }
    }
}

/// A TLS 1.3 session in QUIC mode.
pub trait TlsSession: Send {
    /// Tells which version the client began with and which one is spoken: a ticket is good only for connections that begin
    /// in the version of the one that it came from (RFC 9369 section 5). Called before the session says or reads anything,
    /// on clients again when the server chose another version.
    fn set_versions(&mut self, first: Version, spoken: Version) {
        let _ = (first, spoken);
    }

    /// Feeds handshake bytes of a level, in order; an empty slice starts a client. Everything that the session has to
    /// say comes out through `out` before the call returns, in an order in which it can be acted on.
    ///
    /// # Errors
    /// The alert that ends the connection.
    fn read(&mut self, level: Level, bytes: &[u8], out: &mut dyn FnMut(TlsOut<'_>)) -> Result<(), Alert>;

    /// The connection is idle: the session, or one that goes on in its place and takes less memory. It has to refuse what
    /// this one would refuse; tickets that come later may be lost on it.
    fn rest(self: Box<Self>) -> Box<dyn TlsSession>;
}

/// Starts client sessions; holds roots, ALPN, client certificates.
pub trait TlsClientConfig: Send + Sync {
    /// A session for a connection to `server_name` (a DNS name or an IP address) with our encoded transport parameters.
    ///
    /// # Errors
    /// When the name or the configuration cannot be used.
    fn start(&self, version: Version, server_name: &str, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert>;
}

/// Starts server sessions; holds certificates and ALPN.
pub trait TlsServerConfig: Send + Sync {
    /// A session for a new connection with our encoded transport parameters.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    fn start(&self, version: Version, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert>;
}

/// The TLS exporter (RFC 8446 section 7.5) over a remembered exporter secret.
pub trait Exporter: Send + Sync {
    /// Fills `out` with keying material for `label` and `context`.
    ///
    /// # Errors
    /// When the length is more than the suite's hash can expand to.
    fn export(
        &self,
        suite: Suite,
        secret: &Secret,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), CryptoFailed>;
}
