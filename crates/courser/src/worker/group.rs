//! Sockets for workers that share a port.
//!
//! | [`Steering`] | Sockets | Who decides over a datagram | Handed over between workers |
//! |---|---|---|---|
//! | `Filter` | one each (`SO_REUSEPORT`) | a filter in the system reads the connection ID | nothing, as a rule |
//! | `Hash` | one each (`SO_REUSEPORT`) | the system, by addresses and ports | what comes from an address that changed |
//! | `One` | one for all | the first worker reads everything | all that is not the first worker's |
//!
//! [`bind`] takes the wanted way or the next one that the system has. In every case a datagram reaches the worker that its
//! connection ID names: [`Crossing`] sees to that.

use std::io;
use std::net::UdpSocket;

use courser_core::cid::{OWN_CID_LEN, WORKERS_MAX};

use super::crossing::Crossing;
use crate::net::os;
use crate::net::socket::{Socket, SocketConfig};

/// How datagrams that come to one port find their worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steering {
    /// By a filter in the system that reads connection IDs. Linux.
    #[default]
    Filter,
    /// By the system's hash of addresses and ports. Linux.
    Hash,
    /// Through the first worker.
    One,
}

/// Sockets of one port, in the order of their workers.
pub struct Group {
    sockets: Vec<Socket>,
    steering: Steering,
}

/// How many workers that number asks for: 0 means as many as can run at once. Systems on which threads cannot share a socket
/// get one.
#[must_use]
pub fn workers(asked: usize) -> u8 {
    if !os::THREADS_WAIT_APART {
        return 1;
    }
    let at_once = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let asked = if asked == 0 { at_once() } else { asked };
    u8::try_from(asked).unwrap_or(WORKERS_MAX).min(WORKERS_MAX)
}

/// Binds so many sockets to the address of `config`. A port that somebody else has is an error, also when theirs could be
/// shared.
///
/// # Errors
/// As the system reports it.
pub fn bind(config: &SocketConfig, workers: u8, wanted: Steering) -> io::Result<Group> {
    around(Socket::bind(&SocketConfig { reuse_port: false, ..config.clone() })?, config, workers, wanted)
}

/// The same around a socket that somebody else bound; the workers' other sockets are bound beside it, to its port. Where the
/// system lets nobody do that (the port belongs to another user), its worker reads for all.
///
/// # Errors
/// As the system reports it, and for a socket that cannot be used.
pub fn given(config: &SocketConfig, udp: UdpSocket, workers: u8, wanted: Steering) -> io::Result<Group> {
    let first = Socket::given(config, udp)?;
    let dual_stack = first.local_addr().is_ipv6() && !socket2::SockRef::from(first.udp()).only_v6()?;
    around(first, &SocketConfig { dual_stack, ..config.clone() }, workers, wanted)
}

fn around(first: Socket, config: &SocketConfig, workers: u8, wanted: Steering) -> io::Result<Group> {
    let config = SocketConfig { local: first.local_addr(), reuse_port: true, ..config.clone() };
    let wanted = if os::PORTS_ARE_SHARED { wanted } else { Steering::One };
    let mut group = Group { sockets: vec![first], steering: wanted };
    if workers > 1 && wanted != Steering::One && group.share(&config, workers).is_err() {
        group.sockets.truncate(1);
        group.steering = Steering::One;
    }
    if workers > 1 && group.steering == Steering::Filter && group.steer(workers).is_err() {
        group.steering = Steering::Hash;
    }
    while group.sockets.len() < usize::from(workers) {
        let copy = group.udp(0)?;
        group.sockets.push(Socket::adopt(&config, copy)?.only_send());
    }
    Ok(group)
}

impl Group {
    /// Sockets that another process had, with what it knows of them.
    pub(crate) fn adopt(config: &SocketConfig, sockets: Vec<UdpSocket>, steering: Steering) -> io::Result<Self> {
        let mut adopted = Vec::with_capacity(sockets.len());
        for (n, udp) in sockets.into_iter().enumerate() {
            let socket = Socket::adopt(config, udp)?;
            adopted.push(if n > 0 && steering == Steering::One { socket.only_send() } else { socket });
        }
        Ok(Self { sockets: adopted, steering })
    }

    /// Binds the other sockets beside the first. That was bound for itself, so that it could not slip in among somebody
    /// else's; it lets others in afterwards.
    fn share(&mut self, config: &SocketConfig, workers: u8) -> io::Result<()> {
        if let Some(first) = self.sockets.first() {
            #[cfg(unix)]
            socket2::SockRef::from(first.udp()).set_reuse_port(true)?;
            #[cfg(not(unix))]
            let _ = first;
        }
        for _ in 1..workers {
            self.sockets.push(Socket::bind(config)?);
        }
        Ok(())
    }

