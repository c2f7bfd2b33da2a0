//! Byte credit per stream: how much may wait between an application and its worker.
//!
//! Outbound the worker grants and the application spends. The grant is a *limit*: the total number of bytes that the
//! application may ever have written. Limits only grow, a later one replaces an earlier one, and so a single pending
//! grant per stream is enough however often it changes. The worker's limit is what left its buffers plus a window; the
//! window starts at 64 KiB and grows as far as the application's [`Share`] allows towards a target that the worker names
//! (twice the congestion window: one in flight, one ready).
//!
//! Inbound the worker delivers at most a window of bytes that the application has not reported as consumed.
//!
//! Invariants: `written <= limit` on both sides, for an honest application; the windows of all streams of an
//! application together stay within its share.

use core::fmt;

use crate::num::{low, wide};

/// Bytes that an application may write to a fresh stream before it hears of a grant.
pub const INITIAL_WINDOW_BYTES: u32 = 64 * 1024;

/// The application's side of outbound credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteCredit {
    written: u64,
    limit: u64,
}

impl WriteCredit {
    /// The credit of a fresh stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { written: 0, limit: wide(crate::num::widen(INITIAL_WINDOW_BYTES)) }
    }

    /// Bytes that may be written now.
    #[must_use]
    pub fn room(&self) -> usize {
        usize::try_from(self.limit - self.written).unwrap_or(usize::MAX)
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Spends up to `wanted` bytes of credit and says how many it were.
    pub fn spend(&mut self, wanted: usize) -> usize {
        let spent = self.room().min(wanted);
        self.written += wide(spent);
        debug_assert!(self.written <= self.limit);
        spent
    }

    /// Gives back the latest `unused` bytes of spent credit: the message that carried them was not taken.
    pub fn restore(&mut self, unused: usize) {
        debug_assert!(wide(unused) <= self.written, "no more comes back than was spent");
        self.written = self.written.saturating_sub(wide(unused));
    }

    /// Takes a grant in. A limit that is not news changes nothing. Whether there is more room now.
    pub fn grant(&mut self, limit: u64) -> bool {
        let news = limit > self.limit;
        self.limit = self.limit.max(limit);
        news
    }
}

impl Default for WriteCredit {
    fn default() -> Self {
        Self::new()
    }
}

/// Somebody moved more bytes than the credit allows. An application that does so is broken or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// Bytes that were moved beyond the credit.
    pub excess: u64,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes more than the credit allows", self.excess)
    }
}

impl core::error::Error for Overrun {}

/// How much buffer the streams of one application may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    total: u64,
    used: u64,
}

impl Share {
    /// A share of that many bytes.
    #[must_use]
    pub const fn new(total_bytes: u64) -> Self {
        Self { total: total_bytes, used: 0 }
    }

    /// Bytes that nobody uses.
    #[must_use]
    pub const fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// Bytes in use.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Takes up to `wanted` bytes and says how many.
    fn take(&mut self, wanted: u32) -> u32 {
        let taken = u64::from(wanted).min(self.free());
        self.used += taken;
        low(taken)
    }

    fn give_back(&mut self, bytes: u32) {
        debug_assert!(u64::from(bytes) <= self.used, "no more comes back than was taken");
        self.used = self.used.saturating_sub(u64::from(bytes));
    }
}

/// The worker's side of outbound credit, in 20 bytes per stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Grantor {
    /// The limit that the application was told last.
    limit: u64,
    /// Bytes below the limit that the application has not written.
    unused: u32,
    /// Bytes that were written and still wait in the worker's buffers.
    held: u32,
    /// Bytes that may be unused or held; counted against the application's share.
    window: u32,
}

const _: () = assert!(size_of::<Grantor>() == 20);

impl Grantor {
    /// The credit of a fresh stream; `None` when the application's share is used up.
    pub fn new(share: &mut Share) -> Option<Self> {
        if share.free() < u64::from(INITIAL_WINDOW_BYTES) {
            return None;
        }
        let window = share.take(INITIAL_WINDOW_BYTES);
        Some(Self { limit: u64::from(window), unused: window, held: 0, window })
    }

    /// The limit that the application was told last.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that wait in the worker's buffers.
    #[must_use]
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// The window as it is.
    #[must_use]
    pub const fn window(&self) -> u32 {
        self.window
    }

