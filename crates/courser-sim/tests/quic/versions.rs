//! Versions: compatible negotiation, Version Negotiation packets, downgrades (RFC 9368, RFC 9369).

use courser_core::engine::RetryPolicy;
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::{Level, Version};
use courser_core::protect::null::{NullTlsClient, told_by};
use courser_core::spans::FrameKind;
use courser_core::wire::header;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, Provider, inspect};
use courser_sim::script::{Script, Verdict};
use courser_sim::topology::addr;
use courser_sim::{Duplex, LinkConfig};

use crate::support::{MS, S, plain};
use crate::tls::with_tls_for;

const V1: Version = Version::V1;
const V2: Version = Version::V2;

fn speaking(seed: u64, link: Duplex, client: &[Version], server: &[Version]) -> NetConfig {
    let mut config = NetConfig::new(seed, link);
    config.client.versions = client.to_vec();
    config.server.versions = server.to_vec();
    config
}

/// The versions of both ends of the first connection.
fn spoken(net: &Net) -> (Version, Version) {
    (net.client().engine.version(net.client_key()).unwrap(), net.server().engine.version(net.server_key()).unwrap())
}

#[test]
fn a_server_goes_on_in_the_version_that_it_likes_best() {
    //= rfc9368#2.3-1 type=test
    //= rfc9369#4.1-7 type=test
    for (client, server, expected) in [
        (vec![V1, V2], vec![V2, V1], V2),
        (vec![V1, V2], vec![V1, V2], V1),
        (vec![V2, V1], vec![V1, V2], V1),
        (vec![V2, V1], vec![V2, V1], V2),
        (vec![V1], vec![V2, V1], V1),
        (vec![V2], vec![V1, V2], V2),
        (vec![V1, V2], vec![V1], V1),
    ] {
        let mut net = Net::new(speaking(1, plain(), &client, &server).job(Job::exchange(9_000, 9_000)));
        net.run_until_done(5 * S);
        assert_eq!(spoken(&net), (expected, expected), "{client:?} {server:?}");
        assert_eq!(net.client().app(0).unwrap().report.connected_us, Some(20 * MS), "no round trip is lost");
        net.finish();
    }
}

#[test]
fn a_client_may_begin_in_another_version_than_its_best() {
    //= rfc9368#2.5-1 type=test
    let mut config = speaking(1, plain(), &[V2, V1], &[V1, V2]).job(Job::fetch(10));
    config.client.initial_version = Some(V1);
    config.server.versions = vec![V2, V1];
    let mut net = Net::new(config);
    net.run_until_done(5 * S);
    assert_eq!(spoken(&net), (V2, V2));
    net.finish();
}

#[test]
fn each_single_datagram_of_an_upgrade_may_be_lost() {
    for hello in [0, 1_700] {
        for n in 0..12 {
            for (up, down) in [(vec![n], vec![]), (vec![], vec![n])] {
                let link = Script::new().drop_up(up.iter().copied()).drop_down(down.iter().copied()).apply(plain());
                let mut config = speaking(1, link, &[V1, V2], &[V2, V1]).job(Job::exchange(3_000, 3_000));
                config.hello_len = hello;
                let mut net = Net::new(config);
                net.run_until_done(20 * S);
                let done = net.client().app(0).unwrap().report.done_us.unwrap();
                assert!(done < 1_500 * MS, "lost {up:?} {down:?}: {done} us");
                assert_eq!(spoken(&net), (V2, V2));
                net.finish();
            }
        }
    }
}

#[test]
fn an_upgrade_behind_a_retry_survives_every_pair_of_losses() {
    //= rfc9369#4.1-1 type=test
    //= rfc9369#4.1-2 type=test
    //= rfc9369#4.1-3 type=test
    for (up, down) in courser_sim::script::loss_patterns(5, 2) {
        let link = Script::new().drop_up(up.iter().copied()).drop_down(down.iter().copied()).apply(plain());
        let config = speaking(1, link, &[V1, V2], &[V2, V1])
            .job(Job::exchange(3_000, 3_000))
            .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always);
        let mut net = Net::new(config);
        net.run_until_done(20 * S);
        assert_eq!(spoken(&net), (V2, V2), "lost {up:?} {down:?}");
        assert_eq!(net.client_stats().unwrap().retries, 1);
        net.finish();
    }
}

