//! HTTP/3 over loopback: the Tokio client against the Tokio server.
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::{Identity, PATIENCE, loopback, pattern};
use courser::aio::{Connection, Endpoint};
use courser::h3::{
    ALPN, BoxError, Client, Code, Config, Error, Exchange, Full, Informational, RecvBody, SendRequest, Server,
    service_fn,
};
use courser::{ClientOptions, Settings, tls};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A body whose frames come over a channel; an error in it fails the body.
struct Piped(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl Body for Piped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

type Feed = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

fn piped() -> (Feed, Piped) {
    let (feed, body) = mpsc::channel(4);
    (feed, Piped(body))
}

/// Any body, as the services here answer with several.
type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

struct Mapped<B>(Pin<Box<B>>);

impl<B: Body<Data = Bytes>> Body for Mapped<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.as_mut().poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

fn any<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Box::pin(Mapped(Box::pin(body)))
}

fn text(text: &'static str) -> Response<AnyBody> {
    Response::new(any(Full::from(text)))
}

/// A server with a service, and a client's connection to it.
struct Rig {
    requests: SendRequest,
    connection: Connection,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
    driving: JoinHandle<Result<(), Error>>,
    endpoint: Endpoint,
    server: Endpoint,
    identity: Identity,
}

async fn rig<F, Fut>(server: Server, client: Client, service: F) -> Rig
where
    F: Fn(Request<RecvBody>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Response<AnyBody>, BoxError>> + Send + 'static,
{
    let identity = Identity::new();
    let pem = (identity.0.certificate_pem(), identity.0.key_pem());
    let credentials = tls::Credentials::from_pem(pem.0.as_bytes(), pem.1.as_bytes()).unwrap();
    let config = tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).build().unwrap();
    let endpoint = Endpoint::server(loopback(), courser::ServerOptions::new(config)).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = {
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            server.serve(&endpoint, service_fn(service), async { drop(stopped.await) }).await;
        })
    };
    let (connection, client_end) = connect(&identity, &endpoint).await;
    let (requests, driving) = client.start(connection.clone());
    let driving = tokio::spawn(driving);
    Rig { requests, connection, stop: Some(stop), serving, driving, endpoint: client_end, server: endpoint, identity }
}

async fn connect(identity: &Identity, server: &Endpoint) -> (Connection, Endpoint) {
    let roots = tls::Roots::empty().add_der(identity.0.certificate_der()).unwrap();
    let config = tls::ClientConfig::builder().roots(roots).alpn([ALPN]).build().unwrap();
    let endpoint = Endpoint::client(ClientOptions::new(config)).unwrap();
    let connection = endpoint.connect_to(server.local_addr(), "localhost").unwrap().await.unwrap();
    (connection, endpoint)
}

/// Runs a test's future, which fails rather than hangs, in a runtime with one thread and in one with two.
fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    single.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    several.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
}

fn get(path: &str) -> Request<Full> {
    Request::get(format!("https://localhost{path}")).body(Full::default()).unwrap()
}

/// Echoes bodies and trailers; the path says what else is wanted.
async fn demo(request: Request<RecvBody>) -> Result<Response<AnyBody>, BoxError> {
    let (head, body) = request.into_parts();
    Ok(match head.uri.path() {
        "/echo" => Response::new(any(body)),
        "/nothing" => Response::builder().status(204).body(any(Full::default()))?,
        "/fails" => return Err("out of order".into()),
        "/panics" => panic!("this is what the test wants"),
        "/panics/later" => {
            tokio::task::yield_now().await;
            panic!("this is what the test wants")
        }
        "/early" => {
            let exchange = head.extensions.get::<Exchange>().unwrap();
            let hints = Response::builder().status(103).header("link", "</style.css>; rel=preload").body(())?;
            exchange.send_informational(hints)?;
            text("final")
        }
        "/who" => Response::builder()
            .header("x-method", head.method.as_str())
            .header("x-query", head.uri.query().unwrap_or(""))
            .header("x-authority", head.uri.authority().unwrap().as_str())
            .body(any(Full::from("hello\n")))?,
        _ => Response::builder().status(404).body(any(Full::from("not found\n")))?,
    })
}

#[test]
fn a_request_is_answered() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), demo).await;
        let response = rig.requests.send(get("/who?a=1")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-method"], "GET");
        assert_eq!(response.headers()["x-query"], "a=1");
        assert_eq!(response.headers()["x-authority"], "localhost");
        assert_eq!(response.headers()["content-length"], "6");
        assert!(response.headers().contains_key("date"));
        assert_eq!(response.into_body().read_to_end(100).await.unwrap(), "hello\n");
        let missing = rig.requests.send(get("/missing")).await.unwrap();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        assert_eq!(missing.into_body().read_to_end(100).await.unwrap(), "not found\n");
    });
}

