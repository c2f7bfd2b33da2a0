//! A reader that gets one byte changed, so that anybody can see the check fail: between decryption and the program.

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};

use crate::failure::Outcome;
use crate::transport::{App, Event, Peek, Streams, Wrote};

/// A program whose reads pass through a `Flip`.
#[derive(Debug)]
pub struct Flipping<A> {
    /// The program.
    pub app: A,
    flip: Flip,
}

/// Which byte, and how many have passed.
#[derive(Debug)]
struct Flip {
    /// The byte to change, counted over all streams; `None`: none.
    at: Option<u64>,
    passed: u64,
    /// The piece with the changed byte.
    changed: Vec<u8>,
}

impl<A> Flipping<A> {
    /// Changes the `at`-th byte that `app` reads.
    pub fn new(app: A, at: Option<u64>) -> Self {
        Self { app, flip: Flip { at, passed: 0, changed: Vec::new() } }
    }

    /// Calls the program with its changed view of the connection.
    pub fn with<S: Streams, T>(&mut self, link: &mut S, f: impl FnOnce(&mut A, &mut View<'_, S>) -> T) -> T {
        f(&mut self.app, &mut View { link, flip: &mut self.flip })
    }
}

impl<A: App> App for Flipping<A> {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        self.app.on(&mut View { link, flip: &mut self.flip }, event)
    }

    fn done(&self) -> bool {
        self.app.done()
    }
}

/// A connection with a changed byte.
#[derive(Debug)]
pub struct View<'a, S> {
    link: &'a mut S,
    flip: &'a mut Flip,
}

impl<S: Streams> Streams for View<'_, S> {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.link.open(dir)
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> Wrote {
        self.link.write(id, data)
    }

    fn write_owned(&mut self, id: StreamId, data: &mut Bytes) -> Wrote {
        self.link.write_owned(id, data)
    }

    fn finish(&mut self, id: StreamId) {
        self.link.finish(id);
    }

    fn peek(&mut self, id: StreamId) -> Peek<'_> {
        let seen = self.link.peek(id);
        let (Peek::Data(data), Some(at)) = (seen, self.flip.at.and_then(|at| at.checked_sub(self.flip.passed))) else {
            return seen;
        };
        let Some(at) = usize::try_from(at).ok().filter(|at| *at < data.len()) else { return seen };
        self.flip.changed.clear();
        self.flip.changed.extend_from_slice(data);
        self.flip.changed[at] ^= 0x01;
        Peek::Data(&self.flip.changed)
    }

    fn consume(&mut self, id: StreamId, n: usize) {
        self.flip.passed += n as u64;
        self.link.consume(id, n);
    }

    fn reset(&mut self, id: StreamId, code: u64) {
        self.link.reset(id, code);
    }

    fn stop(&mut self, id: StreamId, code: u64) {
        self.link.stop(id, code);
    }

    fn close(&mut self, code: u64, reason: &str) {
        self.link.close(code, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::body::Counter;
    use crate::apps::fake::{Joint, Rules};
    use crate::apps::perf_client::{PerfClient, Plan};
    use crate::apps::perf_server::{Content, PerfServer};
    use crate::failure::Failure;

    fn run(at: Option<u64>) -> (Outcome, bool) {
        let mut joint = Joint::new(Rules::default());
        let client = PerfClient::new(Plan::uniform(4, 4, 5_000, 20_000, Content::Pattern), Counter::default());
        let mut client = Flipping::new(client, at);
        let mut server = PerfServer::new(Content::Pattern, Counter::default());
        client.with(&mut joint.end(courser_core::ids::Side::Client), |app, link| app.start(link)).unwrap();
        let (outcome, _) = joint.run(&mut client, &mut server);
        (outcome, client.done())
    }

    #[test]
    fn each_byte_that_is_changed_is_found_and_without_one_all_is_well() {
        assert_eq!(run(None), (Ok(()), true));
        assert_eq!(run(Some(80_000)), (Ok(()), true));
        for at in [0, 1, 40_001, 79_999] {
            match run(Some(at)) {
                (Err(Failure::Differs { mismatch, .. }), false) => assert_eq!(mismatch.expected ^ mismatch.found, 1),
                other => panic!("{at}: {other:?}"),
            }
        }
    }
}
