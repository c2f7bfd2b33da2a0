//! Where a stream's bytes come from ([`Feed`]), and what is done with those that arrive ([`Sink`]).

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use courser_core::ids::StreamId;
use courser_session::blocks::Blocks;

use crate::failure::{Failure, Outcome};
use crate::pattern::{Mismatch, Pattern};
use crate::transport::{Peek, Streams, Wrote};

/// Bytes that are made or read at a time; a compromise between calls and cache.
const BLOCK: usize = 64 << 10;
/// Bytes of the constant body, given away by reference.
const FILLER: usize = 1 << 20;
/// The filler; its value means nothing.
static FILL: [u8; FILLER] = [0x2a; FILLER];

/// Bytes that arrived and were checked, for whoever shows progress. Shared between the ends of a demonstration.
#[derive(Clone, Debug)]
pub struct Counter(Option<Arc<AtomicU64>>);

impl Default for Counter {
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

impl Counter {
    /// One that nobody reads, and that takes no memory: for the many connections of a server.
    #[must_use]
    pub const fn unread() -> Self {
        Self(None)
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        if let Some(sum) = &self.0 {
            sum.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The sum; zero of one that nobody reads.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.as_ref().map_or(0, |sum| sum.load(Ordering::Relaxed))
    }
}

/// What kind of bytes a stream carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// One constant, which costs nothing to make and proves nothing.
    Fill,
    /// Bytes made from their offset.
    Pattern(Pattern),
    /// A file's bytes.
    File(PathBuf),
}

#[derive(Debug)]
enum Source {
    Fill,
    /// And the memory of what is made.
    Pattern(Pattern, Box<Blocks>),
    File(PathBuf, File),
}

/// Bytes on their way into a stream, then its end.
#[derive(Debug)]
pub struct Feed {
    source: Source,
    /// Where `block` ends in the stream.
    made: u64,
    /// Bytes in all.
    len: u64,
    /// Made and not yet taken by the stream.
    block: Bytes,
    /// Whether the stream's end was set as well.
    finished: bool,
}

impl Feed {
    /// The bytes of `body` from `start` up to `len`.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn new(body: &Body, start: u64, len: u64) -> Outcome<Self> {
        let source = match body {
            Body::Fill => Source::Fill,
            Body::Pattern(p) => Source::Pattern(*p, Box::default()),
            Body::File(path) => {
                let file = File::open(path).map_err(|e| Failure::reading(path, &e))?;
                Source::File(path.clone(), file)
            }
        };
        debug_assert!(start <= len && (start == 0 || !matches!(source, Source::File(..))));
        Ok(Self { source, made: start, len, block: Bytes::new(), finished: false })
    }

    /// Bytes that are there already.
    #[must_use]
    pub fn of(block: Bytes) -> Self {
        let len = block.len() as u64;
        Self { source: Source::Fill, made: len, len, block, finished: false }
    }

    /// Whether everything and the end was handed to the stream.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Bytes that the stream has taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.made - self.block.len() as u64
    }

    /// Hands over as much as the stream takes; the end follows the last byte.
    ///
    /// A peer that wants no more ends the feed early; that is its right, and not an error.
    ///
    /// # Errors
    /// A file that cannot be read, or that became shorter.
    pub fn pump<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        self.pump_to(link, id, self.len)?;
        if !self.finished && self.taken() == self.len {
            link.finish(id);
            self.finished = true;
        }
        Ok(())
    }

    /// The same up to `stop`, without the end.
    ///
    /// # Errors
    /// As [`Feed::pump`].
    pub fn pump_to<S: Streams>(&mut self, link: &mut S, id: StreamId, stop: u64) -> Outcome {
        let stop = stop.min(self.len);
        while !self.finished && self.taken() < stop {
            if self.block.is_empty() {
                self.make(stop - self.made)?;
            }
            let offered = self.block.len();
            match link.write_owned(id, &mut self.block) {
                Wrote::Took(n) if n == offered => debug_assert!(self.block.is_empty()),
                Wrote::Took(_) => return Ok(()),
                Wrote::Stopped(_) | Wrote::Gone => self.finished = true,
            }
        }
        Ok(())
    }

    /// The next piece, for whoever writes it by itself; `None` after the last.
    ///
    /// # Errors
    /// As [`Feed::pump`].
    pub fn piece(&mut self) -> Outcome<Option<Bytes>> {
        if self.block.is_empty() && self.made < self.len {
            self.make(self.len - self.made)?;
        }
        Ok(Some(std::mem::take(&mut self.block)).filter(|b| !b.is_empty()))
    }

    /// Makes the next block, at most `room` bytes.
    fn make(&mut self, room: u64) -> Outcome {
        let cap = |most: usize| usize::try_from(room).unwrap_or(most).min(most);
        self.block = match &mut self.source {
            Source::Fill => Bytes::from_static(&FILL[..cap(FILLER)]),
            Source::Pattern(p, blocks) => blocks.make(cap(BLOCK), |out| p.fill(self.made, out)),
            Source::File(path, file) => {
                let mut buf = BytesMut::zeroed(cap(BLOCK));
                let n = file.read(&mut buf).map_err(|e| Failure::reading(path, &e))?;
                if n == 0 {
                    let what = path.display().to_string();
                    return Err(Failure::WrongLength { what, expected: self.len, found: self.made });
                }
                buf.truncate(n);
                buf.freeze()
            }
        };
        self.made += self.block.len() as u64;
        Ok(())
    }
}

#[derive(Debug)]
enum Check {
    /// Only counted.
    Count,
    /// Compared with bytes made from the offset.
    Pattern(Pattern),
    /// Compared with a file.
    Same(PathBuf, File, Vec<u8>),
    /// Kept in a file.
    Save(PathBuf, File),
}

