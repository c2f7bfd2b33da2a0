//! Attaching to a service in another process.

use std::{io, path::Path};

use super::{Attachment, Config, Error, Stack};
use crate::control::Client;

impl Attachment {
    /// Attaches to the service at that socket, for programs that work with ports themselves.
    ///
    /// # Errors
    /// As [`Stack::attach`].
    pub fn reach(socket: &Path, name: &str) -> Result<Self, Error> {
        Client::attach(socket, name).map_err(|error| match error {
            Ok(refused) => Error::Refused(refused),
            Err(error) => unreachable_service(socket, &error),
        })
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
        Self::over_with(Attachment::reach(&config.socket, &config.name)?, config.look)
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
