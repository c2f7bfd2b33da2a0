//! Addresses change: translators that rebind, clients that move, servers that prefer another address, paths that turn out
//! to be dead, attackers that send copies from elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use courser_core::error::{ApiMisuse, CloseReason};
use courser_core::spans::FrameKind;
use courser_sim::nat::NatConfig;
use courser_sim::node::ecn::Ecn;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, QuicHost, inspect};
use courser_sim::script::Verdict;
use courser_sim::{Datagram, Duplex, LinkConfig, Rng, addr};

use crate::support::{MS, S, plain, rated};

/// Where a client may move to.
fn second() -> IpAddr {
    addr::client(7).ip()
}

fn with_port(at: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(at.ip(), port)
}

/// A good link, one that loses, one that reorders, one that does both.
fn links() -> [(&'static str, Duplex); 4] {
    let base = || LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(10 * MS);
    [
        ("clean", Duplex::symmetric(base())),
        ("loss", Duplex::symmetric(base().loss(0.05))),
        ("reordering", Duplex::symmetric(base().reorder(0.05, 10 * MS))),
        ("both", Duplex::symmetric(base().loss(0.05).reorder(0.05, 10 * MS))),
    ]
}

/// A client with a second address.
fn roaming(seed: u64, link: Duplex) -> NetConfig {
    let mut config = NetConfig::new(seed, link);
    config.client_also = vec![second()];
    config
}

fn migrate(net: &mut Net, to: IpAddr) -> Result<(), ApiMisuse> {
    let (key, now) = (net.client_key(), QuicHost::instant(net.world.now_us()));
    net.world.host_mut(net.client).engine.migrate(now, key, to)
}

fn rebind(net: &mut Net, to: SocketAddr) {
    let now = net.world.now_us();
    net.world.host_mut(net.client).rebind(now, to);
}

/// The client's address as the server has it.
fn seen(net: &Net) -> SocketAddr {
    net.server().engine.remote(net.server_key()).unwrap()
}

#[test]
fn a_translator_that_rebinds_in_mid_transfer_loses_no_byte() {
    // LS-PATH-02
    for change_address in [false, true] {
        for (name, link) in links() {
            for seed in 0..3 {
                let mut nat = NatConfig::new(addr::public(1));
                if change_address {
                    nat = nat.next_address(addr::public(2));
                }
                let mut config = NetConfig::new(seed, link.clone()).nat(nat).keep();
                // Who only listens is not found again: the one behind the translator has to say something.
                config.client.keep_alive = Some(Duration::from_millis(100));
                let mut net = Net::new(config.job(Job::exchange(1_000_000, 2_000_000)));
                net.establish(10 * S);
                for _ in 0..2 {
                    net.run_until(net.world.now_us() + 250 * MS);
                    let nat = net.nat.unwrap();
                    net.world.rebind(nat);
                }
                net.run_until_done(60 * S);
                let report = &net.client().app(0).unwrap().report;
                assert_eq!((report.bytes_in, report.ends), (2_000_000, 1), "{name} {seed}");
                let stats = net.server_stats().unwrap();
                assert!(stats.migrations >= 2, "{name} {seed}: {stats:?}");
                assert_eq!(stats.paths_with_known_cid, stats.paths_opened, "the client did not know");
                assert!(net.server_watch.with(FrameKind::PathChallenge).len() >= 2);
                assert_eq!(net.client_stats().unwrap().migrations, 0);
                net.finish();
            }
        }
    }
}

#[test]
fn the_first_packets_to_a_new_address_challenge_it() {
    // LS-PATH-07
    //= rfc9000#9.3-1 type=test
    let nat = NatConfig::new(addr::public(1)).rebind_at(300 * MS);
    let mut net = Net::new(NetConfig::new(1, rated(20)).nat(nat).job(Job::exchange(3_000_000, 0)));
    let to_new = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = to_new.clone();
    let mut old = None;
    net.tap_down(Box::new(move |_, d| {
        let first = *old.get_or_insert(d.dst);
        if d.dst != first {
            keep.lock().unwrap().push((inspect::has(&d.bytes, FrameKind::PathChallenge), d.bytes.len()));
        }
        Verdict::Pass
    }));
    net.run_until_done(60 * S);
    let sent = to_new.lock().unwrap().clone();
    //= rfc9000#8.2.1-4 type=test
    assert!(sent[0].0 && sent[0].1 >= 1_200, "{:?}", &sent[..3]);
    assert_eq!(sent.iter().filter(|(challenge, _)| *challenge).count(), 1, "one is enough on a good path");
    net.finish();
}

#[test]
fn a_client_tests_the_new_path_before_it_moves() {
    // LS-PATH-01, LS-CID-02
    for (name, link) in links() {
        for seed in 0..3 {
            // A challenge that is lost is repeated after a second; there has to be something to say by then.
            let mut net = Net::new(roaming(seed, link.clone()).keep().job(Job::exchange(4_000_000, 1_000_000)));
            net.establish(5 * S);
            net.run_until(net.world.now_us() + 100 * MS);
            migrate(&mut net, second()).unwrap();
            let data_first = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let keep = data_first.clone();
            net.tap_up(Box::new(move |_, d| {
                if d.src.ip() == second() {
                    keep.lock().unwrap().push(inspect::packets(&d.bytes).iter().all(|p| p.frames.is_probing()));
                }
                Verdict::Pass
            }));
            net.run_until_done(60 * S);
            let probing = data_first.lock().unwrap().clone();
            assert!(probing[0] && probing.iter().any(|p| !p), "{name} {seed}: probes, then data");
            assert_eq!(seen(&net).ip(), second());
            let (client, server) = (net.client_stats().unwrap(), net.server_stats().unwrap());
            assert_eq!((client.migrations, server.paths_with_known_cid), (1, 0), "{name} {seed}: {server:?}");
            assert!(server.migrations >= 1);
            assert_eq!(net.client().app(0).unwrap().report.bytes_in, 1_000_000);
            net.finish();
        }
    }
}

#[test]
fn back_and_forth_uses_a_fresh_connection_id_each_time() {
    //= rfc9000#9.5-1 type=test
    //= rfc9000#9.5-2 type=test
    for (name, link) in links() {
        let mut net = Net::new(roaming(2, link).job(Job::exchange(2_000_000, 2_000_000)));
        let used = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
        for (is_up, tap) in [(true, used.clone()), (false, used.clone())] {
            let watch = move |_: &mut courser_sim::script::TapView<'_>, d: &mut Datagram| {
                if d.bytes[0] & 0x80 == 0 {
                    let client = if is_up { d.src } else { d.dst };
                    tap.lock().unwrap().insert((d.bytes[1..9].to_vec(), client));
                }
                Verdict::Pass
            };
            if is_up { net.tap_up(Box::new(watch)) } else { net.tap_down(Box::new(watch)) }
        }
        net.establish(5 * S);
        let home = addr::client(0).ip();
        for to in [second(), home, second(), home] {
            net.run_until(net.world.now_us() + 250 * MS);
            migrate(&mut net, to).unwrap();
            net.run_until_true(20 * S, |c, s| {
                c.app(0).is_some() && s.keys().first().is_some_and(|k| s.engine.remote(*k).unwrap().ip() == to)
            });
        }
        net.run_until_done(60 * S);
        assert!(net.client_stats().unwrap().migrations >= 4, "{name}");
        let mut addresses = std::collections::BTreeMap::new();
        for (cid, at) in used.lock().unwrap().iter() {
            let before = addresses.insert(cid.clone(), *at);
            assert!(before.is_none_or(|b| b == *at), "{name}: a connection ID at {before:?} and {at}");
        }
        net.finish();
    }
}

