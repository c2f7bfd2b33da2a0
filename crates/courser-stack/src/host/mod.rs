//! Applications, their endpoints, and what they may have.

mod application;
mod command;
mod config;
mod counts;
mod endpoint;
mod heritage;
mod local;
mod numbers;
mod objects;
mod tables;
mod trace;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use courser_session::control::{Attached, Fault, Notice, Open};
use courser_session::port::EventBell;
pub(crate) use courser_session::stack::Refused;
use courser_session::stack::{self, Attachment, Stack};

pub use application::Who;
pub(crate) use application::{Application, Ends, Made};
pub use config::{Config, NoPlace, Place, Quota, Rule};
pub(crate) use heritage::Heritage;
pub use objects::Object;

use counts::Counts;
use trace::Trace;

/// What serves applications. Clones are the same host; the last one ends every application that is left.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

struct Shared {
    config: Config,
    enabled: AtomicBool,
    draining: AtomicBool,
    /// A successor serves in this one's place.
    succeeded: AtomicBool,
    /// What programs had at services before this one.
    heritage: Arc<Heritage>,
    /// Numbers given to applications.
    given: AtomicU64,
    applications: Mutex<BTreeMap<u64, Arc<Application>>>,
    counts: Counts,
    trace: Trace,
    /// Where connections are traced.
    traced: Mutex<Option<PathBuf>>,
    /// The debug command line's own echo servers.
    echoes: Mutex<Vec<crate::echo::Server>>,
}

