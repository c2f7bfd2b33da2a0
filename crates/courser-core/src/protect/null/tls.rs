//! A handshake that has the shape of TLS 1.3 and none of its security.
//!
//! ```text
//! client                            server
//! ClientHello (Initial)     ----->
//!                          (<-----  RetryHello, and the ClientHello again)
//!                           <-----  ServerHello (Initial)
//!                           <-----  EncryptedExtensions, Certificate, Finished (Handshake)
//! Finished (Handshake)      ----->
//!                           <-----  NewSessionTicket (1-RTT)
//! ```
//!
//! Every message has the type and 24-bit length of TLS. The ClientHello is a real one, so that whatever reads the real
//! one reads this one. Secrets and Finished values follow from a checksum over all messages so far.

use super::Checksum;
use crate::crypto::{Alert, Identity, Suite, TlsClientConfig, TlsOut, TlsServerConfig, TlsSession};
use crate::ids::{Level, Version};
use crate::protect::client_hello::{
    CLIENT_HELLO, CLIENT_HELLO_MAX, Cursor, EXT_ALPN, EXT_EARLY_DATA, EXT_SERVER_NAME, EXT_TRANSPORT_PARAMS,
    parse_client_hello,
};

const SERVER_HELLO: u8 = 2;
const NEW_SESSION_TICKET: u8 = 4;
const RETRY_HELLO: u8 = 6;
const ENCRYPTED_EXTENSIONS: u8 = 8;
const CERTIFICATE: u8 = 11;
const FINISHED: u8 = 20;

/// The padding extension (RFC 7685).
const EXT_PADDING: u16 = 21;

const UNEXPECTED_MESSAGE: u8 = 10;
const DECODE_ERROR: u8 = 50;
const DECRYPT_ERROR: u8 = 51;
const INTERNAL_ERROR: u8 = 80;
const MISSING_EXTENSION: u8 = 109;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The longest message that is collected.
const MESSAGE_MAX: usize = 128 * 1024;

