//! Control frames that must survive loss: the control frame queue for frames whose bytes are kept, and [`Once`] for a
//! frame that is said exactly once. Frames that are rebuilt from current values live with the values.

mod once;
mod queue;

pub use once::Once;
pub use queue::{ControlQueue, ItemState, QueueFull};
