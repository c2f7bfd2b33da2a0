//! A client leaves its socket in the middle of a transfer, over loopback, with both faces.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io::{Read, Write};
use std::thread;

use common::{PATIENCE, Pair, loopback, pair, pattern};
use courser::{EndpointError, Settings};

const HALF: usize = 4 << 20;

#[test]
fn a_transfer_goes_on_from_another_socket() {
    let Pair { client, server, client_end, server_end } = pair(Settings::default());
    let (before, seen_before) = (client_end.local_addr(), server.remote_address());
    assert_eq!(before.port(), seen_before.port());
    let sent = pattern(3, 2 * HALF);
    let expected = sent.clone();
    let reader = thread::spawn(move || {
        let mut receive = server.accept_uni().unwrap();
        receive.set_timeout(Some(PATIENCE));
        let mut all = Vec::new();
        receive.read_to_end(&mut all).unwrap();
        (all == expected, server)
    });
    let mut send = client.open_uni().unwrap();
    send.write_all(&sent[..HALF]).unwrap();
    client_end.rebind(loopback()).unwrap();
    send.write_all(&sent[HALF..]).unwrap();
    send.finish().unwrap();
    send.wait_acked().unwrap();
    let (equal, server) = reader.join().unwrap();
    assert!(equal);
    let after = client_end.local_addr();
    assert_ne!(after, before);
    assert_eq!(server.remote_address().port(), after.port(), "the server followed");
    assert_eq!((client.stats().migrations, server.stats().migrations), (1, 1));
    assert_eq!(server.stats().paths_with_known_cid, 0);
    assert!(matches!(server_end.rebind(loopback()), Err(EndpointError::Bind(..))), "who takes connections stays");
}

#[test]
fn what_comes_back_finds_the_other_socket() {
    let Pair { client, server, client_end, server_end: _server_end } = pair(Settings::default());
    let sent = pattern(4, 2 * HALF);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        let (mut send, mut receive) = server.accept_bi().unwrap();
        receive.set_timeout(Some(PATIENCE));
        receive.read_to_end(&mut Vec::new()).unwrap();
        send.write_all(&copy).unwrap();
        send.finish().unwrap();
        send.wait_acked().unwrap();
    });
    let (mut send, mut receive) = client.open_bi().unwrap();
    send.finish().unwrap();
    receive.set_timeout(Some(PATIENCE));
    let mut all = vec![0; HALF];
    receive.read_exact(&mut all).unwrap();
    client_end.rebind(loopback()).unwrap();
    receive.read_to_end(&mut all).unwrap();
    assert!(all == sent);
    writer.join().unwrap();
}

#[cfg(feature = "tokio")]
#[test]
fn a_task_goes_on_from_another_socket() {
    use common::Identity;
    use courser::aio::Endpoint;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let identity = Identity::new();
        let server_end = Endpoint::server(loopback(), identity.server()).unwrap();
        let client_end = Endpoint::client(identity.client()).unwrap();
        let connecting = client_end.connect_to(server_end.local_addr(), "localhost").unwrap();
        let accepting = async { server_end.accept().await.unwrap().accept().unwrap().await };
        let (client, server) = tokio::join!(connecting, accepting);
        let (client, server) = (client.unwrap(), server.unwrap());
        let sent = pattern(5, 2 * HALF);
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut receive = server.accept_uni().await.unwrap();
            let mut all = Vec::new();
            AsyncReadExt::read_to_end(&mut receive, &mut all).await.unwrap();
            (all == expected, server)
        });
        let mut send = client.open_uni().await.unwrap();
        AsyncWriteExt::write_all(&mut send, &sent[..HALF]).await.unwrap();
        let before = client_end.local_addr();
        client_end.rebind(loopback()).unwrap();
        AsyncWriteExt::write_all(&mut send, &sent[HALF..]).await.unwrap();
        send.finish().unwrap();
        send.wait_acked().await.unwrap();
        let (equal, server) = tokio::time::timeout(PATIENCE, reader).await.unwrap().unwrap();
        assert!(equal);
        assert_ne!(client_end.local_addr(), before);
        assert_eq!(server.remote_address().port(), client_end.local_addr().port());
        assert_eq!(client.stats().await.migrations, 1);
    });
}
