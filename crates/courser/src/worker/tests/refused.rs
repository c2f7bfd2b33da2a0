//! One destination that is refused, or whose way is full, holds no other one up.

use super::*;

/// Fails every send call to one destination.
struct Picky {
    inner: Box<dyn Adapter>,
    to: SocketAddr,
    error: i32,
    calls: Arc<Mutex<usize>>,
}

impl Adapter for Picky {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        if out.to != self.to {
            return self.inner.send(udp, out);
        }
        *self.calls.lock().unwrap() += 1;
        Err(io::Error::from_raw_os_error(self.error))
    }
    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        self.inner.receive(udp, slots, arrivals)
    }
    fn offload(&self) -> Offload {
        self.inner.offload()
    }
    fn forgive(&mut self, _: &UdpSocket) {}
}

/// A worker whose calls to `to` fail, and how many there were.
fn picky(to: SocketAddr, error: i32) -> (Worker<Echo>, Arc<Mutex<usize>>) {
    let calls = Arc::<Mutex<usize>>::default();
    let counted = Arc::clone(&calls);
    let socket = Socket::with_adapter(&SocketConfig::new(LOCAL), |udp| {
        Ok(Box::new(Picky { inner: system_adapter(udp)?, to, error, calls: counted }))
    });
    (Worker::new(Echo::default(), socket.unwrap(), Clock::start(), TurnLimits::default()).unwrap(), calls)
}

/// Takes turns until all trains are gone.
fn until_gone(w: &mut Worker<Echo>) {
    let give_up = std::time::Instant::now() + Duration::from_secs(10);
    while !w.machine().out.is_empty() || w.kept.is_some() {
        assert!(std::time::Instant::now() < give_up, "{} trains wait", w.machine().out.len());
        let turn = w.turn().unwrap();
        if !turn.progressed {
            w.wait(&turn).unwrap();
        }
    }
}

#[test]
fn a_way_that_stays_full_is_given_up_after_three_pauses_and_others_go_on() {
    let full: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let (mut w, calls) = picky(full, errno::NO_BUFFERS);
    let mut peer = worker(TurnLimits::default());
    let to = peer.socket().local_addr();
    for i in 0..4u8 {
        w.machine().out.push_back((full, 100, vec![i; 100]));
        w.machine().out.push_back((to, 100, vec![i; 100]));
    }
    let began = w.clock().now();
    until_gone(&mut w);
    use SendOutcome::{Refused, Sent};
    assert_eq!(w.machine().outcomes, [Refused, Sent].repeat(4));
    // Each train was tried at once and after each pause, and not in between.
    let tries = 1 + usize::from(PAUSES_MAX);
    assert_eq!(*calls.lock().unwrap(), 4 * tries);
    assert!(w.clock().now() >= began + 4 * u32::from(PAUSES_MAX) * PAUSE);
    until_came(&mut peer, 4);
    assert_eq!(peer.machine().came, [0, 1, 2, 3].map(|i| vec![i; 100]));
    assert!(balance(&w) && w.stats().full == u64::from(PAUSES_MAX) * 4);
}

#[test]
fn a_queue_that_drains_within_three_pauses_loses_nothing() {
    let mut w = failing(&[errno::NO_BUFFERS; PAUSES_MAX as usize]);
    let mut peer = worker(TurnLimits::default());
    w.machine().out.push_back((peer.socket().local_addr(), 100, vec![1; 100]));
    until_gone(&mut w);
    assert_eq!(w.machine().outcomes, [SendOutcome::Sent]);
    until_came(&mut peer, 1);
}

#[test]
fn destinations_that_the_system_refuses_hold_nobody_up_and_cost_no_offload() {
    let mut w = worker(TurnLimits::default());
    let offload = w.socket().offload();
    let mut peer = worker(TurnLimits::default());
    let to = peer.socket().local_addr();
    // A port at which nobody is: what follows may hear of it. Then what a socket of the loopback network cannot reach, a
    // destination that needs a permission, and one that no packet can have.
    let closed = UdpSocket::bind(LOCAL).unwrap().local_addr().unwrap();
    let others = ["192.0.2.1:9", "255.255.255.255:9", "127.0.0.1:0"].map(|at| at.parse().unwrap());
    let refused: Vec<SocketAddr> = std::iter::once(closed).chain(others).collect();
    const ROUNDS: u8 = 20;
    for i in 0..ROUNDS {
        for at in &refused {
            w.machine().out.push_back((*at, 600, vec![i; 1_800]));
        }
        w.machine().out.push_back((to, 600, vec![i; 1_800]));
    }
    until_gone(&mut w);
    let outcomes = &w.machine().outcomes;
    let good = outcomes.iter().skip(refused.len()).step_by(refused.len() + 1);
    assert_eq!(good.filter(|o| **o == SendOutcome::Sent).count(), usize::from(ROUNDS));
    let port_zero = outcomes.iter().skip(refused.len() - 1).step_by(refused.len() + 1);
    assert!(port_zero.into_iter().all(|o| *o == SendOutcome::Refused));
    assert!(balance(&w) && w.stats().full == 0);
    assert_eq!(w.socket().offload(), offload, "a destination switched offload off");
    until_came(&mut peer, 3 * usize::from(ROUNDS));
    let came: Vec<u8> = peer.machine().came.iter().map(|d| d[0]).collect();
    assert_eq!(came, (0..ROUNDS).flat_map(|i| [i; 3]).collect::<Vec<_>>());
}
