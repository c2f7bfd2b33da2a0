//! What operators do, on each face: a server drains, takes other options for new connections, and gives its port to an
//! endpoint of another face, while connections go on.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(target_os = "linux", not(feature = "portable"), feature = "tokio"))]

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{Identity, PATIENCE, loopback};
use courser::session::{
    Bytes, Completion, Ended, Handle, InlineEndpoint, Kind, Options, Port, PortSetup, Reason, Remote, Submission,
    Waited, WriteCredit,
};
use courser::{Connection, ConnectionError, Endpoint, Handover, HandoverError, ServerOptions, Settings, aio, session};

/// A server that answers each stream with its name.
trait Server {
    fn addr(&self) -> SocketAddr;
    fn drain(&self, limit: Duration) -> Result<(), ConnectionError>;
    fn reload(&self, options: &ServerOptions);
    fn hand_over(&self) -> Handover;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Face {
    Blocking,
    Tokio,
    Ports,
    Inline,
}

const FACES: [Face; 4] = [Face::Blocking, Face::Tokio, Face::Ports, Face::Inline];

impl Face {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Blocking => b"blocking",
            Self::Tokio => b"tokio",
            Self::Ports => b"ports",
            Self::Inline => b"inline",
        }
    }

    /// Binds a port, or takes one over.
    fn serve(self, handover: Option<Handover>, options: ServerOptions) -> Box<dyn Server + Send + Sync> {
        match self {
            Self::Blocking => Box::new(Blocking::new(handover, options)),
            Self::Tokio => Box::new(Tokio::new(handover, options)),
            Self::Ports => Box::new(Ports::new(handover, options)),
            Self::Inline => Box::new(Inline::new(handover, options)),
        }
    }
}

struct Blocking(Endpoint);

impl Blocking {
    fn new(handover: Option<Handover>, options: ServerOptions) -> Self {
        let end = match handover {
            Some(handover) => Endpoint::take_over(handover, options).unwrap(),
            None => Endpoint::server(loopback(), options).unwrap(),
        };
        let accepting = end.clone();
        thread::spawn(move || {
            while let Ok(incoming) = accepting.accept() {
                thread::spawn(move || {
                    let Ok(connection) = incoming.accept() else { return };
                    while let Ok((mut send, mut receive)) = connection.accept_bi() {
                        let _ = receive.read_to_end(&mut Vec::new());
                        let _ = send.write_all(Face::Blocking.name()).and_then(|()| Ok(send.finish()?));
                    }
                });
            }
        });
        Self(end)
    }
}

impl Server for Blocking {
    fn addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn drain(&self, limit: Duration) -> Result<(), ConnectionError> {
        self.0.drain(limit)
    }

    fn reload(&self, options: &ServerOptions) {
        self.0.reload(options).unwrap();
    }

    fn hand_over(&self) -> Handover {
        self.0.hand_over().unwrap()
    }
}

struct Tokio(aio::Endpoint, tokio::runtime::Runtime);

impl Tokio {
    fn new(handover: Option<Handover>, options: ServerOptions) -> Self {
        use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let end = match handover {
            Some(handover) => aio::Endpoint::take_over(handover, options).unwrap(),
            None => aio::Endpoint::server(loopback(), options).unwrap(),
        };
        drop(entered);
        let accepting = end.clone();
        runtime.spawn(async move {
            while let Ok(incoming) = accepting.accept().await {
                tokio::spawn(async move {
                    let Ok(connection) = incoming.accept().unwrap().await else { return };
                    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                        let _ = AsyncReadExt::read_to_end(&mut receive, &mut Vec::new()).await;
                        let _ = send.write_all(Face::Tokio.name()).await;
                        let _ = send.finish();
                    }
                });
            }
        });
        Self(end, runtime)
    }
}

impl Server for Tokio {
    fn addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn drain(&self, limit: Duration) -> Result<(), ConnectionError> {
        self.1.block_on(self.0.drain(limit))
    }

    fn reload(&self, options: &ServerOptions) {
        self.0.reload(options).unwrap();
    }

    fn hand_over(&self) -> Handover {
        self.1.block_on(self.0.hand_over()).unwrap()
    }
}

/// The application of a server behind ports.
struct Answering {
    name: &'static [u8],
    listener: Option<Handle>,
    asked: HashMap<Handle, WriteCredit>,
    /// How the listener ended.
    ended: Option<Reason>,
}

