//! A TLS session on rustls.
//!
//! Every call runs rustls under the secret tap, then hands out what came of it in an order in which it can be acted on:
//!
//! - client, at the start: ClientHello; with 0-RTT the remembered transport parameters and the 0-RTT secrets;
//! - server, after the ClientHello: transport parameters, whether 0-RTT is taken (with its secrets), ServerHello,
//!   Handshake secrets, the rest of the flight, 1-RTT secrets, exporter secret;
//! - client, after the ServerHello: Handshake secrets; after the server's Finished: transport parameters, whether 0-RTT
//!   was
//!   taken, our Finished, 1-RTT secrets, exporter secret, completion;
//! - server, after the client's Finished: tickets, completion. Nothing comes after that; the session can be dropped.
//!
//! A client keeps the session until tickets came. `KeyChange` of rustls only marks where the level of handshake bytes
//! changes; its keys are dropped.

use courser_core::buf::lazy::{Lazy, Part};
use courser_core::config::TransportParams;
use courser_core::crypto::{Alert, Identity, Secret, Suite, TlsOut, TlsSession};
use courser_core::error::{PeerViolation, TransportCode};
use courser_core::ids::{Level, Version};
use rustls::quic::{self, KeyChange};
use rustls::{Error, PeerMisbehaved};

use crate::alert::{self, INTERNAL_ERROR, UNEXPECTED_MESSAGE};
use crate::early::allowing;
use crate::post::PostHandshake;
use crate::settings::suite_of;
use crate::tap::{Caught, catching};
use crate::tickets::{Versions, speaking};

