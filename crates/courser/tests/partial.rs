//! Resets that still deliver the beginning of a stream, and fates of datagrams, on the blocking face and the Tokio face.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::thread;

use common::{PATIENCE, Pair, endpoints, loopback, pair, pattern};
use courser::{ConnectionError, DatagramError, DatagramFate, ReadError, Settings, WriteError};
use courser_sim::LinkConfig;
use courser_sim::relay::Relay;

/// Reads until something else than bytes comes.
fn read_to_reset(receive: &mut courser::RecvStream) -> (Vec<u8>, ReadError) {
    receive.set_timeout(Some(PATIENCE));
    let mut all = Vec::new();
    loop {
        match receive.read_chunk() {
            Ok(chunk) => all.extend_from_slice(&chunk.expect("the stream does not finish")),
            Err(e) => return (all, e),
        }
    }
}

#[test]
fn what_was_promised_is_read_before_the_reset() {
    let Pair { client, server, client_end: _c, server_end: _s } = pair(Settings::default());
    let sent = pattern(1, 2 << 20);
    let reading = thread::spawn(move || {
        let mut receive = server.accept_uni().unwrap();
        (read_to_reset(&mut receive), server)
    });
    let mut send = client.open_uni().unwrap();
    send.set_timeout(Some(PATIENCE));
    assert_eq!(send.reset_at(7, 1), Err(WriteError::NotWritten(0)));
    send.write_all(&sent).unwrap();
    assert_eq!(send.reset_at(7, (2 << 20) + 1), Err(WriteError::NotWritten(2 << 20)));
    send.reset_at(7, 2 << 20).unwrap();
    assert_eq!(send.finish(), Err(WriteError::Finished));
    assert!(send.write_all(b"more").is_err());
    send.wait_acked().unwrap();
    let ((all, end), server) = reading.join().unwrap();
    assert!(all == sent, "{} of {} bytes", all.len(), sent.len());
    assert_eq!(end, ReadError::Reset(7));
    drop(server);
}

#[test]
fn a_promise_is_kept_when_the_handles_are_dropped_and_can_be_lowered_before() {
    let mut settings = Settings::default();
    // Until all is said nobody reads: the server's worker takes 512 KiB at most, and so much may follow. What is not promised
    // in the end cannot have left by then. The client's engine takes 48 KiB beyond that at least, and its worker half of 512:
    // all of what is written finds room.
    (settings.stream_window, settings.stream_window_max) = (20_000, 20_000);
    let Pair { client, server, client_end: _c, server_end: _s } = pair(settings);
    let sent = pattern(2, 800_000);
    let mut send = client.open_uni().unwrap();
    send.set_timeout(Some(PATIENCE));
    send.write_all(&sent).unwrap();
    send.reset_at(7, 700_000).unwrap();
    send.reset_at(8, 750_000).unwrap();
    send.reset_at(9, 600_000).unwrap();
    drop((send, client));
    let (all, end) = read_to_reset(&mut server.accept_uni().unwrap());
    assert_eq!(end, ReadError::Reset(7), "the first code stays");
    assert_eq!(all.len(), 600_000, "the smallest promise counts");
    assert!(all[..] == sent[..600_000]);
    assert_eq!(server.closed().application(), Some((0, &b""[..])), "and the connection closes behind it");
}

#[test]
fn a_reset_takes_a_promise_back_and_a_peer_may_not_take_promises() {
    let Pair { client, server, client_end: _c, server_end: _s } = pair(Settings::default());
    let mut send = client.open_uni().unwrap();
    send.set_corked(true);
    send.write_all(&[1; 1000]).unwrap();
    send.reset_at(7, 1000).unwrap();
    send.reset(8);
    assert_eq!(send.wait_acked(), Err(WriteError::Finished));
    assert_eq!(read_to_reset(&mut server.accept_uni().unwrap()).1, ReadError::Reset(7));
    let mut old = Settings::default();
    old.reset_stream_at = false;
    let Pair { client, server, client_end: _c, server_end: _s } = pair(old);
    let mut send = client.open_uni().unwrap();
    send.write_all(&[1; 1000]).unwrap();
    assert_eq!(send.reset_at(7, 1000), Err(WriteError::Unsupported));
    send.finish().unwrap();
    let mut all = Vec::new();
    server.accept_uni().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, [1; 1000]);
}

