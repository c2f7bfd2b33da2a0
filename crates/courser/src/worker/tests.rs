//! Workers with small machines on real loopback sockets, with and without an adapter that fails.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use courser_core::ids::Ecn;

use super::*;
use crate::net::adapter::{Adapter, Arrival, Offload};
use crate::net::os::errno;
use crate::net::socket::{SocketConfig, system_adapter};

mod refused;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Sends what is queued, remembers what came.
#[derive(Default)]
struct Echo {
    /// (destination, segment, bytes) of trains to go.
    out: VecDeque<(SocketAddr, usize, Vec<u8>)>,
    /// Datagrams that came.
    came: Vec<Vec<u8>>,
    /// Answers every datagram with itself.
    echo: bool,
    outcomes: Vec<SendOutcome>,
    /// The times that trains were filled with.
    filled: Vec<Instant>,
    deadline: Option<Instant>,
    processed: usize,
    /// What came presses to be answered, until the next `process`.
    presses: bool,
    pressing: bool,
    /// `receive` calls since the last `process`, at most.
    batch: usize,
    batch_max: usize,
}

impl Machine for Echo {
    fn receive(&mut self, _: Instant, meta: &Meta, train: &mut [u8]) {
        self.batch += 1;
        self.batch_max = self.batch_max.max(self.batch);
        for datagram in train.chunks(meta.stride) {
            self.came.push(datagram.to_vec());
        }
        self.pressing = self.presses;
        if self.echo {
            self.out.push_back((meta.remote, meta.stride, train.to_vec()));
        }
    }

    fn is_pressing(&self) -> bool {
        self.pressing
    }

    fn process(&mut self, now: Instant) {
        self.processed += 1;
        (self.batch, self.pressing) = (0, false);
        self.deadline = self.deadline.filter(|d| *d > now);
    }

    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta> {
        let (to, segment, bytes) = self.out.pop_front()?;
        self.filled.push(now);
        out.clear();
        out.slot(bytes.len()).unwrap().copy_from_slice(&bytes);
        out.commit(bytes.len());
        Some(TrainMeta { key: None, to, from: None, ecn: Ecn::Ect0, segment, len: bytes.len() })
    }

    fn sent(&mut self, _: Instant, _: &TrainMeta, outcome: SendOutcome) {
        self.outcomes.push(outcome);
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Fails the next send calls with these errors; 0 is "would block".
struct Failing(Box<dyn Adapter>, Arc<Mutex<VecDeque<i32>>>);

impl Adapter for Failing {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        match self.1.lock().unwrap().pop_front() {
            None => self.0.send(udp, out),
            Some(0) => Err(io::ErrorKind::WouldBlock.into()),
            Some(n) => Err(io::Error::from_raw_os_error(n)),
        }
    }
    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        self.0.receive(udp, slots, arrivals)
    }
    fn offload(&self) -> Offload {
        Offload { send_segments: 1, ..self.0.offload() }
    }
    fn forgive(&mut self, _: &UdpSocket) {}
}

fn worker(limits: TurnLimits) -> Worker<Echo> {
    let socket = Socket::bind(&SocketConfig::new(LOCAL)).unwrap();
    Worker::new(Echo::default(), socket, Clock::start(), limits).unwrap()
}

fn failing(faults: &[i32]) -> Worker<Echo> {
    let faults = Arc::new(Mutex::new(faults.iter().copied().collect()));
    let socket =
        Socket::with_adapter(&SocketConfig::new(LOCAL), |udp| Ok(Box::new(Failing(system_adapter(udp)?, faults))))
            .unwrap();
    Worker::new(Echo::default(), socket, Clock::start(), TurnLimits::default()).unwrap()
}

fn balance(w: &Worker<Echo>) -> bool {
    let s = w.stats();
    s.handed == s.sent + s.refused + s.too_big + u64::from(w.kept.is_some())
}

/// Takes turns of `w` until `count` datagrams came, waiting in between.
fn until_came(w: &mut Worker<Echo>, count: usize) {
    let give_up = std::time::Instant::now() + Duration::from_secs(10);
    while w.machine().came.len() < count {
        assert!(std::time::Instant::now() < give_up, "{} of {count} came", w.machine().came.len());
        let turn = w.turn().unwrap();
        if !turn.progressed {
            let soon = w.clock().now() + Duration::from_millis(100);
            w.wait(&Turn { deadline: Some(turn.deadline.map_or(soon, |d| d.min(soon))), ..turn }).unwrap();
        }
    }
}

