//! Something for each connection of an engine, found by the connection's slot.

use courser_core::ids::ConnKey;

/// As many places as the engine has slots in use.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<(ConnKey, T)>>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts one in, instead of what an earlier connection in the same slot may have left.
    pub fn insert(&mut self, key: ConnKey, value: T) {
        let at = key.index as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        if self.slots[at].replace((key, value)).is_none() {
            self.len += 1;
        }
    }

    /// That of a connection.
    pub fn get_mut(&mut self, key: ConnKey) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize)? {
            Some((own, value)) if *own == key => Some(value),
            _ => None,
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, key: ConnKey) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        let (_, value) = slot.take_if(|(own, _)| *own == key)?;
        self.len -= 1;
        Some(value)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ConnKey, &mut T)> {
        self.slots.iter_mut().flatten().map(|(key, value)| (*key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_used_again_is_somebody_elses() {
        let key = |index, generation| ConnKey { index, generation };
        let mut t = Table::default();
        assert!(t.is_empty());
        t.insert(key(3, 0), 'a');
        t.insert(key(0, 7), 'b');
        assert_eq!((t.len(), t.get_mut(key(3, 0)).copied()), (2, Some('a')));
        assert_eq!(t.get_mut(key(3, 1)), None);
        t.insert(key(3, 1), 'c');
        assert_eq!((t.len(), t.remove(key(3, 0)), t.remove(key(9, 0))), (2, None, None));
        assert_eq!(t.iter_mut().map(|(k, v)| (k.index, *v)).collect::<Vec<_>>(), [(0, 'b'), (3, 'c')]);
        assert_eq!((t.remove(key(3, 1)), t.len()), (Some('c'), 1));
    }
}
