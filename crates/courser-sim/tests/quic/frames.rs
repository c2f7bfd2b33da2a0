//! What happens to each kind of frame when its packet is lost, and what leaves when.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use courser_core::ids::{Dir, Level, StreamId};
use courser_core::spans::FrameKind;
use courser_core::wire::frame::Frame;
use courser_sim::quic::{Job, Net, NetConfig, inspect, pattern};
use courser_sim::script::{TapView, Verdict};
use courser_sim::{Datagram, Duplex, LinkConfig};

use crate::support::{MS, S, plain};

/// What an application writes to a stream of its own when it wants nothing back.
pub fn content(id: StreamId, len: usize) -> Vec<u8> {
    let mut all = vec![0; 8];
    while all.len() < len {
        all.extend_from_slice(pattern(id, all.len() as u64, (len - all.len()).min(1 << 16)));
    }
    all.truncate(len);
    all
}

/// A frame of the kind that is looked at, in the order of sending.
struct Sent {
    up: bool,
    lost: bool,
    /// What it is about: the stream, or the level.
    about: u64,
    /// The value that may grow, or the range of bytes.
    range: (u64, u64),
    /// The frame itself.
    text: String,
}

fn sent(level: Level, frame: &Frame<'_>, up: bool, lost: bool) -> Sent {
    let of = |about: u64, from: u64, len: usize| (about, (from, from + len as u64));
    let (about, range) = match frame {
        Frame::Stream { id, offset, data, .. } => of(id.0, *offset, data.len()),
        Frame::Crypto { offset, data } => of(level as u64, *offset, data.len()),
        Frame::MaxData { max: value } | Frame::MaxStreams { max: value, .. } => of(0, *value, 0),
        Frame::DataBlocked { limit: value } | Frame::StreamsBlocked { limit: value, .. } => of(0, *value, 0),
        Frame::MaxStreamData { id, max: value } | Frame::StreamDataBlocked { id, limit: value } => of(id.0, *value, 0),
        _ => of(0, 0, 0),
    };
    Sent { up, lost, about, range, text: format!("{frame:?}") }
}

/// A run with every kind of frame; the first three packets with `kind` are lost in each direction. Gives all of its frames.
fn lose(kind: FrameKind) -> (Vec<Sent>, Net) {
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
    let log = Arc::new(Mutex::new(Vec::new()));
    let tap = |up| {
        let (all, mut mine) = (log.clone(), 0);
        move |_: &mut TapView<'_>, d: &mut Datagram| {
            let lost = mine < 3 && inspect::has(&d.bytes, kind);
            mine += usize::from(lost);
            for (level, frames) in inspect::frames_of(&d.bytes) {
                let frames = frames.iter().filter(|f| f.kind() == kind);
                all.lock().unwrap().extend(frames.map(|f| sent(level, f, up, lost)));
            }
            if lost { Verdict::Drop } else { Verdict::Pass }
        }
    };
    net.tap_up(Box::new(tap(true)));
    net.tap_down(Box::new(tap(false)));
    net.establish(10 * S);
    let (key, peer) = (net.client_key(), net.server_key());
    net.run_until_done(120 * S);
    let host = net.world.host_mut(net.client);
    // A stream that is reset, one that is reset partly, one that the server stops, a datagram and a PING.
    let reset = host.engine.open_stream(key, Dir::Uni).unwrap().unwrap();
    host.engine.write(key, reset, &content(reset, 100)).unwrap();
    let stopped = host.engine.open_stream(key, Dir::Bi).unwrap().unwrap();
    host.engine.write(key, stopped, &content(stopped, 100)).unwrap();
    let partly = host.engine.open_stream(key, Dir::Uni).unwrap().unwrap();
    host.engine.write(key, partly, &content(partly, 100)).unwrap();
    host.engine.send_datagram(key, Bytes::from_static(b"datagram"), None).unwrap();
    let at = net.world.now_us() + S;
    net.run_until(at);
    net.world.host_mut(net.client).engine.reset(key, reset, 9).unwrap();
    net.world.host_mut(net.client).engine.reset_at(key, partly, 9, 50).unwrap();
    if net.server().engine.send_room(peer, stopped).is_ok() {
        // The stream came, unless the packet with it is among the lost ones for longer than this.
        let _ = net.world.host_mut(net.server).engine.stop_sending(peer, stopped, 7);
    }
    for _ in 0..4 {
        net.world.host_mut(net.client).engine.ping(key).unwrap();
        net.run_until(net.world.now_us() + 2 * S);
    }
    let log = std::mem::take(&mut *log.lock().unwrap());
    (log, net)
}

/// What follows a lost frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The same frame, until it arrives.
    Same,
    /// A frame of its kind with the newest value, and never an older one.
    Newest,
    /// The same, as long as it is true.
    NewestIfTrue,
    /// Frames with all of its bytes, cut anew.
    Ranges,
    /// Another one whenever there is a reason of its own.
    Anew,
    /// None.
    Never,
}

