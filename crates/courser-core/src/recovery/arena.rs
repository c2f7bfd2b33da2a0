//! Records of packets that have more than one, in lists that share one array and a free list.

use crate::spans::Record;

/// No node: end of a list.
const NONE: u32 = u32::MAX;

/// Records beyond the first, in lists.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    nodes: Vec<(Record, u32)>,
    free: u32,
    /// Nodes in use.
    pub(super) used: usize,
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), free: NONE, used: 0 }
    }

    /// Stores records in order and returns the first node.
    pub(super) fn store(&mut self, records: &[Record]) -> u32 {
        let mut head = NONE;
        for &record in records.iter().rev() {
            let at = self.free;
            if at == NONE {
                let at = u32::try_from(self.nodes.len()).unwrap_or(NONE);
                debug_assert!(at != NONE, "fewer than 2^32 records are unsettled");
                self.nodes.push((record, head));
                head = at;
            } else {
                let node = &mut self.nodes[at as usize];
                self.free = node.1;
                *node = (record, head);
                head = at;
            }
        }
        self.used += records.len();
        head
    }

    /// Copies the records of a list to `out`.
    pub(super) fn read(&self, mut at: u32, out: &mut Vec<Record>) {
        while at != NONE {
            let (record, next) = self.nodes[at as usize];
            out.push(record);
            at = next;
        }
    }

    /// Frees a list.
    pub(super) fn release(&mut self, head: u32) {
        let mut at = head;
        while at != NONE {
            let next = self.nodes[at as usize].1;
            self.nodes[at as usize].1 = self.free;
            self.free = at;
            self.used -= 1;
            at = next;
        }
    }
}
