//! Chunks of text on their way to files, in a thread of its own.
//!
//! Whoever logs hands chunks over and never waits for the disk: the queue has a limit in bytes, and a chunk that does not
//! fit is given back. The thread opens a file for each chunk and closes it again, so that the number of connections does
//! not become a number of open files.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the end of a program waits for what is still to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// Where chunks end up; tests have slow and broken ones.
pub(super) trait Disk: Send + 'static {
    /// Adds bytes to the end of a file; `first` tells that it must not exist yet.
    fn append(&mut self, path: &Path, first: bool, bytes: &[u8]) -> io::Result<()>;
}

/// Files.
pub(super) struct Files;

impl Disk for Files {
    fn append(&mut self, path: &Path, first: bool, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        if first {
            options.write(true).create_new(true)
        } else {
            options.append(true)
        };
        options.open(path)?.write_all(bytes)
    }
}

/// A piece of a file.
pub(super) struct Chunk {
    pub(super) path: Arc<PathBuf>,
    /// The file begins with it.
    pub(super) first: bool,
    pub(super) bytes: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`, and in the chunk that is being written.
    bytes: usize,
    closed: bool,
    /// The thread has written everything and is gone.
    done: bool,
    failed: u64,
    first_failure: Option<String>,
}

struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
    bytes_max: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the files.
pub(super) struct Sink {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Sink {
    /// Starts the thread.
    pub(super) fn start(mut disk: impl Disk, bytes_max: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), news: Condvar::new(), bytes_max });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("courser-qlog".into()).spawn(move || serve(&theirs, &mut disk))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands a chunk over; gives it back when the queue is full.
    pub(super) fn push(&self, chunk: Chunk) -> Result<(), Chunk> {
        let mut queue = self.shared.lock();
        if queue.bytes + chunk.bytes.len() > self.shared.bytes_max || queue.closed {
            return Err(chunk);
        }
        queue.bytes += chunk.bytes.len();
        queue.chunks.push_back(chunk);
        drop(queue);
        self.shared.news.notify_all();
        Ok(())
    }

    /// Chunks that could not be written, and the first reason.
    pub(super) fn failures(&self) -> (u64, Option<String>) {
        let queue = self.shared.lock();
        (queue.failed, queue.first_failure.clone())
    }

    /// Waits until everything is written, but not forever. Says whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut queue = self.shared.lock();
        while queue.bytes > 0 && !queue.done {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.shared.news.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let written = self.flush(FLUSH_PATIENCE);
        self.shared.lock().closed = true;
        self.shared.news.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A disk that hangs must not keep the program from ending: then the thread is left to itself.
        if let Some(thread) = thread.filter(|_| written) {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared, disk: &mut impl Disk) {
    let mut queue = shared.lock();
    loop {
        if let Some(chunk) = queue.chunks.pop_front() {
            drop(queue);
            let result = disk.append(&chunk.path, chunk.first, &chunk.bytes);
            queue = shared.lock();
            queue.bytes -= chunk.bytes.len();
            if let Err(e) = result {
                queue.failed += 1;
                queue.first_failure.get_or_insert_with(|| format!("{}: {e}", chunk.path.display()));
            }
            shared.news.notify_all();
        } else if queue.closed {
            queue.done = true;
            drop(queue);
            shared.news.notify_all();
            return;
        } else {
            queue = shared.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Writes a chunk only when told to.
    struct Stuck(Receiver<()>);

    impl Disk for Stuck {
        fn append(&mut self, _: &Path, _: bool, _: &[u8]) -> io::Result<()> {
            self.0.recv().map_err(|_| io::Error::other("nobody is left"))
        }
    }

    fn chunk(n: usize) -> Chunk {
        Chunk { path: Arc::new("x".into()), first: false, bytes: vec![b'x'; n] }
    }

    #[test]
    fn a_disk_that_hangs_stops_nobody_and_the_queue_has_a_limit() {
        let (go, wait) = channel();
        let sink = Sink::start(Stuck(wait), 100).unwrap();
        let began = Instant::now();
        for _ in 0..10 {
            assert!(sink.push(chunk(10)).is_ok());
        }
        assert_eq!(sink.push(chunk(1)).err().map(|c| c.bytes.len()), Some(1), "the chunk comes back");
        assert!(!sink.flush(Duration::from_millis(1)));
        assert!(began.elapsed() < Duration::from_secs(5));
        for _ in 0..10 {
            go.send(()).unwrap();
        }
        assert!(sink.flush(Duration::from_secs(60)));
        assert!(sink.push(chunk(100)).is_ok(), "there is room again");
        go.send(()).unwrap();
    }

    #[test]
    fn a_file_is_not_overwritten_and_failures_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = Arc::new(dir.path().join("a.sqlog"));
        let sink = Sink::start(Files, 1000).unwrap();
        for (first, text) in [(true, "one "), (false, "two"), (true, "three")] {
            assert!(sink.push(Chunk { path: Arc::clone(&path), first, bytes: text.into() }).is_ok());
        }
        assert!(sink.flush(Duration::from_secs(60)));
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "one two");
        let (failed, why) = sink.failures();
        assert!(failed == 1 && why.unwrap().contains("a.sqlog"));
    }
}
