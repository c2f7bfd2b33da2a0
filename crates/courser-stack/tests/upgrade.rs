//! Services that make way for one another while programs work, and services that are killed: what was promised of each
//! connection, and what the system counts afterwards.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(target_os = "linux")]

mod common;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{Possessions, plays, program, until, variable};
use courser::certs::Throwaway;
use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Error, Session, Stack, aio};
use courser_stack::host::{Config, Host};
use courser_stack::service::{Options, Service, Succession};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How often a service makes way under load; `COURSER_UPGRADES` says otherwise.
const UPGRADES: u64 = 4;
/// Bytes of each question: more than one packet, less than a window.
const QUESTION: usize = 20_000;

fn first() -> (Service, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Service::start(Host::new(Config::default()), Options::new(folder.path().join("s"))).unwrap(), folder)
}

/// What the two programs of an upgrade do, in one process.
fn upgraded(old: &Service) -> Service {
    old.succeed(|place| {
        let (ours, theirs) = UnixStream::pair()?;
        place.send(&ours)?;
        let place = Succession::receive(&theirs)?;
        Ok(Service::take_over(Host::new(Config::default()), Options::new("/nowhere"), place).unwrap())
    })
    .unwrap()
}

/// Answers whoever comes with what he said, until its stack is dropped or told to end.
struct Echo {
    stack: Stack,
    listener: Session,
    uri: String,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn at(service: &Service, protocol: Protocol) -> Self {
        Self::over(Stack::attach(service.path()).unwrap(), protocol)
    }

    fn over(stack: Stack, protocol: Protocol) -> Self {
        let listener = stack.create(protocol).unwrap();
        if protocol == Protocol::Quic {
            let identity = Throwaway::local().unwrap();
            let (chain, key) = (identity.certificate_pem(), identity.key_pem());
            stack.add_certificate(listener, chain.as_bytes(), key.as_bytes()).unwrap();
        }
        stack.bind(listener, &format!("{protocol}://127.0.0.1:0")).unwrap();
        stack.listen(listener, 256).unwrap();
        let uri = format!("{protocol}://{}", stack.local_addr(listener).unwrap());
        let over = Arc::new(AtomicBool::new(false));
        stack.set_timeout(listener, Some(Duration::from_millis(50))).unwrap();
        let thread = Some(thread::spawn({
            let (stack, over) = (stack.clone(), Arc::clone(&over));
            move || accept(&stack, listener, &over)
        }));
        Self { stack, listener, uri, over, thread }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
        let _ = self.stack.close(self.listener);
    }
}

