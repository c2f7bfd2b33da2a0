//! Extensions: how often packets are acknowledged, bits that anybody on the path sees, and datagrams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use courser_core::conn::ConnStats;
use courser_core::error::ApiMisuse;
use courser_core::ids::Level;
use courser_core::spans::{Fate, FrameKind};
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
        assert!(acks * 3 < all.ack_frames, "{acks} ACKs for {packets} packets instead of {}", all.ack_frames);
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
        assert!(after * 100 <= before * 105, "{name}: {after} us instead of {before}");
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

/// First bytes of packets: when they left, at which level, upwards or downwards.
type FirstBytes = Arc<Mutex<Vec<(u64, Level, bool, u8)>>>;

/// A download of a megabyte whose first bytes are noted; `run` ends it.
fn with_first_bytes(config: NetConfig) -> Vec<(u64, Level, bool, u8)> {
    let mut net = Net::new(config.job(Job::fetch(1_000_000)));
    let seen = FirstBytes::default();
    for up in [true, false] {
        let note = seen.clone();
        let tap: courser_sim::script::Tap = Box::new(move |view, d| {
            let packets = inspect::packets(&d.bytes);
            let first = |p: inspect::Packet| (view.now_us, p.level, up, d.bytes[p.at.start]);
            note.lock().unwrap().extend(packets.into_iter().map(first));
            Verdict::Pass
        });
        if up { net.tap_up(tap) } else { net.tap_down(tap) }
    }
    net.run_until_done(60 * S);
    net.finish();
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn the_spin_bit_turns_over_once_per_round_trip_on_most_paths() {
    //= rfc9000#17.4-3 type=test
    let turns = |seed: u64, spin: bool, up: bool| {
        let link = Duplex::symmetric(LinkConfig::new().rate(10_000_000).queue_bytes(20_000).delay_us(20 * MS));
        let seen = with_first_bytes(NetConfig::new(seed, link).settings(|s| s.spin = spin));
        let of = |s: &&(u64, Level, bool, u8)| s.1 == Level::OneRtt && s.2 == up;
        let bits: Vec<_> = seen.iter().filter(of).map(|s| (s.0, s.3 & 0x20)).collect();
        let took = bits.last().unwrap().0 - bits[0].0;
        let turns = bits.windows(2).filter(|w| w[0].1 != w[1].1).count() as u64;
        // A round trip is 40 ms, and up to 16 ms in the queue.
        (turns, took / (58 * MS)..=took / (40 * MS) + 1, bits.len() as u64)
    };
    let (mut spinning, mut quiet) = (0, 0);
    for seed in 0..48 {
        let (count, expected, packets) = turns(seed, true, seed % 2 == 0);
        if expected.contains(&count) {
            spinning += 1;
        } else {
            // Random bits of one end or of both: many more packets differ from the one before.
            assert!(
                count > 2 * expected.end() && count < packets * 3 / 5,
                "{seed}: {count} of {packets}, {expected:?}"
            );
            quiet += 1;
        }
    }
    // A bit turns over only where both ends take part: the other end's random bits come back otherwise.
    assert!(spinning >= 36 && quiet >= 1, "{spinning} spin, {quiet} do not");
    //= rfc9000#17.4-2 type=test
    for up in [false, true] {
        let (count, expected, packets) = turns(1, false, up);
        assert!(!expected.contains(&count) && (packets * 2 / 5..=packets * 3 / 5).contains(&count));
    }
}

#[test]
fn the_quic_bit_is_random_between_ends_that_offered_it_once_they_know() {
    //= rfc9287#3.1-1 type=test
    //= rfc9287#3.1-3 type=test
    //= rfc9287#3.1-5 type=test
    for (client, server) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut config = NetConfig::new(3, plain());
        (config.client.grease, config.server.grease) = (client, server);
        let seen = with_first_bytes(config);
        let cleared = |up: bool| seen.iter().filter(|s| s.2 == up && s.3 & 0x40 == 0).count();
        if !(client && server) {
            assert_eq!((cleared(true), cleared(false)), (0, 0), "{client} {server}");
            continue;
        }
        for up in [false, true] {
            let of: Vec<_> = seen.iter().filter(|s| s.2 == up && s.1 == Level::OneRtt).collect();
            assert!((of.len() / 3..=of.len() * 2 / 3).contains(&cleared(up)), "{} of {}", cleared(up), of.len());
        }
    }
}