impl Answering {
    fn begin(port: &mut impl Port, at: SocketAddr, name: &'static [u8]) -> Self {
        let at = Remote { address: at, server_name: String::new(), profile: 0 };
        port.submit(Submission::Listen { token: 0, at: Box::new(at) }).unwrap();
        Self { name, listener: None, asked: HashMap::new(), ended: None }
    }

    fn step(&mut self, port: &mut impl Port) {
        while let Some(message) = port.poll() {
            match message {
                Completion::Opened { handle, token: 0, .. } => self.listener = Some(handle),
                Completion::Accepted { handle, .. } if handle.kind() == Kind::Connection => {
                    port.submit(Submission::Accept { handle }).unwrap();
                }
                Completion::Data { stream, fin: true, .. } => {
                    let mut answer = Bytes::from_static(self.name);
                    port.write(stream, self.asked.entry(stream).or_default(), &mut answer, true);
                }
                message if message.handle() == self.listener && self.listener.is_some() => {
                    self.ended = Ended::of(&message).map(|ended| ended.reason);
                }
                _ => {}
            }
        }
    }
}

struct Ports(Option<session::Endpoint>, Option<JoinHandle<Answering>>);

impl Ports {
    fn new(handover: Option<Handover>, options: ServerOptions) -> Self {
        let options = Options::server(loopback(), options);
        let end = match handover {
            Some(handover) => session::Endpoint::take_over(handover, options).unwrap(),
            None => session::Endpoint::start(options).unwrap(),
        };
        let (mut ports, at) = (end.attach_all(PortSetup::default()), end.local_addr());
        let (ready, listens) = channel();
        let thread = thread::spawn(move || {
            let mut app = Answering::begin(&mut ports, at, Face::Ports.name());
            while ports.wait(None) != Waited::Closed {
                app.step(&mut ports);
                let _ = ready.send(());
            }
            app.step(&mut ports);
            app
        });
        listens.recv().unwrap();
        Self(Some(end), Some(thread))
    }

    fn end(&self) -> &session::Endpoint {
        self.0.as_ref().unwrap()
    }
}

impl Server for Ports {
    fn addr(&self) -> SocketAddr {
        self.end().local_addr()
    }

    fn drain(&self, limit: Duration) -> Result<(), ConnectionError> {
        self.end().drain(limit)
    }

    fn reload(&self, options: &ServerOptions) {
        self.end().reload(options).unwrap();
    }

    fn hand_over(&self) -> Handover {
        self.end().hand_over().unwrap()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        drop(self.0.take());
        let app = self.1.take().unwrap().join().unwrap();
        assert!(matches!(app.ended, None | Some(Reason::Draining)), "{:?}", app.ended);
    }
}

enum Ask {
    Drain(Duration, Sender<Result<(), ConnectionError>>),
    Reload(Box<ServerOptions>),
    HandOver(Sender<Handover>),
}

/// An application that drives its worker; others ask it through a channel.
struct Inline(SocketAddr, Option<Sender<Ask>>, Option<JoinHandle<()>>);

impl Inline {
    fn new(handover: Option<Handover>, options: ServerOptions) -> Self {
        let (ask, asked) = channel();
        let (options, setup) = (Options::server(loopback(), options), PortSetup::default());
        let mut end = match handover {
            Some(handover) => InlineEndpoint::take_over(handover, options, setup).unwrap(),
            None => InlineEndpoint::new(options, setup).unwrap(),
        };
        let at = end.local_addr();
        let mut app = Answering::begin(&mut end.port(), at, Face::Inline.name());
        let thread = thread::spawn(move || Self::run(&mut end, &mut app, &asked));
        Self(at, Some(ask), Some(thread))
    }

