//! ClientHellos that take several datagrams: trouble at every position of the handshake. What is counted is how often
//! anybody had to wait for a probe timeout, and what the server kept before there was a connection.

use courser_core::config::Settings;
use courser_core::ids::Level;
use courser_core::protect::null::{NullTlsClient, told_by};
use courser_core::spans::FrameKind;
use courser_sim::Duplex;
use courser_sim::quic::{Job, Net, NetConfig, Noted, Provider, inspect};
use courser_sim::script::{Act, Pick, Script, Tap, Verdict, loss_patterns};

use crate::support::{Capture, MS, S, plain};

/// Datagrams of each direction until the exchange is done, and some.
const DATAGRAMS: u64 = 12;

fn net(script: Script, hello_len: usize) -> Net {
    let mut config = NetConfig::new(1, script.apply(plain())).job(Job::exchange(500, 500));
    (config.hello_len, config.tls.certificate_len) = (hello_len, 3_000);
    Net::new(config)
}

/// Runs an exchange; says when it was done, and how many probe timeouts it took at both ends.
fn run(script: Script, hello_len: usize) -> (u64, u64) {
    let text = format!("{script:?}, ClientHello of {hello_len} bytes");
    let mut net = net(script, hello_len);
    net.run_until_done(20 * S);
    let ptos = net.client_stats().unwrap().ptos + net.server_stats().unwrap().ptos;
    let done = net.client().app(0).unwrap().report.done_us.unwrap();
    let stats = net.server().engine.stats();
    assert_eq!((stats.accepted, stats.mini_violations), (1, 0), "{text}");
    net.finish();
    (done, ptos)
}

#[test]
fn without_trouble_nobody_waits_and_each_further_datagram_costs_no_time() {
    for hello_len in [0, 2_000, 3_000, 9_000] {
        assert_eq!(run(Script::new(), hello_len), (40 * MS, 0), "{hello_len} bytes");
    }
}

#[test]
fn each_datagram_may_be_lost_for_one_probe_timeout_at_each_end() {
    for (hello_len, n) in [2_000, 3_000].into_iter().flat_map(|len| (0..DATAGRAMS).map(move |n| (len, n))) {
        for script in [Script::new().drop_up([n]), Script::new().drop_down([n])] {
            let text = format!("{script:?}");
            let (done, ptos) = run(script, hello_len);
            // A first flight is repeated after 125 ms; everything else knows of a round trip of 20 ms.
            assert!(done < 220 * MS && ptos <= 2, "{text}: {done} us, {ptos} timeouts");
        }
    }
}

#[test]
fn each_pair_of_datagrams_may_be_lost() {
    for (up, down) in loss_patterns(6, 2).filter(|(up, down)| up.len() + down.len() == 2) {
        let text = format!("{up:?} {down:?}");
        let (done, ptos) = run(Script::new().drop_up(up).drop_down(down), 2_000);
        assert!(done < 3_300 * MS && ptos <= 6, "{text}: {done} us, {ptos} timeouts");
    }
}

#[test]
fn a_slow_path_costs_one_needless_flight_each_way_and_no_storm() {
    // A round trip of a satellite, and that of the public runner's slowest test: the first flight of the client is repeated
    // after 125 ms, and from then on by the timeout of 999 ms alone, with two datagrams; the server repeats its own once.
    for (one_way, hello_len, initials, flights) in
        [(300, 0, 2, 2), (300, 2_000, 4, 2), (750, 0, 4, 3), (60, 0, 1, 1), (62, 0, 1, 1), (64, 0, 2, 2)]
    {
        let link = Duplex::delay_us(one_way * MS);
        let mut config = NetConfig::new(1, link).job(Job::fetch(1_000)).keep();
        config.hello_len = hello_len;
        let mut net = Net::new(config);
        net.run_until_done(20 * S);
        let crypto = |notes: Vec<Noted>, level: Level| notes.iter().filter(|n| n.level == level).count();
        let sent = crypto(net.client_watch.with(FrameKind::Crypto), Level::Initial);
        let answers = crypto(net.server_watch.with(FrameKind::Crypto), Level::Handshake);
        assert!(sent <= initials && answers <= flights, "{one_way} ms: {sent} Initials, {answers} answers");
        let done = net.client().app(0).unwrap().report.done_us.unwrap();
        assert_eq!(done, 4 * one_way * MS, "nothing takes longer for it");
        net.finish();
    }
}

