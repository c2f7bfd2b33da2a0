//! Validation of addresses before the handshake: when a server asks, and what its tokens are good for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use courser_core::engine::{RetryPolicy, TokenKeys};
use courser_core::error::{CloseReason, TransportCode};
use courser_core::wire::header::{self, Header};
use courser_sim::quic::{AppConfig, Job, Net, NetConfig};
use courser_sim::script::{Tap, Verdict};
use courser_sim::topology;

use crate::support::{MS, S, plain};

fn always() -> NetConfig {
    NetConfig::new(1, plain()).engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always)
}

fn fetch() -> AppConfig {
    AppConfig { jobs: vec![Job::fetch(10)], ..AppConfig::default() }
}

/// Begins another connection of the client with this token, and waits until it did its job.
fn come_back(net: &mut Net, token: &[u8]) {
    let at = net.world.now_us();
    net.world.host_mut(net.client).dial_with_token(at, topology::addr::server(0), fetch(), token.to_vec());
    net.run_until_done(at + 5 * S);
}

/// The token of a NEW_TOKEN frame that the client's first connection got.
fn token_of(net: &mut Net) -> Vec<u8> {
    net.run_until(net.world.now_us() + S);
    let key = net.client_key();
    net.world.host_mut(net.client).engine.take_token(key).unwrap().unwrap().to_vec()
}

/// Calls `f` with the token of each Initial that passes.
fn on_initials(mut f: impl FnMut(&[u8]) -> Verdict + Send + 'static) -> Tap {
    Box::new(move |_, d| match header::decode(&d.bytes, 8) {
        Ok(Header::Initial(long)) => f(long.token),
        _ => Verdict::Pass,
    })
}

#[test]
fn a_token_proves_an_address_once() {
    let mut net = Net::new(always().job(Job::fetch(10)));
    let token = token_of(&mut net);
    come_back(&mut net, &token);
    let stats = net.server().engine.stats();
    //= rfc9000#8.1.3-12 type=test
    assert_eq!((stats.retries, stats.accepted, stats.bad_tokens), (1, 2, 0), "it proves the address");
    come_back(&mut net, &token);
    let stats = net.server().engine.stats();
    //= rfc9000#8.1.4-8 type=test
    assert_eq!((stats.retries, stats.accepted, stats.bad_tokens), (2, 3, 1), "not a second time");
    net.finish();
}

#[test]
fn a_token_is_in_all_initials_until_a_retry_gives_another() {
    // The second connection begins with a token that is used already, so that a Retry replaces it. Losses make more Initials.
    let mut config = always().job(Job::fetch(10));
    config.hello_len = 1_700;
    let mut net = Net::new(config);
    let token = token_of(&mut net);
    let bare = token[4..].to_vec();
    for again in [false, true] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        net.tap_up(on_initials(move |token| {
            let mut seen = kept.lock().unwrap();
            seen.push(token.to_vec());
            if seen.len() <= 4 { Verdict::Drop } else { Verdict::Pass }
        }));
        come_back(&mut net, &token);
        let seen = seen.lock().unwrap();
        let first = seen.iter().take_while(|t| **t == bare).count();
        //= rfc9000#8.1.3-1 type=test
        //= rfc9000#8.1.3-6 type=test
        assert!(first >= 4 && seen.len() > 5, "{first} of {}", seen.len());
        //= rfc9000#8.1.2-1 type=test
        assert!(seen[first..].iter().all(|t| *t == seen[first] && t[0] != bare[0]), "the newer token, and no other");
        assert_eq!(seen.len() > first, again, "a Retry");
    }
    net.finish();
}

