//! A reverse proxy between clients of each version and origins that behave as told.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{BoxError, PATIENCE, Running, VERSIONS, body, empty, full};
use http::{HeaderMap, Request, Version};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// An origin that does with each connection what the function does; connections are counted.
struct Origin {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Origin {
    async fn new<F: Future<Output = ()> + Send>(answer: impl Fn(TcpStream) -> F + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let answer = answer.clone();
                tokio::spawn(async move { answer(tcp).await });
            }
        });
        Self { addr, accepted }
    }

    /// One that answers each request of a connection with this text.
    async fn saying(text: &'static str) -> Self {
        Self::new(move |mut tcp| async move {
            while head(&mut tcp).await.is_some() {
                tcp.write_all(text.as_bytes()).await.unwrap();
            }
        })
        .await
    }

    fn proxy(&self, more: &str) -> Running {
        proxy(&format!("http://{}", self.addr), more)
    }
}

fn proxy(origin: &str, more: &str) -> Running {
    Running::start(&format!("[[site]]\n[site.proxy]\norigin = \"{origin}\"\n{more}"))
}

/// The head of a request; `None` when there is none any more.
async fn head(tcp: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push(char::from(tcp.read_u8().await.ok()?));
    }
    Some(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_back_as_they_are() {
    for (answer, status, text) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: 1\r\nx-a: 2\r\n\r\nhi", 200, "hi"),
        ("HTTP/1.1 404 Nowhere\r\ncontent-length: 0\r\n\r\n", 404, ""),
        ("HTTP/1.1 204 None\r\n\r\n", 204, ""),
        ("HTTP/1.1 304 Same\r\netag: \"1\"\r\n\r\n", 304, ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, "abcde"),
        ("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy", 503, "busy"),
    ] {
        let origin = Origin::saying(answer).await;
        let server = origin.proxy("");
        for version in VERSIONS {
            let got = server.client(version).get("/").await.unwrap();
            assert_eq!((got.status, got.text()), (status, text), "{version:?} {answer}");
            for name in ["connection", "keep-alive", "transfer-encoding"] {
                assert!(version == Version::HTTP_11 || !got.headers.contains_key(name), "{version:?} {name}");
            }
            assert_eq!(got.headers.get_all("x-a").iter().count(), answer.matches("x-a").count());
        }
        assert_eq!(origin.accepted.load(Ordering::Relaxed), 1, "connections are used again: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_arrive_as_they_are() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::new(move |mut tcp| {
        let tell = tell.clone();
        async move {
            while let Some(asked) = head(&mut tcp).await {
                tell.send(asked).unwrap();
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let server = origin.proxy("");
    for (version, via) in VERSIONS.into_iter().zip(["1.1", "2", "3"]) {
        let request =
            Request::builder().method("DELETE").uri("/a%20b/../c?d=%00&e").header("x-b", "1").header("cookie", "c=1");
        let request = request.header("x-forwarded-for", "10.9.9.9");
        assert_eq!(server.client(version).ask(request.body(empty()).unwrap()).await.unwrap().status, 200);
        let asked = timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
        assert!(asked.starts_with("DELETE /a%20b/../c?d=%00&e HTTP/1.1\r\n"), "{asked}");
        for line in [
            format!("host: {}", origin.addr),
            "x-b: 1".into(),
            "cookie: c=1".into(),
            "x-forwarded-for: 127.0.0.1".into(),
            "x-forwarded-proto: https".into(),
            format!("x-forwarded-host: localhost:{}", server.addr.port()),
            format!("forwarded: for=127.0.0.1;proto=https;host=\"localhost:{}\"", server.addr.port()),
        ] {
            assert!(asked.lines().any(|l| l == line), "{version:?}: no {line} in {asked}");
        }
        assert!(asked.contains(&format!("via: {via} courser-")), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_stream_both_ways_at_once() {
    // Sends back each chunk as it comes.
    let origin = Origin::new(|mut tcp| async move {
        while let Some(asked) = head(&mut tcp).await {
            assert!(asked.contains("transfer-encoding: chunked"), "{asked}");
            tcp.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            let mut text = Vec::new();
            while !text.ends_with(b"0\r\n\r\n") {
                let mut buffer = [0; 1000];
                let n = tcp.read(&mut buffer).await.unwrap();
                tcp.write_all(&buffer[..n]).await.unwrap();
                text.extend_from_slice(&buffer[..n]);
            }
        }
    })
    .await;
    let server = origin.proxy("");
    for version in VERSIONS {
        let (mut sender, sent) = Channel::<Bytes, BoxError>::new(2);
        let client = server.client(version);
        let request = Request::post("/").body(body(sent)).unwrap();
        sender.send_data("one".into()).await.unwrap();
        let mut answer = client.send(request).await.unwrap().into_body();
        for text in ["one", "two", "three"] {
            if text != "one" {
                sender.send_data(text.into()).await.unwrap();
            }
            let mut found = Vec::new();
            while found.len() < text.len() {
                let frame = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
                found.extend_from_slice(&frame.into_data().unwrap());
            }
            assert_eq!(found, text.as_bytes(), "{version:?}");
        }
        drop(sender);
        let rest = timeout(PATIENCE, answer.collect()).await.unwrap().unwrap();
        assert!(rest.to_bytes().is_empty(), "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_both_ways() {
    let origin = Origin::new(|mut tcp| async move {
        while let Some(asked) = head(&mut tcp).await {
            assert!(asked.contains("te: trailers"), "{asked}");
            let mut text = Vec::new();
            while !text.ends_with(b"x-up: 1\r\n\r\n") {
                text.push(tcp.read_u8().await.unwrap());
            }
            let answer = "HTTP/1.1 200 OK\r\ntrailer: x-down\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-down: 2\r\n\r\n";
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let server = origin.proxy("");
    for version in [Version::HTTP_2, Version::HTTP_3] {
        let (mut sender, sent) = Channel::<Bytes, BoxError>::new(4);
        sender.send_data("b".into()).await.unwrap();
        let trailers = HeaderMap::from_iter([("x-up".parse().unwrap(), "1".parse().unwrap())]);
        sender.send_trailers(trailers).await.unwrap();
        drop(sender);
        let request = Request::post("/").header("te", "trailers").header("trailer", "x-up").body(body(sent)).unwrap();
        let got = server.client(version).ask(request).await.unwrap();
        assert_eq!(got.text(), "a");
        assert_eq!(got.trailers.unwrap()["x-down"], "2", "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informational_answers_pass_where_the_protocol_can() {
    let text = "HTTP/1.1 103 Early\r\nlink: </a.css>\r\nconnection: x-b\r\nx-b: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
    let origin = Origin::saying(text).await;
    let server = origin.proxy("");
    for version in VERSIONS {
        let client = server.client(version);
        assert_eq!(client.get("/").await.unwrap().text(), "a", "{version:?}");
        if version == Version::HTTP_3 {
            let told = client.told();
            assert_eq!((told.len(), told[0].0.as_u16(), told[0].1["link"].to_str().unwrap()), (1, 103, "</a.css>"));
            assert!(!told[0].1.contains_key("x-b"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_only_sends_interim_answers_is_given_up() {
    let gone = Arc::new(Notify::new());
    let left = Arc::clone(&gone);
    let origin = Origin::new(move |mut tcp| {
        let left = Arc::clone(&left);
        async move {
            head(&mut tcp).await;
            // For as long as somebody takes them.
            while tcp.write_all(b"HTTP/1.1 103 Early\r\nlink: </a.css>\r\n\r\n").await.is_ok() {}
            left.notify_one();
        }
    })
    .await;
    let server = origin.proxy("");
    for version in VERSIONS {
        let client = server.client(version);
        assert_eq!(client.get("/").await.unwrap().status, 502, "{version:?}");
        gone.notified().await;
        assert!(client.told().len() <= 32, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_never_a_whole_one() {
    for (text, end) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "zz\r\n"),
    ] {
        // A reset may overtake the beginning of an answer: the client has that before the end comes.
        let seen = Arc::new(Notify::new());
        let begun = Arc::clone(&seen);
        let origin = Origin::new(move |mut tcp| {
            let begun = Arc::clone(&begun);
            async move {
                head(&mut tcp).await;
                tcp.write_all(text.as_bytes()).await.unwrap();
                begun.notified().await;
                tcp.write_all(end.as_bytes()).await.unwrap();
            }
        })
        .await;
        let server = origin.proxy("");
        for version in VERSIONS {
            let client = server.client(version);
            let response = client.send(Request::get("/").body(empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            seen.notify_one();
            let got = timeout(PATIENCE, response.into_body().collect()).await.unwrap();
            assert!(got.is_err(), "{version:?} {text} {end}: {got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_before_is_told_in_a_sentence() {
    let quick = "response-timeout = \"150ms\"\nidle-timeout = \"150ms\"\nconnect-timeout = \"100ms\"\n";
    let closing = Origin::new(|mut tcp| async move { drop(head(&mut tcp).await) }).await;
    let silent = Origin::new(|mut tcp| async move {
        head(&mut tcp).await;
        sleep(PATIENCE).await;
    })
    .await;
    let strange = Origin::saying("SMTP hello\r\n\r\n").await;
    let switching = Origin::saying("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (origin, status, text) in [
        (format!("http://{}", closing.addr), 502, "broke off"),
        (format!("http://{}", silent.addr), 504, "in time"),
        (format!("http://{}", strange.addr), 502, "broke off"),
        (format!("http://{}", switching.addr), 502, "behind this one"),
        (gone, 502, "cannot be reached"),
        ("http://nobody.invalid".into(), 502, "cannot be reached"),
    ] {
        let server = proxy(&origin, quick);
        for version in VERSIONS {
            let got = server.client(version).get("/").await.unwrap();
            assert_eq!(got.status, status, "{version:?} {origin}");
            assert!(got.text().contains(text), "{version:?} {origin} {}", got.text());
        }
    }
    // A client that does not go on with its request.
    let server = proxy(&format!("http://{}", silent.addr), &quick.replacen("150ms", "10s", 1));
    for version in VERSIONS {
        let (mut sender, sent) = Channel::<Bytes, BoxError>::new(2);
        sender.send_data("begin".into()).await.unwrap();
        let got = server.client(version).ask(Request::post("/").body(body(sent)).unwrap()).await.unwrap();
        assert_eq!(got.status, 408, "{version:?} {}", got.text());
        drop(sender);
    }
    for (method, status) in [("TRACE", 501), ("CONNECT", 501)] {
        let request = Request::builder().method(method).uri(if method == "TRACE" { "/" } else { "localhost:1" });
        let got = server.client(Version::HTTP_2).ask(request.body(empty()).unwrap()).await;
        assert!(got.as_ref().map_or(method == "CONNECT", |got| got.status == status), "{method} {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_the_origin_breaks_the_answer_off() {
    let origin = Origin::new(|mut tcp| async move {
        head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
        sleep(PATIENCE).await;
    })
    .await;
    let server = origin.proxy("idle-timeout = \"100ms\"");
    for version in VERSIONS {
        let response = server.client(version).send(Request::get("/").body(empty()).unwrap()).await.unwrap();
        assert!(timeout(PATIENCE, response.into_body().collect()).await.unwrap().is_err(), "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cancels_takes_the_request_from_the_origin() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::new(move |mut tcp| {
        let tell = tell.clone();
        async move {
            head(&mut tcp).await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
            // The end of the connection, or an error of it.
            let _ = tcp.read_u8().await;
            tell.send(()).unwrap();
        }
    })
    .await;
    let server = origin.proxy("");
    for version in VERSIONS {
        let client = server.client(version);
        let mut response = client.send(Request::get("/").body(empty()).unwrap()).await.unwrap();
        response.frame().await.unwrap().unwrap();
        drop(response);
        drop(client);
        timeout(PATIENCE, told.recv()).await.unwrap_or_else(|_| panic!("{version:?}")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_limit_are_told_to_come_again() {
    let origin = Origin::new(|mut tcp| async move {
        head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc").await.unwrap();
        sleep(Duration::from_millis(400)).await;
        tcp.write_all(b"d").await.unwrap();
    })
    .await;
    let server = origin.proxy("connections = 1\nconnect-timeout = \"100ms\"");
    let client = server.client(Version::HTTP_3);
    let first = client.send(Request::get("/").body(empty()).unwrap()).await.unwrap();
    let got = client.get("/").await.unwrap();
    assert_eq!((got.status, got.header("retry-after")), (503, "1"));
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "abcd");
    assert_eq!(client.get("/").await.unwrap().text(), "abcd");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_origin_closed_meanwhile_is_no_trouble() {
    let origin = Origin::new(|mut tcp| async move {
        head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na").await.unwrap();
    })
    .await;
    let server = origin.proxy("");
    let client = server.client(Version::HTTP_3);
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap().text(), "a");
    }
    assert_eq!(origin.accepted.load(Ordering::Relaxed), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_over_tls_are_checked_and_loops_found() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.html"), "home").unwrap();
    let made = courser::certs::Throwaway::local().unwrap();
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&cert, made.certificate_pem()).unwrap();
    std::fs::write(&key, made.key_pem()).unwrap();
    let text =
        format!("[server]\ncertificate = {cert:?}\nkey = {key:?}\n[[site]]\n[site.files]\nroot = {:?}", dir.path());
    let behind = Running::start(&text);
    let (port, ca) = (behind.addr.port(), format!("ca = {cert:?}\n"));
    for (host, more, status) in [
        ("localhost", ca.clone(), 200),
        ("127.0.0.1", ca.clone(), 200),
        ("localhost", format!("{ca}http2 = true"), 200),
        ("localhost", "insecure = true".into(), 200),
        ("localhost", format!("{ca}preserve-host = true"), 200),
        ("127.0.0.2", ca.clone(), 502),
    ] {
        let server = proxy(&format!("https://{host}:{port}"), &more);
        for version in VERSIONS {
            let got = server.client(version).get("/").await.unwrap();
            assert_eq!(got.status, status, "{version:?} {host} {more} {}", got.text());
            assert!(status != 200 || got.text() == "home");
            assert!(version != Version::HTTP_3 || !got.headers.contains_key("alt-svc"));
        }
        // What the origin offers is for its own port; ours is told instead.
        let offered = server.client(Version::HTTP_2).get("/").await.unwrap();
        assert_eq!(offered.header("alt-svc"), format!("h3=\":{}\"; ma=86400", server.addr.port()));
    }
    // A proxy whose origin is itself.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tcp = Origin::new(move |mut tcp| async move {
        let mut to = TcpStream::connect(free).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut tcp, &mut to).await;
    })
    .await;
    let looping = proxy(&format!("https://{}", tcp.addr), "insecure = true");
    let own = looping.addr;
    let relay = TcpListener::bind(free).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = relay.accept().await {
            let mut to = TcpStream::connect(own).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let got = looping.client(Version::HTTP_3).get("/").await.unwrap();
    assert_eq!(got.status, 508);
    let posted = Request::post("/").body(full("x")).unwrap();
    assert_eq!(looping.client(Version::HTTP_2).ask(posted).await.unwrap().status, 508);
}
