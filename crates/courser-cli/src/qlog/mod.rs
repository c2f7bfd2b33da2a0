//! Reading traces: files of this program and of others, for people and for programs.
//!
//! ```text
//! read      records of a file, one at a time, in whatever form they are
//! event     a record as an event, whatever the version of the format calls it
//! timeline  a line for each event
//! summary   figures of the whole
//! trouble   what went wrong, by name
//! spark     throughput as a line of blocks
//! ```
//!
//! Nothing grows with the length of a file: records are judged one by one, lists are bounded, throughput is kept in a
//! fixed number of intervals that become coarser.

pub mod event;
pub mod read;
pub mod spark;
pub mod summary;
pub mod timeline;
pub mod trouble;
