//! Takes traffic secrets out of rustls.
//!
//! rustls tells its key log every secret of the key schedule, on the thread that is calling it, before the call
//! returns. Every configuration that sessions are started from has a [`SecretTap`] as key log; it hands secrets on to
//! the user's key log and keeps them for the call in progress. QUIC keys are made from these secrets, so that the
//! version whose labels are used may be another one than the session was started with, keys can be updated after the
//! session is gone, and dormant keys can be made again.

use std::cell::RefCell;
use std::sync::Arc;

use courser_core::buf::lazy::Part;
use courser_core::crypto::Secret;
use rustls::KeyLog;

/// Secrets that became known and were not handed out yet.
#[derive(Default)]
pub(crate) struct Caught {
    pub(crate) client_early: Option<Secret>,
    pub(crate) client_handshake: Option<Secret>,
    pub(crate) server_handshake: Option<Secret>,
    pub(crate) client_application: Option<Secret>,
    pub(crate) server_application: Option<Secret>,
    pub(crate) exporter: Option<Secret>,
}

impl Part for Caught {
    const UNUSED: &'static Self = &Self {
        client_early: None,
        client_handshake: None,
        server_handshake: None,
        client_application: None,
        server_application: None,
        exporter: None,
    };

    fn begin() -> Self {
        Self::default()
    }

    fn is_unused(&self) -> bool {
        let Self { client_early, client_handshake, server_handshake, client_application, server_application, exporter } =
            self;
        [client_early, client_handshake, server_handshake, client_application, server_application, exporter]
            .into_iter()
            .all(Option::is_none)
    }
}

impl Caught {
    fn slot(&mut self, label: &str) -> Option<&mut Option<Secret>> {
        Some(match label {
            "CLIENT_EARLY_TRAFFIC_SECRET" => &mut self.client_early,
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET" => &mut self.client_handshake,
            "SERVER_HANDSHAKE_TRAFFIC_SECRET" => &mut self.server_handshake,
            "CLIENT_TRAFFIC_SECRET_0" => &mut self.client_application,
            "SERVER_TRAFFIC_SECRET_0" => &mut self.server_application,
            "EXPORTER_SECRET" => &mut self.exporter,
            _ => return None,
        })
    }

    /// Adds what a later call caught.
    pub(crate) fn absorb(&mut self, newer: Self) {
        let Self { client_early, client_handshake, server_handshake, client_application, server_application, exporter } =
            newer;
        for (to, from) in [
            (&mut self.client_early, client_early),
            (&mut self.client_handshake, client_handshake),
            (&mut self.server_handshake, server_handshake),
            (&mut self.client_application, client_application),
            (&mut self.server_application, server_application),
            (&mut self.exporter, exporter),
        ] {
            if from.is_some() {
                *to = from;
            }
        }
    }
}

thread_local! {
    /// Where the call in progress on this thread puts secrets; `None` between calls.
    static CALL: RefCell<Option<Box<Caught>>> = const { RefCell::new(None) };
}

/// Ends the call also when it unwinds.
struct Call;

impl Drop for Call {
    fn drop(&mut self) {
        CALL.with_borrow_mut(|call| *call = None);
    }
}

/// Runs `f` and returns the secrets that rustls logged meanwhile.
pub(crate) fn catching<R>(f: impl FnOnce() -> R) -> (R, Caught) {
    CALL.with_borrow_mut(|call| *call = Some(Box::default()));
    let guard = Call;
    let result = f();
    let caught = CALL.with_borrow_mut(Option::take).unwrap_or_default();
    drop(guard);
    (result, *caught)
}

/// The key log of our configurations.
#[derive(Debug)]
pub(crate) struct SecretTap {
    user: Arc<dyn KeyLog>,
}

impl SecretTap {
    pub(crate) fn around(user: Arc<dyn KeyLog>) -> Arc<Self> {
        Arc::new(Self { user })
    }
}

impl KeyLog for SecretTap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        CALL.with_borrow_mut(|call| {
            if let Some(slot) = call.as_mut().and_then(|caught| caught.slot(label)) {
                *slot = Secret::new(secret);
            }
        });
        if self.user.will_log(label) {
            self.user.log(label, client_random, secret);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_caught_only_during_a_call() {
        let tap = SecretTap::around(Arc::new(rustls::NoKeyLog));
        tap.log("EXPORTER_SECRET", &[], &[1; 32]);
        let (value, caught) = catching(|| {
            tap.log("EXPORTER_SECRET", &[], &[2; 32]);
            tap.log("CLIENT_RANDOM", &[], &[3; 48]);
            7
        });
        assert_eq!(value, 7);
        assert_eq!(caught.exporter.unwrap().as_slice(), [2; 32]);
        assert!(caught.client_early.is_none());
        let ((), nothing) = catching(|| ());
        assert!(nothing.exporter.is_none());
    }

    #[test]
    fn a_call_that_unwinds_leaves_nothing_behind() {
        let tap = SecretTap::around(Arc::new(rustls::NoKeyLog));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| catching(|| panic!("on purpose"))));
        assert!(result.is_err());
        tap.log("EXPORTER_SECRET", &[], &[1; 32]);
        CALL.with_borrow(|call| assert!(call.is_none()));
    }
}