#[test]
fn what_presses_is_sent_before_the_machine_gets_more_and_nothing_is_lost() {
    const COUNT: u8 = 30;
    let mut server = worker(TurnLimits::default());
    (server.machine().echo, server.machine().presses) = (true, true);
    let client = UdpSocket::bind(LOCAL).unwrap();
    for i in 0..COUNT {
        client.send_to(&[i; 40], server.socket().local_addr()).unwrap();
    }
    until_came(&mut server, usize::from(COUNT));
    server.turn().unwrap();
    let came: Vec<u8> = server.machine().came.iter().map(|d| d[0]).collect();
    assert_eq!(came, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(server.machine().batch_max, 1, "each one was answered first");
    assert_eq!(server.machine().outcomes.len(), usize::from(COUNT));
    let stats = server.stats();
    assert!(stats.batches <= u64::from(COUNT).div_ceil(4) + 2, "the slots are read once: {} calls", stats.batches);
    // After the last one there is nothing to go on with.
    let turn = server.turn().unwrap();
    assert!(!turn.progressed && turn.deadline.is_none());
}

#[test]
fn trains_go_through_two_workers_and_back() {
    let mut client = worker(TurnLimits::default());
    let mut server = worker(TurnLimits::default());
    server.machine().echo = true;
    let to = server.socket().local_addr();
    let bytes: Vec<u8> = (0..10u8).flat_map(|i| vec![i; 1200]).collect();
    client.machine().out.push_back((to, 1200, bytes.clone()));
    let turn = client.turn().unwrap();
    assert!(turn.progressed && !turn.blocked);
    until_came(&mut server, 10);
    while server.machine().outcomes.is_empty() {
        server.turn().unwrap();
    }
    until_came(&mut client, 10);
    assert_eq!(client.machine().came.concat(), bytes);
    assert!(balance(&client) && balance(&server));
    assert_eq!(client.stats().bytes_sent, bytes.len() as u64);
    assert_eq!(client.stats().bytes_received, bytes.len() as u64);
}

#[test]
fn every_train_comes_back_with_one_outcome() {
    let mut w = failing(&[errno::TOO_BIG, errno::INVALID, 113]);
    let mut peer = worker(TurnLimits::default());
    let to = peer.socket().local_addr();
    for i in 0..5u8 {
        w.machine().out.push_back((to, 100, vec![i; 100]));
    }
    w.turn().unwrap();
    use SendOutcome::{Refused, Sent, TooBig};
    assert_eq!(w.machine().outcomes, [TooBig, Refused, Refused, Sent, Sent]);
    assert!(balance(&w));
    until_came(&mut peer, 2);
    assert_eq!(peer.machine().came, [vec![3; 100], vec![4; 100]]);
}

#[test]
fn a_kept_train_goes_first_and_nothing_is_filled_before() {
    let mut w = failing(&[0, 0]);
    let mut peer = worker(TurnLimits::default());
    let to = peer.socket().local_addr();
    for i in 0..3u8 {
        w.machine().out.push_back((to, 100, vec![i; 100]));
    }
    for _ in 0..2 {
        let turn = w.turn().unwrap();
        assert!(turn.blocked && !turn.progressed);
        assert_eq!((w.machine().out.len(), w.machine().outcomes.len()), (2, 0));
        assert!(balance(&w));
        // There is room, so the wait for it ends at once; without `poll` after a millisecond.
        w.wait(&turn).unwrap();
    }
    let turn = w.turn().unwrap();
    assert!(!turn.blocked && turn.progressed);
    until_came(&mut peer, 3);
    assert_eq!(peer.machine().came, [vec![0; 100], vec![1; 100], vec![2; 100]]);
    assert_eq!(w.stats().full, 2);
    assert!(balance(&w));
}

#[test]
fn a_train_partly_sent_goes_on_where_it_stopped() {
    // No offload here, so each datagram is a call: the third one finds the buffer full.
    let socket = {
        let calls = Arc::new(Mutex::new(0));
        Socket::with_adapter(&SocketConfig::new(LOCAL), |udp| Ok(Box::new(Third(system_adapter(udp)?, calls)))).unwrap()
    };
    struct Third(Box<dyn Adapter>, Arc<Mutex<usize>>);
    impl Adapter for Third {
        fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
            let mut calls = self.1.lock().unwrap();
            *calls += 1;
            if *calls == 3 { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.send(udp, out) }
        }
        fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
            self.0.receive(udp, slots, arrivals)
        }
        fn offload(&self) -> Offload {
            Offload { send_segments: 1, receive_segments: 1 }
        }
        fn forgive(&mut self, _: &UdpSocket) {}
    }
    let mut w = Worker::new(Echo::default(), socket, Clock::start(), TurnLimits::default()).unwrap();
    let mut peer = worker(TurnLimits::default());
    let bytes: Vec<u8> = (0..4u8).flat_map(|i| vec![i; 300]).collect();
    w.machine().out.push_back((peer.socket().local_addr(), 300, bytes.clone()));
    let turn = w.turn().unwrap();
    assert!(turn.blocked && turn.progressed);
    assert_eq!(w.stats().bytes_sent, 600);
    w.turn().unwrap();
    until_came(&mut peer, 4);
    assert_eq!(peer.machine().came.concat(), bytes);
    assert_eq!(w.machine().outcomes, [SendOutcome::Sent]);
}

