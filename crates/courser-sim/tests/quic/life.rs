//! The life of connections: timeouts, closing, resets, keep-alive, key updates, Retry, versions, admission.

use std::time::Duration;

use courser_core::engine::{Meta, RetryPolicy};
use courser_core::error::CloseReason;
use courser_core::ids::{Ecn, Level, Version};
use courser_core::spans::FrameKind;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, QuicHost, inspect};
use courser_sim::script::{Script, Verdict};
use courser_sim::{Datagram, Duplex, LinkConfig, addr};

use crate::support::{MS, S, plain};

fn silence(net: &mut Net) {
    net.tap_up(Box::new(|_, _| Verdict::Drop));
    net.tap_down(Box::new(|_, _| Verdict::Drop));
}

#[test]
fn a_peer_that_vanishes_is_noticed_after_the_idle_timeout() {
    let config =
        NetConfig::new(1, plain()).settings(|s| s.idle_timeout = Duration::from_secs(7)).job(Job::fetch(1_000));
    let mut net = Net::new(config);
    net.run_until(S);
    let heard =
        |n: &Net| (n.client().app(0).unwrap().report.closed.clone(), n.server().app(0).unwrap().report.closed.clone());
    assert_eq!(heard(&net), (None, None));
    // The last authenticated packet came while the connection was set up.
    silence(&mut net);
    net.run_until(20 * S);
    let (client, server) = heard(&net);
    for (at, reason) in [client.unwrap(), server.unwrap()] {
        assert_eq!(reason, CloseReason::IdleTimeout);
        assert!((7_030 * MS..7_200 * MS).contains(&at), "{at}");
    }
    net.assert_empty();
}

#[test]
fn the_idle_timeout_is_the_smaller_one_of_both_ends() {
    for (client, server) in [(3, 9), (9, 3), (3, 0), (0, 3)] {
        let mut config = NetConfig::new(1, plain()).job(Job::fetch(1_000));
        config.client.idle_timeout = Duration::from_secs(client);
        config.server.idle_timeout = Duration::from_secs(server);
        let mut net = Net::new(config);
        net.run_until(20 * S);
        for app in net.client().apps().chain(net.server().apps()) {
            let (at, reason) = app.report.closed.clone().unwrap();
            assert_eq!(reason, CloseReason::IdleTimeout);
            assert!((3_030 * MS..3_200 * MS).contains(&at), "{client} {server}: {at}");
        }
        net.assert_empty();
    }
}

#[test]
fn the_idle_timeout_is_never_below_three_probe_timeouts() {
    //= rfc9000#10.1-1 type=test
    let config = NetConfig::new(1, Duplex::delay_us(S)).settings(|s| s.idle_timeout = Duration::from_millis(500));
    let mut net = Net::new(config.job(Job::exchange(100, 100)));
    net.run_until_done(30 * S);
    net.run_until(60 * S);
    assert_eq!(net.client_reason(), Some(CloseReason::IdleTimeout));
    net.assert_empty();
}

#[test]
fn keep_alive_keeps_a_connection_for_hours_and_an_idle_one_is_not_ticked() {
    let config = NetConfig::new(1, plain()).job(Job::fetch(1_000));
    let mut config = config;
    config.client.keep_alive = Some(Duration::from_secs(20));
    let mut net = Net::new(config);
    net.run_until(100 * S);
    let before = (net.client_stats().unwrap(), net.server_stats().unwrap());
    net.run_until(4 * 3_600 * S);
    let (client, server) = (net.client_stats().unwrap().since(&before.0), net.server_stats().unwrap().since(&before.1));
    let pings = 4 * 180;
    assert!((pings - 10..=pings + 50).contains(&client.sent.packets), "{client:?}");
    // For each PING: its timer, the acknowledgement, sending; the server: arrival and the delayed acknowledgement.
    assert!(client.ticks <= 5 * pings && server.ticks <= 4 * pings, "{} and {} ticks", client.ticks, server.ticks);
    net.finish();
}

#[test]
fn an_idle_connection_is_not_ticked_between_its_deadlines() {
    let config =
        NetConfig::new(1, plain()).settings(|s| s.idle_timeout = Duration::from_secs(3_600)).job(Job::fetch(1_000));
    let mut net = Net::new(config);
    net.run_until(10 * S);
    let before = (net.client_stats().unwrap().ticks, net.server_stats().unwrap().ticks);
    // Another connection of the same engines is busy meanwhile.
    let app = AppConfig { jobs: vec![Job::fetch(5_000_000)], ..AppConfig::default() };
    net.world.host_mut(net.client).dial(0, addr::server(0), app);
    net.run_until(600 * S);
    let after = (net.client_stats().unwrap().ticks, net.server_stats().unwrap().ticks);
    assert!(after.0 - before.0 <= 2 && after.1 - before.1 <= 2, "{before:?} {after:?}");
    net.finish();
}

