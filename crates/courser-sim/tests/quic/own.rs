//! Applications of a user's own: with the engine's API, over networks of their choice, the same each time.

use std::collections::BTreeMap;
use std::time::Instant;

use courser_core::engine::Event;
use courser_core::ids::{ConnKey, Dir, StreamId};
use courser_core::stream::{Read, StreamEvent};
use courser_sim::quic::{Application, EngineHost, Turn};
use courser_sim::{Duplex, LinkConfig, NatConfig, addr, home, point_to_point};

use crate::support::{MS, S};

/// Answers each question with what it got.
#[derive(Default)]
struct Server(BTreeMap<(u32, StreamId), Vec<u8>>);

impl Application for Server {
    fn event(&mut self, turn: &mut Turn<'_>, key: ConnKey, event: Event) {
        match event {
            Event::Stream(StreamEvent::Opened { dir }) => {
                while let Ok(Some(stream)) = turn.engine.accept_stream(key, dir) {
                    self.0.insert((key.index, stream), Vec::new());
                    self.go_on(turn, key, stream);
                }
            }
            Event::Stream(StreamEvent::Readable(stream)) => self.go_on(turn, key, stream),
            _ => {}
        }
    }
}

impl Server {
    fn go_on(&mut self, turn: &mut Turn<'_>, key: ConnKey, stream: StreamId) {
        let mut buffer = [0; 256];
        // An event may be older than what was read since.
        while let Some(question) = self.0.get_mut(&(key.index, stream)) {
            match turn.engine.read(key, stream, &mut buffer).unwrap() {
                Read::Bytes(n) => question.extend_from_slice(&buffer[..n]),
                Read::Blocked => return,
                Read::Finished => break,
            }
        }
        let Some(question) = self.0.remove(&(key.index, stream)) else { return };
        assert_eq!(turn.engine.write(key, stream, &question), Ok(question.len()));
        turn.engine.finish(key, stream).unwrap();
    }
}

/// Asks each 100 ms.
struct Client {
    questions: u64,
    asked: u64,
    next_us: Option<u64>,
    connection: Option<ConnKey>,
    open: BTreeMap<StreamId, (u64, Vec<u8>)>,
    answered: u64,
}

impl Client {
    fn new(questions: u64) -> Self {
        Self { questions, asked: 0, next_us: None, connection: None, open: BTreeMap::new(), answered: 0 }
    }

    fn read(&mut self, turn: &mut Turn<'_>, key: ConnKey, stream: StreamId) {
        let mut buffer = [0; 256];
        while let Some((_, answer)) = self.open.get_mut(&stream) {
            match turn.engine.read(key, stream, &mut buffer).unwrap() {
                Read::Bytes(n) => answer.extend_from_slice(&buffer[..n]),
                Read::Blocked => return,
                Read::Finished => break,
            }
        }
        let Some((number, answer)) = self.open.remove(&stream) else { return };
        assert_eq!(answer, format!("question {number}").into_bytes());
        self.answered += 1;
    }
}

impl Application for Client {
    fn wake(&mut self, turn: &mut Turn<'_>) {
        let Some(key) = self.connection else {
            self.connection = Some(turn.connect(addr::server(0)).unwrap());
            return;
        };
        self.next_us = None;
        if self.asked < self.questions {
            self.next_us = Some(turn.now_us + 100 * MS);
            let Some(stream) = turn.engine.open_stream(key, Dir::Bi).unwrap() else { return };
            turn.engine.write(key, stream, format!("question {}", self.asked).as_bytes()).unwrap();
            turn.engine.finish(key, stream).unwrap();
            self.open.insert(stream, (self.asked, Vec::new()));
            self.asked += 1;
        }
    }

    fn event(&mut self, turn: &mut Turn<'_>, key: ConnKey, event: Event) {
        match event {
            Event::Connected => self.next_us = Some(turn.now_us + 1),
            Event::Stream(StreamEvent::Readable(stream)) => self.read(turn, key, stream),
            Event::Closed(reason) => panic!("{reason:?}"),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<u64> {
        self.next_us
    }
}

#[test]
fn ten_minutes_of_an_application_of_ones_own_are_the_same_each_time() {
    let link = LinkConfig::new().rate(5_000_000).queue_bytes(60_000).delay_us(30 * MS);
    let link = Duplex::symmetric(link.loss(0.02).duplicate(0.01).reorder(0.02, 8 * MS));
    let run = |seed| {
        let nat = NatConfig::new(addr::public(1)).next_address(addr::public(2));
        let nat = (1..10).fold(nat, |nat, minute| nat.rebind_at(minute * 60 * S));
        let client = EngineHost::client(addr::private(0), seed, Client::new(6_000));
        let mut net = home(seed, client, EngineHost::server(addr::server(0), seed, Server::default()), nat, &link);
        let (began, client) = (Instant::now(), net.client);
        net.world.run_until_true(660 * S, |w| w.host(client).app.answered == 6_000).unwrap();
        let (app, up) = (&net.world.host(client).app, net.world.link(net.up).stats());
        assert_eq!((app.answered, net.world.nat(net.nat).unwrap().rebound()), (6_000, 9));
        println!(
            "{} virtual seconds in {:.2} s: {} datagrams up, {} lost, trace {:016x}",
            net.world.now_us() / S,
            began.elapsed().as_secs_f64(),
            up.sent,
            up.dropped(),
            net.world.trace_hash()
        );
        (net.world.now_us(), net.world.trace_hash())
    };
    let first = run(1);
    assert!(first.0 >= 600 * S, "{first:?}");
    assert_eq!(run(1), first);
    assert_ne!(run(2).1, first.1);
}

#[test]
fn an_application_that_moves_its_host_goes_on_over_the_other_network() {
    let lossy = |us| Duplex::symmetric(LinkConfig::new().delay_us(us).loss(0.01));
    let (client, server) = (
        EngineHost::client(addr::client(0), 4, Client::new(100)),
        EngineHost::server(addr::server(0), 4, Server::default()),
    );
    let mut net = point_to_point(4, client, server, &lossy(10 * MS));
    let other = addr::client(9);
    let (up, down) = net.world.connect(net.a, net.b, &lossy(40 * MS));
    net.world.add_address(net.a, other.ip());
    [up, down].into_iter().for_each(|link| net.world.choose_link(other.ip(), link));
    net.world.run_until(5 * S).unwrap();
    assert_eq!(net.world.link(up).stats().sent, 0);
    // The first network is gone from one moment to the next.
    [net.up, net.down].into_iter().for_each(|link| net.world.with_link(link, |l, _| l.set_dead(true)));
    net.world.host_mut(net.a).rebind(5 * S, other);
    let client = net.a;
    net.world.run_until_true(30 * S, |w| w.host(client).app.answered == 100).unwrap();
    assert_eq!(net.world.host(client).app.answered, 100);
    assert!(net.world.link(up).stats().delivered > 50 && net.world.link(down).stats().delivered > 50);
}
