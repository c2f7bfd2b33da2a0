//! Waiting: blocking threads wait the way tasks do.
//!
//! Everything that can wait is written once, as a `poll` function that leaves a [`Waker`] behind. A task returns
//! `Pending`; a thread calls [`block`], whose waker unparks it. So both faces share every rule about who is woken when.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Most wakers that one list keeps. Futures that were given up leave theirs behind; at the limit all are woken, and those
/// that still wait come back.
const WAITERS_MAX: usize = 4096;

/// Locks, also after a panic elsewhere: what the locks here guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that waits.
struct Parked {
    thread: Thread,
    rung: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    /// One waker per thread, so that lists of waiters recognise it. Taken out while it is in use.
    static PARKED: RefCell<Option<(Arc<Parked>, Waker)>> = const { RefCell::new(None) };
}

/// Polls until there is a result, or until `timeout` has passed (`None` then).
pub(crate) fn block<T>(timeout: Option<Duration>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let (parked, waker) = PARKED.with(|p| p.borrow_mut().take()).unwrap_or_else(|| {
        let parked = Arc::new(Parked { thread: thread::current(), rung: AtomicBool::new(false) });
        (Arc::clone(&parked), Waker::from(parked))
    });
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    let mut cx = Context::from_waker(&waker);
    let result = loop {
        parked.rung.store(false, Ordering::Release);
        if let Poll::Ready(value) = poll(&mut cx) {
            break Some(value);
        }
        if !park(&parked, deadline) {
            break None;
        }
    };
    PARKED.with(|p| *p.borrow_mut() = Some((parked, waker)));
    result
}

/// Parks until the waker was used; `false` when the time is over.
fn park(parked: &Parked, deadline: Option<Instant>) -> bool {
    while !parked.rung.load(Ordering::Acquire) {
        match deadline {
            None => thread::park(),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                thread::park_timeout(left);
            }
        }
    }
    true
}

/// Those who wait for the same thing.
#[derive(Default)]
pub(crate) struct Waiters(Vec<Waker>);

impl Waiters {
    /// Adds whoever polls, once.
    pub(crate) fn add(&mut self, cx: &Context<'_>) {
        if self.0.iter().any(|w| w.will_wake(cx.waker())) {
            return;
        }
        if self.0.len() >= WAITERS_MAX {
            self.0.drain(..).for_each(Waker::wake);
        }
        self.0.push(cx.waker().clone());
    }

    /// Moves all of them to those who are to be woken.
    pub(crate) fn call(&mut self, woken: &mut Woken) {
        woken.0.append(&mut self.0);
    }
}

/// Leaves whoever polls as the only one who waits.
pub(crate) fn wait_alone(waiter: &mut Option<Waker>, cx: &Context<'_>) {
    match waiter {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiter = Some(cx.waker().clone()),
    }
}

/// Those who are to be woken, collected while locks are held and called when none is any more: at the latest when this
/// is dropped.
#[derive(Default)]
pub(crate) struct Woken(Vec<Waker>);

impl Woken {
    /// Adds one who waited alone.
    pub(crate) fn add(&mut self, waiter: &mut Option<Waker>) {
        self.0.extend(waiter.take());
    }

    /// Wakes them now; whether there was anybody. The list keeps its memory.
    pub(crate) fn wake(&mut self) -> bool {
        let any = !self.0.is_empty();
        self.0.drain(..).for_each(Waker::wake);
        any
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_until_it_is_woken_or_the_time_is_over() {
        let waiters = Arc::new(Mutex::new((false, Waiters::default())));
        let theirs = Arc::clone(&waiters);
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            let mut both = lock(&theirs);
            both.0 = true;
            let mut woken = Woken::default();
            both.1.call(&mut woken);
            drop(both);
            drop(woken);
        });
        let polled = block(None, |cx| {
            let mut both = lock(&waiters);
            both.1.add(cx);
            if both.0 { Poll::Ready(7) } else { Poll::Pending }
        });
        assert_eq!(polled, Some(7));
        other.join().unwrap();
        let began = Instant::now();
        assert_eq!(block(Some(Duration::from_millis(10)), |_| Poll::<()>::Pending), None);
        assert!(began.elapsed() >= Duration::from_millis(10));
    }

    #[test]
    fn a_list_keeps_a_waiter_once_and_never_more_than_its_limit() {
        let mut waiters = Waiters::default();
        block(Some(Duration::ZERO), |cx| {
            waiters.add(cx);
            waiters.add(cx);
            Poll::<()>::Pending
        });
        assert_eq!(waiters.0.len(), 1);
        for _ in 0..WAITERS_MAX * 2 {
            let parked = Arc::new(Parked { thread: thread::current(), rung: AtomicBool::new(false) });
            waiters.add(&Context::from_waker(&Waker::from(parked)));
            assert!(waiters.0.len() <= WAITERS_MAX);
        }
    }
}
