//! 0-RTT: accepted, rejected, with losses, behind a Retry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use courser_core::config::{Settings, TransportParams};
use courser_core::engine::RetryPolicy;
use courser_core::error::{CloseReason, TransportCode};
use courser_core::ids::{Level, Side};
use courser_core::protect::null::{NullTlsClient, told_by};
use courser_core::wire::frame::Frame;
use courser_core::wire::params;
use courser_sim::quic::{Job, Net, NetConfig, Provider, inspect};
use courser_sim::script::{Script, Verdict};
use courser_sim::{Duplex, LinkConfig};

use crate::support::{MS, S, plain};

fn early(seed: u64, link: Duplex, accept: bool) -> NetConfig {
    let mut config = NetConfig::new(seed, link);
    let client = NullTlsClient { remembered: Some(told_by(&Settings::default())), ..NullTlsClient::default() };
    config.client_provider = Some(Provider::null_client(seed, client));
    config.tls.accept_early_data = accept;
    config
}

#[test]
fn an_early_request_is_answered_within_one_round_trip() {
    //= rfc9001#5.6-4 type=test
    let mut net = Net::new(early(1, plain(), true).job(Job::fetch(1_000)));
    net.run_until_done(10 * S);
    let (client, server) = (&net.client().app(0).unwrap().report, &net.server().app(0).unwrap().report);
    assert_eq!((client.early, client.first_byte_us, client.connected_us), (Some(true), Some(20 * MS), Some(20 * MS)));
    assert_eq!(server.read_early, 1, "the server knows that the request may be a replay");
    assert_eq!(net.client_stats().unwrap().retransmitted_bytes, 0);
    net.finish();
}

#[test]
fn without_early_data_a_request_takes_two() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::fetch(1_000)));
    net.run_until_done(10 * S);
    let server = &net.server().app(0).unwrap().report;
    assert_eq!((server.read_early, net.client().app(0).unwrap().report.first_byte_us), (0, Some(40 * MS)));
    net.finish();
}

#[test]
fn what_was_rejected_is_sent_again() {
    //= rfc9001#4.6.2-1 type=test
    //= rfc9001#4.6.2-3 type=test
    let mut net = Net::new(early(1, plain(), false).jobs([Job::exchange(5_000, 9_000), Job::send(300), Job::fetch(1)]));
    net.run_until_done(10 * S);
    let (client, server) = (&net.client().app(0).unwrap().report, &net.server().app(0).unwrap().report);
    assert_eq!((client.early, server.read_early, client.acked), (Some(false), 0, 3));
    assert_eq!(client.first_byte_us, Some(40 * MS), "as without 0-RTT, and not later");
    net.finish();
}

#[test]
fn what_was_rejected_waits_for_the_limits_of_the_new_connection() {
    let mut small = Settings::default();
    (small.conn_window, small.stream_window, small.max_streams_bidi) = (4_000, 1_000, 2);
    let mut config = early(1, plain(), false).jobs([Job::exchange(3_000, 10); 12]).job(Job::send(5_000));
    config.server = small;
    let mut net = Net::new(config);
    net.run_until_done(60 * S);
    assert_eq!(net.client().app(0).unwrap().report.acked, 13);
    net.finish();
}

#[test]
fn a_server_that_accepts_may_not_reduce_a_limit() {
    //= rfc9000#7.4.1-6 type=test
    let reduced = |change: fn(&mut Settings)| {
        let mut config = early(1, plain(), true).job(Job::fetch(10));
        change(&mut config.server);
        let mut net = Net::new(config);
        net.run_until(5 * S);
        match net.client().app(0).unwrap().report.closed.clone() {
            Some((_, CloseReason::Violation(v))) => Some(v.code),
            _ => None,
        }
    };
    let violation = Some(TransportCode::PROTOCOL_VIOLATION);
    assert_eq!(reduced(|s| s.conn_window -= 1), violation);
    assert_eq!(reduced(|s| s.stream_window -= 1), violation);
    assert_eq!(reduced(|s| s.max_streams_bidi -= 1), violation);
    assert_eq!(reduced(|s| s.max_streams_uni -= 1), violation);
    assert_eq!(reduced(|s| s.active_cid_limit -= 1), violation);
    //= rfc9221#3-7 type=test
    assert_eq!(reduced(|s| s.max_datagram_frame -= 1), violation);
    //= reset-stream-at#3-3 type=test
    assert_eq!(reduced(|s| s.reset_stream_at = false), violation);
    assert_eq!(reduced(|s| s.conn_window += 1), None);
}

#[test]
fn a_server_may_grant_more_than_before() {
    let mut config = early(1, plain(), true).jobs([Job::exchange(2_000, 2_000); 300]);
    config.server.max_streams_bidi = 400;
    let mut net = Net::new(config);
    net.run_until_done(10 * S);
    net.finish();
}

