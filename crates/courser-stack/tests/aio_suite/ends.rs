//! Cancelling, dropping, codes.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use courser_session::control::Protocol;
use courser_session::reason::Reason;
use courser_session::stack::{Dir, Error};

use super::{Ground, pattern, read_to_end};

/// Polls a future once; whether it was done. Then it is dropped.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

pub async fn calls_that_are_cancelled_lose_nothing(ground: &Ground) {
    const BYTES: usize = 300_000;
    let (listener, uri) = ground.listen("127.0.0.1").await;
    for _ in 0..100 {
        assert!(once(listener.accept()).await.is_none(), "nobody came");
    }
    let (there, here) = ground.stream(&listener, &uri).await;
    let writing = tokio::spawn({
        let here = here.clone();
        async move {
            let said = pattern(BYTES, 9);
            let mut sent = 0;
            while sent < BYTES {
                // Given up after one look, as often as not before anything was taken.
                if let Some(count) = once(here.write(&said[sent..])).await {
                    sent += count.unwrap();
                }
                tokio::task::yield_now().await;
            }
            here.finish().unwrap();
        }
    });
    let (mut heard, mut block) = (Vec::new(), [0; 1000]);
    loop {
        match once(there.read(&mut block)).await {
            Some(Ok(0)) => break,
            Some(Ok(count)) => heard.extend_from_slice(&block[..count]),
            Some(Err(error)) => panic!("{error}"),
            None => tokio::task::yield_now().await,
        }
    }
    assert!(heard == pattern(BYTES, 9));
    writing.await.unwrap();
    // Whoever waited and went does not take the next connection away.
    let waiting = tokio::spawn({
        let listener = listener.clone();
        async move { listener.accept().await.map(drop) }
    });
    tokio::task::yield_now().await;
    waiting.abort();
    let _ = waiting.await;
    let _met = ground.connect(&listener, &uri).await;
}

pub async fn a_listener_that_is_closed_wakes_who_waits(ground: &Ground) {
    let (listener, _) = ground.listen("127.0.0.1").await;
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move { listener.accept().await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    listener.close().await.unwrap();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), Err(Error::NoSession));
    }
}

pub async fn what_is_dropped_unfinished_is_reset(ground: &Ground) {
    let (listener, uri) = ground.listen("127.0.0.1").await;
    let (there, here) = ground.stream(&listener, &uri).await;
    here.write_all(b"half a").await.unwrap();
    drop(here);
    let end = loop {
        match there.read(&mut [0]).await {
            Ok(0) => panic!("a reset is no end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    // Over TCP the connection is reset, which is its end; over QUIC the stream is, and the connection closes behind it.
    assert!(matches!(end, Error::Reset(_) | Error::Ended(_)), "{end:?}");
    // What was finished arrives whole.
    let (there, here) = ground.stream(&listener, &uri).await;
    here.write_all(&pattern(100_000, 3)).await.unwrap();
    here.finish().unwrap();
    drop(here);
    assert!(read_to_end(&there).await.unwrap() == pattern(100_000, 3));
}

pub async fn codes_reach_the_peer(ground: &Ground) {
    let (listener, uri) = ground.listen("127.0.0.1").await;
    let (connection, caller) = ground.connect(&listener, &uri).await;
    let here = caller.open(Dir::Bi).await.unwrap();
    here.write_all(b"!").await.unwrap();
    let there = connection.accept().await.unwrap();
    here.reset(41).unwrap();
    let reset = loop {
        match there.read(&mut [0; 10]).await {
            Ok(count) => assert_ne!(count, 0),
            Err(error) => break error,
        }
    };
    assert_eq!(reset, Error::Reset(41));
    here.stop(42).unwrap();
    let stopped = loop {
        if let Err(error) = there.write(&[0; 1000]).await {
            break error;
        }
    };
    assert_eq!(stopped, Error::Stopped(42));
    caller.close_with(43, b"enough").unwrap();
    let Err(Error::Ended(ended)) = connection.accept().await else { panic!("the connection is over") };
    assert_eq!((ended.reason, ended.code, &ended.text[..]), (Reason::ClosedByPeer, 43, &b"enough"[..]));
}

pub async fn a_stream_keeps_its_connection_and_the_last_handle_closes_it(ground: &Ground) {
    assert_eq!(ground.protocol, Protocol::Quic);
    let (listener, uri) = ground.listen("127.0.0.1").await;
    let (there, here) = ground.connect(&listener, &uri).await;
    let stream = here.open(Dir::Bi).await.unwrap();
    drop(here);
    stream.write_all(b"alive").await.unwrap();
    let accepted = there.accept().await.unwrap();
    let mut block = [0; 100];
    assert_eq!(accepted.read(&mut block).await, Ok(5));
    stream.write_all(&pattern(400_000, 7)).await.unwrap();
    stream.finish().unwrap();
    // The last handle: the connection closes when the peer has everything.
    drop(stream);
    assert!(read_to_end(&accepted).await.unwrap() == pattern(400_000, 7));
    let Err(Error::Ended(ended)) = there.accept().await else { panic!("the connection is over") };
    assert_eq!((ended.reason, ended.code), (Reason::ClosedByPeer, 0));
}
