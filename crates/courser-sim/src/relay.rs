//! The link model between real UDP sockets, in real time.
//!
//! A relay listens on a socket of its own and passes what clients send to one upstream address, through a [`Link`] each
//! way. All clients share the two links, as they would share a bottleneck; each has an upstream socket of its own, so the
//! server sees one source per client. A link's clock starts with the first datagram of any client: scripts, blackholes and
//! rate steps count from there.
//!
//! One thread does all the work: it sleeps in `poll` until a socket is readable or a link is due. Times are as good as the
//! machine's timers, usually within 0.1 ms. ECN fields are carried over where the system shows and sets them; queues mark as
//! [`LinkConfig::ce_above_us`], [`LinkConfig::codel`] and [`LinkConfig::ecn`] say.
//!
//! ```no_run
//! use courser_sim::{LinkConfig, relay::Relay};
//! let upstream = "127.0.0.1:4433".parse().expect("an address");
//! let down = LinkConfig::new().rate(10_000_000).queue_bytes(50_000).delay_us(15_000).loss(0.01);
//! let up = LinkConfig::new().delay_us(15_000);
//! let relay = Relay::start("127.0.0.1:0".parse().expect("an address"), upstream, up, down, 1)?;
//! println!("connect to {}", relay.addr());
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::config::LinkConfig;
use crate::datagram::{Datagram, NOT_ECT, Pool};
use crate::link::Link;
use crate::rng::mix;
use crate::stats::LinkStats;

/// Most clients at once; a further one takes the place of the one that was quiet for longest.
const CLIENTS_MAX: usize = 1_024;
/// Most reads from one socket before the others have their turn; a read may give several datagrams of one sender.
const READ_MAX: usize = 64;
/// The thread looks at least so often whether it is to stop.
const NAP_MAX_US: u64 = 20_000;
/// Most datagrams in each link, since these are real memory of a real machine.
const IN_FLIGHT_MAX: usize = 65_536;
/// Wanted receive buffer of each socket in bytes; the kernel may give less.
const SOCKET_BYTES: usize = 4 << 20;

/// What a relay counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Clients that have an upstream socket now.
    pub clients: usize,
    /// The link from clients to upstream.
    pub up: LinkStats,
    /// The link from upstream to clients.
    pub down: LinkStats,
    /// Datagrams that came out of a link but that the system did not take, or whose client was gone.
    pub unsent: u64,
}

