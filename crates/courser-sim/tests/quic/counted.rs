//! Faults by count: one reference run, and the same again for each datagram and each buffer of it that something happens to.
//!
//! The run has what connections have: a handshake, streams of both ends, datagrams, key updates, new connection IDs, a
//! migration, a translator's doing, a close. Each run moves every byte, or ends with a reason that both ends tell; nothing is left.

use std::collections::BTreeMap;

use bytes::Bytes;
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::Side;
use courser_sim::node::corrupt::Damage;
use courser_sim::quic::{Job, Net, NetConfig, QuicHost};
use courser_sim::script::{Act, Pick, Rule, Script};
use courser_sim::{Duplex, LinkConfig, addr};

use crate::support::{MS, S, plain};
use crate::tls::with_tls;

/// Datagrams that each end sends.
const DATAGRAMS: u8 = 4;

/// Something that is done in the middle, so many microseconds after the handshake was confirmed.
type Doing = (u64, fn(&mut Net));

/// What happens in the middle, and how long after the handshake was confirmed.
const ACTS: [Doing; 10] = [
    (30 * MS, |net| send_datagram(net, 0)),
    (45 * MS, |net| update_keys(net, Side::Client)),
    (60 * MS, |net| send_datagram(net, 1)),
    (75 * MS, |net| rotate(net)),
    (90 * MS, |net| update_keys(net, Side::Server)),
    (120 * MS, |net| migrate(net)),
    (150 * MS, |net| send_datagram(net, 2)),
    (210 * MS, |net| move_port(net)),
    (240 * MS, |net| update_keys(net, Side::Client)),
    (270 * MS, |net| send_datagram(net, 3)),
];

fn reference(link: Duplex) -> NetConfig {
    let mut config = NetConfig::new(1, link)
        .job(Job::exchange(6_000, 9_000))
        .job(Job::send(4_000))
        .job(Job::exchange(3_000, 5_000).at(100 * MS))
        .job(Job::exchange(4_000, 4_000).at(200 * MS))
        .job(Job::fetch(3_000).at(300 * MS));
    config.accept.jobs = vec![Job::exchange(2_000, 2_000), Job::send(3_000).at(180 * MS)];
    config.client_also = vec![addr::client(7).ip()];
    config
}

fn ids(net: &Net, side: Side) -> courser_sim::HostId<QuicHost> {
    if side == Side::Client { net.client } else { net.server }
}

/// With the host and the connection of an end, if it has one yet and still.
fn at(net: &mut Net, side: Side, act: impl FnOnce(&mut QuicHost, courser_core::ids::ConnKey)) {
    let id = ids(net, side);
    if let Some(&key) = net.world.host(id).keys().first() {
        act(net.world.host_mut(id), key);
    }
}

// What is not possible at that moment is told so and changes nothing: a fault may have put the handshake off.
fn send_datagram(net: &mut Net, n: u8) {
    for side in [Side::Client, Side::Server] {
        at(net, side, |host, key| {
            let _ = host.engine.send_datagram(key, Bytes::from(vec![n; 100]), None);
        });
    }
}

fn update_keys(net: &mut Net, side: Side) {
    let now = QuicHost::instant(net.world.now_us());
    at(net, side, |host, key| {
        let _ = host.engine.update_keys(now, key);
    });
}

fn rotate(net: &mut Net) {
    let now = QuicHost::instant(net.world.now_us());
    at(net, Side::Server, |host, key| {
        let _ = host.engine.rotate_connection_ids(now, key);
    });
}

fn migrate(net: &mut Net) {
    let now = QuicHost::instant(net.world.now_us());
    at(net, Side::Client, |host, key| {
        let _ = host.engine.migrate(now, key, addr::client(7).ip());
    });
}

/// As a translator does: the address changes, and nobody is told.
fn move_port(net: &mut Net) {
    let now_us = net.world.now_us();
    let ip = addr::client(7).ip();
    net.world.host_mut(net.client).rebind(now_us, std::net::SocketAddr::new(ip, 40_007));
}

fn read_datagrams(net: &mut Net, got: &mut BTreeMap<(bool, u8), u32>) {
    for side in [Side::Client, Side::Server] {
        at(net, side, |host, key| {
            while let Ok(Some(datagram)) = host.engine.read_datagram(key) {
                assert!(datagram.len() == 100 && datagram.iter().all(|b| *b == datagram[0]), "{datagram:?}");
                *got.entry((side == Side::Client, datagram[0])).or_default() += 1;
            }
        });
    }
}

