//! Ready-made networks: two hosts, many pairs through one bottleneck, a home behind a translator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{Duplex, LinkConfig};
use crate::host::Host;
use crate::nat::NatConfig;
use crate::world::{HostId, LinkId, NodeId, World};

/// Addresses for simulated hosts, from the blocks that are set aside for tests.
pub mod addr {
    use super::{IpAddr, Ipv4Addr, SocketAddr};

    /// Client number `i`: 198.18.x.y, port 50000.
    #[must_use]
    pub const fn client(i: u16) -> SocketAddr {
        host(198, 18, i, 50_000)
    }

    /// Server number `i`: 198.19.x.y, port 443.
    #[must_use]
    pub const fn server(i: u16) -> SocketAddr {
        host(198, 19, i, 443)
    }

    /// A client behind a translator: 10.0.x.y, port 50000.
    #[must_use]
    pub const fn private(i: u16) -> SocketAddr {
        host(10, 0, i, 50_000)
    }

    /// Public address number `i` of a translator: 192.0.2.i.
    #[must_use]
    pub const fn public(i: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, i))
    }

    const fn host(a: u8, b: u8, i: u16, port: u16) -> SocketAddr {
        let [c, d] = i.to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)
    }
}

/// Two hosts and a link.
#[derive(Debug)]
pub struct Pair<A, B> {
    /// The world.
    pub world: World,
    /// The first host, at [`addr::client`]`(0)`.
    pub a: HostId<A>,
    /// The second host, at [`addr::server`]`(0)`.
    pub b: HostId<B>,
    /// The link from the first to the second.
    pub up: LinkId,
    /// The link from the second to the first.
    pub down: LinkId,
}

/// Two hosts and a link between them.
pub fn point_to_point<A: Host, B: Host>(seed: u64, a: A, b: B, duplex: &Duplex) -> Pair<A, B> {
    let mut world = World::new(seed);
    let a = world.add_host([addr::client(0).ip()], a);
    let b = world.add_host([addr::server(0).ip()], b);
    let (up, down) = world.connect(a, b, duplex);
    Pair { world, a, b, up, down }
}

/// Pairs of hosts that share one bottleneck.
///
/// ```text
/// client 0 ─┐                            ┌─ server 0
/// client 1 ─┤ left ══ bottleneck ══ right ├─ server 1
/// client n ─┘                            └─ server n
/// ```
#[derive(Debug)]
pub struct Dumbbell {
    /// The world.
    pub world: World,
    /// The bottleneck from the clients to the servers.
    pub up: LinkId,
    /// The bottleneck from the servers to the clients.
    pub down: LinkId,
    left: NodeId,
    right: NodeId,
    pairs: u16,
}

impl Dumbbell {
    /// A bottleneck without hosts.
    #[must_use]
    pub fn new(seed: u64, bottleneck: &Duplex) -> Self {
        let mut world = World::new(seed);
        let (left, right) = (world.add_router(), world.add_router());
        let (up, down) = world.connect(left, right, bottleneck);
        Self { world, up, down, left, right, pairs: 0 }
    }

    /// Number of the next pair: its hosts are [`addr::client`] and [`addr::server`] of that number.
    #[must_use]
    pub const fn next_pair(&self) -> u16 {
        self.pairs
    }

    /// Adds a client and a server; `access` is the client's own link, the server's is perfect.
    ///
    /// # Panics
    /// After 65,535 pairs.
    pub fn add_pair<A: Host, B: Host>(&mut self, client: A, server: B, access: &Duplex) -> (HostId<A>, HostId<B>) {
        let i = self.pairs;
        self.pairs = i.checked_add(1).expect("a dumbbell has at most 65,535 pairs");
        let a = self.world.add_host([addr::client(i).ip()], client);
        let b = self.world.add_host([addr::server(i).ip()], server);
        self.world.connect(a, self.left, access);
        self.world.connect(self.right, b, &Duplex::default());
        (a, b)
    }
}

/// A client behind a translator, and a server.
#[derive(Debug)]
pub struct Home<A, B> {
    /// The world.
    pub world: World,
    /// The client, at [`addr::private`]`(0)`.
    pub client: HostId<A>,
    /// The server, at [`addr::server`]`(0)`.
    pub server: HostId<B>,
    /// The translator.
    pub nat: NodeId,
    /// The link from the translator to the server.
    pub up: LinkId,
    /// The link from the server to the translator.
    pub down: LinkId,
}

/// A client at home; `duplex` is the link between translator and server.
pub fn home<A: Host, B: Host>(seed: u64, client: A, server: B, nat: NatConfig, duplex: &Duplex) -> Home<A, B> {
    let mut world = World::new(seed);
    let client = world.add_host([addr::private(0).ip()], client);
    let server = world.add_host([addr::server(0).ip()], server);
    let nat = world.add_nat(nat);
    world.connect(client, nat, &Duplex::symmetric(LinkConfig::new()));
    let (up, down) = world.connect(nat, server, duplex);
    Home { world, client, server, nat, up, down }
}
