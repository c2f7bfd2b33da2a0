//! Making requests.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use courser_core::ids::{Dir, Side};
use courser_h3::Code;
use courser_h3::conn::{Config, Head};
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;
use tower_service::Service;

use super::body::{RecvBody, SendBody};
use super::driver::{Driver, hand_over};
use super::early::{self, Remembered};
use super::error::{BoxError, Error};
use super::link::{Hold, Link};
use super::respond::{content_length, decimal};
use crate::EarlyData;
use crate::aio::Connection;

/// How connections are used. The defaults suit most clients.
#[derive(Clone, Debug, Default)]
pub struct Client {
    config: Config,
    stall_timeout: Option<Duration>,
    remembered: Arc<Remembered>,
}

impl Client {
    /// What is told to the server in SETTINGS, and the limits of messages.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long nothing of a body may move while it is waited for, either way; without limit unless said.
    #[must_use]
    pub const fn stall_timeout(mut self, limit: Duration) -> Self {
        self.stall_timeout = Some(limit);
        self
    }

    /// Speaks HTTP/3 on a connection whose application protocol is [`ALPN`](super::ALPN): a handle to make requests with, and
    /// the future that drives the connection, which has to be polled, in a task of its own as a rule.
    ///
    /// A connection that was asked for with [`Request::early_data`](crate::Request::early_data) sends requests as 0-RTT: those
    /// with a safe method and without content, and what [`Replayable`](super::Replayable) says. Others wait for the handshake.
    /// What a server permits is remembered by this object and its clones for that, so connections to a server should be started
    /// by the same one.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(connection: courser::aio::Connection) -> Result<(), courser::h3::Error> {
    /// use courser::h3::{Client, Full};
    ///
    /// let (mut requests, driving) = Client::default().start(connection);
    /// tokio::spawn(driving);
    /// let request = http::Request::get("https://example.org/").body(Full::default()).expect("a valid request");
    /// let response = requests.send(request).await?;
    /// println!("{} {:?}", response.status(), response.into_body().read_to_end(1 << 20).await?);
    /// # Ok(()) }
    /// ```
    pub fn start(&self, connection: Connection) -> (SendRequest, Driving) {
        let link = Link::new(connection, Side::Client, self.config.clone(), super::seed());
        if let Some(server) = link.conn().0.early_for() {
            link.state(|state| {
                let known = self.remembered.of(server).filter(|_| link.quic.early_data() != EarlyData::None);
                state.resume(known, (Arc::clone(&self.remembered), server.into()));
            });
        }
        let requests =
            SendRequest { handles: Arc::new(Handles { link: Arc::clone(&link) }), stall_timeout: self.stall_timeout };
        (requests, Driving { driver: Driver::new(link) })
    }
}

/// Drives a client's connection; ready when it ended. A connection whose server closed it with `H3_NO_ERROR`, or that nobody
/// uses any more, is no error.
#[must_use = "nothing happens unless it is polled"]
pub struct Driving {
    driver: Driver,
}

impl Future for Driving {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = self.driver.poll(cx, |_, link, id| {
            // A server opens two-way streams for WebTransport only; HTTP/3 refuses others.
            let hold = Hold { link: Arc::clone(link), stream: id };
            tokio::spawn(async move {
                let head = poll_fn(|cx| match hold.on(cx, |h3, carrier, stream| h3.poll_request(carrier, stream)) {
                    Ok(Head::Blocked) => Poll::Pending,
                    other => Poll::Ready(other),
                });
                if let Ok(Head::WebTransportStream { session }) = head.await {
                    let rest = hold.link.at_once(|h3, _| h3.take_rest(hold.stream));
                    hand_over(&hold.link, hold.stream, session, rest);
                }
            });
        });
        if let Poll::Ready(e) = ended {
            return Poll::Ready(super::outcome(e));
        }
        if self.driver.link.state(|state| state.is_over()) {
            self.driver.link.quic.close(Code::NO_ERROR.0, b"");
        }
        Poll::Pending
    }
}

impl std::fmt::Debug for Driving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driving").finish_non_exhaustive()
    }
}

/// The handles of a connection; the last one lets it end.
struct Handles {
    link: Arc<Link>,
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.link.state(|state| state.abandoned = true);
        self.link.call_driver();
    }
}

