//! What an operator sees of the worker's sessions.

use std::net::SocketAddr;

use courser::session::SessionRow;
use courser_session::control::Protocol;
use courser_session::handle::Handle;

use super::books::{Books, Sessions};
use super::objects::{Key, Object, Sending, Stream};

/// One session of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Its name.
    pub handle: Handle,
    /// The listener that it came in on.
    pub parent: Option<Handle>,
    /// Its protocol; `None` when the session is over and its application was not told yet.
    pub protocol: Option<Protocol>,
    /// What it is doing, in a word.
    pub state: &'static str,
    /// The object behind it: the number of its socket in the worker, and of the peer at a UDP listener's socket.
    pub context: String,
    /// The address of this end.
    pub local: Option<SocketAddr>,
    /// The peer's address.
    pub remote: Option<SocketAddr>,
    /// Bytes that the application wrote, or datagrams.
    pub written: u64,
    /// Bytes that the application was given, or datagrams that came.
    pub read: u64,
    /// Datagrams that there was no room for.
    pub dropped: u64,
    /// Sessions inside it.
    pub children: u64,
    /// Whether others can neither read nor change what is sent. Never, here: TCP and UDP sessions have no TLS.
    pub encrypted: bool,
}

impl Row {
    const fn new(handle: Handle) -> Self {
        Self {
            handle,
            parent: None,
            protocol: None,
            state: "over",
            context: String::new(),
            local: None,
            remote: None,
            written: 0,
            read: 0,
            dropped: 0,
            children: 0,
            encrypted: false,
        }
    }
}

impl From<&Row> for SessionRow {
    fn from(row: &Row) -> Self {
        let mut same = Self::new(row.handle);
        let protocol = row.protocol.map_or("over", Protocol::name);
        let dropped = if row.dropped == 0 { String::new() } else { format!(", {} dropped", row.dropped) };
        same.context = format!("{protocol} {}, no TLS{dropped}", row.context);
        (same.parent, same.state, same.local, same.remote) = (row.parent, row.state, row.local, row.remote);
        (same.written, same.read, same.children) = (row.written, row.read, row.children);
        same
    }
}

fn word(stream: &Stream) -> &'static str {
    match (stream.sending, stream.ended) {
        (Sending::Open, false) => "open",
        (Sending::Open, true) => "peer-finished",
        (Sending::Finishing, _) => "finishing",
        (Sending::Over, _) => "finished",
    }
}

impl Books {
    /// The sessions, at most `most`, in the order of their slots.
    pub(super) fn rows(&self, sessions: &Sessions, most: usize) -> Vec<Row> {
        sessions.iter().take(most).map(|(handle, session)| self.row(handle, session.key)).collect()
    }

    /// What is known of a session.
    pub(super) fn row(&self, handle: Handle, key: Key) -> Row {
        let mut row = Row::new(handle);
        match key {
            Key::Over(_) => {}
            Key::Listener(slot) | Key::Stream(slot) | Key::Link(slot) => {
                row.context = slot.to_string();
                self.fill(&mut row, slot);
            }
            Key::Peer(slot, at) => {
                row.context = format!("{slot}.{at}");
                self.fill_peer(&mut row, (slot, at));
            }
        }
        row
    }

    fn fill(&self, row: &mut Row, slot: u32) {
        match self.objects.get(slot).map(|place| &place.object) {
            Some(Object::TcpListener { local, .. }) => {
                (row.protocol, row.state, row.local) = (Some(Protocol::Tcp), "listening", Some(*local));
                row.children = self.children_of(row.handle);
            }
            Some(Object::Dispatcher(d)) => {
                (row.protocol, row.state, row.local) = (Some(Protocol::Udp), "listening", Some(d.local));
                (row.children, row.dropped) = (d.peers.len() as u64, d.peers.dropped);
            }
            Some(Object::Stream(s)) => {
                (row.protocol, row.state, row.parent) = (Some(Protocol::Tcp), word(s), s.parent);
                (row.local, row.remote) = (s.local, Some(s.peer));
                (row.written, row.read) = (s.written, s.offset);
            }
            Some(Object::Link(l)) => {
                (row.protocol, row.state) = (Some(Protocol::Udp), "open");
                (row.local, row.remote) = (l.local, Some(l.peer));
                (row.written, row.read, row.dropped) = (l.sent, l.received, l.dropped);
            }
            Some(Object::Connecting { .. } | Object::Lingering(_)) | None => {}
        }
    }

    fn fill_peer(&self, row: &mut Row, (slot, at): (u32, u32)) {
        let Some(Object::Dispatcher(d)) = self.objects.get(slot).map(|place| &place.object) else { return };
        let Some(peer) = d.peers.get(at) else { return };
        (row.protocol, row.state, row.parent) = (Some(Protocol::Udp), "open", d.handle);
        (row.local, row.remote) = (Some(d.local), Some(peer.address));
        (row.written, row.read, row.dropped) = (peer.sent, peer.received, peer.dropped);
    }

    fn children_of(&self, listener: Handle) -> u64 {
        let own = |object: &Object| matches!(object, Object::Stream(stream) if stream.parent == Some(listener));
        self.objects.iter().filter(|(_, place)| own(&place.object)).count() as u64
    }
}