/// A running relay. Dropping it stops it and frees its sockets.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    core: Arc<Mutex<Core>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay that listens on `listen` and sends to `upstream`.
    ///
    /// # Errors
    /// If the listening socket or the thread cannot be made.
    pub fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        up: LinkConfig,
        down: LinkConfig,
        seed: u64,
    ) -> io::Result<Self> {
        let socket = Arc::new(Port::at(listen)?);
        let addr = socket.udp.local_addr()?;
        let link = |mut config: LinkConfig, tag| {
            config.in_flight_max = config.in_flight_max.min(IN_FLIGHT_MAX);
            Link::new(&config, mix(seed) ^ mix(tag))
        };
        let core = Core {
            socket,
            upstream,
            up: link(up, 0),
            down: link(down, 1),
            clients: Vec::new(),
            by_addr: HashMap::new(),
            origin: None,
            pool: Pool::new(),
            unsent: 0,
        };
        let (core, stop) = (Arc::new(Mutex::new(core)), Arc::new(AtomicBool::new(false)));
        let (its_core, its_stop) = (Arc::clone(&core), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || run(&its_core, &its_stop))?;
        Ok(Self { addr, core, stop, thread: Some(thread) })
    }

    /// Where clients send to.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it counted so far.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        let core = lock(&self.core);
        RelayStats {
            clients: core.clients.len(),
            up: core.up.stats().clone(),
            down: core.down.stats().clone(),
            unsent: core.unsent,
        }
    }

    /// Gives every client a new upstream port, as a NAT that forgot its mappings does. Answers to the old ports are lost.
    ///
    /// # Errors
    /// If a socket cannot be made; the clients up to there have been rebound.
    pub fn rebind(&self) -> io::Result<()> {
        let mut core = lock(&self.core);
        let upstream = core.upstream;
        for client in &mut core.clients {
            client.socket = Arc::new(Port::towards(upstream)?);
        }
        Ok(())
    }

    /// Looks at or changes the two links (up, then down) with the present time of their clock: taps, dead links, new rates.
    pub fn with_links<R>(&self, change: impl FnOnce(&mut Link, &mut Link, u64) -> R) -> R {
        let mut core = lock(&self.core);
        let now_us = core.now_us();
        let Core { up, down, .. } = &mut *core;
        change(up, down, now_us)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already; there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Client {
    addr: SocketAddr,
    /// What does not come from upstream is not read from it. Shared with the thread's list while that waits.
    socket: Arc<Port>,
    last_used: Instant,
}

/// Everything that the thread works on. It is locked while the thread works and free while it waits.
#[derive(Debug)]
struct Core {
    socket: Arc<Port>,
    upstream: SocketAddr,
    up: Link,
    down: Link,
    clients: Vec<Client>,
    by_addr: HashMap<SocketAddr, usize>,
    /// When the first datagram came.
    origin: Option<Instant>,
    pool: Pool,
    unsent: u64,
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    // A tap that panicked may have left its datagram unsent, nothing worse.
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket, and what is needed to see and set the ECN field of its datagrams.
#[derive(Debug)]
struct Port {
    udp: UdpSocket,
    state: UdpSocketState,
}

impl Port {
    fn at(addr: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(addr)?;
        let state = UdpSocketState::new(UdpSockRef::from(&udp))?;
        udp.set_nonblocking(true)?;
        // Best effort: a small buffer only loses more under bursts, and the caller may not be allowed to have a large one.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&udp, SOCKET_BYTES);
        Ok(Self { udp, state })
    }

    /// Any port, of the family of `upstream`.
    fn towards(upstream: SocketAddr) -> io::Result<Self> {
        Self::at(if upstream.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() })
    }

    /// Whether the system took it.
    fn send(&self, to: SocketAddr, d: &Datagram) -> bool {
        let ecn = EcnCodepoint::from_bits(d.ecn);
        let transmit = Transmit { destination: to, ecn, contents: &d.bytes, segment_size: None, src_ip: None };
        self.state.try_send(UdpSockRef::from(&self.udp), &transmit).is_ok()
    }

    /// Reads once. What the system joined is still in one piece: [`Received::datagrams`] cuts it.
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let mut metas = [RecvMeta::default()];
        self.state.recv(UdpSockRef::from(&self.udp), &mut [IoSliceMut::new(buffer)], &mut metas)?;
        let [meta] = metas;
        let bytes = buffer.get(..meta.len).unwrap_or_default();
        let ecn = meta.ecn.map_or(NOT_ECT, |e| e as u8);
        Ok(Received { from: meta.addr, ecn, stride: meta.stride.max(1), bytes })
    }
}

/// What one read gave: datagrams of one sender with one ECN field, of equal size but for the last.
struct Received<'a> {
    from: SocketAddr,
    ecn: u8,
    stride: usize,
    bytes: &'a [u8],
}

impl Received<'_> {
    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.stride)
    }
}

fn run(core: &Mutex<Core>, stop: &AtomicBool) {
    let mut buffer = vec![0u8; 65_536];
    while !stop.load(Ordering::Acquire) {
        let (sockets, nap_us) = lock(core).waiting_list();
        let ready = wait(&sockets, nap_us);
        lock(core).turn(&sockets, &ready, &mut buffer);
    }
}

/// Sleeps until a socket is readable or the time is over; tells which are.
fn wait(sockets: &[Arc<Port>], nap_us: u64) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|s| PollFd::new(&s.udp, PollFlags::IN)).collect();
    let nap = Timespec { tv_sec: 0, tv_nsec: (nap_us.min(NAP_MAX_US) * 1_000) as _ };
    match rustix::event::poll(&mut fds, Some(&nap)) {
        Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
        // An interrupted wait is a short one.
        Err(_) => vec![false; sockets.len()],
    }
}