    fn run(end: &mut InlineEndpoint, app: &mut Answering, asked: &Receiver<Ask>) {
        let mut draining: Option<(Instant, Sender<Result<(), ConnectionError>>)> = None;
        loop {
            match asked.try_recv() {
                Ok(Ask::Drain(limit, done)) => {
                    end.drain();
                    draining = Some((Instant::now() + limit, done));
                }
                Ok(Ask::Reload(options)) => end.reload(&options).unwrap(),
                Ok(Ask::HandOver(to)) => to.send(end.hand_over().unwrap()).unwrap(),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
            }
            let busy = end.turn().unwrap();
            app.step(&mut end.port());
            if let Some((until, done)) = draining.take() {
                if end.is_drained() {
                    assert_eq!(app.ended, Some(Reason::Draining));
                    let _ = done.send(Ok(()));
                } else if Instant::now() >= until {
                    // Going, the endpoint closes what is left.
                    let _ = done.send(Err(ConnectionError::TimedOut));
                    return;
                } else {
                    draining = Some((until, done));
                }
            }
            if !busy {
                end.wait(Some(Duration::from_millis(2))).unwrap();
            }
        }
    }

    fn ask(&self, ask: Ask) {
        self.1.as_ref().unwrap().send(ask).unwrap();
    }
}

impl Server for Inline {
    fn addr(&self) -> SocketAddr {
        self.0
    }

    fn drain(&self, limit: Duration) -> Result<(), ConnectionError> {
        let (done, wait) = channel();
        self.ask(Ask::Drain(limit, done));
        wait.recv().unwrap()
    }

    fn reload(&self, options: &ServerOptions) {
        self.ask(Ask::Reload(Box::new(options.clone())));
    }

    fn hand_over(&self) -> Handover {
        let (to, wait) = channel();
        self.ask(Ask::HandOver(to));
        wait.recv().unwrap()
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        drop(self.1.take());
        self.2.take().unwrap().join().unwrap();
    }
}

fn try_dial(identity: &Identity, to: SocketAddr, patience: Duration) -> Option<(Endpoint, Connection)> {
    let mut end = Endpoint::client(identity.client().bind(loopback())).unwrap();
    end.set_timeout(Some(patience));
    let mut connection = end.connect_to(to, "localhost").ok()?;
    connection.set_timeout(Some(PATIENCE));
    Some((end, connection))
}

fn dial(identity: &Identity, to: SocketAddr) -> (Endpoint, Connection) {
    try_dial(identity, to, PATIENCE).unwrap()
}

/// Who answers.
fn who(connection: &Connection) -> Vec<u8> {
    let (mut send, mut receive) = connection.open_bi().unwrap();
    receive.set_timeout(Some(PATIENCE));
    send.write_all(b"who").unwrap();
    send.finish().unwrap();
    let mut name = Vec::new();
    receive.read_to_end(&mut name).unwrap();
    name
}

#[test]
fn every_face_drains() {
    for face in FACES {
        let identity = Identity::new();
        let server = face.serve(None, identity.server());
        let (_end, connection) = dial(&identity, server.addr());
        assert_eq!(who(&connection), face.name());
        thread::scope(|scope| {
            let draining = scope.spawn(|| server.drain(PATIENCE));
            // Until the worker has heard of it somebody may still be let in, and goes again.
            let began = Instant::now();
            while let Some((_end, late)) = try_dial(&identity, server.addr(), Duration::from_millis(50)) {
                late.close(0, b"");
                assert!(began.elapsed() < PATIENCE, "{face:?} lets people in");
            }
            assert_eq!(who(&connection), face.name(), "the connection goes on");
            assert!(!draining.is_finished());
            connection.close(0, b"");
            assert_eq!(draining.join().unwrap(), Ok(()), "{face:?}");
        });
    }
}

#[test]
fn every_face_closes_what_has_not_ended_in_time() {
    for face in FACES {
        let identity = Identity::new();
        let server = face.serve(None, identity.server());
        let (_end, connection) = dial(&identity, server.addr());
        assert_eq!(who(&connection), face.name());
        assert_eq!(server.drain(Duration::from_millis(1)), Err(ConnectionError::TimedOut), "{face:?}");
        assert_eq!(connection.closed().application(), Some((0, &b""[..])), "{face:?}");
    }
}

