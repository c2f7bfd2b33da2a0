//! The table of connections: slots with generations.
//!
//! Queues hold slot indices only; whether an index still means the same connection is decided by the generation, so a
//! stale key never resolves. A slot whose generation would wrap is retired.

use crate::ids::ConnKey;

struct Slot<T> {
    /// How often the slot was used before; part of the key.
    generation: u32,
    value: Option<T>,
}

/// Values under keys that are never valid again after their value is gone.
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    /// Stores a value; `None` when 2^32 - 1 slots are in use.
    pub(crate) fn insert(&mut self, value: T) -> Option<ConnKey> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|i| *i != u32::MAX)?;
                self.slots.push(Slot { generation: 0, value: None });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.value.is_none());
        slot.value = Some(value);
        self.len += 1;
        Some(ConnKey { index, generation: slot.generation })
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, key: ConnKey) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|s| s.generation == key.generation)?;
        let value = slot.value.take()?;
        self.len -= 1;
        // The last generation is never reached again: the slot stays empty for good.
        if slot.generation < u32::MAX {
            slot.generation += 1;
            self.free.push(key.index);
        }
        Some(value)
    }

    pub(crate) fn get(&self, key: ConnKey) -> Option<&T> {
        self.slots.get(key.index as usize).filter(|s| s.generation == key.generation)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: ConnKey) -> Option<&mut T> {
        self.slots.get_mut(key.index as usize).filter(|s| s.generation == key.generation)?.value.as_mut()
    }

    /// The value at an index.
    pub(crate) fn peek(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    /// The value at an index, with its present key.
    pub(crate) fn at(&mut self, index: u32) -> Option<(ConnKey, &mut T)> {
        let slot = self.slots.get_mut(index as usize)?;
        let key = ConnKey { index, generation: slot.generation };
        slot.value.as_mut().map(|v| (key, v))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnKey, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| {
            slot.value.as_ref().map(|v| (ConnKey { index, generation: slot.generation }, v))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_never_resolves() {
        let mut t = Table::default();
        let a = t.insert("a").unwrap();
        assert_eq!(t.remove(a), Some("a"));
        let b = t.insert("b").unwrap();
        assert_eq!((a.index, t.remove(a)), (b.index, None));
        assert_eq!(t.get(a), None);
        assert_eq!((t.get(b), t.len()), (Some(&"b"), 1));
    }

    #[test]
    fn a_slot_is_retired_before_its_generation_wraps() {
        let mut t = Table::default();
        let first = t.insert(0).unwrap();
        t.remove(first);
        t.slots[0].generation = u32::MAX;
        let last = t.insert(1).unwrap();
        assert_eq!(last.generation, u32::MAX);
        t.remove(last);
        assert_eq!(t.insert(2).map(|k| k.index), Some(1));
        assert_eq!((t.get(last), t.get(first)), (None, None));
    }
}
