//! How endpoints of ports are made.

use std::net::SocketAddr;
use std::time::Duration;

use courser_core::engine::Engine;
use courser_session::handle::INDEX_LIMIT;

use super::endpoint::worker;
use super::service::{Generations, Service, ServiceSetup};
use crate::clock::Clock;
use crate::error::EndpointError;
use crate::estate::Estate;
use crate::face;
use crate::handover::Handover;
use crate::options::{ClientOptions, ServerOptions, SocketOptions};
use crate::staff::Staff;
use crate::worker::Worker;

/// How an endpoint of ports is made.
#[derive(Clone, Debug)]
pub struct Options {
    bind: Vec<SocketAddr>,
    /// Buffers and offload of the socket.
    socket: SocketOptions,
    pub(super) server: Option<ServerOptions>,
    profiles: Vec<ClientOptions>,
    pub(super) look: Option<Duration>,
    /// The number of the first worker in its handles.
    pub(super) first_worker: u8,
    sessions_max: u32,
    /// By worker.
    generations: Vec<Generations>,
}

impl Options {
    /// Makes connections, with profile 0; its address and settings are those of `profile`.
    #[must_use]
    pub fn client(profile: ClientOptions) -> Self {
        Self {
            bind: profile.bind_candidates(),
            socket: profile.socket,
            server: None,
            profiles: vec![profile],
            look: None,
            first_worker: 0,
            sessions_max: INDEX_LIMIT,
            generations: Vec::new(),
        }
    }

    /// Takes connections at `local`; port 0 lets the system choose. What [`ServerOptions::client`] has is profile 0.
    #[must_use]
    pub fn server(local: SocketAddr, options: ServerOptions) -> Self {
        Self {
            bind: vec![local],
            socket: options.socket,
            profiles: options.client.iter().cloned().collect(),
            server: Some(options),
            look: None,
            first_worker: 0,
            sessions_max: INDEX_LIMIT,
            generations: Vec::new(),
        }
    }

    /// Another profile for connections to be made; they are numbered from 0 in the order in which they came.
    #[must_use]
    pub fn profile(mut self, profile: ClientOptions) -> Self {
        self.profiles.push(profile);
        self
    }

    /// How long the worker keeps looking for submissions before it sleeps. The default is [`look_time`](super::look_time).
    #[must_use]
    pub const fn look(mut self, look: Duration) -> Self {
        self.look = Some(look);
        self
    }

    /// How many sessions a worker has at most; 2^24 unless said.
    #[must_use]
    pub const fn sessions_max(mut self, most: u32) -> Self {
        self.sessions_max = most;
        self
    }

    /// The workers' numbers in handles begin with `first`, for applications that are at several endpoints and want to tell
    /// their handles apart. An endpoint whose workers get the numbers of workers that are gone continues their
    /// [`Generations`], one for each worker, so that no handle is given out twice.
    #[must_use]
    pub fn worker_numbers(mut self, first: u8, generations: Vec<Generations>) -> Self {
        (self.first_worker, self.generations) = (first, generations);
        self
    }

    fn validate(&self) -> Result<(), EndpointError> {
        let servers = self.server.iter().map(|server| &server.settings);
        let clients = self.profiles.iter().map(|profile| &profile.settings);
        servers.chain(clients).try_for_each(|settings| settings.validate()).map_err(EndpointError::Settings)
    }

    /// Binds the sockets, or takes them over, and makes the workers.
    pub(super) fn workers(self, handover: Option<Handover>) -> Result<Made, EndpointError> {
        self.validate()?;
        let took_over = handover.is_some();
        let (clock, posts, estate) = match (&self.server, self.bind.first()) {
            (Some(server), Some(local)) => {
                let mut staff = match handover {
                    Some(handover) => Staff::adopt(handover, server)?,
                    None => Staff::bind(*local, server)?,
                };
                let estate = staff.estate().map_err(EndpointError::Worker)?;
                (staff.clock, staff.engines(server), Some(estate))
            }
            _ => {
                let (socket, clock) = (face::bind(&self.bind, &self.socket)?, Clock::start());
                let qlog = self.profiles.first().and_then(|profile| profile.qlog.clone());
                let mut config = face::engine_config(qlog.as_ref(), clock);
                config.cids = face::client_cids(true);
                (clock, vec![(Engine::new(config), socket, None)], None)
            }
        };
        let mut workers = Vec::with_capacity(posts.len());
        for (n, (engine, socket, place)) in posts.into_iter().enumerate() {
            let mut setup = ServiceSetup::client(self.profiles.clone());
            setup.is_server = self.server.is_some();
            setup.sessions_max = self.sessions_max;
            // There are at most 256 workers.
            setup.worker = self.first_worker.wrapping_add(u8::try_from(n).unwrap_or(u8::MAX));
            setup.generations = self.generations.get(n).cloned().unwrap_or_default();
            let mut made = worker(engine, socket, clock, setup).map_err(EndpointError::Worker)?;
            made.machine().awaits_listener = took_over;
            workers.push(match place {
                Some(place) => made.at(place),
                None => made,
            });
        }
        Ok((workers, estate))
    }
}

/// Workers that nobody drives yet, and what belongs to their port when they take connections.
pub(super) type Made = (Vec<Worker<Service>>, Option<Estate>);
