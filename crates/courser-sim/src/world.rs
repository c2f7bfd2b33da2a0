//! The simulated world: hosts, routers, translators and links, and the clock that they share.
//!
//! One step: the clock goes to the earliest time at which anything happens. Every link that has something for this time
//! gives it up (in the order of their numbers); routers and translators pass datagrams on; hosts take them. Then each host
//! that received something or whose deadline has come is polled (in the order of their numbers), and what it sends enters
//! its link. What takes no time at all happens in a further step at the same time.
//!
//! Nothing here depends on the real clock, on addresses in memory or on the order of a hash table: the same seed and the
//! same calls give the same trace. A host or a loop of links that never lets time go on is reported as [`Stuck`].

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use crate::agenda::{Agenda, Who};
use crate::config::{Duplex, LinkConfig};
use crate::datagram::{Datagram, Pool};
use crate::host::{Host, Outbox};
use crate::link::Link;
use crate::nat::{Nat, NatConfig};
use crate::outcome::{Limits, Stop, Stuck};
use crate::rng::{Rng, mix};
use crate::route::Routes;
use crate::trace::{Event, TraceHash, Watcher};

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(u32);

/// A host, together with its type.
pub struct HostId<T> {
    node: NodeId,
    kind: PhantomData<fn() -> T>,
}

impl<T> HostId<T> {
    /// Its place in the network.
    #[must_use]
    pub const fn node(self) -> NodeId {
        self.node
    }
}

impl<T> Clone for HostId<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for HostId<T> {}
impl<T> fmt::Debug for HostId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostId({})", self.node.0)
    }
}

impl NodeId {
    /// Its number, as in trace events.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl LinkId {
    /// Its number, as in trace events.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl<T> From<HostId<T>> for NodeId {
    fn from(h: HostId<T>) -> Self {
        h.node
    }
}

enum Place {
    Host(Box<dyn Host>),
    Router,
    Nat(Box<Nat>),
}

struct Edge {
    link: Link,
    from: u32,
    to: u32,
}

struct Node {
    place: Place,
    /// The host is to be polled in this step.
    awake: bool,
}

/// A simulated network with its hosts.
///
/// ```
/// use courser_sim::{Datagram, Host, LinkConfig, Outbox, World, Duplex, addr};
///
/// /// Counts what it gets.
/// struct Sink(usize);
/// impl Host for Sink {
///     fn receive(&mut self, _now_us: u64, _d: &mut Datagram) { self.0 += 1; }
///     fn poll(&mut self, _now_us: u64, _out: &mut Outbox) {}
///     fn deadline(&self) -> Option<u64> { None }
/// }
/// /// Sends one datagram each millisecond.
/// struct Ticker { next: Option<u64> }
/// impl Host for Ticker {
///     fn receive(&mut self, _now_us: u64, _d: &mut Datagram) {}
///     fn poll(&mut self, now_us: u64, out: &mut Outbox) {
///         if self.next.is_some_and(|t| t <= now_us) {
///             out.send(addr::client(0), addr::server(0), b"tick");
///             self.next = Some(now_us + 1_000);
///         }
///     }
///     fn deadline(&self) -> Option<u64> { self.next }
/// }
///
/// let mut world = World::new(1);
/// let ticker = world.add_host([addr::client(0).ip()], Ticker { next: Some(0) });
/// let sink = world.add_host([addr::server(0).ip()], Sink(0));
/// world.connect(ticker, sink, &Duplex::symmetric(LinkConfig::new().delay_us(10_000).loss(0.5)));
/// world.run_until(1_000_000)?;
/// assert!((400..600).contains(&world.host(sink).0));
/// # Ok::<(), courser_sim::Stuck>(())
/// ```
pub struct World {
    seed: u64,
    now_us: u64,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    routes: Routes,
    agenda: Agenda,
    /// Hosts to poll in this step.
    awake: Vec<u32>,
    /// Datagrams that a tap or the test put at a node, to be routed in the next step.
    injected: Vec<(u32, Datagram)>,
    outbox: Outbox,
    pool: Pool,
    hash: TraceHash,
    watcher: Option<Watcher>,
    limits: Limits,
    steps: u64,
    steps_at_this_time: u64,
    no_route: u64,
    /// Scratch: links due in this step.
    due_links: Vec<u32>,
    /// Nodes polled in the last step, for the report of a stuck run.
    polled: Vec<u32>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now_us", &self.now_us)
            .field("nodes", &self.nodes.len())
            .field("links", &self.edges.len())
            .field("steps", &self.steps)
            .field("trace_hash", &self.hash.value())
            .finish_non_exhaustive()
    }
}

