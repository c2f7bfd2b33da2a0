//! QUIC for applications in other processes: ports over shared memory.
#![cfg(all(target_os = "linux", not(feature = "portable")))]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use common::port::remote;
use common::{Identity, PATIENCE, loopback};
use courser::session::{
    AppPort, Bytes, Completion, Ended, Endpoint, EventBell, Fault, Handle, HandleError, Interest, Kind, Offer, Options,
    Port, PortSetup, Reason, Rejection, SharedPort, SharedSetup, Submission, WriteCredit,
};
use courser_session::control::{receive, send};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const ROLE: &str = "COURSER_TEST_SERVER";
const BYTES: usize = 1_000_000;

/// The next completion; sleeps until there is one, or, when `writes`, room to write.
fn next(port: &mut dyn AppPort, bell: &EventBell, writes: bool) -> Option<Completion> {
    let interest = if writes { Interest::ANY } else { Interest::MESSAGES };
    loop {
        if let Some(message) = port.poll() {
            return Some(message);
        }
        port.arm(interest);
        let has_room = writes && port.has_room();
        if !port.has_news() && !has_room {
            assert!(bell.wait(Some(PATIENCE)), "nothing more was heard");
        }
        port.disarm();
        if has_room {
            return None;
        }
    }
}

fn submit(port: &mut dyn AppPort, bell: &EventBell, mut submission: Submission) {
    while let Err(back) = port.submit(submission) {
        submission = back.into_inner();
        port.arm(Interest::ROOM);
        if !port.has_room() {
            assert!(bell.wait(Some(PATIENCE)), "no room came");
        }
        port.disarm();
    }
}

/// One stream to an echo and back; ends with the connection.
fn call(port: &mut dyn AppPort, bell: &EventBell, to: SocketAddr) {
    let data: Vec<u8> = (0..BYTES).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let (mut credit, mut stream, mut sent, mut got) = (WriteCredit::new(), None::<Handle>, 0, 0);
    submit(port, bell, Submission::Connect { token: 1, to: remote(to) });
    loop {
        if let Some(stream) = stream.filter(|_| sent < BYTES) {
            sent += port.write_slice(stream, &mut credit, &data[sent..], true);
        }
        let waits_for_room = stream.is_some() && sent < BYTES && credit.room() > 0;
        match next(port, bell, waits_for_room) {
            None | Some(Completion::AllAcked { .. }) => {}
            Some(Completion::Opened { handle, .. }) if handle.kind() == Kind::Stream => stream = Some(handle),
            Some(Completion::Opened { .. }) => {}
            Some(Completion::Addresses { ends, .. }) => assert_eq!(ends.peer, to),
            Some(Completion::Established { connection }) => {
                submit(port, bell, Submission::OpenBi { connection, token: 2 });
            }
            Some(Completion::CreditGranted { limit, .. }) => _ = credit.grant(limit),
            Some(Completion::Data { stream, offset, data: piece, fin }) => {
                assert_eq!(usize::try_from(offset), Ok(got));
                assert!(piece == data[got..got + piece.len()]);
                got += piece.len();
                assert_eq!(fin, got == BYTES);
                submit(port, bell, Submission::Consumed { stream, bytes: piece.len() as u64 });
            }
            Some(message @ Completion::Closed { .. }) => {
                assert_eq!((Ended::of(&message).unwrap().reason, got), (Reason::Done, BYTES));
                return;
            }
            // What was on its way when an earlier stream ended.
            Some(Completion::Rejected { why: Rejection::Handle(HandleError::Late), .. }) => {}
            Some(other) => panic!("{other:?}"),
        }
    }
}

/// Echoes every stream of every connection until it is told to stop. Bytes wait for credit.
fn echo(port: &mut dyn AppPort, bell: &EventBell, stop: &mpsc::Receiver<()>) {
    let mut streams: Vec<(Handle, WriteCredit, Vec<Bytes>, bool)> = Vec::new();
    while stop.try_recv() == Err(mpsc::TryRecvError::Empty) {
        let mut waits_for_room = false;
        for (stream, credit, waiting, fin) in &mut streams {
            while let Some(first) = waiting.first_mut() {
                port.write(*stream, credit, first, false);
                if !first.is_empty() {
                    waits_for_room |= credit.room() > 0;
                    break;
                }
                waiting.remove(0);
            }
            if waiting.is_empty() && std::mem::take(fin) {
                submit(port, bell, Submission::Finish { stream: *stream });
            }
        }
        // Whoever stops it rings the bell.
        port.arm(Interest::ANY);
        if !(port.has_news() || waits_for_room && port.has_room()) {
            assert!(bell.wait(Some(PATIENCE)), "nothing more was heard");
        }
        port.disarm();
        while let Some(message) = port.poll() {
            let entry = message.handle().and_then(|handle| streams.iter().position(|(stream, ..)| *stream == handle));
            match (message, entry) {
                (Completion::Accepted { handle, .. }, _) if handle.kind() == Kind::Stream => {
                    streams.push((handle, WriteCredit::new(), Vec::new(), false));
                }
                (Completion::Accepted { handle, .. }, _) => submit(port, bell, Submission::Accept { handle }),
                (Completion::CreditGranted { limit, .. }, Some(at)) => _ = streams[at].1.grant(limit),
                (Completion::Data { stream, data, fin, .. }, Some(at)) => {
                    submit(port, bell, Submission::Consumed { stream, bytes: data.len() as u64 });
                    streams[at].2.extend((!data.is_empty()).then_some(data));
                    streams[at].3 |= fin;
                }
                (Completion::Closed { .. }, Some(at)) => drop(streams.swap_remove(at)),
                _ => {}
            }
        }
    }
}

