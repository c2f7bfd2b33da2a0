//! Bodies that may not pause for long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use crate::body::BoxError;

/// A body paused too long.
#[derive(Debug)]
pub struct Paused(pub Duration);

impl std::fmt::Display for Paused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nothing came for {:?}", self.0)
    }
}

impl std::error::Error for Paused {}

/// A body that breaks off when nothing comes for a while, and that holds a place at the origin as long as it lasts.
#[derive(Debug)]
pub struct Timed<B> {
    inner: B,
    limit: Duration,
    /// Runs while somebody waits for the next piece.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Goes with the body.
    _place: Option<OwnedSemaphorePermit>,
}

impl<B> Timed<B> {
    /// The same body, with a limit.
    pub fn new(inner: B, limit: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { inner, limit, waiting: None, _place: place }
    }
}

impl<B> Body for Timed<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let timer = this.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // Polled once more it would tell so once more.
                timer.as_mut().reset(Instant::now());
                Poll::Ready(Some(Err(Box::new(Paused(limit)))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use http_body_util::channel::Channel;

    use super::*;

    #[tokio::test]
    async fn a_pause_ends_it_and_its_place_is_free_then() {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(4);
        let place = std::sync::Arc::clone(&places).acquire_owned().await.unwrap();
        let mut timed = Timed::new(body, Duration::from_millis(20), Some(place));
        sender.send_data("a".into()).await.unwrap();
        assert_eq!(timed.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let e = timed.frame().await.unwrap().unwrap_err();
        assert!(e.is::<Paused>(), "{e}");
        sender.send_data("b".into()).await.unwrap();
        drop(sender);
        assert_eq!(timed.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
        assert!(timed.frame().await.is_none());
        assert_eq!(places.available_permits(), 0);
        drop(timed);
        assert_eq!(places.available_permits(), 1);
    }
}
