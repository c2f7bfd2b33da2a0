//! A server and a client for measuring requests over HTTP/3, with the command line of the programs around other stacks
//! (tools/bench/h3-peers, tools/bench/h3.py):
//!
//! ```text
//! h3_load server --listen IP:PORT --cert PEM --key PEM [--body N]
//! h3_load client --connect IP:PORT --count N --concurrency C [--body N]
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use courser::aio::Endpoint;
use courser::h3::{ALPN, Client, Full, RecvBody, SendRequest, Server, service_fn};
use courser::{ClientOptions, ServerOptions, tls};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, SERVER, VARY};
use http::{HeaderMap, Request, Response};

type AnyError = Box<dyn std::error::Error>;

/// Fields of every request behind its pseudo-header fields: about what a browser sends.
const REQUEST: [(&str, &str); 7] = [
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cookie", "session=4f2c8d1e9a7b6c5d; theme=dark; consent=1"),
    ("referer", "https://localhost/start"),
    ("cache-control", "no-cache"),
];

struct Opts {
    server: bool,
    addr: SocketAddr,
    cert: String,
    key: String,
    count: u64,
    concurrency: u64,
    body: usize,
}

fn opts() -> Result<Opts, AnyError> {
    let mut args = std::env::args().skip(1);
    let server = match args.next().as_deref() {
        Some("server") => true,
        Some("client") => false,
        _ => return Err("the first word is server or client".into()),
    };
    let mut o = Opts {
        server,
        addr: ([127, 0, 0, 1], 4433).into(),
        cert: String::new(),
        key: String::new(),
        count: 100_000,
        concurrency: 32,
        body: 100,
    };
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("{name} has no value"))?;
        match name.as_str() {
            "--listen" | "--connect" => o.addr = value.parse()?,
            "--cert" => o.cert = value,
            "--key" => o.key = value,
            "--count" => o.count = value.parse()?,
            "--concurrency" => o.concurrency = value.parse()?,
            "--body" => o.body = value.parse()?,
            _ => return Err(format!("{name} is not known").into()),
        }
    }
    Ok(o)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    let o = opts()?;
    if o.server { server(&o).await } else { client(&o).await }
}

async fn server(o: &Opts) -> Result<(), AnyError> {
    let credentials = tls::Credentials::from_pem_files(&o.cert, &o.key)?;
    let tls =
        tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).groups(&[tls::Group::X25519]).build()?;
    let endpoint = Endpoint::server(o.addr, ServerOptions::new(tls))?;
    let body = Bytes::from(vec![b'x'; o.body]);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(SERVER, HeaderValue::from_static("bench"));
    headers.insert(ETAG, HeaderValue::from_static("\"5e8c2a-64f1\""));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    println!("ready");
    let service = service_fn(move |_: Request<RecvBody>| {
        let mut response = Response::new(Full::from(body.clone()));
        response.headers_mut().clone_from(&headers);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    Server::default().serve(&endpoint, service, std::future::pending()).await;
    Ok(())
}

async fn client(o: &Opts) -> Result<(), AnyError> {
    let tls = tls::ClientConfig::builder()
        .danger_accept_any_certificate()
        .alpn([ALPN])
        .groups(&[tls::Group::X25519])
        .build()?;
    let endpoint = Endpoint::client(ClientOptions::new(tls))?;
    let connection = endpoint.connect_to(o.addr, "localhost")?.await?;
    let (requests, driving) = Client::default().start(connection.clone());
    tokio::spawn(driving);
    run(&requests, o, (o.count / 10).max(o.concurrency)).await;
    let (before, began) = (connection.stats().await, Instant::now());
    let mut times = run(&requests, o, o.count).await;
    let seconds = began.elapsed().as_secs_f64();
    let after = connection.stats().await;
    times.sort_unstable();
    let at = |q: f64| times[((times.len() as f64 * q) as usize).min(times.len() - 1)].as_secs_f64() * 1e6;
    let n = times.len() as f64;
    println!(
        "{{\"stack\":\"courser\",\"count\":{},\"concurrency\":{},\"requests_per_s\":{:.0},\"p50_us\":{:.1},\"p99_us\":{:.1},\
         \"sent_per_request\":{:.1},\"received_per_request\":{:.1}}}",
        times.len(),
        o.concurrency,
        n / seconds,
        at(0.5),
        at(0.99),
        (after.sent.bytes - before.sent.bytes) as f64 / n,
        (after.received.bytes - before.received.bytes) as f64 / n,
    );
    Ok(())
}

async fn run(requests: &SendRequest, o: &Opts, count: u64) -> Vec<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> =
        (0..o.concurrency).map(|_| tokio::spawn(worker(requests.clone(), Arc::clone(&next), count, o.body))).collect();
    let mut all = Vec::new();
    for task in tasks {
        all.append(&mut task.await.expect("a worker does not panic"));
    }
    all
}

async fn worker(mut requests: SendRequest, next: Arc<AtomicU64>, count: u64, want: usize) -> Vec<Duration> {
    let fields: Vec<(HeaderName, HeaderValue)> =
        REQUEST.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
    let mut times = Vec::new();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= count {
            return times;
        }
        let began = Instant::now();
        let mut request =
            Request::get(format!("https://localhost/items/{}", n % 1000)).body(Full::default()).expect("valid");
        request.headers_mut().extend(fields.iter().cloned());
        let response = requests.send(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            got += frame.expect("the body").into_data().map_or(0, |data| data.len());
        }
        assert_eq!(got, want);
        times.push(began.elapsed());
    }
}
