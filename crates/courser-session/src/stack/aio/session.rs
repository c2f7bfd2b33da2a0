//! Sessions: every call tries what does not wait, and waits for the session's signal if that would have to.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};

use super::{Shared, Signal, elsewhere};
use crate::{
    control::{Protocol, Trust},
    msg::SessionStats,
    reason::Ended,
    stack::{self, Dir, Error, Session as Number, SessionState, Setting, Stack},
};

/// A session; see [the table](super#what-dropping-means) of what dropping its last handle means.
#[derive(Clone, Debug)]
pub struct Session {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    shared: Arc<Shared>,
    number: Number,
    signal: Arc<Signal>,
    /// The connection of a stream, which stays open with it.
    _connection: Option<Session>,
}

impl Drop for Core {
    fn drop(&mut self) {
        let (shared, number) = (Arc::clone(&self.shared), self.number);
        if shared.stack.lingers(number) {
            let signal = Arc::clone(&self.signal);
            let runtime = shared.runtime.clone();
            drop(runtime.spawn(async move {
                linger(&shared.stack, number, &signal).await;
                shared.stack.drop_session(number);
                shared.board.lock().remove(&number.0);
            }));
        } else {
            shared.stack.drop_session(number);
            shared.board.lock().remove(&number.0);
        }
    }
}

/// Waits until the peer has the last bytes of a connection's closed streams.
async fn linger(stack: &Stack, number: Number, signal: &Signal) {
    let until = Instant::now() + Stack::LINGER;
    if !stack.lingers(number) {
        return;
    }
    stack.touch_at(number, until);
    let lingers = || if stack.lingers(number) && Instant::now() < until { Err(Error::WouldBlock) } else { Ok(()) };
    let _ = repeat(signal, lingers).await;
}

