//! Applications of one's own over a simulated network.
//!
//! An [`Application`] stands where a program without sockets stands: it has an engine of `courser-core`, hears events and calls
//! the engine's functions. What it does here it does unchanged behind real sockets; only who carries datagrams differs. An
//! [`EngineHost`] puts one of them into a [`World`](crate::World), with a network that one chooses around it.
//!
//! A run depends on its seed alone as long as the application does: it must not read a clock or take random numbers from
//! anywhere but [`Turn::now`] and a generator that was seeded ([`World::rng`](crate::World::rng)), nor walk over maps whose
//! order is drawn.
//!
//! ```
//! use courser_core::engine::Event;
//! use courser_core::ids::{ConnKey, Dir, StreamId};
//! use courser_core::stream::{Read, StreamEvent};
//! use courser_sim::quic::{Application, EngineHost, Turn};
//! use courser_sim::{Duplex, LinkConfig, addr, point_to_point};
//!
//! /// Sends back what comes.
//! struct Echo;
//! impl Application for Echo {
//!     fn event(&mut self, turn: &mut Turn<'_>, key: ConnKey, event: Event) {
//!         let Event::Stream(StreamEvent::Opened { dir } ) = event else { return };
//!         while let Ok(Some(stream)) = turn.engine.accept_stream(key, dir) {
//!             turn.engine.write(key, stream, b"pong").unwrap();
//!             turn.engine.finish(key, stream).unwrap();
//!         }
//!     }
//! }
//!
//! /// Asks once, and notes when the answer came.
//! struct Ask(Option<u64>);
//! impl Application for Ask {
//!     fn wake(&mut self, turn: &mut Turn<'_>) {
//!         turn.connect(addr::server(0)).unwrap();
//!     }
//!     fn event(&mut self, turn: &mut Turn<'_>, key: ConnKey, event: Event) {
//!         match event {
//!             Event::Connected => {
//!                 let stream = turn.engine.open_stream(key, Dir::Bi).unwrap().unwrap();
//!                 turn.engine.write(key, stream, b"ping").unwrap();
//!                 turn.engine.finish(key, stream).unwrap();
//!             }
//!             Event::Stream(StreamEvent::Readable(stream)) => {
//!                 let mut answer = [0; 16];
//!                 if turn.engine.read(key, stream, &mut answer) == Ok(Read::Bytes(4)) {
//!                     assert_eq!(&answer[..4], b"pong");
//!                     self.0 = Some(turn.now_us);
//!                 }
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//!
//! let link = Duplex::symmetric(LinkConfig::new().delay_us(10_000));
//! let (client, server) = (EngineHost::client(addr::client(0), 1, Ask(None)), EngineHost::server(addr::server(0), 1, Echo));
//! let mut net = point_to_point(1, client, server, &link);
//! net.world.run_until(5_000_000)?;
//! assert_eq!(net.world.host(net.a).app.0, Some(40_000), "two round trips");
//! # Ok::<(), courser_sim::Stuck>(())
//! ```

use std::net::SocketAddr;

use courser_core::config::Settings;
use courser_core::crypto::{Alert, TlsClientConfig};
use courser_core::engine::{Connect, Engine, EngineConfig, Event, ServerConfig, Train};
use courser_core::ids::ConnKey;
use courser_core::protect::null::{NullTlsClient, NullTlsServer};
use courser_core::time::Instant;

use super::host::{deliver, engine_deadline, put};
use super::{Provider, QuicHost};
use crate::datagram::Datagram;
use crate::host::{Host, Outbox};

/// Rounds of one poll; an application that makes more of them at one time is a loop without end.
const ROUNDS_MAX: usize = 1_000;

/// What an application has at hand while it is called.
pub struct Turn<'a> {
    /// The engine of its host.
    pub engine: &'a mut Engine,
    /// The time as the engine has it.
    pub now: Instant,
    /// The time of the world, in microseconds.
    pub now_us: u64,
    tls: &'a dyn TlsClientConfig,
    name: &'a str,
    settings: &'a Settings,
}

impl Turn<'_> {
    /// Begins a connection with the host's settings and TLS. Nothing leaves before the call of the application returns.
    ///
    /// # Errors
    /// When TLS refuses to begin, as [`Engine::connect`] says.
    pub fn connect(&mut self, to: SocketAddr) -> Result<ConnKey, Alert> {
        let (tls, server_name, settings) = (self.tls, self.name, self.settings);
        self.engine
            .connect_with(self.now, &Connect { remote: to, server_name, tls, settings, token: &[], restart: None })
    }
}

