//! Packet protection: which keys a connection has, sealing, opening, key update.
//!
//! [`KeySlots`] holds one slot per encryption level. Keys are made by a [`KeyFactory`] that is passed in where it is
//! needed, from secrets that the TLS session hands out. The state of the 1-RTT keys keeps the secrets, so that key
//! updates work after the TLS session is gone and the keys of an idle connection can be dropped and made again
//! (dormancy).
//!
//! A packet is opened in this order: unmask the header, expand the packet number, choose the key by level and key
//! phase, authenticate, and only then look at bits that a stranger could have changed (reserved bits, key phase).
//!
//! Invariants: nothing is ever sealed twice with one key and packet number as long as the caller never repeats a
//! number; no key is used beyond its confidentiality limit; packets that fail to authenticate are counted over the
//! whole life of the connection; 1-RTT packets are not opened before the handshake is complete.

mod before;
pub mod client_hello;
pub mod null;
mod update;

use core::ops::Range;
use core::time::Duration;

use crate::crypto::{
    CryptoFailed, Head, KeyFactory, Keys, Opener, SAMPLE_LEN, Sealing, Secret, Suite, TAG_LEN, Unmasking,
};
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Cid, Level, PacketNumber, Side, Version};
use crate::time::Instant;
use crate::wire::pn::expand;

pub use before::open_initial;
use before::{EarlyData, HandshakeKeys, Origin, Pair};
use update::AppKeys;
pub use update::UpdateRefused;

/// How many times the probe timeout old receive keys are kept after a key update, and how long to wait between updates.
pub const KEEP_OLD_KEYS_PTOS: u32 = 3;

/// A packet that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The full packet number.
    pub pn: PacketNumber,
    /// Length of the header, packet number included.
    pub header_len: usize,
    /// Where the plaintext lies in the packet.
    pub payload: Range<usize>,
    /// The first byte without header protection.
    pub first: u8,
    /// Number of key updates before the keys of this packet; 0 outside of 1-RTT.
    pub generation: u64,
    /// Whether this packet is the first one of a new key phase. The caller then sets how long old keys stay, with
    /// [`KeySlots::keep_previous_until`].
    pub updated: bool,
}

/// Why a packet was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// There are no keys for the level, not yet or not any more: the packet may be kept or dropped.
    NoKeys,
    /// The packet is too short to hold a header protection sample: it is dropped.
    TooShort,
    /// The packet is not authentic: it is dropped, or looked at as a stateless reset.
    NotAuthentic,
    /// The packet is authentic but breaks a rule, or too many packets were not authentic: the connection ends.
    Violation(PeerViolation),
}

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// There are no keys for the level, or they are dormant (see [`KeySlots::wake`]).
    NoKeys,
    /// The key protected as many packets as it may, and no key update was possible in time: the connection ends with
    /// AEAD_LIMIT_REACHED.
    Exhausted,
    /// The provider refused; the packet must not be sent.
    Failed,
}

impl From<CryptoFailed> for SealError {
    fn from(_: CryptoFailed) -> Self {
        Self::Failed
    }
}

/// Limits below those of the cipher suites, so that tests and the careful reach them early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AeadLimits {
    /// Packets protected with one key.
    pub confidentiality: u64,
    /// Packets that fail to authenticate in the life of the connection.
    pub integrity: u64,
}

impl AeadLimits {
    /// What the cipher suites allow, and nothing less.
    pub const OF_THE_SUITE: Self = Self { confidentiality: u64::MAX, integrity: u64::MAX };
}

/// The keys of one connection.
pub struct KeySlots {
    /// Keys of the levels before 1-RTT.
    before: Option<Box<HandshakeKeys>>,
    /// 1-RTT keys and the state of key updates.
    app: Option<Box<AppKeys>>,
    /// Packets that failed to authenticate, over all keys.
    failed: u64,
    limits: AeadLimits,
    /// The version whose labels new keys are made with.
    version: Version,
    /// Suite of the Handshake and later levels.
    suite: Suite,
    side: Side,
    /// Whether the handshake is complete, so that 1-RTT packets may be opened.
    complete: bool,
    /// Whether the handshake is confirmed, so that a key update may be started.
    confirmed: bool,
}

impl KeySlots {
    /// Slots without keys.
    #[must_use]
    pub const fn new(side: Side, limits: AeadLimits) -> Self {
        Self {
            before: None,
            app: None,
            failed: 0,
            limits,
            version: Version::V1,
            suite: Suite::Aes128Gcm,
            side,
            complete: false,
            confirmed: false,
        }
    }