#[test]
fn a_full_queue_below_the_socket_is_tried_again_after_a_pause() {
    let mut w = failing(&[errno::NO_BUFFERS]);
    let peer = worker(TurnLimits::default());
    w.machine().out.push_back((peer.socket().local_addr(), 100, vec![1; 100]));
    let turn = w.turn().unwrap();
    assert!(!turn.blocked, "waiting for room would end at once and spin");
    let due = turn.deadline.expect("a time to try again");
    assert!(due > w.clock().now() - PAUSE);
    let mut turn = turn;
    while w.machine().outcomes.is_empty() {
        w.wait(&turn).unwrap();
        turn = w.turn().unwrap();
    }
    assert!(w.clock().now() >= due);
    assert!(w.stats().turns < 20, "{} turns for one pause", w.stats().turns);
}

#[test]
fn a_turn_ends_with_the_train_in_which_its_time_was_used_up() {
    // LS-PROC-16
    let mut w = worker(TurnLimits { budget: Duration::ZERO, ..TurnLimits::default() });
    let to = worker(TurnLimits::default()).socket().local_addr();
    for i in 0..5u8 {
        w.machine().out.push_back((to, 100, vec![i; 100]));
    }
    for sent in 1..=5 {
        let turn = w.turn().unwrap();
        assert_eq!(w.machine().outcomes.len(), sent);
        assert!(sent == 5 || turn.deadline.is_some_and(|d| d <= w.clock().now()), "the rest waits for no event");
    }
}

/// Takes some time over every send, and notes when it was called.
struct Slow {
    inner: Box<dyn Adapter>,
    takes: Duration,
    clock: Clock,
    called: Arc<Mutex<Vec<Instant>>>,
}

impl Adapter for Slow {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        self.called.lock().unwrap().push(self.clock.now());
        std::thread::sleep(self.takes);
        self.inner.send(udp, out)
    }
    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        self.inner.receive(udp, slots, arrivals)
    }
    fn offload(&self) -> Offload {
        Offload { send_segments: 1, receive_segments: 1 }
    }
    fn forgive(&mut self, _: &UdpSocket) {}
}

/// A worker with `trains` single datagrams to send over a slow socket, and when the socket was called.
fn slow(limits: TurnLimits, takes: Duration, trains: u8) -> (Worker<Echo>, Arc<Mutex<Vec<Instant>>>) {
    let (clock, called) = (Clock::start(), Arc::default());
    let calls = Arc::clone(&called);
    let socket = Socket::with_adapter(&SocketConfig::new(LOCAL), |udp| {
        Ok(Box::new(Slow { inner: system_adapter(udp)?, takes, clock, called: calls }))
    });
    let mut w = Worker::new(Echo::default(), socket.unwrap(), clock, limits).unwrap();
    let to = worker(TurnLimits::default()).socket().local_addr();
    for i in 0..trains {
        w.machine().out.push_back((to, 100, vec![i; 100]));
    }
    (w, called)
}

#[test]
fn a_turn_of_two_milliseconds_ends_after_them_and_one_train() {
    // LS-PROC-16: each train takes a millisecond or more, so that two use the budget up.
    let limits = TurnLimits::default();
    assert_eq!(limits.budget, Duration::from_millis(2));
    let (mut w, called) = slow(limits, Duration::from_millis(1), 12);
    while !w.machine().out.is_empty() {
        let before = called.lock().unwrap().len();
        let turn = w.turn().unwrap();
        let sent = called.lock().unwrap().len() - before;
        assert!((1..=2).contains(&sent), "{sent} trains");
        let at_once = turn.deadline.is_some_and(|d| d <= w.clock().now());
        assert!(at_once || w.machine().out.is_empty(), "the rest waits for no event");
    }
}

