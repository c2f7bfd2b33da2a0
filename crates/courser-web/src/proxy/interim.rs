//! Interim answers of an origin: passed on, and counted, as an origin that sends nothing else would never be done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::Request;
use http::request::Parts;
use tokio::sync::Notify;

use super::fields::strip;
use crate::app::Informational;

/// How many belong to one answer at most. A few are usual: 100, and 103 once or twice.
const INTERIM_MAX: u32 = 32;

/// The interim answers to one request.
#[derive(Debug)]
pub struct Interims {
    tell: Option<Informational>,
    count: AtomicU32,
    over: Notify,
}

impl Interims {
    /// Those to the client that asked so; none have come.
    #[must_use]
    pub fn new(parts: &Parts) -> Arc<Self> {
        let tell = parts.extensions.get::<Informational>().cloned();
        Arc::new(Self { tell, count: AtomicU32::new(0), over: Notify::new() })
    }

    /// Has those to `request` passed on.
    pub fn follow<B>(self: &Arc<Self>, request: &mut Request<B>) {
        let this = Arc::clone(self);
        hyper::ext::on_informational(request, move |response| {
            if this.count.fetch_add(1, Ordering::Relaxed) >= INTERIM_MAX {
                return this.over.notify_one();
            }
            // 100 is between us and the origin, and 101 is for what was not asked.
            if let Some(Informational(tell)) = &this.tell
                && response.status().as_u16() >= 102
            {
                let mut headers = response.headers().clone();
                strip(&mut headers);
                tell(response.status(), &headers);
            }
        });
    }

    /// Returns once there were too many; waits for ever otherwise.
    pub async fn too_many(&self) {
        self.over.notified().await;
    }
}
