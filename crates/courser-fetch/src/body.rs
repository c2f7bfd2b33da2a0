//! Bytes on their way out and in.
//!
//! Out: nothing, a text, or a file that is read as it goes. All can be sent again, which redirects and retries need.
//! In: whatever the connection gives, counted against the length that the header section told, with a mark for each
//! movement so that a rest without any can be noticed.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use crate::error::{Error, Outcome};

/// Bytes that are read from a file at once.
const PIECE: usize = 64 << 10;

/// A body as a connection gives it.
pub type Incoming = UnsyncBoxBody<Bytes, Error>;

/// What is to be sent with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, read anew each time.
    File(PathBuf),
}

impl Payload {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// A body for one request.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn open(&self, pulse: &Pulse) -> Outcome<Outgoing> {
        let source = match self {
            Self::Empty => Source::Bytes(Bytes::new()),
            Self::Bytes(bytes) => Source::Bytes(bytes.clone()),
            Self::File(path) => {
                let failed = |e: io::Error| Error::reading(path, &e);
                let file = File::open(path).await.map_err(failed)?;
                let meta = file.metadata().await.map_err(failed)?;
                if !meta.is_file() {
                    return Err(Error::Unreadable { path: path.clone(), why: "it is no regular file".into() });
                }
                Source::File { file, left: meta.len(), path: path.clone(), piece: Vec::new() }
            }
        };
        Ok(Outgoing { source, pulse: pulse.clone() })
    }
}

/// A body on its way out.
#[derive(Debug)]
pub struct Outgoing {
    source: Source,
    pulse: Pulse,
}

#[derive(Debug)]
enum Source {
    Bytes(Bytes),
    File { file: File, left: u64, path: PathBuf, piece: Vec<u8> },
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        me.pulse.beat();
        match &mut me.source {
            Source::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::File { left: 0, .. } => Poll::Ready(None),
            Source::File { file, left, path, piece } => {
                // A file that grows meanwhile is sent as long as it was.
                piece.resize(PIECE.min(usize::try_from(*left).unwrap_or(PIECE)), 0);
                let mut buf = ReadBuf::new(piece);
                if let Err(e) = ready!(Pin::new(file).poll_read(cx, &mut buf)) {
                    return Poll::Ready(Some(Err(Error::reading(path, &e))));
                }
                let read = buf.filled().len();
                if read == 0 {
                    let why = format!("it ended {left} bytes early");
                    return Poll::Ready(Some(Err(Error::Unreadable { path: path.clone(), why })));
                }
                *left -= read as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&piece[..read])))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

impl Outgoing {
    fn left(&self) -> u64 {
        match &self.source {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { left, .. } => *left,
        }
    }
}

/// The last time at which anything moved in an exchange.
#[derive(Clone, Debug)]
pub struct Pulse {
    start: Instant,
    /// Milliseconds after the start.
    last: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }
}

impl Pulse {
    /// Something moved.
    pub fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// When it is too quiet, if nothing moves until then.
    #[must_use]
    pub fn limit(&self, rest: Duration) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + rest
    }

    /// Waits for `what`, as long as anything moves at least every `rest`.
    ///
    /// # Errors
    /// [`Error::Stalled`].
    pub async fn watch<T>(&self, rest: Duration, what: impl Future<Output = T>) -> Outcome<T> {
        let mut what = std::pin::pin!(what);
        loop {
            let limit = self.limit(rest);
            tokio::select! {
                biased;
                done = &mut what => return Ok(done),
                () = tokio::time::sleep_until(limit.into()) => {
                    if self.limit(rest) <= Instant::now() {
                        return Err(Error::Stalled { after: rest });
                    }
                }
            }
        }
    }
}

/// How far a job is, for whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    got: Arc<AtomicU64>,
    /// One more than the size, so that none is 0.
    size: Arc<AtomicU64>,
}

impl Meter {
    /// Bytes that are there.
    #[must_use]
    pub fn got(&self) -> u64 {
        self.got.load(Ordering::Relaxed)
    }

    /// Bytes that there will be, where that is known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size.load(Ordering::Relaxed).checked_sub(1)
    }

    /// A body begins with so many bytes already there, and so many in all.
    pub fn begin(&self, have: u64, size: Option<u64>) {
        self.got.store(have, Ordering::Relaxed);
        self.size.store(size.map_or(0, |n| n.saturating_add(1)), Ordering::Relaxed);
    }

    fn add(&self, n: u64) {
        self.got.fetch_add(n, Ordering::Relaxed);
    }
}

/// A body on its way in, counted.
pub struct Counted {
    inner: Incoming,
    pulse: Pulse,
    meter: Meter,
    expected: Option<u64>,
    got: u64,
    ended: bool,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counted({} of {:?})", self.got, self.expected)
    }
}

impl Counted {
    /// The body of an answer that told its length, or did not.
    #[must_use]
    pub const fn new(inner: Incoming, expected: Option<u64>, pulse: Pulse, meter: Meter) -> Self {
        Self { inner, pulse, meter, expected, got: 0, ended: false }
    }

    /// Bytes that came.
    #[must_use]
    pub const fn got(&self) -> u64 {
        self.got
    }

    /// Bytes that are to come in all, where that was told.
    #[must_use]
    pub const fn expected(&self) -> Option<u64> {
        self.expected
    }

