//! A key log file, for tools that decrypt captures.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::KeyLog;

/// Appends secrets to a file in the format of `SSLKEYLOGFILE`. Whoever reads the file can read the connections.
#[derive(Debug)]
pub struct KeyLogFile {
    file: Mutex<File>,
    /// Lines that could not be written; the handshake goes on without them.
    lost: AtomicU64,
}

impl KeyLogFile {
    /// Opens or creates the file; a new one is readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { file: Mutex::new(options.open(path)?), lost: AtomicU64::new(0) })
    }

    /// Opens the file that the environment variable `SSLKEYLOGFILE` names; `None` when it names none.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn from_env() -> io::Result<Option<Self>> {
        match std::env::var_os("SSLKEYLOGFILE") {
            Some(path) if !path.is_empty() => Self::open(path).map(Some),
            _ => Ok(None),
        }
    }

    /// How many lines could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = String::with_capacity(label.len() + 2 * (client_random.len() + secret.len()) + 3);
        line.push_str(label);
        for field in [client_random, secret] {
            line.push(' ');
            for byte in field {
                // Writing to a string does not fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push('\n');
        // One write per line: lines of several processes do not mix.
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if file.write_all(line.as_bytes()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_common_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let log = KeyLogFile::open(&path).unwrap();
        log.log("EXPORTER_SECRET", &[0x0a; 32], &[0xfe; 32]);
        log.log("X", &[1], &[2]);
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = format!("EXPORTER_SECRET {} {}\nX 01 02\n", "0a".repeat(32), "fe".repeat(32));
        assert_eq!(text, expected);
        assert_eq!(log.lost(), 0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
