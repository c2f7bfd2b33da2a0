//! What answers are made of: bytes that are there, pieces of a file, or whatever comes from somewhere else.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::files::body::FileBody;
use crate::proxy::tunnel::Tunnel;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request, whatever carried it.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// The body of an answer.
#[derive(Debug, Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// Bytes that are there.
    Full(Bytes),
    /// Pieces of a file.
    File(FileBody),
    /// What comes from somewhere else.
    Stream(UnsyncBoxBody<Bytes, BoxError>),
    /// None; when the client has the answer's head its connection becomes a tunnel.
    Tunnel(Box<Tunnel>),
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(text: T) -> Self {
        let bytes = text.into();
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::File(file) => file.poll_data(cx).map(|data| data.map(|d| d.map(Frame::data).map_err(Into::into))),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Tunnel(_) => true,
            Self::Full(_) => false,
            Self::File(file) => file.remaining() == 0,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::File(file) => SizeHint::with_exact(file.remaining()),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// An answer of one sentence, for people.
#[must_use]
pub fn sentence(status: http::StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{status}\n{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn bytes_come_once_and_the_size_is_known_before() {
        let mut body = Body::from("abc");
        assert_eq!(body.size_hint().exact(), Some(3));
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "abc");
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert!(Body::from("").is_end_stream());
        let mut answer = sentence(http::StatusCode::NOT_FOUND, "There is nothing.");
        let text = answer.body_mut().collect().await.unwrap().to_bytes();
        assert_eq!(text, "404 Not Found\nThere is nothing.\n");
    }
}
