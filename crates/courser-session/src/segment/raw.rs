//! The memory of a segment and the only unsafe code of it.
//!
//! Everybody sees the memory as a slice of atomic words, which anybody may write at any time: there is no access that could
//! be a data race, whatever the other process does. Bytes are copied in and out word by word ([`super::copy`]), long ones by
//! the processor's string instruction ([`store_long`], [`load_long`]).
//!
//! **Why this is sound.** A mapping is of a file that is at least as long and sealed against shrinking, which [`Memory::map`]
//! checks, so that every word of it can be accessed until [`Memory`] is dropped. The one reference to memory that is not
//! atomic is [`Lent`]'s, on the application's side: a run of chunks that its worker does not write again before the
//! application has given it back, which `Lent` does when it is dropped. An application trusts its service so far; a service
//! lends itself nothing and never reads the memory but by atomic words and that instruction. The instruction is written in assembly,
//! of which the compiler knows the operands alone: it can conclude nothing from what the bytes are, or from reading them once.
//! What it writes is in order with the release store that publishes it, as that comes later (on x86, string stores are
//! only out of order among themselves).

#![allow(unsafe_code)]

use crate::sync::AtomicU64;
#[cfg(not(all(loom, test)))]
use {crate::sync::Arc, bytes::Bytes};

/// Words that several sides can access.
pub(super) enum Memory {
    /// For the model checker, for Miri and for tests that need no other process.
    #[cfg(any(test, loom))]
    Heap(Box<[AtomicU64]>),
    /// Mapped from a sealed file.
    #[cfg(not(all(loom, test)))]
    Mapped(core::ptr::NonNull<[AtomicU64]>),
}

// SAFETY: atomic words may be accessed, and a mapping be ended, by any thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    #[cfg(any(test, loom))]
    pub(super) fn heap(words: usize) -> Self {
        Self::Heap((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    /// The first words of a file, which must be sealed against shrinking and have so many.
    #[cfg(not(all(loom, test)))]
    pub(super) fn map(file: &std::os::fd::OwnedFd, words: usize) -> std::io::Result<Self> {
        use core::ptr::{NonNull, null_mut, slice_from_raw_parts_mut};
        use rustix::mm::{MapFlags, ProtFlags as Access, mmap};
        use rustix::{fs, io::Errno};
        let bytes = words * size_of::<u64>();
        let is_long = u64::try_from(fs::fstat(file)?.st_size).is_ok_and(|size| size >= crate::num::wide(bytes));
        if words == 0 || !is_long || !fs::fcntl_get_seals(file)?.contains(fs::SealFlags::SHRINK) {
            return Err(Errno::INVAL.into());
        }
        // SAFETY: a new mapping at a place of the system's choice touches no memory of this process.
        let at = unsafe { mmap(null_mut(), bytes, Access::READ | Access::WRITE, MapFlags::SHARED, file, 0)? };
        NonNull::new(slice_from_raw_parts_mut(at.cast(), words)).map(Self::Mapped).ok_or(Errno::NOMEM.into())
    }

    /// All words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        match self {
            #[cfg(any(test, loom))]
            Self::Heap(words) => words,
            // SAFETY: the mapping is as long, page-aligned, readable and writable; it lasts until `self` is dropped, and
            // every content is a word.
            #[cfg(not(all(loom, test)))]
            Self::Mapped(words) => unsafe { words.as_ref() },
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        #[cfg(not(all(loom, test)))]
        #[allow(irrefutable_let_patterns, reason = "tests have other memory too")]
        if let Self::Mapped(words) = self {
            // SAFETY: it was mapped with this length, and nobody has a reference any more. It can only fail for other ranges.
            let _ = unsafe { rustix::mm::munmap(words.as_ptr().cast(), words.len() * size_of::<u64>()) };
        }
    }
}

/// Bytes that lie in the memory and are the application's until it drops them.
#[cfg(not(all(loom, test)))]
pub(super) struct Lent<F: Fn()> {
    memory: Arc<Memory>,
    /// The first word.
    at: usize,
    len: usize,
    give_back: F,
}

#[cfg(not(all(loom, test)))]
impl<F: Fn() + Send + Sync + 'static> Lent<F> {
    /// `None` when they do not lie inside. The worker must not write there before `give_back` is called.
    pub(super) fn bytes(memory: &Arc<Memory>, at: usize, len: usize, give_back: F) -> Option<Bytes> {
        memory.words().get(at..at.checked_add(len.div_ceil(8))?)?;
        Some(Bytes::from_owner(Self { memory: Arc::clone(memory), at, len, give_back }))
    }
}

#[cfg(not(all(loom, test)))]
impl<F: Fn()> AsRef<[u8]> for Lent<F> {
    fn as_ref(&self) -> &[u8] {
        let words = &self.memory.words()[self.at..];
        // SAFETY: the range was checked; every content is a byte; nobody writes before `give_back` (see the module).
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), self.len) }
    }
}

#[cfg(not(all(loom, test)))]
impl<F: Fn()> Drop for Lent<F> {
    fn drop(&mut self) {
        (self.give_back)();
    }
}

/// Copies bytes to the first words, as many as are whole and fit, by `rep movsb`; how many. It writes whole lines of the cache
/// without reading what the other processor left there.
#[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
pub(super) fn store_long(words: &[AtomicU64], bytes: &[u8]) -> usize {
    let whole = (bytes.len() / 8).min(words.len()) * 8;
    // SAFETY: reads `whole` of `bytes` and writes as many bytes of `words`, which are no shorter and may be written by
    // reference; any content is a word. The direction flag is clear, as the ABI has it.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") whole => _, inout("rsi") bytes.as_ptr() => _,
            inout("rdi") words.as_ptr() => _, options(nostack, preserves_flags));
    }
    whole
}

/// Copies `len` bytes from the first word on, fewer when there are not so many, by `rep movsb`.
#[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
pub(super) fn load_long(words: &[AtomicU64], len: usize) -> Vec<u8> {
    let len = len.min(words.len() * 8);
    let mut bytes = Vec::<u8>::with_capacity(len);
    // SAFETY: reads `len` bytes of `words` and writes them into the vector's memory, which has room for them and nobody else
    // knows; they are initialised when the length is set. The direction flag is clear, as the ABI has it.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") words.as_ptr() => _,
            inout("rdi") bytes.as_mut_ptr() => _, options(nostack, preserves_flags));
        bytes.set_len(len);
    }
    bytes
}
