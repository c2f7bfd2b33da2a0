//! What an engine counts.

/// Counters of an engine. Each admission gate has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Datagrams received.
    pub datagrams: u64,
    /// Connections begun here.
    pub connected: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Clients that were let begin; those whose ClientHello became complete are among the accepted connections.
    pub minis: u64,
    /// Clients that did not complete their ClientHello in time.
    pub minis_expired: u64,
    /// Clients that had to go before that, because there were too many or they held too much.
    pub minis_evicted: u64,
    /// Clients that broke a rule before their ClientHello was complete.
    pub mini_violations: u64,
    /// Connections freed.
    pub ended: u64,
    /// Ticks of connections.
    pub ticks: u64,
    /// Trains built.
    pub trains: u64,
    /// Datagrams in them.
    pub sent_datagrams: u64,
    /// Datagrams that made no sense.
    pub malformed: u64,
    /// Initials that came to an engine that takes no connections.
    pub gate_not_server: u64,
    /// Initials that came during cooldown.
    pub gate_cooldown: u64,
    /// Initials in datagrams that are too small, or with a connection ID that is too short.
    pub gate_size: u64,
    /// Initials beyond the limit of handshakes.
    pub gate_handshakes: u64,
    /// Initials of sources that had left too many handshakes unfinished.
    pub gate_source: u64,
    /// Packets to a connection ID that died recently.
    pub gate_purgatory: u64,
    /// Packets of a version that we do not speak.
    pub gate_version: u64,
    /// Initials that were answered with a Retry.
    pub gate_retry: u64,
    /// Those of them that were asked because of their source.
    pub retry_source: u64,
    /// Initials with a token that is not valid.
    pub bad_tokens: u64,
    /// Initials that could not be opened.
    pub gate_not_authentic: u64,
    /// Version Negotiation packets sent.
    pub version_negotiations: u64,
    /// Retry packets sent.
    pub retries: u64,
    /// Stateless resets sent.
    pub resets: u64,
    /// Stateless resets that were not sent, because there had been many.
    pub resets_limited: u64,
    /// Connection IDs of ours that led elsewhere already, so that they do not lead to their connection.
    pub cid_collisions: u64,
    /// Replies that found no room in their queue.
    pub replies_dropped: u64,
    /// Trains that the network refused.
    pub refused: u64,
    /// Datagrams that were larger than the local interface takes.
    pub too_big: u64,
}

/// Adds the counters of another engine, for those that share a port.
impl core::ops::AddAssign for EngineStats {
    fn add_assign(&mut self, other: Self) {
        let Self {
            datagrams,
            connected,
            accepted,
            minis,
            minis_expired,
            minis_evicted,
            mini_violations,
            ended,
            ticks,
            trains,
            sent_datagrams,
            malformed,
            gate_not_server,
            gate_cooldown,
            gate_size,
            gate_handshakes,
            gate_source,
            gate_purgatory,
            gate_version,
            gate_retry,
            retry_source,
            bad_tokens,
            gate_not_authentic,
            version_negotiations,
            retries,
            resets,
            resets_limited,
            cid_collisions,
            replies_dropped,
            refused,
            too_big,
        } = other;
        self.datagrams += datagrams;
        self.connected += connected;
        self.accepted += accepted;
        self.minis += minis;
        self.minis_expired += minis_expired;
        self.minis_evicted += minis_evicted;
        self.mini_violations += mini_violations;
        self.ended += ended;
        self.ticks += ticks;
        self.trains += trains;
        self.sent_datagrams += sent_datagrams;
        self.malformed += malformed;
        self.gate_not_server += gate_not_server;
        self.gate_cooldown += gate_cooldown;
        self.gate_size += gate_size;
        self.gate_handshakes += gate_handshakes;
        self.gate_source += gate_source;
        self.gate_purgatory += gate_purgatory;
        self.gate_version += gate_version;
        self.gate_retry += gate_retry;
        self.retry_source += retry_source;
        self.bad_tokens += bad_tokens;
        self.gate_not_authentic += gate_not_authentic;
        self.version_negotiations += version_negotiations;
        self.retries += retries;
        self.resets += resets;
        self.resets_limited += resets_limited;
        self.cid_collisions += cid_collisions;
        self.replies_dropped += replies_dropped;
        self.refused += refused;
        self.too_big += too_big;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up() {
        let mut sum = EngineStats { datagrams: 3, too_big: 1, ..EngineStats::default() };
        sum += EngineStats { datagrams: 4, retries: 2, ..EngineStats::default() };
        assert_eq!(sum, EngineStats { datagrams: 7, retries: 2, too_big: 1, ..EngineStats::default() });
    }
}
