//! Everything that belongs to one path.

use core::net::{IpAddr, SocketAddr};

use super::{Amplification, Challenges, Pmtud, Responses, Spin};
use crate::cc::Congestion;
use crate::cc::pacer::{Pace, Pacer};
use crate::config::{MIN_DATAGRAM, Settings};
use crate::ids::{Cid, PacketNumber, PathId};
use crate::recovery::ecn::EcnValidator;
use crate::recovery::rtt::{INITIAL_RTT, Rtt};
use crate::time::Instant;

/// What becomes of a path once it is validated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// It is kept for a while; the peer may move there.
    #[default]
    Keep,
    /// The connection moves there.
    Move,
}

/// A connection ID of the peer that packets of a path carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its sequence number.
    pub sequence: u64,
    /// Its bytes.
    pub cid: Cid,
}

/// The smallest packet that tests a path: a short header, one frame, the tag.
const PROBE_LEAST: usize = 1 + 20 + 4 + 9 + 16;
/// A challenge and an answer in a packet that need not be full-sized.
const PROBE_LARGEST: usize = PROBE_LEAST + 9;
/// What data leaves for the challenges of a validation, as much as its rounds send; of little it leaves a quarter.
const PROBE_RESERVE: usize = 9 * PROBE_LARGEST;

/// A path between one address of ours and one of the peer's.
pub struct Path {
    /// Its position among the connection's paths, by which sent packets name it.
    pub id: PathId,
    /// Packets at that position with smaller numbers are those of a predecessor.
    pub first_pn: PacketNumber,
    remote: SocketAddr,
    /// The address of ours that the peer talks to, when the socket tells; answers leave from it.
    local: Option<IpAddr>,
    /// Whom its packets are addressed to. Two paths share one only when the peer itself did not know that it moved.
    pub to: Destination,
    /// Which connection ID of ours the peer uses here: a fresh one on a new path tells that it moved on purpose.
    pub reached_by: Cid,
    /// Whether a challenge, or the handshake, has shown that the peer is there.
    validated: bool,
    /// What follows the validation.
    pub goal: Goal,
    /// A path that is not in use is dropped at that time.
    pub expires: Option<Instant>,
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
    /// The spin bit.
    pub spin: Spin,
}

impl Path {
    /// The first path. `validated` tells that the peer is known to be at that address.
    #[must_use]
    pub fn new(
        remote: SocketAddr,
        local: Option<IpAddr>,
        to: Cid,
        validated: bool,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        let mtu = settings.initial_udp_payload;
        Self {
            id: PathId::default(),
            first_pn: 0,
            remote,
            local,
            to: Destination { sequence: 0, cid: to },
            reached_by: Cid::EMPTY,
            validated,
            goal: Goal::Keep,
            expires: None,
            amplification: if validated { Amplification::VALIDATED } else { Amplification::default() },
            pmtud: Pmtud::new(mtu, settings.max_udp_payload),
            challenges: Challenges::default(),
            responses: Responses::default(),
            rtt: Rtt::new(INITIAL_RTT),
            congestion: Congestion::new(settings.congestion, mtu, now),
            pacer: Pacer::new(settings.pacing, mtu, now),
            ecn: EcnValidator::new(settings.ecn),
            spin: Spin::default(),
        }
    }

