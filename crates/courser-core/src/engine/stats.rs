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
    /// Packets to a connection ID that died recently.
    pub gate_purgatory: u64,
    /// Packets of a version that we do not speak.
    pub gate_version: u64,
    /// Initials that were answered with a Retry.
    pub gate_retry: u64,
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
