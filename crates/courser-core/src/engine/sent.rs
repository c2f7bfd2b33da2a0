//! What became of trains.

use super::{Engine, Kind, SendOutcome, TrainMeta};
use crate::time::Instant;

impl Engine {
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
