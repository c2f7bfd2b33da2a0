//! Bytes that go both ways between a client and an origin until both have ended, one breaks off, or both are silent.
//!
//! A piece is read when the one before it is written: who takes nothing is sent nothing, and no more than one piece waits for each
//! direction. The end of one direction is passed on, and the other goes on.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use courser::h3;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::timed::Paused;
use crate::body::{BoxError, RequestBody};

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// The end of a tunnel away from the client.
pub trait Io: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin> Io for T {}

/// Any such end.
pub type Far = Box<dyn Io>;

/// When something went either way.
#[derive(Clone, Debug)]
struct Beat(Arc<Mutex<Instant>>);

impl Beat {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when nothing went for so long.
    async fn silent(&self, limit: Duration) {
        loop {
            let until = self.last() + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Begins a tunnel behind the head of an answer: what the answer's body becomes. Over HTTP/3 the two bodies are the tunnel.
pub fn begin(
    (client, body): (Option<OnUpgrade>, RequestBody),
    origin: Far,
    idle: Duration,
    place: OwnedSemaphorePermit,
) -> crate::body::Body {
    match client {
        Some(client) => crate::body::Body::Tunnel(Box::new(Tunnel { client, origin, idle, place })),
        None => crate::body::Body::Stream(Downward::begin(body, origin, idle, place).boxed_unsync()),
    }
}

/// A tunnel whose client has still to be told; HTTP/1.1 and HTTP/2.
#[derive(Debug)]
pub struct Tunnel {
    /// The client's end, once it was told.
    pub client: OnUpgrade,
    /// The origin's end.
    pub origin: Far,
    /// How long nothing may go either way.
    pub idle: Duration,
    /// Goes with the tunnel.
    pub place: OwnedSemaphorePermit,
}

impl Tunnel {
    /// Carries until the end; `down` hears how many bytes the client got with each piece.
    ///
    /// # Errors
    /// One side broke off, or both were silent for too long.
    pub async fn carry(self, mut down: impl FnMut(usize)) -> io::Result<()> {
        let beat = Beat::new();
        let carried = async {
            let client = self.client.await.map_err(io::Error::other)?;
            let (mut from_client, mut to_client) = split(TokioIo::new(client));
            let (mut from_origin, mut to_origin) = split(self.origin);
            tokio::try_join!(
                one_way(&mut from_client, &mut to_origin, &beat, |_| {}),
                one_way(&mut from_origin, &mut to_client, &beat, &mut down),
            )
            .map(drop)
        };
        tokio::select! {
            carried = carried => carried,
            () = beat.silent(self.idle) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    beat: &Beat,
    mut seen: impl FnMut(usize),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let n = from.read(&mut piece).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        beat.touch();
        to.write_all(&piece[..n]).await?;
        to.flush().await?;
        beat.touch();
        seen(n);
    }
}

/// What the origin says in a tunnel of HTTP/3, as a body. The other direction is a task, which ends with this one unless the origin
/// ended properly: then the client may have something to say still.
#[derive(Debug)]
pub struct Downward {
    origin: ReadHalf<Far>,
    /// Ready with whether the client broke off.
    upward: Option<JoinHandle<bool>>,
    piece: Box<[u8]>,
    beat: Beat,
    idle: Duration,
    waiting: Pin<Box<Sleep>>,
    /// The origin ended.
    ended: bool,
    /// Goes with the tunnel.
    _place: Arc<OwnedSemaphorePermit>,
}

impl Downward {
    /// Begins to carry what the client sends.
    pub fn begin(body: RequestBody, origin: Far, idle: Duration, place: OwnedSemaphorePermit) -> Self {
        let (origin, to_origin) = split(origin);
        let (beat, place) = (Beat::new(), Arc::new(place));
        let (beating, held) = (beat.clone(), Arc::clone(&place));
        let upward = tokio::spawn(async move {
            let broke_off = tokio::select! {
                broke_off = upward(body, to_origin, &beating) => broke_off,
                () = beating.silent(idle) => true,
            };
            drop(held);
            broke_off
        });
        let (piece, waiting) = (vec![0; PIECE].into_boxed_slice(), Box::pin(sleep(idle)));
        Self { origin, upward: Some(upward), piece, beat, idle, waiting, ended: false, _place: place }
    }
}

/// Carries what the client sends; whether it broke off. An origin that takes nothing any more may still have something to say.
async fn upward(mut body: RequestBody, mut origin: WriteHalf<Far>, beat: &Beat) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return true };
        if let Ok(data) = frame.into_data() {
            beat.touch();
            if origin.write_all(&data).await.is_err() || origin.flush().await.is_err() {
                return false;
            }
            beat.touch();
        }
    }
    let _ = origin.shutdown().await;
    false
}

impl Body for Downward {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(task) = &mut this.upward
            && let Poll::Ready(broke_off) = Pin::new(task).poll(cx)
        {
            this.upward = None;
            //= rfc9114#4.4-5
            if broke_off.unwrap_or(true) {
                return Poll::Ready(Some(Err(Box::new(h3::Error::Reset(h3::Code::CONNECT_ERROR)))));
            }
        }
        let mut piece = ReadBuf::new(&mut this.piece);
        match Pin::new(&mut this.origin).poll_read(cx, &mut piece) {
            Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(Box::new(h3::Error::Reset(h3::Code::CONNECT_ERROR))))),
            Poll::Ready(Ok(())) if piece.filled().is_empty() => {
                this.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Ok(())) => {
                this.beat.touch();
                return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(piece.filled())))));
            }
            Poll::Pending => {}
        }
        loop {
            let until = this.beat.last() + this.idle;
            if until <= Instant::now() {
                return Poll::Ready(Some(Err(Box::new(Paused(this.idle)))));
            }
            this.waiting.as_mut().reset(until);
            if this.waiting.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Downward {
    fn drop(&mut self) {
        //= rfc9114#4.4-4
        if let (false, Some(upward)) = (self.ended, &self.upward) {
            upward.abort();
        }
    }
}