    /// The version whose labels keys are made with.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The suite of the Handshake and 1-RTT levels; AES-128-GCM before it is known.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Makes Initial keys from the Destination Connection ID of the client's first Initial, or of the first one after a
    /// Retry. Earlier Initial keys are forgotten.
    pub fn install_initial(&mut self, keys: &dyn KeyFactory, version: Version, dcid: &Cid) {
        self.version = version;
        let before = self.before.get_or_insert_default();
        before.initial = Some(Pair::new(keys, Origin::Cid(version, *dcid, self.side)));
        before.initial_before = None;
    }

    /// Takes Initial keys that were made before, from that connection ID.
    pub fn adopt_initial(&mut self, made: Keys, version: Version, dcid: &Cid) {
        self.version = version;
        let before = self.before.get_or_insert_default();
        before.initial = Some(Pair::adopt(made, Origin::Cid(version, *dcid, self.side)));
        before.initial_before = None;
    }

    /// Changes to another compatible version (RFC 9368 section 2.3): packets are sealed with its Initial keys from now
    /// on, Initial packets of the first version are still opened. Does nothing when the version is the same.
    pub fn switch_version(&mut self, keys: &dyn KeyFactory, version: Version, dcid: &Cid) {
        if version == self.version {
            return;
        }
        let old = core::mem::replace(&mut self.version, version);
        let Some(before) = self.before.as_deref_mut() else { return };
        if let Some(initial) = before.initial.take() {
            before.initial_before = initial.into_opener(keys).map(|opener| (old, opener));
            before.initial = Some(Pair::new(keys, Origin::Cid(version, *dcid, self.side)));
        }
    }

    /// Makes the keys of a level from the secrets that TLS gave. For [`Level::ZeroRtt`] only `client` is used.
    ///
    /// # Errors
    /// [`CryptoFailed`] when a secret is longer than 48 bytes, and for [`Level::Initial`], whose keys come from
    /// [`install_initial`](Self::install_initial).
    pub fn install(
        &mut self,
        keys: &dyn KeyFactory,
        level: Level,
        suite: Suite,
        client: &[u8],
        server: &[u8],
    ) -> Result<(), CryptoFailed> {
        let client = Secret::new(client).ok_or(CryptoFailed)?;
        let server = Secret::new(server).ok_or(CryptoFailed)?;
        let (ours, theirs) = if self.side.is_client() { (client, server) } else { (server, client) };
        self.suite = suite;
        let version = match (level, self.before.as_deref()) {
            // 0-RTT stays in the version that the client began with.
            //= rfc9369#4.1-9
            (Level::ZeroRtt, Some(HandshakeKeys { initial_before: Some((first, _)), .. })) => *first,
            _ => self.version,
        };
        let material = |secret: &Secret| keys.material(version, suite, secret);
        match level {
            Level::Initial => return Err(CryptoFailed),
            //= rfc9001#5.6-4
            //= rfc9001#5.6-5
            Level::ZeroRtt => {
                self.before.get_or_insert_default().early = Some(match self.side {
                    Side::Client => EarlyData::Seal(keys.sealer(suite, &material(&ours))),
                    Side::Server => EarlyData::Open(keys.opener(suite, &material(&theirs))),
                });
            }
            Level::Handshake => {
                let origin = Origin::Secrets(suite, Box::new([material(&ours), material(&theirs)]));
                self.before.get_or_insert_default().handshake = Some(Pair::new(keys, origin));
            }
            Level::OneRtt => self.app = Some(Box::new(AppKeys::new(keys, version, suite, ours, theirs))),
        }
        Ok(())
    }

    /// Forgets the keys of a level; packets of it are neither sealed nor opened any more.
    pub fn discard(&mut self, level: Level) {
        if level == Level::OneRtt {
            self.app = None;
            return;
        }
        let Some(before) = self.before.as_deref_mut() else { return };
        match level {
            Level::Initial => (before.initial, before.initial_before) = (None, None),
            Level::ZeroRtt => before.early = None,
            Level::Handshake => before.handshake = None,
            Level::OneRtt => {}
        }
        if before.is_empty() {
            self.before = None;
        }
    }

    /// TLS says that the handshake is complete: 1-RTT packets may be opened from now on.
    pub const fn set_complete(&mut self) {
        self.complete = true;
    }

    /// The handshake is confirmed (RFC 9001 section 4.1.2): key updates may be started from now on.
    pub const fn set_confirmed(&mut self) {
        self.complete = true;
        self.confirmed = true;
    }

    /// Whether packets of the level can be sealed.
    #[must_use]
    pub fn has_send(&self, level: Level) -> bool {
        match level {
            Level::OneRtt => self.app.is_some(),
            _ => self.before.as_deref().is_some_and(|b| b.has_sealer(level)),
        }
    }

