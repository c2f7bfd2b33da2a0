//! A stack at a service that is a few lines of test: what it does when the service is strange, slow, or gone.
//!
//! What sessions do is tested with real workers, in `courser-stack`.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::{
    control::{Client, Fault, Notice, OpenedMsg, Protocol, Reply, Request, receive, send},
    port::{EventBell, SharedSetup, WorkerPort, shared},
    reason::{Ended, Reason},
};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// The service's end of a control socket.
struct Service {
    socket: OwnedFd,
    bell: EventBell,
    ports: Vec<WorkerPort>,
}

impl Service {
    fn next(&self) -> Option<Request> {
        let (mut buf, mut fds) = (Vec::new(), Vec::new());
        match receive(self.socket.as_fd(), &mut buf, &mut fds) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(Request::decode(&buf).unwrap()),
        }
    }

    fn say(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        send(self.socket.as_fd(), &bytes, fds).unwrap();
    }

    fn notify(&self, notice: &Notice) {
        let mut bytes = Vec::new();
        notice.encode(&mut bytes);
        send(self.socket.as_fd(), &bytes, &[]).unwrap();
    }

    /// Answers as services do; whether there is anybody to answer.
    fn serve_one(&mut self) -> bool {
        match self.next() {
            None => return false,
            Some(Request::Attach { name, .. }) => {
                assert_eq!(name, "test");
                let limits = Attached { application: 3, endpoints_max: 2, sessions_max: 4, memory_max: 1 << 30 };
                self.say(&Reply::Attached(limits), &[self.bell.as_fd()]);
            }
            Some(Request::AddCertificate { .. }) => self.say(&Reply::Certificate { id: 9 }, &[]),
            Some(Request::Open(_)) => {
                let setup = SharedSetup::default();
                let (offer, port) = shared(setup, self.bell.clone()).unwrap();
                self.ports.push(port);
                let local = "127.0.0.1:77".parse().unwrap();
                let opened = OpenedMsg { endpoint: 5, local, setup, ports: 1, first_worker: 2 };
                self.say(&Reply::Opened(opened), &[offer.segment.as_fd(), offer.bell.as_fd()]);
            }
            Some(Request::Close { .. } | Request::RemoveCertificate { .. }) => self.say(&Reply::Done, &[]),
            Some(other) => panic!("{other:?}"),
        }
        true
    }
}

fn pair() -> (Service, OwnedFd) {
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    (Service { socket: there, bell: EventBell::new().unwrap(), ports: Vec::new() }, here)
}

/// A stack at a service that answered the first request.
fn attached() -> (Service, Stack) {
    let (mut service, socket) = pair();
    let waiting = thread::spawn(move || Client::over(socket, "test").unwrap());
    assert!(service.serve_one());
    (service, Stack::over(waiting.join().unwrap()).unwrap())
}

#[test]
fn an_application_learns_what_it_may_have_and_opens_endpoints() {
    let (mut service, stack) = attached();
    assert_eq!((stack.limits().application, stack.limits().sessions_max), (3, 4));
    let serving = thread::spawn(move || {
        while service.serve_one() {}
        service
    });
    let session = stack.create(Protocol::Quic).unwrap();
    stack.add_certificate(session, b"chain", b"key").unwrap();
    stack.bind(session, "quic://127.0.0.1:0").unwrap();
    assert_eq!(stack.local_addr(session).unwrap().port(), 77);
    stack.close(session).unwrap();
    let all: Vec<_> = (0..8).map(|_| stack.create(Protocol::Tcp).unwrap()).collect();
    assert_eq!(stack.create(Protocol::Tcp), Err(Error::Full), "four for each of two endpoints");
    stack.close(all[0]).unwrap();
    assert!(stack.create(Protocol::Tcp).unwrap() > all[7], "numbers are not used again");
    drop(stack);
    assert_eq!(serving.join().unwrap().ports.len(), 1);
}

