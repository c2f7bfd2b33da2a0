//! Handshakes under every kind of trouble.

use std::time::Duration;

use courser_core::error::CloseReason;
use courser_core::ids::{Level, Version};
use courser_core::spans::FrameKind;
use courser_sim::nat::NatConfig;
use courser_sim::node::corrupt::Damage;
use courser_sim::quic::{Job, Net, NetConfig, inspect};
use courser_sim::script::{Act, Pick, Script, Verdict};
use courser_sim::{Duplex, LinkConfig, addr};

use crate::support::{MS, S, plain};
use crate::tls::with_tls;

/// Who does TLS and protects packets. Handshakes have to get through whoever it is (LS-CONN-03).
#[derive(Clone, Copy, Debug)]
enum By {
    Null,
    Tls,
}

const BOTH: [By; 2] = [By::Null, By::Tls];

/// Sizes of the ClientHello, where the null provider makes it, and of the certificate.
#[derive(Clone, Copy, Default)]
struct Sizes {
    hello: usize,
    certificate: usize,
}

const SMALL: Sizes = Sizes { hello: 0, certificate: 600 };
const MIDDLE: Sizes = Sizes { hello: 0, certificate: 2_500 };
const LARGE: Sizes = Sizes { hello: 1_700, certificate: 20_000 };

fn net_config(by: By, seed: u64, link: Duplex, sizes: Sizes) -> NetConfig {
    let mut config = match by {
        By::Null => NetConfig::new(seed, link),
        By::Tls => with_tls(seed, link, sizes.certificate),
    };
    config.hello_len = sizes.hello;
    config.tls.certificate_len = sizes.certificate;
    config
}

#[test]
fn a_handshake_takes_one_round_trip_and_a_request_two() {
    for by in BOTH {
        let mut net = Net::new(net_config(by, 1, plain(), SMALL).job(Job::fetch(1_000)));
        net.run_until_done(10 * S);
        let report = &net.client().app(0).unwrap().report;
        assert_eq!(report.connected_us, Some(20 * MS), "{by:?}");
        assert_eq!(report.first_byte_us, Some(40 * MS), "{by:?}");
        net.finish();
    }
}

fn with_losses(by: By, up: &[u64], down: &[u64], sizes: Sizes) -> u64 {
    let link = Script::new().drop_up(up.iter().copied()).drop_down(down.iter().copied()).apply(plain());
    let mut net = Net::new(net_config(by, 1, link, sizes).job(Job::exchange(500, 500)));
    net.run_until_done(20 * S);
    let done = net.client().app(0).unwrap().report.done_us.unwrap();
    net.finish();
    done
}

#[test]
fn each_single_datagram_of_a_handshake_may_be_lost() {
    for (by, n) in BOTH.into_iter().flat_map(|by| (0..10).map(move |n| (by, n))) {
        // The first probe comes after three times the initial round trip of 333 ms.
        for (up, down) in [(vec![n], vec![]), (vec![], vec![n])] {
            let took = with_losses(by, &up, &down, SMALL);
            assert!(took < 1_200 * MS, "{by:?}: lost {up:?} {down:?}: {took} us");
        }
    }
}

#[test]
fn each_pair_of_datagrams_of_a_handshake_may_be_lost() {
    for by in BOTH {
        for (up, down) in courser_sim::script::loss_patterns(5, 2) {
            let took = with_losses(by, &up, &down, SMALL);
            assert!(took < 3_500 * MS, "{by:?}: lost {up:?} {down:?}: {took} us");
        }
    }
}

#[test]
fn an_address_that_changes_while_the_last_flight_is_lost_does_not_cost_the_connection() {
    // The client has completed the handshake, the server has not; what was said is repeated from elsewhere. The ClientHello of
    // TLS with a hybrid group has two datagrams.
    for (by, first) in [(By::Null, 1), (By::Tls, 2)] {
        for (at, lost) in [21, 25, 35, 60, 200].into_iter().flat_map(|at| (0..4).map(move |lost| (at, lost))) {
            for other_address in [false, true] {
                let mut nat = NatConfig::new(addr::public(1)).rebind_at(at * MS);
                if other_address {
                    nat = nat.next_address(addr::public(2));
                }
                let link = Script::new().drop_up(first..first + lost).apply(plain());
                let config = net_config(by, 1, link, SMALL).nat(nat).job(Job::exchange(20_000, 20_000));
                let mut net = Net::new(config);
                net.run_until(12 * S);
                let report = &net.client().app(0).unwrap().report;
                let what = format!("{by:?} at {at} ms, {lost} lost, {other_address}");
                assert_eq!((report.bytes_in, report.ends), (20_000, 1), "{what}: {report:?}");
                net.run_until_done(60 * S);
                net.finish();
            }
        }
    }
}

