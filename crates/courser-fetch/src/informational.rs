//! Informational responses (RFC 9110 section 15.2): what servers say before they answer.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, StatusCode};

use crate::body::Pulse;

/// Informational responses of one request that are kept: the first ones.
const KEPT_MAX: usize = 16;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Informational {
    /// Its status, 1xx.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
}

/// Hears them. Goes along with a request, in its extensions.
#[derive(Clone, Debug)]
pub struct Ear {
    heard: Arc<Mutex<Vec<Informational>>>,
    pulse: Pulse,
}

impl Ear {
    /// Hears for an exchange.
    #[must_use]
    pub fn new(pulse: &Pulse) -> Self {
        Self { heard: Arc::default(), pulse: pulse.clone() }
    }

    /// Takes one.
    pub fn hear(&self, status: StatusCode, headers: &HeaderMap) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < KEPT_MAX {
            heard.push(Informational { status, headers: headers.clone() });
            // A server that says so little for ever is a quiet one.
            self.pulse.beat();
        }
    }

    /// What was heard.
    #[must_use]
    pub fn heard(&self) -> Vec<Informational> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ones_are_kept() {
        let ear = Ear::new(&Pulse::default());
        for n in 0..1_000u16 {
            let headers = HeaderMap::from_iter([(http::header::LINK, n.into())]);
            ear.clone().hear(StatusCode::EARLY_HINTS, &headers);
        }
        let heard = ear.heard();
        assert_eq!((heard.len(), &heard[15].headers["link"]), (KEPT_MAX, &http::HeaderValue::from(15u16)));
    }
}
