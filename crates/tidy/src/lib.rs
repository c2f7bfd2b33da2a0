//! What the tests of the source tree share: finding files, and telling code from comments, text and tests.
//!
//! Nothing here parses Rust. Sources are *masked*: comments, strings and character literals become blanks of the same
//! length, so that a search for a word or a brace finds code only. That is enough for every rule that is checked, and it
//! needs no compiler internals.

mod mask;
mod outline;
mod tree;

pub use mask::mask;
pub use outline::{Function, functions, public_items};
pub use tree::{Source, lines_of, read, root, sources, texts};
