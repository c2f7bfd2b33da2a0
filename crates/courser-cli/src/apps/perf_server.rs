//! The server of the perf protocol: reads a stream to its end, then sends as many bytes as its head asked for.
//!
//! A one-way stream is answered on a one-way stream of our own. A stream that ends before its head is complete is
//! ended here too and otherwise ignored.

use std::collections::{HashMap, VecDeque};

use courser_core::ids::{Dir, StreamId};

use crate::apps::body::{Body, Counter, Feed, Sink};
use crate::failure::{Failure, Outcome};
use crate::pattern::{Pattern, Way};
use crate::perf_proto::HeadReader;
use crate::transport::{App, CODE_DIFFERS, Event, Peek, Streams};

/// Answers to one-way streams that wait for the peer to let us open a stream. A peer that asks for more than that
/// without taking answers is closed.
const WAITING_MAX: usize = 1024;

/// What the bytes of the streams are.
#[derive(Clone, Debug, Default)]
pub enum Content {
    /// A constant; nothing is checked.
    #[default]
    Fill,
    /// Made from stream and offset, and checked.
    Pattern,
    /// The n-th two-way stream carries the n-th file, both ways.
    Files(std::sync::Arc<[std::path::PathBuf]>),
}

impl Content {
    /// What stream `id` carries that way.
    #[must_use]
    pub fn body(&self, id: StreamId, way: Way) -> Body {
        match self {
            Self::Fill => Body::Fill,
            Self::Pattern => Body::Pattern(Pattern::of(id.0, way)),
            Self::Files(files) => match usize::try_from(id.index()).ok().and_then(|i| files.get(i)) {
                Some(path) => Body::File(path.clone()),
                None => Body::Fill,
            },
        }
    }
}

/// One stream of the client.
#[derive(Debug)]
struct Request {
    head: HeadReader,
    load: Sink,
    answer: Option<Feed>,
}

/// The server's part of one connection.
#[derive(Debug)]
pub struct PerfServer {
    content: Content,
    /// Bytes of load that arrived and passed the check.
    received: Counter,
    /// In boxes, so that a map which is empty again keeps pointers and no room for requests.
    requests: HashMap<StreamId, Box<Request>>,
    /// Sizes of answers to one-way streams that no stream could be opened for yet, oldest first.
    waiting: VecDeque<u64>,
    /// Answers on one-way streams of our own.
    answers: HashMap<StreamId, Feed>,
}

impl PerfServer {
    /// A server for one new connection.
    #[must_use]
    pub fn new(content: Content, received: Counter) -> Self {
        Self { content, received, requests: HashMap::new(), waiting: VecDeque::new(), answers: HashMap::new() }
    }

    fn opened(&mut self, id: StreamId) -> Outcome {
        let body = self.content.body(id, Way::Up);
        let load = Sink::new(&body, None, self.received.clone())?;
        self.requests.insert(id, Box::new(Request { head: HeadReader::default(), load, answer: None }));
        Ok(())
    }

    fn readable<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        let Some(r) = self.requests.get_mut(&id).filter(|r| r.answer.is_none()) else { return Ok(()) };
        loop {
            let n = match link.peek(id) {
                Peek::Data(data) => {
                    let skip = r.head.take(data);
                    r.load.take(id, &data[skip..])?;
                    data.len()
                }
                Peek::Blocked => return Ok(()),
                Peek::End => break,
                Peek::Reset(_) | Peek::Gone => {
                    // The client lost interest; what it asked for before is not wanted either.
                    self.requests.remove(&id);
                    if id.dir() == Dir::Bi {
                        link.reset(id, 0);
                    }
                    return Ok(());
                }
            };
            link.consume(id, n);
        }
        self.asked(link, id)
    }

    /// The client's end was read: answers.
    fn asked<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        let Some(r) = self.requests.get_mut(&id) else { return Ok(()) };
        let count = r.head.count().unwrap_or(0);
        if id.dir() == Dir::Bi {
            r.answer = Some(Feed::new(&self.content.body(id, Way::Down), 0, count)?);
            return self.writable(link, id);
        }
        self.requests.remove(&id);
        if count > 0 {
            if self.waiting.len() == WAITING_MAX {
                link.close(0, "too many answers wait for a stream");
                return Err(Failure::PeerBroke { rule: "it asks for answers and takes none".into() });
            }
            self.waiting.push_back(count);
        }
        self.answer_waiting(link)
    }

    /// Opens streams for answers to one-way streams, as far as the peer lets us.
    fn answer_waiting<S: Streams>(&mut self, link: &mut S) -> Outcome {
        while let Some(count) = self.waiting.front().copied() {
            let Some(id) = link.open(Dir::Uni) else { return Ok(()) };
            self.waiting.pop_front();
            self.answers.insert(id, Feed::new(&self.content.body(id, Way::Down), 0, count)?);
            self.writable(link, id)?;
        }
        Ok(())
    }

    fn writable<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        if let Some(feed) = self.answers.get_mut(&id) {
            feed.pump(link, id)?;
            if feed.is_finished() {
                self.answers.remove(&id);
            }
        } else if let Some(feed) = self.requests.get_mut(&id).and_then(|r| r.answer.as_mut()) {
            feed.pump(link, id)?;
            if feed.is_finished() {
                self.requests.remove(&id);
            }
        }
        Ok(())
    }

    fn stopped(&mut self, id: StreamId) {
        self.answers.remove(&id);
        if self.requests.get(&id).is_some_and(|r| r.answer.is_some()) {
            self.requests.remove(&id);
        }
    }
}

impl App for PerfServer {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        let done = match event {
            Event::Opened(id) => self.opened(id).and_then(|()| self.readable(link, id)),
            Event::Readable(id) => self.readable(link, id),
            Event::Writable(id) => self.writable(link, id),
            Event::Credit => self.answer_waiting(link),
            Event::Stopped { id, .. } => {
                self.stopped(id);
                Ok(())
            }
            Event::Connected | Event::Acked(_) => Ok(()),
            Event::Closed(_) => {
                self.requests.clear();
                self.answers.clear();
                self.waiting.clear();
                Ok(())
            }
        };
        if let Err(Failure::Differs { .. }) = done {
            link.close(CODE_DIFFERS, "received bytes differ from the pattern");
        }
        done
    }

    fn done(&self) -> bool {
        false
    }
}