/// A program that stands at an engine.
pub trait Application: 'static {
    /// Something happened on a connection. A server's connections begin with [`Event::Accepted`].
    fn event(&mut self, turn: &mut Turn<'_>, key: ConnKey, event: Event);

    /// Called once when the world begins, and whenever [`deadline`](Self::deadline) has come.
    fn wake(&mut self, turn: &mut Turn<'_>) {
        let _ = turn;
    }

    /// When it wants to be woken, in microseconds of the world; after [`wake`](Self::wake) it is later than that time, or `None`.
    fn deadline(&self) -> Option<u64> {
        None
    }
}

/// An engine and an application, as a [`Host`].
pub struct EngineHost<A> {
    /// The application. Whoever changes it through [`World::host_mut`](crate::World::host_mut) wakes the host.
    pub app: A,
    /// The engine.
    pub engine: Engine,
    me: SocketAddr,
    tls: Box<dyn TlsClientConfig>,
    name: &'static str,
    settings: Settings,
    train: Train,
    woken: bool,
}

impl<A: Application> EngineHost<A> {
    /// A host that begins connections, with usual settings and without cryptography: packets are readable on the wire
    /// ([`inspect`](super::inspect)).
    #[must_use]
    pub fn client(me: SocketAddr, seed: u64, app: A) -> Self {
        let provider = Provider::null_client(seed, NullTlsClient::default());
        Self::new(me, provider, Settings::default(), app, |_| ())
    }

    /// A host that accepts connections (and may begin some), with usual settings and without cryptography.
    #[must_use]
    pub fn server(me: SocketAddr, seed: u64, app: A) -> Self {
        let provider = Provider::null_server(seed, NullTlsServer::default());
        Self::new(me, provider, Settings::default(), app, |_| ())
    }

    /// A host with everything that can be chosen; `change` has the last word about the engine.
    #[must_use]
    pub fn new(
        me: SocketAddr,
        provider: Provider,
        settings: Settings,
        app: A,
        change: impl FnOnce(&mut EngineConfig),
    ) -> Self {
        let Provider { keys, random, client: tls, server, name } = provider;
        let mut config = EngineConfig::new(keys, random);
        config.server = server.map(|tls| ServerConfig::new(tls, settings.clone()));
        change(&mut config);
        let engine = Engine::new(config);
        Self { app, engine, me, tls, name, settings, train: Train::new(), woken: false }
    }

    /// The host leaves its address: from now on it sends from that one, and its engine knows. The world has to lead that
    /// address to it ([`World::add_address`](crate::World::add_address)).
    pub fn rebind(&mut self, now_us: u64, me: SocketAddr) {
        self.me = me;
        self.engine.rebind(QuicHost::instant(now_us), Some(me.ip()));
    }

    fn turn(&mut self, now_us: u64) -> (&mut A, Turn<'_>) {
        let Self { app, engine, tls, name, settings, .. } = self;
        let now = QuicHost::instant(now_us);
        (app, Turn { engine, now, now_us, tls: &**tls, name, settings })
    }

    fn run_app(&mut self, now_us: u64) -> bool {
        let mut any = false;
        if !self.woken || self.app.deadline().is_some_and(|at| at <= now_us) {
            (self.woken, any) = (true, true);
            let (app, mut turn) = self.turn(now_us);
            app.wake(&mut turn);
        }
        self.engine.process(QuicHost::instant(now_us));
        while let Some((key, event)) = self.engine.poll_event() {
            any = true;
            let (app, mut turn) = self.turn(now_us);
            app.event(&mut turn, key, event);
        }
        any
    }

    fn send(&mut self, now_us: u64, out: &mut Outbox) -> bool {
        let (now, mut any) = (QuicHost::instant(now_us), false);
        // A train has at most 64 datagrams: it is asked for only when there is room for all of them.
        while out.room() > 64 {
            let Some(meta) = self.engine.fill(now, &mut self.train) else { break };
            any = true;
            put(&mut self.engine, now_us, self.me, &self.train, &meta, out);
        }
        any
    }
}

impl<A: Application> Host for EngineHost<A> {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        deliver(&mut self.engine, now_us, d);
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        for _ in 0..ROUNDS_MAX {
            let heard = self.run_app(now_us);
            if !self.send(now_us, out) && !heard {
                return;
            }
        }
    }

    fn deadline(&self) -> Option<u64> {
        [engine_deadline(&self.engine), self.app.deadline()].into_iter().flatten().min()
    }
}
