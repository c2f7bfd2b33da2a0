//! Serving HTTP/3.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use courser_core::ids::{Side, StreamId};
use courser_h3::Code;
use courser_h3::conn::Config;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::RecvBody;
use super::driver::Driver;
use super::error::{BoxError, Error};
use super::link::{Hold, Link};
use super::serving::Serving;
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
    early_data: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            config: Config::default(),
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            early_data: false,
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

    /// Serves requests that come as 0-RTT before the handshake is complete. Off by default: an attacker can repeat such requests
    /// (RFC 8470). Those whose method is not safe wait for the handshake all the same; of the others the service can ask
    /// [`Exchange::is_early`](super::Exchange::is_early), and answer 425 (Too Early) when it wants to be sure, or wait for
    /// [`established`](crate::aio::Connection::established).
    ///
    /// Has no effect unless the TLS configuration of the endpoint takes 0-RTT. Clients keep to the settings that they remember:
    /// one TLS configuration must not serve HTTP/3 configurations of which one permits less than another, since it would take
    /// 0-RTT by tickets that came from the other (RFC 9114 section 7.2.4.2).
    #[must_use]
    pub const fn early_data(mut self, on: bool) -> Self {
        self.early_data = on;
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
            let accepted = incoming.map(|i| if self.early_data { i.accept_early() } else { i.accept() });
            let Ok(Ok(connecting)) = accepted else { break };
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
        let _ = tokio::time::timeout(self.drain_timeout.saturating_add(Duration::from_secs(1)), all).await;
    }

    /// Serves one connection until it ends; when `shutdown` is ready it is drained: the client hears GOAWAY, requests that
    /// it had made by then are answered, later ones are rejected in a way that lets it make them elsewhere.
    ///
    /// Each request gets a clone of `service`. An answer that is ready at once is sent at once; others get a task of their
    /// own, and so do all requests for a while after one of them kept the connection waiting. When the client gives a request
    /// up, the service's future is dropped. An error or a panic of the service resets the stream with `H3_INTERNAL_ERROR`;
    /// a body that fails with [`Error::Reset`] names another code.
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
        self.serve_connection_until(connection, service, shutdown, std::future::pending()).await
    }

    /// The same; when `end` is ready the connection ends at once, whatever requests there are: the client hears GOAWAY, and that
    /// the connection is closed with `H3_NO_ERROR`.
    ///
    /// # Errors
    /// As for [`serve_connection`](Self::serve_connection).
    pub async fn serve_connection_until<S, B>(
        &self,
        connection: Connection,
        service: S,
        shutdown: impl Future<Output = ()>,
        end: impl Future<Output = ()>,
    ) -> Result<(), Error>
    where
        S: Service<Request<RecvBody>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let mut end = pin!(end);
        let link = Link::new(connection, Side::Server, self.config.clone(), super::seed());
        let mut driver = Driver::new(Arc::clone(&link));
        let mut shutdown = pin!(shutdown);
        let mut drain = Drain::new(self.drain_timeout);
        let patience = (self.head_timeout, self.stall_timeout);
        let mut pace = Pace::default();
        let mut on_stream = move |cx: &mut Context<'_>, link: &Arc<Link>, id: StreamId| {
            let hold = Hold { link: Arc::clone(link), stream: id };
            let serving = Serving::new(hold, service.clone(), patience);
            if let Some(serving) = pace.try_now(cx, serving) {
                tokio::spawn(serving);
            }
        };
        let ended = poll_fn(|cx| {
            let ended = driver.poll(cx, &mut on_stream);
            if let Poll::Ready(e) = ended {
                return Poll::Ready(Some(e));
            }
            if drain.began.is_none() && shutdown.as_mut().poll(cx).is_ready() {
                drain.begin(&link);
            }
            if !drain.cut && end.as_mut().poll(cx).is_ready() {
                drain.cut(&link);
            }
            drain.poll(cx, &link).map(|()| None)
        })
        .await;
        match ended {
            None => Ok(()),
            Some(e) => super::outcome(e),
        }
    }
}

type Timer = Pin<Box<tokio::time::Sleep>>;

/// Whether requests are served where they are taken, or in tasks of their own.
#[derive(Default)]
struct Pace {
    /// How many more requests get a task right away.
    apart: u32,
}

/// A service that works for longer before it waits for anything holds the connection up.
const QUICK: Duration = Duration::from_micros(100);
/// Requests that get a task after such a one.
const APART: u32 = 64;

impl Pace {
    /// Goes on with a request as far as that is possible at once; gives it back when it is not done then.
    fn try_now<F: Future<Output = ()> + Unpin>(&mut self, cx: &mut Context<'_>, mut serving: F) -> Option<F> {
        if self.apart > 0 {
            self.apart -= 1;
            return Some(serving);
        }
        let began = std::time::Instant::now();
        let done = Pin::new(&mut serving).poll(cx).is_ready();
        if began.elapsed() > QUICK {
            self.apart = APART;
        }
        (!done).then_some(serving)
    }
}

/// The two steps of a graceful end (RFC 9114 section 5.2).
struct Drain {
    limit: Duration,
    /// Since when, and until when clients may have made requests without knowing.
    began: Option<(Timer, Timer)>,
    last: bool,
    /// Requests are not waited for any more.
    cut: bool,
    /// There are no requests; the connection ends by itself.
    parts: bool,
}

/// Time for requests that are on their way when the first GOAWAY leaves.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// Time for a GOAWAY to leave before the connection is closed: what is written leaves with the worker's next turn.
const PARTING: Duration = Duration::from_millis(20);

impl Drain {
    const fn new(limit: Duration) -> Self {
        Self { limit, began: None, last: false, cut: false, parts: false }
    }

    fn begin(&mut self, link: &Link) {
        link.at_once(|h3, carrier| h3.goaway(carrier, false));
        let wait = |limit| Box::pin(tokio::time::sleep(limit));
        self.began = Some((wait(ON_THE_WAY.min(self.limit)), wait(self.limit)));
    }

    /// What is left of the time is the time to say so.
    fn cut(&mut self, link: &Link) {
        self.cut = true;
        if !std::mem::replace(&mut self.last, true) {
            link.at_once(|h3, carrier| h3.goaway(carrier, true));
        }
        let wait = || Box::pin(tokio::time::sleep(PARTING));
        self.began = Some((wait(), wait()));
    }

    /// Ready when the connection was closed.
    fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<()> {
        let Some((on_the_way, limit)) = &mut self.began else { return Poll::Pending };
        if !self.last && on_the_way.as_mut().poll(cx).is_ready() {
            link.at_once(|h3, carrier| h3.goaway(carrier, true));
            self.last = true;
        }
        if self.last && !self.cut && !self.parts && link.state(|state| state.h3().active_requests() == 0) {
            // What was written of the last answers may still be on its way; the connection ends when it was delivered.
            self.parts = true;
            link.quic.conn().0.part(Code::NO_ERROR.0);
        }
        if limit.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        link.quic.close(Code::NO_ERROR.0, b"");
        Poll::Ready(())
    }
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