    /// The application wrote `bytes`.
    pub fn written(&mut self, bytes: usize) -> Result<(), Overrun> {
        let unused = self.unused;
        match u32::try_from(bytes).ok().filter(|bytes| *bytes <= unused) {
            Some(bytes) => {
                self.unused -= bytes;
                self.held += bytes;
                Ok(())
            }
            None => Err(Overrun { excess: wide(bytes).saturating_sub(u64::from(unused)) }),
        }
    }

    /// `bytes` left the worker's buffers: the peer has them.
    pub fn released(&mut self, bytes: u64) {
        debug_assert!(bytes <= u64::from(self.held), "only what was held is released");
        self.held -= low(bytes.min(u64::from(self.held)));
    }

    /// Lets the window grow towards `target` bytes as far as the share has room, at most doubling it. It never shrinks:
    /// the application may count on what it was told.
    pub fn grow(&mut self, target: u32, share: &mut Share) {
        let step = target.saturating_sub(self.window).min(self.window);
        self.window += share.take(step);
    }

    /// The limit to tell the application now, when it is worth a message: a quarter of the window more than it can use,
    /// or anything at all once it has run out.
    pub fn grant(&mut self) -> Option<u64> {
        if !self.is_grant_due() {
            return None;
        }
        let more = self.window - self.unused - self.held;
        // 2^64 bytes never pass through one stream; a saturated limit only ends the credit.
        self.limit = self.limit.saturating_add(u64::from(more));
        self.unused += more;
        Some(self.limit)
    }

    /// Whether [`Self::grant`] has news.
    #[must_use]
    pub const fn is_grant_due(&self) -> bool {
        debug_assert!(self.unused as u64 + self.held as u64 <= self.window as u64);
        let more = self.window - self.unused - self.held;
        more > 0 && (self.unused == 0 || more >= self.window / 4)
    }

    /// The stream is gone: its window goes back to the share.
    pub fn end(self, share: &mut Share) {
        share.give_back(self.window);
    }
}

/// The worker's side of inbound credit: what was delivered and not yet consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryCredit {
    outstanding: u32,
    window: u32,
}

impl DeliveryCredit {
    /// Nothing delivered yet, at most `window` bytes to deliver ahead of the application.
    #[must_use]
    pub const fn new(window: u32) -> Self {
        Self { outstanding: 0, window }
    }

