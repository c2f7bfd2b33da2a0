//! Rules of packets and datagrams that hold in every run, seen on the wire under loss and reordering.

use std::collections::BTreeMap;
use std::time::Duration;

use courser_core::engine::RetryPolicy;
use courser_core::error::CloseReason;
use courser_core::ids::{Cid, Level, StreamId, Version};
use courser_core::spans::{FrameKind, FrameSet};
use courser_core::wire::frame::Frame;
use courser_core::wire::header::{self, Header};
use courser_sim::quic::{Job, Net, NetConfig, Pace, QuicHost, inspect};
use courser_sim::script::Verdict;
use courser_sim::{Duplex, LinkConfig};

use crate::support::{Capture, MS, S, plain};

/// Loss of 5 % and reordering.
fn bad(delay_ms: u64) -> Duplex {
    let link = LinkConfig::new().rate(20_000_000).queue_bytes(60_000).delay_us(delay_ms * MS);
    Duplex::symmetric(link.loss(0.05).reorder(0.05, 8 * MS))
}

/// Runs of every kind of handshake, with what both ends sent.
fn runs() -> Vec<(Net, [Capture; 2])> {
    let mut runs = Vec::new();
    for (seed, kind) in (0..12).zip([0, 1, 2, 3].into_iter().cycle()) {
        let mut config = NetConfig::new(seed, bad(10)).keep().jobs([Job::exchange(60_000, 60_000), Job::send(90_000)]);
        config.tls.certificate_len = 3_000;
        config.hello_len = if kind == 1 { 1_700 } else { 0 };
        config = match kind {
            2 => config.engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always),
            3 => config
                .settings(|s| (s.versions, s.initial_version) = (vec![Version::V2, Version::V1], Some(Version::V1))),
            _ => config,
        };
        let mut net = Net::new(config);
        let captures = [Capture::default(), Capture::default()];
        net.tap_up(captures[0].tap());
        net.tap_down(captures[1].tap());
        net.run_until_done(60 * S);
        let key = net.client_key();
        let now = QuicHost::instant(net.world.now_us());
        net.world.host_mut(net.client).engine.update_keys(now, key).ok();
        net.finish();
        runs.push((net, captures));
    }
    runs
}

#[test]
fn numbers_of_packets_grow_in_each_space() {
    //= rfc9000#12.3-1 type=test
    let mut packets = 0;
    for (net, _) in runs() {
        for watch in [&net.client_watch, &net.server_watch] {
            let mut last = BTreeMap::new();
            for note in watch.notes() {
                let before = last.insert((note.key.index, note.key.generation, note.level.space().index()), note.pn);
                assert!(before.is_none_or(|b| note.pn > b), "{note:?} behind {before:?}");
                packets += 1;
            }
        }
    }
    assert!(packets > 3_000, "{packets}");
}

#[test]
fn every_packet_has_a_frame() {
    //= rfc9000#12.4-1 type=test
    let mut count = 0;
    for datagram in runs().iter().flat_map(|r| r.1.each_ref()).flat_map(|c| c.datagrams()) {
        if matches!(header::decode(&datagram, 8), Ok(Header::Retry { .. })) {
            continue;
        }
        let packets = inspect::packets(&datagram);
        assert_eq!(packets.last().map(|p| p.at.end), Some(datagram.len()), "all of it is packets");
        assert!(packets.iter().all(|p| p.frames != FrameSet::EMPTY), "{packets:?}");
        count += packets.len();
    }
    assert!(count > 3_000, "{count}");
}

/// Destination connection IDs of the packets in a datagram.
fn destinations(datagram: &[u8]) -> Vec<Cid> {
    let (mut all, mut rest) = (Vec::new(), datagram);
    while let Ok(header) = header::decode(rest, 8) {
        match (&header, header.long()) {
            (_, Some(long)) => {
                all.push(long.dcid);
                rest = &rest[long.end..];
            }
            (Header::Short { dcid, .. }, _) => {
                all.push(*dcid);
                break;
            }
            _ => break,
        }
    }
    all
}