#[test]
fn a_token_goes_to_the_server_that_the_application_shows_it_to_and_to_no_other() {
    //= rfc9000#8.1.3-7 type=test
    // The client's engine holds two tokens that nobody has asked it for: of a Retry, and of a NEW_TOKEN frame.
    let mut config = always().job(Job::fetch(10));
    config.server_also = vec![topology::addr::server(1).ip()];
    let mut net = Net::new(config);
    net.run_until(S);
    assert!(net.client_stats().unwrap().retries == 1 && net.server_stats().is_some());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    net.tap_up(on_initials(move |token| {
        kept.lock().unwrap().push(token.to_vec());
        Verdict::Pass
    }));
    for to in [topology::addr::server(1), topology::addr::server(0)] {
        let at = net.world.now_us();
        seen.lock().unwrap().clear();
        net.world.host_mut(net.client).dial(at, to, fetch());
        net.run_until_done(at + 5 * S);
        assert_eq!(seen.lock().unwrap()[0], Vec::<u8>::new(), "to {to}: the first Initial has no token");
        assert!(seen.lock().unwrap().iter().all(|t| t.is_empty() || t[0] == 0xc1), "and later ones that of a Retry");
    }
    let key = net.client_key();
    assert!(net.world.host_mut(net.client).engine.take_token(key).unwrap().is_some(), "it was there");
    net.finish();
}

#[test]
fn the_token_of_a_retry_is_not_kept_for_later_and_refused_when_it_comes_all_the_same() {
    let mut net = Net::new(always().job(Job::fetch(10)));
    let given = Arc::new(Mutex::new(Vec::new()));
    let kept = given.clone();
    net.tap_down(Box::new(move |_, d| {
        if let Ok(Header::Retry { version, token, .. }) = header::decode(&d.bytes, 8) {
            *kept.lock().unwrap() = [&version.0.to_be_bytes(), token].concat();
        }
        Verdict::Pass
    }));
    let kept = token_of(&mut net);
    let retry = given.lock().unwrap().clone();
    //= rfc9000#8.1.3-2 type=test
    assert!(!retry.is_empty() && kept != retry);
    let at = net.world.now_us();
    net.world.host_mut(net.client).dial_with_token(at, topology::addr::server(0), fetch(), retry);
    net.run_until(at + 100 * MS);
    let closed = net.client().app(1).unwrap().report.closed.clone();
    //= rfc9000#8.1.2-2 type=test
    //= rfc9000#8.1.3-8 type=test
    let Some((when, CloseReason::PeerTransport { code, .. })) = closed else { panic!("{closed:?}") };
    assert_eq!((when, code), (at + 20 * MS, TransportCode::INVALID_TOKEN));
    assert_eq!(net.server().engine.stats().accepted, 1);
    net.finish();
}

#[test]
fn under_load_and_only_then_clients_prove_their_addresses() {
    let config = NetConfig::new(1, plain())
        .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Above(2))
        .job(Job::fetch(9));
    let mut net = Net::new(config);
    for _ in 0..9 {
        net.world.host_mut(net.client).dial(0, topology::addr::server(0), fetch());
    }
    net.run_until_done(5 * S);
    let stats = net.server().engine.stats();
    assert_eq!((stats.accepted, stats.retries), (10, 7), "three got in before there was load");
    come_back(&mut net, &[]);
    let stats = net.server().engine.stats();
    assert_eq!((stats.accepted, stats.retries), (11, 7), "the load is over");
    net.finish();
}

#[test]
fn a_server_that_never_asks_takes_bad_tokens_for_none() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::fetch(10)));
    net.run_until_done(S);
    come_back(&mut net, &[&1u32.to_be_bytes()[..], &[0x77; 48]].concat());
    let stats = net.server().engine.stats();
    //= rfc9000#8.1.3-10 type=test
    //= rfc9000#8.1.3-11 type=test
    assert_eq!((stats.accepted, stats.retries, stats.bad_tokens), (2, 0, 1));
    net.finish();
}

#[test]
fn a_change_of_the_token_key_voids_no_token_in_use() {
    let config = always().engine(|e| {
        e.server.as_mut().unwrap().retry = RetryPolicy::Always;
        e.token_keys = Some(TokenKeys::new([1; 32]));
    });
    let mut net = Net::new(config.job(Job::fetch(10)));
    let token = token_of(&mut net);
    // One Retry is under way when the key changes.
    let at = net.world.now_us();
    net.world.host_mut(net.client).dial(at, topology::addr::server(0), fetch());
    net.run_until(at + 15 * MS);
    let mut keys = TokenKeys::new([1; 32]);
    keys.rotate([2; 32]);
    net.world.host_mut(net.server).engine.replace_token_keys(&keys);
    net.run_until_done(at + S);
    come_back(&mut net, &token);
    let stats = net.server().engine.stats();
    assert_eq!((stats.accepted, stats.retries, stats.bad_tokens), (3, 2, 0));
    // Without the old key its tokens prove nothing.
    let key = net.client().keys()[2];
    let newer = net.world.host_mut(net.client).engine.take_token(key).unwrap().unwrap().to_vec();
    net.world.host_mut(net.server).engine.replace_token_keys(&TokenKeys::new([3; 32]));
    come_back(&mut net, &newer);
    assert_eq!(net.server().engine.stats().bad_tokens, 1);
    net.finish();
}