/// Building.
impl World {
    /// An empty world at time zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_limits(seed, Limits::default())
    }

    /// An empty world with limits of its own.
    #[must_use]
    pub fn with_limits(seed: u64, limits: Limits) -> Self {
        Self {
            seed,
            now_us: 0,
            nodes: Vec::new(),
            edges: Vec::new(),
            routes: Routes::default(),
            agenda: Agenda::default(),
            awake: Vec::new(),
            injected: Vec::new(),
            outbox: Outbox::new(limits.sends_per_poll_max),
            pool: Pool::new(),
            hash: TraceHash::new(),
            watcher: None,
            limits,
            steps: 0,
            steps_at_this_time: 0,
            no_route: 0,
            due_links: Vec::new(),
            polled: Vec::new(),
        }
    }

    fn add(&mut self, place: Place) -> NodeId {
        let number = self.routes.add_node();
        debug_assert_eq!(number as usize, self.nodes.len());
        self.nodes.push(Node { place, awake: false });
        NodeId(number)
    }

    /// Adds a host that owns these addresses. It is polled once as soon as the world runs.
    ///
    /// # Panics
    /// If another node owns one of the addresses.
    pub fn add_host<T: Host>(&mut self, ips: impl IntoIterator<Item = IpAddr>, host: T) -> HostId<T> {
        let node = self.add(Place::Host(Box::new(host)));
        ips.into_iter().for_each(|ip| self.add_address(node, ip));
        self.wake(node.0);
        HostId { node, kind: PhantomData }
    }

    /// Adds a router: it passes on what reaches it.
    pub fn add_router(&mut self) -> NodeId {
        self.add(Place::Router)
    }

    /// Adds a translator that owns its public addresses. Hosts with private addresses that are linked to it are inside.
    ///
    /// # Panics
    /// If another node owns one of the public addresses.
    pub fn add_nat(&mut self, config: NatConfig) -> NodeId {
        let public = config.public.clone();
        let node = self.add(Place::Nat(Box::new(Nat::new(config))));
        public.into_iter().for_each(|ip| self.add_address(node, ip));
        node
    }

    /// Gives a node one more address.
    ///
    /// # Panics
    /// If another node owns it.
    pub fn add_address(&mut self, node: impl Into<NodeId>, ip: IpAddr) {
        assert!(self.routes.own(ip, node.into().0), "{ip} belongs to another node");
    }

    /// Adds one direction of a link.
    pub fn add_link(&mut self, from: impl Into<NodeId>, to: impl Into<NodeId>, config: &LinkConfig) -> LinkId {
        let (from, to) = (from.into().0, to.into().0);
        let number = self.edges.len() as u32;
        let link = Link::new(config, mix(self.seed) ^ mix(u64::from(number)));
        self.edges.push(Edge { link, from, to });
        self.routes.add_link(from, to, number);
        LinkId(number)
    }

    /// Links two nodes in both directions; gives the link `a` → `b` ("up") and the link `b` → `a` ("down").
    pub fn connect(&mut self, a: impl Into<NodeId>, b: impl Into<NodeId>, duplex: &Duplex) -> (LinkId, LinkId) {
        let (a, b) = (a.into(), b.into());
        (self.add_link(a, b, &duplex.up), self.add_link(b, a, &duplex.down))
    }

    /// What passes the beginning of a link and comes from or goes to that address takes this link, and not the shortest way: a
    /// host with two networks has an address in each. Of two such links that of the source counts.
    pub fn choose_link(&mut self, ip: IpAddr, link: LinkId) {
        self.routes.choose(self.edges[link.0 as usize].from, ip, link.0);
    }
}

/// Looking and touching.
impl World {
    /// The clock in microseconds.
    #[must_use]
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// A random stream for whoever builds hosts, independent of everything in the world.
    #[must_use]
    pub const fn rng(&self, tag: u64) -> Rng {
        Rng::stream(self.seed ^ 0x5eed, tag)
    }

    /// A host.
    ///
    /// # Panics
    /// If the handle comes from another world.
    #[must_use]
    pub fn host<T: Host>(&self, id: HostId<T>) -> &T {
        let found: Option<&dyn Any> = match &self.nodes[id.node.0 as usize].place {
            Place::Host(h) => Some(h.as_ref()),
            _ => None,
        };
        found.and_then(|h| h.downcast_ref()).expect("the handle of a host is used with the world that gave it")
    }

    /// A host, to be changed from outside. It is polled in the next step.
    ///
    /// # Panics
    /// If the handle comes from another world.
    pub fn host_mut<T: Host>(&mut self, id: HostId<T>) -> &mut T {
        self.wake(id.node.0);
        let found: Option<&mut dyn Any> = match &mut self.nodes[id.node.0 as usize].place {
            Place::Host(h) => Some(h.as_mut()),
            _ => None,
        };
        found.and_then(|h| h.downcast_mut()).expect("the handle of a host is used with the world that gave it")
    }