#[test]
fn a_train_bears_the_time_at_which_the_socket_is_asked_to_send_it() {
    // LS-PROC-17: not that of the turn's beginning. Whoever runs this may be held up for a while now and then.
    let limits = TurnLimits { budget: Duration::from_secs(10), ..TurnLimits::default() };
    let (mut w, called) = slow(limits, Duration::from_millis(3), 20);
    w.turn().unwrap();
    let (filled, called) = (w.machine().filled.clone(), called.lock().unwrap());
    assert_eq!((filled.len(), called.len()), (20, 20));
    for (next, asked) in filled[1..].iter().zip(&*called) {
        assert!(*next >= *asked + Duration::from_millis(3), "the clock is read after each train");
    }
    let mut apart: Vec<_> = filled.iter().zip(&*called).map(|(filled, asked)| asked.since(*filled)).collect();
    apart.sort();
    assert!(apart[15] < Duration::from_millis(1), "{apart:?}");
}

#[test]
fn a_turn_is_bounded_both_ways() {
    let limits = TurnLimits { datagrams: 4, receive_calls: 2, slots: 2, ..TurnLimits::default() };
    let mut w = worker(limits);
    let mut peer = worker(limits);
    let to = peer.socket().local_addr();
    for i in 0..10u8 {
        // Different sizes, so that receive offload does not join them.
        w.machine().out.push_back((to, 2000, vec![i; 100 + usize::from(i)]));
    }
    let turn = w.turn().unwrap();
    assert_eq!(w.machine().outcomes.len(), 4);
    assert!(turn.deadline.is_some_and(|d| d <= w.clock().now()), "the rest waits for no event");
    while w.machine().outcomes.len() < 10 {
        w.turn().unwrap();
    }
    until_came(&mut peer, 10);
    assert!(peer.machine().batch_max <= 4, "{} trains between two ticks", peer.machine().batch_max);
}

/// Takes so many datagrams in a turn, which begins with receiving.
struct Ration(Box<dyn Adapter>, usize, usize);

impl Adapter for Ration {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        self.2 = self.2.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        self.0.send(udp, out)
    }
    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        self.2 = self.1;
        self.0.receive(udp, slots, arrivals)
    }
    fn offload(&self) -> Offload {
        Offload { send_segments: 1, receive_segments: 1 }
    }
    fn forgive(&mut self, _: &UdpSocket) {}
}

/// A worker without a limit of time whose socket takes `ration` datagrams in a turn.
fn rationed(ration: usize) -> Worker<Echo> {
    let limits = TurnLimits { budget: Duration::from_secs(10), ..TurnLimits::default() };
    let socket = Socket::with_adapter(&SocketConfig::new(LOCAL), |udp| {
        Ok(Box::new(Ration(system_adapter(udp)?, ration, ration)))
    });
    Worker::new(Echo::default(), socket.unwrap(), Clock::start(), limits).unwrap()
}

/// Sends single datagrams for some turns; returns the batch after each.
fn batches(w: &mut Worker<Echo>, turns: usize) -> Vec<usize> {
    let to = worker(TurnLimits::default()).socket().local_addr();
    let mut sizes = Vec::new();
    for _ in 0..turns {
        while w.machine().out.len() < 2048 {
            w.machine().out.push_back((to, 20, vec![0; 20]));
        }
        w.turn().unwrap();
        sizes.push(w.batch());
    }
    sizes
}

#[test]
fn batches_double_while_the_socket_takes_everything() {
    let limits = TurnLimits { budget: Duration::from_secs(10), ..TurnLimits::default() };
    let mut w = worker(limits);
    assert_eq!(w.batch(), BATCH_FIRST);
    assert_eq!(batches(&mut w, 7), [64, 128, 256, 512, 1024, 1024, 1024]);
}

#[test]
fn batches_shrink_to_what_the_socket_takes() {
    // LS-PROC-15: ten, and after ten that all went the next turn tries twice as many.
    let mut w = rationed(10);
    let sizes = batches(&mut w, 20);
    assert_eq!(sizes, [10, 20].repeat(10));
    assert_eq!(w.stats().sent, 200, "each turn sends what the socket takes");
}