#[test]
fn an_upgrade_behind_a_retry_survives_the_loss_of_whole_flights() {
    // Flights of several datagrams either way, of which any run is lost: the Retry, what answers it, the server's flight in
    // the other version, the client's last words.
    for hello in [0, 1_700] {
        for (first, count) in (0..7).flat_map(|first| (1..=3).map(move |count| (first, count))) {
            let run = first..first + count;
            for (up, down) in [(run.clone(), 0..0), (0..0, run.clone()), (run.clone(), run.clone())] {
                let link = Script::new().drop_up(up.clone()).drop_down(down.clone()).apply(plain());
                let mut config = speaking(1, link, &[V1, V2], &[V2, V1])
                    .job(Job::exchange(3_000, 3_000))
                    .settings(|s| {
                        s.handshake_timeout = std::time::Duration::from_secs(60);
                        s.idle_timeout = std::time::Duration::from_secs(120);
                    })
                    .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always);
                config.hello_len = hello;
                config.tls.certificate_len = 4_000;
                let mut net = Net::new(config);
                net.run_until_done(60 * S);
                let done = net.client().app(0).unwrap().report.done_us.unwrap();
                assert!(done < 35 * S, "lost {up:?} {down:?}: {done} us");
                assert_eq!(spoken(&net), (V2, V2), "lost {up:?} {down:?}");
                assert_eq!(net.client_stats().unwrap().retries, 1);
                net.finish();
            }
        }
    }
}

#[test]
fn upgrades_hold_under_heavy_loss_and_reordering() {
    for seed in 0..24 {
        let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.2).reorder(0.2, 8 * MS).duplicate(0.1));
        let config = speaking(seed, link, &[V1, V2], &[V2, V1])
            .settings(|s| s.handshake_timeout = std::time::Duration::from_secs(60))
            .jobs([Job::exchange(20_000, 20_000), Job::send(3_000)])
            .engine(move |e| {
                if seed % 2 == 0 {
                    e.server.as_mut().unwrap().retry = RetryPolicy::Always;
                }
            });
        let mut net = Net::new(config);
        net.run_until_done(120 * S);
        assert_eq!(spoken(&net), (V2, V2));
        net.finish();
    }
}

#[test]
fn a_server_says_everything_of_the_handshake_in_the_negotiated_version() {
    //= rfc9369#4.1-4 type=test
    // The ClientHello takes two datagrams, of which the second may come late: the server has to say something before it can
    // choose. Under losses everything is said again.
    for seed in 0..24 {
        let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.05).reorder(0.3, 15 * MS));
        let mut config = speaking(seed, link, &[V1, V2], &[V2, V1]).job(Job::exchange(3_000, 3_000)).engine(move |e| {
            if seed % 3 == 0 {
                e.server.as_mut().unwrap().retry = RetryPolicy::Always;
            }
        });
        config.hello_len = 1_700;
        config.tls.certificate_len = 4_000;
        let mut net = Net::new(config);
        let counts = std::sync::Arc::new(std::sync::Mutex::new([0; 2]));
        let noted = counts.clone();
        net.tap_down(Box::new(move |_, d| {
            for packet in inspect::packets(&d.bytes) {
                let version = header::decode(&d.bytes[packet.at.clone()], 8).unwrap().long().map(|l| l.version);
                if packet.frames.contains(FrameKind::Crypto) {
                    assert!(version.is_none_or(|v| v == V2), "seed {seed}: {version:?} {packet:?}");
                }
                noted.lock().unwrap()[usize::from(packet.frames.contains(FrameKind::Crypto))] += 1;
            }
            Verdict::Pass
        }));
        net.run_until_done(60 * S);
        assert_eq!(spoken(&net), (V2, V2));
        assert!(counts.lock().unwrap()[1] >= 4);
        net.finish();
    }
}