type Out<'a> = &'a mut dyn FnMut(TlsOut<'_>);

/// Starts null client sessions; see the [module](super). **Insecure, for tests only.**
#[derive(Clone, Debug)]
pub struct NullTlsClient {
    /// Application protocols that are offered.
    pub alpn: Vec<Vec<u8>>,
    /// Stands for randomness.
    pub seed: u64,
    /// The ClientHello is padded to at least this length.
    pub hello_len: usize,
    /// Offers 0-RTT with these remembered transport parameters of the server.
    pub remembered: Option<Vec<u8>>,
    /// Refuses the server's certificate with this alert.
    pub refuse: Option<u8>,
}

impl Default for NullTlsClient {
    fn default() -> Self {
        Self { alpn: vec![b"null".to_vec()], seed: 1, hello_len: 0, remembered: None, refuse: None }
    }
}

/// Starts null server sessions; see the [module](super). **Insecure, for tests only.**
#[derive(Clone, Debug)]
pub struct NullTlsServer {
    /// Application protocols in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Stands for randomness.
    pub seed: u64,
    /// The suite that is chosen.
    pub suite: Suite,
    /// Length of the Certificate message's body.
    pub certificate_len: usize,
    /// Whether 0-RTT is accepted when it is offered.
    pub accept_early_data: bool,
    /// Asks for a second ClientHello first.
    pub retry: bool,
    /// How many tickets are sent at the end.
    pub tickets: usize,
    /// Refuses every client with this alert.
    pub refuse: Option<u8>,
}

impl Default for NullTlsServer {
    fn default() -> Self {
        Self {
            alpn: vec![b"null".to_vec()],
            seed: 2,
            suite: Suite::Aes128Gcm,
            certificate_len: 600,
            accept_early_data: false,
            retry: false,
            tickets: 2,
            refuse: None,
        }
    }
}

impl TlsClientConfig for NullTlsClient {
    fn start(&self, _: Version, server_name: &str, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert> {
        let random = Checksum::new(self.seed).bytes(server_name.as_bytes()).bytes(params).finish_32();
        Ok(Box::new(Client {
            config: self.clone(),
            server_name: server_name.to_owned(),
            params: params.to_vec(),
            random,
            retried: false,
            shared: Shared::new(),
            state: ClientState::Start,
            flight: Flight::default(),
        }))
    }
}

impl TlsServerConfig for NullTlsServer {
    fn start(&self, _: Version, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert> {
        Ok(Box::new(Server {
            config: self.clone(),
            params: params.to_vec(),
            retried: false,
            shared: Shared::new(),
            state: ServerState::ClientHello,
            identity: Identity::default(),
        }))
    }
}

/// What both ends keep.
struct Shared {
    /// Bytes of a message that is not complete yet.
    partial: Vec<u8>,
    /// Checksum over all messages so far, in both directions.
    transcript: Checksum,
    /// The level that the next bytes have to come at.
    expected: Level,
    /// Once failed, a session stays failed.
    failed: Option<Alert>,
}

impl Shared {
    const fn new() -> Self {
        Self { partial: Vec::new(), transcript: Checksum::new(0), expected: Level::Initial, failed: None }
    }

    /// Takes bytes in; messages come out of [`next`](Self::next).
    fn feed(&mut self, level: Level, bytes: &[u8]) -> Result<(), Alert> {
        if let Some(alert) = &self.failed {
            return Err(alert.clone());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if level != self.expected {
            return Err(alert(UNEXPECTED_MESSAGE, "handshake bytes at the wrong level"));
        }
        if self.partial.len() + bytes.len() > MESSAGE_MAX {
            return Err(alert(DECODE_ERROR, "a message is too long"));
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// The next complete message, header included.
    fn next(&mut self) -> Option<Vec<u8>> {
        let &[_, a, b, c, ..] = self.partial.as_slice() else { return None };
        let len = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
        (len <= self.partial.len()).then(|| self.partial.drain(..len).collect())
    }

    /// A secret that follows from everything said so far.
    fn secret(&self, label: &str) -> [u8; 32] {
        self.transcript.bytes(label.as_bytes()).finish_32()
    }

    /// Hands out both directions of a level.
    fn give_secrets(&self, level: Level, suite: Suite, out: Out<'_>) {
        let (client, server) = match level {
            Level::OneRtt => (self.secret("c ap"), self.secret("s ap")),
            _ => (self.secret("c hs"), self.secret("s hs")),
        };
        out(TlsOut::Secrets { level, suite, client: &client, server: &server });
    }

    /// Ends the session.
    fn fail(&mut self, result: Result<(), Alert>) -> Result<(), Alert> {
        if let Err(alert) = &result {
            self.failed = Some(alert.clone());
        }
        result
    }
}

enum ClientState {
    Start,
    ServerHello { early: bool },
    Flight { early: bool, suite: Suite },
    Done,
}

/// What the server's flight said before its Finished.
#[derive(Default)]
struct Flight {
    alpn: Vec<u8>,
    early: bool,
    params: Vec<u8>,
    certificate: Vec<u8>,
}

struct Client {
    config: NullTlsClient,
    server_name: String,
    params: Vec<u8>,
    random: [u8; 32],
    /// Whether the server asked for a second ClientHello.
    retried: bool,
    shared: Shared,
    state: ClientState,
    flight: Flight,
}

impl TlsSession for Client {
    fn rest(self: Box<Self>) -> Box<dyn TlsSession> {
        self
    }

    fn read(&mut self, level: Level, bytes: &[u8], out: &mut dyn FnMut(TlsOut<'_>)) -> Result<(), Alert> {
        let result = self.shared.feed(level, bytes).and_then(|()| self.run(out));
        self.shared.fail(result)
    }
}

impl Client {
    fn run(&mut self, out: Out<'_>) -> Result<(), Alert> {
        if let ClientState::Start = self.state {
            let early = self.config.remembered.is_some();
            self.say_hello(early, out)?;
            if let Some(remembered) = &self.config.remembered {
                out(TlsOut::RememberedParams(remembered));
                let client = self.shared.secret("c e");
                out(TlsOut::Secrets { level: Level::ZeroRtt, suite: Suite::Aes128Gcm, client: &client, server: &[] });
            }
            self.state = ClientState::ServerHello { early };
        }
        while let Some(message) = self.shared.next() {
            self.message(&message, out)?;
        }
        Ok(())
    }

    fn say_hello(&mut self, early: bool, out: Out<'_>) -> Result<(), Alert> {
        let hello = client_hello(&self.config, &self.random, &self.server_name, &self.params, early)?;
        self.shared.transcript = self.shared.transcript.bytes(&hello);
        out(TlsOut::Bytes(Level::Initial, &hello));
        Ok(())
    }

    fn message(&mut self, message: &[u8], out: Out<'_>) -> Result<(), Alert> {
        let (kind, body) = split(message)?;
        let before = self.shared.transcript;
        self.shared.transcript = before.bytes(message);
        match (&self.state, kind) {
            (ClientState::ServerHello { early }, RETRY_HELLO) if !self.retried => {
                self.retried = true;
                self.random[31] ^= 1;
                if *early {
                    out(TlsOut::EarlyData(false));
                }
                self.state = ClientState::ServerHello { early: false };
                self.say_hello(false, out)
            }
            (&ClientState::ServerHello { early }, SERVER_HELLO) => {
                let suite = suite_from(body)?;
                self.shared.give_secrets(Level::Handshake, suite, out);
                self.shared.expected = Level::Handshake;
                self.state = ClientState::Flight { early, suite };
                Ok(())
            }
            (ClientState::Flight { .. }, ENCRYPTED_EXTENSIONS) => self.encrypted_extensions(body),
            (ClientState::Flight { .. }, CERTIFICATE) => {
                self.flight.certificate = body.to_vec();
                match self.config.refuse {
                    Some(code) => Err(alert(code, "told to refuse the certificate")),
                    None => Ok(()),
                }
            }
            (&ClientState::Flight { early, suite }, FINISHED) => {
                check_finished(before, "server", body)?;
                self.finish(early, suite, out);
                Ok(())
            }
            (ClientState::Done, NEW_SESSION_TICKET) => Ok(()),
            _ => Err(alert(UNEXPECTED_MESSAGE, "a message that does not belong here")),
        }
    }

    fn encrypted_extensions(&mut self, body: &[u8]) -> Result<(), Alert> {
        let mut c = Cursor(body);
        let parsed = (|| Some((c.vector8()?, c.u8()?, c.vector16()?)))();
        let (alpn, early, params) = parsed.ok_or_else(|| alert(DECODE_ERROR, "malformed extensions"))?;
        if !self.config.alpn.iter().any(|a| a == alpn) {
            return Err(alert(NO_APPLICATION_PROTOCOL, "the server chose a protocol that was not offered"));
        }
        self.flight.alpn = alpn.to_vec();
        self.flight.early = early == 1;
        self.flight.params = params.to_vec();
        Ok(())
    }

    fn finish(&mut self, early: bool, suite: Suite, out: Out<'_>) {
        out(TlsOut::PeerParams(&self.flight.params));
        if early {
            out(TlsOut::EarlyData(self.flight.early));
        }
        let application = self.shared.transcript;
        let finished = finished(application, "client");
        out(TlsOut::Bytes(Level::Handshake, &finished));
        self.shared.give_secrets(Level::OneRtt, suite, out);
        out(TlsOut::Exporter(&self.shared.secret("exp")));
        self.shared.transcript = application.bytes(&finished);
        self.shared.expected = Level::OneRtt;
        self.state = ClientState::Done;
        let flight = core::mem::take(&mut self.flight);
        out(TlsOut::Complete(Identity {
            alpn: Some(flight.alpn),
            certificates: vec![flight.certificate],
            server_name: Some(self.server_name.clone()),
            suite: Some(suite),
            group: None,
            resumed: self.config.remembered.is_some(),
        }));
    }
}

enum ServerState {
    ClientHello,
    Finished,
    Done,
}

struct Server {
    config: NullTlsServer,
    params: Vec<u8>,
    retried: bool,
    shared: Shared,
    state: ServerState,
    identity: Identity,
}

impl TlsSession for Server {
    fn rest(self: Box<Self>) -> Box<dyn TlsSession> {
        self
    }

    fn read(&mut self, level: Level, bytes: &[u8], out: &mut dyn FnMut(TlsOut<'_>)) -> Result<(), Alert> {
        let result = self.shared.feed(level, bytes).and_then(|()| {
            while let Some(message) = self.shared.next() {
                self.message(&message, out)?;
            }
            Ok(())
        });
        self.shared.fail(result)
    }
}

impl Server {
    fn message(&mut self, message: &[u8], out: Out<'_>) -> Result<(), Alert> {
        let (kind, body) = split(message)?;
        let before = self.shared.transcript;
        self.shared.transcript = before.bytes(message);
        match (&self.state, kind) {
            (ServerState::ClientHello, CLIENT_HELLO) => self.client_hello(message, out),
            (ServerState::Finished, FINISHED) => {
                check_finished(before, "client", body)?;
                let mut tickets = Vec::new();
                for _ in 0..self.config.tickets {
                    push_message(&mut tickets, NEW_SESSION_TICKET, &self.shared.secret("ticket"));
                }
                if !tickets.is_empty() {
                    out(TlsOut::Bytes(Level::OneRtt, &tickets));
                }
                self.shared.expected = Level::OneRtt;
                self.state = ServerState::Done;
                out(TlsOut::Complete(core::mem::take(&mut self.identity)));
                Ok(())
            }
            _ => Err(alert(UNEXPECTED_MESSAGE, "a message that does not belong here")),
        }
    }

    fn client_hello(&mut self, message: &[u8], out: Out<'_>) -> Result<(), Alert> {
        let hello = match parse_client_hello(message) {
            Ok(Some(hello)) => hello,
            Ok(None) => return Err(alert(INTERNAL_ERROR, "an incomplete message was handed on")),
            Err(v) => return Err(alert(v.code.alert().unwrap_or(DECODE_ERROR), v.reason)),
        };
        if let Some(code) = self.config.refuse {
            return Err(alert(code, "told to refuse the client"));
        }
        let params = hello.transport_params.ok_or_else(|| alert(MISSING_EXTENSION, "no transport parameters"))?;
        let chosen = self.config.alpn.iter().find(|ours| hello.alpn.contains(ours)).cloned();
        let alpn = chosen.ok_or_else(|| alert(NO_APPLICATION_PROTOCOL, "no common application protocol"))?;
        if self.config.retry && !self.retried {
            self.retried = true;
            let mut retry = Vec::new();
            push_message(&mut retry, RETRY_HELLO, &[]);
            self.shared.transcript = self.shared.transcript.bytes(&retry);
            out(TlsOut::Bytes(Level::Initial, &retry));
            return Ok(());
        }
        out(TlsOut::PeerParams(params));
        let accepted = hello.early_data && self.config.accept_early_data;
        out(TlsOut::EarlyData(accepted));
        if accepted {
            let client = self.shared.secret("c e");
            out(TlsOut::Secrets { level: Level::ZeroRtt, suite: Suite::Aes128Gcm, client: &client, server: &[] });
        }
        let suite = self.config.suite;
        self.identity = Identity {
            alpn: Some(alpn.clone()),
            certificates: Vec::new(),
            server_name: hello.server_name.map(str::to_owned),
            suite: Some(suite),
            group: None,
            resumed: hello.early_data,
        };
        self.say_flight(&alpn, accepted, out);
        Ok(())
    }

    fn say_flight(&mut self, alpn: &[u8], accepted: bool, out: Out<'_>) {
        let suite = self.config.suite;
        let mut body = Checksum::new(self.config.seed).bytes(&self.shared.secret("s random")).finish_32().to_vec();
        body.extend(suite_code(suite).to_be_bytes());
        let mut hello = Vec::new();
        push_message(&mut hello, SERVER_HELLO, &body);
        self.shared.transcript = self.shared.transcript.bytes(&hello);
        out(TlsOut::Bytes(Level::Initial, &hello));
        self.shared.give_secrets(Level::Handshake, suite, out);
        let mut extensions = Vec::new();
        extensions.push(u8::try_from(alpn.len()).unwrap_or(0));
        extensions.extend_from_slice(alpn);
        extensions.push(u8::from(accepted));
        extensions.extend(u16::try_from(self.params.len()).unwrap_or(0).to_be_bytes());
        extensions.extend_from_slice(&self.params);
        let certificate = vec![0xc5; self.config.certificate_len];
        let mut flight = Vec::new();
        for (kind, body) in [(ENCRYPTED_EXTENSIONS, &extensions), (CERTIFICATE, &certificate)] {
            let from = flight.len();
            push_message(&mut flight, kind, body);
            self.shared.transcript = self.shared.transcript.bytes(&flight[from..]);
        }
        let finished = finished(self.shared.transcript, "server");
        self.shared.transcript = self.shared.transcript.bytes(&finished);
        flight.extend(finished);
        out(TlsOut::Bytes(Level::Handshake, &flight));
        self.shared.give_secrets(Level::OneRtt, suite, out);
        out(TlsOut::Exporter(&self.shared.secret("exp")));
        self.shared.expected = Level::Handshake;
        self.state = ServerState::Finished;
    }
}

fn alert(code: u8, reason: &str) -> Alert {
    Alert { code, reason: reason.to_owned() }
}

/// Type and body of a complete message.
fn split(message: &[u8]) -> Result<(u8, &[u8]), Alert> {
    match message {
        [kind, _, _, _, body @ ..] => Ok((*kind, body)),
        _ => Err(alert(DECODE_ERROR, "a message without a header")),
    }
}

fn push_message(to: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    to.extend_from_slice(&[kind, len[1], len[2], len[3]]);
    to.extend_from_slice(body);
}

fn finished(transcript: Checksum, who: &str) -> Vec<u8> {
    let mut message = Vec::new();
    push_message(&mut message, FINISHED, &transcript.bytes(who.as_bytes()).finish());
    message
}

fn check_finished(transcript: Checksum, who: &str, body: &[u8]) -> Result<(), Alert> {
    if transcript.bytes(who.as_bytes()).finish() == body {
        Ok(())
    } else {
        Err(alert(DECRYPT_ERROR, "the two ends saw different messages"))
    }
}

const fn suite_code(suite: Suite) -> u16 {
    match suite {
        Suite::Aes128Gcm => 0x1301,
        Suite::Aes256Gcm => 0x1302,
        Suite::ChaCha20Poly1305 => 0x1303,
    }
}

fn suite_from(server_hello: &[u8]) -> Result<Suite, Alert> {
    match server_hello.get(32..) {
        Some([0x13, 1]) => Ok(Suite::Aes128Gcm),
        Some([0x13, 2]) => Ok(Suite::Aes256Gcm),
        Some([0x13, 3]) => Ok(Suite::ChaCha20Poly1305),
        _ => Err(alert(DECODE_ERROR, "malformed ServerHello")),
    }
}

/// A ClientHello as real ones are, padded to `config.hello_len`.
fn client_hello(
    config: &NullTlsClient,
    random: &[u8; 32],
    server_name: &str,
    params: &[u8],
    early: bool,
) -> Result<Vec<u8>, Alert> {
    let too_long = || alert(INTERNAL_ERROR, "the ClientHello would be too long");
    let u16_of = |n: usize| u16::try_from(n).map(u16::to_be_bytes).map_err(|_| too_long());
    let mut ext = Vec::new();
    let mut push = |kind: u16, data: &[u8]| -> Result<(), Alert> {
        ext.extend(kind.to_be_bytes());
        ext.extend(u16_of(data.len())?);
        ext.extend_from_slice(data);
        Ok(())
    };
    let mut name = u16_of(server_name.len() + 3)?.to_vec();
    name.push(0);
    name.extend(u16_of(server_name.len())?);
    name.extend_from_slice(server_name.as_bytes());
    push(EXT_SERVER_NAME, &name)?;
    let mut protocols = Vec::new();
    for protocol in &config.alpn {
        protocols.push(u8::try_from(protocol.len()).map_err(|_| too_long())?);
        protocols.extend_from_slice(protocol);
    }
    let mut alpn = u16_of(protocols.len())?.to_vec();
    alpn.extend(protocols);
    push(EXT_ALPN, &alpn)?;
    push(EXT_TRANSPORT_PARAMS, params)?;
    if early {
        push(EXT_EARLY_DATA, &[])?;
    }
    // Header, version, random, session ID, three suites, compression, length of the extensions, padding's own header.
    let without_padding = 4 + 2 + 32 + 1 + 8 + 2 + 2 + ext.len();
    if config.hello_len > without_padding {
        let pad = vec![0; (config.hello_len - without_padding).saturating_sub(4)];
        ext.extend(EXT_PADDING.to_be_bytes());
        ext.extend(u16_of(pad.len())?);
        ext.extend(pad);
    }
    let mut body = vec![3, 3];
    body.extend_from_slice(random);
    body.extend_from_slice(&[0, 0, 6, 0x13, 1, 0x13, 2, 0x13, 3, 1, 0]);
    body.extend(u16_of(ext.len())?);
    body.extend(ext);
    let mut message = Vec::new();
    push_message(&mut message, CLIENT_HELLO, &body);
    if message.len() > CLIENT_HELLO_MAX { Err(too_long()) } else { Ok(message) }
}
