//! Tests of the source tree itself.
//!
//! | Module | What it holds |
//! |---|---|
//! | `layers` | the rows of the core, and which crate may use which |
//! | `words` | what must not be said in the core, and what nowhere |
//! | `sizes` | long files, long functions, long parameter lists |
//! | `heads` | every module says what it is for |
//! | `citations` | every cited requirement exists |
//! | `rows` | every mechanism of the seeds has its test, figure or decision |
//! | `links` | documents lead somewhere |
//! | `api` | the public API is the committed one |
//!
//! Lists of offenders (`lists/`) are ratchets: an entry that is no longer needed fails the test, so they only shrink.

#![allow(clippy::unwrap_used)]

mod api;
mod citations;
mod heads;
mod layers;
mod links;
mod rows;
mod sizes;
mod words;

/// Fails with all complaints at once.
fn assert_none(what: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{what}:\n  {}", complaints.join("\n  "));
}