#[test]
fn messages_without_content_end_at_once() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), demo).await;
        let head = Request::head("https://localhost/who").body(Full::default()).unwrap();
        let response = rig.requests.send(head).await.unwrap();
        assert_eq!(response.headers()["content-length"], "6");
        assert_eq!(response.into_body().read_to_end(100).await.unwrap(), "");
        let response = rig.requests.send(get("/nothing")).await.unwrap();
        assert_eq!((response.status(), response.body().is_end_stream()), (StatusCode::NO_CONTENT, true));
        assert!(!response.headers().contains_key("content-length"));
    });
}

#[test]
fn a_large_body_goes_both_ways_at_once_with_trailers() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), demo).await;
        let sent = Bytes::from(pattern(3, 5 << 20));
        let (feed, body) = piped();
        let request = Request::post("https://localhost/echo").body(body).unwrap();
        let all = sent.clone();
        let feeding = tokio::spawn(async move {
            for at in (0..all.len()).step_by(70_001) {
                let piece = all.slice(at..(at + 70_001).min(all.len()));
                feed.send(Ok(Frame::data(piece))).await.unwrap();
            }
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]);
            feed.send(Ok(Frame::trailers(trailers))).await.unwrap();
        });
        let mut response = rig.requests.send(request).await.unwrap().into_body();
        let (mut got, mut trailers) = (Vec::new(), None);
        while let Some(frame) = response.frame().await {
            match frame.unwrap().into_data() {
                Ok(data) => got.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert!(got == sent);
        assert_eq!(trailers.unwrap()["x-sum"], "42");
        feeding.await.unwrap();
    });
}

#[test]
fn many_requests_at_once_are_each_answered_with_their_own() {
    run(|| async {
        let rig = rig(Server::default(), Client::default(), demo).await;
        let tasks: Vec<_> = (0..200)
            .map(|i| {
                let mut requests = rig.requests.clone();
                tokio::spawn(async move {
                    let request =
                        Request::post("https://localhost/echo").body(Full::from(format!("number {i}"))).unwrap();
                    let response = requests.send(request).await.unwrap();
                    (i, response.into_body().read_to_end(1000).await.unwrap())
                })
            })
            .collect();
        for task in tasks {
            let (i, body) = task.await.unwrap();
            assert_eq!(body, format!("number {i}"));
        }
        assert_eq!(rig.requests.connection().close_reason(), None);
    });
}

#[test]
fn informational_responses_come_before_the_final_one() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), demo).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut request = get("/early");
        let theirs = Arc::clone(&seen);
        request.extensions_mut().insert(Informational::new(move |response| theirs.lock().unwrap().push(response)));
        let response = rig.requests.send(request).await.unwrap();
        assert_eq!(response.into_body().read_to_end(100).await.unwrap(), "final");
        let seen = seen.lock().unwrap();
        assert_eq!((seen.len(), seen[0].status().as_u16()), (1, 103));
        assert_eq!(seen[0].headers()["link"], "</style.css>; rel=preload");
    });
}

#[test]
fn a_service_that_fails_or_panics_resets_its_stream_and_no_other() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), demo).await;
        for path in ["/fails", "/panics", "/panics/later"] {
            let failed = rig.requests.send(get(path)).await.unwrap_err();
            assert!(matches!(failed, Error::Reset(Code::INTERNAL_ERROR)), "{path}: {failed}");
        }
        assert_eq!(rig.requests.send(get("/who")).await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_body_that_fails_midway_is_not_a_complete_one() {
    run(|| async {
        let (fail, failing) = mpsc::channel::<()>(1);
        let failing = Arc::new(tokio::sync::Mutex::new(failing));
        let mut rig = rig(Server::default(), Client::default(), move |_| {
            let failing = Arc::clone(&failing);
            async move {
                let (feed, body) = piped();
                tokio::spawn(async move {
                    feed.send(Ok(Frame::data(Bytes::from_static(b"the beginning")))).await.unwrap();
                    failing.lock().await.recv().await;
                    feed.send(Err("no more".into())).await.unwrap();
                });
                Ok(Response::new(any(body)))
            }
        })
        .await;
        let mut body = rig.requests.send(get("/")).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "the beginning");
        fail.send(()).await.unwrap();
        let end = body.read_to_end(1000).await.unwrap_err();
        assert!(matches!(end, Error::Reset(Code::INTERNAL_ERROR)), "{end}");
    });
}

