//! The datagram with CONNECTION_CLOSE: made once, then repeated.

use super::transmit::{INITIAL_DATAGRAM_MIN, LEVELS, Turn, pad_datagram};
use super::{Connection, Env, Life};
use crate::ids::Level;
use crate::packetiser::sizes::Budget;
use crate::packetiser::{Archetype, Close, Plan, Train, TrainMeta};
use crate::time::Instant;

impl Connection {
    /// The datagram with CONNECTION_CLOSE, made once and then repeated.
    pub(super) fn fill_close(&mut self, env: &mut Env, now: Instant, train: &mut Train) -> Option<TrainMeta> {
        let Life::Closing(closing) = &mut self.life else { return None };
        let words = &mut closing.words;
        if !core::mem::take(&mut words.answer) {
            return None;
        }
        if !words.packet.is_empty() {
            let kept = core::mem::take(&mut words.packet);
            let sent = self.repeat_close(&kept, train);
            if let Life::Closing(closing) = &mut self.life {
                closing.words.packet = kept;
            }
            return sent;
        }
        //= rfc9000#10.2.1-3
        let room = usize::from(self.path.pmtud.current()).min(self.path.amplification.room());
        let slot = train.slot(room)?;
        let len = self.build_close(env, now, slot)?;
        train.commit(len);
        // If not even this can be sealed, nobody can be told why: the connection ends in silence.
        self.seal_train(env, train).ok()?;
        if let Life::Closing(closing) = &mut self.life {
            closing.words.packet = train.bytes().into();
        }
        Some(self.train_meta(train, len, false))
    }

    fn repeat_close(&mut self, kept: &[u8], train: &mut Train) -> Option<TrainMeta> {
        if self.path.amplification.room() < kept.len() {
            return None;
        }
        train.slot(kept.len())?.copy_from_slice(kept);
        train.commit(kept.len());
        self.path.amplification.on_sent(kept.len());
        Some(self.train_meta(train, kept.len(), false))
    }

    fn build_close(&mut self, env: &mut Env, now: Instant, slot: &mut [u8]) -> Option<usize> {
        let reason = self.close_reason()?.clone();
        env.records.clear();
        self.keys.prepare_send(env.keys.as_ref(), now);
        let mut budget = Budget::new(slot.len());
        let mut packets = [const { None }; 4];
        for (place, level) in packets.iter_mut().zip(LEVELS) {
            //= rfc9000#10.2.3-1
            // Confirmed connections have keys of the last level alone.
            if level == Level::ZeroRtt || !self.keys.has_send(level) {
                continue;
            }
            let close: Close<'_> = Self::close_frame(&reason, level);
            let plan = Plan {
                level,
                archetype: Archetype::AckOnly,
                now,
                ack_delay_exponent: 3,
                must_elicit: false,
                immediate: false,
                last: false,
                close: Some(close),
            };
            if let Some(built) = self.write_packet(env, &plan, &budget, slot) {
                if level == Level::Initial && self.side.is_client() {
                    budget.datagram_min = INITIAL_DATAGRAM_MIN.min(budget.datagram_max);
                }
                budget.add(built.len());
                *place = Some(built);
            }
        }
        pad_datagram(&mut packets, &budget, slot);
        let turn = Turn { now, ect: false, paced: usize::MAX };
        self.finish_datagram(env, &turn, &packets, slot).map(|datagram| datagram.len)
    }
}
