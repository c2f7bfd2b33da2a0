//! The paths of a connection that are not in use: new ones under validation, and old ones to return to.
//!
//! At most three, so that spoofed addresses cost a fixed amount of memory. When there is no room, the path that is worth
//! least makes room: one that failed to prove itself before one that is validated, older before newer, and never the one
//! to return to when the path in use turns out to be false.

use core::net::{IpAddr, SocketAddr};

use super::Path;
use crate::ids::{PacketNumber, PathId};
use crate::recovery::PATHS;

/// Paths besides the one in use, at most.
const STANDBY_MAX: usize = PATHS - 1;

/// Paths of a connection besides the one in use.
#[derive(Default)]
pub struct Standby {
    /// Oldest first. Memory is taken only while there is one: a path is large and a connection seldom has another.
    paths: Vec<Path>,
    /// The last validated path, while the one in use is not validated.
    pub fallback: Option<PathId>,
}

impl Standby {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The paths, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    /// The paths, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.paths.iter_mut()
    }

    /// A path by name.
    #[must_use]
    pub fn get(&self, id: PathId) -> Option<&Path> {
        self.iter().find(|p| p.id == id)
    }

    /// A path by name, to be changed.
    pub fn get_mut(&mut self, id: PathId) -> Option<&mut Path> {
        self.iter_mut().find(|p| p.id == id)
    }

    /// The path that a datagram between these addresses travels; one that knows its address of ours goes first.
    #[must_use]
    pub fn find(&self, remote: SocketAddr, local: Option<IpAddr>) -> Option<&Path> {
        let exact = self.iter().find(|p| p.remote() == remote && p.local() == local);
        exact.or_else(|| self.iter().find(|p| p.carries(remote, local)))
    }

    /// The path that has to go before another one can come, if any.
    #[must_use]
    pub fn victim(&self) -> Option<PathId> {
        if self.paths.len() < STANDBY_MAX {
            return None;
        }
        let evictable = || self.iter().filter(|p| self.fallback != Some(p.id));
        let idle = evictable().find(|p| !p.is_validated() && !p.challenges.is_active());
        let unproven = || evictable().find(|p| !p.is_validated());
        idle.or_else(unproven).or_else(|| evictable().next()).map(|p| p.id)
    }

    /// A position for a new path; `None` when there is no room.
    #[must_use]
    pub fn free(&self, active: PathId) -> Option<PathId> {
        let taken = |id: PathId| active == id || self.get(id).is_some();
        (0..4).map(PathId).find(|id| !taken(*id))
    }

    /// Adds a path at a [`free`](Self::free) position.
    pub fn add(&mut self, path: Path) {
        debug_assert!(self.paths.len() < STANDBY_MAX, "a position was free for it");
        self.paths.push(path);
    }

    /// Takes a path out.
    pub fn remove(&mut self, id: PathId) -> Option<Path> {
        let at = self.paths.iter().position(|p| p.id == id)?;
        if self.fallback == Some(id) {
            self.fallback = None;
        }
        let path = self.paths.remove(at);
        if self.paths.is_empty() {
            self.paths = Vec::new();
        }
        Some(path)
    }

    /// Exchanges the path in use with one of these; false when there is no such path.
    pub fn exchange(&mut self, active: &mut Path, id: PathId) -> bool {
        let before = active.id;
        self.swap(active, id);
        let Some(at) = self.paths.iter().position(|p| p.id == before) else { return false };
        // What was in use last is the youngest.
        self.paths[at..].rotate_left(1);
        true
    }

    /// Lends one of these as the path in use; swapped back by the name of the other one.
    pub fn swap(&mut self, active: &mut Path, id: PathId) {
        if let Some(at) = self.paths.iter().position(|p| p.id == id) {
            core::mem::swap(active, &mut self.paths[at]);
        }
    }

    /// The first packet number of the path at each position, the one in use included.
    #[must_use]
    pub fn first_numbers(&self, active: &Path) -> [PacketNumber; PATHS] {
        let mut first = [PacketNumber::MAX; PATHS];
        for path in self.iter().chain([active]) {
            first[path.id.slot()] = path.first_pn;
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Settings;
    use crate::ids::Cid;
    use crate::time::Instant;

    fn first() -> Path {
        Path::new(([192, 0, 2, 1], 1).into(), None, Cid::EMPTY, true, &Settings::default(), Instant::ZERO)
    }

    fn add(s: &mut Standby, active: &Path, port: u16) -> PathId {
        if let Some(victim) = s.victim() {
            assert_ne!(s.fallback, Some(victim));
            s.remove(victim);
        }
        let id = s.free(active.id).expect("there is room now");
        s.add(active.next(id, ([192, 0, 2, 1], port).into(), None, &Settings::default(), Instant::from_micros(9)));
        id
    }

    #[test]
    fn sixty_four_addresses_never_take_more_than_the_array() {
        // LS-PATH-03
        let (mut s, active) = (Standby::default(), first());
        for port in 2..66 {
            add(&mut s, &active, port);
            assert!(s.iter().count() <= STANDBY_MAX && s.paths.capacity() <= 4);
        }
        assert!(s.iter().map(|p| p.remote().port()).eq(63..66), "the newest stay");
    }

    #[test]
    fn the_path_to_return_to_and_validated_ones_stay_longest() {
        let (mut s, active) = (Standby::default(), first());
        let ids: Vec<_> = (2..5).map(|port| add(&mut s, &active, port)).collect();
        s.fallback = Some(ids[0]);
        s.get_mut(ids[1]).unwrap().validate();
        assert_eq!(s.victim(), Some(ids[2]));
        s.get_mut(ids[2]).unwrap().validate();
        assert_eq!(s.victim(), Some(ids[1]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn exchanges_and_removals_keep_names_apart(ops in prop::collection::vec((0u8..4, any::<u8>()), 1..80)) {
            let (mut s, mut active) = (Standby::default(), first());
            for (i, (op, pick)) in ops.into_iter().enumerate() {
                let some = s.iter().nth(usize::from(pick) % 3).map(|p| p.id);
                match (op, some) {
                    (0 | 1, _) => {
                        add(&mut s, &active, 100 + i as u16);
                    }
                    (2, Some(id)) => {
                        let before = (active.id, active.remote());
                        prop_assert!(s.exchange(&mut active, id));
                        prop_assert_eq!(active.id, id);
                        prop_assert_eq!(s.get(before.0).map(Path::remote), Some(before.1));
                    }
                    (_, Some(id)) => prop_assert!(s.remove(id).is_some() && s.get(id).is_none()),
                    _ => {}
                }
                let known = s.first_numbers(&active).iter().filter(|pn| **pn != PacketNumber::MAX).count();
                prop_assert_eq!(known, 1 + s.iter().count(), "each has a position of its own");
            }
        }
    }
}
