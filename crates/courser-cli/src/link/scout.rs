//! Finds out early that no program has a port.
//!
//! A machine without a program on a port answers datagrams with an ICMP message. The system tells of it only on a socket
//! that is connected to that address, which an endpoint's socket is not. So when a server is slow to answer, a second
//! socket, connected, sends it a byte that no server answers, and listens for that message alone. To one that answers at once
//! none is sent.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use courser::net::socket::SocketConfig;
use courser_core::time::Instant;

/// The first byte of a packet with a short header, and nothing behind it: too short to be anything, so that servers drop it
/// without a word.
const KNOCK: [u8; 1] = [0x40];
/// A server that answers within that time is not asked.
const PATIENCE: Duration = Duration::from_millis(200);
/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Looks at an address; after that, silence is silence.
const LOOKS_MAX: u32 = 40;
/// Every so many looks the byte is sent again: the first, or its answer, may be lost.
const KNOCK_EVERY: u32 = 16;

/// Those of a client, one for each address that it tries.
#[derive(Debug, Default)]
pub struct Scouts {
    out: Vec<Scout>,
}

#[derive(Debug)]
struct Scout {
    to: SocketAddr,
    socket: UdpSocket,
    looks: u32,
    next: Instant,
}

impl Scouts {
    /// Begins to look after an address that was just called. Without a socket to spare nothing is found out.
    pub fn follow(&mut self, to: SocketAddr, now: Instant) {
        let made = UdpSocket::bind(SocketConfig::towards(to).local).and_then(|socket| {
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        if let Ok(socket) = made {
            self.out.push(Scout { to, socket, looks: 0, next: now + PATIENCE });
        }
    }

    /// An address whose port nobody has; each is told once.
    pub fn refused(&mut self, now: Instant) -> Option<SocketAddr> {
        let at = self.out.iter_mut().position(|s| now >= s.next && s.is_refused(now));
        self.out.retain(|s| s.looks < LOOKS_MAX || at.is_some());
        at.map(|at| self.out.swap_remove(at).to)
    }

    /// When there is something to look at again.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.out.iter().map(|s| s.next).min()
    }

    /// Somebody answered: no more looks.
    pub fn call_back(&mut self) {
        self.out.clear();
    }
}

impl Scout {
    fn is_refused(&mut self, now: Instant) -> bool {
        let refused = |e: &std::io::Error| {
            // The second is how Windows says it.
            matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
        };
        let heard = self.socket.recv(&mut [0; 1]).is_err_and(|e| refused(&e));
        let told =
            !heard && self.looks.is_multiple_of(KNOCK_EVERY) && self.socket.send(&KNOCK).is_err_and(|e| refused(&e));
        self.looks += 1;
        self.next = now + PAUSE;
        heard || told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until there is an answer or no look is left, without the pauses that only cost a test time.
    fn look(scouts: &mut Scouts, begun: Instant) -> Option<SocketAddr> {
        assert_eq!(scouts.refused(begun), None, "nobody is asked at once");
        while let Some(now) = scouts.next() {
            if let Some(found) = scouts.refused(now) {
                return Some(found);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    #[test]
    fn a_slow_server_is_sent_nothing_that_asks_for_an_answer() {
        let slow = UdpSocket::bind("127.0.0.1:0").unwrap();
        let begun = Instant::from_micros(1);
        let mut scouts = Scouts::default();
        scouts.follow(slow.local_addr().unwrap(), begun);
        assert_eq!(scouts.refused(begun + PATIENCE), None);
        let mut heard = [0; 1500];
        assert_eq!(slow.recv(&mut heard).unwrap(), 1, "no version of QUIC has packets of one byte");
    }

    #[test]
    fn a_port_that_nobody_has_is_told_and_a_silent_program_is_not() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let begun = Instant::from_micros(1);
        let mut scouts = Scouts::default();
        scouts.follow(silent.local_addr().unwrap(), begun);
        assert_eq!(scouts.next(), Some(begun + PATIENCE));
        assert_eq!(look(&mut scouts, begun), None);
        scouts.follow(silent.local_addr().unwrap(), begun);
        scouts.follow(free, begun);
        assert_eq!(look(&mut scouts, begun), Some(free));
        scouts.call_back();
        assert_eq!(scouts.next(), None);
    }
}
