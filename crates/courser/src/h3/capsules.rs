//! What both ends of a WebTransport session say on its own stream: capsules.
//!
//! [`SessionBody`] is what this end says: limits, that the session is about to end, its end with a code and a reason. It is
//! asked when the stream has room, and what is due is computed then, so that nothing piles up behind a peer that does not read.
//! [`Reader`] takes what the peer says, until the session ends one way or another; capsules without effect cost the peer's
//! budget of noise.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use courser_h3::Code;
use courser_h3::capsule::{self, Capsule, CapsuleReader, WT_CLOSE_SESSION, WT_DRAIN_SESSION};
use courser_h3::webtransport::flow::{Broken, Raised, WT_FLOW_CONTROL_ERROR};
use courser_h3::webtransport::{CloseSession, REASON_MAX};
use http_body::{Body, Frame};

use super::error::BoxError;
use super::link::Hold;
use super::meter::Meter;
use super::web_transport::SessionEnd;
use crate::wait::{lock, wait_alone};

/// How long the peer has to end the stream behind the capsule that ends the session.
const PARTING: Duration = Duration::from_secs(5);

/// What this end says on the session's own stream.
pub(super) struct Ours {
    pub(super) meter: Arc<Meter>,
    state: Mutex<OursState>,
}

#[derive(Default)]
struct OursState {
    last: Option<Bytes>,
    /// That the session is about to end is to be said, or was.
    drain: Option<bool>,
    ended: bool,
    waker: Option<Waker>,
}

impl Ours {
    pub(super) fn new(meter: Arc<Meter>) -> Arc<Self> {
        Arc::new(Self { meter, state: Mutex::default() })
    }

    /// Nothing follows `last`.
    pub(super) fn end(&self, last: Bytes) {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        state.last = Some(last).filter(|last| !last.is_empty());
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Says once that the session is about to end.
    pub(super) fn drain(&self) {
        let mut state = lock(&self.state);
        state.drain.get_or_insert(true);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// The body of a response that begins a session; it lasts as long as the session.
pub struct SessionBody {
    pub(super) ours: Arc<Ours>,
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
        if state.drain == Some(true) {
            state.drain = Some(false);
            let mut out = Vec::new();
            capsule::encode(WT_DRAIN_SESSION, &[], &mut out);
            return Poll::Ready(Some(Ok(Frame::data(out.into()))));
        }
        wait_alone(&mut state.waker, cx);
        drop(state);
        self.ours.meter.poll_due(cx).map(|capsules| Some(Ok(Frame::data(capsules))))
    }
}

impl std::fmt::Debug for SessionBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionBody").finish_non_exhaustive()
    }
}

/// What the peer said on the session's own stream.
#[derive(Default)]
pub(super) struct Theirs {
    pub(super) end: Option<SessionEnd>,
    /// The session is about to end.
    drain: bool,
    wakers: Vec<Waker>,
}

impl Theirs {
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|w| w.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }

    pub(super) const fn is_draining(&self) -> bool {
        self.drain || self.end.is_some()
    }
}

/// Takes note of the end; the first one counts. Streams that are left are given up.
pub(super) fn finish(hold: &Hold, theirs: &Mutex<Theirs>, end: SessionEnd) {
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

/// How a session ends for who reads its capsules.
enum Fate {
    /// The peer ended it, or its stream.
    Ended(SessionEnd),
    /// The same with a capsule, behind which nothing may come.
    Closed(SessionEnd),
    /// The peer broke a rule; the stream is reset with the code.
    Broken(u64, &'static str),
}

impl Fate {
    const fn of(broken: Broken) -> Self {
        match broken {
            Broken::Limit => Self::Broken(WT_FLOW_CONTROL_ERROR, "the peer broke a limit of the session"),
            Broken::Malformed => Self::Broken(Code::MESSAGE_ERROR.0, "the peer sent a malformed capsule"),
        }
    }
}

/// Reads capsules until the session ends.
pub(super) struct Reader {
    pub(super) hold: Hold,
    pub(super) theirs: Arc<Mutex<Theirs>>,
    pub(super) ours: Arc<Ours>,
}

impl Reader {
    pub(super) async fn read<B>(self, body: B)
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let mut body = std::pin::pin!(body);
        let fate = self.fate(body.as_mut()).await;
        let (end, closed) = match fate {
            Fate::Ended(end) => (end, false),
            Fate::Closed(end) => (end, true),
            Fate::Broken(code, reason) => {
                self.give_up(Code(code));
                (SessionEnd { code: 0, reason: reason.into() }, false)
            }
        };
        finish(&self.hold, &self.theirs, end);
        self.ours.end(Bytes::new());
        if closed && tokio::time::timeout(PARTING, self.is_followed(body)).await == Ok(true) {
            self.give_up(Code::MESSAGE_ERROR);
        }
    }

    fn give_up(&self, code: Code) {
        self.hold.link.at_once(|h3, carrier| h3.cancel(carrier, self.hold.stream, code));
    }

    /// Whether bytes come behind the capsule that ends the session.
    async fn is_followed<B: Body>(&self, mut body: Pin<&mut B>) -> bool {
        loop {
            match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Buf::has_remaining) => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    async fn fate<B: Body>(&self, mut body: Pin<&mut B>) -> Fate {
        let mut capsules = CapsuleReader::new(4 + REASON_MAX, |_| true);
        loop {
            let next = poll_fn(|cx| match self.ours.meter.poll_broken(cx) {
                Poll::Ready(broken) => Poll::Ready(Err(broken)),
                Poll::Pending => body.as_mut().poll_frame(cx).map(Ok),
            });
            let frame = match next.await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_)) | None) => return Fate::Ended(SessionEnd::default()),
                Err(broken) => return Fate::of(broken),
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let mut data = data.copy_to_bytes(data.remaining());
            while let Some(capsule) = capsules.next(&mut data) {
                if let Some(fate) = self.take(capsule, data.is_empty()) {
                    return fate;
                }
            }
        }
    }

    /// What a capsule means; the end of the session, when it is that.
    fn take(&self, capsule: Capsule, last: bool) -> Option<Fate> {
        let (kind, value) = match capsule {
            Capsule::Whole { kind, value } => (kind, value),
            Capsule::TooLong { kind, .. } if kind == WT_CLOSE_SESSION || capsule::is_about_limits(kind) => {
                return Some(Fate::of(Broken::Malformed));
            }
            Capsule::TooLong { .. } => return self.note_idle(),
        };
        if kind == WT_CLOSE_SESSION {
            let end = CloseSession::decode(value).filter(|_| last);
            return Some(end.map_or(Fate::of(Broken::Malformed), |CloseSession { code, reason }| {
                Fate::Closed(SessionEnd { code, reason: String::from_utf8_lossy(&reason).into_owned() })
            }));
        }
        if kind == WT_DRAIN_SESSION {
            let mut theirs = lock(&self.theirs);
            theirs.drain = true;
            let wakers = std::mem::take(&mut theirs.wakers);
            drop(theirs);
            wakers.into_iter().for_each(Waker::wake);
            return self.note_idle();
        }
        match self.ours.meter.on_capsule(kind, &value) {
            Ok(Raised::Nothing) => self.note_idle(),
            Ok(Raised::Data | Raised::Streams(_)) => None,
            Err(broken) => Some(Fate::of(broken)),
        }
    }

    /// A capsule that lets nothing move.
    fn note_idle(&self) -> Option<Fate> {
        let counted = self.hold.link.at_once(|h3, carrier| h3.on_idle_capsule(carrier));
        counted.is_err().then(|| Fate::Ended(SessionEnd::default()))
    }
}