/// What arrives on a stream: counted, checked or kept.
#[derive(Debug)]
pub struct Sink {
    check: Check,
    /// Bytes so far.
    got: u64,
    /// Bytes that are to come; `None` when only the peer knows.
    expected: Option<u64>,
    /// Told of every byte that passed the check.
    counter: Counter,
    ended: bool,
}

impl Sink {
    /// Checks against `body`.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn new(body: &Body, expected: Option<u64>, counter: Counter) -> Outcome<Self> {
        let check = match body {
            Body::Fill => Check::Count,
            Body::Pattern(p) => Check::Pattern(*p),
            Body::File(path) => {
                let file = File::open(path).map_err(|e| Failure::reading(path, &e))?;
                Check::Same(path.clone(), file, Vec::new())
            }
        };
        Ok(Self { check, got: 0, expected, counter, ended: false })
    }

    /// Keeps everything in a new file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn save(path: &Path) -> Outcome<Self> {
        let file = File::create(path).map_err(|e| Failure::writing(path, &e))?;
        let check = Check::Save(path.to_owned(), file);
        Ok(Self { check, got: 0, expected: None, counter: Counter::default(), ended: false })
    }

    /// Bytes so far.
    #[must_use]
    pub fn got(&self) -> u64 {
        self.got
    }

    /// Whether the stream's end was seen.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Reads everything that lies on the stream.
    ///
    /// # Errors
    /// A byte differs, the length is wrong, the peer gave up, or a file failed.
    pub fn drain<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        while !self.ended {
            let n = match link.peek(id) {
                Peek::Data(data) => {
                    self.take(id, data)?;
                    data.len()
                }
                Peek::Blocked => return Ok(()),
                Peek::End => return self.end(id),
                Peek::Reset(code) => return Err(Failure::PeerReset { stream: id.0, code }),
                Peek::Gone => return Err(self.wrong_length(id)),
            };
            link.consume(id, n);
        }
        Ok(())
    }

    /// The next bytes of the stream.
    ///
    /// # Errors
    /// As [`Sink::drain`].
    pub fn take(&mut self, id: StreamId, data: &[u8]) -> Outcome {
        if self.expected.is_some_and(|most| most - self.got < data.len() as u64) {
            self.got += data.len() as u64;
            return Err(self.wrong_length(id));
        }
        let differs = |mismatch| Failure::Differs { stream: id.0, mismatch };
        match &mut self.check {
            Check::Count => {}
            Check::Pattern(p) => p.check(self.got, data).map_err(differs)?,
            Check::Same(path, file, buf) => {
                buf.resize(data.len(), 0);
                file.read_exact(buf).map_err(|e| Failure::reading(path, &e))?;
                compare(self.got, buf, data).map_err(differs)?;
            }
            Check::Save(path, file) => file.write_all(data).map_err(|e| Failure::writing(path, &e))?,
        }
        self.got += data.len() as u64;
        self.counter.add(data.len() as u64);
        Ok(())
    }

    /// The end of the stream.
    ///
    /// # Errors
    /// The length is wrong.
    pub fn end(&mut self, id: StreamId) -> Outcome {
        if self.expected.is_some_and(|n| n != self.got) {
            return Err(self.wrong_length(id));
        }
        self.ended = true;
        Ok(())
    }

    fn wrong_length(&self, id: StreamId) -> Failure {
        let expected = self.expected.unwrap_or(self.got);
        Failure::WrongLength { what: format!("stream {id}"), expected, found: self.got }
    }
}

/// Finds the first byte of `found` that differs.
fn compare(offset: u64, expected: &[u8], found: &[u8]) -> Result<(), Mismatch> {
    if expected == found {
        return Ok(());
    }
    match (offset..).zip(expected.iter().zip(found)).find(|(_, (e, f))| e != f) {
        Some((offset, (expected, found))) => Err(Mismatch { offset, expected: *expected, found: *found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::pattern::Way;

    use super::*;

    const ID: StreamId = StreamId(4);

    #[test]
    fn a_sink_finds_the_flipped_byte_in_pattern_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let pattern = Pattern::of(1, Way::Up);
        let data = pattern.bytes(0, 100_000);
        std::fs::write(&path, &data).unwrap();
        for body in [Body::Pattern(pattern), Body::File(path)] {
            let counter = Counter::default();
            let mut sink = Sink::new(&body, Some(100_000), counter.clone()).unwrap();
            sink.take(ID, &data[..70_000]).unwrap();
            let mut rest = data[70_000..].to_vec();
            rest[5] ^= 1;
            match sink.take(ID, &rest).unwrap_err() {
                Failure::Differs { stream: 4, mismatch } => assert_eq!(mismatch.offset, 70_005),
                other => panic!("{other}"),
            }
            assert_eq!(counter.get(), 70_000);
        }
    }

    #[test]
    fn a_sink_takes_no_more_than_expected() {
        let mut sink = Sink::new(&Body::Fill, Some(10), Counter::default()).unwrap();
        sink.take(ID, &[0; 10]).unwrap();
        let e = sink.take(ID, &[0; 1]).unwrap_err();
        assert_eq!(e, Failure::WrongLength { what: "stream 4".into(), expected: 10, found: 11 });
    }

    #[test]
    fn files_that_are_missing_are_named() {
        let gone = PathBuf::from("/nonexistent/file");
        let e = Feed::new(&Body::File(gone.clone()), 0, 1).unwrap_err();
        assert_eq!(e.code(), 7);
        assert_eq!(Sink::save(&gone).unwrap_err().code(), 7);
    }
}
