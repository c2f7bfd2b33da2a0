//! What programs may expect of a stack, through the functions of the header: the suite that runs in Rust inside the process and
//! outside it, here at a service over shared memory, and, with the feature `engine`, at hosts inside the process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]
#![allow(non_camel_case_types, reason = "the names of C are those of its tradition")]

#[path = "c/mod.rs"]
mod api;
#[path = "../../courser-stack/tests/suite/mod.rs"]
mod suite;

use std::path::PathBuf;

use api::{Error, Stack};
use courser_session::control::Protocol;
use courser_stack::host::{Config, Host};
use courser_stack::service::{Options, Service};
use suite::Ground;

fn ground([server, client]: [Stack; 2], protocol: Protocol, workers: u16) -> Ground {
    // For the name alone: the address is a wrong name.
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (identity.cert.pem().into(), identity.signing_key.serialize_pem().into());
    Ground { server, client, protocol, certificate, key, workers }
}

fn run(ground: &Ground) {
    match ground.protocol {
        Protocol::Udp => suite::udp(ground),
        Protocol::Tcp => suite::streams(ground),
        Protocol::Quic => {
            suite::streams(ground);
            suite::quic::all(ground);
        }
    }
}

/// A service, which goes with its folder.
fn service() -> (Service, tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    (Service::start(Host::new(Config::default()), Options::new(&path)).unwrap(), folder, path)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < suite::PATIENCE, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Two programs at one service, or one whose threads are both ends.
fn outside(protocol: Protocol, workers: u16, together: bool) {
    let (service, _folder, path) = service();
    let server = Stack::open(Some(&path)).unwrap();
    let client = if together { server.clone() } else { Stack::open(Some(&path)).unwrap() };
    assert_eq!(service.host().applications(), if together { 1 } else { 2 });
    run(&ground([server, client], protocol, workers));
    until("whoever shut its stack is gone", || service.host().applications() == 0);
}

#[test]
fn quic_at_a_service_with_one_worker() {
    outside(Protocol::Quic, 1, false);
}

#[test]
fn quic_at_a_service_with_two_workers() {
    outside(Protocol::Quic, 2, false);
}

#[test]
fn quic_at_a_service_with_four_workers() {
    outside(Protocol::Quic, 4, false);
}

#[test]
fn quic_within_one_program_at_a_service() {
    outside(Protocol::Quic, 2, true);
}

#[test]
fn tcp_and_udp_at_a_service() {
    outside(Protocol::Tcp, 1, false);
    outside(Protocol::Udp, 1, false);
    outside(Protocol::Tcp, 1, true);
}

/// Two programs that each have a host of their own in this process.
#[cfg(feature = "engine")]
fn inside(protocol: Protocol, workers: u16) {
    run(&ground([(); 2].map(|()| Stack::open(None).unwrap()), protocol, workers));
}

#[cfg(feature = "engine")]
#[test]
fn quic_with_the_engine_inside_with_one_two_and_four_workers() {
    for workers in [1, 2, 4] {
        inside(Protocol::Quic, workers);
    }
}

#[cfg(feature = "engine")]
#[test]
fn tcp_and_udp_with_the_host_inside() {
    inside(Protocol::Tcp, 1);
    inside(Protocol::Udp, 1);
}

#[cfg(feature = "engine")]
#[test]
fn a_host_inside_is_nothing_to_attach_to_anew() {
    let stack = Stack::open(None).unwrap();
    assert_eq!(stack.reattach(), Ok(()), "it is there");
}

/// A connection to the listener, and a line over it that comes back.
fn meets(ground: &Ground, listener: api::Session, uri: &str) -> suite::Pair {
    let pair = ground.stream(listener, uri);
    ground.client.write_all(pair.here, b"a line").unwrap();
    assert_eq!(suite::read_exactly(&ground.server, pair.there, 6), b"a line");
    pair
}

#[test]
fn programs_in_c_attach_anew_when_a_service_has_failed() {
    for protocol in [Protocol::Quic, Protocol::Tcp] {
        let (service, folder, path) = service();
        let ground = ground([(); 2].map(|()| Stack::open(Some(&path)).unwrap()), protocol, 2);
        let (listener, uri) = ground.listen();
        let pair = meets(&ground, listener, &uri);
        assert_eq!(ground.client.reattach(), Ok(()), "nothing is to be done while the service is there");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| ground.client.read(pair.here, &mut [0]));
            drop(service);
            // A service that ends in good order ends its workers before its socket: one may still tell what it
            // hears of another, a TCP connection that was cut off.
            let told = waits.join().unwrap();
            assert!(matches!(told, Err(Error::ServiceGone | Error::Ended(_) | Error::Reset(_))), "{told:?}");
        });
        until("the end is heard", || ground.client.create(protocol) == Err(Error::ServiceGone));
        assert!(matches!(ground.client.reattach(), Err(Error::Attach { .. })), "nobody listens");
        let next = Service::start(Host::new(Config::default()), Options::new(&path)).unwrap();
        ground.client.reattach().unwrap();
        ground.server.reattach().unwrap();
        let told = ground.client.read(pair.here, &mut [0]);
        assert!(matches!(told, Err(Error::Ended(_) | Error::Reset(_))), "what was there is over: {told:?}");
        // The listener is at its address, with its certificate; the worker that listens has been asked to.
        until("the listener takes connections", || {
            let caller = ground.caller();
            let met = ground.client.connect(caller, &uri);
            ground.client.close(caller).unwrap();
            met.map(|()| ground.server.close(ground.server.accept(listener).unwrap()).unwrap()).is_ok()
        });
        ground.close(meets(&ground, listener, &uri));
        ground.server.close(listener).unwrap();
        drop((ground, next, folder));
    }
}

