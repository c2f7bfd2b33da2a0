//! An echo server and its client over session ports: `cargo run -p courser --example echo_ports`.
//!
//! Both are event loops over a [`Port`], so that neither cares where its worker runs. The server's is in a thread of its
//! own; the client's too, or the client drives it.
#![allow(dead_code, missing_docs, reason = "the test calls `echo`, the program `main`")]

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use courser::certs::Throwaway;
use courser::session::{
    Bytes, Completion, Ended, Endpoint, Handle, InlineEndpoint, Options, Port, PortSetup, Remote, Submission,
    ThreadPort, Waited, WriteCredit, look_time,
};
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::{ClientOptions, ServerOptions};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    for inline in [false, true] {
        println!("{}", String::from_utf8_lossy(&echo(b"hello over QUIC", inline)?));
    }
    Ok(())
}

/// Sends `message` to a server of its own and returns what comes back.
pub fn echo(message: &[u8], inline: bool) -> Result<Vec<u8>> {
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let tls = ServerConfig::builder().certificate(credentials).alpn(["echo"]).build()?;
    let server = Endpoint::start(Options::server("127.0.0.1:0".parse()?, ServerOptions::new(tls)))?;
    let (addr, mut port) = (server.local_addr(), server.attach(PortSetup::default()));
    // Before the client begins: who comes while nobody listens is refused.
    let here = Remote { address: addr, server_name: String::new(), profile: 0 };
    port.submit(Submission::Listen { token: 0, at: Box::new(here) })?;
    let serving = thread::spawn(move || serve(&mut port));

    let roots = Roots::empty().add_der(identity.certificate_der())?;
    let tls = ClientConfig::builder().roots(roots).alpn(["echo"]).build()?;
    let options = Options::client(ClientOptions::new(tls));
    let mut client = Client::new(addr, message);
    if inline {
        let mut endpoint = InlineEndpoint::new(options, PortSetup::default())?;
        while !client.step(&mut endpoint.port())? {
            if !endpoint.turn()? {
                endpoint.wait(Some(PATIENCE))?;
            }
        }
        // The goodbye still has to leave.
        while endpoint.turn()? {}
    } else {
        let endpoint = Endpoint::start(options)?;
        let mut port = endpoint.attach(PortSetup::default());
        while !client.step(&mut port)? {
            if port.look_then_wait(look_time(), Some(PATIENCE)) != Waited::Ready {
                return Err("no answer".into());
            }
        }
    }
    // The server sees the end of its only client, and returns.
    serving.join().map_err(|_| "the server panicked")??;
    Ok(client.answer)
}

/// Bytes on their way out of a stream.
#[derive(Default)]
pub struct Outgoing {
    pub credit: WriteCredit,
    data: VecDeque<Bytes>,
    /// Nothing follows.
    fin: bool,
    finished: bool,
}

impl Outgoing {
    pub fn push(&mut self, data: Bytes, fin: bool) {
        self.data.extend(Some(data).filter(|data| !data.is_empty()));
        self.fin |= fin;
    }

    /// Whether something could go out that did not.
    fn is_waiting(&self) -> bool {
        if self.data.is_empty() { self.fin && !self.finished } else { self.credit.room() > 0 }
    }

    /// Writes as much as credit and ring take; how many bytes it were.
    pub fn pump(&mut self, port: &mut dyn Port, stream: Handle) -> u64 {
        let mut written = 0;
        while let Some(data) = self.data.front_mut() {
            match port.write(stream, &mut self.credit, data, false) {
                0 => return written,
                n => written += n as u64,
            }
            if data.is_empty() {
                self.data.pop_front();
            }
        }
        if self.fin && !self.finished {
            self.finished = port.submit(Submission::Finish { stream }).is_ok();
        }
        written
    }
}

/// Sends back what arrives on the peer's streams.
#[derive(Default)]
pub struct Echo {
    streams: HashMap<Handle, Outgoing>,
    /// What found no room in the port.
    later: VecDeque<Submission>,
}

