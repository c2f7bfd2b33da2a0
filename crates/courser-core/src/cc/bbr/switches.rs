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
    /// Losses that do not depend on the rate are put up with.
    Floor = 1 << 3,
    /// A round trip as small as before, noise aside, makes ProbeRTT needless.
    Seen = 1 << 4,
    /// While no queue is seen, cruising leans on the path.
    Lean = 1 << 5,
    /// Cruising puts up with as many losses as probing does.
    Budget = 1 << 6,
    /// The room left to others is not taken from the bandwidth-delay product.
    Headroom = 1 << 7,
    /// A rate that fell to less than half is followed at once.
    Drop = 1 << 8,
    /// A probe begins where cruising was.
    Refill = 1 << 9,
    /// The first two flights are paced by the window as well, not by samples of few packets alone.
    FirstFlights = 1 << 10,
}
