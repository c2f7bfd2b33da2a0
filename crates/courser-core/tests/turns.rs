//! Turns at sending with 1, 10 and 1,000 senders: shares in bytes, datagrams for each system call, who waits for whom.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeMap;

use core::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::{Meta, SendOutcome, TRAIN_BYTES_MAX, Train};
use courser_core::ids::{ConnKey, Dir, StreamId};
use courser_core::stream::Read;
use courser_testing::duo::{CLIENT, Duo, SERVER};

const DATAGRAM: usize = 1472;
/// Datagrams of a full train.
const FULL: usize = TRAIN_BYTES_MAX / DATAGRAM;

/// Full datagrams from the start, no pacing, and windows that nobody has to read for.
fn settings() -> Settings {
    let mut settings = Settings::default();
    (settings.pacing, settings.mtu_discovery) = (false, false);
    settings.initial_udp_payload = DATAGRAM as u16;
    (settings.stream_window, settings.conn_window) = (1 << 20, 32 << 20);
    settings
}

/// The key of a connection at either end.
type Ends = (ConnKey, ConnKey);

fn connected(n: usize) -> (Duo, Vec<Ends>) {
    let mut duo = Duo::null(&settings());
    let ends = (0..n).map(|_| duo.connect(&settings())).collect();
    (duo, ends)
}

/// The client has so many bytes to send.
fn load(duo: &mut Duo, key: ConnKey, len: usize) -> StreamId {
    let id = duo.client.open_stream(key, Dir::Uni).unwrap().unwrap();
    assert_eq!(duo.client.write(key, id, &vec![1; len]), Ok(len));
    id
}

fn settle(duo: &mut Duo, ends: &[Ends]) {
    for _ in 0..1_000 {
        duo.round();
        let idle = |(key, _): &Ends| duo.client.conn_stats(*key).is_ok_and(|s| s.bytes_in_flight == 0);
        if ends.iter().all(idle) {
            return;
        }
    }
    panic!("something stays in flight");
}

/// What left in some turns of the client, which nobody receives.
#[derive(Default)]
struct Sent {
    calls: usize,
    datagrams: usize,
    bytes: BTreeMap<ConnKey, usize>,
}

impl Sent {
    fn apart(&self) -> usize {
        let most = self.bytes.values().max().copied().unwrap_or(0);
        most - self.bytes.values().min().copied().unwrap_or(0)
    }
}

fn send(duo: &mut Duo, calls: usize) -> Sent {
    let (mut train, mut sent) = (Train::new(), Sent::default());
    duo.client.process(duo.now);
    for _ in 0..calls {
        let Some(meta) = duo.client.fill(duo.now, &mut train) else { break };
        duo.client.sent(duo.now, &meta, SendOutcome::Sent);
        sent.calls += 1;
        sent.datagrams += meta.len.div_ceil(meta.segment);
        *sent.bytes.entry(meta.key.unwrap()).or_default() += meta.len;
    }
    sent
}

/// What the client has goes to the server, but trains of one connection are refused; returns how many.
fn up(duo: &mut Duo, refused: Option<ConnKey>) -> u64 {
    let (mut train, mut refusals) = (Train::new(), 0);
    duo.client.process(duo.now);
    while let Some(meta) = duo.client.fill(duo.now, &mut train) {
        if refused.is_some() && meta.key == refused {
            refusals += 1;
            duo.client.sent(duo.now, &meta, SendOutcome::Refused);
            continue;
        }
        let arrived = Meta { local: None, remote: CLIENT, ecn: meta.ecn, stride: meta.segment };
        duo.server.receive(duo.now, &arrived, &mut train.bytes().to_vec());
        duo.client.sent(duo.now, &meta, SendOutcome::Sent);
    }
    refusals
}

/// The same, and what the server has for the client.
fn round_trip(duo: &mut Duo, refused: Option<ConnKey>) -> u64 {
    duo.now += duo.step;
    let refusals = up(duo, refused);
    let mut train = Train::new();
    duo.server.process(duo.now);
    while let Some(meta) = duo.server.fill(duo.now, &mut train) {
        let arrived = Meta { local: None, remote: SERVER, ecn: meta.ecn, stride: meta.segment };
        duo.client.receive(duo.now, &arrived, &mut train.bytes().to_vec());
        duo.server.sent(duo.now, &meta, SendOutcome::Sent);
    }
    refusals
}

