//! Results: what is printed for people, and the same as JSON.

pub mod demo;
pub mod echo;
pub mod get;
pub mod perf;
pub mod ping;