/// How many bytes the server sends to a client with this token that says nothing after its first datagram.
fn sent_into_silence(moved: bool, with_token: bool) -> usize {
    let mut config = NetConfig::new(1, plain()).job(Job::fetch(10));
    config.tls.certificate_len = 12_000;
    let other = std::net::SocketAddr::new([10, 9, 9, 9].into(), 7);
    config.client_also.push(other.ip());
    let mut net = Net::new(config);
    let token = token_of(&mut net);
    let at = net.world.now_us();
    let client = net.world.host_mut(net.client);
    if moved {
        client.rebind(at, other);
    }
    let token = if with_token { token } else { Vec::new() };
    client.dial_with_token(at, topology::addr::server(0), fetch(), token);
    let sent = Arc::new(Mutex::new((0, 0)));
    let (up, down) = (sent.clone(), sent.clone());
    net.tap_up(Box::new(move |_, d| {
        let mut sent = up.lock().unwrap();
        if sent.0 == 0 && d.bytes[0] & 0x80 != 0 {
            sent.0 = d.bytes.len();
            return Verdict::Pass;
        }
        Verdict::Drop
    }));
    net.tap_down(Box::new(move |_, d| {
        if d.bytes[0] & 0x80 != 0 {
            down.lock().unwrap().1 += d.bytes.len();
        }
        Verdict::Drop
    }));
    net.run_until(at + 5 * S);
    let (up, down) = *sent.lock().unwrap();
    assert_eq!(up, 1_200);
    down
}

#[test]
fn a_server_sends_three_times_what_it_got_unless_a_token_proves_this_very_address() {
    //= rfc9000#8.1-1 type=test
    let without = sent_into_silence(false, false);
    assert!((2_400..=3_600).contains(&without), "{without}");
    let proven = sent_into_silence(false, true);
    assert!(proven > 12_000, "{proven}");
    //= rfc9000#8.1.4-5 type=test
    let moved = sent_into_silence(true, true);
    assert!((2_400..=3_600).contains(&moved), "{moved}");
}

#[test]
fn a_client_keeps_a_server_going_that_may_send_nothing_more() {
    // The server may send three datagrams before it hears more; all of them are lost, or all but the first, after which
    // the client has Handshake keys.
    for passing in [0, 1] {
        let mut config = NetConfig::new(1, plain()).job(Job::fetch(10)).keep();
        config.tls.certificate_len = 12_000;
        config.client.handshake_timeout = Duration::from_secs(60);
        let mut net = Net::new(config);
        let mut seen = 0;
        net.tap_down(Box::new(move |_, _| {
            seen += 1;
            if seen <= 3 && seen > passing { Verdict::Drop } else { Verdict::Pass }
        }));
        let up = Arc::new(Mutex::new(Vec::new()));
        let kept = up.clone();
        net.tap_up(Box::new(move |v, d| {
            kept.lock().unwrap().push((v.now_us, d.bytes.clone()));
            // What the client acknowledges does not arrive either.
            if (MS..100 * MS).contains(&v.now_us) { Verdict::Drop } else { Verdict::Pass }
        }));
        net.run_until_done(20 * S);
        let up = up.lock().unwrap().clone();
        // What the client sends a while later is its probe: nothing that came made it say something.
        let (_, probe) = up.iter().find(|(at, _)| *at > 100 * MS).unwrap();
        match header::decode(probe, 8) {
            //= rfc9000#8.1-4 type=test
            //= rfc9000#8.1-3 type=test
            Ok(Header::Initial(_)) if passing == 0 => assert!(probe.len() >= 1_200, "{} bytes", probe.len()),
            //= rfc9000#8.1-5 type=test
            Ok(Header::Handshake(_)) if passing == 1 => {}
            other => panic!("{passing}: {other:?}"),
        }
        net.finish();
    }
}
