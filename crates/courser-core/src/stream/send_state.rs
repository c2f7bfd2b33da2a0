//! What is known of the bytes of a stream that leave: which are pending, which arrived.
//!
//! The bytes themselves live elsewhere ([`crate::buf::SendBuffer`]); this is arithmetic on offsets. Offsets from `next` on
//! were never sent, up to `end`, which the application moves. Lost ranges come back as pending before anything new. In the
//! usual case, packets acknowledged in order, all of it is four numbers; the two range sets appear with the first gap.
//!
//! Invariants: `acked_to <= next <= end`; `acked` and `lost` lie in `acked_to..next` and have no offset in common.

use core::ops::Range;

use crate::buf::RangeSet;

/// The end of the stream, on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fin {
    /// The application may write more.
    #[default]
    Open,
    /// The end is set and has to be sent, for the first time or again.
    Pending,
    /// A frame with FIN is in flight.
    Sent,
    /// The peer knows the end.
    Acked,
    /// The stream ends with a reset instead: no frame with FIN leaves any more. One that left before may still arrive.
    Dropped,
}

impl Fin {
    /// Whether the frame that carries the last byte carries FIN.
    const fn goes_along(self) -> bool {
        matches!(self, Self::Pending | Self::Sent | Self::Acked)
    }
}

/// What to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The offsets; empty when only FIN is left.
    pub range: Range<u64>,
    /// Whether the range was sent before.
    pub again: bool,
    /// Whether a frame that carries the range to its end has to carry FIN.
    pub fin: bool,
}

#[derive(Clone, Debug, Default)]
struct Gaps {
    /// Arrived, beyond the arrived prefix.
    acked: RangeSet,
    /// To be sent again.
    lost: RangeSet,
}

/// Offsets of one stream on their way out.
#[derive(Clone, Debug, Default)]
pub struct SendState {
    acked_to: u64,
    next: u64,
    end: u64,
    fin: Fin,
    /// Made with the first loss or reordering, kept from then on.
    gaps: Option<Box<Gaps>>,
}

impl SendState {
    /// Nothing written yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything before this offset arrived.
    #[must_use]
    pub const fn acked_to(&self) -> u64 {
        self.acked_to
    }

    /// The first offset that was never sent.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Offset behind the last byte written.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Where the end of the stream is on its way.
    #[must_use]
    pub const fn fin(&self) -> Fin {
        self.fin
    }

