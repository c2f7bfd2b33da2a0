//! WebTransport sessions between a client and a server on the loopback interface.

use std::future::Future;
use std::net::SocketAddr;

use courser::aio::Endpoint;
use courser::h3::{
    ALPN, BoxError, Client, Config, Full, RecvBody, SendRequest, Server, Session, SessionBody, service_fn,
};
use courser::{ClientOptions, ServerOptions, Settings, tls};
use http::{Request, Response};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Identity, PATIENCE, loopback};

/// A client's connection to a server whose sessions come over the channel.
pub struct Rig {
    pub requests: SendRequest,
    pub sessions: mpsc::UnboundedReceiver<Session>,
    _ends: (Endpoint, Endpoint),
}

/// Sessions, eight at a time, under the limits that are the default.
pub fn speaks() -> Config {
    Config { webtransport_sessions: 8, datagrams: true, ..Config::default() }
}

impl Rig {
    pub async fn new(config: Config) -> Self {
        Self::of(config.clone(), Server::default().config(config), |addr| addr).await
    }

    /// A client that is configured so, with that server, over the path that begins where `path` says.
    pub async fn of(client: Config, options: Server, path: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        Self::with(client, options, &Settings::default(), path).await
    }

    /// The same with settings of the connection.
    pub async fn with(
        client: Config,
        options: Server,
        settings: &Settings,
        path: impl FnOnce(SocketAddr) -> SocketAddr,
    ) -> Self {
        let identity = Identity::new();
        let (cert, key) = (identity.0.certificate_pem(), identity.0.key_pem());
        let credentials = tls::Credentials::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
        let tls = tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).build().unwrap();
        let server = Endpoint::server(loopback(), ServerOptions::new(tls).settings(settings.clone())).unwrap();
        let (tell, sessions) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<RecvBody>| {
            let tell = tell.clone();
            async move {
                let (session, response) = Session::accept(request)?;
                tell.send(session)?;
                Ok::<Response<SessionBody>, BoxError>(response)
            }
        });
        let endpoint = server.clone();
        tokio::spawn(async move { options.serve(&endpoint, service, std::future::pending()).await });
        let roots = tls::Roots::empty().add_der(identity.0.certificate_der()).unwrap();
        let tls = tls::ClientConfig::builder().roots(roots).alpn([ALPN]).build().unwrap();
        let end = Endpoint::client(ClientOptions::new(tls).settings(settings.clone())).unwrap();
        let connection = end.connect_to(path(server.local_addr()), "localhost").unwrap().await.unwrap();
        let (requests, driving) = Client::default().config(client).start(connection);
        tokio::spawn(driving);
        Self { requests, sessions, _ends: (server, end) }
    }

    /// A session, as the client and as the server have it.
    pub async fn session(&mut self) -> (Session, Session) {
        let request = Request::get("https://localhost/chat").body(Full::default()).unwrap();
        let (client, response) = self.requests.web_transport(request).await.unwrap();
        assert!(response.status().is_success());
        (client, self.sessions.recv().await.unwrap())
    }
}

/// Runs a test on a runtime of one thread, and on one of two.
pub fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    single.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    several.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
}