    /// A translator.
    #[must_use]
    pub fn nat(&self, id: NodeId) -> Option<&Nat> {
        match &self.nodes[id.0 as usize].place {
            Place::Nat(n) => Some(n),
            _ => None,
        }
    }

    /// A translator forgets its mappings now. No effect on other nodes.
    pub fn rebind(&mut self, id: NodeId) {
        if let Place::Nat(n) = &mut self.nodes[id.0 as usize].place {
            n.rebind(self.now_us);
        }
    }

    /// A link.
    #[must_use]
    pub fn link(&self, id: LinkId) -> &Link {
        &self.edges[id.0 as usize].link
    }

    /// Changes a link from outside, at the present time.
    pub fn with_link<R>(&mut self, id: LinkId, change: impl FnOnce(&mut Link, u64) -> R) -> R {
        let now_us = self.now_us;
        let result = change(&mut self.edges[id.0 as usize].link, now_us);
        self.after_link(id.0);
        result
    }

    /// Puts a datagram at a node now, as if the node had to send it: an attacker needs no host.
    pub fn inject(&mut self, at: impl Into<NodeId>, d: Datagram) {
        self.injected.push((at.into().0, d));
    }

    /// The hash over all events so far.
    #[must_use]
    pub const fn trace_hash(&self) -> u64 {
        self.hash.value()
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.hash.events()
    }

    /// Steps so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Datagrams that some node could not pass on.
    #[must_use]
    pub const fn no_route(&self) -> u64 {
        self.no_route
    }

    /// Tells each event to a closure from now on.
    pub fn watch(&mut self, watcher: impl FnMut(u64, &Event<'_>) + 'static) {
        self.watcher = Some(Box::new(watcher));
        self.edges.iter_mut().for_each(|e| e.link.record_drops(true));
    }

    fn wake(&mut self, node: u32) {
        let n = &mut self.nodes[node as usize];
        if !n.awake {
            n.awake = true;
            self.awake.push(node);
        }
    }
}

/// Running.
impl World {
    /// Runs until the clock shows `until_us` and everything of that time is done.
    ///
    /// # Errors
    /// [`Stuck`] if a limit is exceeded.
    pub fn run_until(&mut self, until_us: u64) -> Result<Stop, Stuck> {
        self.run_until_true(until_us, |_| false)
    }

    /// Runs for a time.
    ///
    /// # Errors
    /// [`Stuck`] if a limit is exceeded.
    pub fn run_for(&mut self, us: u64) -> Result<Stop, Stuck> {
        self.run_until(self.now_us.saturating_add(us))
    }

    /// Runs until a predicate, asked before the first and after each step, is true; at most until `until_us`.
    ///
    /// When it stops because of the time, the clock shows `until_us`. When nothing will ever happen again, it shows the time
    /// of the last event.
    ///
    /// # Errors
    /// [`Stuck`] if a limit is exceeded.
    pub fn run_until_true(&mut self, until_us: u64, mut done: impl FnMut(&Self) -> bool) -> Result<Stop, Stuck> {
        loop {
            if done(self) {
                return Ok(Stop::Reached);
            }
            match self.next_us() {
                None => return Ok(Stop::Idle),
                Some(at_us) if at_us > until_us => {
                    self.move_clock(until_us);
                    return Ok(Stop::Time);
                }
                Some(at_us) => self.step(at_us)?,
            }
        }
    }

    /// When the next step will be.
    #[must_use]
    pub fn next_us(&mut self) -> Option<u64> {
        if !self.awake.is_empty() || !self.injected.is_empty() {
            return Some(self.now_us);
        }
        self.agenda.next_us().map(|at_us| at_us.max(self.now_us))
    }

    fn move_clock(&mut self, to_us: u64) {
        if to_us > self.now_us {
            self.now_us = to_us;
            self.steps_at_this_time = 0;
        }
    }

    fn step(&mut self, at_us: u64) -> Result<(), Stuck> {
        self.move_clock(at_us);
        self.steps += 1;
        self.steps_at_this_time += 1;
        if self.steps > self.limits.steps_max || self.steps_at_this_time > self.limits.steps_at_one_time_max {
            return Err(Stuck {
                now_us: self.now_us,
                steps: self.steps,
                steps_at_this_time: self.steps_at_this_time,
                polled: self.polled.clone(),
            });
        }
        self.collect_due();
        for (node, d) in std::mem::take(&mut self.injected) {
            self.forward(node, d);
        }
        let links = std::mem::take(&mut self.due_links);
        for &number in &links {
            self.drain(number);
        }
        self.due_links = links;
        self.due_links.clear();
        self.poll_hosts();
        Ok(())
    }