#[test]
fn a_request_that_is_dropped_stops_the_work_for_it() {
    run(|| async {
        let (began, mut has_begun) = mpsc::unbounded_channel();
        let (dropped, mut was_dropped) = mpsc::unbounded_channel();
        let mut rig = rig(Server::default(), Client::default(), move |_| {
            struct Tell(mpsc::UnboundedSender<()>);
            impl Drop for Tell {
                fn drop(&mut self) {
                    let _ = self.0.send(());
                }
            }
            let (began, tell) = (began.clone(), Tell(dropped.clone()));
            async move {
                let _tell = tell;
                began.send(()).unwrap();
                std::future::pending::<()>().await;
                Ok(text("never"))
            }
        })
        .await;
        let waiting = tokio::spawn(rig.requests.send(get("/slow")));
        has_begun.recv().await.unwrap();
        waiting.abort();
        was_dropped.recv().await.unwrap();
        assert_eq!(rig.connection.close_reason(), None);
    });
}

#[test]
fn a_response_that_is_dropped_stops_its_sender() {
    run(|| async {
        let (stopped, mut was_stopped) = mpsc::unbounded_channel();
        let mut rig = rig(Server::default(), Client::default(), move |_| {
            let stopped = stopped.clone();
            async move {
                let (feed, body) = piped();
                tokio::spawn(async move {
                    while feed.send(Ok(Frame::data(Bytes::from_static(&[7; 10_000])))).await.is_ok() {}
                    stopped.send(()).unwrap();
                });
                Ok(Response::new(any(body)))
            }
        })
        .await;
        let mut body = rig.requests.send(get("/endless")).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        was_stopped.recv().await.unwrap();
        assert_eq!(rig.connection.close_reason(), None);
    });
}

#[test]
fn a_reader_that_waits_holds_the_sender_back() {
    run(|| async {
        let sent = Arc::new(Mutex::new(0));
        let ours = Arc::clone(&sent);
        let mut rig = rig(Server::default(), Client::default(), move |_| {
            let sent = Arc::clone(&ours);
            async move {
                let (feed, body) = piped();
                tokio::spawn(async move {
                    for _ in 0..1000 {
                        if feed.send(Ok(Frame::data(Bytes::from_static(&[7; 100_000])))).await.is_err() {
                            return;
                        }
                        *sent.lock().unwrap() += 100_000;
                    }
                });
                Ok(Response::new(any(body)))
            }
        })
        .await;
        let response = rig.requests.send(get("/large")).await.unwrap();
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = *sent.lock().unwrap();
            if now == before && now > 0 {
                break;
            }
            before = now;
        }
        // Windows of 16 MiB at the reader and 32 MiB at the writer, and half a MiB between each and its worker.
        assert!(before < 53_000_000, "{before} bytes were taken while nobody read");
        let all = response.into_body().read_to_end(200_000_000).await.unwrap();
        assert_eq!(all.len(), 100_000_000);
    });
}

#[test]
fn a_shutdown_answers_what_was_asked_and_refuses_the_rest() {
    run(|| async {
        let (release, released) = oneshot::channel::<()>();
        let released = Arc::new(tokio::sync::Mutex::new(Some(released)));
        let mut rig = rig(Server::default(), Client::default(), move |request: Request<RecvBody>| {
            let released = Arc::clone(&released);
            async move {
                if request.uri().path() == "/slow" {
                    let released = released.lock().await.take().unwrap();
                    released.await.unwrap();
                }
                Ok(text("done"))
            }
        })
        .await;
        let slow = tokio::spawn(rig.requests.send(get("/slow")));
        assert_eq!(rig.requests.send(get("/quick")).await.unwrap().status(), StatusCode::OK);
        rig.stop.take().unwrap().send(()).unwrap();
        while rig.requests.is_open() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = rig.requests.send(get("/late")).await.unwrap_err();
        assert!(refused.is_safe_to_retry(), "{refused}");
        release.send(()).unwrap();
        let response = slow.await.unwrap().unwrap();
        assert_eq!(response.into_body().read_to_end(100).await.unwrap(), "done");
        rig.driving.await.unwrap().unwrap();
        rig.serving.await.unwrap();
    });
}

#[test]
fn a_request_behind_the_end_of_a_drained_connection_may_be_made_again() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), demo).await;
        rig.stop.take().unwrap().send(()).unwrap();
        rig.driving.await.unwrap().unwrap();
        let refused = rig.requests.send(get("/late")).await.unwrap_err();
        assert!(refused.is_safe_to_retry(), "{refused}");
    });
}

#[test]
fn a_client_that_drops_its_handles_ends_the_connection_behind_its_last_answer() {
    run(|| async {
        // The server's stop is held: dropped, it would drain, and the client might end the connection before its request.
        let Rig { mut requests, driving, endpoint: _e, server: _s, connection, stop: _stop, .. } =
            rig(Server::default(), Client::default(), demo).await;
        let response = requests.send(get("/who")).await.unwrap();
        drop(requests);
        assert_eq!(response.into_body().read_to_end(100).await.unwrap(), "hello\n");
        driving.await.unwrap().unwrap();
        assert_eq!(connection.closed().await.application().map(|(code, _)| code), Some(Code::NO_ERROR.0));
    });
}

