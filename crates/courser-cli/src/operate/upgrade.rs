//! A new process takes the port over.
//!
//! The old process starts the program once more, with the same arguments and a local socket as its standard input. Through
//! it goes the port; through it the new process says that it serves. When it does not, nothing has changed.

use std::path::PathBuf;
use std::sync::OnceLock;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub use here::{Inheritance, SERVES, inherit, predecessor, successor, upgrade};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use not_here::{Inheritance, inherit, upgrade};

/// Where the program is, as of when it began: once the file was replaced the system only knows that it is gone.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

fn remember_program() {
    if let Ok(program) = std::env::current_exe() {
        let _ = PROGRAM.set(program);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod here {
    use std::io::{self, Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command};
    use std::time::Duration;

    use courser::Handover;

    use super::super::Operated;
    use super::{PROGRAM, remember_program};
    use crate::failure::{Failure, Outcome};

    /// Tells a process that its standard input is a port to take over.
    const TAKE_OVER: &str = "COURSER_TAKE_OVER";
    /// What a new process says when it serves.
    pub const SERVES: [u8; 1] = *b"!";
    /// How long a new process may take until it serves.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A port that another process gives to this one.
    #[derive(Debug)]
    pub struct Inheritance {
        port: Handover,
        /// Where that process waits for an answer.
        from: UnixStream,
    }

    impl Inheritance {
        /// The port, and what tells that it is served.
        #[must_use]
        pub fn split(self) -> (Handover, Box<dyn FnOnce()>) {
            let mut from = self.from;
            // Who does not listen any more has gone.
            (self.port, Box::new(move || drop(from.write_all(&SERVES))))
        }
    }

    fn untakeable(e: &io::Error) -> Failure {
        Failure::local("taking the port over", e)
    }

    /// The process that this one was started to take over from, if it was; to be asked before anything else is done. It
    /// sends what there is to be taken, and waits for one byte that says that this one serves.
    ///
    /// # Errors
    /// There is nothing although there should be.
    pub fn predecessor() -> Outcome<Option<UnixStream>> {
        remember_program();
        if std::env::var_os(TAKE_OVER).is_none() {
            return Ok(None);
        }
        let from = io::stdin().as_fd().try_clone_to_owned().map_err(|e| untakeable(&e))?;
        Ok(Some(UnixStream::from(from)))
    }

    /// The port that this process was started to take over, if it was; to be asked before anything else is done.
    ///
    /// # Errors
    /// There is nothing although there should be.
    pub fn inherit() -> Outcome<Option<Inheritance>> {
        let Some(from) = predecessor()? else { return Ok(None) };
        Ok(Some(Inheritance { port: Handover::receive(&from).map_err(|e| untakeable(&e))?, from }))
    }

    /// Gives the port to a new process of the same program; its number.
    ///
    /// # Errors
    /// Why not; everything is as before then.
    pub fn upgrade(operated: &dyn Operated) -> Outcome<u32> {
        let handover = operated.hand_over()?;
        successor(|to| handover.send(to))
    }

    /// Starts a new process of the same program, to which `give` sends what it is to take over; its number, when it serves.
    ///
    /// # Errors
    /// Why not; there is no such process then.
    pub fn successor(give: impl FnOnce(&UnixStream) -> io::Result<()>) -> Outcome<u32> {
        let failed = |e: io::Error| Failure::local("starting the new process", &e);
        let program = PROGRAM.get().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(TAKE_OVER, "1")
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .map_err(failed)?;
        let given = (|| {
            for limit in [ours.set_read_timeout(Some(PATIENCE)), ours.set_write_timeout(Some(PATIENCE))] {
                limit?;
            }
            give(&ours)?;
            confirmed(&mut ours)
        })();
        match given {
            Ok(()) => Ok(child.id()),
            Err(e) => {
                end(&mut child);
                Err(failed(io::Error::new(e.kind(), format!("it did not come up ({e}); this one goes on"))))
            }
        }
    }

    /// Waits until the new process says that it serves.
    fn confirmed(from: &mut impl Read) -> io::Result<()> {
        let mut word = [0];
        from.read_exact(&mut word)?;
        match word {
            SERVES => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it said something else than that it serves")),
        }
    }

    /// Nothing is left of a process that did not come up.
    fn end(child: &mut Child) {
        let _ = child.kill();
        let _ = child.wait();
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_new_process_serves_when_it_says_that_word_and_no_other() {
            assert!(confirmed(&mut &SERVES[..]).is_ok());
            assert_eq!(confirmed(&mut &b""[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            for word in (0..=u8::MAX).filter(|word| [*word] != SERVES) {
                assert_eq!(confirmed(&mut &[word][..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod not_here {
    use courser::Handover;

    use super::super::Operated;
    use super::{PROGRAM, remember_program};
    use crate::failure::{Failure, Outcome};

    /// A port that another process gives to this one: not here.
    #[derive(Debug)]
    pub enum Inheritance {}

    impl Inheritance {
        /// The port, and what tells that it is served.
        #[must_use]
        pub fn split(self) -> (Handover, Box<dyn FnOnce()>) {
            match self {}
        }
    }

    /// What this process was started to take over: nothing.
    ///
    /// # Errors
    /// None.
    pub fn inherit() -> Outcome<Option<Inheritance>> {
        remember_program();
        Ok(None)
    }

    /// Gives the port to a new process: not here.
    ///
    /// # Errors
    /// Always.
    pub fn upgrade(operated: &dyn Operated) -> Outcome<u32> {
        let _ = PROGRAM.get();
        operated.hand_over()?;
        let why = "this system cannot hand ports over".into();
        Err(Failure::Local { what: "starting the new process".into(), why })
    }
}
