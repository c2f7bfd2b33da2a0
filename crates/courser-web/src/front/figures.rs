//! Figures for Prometheus, at an address of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use courser::aio::Endpoint;
use courser::metrics::Metrics;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::Phase;
use crate::app::App;
use crate::body::{Body, sentence};

/// Connections at once.
const CONNECTIONS_MAX: usize = 16;
/// How long one may last.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers until the server is over; figures are to be had while it drains.
pub async fn serve(listener: Arc<TcpListener>, app: Arc<App>, quic: Vec<Endpoint>, mut phase: watch::Receiver<Phase>) {
    let quic: Arc<[Endpoint]> = quic.into();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            Some(accepted) = accepted => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Over) => return,
        };
        let Ok((tcp, _)) = accepted else {
            sleep(PATIENCE / 300).await;
            continue;
        };
        let (app, quic) = (Arc::clone(&app), Arc::downgrade(&quic));
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = answer(&app, &quic.upgrade().unwrap_or_default(), &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let _ = timeout(PATIENCE, builder.serve_connection(TokioIo::new(tcp), answer)).await;
            drop(place);
        });
    }
}

fn answer(app: &App, quic: &[Endpoint], request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return sentence(StatusCode::METHOD_NOT_ALLOWED, "GET is all there is.");
    }
    if request.uri().path() != "/metrics" {
        return sentence(StatusCode::NOT_FOUND, "The figures are at /metrics.");
    }
    let mut text = app.metrics.text();
    text.push_str(&of_quic(quic));
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

/// Engines and workers of each port.
fn of_quic(endpoints: &[Endpoint]) -> String {
    let mut metrics = Metrics::default();
    for endpoint in endpoints {
        let address = endpoint.local_addr().to_string();
        metrics.endpoint(&[("listen", &address)], &endpoint.workers());
    }
    metrics.render()
}
