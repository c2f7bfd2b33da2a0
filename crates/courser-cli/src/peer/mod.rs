//! `peer-courser`: Courser behind the command line and the JSON of the comparison's programs.
//!
//! Like them it takes any certificate chain, offers X25519 only, and runs one thread of work.

pub mod opts;