#[test]
fn promises_and_fates_hold_over_a_path_that_loses_and_reorders() {
    let (server, client) = endpoints(Settings::default());
    let link = LinkConfig::new().delay_us(2_000).loss(0.05).reorder(0.05, 4_000);
    let relay = Relay::start(loopback(), server.local_addr(), link.clone(), link, 1).unwrap();
    let (streams, datagrams) = (20_u64, 300_u64);
    let reading = thread::spawn(move || {
        let connection = server.accept().unwrap().accept().unwrap();
        let streams: Vec<_> = (0..streams)
            .map(|_| {
                let mut receive = connection.accept_uni().unwrap();
                let (all, end) = read_to_reset(&mut receive);
                (receive.id(), all, end)
            })
            .collect();
        let _ = connection.closed();
        let mut came = Vec::new();
        while let Ok(data) = connection.recv_datagram() {
            came.push(u64::from_be_bytes(data[..].try_into().unwrap()));
        }
        (streams, came)
    });
    let mut connection = client.connect_to(relay.addr(), "localhost").unwrap();
    connection.set_timeout(Some(PATIENCE));
    let (mut promised, mut sending) = (BTreeMap::new(), Vec::new());
    for n in 0..streams {
        let mut send = connection.open_uni().unwrap();
        let len = 1 + n * 3_001;
        send.write_all(&pattern(n, len as usize)).unwrap();
        send.reset_at(n, len - n).unwrap();
        promised.insert(send.id(), (n, len));
        send.set_timeout(Some(PATIENCE));
        for tag in n * datagrams / streams..(n + 1) * datagrams / streams {
            connection.send_datagram_tagged(tag.to_be_bytes().to_vec(), tag).unwrap();
        }
        sending.push(send);
    }
    for send in &mut sending {
        send.wait_acked().unwrap();
    }
    let mut fates = BTreeMap::new();
    while fates.len() < datagrams as usize {
        // Whatever keeps the path busy makes losses known.
        connection.try_send_datagram((1_u64 << 40).to_be_bytes().to_vec(), None).unwrap();
        let (tag, fate) = connection.datagram_fate().unwrap();
        assert_eq!(fates.insert(tag, fate), None, "{tag} has one fate");
    }
    connection.close(0, b"");
    let (streams, came) = reading.join().unwrap();
    for (id, all, end) in streams {
        let (n, len) = promised[&id];
        assert_eq!(end, ReadError::Reset(n));
        assert!(all.len() as u64 >= len - n && all[..] == pattern(n, len as usize)[..all.len()], "{id}: {}", all.len());
    }
    let acknowledged = fates.iter().filter(|f| *f.1 == DatagramFate::Acknowledged);
    assert!(acknowledged.clone().count() > 200 && acknowledged.clone().count() < datagrams as usize);
    for (tag, _) in acknowledged {
        assert_eq!(came.iter().filter(|t| *t == tag).count(), 1, "{tag} was acknowledged and came once");
    }
}

#[test]
fn a_full_queue_of_datagrams_says_so_and_those_who_wait_go_on() {
    let (server, client) = endpoints(Settings::default());
    let slow = LinkConfig::new().rate(4_000_000).queue_bytes(50_000).delay_us(1_000);
    let relay = Relay::start(loopback(), server.local_addr(), slow.clone(), slow, 1).unwrap();
    let accepting = thread::spawn(move || (server.accept().unwrap().accept().unwrap(), server));
    let mut client = client.connect_to(relay.addr(), "localhost").unwrap();
    let accepted = accepting.join().unwrap();
    client.set_timeout(Some(PATIENCE));
    let full = (0..100_000).find(|_| !client.try_send_datagram(vec![1; 1000], None).unwrap());
    assert!(full.is_some_and(|n| n >= 60), "{full:?}");
    for _ in 0..100 {
        client.send_datagram(vec![2; 1000]).unwrap();
    }
    let largest = client.max_datagram_size().unwrap();
    assert!(client.try_send_datagram(vec![3; 65_000], None).is_err_and(|e| matches!(e, DatagramError::TooLarge(_))));
    assert!(largest >= 1000);
    client.close(0, b"");
    assert!(matches!(client.datagram_fate(), Err(ConnectionError::Closed(_))));
    drop(accepted);
}

#[cfg(feature = "tokio")]
mod tokio_face {
    use courser::aio::Endpoint;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn promises_and_fates() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let test = async {
            let identity = common::Identity::new();
            let server_end = Endpoint::server(loopback(), identity.server()).unwrap();
            let client_end = Endpoint::client(identity.client()).unwrap();
            let connecting = client_end.connect_to(server_end.local_addr(), "localhost").unwrap();
            let accepting = async { server_end.accept().await.unwrap().accept().unwrap().await };
            let (client, server) = tokio::join!(connecting, accepting);
            let (client, server) = (client.unwrap(), server.unwrap());
            let mut send = client.open_uni().await.unwrap();
            send.write_all(b"beginning and rest").await.unwrap();
            send.reset_at(5, 9).unwrap();
            send.wait_acked().await.unwrap();
            let mut receive = server.accept_uni().await.unwrap();
            let mut all = Vec::new();
            let end = loop {
                match receive.read_chunk().await {
                    Ok(chunk) => all.extend_from_slice(&chunk.unwrap()),
                    Err(e) => break e,
                }
            };
            // What had left may be read too, if it was before the reset came.
            assert!(all.len() >= 9 && b"beginning and rest".starts_with(&all), "{all:?}");
            assert_eq!(end, ReadError::Reset(5));
            assert_eq!(send.reset_at(5, 100), Ok(()), "a stream that is over stays so");
            client.send_datagram_tagged("told", 77).await.unwrap();
            assert_eq!(client.try_send_datagram("not told", None), Ok(true));
            assert_eq!(client.datagram_fate().await, Ok((77, DatagramFate::Acknowledged)));
            assert_eq!(server.recv_datagram().await.unwrap(), "told");
            client.close(0, b"");
            assert!(matches!(client.datagram_fate().await, Err(ConnectionError::Closed(_))));
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() });
    }
}
