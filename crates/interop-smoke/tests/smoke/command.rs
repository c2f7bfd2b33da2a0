//! The built `courser` command.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

fn courser() -> Command {
    let path = std::env::var_os("COURSER_BIN").expect("COURSER_BIN names the built command");
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// Runs the command to its end and returns its standard output.
fn run(arguments: &[&str]) -> String {
    let output = courser().args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "courser {arguments:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Downloads with the perf protocol; the command checks count and end itself.
pub(crate) fn download(server: SocketAddr, bytes: u64) {
    transfer(server, "download", bytes);
}

/// Uploads with the perf protocol.
pub(crate) fn upload(server: SocketAddr, bytes: u64) {
    transfer(server, "upload", bytes);
}

fn transfer(server: SocketAddr, mode: &str, bytes: u64) {
    let (server, bytes) = (server.to_string(), bytes.to_string());
    let arguments =
        ["perf", "client", &server, "--insecure", "--mode", mode, "--bytes", &bytes, "--timeout", "60s", "--json"];
    let out = run(&arguments);
    assert!(out.trim_start().starts_with('{'), "{out}");
}

/// Both ends on this machine.
pub(crate) fn demo(bytes: u64) {
    let out = run(&["demo", "--bytes", &bytes.to_string(), "--timeout", "120s", "--json"]);
    assert!(out.replace(' ', "").contains("\"verified\":true"), "{out}");
}

/// `courser perf server` until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let listen = address.to_string();
        let child = courser().args(["perf", "server", "--listen", &listen]).stdout(Stdio::null()).spawn().unwrap();
        Self { address, child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
