//! Connection IDs: generators, connections without any, reports, resets.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::pair::{Pair, SERVER, Watcher, config};
use crate::cid::{CidGenerator, QuicLb, RandomCids, ShortCids};
use crate::config::Settings;
use crate::crypto::{KeyFactory, Random};
use crate::engine::{CidReports, CidState, CidWatcher, Engine, ServerConfig};
use crate::ids::Cid;
use crate::protect::null::{NullTlsClient, NullTlsServer};

type Report = (CidState, Vec<Cid>);

/// Everything that was reported.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<Report>>>);

impl CidWatcher for Diary {
    fn on_cids(&mut self, state: CidState, cids: &[Cid]) {
        self.0.lock().unwrap().push((state, cids.to_vec()));
    }
}

impl Diary {
    fn of(&self, state: CidState) -> Vec<Cid> {
        self.0.lock().unwrap().iter().filter(|(s, _)| *s == state).flat_map(|(_, c)| c.clone()).collect()
    }
}

fn server_with(settings: &Settings, change: impl FnOnce(&mut crate::engine::EngineConfig)) -> Engine {
    let mut server = config(2, &Watcher::default());
    server.server = Some(ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone()));
    change(&mut server);
    Engine::new(server)
}

#[test]
fn new_connection_ids_are_reported_in_batches() {
    // LS-ENG-12
    for (batch, sizes) in [(20, vec![20, 20, 10]), (32, vec![32, 18]), (1, vec![1; 50])] {
        let diary = Diary::default();
        let mut engine = config(1, &Watcher::default());
        engine.cid_reports = Some(CidReports { batch, ..CidReports::new(Box::new(diary.clone())) });
        let mut engine = Engine::new(engine);
        let (tls, settings) = (NullTlsClient::default(), Settings::default());
        let now = crate::time::Instant::from_micros(1_000_000);
        for _ in 0..50 {
            engine.connect(now, SERVER.parse().unwrap(), "localhost", &tls, &settings).unwrap();
        }
        engine.process(now);
        let reports: Vec<usize> = diary.0.lock().unwrap().iter().map(|(_, c)| c.len()).collect();
        assert_eq!(reports, sizes);
    }
}

