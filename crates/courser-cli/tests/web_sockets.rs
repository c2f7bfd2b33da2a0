//! Sockets that a service manager gives to `courser serve` and `courser proxy`, and the units that say so.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use common::web::{Place, Web};
use common::{COURSER, signal};

/// The program with those sockets as descriptors from 3 on, by a shell that puts them there as a service manager does.
fn given(first: OwnedFd, second: Option<OwnedFd>, env: &str, args: &[&str]) -> Command {
    let count = 1 + usize::from(second.is_some());
    let place = if count == 2 { "4<&1 1>/dev/null" } else { "" };
    let script = format!("exec 3<&0 0</dev/null {place}; LISTEN_PID=$$ LISTEN_FDS={count} {env} exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(COURSER).args(args).stdin(first);
    command.stdout(second.map_or_else(Stdio::null, Into::into));
    command
}

fn args<'a>(place: &'a Place, www: &'a str) -> [&'a str; 7] {
    ["serve", www, "--cert", &place.cert, "--key", &place.key, "--access-log=off"]
}

/// A TCP and a UDP socket at one port.
fn pair() -> (TcpListener, UdpSocket, SocketAddr) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = tcp.local_addr().unwrap();
        // Somebody else may have the other one.
        if let Ok(udp) = UdpSocket::bind(addr) {
            return (tcp, udp, addr);
        }
    }
}

#[test]
fn sockets_of_both_kinds_are_served_and_outlive_the_server() {
    let place = Place::new();
    let www = place.www();
    let (tcp, udp, addr) = pair();
    for names in ["", "LISTEN_FDNAMES=web:quic"] {
        let (first, second) = (tcp.try_clone().unwrap().into(), udp.try_clone().unwrap().into());
        let mut web = Web::spawn(given(first, Some(second), names, &args(&place, &www)));
        assert_eq!(web.addr, addr.to_string());
        let answer = web.get(place.ca(), "/").unwrap();
        assert!(answer.ends_with("home") && answer.contains(&format!("h3=\":{}\"", addr.port())), "{answer}");
        assert_eq!(web.get_h3(&place.cert, "/"), "home");
        signal(&web.child, "-TERM");
        assert_eq!(web.ended(), Some(0));
        // Whoever comes now waits for the next server in the same sockets.
    }
    assert_eq!((tcp.local_addr().unwrap(), udp.local_addr().unwrap()), (addr, addr));
}

#[test]
fn a_kind_that_is_not_given_is_bound_at_the_port_of_the_other() {
    let place = Place::new();
    let www = place.www();
    let (tcp, udp, addr) = pair();
    drop(udp);
    let mut web = Web::spawn(given(tcp.into(), None, "", &args(&place, &www)));
    assert_eq!((web.addr.clone(), web.get_h3(&place.cert, "/")), (addr.to_string(), "home".into()));
    signal(&web.child, "-INT");
    assert_eq!(web.ended(), Some(0));

    let (tcp, udp, addr) = pair();
    drop(tcp);
    let mut web = Web::spawn(given(udp.into(), None, "", &args(&place, &www)));
    assert_eq!((web.addr.clone(), web.get_h3(&place.cert, "/")), (addr.to_string(), "home".into()));
    assert!(web.get(place.ca(), "/").unwrap().ends_with("home"));
    signal(&web.child, "-INT");
    assert_eq!(web.ended(), Some(0));
}

#[test]
fn what_cannot_be_served_is_refused_with_its_number() {
    let place = Place::new();
    let www = place.www();
    let fails = |output: Output, piece: &str| {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(7) && said.contains(piece), "{said}");
    };
    let (tcp, _, _) = pair();
    let file = std::fs::File::open(&place.cert).unwrap();
    let mut command = given(tcp.into(), Some(file.into()), "", &args(&place, &www));
    fails(command.output().unwrap(), "number 1 is neither a TCP socket that listens nor a UDP socket");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut command = given(
        udp.into(),
        None,
        "COURSER_ACCESS_LOG=off",
        &["serve", "--config", &place.config("http3 = false\n[[site]]\n[site.files]\nroot = \"www\"\n")],
    );
    fails(command.output().unwrap(), "`server.http3` is off");
}
