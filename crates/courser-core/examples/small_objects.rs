//! Objects of 64 bytes from the allocator, from a list of free boxes, and from a slab, in bursts and in churn:
//! `cargo run --release -p courser-core --example small_objects`.
//!
//! A burst takes 10,000 and gives them back in the order in which they were taken; churn holds 10,000 and replaces one at a
//! time, at a random place. Nanoseconds for one take and one return, the least of nine runs.

use std::hint::black_box;
use std::time::Instant;

type Object = [u64; 8];
const HELD: usize = 10_000;
const RUNS: usize = 9;

/// Where objects come from.
trait Source {
    type Held;
    fn take(&mut self, value: u64) -> Self::Held;
    fn give(&mut self, held: Self::Held);
}

/// The allocator.
struct Malloc;

impl Source for Malloc {
    type Held = Box<Object>;

    fn take(&mut self, value: u64) -> Box<Object> {
        Box::new(black_box([value; 8]))
    }

    fn give(&mut self, held: Box<Object>) {
        drop(black_box(held));
    }
}

/// Boxes that are used again.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "boxes are what is measured")]
struct FreeList(Vec<Box<Object>>);

impl Source for FreeList {
    type Held = Box<Object>;

    fn take(&mut self, value: u64) -> Box<Object> {
        let mut held = self.0.pop().unwrap_or_default();
        *held = black_box([value; 8]);
        held
    }

    fn give(&mut self, held: Box<Object>) {
        self.0.push(black_box(held));
    }
}

/// Places in one piece of memory, by index.
#[derive(Default)]
struct Slab {
    objects: Vec<Object>,
    free: Vec<u32>,
}

impl Source for Slab {
    type Held = u32;

    fn take(&mut self, value: u64) -> u32 {
        let object = black_box([value; 8]);
        match self.free.pop() {
            Some(index) => {
                self.objects[index as usize] = object;
                index
            }
            None => {
                self.objects.push(object);
                (self.objects.len() - 1) as u32
            }
        }
    }

    fn give(&mut self, held: u32) {
        self.free.push(black_box(held));
    }
}

fn burst<S: Source>(source: &mut S) -> f64 {
    let mut held = Vec::with_capacity(HELD);
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..20 {
            held.extend((0..HELD as u64).map(|value| source.take(value)));
            held.drain(..).for_each(|object| source.give(object));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (20 * HELD) as f64);
    }
    best
}

fn churn<S: Source>(source: &mut S) -> f64 {
    let mut held: Vec<_> = (0..HELD as u64).map(|value| source.take(value)).collect();
    let (mut best, mut random) = (f64::INFINITY, 1u64);
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..20 * HELD {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize % HELD;
            let old = held.swap_remove(at);
            source.give(old);
            held.push(source.take(random));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (20 * HELD) as f64);
    }
    best
}

fn main() {
    println!("{:10} {:>8} {:>8}   ns for a take and a return", "", "burst", "churn");
    println!("{:10} {:8.1} {:8.1}", "allocator", burst(&mut Malloc), churn(&mut Malloc));
    println!("{:10} {:8.1} {:8.1}", "free list", burst(&mut FreeList::default()), churn(&mut FreeList::default()));
    println!("{:10} {:8.1} {:8.1}", "slab", burst(&mut Slab::default()), churn(&mut Slab::default()));
}
