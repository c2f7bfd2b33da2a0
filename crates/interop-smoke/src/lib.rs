//! The built command against other stacks, and the examples of the documents.
//!
//! `tests/smoke` runs the `courser` command against quinn and aioquic over loopback. The examples of the README are compiled
//! and run as tests of this crate.

/// The README, so that its examples are tests.
#[doc = include_str!("../../../README.md")]
#[cfg(doctest)]
pub struct Readme;
