//! What a service gives to the one that takes its place: the socket at which applications attach, the lock of its place, and
//! ways to this service and to older ones, through which the addresses of their programs are claimed.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use courser_session::control::{receive, send};

/// Changes with the form.
const MAGIC: &[u8; 8] = b"courserS";

/// A service's place on its way to another process.
#[derive(Debug)]
pub struct Succession {
    pub(super) socket: OwnedFd,
    pub(super) lock: OwnedFd,
    pub(super) path: PathBuf,
    /// Which file the socket is.
    pub(super) file: (u64, u64),
    pub(super) elders: Vec<UnixStream>,
}

impl Succession {
    /// Sends it to another process, by a stream that nobody else can read.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn send(&self, to: &UnixStream) -> io::Result<()> {
        let mut message = MAGIC.to_vec();
        message.extend(self.file.0.to_le_bytes());
        message.extend(self.file.1.to_le_bytes());
        message.extend_from_slice(self.path.as_os_str().as_bytes());
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.socket.as_fd(), self.lock.as_fd()];
        descriptors.extend(self.elders.iter().map(UnixStream::as_fd));
        send(to.as_fd(), &message, &descriptors)
    }

    /// Receives what [`send`](Self::send) sent.
    ///
    /// # Errors
    /// As the system reports it, and [`io::ErrorKind::InvalidData`] for something else.
    pub fn receive(from: &UnixStream) -> io::Result<Self> {
        let (mut message, mut descriptors) = (Vec::new(), Vec::new());
        receive(from.as_fd(), &mut message, &mut descriptors)?;
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "this is no place of a service");
        let rest = message.strip_prefix(MAGIC).ok_or_else(strange)?;
        let (device, rest) = rest.split_first_chunk().ok_or_else(strange)?;
        let (number, path) = rest.split_first_chunk().ok_or_else(strange)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
        let mut descriptors = descriptors.into_iter();
        let (Some(socket), Some(lock)) = (descriptors.next(), descriptors.next()) else { return Err(strange()) };
        let file = (u64::from_le_bytes(*device), u64::from_le_bytes(*number));
        Ok(Self { socket, lock, path, file, elders: descriptors.map(UnixStream::from).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_no_place_of_a_service_is_refused() {
        for bytes in [&b"x"[..], b"courserS", b"courserS0123456789abcdef/path"] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(bytes).unwrap();
            let e = Succession::receive(&theirs).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_place_arrives_as_it_was() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (elder, far) = UnixStream::pair().unwrap();
        let file = || tempfile::tempfile().unwrap().into();
        let path = PathBuf::from("/run/a place");
        let sent = Succession { socket: file(), lock: file(), path, file: (7, 9), elders: vec![elder] };
        sent.send(&ours).unwrap();
        let got = Succession::receive(&theirs).unwrap();
        assert_eq!((got.path, got.file, got.elders.len()), (sent.path, (7, 9), 1));
        (&got.elders[0]).write_all(b"!").unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(&mut &far, &mut byte).unwrap();
    }
}
