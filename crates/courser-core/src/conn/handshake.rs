//! TLS, keys and transport parameters; Retry and Version Negotiation on clients.

use core::time::Duration;

use super::{Connection, EarlyData, Env, Event, ExporterSecret, Handshake, Life, Manner, RouteChange};
use crate::ack::tolerance::Tolerance;
use crate::config::TransportParams;
use crate::crypto::{Identity, Secret, Suite, TAG_LEN, TlsOut};
use crate::error::{CloseReason, PeerViolation, TransportCode};
use crate::ids::{Cid, Level};
use crate::observe::{Dropped, Event as Observed, Kind, Step};
use crate::recovery::hurry::FIRST_FLIGHT;
use crate::recovery::rtt::Rtt;
use crate::stream::crypto::CryptoStream;
use crate::time::{Instant, micros};
use crate::wire::params;

/// How long the route of the client's own choice of connection ID stays after the handshake, for late Initials.
const CHOSEN_ROUTE_STAYS: Duration = Duration::from_secs(2);

/// Type of the frame that is to blame for what TLS messages say.
const CRYPTO: u64 = 0x06;

fn crypto_of<'a>(
    handshake: &'a mut Option<Box<Handshake>>,
    late: &'a mut Option<Box<CryptoStream>>,
    level: Level,
) -> Option<&'a mut CryptoStream> {
    match level {
        Level::Initial => handshake.as_mut().map(|h| &mut h.crypto[0]),
        Level::Handshake => handshake.as_mut().map(|h| &mut h.crypto[1]),
        Level::OneRtt => Some(late.get_or_insert_default()),
        Level::ZeroRtt => None,
    }
}

/// Fields of a Retry packet.
pub(super) struct Retry<'a> {
    pub(super) scid: Cid,
    pub(super) token: &'a [u8],
    pub(super) tag: &'a [u8; TAG_LEN],
    pub(super) without_tag: &'a [u8],
}

impl Connection {
    /// CRYPTO data came: what is in order goes to TLS.
    pub(super) fn on_crypto(
        &mut self,
        env: &mut Env,
        now: Instant,
        level: Level,
        offset: u64,
        data: &[u8],
    ) -> Result<(), PeerViolation> {
        if level == Level::OneRtt && self.side.is_server() {
            let reason = "a client sent TLS messages after the handshake";
            return Err(PeerViolation::new(TransportCode::tls_alert(10), reason, "rfc9001#6"));
        }
        let reading = self.handshake.as_ref().map_or(Level::OneRtt, |h| h.reading);
        let Some(crypto) = crypto_of(&mut self.handshake, &mut self.late_crypto, level) else { return Ok(()) };
        if level < reading {
            crypto.on_late_data(offset, data)?;
            if self.side.is_server() && matches!(self.life, Life::Handshaking) && !env.throng {
                // The client repeats its ClientHello: it has not seen all of what answers that.
                self.recovery.on_repeated(now);
            }
            return Ok(());
        }
        crypto.on_data(offset, data, &mut env.pool)?;
        if crypto.peek().is_empty() {
            return Ok(());
        }
        self.feed_tls(env, now, level);
        Ok(())
    }

    /// Gives TLS what is in order at a level and acts on what it says. A client's session starts with nothing.
    pub(super) fn feed_tls(&mut self, env: &mut Env, now: Instant, level: Level) {
        while let Some(crypto) = crypto_of(&mut self.handshake, &mut self.late_crypto, level) {
            let bytes = crypto.peek().to_vec();
            crypto.consume(bytes.len(), &mut env.pool);
            self.run_tls(env, now, level, &bytes);
            let more =
                crypto_of(&mut self.handshake, &mut self.late_crypto, level).is_some_and(|c| !c.peek().is_empty());
            if !more || !self.is_open() {
                break;
            }
        }
    }

    /// Gives TLS bytes and acts on what it says.
    pub(super) fn run_tls(&mut self, env: &mut Env, now: Instant, level: Level, bytes: &[u8]) {
        let Some(mut tls) = self.tls.take() else { return };
        let mut problem = None;
        let result = tls.read(level, bytes, &mut |out| {
            if problem.is_none() {
                problem = self.on_tls(env, now, out).err();
            }
        });
        if let Err(alert) = result {
            problem.get_or_insert(CloseReason::Tls { alert: alert.code, reason: alert.reason });
        }
        if let Some(reason) = problem {
            self.begin_close(now, reason);
            return;
        }
        // A server's session has nothing to do after the handshake; tickets came with its last words.
        if self.side.is_client() || matches!(self.life, Life::Handshaking) {
            self.tls = Some(tls);
        }
    }