type Out<'a> = &'a mut dyn FnMut(TlsOut<'_>);

/// The version parameter of rustls, which only decides labels that are not used here.
pub(crate) const fn rustls_version(version: Version) -> quic::Version {
    match version {
        Version::V2 => quic::Version::V2,
        _ => quic::Version::V1,
    }
}

/// One TLS session of either side.
pub(crate) struct Session {
    connection: quic::Connection,
    /// Secrets that are known but not handed out yet.
    caught: Lazy<Caught>,
    versions: Versions,
    /// The level of the next bytes that we say.
    write: Level,
    /// The level that the peer's next bytes have to come at.
    read: Level,
    /// Whether the peer's own transport parameters of this handshake were handed out.
    params_given: bool,
    /// Client: whether 0-RTT was offered and the answer is not known yet.
    early_pending: bool,
    complete: bool,
    /// Client: the name that the certificate was checked for.
    server_name: Option<Box<str>>,
    /// Server with 0-RTT: what the client is allowed.
    allowed: Option<Box<TransportParams>>,
    /// Client: looks at what comes after the handshake.
    post: PostHandshake,
    /// Once failed, a session stays failed.
    failed: Option<Alert>,
}

impl Session {
    pub(crate) fn client(
        connection: quic::ClientConnection,
        caught: Caught,
        versions: Versions,
        server_name: &str,
    ) -> Self {
        Self { server_name: Some(server_name.into()), ..Self::new(connection.into(), caught, versions) }
    }

    pub(crate) fn server(
        connection: quic::ServerConnection,
        caught: Caught,
        versions: Versions,
        allowed: Option<Box<TransportParams>>,
    ) -> Self {
        Self { allowed, ..Self::new(connection.into(), caught, versions) }
    }

    fn new(connection: quic::Connection, caught: Caught, versions: Versions) -> Self {
        let mut kept = Lazy::new();
        if !caught.is_unused() {
            Caught::absorb(&mut kept, caught);
        }
        Self {
            connection,
            caught: kept,
            versions,
            write: Level::Initial,
            read: Level::Initial,
            params_given: false,
            early_pending: false,
            complete: false,
            server_name: None,
            allowed: None,
            post: PostHandshake::default(),
            failed: None,
        }
    }

    const fn is_client(&self) -> bool {
        matches!(self.connection, quic::Connection::Client(_))
    }

    fn suite(&self) -> Result<Suite, Alert> {
        self.connection
            .negotiated_cipher_suite()
            .and_then(suite_of)
            .ok_or_else(|| internal("there are secrets but no cipher suite"))
    }

    fn feed(&mut self, level: Level, bytes: &[u8], out: Out<'_>) -> Result<(), Alert> {
        if bytes.is_empty() {
            return Ok(());
        }
        //= rfc9001#4.1.3-3
        if level != self.read {
            return Err(broken("handshake bytes at another level than is read next", "rfc9001#4.1.3", out));
        }
        if level == Level::OneRtt && self.is_client() {
            self.post.read(bytes).map_err(|v| {
                out(TlsOut::Violation(v));
                unexpected(v.reason)
            })?;
        }
        let (connection, allowed) = (&mut self.connection, &mut self.allowed);
        let (result, caught) = allowing(allowed, || speaking(self.versions, || catching(|| connection.read_hs(bytes))));
        if !caught.is_unused() {
            self.caught.absorb(caught);
        }
        result.map_err(|e| match e {
            //= rfc9001#4.1.3-3
            Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment) => {
                broken("handshake data behind the last message of its level", "rfc9001#4.1.3", out)
            }
            e => alert::from_error(&e, self.connection.alert()),
        })
    }

    fn run(&mut self, level: Level, bytes: &[u8], out: Out<'_>) -> Result<(), Alert> {
        self.feed(level, bytes, out)?;
        if self.is_client() {
            self.tell_client(out)?;
        } else {
            self.tell_server(out)?;
        }
        self.write_all(out)?;
        if self.is_client() {
            // 0-RTT packets follow the ClientHello that was just written.
            self.offer_early_data(out)?;
        }
        // What waits for the peer may wait for long, and most of the time nothing does.
        self.caught.rest();
        if !self.complete && !self.connection.is_handshaking() {
            self.complete = true;
            self.read = Level::OneRtt;
            let identity = self.identity();
            out(TlsOut::Complete(identity));
        }
        Ok(())
    }

    /// What a client knows once the server's flight is read, told before its own Finished.
    fn tell_client(&mut self, out: Out<'_>) -> Result<(), Alert> {
        if self.params_given || self.caught.client_application.is_none() {
            return Ok(());
        }
        self.give_params(out)?;
        if core::mem::take(&mut self.early_pending) {
            let quic::Connection::Client(client) = &self.connection else { return Ok(()) };
            out(TlsOut::EarlyData(client.is_early_data_accepted()));
        }
        Ok(())
    }

    fn offer_early_data(&mut self, out: Out<'_>) -> Result<(), Alert> {
        let Some(secret) = self.caught.get_mut().and_then(|caught| caught.client_early.take()) else { return Ok(()) };
        self.early_pending = true;
        if let Some(remembered) = self.connection.quic_transport_parameters() {
            out(TlsOut::RememberedParams(remembered));
        }
        let suite = self.suite()?;
        out(TlsOut::Secrets { level: Level::ZeroRtt, suite, client: secret.as_slice(), server: &[] });
        Ok(())
    }

    /// What a server knows once the ClientHello is read, told before its own flight.
    fn tell_server(&mut self, out: Out<'_>) -> Result<(), Alert> {
        if self.params_given || self.connection.quic_transport_parameters().is_none() {
            return Ok(());
        }
        self.give_params(out)?;
        // Every resumption logs an early secret; rustls keeps it only when 0-RTT is accepted.
        let secret = self
            .caught
            .get_mut()
            .and_then(|caught| caught.client_early.take())
            .filter(|_| self.connection.zero_rtt_keys().is_some());
        out(TlsOut::EarlyData(secret.is_some()));
        if let Some(secret) = secret {
            let suite = self.suite()?;
            out(TlsOut::Secrets { level: Level::ZeroRtt, suite, client: secret.as_slice(), server: &[] });
        }
        Ok(())
    }

    fn give_params(&mut self, out: Out<'_>) -> Result<(), Alert> {
        let params = self.connection.quic_transport_parameters();
        out(TlsOut::PeerParams(params.ok_or_else(|| internal("the handshake went on without parameters"))?));
        self.params_given = true;
        Ok(())
    }

    /// Hands out all handshake bytes, and the secrets where the level changes.
    fn write_all(&mut self, out: Out<'_>) -> Result<(), Alert> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let change = self.connection.write_hs(&mut bytes);
            if !bytes.is_empty() {
                out(TlsOut::Bytes(self.write, &bytes));
            }
            let suite = match change {
                None => return Ok(()),
                Some(_) => self.suite()?,
            };
            match change {
                Some(KeyChange::Handshake { .. }) => {
                    let secrets = (self.caught.client_handshake.take(), self.caught.server_handshake.take());
                    give_secrets(Level::Handshake, suite, secrets, out)?;
                    (self.write, self.read) = (Level::Handshake, Level::Handshake);
                }
                Some(KeyChange::OneRtt { .. }) => {
                    let secrets = (self.caught.client_application.take(), self.caught.server_application.take());
                    give_secrets(Level::OneRtt, suite, secrets, out)?;
                    self.write = Level::OneRtt;
                    if let Some(secret) = self.caught.exporter.take() {
                        out(TlsOut::Exporter(secret.as_slice()));
                    }
                }
                None => {}
            }
        }
    }

    fn identity(&self) -> Identity {
        let connection = &self.connection;
        let server_name = match connection {
            quic::Connection::Client(_) => self.server_name.as_deref().map(str::to_owned),
            quic::Connection::Server(server) => server.server_name().map(str::to_owned),
        };
        let certificates = connection.peer_certificates().unwrap_or_default();
        Identity {
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            certificates: certificates.iter().map(|c| c.to_vec()).collect(),
            server_name,
            suite: connection.negotiated_cipher_suite().and_then(suite_of),
            group: connection.negotiated_key_exchange_group().map(|g| group_name(g.name())),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }
}

