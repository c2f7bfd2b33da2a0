//! Where everything lies in a segment.

use super::setup::{APART, BOARD, GROUP, SharedSetup};
use crate::{num::widen, ring::cursor::Slots};

/// Index of the next submission; the application's.
pub(super) const SUBMIT_TAIL: usize = APART;
/// Index of the oldest submission; the worker's.
pub(super) const SUBMIT_HEAD: usize = 2 * APART;
/// Index of the next completion; the worker's.
pub(super) const COMPLETE_TAIL: usize = 3 * APART;
/// Index of the oldest completion; the application's.
pub(super) const COMPLETE_HEAD: usize = 4 * APART;
/// What the sleeping worker waits for; see [`crate::doorbell`].
pub(super) const WORKER_ASLEEP: usize = 5 * APART;
/// What the sleeping application waits for.
pub(super) const APPLICATION_ASLEEP: usize = 6 * APART;
/// Not 0 when the application is gone.
pub(super) const APPLICATION_GONE: usize = 7 * APART;
/// Not 0 when the worker is gone.
pub(super) const WORKER_GONE: usize = 8 * APART;
/// "courser" and the version of the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"courser\x01");

/// Positions of all parts, in words of 8 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) setup: SharedSetup,
    pub(super) submissions: Slots,
    pub(super) completions: Slots,
    /// Where the rings, the arena and the pool begin.
    pub(super) submit_at: usize,
    pub(super) complete_at: usize,
    pub(super) arena_at: usize,
    pub(super) pool_at: usize,
    /// The first chunk of the reserve; see [`super::pool`].
    pub(super) reserve: u32,
    /// All of them.
    pub(super) words: usize,
}

impl Layout {
    /// Of sizes that are [valid](SharedSetup::validate), or smaller ones, for the model checker.
    pub(super) fn new(setup: SharedSetup) -> Option<Self> {
        let submissions = Slots::new(setup.port.submissions.checked_next_power_of_two()?)?;
        let completions = Slots::new(setup.port.completions.checked_next_power_of_two()?)?;
        let groups = widen(setup.inbound_chunks.div_ceil(GROUP));
        let submit_at = BOARD + groups.next_multiple_of(APART);
        let complete_at = submit_at + widen(submissions.count()) * 4;
        let arena_at = complete_at + widen(completions.count()) * 4;
        let pool_at = arena_at + widen(setup.outbound_bytes / 8);
        let words = pool_at + widen(setup.inbound_chunks) * widen(setup.chunk_bytes / 8);
        // A quarter, in whole groups.
        let reserve = setup.inbound_chunks - (setup.inbound_chunks / GROUP).div_ceil(4) * GROUP;
        let layout =
            Self { setup, submissions, completions, submit_at, complete_at, arena_at, pool_at, reserve, words };
        Some(layout)
    }

    /// The words that a segment of this layout begins with: what both sides must agree about, written once by the service.
    pub(super) fn header(&self) -> [u64; 5] {
        let two = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let (port, setup) = (self.setup.port, self.setup);
        [
            MAGIC,
            two(port.submissions, port.completions),
            two(setup.outbound_bytes, setup.chunk_bytes),
            two(setup.inbound_chunks, port.delivery_window_bytes),
            port.share_bytes,
        ]
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{num::wide, port::PortSetup, segment::setup::LINE};

    proptest! {
        #[test]
        fn parts_lie_one_behind_the_other_inside_the_bytes_that_are_counted(
            submissions in 1u32..=1 << 16, completions in 1u32..=1 << 16, lines in 1024u32..40_000,
            exponent in 10u32..=16, groups in 2u32..20,
        ) {
            let port = PortSetup { submissions, completions, ..PortSetup::default() };
            let setup = SharedSetup {
                port,
                outbound_bytes: lines * LINE,
                chunk_bytes: 1 << exponent,
                inbound_chunks: groups * GROUP,
            };
            prop_assume!(setup.validate().is_ok());
            let layout = Layout::new(setup).unwrap();
            prop_assert!(BOARD + widen(groups) <= layout.submit_at);
            prop_assert!(layout.submit_at.is_multiple_of(APART));
            prop_assert_eq!(wide(layout.words * 8).next_multiple_of(4096), setup.bytes());
            prop_assert!(layout.reserve >= GROUP && setup.inbound_chunks - layout.reserve >= GROUP);
        }
    }
}
