//! How finely many connections behind one engine are paced: few finely, a crowd in bunches, a busy crowd by the window.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use courser_core::config::Settings;
use courser_core::engine::{Engine, Meta, SendOutcome, Train};
use courser_core::ids::{ConnKey, Dir};
use courser_core::time::Instant;
use courser_testing::duo::{CLIENT, Duo, SERVER};

const DATAGRAM: usize = 1472;
/// One way.
const DELAY: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_millis(1);

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.mtu_discovery = false;
    settings.initial_udp_payload = DATAGRAM as u16;
    (settings.stream_window, settings.conn_window) = (4 << 20, 4 << 20);
    settings
}

/// Trains on their way: when they arrive, the size of their datagrams, the bytes.
type Wire = VecDeque<(Instant, usize, Vec<u8>)>;

fn deliver(now: Instant, wire: &mut Wire, from: SocketAddr, to: &mut Engine) {
    while wire.front().is_some_and(|(at, ..)| *at <= now) {
        let (_, stride, mut bytes) = wire.pop_front().unwrap();
        to.receive(now, &Meta { local: None, remote: from, ecn: courser_core::ids::Ecn::NotEct, stride }, &mut bytes);
    }
    to.process(now);
}

/// A window that is larger loses a datagram.
const WINDOW_MAX: u64 = 40 * DATAGRAM as u64;

/// What an engine sends; the datagrams of each train of data.
fn send(now: Instant, engine: &mut Engine, wire: &mut Wire) -> Vec<usize> {
    let (mut train, mut sizes) = (Train::new(), Vec::new());
    while let Some(meta) = engine.fill(now, &mut train) {
        engine.sent(now, &meta, SendOutcome::Sent);
        let mut bytes = train.bytes().to_vec();
        if meta.len >= DATAGRAM {
            sizes.push(meta.len.div_ceil(meta.segment));
            if engine.conn_stats(meta.key.unwrap()).unwrap().congestion_window > WINDOW_MAX {
                bytes[..DATAGRAM].fill(0);
            }
        }
        wire.push_back((now + DELAY, meta.segment, bytes));
    }
    sizes
}

/// So many connections send all the time over 40 ms there and back, with windows of about forty datagrams at most: the
/// datagrams of each train after the beginning, and the bytes of each connection in all.
fn trains_of(connections: usize) -> (Vec<usize>, Vec<u64>) {
    let mut duo = Duo::null(&settings());
    let keys: Vec<ConnKey> = (0..connections).map(|_| duo.connect(&settings()).0).collect();
    let (mut up, mut down, mut sizes) = (Wire::new(), Wire::new(), Vec::new());
    let ids: Vec<_> = keys.iter().map(|key| duo.client.open_stream(*key, Dir::Uni).unwrap().unwrap()).collect();
    let began = duo.now;
    while duo.now < began + Duration::from_millis(600) {
        duo.now += STEP;
        for (key, id) in keys.iter().zip(&ids) {
            let _taken = duo.client.write(*key, *id, &[7; 2 * DATAGRAM]).unwrap();
        }
        deliver(duo.now, &mut up, CLIENT, &mut duo.server);
        deliver(duo.now, &mut down, SERVER, &mut duo.client);
        let sent = send(duo.now, &mut duo.client, &mut up);
        send(duo.now, &mut duo.server, &mut down);
        if duo.now > began + Duration::from_millis(300) {
            sizes.extend(sent);
        }
    }
    let sent = keys.iter().map(|key| duo.client.conn_stats(*key).unwrap().sent.bytes).collect();
    (sizes, sent)
}

#[test]
fn few_are_paced_finely_a_crowd_in_bunches_and_a_busy_crowd_by_the_window() {
    let [few, crowd, busy] = [8, 70, 300].map(|connections| {
        let (sizes, sent) = trains_of(connections);
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(least * 10 >= most * 9, "{connections} connections sent {least} to {most} bytes");
        (sizes.iter().sum::<usize>() as f64 / sizes.len() as f64, *least)
    });
    // 2.7, 14.8 and 18.7 at the time of writing.
    assert!(few.0 < 5.0 && crowd.0 > 9.0 && busy.0 > 15.0, "{few:?} {crowd:?} {busy:?}");
    let rate = |of: (f64, u64)| of.1 as f64 / few.1 as f64;
    assert!(rate(crowd) > 0.9 && rate(busy) > 0.9, "larger bunches cost rate: {few:?} {crowd:?} {busy:?}");
}
