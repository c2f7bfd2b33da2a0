//! What becomes of packets that no connection claims, and of new connections.
//!
//! The gates stand in the order of their cost; each has a counter, and nothing is allocated for a packet that is refused.

use super::mini::{Client, Decision, MiniConn};
use super::replies::{Refusal, Reply};
use super::sources::Standing;
use super::{Engine, Meta, RetryPolicy};
use crate::config::Settings;
use crate::error::ApiMisuse;
use crate::ids::{Cid, ConnKey, Version};
use crate::path::{Checked, Proof, Showing, TokenKeys};
use crate::time::Instant;
use crate::wire::header::{self, Header, Long};

/// The smallest datagram that may begin a connection.
pub(super) const FIRST_DATAGRAM_MIN: usize = 1200;
/// The shortest connection ID that a client may choose for the server.
const CHOSEN_CID_MIN: usize = 8;

impl Engine {
    pub(super) fn on_unrouted(&mut self, now: Instant, meta: &Meta, datagram: &mut [u8]) {
        let whole = datagram.len();
        //= rfc9000#10.3.1-1
        //= rfc9000#10.3-8
        if self.is_reset(now, datagram) {
            return;
        }
        match header::decode(datagram, self.env.cid_len) {
            //= rfc9000#17.2-1
            Ok(Header::Initial(_)) if !header::fixed_bit(datagram) && !self.takes_cleared_bit() => {
                self.stats.malformed += 1;
            }
            Ok(Header::Initial(long)) => {
                let (long, token) = (Admission::of(&long), long.token.to_owned_token());
                self.admit(now, meta, datagram, &long, &token);
            }
            Ok(Header::UnknownVersion { version, dcid, scid }) => {
                self.on_unknown_version(meta, version, dcid, scid, whole)
            }
            Ok(Header::Short { dcid, .. }) => self.on_unknown_short(now, meta, dcid, datagram),
            Ok(
                //= rfc9000#5.2.2-6
                //= rfc9000#6.1-1
                //= rfc9368#2.1-5
                Header::Handshake(_) | Header::ZeroRtt(_) | Header::Retry { .. } | Header::VersionNegotiation { .. },
            ) => {}
            Err(_) => self.stats.malformed += 1,
        }
    }

    /// Whether connections of our server take packets whose QUIC bit is 0.
    fn takes_cleared_bit(&self) -> bool {
        //= rfc9287#3-2
        self.server.as_ref().is_some_and(|server| server.settings.grease)
    }

    fn on_unknown_version(&mut self, meta: &Meta, version: Version, dcid: &[u8], scid: &[u8], whole: usize) {
        self.stats.gate_version += 1;
        //= rfc9000#5.2.2-3
        if self.server.is_none() || whole < FIRST_DATAGRAM_MIN || version == Version::NEGOTIATION {
            return;
        }
        self.request_negotiation(meta, dcid, scid);
    }

    fn on_unknown_short(&mut self, now: Instant, meta: &Meta, dcid: Cid, datagram: &[u8]) {
        if self.purgatory.contains(now, dcid.as_slice()) {
            self.stats.gate_purgatory += 1;
            return;
        }
        if self.server.is_some() {
            if !self.resets.take(now) {
                self.stats.resets_limited += 1;
                return;
            }
            let received = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
            self.request(meta, Reply::Reset { received }, dcid, Cid::EMPTY);
        }
    }