#[test]
fn an_early_upload_fills_the_window_and_goes_on() {
    for accept in [true, false] {
        let mut net = Net::new(early(1, plain(), accept).keep().job(Job::exchange(400_000, 50_000)));
        net.run_until_done(20 * S);
        let levels: Vec<Level> = net.client_watch.notes().iter().map(|p| p.level).collect();
        let early = levels.iter().filter(|l| **l == Level::ZeroRtt).count();
        assert!(early >= 8, "{early} packets of 0-RTT");
        //= rfc9001#5.6-6 type=test
        //= rfc9000#17.2.3-3 type=test
        let first = levels.iter().position(|l| *l == Level::OneRtt).unwrap();
        assert!(levels[first..].iter().all(|l| *l != Level::ZeroRtt), "0-RTT after 1-RTT");
        net.finish();
    }
}

#[test]
fn datagrams_that_wait_are_dropped_when_a_server_that_rejects_takes_none() {
    //= rfc9221#3-1 type=test
    let mut config = early(1, plain(), false).job(Job::fetch(1_000));
    config.server.max_datagram_frame = 0;
    let mut net = Net::new(config);
    net.run_until(MS);
    let key = net.client_key();
    let mut pushed = 0;
    while net.world.host_mut(net.client).engine.send_datagram(key, vec![7; 1_000].into(), Some(pushed)) == Ok(true) {
        pushed += 1;
    }
    assert!(pushed > 20, "more than the first window takes: {pushed}");
    net.run_until_done(10 * S);
    net.run_until(net.world.now_us() + S);
    assert_eq!((net.client_reason(), net.server_reason()), (None, None), "nobody breaks a rule");
    let mut lost = 0;
    while let Ok(Some((_, fate))) = net.world.host_mut(net.client).engine.poll_datagram_fate(key) {
        assert_eq!(fate, courser_core::spans::Fate::Lost);
        lost += 1;
    }
    assert_eq!(lost, pushed, "each of them is told to be lost");
    net.finish();
}

#[test]
fn each_single_datagram_may_be_lost() {
    for accept in [true, false] {
        for n in 0..12 {
            for (up, down) in [(vec![n], vec![]), (vec![], vec![n])] {
                let link = Script::new().drop_up(up.iter().copied()).drop_down(down.iter().copied()).apply(plain());
                let mut net = Net::new(early(1, link, accept).job(Job::exchange(6_000, 3_000)));
                net.run_until_done(20 * S);
                let done = net.client().app(0).unwrap().report.done_us.unwrap();
                assert!(done < 1_500 * MS, "lost {up:?} {down:?}: {done} us");
                net.finish();
            }
        }
    }
}

#[test]
fn heavy_loss_reordering_and_duplicates_lose_nothing() {
    // With seed 11 both halves of what a client's Handshake probe said get lost while its 1-RTT packets fill the window.
    for seed in 0..24 {
        let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.2).reorder(0.2, 8 * MS).duplicate(0.1));
        let config = early(seed, link, seed % 2 == 0)
            .settings(|s| s.handshake_timeout = std::time::Duration::from_secs(60))
            .jobs([Job::exchange(20_000, 20_000), Job::send(3_000), Job::fetch(100)]);
        let mut net = Net::new(config);
        net.run_until_done(120 * S);
        net.finish();
    }
}

#[test]
fn early_data_goes_out_again_behind_a_retry() {
    //= rfc9000#17.2.3-2 type=test
    //= rfc9000#17.2.5.3-2 type=test
    for accept in [true, false] {
        let config = early(1, plain(), accept)
            .keep()
            .job(Job::exchange(4_000, 1_000))
            .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always);
        let mut net = Net::new(config);
        net.run_until_done(10 * S);
        let client = &net.client().app(0).unwrap().report;
        assert_eq!((client.early, net.client_stats().unwrap().retries), (Some(accept), 1));
        let expected = if accept { 40 * MS } else { 60 * MS };
        assert!((expected..expected + 2 * MS).contains(&client.first_byte_us.unwrap()), "{:?}", client.first_byte_us);
        let packets = net.client_watch.notes();
        let mut numbers: Vec<_> = packets.iter().filter(|p| p.level == Level::ZeroRtt).map(|p| p.pn).collect();
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all, "no packet number is used twice");
        net.finish();
    }
}

/// A client that remembers something of a server with ordinary settings, changed.
fn remembering(change: impl FnOnce(&mut TransportParams)) -> NetConfig {
    let mut config = early(1, plain(), true);
    let mut params = params::decode(&told_by(&config.server), Side::Server).unwrap();
    change(&mut params);
    let mut remembered = Vec::new();
    params::encode(&params, Side::Server, 1, &mut remembered);
    let client = NullTlsClient { remembered: Some(remembered), ..NullTlsClient::default() };
    config.client_provider = Some(Provider::null_client(1, client));
    config
}

/// When the client sent packets with application data after that time.
fn sent_after(net: &Net, at: u64) -> Vec<u64> {
    net.client_watch.notes().iter().filter(|n| n.at_us >= at && n.level == Level::OneRtt).map(|n| n.at_us).collect()
}