    fn on_tls(&mut self, env: &mut Env, now: Instant, out: TlsOut<'_>) -> Result<(), CloseReason> {
        match out {
            TlsOut::Bytes(level, bytes) => {
                env.pressing = true;
                let crypto = crypto_of(&mut self.handshake, &mut self.late_crypto, level);
                let taken = crypto.map_or(0, |c| c.write(bytes, &mut env.pool));
                if taken < bytes.len() {
                    return Err(CloseReason::Internal("no memory for the handshake"));
                }
            }
            TlsOut::Secrets { level, suite, client, server } => {
                self.keys
                    .install(env.keys.as_ref(), level, suite, client, server)
                    .map_err(|_| CloseReason::Internal("TLS gave a secret that cannot be used"))?;
                if level == Level::OneRtt && self.side.is_client() {
                    //= rfc9001#4.9.3-1
                    //= rfc9001#5.6-6
                    //= rfc9000#17.2.3-3
                    self.keys.discard(Level::ZeroRtt);
                }
                env.observe(now, self.key, Kind::Life, || Observed::Life(Step::KeysInstalled(level)));
                if level == Level::Handshake {
                    self.read_next(level).map_err(CloseReason::Violation)?;
                }
            }
            TlsOut::PeerParams(bytes) => self.on_peer_params(env, now, bytes).map_err(CloseReason::Violation)?,
            TlsOut::RememberedParams(bytes) => self.on_remembered(bytes),
            TlsOut::EarlyData(accepted) => self.on_early_answer(env, now, accepted).map_err(CloseReason::Violation)?,
            TlsOut::Exporter(secret) => self.on_exporter(secret),
            TlsOut::Complete(identity) => {
                self.read_next(Level::OneRtt).map_err(CloseReason::Violation)?;
                self.on_complete(env, now, identity);
            }
            TlsOut::Violation(v) => return Err(CloseReason::Violation(v.in_frame(CRYPTO))),
        }
        Ok(())
    }

    /// TLS reads at a higher level from now on.
    fn read_next(&mut self, level: Level) -> Result<(), PeerViolation> {
        let Some(handshake) = self.handshake.as_deref_mut() else { return Ok(()) };
        let before = core::mem::replace(&mut handshake.reading, level);
        debug_assert!(before < level);
        handshake.crypto[usize::from(before == Level::Handshake)].end_reading().map_err(|v| v.in_frame(CRYPTO))
    }

    fn on_exporter(&mut self, secret: &[u8]) {
        if let Some(secret) = Secret::new(secret) {
            self.exporter = Some(Box::new(ExporterSecret { suite: self.keys.suite(), secret }));
        }
    }

    fn on_complete(&mut self, env: &mut Env, now: Instant, identity: Identity) {
        self.life = Life::Established;
        self.keys.set_complete();
        env.tell(now, self.key, Kind::Life, &Observed::Life(Step::Alpn(identity.alpn.as_deref())));
        self.identity = Some(Box::new(identity));
        if let Some(handshake) = &self.handshake {
            self.stats.handshake_us = micros(now - handshake.started);
        }
        self.events.push_back(Event::Connected);
        env.observe(now, self.key, Kind::Life, || Observed::Life(Step::HandshakeComplete));
        if self.side.is_server() {
            //= rfc9001#4.1.2-1
            self.handshake_done.request();
            self.confirm(env, now);
        }
    }

    /// The handshake is confirmed: Handshake keys go, key updates and searches for a larger datagram may begin.
    pub(super) fn confirm(&mut self, env: &mut Env, now: Instant) {
        if self.confirmed || !matches!(self.life, Life::Established) {
            return;
        }
        self.confirmed = true;
        self.keys.set_confirmed();
        self.keep_early_keys_a_while(now);
        self.discard(env, now, Level::Initial);
        //= rfc9000#10.2.3-1
        //= rfc9001#4.9.2-1
        self.discard(env, now, Level::Handshake);
        if self.settings(env).mtu_discovery {
            self.path.pmtud.start();
        }
        self.follow_preferred_address(env, now);
        self.events.push_back(Event::Confirmed);
        env.observe(now, self.key, Kind::Life, || Observed::Life(Step::HandshakeConfirmed));
    }

    /// Called after the packet that confirmed the handshake, or any later one: frees what only the handshake needed.
    fn end_handshake(&mut self, now: Instant) {
        if !self.confirmed {
            return;
        }
        self.acks.end_early();
        // Of the peer's parameters only the address that it prefers is asked for later.
        self.peer = self.peer.take().filter(|params| params.preferred_address.is_some());
        if let Some(handshake) = self.handshake.take()
            && self.side.is_server()
        {
            self.chosen_route = Some(Box::new((handshake.original_dcid, now + CHOSEN_ROUTE_STAYS)));
        }
    }

    /// Handles packets that waited for keys, and ends the handshake when its time has come.
    pub(super) fn after_handshake_packet(&mut self, env: &mut Env, now: Instant) {
        if self.handshake.is_none() {
            return;
        }
        for level in [Level::ZeroRtt, Level::Handshake, Level::OneRtt] {
            let waits = self.handshake.as_ref().is_some_and(|h| h.stash.iter().any(|s| s.level == level));
            if waits && self.keys.has_recv(level) {
                self.unstash(env, now, level);
            }
        }
        self.end_handshake(now);
    }

