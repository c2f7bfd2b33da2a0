//! Events of HTTP/3 in traces: what the drafts ask for, in their place, and without what is nobody's business.

use std::time::Duration;

use bytes::Bytes;
use courser::aio::Endpoint;
use courser::certs::Throwaway;
use courser::h3::{ALPN, BoxError, Client, Config, Exchange, Full, RecvBody, Server, Session, SessionBody, service_fn};
use courser::{ClientOptions, ServerOptions, tls};
use courser_core::stream::Priority;
use http::{Request, Response};
use http_body_util::Either;

use super::*;

/// Nothing of it may be in a trace.
const SECRET: &str = "hunter2-never-to-be-seen";

async fn answer(request: Request<RecvBody>) -> Result<Response<Either<Full, SessionBody>>, BoxError> {
    if request.method() == http::Method::CONNECT {
        let (session, response) = Session::accept(request)?;
        tokio::spawn(async move {
            while let Some(datagram) = session.recv_datagram().await {
                session.send_datagram(&datagram);
            }
        });
        return Ok(response.map(Either::Right));
    }
    let exchange = request.extensions().get::<Exchange>().cloned().ok_or("no exchange")?;
    exchange.set_priority(Priority { urgency: 1, incremental: false });
    let (head, body) = request.into_parts();
    let body = body.read_to_end(1 << 20).await?;
    assert_eq!(head.headers["authorization"], SECRET);
    let response = Response::builder().header("set-cookie", SECRET).header("content-type", "text/plain");
    Ok(response.body(Either::Left(Full::from(body)))?)
}

/// A few requests and a session between two ends that write traces.
async fn talk(qlog: &Qlog) {
    let identity = Throwaway::local().unwrap();
    let (cert, key) = (identity.certificate_pem(), identity.key_pem());
    let credentials = tls::Credentials::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let tls = tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).build().unwrap();
    let options = ServerOptions::new(tls).qlog(qlog.clone());
    let server = Endpoint::server("127.0.0.1:0".parse().unwrap(), options).unwrap();
    let config = Config { webtransport_sessions: 4, datagrams: true, ..Config::default() };
    let (endpoint, serving) = (server.clone(), Server::default().config(config.clone()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let stopped = async { _ = stopped.await };
        serving.serve(&endpoint, service_fn(answer), stopped).await;
    });
    let roots = tls::Roots::empty().add_der(identity.certificate_der()).unwrap();
    let tls = tls::ClientConfig::builder().roots(roots).alpn([ALPN]).build().unwrap();
    let client = Endpoint::client(ClientOptions::new(tls).qlog(qlog.clone())).unwrap();
    let connection = client.connect_to(server.local_addr(), "localhost").unwrap().await.unwrap();
    let (mut requests, driving) = Client::default().config(config).start(connection);
    let driven = tokio::spawn(driving);
    for i in 0..3 {
        let request = Request::post(format!("https://localhost/form{i}?token={SECRET}"))
            .header("authorization", SECRET)
            .header("priority", "u=2")
            .body(Full::from(Bytes::from(vec![b'x'; 5000])))
            .unwrap();
        let response = requests.send(request).await.unwrap();
        assert_eq!(response.into_body().read_to_end(1 << 20).await.unwrap().len(), 5000);
    }
    let request = Request::get("https://localhost/chat").body(Full::default()).unwrap();
    let (session, _) = requests.web_transport(request).await.unwrap();
    assert!(session.send_datagram(b"ping"));
    assert_eq!(session.recv_datagram().await.unwrap(), "ping");
    drop((session, requests));
    // The server says goodbye, and the connection ends.
    stop.send(()).unwrap();
    driven.await.unwrap().unwrap();
    served.await.unwrap();
    server.wait_idle().await;
    client.wait_idle().await;
}

#[test]
fn what_http_3_does_is_in_the_trace_of_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let qlog = open(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), talk(&qlog)).await.unwrap() });
    drop(runtime);
    assert!(qlog.flush(Duration::from_secs(60)));
    assert_eq!(qlog.stats().dropped, 0);
    let (schema, paths) = (schema(), files(dir.path()));
    assert_eq!(paths.len(), 2);
    for path in &paths {
        let names = judge(&schema, path);
        let both = ["parameters_set", "stream_type_set", "frame_created", "frame_parsed", "datagram_created"];
        for name in both.into_iter().chain(["datagram_parsed"]) {
            assert!(names.contains(&format!("http3:{name}")), "{}: no {name}: {names:?}", path.display());
        }
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains(SECRET), "{}: a secret", path.display());
        assert!(text.contains(r#""name":":path","value":"/form1"}"#) && text.contains(r#"{"name":"authorization"}"#));
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{}: no {what}", path.display()));
        assert!(at("http3:parameters_set") < at(r#""stream_type":"control""#), "settings stand first");
        assert!(at(r#""stream_type":"control""#) < at(r#""frame_type":"settings""#));
        let all = records(path);
        let times: Vec<f64> = all[1..].iter().map(|e| e["time"].as_f64().unwrap()).collect();
        assert!(times.is_sorted(), "{}: events are in order", path.display());
        // The first request's frame stands before the bytes that it moves, and behind them where it is read.
        let place = |f: &dyn Fn(&Value) -> bool| all.iter().position(f).unwrap();
        let of_request = |name: &str| {
            place(&|e| {
                e["name"] == name && e["data"]["stream_id"] == 0 && e["data"]["frame"]["frame_type"] == "headers"
            })
        };
        let moved = place(&|e| e["name"] == "quic:stream_data_moved" && e["data"]["stream_id"] == 0);
        if path.to_string_lossy().contains("client") {
            assert!(of_request("http3:frame_created") < moved);
        } else {
            assert!(moved < of_request("http3:frame_parsed"));
            assert!(names.contains("http3:priority_updated"));
            assert!(text.contains(r#""new":"u=2""#) && text.contains(r#""trigger":"local""#), "both are told");
            assert!(text.contains(r#""frame_type":"goaway""#));
        }
    }
}
