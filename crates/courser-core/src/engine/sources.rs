//! How many handshakes each source may leave unfinished.
//!
//! A source is an IPv4 address, a /64 of IPv6, and beside it the /48 that it lies in, which may leave eight times as many.
//! What a source has begun and not finished is its debt: a handshake that begins adds one, one that completes takes it
//! away again, and a fixed number is forgiven per second. So a source that finishes what it begins never owes anything,
//! however fast it is and however many clients stand behind one address, and one that leaves handshakes behind is asked
//! for a proof of its address soon, and not heard at all when that does not help.
//!
//! Debts lie in a table of fixed size (a count-min sketch with decay): two rows, each addressed by another part of a keyed
//! hash; the smaller one of both entries counts. Sources that meet another one in both rows share its debt.

use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;

use super::routes::CidHasher;
use crate::time::Instant;

/// Entries of a row.
const ROW: usize = 4096;
/// A debt of one.
const ONE: u32 = 1000;
/// How much more a /48 may owe than a /64.
const SITE: u32 = 8;

/// What one source may leave unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLimits {
    /// With more handshakes unfinished, its clients are asked to prove their address with a Retry.
    pub unproven: u32,
    /// With more unfinished although addresses are proven, its Initials are dropped.
    pub proven: u32,
    /// So many are forgiven per second.
    pub per_second: u32,
}

impl Default for SourceLimits {
    /// 256 before a Retry, 4,096 before nothing is heard, and 32 forgiven per second.
    fn default() -> Self {
        Self { unproven: 256, proven: 4096, per_second: 32 }
    }
}

/// What a source has to put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Good,
    /// It has to prove its address.
    Prove,
    /// It is not heard.
    Refused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    /// In thousandths.
    owed: u32,
    /// When that was so, in milliseconds.
    at: u32,
}

impl Debt {
    fn now(self, ms: u32, per_second: u32) -> u32 {
        self.owed.saturating_sub(ms.saturating_sub(self.at).saturating_mul(per_second))
    }
}

/// The debts of all sources.
pub(super) struct Sources {
    limits: SourceLimits,
    hasher: CidHasher,
    /// Two rows.
    debts: Box<[Debt]>,
}

impl Sources {
    pub(super) fn new(limits: SourceLimits, hasher: CidHasher) -> Self {
        Self { limits, hasher, debts: vec![Debt::default(); 2 * ROW].into() }
    }

    /// What a client at that address has to put up with.
    pub(super) fn standing(&self, now: Instant, address: IpAddr) -> Standing {
        let ms = millis(now);
        let mut standing = Standing::Good;
        for (places, factor) in self.places(address) {
            let owed = places.map(|at| self.debts[at].now(ms, self.limits.per_second.saturating_mul(factor)));
            let owed = owed[0].min(owed[1]);
            let beyond = |limit: u32| owed >= limit.saturating_mul(factor).saturating_mul(ONE);
            if beyond(self.limits.proven) {
                return Standing::Refused;
            }
            if beyond(self.limits.unproven) {
                standing = Standing::Prove;
            }
        }
        standing
    }

    /// A handshake began there.
    pub(super) fn begin(&mut self, now: Instant, address: IpAddr) {
        self.change(now, address, |owed| owed.saturating_add(ONE));
    }

    /// It was completed.
    pub(super) fn complete(&mut self, now: Instant, address: IpAddr) {
        self.change(now, address, |owed| owed.saturating_sub(ONE));
    }

    fn change(&mut self, now: Instant, address: IpAddr, change: impl Fn(u32) -> u32) {
        let ms = millis(now);
        for (places, factor) in self.places(address) {
            let per_second = self.limits.per_second.saturating_mul(factor);
            for at in places {
                self.debts[at] = Debt { owed: change(self.debts[at].now(ms, per_second)), at: ms };
            }
        }
    }

