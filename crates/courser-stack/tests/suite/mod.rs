//! What programs may expect of a stack, whoever hosts it: the same for a host inside the process and outside it, in Rust and
//! through the library for C, for QUIC, TCP and UDP, and for any number of workers. The calls are those of the including test's
//! `api`: the stack itself, or the C functions in its shape.
//!
//! Nothing waits by the clock: whatever does not happen is found by [`PATIENCE`], which is far longer than anything takes.

#![allow(dead_code, reason = "each test program uses what its host can do")]

pub mod addresses;
pub mod quic;
pub mod ready;

use std::thread;
use std::time::Duration;

use courser_session::control::{Protocol, Trust};

use crate::api::{Dir, Error, Session, SessionState, Setting, Stack};

/// How long a call may take before a test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The protocol of the tests.
const ALPN: &[u8] = b"suite";

/// Two programs that talk to each other. They may be the same.
pub struct Ground {
    pub server: Stack,
    pub client: Stack,
    pub protocol: Protocol,
    /// What a QUIC listener proves itself with, for the name "localhost"; in PEM.
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub workers: u16,
}

impl Ground {
    /// A session that fails rather than wait for ever.
    pub fn create(&self, stack: &Stack) -> Session {
        let session = stack.create(self.protocol).unwrap();
        stack.set_timeout(session, Some(PATIENCE)).unwrap();
        session
    }

    /// A listener, and where it is.
    pub fn listen(&self) -> (Session, String) {
        self.listen_at("127.0.0.1")
    }

    pub fn listen_at(&self, host: &str) -> (Session, String) {
        let listener = self.create(&self.server);
        if self.protocol == Protocol::Quic {
            self.server.add_certificate(listener, &self.certificate, &self.key).unwrap();
            self.server.set_alpn(listener, &[ALPN]).unwrap();
            self.server.set_option(listener, Setting::Workers(self.workers)).unwrap();
            self.server.set_option(listener, Setting::Datagrams(true)).unwrap();
        }
        self.server.bind(listener, &format!("{}://{host}:0", self.protocol)).unwrap();
        self.server.listen(listener, 0).unwrap();
        let port = self.server.local_addr(listener).unwrap().port();
        assert_ne!(port, 0, "the listener knows where it is");
        (listener, format!("{}://localhost:{port}", self.protocol))
    }

    /// A session that believes the listener's certificate.
    pub fn caller(&self) -> Session {
        let caller = self.create(&self.client);
        if self.protocol == Protocol::Quic {
            self.client.set_trust(caller, Trust::Roots(self.certificate.clone())).unwrap();
            self.client.set_alpn(caller, &[ALPN]).unwrap();
            self.client.set_option(caller, Setting::Datagrams(true)).unwrap();
        }
        caller
    }

    /// A connection: the server's end and the client's. What comes in is taken in by a thread that waits for it.
    pub fn connect(&self, listener: Session, uri: &str) -> (Session, Session) {
        let caller = self.caller();
        let accepted = thread::scope(|scope| {
            let accepting = scope.spawn(|| self.server.accept(listener).unwrap());
            self.client.connect(caller, uri).unwrap();
            if self.protocol == Protocol::Udp {
                // Nobody hears of a UDP session before its first datagram.
                self.client.send_datagram(caller, b"hello").unwrap();
            }
            accepting.join().unwrap()
        });
        if self.protocol == Protocol::Udp {
            assert_eq!(self.server.recv_datagram(accepted).unwrap(), &b"hello"[..]);
        }
        (accepted, caller)
    }

    /// A stream that carries bytes both ways, with what it is in, over QUIC.
    pub fn stream(&self, listener: Session, uri: &str) -> Pair {
        let (there, here) = self.connect(listener, uri);
        if self.protocol != Protocol::Quic {
            return Pair { there, here, in_there: None, in_here: None };
        }
        let stream = self.create(&self.client);
        self.client.connect_stream(stream, here, Dir::Bi).unwrap();
        // Nobody hears of a stream before its first byte.
        self.client.write_all(stream, b"!").unwrap();
        let accepted = self.server.accept(there).unwrap();
        assert_eq!(read_exactly(&self.server, accepted, 1), b"!");
        Pair { there: accepted, here: stream, in_there: Some(there), in_here: Some(here) }
    }

