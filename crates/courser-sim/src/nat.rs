//! An address translator, as at home: private sources get a port of a public address, and may get another one at any time.
//!
//! Mapping is endpoint-independent: one inside address has one outside address, whoever it talks to. A rebinding forgets all
//! mappings; the next datagram out gets a new port, or a new address too. Datagrams to a forgotten outside address are
//! dropped, unless a grace time keeps the old mapping open inwards.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::datagram::Datagram;

/// Description of a translator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// Its public addresses. The first of a family is used until a rebinding changes the address.
    pub public: Vec<IpAddr>,
    /// Times (microseconds) of rebinding, in ascending order.
    pub rebind_at_us: Vec<u64>,
    /// A rebinding goes on to the next public address, not only to new ports.
    pub change_address: bool,
    /// How long an old outside address still leads inside after a rebinding.
    pub grace_us: u64,
    /// A mapping that nothing used for so long is forgotten.
    pub idle_us: u64,
    /// Most mappings at once; datagrams that would need one more are dropped.
    pub mappings_max: usize,
}

impl NatConfig {
    /// A translator with one public address and no rebinding.
    #[must_use]
    pub fn new(public: IpAddr) -> Self {
        Self {
            public: vec![public],
            rebind_at_us: Vec::new(),
            change_address: false,
            grace_us: 0,
            idle_us: 300_000_000,
            mappings_max: 16_384,
        }
    }

    /// Adds a time of rebinding.
    #[must_use]
    pub fn rebind_at(mut self, at_us: u64) -> Self {
        self.rebind_at_us.push(at_us);
        self.rebind_at_us.sort_unstable();
        self
    }

    /// Adds a public address, and lets rebindings move on to the next one.
    #[must_use]
    pub fn next_address(mut self, public: IpAddr) -> Self {
        self.public.push(public);
        self.change_address = true;
        self
    }
}

/// True for addresses that live behind a translator: RFC 1918 and unique local ones.
#[must_use]
pub const fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Inside {
    address: SocketAddr,
    /// The mapping leads inside until then.
    expires_us: u64,
}

/// A translator at work.
#[derive(Clone, Debug)]
pub struct Nat {
    config: NatConfig,
    outside_of: HashMap<SocketAddr, SocketAddr>,
    inside_of: HashMap<SocketAddr, Inside>,
    next_port: u16,
    /// Rebindings done; also selects the public address.
    rebound: usize,
    /// Of `rebind_at_us`, how many were carried out.
    scheduled_done: usize,
    dropped: u64,
}

/// Ports are given out from here upwards, and again from here when they are used up.
const FIRST_PORT: u16 = 20_000;

impl Nat {
    /// A translator without mappings.
    #[must_use]
    pub fn new(config: NatConfig) -> Self {
        Self {
            config,
            outside_of: HashMap::new(),
            inside_of: HashMap::new(),
            next_port: FIRST_PORT,
            rebound: 0,
            scheduled_done: 0,
            dropped: 0,
        }
    }

    /// Translates a datagram that passes; false if it must be dropped. Datagrams from private addresses go out, others must
    /// be addressed to a public address of this translator.
    pub fn pass(&mut self, now_us: u64, d: &mut Datagram) -> bool {
        self.rebind_when_due(now_us);
        let out = is_private(d.src.ip());
        let inward = self.config.public.contains(&d.dst.ip());
        let ok = (out || inward) && (!out || self.outward(now_us, d)) && (!inward || self.inward(now_us, d));
        self.dropped += u64::from(!ok);
        ok
    }

    /// Forgets all mappings now.
    pub fn rebind(&mut self, now_us: u64) {
        self.rebound += 1;
        self.outside_of.clear();
        let until = now_us.saturating_add(self.config.grace_us);
        self.inside_of.retain(|_, inside| {
            inside.expires_us = inside.expires_us.min(until);
            inside.expires_us > now_us
        });
    }

    /// Rebindings so far.
    #[must_use]
    pub const fn rebound(&self) -> usize {
        self.rebound
    }

    /// Datagrams that it did not pass.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Its public addresses.
    #[must_use]
    pub fn public(&self) -> &[IpAddr] {
        &self.config.public
    }

    fn rebind_when_due(&mut self, now_us: u64) {
        while let Some(&at) = self.config.rebind_at_us.get(self.scheduled_done).filter(|&&at| at <= now_us) {
            self.scheduled_done += 1;
            self.rebind(at);
        }
    }

    fn outward(&mut self, now_us: u64, d: &mut Datagram) -> bool {
        let known = self.outside_of.get(&d.src).copied();
        let live = known.filter(|o| self.inside_of.get(o).is_some_and(|i| i.expires_us > now_us));
        let Some(outside) = live.or_else(|| self.open(now_us, d.src)) else { return false };
        let expires_us = now_us.saturating_add(self.config.idle_us);
        self.inside_of.insert(outside, Inside { address: d.src, expires_us });
        self.outside_of.insert(d.src, outside);
        d.src = outside;
        true
    }

