//! What is readable after a connection timed out, and small writes that leave together, through both faces.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io::Write;
use std::thread;
use std::time::Duration;

use common::{Pair, pair, pattern};
use courser::{CloseReason, ConnectionError, ReadError, Settings};

/// More than waits between worker and reader: the engine holds the rest back.
const LEN: usize = 1 << 20;

fn hasty() -> Settings {
    let mut settings = Settings::default();
    settings.idle_timeout = Duration::from_millis(400);
    settings.stream_window = 2 << 20;
    settings
}

const TIMED_OUT: ReadError = ReadError::Closed(ConnectionError::Closed(CloseReason::IdleTimeout));

#[test]
fn what_came_before_an_idle_timeout_stays_readable() {
    let Pair { client, server, client_end: _c, server_end: _s } = pair(hasty());
    let sent = pattern(3, LEN);
    let mut send = client.open_uni().unwrap();
    send.write_all(&sent).unwrap();
    let mut receive = server.accept_uni().unwrap();
    assert_eq!(server.closed(), ConnectionError::Closed(CloseReason::IdleTimeout));
    let mut all = Vec::new();
    let end = loop {
        match receive.read_chunk() {
            Ok(Some(chunk)) => all.extend_from_slice(&chunk),
            other => break other,
        }
    };
    assert_eq!(all.len(), LEN, "everything had arrived");
    assert!(all == sent);
    assert_eq!(end, Err(TIMED_OUT));
}

/// Settings under which a connection sends nothing by itself.
fn quiet() -> Settings {
    let mut settings = Settings::default();
    settings.mtu_discovery = false;
    settings
}

fn sent_packets(connection: &courser::Connection) -> u64 {
    connection.stats().sent.packets
}

/// Packets sent, once the handshake has settled.
fn settled(connection: &courser::Connection) -> u64 {
    let mut before = sent_packets(connection);
    loop {
        thread::sleep(Duration::from_millis(60));
        let now = sent_packets(connection);
        if now == before {
            return now;
        }
        before = now;
    }
}

/// A busy machine makes either end probe, and packets are more then: of these attempts one has to be undisturbed.
const ATTEMPTS: usize = 40;

#[test]
fn writes_to_a_corked_stream_leave_as_one_packet_when_it_is_flushed() {
    let counts = (0..ATTEMPTS).map(|_| corked_writes()).find(|counts| *counts == [0, 1, 1, 2]);
    assert!(counts.is_some(), "never as it should be");
}

/// Packets since the handshake: while corked, after the flush, while corked again, after the end.
fn corked_writes() -> [u64; 4] {
    let Pair { client, server, client_end: _c, server_end: _s } = pair(quiet());
    let before = settled(&client);
    let mut send = client.open_uni().unwrap();
    send.set_corked(true);
    for n in 0..100u8 {
        send.write_all(&[n; 10]).unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    let corked = sent_packets(&client);
    send.flush().unwrap();
    let mut receive = server.accept_uni().unwrap();
    let mut got = 0;
    while got < 1000 {
        got += receive.read_chunk().unwrap().unwrap().len();
    }
    let flushed = settled(&client);
    // What follows gathers again, and the end takes it along.
    send.write_all(b"more").unwrap();
    thread::sleep(Duration::from_millis(50));
    let again = sent_packets(&client);
    send.finish().unwrap();
    assert_eq!(receive.read_chunk().unwrap().unwrap(), "more");
    assert_eq!(receive.read_chunk(), Ok(None));
    [corked, flushed, again, settled(&client)].map(|n| n - before)
}

#[test]
fn a_corked_stream_does_not_wait_when_more_than_a_packet_is_there_or_it_is_let_go() {
    let Pair { client, server, client_end: _c, server_end: _s } = pair(quiet());
    let mut send = client.open_uni().unwrap();
    send.set_corked(true);
    send.write_all(&[1; 20_000]).unwrap();
    let mut receive = server.accept_uni().unwrap();
    let mut got = 0;
    while got < 20_000 {
        got += receive.read_chunk().unwrap().unwrap().len();
    }
    send.write_all(b"x").unwrap();
    send.set_corked(false);
    assert_eq!(receive.read_chunk().unwrap().unwrap(), "x");
}

#[cfg(feature = "tokio")]
mod tasks {
    use courser::aio::{Connection, Endpoint};
    use tokio::io::AsyncWriteExt;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::common::{Identity, PATIENCE, loopback};

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, test).await.unwrap() });
    }

    async fn pair(settings: Settings) -> (Connection, Connection, [Endpoint; 2]) {
        let identity = Identity::new();
        let server = Endpoint::server(loopback(), identity.server().settings(settings.clone())).unwrap();
        let client = Endpoint::client(identity.client().settings(settings)).unwrap();
        let connecting = client.connect_to(server.local_addr(), "localhost").unwrap();
        let (connection, served) = tokio::join!(connecting, server.accept_connection());
        (connection.unwrap(), served.unwrap(), [client, server])
    }

    #[test]
    fn what_came_before_an_idle_timeout_stays_readable_in_tasks_too() {
        run(async {
            let (client, server, _ends) = pair(hasty()).await;
            let sent = pattern(4, LEN);
            let mut send = client.open_uni().await.unwrap();
            send.write_all(&sent).await.unwrap();
            let mut receive = server.accept_uni().await.unwrap();
            assert_eq!(server.closed().await, ConnectionError::Closed(CloseReason::IdleTimeout));
            let mut all = Vec::new();
            let end = loop {
                match receive.read_chunk().await {
                    Ok(Some(chunk)) => all.extend_from_slice(&chunk),
                    other => break other,
                }
            };
            assert_eq!(all.len(), LEN, "everything had arrived");
            assert!(all == sent);
            assert_eq!(end, Err(TIMED_OUT));
        });
    }

    #[test]
    fn writes_to_a_corked_stream_leave_as_one_packet_in_tasks_too() {
        let mut counts = (0..ATTEMPTS).map(|_| corked_writes());
        assert!(counts.any(|counts| counts == [0, 1]), "never as it should be");
    }

    /// Packets since the handshake: while corked, after the flush.
    fn corked_writes() -> [u64; 2] {
        let mut counts = [0; 2];
        run(async {
            let (client, server, _ends) = pair(quiet()).await;
            sleep(Duration::from_millis(150)).await;
            let before = client.stats().await.sent.packets;
            let mut send = client.open_uni().await.unwrap();
            send.set_corked(true);
            for n in 0..100u8 {
                send.write_all(&[n; 10]).await.unwrap();
                tokio::task::yield_now().await;
            }
            sleep(Duration::from_millis(50)).await;
            counts[0] = client.stats().await.sent.packets - before;
            send.flush().await.unwrap();
            let mut receive = server.accept_uni().await.unwrap();
            let mut got = 0;
            while got < 1000 {
                got += receive.read_chunk().await.unwrap().unwrap().len();
            }
            sleep(Duration::from_millis(100)).await;
            counts[1] = client.stats().await.sent.packets - before;
        });
        counts
    }
}