    /// Whether something that was sent has to be sent again.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.gaps.as_ref().is_some_and(|g| !g.lost.is_empty())
    }

    /// Whether every byte and FIN arrived.
    #[must_use]
    pub fn is_all_acked(&self) -> bool {
        matches!(self.fin, Fin::Acked) && self.acked_to == self.end
    }

    /// The application wrote `n` bytes more.
    pub fn extend(&mut self, n: u64) {
        debug_assert!(self.fin == Fin::Open, "bytes behind the end of the stream");
        self.end += n;
    }

    /// The application set the end of the stream.
    pub fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Pending;
        }
    }

    /// The stream will be reset, and only its first `reliable` bytes still have to arrive: what lies behind them is not sent
    /// again, or not at all when it never left. What left stays part of the stream, so the end is where the sum of what
    /// has to leave and what did leave ends. A second call can only lower `reliable`.
    pub fn cut(&mut self, reliable: u64) {
        debug_assert!(reliable <= self.end, "bytes that were never written cannot be promised");
        self.end = self.end.min(reliable.max(self.next));
        if let Some(gaps) = self.gaps.as_mut() {
            gaps.lost.remove(reliable..u64::MAX);
        }
        if self.fin != Fin::Acked {
            self.fin = Fin::Dropped;
        }
    }

    /// What to send next when offsets never sent before may go up to `credit_end`.
    #[must_use]
    pub fn pending(&self, credit_end: u64) -> Option<Pending> {
        if let Some(range) = self.gaps.as_ref().and_then(|g| g.lost.first()) {
            let fin = range.end == self.end && self.fin.goes_along();
            return Some(Pending { range, again: true, fin });
        }
        //= rfc9000#2.2-3
        //= rfc9000#4.1-1
        let end = self.end.min(credit_end);
        if self.next < end {
            let fin = end == self.end && self.fin.goes_along();
            return Some(Pending { range: self.next..end, again: false, fin });
        }
        let only_fin = self.fin == Fin::Pending && self.next == self.end;
        only_fin.then_some(Pending { range: self.end..self.end, again: false, fin: true })
    }

    /// A frame with this range left; says how many offsets were never sent before.
    pub fn on_sent(&mut self, range: Range<u64>, fin: bool) -> u64 {
        debug_assert!(range.end <= self.end, "bytes that were never written were sent");
        if let Some(gaps) = self.gaps.as_mut() {
            gaps.lost.remove(range.clone());
        }
        if fin && self.fin == Fin::Pending {
            self.fin = Fin::Sent;
        }
        let new = range.end.saturating_sub(self.next);
        self.next += new;
        new
    }

    /// A frame with this range arrived. Works for ranges declared lost before: their repetition is cancelled.
    pub fn on_acked(&mut self, range: Range<u64>, fin: bool) {
        debug_assert!(range.end <= self.next, "bytes arrived that were never sent");
        if fin {
            self.fin = Fin::Acked;
        }
        let range = range.start.max(self.acked_to)..range.end.min(self.next);
        if range.is_empty() {
            return;
        }
        if range.start == self.acked_to && self.gaps.is_none() {
            self.acked_to = range.end;
            return;
        }
        let gaps = self.gaps.get_or_insert_default();
        gaps.lost.remove(range.clone());
        if range.start > self.acked_to {
            gaps.acked.insert(range);
            return;
        }
        self.acked_to = range.end;
        // What arrived early may now touch the prefix.
        gaps.acked.remove(0..self.acked_to);
        if let Some(touching) = gaps.acked.first().filter(|r| r.start == self.acked_to) {
            gaps.acked.pop_first();
            self.acked_to = touching.end;
        }
    }

    /// A frame with this range was lost: what did not arrive otherwise becomes pending again.
    pub fn on_lost(&mut self, range: Range<u64>, fin: bool) {
        debug_assert!(range.end <= self.next, "bytes were lost that were never sent");
        if fin && self.fin == Fin::Sent {
            self.fin = Fin::Pending;
        }
        let range = range.start.max(self.acked_to)..range.end.min(self.next);
        if range.is_empty() {
            return;
        }
        let gaps = self.gaps.get_or_insert_default();
        let mut from = range.start;
        for have in gaps.acked.iter().skip_while(|r| r.end <= range.start).take_while(|r| r.start < range.end) {
            gaps.lost.insert(from..have.start.max(from));
            from = have.end;
        }
        gaps.lost.insert(from..range.end.max(from));
    }

    /// Nothing that was sent counts: the peer threw all of it away (rejected 0-RTT).
    pub fn rewind(&mut self) {
        debug_assert!(self.acked_to == 0, "bytes that arrived cannot be taken back");
        (self.next, self.gaps) = (self.acked_to, None);
        if self.fin == Fin::Sent {
            self.fin = Fin::Pending;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame in flight: range, FIN, declared lost.
    type Flight = (Range<u64>, bool, bool);

    /// Naive reference: for each offset, what is known of it.
    #[derive(Default)]
    struct Model {
        acked: Vec<bool>,
        lost: Vec<bool>,
        next: usize,
    }

    impl Model {
        fn pending(&self, credit: u64) -> Option<u64> {
            let lost = self.lost.iter().position(|l| *l);
            lost.or_else(|| (self.next < self.acked.len().min(credit as usize)).then_some(self.next)).map(|o| o as u64)
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_table_of_offsets(ops in prop::collection::vec((0u8..8, 0usize..64, 1u64..50), 1..250)) {
            let (mut s, mut m) = (SendState::new(), Model::default());
            let mut flight: Vec<Flight> = Vec::new();
            for (op, pick, n) in ops {
                match op {
                    0 | 1 => {
                        s.extend(n);
                        m.acked.resize(m.acked.len() + n as usize, false);
                        m.lost.resize(m.acked.len(), false);
                    }
                    2..=4 => {
                        let credit = m.next as u64 + n;
                        let p = s.pending(credit);
                        prop_assert_eq!(p.as_ref().map(|p| p.range.start), m.pending(credit));
                        if let Some(p) = p {
                            let range = p.range.start..p.range.end.min(p.range.start + n);
                            prop_assert!(!range.is_empty() && range.end <= credit.max(m.next as u64));
                            let new = s.on_sent(range.clone(), false);
                            prop_assert_eq!(new, range.end.saturating_sub(m.next as u64));
                            m.next = m.next.max(range.end as usize);
                            m.lost[range.start as usize..range.end as usize].fill(false);
                            flight.push((range, false, false));
                        }
                    }
                    5 | 6 if !flight.is_empty() => {
                        let (range, _, _) = flight.swap_remove(pick % flight.len());
                        s.on_acked(range.clone(), false);
                        m.acked[range.start as usize..range.end as usize].fill(true);
                        m.lost[range.start as usize..range.end as usize].fill(false);
                    }
                    _ if !flight.is_empty() => {
                        // A lost frame stays in flight: a late acknowledgement may still come.
                        let i = pick % flight.len();
                        if !core::mem::replace(&mut flight[i].2, true) {
                            let range = flight[i].0.clone();
                            s.on_lost(range.clone(), false);
                            for o in range {
                                m.lost[o as usize] = !m.acked[o as usize];
                            }
                        }
                    }
                    _ => {}
                }
                let prefix = m.acked.iter().position(|a| !a).unwrap_or(m.acked.len()) as u64;
                prop_assert_eq!((s.acked_to(), s.next()), (prefix, m.next as u64));
                prop_assert_eq!(s.has_lost(), m.lost.contains(&true));
            }
        }

        #[test]
        fn every_byte_and_fin_arrive_in_the_end(seed in prop::collection::vec(0u8..4, 20..200)) {
            let mut s = SendState::new();
            s.extend(1000);
            s.finish();
            let (mut flight, mut i): (Vec<(Range<u64>, bool)>, _) = (Vec::new(), 0);
            let mut arrived = vec![0u32; 1000];
            while !s.is_all_acked() {
                i += 1;
                prop_assert!(i < 5000, "no progress");
                let fate = seed.get(i).copied().unwrap_or(1);
                match s.pending(u64::MAX) {
                    Some(p) if flight.len() < 4 => {
                        let range = p.range.start..p.range.end.min(p.range.start + 37);
                        let fin = p.fin && range.end == p.range.end;
                        s.on_sent(range.clone(), fin);
                        flight.push((range, fin));
                    }
                    _ if fate == 0 => {
                        let (range, fin) = flight.remove(0);
                        s.on_lost(range, fin);
                    }
                    _ => {
                        let (range, fin) = flight.remove(0);
                        range.clone().for_each(|o| arrived[o as usize] += 1);
                        s.on_acked(range, fin);
                    }
                }
            }
            prop_assert!(arrived.iter().all(|n| *n == 1), "every byte is acknowledged once");
            prop_assert_eq!(s.pending(u64::MAX), None);
        }
    }

    #[test]
    fn lost_data_leaves_before_new_data() {
        //= rfc9000#13.3-4 type=test
        let mut s = SendState::new();
        s.extend(300);
        s.on_sent(0..100, false);
        s.on_sent(100..200, false);
        s.on_lost(0..100, false);
        assert_eq!(s.pending(u64::MAX), Some(Pending { range: 0..100, again: true, fin: false }));
        s.on_sent(0..100, false);
        assert_eq!(s.pending(u64::MAX).map(|p| p.range), Some(200..300));
    }

    #[test]
    fn a_late_acknowledgement_cancels_the_repetition() {
        //= rfc9000#13.3-6 type=test
        let mut s = SendState::new();
        s.extend(100);
        s.finish();
        s.on_sent(0..100, true);
        s.on_lost(0..100, true);
        assert!(s.pending(0).is_some());
        s.on_acked(0..100, true);
        assert_eq!(s.pending(u64::MAX), None);
        assert!(s.is_all_acked());
    }

    #[test]
    fn lost_data_needs_no_new_credit_and_new_data_does() {
        let mut s = SendState::new();
        s.extend(200);
        s.on_sent(0..100, false);
        assert_eq!(s.pending(100), None);
        s.on_lost(20..30, false);
        assert_eq!(s.pending(0).map(|p| p.range), Some(20..30));
    }

    #[test]
    fn fin_alone_is_pending_until_it_arrived() {
        let mut s = SendState::new();
        s.finish();
        assert_eq!(s.pending(0), Some(Pending { range: 0..0, again: false, fin: true }));
        s.on_sent(0..0, true);
        assert_eq!(s.pending(0), None);
        s.on_lost(0..0, true);
        assert!(s.pending(0).is_some());
        s.on_sent(0..0, true);
        s.on_acked(0..0, true);
        assert!(s.is_all_acked());
    }

    #[test]
    fn a_cut_keeps_what_was_promised_and_what_left() {
        //= reset-stream-at#5-3 type=test
        let cut = |sent: u64, reliable: u64| {
            let mut s = SendState::new();
            s.extend(100);
            s.finish();
            if sent > 0 {
                s.on_sent(0..sent, sent == 100);
                s.on_lost(0..sent, sent == 100);
            }
            s.cut(reliable);
            let mut left = Vec::new();
            while let Some(p) = s.pending(u64::MAX) {
                assert!(!p.fin, "the stream does not end with FIN");
                s.on_sent(p.range.clone(), p.fin);
                left.push((p.range.start, p.range.end));
            }
            (s.end(), left)
        };
        assert_eq!(cut(0, 30), (30, vec![(0, 30)]), "what never left and is not promised never leaves");
        assert_eq!(cut(10, 30), (30, vec![(0, 10), (10, 30)]));
        assert_eq!(cut(60, 30), (60, vec![(0, 30)]), "what left counts, and is not sent again");
        assert_eq!(cut(100, 30), (100, vec![(0, 30)]), "also behind FIN");
        assert_eq!(cut(100, 100), (100, vec![(0, 100)]));
    }

    #[test]
    fn a_fin_that_left_before_a_cut_may_still_arrive() {
        let mut s = SendState::new();
        s.extend(100);
        s.finish();
        s.on_sent(0..100, true);
        s.cut(30);
        s.on_acked(0..100, true);
        assert!(s.is_all_acked() && s.pending(u64::MAX).is_none());
    }

    #[test]
    fn a_rejected_early_start_begins_again() {
        let mut s = SendState::new();
        s.extend(50);
        s.finish();
        s.on_sent(0..50, true);
        s.rewind();
        assert_eq!(s.pending(u64::MAX), Some(Pending { range: 0..50, again: false, fin: true }));
        assert_eq!((s.next(), s.fin(), s.has_lost()), (0, Fin::Pending, false));
    }

    #[test]
    fn a_rejected_early_start_repeats_an_end_that_left_and_invents_none() {
        // What the application did, whether the end left, and what becomes of it.
        for (finish, sent, cut, fin) in [
            (false, false, false, Fin::Open),
            (true, false, false, Fin::Pending),
            (true, true, false, Fin::Pending),
            (false, false, true, Fin::Dropped),
            (true, true, true, Fin::Dropped),
        ] {
            let mut s = SendState::new();
            s.extend(10);
            if finish {
                s.finish();
            }
            s.on_sent(0..10, sent);
            if cut {
                s.cut(10);
            }
            s.rewind();
            assert_eq!(s.fin(), fin, "{finish} {sent} {cut}");
            let ends = Some(fin == Fin::Pending);
            assert_eq!(s.pending(u64::MAX).map(|p| p.fin), ends, "{finish} {sent} {cut}");
        }
        // An end without data would not leave again otherwise.
        let mut s = SendState::new();
        s.finish();
        s.on_sent(0..0, true);
        s.rewind();
        assert_eq!(s.pending(0), Some(Pending { range: 0..0, again: false, fin: true }));
    }

    #[test]
    fn sizes() {
        assert!(size_of::<SendState>() <= 40, "{}", size_of::<SendState>());
    }
}
