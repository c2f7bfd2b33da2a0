//! Transfers: every kind of path, flow control, slow readers, many streams, memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use courser_core::config::Congestion;
use courser_core::spans::FrameKind;
use courser_sim::node::corrupt::Damage;
use courser_sim::quic::{AppConfig, Job, Net, NetConfig, Pace, inspect};
use courser_sim::script::{Tap, Verdict};
use courser_sim::{Cause, Duplex, LinkConfig};

use crate::support::{MS, S, plain, rated};

fn fetch_over(link: Duplex, seed: u64, bytes: u64) -> Net {
    let mut net = Net::new(NetConfig::new(seed, link).job(Job::fetch(bytes)));
    net.run_until_done(300 * S);
    net
}

#[test]
fn every_byte_arrives_over_paths_that_misbehave() {
    let base = || LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(20 * MS);
    let paths = [
        ("clean", base()),
        ("loss", base().loss(0.03)),
        ("bursts", base().loss_bursts(0.05, 5.0)),
        ("reordering", base().reorder(0.03, 5 * MS)),
        ("deep reordering", base().reorder(0.05, 60 * MS)),
        ("duplication", base().duplicate(0.1)),
        ("corruption", base().corrupt(0.05, Damage::FlipBits(3))),
        ("truncation", base().corrupt(0.05, Damage::Truncate)),
        ("jitter", base().jitter(30 * MS, false)),
        ("everything", base().loss(0.02).reorder(0.05, 30 * MS).duplicate(0.05).corrupt(0.02, Damage::FlipBits(1))),
    ];
    for (name, link) in paths {
        for seed in 0..3 {
            let mut net = fetch_over(Duplex::symmetric(link.clone()), seed, 1_000_000);
            let report = &net.client().app(0).unwrap().report;
            assert_eq!((report.bytes_in, report.ends), (1_000_000, 1), "{name} {seed}");
            net.finish();
        }
    }
}

#[test]
fn thirty_percent_loss_both_ways_does_not_stop_a_transfer() {
    for seed in 0..6 {
        let link =
            Duplex::symmetric(LinkConfig::new().rate(20_000_000).queue_bytes(50_000).delay_us(10 * MS).loss(0.3));
        let mut config = NetConfig::new(seed, link).job(Job::exchange(100_000, 200_000));
        config = config.settings(|s| s.handshake_timeout = std::time::Duration::from_secs(60));
        let mut net = Net::new(config);
        net.run_until_done(200 * S);
        net.finish();
    }
}

