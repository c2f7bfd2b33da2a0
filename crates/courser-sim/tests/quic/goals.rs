//! Goals of reliability in numbers: downloads over terrible paths, keys that are replaced all the time.

use std::time::Duration;

use courser_core::config::Congestion;
use courser_sim::quic::{Job, Net, NetConfig, QuicHost};
use courser_sim::{Duplex, LinkConfig};

use crate::support::{MS, S};

/// A download of a million bytes at 100 Mbit/s and a round trip of 600 ms; when it was done, if it was. A fifth of it is lost in
/// bursts of that mean length, and such a share of the acknowledgements.
fn download(seed: u64, (up, burst): (f64, f64), congestion: Congestion, window: Option<u64>) -> Option<u64> {
    let link = || LinkConfig::new().rate(100_000_000).queue_bytes(7_500_000).delay_us(300 * MS);
    let link = Duplex::new(link().loss_bursts(up, burst), link().loss_bursts(0.2, burst));
    let config = NetConfig::new(seed, link).settings(|s| {
        s.congestion = congestion;
        s.handshake_timeout = Duration::from_secs(60);
        // Pauses between probes double: in 30 s a burst may hit them all, in 100 s there are two probes more, or four.
        s.idle_timeout = Duration::from_secs(100);
        if let Some(window) = window {
            (s.stream_window, s.stream_window_max) = (window, window);
            (s.conn_window, s.conn_window_max) = (window, window);
        }
    });
    let mut net = Net::new(config.job(Job::fetch(1_000_000)));
    let client = net.client;
    let over = |h: &QuicHost| h.is_done() || h.app(0).is_some_and(|a| a.report.closed.is_some());
    net.world.run_until_true(1_000 * S, |w| over(w.host(client))).unwrap();
    let done = net.client().is_done().then(|| net.world.now_us() / MS);
    if done.is_some() {
        assert_eq!(net.client().app(0).unwrap().report.bytes_in, 1_000_000);
    }
    net.finish();
    done
}

#[test]
fn ten_of_ten_downloads_end_well_with_a_fifth_of_them_lost_in_bursts_at_a_round_trip_of_600_ms() {
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        for window in [Some(64 << 10), None] {
            let mut took: Vec<u64> =
                (1..=10).filter_map(|seed| download(seed, (0.0, 2.0), congestion, window)).collect();
            took.sort_unstable();
            assert_eq!(took.len(), 10, "{congestion:?}, window {window:?}: {took:?}");
            // Bursts are counted in datagrams, so that they may outlast every probe of an idle timeout: that is told, not judged.
            let harder = [(0.0, 3.0), (0.2, 2.0), (0.2, 3.0)]
                .map(|loss| (1..=10).filter_map(|seed| download(seed, loss, congestion, window)).count());
            println!(
                "{congestion:?}, window {window:?}: 10 of 10 in {} to {} virtual ms; bursts of 3: {}; both ways: {}; both: {}",
                took[0], took[9], harder[0], harder[1], harder[2]
            );
        }
    }
}

/// Millions of bytes of each way; `COURSER_MEGABYTES` says otherwise.
const MEGABYTES: u64 = 10;

#[test]
fn keys_that_are_replaced_each_thousand_packets_lose_nothing() {
    let megabytes = std::env::var("COURSER_MEGABYTES").ok().and_then(|n| n.parse().ok()).unwrap_or(MEGABYTES);
    let bytes = megabytes * 1_000_000;
    let link = LinkConfig::new().rate(20_000_000).queue_bytes(50_000).delay_us(5 * MS);
    let mut net = Net::new(
        NetConfig::new(1, Duplex::symmetric(link))
            .engine(|e| e.aead_limits.confidentiality = 1_000)
            .client_engine(|e| e.aead_limits.confidentiality = 1_000)
            .job(Job::exchange(bytes, bytes)),
    );
    net.establish(S);
    // Both ends replace them at one moment, again and again, beside what the limit makes them do.
    let mut both = 0;
    while !net.client().is_done() {
        net.run_until(net.world.now_us() + 400 * MS);
        let now = QuicHost::instant(net.world.now_us());
        let keys = [(net.client, net.client_key()), (net.server, net.server_key())];
        let updated = keys.map(|(id, key)| net.world.host_mut(id).engine.update_keys(now, key).is_ok());
        both += u64::from(updated == [true, true]);
        assert!(net.world.now_us() < 10_000 * S && net.client_reason().is_none(), "{:?}", net.client_reason());
    }
    let (client, server) = (net.client_stats().unwrap(), net.server_stats().unwrap());
    let report = &net.client().app(0).unwrap().report;
    println!(
        "{megabytes} MB each way: {} and {} updates, {both} times at one moment; {} packets",
        client.key_updates,
        server.key_updates,
        net.client_watch.judged().0 + net.server_watch.judged().0
    );
    assert_eq!((report.bytes_in, report.ends), (bytes, 1));
    assert!(client.key_updates + server.key_updates >= bytes * 2 / 1_500 / 1_000, "{client:?}");
    assert!(both >= 1);
    net.finish();
}
