//! Content codings (RFC 9110 section 8.4): bodies as the server means them, from what it sent.
//!
//! A body without coding goes through as it is. With one or more, decoders read from each other; what they hold is a
//! window each, whatever the body is.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader};

use crate::body::{Counted, Ending, Reader};
use crate::error::{Error, Outcome, harmless};

/// What this client can undo, as the field wants it.
pub const ACCEPTED: &str = "zstd, br, gzip, deflate";
/// Codings on top of each other that are undone.
const LAYERS_MAX: usize = 3;
/// Bytes that a decoder gives at once.
const PIECE: usize = 64 << 10;

/// A body that is read piece by piece.
pub enum Content {
    /// As it came.
    Plain {
        /// The body.
        body: Counted,
        /// What came after it.
        trailers: Option<HeaderMap>,
    },
    /// Through decoders.
    Decoded {
        /// The last decoder.
        reader: Pin<Box<dyn AsyncRead + Send>>,
        /// What the first one met.
        ending: Arc<Mutex<Ending>>,
    },
}

impl Content {
    /// The body of an answer whose header section says how it is coded; `undo` when the codings were asked for.
    ///
    /// # Errors
    /// A coding that nobody here knows.
    pub fn new(body: Counted, headers: &HeaderMap, undo: bool) -> Outcome<Self> {
        let codings = if undo { codings(headers)? } else { Vec::new() };
        if codings.is_empty() {
            return Ok(Self::Plain { body, trailers: None });
        }
        let (reader, ending) = Reader::new(body);
        let mut reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(reader);
        // The last one that is named was applied last.
        for coding in codings.iter().rev() {
            reader = Box::pin(BufReader::with_capacity(PIECE, coding.decoder(reader)));
        }
        Ok(Self::Decoded { reader: Box::pin(reader), ending })
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// It broke off, or cannot be decoded.
    pub async fn next(&mut self) -> Outcome<Option<Bytes>> {
        match self {
            Self::Plain { body, trailers } => loop {
                let Some(frame) = body.frame().await else { return Ok(None) };
                match frame?.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => *trailers = frame.into_trailers().ok(),
                }
            },
            Self::Decoded { reader, ending } => {
                let mut piece = BytesMut::with_capacity(PIECE);
                let outcome = reader.read_buf(&mut piece).await;
                let failed = ending.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
                match (outcome, failed) {
                    (_, Some(ours)) => Err(ours),
                    (Err(e), None) => Err(Error::Coding(harmless(&e.to_string()))),
                    (Ok(0), None) => Ok(None),
                    (Ok(_), None) => Ok(Some(piece.freeze())),
                }
            }
        }
    }

    /// What came after the body; known at its end.
    #[must_use]
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        match self {
            Self::Plain { trailers, .. } => trailers.take(),
            Self::Decoded { ending, .. } => ending.lock().unwrap_or_else(PoisonError::into_inner).trailers.take(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    fn decoder(self, from: Pin<Box<dyn AsyncBufRead + Send>>) -> Pin<Box<dyn AsyncRead + Send>> {
        match self {
            Self::Gzip => {
                let mut decoder = GzipDecoder::new(from);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            Self::Deflate => Box::pin(ZlibDecoder::new(from)),
            Self::Brotli => Box::pin(BrotliDecoder::new(from)),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::new(from);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
        }
    }
}

fn codings(headers: &HeaderMap) -> Outcome<Vec<Coding>> {
    let mut found = Vec::new();
    for line in headers.get_all(CONTENT_ENCODING) {
        let line = line.to_str().map_err(|_| Error::Coding("its coding has no name".into()))?;
        for name in line.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            found.push(match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                "identity" => continue,
                other => return Err(Error::Coding(format!("nobody here knows the coding `{}`", harmless(other)))),
            });
        }
    }
    if found.len() > LAYERS_MAX {
        return Err(Error::Coding(format!("it is coded {} times", found.len())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use http::HeaderValue;
    use http_body_util::Full;

    use super::*;
    use crate::body::{Meter, Pulse};

    fn text() -> Vec<u8> {
        (0..40_000u32).flat_map(|n| format!("line {}\n", n % 977).into_bytes()).collect()
    }

    async fn encoded(coding: &str, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            "gzip" => GzipEncoder::new(plain).read_to_end(&mut out).await,
            "deflate" => ZlibEncoder::new(plain).read_to_end(&mut out).await,
            "br" => BrotliEncoder::new(plain).read_to_end(&mut out).await,
            "zstd" => ZstdEncoder::new(plain).read_to_end(&mut out).await,
            other => panic!("{other}"),
        }
        .unwrap();
        out
    }

    async fn decoded(field: &'static str, bytes: &[u8]) -> Outcome<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(field));
        let body = Full::new(Bytes::copy_from_slice(bytes)).map_err(|e| match e {}).boxed_unsync();
        let body = Counted::new(body, Some(bytes.len() as u64), Pulse::default(), Meter::default());
        let mut content = Content::new(body, &headers, true)?;
        let mut out = Vec::new();
        while let Some(piece) = content.next().await? {
            out.extend_from_slice(&piece);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn each_coding_is_undone_and_a_cut_one_is_an_error() {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let bytes = encoded(coding, &text()).await;
            assert!(bytes.len() < text().len() / 4, "{coding}");
            assert_eq!(decoded(coding, &bytes).await.unwrap(), text(), "{coding}");
            for cut in [1, bytes.len() / 2, bytes.len() - 1] {
                let e = decoded(coding, &bytes[..cut]).await;
                assert!(matches!(e, Err(Error::Coding(_))), "{coding} cut at {cut}: {:?}", e.map(|v| v.len()));
            }
        }
        let e = decoded("gzip", b"this is no gzip at all").await.unwrap_err();
        assert_eq!(e.code(), 6);
    }

    #[tokio::test]
    async fn codings_on_top_of_each_other_are_undone_in_turn() {
        let once = encoded("br", &text()).await;
        let twice = encoded("gzip", &once).await;
        assert_eq!(decoded("br, GZIP", &twice).await.unwrap(), text());
        assert_eq!(decoded("identity", b"x").await.unwrap(), b"x");
        assert!(decoded("gzip,gzip,gzip,gzip", b"x").await.unwrap_err().to_string().contains("4 times"));
        assert!(decoded("compress", b"x").await.unwrap_err().to_string().contains("compress"));
    }
}
