//! Sessions and the engine's objects: which belongs to which, and what an application's submissions do.
//!
//! A stream's own state stands in its session ([`Key::Stream`]), so that a submission finds it by handle alone; the engine's
//! events find the handle by connection and stream ID.
//!
//! Invariants: a live connection's session names its key, and `conns` has the handle at the key's place; a stream is in its
//! connection's map until both directions are over (`streams`). A stream's bytes wait here (`Parked::out`) only while the engine takes no
//! more of it, and never more than the application's credit.

mod rows;
mod streams;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use courser_core::engine::{Connect, Engine};
use courser_core::error::ApiMisuse;
use courser_core::ids::{ConnKey, Dir, Side, StreamId};
use courser_core::stream::PartialReset;
use courser_core::time::Instant;
use courser_session::blocks::Blocks;
use courser_session::handle::{Handle, HandleTable, Kind};
use courser_session::msg::{Completion, Endpoint, Op, Rejection, SessionStats, Submission};
use courser_session::port::{Origin, Outbox, Serve, Session};
use tracing::Span;

use super::reason::{Ended, Reason};
use super::service::ServiceSetup;
use crate::address_tokens::ServerTokens;
use crate::options::ClientOptions;
use crate::spans::{self, ConnSpan};

pub use self::rows::SessionRow;
pub use self::streams::StreamState;

pub(in crate::session) type Sessions = HandleTable<Session<Key>>;

/// What a session stands for.
pub enum Key {
    /// A listener.
    Listener,
    /// A connection of the engine.
    Connection(ConnKey),
    /// A stream, with what the service keeps of it.
    Stream(StreamState),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listener => f.write_str("Listener"),
            Self::Connection(key) => write!(f, "{key:?}"),
            Self::Stream(s) => write!(f, "{:?} of {:?}", s.id, s.conn),
        }
    }
}

/// A connection.
pub(in crate::session) struct Conn {
    pub(in crate::session) key: ConnKey,
    pub(in crate::session) handle: Handle,
    pub(in crate::session) port: u32,
    /// The listener that it came in on.
    parent: Option<Handle>,
    side: Side,
    /// Waits for the application's decision.
    held: bool,
    pub(in crate::session) streams: HashMap<StreamId, Handle>,
    /// Tokens of streams that wait to be opened, by direction.
    opens: [VecDeque<u64>; 2],
    /// Where a client keeps what its server gives for later connections.
    pub(in crate::session) tokens: Option<ServerTokens>,
    pub(in crate::session) span: ConnSpan,
}

/// A listener.
pub(in crate::session) struct Listener {
    pub(in crate::session) port: u32,
    pub(in crate::session) handle: Handle,
}

/// The engine and what its objects are called by applications.
pub struct Books {
    pub(in crate::session) engine: Engine,
    /// The time of the turn.
    pub(in crate::session) now: Instant,
    local: SocketAddr,
    /// Whether the engine takes connections.
    is_server: bool,
    /// Whether it is to take no new ones any more.
    pub(in crate::session) draining: bool,
    profiles: Vec<ClientOptions>,
    span: Span,
    /// Connections that wait for their applications' decisions.
    pub(in crate::session) undecided: usize,
    /// By the engine's slot.
    pub(in crate::session) conns: Vec<Option<Box<Conn>>>,
    pub(in crate::session) listeners: VecDeque<Listener>,
    /// Connections whose next stream waits for the application's share.
    pub(in crate::session) starved: Vec<ConnKey>,
    /// How many `conns` has.
    entered: usize,
    /// Memory of what is delivered.
    blocks: Blocks,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Books").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Books {
    pub(in crate::session) fn new(engine: Engine, local: SocketAddr, setup: ServiceSetup) -> Self {
        Self {
            engine,
            now: Instant::ZERO,
            local,
            span: spans::endpoint(local),
            is_server: setup.is_server,
            draining: false,
            profiles: setup.profiles,
            undecided: 0,
            conns: Vec::new(),
            listeners: VecDeque::new(),
            starved: Vec::new(),
            entered: 0,
            blocks: Blocks::default(),
        }
    }

    pub(in crate::session) fn conn(&mut self, key: ConnKey) -> Option<&mut Conn> {
        self.conns.get_mut(key.index as usize)?.as_deref_mut().filter(|conn| conn.key == key)
    }

    pub(in crate::session) fn forget_conn(&mut self, key: ConnKey) -> Option<Box<Conn>> {
        let conn = self.conns.get_mut(key.index as usize)?.take_if(|conn| conn.key == key)?;
        self.entered -= 1;
        if self.entered == 0 {
            self.blocks.clear();
        }
        Some(conn)
    }

