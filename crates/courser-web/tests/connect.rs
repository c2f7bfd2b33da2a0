//! CONNECT: tunnels to permitted places, for clients of each version.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use bytes::Bytes;
use common::end::End;
use common::{AnyClient, BoxError, PATIENCE, Running, VERSIONS, body, empty};
use courser::h3;
use courser_web::front::Order;
use http::{Request, Version};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Gives what it heard on a connection, once it ended.
type Heard = mpsc::UnboundedReceiver<String>;

/// A server of bytes: says them back. `!` has it die, `.` has it end its direction first.
async fn echo() -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move { tell.send(behave(tcp).await) });
        }
    });
    (at, heard)
}

async fn behave(mut tcp: TcpStream) -> String {
    let (mut said, mut piece, mut talks) = (Vec::new(), [0; 1000], true);
    while let Ok(n @ 1..) = tcp.read(&mut piece).await {
        said.extend_from_slice(&piece[..n]);
        if said.ends_with(b"!") {
            // An end without a farewell.
            socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            break;
        }
        if talks && tcp.write_all(&piece[..n]).await.is_err() {
            break;
        }
        if said.ends_with(b".") {
            talks = false;
            tcp.shutdown().await.unwrap();
        }
    }
    String::from_utf8(said).unwrap()
}

fn server(allow: &[&str], more: &str) -> Running {
    let folder = std::env::temp_dir();
    Running::start(&format!(
        "[server]\ndrain = \"300ms\"\n[connect]\nallow = {allow:?}\n{more}\n[[site]]\n[site.files]\nroot = {folder:?}"
    ))
}