    pub fn close(&self, pair: Pair) {
        self.client.close(pair.here).unwrap();
        self.server.close(pair.there).unwrap();
        pair.in_here.into_iter().for_each(|session| self.client.close(session).unwrap());
        pair.in_there.into_iter().for_each(|session| self.server.close(session).unwrap());
    }
}

pub struct Pair {
    pub there: Session,
    pub here: Session,
    pub in_there: Option<Session>,
    pub in_here: Option<Session>,
}

/// Bytes that tell where they belong.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at >> 12) as u8 ^ seed).collect()
}

pub fn read_exactly(stack: &Stack, session: Session, length: usize) -> Vec<u8> {
    let mut all = vec![0; length];
    let mut got = 0;
    while got < length {
        let count = stack.read(session, &mut all[got..]).unwrap();
        assert_ne!(count, 0, "the stream ended after {got} of {length} bytes");
        got += count;
    }
    all
}

pub fn read_to_end(stack: &Stack, session: Session) -> Vec<u8> {
    let (mut all, mut block) = (Vec::new(), vec![0; 100_000]);
    loop {
        match stack.read(session, &mut block).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&block[..count]),
        }
    }
}

/// Everything that holds for streams, over QUIC and TCP alike.
pub fn streams(ground: &Ground) {
    both_directions_end_by_themselves(ground);
    much_data_arrives_byte_by_byte(ground);
    many_threads_talk_at_once(ground);
    calls_that_make_no_sense_are_told_so(ground);
    a_listener_that_is_closed_wakes_who_waits(ground);
    addresses::all(ground);
    ready::all(ground);
}

fn both_directions_end_by_themselves(ground: &Ground) {
    let (listener, uri) = ground.listen();
    let pair = ground.stream(listener, &uri);
    assert!(!ground.client.is_connectable_listener(pair.here) && !ground.server.is_connectable_listener(pair.there));
    assert!(ground.server.is_connectable_listener(listener));
    assert_eq!(ground.client.state(pair.here), Ok(SessionState::Open));
    ground.client.write_all(pair.here, b"question").unwrap();
    ground.client.finish(pair.here).unwrap();
    assert!(matches!(ground.client.write(pair.here, b"x"), Err(Error::Unfit(_))));
    assert_eq!(read_to_end(&ground.server, pair.there), b"question");
    // The other direction is open still.
    ground.server.write_all(pair.there, b"answer").unwrap();
    ground.server.finish(pair.there).unwrap();
    assert_eq!(read_to_end(&ground.client, pair.here), b"answer");
    ground.server.wait_acked(pair.there).unwrap();
    ground.client.wait_acked(pair.here).unwrap();
    let here = pair.here;
    ground.close(pair);
    assert_eq!(ground.client.read(here, &mut [0]), Err(Error::NoSession));
    ground.server.close(listener).unwrap();
}

fn much_data_arrives_byte_by_byte(ground: &Ground) {
    const BYTES: usize = 8 << 20;
    let (listener, uri) = ground.listen();
    let pair = ground.stream(listener, &uri);
    let (up, down) = (pattern(BYTES, 1), pattern(BYTES, 2));
    thread::scope(|scope| {
        // Both write before they read: each end is a thread of its own in each direction.
        scope.spawn(|| {
            ground.client.write_all(pair.here, &up).unwrap();
            ground.client.finish(pair.here).unwrap();
        });
        scope.spawn(|| {
            ground.server.write_all(pair.there, &down).unwrap();
            ground.server.finish(pair.there).unwrap();
        });
        scope.spawn(|| assert!(read_to_end(&ground.server, pair.there) == up));
        scope.spawn(|| assert!(read_to_end(&ground.client, pair.here) == down));
    });
    ground.close(pair);
    ground.server.close(listener).unwrap();
}

