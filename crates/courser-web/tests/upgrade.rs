//! WebSockets through a proxy: clients of each version, and an origin that sends bytes back behind its 101.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use bytes::Bytes;
use common::end::End;
use common::{AnyClient, BoxError, PATIENCE, Running, VERSIONS, body, empty};
use courser::h3;
use courser_web::front::Order;
use courser_web::proxy::upgrade::accept;
use http::{Request, Version};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Tells what it heard when a tunnel ended.
type Heard = mpsc::UnboundedReceiver<String>;

async fn origin() -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move { tell.send(behave(tcp).await) });
        }
    });
    (at, heard)
}

/// One connection: what it does stands in the path.
async fn behave(mut tcp: TcpStream) -> String {
    let mut head = String::new();
    loop {
        while !head.ends_with("\r\n\r\n") {
            let Ok(byte) = tcp.read_u8().await else { return "no request".into() };
            head.push(char::from(byte));
        }
        if !head.starts_with("GET /plain ") {
            break;
        }
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        head.clear();
    }
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("sec-websocket-version: 13\r\n") && head.contains("x-forwarded-for: "), "{head}");
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let accept = if path == "/wrong" { "wrong".into() } else { accept(key.as_bytes()) };
    if path == "/no" {
        tcp.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 3\r\n\r\nno!").await.unwrap();
        return "refused".into();
    }
    let answer = format!(
        "HTTP/1.1 101 On\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    tcp.write_all(answer.as_bytes()).await.unwrap();
    let (mut said, mut piece) = (Vec::new(), [0; 1000]);
    if path == "/ends" {
        tcp.write_all(b"bye").await.unwrap();
        tcp.shutdown().await.unwrap();
    }
    while let Ok(n @ 1..) = tcp.read(&mut piece).await {
        said.extend_from_slice(&piece[..n]);
        if path == "/dies" {
            // An end without a farewell.
            socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            break;
        }
        if path != "/ends" {
            tcp.write_all(&piece[..n]).await.unwrap();
        }
    }
    String::from_utf8(said).unwrap()
}

/// Asks for a tunnel in the version's way; what came instead.
async fn open(client: &AnyClient, version: Version, path: &str, protocol: &'static str) -> Result<End, (u16, String)> {
    // The settings of the server have come with this answer.
    assert_eq!(client.get("/plain").await.unwrap().status, 200);
    let request = Request::builder().uri(path).header("sec-websocket-version", "13");
    let (mut up, sent) = (None, empty());
    let mut request = match version {
        Version::HTTP_11 => request
            .header("connection", "Upgrade")
            .header("upgrade", protocol)
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(sent),
        Version::HTTP_2 => request.method("CONNECT").extension(hyper::ext::Protocol::from_static(protocol)).body(sent),
        _ => {
            let (sender, sent) = Channel::<Bytes, BoxError>::new(2);
            up = Some(sender);
            request.method("CONNECT").extension(h3::Protocol::new(protocol).unwrap()).body(body(sent))
        }
    }
    .unwrap();
    *request.version_mut() = version;
    let mut response = client.send(request).await.unwrap();
    let status = response.status().as_u16();
    if status != if version == Version::HTTP_11 { 101 } else { 200 } {
        let text = response.into_body().collect().await.unwrap().to_bytes();
        return Err((status, String::from_utf8(text.to_vec()).unwrap()));
    }
    assert_eq!(response.headers().contains_key("sec-websocket-accept"), version == Version::HTTP_11);
    if up.is_some() {
        return Ok(End::Bodies(up, response.into_body()));
    }
    let upgraded = timeout(PATIENCE, hyper::upgrade::on(&mut response)).await.unwrap().unwrap();
    Ok(End::Bytes(Box::new(TokioIo::new(upgraded))))
}

fn proxy(origin: &str, more: &str) -> Running {
    Running::start(&format!("[server]\ndrain = \"300ms\"\n[[site]]\n[site.proxy]\norigin = \"{origin}\"\n{more}"))
}