const RULES: &[(FrameKind, Rule)] = &[
    (FrameKind::HandshakeDone, Rule::Same),
    (FrameKind::NewConnectionId, Rule::Same),
    (FrameKind::NewToken, Rule::Same),
    (FrameKind::ResetStream, Rule::Same),
    //= reset-stream-at#4-5 type=test
    (FrameKind::ResetStreamAt, Rule::Same),
    (FrameKind::StopSending, Rule::Same),
    (FrameKind::MaxData, Rule::Newest),
    (FrameKind::MaxStreamsBidi, Rule::Newest),
    (FrameKind::MaxStreamsUni, Rule::Newest),
    (FrameKind::MaxStreamData, Rule::NewestIfTrue),
    (FrameKind::DataBlocked, Rule::NewestIfTrue),
    (FrameKind::StreamDataBlocked, Rule::NewestIfTrue),
    (FrameKind::StreamsBlockedBidi, Rule::NewestIfTrue),
    (FrameKind::StreamsBlockedUni, Rule::NewestIfTrue),
    (FrameKind::Crypto, Rule::Ranges),
    (FrameKind::Stream, Rule::Ranges),
    (FrameKind::Ack, Rule::Anew),
    (FrameKind::Ping, Rule::Anew),
    (FrameKind::Padding, Rule::Anew),
    (FrameKind::Datagram, Rule::Never),
];

/// Whether the frames that passed have all bytes of that one.
fn is_covered(lost: &Sent, log: &[Sent]) -> bool {
    let mut at = lost.range.0;
    let passed = |s: &&Sent| !s.lost && s.up == lost.up && s.about == lost.about;
    while at < lost.range.1 {
        let Some(next) = log.iter().filter(passed).find(|s| s.range.0 <= at && at < s.range.1) else { return false };
        at = next.range.1;
    }
    true
}

fn check_rule(kind: FrameKind, rule: Rule, log: &[Sent]) {
    let lost = log.iter().filter(|s| s.lost).count();
    assert!(lost > 0, "{kind:?} was never sent");
    match rule {
        Rule::Never => assert_eq!((log.len(), lost), (1, 1), "{kind:?} is never sent again"),
        _ => assert!(log.len() > lost, "{kind:?}: {} sent, {lost} lost", log.len()),
    }
    for (at, frame) in log.iter().enumerate().filter(|s| s.1.lost) {
        let mut later = log[at + 1..].iter().filter(|s| s.up == frame.up && s.about == frame.about);
        match rule {
            Rule::Same => assert!(later.any(|s| !s.lost && s.text == frame.text), "{} does not come again", frame.text),
            Rule::Newest => {
                assert!(later.any(|s| !s.lost && s.range >= frame.range), "{} is not made up for", frame.text)
            }
            Rule::Ranges => assert!(is_covered(frame, log), "{kind:?} {:?} does not come again", frame.range),
            Rule::NewestIfTrue | Rule::Anew | Rule::Never => {}
        }
    }
    if matches!(rule, Rule::Newest | Rule::NewestIfTrue) {
        let mut newest = std::collections::BTreeMap::new();
        for frame in log {
            let before = newest.insert((frame.up, frame.about), frame.range.0);
            assert!(before.is_none_or(|b| b <= frame.range.0), "{} after {before:?}", frame.text);
        }
    }
}

#[test]
fn a_lost_frame_of_each_kind_is_made_up_for_by_its_rule() {
    // OSSL-FIFM-01 to 04, 07 to 09: seen on the wire between two engines.
    for &(kind, rule) in RULES {
        let (log, mut net) = lose(kind);
        check_rule(kind, rule, &log);
        let server = &net.server().app(0).unwrap().report;
        assert!(server.broken >= 1 && net.client().app(0).unwrap().report.broken == 1, "{kind:?}: {server:?}");
        net.finish();
    }
}

#[test]
fn a_rule_that_is_broken_is_noticed() {
    let frame = |lost: bool, about, from: u64, to: u64| {
        let text = format!("{about} {from} {to}");
        Sent { up: true, lost, about, range: (from, to), text }
    };
    let broken = |rule, log: Vec<Sent>| std::panic::catch_unwind(|| check_rule(FrameKind::Ping, rule, &log)).is_err();
    assert!(broken(Rule::Same, vec![]), "never sent");
    assert!(broken(Rule::Same, vec![frame(true, 1, 5, 5), frame(false, 1, 6, 6)]), "another content");
    assert!(broken(Rule::Newest, vec![frame(true, 1, 5, 5), frame(false, 1, 4, 4)]), "an older value");
    assert!(broken(Rule::NewestIfTrue, vec![frame(true, 1, 5, 5), frame(false, 1, 4, 4)]), "an older value");
    assert!(broken(Rule::Ranges, vec![frame(true, 1, 0, 9), frame(false, 1, 0, 5), frame(false, 1, 6, 9)]), "a hole");
    assert!(!broken(Rule::Ranges, vec![frame(true, 1, 0, 9), frame(false, 1, 0, 5), frame(false, 1, 5, 20)]));
    assert!(broken(Rule::Never, vec![frame(true, 1, 0, 0), frame(false, 1, 0, 0)]), "repeated");
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
