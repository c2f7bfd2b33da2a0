//! The driver inside a Tokio runtime.
//!
//! The worker's turns run in the task that awaits [`Worker::drive`]; between them the task waits for the socket, a call,
//! or the deadline. The descriptors that Tokio waits on are duplicates; the worker keeps using its own.

use std::io;
use std::ops::ControlFlow;

use courser_core::time::Instant;
use tokio::net::UdpSocket;

use super::machine::Machine;
use super::{Turn, Waker, Worker};

impl<M: Machine> Worker<M> {
    /// Takes turns in the calling task until `app` breaks. Other tasks of the runtime get their turn after each one.
    ///
    /// Dropping the future is safe: nothing is lost, and the worker can be driven again.
    ///
    /// # Errors
    /// When the socket has failed, or outside a Tokio runtime with networking and time.
    pub async fn drive(&mut self, app: &mut (dyn FnMut(&mut M, Instant) -> ControlFlow<()> + Send)) -> io::Result<()> {
        let ready = UdpSocket::from_std(self.socket.udp().try_clone()?)?;
        loop {
            let mut flow = ControlFlow::Continue(());
            let turn = self.turn_with(&mut |machine, now| flow = app(machine, now))?;
            if flow.is_break() {
                return Ok(());
            }
            if turn.progressed || turn.deadline.is_some_and(|at| at <= self.clock.now()) {
                tokio::task::yield_now().await;
            } else {
                self.stats.waits += 1;
                let waited = idle(&ready, &self.waker, &turn, self.clock.now()).await;
                self.waker.woke();
                waited?;
            }
        }
    }
}

/// Waits until another turn is due.
async fn idle(ready: &UdpSocket, waker: &Waker, turn: &Turn, now: Instant) -> io::Result<()> {
    // Tokio remembers readiness until a call through it has found the socket empty. The look has to be a real one: a
    // datagram that came after the turn's last call must not be forgotten.
    match ready.try_io(tokio::io::Interest::READABLE, || peek(ready)) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        // Something is there, if only a report of an earlier datagram's fate: the next turn reads it.
        _ => return Ok(()),
    }
    let timeout = turn.deadline.map(|at| at.since(now));
    let sleep = async {
        match timeout {
            Some(t) => tokio::time::sleep(t).await,
            None => std::future::pending().await,
        }
    };
    let room = async {
        if turn.blocked {
            // Tokio's memory of room in the socket may be old; a short rest keeps a wrong one from spinning.
            tokio::time::sleep(super::PAUSE).await;
            ready.writable().await
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        r = ready.readable() => r,
        r = room => r,
        () = sleep => Ok(()),
        () = std::future::poll_fn(|cx| waker.park(cx)) => Ok(()),
    }
}

/// Whether something is there to be read; `WouldBlock` when not.
fn peek(ready: &UdpSocket) -> io::Result<()> {
    socket2::SockRef::from(ready).peek(&mut [core::mem::MaybeUninit::uninit(); 1]).map(|_| ())
}
