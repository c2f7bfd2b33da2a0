//! 1-RTT keys and the key update of RFC 9001 section 6.
//!
//! The two directions count generations (key updates so far); the Key Phase bit is the lowest bit of a generation. The
//! sending direction is at most one generation ahead of the receiving one, and never behind it:
//!
//! ```text
//! send == recv      --initiate-->            send == recv + 1      (the peer has not followed yet)
//! send == recv + 1  --next phase opens-->    send == recv          (the peer followed)
//! send == recv      --next phase opens-->    both + 1              (the peer initiated, we follow at once)
//! ```
//!
//! Receive keys of the current and the next phase are at hand, so that a packet with the other Key Phase bit takes as
//! long as any other; those of the previous phase stay until a deadline that the caller sets. A packet with the other
//! bit is told apart by its number: above everything received in the current phase it belongs to the next one, below
//! that to the previous one.

use core::time::Duration;

use super::{OpenError, Opened, SealError};
use crate::crypto::{KeyFactory, Material, Opener, Sealer, Sealing, Secret, Suite, Unmasking};
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{PacketNumber, Version};
use crate::time::Instant;
use crate::wire::pn::expand;

/// The Key Phase bit in the first byte of a short header.
const KEY_PHASE: u8 = 0x04;

/// No packet number yet; greater than every real one.
const NO_PN: PacketNumber = PacketNumber::MAX;

/// Why a key update cannot be started now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateRefused {
    /// The handshake is not confirmed yet.
    NotConfirmed,
    /// The peer has not followed the last update, or has not acknowledged a packet of the current phase.
    Unacknowledged,
    /// Less than three probe timeouts went by since the last update was acknowledged.
    TooSoon,
}

/// Keys of the sending direction.
struct Send {
    /// `None` while dormant.
    sealer: Option<Box<dyn Sealer>>,
    /// What the sealer is made from.
    material: Material,
    /// Secret of the current generation.
    secret: Secret,
    generation: u64,
    /// Packets sealed with the current key.
    sent: u64,
    /// The lowest packet number of the current generation; `NO_PN` when there is none.
    first_pn: PacketNumber,
    /// Whether a packet of the current generation was acknowledged.
    acked: bool,
}

/// Keys of the receiving direction.
struct Recv {
    /// `None` while dormant, and before the first packet: a handshake that nobody completes needs none.
    current: Option<Box<dyn Opener>>,
    /// Made ahead of time, and outside of the handling of packets; `None` while dormant and just after an update.
    next: Option<Box<dyn Opener>>,
    previous: Option<Box<dyn Opener>>,
    /// What the current opener is made from.
    material: Material,
    /// The same of the next one, as long as that is known.
    next_material: Option<Material>,
    secret: Secret,
    generation: u64,
    /// The lowest number received in the current generation; `NO_PN` when there is none.
    low: PacketNumber,
    /// The highest number received in the current generation; meaningless while `low` is `NO_PN`.
    high: PacketNumber,
    /// The highest number received in the previous generation; 0 when there is none, which no rule can tell from number
    /// 0.
    previous_high: PacketNumber,
}

/// Which keys a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Previous,
    Current,
    Next,
}

/// 1-RTT keys of both directions.
pub(super) struct AppKeys {
    send: Send,
    recv: Recv,
    /// When `recv.previous` goes.
    previous_until: Instant,
    /// No update of our own before this.
    not_before: Instant,
    version: Version,
    suite: Suite,
}

impl super::KeySlots {
    /// Reads a word of each line of memory that the next packet needs, so that they are in the cache by then.
    #[must_use]
    pub fn touch(&self) -> u64 {
        let Some(app) = &self.app else { return self.failed };
        let lines = app.send.sent ^ app.recv.high ^ app.not_before.as_micros() ^ app.send.generation;
        lines ^ self.failed ^ u64::from(app.send.sealer.is_some() ^ app.recv.current.is_some())
    }
}

