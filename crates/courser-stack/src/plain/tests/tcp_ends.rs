//! TCP: how connections are not made, and how they end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use socket2::{Domain, SockRef, Socket, Type};

use super::*;

/// A session and the raw socket of its peer.
fn joined(app: &mut App) -> (Handle, TcpStream) {
    let raw = TcpListener::bind("127.0.0.1:0").unwrap();
    let session = app.connect(Protocol::Tcp, raw.local_addr().unwrap());
    (session, raw.accept().unwrap().0)
}

fn reset(raw: TcpStream) {
    SockRef::from(&raw).set_linger(Some(Duration::ZERO)).unwrap();
    drop(raw);
}

#[test]
fn a_connection_that_nobody_takes_is_refused_with_a_sentence() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    // Bound, so that nobody else has the port, and not listening.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&here().into()).unwrap();
    let gone = bound.local_addr().unwrap().as_socket().unwrap();
    let ended = app.try_connect(Protocol::Tcp, gone).unwrap_err();
    assert_eq!(ended.reason, Reason::Refused);
    assert!(ended.to_string().contains(&format!("connect to {gone}")), "{ended}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_that_nobody_answers_is_given_up_after_its_time() {
    // A backlog that is full: the system drops what comes.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&here().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _waiting: Vec<Socket> = (0..8)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let setup = PlainSetup { connect_timeout: Duration::from_millis(50), ..PlainSetup::default() };
    let plain = Plain::start(setup).unwrap();
    let mut app = App::new(&plain);
    let ended = app.try_connect(Protocol::Tcp, address).unwrap_err();
    assert_eq!(ended.reason, Reason::Unreachable);
    assert!(ended.to_string().contains("did not answer for 50ms"), "{ended}");
}

#[test]
fn a_session_that_is_reset_or_closed_unfinished_is_reset_for_the_peer() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    for close in [false, true] {
        let (session, mut raw) = joined(&mut app);
        app.write_all(session, &mut WriteCredit::new(), b"half of", false);
        if close {
            app.say(Submission::Close { handle: session, code: 7, reason: Bytes::new() });
        } else {
            app.say(Submission::Reset { stream: session, code: 7 });
        }
        assert_eq!(app.closed(session).reason, Reason::GivenUp);
        let mut all = Vec::new();
        assert_eq!(raw.read_to_end(&mut all).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_reset_of_the_peer_is_told_and_is_no_end_of_the_data() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (session, mut raw) = joined(&mut app);
    raw.write_all(b"half of").unwrap();
    assert!(!app.data(session).1);
    reset(raw);
    app.reset_heard(session);
    assert_eq!(app.closed(session).reason, Reason::GivenUp);
    assert!(!app.heard.iter().any(|message| matches!(message, Completion::Data { fin: true, .. })));
}

#[test]
fn a_writer_whose_own_reading_waits_learns_of_the_peers_reset() {
    const WINDOW: u32 = 1000;
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::with(&plain, PortSetup { delivery_window_bytes: WINDOW, ..PortSetup::default() });
    let (session, mut raw) = joined(&mut app);
    raw.write_all(&[1; 5000]).unwrap();
    let mut heard = 0;
    while heard < WINDOW as usize {
        heard += app.hear(|m| if let Completion::Data { data, .. } = m { Some(data.len()) } else { None });
    }
    reset(raw);
    let mut credit = WriteCredit::new();
    // The first write may go before the reset has come; the system tells no later than with the second one.
    loop {
        app.write_all(session, &mut credit, b"more", false);
        app.stats(session);
        if app.heard.iter().any(|m| matches!(m, Completion::Stopped { stream, .. } if *stream == session)) {
            break;
        }
    }
    app.say(Submission::Consumed { stream: session, bytes: u64::from(WINDOW) });
    loop {
        let (reset, consumed) = app.hear(|message| match message {
            Completion::Reset { .. } => Some((true, 0)),
            Completion::Data { data, fin: false, .. } => Some((false, data.len() as u64)),
            _ => None,
        });
        if reset {
            break;
        }
        app.say(Submission::Consumed { stream: session, bytes: consumed });
    }
    assert_eq!(app.closed(session).reason, Reason::GivenUp);
    assert!(!app.heard.iter().any(|message| matches!(message, Completion::Data { fin: true, .. })));
}

#[test]
fn what_was_finished_arrives_although_the_peer_goes_on_sending() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (session, mut raw) = joined(&mut app);
    // Unread bytes, at which a socket that is closed at once would be reset.
    raw.write_all(&[1; 100_000]).unwrap();
    let sent = pattern(1 << 20);
    app.write_all(session, &mut WriteCredit::new(), &sent, true);
    app.say(Submission::Close { handle: session, code: 0, reason: Bytes::new() });
    raw.write_all(&[2; 100_000]).unwrap();
    let mut all = Vec::new();
    raw.read_to_end(&mut all).unwrap();
    assert!(all == sent, "the bytes are the same");
    assert_eq!(app.closed(session).reason, Reason::Done);
}

#[test]
fn a_stream_whose_reading_was_stopped_goes_on_writing() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (session, mut raw) = joined(&mut app);
    app.say(Submission::Stop { stream: session, code: 0 });
    // More than all buffers: it goes through only because it is thrown away.
    raw.write_all(&vec![1; 32 << 20]).unwrap();
    app.write_all(session, &mut WriteCredit::new(), b"and here", true);
    let mut all = Vec::new();
    raw.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"and here");
    assert_eq!(app.closed(session).reason, Reason::Done);
    assert!(!app.heard.iter().any(|message| matches!(message, Completion::Data { .. })));
}

#[test]
fn an_application_that_is_gone_leaves_no_end_that_looks_clean() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (listener, _) = app.listen(Protocol::Tcp);
    let (unfinished, mut cut) = joined(&mut app);
    let (finished, mut whole) = joined(&mut app);
    app.write_all(unfinished, &mut WriteCredit::new(), b"half of", false);
    app.write_all(finished, &mut WriteCredit::new(), b"all of it", true);
    app.hear(|m| matches!(m, Completion::AllAcked { stream } if *stream == finished).then_some(()));
    assert_eq!(app.stats(listener).children, 0);
    drop(app);
    let mut all = Vec::new();
    assert_eq!(cut.read_to_end(&mut all).unwrap_err().kind(), ErrorKind::ConnectionReset);
    all.clear();
    whole.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"all of it");
    // The peers were told after everything of the application's had gone.
    assert_eq!(plain.rows(usize::MAX), []);
}

#[test]
fn a_worker_that_ends_resets_what_was_not_finished() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (_, mut raw) = joined(&mut app);
    drop(plain);
    let mut all = Vec::new();
    assert_eq!(raw.read_to_end(&mut all).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_listener_that_is_closed_keeps_what_it_took_in() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (listener, address) = app.listen(Protocol::Tcp);
    let mut raw = TcpStream::connect(address).unwrap();
    let (session, _) = app.accepted();
    app.say(Submission::Close { handle: listener, code: 0, reason: Bytes::new() });
    assert_eq!(app.closed(listener).reason, Reason::ClosedHere);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    app.write_all(session, &mut WriteCredit::new(), b"goes on", true);
    let mut all = Vec::new();
    raw.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"goes on");
}
