//! The worker with sockets of the loopback interface. Nothing here waits for a time: tests wait for what happens.

#[cfg(target_os = "linux")]
mod shared;
mod tcp;
mod tcp_ends;
mod udp;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use courser_session::credit::WriteCredit;
use courser_session::handle::Handle;
use courser_session::msg::{Completion, Endpoint, Submission};
use courser_session::port::{PortSetup, ThreadPort, Waited};
use courser_session::reason::{Ended, Reason};

use super::*;

/// A test that waits so long has failed, on any machine.
const LONG: Duration = Duration::from_secs(60);

fn here() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn at(protocol: Protocol, address: SocketAddr) -> Box<Endpoint> {
    Box::new(Endpoint { address, server_name: protocol.name().to_owned(), profile: 0 })
}

/// An application with a port.
struct App {
    port: ThreadPort,
    /// Heard, and not yet asked for.
    heard: Vec<Completion>,
    token: u64,
}

impl App {
    fn new(plain: &Plain) -> Self {
        Self::with(plain, PortSetup::default())
    }

    fn with(plain: &Plain, setup: PortSetup) -> Self {
        Self { port: plain.attach(setup), heard: Vec::new(), token: 0 }
    }

    fn say(&mut self, submission: Submission) {
        self.port.submit(submission).expect("few submissions fit");
    }

    /// Waits for the first message that `wanted` takes; the others stay for later.
    fn hear<T>(&mut self, mut wanted: impl FnMut(&Completion) -> Option<T>) -> T {
        let mut seen = 0;
        loop {
            while seen < self.heard.len() {
                if let Some(found) = wanted(&self.heard[seen]) {
                    self.heard.remove(seen);
                    return found;
                }
                seen += 1;
            }
            if self.port.poll_into(&mut self.heard, usize::MAX) == 0 {
                let waited = self.port.wait(Some(LONG));
                assert_eq!(waited, Waited::Ready, "nothing more came; heard before: {:?}", self.heard);
            }
        }
    }

    fn token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn opened(&mut self, token: u64) -> Result<(Handle, u64), Ended> {
        self.hear(|message| match message {
            Completion::Opened { token: t, handle, number } if *t == token => Some(Ok((*handle, *number))),
            Completion::Failed { token: t, .. } if *t == token => Ended::of(message).map(Err),
            _ => None,
        })
    }

    fn listen(&mut self, protocol: Protocol) -> (Handle, SocketAddr) {
        let token = self.token();
        self.say(Submission::Listen { token, at: at(protocol, here()) });
        let (handle, port) = self.opened(token).unwrap();
        (handle, SocketAddr::new(here().ip(), u16::try_from(port).unwrap()))
    }

    fn try_connect(&mut self, protocol: Protocol, to: SocketAddr) -> Result<Handle, Ended> {
        let token = self.token();
        self.say(Submission::Connect { token, to: at(protocol, to) });
        self.opened(token).map(|(handle, _)| handle)
    }

    fn connect(&mut self, protocol: Protocol, to: SocketAddr) -> Handle {
        self.try_connect(protocol, to).unwrap()
    }

    fn accepted(&mut self) -> (Handle, u64) {
        let (handle, number) = self.hear(|message| match message {
            Completion::Accepted { handle, number, .. } => Some((*handle, *number)),
            _ => None,
        });
        self.say(Submission::Accept { handle });
        (handle, number)
    }

    fn closed(&mut self, session: Handle) -> Ended {
        self.hear(|message| match message {
            Completion::Closed { handle, .. } if *handle == session => Ended::of(message),
            _ => None,
        })
    }

    /// The next bytes of a stream, which are consumed, and whether they are the last.
    fn data(&mut self, session: Handle) -> (Bytes, bool) {
        let (data, fin) = self.hear(|message| match message {
            Completion::Data { stream, data, fin, .. } if *stream == session => Some((data.clone(), *fin)),
            _ => None,
        });
        if !data.is_empty() {
            self.say(Submission::Consumed { stream: session, bytes: data.len() as u64 });
        }
        (data, fin)
    }

