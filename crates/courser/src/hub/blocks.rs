//! Memory for received bytes on their way to handles.
//!
//! Large pieces are copied into blocks that are used again as soon as their readers have dropped what they got. Memory of
//! that size from the allocator, taken by the worker's thread and given back by another one, would go to and from the
//! system all the time: the page faults cost more than the copies. Small pieces come from the allocator: a reader that
//! keeps one keeps no block with it.
//!
//! The first free block is taken, so that few blocks, which are in the cache, serve a reader that keeps up.
//!
//! Invariant: at most [`BLOCKS_MAX`] blocks; when all are in use the allocator serves.

use bytes::{Bytes, BytesMut};

/// Bytes of a block: as many as the largest piece in which received bytes lie.
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks of a hub, at most: two windows of a stream.
const BLOCKS_MAX: usize = 16;
/// Smaller pieces get no block.
const PIECE_MIN: usize = 16 << 10;

/// The blocks of a hub.
#[derive(Default)]
pub(super) struct Blocks(Vec<BytesMut>);

impl Blocks {
    /// The same bytes, owned.
    pub(super) fn copy(&mut self, piece: &[u8]) -> Bytes {
        if !(PIECE_MIN..=BLOCK_BYTES).contains(&piece.len()) {
            return Bytes::copy_from_slice(piece);
        }
        let Some(block) = self.free() else { return Bytes::copy_from_slice(piece) };
        block.extend_from_slice(piece);
        block.split().freeze()
    }

    /// A block of which nobody holds a part, empty.
    fn free(&mut self) -> Option<&mut BytesMut> {
        // Empty blocks that nobody shares get all of their memory back.
        let at = match self.0.iter_mut().position(|block| block.try_reclaim(BLOCK_BYTES)) {
            Some(at) => at,
            None if self.0.len() < BLOCKS_MAX => {
                self.0.push(BytesMut::with_capacity(BLOCK_BYTES));
                self.0.len() - 1
            }
            None => return None,
        };
        self.0.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_serves_again_once_its_readers_are_through() {
        let mut blocks = Blocks::default();
        let piece = vec![7; PIECE_MIN];
        let first = blocks.copy(&piece);
        let place = first.as_ptr();
        let part = first.slice(5..9);
        drop(first);
        let second = blocks.copy(&piece);
        assert_ne!(second.as_ptr(), place, "a part of the first block is still read");
        assert_eq!(part, [7; 4][..]);
        drop(part);
        let third = blocks.copy(&vec![8; BLOCK_BYTES]);
        assert_eq!(third.as_ptr(), place);
        assert_eq!((second, third), (Bytes::from(piece), Bytes::from(vec![8; BLOCK_BYTES])));
        assert_eq!(blocks.0.len(), 2);
    }

    #[test]
    fn bytes_are_the_same_whatever_their_number_and_however_many_are_kept() {
        let mut blocks = Blocks::default();
        let sizes = [1, PIECE_MIN - 1, PIECE_MIN, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1];
        let kept: Vec<(Bytes, Vec<u8>)> = (0..6 * BLOCKS_MAX)
            .map(|n| {
                let piece: Vec<u8> = (0..sizes[n % sizes.len()]).map(|at| (at * 31 + n) as u8).collect();
                (blocks.copy(&piece), piece)
            })
            .collect();
        assert_eq!(blocks.0.len(), BLOCKS_MAX);
        assert!(kept.iter().all(|(copy, piece)| copy == piece));
    }
}
