//! Requests and answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use courser_fetch::body::{Meter, Payload};
use courser_fetch::via::Protocol;
use courser_fetch::{Sink, batch};
use http::{HeaderValue, Method};
use http_body::Frame;

use crate::over_each;
use crate::support::*;

over_each! {
    async fn a_file_arrives_under_its_name(kind: Kind) {
        let bytes = pattern(3 << 20);
        let sent = bytes.clone();
        let server = Server::start(kind, at_once(move |_| answer(200, &[("etag", "\"1\"")], sent.clone()))).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.bin");
        let done = fetch(&client_of(kind, |_| {}), &job(&server.url("/f.bin"), Sink::File(file.clone()))).await;
        assert_eq!((code(&done), done.size, done.tries), (0, 3 << 20, 1), "{:?}", done.failed);
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert_eq!(names(folder.path()), ["f.bin"]);
        let head = done.head.unwrap();
        let spoken = match kind {
            Kind::H1 => Protocol::Http11,
            Kind::H2 | Kind::Either => Protocol::Http2,
            Kind::H3 => Protocol::Http3,
        };
        assert_eq!((head.protocol, head.remote, head.reused), (spoken, server.addr, false));
        let t = done.timing;
        assert_eq!(t.connect.is_some(), kind != Kind::H3);
        assert!(t.dns <= t.connect.or(t.handshake) && t.connect.is_none_or(|c| Some(c) <= t.handshake) && t.handshake <= t.first_byte && t.first_byte <= t.total);
        let seen = &server.requests()[0];
        assert!(seen.headers["user-agent"].to_str().unwrap().starts_with("courser/"));
        assert!(!seen.headers.contains_key("accept-encoding") && !seen.headers.contains_key("range"));
    }

    async fn a_head_request_has_no_body(kind: Kind) {
        let server = Server::start(kind, at_once(|_| answer(200, &[("x-mine", "1"), ("content-length", "500")], ""))).await;
        let mut head = job(&server.url("/"), Sink::Nothing);
        head.method = Method::HEAD;
        let done = fetch(&client_of(kind, |_| {}), &head).await;
        assert_eq!((code(&done), done.size), (0, 0), "{:?}", done.failed);
        let told = done.head.unwrap().headers;
        assert_eq!((&told["content-length"], &told["x-mine"]), (&HeaderValue::from(500), &HeaderValue::from(1)));
    }

    async fn content_that_a_head_request_must_not_get_is_left_alone(kind: Kind) {
        let server = Server::start(kind, at_once(|_| answer(200, &[], pattern(500)))).await;
        let mut head = job(&server.url("/"), Sink::Nothing);
        head.method = Method::HEAD;
        let c = client_of(kind, |_| {});
        for _ in 0..2 {
            let done = fetch(&c, &head).await;
            assert_eq!((code(&done), done.size), (0, 0), "{:?}", done.failed);
        }
    }

    async fn texts_and_files_are_sent(kind: Kind) {
        let server = Server::start(kind, at_once(|r| answer(200, &[], r.into_body()))).await;
        let c = client_of(kind, |_| {});
        let mut post = job(&server.url("/form"), Sink::Nothing);
        (post.method, post.payload) = (Method::POST, Payload::Bytes(Bytes::from("a=1&b=2")));
        post.headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        assert_eq!(fetch(&c, &post).await.size, 7);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pattern(2_000_000)).unwrap();
        let mut put = job(&server.url("/up"), Sink::Nothing);
        (put.method, put.payload) = (Method::PUT, Payload::File(file.path().to_owned()));
        let done = fetch(&c, &put).await;
        assert_eq!((code(&done), done.size), (0, 2_000_000), "{:?}", done.failed);
        let seen = server.requests();
        assert_eq!((&seen[0].method, &seen[0].body[..]), (&Method::POST, &b"a=1&b=2"[..]));
        assert_eq!((&seen[1].method, &seen[1].body), (&Method::PUT, &pattern(2_000_000)));
        assert_eq!(seen[1].headers["content-length"], "2000000");
    }

    async fn an_upload_that_is_not_there_is_told_before_anything_is_sent(kind: Kind) {
        let server = Server::start(kind, at_once(|_| answer(200, &[], ""))).await;
        let mut put = job(&server.url("/up"), Sink::Nothing);
        (put.method, put.payload) = (Method::PUT, Payload::File("/nowhere/at/all".into()));
        let done = fetch(&client_of(kind, |_| {}), &put).await;
        assert_eq!((code(&done), server.requests().len()), (7, 0));
    }

    async fn redirects_are_followed_and_secrets_stay(kind: Kind) {
        let other = Server::start(kind, at_once(|_| answer(200, &[], "there"))).await;
        let to = format!("https://other.test:{}/end", other.addr.port());
        let server = Server::start(kind, at_once(move |r| match r.uri().path() {
            "/a" => answer(302, &[("location", "b?x")], "elsewhere"),
            "/b" => answer(307, &[("location", to.as_str())], ""),
            p => panic!("{p}"),
        })).await;
        let mut get = job(&server.url("/a"), Sink::Nothing);
        for (name, value) in [("authorization", "Basic eA=="), ("cookie", "a=b"), ("x-mine", "1")] {
            get.headers.insert(name, HeaderValue::from_static(value));
        }
        let follow = |o: &mut courser_fetch::Options| {
            o.redirects = Some(10);
            o.resolve.insert(("other.test".into(), other.addr.port()), vec!["127.0.0.1".parse().unwrap()]);
        };
        let done = fetch(&client_of(kind, follow), &get).await;
        assert_eq!((code(&done), done.size), (0, 5), "{:?}", done.failed);
        let head = done.head.unwrap();
        assert_eq!((head.redirects, head.url.path(), head.url.host_str()), (2, "/end", Some("other.test")));
        assert!(server.requests().iter().all(|r| r.headers.contains_key("authorization")));
        assert_eq!((server.requests().len(), server.requests()[1].path.as_str()), (2, "/b?x"));
        assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the body of a redirect is read, its connection used");
        let last = &other.requests()[0].headers;
        assert!(!last.contains_key("authorization") && !last.contains_key("cookie") && last.contains_key("x-mine"));
        // Without leave to follow, the redirect is the answer.
        assert_eq!(code(&fetch(&client_of(kind, |_| {}), &get).await), 8);
    }

    async fn a_post_becomes_a_get_where_the_rfc_says_so(kind: Kind) {
        let server = Server::start(kind, at_once(|r| match r.uri().path() {
            "/303" => answer(303, &[("location", "/end")], ""),
            "/308" => answer(308, &[("location", "/end")], ""),
            _ => answer(200, &[], r.into_body()),
        })).await;
        for (path, method, size) in [("/303", Method::GET, 0), ("/308", Method::POST, 4)] {
            let mut post = job(&server.url(path), Sink::Nothing);
            (post.method, post.payload) = (Method::POST, Payload::Bytes(Bytes::from("body")));
            let done = fetch(&client_of(kind, |o| o.redirects = Some(3)), &post).await;
            assert_eq!((code(&done), done.size), (0, size), "{path}");
            assert_eq!(server.requests().last().unwrap().method, method, "{path}");
        }
    }

    async fn redirects_without_end_and_out_of_https_are_code_10(kind: Kind) {
        let server = Server::start(kind, at_once(|r| match r.uri().path() {
            "/out" => answer(301, &[("location", "http://localhost/")], ""),
            _ => answer(301, &[("location", "/round")], ""),
        })).await;
        let c = client_of(kind, |o| o.redirects = Some(4));
        assert_eq!(code(&fetch(&c, &job(&server.url("/round"), Sink::Nothing)).await), 10);
        assert_eq!(server.requests().len(), 5);
        assert_eq!(code(&fetch(&c, &job(&server.url("/out"), Sink::Nothing)).await), 10);
    }

    async fn compressed_answers_are_undone_when_asked_for(kind: Kind) {
        let text = b"courser ".repeat(100_000);
        let coded = gzip(&text).await;
        let server = Server::start(kind, at_once(move |r| {
            let wanted = r.headers().get("accept-encoding").is_some_and(|v| v.to_str().unwrap().contains("gzip"));
            let mut coded = coded.clone();
            if r.uri().path() == "/damaged" {
                // The checksum.
                let at = coded.len() - 8;
                coded[at] ^= 1;
            }
            if wanted { answer(200, &[("content-encoding", "gzip")], coded) } else { answer(200, &[], "plain") }
        })).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let c = client_of(kind, |o| o.compressed = true);
        let done = fetch(&c, &job(&server.url("/damaged"), Sink::File(file.clone()))).await;
        assert_eq!((code(&done), file.exists()), (6, false), "{:?}", done.failed);
        let done = fetch(&c, &job(&server.url("/"), Sink::File(file.clone()))).await;
        assert_eq!((code(&done), std::fs::read(&file).unwrap() == text), (0, true), "{:?}", done.failed);
        let done = fetch(&client_of(kind, |_| {}), &job(&server.url("/"), Sink::File(file.clone()))).await;
        assert_eq!((code(&done), std::fs::read(&file).unwrap()), (0, b"plain".to_vec()));
    }

    async fn trailers_are_kept(kind: Kind) {
        let server = Server::start(kind, Arc::new(|_| Box::pin(async {
            let (pen, body) = written();
            tokio::spawn(async move {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("7"));
                for frame in [Frame::data(Bytes::from("body")), Frame::trailers(trailers)] {
                    pen.send(Ok(frame)).await.unwrap();
                }
            });
            with_body(200, &[("trailer", "x-sum")], body)
        }))).await;
        let mut get = job(&server.url("/"), Sink::Nothing);
        get.headers.insert("te", HeaderValue::from_static("trailers"));
        let done = fetch(&client_of(kind, |_| {}), &get).await;
        assert_eq!((code(&done), done.size), (0, 4));
        assert_eq!(done.trailers.unwrap()["x-sum"], "7");
    }

    async fn a_slow_origin_that_moves_is_waited_for(kind: Kind) {
        let server = Server::start(kind, Arc::new(|_| Box::pin(async {
            let (pen, body) = written();
            tokio::spawn(async move {
                for _ in 0..8 {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    pen.send(Ok(Frame::data(Bytes::from("x")))).await.unwrap();
                }
            });
            with_body(200, &[], body)
        }))).await;
        let done = fetch(&client_of(kind, |o| o.stall_timeout = Duration::from_millis(400)), &job(&server.url("/"), Sink::Nothing)).await;
        assert_eq!((code(&done), done.size), (0, 8), "{:?}", done.failed);
    }

    async fn many_jobs_use_few_connections(kind: Kind) {
        let server = Server::start(kind, at_once(|r| answer(200, &[], pattern(r.uri().path().len() * 1000)))).await;
        let folder = tempfile::tempdir().unwrap();
        let jobs: Vec<_> = (0..20).map(|n| {
            let name = format!("f{}", "x".repeat(n));
            (job(&server.url(&format!("/{name}")), Sink::File(folder.path().join(name))), Meter::default())
        }).collect();
        let c = Arc::new(client_of(kind, |_| {}));
        let mut ended = 0;
        let all = batch::run(&c, jobs, 4, |_, _| ended += 1).await;
        assert_eq!((all.len(), ended), (20, 20));
        for (n, done) in all.iter().enumerate() {
            assert_eq!((code(done), done.size), (0, (n as u64 + 2) * 1000), "{:?}", done.failed);
        }
        let connections = server.connections.load(Ordering::SeqCst);
        let bound = if kind == Kind::H1 { 8 } else { 1 };
        assert!(connections <= bound, "{connections} connections");
        assert_eq!(names(folder.path()).len(), 20);
        c.close().await.unwrap();
    }
}

