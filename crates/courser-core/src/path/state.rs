//! Everything that belongs to one path.

use core::net::{IpAddr, SocketAddr};

use super::{Amplification, Challenges, Pmtud, Responses};
use crate::cc::Congestion;
use crate::cc::pacer::Pacer;
use crate::config::Settings;
use crate::recovery::ecn::EcnValidator;
use crate::recovery::rtt::{INITIAL_RTT, Rtt};
use crate::time::Instant;

/// A path between one address of ours and one of the peer's.
pub struct Path {
    remote: SocketAddr,
    /// The address of ours that the peer talks to, when the socket tells; answers leave from it.
    local: Option<IpAddr>,
    /// What may be sent before the peer's address is validated.
    pub amplification: Amplification,
    /// Datagram size.
    pub pmtud: Pmtud,
    /// Our challenges.
    pub challenges: Challenges,
    /// Answers to the peer's challenges.
    pub responses: Responses,
    /// Round-trip time.
    pub rtt: Rtt,
    /// Congestion control.
    pub congestion: Congestion,
    /// Pacing.
    pub pacer: Pacer,
    /// Whether ECN marks pass.
    pub ecn: EcnValidator,
}

impl Path {
    /// A new path. `validated` tells that the peer is known to be at that address.
    #[must_use]
    pub fn new(remote: SocketAddr, local: Option<IpAddr>, validated: bool, settings: &Settings, now: Instant) -> Self {
        let mtu = settings.initial_udp_payload;
        Self {
            remote,
            local,
            amplification: if validated { Amplification::VALIDATED } else { Amplification::default() },
            pmtud: Pmtud::new(mtu, settings.max_udp_payload),
            challenges: Challenges::default(),
            responses: Responses::default(),
            rtt: Rtt::new(INITIAL_RTT),
            congestion: Congestion::new(settings.congestion, mtu, now),
            pacer: Pacer::new(settings.pacing, mtu, now),
            ecn: EcnValidator::new(settings.ecn),
        }
    }

    /// The peer's address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Our address, when known.
    #[must_use]
    pub fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// Brings the pacer up to date after the window, the round-trip time or the datagram size changed.
    pub fn update_pacer(&mut self, now: Instant) {
        let (window, slow_start) = (self.congestion.window(), self.congestion.in_slow_start());
        self.pacer.update(now, window, self.rtt.smoothed(), slow_start, self.pmtud.current());
    }

    /// Remembers the address of ours that a packet of the peer was sent to.
    pub fn set_local(&mut self, local: Option<IpAddr>) {
        self.local = self.local.or(local);
    }
}
