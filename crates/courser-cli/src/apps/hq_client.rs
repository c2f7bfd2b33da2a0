//! The client of hq-interop: fetches files over one connection and keeps them in a folder.

use std::collections::VecDeque;
use std::path::PathBuf;

use courser_core::ids::{Dir, StreamId};

use crate::apps::body::{Feed, Sink};
use crate::apps::by_stream::ByStream;
use crate::apps::exchange::Exchange;
use crate::failure::Outcome;
use crate::hq::{self, Url};
use crate::transport::{App, Event, Streams};

/// Requests under way at once; each has an open file, of which a process usually may have 1,024.
const AT_ONCE: usize = 500;

/// The client's part of one connection.
#[derive(Debug)]
pub struct HqClient {
    folder: PathBuf,
    todo: VecDeque<Url>,
    streams: ByStream<Exchange>,
    /// Bytes that were received in files that are complete.
    bytes: u64,
    connected: bool,
}

impl HqClient {
    /// Will fetch all of `urls` into `folder`.
    #[must_use]
    pub fn new(urls: impl IntoIterator<Item = Url>, folder: PathBuf) -> Self {
        let todo = urls.into_iter().collect();
        Self { folder, todo, streams: ByStream::default(), bytes: 0, connected: false }
    }

    /// Bytes of the files that are complete.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn ask<S: Streams>(&mut self, link: &mut S) -> Outcome {
        while self.connected && self.streams.len() < AT_ONCE && !self.todo.is_empty() {
            let Some(id) = link.open(Dir::Bi) else { return Ok(()) };
            let Some(url) = self.todo.pop_front() else { return Ok(()) };
            let sink = Sink::save(&self.folder.join(&url.name))?;
            let request = Feed::of(hq::request(&url.path).into());
            self.streams.insert(id, Exchange::new(id, &[], request, sink));
            self.turn(link, id)?;
        }
        Ok(())
    }

    fn turn<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        let Some(x) = self.streams.get_mut(&id) else { return Ok(()) };
        x.write(link)?;
        x.read(link)?;
        if x.is_done() {
            self.bytes += x.received();
            self.streams.remove(&id);
        }
        Ok(())
    }
}

impl App for HqClient {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        match event {
            Event::Connected => {
                self.connected = true;
                self.ask(link)
            }
            Event::Credit => self.ask(link),
            Event::Readable(id) | Event::Writable(id) => {
                self.turn(link, id)?;
                self.ask(link)
            }
            Event::Opened(id) => {
                link.stop(id, 0);
                Ok(())
            }
            // A server that refuses resets its own direction as well, and that is what counts.
            Event::Stopped { .. } | Event::Acked(_) => Ok(()),
            Event::Closed(_) if self.done() => Ok(()),
            Event::Closed(why) => Err(why),
        }
    }

    fn done(&self) -> bool {
        self.connected && self.todo.is_empty() && self.streams.is_empty()
    }
}
