//! What all handles of an HTTP/3 connection share.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use courser_core::ids::{Side, StreamId};
use courser_core::time::Instant;
use courser_h3::Settings;
use courser_h3::conn::{Config, Connection, Event};
use rustc_hash::FxHashMap;

use super::carrier::{Carrier, Channel, Channels};
use super::early::Remembered;
use super::error::Error;
use super::sessions::Sessions;
use super::trace::Tracer;
use crate::aio;
use crate::face::ConnRef;
use crate::hub::stream::StreamSlot;
use crate::wait::lock;

/// An HTTP/3 connection between its driver, its requests and the application.
pub(super) struct Link {
    pub(super) quic: aio::Connection,
    /// When it began; HTTP/3 counts time from there.
    began: std::time::Instant,
    state: Mutex<State>,
}

/// What is behind the lock, held while HTTP/3 works on bytes that are there and never while anybody waits.
pub(super) struct State {
    h3: Connection,
    channels: Channels,
    /// Those who wait for a field section whose table entries have not come.
    table_waiters: FxHashMap<StreamId, Waker>,
    /// Those who wait for the peer's settings.
    settings_waiters: Vec<Waker>,
    /// WebTransport sessions, and datagrams of requests.
    pub(super) sessions: Sessions,
    driver: Waker,
    /// At a client that may use 0-RTT: where the server's settings are kept, and under which name.
    remembered: Option<(Arc<Remembered>, Box<str>)>,
    /// The answer to 0-RTT is awaited.
    pub(super) early_pending: bool,
    /// Nobody makes requests any more; the driver may end when the last is over.
    pub(super) abandoned: bool,
}

impl Link {
    pub(super) fn new(quic: aio::Connection, side: Side, config: Config, seed: u64) -> Arc<Self> {
        let mut h3 = Connection::new(side, config, seed);
        if let Some(tracer) = Tracer::of(&quic.conn().0) {
            h3.set_watch(tracer);
        }
        let state = State {
            h3,
            channels: Channels::default(),
            table_waiters: FxHashMap::default(),
            settings_waiters: Vec::new(),
            sessions: Sessions::default(),
            driver: Waker::noop().clone(),
            remembered: None,
            early_pending: false,
            abandoned: false,
        };
        Arc::new(Self { quic, began: std::time::Instant::now(), state: Mutex::new(state) })
    }

    /// Tells HTTP/3 the time, by which it forgives what a peer may do only so often.
    pub(super) fn tick(&self) {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        lock(&self.state).h3.set_now(Instant::from_micros(now));
    }

    pub(super) fn conn(&self) -> &ConnRef {
        self.quic.conn()
    }

