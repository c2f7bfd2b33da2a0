//! Polling a message: heads, content, trailers, the end.

use bytes::Bytes;
use courser_core::ids::{Side, StreamId};
use http::{HeaderMap, StatusCode, request, response};

use super::config::{Body, Error, Head};
use super::recv::{Item, Phase, Rules};
use super::{Connection, Method};
use crate::error::Code;
use crate::frame::kind;
use crate::message::decode::Section;
use crate::priority;
use crate::qpack::{Decoded, Field};
use crate::transport::Transport;
use crate::watch::{Content, Told, Watcher};
use crate::wide;

/// Bytes for the QPACK decoder stream that are worth a write of their own.
const BUNCH: usize = 16;

/// What came next, with field sections decoded.
enum Got {
    /// The collector has a section.
    Section,
    Oversized,
    Data(Bytes),
    End,
    Blocked,
    WaitsForTable,
    WebTransport(StreamId),
}

/// The fields of a section, when somebody watches.
struct Seen(Option<Vec<OwnField>>);

/// A field that outlives its section.
struct OwnField {
    name: Vec<u8>,
    value: Vec<u8>,
    sensitive: bool,
}

impl Seen {
    fn new(watch: &Watcher) -> Self {
        Self(watch.is_on().then(Vec::new))
    }

    fn field(&mut self, field: &Field<'_>) {
        if let Some(fields) = &mut self.0 {
            let (name, value) = (field.name.to_vec(), field.value.to_vec());
            fields.push(OwnField { name, value, sensitive: field.sensitive });
        }
    }

    fn tell(self, watch: &mut Watcher, stream: StreamId, len: usize) {
        let Some(fields) = self.0 else { return };
        let fields: Vec<Field<'_>> =
            fields.iter().map(|f| Field { name: &f.name, value: &f.value, sensitive: f.sensitive }).collect();
        let content = Content::Fields(&fields);
        watch.tell(|| Told::Frame { created: false, stream, kind: kind::HEADERS, len: wide(len), content });
    }
}