#[test]
fn two_seconds_of_darkness_end_within_a_backoff() {
    for cc in [Congestion::Cubic, Congestion::NewReno] {
        let link = Duplex::symmetric(
            LinkConfig::new().rate(10_000_000).queue_bytes(50_000).delay_us(10 * MS).dead(500 * MS, 2_500 * MS),
        );
        let mut net = Net::new(NetConfig::new(1, link).settings(|s| s.congestion = cc).job(Job::fetch(2_000_000)));
        net.run_until(2_500 * MS);
        let before = net.client().app(0).unwrap().report.bytes_in;
        // Probes go out at doubling distances, so the next one comes before as much time again has passed.
        net.run_until_true(4_600 * MS, |c, _| c.app(0).unwrap().report.bytes_in > before);
        net.run_until_done(15 * S);
        net.finish();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let link = Duplex::symmetric(LinkConfig::new().rate(20_000_000).delay_us(10 * MS).loss(0.05).reorder(0.05, MS));
        let net = fetch_over(link, seed, 300_000);
        (net.world.trace_hash(), net.world.events())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_thousand_streams_in_both_directions() {
    for loss in [0.0, 0.02] {
        let link =
            Duplex::symmetric(LinkConfig::new().rate(50_000_000).queue_bytes(200_000).delay_us(5 * MS).loss(loss));
        let jobs = (0..1_000u64).map(|i| match i % 3 {
            0 => Job::send(i % 50 * 40),
            1 => Job::fetch(i % 70 * 100),
            _ => Job::exchange(i, i),
        });
        let mut net = Net::new(NetConfig::new(1, link).jobs(jobs));
        net.run_until_done(60 * S);
        net.run_until(net.world.now_us() + S);
        let (client, server) = (&net.client().app(0).unwrap().report, &net.server().app(0).unwrap().report);
        assert_eq!((client.acked, client.ends, server.ends, server.acked), (1_000, 666, 1_000, 666));
        net.finish();
    }
}

#[test]
fn tiny_windows_stall_and_go_on() {
    for (window, conn) in [(1, 1), (10, 7), (100, 1_000), (1_000, 1_500)] {
        for loss in [0.0, 0.1] {
            let link = Duplex::symmetric(LinkConfig::new().delay_us(MS).loss(loss));
            let config = NetConfig::new(1, link)
                .settings(|s| {
                    (s.stream_window, s.stream_window_max) = (window, window);
                    (s.conn_window, s.conn_window_max) = (conn, conn);
                })
                .jobs((0..3).map(|_| Job::exchange(20 + window * 5, 20 + window * 5)));
            let mut net = Net::new(config);
            net.run_until_done(120 * S);
            net.finish();
        }
    }
}

#[test]
fn one_stream_at_a_time_is_enough_to_get_through() {
    let config = NetConfig::new(1, Duplex::symmetric(LinkConfig::new().delay_us(MS).loss(0.05)))
        .settings(|s| (s.max_streams_bidi, s.max_streams_uni) = (1, 1))
        .keep()
        .jobs((0..40).map(|i| if i % 2 == 0 { Job::send(100) } else { Job::exchange(100, 100) }));
    let mut net = Net::new(config);
    net.run_until_done(60 * S);
    assert!(!net.server_watch.with(FrameKind::MaxStreamsBidi).is_empty());
    assert!(!net.client_watch.with(FrameKind::StreamsBlockedUni).is_empty());
    net.finish();
}

#[test]
fn a_slow_reader_bounds_memory_by_the_window() {
    let window = 64 << 10;
    let config = NetConfig::new(1, Duplex::symmetric(LinkConfig::new().rate(100_000_000).delay_us(5 * MS)))
        .settings(|s| {
            (s.stream_window, s.stream_window_max) = (window, window);
            (s.conn_window, s.conn_window_max) = (2 * window, 2 * window);
        })
        .client_pace(Pace::Every { bytes: 5_000, us: 20 * MS })
        .job(Job::fetch(1_000_000));
    let mut net = Net::new(config);
    let mut most = 0;
    for t in 1..60 {
        net.run_until(t * 50 * MS);
        most = most.max(net.client().engine.pool_stats().in_use_bytes);
    }
    // The chunk at either end is not full.
    assert!((50_000..=window as usize + 2 * 65_536).contains(&most), "{most} bytes held");
    assert!(net.client().app(0).unwrap().report.bytes_in < 1_000_000);
    net.run_until_done(20 * S);
    net.finish();
}

#[test]
fn a_reader_that_never_reads_stops_the_sender_and_nothing_else() {
    let config = NetConfig::new(1, plain())
        .settings(|s| (s.stream_window, s.stream_window_max) = (10_000, 10_000))
        .server_pace(Pace::Never)
        .job(Job::send(1_000_000));
    let mut net = Net::new(config);
    net.run_until(5 * S);
    let sent = net.client_stats().unwrap();
    net.run_until(20 * S);
    let later = net.client_stats().unwrap().since(&sent);
    assert!(later.sent.packets < 5, "a sender without credit is silent: {later:?}");
    net.world.host_mut(net.server).app_mut(0).unwrap().set_pace(Pace::Greedy);
    net.run_until_done(60 * S);
    net.finish();
}

#[test]
fn a_vanished_reader_does_not_hold_memory_after_the_idle_timeout() {
    let config = NetConfig::new(1, rated(20)).job(Job::fetch(10_000_000));
    let mut net = Net::new(config);
    net.run_until(500 * MS);
    assert!(net.server().engine.pool_stats().in_use > 0);
    net.tap_up(Box::new(|_, _| Verdict::Drop));
    net.tap_down(Box::new(|_, _| Verdict::Drop));
    net.run_until(120 * S);
    net.assert_empty();
}

#[test]
fn bulk_fills_packets_and_trains() {
    let mut net = fetch_over(
        Duplex::symmetric(LinkConfig::new().rate(100_000_000).queue_bytes(400_000).delay_us(10 * MS)),
        1,
        5_000_000,
    );
    let stats = net.server_stats().unwrap();
    let per_datagram = stats.sent.bytes as f64 / stats.sent.datagrams as f64;
    assert!(per_datagram > 0.95 * 1_472.0, "{per_datagram} bytes in a datagram");
    assert_eq!(stats.mtu, 1_472);
    // OSSL-TXP-13: several packets at once.
    let engine = net.server().engine.stats();
    assert!(
        engine.sent_datagrams >= 2 * engine.trains,
        "{} datagrams in {} trains",
        engine.sent_datagrams,
        engine.trains
    );
    // One ACK frame for each batch that arrived, none for each packet.
    let client = net.client_stats().unwrap();
    assert!(client.sent.datagrams * 10 <= stats.sent.datagrams * 6, "{client:?}");
    net.finish();
}

#[test]
fn acknowledgements_that_come_together_are_handled_once() {
    // What goes up is released in bunches each 5 to 10 ms.
    let down = LinkConfig::new().rate(50_000_000).queue_bytes(400_000).delay_us(20 * MS);
    let up = LinkConfig::new().rate(50_000_000).delay_us(20 * MS).bunch(20 * MS, 30 * MS);
    let mut net = Net::new(NetConfig::new(1, Duplex::new(up, down)).job(Job::fetch(5_000_000)));
    net.run_until_done(60 * S);
    let stats = net.server_stats().unwrap();
    assert!(stats.ack_frames > 300 && stats.ack_runs * 10 <= stats.ack_frames, "{stats:?}");
    net.finish();
}

#[test]
fn sending_never_exceeds_the_window_except_by_probes() {
    for (seed, loss) in [(1, 0.0), (2, 0.01), (3, 0.05)] {
        let link =
            Duplex::symmetric(LinkConfig::new().rate(20_000_000).queue_bytes(50_000).delay_us(20 * MS).loss(loss));
        let mut net = fetch_over(link, seed, 2_000_000);
        assert_eq!((net.server().overshoot, net.client().overshoot), (0, 0));
        net.finish();
    }
}

#[test]
fn paced_data_leaves_with_gaps() {
    //= rfc9002#7.7-2 type=test
    let link = Duplex::symmetric(LinkConfig::new().rate(20_000_000).queue_bytes(400_000).delay_us(50 * MS));
    let config = NetConfig::new(1, link).job(Job::fetch(3_000_000)).keep();
    let mut net = Net::new(config);
    net.run_until_done(20 * S);
    let mut bursts = std::collections::BTreeMap::<u64, usize>::new();
    for n in net.server_watch.with(FrameKind::Stream) {
        *bursts.entry(n.at_us).or_default() += n.size;
    }
    let largest = bursts.values().copied().max().unwrap();
    assert!(bursts.len() > 300, "{} bursts for 3 MB", bursts.len());
    assert!(largest <= 40_000, "a burst of {largest} bytes");
    net.finish();
}

#[test]
fn without_pacing_a_window_leaves_at_once() {
    let config = NetConfig::new(1, plain()).settings(|s| s.pacing = false).job(Job::fetch(100_000)).keep();
    let mut net = Net::new(config);
    net.run_until_done(20 * S);
    let first = net.server_watch.with(FrameKind::Stream)[0].at_us;
    let burst: usize =
        net.server_watch.with(FrameKind::Stream).iter().filter(|n| n.at_us == first).map(|n| n.size).sum();
    assert!(burst > 8_000, "{burst}");
    net.finish();
}

#[test]
fn a_lost_tail_is_repaired_within_a_probe_timeout_and_a_round_trip() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::fetch(30_000)));
    net.run_until_done(5 * S);
    // The path is known now; the last packets of a second fetch vanish, whatever they are.
    let from = net.world.now_us() + S;
    net.run_until(from);
    net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::fetch(5_000).at(from));
    let mut dropped = 0;
    net.tap_down(Box::new(move |view, d| {
        if view.now_us >= from && dropped < 4 && inspect::has(&d.bytes, FrameKind::Stream) {
            dropped += 1;
            return Verdict::Drop;
        }
        Verdict::Pass
    }));
    net.run_until_done(from + 5 * S);
    let took = net.client().app(0).unwrap().report.done_us.unwrap() - from;
    // Request and answer 20 ms, probe timeout at most 20 + 4 x 5 + 25 ms, then 10 ms down and the client's 10 up.
    assert!(took <= 120 * MS, "{took} us");
    assert!(net.server_stats().unwrap().ptos >= 1);
    net.finish();
}

