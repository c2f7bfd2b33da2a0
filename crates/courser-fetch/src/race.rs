//! HTTP/3 against TCP (RFC 9114 section 3.1.1 leaves it to clients): QUIC begins, and gets a head start that pays for a
//! round trip of most paths; then TCP runs beside it, and the first connection that stands carries the requests. A
//! network that drops UDP costs the head start once: what did not answer is left alone for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::task::AbortHandle;

use crate::alt_svc::cache::Cache;
use crate::alt_svc::{self, Origin};
use crate::error::{Error, Outcome};
use crate::options::{Http, Options};
use crate::via::{Boxed, Dial, Dialled, Target};

/// A cache that connections share.
pub type Shared = Arc<Mutex<Cache>>;

/// The cache, whatever became of others that held it.
pub fn lock(cache: &Shared) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes connections.
#[derive(Debug)]
pub struct Racer {
    options: Arc<Options>,
    tcp: Arc<dyn Dial>,
    quic: Option<Arc<dyn Dial>>,
    cache: Shared,
    network: Option<std::net::IpAddr>,
    /// Attempts over QUIC that lost: as many as races that TCP won.
    late: Mutex<Vec<AbortHandle>>,
}

/// An alternative that is in the race.
#[derive(Clone, Debug)]
struct Entry {
    origin: Origin,
    host: Option<String>,
    port: u16,
}

impl Racer {
    /// A racer with these ways.
    #[must_use]
    pub fn new(options: Arc<Options>, tcp: Arc<dyn Dial>, quic: Option<Arc<dyn Dial>>, cache: Shared) -> Self {
        Self { options, tcp, quic, cache, network: alt_svc::network(), late: Mutex::default() }
    }

    /// Where alternatives are remembered.
    #[must_use]
    pub const fn cache(&self) -> &Shared {
        &self.cache
    }

    /// The network in which this runs.
    #[must_use]
    pub const fn network(&self) -> Option<std::net::IpAddr> {
        self.network
    }

    /// A connection for an origin.
    ///
    /// # Errors
    /// Of the way that is the last hope.
    pub async fn connect(&self, origin: &Origin) -> Outcome<Dialled> {
        let known = {
            let cache = lock(&self.cache);
            cache.find(origin, self.network, SystemTime::now()).map(|k| (k.host.clone(), k.port))
        };
        let entry = known.map(|(host, port)| Entry { origin: origin.clone(), host, port });
        let itself = Entry { origin: origin.clone(), host: None, port: origin.port };
        let tcp = || self.tcp.dial(Target::itself(origin));
        match (self.options.http, &self.quic, entry) {
            (Http::Only3, None, _) => Err(Error::Usage("this build has no HTTP/3".into())),
            (Http::Only3, Some(quic), Some(entry)) => match self.only(quic, entry).await {
                Err(Error::NoAnswer { .. }) => self.only(quic, itself).await,
                outcome => outcome,
            },
            (Http::Only3, Some(quic), None) => self.only(quic, itself).await,
            (Http::Auto, Some(quic), Some(entry)) => self.race(quic, entry).await,
            (Http::Prefer3, Some(quic), entry) => self.race(quic, entry.unwrap_or(itself)).await,
            (Http::Never3, ..) | (_, None, _) | (Http::Auto, _, None) => tcp().await,
        }
    }

    async fn only(&self, quic: &Arc<dyn Dial>, entry: Entry) -> Outcome<Dialled> {
        let outcome = quic.dial(entry.target()).await;
        self.judge(&entry, outcome)
    }

    /// Both attempts are futures of this one: who gives up waiting gives both up.
    async fn race(&self, quic: &Arc<dyn Dial>, entry: Entry) -> Outcome<Dialled> {
        let mut first = quic.dial(entry.target());
        if let Ok(outcome) = tokio::time::timeout(self.options.head_start, &mut first).await {
            return match self.judge(&entry, outcome) {
                Ok(dialled) => Ok(dialled),
                Err(_) => self.tcp.dial(Target::itself(&entry.origin)).await,
            };
        }
        let mut second = self.tcp.dial(Target::itself(&entry.origin));
        tokio::select! {
            biased;
            outcome = &mut first => match self.judge(&entry, outcome) {
                Ok(dialled) => Ok(dialled),
                Err(_) => second.await,
            },
            outcome = &mut second => match outcome {
                Ok(dialled) => {
                    self.leave_behind(first, entry);
                    Ok(dialled)
                }
                // Why TCP failed says more, but QUIC may still come.
                Err(e) => self.judge(&entry, first.await).map_err(|_| e),
            },
        }
    }

    /// TCP was faster. QUIC counts as broken unless it still answers.
    fn leave_behind(&self, late: Boxed<'static, Outcome<Dialled>>, entry: Entry) {
        lock(&self.cache).broke(&entry.origin, entry.host.as_deref(), entry.port, SystemTime::now());
        let cache = self.cache.clone();
        let watch = tokio::spawn(async move {
            if let Ok(dialled) = late.await {
                lock(&cache).works(&entry.origin, entry.host.as_deref(), entry.port);
                dialled.via.close().await;
            }
        });
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain(|task| !task.is_finished());
        late.push(watch.abort_handle());
    }

    /// Gives up attempts that lost and still go on.
    pub fn close(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        late.iter().for_each(AbortHandle::abort);
    }

    fn judge(&self, entry: &Entry, outcome: Outcome<Dialled>) -> Outcome<Dialled> {
        let mut cache = lock(&self.cache);
        match outcome {
            Ok(mut dialled) => {
                cache.works(&entry.origin, entry.host.as_deref(), entry.port);
                let same =
                    entry.host.as_ref().is_none_or(|h| *h == entry.origin.host) && entry.port == entry.origin.port;
                dialled.alternative = (!same).then(|| (entry.host.clone(), entry.port));
                Ok(dialled)
            }
            Err(e) => {
                cache.broke(&entry.origin, entry.host.as_deref(), entry.port, SystemTime::now());
                Err(e)
            }
        }
    }
}

impl Entry {
    fn target(&self) -> Target {
        Target::alternative(&self.origin, self.host.as_deref(), self.port)
    }
}
