//! What an application may know of a path.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Path;

/// A look at one path of a connection ([`Engine::paths`](crate::engine::Engine::paths)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfo {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address, when the socket tells.
    pub local: Option<IpAddr>,
    /// Whether data is sent on it.
    pub in_use: bool,
    /// Whether the peer is known to be there.
    pub validated: bool,
    /// Whether an answer to a challenge is waited for.
    pub challenged: bool,
    /// Whether an answer to the peer's challenge waits to leave.
    pub answering: bool,
    /// Smoothed round-trip time; `None` before the first sample.
    pub rtt: Option<Duration>,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes in flight.
    pub bytes_in_flight: u64,
    /// Largest datagram that is sent there, in bytes of UDP payload.
    pub mtu: u16,
    /// Whether the search for a larger one is over.
    pub mtu_found: bool,
    /// Whether datagrams are marked for ECN.
    pub ecn: bool,
    /// Whether the spin bit tells the round-trip time.
    pub spins: bool,
}

impl Path {
    /// What an application may know of it.
    pub(crate) fn info(&self, in_use: bool) -> PathInfo {
        PathInfo {
            remote: self.remote(),
            local: self.local(),
            in_use,
            validated: self.is_validated(),
            challenged: self.challenges.is_active(),
            answering: self.responses.front().is_some(),
            rtt: self.rtt.has_sample().then(|| self.rtt.smoothed()),
            congestion_window: self.congestion.window(),
            bytes_in_flight: self.congestion.in_flight(),
            mtu: self.pmtud.current(),
            mtu_found: self.pmtud.is_complete(),
            ecn: self.ecn.wants_mark(),
            spins: self.spin.is_enabled(),
        }
    }
}
