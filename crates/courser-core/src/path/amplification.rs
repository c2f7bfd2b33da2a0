//! The anti-amplification limit, exact to the byte (RFC 9000 section 8).

/// How much may be sent to an address that is not validated: three times what came from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amplification {
    received: u64,
    sent: u64,
    validated: bool,
}

impl Amplification {
    /// An address that is known to be the peer's, as the server's is to a client.
    pub const VALIDATED: Self = Self { received: 0, sent: 0, validated: true };

    /// Counts a received datagram, also one whose packets are discarded, once it is attributed to the connection.
    pub fn on_received(&mut self, bytes: usize) {
        //= rfc9000#8.1-2
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Counts a sent datagram.
    pub fn on_sent(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room(), "sent {bytes} with room for {}", self.room());
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// The address is the peer's.
    pub fn validate(&mut self) {
        self.validated = true;
    }

    /// Whether the address is known to be the peer's.
    #[must_use]
    pub fn is_validated(&self) -> bool {
        self.validated
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.validated {
            return usize::MAX;
        }
        usize::try_from(self.credit().saturating_sub(self.sent)).unwrap_or(usize::MAX)
    }

    /// Bytes that what came has allowed altogether.
    #[must_use]
    pub fn credit(&self) -> u64 {
        //= rfc9000#8-1
        //= rfc9000#8.1-1
        //= rfc9000#9.3-2
        self.received.saturating_mul(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_what_came_and_not_a_byte_more() {
        //= rfc9000#8-1 type=test
        let mut a = Amplification::default();
        assert_eq!(a.room(), 0);
        a.on_received(1201);
        assert_eq!(a.room(), 3603);
        a.on_sent(3600);
        assert_eq!(a.room(), 3);
        a.on_sent(3);
        assert_eq!(a.room(), 0);
        a.on_received(1);
        assert_eq!(a.room(), 3);
        a.validate();
        assert_eq!(a.room(), usize::MAX);
    }
}