/// How a run ended: all was moved, or a reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done,
    Explained(String),
}

/// What a run took.
struct Took {
    end: End,
    up: u64,
    down: u64,
    takes: [u64; 2],
    datagrams: usize,
}

/// Carries the reference run out. With `fail` the n-th buffer that this end takes is not to be had.
fn run(name: &str, link: Duplex, fail: Option<(Side, u64)>) -> Took {
    carry_out(name, Net::new(reference(link)), fail, &ACTS)
}

fn carry_out(name: &str, mut net: Net, fail: Option<(Side, u64)>, acts: &[Doing]) -> Took {
    if let Some((side, n)) = fail {
        let id = ids(&net, side);
        #[cfg(debug_assertions)]
        net.world.host_mut(id).engine.fail_nth_take(n);
        #[cfg(not(debug_assertions))]
        let _ = (id, n);
    }
    let (client, server) = (net.client, net.server);
    let over = |h: &QuicHost| h.app(0).is_some_and(|a| a.report.closed.is_some());
    let confirmed = |h: &QuicHost| h.app(0).is_some_and(|a| a.report.confirmed_us.is_some());
    net.world.run_until_true(20 * S, |w| confirmed(w.host(client)) || over(w.host(client))).unwrap();
    let (mut got, begin_us) = (BTreeMap::new(), net.world.now_us());
    for (after_us, act) in acts {
        net.run_until(begin_us + after_us);
        read_datagrams(&mut net, &mut got);
        act(&mut net);
    }
    let served = |h: &QuicHost| confirmed(h) && h.app(0).is_some_and(|a| a.is_idle());
    let done = |c: &QuicHost, s: &QuicHost| c.is_done() && served(s);
    net.world
        .run_until_true(100 * S, |w| {
            let (c, s) = (w.host(client), w.host(server));
            done(c, s) || over(c) || over(s)
        })
        .unwrap();
    read_datagrams(&mut net, &mut got);
    assert!(got.values().all(|n| *n == 1), "{name}: a datagram came twice: {got:?}");
    let all = done(net.client(), net.server());
    let ended = over(net.client()) || over(net.server());
    assert!(all || ended, "{name}: stuck");
    if !all {
        // The other end hears of it.
        net.run_until(net.world.now_us() + S);
    }
    net.finish();
    let reasons = (net.client_reason(), net.server_reason());
    let end = if all { End::Done } else { End::Explained(explain(name, &reasons)) };
    if all {
        assert!(matches!(reasons.0, Some(CloseReason::LocalApplication { code: 0, .. })), "{name}: {reasons:?}");
        let told = matches!(reasons.1, Some(CloseReason::PeerApplication { code: 0, .. } | CloseReason::IdleTimeout));
        assert!(told, "{name}: {reasons:?}");
    }
    let takes = |h: &QuicHost| {
        let s = h.engine.pool_stats();
        s.allocated + s.reused + s.refused
    };
    let sent = |link| net.world.link(link).stats().sent;
    let takes = [takes(net.client()), takes(net.server())];
    Took { end, up: sent(net.up), down: sent(net.down), takes, datagrams: got.len() }
}

/// The only reason that a buffer less has: it is told by the end that had none, and known at the other, unless the server has not
/// heard of the client yet.
fn explain(name: &str, reasons: &(Option<CloseReason>, Option<CloseReason>)) -> String {
    // A buffer for handshake data that cannot be had has a code of its own (RFC 9000 section 7.5).
    let codes = [TransportCode::INTERNAL_ERROR, TransportCode::CRYPTO_BUFFER_EXCEEDED];
    let own = |r: &CloseReason| match r {
        CloseReason::Internal(_) => true,
        CloseReason::Violation(v) => codes.contains(&v.code),
        _ => false,
    };
    let told = |r: &CloseReason| matches!(r, CloseReason::PeerTransport { code, .. } if codes.contains(code));
    match reasons {
        (Some(client), None) if own(client) => "the client had none at the beginning".to_owned(),
        (Some(client), Some(server)) if own(client) && told(server) => "the client had none".to_owned(),
        (Some(client), Some(server)) if told(client) && own(server) => "the server had none".to_owned(),
        _ => panic!("{name}: {reasons:?}"),
    }
}

