//! What connections do: jobs on streams, with bytes that follow from their offsets.
//!
//! Each stream starts with eight bytes: how many bytes its opener wants back. Behind them comes the pattern. The other end
//! checks the pattern, and at the end of a two-way stream sends back as many bytes of the pattern as were wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use courser_core::engine::{Engine, Event};
use courser_core::error::{ApiMisuse, CloseReason};
use courser_core::ids::{ConnKey, Dir, StreamId};
use courser_core::stream::{Read, ReadError, StreamEvent, WriteError};

const HEADER: u64 = 8;
const PERIOD: u64 = 65_521;
const SPAN: usize = 1 << 16;

/// Bytes of a stream from an offset on: `len` of them, at most 65,536.
#[must_use]
pub fn pattern(id: StreamId, offset: u64, len: usize) -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let byte = |i: u64| crate::rng::mix(i % PERIOD) as u8;
        (0..PERIOD + SPAN as u64).map(byte).collect()
    });
    let at = (offset.wrapping_add(id.0.wrapping_mul(977)) % PERIOD) as usize;
    &table[at..at + len.min(SPAN)]
}

/// One stream's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Direction.
    pub dir: Dir,
    /// Bytes to send behind the header.
    pub up: u64,
    /// Bytes wanted back.
    pub down: u64,
    /// Not before that time of the world, in microseconds.
    pub at_us: u64,
}

impl Job {
    /// A request for so many bytes.
    #[must_use]
    pub const fn fetch(down: u64) -> Self {
        Self { dir: Dir::Bi, up: 0, down, at_us: 0 }
    }

    /// So many bytes in one direction.
    #[must_use]
    pub const fn send(up: u64) -> Self {
        Self { dir: Dir::Uni, up, down: 0, at_us: 0 }
    }

    /// A request and a response.
    #[must_use]
    pub const fn exchange(up: u64, down: u64) -> Self {
        Self { dir: Dir::Bi, up, down, at_us: 0 }
    }

    /// The same, not before that time.
    #[must_use]
    pub const fn at(self, at_us: u64) -> Self {
        Self { at_us, ..self }
    }
}

/// How quickly an application reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// All that is there.
    #[default]
    Greedy,
    /// Nothing.
    Never,
    /// So many bytes each so many microseconds.
    Every {
        /// Bytes at once.
        bytes: usize,
        /// Microseconds.
        us: u64,
    },
}

/// What an application is to do.
#[derive(Clone, Debug, Default)]
pub struct AppConfig {
    /// Streams to open.
    pub jobs: Vec<Job>,
    /// Reading.
    pub pace: Pace,
    /// Close with code 0 once all jobs are done.
    pub close_when_done: bool,
}

/// What an application saw. Times are microseconds of the world.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The handshake was complete.
    pub connected_us: Option<u64>,
    /// The server's answer to 0-RTT.
    pub early: Option<bool>,
    /// Streams that were readable before the handshake was complete, and told to be early.
    pub read_early: u64,
    /// The handshake was confirmed.
    pub confirmed_us: Option<u64>,
    /// The first byte of a stream was read.
    pub first_byte_us: Option<u64>,
    /// The last byte of a stream was read.
    pub last_byte_us: Option<u64>,
    /// All jobs were done.
    pub done_us: Option<u64>,
    /// The connection was over, and why.
    pub closed: Option<(u64, CloseReason)>,
    /// Bytes of patterns read and right.
    pub bytes_in: u64,
    /// Bytes of patterns written.
    pub bytes_out: u64,
    /// Streams read to their end.
    pub ends: u64,
    /// Streams whose every byte the peer has.
    pub acked: u64,
    /// When that was told, of each.
    pub acked_us: BTreeMap<StreamId, u64>,
    /// Streams that were reset or stopped by the peer.
    pub broken: u64,
    /// Streams that were reset here and whose promise the peer has.
    pub delivered: Vec<StreamId>,
    /// How many bytes, the header included, were read of each stream before the peer's reset was told.
    pub resets: BTreeMap<StreamId, u64>,
    /// Times that it was told of room for datagrams.
    pub datagram_room: u64,
    /// Times that it was told of fates of datagrams.
    pub datagram_fates: u64,
    /// What should not have been.
    pub wrong: Vec<String>,
}

