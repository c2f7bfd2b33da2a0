//! The perf protocol in tasks, on a runtime of one thread that also runs the endpoint's worker.
//!
//! Client: a task for each transaction that may be under way at once. Server: a task for each connection, and one for
//! each stream of it; how many there are is what the settings let the peer open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use courser::aio::{Connecting, Connection, Endpoint, Incoming, RecvStream, SendStream};
use courser::{ClientOptions, Handover};
use courser_tls::ServerConfig as TlsServer;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

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

fn runtime() -> Outcome<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(|e| Failure::local("starting a Tokio runtime", &e))
}

/// Serves until the process is asked to end.
///
/// # Errors
/// See [`super::serve`].
pub fn serve(host: &Host<'_>) -> Outcome {
    let runtime = runtime()?;
    let entered = runtime.enter();
    let (endpoint, serves) =
        super::open(host, |options| Endpoint::server(host.service.listen, options), Endpoint::take_over)?;
    drop(entered);
    let (stop, wishes) = (Stop::default(), host.operator.listen()?);
    super::announce(host, endpoint.local_addr(), serves);
    let served = Served { endpoint: endpoint.clone(), runtime: runtime.handle().clone(), service: &host.service };
    thread::scope(|scope| {
        let (stop, served, operator) = (&stop, &served, host.operator);
        scope.spawn(move || operator.attend(wishes.told, served, &|| stop.ask(&[])));
        let outcome = runtime.block_on(accept_until(&endpoint, stop, host));
        let _ = wishes.tell.send(Wish::Over);
        outcome
    })
}

/// Serves until `stop` is asked.
async fn accept_until(endpoint: &Endpoint, stop: &Stop, host: &Host<'_>) -> Outcome {
    let (tell, told) = super::failures();
    let mut drains = false;
    while !stop.is_asked() {
        let accepted = async {
            // Nobody comes any more once it drains; those who are there are served.
            if drains { std::future::pending().await } else { endpoint.accept().await }
        };
        match tokio::time::timeout(LOOK, accepted).await {
            Ok(Ok(incoming)) => {
                tokio::spawn(welcome(incoming, host.content.clone(), tell.clone()));
            }
            Ok(Err(e)) if endpoint.workers().iter().all(|worker| worker.is_gone) => {
                return Err(Failure::Local { what: "waiting for clients".into(), why: e.to_string() });
            }
            Ok(Err(_)) => drains = true,
            Err(_) => {}
        }
        told.try_iter().for_each(|e| (host.warn)(&e));
    }
    // What was closed gets the time to say so.
    tokio::time::sleep(LOOK).await;
    Ok(())
}

/// The endpoint as its operator sees it, from another thread than that of the runtime.
struct Served<'a> {
    endpoint: Endpoint,
    runtime: Handle,
    service: &'a Service<'a>,
}

impl Operated for Served<'_> {
    fn drain(&self, limit: Duration) -> bool {
        self.runtime.block_on(self.endpoint.drain(limit)).is_ok()
    }

    fn reload(&self, tls: TlsServer) -> Outcome {
        super::reload(self.service, tls, |options| self.endpoint.reload(options))
    }

    fn hand_over(&self) -> Outcome<Handover> {
        super::handed(self.runtime.block_on(self.endpoint.hand_over()))
    }
}

/// Serves a new connection until it ends.
async fn welcome(incoming: Incoming, content: Content, tell: SyncSender<Failure>) {
    // A client whose handshake fails is its own business.
    let Ok(connecting) = incoming.accept() else { return };
    let Ok(connection) = connecting.await else { return };
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (connection, content, tell) = (connection.clone(), content.clone(), tell.clone());
        tokio::spawn(async move {
            if let Err(e) = answer(&content, send, receive).await {
                differ(&connection, &e);
                // With so many untold failures one more makes no difference.
                let _ = tell.try_send(e);
            }
        });
    }
}

/// Serves one stream. A client that loses interest in it, or goes, is no failure.
async fn answer(content: &Content, mut send: SendStream, mut receive: RecvStream) -> Outcome {
    let id = receive.id();
    let mut answer = Answer::new(content, id)?;
    loop {
        match receive.read_chunk().await {
            Ok(Some(data)) => answer.take(id, &data)?,
            Ok(None) => break,
            Err(_) => return Ok(()),
        }
    }
    let mut feed = answer.feed(content, id)?;
    while let Some(piece) = feed.piece()? {
        if send.write_chunk(piece).await.is_err() {
            return Ok(());
        }
    }
    // A stream that is gone needs no end.
    let _ = send.finish();
    Ok(())
}

/// Tells the peer that what it sent differs.
fn differ(connection: &Connection, e: &Failure) {
    if let Failure::Differs { .. } = e {
        connection.close(CODE_DIFFERS, b"received bytes differ from the pattern");
    }
}

/// Does a client's job.
///
/// # Errors
/// See [`super::call`].
pub fn call(options: ClientOptions, dial: &Dial<'_>, job: &Job, content: &Content) -> Outcome<PerfResult> {
    runtime()?.block_on(async {
        let endpoint = Endpoint::client(options).map_err(|e| super::endpoint_failure(&e))?;
        let client = Arc::new(Client {
            endpoint: endpoint.clone(),
            name: dial.name.to_owned(),
            plan: job.plan(content.clone()),
            job: job.clone(),
            blame: Blame::of(dial, job),
            reached: AtomicBool::new(false),
        });
        let work = client.work(dial);
        let time = job.timeout.saturating_add(super::hold(job));
        let result = tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(client.late()));
        drop(client);
        // The last connections say that they close; nobody has to hear it.
        let _ = tokio::time::timeout(LOOK, endpoint.wait_idle()).await;
        result
    })
}

