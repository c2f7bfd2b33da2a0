//! The connection.
//!
//! A [`Connection`] holds what HTTP/3 adds to a transport: three one-way streams of each end, the state of each message, and
//! limits. It does nothing on its own: the driver calls [`Connection::on_uni`] and [`Connection::pump`] when the transport has
//! something, whoever serves or makes a request polls its head and content and sends the other ones, and
//! [`Connection::poll_event`] tells the rest. Every call takes the transport; what the transport refuses for now, it tells later
//! to whom it concerns.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`config`] | configuration, answers, errors |
//! | `local`, `peer` | the one-way streams of both ends; SETTINGS, GOAWAY, PRIORITY_UPDATE as they come |
//! | `recv`, `read` | the receiving half of a message, and the calls that poll it |
//! | `send`, `write` | the sending half, and the calls that fill it |
//! | `sessions` | WebTransport: how many sessions there may be, and under which limits |
//! | `resume` | 0-RTT at a client: remembered settings |
//! | `life` | beginning, cancelling and forgetting of messages; graceful end; priorities; datagrams |
//! | `budget` | what a peer may do in one go |
//!
//! Invariants: an error of the connection closes the transport once, and every later call repeats it; a message is in the map
//! from its first poll or its request until it is cancelled or forgotten; what is sent for a message waits in it only when the
//! connection made it (heads, trailers), never content.

pub mod config;

mod budget;
mod life;
mod local;
mod peer;
mod read;
mod recv;
mod resume;
mod send;
mod sessions;
mod write;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use courser_core::ids::{Side, StreamId};
use courser_core::stream::Priority;
use courser_core::time::Instant;
use http::request;
use rustc_hash::FxHashMap;

use self::budget::Budget;
pub use self::config::{Body, Config, Error, Event, Head, Uni};
use self::local::Local;
use self::peer::Peer;
use self::recv::{Phase, Recv};
use self::resume::Resumed;
use self::send::{SendHalf, Stage};
use crate::error::ConnectionError;
use crate::frame::{kind, push_frame, reserved, stream_type};
use crate::message::decode::Collector;
use crate::qpack::{Decoder, DecoderConfig, Encoder, EncoderConfig};
use crate::settings::Settings;
use crate::transport::Transport;
use crate::watch::{Content, Told, Watch, Watcher};
use crate::wide;

/// One message exchange: a request and its responses.
#[derive(Debug, Default)]
struct Exchange {
    recv: Recv,
    send: SendHalf,
    /// The request's method has a meaning for the frames: HEAD's responses have no content, CONNECT's are a tunnel.
    method: Method,
    /// The request may have datagrams: it is an extended CONNECT.
    extended: bool,
    /// It is a WebTransport session.
    session: bool,
    /// It came behind a GOAWAY that refuses it, and is only looked at because it may be a stream of a WebTransport session.
    late: bool,
    /// Nobody holds it any more; what waits is still sent.
    orphan: bool,
    /// That the peer gave it up was counted.
    counted: bool,
    /// A PRIORITY_UPDATE came: it counts more than the head's field.
    prioritised: bool,
}

// A server holds one for each request in work.
const _: () = assert!(size_of::<Exchange>() <= 264);

/// What a method means for framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Method {
    #[default]
    Other,
    Head,
    Connect,
}

impl Exchange {
    /// Whether it is a WebTransport session of which neither direction is over yet.
    fn is_open_session(&self) -> bool {
        self.session && self.recv.phase != Phase::Over && matches!(self.send.stage, Stage::Head | Stage::Body)
    }
}