#[test]
fn each_single_datagram_of_a_large_handshake_may_be_lost() {
    for (by, n) in BOTH.into_iter().flat_map(|by| (0..24).map(move |n| (by, n))) {
        for (up, down) in [(vec![n], vec![]), (vec![], vec![n])] {
            let took = with_losses(by, &up, &down, LARGE);
            assert!(took < 3_500 * MS, "{by:?}: lost {up:?} {down:?}: {took} us");
        }
    }
}

/// Runs an exchange over a bad link; says when it was done.
fn over(by: By, seed: u64, link: LinkConfig, sizes: Sizes, job: Job) -> u64 {
    let config = net_config(by, seed, Duplex::symmetric(link), sizes)
        // Time for answers that are lost four times in a row, and a probe timeout that doubles meanwhile.
        .settings(|s| (s.handshake_timeout, s.idle_timeout) = (Duration::from_secs(60), Duration::from_secs(60)))
        .job(job);
    let mut net = Net::new(config);
    net.run_until_done(120 * S);
    let done = net.client().app(0).unwrap().report.done_us.unwrap();
    net.finish();
    done
}

#[test]
fn a_large_handshake_gets_through_random_loss() {
    for (by, seed) in BOTH.into_iter().flat_map(|by| (0..10).map(move |seed| (by, seed))) {
        let took = over(by, seed, LinkConfig::new().delay_us(10 * MS).loss(0.15), LARGE, Job::exchange(500, 500));
        assert!(took < 60 * S, "{by:?}: {took} us");
    }
}

#[test]
fn thirty_percent_loss_both_ways_is_overcome() {
    for (by, seed) in BOTH.into_iter().flat_map(|by| (0..60).map(move |seed| (by, seed))) {
        let link = LinkConfig::new().delay_us(10 * MS).loss(0.3);
        let took = over(by, seed, link, SMALL, Job::exchange(2_000, 20_000));
        assert!(took < 60 * S, "{by:?}: {took} us");
    }
}

#[test]
fn thirty_percent_corruption_both_ways_is_overcome() {
    for (by, seed) in BOTH.into_iter().flat_map(|by| (0..20).map(move |seed| (by, seed))) {
        let link = LinkConfig::new().delay_us(10 * MS).corrupt(0.3, Damage::FlipBits(1));
        over(by, seed, link, SMALL, Job::exchange(2_000, 50_000));
    }
}

/// Delays datagrams of the handshake against each other in all orders.
#[test]
fn datagrams_of_a_handshake_may_arrive_in_any_order() {
    for (by, order) in BOTH.into_iter().flat_map(|by| (0..3u64.pow(5)).map(move |order| (by, order))) {
        let mut digits = order;
        let mut script = Script::new();
        for n in 0..5 {
            let delay = (digits % 3) * 3 * MS;
            digits /= 3;
            script = if n < 2 { script.delay_up([n], delay) } else { script.delay_down([n - 2], delay) };
        }
        let mut net = Net::new(net_config(by, 1, script.apply(plain()), MIDDLE).job(Job::exchange(500, 500)));
        net.run_until_done(10 * S);
        let took = net.client().app(0).unwrap().report.done_us.unwrap();
        assert!(took < 200 * MS, "{by:?}, order {order}: {took} us");
        net.finish();
    }
}

/// Every coalesced datagram is taken apart, and its packets arrive in reverse order as datagrams of their own.
#[test]
fn coalesced_packets_may_come_apart_and_in_any_order() {
    for (by, reverse) in BOTH.into_iter().flat_map(|by| [(by, false), (by, true)]) {
        let mut net = Net::new(net_config(by, 1, plain(), MIDDLE).job(Job::exchange(500, 500)));
        net.tap_down(Box::new(move |view, d| {
            let parts = inspect::packets(&d.bytes);
            if parts.len() < 2 {
                return Verdict::Pass;
            }
            for (i, part) in parts.iter().enumerate() {
                let after = if reverse { (parts.len() - i) as u64 } else { i as u64 };
                let mut piece = d.clone();
                piece.bytes = d.bytes[part.at.clone()].to_vec();
                view.inject.push((after, piece));
            }
            Verdict::Drop
        }));
        net.run_until_done(10 * S);
        assert!(net.client().app(0).unwrap().report.done_us.unwrap() < 200 * MS);
        net.finish();
    }
}