/// Makes requests on one connection. Clones share it; when the last is dropped, the connection closes as soon as the requests
/// that were made are over.
#[derive(Clone)]
pub struct SendRequest {
    handles: Arc<Handles>,
    stall_timeout: Option<Duration>,
}

impl SendRequest {
    /// Sends a request and waits for the head of its answer. The URI has scheme and authority, or the headers have `host`.
    /// The body is sent while the answer is waited for, and goes on after it came. Dropping the future cancels the request.
    ///
    /// CONNECT makes a tunnel: bodies are its two directions; with [`Protocol`](super::Protocol) among the extensions it is an
    /// extended one (RFC 9220), which waits for the server's settings.
    ///
    /// On a connection with 0-RTT, a request without content that went early and is answered with 425 (Too Early) is made again
    /// behind the handshake, once.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_safe_to_retry`] tells whether the server did nothing of it.
    pub fn send<B>(&mut self, request: Request<B>) -> ResponseFuture
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let link = Arc::clone(&self.handles.link);
        let handles = self.clone();
        let patience = self.stall_timeout;
        ResponseFuture {
            inner: Box::pin(async move {
                // The connection stays while one of its requests is being made.
                let _handles = handles;
                exchange(link, request, patience).await
            }),
        }
    }

    /// Waits until the server's settings are known, which tell what it supports.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn settled(&self) -> Result<(), Error> {
        settled(&self.handles.link).await
    }

    /// The QUIC connection below. Its streams are HTTP/3's.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.handles.link.quic
    }

    /// Whether requests can still be made here: the connection is open and the server takes more.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let link = &self.handles.link;
        link.quic.close_reason().is_none() && !link.state(|state| state.h3().is_draining())
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.handles.link
    }
}

impl std::fmt::Debug for SendRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendRequest").field("connection", &self.handles.link.quic).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for SendRequest
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<RecvBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let link = &self.handles.link;
        if link.quic.close_reason().is_some() {
            return Poll::Ready(Err(Error::closed(&link.quic)));
        }
        Poll::Ready(if self.is_open() { Ok(()) } else { Err(Error::Rejected) })
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.send(request)
    }
}

/// The head of an answer, with its body to be read.
#[must_use = "nothing is sent unless it is polled"]
pub struct ResponseFuture {
    inner: Pin<Box<dyn Future<Output = Result<Response<RecvBody>, Error>> + Send>>,
}

impl Future for ResponseFuture {
    type Output = Result<Response<RecvBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// In the extensions of a request: is called with each informational response (RFC 9110 section 15.2).
#[derive(Clone)]
pub struct Informational(Arc<dyn Fn(Response<()>) + Send + Sync>);

impl Informational {
    /// Calls `f`, which must not wait.
    pub fn new(f: impl Fn(Response<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }
}

impl std::fmt::Debug for Informational {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informational").finish_non_exhaustive()
    }
}

pub(super) async fn settled(link: &Link) -> Result<(), Error> {
    poll_fn(|cx| {
        if link.quic.close_reason().is_some() {
            return Poll::Ready(Err(Error::closed(&link.quic)));
        }
        link.state(|state| state.poll_settings(cx)).map(Ok)
    })
    .await
}

async fn exchange<B>(
    link: Arc<Link>,
    request: Request<B>,
    patience: Option<Duration>,
) -> Result<Response<RecvBody>, Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = request.into_parts();
    if head.extensions.get::<super::Protocol>().is_some() {
        settled(&link).await?;
    }
    if head.method != Method::CONNECT
        && !head.headers.contains_key(http::header::CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact().filter(|length| *length > 0)
    {
        head.headers.insert(http::header::CONTENT_LENGTH, decimal(length));
    }
    let end = body.is_end_stream() && head.method != Method::CONNECT;
    let mut sending = (!end).then(|| SendBody::new(body, patience));
    if let Some(sending) = &mut sending {
        poll_fn(|cx| Poll::Ready(sending.begin(cx))).await?;
    }
    let early = early::goes_early(&link, &head, end).await?;
    let mut request = Cancel(Some(begin(&link, &head, sending.as_mut()).await?));
    match sending {
        Some(sending) => send(request.hold(), sending).await?,
        None => flush(request.hold()).await?,
    }
    let mut response = receive(request.hold(), &head).await?;
    if early && end && response.status == StatusCode::TOO_EARLY {
        drop(request);
        early::established(&link).await?;
        request = Cancel(Some(begin::<B>(&link, &head, None).await?));
        flush(request.hold()).await?;
        response = receive(request.hold(), &head).await?;
    }
    Ok(finish(request.done(), response, &head, patience))
}

/// Sends the head on a stream of its own, with the beginning of the body when it is there.
async fn begin<B>(link: &Arc<Link>, head: &request::Parts, sending: Option<&mut SendBody<B>>) -> Result<Hold, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut opener = link.conn().0.opener(Dir::Bi);
    let slot = poll_fn(|cx| opener.poll(cx)).await.map_err(|e| unsent(link, e))?;
    let sent = link.with_stream(slot, |h3, carrier| match sending {
        Some(sending) => sending.with_head(|data, end| h3.send_request_with(carrier, head, data, end)),
        None => h3.send_request(carrier, head, true),
    });
    let stream = sent.map_err(|e| Error::of(e, &link.quic))?.ok_or(Error::Rejected)?;
    Ok(Hold { link: Arc::clone(link), stream })
}

