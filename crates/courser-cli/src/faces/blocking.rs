//! The perf protocol on threads that wait.
//!
//! Client: a thread for each transaction that may be under way at once; small ones have one thread for all of a
//! connection, which begins as many as may be under way and then takes their answers in that order. Server: the threads of a connection take turns
//! in waiting for its next stream. A thread that got one first does what it can without waiting; only when it has to
//! wait, and nobody else waits for streams, another thread is started. So a connection with short requests needs one
//! thread, and one that has several streams open never waits for the slowest.
//!
//! Invariant: at any time one thread of a connection waits for streams or does something that cannot block. A connection
//! has at most one thread more than it may have streams open.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Buf;
use courser::{
    ClientOptions, Connection, ConnectionError, Endpoint, Handover, Incoming, ReadError, RecvStream, SendStream,
};
use courser_tls::ServerConfig as TlsServer;

use super::{Answer, Ask, Blame, Host, LOOK, Scales, Share};
use crate::apps::perf_client::Plan;
use crate::apps::perf_server::Content;
use crate::failure::{Failure, Outcome};
use crate::job::{Job, Mode};
use crate::link::drive::Dial;
use crate::link::serve::Stop;
use crate::link::setup::Service;
use crate::measure::Meter;
use crate::operate::{Operated, Wish};
use crate::report::perf::PerfResult;
use crate::transport::CODE_DIFFERS;

/// Stack of the threads, which call nothing deep.
const STACK: usize = 128 << 10;
/// A transaction with at most that many bytes each way is small.
const SMALL: u64 = 16 << 10;
/// An answer of at most that many bytes is copied, when that is possible without waiting.
const COPIED: usize = 16 << 10;

fn no_thread(e: &io::Error) -> Failure {
    Failure::local("starting a thread", e)
}

/// Serves until the process is asked to end.
///
/// # Errors
/// See [`super::serve`].
pub fn serve(host: &Host<'_>) -> Outcome {
    let (mut endpoint, serves) =
        super::open(host, |options| Endpoint::server(host.service.listen, options), Endpoint::take_over)?;
    endpoint.set_timeout(Some(LOOK));
    let (stop, wishes) = (Stop::default(), host.operator.listen()?);
    super::announce(host, endpoint.local_addr(), serves);
    let served = Served { endpoint: endpoint.clone(), service: &host.service };
    thread::scope(|scope| {
        let (stop, served, operator) = (&stop, &served, host.operator);
        scope.spawn(move || operator.attend(wishes.told, served, &|| stop.ask(&[])));
        let outcome = accept_until(&endpoint, stop, host);
        let _ = wishes.tell.send(Wish::Over);
        outcome
    })
}

/// Serves until `stop` is asked.
fn accept_until(endpoint: &Endpoint, stop: &Stop, host: &Host<'_>) -> Outcome {
    let (tell, told) = super::failures();
    let mut drains = false;
    while !stop.is_asked() {
        if drains {
            // Nobody comes any more; those who are there are served.
            thread::sleep(LOOK);
        } else {
            match endpoint.accept() {
                Ok(incoming) => welcome(incoming, &host.content, &tell).unwrap_or_else(|e| (host.warn)(&e)),
                Err(ConnectionError::TimedOut) => {}
                Err(e) if endpoint.workers().iter().all(|worker| worker.is_gone) => {
                    return Err(Failure::Local { what: "waiting for clients".into(), why: e.to_string() });
                }
                Err(_) => drains = true,
            }
        }
        told.try_iter().for_each(|e| (host.warn)(&e));
    }
    Ok(())
}

/// The endpoint as its operator sees it.
struct Served<'a> {
    endpoint: Endpoint,
    service: &'a Service<'a>,
}

impl Operated for Served<'_> {
    fn drain(&self, limit: Duration) -> bool {
        self.endpoint.drain(limit).is_ok()
    }

    fn reload(&self, tls: TlsServer) -> Outcome {
        super::reload(self.service, tls, |options| self.endpoint.reload(options))
    }

    fn hand_over(&self) -> Outcome<Handover> {
        super::handed(self.endpoint.hand_over())
    }
}

/// Gives a new connection its first thread.
fn welcome(incoming: Incoming, content: &Content, tell: &SyncSender<Failure>) -> Outcome {
    let (content, tell) = (content.clone(), tell.clone());
    let first = move || {
        // A client whose handshake fails is its own business.
        let Ok(connection) = incoming.accept() else { return };
        let crew = Crew { connection, content, tell, waiting: AtomicUsize::new(1) };
        Arc::new(crew).work();
    };
    thread::Builder::new().stack_size(STACK).spawn(first).map(drop).map_err(|e| no_thread(&e))
}