#[test]
fn duplicates_of_everything_change_nothing() {
    for by in BOTH {
        let link = Script::new().up(Pick::All, Act::Copies(2)).down(Pick::All, Act::Copies(2)).apply(plain());
        let mut net = Net::new(net_config(by, 1, link, SMALL).job(Job::exchange(50_000, 50_000)));
        net.run_until_done(10 * S);
        let (client, server) = (net.client_stats().unwrap(), net.server_stats().unwrap());
        assert!(client.duplicates > 50 && server.duplicates > 50, "{by:?}: {client:?} {server:?}");
        assert_eq!((client.lost_packets, server.lost_packets), (0, 0));
        net.finish();
    }
}

/// Bytes that a server may send and did send before the client's address is validated.
#[test]
fn a_server_sends_at_most_three_times_what_it_got_from_an_address_that_is_not_validated() {
    for lost in [vec![], (1..7).collect::<Vec<u64>>(), vec![2, 4, 6]] {
        let link = Script::new().drop_up(lost.iter().copied()).apply(plain());
        let mut config = NetConfig::new(1, link).job(Job::exchange(500, 500));
        config.tls.certificate_len = 20_000;
        let mut net = Net::new(config);
        let counts = std::sync::Arc::new(std::sync::Mutex::new((0usize, 0usize, false, 0usize)));
        let seen = counts.clone();
        // What enters the way up and is not dropped will arrive: the server's ledger can only be smaller.
        net.world.watch(move |_, event| {
            let mut c = seen.lock().unwrap();
            match event {
                courser_sim::Event::Received { node: 1, d } => {
                    c.0 += d.bytes.len();
                    c.2 |= inspect::packets(&d.bytes).iter().any(|p| p.level == Level::Handshake);
                }
                courser_sim::Event::Sent { node: 1, d } if !c.2 => {
                    c.1 += d.bytes.len();
                    c.3 = c.3.max((c.1 * 1_000) / c.0);
                    assert!(c.1 <= 3 * c.0, "{} bytes sent, {} received", c.1, c.0);
                }
                _ => {}
            }
        });
        net.run_until_done(20 * S);
        assert_eq!(counts.lock().unwrap().3, 3_000, "the limit is used to its last byte");
        net.finish();
    }
}

#[test]
fn a_long_round_trip_needs_no_luck() {
    let mut net = Net::new(NetConfig::new(1, Duplex::delay_us(750 * MS)).job(Job::exchange(5_000, 100_000)));
    net.run_until_done(30 * S);
    let client = net.client_stats().unwrap();
    assert!(client.rtt.as_millis() >= 1_490, "{client:?}");
    net.finish();
}

#[test]
fn keys_and_connection_ids_of_the_handshake_are_gone_when_it_is_confirmed() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::exchange(500, 500)).keep());
    net.run_until(5 * S);
    let after = |n: &courser_sim::quic::Noted| n.at_us > 100 * MS && n.level != Level::OneRtt;
    assert!(!net.client_watch.notes().iter().any(after) && !net.server_watch.notes().iter().any(after));
    // Of its own IDs each end keeps a route; the server's route for the client's choice has gone after two seconds.
    assert!(net.server().engine.route_count() <= 5 + 4, "{}", net.server().engine.route_count());
    net.finish();
}

#[test]
fn handshakes_under_way_are_counted_down_when_they_end() {
    // A server with room for four handshakes takes fifty connections one after the other.
    let config = NetConfig::new(1, plain()).engine(|e| e.server.as_mut().unwrap().handshakes_max = 4);
    let mut net = Net::new(config);
    for i in 0..50 {
        let app = courser_sim::quic::AppConfig { jobs: vec![Job::fetch(100)], ..Default::default() };
        net.world.host_mut(net.client).dial(i * 200 * MS, courser_sim::addr::server(0), app);
    }
    net.run_until_done(30 * S);
    assert_eq!(net.server().engine.stats().gate_handshakes, 0);
    net.finish();
}

#[test]
fn handshakes_that_fail_are_counted_down_too() {
    let config = NetConfig::new(1, plain()).engine(|e| e.server.as_mut().unwrap().handshakes_max = 2);
    let mut config = config;
    config.tls.refuse = Some(40);
    let mut net = Net::new(config);
    for i in 0..10 {
        let app = courser_sim::quic::AppConfig { jobs: vec![Job::fetch(100)], ..Default::default() };
        net.world.host_mut(net.client).dial(i * 6 * S, courser_sim::addr::server(0), app);
    }
    net.run_until(100 * S);
    assert_eq!(net.server().engine.stats().gate_handshakes, 0);
    assert_eq!(net.server().engine.stats().accepted, 10);
    for app in net.client().apps() {
        let reason = &app.report.closed.as_ref().unwrap().1;
        let CloseReason::PeerTransport { code, .. } = reason else { panic!("{reason:?}") };
        assert_eq!(code.0, 0x128);
    }
    net.assert_empty();
}

