//! A worker without descriptors. Alone in its process, since the limit is the process's.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use courser_session::control::Protocol;
use courser_session::handle::Handle;
use courser_session::msg::{Completion, Endpoint, Submission};
use courser_session::port::{PortSetup, ThreadPort, Waited};
use courser_stack::plain::{Plain, PlainSetup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn next(port: &mut ThreadPort) -> Completion {
    loop {
        if let Some(message) = port.poll() {
            return message;
        }
        assert_eq!(port.wait(Some(Duration::from_secs(60))), Waited::Ready);
    }
}

fn ask(port: &mut ThreadPort, address: SocketAddr, listen: bool) -> Completion {
    let at = Box::new(Endpoint { address, server_name: Protocol::Tcp.name().to_owned(), profile: 0 });
    let asked = if listen { Submission::Listen { token: 1, at } } else { Submission::Connect { token: 1, to: at } };
    port.submit(asked).expect("there is room for one");
    loop {
        let message = next(port);
        if matches!(message, Completion::Opened { .. } | Completion::Failed { .. }) {
            return message;
        }
    }
}

#[test]
fn a_listener_without_descriptors_pauses_and_takes_everybody_in_later() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let (mut port, mut other) = (plain.attach(PortSetup::default()), plain.attach(PortSetup::default()));
    let Completion::Opened { number, .. } = ask(&mut port, "127.0.0.1:0".parse().unwrap(), true) else {
        panic!("it listens")
    };
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(number).unwrap()));

    let usual = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 16), maximum: usual.maximum }).unwrap();
    // Client and worker take descriptors in turn until there is none; the worker is as likely as not to have gone without.
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect(address) {
        clients.push(client);
    }
    // The last of them is the client's now: from here on the worker has none.
    while let Ok(more) = std::fs::File::open("/dev/null") {
        drop(more);
        match TcpStream::connect(address) {
            Ok(client) => clients.push(client),
            Err(_) => break,
        }
    }
    assert!(clients.len() >= 8, "{} clients", clients.len());
    // It says so to those who ask for a connection, and serves on.
    let answer = ask(&mut other, address, false);
    assert!(matches!(answer, Completion::Failed { .. }), "{answer:?}");
    assert!(!plain.sessions(100).is_empty());

    setrlimit(Resource::Nofile, usual).unwrap();
    let mut inside: Vec<Handle> = Vec::new();
    while inside.len() < clients.len() {
        if let Completion::Accepted { handle, .. } = next(&mut port) {
            assert!(!inside.contains(&handle));
            inside.push(handle);
        }
    }
}