    /// Where the debts of an address are, and how many times the limits count there.
    fn places(&self, address: IpAddr) -> impl Iterator<Item = ([usize; 2], u32)> + use<> {
        let (first, second) = match address {
            IpAddr::V4(v4) => ((32, u128::from(u32::from(v4))), None),
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                // Addresses of IPv4 on a socket for both.
                match v6.to_ipv4_mapped() {
                    Some(v4) => ((32, u128::from(u32::from(v4))), None),
                    None => ((64, bits >> 64), Some((48, bits >> 80))),
                }
            }
        };
        let hasher = self.hasher;
        let place = move |(len, prefix): (u8, u128)| {
            let mut hasher = hasher.build_hasher();
            hasher.write_u8(len);
            hasher.write_u128(prefix);
            let hash = hasher.finish();
            [hash as usize % ROW, ROW + (hash >> 32) as usize % ROW]
        };
        [Some((first, 1)), second.map(|second| (second, SITE))]
            .into_iter()
            .flatten()
            .map(move |(prefix, factor)| (place(prefix), factor))
    }
}

fn millis(now: Instant) -> u32 {
    u32::try_from(now.since(Instant::ZERO).as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const START: Instant = Instant::from_micros(5_000_000);
    const LIMITS: SourceLimits = SourceLimits { unproven: 10, proven: 30, per_second: 2 };

    fn sources() -> Sources {
        Sources::new(LIMITS, CidHasher::new([7; 16]))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_leaves_handshakes_behind_is_asked_and_then_not_heard_and_time_forgives() {
        let (mut s, bad) = (sources(), ip("192.0.2.1"));
        let mut seen = Vec::new();
        for n in 0..40 {
            let standing = s.standing(START, bad);
            seen.push((n, standing));
            s.begin(START, bad);
        }
        let first = |wanted| seen.iter().find(|(_, standing)| *standing == wanted).map(|(n, _)| *n);
        assert_eq!((first(Standing::Prove), first(Standing::Refused)), (Some(10), Some(30)));
        assert_eq!(s.standing(START, ip("192.0.2.2")), Standing::Good, "its neighbour did nothing");
        let at = |seconds| START + Duration::from_secs(seconds);
        assert_eq!(s.standing(at(5), bad), Standing::Refused);
        assert_eq!(s.standing(at(6), bad), Standing::Prove, "forty less twelve are fewer than thirty");
        assert_eq!(s.standing(at(15), bad), Standing::Prove);
        assert_eq!(s.standing(at(16), bad), Standing::Good);
    }

    #[test]
    fn who_finishes_what_it_begins_owes_nothing_however_fast_it_is() {
        let (mut s, busy) = (sources(), ip("2001:db8::1"));
        for _ in 0..100_000 {
            assert_eq!(s.standing(START, busy), Standing::Good);
            (0..5).for_each(|_| s.begin(START, busy));
            (0..5).for_each(|_| s.complete(START, busy));
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_site_may_owe_eight_times_as_much() {
        let mut s = sources();
        (0..10).for_each(|n| s.begin(START, ip(&format!("2001:db8:0:1::{n}"))));
        assert_eq!(s.standing(START, ip("2001:db8:0:1:ffff::")), Standing::Prove, "another address of the /64");
        assert_eq!(s.standing(START, ip("2001:db8:0:2::")), Standing::Good, "another /64");
        for n in 0..70 {
            s.begin(START, ip(&format!("2001:db8:0:{:x}::", 0x100 + n)));
        }
        assert_eq!(s.standing(START, ip("2001:db8:0:2::")), Standing::Prove, "the /48");
        assert_eq!(s.standing(START, ip("2001:db8:1::")), Standing::Good, "another one");
    }

    #[test]
    fn an_address_of_ipv4_is_the_same_on_a_socket_for_both() {
        let mut s = sources();
        (0..10).for_each(|_| s.begin(START, ip("::ffff:192.0.2.1")));
        assert_eq!(s.standing(START, ip("192.0.2.1")), Standing::Prove);
        assert_eq!(s.standing(START, ip("::ffff:192.0.2.2")), Standing::Good);
    }

    #[test]
    fn a_hundred_thousand_sources_do_not_incriminate_an_honest_one() {
        let mut s = Sources::new(SourceLimits::default(), CidHasher::new([9; 16]));
        for n in 0..100_000_u32 {
            // 20,000 per second.
            let now = START + Duration::from_micros(50 * u64::from(n));
            s.begin(now, IpAddr::V4((0x0b00_0000 + n).into()));
            if n % 100 == 0 {
                assert_eq!(s.standing(now, ip("192.0.2.1")), Standing::Good);
            }
        }
        assert_eq!(s.debts.len() * size_of::<Debt>(), 64 << 10, "the table does not grow");
    }
}
