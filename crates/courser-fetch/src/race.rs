//! HTTP/3 against TCP (RFC 9114 section 3.1.1 leaves it to clients): attempts begin one after the other, and the first
//! connection that stands carries the requests.
//!
//! The places where the origin is said to speak HTTP/3 come first, in the order of who told of them, each with a small
//! head start before the next; after a head start that pays for a round trip of most paths, TCP runs beside them. When
//! nothing runs any more, the next attempt does not wait for its time, and TCP is the last. A network that drops UDP costs the head start
//! once: what lost to a later attempt is left alone for a while, unless it still stands in the end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::alt_svc::cache::Cache;
use crate::alt_svc::{self, Origin};
use crate::dns::{Found, Resolve, discover};
use crate::error::{Error, Outcome};
use crate::offers::Offer;
use crate::options::{Http, Options};
use crate::via::{Boxed, Dial, Dialled, Route, Target, Told};

/// Places that are tried over HTTP/3, and places of records that are tried over TCP.
const PLACES_MAX: (usize, usize) = (4, 2);
/// How long an attempt has before the next one of its kind begins (RFC 8305 section 8): over QUIC, over TCP.
const STAGGER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(250));
/// Attempts that lost and still go on; beyond, the oldest are given up.
const LATE_MAX: usize = 32;

/// A cache that connections share.
pub type Shared = Arc<Mutex<Cache>>;

/// The cache, whatever became of others that held it.
pub fn lock(cache: &Shared) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// What the options permit.
    Any,
    /// HTTP/2 or HTTP/1.1.
    Tcp,
    /// HTTP/1.1.
    Http1,
}

/// Makes connections.
#[derive(Debug)]
pub struct Racer {
    options: Arc<Options>,
    tcp: Arc<dyn Dial>,
    quic: Option<Arc<dyn Dial>>,
    cache: Shared,
    names: Arc<dyn Resolve>,
    network: Option<IpAddr>,
    /// Attempts over QUIC that lost.
    late: Mutex<VecDeque<AbortHandle>>,
}

/// An attempt of a race.
struct Lane {
    dial: Arc<dyn Dial>,
    target: Target,
    /// With HTTP/3.
    route: Option<Route>,
    /// When it begins at the latest, after the start.
    after: Duration,
}

/// An attempt that goes on.
struct Attempt {
    route: Option<Route>,
    going: Boxed<'static, Outcome<Dialled>>,
}

impl Racer {
    /// A racer with these ways: TCP, and QUIC where there is.
    #[must_use]
    pub fn new(
        options: Arc<Options>,
        (tcp, quic): (Arc<dyn Dial>, Option<Arc<dyn Dial>>),
        cache: Shared,
        names: Arc<dyn Resolve>,
    ) -> Self {
        Self { options, tcp, quic, cache, names, network: alt_svc::network(), late: Mutex::default() }
    }

    /// Where alternatives are remembered.
    #[must_use]
    pub const fn cache(&self) -> &Shared {
        &self.cache
    }

    /// The network in which this runs.
    #[must_use]
    pub const fn network(&self) -> Option<IpAddr> {
        self.network
    }

    /// A connection for an origin.
    ///
    /// # Errors
    /// Of the way that is the last hope.
    pub async fn connect(&self, origin: &Origin, way: Way) -> Outcome<Dialled> {
        let lanes = match way {
            Way::Any => self.plan(origin).await?,
            Way::Tcp | Way::Http1 => {
                let target = Target { http1: way == Way::Http1, ..Target::itself(origin) };
                vec![Lane { dial: self.tcp.clone(), target, route: None, after: Duration::ZERO }]
            }
        };
        self.race(origin, lanes).await
    }

    /// Who runs, in the order of the start.
    async fn plan(&self, origin: &Origin) -> Outcome<Vec<Lane>> {
        let since = std::time::Instant::now();
        let quic = match (&self.quic, self.options.http) {
            (None, Http::Only3) => return Err(Error::Usage("this build has no HTTP/3".into())),
            (_, Http::Never3) => None,
            (quic, _) => quic.as_ref(),
        };
        let mut routes = if quic.is_some() { self.remembered(origin) } else { Vec::new() };
        let asks = quic.is_some() && routes.is_empty() && self.names.has_records(origin);
        let found = if asks { self.discovered(origin).await? } else { Found::default() };
        routes.extend(self.offered(origin, &found.offers));
        routes.truncate(PLACES_MAX.0);
        let itself = Route { host: None, port: origin.port, told: Told::Option };
        let wanted = match self.options.http {
            Http::Prefer3 => routes.is_empty(),
            // Alternatives may be wrong; the origin is the last hope.
            Http::Only3 => routes.iter().all(|(r, _)| r.is_elsewhere(origin)),
            Http::Auto | Http::Never3 => false,
        };
        routes.extend(wanted.then_some((itself, Vec::new())));
        let place = |host: Option<&str>, port: u16, hints: &[IpAddr]| {
            let mut target = Target { since, ..Target::alternative(origin, host, port) };
            let own = host.is_none() && !found.addresses.is_empty();
            target.addresses = if own { found.addresses.clone() } else { hints.to_vec() };
            target.named = (!target.addresses.is_empty()).then_some(found.after);
            target
        };
        let mut lanes = Vec::new();
        if let Some(dial) = quic {
            for ((route, hints), n) in routes.into_iter().zip(0u32..) {
                let target = place(route.host.as_deref(), route.port, &hints);
                lanes.push(Lane { dial: dial.clone(), target, route: Some(route), after: STAGGER.0 * n });
            }
        }
        if self.options.http != Http::Only3 {
            let elsewhere = |o: &&Offer| o.tcp && (o.host.is_some() || o.port != origin.port);
            let offers = found.offers.iter().filter(elsewhere).take(PLACES_MAX.1);
            let mut targets: Vec<_> = offers.map(|o| place(o.host.as_deref(), o.port, &o.hints)).collect();
            targets.push(place(None, origin.port, &[]));
            for (target, n) in targets.into_iter().zip(0u32..) {
                let after = self.options.head_start + STAGGER.1 * n;
                lanes.push(Lane { dial: self.tcp.clone(), target, route: None, after });
            }
        }
        lanes.sort_by_key(|lane| lane.after);
        Ok(lanes)
    }

