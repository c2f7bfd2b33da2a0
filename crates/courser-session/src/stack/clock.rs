//! What happens by the clock: the next address of a name is tried, an attempt is given up, an endpoint that nobody used is
//! closed, and so is the old part of a listener that moved. The system's timer is set to the earliest date and is one of the descriptors that a stack waits for, inside and
//! outside of its calls.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// What a date is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A session that is being connected.
    Session(u64),
    /// An endpoint that nobody uses.
    Endpoint(u32),
    /// Listeners that have moved to another host.
    Listeners,
}

/// Dates, and the timer for the earliest of them.
#[derive(Debug)]
pub(super) struct Clock {
    timer: OwnedFd,
    dates: BTreeSet<(Instant, Due)>,
}

impl Clock {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Monotonic, flags)?, dates: BTreeSet::new() })
    }

    /// Readable when a date has come and was not taken.
    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    pub(super) fn put(&mut self, at: Instant, due: Due) {
        self.dates.insert((at, due));
        if self.dates.first() == Some(&(at, due)) {
            self.set();
        }
    }

    pub(super) fn remove(&mut self, at: Instant, due: Due) {
        let was_first = self.dates.first() == Some(&(at, due));
        if self.dates.remove(&(at, due)) && was_first {
            self.set();
        }
    }

    pub(super) fn has_due(&self) -> bool {
        self.dates.first().is_some_and(|(at, _)| *at <= Instant::now())
    }

    /// The next date that has come.
    pub(super) fn take(&mut self) -> Option<Due> {
        if !self.has_due() {
            return None;
        }
        let (_, due) = self.dates.pop_first()?;
        self.set();
        Some(due)
    }

    /// Setting the timer also makes it unreadable.
    fn set(&self) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let rest = self.dates.first().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        // Nothing would stop it.
        let rest = rest.map(|rest| rest.max(Duration::from_nanos(1)));
        let value = rest.map_or(Ok(zero), Timespec::try_from).unwrap_or(zero);
        let _ = timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: value },
        );
    }
}