#[test]
fn five_thousand_datagrams_leave_in_batches_between_the_limits() {
    // LS-ENG-08: never more than 1,024, at most 32 at first, and never fewer than four while there is enough to do.
    assert_eq!((BATCH_FIRST, BATCH_MIN, BATCH_MAX), (32, 4, 1024));
    let mut w = rationed(usize::MAX);
    let to = worker(TurnLimits::default()).socket().local_addr();
    for _ in 0..5000 {
        w.machine().out.push_back((to, 20, vec![0; 20]));
    }
    let mut sent = Vec::new();
    while !w.machine().out.is_empty() {
        let before = w.machine().outcomes.len();
        w.turn().unwrap();
        sent.push(w.machine().outcomes.len() - before);
    }
    assert_eq!(sent, [32, 64, 128, 256, 512, 1024, 1024, 1024, 936]);
    // A socket that takes one a turn, or none, is still offered four.
    for ration in [0, 1] {
        let mut w = rationed(ration);
        assert_eq!(batches(&mut w, 8), [BATCH_MIN; 8]);
    }
}

#[test]
fn an_idle_worker_waits_and_its_deadline_wakes_it() {
    let mut w = worker(TurnLimits::default());
    let at = w.clock().now() + Duration::from_millis(30);
    w.machine().deadline = Some(at);
    let mut turn = w.turn().unwrap();
    while w.machine().deadline.is_some() {
        assert!(!turn.progressed);
        w.wait(&turn).unwrap();
        turn = w.turn().unwrap();
    }
    assert!(w.clock().now() >= at);
    assert!(w.stats().turns <= 10, "{} turns in 30 ms of nothing", w.stats().turns);
}

/// A worker whose wait before was short, so that the next one looks first, for as long as a test may take.
fn looking() -> Worker<Echo> {
    let mut config = SocketConfig::new(LOCAL);
    config.busy_poll = Duration::from_secs(20);
    let mut w = Worker::new(Echo::default(), Socket::bind(&config).unwrap(), Clock::start(), TurnLimits::default());
    w.as_mut().unwrap().busy.slept(Duration::ZERO);
    w.unwrap()
}

#[test]
fn what_is_found_while_looking_is_handed_over_by_the_next_turn() {
    let mut w = looking();
    let peer = UdpSocket::bind(LOCAL).unwrap();
    for i in 1..=20u8 {
        let turn = w.turn().unwrap();
        assert!(!turn.progressed);
        peer.send_to(&[i; 30], w.socket().local_addr()).unwrap();
        w.wait(&turn).unwrap();
        // Waiting again before the turn loses nothing.
        w.wait(&turn).unwrap();
        assert!(w.turn().unwrap().progressed);
        assert_eq!(w.machine().came.last().unwrap(), &[i; 30]);
    }
    let stats = w.stats();
    assert_eq!((stats.busy_hits, stats.busy_misses, stats.waits), (20, 0, 0));
}

#[test]
fn a_call_and_a_deadline_end_looking_too() {
    let mut w = looking();
    let turn = w.turn().unwrap();
    let waker = w.waker();
    let caller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        waker.wake();
    });
    let began = std::time::Instant::now();
    w.wait(&turn).unwrap();
    caller.join().unwrap();
    let mut turn = w.turn().unwrap();
    turn.deadline = Some(w.clock().now() + Duration::from_millis(20));
    w.wait(&turn).unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "neither ended it");
    assert!(w.clock().now() >= turn.deadline.unwrap());
    let stats = w.stats();
    assert_eq!((stats.busy_hits, stats.busy_misses, stats.waits), (1, 0, 0));
}

#[test]
fn who_looks_for_other_news_hears_of_datagrams_meanwhile_and_of_the_news_too() {
    let mut w = worker(TurnLimits::default());
    let peer = UdpSocket::bind(LOCAL).unwrap();
    let to = w.socket().local_addr();
    for datagram_first in [true, false] {
        let turn = w.turn().unwrap();
        let mut looks = 0;
        let mut has_news = |_: &mut Echo| {
            looks += 1;
            if looks == 3 && datagram_first {
                peer.send_to(&[7; 30], to).unwrap();
            }
            looks == 5 && !datagram_first
        };
        let how = Look { least: Duration::from_secs(20), has_news: &mut has_news, pause: std::thread::yield_now };
        assert!(w.look(&turn, how).unwrap());
        assert_eq!(w.turn().unwrap().progressed, datagram_first);
    }
    assert_eq!((w.machine().came.len(), w.stats().waits), (1, 0));
    // Nobody looks for no time at all, unless datagrams came close together.
    let turn = w.turn().unwrap();
    let none = Look { least: Duration::ZERO, has_news: &mut |_| true, pause: std::hint::spin_loop };
    assert!(!w.look(&turn, none).unwrap());
}

