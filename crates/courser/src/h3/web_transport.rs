//! WebTransport sessions: many streams and datagrams behind one extended CONNECT.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use courser_core::ids::{Dir, StreamId};
use courser_h3::Code;
use courser_h3::capsule::{Capsule, CapsuleReader, WT_CLOSE_SESSION};
use courser_h3::webtransport::{self, CloseSession, PROTOCOLS, REASON_MAX, WT_SESSION_GONE};
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body::{Body, Frame};

use super::client::SendRequest;
use super::error::{BoxError, Error};
use super::exchange::Exchange;
use super::link::Hold;
use crate::aio::{RecvStream, SendStream};
use crate::wait::{lock, wait_alone};

/// A WebTransport session. Clones are handles of the same one; it ends when the last is dropped, when [`close`](Self::close) is
/// called, when the peer ends it, and with the connection. Its streams are reset then.
///
/// Streams are those of [`aio`](crate::aio); codes with which they are reset or stopped go through
/// [`code_to_wire`](Self::code_to_wire), as the draft says.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    hold: Hold,
    ours: Arc<Ours>,
    theirs: Arc<Mutex<Theirs>>,
}

/// Why a session ended: what the peer said with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionEnd {
    /// The application's code; 0 when none was given.
    pub code: u32,
    /// The reason in words.
    pub reason: String,
}

impl SessionEnd {
    /// What the capsule says; `None` when it is malformed.
    fn of(capsule: Capsule) -> Option<Self> {
        let Capsule::Whole { value, .. } = capsule else { return None };
        let CloseSession { code, reason } = CloseSession::decode(value)?;
        Some(Self { code, reason: String::from_utf8_lossy(&reason).into_owned() })
    }
}

/// What the peer says on the session's own stream.
#[derive(Default)]
struct Theirs {
    end: Option<SessionEnd>,
    wakers: Vec<Waker>,
}

