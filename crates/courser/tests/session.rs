//! Session ports over the loopback interface.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;
#[path = "../examples/echo_ports.rs"]
mod echo_ports;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::port::{hear, remote};
use common::{Identity, PATIENCE, loopback, pattern};
use courser::Settings;
use courser::session::{
    Bytes, Completion, Ended, Endpoint, Handle, HandleError, InlineEndpoint, Kind, Options, Port, PortSetup, Reason,
    Rejection, Remote, Submission, ThreadPort, Waited, WriteCredit,
};
use echo_ports::{Echo, Outgoing};

fn opened(port: &mut ThreadPort, wanted: u64) -> Handle {
    hear(port, |message| match message {
        Completion::Opened { token, handle, .. } if token == wanted => Some(handle),
        Completion::Failed { .. } => panic!("{}", Ended::of(&message).unwrap()),
        _ => None,
    })
}

fn ended(port: &mut ThreadPort, of: Handle) -> Ended {
    hear(port, |message| Ended::of(&message).filter(|_| message.handle() == Some(of)))
}

/// Submits, when there is room.
fn say(port: &mut ThreadPort, mut submission: Submission) {
    while let Err(back) = port.submit(submission) {
        submission = back.into_inner();
        assert_eq!(port.wait_for_room(Some(PATIENCE)), Waited::Ready);
    }
}

/// Two workers with a port each, and a connection between them.
struct Pair {
    client: ThreadPort,
    server: ThreadPort,
    /// The connection, as both call it.
    ours: Handle,
    theirs: Handle,
    client_end: Endpoint,
    server_end: Endpoint,
}

fn serve(server_end: &Endpoint, setup: PortSetup) -> ThreadPort {
    let mut server = server_end.attach(setup);
    server.submit(Submission::Listen { token: 1, at: remote(server_end.local_addr()) }).unwrap();
    opened(&mut server, 1);
    server
}

fn ends(settings: &Settings) -> (Endpoint, Endpoint) {
    let identity = Identity::new();
    let server = Options::server(loopback(), identity.server().settings(settings.clone()));
    let client = Options::client(identity.client().settings(settings.clone()));
    (Endpoint::start(server).unwrap(), Endpoint::start(client).unwrap())
}

fn join(client: &mut ThreadPort, server: &mut ThreadPort, address: SocketAddr) -> (Handle, Handle) {
    client.submit(Submission::Connect { token: 2, to: remote(address) }).unwrap();
    let ours = opened(client, 2);
    let theirs = hear(server, |message| match message {
        Completion::Accepted { handle, .. } => Some(handle),
        _ => None,
    });
    server.submit(Submission::Accept { handle: theirs }).unwrap();
    for (port, connection) in [(client, ours), (server, theirs)] {
        hear(port, |message| (message == Completion::Established { connection }).then_some(()));
    }
    (ours, theirs)
}

fn pair_of(settings: &Settings, client: PortSetup, server: PortSetup) -> Pair {
    let (server_end, client_end) = ends(settings);
    let (mut client, mut server) = (client_end.attach(client), serve(&server_end, server));
    let (ours, theirs) = join(&mut client, &mut server, server_end.local_addr());
    Pair { client, server, ours, theirs, client_end, server_end }
}

fn pair() -> Pair {
    pair_of(&Settings::default(), PortSetup::default(), PortSetup::default())
}

/// Echoes until the connection of its client ends; how that was.
fn echo(mut port: ThreadPort) -> JoinHandle<Ended> {
    thread::spawn(move || {
        let mut echo = Echo::default();
        loop {
            while let Some(message) = port.poll() {
                let over = message.handle().is_some_and(|handle| handle.kind() == Kind::Connection);
                if let Some(ended) = Ended::of(&message).filter(|_| over) {
                    return ended;
                }
                echo.on(&mut port, message);
            }
            let goes = echo.go_on(&mut port);
            let waited = if goes { port.wait(Some(PATIENCE)) } else { port.wait_for_room(Some(PATIENCE)) };
            assert_eq!(waited, Waited::Ready);
        }
    })
}

/// A stream of [`exchange`].
struct Way {
    token: u64,
    out: Outgoing,
    sent: Vec<u8>,
    got: Vec<u8>,
    fin: bool,
}

