//! The service at its socket: who may come, what is refused, what a nonsense costs.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(target_os = "linux")]

mod common;

use std::os::fd::AsFd as _;

use common::{Place, until};
use courser_session::control::{Fault, Reply, Request, VERSION, connect, receive, send};
use courser_stack::host::{Config, Host};
use courser_stack::service::{Error, Options, Service};

/// Sends packets and gives the answer to the last one; `None` when the line was closed.
fn say(place: &Place, packets: &[&[u8]]) -> Option<Reply> {
    let line = connect(&place.socket()).unwrap();
    let mut packet = Vec::new();
    for bytes in packets {
        send(line.as_fd(), bytes, &[]).ok()?;
        if receive(line.as_fd(), &mut packet, &mut Vec::new()).ok()? == 0 {
            return None;
        }
    }
    Reply::decode(&packet).ok()
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}

fn attach() -> Vec<u8> {
    encoded(&Request::Attach { version: VERSION, name: "test".into() })
}

#[test]
fn a_second_service_finds_the_place_taken_and_a_dead_ones_socket_is_replaced() {
    let place = Place::new(Config::default());
    let again = Service::start(Host::new(Config::default()), Options::new(place.socket()));
    assert!(matches!(again, Err(Error::InUse(_))), "{again:?}");
    let left = place.folder().join("left");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    assert!(left.exists(), "a socket that nobody serves");
    let service = Service::start(Host::new(Config::default()), Options::new(&left)).unwrap();
    drop(service);
    assert!(!left.exists(), "it takes its socket with it");
    let file = place.folder().join("file");
    std::fs::write(&file, "kept").unwrap();
    let e = Service::start(Host::new(Config::default()), Options::new(&file)).unwrap_err();
    assert!(e.to_string().contains("no socket"), "{e}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn nothing_is_served_before_it_is_enabled() {
    let mut config = Config::default();
    config.enabled = false;
    let place = Place::new(config);
    let refused = say(&place, &[&attach()]);
    assert!(matches!(refused, Some(Reply::Failed { fault: Fault::Disabled, .. })), "{refused:?}");
    place.ask("session enable");
    assert!(matches!(say(&place, &[&attach()]), Some(Reply::Attached(_))));
    until("the application went with its socket", || place.host().applications() == 0);
    place.ask("session disable");
    assert!(matches!(say(&place, &[&attach()]), Some(Reply::Failed { fault: Fault::Disabled, .. })));
    let errors = place.ask("show errors");
    assert_eq!(errors[0]["count"], 2, "{errors}");
}

#[test]
fn nonsense_ends_the_one_who_said_it() {
    let place = Place::new(Config::default());
    let close = encoded(&Request::Close { endpoint: 7 });
    for (packets, fault) in [
        (vec![&b"nonsense"[..]], Fault::Malformed),
        (vec![&close[..]], Fault::Malformed),
        (vec![&encoded(&Request::Attach { version: VERSION + 1, name: "new".into() })[..]], Fault::Version),
        (vec![&attach()[..], &attach()[..]], Fault::Malformed),
        (vec![&attach()[..], &[255; 100][..]], Fault::Malformed),
        (vec![&attach()[..], &close[..]], Fault::Unknown),
    ] {
        let said = say(&place, &packets);
        assert!(matches!(&said, Some(Reply::Failed { fault: f, .. }) if *f == fault), "{said:?} instead of {fault:?}");
    }
    until("nobody is left", || place.host().applications() == 0);
}

#[test]
fn a_user_who_attaches_without_end_is_held_back_and_nobody_else() {
    let mut config = Config::default();
    config.per_user_max = 20;
    let place = Place::new(config);
    let mut lines = Vec::new();
    let mut packet = Vec::new();
    for n in 0..1000 {
        let line = connect(&place.socket()).unwrap();
        send(line.as_fd(), &attach(), &[]).unwrap();
        receive(line.as_fd(), &mut packet, &mut Vec::new()).unwrap();
        match Reply::decode(&packet).unwrap() {
            Reply::Attached(_) => lines.push(line),
            Reply::Failed { fault: Fault::Quota, .. } => assert!(n >= 20, "refused at {n}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((lines.len(), place.host().applications()), (20, 20));
    // An application of another kind is still let in.
    drop(place.host().attach("inside").unwrap());
    drop(lines);
    until("all are gone", || place.host().applications() == 0);
    assert!(matches!(say(&place, &[&attach()]), Some(Reply::Attached(_))));
}

#[test]
fn commands_are_answered_and_unknown_ones_say_what_there_is() {
    let place = Place::new(Config::default());
    let command = |words: &str, json| {
        let words = words.split(' ').map(str::to_owned).collect();
        say(&place, &[&encoded(&Request::Command { words, json })])
    };
    let Some(Reply::Output { text, more: false }) = command("show applications", false) else { panic!() };
    assert!(text.starts_with("id  name"), "{text}");
    let Some(Reply::Output { text, .. }) = command("show version", true) else { panic!() };
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    let Some(Reply::Failed { text, .. }) = command("show me", false) else { panic!() };
    assert!(text.contains("sessions"), "{text}");
    let Some(Reply::Failed { text, .. }) = command("sing", false) else { panic!() };
    assert!(text.contains("help"), "{text}");
    for what in ["listeners", "sessions", "segments", "errors", "memory", "trace"] {
        assert!(matches!(command(&format!("show {what}"), false), Some(Reply::Output { .. })), "{what}");
    }
}