    /// What servers told before, and is not broken.
    fn remembered(&self, origin: &Origin) -> Vec<(Route, Vec<IpAddr>)> {
        let cache = lock(&self.cache);
        let known = cache.usable(origin, self.network, SystemTime::now());
        let route = |host: &Option<String>, port| Route { host: host.clone(), port, told: Told::AltSvc };
        known.map(|k| (route(&k.host, k.port), Vec::new())).collect()
    }

    async fn discovered(&self, origin: &Origin) -> Outcome<Found> {
        let limit = self.options.connect_timeout;
        match tokio::time::timeout(limit, discover(&*self.names, origin)).await {
            Ok(found) => found,
            Err(_) => {
                let why = format!("no name server answered within {limit:?}");
                Err(Error::NameNotFound { host: origin.host.clone(), why })
            }
        }
    }

    /// Where records say that HTTP/3 is spoken, but for what did not answer lately.
    fn offered(&self, origin: &Origin, offers: &[Offer]) -> Vec<(Route, Vec<IpAddr>)> {
        let (cache, now) = (lock(&self.cache), SystemTime::now());
        let works = |o: &&Offer| o.h3 && !cache.is_broken(origin, (o.host.as_deref(), o.port), self.network, now);
        let route = |o: &Offer| Route { host: o.host.clone(), port: o.port, told: Told::HttpsRecord };
        offers.iter().filter(works).map(|o| (route(o), o.hints.clone())).collect()
    }

    /// All attempts are futures of this one: who gives up waiting gives them all up.
    async fn race(&self, origin: &Origin, lanes: Vec<Lane>) -> Outcome<Dialled> {
        let start = Instant::now();
        let mut waiting = VecDeque::from(lanes);
        let mut running: Vec<Attempt> = Vec::new();
        let mut failed = Error::Usage("there is no way to get there".into());
        // Which attempt the error is of: that of the last hope says most.
        let mut of_tcp = false;
        let mut refused = Vec::new();
        loop {
            while let Some(lane) = next(&mut waiting, running.is_empty(), start.elapsed()) {
                running.push(Attempt { going: lane.dial.dial(lane.target), route: lane.route });
            }
            if running.is_empty() {
                return Err(failed);
            }
            let due = waiting.front().map(|l| start + l.after);
            let later = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                (n, outcome) = first(&mut running) => {
                    let done = running.remove(n);
                    match outcome {
                        Ok(mut dialled) => {
                            running.truncate(n);
                            // When nothing stands at all, that is of this machine or of the origin.
                            refused.iter().for_each(|route| self.broke(origin, route));
                            self.leave_behind(origin, running);
                            if let Some(route) = &done.route {
                                lock(&self.cache).works(origin, route.host.as_deref(), route.port);
                            }
                            dialled.route = done.route;
                            return Ok(dialled);
                        }
                        Err(e) => {
                            if done.route.is_none() || !of_tcp {
                                (failed, of_tcp) = (e, done.route.is_none());
                            }
                            refused.extend(done.route);
                        }
                    }
                }
                () = later => {}
            }
        }
    }

    /// A later attempt was faster than these. They count as broken unless they still stand.
    fn leave_behind(&self, origin: &Origin, lost: Vec<Attempt>) {
        for Attempt { route, going } in lost {
            // TCP that is given up says nothing about the place.
            let Some(route) = route else { continue };
            self.broke(origin, &route);
            let (cache, origin) = (self.cache.clone(), origin.clone());
            let watch = tokio::spawn(async move {
                if let Ok(dialled) = going.await {
                    lock(&cache).works(&origin, route.host.as_deref(), route.port);
                    dialled.via.close().await;
                }
            });
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.retain(|task| !task.is_finished());
            late.push_back(watch.abort_handle());
            if late.len() > LATE_MAX {
                late.pop_front().iter().for_each(AbortHandle::abort);
            }
        }
    }

    /// A place did not answer, or not as it should.
    pub fn broke(&self, origin: &Origin, route: &Route) {
        let (mut cache, now) = (lock(&self.cache), SystemTime::now());
        match route.told {
            Told::HttpsRecord => cache.broke_here(origin, (route.host.as_deref(), route.port), self.network, now),
            Told::AltSvc | Told::Option => cache.broke(origin, route.host.as_deref(), route.port, now),
        }
    }

    /// Gives up attempts that lost and still go on.
    pub fn close(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        late.iter().for_each(AbortHandle::abort);
    }
}

/// What begins now: what is due, or, when nothing runs, the next place of HTTP/3 and at last TCP.
fn next(waiting: &mut VecDeque<Lane>, idle: bool, elapsed: Duration) -> Option<Lane> {
    let front = waiting.front()?;
    if idle {
        return waiting.remove(waiting.iter().position(|l| l.route.is_some()).unwrap_or(0));
    }
    if front.after <= elapsed { waiting.pop_front() } else { None }
}

/// The first attempt that ends, the earlier one when two do.
async fn first(running: &mut [Attempt]) -> (usize, Outcome<Dialled>) {
    poll_fn(|cx| {
        for (n, attempt) in running.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = attempt.going.as_mut().poll(cx) {
                return Poll::Ready((n, outcome));
            }
        }
        Poll::Pending
    })
    .await
}