#[test]
fn a_client_that_lost_its_address_goes_on_from_another_one() {
    for (name, link) in links() {
        for (seed, to) in [(1, with_port(addr::client(0), 50_001)), (2, addr::client(7))] {
            let mut net = Net::new(roaming(seed, link.clone()).job(Job::exchange(1_000_000, 1_000_000)));
            net.establish(5 * S);
            net.run_until(net.world.now_us() + 100 * MS);
            rebind(&mut net, to);
            net.run_until_done(60 * S);
            assert_eq!((seen(&net), net.client_stats().unwrap().migrations), (to, 1), "{name}");
            assert_eq!(net.client().app(0).unwrap().report.bytes_in, 1_000_000);
            assert_eq!(net.server_stats().unwrap().paths_with_known_cid, 0, "{name}");
            net.finish();
        }
    }
}

#[test]
fn a_new_path_that_is_dead_is_given_up_and_the_old_one_stays() {
    //= rfc9000#8.2.4-1 type=test
    for (name, link) in links() {
        let mut net = Net::new(roaming(3, link).job(Job::exchange(1_000_000, 1_000_000)));
        net.tap_up(Box::new(|_, d| if d.src.ip() == second() { Verdict::Drop } else { Verdict::Pass }));
        net.establish(5 * S);
        migrate(&mut net, second()).unwrap();
        net.run_until(net.world.now_us() + 4_500 * MS);
        let stats = net.client_stats().unwrap();
        assert_eq!((stats.migrations, stats.paths_failed), (0, 1), "{name}");
        net.run_until_done(60 * S);
        assert_eq!(seen(&net), addr::client(0));
        net.finish();
    }
}

