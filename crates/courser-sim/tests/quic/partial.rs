//! Resets that still deliver the beginning of a stream, over networks that lose and reorder.

use courser_core::error::ApiMisuse;
use courser_core::ids::{Dir, Level, StreamId};
use courser_core::protect::null::{NullTlsClient, told_by};
use courser_core::spans::FrameKind;
use courser_core::stream::WriteError;
use courser_sim::quic::{Job, Net, NetConfig, Provider};
use courser_sim::{Duplex, LinkConfig};

use crate::frames::content;
use crate::support::{MS, S, plain};

/// What is known of one stream of the client.
struct Stream {
    id: StreamId,
    written: u64,
    /// The lowest promise; zero after a full reset, and when the server stopped the stream.
    promised: u64,
    stopped: bool,
}

const STREAMS: u64 = 60;

/// Opens the next stream and writes to it.
fn begin(net: &mut Net, n: u64) -> Stream {
    let key = net.client_key();
    let engine = &mut net.world.host_mut(net.client).engine;
    let id = engine.open_stream(key, Dir::Uni).unwrap().unwrap();
    let len = 8 + n * 7_919 % 60_000;
    let written = engine.write(key, id, &content(id, len as usize)).unwrap() as u64;
    Stream { id, written, promised: written, stopped: false }
}

/// The life of a stream: reset after 0 to 30 ms, perhaps again with a lower promise, perhaps stopped by the server.
fn go_on(net: &mut Net, n: u64, age: u64, s: &mut Stream) {
    let (key, peer) = (net.client_key(), net.server_key());
    if n % 9 == 4 && age == 3 && net.server().engine.stream_stats(peer).is_ok() {
        // The server may not have heard of the stream; then it stops nothing.
        s.stopped = net.world.host_mut(net.server).engine.stop_sending(peer, s.id, 9).is_ok();
    }
    let engine = &mut net.world.host_mut(net.client).engine;
    let mut reset = |s: &mut Stream, reliable: u64| {
        s.promised = reliable;
        // Gone when everything arrived, or the server stopped it.
        let done = engine.reset_at(key, s.id, 7, reliable);
        assert!(matches!(done, Ok(()) | Err(WriteError::Misuse(ApiMisuse::UnknownStream))), "{done:?}");
    };
    match (age, n % 4) {
        (at, _) if at == n % 4 => reset(s, s.written - n * 31 % s.written),
        (5, 1) => reset(s, s.promised.div_ceil(3)),
        (6, 2) => reset(s, (s.promised / 2).max(1)),
        (9, 2) if n.is_multiple_of(3) => reset(s, 0),
        _ => {}
    }
}

#[test]
fn nothing_below_the_promise_is_lost_and_nothing_hangs() {
    //= reset-stream-at#5-1, reset-stream-at#5-2, reset-stream-at#5.2-1 type=test
    for seed in 0..6 {
        let link = LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(20 * MS);
        let link = Duplex::symmetric(link.loss(0.05).reorder(0.05, 40 * MS));
        let config = NetConfig::new(seed, link).settings(|s| s.max_streams_uni = 20).job(Job::send(1_000)).keep();
        let mut net = Net::new(config);
        net.run_until_done(20 * S);
        let mut all: Vec<(u64, Stream)> = Vec::new();
        let mut step = 0;
        while all.len() < STREAMS as usize || all.iter().any(|(begun, _)| step - begun < 12) {
            let room = net.client().engine.open_room(net.client_key(), Dir::Uni).unwrap();
            if all.len() < STREAMS as usize && room > 0 {
                let stream = begin(&mut net, all.len() as u64);
                all.push((step, stream));
            }
            for (n, (begun, stream)) in all.iter_mut().enumerate() {
                go_on(&mut net, n as u64, step - *begun, stream);
            }
            step += 1;
            let until = net.world.now_us() + 10 * MS;
            net.run_until(until);
            assert!(net.world.now_us() < 100 * S, "streams do not end");
        }
        let told = |s: &Stream, net: &Net| net.server().app(0).unwrap().report.resets.get(&s.id).copied();
        for (_, s) in all.iter().filter(|(_, s)| !s.stopped) {
            let limit = net.world.now_us() + 20 * S;
            net.run_until_true(limit, |_, server| server.app(0).unwrap().report.resets.contains_key(&s.id));
            let read = told(s, &net).unwrap();
            assert!(read >= s.promised && read <= s.written, "{:?}: {} <= {read} <= {}", s.id, s.promised, s.written);
        }
        let (key, peer) = (net.client_key(), net.server_key());
        let limit = net.world.now_us() + 20 * S;
        net.run_until_true(limit, |client, server| {
            let open = |host: &courser_sim::quic::QuicHost, key| host.engine.stream_stats(key).unwrap().open;
            open(client, key) == 0 && open(server, peer) == 0
        });
        // Told once of each stream whose promise arrived, unless it was given up after all or stopped.
        let delivered = &net.client().app(0).unwrap().report.delivered;
        let kept = |s: &Stream| s.promised > 0 && !s.stopped;
        for (_, s) in &all {
            let told = delivered.iter().filter(|id| **id == s.id).count();
            assert!(told <= 1 && (told == 1 || !kept(s)), "{:?} was told {told} times", s.id);
        }
        assert!(net.client_watch.with(FrameKind::ResetStreamAt).len() > 30, "most promises are made");
        assert_eq!(net.client().engine.pool_stats().in_use + net.server().engine.pool_stats().in_use, 0);
        net.finish();
    }
}

