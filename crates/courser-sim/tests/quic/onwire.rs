//! What an observer of the wire sees: counts of frames, streams in packets, padding, tokens, versions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use courser_core::engine::RetryPolicy;
use courser_core::ids::{Level, StreamId, Version};
use courser_core::spans::{FrameKind, FrameSet};
use courser_core::wire::frame::Frame;
use courser_core::wire::header::{self, Header};
use courser_sim::quic::{Job, Net, NetConfig, inspect};
use courser_sim::script::Verdict;
use courser_sim::{Datagram, Duplex, LinkConfig, addr};

use crate::support::{Capture, MS, S, plain};

/// Every kind of frame.
const KINDS: [FrameKind; 27] = [
    FrameKind::Padding,
    FrameKind::Ping,
    FrameKind::Ack,
    FrameKind::ResetStream,
    FrameKind::StopSending,
    FrameKind::Crypto,
    FrameKind::NewToken,
    FrameKind::Stream,
    FrameKind::MaxData,
    FrameKind::MaxStreamData,
    FrameKind::MaxStreamsBidi,
    FrameKind::MaxStreamsUni,
    FrameKind::DataBlocked,
    FrameKind::StreamDataBlocked,
    FrameKind::StreamsBlockedBidi,
    FrameKind::StreamsBlockedUni,
    FrameKind::NewConnectionId,
    FrameKind::RetireConnectionId,
    FrameKind::PathChallenge,
    FrameKind::PathResponse,
    FrameKind::ConnectionClose,
    FrameKind::ApplicationClose,
    FrameKind::HandshakeDone,
    FrameKind::Datagram,
    FrameKind::AckFrequency,
    FrameKind::ImmediateAck,
    FrameKind::ResetStreamAt,
];

#[test]
fn packets_counted_by_kind_of_frame_are_those_of_a_capture() {
    // LS-PARS-07
    let link = Duplex::symmetric(LinkConfig::new().rate(50_000_000).queue_bytes(60_000).delay_us(10 * MS).loss(0.02));
    let config = NetConfig::new(1, link)
        .settings(|s| {
            (s.stream_window, s.stream_window_max) = (20_000, 20_000);
            (s.conn_window, s.conn_window_max) = (30_000, 30_000);
            (s.max_streams_bidi, s.max_streams_uni) = (4, 4);
        })
        .keep()
        .jobs((0..20).map(|i| if i % 2 == 0 { Job::exchange(30_000, 30_000) } else { Job::send(30_000) }));
    let mut net = Net::new(config);
    let (up, down) = (Capture::default(), Capture::default());
    net.tap_up(up.tap());
    net.tap_down(down.tap());
    net.run_until_done(60 * S);
    let mut kinds = 0;
    for (watch, capture) in [(&net.client_watch, &up), (&net.server_watch, &down)] {
        let seen: Vec<_> = capture.datagrams().iter().flat_map(|d| inspect::packets(d)).collect();
        let notes = watch.notes();
        assert_eq!(notes.len(), seen.len());
        for kind in KINDS {
            let counted = notes.iter().filter(|n| n.frames.contains(kind)).count();
            let captured = seen.iter().filter(|p| p.frames.contains(kind)).count();
            assert_eq!(counted, captured, "{kind:?}");
            kinds += usize::from(captured > 0);
        }
    }
    assert!(kinds >= 24, "{kinds} kinds in both directions");
}

/// Streams of each packet with STREAM frames.
fn streams_of(d: &Datagram) -> Vec<usize> {
    let mut counts = Vec::new();
    for (_, frames) in inspect::frames_of(&d.bytes) {
        let mut ids: Vec<StreamId> =
            frames.iter().filter_map(|f| if let Frame::Stream { id, .. } = f { Some(*id) } else { None }).collect();
        ids.dedup();
        counts.extend((!ids.is_empty()).then_some(ids.len()));
    }
    counts
}