impl Echo {
    /// Reacts to what happened.
    pub fn on(&mut self, port: &mut dyn Port, message: Completion) {
        let touched = message.handle();
        match message {
            Completion::Accepted { handle, .. } => self.later.push_back(Submission::Accept { handle }),
            Completion::Data { stream, data, fin, .. } => self.streams.entry(stream).or_default().push(data, fin),
            Completion::CreditGranted { stream, limit } => {
                self.streams.entry(stream).or_default().credit.grant(limit);
            }
            Completion::Reset { stream, code } => self.later.push_back(Submission::Reset { stream, code }),
            Completion::Stopped { stream, code } => self.later.push_back(Submission::Stop { stream, code }),
            Completion::Closed { handle, .. } => drop(self.streams.remove(&handle)),
            _ => {}
        }
        touched.into_iter().for_each(|stream| self.pump(port, stream));
    }

    /// What was read counts as consumed once it was sent back: a slow reader holds itself back.
    fn pump(&mut self, port: &mut dyn Port, stream: Handle) {
        let bytes = self.streams.get_mut(&stream).map_or(0, |out| out.pump(port, stream));
        self.later.extend((bytes > 0).then_some(Submission::Consumed { stream, bytes }));
        port.submit_batch(&mut std::iter::from_fn(|| self.later.pop_front()));
    }

    /// Tries again what found no room in the port; whether all of it did now.
    pub fn go_on(&mut self, port: &mut dyn Port) -> bool {
        let waiting: Vec<Handle> = self.streams.iter().filter(|(_, out)| out.is_waiting()).map(|(s, _)| *s).collect();
        waiting.into_iter().for_each(|stream| self.pump(port, stream));
        port.submit_batch(&mut std::iter::from_fn(|| self.later.pop_front()));
        self.later.is_empty() && port.has_room()
    }
}

/// Serves one client until it leaves.
fn serve(port: &mut ThreadPort) -> Result<()> {
    let mut echo = Echo::default();
    loop {
        while let Some(message) = port.poll() {
            if let (Some(ended), Some(handle)) = (Ended::of(&message), message.handle())
                && handle.kind() == courser::session::Kind::Connection
            {
                println!("{ended}");
                return Ok(());
            }
            echo.on(port, message);
        }
        let is_stuck = !echo.go_on(port);
        let waited = if is_stuck { port.wait_for_room(Some(PATIENCE)) } else { port.wait(Some(PATIENCE)) };
        if waited != Waited::Ready {
            return Err("no client".into());
        }
    }
}

/// A message on its way to the server and back.
struct Client {
    to: Option<Box<Remote>>,
    out: Outgoing,
    stream: Option<Handle>,
    connection: Option<Handle>,
    answer: Vec<u8>,
}

impl Client {
    fn new(addr: SocketAddr, message: &[u8]) -> Self {
        let to = Remote { address: addr, server_name: "localhost".into(), profile: 0 };
        let mut out = Outgoing::default();
        out.push(Bytes::copy_from_slice(message), true);
        Self { to: Some(Box::new(to)), out, stream: None, connection: None, answer: Vec::new() }
    }

    /// Reacts to everything that happened; whether the whole answer is there.
    fn step(&mut self, port: &mut dyn Port) -> Result<bool> {
        if let Some(to) = self.to.take() {
            port.submit(Submission::Connect { token: 0, to })?;
        }
        while let Some(message) = port.poll() {
            match message {
                Completion::Established { connection } => {
                    self.connection = Some(connection);
                    port.submit(Submission::OpenBi { connection, token: 1 })?;
                }
                Completion::Opened { token: 1, handle, .. } => self.stream = Some(handle),
                Completion::CreditGranted { limit, .. } => drop(self.out.credit.grant(limit)),
                Completion::Data { stream, data, fin, .. } => {
                    self.answer.extend_from_slice(&data);
                    port.submit(Submission::Consumed { stream, bytes: data.len() as u64 })?;
                    if let (true, Some(handle)) = (fin, self.connection) {
                        let reason = Bytes::from_static(b"thank you");
                        port.submit(Submission::Close { handle, code: 0, reason })?;
                        return Ok(true);
                    }
                }
                message => {
                    if let Some(ended) = Ended::of(&message).filter(|ended| !ended.is_good()) {
                        return Err(ended.into());
                    }
                }
            }
        }
        if let Some(stream) = self.stream {
            self.out.pump(port, stream);
        }
        Ok(false)
    }
}
