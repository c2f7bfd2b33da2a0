//! Which frames a packet may have (seed: archetypes).

/// What kind of packet is to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Archetype {
    /// Everything that is due.
    Normal,
    /// ACK and nothing else: the congestion window is full.
    AckOnly,
    /// Everything, although the window is full, and something that elicits an acknowledgement in any case.
    Probe,
}

impl Archetype {
    /// Whether the packet may carry frames that elicit an acknowledgement.
    #[must_use]
    pub const fn allows_eliciting(self) -> bool {
        !matches!(self, Self::AckOnly)
    }
}
