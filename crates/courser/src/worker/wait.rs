//! Waiting between turns: looking for a while, then sleeping.

use std::io;
use std::time::Duration;

use courser_core::time::Instant;

use super::machine::Machine;
use super::{Turn, Worker};

/// How a worker looks before it sleeps.
pub(crate) struct Look<'a, M> {
    /// For at least so long, whatever busy polling says.
    pub(crate) least: Duration,
    /// Whether the machine has heard of something.
    pub(crate) has_news: &'a mut dyn FnMut(&mut M) -> bool,
    /// Between one look and the next.
    pub(crate) pause: fn(),
}

impl<M: Machine> Worker<M> {
    /// Waits until another turn is due: something came in, there is room for a kept train, the deadline passed, or
    /// somebody called.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn wait(&mut self, turn: &Turn) -> io::Result<()> {
        let alone = Look { least: Duration::ZERO, has_news: &mut |_| false, pause: std::hint::spin_loop };
        if self.look(turn, alone)? { Ok(()) } else { self.sleep(turn) }
    }

    /// Looks before it sleeps, for datagrams, callers and other news: as long as busy polling says. Whether another turn is
    /// due; otherwise [`sleep`](Self::sleep) is next.
    ///
    /// # Errors
    /// When the socket has failed.
    pub(crate) fn look(&mut self, turn: &Turn, how: Look<'_, M>) -> io::Result<bool> {
        let began = self.clock.now();
        self.waiting_since = began;
        let timeout = turn.deadline.map(|at| at.since(began));
        if self.unread || timeout.is_some_and(|t| t.is_zero()) {
            return Ok(true);
        }
        let busy = if turn.blocked { Duration::ZERO } else { self.busy.begin() };
        let long = busy.max(how.least);
        while !long.is_zero() {
            if let Some(due) = self.look_once((began, long), timeout, how.has_news)? {
                return Ok(due);
            }
            (how.pause)();
        }
        Ok(false)
    }

    /// Looks once; whether a turn is due, or `None` as long as that is open.
    pub(super) fn look_once(
        &mut self,
        (began, long): (Instant, Duration),
        timeout: Option<Duration>,
        has_news: &mut dyn FnMut(&mut M) -> bool,
    ) -> io::Result<Option<bool>> {
        self.unread = self.receive()? > 0;
        if self.unread || self.waker.is_called() || self.machine.is_rung() || has_news(&mut self.machine) {
            self.stats.busy_hits += 1;
            self.busy.hit();
            return Ok(Some(true));
        }
        let looked = self.clock.now().since(began);
        if timeout.is_some_and(|t| looked >= t) {
            return Ok(Some(true));
        }
        if looked >= long {
            self.stats.busy_misses += 1;
            self.busy.missed();
            return Ok(Some(false));
        }
        Ok(None)
    }

    /// Sleeps until another turn is due, after a [look](Self::look) in vain.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub(crate) fn sleep(&mut self, turn: &Turn) -> io::Result<()> {
        if !self.waker.sleep() {
            return Ok(());
        }
        let timeout = turn.deadline.map(|at| at.since(self.clock.now()));
        self.stats.waits += 1;
        let (bell, ears) = (self.waker.bell(), self.machine.ears().0);
        let listens = self.deaf.until().is_none();
        let waited = self.socket.wait((bell, &ears), (listens, turn.blocked), timeout);
        self.waker.woke();
        self.busy.slept(self.clock.now().since(self.waiting_since));
        waited
    }
}
