//! The socket at which a service is found.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use super::{Error, Succession};

/// Connections that wait to be taken.
const BACKLOG: i32 = 128;

/// A socket that takes connections, and its place in the file system, which goes with it.
#[derive(Debug)]
pub(super) struct Listening {
    socket: OwnedFd,
    path: PathBuf,
    /// Which file it is: another service may have put its own there since.
    file: (u64, u64),
    /// Held while the service lives, so that two that begin at once do not take each other's socket away.
    lock: File,
    /// A successor has it: the place is not cleared away.
    given: AtomicBool,
}

impl Listening {
    /// Binds, takes the place of a socket that nobody serves, and lets those in whom the mode permits.
    pub(super) fn at(path: &Path, mode: u32) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::Socket(path.to_owned(), e);
        let lock = lock(path).map_err(failed)?.ok_or_else(|| Error::InUse(path.to_owned()))?;
        let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
        let socket = packets().map_err(failed)?;
        match bind(&socket, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => {
                replace(path, &address)?;
                bind(&socket, &address).map_err(|e| failed(e.into()))?;
            }
            Err(e) => return Err(failed(e.into())),
        }
        // Nobody can connect before `listen`: there is no moment in which the mode is another one.
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        listen(&socket, BACKLOG).map_err(|e| failed(e.into()))?;
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self { socket, path: path.to_owned(), file: (meta.dev(), meta.ino()), lock, given: AtomicBool::new(false) })
    }

    /// Goes on where another service was.
    pub(super) fn taken_over(from: Succession) -> (Self, Vec<UnixStream>) {
        let Succession { socket, lock, path, file, elders } = from;
        (Self { socket, path, file, lock: lock.into(), given: AtomicBool::new(false) }, elders)
    }

    /// What a successor needs to go on here. Both can take connections until one of them ceases to.
    pub(super) fn share(&self, elders: Vec<UnixStream>) -> io::Result<Succession> {
        let (socket, lock) = (self.socket.try_clone()?, self.lock.try_clone()?.into());
        Ok(Succession { socket, lock, path: self.path.clone(), file: self.file, elders })
    }

    /// A successor has it.
    pub(super) fn give_away(&self) {
        self.given.store(true, Ordering::Release);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        Ok(accept_with(&self.socket, SocketFlags::CLOEXEC)?)
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.given.load(Ordering::Acquire) {
            return;
        }
        let own = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if own {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn packets() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// The file that a service at `path` locks; `None` when another one has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(PathBuf::from(name))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Takes away a socket that nobody serves.
fn replace(path: &Path, address: &SocketAddrUnix) -> Result<(), Error> {
    let failed = |e: io::Error| Error::Socket(path.to_owned(), e);
    if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        let why = io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name, which is no socket");
        return Err(failed(why));
    }
    match connect(&packets().map_err(failed)?, address) {
        // Whoever takes packets or streams there is alive.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE | Errno::ACCESS) => Err(Error::InUse(path.to_owned())),
        Err(_) => fs::remove_file(path).map_err(failed),
    }
}
