//! All sockets of a server on their way to the process that takes its place.
//!
//! The listening sockets of TCP are the same in both processes: who waits in one's queue is accepted by either, and the queue
//! never closes. Ports of QUIC go by [`Handover`], which says where datagrams of connections that stay belong. Nothing is lost
//! when the new process does not come up: this one accepts all the while, and dropping what was to be handed over undoes it.

use std::net::TcpListener;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::unix::net::UnixStream;

use courser::Handover;

/// What one server gives to the next.
#[derive(Debug, Default)]
pub struct Succession {
    /// HTTP/1.1 and HTTP/2.
    pub tcp: Vec<TcpListener>,
    /// Figures.
    pub figures: Option<TcpListener>,
    /// HTTP/3.
    pub quic: Vec<Handover>,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod wire {
    use std::io::{self, IoSlice, IoSliceMut, Read, Write};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    };

    use super::{Handover, Succession, TcpListener, UnixStream};

    /// Changes with the form.
    const MAGIC: &[u8; 8] = b"courserW";

    impl Succession {
        /// Sends it to another process, by a stream that nobody else can read, as for [`Handover::send`].
        ///
        /// # Errors
        /// As the system reports it; then everything is as before.
        pub fn send(self, mut to: &UnixStream) -> io::Result<()> {
            let count = |n: usize| u8::try_from(n).map_err(io::Error::other);
            let mut head = MAGIC.to_vec();
            head.extend([count(self.tcp.len())?, self.figures.is_some().into(), count(self.quic.len())?]);
            to.write_all(&head)?;
            for listener in self.tcp.iter().chain(&self.figures) {
                send_listener(to, listener)?;
            }
            self.quic.into_iter().try_for_each(|port| port.send(to))
        }

        /// Receives what [`send`](Self::send) sent.
        ///
        /// # Errors
        /// As the system reports it, and [`io::ErrorKind::InvalidData`] for something else.
        pub fn receive(mut from: &UnixStream) -> io::Result<Self> {
            let mut head = [0; 8 + 3];
            from.read_exact(&mut head)?;
            let [.., tcp, figures, quic] = head;
            if !head.starts_with(MAGIC) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "these are no sockets of a web server"));
            }
            let tcp = (0..tcp).map(|_| receive_listener(from)).collect::<io::Result<_>>()?;
            let figures = (figures != 0).then(|| receive_listener(from)).transpose()?;
            let quic = (0..quic).map(|_| Handover::receive(from)).collect::<io::Result<_>>()?;
            Ok(Self { tcp, figures, quic })
        }
    }

    /// Goes along with the descriptor.
    const BYTE: [u8; 1] = *b"l";

    fn send_listener(to: &UnixStream, listener: &TcpListener) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptor = [listener.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&descriptor)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        rustix::net::sendmsg(to, &[IoSlice::new(&BYTE)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive_listener(from: &UnixStream) -> io::Result<TcpListener> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let read =
            rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if read.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let found = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "a socket is missing");
        let descriptor: OwnedFd = found.filter(|_| byte == BYTE).ok_or_else(missing)?;
        Ok(descriptor.into())
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn listeners_arrive_in_their_order_and_something_else_is_refused() {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let all = Succession { tcp: vec![listener(), listener()], figures: Some(listener()), quic: Vec::new() };
        let places = |all: &Succession| -> Vec<_> {
            all.tcp.iter().chain(&all.figures).map(|listener| listener.local_addr().unwrap()).collect()
        };
        let sent = places(&all);
        let (ours, theirs) = UnixStream::pair().unwrap();
        all.send(&ours).unwrap();
        assert_eq!(places(&Succession::receive(&theirs).unwrap()), sent);

        // A descriptor that does not come, another form, and an end in the middle.
        for (wrong, why) in [
            (&b"courserW\x01\x00\x00l"[..], "a socket is missing"),
            (b"courser1\x01\x00\x00l", "no sockets of a web server"),
            (b"courserW\x01", "failed to fill whole buffer"),
            (b"courserW\x01\x00\x00", "unexpected end of file"),
        ] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(wrong).unwrap();
            drop(ours);
            let e = Succession::receive(&theirs).unwrap_err().to_string();
            assert!(e.contains(why), "{e}");
        }
    }
}
