//! The two places where a port's worker can be: another thread, and the service's process.

use std::time::Duration;

use courser::session::{Completion, Interest, Submission, ThreadPort, Waited};
use courser_session::doorbell::look_around;
use courser_session::port::{AppPort, EventBell};

/// A port wherever its worker is.
pub enum Gate {
    /// In a thread of this process.
    Thread(ThreadPort),
    /// In another process, which rings the bell.
    Away {
        /// The port.
        port: Box<dyn AppPort>,
        /// What its worker rings.
        bell: EventBell,
    },
}

impl From<ThreadPort> for Gate {
    fn from(port: ThreadPort) -> Self {
        Self::Thread(port)
    }
}

impl Gate {
    pub fn poll_into(&mut self, into: &mut Vec<Completion>, max: usize) -> usize {
        match self {
            Self::Thread(port) => port.poll_into(into, max),
            Self::Away { port, .. } => port.poll_into(into, max),
        }
    }

    pub fn submit_batch(&mut self, batch: &mut dyn Iterator<Item = Submission>) -> usize {
        match self {
            Self::Thread(port) => port.submit_batch(&mut &mut *batch),
            Self::Away { port, .. } => port.submit_batch(batch),
        }
    }

    /// Looks for news for so long, then sleeps until there are some, or for the rest of the time.
    pub fn look_then_wait(&mut self, look: Duration, timeout: Duration) -> Waited {
        match self {
            Self::Thread(port) => port.look_then_wait(look, Some(timeout)),
            Self::Away { port, bell } => {
                if look_around(look.min(timeout), || port.has_news()) {
                    return news(&mut **port);
                }
                sleep(&mut **port, bell, (Interest::MESSAGES, timeout.saturating_sub(look)))
            }
        }
    }

    /// Sleeps until there are news or room for a submission, or for that long.
    pub fn wait_for_room(&mut self, timeout: Duration) -> Waited {
        match self {
            Self::Thread(port) => port.wait_for_room(Some(timeout)),
            Self::Away { port, bell } => sleep(&mut **port, bell, (Interest::ANY, timeout)),
        }
    }
}

fn news(port: &mut dyn AppPort) -> Waited {
    // What the worker said before it went is still to be polled; the next call finds nothing.
    if port.is_closed() { Waited::Closed } else { Waited::Ready }
}

fn sleep(port: &mut dyn AppPort, bell: &EventBell, (interest, timeout): (Interest, Duration)) -> Waited {
    port.arm(interest);
    let ready = |port: &mut dyn AppPort| port.has_news() || (interest == Interest::ANY && port.has_room());
    if !ready(port) {
        bell.wait(Some(timeout));
    }
    port.disarm();
    if ready(port) { news(port) } else { Waited::TimedOut }
}
