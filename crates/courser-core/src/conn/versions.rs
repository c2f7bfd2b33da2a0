//! Which version is spoken (RFC 9368, RFC 9369 section 4), and the beginning of a server's TLS session.
//!
//! A server has the whole ClientHello before there is a connection (`engine::mini`), and reads it before it creates a TLS
//! session, because its transport parameters say which versions the client speaks, and the session has to tell the one that
//! was chosen. From then on everything but the client's 0-RTT
//! is in that version. A client learns of it by the first Initial of the server: it is believed once it opens with the keys
//! of that version, and checked against the server's transport parameters later.

use super::{Connection, Env, Handshake};
use crate::config::TransportParams;
use crate::crypto::TlsServerConfig;
use crate::error::{CloseReason, PeerViolation, TransportCode};
use crate::ids::{Cid, Level, Side, Version};
use crate::observe::{Dropped, Event as Observed, Kind, Step};
use crate::protect::client_hello::parse_client_hello;
use crate::protect::initial_opens;
use crate::time::Instant;
use crate::wire::header::{Long, Versions};
use crate::wire::{params, version_neg};

/// Versions of a Version Negotiation packet that are looked at.
const OFFERED_MAX: usize = 16;

/// The version to go on with, by what a ClientHello says.
fn select(hello: &[u8], ours: &[Version], first: Version) -> Result<Version, PeerViolation> {
    let hello = parse_client_hello(hello)?;
    //= rfc9001#8.4-2
    if hello.as_ref().is_some_and(|h| !h.session_id.is_empty()) {
        let reason = "the ClientHello asks for the compatibility mode of TLS";
        return Err(PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, "rfc9001#8.4"));
    }
    let told = match hello.and_then(|h| h.transport_params) {
        //= rfc9368#4-3
        Some(bytes) => params::decode(bytes, Side::Client)?.version_information,
        None => None,
    };
    version_neg::select(ours, first, told.as_ref())
}

impl Connection {
    /// A server has the whole ClientHello: chooses the version and runs TLS. `params` are what it will say, apart from the
    /// version.
    pub(super) fn begin_tls(
        &mut self,
        env: &mut Env,
        now: Instant,
        tls: &dyn TlsServerConfig,
        params: &TransportParams,
        hello: &[u8],
    ) {
        let Some(handshake) = self.handshake.as_ref() else { return };
        let (first, dcid) = (handshake.first_version, handshake.original_dcid);
        let version = match select(hello, &self.settings(env).versions, first) {
            Ok(version) => version,
            //= rfc9368#2.3-2
            Err(violation) => return self.fail(now, violation),
        };
        //= rfc9369#4.1-4
        self.keys.switch_version(env.keys.as_ref(), version, &dcid);
        self.version = version;
        //= rfc9369#4-2
        let information = Some(version_neg::information(version, &self.settings(env).versions));
        let params = TransportParams { version_information: information, ..params.clone() };
        let mut encoded = Vec::with_capacity(256);
        params::encode(&params, Side::Server, env.random_u64(), &mut encoded);
        match tls.start(version, &encoded) {
            Ok(mut session) => {
                session.set_versions(first, version);
                self.tls = Some(session);
                self.run_tls(env, now, Level::Initial, hello);
                self.after_handshake_packet(env, now);
            }
            Err(alert) => self.begin_close(now, CloseReason::Tls { alert: alert.code, reason: alert.reason }),
        }
    }

    /// Whether a packet with a long header may be in its version. A client may have to change to it first.
    pub(super) fn fits_version(&mut self, env: &mut Env, long: &Long<'_>, packet: &[u8]) -> bool {
        let first = self.handshake.as_ref().map_or(self.version, |h| h.first_version);
        match long.level {
            Level::ZeroRtt => long.version == first,
            //= rfc9369#4.1-6
            Level::Initial if long.version == self.version || long.version == first => true,
            //= rfc9000#5.2.1-1
            Level::Initial => self.follow_version(env, long, packet),
            //= rfc9369#4.1-8
            _ => long.version == self.version,
        }
    }

