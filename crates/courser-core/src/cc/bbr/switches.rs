//! The departures from the draft, which a simulator can switch off one by one to see what each brings (decision D83).

/// A departure; the bit that switches it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// The margin of the pacing rate applies only while a queue is seen.
    Margin = 1 << 0,
    /// A long queue slows Startup down, and ends it when it stays.
    StartupQueue = 1 << 1,
    /// Up goes on with Startup's gain while the rate grows and no queue is seen.
    FreeUp = 1 << 2,
    /// After two lossy rounds the bounds go on in small steps.
    Steps = 1 << 3,
    /// Losses that do not depend on the rate are put up with.
    Floor = 1 << 4,
    /// A round trip as small as before makes ProbeRTT needless.
    Seen = 1 << 5,
    /// What jitter always adds to the round trip is no queue.
    Noise = 1 << 6,
    /// While no queue is seen, cruising leans on the path.
    Lean = 1 << 7,
    /// Cruising puts up with as many losses as probing does.
    Budget = 1 << 8,
    /// The room left to others is not taken from the bandwidth-delay product.
    Headroom = 1 << 9,
    /// A rate that fell to less than half is followed at once.
    Drop = 1 << 10,
    /// A probe begins where cruising was.
    Refill = 1 << 11,
    /// ProbeRTT ends when it finds what was known.
    ShortProbe = 1 << 12,
    /// Draining ends when the round trip gets no shorter.
    Bottom = 1 << 13,
}