#[test]
fn late_acknowledgements_cancel_repetitions() {
    // All of one flight is held back by 25 ms: it looks lost, and is not.
    let link = Duplex::symmetric(LinkConfig::new().rate(10_000_000).queue_bytes(60_000).delay_us(20 * MS));
    let config = NetConfig::new(1, link).job(Job::fetch(400_000));
    let mut net = Net::new(config);
    net.tap_down(Box::new(|view, _| {
        if (140 * MS..150 * MS).contains(&view.now_us) { Verdict::Delay(25 * MS) } else { Verdict::Pass }
    }));
    net.run_until_done(20 * S);
    let stats = net.server_stats().unwrap();
    assert!(stats.spurious_losses >= 1, "{stats:?}");
    net.finish();
}

#[test]
fn reordering_teaches_the_threshold_and_costs_little() {
    let down = LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(20 * MS).reorder(0.03, 5 * MS);
    let link = Duplex::new(LinkConfig::new().delay_us(20 * MS), down);
    let mut net = fetch_over(link, 1, 5_000_000);
    let stats = net.server_stats().unwrap();
    assert!(stats.spurious_losses * 200 <= stats.sent.packets, "at most 0.5 % needless: {stats:?}");
    let took = net.client().app(0).unwrap().report.done_us.unwrap();
    assert!(took < 2_700 * MS, "{took} us for 5 MB at 20 Mbit/s");
    net.finish();
}