impl Connection {
    /// The head of the request on a two-way stream that the peer opened. The first call makes the stream known here; after
    /// [`Head::Ready`] follow [`Self::poll_body`] and the response. A client calls this for streams that a server opened, which
    /// can only be those of WebTransport sessions.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn poll_request(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Head<request::Parts>, Error> {
        self.alive()?;
        if id.initiator() == self.side {
            return Err(Error::Misuse("the peer did not open that stream"));
        }
        if !self.exchanges.contains_key(&id) && !self.admit(t, id)? {
            return Ok(Head::Gone);
        }
        if self.held.contains_key(&id) {
            return self.take_held(t, id).unwrap_or(Ok(Head::WaitsForSettings));
        }
        let done = self.read_request(t, id);
        done.map_err(|e| self.settle(t, id, e))
    }

    fn read_request(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Head<request::Parts>, Error> {
        self.expect_head(id)?;
        match self.step(t, id, Section::Request)? {
            Got::Section | Got::Oversized if self.reject_late(t, id) => Ok(Head::Gone),
            Got::Section if self.side.is_server() => {
                let parts = self.accept_request(t, id)?;
                self.hold_session(t, id, parts)
            }
            Got::WebTransport(session) => {
                let exchange = self.exchanges.remove(&id);
                self.keep_rest(id, exchange.map(|x| x.recv.piece).unwrap_or_default());
                Ok(Head::WebTransportStream { session })
            }
            //= rfc9114#6.1-3
            Got::Section | Got::Oversized if self.side.is_client() => {
                Err(Error::connection(Code::STREAM_CREATION_ERROR, "a request from a server"))
            }
            Got::Oversized => {
                self.refuse_large(t, id)?;
                Err(Error::TooLarge)
            }
            Got::Blocked => Ok(Head::Blocked),
            Got::WaitsForTable => Ok(Head::WaitsForTable),
            Got::Section | Got::Data(_) | Got::End => Ok(Head::Gone),
        }
    }

    fn accept_request(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<request::Parts, Error> {
        let offered = self.config.connect_protocol;
        let (parts, facts) = self.collector.request(offered).map_err(Error::malformed)?;
        let Some(x) = self.exchanges.get_mut(&id) else { return Err(Error::Closed) };
        x.method = Method::of(&parts.method);
        x.extended = facts.extended;
        x.recv.phase = Phase::Body;
        x.recv.tunnel = x.method == Method::Connect;
        x.recv.expected = if x.recv.tunnel { None } else { facts.content_length };
        //= rfc9218#7-1
        if !x.prioritised {
            let early = self.early.iter().position(|(of, _)| *of == id).map(|at| self.early.swap_remove(at).1);
            //= rfc9218#4-1
            let said = early.or(facts.priority).unwrap_or(priority::DEFAULT);
            //= rfc9218#10-1, rfc9218#10-2
            t.set_priority(id, said);
            if early.is_some() || facts.priority.is_some() {
                self.watch.tell(|| Told::Priority { stream: id, priority: said, local: false });
            }
        }
        Ok(parts)
    }

    /// The next head of the response to a request: informational ones first, each of them [`Head::Ready`], the final one last.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn poll_response(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Head<response::Parts>, Error> {
        self.alive()?;
        self.check_rejected(t, id)?;
        let done = self.read_response(t, id);
        done.map_err(|e| self.settle(t, id, e))
    }

    fn read_response(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Head<response::Parts>, Error> {
        self.expect_head(id)?;
        match self.step(t, id, Section::Response)? {
            Got::Section => self.accept_response(id).map(Head::Ready),
            Got::Oversized => {
                //= rfc9114#4.1.1-6
                self.abandon(t, id, Code::REQUEST_CANCELLED.0);
                Err(Error::TooLarge)
            }
            Got::Blocked => Ok(Head::Blocked),
            Got::WaitsForTable => Ok(Head::WaitsForTable),
            Got::Data(_) | Got::End | Got::WebTransport(_) => Ok(Head::Gone),
        }
    }

    fn accept_response(&mut self, id: StreamId) -> Result<response::Parts, Error> {
        let (parts, facts) = self.collector.response().map_err(Error::malformed)?;
        let Some(x) = self.exchanges.get_mut(&id) else { return Err(Error::Closed) };
        if parts.status.is_informational() {
            if !self.noise.spend() {
                return Err(Error::connection(Code::EXCESSIVE_LOAD, "too many informational responses"));
            }
            return Ok(parts);
        }
        x.recv.phase = Phase::Body;
        x.recv.tunnel = x.method == Method::Connect && parts.status.is_success();
        let bare =
            matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || x.method == Method::Head;
        x.recv.expected = match (x.recv.tunnel, bare) {
            (true, _) => None,
            (_, true) => Some(0),
            _ => facts.content_length,
        };
        Ok(parts)
    }

    /// The next part of a message's content, its trailers, or its end.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn poll_body(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Body, Error> {
        self.alive()?;
        self.check_rejected(t, id)?;
        let done = self.read_body(t, id);
        done.map_err(|e| self.settle(t, id, e))
    }

    fn read_body(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<Body, Error> {
        match self.exchanges.get(&id).map(|x| x.recv.phase) {
            None => return Err(Error::Misuse("there is no such message: this end gave it up")),
            Some(Phase::Head) => return Err(Error::Misuse("the head was not read")),
            Some(Phase::Over) => return Ok(Body::End),
            Some(Phase::Body | Phase::Tail) => {}
        }
        match self.step(t, id, Section::Trailers)? {
            Got::Section => self.accept_trailers(id).map(Body::Trailers),
            Got::Data(data) => Ok(Body::Data(data)),
            Got::End => Ok(Body::End),
            Got::Blocked => Ok(Body::Blocked),
            Got::WaitsForTable => Ok(Body::WaitsForTable),
            Got::Oversized => {
                self.abandon(t, id, Code::REQUEST_CANCELLED.0);
                Err(Error::TooLarge)
            }
            Got::WebTransport(_) => Err(Error::Misuse("a stream of WebTransport has no message")),
        }
    }

    fn accept_trailers(&mut self, id: StreamId) -> Result<HeaderMap, Error> {
        let trailers = self.collector.trailers().map_err(Error::malformed)?;
        if let Some(x) = self.exchanges.get_mut(&id) {
            x.recv.check_length()?;
            x.recv.phase = Phase::Tail;
        }
        Ok(trailers)
    }

    /// Whether nothing of the message is left to be polled, after a look at the transport.
    pub fn is_read(&mut self, t: &mut dyn Transport, id: StreamId) -> bool {
        let Some(x) = self.exchanges.get_mut(&id) else { return true };
        // What is wrong with the stream is told by the next poll.
        x.recv.phase != Phase::Head && (x.recv.is_over() || (x.recv.look(t, id).is_ok() && x.recv.is_over()))
    }

    fn expect_head(&self, id: StreamId) -> Result<(), Error> {
        match self.exchanges.get(&id).map(|x| x.recv.phase) {
            Some(Phase::Head) => Ok(()),
            Some(_) => Err(Error::Misuse("the head was read before")),
            None => Err(Error::Misuse("there is no such message: this end gave it up")),
        }
    }

    /// The next thing in a stream; a field section is decoded as one of that kind.
    fn step(&mut self, t: &mut dyn Transport, id: StreamId, section: Section) -> Result<Got, Error> {
        let section_max = self.section_max();
        let Some(x) = self.exchanges.get_mut(&id) else {
            return Err(Error::Misuse("there is no such message: this end gave it up"));
        };
        let opens_sessions = id.initiator() != self.side && self.config.webtransport_sessions > 0;
        let bytes = match x.recv.waiting.take() {
            Some(bytes) => bytes,
            None => {
                let webtransport =
                    opens_sessions || (self.side == Side::Client && self.config.webtransport_sessions > 0);
                let (noise, watch) = (&mut self.noise, &mut self.watch);
                let mut rules = Rules { side: self.side, section_max, webtransport, noise, watch };
                match x.recv.next(t, id, &mut rules)? {
                    Item::Section(bytes) => bytes,
                    Item::Oversized => return Ok(Got::Oversized),
                    Item::Data(data) => return Ok(Got::Data(data)),
                    Item::End => return Ok(Got::End),
                    Item::Blocked => return Ok(Got::Blocked),
                    Item::WebTransport(session) if opens_sessions => return Ok(Got::WebTransport(session)),
                    Item::WebTransport(_) => {
                        return Err(Error::connection(Code::FRAME_ERROR, "WT_STREAM on a request of ours"));
                    }
                }
            }
        };
        self.collector.begin(section);
        let collector = &mut self.collector;
        let mut seen = Seen::new(&self.watch);
        let decoded = self.decoder.decode(id, &bytes, |field| {
            seen.field(&field);
            collector.field(field)
        })?;
        match decoded {
            Decoded::Done => {
                seen.tell(&mut self.watch, id, bytes.len());
                // Acknowledgments are told in bunches: each costs a write here and a read there.
                if self.decoder.instructions().len() >= BUNCH {
                    self.pump_streams(t)?;
                }
                Ok(Got::Section)
            }
            Decoded::Blocked => {
                x.recv.waiting = Some(bytes);
                x.recv.look(t, id)?;
                Ok(Got::WaitsForTable)
            }
            Decoded::TooLarge => Ok(Got::Oversized),
        }
    }
}
