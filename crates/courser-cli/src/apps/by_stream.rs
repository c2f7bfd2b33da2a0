//! Something for each open stream.

use std::collections::HashMap;

use courser_core::ids::StreamId;
use rustc_hash::FxBuildHasher;

/// By stream ID. The transport counts those up, so that a peer cannot choose them to collide.
pub type ByStream<T> = HashMap<StreamId, T, FxBuildHasher>;
