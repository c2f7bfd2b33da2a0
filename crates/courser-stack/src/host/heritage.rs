//! Addresses that a program had at an older service, for the same program at this one.
//!
//! ```text
//! successor                                     predecessor
//! claim: protocol, process, user, address ───▶ looks among what that process has
//!        the socket, or nothing           ◀─── QUIC: a handover (D75); TCP: the listening socket itself
//! ```
//!
//! Each predecessor that has applications still is at the other end of a local stream of its own. Streams are handed on from
//! service to service, so that one in between can end. Nobody but the process itself gets what it had: its number and its
//! user, which the system tells of both attachments, have to be the same.
//!
//! A successor that ends asks, too, whether its predecessor has the socket's place still: one that was never told of as the
//! successor leaves the place as it found it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use courser::{Handover, HandoverError};
use courser_session::control::{Protocol, Role, receive, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::application::Entry;
use super::endpoint::Workers;
use super::{Host, Who};

/// Predecessors that are known, at most: the oldest one is forgotten, and what its programs have stays with it.
const ELDERS_MAX: usize = 8;
/// How long a predecessor may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// An address as text.
const ADDRESS_MAX: usize = 80;
/// Process, user, what is claimed, length of the address.
const HEAD: usize = 10;

const NOTHING: u8 = 0;
const PORT: u8 = 1;
const SOCKET: u8 = 2;
const STAYS: u8 = 3;
/// Asks for nothing but whether the place of the socket is the predecessor's still.
const PLACE: u8 = 4;

/// It is there, and it cannot be had now.
pub(crate) struct Stays;

/// Ways to predecessors, the newest first.
#[derive(Default)]
pub(crate) struct Heritage(Mutex<Vec<UnixStream>>);

impl Heritage {
    pub(crate) fn set(&self, elders: Vec<UnixStream>) {
        *self.lock() = elders;
    }

    /// The ways, which nobody uses until they are given back.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies of the ways for a successor, with one to this service before them.
    pub(crate) fn with(elders: &mut Vec<UnixStream>, own: UnixStream) -> io::Result<Vec<UnixStream>> {
        elders.retain(lives);
        let mut all = vec![own];
        for elder in elders.iter().take(ELDERS_MAX - 1) {
            all.push(elder.try_clone()?);
        }
        Ok(all)
    }

    /// How many predecessors have applications still.
    pub(crate) fn living(&self) -> usize {
        let mut elders = self.lock();
        elders.retain(lives);
        elders.len()
    }

    /// Whether the newest predecessor serves at the socket still, because it never heard that somebody else does.
    pub(crate) fn is_place_kept(&self) -> bool {
        let mut elders = self.lock();
        elders.retain(lives);
        elders.first().is_some_and(|elder| matches!(asked(elder, (0, 0, PLACE), ""), Ok(Answer::Stays)))
    }

    /// A QUIC listener's port.
    pub(crate) fn port(&self, who: Who, at: SocketAddr) -> Result<Option<Handover>, Stays> {
        self.claim(Protocol::Quic, who, at, Handover::receive)
    }

    /// A TCP listener's socket.
    pub(crate) fn socket(&self, who: Who, at: SocketAddr) -> Option<TcpListener> {
        self.claim(Protocol::Tcp, who, at, |elder| {
            let (mut packet, mut descriptors) = (Vec::new(), Vec::new());
            receive(elder.as_fd(), &mut packet, &mut descriptors)?;
            descriptors.pop().map(TcpListener::from).ok_or_else(|| io::ErrorKind::InvalidData.into())
        })
        .ok()?
    }

    /// Asks one after the other. One that does not answer as it should is not asked again.
    fn claim<T>(
        &self,
        protocol: Protocol,
        who: Who,
        at: SocketAddr,
        take: impl Fn(&UnixStream) -> io::Result<T>,
    ) -> Result<Option<T>, Stays> {
        let Who::Process { pid, user, .. } = who else { return Ok(None) };
        let mut elders = self.lock();
        let (mut found, mut stays) = (None, false);
        elders.retain(|elder| {
            if found.is_some() || stays {
                return true;
            }
            let answer = ask(elder, (protocol, pid, user, at)).and_then(|answer| {
                stays = answer == Answer::Stays;
                if answer == Answer::Comes { take(elder).map(Some) } else { Ok(None) }
            });
            answer.map(|answer| found = answer).is_ok()
        });
        if stays { Err(Stays) } else { Ok(found) }
    }
}

/// What a predecessor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    No,
    Comes,
    Stays,
}

