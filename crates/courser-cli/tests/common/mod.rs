//! The built programs, started and asked.
#![allow(dead_code, clippy::unwrap_used, reason = "a test may fail, and need not use everything")]

#[cfg(unix)]
pub mod web;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub const COURSER: &str = env!("CARGO_BIN_EXE_courser");
pub const PEER: &str = env!("CARGO_BIN_EXE_peer-courser");

pub fn command(program: &str, args: &[&str]) -> Command {
    let mut c = Command::new(program);
    c.args(args);
    for name in ["COURSER_LOG", "NO_COLOR", "SSLKEYLOGFILE"] {
        c.env_remove(name);
    }
    c
}

pub fn courser(args: &[&str]) -> Output {
    command(COURSER, args).output().expect("the program runs")
}

pub fn signal(child: &Child, which: &str) {
    assert!(Command::new("kill").args([which, &child.id().to_string()]).status().unwrap().success());
}

/// Memory in KiB and descriptors of a process.
#[cfg(target_os = "linux")]
pub fn held(pid: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (
        line.trim().trim_end_matches(" kB").parse().unwrap(),
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
    )
}

/// A server that listens; it is asked to end when dropped.
pub struct Server {
    pub child: Child,
    pub addr: String,
    pub rest: Option<BufReader<std::process::ChildStderr>>,
}

impl Server {
    /// A `courser` server, which tells its address on standard error.
    pub fn courser(args: &[&str]) -> Self {
        let mut child = command(COURSER, args).stderr(Stdio::piped()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        err.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, addr, rest: Some(err) }
    }

    pub fn perf(more: &[&str]) -> Self {
        Self::courser(&[&["perf", "server", "--listen", "127.0.0.1:0"], more].concat())
    }

    pub fn ask_to_end(&self) {
        signal(&self.child, "-TERM");
    }

    /// Asks it to end; its exit code and what it still said.
    pub fn end(mut self) -> (Option<i32>, String) {
        self.ask_to_end();
        let mut said = String::new();
        if let Some(mut rest) = self.rest.take() {
            rest.read_to_string(&mut said).unwrap();
        }
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub fn object(out: &Output) -> Value {
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
pub fn assert_fails(out: &Output, code: i32, pieces: &[&str]) {
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{err}");
    for p in pieces {
        assert!(err.contains(p), "no {p:?} in: {err}");
    }
}

/// A certificate with its key in files.
pub fn identity(dir: &Path, from: (i32, u8, u8), until: (i32, u8, u8)) -> (PathBuf, PathBuf) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
    params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    // Certificates of one name would be taken for each other.
    params.distinguished_name.push(rcgen::DnType::CommonName, dir.display().to_string());
    let pair = rcgen::KeyPair::generate().unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    (cert, key)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
