//! Memory that an application in another process shares with its worker.

mod setup;

pub use setup::{BadSetup, PAYLOAD_MAX, SEGMENT_MAX, SharedSetup};
