//! Memory of pieces that are given away, used again.
//!
//! A piece of a stream begins its life with one thread and ends it with another: what arrives with the worker and with the
//! application, what is sent the other way round. Taken from the allocator one by one, such pieces make it give pages back to
//! the system and ask for them again. Blocks are cut into pieces instead, and used again when the last of their pieces is gone,
//! in the order in which they were cut.
//!
//! Invariant: a block is cut from one end to the other; while any of its pieces lives it is not touched.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes of a block: the longest piece.
pub const BLOCK: usize = 64 << 10;
/// Shorter pieces have memory of their own, so that one that is kept holds at most four times its length.
const SHORT: usize = BLOCK / 4;
/// Blocks that are remembered: 16 MiB. With more in use, new ones are forgotten and end with their pieces.
const BLOCKS: usize = 256;

/// Blocks of one thread.
///
/// ```
/// use courser_session::blocks::Blocks;
///
/// let mut blocks = Blocks::default();
/// let piece = blocks.copy(&[7; 30_000]);
/// let other = blocks.make(20_000, |out| out.fill(8));
/// assert!(piece.iter().all(|byte| *byte == 7) && other.len() == 20_000);
/// ```
#[derive(Debug, Default)]
pub struct Blocks {
    /// What is left of the block that is being cut.
    current: Option<BytesMut>,
    /// Blocks that were cut, oldest first; each a handle without bytes.
    cut: VecDeque<BytesMut>,
}

impl Blocks {
    /// A piece with these bytes. More than [`BLOCK`] of them have memory of their own.
    pub fn copy(&mut self, data: &[u8]) -> Bytes {
        match self.room(data.len()) {
            Some(block) => {
                block.extend_from_slice(data);
                block.split().freeze()
            }
            None => Bytes::copy_from_slice(data),
        }
    }

    /// A piece of `len` bytes that `fill` writes; it finds zeros.
    pub fn make(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
        match self.room(len) {
            Some(block) => {
                block.resize(len, 0);
                fill(block);
                block.split().freeze()
            }
            None => {
                let mut own = BytesMut::zeroed(len);
                fill(&mut own);
                own.freeze()
            }
        }
    }

    /// Forgets the blocks; what lives of them goes with its pieces.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A block with nothing in it and room for so many bytes; `None` for pieces with memory of their own.
    fn room(&mut self, len: usize) -> Option<&mut BytesMut> {
        if !(SHORT..=BLOCK).contains(&len) {
            return None;
        }
        let block = match self.current.take() {
            Some(block) if block.capacity() >= len => block,
            full => self.next(full),
        };
        Some(self.current.insert(block))
    }

    /// Another block, after one that was cut: the oldest, when nobody has any of it.
    fn next(&mut self, full: Option<BytesMut>) -> BytesMut {
        let used = self.cut.pop_front().and_then(|mut oldest| {
            if oldest.try_reclaim(BLOCK) {
                return Some(oldest);
            }
            if self.cut.len() + 1 < BLOCKS {
                self.cut.push_front(oldest);
            }
            None
        });
        if used.is_some() {
            self.shrink();
        }
        self.cut.extend(full);
        used.unwrap_or_else(|| BytesMut::with_capacity(BLOCK))
    }

    /// After a peak: gives one block back while all but the newest eighth are unused.
    fn shrink(&mut self) {
        let newest = self.cut.len() * 7 / 8;
        if newest > 0 && self.cut.get_mut(newest).is_some_and(|block| block.try_reclaim(BLOCK)) {
            self.cut.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(blocks: &mut Blocks, fill: u8, len: usize) -> Bytes {
        blocks.make(len, |out| out.fill(fill))
    }

    fn whole(piece: &Bytes, fill: u8, len: usize) -> bool {
        // Miri takes long for each byte.
        let step = if cfg!(miri) { 1021 } else { 1 };
        piece.len() == len && piece.iter().step_by(step).all(|byte| *byte == fill)
    }

    #[test]
    fn pieces_that_come_and_go_use_the_same_few_blocks() {
        let mut blocks = Blocks::default();
        let (mut held, mut places) = (VecDeque::new(), std::collections::HashSet::new());
        for round in 0..if cfg!(miri) { 100 } else { 1_000u32 } {
            let (fill, len) = (round.to_le_bytes()[0], [BLOCK, 20_000, 17_000, 40_000][round as usize % 4]);
            let new = if round % 2 == 0 { blocks.copy(&vec![fill; len]) } else { piece(&mut blocks, fill, len) };
            places.insert(new.as_ptr() as usize);
            held.push_back((new, fill, len));
            if held.len() > 8 {
                let (oldest, fill, len) = held.pop_front().unwrap();
                assert!(whole(&oldest, fill, len), "nobody wrote over it");
            }
        }
        assert!(blocks.cut.len() <= 10, "{} blocks for 9 pieces", blocks.cut.len());
        assert!(places.len() < 60, "{} places for 1,000 pieces", places.len());
    }

    #[test]
    fn who_keeps_everything_makes_nobody_remember_more_blocks_than_the_bound() {
        let mut blocks = Blocks::default();
        let held: Vec<Bytes> = (0..=255u8).chain(0..=255).map(|fill| piece(&mut blocks, fill, BLOCK)).collect();
        assert!(blocks.cut.len() <= BLOCKS && blocks.cut.len() > BLOCKS / 2, "{}", blocks.cut.len());
        assert!(held.iter().zip((0..=255u8).chain(0..=255)).all(|(piece, fill)| whole(piece, fill, BLOCK)));
        blocks.clear();
        assert!(blocks.cut.is_empty());
        assert!(held.iter().zip((0..=255u8).chain(0..=255)).all(|(piece, fill)| whole(piece, fill, BLOCK)));
    }

    #[test]
    fn blocks_go_after_a_peak() {
        let mut blocks = Blocks::default();
        drop((0..100).map(|_| piece(&mut blocks, 1, BLOCK)).collect::<Vec<_>>());
        assert!(blocks.cut.len() >= 99);
        for _ in 0..200 {
            drop(piece(&mut blocks, 2, BLOCK));
        }
        assert!(blocks.cut.len() <= 2, "{}", blocks.cut.len());
    }

    #[test]
    fn a_short_piece_that_is_kept_keeps_no_block_and_a_long_one_needs_none() {
        let mut blocks = Blocks::default();
        for len in [0, 1, SHORT - 1, BLOCK + 1] {
            assert!(whole(&piece(&mut blocks, 3, len), 3, len) && whole(&blocks.copy(&vec![4; len]), 4, len));
        }
        assert!(blocks.cut.is_empty() && blocks.current.is_none());
    }
}