/// The threads of a connection.
struct Crew {
    connection: Connection,
    content: Content,
    tell: SyncSender<Failure>,
    /// Threads that wait for a stream, or are about to.
    waiting: AtomicUsize,
}

impl Crew {
    /// Serves one stream after the other, until the connection ends.
    fn work(self: Arc<Self>) {
        while let Ok((send, receive)) = self.connection.accept_bi() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            if let Err(e) = self.serve(send, receive) {
                if let Failure::Differs { .. } = e {
                    self.connection.close(CODE_DIFFERS, b"received bytes differ from the pattern");
                }
                // With so many untold failures one more makes no difference.
                let _ = self.tell.try_send(e);
            }
            self.waiting.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Sees to it that somebody waits for streams while this thread waits for something else.
    fn cover(self: &Arc<Self>) {
        if self.waiting.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let other = Arc::clone(self);
            if thread::Builder::new().stack_size(STACK).spawn(move || other.work()).is_err() {
                // The next stream has to wait for this one.
                self.waiting.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Serves one stream. A client that loses interest in it, or goes, is no failure.
    fn serve(self: &Arc<Self>, mut send: SendStream, mut receive: RecvStream) -> Outcome {
        let id = receive.id();
        let mut answer = Answer::new(&self.content, id)?;
        let mut covered = false;
        receive.set_timeout(Some(Duration::ZERO));
        loop {
            match receive.read_chunk() {
                Ok(Some(data)) => answer.take(id, &data)?,
                Ok(None) => break,
                Err(ReadError::Closed(ConnectionError::TimedOut)) if !covered => {
                    self.cover();
                    covered = true;
                    receive.set_timeout(None);
                }
                Err(_) => return Ok(()),
            }
        }
        let mut feed = answer.feed(&self.content, id)?;
        while let Some(mut piece) = feed.piece()? {
            if !covered && piece.len() <= COPIED {
                send.set_timeout(Some(Duration::ZERO));
                match send.write(&piece) {
                    Ok(n) => piece.advance(n),
                    Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
                    Err(_) => return Ok(()),
                }
            }
            if piece.is_empty() {
                continue;
            }
            if !covered {
                self.cover();
                covered = true;
                send.set_timeout(None);
            }
            if send.write_chunk(piece).is_err() {
                return Ok(());
            }
        }
        // A stream that is gone needs no end.
        let _ = send.finish();
        Ok(())
    }
}

/// Does a client's job.
///
/// # Errors
/// See [`super::call`].
pub fn call(options: ClientOptions, dial: &Dial<'_>, job: &Job, content: &Content) -> Outcome<PerfResult> {
    let mut endpoint = Endpoint::client(options).map_err(|e| super::endpoint_failure(&e))?;
    // A job whose time cannot be counted has all of it.
    let deadline = Instant::now().checked_add(job.timeout);
    endpoint.set_timeout(Some(job.timeout));
    let client = Client { endpoint, dial, job, content, blame: Blame::of(dial, job), deadline };
    let result = if job.mode.connects() { client.many() } else { client.few() }?;
    // The last connections say that they close; nobody has to hear it.
    let mut endpoint = client.endpoint;
    endpoint.set_timeout(Some(LOOK));
    let _ = endpoint.wait_idle();
    Ok(result)
}

struct Client<'a> {
    endpoint: Endpoint,
    dial: &'a Dial<'a>,
    job: &'a Job,
    content: &'a Content,
    blame: Blame,
    deadline: Option<Instant>,
}

impl Client<'_> {
    /// The time that is left.
    fn left(&self) -> Outcome<Duration> {
        let Some(deadline) = self.deadline else { return Ok(self.job.timeout) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.blame.late()) } else { Ok(left) }
    }

    /// A connection to the first address that answers.
    fn reach(&self) -> Outcome<Connection> {
        self.endpoint.connect_with(super::request(self.dial)?).map_err(|e| self.blame.connect(&e))
    }

    /// A connection to an address that has answered.
    fn visit(&self, addr: std::net::SocketAddr) -> Outcome<Connection> {
        let mut endpoint = self.endpoint.clone();
        endpoint.set_timeout(Some(self.left()?));
        let mut connection = endpoint.connect_to(addr, self.dial.name).map_err(|e| self.blame.connect(&e))?;
        connection.set_timeout(Some(self.left()?));
        Ok(connection)
    }