#[test]
fn looking_in_vain_is_followed_by_sleep() {
    let mut config = SocketConfig::new(LOCAL);
    config.busy_poll = Duration::from_micros(50);
    let socket = Socket::bind(&config).unwrap();
    let mut w = Worker::new(Echo::default(), socket, Clock::start(), TurnLimits::default()).unwrap();
    w.busy.slept(Duration::ZERO);
    for _ in 0..5 {
        let mut turn = w.turn().unwrap();
        turn.deadline = Some(w.clock().now() + Duration::from_millis(10));
        w.wait(&turn).unwrap();
    }
    // The first wait looked; what followed were long waits.
    let stats = w.stats();
    assert_eq!((stats.busy_hits, stats.busy_misses, stats.waits), (0, 1, 5));
}

#[cfg(feature = "tokio")]
#[test]
fn a_task_hands_over_what_it_finds_while_looking() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut w = looking();
        let peer = UdpSocket::bind(LOCAL).unwrap();
        let to = w.socket().local_addr();
        peer.send_to(&[0; 30], to).unwrap();
        let mut app = move |machine: &mut Echo, _: Instant| {
            let came = u8::try_from(machine.came.len()).unwrap();
            if came == 20 {
                return ControlFlow::Break(());
            }
            peer.send_to(&[came; 30], to).unwrap();
            ControlFlow::Continue(())
        };
        tokio::time::timeout(Duration::from_secs(10), w.drive(&mut app)).await.expect("in time").unwrap();
        let stats = w.stats();
        assert!(stats.busy_hits > 0 && stats.waits == 0, "{stats:?}");
    });
}

#[test]
fn a_worker_in_a_thread_of_its_own_is_woken_and_stopped() {
    let w = worker(TurnLimits::default());
    let inbox = Arc::new(Mutex::new(Vec::new()));
    let outbox = Arc::clone(&inbox);
    let running = w
        .spawn("courser-test", move |machine, _| {
            machine.out.extend(outbox.lock().unwrap().drain(..));
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut peer = worker(TurnLimits::default());
    for i in 0..20u8 {
        inbox.lock().unwrap().push((peer.socket().local_addr(), 50, vec![i; 50]));
        running.waker().wake();
        until_came(&mut peer, usize::from(i) + 1);
    }
    let mut w = running.stop().unwrap();
    assert_eq!(w.machine().outcomes.len(), 20);
    // Two turns for a call at most, some for the start and the end: it does not spin.
    assert!(w.stats().turns <= 100, "{} turns", w.stats().turns);
}

#[test]
fn dropping_a_running_worker_ends_its_thread() {
    let ended = Arc::new(());
    let held = Arc::clone(&ended);
    let running = worker(TurnLimits::default())
        .spawn("courser-test", move |_, _| {
            let _ = &held;
            ControlFlow::Continue(())
        })
        .unwrap();
    drop(running);
    assert_eq!(Arc::strong_count(&ended), 1);
}

#[cfg(feature = "tokio")]
#[test]
fn a_worker_in_a_task_sends_answers_and_stops() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut server = worker(TurnLimits::default());
        server.machine().echo = true;
        let to = server.socket().local_addr();
        let server_waker = server.waker();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let serving = tokio::spawn(async move {
            let mut app = move |_: &mut Echo, _: Instant| match asked.load(std::sync::atomic::Ordering::Acquire) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            server.drive(&mut app).await.unwrap();
            server
        });
        let mut client = worker(TurnLimits::default());
        let mut n = 0u8;
        let mut app = |machine: &mut Echo, _: Instant| {
            if machine.came.len() == usize::from(n) {
                n += 1;
                if n > 50 {
                    return ControlFlow::Break(());
                }
                machine.out.push_back((to, 60, vec![n; 60]));
            }
            ControlFlow::Continue(())
        };
        tokio::time::timeout(Duration::from_secs(10), client.drive(&mut app)).await.expect("in time").unwrap();
        assert_eq!(client.machine().came.len(), 50);
        stop.store(true, std::sync::atomic::Ordering::Release);
        server_waker.wake();
        let server = tokio::time::timeout(Duration::from_secs(10), serving).await.expect("woken").unwrap();
        assert!(server.stats().turns <= 400, "{} turns for 50 datagrams", server.stats().turns);
    });
}