    /// The application of a connection is gone.
    pub(in crate::session) fn abandon(&mut self, key: ConnKey) {
        let held = self.forget_conn(key).is_some_and(|conn| conn.held);
        self.undecided -= usize::from(held);
        // Either it waits for a decision, or it is to be closed, or it is over already.
        let _ = if held { self.engine.refuse(key) } else { self.engine.close(self.now, key, 0, b"") };
    }

    /// Enters a connection; `false` when there is no room for its session.
    pub(in crate::session) fn enter_conn(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        key: ConnKey,
        (origin, held): (Origin, bool),
    ) -> bool {
        let Ok(handle) = outbox.open(sessions, Kind::Connection, Key::Connection(key), origin) else { return false };
        let (side, parent) = match origin {
            Origin::Token(_) => (Side::Client, None),
            Origin::Parent(parent) => (Side::Server, Some(parent)),
        };
        let at = key.index as usize;
        if self.conns.len() <= at {
            self.conns.resize_with(at + 1, || None);
        }
        self.entered += usize::from(self.conns[at].is_none());
        self.conns[at] = Some(Box::new(Conn {
            key,
            handle,
            port: outbox.port(),
            parent,
            side,
            held,
            streams: HashMap::new(),
            opens: Default::default(),
            tokens: None,
            span: ConnSpan::new(&self.span, &self.engine, (key, handle, side)),
        }));
        self.undecided += usize::from(held);
        true
    }

    fn listen(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, token: u64, at: SocketAddr) {
        let here = (at.ip().is_unspecified() || at.ip() == self.local.ip())
            && (at.port() == 0 || at.port() == self.local.port());
        if !here || !self.is_server {
            return outbox.reply(Ended::plain(Reason::NoListener).failure(token));
        }
        if self.draining {
            return outbox.reply(Ended::plain(Reason::Draining).failure(token));
        }
        match outbox.open(sessions, Kind::Listener, Key::Listener, Origin::Token(token)) {
            Ok(handle) => self.listeners.push_back(Listener { port: outbox.port(), handle }),
            Err(_) => outbox.reply(Ended::plain(Reason::Full).failure(token)),
        }
    }

    fn connect(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, token: u64, to: &Endpoint) {
        let profile = usize::try_from(to.profile).ok().and_then(|n| self.profiles.get(n));
        let Some(profile) = profile else {
            return outbox.reply(Ended::plain(Reason::NoProfile).failure(token));
        };
        let tokens = profile.tokens.of(&to.server_name, to.address.port());
        let start = Connect {
            remote: to.address,
            server_name: &to.server_name,
            tls: &profile.tls,
            settings: &profile.settings,
            token: &tokens.take(),
            restart: None,
        };
        match self.engine.connect_with(self.now, &start) {
            Ok(key) => {
                if !self.enter_conn(outbox, sessions, key, (Origin::Token(token), false)) {
                    let _ = self.engine.close(self.now, key, 0, b"");
                    return outbox.reply(Ended::plain(Reason::Full).failure(token));
                }
                if let Some(conn) = self.conn(key) {
                    conn.span.asked(&to.server_name, &Span::none());
                    conn.tokens = Some(tokens);
                }
            }
            Err(alert) => {
                let text = Bytes::from(alert.reason.into_bytes());
                outbox.reply(Ended { text, ..Ended::plain(Reason::Tls) }.failure(token));
            }
        }
    }

    fn accept(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, handle: Handle) {
        let Some(key) = connection(sessions, handle) else { return };
        let Some(conn) = self.conn(key).filter(|conn| conn.held) else { return };
        conn.held = false;
        self.undecided -= 1;
        if self.engine.accept(self.now, key, None).is_err() {
            self.forget_conn(key);
            let _ = outbox.event(sessions, handle, Ended::plain(Reason::TooLate).event());
        }
    }

    /// Ends a session for the application.
    fn close(
        &mut self,
        outbox: &mut Outbox,
        sessions: &mut Sessions,
        handle: Handle,
        (code, text): (u64, Bytes),
    ) -> bool {
        match sessions.get(handle).map(|session| &session.key) {
            Ok(Key::Listener) => {
                self.listeners.retain(|listener| listener.handle != handle);
                let _ = outbox.event(sessions, handle, Ended::plain(Reason::ClosedHere).event());
                true
            }
            Ok(Key::Connection(key)) => {
                let key = *key;
                if self.conn(key).is_some_and(|conn| conn.held) {
                    self.abandon(key);
                    let _ = outbox.event(sessions, handle, Ended::plain(Reason::ClosedHere).event());
                    return true;
                }
                self.engine.close(self.now, key, code, &text) != Err(ApiMisuse::CodeTooLarge)
            }
            Ok(Key::Stream(s)) => {
                let (sends, receives) = (s.sends && !s.finished, s.receives);
                let mut fits = !sends || self.reset(outbox, sessions, handle, code);
                fits &= !receives || self.stop(outbox, sessions, handle, code);
                fits
            }
            Err(_) => true,
        }
    }

