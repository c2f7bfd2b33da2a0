//! What limits a connection: one prepared run for each cause. The server sends; it is asked what held it back.

use courser_core::engine::Limits;
use courser_core::observe::Limit;
use courser_sim::quic::{Job, Net, NetConfig};
use courser_sim::{Duplex, LinkConfig};

use crate::support::{MS, S};

/// A path that is never in the way: 100 Mbit/s with a deep queue and a round trip of 40 ms.
fn wide() -> Duplex {
    Duplex::symmetric(LinkConfig::new().rate(100_000_000).queue_bytes(4 << 20).delay_us(20 * MS))
}

fn windows(config: NetConfig, stream: u64, connection: u64) -> NetConfig {
    config.settings(|s| {
        (s.stream_window, s.stream_window_max) = (stream, stream);
        (s.conn_window, s.conn_window_max) = (connection, connection);
    })
}

/// The cause, and its share of the time from the end of the handshake to the end of the job.
fn share(before: &Limits, after: &Limits) -> (Limit, f64) {
    let spent = |l: Limit| (after.time(l) - before.time(l)).as_secs_f64();
    let total: f64 = Limit::ALL.into_iter().map(spent).sum();
    let most = Limit::ALL.into_iter().max_by(|a, b| spent(*a).total_cmp(&spent(*b))).unwrap();
    (most, spent(most) / total)
}

#[track_caller]
fn assert_limit(name: &str, mut net: Net, expected: Limit, least: f64) {
    net.establish(10 * S);
    let before = net.server_stats().unwrap().limits;
    net.run_until_done(300 * S);
    let after = net.server_stats().unwrap().limits;
    let (most, share) = share(&before, &after);
    assert_eq!(most, expected, "{name}: {after:?}");
    assert!(share >= least, "{name}: only {share:.2} of the time: {after:?}");
    if expected != Limit::Application {
        let own = Limits::worst(&after);
        assert!(own == Some(expected), "{name}: {own:?}");
    }
    net.finish();
}

#[test]
fn an_application_that_has_little_to_say_is_its_own_limit() {
    let jobs = (0..40).map(|i| Job::fetch(2_000).at(i * 250 * MS + 1));
    assert_limit("application", Net::new(NetConfig::new(1, wide()).jobs(jobs)), Limit::Application, 0.98);
}

#[test]
fn a_small_window_of_a_stream_is_found() {
    let config = windows(NetConfig::new(1, wide()).job(Job::fetch(2_000_000)), 16 << 10, 8 << 20);
    assert_limit("stream credit", Net::new(config), Limit::StreamCredit, 0.9);
}

#[test]
fn a_small_window_of_the_connection_is_found() {
    let jobs = (0..4).map(|_| Job::fetch(500_000));
    let config = windows(NetConfig::new(1, wide()).jobs(jobs), 1 << 20, 16 << 10);
    assert_limit("connection credit", Net::new(config), Limit::ConnCredit, 0.9);
}

#[test]
fn a_congestion_window_that_losses_keep_small_is_found() {
    let link = Duplex::symmetric(LinkConfig::new().rate(100_000_000).queue_bytes(4 << 20).delay_us(20 * MS).loss(0.02));
    let config = NetConfig::new(1, link).settings(|s| s.pacing = false).job(Job::fetch(3_000_000));
    assert_limit("congestion window", Net::new(windows(config, 16 << 20, 16 << 20)), Limit::CongestionWindow, 0.9);
}

#[test]
fn pacing_is_found_where_it_spreads_bursts_below_the_window() {
    // The first fetch opens the window; each of the others is smaller than that, so only the pacer is in their way.
    let link = Duplex::symmetric(LinkConfig::new().delay_us(50 * MS));
    let bursts = (0..10).map(|i| Job::fetch(1_000_000).at(2_500 * MS + i * 500 * MS));
    let config = NetConfig::new(1, link).job(Job::fetch(10_000_000)).jobs(bursts);
    let mut net = Net::new(windows(config, 64 << 20, 64 << 20));
    net.run_until(2_400 * MS);
    let before = net.server_stats().unwrap().limits;
    net.run_until_done(60 * S);
    let after = net.server_stats().unwrap().limits;
    let spent = |l: Limit| after.time(l) - before.time(l);
    assert!(spent(Limit::Pacing) > std::time::Duration::from_millis(50), "{after:?}");
    for other in Limit::ALL.into_iter().filter(|l| !matches!(l, Limit::Pacing | Limit::Application)) {
        assert!(spent(other) * 20 < spent(Limit::Pacing), "{other:?}: {before:?} {after:?}");
    }
    net.finish();
}

#[test]
fn a_full_socket_is_found() {
    let config = windows(NetConfig::new(1, wide()).job(Job::fetch(2_000_000)), 16 << 20, 16 << 20);
    let mut net = Net::new(config.settings(|s| s.pacing = false));
    net.world.host_mut(net.server).socket_pause_us = 50 * MS;
    assert_limit("socket", net, Limit::Socket, 0.7);
}

#[test]
fn an_address_that_is_not_proven_is_found() {
    let link = Duplex::symmetric(LinkConfig::new().delay_us(150 * MS));
    let mut config = NetConfig::new(1, link).job(Job::fetch(1_000));
    config.tls.certificate_len = 12_000;
    let mut net = Net::new(config);
    net.run_until_true(10 * S, |_, s| s.app(0).is_some_and(|a| a.report.connected_us.is_some()));
    let limits = net.server_stats().unwrap().limits;
    let (most, share) = share(&Limits::default(), &limits);
    assert_eq!(most, Limit::Amplification, "{limits:?}");
    // What remains of the handshake is a round trip in which the server waits for the client's last message.
    assert!(share > 0.45, "{share:.2}: {limits:?}");
    net.run_until_done(20 * S);
    net.finish();
}