/// Runs `test` with the address of an echo whose application is attached by shared memory too.
fn beside_an_echo(identity: &Identity, test: impl FnOnce(SocketAddr)) {
    let server = Endpoint::start(Options::server(loopback(), identity.server())).unwrap();
    let bell = EventBell::new().unwrap();
    let offer = server.attach_shared(0, SharedSetup::default(), bell.clone()).unwrap();
    let mut port = SharedPort::map(offer).unwrap();
    let at = server.local_addr();
    submit(&mut port, &bell, Submission::Listen { token: 1, at: remote(at) });
    let opened = next(&mut port, &bell, false);
    assert!(matches!(opened, Some(Completion::Opened { token: 1, .. })), "{opened:?}");
    let (stop, stopped) = mpsc::channel();
    let theirs = bell.clone();
    let echoing = thread::spawn(move || echo(&mut port, &theirs, &stopped));
    test(at);
    stop.send(()).unwrap();
    courser_session::doorbell::Bell::ring(&bell);
    echoing.join().unwrap();
    assert_eq!(server.fault(0), None);
}

#[test]
fn an_application_behind_shared_memory_speaks_quic() {
    let identity = Identity::new();
    beside_an_echo(&identity, |at| {
        let client = Endpoint::start(Options::client(identity.client())).unwrap();
        let bell = EventBell::new().unwrap();
        let offer = client.attach_shared(0, SharedSetup::default(), bell.clone()).unwrap();
        call(&mut SharedPort::map(offer).unwrap(), &bell, at);
        // The same calls with the worker in another thread.
        let mut port = client.attach_with(0, PortSetup::default(), Some(std::sync::Arc::new(bell.clone()))).unwrap();
        call(&mut port, &bell, at);
        assert_eq!(client.fault(0), None);
        assert!(client.attach_shared(1, SharedSetup::default(), bell.clone()).is_err(), "there is one worker");
    });
}

/// The second process of the test below; nothing when the tests run.
#[test]
fn the_application() {
    let Ok(at) = std::env::var(ROLE) else { return };
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    receive(io::stdin().as_fd(), &mut bytes, &mut fds).unwrap();
    let [segment, bell, own] = <[_; 3]>::try_from(fds).unwrap();
    let offer = Offer { segment, bell: EventBell::from_fd(bell), setup: SharedSetup::default() };
    call(&mut SharedPort::map(offer).unwrap(), &EventBell::from_fd(own), at.parse().unwrap());
}

#[test]
fn an_application_in_another_process_speaks_quic() {
    let identity = Identity::new();
    beside_an_echo(&identity, |at| {
        let client = Endpoint::start(Options::client(identity.client())).unwrap();
        let bell = EventBell::new().unwrap();
        let offer = client.attach_shared(0, SharedSetup::default(), bell.clone()).unwrap();
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_application", "--nocapture"])
            .env(ROLE, at.to_string())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        send(ours.as_fd(), b"port", &[offer.segment.as_fd(), offer.bell.as_fd(), bell.as_fd()]).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(client.fault(0), None);
    });
}

#[test]
fn an_application_that_breaks_the_rules_loses_its_port_and_others_keep_theirs() {
    let identity = Identity::new();
    beside_an_echo(&identity, |at| {
        let client = Endpoint::start(Options::client(identity.client())).unwrap();
        let bell = EventBell::new().unwrap();
        let offer = client.attach_shared(0, SharedSetup::default(), bell.clone()).unwrap();
        let segment = offer.segment.try_clone().unwrap();
        let mut bad = SharedPort::map(offer).unwrap();
        let offer = client.attach_shared(0, SharedSetup::default(), bell.clone()).unwrap();
        let mut good = SharedPort::map(offer).unwrap();
        // The index of submissions, the first word behind the header, becomes one that cannot be.
        let file = std::fs::File::from(segment);
        std::os::unix::fs::FileExt::write_all_at(&file, &u64::MAX.to_ne_bytes(), 128).unwrap();
        // Any turn of the worker sees it.
        call(&mut good, &bell, at);
        assert!(bad.is_closed() && bad.has_news() && bad.poll().is_none());
        assert!(bad.submit(Submission::Wake).is_err());
        assert_eq!(client.fault(0), Some(Fault::Index));
        call(&mut good, &bell, at);
    });
}