#[test]
fn a_server_returns_to_the_last_validated_address_when_nobody_answers_at_the_new_one() {
    //= rfc9000#9.3.2-1 type=test
    // An attacker on the path sends one packet from elsewhere; then the client is silent for a while.
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::exchange(10_000, 10_000)));
    net.run_until_done(5 * S);
    net.run_until(2 * S);
    let mut done = false;
    net.tap_up(Box::new(move |_, d| {
        if !std::mem::replace(&mut done, true) {
            d.src = addr::client(9);
        }
        Verdict::Pass
    }));
    net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::exchange(100, 0).at(2 * S + MS));
    net.run_until(2 * S + 15 * MS);
    assert_eq!(seen(&net), addr::client(9), "the packet was authentic and new");
    net.run_until(2 * S + 20 * MS);
    // The client hears the challenge of its own address at once, and its answer alone does not move the connection; what
    // it acknowledges beside does.
    net.run_until(8 * S);
    assert_eq!(seen(&net), addr::client(0));
    net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::exchange(1_000, 1_000).at(9 * S));
    net.run_until_done(20 * S);
    net.finish();
}

#[test]
fn copies_that_overtake_move_the_connection_for_no_longer_than_the_peer_needs_to_speak() {
    //= rfc9000#9.3.3-1 type=test
    //= rfc9000#9.3.3-2 type=test
    // The attacker has a faster way: its copies come first, from its own address; what it gets it does not forward.
    for (name, link) in links() {
        let mut net = Net::new(NetConfig::new(4, link).job(Job::exchange(500_000, 1_000_000)));
        net.tap_up(Box::new(|view, d| {
            if (300 * MS..500 * MS).contains(&view.now_us) && inspect::has(&d.bytes, FrameKind::Stream) {
                view.inject.push((0, Datagram { src: addr::client(9), ..d.clone() }));
                return Verdict::Delay(500);
            }
            Verdict::Pass
        }));
        net.run_until_done(60 * S);
        assert_eq!(seen(&net), addr::client(0), "{name}");
        net.finish();
    }
}

#[test]
fn sixty_four_spoofed_addresses_end_nothing() {
    // LS-PATH-03
    let mut net = Net::new(NetConfig::new(5, plain()).job(Job::exchange(500_000, 500_000)));
    let mut n = 0;
    net.tap_up(Box::new(move |view, d| {
        if view.now_us > 100 * MS && n < 64 && d.bytes[0] & 0x80 == 0 {
            n += 1;
            d.src = with_port(addr::client(20 + n), 9);
        }
        Verdict::Pass
    }));
    net.run_until_done(60 * S);
    let stats = net.server_stats().unwrap();
    assert!(stats.paths_opened >= 60, "{stats:?}");
    net.run_until(net.world.now_us() + 15 * S);
    assert_eq!(seen(&net), addr::client(0));
    net.finish();
}

#[test]
fn traffic_moves_to_the_preferred_address_once_the_handshake_is_confirmed() {
    // LS-PATH-10, LS-PATH-11
    //= rfc9000#9.6.1-1 type=test
    //= rfc9000#9.6.1-2 type=test
    for (name, link) in links() {
        for seed in 0..2 {
            let mut config = NetConfig::new(seed, link.clone()).job(Job::exchange(1_000_000, 1_000_000));
            config.server_also = vec![addr::server(1).ip()];
            let SocketAddr::V4(preferred) = addr::server(1) else { panic!("an IPv4 address") };
            config.server.preferred_v4 = Some(preferred);
            let mut net = Net::new(config);
            net.run_until_done(60 * S);
            let client = net.client();
            assert_eq!(client.engine.remote(net.client_key()).unwrap(), addr::server(1), "{name} {seed}");
            let (client, server) = (net.client_stats().unwrap(), net.server_stats().unwrap());
            assert_eq!((client.migrations, server.migrations), (1, 1), "{name} {seed}");
            assert_eq!(server.paths_with_known_cid, 0, "the connection ID was the advertised one");
            net.finish();
        }
    }
}

