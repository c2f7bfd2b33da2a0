//! What other files show over good links, at 5 % loss and reordering each way: each capability at work, and no byte lost.

use std::time::Duration;

use courser_core::cid::{QuicLb, RandomCids};
use courser_core::engine::RetryPolicy;
use courser_core::error::CloseReason;
use courser_core::ids::Version;
use courser_core::spans::FrameKind;
use courser_sim::nat::NatConfig;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, QuicHost};
use courser_sim::{Duplex, LinkConfig, addr};

use crate::support::{MS, S};

const SEEDS: core::ops::Range<u64> = 0..4;
const BYTES: u64 = 600_000;

fn base() -> LinkConfig {
    LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(10 * MS).loss(0.05).reorder(0.05, 8 * MS)
}

fn lossy() -> Duplex {
    Duplex::symmetric(base())
}

fn exchange(seed: u64, link: Duplex) -> NetConfig {
    NetConfig::new(seed, link).job(Job::exchange(BYTES, BYTES))
}

/// Runs to the end; every byte was checked by the application that read it.
fn done(net: &mut Net) {
    net.run_until_done(net.world.now_us() + 120 * S);
    let report = &net.client().app(0).unwrap().report;
    assert_eq!((report.bytes_in, report.ends), (BYTES, 1));
}

#[test]
fn an_address_is_proven_by_a_retry_and_later_by_the_token_alone() {
    for seed in SEEDS {
        let always =
            |e: &mut courser_core::engine::EngineConfig| e.server.as_mut().unwrap().retry = RetryPolicy::Always;
        let mut net = Net::new(exchange(seed, lossy()).engine(always));
        done(&mut net);
        let key = net.client_key();
        let token = net.world.host_mut(net.client).engine.take_token(key).unwrap().expect("one came").to_vec();
        let before = net.server().engine.stats().retries;
        let at = net.world.now_us();
        let app = AppConfig { jobs: vec![Job::exchange(BYTES, BYTES)], ..AppConfig::default() };
        net.world.host_mut(net.client).dial_with_token(at, addr::server(0), app, token);
        net.run_until_done(at + 120 * S);
        assert_eq!(net.client().app(1).unwrap().report.bytes_in, BYTES);
        let stats = net.server().engine.stats();
        assert_eq!((stats.retries, stats.bad_tokens), (before, 0), "seed {seed}: the token is enough");
        net.finish();
    }
}

#[test]
fn a_client_begins_again_after_version_negotiation() {
    for seed in SEEDS {
        let mut config = NetConfig::new(seed, lossy()).job(Job::fetch(10));
        (config.client.versions, config.server.versions) = (vec![Version::V2, Version::V1], vec![Version::V1]);
        let mut net = Net::new(config);
        let client = net.client;
        let gave_up = |host: &QuicHost| host.app(0).is_some_and(|a| a.report.closed.is_some());
        net.world.run_until_true(10 * S, |w| gave_up(w.host(client))).unwrap();
        let closed = net.client().app(0).unwrap().report.closed.clone();
        assert!(matches!(closed, Some((_, CloseReason::VersionNegotiation { .. }))), "seed {seed}: {closed:?}");
        let app = AppConfig { jobs: vec![Job::exchange(BYTES, BYTES)], ..AppConfig::default() };
        let at = net.world.now_us();
        net.world.host_mut(client).dial_again(at, addr::server(0), app, Version::V1);
        net.world.run_until_true(at + 60 * S, |w| w.host(client).app(1).is_some_and(|a| a.is_done())).unwrap();
        assert_eq!(net.client().app(1).unwrap().report.bytes_in, BYTES, "seed {seed}");
        net.assert_sound();
    }
}

#[test]
fn connection_ids_of_both_ends_are_replaced_in_mid_transfer() {
    for seed in SEEDS {
        let mut net = Net::new(exchange(seed, lossy()).settings(|s| s.active_cid_limit = 8));
        net.establish(10 * S);
        let mut rotations = 0;
        for _ in 0..6 {
            net.run_until(net.world.now_us() + 60 * MS);
            let (key, now) = (net.client_key(), QuicHost::instant(net.world.now_us()));
            let rotated = net.world.host_mut(net.client).engine.rotate_connection_ids(now, key);
            rotations += u32::from(rotated == Ok(true));
        }
        assert!(rotations >= 2, "seed {seed}: {rotations}");
        done(&mut net);
        net.finish();
    }
}

