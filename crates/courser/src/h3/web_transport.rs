//! WebTransport sessions: many streams and datagrams behind one extended CONNECT.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};
use courser_h3::Code;
use courser_h3::webtransport::{self, CloseSession, PROTOCOLS, REASON_MAX, WT_SESSION_GONE};
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;

use super::capsules::{Ours, Reader, SessionBody, Theirs, finish};
use super::client::SendRequest;
use super::error::{BoxError, Error};
use super::exchange::Exchange;
use super::link::{Hold, Link};
use super::meter::{Meter, Permit};
use crate::aio::{RecvStream, SendStream};
use crate::wait::lock;

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
        let ours = Ours::new(meter(&hold.link));
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
        hold.link.state(|state| state.sessions.begin(hold.stream, Arc::clone(&ours.meter)));
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

    /// Opens a stream that carries data both ways; waits while the peer lets no more be open, in this session or on the
    /// connection. What is written waits likewise while the session's limit of bytes is reached. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Closed`] when the connection ended, [`Error::Reset`] when the session is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Error> {
        let permit = self.permit(Dir::Bi).await?;
        let (mut send, recv) = self.inner.hold.link.quic.open_bi().await.map_err(Error::Closed)?;
        permit.used();
        self.introduce(&mut send, Dir::Bi).await?;
        Ok((send, recv))
    }

    /// Opens a stream that carries data to the peer; waits as [`open_bi`](Self::open_bi) does. Cancel-safe.
    ///
    /// # Errors
    /// As for [`open_bi`](Self::open_bi).
    pub async fn open_uni(&self) -> Result<SendStream, Error> {
        let permit = self.permit(Dir::Uni).await?;
        let mut send = self.inner.hold.link.quic.open_uni().await.map_err(Error::Closed)?;
        permit.used();
        self.introduce(&mut send, Dir::Uni).await?;
        Ok(send)
    }

    /// Waits until the session lets one more stream be opened.
    async fn permit(&self, dir: Dir) -> Result<Permit, Error> {
        self.alive()?;
        let permit = poll_fn(|cx| self.inner.ours.meter.poll_open(cx, dir)).await;
        permit.ok_or(Error::Reset(Code(WT_SESSION_GONE)))
    }

    fn alive(&self) -> Result<(), Error> {
        match lock(&self.inner.theirs).end {
            Some(_) => Err(Error::Reset(Code(WT_SESSION_GONE))),
            None => Ok(()),
        }
    }

    /// Says what the stream is.
    async fn introduce(&self, send: &mut SendStream, dir: Dir) -> Result<(), Error> {
        let head = webtransport::stream_head(dir, self.id());
        send.slot().set_head(head.len());
        if !self.inner.hold.link.state(|state| state.sessions.track(self.id(), send.slot())) {
            return Err(Error::Reset(Code(WT_SESSION_GONE)));
        }
        let written = send.write_chunk(head).await;
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

    /// Tells the peer that the session is about to end, so that it can end it in good order; both may go on until then.
    pub fn drain(&self) {
        self.inner.ours.drain();
    }

    /// Waits until the peer says that the session is about to end, or it has ended. Cancel-safe.
    pub async fn draining(&self) {
        poll_fn(|cx| {
            let mut theirs = lock(&self.inner.theirs);
            if theirs.is_draining() {
                return Poll::Ready(());
            }
            theirs.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Waits for the end of the session, and tells what was said with it: by the peer, or here. Cancel-safe.
    pub async fn closed(&self) -> SessionEnd {
        poll_fn(|cx| {
            let mut theirs = lock(&self.inner.theirs);
            if let Some(end) = &theirs.end {
                return Poll::Ready(end.clone());
            }
            theirs.wait(cx);
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
        let ours = Ours::new(meter(self.link()));
        let response = self.send(Request::from_parts(head, SessionBody { ours: Arc::clone(&ours) })).await?;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            return Err(Error::Misuse(format!("the server answered {}", head.status).into()));
        }
        let hold = body.hold().ok_or(Error::Misuse("the server ended the session at once".into()))?;
        // It may say nothing on its own stream for as long as it lives.
        body.be_patient();
        Ok((Session::begin(hold, ours, body), Response::from_parts(head, ())))
    }
}

/// The limits of a new session, as the settings of both ends have them.
fn meter(link: &Link) -> Arc<Meter> {
    Meter::new(link.state(|state| state.h3().session_flow()))
}