#[test]
fn a_preferred_address_where_nobody_answers_is_not_used() {
    //= rfc9000#9.6.1-3 type=test
    let mut config = NetConfig::new(1, plain()).job(Job::exchange(1_000_000, 1_000_000));
    config.server_also = vec![addr::server(1).ip()];
    let SocketAddr::V4(preferred) = addr::server(1) else { panic!("an IPv4 address") };
    config.server.preferred_v4 = Some(preferred);
    let mut net = Net::new(config);
    let probes = Arc::new(AtomicUsize::new(0));
    let seen = probes.clone();
    net.tap_up(Box::new(move |_, d| {
        if d.dst == addr::server(1) {
            //= rfc9000#21.5.3-1 type=test
            assert!(inspect::packets(&d.bytes).iter().all(|p| p.frames.is_probing()), "nobody has answered there");
            seen.fetch_add(1, Ordering::Relaxed);
            return Verdict::Drop;
        }
        Verdict::Pass
    }));
    net.run_until(6 * S);
    assert!(probes.load(Ordering::Relaxed) > 0);
    assert_eq!(net.client_stats().unwrap().paths_failed, 1);
    net.run_until_done(60 * S);
    assert_eq!(net.client().engine.remote(net.client_key()).unwrap(), addr::server(0));
    net.finish();
}

#[test]
fn settings_forbid_migration_and_a_translator_is_followed_all_the_same() {
    //= rfc9000#18.2-3 type=test
    // LS-PATH-12
    //= rfc9000#9-2 type=test
    let nat = NatConfig::new(addr::public(1)).rebind_at(300 * MS);
    let mut config = NetConfig::new(1, rated(20)).nat(nat).job(Job::exchange(2_000_000, 10_000));
    config.server.migration = false;
    config.client_also = vec!["10.0.9.9".parse().unwrap()];
    let mut net = Net::new(config);
    assert_eq!(migrate_first(&mut net), Err(ApiMisuse::HandshakePending));
    net.establish(5 * S);
    assert_eq!(migrate(&mut net, "10.0.9.9".parse().unwrap()), Err(ApiMisuse::NotNegotiated));
    net.run_until_done(20 * S);
    assert_eq!(net.server_stats().unwrap().migrations, 1);
    rebind(&mut net, "10.0.9.9:50000".parse().unwrap());
    net.run_until(net.world.now_us() + S);
    assert_eq!(net.client_reason(), Some(CloseReason::NoPath));
}

fn migrate_first(net: &mut Net) -> Result<(), ApiMisuse> {
    //= rfc9000#9-1 type=test
    net.run_until(MS);
    migrate(net, "10.0.9.9".parse().unwrap())
}

/// Moves of a client: pauses and addresses drawn from the seed. What comes to an address that it has left is lost.
fn move_about(net: &mut Net, seed: u64, moves: u16, longest: u64) {
    let mut random = Rng::new(seed);
    let here = Arc::new(Mutex::new(None));
    let seen = here.clone();
    net.tap_down(Box::new(move |_, d| {
        if seen.lock().unwrap().is_some_and(|here| here != d.dst) { Verdict::Drop } else { Verdict::Pass }
    }));
    for turn in 0..moves {
        let to = with_port(addr::client(if random.below(3) == 0 { 7 } else { 0 }), 20_000 + turn);
        rebind(net, to);
        *here.lock().unwrap() = Some(to);
        net.run_until(net.world.now_us() + 1 + random.below(longest));
    }
}

