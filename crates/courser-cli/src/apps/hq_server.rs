//! The server of hq-interop: one request a stream, answered with a file of one folder.

use std::path::PathBuf;
use std::sync::Arc;

use courser_core::ids::{Dir, StreamId};

use crate::apps::body::{Body, Feed};
use crate::apps::by_stream::ByStream;
use crate::failure::{Failure, Outcome};
use crate::hq;
use crate::transport::{App, CODE_REFUSED, Event, Peek, Streams};

#[derive(Debug)]
enum State {
    /// The request until now; at most [`hq::REQUEST_MAX`] bytes.
    Reading(Vec<u8>),
    Answering(Feed),
}

/// The server's part of one connection.
#[derive(Debug)]
pub struct HqServer {
    root: Arc<PathBuf>,
    streams: ByStream<State>,
}

impl HqServer {
    /// A server of the files below `root` for one new connection.
    #[must_use]
    pub fn new(root: Arc<PathBuf>) -> Self {
        Self { root, streams: ByStream::default() }
    }

    fn readable<S: Streams>(&mut self, link: &mut S, id: StreamId) {
        let Some(State::Reading(request)) = self.streams.get_mut(&id) else { return };
        loop {
            let n = match link.peek(id) {
                Peek::Data(data) if request.len() + data.len() <= hq::REQUEST_MAX => {
                    request.extend_from_slice(data);
                    data.len()
                }
                Peek::Blocked => return,
                Peek::End => break,
                Peek::Data(_) | Peek::Reset(_) | Peek::Gone => return self.refuse(link, id),
            };
            link.consume(id, n);
        }
        let feed = hq::parse_request(request)
            .and_then(|path| hq::file_inside(&self.root, path))
            .and_then(|file| Some((file.metadata().ok()?.len(), Body::File(file))))
            .and_then(|(len, body)| Feed::new(&body, 0, len).ok());
        match feed {
            Some(feed) => {
                self.streams.insert(id, State::Answering(feed));
                self.writable(link, id);
            }
            None => self.refuse(link, id),
        }
    }

    fn writable<S: Streams>(&mut self, link: &mut S, id: StreamId) {
        let Some(State::Answering(feed)) = self.streams.get_mut(&id) else { return };
        match feed.pump(link, id) {
            Ok(()) if feed.is_finished() => drop(self.streams.remove(&id)),
            Ok(()) => {}
            // A file that changed while it was sent is this stream's trouble, not the connection's.
            Err(_) => self.refuse(link, id),
        }
    }

    fn refuse<S: Streams>(&mut self, link: &mut S, id: StreamId) {
        self.streams.remove(&id);
        link.stop(id, CODE_REFUSED);
        link.reset(id, CODE_REFUSED);
    }
}

impl App for HqServer {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        match event {
            Event::Opened(id) if id.dir() == Dir::Uni => link.stop(id, CODE_REFUSED),
            Event::Opened(id) => {
                self.streams.insert(id, State::Reading(Vec::new()));
                self.readable(link, id);
            }
            Event::Readable(id) => self.readable(link, id),
            Event::Writable(id) => self.writable(link, id),
            Event::Stopped { id, .. } => drop(self.streams.remove(&id)),
            Event::Closed(_) => self.streams.clear(),
            Event::Connected | Event::Credit | Event::Acked(_) => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }
}

/// Checks that the folder can be served at all.
///
/// # Errors
/// It is no folder, or may not be read.
pub fn check_root(root: &std::path::Path) -> Outcome {
    std::fs::read_dir(root).map(drop).map_err(|e| Failure::reading(root, &e))
}
