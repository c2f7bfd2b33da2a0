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
    Config, Control, Error,
    clock::Clock,
    keep::Waste,
    lines::Lines,
    name::Names,
    state::{Endpoint, Home, LEFT, Leader, State, Waiter},
};
use crate::{
    control::{Attached, Notice},
    doorbell::{Bell, look_around},
    port::EventBell,
};

pub(super) const BELL: u64 = 0;
pub(super) const CONTROL: u64 = 1;
const NUDGE: u64 = 2;
const TIMER: u64 = 3;
/// Who does not block looks so often at most whether the host has something to say, or is gone.
const GLANCE: Duration = Duration::from_millis(5);
/// The same of those who block, and hear it at once when they sleep.
const LONG_GLANCE: Duration = Duration::from_millis(50);

/// Carries something out elsewhere, some time.
pub(super) type Sweeper = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What there is to do after hosts were listened to.
#[derive(Default)]
struct Heard {
    waste: Waste<Home>,
    /// The newest host has a successor.
    succeeded: bool,
}

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
    lines: Mutex<Lines>,
    /// Of all attachments.
    bells: Mutex<Vec<EventBell>>,
    /// Where a new attachment is to be had; `None` when the program made the first one itself.
    pub(super) home: Option<Config>,
    nudge: EventBell,
    outside: EventBell,
    /// What a leader listens to.
    pub(super) ears: OwnedFd,
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
    pub(super) fn new(
        attachment: super::Attachment,
        look: Duration,
        home: Option<Config>,
    ) -> std::io::Result<Arc<Self>> {
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
            bells: Mutex::new(vec![bell.clone()]),
            lines: Mutex::new(Lines::new(control, bell)),
            home,
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

    pub(super) fn bells(&self) -> MutexGuard<'_, Vec<EventBell>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing that was rung so far is news.
    fn clear_bells(&self) {
        self.bells().iter().for_each(EventBell::clear);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks hosts for something. The state must not be locked.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut Lines) -> T) -> T {
        let mut lines = self.lines();
        let answer = ask(&mut lines);
        self.hear_host(&mut lines);
        drop(lines);
        if self.missed.swap(false, Ordering::SeqCst) {
            self.look_at_host();
        }
        answer
    }

    /// What hosts said unasked.
    pub(super) fn hear_host(&self, lines: &mut Lines) {
        let heard = self.hear_notices(lines);
        self.act_on(lines, heard);
    }

    fn hear_notices(&self, lines: &mut Lines) -> Heard {
        let mut heard = Heard::default();
        let mut notices = Vec::new();
        let newest = lines.newest().generation;
        for line in lines.all() {
            while let Some(notice) = line.control.notice() {
                notices.push((line.generation, notice));
            }
        }
        let gone: Vec<u32> =
            lines.older.iter().filter(|line| line.control.is_gone()).map(|line| line.generation).collect();
        let is_gone = lines.newest().control.is_gone();
        if notices.is_empty() && gone.is_empty() && !is_gone {
            return heard;
        }
        let mut state = self.lock();
        for (generation, notice) in notices {
            match notice {
                Notice::Succeeded => heard.succeeded |= generation == newest,
                Notice::Draining => state.drain_listeners(generation, generation == newest),
                Notice::EndpointGone { endpoint, text } => {
                    let at = |known: &Endpoint| known.home == Home { generation, endpoint };
                    let number = state.endpoints.iter().find(|(_, known)| at(known)).map(|(number, _)| *number);
                    number.into_iter().for_each(|number| state.forget_endpoint(number, &text));
                }
            }
        }
        gone.into_iter().for_each(|generation| state.lose(generation));
        if is_gone && !state.gone {
            state.gone = true;
            state.wake_all();
            if let Some(fd) = lines.descriptor() {
                // It stays readable for ever, and everybody knows why.
                let _ = epoll::delete(&self.ears, fd);
                let _ = epoll::delete(&self.watch, fd);
            }
            // A leader that sleeps may not have heard the end itself.
            self.nudge.ring();
        }
        heard.waste = self.give_back(state);
        self.hang_up(lines);
        heard
    }

    /// What hosts said has to be answered, which takes its time.
    fn act_on(&self, lines: &mut Lines, heard: Heard) {
        if !heard.waste.is_empty() {
            self.sweep(lines, heard.waste);
        }
        if heard.succeeded && self.move_on(lines).is_err() {
            // Nobody is there: what there is goes on, and the program is told.
            let past = lines.newest();
            past.is_past = true;
            let generation = past.generation;
            let mut state = self.lock();
            state.drain_listeners(generation, true);
            let waste = self.give_back(state);
            self.sweep(lines, waste);
        }
    }

    /// Gives back to hosts what nobody needs, and lets go of those at which nothing is left.
    pub(super) fn sweep(&self, lines: &mut Lines, waste: Waste<Home>) {
        lines.give_back(waste);
        self.hang_up(lines);
    }

    /// Does what may take its time: here, or elsewhere if no thread may wait.
    fn later(&self, job: impl FnOnce(&Self) + Send + 'static) {
        match self.sweeper.get() {
            None => job(self),
            Some(sweeper) => {
                let me = Weak::clone(&self.me);
                sweeper(Box::new(move || {
                    if let Some(me) = me.upgrade() {
                        job(&me);
                    }
                }));
            }
        }
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
    pub(super) fn give_back(&self, mut state: MutexGuard<'_, State>) -> Waste<Home> {
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
        let waste = std::mem::take(&mut state.waste);
        let mut homes = Vec::new();
        for number in waste.endpoints {
            // Each once, and nothing that found a user again meanwhile.
            let known = state.endpoints.get(&number);
            if let Some(home) = known.filter(|known| !known.dials || known.is_spare()).map(|known| known.home) {
                homes.push(home);
            } else if state.is_left(number) {
                homes.extend(state.endpoints.get(&number).map(|known| known.home));
            } else {
                continue;
            }
            state.forget_endpoint(number, LEFT);
        }
        Waste { endpoints: homes, certificates: waste.certificates }
    }

    /// Gives the lock back at the end of a call.
    pub(super) fn leave(&self, state: MutexGuard<'_, State>) {
        let waste = self.give_back(state);
        if !waste.is_empty() {
            self.later(move |stack| stack.ask(|lines| stack.sweep(lines, waste)));
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
            let glance = if patience.nonblocking { GLANCE } else { LONG_GLANCE };
            if !state.has_tasks && state.glanced.is_none_or(|at| at.elapsed() > glance) {
                // Who never sleeps, because he does not block or always has something to do, hears of the host here.
                state.glanced = Some(Instant::now());
                drop(state);
                self.glance_at_host();
                state = self.lock();
                continue;
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
                BELL => self.clear_bells(),
                NUDGE => self.nudge.clear(),
                CONTROL => self.look_at_host(),
                // What is due is found by whoever looks for messages, who sets the timer again.
                _ => {}
            }
        }
    }

    pub(super) fn look_at_host(&self) {
        self.hear_host(&mut self.lines());
    }

    /// The same, but nobody waits for somebody who asks the host something, who then listens instead; nor does a task wait
    /// for a host's answer.
    pub(super) fn glance_at_host(&self) {
        self.missed.store(true, Ordering::SeqCst);
        let Ok(mut lines) = self.lines.try_lock() else { return };
        self.missed.store(false, Ordering::SeqCst);
        let heard = self.hear_notices(&mut lines);
        if self.sweeper.get().is_none() {
            return self.act_on(&mut lines, heard);
        }
        drop(lines);
        if heard.succeeded || !heard.waste.is_empty() {
            self.later(move |stack| stack.ask(|lines| stack.act_on(lines, heard)));
        }
    }

    /// The same for a call that does not wait, when nobody has looked for a while.
    pub(super) fn glance_when_due(&self) {
        let mut state = self.lock();
        if !state.has_tasks && state.glanced.is_none_or(|at| at.elapsed() > GLANCE) {
            state.glanced = Some(Instant::now());
            drop(state);
            self.glance_at_host();
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
            self.clear_bells();
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

    /// A host is gone, at which something lived still.
    fn lose(&mut self, generation: u32) {
        let there = |(number, endpoint): (&u32, &Endpoint)| (endpoint.home.generation == generation).then_some(*number);
        let theirs: Vec<u32> = self.endpoints.iter().filter_map(there).collect();
        for number in theirs {
            self.forget_endpoint(number, "the service that had it is gone");
        }
    }
}