impl AppKeys {
    pub(super) fn new(keys: &dyn KeyFactory, version: Version, suite: Suite, ours: Secret, theirs: Secret) -> Self {
        let material = keys.material(version, suite, &ours);
        let send = Send {
            sealer: Some(keys.sealer(suite, &material)),
            material,
            secret: ours,
            generation: 0,
            sent: 0,
            first_pn: NO_PN,
            acked: false,
        };
        let material = keys.material(version, suite, &theirs);
        let recv = Recv {
            current: None,
            next: None,
            previous: None,
            material,
            next_material: None,
            secret: theirs,
            generation: 0,
            low: NO_PN,
            high: 0,
            previous_high: 0,
        };
        Self { send, recv, previous_until: Instant::FAR_FUTURE, not_before: Instant::ZERO, version, suite }
    }

    pub(super) const fn key_phase(&self) -> bool {
        self.send.generation & 1 == 1
    }

    pub(super) const fn generation(&self) -> u64 {
        self.send.generation
    }

    pub(super) const fn sent(&self) -> u64 {
        self.send.sent
    }

    /// Whether a packet with a lower number was received.
    pub(super) fn received_below(&self, pn: PacketNumber) -> bool {
        self.recv.low < pn
    }

    pub(super) fn count_sealed(&mut self, limit: u64, pn: PacketNumber) -> Result<(), SealError> {
        let send = &mut self.send;
        if send.sealer.is_none() {
            return Err(SealError::NoKeys);
        }
        if send.sent >= limit {
            return Err(SealError::Exhausted);
        }
        //= rfc9001#6.6-1
        send.sent += 1;
        send.first_pn = send.first_pn.min(pn);
        Ok(())
    }

