//! How threads wait: one of them listens, the others sleep until it tells them.
//!
//! Any number of threads may be in calls that block. The first that has nothing to do becomes the **leader**: it looks
//! around for a moment (a wake-up costs far more than a message), then has the workers ring, looks once more, and sleeps on
//! the bell, the control socket and a nudge. **Followers** sleep on a condition variable each. Whoever takes messages wakes the
//! followers whose sessions they concern; a leader that leaves wakes one follower, which takes its place.
//!
//! The nudge calls a sleeping leader when another thread took the message that it waits for, or needs room in a ring that
//! the leader does not watch. A program that waits outside, for [`Stack::descriptor`](super::Stack::descriptor), has a nudge of its own.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::{Timespec, epoll};

use super::{
    Control, Error,
    clock::Clock,
    keep::Waste,
    name::Names,
    state::{Leader, State, Waiter},
};
use crate::{
    control::{Attached, Notice},
    doorbell::{Bell, look_around},
    port::EventBell,
    reason::{Ended, Reason},
};

const BELL: u64 = 0;
const CONTROL: u64 = 1;
const NUDGE: u64 = 2;
const TIMER: u64 = 3;

/// Carries something out elsewhere, some time.
pub(super) type Sweeper = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What one attempt of a call came to.
pub(super) enum Step<T> {
    Done(Result<T, Error>),
    /// Something has to happen to the session first.
    Wait,
    /// There has to be room in a ring first.
    WaitForRoom,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) nonblocking: bool,
    pub(super) timeout: Option<Duration>,
}

pub(super) struct Inner {
    state: Mutex<State>,
    /// For threads that must not keep the stack alive.
    pub(super) me: Weak<Self>,
    pub(super) names: Mutex<Names>,
    /// Who gives back to the host what is not needed, instead of the thread that notices: where no thread may wait.
    pub(super) sweeper: OnceLock<Sweeper>,
    /// A host was not listened to because somebody else was asking it something.
    missed: AtomicBool,
    /// Never locked by a thread that has the state locked.
    control: Mutex<Box<dyn Control>>,
    bell: EventBell,
    nudge: EventBell,
    outside: EventBell,
    /// What a leader listens to.
    ears: OwnedFd,
    /// What is readable for a program that waits outside.
    pub(super) watch: OwnedFd,
    pub(super) look: Duration,
    pub(super) limits: Attached,
    has_descriptor: bool,
}

fn listen_to(bell: &EventBell, nudge: &EventBell, control: &dyn Control, clock: &Clock) -> rustix::io::Result<OwnedFd> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
    epoll::add(&set, nudge, epoll::EventData::new_u64(NUDGE), epoll::EventFlags::IN)?;
    epoll::add(&set, clock.timer(), epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
    if let Some(control) = control.descriptor() {
        epoll::add(&set, control, epoll::EventData::new_u64(CONTROL), epoll::EventFlags::IN)?;
    }
    Ok(set)
}