    fn read_to_end(&mut self, session: Handle) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let (data, fin) = self.data(session);
            all.extend_from_slice(&data);
            if fin {
                return all;
            }
        }
    }

    /// Writes all of it as credit comes.
    fn write_all(&mut self, session: Handle, credit: &mut WriteCredit, data: &[u8], fin: bool) {
        let mut data = Bytes::copy_from_slice(data);
        loop {
            self.port.write(session, credit, &mut data, fin);
            if data.is_empty() {
                return;
            }
            if credit.room() == 0 {
                let limit = self.hear(|message| match message {
                    Completion::CreditGranted { stream, limit } if *stream == session => Some(*limit),
                    _ => None,
                });
                credit.grant(limit);
            }
        }
    }

    fn reset_heard(&mut self, session: Handle) {
        self.hear(|m| matches!(m, Completion::Reset { stream, .. } if *stream == session).then_some(()));
    }

    fn datagram(&mut self, session: Handle) -> Bytes {
        self.hear(|message| match message {
            Completion::Datagram { connection, data } if *connection == session => Some(data.clone()),
            _ => None,
        })
    }

    fn send(&mut self, session: Handle, data: &[u8]) {
        self.say(Submission::Datagram { connection: session, data: Bytes::copy_from_slice(data), tag: None });
    }

    /// Figures of a session. Everything that was asked before has been carried out then.
    fn stats(&mut self, handle: Handle) -> courser_session::msg::SessionStats {
        let token = self.token();
        self.say(Submission::Stats { handle, token });
        self.hear(|message| match message {
            Completion::Stats { token: t, stats, .. } if *t == token => Some(**stats),
            _ => None,
        })
    }
}

/// Bytes that show where they stand.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

fn row_of(plain: &Plain, handle: Handle) -> Option<Row> {
    plain.rows(usize::MAX).into_iter().find(|row| row.handle == handle)
}

#[test]
fn a_later_worker_of_the_same_number_gives_out_none_of_the_handles() {
    let first = Plain::start(PlainSetup { worker: 9, ..PlainSetup::default() }).unwrap();
    let mut app = App::new(&first);
    let old: Vec<Handle> = (0..3).map(|_| app.listen(Protocol::Tcp).0).collect();
    app.say(Submission::Close { handle: old[2], code: 0, reason: Bytes::new() });
    assert_eq!(app.closed(old[2]).reason, Reason::ClosedHere);
    let again = app.listen(Protocol::Udp).0;
    assert_ne!(again, old[2]);
    let highest = first.stop();
    assert!(highest >= again.generation());
    assert!(app.port.is_closed());
    let second = Plain::start(PlainSetup { worker: 9, first_generation: highest, ..PlainSetup::default() }).unwrap();
    let mut app = App::new(&second);
    let new = app.listen(Protocol::Tcp).0;
    assert!(!old.contains(&new) && new != again && new.worker() == 9);
}

#[test]
fn what_makes_no_sense_is_answered() {
    let allowed: Allowed = Arc::new(|protocol, _| protocol == Protocol::Udp);
    let plain = Plain::start(PlainSetup { allowed: Some(allowed), ..PlainSetup::default() }).unwrap();
    let mut app = App::new(&plain);
    let denied = app.token();
    app.say(Submission::Listen { token: denied, at: at(Protocol::Tcp, here()) });
    let ended = app.opened(denied).unwrap_err();
    assert_eq!(ended.reason, Reason::NoListener);
    assert!(ended.to_string().contains("tcp://127.0.0.1:0"), "{ended}");

    let odd = app.token();
    let to = Endpoint { address: here(), server_name: "quic".into(), profile: 0 };
    app.say(Submission::Connect { token: odd, to: Box::new(to) });
    assert_eq!(app.opened(odd).unwrap_err().reason, Reason::NoProfile);

    let (listener, address) = app.listen(Protocol::Udp);
    let taken = app.token();
    app.say(Submission::Listen { token: taken, at: at(Protocol::Udp, address) });
    assert_eq!(app.opened(taken).unwrap_err().reason, Reason::System, "the address is in use");

    app.say(Submission::Finish { stream: listener });
    app.send(listener, b"");
    for _ in 0..2 {
        app.hear(|m| matches!(m, Completion::Rejected { handle, .. } if *handle == listener).then_some(()));
    }
    let link = app.connect(Protocol::Udp, address);
    let stream = app.token();
    app.say(Submission::OpenBi { connection: link, token: stream });
    assert_eq!(app.opened(stream).unwrap_err().reason, Reason::Refused);
}

#[test]
fn a_worker_that_ends_tells_its_ports_and_serves_nobody_any_more() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    app.listen(Protocol::Tcp);
    drop(plain);
    while app.port.poll().is_some() {}
    assert_eq!(app.port.wait(Some(LONG)), Waited::Closed);
}
