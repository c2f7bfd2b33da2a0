//! What an application has is given back when its last user is gone.
//!
//! An endpoint is *used* by the sessions that name it and by the handles that live in it. A listener's ends with the last of
//! them. One that makes connections is kept for a while, since the next connection may be about to be made and finds threads,
//! sockets and the servers' tickets there; then it is closed, and at once when the host has no room for another one.
//! Certificates are given back as soon as the endpoint that they were added for has them.

use std::time::{Duration, Instant};

use super::{Error, Stack, clock::Due, state::State, wait::Inner};
use crate::{
    control::{Fault, Open, Refused},
    stack::{Control, Opened},
};

/// How long an endpoint is kept that makes connections and has none.
pub(super) const KEEP: Duration = Duration::from_secs(10);

/// What the host is to be told of: endpoints to close, certificates to forget.
#[derive(Debug, Default)]
pub(super) struct Waste {
    pub(super) endpoints: Vec<u32>,
    pub(super) certificates: Vec<u32>,
}

impl Waste {
    pub(super) const fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.certificates.is_empty()
    }

    /// A host that does not know what is given back has none of it.
    pub(super) fn give_back(self, control: &mut dyn Control) {
        for endpoint in self.endpoints {
            let _ = control.close(endpoint);
        }
        for certificate in self.certificates {
            let _ = control.remove_certificate(certificate);
        }
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

    /// An endpoint that makes connections may have lost its last user.
    pub(super) fn look_whether_used(&mut self, number: u32) {
        let keep = self.keep;
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
        if endpoint.is_spare() {
            self.waste.endpoints.push(number);
        }
    }

    /// Gives up endpoints that are only kept; their numbers.
    fn spare(&mut self) -> Vec<u32> {
        let plain = self.plain;
        // Sockets over TCP may still be bringing their last bytes to the peer.
        let spare = self.endpoints.iter().filter(|(number, endpoint)| endpoint.is_spare() && Some(**number) != plain);
        let spare: Vec<u32> = spare.map(|(number, _)| *number).collect();
        spare.iter().for_each(|number| self.forget_endpoint(*number, "its endpoint was closed"));
        spare
    }
}

impl Inner {
    /// Opens an endpoint. If there are too many, those that nobody uses go.
    pub(super) fn open(&self, control: &mut dyn Control, open: &Open) -> Result<Opened, Refused> {
        let opened = match control.open(open) {
            Err(refused) if refused.fault == Fault::Quota => {
                let spare = self.lock().spare();
                if spare.is_empty() {
                    return Err(refused);
                }
                spare.into_iter().for_each(|endpoint| _ = control.close(endpoint));
                control.open(open)
            }
            opened => opened,
        };
        if opened.is_ok() {
            // It has them now.
            let certificates = open.profile.certificates.clone();
            Waste { certificates, ..Waste::default() }.give_back(control);
        }
        opened
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