/// What the origin says of the next tunnel that it had.
async fn told(heard: &mut Heard) -> String {
    loop {
        let told = timeout(PATIENCE, heard.recv()).await.expect("an end at the origin").unwrap();
        if told != "no request" {
            return told;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_both_ways_until_both_ends_ended() {
    let (at, mut heard) = origin().await;
    let server = proxy(&at, "");
    for version in VERSIONS {
        let client = server.client(version);
        let mut end =
            open(&client, version, "/echo", "websocket").await.unwrap_or_else(|e| panic!("{version:?} {e:?}"));
        for text in ["one", "two"] {
            end.say(text).await;
            end.hear_text(text).await;
        }
        end.finish().await;
        assert!(end.hear().await.unwrap().is_empty(), "{version:?}");
        assert_eq!(told(&mut heard).await, "onetwo", "{version:?}");
        // The origin ends first, the client goes on.
        let mut end =
            open(&client, version, "/ends", "websocket").await.unwrap_or_else(|e| panic!("{version:?} {e:?}"));
        end.hear_text("bye").await;
        assert!(end.hear().await.unwrap().is_empty(), "{version:?}");
        end.say("still here").await;
        end.finish().await;
        assert_eq!(told(&mut heard).await, "still here", "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tunnel_is_an_answer() {
    let (at, _heard) = origin().await;
    let server = proxy(&at, "");
    for version in VERSIONS {
        let client = server.client(version);
        let refused = open(&client, version, "/no", "websocket").await.err().unwrap();
        assert_eq!(refused, (403, "no!".into()), "{version:?}");
        let (status, text) = open(&client, version, "/echo", "other").await.err().unwrap();
        assert_eq!(status, 501, "{version:?} {text}");
        if version != Version::HTTP_11 {
            // The key is ours, and so is the check of its answer.
            let (status, text) = open(&client, version, "/wrong", "websocket").await.err().unwrap();
            assert_eq!(status, 502, "{version:?} {text}");
        }
    }
    let off = proxy(&at, "upgrades = false");
    for version in [Version::HTTP_2, Version::HTTP_3] {
        let (status, text) = open(&off.client(version), version, "/echo", "websocket").await.err().unwrap();
        assert!(status == 501 && text.contains("no WebSockets"), "{version:?} {status} {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_dies_and_silence_end_a_tunnel_and_free_its_place() {
    let (at, mut heard) = origin().await;
    for (path, more) in [("/dies", "tunnels = 1"), ("/echo", "tunnels = 1\nidle-timeout = \"100ms\"")] {
        let server = proxy(&at, more);
        for version in VERSIONS {
            let client = server.client(version);
            // The place of the tunnel before is free when that has ended, which the client may see a little earlier.
            let mut end = loop {
                match open(&client, version, path, "websocket").await {
                    Ok(end) => break end,
                    Err(e) => assert_eq!(e.0, 503, "{version:?} {path} {e:?}"),
                }
            };
            if path == "/dies" {
                end.say("x").await;
            }
            let ended = end.hear().await;
            assert!(ended.as_ref().map_or(true, Vec::is_empty), "{version:?} {path} {ended:?}");
            assert_eq!(told(&mut heard).await, if path == "/dies" { "x" } else { "" });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_have_a_limit_and_a_client_that_goes_frees_its_place() {
    let (at, mut heard) = origin().await;
    let server = proxy(&at, "tunnels = 1");
    for version in VERSIONS {
        let client = server.client(version);
        let first = loop {
            match open(&client, version, "/echo", "websocket").await {
                Ok(end) => break end,
                Err(e) => assert_eq!(e.0, 503, "{version:?} {e:?}"),
            }
        };
        let other = server.client(Version::HTTP_3);
        let (status, _) = open(&other, Version::HTTP_3, "/echo", "websocket").await.err().unwrap();
        assert_eq!(status, 503, "{version:?}");
        drop(first);
        assert_eq!(told(&mut heard).await, "", "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_tunnels_and_ends_them_at_its_limit() {
    for version in VERSIONS {
        let (at, mut heard) = origin().await;
        let server = proxy(&at, "");
        let client = server.client(version);
        let mut end =
            open(&client, version, "/echo", "websocket").await.unwrap_or_else(|e| panic!("{version:?} {e:?}"));
        server.orders.send(Order::Drain).unwrap();
        let ended = end.hear().await;
        assert!(ended.as_ref().map_or(true, Vec::is_empty), "{version:?} {ended:?}");
        assert!(!timeout(PATIENCE, server.served).await.unwrap().unwrap(), "{version:?}: it was cut off");
        assert!(server.news.lock().unwrap().contains(&"CutOff".to_owned()), "{version:?}");
        assert_eq!(told(&mut heard).await, "");
    }
}
