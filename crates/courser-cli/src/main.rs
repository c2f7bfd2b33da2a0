//! The `courser` command.
fn main() {}
