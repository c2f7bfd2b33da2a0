//! One network path of a connection: addresses, validation, the anti-amplification limit, the search for a datagram size,
//! and the round-trip time and congestion state that belong to the path.

mod amplification;
mod pmtud;
mod state;
mod token;
mod validate;

pub use amplification::Amplification;
pub use pmtud::{Pmtud, Probe};
pub use state::Path;
pub use token::{Proof, TokenKey};
pub use validate::{Challenges, Responses};
