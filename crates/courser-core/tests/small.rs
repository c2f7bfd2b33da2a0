//! Messages of 160 bytes, relayed: how many share a datagram, and how many a system call.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::time::Duration;

use bytes::Bytes;
use courser_core::config::Settings;
use courser_core::engine::{Meta, SendOutcome, Train};
use courser_core::ids::{ConnKey, Dir};
use courser_testing::duo::{CLIENT, Duo};

const MESSAGE: [u8; 160] = [7; 160];
const MESSAGES: usize = 1_000;

fn settings() -> Settings {
    let mut settings = Settings::default();
    (settings.pacing, settings.mtu_discovery) = (false, false);
    settings.initial_udp_payload = 1472;
    settings.max_streams_uni = 2 * MESSAGES as u64;
    settings
}

/// A client that has moved enough for its window to hold all messages; `n` connections.
fn ready(n: usize) -> (Duo, Vec<ConnKey>) {
    let mut duo = Duo::null(&settings());
    let mut keys = Vec::new();
    for _ in 0..n {
        let (client, server) = duo.connect(&settings());
        keys.push(client);
        let id = duo.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        for _ in 0..6 {
            duo.client.write(client, id, &[1; 60_000]).unwrap();
            (0..4).for_each(|_| duo.round());
            while duo.server.consume(server, id, 60_000).is_ok_and(|r| r != courser_core::stream::Read::Bytes(0)) {
                if duo.server.peek(server, id).is_ok_and(<[u8]>::is_empty) {
                    break;
                }
            }
        }
        (0..20).for_each(|_| duo.round());
    }
    duo.now += Duration::from_millis(100);
    (0..4).for_each(|_| duo.round());
    (duo, keys)
}

/// System calls and datagrams of the client's next turns.
fn send(duo: &mut Duo) -> (usize, usize) {
    let (mut train, mut calls, mut datagrams) = (Train::new(), 0, 0);
    duo.client.process(duo.now);
    while let Some(meta) = duo.client.fill(duo.now, &mut train) {
        duo.client.sent(duo.now, &meta, SendOutcome::Sent);
        (calls, datagrams) = (calls + 1, datagrams + meta.len.div_ceil(meta.segment));
        let arrived = Meta { local: None, remote: CLIENT, ecn: meta.ecn, stride: meta.segment };
        duo.server.receive(duo.now, &arrived, &mut train.bytes().to_vec());
    }
    (calls, datagrams)
}

#[test]
fn messages_on_streams_of_one_connection_fill_datagrams_and_trains() {
    let (mut duo, keys) = ready(1);
    for _ in 0..MESSAGES {
        let id = duo.client.open_stream(keys[0], Dir::Uni).unwrap().unwrap();
        assert_eq!(duo.client.write(keys[0], id, &MESSAGE), Ok(160));
        duo.client.finish(keys[0], id).unwrap();
    }
    let (calls, datagrams) = send(&mut duo);
    assert!(datagrams <= MESSAGES / 8 + 1, "{datagrams} datagrams for {MESSAGES} messages");
    // A train ends where a datagram is a byte shorter than the first one, which depends on the lengths of numbers.
    assert!(calls <= 7, "{calls} system calls for {MESSAGES} messages");
}

#[test]
fn messages_as_datagram_frames_fill_datagrams_and_trains() {
    let (mut duo, keys) = ready(1);
    let mut accepted = 0;
    while accepted < MESSAGES
        && duo.client.send_datagram(keys[0], Bytes::from_static(&MESSAGE), None).is_ok_and(|taken| taken)
    {
        accepted += 1;
    }
    let (calls, datagrams) = send(&mut duo);
    assert!(accepted >= 64, "{accepted} messages were taken");
    assert!(datagrams <= accepted / 8 + 1, "{datagrams} datagrams for {accepted} messages");
    assert!(calls <= datagrams.div_ceil(32), "{calls} system calls for {datagrams} datagrams");
}

#[test]
fn messages_to_many_peers_share_a_call_with_all_others_to_the_same_peer() {
    // Ten messages to each of a hundred peers, in the order in which a relay gets them: a call for each peer, not for each
    // message. Other peers need other calls; what they would save together is in docs/decisions/D72.
    let (mut duo, keys) = ready(100);
    for _ in 0..10 {
        for key in &keys {
            let id = duo.client.open_stream(*key, Dir::Uni).unwrap().unwrap();
            assert_eq!(duo.client.write(*key, id, &MESSAGE), Ok(160));
            duo.client.finish(*key, id).unwrap();
        }
    }
    let (calls, datagrams) = send(&mut duo);
    assert_eq!((calls, datagrams), (100, 200), "1,000 messages: ten a system call, five a datagram");
}
