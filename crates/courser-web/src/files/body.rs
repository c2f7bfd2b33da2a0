//! Bodies from files: pieces that are read when somebody takes them.
//!
//! What the system has in memory is read on the spot; what it would have to fetch is read by a thread that may wait, so that
//! a slow disk holds up nobody else. The size was told before, so a file that shrank meanwhile is an error, never an end.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;

/// A piece of a body.
#[derive(Clone, Debug)]
enum Piece {
    /// Text between parts.
    Text(Bytes),
    /// Bytes of the file, from and to.
    Range(u64, u64),
}

/// Pieces of one file.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<File>,
    pieces: VecDeque<Piece>,
    remaining: u64,
    /// A read that had to wait.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// Bytes from `start` up to `end`.
    #[must_use]
    pub fn range(file: Arc<File>, start: u64, end: u64) -> Self {
        let mut body = Self { file, pieces: VecDeque::new(), remaining: 0, reading: None };
        body.push_range(start, end);
        body
    }

    /// Adds bytes from `start` up to `end`.
    pub fn push_range(&mut self, start: u64, end: u64) {
        if start < end {
            self.remaining += end - start;
            self.pieces.push_back(Piece::Range(start, end));
        }
    }

    /// Adds text.
    pub fn push_text(&mut self, text: String) {
        self.remaining += text.len() as u64;
        self.pieces.push_back(Piece::Text(text.into()));
    }

    /// Bytes that are still to come.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next bytes.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let data = match &mut self.reading {
            Some(task) => {
                let done = ready!(Pin::new(task).poll(cx));
                self.reading = None;
                done.unwrap_or_else(|e| Err(io::Error::other(e)))
            }
            None => match self.pieces.front() {
                None => return Poll::Ready(None),
                Some(Piece::Text(text)) => Ok(text.clone()),
                Some(&Piece::Range(start, end)) => {
                    let len = usize::try_from(end - start).unwrap_or(CHUNK).min(CHUNK);
                    match read_what_is_there(&self.file, start, len) {
                        Some(done) => done,
                        None => {
                            let file = Arc::clone(&self.file);
                            let task = tokio::task::spawn_blocking(move || read(&file, start, len));
                            self.reading = Some(task);
                            return self.poll_data(cx);
                        }
                    }
                }
            },
        };
        Poll::Ready(Some(data.and_then(|bytes| self.advance(bytes))))
    }

    fn advance(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        let n = bytes.len() as u64;
        match self.pieces.front_mut() {
            Some(Piece::Range(_, _)) if n == 0 => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            Some(Piece::Range(start, end)) if *start + n < *end => *start += n,
            _ => {
                self.pieces.pop_front();
            }
        }
        self.remaining = self.remaining.saturating_sub(n);
        Ok(bytes)
    }
}

impl Drop for FileBody {
    fn drop(&mut self) {
        if let Some(task) = self.reading.take() {
            task.abort();
        }
    }
}

fn read(file: &File, start: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; len];
    let n = file.read_at(&mut buffer, start)?;
    buffer.truncate(n);
    Ok(buffer.into())
}

/// Reads what is in memory; `None` when something is not, or nobody knows.
#[cfg(target_os = "linux")]
fn read_what_is_there(file: &File, start: u64, len: usize) -> Option<io::Result<Bytes>> {
    use rustix::io::{ReadWriteFlags, preadv2};

    let mut buffer = vec![0; len];
    match preadv2(file, &mut [io::IoSliceMut::new(&mut buffer)], start, ReadWriteFlags::NOWAIT) {
        Ok(n) => {
            buffer.truncate(n);
            Some(Ok(buffer.into()))
        }
        // It would have to wait, or cannot tell; the thread that may wait finds out what is wrong.
        Err(_) => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn read_what_is_there(_: &File, _: u64, _: usize) -> Option<io::Result<Bytes>> {
    None
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn file(bytes: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Arc::new(file)
    }

    async fn all(mut body: FileBody) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
            out.extend_from_slice(&data?);
            assert!(out.len() < 10 << 20);
        }
        assert_eq!(body.remaining(), 0);
        Ok(out)
    }

    #[tokio::test]
    async fn pieces_come_in_their_order() {
        let bytes: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
        let file = file(&bytes);
        assert_eq!(all(FileBody::range(file.clone(), 0, 400_000)).await.unwrap(), bytes);
        let mut body = FileBody::range(file, 0, 0);
        body.push_text("<".into());
        body.push_range(10, 200_000);
        body.push_text(">".into());
        assert_eq!(body.remaining(), 199_992);
        let expected = [b"<", &bytes[10..200_000], b">"].concat();
        assert_eq!(all(body).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_and_no_end() {
        let file = file(&[7; 1000]);
        file.set_len(100).unwrap();
        let e = all(FileBody::range(file, 0, 1000)).await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_has_to_wait_is_read_by_another_thread() {
        let file = file(b"hello");
        assert_eq!(read(&file, 1, 10).unwrap(), "ello");
        let mut body = FileBody::range(file.clone(), 0, 5);
        body.reading = Some(tokio::task::spawn_blocking(move || read(&file, 0, 5)));
        assert_eq!(all(body).await.unwrap(), b"hello");
    }
}