impl Inner {
    pub(super) fn new(attachment: super::Attachment, look: Duration) -> std::io::Result<Arc<Self>> {
        let super::Attachment { control, bell, limits } = attachment;
        let (nudge, outside) = (EventBell::new()?, EventBell::new()?);
        let clock = Clock::new()?;
        let ears = listen_to(&bell, &nudge, &*control, &clock)?;
        let watch = listen_to(&bell, &outside, &*control, &clock)?;
        let most = u64::from(limits.sessions_max).saturating_mul(u64::from(limits.endpoints_max));
        let sessions_max = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        let has_descriptor = control.descriptor().is_some();
        let state = Mutex::new(State::new(sessions_max, clock));
        Ok(Arc::new_cyclic(|me| Self {
            state,
            me: Weak::clone(me),
            names: Mutex::default(),
            sweeper: OnceLock::new(),
            missed: AtomicBool::new(false),
            control: Mutex::new(control),
            bell,
            nudge,
            outside,
            ears,
            watch,
            look,
            limits,
            has_descriptor,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere in this process is not made worse by going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the host for something. The state must not be locked.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut dyn Control) -> T) -> T {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = ask(&mut **control);
        self.hear_host(&mut **control);
        drop(control);
        if self.missed.swap(false, Ordering::SeqCst) {
            self.look_at_host();
        }
        answer
    }

    /// What the host said unasked.
    fn hear_host(&self, control: &mut dyn Control) {
        let mut notices = Vec::new();
        while let Some(notice) = control.notice() {
            notices.push(notice);
        }
        let gone = control.is_gone();
        if notices.is_empty() && !gone {
            return;
        }
        let mut state = self.lock();
        for notice in notices {
            match notice {
                Notice::Draining => state.drain_listeners(),
                Notice::EndpointGone { endpoint, text } => state.forget_endpoint(endpoint, &text),
            }
        }
        if gone && !state.gone {
            state.gone = true;
            state.wake_all();
            if let Some(fd) = control.descriptor() {
                // It stays readable for ever, and everybody knows why.
                let _ = epoll::delete(&self.ears, fd);
                let _ = epoll::delete(&self.watch, fd);
            }
            // A leader that sleeps may not have heard the end itself.
            self.nudge.ring();
        }
        self.give_back(state).give_back(control);
    }

    /// Wakes whoever waits for what happened.
    fn tell(&self, state: &mut State) {
        if state.settle() {
            self.nudge.ring();
        }
        if std::mem::take(&mut state.tell_watcher) {
            self.outside.ring();
        }
    }

    /// Gives the lock back: whoever waits for what happened is woken, and somebody listens. What nobody needs any more is
    /// the caller's to give back to the host.
    fn give_back(&self, mut state: MutexGuard<'_, State>) -> Waste {
        if state.leader.is_none() {
            if let Some(next) = state.waiters.first() {
                next.woken.notify_one();
            }
            if state.watched {
                state.arm();
                let news = state.has_news();
                state.tell_watcher |= news;
            }
        }
        self.tell(&mut state);
        let mut waste = std::mem::take(&mut state.waste);
        // Each once, and nothing that found a user again meanwhile.
        waste.endpoints.retain(|endpoint| {
            let known = state.endpoints.get(endpoint).is_some_and(|known| !known.dials || known.is_spare());
            if known {
                state.forget_endpoint(*endpoint, "its endpoint was closed");
            }
            known
        });
        waste
    }

    /// Gives the lock back at the end of a call.
    pub(super) fn leave(&self, state: MutexGuard<'_, State>) {
        let waste = self.give_back(state);
        if waste.is_empty() {
            return;
        }
        match self.sweeper.get() {
            None => self.ask(|control| waste.give_back(control)),
            Some(sweeper) => {
                let me = Weak::clone(&self.me);
                sweeper(Box::new(move || {
                    if let Some(me) = me.upgrade() {
                        me.ask(|control| waste.give_back(control));
                    }
                }));
            }
        }
    }

    /// Repeats `step` until it is done or the patience is at its end. `session` is what it waits for; `None`: any.
    pub(super) fn wait<T>(
        &self,
        session: Option<u64>,
        patience: Patience,
        mut step: impl FnMut(&mut State) -> Step<T>,
    ) -> Result<T, Error> {
        let mut deadline = None;
        let mut state = self.lock();
        let result = loop {
            let room = match step(&mut state) {
                Step::Done(result) => break result,
                Step::Wait => false,
                Step::WaitForRoom => true,
            };
            if state.drain() {
                self.tell(&mut state);
                continue;
            }
            if state.gone {
                break Err(Error::ServiceGone);
            }
            if patience.nonblocking {
                if let (true, Some(session)) = (room, session) {
                    state.hungers(session);
                }
                break Err(Error::WouldBlock);
            }
            let now = Instant::now();
            if deadline.is_none() {
                deadline = patience.timeout.and_then(|timeout| now.checked_add(timeout));
            }
            let rest = deadline.map(|deadline: Instant| deadline.saturating_duration_since(now));
            if rest.is_some_and(|rest| rest.is_zero()) {
                break Err(Error::TimedOut);
            }
            state = match state.leader {
                None => self.lead(state, session, rest),
                Some(_) => self.follow(state, (session, room), rest),
            };
        };
        self.leave(state);
        result
    }

    /// Waits until the leader, or whoever takes messages, says that something happened.
    fn follow<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        (session, room): (Option<u64>, bool),
        rest: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        let woken = Arc::new(Condvar::new());
        state.tickets += 1;
        let ticket = state.tickets;
        state.waiters.push(Waiter { session, room, woken: Arc::clone(&woken), ticket });
        if room && let Some(leader) = &mut state.leader {
            // It may sleep without watching for room there.
            leader.called = true;
            self.nudge.ring();
        }
        let mut state = match rest {
            None => woken.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(rest) => woken.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0,
        };
        if let Some(at) = state.waiters.iter().position(|waiter| waiter.ticket == ticket) {
            state.waiters.remove(at);
        }
        state
    }

    /// Waits for news from the workers, the host or another thread.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        session: Option<u64>,
        rest: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        state.leader = Some(Leader { session, called: false, asleep: false });
        drop(state);
        if !self.has_descriptor {
            self.look_at_host();
        }
        let look = rest.map_or(self.look, |rest| rest.min(self.look));
        let found = !look.is_zero() && look_around(look, || self.glance());
        state = self.lock();
        if !found {
            state.arm();
            let called = state.leader.as_ref().is_some_and(|leader| leader.called);
            if !called && !state.has_news() {
                state.set_asleep(true);
                drop(state);
                self.sleep(rest.map(|rest| rest.saturating_sub(look)));
                state = self.lock();
                state.set_asleep(false);
            }
            state.disarm();
        }
        state.leader = None;
        state
    }