impl Session {
    /// Takes a request for WebTransport: the session, and the response with which the service lets it begin.
    ///
    /// ```no_run
    /// use courser::h3::{RecvBody, Session, SessionBody};
    ///
    /// # async fn handle(request: http::Request<RecvBody>)
    /// #     -> Result<http::Response<SessionBody>, courser::h3::Error> {
    /// let (session, response) = Session::accept(request)?;
    /// tokio::spawn(async move {
    ///     while let Some(datagram) = session.recv_datagram().await {
    ///         session.send_datagram(&datagram);
    ///     }
    /// });
    /// Ok(response)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Misuse`] when the request does not ask for WebTransport or did not come over Courser's HTTP/3.
    pub fn accept<B>(request: Request<B>) -> Result<(Self, Response<SessionBody>), Error>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let exchange = head.extensions.get::<Exchange>();
        let Some(exchange) = exchange.filter(|_| webtransport::is_asked_for_by(&head)) else {
            return Err(Error::Misuse("the request does not ask for WebTransport".into()));
        };
        exchange.link.share(exchange.stream);
        let hold = Hold { link: Arc::clone(&exchange.link), stream: exchange.stream };
        let ours = Arc::new(Ours::default());
        let session = Self::begin(hold, Arc::clone(&ours), body);
        let mut response = Response::new(SessionBody { ours });
        if head.headers.contains_key("sec-webtransport-http3-draft02") {
            let name = HeaderName::from_static("sec-webtransport-http3-draft");
            response.headers_mut().insert(name, HeaderValue::from_static("draft02"));
        }
        Ok((session, response))
    }

    /// A session over a request's stream; `ours` is what this end says on it, `body` what the peer says.
    fn begin<B>(hold: Hold, ours: Arc<Ours>, body: B) -> Self
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        hold.link.state(|state| state.sessions.claim(hold.stream));
        let theirs = Arc::new(Mutex::new(Theirs::default()));
        let reader = Reader { hold: hold.again(), theirs: Arc::clone(&theirs), ours: Arc::clone(&ours) };
        tokio::spawn(reader.read(body));
        Self { inner: Arc::new(Inner { hold, ours, theirs }) }
    }

    /// The number of the stream that the session stands for.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.inner.hold.stream
    }

    /// Opens a stream that carries data both ways; waits while the peer lets no more be open.
    ///
    /// # Errors
    /// [`Error::Closed`], also when the session is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Error> {
        self.alive()?;
        let (mut send, recv) = self.inner.hold.link.quic.open_bi().await.map_err(Error::Closed)?;
        self.introduce(&mut send, Dir::Bi).await?;
        Ok((send, recv))
    }

    /// Opens a stream that carries data to the peer; waits while the peer lets no more be open.
    ///
    /// # Errors
    /// As for [`open_bi`](Self::open_bi).
    pub async fn open_uni(&self) -> Result<SendStream, Error> {
        self.alive()?;
        let mut send = self.inner.hold.link.quic.open_uni().await.map_err(Error::Closed)?;
        self.introduce(&mut send, Dir::Uni).await?;
        Ok(send)
    }

    fn alive(&self) -> Result<(), Error> {
        match lock(&self.inner.theirs).end {
            Some(_) => Err(Error::Reset(Code(WT_SESSION_GONE))),
            None => Ok(()),
        }
    }

    /// Says what the stream is.
    async fn introduce(&self, send: &mut SendStream, dir: Dir) -> Result<(), Error> {
        self.inner.hold.link.state(|state| state.sessions.track(self.id(), send.slot()));
        let written = send.write_chunk(webtransport::stream_head(dir, self.id())).await;
        written.map_err(|_| Error::closed(&self.inner.hold.link.quic))
    }

    /// The next two-way stream that the peer opened; `None` when the session is over. Cancel-safe.
    pub async fn accept_bi(&self) -> Option<(SendStream, RecvStream)> {
        poll_fn(|cx| self.inner.hold.link.state(|state| state.sessions.poll_bi(cx, self.id()))).await
    }

    /// The next one-way stream that the peer opened; `None` when the session is over. Cancel-safe.
    pub async fn accept_uni(&self) -> Option<RecvStream> {
        poll_fn(|cx| self.inner.hold.link.state(|state| state.sessions.poll_uni(cx, self.id()))).await
    }

    /// Sends a datagram; `false` when it was dropped: it is too large, or too many wait.
    pub fn send_datagram(&self, payload: &[u8]) -> bool {
        self.inner.hold.link.at_once(|h3, carrier| h3.send_datagram(carrier, self.id(), payload))
    }

    /// The next datagram; `None` when the session is over. Cancel-safe. Datagrams are dropped when nobody takes them, oldest
    /// first.
    pub async fn recv_datagram(&self) -> Option<Bytes> {
        poll_fn(|cx| self.inner.hold.link.state(|state| state.sessions.poll_datagram(cx, self.id()))).await
    }

    /// Ends the session with a code and a reason, of which at most 1,024 bytes are sent. The first call counts.
    pub fn close(&self, code: u32, reason: &str) {
        let mut end = reason.len().min(REASON_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut out = Vec::new();
        CloseSession { code, reason: Bytes::copy_from_slice(&reason.as_bytes()[..end]) }.encode(&mut out);
        self.inner.ours.end(out.into());
        finish(&self.inner.hold, &self.inner.theirs, SessionEnd { code, reason: reason[..end].to_owned() });
    }

    /// Waits for the end of the session, and tells what was said with it: by the peer, or here. Cancel-safe.
    pub async fn closed(&self) -> SessionEnd {
        poll_fn(|cx| {
            let mut theirs = lock(&self.inner.theirs);
            if let Some(end) = &theirs.end {
                return Poll::Ready(end.clone());
            }
            if !theirs.wakers.iter().any(|w| w.will_wake(cx.waker())) {
                theirs.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// An application's code as it stands in frames, for [`SendStream::reset`] and [`RecvStream::stop`].
    #[must_use]
    pub const fn code_to_wire(code: u32) -> u64 {
        webtransport::to_wire(code)
    }

    /// The application's code of one that a stream was reset or stopped with; `None` when it is none.
    #[must_use]
    pub fn code_from_wire(code: u64) -> Option<u32> {
        webtransport::from_wire(code)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ours.end(Bytes::new());
        finish(&self.hold, &self.theirs, SessionEnd::default());
    }
}

/// Takes note of the end; the first one counts. Streams that are left are given up.
fn finish(hold: &Hold, theirs: &Mutex<Theirs>, end: SessionEnd) {
    let mut state = lock(theirs);
    if state.end.is_some() {
        return;
    }
    state.end = Some(end);
    let wakers = std::mem::take(&mut state.wakers);
    drop(state);
    hold.link.state(|state| state.sessions.close(hold.stream));
    wakers.into_iter().for_each(Waker::wake);
}

impl SendRequest {
    /// Begins a WebTransport session: `request` has the address and any headers; its method and body do not matter.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the server does not offer WebTransport, or answers with another status than a success, which is
    /// in the text; [`Error::Rejected`] when as many sessions are open on this connection as the server permits, which is one
    /// with a server that says no number; otherwise see [`Error`].
    pub async fn web_transport<B>(&mut self, request: Request<B>) -> Result<(Session, Response<()>), Error> {
        self.settled().await?;
        if !self.link().state(|state| state.h3().peer_settings().is_some_and(|s| s.webtransport_sessions > 0)) {
            return Err(Error::Misuse("the server does not offer WebTransport".into()));
        }
        let (mut head, _) = request.into_parts();
        let protocol = super::Protocol::new(PROTOCOLS[1]).ok_or(Error::Misuse("no such protocol".into()))?;
        head.method = Method::CONNECT;
        head.extensions.insert(protocol);
        let ours = Arc::new(Ours::default());
        let response = self.send(Request::from_parts(head, SessionBody { ours: Arc::clone(&ours) })).await?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(Error::Misuse(format!("the server answered {}", head.status).into()));
        }
        let hold = body.hold().ok_or(Error::Misuse("the server ended the session at once".into()))?;
        Ok((Session::begin(hold, ours, body), Response::from_parts(head, ())))
    }
}

/// What this end says on the session's own stream.
#[derive(Default)]
struct Ours {
    state: Mutex<OursState>,
}

#[derive(Default)]
struct OursState {
    last: Option<Bytes>,
    ended: bool,
    waker: Option<Waker>,
}

impl Ours {
    /// Nothing follows `last`.
    fn end(&self, last: Bytes) {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        state.last = Some(last).filter(|last| !last.is_empty());
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// The body of a response that begins a session; it lasts as long as the session.
pub struct SessionBody {
    ours: Arc<Ours>,
}

impl Body for SessionBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = lock(&self.ours.state);
        if let Some(last) = state.last.take() {
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        wait_alone(&mut state.waker, cx);
        Poll::Pending
    }
}

impl std::fmt::Debug for SessionBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionBody").finish_non_exhaustive()
    }
}

/// Reads capsules until the session ends.
struct Reader {
    hold: Hold,
    theirs: Arc<Mutex<Theirs>>,
    ours: Arc<Ours>,
}

impl Reader {
    async fn read<B>(self, body: B)
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let mut body = std::pin::pin!(body);
        let mut capsules = CapsuleReader::new(4 + REASON_MAX, |kind| kind == WT_CLOSE_SESSION);
        let end = loop {
            let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            let Some(Ok(frame)) = frame else { break SessionEnd::default() };
            let Ok(mut data) = frame.into_data() else { continue };
            let mut data = data.copy_to_bytes(data.remaining());
            if let Some(capsule) = capsules.next(&mut data) {
                break SessionEnd::of(capsule).unwrap_or_else(|| {
                    self.hold.link.at_once(|h3, carrier| h3.cancel(carrier, self.hold.stream, Code::MESSAGE_ERROR));
                    SessionEnd::default()
                });
            }
        };
        finish(&self.hold, &self.theirs, end);
        self.ours.end(Bytes::new());
    }
}