    /// Keys of a level go, and with them everything that only they could carry.
    pub(super) fn discard(&mut self, env: &mut Env, now: Instant, level: Level) {
        if !self.keys.has_send(level) {
            return;
        }
        self.keys.discard(level);
        let space = level.space();
        let freed = self.recovery.discard(now, space, &mut |_, _| {});
        self.on_freed(&freed);
        self.probes[space.index()] = 0;
        if let Some(crypto) = crypto_of(&mut self.handshake, &mut self.late_crypto, level) {
            crypto.clear(&mut env.pool);
        }
        env.observe(now, self.key, Kind::Life, || Observed::Life(Step::KeysDiscarded(level)));
    }

    fn on_peer_params(&mut self, env: &mut Env, now: Instant, bytes: &[u8]) -> Result<(), PeerViolation> {
        let params = params::decode(bytes, self.side.peer())?;
        //= rfc9368#2.3-5
        self.check_peer_cids(&params)?;
        self.check_versions(env, &params)?;
        if self.early != EarlyData::Offered {
            self.streams.set_peer_params(&params);
            self.datagrams.set_peer_max(params.max_datagram_frame);
        }
        self.local_cids.set_peer_limit(params.active_cid_limit);
        self.path.pmtud.set_peer_max(params.max_udp_payload);
        self.idle_timeout = shorter(self.settings(env).idle_timeout, Duration::from_millis(params.max_idle_timeout_ms));
        if let Some(token) = params.reset_token {
            self.remote_cids.set_first_token(token);
            self.routes.push(RouteChange::AddToken(token));
        }
        if let Some(preferred) = &params.preferred_address {
            //= rfc9000#5.1.1-1
            self.remote_cids.on_new(1, 0, preferred.cid, preferred.token)?;
        }
        env.tell(now, self.key, Kind::Life, &Observed::Life(Step::PeerParams(&params)));
        let least = params.min_ack_delay_us.map(Duration::from_micros);
        self.tolerance = Tolerance::new(least, Duration::from_millis(params.max_ack_delay_ms));
        //= rfc9000#7.4.1-3
        self.manner = Manner::of(&params);
        self.peer = Some(Box::new(params));
        self.peer_known = true;
        Ok(())
    }

    /// The connection IDs in the parameters must be those that were seen on the wire.
    fn check_peer_cids(&self, told: &TransportParams) -> Result<(), PeerViolation> {
        let Some(handshake) = &self.handshake else { return Ok(()) };
        let (first, original) = (&handshake.peer_first_cid, &handshake.original_dcid);
        params::verify_cids(told, self.side.peer(), first, original, handshake.retry_scid.as_ref())
    }

    /// A Retry came: the first flight goes out again, to another connection ID and with a token.
    pub(super) fn on_retry(&mut self, env: &mut Env, now: Instant, retry: &Retry<'_>) {
        let Retry { scid, token, tag, without_tag } = *retry;
        let Some(handshake) = self.handshake.as_mut() else { return };
        //= rfc9000#17.2.5.2-1
        if handshake.retry_scid.is_some() || handshake.peer_cid_known {
            return;
        }
        //= rfc9000#17.2.5.2-2
        let expected = env.keys.retry_tag(self.version, &handshake.original_dcid, without_tag);
        if !env.keys.equal(&expected, tag) || token.is_empty() || scid == handshake.original_dcid {
            self.drop_packet(env, now, None, without_tag.len() + TAG_LEN, Dropped::Unexpected);
            return;
        }
        handshake.retry_scid = Some(scid);
        //= rfc9000#8.1.3-2
        handshake.token = token.into();
        self.remote_cids.replace_first(scid);
        self.path.to.cid = scid;
        self.keys.install_initial(env.keys.as_ref(), self.version, &scid);
        handshake.crypto[0].repeat_unacked();
        let started = handshake.started;
        let freed = self.recovery.abandon(now, Level::Initial, &mut |_, _| {});
        self.on_freed(&freed);
        //= rfc9000#17.2.3-1
        //= rfc9000#17.2.3-2
        self.abandon_early(env, now);
        if !self.path.rtt.has_sample() {
            self.path.rtt = Rtt::new((now - started).max(FIRST_FLIGHT / 3));
        }
        self.stats.rare.retries += 1;
    }

    /// The suite and the exporter secret, once there.
    pub(crate) fn exporter_secret(&self) -> Option<(Suite, &Secret)> {
        self.exporter.as_ref().map(|e| (e.suite, &e.secret))
    }
}

/// The shorter of two timeouts where zero means none.
fn shorter(a: Duration, b: Duration) -> Duration {
    match (a.is_zero(), b.is_zero()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.min(b),
    }
}