#[test]
fn each_datagram_may_come_twice_or_late() {
    for n in 0..DATAGRAMS {
        let pick = || Pick::Numbers(vec![n]);
        for act in [Act::Copies(1), Act::Copies(3), Act::Delay(MS), Act::Delay(15 * MS), Act::Delay(200 * MS)] {
            for script in [Script::new().up(pick(), act), Script::new().down(pick(), act)] {
                let text = format!("{script:?}");
                let (done, ptos) = run(script, 3_000);
                let late = if let Act::Delay(us) = act { us } else { 0 };
                assert!(done <= 60 * MS + 2 * late && ptos <= 2, "{text}: {done} us, {ptos} timeouts");
            }
        }
    }
}

#[test]
fn the_parts_may_come_in_any_order() {
    for order in 0..3_u64.pow(4) {
        let mut script = Script::new();
        for n in 0..4 {
            script = script.delay_up([n], order / 3_u64.pow(n as u32) % 3 * 4 * MS);
        }
        let text = format!("{script:?}");
        let (done, ptos) = run(script, 4_000);
        assert!(done <= 60 * MS + 4 * 8 * MS && ptos == 0, "{text}: {done} us, {ptos} timeouts");
    }
}

#[test]
fn the_first_part_is_acknowledged_before_the_last_one_comes() {
    let mut net = net(Script::new().delay_up([1], 20 * MS), 2_000);
    let down = Capture::default();
    net.tap_down(down.tap());
    net.run_until(25 * MS);
    let server = &net.server().engine;
    assert_eq!((server.stats().minis, server.stats().accepted, server.stats().ticks), (1, 0, 0));
    let said = down.datagrams();
    assert_eq!(said.len(), 1);
    assert!(
        said[0].len() < 100 && inspect::frames_of(&said[0]).iter().all(|(level, _)| *level == Level::Initial),
        "one small ACK"
    );
    net.run_until_done(10 * S);
    assert_eq!(net.client_stats().unwrap().ptos, 0, "the client knows that it was heard");
    net.finish();
}

#[test]
fn early_data_that_overtakes_the_end_of_the_hello_is_delivered_once_and_in_order() {
    // LS-MINI-05
    for late in [0, 1] {
        let link = Script::new().delay_up([late], 5 * MS).apply(plain());
        let mut config = NetConfig::new(1, link).job(Job::exchange(5_000, 1_000));
        let client = NullTlsClient {
            remembered: Some(told_by(&Settings::default())),
            hello_len: 1_500,
            ..NullTlsClient::default()
        };
        config.client_provider = Some(Provider::null_client(1, client));
        config.tls.accept_early_data = true;
        let mut net = Net::new(config);
        net.run_until_done(10 * S);
        let (client, server) = (&net.client().app(0).unwrap().report, &net.server().app(0).unwrap().report);
        assert_eq!((client.early, server.read_early), (Some(true), 1), "late: {late}");
        net.finish();
    }
}

#[test]
fn a_path_that_loses_every_marked_datagram_still_carries_a_handshake() {
    // LS-MINI-23
    for hello_len in [0, 3_000] {
        let mut net = net(Script::new(), hello_len);
        let drop = || -> Tap { Box::new(|_, d| if d.ecn == 0 { Verdict::Pass } else { Verdict::Drop }) };
        net.tap_up(drop());
        net.tap_down(drop());
        net.run_until_done(60 * S);
        let (client, server) = (net.client_stats().unwrap(), net.server_stats().unwrap());
        assert!(!client.ecn && !server.ecn, "{hello_len} bytes");
        net.finish();
    }
}
