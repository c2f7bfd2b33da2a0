//! Operating a server by signals, in the manner of other servers.
//!
//! | signal | what it asks |
//! |---|---|
//! | SIGTERM | take no new connections; those that there are may go on for a while. A second one: end now |
//! | SIGINT | end now |
//! | SIGHUP | read certificate and key again, for new connections; without files it ends the process, as always |
//! | SIGUSR2 | start the program anew and give it the port; this process ends when its last connection has |
//!
//! A thread listens for signals, another one carries them out on whatever serves ([`Operated`]), so that serving goes on
//! meanwhile. Each wish is answered by a line on standard error.

pub mod signals;
pub mod upgrade;

use std::fmt::Display;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use courser::Handover;
use courser_tls::ServerConfig as TlsServer;

use crate::failure::{Failure, Outcome};

pub use signals::{Wish, Wishes};

/// What serves, as its operator sees it.
pub trait Operated: Sync {
    /// Takes no new connections and waits until those that there are have ended, at most for that long; then all are
    /// closed. Whether they had ended.
    fn drain(&self, limit: Duration) -> bool;

    /// Takes new connections with this configuration.
    ///
    /// # Errors
    /// Why not; everything is as before then.
    fn reload(&self, tls: TlsServer) -> Outcome;

    /// Gives the port away.
    ///
    /// # Errors
    /// Why not; everything is as before then.
    fn hand_over(&self) -> Outcome<Handover>;
}

/// What an operator can have of a server.
pub struct Operator<'a> {
    /// How long connections may go on when the server is to end.
    pub drain: Duration,
    /// Reads certificate and key again; `None` when they come from no files.
    pub again: Option<&'a (dyn Fn() -> Outcome<TlsServer> + Sync)>,
    /// Told what was done.
    pub note: &'a (dyn Fn(&dyn Display) + Sync),
    /// Told what could not be done.
    pub warn: &'a (dyn Fn(&Failure) + Sync),
}

impl std::fmt::Debug for Operator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("drain", &self.drain).finish_non_exhaustive()
    }
}

impl Operator<'_> {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system gives no thread, or no signals.
    pub fn listen(&self) -> Outcome<Wishes> {
        signals::listen(self.again.is_some())
    }

    /// Does what is wished until the server is over; `finish` is called when it is to stop serving.
    pub fn attend(&self, wishes: Receiver<Wish>, operated: &dyn Operated, finish: &(dyn Fn() + Sync)) {
        thread::scope(|scope| {
            let (mut asked_to_end, mut given_away) = (false, false);
            for wish in wishes {
                match wish {
                    Wish::Drain if !asked_to_end && !self.drain.is_zero() => {
                        asked_to_end = true;
                        (self.note)(&format_args!(
                            "no new connections; those that there are may go on for {:?}",
                            self.drain
                        ));
                        scope.spawn(|| {
                            if !operated.drain(self.drain) {
                                (self.note)(&"the time is over; what was left is closed");
                            }
                            finish();
                        });
                    }
                    Wish::Drain | Wish::End => {
                        asked_to_end = true;
                        operated.drain(Duration::ZERO);
                        finish();
                    }
                    Wish::Reload => self.reload(operated),
                    Wish::Upgrade if asked_to_end || given_away => {
                        (self.warn)(&Failure::Local {
                            what: "giving the port away".into(),
                            why: "this process ends".into(),
                        });
                    }
                    Wish::Upgrade => match upgrade::upgrade(operated) {
                        Ok(process) => {
                            given_away = true;
                            (self.note)(&format_args!(
                                "process {process} has the port; this one ends when its last connection has"
                            ));
                            scope.spawn(|| {
                                operated.drain(Duration::MAX);
                                finish();
                            });
                        }
                        Err(failure) => (self.warn)(&failure),
                    },
                    Wish::Over => break,
                }
            }
        });
    }

    fn reload(&self, operated: &dyn Operated) {
        let Some(again) = self.again else { return };
        match again().and_then(|tls| operated.reload(tls)) {
            Ok(()) => (self.note)(&"new connections get the certificate that was just read"),
            Err(failure) => (self.warn)(&failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    /// Drains when it is told to a second time, or without patience.
    #[derive(Default)]
    struct Fake {
        drains: Mutex<Vec<Duration>>,
        released: std::sync::Condvar,
    }

    impl Operated for Fake {
        fn drain(&self, limit: Duration) -> bool {
            let mut drains = self.drains.lock().unwrap();
            drains.push(limit);
            self.released.notify_all();
            while !drains.contains(&Duration::ZERO) {
                drains = self.released.wait(drains).unwrap();
            }
            false
        }

        fn reload(&self, _: TlsServer) -> Outcome {
            Ok(())
        }

        fn hand_over(&self) -> Outcome<Handover> {
            Err(Failure::Local { what: "handing over".into(), why: "a test".into() })
        }
    }

    #[test]
    fn a_second_wish_to_end_is_carried_out_at_once() {
        for second in [Wish::Drain, Wish::End] {
            let (fake, finished, said) = (Fake::default(), AtomicUsize::new(0), Mutex::new(Vec::new()));
            let note = |text: &dyn Display| said.lock().unwrap().push(text.to_string());
            let warn = |e: &Failure| said.lock().unwrap().push(e.to_string());
            let operator = Operator { drain: Duration::from_secs(3), again: None, note: &note, warn: &warn };
            let (tell, wishes) = channel();
            for wish in [Wish::Upgrade, Wish::Drain, Wish::Upgrade, second, Wish::Over] {
                tell.send(wish).unwrap();
            }
            operator.attend(wishes, &fake, &|| _ = finished.fetch_add(1, Ordering::Relaxed));
            let mut drains = fake.drains.lock().unwrap().clone();
            drains.sort_unstable();
            assert_eq!(drains, [Duration::ZERO, Duration::from_secs(3)]);
            assert_eq!(finished.load(Ordering::Relaxed), 2);
            let said = said.lock().unwrap();
            let count = |piece| said.iter().filter(|line| line.contains(piece)).count();
            // The first, in vain: nobody remembered the program, or there is no port.
            assert_eq!(count("starting the new process") + count("a test"), 1, "{said:?}");
            assert_eq!((count("this process ends"), count("for 3s"), count("is closed")), (1, 1, 1));
        }
    }
}
