//! HTTP/3, at the ports that TCP has too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use courser::ServerOptions;
use courser::aio::Endpoint;
use courser::h3::{self, Exchange, RecvBody};
use courser::tls::ServerConfig;
use http::{Request, Response};
use tokio::sync::watch;

use super::Phase;
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
        let tls = ServerConfig::builder().certificates(identity.store()).alpn([h3::ALPN]).build();
        let mut options = ServerOptions::new(tls.map_err(|e| failed(e.to_string()))?).workers(0);
        options.settings.idle_timeout = config.limits.idle;
        options.settings.max_streams_bidi = u64::from(config.limits.streams);
        let endpoint = match at {
            Udp::Given(socket) => Endpoint::server_on(socket, options),
            Udp::At { address, dual_stack } => {
                options.socket.dual_stack = dual_stack;
                Endpoint::server(address, options)
            }
        };
        let endpoint = endpoint.map_err(|e| match e {
            courser::EndpointError::Bind(address, why) => WebError::Bind { address, why },
            other => failed(other.to_string()),
        })?;
        let mut limits = h3::Config::default();
        limits.max_field_section_size = config.limits.fields;
        let server = h3::Server::default()
            .config(limits)
            .head_timeout(config.limits.idle)
            .stall_timeout(config.limits.stalled)
            .drain_timeout(config.server.drain);
        Ok(Self { endpoint, server })
    }

    /// Serves until the server is over, or has drained.
    pub async fn serve(self, app: Arc<App>, mut phase: watch::Receiver<Phase>) {
        let service = PerRequest { app, port: self.endpoint.local_addr().port() };
        let mut draining = phase.clone();
        let drain = async move {
            let _ = draining.wait_for(|phase| *phase != Phase::Serving).await;
        };
        tokio::select! {
            () = self.server.serve(&self.endpoint, service, drain) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
        }
        let limit = if *phase.borrow() == Phase::Over { Duration::ZERO } else { FAREWELL };
        let _ = self.endpoint.drain(limit).await;
        // What says so leaves with the worker's next turn.
        let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
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