#[test]
fn each_connection_id_is_new_once_old_once_and_live_in_between() {
    // LS-ENG-13, LS-CID-03
    //= rfc9000#5.1-2 type=test
    let settings = Settings { active_cid_limit: 8, idle_timeout: Duration::from_secs(300), ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let diary = Diary::default();
    let reports = CidReports::new(Box::new(diary.clone()));
    pair.server = server_with(&settings, |c| c.cid_reports = Some(reports));
    let client = pair.connect(&settings);
    let server = pair.establish();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(diary.of(CidState::New).len(), 8);
    // LS-CONN-08, LS-CID-01: the listing has the same, with their numbers.
    let listed = pair.server.connection_ids(server).unwrap();
    assert!(listed.iter().map(|i| i.sequence).eq(0..8));
    assert!(listed.iter().all(|i| diary.of(CidState::New).contains(&i.cid)));
    pair.run_for(Duration::from_secs(150));
    let (new, live) = (diary.of(CidState::New), diary.of(CidState::Live));
    let mut times = BTreeMap::new();
    live.iter().for_each(|cid| *times.entry(*cid).or_insert(0) += 1);
    assert!(new.iter().all(|cid| times.get(cid) == Some(&2)), "twice in 151 seconds: {times:?}");
    pair.client.close(pair.now, client, 0, b"").unwrap();
    pair.run_for(Duration::from_secs(30));
    assert!(pair.server.conn_stats(server).is_err());
    let (mut new, mut old) = (diary.of(CidState::New), diary.of(CidState::Old));
    new.sort_unstable();
    old.sort_unstable();
    assert_eq!(new, old, "what came has gone, and nothing twice");
    new.dedup();
    assert_eq!(new.len(), old.len());
    assert_eq!(pair.server.route_count(), 0);
}

#[test]
fn reports_leave_nothing_in_the_engine() {
    // LS-ENG-14: the batch of new ones has a fixed size, the others last for one call.
    assert!(
        size_of::<crate::engine::cids::Reporter>() <= 32 * 21 + 96,
        "{}",
        size_of::<crate::engine::cids::Reporter>()
    );
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let diary = Diary::default();
    let reports = CidReports { batch: 1_000, ..CidReports::new(Box::new(diary.clone())) };
    pair.server = server_with(&settings, |c| c.cid_reports = Some(reports));
    for _ in 0..30 {
        pair.connect(&settings);
    }
    pair.run_for(Duration::from_secs(1));
    assert!(diary.0.lock().unwrap().iter().all(|(_, cids)| (1..=32).contains(&cids.len())));
}

#[test]
fn a_client_needs_no_connection_ids_of_its_own() {
    //= rfc9000#19.15-2 type=test
    // LS-LIFE-08
    //= rfc9000#5.1-3 type=test
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let mut engine = config(1, &Watcher::default());
    engine.cids = Box::new(RandomCids::new(0));
    pair.client = Engine::new(engine);
    let client = pair.connect(&settings);
    let tls = NullTlsClient::default();
    let second = pair.client.connect(pair.now, SERVER.parse().unwrap(), "localhost", &tls, &settings);
    assert!(second.is_err(), "two connections to one address could not be told apart");
    assert!(pair.client.connect(pair.now, "10.0.0.3:443".parse().unwrap(), "localhost", &tls, &settings).is_ok());
    let server = pair.establish();
    let data = vec![3; 200_000];
    assert!(pair.transfer(client, server, &data) == data);
    assert!(pair.client.look_at(client).issued_cids().next().is_none());
    pair.client.close(pair.now, client, 0, b"").unwrap();
    pair.run_for(Duration::from_secs(60));
    assert_eq!((pair.client.route_count(), pair.server.route_count()), (0, 0));
    let again = pair.client.connect(pair.now, SERVER.parse().unwrap(), "localhost", &tls, &settings);
    assert!(again.is_ok(), "the address is free again");
}

#[test]
fn connection_ids_of_every_length_route() {
    //= rfc9000#10.3.2-2 type=test
    for len in [8, 9, 13, 20] {
        let settings = Settings::default();
        let mut pair = Pair::new(&settings);
        pair.server = server_with(&settings, |c| c.cids = Box::new(RandomCids::new(len)));
        let client = pair.connect(&settings);
        let server = pair.establish();
        let data = vec![3; 100_000];
        assert!(pair.transfer(client, server, &data) == data);
        assert!(pair.server.look_at(server).issued_cids().all(|cid| cid.len() == len));
        pair.assert_legal();
    }
}

/// Counts in three bytes, and says one number again in place of another.
struct Forgetful {
    next: u8,
    at: u8,
    again: u8,
}

impl CidGenerator for Forgetful {
    fn cid_len(&self) -> usize {
        3
    }

    fn generate(&mut self, _: &dyn KeyFactory, _: &mut dyn Random) -> Cid {
        let n = self.next;
        self.next += 1;
        Cid::new(&[0, 0, if n == self.at { self.again } else { n }]).unwrap()
    }
}

#[test]
fn a_connection_id_that_leads_elsewhere_is_passed_over_or_replaced() {
    //= rfc9000#5.1-2 type=test
    // The first connection has 0 to 7. The second one begins with the number that it is told, or has it among its others.
    for (at, collisions) in [(8, 0), (11, 1), (15, 1), (200, 0)] {
        let keep_alive = Some(Duration::from_millis(100));
        let settings = Settings { active_cid_limit: 8, keep_alive, ..Settings::default() };
        let mut pair = Pair::new(&settings);
        let mut engine = config(1, &Watcher::default());
        engine.cids = Box::new(Forgetful { next: 0, at, again: 3 });
        pair.client = Engine::new(engine);
        let first = pair.connect(&settings);
        let at_server = pair.establish();
        pair.run_for(Duration::from_secs(1));
        pair.events = [Vec::new(), Vec::new()];
        let second = pair.connect(&settings);
        let at_server_too = pair.establish();
        pair.run_for(Duration::from_secs(1));
        assert_eq!(pair.client.stats().cid_collisions, collisions);
        for key in [first, second] {
            let listed = pair.client.connection_ids(key).unwrap();
            assert_eq!(listed.len(), 8);
            for issued in listed {
                assert_eq!(pair.client.routes.peek(issued.cid.as_slice()), Some(key), "{:?} with {at}", issued.cid);
            }
        }
        let data = vec![3; 100_000];
        for (client, server) in [(first, at_server), (second, at_server_too)] {
            assert!(pair.transfer(client, server, &data) == data);
            assert_eq!(pair.client.rotate_connection_ids(pair.now, client), Ok(true));
            pair.run_for(Duration::from_secs(1));
            assert!(pair.transfer(client, server, &data) == data);
        }
        pair.assert_legal();
    }
}

#[test]
fn clients_can_do_with_connection_ids_of_three_bytes() {
    // They are 8, 3, 3 and so on: the one for the server's first packets is long.
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let mut engine = config(1, &Watcher::default());
    engine.cids = Box::new(ShortCids::default());
    pair.client = Engine::new(engine);
    let all: Vec<_> = (0..20).map(|_| pair.connect(&settings)).collect();
    pair.run_for(Duration::from_secs(1));
    let mut cids: Vec<Cid> =
        all.iter().flat_map(|key| pair.client.connection_ids(*key).unwrap()).map(|issued| issued.cid).collect();
    assert!(cids.len() >= 40 && cids.iter().all(|cid| cid.len() == 3), "{}", cids.len());
    cids.sort_unstable();
    cids.dedup();
    assert!(cids.len() >= 40);
    for key in all {
        pair.client.close(pair.now, key, 0, b"").unwrap();
    }
    pair.run_for(Duration::from_secs(60));
    assert_eq!((pair.client.route_count(), pair.server.route_count()), (0, 0));
    pair.assert_legal();
}

#[test]
fn a_fleet_can_put_in_connection_ids_that_name_the_server() {
    for (id, nonce, key) in [(vec![9; 3], 4, None), (vec![9; 8], 8, Some([1; 16])), (vec![9; 4], 9, Some([1; 16]))] {
        let settings = Settings { active_cid_limit: 8, ..Settings::default() };
        let lb = QuicLb::new(2, &id, nonce, key, true).unwrap();
        let len = 1 + id.len() + nonce;
        let mut pair = Pair::new(&settings);
        pair.server = server_with(&settings, |c| c.cids = Box::new(lb));
        let client = pair.connect(&settings);
        let server = pair.establish();
        assert!(pair.transfer(client, server, &[1; 50_000]).len() == 50_000);
        let cids: Vec<Cid> = pair.server.look_at(server).issued_cids().collect();
        assert_eq!(cids.len(), 8);
        for cid in cids {
            assert_eq!((cid.len(), cid.as_slice()[0]), (len, 2 << 5 | (len - 1) as u8));
            assert_eq!(cid.as_slice()[1..].starts_with(&id), key.is_none(), "a key hides the server");
        }
    }
}

#[test]
fn connection_ids_of_both_ends_are_replaced_in_mid_life() {
    //= rfc9000#19.15-5 type=test
    for limit in [2, 4, 8] {
        // With something to do at all times the clock does not jump to the idle timeout.
        let keep_alive = Some(Duration::from_millis(100));
        let settings = Settings { active_cid_limit: limit, keep_alive, ..Settings::default() };
        let mut pair = Pair::new(&settings);
        let client = pair.connect(&settings);
        let server = pair.establish();
        pair.run_for(Duration::from_secs(1));
        let listed = |p: &Pair| (p.client.connection_ids(client).unwrap(), p.server.connection_ids(server).unwrap());
        for _ in 0..3 {
            let before = listed(&pair);
            assert_eq!(pair.client.rotate_connection_ids(pair.now, client), Ok(true));
            let data = vec![3; 100_000];
            assert!(pair.transfer(client, server, &data) == data);
            pair.run_for(Duration::from_secs(2));
            let after = listed(&pair);
            assert!(after.0.iter().all(|i| !before.0.contains(i)), "the client has all of its own replaced");
            assert!(after.1.iter().any(|i| !before.1.contains(i)), "the server replaced the one that was in use");
            assert_eq!((after.0.len(), after.1.len()), (limit.into(), limit.into()));
        }
        pair.assert_legal();
        pair.client.close(pair.now, client, 0, b"").unwrap();
        pair.run_for(Duration::from_secs(60));
        assert_eq!((pair.client.route_count(), pair.server.route_count()), (0, 0));
    }
}

#[test]
fn what_follows_a_silence_has_other_connection_ids() {
    // LS-IF-32
    let settings = Settings {
        rotate_after: Some(Duration::from_secs(5)),
        idle_timeout: Duration::from_secs(60),
        ..Settings::default()
    };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    let data = vec![3; 100_000];
    assert!(pair.transfer(client, server, &data) == data);
    for (silence, changes) in [(3, false), (6, true), (4, false), (20, true)] {
        let towards = |p: &Pair| (p.client.look_at(client).towards(), p.server.look_at(server).towards());
        let before = towards(&pair);
        pair.now += Duration::from_secs(silence);
        assert!(pair.transfer(client, server, &data) == data);
        let after = towards(&pair);
        assert_eq!((before.0 != after.0, before.1 != after.1), (changes, changes), "after {silence} s");
    }
    pair.assert_legal();
}

#[test]
fn the_largest_datagram_of_an_application_leaves_room_for_every_connection_id() {
    //= rfc8899#5-2 type=test
    for len in [8, 13, 20] {
        for (max_udp_payload, mtu_discovery) in [(1200, false), (1472, true), (8952, true)] {
            let settings = Settings { max_udp_payload, mtu_discovery, ..Settings::default() };
            let mut pair = Pair::new(&settings);
            pair.server = server_with(&settings, |c| c.cids = Box::new(RandomCids::new(len)));
            let client = pair.connect(&settings);
            let server = pair.establish();
            pair.run_for(Duration::from_secs(1));
            let mtu = usize::from(max_udp_payload);
            assert_eq!(usize::from(pair.client.conn_stats(client).unwrap().mtu), mtu);
            let most = pair.client.datagram_max(client).unwrap().unwrap();
            let data = bytes::Bytes::from(vec![7; most]);
            let more = bytes::Bytes::from(vec![7; most + 1]);
            assert_eq!(pair.client.send_datagram(client, more, None), Err(crate::error::ApiMisuse::TooLarge));
            let sizes = Arc::new(Mutex::new(Vec::new()));
            let seen = sizes.clone();
            pair.filter = Box::new(move |_, _, datagram| {
                seen.lock().unwrap().push(datagram.len());
                true
            });
            assert_eq!(pair.client.send_datagram(client, data.clone(), None), Ok(true));
            pair.run_for(Duration::from_millis(11));
            assert_eq!(pair.server.read_datagram(server), Ok(Some(data)), "whole");
            let largest = sizes.lock().unwrap().iter().copied().max().unwrap();
            // A number of four bytes would fit as well.
            assert!((mtu - 4..=mtu).contains(&largest), "{largest} of {mtu} with {len} bytes of connection ID");
            pair.assert_legal();
        }
    }
}

#[test]
fn packet_numbers_have_one_byte_when_little_is_unacknowledged() {
    //= rfc9000#17.1-2 type=test
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    pair.filter = Box::new(move |way, _, datagram| {
        // Packets of the null provider are readable; those of the server have eight bytes before the number too.
        if way == super::pair::Way::Up && datagram[0] & 0x80 == 0 {
            let len = usize::from(datagram[0] & 3) + 1;
            let low = datagram[9..9 + len].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
            log.lock().unwrap().push((len, low));
        }
        true
    });
    let client = pair.connect(&settings);
    let server = pair.establish();
    let data = vec![3; 2_000_000];
    assert!(pair.transfer(client, server, &data) == data);
    let seen = seen.lock().unwrap();
    let count = |len| seen.iter().filter(|packet| packet.0 == len).count();
    assert!(count(1) > 100 && count(2) > 100 && count(1) + count(2) == seen.len(), "{} {}", count(1), count(2));
    // On a link that keeps the order each number is expanded to one that is larger than all before.
    let mut expected = 0;
    for (len, low) in seen.iter() {
        let number = crate::wire::pn::expand(*low, *len, expected);
        assert!((expected..expected + 8).contains(&number), "{number} where {expected} was expected");
        expected = number + 1;
    }
    pair.assert_legal();
}