#[test]
fn a_client_that_moves_faster_than_connection_ids_come_is_still_followed() {
    // With all connection IDs of the client in use for addresses that were left, the server could follow to none that it is
    // told of by a fresh one; and what it retires goes to where nobody is any more.
    let seeds = std::env::var("COURSER_SEEDS").ok().map_or(200, |n| n.parse().expect("COURSER_SEEDS is a number"));
    for seed in 0..seeds {
        let loss = [0.0, 0.02, 0.05, 0.1][seed as usize % 4];
        let delay = [MS, 5 * MS, 20 * MS][seed as usize % 3];
        let longest = [30, 100, 200, 400, 1000][seed as usize % 5] * MS;
        let path = LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(delay).loss(loss);
        let mut net = Net::new(roaming(seed, Duplex::symmetric(path)).job(Job::exchange(1_000_000, 1_000_000)));
        net.establish(5 * S);
        net.run_until(net.world.now_us() + 50 * MS);
        move_about(&mut net, seed, 30, longest);
        let moved = net.world.now_us();
        let lasts =
            |net: &Net| net.client().app(0).is_some_and(|app| app.report.ends == 0 && app.report.closed.is_none());
        while lasts(&net) && net.world.now_us() < moved + 100 * S {
            net.run_until(net.world.now_us() + 100 * MS);
        }
        let report = &net.client().app(0).unwrap().report;
        let closed = net.server().apps().map(|app| app.report.closed.clone()).collect::<Vec<_>>();
        assert_eq!(report.bytes_in, 1_000_000, "{seed}: {:?} {closed:?}", report.closed);
        net.finish();
    }
}

#[test]
fn a_network_that_drops_what_is_marked_for_ecn_does_not_cost_a_client_that_moves() {
    // Each new path is tested for ECN anew, and all challenges of a validation used to carry a mark.
    for (up, down) in
        [(Ecn::Keep, Ecn::DropCapable), (Ecn::DropCapable, Ecn::Keep), (Ecn::DropCapable, Ecn::DropCapable)]
    {
        for unknown in [false, true] {
            let link = |ecn| LinkConfig::new().rate(4_000_000).queue_bytes(1_000_000).delay_us(10 * MS).ecn(ecn);
            let mut config = roaming(1, Duplex { up: link(up), down: link(down) });
            if unknown {
                config = config.nat(NatConfig::new(addr::public(1)).rebind_at(12 * S).next_address(addr::public(2)));
            }
            let mut net = Net::new(config.job(Job::exchange(8_000_000, 1_000_000)));
            net.establish(10 * S);
            if !unknown {
                net.run_until(12 * S);
                rebind(&mut net, addr::client(7));
            }
            net.run_until_done(120 * S);
            let report = &net.client().app(0).unwrap().report;
            assert_eq!((report.bytes_in, report.ends), (1_000_000, 1), "{up:?} {down:?} {unknown}: {report:?}");
            let migrations = net.server_stats().unwrap().migrations;
            assert!((1..4).contains(&migrations), "{up:?} {down:?} {unknown}: the server moved {migrations} times");
            net.finish();
        }
    }
}

#[test]
fn a_thousand_connections_of_one_engine_move_at_once() {
    let link = Duplex::symmetric(LinkConfig::new().delay_us(5 * MS));
    let mut net = Net::new(roaming(1, link).job(Job::exchange(2_000, 2_000)));
    for i in 1..1_000 {
        let app = AppConfig { jobs: vec![Job::exchange(2_000, 2_000)], ..AppConfig::default() };
        net.world.host_mut(net.client).dial(i * 100, addr::server(0), app);
    }
    net.run_until_done(20 * S);
    net.run_until(net.world.now_us() + S);
    let started = Instant::now();
    rebind(&mut net, addr::client(7));
    let moved_at = net.world.now_us();
    for i in 0..1_000 {
        net.world.host_mut(net.client).app_mut(i).unwrap().add(Job::exchange(2_000, 2_000).at(moved_at + 1));
    }
    net.run_until_done(moved_at + 5 * S);
    // Nobody had to wait for the others: two round trips and what a thousand handshakes of paths take.
    assert!(net.world.now_us() - moved_at < 2 * S, "{} us", net.world.now_us() - moved_at);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let server = net.server();
    assert_eq!(server.keys().len(), 1_000);
    for key in server.keys() {
        assert_eq!(server.engine.remote(*key).unwrap(), addr::client(7));
        let stats = server.engine.conn_stats(*key).unwrap();
        assert_eq!((stats.migrations, stats.paths_failed), (1, 0));
    }
    net.finish();
}