#[test]
fn no_earlier_connection_tells_whether_the_quic_bit_may_be_cleared() {
    //= rfc9287#3.1-2 type=test
    //= rfc9287#3.1-4 type=test
    for seed in 0..20 {
        let seen = with_first_bytes(NetConfig::new(seed, plain()));
        // The server's parameters arrive with its first flight; until then the client knows nothing.
        let heard = seen.iter().find(|s| !s.2).unwrap().0 + 10 * MS;
        let before = seen.iter().filter(|s| s.2 && s.0 < heard);
        assert!(before.clone().count() > 0 && before.clone().all(|s| s.3 & 0x40 != 0), "{seed}");
    }
}

/// A datagram that says its number.
fn numbered(number: u64, len: usize) -> Bytes {
    let mut bytes = vec![number as u8; len];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

/// What the server has received: how often each number came.
fn read_all(net: &mut Net, got: &mut BTreeMap<u64, u32>) {
    let key = net.server_key();
    while let Some(data) = net.world.host_mut(net.server).engine.read_datagram(key).unwrap() {
        let number = u64::from_be_bytes(*data.first_chunk().unwrap());
        assert!(data[8..].iter().all(|b| *b == number as u8), "{number} came as it was sent");
        *got.entry(number).or_default() += 1;
    }
}

#[test]
fn each_datagram_has_one_fate_and_those_told_as_acknowledged_came_once() {
    let base = || link(20, 20 * MS);
    let paths = [
        ("clean", base()),
        ("loss", base().loss(0.05)),
        ("reordering", base().reorder(0.05, 40 * MS)),
        ("everything", base().loss(0.05).reorder(0.05, 40 * MS).duplicate(0.05)),
    ];
    for (name, link) in paths {
        let mut net = Net::new(NetConfig::new(6, Duplex::symmetric(link)).job(Job::fetch(1_000)));
        net.run_until_done(20 * S);
        let (key, start) = (net.client_key(), net.world.now_us());
        let (mut fates, mut got) = (BTreeMap::<u64, Fate>::new(), BTreeMap::new());
        for step in 0..4_000 {
            net.run_until(start + step * 2 * MS);
            let engine = &mut net.world.host_mut(net.client).engine;
            let (number, len) = (step / 5, 8 + (step * 37 % 1_100) as usize);
            if number < 500 && step % 5 == 0 {
                // Every third one is sent without a tag, and nothing is told of it.
                let tag = (number % 3 != 2).then_some(9_000 + number);
                assert_eq!(engine.send_datagram(key, numbered(number, len), tag), Ok(true));
            }
            while let Some((tag, fate)) = engine.poll_datagram_fate(key).unwrap() {
                assert_eq!(fates.insert(tag - 9_000, fate), None, "{name}: {tag} has one fate");
            }
            read_all(&mut net, &mut got);
        }
        let asked = (0..500).filter(|n| n % 3 != 2);
        assert!(fates.keys().copied().eq(asked), "{name}: each one that was asked for, and no other");
        assert!(got.values().all(|n| *n == 1), "{name}: none is repeated");
        let came = |number: &u64| got.contains_key(number);
        let of = |wanted: Fate| fates.iter().filter(move |f| *f.1 == wanted).map(|f| f.0);
        assert!(of(Fate::Acked).all(came), "{name}");
        // One that came and is told as lost: its acknowledgement came after the verdict, or never.
        let (lost, late) = (of(Fate::Lost).count(), of(Fate::Lost).filter(|n| came(n)).count());
        assert_eq!(lost == 0, name == "clean", "{name}: {lost} were lost");
        assert!(
            match name {
                "clean" => late == 0,
                "loss" => late <= lost / 3,
                "reordering" => late == lost,
                _ => late > 0 && late < lost,
            },
            "{name}: {late} of {lost} losses were false"
        );
        assert!(net.client().app(0).unwrap().report.datagram_fates > 100, "{name}: the application is told");
        net.finish();
    }
}

#[test]
fn a_full_queue_of_datagrams_pushes_back_and_the_window_holds() {
    //= rfc9221#5.4-1 type=test
    let mut net = Net::new(NetConfig::new(1, Duplex::symmetric(link(5, 20 * MS))).job(Job::fetch(1_000)));
    net.run_until_done(20 * S);
    let (key, mut got, mut next, mut refused) = (net.client_key(), BTreeMap::new(), 0, 0);
    for _ in 0..100 {
        let engine = &mut net.world.host_mut(net.client).engine;
        while engine.send_datagram(key, numbered(next, 1_000), None).unwrap() {
            next += 1;
        }
        refused += 1;
        let until = net.world.now_us() + 20 * MS;
        net.run_until(until);
        read_all(&mut net, &mut got);
    }
    // Two seconds at 5 Mbit/s are 1.25 MB, and 256 KiB wait.
    assert!((1_000..1_600).contains(&next) && refused == 100, "{next} were taken");
    // Half of the queue is 210 ms: whoever was refused hears of room when that much is free, and not each time.
    let told = net.client().app(0).unwrap().report.datagram_room;
    assert_eq!(told, 0, "it was filled up before half of it was free");
    net.run_until(net.world.now_us() + S);
    assert_eq!(net.client().app(0).unwrap().report.datagram_room, 1);
    assert_eq!(net.client().overshoot, 0, "datagrams wait for the congestion window");
    assert!(got.len() > 900, "{} came", got.len());
    net.finish();
}

#[test]
fn a_datagram_is_no_larger_than_the_peer_takes() {
    //= rfc9000#19.21-1 type=test
    //= rfc9221#3-1 type=test
    //= rfc9221#3-2 type=test
    for (limit, expected) in [(0, None), (60, Some(58)), (300, Some(297)), (65_535, Some(1_000))] {
        let mut config = NetConfig::new(1, plain()).job(Job::fetch(1_000));
        config.server.max_datagram_frame = limit;
        let mut net = Net::new(config);
        net.run_until_done(20 * S);
        let key = net.client_key();
        let engine = &mut net.world.host_mut(net.client).engine;
        let most = engine.datagram_max(key).unwrap();
        match expected {
            None => {
                assert_eq!(most, None);
                assert_eq!(engine.send_datagram(key, numbered(0, 8), None), Err(ApiMisuse::NotNegotiated));
            }
            Some(least) => {
                let most = most.unwrap();
                assert!(if limit < 1_000 { most == least } else { most > least }, "{most}");
                assert_eq!(engine.send_datagram(key, numbered(0, most + 1), None), Err(ApiMisuse::TooLarge));
                assert_eq!(engine.send_datagram(key, numbered(0, most), None), Ok(true));
                let mut got = BTreeMap::new();
                let until = net.world.now_us() + S;
                net.run_until(until);
                read_all(&mut net, &mut got);
                assert_eq!(got.len(), 1, "the peer took it");
            }
        }
        net.finish();
    }
}

#[test]
fn the_largest_datagrams_leave_beside_bulk_both_ways() {
    for seed in 0..3 {
        let link = Duplex::symmetric(link(5, 20 * MS).loss(0.01));
        let config = NetConfig::new(seed, link).jobs([Job::exchange(2_000_000, 10), Job::fetch(2_000_000)]).keep();
        let mut net = Net::new(config);
        net.establish(10 * S);
        net.run_until(net.world.now_us() + S);
        let (key, mut got) = (net.client_key(), BTreeMap::new());
        for number in 0..50 {
            let engine = &mut net.world.host_mut(net.client).engine;
            let largest = engine.datagram_max(key).unwrap().unwrap();
            assert_eq!(engine.send_datagram(key, numbered(number, largest), None), Ok(true));
            let until = net.world.now_us() + 40 * MS;
            net.run_until(until);
            read_all(&mut net, &mut got);
        }
        assert!(!net.client().is_done(), "the bulk goes on");
        assert!(got.len() >= 40, "{seed}: only {} of 50 came within two seconds", got.len());
        net.run_until_done(60 * S);
        net.finish();
    }
}
