//! Hosts that speak QUIC: engines of `courser-core` in the simulated network.
//!
//! [`QuicHost`] drives one engine, client or server, with any number of connections; each runs an [`App`], a small state
//! machine that fetches and sends bytes whose values follow from their offsets and checks every byte that arrives.
//! [`Net`] is the usual pair of hosts with a link; at its end it asserts that nothing is left behind. A [`Watch`] sees
//! every datagram before it is sealed and judges it by `wire::legality`.
//!
//! An application of one's own goes into an [`EngineHost`] instead: whatever implements [`Application`].
//!
//! The null provider is the default: packets are readable on the wire ([`inspect`]), and the run is quick. Real TLS is put in
//! through [`Provider`].
//!
//! ```
//! use courser_sim::quic::{Job, Net, NetConfig};
//! use courser_sim::{Duplex, LinkConfig};
//!
//! let link = Duplex::symmetric(LinkConfig::new().delay_us(10_000).loss(0.1));
//! let mut net = Net::new(NetConfig::new(1, link).job(Job::fetch(100_000)));
//! net.run_until_done(60_000_000);
//! net.finish();
//! ```

mod app;
pub mod goals;
mod host;
pub mod inspect;
mod net;
mod own;
pub mod race;
pub mod swarm;
mod watch;

pub use app::{App, AppConfig, Job, Pace, Report, pattern};
pub use host::{EPOCH_US, HostConfig, Provider, QuicHost};
pub use net::{Net, NetConfig};
pub use own::{Application, EngineHost, Turn};
pub use watch::{Noted, Watch};
