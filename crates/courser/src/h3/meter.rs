//! The limits of one WebTransport session, between its streams, its capsules and the application.
//!
//! Streams take credit from the worker's thread, the reader of capsules raises it, the writer asks what is to be said. Each of
//! them holds the lock for a few additions, and is woken behind it. Streams that lack credit are remembered by number, so
//! that each stands here once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};
use courser_h3::webtransport::flow::{Broken, Flow, Raised};

use crate::hub::stream::{Credit, StreamSlot};
use crate::wait::{lock, wait_alone};

/// The limits of a session, and who waits for them.
pub(super) struct Meter(Mutex<State>);

struct State {
    flow: Flow,
    /// A rule that the peer broke.
    broken: Option<Broken>,
    /// The session is over: nothing is waited for any more.
    over: bool,
    /// Streams that lack credit for bytes.
    waiting: BTreeMap<StreamId, Weak<StreamSlot>>,
    /// Those who lack credit for a stream, by direction: tasks of the application.
    openers: [Vec<Waker>; 2],
    /// Who writes capsules.
    writer: Option<Waker>,
    /// Who ends the session when a rule is broken.
    guard: Option<Waker>,
}

impl State {
    /// Something was counted that may be worth a capsule.
    fn counted(&mut self) -> Option<Waker> {
        if self.flow.is_due() { self.writer.take() } else { None }
    }
}