/// Sends `bytes` on each of so many streams, as many at once as the port's share allows, and checks what comes back. Every
/// message of a stream is expected exactly as often as it has to come.
fn exchange(port: &mut ThreadPort, connection: Handle, streams: u64, bytes: usize) {
    let (mut asked, mut over, mut ways, mut seen) = (0, 0, HashMap::<Handle, Way>::new(), HashSet::new());
    let mut later: Vec<Submission> = Vec::new();
    let until = Instant::now() + 2 * PATIENCE;
    while over < streams {
        while asked < streams && port.submit(Submission::OpenBi { connection, token: 100 + asked }).is_ok() {
            asked += 1;
        }
        let mut heard = Vec::new();
        port.poll_into(&mut heard, 64);
        let quiet = heard.is_empty();
        for message in heard {
            match message {
                Completion::Opened { token, handle, .. } => {
                    assert!(seen.insert(handle), "{handle} named another stream before");
                    let sent = pattern(token, bytes);
                    let mut out = Outgoing::default();
                    out.push(Bytes::from(sent.clone()), true);
                    ways.insert(handle, Way { token, out, sent, got: Vec::new(), fin: false });
                }
                Completion::CreditGranted { stream, limit } => {
                    assert!(ways.get_mut(&stream).unwrap().out.credit.grant(limit), "a grant is news");
                }
                Completion::Data { stream, offset, data, fin } => {
                    let way = ways.get_mut(&stream).unwrap();
                    assert_eq!((offset as usize, way.fin), (way.got.len(), false));
                    way.got.extend_from_slice(&data);
                    way.fin = fin;
                    later.push(Submission::Consumed { stream, bytes: data.len() as u64 });
                }
                Completion::AllAcked { stream } => assert!(ways.contains_key(&stream)),
                Completion::Closed { handle, reason, .. } => {
                    let way = ways.remove(&handle).unwrap();
                    assert_eq!(reason, Reason::Done.index());
                    assert!(way.fin && way.got == way.sent, "stream {} differs", way.token);
                    over += 1;
                }
                // Credit may come back to a stream that is over meanwhile.
                Completion::Rejected { why: Rejection::Handle(HandleError::Late), .. } => {}
                other => panic!("{other:?}"),
            }
        }
        for (stream, way) in &mut ways {
            way.out.pump(port, *stream);
        }
        while let Some(submission) = later.pop() {
            if let Err(back) = port.submit(submission) {
                later.push(back.into_inner());
                break;
            }
        }
        if quiet {
            assert!(Instant::now() < until, "{over} of {streams} streams are over");
            port.wait(Some(Duration::from_millis(5)));
        }
    }
}

fn many_streams() -> Settings {
    let mut settings = Settings::default();
    settings.max_streams_bidi = 1200;
    settings
}

#[test]
fn a_thousand_streams_echo_over_one_connection() {
    let Pair { mut client, server, ours, client_end: _c, server_end: _s, .. } =
        pair_of(&many_streams(), PortSetup::default(), PortSetup::default());
    let echoing = echo(server);
    exchange(&mut client, ours, 1000, 3000);
    say(&mut client, Submission::Close { handle: ours, code: 9, reason: Bytes::from_static(b"enough") });
    assert_eq!(ended(&mut client, ours).reason, Reason::ClosedHere);
    let there = echoing.join().unwrap();
    assert_eq!((there.reason, there.code, &there.text[..]), (Reason::ClosedByPeer, 9, &b"enough"[..]));
    assert_eq!(there.to_string(), "closed by the peer with code 9: enough");
}

#[test]
fn tiny_rings_and_small_shares_lose_no_event() {
    let tiny = PortSetup { submissions: 2, completions: 2, share_bytes: 10 * 65_536, delivery_window_bytes: 1000 };
    let Pair { mut client, server, ours, client_end: _c, server_end: _s, .. } = pair_of(&many_streams(), tiny, tiny);
    let echoing = echo(server);
    exchange(&mut client, ours, 200, 3000);
    drop(client);
    assert_eq!(echoing.join().unwrap().reason, Reason::ClosedByPeer, "a port that is gone ends its connections");
}

