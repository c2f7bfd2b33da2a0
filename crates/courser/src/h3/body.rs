//! Bodies: what is received, and how one that an application gives is sent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use courser_h3::Code;
use courser_h3::conn::Body as Part;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::error::{BoxError, Error};
use super::link::Hold;

/// A body that comes from the peer: pieces as they lay in packets, without a copy, then the trailers if there are any.
///
/// Not reading it holds the peer back by flow control. Dropped before its end, it tells the peer that the rest is not
/// wanted.
pub struct RecvBody {
    /// None when there is no body, or nothing more of it.
    hold: Option<Hold>,
    /// What `content-length` says is still to come.
    left: Option<u64>,
    stall: Stall,
}

impl RecvBody {
    /// Without a byte.
    #[must_use]
    pub const fn empty() -> Self {
        Self { hold: None, left: Some(0), stall: Stall::new(None, "the body") }
    }

    /// The body of the message that is being received on that stream.
    pub(super) const fn new(hold: Hold, length: Option<u64>, patience: Option<Duration>) -> Self {
        Self { hold: Some(hold), left: length, stall: Stall::new(patience, "the body") }
    }

    /// What follows; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await
    }

    /// Reads on to the end and gives all bytes in one piece. Trailers are left out.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Misuse`] when there are more than `limit` bytes.
    pub async fn read_to_end(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = bytes::BytesMut::new();
        let mut only = Bytes::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if all.len() + only.len() + data.len() > limit {
                return Err(Error::Misuse("the body is larger than the limit of this call".into()));
            }
            if all.is_empty() && only.is_empty() {
                only = data;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut only));
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { only } else { all.freeze() })
    }

    /// Nothing may come for as long as it likes.
    pub(super) fn be_patient(&mut self) {
        self.stall = Stall::new(None, "the body");
    }

    /// Another handle of the stream from which it is read.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.hold.as_ref().map(Hold::again)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(hold) = &self.hold else { return Poll::Ready(None) };
        let part = hold.on(cx, |h3, carrier, stream| h3.poll_body(carrier, stream)).map_err(|e| hold.error(e));
        match part {
            Ok(Part::Data(data)) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                self.stall.moved();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(Part::Trailers(trailers)) => {
                self.hold = None;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Ok(Part::End) => {
                self.hold = None;
                Poll::Ready(None)
            }
            Ok(Part::Blocked) => Poll::Pending,
            Ok(Part::WaitsForTable) => {
                hold.link.state(|state| state.wait_for_table(hold.stream, cx));
                Poll::Pending
            }
            Err(e) => {
                self.hold = None;
                Poll::Ready(Some(Err(e)))
            }
        }
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let part = this.poll_part(cx);
        if part.is_pending() && this.stall.poll(cx).is_ready() {
            if let Some(hold) = this.hold.take() {
                hold.on(cx, |h3, carrier, stream| h3.cancel(carrier, stream, Code::REQUEST_CANCELLED));
            }
            return Poll::Ready(Some(Err(Error::TimedOut(this.stall.what))));
        }
        part
    }

    fn is_end_stream(&self) -> bool {
        self.hold.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.hold, self.left) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl Drop for RecvBody {
    fn drop(&mut self) {
        if let Some(hold) = &self.hold {
            hold.link.at_once(|h3, carrier| h3.stop_body(carrier, hold.stream, Code::NO_ERROR));
        }
    }
}

impl std::fmt::Debug for RecvBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBody").field("left", &self.left).field("end", &self.hold.is_none()).finish_non_exhaustive()
    }
}

/// How long nothing may move. The timer exists only while something waits.
pub(super) struct Stall {
    patience: Option<Duration>,
    what: &'static str,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(super) const fn new(patience: Option<Duration>, what: &'static str) -> Self {
        Self { patience, what, timer: None }
    }

    /// Something moved.
    pub(super) fn moved(&mut self) {
        if let (Some(timer), Some(patience)) = (&mut self.timer, self.patience) {
            timer.as_mut().reset(Instant::now() + patience);
        }
    }

    /// Ready when the patience is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(patience) = self.patience else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        timer.as_mut().poll(cx)
    }

    /// The error to tell then.
    pub(super) const fn error(&self) -> Error {
        Error::TimedOut(self.what)
    }
}

/// Sends the body of a message whose head was sent.
pub(super) struct SendBody<B> {
    body: Pin<Box<B>>,
    /// What was taken from the body and not sent.
    data: Bytes,
    /// What comes behind it.
    next: Next,
    stall: Stall,
}

enum Next {
    /// More of the body.
    More,
    Trailers(HeaderMap),
    End,
    /// All of it is with the transport, but for what waits in HTTP/3.
    Flush,
}

impl<B> SendBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(body: B, patience: Option<Duration>) -> Self {
        Self { body: Box::pin(body), data: Bytes::new(), next: Next::More, stall: Stall::new(patience, "the peer") }
    }

    /// Takes the first of the body, if it is there, to be sent [with the head](Self::with_head).
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.take(cx) {
            Poll::Ready(Err(e)) => Err(e),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Sends a head with what is there: `f` takes from the front of the bytes, and is told whether they are all.
    pub(super) fn with_head<T>(&mut self, f: impl FnOnce(&mut Bytes, bool) -> T) -> T {
        let end = matches!(self.next, Next::End);
        let sent = f(&mut self.data, end);
        if end && self.data.is_empty() {
            self.next = Next::Flush;
        }
        sent
    }

    /// Whether all of it is with HTTP/3.
    pub(super) const fn is_sent(&self) -> bool {
        matches!(self.next, Next::Flush)
    }

    /// Takes the next frame of the body.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.data.is_empty() && matches!(self.next, Next::More) {
            let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
                None => {
                    self.next = Next::End;
                    break;
                }
                Some(Err(e)) => return Poll::Ready(Err(Error::Application(e.into()))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(mut data) => {
                    self.data = data.copy_to_bytes(data.remaining());
                    if self.body.is_end_stream() {
                        self.next = Next::End;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.next = Next::Trailers(trailers);
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when everything is with the transport. On an error the caller gives the stream up.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, hold: &Hold) -> Poll<Result<(), Error>> {
        loop {
            match self.take(cx) {
                Poll::Ready(taken) => taken?,
                // Who waits for the application may hear that the peer does not want it any more.
                Poll::Pending => return hold.poll_given_up(cx).map(Err),
            }
            if self.send(cx, hold)? {
                return Poll::Ready(Ok(()));
            }
            if !self.data.is_empty() || matches!(self.next, Next::Flush) {
                return self.stall.poll(cx).map(|()| Err(self.stall.error()));
            }
        }
    }

    /// Hands over what there is; whether that was all.
    fn send(&mut self, cx: &Context<'_>, hold: &Hold) -> Result<bool, Error> {
        let (data, next, stall) = (&mut self.data, &mut self.next, &mut self.stall);
        hold.on(cx, |h3, carrier, stream| {
            if matches!(next, Next::Flush) {
                return h3.flush(carrier, stream);
            }
            let end = matches!(next, Next::End);
            if !data.is_empty() || end {
                if h3.send_body(carrier, stream, data, end)? > 0 {
                    stall.moved();
                }
                if !data.is_empty() {
                    return Ok(false);
                }
            }
            match std::mem::replace(next, Next::Flush) {
                Next::More => {
                    *next = Next::More;
                    return Ok(false);
                }
                Next::Trailers(trailers) => h3.send_trailers(carrier, stream, &trailers)?,
                Next::End | Next::Flush => {}
            }
            h3.flush(carrier, stream)
        })
        .map_err(|e| hold.error(e))
    }
}
