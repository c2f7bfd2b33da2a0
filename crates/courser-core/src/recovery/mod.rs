//! Loss recovery (RFC 9002): which sent packets arrived, which are lost, and when to probe.
//!
//! - [`sent`]: the unsettled packets of a space, with what they carried.
//! - [`rtt`]: round-trip time of a path.
//! - [`reorder`]: the loss thresholds, which adapt to a path that reorders.
//! - [`timer`]: the loss detection timer: loss time, probe timeout, anti-deadlock.
//! - [`hurry`]: probes that leave before it.
//! - [`ecn`]: whether a path carries ECN marks.
//!
//! [`Recovery`] ties the three spaces together. It decides and reports; it sends nothing, and it knows no congestion
//! window: [`AckOutcome`] holds, per path, the sums that a congestion controller needs. Each packet is settled through one
//! callback with its [`Fate`], at most twice: as lost, and later as acknowledged when the loss turns out to be false.

mod arena;
pub mod ecn;
pub mod hurry;
pub mod reorder;
pub mod rtt;
pub mod sent;
pub mod timer;

#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod hurry_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod sent_tests;
#[cfg(test)]
mod tests;

use core::time::Duration;

use self::reorder::Reordering;
use self::rtt::Rtt;
use self::sent::{Found, LossRule, SentHistory};
use crate::ack::merge::AckRanges;
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Level, PacketNumber, PathId, Space};
use crate::spans::{Fate, Record, SentPacket};
use crate::time::Instant;

/// Paths of a connection; the length of per-path arrays.
pub const PATHS: usize = PathId::SLOTS;
/// Lost packets are remembered for that many probe timeouts.
const REMEMBER_LOST_PTOS: u32 = 3;
/// How many probe timeouts persistent congestion lasts at least (RFC 9002 section 7.6.1).
const PERSISTENT_PTOS: u32 = 3;

/// What the connection knows and recovery does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The path in use; only its packets give RTT samples.
    pub path: PathId,
    /// The first packet number that may have left on the path at each position; [`PacketNumber::MAX`] where there is none.
    /// Packets with smaller ones are those of a predecessor and count for nobody.
    pub first: [PacketNumber; PATHS],
    /// The peer's largest delay of an acknowledgement.
    pub max_ack_delay: Duration,
    /// The handshake is confirmed (RFC 9001 section 4.1.2).
    pub handshake_confirmed: bool,
    /// There are keys for Handshake packets.
    pub has_handshake_keys: bool,
    /// The peer is known to have validated our address: always true on a server; on a client once a Handshake packet was
    /// acknowledged or the handshake is confirmed.
    pub peer_validated_address: bool,
    /// We are a server that may not send before it receives more.
    pub amplification_blocked: bool,
}

impl Context {
    /// Whether the packet's path is still there.
    fn is_live(&self, found: &Found<'_>) -> bool {
        found.pn >= self.first[found.packet.path.slot()]
    }

    /// Whether the packet left on the path in use.
    fn is_in_use(&self, found: &Found<'_>) -> bool {
        found.packet.path == self.path && self.is_live(found)
    }
}

/// A packet whose fate is told.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// Its space.
    pub space: Space,
    /// Its number.
    pub pn: PacketNumber,
    /// Its fields.
    pub packet: &'a SentPacket,
    /// What it carried.
    pub records: &'a [Record],
    /// It was declared lost before and is acknowledged now.
    pub spurious: bool,
    /// Lost because of the packets that overtook it; otherwise because of the time that went by.
    pub overtaken: bool,
}

/// Sums for the congestion controller of one path, in bytes of packets that counted as in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathTally {
    /// Newly acknowledged.
    pub acked_bytes: u64,
    /// When the newest of them was sent.
    pub acked_sent: Option<Instant>,
    /// When the oldest of them was sent.
    pub acked_oldest: Option<Instant>,
    /// Declared lost, MTU probes apart.
    pub lost_bytes: u64,
    /// When the newest of them was sent.
    pub lost_sent: Option<Instant>,
    /// Into how many runs of consecutive numbers they fall, and the number behind the last.
    pub lost_runs: (u32, PacketNumber),
    /// No longer in flight without saying anything about congestion: lost MTU probes.
    pub released_bytes: u64,
    /// Acknowledged after they had been declared lost; they left the flight then.
    pub spurious_bytes: u64,
    /// When the newest of them was sent.
    pub spurious_sent: Option<Instant>,
    /// Newly acknowledged packets that left with an ECT mark.
    pub acked_ect: u64,
    /// Packets with an ECT mark that were declared lost.
    pub lost_ect: u64,
}

