//! Ports between processes that are processes: the test runs itself a second time as the application.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use courser_session::control::{receive, send};
use courser_session::credit::WriteCredit;
use courser_session::doorbell::Interest;
use courser_session::handle::{Handle, HandleTable, Kind};
use courser_session::msg::{Completion, Submission};
use courser_session::port::{
    AppPort, Event, EventBell, Offer, Origin, Outbox, Port, PortSetup, Read, Serve, Session, SharedPort, SharedSetup,
    Source, WorkerPort, shared,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// What the second process is to do, in its environment.
const ROLE: &str = "COURSER_TEST_ROLE";
const PATIENCE: Duration = Duration::from_secs(60);

fn setup() -> SharedSetup {
    let port = PortSetup { submissions: 64, completions: 64, ..PortSetup::default() };
    SharedSetup { port, outbound_bytes: 1 << 18, chunk_bytes: 2048, inbound_chunks: 256 }
}

/// The byte at that place of every stream.
fn byte(at: usize) -> u8 {
    let [a, b, c, ..] = at.to_le_bytes();
    a ^ b.rotate_left(3) ^ c
}

/// Echoes a stream.
#[derive(Default)]
struct Echo {
    waiting: VecDeque<u8>,
    offset: u64,
    taken: usize,
}

impl Source<()> for Echo {
    fn read(&mut self, (): &mut (), max: u32) -> Read {
        let count = self.waiting.len().min(max as usize);
        if count == 0 {
            return Read::Nothing;
        }
        let data: Bytes = self.waiting.drain(..count).collect();
        self.offset += count as u64;
        Read::Data { offset: self.offset - count as u64, data, fin: false }
    }

    fn datagram(&mut self, (): &()) -> Option<Bytes> {
        None
    }
}

impl Serve for Echo {
    type Key = ();

    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut HandleTable<Session<()>>, submission: Submission) {
        if let Submission::Write { stream, data, .. } = submission {
            for (n, got) in data.iter().enumerate() {
                assert_eq!(*got, byte(self.taken + n), "what was taken is what was written");
            }
            self.taken += data.len();
            self.waiting.extend(&data);
            outbox.event(sessions, stream, Event::Readable).unwrap();
            outbox.released(sessions, stream, data.len() as u64, 1 << 20).unwrap();
        }
    }
}

struct Worker {
    port: WorkerPort,
    sessions: HandleTable<Session<()>>,
    echo: Echo,
}

impl Worker {
    /// A worker with a stream for an application in another process.
    fn start(application: EventBell) -> (Offer, Self) {
        let (offer, port) = shared(setup(), application).unwrap();
        let mut worker = Self { port, sessions: HandleTable::new(0, 4), echo: Echo::default() };
        let stream = worker.port.outbox().open(&mut worker.sessions, Kind::Stream, (), Origin::Token(0));
        assert!(stream.is_ok());
        (offer, worker)
    }

    /// Whether there was anything to do.
    fn turn(&mut self) -> bool {
        let served = self.port.serve(&mut self.sessions, &mut self.echo, 16);
        served + self.port.flush(&mut self.sessions, &mut self.echo) > 0
    }

    /// Sleeps until the application rings.
    fn sleep(&mut self) {
        self.port.arm();
        if !self.port.has_work() {
            let bell = EventBell::from_fd(self.port.bell().unwrap().try_clone_to_owned().unwrap());
            assert!(bell.wait(Some(PATIENCE)), "a ring was lost, or the application is gone");
        }
        self.port.disarm();
    }
}

/// Starts this program as an application in that role and gives it its port.
fn application(role: &str, offer: Offer, bell: &EventBell) -> Child {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_application", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    send(ours.as_fd(), b"port", &[offer.segment.as_fd(), offer.bell.as_fd(), bell.as_fd()]).unwrap();
    child
}

/// The second process; nothing when the tests run.
#[test]
fn the_application() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    receive(io::stdin().as_fd(), &mut bytes, &mut fds).unwrap();
    let [segment, bell, own] = <[_; 3]>::try_from(fds).unwrap();
    let port = SharedPort::map(Offer { segment, bell: EventBell::from_fd(bell), setup: setup() }).unwrap();
    let total = if role == "echo" { 3_000_000 } else { usize::MAX };
    exchange(port, &EventBell::from_fd(own), total);
}

/// Writes so many bytes and reads them again, asleep whenever there is nothing to do.
fn exchange(mut port: SharedPort, bell: &EventBell, total: usize) {
    let (mut credit, mut stream, mut sent, mut got) = (WriteCredit::new(), None::<Handle>, 0, 0);
    let mut piece = Vec::new();
    while got < total {
        if let Some(stream) = stream
            && sent < total
        {
            if piece.is_empty() {
                piece = (sent..(sent + 40_000).min(total)).map(byte).collect();
            }
            let count = port.write_slice(stream, &mut credit, &piece, false);
            sent += count;
            piece.drain(..count);
        }
        match port.poll() {
            Some(Completion::Opened { handle, .. }) => stream = Some(handle),
            Some(Completion::CreditGranted { limit, .. }) => _ = credit.grant(limit),
            Some(Completion::Data { stream, data, .. }) => {
                for (n, is) in data.iter().enumerate() {
                    assert_eq!(*is, byte(got + n));
                }
                got += data.len();
                let mut consumed = Submission::Consumed { stream, bytes: data.len() as u64 };
                while let Err(back) = port.submit(consumed) {
                    consumed = back.into_inner();
                    std::thread::yield_now();
                }
            }
            Some(other) => panic!("{other:?}"),
            None => {
                port.arm(Interest::ANY);
                let writes = stream.is_some() && sent < total && credit.room() > 0 && port.has_room();
                if !port.has_news() && !writes {
                    assert!(bell.wait(Some(PATIENCE)), "a ring was lost");
                }
                port.disarm();
            }
        }
    }
}

#[test]
fn an_application_in_another_process_gets_every_byte_back() {
    let bell = EventBell::new().unwrap();
    let (offer, mut worker) = Worker::start(bell.clone());
    let mut child = application("echo", offer, &bell);
    while !worker.port.is_gone() {
        if !worker.turn() {
            worker.sleep();
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!((worker.port.fault(), worker.echo.taken), (None, 3_000_000));
}

/// Descriptors and mappings of segments that this process has.
fn estate() -> (usize, usize) {
    let is_segment = |text: &str| text.contains("memfd:courser");
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let descriptors = links.filter(|to| is_segment(&to.to_string_lossy())).count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| is_segment(line)).count())
}

#[test]
fn an_application_that_is_killed_in_the_middle_of_a_write_is_no_fault_and_leaves_nothing() {
    let mut dice = 7u64;
    for round in 0..100 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let enough = (dice >> 40) as usize % 1_000_000;
        let bell = EventBell::new().unwrap();
        let (offer, mut worker) = Worker::start(bell.clone());
        let mut child = application("endless", offer, &bell);
        while worker.echo.taken < enough {
            if !worker.turn() {
                worker.sleep();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had published is taken; what it was just writing does not exist.
        while worker.turn() {}
        assert_eq!(worker.port.fault(), None, "round {round}, after {} bytes", worker.echo.taken);
        assert!(!worker.port.is_gone(), "whoever started it sees that it is gone");
        worker.port.arm();
        assert!(!worker.port.has_work());
    }
    // The other test of this program has one at most.
    let (descriptors, mappings) = estate();
    assert!(descriptors <= 1 && mappings <= 1, "{descriptors} descriptors and {mappings} mappings are left");
}
