//! Attaching to a service in another process.

use std::{io, path::Path};

use super::{Attachment, Config, Error, Stack};
use crate::control::{Client, Fault};

/// How often a service may turn out to make way while one attaches to it.
const TRIES: usize = 8;

impl Attachment {
    /// Attaches to the service at that socket, for programs that work with ports themselves.
    ///
    /// # Errors
    /// As [`Stack::attach`].
    pub fn reach(socket: &Path, name: &str) -> Result<Self, Error> {
        let mut asked = 0;
        loop {
            asked += 1;
            match Client::attach(socket, name) {
                Ok(attachment) => return Ok(attachment),
                // It was about to make way: the next connection comes to its successor.
                Err(Ok(refused)) if refused.fault == Fault::Draining && asked < TRIES => {}
                Err(Ok(refused)) => return Err(Error::Refused(refused)),
                Err(Err(error)) => return Err(unreachable_service(socket, &error)),
            }
        }
    }
}

impl Stack {
    /// Attaches to the service at that socket.
    ///
    /// # Errors
    /// [`Error::Attach`] when nobody serves there, [`Error::Refused`] when the service does not want the program.
    pub fn attach(socket: &Path) -> Result<Self, Error> {
        Self::from_config(&Config { socket: socket.to_owned(), ..Config::default() })
    }

    /// Attaches as a configuration says.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn from_config(config: &Config) -> Result<Self, Error> {
        Self::made(Attachment::reach(&config.socket, &config.name)?, config.look, Some(config.clone()))
    }

    /// Attaches as the environment says; see [`Config`].
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`Error::Config`].
    pub fn from_environment() -> Result<Self, Error> {
        Self::from_config(&Config::from_environment()?)
    }
}

fn unreachable_service(socket: &Path, error: &io::Error) -> Error {
    Error::Attach { socket: socket.display().to_string(), kind: error.kind(), text: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_is_told_with_the_remedy() {
        let error = Stack::attach(Path::new("/nowhere/at/all.sock")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let text = error.to_string();
        assert!(text.contains("courser stack --socket /nowhere/at/all.sock") && text.contains("COURSER_SOCKET"));
    }
}