    /// A client follows its server to another version, once, if that packet really is in it. The server may have answered in
    /// the first version before: it chooses only when it has the whole ClientHello.
    fn follow_version(&mut self, env: &mut Env, long: &Long<'_>, packet: &[u8]) -> bool {
        let undecided = self.side.is_client() && !self.keys.has_send(Level::Handshake);
        let Some(handshake) = self.handshake.as_ref().filter(|h| undecided && h.first_version == self.version) else {
            return false;
        };
        let compatible = version_neg::compatible(handshake.first_version, long.version);
        if !compatible || !self.settings(env).versions.contains(&long.version) {
            return false;
        }
        let dcid = initial_dcid(handshake);
        let keys = env.keys.initial(long.version, &dcid, Side::Client);
        let mut copy = packet[..long.end].to_vec();
        if !initial_opens(&keys, &mut copy, long.pn_at) {
            return false;
        }
        //= rfc9369#4.1-5
        let first = handshake.first_version;
        self.keys.switch_version(env.keys.as_ref(), long.version, &dcid);
        self.version = long.version;
        if let Some(tls) = &mut self.tls {
            tls.set_versions(first, long.version);
        }
        true
    }

    /// What the peer says of its versions must fit the packets that said it.
    pub(super) fn check_versions(&self, env: &Env, params: &TransportParams) -> Result<(), PeerViolation> {
        let told = params.version_information.as_ref();
        let Some(handshake) = &self.handshake else { return Ok(()) };
        if self.side.is_client() {
            return version_neg::verify_server(&self.settings(env).versions, self.version, handshake.restarted, told);
        }
        //= rfc9368#4-8
        //= rfc9368#4-9
        if told.is_some_and(|t| t.chosen != handshake.first_version) {
            let reason = "the client's chosen version is not the one in use";
            return Err(PeerViolation::new(TransportCode::VERSION_NEGOTIATION_ERROR, reason, "rfc9368#4"));
        }
        Ok(())
    }

    /// The server speaks none of the versions that we tried.
    pub(super) fn on_version_negotiation(
        &mut self,
        env: &mut Env,
        now: Instant,
        dcid: &[u8],
        scid: &[u8],
        versions: Versions<'_>,
    ) {
        let Some(handshake) = &self.handshake else { return };
        //= rfc9000#6.2-2
        let ours = self.local_cids.first().cid;
        let answers_us = dcid == ours.as_slice() && scid == handshake.original_dcid.as_slice();
        let offered: Vec<Version> = versions.take(OFFERED_MAX).collect();
        let late = handshake.peer_cid_known || handshake.retry_scid.is_some() || !answers_us;
        let offer = offered.iter().copied();
        let reaction = version_neg::react(&self.settings(env).versions, self.version, handshake.restarted, offer);
        if late || reaction == version_neg::Reaction::Ignore {
            self.drop_packet(env, now, None, 0, Dropped::Unexpected);
            return;
        }
        env.tell(now, self.key, Kind::Life, &Observed::Life(Step::VersionsOffered(&offered)));
        //= rfc9000#6.2-1
        self.end_silently(CloseReason::VersionNegotiation { offered });
    }
}

/// The connection ID that Initial keys are made from.
fn initial_dcid(handshake: &Handshake) -> Cid {
    handshake.retry_scid.unwrap_or(handshake.original_dcid)
}

/// An address token as an application keeps it: with the version that it is good for.
pub(super) fn keep_token(version: Version, token: &[u8]) -> Box<[u8]> {
    [&version.0.to_be_bytes(), token].concat().into()
}

/// The token for a connection that begins in this version; empty when it is for another one.
pub(super) fn token_for(version: Version, kept: &[u8]) -> &[u8] {
    //= rfc9369#5-1
    kept.strip_prefix(&version.0.to_be_bytes()).unwrap_or_default()
}
