//! One application and what it has.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use courser::tls::Credentials;
use courser_session::control::{Fault, Notice, Open, Protocol, Role, send};
use courser_session::doorbell::Bell;
use courser_session::port::{EventBell, Offer, ThreadPort};
use courser_session::stack::Refused;

use super::config::{Config, may_listen};
use super::endpoint::{Recipe, Workers};
use super::heritage::Heritage;
use super::numbers::Numbers;
use super::refused;

/// Where an application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// In this process.
    Here,
    /// In another process, as its socket tells.
    Process {
        /// Number of the process.
        pid: u32,
        /// Number of its user.
        user: u32,
        /// Number of its group.
        group: u32,
    },
}

impl Who {
    /// The user, of other processes.
    #[must_use]
    pub const fn user(self) -> Option<u32> {
        match self {
            Self::Here => None,
            Self::Process { user, .. } => Some(user),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("in the service"),
            Self::Process { pid, user, group } => write!(f, "process {pid}, user {user}, group {group}"),
        }
    }
}

/// An application and what belongs to it.
pub(crate) struct Application {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) who: Who,
    pub(super) since: Instant,
    /// Rung by its workers.
    pub(super) bell: EventBell,
    /// The socket of its process, once it has attached.
    line: OnceLock<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    certificates: BTreeMap<u32, Arc<Credentials>>,
    /// Numbers given to certificates and endpoints, which are never given twice.
    given: u32,
    endpoints: BTreeMap<u32, Arc<Entry>>,
    numbers: Numbers,
    /// It is gone, or goes.
    closed: bool,
}

/// An endpoint of an application.
pub(crate) struct Entry {
    pub(super) id: u32,
    pub(super) protocol: Protocol,
    pub(super) role: Role,
    pub(super) local: SocketAddr,
    pub(super) workers: Workers,
    pub(super) first_worker: u8,
    pub(super) count: usize,
    /// Bytes of shared memory.
    pub(super) memory: u64,
}

/// The application's ends of an endpoint's ports.
pub(crate) enum Ends {
    Here(Vec<ThreadPort>),
    There(Vec<Offer>),
}

/// An endpoint that was opened.
pub(crate) struct Made {
    pub(crate) endpoint: u32,
    pub(crate) local: SocketAddr,
    pub(crate) first_worker: u8,
    pub(crate) ends: Ends,
}

