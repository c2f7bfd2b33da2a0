//! The driver inside a Tokio runtime.
//!
//! The worker's turns run in the task that awaits [`Worker::drive`]; between them the task waits for the socket, a call,
//! or the deadline. Every system call that tells nothing new is left out:
//!
//! * The runtime tells when the socket becomes readable. It is read only then, and not once more when a batch was less
//!   than there was room for: what comes later is told anew. So a turn that handles asked for reads nothing.
//! * The runtime watches for room in the socket only while a train waits for that; otherwise each datagram that leaves
//!   would be reported.
//! * What came in is handed to the tasks before the turn goes on to send, so that one system call carries their answers
//!   and the acknowledgements. The tasks that those start, a server's for each stream, have their say as well.

use std::future::poll_fn;
use std::io;
use std::net::UdpSocket;
use std::ops::ControlFlow;
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use courser_core::time::Instant;

use super::machine::Machine;
use super::timer::Timer;
use super::{Read, Turn, Worker};
use crate::net::socket::Socket;

/// How often the worker stands back after reading: for the tasks that it woke, and for those that they start.
const GENERATIONS: usize = 2;

impl<M: Machine> Worker<M> {
    /// Takes turns in the calling task until `app` breaks. Other tasks of the runtime get their turn after each one.
    ///
    /// Dropping the future is safe: nothing is lost, and the worker can be driven again.
    ///
    /// # Errors
    /// When the socket has failed, or outside a Tokio runtime with networking and time.
    pub async fn drive(&mut self, app: &mut (dyn FnMut(&mut M, Instant) -> ControlFlow<()> + Send)) -> io::Result<()> {
        let mut inbound = Watch::reading(&self.socket)?;
        let mut watched = self.sockets;
        let mut timer = Timer::default();
        loop {
            let read = self.read_if(inbound.as_ref())?;
            if read.any {
                // Tasks that what came in wakes have their say before anything is sent: their answers leave together
                // with the acknowledgements.
                let now = self.clock.now();
                self.machine.process(now);
                for _ in 0..GENERATIONS {
                    requeue().await;
                }
            }
            let mut flow = ControlFlow::Continue(());
            let turn = self.turn_after(&read, &mut |machine, now| flow = app(machine, now));
            if flow.is_break() {
                return Ok(());
            }
            if watched != self.sockets {
                inbound = Watch::reading(&self.socket)?;
                watched = self.sockets;
            }
            let now = self.clock.now();
            if turn.deadline.is_some_and(|at| at <= now) {
                // The runtime looks at its sockets before it comes back here.
                tokio::task::yield_now().await;
            } else {
                let waited = self.idle(inbound.as_ref(), &mut timer, &turn).await;
                self.waker.woke();
                waited?;
            }
        }
    }

    /// Reads if the runtime has told that there is something.
    fn read_if(&mut self, inbound: Option<&Watch>) -> io::Result<Read> {
        // What was found while looking: the runtime tells of it later, and then there is nothing. What is read after calls that
        // failed it has told of before.
        if self.unread || self.deaf.until().is_some() {
            return self.read();
        }
        let mut read = Ok(Read { any: false, more: false, drained: true });
        let Some(inbound) = inbound else { return read };
        inbound.attempt(|| {
            read = self.read();
            matches!(&read, Ok(Read { drained: true, .. }))
        });
        read
    }

    /// Looks for datagrams and callers before the task rests, if it is to; whether a turn is due. Other tasks go first
    /// each time.
    async fn look_around(&mut self, began: Instant, turn: &Turn) -> io::Result<bool> {
        let long = if turn.blocked { Duration::ZERO } else { self.busy.begin() };
        if long.is_zero() {
            return Ok(false);
        }
        let timeout = turn.deadline.map(|at| at.since(began));
        loop {
            requeue().await;
            if let Some(due) = self.look_once((began, long), timeout, &mut |_| false)? {
                return Ok(due);
            }
        }
    }

    /// Waits until another turn is due.
    async fn idle(&mut self, inbound: Option<&Watch>, timer: &mut Timer, turn: &Turn) -> io::Result<()> {
        let began = self.clock.now();
        if self.look_around(began, turn).await? {
            return Ok(());
        }
        timer.set(turn.deadline.map(|at| at.since(self.clock.now())));
        self.stats.waits += 1;
        let slept = self.rest(inbound, timer, turn).await;
        self.busy.slept(self.clock.now().since(began));
        slept
    }

