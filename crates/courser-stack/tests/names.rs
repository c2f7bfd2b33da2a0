//! Connecting by name: no name keeps others waiting, every address is tried, and there is an end to it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{PATIENCE, Place, until};
use courser::certs::Throwaway;
use courser_session::control::{Protocol, Trust};
use courser_session::reason::Reason;
use courser_session::stack::{Error, Session, SessionState, Stack};
use courser_stack::host::Config;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Names and their addresses, as a test wants them.
type Table = BTreeMap<&'static str, Vec<&'static str>>;

fn knows(stack: &Stack, table: &[(&'static str, &[&'static str])]) {
    let table: Table = table.iter().map(|(name, ips)| (*name, ips.to_vec())).collect();
    stack.set_resolver(Arc::new(move |name: &str| -> io::Result<Vec<IpAddr>> {
        let ips = table.get(name).ok_or_else(|| io::Error::other("nobody knows that name"))?;
        Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect())
    }));
}

fn session(stack: &Stack, protocol: Protocol) -> Session {
    let session = stack.create(protocol).unwrap();
    stack.set_timeout(session, Some(PATIENCE)).unwrap();
    session
}

/// A QUIC listener for any name, at that address.
fn quic_listener(stack: &Stack, host: &str) -> (Session, u16) {
    let identity = Throwaway::local().unwrap();
    let listener = session(stack, Protocol::Quic);
    stack.add_certificate(listener, identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes()).unwrap();
    stack.bind(listener, &format!("quic://{host}:0")).unwrap();
    stack.listen(listener, 0).unwrap();
    (listener, stack.local_addr(listener).unwrap().port())
}

#[test]
fn an_address_where_nobody_listens_does_not_hide_one_where_somebody_does() {
    let place = Place::new(Config::default());
    let (server, client) = (Stack::attach(&place.socket()).unwrap(), Stack::attach(&place.socket()).unwrap());
    // Those of this machine where nobody listens: refused over TCP, silent over QUIC.
    knows(&client, &[("many.test", &["::1", "127.0.0.2", "127.0.0.3", "127.0.0.1"])]);
    let listener = session(&server, Protocol::Tcp);
    server.bind(listener, "tcp://127.0.0.1:0").unwrap();
    server.listen(listener, 0).unwrap();
    let port = server.local_addr(listener).unwrap().port();
    let caller = session(&client, Protocol::Tcp);
    client.connect(caller, &format!("tcp://many.test:{port}")).unwrap();
    assert_eq!(client.peer_addr(caller).unwrap().to_string(), format!("127.0.0.1:{port}"));
    let accepted = server.accept(listener).unwrap();
    server.write_all(accepted, b"found").unwrap();
    assert_eq!(client.read(caller, &mut [0; 10]), Ok(5));

    let (listener, port) = quic_listener(&server, "127.0.0.1");
    let caller = session(&client, Protocol::Quic);
    client.set_trust(caller, Trust::Anybody).unwrap();
    client.connect(caller, &format!("quic://many.test:{port}")).unwrap();
    assert_eq!(client.peer_addr(caller).unwrap().to_string(), format!("127.0.0.1:{port}"));
    let accepted = server.accept(listener).unwrap();
    // The losers are gone, and the endpoint has no session but this one.
    until("the losers are closed", || {
        let all = place.ask("show sessions");
        let all = all["objects"].as_array().unwrap();
        let connections = all.iter().filter(|object| object["kind"] == "connection session");
        connections.count() == 2
    });
    server.close(accepted).unwrap();
    client.close(caller).unwrap();
}

#[test]
fn a_name_that_nobody_knows_and_one_whose_addresses_refuse_are_told_so() {
    let place = Place::new(Config::default());
    let stack = Stack::attach(&place.socket()).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    knows(&stack, &[("nobody.test", &["127.0.0.1", "127.0.0.2"]), ("empty.test", &[])]);
    let caller = session(&stack, Protocol::Tcp);
    let error = stack.connect(caller, "tcp://unknown.test:1").unwrap_err();
    assert!(matches!(&error, Error::Address(text) if text == "unknown.test: nobody knows that name"), "{error}");
    assert_eq!(stack.state(caller), Ok(SessionState::Ended));
    let caller = session(&stack, Protocol::Udp);
    let error = stack.connect(caller, "udp://empty.test:1").unwrap_err();
    assert!(matches!(&error, Error::Address(text) if text.contains("has no address")), "{error}");
    let caller = session(&stack, Protocol::Tcp);
    let Err(Error::Ended(ended)) = stack.connect(caller, &format!("tcp://nobody.test:{free}")) else { panic!() };
    assert_eq!(ended.reason, Reason::Refused, "{ended}");
    // A resolver that panics harms nobody.
    stack.set_resolver(Arc::new(|_: &str| -> io::Result<Vec<IpAddr>> { panic!("on purpose") }));
    let caller = session(&stack, Protocol::Tcp);
    assert!(matches!(stack.connect(caller, "tcp://a.test:1"), Err(Error::Address(_))));
}

