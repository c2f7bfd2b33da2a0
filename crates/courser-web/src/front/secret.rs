//! What a server keeps over a crash, so that its clients need not wait: one secret in a file.
//!
//! A server that lost its connections answers what still comes for them with stateless resets (RFC 9000 section 10.3), which
//! clients believe when the server has the key of before. Each address has a key of its own, derived from the secret: else an
//! endpoint would tell the reset tokens of another's connections to whoever knows their connection IDs. Address tokens hold
//! over a restart for the same reason.
//!
//! ```text
//! secret, 32 bytes ── HMAC-SHA256 ("reset", address)  ──▶ key of stateless resets
//!                  └─ HMAC-SHA256 ("tokens", address) ──▶ key of address tokens
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::error::WebError;

/// Bytes of a secret.
const LEN: usize = 32;

/// A server's secret.
pub struct Secret(hmac::Key);

impl Secret {
    /// Reads the secret in that file, which is made when it is not there.
    ///
    /// # Errors
    /// A file that cannot be read or made, is no secret, or is one that others may read.
    pub fn load(path: &Path) -> Result<Self, WebError> {
        let bytes = match File::open(path) {
            Ok(file) => read(&file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(path),
            Err(e) => Err(e),
        };
        let bytes = bytes.map_err(|why| WebError::file(path, why))?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)))
    }

    /// The key for that use at that address.
    pub fn key(&self, what: &str, at: SocketAddr) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(what.as_bytes());
        context.update(&[0]);
        context.update(at.to_string().as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }
}

fn read(mut file: &File) -> io::Result<Zeroizing<[u8; LEN]>> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o077 != 0 {
        return Err(wrong("others may read or write this secret; take that from them (chmod 600)"));
    }
    let mut bytes = Zeroizing::new([0; LEN]);
    let whole = file.read_exact(&mut *bytes).is_ok() && file.read(&mut [0])? == 0;
    if whole { Ok(bytes) } else { Err(wrong("a secret has 32 bytes; remove the file, and a new one is made")) }
}

/// Makes one. What is in the file is whole or not there.
fn make(path: &Path) -> io::Result<Zeroizing<[u8; LEN]>> {
    let mut bytes = Zeroizing::new([0; LEN]);
    SystemRandom::new().fill(&mut *bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    // Left by a crash, perhaps: in a container every process has the same number.
    let _ = std::fs::remove_file(&beside);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    let written = file.write_all(&*bytes).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| std::fs::rename(&beside, path));
    if placed.is_err() {
        // It is of no use to anybody; the error is told.
        let _ = std::fs::remove_file(&beside);
    }
    placed.map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_secret_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let (one, two) = (Secret::load(&path).unwrap(), Secret::load(&path).unwrap());
        let place = at("127.0.0.1:443");
        assert_eq!(one.key("reset", place), two.key("reset", place));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        let other = Secret::load(&dir.path().join("other")).unwrap();
        assert_ne!(one.key("reset", place), other.key("reset", place));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_a_crash_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(format!("secret.{}", std::process::id()));
        std::fs::write(&left, b"half").unwrap();
        Secret::load(&dir.path().join("secret")).unwrap();
        assert!(!left.exists());
    }

    //= rfc9000#21.11-2
    #[test]
    fn addresses_and_uses_have_keys_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::load(&dir.path().join("secret")).unwrap();
        let keys = ["127.0.0.1:443", "127.0.0.1:444", "[::1]:443"]
            .map(at)
            .into_iter()
            .flat_map(|at| ["reset", "tokens"].map(|what| secret.key(what, at)))
            .collect::<std::collections::HashSet<_>>();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn what_is_no_secret_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let refused = |bytes: &[u8], mode: u32| {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, bytes).unwrap();
            #[cfg(unix)]
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            Secret::load(&path).err().map(|e| e.to_string())
        };
        assert_eq!(refused(&[7; LEN], 0o600), None);
        for bytes in [&[][..], &[7; LEN - 1], &[7; LEN + 1]] {
            assert!(refused(bytes, 0o600).unwrap().contains("secret: a secret has 32 bytes; remove the file"));
        }
        #[cfg(unix)]
        for mode in [0o640, 0o604, 0o620] {
            assert!(refused(&[7; LEN], mode).unwrap().contains("chmod 600"), "{mode:o}");
        }
        let nowhere = Secret::load(&dir.path().join("none/secret")).err().unwrap();
        assert!(nowhere.to_string().contains("none/secret: No such file"), "{nowhere}");
    }
}
