//! What keeps a connection from sending more, and for how long.
//!
//! Sending stops for exactly one reason at a time. The connection looks at itself where it stops: after each tick and each
//! turn at sending. [`Limits`] remembers the present reason and adds up the time of each; it asks nobody and costs a
//! comparison where nothing changed.
//!
//! ```text
//! is there something that may be said?
//!   yes: may the path take it?   address not proven ─▶ Amplification     window full ─▶ CongestionWindow
//!                                pacer closed ─▶ Pacing                  none of these ─▶ Socket
//!   no:  does data wait?         for the connection's credit ─▶ ConnCredit   for a stream's ─▶ StreamCredit
//!                                no ─▶ Application
//! ```

use core::time::Duration;

use super::transmit::{INITIAL_DATAGRAM_MIN, LEVELS};
use super::{Connection, Env};
use crate::observe::{Event as Observed, Kind, Limit};
use crate::time::{Instant, micros};

/// The present limit of a connection, and how long each one held it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    by: Limit,
    /// When `by` began, or was last counted.
    counted: Instant,
    /// Microseconds of each limit, by its place in [`Limit::ALL`].
    times: [u64; Limit::ALL.len()],
}

impl Limits {
    /// A connection that begins: it has nothing to say.
    #[must_use]
    pub(super) fn starting(now: Instant) -> Self {
        Self { counted: now, ..Self::default() }
    }

    /// What limits the connection now.
    #[must_use]
    pub const fn by(&self) -> Limit {
        self.by
    }

    /// How long that limit held the connection back, all times together.
    #[must_use]
    pub const fn time(&self, limit: Limit) -> Duration {
        Duration::from_micros(self.times[limit as usize])
    }

    /// The limit that took most of the time, apart from the application's own silence; `None` when nothing else did.
    #[must_use]
    pub fn worst(&self) -> Option<Limit> {
        let others = Limit::ALL.into_iter().filter(|l| *l != Limit::Application && self.times[*l as usize] > 0);
        others.max_by_key(|l| self.times[*l as usize])
    }

    /// Counts the time until now, and takes the limit that holds from now on. Says what it was before, if that is another.
    fn step(&mut self, now: Instant, by: Limit) -> Option<(Limit, Duration)> {
        let held = now.since(self.counted);
        let total = &mut self.times[self.by as usize];
        *total = total.saturating_add(micros(held));
        self.counted = self.counted.max(now);
        let before = core::mem::replace(&mut self.by, by);
        (before != by).then_some((before, held))
    }

    /// The times since an earlier look.
    #[must_use]
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut times = self.times;
        for (time, then) in times.iter_mut().zip(earlier.times) {
            *time = time.saturating_sub(then);
        }
        Self { times, ..*self }
    }
}

impl Connection {
    /// Looks at what limits the connection, where sending stops.
    pub(crate) fn note_limit(&mut self, env: &mut Env, now: Instant) {
        let by = self.limit_now(now);
        if let Some((before, held)) = self.stats.limits.step(now, by) {
            env.observe(now, self.key, Kind::Limit, || Observed::Limited { before, held, by });
        }
    }

    fn limit_now(&self, now: Instant) -> Limit {
        if !self.is_open() {
            return Limit::Application;
        }
        if LEVELS.into_iter().any(|level| self.keys.has_send(level) && self.has_eliciting(level)) {
            // Less room than for a full datagram is none for a handshake.
            return if self.path.room() < INITIAL_DATAGRAM_MIN {
                Limit::Amplification
            } else if !self.window_allows() {
                Limit::CongestionWindow
            } else if self.paced_until.is_some_and(|at| at > now) {
                Limit::Pacing
            } else {
                Limit::Socket
            };
        }
        if self.streams.waits_for_conn_credit() {
            Limit::ConnCredit
        } else if self.streams.waits_for_stream_credit() {
            Limit::StreamCredit
        } else {
            Limit::Application
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    #[test]
    fn every_microsecond_belongs_to_one_limit() {
        let mut l = Limits::starting(at(100));
        assert_eq!((l.by(), l.worst()), (Limit::Application, None));
        assert_eq!(l.step(at(150), Limit::Pacing), Some((Limit::Application, Duration::from_micros(50))));
        assert_eq!(l.step(at(170), Limit::Pacing), None);
        assert_eq!(l.step(at(200), Limit::Socket), Some((Limit::Pacing, Duration::from_micros(30))));
        assert_eq!(l.step(at(199), Limit::Socket), None, "time does not go back");
        assert_eq!(l.step(at(205), Limit::Application), Some((Limit::Socket, Duration::from_micros(5))));
        assert_eq!(l.time(Limit::Pacing), Duration::from_micros(50));
        let sum: u64 = l.times.iter().sum();
        assert_eq!(sum, 105);
        assert_eq!(l.worst(), Some(Limit::Pacing));
    }

    #[test]
    fn the_difference_of_two_looks_is_the_time_between() {
        let mut l = Limits::starting(at(0));
        l.step(at(10), Limit::ConnCredit);
        let earlier = l;
        l.step(at(40), Limit::Application);
        let d = l.since(&earlier);
        assert_eq!(
            (d.time(Limit::ConnCredit), d.time(Limit::Application)),
            (Duration::from_micros(30), Duration::ZERO)
        );
        assert_eq!(d.by(), Limit::Application);
    }
}