#[test]
fn code_and_reason_reach_the_peer_verbatim() {
    for from_client in [true, false] {
        let mut net = Net::new(NetConfig::new(1, plain()).job(Job::fetch(1_000)));
        net.run_until(S);
        let (key, id) = if from_client { (net.client_key(), net.client) } else { (net.server_key(), net.server) };
        let reason = b"the quick brown \xff fox".to_vec();
        net.world.host_mut(id).engine.close(QuicHost::instant(S), key, 0x1234_5678_9abc, &reason).unwrap();
        net.run_until(30 * S);
        let mine = CloseReason::LocalApplication { code: 0x1234_5678_9abc, reason: reason.clone() };
        let theirs = CloseReason::PeerApplication { code: 0x1234_5678_9abc, reason };
        let (client, server) = if from_client { (mine, theirs) } else { (theirs, mine) };
        assert_eq!((net.client_reason(), net.server_reason()), (Some(client), Some(server)));
        net.assert_empty();
    }
}

/// The connection is closed by either end at each millisecond of its first 120, with and without a lost close.
#[test]
fn a_close_at_any_time_leaves_nothing() {
    for at in (0..120).step_by(3) {
        for from_client in [true, false] {
            for lost in [false, true] {
                let mut config = NetConfig::new(1, plain()).job(Job::exchange(20_000, 20_000));
                config.tls.certificate_len = 3_000;
                let mut net = Net::new(config);
                net.run_until(at * MS);
                let id = if from_client { net.client } else { net.server };
                let Some(&key) = net.world.host(id).keys().first() else { continue };
                if lost {
                    let until = at * MS + 1;
                    let tap = move |v: &mut courser_sim::script::TapView<'_>, _: &mut Datagram| {
                        if v.now_us <= until { Verdict::Drop } else { Verdict::Pass }
                    };
                    net.tap_up(Box::new(tap));
                    net.tap_down(Box::new(tap));
                }
                net.world.host_mut(id).engine.close(QuicHost::instant(at * MS), key, 5, b"").unwrap();
                net.run_until(100 * S);
                net.assert_empty();
                let (closer, other) = if from_client {
                    (net.client_reason(), net.server_reason())
                } else {
                    (net.server_reason(), net.client_reason())
                };
                assert_eq!(closer, Some(CloseReason::LocalApplication { code: 5, reason: vec![] }));
                if !lost && at > 0 && !(from_client && at < 10) {
                    let told = matches!(other, Some(CloseReason::PeerApplication { code: 5, .. }))
                        || matches!(other, Some(CloseReason::PeerTransport { code, .. }) if code.0 == 0xc);
                    assert!(told, "closed at {at} ms by client {from_client}: {other:?}");
                }
            }
        }
    }
}

#[test]
fn a_closing_connection_answers_ever_more_rarely() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::send(50_000_000)).keep());
    net.run_until(S);
    // The close is never heard: the client goes on sending into a closing server.
    net.tap_down(Box::new(|_, _| Verdict::Drop));
    let key = net.server_key();
    net.world.host_mut(net.server).engine.close(QuicHost::instant(S), key, 5, b"").unwrap();
    let before = net.world.link(net.down).stats().sent;
    net.run_until(1_100 * MS);
    let (arrived, answers) =
        (net.client_stats().unwrap().sent.datagrams, net.world.link(net.down).stats().sent - before);
    assert!((1..=12).contains(&answers), "{answers} answers, {arrived} datagrams");
    // OSSL-FIFM-06: without packets to answer the close is not repeated, neither by a timer nor by a loss.
    let sent = net.world.link(net.down).stats().sent;
    net.tap_up(Box::new(|_, _| Verdict::Drop));
    net.run_until(60 * S);
    assert_eq!(net.world.link(net.down).stats().sent, sent);
    net.assert_empty();
}

