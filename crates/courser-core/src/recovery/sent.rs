//! Packets of one space whose fate is not settled, in a ring by packet number.
//!
//! A packet is a 40-byte entry in the ring; its only [`Record`] lies inside, more than one lie in a side arena with a free
//! list. The front of the ring is always the oldest unsettled packet: settled entries leave as soon as nothing unsettled is
//! before them, and packets that are declared lost move to the side list `old`, where they stay for some time so that a
//! late acknowledgement is recognised. An acknowledged run remembers its length at its top, so that the next ACK frame,
//! which repeats the range, steps over it: reading an ACK costs its newly acknowledged packets and its number of ranges.
//!
//! Memory follows what is unsettled, not the span of numbers. When the ring grows beyond four times the unsettled packets
//! plus [`SPAN_SLACK`], its oldest survivors move to `old` as well. Packets that are neither ack-eliciting nor counted in
//! flight (pure ACKs) are forgotten instead of moved.
//!
//! Order: packet numbers ascend through `old` (first the lost ones, then the survivors) and then through the ring.

use std::collections::VecDeque;

use crate::ids::{Level, PacketNumber, PathId};
use crate::spans::{FrameSet, Record, SentPacket};
use crate::time::Instant;

use super::arena::Arena;

/// The ring may span four times the unsettled packets plus this.
pub const SPAN_SLACK: usize = 1024;

/// What an entry holds apart from the packet's own fields.
#[derive(Clone, Copy, Debug)]
enum Body {
    /// No record.
    Empty,
    /// The only record.
    One(Record),
    /// First node of the records in the arena.
    Many(u32),
    /// The entry is settled, and so are that many entries counted downwards from here, this one included.
    Run(u32),
}

/// What is known of a number in the ring or in `old`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Sent, fate unknown.
    Live,
    /// Declared lost, kept for a late acknowledgement.
    Lost,
    /// Acknowledged.
    Acked,
    /// Never sent, or forgotten.
    Absent,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    time: Instant,
    body: Body,
    frames: FrameSet,
    size: u16,
    /// Level, path and the four flags of [`SentPacket`], two, two and one bit each.
    bits: u8,
    state: State,
}

const _: () = assert!(size_of::<Entry>() <= 40);

const ELICITING: u8 = 1 << 4;
const IN_FLIGHT: u8 = 1 << 5;
const MTU_PROBE: u8 = 1 << 6;
const ECT: u8 = 1 << 7;

impl Entry {
    const ABSENT: Self = Self {
        time: Instant::ZERO,
        body: Body::Run(1),
        frames: FrameSet::EMPTY,
        size: 0,
        bits: 0,
        state: State::Absent,
    };

    fn new(p: &SentPacket, body: Body) -> Self {
        debug_assert!(p.path.0 < 4, "a connection has at most four paths");
        let flag = |on, bit| if on { bit } else { 0 };
        let bits = p.level as u8
            | (p.path.0 & 3) << 2
            | flag(p.ack_eliciting, ELICITING)
            | flag(p.in_flight, IN_FLIGHT)
            | flag(p.mtu_probe, MTU_PROBE)
            | flag(p.ect, ECT);
        Self { time: p.time, body, frames: p.frames, size: p.size, bits, state: State::Live }
    }

    fn packet(&self) -> SentPacket {
        SentPacket {
            time: self.time,
            frames: self.frames,
            size: self.size,
            level: Level::ALL[usize::from(self.bits & 3)],
            path: PathId(self.bits >> 2 & 3),
            ack_eliciting: self.bits & ELICITING != 0,
            in_flight: self.bits & IN_FLIGHT != 0,
            mtu_probe: self.bits & MTU_PROBE != 0,
            ect: self.bits & ECT != 0,
        }
    }

    /// Whether the packet matters for recovery: pure ACKs do not.
    const fn is_tracked(&self) -> bool {
        self.bits & (ELICITING | IN_FLIGHT) != 0
    }

    const fn is_probe_wanting(&self) -> bool {
        self.bits & (ELICITING | IN_FLIGHT) == ELICITING | IN_FLIGHT
    }
}

/// An entry outside the ring.
#[derive(Clone, Copy, Debug)]
struct Old {
    pn: PacketNumber,
    /// When it was declared lost, when it was.
    lost_at: Instant,
    entry: Entry,
}

/// A packet whose fate was just found out, as the history tells it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its number.
    pub pn: PacketNumber,
    /// Its fields.
    pub packet: &'a SentPacket,
    /// What it carried.
    pub records: &'a [Record],
    /// It had been declared lost before.
    pub was_lost: bool,
}

