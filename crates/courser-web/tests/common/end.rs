//! A client's end of a tunnel, whatever carries it.
#![allow(dead_code, clippy::unwrap_used, reason = "a test may fail, and need not use everything")]

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Sender;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{AnyBody, BoxError, PATIENCE};

/// A client's end of a tunnel.
pub enum End {
    Bytes(Box<TokioIo<Upgraded>>),
    Bodies(Option<Sender<Bytes, BoxError>>, AnyBody),
}

impl End {
    pub async fn say(&mut self, text: &'static str) {
        match self {
            Self::Bytes(io) => {
                io.write_all(text.as_bytes()).await.unwrap();
                // An origin that dies of it may have done so already.
                let _ = io.flush().await;
            }
            Self::Bodies(up, _) => up.as_mut().unwrap().send_data(text.into()).await.unwrap(),
        }
    }

    pub async fn finish(&mut self) {
        match self {
            Self::Bytes(io) => io.shutdown().await.unwrap(),
            Self::Bodies(up, _) => *up = None,
        }
    }

    /// The next piece; empty at the end.
    pub async fn hear(&mut self) -> Result<Vec<u8>, BoxError> {
        let heard = async {
            match self {
                Self::Bytes(io) => {
                    let mut piece = vec![0; 1000];
                    let n = io.read(&mut piece).await?;
                    piece.truncate(n);
                    Ok(piece)
                }
                Self::Bodies(_, down) => match down.frame().await {
                    Some(frame) => Ok(frame?.into_data().unwrap().to_vec()),
                    None => Ok(Vec::new()),
                },
            }
        };
        timeout(PATIENCE, heard).await.expect("something to hear")
    }

    pub async fn hear_text(&mut self, text: &str) {
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            let piece = self.hear().await.unwrap();
            assert!(!piece.is_empty(), "ended after {heard:?}");
            heard.extend(piece);
        }
        assert_eq!(heard, text.as_bytes());
    }
}
