//! The core alone: two engines, two plain sockets, one `mio` event loop. No worker, no thread, no runtime.
//!
//! Whoever has an event loop of their own puts Courser into it like this: give the engine what the socket gave, let it
//! work, send what it fills, sleep until its deadline. A client sends a megabyte, the server echoes it.
//!
//! `cargo run -p courser --example sans_io_mio`

use std::error::Error;
use std::io;
use std::time::{Duration, Instant as Clock};

use courser::certs::Throwaway;
use courser::core::config::Settings;
use courser::core::engine::{Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train};
use courser::core::ids::{ConnKey, Dir, Ecn, StreamId};
use courser::core::stream::{Read, StreamEvent};
use courser::core::time::Instant;
use courser_tls::{AwsLc, ClientConfig, Credentials, Roots, SystemRandom};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

/// Bytes that go there and back.
const BYTES: usize = 1 << 20;

/// An engine with its socket: what an event loop needs to know of Courser.
struct Side {
    engine: Engine,
    socket: UdpSocket,
    /// The two buffers: one for a datagram that comes, one for datagrams that go.
    inbox: Vec<u8>,
    outbox: Train,
}

impl Side {
    fn new(engine: Engine) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().map_err(io::Error::other)?)?;
        Ok(Self { engine, socket, inbox: vec![0; 65_536], outbox: Train::new() })
    }

    /// Gives the engine everything that the socket has.
    fn receive(&mut self, now: Instant) -> io::Result<()> {
        loop {
            match self.socket.recv_from(&mut self.inbox) {
                Ok((len, remote)) => {
                    let meta = Meta { local: None, remote, ecn: Ecn::NotEct, stride: len };
                    self.engine.receive(now, &meta, &mut self.inbox[..len]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Lets the engine work and sends what it fills. A plain socket sends a train datagram by datagram; one that it has
    /// no room for is lost like any other datagram.
    fn send(&mut self, now: Instant) {
        self.engine.process(now);
        while let Some(meta) = self.engine.fill(now, &mut self.outbox) {
            for datagram in self.outbox.bytes().chunks(meta.segment) {
                let _ = self.socket.send_to(datagram, meta.to);
            }
            self.engine.sent(now, &meta, SendOutcome::Sent);
        }
    }
}

/// The server's application: what comes on a stream goes back on it.
#[derive(Default)]
struct Echo {
    streams: Vec<(ConnKey, StreamId, Vec<u8>, bool)>,
}

impl Echo {
    fn run(&mut self, engine: &mut Engine) -> Result<(), Box<dyn Error>> {
        while let Some((key, event)) = engine.poll_event() {
            if let Event::Stream(StreamEvent::Opened { dir }) = event
                && let Some(id) = engine.accept_stream(key, dir)?
            {
                self.streams.push((key, id, Vec::new(), false));
            }
        }
        for (key, id, pending, ended) in &mut self.streams {
            // Only as much is held as one round brings: what cannot be written yet stops the reading.
            if pending.is_empty() && !*ended {
                let read = engine.read_with(*key, *id, |bytes| {
                    pending.extend_from_slice(bytes);
                    bytes.len()
                })?;
                *ended = read == Read::Finished;
                if *ended {
                    engine.finish(*key, *id)?;
                }
            }
            if !pending.is_empty() {
                let taken = engine.write(*key, *id, pending)?;
                pending.drain(..taken);
            }
        }
        self.streams.retain(|(.., ended)| !ended);
        Ok(())
    }
}

/// The client's application; `true` when everything came back.
struct Client {
    key: ConnKey,
    stream: Option<StreamId>,
    data: Vec<u8>,
    written: usize,
    got: Vec<u8>,
}

impl Client {
    fn run(&mut self, engine: &mut Engine) -> Result<bool, Box<dyn Error>> {
        while let Some((_, event)) = engine.poll_event() {
            match event {
                Event::Connected => self.stream = engine.open_stream(self.key, Dir::Bi)?,
                Event::Closed(reason) => return Err(reason.into()),
                _ => {}
            }
        }
        let Some(id) = self.stream else { return Ok(false) };
        if self.written < self.data.len() {
            self.written += engine.write(self.key, id, &self.data[self.written..])?;
            if self.written == self.data.len() {
                engine.finish(self.key, id)?;
            }
        }
        let got = &mut self.got;
        let read = engine.read_with(self.key, id, |bytes| {
            got.extend_from_slice(bytes);
            bytes.len()
        })?;
        Ok(read == Read::Finished)
    }
}

fn engines() -> Result<(Engine, Engine, ClientConfig), Box<dyn Error>> {
    let certificate = Throwaway::local()?;
    let credentials =
        Credentials::from_pem(certificate.certificate_pem().as_bytes(), certificate.key_pem().as_bytes())?;
    let tls = courser_tls::ServerConfig::builder().certificate(credentials).alpn(["echo"]).build()?;
    let config = || EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new()));
    let server = EngineConfig { server: Some(ServerConfig::new(Box::new(tls), Settings::default())), ..config() };
    let roots = Roots::empty().add_pem(certificate.certificate_pem().as_bytes())?;
    let tls = ClientConfig::builder().roots(roots).alpn(["echo"]).build()?;
    Ok((Engine::new(config()), Engine::new(server), tls))
}

/// Runs the whole example; returns the number of bytes that came back unchanged.
pub fn run() -> Result<usize, Box<dyn Error>> {
    let (client, server, tls) = engines()?;
    let (mut client, mut server) = (Side::new(client)?, Side::new(server)?);
    let began = Clock::now();
    // The engine's time is whatever the loop says it is.
    let now = || Instant::from_micros(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));

    let key = client.engine.connect(now(), server.socket.local_addr()?, "localhost", &tls, &Settings::default())?;
    let data: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
    let mut app = Client { key, stream: None, data, written: 0, got: Vec::new() };
    let mut echo = Echo::default();

    let mut poll = Poll::new()?;
    poll.registry().register(&mut client.socket, Token(0), Interest::READABLE)?;
    poll.registry().register(&mut server.socket, Token(1), Interest::READABLE)?;
    let mut events = Events::with_capacity(8);
    while began.elapsed() < Duration::from_secs(60) {
        let t = now();
        client.receive(t)?;
        server.receive(t)?;
        if app.run(&mut client.engine)? {
            client.engine.close(t, key, 0, b"thanks")?;
            client.send(t);
            let same = app.got == app.data;
            return if same { Ok(app.got.len()) } else { Err("what came back differs".into()) };
        }
        echo.run(&mut server.engine)?;
        client.send(t);
        server.send(t);
        let next = [client.engine.deadline(), server.engine.deadline()].into_iter().flatten().min();
        poll.poll(&mut events, next.map(|at| at.since(now())))?;
    }
    Err("nothing came back within a minute".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let bytes = run()?;
    println!("{bytes} bytes went there and back");
    Ok(())
}
