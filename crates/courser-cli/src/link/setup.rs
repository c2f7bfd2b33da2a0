//! Engines, sockets and workers as the flags want them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use courser::clock::Clock;
use courser::net::socket::{Socket, SocketConfig};
use courser::session::{self, Service as PortService, ServiceSetup};
use courser::worker::group;
use courser::worker::{Crossing, TurnLimits, Worker};
use courser::{ClientOptions, Steering};
use courser_core::cid::{SeatCids, ShortCids};
use courser_core::crypto::{Random, Suite};
use courser_core::engine::{
    Engine, EngineConfig, RetryPolicy, ServerConfig, SourceLimits, Ticket, TokenKeys, TokenLedger, UsedTokens,
};
use courser_tls::{
    ALL_GROUPS, ALL_SUITES, AwsLc, ClientConfig as TlsClient, ConfigError, Credentials, Group, KeyLogFile, Roots,
    ServerConfig as TlsServer, SystemRandom,
};

use super::drive::Dial;
use crate::args::common::TrustArgs;
use crate::failure::{Failure, Outcome};
use crate::identity::{self, Identity};
use crate::tuning::{Cipher, Tuning};

/// How much TLS offers.
#[derive(Clone, Debug, Default)]
pub struct TlsChoice {
    /// Application protocols, most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// Only X25519 for the key exchange, as the comparison's programs have it.
    pub x25519_only: bool,
    /// Where secrets are logged.
    pub key_log: Option<Arc<KeyLogFile>>,
    /// What becomes of tickets.
    pub tickets: Tickets,
}

/// What becomes of tickets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tickets {
    /// A client asks for none and uses none: every handshake is a full one.
    #[default]
    Unused,
    /// A client resumes with them.
    Resume,
    /// A client resumes and sends 0-RTT, a server takes it.
    EarlyData,
}

impl TlsChoice {
    /// One protocol; secrets go where `SSLKEYLOGFILE` says.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub fn of(alpn: &[u8]) -> Outcome<Self> {
        let path = std::env::var_os("SSLKEYLOGFILE").filter(|p| !p.is_empty());
        let key_log = path.as_deref().map(|p| key_log(Path::new(p))).transpose()?;
        Ok(Self { alpn: vec![alpn.to_vec()], key_log, ..Self::default() })
    }

    fn groups(&self) -> &'static [Group] {
        if self.x25519_only { &[Group::X25519] } else { &ALL_GROUPS }
    }
}

/// Opens a log of secrets.
///
/// # Errors
/// It cannot be opened.
pub fn key_log(path: &Path) -> Outcome<Arc<KeyLogFile>> {
    KeyLogFile::open(path).map(Arc::new).map_err(|e| Failure::writing(path, &e))
}

/// The chosen cipher suite first, then the others unless only it may be.
fn suites(tuning: &Tuning) -> Vec<Suite> {
    let first = match tuning.cipher {
        Cipher::Aes128 => Suite::Aes128Gcm,
        Cipher::Aes256 => Suite::Aes256Gcm,
        Cipher::Chacha20 => Suite::ChaCha20Poly1305,
    };
    let others = ALL_SUITES.into_iter().filter(|s| *s != first && !tuning.cipher_only);
    std::iter::once(first).chain(others).collect()
}

/// Whom a client believes.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Everybody.
    Anybody,
    /// Whom these certificates vouch for.
    Roots(Roots),
}

impl Trust {
    /// As the flags have it.
    ///
    /// # Errors
    /// A file that cannot be read or used, or a system without roots.
    pub fn from_args(args: &TrustArgs) -> Outcome<Self> {
        if args.insecure {
            return Ok(Self::Anybody);
        }
        let Some(path) = &args.ca else {
            return Roots::platform().map(Self::Roots).map_err(|e| local("looking for the system's roots", &e));
        };
        let unusable = |e: ConfigError| Failure::Unusable { path: path.clone(), why: e.to_string() };
        let add = |roots: Roots, der: &[u8]| roots.add_der(der).map_err(unusable);
        let found = identity::certificates(path)?;
        found.iter().try_fold(Roots::empty(), |roots, c| add(roots, c)).map(Self::Roots)
    }

