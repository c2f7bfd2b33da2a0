//! Successors that do not come up, die on the way or end too early; a place that is given once; what operators see of it; UDP
//! sessions, which stay where they are.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(target_os = "linux")]

mod common;

use std::io;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{PATIENCE, Place, plays, until, variable};
use courser_session::control::Protocol;
use courser_session::stack::{Session, Stack};
use courser_stack::host::{Config, Host};
use courser_stack::service::{Options, Service, Succession};

/// The successor in another process: what becomes of it stands in a variable.
#[test]
fn role_heir() {
    if !plays("role_heir") {
        return;
    }
    let from = UnixStream::from(rustix::io::dup(io::stdin()).unwrap());
    let how = variable("HOW");
    if how == "dies at once" {
        std::process::abort();
    }
    let place = Succession::receive(&from).unwrap();
    if how == "dies with the place" {
        std::process::abort();
    }
    let service = Service::take_over(Host::new(Config::default()), Options::new("/nowhere"), place).unwrap();
    match how.as_str() {
        "dies serving" => std::process::abort(),
        "ends" => drop(service),
        other => panic!("{other}?"),
    }
}

/// Gives the place to a process that does so.
fn given_to(service: &Service, how: &str) -> io::Result<()> {
    service.succeed(|place| {
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role_heir", "--exact", "--nocapture"]).env("COURSER_TEST_ROLE", "role_heir").env("HOW", how);
        let mut heir = command.stdin(OwnedFd::from(theirs)).spawn()?;
        // With its command goes the last copy of its end of the stream that is not its own.
        drop(command);
        // It may be gone already.
        let _ = place.send(&ours);
        ours.set_read_timeout(Some(PATIENCE))?;
        let ended = heir.wait()?;
        assert_eq!(ended.success(), how == "ends", "{how}: {ended}");
        ours.read_exact(&mut [0])
    })
}

/// A TCP listener of a program that attaches there now, and a line to it and back.
fn talks(path: &Path) {
    let stack = Stack::attach(path).unwrap();
    let (listener, caller) = (stack.create(Protocol::Tcp).unwrap(), stack.create(Protocol::Tcp).unwrap());
    stack.bind(listener, "tcp://127.0.0.1:0").unwrap();
    stack.listen(listener, 0).unwrap();
    stack.connect(caller, &format!("tcp://{}", stack.local_addr(listener).unwrap())).unwrap();
    let accepted = stack.accept(listener).unwrap();
    stack.write_all(caller, b"line").unwrap();
    let mut heard = [0; 4];
    assert_eq!(stack.read(accepted, &mut heard), Ok(4));
}

/// The state that operators see, and how many services there were before.
fn shown(service: &Service) -> (String, u64) {
    let ask = || -> serde_json::Value {
        let said = service.host().command(&["show", "service"], true).unwrap();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()[0].take()
    };
    let mut row = ask();
    assert_eq!(row["process"].as_u64(), Some(std::process::id().into()));
    // A program that has just left may be counted by the one and not by the other.
    until("it counts the applications that there are", || {
        row = ask();
        row["applications"].as_u64() == Some(service.host().applications() as u64)
    });
    (row["state"].as_str().unwrap().to_owned(), row["services_before_it"].as_u64().unwrap())
}

fn upgraded(old: &Service) -> io::Result<Service> {
    old.succeed(|place| {
        let (ours, theirs) = UnixStream::pair()?;
        place.send(&ours)?;
        let place = Succession::receive(&theirs)?;
        Ok(Service::take_over(Host::new(Config::default()), Options::new("/nowhere"), place).unwrap())
    })
}

