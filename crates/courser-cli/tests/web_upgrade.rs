//! SIGUSR2 to `courser serve`: a new process has the sockets of TCP and UDP, and nobody notices.
#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::text;
use common::web::{At, PATIENCE, Place, Web};

/// A process that is not our child.
struct Process(String);

impl Process {
    fn signal(&self, which: &str) {
        assert!(Command::new("kill").args([which, &self.0]).status().unwrap().success());
    }

    /// Whether it is there, and no mere entry for its parent.
    fn runs(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", &self.0]).stderr(std::process::Stdio::null()).status();
    }
}

/// What it says of its successor.
fn successor(web: &mut Web) -> Process {
    let said = web.until("has the sockets");
    let number = said.split("process ").nth(1).unwrap().split(' ').next().unwrap();
    Process(number.to_owned())
}

#[test]
fn new_processes_take_over_while_clients_ask() {
    let place = Place::new();
    fs::write(place.dir.path().join("www/big"), vec![b'x'; 32 << 20]).unwrap();
    let notify = place.dir.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 100];
        let n = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };
    let www = place.www();
    let args = ["serve", &www, "--listen=127.0.0.1:0", "--cert", &place.cert, "--key", &place.key, "--access-log=off"];
    let mut web = Web::start_with(&args, &[("NOTIFY_SOCKET", text(&notify))]);
    let (stop, asked) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let at: At = (*web).clone();
    let third = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert!(at.get(place.ca(), "/").unwrap().ends_with("home"));
                asked[0].fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(at.get_h3(&place.cert, "/"), "home");
                asked[1].fetch_add(1, Ordering::Relaxed);
            }
        });
        // Its end stops the clients also when something fails.
        let stops = Stops(&stop);
        assert_eq!(heard(), "READY=1");
        let mut tls = web.connect(place.ca());
        write!(tls, "GET /big HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        tls.read_exact(&mut [0; 1000]).unwrap();
        common::signal(&web.child, "-USR2");
        let second = successor(&mut web);
        assert_eq!([heard(), heard()], ["READY=1".to_owned(), format!("MAINPID={}", second.0)]);
        assert!(web.child.try_wait().unwrap().is_none(), "an answer is under way");
        let mut rest = Vec::new();
        let _ = tls.read_to_end(&mut rest);
        assert!(rest.len() > (32 << 20) - 1000);
        assert_eq!(web.ended(), Some(0));

        second.signal("-USR2");
        let third = successor(&mut web);
        let since = [0, 1].map(|n| asked[n].load(Ordering::Relaxed));
        while second.runs() || [0, 1].iter().any(|n| asked[*n].load(Ordering::Relaxed) < since[*n] + 3) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(third.runs());
        drop(stops);
        third
    });
    // Nobody asks any more.
    third.signal("-TERM");
    while third.runs() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Stops clients when it goes.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
