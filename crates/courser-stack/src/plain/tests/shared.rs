//! Applications of other processes: the same messages through a segment.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;

use courser_session::doorbell::Interest;
use courser_session::port::{AppPort as _, EventBell, Port as _};
use courser_session::segment::{SharedPort, SharedSetup};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// The other process's end of a port, in this one.
struct Outside {
    port: SharedPort,
    bell: EventBell,
}

impl Outside {
    fn new(plain: &Plain) -> Self {
        let bell = EventBell::new().unwrap();
        let offer = plain.attach_shared(SharedSetup::default(), bell.clone()).unwrap();
        Self { port: SharedPort::map(offer).unwrap(), bell }
    }

    /// Sleeps until the worker rings, unless there is something to be done.
    fn sleep(&mut self, interest: Interest, mut can_go_on: impl FnMut(&mut SharedPort) -> bool) {
        self.port.arm(interest);
        if !can_go_on(&mut self.port) {
            let limit = Timespec::try_from(LONG).unwrap();
            let fd = PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN);
            assert_eq!(poll(&mut [fd], Some(&limit)).unwrap(), 1, "nothing more came");
        }
        self.port.disarm();
        self.bell.clear();
    }

    fn next(&mut self) -> Completion {
        loop {
            if let Some(message) = self.port.poll() {
                return message;
            }
            self.sleep(Interest::MESSAGES, |port| port.has_news());
        }
    }

    fn find<T>(&mut self, mut wanted: impl FnMut(Completion) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next()) {
                return found;
            }
        }
    }
}

#[test]
fn an_application_of_another_process_echoes_and_leaves_nothing_behind() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = Outside::new(&plain);
    app.port.submit(Submission::Listen { token: 1, at: at(Protocol::Tcp, here()) }).unwrap();
    let number = app.find(|m| if let Completion::Opened { number, .. } = m { Some(number) } else { None });
    let mut raw = TcpStream::connect(SocketAddr::new(here().ip(), u16::try_from(number).unwrap())).unwrap();
    let sent = pattern(1 << 20);
    let sending = std::thread::spawn({
        let (mut raw, sent) = (raw.try_clone().unwrap(), sent.clone());
        move || raw.write_all(&sent).unwrap()
    });
    let reading = std::thread::spawn({
        let (mut raw, mut back) = (raw.try_clone().unwrap(), vec![0; sent.len()]);
        move || {
            raw.read_exact(&mut back).unwrap();
            back
        }
    });
    let (mut credit, mut echoed, mut stream) = (WriteCredit::new(), 0, None);
    let mut rest: Vec<u8> = Vec::new();
    while echoed < sent.len() {
        match app.port.poll() {
            Some(Completion::Accepted { handle, .. }) => stream = Some(handle),
            Some(Completion::Data { stream, data, .. }) => {
                rest.extend_from_slice(&data);
                while app.port.submit(Submission::Consumed { stream, bytes: data.len() as u64 }).is_err() {
                    app.sleep(Interest::ROOM, |port| port.has_room());
                }
            }
            Some(Completion::CreditGranted { limit, .. }) => _ = credit.grant(limit),
            Some(_) => {}
            None => {
                let mut count = 0;
                app.sleep(Interest::ANY, |port| {
                    count = stream.map_or(0, |stream| port.write_slice(stream, &mut credit, &rest, false));
                    count > 0 || port.has_news()
                });
                echoed += count;
                rest.drain(..count);
            }
        }
    }
    sending.join().unwrap();
    assert!(reading.join().unwrap() == sent, "the bytes are the same");
    drop(app);
    let mut end = [0; 1];
    assert_eq!(raw.read(&mut end).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(plain.rows(usize::MAX), []);
}

#[test]
fn a_port_of_another_process_sleeps_and_wakes_with_the_worker() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = Outside::new(&plain);
    app.port.submit(Submission::Listen { token: 1, at: at(Protocol::Udp, here()) }).unwrap();
    let number = app.find(|m| if let Completion::Opened { number, .. } = m { Some(number) } else { None });
    let raw = std::net::UdpSocket::bind(here()).unwrap();
    raw.set_read_timeout(Some(LONG)).unwrap();
    raw.connect(SocketAddr::new(here().ip(), u16::try_from(number).unwrap())).unwrap();
    // Each way and size once at a time: both sides sleep in between.
    for len in (0..200).chain([1472, 65_507]) {
        let sent = pattern(len);
        raw.send(&sent).unwrap();
        let (connection, data) = app.find(|m| match m {
            Completion::Datagram { connection, data } => Some((connection, data)),
            _ => None,
        });
        assert!(data == sent);
        app.port.submit(Submission::Datagram { connection, data, tag: None }).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let count = raw.recv(&mut buffer).unwrap();
        assert!(buffer[..count] == sent);
    }
    drop(plain);
    while !app.port.is_closed() {
        app.port.poll();
    }
}