/// A resolver that answers when it is told to.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

#[test]
fn a_resolver_that_hangs_keeps_nobody_else_waiting() {
    let place = Place::new(Config::default());
    let (hanging, other) = (Stack::attach(&place.socket()).unwrap(), Stack::attach(&place.socket()).unwrap());
    let gate = Arc::new(Gate::default());
    let waits = Arc::clone(&gate);
    hanging.set_resolver(Arc::new(move |name: &str| {
        if name.starts_with("slow") {
            waits.wait();
        }
        Ok(vec!["127.0.0.1".parse().unwrap()])
    }));
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port();
    // Far more names than are looked up at a time.
    let slow: Vec<Session> = (0..100)
        .map(|n| {
            let session = session(&hanging, Protocol::Tcp);
            hanging.set_nonblocking(session, true).unwrap();
            let uri = format!("tcp://slow{n}.test:{port}");
            assert_eq!(hanging.connect(session, &uri), Err(Error::WouldBlock));
            assert_eq!(hanging.connect(session, &uri), Err(Error::WouldBlock), "it says how far it is");
            session
        })
        .collect();
    // The same program's addresses need no resolver, and other programs have one of their own.
    for stack in [&hanging, &other] {
        let quick = session(stack, Protocol::Tcp);
        stack.connect(quick, &format!("tcp://127.0.0.1:{port}")).unwrap();
        stack.close(quick).unwrap();
    }
    let named = session(&other, Protocol::Tcp);
    other.connect(named, &format!("tcp://localhost:{port}")).unwrap();
    // A call that waits has its own limit of time, and a session that is closed is not looked up any more.
    hanging.set_nonblocking(slow[0], false).unwrap();
    hanging.set_timeout(slow[0], Some(Duration::from_millis(5))).unwrap();
    assert_eq!(hanging.connect(slow[0], "tcp://slow0.test:1"), Err(Error::TimedOut));
    slow[50..].iter().for_each(|session| hanging.close(*session).unwrap());
    gate.open();
    for session in &slow[..50] {
        hanging.set_nonblocking(*session, false).unwrap();
        hanging.set_timeout(*session, Some(PATIENCE)).unwrap();
        hanging.connect(*session, "tcp://slow.test:1").unwrap();
        assert_eq!(hanging.peer_addr(*session).unwrap().port(), port);
    }
}

#[test]
fn a_program_with_an_event_loop_hears_when_its_name_has_led_somewhere() {
    let place = Place::new(Config::default());
    let stack = Stack::attach(&place.socket()).unwrap();
    knows(&stack, &[("late.test", &["127.0.0.2", "127.0.0.1"])]);
    let (listener, port) = quic_listener(&stack, "127.0.0.1");
    stack.set_nonblocking(listener, true).unwrap();
    let caller = session(&stack, Protocol::Quic);
    stack.set_trust(caller, Trust::Anybody).unwrap();
    stack.set_nonblocking(caller, true).unwrap();
    // Nobody answers at the first address: it is the timer that begins the second one, while the program sleeps.
    let silent = UdpSocket::bind(("127.0.0.2", port)).unwrap();
    assert_eq!(stack.connect(caller, &format!("quic://late.test:{port}")), Err(Error::WouldBlock));
    let mut events = Vec::new();
    while stack.connect(caller, "quic://late.test:1") == Err(Error::WouldBlock) {
        if stack.poll(&mut events, Some(Duration::ZERO)).unwrap() == 0 {
            let mut fds = [PollFd::from_borrowed_fd(stack.descriptor(), PollFlags::IN)];
            let patience = Timespec::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "the descriptor tells of news");
        }
    }
    assert_eq!(stack.state(caller), Ok(SessionState::Open));
    assert_eq!(stack.peer_addr(caller).unwrap().ip().to_string(), "127.0.0.1");
    drop(silent);
}

#[test]
fn a_udp_session_takes_the_address_where_servers_listen() {
    let place = Place::new(Config::default());
    let stack = Stack::attach(&place.socket()).unwrap();
    knows(&stack, &[("udp.test", &["::1", "127.0.0.1"])]);
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let caller = session(&stack, Protocol::Udp);
    stack.connect(caller, &format!("udp://udp.test:{}", target.local_addr().unwrap().port())).unwrap();
    stack.send_datagram(caller, b"here").unwrap();
    let mut heard = [0; 10];
    let (count, from) = target.recv_from(&mut heard).unwrap();
    assert_eq!((&heard[..count], Ok(from)), (&b"here"[..], stack.local_addr(caller)));
}