struct Sending {
    at: u64,
    end: u64,
    /// What the header says, on streams of ours.
    wanted: Option<u64>,
}

#[derive(Default)]
struct Receiving {
    at: u64,
    /// The header, on streams of the peer.
    header: Option<[u8; HEADER as usize]>,
    expected: Option<u64>,
}

/// The state machine of one connection.
#[derive(Default)]
pub struct App {
    config: AppConfig,
    /// Jobs that were begun.
    begun: usize,
    /// It was closed here.
    gone: bool,
    /// The peer allows no more streams at the moment.
    held_up: bool,
    /// Streams that were given up here or by the peer: what is still heard of them is neither right nor wrong.
    abandoned: BTreeSet<StreamId>,
    sending: BTreeMap<StreamId, Sending>,
    receiving: BTreeMap<StreamId, Receiving>,
    open: bool,
    next_read_us: Option<u64>,
    /// What it saw.
    pub report: Report,
}

/// The engine, the connection and the time, for one call.
pub(super) struct Cx<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) key: ConnKey,
    pub(super) now_us: u64,
    pub(super) now: courser_core::time::Instant,
    pub(super) scratch: &'a mut [u8],
}

impl App {
    pub(super) fn new(config: AppConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Whether all jobs are done: everything sent was acknowledged, everything wanted was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.report.done_us.is_some()
    }

    /// Adds a job.
    pub fn add(&mut self, job: Job) {
        self.config.jobs.push(job);
        self.report.done_us = None;
    }