    pub(super) fn seal_batch(&self, packets: &mut [Sealing<'_>]) -> Result<(), SealError> {
        let send = &self.send;
        debug_assert!(
            packets.iter().all(|p| p.packet.first().is_some_and(|b| b & KEY_PHASE != 0) == self.key_phase()),
            "the headers carry the key phase of the key"
        );
        debug_assert!(packets.iter().all(|p| p.pn >= send.first_pn), "every packet was counted under this key");
        Ok(send.sealer.as_deref().ok_or(SealError::NoKeys)?.seal_batch(packets)?)
    }

    pub(super) fn unmask_batch(&mut self, keys: &dyn KeyFactory, packets: &mut [Unmasking<'_>]) {
        self.wake_recv(keys);
        if let Some(current) = self.recv.current.as_deref() {
            current.unmask_batch(packets);
        }
    }

    pub(super) fn open(
        &mut self,
        keys: &dyn KeyFactory,
        packet: &mut [u8],
        pn_at: usize,
        expected_pn: PacketNumber,
    ) -> Result<Opened, OpenError> {
        self.wake_recv(keys);
        let current = self.recv.current.as_deref().ok_or(OpenError::NoKeys)?;
        let number = current.unmask(packet, pn_at).ok_or(OpenError::TooShort)?;
        self.open_unmasked(keys, packet, pn_at, number, expected_pn)
    }

    pub(super) fn open_unmasked(
        &mut self,
        keys: &dyn KeyFactory,
        packet: &mut [u8],
        pn_at: usize,
        (truncated, len): (u32, usize),
        expected_pn: PacketNumber,
    ) -> Result<Opened, OpenError> {
        let first = packet.first().copied().unwrap_or_default();
        let (pn, header_len) = (expand(truncated, len, expected_pn), pn_at + len);
        let phase = self.recv.phase_of(first & KEY_PHASE != 0, pn);
        if phase == Phase::Next && self.recv.next.is_none() {
            // The peer updated again before there was time for them.
            self.make_next(keys);
        }
        let opener = match phase {
            Phase::Previous => self.recv.previous.as_deref(),
            Phase::Current => self.recv.current.as_deref(),
            Phase::Next => self.recv.next.as_deref(),
        };
        //= rfc9001#5.5-2
        let opener = opener.ok_or(OpenError::NotAuthentic)?;
        let payload = opener.open(pn, packet, header_len).ok_or(OpenError::NotAuthentic)?;
        let generation = match phase {
            Phase::Previous => self.recv.generation.saturating_sub(1),
            Phase::Current => self.recv.generation,
            Phase::Next => self.recv.generation + 1,
        };
        match phase {
            Phase::Previous => self.opened_with_previous(pn)?,
            Phase::Current => self.opened_with_current(pn)?,
            Phase::Next => self.follow_peer(keys, pn)?,
        }
        Ok(Opened { pn, header_len, payload, first, generation, updated: phase == Phase::Next })
    }

    fn opened_with_previous(&mut self, pn: PacketNumber) -> Result<(), OpenError> {
        //= rfc9001#6.4-2
        if pn > self.recv.low {
            return Err(key_update_error("old keys were used after new ones", "rfc9001#6.4"));
        }
        self.recv.previous_high = self.recv.previous_high.max(pn);
        Ok(())
    }

    fn opened_with_current(&mut self, pn: PacketNumber) -> Result<(), OpenError> {
        let recv = &mut self.recv;
        //= rfc9001#6.4-1
        if pn < recv.previous_high {
            return Err(key_update_error("new keys were used before old ones", "rfc9001#6.4"));
        }
        recv.high = if recv.low == NO_PN { pn } else { recv.high.max(pn) };
        recv.low = recv.low.min(pn);
        Ok(())
    }

    /// A packet of the next phase is authentic: the peer started an update, or followed ours.
    fn follow_peer(&mut self, keys: &dyn KeyFactory, pn: PacketNumber) -> Result<(), OpenError> {
        let initiated_by_peer = self.send.generation == self.recv.generation;
        if initiated_by_peer && self.send.generation > 0 && self.send.first_pn == NO_PN {
            return Err(key_update_error("a second key update before an acknowledgement of the first", "rfc9001#6.2"));
        }
        let recv = &mut self.recv;
        if recv.low != NO_PN && pn < recv.high {
            return Err(key_update_error("new keys were used before old ones", "rfc9001#6.4"));
        }
        recv.previous_high = if recv.low == NO_PN { 0 } else { recv.high };
        recv.secret = keys.next_secret(self.version, self.suite, &recv.secret);
        //= rfc9001#6.1-3
        recv.previous = core::mem::replace(&mut recv.current, recv.next.take());
        if let Some(material) = recv.next_material.take() {
            recv.material = material;
        }
        recv.generation += 1;
        (recv.low, recv.high) = (pn, pn);
        self.previous_until = Instant::FAR_FUTURE;
        //= rfc9001#6.2-1
        //= rfc9001#6.2-2
        if initiated_by_peer {
            self.advance_send(keys);
        }
        debug_assert_eq!(self.send.generation, self.recv.generation);
        Ok(())
    }

    pub(super) fn initiate(&mut self, keys: &dyn KeyFactory, now: Instant) -> Result<(), UpdateRefused> {
        //= rfc9001#6.1-2
        if !self.send.acked || self.send.generation != self.recv.generation {
            return Err(UpdateRefused::Unacknowledged);
        }
        //= rfc9001#6.5-1
        if now < self.not_before {
            return Err(UpdateRefused::TooSoon);
        }
        self.wake(keys);
        self.advance_send(keys);
        Ok(())
    }

    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        largest_acked: PacketNumber,
        generation: u64,
        keep: Duration,
    ) -> Result<(), PeerViolation> {
        let send = &mut self.send;
        if send.first_pn == NO_PN || largest_acked < send.first_pn {
            return Ok(());
        }
        if generation < send.generation {
            return Err(PeerViolation::new(
                TransportCode::KEY_UPDATE_ERROR,
                "old keys acknowledge a packet of newer ones",
                "rfc9001#6.2",
            ));
        }
        if !send.acked {
            send.acked = true;
            if send.generation > 0 {
                self.not_before = now + keep;
            }
        }
        Ok(())
    }

    pub(super) fn keep_previous_until(&mut self, deadline: Instant) {
        self.previous_until = deadline;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.recv.previous.as_ref().map(|_| self.previous_until)
    }

    pub(super) fn drop_previous(&mut self, keys: &dyn KeyFactory, now: Instant) {
        //= rfc9001#6.5-2
        //= rfc9001#6.5-3
        if self.recv.previous.is_some() && now >= self.previous_until {
            self.recv.previous = None;
        }
        //= rfc9001#9.5-3
        if self.recv.next.is_none() && self.recv.current.is_some() {
            self.make_next(keys);
        }
    }

    pub(super) fn sleep(&mut self) -> bool {
        if self.recv.previous.is_some() {
            return false;
        }
        self.send.sealer = None;
        (self.recv.current, self.recv.next) = (None, None);
        true
    }

    pub(super) const fn is_asleep(&self) -> bool {
        self.send.sealer.is_none() && self.recv.current.is_none()
    }

    pub(super) fn wake(&mut self, keys: &dyn KeyFactory) {
        self.wake_send(keys);
        self.wake_recv(keys);
    }

    /// Makes the sending key again.
    pub(super) fn wake_send(&mut self, keys: &dyn KeyFactory) {
        if self.send.sealer.is_none() {
            self.send.sealer = Some(keys.sealer(self.suite, &self.send.material));
        }
    }

    /// Makes the receiving keys, both at once: the first packet shall take as long whatever its Key Phase bit says.
    fn wake_recv(&mut self, keys: &dyn KeyFactory) {
        if self.recv.current.is_none() {
            self.recv.current = Some(keys.opener(self.suite, &self.recv.material));
            self.make_next(keys);
        }
    }

    fn advance_send(&mut self, keys: &dyn KeyFactory) {
        let (version, suite) = (self.version, self.suite);
        let send = &mut self.send;
        send.secret = keys.next_secret(version, suite, &send.secret);
        send.material = keys.material(version, suite, &send.secret).with_header_of(&send.material);
        send.sealer = Some(keys.sealer(suite, &send.material));
        send.generation += 1;
        send.sent = 0;
        send.first_pn = NO_PN;
        send.acked = false;
        debug_assert!(send.generation - self.recv.generation <= 1);
    }

    fn make_next(&mut self, keys: &dyn KeyFactory) {
        //= rfc9001#6.3-2
        //= rfc9001#6.3-3
        let (version, suite, recv) = (self.version, self.suite, &mut self.recv);
        let material = recv.next_material.get_or_insert_with(|| {
            let secret = keys.next_secret(version, suite, &recv.secret);
            keys.material(version, suite, &secret).with_header_of(&recv.material)
        });
        recv.next = Some(keys.opener(suite, material));
    }
}

impl Recv {
    /// Which keys a packet with that bit and number asks for. Without previous keys the next ones are tried, so that
    /// the time taken says nothing about the bit.
    fn phase_of(&self, bit: bool, pn: PacketNumber) -> Phase {
        //= rfc9001#6.3-1
        if bit == (self.generation & 1 == 1) {
            Phase::Current
        } else if self.previous.is_some() && pn <= self.high {
            Phase::Previous
        } else {
            Phase::Next
        }
    }
}

const fn key_update_error(reason: &'static str, section: &'static str) -> OpenError {
    OpenError::Violation(PeerViolation::new(TransportCode::KEY_UPDATE_ERROR, reason, section))
}

#[cfg(test)]
impl AppKeys {
    /// What a peer does that updates its keys without asking whether it may.
    pub(super) fn force_update(&mut self, keys: &dyn KeyFactory) {
        self.recv.generation = self.send.generation;
        self.advance_send(keys);
    }

    pub(super) const fn has_next(&self) -> bool {
        self.recv.next.is_some()
    }
}
