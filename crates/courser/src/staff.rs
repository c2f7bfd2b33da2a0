//! Engines and sockets of a server's workers, and what these have in common.
//!
//! Workers share nothing while they work. What one of them gave a client, another one must understand all the same: keys of
//! address tokens and the ledger of those that were used, the clock that these are dated with, and the key of stateless
//! resets, by which whoever is left answers for those who are gone. The TLS configuration is shared by its clones: tickets
//! and the store of sessions that allow 0-RTT are the same for all. Memory and the number of handshakes are shared out.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use courser_core::cid::SeatCids;
use courser_core::crypto::Random;
use courser_core::engine::{Engine, EngineConfig, Ticket, TokenKeys, TokenLedger, UsedTokens};
use courser_tls::SystemRandom;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::error::EndpointError;
use crate::estate::Estate;
use crate::face;
use crate::handover::Handover;
use crate::net::socket::Socket;
use crate::options::ServerOptions;
use crate::wait::lock;
use crate::worker::Crossing;
use crate::worker::crossing::Elder;
use crate::worker::group::{self, Group, Steering};

/// An engine has at least so much memory for buffers, however many share it.
const MEMORY_MIN: usize = 64 << 20;

/// A ledger that several engines share.
struct SharedLedger(Arc<Mutex<UsedTokens>>);

impl TokenLedger for SharedLedger {
    fn is_used(&mut self, ticket: &Ticket) -> bool {
        lock(&self.0).is_used(ticket)
    }

    fn set_used(&mut self, ticket: Ticket, now_us: u64) {
        lock(&self.0).set_used(ticket, now_us);
    }
}

/// A key that nobody knows.
pub(crate) fn draw_key() -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut *key);
    key
}

/// The workers of a server before they have engines.
pub(crate) struct Staff {
    pub(crate) clock: Clock,
    steering: Steering,
    instance: u8,
    places: Vec<(Socket, Crossing)>,
    /// The processes before this one that each worker knows.
    elders: Vec<Vec<Elder>>,
    reset_key: Zeroizing<[u8; 32]>,
    token_keys: TokenKeys,
}

impl Staff {
    /// Binds the sockets.
    pub(crate) fn bind(local: SocketAddr, options: &ServerOptions) -> Result<Self, EndpointError> {
        options.settings.validate().map_err(EndpointError::Settings)?;
        let group = group::bind(&options.socket.at(local), group::workers(options.workers), options.steering)
            .map_err(|e| EndpointError::Bind(local, e))?;
        Ok(Self::of(group, options))
    }

    /// Uses a socket that is bound.
    pub(crate) fn on(socket: UdpSocket, options: &ServerOptions) -> Result<Self, EndpointError> {
        options.settings.validate().map_err(EndpointError::Settings)?;
        let unknown = || (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
        let local = socket.local_addr().unwrap_or_else(|_| unknown());
        let group = group::given(&options.socket.at(local), socket, group::workers(options.workers), options.steering)
            .map_err(|e| EndpointError::Bind(local, e))?;
        Ok(Self::of(group, options))
    }

    fn of(group: Group, options: &ServerOptions) -> Self {
        Self {
            clock: Clock::start(),
            steering: group.steering(),
            instance: 0,
            places: group.places(0, options.client.is_some()),
            elders: Vec::new(),
            reset_key: options.reset_key.map_or_else(draw_key, Zeroizing::new),
            token_keys: options.token_keys.clone().unwrap_or_else(|| TokenKeys::new(*draw_key())),
        }
    }

    /// Takes the sockets over.
    pub(crate) fn adopt(handover: Handover, options: &ServerOptions) -> Result<Self, EndpointError> {
        options.settings.validate().map_err(EndpointError::Settings)?;
        let Handover { sockets, steering, instance, reset_key, token_keys } = handover;
        let (udp, elders): (Vec<_>, Vec<_>) = sockets.into_iter().map(|handed| (handed.socket, handed.elders)).unzip();
        let local = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
        let group = Group::adopt(&options.socket.at(local), udp, steering).map_err(EndpointError::Worker)?;
        let mut places = group.places(instance, options.client.is_some());
        for ((_, place), elders) in places.iter_mut().zip(&elders) {
            let copies = elders.iter().map(Elder::try_clone).collect::<Result<_, _>>();
            place.follow(copies.map_err(EndpointError::Worker)?);
        }
        // Tokens that the other process gave are taken whatever keys the options name.
        let token_keys = options
            .token_keys
            .iter()
            .fold(token_keys, |before, keys| before.expose().fold(keys.clone(), |keys, key| keys.also(*key)));
        Ok(Self { clock: Clock::start(), steering, instance, places, elders, reset_key, token_keys })
    }

    /// What a process that takes the port over needs.
    pub(crate) fn estate(&mut self) -> std::io::Result<Estate> {
        let elders = std::mem::take(&mut self.elders).into_iter().chain(std::iter::repeat_with(Vec::new));
        let copies =
            self.places.iter().zip(elders).map(|((socket, _), elders)| Ok((socket.udp().try_clone()?, elders)));
        Ok(Estate {
            sockets: copies.collect::<std::io::Result<_>>()?,
            steering: self.steering,
            instance: self.instance,
            reset_key: self.reset_key.clone(),
            token_keys: Mutex::new(self.token_keys.clone()),
            relays: Mutex::default(),
        })
    }

    /// An engine for each socket. A worker that is alone has no need of a place.
    pub(crate) fn engines(self, options: &ServerOptions) -> Vec<(Engine, Socket, Option<Crossing>)> {
        let workers = self.places.len();
        let ledger = Arc::new(Mutex::new(UsedTokens::new()));
        let mut posts = Vec::with_capacity(workers);
        for (socket, place) in self.places {
            let mut config: EngineConfig = face::engine_config(options.qlog.as_ref(), self.clock);
            config.server = Some(face::server_config(options, workers));
            config.token_keys = Some(self.token_keys.clone());
            config.token_ledger = Some(Box::new(SharedLedger(Arc::clone(&ledger))));
            config.reset_key = Some(*self.reset_key);
            config.memory_max = (config.memory_max / workers).max(MEMORY_MIN);
            config.cids = Box::new(SeatCids::random(place.seat()));
            posts.push((Engine::new(config), socket, (workers > 1 || place.follows()).then_some(place)));
        }
        posts
    }
}