    fn admit(&mut self, now: Instant, meta: &Meta, datagram: &mut [u8], initial: &Admission, token: &Token) {
        let Some(server) = &self.server else {
            self.stats.gate_not_server += 1;
            return;
        };
        if self.cooldown {
            self.stats.gate_cooldown += 1;
            return;
        }
        //= rfc9000#14.1-3
        if datagram.len() < FIRST_DATAGRAM_MIN {
            self.stats.gate_size += 1;
            return;
        }
        if !server.settings.versions.contains(&initial.version) {
            self.stats.gate_version += 1;
            self.request(meta, Reply::VersionNegotiation, initial.dcid, initial.scid);
            return;
        }
        if initial.dcid.len() < CHOSEN_CID_MIN {
            self.stats.gate_size += 1;
            return;
        }
        if self.purgatory.contains(now, initial.dcid.as_slice()) {
            self.stats.gate_purgatory += 1;
            return;
        }
        if self.handshakes >= server.handshakes_max {
            self.stats.gate_handshakes += 1;
            return;
        }
        let standing = self.sources.as_ref().map_or(Standing::Good, |s| s.standing(now, meta.remote.ip()));
        if standing == Standing::Refused {
            self.stats.gate_source += 1;
            return;
        }
        let wants_retry = self.wants_proof(now, standing);
        let Ok(proof) = self.prove(now, meta, initial, token) else { return };
        if proof.is_none()
            && let Some(decision) = self.decided.find(now, &initial.dcid)
        {
            if let Some(reply) = decision {
                self.request(meta, reply, initial.dcid, initial.scid);
            }
            return;
        }
        if wants_retry && proof.is_none() {
            self.stats.gate_retry += 1;
            self.stats.retry_source += u64::from(standing == Standing::Prove);
            self.request(meta, Reply::Retry { version: initial.version }, initial.dcid, initial.scid);
            return;
        }
        let client = Client {
            remote: meta.remote,
            local: meta.local,
            version: initial.version,
            dcid: initial.dcid,
            scid: initial.scid,
            validated: proof.is_some(),
        };
        let retried_from = match proof {
            Some(Proof::Retry { original_dcid }) => Some(original_dcid),
            _ => None,
        };
        let taken = self.begin(now, client, retried_from, meta, datagram);
        if taken && let Some(Proof::Frame(ticket)) = proof {
            let now_us = self.env.tokens.wall_us(now);
            self.used_tokens.set_used(ticket, now_us);
        }
    }

    /// Whether a client of such a source has to prove its address first.
    fn wants_proof(&mut self, now: Instant, standing: Standing) -> bool {
        let Some(server) = &self.server else { return false };
        standing == Standing::Prove
            || match server.retry {
                RetryPolicy::Never => false,
                RetryPolicy::Above(few) => self.unproven > few && self.unproven > self.completed.recently(now),
                RetryPolicy::Always => true,
            }
    }

    /// What the token of an Initial proves; an error when its client has to go away because of it.
    fn prove(
        &mut self,
        now: Instant,
        meta: &Meta,
        initial: &Admission,
        token: &Token,
    ) -> Result<Option<Proof>, TokenRefused> {
        //= rfc9000#8.1.3-10
        if token.is_empty() {
            return Ok(None);
        }
        let at = Showing { version: initial.version, now, peer: meta.remote, dcid: initial.dcid };
        let checked =
            token.as_slice().map_or(Checked::Nothing, |t| self.env.tokens.check(self.env.keys.as_ref(), &at, t));
        match checked {
            Checked::Good(Proof::Frame(ticket)) if self.used_tokens.is_used(&ticket) => {}
            Checked::Good(proof) => return Ok(Some(proof)),
            //= rfc9000#8.1.3-8
            Checked::BadRetry => {
                //= rfc9000#8.1.2-2
                self.stats.bad_tokens += 1;
                let reply = Reply::Refuse { version: initial.version, why: Refusal::InvalidToken };
                self.request(meta, reply, initial.dcid, initial.scid);
                return Err(TokenRefused);
            }
            Checked::Nothing => {}
        }
        //= rfc9000#8.1.3-11
        self.stats.bad_tokens += 1;
        Ok(None)
    }

    /// Takes and issues address tokens under these keys from now on.
    pub fn replace_token_keys(&mut self, keys: &TokenKeys) {
        self.env.tokens.replace(self.env.keys.as_ref(), keys);
    }

