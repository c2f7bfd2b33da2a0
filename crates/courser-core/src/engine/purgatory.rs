//! Connection IDs of connections that are gone (seed: the purgatory).
//!
//! For thirty seconds a late packet to one of them creates no new connection and gets no stateless reset. Those of
//! connections that ended because their keys were used up are not among them: their peers get resets at once.
//!
//! The dead lie in pages, in the order of their deaths. A page has room for 273 of them: a Bloom filter of 8,192 bits, which
//! tells at most one in 25,000 of the living for one of its dead, and their keyed fingerprints of eight bytes, which are
//! looked at when the filter says yes. So a stranger is taken for a dead one never in practice, and a look-up touches one
//! or two bits of most pages. A page is closed when it is full or [`PAGE_SPAN`] old, and goes as a whole [`STAY`] after it
//! was closed or touched last, so that a connection ID is remembered for thirty seconds at least and five more at most.
//! Pages are bounded: when the last one is full, the oldest one goes. Memory per connection ID in a full page: 12 bytes.

use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::collections::VecDeque;

use crate::ids::Cid;
use crate::time::Instant;

use super::routes::CidHasher;

/// How long a dead connection ID is remembered.
const STAY: Duration = Duration::from_secs(30);
/// A page takes the dead of so much time.
const PAGE_SPAN: Duration = Duration::from_secs(5);
/// Dead of one page.
const PAGE_MAX: usize = 273;
/// Pages, at most: room for 65,520 dead.
const PAGES_MAX: usize = 240;
/// Words of a filter.
const WORDS: usize = 128;
/// Bits of a filter that each of the dead sets. At this number 0.001 % of strangers find all of theirs set in a full page.
const PROBES: u32 = 8;

/// The dead of some time.
struct Page {
    opened: Instant,
    /// The last death.
    newest: Instant,
    filter: [u64; WORDS],
    fingerprints: Vec<u64>,
}

impl Page {
    fn new(now: Instant) -> Box<Self> {
        Box::new(Self { opened: now, newest: now, filter: [0; WORDS], fingerprints: Vec::new() })
    }

    /// An old page, emptied.
    fn renew(&mut self, now: Instant) {
        (self.opened, self.newest) = (now, now);
        self.filter = [0; WORDS];
        self.fingerprints.clear();
    }

    fn takes(&self, now: Instant) -> bool {
        self.fingerprints.len() < PAGE_MAX && now.since(self.opened) < PAGE_SPAN
    }

    fn insert(&mut self, now: Instant, fingerprint: u64) {
        self.newest = now;
        let len = self.fingerprints.len();
        if len == self.fingerprints.capacity() {
            self.fingerprints.reserve_exact((2 * len).clamp(8, PAGE_MAX) - len);
        }
        self.fingerprints.push(fingerprint);
        for (word, bit) in bits(fingerprint) {
            self.filter[word] |= bit;
        }
    }

    /// Whether the filter knows it.
    fn may_contain(&self, fingerprint: u64) -> bool {
        bits(fingerprint).all(|(word, bit)| self.filter[word] & bit != 0)
    }

    fn contains(&self, fingerprint: u64) -> bool {
        self.may_contain(fingerprint) && self.fingerprints.contains(&fingerprint)
    }
}