    /// Whether packets of the level can be opened now.
    #[must_use]
    pub fn has_recv(&self, level: Level) -> bool {
        match level {
            //= rfc9001#5.7-1
            //= rfc9001#5.7-2
            //= rfc9001#5.7-3
            Level::OneRtt => self.complete && self.app.is_some(),
            _ => self.before.as_deref().is_some_and(|b| b.has_opener(level)),
        }
    }

    /// The Key Phase bit for the header of the next 1-RTT packet.
    #[must_use]
    pub fn key_phase(&self) -> bool {
        self.app.as_deref().is_some_and(AppKeys::key_phase)
    }

    /// Number of key updates of the sending direction.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.app.as_deref().map_or(0, AppKeys::generation)
    }

    /// Packets that failed to authenticate so far.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.failed
    }

    /// Seals one packet in place; see [`seal`](crate::crypto::Sealer::seal). For 1-RTT the header must carry
    /// [`key_phase`](Self::key_phase).
    ///
    /// # Errors
    /// See [`SealError`]; the packet must not be sent then.
    pub fn seal(
        &mut self,
        level: Level,
        pn: PacketNumber,
        packet: &mut [u8],
        head: Head,
        tail: &[u8],
    ) -> Result<(), SealError> {
        self.count_sealed(level, pn)?;
        self.seal_batch(level, &mut [Sealing { pn, packet, head, tail }])
    }

    /// Counts a packet against the limit of its key. Must be called once for each packet before
    /// [`seal_batch`](Self::seal_batch), in the order of their numbers.
    ///
    /// # Errors
    /// See [`SealError`]; the packet must not be sealed then.
    pub fn count_sealed(&mut self, level: Level, pn: PacketNumber) -> Result<(), SealError> {
        //= rfc9001#6.6-2
        let limit = self.confidentiality_limit(level);
        if let Level::OneRtt = level {
            return self.app.as_deref_mut().ok_or(SealError::NoKeys)?.count_sealed(limit, pn);
        }
        // These levels have one key each, so the packet number bounds the packets that it protected.
        if pn >= limit {
            return Err(SealError::Exhausted);
        }
        if self.has_send(level) { Ok(()) } else { Err(SealError::NoKeys) }
    }

    /// Seals packets of one level in place, all with its present key; see
    /// [`seal_batch`](crate::crypto::Sealer::seal_batch). They were counted with [`count_sealed`](Self::count_sealed), and
    /// no key update came between. For 1-RTT the headers must carry [`key_phase`](Self::key_phase).
    ///
    /// # Errors
    /// See [`SealError`]; no packet of the batch must be sent then.
    pub fn seal_batch(&self, level: Level, packets: &mut [Sealing<'_>]) -> Result<(), SealError> {
        if let Level::OneRtt = level {
            return self.app.as_deref().ok_or(SealError::NoKeys)?.seal_batch(packets);
        }
        let sealer = self.before.as_deref().and_then(|b| b.sealer(level)).ok_or(SealError::NoKeys)?;
        Ok(sealer.seal_batch(packets)?)
    }

    /// Removes the header protection of 1-RTT packets in place, for [`open_unmasked`](Self::open_unmasked). Does nothing as
    /// long as 1-RTT packets cannot be opened. The header protection key outlives key updates, so that packets of several
    /// key phases may be in one batch.
    pub fn unmask_batch(&mut self, keys: &dyn KeyFactory, packets: &mut [Unmasking<'_>]) {
        if self.has_recv(Level::OneRtt)
            && let Some(app) = self.app.as_deref_mut()
        {
            app.unmask_batch(keys, packets);
        }
    }

    /// Opens a packet in place. `packet` ends where the packet ends, `pn_at` is the offset of its packet number,
    /// `expected_pn` the number that would follow the highest one received in its space.
    ///
    /// # Errors
    /// See [`OpenError`]. After [`OpenError::NoKeys`] and [`OpenError::TooShort`] the packet is unchanged.
    pub fn open(
        &mut self,
        keys: &dyn KeyFactory,
        level: Level,
        packet: &mut [u8],
        pn_at: usize,
        expected_pn: PacketNumber,
    ) -> Result<Opened, OpenError> {
        if !self.has_recv(level) {
            return Err(OpenError::NoKeys);
        }
        //= rfc9001#5.4.2-1
        if pn_at == 0 || packet.len().saturating_sub(pn_at) < 4 + SAMPLE_LEN {
            return Err(OpenError::TooShort);
        }
        let result = if let Level::OneRtt = level {
            let app = self.app.as_deref_mut().ok_or(OpenError::NoKeys)?;
            app.open(keys, packet, pn_at, expected_pn)
        } else {
            let before = self.before.as_deref_mut().ok_or(OpenError::NoKeys)?;
            let opener = before.opener(keys, level, packet).ok_or(OpenError::NoKeys)?;
            open_with(opener, packet, pn_at, expected_pn)
        };
        let opened = self.judge(level, result)?;
        //= rfc9001#5.5-1
        if level == Level::ZeroRtt && self.app.as_deref().is_some_and(|app| app.received_below(opened.pn)) {
            return Err(OpenError::NotAuthentic);
        }
        Ok(opened)
    }

    /// Opens a 1-RTT packet that [`unmask_batch`](Self::unmask_batch) unmasked; `number` is what that found. Otherwise like
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_unmasked(
        &mut self,
        keys: &dyn KeyFactory,
        packet: &mut [u8],
        pn_at: usize,
        number: (u32, usize),
        expected_pn: PacketNumber,
    ) -> Result<Opened, OpenError> {
        if !self.has_recv(Level::OneRtt) {
            return Err(OpenError::NoKeys);
        }
        let app = self.app.as_deref_mut().ok_or(OpenError::NoKeys)?;
        let result = app.open_unmasked(keys, packet, pn_at, number, expected_pn);
        self.judge(Level::OneRtt, result)
    }

    /// Counts a failure, and looks at what a stranger could have changed once the packet is known to be the peer's.
    fn judge(&mut self, level: Level, result: Result<Opened, OpenError>) -> Result<Opened, OpenError> {
        if result == Err(OpenError::NotAuthentic) {
            self.count_failure(level)?;
        }
        let opened = result?;
        check_reserved_bits(opened.first)?;
        Ok(opened)
    }

    /// Starts a key update of our own accord.
    ///
    /// # Errors
    /// [`UpdateRefused`] when the rules do not allow one now.
    pub fn initiate_update(&mut self, keys: &dyn KeyFactory, now: Instant) -> Result<(), UpdateRefused> {
        //= rfc9001#6.1-1
        let app = self.app.as_deref_mut().filter(|_| self.confirmed).ok_or(UpdateRefused::NotConfirmed)?;
        app.initiate(keys, now)
    }

    /// Takes note of an ACK frame of the 1-RTT space. `generation` is that of the packet that carried it, `keep` is
    /// three times the probe timeout.
    ///
    /// # Errors
    /// KEY_UPDATE_ERROR when old keys carry an acknowledgement for a packet that was sent with newer ones.
    pub fn on_ack(
        &mut self,
        now: Instant,
        largest_acked: PacketNumber,
        generation: u64,
        keep: Duration,
    ) -> Result<(), PeerViolation> {
        match self.app.as_deref_mut() {
            Some(app) => app.on_ack(now, largest_acked, generation, keep),
            None => Ok(()),
        }
    }

    /// Sets until when the receive keys of the previous key phase are kept: three times the probe timeout from when
    /// [`Opened::updated`] was seen.
    pub fn keep_previous_until(&mut self, deadline: Instant) {
        if let Some(app) = self.app.as_deref_mut() {
            app.keep_previous_until(deadline);
        }
    }

    /// When [`drop_previous`](Self::drop_previous) has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.app.as_deref().and_then(AppKeys::deadline)
    }

    /// Drops the receive keys of the previous key phase when their time is over, and makes those of the next phase, so that
    /// no packet has to wait for that: the time would tell its key phase. To be called once per batch.
    pub fn drop_previous(&mut self, keys: &dyn KeyFactory, now: Instant) {
        if let Some(app) = self.app.as_deref_mut() {
            app.drop_previous(keys, now);
        }
    }

    /// To be called before packets are built: makes dormant keys again and starts a key update when the current
    /// key has protected three quarters of what it may. The key phase does not change between two calls unless a packet
    /// is opened.
    pub fn prepare_send(&mut self, keys: &dyn KeyFactory, now: Instant) {
        let limit = self.confidentiality_limit(Level::OneRtt);
        if let Some(before) = self.before.as_deref_mut() {
            before.wake(keys);
        }
        let Some(app) = self.app.as_deref_mut() else { return };
        app.wake_send(keys);
        //= rfc9001#5.3-3
        //= rfc9001#6.6-3
        if self.confirmed && app.sent() >= limit - limit / 4 {
            // A refusal is no error: the next call tries again, and sealing stops at the limit.
            let _ = app.initiate(keys, now);
        }
    }

    /// Whether the sending key is used up, so that the connection has to close with AEAD_LIMIT_REACHED. Becomes true 64
    /// packets before the limit, so that the closing packets can still be sealed.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        //= rfc9001#6.6-5
        let limit = self.confidentiality_limit(Level::OneRtt);
        self.app.as_deref().is_some_and(|app| app.sent() >= limit.saturating_sub(64.min(limit / 8)))
    }

    /// Drops the key objects of an idle connection and keeps what they are made from; those of the 1-RTT level stay while
    /// old ones are kept. Returns whether the keys are dormant.
    pub fn sleep(&mut self) -> bool {
        if let Some(before) = self.before.as_deref_mut() {
            before.doze();
        }
        self.app.as_deref_mut().is_none_or(AppKeys::sleep)
    }

    /// Whether the keys are dormant.
    #[must_use]
    pub fn are_dormant(&self) -> bool {
        self.before.as_deref().is_none_or(HandshakeKeys::is_dozing)
            && self.app.as_deref().is_none_or(AppKeys::is_asleep)
    }

    /// Makes dormant keys again. [`open`](Self::open) and [`prepare_send`](Self::prepare_send) do so by themselves.
    pub fn wake(&mut self, keys: &dyn KeyFactory) {
        if let Some(before) = self.before.as_deref_mut() {
            before.wake(keys);
        }
        if let Some(app) = self.app.as_deref_mut() {
            app.wake(keys);
        }
    }

    fn suite_of(&self, level: Level) -> Suite {
        if level == Level::Initial { Suite::Aes128Gcm } else { self.suite }
    }

    fn confidentiality_limit(&self, level: Level) -> u64 {
        self.suite_of(level).confidentiality_limit().min(self.limits.confidentiality)
    }

    fn count_failure(&mut self, level: Level) -> Result<(), OpenError> {
        //= rfc9001#6.6-6
        self.failed = self.failed.saturating_add(1);
        //= rfc9001#6.6-7
        if self.failed >= self.suite_of(level).integrity_limit().min(self.limits.integrity) {
            return Err(OpenError::Violation(PeerViolation::new(
                TransportCode::AEAD_LIMIT_REACHED,
                "too many packets failed to authenticate",
                "rfc9001#6.6",
            )));
        }
        Ok(())
    }
}