    /// The next connection that waits for a decision; only with [`ServerConfig::ask`](super::ServerConfig::ask).
    pub fn poll_incoming(&mut self) -> Option<(ConnKey, Incoming)> {
        loop {
            let key = self.incoming.pop_front()?;
            if let Some(mini) = self.waiting(key) {
                let Client { remote, local, version, validated, .. } = mini.client;
                return Some((key, Incoming { remote, local, version, validated }));
            }
        }
    }

    /// A client that waits for a decision.
    fn waiting(&mut self, key: ConnKey) -> Option<&mut MiniConn> {
        self.mini_mut(key).filter(|mini| mini.decision == Decision::Waiting)
    }

    /// Accepts a waiting connection, with settings of its own if given. [`Event::Accepted`](super::Event::Accepted) follows
    /// once its client has said what it wants, before which there is nothing to be done with it.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`] when it does not wait.
    pub fn accept(&mut self, now: Instant, key: ConnKey, settings: Option<&Settings>) -> Result<(), ApiMisuse> {
        let now = self.clock.read(now);
        let mini = self.waiting(key).ok_or(ApiMisuse::UnknownConnection)?;
        mini.accept(settings);
        self.tickable.push(key.index);
        self.promote(now, key);
        Ok(())
    }

    /// Refuses a waiting connection with CONNECTION_REFUSED.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`] when it does not wait.
    pub fn refuse(&mut self, key: ConnKey) -> Result<(), ApiMisuse> {
        self.answer_waiting(key, |client| Some(Reply::Refuse { version: client.version, why: Refusal::NotWanted }))
    }

    /// Asks the client of a waiting connection to prove its address; it may come again then.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`] when it does not wait; [`ApiMisuse::Closing`] when its address is proven already.
    pub fn retry(&mut self, key: ConnKey) -> Result<(), ApiMisuse> {
        if self.waiting(key).is_some_and(|mini| mini.retried_from().is_some()) {
            //= rfc9000#17.2.5.1-1
            return Err(ApiMisuse::Closing);
        }
        self.answer_waiting(key, |client| Some(Reply::Retry { version: client.version }))
    }

    /// Drops a waiting connection without a word.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`] when it does not wait.
    pub fn ignore(&mut self, key: ConnKey) -> Result<(), ApiMisuse> {
        self.answer_waiting(key, |_| None)
    }

    fn answer_waiting(&mut self, key: ConnKey, reply: impl FnOnce(&Client) -> Option<Reply>) -> Result<(), ApiMisuse> {
        let client = self.waiting(key).ok_or(ApiMisuse::UnknownConnection)?.client;
        let now = self.received_at;
        self.end_mini(now, key);
        let reply = reply(&client);
        self.decided.insert(now, client.dcid, reply);
        if let Some(reply) = reply {
            self.request_to(client.remote, client.local, reply, (client.dcid, client.scid));
        }
        Ok(())
    }
}

/// A connection that waits for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The client's address.
    pub remote: core::net::SocketAddr,
    /// The address of ours that it talks to, when known.
    pub local: Option<core::net::IpAddr>,
    /// The version that it chose.
    pub version: Version,
    /// Whether a token proves its address.
    pub validated: bool,
}

/// A client cannot go on with the token that it has.
struct TokenRefused;

/// The fields of an Initial that admission looks at, apart from its bytes.
struct Admission {
    version: Version,
    dcid: Cid,
    scid: Cid,
}

impl Admission {
    fn of(long: &Long<'_>) -> Self {
        Self { version: long.version, dcid: long.dcid, scid: long.scid }
    }
}

/// A token copied out of its packet, so that the packet can be decrypted in place; longer ones are never ours.
struct Token {
    len: usize,
    bytes: [u8; 64],
}

impl Token {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn as_slice(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len).filter(|t| !t.is_empty())
    }
}

trait ToOwnedToken {
    fn to_owned_token(&self) -> Token;
}

impl ToOwnedToken for [u8] {
    fn to_owned_token(&self) -> Token {
        let mut bytes = [0; 64];
        if let Some(room) = bytes.get_mut(..self.len()) {
            room.copy_from_slice(self);
        }
        Token { len: self.len(), bytes }
    }
}
