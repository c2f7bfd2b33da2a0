//! Handshake, transfer, close.

use core::time::Duration;

use super::pair::{Pair, Watcher, Way, config};
use crate::config::Settings;
use crate::engine::{Engine, Event};
use crate::error::CloseReason;
use crate::ids::Dir;
use crate::protect::null::{NullTlsClient, NullTlsServer};
use crate::stream::StreamEvent;

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn a_handshake_a_transfer_and_a_close() {
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    let sent = data(300_000);
    assert!(pair.transfer(client, server, &sent) == sent);
    pair.client.close(pair.now, client, 7, b"bye").unwrap();
    pair.run_for(Duration::from_secs(60));
    let expected = CloseReason::PeerApplication { code: 7, reason: b"bye".to_vec() };
    assert!(pair.take(Way::Down).iter().any(|(_, e)| *e == Event::Closed(expected.clone())));
    pair.assert_legal();
    for engine in [&pair.client, &pair.server] {
        assert_eq!((engine.connections(), engine.route_count()), (0, 0));
        assert_eq!(engine.pool_stats().in_use, 0);
    }
}

#[test]
fn a_writer_that_was_refused_memory_is_told_when_another_connection_gives_some_back() {
    let settings = Settings::default();
    let mut pair = Pair::with(NullTlsServer::default(), &settings, |_| {});
    let mut small = config(1, &Watcher::default());
    small.memory_max = 256 << 10;
    pair.client = Engine::new(small);
    let first = pair.connect(&settings);
    let second = pair.connect(&settings);
    let both = pair
        .run_until(Duration::from_secs(5), |p| p.events[0].iter().filter(|(_, e)| *e == Event::Confirmed).count() == 2);
    assert!(both);
    let accepted = pair.events[1].iter().filter(|(_, e)| *e == Event::Accepted);
    let servers: Vec<_> = accepted.map(|(key, _)| *key).collect();
    let hog = pair.client.open_stream(first, Dir::Uni).unwrap().unwrap();
    let starved = pair.client.open_stream(second, Dir::Uni).unwrap().unwrap();
    let block = vec![7; 64 << 10];
    while pair.client.write(first, hog, &block).unwrap() > 0 {}
    let mut late = 0;
    while let Ok(n @ 1..) = pair.client.write(second, starved, &block) {
        late += n;
    }
    assert!((4 << 10..64 << 10).contains(&late), "somebody who comes later gets {late} bytes of what is left");
    assert!(pair.client.pool_stats().over_share > 0);
    pair.events = [Vec::new(), Vec::new()];
    let mut sink = Vec::new();
    let told = pair.run_until(Duration::from_secs(5), |p| {
        for server in &servers {
            p.read_all(*server, hog, &mut sink);
        }
        p.events[0].contains(&(second, Event::Stream(StreamEvent::Writable(starved))))
    });
    assert!(told, "{:?}", pair.events[0]);
    assert!(pair.client.write(second, starved, &block).unwrap() > 0);
}

#[test]
fn what_was_acknowledged_beside_a_close_is_told_before_the_close() {
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    pair.client.write(client, id, b"the last words").unwrap();
    pair.client.finish(client, id).unwrap();
    pair.events = [Vec::new(), Vec::new()];
    let mut got = Vec::new();
    // The server closes in the same round in which it reads the end: its ACK leaves beside the close.
    let closed = pair.run_until(Duration::from_secs(5), |p| {
        if p.read_all(server, id, &mut got) {
            p.server.close(p.now, server, 0, b"thanks").unwrap();
            return true;
        }
        false
    });
    assert!(closed && got == b"the last words");
    pair.run_for(Duration::from_secs(1));
    let told: Vec<_> = pair.take(Way::Up).into_iter().map(|(_, e)| e).collect();
    let acked = told.iter().position(|e| *e == Event::Stream(StreamEvent::AllAcked(id)));
    let end = told.iter().position(|e| matches!(e, Event::Closed(_)));
    assert!(acked.is_some() && acked < end, "{told:?}");
}

#[test]
fn the_application_is_asked_once_however_many_datagrams_a_client_hello_has() {
    let settings = Settings::default();
    let mut pair = Pair::with(NullTlsServer::default(), &settings, |s| s.ask = true);
    let hello = NullTlsClient { hello_len: 3000, ..NullTlsClient::default() };
    pair.connect_with(&hello, &settings);
    let mut asked = Vec::new();
    let done = pair.run_until(Duration::from_secs(5), |p| {
        while let Some((key, incoming)) = p.server.poll_incoming() {
            asked.push(incoming.validated);
            if incoming.validated {
                p.server.accept(p.now, key, None).unwrap();
            } else {
                p.server.retry(key).unwrap();
            }
        }
        p.events[0].iter().any(|(_, e)| *e == Event::Confirmed)
    });
    assert!(done, "asked {asked:?}, client {:?}", pair.events[0]);
    assert_eq!(asked, [false, true]);
    assert_eq!(pair.server.handshakes(), 0);
}

#[test]
fn a_connection_that_nobody_decides_over_is_given_up() {
    let settings = Settings::default();
    let mut pair = Pair::with(NullTlsServer::default(), &settings, |s| s.ask = true);
    let patient = Settings { handshake_timeout: Duration::from_secs(60), ..settings };
    pair.connect(&patient);
    pair.run_for(Duration::from_secs(9));
    assert_eq!((pair.server.connections(), pair.server.handshakes()), (1, 1));
    let (key, _) = pair.server.poll_incoming().unwrap();
    pair.filter = Box::new(|_, _, _| false);
    pair.run_for(Duration::from_secs(2));
    assert_eq!((pair.server.connections(), pair.server.handshakes(), pair.server.route_count()), (0, 0, 0));
    assert!(pair.server.accept(pair.now, key, None).is_err(), "the decision comes too late");
}
