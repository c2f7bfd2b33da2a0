//! What happens to each kind of frame when its packet is lost, and what leaves when.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};
use courser_core::spans::FrameKind;
use courser_sim::quic::{Job, Net, NetConfig, inspect, pattern};
use courser_sim::script::{TapView, Verdict};
use courser_sim::{Datagram, Duplex, LinkConfig};

use crate::support::{MS, S, plain};

/// What an application writes to a stream of its own when it wants nothing back.
fn content(id: StreamId, len: usize) -> Vec<u8> {
    let mut all = vec![0; 8];
    while all.len() < len {
        all.extend_from_slice(pattern(id, all.len() as u64, (len - all.len()).min(1 << 16)));
    }
    all.truncate(len);
    all
}

/// A run with every kind of frame; the first three packets with `kind` are lost in each direction. Returns how many.
fn lose(kind: FrameKind) -> (usize, Net) {
    let link = Duplex::symmetric(LinkConfig::new().rate(50_000_000).queue_bytes(200_000).delay_us(10 * MS));
    let config = NetConfig::new(1, link)
        .settings(|s| {
            (s.stream_window, s.stream_window_max) = (20_000, 20_000);
            (s.conn_window, s.conn_window_max) = (30_000, 30_000);
            (s.max_streams_bidi, s.max_streams_uni) = (4, 4);
        })
        .keep()
        .jobs((0..30).map(|i| if i / 6 % 2 == 0 { Job::exchange(50_000, 50_000) } else { Job::send(30_000) }));
    let mut net = Net::new(config);
    let dropped = Arc::new(Mutex::new(0));
    let tap = || {
        let (all, mut mine) = (dropped.clone(), 0);
        move |_: &mut TapView<'_>, d: &mut Datagram| {
            if mine < 3 && inspect::has(&d.bytes, kind) {
                mine += 1;
                *all.lock().unwrap() += 1;
                return Verdict::Drop;
            }
            Verdict::Pass
        }
    };
    net.tap_up(Box::new(tap()));
    net.tap_down(Box::new(tap()));
    net.establish(10 * S);
    let (key, peer) = (net.client_key(), net.server_key());
    net.run_until_done(120 * S);
    let host = net.world.host_mut(net.client);
    // A stream that is reset, one that the server stops, a datagram and a PING.
    let reset = host.engine.open_stream(key, Dir::Uni).unwrap().unwrap();
    host.engine.write(key, reset, &content(reset, 100)).unwrap();
    let stopped = host.engine.open_stream(key, Dir::Bi).unwrap().unwrap();
    host.engine.write(key, stopped, &content(stopped, 100)).unwrap();
    host.engine.send_datagram(key, Bytes::from_static(b"datagram")).unwrap();
    let at = net.world.now_us() + S;
    net.run_until(at);
    net.world.host_mut(net.client).engine.reset(key, reset, 9).unwrap();
    if net.server().engine.send_room(peer, stopped).is_ok() {
        // The stream came, unless the packet with it is among the lost ones for longer than this.
        let _ = net.world.host_mut(net.server).engine.stop_sending(peer, stopped, 7);
    }
    for _ in 0..4 {
        net.world.host_mut(net.client).engine.ping(key).unwrap();
        net.run_until(net.world.now_us() + 2 * S);
    }
    let n = *dropped.lock().unwrap();
    (n, net)
}

#[test]
fn a_lost_frame_of_each_kind_is_made_up_for() {
    /// Whether a lost one is followed by another.
    const REPEATED: &[(FrameKind, bool)] = &[
        (FrameKind::Crypto, true),
        (FrameKind::HandshakeDone, true),
        (FrameKind::MaxData, true),
        (FrameKind::DataBlocked, true),
        (FrameKind::MaxStreamsBidi, true),
        (FrameKind::MaxStreamsUni, true),
        (FrameKind::StreamsBlockedBidi, true),
        (FrameKind::StreamsBlockedUni, true),
        (FrameKind::NewConnectionId, true),
        (FrameKind::NewToken, true),
        (FrameKind::Ack, true),
        (FrameKind::ResetStream, true),
        (FrameKind::StopSending, true),
        (FrameKind::MaxStreamData, true),
        (FrameKind::StreamDataBlocked, true),
        (FrameKind::Stream, true),
        (FrameKind::Ping, true),
        (FrameKind::Padding, true),
        (FrameKind::Datagram, false),
    ];
    for &(kind, repeated) in REPEATED {
        let (dropped, mut net) = lose(kind);
        assert!(dropped > 0, "{kind:?} was never sent");
        let sent = net.client_watch.with(kind).len() + net.server_watch.with(kind).len();
        if repeated {
            assert!(sent > dropped, "{kind:?}: {sent} sent, {dropped} lost");
        } else {
            assert_eq!((sent, dropped), (1, 1), "{kind:?} is never sent again");
        }
        let server = &net.server().app(0).unwrap().report;
        assert!(server.broken >= 1 && net.client().app(0).unwrap().report.broken == 1, "{kind:?}: {server:?}");
        net.finish();
    }
}

