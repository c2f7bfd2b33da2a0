//! Bytes into shared words and out of them.

use crate::sync::{AtomicU64, Ordering};

/// From so many bytes on the processor's string instruction is faster than words, where there is one.
#[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
const LONG: usize = 512;

/// Writes bytes from the first word on; as many as fit. What the last word has beyond them is zero.
pub(super) fn store(words: &[AtomicU64], bytes: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
    if bytes.len() >= LONG {
        let stored = super::raw::store_long(words, bytes);
        return store_words(&words[stored / 8..], &bytes[stored..]);
    }
    store_words(words, bytes);
}

fn store_words(words: &[AtomicU64], bytes: &[u8]) {
    let mut pieces = bytes.chunks_exact(8);
    for (word, piece) in words.iter().zip(&mut pieces) {
        word.store(u64::from_ne_bytes(core::array::from_fn(|n| piece[n])), Ordering::Relaxed);
    }
    let rest = pieces.remainder();
    if let (false, Some(word)) = (rest.is_empty(), words.get(bytes.len() / 8)) {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Copies `len` bytes from the first word on; fewer when there are not so many.
pub(super) fn load(words: &[AtomicU64], len: usize) -> Vec<u8> {
    #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
    if len >= LONG {
        return super::raw::load_long(words, len);
    }
    load_words(words, len)
}

fn load_words(words: &[AtomicU64], len: usize) -> Vec<u8> {
    // By way of a piece of the stack, which takes far less time than growing the vector by each word.
    const PIECE: usize = 64;
    let mut bytes = Vec::with_capacity(len.min(words.len() * 8));
    let mut piece = [[0; 8]; PIECE];
    for words in words[..len.div_ceil(8).min(words.len())].chunks(PIECE) {
        for (bytes, word) in piece.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        let flat = piece.as_flattened();
        bytes.extend_from_slice(&flat[..(len - bytes.len()).min(words.len() * 8)]);
    }
    bytes
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in_and_no_word_beside_them_changes(
            bytes in prop::collection::vec(any::<u8>(), 0..2000), more in 0usize..20, spare in 0usize..3,
        ) {
            let words: Vec<_> = (0..bytes.len().div_ceil(8) + spare).map(|_| AtomicU64::new(u64::MAX)).collect();
            store(&words, &bytes);
            let used = bytes.len().div_ceil(8);
            prop_assert!(words[used..].iter().all(|word| word.load(Ordering::Relaxed) == u64::MAX));
            prop_assert_eq!(load(&words, bytes.len()), &bytes[..]);
            prop_assert!(load(&words, bytes.len() + more).starts_with(&bytes));
            prop_assert_eq!(load(&words[..used], bytes.len() + more).len(), (bytes.len() + more).min(used * 8));
        }
    }
}
