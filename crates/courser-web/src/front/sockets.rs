//! The sockets of a server: bound here, or given by whoever bound them (a service manager, the process before this one).
//!
//! | given | TCP | UDP |
//! |---|---|---|
//! | nothing | bound as configured | bound at the same ports |
//! | TCP | the given ones | bound at the same ports |
//! | UDP | bound at the same ports | the given ones |
//! | both | the given ones | the given ones |
//!
//! An address of all of IPv6 (`[::]`) is one of all of IPv4 too, unless an address of IPv4 with the same port is named beside
//! it.

use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket};
use std::sync::Arc;

use courser::Handover;
use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::succession::Succession;
use crate::config;
use crate::error::WebError;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where clients over TCP come in.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub socket: Arc<TcpListener>,
    /// Its address, with the port that the system chose where it was 0.
    pub address: SocketAddr,
}

/// Where clients over UDP are to come in.
#[derive(Debug)]
pub enum Udp {
    /// At a socket that is there.
    Given(UdpSocket),
    /// At a port that the process before this one hands over, with the connections that stay there.
    Handed(Handover),
    /// At an address that is to be bound.
    At {
        /// Which.
        address: SocketAddr,
        /// Whether IPv4 comes there too.
        dual_stack: bool,
    },
}

/// All sockets of a server.
#[derive(Debug)]
pub struct Sockets {
    /// HTTP/1.1 and HTTP/2.
    pub tcp: Vec<Listening>,
    /// HTTP/3.
    pub udp: Vec<Udp>,
    /// Figures, if they are to be had anywhere.
    pub figures: Option<Listening>,
}

/// What a service manager gave, or the process before this one; empty when there is neither. To be asked once, at the start of
/// the program.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(crate) tcp: Vec<StdListener>,
    pub(crate) udp: Vec<UdpSocket>,
    handed: Vec<Handover>,
    figures: Option<StdListener>,
}

impl From<Succession> for Inherited {
    fn from(all: Succession) -> Self {
        let Succession { tcp, figures, quic } = all;
        Self { tcp, udp: Vec::new(), handed: quic, figures }
    }
}

impl Inherited {
    /// Takes what the environment tells of (`LISTEN_FDS`). Names of sockets mean nothing here: what a socket is, it tells.
    ///
    /// # Errors
    /// It tells of sockets that are neither listening TCP sockets nor bound UDP sockets.
    pub fn from_env() -> Result<Self, WebError> {
        let mut given = ListenFd::from_env();
        let mut all = Self::default();
        for i in 0..given.len() {
            if let Ok(socket) = given.take_tcp_listener(i) {
                all.tcp.extend(socket);
            } else {
                let socket = given.take_udp_socket(i).map_err(|e| {
                    given_wrongly(format!("number {i} is neither a TCP socket that listens nor a UDP socket ({e})"))
                })?;
                all.udp.extend(socket);
            }
        }
        all.check()?;
        Ok(all)
    }

    fn check(&self) -> Result<(), WebError> {
        for tcp in &self.tcp {
            if SockRef::from(tcp).is_listener().is_ok_and(|listens| !listens) {
                let why = "one is a connection, not a socket that listens; a unit needs `Accept=no`";
                return Err(given_wrongly(why.into()));
            }
        }
        let places: Vec<SocketAddr> = self.udp.iter().filter_map(|udp| udp.local_addr().ok()).collect();
        for (i, place) in places.iter().enumerate() {
            if places.get(..i).is_some_and(|before| before.contains(place)) {
                let why =
                    format!("two UDP sockets are at {place}; one is enough, as workers share a port by themselves");
                return Err(given_wrongly(why));
            }
        }
        Ok(())
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty() && self.handed.is_empty()
    }

    /// The sockets that were given, or new ones at the addresses of a configuration; see the table of the module.
    ///
    /// # Errors
    /// An address that cannot be had, and UDP that is given although there is to be no HTTP/3.
    pub fn or_bind(self, server: &config::Server) -> Result<Sockets, WebError> {
        if !server.http3 && !self.udp.is_empty() {
            return Err(given_wrongly("there is one of UDP, but `server.http3` is off".into()));
        }
        let udp_at: Vec<SocketAddr> =
            self.udp.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>().map_err(|e| unusable(&e))?;
        let tcp: Vec<Listening> = if self.tcp.is_empty() {
            let addresses = if udp_at.is_empty() { &server.listen } else { &udp_at };
            addresses.iter().map(|at| bind(*at, is_for_both(*at, addresses))).collect::<Result<_, _>>()?
        } else {
            self.tcp.into_iter().map(adopt).collect::<Result<_, _>>()?
        };
        let figures = match (self.figures, server.metrics) {
            (Some(socket), Some(_)) => Some(adopt(socket)?),
            (_, Some(address)) => Some(bind(address, true)?),
            (_, None) => None,
        };
        let udp = if server.http3 && !self.handed.is_empty() {
            self.handed.into_iter().map(Udp::Handed).collect()
        } else if udp_at.is_empty() {
            let beside = |at: &Listening| {
                let v6_only = at.address.is_ipv6() && SockRef::from(&at.socket).only_v6().unwrap_or(false);
                Udp::At { address: at.address, dual_stack: !v6_only }
            };
            tcp.iter().filter(|_| server.http3).map(beside).collect()
        } else {
            self.udp.into_iter().map(Udp::Given).collect()
        };
        Ok(Sockets { tcp, udp, figures })
    }
}