    fn steer(&self, workers: u8) -> io::Result<()> {
        let first = self.sockets.first().ok_or(io::ErrorKind::NotFound)?;
        os::steer(first.udp(), OWN_CID_LEN as u8, workers)
    }

    fn udp(&self, at: usize) -> io::Result<UdpSocket> {
        self.sockets.get(at).ok_or(io::ErrorKind::NotFound)?.udp().try_clone()
    }

    /// What the system steers by.
    #[must_use]
    pub const fn steering(&self) -> Steering {
        self.steering
    }

    /// Each socket with its worker's place. `dials` when the workers begin connections too: what answers them does not
    /// come to the worker that began by itself where the system steers by addresses.
    #[must_use]
    pub fn places(self, instance: u8, dials: bool) -> Vec<(Socket, Crossing)> {
        let workers = u8::try_from(self.sockets.len()).unwrap_or(WORKERS_MAX);
        let first_come = self.steering == Steering::Hash && !dials;
        self.sockets.into_iter().zip(Crossing::places(workers, instance, first_come)).collect()
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("workers", &self.sockets.len()).field("steering", &self.steering).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(unix, not(feature = "portable")))]
    use crate::net::socket::Slots;

    #[test]
    fn the_number_of_workers_is_bounded_and_nought_means_all_processors() {
        let most = if os::THREADS_WAIT_APART { WORKERS_MAX } else { 1 };
        assert_eq!((workers(1), workers(100_000)), (1, most));
        assert!((1..=most).contains(&workers(0)));
    }

    #[test]
    fn a_port_that_somebody_has_is_not_shared_with_him() {
        let config = SocketConfig { reuse_port: true, ..SocketConfig::new("127.0.0.1:0".parse().unwrap()) };
        let theirs = Socket::bind(&config).unwrap();
        let ours = SocketConfig::new(theirs.local_addr());
        assert_eq!(bind(&ours, 2, Steering::Filter).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[cfg(all(unix, not(feature = "portable")))]
    /// Sends each worker's connection IDs from several ports and returns how often another socket got them.
    fn strays(steering: Steering, workers: u8) -> (Steering, usize, usize) {
        let group = bind(&SocketConfig::new("127.0.0.1:0".parse().unwrap()), workers, steering).unwrap();
        let (got, mut places) = (group.steering(), group.places(0, false));
        assert_eq!(places.len(), usize::from(workers));
        let to = places[0].0.local_addr();
        let (mut strays, mut all) = (0, 0);
        for _ in 0..4 {
            let from = UdpSocket::bind("127.0.0.1:0").unwrap();
            for last in (0..=255).step_by(5) {
                let mut datagram = [0x41; 60];
                datagram[8] = last;
                from.send_to(&datagram, to).unwrap();
                let mut initial = [0xc0; 1200];
                initial[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 17]);
                initial[22] = last;
                from.send_to(&initial, to).unwrap();
            }
        }
        let mut slots = Slots::new(4);
        for (n, (socket, _)) in places.iter_mut().enumerate() {
            while socket.receive(&mut slots).unwrap() > 0 {
                for (arrival, train) in slots.trains() {
                    for datagram in train.chunks(arrival.stride) {
                        let last = datagram[if datagram[0] & 0x80 == 0 { 8 } else { 22 }];
                        all += 1;
                        strays += usize::from(usize::from(last % workers) != n);
                    }
                }
            }
        }
        (got, strays, all)
    }

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    #[test]
    fn the_filter_leaves_nothing_to_hand_over_where_the_system_takes_it() {
        for workers in [2, 3, 16] {
            let (got, strays, all) = strays(Steering::Filter, workers);
            assert_eq!(all, 4 * 52 * 2);
            // A system may refuse filters; then the hash does its part.
            assert!(got == Steering::Hash || strays == 0, "{strays} of {all} went astray");
        }
    }

    #[cfg(all(unix, not(feature = "portable")))]
    #[test]
    fn without_it_everything_arrives_too() {
        let (got, astray, all) = strays(Steering::Hash, 4);
        assert!(all == 416 && astray > 0 || got == Steering::One);
        let (got, _, all) = strays(Steering::One, 4);
        assert_eq!((got, all), (Steering::One, 416));
    }
}