#[test]
fn a_stateless_reset_ends_a_connection_whose_peer_lost_its_state() {
    let reset_key = Some([7; 32]);
    let config = NetConfig::new(1, plain()).engine(move |e| e.reset_key = reset_key).job(Job::fetch(1_000));
    let mut net = Net::new(config);
    net.run_until(S);
    // A new server under the same address, with the same key and no connections.
    let fresh = NetConfig::new(2, plain()).engine(move |e| e.reset_key = reset_key);
    let mut fresh = Net::new(fresh);
    std::mem::swap(net.world.host_mut(net.server), fresh.world.host_mut(fresh.server));
    net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::fetch(100).at(S));
    net.run_until(2 * S);
    assert_eq!(net.client_reason(), Some(CloseReason::StatelessReset));
    assert_eq!(net.server().engine.stats().resets, 1);
    net.run_until(60 * S);
    assert_eq!(net.client().engine.connections(), 0);
    assert_eq!(net.client().engine.route_count(), 0);
}

#[test]
fn resets_do_not_answer_each_other() {
    // Two servers that know nothing: a forged packet between them must not start a loop.
    let mut net = Net::new(NetConfig::new(1, plain()));
    let mut forged = vec![0x41; 60];
    forged[1..9].copy_from_slice(b"nobodyis");
    net.world.inject(net.client, Datagram::new(addr::client(0), addr::server(0), forged));
    net.run_until(10 * S);
    assert_eq!(net.server().engine.stats().resets, 1);
    let small = Datagram::new(addr::client(0), addr::server(0), vec![0x41; 21]);
    net.world.inject(net.client, small);
    net.run_until(20 * S);
    assert_eq!(net.server().engine.stats().resets, 1, "an answer is smaller than the question, and 21 bytes at least");
}

#[test]
fn a_retry_proves_the_address_whatever_is_lost() {
    for lost in 0..6u64 {
        for up in [true, false] {
            let script = Script::new();
            let script = if up { script.drop_up([lost]) } else { script.drop_down([lost]) };
            let config = NetConfig::new(1, script.apply(plain()))
                .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always)
                .job(Job::exchange(500, 500));
            let mut config = config;
            config.tls.certificate_len = 10_000;
            let mut net = Net::new(config);
            net.run_until_done(20 * S);
            assert_eq!(net.client_stats().unwrap().retries, 1);
            assert!(net.server().engine.stats().retries >= 1);
            assert_eq!(net.server().engine.stats().accepted, 1);
            net.finish();
        }
    }
}

#[test]
fn a_retry_works_with_a_client_hello_of_two_datagrams() {
    let mut config = NetConfig::new(1, plain())
        .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always)
        .job(Job::exchange(500, 500));
    config.hello_len = 1_700;
    let mut net = Net::new(config);
    net.run_until_done(20 * S);
    assert!(net.client().app(0).unwrap().report.done_us.unwrap() < 200 * MS);
    net.finish();
}

#[test]
fn a_token_of_an_earlier_connection_spares_the_retry() {
    let config = NetConfig::new(1, plain())
        .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always)
        .job(Job::exchange(500, 500));
    let mut net = Net::new(config);
    net.run_until(S);
    let key = net.client_key();
    let host = net.world.host_mut(net.client);
    let token = host.engine.take_token(key).unwrap().unwrap().to_vec();
    let app = AppConfig { jobs: vec![Job::fetch(10)], ..AppConfig::default() };
    host.dial_with_token(S, addr::server(0), app, token);
    net.run_until_done(3 * S);
    assert_eq!(net.server().engine.stats().retries, 1);
    assert_eq!(net.server().engine.stats().accepted, 2);
    net.finish();
}

fn unknown_version(n: u8) -> Datagram {
    let mut bytes = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8];
    bytes.extend([n; 8]);
    bytes.push(4);
    bytes.extend([9; 4]);
    bytes.resize(1_200, 0);
    Datagram::new(addr::client(0), addr::server(0), bytes)
}

#[test]
fn an_unknown_version_is_answered_once_per_datagram_that_is_large_enough() {
    //= rfc9000#5.2.2-2 type=test
    //= rfc9000#17.2.1-7 type=test
    let mut net = Net::new(NetConfig::new(1, plain()));
    for n in 0..5 {
        net.world.inject(net.client, unknown_version(n));
    }
    // The same one twice in one batch: one answer.
    net.world.inject(net.client, unknown_version(4));
    let mut small = unknown_version(9);
    small.bytes.truncate(1_199);
    net.world.inject(net.client, small);
    net.run_until(10 * S);
    let stats = net.server().engine.stats();
    assert_eq!((stats.version_negotiations, stats.gate_version), (5, 7));
    assert_eq!(net.server().engine.connections(), 0);
}

