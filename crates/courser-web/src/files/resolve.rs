//! From the path of a request to an open file, never outside the folder.
//!
//! Two fences, one behind the other. First the text: escapes are undone once, and what no honest client sends (`.` and `..`,
//! a slash, a backslash or a NUL in disguise) is refused, whatever a file system would make of it. Then the system: the path
//! is opened beneath the folder's descriptor, and the kernel refuses every step that would leave it, a symbolic link's
//! included, also one that is changed at that moment. Where the kernel has no such call, each part is opened from the one
//! before it and symbolic links are not followed at all.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, percent_encode};
use rustix::fs::{Mode, OFlags};

/// Bytes of a path.
const PATH_MAX: usize = 4000;
/// Bytes of one part of it.
const NAME_MAX: usize = 255;

/// A path of a request that may be looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its parts; none is empty, `.`, `..`, or has a slash.
    parts: Vec<Vec<u8>>,
    /// Whether it ends in a slash, as the path of a folder does.
    pub is_folder: bool,
}

/// Why a path is not looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No honest client asks so.
    Malformed,
    /// It is too long for any file.
    TooLong,
    /// It is not for everybody.
    Hidden,
}

impl Wanted {
    /// Reads the path of a URI.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &str, hidden: bool) -> Result<Self, Refused> {
        let Some(path) = path.strip_prefix('/') else { return Err(Refused::Malformed) };
        if path.len() > 3 * PATH_MAX {
            return Err(Refused::TooLong);
        }
        let (mut parts, mut total) = (Vec::new(), 0);
        for raw in path.split('/').filter(|raw| !raw.is_empty()) {
            let part = decoded(raw)?;
            total += part.len() + 1;
            if part.len() > NAME_MAX || total > PATH_MAX {
                return Err(Refused::TooLong);
            }
            if part.starts_with(b".") && !hidden && !(parts.is_empty() && part == b".well-known") {
                return Err(Refused::Hidden);
            }
            parts.push(part);
        }
        let is_folder = path.is_empty() || path.ends_with('/');
        Ok(Self { parts, is_folder })
    }

    /// The path from the folder that is served.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.parts.is_empty() {
            return ".".into();
        }
        self.parts.iter().map(|part| Path::new(OsStr::from_bytes(part))).collect()
    }

    /// The same, of a name in this folder.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut parts = self.parts.clone();
        parts.push(name.as_bytes().to_vec());
        Self { parts, is_folder: false }
    }

    /// The same, with something behind its name.
    #[must_use]
    pub fn with_ending(&self, ending: &str) -> Self {
        let mut parts = self.parts.clone();
        if let Some(last) = parts.last_mut() {
            last.extend_from_slice(ending.as_bytes());
        }
        Self { parts, is_folder: false }
    }

    /// The last part.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.parts.last().map_or(&[], Vec::as_slice))
    }

    /// As it is written in a URI; a folder's ends in a slash.
    #[must_use]
    pub fn uri(&self, folder: bool) -> String {
        let mut uri = String::from("/");
        for (i, part) in self.parts.iter().enumerate() {
            uri.extend(escaped(part));
            if folder || i + 1 < self.parts.len() {
                uri.push('/');
            }
        }
        uri
    }
}

/// A name as it is written in the path of a URI.
pub(super) fn escaped(name: &[u8]) -> PercentEncode<'_> {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    percent_encode(name, PLAIN)
}

/// One part of a path without its escapes.
fn decoded(raw: &str) -> Result<Vec<u8>, Refused> {
    let bytes = raw.as_bytes();
    let complete = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !complete(at)) {
        return Err(Refused::Malformed);
    }
    let part: Vec<u8> = percent_decode_str(raw).collect();
    let odd = |byte: &u8| matches!(byte, b'/' | b'\\' | 0..=0x1f | 0x7f);
    if part.iter().any(odd) || part == b"." || part == b".." {
        return Err(Refused::Malformed);
    }
    Ok(part)
}

/// A folder that is served.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    symlinks: bool,
}

impl Root {
    /// Opens the folder.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(path: &Path, symlinks: bool) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(path, flags, Mode::empty())?, symlinks })
    }

    /// Opens a file or folder beneath it, to be read.
    ///
    /// # Errors
    /// As the system says; `ENOENT` for what leads outside.
    pub fn open_beneath(&self, path: &Path) -> io::Result<OwnedFd> {
        // Neither waits for whoever writes to a pipe nor makes a terminal ours.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = match self.open_by_kernel(path, flags) {
            None => self.open_step_by_step(path, flags),
            Some(opened) => opened,
        };
        // Whether something is there is nobody's business outside.
        opened.map_err(|e| match rustix::io::Errno::from_io_error(&e) {
            Some(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                io::ErrorKind::NotFound.into()
            }
            _ => e,
        })
    }

    /// `None` when the kernel has no call for this.
    #[cfg(target_os = "linux")]
    fn open_by_kernel(&self, path: &Path, flags: OFlags) -> Option<io::Result<OwnedFd>> {
        use rustix::fs::{ResolveFlags, openat2};
        use rustix::io::Errno;
        /// Somebody renames folders meanwhile; so often it is tried again.
        const ATTEMPTS: usize = 8;

        let mut how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        how.set(ResolveFlags::NO_SYMLINKS, !self.symlinks);
        let mut result = Err(Errno::AGAIN);
        for _ in 0..ATTEMPTS {
            result = openat2(&self.folder, path, flags, Mode::empty(), how);
            if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        match result {
            // Old kernels, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => None,
            other => Some(other.map_err(Into::into)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_by_kernel(&self, _: &Path, _: OFlags) -> Option<io::Result<OwnedFd>> {
        None
    }

    fn open_step_by_step(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        use rustix::fs::openat;
        use std::path::Component;

        let step = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut at = self.folder.as_fd().try_clone_to_owned()?;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            match part {
                Component::CurDir => at = openat(&at, ".", step, Mode::empty())?,
                Component::Normal(name) if last => {
                    return Ok(openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?);
                }
                Component::Normal(name) => at = openat(&at, name, step, Mode::empty())?,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(io::ErrorKind::NotFound.into());
                }
            }
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests;
