//! The server of the perf protocol: reads a stream to its end, then sends as many bytes as its head asked for.
//!
//! A one-way stream is answered on a one-way stream of our own. A stream that ends before its head is complete is
//! ended here too and otherwise ignored.

use std::collections::VecDeque;

use courser_core::ids::{Dir, StreamId};

use crate::apps::body::{Body, Counter, Feed, Sink};
use crate::failure::{Failure, Outcome};
use crate::pattern::{Pattern, Way};
use crate::perf_proto::HeadReader;
use crate::transport::{App, CODE_DIFFERS, Event, Peek, Streams};

/// Answers to one-way streams that wait for the peer to let us open a stream. A peer that asks for more than that
/// without taking answers is closed.
const WAITING_MAX: usize = 1024;

/// Room for requests that a connection without any keeps.
const ROOM_KEPT: usize = 4;

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
    id: StreamId,
    head: HeadReader,
    load: Sink,
    answer: Option<Feed>,
}

/// What clients ask for on one-way streams, and few do.
#[derive(Debug, Default)]
struct OneWay {
    /// Sizes of answers that no stream could be opened for yet, oldest first.
    waiting: VecDeque<u64>,
    /// Answers on streams of our own, by their numbers.
    answers: Vec<(StreamId, Feed)>,
}

/// The server's part of one connection. Most connections of a server are idle, so what is empty takes little.
#[derive(Debug)]
pub struct PerfServer {
    content: Content,
    /// Bytes of load that arrived and passed the check.
    received: Counter,
    /// By their numbers; new ones are the last.
    #[expect(clippy::vec_box, reason = "requests are large, come and go, and lie in order")]
    requests: Vec<Box<Request>>,
    one_way: Option<Box<OneWay>>,
}

const _: () = assert!(size_of::<PerfServer>() <= 64, "every connection has one");

impl PerfServer {
    /// A server for one new connection.
    #[must_use]
    pub const fn new(content: Content, received: Counter) -> Self {
        Self { content, received, requests: Vec::new(), one_way: None }
    }

    /// Where a stream's request lies, or belongs.
    fn place(&self, id: StreamId) -> Result<usize, usize> {
        self.requests.binary_search_by_key(&id, |r| r.id)
    }

    fn request(&mut self, id: StreamId) -> Option<&mut Request> {
        let at = self.place(id).ok()?;
        Some(&mut self.requests[at])
    }

    fn forget(&mut self, id: StreamId) {
        if let Ok(at) = self.place(id) {
            self.requests.remove(at);
        }
        if self.requests.is_empty() && self.requests.capacity() > ROOM_KEPT {
            self.requests = Vec::new();
        }
    }

    fn opened(&mut self, id: StreamId) -> Outcome {
        let body = self.content.body(id, Way::Up);
        let load = Sink::new(&body, None, self.received.clone())?;
        let request = Box::new(Request { id, head: HeadReader::default(), load, answer: None });
        match self.place(id) {
            Ok(at) => self.requests[at] = request,
            Err(at) => self.requests.insert(at, request),
        }
        Ok(())
    }

    fn readable<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        let Some(r) = self.request(id).filter(|r| r.answer.is_none()) else { return Ok(()) };
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
                    self.forget(id);
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
        let Ok(at) = self.place(id) else { return Ok(()) };
        let count = self.requests[at].head.count().unwrap_or(0);
        if id.dir() == Dir::Bi {
            self.requests[at].answer = Some(Feed::new(&self.content.body(id, Way::Down), 0, count)?);
            return self.writable(link, id);
        }
        self.forget(id);
        if count > 0 {
            let waiting = &mut self.one_way.get_or_insert_default().waiting;
            if waiting.len() == WAITING_MAX {
                link.close(0, "too many answers wait for a stream");
                return Err(Failure::PeerBroke { rule: "it asks for answers and takes none".into() });
            }
            waiting.push_back(count);
        }
        self.answer_waiting(link)
    }

    /// Opens streams for answers to one-way streams, as far as the peer lets us.
    fn answer_waiting<S: Streams>(&mut self, link: &mut S) -> Outcome {
        while let Some(one_way) = &mut self.one_way
            && let Some(count) = one_way.waiting.front().copied()
        {
            let Some(id) = link.open(Dir::Uni) else { return Ok(()) };
            one_way.waiting.pop_front();
            one_way.answers.push((id, Feed::new(&self.content.body(id, Way::Down), 0, count)?));
            self.writable(link, id)?;
        }
        Ok(())
    }

    fn writable<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        if let Some(one_way) = &mut self.one_way
            && let Ok(at) = one_way.answers.binary_search_by_key(&id, |(id, _)| *id)
        {
            let feed = &mut one_way.answers[at].1;
            feed.pump(link, id)?;
            if feed.is_finished() {
                self.drop_answer(id);
            }
        } else if let Some(feed) = self.request(id).and_then(|r| r.answer.as_mut()) {
            feed.pump(link, id)?;
            if feed.is_finished() {
                self.forget(id);
            }
        }
        Ok(())
    }

    fn drop_answer(&mut self, id: StreamId) {
        let Some(one_way) = &mut self.one_way else { return };
        one_way.answers.retain(|(other, _)| *other != id);
        if one_way.answers.is_empty() && one_way.waiting.is_empty() {
            self.one_way = None;
        }
    }

    fn stopped(&mut self, id: StreamId) {
        self.drop_answer(id);
        if self.request(id).is_some_and(|r| r.answer.is_some()) {
            self.forget(id);
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
                (self.requests, self.one_way) = (Vec::new(), None);
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