fn accept(stack: &Stack, listener: Session, over: &AtomicBool) {
    let mut served = Vec::new();
    while !over.load(Ordering::Acquire) {
        let session = match stack.accept(listener) {
            Ok(session) => session,
            Err(Error::TimedOut) => continue,
            Err(Error::ServiceGone) => {
                // Nobody listens at first.
                let _ = stack.reattach();
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err(e) => panic!("nobody can be accepted: {e}"),
        };
        stack.set_timeout(session, None).unwrap();
        let stack = stack.clone();
        served.retain(|thread: &JoinHandle<()>| !thread.is_finished());
        served.push(thread::spawn(move || {
            if !stack.is_connectable_listener(session) {
                return echo(&stack, session);
            }
            while let Ok(stream) = stack.accept(session) {
                echo(&stack, stream);
            }
            let _ = stack.close(session);
        }));
    }
    served.into_iter().for_each(|thread| thread.join().unwrap());
}

fn echo(stack: &Stack, stream: Session) {
    let mut block = vec![0; 16 << 10];
    while let Ok(n) = stack.read(stream, &mut block) {
        if n == 0 || stack.write_all(stream, &block[..n]).is_err() {
            break;
        }
    }
    let _ = stack.finish(stream);
    let _ = stack.close(stream);
}

fn begun(stack: &Stack, uri: &str) -> Result<Session, Error> {
    let quic = uri.starts_with("quic");
    let connection = stack.create(if quic { Protocol::Quic } else { Protocol::Tcp })?;
    let connected = if quic { stack.set_trust(connection, Trust::Anybody) } else { Ok(()) };
    connected.and_then(|()| stack.connect(connection, uri)).map(|()| connection).inspect_err(|_| {
        let _ = stack.close(connection);
    })
}

/// One question on a stream of its own (over TCP: on the connection), whose answer is compared byte by byte.
fn question(stack: &Stack, connection: Session, n: u64) -> Result<(), Error> {
    let stream = if stack.is_connectable_listener(connection) { stack.create(Protocol::Quic)? } else { connection };
    let asked = exchange(stack, (stream, connection), n);
    if stream != connection {
        stack.close(stream)?;
    }
    asked
}

fn exchange(stack: &Stack, (stream, connection): (Session, Session), n: u64) -> Result<(), Error> {
    if stream != connection {
        stack.connect_stream(stream, connection, Dir::Bi)?;
    }
    let said: Vec<u8> = (0..QUESTION as u64).map(|at| (at.wrapping_mul(31).wrapping_add(n) >> 3) as u8).collect();
    stack.write_all(stream, &said)?;
    if stream != connection {
        stack.finish(stream)?;
    }
    let mut heard = Vec::with_capacity(QUESTION);
    let mut block = vec![0; 16 << 10];
    while heard.len() < QUESTION {
        let got = stack.read(stream, &mut block)?;
        assert!(got > 0, "the answer ended after {} bytes", heard.len());
        heard.extend_from_slice(&block[..got]);
    }
    assert!(heard == said, "an answer is not what was said");
    Ok(())
}

/// A program that asks all the while: so many times on each connection, then on a new one.
fn client(path: &std::path::Path, uri: &str, per_connection: u64, over: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (stack, uri, over) = (Stack::attach(path).unwrap(), uri.to_owned(), Arc::clone(over));
    thread::spawn(move || {
        let mut asked = 0;
        while !over.load(Ordering::Acquire) {
            let connection = begun(&stack, &uri).unwrap_or_else(|e| panic!("{uri}, {asked}: {e:?}"));
            for _ in 0..per_connection {
                question(&stack, connection, asked)
                    .unwrap_or_else(|e| panic!("{uri}, {per_connection} on each, {asked}: {e:?}"));
                asked += 1;
                if over.load(Ordering::Acquire) {
                    break;
                }
            }
            stack.close(connection).unwrap();
        }
        asked
    })
}

/// Nobody notices that services follow each other; each ends when its programs have moved. What the process has is counted, so
/// that it is one of its own: the thread of a test outlives the test.
#[test]
fn services_follow_each_other_under_load_and_no_connection_notices() {
    let role = "services_follow_each_other_under_load_and_no_connection_notices";
    if !plays(role) {
        assert!(program(role, &[]).wait().unwrap().success());
        return;
    }
    let upgrades = std::env::var("COURSER_UPGRADES").ok().and_then(|n| n.parse().ok()).unwrap_or(UPGRADES);
    let (mut service, _folder) = first();
    let path = service.path().to_owned();
    // A thread has its name when it runs.
    until("the service listens", || Possessions::now().threads == 1);
    let before = Possessions::now();
    let (quic, tcp) = (Echo::at(&service, Protocol::Quic), Echo::at(&service, Protocol::Tcp));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [(&quic, 1), (&quic, 20), (&tcp, 1), (&tcp, 20)]
        .map(|(server, per_connection)| client(&path, &server.uri, per_connection, &over))
        .into();
    // One connection of each kind that lives through a few generations.
    let stays = Stack::attach(&path).unwrap();
    let mut old = [&quic, &tcp].map(|server| begun(&stays, &server.uri).unwrap());
    for n in 0..upgrades {
        // A port remembers three services before the newest. What a program has closed is over when it next does something.
        until("older services have ended", || {
            old.iter().for_each(|connection| question(&stays, *connection, n).unwrap());
            DRAINING.load(Ordering::Acquire) <= 2
        });
        let next = upgraded(&service);
        // What is new is at the new one, of every program that does something; what was there goes on.
        until("all programs attached anew", || {
            old.iter().for_each(|connection| question(&stays, *connection, n).unwrap());
            next.host().applications() >= 7
        });
        until("the listener is there", || listeners(&next) == 1);
        assert!(service.host().is_draining());
        if n % 2 == 1 {
            // Then everything moves, and the older one ends.
            for (connection, server) in old.iter_mut().zip([&quic, &tcp]) {
                stays.close(*connection).unwrap();
                *connection = begun(&stays, &server.uri).unwrap();
            }
        }
        let before = std::mem::replace(&mut service, next);
        drains(before);
    }
    over.store(true, Ordering::Release);
    for client in clients {
        assert!(client.join().unwrap() > 0, "each of them had answers");
    }
    for connection in old {
        stays.close(connection).unwrap();
    }
    drop((quic, tcp, stays));
    until("nothing is left of the programs", || {
        service.host().applications() == 0 && DRAINING.load(Ordering::Acquire) == 0
    });
    let ended = Instant::now();
    while Possessions::now() != before && ended.elapsed() < common::PATIENCE {
        // Ways to services that are gone are forgotten when somebody looks.
        let _ = service.host().command(&["show", "service"], false);
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(Possessions::now(), before, "the system counts as before");
}

/// Services that end when their last application has gone.
static DRAINING: AtomicU64 = AtomicU64::new(0);

fn drains(service: Service) {
    DRAINING.fetch_add(1, Ordering::AcqRel);
    thread::spawn(move || {
        until("all programs have moved", || service.host().applications() == 0);
        drop(service);
        DRAINING.fetch_sub(1, Ordering::AcqRel);
    });
}

/// Endpoints that listen for QUIC.
fn listeners(service: &Service) -> usize {
    let said = service.host().command(&["show", "listeners"], true).unwrap();
    serde_json::from_str::<serde_json::Value>(&said).unwrap().as_array().unwrap().len()
}

/// How often a service is killed.
const KILLS: u64 = 20;

/// A service that serves until it is killed.
#[test]
fn role_service() {
    if plays("role_service") {
        let options = Options::new(variable("SOCKET"));
        let _service = Service::start(Host::new(Config::default()), options).unwrap();
        loop {
            thread::park();
        }
    }
}

/// Attached, by whatever it takes: nobody listens at first.
fn again(stack: &Stack) {
    until("a service listens", || stack.reattach().is_ok());
}

#[test]
fn a_service_that_is_killed_is_told_of_at_once_and_the_next_one_has_the_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let begin = || program("role_service", &[("SOCKET", path.to_str().unwrap())]);
    let mut service = begin();
    let mut client = None;
    until("a service listens", || {
        client = Stack::attach(&path).ok();
        client.is_some()
    });
    let client = client.unwrap();
    let server = Echo::over(Stack::attach(&path).unwrap(), Protocol::Quic);
    for n in 0..KILLS {
        again(&client);
        // The server may still be on its way back.
        let mut connection = None;
        until("the server listens again", || {
            connection = begun(&client, &server.uri).ok();
            connection.is_some()
        });
        let connection = connection.unwrap();
        question(&client, connection, n).unwrap();
        // One that waits, one that does not block, and one that polls.
        let waits = thread::spawn({
            let client = client.clone();
            move || client.accept(connection).unwrap_err()
        });
        service.kill().unwrap();
        service.wait().unwrap();
        assert_eq!(waits.join().unwrap(), Error::ServiceGone);
        let stream = client.create(Protocol::Quic);
        assert_eq!(stream, Err(Error::ServiceGone));
        client.set_nonblocking(connection, true).unwrap();
        assert_eq!(client.accept(connection), Err(Error::ServiceGone));
        assert!(matches!(client.reattach(), Err(Error::Attach { .. })), "nobody listens yet");
        service = begin();
        again(&client);
        let Err(Error::Ended(end)) = client.accept(connection) else { panic!("the connection is over") };
        assert!(end.to_string().contains("the service that had it is gone"), "{end}");
        client.close(connection).unwrap();
    }
    drop((server, client));
    service.kill().unwrap();
    service.wait().unwrap();
}

/// Answers whoever comes with what he said, as tasks.
async fn serve(listener: aio::Session) {
    while let Ok(mut stream) = listener.accept().await {
        tokio::spawn(async move {
            if stream.is_connectable_listener() {
                let Ok(first) = stream.accept().await else { return };
                stream = first;
            }
            let mut block = vec![0; QUESTION];
            while let Ok(()) = stream.read_exact(&mut block).await.map(drop) {
                if stream.write_all(&block).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A listener of tasks, and where it is.
async fn listen(stack: &aio::Stack, protocol: Protocol) -> (aio::Session, String) {
    let listener = stack.create(protocol).unwrap();
    if protocol == Protocol::Quic {
        let identity = Throwaway::local().unwrap();
        let (chain, key) = (identity.certificate_pem(), identity.key_pem());
        listener.add_certificate(chain.as_bytes(), key.as_bytes()).await.unwrap();
    }
    listener.bind(&format!("{protocol}://127.0.0.1:0")).await.unwrap();
    listener.listen(0).await.unwrap();
    let uri = format!("{protocol}://{}", listener.local_addr().unwrap());
    (listener, uri)
}

/// A stream to whoever listens there, with the connection that it needs.
async fn reach(stack: &aio::Stack, uri: &str) -> Result<(aio::Session, aio::Session), Error> {
    let quic = uri.starts_with("quic");
    let connection = stack.create(if quic { Protocol::Quic } else { Protocol::Tcp })?;
    if quic {
        connection.set_trust(Trust::Anybody)?;
    }
    connection.connect(uri).await?;
    let stream = if quic { connection.open(Dir::Bi).await? } else { connection.clone() };
    Ok((connection, stream))
}

async fn ask(stream: &mut aio::Session, n: u8) {
    let (said, mut heard) = (vec![n; QUESTION], vec![0; QUESTION]);
    stream.write_all(&said).await.unwrap();
    stream.read_exact(&mut heard).await.unwrap();
    assert!(heard == said, "an answer is not what was said");
}

#[test]
fn tasks_follow_a_successor_without_a_call_and_come_back_after_the_end_of_a_service() {
    // A single thread: whatever waited for a host would keep everything else from going on.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut service, _folder) = first();
    let path = service.path().to_owned();
    runtime.block_on(async {
        let server = aio::Stack::attach(&path).await.unwrap();
        let client = aio::Stack::attach(&path).await.unwrap();
        let (mut uris, mut listeners) = (Vec::new(), Vec::new());
        for protocol in [Protocol::Quic, Protocol::Tcp] {
            let (listener, uri) = listen(&server, protocol).await;
            tokio::spawn(serve(listener.clone()));
            listeners.push(listener);
            uris.push(uri);
        }
        for n in 0..2 {
            let mut stays = Vec::new();
            for uri in &uris {
                stays.push(reach(&client, uri).await.unwrap());
            }
            let older = service;
            service = upgraded(&older);
            // The server does nothing but wait for who comes.
            until_async("both programs attached anew", || service.host().applications() == 2).await;
            for (_, stream) in &mut stays {
                ask(stream, n).await;
            }
            for uri in &uris {
                ask(&mut reach(&client, uri).await.unwrap().1, n).await;
            }
            assert!(older.host().applications() > 0, "connections stay where they are");
            drop(stays);
            until_async("nobody is left at the older one", || older.host().applications() == 0).await;
        }
        // The end of a service is not the end of its programs' tasks.
        drop(service);
        until_async("the end is heard", || client.create(Protocol::Tcp).is_err()).await;
        assert!(matches!(client.reattach().await, Err(Error::Attach { .. })), "nobody listens");
        let service = Service::start(Host::new(Config::default()), Options::new(&path)).unwrap();
        client.reattach().await.unwrap();
        server.reattach().await.unwrap();
        let serving: Vec<_> = listeners.into_iter().map(|listener| tokio::spawn(serve(listener))).collect();
        for uri in &uris {
            ask(&mut reach(&client, uri).await.unwrap().1, 7).await;
        }
        for task in serving {
            task.abort();
            let _ = task.await;
        }
        drop((server, client));
        until_async("nothing is left of the programs", || service.host().applications() == 0).await;
    });
}

/// As [`until`], while tasks go on.
async fn until_async(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}