/// The connection ended before the request had a stream. One that this end closed because the server drains refuses requests as
/// GOAWAY does, so that whether the request came before or behind the close makes no difference.
fn unsent(link: &Link, e: crate::error::ConnectionError) -> Error {
    let drained = e.application().is_some_and(|(code, _)| code == Code::NO_ERROR.0)
        && link.state(|state| state.h3().is_draining());
    if drained { Error::Rejected } else { Error::Closed(e) }
}

async fn flush(hold: &Hold) -> Result<(), Error> {
    match poll_fn(|cx| hold.poll_flush(cx)).await {
        // The answer may say why the server wants no more of the request.
        Err(Error::Stopped(_)) => Ok(()),
        other => other,
    }
}

/// Sends what there is of the body now, and leaves the rest to a task.
async fn send<B>(hold: &Hold, mut sending: SendBody<B>) -> Result<(), Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let first = poll_fn(|cx| Poll::Ready(sending.poll(cx, hold))).await;
    match first {
        Poll::Ready(Ok(()) | Err(Error::Stopped(_))) => Ok(()),
        Poll::Ready(Err(e)) => Err(e),
        Poll::Pending => {
            let hold = hold.again();
            tokio::spawn(async move {
                match poll_fn(|cx| sending.poll(cx, &hold)).await {
                    Ok(()) | Err(Error::Stopped(_)) => {}
                    Err(_) => {
                        hold.link.at_once(|h3, carrier| h3.cancel(carrier, hold.stream, Code::REQUEST_CANCELLED));
                    }
                }
            });
            Ok(())
        }
    }
}

/// Waits for the final head; informational ones go to whoever asked for them.
async fn receive(hold: &Hold, asked: &request::Parts) -> Result<http::response::Parts, Error> {
    loop {
        let head = poll_fn(|cx| match hold.on(cx, |h3, carrier, stream| h3.poll_response(carrier, stream)) {
            Ok(Head::Blocked) => Poll::Pending,
            Ok(Head::WaitsForTable) => {
                hold.link.state(|state| state.wait_for_table(hold.stream, cx));
                Poll::Pending
            }
            other => Poll::Ready(other),
        });
        match head.await.map_err(|e| hold.error(e))? {
            Head::Ready(parts) if parts.status.is_informational() => {
                if let Some(Informational(f)) = asked.extensions.get() {
                    f(Response::from_parts(parts, ()));
                }
            }
            Head::Ready(parts) => return Ok(parts),
            _ => return Err(Error::Rejected),
        }
    }
}

fn finish(
    hold: Hold,
    head: http::response::Parts,
    asked: &request::Parts,
    patience: Option<Duration>,
) -> Response<RecvBody> {
    if hold.is_read() {
        return Response::from_parts(head, RecvBody::empty());
    }
    let bodiless =
        asked.method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = if bodiless { Some(0) } else { content_length(&head.headers) };
    Response::from_parts(head, RecvBody::new(hold, length, patience))
}

/// Cancels the request when its future is dropped before the answer came.
struct Cancel(Option<Hold>);

impl Cancel {
    fn hold(&self) -> &Hold {
        self.0.as_ref().expect("it is taken out only when the answer came")
    }

    /// The answer came.
    fn done(mut self) -> Hold {
        self.0.take().expect("it is taken out only once")
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if let Some(hold) = &self.0 {
            hold.link.at_once(|h3, carrier| h3.cancel(carrier, hold.stream, Code::REQUEST_CANCELLED));
        }
    }
}
