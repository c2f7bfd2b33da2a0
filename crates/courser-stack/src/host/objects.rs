//! The objects of the host and how they link: what `show` shows.
//!
//! ```text
//! application
//! ├─ listener ─── listener context ─── UDP listen session (one for each worker)
//! │    └─ listen session (one for each worker)
//! │         └─ connection session, with its connection context ─── UDP session
//! │              └─ stream session, with its stream context          (no UDP session: datagrams are the connection's)
//! └─ dialler
//!      └─ connection session …
//! ```

use courser::session::{Kind, SessionRow};
use courser_session::control::{Protocol, Role};
use serde_json::{Map, Value, json};

use super::application::{Application, Entry};
use super::endpoint::Workers;

/// Something that the host keeps, and what it belongs to.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it is, as the picture above names it.
    pub kind: &'static str,
    /// Its name, unique in the host.
    pub id: String,
    /// The name of what it belongs to.
    pub parent: Option<String>,
    /// What there is to say of it, in the order in which it is shown.
    pub fields: Vec<(&'static str, Value)>,
}

impl Object {
    fn new(kind: &'static str, id: String, parent: Option<&str>) -> Self {
        Self { kind, id, parent: parent.map(str::to_owned), fields: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("kind".to_owned(), json!(self.kind));
        map.insert("id".to_owned(), json!(self.id));
        map.insert("parent".to_owned(), json!(self.parent));
        map.extend(self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Value::Object(map)
    }
}

/// An application and everything that belongs to it; at most `most` sessions of each worker.
pub(super) fn of(application: &Application, most: usize) -> Vec<Object> {
    let id = format!("application {}", application.id);
    let own = Object::new("application", id.clone(), None)
        .with("name", application.name.as_str())
        .with("where", application.who.to_string())
        .with("seconds", application.since.elapsed().as_secs());
    let mut all = vec![own];
    for entry in application.endpoints() {
        endpoint(&mut all, &id, application.id, &entry, most);
    }
    all
}

fn endpoint(all: &mut Vec<Object>, parent: &str, application: u64, entry: &Entry, most: usize) {
    let name = format!("{application}/{}", entry.id);
    let protocol = entry.protocol.name();
    let listens = matches!(entry.role, Role::Listen(_));
    let (kind, id) =
        if listens { ("listener", format!("listener {name}")) } else { ("dialler", format!("dialler {name}")) };
    let uri = format!("{protocol}://{}", entry.local);
    all.push(
        Object::new(kind, id.clone(), Some(parent))
            .with("uri", uri)
            .with("workers", entry.count)
            .with("protected", entry.protocol == Protocol::Quic)
            .with("segment_bytes", entry.memory),
    );
    let (sessions, udp) = match &entry.workers {
        Workers::Quic(endpoint) => {
            context(all, &id, &name, entry, endpoint, listens);
            (endpoint.sessions(most), true)
        }
        plain @ Workers::Plain(_) => (plain.sessions(most), false),
    };
    for row in sessions {
        session(all, (&id, application), entry, (&row, udp));
    }
}

/// What a QUIC endpoint's sessions rest on.
fn context(
    all: &mut Vec<Object>,
    parent: &str,
    name: &str,
    entry: &Entry,
    endpoint: &courser::session::Endpoint,
    listens: bool,
) {
    let (kind, id, udp) = if listens {
        ("listener context", format!("listener context {name}"), "UDP listen session")
    } else {
        ("dialler context", format!("dialler context {name}"), "UDP socket")
    };
    let figures = endpoint.workers();
    let connections: usize = figures.iter().map(|worker| worker.connections).sum();
    let accepted: u64 = figures.iter().map(|worker| worker.engine.accepted).sum();
    let gone = figures.iter().filter(|worker| worker.is_gone).count();
    all.push(
        Object::new(kind, id.clone(), Some(parent))
            .with("connections", connections)
            .with("accepted", accepted)
            .with("workers_gone", gone),
    );
    for worker in 0..entry.count {
        let local = entry.local.to_string();
        all.push(
            Object::new(udp, format!("udp {name}.{worker}"), Some(&id)).with("local", local).with("worker", worker),
        );
    }
}

fn session(
    all: &mut Vec<Object>,
    (endpoint, application): (&str, u64),
    entry: &Entry,
    (row, udp): (&SessionRow, bool),
) {
    // Handles are unique within their application.
    let name = |raw: u64| format!("{application}/{raw:#018x}");
    let id = name(row.handle.raw());
    let above = row.parent.map(|parent| name(parent.raw()));
    let parent = above.as_deref().unwrap_or(endpoint);
    let kind = match (row.handle.kind(), entry.protocol) {
        (Kind::Listener, _) => "listen session",
        (Kind::Connection, Protocol::Quic) => "connection session",
        (Kind::Connection, _) => "UDP session",
        (Kind::Stream, Protocol::Quic) => "stream session",
        (Kind::Stream, _) => "TCP session",
    };
    let mut object = Object::new(kind, id.clone(), Some(parent)).with("state", row.state);
    if !row.context.is_empty() {
        object = object.with("context", row.context.as_str());
    }
    let (local, remote) = (row.local.map(|a| a.to_string()), row.remote.map(|a| a.to_string()));
    let is_connection = row.handle.kind() == Kind::Connection && udp;
    if !is_connection {
        object.fields.extend(local.clone().map(|local| ("local", json!(local))));
        object.fields.extend(remote.clone().map(|remote| ("remote", json!(remote))));
    }
    if row.handle.kind() == Kind::Listener {
        object = object.with("connections", row.children);
    } else {
        object = object.with("written", row.written).with("read", row.read);
    }
    if is_connection {
        object = object.with("streams", row.children);
    }
    all.push(object);
    // All datagrams of a connection travel through its UDP session; streams have none of their own.
    if is_connection {
        let mut below = Object::new("UDP session", format!("udp of {id}"), Some(&id));
        below.fields.extend(local.map(|local| ("local", json!(local))));
        below.fields.extend(remote.map(|remote| ("remote", json!(remote))));
        all.push(below);
    }
}