    /// One call of HTTP/3 on behalf of a stream; what it waits for wakes `cx`.
    pub(super) fn on<T>(
        &self,
        cx: &Context<'_>,
        stream: StreamId,
        f: impl FnOnce(&mut Connection, &mut Carrier<'_>) -> T,
    ) -> T {
        lock(&self.state).call(self.conn(), cx, Some(stream), None, f)
    }

    /// One call that waits for nothing.
    pub(super) fn at_once<T>(&self, f: impl FnOnce(&mut Connection, &mut Carrier<'_>) -> T) -> T {
        let cx = Context::from_waker(Waker::noop());
        lock(&self.state).call(self.conn(), &cx, None, None, f)
    }

    /// The same with a fresh stream, which the request that is sent takes.
    pub(super) fn with_stream<T>(
        &self,
        spare: Arc<StreamSlot>,
        f: impl FnOnce(&mut Connection, &mut Carrier<'_>) -> T,
    ) -> T {
        let cx = Context::from_waker(Waker::noop());
        let own = spare.id;
        lock(&self.state).call(self.conn(), &cx, Some(own), Some(spare), f)
    }

    /// Looks at what is shared.
    pub(super) fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut lock(&self.state))
    }

    /// Another handle of a stream; each is [released](Self::release).
    pub(super) fn share(&self, stream: StreamId) {
        if let Some(channel) = lock(&self.state).channels.get_mut(&stream) {
            channel.users = channel.users.saturating_add(1);
        }
    }

    /// A handle of a stream is gone. With the last one HTTP/3 forgets the stream, and gives up what is not ended.
    pub(super) fn release(&self, stream: StreamId) {
        let mut state = lock(&self.state);
        let Some(channel) = state.channels.get_mut(&stream) else { return };
        channel.users = channel.users.saturating_sub(1);
        if channel.users > 0 {
            return;
        }
        let cx = Context::from_waker(Waker::noop());
        state.call(self.conn(), &cx, None, None, |h3, carrier| h3.forget(carrier, stream));
        state.channels.remove(&stream);
        state.table_waiters.remove(&stream);
        if state.is_over() {
            state.driver.wake_by_ref();
        }
    }

    /// Wakes the driver.
    pub(super) fn call_driver(&self) {
        lock(&self.state).driver.wake_by_ref();
    }
}

impl State {
    pub(super) fn call<T>(
        &mut self,
        conn: &ConnRef,
        cx: &Context<'_>,
        own: Option<StreamId>,
        spare: Option<Arc<StreamSlot>>,
        f: impl FnOnce(&mut Connection, &mut Carrier<'_>) -> T,
    ) -> T {
        let Self { h3, channels, driver, .. } = self;
        f(h3, &mut Carrier { channels, conn, own, waker: cx.waker(), driver, spare })
    }

    /// The driver takes its place.
    pub(super) fn set_driver(&mut self, cx: &Context<'_>) {
        self.driver.clone_from(cx.waker());
    }

    /// Enters a stream that the peer opened.
    pub(super) fn adopt(&mut self, slot: Arc<StreamSlot>) -> StreamId {
        let id = slot.id;
        self.channels.insert(id, Channel::new(slot));
        id
    }

    /// Takes a stream out that HTTP/3 has no more to do with.
    pub(super) fn disown(&mut self, stream: StreamId) -> Option<Channel> {
        self.channels.remove(&stream)
    }

    /// The connection may have 0-RTT: HTTP/3 keeps to what is `known` of the server, and what it says now is kept.
    pub(super) fn resume(&mut self, known: Option<Settings>, keep: (Arc<Remembered>, Box<str>)) {
        if let Some(known) = known {
            self.h3.resume(known);
            self.early_pending = true;
        }
        self.remembered = Some(keep);
    }

    /// Whether no request is open and none will be.
    pub(super) fn is_over(&self) -> bool {
        (self.abandoned || self.h3.is_draining()) && self.h3.active_requests() == 0
    }

    /// Whether what was read of a stream may be a replay.
    pub(super) fn is_early(&self, stream: StreamId) -> bool {
        self.channels.get(&stream).is_some_and(|channel| channel.slot.is_early())
    }

    pub(super) fn h3(&mut self) -> &mut Connection {
        &mut self.h3
    }

    /// Waits until the table entries of a stream's field section are there.
    pub(super) fn wait_for_table(&mut self, stream: StreamId, cx: &Context<'_>) {
        self.table_waiters.insert(stream, cx.waker().clone());
    }

    /// Ready when the peer's settings are known.
    pub(super) fn poll_settings(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.h3.peer_settings().is_some() {
            return Poll::Ready(());
        }
        if !self.settings_waiters.iter().any(|w| w.will_wake(cx.waker())) {
            self.settings_waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Hands events to those who wait for them.
    pub(super) fn tell_events(&mut self) {
        while let Some(event) = self.h3.poll_event() {
            match event {
                Event::Unblocked(stream) => {
                    if let Some(waker) = self.table_waiters.remove(&stream) {
                        waker.wake();
                    }
                }
                Event::Settings => {
                    self.settings_waiters.drain(..).for_each(Waker::wake);
                    if let (Some((kept, server)), Some(settings)) = (&self.remembered, self.h3.peer_settings()) {
                        kept.note(server, *settings);
                    }
                }
                _ => {}
            }
        }
    }

    /// The connection ended: nobody waits any more.
    pub(super) fn wake_all(&mut self) {
        self.table_waiters.drain().for_each(|(_, waker)| waker.wake());
        self.settings_waiters.drain(..).for_each(Waker::wake);
        self.sessions.end();
    }
}

/// Gives a handle of a stream back when it is dropped.
pub(super) struct Hold {
    pub(super) link: Arc<Link>,
    pub(super) stream: StreamId,
}

impl Hold {
    /// Another one.
    pub(super) fn again(&self) -> Self {
        self.link.share(self.stream);
        Self { link: Arc::clone(&self.link), stream: self.stream }
    }

    /// One call of HTTP/3 on this stream.
    pub(super) fn on<T>(
        &self,
        cx: &Context<'_>,
        f: impl FnOnce(&mut Connection, &mut Carrier<'_>, StreamId) -> T,
    ) -> T {
        self.link.on(cx, self.stream, |h3, carrier| f(h3, carrier, self.stream))
    }

    /// Ready with the reason when nobody wants to hear what this end sends on the stream.
    pub(super) fn poll_given_up(&self, cx: &Context<'_>) -> Poll<Error> {
        let slot = self.link.state(|state| state.channels.get(&self.stream).map(|c| Arc::clone(&c.slot)));
        let Some(slot) = slot else { return Poll::Pending };
        match slot.poll_stopped(cx) {
            Poll::Ready(Ok(Some(code))) => Poll::Ready(Error::Stopped(courser_h3::Code(code))),
            Poll::Ready(Err(_)) => Poll::Ready(Error::closed(&self.link.quic)),
            Poll::Ready(Ok(None)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Whether nothing of the message is left to be read.
    pub(super) fn is_read(&self) -> bool {
        self.link.at_once(|h3, carrier| h3.is_read(carrier, self.stream))
    }

    /// Ready when everything that HTTP/3 has of this message is with the transport.
    pub(super) fn poll_flush(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        match self.on(cx, |h3, carrier, stream| h3.flush(carrier, stream)) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(e) => Poll::Ready(Err(self.error(e))),
        }
    }

    /// What the error means for whoever made the call.
    pub(super) fn error(&self, e: courser_h3::conn::Error) -> Error {
        Error::of(e, &self.link.quic)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.link.release(self.stream);
    }
}
