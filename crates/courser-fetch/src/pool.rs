//! Connections by origin. HTTP/2 and HTTP/3 connections carry all requests to their origin; those of HTTP/1.1 carry one
//! at a time and wait here between two.
//!
//! One connection an origin is made at a time: who needs one too waits, because it may turn out that it can be shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::alt_svc::Origin;
use crate::error::Outcome;
use crate::race::{Racer, Way};
use crate::via::{Dialled, Route, Steps, Via};

/// Connections of HTTP/1.1 that wait for one origin.
const IDLE_MAX: usize = 8;
/// How long an answer that was read may take to set its connection free.
const SETTLE: Duration = Duration::from_millis(50);

/// What connections have in common that can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Where they lead.
    pub origin: Origin,
    /// What they may be made of.
    pub way: Way,
}

/// The connections of a client.
#[derive(Debug, Default)]
pub struct Pool {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    held: Mutex<Held>,
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    shared: Option<Dialled>,
    idle: Vec<Dialled>,
}

/// A connection for one exchange.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The connection.
    pub via: Arc<dyn Via>,
    /// Where it goes, with HTTP/3.
    pub route: Option<Route>,
    /// What it took to make it; none when it was there.
    pub steps: Option<Steps>,
}

impl Slot {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Lease> {
        let mut held = self.held();
        held.shared.take_if(|d| !d.via.is_open());
        let found = held.shared.clone().or_else(|| {
            held.idle.retain(|d| d.via.is_open());
            held.idle.pop()
        })?;
        Some(Lease { via: found.via, route: found.route, steps: None })
    }
}

impl Pool {
    fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(key.clone()).or_default().clone()
    }

    /// A connection that is there, or a new one.
    ///
    /// # Errors
    /// None is there and none can be made.
    pub async fn lease(&self, key: &Key, racer: &Racer) -> Outcome<Lease> {
        let slot = self.slot(key);
        if let Some(lease) = slot.take() {
            return Ok(lease);
        }
        let _alone = slot.dialling.lock().await;
        if let Some(lease) = slot.take() {
            return Ok(lease);
        }
        let made = racer.connect(&key.origin, key.way).await?;
        let lease = Lease { via: made.via.clone(), route: made.route.clone(), steps: Some(made.steps) };
        if made.via.protocol().is_shared() {
            slot.held().shared = Some(made);
        }
        Ok(lease)
    }

    /// The exchange is over; the connection may be good for another.
    pub async fn give_back(&self, key: &Key, lease: Lease) {
        if lease.via.protocol().is_shared()
            || !matches!(tokio::time::timeout(SETTLE, lease.via.ready()).await, Ok(true))
        {
            return;
        }
        let slot = self.slot(key);
        let mut held = slot.held();
        if held.idle.len() < IDLE_MAX {
            let steps = lease.steps.unwrap_or_default();
            held.idle.push(Dialled { via: lease.via, steps, route: lease.route });
        }
    }

    /// The connection is not to be used again.
    pub fn discard(&self, key: &Key, lease: &Lease) {
        let slot = self.slot(key);
        slot.held().shared.take_if(|d| Arc::ptr_eq(&d.via, &lease.via));
    }

    /// Ends all connections in good order.
    pub async fn close(&self) {
        let slots: Vec<_> = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.drain().map(|(_, slot)| slot).collect()
        };
        for slot in slots {
            let shared = slot.held().shared.take();
            if let Some(dialled) = shared {
                dialled.via.close().await;
            }
        }
    }
}