/// What decides whether a packet is lost.
#[derive(Clone, Copy, Debug)]
pub struct LossRule {
    /// Only packets up to here can be lost.
    pub largest_acked: PacketNumber,
    /// Lost when that many numbers below the largest acknowledged one.
    pub packet_threshold: u64,
    /// Lost when sent at this time or before.
    pub sent_before: Instant,
}

/// The unsettled packets of a space.
#[derive(Clone, Debug)]
pub struct SentHistory {
    ring: VecDeque<Entry>,
    /// Number of the ring's front.
    base: PacketNumber,
    /// Lost packets that are remembered, then survivors that left the ring; by ascending number.
    old: VecDeque<Old>,
    /// How many of `old` are lost; the rest is unsettled.
    old_lost: usize,
    /// Records of packets that have more than one.
    arena: Arena,
    /// Unsettled packets that count for recovery.
    live: usize,
    /// Ack-eliciting packets in flight.
    eliciting: usize,
    /// The newest number that was left out on purpose.
    skipped: Option<PacketNumber>,
    /// An acknowledged packet left the front since this was last asked for.
    passed_acked: bool,
    /// `old` holds acknowledged entries that [`finish_ack`](Self::finish_ack) has to drop.
    old_acked: bool,
    /// Entries of `old` below the last range of the ACK frame in work.
    old_seen: usize,
}

const _: () = assert!(size_of::<SentHistory>() <= 136, "every connection carries one");

impl Default for SentHistory {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows an entry to `visit` with its records gathered.
fn show(pn: PacketNumber, entry: &Entry, arena: &mut Arena, visit: &mut impl FnMut(Found<'_>)) {
    let packet = entry.packet();
    let was_lost = entry.state == State::Lost;
    let records: &[Record] = match &entry.body {
        Body::One(record) => core::slice::from_ref(record),
        Body::Many(head) => arena.read(*head),
        Body::Empty | Body::Run(_) => &[],
    };
    visit(Found { pn, packet: &packet, records, was_lost });
}

fn release(entry: &Entry, arena: &mut Arena) {
    if let Body::Many(head) = entry.body {
        arena.release(head);
    }
}

impl SentHistory {
    /// Nothing sent.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ring: VecDeque::new(),
            base: 0,
            old: VecDeque::new(),
            old_lost: 0,
            arena: Arena::new(),
            live: 0,
            eliciting: 0,
            skipped: None,
            passed_acked: false,
            old_acked: false,
            old_seen: 0,
        }
    }

    /// Sets the number of the first packet.
    pub fn start_at(&mut self, next: PacketNumber) {
        assert!(self.ring.is_empty() && self.old.is_empty() && next >= self.base, "numbers are never used again");
        self.base = next;
    }

    /// The number of the next packet.
    #[must_use]
    pub fn next_pn(&self) -> PacketNumber {
        self.base + self.ring.len() as u64
    }

    /// Leaves out the next number.
    pub fn skip(&mut self) {
        self.skipped = Some(self.next_pn());
        self.ring.push_back(Entry::ABSENT);
        self.trim();
        self.evict();
    }

    /// The newest number that was left out.
    #[must_use]
    pub const fn skipped(&self) -> Option<PacketNumber> {
        self.skipped
    }

    /// Remembers a packet that was sealed with the number [`next_pn`](Self::next_pn).
    pub fn push(&mut self, pn: PacketNumber, packet: &SentPacket, records: &[Record]) {
        assert_eq!(pn, self.next_pn(), "packet numbers are used in order");
        let body = match records {
            [] => Body::Empty,
            [one] => Body::One(*one),
            many => Body::Many(self.arena.store(many)),
        };
        let entry = Entry::new(packet, body);
        self.live += usize::from(entry.is_tracked());
        self.eliciting += usize::from(entry.is_probe_wanting());
        self.ring.push_back(entry);
        self.evict();
    }

    fn span_max(&self) -> usize {
        4 * self.live + SPAN_SLACK
    }

    /// Moves the oldest entries out of a ring that spans too much.
    fn evict(&mut self) {
        while self.ring.len() + self.old.len() - self.old_lost > self.span_max() {
            let Some(entry) = self.ring.pop_front() else { return };
            match entry.state {
                State::Live if entry.is_tracked() => {
                    self.old.push_back(Old { pn: self.base, lost_at: Instant::ZERO, entry });
                }
                State::Live => release(&entry, &mut self.arena),
                State::Acked => self.passed_acked = true,
                State::Lost | State::Absent => {}
            }
            self.base += 1;
        }
    }

    /// Drops settled entries from the front of the ring.
    fn trim(&mut self) {
        let mut settled = 0;
        for entry in &self.ring {
            if entry.state == State::Live {
                break;
            }
            self.passed_acked |= entry.state == State::Acked;
            settled += 1;
        }
        if settled > 0 {
            self.ring.drain(..settled);
            self.base += settled as u64;
        }
    }

