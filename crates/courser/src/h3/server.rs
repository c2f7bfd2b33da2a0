//! Serving HTTP/3.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use courser_core::ids::{Side, StreamId};
use courser_h3::Code;
use courser_h3::conn::{Config, Head};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use super::body::{RecvBody, SendBody, Stall};
use super::driver::{Driver, hand_over};
use super::error::{BoxError, Error};
use super::exchange::Exchange;
use super::link::{Hold, Link};
use super::respond;
use crate::aio::{Connection, Endpoint};

/// How connections are served. The defaults suit a server on the open Internet.
///
/// # Examples
///
/// ```no_run
/// # async fn example(endpoint: courser::aio::Endpoint) {
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use courser::h3::{Full, RecvBody, Server};
///
/// let hello = courser::h3::service_fn(async |_request: Request<RecvBody>| {
///     Ok::<_, Infallible>(Response::new(Full::from("hello\n")))
/// });
/// Server::default().serve(&endpoint, hello, std::future::pending()).await;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Server {
    config: Config,
    head_timeout: Duration,
    stall_timeout: Duration,
    drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            config: Config::default(),
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Server {
    /// What is told to peers in SETTINGS, and the limits of messages.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long the head of a request may take from its stream's first byte; 10 s unless said otherwise. Slower ones are
    /// reset with `H3_REQUEST_INCOMPLETE`.
    #[must_use]
    pub const fn head_timeout(mut self, limit: Duration) -> Self {
        self.head_timeout = limit;
        self
    }

    /// How long nothing of a body may move while it is waited for, either way; 30 s unless said otherwise. A request that is
    /// slower is cancelled.
    #[must_use]
    pub const fn stall_timeout(mut self, limit: Duration) -> Self {
        self.stall_timeout = limit;
        self
    }

    /// How long requests may go on after the shutdown began; 30 s unless said otherwise.
    #[must_use]
    pub const fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }

    /// Takes connections until `shutdown` is ready, each in a task of its own; then takes no more, sends GOAWAY on all, and
    /// returns when their requests are over, or the time for that is.
    pub async fn serve<S, B>(&self, endpoint: &Endpoint, service: S, shutdown: impl Future<Output = ()>)
    where
        S: Service<Request<RecvBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (begin, begun) = tokio::sync::watch::channel(());
        let mut tasks = tokio::task::JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                () = &mut shutdown => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            };
            let Ok(Ok(connecting)) = incoming.map(crate::aio::Incoming::accept) else { break };
            let (this, service, mut begun) = (self.clone(), service.clone(), begun.clone());
            tasks.spawn(async move {
                let Ok(connection) = connecting.await else { return };
                let stop = async move {
                    // The sender is dropped when the shutdown begins.
                    while begun.changed().await.is_ok() {}
                };
                if let Err(e) = this.serve_connection(connection, service, stop).await {
                    tracing::debug!(error = %e, "an HTTP/3 connection failed");
                }
            });
        }
        drop((begin, begun));
        let all = async { while tasks.join_next().await.is_some() {} };
        // A connection keeps to the limit by itself; the second one is for those whose handshake is under way.
        let _ = tokio::time::timeout(self.drain_timeout + Duration::from_secs(1), all).await;
    }

    /// Serves one connection until it ends; when `shutdown` is ready it is drained: the client hears GOAWAY, requests that
    /// it had made by then are answered, later ones are rejected in a way that lets it make them elsewhere.
    ///
    /// Each request gets a clone of `service` and a task of its own; when the client gives it up, the service's future is
    /// dropped. An error of the service resets the stream with `H3_INTERNAL_ERROR`.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the peer broke the protocol, [`Error::Closed`] when the connection failed. A connection that a
    /// peer closes with `H3_NO_ERROR`, or that nobody uses any more, is no error.
    pub async fn serve_connection<S, B>(
        &self,
        connection: Connection,
        service: S,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error>
    where
        S: Service<Request<RecvBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let link = Link::new(connection, Side::Server, self.config.clone(), super::seed());
        let mut driver = Driver::new(Arc::clone(&link));
        let mut shutdown = pin!(shutdown);
        let mut drain = Drain::new(self.drain_timeout);
        let patience = (self.head_timeout, self.stall_timeout);
        let mut on_stream = move |link: &Arc<Link>, id: StreamId| {
            let hold = Hold { link: Arc::clone(link), stream: id };
            tokio::spawn(serve_request(hold, service.clone(), patience));
        };
        let end = poll_fn(|cx| {
            let ended = driver.poll(cx, &mut on_stream);
            if let Poll::Ready(e) = ended {
                return Poll::Ready(Some(e));
            }
            if drain.began.is_none() && shutdown.as_mut().poll(cx).is_ready() {
                drain.begin(&link);
            }
            drain.poll(cx, &link).map(|()| None)
        })
        .await;
        match end {
            None => Ok(()),
            Some(e) => super::outcome(e),
        }
    }
}

type Timer = Pin<Box<tokio::time::Sleep>>;

/// The two steps of a graceful end (RFC 9114 section 5.2).
struct Drain {
    limit: Duration,
    /// Since when, and until when clients may have made requests without knowing.
    began: Option<(Timer, Timer)>,
    last: bool,
}

/// Time for requests that are on their way when the first GOAWAY leaves.
const ON_THE_WAY: Duration = Duration::from_millis(500);

impl Drain {
    const fn new(limit: Duration) -> Self {
        Self { limit, began: None, last: false }
    }

    fn begin(&mut self, link: &Link) {
        link.at_once(|h3, carrier| h3.goaway(carrier, false));
        let wait = |limit| Box::pin(tokio::time::sleep(limit));
        self.began = Some((wait(ON_THE_WAY.min(self.limit)), wait(self.limit)));
    }