    fn judge(&mut self, frame: Option<Result<Frame<Bytes>, Error>>) -> Option<Result<Frame<Bytes>, Error>> {
        let cut = |got, expected, why: &str| Error::Cut { got, expected, why: why.into() };
        match frame {
            Some(Ok(frame)) => {
                let n = frame.data_ref().map_or(0, |d| d.len() as u64);
                self.got = self.got.saturating_add(n);
                self.meter.add(n);
                self.pulse.beat();
                match self.expected {
                    Some(n) if self.got > n => {
                        Some(Err(Error::WrongLength(format!("more than the {n} bytes came that were told"))))
                    }
                    _ => Some(Ok(frame)),
                }
            }
            Some(Err(e)) => Some(Err(match e {
                Error::Cut { why, .. } => cut(self.got, self.expected, &why),
                e => e,
            })),
            None if self.expected.is_some_and(|n| n != self.got) && !self.ended => {
                self.ended = true;
                Some(Err(cut(self.got, self.expected, "it ended early")))
            }
            None => None,
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(self.judge(frame))
    }
}

/// How a body ended that a decoder reads.
#[derive(Debug, Default)]
pub struct Ending {
    /// What came after it.
    pub trailers: Option<http::HeaderMap>,
    /// Why it broke off, in our words.
    pub failed: Option<Error>,
}

/// A body as something that can be read, for decoders. What is not data is put aside.
#[derive(Debug)]
pub struct Reader<B> {
    body: B,
    piece: Bytes,
    ending: Arc<Mutex<Ending>>,
}

impl<B> Reader<B> {
    /// Reads a body.
    pub fn new(body: B) -> (Self, Arc<Mutex<Ending>>) {
        let ending = Arc::new(Mutex::new(Ending::default()));
        (Self { body, piece: Bytes::new(), ending: ending.clone() }, ending)
    }

    fn note(&self, with: impl FnOnce(&mut Ending)) {
        with(&mut self.ending.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> AsyncBufRead for Reader<B> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let me = self.get_mut();
        while me.piece.is_empty() {
            match ready!(Pin::new(&mut me.body).poll_frame(cx)) {
                None => break,
                Some(Err(e)) => {
                    let told = io::Error::other(e.to_string());
                    me.note(|end| end.failed = Some(e));
                    return Poll::Ready(Err(told));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => me.piece = data,
                    Err(frame) => me.note(|end| end.trailers = frame.into_trailers().ok()),
                },
            }
        }
        Poll::Ready(Ok(&me.piece))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let me = self.get_mut();
        let n = n.min(me.piece.len());
        me.piece = me.piece.split_off(n);
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> AsyncRead for Reader<B> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let piece = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn full(text: &'static str) -> Incoming {
        Full::new(Bytes::from(text)).map_err(|e| match e {}).boxed_unsync()
    }

    async fn read(expected: Option<u64>) -> Result<usize, Error> {
        Counted::new(full("12345"), expected, Pulse::default(), Meter::default())
            .collect()
            .await
            .map(|c| c.to_bytes().len())
    }

    #[tokio::test]
    async fn the_told_length_is_kept_to() {
        assert_eq!(read(None).await, Ok(5));
        assert_eq!(read(Some(5)).await, Ok(5));
        assert_eq!(read(Some(6)).await, Err(Error::Cut { got: 5, expected: Some(6), why: "it ended early".into() }));
        assert!(matches!(read(Some(4)).await, Err(Error::WrongLength(_))));
    }

    #[tokio::test]
    async fn a_file_is_sent_in_pieces_and_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let payload = Payload::File(file.path().to_owned());
        for _ in 0..2 {
            let body = payload.open(&Pulse::default()).await.unwrap();
            assert_eq!(body.size_hint().exact(), Some(200_000));
            assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
        }
        let folder = Payload::File(file.path().parent().unwrap().to_owned());
        assert_eq!(folder.open(&Pulse::default()).await.unwrap_err().code(), 7);
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 100]).unwrap();
        let body = Payload::File(file.path().to_owned()).open(&Pulse::default()).await.unwrap();
        file.as_file().set_len(10).unwrap();
        assert!(body.collect().await.unwrap_err().to_string().contains("90 bytes early"));
    }

    #[tokio::test]
    async fn a_rest_that_is_too_long_is_noticed_and_movement_helps() {
        let rest = Duration::from_millis(30);
        let pulse = Pulse::default();
        let stalled = pulse.watch(rest, std::future::pending::<()>()).await;
        assert_eq!(stalled, Err(Error::Stalled { after: rest }));
        pulse.beat();
        assert_eq!(pulse.watch(rest, async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn trailers_are_put_aside() {
        use tokio::io::AsyncReadExt;

        let mut trailers = http::HeaderMap::new();
        trailers.insert("digest", http::HeaderValue::from_static("x"));
        let frames = [Frame::data(Bytes::from("ab")), Frame::data(Bytes::new()), Frame::trailers(trailers)];
        let stream = frames.map(Ok::<_, Error>);
        let (mut reader, ending) = Reader::new(Pieces(stream.into_iter()));
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), ending.lock().unwrap().trailers.is_some()), ("ab", true));
    }

    /// A body of given frames.
    struct Pieces<I>(I);

    impl<I: Iterator<Item = Result<Frame<Bytes>, Error>> + Unpin> Body for Pieces<I> {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
            Poll::Ready(self.0.next())
        }
    }
}
