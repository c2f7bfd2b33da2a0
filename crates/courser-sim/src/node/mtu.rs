//! An MTU hole: payloads over a size vanish without a message, as on paths that filter ICMP.

/// The hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// Largest UDP payload that passes, in bytes.
    pub payload_max: usize,
}

impl Mtu {
    /// True if a payload of this length passes.
    #[must_use]
    pub const fn passes(self, payload: usize) -> bool {
        payload <= self.payload_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_passes_and_the_next_does_not() {
        let m = Mtu { payload_max: 1280 };
        assert!(m.passes(0) && m.passes(1280) && !m.passes(1281));
    }
}