#[test]
fn a_client_whose_version_nobody_speaks_is_told_so() {
    //= rfc9000#6.2-1 type=test
    let mut config = NetConfig::new(1, plain()).job(Job::fetch(100));
    config.server.versions = vec![Version::V2];
    config.client.versions = vec![Version::V1];
    let mut net = Net::new(config);
    net.run_until(20 * S);
    let Some(CloseReason::VersionNegotiation { offered }) = net.client_reason() else {
        panic!("{:?}", net.client_reason())
    };
    assert!(offered.contains(&Version::V2) && !offered.contains(&Version::V1));
    assert_eq!(net.client().app(0).unwrap().report.closed.as_ref().unwrap().0, 20 * MS);
    assert_eq!(net.client().engine.connections(), 0);
    assert_eq!(net.client().engine.route_count(), 0);
}

#[test]
fn incoming_connections_may_be_refused_ignored_retried_held_and_accepted() {
    let config = NetConfig::new(1, plain()).engine(|e| e.server.as_mut().unwrap().ask = true).job(Job::fetch(100));
    // Refused.
    let mut net = Net::new(config);
    net.run_until(50 * MS);
    let (key, incoming) = net.world.host_mut(net.server).engine.poll_incoming().unwrap();
    assert_eq!((incoming.remote, incoming.validated), (addr::client(0), false));
    net.world.host_mut(net.server).engine.refuse(key).unwrap();
    net.run_until(20 * S);
    let reason = net.client_reason();
    assert!(matches!(reason, Some(CloseReason::PeerTransport { code, .. }) if code.0 == 2), "{reason:?}");
    net.assert_empty();

    // Ignored.
    let config = NetConfig::new(1, plain()).engine(|e| e.server.as_mut().unwrap().ask = true).job(Job::fetch(100));
    let mut net = Net::new(config);
    for t in 1..200 {
        net.run_until(t * 100 * MS);
        while let Some((key, _)) = net.world.host_mut(net.server).engine.poll_incoming() {
            net.world.host_mut(net.server).engine.ignore(key).unwrap();
        }
    }
    assert_eq!(net.client_reason(), Some(CloseReason::HandshakeTimeout));
    net.assert_empty();

    // Held, retried, then accepted.
    let config = NetConfig::new(1, plain()).engine(|e| e.server.as_mut().unwrap().ask = true).job(Job::fetch(100));
    let mut net = Net::new(config);
    net.run_until(50 * MS);
    let (key, _) = net.world.host_mut(net.server).engine.poll_incoming().unwrap();
    net.world.host_mut(net.server).engine.retry(key).unwrap();
    net.run_until(3 * S);
    let (key, incoming) = net.world.host_mut(net.server).engine.poll_incoming().unwrap();
    assert!(incoming.validated);
    assert!(net.world.host_mut(net.server).engine.retry(key).is_err(), "an address is proven once");
    let now = QuicHost::instant(net.world.now_us());
    net.world.host_mut(net.server).engine.accept(now, key, None).unwrap();
    net.run_until_done(8 * S);
    net.finish();
}

#[test]
fn keys_are_updated_from_either_end_under_loss() {
    for seed in 0..6 {
        let link = Duplex::symmetric(
            LinkConfig::new().rate(20_000_000).queue_bytes(50_000).delay_us(10 * MS).loss(0.05).reorder(0.05, 8 * MS),
        );
        let mut net = Net::new(NetConfig::new(seed, link).job(Job::exchange(1_000_000, 3_000_000)));
        net.establish(10 * S);
        let mut phases = 0;
        for round in 0..12 {
            let until = net.world.now_us() + 300 * MS;
            net.run_until(until);
            let (key, id) =
                if round % 3 == 0 { (net.server_key(), net.server) } else { (net.client_key(), net.client) };
            if net.world.host_mut(id).engine.update_keys(QuicHost::instant(until), key).is_ok() {
                phases += 1;
            }
            if round == 5 {
                // Both at once.
                let key = net.server_key();
                let _ = net.world.host_mut(net.server).engine.update_keys(QuicHost::instant(until), key);
            }
        }
        assert!(phases >= 3, "{phases} updates");
        net.run_until_done(120 * S);
        net.finish();
    }
}

#[test]
fn a_key_update_shows_on_the_wire_and_costs_no_packet() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::exchange(1_000, 300_000)));
    let phases = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = phases.clone();
    net.tap_down(Box::new(move |_, d| {
        seen.lock()
            .unwrap()
            .extend(inspect::packets(&d.bytes).iter().filter(|p| p.level == Level::OneRtt).map(|p| p.phase));
        Verdict::Pass
    }));
    net.run_until(60 * MS);
    let key = net.server_key();
    net.world.host_mut(net.server).engine.update_keys(QuicHost::instant(60 * MS), key).unwrap();
    net.run_until_done(5 * S);
    let phases = phases.lock().unwrap();
    assert!(phases.contains(&false) && phases.last() == Some(&true));
    assert_eq!((net.client_stats().unwrap().undecryptable, net.server_stats().unwrap().lost_packets), (0, 0));
}

