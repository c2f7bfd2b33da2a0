//! A folder that victims serve.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

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
pub struct Site {
    folder: PathBuf,
}

impl Site {
    /// A new one under the system's folder for such.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("courser-attack-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let site = Self { folder: std::env::temp_dir().join(name) };
        let root = site.root();
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join("index.html"), PAGE)?;
        std::fs::write(root.join("large.bin"), vec![b'L'; LARGE_LEN])?;
        std::fs::write(root.join(".hidden"), MARK)?;
        std::fs::write(site.folder.join("secret.txt"), MARK)?;
        #[cfg(unix)]
        std::os::unix::fs::symlink(&site.folder, root.join("outside"))?;
        Ok(site)
    }

    /// The folder that is served.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("site")
    }

    /// A file beside it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn beside(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// The folder around it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
