//! Session ports: resets that still deliver the beginning of a stream, fates of datagrams, room for them.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::HashSet;
use std::time::Instant;

use common::port::{hear, remote};
use common::{Identity, PATIENCE, loopback};
use courser::Settings;
use courser::session::{
    Bytes, Completion, Ended, Endpoint, Handle, Options, PortSetup, Reason, Rejection, Submission, ThreadPort, Waited,
    WriteCredit,
};
use courser_sim::LinkConfig;
use courser_sim::relay::Relay;

fn opened(port: &mut ThreadPort, wanted: u64) -> Handle {
    hear(port, |message| match message {
        Completion::Opened { token, handle, .. } if token == wanted => Some(handle),
        _ => None,
    })
}

fn rejected(port: &mut ThreadPort) -> Rejection {
    hear(port, |message| match message {
        Completion::Rejected { why, .. } => Some(why),
        _ => None,
    })
}

struct Pair {
    client: ThreadPort,
    server: ThreadPort,
    /// The connection, as the client calls it.
    ours: Handle,
    _ends: [Endpoint; 2],
    _relay: Option<Relay>,
}

fn pair(settings: &Settings) -> Pair {
    pair_over(settings, None)
}

/// Over such a link, or the loopback interface itself.
fn pair_over(settings: &Settings, link: Option<LinkConfig>) -> Pair {
    let identity = Identity::new();
    let server_end =
        Endpoint::start(Options::server(loopback(), identity.server().settings(settings.clone()))).unwrap();
    let client_end = Endpoint::start(Options::client(identity.client().settings(settings.clone()))).unwrap();
    let (mut server, mut client) = (server_end.attach(PortSetup::default()), client_end.attach(PortSetup::default()));
    server.submit(Submission::Listen { token: 1, at: remote(server_end.local_addr()) }).unwrap();
    opened(&mut server, 1);
    let relay = link.map(|link| Relay::start(loopback(), server_end.local_addr(), link.clone(), link, 1).unwrap());
    let at = relay.as_ref().map_or(server_end.local_addr(), Relay::addr);
    client.submit(Submission::Connect { token: 2, to: remote(at) }).unwrap();
    let ours = opened(&mut client, 2);
    let theirs = hear(&mut server, |message| match message {
        Completion::Accepted { handle, .. } => Some(handle),
        _ => None,
    });
    server.submit(Submission::Accept { handle: theirs }).unwrap();
    for (port, connection) in [(&mut client, ours), (&mut server, theirs)] {
        hear(port, |message| (message == Completion::Established { connection }).then_some(()));
    }
    Pair { client, server, ours, _ends: [server_end, client_end], _relay: relay }
}

#[test]
fn a_partial_reset_delivers_what_it_promises() {
    let Pair { mut client, mut server, ours, _ends, _relay } = pair(&Settings::default());
    client.submit(Submission::OpenUni { connection: ours, token: 3 }).unwrap();
    let stream = opened(&mut client, 3);
    let mut data = Bytes::from(vec![7; 30_000]);
    assert_eq!(client.write(stream, &mut WriteCredit::new(), &mut data, false), 30_000);
    let reset = |code, reliable_size| Submission::ResetAt { stream, code, reliable_size };
    client.submit(reset(5, 30_001)).unwrap();
    assert_eq!(rejected(&mut client), Rejection::Argument, "more than was written");
    client.submit(reset(1 << 62, 1)).unwrap();
    assert_eq!(rejected(&mut client), Rejection::Argument, "codes have 62 bits");
    client.submit(reset(5, 25_000)).unwrap();
    client.submit(reset(6, 20_000)).unwrap();
    let mut read = 0;
    hear(&mut server, |message| match message {
        Completion::Data { data, fin, .. } => {
            assert!(!fin && data.iter().all(|b| *b == 7));
            read += data.len();
            None
        }
        Completion::Reset { code, .. } => (code == 5).then_some(()),
        _ => None,
    });
    assert!((20_000..=30_000).contains(&read), "{read}");
    let ended = hear(&mut client, |message| Ended::of(&message).filter(|_| message.handle() == Some(stream)));
    assert_eq!(ended.reason, Reason::GivenUp);
}

#[test]
fn a_peer_that_takes_no_partial_resets_gets_none() {
    let mut settings = Settings::default();
    settings.reset_stream_at = false;
    let Pair { mut client, server: _server, ours, _ends, _relay } = pair(&settings);
    client.submit(Submission::OpenUni { connection: ours, token: 3 }).unwrap();
    let stream = opened(&mut client, 3);
    client.write(stream, &mut WriteCredit::new(), &mut Bytes::from_static(b"abc"), false);
    client.submit(Submission::ResetAt { stream, code: 5, reliable_size: 3 }).unwrap();
    assert_eq!(rejected(&mut client), Rejection::Argument);
    client.submit(Submission::ResetAt { stream, code: 5, reliable_size: 0 }).unwrap();
    let ended = hear(&mut client, |message| Ended::of(&message).filter(|_| message.handle() == Some(stream)));
    assert_eq!(ended.reason, Reason::GivenUp);
}

#[test]
fn datagrams_have_fates_and_a_full_queue_tells_when_there_is_room() {
    let slow = LinkConfig::new().rate(5_000_000).queue_bytes(50_000).delay_us(1_000);
    let Pair { mut client, server: _server, ours, _ends, _relay } = pair_over(&Settings::default(), Some(slow));
    let (mut sent, mut told, mut refused, mut room) = (0_u64, HashSet::new(), 0, 0);
    let until = Instant::now() + PATIENCE;
    while sent < 1200 || told.len() + refused < 1200 || room == 0 {
        let datagram =
            |tag| Submission::Datagram { connection: ours, data: Bytes::from(vec![1; 1000]), tag: Some(tag) };
        if sent < 1200 && client.submit(datagram(sent)).is_ok() {
            sent += 1;
        } else {
            let left = Some(until - Instant::now());
            let waited = if sent < 1200 { client.wait_for_room(left) } else { client.wait(left) };
            assert_eq!(waited, Waited::Ready, "{} told, {refused} refused, {room}", told.len());
        }
        while let Some(message) = client.poll() {
            match message {
                Completion::DatagramFate { tag, .. } => assert!(told.insert(tag), "{tag} is told once"),
                Completion::DatagramRoom { connection } => {
                    assert_eq!(connection, ours);
                    room += 1;
                }
                Completion::Rejected { why, .. } => {
                    assert_eq!(why, Rejection::Overrun);
                    refused += 1;
                }
                _ => {}
            }
        }
    }
    assert!(refused > 0 && told.len() > 240, "{} told, {refused} refused", told.len());
    client
        .submit(Submission::Datagram { connection: ours, data: Bytes::from_static(b"fits"), tag: Some(9999) })
        .unwrap();
    let fate = hear(&mut client, |message| match message {
        Completion::DatagramFate { tag: 9999, arrived, .. } => Some(arrived),
        _ => None,
    });
    assert!(fate, "an empty queue loses nothing");
}
