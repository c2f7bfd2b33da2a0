//! The Tokio face: the same as [`blocking`](crate::blocking), with futures.
//!
//! ```no_run
//! use courser::aio::Endpoint;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let tls = courser::tls::ClientConfig::builder().platform_roots()?.alpn(["echo"]).build()?;
//! let endpoint = Endpoint::client(courser::ClientOptions::new(tls))?;
//! let connection = endpoint.connect("quic://example.org:4433")?.await?;
//! let (mut send, mut receive) = connection.open_bi().await?;
//! send.write_all(b"hello").await?;
//! send.finish()?;
//! let mut answer = Vec::new();
//! receive.read_to_end(&mut answer).await?;
//! connection.close(0, b"done");
//! # Ok(()) }
//! ```
//!
//! An endpoint's worker runs in a task of the runtime in which the endpoint was made; every handle may be used from any
//! task and any runtime. Waking goes by turns of the worker: a reader is woken once for all that a turn brought.
//!
//! What dropping means stands in [the blocking face's table](crate::blocking#what-dropping-means). Dropping the last
//! [`Endpoint`] returns at once, and the task ends when the peers were told.
//!
//! # Cancelling
//!
//! Every future of this module may be dropped at any time. *Cancel-safe*, so that nothing is lost and the call can be
//! repeated: [`Endpoint::accept`], [`Endpoint::wait_idle`], everything of [`Connection`], [`RecvStream::read_chunk`],
//! [`SendStream::wait_acked`], [`SendStream::stopped`], `AsyncRead::poll_read`, `AsyncWrite::poll_write`, and
//! [`SendStream::write_chunk_part`], which says how much was taken. [`SendStream::write_chunk`] is not: part of the bytes
//! may have been taken. Dropping a [`Connecting`] gives the attempt up.

mod connection;
mod endpoint;
mod stream;

pub use connection::{Connecting, Connection};
pub use endpoint::{Endpoint, Incoming};
pub use stream::{RecvStream, SendStream};
