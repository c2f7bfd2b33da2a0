//! Two engines over a link in memory and virtual time, with the null provider.

mod basics;
mod cids;
mod clock;
mod ends;
mod handover;
mod levels;
mod life;
mod pair;
mod promises;
mod replies;
mod resets;
mod retry;
mod rows;
mod starved;
