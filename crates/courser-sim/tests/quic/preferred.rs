//! A server's preferred address, and clients that move, come back or are impersonated while that is being followed.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use courser_core::cid::RandomCids;
use courser_core::config::{PreferredAddress, TransportParams};
use courser_core::ids::{ResetToken, Side};
use courser_core::protect::null::{NullTlsClient, told_by};
use courser_core::spans::FrameKind;
use courser_core::wire::params;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, Provider, QuicHost, inspect};
use courser_sim::script::Verdict;
use courser_sim::{Datagram, Duplex, LinkConfig, addr};

use crate::support::{MS, S, plain, rated};

/// Where the server would rather be.
fn preferred() -> SocketAddr {
    addr::server(1)
}

/// Where the client may move to.
fn second() -> IpAddr {
    addr::client(7).ip()
}

fn prefers(seed: u64, link: Duplex) -> NetConfig {
    let mut config = NetConfig::new(seed, link);
    config.server_also = vec![preferred().ip()];
    config.client_also = vec![second()];
    let SocketAddr::V4(at) = preferred() else { panic!("an IPv4 address") };
    config.server.preferred_v4 = Some(at);
    config
}

fn migrate(net: &mut Net) {
    let (key, now) = (net.client_key(), QuicHost::instant(net.world.now_us()));
    net.world.host_mut(net.client).engine.migrate(now, key, second()).unwrap();
}

/// The addresses that both ends use.
fn used(net: &Net) -> (SocketAddr, SocketAddr) {
    (net.client().engine.remote(net.client_key()).unwrap(), net.server().engine.remote(net.server_key()).unwrap())
}

/// Addresses and kinds of the datagrams with challenges of the client: from, to, when.
type Asked = Arc<Mutex<Vec<(IpAddr, SocketAddr, u64)>>>;

#[test]
fn a_client_that_moves_first_tests_both_addresses_and_leaves_the_original_one() {
    //= rfc9000#9.6.3-1 type=test
    //= rfc9000#9.6.3-2 type=test
    let lossy = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.05).reorder(0.05, 5 * MS));
    for (name, link) in [("clean", plain()), ("lossy", lossy)] {
        for rebinds in [false, true] {
            for seed in 0..4 {
                let mut net = Net::new(prefers(seed, link.clone()).job(Job::exchange(3_000_000, 3_000_000)));
                let asked = Asked::default();
                let noted = asked.clone();
                net.tap_up(Box::new(move |v, d| {
                    if inspect::has(&d.bytes, FrameKind::PathChallenge) {
                        noted.lock().unwrap().push((d.src.ip(), d.dst, v.now_us));
                    }
                    // From its first address the client never reaches the preferred one.
                    let cut = d.dst == preferred() && d.src.ip() != second();
                    if cut { Verdict::Drop } else { Verdict::Pass }
                }));
                // The original address answers at the new one when it is too late.
                net.tap_down(Box::new(move |_, d| {
                    let late = d.src != preferred() && d.dst.ip() == second();
                    if late && inspect::has(&d.bytes, FrameKind::PathResponse) { Verdict::Drop } else { Verdict::Pass }
                }));
                net.establish(5 * S);
                let moved_at = net.world.now_us();
                if rebinds {
                    net.world.host_mut(net.client).rebind(moved_at, SocketAddr::new(second(), addr::client(0).port()));
                } else {
                    migrate(&mut net);
                }
                net.run_until_true(moved_at + 4 * S, |c, _| c.engine.remote(c.keys()[0]) == Ok(preferred()));
                let left_at = net.world.now_us();
                net.tap_down(Box::new(|_, _| Verdict::Pass));
                net.run_until_done(60 * S);
                net.run_until(net.world.now_us() + 5 * S);
                let at = format!("{name}, rebinds {rebinds}, seed {seed}");
                assert_eq!((used(&net).0, used(&net).1.ip()), (preferred(), second()), "{at}");
                let asked = asked.lock().unwrap().clone();
                let from_second = |to| move |a: &&(IpAddr, SocketAddr, u64)| a.0 == second() && a.1 == to;
                let both = [addr::server(0), preferred()].map(|to| asked.iter().find(from_second(to)).map(|a| a.2));
                let [Some(original), Some(new)] = both else { panic!("{at}: {asked:?}") };
                assert!(original.abs_diff(moved_at) < MS && new.abs_diff(moved_at) < MS, "at once: {at}: {asked:?}");
                let late = asked.iter().filter(from_second(addr::server(0))).any(|a| a.2 > left_at);
                assert!(!late, "the original address is asked no more: {at}: {asked:?}");
                let migrations = net.client_stats().unwrap().migrations;
                assert_eq!(migrations, if rebinds { 2 } else { 1 }, "{at}");
                net.finish();
            }
        }
    }
}

