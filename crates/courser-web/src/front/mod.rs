//! A server: its sockets, its certificates, and its operation from beginning to end.
//!
//! ```text
//! sockets     bound here or given by a service manager    tls         certificates by name
//! tcp         HTTP/1.1 and HTTP/2                         stalled     clients that take nothing of what TCP has for them
//! quic        HTTP/3
//! privileges  becoming another user                       notify      telling a service manager
//! figures     for Prometheus                              succession  the process that takes this one's place
//! secret      what outlives a crash
//! ```
//!
//! The beginning is in the order in which things can go wrong: what is configured is opened, addresses are bound, then
//! privileges are dropped; only then is anybody answered. [`Order`]s come in from whoever operates it. A drain lets requests
//! under way go on for a while; a second one, or an end, closes what is left.

pub mod figures;
pub mod notify;
pub mod privileges;
pub mod quic;
mod secret;
pub mod sockets;
pub mod stalled;
pub mod succession;
pub mod tcp;
pub mod tls;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use courser::aio::Endpoint;
use courser::certs::Fingerprint;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::app::{App, Sites};
use crate::config::Config;
use crate::error::WebError;
use crate::metrics;

use notify::{Manager, State};
use quic::Quic;
use sockets::{Inherited, Listening, Sockets};
use succession::Succession;
use tcp::Shared;
use tls::Identity;

/// How long an end at once waits for what is over to be counted as such.
const MOMENT: Duration = Duration::from_millis(100);
/// How often it is looked whether the last connection has gone.
const LOOK: Duration = Duration::from_millis(10);

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everybody is let in.
    Serving,
    /// Nobody new; requests under way go on.
    Draining,
    /// Everything is closed.
    Over,
}

/// What a server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Give all sockets to a process that takes this one's place, and end when the requests under way have.
    HandOver,
    /// End when the requests under way have, or the time is over; the second time at once.
    Drain,
    /// End now.
    End,
    /// Read configuration and certificates again.
    Reload,
}