#[test]
fn a_promise_can_be_made_in_early_data_and_holds_when_that_is_rejected() {
    //= reset-stream-at#3-2 type=test
    for (accept, still) in [(true, true), (false, true), (false, false)] {
        let mut config = NetConfig::new(3, plain()).job(Job::fetch(10)).keep();
        let settings = config.client.clone();
        let client = NullTlsClient { remembered: Some(told_by(&settings)), ..NullTlsClient::default() };
        config.client_provider = Some(Provider::null_client(3, client));
        config.tls.accept_early_data = accept;
        config.server.reset_stream_at = still;
        let mut net = Net::new(config);
        net.run_until(1);
        let key = net.client_key();
        let engine = &mut net.world.host_mut(net.client).engine;
        let id = engine.open_stream(key, Dir::Uni).unwrap().unwrap();
        engine.write(key, id, &content(id, 600)).unwrap();
        engine.reset_at(key, id, 7, 400).unwrap();
        net.run_until_done(10 * S);
        net.run_until(net.world.now_us() + S);
        let early = net.client_watch.with(FrameKind::ResetStreamAt).iter().any(|p| p.level == Level::ZeroRtt);
        assert!(early, "the frame leaves in 0-RTT packets");
        let expected = if still { 400 } else { 0 };
        assert_eq!(net.server().app(0).unwrap().report.resets.get(&id), Some(&expected), "{accept} {still}");
        net.finish();
    }
}

#[test]
fn a_peer_that_does_not_take_the_frame_gets_none() {
    for offered in [true, false] {
        let mut config = NetConfig::new(3, plain()).job(Job::fetch(10)).keep();
        config.server.reset_stream_at = offered;
        let mut net = Net::new(config);
        net.run_until_done(10 * S);
        let (key, peer) = (net.client_key(), net.server_key());
        let engine = &mut net.world.host_mut(net.client).engine;
        let id = engine.open_stream(key, Dir::Uni).unwrap().unwrap();
        engine.write(key, id, &content(id, 600)).unwrap();
        let refused = Err(WriteError::Misuse(ApiMisuse::NotNegotiated));
        assert_eq!(engine.reset_at(key, id, 7, 400), if offered { Ok(()) } else { refused });
        assert_eq!(engine.reset_at(key, id, 7, 601).is_ok(), offered, "raising a promise changes nothing");
        assert_eq!(engine.reset_at(key, id, 7, 0), Ok(()), "giving everything up is understood by all");
        // Each direction for itself: the client took part.
        let engine = &mut net.world.host_mut(net.server).engine;
        let back = engine.open_stream(peer, Dir::Uni).unwrap().unwrap();
        engine.write(peer, back, &content(back, 600)).unwrap();
        assert_eq!(engine.reset_at(peer, back, 8, 601), Err(WriteError::Misuse(ApiMisuse::NotWritten)));
        assert_eq!(engine.reset_at(peer, back, 8, 600), Ok(()));
        net.run_until(net.world.now_us() + S);
        assert_eq!(net.client().app(0).unwrap().report.resets.get(&back), Some(&600));
        net.finish();
    }
}
