//! Extensions: how often packets are acknowledged.

use courser_core::conn::ConnStats;
use courser_core::spans::FrameKind;
use courser_sim::quic::{Job, Net, NetConfig, inspect};
use courser_sim::script::Verdict;
use courser_sim::{Duplex, LinkConfig};

use crate::support::{MS, S, plain};

/// A download: when it was done, what the server counted, and the network after it.
fn download(link: Duplex, seed: u64, sparse: bool, bytes: u64) -> (u64, ConnStats, Net) {
    let config = NetConfig::new(seed, link).settings(|s| s.ack_frequency = sparse).job(Job::fetch(bytes)).keep();
    let mut net = Net::new(config);
    net.run_until_done(120 * S);
    let done = net.client().app(0).unwrap().report.done_us.unwrap();
    let stats = net.server_stats().unwrap();
    net.finish();
    (done, stats, net)
}

/// A rate with a queue of one bandwidth-delay product.
fn link(mbit: u64, one_way: u64) -> LinkConfig {
    let rate = mbit * 1_000_000;
    LinkConfig::new().rate(rate).queue_bytes(rate / 8 * one_way * 2 / S).delay_us(one_way)
}

#[test]
fn a_bulk_transfer_needs_a_fraction_of_the_acks_and_no_more_time() {
    // LS-PTOL-01
    for (mbit, one_way, bytes) in [(50, 10 * MS, 20_000_000), (100, 2 * MS, 20_000_000), (20, 40 * MS, 10_000_000)] {
        let run = |sparse| download(Duplex::symmetric(link(mbit, one_way)), 1, sparse, bytes);
        let (before, all, plain) = run(false);
        let (after, few, net) = run(true);
        assert!(plain.server_watch.with(FrameKind::AckFrequency).is_empty());
        let requests = net.server_watch.with(FrameKind::AckFrequency);
        assert!((3..60).contains(&requests.len()), "{} requests", requests.len());
        assert!(requests.windows(2).all(|r| r[1].at_us - r[0].at_us >= 2 * one_way), "one per round trip at most");
        let (acks, packets) = (few.ack_frames, few.sent.packets);
        assert!(acks * 4 < all.ack_frames, "{acks} ACKs for {packets} packets instead of {}", all.ack_frames);
        assert!(after * 100 <= before * 101, "{after} us instead of {before}");
        assert_eq!((few.ptos, few.spurious_losses), (0, 0), "{few:?}");
    }
}

#[test]
fn sparse_acks_get_over_loss_and_reordering() {
    let base = || link(20, 20 * MS);
    let paths = [
        ("loss", base().loss(0.02)),
        ("bursts", base().loss_bursts(0.03, 4.0)),
        ("reordering", base().reorder(0.03, 5 * MS)),
        ("everything", base().loss(0.01).reorder(0.03, 10 * MS).duplicate(0.02)),
    ];
    let both = |down: &LinkConfig| Duplex::new(link(20, 20 * MS).loss(0.01), down.clone());
    for (name, link) in paths {
        let (mut before, mut after, mut all, mut few, mut requests) = (0, 0, 0, 0, 0);
        for seed in 0..12 {
            let (took, stats, _) = download(both(&link), seed, false, 2_000_000);
            (before, all) = (before + took, all + stats.ack_frames);
            let (took, stats, net) = download(both(&link), seed, true, 2_000_000);
            (after, few) = (after + took, few + stats.ack_frames);
            requests += net.server_watch.with(FrameKind::AckFrequency).len();
        }
        assert!(requests > 0 && few < all, "{name}: {few} of {all} ACKs");
        assert!(after * 100 <= before * 103, "{name}: {after} us instead of {before}");
    }
}

#[test]
fn a_lost_request_is_repeated_with_its_number() {
    let config = NetConfig::new(1, Duplex::symmetric(link(20, 10 * MS)))
        .settings(|s| s.ack_frequency = true)
        .job(Job::fetch(3_000_000))
        .keep();
    let mut net = Net::new(config);
    let mut lost = 0;
    net.tap_down(Box::new(move |_, d| {
        if lost < 2 && inspect::has(&d.bytes, FrameKind::AckFrequency) {
            lost += 1;
            return Verdict::Drop;
        }
        Verdict::Pass
    }));
    net.run_until_done(60 * S);
    assert!(net.server_watch.with(FrameKind::AckFrequency).len() >= 3);
    let (acks, packets) = (net.server_stats().unwrap().ack_frames, net.server_stats().unwrap().sent.packets);
    assert!(acks * 3 < packets, "{acks} ACKs for {packets} packets");
    net.finish();
}

#[test]
fn a_probe_asks_for_an_ack_at_once() {
    for sparse in [false, true] {
        let config = NetConfig::new(1, plain()).settings(|s| s.ack_frequency = sparse).job(Job::fetch(30_000)).keep();
        let mut net = Net::new(config);
        net.run_until_done(5 * S);
        let from = net.world.now_us() + S;
        net.world.host_mut(net.client).app_mut(0).unwrap().add(Job::fetch(2_000).at(from));
        let mut dropped = 0;
        net.tap_down(Box::new(move |view, d| {
            if view.now_us >= from && dropped < 2 && inspect::has(&d.bytes, FrameKind::Stream) {
                dropped += 1;
                return Verdict::Drop;
            }
            Verdict::Pass
        }));
        net.run_until_done(from + 5 * S);
        assert!(net.server_stats().unwrap().ptos >= 1);
        let probes = net.server_watch.with(FrameKind::ImmediateAck);
        assert_eq!(!probes.is_empty(), sparse, "{probes:?}");
        net.finish();
    }
}