    /// Ready when the connection was closed.
    fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<()> {
        let Some((on_the_way, limit)) = &mut self.began else { return Poll::Pending };
        if !self.last && on_the_way.as_mut().poll(cx).is_ready() {
            link.at_once(|h3, carrier| h3.goaway(carrier, true));
            self.last = true;
        }
        let idle = self.last && link.state(|state| state.h3().active_requests() == 0);
        if !idle && limit.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        link.quic.close(Code::NO_ERROR.0, b"");
        Poll::Ready(())
    }
}

/// One request, from its head to the last byte of its answer.
async fn serve_request<S, B>(hold: Hold, service: S, patience: (Duration, Duration))
where
    S: Service<Request<RecvBody>, Response = Response<B>> + Send,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    let Some(request) = receive(&hold, patience).await else { return };
    let (is_head, is_connect) = (request.method() == Method::HEAD, request.method() == Method::CONNECT);
    let answered = answer(&hold, service, request, Asked { is_head, is_connect, patience: patience.1 }).await;
    if let Err(e) = answered {
        let code = match &e {
            Error::Application(_) => Code::INTERNAL_ERROR,
            _ => Code::REQUEST_CANCELLED,
        };
        tracing::debug!(stream = hold.stream.0, error = %e, "a request was not answered in full");
        hold.link.at_once(|h3, carrier| h3.cancel(carrier, hold.stream, code));
    }
}

/// The request's head, with its body to be read; `None` when it is not a request, or none that can be answered.
async fn receive(hold: &Hold, patience: (Duration, Duration)) -> Option<Request<RecvBody>> {
    let mut stall = Stall::new(Some(patience.0), "the head of a request");
    let head = poll_fn(|cx| {
        match hold.on(cx, |h3, carrier, stream| h3.poll_request(carrier, stream)) {
            Ok(Head::Blocked) => {}
            Ok(Head::WaitsForTable) => hold.link.state(|state| state.wait_for_table(hold.stream, cx)),
            other => return Poll::Ready(Some(other)),
        }
        stall.poll(cx).map(|()| None)
    })
    .await;
    match head {
        Some(Ok(Head::Ready(parts))) => {
            let mut request = Request::from_parts(parts, RecvBody::empty());
            if !hold.is_read() {
                let length = respond::content_length(request.headers());
                *request.body_mut() = RecvBody::new(hold.again(), length, Some(patience.1));
            }
            request.extensions_mut().insert(Exchange::new(hold));
            Some(request)
        }
        Some(Ok(Head::WebTransportStream { session })) => {
            web_transport(hold, session);
            None
        }
        // The connection and HTTP/3 have done what is to be done.
        Some(_) => None,
        None => {
            hold.link.at_once(|h3, carrier| h3.cancel(carrier, hold.stream, Code::REQUEST_INCOMPLETE));
            None
        }
    }
}

fn web_transport(hold: &Hold, session: StreamId) {
    let rest = hold.link.at_once(|h3, _| h3.take_rest(hold.stream));
    hand_over(&hold.link, hold.stream, session, rest);
}

/// What has to be known of a request to answer it.
struct Asked {
    is_head: bool,
    is_connect: bool,
    patience: Duration,
}

async fn answer<S, B>(hold: &Hold, service: S, request: Request<RecvBody>, asked: Asked) -> Result<(), Error>
where
    S: Service<Request<RecvBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut call = pin!(oneshot(service, request));
    let response = poll_fn(|cx| {
        if let Poll::Ready(response) = call.as_mut().poll(cx) {
            return Poll::Ready(response.map_err(|e| Error::Application(e.into())));
        }
        // A client that stops caring stops the work for it.
        hold.poll_given_up(cx).map(Err)
    })
    .await?;
    let (mut head, body) = response.into_parts();
    let bodiless = asked.is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    respond::complete(&mut head, &body, asked.is_connect);
    if bodiless || body.is_end_stream() {
        let sent = hold.link.at_once(|h3, carrier| h3.send_response(carrier, hold.stream, &head, true));
        sent.map_err(|e| hold.error(e))?;
        return poll_fn(|cx| hold.poll_flush(cx)).await;
    }
    let mut sending = SendBody::new(body, Some(asked.patience));
    poll_fn(|cx| Poll::Ready(sending.begin(cx))).await?;
    let sent = hold.link.at_once(|h3, carrier| {
        sending.with_head(|data, end| h3.send_response_with(carrier, hold.stream, &head, data, end))
    });
    sent.map_err(|e| hold.error(e))?;
    poll_fn(|cx| sending.poll(cx, hold)).await
}

async fn oneshot<S: Service<R>, R>(mut service: S, request: R) -> Result<S::Response, S::Error> {
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// A service of a function that takes a request and gives a response.
pub const fn service_fn<F>(f: F) -> ServiceFn<F> {
    ServiceFn(f)
}

/// See [`service_fn`].
#[derive(Clone, Debug)]
pub struct ServiceFn<F>(F);

impl<F, R, Fut, T, E> Service<R> for ServiceFn<F>
where
    F: FnMut(R) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Fut {
        (self.0)(request)
    }
}

/// A body of one piece.
#[derive(Clone, Debug, Default)]
pub struct Full(Option<bytes::Bytes>);

impl<T: Into<bytes::Bytes>> From<T> for Full {
    fn from(data: T) -> Self {
        let data = data.into();
        Self((!data.is_empty()).then_some(data))
    }
}

impl Body for Full {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(http_body::Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
    }
}
