//! The door of a service: where other threads leave ports and orders for it, and read how it does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll};

use courser_session::port::{Fault, WorkerPort};

use super::books::SessionRow;
use crate::estate::Order;
use crate::hub::crew::WorkerFigures;
use crate::wait::{Waiters, Woken, lock};

/// What a service shares with the threads that attach ports to it, and with its operator.
#[derive(Default)]
pub(super) struct Door {
    arrivals: Mutex<Arrivals>,
    /// Whether `arrivals` or one of the flags below has news; spares the worker the lock.
    news: AtomicBool,
    stop: AtomicBool,
    /// No new connections are taken any more.
    draining: AtomicBool,
    figures: Mutex<WorkerFigures>,
    /// What an application did last for which its port was closed.
    fault: Mutex<Option<Fault>>,
    drained: Mutex<Drained>,
}

/// What waits for the worker.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) ports: Vec<WorkerPort>,
    pub(super) orders: Vec<Order>,
    pub(super) questions: Vec<Question>,
    /// The worker is gone and looks no more.
    closed: bool,
}

/// Somebody wants to know which sessions there are.
pub(super) struct Question {
    /// At most so many.
    pub(super) most: usize,
    reply: SyncSender<Vec<SessionRow>>,
}

impl Question {
    pub(super) fn answer(&self, rows: Vec<SessionRow>) {
        // Whoever asked may have given up.
        let _ = self.reply.try_send(rows);
    }
}

/// Whether a worker that takes no new connections has none left.
#[derive(Default)]
struct Drained {
    yes: bool,
    waiters: Waiters,
}

impl Door {
    /// Hands a port to the worker, which has to be woken then. A port for a worker that is gone is closed.
    pub(super) fn attach(&self, port: WorkerPort) {
        let mut arrivals = lock(&self.arrivals);
        if !arrivals.closed {
            arrivals.ports.push(port);
        }
        drop(arrivals);
        self.news.store(true, Ordering::Release);
    }

    /// Hands an order to the worker, which has to be woken then. One for a worker that is gone is dropped.
    pub(super) fn order(&self, order: Order) {
        let mut arrivals = lock(&self.arrivals);
        if !arrivals.closed {
            arrivals.orders.push(order);
        }
        drop(arrivals);
        self.news.store(true, Ordering::Release);
    }

    /// Asks the worker, which has to be woken then, for at most so many of its sessions. The answer comes through the receiver;
    /// none from a worker that is gone.
    pub(super) fn ask(&self, most: usize) -> Receiver<Vec<SessionRow>> {
        let (reply, answer) = sync_channel(1);
        let mut arrivals = lock(&self.arrivals);
        if !arrivals.closed {
            arrivals.questions.push(Question { most, reply });
        }
        drop(arrivals);
        self.news.store(true, Ordering::Release);
        answer
    }

    /// Asks the worker, which has to be woken then, to take no new connections.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.news.store(true, Ordering::Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Ready when a worker that was asked to drain has no connection left, or is gone.
    pub(super) fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        let mut drained = lock(&self.drained);
        if drained.yes {
            return Poll::Ready(());
        }
        drained.waiters.add(cx);
        Poll::Pending
    }

    pub(super) fn set_drained(&self) {
        let mut woken = Woken::default();
        let mut drained = lock(&self.drained);
        drained.yes = true;
        drained.waiters.call(&mut woken);
        // Those who are woken take the lock.
        drop(drained);
    }

    /// What is new for the worker, if anything is.
    pub(super) fn look(&self) -> Option<Arrivals> {
        if !self.news.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut arrivals = lock(&self.arrivals);
        let closed = arrivals.closed;
        Some(std::mem::replace(&mut *arrivals, Arrivals { closed, ..Arrivals::default() }))
    }

    /// Whether there is something new for the worker.
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The worker is gone: whoever comes from now on, or waits, is told at once.
    pub(super) fn shut(&self) {
        let closed = Arrivals { closed: true, ..Arrivals::default() };
        // What is dropped tells those who wait, who may take the lock.
        let left = std::mem::replace(&mut *lock(&self.arrivals), closed);
        drop(left);
        self.set_drained();
    }

    pub(super) fn is_gone(&self) -> bool {
        lock(&self.arrivals).closed
    }

    /// The worker's figures, as it published them last.
    pub(super) fn figures(&self) -> WorkerFigures {
        WorkerFigures { is_gone: self.is_gone(), ..*lock(&self.figures) }
    }

    pub(super) fn publish(&self, figures: WorkerFigures) {
        *lock(&self.figures) = figures;
    }

    pub(super) fn blame(&self, fault: Fault) {
        *lock(&self.fault) = Some(fault);
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        *lock(&self.fault)
    }

    /// Asks the worker to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.news.store(true, Ordering::Release);
    }
}