#[test]
fn garbage_and_forgeries_harm_nobody() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::exchange(200_000, 200_000)));
    let mut rng = net.world.rng(1);
    let mut recent: Vec<u8> = Vec::new();
    net.tap_up(Box::new(move |view, d| {
        // Random bytes, a damaged copy, a truncated copy, and an old packet again.
        let mut copies = vec![d.bytes.clone(), d.bytes[..d.bytes.len() / 2].to_vec(), recent.clone()];
        let at = rng.below(d.bytes.len() as u64) as usize;
        copies[0][at] ^= 1 << rng.below(8);
        copies.push((0..rng.below(1_400)).map(|_| rng.below(256) as u8).collect());
        recent = d.bytes.clone();
        for bytes in copies {
            view.inject.push((rng.below(5_000), Datagram { bytes, ..d.clone() }));
        }
        Verdict::Pass
    }));
    net.run_until_done(60 * S);
    assert_eq!(net.server().engine.connections(), 1);
    assert!(net.server_stats().unwrap().undecryptable > 10);
    net.finish();
}

#[test]
fn a_flood_of_first_packets_is_bounded_by_the_limit_of_handshakes() {
    let config = NetConfig::new(1, plain()).engine(|e| e.server.as_mut().unwrap().handshakes_max = 20);
    let mut net = Net::new(config);
    // Real first flights of clients that are never heard again.
    let mut flights = Vec::new();
    for seed in 0..60 {
        let mut other = Net::new(NetConfig::new(100 + seed, plain()).job(Job::fetch(1)));
        let sent = std::sync::Arc::new(std::sync::Mutex::new(None));
        let keep = sent.clone();
        other.tap_up(Box::new(move |_, d| {
            keep.lock().unwrap().get_or_insert(d.clone());
            Verdict::Drop
        }));
        other.run_until(1);
        flights.push(sent.lock().unwrap().take());
    }
    for flight in flights.into_iter().flatten() {
        net.world.inject(net.client, flight);
    }
    net.run_until(S);
    let stats = net.server().engine.stats();
    assert_eq!((stats.accepted, net.server().engine.connections()), (20, 20), "{stats:?}");
    assert_eq!(stats.gate_handshakes, 40);
    net.run_until(60 * S);
    assert_eq!(net.server().engine.connections(), 0);
    assert_eq!((net.server().engine.route_count(), net.server().engine.pool_stats().in_use), (0, 0));
}

#[test]
fn what_comes_from_another_address_is_not_the_peer() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::exchange(50_000, 50_000)));
    net.tap_up(Box::new(|view, d| {
        if inspect::has(&d.bytes, FrameKind::Stream) {
            view.inject.push((1, Datagram { src: addr::client(9), ..d.clone() }));
        }
        Verdict::Pass
    }));
    net.run_until_done(10 * S);
    let stats = net.server_stats().unwrap();
    assert!(stats.duplicates > 0, "late copies say nothing new");
    assert_eq!((stats.migrations, stats.paths_opened), (0, 0));
    net.finish();
}

#[test]
fn a_train_of_datagrams_is_received_like_single_ones() {
    // Taken outside the world: the bytes of one flight, joined with a stride.
    let mut net = Net::new(NetConfig::new(1, plain()).settings(|s| s.pacing = false).job(Job::send(9_000)));
    let train = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = train.clone();
    net.tap_up(Box::new(move |_, d| {
        let full = d.bytes.len() == 1_200 && inspect::packets(&d.bytes).iter().all(|p| p.level == Level::OneRtt);
        if full {
            keep.lock().unwrap().push(d.bytes.clone());
            return Verdict::Drop;
        }
        Verdict::Pass
    }));
    net.run_until(25 * MS);
    let mut joined: Vec<u8> = train.lock().unwrap().concat();
    assert!(joined.len() >= 2 * 1_200, "{}", joined.len());
    let meta = Meta { local: None, remote: addr::client(0), ecn: Ecn::NotEct, stride: 1_200 };
    let before = net.server_stats().unwrap().received.datagrams;
    let datagrams = (joined.len() / 1_200) as u64;
    net.world.host_mut(net.server).engine.receive(QuicHost::instant(25 * MS), &meta, &mut joined);
    assert_eq!(net.server_stats().unwrap().received.datagrams - before, datagrams);
    net.run_until_done(10 * S);
    net.finish();
}