#[test]
fn a_fleet_finds_its_connections_behind_a_translator_that_moves_them() {
    for seed in SEEDS {
        let nat = NatConfig::new(addr::public(1)).next_address(addr::public(2));
        let mut config = exchange(seed, lossy()).nat(nat);
        config.client.keep_alive = Some(Duration::from_millis(50));
        let lb = QuicLb::new(3, &[7, 8], 6, Some([9; 16]), true).unwrap();
        let mut net = Net::new(config.engine(move |e| e.cids = Box::new(lb)));
        net.establish(10 * S);
        net.run_until(net.world.now_us() + 100 * MS);
        let nat = net.nat.unwrap();
        net.world.rebind(nat);
        done(&mut net);
        assert!(net.server_stats().unwrap().migrations >= 1, "seed {seed}");
        net.finish();
    }
}

#[test]
fn a_client_without_connection_ids_of_its_own_gets_everything() {
    for seed in SEEDS {
        let none = RandomCids::new(0);
        let mut net = Net::new(exchange(seed, lossy()).keep().client_engine(move |e| e.cids = Box::new(none)));
        done(&mut net);
        assert!(net.client_watch.with(FrameKind::NewConnectionId).is_empty());
        net.finish();
    }
}

#[test]
fn a_reset_arrives_when_the_peer_lost_its_state() {
    for seed in SEEDS {
        let reset_key = Some([7; 32]);
        let config = NetConfig::new(seed, lossy()).engine(move |e| e.reset_key = reset_key).job(Job::fetch(1_000));
        let mut net = Net::new(config);
        net.run_until(2 * S);
        let fresh = NetConfig::new(seed + 100, lossy()).engine(move |e| e.reset_key = reset_key);
        let mut fresh = Net::new(fresh);
        std::mem::swap(net.world.host_mut(net.server), fresh.world.host_mut(fresh.server));
        net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::fetch(100).at(2 * S));
        net.run_until(20 * S);
        assert_eq!(net.client_reason(), Some(CloseReason::StatelessReset), "seed {seed}");
    }
}

#[test]
fn ecn_stays_in_use_although_packets_are_lost() {
    for seed in SEEDS {
        let marking = Duplex::symmetric(base().ce_above_us(5 * MS));
        let mut net = Net::new(exchange(seed, marking));
        done(&mut net);
        let (client, server) = (net.client_stats().unwrap(), net.server_stats().unwrap());
        assert!(client.ecn && server.ecn, "seed {seed}");
        net.finish();
    }
}

#[test]
fn the_search_for_a_datagram_size_ends_near_the_limit_and_holds_nothing_up() {
    for seed in SEEDS {
        for mtu in [1_250, 1_400, 8_900] {
            let link = Duplex::symmetric(base().mtu(mtu));
            // Each size that does not pass costs three lost probes, one after the other.
            let config = NetConfig::new(seed, link).job(Job::exchange(3_000_000, 10));
            let mut net = Net::new(config.settings(|s| s.max_udp_payload = 9_000));
            net.run_until_done(120 * S);
            let found = usize::from(net.client_stats().unwrap().mtu);
            assert!(found <= mtu && found * 10 >= mtu * 9, "seed {seed}: {found} of {mtu}");
            net.finish();
        }
    }
}

#[test]
fn certificates_of_both_ends_are_shown_and_replaced_while_connections_live_on() {
    for seed in SEEDS {
        let named = crate::tls::with_names(seed, lossy());
        let mut net = Net::new(named.config.job(Job::exchange(BYTES, BYTES)));
        net.establish(10 * S);
        let shown = |net: &Net, n: usize| {
            let identity = net.client().engine.identity(net.client().keys()[n]).unwrap().unwrap();
            identity.certificates.iter().map(|c| c.to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&net, 0), [named.asked_for], "seed {seed}: the one of the name that was asked for");
        let of_client = net.server().engine.identity(net.server_key()).unwrap().unwrap().certificates.len();
        assert_eq!(of_client, 1, "seed {seed}: the server knows who came");
        named.store.replace(&named.next.0).unwrap();
        let at = net.world.now_us();
        let app = AppConfig { jobs: vec![Job::exchange(BYTES, BYTES)], ..AppConfig::default() };
        net.world.host_mut(net.client).dial(at, addr::server(0), app);
        done(&mut net);
        assert_eq!(net.client().app(1).unwrap().report.bytes_in, BYTES);
        assert_eq!(shown(&net, 1), [named.next.1], "seed {seed}: the new one");
        net.finish();
    }
}
