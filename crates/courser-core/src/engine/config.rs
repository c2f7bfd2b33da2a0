//! What an engine is made of.

use core::time::Duration;

use super::{CidReports, SourceLimits};
use crate::cid::{CidGenerator, RandomCids};
use crate::config::Settings;
use crate::crypto::{KeyFactory, Random, TlsServerConfig};
use crate::observe::Observer;
pub use crate::path::{Ticket, TokenKeys, TokenLedger, UsedTokens};
pub use crate::protect::AeadLimits;

/// When a server asks a client to prove its address with a Retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Never.
    #[default]
    Never,
    /// When more than that many handshakes are under way whose clients have not proven their address, and more than were
    /// completed in the last second: a busy server asks nobody, and one that hears mostly of clients that never finish asks
    /// all.
    Above(usize),
    /// Always.
    Always,
}

/// Handshakes of clients that have not proven their address, before others are asked to prove theirs: what they hold is less
/// than two MiB, and what they cost less than 50 ms.
pub const UNPROVEN_MAX: usize = 128;

/// The server's part of an engine.
pub struct ServerConfig {
    /// Certificates and application protocols.
    pub tls: Box<dyn TlsServerConfig>,
    /// Settings of every connection, unless one is accepted with others.
    pub settings: Settings,
    /// Address validation before the handshake.
    pub retry: RetryPolicy,
    /// Handshakes under way at once; further Initials are dropped.
    pub handshakes_max: usize,
    /// Clients at once that have not sent their whole ClientHello; when there are more, the oldest goes.
    pub minis_max: usize,
    /// What each address, or network of IPv6, may leave unfinished; `None`: as much as it likes.
    pub sources: Option<SourceLimits>,
    /// Bytes that are held for them together; when they are more, the oldest goes.
    pub mini_bytes_max: usize,
    /// Whether the application decides over each new connection, with [`accept`](super::Engine::accept),
    /// [`refuse`](super::Engine::refuse), [`retry`](super::Engine::retry) or [`ignore`](super::Engine::ignore). When not, all
    /// are accepted.
    pub ask: bool,
}

impl ServerConfig {
    /// A server that accepts everybody, up to 10,000 handshakes at once. With more than [`UNPROVEN_MAX`] of them unproven, new
    /// clients are asked to prove their address; see also [`SourceLimits`].
    #[must_use]
    pub fn new(tls: Box<dyn TlsServerConfig>, settings: Settings) -> Self {
        Self {
            tls,
            settings,
            retry: RetryPolicy::Above(UNPROVEN_MAX),
            sources: Some(SourceLimits::default()),
            handshakes_max: 10_000,
            minis_max: 4_096,
            mini_bytes_max: 8 << 20,
            ask: false,
        }
    }
}

/// What an engine is made of.
pub struct EngineConfig {
    /// Packet protection.
    pub keys: Box<dyn KeyFactory>,
    /// Unpredictable bytes.
    pub random: Box<dyn Random>,
    /// Set on engines that take connections.
    pub server: Option<ServerConfig>,
    /// Bytes that stream and handshake data of all connections may occupy together.
    pub memory_max: usize,
    /// Keys of address tokens; engines of one service share them, also between processes. `None`: one drawn at random.
    pub token_keys: Option<TokenKeys>,
    /// Which tokens were used; engines that share token keys share it too. `None`: one of its own.
    pub token_ledger: Option<Box<dyn TokenLedger>>,
    /// How long after the beginning of 1970 the origin of the caller's time lies. Tokens are dated with it, so engines that
    /// share token keys need it, unless they share the origin too.
    pub unix_time_at_zero: Duration,
    /// Key of stateless reset tokens; kept over restarts it lets peers notice them. `None`: drawn at random.
    //= rfc9000#5.2.3-2
    pub reset_key: Option<[u8; 32]>,
    /// How often keys are used, where that is to be less than the cipher suites allow.
    pub aead_limits: AeadLimits,
    /// Makes connection IDs. On an engine that takes connections they have bytes: in place of a generator without, random
    /// ones are used.
    pub cids: Box<dyn CidGenerator>,
    /// Who is told which connection IDs lead here.
    pub cid_reports: Option<CidReports>,
    /// Who watches.
    pub observer: Option<Box<dyn Observer>>,
}

impl EngineConfig {
    /// A client's engine with 1 GiB of buffers at most.
    #[must_use]
    pub fn new(keys: Box<dyn KeyFactory>, random: Box<dyn Random>) -> Self {
        Self {
            keys,
            random,
            server: None,
            memory_max: 1 << 30,
            token_keys: None,
            token_ledger: None,
            unix_time_at_zero: Duration::ZERO,
            reset_key: None,
            aead_limits: AeadLimits::OF_THE_SUITE,
            cids: Box::new(RandomCids::default()),
            cid_reports: None,
            observer: None,
        }
    }

    /// Who takes connections has connection IDs.
    pub(super) fn settle_cids(&mut self) {
        if self.server.is_some() && self.cids.cid_len() == 0 {
            self.cids = Box::new(RandomCids::default());
        }
    }
}
