//! Making an application's endpoints.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use courser::Settings;
use courser::core::config::Congestion;
use courser::qlog::{Qlog, QlogConfig};
use courser::session::{Endpoint, Generations, Options, SessionRow};
use courser::tls::{CertificateStore, Certificates, ClientConfig, Credentials, Roots, ServerConfig};
use courser::{ClientOptions, EndpointError, ServerOptions};
use courser_session::control::{Fault, Open, Profile, Protocol, Role, Trust};
use courser_session::doorbell::Bell;
use courser_session::port::{EventBell, Offer, PortSetup, SharedSetup, ThreadPort};
use courser_session::stack::Refused;

use super::config::{Rule, may_listen};
use super::heritage::Heritage;
use super::{Who, refused};
use crate::plain::{Plain, PlainSetup};

/// Application protocol of those that name none.
pub(super) const ALPN: &[u8] = b"courser";

/// The workers of an endpoint.
pub(super) enum Workers {
    Quic(Endpoint),
    Plain(PlainWorker),
}

/// The worker of TCP and UDP sessions. When it ends, its number's later workers know which handles it gave out.
pub(super) struct PlainWorker {
    /// `None` only while it ends.
    plain: Option<Plain>,
    generations: Generations,
}

impl PlainWorker {
    fn get(&self) -> &Plain {
        self.plain.as_ref().expect("it is taken out only by the drop")
    }
}

impl Drop for PlainWorker {
    fn drop(&mut self) {
        if let Some(plain) = self.plain.take() {
            self.generations.reached(plain.stop());
        }
    }
}

impl Workers {
    /// A port of that worker, whose application is in this process.
    pub(super) fn attach(&self, worker: usize, setup: PortSetup, also: Option<Arc<dyn Bell>>) -> Option<ThreadPort> {
        match self {
            Self::Quic(endpoint) => endpoint.attach_with(worker, setup, also),
            Self::Plain(plain) => (worker == 0).then(|| plain.get().attach_with(setup, also)),
        }
    }

    /// Their sessions, at most so many of each.
    pub(super) fn sessions(&self, most: usize) -> Vec<SessionRow> {
        match self {
            Self::Quic(endpoint) => endpoint.sessions(most),
            Self::Plain(plain) => plain.get().sessions(most),
        }
    }

    /// The socket that listens for TCP there.
    pub(super) fn tcp_listener(&self, at: SocketAddr) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Quic(_) => None,
            Self::Plain(plain) => plain.get().listener(at),
        }
    }

    /// A port of that worker, whose application is in another process.
    pub(super) fn attach_shared(&self, worker: usize, setup: SharedSetup, application: EventBell) -> io::Result<Offer> {
        match self {
            Self::Quic(endpoint) => endpoint.attach_shared(worker, setup, application),
            Self::Plain(plain) => plain.get().attach_shared(setup, application),
        }
    }
}