/// What a server has to tell its operator.
#[derive(Debug)]
pub enum News<'a> {
    /// Whoever comes is answered from now on.
    Serving,
    /// The process of that number has the sockets; this one ends when its last request has.
    Succeeded(u32),
    /// Nobody took the sockets; everything is as before.
    NotSucceeded(&'a WebError),
    /// New requests find the configuration that was just read.
    Reloaded,
    /// The configuration that was just read is not taken; everything is as before.
    NotReloaded(&'a WebError),
    /// Something counts only when the server begins anew.
    NeedsRestart(&'static str),
    /// Nobody new is let in, and requests may go on for so long.
    Draining(Duration),
    /// The time was over; what was left is closed.
    CutOff,
}

/// Finds somebody who takes the sockets, and waits until he serves; his number. May block.
pub type Successor = dyn Fn(Succession) -> Result<u32, WebError> + Send + Sync;

/// Where orders come from.
pub type Orders = mpsc::UnboundedReceiver<Order>;

/// What runs while a server serves.
#[derive(Default)]
struct Tasks {
    /// They accept connections until the end begins; connections are counted.
    tcp: JoinSet<()>,
    /// Each ends with its last connection.
    quic: JoinSet<()>,
    /// Shows figures.
    figures: JoinSet<()>,
}

/// A server whose addresses are bound.
#[derive(Debug)]
pub struct Server {
    config: Config,
    app: Arc<App>,
    identity: Identity,
    listening: Vec<Listening>,
    quic: Vec<Quic>,
    /// The same ports while they are served.
    ports: Vec<Endpoint>,
    figures: Option<Listening>,
    manager: Manager,
}

/// Opens what a configuration names, and closes it again: folders, certificates, users. Binds nothing.
///
/// # Errors
/// What is missing.
pub fn check(config: &Config) -> Result<(), WebError> {
    config.check()?;
    privileges::find(&config.server)?;
    Sites::open(config)?;
    Identity::load(config).map(drop)
}

impl Server {
    /// Opens what the configuration names, binds its addresses (or takes those of a service manager), and drops
    /// privileges.
    ///
    /// # Errors
    /// What is missing.
    pub fn bind(config: Config, inherited: Inherited, manager: Manager) -> Result<Self, WebError> {
        let user = privileges::find(&config.server)?;
        let app = App::open(&config)?;
        let identity = Identity::load(&config)?;
        let Sockets { tcp: listening, udp, figures } = inherited.or_bind(&config.server)?;
        let quic: Vec<_> = udp.into_iter().map(|udp| Quic::bind(udp, &identity, &config)).collect::<Result<_, _>>()?;
        app.offer_quic(quic.iter().map(|quic| quic.address().port()));
        if let Some(user) = user {
            privileges::become_user(&user)?;
        }
        let ports = quic.iter().map(|quic| quic.endpoint().clone()).collect();
        Ok(Self { config, app, identity, listening, quic, ports, figures, manager })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listening.iter().map(|listening| listening.address).collect()
    }

    /// Where its figures are.
    #[must_use]
    pub fn figures_address(&self) -> Option<SocketAddr> {
        self.figures.as_ref().map(|listening| listening.address)
    }

    /// The fingerprint of a certificate that was made on the spot.
    #[must_use]
    pub fn throwaway(&self) -> Option<Fingerprint> {
        self.identity.throwaway()
    }

    /// What answers.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Serves until it is told to end; whether all requests under way had ended by then. `again` reads the configuration
    /// anew, `give` finds a successor, `tell` hears what happens.
    ///
    /// # Errors
    /// It cannot begin.
    pub async fn serve(
        mut self,
        mut orders: Orders,
        again: impl Fn() -> Result<Config, WebError>,
        give: Arc<Successor>,
        tell: impl Fn(News<'_>),
    ) -> Result<bool, WebError> {
        let (phase, heard) = watch::channel(Phase::Serving);
        let mut tasks = self.begin(&heard)?;
        self.manager.tell(State::Ready);
        tell(News::Serving);
        let limit = loop {
            match orders.recv().await {
                Some(Order::Reload) => self.reload(&again, &tell),
                Some(Order::HandOver) => match self.hand_over(&give).await {
                    Ok(successor) => {
                        self.manager.tell(State::Succeeded(successor));
                        tell(News::Succeeded(successor));
                        // Who asks for figures wants those of the server that goes on.
                        tasks.figures.abort_all();
                        break None;
                    }
                    Err(e) => tell(News::NotSucceeded(&e)),
                },
                Some(Order::Drain) if !self.config.server.drain.is_zero() => {
                    self.manager.tell(State::Stopping);
                    break Some(self.config.server.drain);
                }
                Some(Order::Drain | Order::End) | None => {
                    self.manager.tell(State::Stopping);
                    let complete = self.is_done().await;
                    self.end(&phase, tasks).await;
                    return Ok(complete);
                }
            }
        };
        self.listening.clear();
        let _ = phase.send(Phase::Draining);
        let complete = self.drained(limit, &mut tasks, &mut orders, &tell).await;
        if !complete {
            tell(News::CutOff);
        }
        self.end(&phase, tasks).await;
        Ok(complete)
    }

    /// Answers whoever comes.
    fn begin(&mut self, heard: &watch::Receiver<Phase>) -> Result<Tasks, WebError> {
        let places = Arc::new(Semaphore::new(self.config.limits.connections.min(Semaphore::MAX_PERMITS)));
        let shared = Shared {
            app: Arc::clone(&self.app),
            tls: TlsAcceptor::from(self.identity.tcp()?),
            limits: self.config.limits.clone(),
            places,
            phase: heard.clone(),
        };
        let mut tasks = Tasks::default();
        for listening in &self.listening {
            tasks.tcp.spawn(tcp::accept(Arc::clone(&listening.socket), shared.clone()));
        }
        for quic in self.quic.drain(..) {
            tasks.quic.spawn(quic.serve(Arc::clone(&self.app), heard.clone()));
        }
        if let Some(figures) = &self.figures {
            let (app, ports) = (Arc::clone(&self.app), self.ports.clone());
            let serve = figures::serve(Arc::clone(&figures.socket), app, ports, heard.clone());
            tasks.figures.spawn(serve);
        }
        Ok(tasks)
    }

    /// Gives the sockets to a successor. When there is none this server has them still: what was handed over comes back by
    /// itself.
    async fn hand_over(&self, give: &Arc<Successor>) -> Result<u32, WebError> {
        let failed = |why: String| WebError::System { what: "handing the sockets over", why };
        let copy = |at: &Listening| Ok(std::net::TcpListener::from(at.socket.as_fd().try_clone_to_owned()?));
        let copied = |copies: std::io::Result<_>| copies.map_err(|e: std::io::Error| failed(e.to_string()));
        let mut all = Succession {
            tcp: copied(self.listening.iter().map(copy).collect())?,
            figures: self.figures.as_ref().map(copy).transpose().map_err(|e| failed(e.to_string()))?,
            quic: Vec::new(),
        };
        for port in &self.ports {
            all.quic.push(port.hand_over().await.map_err(|e| failed(e.to_string()))?);
        }
        let give = Arc::clone(give);
        tokio::task::spawn_blocking(move || give(all)).await.unwrap_or_else(|e| Err(failed(e.to_string())))
    }

    /// Whether no connection over TCP is left.
    fn is_idle(&self) -> bool {
        self.app.metrics.connections.load(std::sync::atomic::Ordering::Relaxed) == 0
    }

    /// Whether an end at once cuts nothing off. What both of its sides know to be over is counted a moment later.
    async fn is_done(&self) -> bool {
        let until = Instant::now() + MOMENT;
        while self.app.metrics.is_busy() && Instant::now() < until {
            sleep(LOOK).await;
        }
        !self.app.metrics.is_busy()
    }

    /// Waits until the last connection has gone, but not longer than for that time, nor past another order to end. Without a
    /// limit the first such order sets one.
    async fn drained(
        &self,
        limit: Option<Duration>,
        tasks: &mut Tasks,
        orders: &mut Orders,
        tell: &impl Fn(News<'_>),
    ) -> bool {
        let until = |limit| {
            tell(News::Draining(limit));
            Instant::now() + limit
        };
        let mut until_then = limit.map(until);
        let mut asked = true;
        while !(tasks.tcp.is_empty() && self.is_idle() && tasks.quic.is_empty()) {
            let over = async {
                match until_then {
                    Some(then) => sleep_until(then).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(LOOK) => {}
                Some(_) = tasks.quic.join_next() => {}
                Some(_) = tasks.tcp.join_next() => {}
                () = over => return !self.app.metrics.is_busy(),
                order = orders.recv(), if asked => match order {
                    Some(Order::Drain) if until_then.is_none() && !self.config.server.drain.is_zero() => {
                        until_then = Some(until(self.config.server.drain));
                    }
                    Some(Order::Drain | Order::End) => return !self.app.metrics.is_busy(),
                    Some(Order::HandOver) => {
                        let why = "this server ends".into();
                        tell(News::NotSucceeded(&WebError::System { what: "handing the sockets over", why }));
                    }
                    Some(Order::Reload) => {}
                    None => asked = false,
                },
            }
        }
        true
    }

    /// Closes everything and gives tasks a moment to notice.
    async fn end(&self, phase: &watch::Sender<Phase>, mut tasks: Tasks) {
        let _ = phase.send(Phase::Over);
        let all = async {
            while tasks.tcp.join_next().await.is_some() {}
            while tasks.quic.join_next().await.is_some() {}
            while tasks.figures.join_next().await.is_some() {}
            while !self.is_idle() {
                sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
        self.app.log().flush();
    }

    fn reload(&mut self, again: &impl Fn() -> Result<Config, WebError>, tell: &impl Fn(News<'_>)) {
        self.manager.tell(State::Reloading);
        match again().and_then(|config| self.take(config, tell)) {
            Ok(()) => {
                metrics::add(&self.app.metrics.reloads);
                tell(News::Reloaded);
            }
            Err(e) => {
                metrics::add(&self.app.metrics.reloads_failed);
                tell(News::NotReloaded(&e));
            }
        }
        self.manager.tell(State::Ready);
    }

    /// Everything is opened before anything is replaced.
    fn take(&mut self, config: Config, tell: &impl Fn(News<'_>)) -> Result<(), WebError> {
        config.check()?;
        let sites = Sites::open(&config)?;
        let certificates = self.identity.prepare(&config)?;
        self.app.log().reopen(&config.log)?;
        self.identity.replace(&certificates)?;
        self.app.replace(sites);
        let (old, new) = (&self.config.server, &config.server);
        for (same, what) in [
            (old.listen == new.listen, "server.listen"),
            (old.metrics == new.metrics, "server.metrics"),
            (old.user == new.user && old.group == new.group, "server.user"),
            (old.http3 == new.http3, "server.http3"),
            (self.config.limits == config.limits, "limits"),
        ] {
            if !same {
                tell(News::NeedsRestart(what));
            }
        }
        // What needs a restart is still as it was, so that the next reload says so again.
        let Config { server: before, limits, .. } = self.config.clone();
        self.config = config;
        self.config.limits = limits;
        let server = &mut self.config.server;
        (server.listen, server.metrics, server.http3) = (before.listen, before.metrics, before.http3);
        (server.user, server.group) = (before.user, before.group);
        Ok(())
    }
}