async fn gzip(text: &[u8]) -> Vec<u8> {
    use async_compression::tokio::bufread::GzipEncoder;
    use tokio::io::AsyncReadExt;

    let mut coded = Vec::new();
    GzipEncoder::new(text).read_to_end(&mut coded).await.unwrap();
    coded
}

#[tokio::test]
async fn two_answers_never_share_a_file() {
    let jobs = [job("https://a/x", Sink::File("x".into())), job("https://b/x", Sink::File("x".into()))];
    assert_eq!(batch::check(&jobs).unwrap_err().code(), 2);
    assert!(batch::check(&jobs[..1]).is_ok());
}

#[tokio::test]
async fn informational_answers_are_heard_over_http_3() {
    let handler = Arc::new(|request: http::Request<bytes::Bytes>| {
        let exchange = request.extensions().get::<courser::h3::Exchange>().unwrap();
        for n in 0..40 {
            let hint = http::Response::builder().status(103).header("link", format!("</{n}>")).body(()).unwrap();
            exchange.send_informational(hint).unwrap();
        }
        let answer: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async { answer(200, &[], "ok") });
        answer
    });
    let server = Server::start(Kind::H3, handler).await;
    let c = client_of(Kind::H3, |_| {});
    let done = fetch(&c, &job(&server.url("/"), Sink::Nothing)).await;
    assert_eq!((code(&done), done.size), (0, 2), "{:?}", done.failed);
    let heard = done.head.unwrap().informational;
    assert_eq!((heard.len(), &heard[3].headers["link"]), (16, &http::HeaderValue::from_static("</3>")));
    c.close().await.unwrap();
}
