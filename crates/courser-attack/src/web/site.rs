//! A folder that victims serve.

use std::io;
use std::path::PathBuf;

use tempfile::TempDir;

/// The large file.
pub const LARGE: &str = "/large.bin";
/// Its length.
pub const LARGE_LEN: usize = 4 << 20;
/// What stands in files that nobody is to see.
pub const MARK: &str = "this was not to be seen";
/// What stands in the page.
pub const PAGE: &str =
    "<!doctype html><title>Courser</title><p>A page of a few words that every honest client gets whole.";

/// A folder with a page and a large file, and a file beside it that is not served; removed when dropped.
pub struct Site(TempDir);

impl Site {
    /// A new one under the system's folder for such.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> io::Result<Self> {
        let site = Self(TempDir::new()?);
        let root = site.root();
        std::fs::create_dir(&root)?;
        std::fs::write(root.join("index.html"), PAGE)?;
        std::fs::write(root.join("large.bin"), vec![b'L'; LARGE_LEN])?;
        std::fs::write(root.join(".hidden"), MARK)?;
        std::fs::write(site.0.path().join("secret.txt"), MARK)?;
        #[cfg(unix)]
        std::os::unix::fs::symlink(site.0.path(), root.join("outside"))?;
        Ok(site)
    }

    /// The folder that is served.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.0.path().join("site")
    }
}