impl Method {
    fn of(method: &http::Method) -> Self {
        match *method {
            http::Method::HEAD => Self::Head,
            http::Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// Events that were not polled yet: one of each kind is enough.
#[derive(Debug, Default)]
struct Events {
    settings: bool,
    goaway: Option<StreamId>,
}

/// An HTTP/3 connection.
#[derive(Debug)]
pub struct Connection {
    side: Side,
    config: Config,
    /// What broke the connection.
    failed: Option<ConnectionError>,
    control: Local,
    encoder_stream: Local,
    decoder_stream: Local,
    peer: Peer,
    /// At a client with 0-RTT, until the server's answer to it and its SETTINGS are known.
    resumed: Option<Box<Resumed>>,
    encoder: Encoder,
    decoder: Decoder,
    collector: Collector,
    /// Who is told of what happens.
    watch: Watcher,
    /// Where heads are encoded; kept for its memory.
    scratch: Vec<u8>,
    exchanges: FxHashMap<StreamId, Exchange>,
    /// Requests for WebTransport sessions that came before the peer's SETTINGS.
    held: FxHashMap<StreamId, Box<request::Parts>>,
    /// What was read of streams that belong to WebTransport sessions.
    rests: FxHashMap<StreamId, Bytes>,
    /// Exchanges that nobody holds and that still wait for room.
    orphans: Vec<StreamId>,
    /// At a server: one more than the largest request that was taken, as an index of streams.
    next_index: u64,
    /// Changes of priority for requests that have not come.
    early: Vec<(StreamId, Priority)>,
    /// The number of the last GOAWAY that was sent, and of the last that came.
    goaway_sent: Option<u64>,
    goaway_received: Option<u64>,
    cancels: Budget,
    noise: Budget,
    events: Events,
}

impl Connection {
    /// A connection over a new transport. The seed chooses what is sent to grease.
    #[must_use]
    pub fn new(side: Side, config: Config, seed: u64) -> Self {
        let mut control = Local::new(stream_type::CONTROL);
        let mut payload = Vec::new();
        config.settings(side.is_server()).encode(config.grease.then_some(seed), &mut payload);
        //= rfc9114#3.2-3, rfc9114#6.2.1-1, rfc9114#7.2.4-1, rfc9114#7.2.4.2-3
        push_frame(&mut control.unsent, kind::SETTINGS, &payload);
        if config.grease {
            let noise = seed.to_be_bytes();
            let some = usize::try_from(seed & 7).unwrap_or(0);
            push_frame(&mut control.unsent, reserved(seed.rotate_left(17)), noise.get(..some).unwrap_or_default());
        }
        let encoder = EncoderConfig {
            max_table_capacity: config.qpack_encoder_capacity,
            max_blocked_streams: config.qpack_encoder_blocked,
        };
        let decoder = DecoderConfig {
            max_table_capacity: config.qpack_table_capacity,
            max_blocked_streams: config.qpack_blocked_streams,
            max_section_size: config.max_field_section_size,
            max_fields: config.max_fields,
        };
        Self {
            side,
            failed: None,
            control,
            encoder_stream: Local::new(stream_type::QPACK_ENCODER),
            decoder_stream: Local::new(stream_type::QPACK_DECODER),
            peer: Peer::default(),
            resumed: None,
            encoder: Encoder::new(encoder),
            decoder: Decoder::new(decoder),
            collector: Collector::default(),
            watch: Watcher::default(),
            scratch: Vec::new(),
            exchanges: FxHashMap::default(),
            held: FxHashMap::default(),
            rests: FxHashMap::default(),
            orphans: Vec::new(),
            next_index: 0,
            early: Vec::new(),
            goaway_sent: None,
            goaway_received: None,
            cancels: Budget::new(config.cancel_budget, config.cancel_refill),
            noise: Budget::new(config.noise_budget, config.noise_refill),
            events: Events::default(),
            config,
        }
    }

    /// Begins: the control stream with SETTINGS, then the QPACK streams, as far as the peer permits streams now;
    /// [`Self::pump`] opens the others.
    ///
    /// # Errors
    /// The connection broke, and was closed.
    pub fn start(&mut self, t: &mut dyn Transport) -> Result<(), ConnectionError> {
        self.pump(t)
    }

    /// Writes what waits: on the control and QPACK streams, and of messages that nobody holds any more. To be called when the
    /// transport has room again for one of these, or permits streams.
    ///
    /// # Errors
    /// The connection broke, and was closed.
    pub fn pump(&mut self, t: &mut dyn Transport) -> Result<(), ConnectionError> {
        self.alive()?;
        self.pump_orphans(t);
        self.pump_streams(t).map_err(|e| self.fail(t, e))
    }

    //= rfc9114#6.2-3
    fn pump_streams(&mut self, t: &mut dyn Transport) -> Result<(), ConnectionError> {
        if !self.control.is_idle() {
            self.control.pump(t)?;
        }
        self.encoder_stream.pump_with(t, self.encoder.instructions())?;
        let done = self.decoder_stream.pump_with(t, self.decoder.instructions());
        if self.watch.is_on() {
            self.tell_own_streams();
        }
        done
    }

    /// Has `watch` told of what happens from now on; to be called before [`Self::start`].
    pub fn set_watch(&mut self, watch: Box<dyn Watch>) {
        self.watch.set(watch);
        let settings = self.config.settings(self.side.is_server());
        self.watch.tell(|| Told::Parameters { local: true, settings: &settings });
    }

    /// Tells of our one-way streams that were opened since, and of the SETTINGS on the first of them.
    fn tell_own_streams(&mut self) {
        let kinds = [stream_type::CONTROL, stream_type::QPACK_ENCODER, stream_type::QPACK_DECODER];
        let ids = [self.control.id(), self.encoder_stream.id(), self.decoder_stream.id()];
        for (i, (kind, id)) in kinds.into_iter().zip(ids).enumerate() {
            let Some(stream) = id.filter(|_| !std::mem::replace(&mut self.watch.own[i], id.is_some())) else {
                continue;
            };
            self.watch.tell(|| Told::StreamType { stream, kind: Some(kind) });
            if kind == stream_type::CONTROL {
                let settings = self.config.settings(self.side.is_server());
                let mut payload = Vec::new();
                settings.encode(None, &mut payload);
                let (kind, len, content) = (kind::SETTINGS, wide(payload.len()), Content::Settings(&settings));
                self.watch.tell(|| Told::Frame { created: true, stream, kind, len, content });
            }
        }
    }

    /// Tells the time: what the peer may do in one go comes back with it. To be called now and then; a connection that is never
    /// told only gives back for answered requests.
    pub fn set_now(&mut self, now: Instant) {
        self.cancels.refill(now);
        self.noise.refill(now);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.events.settings) {
            return Some(Event::Settings);
        }
        if let Some(first_rejected) = self.events.goaway.take() {
            return Some(Event::GoAway { first_rejected });
        }
        self.decoder.unblocked().map(Event::Unblocked)
    }

    /// What the peer permits; `None` until its SETTINGS came.
    #[must_use]
    pub const fn peer_settings(&self) -> Option<&Settings> {
        self.peer.settings.as_ref()
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Which end this is.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Our control and QPACK streams, as far as they are open: the transport tells of room on them for [`Self::pump`].
    pub fn own_streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        [&self.control, &self.encoder_stream, &self.decoder_stream].into_iter().filter_map(|local| local.id())
    }

    /// Exchanges that are in work.
    #[must_use]
    pub fn active_requests(&self) -> usize {
        self.exchanges.len()
    }

    /// What broke the connection.
    #[must_use]
    pub const fn error(&self) -> Option<&ConnectionError> {
        self.failed.as_ref()
    }

    /// What was read of a stream that belongs to a WebTransport session; empty when nothing was.
    pub fn take_rest(&mut self, id: StreamId) -> Bytes {
        self.rests.remove(&id).unwrap_or_default()
    }

    fn keep_rest(&mut self, id: StreamId, rest: Bytes) {
        if !rest.is_empty() {
            self.rests.insert(id, rest);
        }
    }

    fn alive(&self) -> Result<(), ConnectionError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Breaks the connection.
    fn fail(&mut self, t: &mut dyn Transport, error: ConnectionError) -> ConnectionError {
        if self.failed.is_none() {
            t.close(error.code.0, &error.reason);
            self.failed = Some(error.clone());
        }
        error
    }

    /// The longest encoded field section that is read. A section grows by encoding only when its encoder is foolish; the prefix
    /// takes some bytes.
    fn section_max(&self) -> u64 {
        self.config.max_field_section_size.saturating_add(wide(16))
    }
}