/// When something was seen first, and with which of both ends at which address of the server.
type First = Arc<Mutex<std::collections::BTreeMap<&'static str, u64>>>;

#[test]
fn neither_end_uses_the_preferred_address_before_it_has_seen_that_it_works() {
    let bad = LinkConfig::new().delay_us(10 * MS).loss(0.05).reorder(0.05, 5 * MS);
    for (name, link, seed) in
        [("clean", plain(), 0)].into_iter().chain((1..6).map(|s| ("bad", Duplex::symmetric(bad.clone()), s)))
    {
        let mut net = Net::new(prefers(seed, link).job(Job::exchange(1_000_000, 1_000_000)));
        let first = First::default();
        for up in [true, false] {
            let seen = first.clone();
            let tap: courser_sim::script::Tap = Box::new(move |v, d| {
                if (if up { d.dst } else { d.src }) != preferred() {
                    return Verdict::Pass;
                }
                let mut seen = seen.lock().unwrap();
                let data = !inspect::packets(&d.bytes).iter().all(|p| p.frames.is_probing());
                let has = |kind| inspect::has(&d.bytes, kind);
                let names = if up {
                    ["challenge up", "response up", "data up"]
                } else {
                    ["challenge down", "response down", "data down"]
                };
                let shown = [has(FrameKind::PathChallenge), has(FrameKind::PathResponse), data];
                for (name, _) in names.into_iter().zip(shown).filter(|(_, shown)| *shown) {
                    seen.entry(name).or_insert(v.now_us);
                }
                Verdict::Pass
            });
            if up { net.tap_up(tap) } else { net.tap_down(tap) }
        }
        net.run_until_done(60 * S);
        let first = first.lock().unwrap().clone();
        let at = |what: &str| first.get(what).copied().unwrap_or_else(|| panic!("{name} {seed}: no {what}: {first:?}"));
        // One way takes ten milliseconds: what was answered earlier than that after it was said was not waited for.
        //= rfc9000#9.6.2-1 type=test
        assert!(at("data up") >= at("response down") + 10 * MS, "{name} {seed}: {first:?}");
        //= rfc9000#9.6.2-3 type=test
        assert!(at("challenge down") >= at("challenge up") + 10 * MS, "{name} {seed}: {first:?}");
        //= rfc9000#9.6.2-2 type=test
        assert!(at("data down") >= at("data up") + 10 * MS, "{name} {seed}: {first:?}");
        assert!(at("data down") >= at("response up") + 10 * MS, "{name} {seed}: {first:?}");
        net.finish();
    }
}

#[test]
fn data_that_comes_to_the_preferred_address_does_not_move_a_server_whose_challenge_nobody_answered() {
    //= rfc9000#9.6.2-2 type=test
    // The client's answers to the server's challenges from there are lost for two seconds.
    let mut net = Net::new(prefers(1, plain()).job(Job::exchange(300_000, 300_000)));
    net.tap_up(Box::new(|v, d| {
        let answer = d.dst == preferred() && inspect::has(&d.bytes, FrameKind::PathResponse);
        if answer && v.now_us < 2 * S { Verdict::Drop } else { Verdict::Pass }
    }));
    let said = Arc::new(Mutex::new((0, 0)));
    let noted = said.clone();
    net.tap_down(Box::new(move |v, d| {
        let data = !inspect::packets(&d.bytes).iter().all(|p| p.frames.is_probing());
        let mut said = noted.lock().unwrap();
        if data && v.now_us < 2 * S {
            assert!(d.src == addr::server(0), "at {} us", v.now_us);
            said.0 += 1;
        }
        said.1 += usize::from(data && d.src == preferred());
        Verdict::Pass
    }));
    net.run_until(2 * S);
    net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::exchange(300_000, 300_000).at(5 * S));
    net.run_until_done(60 * S);
    let said = *said.lock().unwrap();
    assert!(said.0 > 20, "{said:?}");
    net.finish();
}

