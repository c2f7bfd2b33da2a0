//! The settings of connections, kept once for all that have the same.
//!
//! A server's connections share one set of settings, and a client's nearly always do. A connection has the number of its
//! set; [`Common::take`] counts who uses a set, and one that nobody uses makes room for another.
//!
//! Invariants: `users` of a set is the number of connections with its number; a set on the free list has `listed` set, and
//! is there once.

use crate::config::Settings;

/// Sets that a new connection's settings are compared with, at most: beyond that a set is kept twice rather than searched
/// for.
const COMPARED: usize = 8;

/// The number of a set of settings. Whoever took it gives it back.
#[derive(Debug)]
pub(crate) struct SettingsKey(u32);

struct Set {
    settings: Settings,
    users: u32,
    listed: bool,
}

/// All settings of an engine's connections.
#[derive(Default)]
pub(crate) struct Common {
    sets: Vec<Set>,
    /// Sets that nobody used when they were listed.
    free: Vec<u32>,
}

impl Common {
    /// One more connection has these settings.
    pub(crate) fn take(&mut self, settings: &Settings) -> SettingsKey {
        let same = self.sets.iter().take(COMPARED).position(|set| set.settings == *settings);
        let at = same.or_else(|| self.unused()).unwrap_or(self.sets.len());
        match self.sets.get_mut(at) {
            Some(set) if same.is_none() => (set.settings, set.users) = (settings.clone(), 1),
            Some(set) => set.users += 1,
            None => self.sets.push(Set { settings: settings.clone(), users: 1, listed: false }),
        }
        SettingsKey(at as u32)
    }

    fn unused(&mut self) -> Option<usize> {
        loop {
            let at = self.free.pop()? as usize;
            self.sets[at].listed = false;
            if self.sets[at].users == 0 {
                return Some(at);
            }
        }
    }

    /// A connection is gone.
    pub(crate) fn give_back(&mut self, key: &SettingsKey) {
        let set = &mut self.sets[key.0 as usize];
        debug_assert!(set.users > 0, "given back once by each connection");
        set.users = set.users.saturating_sub(1);
        if set.users == 0 && !core::mem::replace(&mut set.listed, true) {
            self.free.push(key.0);
        }
    }

    /// The settings of that number.
    #[inline]
    pub(crate) fn get(&self, key: &SettingsKey) -> &Settings {
        &self.sets[key.0 as usize].settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n: u64) -> Settings {
        Settings { conn_window: n, ..Settings::default() }
    }

    #[test]
    fn the_same_settings_are_kept_once_and_others_apart() {
        let mut common = Common::default();
        let keys: Vec<_> = [1, 2, 1, 2, 3].into_iter().map(|n| common.take(&of(n))).collect();
        assert_eq!(keys.iter().map(|k| common.get(k).conn_window).collect::<Vec<_>>(), [1, 2, 1, 2, 3]);
        assert_eq!(common.sets.len(), 3);
    }

    #[test]
    fn a_set_that_nobody_uses_makes_room_and_one_that_is_used_again_does_not() {
        let mut common = Common::default();
        for round in 0..50 {
            let a = common.take(&of(7));
            common.give_back(&a);
            let a = common.take(&of(7));
            let b = common.take(&of(100 + round));
            assert_eq!((common.get(&a).conn_window, common.get(&b).conn_window), (7, 100 + round));
            common.give_back(&a);
            common.give_back(&b);
        }
        assert!(common.sets.len() <= 2 && common.free.len() <= 2, "{} {}", common.sets.len(), common.free.len());
    }

    #[test]
    fn more_sets_than_are_compared_take_room_only_while_they_are_used() {
        let mut common = Common::default();
        for _ in 0..3 {
            let keys: Vec<_> = (0..100).map(|n| common.take(&of(n))).collect();
            assert!(keys.iter().zip(0..).all(|(key, n)| common.get(key).conn_window == n));
            keys.iter().for_each(|key| common.give_back(key));
        }
        assert!(common.sets.len() <= 100);
    }
}