#[test]
fn every_face_takes_other_options_for_new_connections() {
    for face in FACES {
        let (old, new) = (Identity::new(), Identity::new());
        let server = face.serve(None, old.server());
        let (_end, before) = dial(&old, server.addr());
        assert_eq!(who(&before), face.name());
        let mut settings = Settings::default();
        settings.max_datagram_frame = 0;
        server.reload(&new.server().settings(settings));
        let began = Instant::now();
        let (_end2, after) = loop {
            // Until the worker has heard of it the old certificate is shown, in which this client does not believe.
            if let Some(found) = try_dial(&new, server.addr(), PATIENCE) {
                break found;
            }
            assert!(began.elapsed() < PATIENCE, "{face:?} has not heard of it");
        };
        assert_eq!(after.peer_certificates(), [new.0.certificate_der().to_vec()]);
        assert_eq!(after.max_datagram_size(), None, "settings too");
        assert_eq!((who(&before), who(&after)), (face.name().to_vec(), face.name().to_vec()));
        assert!(before.close_reason().is_none() && before.max_datagram_size().is_some());
        assert!(try_dial(&old, server.addr(), PATIENCE).is_none(), "the old certificate is not shown any more");
    }
}

#[test]
fn a_port_goes_from_each_face_to_the_next() {
    for (n, face) in FACES.into_iter().enumerate() {
        let next = FACES[(n + 1) % FACES.len()];
        let identity = Identity::new();
        let old = face.serve(None, identity.server());
        let to = old.addr();
        let (_end, before) = dial(&identity, to);
        assert_eq!(who(&before), face.name());
        // In vain first: it takes connections again.
        drop(old.hand_over());
        assert_eq!(who(&dial(&identity, to).1), face.name());
        let new = next.serve(Some(old.hand_over()), identity.server());
        assert_eq!(new.addr(), to);
        let (_end2, after) = dial(&identity, to);
        assert_eq!((who(&before), who(&after)), (face.name().to_vec(), next.name().to_vec()), "{face:?}");
        before.close(0, b"");
        assert_eq!(old.drain(PATIENCE), Ok(()), "{face:?}");
        drop(old);
        assert_eq!(who(&after), next.name());
        assert_eq!(who(&dial(&identity, to).1), next.name());
    }
}

#[test]
fn ports_of_several_workers_change_hands() {
    let identity = Identity::new();
    let options = || identity.server().workers(3);
    let old = Face::Ports.serve(None, options());
    let to = old.addr();
    let before: Vec<_> = (0..6).map(|_| dial(&identity, to)).collect();
    before.iter().for_each(|(_, connection)| assert_eq!(who(connection), Face::Ports.name()));
    let handover = old.hand_over();
    assert_eq!(handover.workers(), 3);
    let new = Face::Tokio.serve(Some(handover), options());
    let after: Vec<_> = (0..6).map(|_| dial(&identity, to)).collect();
    for (_, connection) in &after {
        assert_eq!(who(connection), Face::Tokio.name());
    }
    for (end, connection) in &before {
        end.rebind(loopback()).unwrap();
        assert_eq!(who(connection), Face::Ports.name());
        connection.close(0, b"");
    }
    assert_eq!(old.drain(PATIENCE), Ok(()));
    drop(old);
    after.iter().for_each(|(_, connection)| assert_eq!(who(connection), Face::Tokio.name()));
    drop(new);
}

#[test]
fn who_has_no_port_of_a_server_has_none_to_give() {
    let identity = Identity::new();
    let client = session::Endpoint::start(Options::client(identity.client())).unwrap();
    assert!(matches!(client.hand_over(), Err(HandoverError::NoServer)));
    let mut inline = InlineEndpoint::new(Options::client(identity.client()), PortSetup::default()).unwrap();
    assert!(matches!(inline.hand_over(), Err(HandoverError::NoServer)));
    let server = session::Endpoint::start(Options::server(loopback(), identity.server().workers(2))).unwrap();
    let as_client = session::Endpoint::take_over(server.hand_over().unwrap(), Options::client(identity.client()));
    assert!(as_client.is_err(), "a client has no use for it");
    let options = Options::server(loopback(), identity.server());
    let one = InlineEndpoint::take_over(server.hand_over().unwrap(), options, PortSetup::default());
    assert!(one.is_err(), "one thread cannot be two workers");
    // Who listens while nobody new is taken is told so.
    assert_eq!(server.drain(PATIENCE), Ok(()));
    let mut port = server.attach(PortSetup::default());
    let at = Remote { address: server.local_addr(), server_name: String::new(), profile: 0 };
    port.submit(Submission::Listen { token: 5, at: Box::new(at) }).unwrap();
    assert_eq!(port.wait(Some(PATIENCE)), Waited::Ready);
    let told = port.poll().and_then(|message| Ended::of(&message));
    assert_eq!(told.map(|ended| ended.reason), Some(Reason::Draining));
}
