//! The calls of programs over the worker of TCP and UDP, without a host around it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod suite;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use courser_session::control::{Attached, Fault, Notice, Open, Protocol};
use courser_session::port::{EventBell, PortSetup};
use courser_session::stack as api;
use courser_session::stack::{Attachment, Control, Opened, Refused, Stack};
use courser_stack::plain::{Plain, PlainSetup};

use suite::Ground;

/// A host with nothing but one worker of TCP and UDP.
struct PlainHost {
    worker: Option<Plain>,
    bell: EventBell,
}

impl Control for PlainHost {
    fn add_certificate(&mut self, _: &[u8], _: &[u8]) -> Result<u32, Refused> {
        Err(Refused::new(Fault::Unknown, "there is no QUIC here"))
    }

    fn open(&mut self, what: &Open) -> Result<Opened, Refused> {
        if what.protocol == Protocol::Quic {
            return Err(Refused::new(Fault::Unknown, "there is no QUIC here"));
        }
        let worker = Plain::start(PlainSetup { worker: 7, ..PlainSetup::default() });
        let worker = worker.map_err(|error| Refused::new(Fault::System, error.to_string()))?;
        let port = worker.attach_with(PortSetup::default(), Some(Arc::new(self.bell.clone())));
        self.worker = Some(worker);
        let local = "0.0.0.0:0".parse().unwrap();
        Ok(Opened { endpoint: 1, local, first_worker: 7, ports: vec![Box::new(port)] })
    }

    fn close(&mut self, _: u32) -> Result<(), Refused> {
        self.worker = None;
        Ok(())
    }

    fn notice(&mut self) -> Option<Notice> {
        None
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn stack() -> Stack {
    let bell = EventBell::new().unwrap();
    let limits = Attached { application: 1, endpoints_max: 1, sessions_max: 10_000, memory_max: 0 };
    let control = Box::new(PlainHost { worker: None, bell: bell.clone() });
    Stack::over(Attachment { control, bell, limits }).unwrap()
}

fn ground(protocol: Protocol, apart: bool) -> Ground {
    let server = stack();
    let client = if apart { stack() } else { server.clone() };
    Ground { server, client, protocol, certificate: Vec::new(), key: Vec::new(), workers: 1 }
}

#[test]
fn tcp_between_two_programs() {
    suite::streams(&ground(Protocol::Tcp, true));
}

#[test]
fn tcp_within_one_program() {
    suite::streams(&ground(Protocol::Tcp, false));
}

#[test]
fn udp_between_two_programs() {
    suite::udp(&ground(Protocol::Udp, true));
}

#[test]
fn udp_within_one_program() {
    suite::udp(&ground(Protocol::Udp, false));
}