#[test]
fn a_lost_packet_of_bulk_data_hits_one_stream() {
    // OSSL-SCH-05, OSSL-SCH-08: ten streams at once; every fiftieth packet is lost.
    let link = Duplex::symmetric(LinkConfig::new().rate(50_000_000).queue_bytes(200_000).delay_us(10 * MS));
    let config = NetConfig::new(1, link).jobs((0..10).map(|_| Job::send(300_000)));
    let mut net = Net::new(config);
    let lost = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut n) = (lost.clone(), 0);
    net.tap_up(Box::new(move |_, d| {
        let streams = streams_of(d);
        n += streams.len();
        if streams.is_empty() || n % 50 != 0 {
            return Verdict::Pass;
        }
        seen.lock().unwrap().extend(streams);
        Verdict::Drop
    }));
    net.run_until_done(60 * S);
    let lost = lost.lock().unwrap().clone();
    let average = lost.iter().sum::<usize>() as f64 / lost.len() as f64;
    assert!(lost.len() > 30 && average < 1.1, "{average} streams in each of {} lost packets", lost.len());
    net.finish();
}

#[test]
fn window_frames_come_before_a_sender_stalls() {
    // OSSL-TXP-16: an application that reads at once; half of a window covers what is in flight and a loss.
    let link = Duplex::symmetric(LinkConfig::new().rate(20_000_000).queue_bytes(100_000).delay_us(10 * MS));
    let config = NetConfig::new(1, link)
        .settings(|s| (s.stream_window, s.conn_window) = (1_000_000, 1_500_000))
        .keep()
        .job(Job::send(8_000_000));
    let mut net = Net::new(config);
    net.run_until_done(20 * S);
    for kind in [FrameKind::MaxData, FrameKind::MaxStreamData] {
        assert!(net.server_watch.with(kind).len() >= 2, "{kind:?}");
    }
    for kind in [FrameKind::DataBlocked, FrameKind::StreamDataBlocked] {
        assert_eq!(net.client_watch.with(kind), [], "the sender never lacked credit");
    }
    net.finish();
}

/// The token of an Initial.
fn token(datagram: &[u8]) -> Option<Vec<u8>> {
    match header::decode(datagram, 8) {
        Ok(Header::Initial(long)) => Some(long.token.to_vec()),
        _ => None,
    }
}

#[test]
fn the_token_of_a_retry_is_in_every_later_initial() {
    // OSSL-PKT-02: the ClientHello takes two datagrams, and the server's first answers are lost, so that there are many.
    let mut config = NetConfig::new(1, plain())
        .engine(|e| e.server.as_mut().unwrap().retry = RetryPolicy::Always)
        .job(Job::exchange(500, 500));
    config.hello_len = 1_700;
    let mut net = Net::new(config);
    let (up, retries) = (Capture::default(), Arc::new(Mutex::new(Vec::new())));
    net.tap_up(up.tap());
    let kept = retries.clone();
    net.tap_down(Box::new(move |v, d| {
        if let Ok(Header::Retry { token, .. }) = header::decode(&d.bytes, 8) {
            kept.lock().unwrap().push(token.to_vec());
            return Verdict::Pass;
        }
        if v.now_us < 900 * MS { Verdict::Drop } else { Verdict::Pass }
    }));
    net.run_until_done(20 * S);
    let given = retries.lock().unwrap()[0].clone();
    let tokens: Vec<_> = up.datagrams().iter().filter_map(|d| token(d)).collect();
    let first = tokens.iter().position(|t| *t == given).unwrap();
    assert!(!given.is_empty() && tokens[..first].iter().all(Vec::is_empty), "none before the Retry");
    assert!(tokens[first..].iter().all(|t| *t == given) && tokens.len() - first >= 5, "{} Initials", tokens.len());
    net.finish();
}