/// Whether somebody is at the other end.
fn lives(elder: &UnixStream) -> bool {
    let mut waits = [PollFd::new(elder, PollFlags::RDHUP)];
    let now = Timespec::default();
    !matches!(poll(&mut waits, Some(&now)), Ok(n) if n > 0)
}

/// Whether the process has that address.
fn ask(elder: &UnixStream, (protocol, pid, user, at): (Protocol, u32, u32, SocketAddr)) -> io::Result<Answer> {
    let what = if protocol == Protocol::Quic { PORT } else { SOCKET };
    asked(elder, (pid, user, what), &at.to_string())
}

fn asked(mut elder: &UnixStream, (pid, user, what): (u32, u32, u8), text: &str) -> io::Result<Answer> {
    let mut claim = Vec::with_capacity(HEAD + ADDRESS_MAX);
    claim.extend(pid.to_le_bytes());
    claim.extend(user.to_le_bytes());
    claim.push(what);
    claim.push(u8::try_from(text.len()).map_err(io::Error::other)?);
    claim.extend_from_slice(text.as_bytes());
    for limit in [elder.set_read_timeout(Some(PATIENCE)), elder.set_write_timeout(Some(PATIENCE))] {
        limit?;
    }
    elder.write_all(&claim)?;
    let mut answer = [0];
    elder.read_exact(&mut answer)?;
    match answer {
        [NOTHING] => Ok(Answer::No),
        [PORT | SOCKET] => Ok(Answer::Comes),
        [STAYS] => Ok(Answer::Stays),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Host {
    /// Answers a successor until it is gone.
    pub(crate) fn answer_heir(&self, mut heir: &UnixStream) -> io::Result<()> {
        heir.set_write_timeout(Some(PATIENCE))?;
        loop {
            let mut head = [0; HEAD];
            heir.read_exact(&mut head)?;
            let [p0, p1, p2, p3, u0, u1, u2, u3, kind, length] = head;
            let mut text = [0; ADDRESS_MAX];
            let text = text.get_mut(..usize::from(length)).ok_or(io::ErrorKind::InvalidData)?;
            heir.read_exact(text)?;
            if kind == PLACE {
                heir.write_all(&[if self.is_succeeded() { NOTHING } else { STAYS }])?;
                continue;
            }
            let at = std::str::from_utf8(text).ok().and_then(|text| text.parse::<SocketAddr>().ok());
            let at = at.ok_or(io::ErrorKind::InvalidData)?;
            let (pid, user) = (u32::from_le_bytes([p0, p1, p2, p3]), u32::from_le_bytes([u0, u1, u2, u3]));
            match kind {
                PORT => self.give_port((pid, user), at, heir)?,
                SOCKET => self.give_socket((pid, user), at, heir)?,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn give_port(&self, whose: (u32, u32), at: SocketAddr, mut heir: &UnixStream) -> io::Result<()> {
        let listens = |entry: &Entry| entry.local == at && matches!(entry.role, Role::Listen(_));
        let theirs = self.of_process(whose).into_iter().flat_map(|application| application.endpoints());
        for entry in theirs.filter(|entry| listens(entry)) {
            let Workers::Quic(endpoint) = &entry.workers else { continue };
            match endpoint.hand_over() {
                Ok(handover) => {
                    self.note(format!("the port {at} of process {} goes to the successor", whose.0));
                    heir.write_all(&[PORT])?;
                    return handover.send(heir);
                }
                // Another of this process listens there too, or none that has not moved.
                Err(HandoverError::Given) => {}
                Err(e) => {
                    self.note(format!("the port {at} stays: {e}; {}", e.remedy()));
                    return heir.write_all(&[STAYS]);
                }
            }
        }
        heir.write_all(&[NOTHING])
    }

    fn give_socket(&self, whose: (u32, u32), at: SocketAddr, mut heir: &UnixStream) -> io::Result<()> {
        let theirs = self.of_process(whose).into_iter().flat_map(|application| application.endpoints());
        let mut sockets = theirs.filter_map(|entry| entry.workers.tcp_listener(at));
        let Some(socket) = sockets.next() else { return heir.write_all(&[NOTHING]) };
        self.note(format!("the successor listens at tcp://{at} for process {}", whose.0));
        heir.write_all(&[SOCKET])?;
        send(heir.as_fd(), b"l", &[OwnedFd::as_fd(&socket)])
    }

    fn of_process(&self, (pid, user): (u32, u32)) -> Vec<std::sync::Arc<super::Application>> {
        let whose = |who: Who| matches!(who, Who::Process { pid: p, user: u, .. } if (p, u) == (pid, user));
        self.listed().into_iter().filter(|application| whose(application.who)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::thread;

    use super::*;
    use crate::host::Config;

    fn at() -> SocketAddr {
        "127.0.0.1:4433".parse().unwrap()
    }

    fn whose() -> Who {
        Who::Process { pid: 1, user: 2, group: 3 }
    }

    /// What a predecessor does with these bytes of a successor, which says nothing more then.
    fn heard(bytes: &[u8]) -> io::Result<()> {
        let (mut heir, ours) = UnixStream::pair().unwrap();
        let host = Host::new(Config::default());
        thread::scope(|scope| {
            let answering = scope.spawn(|| host.answer_heir(&ours));
            // It may have heard enough before the end.
            let _ = heir.write_all(bytes);
            let _ = heir.shutdown(Shutdown::Write);
            answering.join().unwrap()
        })
    }

    #[test]
    fn a_predecessor_survives_whatever_a_successor_says() {
        let claim = [
            1, 0, 0, 0, 2, 0, 0, 0, PORT, 14, b'1', b'2', b'7', b'.', b'0', b'.', b'0', b'.', b'1', b':', b'4', b'4',
            b'3', b'3',
        ];
        // The end of the words ends a conversation that made sense; everything else is an error at once.
        assert_eq!(heard(&claim).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(heard(&claim[..17]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2000_usize {
            let mut words = claim.repeat(1 + round % 3);
            for _ in 0..=round % 5 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = (random >> 8) as usize % words.len();
                words[at] = random as u8;
            }
            words.truncate(words.len() - round % 4);
            assert!(heard(&words).is_err(), "it ends with what was said: {words:?}");
        }
    }

    /// A way to a predecessor that answers every claim with these bytes and goes.
    fn elder(answer: &'static [u8]) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let _ = theirs.read(&mut [0; HEAD + ADDRESS_MAX]);
            let _ = theirs.write_all(answer);
        });
        ours
    }

    #[test]
    fn a_predecessor_that_answers_nonsense_is_not_asked_again() {
        let nonsense: [&[u8]; 6] = [b"", b"\xff", &[PORT], b"\x01courser1", &[PORT; 200], &[SOCKET]];
        for answer in nonsense {
            let heritage = Heritage::default();
            heritage.set(vec![elder(answer)]);
            assert!(matches!(heritage.port(whose(), at()), Ok(None)), "{answer:?}");
            assert!(heritage.lock().is_empty(), "{answer:?}");
        }
        let heritage = Heritage::default();
        heritage.set(vec![elder(b"\x02l"), elder(&[NOTHING])]);
        assert!(heritage.socket(whose(), at()).is_none(), "a socket that did not come with its word");
        let heritage = Heritage::default();
        heritage.set(vec![elder(&[STAYS])]);
        assert!(heritage.port(whose(), at()).is_err(), "it is there, and stays there");
        assert!(!heritage.is_place_kept(), "nobody is at the other end any more");
    }
}