#[test]
fn thousands_of_streams_through_few_slots_never_share_a_handle() {
    let few = PortSetup { share_bytes: 32 * 65_536, ..PortSetup::default() };
    let Pair { mut client, server, ours, client_end: _c, server_end: _s, .. } =
        pair_of(&Settings::default(), few, PortSetup::default());
    let echoing = echo(server);
    exchange(&mut client, ours, 4000, 20);
    say(&mut client, Submission::Stats { handle: ours, token: 7 });
    let stats = hear(&mut client, |message| match message {
        Completion::Stats { token: 7, stats, .. } => Some(stats),
        _ => None,
    });
    assert_eq!(stats.children, 0);
    assert!(stats.rtt_us > 0 && stats.datagrams_sent > 0 && stats.congestion_window_bytes > 0, "{stats:?}");
    drop(client);
    echoing.join().unwrap();
}

#[test]
fn a_slow_reader_holds_the_writer_back_and_gets_everything_in_the_end() {
    let mut settings = Settings::default();
    (settings.stream_window, settings.stream_window_max, settings.send_window) = (100_000, 100_000, 100_000);
    let slow = PortSetup { delivery_window_bytes: 20_000, ..PortSetup::default() };
    let Pair { mut client, mut server, ours, client_end: _c, server_end: _s, .. } =
        pair_of(&settings, PortSetup { share_bytes: 200_000, ..PortSetup::default() }, slow);
    client.submit(Submission::OpenUni { connection: ours, token: 3 }).unwrap();
    let stream = opened(&mut client, 3);
    let sent = pattern(3, 2_000_000);
    let (mut credit, mut data, mut written) = (WriteCredit::new(), Bytes::from(sent.clone()), 0);
    // Until nothing has moved for a while.
    let mut moved = Instant::now();
    while moved.elapsed() < Duration::from_millis(300) {
        let n = client.write(stream, &mut credit, &mut data, true);
        written += n;
        if n > 0 {
            moved = Instant::now();
        }
        if let Some(Completion::CreditGranted { limit, .. }) = client.poll() {
            credit.grant(limit);
        }
    }
    assert!(
        (100_000..720_000).contains(&written),
        "four flights of 100,000 in the send buffer, the peer's window, the share, and what was delivered: {written}"
    );
    let (mut got, mut theirs) = (Vec::new(), None);
    while let Some(message) = server.poll() {
        if let Completion::Data { data, stream, .. } = message {
            got.extend_from_slice(&data);
            theirs = Some(stream);
        }
    }
    assert_eq!(got.len(), 20_000, "as much as the application has room for");
    let theirs = theirs.unwrap();
    server.submit(Submission::Consumed { stream: theirs, bytes: 20_000 }).unwrap();
    let mut over = false;
    while !over {
        client.write(stream, &mut credit, &mut data, true);
        while let Some(message) = client.poll() {
            if let Completion::CreditGranted { limit, .. } = message {
                credit.grant(limit);
            }
        }
        while let Some(message) = server.poll() {
            match message {
                Completion::Data { data, .. } => {
                    got.extend_from_slice(&data);
                    server.submit(Submission::Consumed { stream: theirs, bytes: data.len() as u64 }).unwrap();
                }
                Completion::Closed { handle, .. } if handle == theirs => over = true,
                _ => {}
            }
        }
        server.wait(Some(Duration::from_millis(1)));
    }
    assert!(got == sent);
}

