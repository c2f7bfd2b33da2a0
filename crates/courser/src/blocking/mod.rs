//! The blocking face: calls that wait, on ordinary threads.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tls = courser::tls::ClientConfig::builder().platform_roots()?.alpn(["echo"]).build()?;
//! let endpoint = courser::Endpoint::client(courser::ClientOptions::new(tls))?;
//! let connection = endpoint.connect("quic://example.org:4433")?;
//! let (mut send, mut receive) = connection.open_bi()?;
//! send.write_all(b"hello")?;
//! send.finish()?;
//! let mut answer = Vec::new();
//! receive.read_to_end(&mut answer)?;
//! connection.close(0, b"done");
//! # Ok(()) }
//! ```
//!
//! An [`Endpoint`] has a worker in a thread of its own. All handles may be used from any thread; [`Endpoint`] and
//! [`Connection`] are cloned cheaply, a stream is two handles, one per direction.
//!
//! # What dropping means
//!
//! | Dropped | Effect |
//! |---|---|
//! | [`SendStream`] | reset with code 0, unless it was finished: then everything still arrives |
//! | [`RecvStream`] | the peer is asked to stop with code 0, unless the end was read |
//! | the last handle of a connection, its streams' included | closed with code 0 as soon as the peer has every finished stream, or after [`ClientOptions::linger`](crate::ClientOptions::linger) |
//! | [`Incoming`] | refused |
//! | the last [`Endpoint`] | every connection is closed with code 0 at once; whoever waits gets an error |
//!
//! A program that ends right after its last write waits first: [`SendStream::wait_acked`] for one stream,
//! [`Endpoint::wait_idle`] for all connections.
//!
//! # Time limits
//!
//! Calls wait without limit unless a handle has a timeout ([`Connection::set_timeout`], [`SendStream::set_timeout`],
//! [`RecvStream::set_timeout`], [`Endpoint::set_timeout`]). A call whose time is over has done nothing and can be repeated.

mod connection;
mod endpoint;
mod stream;

pub use connection::Connection;
pub use endpoint::{Endpoint, Incoming};
pub use stream::{RecvStream, SendStream};