    /// Whether there is anything to do; a lock that is taken by somebody else says no more than that.
    fn glance(&self) -> bool {
        self.state
            .try_lock()
            .is_ok_and(|mut state| state.leader.as_ref().is_some_and(|leader| leader.called) || state.has_news())
    }

    fn sleep(&self, rest: Option<Duration>) {
        let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
        let mut events = Vec::with_capacity(4);
        // An interrupted sleep ends early, which whoever waits finds out by itself.
        let _ = epoll::wait(&self.ears, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
        for event in events {
            match event.data.u64() {
                BELL => self.bell.clear(),
                NUDGE => self.nudge.clear(),
                CONTROL => self.look_at_host(),
                // What is due is found by whoever looks for messages, who sets the timer again.
                _ => {}
            }
        }
    }

    pub(super) fn look_at_host(&self) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        self.hear_host(&mut **control);
    }

    /// The same, but nobody waits for somebody who asks the host something, who then listens instead.
    pub(super) fn glance_at_host(&self) {
        self.missed.store(true, Ordering::SeqCst);
        if let Ok(mut control) = self.control.try_lock() {
            self.missed.store(false, Ordering::SeqCst);
            self.hear_host(&mut **control);
        }
    }

    /// Whether the outside descriptor is readable.
    #[cfg(feature = "tokio")]
    pub(super) fn is_watch_ready(&self) -> bool {
        let mut events = Vec::with_capacity(1);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.watch, rustix::buffer::spare_capacity(&mut events), Some(&now)).is_ok_and(|count| count > 0)
    }

    /// From now on the outside descriptor tells of news. Whether there is none yet.
    pub(super) fn watch(&self) -> bool {
        let mut state = self.lock();
        self.outside.clear();
        if state.leader.is_none() {
            self.bell.clear();
        }
        state.arm();
        let quiet = !state.has_news() && state.news.is_empty() && !state.gone;
        state.watched = quiet;
        if !quiet && state.leader.is_none() {
            state.disarm();
        }
        quiet
    }
}

impl State {
    fn set_asleep(&mut self, asleep: bool) {
        if let Some(leader) = &mut self.leader {
            leader.asleep = asleep;
        }
    }

    /// Nothing new is taken any more.
    fn drain_listeners(&mut self) {
        self.draining = true;
        let listeners: Vec<u64> = self
            .sessions
            .iter_mut()
            .filter_map(|(session, entry)| entry.listener().is_some().then_some(*session))
            .collect();
        for session in listeners {
            if let Some(entry) = self.sessions.get_mut(&session) {
                entry.end.get_or_insert(Ended::plain(Reason::Draining));
            }
            self.touch(session);
        }
    }
}