/// Asks for a tunnel; what came instead.
async fn open(client: &AnyClient, version: Version, to: &str) -> Result<End, (u16, String)> {
    let request = Request::connect(to);
    let (mut up, mut sent) = (None, empty());
    if version == Version::HTTP_3 {
        let (sender, receiver) = Channel::<Bytes, BoxError>::new(2);
        (up, sent) = (Some(sender), body(receiver));
    }
    let mut response = client.send(request.body(sent).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    if status != 200 {
        let text = response.into_body().collect().await.unwrap().to_bytes();
        return Err((status, String::from_utf8(text.to_vec()).unwrap()));
    }
    assert!(!response.headers().contains_key("content-length") && !response.headers().contains_key("alt-svc"));
    if up.is_some() {
        return Ok(End::Bodies(up, response.into_body()));
    }
    let upgraded = timeout(PATIENCE, hyper::upgrade::on(&mut response)).await.unwrap().unwrap();
    Ok(End::Bytes(Box::new(TokioIo::new(upgraded))))
}

async fn told(heard: &mut Heard) -> String {
    timeout(PATIENCE, heard.recv()).await.expect("an end at the other side").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_both_ways_and_each_end_ends_by_itself() {
    let (at, mut heard) = echo().await;
    let server = server(&[&at], "");
    for version in VERSIONS {
        let client = server.client(version);
        let mut end = open(&client, version, &at).await.unwrap_or_else(|e| panic!("{version:?} {e:?}"));
        for text in ["one", "two"] {
            end.say(text).await;
            end.hear_text(text).await;
        }
        end.finish().await;
        assert!(end.hear().await.unwrap().is_empty(), "{version:?}");
        assert_eq!(told(&mut heard).await, "onetwo", "{version:?}");
        // The other side first; the client goes on.
        let mut end = open(&client, version, &at).await.unwrap();
        end.say("bye.").await;
        end.hear_text("bye.").await;
        assert!(end.hear().await.unwrap().is_empty(), "{version:?}");
        end.say("more").await;
        end.finish().await;
        assert_eq!(told(&mut heard).await, "bye.more", "{version:?}");
    }
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_permitted_is_refused_with_a_reason() {
    let (at, _heard) = echo().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let (none, some) = (server(&[], ""), server(&[&nobody, "*.example.org:443"], ""));
    for version in VERSIONS {
        for (server, to, status, text) in [
            (&none, at.as_str(), 501, "makes no tunnels (CONNECT)"),
            (&some, &at, 403, "to that place"),
            (&some, "example.org:443", 403, "to that place"),
            (&some, &nobody, 502, "cannot be reached"),
        ] {
            //= rfc9114#4.4-8 type=test
            let refused = open(&server.client(version), version, to).await.err().unwrap();
            assert!(refused.0 == status && refused.1.contains(text), "{version:?} {to} {refused:?}");
        }
    }
    // Sites are served as without.
    assert_eq!(some.client(Version::HTTP_3).get("/none").await.unwrap().status, 404);
    assert!(none.end().await && some.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_that_breaks_off_ends_the_other() {
    let (at, mut heard) = echo().await;
    let server = server(&[&at], "");
    for version in VERSIONS {
        let client = server.client(version);
        let mut end = open(&client, version, &at).await.unwrap();
        end.say("dies!").await;
        let heard_of_it = end.hear().await;
        if version == Version::HTTP_3 {
            let e = heard_of_it.unwrap_err();
            let code = e.downcast_ref::<h3::Error>();
            assert!(matches!(code, Some(h3::Error::Reset(h3::Code::CONNECT_ERROR))), "{e:?}");
        }
        assert_eq!(told(&mut heard).await, "dies!", "{version:?}");
        //= rfc9114#4.4-4 type=test
        //= rfc9114#4.4-5 type=test
        let mut end = open(&client, version, &at).await.unwrap();
        end.say("goes").await;
        end.hear_text("goes").await;
        drop(end);
        drop(client);
        assert_eq!(told(&mut heard).await, "goes", "{version:?}");
    }
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_its_direction_off_ends_both() {
    //= rfc9114#4.4-6 type=test
    let (at, mut heard) = echo().await;
    let server = server(&[&at], "");
    let client = server.client(Version::HTTP_3);
    let End::Bodies(up, down) = open(&client, Version::HTTP_3, &at).await.unwrap() else { panic!("no bodies") };
    let (mut end, mut up) = (End::Bodies(None, down), up.unwrap());
    up.send_data("x".into()).await.unwrap();
    end.hear_text("x").await;
    // The client resets what it sends, and listens still.
    up.abort("enough".into());
    let heard_of_it = timeout(PATIENCE / 4, end.hear()).await.expect("readers are told");
    assert!(heard_of_it.is_err());
    assert_eq!(told(&mut heard).await, "x");
    assert!(server.end().await);
}

/// Asks until there is a place: that of a tunnel that ended is free a moment after its sides heard of it.
async fn place(client: &AnyClient, version: Version, to: &str) -> End {
    let asked = async {
        loop {
            if let Ok(end) = open(client, version, to).await {
                break end;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked).await.expect("a place")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_have_places_and_a_drain_ends_them() {
    let (at, mut heard) = echo().await;
    let server = server(&[&at], "tunnels = 1");
    for version in VERSIONS {
        let client = server.client(version);
        let mut end = place(&client, version, &at).await;
        let refused = open(&server.client(version), version, &at).await.err().unwrap();
        assert!(refused.0 == 503 && refused.1.contains("too many tunnels"), "{version:?} {refused:?}");
        end.say("on").await;
        end.hear_text("on").await;
        drop(end);
        assert_eq!(told(&mut heard).await, "on", "{version:?}");
        // The place is free behind the end, whoever asks.
        drop(place(&server.client(Version::HTTP_3), Version::HTTP_3, &at).await);
        assert_eq!(told(&mut heard).await, "", "{version:?}");
    }
    // A drain cuts tunnels off at its limit.
    let client = server.client(Version::HTTP_3);
    let _held = place(&client, Version::HTTP_3, &at).await;
    server.orders.send(Order::Drain).unwrap();
    timeout(PATIENCE, server.served).await.expect("an end").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_tunnel_and_frees_its_place() {
    let (at, mut heard) = echo().await;
    // Nothing here has to happen within the limit: each tunnel is silent from its first moment.
    let server = server(&[&at], "tunnels = 1\nidle-timeout = \"1s\"");
    for version in VERSIONS {
        let client = server.client(version);
        let mut end = place(&client, version, &at).await;
        let silent = end.hear().await;
        assert!(version != Version::HTTP_3 || silent.is_err(), "{version:?} {silent:?}");
        assert_eq!(told(&mut heard).await, "", "{version:?}");
    }
    assert!(server.end().await);
}