/// An established connection with a fresh one-way stream of the client.
fn with_stream() -> (Net, StreamId) {
    let mut net = Net::new(NetConfig::new(1, plain()).job(Job::send(100)).keep());
    net.run_until(S);
    let key = net.client_key();
    let id = net.world.host_mut(net.client).engine.open_stream(key, Dir::Uni).unwrap().unwrap();
    (net, id)
}

fn stream_packets(net: &Net, from_us: u64) -> Vec<u64> {
    net.client_watch.with(FrameKind::Stream).iter().filter(|n| n.at_us >= from_us).map(|n| n.at_us).collect()
}

#[test]
fn a_hundred_small_writes_are_one_packet() {
    let (mut net, id) = with_stream();
    let key = net.client_key();
    for ten in content(id, 1_000).chunks(10) {
        assert_eq!(net.world.host_mut(net.client).engine.write(key, id, ten), Ok(10));
    }
    net.run_until(2 * S);
    assert_eq!(stream_packets(&net, S), [S]);
    net.finish();
}

#[test]
fn a_corked_byte_waits_and_a_flushed_one_leaves_at_once() {
    let (mut net, id) = with_stream();
    let key = net.client_key();
    let host = net.world.host_mut(net.client);
    host.engine.cork(key, id, true).unwrap();
    host.engine.write(key, id, &content(id, 1)).unwrap();
    net.run_until(2 * S);
    assert_eq!(stream_packets(&net, S), Vec::<u64>::new());
    net.world.host_mut(net.client).engine.flush(key, id).unwrap();
    net.run_until(3 * S);
    assert_eq!(stream_packets(&net, S), [2 * S]);
    // A full packet does not wait for a flush; what is left does.
    net.world.host_mut(net.client).engine.write(key, id, &content(id, 2_001)[1..]).unwrap();
    net.run_until(4 * S);
    assert_eq!(stream_packets(&net, 3 * S).len(), 1);
    net.world.host_mut(net.client).engine.cork(key, id, false).unwrap();
    net.run_until(5 * S);
    assert_eq!(stream_packets(&net, 3 * S).len(), 2);
    net.finish();
}

#[test]
fn after_a_reset_nothing_of_the_stream_leaves() {
    for lose_first in [false, true] {
        let (mut net, id) = with_stream();
        let key = net.client_key();
        if lose_first {
            net.tap_up(Box::new(|v, _| if v.now_us < S + 30 * MS { Verdict::Drop } else { Verdict::Pass }));
        }
        let taken = net.world.host_mut(net.client).engine.write(key, id, &content(id, 500_000)).unwrap();
        assert!(taken > 100_000);
        net.run_until(S + 5 * MS);
        assert!(!stream_packets(&net, S).is_empty());
        net.world.host_mut(net.client).engine.reset(key, id, 1).unwrap();
        net.run_until(20 * S);
        assert_eq!(stream_packets(&net, S + 5 * MS), Vec::<u64>::new());
        assert_eq!(net.server().app(0).unwrap().report.broken, 1);
        assert_eq!(net.client().engine.pool_stats().in_use, 0, "the data is freed before the connection ends");
        net.finish();
    }
}

#[test]
fn all_acknowledged_means_that_closing_loses_nothing() {
    for seed in 0..10 {
        let link =
            Duplex::symmetric(LinkConfig::new().rate(10_000_000).queue_bytes(30_000).delay_us(10 * MS).loss(0.1));
        let mut config = NetConfig::new(seed, link).job(Job::send(100_000));
        config.app.close_when_done = true;
        let mut net = Net::new(config);
        net.run_until_done(60 * S);
        assert_eq!(net.server().app(0).unwrap().report.bytes_in, 100_000);
        net.run_until(200 * S);
        net.assert_empty();
    }
}

#[test]
fn an_urgent_stream_overtakes_bulk() {
    let link = Duplex::symmetric(LinkConfig::new().rate(10_000_000).queue_bytes(25_000).delay_us(10 * MS));
    let mut net = Net::new(NetConfig::new(1, link).job(Job::send(10_000_000)).keep());
    net.run_until(S);
    let key = net.client_key();
    let host = net.world.host_mut(net.client);
    let id = host.engine.open_stream(key, Dir::Bi).unwrap().unwrap();
    let urgent = courser_core::stream::Priority { urgency: 0, ..Default::default() };
    host.engine.set_priority(key, id, urgent).unwrap();
    // A request for five bytes of the pattern.
    host.engine.write(key, id, &5u64.to_be_bytes()).unwrap();
    host.engine.finish(key, id).unwrap();
    let ends = net.server().app(0).unwrap().report.ends;
    net.run_until_true(S + 200 * MS, |_, s| s.app(0).unwrap().report.ends > ends);
}