/// What an endpoint is made from.
pub(super) struct Recipe<'a> {
    pub(super) what: &'a Open,
    /// Those that the profile names, in its order.
    pub(super) certificates: Vec<Arc<Credentials>>,
    pub(super) sessions_max: u32,
    pub(super) numbers: (u8, Vec<Generations>),
    pub(super) trace: Option<&'a Path>,
    /// Where whom may listen, and the application's user.
    pub(super) rules: (&'a [Rule], Option<u32>),
    /// What the application may have had elsewhere.
    pub(super) heritage: (&'a Arc<Heritage>, Who),
}

impl Recipe<'_> {
    /// Binds the sockets and starts the workers; where they are bound.
    pub(super) fn make(self) -> Result<(Workers, SocketAddr), Refused> {
        match (self.what.protocol, self.what.role) {
            (Protocol::Quic, role) => {
                let endpoint = match role {
                    Role::Listen(local) => self.listener(local)?,
                    Role::Dial(local) => self.dialler(local)?,
                };
                let local = endpoint.local_addr();
                Ok((Workers::Quic(endpoint), local))
            }
            (Protocol::Tcp | Protocol::Udp, _) => self.plain(),
        }
    }

    fn listener(self, local: SocketAddr) -> Result<Endpoint, Refused> {
        let profile = &self.what.profile;
        let mut tls = ServerConfig::builder().alpn(alpn(profile));
        match self.certificates.as_slice() {
            [] => {
                let why = "a QUIC listener needs a certificate; add one with its key before binding";
                return Err(refused(Fault::Certificate, why));
            }
            [only] => tls = tls.certificate(Credentials::clone(only)),
            [first, more @ ..] => {
                let mut all = Certificates::new(Credentials::clone(first));
                for credentials in more {
                    for name in names(credentials) {
                        all = all.named(&name, Credentials::clone(credentials));
                    }
                }
                let store = CertificateStore::new(&all).map_err(|e| refused(Fault::Certificate, &e.to_string()))?;
                tls = tls.certificates(&store);
            }
        }
        if let Trust::Roots(pem) = &profile.trust {
            tls = tls.require_client_certificates(roots(pem)?);
        }
        let tls = tls.build().map_err(|e| refused(Fault::Certificate, &e.to_string()))?;
        let workers = usize::from(profile.workers.unwrap_or(1).max(1));
        // A program that is busy must not keep its clients' handshakes waiting; those that it has no room for it turns away.
        let mut options = ServerOptions::new(tls).settings(settings(profile)?).workers(workers).ask(false);
        options.qlog = self.qlog()?;
        let (heritage, who) = self.heritage;
        let stays = |_| {
            let why = "services before this one hold the port, with connections; it comes when they have ended";
            refused(Fault::Address, why)
        };
        let Some(port) = heritage.port(who, local).map_err(stays)? else {
            return self.start(Options::server(local, options));
        };
        if port.workers() != workers {
            let why = format!("the program had {} workers there; ask for as many", port.workers());
            return Err(refused(Fault::Address, &why));
        }
        let options = self.numbered(Options::server(local, options));
        Endpoint::take_over(port, options).map_err(|e| refused(Fault::System, &e.to_string()))
    }

    fn numbered(self, options: Options) -> Options {
        let (first, generations) = self.numbers;
        options.sessions_max(self.sessions_max).worker_numbers(first, generations)
    }

    fn dialler(self, local: Option<SocketAddr>) -> Result<Endpoint, Refused> {
        let profile = &self.what.profile;
        let mut tls = ClientConfig::builder().alpn(alpn(profile));
        tls = match &profile.trust {
            Trust::System => tls.platform_roots().map_err(|e| refused(Fault::System, &e.to_string()))?,
            Trust::Roots(pem) => tls.roots(roots(pem)?),
            Trust::Anybody => tls.danger_accept_any_certificate(),
        };
        if let Some(credentials) = self.certificates.first() {
            tls = tls.certificate(Credentials::clone(credentials));
        }
        let tls = tls.build().map_err(|e| refused(Fault::Certificate, &e.to_string()))?;
        let mut options = ClientOptions::new(tls).settings(settings(profile)?);
        options.local = local;
        options.qlog = self.qlog()?;
        self.start(Options::client(options))
    }

    fn start(self, options: Options) -> Result<Endpoint, Refused> {
        Endpoint::start(self.numbered(options)).map_err(|e| match &e {
            EndpointError::Bind(..) => refused(Fault::Address, &e.to_string()),
            _ => refused(Fault::System, &e.to_string()),
        })
    }

    /// The worker of the application's TCP and UDP sessions. It is bound nowhere: each listener and each connection has a socket
    /// of its own, and listeners are permitted one by one.
    fn plain(self) -> Result<(Workers, SocketAddr), Refused> {
        let (worker, mut generations) = self.numbers;
        let generations = generations.pop().unwrap_or_default();
        let (rules, user) = self.rules;
        let (heritage, who) = (Arc::clone(self.heritage.0), self.heritage.1);
        let (rules, first_generation) = (rules.to_vec(), generations.highest());
        let allowed = move |protocol, at| may_listen(&rules, user, protocol, at);
        let setup = PlainSetup {
            worker,
            first_generation,
            sessions_max: self.sessions_max,
            allowed: Some(Arc::new(allowed)),
            inherits: Some(Arc::new(move |at| heritage.socket(who, at))),
            ..PlainSetup::default()
        };
        let failed = |e: io::Error| {
            refused(Fault::System, &format!("no worker: {e}; see the limits of descriptors and threads"))
        };
        let plain = Some(Plain::start(setup).map_err(failed)?);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok((Workers::Plain(PlainWorker { plain, generations }), nowhere))
    }

    fn qlog(&self) -> Result<Option<Qlog>, Refused> {
        let Some(folder) = self.trace else { return Ok(None) };
        let failed = |e: io::Error| refused(Fault::System, &format!("cannot trace into {}: {e}", folder.display()));
        Qlog::open(QlogConfig::new(folder)).map(Some).map_err(failed)
    }
}

fn alpn(profile: &Profile) -> Vec<Vec<u8>> {
    if profile.alpn.is_empty() { vec![ALPN.to_vec()] } else { profile.alpn.clone() }
}

fn roots(pem: &[u8]) -> Result<Roots, Refused> {
    Roots::empty().add_pem(pem).map_err(|e| refused(Fault::Certificate, &e.to_string()))
}

/// The names in a certificate, for which it is shown to clients that ask for them.
fn names(credentials: &Credentials) -> Vec<String> {
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
    let Ok((_, certificate)) = X509Certificate::from_der(credentials.leaf()) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

fn settings(profile: &Profile) -> Result<Settings, Refused> {
    let mut settings = Settings::default();
    if let Some(ms) = profile.idle_timeout_ms {
        settings.idle_timeout = Duration::from_millis(ms);
    }
    settings.keep_alive = profile.keep_alive_ms.map(Duration::from_millis);
    if !profile.datagrams {
        settings.max_datagram_frame = 0;
    }
    if let Some(streams) = profile.streams {
        (settings.max_streams_bidi, settings.max_streams_uni) = (streams, streams);
    }
    if let Some(name) = &profile.congestion {
        settings.congestion = match name.as_str() {
            "cubic" => Congestion::Cubic,
            "bbr" => Congestion::Bbr,
            "adaptive" => Congestion::ADAPTIVE,
            _ => {
                let why = format!("there is no congestion control {name:?}; say cubic, bbr or adaptive");
                return Err(refused(Fault::Unknown, &why));
            }
        };
    }
    settings.validate().map_err(|e| refused(Fault::Malformed, &e.to_string()))?;
    Ok(settings)
}
