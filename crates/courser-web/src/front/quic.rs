//! HTTP/3, at the ports that TCP has too.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use courser::ServerOptions;
use courser::aio::{Connecting, Endpoint, Incoming};
use courser::core::engine::TokenKeys;
use courser::h3::{self, Exchange, RecvBody};
use courser::tls::ServerConfig;
use http::{Request, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Phase;
use super::secret::Secret;
use super::sockets::Udp;
use super::tls::Identity;
use crate::app::{Answer, Answering, App, Informational, Peer, Service};
use crate::config::Config;
use crate::error::WebError;

/// Time for connections to say that they are closed.
const FAREWELL: Duration = Duration::from_millis(300);

/// An endpoint for HTTP/3.
pub struct Quic {
    endpoint: Endpoint,
    server: h3::Server,
    /// Whether connections are served before their handshake is complete.
    early: bool,
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic").field("address", &self.endpoint.local_addr()).finish_non_exhaustive()
    }
}

impl Quic {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Binds the address, or takes the socket that is there. Certificates are looked up in the store of `identity`, so that new ones need nothing more.
    ///
    /// # Errors
    /// The address cannot be had, or the limits make no sense.
    pub fn bind(at: Udp, identity: &Identity, config: &Config) -> Result<Self, WebError> {
        let failed = |why: String| WebError::System { what: "HTTP/3", why };
        let early = config.server.early_data;
        let tls = ServerConfig::builder().certificates(identity.store()).alpn([h3::ALPN]).early_data(early).build();
        let mut options = ServerOptions::new(tls.map_err(|e| failed(e.to_string()))?).workers(0);
        options.settings.idle_timeout = config.limits.idle;
        options.settings.max_streams_bidi = u64::from(config.limits.streams);
        let address = match &at {
            Udp::Given(socket) => socket.local_addr().ok(),
            Udp::At { address, .. } => Some(*address),
            // Its keys come with the port.
            Udp::Handed(_) => None,
        };
        if let (Some(file), Some(at)) = (&config.server.secret, address) {
            let secret = Secret::load(file)?;
            options = options.reset_key(secret.key("reset", at)).token_keys(TokenKeys::new(secret.key("tokens", at)));
        }
        let endpoint = match at {
            Udp::Given(socket) => Endpoint::server_on(socket, options),
            Udp::Handed(port) => Endpoint::take_over(port, options),
            Udp::At { address, dual_stack } => {
                options.socket.dual_stack = dual_stack;
                Endpoint::server(address, options)
            }
        };
        let endpoint = endpoint.map_err(|e| match e {
            courser::EndpointError::Bind(address, why) => WebError::Bind { address, why },
            other => failed(other.to_string()),
        })?;
        // How long a drain may last is the server's affair, which can change.
        let mut limits = h3::Config::default();
        limits.max_field_section_size = config.limits.fields;
        let server = h3::Server::default()
            .config(limits)
            .early_data(early)
            .head_timeout(config.limits.idle)
            .stall_timeout(config.limits.stalled)
            .drain_timeout(Duration::MAX);
        Ok(Self { endpoint, server, early })
    }

    /// The port, to be looked at or handed over.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Serves until the server is over, or has drained. Who began before the drain did is let in still: a connection whose
    /// handshake is under way belongs to this process, whoever has the port.
    pub async fn serve(self, app: Arc<App>, mut phase: watch::Receiver<Phase>) {
        let service = PerRequest { app, port: self.endpoint.local_addr().port() };
        let accept = if self.early { Incoming::accept_early } else { Incoming::accept };
        let (mut connections, mut lets_in, mut seen) = (JoinSet::new(), true, Phase::Serving);
        // Once begun, nobody new is answered, and who waits is told when nobody can come any more.
        let mut drain = pin!(None);
        while lets_in || !connections.is_empty() {
            tokio::select! {
                incoming = self.endpoint.accept(), if lets_in => match incoming.map(accept) {
                    Ok(Ok(connecting)) => {
                        let (server, service) = (self.server.clone(), service.clone());
                        connections.spawn(serve(connecting, server, service, phase.clone()));
                    }
                    _ => lets_in = false,
                },
                Some(_) = connections.join_next() => {}
                now = after(&mut phase, seen) => {
                    seen = now;
                    if now == Phase::Over {
                        break;
                    }
                    drain.set(Some(self.endpoint.drain(Duration::MAX)));
                }
                () = done(drain.as_mut()) => drain.set(None),
            }
        }
        // Each connection tells its client, whether it drained or not.
        let told = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, told).await;
        let _ = self.endpoint.drain(FAREWELL).await;
        // What says so leaves with the worker's next turn.
        let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }
}

/// Goes on with a drain that began.
async fn done<T>(drain: Pin<&mut Option<impl Future<Output = T>>>) {
    match drain.as_pin_mut() {
        Some(drain) => drop(drain.await),
        None => std::future::pending().await,
    }
}

/// The next phase behind that one.
async fn after(phase: &mut watch::Receiver<Phase>, seen: Phase) -> Phase {
    // Without a server there is nobody to serve for.
    phase.wait_for(|now| *now != seen).await.map_or(Phase::Over, |now| *now)
}

/// One connection, from its handshake to its end.
async fn serve(connecting: Connecting, server: h3::Server, service: PerRequest, phase: watch::Receiver<Phase>) {
    let reached = |wanted: fn(Phase) -> bool| {
        let mut phase = phase.clone();
        async move {
            // Without a server there is nobody to serve for.
            let _ = phase.wait_for(|now| wanted(*now)).await;
        }
    };
    let (ending, over) = (reached(|now| now != Phase::Serving), reached(|now| now == Phase::Over));
    let Ok(connection) = connecting.await else { return };
    let (app, known) = (Arc::clone(&service.app), connection.clone());
    if let Err(e) = server.serve_connection_until(connection, service, ending, over).await {
        tracing::debug!(error = %e, "an HTTP/3 connection failed");
    }
    if let Ok(stats) = tokio::time::timeout(FAREWELL, known.stats()).await {
        app.metrics.end_connection(&stats);
    }
}

/// The application for requests of any connection: each brings its own.
#[derive(Clone, Debug)]
struct PerRequest {
    app: Arc<App>,
    port: u16,
}

impl tower_service::Service<Request<RecvBody>> for PerRequest {
    type Response = Response<Answer>;
    type Error = std::convert::Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<RecvBody>) -> Answering {
        let exchange = request.extensions().get::<Exchange>().expect("requests of courser::h3 have one").clone();
        let peer = Peer { remote: exchange.remote_address(), port: self.port, is_secure: true };
        let tell = move |status, headers: &http::HeaderMap| {
            let mut response = Response::new(());
            *response.status_mut() = status;
            *response.headers_mut() = headers.clone();
            if let Err(e) = exchange.send_informational(response) {
                tracing::debug!("an informational answer is not passed on: {e}");
            }
        };
        request.extensions_mut().insert(Informational(Arc::new(tell)));
        let mut service = Service::new(Arc::clone(&self.app), peer);
        tower_service::Service::call(&mut service, request)
    }
}