struct Client {
    endpoint: Endpoint,
    /// The name that the certificate must have.
    name: String,
    plan: Plan,
    job: Job,
    blame: Blame,
    /// Whether anybody has answered.
    reached: AtomicBool,
}

impl Client {
    async fn work(self: &Arc<Self>, dial: &Dial<'_>) -> Outcome<PerfResult> {
        if self.job.mode.connects() { self.many(dial).await } else { self.few(dial).await }
    }

    /// Why the time is over.
    fn late(&self) -> Failure {
        if self.reached.load(Ordering::Relaxed) { self.blame.late() } else { self.blame.nobody() }
    }

    async fn establish(&self, connecting: Connecting) -> Outcome<Connection> {
        let connection = connecting.await.map_err(|e| self.blame.connect(&e))?;
        self.reached.store(true, Ordering::Relaxed);
        Ok(connection)
    }

    /// A connection to the first address that answers.
    async fn reach(&self, dial: &Dial<'_>) -> Outcome<Connection> {
        let connecting = self.endpoint.connect_with(super::request(dial)?).map_err(|e| self.blame.connect(&e))?;
        self.establish(connecting).await
    }

    /// A connection to an address that has answered.
    async fn visit(&self, addr: SocketAddr) -> Outcome<Connection> {
        let connecting = self.endpoint.connect_to(addr, &self.name).map_err(|e| self.blame.connect(&e))?;
        self.establish(connecting).await
    }

    /// The modes that have all their connections first and are measured then.
    async fn few(self: &Arc<Self>, dial: &Dial<'_>) -> Outcome<PerfResult> {
        let mut connections = vec![self.reach(dial).await?];
        let addr = connections[0].remote_address();
        for _ in 1..self.job.total_conns() {
            connections.push(self.visit(addr).await?);
        }
        let meter = Meter::start();
        let mut lanes = JoinSet::new();
        for connection in &connections {
            let begun = Arc::new(AtomicU64::new(0));
            for _ in 0..self.plan.at_once.min(self.plan.count) {
                let (own, connection, begun) = (Arc::clone(self), connection.clone(), Arc::clone(&begun));
                lanes.spawn(async move { own.lane(&connection, &begun).await });
            }
        }
        let mut all = Share::default();
        while let Some(share) = lanes.join_next().await {
            all.add(joined(share)?);
        }
        let result = super::result(&self.job, meter, all);
        connections.iter().for_each(|c| c.close(0, b""));
        Ok(result)
    }

    /// One transaction after the other, as long as there are any.
    async fn lane(&self, connection: &Connection, begun: &AtomicU64) -> Outcome<Share> {
        let mut share = Share::default();
        while begun.fetch_add(1, Ordering::Relaxed) < self.plan.count {
            let started = Instant::now();
            self.exchange(connection).await?;
            share.done(started.elapsed(), self.plan.timed);
        }
        Ok(share)
    }

    /// One transaction.
    async fn exchange(&self, connection: &Connection) -> Outcome {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|e| self.blame.connection(&e))?;
        let (id, plan) = (send.id(), &self.plan);
        let size = |list: &[u64]| list.first().copied().unwrap_or(0);
        let mut ask = Ask::new(&plan.content, id, size(&plan.up), size(&plan.down))?;
        while let Some(piece) = ask.piece()? {
            send.write_chunk(piece).await.map_err(|e| self.blame.write(id, &e))?;
        }
        send.finish().map_err(|e| self.blame.write(id, &e))?;
        while let Some(data) = receive.read_chunk().await.map_err(|e| self.blame.read(id, &e))? {
            ask.down.take(id, &data).inspect_err(|e| differ(connection, e))?;
        }
        ask.down.end(id)
    }

    /// The modes in which every transaction has a connection of its own.
    async fn many(self: &Arc<Self>, dial: &Dial<'_>) -> Outcome<PerfResult> {
        let addr = match dial.addrs {
            [only] => *only,
            // Which address answers is found out before anything is measured.
            _ => {
                let first = self.reach(dial).await?;
                first.close(0, b"");
                first.remote_address()
            }
        };
        let begun = Arc::new(AtomicU64::new(0));
        let scales = Scales::new(&self.job);
        let meter = Meter::start();
        let mut lanes = JoinSet::new();
        for _ in 0..self.job.concurrency.clamp(1, self.job.count.max(1)) {
            let (own, begun) = (Arc::clone(self), Arc::clone(&begun));
            lanes.spawn(async move { own.visits(addr, &begun).await });
        }
        let (mut all, mut held) = (Share::default(), Vec::new());
        while let Some(done) = lanes.join_next().await {
            let (share, kept) = joined(done)?;
            all.add(share);
            held.extend(kept);
        }
        let mut result = super::result(&self.job, meter, all);
        let until = Instant::now().checked_add(super::hold(&self.job));
        while let Some(wait) = super::next_look(until) {
            tokio::time::sleep(wait).await;
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
    async fn visits(&self, addr: SocketAddr, begun: &AtomicU64) -> Outcome<(Share, Vec<Connection>)> {
        let (mut share, mut held) = (Share::default(), Vec::new());
        while begun.fetch_add(1, Ordering::Relaxed) < self.job.count {
            let started = Instant::now();
            let connection = self.visit(addr).await?;
            self.exchange(&connection).await?;
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

/// What a task has done.
fn joined<T>(done: Result<Outcome<T>, tokio::task::JoinError>) -> Outcome<T> {
    done.unwrap_or_else(|e| Err(Failure::Local { what: "a client's task".into(), why: e.to_string() }))
}
