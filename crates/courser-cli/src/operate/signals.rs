//! Signals become wishes.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::failure::{Failure, Outcome};

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End when the connections have.
    Drain,
    /// End now.
    End,
    /// Read the files again.
    Reload,
    /// Give the port to a process that is started for it.
    Upgrade,
    /// There is nothing left to be operated.
    Over,
}

/// Wishes to come, and a way to say that the server is over.
#[derive(Debug)]
pub struct Wishes {
    /// Takes a wish of our own.
    pub tell: Sender<Wish>,
    /// Gives what was asked.
    pub told: Receiver<Wish>,
}

/// From the return on signals are heard; SIGHUP only when something can be read again.
///
/// # Errors
/// The system gives no thread, or no signals.
pub fn listen(reloads: bool) -> Outcome<Wishes> {
    let (tell, told) = mpsc::channel();
    let wishes = Wishes { tell: tell.clone(), told };
    watch_in_thread(reloads, true, move |wish| tell.send(wish).is_ok())?;
    Ok(wishes)
}

/// Calls `tell` with the first signal that asks to end, from a thread of its own. From the return on it is heard.
///
/// # Errors
/// The system gives no thread, or no signals.
pub fn first(tell: impl FnOnce() + Send + 'static) -> Outcome {
    let mut tell = Some(tell);
    watch_in_thread(false, false, move |_| {
        if let Some(tell) = tell.take() {
            tell();
        }
        false
    })
}

fn watch_in_thread(reloads: bool, upgrades: bool, tell: impl FnMut(Wish) -> bool + Send + 'static) -> Outcome {
    let (ready, wait) = mpsc::sync_channel(1);
    let failed = |e: io::Error| Failure::local("waiting for signals", &e);
    thread::Builder::new()
        .name("courser-signals".into())
        .spawn(move || {
            // Nobody may wait for the answer any more.
            if let Err(e) = watch((reloads, upgrades), || drop(ready.send(Ok(()))), tell) {
                let _ = ready.send(Err(e));
            }
        })
        .map_err(failed)?;
    wait.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended"))).map_err(failed)
}

/// Tells each signal as long as somebody listens; `ready` is called when none can be missed any more.
fn watch(
    (reloads, upgrades): (bool, bool),
    ready: impl FnOnce(),
    mut tell: impl FnMut(Wish) -> bool,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        #[cfg(unix)]
        {
            use std::task::Poll;

            use tokio::signal::unix::{SignalKind, signal};
            let mut kinds = vec![(Wish::Drain, SignalKind::terminate()), (Wish::End, SignalKind::interrupt())];
            if reloads {
                kinds.push((Wish::Reload, SignalKind::hangup()));
            }
            if upgrades {
                kinds.push((Wish::Upgrade, SignalKind::user_defined2()));
            }
            let mut signals =
                kinds.into_iter().map(|(wish, kind)| Ok((wish, signal(kind)?))).collect::<io::Result<Vec<_>>>()?;
            ready();
            loop {
                let wish = std::future::poll_fn(|cx| {
                    let mut come = signals.iter_mut().filter_map(|(wish, signal)| match signal.poll_recv(cx) {
                        Poll::Ready(Some(())) => Some(*wish),
                        _ => None,
                    });
                    come.next().map_or(Poll::Pending, Poll::Ready)
                })
                .await;
                if !tell(wish) {
                    return Ok(());
                }
            }
        }
        #[cfg(not(unix))]
        {
            let _ = (reloads, upgrades);
            ready();
            loop {
                tokio::signal::ctrl_c().await?;
                if !tell(Wish::End) {
                    return Ok(());
                }
            }
        }
    })
}
