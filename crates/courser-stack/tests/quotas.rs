//! What an application may have, through the service's socket: what is refused, with the remedy, and what honest programs do
//! with as little.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::{PATIENCE, Place};
use courser::certs::Throwaway;
use courser_session::control::{Fault, Protocol};
use courser_session::reason::Reason;
use courser_session::stack::{Error, Session, Setting, Stack};
use courser_stack::host::{Config, Quota, Rule};

fn place(change: impl FnOnce(&mut Quota)) -> Place {
    let mut config = Config::default();
    change(&mut config.quota);
    Place::new(config)
}

fn attach(place: &Place) -> Stack {
    Stack::attach(&place.socket()).unwrap()
}

/// A QUIC session that can be bound.
fn fresh(stack: &Stack) -> Session {
    let session = stack.create(Protocol::Quic).unwrap();
    let identity = Throwaway::local().unwrap();
    stack.add_certificate(session, identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes()).unwrap();
    session
}

fn bind(stack: &Stack) -> Result<Session, Error> {
    let session = fresh(stack);
    match stack.bind(session, "quic://127.0.0.1:0") {
        Ok(()) => Ok(session),
        Err(error) => {
            stack.close(session).unwrap();
            Err(error)
        }
    }
}

/// The words of a refusal for want of room.
fn quota<T: std::fmt::Debug>(refused: Result<T, Error>) -> String {
    match refused {
        Err(Error::Refused(refused)) if refused.fault == Fault::Quota => refused.text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_endpoints_as_the_quota_says_and_one_that_is_closed_makes_room() {
    let place = place(|quota| quota.endpoints = 3);
    let (stack, other) = (attach(&place), attach(&place));
    let held: Vec<Session> = (0..3).map(|_| bind(&stack).unwrap()).collect();
    for _ in 0..50 {
        let text = quota(bind(&stack));
        assert!(text.contains("3 endpoints") && text.contains("close an endpoint"), "{text}");
    }
    // TCP and UDP need one as well; another application has its own quota.
    let tcp = stack.create(Protocol::Tcp).unwrap();
    quota(stack.bind(tcp, "tcp://127.0.0.1:0"));
    bind(&other).unwrap();
    stack.close(held[0]).unwrap();
    stack.bind(tcp, "tcp://127.0.0.1:0").unwrap();
    drop(stack);
    // An honest program that opens one after the other is never refused, nor one that connects with many settings.
    for _ in 0..100 {
        let listener = bind(&other).unwrap();
        other.close(listener).unwrap();
    }
    assert_eq!(other.endpoints(), 1);
}

#[test]
fn as_many_workers_and_as_much_memory_as_the_quota_says() {
    let workers = place(|quota| quota.workers = 4);
    let stack = attach(&workers);
    let wide = fresh(&stack);
    stack.set_option(wide, Setting::Workers(5)).unwrap();
    let text = quota(stack.bind(wide, "quic://127.0.0.1:0"));
    assert!(text.contains("4 workers"), "{text}");
    stack.set_option(wide, Setting::Workers(4)).unwrap();
    stack.bind(wide, "quic://127.0.0.1:0").unwrap();
    quota(bind(&stack));
    stack.close(wide).unwrap();
    bind(&stack).unwrap();

    let one = Config::default().shared.bytes();
    let memory = place(|quota| quota.memory = 2 * one + 1);
    let stack = attach(&memory);
    let held = [bind(&stack).unwrap(), bind(&stack).unwrap()];
    let text = quota(bind(&stack));
    assert!(text.contains("bytes of shared memory"), "{text}");
    stack.close(held[1]).unwrap();
    bind(&stack).unwrap();
}

#[test]
fn as_many_certificates_as_the_quota_says_and_bound_listeners_need_none() {
    let place = place(|quota| quota.certificates = 4);
    let stack = attach(&place);
    let held: Vec<Session> = (0..4).map(|_| fresh(&stack)).collect();
    let identity = Throwaway::local().unwrap();
    let (chain, key) = (identity.certificate_pem(), identity.key_pem());
    let fifth = stack.create(Protocol::Quic).unwrap();
    let text = quota(stack.add_certificate(fifth, chain.as_bytes(), key.as_bytes()));
    assert!(text.contains("4 certificates") && text.contains("remove one"), "{text}");
    // A listener has its own from the time that it is bound, and a session that is closed gives its back.
    stack.bind(held[0], "quic://127.0.0.1:0").unwrap();
    stack.add_certificate(fifth, chain.as_bytes(), key.as_bytes()).unwrap();
    quota(stack.add_certificate(held[1], chain.as_bytes(), key.as_bytes()));
    stack.close(held[2]).unwrap();
    stack.add_certificate(held[1], chain.as_bytes(), key.as_bytes()).unwrap();
    // Far more listeners than certificates, one beside the other.
    drop(stack);
    let stack = attach(&place);
    let listeners: Vec<Session> = (0..20).map(|_| bind(&stack).unwrap()).collect();
    assert_eq!((listeners.len(), stack.endpoints()), (20, 20));
}

#[test]
fn more_sessions_than_there_may_be_are_told_so_and_those_that_end_make_room() {
    let place = place(|quota| (quota.endpoints, quota.workers, quota.sessions) = (1, 1, 100));
    let stack = attach(&place);
    let held: Vec<Session> = std::iter::from_fn(|| stack.create(Protocol::Tcp).ok()).take(1000).collect();
    assert_eq!((held.len(), stack.create(Protocol::Tcp)), (100, Err(Error::Full)));
    held.into_iter().for_each(|session| stack.close(session).unwrap());
    // An honest program makes far more connections, one after the other.
    let listener = stack.create(Protocol::Tcp).unwrap();
    stack.bind(listener, "tcp://127.0.0.1:0").unwrap();
    stack.listen(listener, 0).unwrap();
    let uri = format!("tcp://127.0.0.1:{}", stack.local_addr(listener).unwrap().port());
    for _ in 0..1000 {
        let session = stack.create(Protocol::Tcp).unwrap();
        stack.set_timeout(session, Some(PATIENCE)).unwrap();
        stack.connect(session, &uri).unwrap();
        let accepted = stack.accept(listener).unwrap();
        stack.close(session).unwrap();
        stack.close(accepted).unwrap();
    }
}

#[test]
fn a_user_listens_where_the_rules_say_and_nowhere_else() {
    let user = rustix::process::geteuid().as_raw();
    let places = ["quic://127.0.0.1:*", "tcp://127.0.0.1:*", "udp://[::1]:*"].map(|place| place.parse().unwrap());
    let mut config = Config::default();
    config.rules = vec![Rule { user, places: places.to_vec() }];
    let place = Place::new(config);
    let stack = attach(&place);
    let session = fresh(&stack);
    for elsewhere in ["quic://127.0.0.2:0", "quic://0.0.0.0:0", "quic://[::1]:0"] {
        let refused = stack.bind(session, elsewhere);
        assert!(matches!(&refused, Err(Error::Refused(refused)) if refused.fault == Fault::Denied), "{refused:?}");
    }
    // The same session, where it may.
    stack.bind(session, "quic://127.0.0.1:0").unwrap();
    stack.listen(session, 0).unwrap();
    for (protocol, uri, may) in [
        (Protocol::Tcp, "tcp://127.0.0.1:0", true),
        (Protocol::Tcp, "tcp://127.0.0.2:0", false),
        (Protocol::Tcp, "tcp://[::1]:0", false),
        (Protocol::Udp, "udp://[::1]:0", true),
        (Protocol::Udp, "udp://127.0.0.1:0", false),
    ] {
        let session = stack.create(protocol).unwrap();
        stack.bind(session, uri).unwrap();
        let listened = stack.listen(session, 0);
        match &listened {
            Ok(()) => assert!(may, "{uri}"),
            Err(Error::Ended(ended)) => assert!(!may && ended.reason == Reason::NoListener, "{uri}: {ended}"),
            Err(other) => panic!("{uri}: {other}"),
        }
    }
    // Connecting is nobody's to forbid.
    let caller = stack.create(Protocol::Udp).unwrap();
    stack.connect(caller, "udp://127.0.0.2:9").unwrap();
}