impl core::fmt::Debug for KeySlots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let levels = |has: fn(&Self, Level) -> bool| Level::ALL.into_iter().filter(move |l| has(self, *l));
        f.debug_struct("KeySlots")
            .field("version", &self.version)
            .field("send", &levels(Self::has_send).collect::<Vec<_>>())
            .field("recv", &levels(Self::has_recv).collect::<Vec<_>>())
            .field("generation", &self.generation())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Unmasks, expands the number, authenticates and decrypts with a key that is known beforehand.
fn open_with(
    opener: &dyn Opener,
    packet: &mut [u8],
    pn_at: usize,
    expected_pn: PacketNumber,
) -> Result<Opened, OpenError> {
    let (truncated, len) = opener.unmask(packet, pn_at).ok_or(OpenError::TooShort)?;
    let pn = expand(truncated, len, expected_pn);
    let header_len = pn_at + len;
    let payload = opener.open(pn, packet, header_len).ok_or(OpenError::NotAuthentic)?;
    let first = packet.first().copied().unwrap_or_default();
    Ok(Opened { pn, header_len, payload, first, generation: 0, updated: false })
}

/// Whether an Initial packet opens with the keys of a version. The bytes are those of a copy.
#[must_use]
pub fn initial_opens(keys: &Keys, packet: &mut [u8], pn_at: usize) -> bool {
    packet.len().saturating_sub(pn_at) >= 4 + SAMPLE_LEN && open_with(&*keys.open, packet, pn_at, 0).is_ok()
}

/// Reserved bits are checked only once the packet is known to be the peer's.
fn check_reserved_bits(first: u8) -> Result<(), OpenError> {
    //= rfc9000#17.2-9
    //= rfc9000#17.3.1-3
    let (mask, section) = if first & 0x80 != 0 { (0x0c, "rfc9000#17.2") } else { (0x18, "rfc9000#17.3.1") };
    if first & mask != 0 {
        return Err(OpenError::Violation(PeerViolation::new(
            TransportCode::PROTOCOL_VIOLATION,
            "reserved header bits are not zero",
            section,
        )));
    }
    Ok(())
}

const _: () = assert!(size_of::<KeySlots>() <= 64, "every idle connection carries one");
const _: () = assert!(size_of::<AppKeys>() <= 480, "every idle connection carries one");
const _: () = assert!(TAG_LEN == SAMPLE_LEN, "the length check of a packet covers its tag");

#[cfg(test)]
mod tests;
