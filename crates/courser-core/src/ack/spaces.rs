//! The acknowledgement schedules of a connection, by packet number space.
//!
//! Those of the Initial and Handshake spaces live as long as the handshake, in memory of their own: an established
//! connection carries one schedule.

use core::ops::{Index, IndexMut};
use core::time::Duration;

use super::schedule::AckSchedule;
use crate::ids::Space;

/// One schedule per space.
pub struct Acks {
    /// Initial and Handshake, while they are needed.
    early: Option<Box<[AckSchedule; 2]>>,
    data: AckSchedule,
}

/// What is known of a space that is over: nothing.
static OVER: AckSchedule = AckSchedule::new(Space::Initial, Duration::ZERO);

fn early() -> Box<[AckSchedule; 2]> {
    Box::new([Space::Initial, Space::Handshake].map(|space| AckSchedule::new(space, Duration::ZERO)))
}

impl Acks {
    /// Nothing received. `max_ack_delay` is what our transport parameters said.
    #[must_use]
    pub fn new(max_ack_delay: Duration) -> Self {
        Self { early: Some(early()), data: AckSchedule::new(Space::Data, max_ack_delay) }
    }

    /// The handshake is over: nothing of its spaces comes or leaves any more.
    pub fn end_early(&mut self) {
        self.early = None;
    }

    /// Gives the room back that nothing needs.
    pub fn shrink(&mut self) {
        self.data.shrink();
    }

    /// Reads a word of each line of memory that the next packet needs, so that they are in the cache by then.
    #[must_use]
    pub fn touch(&self) -> u64 {
        self.data.touch()
    }
}

impl Index<usize> for Acks {
    type Output = AckSchedule;

    fn index(&self, space: usize) -> &AckSchedule {
        match (space, &self.early) {
            (2, _) => &self.data,
            (_, Some(early)) => &early[space],
            (_, None) => &OVER,
        }
    }
}

impl IndexMut<usize> for Acks {
    fn index_mut(&mut self, space: usize) -> &mut AckSchedule {
        if space == 2 { &mut self.data } else { &mut self.early.get_or_insert_with(early)[space] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ecn;
    use crate::time::Instant;

    #[test]
    fn spaces_are_apart_and_those_of_the_handshake_end() {
        let mut acks = Acks::new(Duration::from_millis(25));
        for space in Space::ALL {
            acks[space.index()].on_packet(Instant::ZERO, space.index() as u64 + 5, true, Ecn::NotEct);
        }
        let largest = |acks: &Acks| Space::ALL.map(|space| acks[space.index()].history().largest());
        assert_eq!(largest(&acks), [Some(5), Some(6), Some(7)]);
        acks.end_early();
        assert_eq!(largest(&acks), [None, None, Some(7)]);
    }
}