    fn inward(&mut self, now_us: u64, d: &mut Datagram) -> bool {
        match self.inside_of.get(&d.dst).filter(|i| i.expires_us > now_us) {
            Some(inside) => {
                d.dst = inside.address;
                true
            }
            None => false,
        }
    }

    /// A free outside address for a new mapping.
    fn open(&mut self, now_us: u64, inside: SocketAddr) -> Option<SocketAddr> {
        if self.inside_of.len() >= self.config.mappings_max {
            self.inside_of.retain(|_, i| i.expires_us > now_us);
            let (outside_of, inside_of) = (&mut self.outside_of, &self.inside_of);
            outside_of.retain(|_, o| inside_of.contains_key(o));
        }
        if self.inside_of.len() >= self.config.mappings_max {
            return None;
        }
        let family: Vec<IpAddr> =
            self.config.public.iter().copied().filter(|ip| ip.is_ipv4() == inside.is_ipv4()).collect();
        let turn = if self.config.change_address { self.rebound } else { 0 };
        let ip = *family.get(turn % family.len().max(1))?;
        for _ in FIRST_PORT..=u16::MAX {
            let outside = SocketAddr::new(ip, self.next_port);
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.inside_of.contains_key(&outside) {
                return Some(outside);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "10.0.0.1:5000";
    const SERVER: &str = "198.51.100.1:443";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat(change: bool) -> Nat {
        let c = NatConfig::new(at("192.0.2.1:0").ip()).rebind_at(1_000);
        Nat::new(if change { c.next_address(at("192.0.2.2:0").ip()) } else { c })
    }

    fn out(n: &mut Nat, now: u64) -> SocketAddr {
        let mut d = Datagram::new(at(HOME), at(SERVER), vec![]);
        assert!(n.pass(now, &mut d));
        d.src
    }

    fn back(n: &mut Nat, now: u64, to: SocketAddr) -> Option<SocketAddr> {
        let mut d = Datagram::new(at(SERVER), to, vec![]);
        n.pass(now, &mut d).then_some(d.dst)
    }

    #[test]
    fn a_mapping_is_stable_and_leads_back() {
        let mut n = nat(false);
        let seen = out(&mut n, 0);
        assert_eq!(seen.ip(), at("192.0.2.1:0").ip());
        assert_eq!(out(&mut n, 10), seen);
        assert_eq!(back(&mut n, 20, seen), Some(at(HOME)));
        assert_eq!(back(&mut n, 20, at("192.0.2.1:9")), None, "nobody asked for that port");
        assert_eq!(back(&mut n, 20, at(HOME)), None, "private addresses cannot be reached from outside");
        assert_eq!(n.dropped(), 2);
    }

    #[test]
    fn rebinding_gives_a_new_port_or_address_and_closes_the_old_one() {
        for change in [false, true] {
            let mut n = nat(change);
            let before = out(&mut n, 999);
            assert_eq!(back(&mut n, 1_000, before), None);
            let after = out(&mut n, 1_001);
            assert_ne!(after, before);
            assert_eq!(after.ip() != before.ip(), change);
            assert_eq!(back(&mut n, 1_002, after), Some(at(HOME)));
            assert_eq!(n.rebound(), 1);
        }
    }

    #[test]
    fn grace_keeps_the_old_way_open_for_a_while() {
        let mut n = nat(false);
        n.config.grace_us = 50;
        let before = out(&mut n, 0);
        let after = out(&mut n, 1_001);
        assert_eq!(back(&mut n, 1_049, before), Some(at(HOME)));
        assert_eq!(back(&mut n, 1_050, before), None);
        assert_eq!(back(&mut n, 1_050, after), Some(at(HOME)));
    }

    #[test]
    fn idle_mappings_close_and_the_table_is_bounded() {
        let mut n = nat(false);
        n.config.mappings_max = 2;
        n.config.idle_us = 100;
        let send = |n: &mut Nat, now, port| {
            let mut d = Datagram::new(SocketAddr::new(at(HOME).ip(), port), at(SERVER), vec![]);
            n.pass(now, &mut d)
        };
        assert!(send(&mut n, 0, 1) && send(&mut n, 50, 2));
        assert!(!send(&mut n, 60, 3), "full");
        assert!(send(&mut n, 100, 3), "the first one has gone idle");
        assert_eq!(n.inside_of.len(), 2);
        assert_eq!(n.outside_of.len(), 2);
    }

    #[test]
    fn two_private_hosts_may_talk_through_the_public_address() {
        let mut n = nat(false);
        let first = out(&mut n, 0);
        let mut d = Datagram::new(at("10.0.0.2:7"), first, vec![]);
        assert!(n.pass(1, &mut d));
        assert_eq!(d.dst, at(HOME));
        assert_eq!(d.src.ip(), at("192.0.2.1:0").ip());
    }
}