#[test]
fn packets_of_one_datagram_have_one_destination() {
    //= rfc9000#12.2-3 type=test
    let (mut coalesced, mut changed) = (0, 0);
    for capture in runs().iter().flat_map(|r| r.1.clone()) {
        let mut seen = Vec::new();
        for datagram in capture.datagrams() {
            let all = destinations(&datagram);
            assert!(all.windows(2).all(|w| w[0] == w[1]), "{all:?}");
            coalesced += usize::from(all.len() > 1);
            seen.extend(all.first().copied());
        }
        seen.dedup();
        changed += usize::from(seen.len() > 1);
    }
    assert!(coalesced > 30 && changed >= 12, "{coalesced} datagrams, {changed} ends that changed it");
}

/// Levels and numbers of the packets, and what the ACK frames of each level report.
type Exchange = (Vec<(Level, u32)>, Vec<(Level, u64, u64)>);

fn exchange(datagrams: &[Vec<u8>]) -> Exchange {
    let (mut packets, mut acked) = (Vec::new(), Vec::new());
    for datagram in datagrams {
        packets.extend(inspect::packets(datagram).iter().map(|p| (p.level, p.pn)));
        for (level, frames) in inspect::frames_of(datagram) {
            for frame in frames {
                if let Frame::Ack(ack) = frame {
                    acked.extend(ack.ranges.map(|r| (level, r.0, r.1)));
                }
            }
        }
    }
    (packets, acked)
}

#[test]
fn packets_of_one_datagram_are_acknowledged_each_in_its_own_space() {
    //= rfc9000#12.2-5 type=test
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::exchange(500, 500)));
    let (up, down) = (Capture::default(), Capture::default());
    net.tap_up(up.tap());
    net.tap_down(down.tap());
    net.run_until_done(5 * S);
    // The server's first datagram and the client's answer to it.
    let first = &down.datagrams()[0];
    let levels: Vec<_> = inspect::packets(first).iter().map(|p| p.level).collect();
    assert!(levels.starts_with(&[Level::Initial, Level::Handshake]), "{levels:?}");
    let (_, acked) = exchange(&up.datagrams());
    for packet in inspect::packets(first) {
        let pn = u64::from(packet.pn);
        let told = acked.iter().any(|(level, first, last)| *level == packet.level && (*first..=*last).contains(&pn));
        assert!(told, "{packet:?} in {acked:?}");
    }
    net.finish();
}

#[test]
fn nobody_resets_a_stream_but_its_application() {
    //= rfc9000#11.2-1 type=test
    let resets = |net: &Net| {
        net.client_watch.with(FrameKind::ResetStream).len() + net.server_watch.with(FrameKind::ResetStream).len()
    };
    // A bad path, small windows, a slow reader; then the connection ends while streams are open: closed, or idle.
    for (seed, closed) in [(1, false), (2, true), (3, false), (4, true)] {
        let config = NetConfig::new(seed, bad(10))
            .settings(|s| {
                (s.stream_window, s.stream_window_max) = (20_000, 20_000);
                (s.conn_window, s.conn_window_max) = (30_000, 30_000);
                s.idle_timeout = Duration::from_secs(5);
            })
            .server_pace(Pace::Every { bytes: 3_000, us: 40 * MS })
            .keep()
            .jobs((0..6).map(|_| Job::exchange(300_000, 300_000)));
        let mut net = Net::new(config);
        net.run_until(4 * S);
        assert!(!net.client().is_done());
        if closed {
            let key = net.client_key();
            net.world.host_mut(net.client).engine.close(QuicHost::instant(4 * S), key, 7, b"").unwrap();
        } else {
            net.tap_up(Box::new(|_, _| Verdict::Drop));
            net.tap_down(Box::new(|_, _| Verdict::Drop));
        }
        net.run_until(60 * S);
        assert_eq!(net.client().engine.connections(), 0);
        assert_eq!((resets(&net), net.client_reason() == Some(CloseReason::IdleTimeout)), (0, !closed));
    }
    // The application can.
    let mut net = Net::new(NetConfig::new(1, plain()).keep().job(Job::send(5_000_000)));
    net.run_until(100 * MS);
    let key = net.client_key();
    net.world.host_mut(net.client).engine.reset(key, StreamId(2), 5).unwrap();
    net.run_until(S);
    assert_eq!(resets(&net), 1);
}
