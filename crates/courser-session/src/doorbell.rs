//! Doorbells: waking the other side only when it sleeps.
//!
//! A bell costs a system call, so it is rung only when somebody listens. The side that publishes work first publishes,
//! then fences, then looks whether the other sleeps. The side that wants to sleep first says so, then fences, then looks
//! once more for work. Whatever the order of the two, at least one of them sees the other: either the publisher rings,
//! or the sleeper finds the work and stays awake. No wake-up is lost, and a busy sleeper never costs a ring.
//!
//! A sleeper says *what* it waits for: new messages, or room for messages that did not fit. Somebody who only makes
//! room does not wake a side that waits for messages.
//!
//! What the bell is — an eventfd, a thread's token, a waker — is the business of whoever sleeps; [`Alarm`] serves
//! blocking threads and tasks.

use core::fmt;
use std::{
    sync::Arc as StdArc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use crate::sync::{Arc, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, fence};

/// Wakes a sleeper. May be called when nobody sleeps, and from any thread; must not block.
pub trait Bell: Send + Sync {
    /// Makes the sleeper's current or next sleep end.
    fn ring(&self);
}

/// What a sleeper waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u32);

impl Interest {
    /// New messages.
    pub const MESSAGES: Self = Self(1);
    /// Room for messages that did not fit.
    pub const ROOM: Self = Self(2);
    /// Either.
    pub const ANY: Self = Self(3);

    /// Both interests together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Looks until `is_done` or for that long; whether it was done. At least one look is taken.
///
/// A side that expects news soon looks around before it arms its bell: a ring and the wake-up that follows cost both
/// sides far more than a message. It keeps its processor busy meanwhile, hence the time should be a few wake-ups' worth;
/// whoever else wants to run there has its turn in between, since that may be the side that is waited for.
pub fn look_around(time: Duration, mut is_done: impl FnMut() -> bool) -> bool {
    /// The clock is read once per so many looks, since reading it takes longer than a look.
    const LOOKS: u32 = 64;
    if is_done() {
        return true;
    }
    let start = (!time.is_zero()).then(Instant::now);
    while start.is_some_and(|start| start.elapsed() < time) {
        for _ in 0..LOOKS {
            if is_done() {
                return true;
            }
            core::hint::spin_loop();
        }
        std::thread::yield_now();
    }
    false
}

/// The ringer's look at the word by which the sleeper says what it waits for (0: nothing, it is awake), after the news was
/// published. Whether the bell is to be rung. The word may lie in memory that another process writes: any value is harmless.
pub(crate) fn rouses(asleep: &AtomicU64, news: Interest) -> bool {
    // Pairs with the fence in `doze`: what was published before is seen by a sleeper that this side does not see sleeping.
    fence(Ordering::SeqCst);
    // The swap decides between several ringers: one rings, the others save it.
    asleep.load(Ordering::Relaxed) & u64::from(news.0) != 0 && asleep.swap(0, Ordering::AcqRel) != 0
}

/// The sleeper says that it is about to sleep; it must look for work afterwards.
pub(crate) fn doze(asleep: &AtomicU64, interest: Interest) {
    // A swap rather than a store, here and below: it takes its place after a ringer's swap in one order that all agree on.
    // Whoever goes to sleep can afford it.
    asleep.swap(u64::from(interest.0), Ordering::AcqRel);
    // Pairs with the fence in `rouses`: a ringer that does not see the flag published its work before, and the caller's look
    // that follows sees that work.
    fence(Ordering::SeqCst);
}

/// The sleeper is awake. Whether it was still thought to sleep; otherwise a ring was given, or is on its way.
pub(crate) fn wakes(asleep: &AtomicU64) -> bool {
    asleep.swap(0, Ordering::AcqRel) != 0
}

/// What the two sides share.
struct Door {
    /// Interests of the sleeper; 0 while it is awake.
    asleep: AtomicU64,
    bell: StdArc<dyn Bell>,
}

/// A door: whoever has work for the sleeper holds a ringer. There may be many ringers, but only one sleeper.
#[must_use]
pub fn doorbell(bell: StdArc<dyn Bell>) -> (Ringer, Sleeper) {
    let door = Arc::new(Door { asleep: AtomicU64::new(0), bell });
    (Ringer { door: Arc::clone(&door), counts: RingCounts::default() }, Sleeper { door })
}

/// How often a ringer had news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// The other side slept, and the bell was rung.
    pub given: u64,
    /// The other side was awake or waited for something else, and no ring was needed.
    pub saved: u64,
}

/// The side that has news.
pub struct Ringer {
    door: Arc<Door>,
    /// Kept here and not at the door: counting must not move a cache line.
    counts: RingCounts,
}

impl Ringer {
    /// Tells the sleeper about news of this kind, which the caller has published already. Whether the bell was rung.
    pub fn notify(&mut self, news: Interest) -> bool {
        let rings = rouses(&self.door.asleep, news);
        if rings {
            self.counts.given += 1;
            self.door.bell.ring();
        } else {
            self.counts.saved += 1;
        }
        rings
    }

    /// Rings and saved rings of this ringer so far.
    #[must_use]
    pub const fn counts(&self) -> RingCounts {
        self.counts
    }
}

/// Another ringer for the same door, with counts of its own.
impl Clone for Ringer {
    fn clone(&self) -> Self {
        Self { door: Arc::clone(&self.door), counts: RingCounts::default() }
    }
}

impl fmt::Debug for Ringer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ringer").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// The side that sleeps.
pub struct Sleeper {
    door: Arc<Door>,
}

impl Sleeper {
    /// Says that this side is about to sleep and wants a ring for news of this kind. The caller must look for work
    /// after this call and before it sleeps, and call [`Self::disarm`] when it is awake again.
    pub fn arm(&mut self, interest: Interest) {
        doze(&self.door.asleep, interest);
    }

    /// Says that this side is awake. A ring that is on its way ends the next sleep at once, which does no harm.
    pub fn disarm(&mut self) {
        wakes(&self.door.asleep);
    }

    /// Sleeps by `block` unless `has_work` finds work after the bell is armed. Whether it slept.
    pub fn sleep(&mut self, interest: Interest, has_work: impl FnOnce() -> bool, block: impl FnOnce()) -> bool {
        self.arm(interest);
        let sleeps = !has_work();
        if sleeps {
            block();
        }
        self.disarm();
        sleeps
    }
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}

/// A bell for blocking threads and for tasks. Rings do not add up: any number of them end one sleep.
pub struct Alarm {
    state: Mutex<AlarmState>,
    rung: Condvar,
    /// Rung as well, for a sleeper that waits for several things, such as an event loop.
    also: Option<StdArc<dyn Bell>>,
}

#[derive(Default)]
struct AlarmState {
    ringing: bool,
    /// The task that waits, when it is a task.
    waker: Option<Waker>,
}

impl Alarm {
    /// A silent alarm.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Mutex::new(AlarmState::default()), rung: Condvar::new(), also: None }
    }

    /// A silent alarm that passes each ring on to another bell.
    #[must_use]
    pub fn with(also: StdArc<dyn Bell>) -> Self {
        Self { also: Some(also), ..Self::new() }
    }

    /// Blocks the thread until a ring, or for that long. Whether it was rung; the ring is used up.
    pub fn block(&self, timeout: Option<Duration>) -> bool {
        let state = self.lock();
        let mut state = match timeout {
            None => wait(&self.rung, state),
            Some(timeout) => wait_for(&self.rung, state, timeout),
        };
        core::mem::take(&mut state.ringing)
    }

    /// Whether it was rung, which uses the ring up; otherwise the task is woken by the next ring.
    pub fn poll_rung(&self, task: &Context<'_>) -> bool {
        let mut state = self.lock();
        if !state.ringing && !state.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            state.waker = Some(task.waker().clone());
        }
        core::mem::take(&mut state.ringing)
    }

    fn lock(&self) -> MutexGuard<'_, AlarmState> {
        // The state is two independent values: a panic elsewhere cannot leave it half changed.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn wait<'a>(rung: &Condvar, mut state: MutexGuard<'a, AlarmState>) -> MutexGuard<'a, AlarmState> {
    while !state.ringing {
        state = rung.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
    state
}