#[test]
fn resets_and_stops_arrive_with_their_codes() {
    let Pair { mut client, mut server, ours, client_end: _c, server_end: _s, .. } = pair();
    client.submit(Submission::OpenBi { connection: ours, token: 3 }).unwrap();
    let stream = opened(&mut client, 3);
    client.write(stream, &mut WriteCredit::new(), &mut Bytes::from_static(b"half a"), false);
    let theirs = hear(&mut server, |message| match message {
        Completion::Data { stream, data, fin: false, .. } if data == "half a" => Some(stream),
        _ => None,
    });
    let large = Submission::Reset { stream, code: 1 << 62 };
    client.submit(large).unwrap();
    let why = hear(&mut client, |message| match message {
        Completion::Rejected { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(why, Rejection::Argument, "codes have 62 bits");
    client.submit(Submission::Reset { stream, code: 5 }).unwrap();
    hear(&mut server, |message| (message == Completion::Reset { stream: theirs, code: 5 }).then_some(()));
    client.submit(Submission::Stop { stream, code: 6 }).unwrap();
    hear(&mut server, |message| (message == Completion::Stopped { stream: theirs, code: 6 }).then_some(()));
    for (port, stream) in [(&mut client, stream), (&mut server, theirs)] {
        assert_eq!(ended(port, stream).reason, Reason::GivenUp);
    }
    client.submit(Submission::Finish { stream }).unwrap();
    let why = hear(&mut client, |message| match message {
        Completion::Rejected { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(why, Rejection::Handle(HandleError::Late));
}

#[test]
fn a_stream_that_is_refused_is_given_up_at_both_ends() {
    let Pair { mut client, mut server, ours, client_end: _c, server_end: _s, .. } = pair();
    client.submit(Submission::OpenBi { connection: ours, token: 3 }).unwrap();
    let stream = opened(&mut client, 3);
    client.write(stream, &mut WriteCredit::new(), &mut Bytes::from_static(b"anybody?"), false);
    let theirs = hear(&mut server, |message| match message {
        Completion::Accepted { handle, .. } if handle.kind() == Kind::Stream => Some(handle),
        _ => None,
    });
    server.submit(Submission::Refuse { handle: theirs, code: 4 }).unwrap();
    let mut codes = Vec::new();
    while codes.len() < 2 {
        codes.push(hear(&mut client, |message| match message {
            Completion::Reset { code, .. } => Some(("reset", code)),
            Completion::Stopped { code, .. } => Some(("stopped", code)),
            _ => None,
        }));
    }
    codes.sort_unstable();
    assert_eq!(codes, [("reset", 4), ("stopped", 4)]);
    assert_eq!(ended(&mut server, theirs).reason, Reason::GivenUp);
    assert_eq!(ended(&mut client, stream).reason, Reason::GivenUp);
}

#[test]
fn what_came_before_the_end_of_a_connection_can_still_be_read() {
    let slow = PortSetup { delivery_window_bytes: 1000, ..PortSetup::default() };
    let Pair { mut client, mut server, ours, theirs, client_end: _c, server_end: _s } =
        pair_of(&Settings::default(), PortSetup::default(), slow);
    client.submit(Submission::OpenUni { connection: ours, token: 3 }).unwrap();
    let stream = opened(&mut client, 3);
    let sent = pattern(1, 50_000);
    assert_eq!(client.write(stream, &mut WriteCredit::new(), &mut Bytes::from(sent.clone()), true), 50_000);
    assert_eq!(ended(&mut client, stream).reason, Reason::Done, "the peer's transport has everything");
    client.submit(Submission::Close { handle: ours, code: 3, reason: Bytes::new() }).unwrap();
    let (mut got, mut fin, mut from) = (Vec::new(), false, None);
    hear(&mut server, |message| match message {
        Completion::Data { data, stream, .. } => {
            got.extend_from_slice(&data);
            from = Some(stream);
            None
        }
        message => Ended::of(&message).filter(|_| message.handle() == Some(theirs)),
    });
    // The connection is over, and most of its bytes are still to be read.
    assert!(got.len() <= 1000);
    let (from, mut consumed, mut last) = (from.unwrap(), 0, None);
    while last.is_none() {
        server.submit(Submission::Consumed { stream: from, bytes: (got.len() - consumed) as u64 }).unwrap();
        consumed = got.len();
        last = hear(&mut server, |message| match message {
            Completion::Data { data, fin: end, .. } => {
                got.extend_from_slice(&data);
                fin = end;
                Some(None)
            }
            message => Ended::of(&message).map(Some),
        });
    }
    assert_eq!(last.unwrap().reason, Reason::ClosedByPeer);
    assert!(fin && got == sent);
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_the_idle_timeout() {
    let identity = Identity::new();
    let mut settings = Settings::default();
    settings.idle_timeout = Duration::from_millis(400);
    let server_end = Endpoint::start(Options::server(loopback(), identity.server().settings(settings))).unwrap();
    let mut server = serve(&server_end, PortSetup::default());
    let mut client = InlineEndpoint::new(Options::client(identity.client()), PortSetup::default()).unwrap();
    client.port().submit(Submission::Connect { token: 2, to: remote(server_end.local_addr()) }).unwrap();
    let mut stream = None;
    let until = Instant::now() + PATIENCE;
    let mut theirs = None;
    // The client says something on a stream; then nobody takes its turns any more.
    while theirs.is_none() && Instant::now() < until {
        client.turn().unwrap();
        while let Some(message) = client.port().poll() {
            match message {
                Completion::Established { connection } => {
                    client.port().submit(Submission::OpenBi { connection, token: 3 }).unwrap();
                }
                Completion::Opened { token: 3, handle, .. } => {
                    stream = Some(handle);
                    let mut data = Bytes::from_static(b"here");
                    client.port().write(handle, &mut WriteCredit::new(), &mut data, false);
                }
                _ => {}
            }
        }
        while let Some(message) = server.poll() {
            match message {
                Completion::Accepted { handle, .. } => server.submit(Submission::Accept { handle }).unwrap(),
                Completion::Data { stream, .. } => theirs = Some(stream),
                _ => {}
            }
        }
    }
    assert!(stream.is_some());
    assert_eq!(ended(&mut server, theirs.unwrap()).reason, Reason::Idle);
}

#[test]
fn a_port_dropped_in_mid_transfer_ends_its_connections_and_no_others() {
    let Pair { mut client, mut server, ours, theirs, client_end, server_end } = pair();
    let mut other = client_end.attach(PortSetup::default());
    let (second, second_theirs) = join(&mut other, &mut server, server_end.local_addr());
    other.submit(Submission::OpenBi { connection: ours, token: 1 }).unwrap();
    let why = hear(&mut other, |message| match message {
        Completion::Rejected { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(why, Rejection::Handle(HandleError::Foreign), "a connection is the port's that made it");

    client.submit(Submission::OpenUni { connection: ours, token: 3 }).unwrap();
    let stream = opened(&mut client, 3);
    client.write(stream, &mut WriteCredit::new(), &mut Bytes::from(pattern(1, 60_000)), false);
    let partial = hear(&mut server, |message| match message {
        Completion::Data { stream, .. } => Some(stream),
        _ => None,
    });
    drop(client);
    let (mut heard, mut closed) = (HashSet::new(), None);
    hear(&mut server, |message| {
        closed = Ended::of(&message).or(closed.take());
        heard.extend(Ended::of(&message).and(message.handle()));
        (heard.len() == 2).then_some(())
    });
    assert_eq!((heard, closed.unwrap().reason), (HashSet::from([theirs, partial]), Reason::ClosedByPeer));

    other.submit(Submission::OpenUni { connection: second, token: 4 }).unwrap();
    let stream = opened(&mut other, 4);
    other.write(stream, &mut WriteCredit::new(), &mut Bytes::from_static(b"still here"), true);
    hear(&mut server, |message| matches!(message, Completion::Data { data, .. } if data == "still here").then_some(()));
    drop(client_end);
    assert_eq!(hear_end(&mut other), Waited::Closed);
    assert_eq!(ended(&mut server, second_theirs).reason, Reason::ClosedByPeer);
}

/// Reads everything until the worker is gone.
fn hear_end(port: &mut ThreadPort) -> Waited {
    loop {
        while port.poll().is_some() {}
        match port.wait(Some(PATIENCE)) {
            Waited::Ready => {}
            waited => return waited,
        }
    }
}

#[test]
fn listeners_of_two_ports_take_turns() {
    let (server_end, client_end) = ends(&Settings::default());
    let mut servers = [serve(&server_end, PortSetup::default()), serve(&server_end, PortSetup::default())];
    let mut client = client_end.attach(PortSetup::default());
    for server in &mut servers {
        join(&mut client, server, server_end.local_addr());
    }
    let [first, mut second] = servers;
    drop(first);
    for _ in 0..2 {
        join(&mut client, &mut second, server_end.local_addr());
    }
}

#[test]
fn datagrams_go_both_ways_and_impossible_ones_are_told() {
    let Pair { mut client, mut server, ours, theirs, client_end: _c, server_end: _s } = pair();
    client.submit(Submission::Datagram { connection: ours, data: Bytes::from_static(b"ping"), tag: None }).unwrap();
    hear(&mut server, |message| matches!(message, Completion::Datagram { data, .. } if data == "ping").then_some(()));
    server.submit(Submission::Datagram { connection: theirs, data: Bytes::from_static(b"pong"), tag: None }).unwrap();
    hear(&mut client, |message| matches!(message, Completion::Datagram { data, .. } if data == "pong").then_some(()));
    client.submit(Submission::Datagram { connection: ours, data: Bytes::from(vec![0; 5000]), tag: None }).unwrap();
    hear(&mut client, |message| matches!(message, Completion::Rejected { why: Rejection::Argument, .. }).then_some(()));
}

#[test]
fn what_cannot_be_opened_is_told_with_a_sentence() {
    let identity = Identity::new();
    let mut settings = Settings::default();
    settings.handshake_timeout = Duration::from_millis(300);
    let client_end = Endpoint::start(Options::client(identity.client().settings(settings))).unwrap();
    let mut client = client_end.attach(PortSetup::default());
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let to = nobody.local_addr().unwrap();
    let failed = |port: &mut ThreadPort| hear(port, |message| Ended::of(&message));
    client.submit(Submission::Listen { token: 1, at: remote(loopback()) }).unwrap();
    assert_eq!(failed(&mut client).reason, Reason::NoListener);
    client.submit(Submission::Connect { token: 1, to: Box::new(Remote { profile: 9, ..*remote(to) }) }).unwrap();
    assert_eq!(failed(&mut client).to_string(), "no such profile was registered with the worker");
    client
        .submit(Submission::Connect { token: 1, to: Box::new(Remote { server_name: "?".into(), ..*remote(to) }) })
        .unwrap();
    assert_eq!(failed(&mut client).reason, Reason::Tls);
    client.submit(Submission::Connect { token: 5, to: remote(to) }).unwrap();
    let connection = opened(&mut client, 5);
    // Before the handshake a stream waits; it is answered with the end of its connection.
    client.submit(Submission::OpenBi { connection, token: 6 }).unwrap();
    assert_eq!(ended(&mut client, connection).reason, Reason::HandshakeTimeout);
}

#[test]
fn a_connection_that_nobody_wants_is_refused() {
    let (server_end, client_end) = ends(&Settings::default());
    let (mut server, mut client) = (serve(&server_end, PortSetup::default()), client_end.attach(PortSetup::default()));
    client.submit(Submission::Connect { token: 2, to: remote(server_end.local_addr()) }).unwrap();
    let ours = opened(&mut client, 2);
    let theirs = hear(&mut server, |message| match message {
        Completion::Accepted { handle, .. } => Some(handle),
        _ => None,
    });
    server.submit(Submission::Refuse { handle: theirs, code: 0 }).unwrap();
    assert_eq!(ended(&mut server, theirs).reason, Reason::ClosedHere);
    assert_eq!(ended(&mut client, ours).reason, Reason::PeerTransport);
    drop(server);
    client.submit(Submission::Connect { token: 3, to: remote(server_end.local_addr()) }).unwrap();
    let ours = opened(&mut client, 3);
    assert_eq!(ended(&mut client, ours).reason, Reason::PeerTransport, "nobody listens any more");
}

#[test]
fn an_inline_endpoint_does_not_wait_while_something_is_to_be_polled() {
    let identity = Identity::new();
    let mut client = InlineEndpoint::new(Options::client(identity.client()), PortSetup::default()).unwrap();
    client
        .port()
        .submit(Submission::Connect { token: 2, to: Box::new(Remote { profile: 9, ..*remote(loopback()) }) })
        .unwrap();
    let began = Instant::now();
    client.wait(Some(PATIENCE)).unwrap();
    assert!(began.elapsed() < PATIENCE / 2);
    assert!(matches!(client.port().poll(), Some(Completion::Failed { token: 2, .. })));
}
