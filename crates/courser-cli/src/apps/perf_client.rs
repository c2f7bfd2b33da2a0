//! The client of the perf protocol on one connection: so many transactions, so many of them at once.

use courser_core::ids::{Dir, StreamId};

use crate::apps::body::{Counter, Feed, Sink};
use crate::apps::by_stream::ByStream;
use crate::apps::exchange::{self, Exchange};
use crate::apps::perf_server::Content;
use crate::failure::Outcome;
use crate::measure::Latencies;
use crate::pattern::Way;
use crate::perf_proto;
use crate::transport::{App, Event, Streams};

/// A request of at most that many bytes leaves in one write with its head.
const SHORT: usize = 56;

/// What a connection has to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Transactions in all.
    pub count: u64,
    /// Transactions at once.
    pub at_once: u64,
    /// Bytes of load that transaction `n` sends; the last entry stands for all that follow.
    pub up: Vec<u64>,
    /// Bytes that transaction `n` asks for.
    pub down: Vec<u64>,
    /// What the bytes are.
    pub content: Content,
    /// Whether the time of each transaction is noted.
    pub timed: bool,
}

impl Plan {
    /// The same for all transactions.
    #[must_use]
    pub fn uniform(count: u64, at_once: u64, up: u64, down: u64, content: Content) -> Self {
        Self { count, at_once, up: vec![up], down: vec![down], content, timed: false }
    }

    fn size(list: &[u64], n: u64) -> u64 {
        let at = usize::try_from(n).unwrap_or(usize::MAX).min(list.len().saturating_sub(1));
        list.get(at).copied().unwrap_or(0)
    }
}

/// The client's part of one connection.
#[derive(Debug)]
pub struct PerfClient {
    plan: Plan,
    /// Checked bytes from the server.
    received: Counter,
    streams: ByStream<Exchange>,
    /// Transactions begun.
    begun: u64,
    /// Transactions that ended well.
    ended: u64,
    /// Bytes of load sent in transactions that ended.
    sent: u64,
    /// Whether transactions may begin.
    started: bool,
    times: Latencies,
}

impl PerfClient {
    /// Begins only when [`PerfClient::start`] is called, so that many connections can start together.
    #[must_use]
    pub fn new(plan: Plan, received: Counter) -> Self {
        let room = if plan.timed { usize::try_from(plan.count).unwrap_or(0) } else { 0 };
        Self {
            plan,
            received,
            streams: ByStream::default(),
            begun: 0,
            ended: 0,
            sent: 0,
            started: false,
            times: Latencies::with_capacity(room),
        }
    }

    /// Begins.
    ///
    /// # Errors
    /// A source that cannot be read.
    pub fn start<S: Streams>(&mut self, link: &mut S) -> Outcome {
        self.started = true;
        self.begin(link)
    }

    /// Transactions that ended well.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// Bytes of load that were sent in transactions that ended.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes of load in both directions until now, with those of transactions that are under way.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.received.get() + self.sent + self.streams.values().map(Exchange::sent).sum::<u64>()
    }

    /// The times that were noted.
    #[must_use]
    pub fn times(&mut self) -> &mut Latencies {
        &mut self.times
    }

    /// Opens as many streams as plan and peer allow.
    fn begin<S: Streams>(&mut self, link: &mut S) -> Outcome {
        while self.started && self.begun < self.plan.count && (self.streams.len() as u64) < self.plan.at_once {
            let Some(id) = link.open(Dir::Bi) else { return Ok(()) };
            let (up, down) = (Plan::size(&self.plan.up, self.begun), Plan::size(&self.plan.down, self.begun));
            self.begun += 1;
            let mut exchange = self.exchange(id, up, down)?;
            exchange.write(link)?;
            self.streams.insert(id, exchange);
        }
        Ok(())
    }

    fn exchange(&self, id: StreamId, up: u64, down: u64) -> Outcome<Exchange> {
        let body = self.plan.content.body(id, Way::Up);
        let mut head = [0; perf_proto::HEAD_LEN + SHORT];
        head[..perf_proto::HEAD_LEN].copy_from_slice(&perf_proto::head(down));
        let short = match (&body, usize::try_from(up)) {
            // One write, one packet: what a request is.
            (crate::apps::body::Body::Pattern(p), Ok(n)) if n <= SHORT => {
                p.fill(0, &mut head[perf_proto::HEAD_LEN..perf_proto::HEAD_LEN + n]);
                n
            }
            (crate::apps::body::Body::Fill, Ok(n)) if n <= SHORT => n,
            _ => 0,
        };
        let feed = Feed::new(&body, short as u64, up)?;
        let sink = Sink::new(&self.plan.content.body(id, Way::Down), Some(down), self.received.clone())?;
        Ok(Exchange::new(id, &head[..perf_proto::HEAD_LEN + short], feed, sink))
    }

    fn readable<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        let Some(x) = self.streams.get_mut(&id) else { return Ok(()) };
        x.read(link)?;
        self.settle(link, id)
    }

    fn writable<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        let Some(x) = self.streams.get_mut(&id) else { return Ok(()) };
        x.write(link)?;
        self.settle(link, id)
    }

    /// Takes a finished transaction off the table and begins the next.
    fn settle<S: Streams>(&mut self, link: &mut S, id: StreamId) -> Outcome {
        if !self.streams.get(&id).is_some_and(Exchange::is_done) {
            return Ok(());
        }
        if let Some(x) = self.streams.remove(&id) {
            self.ended += 1;
            self.sent += x.sent();
            if self.plan.timed {
                self.times.push(x.age_ns());
            }
        }
        self.begin(link)
    }
}

impl App for PerfClient {
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome {
        let done = match event {
            Event::Connected | Event::Credit => self.begin(link),
            Event::Readable(id) => self.readable(link, id),
            Event::Writable(id) => self.writable(link, id),
            other => exchange::on(link, other, &self.streams, self.done()),
        };
        exchange::close_if_different(link, done)
    }

    fn done(&self) -> bool {
        self.ended == self.plan.count
    }
}
