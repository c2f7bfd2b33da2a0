//! One request at a server, from its head to the last byte of its answer.
//!
//! A future written by hand: it is small, can be moved between its polls, and so can be polled once where the request was taken
//! and put into a task only when it has to wait.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use courser_core::ids::StreamId;
use courser_h3::Code;
use courser_h3::conn::Head;
use courser_h3::webtransport::is_asked_for_by;
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;
use tower_service::Service;

use super::body::{RecvBody, SendBody, Stall};
use super::driver::hand_over;
use super::error::{BoxError, Error};
use super::exchange::Exchange;
use super::link::Hold;
use super::respond;

/// A request that is being served.
pub(super) struct Serving<S, B>
where
    S: Service<Request<RecvBody>, Response = Response<B>>,
{
    hold: Hold,
    service: S,
    stage: Stage<S, B>,
    /// What has to be known of the request to answer it.
    method: Method,
    stall_timeout: Duration,
}

enum Stage<S: Service<Request<RecvBody>>, B> {
    /// Its head is awaited.
    Head(Stall),
    /// It may be a replay and is not safe, so the end of the handshake is awaited.
    Early(Request<RecvBody>),
    /// The service has not room for it.
    Ready(Request<RecvBody>),
    /// The service works.
    Call(Pin<Box<S::Future>>),
    /// The answer's body is sent.
    Body(SendBody<B>),
    /// The answer has no body; what waits of its head is sent.
    Flush,
    Over,
}

/// Nothing in it is pinned where it lies: futures and bodies are behind pointers.
impl<S: Service<Request<RecvBody>, Response = Response<B>>, B> Unpin for Serving<S, B> {}

impl<S, B> Serving<S, B>
where
    S: Service<Request<RecvBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(hold: Hold, service: S, (head, stall_timeout): (Duration, Duration)) -> Self {
        let stage = Stage::Head(Stall::new(Some(head), "the head of a request"));
        Self { hold, service, stage, method: Method::GET, stall_timeout }
    }

    /// Goes as far as it can. Ready when there is nothing more to do.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            self.stage = match &mut self.stage {
                Stage::Head(stall) => match ready!(poll_head(&self.hold, stall, cx)) {
                    Some((parts, whole)) if self.has_to_wait(&parts.method) => Stage::Early(self.request(parts, whole)),
                    Some((parts, whole)) => Stage::Ready(self.request(parts, whole)),
                    None => Stage::Over,
                },
                Stage::Early(_) => {
                    let proven = ready!(self.hold.link.conn().0.poll_established(cx));
                    proven.map_err(|_| Error::closed(&self.hold.link.quic))?;
                    let Stage::Early(request) = std::mem::replace(&mut self.stage, Stage::Over) else { continue };
                    Stage::Ready(request)
                }
                Stage::Ready(_) => {
                    let room = ready!(self.service.poll_ready(cx));
                    room.map_err(|e| Error::Application(e.into()))?;
                    let Stage::Ready(request) = std::mem::replace(&mut self.stage, Stage::Over) else { continue };
                    Stage::Call(Box::pin(self.service.call(request)))
                }
                Stage::Call(call) => match call.as_mut().poll(cx) {
                    Poll::Ready(response) => {
                        let response = response.map_err(|e| Error::Application(e.into()))?;
                        self.answer(response, cx)?
                    }
                    // A client that stops caring stops the work for it.
                    Poll::Pending => return self.hold.poll_given_up(cx).map(Err),
                },
                Stage::Body(sending) => {
                    ready!(sending.poll(cx, &self.hold))?;
                    Stage::Over
                }
                Stage::Flush => {
                    ready!(self.hold.poll_flush(cx))?;
                    Stage::Over
                }
                Stage::Over => return Poll::Ready(Ok(())),
            };
        }
    }

    /// Whether the request must not be served before the client has proven to be there.
    fn has_to_wait(&self, method: &Method) -> bool {
        !method.is_safe() && self.hold.link.state(|state| state.is_early(self.hold.stream))
    }

    /// The request, with its body to be read unless it came `whole`.
    fn request(&mut self, parts: request::Parts, whole: bool) -> Request<RecvBody> {
        self.method.clone_from(&parts.method);
        let session = is_asked_for_by(&parts);
        let mut request = Request::from_parts(parts, RecvBody::empty());
        if !whole {
            let length = respond::content_length(request.headers());
            // A session may say nothing on its own stream for as long as it lives.
            let patience = (!session).then_some(self.stall_timeout);
            *request.body_mut() = RecvBody::new(self.hold.again(), length, patience);
        }
        request.extensions_mut().insert(Exchange::new(&self.hold));
        request
    }

    /// Sends the head of the answer, with as much of its body as is there.
    fn answer(&self, response: Response<B>, cx: &mut Context<'_>) -> Result<Stage<S, B>, Error> {
        let (mut head, body) = response.into_parts();
        let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        respond::complete(&mut head, &body, &self.method);
        let hold = &self.hold;
        if bodiless || self.method == Method::HEAD || body.is_end_stream() {
            let sent = hold.link.at_once(|h3, carrier| h3.send_response(carrier, hold.stream, &head, true));
            return sent.map(|()| Stage::Flush).map_err(|e| hold.error(e));
        }
        let mut sending = SendBody::new(body, Some(self.stall_timeout));
        sending.begin(cx)?;
        let sent = hold.link.at_once(|h3, carrier| {
            sending.with_head(|data, end| h3.send_response_with(carrier, hold.stream, &head, data, end))?;
            // Most answers are over with that.
            Ok(sending.is_sent() && h3.flush(carrier, hold.stream)?)
        });
        match sent {
            Ok(true) => Ok(Stage::Over),
            Ok(false) => Ok(Stage::Body(sending)),
            Err(e) => Err(hold.error(e)),
        }
    }
}