/// What an acknowledgement, or the loss timer, brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// Packets newly acknowledged, late ones apart.
    pub newly_acked: u32,
    /// An ack-eliciting packet is among them.
    pub newly_acked_eliciting: bool,
    /// The frame raised the largest acknowledged number.
    pub largest_increased: bool,
    /// Packets declared lost.
    pub lost: u32,
    /// Packets acknowledged after they had been declared lost.
    pub spurious: u32,
    /// An RTT sample was taken.
    pub rtt_sampled: bool,
    /// The losses mean persistent congestion of the path in use.
    pub persistent_congestion: bool,
    /// An acknowledged MTU probe: its number and size. The largest when there are several.
    pub mtu_acked: Option<(PacketNumber, u16)>,
    /// A lost MTU probe: its number and size. The smallest when there are several.
    pub mtu_lost: Option<(PacketNumber, u16)>,
    /// Size of the largest packet newly acknowledged.
    pub acked_size_max: u16,
    /// Packets declared lost that are larger than every path carries, MTU probes apart.
    pub lost_large: u32,
    /// Sums by position of the path.
    pub paths: [PathTally; PATHS],
}

impl AckOutcome {
    fn on_acked(&mut self, found: &Found<'_>, cx: &Context) {
        let p = found.packet;
        let in_use = cx.is_in_use(found);
        // What is known of a path that is gone goes nowhere.
        let mut nowhere = PathTally::default();
        let tally = if cx.is_live(found) { &mut self.paths[p.path.slot()] } else { &mut nowhere };
        let bytes = if p.in_flight { u64::from(p.size) } else { 0 };
        if p.mtu_probe && in_use {
            self.mtu_acked = self.mtu_acked.max(Some((found.pn, p.size)));
        }
        if found.was_lost {
            self.spurious += 1;
            if !p.mtu_probe && p.in_flight {
                tally.spurious_bytes += bytes;
                tally.spurious_sent = tally.spurious_sent.max(Some(p.time));
            }
            return;
        }
        self.newly_acked += 1;
        if in_use {
            self.acked_size_max = self.acked_size_max.max(p.size);
        }
        self.newly_acked_eliciting |= p.ack_eliciting;
        tally.acked_ect += u64::from(p.ect);
        if p.in_flight {
            tally.acked_bytes += bytes;
            tally.acked_sent = tally.acked_sent.max(Some(p.time));
            tally.acked_oldest = Some(tally.acked_oldest.map_or(p.time, |oldest| oldest.min(p.time)));
        }
    }

    /// `early`: of the handshake, and sent before anything was acknowledged in its space.
    fn on_lost(&mut self, found: &Found<'_>, cx: &Context, early: bool) {
        let p = found.packet;
        let in_use = cx.is_in_use(found);
        let mut nowhere = PathTally::default();
        let tally = if cx.is_live(found) { &mut self.paths[p.path.slot()] } else { &mut nowhere };
        let bytes = if p.in_flight { u64::from(p.size) } else { 0 };
        self.lost += 1;
        tally.lost_ect += u64::from(p.ect);
        if early {
            tally.released_bytes += bytes;
        } else if p.mtu_probe {
            //= rfc9000#14.4-1
            tally.released_bytes += bytes;
            if !in_use {
                return;
            }
            self.mtu_lost = Some(self.mtu_lost.map_or((found.pn, p.size), |other| other.min((found.pn, p.size))));
        } else if p.in_flight {
            self.lost_large += u32::from(in_use && p.size > crate::config::MIN_DATAGRAM);
            tally.lost_bytes += bytes;
            tally.lost_sent = tally.lost_sent.max(Some(p.time));
            let (runs, end) = tally.lost_runs;
            tally.lost_runs = (runs + u32::from(runs == 0 || found.pn != end), found.pn + 1);
        }
    }
}

/// Where what was found out goes to.
struct Report<'a> {
    out: &'a mut AckOutcome,
    settle: &'a mut dyn FnMut(Fate, Settled<'_>),
}

/// Bytes that left the flight, by path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Freed {
    /// Bytes by position of the path.
    pub bytes: [u64; PATHS],
}

/// State of one packet number space.
#[derive(Clone, Debug)]
struct SpaceState {
    sent: SentHistory,
    largest_acked: Option<PacketNumber>,
    /// The smallest that was acknowledged.
    first_acked: PacketNumber,
    /// When the oldest unsettled packet below the largest acknowledged one will be lost.
    loss_time: Option<Instant>,
    /// When the newest ack-eliciting packet was sent.
    last_eliciting: Instant,
    /// Send time of the first packet in the current run of losses without an acknowledged packet in between.
    lost_run: Option<Instant>,
    /// The next number to leave out on purpose; `None` until drawn.
    skip_at: Option<PacketNumber>,
}