/// Tries until it need not wait.
async fn repeat<T>(signal: &Signal, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    // A task whose calls never wait leaves room for others all the same.
    coop::consume_budget().await;
    loop {
        match attempt() {
            Err(Error::WouldBlock) => {}
            done => return done,
        }
        let mut news = pin!(signal.calls.notified());
        news.as_mut().enable();
        // What happened between the two was not heard.
        match attempt() {
            Err(Error::WouldBlock) => news.await,
            done => return done,
        }
    }
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, number: Number, connection: Option<Self>) -> Self {
        let signal = shared.enter(number);
        Self { core: Arc::new(Core { shared, number, signal, _connection: connection }) }
    }

    fn stack(&self) -> &Stack {
        &self.core.shared.stack
    }

    /// What calls of the blocking stack call it.
    #[must_use]
    pub fn number(&self) -> Number {
        self.core.number
    }

    async fn until<T>(&self, mut attempt: impl FnMut(&Stack, Number) -> Result<T, Error>) -> Result<T, Error> {
        repeat(&self.core.signal, || attempt(self.stack(), self.core.number)).await
    }

    /// The same, for functions that are polled.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&Stack, Number) -> Result<T, Error>,
    ) -> Poll<io::Result<T>> {
        let budget = ready!(coop::poll_proceed(cx));
        let mut attempt = || attempt(self.stack(), self.core.number);
        let mut done = attempt();
        if done.as_ref().err() == Some(&Error::WouldBlock) {
            self.core.signal.add(cx.waker());
            done = attempt();
        }
        match done {
            Err(Error::WouldBlock) => Poll::Pending,
            done => {
                budget.made_progress();
                Poll::Ready(done.map_err(io::Error::from))
            }
        }
    }

    /// Does what may block. The session lives as long as that takes.
    async fn elsewhere<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Stack, Number) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (stack, number) = (self.stack().clone(), self.core.number);
        elsewhere(move || call(&stack, number)).await
    }

    /// What a listener proves itself with, in PEM; see [`Stack::add_certificate`].
    ///
    /// # Errors
    /// As [`Stack::add_certificate`].
    pub async fn add_certificate(&self, chain: &[u8], key: &[u8]) -> Result<(), Error> {
        let (chain, key) = (chain.to_vec(), key.to_vec());
        self.elsewhere(move |stack, number| stack.add_certificate(number, &chain, &key)).await
    }

    /// The application's protocols (ALPN), the most wanted first.
    ///
    /// # Errors
    /// As [`Stack::set_alpn`].
    pub fn set_alpn(&self, names: &[&[u8]]) -> Result<(), Error> {
        self.stack().set_alpn(self.core.number, names)
    }

    /// Whose certificates are believed when it connects.
    ///
    /// # Errors
    /// As [`Stack::set_trust`].
    pub fn set_trust(&self, trust: Trust) -> Result<(), Error> {
        self.stack().set_trust(self.core.number, trust)
    }

    /// A setting.
    ///
    /// # Errors
    /// As [`Stack::set_option`].
    pub fn set_option(&self, setting: Setting) -> Result<(), Error> {
        self.stack().set_option(self.core.number, setting)
    }

    /// Connects to `quic://host:port`, `tcp://…` or `udp://…`.
    ///
    /// # Errors
    /// As [`Stack::connect`].
    pub async fn connect(&self, uri: &str) -> Result<(), Error> {
        if !self.stack().has_dialler(self.core.number) {
            let uri = uri.to_owned();
            match self.elsewhere(move |stack, number| stack.connect(number, &uri)).await {
                Err(Error::WouldBlock) => {}
                done => return done,
            }
        }
        self.until(|stack, number| stack.connect(number, uri)).await
    }

    /// Gives the session the address at which it is to listen. A name is looked up, and its first IPv4 address taken.
    ///
    /// # Errors
    /// As [`Stack::bind`].
    pub async fn bind(&self, uri: &str) -> Result<(), Error> {
        let uri = uri.to_owned();
        self.elsewhere(move |stack, number| stack.bind(number, &uri)).await
    }

    /// Takes connections from now on.
    ///
    /// # Errors
    /// As [`Stack::listen`].
    pub async fn listen(&self, backlog: u32) -> Result<(), Error> {
        self.elsewhere(move |stack, number| stack.listen(number, backlog)).await
    }

    /// What came in: on a listener the next connection, on a QUIC connection the next stream of the peer.
    ///
    /// # Errors
    /// As [`Stack::accept`].
    pub async fn accept(&self) -> Result<Self, Error> {
        let number = self.until(Stack::accept).await?;
        Ok(self.accepted(number))
    }

    /// The same, with where the peer is.
    ///
    /// # Errors
    /// As [`Stack::accept`].
    pub async fn accept_from(&self) -> Result<(Self, SocketAddr), Error> {
        let (number, peer) = self.until(Stack::accept_from).await?;
        Ok((self.accepted(number), peer))
    }

    fn accepted(&self, number: Number) -> Self {
        // A stream keeps its connection open; a listener is not needed any more.
        let is_listener = self.state() == Ok(SessionState::Listening);
        Self::new(Arc::clone(&self.core.shared), number, (!is_listener).then(|| self.clone()))
    }

    /// Opens a stream in a QUIC connection. It waits while the peer allows no more.
    ///
    /// # Errors
    /// As [`Stack::connect_stream`].
    pub async fn open(&self, dir: Dir) -> Result<Self, Error> {
        let number = self.stack().create(Protocol::Quic)?;
        let stream = Self::new(Arc::clone(&self.core.shared), number, Some(self.clone()));
        self.stack().set_nonblocking(number, true)?;
        stream.until(|stack, number| stack.connect_stream(number, self.core.number, dir)).await?;
        Ok(stream)
    }

    /// Reads bytes of a stream, or one datagram of a UDP session; how many. 0 is the end of a stream.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub async fn read(&self, into: &mut [u8]) -> Result<usize, Error> {
        self.until(|stack, number| stack.read(number, into)).await
    }

    /// Writes bytes to a stream, or one datagram to a UDP session; how many were taken, at least one.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub async fn write(&self, data: &[u8]) -> Result<usize, Error> {
        self.until(|stack, number| stack.write(number, data)).await
    }

    /// Writes all of it. Not cancel-safe: a part may have been written.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub async fn write_all(&self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let count = self.write(data).await?;
            data = data.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends one unreliable datagram.
    ///
    /// # Errors
    /// As [`Stack::send_datagram`].
    pub async fn send_datagram(&self, data: &[u8]) -> Result<(), Error> {
        self.until(|stack, number| stack.send_datagram(number, data)).await
    }

    /// Takes the next datagram that came in.
    ///
    /// # Errors
    /// As [`Stack::recv_datagram`].
    pub async fn recv_datagram(&self) -> Result<Bytes, Error> {
        self.until(Stack::recv_datagram).await
    }

    /// The stream ends after what was written; what the peer sends can still be read.
    ///
    /// # Errors
    /// As [`Stack::finish`].
    pub fn finish(&self) -> Result<(), Error> {
        self.stack().finish(self.core.number)
    }

    /// Gives up sending, with a code for the peer.
    ///
    /// # Errors
    /// As [`Stack::reset`].
    pub fn reset(&self, code: u64) -> Result<(), Error> {
        self.stack().reset(self.core.number, code)
    }

    /// Asks the peer to give up sending, with a code.
    ///
    /// # Errors
    /// As [`Stack::stop`].
    pub fn stop(&self, code: u64) -> Result<(), Error> {
        self.stack().stop(self.core.number, code)
    }

    /// Waits until the peer has everything that was written to a finished stream.
    ///
    /// # Errors
    /// As [`Stack::wait_acked`].
    pub async fn wait_acked(&self) -> Result<(), Error> {
        self.until(Stack::wait_acked).await
    }

    /// Ends the session for all its handles. What was written to a stream still arrives; a QUIC connection is closed when the
    /// peer has the last bytes of its closed streams, or after five seconds.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub async fn close(&self) -> Result<(), Error> {
        linger(self.stack(), self.core.number, &self.core.signal).await;
        self.close_with(0, b"")
    }

    /// Ends the session at once; see [`Stack::close_with`].
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn close_with(&self, code: u64, reason: &[u8]) -> Result<(), Error> {
        self.stack().close_with(self.core.number, code, reason)
    }

    /// Figures of an open session.
    ///
    /// # Errors
    /// As [`Stack::stats`].
    pub async fn stats(&self) -> Result<SessionStats, Error> {
        self.stack().ask_stats(self.core.number)?;
        self.until(Stack::asked_stats).await
    }

    /// Where the session is bound; see [`Stack::local_addr`].
    ///
    /// # Errors
    /// As [`Stack::local_addr`].
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.stack().local_addr(self.core.number)
    }

    /// Where the peer is; see [`Stack::peer_addr`].
    ///
    /// # Errors
    /// As [`Stack::peer_addr`].
    pub fn peer_addr(&self) -> Result<SocketAddr, Error> {
        self.stack().peer_addr(self.core.number)
    }

    /// What the session is at present.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn state(&self) -> Result<SessionState, Error> {
        self.stack().state(self.core.number)
    }

    /// Why the session is over; `None` while it is not.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn end(&self) -> Result<Option<Ended>, Error> {
        self.stack().end(self.core.number)
    }

    /// Whether sessions can be accepted from it: a listener, or a QUIC connection.
    #[must_use]
    pub fn is_connectable_listener(&self) -> bool {
        self.stack().is_connectable_listener(self.core.number)
    }

    /// What the service calls the session, as operators see it; `None` before it is open.
    #[must_use]
    pub fn handle(&self) -> Option<u64> {
        self.stack().handle(self.core.number)
    }
}

impl AsyncRead for &Session {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = into.initialize_unfilled();
        let count = ready!(self.poll(cx, |stack, number| stack.read(number, room)))?;
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for &Session {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |stack, number| stack.write(number, data))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// [`Session::finish`].
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(stack::Error::into))
    }
}

impl AsyncRead for Session {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_read(cx, into)
    }
}

impl AsyncWrite for Session {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_shutdown(cx)
    }
}
