//! What keeps a server from beginning, or from going on otherwise.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A mistake in a configuration, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file; `None` when it did not come from one.
    pub file: Option<PathBuf>,
    /// Line and column, counted from one.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// What was probably meant.
    pub help: Option<String>,
}

impl Mistake {
    /// One without a place.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { file: None, place: None, what: what.into(), help: None }
    }

    /// The same, in that line.
    #[must_use]
    pub fn at(mut self, line: usize) -> Self {
        if line > 0 {
            self.place = Some((line, 1));
        }
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.place) {
            (Some(file), Some((line, column))) => write!(f, "{}:{line}:{column}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, Some((line, column))) => write!(f, "line {line}, column {column}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.what)?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

impl std::error::Error for Mistake {}

/// Why a server does not begin, or does not change.
#[derive(Debug)]
#[non_exhaustive]
pub enum WebError {
    /// The configuration is wrong.
    Config(Mistake),
    /// A file cannot be read, or a folder opened.
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A certificate or key cannot be used.
    Certificate {
        /// The file, or whose it is.
        what: String,
        /// Why not.
        why: String,
    },
    /// An address cannot be listened at.
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
    /// Another user cannot be become.
    Privileges(String),
    /// Something else of this machine is missing.
    System {
        /// What was tried.
        what: &'static str,
        /// What was said.
        why: String,
    },
}

impl WebError {
    /// A file that cannot be read.
    #[must_use]
    pub fn file(path: &Path, why: io::Error) -> Self {
        Self::File { path: path.to_owned(), why }
    }
}

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(mistake) => mistake.fmt(f),
            Self::File { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Certificate { what, why } => write!(f, "{what}: {why}"),
            Self::Bind { address, why } => write!(f, "cannot listen at {address}: {why}"),
            Self::Privileges(why) => write!(f, "cannot drop privileges: {why}"),
            Self::System { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for WebError {}

impl From<Mistake> for WebError {
    fn from(mistake: Mistake) -> Self {
        Self::Config(mistake)
    }
}