impl SpaceState {
    const fn new() -> Self {
        Self {
            sent: SentHistory::new(),
            largest_acked: None,
            first_acked: PacketNumber::MAX,
            loss_time: None,
            last_eliciting: Instant::ZERO,
            lost_run: None,
            skip_at: None,
        }
    }

    /// Refuses acknowledgements of numbers that were not sent yet or were left out.
    //= rfc9000#13.1-2
    fn check_sent(&self, largest: PacketNumber, ack: &AckRanges) -> Result<(), PeerViolation> {
        if largest >= self.sent.next_pn() || self.sent.skipped().is_some_and(|skipped| ack.contains(skipped)) {
            return Err(PeerViolation::new(
                TransportCode::PROTOCOL_VIOLATION,
                "acknowledgement of a packet that was never sent",
                "rfc9000#13.1",
            ));
        }
        Ok(())
    }

    fn has_outstanding_skip(&self) -> bool {
        self.sent.skipped().is_some_and(|skipped| self.largest_acked.is_none_or(|acked| acked < skipped))
    }
}

/// Loss recovery of a connection.
#[derive(Clone, Debug)]
pub struct Recovery {
    data: SpaceState,
    /// Initial and Handshake; gone when both are discarded, because established connections are many.
    early: Option<Box<[SpaceState; 2]>>,
    /// Probe timeouts in a row without an acknowledgement.
    pto_count: u32,
    /// When the anti-deadlock timer was last set anew.
    rearmed: Instant,
    reordering: Reordering,
    /// A probe leaves then although the timeout would be later.
    hurry: Instant,
    /// It has left, and nothing was acknowledged since.
    hurried: bool,
}

impl Default for Recovery {
    fn default() -> Self {
        Self::new()
    }
}

impl Recovery {
    /// Nothing sent.
    #[must_use]
    pub fn new() -> Self {
        Self::with_reordering(Reordering::default())
    }

    /// Nothing sent; the timer that keeps both ends from waiting for ever counts from now.
    #[must_use]
    pub fn starting(now: Instant) -> Self {
        Self { rearmed: now, ..Self::new() }
    }

    /// Nothing sent; with these loss thresholds.
    #[must_use]
    pub fn with_reordering(reordering: Reordering) -> Self {
        Self {
            data: SpaceState::new(),
            early: Some(Box::new([SpaceState::new(), SpaceState::new()])),
            pto_count: 0,
            rearmed: Instant::ZERO,
            reordering,
            hurry: Instant::FAR_FUTURE,
            hurried: false,
        }
    }

    /// The state of a space; `None` when it is gone.
    fn space(&self, space: Space) -> Option<&SpaceState> {
        match space {
            Space::Data => Some(&self.data),
            early => Some(&self.early.as_ref()?[early.index()]),
        }
    }

    fn space_mut(&mut self, space: Space) -> Option<&mut SpaceState> {
        match space {
            Space::Data => Some(&mut self.data),
            early => Some(&mut self.early.as_mut()?[early.index()]),
        }
    }

    /// Continues the numbers of packets that were sent before there was a connection: the next packet gets `next`, and
    /// acknowledgements of smaller numbers are taken without effect. Only before anything was sent in the space.
    pub fn start_at(&mut self, space: Space, next: PacketNumber) {
        if let Some(s) = self.space_mut(space) {
            s.sent.start_at(next);
        }
    }

    /// The number of the next packet.
    //= rfc9000#12.3-1, rfc9000#12.3-2
    #[must_use]
    pub fn next_pn(&self, space: Space) -> PacketNumber {
        self.space(space).map_or(0, |s| s.sent.next_pn())
    }

    /// The largest number that the peer acknowledged.
    #[must_use]
    pub fn largest_acked(&self, space: Space) -> Option<PacketNumber> {
        self.space(space)?.largest_acked
    }

    /// Ack-eliciting packets in flight.
    #[must_use]
    pub fn eliciting_in_flight(&self, space: Space) -> usize {
        self.space(space).map_or(0, |s| s.sent.eliciting())
    }

    /// Probe timeouts in a row.
    #[must_use]
    pub const fn pto_count(&self) -> u32 {
        self.pto_count
    }

    /// The loss thresholds.
    #[must_use]
    pub const fn reordering(&self) -> &Reordering {
        &self.reordering
    }

