//! The sockets of a server: bound here, or bound by a service manager that gives them away (socket activation).

use std::net::{SocketAddr, TcpListener as StdListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::error::WebError;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where clients over TCP come in.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub socket: TcpListener,
    /// Its address, with the port that the system chose where it was 0.
    pub address: SocketAddr,
}

/// What a service manager gave; empty when there is none. To be asked once, at the start of the program.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<StdListener>,
}

impl Inherited {
    /// Takes what the environment tells of.
    ///
    /// # Errors
    /// It tells of sockets that are no listening TCP sockets.
    pub fn from_env() -> Result<Self, WebError> {
        let mut given = ListenFd::from_env();
        let mut tcp = Vec::new();
        for i in 0..given.len() {
            match given.take_tcp_listener(i) {
                Ok(Some(listener)) => tcp.push(listener),
                Ok(None) => {}
                Err(e) => {
                    let why = format!("number {i} is no listening TCP socket ({e}); UDP is bound by the server itself");
                    return Err(WebError::System { what: "sockets of the service manager", why });
                }
            }
        }
        Ok(Self { tcp })
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty()
    }

    /// The sockets that were given, or new ones at these addresses.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn or_bind(self, addresses: &[SocketAddr]) -> Result<Vec<Listening>, WebError> {
        if self.tcp.is_empty() {
            return addresses.iter().map(|address| bind(*address)).collect();
        }
        let adopted = self.tcp.into_iter().map(|socket| {
            let address = socket.local_addr().map_err(|e| system(&e))?;
            adopt(socket, address)
        });
        adopted.collect()
    }
}

fn system(e: &std::io::Error) -> WebError {
    WebError::System { what: "sockets of the service manager", why: e.to_string() }
}

fn adopt(socket: StdListener, address: SocketAddr) -> Result<Listening, WebError> {
    let failed = |why| WebError::Bind { address, why };
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Listening { socket: TcpListener::from_std(socket).map_err(failed)?, address })
}

/// Listens there. IPv6 means IPv6 alone, so that both families of a port can be had.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: SocketAddr) -> Result<Listening, WebError> {
    let failed = |why| WebError::Bind { address, why };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    // A server that begins anew finds its port although connections of the last one are dying.
    socket.set_reuse_address(true).map_err(failed)?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(failed)?;
    }
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    let socket = StdListener::from(socket);
    let address = socket.local_addr().map_err(failed)?;
    adopt(socket, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_bound_or_taken_over() {
        let bound = bind(([127, 0, 0, 1], 0).into()).unwrap();
        assert_ne!(bound.address.port(), 0);
        let e = bind(bound.address).unwrap_err();
        assert!(e.to_string().contains(&bound.address.to_string()), "{e}");

        let given = StdListener::bind("127.0.0.1:0").unwrap();
        let address = given.local_addr().unwrap();
        let inherited = Inherited { tcp: vec![given] };
        assert!(!inherited.is_empty());
        let taken = inherited.or_bind(&[([127, 0, 0, 1], 1).into()]).unwrap();
        assert_eq!((taken.len(), taken[0].address), (1, address));
        assert!(Inherited::from_env().unwrap().is_empty());
    }
}
