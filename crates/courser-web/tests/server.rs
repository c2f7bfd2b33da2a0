//! A server of files over real sockets: the same answers in each version, and its limits.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::fs;
use std::time::{Duration, SystemTime};

use common::{PATIENCE, Running, VERSIONS, empty};
use courser_web::front::Order;
use http::{Request, Version};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    fs::create_dir_all(dir.path().join("sub/list")).unwrap();
    for (name, bytes) in [
        ("index.html", &b"<p>home"[..]),
        ("long.bin", &long),
        ("a.txt", b"0123456789"),
        ("a.txt.br", b"B"),
        ("sub/list/x", b"x"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let old = SystemTime::now() - Duration::from_secs(1000);
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    dir
}

fn site(dir: &tempfile::TempDir) -> String {
    format!("[[site]]\n[site.files]\nroot = {:?}\nlisting = true\n", dir.path())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_gets_the_same_answers() {
    let dir = folder();
    let server = Running::start(&site(&dir));
    let clients = VERSIONS.map(|version| server.client(version));
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], u16);
    let table: [Row; 20] = [
        ("GET", "/", &[], 200),
        ("HEAD", "/", &[], 200),
        ("GET", "/a.txt", &[], 200),
        ("HEAD", "/long.bin", &[], 200),
        ("GET", "/long.bin", &[], 200),
        ("GET", "/long.bin", &[("range", "bytes=1000000-1999999")], 206),
        ("GET", "/a.txt", &[("range", "bytes=-3")], 206),
        ("GET", "/a.txt", &[("range", "bytes=10-")], 416),
        ("GET", "/a.txt", &[("accept-encoding", "br")], 200),
        ("GET", "/a.txt", &[("if-none-match", "*")], 304),
        ("GET", "/a.txt", &[("if-match", "\"x\"")], 412),
        ("GET", "/sub/list", &[], 308),
        ("GET", "/sub/list/", &[], 200),
        ("GET", "/sub/list/", &[("accept", "application/json")], 200),
        ("GET", "/none", &[], 404),
        ("GET", "/%2e%2e/etc/passwd", &[], 400),
        ("GET", "/.git/config", &[], 404),
        ("POST", "/a.txt", &[], 405),
        ("OPTIONS", "/a.txt", &[], 204),
        ("GET", "/a.txt?query=1", &[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")], 304),
    ];
    for (method, uri, fields, status) in table {
        let mut answers = Vec::new();
        for client in &clients {
            let mut request = Request::builder().method(method).uri(uri);
            request = fields.iter().fold(request, |r, (name, value)| r.header(*name, *value));
            let mut got = client.ask(request.body(empty()).unwrap()).await.unwrap();
            assert_eq!(got.status, status, "{method} {uri} {fields:?}");
            got.headers.remove("date");
            let offered = got.headers.remove("alt-svc");
            answers.push((offered.is_some(), got.headers, got.body));
        }
        assert_eq!(answers[0], answers[1], "{method} {uri}");
        assert_eq!((&answers[0].1, &answers[0].2), (&answers[2].1, &answers[2].2), "{method} {uri}");
        assert!(answers[0].0 && !answers[2].0, "who speaks HTTP/3 already need not be told");
    }
    let got = clients[0].get("/").await.unwrap();
    assert_eq!(got.header("alt-svc"), format!("h3=\":{}\"; ma=86400", server.addr.port()));
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_http3_it_is_not_offered() {
    let dir = folder();
    let server = Running::start(&format!("[server]\nhttp3 = false\n{}", site(&dir)));
    assert_eq!(server.client(Version::HTTP_2).get("/").await.unwrap().header("alt-svc"), "");
    assert!(std::net::UdpSocket::bind(server.addr).is_ok());
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_under_way_are_finished_and_nothing_begins() {
    for version in VERSIONS {
        let dir = folder();
        // More than fits into any buffer between.
        fs::write(dir.path().join("huge"), vec![7; 48 << 20]).unwrap();
        let server = Running::start(&format!("[server]\ndrain = \"10s\"\n{}", site(&dir)));
        let client = server.client(version);
        let response = client.send(Request::get("/huge").body(empty()).unwrap()).await.unwrap();
        server.orders.send(Order::Drain).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!server.served.is_finished(), "{version:?}");
        let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        assert_eq!(body.len(), 48 << 20, "{version:?}");
        assert!(timeout(PATIENCE, server.served).await.unwrap().unwrap(), "{version:?}");
        assert!(server.news.lock().unwrap().iter().any(|news| news.contains("Draining")));
        assert!(tokio::net::TcpStream::connect(server.addr).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_longer_than_the_drain_is_cut_off() {
    for version in VERSIONS {
        let dir = folder();
        fs::write(dir.path().join("huge"), vec![7; 48 << 20]).unwrap();
        let server = Running::start(&format!("[server]\ndrain = \"100ms\"\n{}", site(&dir)));
        let client = server.client(version);
        let response = client.send(Request::get("/huge").body(empty()).unwrap()).await.unwrap();
        server.orders.send(Order::Drain).unwrap();
        assert!(!timeout(PATIENCE, server.served).await.unwrap().unwrap(), "{version:?}");
        assert!(timeout(PATIENCE, response.into_body().collect()).await.unwrap().is_err(), "{version:?}");
    }
}

/// An answer under way at a server whose time for a drain is changed before it drains; how the drain ended, and the answer.
async fn drained_after_reload(version: Version, (before, after): (&str, Duration)) -> (bool, Option<usize>) {
    let dir = folder();
    fs::write(dir.path().join("huge"), vec![7; 48 << 20]).unwrap();
    let server = Running::start(&format!("[server]\ndrain = \"{before}\"\n{}", site(&dir)));
    let client = server.client(version);
    let response = client.send(Request::get("/huge").body(empty()).unwrap()).await.unwrap();
    server.config.lock().unwrap().server.drain = after;
    server.orders.send(Order::Reload).unwrap();
    server.orders.send(Order::Drain).unwrap();
    let until = tokio::time::Instant::now() + PATIENCE;
    while !server.news.lock().unwrap().iter().any(|news| news.contains("Draining")) {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(server.news.lock().unwrap().iter().any(|news| news == "Reloaded"), "{version:?}");
    // Longer than the short one of the two.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let served = timeout(PATIENCE, server.served);
    let read = timeout(PATIENCE, response.into_body().collect());
    // Nobody reads the answer that is to be cut off until it was.
    let (complete, body) = if after < PATIENCE {
        let complete = served.await;
        (complete, read.await)
    } else {
        let body = read.await;
        (served.await, body)
    };
    (complete.unwrap().unwrap(), body.unwrap().ok().map(|body| body.to_bytes().len()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_for_a_drain_is_that_of_the_newest_configuration() {
    for version in VERSIONS {
        let longer = drained_after_reload(version, ("100ms", Duration::from_secs(600))).await;
        assert_eq!(longer, (true, Some(48 << 20)), "{version:?}");
        let shorter = drained_after_reload(version, ("600s", Duration::from_millis(100))).await;
        assert_eq!(shorter, (false, None), "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_not_waited_for() {
    let dir = folder();
    let limits = "[limits]\nhandshake = \"100ms\"\nidle = \"150ms\"\n[server]\nmetrics = \"127.0.0.1:0\"\n";
    let server = Running::start(&format!("{limits}{}", site(&dir)));
    // No handshake.
    let mut tcp = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(timeout(PATIENCE, tcp.read(&mut [0; 10])).await.unwrap().unwrap(), 0);
    // No request, in each version over TCP, and none after the first.
    for version in [Version::HTTP_11, Version::HTTP_2] {
        server.client(version).get("/").await.unwrap();
    }
    let figures = async || {
        let mut tcp = tokio::net::TcpStream::connect(server.figures.unwrap()).await.unwrap();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    };
    let until = tokio::time::Instant::now() + PATIENCE;
    while !figures().await.contains("courser_tcp_connections 0") {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let text = figures().await;
    assert!(text.contains("courser_tls_handshakes_failed_total 1"), "{text}");
    assert!(text.contains("courser_http_requests_total{version=\"2\",class=\"2xx\"} 1"), "{text}");
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_over_the_limit_wait() {
    let dir = folder();
    let server = Running::start(&format!("[limits]\nconnections = 1\n{}", site(&dir)));
    let first = server.client(Version::HTTP_11);
    first.get("/").await.unwrap();
    let second = server.client(Version::HTTP_2);
    let asked = tokio::spawn(async move { second.get("/").await.map(|got| got.status) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    drop(first);
    assert_eq!(timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap(), 200);
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_have_a_limit() {
    let dir = folder();
    let server = Running::start(&format!("[limits]\nfields = \"8K\"\n{}", site(&dir)));
    for version in VERSIONS {
        let client = server.client(version);
        let long = "x".repeat(20_000);
        let request = Request::get("/").header("x-long", &long).body(empty()).unwrap();
        match client.ask(request).await {
            Ok(got) => assert_eq!(got.status, 431, "{version:?}"),
            // The other end may have seen the limit beforehand, or been cut off.
            Err(e) => assert!(version != Version::HTTP_11, "{version:?} {e}"),
        }
        assert_eq!(client.get("/").await.unwrap().status, 200, "{version:?}");
    }
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http3_hear_goaway_and_no_error_when_the_server_ends_at_once() {
    use courser::ClientOptions;
    use courser::aio::Endpoint;
    use courser::h3;
    let dir = folder();
    fs::write(dir.path().join("huge"), vec![7; 48 << 20]).unwrap();
    let server = Running::start(&site(&dir));
    let tls = courser::tls::ClientConfig::builder().danger_accept_any_certificate().alpn([h3::ALPN]).build().unwrap();
    let endpoint = Endpoint::client(ClientOptions::new(tls)).unwrap();
    let connection = endpoint.connect_to(server.addr, "localhost").unwrap().await.unwrap();
    let known = connection.clone();
    let (mut requests, driving) = h3::Client::default().start(connection);
    let driven = tokio::spawn(driving);
    let request = Request::get(format!("https://localhost:{}/huge", server.addr.port())).body(empty()).unwrap();
    let response = requests.send(request).await.unwrap();
    assert!(!server.end().await, "a request was under way");
    assert_eq!(known.closed().await.application().map(|(code, _)| code), Some(h3::Code::NO_ERROR.0));
    assert!(timeout(PATIENCE, response.into_body().collect()).await.unwrap().is_err());
    // The client drove its connection to an end that is no error.
    timeout(PATIENCE, driven).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_tell_of_quic_too() {
    let dir = folder();
    let server = Running::start(&format!("[server]\nmetrics = \"127.0.0.1:0\"\n{}", site(&dir)));
    let client = server.client(Version::HTTP_3);
    client.get("/long.bin").await.unwrap();
    let figures = async || {
        let mut tcp = tokio::net::TcpStream::connect(server.figures.unwrap()).await.unwrap();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    };
    let sum = |text: &str, name: &str| -> f64 {
        let of_name = |line: &&str| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "));
        text.lines().filter(of_name).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let text = figures().await;
    let listen = format!("listen=\"{}\",worker=\"0\"", server.addr);
    assert!(text.contains(&format!("courser_engine_connections{{{listen}}}")), "{text}");
    assert!(text.contains("courser_http_requests_total{version=\"3\",class=\"2xx\"} 1"), "{text}");
    drop(client);
    let until = tokio::time::Instant::now() + PATIENCE;
    while sum(&figures().await, "courser_quic_ended_connections_total") < 1.0 {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = figures().await;
    assert!(sum(&text, "courser_engine_accepted_total") >= 1.0, "{text}");
    assert!(sum(&text, "courser_quic_ended_sent_packets_total") > 1000.0, "{text}");
    // Workers tell as of their last turns.
    assert!(sum(&text, "courser_worker_sent_bytes_total") > 0.0, "{text}");
    assert!(text.contains("courser_quic_ended_lost_packets_total "), "{text}");
    assert!(server.end().await);
}
