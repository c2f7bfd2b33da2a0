//! Waking a worker that waits.
//!
//! A [`Waker`] may be used from any thread and is cheap when the worker is awake. The state goes round:
//!
//! ```text
//! AWAKE ──sleep──▶ ASLEEP ──wake──▶ CALLED ──woke──▶ AWAKE        (wake rings the bell: one system call)
//! AWAKE ──park───▶ PARKED ──wake──▶ CALLED ──woke──▶ AWAKE        (wake wakes the task that drives the worker)
//! AWAKE ──wake───▶ CALLED ──sleep or park─▶ AWAKE                 (no waiting at all)
//! ```
//!
//! A turn begins with `woke`: it hears whoever called before, so that those calls ask for no further one.
//!
//! Whoever publishes something and wakes afterwards can rely on a whole turn that begins later: either the worker was
//! awake and will not fall asleep before another turn, or the bell wakes it.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task;

use crate::net::os::Bell;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const CALLED: u8 = 2;
const PARKED: u8 = 3;

/// What a worker and its wakers share.
struct Shared {
    state: AtomicU8,
    bell: Bell,
    /// The task that drives the worker, when a task does; locked only around parking.
    task: Mutex<Option<task::Waker>>,
}

/// Makes a worker take another turn.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// A waker for the worker that waits on `udp`.
    pub(crate) fn new(udp: &UdpSocket) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { state: AtomicU8::new(AWAKE), bell: Bell::new(udp)?, task: Mutex::new(None) })))
    }

    /// Makes the worker take another turn, now or after the present one.
    pub fn wake(&self) {
        match self.0.state.swap(CALLED, Ordering::AcqRel) {
            ASLEEP => self.0.bell.ring(),
            PARKED => {
                // It stays for the next time; a wake too many does no harm.
                if let Some(task) = &*crate::wait::lock(&self.0.task) {
                    task.wake_by_ref();
                }
            }
            _ => {}
        }
    }

    /// Whether somebody called since the last turn began.
    pub(crate) fn is_called(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == CALLED
    }

    /// Falls asleep; `false` when somebody called in the meantime, so that another turn is due at once.
    pub(crate) fn sleep(&self) -> bool {
        let slept = self.0.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !slept {
            // An exchange and not a store: what further callers published must be visible to the turn that follows.
            self.0.state.swap(AWAKE, Ordering::AcqRel);
        }
        slept
    }

    /// Falls asleep as a task; ready when somebody called in the meantime.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only tasks park"))]
    pub(crate) fn park(&self, cx: &task::Context<'_>) -> task::Poll<()> {
        crate::wait::wait_alone(&mut crate::wait::lock(&self.0.task), cx);
        match self.0.state.compare_exchange(AWAKE, PARKED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(PARKED) => task::Poll::Pending,
            Err(_) => {
                self.0.state.swap(AWAKE, Ordering::AcqRel);
                task::Poll::Ready(())
            }
        }
    }

    /// The wait is over, for whatever reason, or a turn begins that hears all who called.
    pub(crate) fn woke(&self) {
        self.0.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// What rings while the worker sleeps.
    pub(crate) fn bell(&self) -> &Bell {
        &self.0.bell
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;
    use crate::net::os;

    #[test]
    fn a_call_before_sleep_prevents_it_once() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let waker = Waker::new(&udp).unwrap();
        waker.wake();
        waker.wake();
        assert!(!waker.sleep());
        assert!(waker.sleep());
        waker.woke();
        assert!(waker.sleep());
    }

    #[test]
    fn no_call_is_slept_through() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        let waker = Waker::new(&udp).unwrap();
        let published = Arc::new(AtomicU64::new(0));
        let seen = Arc::new(AtomicU64::new(0));
        let caller = std::thread::spawn({
            let (waker, published, seen) = (waker.clone(), Arc::clone(&published), Arc::clone(&seen));
            move || {
                for n in 1..=2000 {
                    published.store(n, Ordering::Release);
                    waker.wake();
                    while n % 7 == 0 && seen.load(Ordering::Acquire) < n {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let mut waits = 0;
        while seen.load(Ordering::Acquire) < 2000 {
            seen.store(published.load(Ordering::Acquire), Ordering::Release);
            if seen.load(Ordering::Acquire) < 2000 && waker.sleep() {
                // Without a limit a lost call would hang the test; with a generous one it shows as a slow wait.
                let began = std::time::Instant::now();
                os::wait(&udp, (waker.bell(), &[]), false, Some(Duration::from_secs(20))).unwrap();
                assert!(began.elapsed() < Duration::from_secs(15), "a call was slept through");
                waker.woke();
                let _ = udp.recv(&mut [0; 1]);
                waits += 1;
            }
        }
        caller.join().unwrap();
        assert!(waits <= 2000);
    }
}
