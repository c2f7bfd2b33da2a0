//! An allocator that counts what each thread asks for, and one that searches what is given back for secrets.
//!
//! A test binary installs it with `#[global_allocator]`. Counters belong to threads, so tests that run beside each other
//! do not see each other's allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with counters.
pub struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static TRAPS: Cell<u32> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// What happened on this thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Allocations and reallocations.
    pub calls: u64,
    /// Bytes that were allocated less those that were freed.
    pub live: i64,
}

/// `asked`: the size of the whole piece that is asked for, 0 for one that is given back.
fn note(calls: u64, bytes: i64, asked: usize) {
    let _ = LARGEST.try_with(|l| l.set(l.get().max(asked)));
    // A thread that ends has no counters any more; nobody asks for them either.
    let _ = CALLS.try_with(|c| c.set(c.get() + calls));
    let _ = LIVE.try_with(|c| c.set(c.get() + bytes));
    if calls > 0 && TRAPS.try_with(Cell::get).is_ok_and(|left| left > 0) {
        spring();
    }
}

/// Prints where the allocation comes from. What the printing itself allocates springs no trap.
#[cold]
fn spring() {
    let left = TRAPS.replace(0);
    eprintln!("an allocation at\n{}", std::backtrace::Backtrace::force_capture());
    TRAPS.set(left - 1);
}

/// Prints a backtrace for each of the next allocations of this thread: for whoever wants to know why a count is not zero.
pub fn trap(allocations: u32) {
    TRAPS.set(allocations);
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

// SAFETY: every call is passed on to the system's allocator unchanged, with the layout that the caller vouches for, and
// its answer is returned unchanged. The counters are plain cells without destructors, whose access neither allocates nor
// unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()), layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()), layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, -signed(layout.size()), 0);
        // SAFETY: as above; `at` came from the system's allocator, since ours passes everything on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, signed(size) - signed(layout.size()), size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Runs something and tells what it allocated on this thread.
pub fn count<R>(run: impl FnOnce() -> R) -> (R, Counts) {
    let before = now();
    let result = run();
    let after = now();
    (result, Counts { calls: after.calls - before.calls, live: after.live - before.live })
}

/// Runs something and tells the size of the largest piece that it asked for on this thread; one that grows counts as a whole.
pub fn largest<R>(run: impl FnOnce() -> R) -> (R, usize) {
    LARGEST.set(0);
    let result = run();
    (result, LARGEST.get())
}

/// The counters of this thread.
#[must_use]
pub fn now() -> Counts {
    Counts { calls: CALLS.with(Cell::get), live: LIVE.with(Cell::get) }
}

/// What secrets consist of, where they are searched for.
pub const MARK: u8 = 0x5a;

/// The system's allocator, which looks for secrets in the memory that is given back: sixteen bytes of [`MARK`] in a row.
pub struct Searching;

// SAFETY: every call is passed on to the system's allocator with the layout that the caller vouches for. Memory has values
// from the start, because it is asked for with zeros, so that its bytes can be read before it is given back; the counter is
// a plain cell without destructor.
unsafe impl GlobalAlloc for Searching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let mut run = 0;
        for at in 0..layout.size() {
            // SAFETY: within the layout of memory that is not given back yet.
            let byte = unsafe { memory.add(at).read_volatile() };
            run = if byte == MARK { run + 1 } else { 0 };
            if run == 16 {
                let _ = LEFT.try_with(|left| left.set(left.get() + 1));
            }
        }
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Runs `f`, drops what it returns, and says in how many places secrets were given back meanwhile on this thread.
pub fn left_by<R>(f: impl FnOnce() -> R) -> usize {
    let before = LEFT.with(Cell::get);
    drop(core::hint::black_box(f()));
    LEFT.with(Cell::get) - before
}