impl TlsSession for Session {
    fn set_versions(&mut self, first: Version, spoken: Version) {
        self.versions = Versions { first, spoken };
    }

    fn read(&mut self, level: Level, bytes: &[u8], out: &mut dyn FnMut(TlsOut<'_>)) -> Result<(), Alert> {
        if let Some(alert) = &self.failed {
            return Err(alert.clone());
        }
        //= rfc9001#4.8-1
        let result = self.run(level, bytes, out);
        if let Err(alert) = &result {
            self.failed = Some(alert.clone());
        }
        result
    }

    fn rest(self: Box<Self>) -> Box<dyn TlsSession> {
        let done = self.is_client() && self.complete && self.failed.is_none();
        if done && self.post.has_tickets() {
            return Box::new(Resting { post: self.post, failed: None });
        }
        self
    }
}

/// What is left of an idle client's session that has tickets: it takes no more of them, and nothing else is allowed.
struct Resting {
    post: PostHandshake,
    failed: Option<Alert>,
}

impl Resting {
    fn run(&mut self, level: Level, bytes: &[u8], out: Out<'_>) -> Result<(), Alert> {
        if bytes.is_empty() {
            return Ok(());
        }
        //= rfc9001#4.1.3-3
        if level != Level::OneRtt {
            return Err(broken("handshake bytes at another level than is read next", "rfc9001#4.1.3", out));
        }
        self.post.read(bytes).map_err(|v| {
            out(TlsOut::Violation(v));
            unexpected(v.reason)
        })?;
        //= rfc9001#6-2
        if self.post.has_other() { Err(unexpected("a message that is no ticket after the handshake")) } else { Ok(()) }
    }
}

impl TlsSession for Resting {
    fn read(&mut self, level: Level, bytes: &[u8], out: &mut dyn FnMut(TlsOut<'_>)) -> Result<(), Alert> {
        if let Some(alert) = &self.failed {
            return Err(alert.clone());
        }
        let result = self.run(level, bytes, out);
        self.failed = result.clone().err();
        result
    }

    fn rest(self: Box<Self>) -> Box<dyn TlsSession> {
        self
    }
}

/// The peer broke a rule that QUIC adds to TLS; the alert is for those who call the session again.
fn broken(reason: &'static str, section: &'static str, out: Out<'_>) -> Alert {
    out(TlsOut::Violation(PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, section)));
    unexpected(reason)
}

fn unexpected(reason: &str) -> Alert {
    Alert { code: UNEXPECTED_MESSAGE, reason: reason.to_owned() }
}

fn give_secrets(
    level: Level,
    suite: Suite,
    secrets: (Option<Secret>, Option<Secret>),
    out: Out<'_>,
) -> Result<(), Alert> {
    let (Some(client), Some(server)) = secrets else { return Err(internal("rustls changed keys without secrets")) };
    out(TlsOut::Secrets { level, suite, client: client.as_slice(), server: server.as_slice() });
    Ok(())
}

/// An error of our own or of rustls, not of the peer.
fn internal(reason: &str) -> Alert {
    Alert { code: INTERNAL_ERROR, reason: reason.to_owned() }
}

/// The IANA name of a group.
fn group_name(group: rustls::NamedGroup) -> String {
    match u16::from(group) {
        0x0017 => "secp256r1".to_owned(),
        0x0018 => "secp384r1".to_owned(),
        0x0019 => "secp521r1".to_owned(),
        0x001d => "x25519".to_owned(),
        0x11eb => "SecP256r1MLKEM768".to_owned(),
        0x11ec => "X25519MLKEM768".to_owned(),
        0x0201 => "MLKEM768".to_owned(),
        other => format!("{other:#06x}"),
    }
}