    /// The modes that have all their connections first and are measured then.
    fn few(&self) -> Outcome<PerfResult> {
        let mut connections = vec![self.reach()?];
        let addr = connections[0].remote_address();
        for _ in 1..self.job.total_conns() {
            connections.push(self.visit(addr)?);
        }
        for connection in &mut connections {
            connection.set_timeout(Some(self.left()?));
        }
        let plan = self.job.plan(self.content.clone());
        let begun: Vec<_> = connections.iter().map(|_| AtomicU64::new(0)).collect();
        let meter = Meter::start();
        let share = thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let mut started = Ok(());
            'start: for (connection, begun) in connections.iter().zip(&begun) {
                let at_once = plan.at_once.min(plan.count);
                let (threads, width) = if is_small(&plan) { (1, at_once) } else { (at_once, 1) };
                for _ in 0..threads {
                    let (tell, plan) = (tell.clone(), &plan);
                    let lane = move || drop(tell.send(self.lane(connection, plan, begun, width)));
                    if let Err(e) = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, lane) {
                        started = Err(no_thread(&e));
                        break 'start;
                    }
                }
            }
            drop(tell);
            let share = started.and_then(|()| self.gather(&told));
            if share.is_err() {
                // Whoever still waits on a stream is told now.
                connections.iter().for_each(|c| c.close(0, b""));
            }
            share
        })?;
        let result = super::result(self.job, meter, share);
        connections.iter().for_each(|c| c.close(0, b""));
        Ok(result)
    }

    /// What the threads have done, when all are through; the first failure.
    fn gather(&self, told: &mpsc::Receiver<Outcome<Share>>) -> Outcome<Share> {
        let mut all = Share::default();
        loop {
            match told.recv_timeout(self.left()?) {
                Ok(share) => all.add(share?),
                Err(RecvTimeoutError::Timeout) => return Err(self.blame.late()),
                Err(RecvTimeoutError::Disconnected) => return Ok(all),
            }
        }
    }

    /// One transaction after the other, so many at once, as long as there are any.
    fn lane(&self, connection: &Connection, plan: &Plan, begun: &AtomicU64, width: u64) -> Outcome<Share> {
        let mut share = Share::default();
        let mut open = VecDeque::new();
        let mut more = true;
        loop {
            while more && (open.len() as u64) < width {
                more = begun.fetch_add(1, Ordering::Relaxed) < plan.count;
                if more {
                    open.push_back(self.begin(connection, plan)?);
                }
            }
            // The oldest is waited for; those behind it that are complete as well make room for new ones together.
            let Some(mut oldest) = open.pop_front() else { return Ok(share) };
            self.end(connection, &mut oldest)?;
            share.done(oldest.started.elapsed(), plan.timed);
            while let Some(mut next) = open.pop_front() {
                next.receive.set_timeout(Some(Duration::ZERO));
                let ended = self.end_now(connection, &mut next)?;
                next.receive.set_timeout(None);
                if !ended {
                    open.push_front(next);
                    break;
                }
                share.done(next.started.elapsed(), plan.timed);
            }
        }
    }

    /// One transaction.
    fn exchange(&self, connection: &Connection, plan: &Plan) -> Outcome {
        let mut exchange = self.begin(connection, plan)?;
        self.end(connection, &mut exchange)
    }

    /// Asks.
    fn begin(&self, connection: &Connection, plan: &Plan) -> Outcome<Exchange> {
        let started = Instant::now();
        let (mut send, mut receive) = connection.open_bi().map_err(|e| self.blame.connection(&e))?;
        let id = send.id();
        let size = |list: &[u64]| list.first().copied().unwrap_or(0);
        let mut ask = Ask::new(self.content, id, size(&plan.up), size(&plan.down))?;
        if self.job.mode.connects() {
            // Otherwise somebody watches over all threads.
            send.set_timeout(Some(self.left()?));
            receive.set_timeout(Some(self.left()?));
        }
        while let Some(piece) = ask.piece()? {
            send.write_chunk(piece).map_err(|e| self.blame.write(id, &e))?;
        }
        send.finish().map_err(|e| self.blame.write(id, &e))?;
        Ok(Exchange { started, ask, receive })
    }

    /// Reads the whole answer.
    fn end(&self, connection: &Connection, exchange: &mut Exchange) -> Outcome {
        exchange.read(connection)?.map_err(|e| self.blame.read(exchange.receive.id(), &e))
    }

    /// Reads what is there; whether that was all.
    fn end_now(&self, connection: &Connection, exchange: &mut Exchange) -> Outcome<bool> {
        match exchange.read(connection)? {
            Ok(()) => Ok(true),
            Err(ReadError::Closed(ConnectionError::TimedOut)) => Ok(false),
            Err(e) => Err(self.blame.read(exchange.receive.id(), &e)),
        }
    }

    /// The modes in which every transaction has a connection of its own.
    fn many(&self) -> Outcome<PerfResult> {
        let addr = match self.dial.addrs {
            [only] => *only,
            // Which address answers is found out before anything is measured.
            _ => {
                let first = self.reach()?;
                first.close(0, b"");
                first.remote_address()
            }
        };
        let plan = self.job.plan(self.content.clone());
        let begun = AtomicU64::new(0);
        let scales = Scales::new(self.job);
        let meter = Meter::start();
        let (share, held) = thread::scope(|scope| {
            let mut lanes = Vec::new();
            for _ in 0..self.job.concurrency.clamp(1, self.job.count.max(1)) {
                let lane = || self.visits(addr, &plan, &begun);
                match thread::Builder::new().stack_size(STACK).spawn_scoped(scope, lane) {
                    Ok(lane) => lanes.push(lane),
                    Err(e) => {
                        begun.store(self.job.count, Ordering::Relaxed);
                        return Err(no_thread(&e));
                    }
                }
            }
            let (mut all, mut held) = (Share::default(), Vec::new());
            for lane in lanes {
                let panicked = || Failure::Local { what: "a client's thread".into(), why: "it panicked".into() };
                let (share, kept) = lane.join().map_err(|_| panicked())??;
                all.add(share);
                held.extend(kept);
            }
            Ok((all, held))
        })?;
        let mut result = super::result(self.job, meter, share);
        let until = Instant::now().checked_add(super::hold(self.job));
        while let Some(wait) = super::next_look(until) {
            thread::sleep(wait);
            // They were to stay open.
            if let Some(e) = held.iter().find_map(Connection::close_reason) {
                return Err(self.blame.connection(e));
            }
        }
        scales.note(&mut result);
        held.iter().for_each(|c| c.close(0, b""));
        Ok(result)
    }

    /// One connection after the other; those that are to stay open.
    fn visits(&self, addr: std::net::SocketAddr, plan: &Plan, begun: &AtomicU64) -> Outcome<(Share, Vec<Connection>)> {
        let (mut share, mut held) = (Share::default(), Vec::new());
        while begun.fetch_add(1, Ordering::Relaxed) < self.job.count {
            let started = Instant::now();
            let connection = self.visit(addr).inspect_err(|_| begun.store(self.job.count, Ordering::Relaxed))?;
            self.exchange(&connection, plan).inspect_err(|_| begun.store(self.job.count, Ordering::Relaxed))?;
            share.done(started.elapsed(), true);
            if self.job.mode == Mode::Idle {
                held.push(connection);
            } else {
                connection.close(0, b"");
            }
        }
        Ok((share, held))
    }
}

/// A transaction that waits for its answer.
struct Exchange {
    started: Instant,
    ask: Ask,
    receive: RecvStream,
}

impl Exchange {
    /// Takes the answer to its end, or to where it cannot go on.
    fn read(&mut self, connection: &Connection) -> Outcome<Result<(), ReadError>> {
        let id = self.receive.id();
        loop {
            match self.receive.read_chunk() {
                Ok(Some(data)) => self.ask.down.take(id, &data).inspect_err(|e| differ(connection, e))?,
                Ok(None) => return self.ask.down.end(id).map(Ok),
                Err(e) => return Ok(Err(e)),
            }
        }
    }
}

/// Whether each transaction of the plan fits into a few packets, so that nobody is held up by reading one after the other.
fn is_small(plan: &Plan) -> bool {
    plan.timed && plan.up.iter().chain(&plan.down).all(|&bytes| bytes <= SMALL)
}

/// Tells the server that what it sent differs.
fn differ(connection: &Connection, e: &Failure) {
    if let Failure::Differs { .. } = e {
        connection.close(CODE_DIFFERS, b"received bytes differ from the pattern");
    }
}
