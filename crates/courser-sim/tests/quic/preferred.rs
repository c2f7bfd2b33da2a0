//! A server's preferred address, and clients that move, come back or are impersonated while that is being followed.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use courser_core::cid::RandomCids;
use courser_core::config::{PreferredAddress, TransportParams};
use courser_core::ids::{ResetToken, Side};
use courser_core::protect::null::NullTlsClient;
use courser_core::spans::FrameKind;
use courser_core::wire::params;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, Provider, QuicHost, inspect};
use courser_sim::script::Verdict;
use courser_sim::{Datagram, Duplex, LinkConfig, addr};

use crate::early::told_by;
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