#[test]
fn delays_are_those_that_the_server_tells_now_and_not_those_of_before() {
    //= rfc9000#7.4.1-3 type=test
    // Nothing is acknowledged from then on; the probe comes after the round trip, its variation and the peer's delay.
    for (before_ms, now_ms) in [(9_000, 25), (25, 600), (9_000, 600)] {
        let mut config = remembering(|p| (p.max_ack_delay_ms, p.ack_delay_exponent) = (before_ms, 20));
        config.server.max_ack_delay = std::time::Duration::from_millis(now_ms);
        let mut net = Net::new(config.keep().job(Job::exchange(1_000, 1_000)));
        net.run_until_done(5 * S);
        assert_eq!(net.client().app(0).unwrap().report.early, Some(true));
        net.run_until(5 * S);
        net.tap_up(Box::new(|_, _| Verdict::Drop));
        net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::send(10).at(5 * S + MS));
        net.run_until(7 * S);
        let sent = sent_after(&net, 5 * S + MS);
        let (first, probe) = (sent[0], sent.iter().find(|at| **at > sent[0] + 5 * MS).copied());
        let waited = probe.map(|at| (at - first) / MS).unwrap_or_default();
        assert!((now_ms + 20..now_ms + 100).contains(&waited), "{before_ms} {now_ms}: {waited} ms");
    }
}

#[test]
fn early_packets_keep_to_the_limits_of_before_although_the_server_grants_more_now() {
    //= rfc9000#7.4.1-9 type=test
    for (lost, certificate_len) in [(vec![], 600), (vec![1], 4_000), (vec![1, 2, 3], 4_000), (vec![0, 2], 4_000)] {
        let mut config = remembering(|p| {
            (p.max_data, p.max_stream_data_bidi_remote, p.max_streams_bidi) = (5_000, 3_000, 2);
        });
        config.link = Script::new().drop_down(lost.iter().copied()).apply(plain());
        config.tls.certificate_len = certificate_len;
        let mut net = Net::new(config.jobs([Job::exchange(40_000, 2_000); 5]));
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = seen.clone();
        net.tap_up(Box::new(move |_, d| {
            for (level, frames) in inspect::frames_of(&d.bytes) {
                for frame in frames {
                    if let (Level::ZeroRtt, Frame::Stream { id, offset, data, .. }) = (level, frame) {
                        let mut seen = noted.lock().unwrap();
                        let end = seen.entry(id).or_insert(0);
                        *end = (offset + data.len() as u64).max(*end);
                    }
                }
            }
            Verdict::Pass
        }));
        net.run_until_done(10 * S);
        assert_eq!(net.client().app(0).unwrap().report.early, Some(true));
        let seen = seen.lock().unwrap();
        assert_eq!(seen.values().sum::<u64>(), 5_000, "all that was allowed, and no more: {seen:?}");
        assert!(seen.len() == 2 && seen.values().all(|end| *end <= 3_000), "{seen:?}");
        net.finish();
    }
}

#[test]
fn what_a_store_gives_back_garbled_is_not_used() {
    let mut config = early(1, plain(), true).job(Job::fetch(100));
    let client = NullTlsClient { remembered: Some(vec![0xff; 7]), ..NullTlsClient::default() };
    config.client_provider = Some(Provider::null_client(1, client));
    let mut net = Net::new(config);
    net.run_until_done(10 * S);
    assert_eq!(net.client().app(0).unwrap().report.early, None);
    net.finish();
}

#[test]
fn early_packets_are_acknowledged_in_1_rtt_packets() {
    //= rfc9000#13.2.6-3 type=test
    for seed in 0..4 {
        let link = LinkConfig::new().delay_us(10 * MS).loss(0.05).reorder(0.05, 8 * MS);
        let mut net = Net::new(early(seed, Duplex::symmetric(link), true).keep().job(Job::exchange(9_000, 500)));
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = told.clone();
        net.tap_down(Box::new(move |_, d| {
            for (level, frames) in inspect::frames_of(&d.bytes) {
                for frame in frames {
                    if let Frame::Ack(ack) = frame {
                        seen.lock().unwrap().extend(ack.ranges.map(|r| (level, r)));
                    }
                }
            }
            Verdict::Pass
        }));
        net.run_until_done(20 * S);
        let told = told.lock().unwrap().clone();
        let notes = net.client_watch.notes();
        let of = |wanted: Level| notes.iter().filter(move |n| n.level == wanted).map(|n| n.pn);
        let in_1_rtt = |pn: u64| told.iter().any(|(l, r)| *l == Level::OneRtt && (r.0..=r.1).contains(&pn));
        let early: Vec<u64> = of(Level::ZeroRtt).collect();
        assert!(early.len() >= 5, "seed {seed}: {early:?}");
        assert!(early.iter().filter(|pn| in_1_rtt(**pn)).count() + 3 >= early.len(), "but for lost ones: {told:?}");
        // Nothing in the other spaces speaks of numbers that were never used there.
        for level in [Level::Initial, Level::Handshake] {
            let largest = of(level).max().unwrap_or(0);
            assert!(told.iter().all(|(l, r)| *l != level || r.1 <= largest), "seed {seed} at {level:?}: {told:?}");
        }
        net.finish();
    }
}
