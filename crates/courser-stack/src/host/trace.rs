//! The last things that happened, for `show trace`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// How many are kept; older ones are forgotten.
const KEPT: usize = 1000;

/// What happened, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Trace {
    notes: Mutex<VecDeque<(SystemTime, String)>>,
}

impl Trace {
    pub(super) fn note(&self, what: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= KEPT {
            notes.pop_front();
        }
        notes.push_back((SystemTime::now(), what));
    }

    /// Seconds since the epoch, and what happened then.
    pub(super) fn all(&self) -> Vec<(f64, String)> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |at: &SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        notes.iter().map(|(at, what)| (seconds(at), what.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_notes_are_kept() {
        let trace = Trace::default();
        for n in 0..KEPT + 5 {
            trace.note(n.to_string());
        }
        let all = trace.all();
        assert_eq!(all.len(), KEPT);
        assert_eq!(all.first().map(|(_, what)| what.as_str()), Some("5"));
    }
}
