//! Two engines over a link in memory and virtual time, with the null provider.

mod basics;
mod cids;
mod clock;
mod levels;
mod life;
mod pair;
mod promises;
mod retry;
mod rows;
