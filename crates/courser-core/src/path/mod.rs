//! Network paths of a connection: addresses, validation, the anti-amplification limit, the search for a datagram size, and
//! the round-trip time and congestion state that belong to a path. One path is in use; [`Standby`] has the others.

mod amplification;
mod info;
mod pmtud;
mod replay;
mod spin;
mod standby;
mod state;
mod token;
mod validate;

pub use amplification::Amplification;
pub use info::PathInfo;
pub use pmtud::{Pmtud, Probe};
pub use replay::{TokenLedger, UsedTokens};
pub use spin::Spin;
pub use standby::Standby;
pub use state::{Destination, Goal, Path};
pub use token::{Checked, Proof, Showing, TOKEN_KEYS_MAX, Ticket, TokenKeys, Tokens};
pub use validate::{Answer, Challenges, Due, Responses};