/// What happens to the n-th datagram.
fn faults() -> Vec<(&'static str, Act)> {
    vec![
        ("dropped", Act::Drop),
        ("doubled", Act::Copies(1)),
        ("a bit turned over", Act::Damage(Damage::FlipBits(1))),
        ("a byte of the header changed", Act::Damage(Damage::ChangeByte { span: 20 })),
        ("cut off", Act::Damage(Damage::Truncate)),
        ("40 ms late", Act::Delay(40 * MS)),
        ("2 s late", Act::Delay(2 * S)),
    ]
}

fn on(up: bool, rule: Rule) -> Duplex {
    let link = LinkConfig::new().delay_us(10 * MS);
    if up { Duplex::new(link.clone().rule(rule), link) } else { Duplex::new(link.clone(), link.rule(rule)) }
}

#[test]
fn whatever_happens_to_one_datagram_of_a_run_every_byte_arrives() {
    let clean = run("nothing", plain(), None);
    assert_eq!((&clean.end, clean.datagrams), (&End::Done, 2 * usize::from(DATAGRAMS)));
    let mut runs = 0;
    for (what, act) in faults() {
        for (up, count) in [(true, clean.up), (false, clean.down)] {
            for n in 0..count {
                let name = format!("datagram {n} {}: {what}", if up { "up" } else { "down" });
                let took = run(&name, on(up, Rule::new(Pick::Numbers(vec![n]), act)), None);
                assert_eq!(took.end, End::Done, "{name}");
                runs += 1;
            }
        }
    }
    println!(
        "{} datagrams up and {} down, {} faults each: {runs} runs, all done",
        clean.up,
        clean.down,
        faults().len()
    );
    assert!(clean.up >= 30 && clean.down >= 30);
}

#[test]
fn whatever_two_datagrams_in_a_row_are_lost_every_byte_arrives() {
    let clean = run("nothing", plain(), None);
    let mut runs = 0;
    for (up, count) in [(true, clean.up), (false, clean.down)] {
        for n in 0..count - 1 {
            let name = format!("datagrams {n} and the next {}", if up { "up" } else { "down" });
            let took = run(&name, on(up, Rule::new(Pick::Numbers(vec![n, n + 1]), Act::Drop)), None);
            assert_eq!(took.end, End::Done, "{name}");
            runs += 1;
        }
    }
    // One of each direction: what answers is lost too.
    for n in 0..clean.up.max(clean.down) {
        let script = Script::new().drop_up([n]).drop_down([n]);
        assert_eq!(run(&format!("datagrams {n} both ways"), script.apply(plain()), None).end, End::Done, "{n}");
        runs += 1;
    }
    println!("{runs} runs with two losses, all done");
}

/// Buffers are made to fail in debug builds only.
#[cfg(debug_assertions)]
#[test]
fn a_buffer_that_is_not_to_be_had_ends_in_a_reason_at_both_ends_or_in_nothing() {
    let clean = run("nothing", plain(), None);
    let mut ends = BTreeMap::<(Side, End), u64>::new();
    for (side, takes) in [(Side::Client, clean.takes[0]), (Side::Server, clean.takes[1])] {
        for n in 1..=takes {
            let took = run(&format!("take {n} of the {side:?}"), plain(), Some((side, n)));
            *ends.entry((side, took.end)).or_default() += 1;
        }
    }
    println!("{:?} takes: {ends:?}", clean.takes);
    assert!(clean.takes.iter().all(|takes| *takes >= 8), "{:?}", clean.takes);
    assert!(ends.keys().any(|(_, end)| *end == End::Done) && ends.keys().any(|(_, end)| *end != End::Done));
}

#[test]
fn whatever_happens_to_one_datagram_of_a_real_handshake_it_completes() {
    let config = |link| with_tls(1, link, 0).job(Job::exchange(500, 500));
    let clean = carry_out("nothing", Net::new(config(plain())), None, &[]);
    let mut runs = 0;
    for (what, act) in faults() {
        for (up, count) in [(true, clean.up), (false, clean.down)] {
            for n in 0..count {
                let name = format!("real TLS, datagram {n} {}: {what}", if up { "up" } else { "down" });
                let net = Net::new(config(on(up, Rule::new(Pick::Numbers(vec![n]), act))));
                assert_eq!(carry_out(&name, net, None, &[]).end, End::Done, "{name}");
                runs += 1;
            }
        }
    }
    println!("{} datagrams up and {} down: {runs} runs, all done", clean.up, clean.down);
}
