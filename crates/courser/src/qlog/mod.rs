//! Traces of connections in the qlog format, a file for each connection and end.
//!
//! The files follow draft-ietf-quic-qlog-main-schema-14 and draft-ietf-quic-qlog-quic-events-13, as JSON text sequences
//! (`.sqlog`), and are named by the client's first destination connection ID and the end that wrote them, so that the
//! two files of a connection stand side by side.
//!
//! [`Qlog`] is the folder with its writer; [`Qlog::observer`] gives an engine the eyes for it:
//!
//! ```no_run
//! use courser::clock::Clock;
//! use courser::qlog::{Qlog, QlogConfig};
//!
//! let qlog = Qlog::open(QlogConfig::new("traces"))?;
//! let observer = qlog.observer(Clock::start());
//! # drop(observer);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | File | What it holds |
//! |---|---|
//! | `log` | one connection: its text so far, its limits, what was told last |
//! | `events` | events of the core as events of the drafts |
//! | `frames` | headers and frames |
//! | `http` | events of HTTP/3 (draft-ietf-quic-qlog-h3-events-13) |
//! | `json` | JSON text |
//! | `sink` | the thread that writes files |
//!
//! **Bounds.** A connection buffers 16 KiB of text, a file has a limit and says in its last event that it was reached, the
//! queue to the writer has a limit in bytes: what does not fit is counted, and the file says how many events it lacks. The
//! worker never waits for the disk. **Privacy.** Data of streams and datagrams, TLS messages, keys and tokens are never
//! written; addresses and connection IDs are. Of the fields of HTTP messages the names are, and the values of a list of harmless
//! ones; of a path the query is not.

mod events;
mod frames;
#[cfg(feature = "h3")]
pub(crate) mod http;
mod json;
mod log;
mod sink;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use courser_core::ids::ConnKey;
use courser_core::observe::{Event, Interest, Kind, Observer, Step};
use courser_core::time::Instant;

use self::log::Log;
use self::sink::{Disk, Files, Sink};
use crate::clock::Clock;

/// Where traces go, and how much of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QlogConfig {
    /// The folder; it is made when it is not there.
    pub dir: PathBuf,
    /// Bytes of a file, at most.
    pub file_bytes_max: u64,
    /// Files, at most; later connections are not traced.
    pub files_max: u64,
    /// Bytes that wait for the disk, at most.
    pub queue_bytes_max: usize,
}

impl QlogConfig {
    /// That folder, 1 GiB a file, 100,000 files, 32 MiB that wait.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), file_bytes_max: 1 << 30, files_max: 100_000, queue_bytes_max: 32 << 20 }
    }

    /// The same with this limit for a file.
    #[must_use]
    pub const fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = bytes;
        self
    }
}

/// What came of the traces so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QlogStats {
    /// Connections with a trace.
    pub files: u64,
    /// Connections without one, because there are [`QlogConfig::files_max`] already.
    pub skipped: u64,
    /// Events that found no room on their way to the disk.
    pub dropped: u64,
    /// Files that reached their limit.
    pub full: u64,
    /// Writes that failed, and why the first one did.
    pub failed: (u64, Option<String>),
}

/// Counters that all observers share.
#[derive(Default)]
struct Counts {
    files: AtomicU64,
    skipped: AtomicU64,
    dropped: AtomicU64,
    full: AtomicU64,
}

struct Inner {
    config: QlogConfig,
    sink: Sink,
    counts: Counts,
}

/// A folder of traces, and the thread that writes them. Clones are the same folder; what is left is written when the last
/// clone and the last observer are gone.
#[derive(Clone)]
pub struct Qlog(Arc<Inner>);

impl fmt::Debug for Qlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qlog").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl PartialEq for Qlog {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Qlog {
    /// Makes the folder and starts the writer.
    ///
    /// # Errors
    /// There can be no such folder, or the system gives no thread.
    pub fn open(config: QlogConfig) -> io::Result<Self> {
        std::fs::create_dir_all(&config.dir)?;
        Self::with_disk(config, Files)
    }

    fn with_disk(config: QlogConfig, disk: impl Disk) -> io::Result<Self> {
        let sink = Sink::start(disk, config.queue_bytes_max)?;
        Ok(Self(Arc::new(Inner { config, sink, counts: Counts::default() })))
    }

    /// Observes one engine, which is driven with that clock.
    #[must_use]
    pub fn observer(&self, clock: Clock) -> Box<dyn Observer> {
        self.observer_from(clock.now(), SystemTime::now())
    }

    /// Observes one engine whose time is at `now` when the wall clock shows `wall`.
    #[must_use]
    pub fn observer_from(&self, now: Instant, wall: SystemTime) -> Box<dyn Observer> {
        Box::new(Scribe { qlog: self.clone(), logs: HashMap::new(), now, wall })
    }

    /// What came of the traces so far.
    #[must_use]
    pub fn stats(&self) -> QlogStats {
        let counts = &self.0.counts;
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        QlogStats {
            files: of(&counts.files),
            skipped: of(&counts.skipped),
            dropped: of(&counts.dropped),
            full: of(&counts.full),
            failed: self.0.sink.failures(),
        }
    }

    /// Waits until everything that was handed over is written, at most so long. Says whether it is.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.sink.flush(patience)
    }
}

/// The observer of one engine.
struct Scribe {
    qlog: Qlog,
    /// Bounded by the engine's table of connections, and by [`QlogConfig::files_max`].
    logs: HashMap<ConnKey, Log>,
    /// The engine's time when the wall clock showed `wall`.
    now: Instant,
    wall: SystemTime,
}

impl Scribe {
    fn begin(&mut self, now: Instant, key: ConnKey, start: &courser_core::observe::Start<'_>) {
        let counts = &self.qlog.0.counts;
        if counts.files.load(Ordering::Relaxed) >= self.qlog.0.config.files_max {
            counts.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let wall = self.wall + now.since(self.now);
        self.logs.insert(key, Log::new(&self.qlog.0.config, now, wall, start));
    }
}

impl Observer for Scribe {
    fn interest(&self) -> Interest {
        [
            Kind::PacketFate,
            Kind::DatagramBuilt,
            Kind::Congestion,
            Kind::Life,
            Kind::PacketOpened,
            Kind::PacketDropped,
            Kind::Data,
            Kind::Limit,
            Kind::Path,
            Kind::Note,
        ]
        .into_iter()
        .fold(Interest::NONE, Interest::with)
    }

    fn on(&mut self, now: Instant, key: ConnKey, event: &Event<'_>) {
        match event {
            Event::Life(Step::Started(start)) => return self.begin(now, key, start),
            // There is nothing to tell of it, and nothing was handed over yet.
            Event::Life(Step::Dismissed) => return drop(self.logs.remove(&key)),
            _ => {}
        }
        let Some(log) = self.logs.get_mut(&key) else { return };
        log.on(now, event);
        let ended = matches!(event, Event::Life(Step::Ended));
        log.hand_over(now, ended, &self.qlog.0.sink, &self.qlog.0.counts);
        if ended {
            self.logs.remove(&key);
        }
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        for log in self.logs.values_mut() {
            log.hand_over(log.newest(), true, &self.qlog.0.sink, &self.qlog.0.counts);
        }
    }
}