    fn settle_counts(live: &mut usize, eliciting: &mut usize, entry: &Entry) {
        *live -= usize::from(entry.is_tracked());
        *eliciting -= usize::from(entry.is_probe_wanting());
    }

    /// Everything below was settled and forgotten.
    #[must_use]
    pub fn lowest(&self) -> PacketNumber {
        self.old.front().map_or(self.base, |o| o.pn)
    }

    /// Begins the processing of an ACK frame.
    pub fn begin_ack(&mut self) {
        self.old_seen = self.old.len();
    }

    /// Settles the packets from `low` to `high` as acknowledged, largest first. Called for each range of a frame, largest
    /// first, between [`begin_ack`](Self::begin_ack) and [`finish_ack`](Self::finish_ack).
    pub fn ack_range(&mut self, low: PacketNumber, high: PacketNumber, mut visit: impl FnMut(Found<'_>)) {
        let next = self.next_pn();
        if high >= self.base && low < next {
            let top = (high.min(next - 1) - self.base) as usize;
            let bottom = low.saturating_sub(self.base) as usize;
            self.ack_in_ring(bottom, top, &mut visit);
        }
        if low < self.base && !self.old.is_empty() {
            self.ack_in_old(low, high, &mut visit);
        }
    }

    fn ack_in_ring(&mut self, bottom: usize, top: usize, visit: &mut impl FnMut(Found<'_>)) {
        let mut end = top + 1;
        while end > bottom {
            let at = end - 1;
            let entry = &mut self.ring[at];
            if let Body::Run(n) = entry.body
                && entry.state != State::Live
            {
                end = end.saturating_sub(n as usize);
                continue;
            }
            Self::settle_counts(&mut self.live, &mut self.eliciting, entry);
            show(self.base + at as u64, entry, &mut self.arena, visit);
            release(entry, &mut self.arena);
            entry.state = State::Acked;
            entry.body = Body::Run(1);
            end = at;
        }
        self.ring[top].body = Body::Run(u32::try_from(top + 1 - end).unwrap_or(u32::MAX));
    }

    fn ack_in_old(&mut self, low: PacketNumber, high: PacketNumber, visit: &mut impl FnMut(Found<'_>)) {
        self.old_seen = self.old_up_to(high);
        while let Some(at) = self.old_seen.checked_sub(1) {
            let old = &mut self.old[at];
            if old.pn < low {
                break;
            }
            self.old_seen = at;
            match old.entry.state {
                State::Live => Self::settle_counts(&mut self.live, &mut self.eliciting, &old.entry),
                State::Lost => {}
                State::Acked | State::Absent => continue,
            }
            show(old.pn, &old.entry, &mut self.arena, visit);
            release(&old.entry, &mut self.arena);
            old.entry.state = State::Acked;
            self.old_acked = true;
            self.passed_acked = true;
        }
    }

    /// How many entries of `old` have numbers up to `high`. Looks downwards from where the range before ended, in growing
    /// steps, because the gap between two ranges of an ACK frame usually holds few lost packets.
    fn old_up_to(&self, high: PacketNumber) -> usize {
        let (mut above, mut below, mut step) = (self.old_seen, self.old_seen, 1);
        while below > 0 && self.old[below - 1].pn > high {
            above = below - 1;
            below = below.saturating_sub(step);
            step *= 2;
        }
        while below < above {
            let middle = below + (above - below) / 2;
            if self.old[middle].pn > high { above = middle } else { below = middle + 1 }
        }
        above
    }

    /// Ends the processing of an ACK frame: forgets what was settled.
    pub fn finish_ack(&mut self) {
        self.trim();
        if core::mem::take(&mut self.old_acked) {
            self.old.retain(|o| o.entry.state != State::Acked);
            self.old_lost = self.old.partition_point(|o| o.entry.state == State::Lost);
        }
        self.evict();
    }

    /// Declares packets lost, oldest first, until one is not. Returns when that one was sent, when it is below the largest
    /// acknowledged number: it will be lost by time. `visit` also gets whether an acknowledged packet lies between this one
    /// and the one that was lost before it.
    pub fn detect_lost(
        &mut self,
        now: Instant,
        rule: &LossRule,
        mut visit: impl FnMut(Found<'_>, bool),
    ) -> Option<Instant> {
        let lost = |pn: PacketNumber, entry: &Entry| {
            entry.time <= rule.sent_before || rule.largest_acked.saturating_sub(pn) >= rule.packet_threshold
        };
        loop {
            let (pn, entry) = match self.old.get_mut(self.old_lost) {
                Some(o) if o.pn >= rule.largest_acked => return None,
                Some(o) if !lost(o.pn, &o.entry) => return Some(o.entry.time),
                Some(o) => {
                    o.lost_at = now;
                    o.entry.state = State::Lost;
                    self.old_lost += 1;
                    (o.pn, o.entry)
                }
                None => {
                    self.trim();
                    let (pn, front) = (self.base, self.ring.front()?);
                    if pn >= rule.largest_acked {
                        return None;
                    }
                    if !lost(pn, front) {
                        return Some(front.time);
                    }
                    let mut entry = *front;
                    self.ring.pop_front();
                    self.base += 1;
                    entry.state = State::Lost;
                    if entry.is_tracked() {
                        self.old.push_back(Old { pn, lost_at: now, entry });
                        self.old_lost += 1;
                    }
                    (pn, entry)
                }
            };
            Self::settle_counts(&mut self.live, &mut self.eliciting, &entry);
            let after_acked = core::mem::take(&mut self.passed_acked);
            let fresh = Entry { state: State::Live, ..entry };
            show(pn, &fresh, &mut self.arena, &mut |found| visit(found, after_acked));
            if !entry.is_tracked() {
                release(&entry, &mut self.arena);
            }
        }
    }

    /// Forgets packets that were declared lost at `until` or before, and the oldest ones when too many are remembered.
    /// Returns how many were truly lost.
    pub fn expire(&mut self, until: Instant) -> usize {
        let mut expired = 0;
        let max = self.span_max();
        while self.old_lost > 0
            && let Some(front) = self.old.front()
            && (front.lost_at <= until || self.old.len() > max)
        {
            release(&front.entry, &mut self.arena);
            self.old.pop_front();
            self.old_lost -= 1;
            expired += 1;
        }
        expired
    }

    /// Settles every unsettled packet for which `which` holds, oldest first, without a word about loss; forgets the lost
    /// ones for which it holds, without showing them.
    pub fn take(&mut self, which: impl Fn(&SentPacket) -> bool, mut visit: impl FnMut(Found<'_>)) {
        for old in &mut self.old {
            if !which(&old.entry.packet()) {
                continue;
            }
            if old.entry.state == State::Live {
                Self::settle_counts(&mut self.live, &mut self.eliciting, &old.entry);
                show(old.pn, &old.entry, &mut self.arena, &mut visit);
            }
            release(&old.entry, &mut self.arena);
            old.entry.state = State::Absent;
        }
        self.old.retain(|o| o.entry.state != State::Absent);
        self.old_lost = self.old.partition_point(|o| o.entry.state == State::Lost);
        for (pn, entry) in (self.base..).zip(&mut self.ring) {
            if entry.state == State::Live && which(&entry.packet()) {
                Self::settle_counts(&mut self.live, &mut self.eliciting, entry);
                show(pn, entry, &mut self.arena, &mut visit);
                release(entry, &mut self.arena);
                *entry = Entry::ABSENT;
            }
        }
        self.trim();
    }

    /// Shows the oldest unsettled packet that asked for an acknowledgement.
    pub fn oldest_eliciting(&mut self, mut visit: impl FnMut(Found<'_>)) {
        let wanted = |e: &Entry| e.state == State::Live && e.is_probe_wanting();
        if let Some(old) = self.old.iter().find(|o| wanted(&o.entry)) {
            return show(old.pn, &old.entry, &mut self.arena, &mut visit);
        }
        if let Some((pn, entry)) = (self.base..).zip(&self.ring).find(|(_, e)| wanted(e)) {
            show(pn, entry, &mut self.arena, &mut visit);
        }
    }

    /// Gives memory back that an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.live == 0 {
            // What is left are pure ACKs, whose fate matters little.
            for entry in &mut self.ring {
                if entry.state == State::Live {
                    release(entry, &mut self.arena);
                    *entry = Entry::ABSENT;
                }
            }
            self.trim();
        }
        self.ring.shrink_to_fit();
        self.old.shrink_to_fit();
        if self.arena.used() == 0 {
            self.arena = Arena::new();
        }
    }

    /// Whether no packet is known that somebody could still hear of; pure ACKs do not count.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.live == 0 && self.old.is_empty()
    }

    /// Unsettled packets that count for recovery.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.live
    }

    /// Ack-eliciting packets in flight.
    #[must_use]
    pub const fn eliciting(&self) -> usize {
        self.eliciting
    }

    /// Reads a word of each line of memory that the next packet needs, so that they are in the cache by then.
    #[must_use]
    pub fn touch(&self) -> u64 {
        let front = self.ring.front().map_or(0, |entry| u64::from(entry.size));
        let back = self.ring.back().map_or(0, |entry| u64::from(entry.size));
        front ^ back ^ self.base ^ self.eliciting as u64
    }

    /// Entries in memory, settled ones included.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.ring.len() + self.old.len()
    }

    /// Records in the side arena.
    #[must_use]
    pub fn records_in_use(&self) -> usize {
        self.arena.used()
    }
}