    fn send_datagram(&mut self, handle: Handle, key: ConnKey, data: Bytes, tag: Option<u64>) -> Option<Completion> {
        let why = match self.engine.send_datagram(key, data, tag) {
            Ok(true) | Err(ApiMisuse::UnknownConnection | ApiMisuse::Closing) => return None,
            Ok(false) => Rejection::Overrun,
            Err(_) => Rejection::Argument,
        };
        Some(Completion::Rejected { handle, op: Op::Datagram, why })
    }

    fn stats(&mut self, sessions: &Sessions, handle: Handle) -> Box<SessionStats> {
        let mut stats = Box::<SessionStats>::default();
        match sessions.get(handle).map(|session| &session.key) {
            Ok(Key::Listener) => {
                let own = |conn: &Conn| conn.parent == Some(handle);
                stats.children = self.conns.iter().flatten().filter(|conn| own(conn)).count() as u64;
            }
            Ok(Key::Connection(key)) => {
                if let Ok(s) = self.engine.conn_stats(*key) {
                    stats.packets_lost = s.lost_packets;
                    stats.rtt_us = u64::try_from(s.rtt.as_micros()).unwrap_or(u64::MAX);
                    stats.congestion_window_bytes = s.congestion_window;
                    (stats.datagrams_sent, stats.datagrams_received) = (s.sent.datagrams, s.received.datagrams);
                    (stats.written_bytes, stats.read_bytes) = (s.sent.bytes, s.received.bytes);
                }
                stats.children = self.conn(*key).map_or(0, |conn| conn.streams.len() as u64);
            }
            Ok(Key::Stream(s)) => (stats.written_bytes, stats.read_bytes) = (s.written, s.offset),
            Err(_) => {}
        }
        stats
    }
}

fn connection(sessions: &Sessions, handle: Handle) -> Option<ConnKey> {
    match sessions.get(handle).ok()?.key {
        Key::Connection(key) => Some(key),
        _ => None,
    }
}

impl Serve for Books {
    type Key = Key;

    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut Sessions, submission: Submission) {
        let op = submission.op();
        let fits = match submission {
            Submission::Listen { token, at } => return self.listen(outbox, sessions, token, at.address),
            Submission::Connect { token, to } => return self.connect(outbox, sessions, token, &to),
            Submission::Accept { handle } => return self.accept(outbox, sessions, handle),
            Submission::OpenBi { connection, token } => {
                return self.open(outbox, sessions, connection, (Dir::Bi, token));
            }
            Submission::OpenUni { connection, token } => {
                return self.open(outbox, sessions, connection, (Dir::Uni, token));
            }
            Submission::Write { stream, data, fin } => return self.write(outbox, sessions, stream, (data, fin)),
            Submission::Finish { stream } => return self.write(outbox, sessions, stream, (Bytes::new(), true)),
            Submission::Datagram { connection: handle, data, tag } => {
                let answer = connection(sessions, handle).and_then(|key| self.send_datagram(handle, key, data, tag));
                return answer.into_iter().for_each(|answer| outbox.reply(answer));
            }
            Submission::Stats { handle, token } => {
                let stats = self.stats(sessions, handle);
                return outbox.reply(Completion::Stats { handle, token, stats });
            }
            Submission::Reset { stream, code } => (stream, self.reset(outbox, sessions, stream, code)),
            Submission::ResetAt { stream, code, reliable_size } => {
                let reset = PartialReset { code, reliable_size };
                (stream, self.reset_at(outbox, sessions, stream, reset))
            }
            Submission::Stop { stream, code } => (stream, self.stop(outbox, sessions, stream, code)),
            Submission::Refuse { handle, code } => (handle, self.close(outbox, sessions, handle, (code, Bytes::new()))),
            Submission::Close { handle, code, reason } => {
                (handle, self.close(outbox, sessions, handle, (code, reason)))
            }
            Submission::Consumed { .. } | Submission::Wake => return,
        };
        if let (handle, false) = fits {
            outbox.reply(Completion::Rejected { handle, op, why: Rejection::Argument });
        }
    }
}
