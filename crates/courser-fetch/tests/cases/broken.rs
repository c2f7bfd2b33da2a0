//! Servers that fail, stall, lie or vanish.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use courser_fetch::body::{Meter, Payload};
use courser_fetch::{Error, Sink, Trust, download};
use http::Method;
use http_body::Frame;

use crate::over_each;
use crate::support::*;

/// An answer that breaks off after half of what it told.
fn dying(bytes: usize) -> http::Response<Pieces> {
    let (pen, body) = written();
    tokio::spawn(async move {
        let _ = pen.send(Ok(Frame::data(pattern(bytes / 2)))).await;
        // So that the half is on its way before the end.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = pen.send(Err(Broken)).await;
    });
    with_body(200, &[("content-length", &bytes.to_string()), ("etag", "\"v1\"")], body)
}

over_each! {
    async fn refusals_and_failures_have_their_codes_and_leave_no_file(kind: Kind) {
        let server = Server::start(kind, at_once(|r| {
            let status = r.uri().path()[1..].parse().unwrap();
            answer(status, &[], "an explanation that nobody wants in the file")
        })).await;
        let folder = tempfile::tempdir().unwrap();
        let c = client_of(kind, |_| {});
        for (status, expected) in [(404, 8), (403, 8), (304, 8), (500, 9), (503, 9)] {
            let file = folder.path().join("f");
            let done = fetch(&c, &job(&server.url(&format!("/{status}")), Sink::File(file))).await;
            assert_eq!(code(&done), expected, "{status}: {:?}", done.failed);
            assert_eq!(done.head.unwrap().status, status);
        }
        assert!(names(folder.path()).is_empty());
    }

    async fn an_origin_that_dies_leaves_no_half_file(kind: Kind) {
        let server = Server::start(kind, at_once(|_| dying(400_000))).await;
        let folder = tempfile::tempdir().unwrap();
        let done = fetch(&client_of(kind, |_| {}), &job(&server.url("/f"), Sink::File(folder.path().join("f")))).await;
        assert_eq!(code(&done), 1, "{:?}", done.failed);
        assert!(matches!(done.failed, Some(Error::Cut { got: 200_000, expected: Some(400_000), .. })), "{:?}", done.failed);
        assert_eq!(names(folder.path()), ["f.part", "f.part.json"]);
        assert_eq!(std::fs::metadata(folder.path().join("f.part")).unwrap().len(), 200_000);
    }

    async fn a_retry_goes_on_where_the_origin_died(kind: Kind) {
        let server = Server::start(kind, at_once(|r| match r.headers().get("range") {
            None => dying(400_000),
            Some(range) => {
                assert_eq!((range.to_str().unwrap(), &r.headers()["if-range"]), ("bytes=200000-", &"\"v1\"".parse::<http::HeaderValue>().unwrap()));
                let rest = pattern(400_000).slice(200_000..);
                answer(206, &[("content-range", "bytes 200000-399999/400000"), ("etag", "\"v1\"")], rest)
            }
        })).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let done = fetch(&client_of(kind, |o| o.retries = 2), &job(&server.url("/f"), Sink::File(file.clone()))).await;
        assert_eq!((code(&done), done.tries, done.resumed_from), (0, 2, 200_000), "{:?}", done.failed);
        assert!(std::fs::read(&file).unwrap() == pattern(400_000));
    }

    async fn a_busy_server_is_asked_again_after_its_rest(kind: Kind) {
        let server = Server::start(kind, {
            let n = AtomicUsize::new(0);
            at_once(move |_| match n.fetch_add(1, Ordering::SeqCst) {
                0 => answer(503, &[("retry-after", "1")], "busy"),
                1 => answer(429, &[], ""),
                _ => answer(200, &[], "done"),
            })
        }).await;
        let done = fetch(&client_of(kind, |o| o.retries = 3), &job(&server.url("/"), Sink::Nothing)).await;
        assert_eq!((code(&done), done.tries), (0, 3), "{:?}", done.failed);
        assert!(done.timing.total.unwrap() >= Duration::from_secs(1), "the server's wish was kept");
    }

    async fn what_is_not_idempotent_is_not_done_twice(kind: Kind) {
        let server = Server::start(kind, at_once(|_| answer(503, &[], ""))).await;
        for (method, requests) in [(Method::POST, 1), (Method::PUT, 3)] {
            let before = server.requests().len();
            let mut send = job(&server.url("/"), Sink::Nothing);
            (send.method, send.payload) = (method, Payload::Bytes(Bytes::from("x")));
            assert_eq!(code(&fetch(&client_of(kind, |o| o.retries = 2), &send).await), 9);
            assert_eq!(server.requests().len() - before, requests);
        }
    }

    async fn silence_before_and_within_an_answer_is_noticed(kind: Kind) {
        let server = Server::start(kind, Arc::new(|r| Box::pin(async move {
            let (pen, body) = written();
            if r.uri().path() == "/before" {
                std::future::pending::<()>().await;
            }
            tokio::spawn(async move {
                pen.send(Ok(Frame::data(Bytes::from("begun")))).await.unwrap();
                std::future::pending::<()>().await;
            });
            with_body(200, &[], body)
        }))).await;
        for path in ["/before", "/within"] {
            let c = client_of(kind, |o| o.stall_timeout = Duration::from_millis(150));
            let done = fetch(&c, &job(&server.url(path), Sink::Nothing)).await;
            assert!(matches!(done.failed, Some(Error::Stalled { .. })), "{path}: {:?}", done.failed);
            let c = client_of(kind, |o| o.max_time = Some(Duration::from_millis(150)));
            let done = fetch(&c, &job(&server.url(path), Sink::Nothing)).await;
            assert!(matches!(done.failed, Some(Error::TimeOut { .. })), "{path}: {:?}", done.failed);
        }
    }

    async fn what_is_too_large_is_not_taken(kind: Kind) {
        let server = Server::start(kind, Arc::new(|r| Box::pin(async move {
            if r.uri().path() == "/told" {
                return answer(200, &[], pattern(1001));
            }
            let (pen, body) = written();
            tokio::spawn(async move { while pen.send(Ok(Frame::data(pattern(100)))).await.is_ok() {} });
            with_body(200, &[], body)
        }))).await;
        for path in ["/told", "/endless"] {
            let done = fetch(&client_of(kind, |o| o.max_size = Some(1000)), &job(&server.url(path), Sink::Nothing)).await;
            assert_eq!(done.failed, Some(Error::TooLarge { limit: 1000 }), "{path}");
            assert!(done.size <= 1000);
        }
    }

    async fn a_job_that_is_dropped_ends_at_the_server(kind: Kind) {
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let server = Server::start(kind, Arc::new(move |_| {
            let tell = tell.clone();
            Box::pin(async move {
                let (pen, body) = written();
                tokio::spawn(async move {
                    while pen.send(Ok(Frame::data(pattern(10_000)))).await.is_ok() {}
                    tell.send(()).await.unwrap();
                });
                with_body(200, &[], body)
            })
        })).await;
        let (c, meter) = (client_of(kind, |_| {}), Meter::default());
        let endless = job(&server.url("/"), Sink::Nothing);
        let begun = async { while meter.got() < 100_000 { tokio::time::sleep(Duration::from_millis(5)).await } };
        tokio::select! {
            done = download::run(&c, &endless, &meter) => panic!("{done:?}"),
            () = begun => {}
        }
        tokio::time::timeout(Duration::from_secs(10), told.recv()).await.expect("the server hears of it");
    }

    async fn certificates_for_other_names_and_of_strangers_are_code_5(kind: Kind) {
        let server = Server::named(kind, &["elsewhere.test"], at_once(|_| answer(200, &[], ""))).await;
        let done = fetch(&client_of(kind, |_| {}), &job(&server.url("/"), Sink::Nothing)).await;
        assert_eq!(code(&done), 5);
        assert!(done.failed.unwrap().to_string().contains("another name"));
        let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let known = Server::start(kind, at_once(|_| answer(200, &[], ""))).await;
        let c = client_of(kind, |o| o.trust = Trust::Pem(stranger.into_bytes()));
        let done = fetch(&c, &job(&known.url("/"), Sink::Nothing)).await;
        assert_eq!((code(&done), known.requests().len() + server.requests().len()), (5, 0), "{:?}", done.failed);
    }
}

#[tokio::test]
async fn nobody_and_nowhere_have_their_codes() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let c = client(|_| {});
    for (url, expected) in [
        (format!("https://127.0.0.1:{}/", free.port()), 4),
        ("https://nobody.invalid/".to_owned(), 3),
        ("http://localhost/".to_owned(), 3),
        ("https://me:secret@localhost/".to_owned(), 3),
    ] {
        let done = fetch(&c, &job(&url, Sink::Nothing)).await;
        assert_eq!(code(&done), expected, "{url}: {:?}", done.failed);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_the_connect_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let c = client(|o| o.connect_timeout = Duration::from_millis(200));
    let done = fetch(&c, &job(&format!("https://{}/", silent.local_addr().unwrap()), Sink::Nothing)).await;
    assert_eq!(code(&done), 4);
    assert!(done.failed.unwrap().to_string().contains("200ms"));
}
