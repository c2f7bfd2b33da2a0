//! How often what was refused.

use std::sync::atomic::{AtomicU64, Ordering};

use courser_session::control::Fault;

/// Refusals by fault, for `show errors`.
#[derive(Debug, Default)]
pub(super) struct Counts {
    by_fault: [AtomicU64; Fault::ALL.len()],
}

impl Counts {
    pub(super) fn refused(&self, fault: Fault) {
        if let Some(n) = Fault::ALL.iter().position(|known| *known == fault) {
            self.by_fault[n].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.into_iter().zip(self.by_fault.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}