#[test]
fn whoever_waits_learns_that_the_service_is_gone() {
    let (mut service, stack) = attached();
    let stack = &stack;
    thread::scope(|scope| {
        let session = stack.create(Protocol::Tcp).unwrap();
        let connecting = scope.spawn(move || stack.connect(session, "tcp://127.0.0.1:1"));
        assert!(service.serve_one(), "the endpoint for it");
        let polling = scope.spawn(move || {
            let mut events = Vec::new();
            // Events that came before are told first.
            loop {
                match stack.poll(&mut events, PATIENCE) {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            }
        });
        // Killed: the socket closes, nothing else is said. The memory stays as it is.
        drop(service.socket);
        assert_eq!(connecting.join().unwrap(), Err(Error::ServiceGone));
        assert_eq!(polling.join().unwrap(), Error::ServiceGone);
    });
    assert_eq!(stack.create(Protocol::Udp), Err(Error::ServiceGone));
}

#[test]
fn a_worker_that_goes_ends_its_sessions() {
    let (mut service, stack) = attached();
    let stack = &stack;
    thread::scope(|scope| {
        let session = stack.create(Protocol::Tcp).unwrap();
        let connecting = scope.spawn(move || stack.connect(session, "tcp://127.0.0.1:1"));
        assert!(service.serve_one());
        service.ports.clear();
        let Err(Error::Ended(ended)) = connecting.join().unwrap() else { panic!("its worker is gone") };
        assert_eq!(ended.reason, Reason::Internal);
        assert!(ended.to_string().contains("its worker is gone"), "{ended}");
    });
}

#[test]
fn an_endpoint_that_the_service_closes_ends_its_sessions_with_its_words() {
    let (mut service, stack) = attached();
    let stack = &stack;
    thread::scope(|scope| {
        let session = stack.create(Protocol::Tcp).unwrap();
        let connecting = scope.spawn(move || stack.connect(session, "tcp://127.0.0.1:1"));
        assert!(service.serve_one());
        service.notify(&Notice::EndpointGone { endpoint: 5, text: "the operator closed it".into() });
        let Err(Error::Ended(ended)) = connecting.join().unwrap() else { panic!("the endpoint is gone") };
        assert!(ended.to_string().contains("the operator closed it"), "{ended}");
    });
}

#[test]
fn listeners_end_when_the_service_drains_and_no_new_one_begins() {
    let (mut service, stack) = attached();
    let stack = &stack;
    thread::scope(|scope| {
        let listener = stack.create(Protocol::Tcp).unwrap();
        let binding = scope.spawn(move || stack.bind(listener, "tcp://127.0.0.1:1"));
        assert!(service.serve_one());
        binding.join().unwrap().unwrap();
        // Nobody answers; draining ends the wait.
        let listening = scope.spawn(move || stack.listen(listener, 0));
        service.notify(&Notice::Draining);
        let draining = Err(Error::Ended(Ended::plain(Reason::Draining)));
        assert_eq!(listening.join().unwrap(), draining);
        let other = stack.create(Protocol::Tcp).unwrap();
        stack.bind(other, "tcp://127.0.0.1:2").unwrap();
        assert_eq!(stack.listen(other, 0), draining);
    });
}

#[test]
fn a_service_that_makes_no_sense_is_not_listened_to() {
    let strange: [&dyn Fn(&Service); 5] = [
        &|service| service.say(&Reply::Done, &[]),
        &|service| service.say(&Reply::Attached(Attached::default()), &[]),
        &|service| service.say(&Reply::Attached(Attached::default()), &[service.bell.as_fd(), service.bell.as_fd()]),
        &|service| send(service.socket.as_fd(), b"\xff\xff", &[]).unwrap(),
        &|service| service.say(&Reply::Failed { fault: Fault::Denied, text: "not you".into() }, &[]),
    ];
    for (number, answer) in (0..).zip(strange) {
        let (service, socket) = pair();
        let waiting = thread::spawn(move || Client::over(socket, "test"));
        assert!(matches!(service.next(), Some(Request::Attach { .. })));
        answer(&service);
        match waiting.join().unwrap() {
            Err(Ok(refused)) => {
                let fault = if number == 4 { Fault::Denied } else { Fault::Malformed };
                assert_eq!(refused.fault, fault, "{number}: {refused}");
            }
            Err(Err(error)) => assert_eq!((number, error.kind()), (3, std::io::ErrorKind::ConnectionReset)),
            Ok(_) => panic!("{number}: that is no answer"),
        }
    }
}

#[test]
fn what_is_too_long_is_not_sent() {
    let (service, stack) = attached();
    let session = stack.create(Protocol::Quic).unwrap();
    let error = stack.add_certificate(session, &[b'x'; crate::control::PEM_MAX + 1], b"").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    drop(stack);
    assert_eq!(service.next(), None, "nothing came");
}