#[test]
fn a_successor_that_fails_at_any_point_leaves_the_service_serving_at_its_place() {
    let place = Place::new(Config::default());
    let stays = Stack::attach(&place.socket()).unwrap();
    for how in ["dies at once", "dies with the place", "dies serving", "ends"] {
        assert!(given_to(&place.service, how).is_err(), "{how}");
        assert_eq!(shown(&place.service), ("serving".to_owned(), 0), "{how}");
        assert!(place.socket().exists(), "{how}: the socket has its name still");
        talks(&place.socket());
        // The program that was attached has not moved, and begins new things here.
        stays.create(Protocol::Tcp).map(|session| stays.bind(session, "tcp://127.0.0.1:0").unwrap()).unwrap();
        until("the other program has gone", || place.host().applications() == 1);
    }
    // One that does not even get what it needs.
    let none = place.service.succeed(|_| Err::<(), _>(io::Error::other("no process could be started")));
    assert_eq!(none.unwrap_err().to_string(), "no process could be started");
    talks(&place.socket());
    // And one that works.
    let next = upgraded(&place.service).unwrap();
    talks(&place.socket());
    assert_eq!(shown(&next).0, "serving");
}

#[test]
fn a_place_is_given_once_and_operators_see_who_has_it() {
    let place = Place::new(Config::default());
    assert_eq!(shown(&place.service), ("serving".to_owned(), 0));
    let next = upgraded(&place.service).unwrap();
    assert_eq!(shown(&place.service), ("draining, succeeded".to_owned(), 0));
    assert_eq!(shown(&next), ("serving".to_owned(), 1));
    let again = place.service.succeed(|_| -> io::Result<()> { panic!("nobody is asked") });
    assert_eq!(again.unwrap_err().to_string(), "the socket was given away already");
    let third = upgraded(&next).unwrap();
    assert_eq!(shown(&third), ("serving".to_owned(), 2));
    drop(next);
    until("the one in between is forgotten", || shown(&third).1 == 1);
    let path = place.socket();
    drop(place.service);
    until("so is the first", || shown(&third).1 == 0);
    assert!(path.exists(), "those that have given it away leave the place alone");
    talks(&path);
    third.host().enable(false);
    assert_eq!(shown(&third).0, "disabled");
    drop(third);
    assert!(!path.exists(), "the last one takes it away");
}

/// A datagram to the listener's end and back.
fn there_and_back(client: &Stack, here: Session, (server, there): (&Stack, Session), word: &[u8]) {
    client.send_datagram(here, word).unwrap();
    assert_eq!(server.recv_datagram(there).unwrap(), word);
    server.send_datagram(there, word).unwrap();
    assert_eq!(client.recv_datagram(here).unwrap(), word);
}

#[test]
fn udp_sessions_stay_where_they_are_and_new_ones_reach_a_listener_that_stayed() {
    let place = Place::new(Config::default());
    let [server, client] = [(); 2].map(|()| Stack::attach(&place.socket()).unwrap());
    let create = |stack: &Stack| {
        let session = stack.create(Protocol::Udp).unwrap();
        stack.set_timeout(session, Some(PATIENCE)).unwrap();
        session
    };
    let listener = create(&server);
    server.bind(listener, "udp://127.0.0.1:0").unwrap();
    server.listen(listener, 0).unwrap();
    let uri = format!("udp://{}", server.local_addr(listener).unwrap());
    let meet = |word: &[u8]| {
        let here = create(&client);
        client.connect(here, &uri).unwrap();
        client.send_datagram(here, word).unwrap();
        let there = server.accept(listener).unwrap();
        assert_eq!(server.recv_datagram(there).unwrap(), word);
        (here, there)
    };
    let (here, there) = meet(b"before");
    let next = upgraded(&place.service).unwrap();
    for word in [&b"first"[..], b"second", b"third"] {
        there_and_back(&client, here, (&server, there), word);
    }
    // The client has heard of the successor: what is new begins there, and comes to the listener, which stayed.
    let (new_here, new_there) = meet(b"after");
    there_and_back(&client, new_here, (&server, new_there), b"new");
    there_and_back(&client, here, (&server, there), b"old");
    until("both programs attached anew", || {
        let _ = (client.create(Protocol::Udp), server.create(Protocol::Udp));
        next.host().applications() == 2
    });
    assert_eq!(place.host().applications(), 2, "what was there has stayed");
    client.close(here).unwrap();
    client.close(new_here).unwrap();
    server.close(there).unwrap();
    server.close(new_there).unwrap();
    server.close(listener).unwrap();
    until("the older one has nothing left", || {
        for stack in [&client, &server] {
            stack.poll(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
        }
        place.host().applications() == 0
    });
}