fn many_threads_talk_at_once(ground: &Ground) {
    const THREADS: u8 = 8;
    let (listener, uri) = ground.listen();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            // Whoever accepts first serves: all threads wait at one listener.
            scope.spawn(|| {
                let connection = ground.server.accept(listener).unwrap();
                let quic = ground.protocol == Protocol::Quic;
                let stream = if quic { ground.server.accept(connection).unwrap() } else { connection };
                let heard = read_to_end(&ground.server, stream);
                ground.server.write_all(stream, &heard).unwrap();
                ground.server.finish(stream).unwrap();
                ground.server.wait_acked(stream).unwrap();
            });
        }
        for number in 0..THREADS {
            let uri = &uri;
            scope.spawn(move || {
                let connection = ground.caller();
                ground.client.connect(connection, uri).unwrap();
                let stream = if ground.protocol == Protocol::Quic {
                    let stream = ground.create(&ground.client);
                    ground.client.connect_stream(stream, connection, Dir::Bi).unwrap();
                    stream
                } else {
                    connection
                };
                let said = pattern(50_000 + usize::from(number), number);
                for piece in said.chunks(1000) {
                    ground.client.write_all(stream, piece).unwrap();
                }
                ground.client.finish(stream).unwrap();
                assert!(read_to_end(&ground.client, stream) == said);
            });
        }
    });
    ground.server.close(listener).unwrap();
}

fn calls_that_make_no_sense_are_told_so(ground: &Ground) {
    let (stack, session) = (&ground.client, ground.create(&ground.client));
    assert!(matches!(stack.read(session, &mut [0]), Err(Error::Unfit(_))));
    assert!(matches!(stack.write(session, b"x"), Err(Error::Unfit(_))));
    assert!(matches!(stack.accept(session), Err(Error::Unfit(_))));
    assert!(matches!(stack.listen(session, 1), Err(Error::Unfit(_))));
    assert!(matches!(stack.local_addr(session), Err(Error::Unfit(_))));
    assert!(matches!(stack.connect(session, "http://localhost:1"), Err(Error::Address(_))));
    assert!(matches!(stack.bind(session, "nonsense"), Err(Error::Address(_))));
    let other = if ground.protocol == Protocol::Tcp { "udp" } else { "tcp" };
    assert!(matches!(stack.connect(session, &format!("{other}://localhost:1")), Err(Error::Address(_))));
    assert_eq!(stack.state(session), Ok(SessionState::Created), "it can be used still");
    stack.close(session).unwrap();
    assert_eq!(stack.close(session), Err(Error::NoSession));
    assert_ne!(stack.create(ground.protocol).unwrap(), session, "a number is used once");
}

fn a_listener_that_is_closed_wakes_who_waits(ground: &Ground) {
    let (listener, _) = ground.listen();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| ground.server.accept(listener))).collect();
        ground.server.close(listener).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Err(Error::NoSession));
        }
    });
}

/// Datagrams over UDP.
pub fn udp(ground: &Ground) {
    addresses::all(ground);
    let (listener, uri) = ground.listen();
    let pairs: Vec<_> = (0..3).map(|_| ground.connect(listener, &uri)).collect();
    for (number, (there, here)) in (0..).zip(&pairs) {
        assert!(!ground.server.is_connectable_listener(*there));
        let mut block = [0; 100];
        assert_eq!(ground.client.write(*here, &[number; 30]).unwrap(), 30);
        assert_eq!(ground.server.read(*there, &mut block).unwrap(), 30);
        assert_eq!(block[..30], [number; 30]);
        ground.server.send_datagram(*there, &block[..20]).unwrap();
        assert_eq!(ground.client.read(*here, &mut block[..5]).unwrap(), 5, "what does not fit is lost");
        ground.server.send_datagram(*there, b"next").unwrap();
        assert_eq!(ground.client.recv_datagram(*here).unwrap(), &b"next"[..]);
    }
    for (there, here) in pairs {
        ground.client.close(here).unwrap();
        ground.server.close(there).unwrap();
    }
    ground.server.close(listener).unwrap();
}