/// Whether an address of IPv6 is one of IPv4 too, among these.
fn is_for_both(address: SocketAddr, among: &[SocketAddr]) -> bool {
    let beside = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    address.is_ipv6() && address.ip().is_unspecified() && !among.iter().any(beside)
}

fn given_wrongly(why: String) -> WebError {
    WebError::System { what: "sockets of the service manager", why }
}

fn unusable(e: &std::io::Error) -> WebError {
    given_wrongly(e.to_string())
}

fn adopt(socket: StdListener) -> Result<Listening, WebError> {
    let address = socket.local_addr().map_err(|e| unusable(&e))?;
    let failed = |why| WebError::Bind { address, why };
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Listening { socket: Arc::new(TcpListener::from_std(socket).map_err(failed)?), address })
}

/// Listens there; with `dual_stack` an address of all of IPv6 is one of all of IPv4 too.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: SocketAddr, dual_stack: bool) -> Result<Listening, WebError> {
    let failed = |why| WebError::Bind { address, why };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    // A server that begins anew finds its port although connections of the last one are dying.
    socket.set_reuse_address(true).map_err(failed)?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack).map_err(failed)?;
    }
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    adopt(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn server(listen: &[&str]) -> config::Server {
        let listen = listen.iter().map(|at| at.parse().unwrap()).collect();
        config::Server { listen, ..config::Server::default() }
    }

    #[tokio::test]
    async fn addresses_are_bound_or_taken_over() {
        let bound = bind(([127, 0, 0, 1], 0).into(), false).unwrap();
        assert_ne!(bound.address.port(), 0);
        let e = bind(bound.address, false).unwrap_err();
        assert!(e.to_string().contains(&bound.address.to_string()), "{e}");
        assert!(Inherited::from_env().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_given_is_bound_beside_what_is() {
        let elsewhere = server(&["127.0.0.1:1"]);
        let listener = || StdListener::bind("127.0.0.1:0").unwrap();
        let datagrams = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = listener();
        let at = tcp.local_addr().unwrap();
        let given = Inherited { tcp: vec![tcp], ..Inherited::default() }.or_bind(&elsewhere).unwrap();
        assert_eq!((given.tcp.len(), given.tcp[0].address), (1, at));
        assert!(matches!(&given.udp[..], [Udp::At { address, .. }] if *address == at));

        // Somebody else may have the port of that number over TCP.
        let beside = |_| {
            let udp = datagrams();
            let at = udp.local_addr().unwrap();
            Some((Inherited { udp: vec![udp], ..Inherited::default() }.or_bind(&elsewhere).ok()?, at))
        };
        let (given, at) = (0..100).find_map(beside).expect("a port that is free over TCP, too");
        assert_eq!((given.tcp.len(), given.tcp[0].address), (1, at));
        assert!(matches!(&given.udp[..], [Udp::Given(socket)] if socket.local_addr().unwrap() == at));

        let both = Inherited { tcp: vec![listener()], udp: vec![datagrams(), datagrams()], ..Inherited::default() };
        assert!(!both.is_empty());
        let given = both.or_bind(&elsewhere).unwrap();
        assert_eq!((given.tcp.len(), given.udp.len()), (1, 2));

        let off = config::Server { http3: false, ..elsewhere };
        let e = Inherited { tcp: vec![listener()], udp: vec![datagrams()], ..Inherited::default() }
            .or_bind(&off)
            .unwrap_err()
            .to_string();
        assert!(e.contains("`server.http3` is off"), "{e}");
        assert!(Inherited { tcp: vec![listener()], ..Inherited::default() }.or_bind(&off).unwrap().udp.is_empty());
    }

    #[test]
    fn what_cannot_be_listened_at_is_refused() {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let twice = Inherited { udp: vec![first.try_clone().unwrap(), first], ..Inherited::default() };
        assert!(twice.check().unwrap_err().to_string().contains("two UDP sockets are at 127.0.0.1:"));
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = StdListener::from(std::os::fd::OwnedFd::from(stream));
        let one = Inherited { tcp: vec![connection], ..Inherited::default() };
        assert!(one.check().unwrap_err().to_string().contains("Accept=no"));
    }

    #[tokio::test]
    async fn all_of_ipv6_is_all_of_ipv4_too_unless_that_is_named_beside_it() {
        let of = |text: &[&str]| -> Vec<bool> {
            let all: Vec<SocketAddr> = text.iter().map(|at| at.parse().unwrap()).collect();
            all.iter().map(|at| is_for_both(*at, &all)).collect()
        };
        assert_eq!(of(&["[::]:1"]), [true]);
        assert_eq!(of(&["[::]:1", "0.0.0.0:1"]), [false, false]);
        assert_eq!(of(&["127.0.0.1:1", "[::]:1"]), [false, false]);
        assert_eq!(of(&["[::]:1", "0.0.0.0:2", "[::1]:3"]), [true, false, false]);
        if StdListener::bind("[::1]:0").is_err() {
            eprintln!("left out: this machine has no IPv6");
            return;
        }
        let both = Inherited::default().or_bind(&server(&["[::]:0"])).unwrap();
        let port = both.tcp[0].address.port();
        for ip in ["127.0.0.1", "::1"] {
            drop(TcpStream::connect((ip, port)).unwrap());
        }
        assert!(matches!(both.udp[..], [Udp::At { dual_stack: true, .. }]));
        let apart = Inherited::default().or_bind(&server(&["[::]:0", "0.0.0.0:0"])).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", apart.tcp[0].address.port())).is_err());
        assert!(matches!(apart.udp[0], Udp::At { dual_stack: false, .. }));
    }
}
