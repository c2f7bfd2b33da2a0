//! What an application has is given back when its last user is gone.
//!
//! An endpoint is *used* by the sessions that name it and by the handles that live in it. A listener's ends with the last of
//! them. One that makes connections is kept for a while, since the next connection may be about to be made and finds threads,
//! sockets and the servers' tickets there; then it is closed, and at once when the host has no room for another one.
//! Certificates are given back as soon as the endpoint that they were added for has them.

use std::time::{Duration, Instant};

use super::{
    Error, Opened, Stack,
    clock::Due,
    lines::Lines,
    state::{Home, LEFT, State},
    wait::Inner,
};
use crate::control::{Fault, Open, Refused};

/// How long an endpoint is kept that makes connections and has none.
pub(super) const KEEP: Duration = Duration::from_secs(10);

/// So long the endpoint of TCP is left to sockets that bring their last bytes to the peer, at a host that is being left.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// What hosts are to be told of: endpoints to close, and the stack's numbers of certificates to forget.
#[derive(Debug)]
pub(super) struct Waste<E = u32> {
    pub(super) endpoints: Vec<E>,
    pub(super) certificates: Vec<u32>,
}

impl<E> Default for Waste<E> {
    fn default() -> Self {
        Self { endpoints: Vec::new(), certificates: Vec::new() }
    }
}

impl<E> Waste<E> {
    pub(super) const fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.certificates.is_empty()
    }
}

impl State {
    /// One more uses the endpoint.
    pub(super) fn joins(&mut self, number: u32) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        endpoint.users += 1;
        if let Some(at) = endpoint.kept.take() {
            self.clock.remove(at, Due::Endpoint(number));
        }
    }

    /// One uses it no more.
    pub(super) fn parts(&mut self, number: u32) {
        if let Some(endpoint) = self.endpoints.get_mut(&number) {
            endpoint.users = endpoint.users.saturating_sub(1);
            self.look_whether_used(number);
        }
    }

    /// An endpoint may have lost its last user.
    pub(super) fn look_whether_used(&mut self, number: u32) {
        let keep = self.keep;
        if self.endpoints.get(&number).is_some_and(|endpoint| endpoint.ends) {
            return self.close_if_idle(number);
        }
        let Some(endpoint) = self.endpoints.get_mut(&number).filter(|endpoint| endpoint.is_spare()) else { return };
        match Instant::now().checked_add(keep) {
            _ if keep.is_zero() => self.waste.endpoints.push(number),
            Some(at) if endpoint.kept.is_none() => {
                endpoint.kept = Some(at);
                self.clock.put(at, Due::Endpoint(number));
            }
            _ => {}
        }
    }

    /// The time is over for which an endpoint was kept.
    pub(super) fn let_go(&mut self, number: u32) {
        let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
        endpoint.kept = None;
        if endpoint.is_spare() || self.is_left(number) {
            self.waste.endpoints.push(number);
        }
    }

    /// The endpoint is closed when nothing lives in it any more. The one of TCP and UDP stays while it is used.
    pub(super) fn end_when_idle(&mut self, number: u32) {
        if Some(number) == self.plain {
            return self.look_whether_used(number);
        }
        if let Some(endpoint) = self.endpoints.get_mut(&number) {
            endpoint.ends = true;
            self.close_if_idle(number);
        }
    }

    /// Closes an endpoint that is to end when nothing lives in it, if nothing does and nothing is about to.
    pub(super) fn close_if_idle(&mut self, number: u32) {
        if !self.is_left(number) {
            return;
        }
        match self.endpoints.get_mut(&number) {
            Some(endpoint) if endpoint.lingers => {
                if endpoint.kept.is_none() {
                    let at = Instant::now() + LAST_BYTES;
                    endpoint.kept = Some(at);
                    self.clock.put(at, Due::Endpoint(number));
                }
            }
            _ => self.waste.endpoints.push(number),
        }
    }

    /// Gives up endpoints that are only kept; where they are.
    fn spare(&mut self) -> Vec<Home> {
        let plain = self.plain;
        // Sockets over TCP may still be bringing their last bytes to the peer.
        let spare = self
            .endpoints
            .iter()
            .filter(|(number, endpoint)| endpoint.is_spare() && !endpoint.ends && Some(**number) != plain);
        let spare: Vec<(u32, Home)> = spare.map(|(number, endpoint)| (*number, endpoint.home)).collect();
        spare.iter().for_each(|(number, _)| self.forget_endpoint(*number, LEFT));
        spare.into_iter().map(|(_, home)| home).collect()
    }
}

impl Inner {
    /// Opens an endpoint at the newest host. If there are too many, those that nobody uses go.
    pub(super) fn open(&self, lines: &mut Lines, open: &Open) -> Result<(u32, Opened), Refused> {
        match lines.open(open) {
            Err(refused) if refused.fault == Fault::Quota => {
                let endpoints = self.lock().spare();
                if endpoints.is_empty() {
                    return Err(refused);
                }
                lines.give_back(Waste { endpoints, ..Waste::default() });
                lines.open(open)
            }
            opened => opened,
        }
    }
}

impl Stack {
    /// How long an endpoint is kept that makes connections and has none: 10 seconds when nobody says so. It costs a thread
    /// and a socket at the host, and spares the next connection with the same settings the making of these; over QUIC it also
    /// has the servers' tickets, with which handshakes are shorter. The end of that time is noticed by calls that wait, by
    /// [`Self::poll`], and by the next call of any kind.
    ///
    /// # Errors
    /// [`Error::ServiceGone`].
    pub fn set_keep(&self, keep: Duration) -> Result<(), Error> {
        let mut state = self.0.lock();
        if state.gone {
            return Err(Error::ServiceGone);
        }
        state.keep = keep;
        let all: Vec<u32> = state.endpoints.keys().copied().collect();
        for number in all {
            let kept = state.endpoints.get_mut(&number).and_then(|endpoint| endpoint.kept.take());
            if let Some(at) = kept {
                state.clock.remove(at, Due::Endpoint(number));
            }
            state.look_whether_used(number);
        }
        self.0.leave(state);
        Ok(())
    }

    /// Endpoints that the program has open at its host: one for each listener over QUIC and each kind of settings with which
    /// it connects, and one for TCP and UDP.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.0.lock().endpoints.len()
    }
}
