//! The built command against other stacks, over loopback, with the "perf" protocol: a client sends eight bytes that say how
//! much it wants, then what it uploads; the server sends that much. Counts and ends of streams are checked.
//!
//! What needs the built command or a Python with aioquic is ignored by default; `.ci/smoke` sets `COURSER_BIN` and
//! `AIOQUIC_PYTHON` and runs everything.

#![allow(clippy::unwrap_used)]

mod aioquic;
mod command;
mod quinn_peer;

use std::net::{SocketAddr, UdpSocket};

/// Bytes that the smoke runs ask for, and those that they send.
const DOWN: u64 = 5_000_000;
const UP: u64 = 1_000_000;

/// An address on loopback that was free a moment ago.
fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn the_quinn_peer_moves_bytes_with_itself() {
    runtime().block_on(async {
        let server = quinn_peer::Server::start(free_address());
        quinn_peer::ask(server.address, DOWN, UP).await.unwrap();
        assert_eq!(server.counts().await, (UP, DOWN));
        let short = quinn_peer::Server::start_that_cheats(free_address());
        assert!(quinn_peer::ask(short.address, DOWN, UP).await.is_err(), "a byte too few is noticed");
    });
}

#[test]
#[ignore = "needs aioquic: .ci/smoke"]
fn quinn_and_aioquic_understand_each_other() {
    let aioquic = aioquic::Server::start(free_address());
    runtime().block_on(quinn_peer::ask_patiently(aioquic.address, DOWN, UP)).unwrap();
    drop(aioquic);
    let runtime = runtime();
    let server = runtime.block_on(async { quinn_peer::Server::start(free_address()) });
    aioquic::ask(server.address, DOWN, UP);
    assert_eq!(runtime.block_on(server.counts()), (UP, DOWN));
}

#[test]
#[ignore = "needs the built command: .ci/smoke"]
fn the_command_downloads_from_and_uploads_to_quinn() {
    let runtime = runtime();
    let server = runtime.block_on(async { quinn_peer::Server::start(free_address()) });
    command::download(server.address, DOWN);
    assert_eq!(runtime.block_on(server.counts()), (0, DOWN));
    command::upload(server.address, UP);
    assert_eq!(runtime.block_on(server.counts()), (UP, DOWN));
}

#[test]
#[ignore = "needs the built command: .ci/smoke"]
fn quinn_downloads_from_and_uploads_to_the_command() {
    let server = command::Server::start(free_address());
    runtime().block_on(quinn_peer::ask_patiently(server.address, DOWN, UP)).unwrap();
}

#[test]
#[ignore = "needs the built command and aioquic: .ci/smoke"]
fn the_command_downloads_from_and_uploads_to_aioquic() {
    let server = aioquic::Server::start(free_address());
    command::download(server.address, DOWN);
    command::upload(server.address, UP);
}

#[test]
#[ignore = "needs the built command and aioquic: .ci/smoke"]
fn aioquic_downloads_from_and_uploads_to_the_command() {
    let server = command::Server::start(free_address());
    aioquic::ask(server.address, DOWN, UP);
}

#[test]
#[ignore = "needs the built command: .ci/smoke"]
fn the_demonstration_moves_and_checks_every_byte() {
    command::demo(20_000_000);
}