    /// Exactly this certificate.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn only(der: &[u8]) -> Outcome<Self> {
        Roots::empty().add_der(der).map(Self::Roots).map_err(|e| local("reading a certificate", &e))
    }
}

fn local(what: &str, e: &ConfigError) -> Failure {
    Failure::Local { what: what.into(), why: e.to_string() }
}

/// How many servers a client keeps tickets of.
const REMEMBERED: usize = 64;

/// TLS of clients.
///
/// # Errors
/// What cannot be together.
pub fn tls_client(trust: &Trust, choice: &TlsChoice, tuning: &Tuning) -> Outcome<TlsClient> {
    let remembered = if choice.tickets == Tickets::Unused { 0 } else { REMEMBERED };
    let mut b = TlsClient::builder()
        .alpn(&choice.alpn)
        .suites(&suites(tuning))
        .groups(choice.groups())
        .remembered_servers(remembered)
        .early_data(choice.tickets == Tickets::EarlyData);
    b = match trust {
        Trust::Anybody => b.danger_accept_any_certificate(),
        Trust::Roots(roots) => b.roots(roots.clone()),
    };
    if let Some(log) = &choice.key_log {
        b = b.key_log(log.clone());
    }
    b.build().map_err(|e| local("setting up TLS", &e))
}

/// TLS of servers.
///
/// # Errors
/// A certificate and key that do not fit together.
pub fn tls_server(identity: &Identity, choice: &TlsChoice, tuning: &Tuning) -> Outcome<TlsServer> {
    let chain = identity.chain.iter().map(|c| c.to_vec()).collect();
    let key = identity.key.secret_der().to_vec();
    let credentials = Credentials::from_der(chain, key).map_err(|e| local("using the certificate", &e))?;
    let suites = if tuning.cipher_only { suites(tuning) } else { ALL_SUITES.to_vec() };
    let mut b =
        TlsServer::builder().certificate(credentials).alpn(&choice.alpn).suites(&suites).groups(choice.groups());
    b = b.early_data(choice.tickets == Tickets::EarlyData);
    if let Some(log) = &choice.key_log {
        b = b.key_log(log.clone());
    }
    b.build().map_err(|e| match (e, &identity.files) {
        // What was read file by file turns out not to belong together only here.
        (e, Some((_, key))) => Failure::Unusable { path: key.clone(), why: e.to_string() },
        (e, None) => local("setting up TLS", &e),
    })
}

fn engine_config(tuning: &Tuning, clock: Clock) -> EngineConfig {
    let mut config = EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new()));
    config.observer = tuning.qlog.as_ref().map(|q| q.observer(clock));
    config
}

fn worker(engine: Engine, socket: Socket, clock: Clock) -> Outcome<Worker<Engine>> {
    Worker::new(engine, socket, clock, TurnLimits::default())
        .map_err(|e| Failure::local("making a wake-up descriptor", &e))
}

fn socket_config(local: SocketAddr, tuning: &Tuning) -> SocketConfig {
    let mut config = SocketConfig::new(local);
    config.receive_buffer = tuning.socket_buffer;
    config.send_buffer = tuning.socket_buffer;
    config.offload = tuning.offload;
    config.busy_poll = tuning.busy_poll;
    config
}

fn socket(local: SocketAddr, tuning: &Tuning) -> io::Result<Socket> {
    Socket::bind(&socket_config(local, tuning))
}

/// The engine of an endpoint that takes no connections.
fn client_engine(tuning: &Tuning, clock: Clock) -> Engine {
    let mut config = engine_config(tuning, clock);
    config.cids = Box::new(ShortCids::default());
    Engine::new(config)
}

/// A worker for clients that may talk to all of `towards`.
///
/// # Errors
/// There is no socket to be had.
pub fn client(towards: &[SocketAddr], tuning: &Tuning) -> Outcome<Worker<Engine>> {
    let clock = Clock::start();
    worker(client_engine(tuning, clock), client_socket(towards, tuning)?, clock)
}

