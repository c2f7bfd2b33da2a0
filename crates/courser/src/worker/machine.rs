//! What a worker drives.
//!
//! [`Machine`] is the engine as the worker sees it: datagrams in, time, trains out. The engine of the core is one; tests
//! use small ones, and so can whoever wants to measure the socket path alone.

use std::sync::Arc;

use courser_core::engine::Engine;
use courser_core::time::Instant;

use super::WorkerStats;
use crate::net::os::{Ear, RelayOut};
use crate::net::socket::Socket;

pub use courser_core::engine::{Meta, SendOutcome, Train, TrainMeta};

/// An engine as its worker sees it.
pub trait Machine {
    /// These trains came in together and are handed over next; a hint ([`Engine::expect`]).
    fn expect(&self, _trains: &mut dyn Iterator<Item = &[u8]>) {}

    /// A train came in. The machine may change the bytes: packets are opened in place.
    fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]);

    /// What came in made something that should leave before more is handed over
    /// ([`Engine::is_pressing`]); asked after each train.
    fn is_pressing(&self) -> bool {
        false
    }

    /// Does what became due: called after every batch of received trains, and after the application had its turn.
    fn process(&mut self, now: Instant);

    /// Fills the next train that is to go out now; `None` when there is none.
    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta>;

    /// What became of the train that `fill` returned before.
    fn sent(&mut self, now: Instant, train: &TrainMeta, outcome: SendOutcome);

    /// A socket that takes the place of the present one; asked for after each turn's `process`, before anything is sent.
    fn next_socket(&mut self) -> Option<Socket> {
        None
    }

    /// Where trains come from from now on, because another process has the port; asked for like `next_socket`.
    fn next_relay(&mut self) -> Option<Relay> {
        None
    }

    /// That process is gone: what comes to the port comes here again.
    fn on_relay_end(&mut self) {}

    /// What else the worker listens to while it sleeps.
    fn ears(&self) -> Ears<'_> {
        Ears::default()
    }

    /// Whether somebody outside rang, or is about to, since the machine was told that its worker goes to sleep.
    fn is_rung(&self) -> bool {
        false
    }

    /// What the worker counted until this turn.
    fn on_turn(&mut self, _stats: &WorkerStats) {}

    /// When `process` has to be called even though nothing came in.
    fn deadline(&self) -> Option<Instant>;
}

/// Bells that somebody outside rings.
#[derive(Debug, Default)]
pub struct Ears<'a>(pub(crate) Vec<Ear<'a>>);

/// Where trains come out that another process received.
#[derive(Debug)]
pub struct Relay(pub(crate) Arc<RelayOut>);

impl Machine for Engine {
    fn expect(&self, trains: &mut dyn Iterator<Item = &[u8]>) {
        Engine::expect(self, trains);
    }

    fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]) {
        Engine::receive(self, now, meta, train);
    }

    fn is_pressing(&self) -> bool {
        Engine::is_pressing(self)
    }

    fn process(&mut self, now: Instant) {
        Engine::process(self, now);
    }

    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta> {
        Engine::fill(self, now, out)
    }

    fn sent(&mut self, now: Instant, train: &TrainMeta, outcome: SendOutcome) {
        Engine::sent(self, now, train, outcome);
    }

    fn deadline(&self) -> Option<Instant> {
        Engine::deadline(self)
    }
}
