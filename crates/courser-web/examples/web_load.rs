//! A client that asks a web server for one address again and again, over each version of HTTP, and an origin for proxies; for
//! measuring with tools/bench/serve.py:
//!
//! ```text
//! web_load client --url https://127.0.0.1:PORT/PATH --http 1|2|3 --count N --concurrency C
//! web_load origin --listen IP:PORT --body N
//! ```
//!
//! HTTP/1.1 has a connection for each request at a time, later versions one for all. Certificates are not checked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use courser::aio::Endpoint;
use courser::{ClientOptions, h3, tls};
use courser_web::config::Proxy;
use courser_web::proxy::connect::Connector;
use http::{Request, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Requests before the clock runs, each way.
const WARM_UP: u64 = 200;

/// Something that makes requests.
#[derive(Clone)]
enum Asker {
    Tcp(Box<Client<Connector, Empty<Bytes>>>),
    Quic(h3::SendRequest),
}

impl Asker {
    /// Asks once; the bytes of the answer.
    async fn ask(&mut self, uri: &Uri) -> Result<u64, AnyError> {
        match self {
            Self::Tcp(client) => {
                let response = client.get(uri.clone()).await?;
                if !response.status().is_success() {
                    return Err(format!("the answer is {}", response.status()).into());
                }
                length(response.into_body()).await
            }
            Self::Quic(requests) => {
                let response = requests.send(Request::get(uri.clone()).body(h3::Full::default())?).await?;
                if !response.status().is_success() {
                    return Err(format!("the answer is {}", response.status()).into());
                }
                length(response.into_body()).await
            }
        }
    }
}

async fn length<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<u64, AnyError>
where
    B::Error: Into<AnyError>,
{
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.map_err(Into::into)?.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(bytes)
}

async fn asker(uri: &Uri, version: &str) -> Result<Asker, AnyError> {
    if version == "3" {
        let tls = tls::ClientConfig::builder().danger_accept_any_certificate().alpn([h3::ALPN]).build()?;
        let endpoint = Endpoint::client(ClientOptions::new(tls))?;
        let address = uri.authority().ok_or("no host")?.as_str().parse()?;
        let connection = endpoint.connect_to(address, "localhost")?.await?;
        let (requests, driving) = h3::Client::default().start(connection);
        tokio::spawn(async move {
            let _ = driving.await;
            drop(endpoint);
        });
        return Ok(Asker::Quic(requests));
    }
    let origin = format!("https://{}", uri.authority().ok_or("no host")?);
    let config = Proxy { origin: origin.clone(), insecure: true, http2: version == "2", ..Proxy::default() };
    let connector = Connector::new(&config, &origin.parse()?)?;
    let client = Client::builder(TokioExecutor::new()).http2_only(version == "2").build(connector);
    Ok(Asker::Tcp(Box::new(client)))
}

/// Makes that many requests, some at a time; how long each took.
async fn round(asker: &Asker, uri: &Uri, count: u64, concurrency: u64) -> Result<(Vec<Duration>, u64), AnyError> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let (mut asker, uri, next) = (asker.clone(), uri.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let (mut took, mut bytes) = (Vec::new(), 0);
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let began = Instant::now();
                bytes += asker.ask(&uri).await?;
                took.push(began.elapsed());
            }
            Ok::<_, AnyError>((took, bytes))
        });
    }
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (took, n) = done??;
        all.extend(took);
        bytes += n;
    }
    Ok((all, bytes))
}

async fn client(opts: &HashMap<String, String>) -> Result<(), AnyError> {
    let text = |name: &str| opts.get(name).cloned().ok_or_else(|| format!("--{name} is missing"));
    let (uri, version): (Uri, _) = (text("url")?.parse()?, text("http")?);
    let (count, concurrency): (u64, u64) = (text("count")?.parse()?, text("concurrency")?.parse()?);
    let asker = asker(&uri, &version).await?;
    round(&asker, &uri, WARM_UP.min(count), concurrency).await?;
    println!("warm");
    let began = Instant::now();
    let (mut took, bytes) = round(&asker, &uri, count, concurrency).await?;
    let seconds = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let share = |percent: usize| took.get(took.len() * percent / 100).map_or(0.0, |d| d.as_secs_f64() * 1e6);
    println!(
        "{{\"requests\": {}, \"seconds\": {seconds:.6}, \"bytes\": {bytes}, \"p50_us\": {:.1}, \"p99_us\": {:.1}}}",
        took.len(),
        share(50),
        share(99)
    );
    Ok(())
}

async fn origin(opts: &HashMap<String, String>) -> Result<(), AnyError> {
    let body: usize = opts.get("body").ok_or("--body is missing")?.parse()?;
    let body = Bytes::from(vec![b'o'; body]);
    let listener = TcpListener::bind(opts.get("listen").ok_or("--listen is missing")?).await?;
    println!("ready");
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let body = body.clone();
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |_| {
                let response = http::Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(response) }
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), answer).await
        });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (what, rest) = args.split_first().ok_or("client or origin?")?;
    let pairs = rest.chunks(2).filter_map(|pair| match pair {
        [name, value] => Some((name.trim_start_matches('-').to_owned(), value.clone())),
        _ => None,
    });
    let opts = pairs.collect();
    match what.as_str() {
        "client" => client(&opts).await,
        "origin" => origin(&opts).await,
        _ => Err("the first word is client or origin".into()),
    }
}
