//! Ports: an application and its worker exchange messages.
//!
//! The faces [`crate::blocking`] and `aio` give every thread and task handles to wait on. A port is for programs that are
//! event loops themselves: one thread submits what it wants ([`Submission`]) and polls what happened ([`Completion`]), for
//! any number of listeners, connections and streams, each named by a 64-bit [`Handle`]. Bytes change owners and are not
//! copied into rings.
//!
//! | Worker | Endpoint | The application |
//! |---|---|---|
//! | in a thread of its own | [`Endpoint`] | [`attach`](Endpoint::attach)es a [`ThreadPort`] per thread: rings both ways, woken only when asleep |
//! | several, a thread each | [`Endpoint`] | a [`ThreadPort`] [at each](Endpoint::attach_at), nothing shared, or [`Ports`] at [all](Endpoint::attach_all): one listener |
//! | driven by the application's thread | [`InlineEndpoint`] | [`turn`](InlineEndpoint::turn)s and polls: no ring, nobody to wake |
//!
//! Both ports are a [`Port`], so that a program can be written for either.
//!
//! # What happens to a session
//!
//! * A **listener** (`Listen`) yields connections: `Accepted`, to be answered with `Accept` or `Refuse`, then `Addresses`, `Established`
//!   or `Closed`. Several listeners of one worker take turns.
//! * A **connection** (`Connect`, with a profile that the endpoint was made with) is `Opened` at once and `Established` or
//!   `Closed` later. Opening on its handle opens a stream, as connecting on a session's handle does in other host stacks:
//!   `OpenBi` and `OpenUni` wait for the peer's limit and for the port's share; those that wait when the connection ends
//!   are answered by its `Closed`. It yields the peer's streams (`Accepted`; no answer is needed, `Refuse` turns one away).
//! * A **stream** takes `Write` within its credit ([`WriteCredit`]; more comes as `CreditGranted`), `Finish`, `Reset`,
//!   `Stop`; it brings `Data` within the port's delivery window, `Reset`, `Stopped`, `AllAcked`. It is `Closed` when both
//!   directions are over: with [`Reason::Done`] the peer has everything that was written.
//!
//! What went wrong is a value with a sentence: [`Ended::of`] reads `Closed` and `Failed`; `Rejected` tells of submissions
//! that make no sense, which is normal for those that meet the end of their session.
//!
//! Closing a connection, and dropping its port, ends it at once: wait for `Closed` or `AllAcked` of the streams that matter.
//!
//! # Operating a server
//!
//! Both endpoints drain, take other options for new connections, and give their port to another endpoint, here or in another
//! process ([`Handover`](crate::Handover)). Applications notice of it that listeners end with [`Reason::Draining`].
//!
//! # Example
//!
//! A client and a server, each with a worker of its own; `examples/echo_ports.rs` is a longer one.
//!
//! ```
//! use courser::certs::Throwaway;
//! use courser::session::{Bytes, Completion, Endpoint, Options, PortSetup, Remote, Submission, Waited, WriteCredit};
//! use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
//! use courser::{ClientOptions, ServerOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Throwaway::local()?;
//! let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
//! let tls = ServerConfig::builder().certificate(credentials).alpn(["hello"]).build()?;
//! let server = Endpoint::start(Options::server("127.0.0.1:0".parse()?, ServerOptions::new(tls)))?;
//! let mut serving = server.attach(PortSetup::default());
//! let here = Remote { address: server.local_addr(), server_name: String::new(), profile: 0 };
//! serving.submit(Submission::Listen { token: 0, at: Box::new(here) })?;
//!
//! let roots = Roots::empty().add_der(identity.certificate_der())?;
//! let tls = ClientConfig::builder().roots(roots).alpn(["hello"]).build()?;
//! let client = Endpoint::start(Options::client(ClientOptions::new(tls)))?;
//! let mut calling = client.attach(PortSetup::default());
//! let to = Remote { address: server.local_addr(), server_name: "localhost".into(), profile: 0 };
//! calling.submit(Submission::Connect { token: 1, to: Box::new(to) })?;
//!
//! let mut heard = Vec::new();
//! while heard != b"hello" {
//!     while let Some(message) = serving.poll() {
//!         match message {
//!             Completion::Accepted { handle, .. } => serving.submit(Submission::Accept { handle })?,
//!             Completion::Data { data, .. } => heard.extend_from_slice(&data),
//!             _ => {}
//!         }
//!     }
//!     while let Some(message) = calling.poll() {
//!         match message {
//!             Completion::Established { connection } => {
//!                 calling.submit(Submission::OpenUni { connection, token: 2 })?;
//!             }
//!             Completion::Opened { token: 2, handle, .. } => {
//!                 let mut hello = Bytes::from_static(b"hello");
//!                 calling.write(handle, &mut WriteCredit::new(), &mut hello, true);
//!             }
//!             Completion::Closed { .. } => break,
//!             _ => {}
//!         }
//!     }
//!     assert_ne!(serving.wait(Some(std::time::Duration::from_millis(1))), Waited::Closed);
//! }
//! # Ok(())
//! # }
//! ```

mod books;
mod door;
mod endpoint;
mod options;
mod ports;
mod reason;
mod service;

pub use bytes::Bytes;
pub use courser_session::credit::WriteCredit;
pub use courser_session::doorbell::Interest;
pub use courser_session::handle::{Handle, HandleError, Kind};
pub use courser_session::msg::{Completion, Endpoint as Remote, Rejection, SessionStats, Submission};
pub use courser_session::port::{AppPort, Fault, Inline, Port, PortSetup, SubmitError, ThreadPort, Waited};
#[cfg(target_os = "linux")]
pub use courser_session::port::{EventBell, Offer, SharedPort, SharedSetup};

pub use books::{Books, Key, SessionRow};
pub use endpoint::{Endpoint, InlineEndpoint, look_time, worker};
pub use options::Options;
pub use ports::Ports;
pub use reason::{Ended, Reason};
pub use service::{Generations, Service, ServiceSetup};