#[cfg(not(all(loom, test)))]
fn wait_for<'a>(rung: &Condvar, state: MutexGuard<'a, AlarmState>, timeout: Duration) -> MutexGuard<'a, AlarmState> {
    rung.wait_timeout_while(state, timeout, |state| !state.ringing).unwrap_or_else(std::sync::PoisonError::into_inner).0
}

/// The model checker has no clock: a timed wait that ends early is the harder case.
#[cfg(all(loom, test))]
fn wait_for<'a>(_: &Condvar, state: MutexGuard<'a, AlarmState>, _: Duration) -> MutexGuard<'a, AlarmState> {
    state
}

impl Bell for Alarm {
    fn ring(&self) {
        let mut state = self.lock();
        state.ringing = true;
        let waker = state.waker.take();
        drop(state);
        self.rung.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(bell) = &self.also {
            bell.ring();
        }
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod look_tests {
    use super::*;

    #[test]
    fn a_look_is_taken_even_without_time_and_ends_as_soon_as_it_finds_something() {
        let mut looks = 0;
        assert!(look_around(Duration::ZERO, || true));
        assert!(!look_around(Duration::ZERO, || {
            looks += 1;
            false
        }));
        assert_eq!(looks, 1);
        assert!(look_around(Duration::from_secs(600), || {
            looks += 1;
            looks == 1000
        }));
        assert_eq!(looks, 1000);
        assert!(!look_around(Duration::from_millis(1), || false));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::*;
    use crate::ring::channel;

    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let alarm = StdArc::new(Alarm::new());
            let (mut ringer, mut sleeper) = doorbell(StdArc::clone(&alarm) as StdArc<dyn Bell>);
            let (mut producer, mut consumer) = channel::<u32>(2);
            let writer = thread::spawn(move || {
                for n in 0..2 {
                    producer.push(n).unwrap();
                    ringer.notify(Interest::MESSAGES);
                }
                ringer.counts()
            });
            // A lost wake-up is a deadlock, which the checker reports: nothing else ends the block.
            let (mut got, mut slept) = (Vec::new(), 0);
            while got.len() < 2 {
                if consumer.pop_into(&mut got, 2) == 0 {
                    slept += u64::from(sleeper.sleep(
                        Interest::MESSAGES,
                        || !consumer.is_empty(),
                        || {
                            alarm.block(None);
                        },
                    ));
                }
            }
            let counts = writer.join().unwrap();
            assert_eq!(got, [0, 1]);
            assert_eq!(counts.given + counts.saved, 2);
            assert!(slept <= counts.given, "every sleep was ended by a ring");
        });
    }