impl Meter {
    pub(super) fn new(flow: Flow) -> Arc<Self> {
        let openers = [Vec::new(), Vec::new()];
        let waiting = BTreeMap::new();
        let state = State { flow, broken: None, over: false, waiting, openers, writer: None, guard: None };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Changes the counters; whoever has something to write is woken.
    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.0);
        let changed = f(&mut state);
        let wakers = [state.counted(), state.broken.and_then(|_| state.guard.take())];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        changed
    }

    /// Counts a stream from now on, which the peer opened when `came`.
    pub(super) fn admit(self: &Arc<Self>, slot: &Arc<StreamSlot>, came: bool) {
        if !lock(&self.0).flow.is_agreed() {
            return;
        }
        if came {
            self.change(|state| {
                let counted = state.flow.on_stream(slot.id.dir());
                state.broken = state.broken.or(counted.err());
            });
        }
        let credit: Arc<dyn Credit> = Arc::<Self>::clone(self);
        slot.meter(&credit);
    }

    /// Ready with the permission to open a stream; `None` when the session is over.
    pub(super) fn poll_open(self: &Arc<Self>, cx: &Context<'_>, dir: Dir) -> Poll<Option<Permit>> {
        self.change(|state| {
            if state.over {
                return Poll::Ready(None);
            }
            if state.flow.open(dir) {
                return Poll::Ready(Some(Permit { meter: Some(Arc::clone(self)), dir }));
            }
            let openers = &mut state.openers[dir as usize];
            if !openers.iter().any(|w| w.will_wake(cx.waker())) {
                openers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// A capsule came.
    pub(super) fn on_capsule(&self, kind: u64, value: &[u8]) -> Result<Raised, Broken> {
        let mut streams = BTreeMap::new();
        let mut openers = Vec::new();
        let raised = self.change(|state| {
            let raised = state.flow.on_capsule(kind, value);
            match raised {
                Ok(Raised::Data) => streams = std::mem::take(&mut state.waiting),
                Ok(Raised::Streams(dir)) => openers = std::mem::take(&mut state.openers[dir as usize]),
                Ok(Raised::Nothing) | Err(_) => {}
            }
            raised
        });
        streams.values().filter_map(Weak::upgrade).for_each(|slot| slot.kick());
        openers.into_iter().for_each(Waker::wake);
        raised
    }

    /// Ready when the peer broke a rule.
    pub(super) fn poll_broken(&self, cx: &Context<'_>) -> Poll<Broken> {
        let mut state = lock(&self.0);
        if let Some(broken) = state.broken {
            return Poll::Ready(broken);
        }
        wait_alone(&mut state.guard, cx);
        Poll::Pending
    }

    /// Ready with capsules to write.
    pub(super) fn poll_due(&self, cx: &Context<'_>) -> Poll<Bytes> {
        let mut state = lock(&self.0);
        let mut out = Vec::new();
        state.flow.write_due(&mut out);
        if out.is_empty() {
            wait_alone(&mut state.writer, cx);
            return Poll::Pending;
        }
        Poll::Ready(out.into())
    }

    /// The session is over.
    pub(super) fn close(&self) {
        let mut state = lock(&self.0);
        state.over = true;
        state.waiting.clear();
        let openers = std::mem::take(&mut state.openers);
        drop(state);
        openers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Credit for Meter {
    fn take(&self, wanted: u64, stream: &Arc<StreamSlot>) -> u64 {
        self.change(|state| {
            let n = state.flow.take(wanted);
            if n < wanted && !state.over {
                state.waiting.insert(stream.id, Arc::downgrade(stream));
            }
            n
        })
    }

    fn give_back(&self, n: u64) {
        let mut streams = BTreeMap::new();
        self.change(|state| {
            state.flow.give_back(n);
            streams = std::mem::take(&mut state.waiting);
        });
        streams.values().filter_map(Weak::upgrade).for_each(|slot| slot.kick());
    }

    fn on_data(&self, received: u64, consumed: u64) {
        self.change(|state| {
            let counted = state.flow.on_data(received, consumed);
            state.broken = state.broken.or(counted.err());
        });
    }

    fn on_over(&self, dir: Dir) {
        self.change(|state| state.flow.on_stream_over(dir));
    }
}

/// The permission to open a stream; dropped without [use](Self::used), it is there for the next.
pub(super) struct Permit {
    meter: Option<Arc<Meter>>,
    dir: Dir,
}

impl Permit {
    /// The stream was opened.
    pub(super) fn used(mut self) {
        self.meter = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(meter) = self.meter.take() {
            let openers = meter.change(|state| {
                state.flow.give_stream_back(self.dir);
                std::mem::take(&mut state.openers[self.dir as usize])
            });
            openers.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use courser_h3::capsule;
    use courser_h3::webtransport::flow::Limits;

    use super::*;

    fn meter(streams: u64) -> Arc<Meter> {
        let limits = Limits { streams: [streams; 2], data: 100 };
        Meter::new(Flow::new(limits, limits))
    }

    #[test]
    fn a_permission_that_is_not_used_goes_to_the_next() {
        let meter = meter(1);
        let cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(first)) = meter.poll_open(&cx, Dir::Uni) else { panic!("there is credit") };
        assert!(meter.poll_open(&cx, Dir::Uni).is_pending());
        drop(first);
        let Poll::Ready(Some(second)) = meter.poll_open(&cx, Dir::Uni) else { panic!("it came back") };
        second.used();
        assert!(meter.poll_open(&cx, Dir::Uni).is_pending());
        assert_eq!(meter.on_capsule(capsule::WT_MAX_STREAMS_UNI, &[2]), Ok(Raised::Streams(Dir::Uni)));
        let Poll::Ready(Some(third)) = meter.poll_open(&cx, Dir::Uni) else { panic!("the limit was raised") };
        third.used();
        assert!(meter.poll_open(&cx, Dir::Uni).is_pending());
        meter.close();
        assert!(matches!(meter.poll_open(&cx, Dir::Uni), Poll::Ready(None)), "nobody waits for a session that is over");
    }

    #[test]
    fn who_guards_the_session_hears_of_a_rule_that_was_broken_and_the_writer_of_what_is_due() {
        let meter = meter(1);
        let cx = Context::from_waker(Waker::noop());
        assert!(meter.poll_broken(&cx).is_pending() && meter.poll_due(&cx).is_pending());
        meter.on_data(100, 60);
        assert_eq!(meter.poll_due(&cx).map(|capsules| capsules.len()), Poll::Ready(4 + 1 + 2));
        meter.on_data(61, 0);
        assert_eq!(meter.poll_broken(&cx), Poll::Ready(Broken::Limit));
    }
}
