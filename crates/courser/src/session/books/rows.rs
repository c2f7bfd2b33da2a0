//! What an operator sees of a worker's sessions.

use std::net::SocketAddr;

use courser_core::ids::ConnKey;
use courser_session::handle::Handle;
use courser_session::msg::Addresses;

use super::{Books, Conn, Key, Sessions};

/// One session of a worker as an operator sees it, with the objects behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRow {
    /// Its name.
    pub handle: Handle,
    /// The listener that a connection came in on, the connection of a stream.
    pub parent: Option<Handle>,
    /// What it is doing, in a word.
    pub state: &'static str,
    /// The engine's object behind it: slot and generation of a connection, the stream ID of a stream.
    pub context: String,
    /// The address of this end; a stream has none of its own, since all datagrams are the connection's.
    pub local: Option<SocketAddr>,
    /// The peer's address, of connections.
    pub remote: Option<SocketAddr>,
    /// Bytes written: by the application to a stream, to the network by a connection.
    pub written: u64,
    /// Bytes read, likewise.
    pub read: u64,
    /// Sessions inside it.
    pub children: u64,
}

impl SessionRow {
    /// A session of which nothing is known but its name, for workers of other protocols.
    #[must_use]
    pub const fn new(handle: Handle) -> Self {
        Self {
            handle,
            parent: None,
            state: "over",
            context: String::new(),
            local: None,
            remote: None,
            written: 0,
            read: 0,
            children: 0,
        }
    }
}

impl Books {
    /// The sessions of this worker, at most `most`, in the order of their slots.
    pub(in crate::session) fn rows(&self, sessions: &Sessions, most: usize) -> Vec<SessionRow> {
        sessions.iter().take(most).map(|(handle, session)| self.row(handle, &session.key)).collect()
    }

    fn row(&self, handle: Handle, key: &Key) -> SessionRow {
        let mut row = SessionRow::new(handle);
        match key {
            Key::Listener => {
                row.state = "listening";
                row.local = Some(self.local);
                let own = |conn: &Conn| conn.parent == Some(handle);
                row.children = self.conns.iter().flatten().filter(|conn| own(conn)).count() as u64;
            }
            Key::Connection(key) => self.fill_connection(&mut row, *key),
            Key::Stream(stream) => {
                row.parent = self.known(stream.conn).map(|conn| conn.handle);
                row.state = stream.word();
                row.context = stream.id.to_string();
                (row.written, row.read) = (stream.written, stream.offset);
            }
        }
        row
    }

    /// Where the two ends of a connection are.
    pub(in crate::session) fn addresses_of(&self, key: ConnKey) -> Option<Addresses> {
        let peer = self.engine.remote(key).ok()?;
        let own = self.engine.paths(key).ok().and_then(|paths| paths.iter().find(|path| path.in_use)?.local);
        let local = own.map_or(self.local, |ip| SocketAddr::new(ip, self.local.port()));
        Some(Addresses { local, peer })
    }

    fn known(&self, key: ConnKey) -> Option<&Conn> {
        self.conns.get(key.index as usize)?.as_deref().filter(|conn| conn.key == key)
    }

    fn fill_connection(&self, row: &mut SessionRow, key: ConnKey) {
        row.context = format!("{}.{}", key.index, key.generation);
        let Some(conn) = self.known(key) else { return };
        row.parent = conn.parent;
        row.children = conn.streams.len() as u64;
        let settled = self.engine.identity(key).is_ok_and(|identity| identity.is_some());
        row.state = match (conn.held, settled) {
            (true, _) => "offered",
            (false, true) => "open",
            (false, false) => "opening",
        };
        let ends = self.addresses_of(key);
        (row.local, row.remote) = (ends.map(|ends| ends.local), ends.map(|ends| ends.peer));
        if let Ok(stats) = self.engine.conn_stats(key) {
            (row.written, row.read) = (stats.sent.bytes, stats.received.bytes);
        }
    }
}
