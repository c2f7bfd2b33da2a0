//! Streams that wait for insertions: at the decoder those that do, at the encoder those that might.

use courser_core::ids::StreamId;

/// Streams, each with the insert count that it waits for. There are as many at most as the decoder promised to hold, which
/// is few: a list that is searched from its front.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    streams: Vec<(StreamId, u64)>,
}

impl Blocked {
    /// How many streams wait.
    pub(super) const fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether this stream waits.
    pub(super) fn contains(&self, stream: StreamId) -> bool {
        self.streams.iter().any(|waiting| waiting.0 == stream)
    }

    /// The stream waits for `required` insertions, and for those that it waited for before.
    pub(super) fn add(&mut self, stream: StreamId, required: u64) {
        match self.streams.iter_mut().find(|waiting| waiting.0 == stream) {
            Some(waiting) => waiting.1 = waiting.1.max(required),
            None => self.streams.push((stream, required)),
        }
    }

    /// The stream waits no more.
    pub(super) fn remove(&mut self, stream: StreamId) {
        self.streams.retain(|waiting| waiting.0 != stream);
    }

    /// Takes the stream out that has waited longest among those that need no more than `inserted` insertions.
    pub(super) fn pop_ready(&mut self, inserted: u64) -> Option<StreamId> {
        let at = self.streams.iter().position(|waiting| waiting.1 <= inserted)?;
        Some(self.streams.remove(at).0)
    }

    /// No stream waits any more that needs no more than `inserted` insertions.
    pub(super) fn release(&mut self, inserted: u64) {
        self.streams.retain(|waiting| waiting.1 > inserted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_counts_once_and_waits_for_the_most() {
        let mut blocked = Blocked::default();
        blocked.add(StreamId(4), 7);
        blocked.add(StreamId(4), 5);
        blocked.add(StreamId(8), 6);
        assert_eq!(blocked.len(), 2);
        assert_eq!(blocked.pop_ready(5), None);
        assert_eq!(blocked.pop_ready(7), Some(StreamId(4)));
        assert_eq!(blocked.pop_ready(7), Some(StreamId(8)));
        assert_eq!(blocked.pop_ready(7), None);
    }

    #[test]
    fn what_is_released_or_removed_waits_no_more() {
        let mut blocked = Blocked::default();
        for n in 0..4 {
            blocked.add(StreamId(n * 4), n);
        }
        blocked.release(1);
        blocked.remove(StreamId(12));
        assert!(blocked.contains(StreamId(8)) && !blocked.contains(StreamId(12)));
        assert_eq!(blocked.len(), 1);
    }
}
