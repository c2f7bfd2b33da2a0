//! What several test suites share. Nothing here is part of the product.
//!
//! - [`alloc`]: an allocator that counts, for tests that hold "no allocation per datagram" and "a flood leaves nothing".
//! - [`caller`]: random calls on random handles, judged by a model.
//! - [`duo`]: two engines back to back without a network between them; its own loop does not allocate.
//! - [`rig`]: an engine under test, and a forger that holds the keys of a connection to it, so that any packet can be
//!   made, the wrong ones above all.
//! - [`sites`]: an allocator that remembers where the memory in use was asked for.
//! - [`initial`]: Initial packets of clients that are no clients.
//! - [`kinds`]: every kind of frame there is, for tables and floods.
//! - [`keys`]: null keys of which somebody sees each that is made.
//! - [`web`]: bytes of HTTP/3 and QPACK, made by hand.
//! - [`fuzz`]: functions from bytes to "nothing bad happened", for fuzzers and for plain tests.

pub mod alloc;
pub mod caller;
pub mod duo;
pub mod fuzz;
pub mod initial;
pub mod keys;
pub mod kinds;
pub mod rig;
pub mod sites;
pub mod web;

/// Numbers by chance; the same seed, which must not be zero, gives the same ones.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// One below `n`.
    ///
    /// # Panics
    /// When `n` is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}