#[test]
fn datagrams_with_an_initial_have_1200_bytes_and_padding_not_one_more() {
    //= rfc9001#9.3-1 type=test
    // OSSL-PKT-01, OSSL-PKT-12, OSSL-TXP-24, OSSL-TXP-25, OSSL-TXP-26: also when more would fit, and under loss.
    //= rfc9000#14.1-1 type=test
    //= rfc9000#14.1-2 type=test
    let (mut padded, mut elsewhere, mut full) = (0, 0, 0);
    for (payload, certificate_len, loss) in
        [(1_200, 600, 0.0), (1_350, 600, 0.0), (1_350, 2_500, 0.0), (1_350, 2_500, 0.3)]
    {
        for seed in 0..4 {
            let link = Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(loss));
            let mut config = NetConfig::new(seed, link)
                .settings(|s| {
                    (s.initial_udp_payload, s.handshake_timeout) = (payload, std::time::Duration::from_secs(60))
                })
                .job(Job::exchange(500, 500));
            config.tls.certificate_len = certificate_len;
            let mut net = Net::new(config);
            let (up, down) = (Capture::default(), Capture::default());
            net.tap_up(up.tap());
            net.tap_down(down.tap());
            net.run_until_done(60 * S);
            for (datagram, client) in
                up.datagrams().iter().map(|d| (d, true)).chain(down.datagrams().iter().map(|d| (d, false)))
            {
                let packets = inspect::packets(datagram);
                let Some(initial) = packets.iter().find(|p| p.level == Level::Initial) else { continue };
                if !client && !initial.frames.is_ack_eliciting() {
                    continue;
                }
                assert!(datagram.len() >= 1_200, "{} bytes", datagram.len());
                let last = packets.last().unwrap();
                if last.frames.contains(FrameKind::Padding) {
                    assert_eq!(datagram.len(), 1_200, "padding ends at the minimum");
                    padded += 1;
                    elsewhere += usize::from(last.level != Level::Initial);
                }
                full += usize::from(datagram.len() == usize::from(payload) && payload > 1_200);
                // A lone PING gets the byte that header protection wants to sample.
                let bare = |f: &FrameSet| !f.contains(FrameKind::Padding) || f.contains(FrameKind::Ping);
                assert!(packets[..packets.len() - 1].iter().all(|p| bare(&p.frames)));
            }
            net.finish();
        }
    }
    assert!(padded > 20 && elsewhere > 4 && full > 4, "{padded} padded, {elsewhere} in another packet, {full} full");
}

#[test]
fn packets_of_bulk_data_have_no_padding() {
    // OSSL-PRI-13: padding stands in handshakes, probes of the datagram size, and packets too short to be sealed.
    let link = Duplex::symmetric(LinkConfig::new().rate(100_000_000).queue_bytes(400_000).delay_us(10 * MS));
    let mut net = Net::new(NetConfig::new(1, link).keep().job(Job::fetch(3_000_000)));
    net.run_until_done(20 * S);
    let stats = net.server_stats().unwrap();
    let data = net.server_watch.with(FrameKind::Stream);
    assert!(
        data.len() > 2_000 && data.iter().all(|n| !n.frames.contains(FrameKind::Padding)),
        "{} packets",
        data.len()
    );
    for n in net.server_watch.with(FrameKind::Padding).iter().filter(|n| n.level == Level::OneRtt) {
        let probe = n.frames.contains(FrameKind::Ping) && n.size > 1_200;
        assert!(probe || n.size < 40, "{n:?} with datagrams of {}", stats.mtu);
    }
    net.finish();
}

#[test]
fn version_negotiation_lists_versions_of_the_ietf_alone() {
    // LS-PARS-13: clients that speak what came before.
    //= rfc9368#2.1-1 type=test
    for old in [*b"Q043", *b"Q046", *b"Q050", *b"T051"] {
        let mut net = Net::new(NetConfig::new(1, plain()));
        let answers = Capture::default();
        net.tap_down(answers.tap());
        let mut bytes = vec![0xc0];
        bytes.extend(old);
        bytes.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
        bytes.resize(1_200, 0);
        net.world.inject(net.client, Datagram::new(addr::client(0), addr::server(0), bytes));
        net.run_until(S);
        let answers = answers.datagrams();
        let [answer] = &answers[..] else { panic!("{} answers", answers.len()) };
        let Ok(Header::VersionNegotiation { versions, .. }) = header::decode(answer, 8) else {
            panic!("{answer:02x?}")
        };
        let listed: BTreeMap<Version, bool> = versions.map(|v| (v, v.0 & 0x0f0f_0f0f == 0x0a0a_0a0a)).collect();
        let real: Vec<Version> = listed.iter().filter(|v| !v.1).map(|v| *v.0).collect();
        assert_eq!(real, [Version::V1, Version::V2], "beside at most a version that keeps the list open: {listed:?}");
        assert_eq!(net.server().engine.connections(), 0);
    }
}