#[test]
fn somebody_else_at_the_preferred_address_gets_little_and_keeps_nothing() {
    //= rfc9000#9.6.3-3 type=test
    // The client has been at the preferred address already; of what it sends there, which is little more than
    // acknowledgements, everything comes to the server from elsewhere for a while.
    let other = addr::client(9);
    let mut config = prefers(3, rated(20)).job(Job::fetch(2_000_000));
    config.client_also.push(other.ip());
    let mut net = Net::new(config);
    let ledger = Arc::new(Mutex::new((0_usize, 0_usize, 0_usize)));
    let (up, down) = (ledger.clone(), ledger.clone());
    let mut until = None;
    net.tap_up(Box::new(move |v, d| {
        let data = d.bytes.len() < 100 && !inspect::packets(&d.bytes).iter().all(|p| p.frames.is_probing());
        if d.dst == preferred() && (data || until.is_some()) && *until.get_or_insert(v.now_us + 300 * MS) > v.now_us {
            d.src = other;
            up.lock().unwrap().0 += d.bytes.len();
        }
        Verdict::Pass
    }));
    net.tap_down(Box::new(move |_, d| {
        if d.dst == other {
            let mut ledger = down.lock().unwrap();
            ledger.1 += d.bytes.len();
            assert!(ledger.1 <= 3 * ledger.0, "{} bytes for {}", ledger.1, ledger.0);
            ledger.2 += usize::from(inspect::has(&d.bytes, FrameKind::PathChallenge));
            return Verdict::Drop;
        }
        Verdict::Pass
    }));
    net.run_until_done(60 * S);
    let (came, sent, challenges) = *ledger.lock().unwrap();
    assert!(came > 400 && sent > 0 && challenges > 0, "{came} {sent} {challenges}");
    assert_eq!(used(&net), (preferred(), addr::client(0)));
    net.finish();
}

#[test]
fn the_next_connection_begins_at_the_original_address_again() {
    //= rfc9000#9.6.2-5 type=test
    // It resumes the first one, and what is remembered of that has the preferred address too.
    let mut config = prefers(1, plain()).job(Job::exchange(5_000, 5_000));
    let SocketAddr::V4(at) = preferred() else { panic!("an IPv4 address") };
    let mut remembered = params::decode(&told_by(&config.server), Side::Server).unwrap();
    let mut random = courser_core::protect::null::NullRandom::new(1);
    let cid = courser_core::cid::CidGenerator::generate(
        &mut RandomCids::new(8),
        &courser_core::protect::null::NullKeys,
        &mut random,
    );
    remembered.preferred_address = Some(PreferredAddress { v4: Some(at), v6: None, cid, token: ResetToken([7; 16]) });
    let mut encoded = Vec::new();
    params::encode(&TransportParams { ..remembered }, Side::Server, 1, &mut encoded);
    let client = NullTlsClient { remembered: Some(encoded), ..NullTlsClient::default() };
    config.client_provider = Some(Provider::null_client(1, client));
    config.tls.accept_early_data = true;
    let mut net = Net::new(config);
    let first = Arc::new(Mutex::new(Vec::new()));
    let noted = first.clone();
    net.tap_up(Box::new(move |_, d: &mut Datagram| {
        if d.bytes[0] & 0x80 != 0 {
            noted.lock().unwrap().push(d.dst);
        }
        Verdict::Pass
    }));
    for n in 0..3 {
        if n > 0 {
            let app = AppConfig { jobs: vec![Job::exchange(5_000, 5_000)], ..AppConfig::default() };
            let at = net.world.now_us();
            net.world.host_mut(net.client).dial(at, addr::server(0), app);
        }
        net.run_until_done(net.world.now_us() + 5 * S);
        net.run_until(net.world.now_us() + S);
        let key = net.client().keys()[n];
        assert_eq!(net.client().engine.remote(key), Ok(preferred()), "connection {n} moves when its own time comes");
        assert_eq!(net.client().app(n).unwrap().report.early, Some(true));
    }
    let first = first.lock().unwrap();
    assert!(first.len() > 6 && first.iter().all(|to| *to == addr::server(0)), "{first:?}");
    net.finish();
}
