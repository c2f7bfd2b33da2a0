//! What tests of session ports have in common.

use std::net::SocketAddr;
use std::time::Instant;

use courser::session::{Completion, Remote, ThreadPort, Waited};

use super::PATIENCE;

pub fn remote(address: SocketAddr) -> Box<Remote> {
    Box::new(Remote { address, server_name: "localhost".into(), profile: 0 })
}

/// The next message for which `pick` has a use; others are dropped.
pub fn hear<T>(port: &mut ThreadPort, mut pick: impl FnMut(Completion) -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        while let Some(message) = port.poll() {
            if let Some(found) = pick(message) {
                return found;
            }
        }
        assert_eq!(port.wait(Some(until - Instant::now())), Waited::Ready, "nothing more was heard");
    }
}
