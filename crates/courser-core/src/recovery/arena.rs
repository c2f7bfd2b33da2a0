//! Records of packets that have more than one, in lists that share one array and a free list.

use crate::spans::Record;

/// No node: end of a list.
const NONE: u32 = u32::MAX;

/// Records beyond the first, in lists; memory once a packet had more than one record.
#[derive(Clone, Debug)]
pub(super) struct Arena(Option<Box<Nodes>>);

#[derive(Clone, Debug)]
struct Nodes {
    nodes: Vec<(Record, u32)>,
    free: u32,
    /// Nodes in use.
    used: usize,
    /// Where a list is put together for whoever reads it.
    gather: Vec<Record>,
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    /// Nodes in use.
    pub(super) fn used(&self) -> usize {
        self.0.as_ref().map_or(0, |nodes| nodes.used)
    }

    /// Stores records in order and returns the first node.
    pub(super) fn store(&mut self, records: &[Record]) -> u32 {
        let nodes = || Box::new(Nodes { nodes: Vec::new(), free: NONE, used: 0, gather: Vec::new() });
        self.0.get_or_insert_with(nodes).store(records)
    }

    /// The records of a list.
    pub(super) fn read(&mut self, head: u32) -> &[Record] {
        self.0.as_mut().map_or(&[], |nodes| nodes.read(head))
    }

    /// Frees a list.
    pub(super) fn release(&mut self, head: u32) {
        if let Some(nodes) = &mut self.0 {
            nodes.release(head);
        }
    }
}

impl Nodes {
    fn store(&mut self, records: &[Record]) -> u32 {
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

    fn read(&mut self, mut at: u32) -> &[Record] {
        self.gather.clear();
        while at != NONE {
            let (record, next) = self.nodes[at as usize];
            self.gather.push(record);
            at = next;
        }
        &self.gather
    }

    fn release(&mut self, head: u32) {
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