    /// Bytes that may be delivered now.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.window.saturating_sub(self.outstanding)
    }

    /// Bytes delivered and not consumed.
    #[must_use]
    pub const fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// `bytes` were delivered.
    pub fn delivered(&mut self, bytes: usize) {
        debug_assert!(bytes <= crate::num::widen(self.room()), "no more is delivered than there is room for");
        self.outstanding = self.outstanding.saturating_add(crate::num::clamp(bytes));
    }

    /// The application consumed `bytes`. Whether delivery can go on where it could not before.
    pub fn consumed(&mut self, bytes: u64) -> Result<bool, Overrun> {
        let was_closed = self.room() == 0;
        match u32::try_from(bytes).ok().and_then(|bytes| self.outstanding.checked_sub(bytes)) {
            Some(outstanding) => {
                self.outstanding = outstanding;
                Ok(was_closed && self.room() > 0)
            }
            None => Err(Overrun { excess: bytes.saturating_sub(u64::from(self.outstanding)) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fresh_stream_may_write_64_kib() {
        let mut app = WriteCredit::new();
        assert_eq!(app.room(), 65_536);
        assert_eq!(app.spend(100_000), 65_536);
        assert_eq!((app.spend(1), app.room()), (0, 0));
    }

    #[test]
    fn old_grants_change_nothing() {
        let mut app = WriteCredit::new();
        assert!(app.grant(70_000));
        assert!(!app.grant(70_000));
        assert!(!app.grant(66_000), "a limit never goes back");
        assert_eq!(app.room(), 70_000);
    }

    #[test]
    fn credit_of_a_message_that_was_not_taken_comes_back() {
        let mut app = WriteCredit::new();
        assert_eq!(app.spend(10), 10);
        app.restore(10);
        assert_eq!((app.room(), app.written()), (65_536, 0));
    }

    #[test]
    fn writing_beyond_the_limit_is_noticed_and_changes_nothing() {
        let mut share = Share::new(1 << 20);
        let mut worker = Grantor::new(&mut share).unwrap();
        worker.written(65_000).unwrap();
        assert_eq!(worker.written(537), Err(Overrun { excess: 1 }));
        assert_eq!(worker.written(usize::MAX).unwrap_err().excess, u64::MAX - 536);
        assert_eq!(worker.held(), 65_000);
        worker.written(536).unwrap();
    }

    #[test]
    fn a_grant_waits_until_it_is_worth_a_message() {
        let mut share = Share::new(1 << 20);
        let mut worker = Grantor::new(&mut share).unwrap();
        worker.written(40_000).unwrap();
        worker.released(10_000);
        assert_eq!(worker.grant(), None, "less than a quarter, and the application still has room");
        worker.released(10_000);
        assert_eq!(worker.grant(), Some(65_536 + 20_000));
        assert_eq!(worker.grant(), None);
        worker.written(45_536).unwrap();
        worker.released(1);
        assert_eq!(worker.grant(), Some(65_536 + 20_001), "an application without room hears of every byte");
    }

    #[test]
    fn windows_grow_to_the_target_by_doubling_and_within_the_share() {
        let mut share = Share::new(300_000);
        let mut worker = Grantor::new(&mut share).unwrap();
        worker.grow(200_000, &mut share);
        assert_eq!(worker.window(), 131_072);
        worker.grow(200_000, &mut share);
        assert_eq!((worker.window(), share.free()), (200_000, 100_000));
        worker.grow(50_000, &mut share);
        assert_eq!(worker.window(), 200_000, "a window does not shrink");
        worker.grow(u32::MAX, &mut share);
        assert_eq!((worker.window(), share.free()), (300_000, 0), "the share is the bound");
        assert!(Grantor::new(&mut share).is_none());
        worker.end(&mut share);
        assert_eq!(share.used(), 0);
        assert!(Grantor::new(&mut share).is_some());
    }

    #[test]
    fn delivery_stops_at_the_window_and_goes_on_when_bytes_are_consumed() {
        let mut credit = DeliveryCredit::new(100);
        credit.delivered(60);
        assert_eq!(credit.consumed(10), Ok(false), "it had not stopped");
        credit.delivered(50);
        assert_eq!((credit.room(), credit.outstanding()), (0, 100));
        assert_eq!(credit.consumed(1), Ok(true));
        assert_eq!(credit.consumed(100), Err(Overrun { excess: 1 }));
        assert_eq!(credit.consumed(u64::MAX).unwrap_err().excess, u64::MAX - 99);
        assert_eq!(credit.outstanding(), 99);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize),
        Release(u64),
        Grow(u32),
        Grant,
        Deliver,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0usize..200_000).prop_map(Step::Write),
            3 => (0u64..200_000).prop_map(Step::Release),
            1 => (0u32..1_000_000).prop_map(Step::Grow),
            2 => Just(Step::Grant),
            2 => Just(Step::Deliver),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        #[test]
        fn both_sides_agree_and_the_share_bounds_what_waits(steps in steps(), total in 65_536u64..600_000) {
            let mut share = Share::new(total);
            let mut worker = Grantor::new(&mut share).unwrap();
            let mut app = WriteCredit::new();
            // The naive reference: totals, and the newest grant that is still on its way.
            let (mut written, mut released, mut on_the_way) = (0u64, 0u64, None);
            for step in steps {
                match step {
                    Step::Write(bytes) => {
                        let spent = app.spend(bytes);
                        prop_assert_eq!(worker.written(spent), Ok(()), "an honest application never overruns");
                        written += wide(spent);
                    }
                    Step::Release(bytes) => {
                        let bytes = bytes.min(written - released);
                        worker.released(bytes);
                        released += bytes;
                    }
                    Step::Grow(target) => worker.grow(target, &mut share),
                    Step::Grant => on_the_way = worker.grant().or(on_the_way),
                    Step::Deliver => if let Some(limit) = on_the_way.take() {
                        prop_assert!(app.grant(limit), "every grant is news");
                    },
                }
                prop_assert_eq!(u64::from(worker.held()), written - released);
                prop_assert!(worker.limit() <= released + u64::from(worker.window()));
                prop_assert!(written - released <= u64::from(worker.window()));
                prop_assert!(u64::from(worker.window()) <= total);
                prop_assert_eq!(share.used(), u64::from(worker.window()));
            }
            // Whatever happened: once everything has left, the application can write again.
            worker.released(written - released);
            on_the_way = worker.grant().or(on_the_way);
            if let Some(limit) = on_the_way {
                app.grant(limit);
            }
            prop_assert!(app.room() > 0);
        }
    }
}
