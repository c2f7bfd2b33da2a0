//! Looking ahead, and not looking in vain: hints change nothing but time, and a connection that waits for its turn at sending
//! is not visited before.

use core::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::{Engine, Meta, SendOutcome, Train};
use courser_core::ids::{ConnKey, Dir, Ecn};
use courser_core::protect::null::NullTlsClient;
use courser_core::stream::Read;
use courser_core::time::Instant;
use courser_testing::duo::{CLIENT, Duo, SERVER, null_client};

/// Enough for the engine to think that it pays.
const CONNECTIONS: usize = 200;

/// All trains that an engine has, as they are.
fn trains(engine: &mut Engine, now: Instant, train: &mut Train) -> Vec<(usize, Vec<u8>)> {
    let mut all = Vec::new();
    engine.process(now);
    while let Some(meta) = engine.fill(now, train) {
        engine.sent(now, &meta, SendOutcome::Sent);
        all.push((meta.segment, train.bytes().to_vec()));
    }
    all
}

fn hand_over(engine: &mut Engine, now: Instant, hinted: bool, mut all: Vec<(usize, Vec<u8>)>) {
    if hinted {
        let junk: [&[u8]; 4] = [&[], &[0x40], &[0xc0; 1200], &[0x40; 30]];
        engine.expect(junk);
        engine.expect(all.iter().map(|(_, bytes)| &bytes[..]));
    }
    let remote = if engine.stats().connected > 0 { SERVER } else { CLIENT };
    for (stride, bytes) in &mut all {
        engine.receive(now, &Meta { local: None, remote, ecn: Ecn::NotEct, stride: *stride }, bytes);
    }
}

/// A message up on each connection and one down, all at the same time; what passed, byte by byte.
fn run(hinted: bool) -> Vec<Vec<u8>> {
    let settings = Settings::default();
    let mut duo = Duo::null(&settings);
    let keys: Vec<(ConnKey, ConnKey)> = (0..CONNECTIONS).map(|_| duo.connect(&settings)).collect();
    let (mut train, mut passed, mut into) = (Train::new(), Vec::new(), [0; 256]);
    for (client, _) in &keys {
        let id = duo.client.open_stream(*client, Dir::Bi).expect("it is there").expect("there is credit");
        duo.client.write(*client, id, &[1; 200]).expect("it is open");
    }
    let mut answered = 0;
    for _ in 0..20 {
        duo.now += Duration::from_millis(30);
        let up = trains(&mut duo.client, duo.now, &mut train);
        passed.extend(up.iter().map(|(_, bytes)| bytes.clone()));
        hand_over(&mut duo.server, duo.now, hinted, up);
        for (_, server) in &keys {
            while let Ok(Some(id)) = duo.server.accept_stream(*server, Dir::Bi) {
                assert_eq!(duo.server.read(*server, id, &mut into), Ok(Read::Bytes(200)));
                duo.server.write(*server, id, &[2; 100]).expect("it is open");
                answered += 1;
            }
        }
        let down = trains(&mut duo.server, duo.now, &mut train);
        passed.extend(down.iter().map(|(_, bytes)| bytes.clone()));
        hand_over(&mut duo.client, duo.now, hinted, down);
        while duo.client.poll_event().is_some() || duo.server.poll_event().is_some() {}
    }
    assert_eq!(answered, CONNECTIONS);
    passed
}

#[test]
fn a_hint_of_what_comes_changes_no_byte() {
    let (hinted, plain) = (run(true), run(false));
    assert!(plain.len() > 2 * CONNECTIONS);
    assert_eq!(hinted, plain);
}

#[test]
fn a_connection_that_waits_for_its_turn_is_not_visited_before() {
    let settings = Settings::default();
    let mut duo = Duo::null(&settings);
    let (_, server) = duo.connect(&settings);
    let id = duo.server.open_stream(server, Dir::Uni).unwrap().unwrap();
    duo.server.write(server, id, &[1; 4000]).unwrap();
    duo.server.process(duo.now);
    let ticks = duo.server.stats().ticks;
    // The socket is full, while times come at which an idle connection would rest or acknowledge.
    for _ in 0..90 {
        duo.now += Duration::from_millis(10);
        duo.server.process(duo.now);
    }
    assert_eq!(duo.server.stats().ticks, ticks);
    // Not for ever: who ends while it waits is to be heard of.
    for _ in 0..30 {
        duo.now += Duration::from_millis(100);
        duo.server.process(duo.now);
    }
    assert!((1..=4).contains(&(duo.server.stats().ticks - ticks)), "{}", duo.server.stats().ticks - ticks);
    let mut train = Train::new();
    assert!(duo.server.fill(duo.now, &mut train).is_some_and(|meta| meta.len > 4000), "its turn came");
}

#[test]
fn in_a_throng_of_handshakes_nobody_repeats_anything_early() {
    let (settings, mut now) = (Settings::default(), Instant::from_micros(1));
    let mut client = Engine::new(null_client(1));
    for _ in 0..CONNECTIONS {
        client.connect(now, SERVER, "localhost", &NullTlsClient::default(), &settings).unwrap();
    }
    let mut train = Train::new();
    assert_eq!(trains(&mut client, now, &mut train).len(), CONNECTIONS);
    now = Instant::from_micros(140_000);
    let early = trains(&mut client, now, &mut train).len();
    assert_eq!(early, 129, "those who began when there was none");
    now = Instant::from_micros(1_300_000);
    assert_eq!(trains(&mut client, now, &mut train).len(), CONNECTIONS, "and all of them when it is time");
}
