//! TCP: bytes each way, holding back, crowds.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::*;

#[test]
fn four_megabytes_go_each_way_through_one_worker_byte_by_byte() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let sent = pattern(4 << 20);
    let (mut server, mut client) = (App::new(&plain), App::new(&plain));
    let (_, address) = server.listen(Protocol::Tcp);
    let serving = thread::spawn(move || {
        let (session, _) = server.accepted();
        let all = server.read_to_end(session);
        server.write_all(session, &mut WriteCredit::new(), &all, true);
        let ended = server.closed(session);
        (all, ended)
    });
    let session = client.connect(Protocol::Tcp, address);
    client.write_all(session, &mut WriteCredit::new(), &sent, true);
    let echoed = client.read_to_end(session);
    assert_eq!(client.closed(session).reason, Reason::Done);
    let (arrived, ended) = serving.join().unwrap();
    assert!(arrived == sent && echoed == sent, "the bytes are the same");
    assert_eq!(ended.reason, Reason::Done);
    assert!(plain.rows(usize::MAX).iter().all(|row| row.handle.kind().name() == "listener"));
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (listener, address) = app.listen(Protocol::Tcp);
    let mut raw = TcpStream::connect(address).unwrap();
    let (session, number) = app.accepted();
    assert_eq!(number, peer_number(raw.local_addr().unwrap()));
    assert_eq!((number & 0xffff, number >> 16), (raw.local_addr().unwrap().port().into(), 0x7f00_0001));
    app.say(Submission::Finish { stream: session });
    let mut none = Vec::new();
    raw.read_to_end(&mut none).unwrap();
    assert!(none.is_empty(), "the peer read the end");
    raw.write_all(b"still here").unwrap();
    let mut heard = Vec::new();
    while heard.len() < 10 {
        heard.extend_from_slice(&app.data(session).0);
    }
    assert_eq!(heard, b"still here");
    let row = row_of(&plain, session).unwrap();
    assert_eq!((row.state, row.parent, row.encrypted), ("finished", Some(listener), false));
    assert_eq!((row.remote, row.read), (raw.local_addr().ok(), 10));
    assert_eq!(row_of(&plain, listener).unwrap().children, 1);
    let shown = plain.sessions(usize::MAX).into_iter().find(|shown| shown.handle == session).unwrap();
    assert_eq!((shown.remote, shown.read, shown.parent), (row.remote, 10, Some(listener)));
    assert!(shown.context.starts_with("tcp ") && shown.context.ends_with("no TLS"), "{}", shown.context);
    drop(raw);
    assert_eq!(app.read_to_end(session), b"");
    assert_eq!(app.closed(session).reason, Reason::Done);
}

#[test]
fn a_peer_that_finishes_first_still_gets_the_answer() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (_, address) = app.listen(Protocol::Tcp);
    let mut raw = TcpStream::connect(address).unwrap();
    raw.write_all(b"question").unwrap();
    raw.shutdown(std::net::Shutdown::Write).unwrap();
    let (session, _) = app.accepted();
    assert_eq!(app.read_to_end(session), b"question");
    app.write_all(session, &mut WriteCredit::new(), b"answer", true);
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(app.closed(session).reason, Reason::Done);
}

#[test]
fn a_reader_that_waits_holds_the_sender_back() {
    const WINDOW: u32 = 32 << 10;
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::with(&plain, PortSetup { delivery_window_bytes: WINDOW, ..PortSetup::default() });
    let (_, address) = app.listen(Protocol::Tcp);
    // More than the system's own buffers take.
    let sent = pattern(32 << 20);
    let sending = thread::spawn({
        let sent = sent.clone();
        move || {
            let mut raw = TcpStream::connect(address).unwrap();
            raw.write_all(&sent).unwrap();
        }
    });
    let (session, _) = app.accepted();
    let mut heard = Vec::new();
    while heard.len() < WINDOW as usize {
        let data = app.hear(|message| match message {
            Completion::Data { data, .. } => Some(data.clone()),
            _ => None,
        });
        heard.extend_from_slice(&data);
    }
    for _ in 0..3 {
        assert_eq!(app.stats(session).read_bytes, u64::from(WINDOW), "no byte more than the window");
    }
    assert!(!app.heard.iter().any(|message| matches!(message, Completion::Data { .. })));
    assert!(!sending.is_finished(), "the sender waits");
    app.say(Submission::Consumed { stream: session, bytes: u64::from(WINDOW) });
    heard.extend(app.read_to_end(session));
    assert!(heard == sent, "the bytes are the same");
    sending.join().unwrap();
}