#[test]
fn a_head_that_does_not_come_and_a_body_that_stalls_are_given_up() {
    run(|| async {
        let server =
            Server::default().head_timeout(Duration::from_millis(200)).stall_timeout(Duration::from_millis(200));
        let (failed, mut failures) = mpsc::unbounded_channel();
        let mut rig = rig(server, Client::default(), move |request: Request<RecvBody>| {
            let failed = failed.clone();
            async move {
                let outcome = request.into_body().read_to_end(1000).await;
                failed.send(outcome.unwrap_err().to_string()).unwrap();
                Ok(text("gave up"))
            }
        })
        .await;
        // A stream on which a head begins and never ends.
        let (raw, _raw_end) = connect(&rig.identity, &rig.server).await;
        let (mut send, mut recv) = raw.open_bi().await.unwrap();
        send.write_chunk(Bytes::from_static(&[1, 100, 0])).await.unwrap();
        assert_eq!(send.stopped().await.unwrap(), Some(Code::REQUEST_INCOMPLETE.0));
        assert!(
            matches!(recv.read_chunk().await, Err(courser::ReadError::Reset(code)) if code == Code::REQUEST_INCOMPLETE.0)
        );
        // A body that never goes on.
        let (feed, body) = piped();
        let sending = rig.requests.send(Request::post("https://localhost/").body(body).unwrap());
        let sending = tokio::spawn(sending);
        feed.send(Ok(Frame::data(Bytes::from_static(b"first")))).await.unwrap();
        assert!(failures.recv().await.unwrap().contains("took too long"));
        assert!(sending.await.unwrap().is_err());
    });
}

#[test]
fn a_request_without_a_host_is_refused_before_it_is_sent() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), demo).await;
        let request = Request::get("/who").body(Full::default()).unwrap();
        let e = rig.requests.send(request).await.unwrap_err();
        assert!(matches!(e, Error::Misuse(_)), "{e}");
        assert_eq!(rig.requests.send(get("/who")).await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn connect_is_a_tunnel_both_ways() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), |request: Request<RecvBody>| async move {
            assert_eq!(
                (request.method(), request.uri().authority().unwrap().as_str()),
                (&Method::CONNECT, "example.org:25")
            );
            Ok(Response::new(any(request.into_body())))
        })
        .await;
        let (feed, body) = piped();
        let request = Request::connect("example.org:25").body(body).unwrap();
        let mut tunnel = rig.requests.send(request).await.unwrap().into_body();
        for word in ["helo", "quit"] {
            feed.send(Ok(Frame::data(Bytes::from(word)))).await.unwrap();
            assert_eq!(tunnel.frame().await.unwrap().unwrap().into_data().unwrap(), word);
        }
        drop(feed);
        assert!(tunnel.frame().await.is_none());
    });
}

#[test]
fn datagrams_of_a_request_come_back() {
    run(|| async {
        let config = Config { datagrams: true, ..Config::default() };
        let (server, client) = (Server::default().config(config.clone()), Client::default().config(config));
        let mut rig = rig(server, client, |request: Request<RecvBody>| async move {
            let exchange = request.extensions().get::<Exchange>().unwrap().clone();
            tokio::spawn(async move {
                while let Some(datagram) = exchange.recv_datagram().await {
                    exchange.send_datagram(&datagram);
                }
            });
            Ok(Response::new(any(request.into_body())))
        })
        .await;
        let _ = Settings::default();
        let (feed, body) = piped();
        let mut request = Request::connect("https://localhost/ask").body(body).unwrap();
        request.extensions_mut().insert(courser::h3::Protocol::new("test").unwrap());
        let response = rig.requests.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        drop(feed);
    });
}

#[test]
fn a_request_whose_body_fails_tells_who_waits_for_the_answer() {
    run(|| async {
        let mut rig = rig(Server::default(), Client::default(), |request| async move {
            // Answers at once, and says nothing until the request is over.
            let (feed, body) = piped();
            tokio::spawn(async move {
                drop((request.into_body().read_to_end(1000).await, feed));
            });
            Ok(Response::new(any(body)))
        })
        .await;
        let (feed, body) = piped();
        let request = Request::post("https://localhost/").body(body).unwrap();
        let mut answer = rig.requests.send(request).await.unwrap().into_body();
        let waiting = tokio::spawn(async move { answer.frame().await.unwrap().map(drop) });
        // On one thread the other task waits by now.
        tokio::task::yield_now().await;
        feed.send(Err("enough".into())).await.unwrap();
        let told = timeout(PATIENCE / 4, waiting).await.expect("who waits is told");
        assert!(told.unwrap().is_err());
    });
}
