//! A server in this process, and clients of each version for it.
#![allow(dead_code, clippy::unwrap_used, reason = "a test may fail, and need not use everything")]

pub mod end;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use courser::aio::Endpoint;
use courser::h3;
use courser::{ClientOptions, tls};
use courser_web::config::{Config, Proxy};
use courser_web::error::WebError;
use courser_web::front::notify::Manager;
use courser_web::front::sockets::Inherited;
use courser_web::front::succession::Succession;
use courser_web::front::{Order, Server};
use courser_web::proxy::connect::Connector;
use http::{HeaderMap, Request, StatusCode, Uri, Version};
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Nothing here takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The versions that a server speaks.
pub const VERSIONS: [Version; 3] = [Version::HTTP_11, Version::HTTP_2, Version::HTTP_3];

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of any kind.
pub type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

pub fn body<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

pub fn empty() -> AnyBody {
    body(http_body_util::Empty::new())
}

pub fn full(text: impl Into<Bytes>) -> AnyBody {
    body(http_body_util::Full::new(text.into()))
}

/// A server that serves.
pub struct Running {
    pub addr: SocketAddr,
    pub figures: Option<SocketAddr>,
    pub orders: mpsc::UnboundedSender<Order>,
    /// Whether everything was complete at its end.
    pub served: JoinHandle<bool>,
    pub news: Arc<Mutex<Vec<String>>>,
    /// What a reload finds.
    pub config: Arc<Mutex<Config>>,
}

impl Running {
    /// One with a throw-away certificate; `text` is its configuration without addresses.
    pub fn start(text: &str) -> Self {
        let mut config = Config::parse(text).unwrap();
        config.server.listen = vec![([127, 0, 0, 1], 0).into()];
        if config.log.access == "-" {
            config.log.access = "off".into();
        }
        let nobody = |_| Err(WebError::Privileges("nobody takes it".into()));
        Self::go_on(config, Inherited::default(), nobody)
    }

    /// One with sockets that are there, and somebody who may take them from it.
    pub fn go_on(
        config: Config,
        inherited: Inherited,
        give: impl Fn(Succession) -> Result<u32, WebError> + Send + Sync + 'static,
    ) -> Self {
        let server = Server::bind(config.clone(), inherited, Manager::default()).unwrap();
        let (addr, figures) = (server.addresses()[0], server.figures_address());
        let (orders, told) = mpsc::unbounded_channel();
        let news: Arc<Mutex<Vec<String>>> = Arc::default();
        let said = Arc::clone(&news);
        let config = Arc::new(Mutex::new(config));
        let again = Arc::clone(&config);
        let served = tokio::spawn(async move {
            let tell = |news: courser_web::front::News<'_>| said.lock().unwrap().push(format!("{news:?}"));
            server.serve(told, move || Ok(again.lock().unwrap().clone()), Arc::new(give), tell).await.unwrap()
        });
        Self { addr, figures, orders, served, news, config }
    }

    pub fn client(&self, version: Version) -> AnyClient {
        AnyClient::new(self.addr, version)
    }

    /// Asks it to end at once.
    pub async fn end(self) -> bool {
        self.orders.send(Order::End).unwrap();
        tokio::time::timeout(PATIENCE, self.served).await.unwrap().unwrap()
    }
}

/// A client of one version, without care for certificates.
#[derive(Clone)]
pub struct AnyClient {
    addr: SocketAddr,
    version: Version,
    tcp: Client<Connector, AnyBody>,
    quic: Arc<tokio::sync::Mutex<Option<h3::SendRequest>>>,
    told: Arc<Mutex<Vec<(StatusCode, HeaderMap)>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Got {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl AnyClient {
    pub fn new(addr: SocketAddr, version: Version) -> Self {
        let origin = format!("https://{addr}");
        let http2 = version == Version::HTTP_2;
        let config = Proxy { origin: origin.clone(), insecure: true, http2, ..Proxy::default() };
        let connector = Connector::new(&config, &origin.parse().unwrap()).unwrap();
        let tcp = Client::builder(TokioExecutor::new()).http2_only(http2).build(connector);
        Self { addr, version, tcp, quic: Arc::default(), told: Arc::default() }
    }

    async fn quic(&self) -> h3::SendRequest {
        let mut quic = self.quic.lock().await;
        if let Some(requests) = &*quic {
            return requests.clone();
        }
        let tls = tls::ClientConfig::builder().danger_accept_any_certificate().alpn([h3::ALPN]).build().unwrap();
        let endpoint = Endpoint::client(ClientOptions::new(tls)).unwrap();
        let connection = endpoint.connect_to(self.addr, "localhost").unwrap().await.unwrap();
        let (requests, driving) = h3::Client::default().start(connection);
        tokio::spawn(async move {
            let _ = driving.await;
            drop(endpoint);
        });
        quic.insert(requests).clone()
    }

    /// The informational answers until now.
    pub fn told(&self) -> Vec<(StatusCode, HeaderMap)> {
        self.told.lock().unwrap().clone()
    }

    /// Sends a request and gives the answer when it has begun. The request's URI may be a path.
    pub async fn send(&self, mut request: Request<AnyBody>) -> Result<http::Response<AnyBody>, BoxError> {
        if request.uri().authority().is_none() {
            let uri = format!("https://localhost:{}{}", self.addr.port(), request.uri());
            *request.uri_mut() = uri.parse::<Uri>().unwrap();
        }
        *request.version_mut() = self.version;
        let answered = async {
            if self.version == Version::HTTP_3 {
                let told = Arc::clone(&self.told);
                request.extensions_mut().insert(h3::Informational::new(move |response| {
                    told.lock().unwrap().push((response.status(), response.headers().clone()));
                }));
                Ok(self.quic().await.send(request).await?.map(body))
            } else {
                Ok(self.tcp.request(request).await?.map(body))
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("an answer")
    }

    /// The same with everything that comes back.
    pub async fn ask(&self, request: Request<AnyBody>) -> Result<Got, BoxError> {
        let (parts, body) = self.send(request).await?.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("an end")?;
        let trailers = body.trailers().cloned();
        Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes(), trailers })
    }

    /// Whether a request that ended like this was not processed, so that it can be made again; if so, on a new connection.
    pub async fn may_repeat(&self, e: &BoxError) -> bool {
        let unprocessed = e.downcast_ref::<h3::Error>().is_some_and(h3::Error::is_safe_to_retry);
        if unprocessed {
            *self.quic.lock().await = None;
        }
        unprocessed
    }

    pub async fn get(&self, uri: &str) -> Result<Got, BoxError> {
        self.ask(Request::get(uri).body(empty()).unwrap()).await
    }
}