impl<S, B> Future for Serving<S, B>
where
    S: Service<Request<RecvBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A service that panics is this request's trouble, not the connection's: the state here is left alone afterwards.
        let advanced = catch_unwind(AssertUnwindSafe(|| self.advance(cx)));
        let code = match advanced {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => return Poll::Ready(()),
            Ok(Poll::Ready(Err(e))) => {
                tracing::debug!(stream = self.hold.stream.0, error = %e, "a request was not answered in full");
                match &e {
                    // A body can say itself how it broke off, such as a tunnel with H3_CONNECT_ERROR.
                    Error::Application(inner) => match inner.downcast_ref() {
                        Some(Error::Reset(code)) => *code,
                        _ => Code::INTERNAL_ERROR,
                    },
                    _ => Code::REQUEST_CANCELLED,
                }
            }
            Err(_) => {
                tracing::error!(stream = self.hold.stream.0, "a service panicked; its request was reset");
                Code::INTERNAL_ERROR
            }
        };
        let hold = &self.hold;
        hold.link.at_once(|h3, carrier| h3.cancel(carrier, hold.stream, code));
        self.stage = Stage::Over;
        Poll::Ready(())
    }
}

/// The head of the request, and whether that is all of it; `None` when it is none that can be answered, and all is done about
/// it.
fn poll_head(hold: &Hold, stall: &mut Stall, cx: &mut Context<'_>) -> Poll<Option<(request::Parts, bool)>> {
    let (head, whole) = hold.on(cx, |h3, carrier, stream| {
        let head = h3.poll_request(carrier, stream);
        (head, h3.is_read(carrier, stream))
    });
    match head {
        Ok(Head::Ready(parts)) => return Poll::Ready(Some((parts, whole))),
        Ok(Head::Blocked) => {}
        Ok(Head::WaitsForSettings) => {
            let _ = hold.link.state(|state| state.poll_settings(cx));
        }
        Ok(Head::WaitsForTable) => hold.link.state(|state| state.wait_for_table(hold.stream, cx)),
        Ok(Head::WebTransportStream { session }) => {
            web_transport(hold, session);
            return Poll::Ready(None);
        }
        Ok(Head::Gone) | Err(_) => return Poll::Ready(None),
    }
    ready!(stall.poll(cx));
    hold.link.at_once(|h3, carrier| h3.cancel(carrier, hold.stream, Code::REQUEST_INCOMPLETE));
    Poll::Ready(None)
}

fn web_transport(hold: &Hold, session: StreamId) {
    let rest = hold.link.at_once(|h3, _| h3.take_rest(hold.stream));
    hand_over(&hold.link, hold.stream, session, rest);
}
