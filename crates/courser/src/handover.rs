//! Another process takes a port over, and no connection breaks.
//!
//! ```text
//! old: Endpoint::hand_over ──▶ Handover ──send──▶ (a local stream) ──receive──▶ Handover ──▶ new: Endpoint::take_over
//!
//!              ┌───────────────────────┐  the same sockets
//!  network ──▶ │ new: its connections  │
//!              └──────────┬────────────┘
//!                         │ what names the old instance
//!                         ▼
//!              ┌───────────────────────┐
//!              │ old: its connections  │ ──▶ network, from the same sockets
//!              └───────────────────────┘
//! ```
//!
//! The sockets themselves are handed over, with what waits in them: nothing is lost, and nobody else can take the port in
//! between. From then on only the new process reads. Connection IDs name the process that issued them
//! ([`Seat`](courser_core::cid::Seat)); those of handshakes that are under way, which clients chose, are listed. What
//! belongs to the old process goes to it through a local socket for each worker. Both send from the same sockets.
//!
//! The old process takes no new connections; it waits until its last one has ended ([`drain`](crate::Endpoint::drain)) and
//! ends. When the new one ends first, or does not come up, the old process reads from its sockets again. A handover that is
//! dropped has the same effect. The ways to processes that are older still are handed on, so that they do not depend on those
//! in between; four generations can have connections at a time.
//!
//! What is not handed on: which address tokens were used (one may prove its address once more), and tickets, unless the
//! processes share their keys (then sessions are resumed; else there is a full handshake).

use std::net::{SocketAddr, UdpSocket};

use courser_core::engine::TokenKeys;
use zeroize::Zeroizing;

use crate::worker::crossing::Elder;
use crate::worker::group::Steering;

/// A worker's socket on its way.
pub(crate) struct Handed {
    pub(crate) socket: UdpSocket,
    /// The process that hands over, and those before it that have connections still.
    pub(crate) elders: Vec<Elder>,
}

/// A port with what belongs to it, between two endpoints. As many workers go on as there were.
pub struct Handover {
    pub(crate) sockets: Vec<Handed>,
    pub(crate) steering: Steering,
    /// Of the endpoint that takes over.
    pub(crate) instance: u8,
    pub(crate) reset_key: Zeroizing<[u8; 32]>,
    pub(crate) token_keys: TokenKeys,
}

impl Handover {
    /// How many workers share the port.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.sockets.len()
    }

    /// The bound address.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.sockets.first().ok_or(std::io::ErrorKind::NotFound)?.socket.local_addr()
    }
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys are secrets.
        f.debug_struct("Handover")
            .field("workers", &self.workers())
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(feature = "portable")))]
mod wire {
    //! A handover as bytes and descriptors. Both ends are processes of one user, of one machine, at one time: the form has
    //! a version and limits, but no other care for foreign readers.

    use std::collections::HashSet;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use courser_core::cid::{INSTANCES, WORKERS_MAX};
    use courser_core::engine::TokenKeys;
    use courser_core::ids::Cid;
    use zeroize::Zeroizing;

    use super::{Handed, Handover};
    use crate::net::os::{receive_descriptors, send_descriptors};
    use crate::worker::crossing::Elder;
    use crate::worker::group::Steering;

    /// By their numbers.
    const STEERINGS: [Steering; 3] = [Steering::Filter, Steering::Hash, Steering::One];
    /// Changes with the form.
    const MAGIC: &[u8; 8] = b"courser1";
    /// Connection IDs of one worker, at most.
    const CIDS_MAX: u32 = 1 << 20;

    impl Handover {
        /// Sends it to another process. Who reads the stream gets the port and its keys: it has to be private, such as one
        /// of a pair that a child inherits, or one whose peer's user was checked.
        ///
        /// # Errors
        /// As the system reports it; then everything is as before.
        pub fn send(self, mut to: &UnixStream) -> io::Result<()> {
            let keys: Vec<&[u8; 32]> = self.token_keys.expose().collect();
            let workers = u8::try_from(self.sockets.len()).map_err(io::Error::other)?;
            // All of it at once: a buffer that grows leaves copies of keys behind.
            let mut head = Zeroizing::new(Vec::with_capacity(MAGIC.len() + 4 + 32 * (1 + keys.len())));
            head.extend_from_slice(MAGIC);
            let steering = STEERINGS.iter().position(|s| *s == self.steering).unwrap_or_default();
            head.extend([workers, steering as u8, self.instance, keys.len() as u8]);
            head.extend_from_slice(&*self.reset_key);
            keys.into_iter().for_each(|key| head.extend_from_slice(key));
            to.write_all(&head)?;
            for worker in &self.sockets {
                let relays = worker.elders.iter().map(|elder| elder.relay.as_fd());
                let descriptors: Vec<_> = [worker.socket.as_fd()].into_iter().chain(relays).collect();
                send_descriptors(to, &descriptors)?;
                for elder in &worker.elders {
                    let mut list = vec![elder.instance];
                    list.extend((elder.unsettled.len() as u32).to_be_bytes());
                    for cid in &elder.unsettled {
                        list.push(cid.len() as u8);
                        list.extend_from_slice(cid.as_slice());
                    }
                    to.write_all(&list)?;
                }
            }
            Ok(())
        }

        /// Receives what [`send`](Self::send) sent.
        ///
        /// # Errors
        /// As the system reports it, and [`io::ErrorKind::InvalidData`] for something else than a handover.
        pub fn receive(mut from: &UnixStream) -> io::Result<Self> {
            let mut head = [0; 8 + 4];
            from.read_exact(&mut head)?;
            let [.., workers, steering, instance, keys] = head;
            if !head.starts_with(MAGIC) || workers == 0 || workers > WORKERS_MAX || keys == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no handover of a port"));
            }
            let mut key = || {
                let mut key = Zeroizing::new([0; 32]);
                from.read_exact(&mut *key).map(|()| key)
            };
            let (reset_key, mut token_keys) = (key()?, TokenKeys::new(*key()?));
            for _ in 1..keys {
                token_keys = token_keys.also(*key()?);
            }
            let mut sockets = Vec::new();
            for _ in 0..workers {
                let mut descriptors = receive_descriptors(from)?.into_iter();
                let socket = descriptors.next().ok_or(io::ErrorKind::InvalidData)?.into();
                let elders = descriptors.map(|relay| elder(from, relay)).collect::<io::Result<_>>()?;
                sockets.push(Handed { socket, elders });
            }
            let steering = *STEERINGS.get(usize::from(steering)).ok_or(io::ErrorKind::InvalidData)?;
            Ok(Self { sockets, steering, instance: instance % INSTANCES, reset_key, token_keys })
        }
    }

    /// What stands behind the descriptors for each relay.
    fn elder(mut from: &UnixStream, relay: OwnedFd) -> io::Result<Elder> {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let [instance, count @ ..] = head;
        let mut unsettled = HashSet::new();
        for _ in 0..u32::from_be_bytes(count).min(CIDS_MAX) {
            let (mut len, mut bytes) = ([0], [0; 255]);
            from.read_exact(&mut len)?;
            let bytes = &mut bytes[..usize::from(len[0])];
            from.read_exact(bytes)?;
            unsettled.extend(Cid::new(bytes));
        }
        Ok(Elder { instance, relay: relay.into(), unsettled })
    }
}