    /// Whether nothing is to be sent or read at the moment, and no job waits to be begun.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.begun == self.config.jobs.len() && self.sending.is_empty() && self.receiving.is_empty()
    }

    /// Streams on which something is to be sent or read still.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        let ids: BTreeSet<StreamId> = self.sending.keys().chain(self.receiving.keys()).copied().collect();
        ids.into_iter()
    }

    /// The caller has reset or stopped a stream, or both: nothing is sent or expected there any more.
    pub fn abandon(&mut self, now_us: u64, id: StreamId) {
        self.abandoned.insert(id);
        self.sending.remove(&id);
        self.receiving.remove(&id);
        if self.is_over() {
            self.report.done_us.get_or_insert(now_us);
        }
    }

    /// The caller has closed the connection: nothing is sent or read any more.
    pub fn give_up(&mut self) {
        self.gone = true;
        self.open = false;
        self.sending.clear();
        self.receiving.clear();
    }

    /// Changes how it reads from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.config.pace = pace;
        self.next_read_us = Some(0);
    }

    /// When it has something to do although nothing happens.
    pub(super) fn deadline(&self) -> Option<u64> {
        if !self.open {
            return None;
        }
        // One that waits for the peer to allow another stream waits for that alone.
        let job = self.config.jobs.get(self.begun).map(|j| j.at_us).filter(|at| *at > 0 && !self.held_up);
        [job, self.next_read_us].into_iter().flatten().min()
    }

    pub(super) fn on_time(&mut self, cx: &mut Cx<'_>) {
        if !self.open {
            return;
        }
        if self.config.jobs.get(self.begun).is_some_and(|j| j.at_us <= cx.now_us) {
            self.begin_jobs(cx);
        }
        if self.next_read_us.is_some_and(|at| at <= cx.now_us) {
            self.next_read_us = None;
            self.read_paced(cx);
        }
        self.check_done(cx);
    }

    /// 0-RTT can be sent: the jobs begin at once.
    pub(super) fn on_early(&mut self, cx: &mut Cx<'_>) {
        self.open = true;
        self.begin_jobs(cx);
    }

    pub(super) fn on_event(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Connected => {
                self.open = true;
                self.report.connected_us.get_or_insert(cx.now_us);
                self.begin_jobs(cx);
            }
            Event::EarlyData { accepted } => self.report.early = Some(accepted),
            Event::Confirmed => {
                self.report.confirmed_us.get_or_insert(cx.now_us);
            }
            Event::Stream(_) if self.gone => {}
            Event::Stream(event) => self.on_stream(cx, event),
            Event::DatagramRoom => self.report.datagram_room += 1,
            Event::DatagramFates => self.report.datagram_fates += 1,
            Event::Closed(reason) => {
                self.open = false;
                self.next_read_us = None;
                if let Some((_, first)) = &self.report.closed {
                    self.report.wrong.push(format!("closed twice: {first:?}, {reason:?}"));
                }
                self.report.closed = Some((cx.now_us, reason));
            }
            _ => {}
        }
        self.check_done(cx);
    }

    fn on_stream(&mut self, cx: &mut Cx<'_>, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir } => {
                while let Ok(Some(id)) = cx.engine.accept_stream(cx.key, dir) {
                    self.report.read_early += u64::from(cx.engine.is_early(cx.key, id) == Ok(true));
                    self.receiving.insert(id, Receiving { header: Some([0; 8]), ..Receiving::default() });
                    self.readable(cx, id);
                }
            }
            StreamEvent::Readable(id) => self.readable(cx, id),
            StreamEvent::Writable(id) => self.write(cx, id),
            StreamEvent::Stopped { id, .. } => {
                self.report.broken += 1;
                self.sending.remove(&id);
                // All of it may be on its way already, and arrive.
                self.abandoned.insert(id);
            }
            StreamEvent::AllAcked(id) if self.abandoned.contains(&id) => {}
            StreamEvent::AllAcked(id) => {
                if self.sending.remove(&id).is_none_or(|s| s.at < s.end) {
                    self.report.wrong.push(format!("{id:?}: all acknowledged although not all was written"));
                }
                self.report.acked += 1;
                self.report.acked_us.insert(id, cx.now_us);
            }
            StreamEvent::ResetDelivered(id) => self.report.delivered.push(id),
            StreamEvent::Available { .. } => self.begin_jobs(cx),
            // No job meters its streams.
            StreamEvent::Settled { .. } => {}
        }
    }

    fn begin_jobs(&mut self, cx: &mut Cx<'_>) {
        self.held_up = false;
        while let Some(job) = self.config.jobs.get(self.begun).copied().filter(|j| j.at_us <= cx.now_us) {
            match cx.engine.open_stream(cx.key, job.dir) {
                Ok(Some(id)) => {
                    self.begun += 1;
                    let end = HEADER + job.up;
                    self.sending.insert(id, Sending { at: 0, end, wanted: Some(job.down) });
                    if job.dir == Dir::Bi {
                        self.receiving.insert(id, Receiving { expected: Some(job.down), ..Receiving::default() });
                    }
                    self.write(cx, id);
                }
                Ok(None) => {
                    self.held_up = true;
                    return;
                }
                // It is over, which is told next.
                Err(ApiMisuse::Closing) => self.begun = self.config.jobs.len(),
                Err(error) => {
                    self.report.wrong.push(format!("open: {error:?}"));
                    self.begun = self.config.jobs.len();
                }
            }
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, id: StreamId) {
        let Some(s) = self.sending.get_mut(&id) else { return };
        while s.at < s.end {
            let header = s.wanted.map(u64::to_be_bytes);
            let part = match &header {
                Some(header) if s.at < HEADER => &header[s.at as usize..],
                _ => pattern(id, s.at, (s.end - s.at).min(SPAN as u64) as usize),
            };
            match cx.engine.write(cx.key, id, part) {
                Ok(n) => {
                    s.at += n as u64;
                    self.report.bytes_out += n as u64;
                    if n < part.len() {
                        return;
                    }
                }
                // The peer wants no more of it, or has closed, which is told next.
                Err(WriteError::Stopped(_) | WriteError::Misuse(ApiMisuse::Closing)) => return,
                Err(error) => return self.report.wrong.push(format!("write {id:?}: {error:?}")),
            }
        }
        if let Err(error) = cx.engine.finish(cx.key, id)
            && !matches!(error, WriteError::Stopped(_))
        {
            self.report.wrong.push(format!("finish {id:?}: {error:?}"));
        }
    }

    fn readable(&mut self, cx: &mut Cx<'_>, id: StreamId) {
        match self.config.pace {
            Pace::Greedy => {
                self.read(cx, id, usize::MAX);
            }
            Pace::Never => {}
            Pace::Every { us, .. } => {
                self.next_read_us.get_or_insert(cx.now_us + us);
            }
        }
    }

    fn read_paced(&mut self, cx: &mut Cx<'_>) {
        let (mut left, us) = match self.config.pace {
            Pace::Greedy => (usize::MAX, None),
            Pace::Never => return,
            Pace::Every { bytes, us } => (bytes, Some(us)),
        };
        let ids: Vec<_> = self.receiving.keys().copied().collect();
        for id in ids {
            left = left.saturating_sub(self.read(cx, id, left));
        }
        if let Some(us) = us
            && !self.receiving.is_empty()
        {
            self.next_read_us = Some(cx.now_us + us);
        }
    }

    /// Reads and checks; returns how much.
    fn read(&mut self, cx: &mut Cx<'_>, id: StreamId, max: usize) -> usize {
        let mut total = 0;
        while total < max && self.receiving.contains_key(&id) {
            let room = (max - total).min(cx.scratch.len());
            match cx.engine.read(cx.key, id, &mut cx.scratch[..room]) {
                Ok(Read::Bytes(n)) => {
                    total += n;
                    self.check(cx.now_us, id, &cx.scratch[..n]);
                }
                Ok(Read::Blocked) => return total,
                Ok(Read::Finished) => {
                    self.ended(cx, id);
                    return total;
                }
                Err(ReadError::Reset(_)) => {
                    self.report.broken += 1;
                    let read = self.receiving.remove(&id).map_or(0, |r| r.at);
                    self.report.resets.insert(id, read);
                    return total;
                }
                // An event may be older than the end of its stream.
                Err(_) => return total,
            }
        }
        total
    }

    fn check(&mut self, now_us: u64, id: StreamId, bytes: &[u8]) {
        let Some(r) = self.receiving.get_mut(&id) else {
            return self.report.wrong.push(format!("{id:?} has bytes although it is over"));
        };
        self.report.first_byte_us.get_or_insert(now_us);
        self.report.last_byte_us = Some(now_us);
        let mut bytes = bytes;
        if let Some(header) = &mut r.header {
            while r.at < HEADER && !bytes.is_empty() {
                header[r.at as usize] = bytes[0];
                (r.at, bytes) = (r.at + 1, &bytes[1..]);
            }
        }
        while !bytes.is_empty() {
            let n = bytes.len().min(SPAN);
            if bytes[..n] != *pattern(id, r.at, n) {
                self.report.wrong.push(format!("{id:?}: wrong bytes near offset {}", r.at));
            }
            self.report.bytes_in += n as u64;
            (r.at, bytes) = (r.at + n as u64, &bytes[n..]);
        }
    }

    fn ended(&mut self, cx: &mut Cx<'_>, id: StreamId) {
        let Some(r) = self.receiving.remove(&id) else {
            return self.report.wrong.push(format!("{id:?} ended twice"));
        };
        self.report.ends += 1;
        self.report.last_byte_us = Some(cx.now_us);
        if r.expected.is_some_and(|expected| expected != r.at) {
            self.report.wrong.push(format!("{id:?}: {} bytes instead of {:?}", r.at, r.expected));
        }
        if let Some(header) = r.header
            && id.dir() == Dir::Bi
            && !self.abandoned.contains(&id)
        {
            let end = u64::from_be_bytes(header);
            self.sending.insert(id, Sending { at: 0, end, wanted: None });
            self.write(cx, id);
        }
    }

    fn is_over(&self) -> bool {
        self.begun > 0 && self.is_idle()
    }

    fn check_done(&mut self, cx: &mut Cx<'_>) {
        if self.is_done() || !self.is_over() {
            return;
        }
        self.report.done_us = Some(cx.now_us);
        if self.config.close_when_done && self.open {
            self.open = false;
            if let Err(error) = cx.engine.close(cx.now, cx.key, 0, b"done") {
                self.report.wrong.push(format!("close: {error:?}"));
            }
        }
    }
}
