//! The calls of programs over a host: inside the process and outside it, over each protocol, with one, two and four workers.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod suite;

use courser::certs::Throwaway;
use courser_session::control::Protocol;
use courser_session::stack as api;
use courser_stack::host::{Config, Host};
use courser_stack::service::{Options, Service};

use api::Stack;
use suite::Ground;

fn ground((server, client): (Stack, Stack), protocol: Protocol, workers: u16) -> Ground {
    let identity = Throwaway::local().unwrap();
    let (certificate, key) = (identity.certificate_pem().into(), identity.key_pem().into());
    Ground { server, client, protocol, certificate, key, workers }
}

/// Two programs at one host in this process.
fn inside(protocol: Protocol, workers: u16) -> Ground {
    let host = Host::new(Config::default());
    let stacks = ["server", "client"].map(|name| Stack::over(host.attach(name).unwrap()).unwrap());
    ground(stacks.into(), protocol, workers)
}

/// Two programs at one service, over shared memory.
fn outside(protocol: Protocol, workers: u16) -> (Ground, Service, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(Host::new(Config::default()), Options::new(folder.path().join("s"))).unwrap();
    let stacks = [(); 2].map(|()| Stack::attach(service.path()).unwrap());
    (ground(stacks.into(), protocol, workers), service, folder)
}

#[test]
fn quic_inside_with_one_worker() {
    let ground = inside(Protocol::Quic, 1);
    suite::streams(&ground);
    suite::quic::all(&ground);
}

#[test]
fn quic_inside_with_two_workers() {
    let ground = inside(Protocol::Quic, 2);
    suite::streams(&ground);
    suite::quic::all(&ground);
}

#[test]
fn quic_inside_with_four_workers() {
    let ground = inside(Protocol::Quic, 4);
    suite::streams(&ground);
    suite::quic::all(&ground);
}

#[test]
fn quic_outside_with_one_worker() {
    let (ground, _service, _folder) = outside(Protocol::Quic, 1);
    suite::streams(&ground);
    suite::quic::all(&ground);
}

#[test]
fn quic_outside_with_two_workers() {
    let (ground, _service, _folder) = outside(Protocol::Quic, 2);
    suite::streams(&ground);
    suite::quic::all(&ground);
}

#[test]
fn quic_outside_with_four_workers() {
    let (ground, _service, _folder) = outside(Protocol::Quic, 4);
    suite::streams(&ground);
    suite::quic::all(&ground);
}

#[test]
fn tcp_and_udp_inside() {
    suite::streams(&inside(Protocol::Tcp, 1));
    suite::udp(&inside(Protocol::Udp, 1));
}

#[test]
fn tcp_outside() {
    let (ground, _service, _folder) = outside(Protocol::Tcp, 1);
    suite::streams(&ground);
}

#[test]
fn udp_outside() {
    let (ground, _service, _folder) = outside(Protocol::Udp, 1);
    suite::udp(&ground);
}
