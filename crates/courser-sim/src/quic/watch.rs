//! An observer that judges every datagram that is built.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use courser_core::ids::{ConnKey, Level, PacketNumber};
use courser_core::observe::{Event, Interest, Kind, Observer};
use courser_core::spans::{FrameKind, FrameSet};
use courser_core::time::Instant;
use courser_core::wire::legality::{self, DatagramRules, PacketView};

/// Complaints that are kept.
const COMPLAINTS_MAX: usize = 20;

/// A packet that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// When, in microseconds of the world.
    pub at_us: u64,
    /// Whose.
    pub key: ConnKey,
    /// Level.
    pub level: Level,
    /// Number.
    pub pn: PacketNumber,
    /// Bytes of the packet.
    pub size: usize,
    /// Frames.
    pub frames: FrameSet,
}

/// A packet of the datagram under construction.
struct Parts {
    level: Level,
    header: Vec<u8>,
    payload: Vec<u8>,
    packet_len: usize,
    recorded: FrameSet,
}

struct Seen {
    /// Length of the connection IDs that short headers carry: those of the peer.
    cid_len: usize,
    complaints: Vec<String>,
    pending: Vec<Parts>,
    /// Emptied ones, for their memory.
    spare: Vec<Parts>,
    packets: u64,
    datagrams: u64,
    keep: bool,
    notes: Vec<Noted>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            cid_len: courser_core::cid::OWN_CID_LEN,
            complaints: Vec::new(),
            pending: Vec::new(),
            spare: Vec::new(),
            packets: 0,
            datagrams: 0,
            keep: false,
            notes: Vec::new(),
        }
    }
}

/// A shared view of what was built; clones look at the same.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Seen>>);

impl Watch {
    /// A watch that counts and judges; with `keep` it also notes every packet.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        let watch = Self::default();
        watch.seen().keep = keep;
        watch
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how long the peer's connection IDs are, when they have not the usual length.
    pub fn set_cid_len(&self, len: usize) {
        self.seen().cid_len = len;
    }

    /// What was illegal, one line each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.seen().complaints.clone()
    }

    /// Packets and datagrams that were judged.
    #[must_use]
    pub fn judged(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.packets, seen.datagrams)
    }

    /// The noted packets so far.
    #[must_use]
    pub fn notes(&self) -> Vec<Noted> {
        self.seen().notes.clone()
    }

    /// Noted packets with a frame of that kind.
    #[must_use]
    pub fn with(&self, kind: FrameKind) -> Vec<Noted> {
        self.seen().notes.iter().filter(|n| n.frames.contains(kind)).cloned().collect()
    }
}

impl Observer for Watch {
    fn interest(&self) -> Interest {
        Interest::NONE.with(Kind::DatagramBuilt)
    }

    fn on(&mut self, now: Instant, key: ConnKey, event: &Event<'_>) {
        let mut seen = self.seen();
        match *event {
            Event::DatagramBuilt { level, pn, header, packet_len, recorded, payload, .. } => {
                seen.packets += 1;
                if seen.keep {
                    let at_us = now.as_micros() - super::EPOCH_US;
                    seen.notes.push(Noted { at_us, key, level, pn, size: packet_len, frames: recorded });
                }
                seen.add(level, header, packet_len, recorded, payload);
            }
            Event::DatagramSealed { from, len, len_max, limited } => {
                seen.judge(now, &DatagramRules { sender: from, len, len_max, amplification_limited: limited });
            }
            _ => {}
        }
    }
}

impl Seen {
    fn add(&mut self, level: Level, header: &[u8], packet_len: usize, recorded: FrameSet, payload: &[u8]) {
        let empty = || Parts { level, header: Vec::new(), payload: Vec::new(), packet_len, recorded };
        let mut parts = self.spare.pop().unwrap_or_else(empty);
        (parts.level, parts.packet_len, parts.recorded) = (level, packet_len, recorded);
        parts.header.clear();
        parts.header.extend_from_slice(header);
        parts.payload.clear();
        parts.payload.extend_from_slice(payload);
        self.pending.push(parts);
    }

    fn judge(&mut self, now: Instant, rules: &DatagramRules) {
        self.datagrams += 1;
        let mut parts = std::mem::take(&mut self.pending);
        let views: Vec<PacketView<'_>> = parts.iter().filter_map(|p| view(p, self.cid_len)).collect();
        let verdict = legality::check_datagram(&views, rules);
        let whole = views.len() == parts.len();
        if (verdict.is_err() || !whole) && self.complaints.len() < COMPLAINTS_MAX {
            let what: Vec<_> = parts.iter().map(|p| (p.level, p.packet_len, p.recorded)).collect();
            self.complaints.push(format!("{} us: {verdict:?} for {rules:?} with {what:?}", now.as_micros()));
        }
        self.spare.append(&mut parts);
    }
}

fn view(parts: &Parts, cid_len: usize) -> Option<PacketView<'_>> {
    let Parts { level, packet_len, recorded, .. } = *parts;
    PacketView::read(level, &parts.header, cid_len, &parts.payload, packet_len, recorded)
}
