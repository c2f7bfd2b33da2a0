//! What the streams of an idle connection give back.

use super::map::Streams;
use crate::buf::lazy::{Lazy, Part};
use crate::buf::{Reassembly, SendBuffer};

/// What is kept for the next time although nothing needs it now.
#[derive(Debug)]
pub(super) struct Spares {
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    pub(super) out: Vec<Box<SendBuffer>>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    pub(super) incoming: Vec<Box<Reassembly>>,
    /// Slots, while they are sorted anew.
    pub(super) scratch: Vec<u32>,
}

impl Spares {
    const NONE: Self = Self { out: Vec::new(), incoming: Vec::new(), scratch: Vec::new() };
}

impl Part for Spares {
    const UNUSED: &'static Self = &Self::NONE;

    fn begin() -> Self {
        Self::NONE
    }

    fn is_unused(&self) -> bool {
        self.out.is_empty() && self.incoming.is_empty()
    }
}

impl Streams {
    /// Gives back what only makes the next stream cheaper: emptied buffers, free slots, the room of empty lists. Streams
    /// that are open keep everything.
    pub fn shrink(&mut self) {
        self.spares = Lazy::new();
        self.starved.shrink_to_fit();
        self.short.shrink_to_fit();
        self.events.shrink();
        self.active.shrink();
        self.control.shrink();
        self.table.shrink();
    }

    /// Reads a word of each line of memory that the next packet needs, so that they are in the cache by then.
    #[must_use]
    pub fn touch(&self) -> u64 {
        let own =
            self.active.len() as u64 ^ self.remote[0].next ^ self.remote[1].closed_count ^ self.send_credit.used();
        let more = self.local[0].credit.used() ^ self.received ^ self.window_max ^ self.buffered_out;
        let out = self.spares.out.last().map_or(0, |spare| spare.base());
        let incoming = self.spares.incoming.last().map_or(0, |spare| spare.base());
        own ^ more ^ out ^ incoming ^ self.table.touch() ^ u64::from(self.events.is_empty())
    }
}
