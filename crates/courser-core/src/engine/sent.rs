//! Trains out, and what became of them.

use super::{Engine, Entry, Kind, SendOutcome, Train, TrainMeta};
use crate::time::Instant;

/// After this many trains of connections a reply that belongs to none gets its turn.
const TRAINS_PER_REPLY: u32 = 8;
/// A train of fewer bytes carries no data to speak of.
const DATA_MIN: usize = 1_000;

impl Engine {
    /// Builds the next train; `None` when nobody has anything to send now.
    pub fn fill(&mut self, now: Instant, train: &mut Train) -> Option<TrainMeta> {
        let now = self.clock.read(now);
        if self.trains_since_reply >= TRAINS_PER_REPLY || self.turns.len() == 0 {
            self.trains_since_reply = 0;
            if let Some(meta) = self.fill_reply(now, train) {
                return Some(meta);
            }
        }
        for _ in 0..self.turns.len() {
            self.touch_turns();
            let index = self.turns.next()?;
            let Some((_, Entry { kind: Kind::Live(conn), deadline: queued, .. })) = self.table.at(index) else {
                self.turns.unused(index);
                match self.fill_other(now, index, train) {
                    Some(meta) => return Some(meta),
                    None => continue,
                }
            };
            self.env.crowd = self.turns.crowd();
            let meta = conn.fill(&mut self.env, now, train);
            let again = conn.wants_send(now);
            conn.note_limit(&mut self.env, now);
            let deadline = conn.deadline(&self.env);
            *queued = deadline;
            if conn.has_events() {
                self.eventful.push(index);
            }
            if conn.is_done() {
                self.tickable.push(index);
            }
            if let Some(at) = deadline {
                self.deadlines.set(index, at);
            }
            let Some(meta) = meta else {
                self.turns.unused(index);
                continue;
            };
            self.turns.used(index, meta.len, again);
            if meta.len >= DATA_MIN {
                self.turns.count_data(now, index);
            }
            self.trains_since_reply += 1;
            self.stats.trains += 1;
            self.stats.sent_datagrams += meta.len.div_ceil(meta.segment.max(1)) as u64;
            return Some(meta);
        }
        self.fill_reply(now, train)
    }

    /// What is no connection, or not any more, says a single datagram.
    fn fill_other(&mut self, now: Instant, index: u32, train: &mut Train) -> Option<TrainMeta> {
        let meta = self.fill_mini(now, index, train).or_else(|| self.fill_remains(index, train))?;
        self.trains_since_reply += 1;
        self.stats.trains += 1;
        self.stats.sent_datagrams += 1;
        Some(meta)
    }

    /// Tells what became of a train that [`fill`](Self::fill) built. A caller whose socket is full keeps the train and sends
    /// it first when there is room.
    pub fn sent(&mut self, now: Instant, meta: &TrainMeta, outcome: SendOutcome) {
        let now = self.clock.read(now);
        match outcome {
            SendOutcome::Sent | SendOutcome::NoOffload => {}
            SendOutcome::Refused => self.stats.refused += 1,
            SendOutcome::TooBig => {
                self.stats.too_big += 1;
                let Some(key) = meta.key else { return };
                if let Some(Kind::Live(conn)) = self.table.get_mut(key).map(|e| &mut e.kind) {
                    conn.on_too_big(&mut self.env, now, meta);
                    self.tickable.push(key.index);
                }
            }
            SendOutcome::NoAddress => {
                self.stats.refused += 1;
                self.leave_address(now, meta);
            }
        }
    }

    /// The address of ours that a train was to leave from is gone.
    fn leave_address(&mut self, now: Instant, meta: &TrainMeta) {
        let Some(key) = meta.key else { return };
        let Some(Kind::Live(conn)) = self.table.get_mut(key).map(|e| &mut e.kind) else { return };
        conn.on_address_gone(&mut self.env, now, meta.from);
        self.tickable.push(key.index);
        self.apply_routes(now, key);
    }
}
