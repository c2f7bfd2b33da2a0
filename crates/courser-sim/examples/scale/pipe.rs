//! What stands in place of the sockets: trains in order, up to so many bytes.

use std::collections::VecDeque;

use courser_core::engine::{Meta, TRAIN_BYTES_MAX, Train, TrainMeta};
use courser_core::ids::Ecn;

/// Trains on their way.
pub struct Pipe {
    trains: VecDeque<(usize, Vec<u8>)>,
    /// Buffers that are used again.
    spare: Vec<Vec<u8>>,
    bytes: usize,
    /// Bytes that it holds at most.
    capacity: usize,
}

impl Pipe {
    pub fn new(capacity: usize) -> Self {
        Self { trains: VecDeque::new(), spare: Vec::new(), bytes: 0, capacity }
    }

    /// Takes a train; false when it has no room.
    pub fn send(&mut self, meta: &TrainMeta, train: &Train) -> bool {
        if self.bytes + meta.len > self.capacity {
            return false;
        }
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(TRAIN_BYTES_MAX));
        buffer.clear();
        buffer.extend_from_slice(train.bytes());
        self.bytes += meta.len;
        self.trains.push_back((meta.segment, buffer));
        true
    }

    /// The bytes of the next trains.
    pub fn front(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        self.trains.iter().take(count).map(|(_, bytes)| &bytes[..])
    }

    /// Gives the next train to `take`; returns its length and datagrams, or `None` when there is none.
    pub fn receive(&mut self, from: &str, take: impl FnOnce(&Meta, &mut [u8])) -> Option<(usize, u64)> {
        let (stride, mut buffer) = self.trains.pop_front()?;
        self.bytes -= buffer.len();
        let remote = from.parse().expect("an address");
        take(&Meta { local: None, remote, ecn: Ecn::NotEct, stride }, &mut buffer);
        let got = (buffer.len(), buffer.len().div_ceil(stride) as u64);
        self.spare.push(buffer);
        Some(got)
    }
}