/// The same with ports; its only profile is the dial's.
///
/// # Errors
/// There is no socket to be had.
pub fn port_client(dial: &Dial<'_>, tuning: &Tuning) -> Outcome<Worker<PortService>> {
    let profile = ClientOptions::new(dial.tls.clone()).settings(dial.settings.clone());
    let socket = client_socket(dial.addrs, tuning)?;
    let clock = Clock::start();
    port_worker(client_engine(tuning, clock), socket, clock, ServiceSetup::client(vec![profile]))
}

fn port_worker(engine: Engine, socket: Socket, clock: Clock, setup: ServiceSetup) -> Outcome<Worker<PortService>> {
    session::worker(engine, socket, clock, setup).map_err(|e| Failure::local("making a wake-up descriptor", &e))
}

/// A socket over both families when there are both and the system has both.
fn client_socket(towards: &[SocketAddr], tuning: &Tuning) -> Outcome<Socket> {
    let v4 = towards.iter().find(|a| a.is_ipv4());
    let v6 = towards.iter().find(|a| a.is_ipv6());
    let any = |a: &SocketAddr| SocketConfig::towards(*a).local;
    let mut last = None;
    for at in v6.into_iter().chain(v4).map(any) {
        match socket(at, tuning) {
            Ok(s) => return Ok(s),
            Err(e) => last = Some(Failure::from_bind(at, &e)),
        }
    }
    Err(last.unwrap_or_else(|| Failure::Local { what: "opening a UDP socket".into(), why: "no address".into() }))
}

/// Which connections a server takes, and how.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// TLS.
    pub tls: &'a TlsServer,
    /// Transport.
    pub tuning: &'a Tuning,
    /// Address validation.
    pub retry: RetryPolicy,
    /// Workers that share the port; 0: as many as can run at once.
    pub workers: u16,
    /// How datagrams find them, as far as the system has that.
    pub steering: Steering,
}

impl<'a> Service<'a> {
    /// One worker that asks nobody for a proof of address.
    #[must_use]
    pub fn new(listen: SocketAddr, tls: &'a TlsServer, tuning: &'a Tuning) -> Self {
        Self { listen, tls, tuning, retry: RetryPolicy::Never, workers: 1, steering: Steering::default() }
    }

    /// What sources may leave unfinished. Beyond it they are asked for a proof of address, so that who asks nobody has no limit.
    #[must_use]
    pub fn sources(&self) -> Option<SourceLimits> {
        (self.retry != RetryPolicy::Never).then(SourceLimits::default)
    }
}

/// What workers of one port have in common: without a ledger a token would prove an address once to each of them.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<UsedTokens>>);

impl TokenLedger for Ledger {
    fn is_used(&mut self, ticket: &Ticket) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_used(ticket)
    }

    fn set_used(&mut self, ticket: Ticket, now_us: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set_used(ticket, now_us);
    }
}

/// A server's engine, its socket, and its place among the workers that share the port.
type Post = (Engine, Socket, Option<Crossing>);

/// As many engines and sockets as the service has workers.
fn posts(service: &Service<'_>, clock: Clock) -> Outcome<Vec<Post>> {
    let mut token_key = [0; 32];
    SystemRandom::new().fill(&mut token_key);
    let ledger = Ledger::default();
    let failed = |e| Failure::from_bind(service.listen, &e);
    let workers = group::workers(service.workers.into());
    let config = socket_config(service.listen, service.tuning);
    let places = group::bind(&config, workers, service.steering).map_err(failed)?.places(0, false);
    let mut made = Vec::with_capacity(places.len());
    for (socket, place) in places {
        let mut config = engine_config(service.tuning, clock);
        let mut server = ServerConfig::new(Box::new(service.tls.clone()), service.tuning.settings.clone());
        server.retry = service.retry;
        server.sources = service.sources();
        server.handshakes_max = server.handshakes_max.div_ceil(usize::from(workers));
        config.server = Some(server);
        // Tokens of one worker are read by another, so that all have to mean the same time.
        config.unix_time_at_zero = clock.unix_time_at_zero();
        config.token_keys = Some(TokenKeys::new(token_key));
        config.token_ledger = Some(Box::new(ledger.clone()));
        if workers > 1 {
            config.cids = Box::new(SeatCids::random(place.seat()));
        }
        // A worker answers only for connection IDs that name it; and what it says of others, nobody believes.
        //= rfc9000#21.11-2
        config.reset_key = None;
        made.push((Engine::new(config), socket, (workers > 1).then_some(place)));
    }
    Ok(made)
}