impl Core {
    fn now_us(&self) -> u64 {
        self.origin.map_or(0, |o| u64::try_from(o.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The listening socket and each client's, and how long to wait at most.
    fn waiting_list(&self) -> (Vec<Arc<Port>>, u64) {
        let clients = self.clients.iter().map(|c| Arc::clone(&c.socket));
        let sockets = std::iter::once(Arc::clone(&self.socket)).chain(clients).collect();
        let due = [self.up.next(), self.down.next()].into_iter().flatten().min();
        (sockets, due.map_or(NAP_MAX_US, |t| t.saturating_sub(self.now_us())))
    }

    /// Reads what came, sends what is due.
    fn turn(&mut self, sockets: &[Arc<Port>], ready: &[bool], buffer: &mut [u8]) {
        for (at, (socket, _)) in sockets.iter().zip(ready).enumerate().filter(|(_, (_, ready))| **ready) {
            match at.checked_sub(1) {
                None => self.read_clients(buffer),
                Some(client) => self.read_upstream(client, socket, buffer),
            }
        }
        let now_us = self.now_us();
        while let Some(d) = self.up.poll(now_us) {
            let sent = match self.by_addr.get(&d.src) {
                Some(&at) => self.clients[at].socket.send(self.upstream, &d),
                None => false,
            };
            self.unsent += u64::from(!sent);
            self.pool.give(d.bytes);
        }
        while let Some(d) = self.down.poll(now_us) {
            let sent = self.socket.send(d.dst, &d);
            self.unsent += u64::from(!sent);
            self.pool.give(d.bytes);
        }
        self.turn_back();
        self.pool.absorb(self.up.pool());
        self.pool.absorb(self.down.pool());
    }

    /// What taps sent the other way goes straight to that side.
    fn turn_back(&mut self) {
        for d in self.up.take_back() {
            self.unsent += u64::from(!self.socket.send(d.dst, &d));
        }
        for d in self.down.take_back() {
            let socket = self.by_addr.get(&d.src).map(|&at| &self.clients[at].socket);
            self.unsent += u64::from(!socket.is_some_and(|s| s.send(self.upstream, &d)));
        }
    }

    fn read_clients(&mut self, buffer: &mut [u8]) {
        for _ in 0..READ_MAX {
            match self.socket.receive(buffer) {
                Ok(got) => {
                    if self.admit(got.from).is_err() {
                        self.unsent += 1;
                        continue;
                    }
                    self.origin.get_or_insert_with(Instant::now);
                    let now_us = self.now_us();
                    for bytes in got.datagrams() {
                        let bytes = self.pool.copy_of(bytes);
                        let d = Datagram { ecn: got.ecn, ..Datagram::new(got.from, self.upstream, bytes) };
                        self.up.send(now_us, d);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Some systems report here that an earlier datagram met a closed port; that is not this one's fault.
                Err(_) => {}
            }
        }
    }

    fn read_upstream(&mut self, client: usize, socket: &Port, buffer: &mut [u8]) {
        for _ in 0..READ_MAX {
            // The table may have changed since the wait began: a socket that was replaced is not read any more.
            let Some(c) = self.clients.get_mut(client).filter(|c| std::ptr::eq(c.socket.as_ref(), socket)) else {
                return;
            };
            match socket.receive(buffer) {
                Ok(got) if (got.from.ip(), got.from.port()) != (self.upstream.ip(), self.upstream.port()) => {}
                Ok(got) => {
                    c.last_used = Instant::now();
                    let to = c.addr;
                    let now_us = self.now_us();
                    for bytes in got.datagrams() {
                        let bytes = self.pool.copy_of(bytes);
                        self.down.send(now_us, Datagram { ecn: got.ecn, ..Datagram::new(self.upstream, to, bytes) });
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    /// Finds the client or makes room and a socket for it.
    fn admit(&mut self, addr: SocketAddr) -> io::Result<()> {
        let now = Instant::now();
        if let Some(&at) = self.by_addr.get(&addr) {
            self.clients[at].last_used = now;
            return Ok(());
        }
        let socket = Arc::new(Port::towards(self.upstream)?);
        let client = Client { addr, socket, last_used: now };
        let quietest = (0..self.clients.len()).min_by_key(|&at| self.clients[at].last_used);
        let at = match quietest.filter(|_| self.clients.len() >= CLIENTS_MAX) {
            Some(at) => {
                self.by_addr.remove(&self.clients[at].addr);
                self.clients[at] = client;
                at
            }
            None => {
                self.clients.push(client);
                self.clients.len() - 1
            }
        };
        self.by_addr.insert(addr, at);
        Ok(())
    }
}