#[test]
fn a_peer_that_does_not_read_leaves_the_writer_without_credit_and_takes_all_later() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let raw = TcpListener::bind("127.0.0.1:0").unwrap();
    let session = app.connect(Protocol::Tcp, raw.local_addr().unwrap());
    let (mut peer, _) = raw.accept().unwrap();
    // More than the system's own buffers take.
    let sent = pattern(32 << 20);
    let (ready, go) = std::sync::mpsc::channel::<()>();
    let reading = thread::spawn(move || {
        go.recv().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    let mut credit = WriteCredit::new();
    let mut rest = Bytes::from(sent.clone());
    // Credit comes until the buffers of the system are full; a question that is answered without news of credit shows it.
    loop {
        app.port.write(session, &mut credit, &mut rest, true);
        app.stats(session);
        let before = credit;
        while let Some(at) = app.heard.iter().position(|m| matches!(m, Completion::CreditGranted { .. })) {
            let Completion::CreditGranted { limit, .. } = app.heard.remove(at) else { unreachable!() };
            credit.grant(limit);
        }
        if rest.is_empty() || (before == credit && credit.room() == 0) {
            break;
        }
    }
    assert!(!rest.is_empty(), "the writer had to wait");
    ready.send(()).unwrap();
    let rest = rest.to_vec();
    app.write_all(session, &mut credit, &rest, true);
    assert!(reading.join().unwrap() == sent, "the bytes are the same");
    assert_eq!(app.read_to_end(session), b"");
    assert_eq!(app.closed(session).reason, Reason::Done);
}

#[test]
fn many_small_writes_arrive_in_order() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let raw = TcpListener::bind("127.0.0.1:0").unwrap();
    let session = app.connect(Protocol::Tcp, raw.local_addr().unwrap());
    let (mut peer, _) = raw.accept().unwrap();
    let mut credit = WriteCredit::new();
    let sent = pattern(3 * 7 * 1000);
    for piece in sent.chunks(7).collect::<Vec<_>>() {
        let mut piece = Bytes::copy_from_slice(piece);
        while app.port.write(session, &mut credit, &mut piece, false) == 0 {
            app.port.wait_for_room(Some(LONG));
        }
    }
    while app.port.submit(Submission::Finish { stream: session }).is_err() {
        app.port.wait_for_room(Some(LONG));
    }
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert!(all == sent);
}

#[test]
fn connections_that_never_speak_leave_room_for_the_applications_own() {
    let plain = Plain::start(PlainSetup { sessions_max: 16, ..PlainSetup::default() }).unwrap();
    let mut app = App::new(&plain);
    let (listener, address) = app.listen(Protocol::Tcp);
    let mut silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    // The listener and thirteen: an eighth of the table is kept.
    let mut inside: Vec<Handle> = (0..13).map(|_| app.accepted().0).collect();
    assert_eq!(app.stats(listener).children, 13);
    assert!(!app.heard.iter().any(|message| matches!(message, Completion::Accepted { .. })));

    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = app.connect(Protocol::Tcp, elsewhere.local_addr().unwrap());
    let (mut peer, _) = elsewhere.accept().unwrap();
    app.write_all(own, &mut WriteCredit::new(), b"works", true);
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"works");
    drop(peer);
    assert_eq!(app.read_to_end(own), b"");
    assert_eq!(app.closed(own).reason, Reason::Done);

    // Those who wait come in as others go, to the last; who was in works all the time.
    for _ in 13..40 {
        let gone = inside.remove(0);
        app.say(Submission::Close { handle: gone, code: 0, reason: Bytes::new() });
        assert_eq!(app.closed(gone).reason, Reason::GivenUp);
        inside.push(app.accepted().0);
    }
    let last = *inside.last().unwrap();
    silent.last_mut().unwrap().write_all(b"at last").unwrap();
    assert!(!app.data(last).0.is_empty());
}

#[test]
fn a_listener_waits_for_its_ports_share() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    // Room for two streams.
    let mut app = App::with(&plain, PortSetup { share_bytes: 150 << 10, ..PortSetup::default() });
    let (listener, address) = app.listen(Protocol::Tcp);
    let _raw: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let (first, _) = app.accepted();
    app.accepted();
    assert_eq!(app.stats(listener).children, 2);
    assert_eq!(app.try_connect(Protocol::Tcp, address).unwrap_err().reason, Reason::Full);
    app.say(Submission::Refuse { handle: first, code: 0 });
    app.closed(first);
    app.accepted();
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_asks_whether_silent_peers_are_still_there_unless_told_not_to() {
    // The kind of timer that the system has running for the connection: 2 is keep-alive.
    let timer_of = |local: SocketAddr, remote: SocketAddr| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ends = format!("0100007F:{:04X} 0100007F:{:04X}", local.port(), remote.port());
        let line = table.lines().find(|line| line.contains(&ends)).expect("the connection is in the table");
        line.split_whitespace().nth(5).unwrap()[..2].to_owned()
    };
    for (keep_alive, timer) in [(Some(Duration::from_secs(7200)), "02"), (None, "00")] {
        let plain = Plain::start(PlainSetup { keep_alive, ..PlainSetup::default() }).unwrap();
        let mut app = App::new(&plain);
        let (_, address) = app.listen(Protocol::Tcp);
        let raw = TcpStream::connect(address).unwrap();
        let (session, _) = app.accepted();
        app.stats(session);
        assert_eq!(timer_of(address, raw.local_addr().unwrap()), timer);
    }
}
