//! An allocator that remembers where the memory in use was asked for.
//!
//! A program installs it with `#[global_allocator]`, and tells with [`record`] when it shall remember. It takes a
//! backtrace for each allocation while it does, so it is for finding out, not for tests that count time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// The system's allocator, with a book of what is in use.
pub struct Sites;

/// An allocation in use.
struct Live {
    size: usize,
    from: Backtrace,
}

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    /// Set while the book itself allocates.
    static BUSY: Cell<bool> = const { Cell::new(false) };
    static BOOK: RefCell<BTreeMap<usize, Live>> = const { RefCell::new(BTreeMap::new()) };
}

/// Runs `f` on the book, unless it is the book that allocates.
fn noting(f: impl FnOnce(&mut BTreeMap<usize, Live>)) {
    if BUSY.try_with(|busy| busy.replace(true)).unwrap_or(true) {
        return;
    }
    let _ = BOOK.try_with(|book| f(&mut book.borrow_mut()));
    BUSY.set(false);
}

fn add(at: *mut u8, size: usize) {
    if RECORDING.try_with(Cell::get).unwrap_or(false) {
        noting(|book| drop(book.insert(at.addr(), Live { size, from: Backtrace::force_capture() })));
    }
}

fn take(at: *mut u8) {
    noting(|book| drop(book.remove(&at.addr())));
}

// SAFETY: every call is passed on to the system's allocator unchanged, with the layout that the caller vouches for, and
// its answer is returned unchanged. The book keeps addresses as numbers and never follows them.
unsafe impl GlobalAlloc for Sites {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        let at = unsafe { System.alloc(layout) };
        add(at, layout.size());
        at
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let at = unsafe { System.alloc_zeroed(layout) };
        add(at, layout.size());
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        take(at);
        // SAFETY: as above; `at` came from the system's allocator, since ours passes everything on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(at);
        // SAFETY: as above.
        let moved = unsafe { System.realloc(at, layout, size) };
        add(moved, size);
        moved
    }
}

/// Remembers this thread's allocations from now on, or no longer. Those that were remembered stay in the book.
pub fn record(on: bool) {
    RECORDING.set(on);
}

/// One place in the source that holds memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Functions of the project, innermost first.
    pub path: String,
    /// Allocations in use.
    pub count: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// The memory in use that was asked for while [`record`] was on, by place, largest first. `within` says which functions
/// name a place, by a part of their path; the innermost `depth` of them do.
#[must_use]
pub fn places(within: &str, depth: usize) -> Vec<Place> {
    // What is allocated here is not looked for in the book, which is being read.
    BUSY.set(true);
    let mut sums = BTreeMap::<(String, usize), usize>::new();
    BOOK.with_borrow(|book| {
        for live in book.values() {
            let path = path_of(&live.from.to_string(), within, depth);
            *sums.entry((path, live.size)).or_default() += 1;
        }
    });
    let mut places: Vec<Place> =
        sums.into_iter().map(|((path, size), count)| Place { path, count, bytes: size * count }).collect();
    places.sort_by_key(|place| core::cmp::Reverse(place.bytes));
    BUSY.set(false);
    places
}

/// The innermost functions of a printed backtrace that have `within` in their path.
fn path_of(backtrace: &str, within: &str, depth: usize) -> String {
    let functions = backtrace.lines().filter_map(|line| {
        let (number, name) = line.trim_start().split_once(": ")?;
        number.parse::<u32>().ok().map(|_| name)
    });
    let named: Vec<&str> =
        functions.filter(|f| f.contains(within) && !f.contains("courser_testing::sites")).take(depth).collect();
    named.join(" < ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_by_the_innermost_functions_of_the_project() {
        let trace = "   0: courser_testing::sites::add\n             at ./src/sites.rs:1:1\n   1: alloc::vec::push\n   \
                     2: courser_core::a\n   3: core::x\n   4: courser_core::b\n   5: courser_core::c\n";
        assert_eq!(path_of(trace, "courser", 2), "courser_core::a < courser_core::b");
        assert_eq!(path_of("no trace", "courser", 2), "");
    }
}
