//! A perf server and a perf client on aioquic, in a Python of their own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

fn python() -> Command {
    let path = std::env::var_os("AIOQUIC_PYTHON").expect("AIOQUIC_PYTHON names a Python that has aioquic");
    let mut command = Command::new(path);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smoke/aioquic_perf.py")).stdin(Stdio::null());
    command
}

/// Uploads `up` bytes and asks for `down`; the peer checks the count and the end.
pub(crate) fn ask(server: SocketAddr, down: u64, up: u64) {
    let arguments = ["client".to_owned(), server.port().to_string(), down.to_string(), up.to_string()];
    let output = python().args(&arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A server until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    /// Returns when the socket is bound.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let port = address.port().to_string();
        let mut child = python().args(["server", &port]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        Self { address, child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
