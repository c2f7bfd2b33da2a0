//! Secrets leave nothing behind in memory: the allocator looks at everything that is given back.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use courser_core::cid::QuicLb;
use courser_core::crypto::{Secret, Suite};
use courser_core::engine::{Engine, EngineConfig, TokenKeys};
use courser_core::ids::{Level, Side};
use courser_core::protect::null::{NullKeys, NullRandom};
use courser_core::protect::{AeadLimits, KeySlots};

/// What every secret here consists of.
const MARK: u8 = 0x5a;

/// Pieces of memory that were given back with a secret in them.
static FOUND: AtomicUsize = AtomicUsize::new(0);

struct Looking;

// SAFETY: everything is left to the system's allocator; memory is read before it is given back.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the rules of the trait. The bytes have a value from the start, so that reading them
        // later is sound.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the memory is still ours, and its bytes have values.
        let bytes = (0..layout.size()).map(|at| unsafe { ptr.add(at).read_volatile() });
        let mut run = 0;
        if bytes.into_iter().any(|b| {
            run = if b == MARK { run + 1 } else { 0 };
            run == 16
        }) {
            FOUND.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// How many pieces with a secret were given back meanwhile.
fn left_by<R>(f: impl FnOnce() -> R) -> usize {
    let before = FOUND.load(Ordering::Relaxed);
    drop(core::hint::black_box(f()));
    FOUND.load(Ordering::Relaxed) - before
}

// One test, because the allocator is everybody's.
#[test]
fn secrets_and_keys_are_erased_before_their_memory_is_given_back() {
    assert_eq!(left_by(|| Box::new([MARK; 48])), 1, "what is not erased is seen");
    let secret = || Secret::new(&[MARK; 48]).unwrap();
    assert_eq!(left_by(|| Box::new(secret())), 0);
    assert_eq!(left_by(|| vec![secret(), secret()]), 0);
    let keys = |n: u8| TokenKeys::new([MARK; 32]).also([n; 32]).also([MARK; 32]);
    assert_eq!(left_by(|| keys(1).clone()), 0);
    let rotated = || {
        let mut keys = keys(1).also([2; 32]).also([3; 32]);
        (4..8).for_each(|n| keys.rotate([n; 32]));
        keys.rotate([MARK; 32]);
        keys.rotate([9; 32]);
        keys.rotate([MARK; 32]);
        keys
    };
    assert_eq!(left_by(rotated), 0);
    assert_eq!(left_by(|| Box::new(QuicLb::new(1, &[1; 8], 8, Some([MARK; 16]), false).unwrap())), 0);
    let engine = || {
        let mut config = EngineConfig::new(Box::new(NullKeys), Box::new(NullRandom::new(1)));
        (config.token_keys, config.reset_key) = (Some(keys(1)), Some([MARK; 32]));
        let mut engine = Box::new(Engine::new(config));
        engine.replace_token_keys(&keys(2));
        engine
    };
    assert_eq!(left_by(engine), 0);
    let slots = || {
        let mut slots = KeySlots::new(Side::Client, AeadLimits::OF_THE_SUITE);
        slots.install(&NullKeys, Level::OneRtt, Suite::Aes256Gcm, &[MARK; 48], &[MARK; 48]).unwrap();
        Box::new(slots)
    };
    assert_eq!(left_by(slots), 0);
}