impl Application {
    pub(super) fn new(id: u64, name: String, who: Who, bell: EventBell) -> Self {
        Self { id, name, who, since: Instant::now(), bell, line: OnceLock::new(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic left is at worst an endpoint that is listed and not wanted; it ends with the application.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_certificate(&self, config: &Config, chain: &[u8], key: &[u8]) -> Result<u32, Refused> {
        let credentials = Credentials::from_pem(chain, key).map_err(|e| refused(Fault::Certificate, &e.to_string()))?;
        let mut state = self.lock();
        if state.certificates.len() >= config.quota.certificates as usize {
            let why = format!("the application has {} certificates already; remove one", state.certificates.len());
            return Err(refused(Fault::Quota, &why));
        }
        let id = state.number()?;
        state.certificates.insert(id, Arc::new(credentials));
        Ok(id)
    }

    pub(crate) fn remove_certificate(&self, id: u32) -> Result<(), Refused> {
        let gone = self.lock().certificates.remove(&id);
        gone.map(drop).ok_or_else(|| refused(Fault::Unknown, "there is no certificate of that number"))
    }

    /// Makes an endpoint with its ports.
    pub(crate) fn open(
        &self,
        (config, heritage): (&Config, &Arc<Heritage>),
        trace: Option<&std::path::Path>,
        what: &Open,
    ) -> Result<Made, Refused> {
        if let Role::Listen(at) = what.role
            && !may_listen(&config.rules, self.who.user(), what.protocol, at)
        {
            return Err(refused(Fault::Denied, "this user may not listen there; see the service's rules"));
        }
        let mut state = self.lock();
        let count = workers(what);
        let memory = match self.who {
            Who::Here => 0,
            Who::Process { .. } => config.shared.bytes() * count as u64,
        };
        state.permit(config, count, memory)?;
        let unknown = || refused(Fault::Unknown, "the profile names a certificate that was not added");
        let certificates = what.profile.certificates.iter().map(|id| state.certificates.get(id).cloned());
        let certificates = certificates.collect::<Option<Vec<_>>>().ok_or_else(unknown)?;
        let out = || refused(Fault::Quota, "the application used up its workers' numbers; attach again");
        let (first_worker, generations) = state.numbers.take(count).ok_or_else(out)?;
        let numbers = (first_worker, generations);
        let recipe = Recipe {
            what,
            certificates,
            sessions_max: config.quota.sessions,
            numbers,
            trace,
            rules: (&config.rules, self.who.user()),
            heritage: (heritage, self.who),
        };
        let made = recipe.make().and_then(|(workers, local)| Ok((self.ends(config, &workers, count)?, workers, local)));
        let (ends, workers, local) = made.inspect_err(|_| state.numbers.give_back(first_worker, count))?;
        let id = state.number()?;
        let (protocol, role) = (what.protocol, what.role);
        let entry = Entry { id, protocol, role, local, workers, first_worker, count, memory };
        state.endpoints.insert(id, Arc::new(entry));
        Ok(Made { endpoint: id, local, first_worker, ends })
    }

    fn ends(&self, config: &Config, workers: &Workers, count: usize) -> Result<Ends, Refused> {
        let failed = |e: std::io::Error| {
            refused(Fault::System, &format!("no shared memory: {e}; see the limits of descriptors and memory"))
        };
        let gone = || refused(Fault::System, "the endpoint's worker is gone");
        if self.who == Who::Here {
            let also = || Some(Arc::new(self.bell.clone()) as Arc<dyn Bell>);
            let ports = (0..count).map(|n| workers.attach(n, config.port, also()));
            return ports.collect::<Option<Vec<_>>>().map(Ends::Here).ok_or_else(gone);
        }
        let offers = (0..count).map(|n| workers.attach_shared(n, config.shared, self.bell.clone()));
        offers.collect::<std::io::Result<Vec<_>>>().map(Ends::There).map_err(failed)
    }

    /// Ends an endpoint: its sockets, threads and segments are gone when this returns.
    pub(crate) fn close(&self, endpoint: u32) -> Result<(), Refused> {
        let entry = self.lock().endpoints.remove(&endpoint);
        let entry = entry.ok_or_else(|| refused(Fault::Unknown, "there is no endpoint of that number"))?;
        let (first, count) = (entry.first_worker, entry.count);
        // Somebody who lists sessions may hold it for a moment longer; its numbers are free when the workers are gone.
        drop(entry);
        self.lock().numbers.give_back(first, count);
        Ok(())
    }

    /// Ends everything.
    pub(super) fn end(&self) {
        let endpoints = {
            let mut state = self.lock();
            state.closed = true;
            state.certificates.clear();
            std::mem::take(&mut state.endpoints)
        };
        drop(endpoints);
    }

    pub(super) fn endpoints(&self) -> Vec<Arc<Entry>> {
        self.lock().endpoints.values().cloned().collect()
    }

    pub(super) fn certificates(&self) -> usize {
        self.lock().certificates.len()
    }

    /// Its process is reached through this socket.
    pub(crate) fn set_line(&self, socket: OwnedFd) {
        let _ = self.line.set(socket);
    }

    /// Tells its process something that it did not ask for. One that does not listen does not hear it.
    pub(crate) fn tell(&self, notice: &Notice) {
        let Some(line) = self.line.get() else { return };
        let mut packet = Vec::new();
        notice.encode(&mut packet);
        let _ = send(line.as_fd(), &packet, &[]);
    }

    /// Closes its process's socket, so that whoever serves it lets it go.
    pub(super) fn expel(&self) {
        if let Some(line) = self.line.get() {
            let _ = rustix::net::shutdown(line, rustix::net::Shutdown::Both);
        }
    }

    /// The bell for the application's process.
    pub(crate) fn bell_fd(&self) -> std::io::Result<OwnedFd> {
        self.bell.to_fd()
    }
}

impl State {
    fn number(&mut self) -> Result<u32, Refused> {
        let out = || refused(Fault::Quota, "the application used up its numbers; attach again");
        self.given = self.given.checked_add(1).ok_or_else(out)?;
        Ok(self.given)
    }

    /// Whether one more endpoint with so many workers and so much memory is within the quota.
    fn permit(&self, config: &Config, workers: usize, memory: u64) -> Result<(), Refused> {
        let quota = &config.quota;
        let sum = |f: fn(&Entry) -> u64| self.endpoints.values().map(|entry| f(entry)).sum::<u64>();
        let over = |what: &str, most: u64| {
            Err(refused(Fault::Quota, &format!("the application may have {most} {what}; close an endpoint first")))
        };
        if self.closed {
            return Err(refused(Fault::Draining, "the application is being ended"));
        }
        if self.endpoints.len() >= quota.endpoints as usize {
            return over("endpoints", u64::from(quota.endpoints));
        }
        if sum(|entry| entry.count as u64) + workers as u64 > u64::from(quota.workers) {
            return over("workers", u64::from(quota.workers));
        }
        if sum(|entry| entry.memory).saturating_add(memory) > quota.memory {
            return over("bytes of shared memory", quota.memory);
        }
        Ok(())
    }
}

/// How many workers an endpoint gets: those that take connections as many as asked for, others one.
fn workers(what: &Open) -> usize {
    match (what.protocol, what.role) {
        (Protocol::Quic, Role::Listen(_)) => usize::from(what.profile.workers.unwrap_or(1).max(1)),
        _ => 1,
    }
}