    /// The sent packets of the Data space, for statistics.
    #[must_use]
    pub const fn sent_data(&self) -> &SentHistory {
        &self.data.sent
    }

    /// Whether it is time to call [`reserve_skip`](Self::reserve_skip): asked before a train is built.
    #[must_use]
    pub fn skip_due(&self, space: Space) -> bool {
        self.space(space)
            .is_some_and(|s| s.skip_at.is_none_or(|at| at <= s.sent.next_pn()) && !s.has_outstanding_skip())
    }

    /// Leaves out a packet number when one is due, and draws when the next one will be, within the number of packets in
    /// flight: a peer that acknowledges what it did not receive is caught before it gains much. At most one number is
    /// outstanding. Returns whether a number was left out.
    pub fn reserve_skip(&mut self, space: Space, random: u64) -> bool {
        if !self.skip_due(space) {
            return false;
        }
        let Some(s) = self.space_mut(space) else { return false };
        let skips = s.skip_at.is_some();
        if skips {
            s.sent.skip();
        }
        let within = 2 * s.sent.live() as u64 + 64;
        s.skip_at = Some(s.sent.next_pn() + 1 + random % within);
        skips
    }

    /// A packet was sealed and handed to the network, with the number [`next_pn`](Self::next_pn).
    pub fn on_packet_sent(&mut self, space: Space, pn: PacketNumber, packet: &SentPacket, records: &[Record]) {
        let Some(s) = self.space_mut(space) else {
            debug_assert!(false, "nothing is sent in a space without keys");
            return;
        };
        s.sent.push(pn, packet, records);
        if packet.ack_eliciting && packet.in_flight {
            //= rfc9002#6.2.1-4
            s.last_eliciting = packet.time;
            self.rearmed = packet.time;
        }
    }