/// A C type in Rust.
fn in_rust(c: &str) -> String {
    let known = [
        ("const char *", "*const c_char"),
        ("const uint8_t *", "*const u8"),
        ("uint8_t *", "*mut u8"),
        ("uint64_t *", "*mut u64"),
        ("const courser_stack *", "*const courser_stack"),
        ("courser_stack **", "*mut *mut courser_stack"),
        ("courser_stack *", "*mut courser_stack"),
        ("courser_event *", "*mut courser_event"),
        ("courser_ended *", "*mut courser_ended"),
        ("courser_stats *", "*mut courser_stats"),
        ("int ", "c_int"),
        ("int64_t ", "i64"),
        ("uint32_t ", "u32"),
        ("uint64_t ", "u64"),
        ("size_t ", "usize"),
    ];
    let (_, rust) = known.into_iter().find(|(known, _)| *known == c).unwrap_or_else(|| panic!("no type: {c:?}"));
    rust.to_owned()
}

/// `fn name(types) -> type` of a prototype in the header.
fn prototype(c: &str) -> String {
    let (head, arguments) = c.trim_end_matches(')').split_once('(').unwrap();
    let split = |text: &str| {
        let name = text.rfind([' ', '*']).unwrap() + 1;
        (text[..name].to_owned(), text[name..].to_owned())
    };
    let (answer, name) = split(head);
    let types: Vec<_> = match arguments {
        "void" => Vec::new(),
        all => all.split(", ").map(|argument| in_rust(&split(argument).0)).collect(),
    };
    let answer = if answer == "void " { String::new() } else { format!(" -> {}", in_rust(&answer)) };
    format!("fn {name}({}){answer}", types.join(", "))
}

/// The same of a declaration in Rust.
fn declaration(rust: &str) -> String {
    let (head, rest) = rust.split_once('(').unwrap();
    let (arguments, answer) = rest.rsplit_once(')').unwrap();
    let types = arguments.split(',').filter_map(|argument| Some(argument.split_once(':')?.1.trim()));
    format!("{}({}){answer}", head.trim(), types.collect::<Vec<_>>().join(", "))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_functions_are_declared_here_as_the_header_has_them() {
    let header = include_str!("../include/courser.h");
    let uncommented = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code));
    let code = uncommented.collect::<String>();
    let code: String =
        code.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |all, line| all + line + "\n");
    let prototypes: Vec<_> = code
        .split(';')
        .map(one_line)
        .filter(|item| item.contains("courser_") && item.ends_with(')'))
        .map(|item| prototype(&item.replace("( ", "(").replace("extern \"C\" { ", "")))
        .collect();
    let own = include_str!("c/mod.rs");
    let (_, own) = own.split_once("unsafe extern \"C\" {").unwrap();
    let (own, _) = own.split_once("\n}").unwrap();
    let declared: Vec<_> =
        own.split(';').map(one_line).filter(|item| !item.is_empty()).map(|item| declaration(&item)).collect();
    assert!(declared.len() > 30 && prototypes.len() > declared.len(), "{prototypes:?}");
    for declared in declared {
        assert!(prototypes.contains(&declared), "{declared} is not in the header: {prototypes:?}");
    }
}