#[test]
fn a_client_that_begins_again_negotiates_the_application_protocol_anew() {
    //= rfc9368#6-2 type=test
    // The server speaks version 1 alone, and of the protocols that the client offers, best first, only the last.
    let mut config = with_tls_for(1, plain(), &["new", "newer", "sim"], &["other", "sim"]).job(Job::fetch(10));
    (config.client.versions, config.server.versions) = (vec![V2, V1], vec![V1]);
    let mut net = Net::new(config);
    net.run_until(S);
    let closed = net.client().app(0).unwrap().report.closed.clone();
    assert!(matches!(closed, Some((_, CloseReason::VersionNegotiation { .. }))), "{closed:?}");
    let app = AppConfig { jobs: vec![Job::exchange(100, 100)], ..AppConfig::default() };
    net.world.host_mut(net.client).dial_again(S, addr::server(0), app, V1);
    let client = net.client;
    net.world.run_until_true(3 * S, |w| w.host(client).app(1).is_some_and(|a| a.is_done())).unwrap();
    let key = net.client().keys()[1];
    let identity = net.client().engine.identity(key).unwrap().unwrap();
    assert_eq!((net.client().engine.version(key), identity.alpn.as_deref()), (Ok(V1), Some(&b"sim"[..])));
}

#[test]
fn early_data_stays_in_the_version_that_the_client_began_with() {
    //= rfc9369#4.1-9 type=test
    for accept in [true, false] {
        let mut config = speaking(1, plain(), &[V1, V2], &[V2, V1]).keep().job(Job::exchange(30_000, 9_000));
        let remembered = Some(told_by(&config.server));
        let client = NullTlsClient { remembered, ..NullTlsClient::default() };
        config.client_provider = Some(Provider::null_client(1, client));
        config.tls.accept_early_data = accept;
        let mut net = Net::new(config);
        net.run_until_done(5 * S);
        let report = &net.client().app(0).unwrap().report;
        assert_eq!((spoken(&net), report.early), ((V2, V2), Some(accept)));
        assert_eq!(net.server().app(0).unwrap().report.read_early > 0, accept);
        assert!(net.client_watch.notes().iter().any(|n| n.level == Level::ZeroRtt));
        net.finish();
    }
}

#[test]
fn a_client_begins_again_in_a_version_that_the_server_listed() {
    //= rfc9368#2.1-4 type=test
    let mut net = Net::new(speaking(1, plain(), &[V2, V1], &[V1]).job(Job::fetch(10)));
    net.run_until(S);
    let closed = net.client().app(0).unwrap().report.closed.clone();
    let Some((_, CloseReason::VersionNegotiation { offered })) = closed else { panic!("{closed:?}") };
    assert!(offered.contains(&V1) && !offered.contains(&V2));
    let app = AppConfig { jobs: vec![Job::exchange(100, 100)], ..AppConfig::default() };
    net.world.host_mut(net.client).dial_again(S, addr::server(0), app, V1);
    let client = net.client;
    net.world.run_until_true(3 * S, |w| w.host(client).app(1).is_some_and(|a| a.is_done())).unwrap();
    assert!(net.client().app(1).unwrap().is_done());
    assert_eq!(net.client().engine.version(net.client().keys()[1]), Ok(V1));
}

#[test]
fn a_forged_list_of_versions_does_not_bring_a_better_version_down() {
    //= rfc9368#4-14 type=test
    //= rfc9368#4-15 type=test
    //= rfc8999#7-1 type=test
    //= rfc9368#8-2 type=test
    let mut net = Net::new(speaking(1, plain(), &[V2, V1], &[V2, V1]));
    let app = AppConfig { jobs: vec![Job::fetch(10)], ..AppConfig::default() };
    net.world.host_mut(net.client).dial_again(0, addr::server(0), app, V1);
    net.run_until(S);
    // The server would have gone on in version 2 without the forged packet; it does so compatibly now.
    assert_eq!(spoken(&net), (V2, V2));

    let mut net = Net::new(speaking(1, plain(), &[V2, V1], &[V1, V2]));
    let app = AppConfig { jobs: vec![Job::fetch(10)], ..AppConfig::default() };
    net.world.host_mut(net.client).dial_again(0, addr::server(0), app, V1);
    net.run_until(S);
    match &net.client().app(0).unwrap().report.closed {
        Some((_, CloseReason::Violation(v))) => assert_eq!(v.code, TransportCode::VERSION_NEGOTIATION_ERROR),
        other => panic!("{other:?}"),
    }
}