    /// A path of the same connection between other addresses. Nothing is known of it, unless both have only another port:
    /// then it very likely is the same way through the network, and what was learnt of it stays.
    #[must_use]
    pub fn next(
        &self,
        id: PathId,
        remote: SocketAddr,
        local: Option<IpAddr>,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        let fresh = Self::new(remote, local, self.to.cid, false, settings, now);
        let mut path = Self { id, to: self.to, ecn: self.ecn.for_new_path(settings.ecn), ..fresh };
        //= rfc9000#9.4-2
        if remote.ip() == self.remote.ip() && local == self.local {
            path.rtt = self.rtt;
            path.congestion = self.congestion.clone();
            // What is in flight stays with the old path.
            path.congestion.on_discarded(self.congestion.in_flight());
            path.pacer = self.pacer;
            path.pmtud = self.pmtud.carried_over();
        } else {
            path.pmtud.limit_like(&self.pmtud);
        }
        path
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

    /// Whether a datagram between these addresses travels this path; an address of ours that is not known fits any.
    #[must_use]
    pub fn carries(&self, remote: SocketAddr, local: Option<IpAddr>) -> bool {
        self.remote == remote && (self.local == local || self.local.is_none() || local.is_none())
    }

    /// Whether the peer is known to be there.
    #[must_use]
    pub fn is_validated(&self) -> bool {
        self.validated
    }

    /// The peer is there.
    pub fn validate(&mut self) {
        self.validated = true;
        self.amplification.validate();
    }

    /// The peer's address is known from elsewhere: the limit before validation does not apply, but whether packets pass
    /// still has to be shown.
    pub fn trust_address(&mut self) {
        self.amplification.validate();
    }

    /// Whether a packet of challenges and answers should and may leave here although the path is not in use.
    #[must_use]
    pub fn wants_probe(&self) -> bool {
        //= rfc9000#8.2.2-2
        self.tests() && self.amplification.room() >= PROBE_LEAST && self.congestion.room() >= PROBE_LEAST as u64
    }

    /// Whether a challenge or an answer waits to leave here.
    fn tests(&self) -> bool {
        self.challenges.due().is_some() || self.responses.front().is_some()
    }

    /// Bytes that may leave here now while the path is in use. Where an address is not validated yet, data leaves some for
    /// challenges: when one is lost and none can follow, the peer is given up that is there.
    #[must_use]
    pub fn room(&self) -> usize {
        let room = self.amplification.room();
        if self.amplification.is_validated() || !self.challenges.is_active() {
            return room;
        }
        let reserve = usize::try_from(self.amplification.credit() / 4).unwrap_or(usize::MAX).min(PROBE_RESERVE);
        let full = usize::from(MIN_DATAGRAM);
        match room.saturating_sub(reserve) {
            _ if room < PROBE_LEAST => 0,
            //= rfc9000#8.2.1-4
            _ if self.tests() && room < full => room.min(PROBE_LARGEST),
            kept if self.tests() => kept.max(full),
            kept => kept,
        }
    }

    /// Brings the pacer up to date after the window, the round-trip time or the datagram size changed.
    pub fn update_pacer(&mut self, now: Instant) {
        let mtu = self.pmtud.current();
        match self.congestion.pacing_rate() {
            Some((rate, burst)) => self.pacer.set_rate(now, rate, mtu, burst),
            None => {
                let (window, smoothed) = (self.congestion.window(), self.rtt.smoothed());
                let pace = Pace::of(self.congestion.doubles(), smoothed, self.rtt.min());
                self.pacer.update(now, window, smoothed, pace, mtu);
            }
        }
    }

    /// Packets leave from whatever address the system chooses.
    pub fn forget_local(&mut self) {
        self.local = None;
    }

    /// Remembers the address of ours that a packet of the peer was sent to.
    pub fn set_local(&mut self, local: Option<IpAddr>) {
        self.local = self.local.or(local);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn path() -> Path {
        let now = Instant::from_micros(1);
        let mut path = Path::new("192.0.2.1:1000".parse().unwrap(), None, Cid::EMPTY, true, &Settings::default(), now);
        path.rtt.sample(now, Duration::from_millis(20), Duration::ZERO, None);
        path.congestion.on_sent(now, 5000);
        path
    }

    #[test]
    fn another_port_keeps_what_was_learnt_and_another_address_starts_anew() {
        //= rfc9000#9.4-2 type=test
        let old = path();
        let (settings, now) = (Settings::default(), Instant::from_micros(9));
        for (remote, kept) in [("192.0.2.1:2000", true), ("192.0.2.2:1000", false)] {
            let new = old.next(PathId(1), remote.parse().unwrap(), None, &settings, now);
            assert_eq!(new.rtt.has_sample(), kept);
            assert_eq!(new.congestion.in_flight(), 0, "packets of the old path are not counted here");
            assert_eq!(new.congestion.window(), old.congestion.window());
            assert!(!new.is_validated() && new.amplification.room() == 0);
        }
        let elsewhere = old.next(PathId(1), old.remote(), Some("10.0.0.1".parse().unwrap()), &settings, now);
        assert!(!elsewhere.rtt.has_sample(), "another address of ours is another path");
    }

    #[test]
    fn an_unknown_address_of_ours_fits_any() {
        let (here, there) = (Some("10.0.0.1".parse().unwrap()), Some("10.0.0.2".parse().unwrap()));
        let mut p = path();
        assert!(p.carries(p.remote(), here) && p.carries(p.remote(), None));
        p.set_local(here);
        assert!(p.carries(p.remote(), here) && p.carries(p.remote(), None) && !p.carries(p.remote(), there));
        assert!(!p.carries("192.0.2.1:1001".parse().unwrap(), here));
    }
}
