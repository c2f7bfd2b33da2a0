//! A ticket is good only for connections that begin in the version of the one that it came from (RFC 9369 section 5).
//!
//! rustls does not know of versions in this sense. It asks for tickets and gives them on the thread that runs the session,
//! so the versions of the session lie in a variable of the thread during the call, as its secrets do in the tap. Clients
//! keep tickets of the two versions apart; servers write the version into what they encrypt or store.

use std::cell::Cell;
use std::sync::Arc;

use courser_core::ids::Version;
use rustls::NamedGroup;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::server::{ProducesTickets, StoresServerSessions};

/// The versions of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The client began in it.
    pub(crate) first: Version,
    /// It is spoken.
    pub(crate) spoken: Version,
}

impl Versions {
    /// Nothing was negotiated yet.
    pub(crate) const fn of(version: Version) -> Self {
        Self { first: version, spoken: version }
    }
}

thread_local! {
    static RUNNING: Cell<Versions> = const { Cell::new(Versions::of(Version::V1)) };
}

/// Puts back what was there, also when the call unwinds.
struct Before(Versions);

impl Drop for Before {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

/// Runs `f` for a session of these versions.
pub(crate) fn speaking<R>(versions: Versions, f: impl FnOnce() -> R) -> R {
    let _before = Before(RUNNING.replace(versions));
    f()
}

/// Puts the version in front of what a ticket or store holds.
fn marked(plain: &[u8]) -> Vec<u8> {
    [&RUNNING.get().spoken.0.to_be_bytes(), plain].concat()
}

/// What stands behind the version, if it is the one that the client began in.
fn unmarked(marked: &[u8]) -> Option<Vec<u8>> {
    //= rfc9369#5-2
    marked.strip_prefix(&RUNNING.get().first.0.to_be_bytes()).map(<[u8]>::to_vec)
}

/// Tickets of a client.
#[derive(Debug)]
pub(crate) struct ClientTickets {
    version_1: ClientSessionMemoryCache,
    others: ClientSessionMemoryCache,
}

impl ClientTickets {
    /// For that many servers, in each version.
    pub(crate) fn new(servers: usize) -> Self {
        Self { version_1: ClientSessionMemoryCache::new(servers), others: ClientSessionMemoryCache::new(servers) }
    }

    fn of(&self, version: Version) -> &ClientSessionMemoryCache {
        //= rfc9369#5-1
        if version == Version::V1 { &self.version_1 } else { &self.others }
    }
}

impl ClientSessionStore for ClientTickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.version_1.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.version_1.kx_hint(server)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.of(RUNNING.get().spoken).insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.of(RUNNING.get().first).take_tls13_ticket(server)
    }
}

/// Tickets of a server that keeps nothing.
#[derive(Debug)]
pub(crate) struct Ticketer(pub(crate) Arc<dyn ProducesTickets>);

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(&marked(plain))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        unmarked(&self.0.decrypt(ticket)?)
    }
}

/// Sessions that a server keeps.
#[derive(Debug)]
pub(crate) struct Sessions(pub(crate) Arc<dyn StoresServerSessions>);

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.put(key, marked(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        unmarked(&self.0.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        unmarked(&self.0.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.0.can_cache()
    }
}
