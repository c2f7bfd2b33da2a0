//! Every parser of the project under mutated input, in one process.
//!
//! `tests/trial` has one target for each decoder of what a peer, a file or a user writes. Inputs are made of a corpus by a seed:
//! the same number of a target is the same input in every run. Held to: no panic, no input that takes long, no large
//! allocation, and what each target asserts of what was understood.
//!
//! `COURSER_EXECUTIONS=N cargo test --release -p parser-trial -- --nocapture` prints a row for each target.