    /// Sleeps until another turn is due.
    async fn rest(&mut self, inbound: Option<&Watch>, timer: &mut Timer, turn: &Turn) -> io::Result<()> {
        // Registered anew, so that what is told is the present state of the socket.
        let room = if turn.blocked { Some(Watch::writing(self.socket.udp())?) } else { None };
        let inbound = inbound.filter(|_| self.deaf.until().is_none());
        let waker = &self.waker;
        let (mut rested, mut due) = (false, false);
        poll_fn(|cx| {
            due =
                due || match inbound {
                    Some(inbound) => inbound.poll(cx)?.is_ready(),
                    None => false,
                } || match &room {
                    Some(room) => room.poll(cx)?.is_ready(),
                    None => false,
                } || timer.poll(cx).is_ready()
                    || waker.park(cx).is_ready();
            let first = !std::mem::replace(&mut rested, true);
            if due && first {
                // Something was there at once. Those whom the turn woke go first all the same.
                cx.waker().wake_by_ref();
            }
            if due && !first { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}

/// Lets the tasks go first that can run now, without a look at sockets and timers.
async fn requeue() {
    let mut stood_back = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut stood_back, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What the runtime tells of the worker's socket. It watches a duplicate of the descriptor.
#[cfg(unix)]
struct Watch {
    fd: tokio::io::unix::AsyncFd<OwnedFd>,
    writing: bool,
}

#[cfg(unix)]
impl Watch {
    fn new(fd: BorrowedFd<'_>, interest: tokio::io::Interest) -> io::Result<Self> {
        // The newer constructor is unsafe for the sake of types that do not keep their descriptor open; this one does.
        #[allow(deprecated, reason = "the descriptor is owned by what is handed over")]
        let fd = tokio::io::unix::AsyncFd::with_interest(fd.try_clone_to_owned()?, interest)?;
        Ok(Self { fd, writing: interest.is_writable() })
    }

    /// `None` when nothing comes to this worker by itself.
    fn reading(socket: &Socket) -> io::Result<Option<Self>> {
        socket.heard().map(|fd| Self::new(fd, tokio::io::Interest::READABLE)).transpose()
    }

    fn writing(udp: &UdpSocket) -> io::Result<Self> {
        Self::new(udp.as_fd(), tokio::io::Interest::WRITABLE)
    }

    /// Ready when the socket can be used.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = if self.writing { self.fd.poll_write_ready(cx) } else { self.fd.poll_read_ready(cx) };
        ready.map_ok(|_| ())
    }

    /// Calls `f` if the socket can be read; `f` says whether it emptied the socket.
    fn attempt(&self, mut f: impl FnMut() -> bool) {
        let blocked = || io::Error::from(io::ErrorKind::WouldBlock);
        let _ = self.fd.try_io(tokio::io::Interest::READABLE, |_| if f() { Err(blocked()) } else { Ok(()) });
    }
}

/// What the runtime tells of the worker's socket. It watches a duplicate of the descriptor.
#[cfg(not(unix))]
struct Watch {
    udp: tokio::net::UdpSocket,
    writing: bool,
}

#[cfg(not(unix))]
impl Watch {
    fn reading(socket: &Socket) -> io::Result<Option<Self>> {
        Ok(Some(Self { udp: tokio::net::UdpSocket::from_std(socket.udp().try_clone()?)?, writing: false }))
    }

    fn writing(udp: &UdpSocket) -> io::Result<Self> {
        Ok(Self { udp: tokio::net::UdpSocket::from_std(udp.try_clone()?)?, writing: true })
    }

    /// Ready when the socket can be used.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing { self.udp.poll_send_ready(cx) } else { self.udp.poll_recv_ready(cx) }
    }

    /// Calls `f` if the socket can be read; `f` says whether it emptied the socket.
    fn attempt(&self, mut f: impl FnMut() -> bool) {
        let blocked = || io::Error::from(io::ErrorKind::WouldBlock);
        let _ = self.udp.try_io(tokio::io::Interest::READABLE, || if f() { Err(blocked()) } else { Ok(()) });
    }
}