#[test]
fn the_search_finds_what_the_path_carries() {
    for (payload, least) in [(1_280, 1_260), (1_400, 1_380), (1_472, 1_472), (9_000, 1_472)] {
        let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).mtu(payload));
        let mut net = Net::new(NetConfig::new(1, link).job(Job::fetch(300_000)));
        net.run_until(8 * S);
        assert!(net.client().is_done());
        let (client, server) = (net.client_stats().unwrap(), net.server_stats().unwrap());
        for stats in [client, server] {
            let mtu = usize::from(stats.mtu);
            assert!((least..=payload.min(1_472)).contains(&mtu), "{mtu} of {payload}");
            assert_eq!(stats.congestion_events, 0, "a lost probe says nothing about congestion");
        }
        net.finish();
    }
}

#[test]
fn a_path_that_shrinks_later_is_noticed() {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::fetch(300_000)));
    net.run_until(3 * S);
    assert_eq!(net.server_stats().unwrap().mtu, 1_472);
    let from = net.world.now_us();
    net.tap_down(Box::new(|_, d| if d.bytes.len() > 1_300 { Verdict::Drop } else { Verdict::Pass }));
    net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::fetch(300_000).at(from));
    net.run_until_done(from + 2 * S);
    assert!(net.server_stats().unwrap().mtu <= 1_300, "{:?}", net.server_stats());
    net.finish();
}

#[test]
fn a_hole_for_full_datagrams_is_noticed_although_small_ones_pass() {
    // Each answer is a few full datagrams and a small one: acknowledgements never stop. No message tells of the hole.
    //= rfc8899#4.3-1 type=test
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::fetch(300_000)));
    net.run_until(3 * S);
    net.tap_down(Box::new(|_, d| if d.bytes.len() > 1_300 { Verdict::Drop } else { Verdict::Pass }));
    for i in 0..40 {
        net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::fetch(3_200).at((3_000 + i * 30) * MS));
    }
    net.run_until_done(6 * S);
    assert!(net.server_stats().unwrap().mtu <= 1_300, "{:?}", net.server_stats());
    net.finish();
}

#[test]
fn an_outage_does_not_cost_the_datagram_size() {
    let mut net = Net::new(NetConfig::new(1, rated(10)).job(Job::fetch(10_000_000)));
    net.run_until(S);
    net.tap_down(Box::new(|v, _| if v.now_us < 4 * S { Verdict::Drop } else { Verdict::Pass }));
    net.run_until_done(30 * S);
    assert_eq!(net.server_stats().unwrap().mtu, 1_472);
    net.finish();
}