#[test]
fn a_thousand_transfers_move_at_once_over_a_bad_path_and_lose_no_byte() {
    // Every connection is in the middle of something when the address changes; a twentieth of all datagrams is lost, and
    // others overtake them, before, during and after.
    let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.05).reorder(0.05, 5 * MS));
    let mut net = Net::new(roaming(1, link).job(Job::exchange(20_000, 20_000)));
    for i in 1..1_000 {
        let app = AppConfig { jobs: vec![Job::exchange(20_000, 20_000)], ..AppConfig::default() };
        net.world.host_mut(net.client).dial(i * 10, addr::server(0), app);
    }
    let confirmed = |h: &QuicHost| h.apps().filter(|a| a.report.confirmed_us.is_some()).count() == 1_000;
    net.run_until_true(20 * S, |c, _| confirmed(c));
    let moved_at = net.world.now_us();
    for i in 0..1_000 {
        let job = Job::exchange(20_000, 20_000).at(moved_at);
        net.world.host_mut(net.client).app_mut(i).unwrap().add(job);
    }
    net.run_until(moved_at + 15 * MS);
    rebind(&mut net, addr::client(7));
    net.run_until_done(moved_at + 60 * S);
    for app in net.client().apps() {
        // Each request has eight bytes more that say how much is wanted.
        assert_eq!((app.report.bytes_in, app.report.bytes_out, app.report.acked), (40_000, 40_016, 2));
    }
    let server = net.server();
    assert_eq!(server.keys().len(), 1_000);
    // All challenges of a path, or their answers, are lost once in a thousand times: that connection stays where it was
    // heard last, until its peer speaks again.
    let stayed: Vec<_> =
        server.keys().iter().filter(|key| server.engine.remote(**key) != Ok(addr::client(7))).collect();
    assert!(stayed.len() <= 5, "{stayed:?}");
    for key in server.keys() {
        let stats = server.engine.conn_stats(*key).unwrap();
        assert!(stats.migrations >= 1 && (stats.paths_failed >= 1 || !stayed.contains(&key)), "{stats:?}");
    }
    net.finish();
}

#[test]
fn each_path_finds_its_own_datagram_size_up_to_jumbo_frames() {
    //= rfc9000#14.2-5 type=test
    for (mtu, at_least) in [(9_000, 8_952), (4_000, 3_980), (1_500, 1_480)] {
        let link = LinkConfig::new().delay_us(5 * MS).rate(50_000_000).queue_bytes(200_000).mtu(mtu);
        let config = roaming(1, Duplex::symmetric(link)).settings(|s| s.max_udp_payload = 8_952);
        let mut net = Net::new(config.job(Job::exchange(20_000_000, 20_000_000)));
        net.establish(5 * S);
        net.run_until(net.world.now_us() + 1_200 * MS);
        let found = |net: &Net| (net.client_stats().unwrap().mtu, net.server_stats().unwrap().mtu);
        let before = found(&net);
        assert!(before.0 >= at_least && before.1 >= at_least && usize::from(before.0) <= mtu, "{before:?}");
        migrate(&mut net, second()).unwrap();
        net.run_until_true(10 * S, |_, s| s.engine.remote(s.keys()[0]).unwrap().ip() == second());
        assert!(net.server_stats().unwrap().mtu < before.1, "nothing is known of the new path");
        // An end that only acknowledges hears of a lost probe when the timer of a path without samples fires.
        net.run_until(net.world.now_us() + 3 * S);
        let after = found(&net);
        assert!(after.0 >= at_least && after.1 >= at_least, "{after:?}");
        net.run_until_done(60 * S);
        assert!(net.client_stats().unwrap().ptos + net.server_stats().unwrap().ptos <= 4, "no stall while it searches");
        net.finish();
    }
}

#[test]
fn marks_are_tried_again_on_a_new_path() {
    // The first path takes ECN marks away, the second one carries them.
    let mut net = Net::new(roaming(1, rated(20)).job(Job::exchange(2_000_000, 2_000_000)));
    let bleach = |d: &mut Datagram, client: SocketAddr| {
        if client.ip() != second() {
            d.ecn = 0;
        }
        Verdict::Pass
    };
    net.tap_up(Box::new(move |_, d| {
        let client = d.src;
        bleach(d, client)
    }));
    net.tap_down(Box::new(move |_, d| {
        let client = d.dst;
        bleach(d, client)
    }));
    net.establish(5 * S);
    net.run_until(net.world.now_us() + 300 * MS);
    let marks = |net: &Net| (net.client_stats().unwrap().ecn, net.server_stats().unwrap().ecn);
    assert_eq!(marks(&net), (false, false));
    migrate(&mut net, second()).unwrap();
    net.run_until(net.world.now_us() + 500 * MS);
    assert_eq!(marks(&net), (true, true));
    net.run_until_done(60 * S);
    net.finish();
}
