//! When a task's next turn is due though nothing happens.
//!
//! The timer is only ever moved to an earlier time: one that goes off early costs a turn in which nothing happens, moving
//! it costs more each time. The runtime's own timers go by milliseconds. What is due sooner, as a paced packet is, waits
//! for a timer of the system where there is one to be had as a descriptor (Linux), and a millisecond elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Waits shorter than this are for the system's timer.
const SHORT: Duration = Duration::from_millis(1);

/// When the next turn is due though nothing happens.
#[derive(Default)]
pub(super) struct Timer {
    coarse: Coarse,
    fine: Fine,
}

impl Timer {
    /// Sees to it that it goes off after this time at the latest. Without one, and for a time too far away to be counted,
    /// it stays as it is.
    pub(super) fn set(&mut self, after: Option<Duration>) {
        let now = Instant::now();
        let Some((after, at)) = after.and_then(|t| Some((t, now.checked_add(t)?))) else { return };
        let set = [self.coarse.at, self.fine.at].into_iter().flatten().min();
        if set.is_some_and(|set| set <= at) {
            return;
        }
        if after >= SHORT || !self.fine.set(after, at) {
            self.coarse.set(at);
        }
    }

    /// Ready when it went off.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let fine = self.fine.poll(cx);
        if fine.is_ready() { fine } else { self.coarse.poll(cx) }
    }
}

/// The runtime's timer.
#[derive(Default)]
struct Coarse {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it goes off; `None`: it has, or never was set.
    at: Option<Instant>,
}

impl Coarse {
    fn set(&mut self, at: Instant) {
        self.at = Some(at);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(sleep), Some(_)) = (&mut self.sleep, self.at) else { return Poll::Pending };
        let polled = sleep.as_mut().poll(cx);
        if polled.is_ready() {
            self.at = None;
        }
        polled
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use linux::Fine;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use absent::Fine;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// The system's timer.
    #[derive(Default)]
    pub(super) struct Fine {
        fd: Option<AsyncFd<OwnedFd>>,
        pub(super) at: Option<Instant>,
        /// There is none to be had.
        missing: bool,
    }

    fn make() -> io::Result<AsyncFd<OwnedFd>> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        #[allow(deprecated, reason = "the descriptor is owned by what is handed over")]
        AsyncFd::with_interest(fd, Interest::READABLE)
    }

    impl Fine {
        /// `false` when there is no such timer.
        pub(super) fn set(&mut self, after: Duration, at: Instant) -> bool {
            if self.fd.is_none() && !self.missing {
                self.fd = make().ok();
                self.missing = self.fd.is_none();
            }
            let Some(fd) = &self.fd else { return false };
            // Zero would stop it.
            let Ok(it_value) = Timespec::try_from(after.max(Duration::from_nanos(1))) else { return false };
            let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            let set = timerfd_settime(fd.get_ref(), TimerfdTimerFlags::empty(), &spec).is_ok();
            self.at = set.then_some(at);
            set
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let (Some(fd), Some(_)) = (&self.fd, self.at) else { return Poll::Pending };
            loop {
                let Poll::Ready(ready) = fd.poll_read_ready(cx) else { return Poll::Pending };
                let Ok(mut ready) = ready else {
                    // The runtime ends.
                    return Poll::Pending;
                };
                ready.clear_ready();
                let mut count = [0u8; 8];
                // Empty: the news was of an earlier setting.
                if rustix::io::read(fd.get_ref(), &mut count).is_ok() {
                    self.at = None;
                    return Poll::Ready(());
                }
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod absent {
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::time::Instant;

    /// There is no such timer here.
    #[derive(Default)]
    pub(super) struct Fine {
        pub(super) at: Option<Instant>,
    }

    impl Fine {
        pub(super) fn set(&mut self, _: Duration, _: Instant) -> bool {
            false
        }

        pub(super) fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn it_goes_off_at_the_earliest_time_that_was_set_and_once() {
        run(async {
            let mut timer = Timer::default();
            let began = Instant::now();
            timer.set(Some(Duration::from_secs(60)));
            timer.set(Some(Duration::from_millis(30)));
            timer.set(Some(Duration::from_secs(5)));
            timer.set(None);
            poll_fn(|cx| timer.poll(cx)).await;
            let took = began.elapsed();
            assert!((Duration::from_millis(30)..Duration::from_secs(4)).contains(&took), "{took:?}");
            let again = tokio::time::timeout(Duration::from_millis(20), poll_fn(|cx| timer.poll(cx))).await;
            assert!(again.is_err(), "it went off twice");
        });
    }

    #[test]
    fn short_and_long_waits_take_turns() {
        run(async {
            let mut timer = Timer::default();
            for wait in [200, 50_000, 3_000, 10, 0, 900, 1_100, 1] {
                let wait = Duration::from_micros(wait);
                let began = Instant::now();
                timer.set(Some(wait));
                poll_fn(|cx| timer.poll(cx)).await;
                let took = began.elapsed();
                assert!(took >= wait && took < wait + Duration::from_secs(4), "{took:?} for {wait:?}");
            }
        });
    }

    #[test]
    fn a_setting_that_went_off_unseen_does_not_end_the_next_one() {
        run(async {
            let mut timer = Timer::default();
            timer.set(Some(Duration::from_micros(100)));
            tokio::time::sleep(Duration::from_millis(5)).await;
            // Unseen: nobody polled. It is still due.
            let late = tokio::time::timeout(Duration::from_secs(4), poll_fn(|cx| timer.poll(cx))).await;
            assert!(late.is_ok());
            let began = Instant::now();
            timer.set(Some(Duration::from_micros(800)));
            poll_fn(|cx| timer.poll(cx)).await;
            assert!(began.elapsed() >= Duration::from_micros(800));
        });
    }
}