#[test]
fn who_hears_the_other_again_after_an_outage_sends_at_once() {
    for seconds in 1..=6 {
        let end = (1 + seconds) * S;
        // Both ends have something in flight when the outage begins.
        let jobs = [Job::send(20_000_000), Job::fetch(20_000_000)];
        let mut net = Net::new(NetConfig::new(seconds, rated(10)).jobs(jobs));
        net.run_until(S);
        // When the first full datagram gets through in each direction.
        let first = [Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(u64::MAX))];
        let tap = |first: &Arc<AtomicU64>| -> Tap {
            let first = first.clone();
            Box::new(move |v, d| {
                if v.now_us < end {
                    return Verdict::Drop;
                }
                if d.bytes.len() > 1_000 {
                    first.fetch_min(v.now_us, Relaxed);
                }
                Verdict::Pass
            })
        };
        net.tap_up(tap(&first[0]));
        net.tap_down(tap(&first[1]));
        net.run_until(end + 20 * S);
        let [up, down] = first.map(|f| f.load(Relaxed));
        assert!(up.abs_diff(down) <= 60 * MS, "an outage of {seconds} s: {up} and {down}");
    }
}

#[test]
fn four_streams_at_once_all_come_to_their_end() {
    let config = NetConfig::new(1, rated(20)).jobs((0..4).map(|_| Job::fetch(400_000)));
    let mut net = Net::new(config);
    net.run_until_done(10 * S);
    let report = &net.client().app(0).unwrap().report;
    assert_eq!(report.ends, 4);
    net.finish();
}

#[test]
fn two_senders_share_a_bottleneck() {
    for cc in [Congestion::Cubic, Congestion::NewReno] {
        let path = courser_sim::paths::by_name("fair-same").unwrap();
        let f = courser_sim::quic::race::run(&path, cc, 3);
        assert!(f.wrong.is_empty(), "{:?}", f.wrong);
        assert!(f.jain > 0.85, "{cc:?}: {f:?}");
    }
}

#[test]
fn hundreds_of_connections_share_one_engine() {
    let link = Duplex::symmetric(LinkConfig::new().rate(100_000_000).queue_bytes(500_000).delay_us(10 * MS));
    let mut net = Net::new(NetConfig::new(1, link));
    for i in 0..300u64 {
        let app = AppConfig { jobs: vec![Job::exchange(100 + i, 2_000 + i)], ..AppConfig::default() };
        net.world.host_mut(net.client).dial(i % 10 * MS, courser_sim::addr::server(0), app);
    }
    net.run_until_done(60 * S);
    assert_eq!(net.server().engine.connections(), 300);
    assert_eq!(net.world.link(net.up).stats().dropped_for(Cause::Limit), 0);
    net.finish();
}

#[test]
fn ecn_marks_slow_a_sender_without_loss() {
    let down = LinkConfig::new().rate(20_000_000).queue_bytes(400_000).delay_us(20 * MS).ce_above_us(5 * MS);
    let link = Duplex::new(LinkConfig::new().delay_us(20 * MS), down);
    let mut net = fetch_over(link, 1, 5_000_000);
    let stats = net.server_stats().unwrap();
    assert_eq!(stats.lost_packets, 0, "{stats:?}");
    assert!(stats.ecn && stats.congestion_events > 0, "{stats:?}");
    net.finish();
}

#[test]
fn datagrams_leave_within_a_train_under_bulk() {
    let mut net = Net::new(NetConfig::new(1, rated(50)).job(Job::send(20_000_000)).keep());
    net.run_until(S);
    let key = net.client_key();
    let mut waits = Vec::new();
    for _ in 0..20 {
        let at = net.world.now_us() + 20 * MS;
        net.run_until(at);
        let sent = net.client_watch.notes().len();
        let host = net.world.host_mut(net.client);
        assert_eq!(host.engine.send_datagram(key, bytes::Bytes::from_static(b"urgent"), None), Ok(true));
        net.run_until(at + 20 * MS);
        let notes = net.client_watch.notes();
        let first = notes[sent..].iter().position(|n| n.frames.contains(FrameKind::Datagram));
        waits.push(first.expect("the datagram left"));
    }
    assert!(waits.iter().all(|w| *w < 64), "packets before the datagram: {waits:?}");
}