#[test]
fn one_ten_and_a_thousand_senders_share_by_bytes_in_full_trains() {
    for (n, warm, rounds) in [(1, 700_000, 4), (10, 700_000, 4), (1_000, 80_000, 1)] {
        let (mut duo, ends) = connected(n);
        for (key, _) in &ends {
            load(&mut duo, *key, warm);
        }
        settle(&mut duo, &ends);
        for (key, _) in &ends {
            load(&mut duo, *key, if n > 10 { 200_000 } else { 700_000 });
        }
        for round in 1..=rounds {
            let sent = send(&mut duo, n);
            assert_eq!(sent.bytes.len(), n, "{n} senders, round {round}: a turn each");
            assert_eq!(sent.apart(), 0, "{n} senders, round {round}");
            assert_eq!(sent.datagrams, n * FULL, "{n} senders: {FULL} datagrams for each system call");
        }
    }
}

#[test]
fn a_short_message_waits_for_nobody_among_a_thousand_senders() {
    let (mut duo, mut ends) = connected(1_001);
    for (key, _) in &ends {
        load(&mut duo, *key, 80_000);
    }
    settle(&mut duo, &ends);
    let (quiet, _) = ends.pop().unwrap();
    for (key, _) in &ends {
        load(&mut duo, *key, 200_000);
    }
    let first = send(&mut duo, 1_000);
    assert_eq!((first.bytes.len(), first.bytes.get(&quiet)), (1_000, None), "everybody else had a turn");
    load(&mut duo, quiet, 100);
    let next = send(&mut duo, 1);
    assert_eq!(next.bytes.keys().collect::<Vec<_>>(), [&quiet], "one train after another had left it would be");
}

#[test]
fn who_waits_for_a_turn_is_ticked_once_and_not_in_every_round() {
    // With many connections that wait, ticks in every round are what a round costs.
    let (mut duo, ends) = connected(50);
    let ids: Vec<_> = ends.iter().map(|(key, _)| load(&mut duo, *key, 5_000)).collect();
    up(&mut duo, None);
    // The socket of the server is full: it processes and cannot send. Acknowledgements are overdue.
    duo.server.process(duo.now);
    duo.now += Duration::from_millis(30);
    duo.server.process(duo.now);
    let ticks = duo.server.stats().ticks;
    for _ in 0..100 {
        duo.now += Duration::from_millis(1);
        duo.server.process(duo.now);
    }
    assert_eq!(duo.server.stats().ticks, ticks, "nothing happened to anybody");
    duo.now += Duration::from_secs(1);
    duo.server.process(duo.now);
    assert_eq!(duo.server.stats().ticks, ticks + 50, "a socket that stays full does not keep timers from coming");
    // Then all of it leaves without new input.
    settle(&mut duo, &ends);
    for ((_, server), id) in ends.iter().zip(ids) {
        assert_eq!(duo.server.read(*server, id, &mut [0; 8192]), Ok(Read::Bytes(5_000)));
    }
}

#[test]
fn a_refused_destination_holds_nobody_up_and_gets_everything_later() {
    let (mut duo, ends) = connected(10);
    let loaded: Vec<_> = ends.iter().map(|(key, _)| load(&mut duo, *key, 100_000)).collect();
    let refused = ends[3].0;
    let refusals: u64 = (0..100).map(|_| round_trip(&mut duo, Some(refused))).sum();
    let in_flight = |duo: &Duo, key| duo.client.conn_stats(key).unwrap().bytes_in_flight;
    for (key, _) in &ends {
        assert_eq!(in_flight(&duo, *key) == 0, *key != refused, "all others are done");
    }
    // One turn's worth of tries, then probes at growing distances: no busy loop over a path that is refused.
    assert!((1..=5).contains(&refusals), "{refusals} trains were refused in 20 ms");
    assert_eq!(duo.client.stats().refused, refusals);
    (0..10_000).for_each(|_| assert_eq!(round_trip(&mut duo, None), 0));
    let mut read = 0;
    while let Ok(Read::Bytes(n)) = duo.server.read(ends[3].1, loaded[3], &mut [0; 8192]) {
        read += n;
    }
    assert_eq!(read, 100_000);
}