#[test]
fn nobody_answers_and_the_client_gives_up_after_the_handshake_timeout() {
    let link = Script::new().up(Pick::All, Act::Drop).apply(plain());
    let mut net = Net::new(NetConfig::new(1, link).job(Job::fetch(10)));
    net.run_until(60 * S);
    let (at, reason) = net.client().app(0).unwrap().report.closed.clone().unwrap();
    assert_eq!((at, reason), (10 * S, CloseReason::HandshakeTimeout));
    let sent = net.world.link(net.up).stats().sent;
    assert!((4..=12).contains(&sent), "{sent} first flights");
    net.assert_empty();
}

#[test]
fn a_certificate_that_is_refused_ends_both_ends_with_the_alert() {
    let config = NetConfig::new(1, plain()).job(Job::fetch(10));
    let client = courser_core::protect::null::NullTlsClient { refuse: Some(42), ..Default::default() };
    let mut config = config;
    config.client_provider = Some(courser_sim::quic::Provider::null_client(1, client));
    let mut net = Net::new(config);
    net.run_until(60 * S);
    assert!(matches!(net.client_reason(), Some(CloseReason::Tls { alert: 42, .. })), "{:?}", net.client_reason());
    let reason = net.server_reason();
    assert!(matches!(reason, Some(CloseReason::PeerTransport { code, .. }) if code.0 == 0x12a), "{reason:?}");
    net.assert_empty();
}

#[test]
fn version_2_alone_works() {
    for by in BOTH {
        let config = net_config(by, 1, plain(), SMALL).settings(|s| s.versions = vec![Version::V2]);
        let mut net = Net::new(config.job(Job::fetch(1_000)));
        net.run_until_done(5 * S);
        assert_eq!(net.client().engine.version(net.client_key()), Ok(Version::V2));
        net.finish();
    }
}

#[test]
fn handshake_done_leaves_the_moment_the_handshake_is_complete() {
    //= rfc9001#4.1.2-1 type=test
    for seed in 0..20 {
        let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.05).reorder(0.1, 5 * MS));
        let mut net = Net::new(NetConfig::new(seed, link).job(Job::exchange(10, 10)).keep());
        net.establish(20 * S);
        let complete = net.server().app(0).unwrap().report.connected_us;
        let first = net.server_watch.with(FrameKind::HandshakeDone).first().map(|n| n.at_us);
        assert!(first.is_some() && first == complete, "{first:?} and {complete:?}");
    }
}

#[test]
fn handshake_done_is_repeated_until_it_arrives() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::exchange(10, 10)).keep());
    let mut lost = 0;
    net.tap_down(Box::new(move |_, d| {
        if inspect::has(&d.bytes, FrameKind::HandshakeDone) && lost < 5 {
            lost += 1;
            return Verdict::Drop;
        }
        Verdict::Pass
    }));
    net.establish(20 * S);
    let told = net.server_watch.with(FrameKind::HandshakeDone).len();
    assert!(told >= 6, "{told}");
    net.run_until(net.world.now_us() + 30 * MS);
    let told = net.server_watch.with(FrameKind::HandshakeDone).len();
    net.run_until(net.world.now_us() + 20 * S);
    assert_eq!(net.server_watch.with(FrameKind::HandshakeDone).len(), told, "and not once it was acknowledged");
    net.finish();
}

#[test]
fn packets_that_waited_for_keys_keep_their_ecn_mark() {
    // The server's first datagram is overtaken by those with Handshake packets alone.
    let mut config =
        NetConfig::new(1, Script::new().delay_down([0], 5 * MS).apply(plain())).job(Job::exchange(500, 500));
    config.tls.certificate_len = 2_500;
    let mut net = Net::new(config);
    net.run_until(2 * S);
    assert!(net.server_stats().unwrap().ecn && net.client_stats().unwrap().ecn, "the counts fit");
    net.finish();
}

#[test]
fn a_probe_of_the_handshake_takes_waiting_application_data_along() {
    //= rfc9002#6.2.4-3 type=test
    let link = Script::new().drop_up([1, 2]).apply(plain());
    let mut net = Net::new(NetConfig::new(1, link).keep().job(Job::exchange(500, 500)));
    net.run_until_done(5 * S);
    let notes = net.client_watch.notes();
    let at = |level| notes.iter().filter(move |n| n.level == level && n.at_us > 20 * MS).map(|n| n.at_us);
    let probe = at(Level::Handshake).next().expect("the client's Finished was lost");
    assert!(at(Level::OneRtt).any(|sent| sent == probe), "the request waits: {notes:?}");
    net.finish();
}