/// The bits of a filter that a fingerprint sets: thirteen of its bits name each, those of the second half are mixed first
/// so that they depend on all others.
fn bits(fingerprint: u64) -> impl Iterator<Item = (usize, u64)> {
    let mixed = (fingerprint ^ fingerprint >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
    [fingerprint, mixed]
        .into_iter()
        .flat_map(|half| (0..PROBES / 2).map(move |n| half >> (13 * n) & 0x1fff))
        .map(|at| ((at / 64) as usize, 1 << (at % 64)))
}

/// The dead connection IDs.
pub(crate) struct Purgatory {
    /// By age, oldest first.
    pages: VecDeque<Box<Page>>,
    /// The last page that went, so that a steady flow of deaths takes no memory.
    spare: Option<Box<Page>>,
    hasher: CidHasher,
}

impl Purgatory {
    pub(crate) fn new(hasher: CidHasher) -> Self {
        Self { pages: VecDeque::new(), spare: None, hasher }
    }

    /// The key of its hashes.
    pub(crate) fn hasher(&self) -> CidHasher {
        self.hasher
    }

    /// Remembers a connection ID. One that an older page knows is written down again: that is rare, costs eight bytes, and
    /// lets each death look at one page instead of all.
    pub(crate) fn insert(&mut self, now: Instant, cid: Cid) {
        self.expire(now);
        let fingerprint = self.fingerprint(cid.as_slice());
        if cid.is_empty() {
            return;
        }
        if !self.pages.back().is_some_and(|page| page.takes(now)) {
            self.open_page(now);
        }
        if let Some(page) = self.pages.back_mut().filter(|page| !page.contains(fingerprint)) {
            page.insert(now, fingerprint);
        }
    }

    /// Whether the connection ID died in the last thirty seconds.
    pub(crate) fn contains(&mut self, now: Instant, cid: &[u8]) -> bool {
        self.expire(now);
        !self.pages.is_empty() && self.knows(self.fingerprint(cid))
    }

    /// How many are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.pages.iter().map(|page| page.fingerprints.len()).sum()
    }

    fn knows(&self, fingerprint: u64) -> bool {
        self.pages.iter().rev().any(|page| page.contains(fingerprint))
    }

    fn fingerprint(&self, cid: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(cid);
        // The length counts too: one connection ID may begin like another one.
        hasher.write_u8(cid.len() as u8);
        hasher.finish()
    }

    fn open_page(&mut self, now: Instant) {
        if self.pages.len() == PAGES_MAX {
            self.spare = self.pages.pop_front();
        }
        let page = match self.spare.take() {
            Some(mut page) => {
                page.renew(now);
                page
            }
            None => Page::new(now),
        };
        self.pages.push_back(page);
    }

    fn expire(&mut self, now: Instant) {
        while self.pages.front().is_some_and(|page| now.since(page.newest) > STAY) {
            self.spare = self.pages.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros(1_000_000);

    fn cid(n: u64) -> Cid {
        Cid::new(&n.to_be_bytes()).unwrap()
    }

    fn has(p: &mut Purgatory, at: Instant, n: u64) -> bool {
        p.contains(at, cid(n).as_slice())
    }

    fn purgatory() -> Purgatory {
        Purgatory::new(CidHasher::new([1; 16]))
    }

    #[test]
    fn the_dead_are_remembered_for_thirty_seconds() {
        let mut p = purgatory();
        p.insert(START, cid(1));
        p.insert(START, cid(1));
        assert_eq!(p.len(), 1);
        assert!(has(&mut p, START + STAY, 1));
        assert!(!has(&mut p, START + STAY + Duration::from_micros(1), 1));
        assert!(p.pages.is_empty());
    }

    #[test]
    fn who_dies_again_is_remembered_for_thirty_seconds_from_then_on() {
        let mut p = purgatory();
        p.insert(START, cid(1));
        let again = START + PAGE_SPAN + STAY / 2;
        p.insert(again, cid(1));
        assert_eq!((p.pages.len(), p.len()), (2, 2));
        p.insert(again, cid(1));
        assert_eq!(p.len(), 2);
        assert!(has(&mut p, again + STAY, 1));
        assert!(!has(&mut p, again + STAY + Duration::from_micros(1), 1));
    }

    #[test]
    fn nobody_is_remembered_for_longer_than_a_page_takes() {
        let mut p = purgatory();
        for ms in 0..20_000 {
            p.insert(START + Duration::from_millis(ms), cid(ms));
        }
        for ms in (0..20_000).step_by(37) {
            let died = START + Duration::from_millis(ms);
            assert!(p.pages.iter().all(|page| page.newest.since(page.opened) < PAGE_SPAN));
            assert!(has(&mut p, died + STAY, ms));
        }
        let mut p = purgatory();
        p.insert(START, cid(1));
        p.insert(START + PAGE_SPAN, cid(2));
        p.insert(START + PAGE_SPAN + STAY, cid(3));
        assert!(!has(&mut p, START + PAGE_SPAN + STAY, 1), "another one's death does not keep it");
        assert!(has(&mut p, START + PAGE_SPAN + STAY, 2));
    }

    #[test]
    fn connection_ids_are_told_apart_by_their_length_and_the_empty_one_never_dies() {
        let mut p = purgatory();
        p.insert(START, Cid::EMPTY);
        p.insert(START, cid(0));
        assert!(!p.contains(START, &[]));
        assert!(p.contains(START, &[0; 8]) && !p.contains(START, &[0; 9]) && !p.contains(START, &[0; 7]));
    }

    #[test]
    fn a_flood_of_deaths_is_bounded_and_the_oldest_page_goes_first() {
        let room = (PAGES_MAX * PAGE_MAX) as u64;
        let mut p = purgatory();
        for n in 0..room + 1 {
            p.insert(START, cid(n));
        }
        assert_eq!((p.pages.len(), p.len()), (PAGES_MAX, PAGES_MAX * PAGE_MAX - PAGE_MAX + 1));
        assert!((0..PAGE_MAX as u64).all(|n| !has(&mut p, START, n)));
        assert!((PAGE_MAX as u64..room + 1).step_by(7).all(|n| has(&mut p, START, n)));
    }

    #[test]
    fn a_full_page_takes_one_of_25_000_strangers_for_a_dead_one_and_its_fingerprints_none() {
        let (mut taken, mut strangers) = (0_u64, 0_u64);
        for key in 0..20 {
            let mut p = Purgatory::new(CidHasher::new([key; 16]));
            for n in 0..PAGE_MAX as u64 {
                p.insert(START, cid(n));
            }
            let page = &p.pages[0];
            assert_eq!((p.pages.len(), page.fingerprints.len()), (1, PAGE_MAX));
            for n in 0..20_000 {
                let stranger = p.fingerprint(cid(1 << 40 | n).as_slice());
                strangers += 1;
                taken += u64::from(page.may_contain(stranger));
                assert!(!page.contains(stranger));
            }
        }
        let percent = taken as f64 * 100.0 / strangers as f64;
        println!("{taken} of {strangers} strangers passed the filter: {percent:.5} %");
        assert!(percent <= 0.004, "{percent} %");
    }

    #[test]
    fn a_dead_one_takes_twelve_bytes() {
        let mut p = purgatory();
        for n in 0..PAGE_MAX as u64 {
            p.insert(START, cid(n));
        }
        let room = p.pages[0].fingerprints.capacity();
        let bytes = size_of::<Page>() + room * size_of::<u64>();
        assert!(bytes <= 12 * PAGE_MAX, "{bytes} bytes for {PAGE_MAX}");
        p.insert(START + STAY + STAY, cid(1));
        assert_eq!((p.len(), p.pages[0].fingerprints.capacity()), (1, room), "the page is used again");
    }
}
