//! What is known of the bytes of a stream that arrive: how far they reach and where they end.
//!
//! Invariant: `highest` is the final size in every state but `Recv`, because the final size counts as received from the
//! moment it is known (RFC 9000 section 4.5).

use super::phase::{RecvEvent, RecvPhase};
use crate::error::{PeerViolation, TransportCode};

/// State of a receiving part, apart from its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecvState {
    phase: RecvPhase,
    highest: u64,
}

impl RecvState {
    /// The state of the RFC's figure.
    #[must_use]
    pub const fn phase(&self) -> RecvPhase {
        self.phase
    }

    /// Bytes that count against credit.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// A STREAM frame that reaches to `end` came, or RESET_STREAM_AT, which counts like FIN behind the last byte; says how many bytes more count against credit.
    ///
    /// # Errors
    /// FINAL_SIZE_ERROR.
    pub fn on_frame(&mut self, end: u64, fin: bool) -> Result<u64, PeerViolation> {
        let more = self.reach(end, fin)?;
        if fin {
            self.step(RecvEvent::Fin { final_size: end });
        }
        Ok(more)
    }

    /// RESET_STREAM came; says how many bytes more count against credit.
    ///
    /// # Errors
    /// FINAL_SIZE_ERROR.
    pub fn on_reset(&mut self, code: u64, final_size: u64) -> Result<u64, PeerViolation> {
        let more = self.reach(final_size, true)?;
        self.step(RecvEvent::Reset { code });
        Ok(more)
    }

    /// Every byte up to `ready` came; the state follows when that is all.
    pub fn on_ready(&mut self, ready: u64) {
        if matches!(self.phase, RecvPhase::SizeKnown { final_size } if final_size == ready) {
            self.step(RecvEvent::AllReceived);
        }
    }

    /// Every byte that was promised came, although the stream is longer.
    pub fn on_enough(&mut self) {
        if matches!(self.phase, RecvPhase::SizeKnown { .. }) {
            self.step(RecvEvent::AllReceived);
        }
    }

    /// The application read to the end.
    pub fn on_all_read(&mut self) {
        self.step(RecvEvent::AllRead);
    }

    /// The application learnt of the reset.
    pub fn on_reset_read(&mut self) {
        self.step(RecvEvent::ResetRead);
    }

    fn reach(&mut self, end: u64, is_final: bool) -> Result<u64, PeerViolation> {
        let known = self.phase != RecvPhase::Recv;
        if known && (end > self.highest || (is_final && end != self.highest)) {
            //= rfc9000#4.5-3, rfc9000#4.5-4
            return Err(PeerViolation::new(
                TransportCode::FINAL_SIZE_ERROR,
                "data beyond the final size, or another final size",
                "rfc9000#4.5",
            ));
        }
        if is_final && end < self.highest {
            return Err(PeerViolation::new(
                TransportCode::FINAL_SIZE_ERROR,
                "the final size is below data that came",
                "rfc9000#4.5",
            ));
        }
        let more = end.saturating_sub(self.highest);
        self.highest += more;
        Ok(more)
    }

    fn step(&mut self, event: RecvEvent) {
        match self.phase.on(event) {
            Ok(next) => self.phase = next,
            Err(_) => debug_assert!(false, "{event:?} in {:?}", self.phase),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_size_cannot_change_and_nothing_may_lie_beyond_it() {
        //= rfc9000#4.5-3 type=test
        //= rfc9000#4.5-4 type=test
        let code = |r: Result<u64, PeerViolation>| r.unwrap_err().code;
        let mut s = RecvState::default();
        assert_eq!(s.on_frame(10, false), Ok(10));
        assert_eq!(s.on_frame(5, false), Ok(0));
        assert_eq!(code(s.clone().on_frame(9, true)), TransportCode::FINAL_SIZE_ERROR);
        assert_eq!(code(s.clone().on_reset(0, 9)), TransportCode::FINAL_SIZE_ERROR);
        assert_eq!(s.on_frame(12, true), Ok(2));
        assert_eq!(code(s.clone().on_frame(13, false)), TransportCode::FINAL_SIZE_ERROR);
        assert_eq!(code(s.clone().on_frame(11, true)), TransportCode::FINAL_SIZE_ERROR);
        assert_eq!(code(s.clone().on_reset(0, 13)), TransportCode::FINAL_SIZE_ERROR);
        assert_eq!(s.on_frame(12, true), Ok(0));
    }

    #[test]
    fn a_reset_counts_up_to_its_final_size() {
        //= rfc9000#4.5-1 type=test
        let mut s = RecvState::default();
        assert_eq!(s.on_frame(10, false), Ok(10));
        assert_eq!(s.on_reset(7, 100), Ok(90));
        assert_eq!(s.phase(), RecvPhase::ResetRecvd { code: 7 });
        assert_eq!(s.on_frame(50, false), Ok(0), "late data is harmless");
    }

    #[test]
    fn a_reset_after_all_data_is_ignored() {
        let mut s = RecvState::default();
        s.on_frame(10, true).unwrap();
        s.on_ready(9);
        assert_eq!(s.phase(), RecvPhase::SizeKnown { final_size: 10 });
        s.on_ready(10);
        s.on_reset(1, 10).unwrap();
        assert_eq!(s.phase(), RecvPhase::DataRecvd { final_size: 10 });
        s.on_all_read();
        assert!(s.phase().is_terminal());
    }
}
