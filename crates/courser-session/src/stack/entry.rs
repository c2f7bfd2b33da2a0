//! What a stack knows of each session.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;
use rustc_hash::FxHashSet;

use super::name::Attempt;
use crate::{
    control::{Profile, Protocol},
    credit::WriteCredit,
    handle::Handle,
    msg::SessionStats,
    reason::Ended,
};

/// Streams of a connection that wait to be accepted, at most; further ones are turned away.
pub(super) const STREAMS_MAX: usize = 1024;
/// Datagrams of a connection that wait to be read, at most; the oldest are dropped.
pub(super) const DATAGRAMS_MAX: usize = 256;
/// Bytes of them.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1 << 20;

/// One worker's part of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The worker has not answered.
    Asked,
    Open(Handle),
    Over,
}

#[derive(Debug)]
pub(super) struct Listener {
    /// With the place of the worker.
    pub(super) parts: Vec<(usize, Part)>,
    pub(super) backlog: usize,
    /// Connections that can be accepted, the oldest first.
    pub(super) ready: VecDeque<u64>,
    /// Connections whose handshake goes on; they count for the backlog.
    pub(super) under_way: usize,
}

impl Listener {
    pub(super) fn is_over(&self) -> bool {
        self.parts.iter().all(|(_, part)| *part == Part::Over)
    }

    pub(super) fn has_room(&self) -> bool {
        self.ready.len() + self.under_way < self.backlog
    }
}

#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) established: bool,
    /// The listener that it came in on, until it is established.
    pub(super) listener: Option<u64>,
    /// Streams that can be accepted, in the order in which the worker told of them.
    pub(super) ready: VecDeque<u64>,
    pub(super) datagrams: VecDeque<Bytes>,
    pub(super) datagram_bytes: usize,
    /// Datagrams dropped because nobody read them, or because too many waited to be sent.
    pub(super) dropped: u64,
    /// Too many datagrams wait to be sent.
    pub(super) blocked: bool,
    /// The last datagram could not be sent at all.
    pub(super) unfit: bool,
    /// Streams that are being opened: nobody answers them when the connection ends.
    pub(super) opening: FxHashSet<u64>,
    /// Closed streams whose last bytes the peer does not have yet.
    pub(super) lingering: usize,
}

impl Connection {
    /// Keeps a datagram, at the cost of older ones.
    pub(super) fn keep(&mut self, data: Bytes) {
        self.datagram_bytes += data.len();
        self.datagrams.push_back(data);
        while self.datagrams.len() > DATAGRAMS_MAX || self.datagram_bytes > DATAGRAM_BYTES_MAX {
            let Some(oldest) = self.datagrams.pop_front() else { return };
            self.datagram_bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    pub(super) fn take(&mut self) -> Option<Bytes> {
        let data = self.datagrams.pop_front()?;
        self.datagram_bytes -= data.len();
        Some(data)
    }
}

/// How one direction of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// With its last byte.
    Fin,
    /// Given up, by the peer or for lack of the direction.
    Code(u64),
    /// Given up here.
    Here,
    /// The stream never had this direction.
    Never,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The connection; `None` for TCP.
    pub(super) parent: Option<u64>,
    /// The listener that a TCP session came in on, until its addresses are known.
    pub(super) listener: Option<u64>,
    pub(super) credit: WriteCredit,
    /// Received, not read. With the cost for the port of what is still lent.
    pub(super) inbox: VecDeque<(Bytes, usize)>,
    /// Bytes read that the worker does not know of.
    pub(super) unreported: u64,
    pub(super) reading: Option<Over>,
    pub(super) writing: Option<Over>,
    /// The peer has everything.
    pub(super) acked: bool,
}

/// What a session has become.
#[derive(Debug)]
pub(super) enum What {
    /// Created; nothing is known but its settings.
    Fresh,
    /// It has an address to listen at.
    Bound(SocketAddr),
    Listener(Box<Listener>),
    Connection(Box<Connection>),
    Stream(Box<Stream>),
}

impl What {
    /// What a session is as long as it is being connected.
    pub(super) fn begun(protocol: Protocol) -> Self {
        if protocol == Protocol::Tcp { Self::Stream(Box::default()) } else { Self::Connection(Box::default()) }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) protocol: Protocol,
    pub(super) profile: Profile,
    pub(super) what: What,
    pub(super) nonblocking: bool,
    pub(super) timeout: Option<Duration>,
    /// What its worker calls it, from the time that it does.
    pub(super) handle: Option<Handle>,
    /// The port that it belongs to.
    pub(super) place: usize,
    pub(super) endpoint: Option<u32>,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    /// Its worker said where its ends are.
    pub(super) is_placed: bool,
    /// What both ends call a stream.
    pub(super) number: u64,
    pub(super) end: Option<Ended>,
    /// It is being connected by a name.
    pub(super) attempt: Option<Box<Attempt>>,
    /// The name has no address, in words.
    pub(super) wrong: Option<String>,
    /// It is one address of the name by which that session is being connected.
    pub(super) racer_of: Option<u64>,
    pub(super) stats: Option<Box<SessionStats>>,
    /// The application knows of it: it created or accepted it.
    pub(super) given: bool,
    /// Something happened since those who wait were told.
    pub(super) touched: bool,
    /// It stands in the queue of those that poll tells of.
    pub(super) in_news: bool,
}

impl Entry {
    pub(super) fn new(protocol: Protocol, what: What) -> Self {
        Self {
            protocol,
            profile: Profile::default(),
            what,
            nonblocking: false,
            timeout: None,
            handle: None,
            place: 0,
            endpoint: None,
            local: None,
            peer: None,
            is_placed: false,
            number: 0,
            end: None,
            attempt: None,
            wrong: None,
            racer_of: None,
            stats: None,
            given: false,
            touched: false,
            in_news: false,
        }
    }

    pub(super) fn stream(&mut self) -> Option<&mut Stream> {
        match &mut self.what {
            What::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.what {
            What::Connection(connection) => Some(connection),
            _ => None,
        }
    }

    pub(super) fn listener(&mut self) -> Option<&mut Listener> {
        match &mut self.what {
            What::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    /// Whether it is open for use, and not still being opened.
    pub(super) fn is_open(&self) -> bool {
        self.end.is_none()
            && match &self.what {
                What::Connection(connection) => connection.established,
                // Of a TCP session its addresses are told next.
                What::Stream(stream) => self.handle.is_some() && (stream.parent.is_some() || self.is_placed),
                What::Listener(_) => self.handle.is_some(),
                What::Fresh | What::Bound(_) => false,
            }
    }
}