    /// Acknowledges packets: settles them, takes an RTT sample, and declares lost what the acknowledgement shows to be.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION when a number is acknowledged that was never sent.
    pub fn on_ack(
        &mut self,
        now: Instant,
        ack: &AckRanges,
        rtt: &mut Rtt,
        cx: &Context,
        settle: &mut dyn FnMut(Fate, Settled<'_>),
    ) -> Result<AckOutcome, PeerViolation> {
        let mut out = AckOutcome::default();
        let Some(largest) = ack.largest() else { return Ok(out) };
        let space = ack.space();
        let s = match space {
            Space::Data => &mut self.data,
            early => match &mut self.early {
                Some(spaces) => &mut spaces[early.index()],
                None => return Ok(out),
            },
        };
        s.check_sent(largest, ack)?;
        let overtaken_by = s.largest_acked.unwrap_or(largest);
        out.largest_increased = s.largest_acked.is_none_or(|l| l < largest);
        s.largest_acked = s.largest_acked.max(Some(largest));

        let (mut largest_sent, mut first_acked) = (None, s.first_acked);
        let reordering = &mut self.reordering;
        let round_trip = rtt.latest().max(rtt.smoothed());
        let lowest = s.sent.lowest();
        s.sent.begin_ack();
        for (first, last) in ack.ranges() {
            if last < lowest {
                break;
            }
            s.sent.ack_range(first, last, |found| {
                if found.pn == largest && !found.was_lost {
                    largest_sent = Some((found.packet.time, cx.is_in_use(&found)));
                }
                if found.was_lost && !found.packet.mtu_probe && cx.is_in_use(&found) {
                    let took = ack.received().since(found.packet.time);
                    reordering.on_spurious(overtaken_by.saturating_sub(found.pn), took, round_trip);
                }
                first_acked = first_acked.min(found.pn);
                out.on_acked(&found, cx);
                let Found { pn, packet, records, was_lost } = found;
                settle(Fate::Acked, Settled { space, pn, packet, records, spurious: was_lost, overtaken: false });
            });
        }
        s.sent.finish_ack();
        s.first_acked = first_acked;
        if out.newly_acked == 0 && out.spurious == 0 {
            return Ok(out);
        }
        //= rfc9002#5.1-1, rfc9002#5.1-2, rfc9000#9.4-1
        if let Some((sent, true)) = largest_sent
            && out.newly_acked_eliciting
        {
            rtt.sample_of(now, sent, ack, cx.handshake_confirmed.then_some(cx.max_ack_delay));
            out.rtt_sampled = true;
        }
        self.forget_lost(now, space, rtt, cx);
        self.detect_lost(now, space, rtt, cx, Report { out: &mut out, settle });
        if out.newly_acked > 0 {
            if cx.peer_validated_address {
                self.pto_count = 0;
            }
            self.relax(now);
        }
        Ok(out)
    }

    /// Forgets packets that were lost long ago.
    fn forget_lost(&mut self, now: Instant, space: Space, rtt: &Rtt, cx: &Context) {
        let keep = (rtt.pto_base() + cx.max_ack_delay).saturating_mul(REMEMBER_LOST_PTOS);
        if self.space_mut(space).is_some_and(|s| s.sent.expire(now - keep) > 0) {
            self.reordering.on_true_loss();
        }
    }

    /// Declares packets of a space lost and sets its loss time.
    fn detect_lost(&mut self, now: Instant, space: Space, rtt: &mut Rtt, cx: &Context, to: Report<'_>) {
        let Report { out, settle } = to;
        let delay = rtt.loss_delay(self.reordering.eighths());
        let packet_threshold = self.reordering.packets();
        let Some(s) = self.space_mut(space) else { return };
        s.loss_time = None;
        let Some(largest_acked) = s.largest_acked else { return };
        let rule = LossRule { largest_acked, packet_threshold, sent_before: now - delay };
        let persistent = (rtt.pto_base() + cx.max_ack_delay).saturating_mul(PERSISTENT_PTOS);
        let (first_sample, earliest) = (rtt.first_sample(), if space == Space::Data { 0 } else { s.first_acked });
        let lost_run = &mut s.lost_run;
        //= rfc9002#6.1.2-1
        let next = s.sent.detect_lost(now, &rule, |found, after_acked| {
            if after_acked {
                *lost_run = None;
            }
            //= rfc9002#7.6.2-1, rfc9002#7.6.2-2
            let p = found.packet;
            if p.ack_eliciting && p.time > first_sample && cx.is_in_use(&found) {
                let first = *lost_run.get_or_insert(p.time);
                out.persistent_congestion |= p.time.since(first) > persistent;
            }
            //= rfc9002#7.4-1
            out.on_lost(&found, cx, found.pn < earliest);
            let Found { pn, packet, records, .. } = found;
            let overtaken = largest_acked.saturating_sub(pn) >= packet_threshold;
            settle(Fate::Lost, Settled { space, pn, packet, records, spurious: false, overtaken });
        });
        //= rfc9002#6.1.2-3
        s.loss_time = next.map(|sent| sent + delay);
        if out.persistent_congestion {
            s.lost_run = None;
            rtt.on_persistent_congestion();
        }
    }

    /// Forgets a space whose keys are gone; Initial goes before Handshake. Every unsettled packet is settled as discarded.
    //= rfc9002#6.4-1
    pub fn discard(&mut self, now: Instant, space: Space, settle: &mut dyn FnMut(Fate, Settled<'_>)) -> Freed {
        let freed = self.take(space, Fate::Discarded, |_| true, settle);
        if let Some(s) = self.space_mut(space) {
            s.sent.shrink();
        }
        if space == Space::Handshake && self.early.as_ref().is_some_and(|early| early[0].sent.live() == 0) {
            self.early = None;
        }
        //= rfc9002#6.2.2-3
        self.pto_count = 0;
        self.relax(now);
        freed
    }

    /// Gives up every unsettled packet of a level, so that what it carried is sent again, without a word to congestion
    /// control: after a Retry, a version negotiation, or when 0-RTT was rejected.
    pub fn abandon(&mut self, now: Instant, level: Level, settle: &mut dyn FnMut(Fate, Settled<'_>)) -> Freed {
        let freed = self.take(level.space(), Fate::Lost, |p| p.level == level, settle);
        self.pto_count = 0;
        self.relax(now);
        freed
    }

    fn take(
        &mut self,
        space: Space,
        fate: Fate,
        which: impl Fn(&SentPacket) -> bool,
        settle: &mut dyn FnMut(Fate, Settled<'_>),
    ) -> Freed {
        let mut freed = Freed::default();
        let Some(s) = self.space_mut(space) else { return freed };
        s.sent.take(which, |Found { pn, packet, records, .. }| {
            if packet.in_flight {
                freed.bytes[packet.path.slot()] += u64::from(packet.size);
            }
            settle(fate, Settled { space, pn, packet, records, spurious: false, overtaken: false });
        });
        s.loss_time = None;
        s.lost_run = None;
        freed
    }

    /// The connection moved to another path: what was learned about reordering and backoff is void. Packets on the old
    /// path stay known and are settled as usual.
    pub fn reset_for_path_change(&mut self, now: Instant) {
        self.reordering.reset();
        self.pto_count = 0;
        self.relax(now);
        self.data.lost_run = None;
    }
}