/// The workers of a service.
///
/// # Errors
/// The port cannot be had.
pub fn servers(service: &Service<'_>) -> Outcome<Vec<Worker<Engine>>> {
    let clock = Clock::start();
    let at = |(engine, socket, place): Post| {
        let worker = worker(engine, socket, clock)?;
        Ok(match place {
            Some(place) => worker.at(place),
            None => worker,
        })
    };
    posts(service, clock)?.into_iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use courser_core::engine::{Meta, Train};
    use courser_core::ids::Ecn;
    use courser_core::time::Instant;

    use super::*;

    #[test]
    fn the_chosen_cipher_is_offered_first_or_alone() {
        let mut t = Tuning { cipher: Cipher::Chacha20, ..Tuning::default() };
        assert_eq!(suites(&t), [Suite::ChaCha20Poly1305, Suite::Aes128Gcm, Suite::Aes256Gcm]);
        t.cipher_only = true;
        assert_eq!(suites(&t), [Suite::ChaCha20Poly1305]);
    }

    #[test]
    fn a_key_of_another_certificate_is_told_with_its_file() {
        let (one, other) = (courser::certs::Throwaway::local().unwrap(), courser::certs::Throwaway::local().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, one.certificate_pem()).unwrap();
        std::fs::write(&key, other.key_pem()).unwrap();
        let id = Identity::from_files(&cert, &key).unwrap();
        let choice = TlsChoice { alpn: vec![b"x".to_vec()], ..TlsChoice::default() };
        let e = tls_server(&id, &choice, &Tuning::default()).unwrap_err();
        assert_eq!(e.code(), 5);
        assert!(e.to_string().contains("key.pem"), "{e}");
    }

    #[test]
    fn a_busy_port_is_told() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let id = Identity::throwaway().unwrap();
        let (choice, tuning) = (TlsChoice { alpn: vec![b"x".to_vec()], ..TlsChoice::default() }, Tuning::default());
        let tls = tls_server(&id, &choice, &tuning).unwrap();
        let listen = taken.local_addr().unwrap();
        let service = Service::new(listen, &tls, &tuning);
        let e = servers(&service).err().unwrap();
        assert_eq!(e, Failure::PortBusy { addr: listen });
    }

    #[test]
    fn several_workers_share_one_port() {
        let id = Identity::throwaway().unwrap();
        let (choice, tuning) = (TlsChoice { alpn: vec![b"x".to_vec()], ..TlsChoice::default() }, Tuning::default());
        let tls = tls_server(&id, &choice, &tuning).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let service = Service { workers: 3, ..Service::new(listen, &tls, &tuning) };
        let made = servers(&service).unwrap();
        let ports: std::collections::HashSet<_> = made.iter().map(|w| w.socket().local_addr()).collect();
        assert_eq!((made.len(), ports.len()), (3, 1));
    }

    #[test]
    fn no_worker_resets_a_connection_of_another() {
        //= rfc9000#21.11-2 type=test
        let id = Identity::throwaway().unwrap();
        let (choice, tuning) = (TlsChoice { alpn: vec![b"x".to_vec()], ..TlsChoice::default() }, Tuning::default());
        let tls = tls_server(&id, &choice, &tuning).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let service = Service { workers: 3, ..Service::new(listen, &tls, &tuning) };
        // A packet of a connection that none of them has: each answers with a token of its own for that connection ID.
        let now = Instant::from_micros(1_000_000);
        let token = |worker: Worker<Engine>| {
            let mut engine = worker.into_machine();
            let meta = Meta { local: None, remote: listen, ecn: Ecn::NotEct, stride: 60 };
            engine.receive(now, &meta, &mut [0x41; 60]);
            let mut train = Train::new();
            engine.fill(now, &mut train).expect("a stateless reset");
            train.bytes()[train.len() - 16..].to_vec()
        };
        let tokens: std::collections::HashSet<_> = servers(&service).unwrap().into_iter().map(token).collect();
        assert_eq!(tokens.len(), 3);
    }
}