impl Host {
    /// A host without applications.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (enabled, traced) = (AtomicBool::new(config.enabled), Mutex::new(config.trace.clone()));
        Self(Arc::new(Shared {
            config,
            enabled,
            draining: AtomicBool::new(false),
            succeeded: AtomicBool::new(false),
            heritage: Arc::default(),
            given: AtomicU64::new(0),
            applications: Mutex::default(),
            counts: Counts::default(),
            trace: Trace::default(),
            traced,
            echoes: Mutex::default(),
        }))
    }

    /// Attaches an application of this process.
    ///
    /// # Errors
    /// See [`Fault`]: sessions are not enabled, too many applications, no descriptor.
    pub fn attach(&self, name: &str) -> Result<Attachment, Refused> {
        let application = self.enter(name, Who::Here)?;
        let (bell, limits) = (application.bell.clone(), self.limits(&application));
        let control = Box::new(local::Local::new(self.clone(), application));
        Ok(Attachment { control, bell, limits })
    }

    /// The calls of an application of this process.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn stack(&self, name: &str) -> Result<Stack, stack::Error> {
        Stack::over(self.attach(name)?)
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// From now on applications and endpoints are taken, or refused; those that there are go on.
    pub fn enable(&self, enabled: bool) {
        self.0.enabled.store(enabled, Ordering::Release);
        self.note(if enabled { "sessions are enabled" } else { "sessions are disabled" }.to_owned());
    }

    /// Whether applications and endpoints are taken.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.enabled.load(Ordering::Acquire)
    }

    /// No application and no endpoint is taken any more.
    pub fn begin_drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.note("draining".to_owned());
    }

    /// The same, because a successor takes them from now on; applications are told.
    pub(crate) fn begin_succession(&self) {
        self.0.succeeded.store(true, Ordering::Release);
        self.begin_drain();
        self.tell_all(&Notice::Succeeded);
    }

    pub(crate) fn is_succeeded(&self) -> bool {
        self.0.succeeded.load(Ordering::Acquire)
    }

    /// Whether nothing new is taken any more: the host ends, or a successor has its place.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    pub(crate) fn heritage(&self) -> &Arc<Heritage> {
        &self.0.heritage
    }

    /// How many applications there are.
    #[must_use]
    pub fn applications(&self) -> usize {
        self.lock().len()
    }

    /// Takes an application in.
    pub(crate) fn enter(&self, name: &str, who: Who) -> Result<Arc<Application>, Refused> {
        let entered = self.try_enter(name, who);
        match &entered {
            Ok(application) => self.note(format!("application {} ({name}) attached: {who}", application.id)),
            Err(e) => self.refuse(e, &format!("attaching {name} ({who})")),
        }
        entered
    }

    fn try_enter(&self, name: &str, who: Who) -> Result<Arc<Application>, Refused> {
        self.open_for_business()?;
        let bell = EventBell::new().map_err(|e| refused(Fault::System, &format!("no descriptor: {e}")))?;
        let mut applications = self.lock();
        let config = &self.0.config;
        if applications.len() >= config.applications_max {
            let why = format!("{} applications are attached, which is the limit", applications.len());
            return Err(refused(Fault::Quota, &why));
        }
        let same = |application: &&Arc<Application>| who.user().is_some() && application.who.user() == who.user();
        if applications.values().filter(same).count() >= config.per_user_max {
            let why = format!("this user has {} applications attached, which is the limit", config.per_user_max);
            return Err(refused(Fault::Quota, &why));
        }
        let id = self.0.given.fetch_add(1, Ordering::Relaxed) + 1;
        let application = Arc::new(Application::new(id, name.to_owned(), who, bell));
        applications.insert(id, Arc::clone(&application));
        Ok(application)
    }

    fn open_for_business(&self) -> Result<(), Refused> {
        if self.is_draining() {
            return Err(refused(Fault::Draining, "the service ends; attach to its successor"));
        }
        if !self.is_enabled() {
            return Err(refused(Fault::Disabled, "sessions are not enabled; say `session enable` to the service"));
        }
        Ok(())
    }

    pub(crate) fn limits(&self, application: &Application) -> Attached {
        let quota = &self.0.config.quota;
        Attached {
            application: application.id,
            endpoints_max: quota.endpoints,
            sessions_max: quota.sessions,
            memory_max: quota.memory,
        }
    }

    /// Opens an endpoint for an application.
    pub(crate) fn open(&self, application: &Application, what: &Open) -> Result<Made, Refused> {
        let traced = self.0.traced.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let made = self
            .open_for_business()
            .and_then(|()| application.open((&self.0.config, &self.0.heritage), traced.as_deref(), what));
        let doing = format!("{} {} for application {}", what.protocol.name(), role(what), application.id);
        match &made {
            Ok(made) => self.note(format!("endpoint {}: {doing}, at {}", made.endpoint, made.local)),
            Err(e) => self.refuse(e, &doing),
        }
        made
    }

    /// An application is gone: all that it had ends before this returns.
    pub(crate) fn leave(&self, application: &Application, why: &str) {
        // Listed until its sessions are gone, so that nobody takes what still ends for a leak.
        application.end();
        if self.lock().remove(&application.id).is_some() {
            self.note(format!("application {} ({}) is gone: {why}", application.id, application.name));
        }
    }

    /// Tells every application of other processes something.
    pub(crate) fn tell_all(&self, notice: &Notice) {
        self.listed().iter().for_each(|application| application.tell(notice));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Application>>> {
        self.0.applications.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed(&self) -> Vec<Arc<Application>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn note(&self, what: String) {
        tracing::info!(target: "courser::stack", "{what}");
        self.0.trace.note(what);
    }

    pub(crate) fn refuse(&self, e: &Refused, doing: &str) {
        self.0.counts.refused(e.fault);
        self.note(format!("refused: {doing}: {}", e.text));
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("applications", &self.applications()).finish_non_exhaustive()
    }
}

pub(crate) fn refused(fault: Fault, text: &str) -> Refused {
    Refused { fault, text: text.to_owned() }
}

fn role(what: &Open) -> &'static str {
    match what.role {
        courser_session::control::Role::Listen(_) => "listener",
        courser_session::control::Role::Dial(_) => "dialler",
    }
}