    #[test]
    fn loom_a_producer_that_waits_for_room_is_woken() {
        loom::model(|| {
            let alarm = StdArc::new(Alarm::new());
            let (mut ringer, mut sleeper) = doorbell(StdArc::clone(&alarm) as StdArc<dyn Bell>);
            let (mut producer, mut consumer) = channel::<u32>(1);
            let reader = thread::spawn(move || {
                let mut got = Vec::new();
                while got.len() < 2 {
                    match consumer.pop() {
                        Some(n) => {
                            got.push(n);
                            ringer.notify(Interest::ROOM);
                        }
                        None => thread::yield_now(),
                    }
                }
                got
            });
            for n in 0..2 {
                while producer.push(n).is_err() {
                    sleeper.sleep(
                        Interest::ROOM,
                        || producer.has_room(),
                        || {
                            alarm.block(None);
                        },
                    );
                }
            }
            assert_eq!(reader.join().unwrap(), [0, 1]);
        });
    }

    #[test]
    fn loom_of_two_ringers_at_least_one_wakes_the_sleeper() {
        // Three threads have too many interleavings; one preemption at any place is the case that matters.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(1);
        model.check(|| {
            let alarm = StdArc::new(Alarm::new());
            let (ringer, mut sleeper) = doorbell(StdArc::clone(&alarm) as StdArc<dyn Bell>);
            let mut rings = Vec::new();
            let mut sources = Vec::new();
            for n in 0..2 {
                let (mut producer, consumer) = channel::<u32>(1);
                let mut ringer = ringer.clone();
                rings.push(consumer);
                sources.push(thread::spawn(move || {
                    producer.push(n).unwrap();
                    ringer.notify(Interest::MESSAGES);
                }));
            }
            let mut got = 0;
            while got < 2 {
                got += rings.iter_mut().filter_map(crate::ring::Consumer::pop).count();
                if got < 2 {
                    let work = || rings.iter_mut().any(|ring| !ring.is_empty());
                    sleeper.sleep(Interest::MESSAGES, work, || {
                        alarm.block(None);
                    });
                }
            }
            for source in sources {
                source.join().unwrap();
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        task::Wake,
        thread,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Bell for Count {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Wake for Count {
        fn wake(self: StdArc<Self>) {
            self.ring();
        }
    }

    #[test]
    fn the_bell_is_rung_only_for_a_sleeper_who_waits_for_such_news() {
        let bell = StdArc::new(Count::default());
        let (mut ringer, mut sleeper) = doorbell(bell.clone());
        assert!(!ringer.notify(Interest::ANY), "awake");
        sleeper.arm(Interest::MESSAGES);
        assert!(!ringer.notify(Interest::ROOM), "waits for something else");
        assert!(ringer.notify(Interest::MESSAGES));
        assert!(!ringer.notify(Interest::MESSAGES), "one ring is enough");
        sleeper.arm(Interest::MESSAGES.and(Interest::ROOM));
        sleeper.disarm();
        assert!(!ringer.notify(Interest::ANY), "awake again");
        assert_eq!(ringer.counts(), RingCounts { given: 1, saved: 4 });
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert_eq!(ringer.clone().counts(), RingCounts::default());
    }

    #[test]
    fn a_sleeper_who_finds_work_does_not_sleep() {
        let (_ringer, mut sleeper) = doorbell(StdArc::new(Count::default()));
        assert!(!sleeper.sleep(Interest::ANY, || true, || panic!("there was work")));
        let mut slept = false;
        assert!(sleeper.sleep(Interest::ANY, || false, || slept = true));
        assert!(slept);
    }

    #[test]
    fn a_ring_before_the_block_ends_it_and_is_used_up() {
        let alarm = Alarm::new();
        alarm.ring();
        alarm.ring();
        assert!(alarm.block(None));
        assert!(!alarm.block(Some(Duration::from_millis(1))), "any number of rings end one sleep");
    }

    #[test]
    fn a_ring_from_another_thread_ends_the_block() {
        let alarm = StdArc::new(Alarm::new());
        let ringing = StdArc::clone(&alarm);
        let other = thread::spawn(move || ringing.ring());
        assert!(alarm.block(Some(Duration::from_secs(60))));
        other.join().unwrap();
    }

    #[test]
    fn a_ring_wakes_the_task_once_and_the_other_bell_each_time() {
        let (task, bell) = (StdArc::new(Count::default()), StdArc::new(Count::default()));
        let alarm = Alarm::with(bell.clone());
        let waker = Waker::from(StdArc::clone(&task));
        let context = Context::from_waker(&waker);
        assert!(!alarm.poll_rung(&context));
        assert!(!alarm.poll_rung(&context));
        alarm.ring();
        alarm.ring();
        assert!(alarm.poll_rung(&context));
        assert!(!alarm.poll_rung(&context), "used up");
        assert_eq!((task.0.load(Ordering::Relaxed), bell.0.load(Ordering::Relaxed)), (1, 2));
    }
}