    /// Moves what is due from the agenda to the lists of this step.
    fn collect_due(&mut self) {
        while let Some(who) = self.agenda.pop(self.now_us) {
            match who {
                Who::Link(number) => self.due_links.push(number),
                Who::Node(number) => self.wake(number),
            }
        }
        self.due_links.sort_unstable();
        self.due_links.dedup();
    }

    /// Takes out of a link all that has arrived.
    fn drain(&mut self, number: u32) {
        let to = self.edges[number as usize].to;
        while let Some(d) = self.edges[number as usize].link.poll(self.now_us) {
            self.arrive(to, d);
        }
        self.after_link(number);
    }

    fn arrive(&mut self, node: u32, mut d: Datagram) {
        match &mut self.nodes[node as usize].place {
            Place::Router => self.forward(node, d),
            Place::Nat(nat) => {
                if nat.pass(self.now_us, &mut d) {
                    self.forward(node, d);
                } else {
                    self.lose(node, d);
                }
            }
            Place::Host(_) if self.routes.owner(d.dst.ip()) == Some(node) => self.deliver(node, d),
            Place::Host(_) => self.lose(node, d),
        }
    }

    fn deliver(&mut self, node: u32, mut d: Datagram) {
        self.tell(&Event::Received { node, d: &d });
        if let Place::Host(host) = &mut self.nodes[node as usize].place {
            host.receive(self.now_us, &mut d);
        }
        self.pool.give(d.bytes);
        self.wake(node);
    }

    /// Sends a datagram on from a node.
    fn forward(&mut self, node: u32, d: Datagram) {
        let to = self.routes.owner(d.dst.ip());
        if to == Some(node) {
            return match self.nodes[node as usize].place {
                Place::Host(_) => self.deliver(node, d),
                _ => self.lose(node, d),
            };
        }
        let chosen = self.routes.chosen(node, d.src.ip(), d.dst.ip());
        let Some(number) = to.and_then(|to| chosen.or_else(|| self.routes.next_link(node, to))) else {
            return self.lose(node, d);
        };
        self.edges[number as usize].link.send(self.now_us, d);
        self.after_link(number);
    }

    fn lose(&mut self, node: u32, d: Datagram) {
        self.no_route += 1;
        self.tell(&Event::NoRoute { node, d: &d });
        self.pool.give(d.bytes);
    }

    /// Whatever was done to a link: fetches its leftovers and writes its next time into the agenda.
    fn after_link(&mut self, number: u32) {
        let edge = &mut self.edges[number as usize];
        self.pool.absorb(edge.link.pool());
        let from = edge.from;
        self.injected.extend(edge.link.take_back().into_iter().map(|d| (from, d)));
        let next_us = edge.link.next().unwrap_or(u64::MAX);
        self.agenda.schedule(Who::Link(number), next_us);
        if self.watcher.is_some() {
            for r in self.edges[number as usize].link.take_records() {
                self.tell(&Event::Dropped { link: number, at_us: r.at_us, cause: r.cause, bytes: r.bytes });
            }
        }
    }

    fn poll_hosts(&mut self) {
        let mut awake = std::mem::take(&mut self.awake);
        awake.sort_unstable();
        for &number in &awake {
            self.nodes[number as usize].awake = false;
            self.poll_host(number);
        }
        std::mem::swap(&mut self.polled, &mut awake);
        awake.clear();
        // A host may have woken another one (or itself) by a datagram that took no time.
        awake.append(&mut self.awake);
        self.awake = awake;
    }

    fn poll_host(&mut self, number: u32) {
        self.tell(&Event::Polled { node: number });
        self.outbox.pool.absorb(&mut self.pool);
        let node = &mut self.nodes[number as usize];
        let Place::Host(host) = &mut node.place else { return };
        host.poll(self.now_us, &mut self.outbox);
        let due_us = host.deadline().unwrap_or(u64::MAX).max(self.now_us);
        self.agenda.schedule(Who::Node(number), due_us);
        let mut list = std::mem::take(&mut self.outbox.list);
        for d in list.drain(..) {
            self.tell(&Event::Sent { node: number, d: &d });
            self.forward(number, d);
        }
        self.outbox.list = list;
    }

    fn tell(&mut self, event: &Event<'_>) {
        // Drops are known to the trace only while somebody watches; the hash must not depend on that.
        if !matches!(event, Event::Dropped { .. }) {
            self.hash.add(self.now_us, event);
        }
        if let Some(watcher) = &mut self.watcher {
            watcher(self.now_us, event);
        }
    }
}
