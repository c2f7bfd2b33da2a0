//! Floods: whatever a peer sends, and however much of it, memory and answers stay within limits, and others are not
//! harmed. Memory is counted by the allocator itself.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::net::SocketAddr;
use core::time::Duration;

use courser_core::config::Settings;
use courser_core::crypto::KeyFactory;
use courser_core::engine::{Engine, EngineStats, RetryPolicy};
use courser_core::ids::{Cid, Dir, Level, ResetToken, Side, StreamId, Version};
use courser_core::protect::null::{NullKeys, NullTlsServer};
use courser_core::stream::Read;
use courser_core::wire::Writer;
use courser_core::wire::frame::{Frame, write_ack};
use courser_core::wire::header::{self, Header, LongSpec};
use courser_testing::alloc::{Counting, count};
use courser_testing::duo::{Duo, null_server};
use courser_testing::rig::{Plan, Rig, Stage, encode};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An Initial with null keys, as a client would send it first, in a datagram of `len` bytes.
fn initial(version: Version, dcid: &Cid, payload: &[u8], token: &[u8], len: usize) -> Vec<u8> {
    initial_from(version, dcid, &cid(9), payload, token, len)
}

fn initial_from(version: Version, dcid: &Cid, scid: &Cid, payload: &[u8], token: &[u8], len: usize) -> Vec<u8> {
    let mut packet = vec![0; len.max(200 + payload.len() + token.len())];
    let mut w = Writer::new(&mut packet);
    let spec = LongSpec { level: Level::Initial, version, dcid, scid, token, pn: 0, pn_len: 4 };
    let layout = header::write_long(&mut w, &spec).unwrap();
    w.bytes(payload).unwrap();
    let end = w.len() + 16;
    packet.truncate(end);
    header::patch_length(&mut packet, layout, end).unwrap();
    NullKeys.initial(version, dcid, Side::Client).seal.seal(0, &mut packet, layout.head(), &[]).unwrap();
    packet.resize(len, 0);
    packet
}

fn cid(n: u64) -> Cid {
    Cid::new(&n.to_be_bytes()).unwrap()
}

fn from(n: usize) -> SocketAddr {
    SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::from(0x0b00_0000 + n as u32)), 5000)
}

/// A confirmed connection to a server that also serves an honest client.
fn beside_a_friend() -> Rig {
    Rig::new(Plan { friend: true, ..Plan::new(Side::Server, Stage::Confirmed) })
}

/// Runs a flood and holds that the engine under test keeps no more than `limit` bytes of it, and that the honest
/// connection still works.
#[track_caller]
fn flood(rig: &mut Rig, limit: i64, mut run: impl FnMut(&mut Rig)) {
    // Lists that grow once are no leak: the first run is a warm-up.
    let ((), counts) = count(|| {
        run(rig);
        rig.events = Vec::new();
    });
    assert!(counts.live <= limit, "the flood left {} bytes, {limit} are allowed", counts.live);
    assert!(rig.friend_gets_through(200_000), "the honest connection is harmed");
}

#[test]
fn initials_with_random_names_make_no_more_handshakes_than_allowed() {
    let mut rig = Rig::new(Plan {
        server: |part| part.handshakes_max = 10,
        friend: true,
        ..Plan::new(Side::Server, Stage::Confirmed)
    });
    let before = rig.victim.stats();
    // A ClientHello of another connection would do as well: the first CRYPTO bytes are enough to hold state.
    let payload = encode(&[Frame::Crypto { offset: 0, data: &[1, 0, 4, 0, 3, 3] }]);
    flood(&mut rig, 200 << 10, |rig| {
        for n in 0..1000 {
            let mut datagram = initial(Version::V1, &cid(0x1000 + n), &payload, &[], 1200);
            rig.deliver_from(from(n as usize), &mut datagram);
        }
        let _ = rig.collect();
    });
    let after = rig.victim.stats();
    assert_eq!((after.accepted, after.minis - before.minis), (before.accepted, 10), "no connection for half a hello");
    assert_eq!(after.gate_handshakes - before.gate_handshakes, 990);
    assert_eq!(rig.victim.connections(), 12);
    rig.pass(Duration::from_secs(11));
    assert_eq!(rig.victim.connections(), 2, "half-open connections end with the handshake's time");
    assert_eq!(rig.victim.stats().minis_expired, 10);
    assert_eq!(rig.victim.pool_stats().in_use, 0);
}

#[test]
fn closed_connections_keep_their_last_datagram_and_their_names() {
    const CONNECTIONS: usize = 400;
    let mut duo = Duo::null(&Settings::default());
    duo.connect(&Settings::default());
    let polled = |duo: &mut Duo| {
        duo.round();
        while duo.client.poll_event().is_some() {}
        while duo.server.poll_event().is_some() {}
    };
    let (keys, open) = count(|| {
        let keys: Vec<_> = (0..CONNECTIONS).map(|_| duo.connect(&Settings::default()).1).collect();
        (0..10).for_each(|_| polled(&mut duo));
        keys
    });
    let ((), closed) = count(|| {
        keys.iter().for_each(|key| duo.server.close(duo.now, *key, 7, b"enough").unwrap());
        (0..10).for_each(|_| polled(&mut duo));
    });
    assert_eq!((duo.server.connections(), duo.client.connections()), (CONNECTIONS + 1, CONNECTIONS + 1));
    assert!(duo.server.conn_stats(keys[0]).is_err(), "there is no connection any more");
    let (open, left) = (open.live / CONNECTIONS as i64, (open.live + closed.live) / CONNECTIONS as i64);
    println!("a pair of ends takes {open} bytes when open and {left} when closed");
    // The list of keys above, slots of tables, routes and timers are part of it.
    assert!(left <= 2 * 640, "{left} bytes");
    duo.now += Duration::from_secs(2);
    (0..3).for_each(|_| polled(&mut duo));
    assert_eq!((duo.server.connections(), duo.client.connections()), (1, 1));
    assert_eq!(duo.server.stats().ended, CONNECTIONS as u64);
}

#[test]
fn streams_that_are_opened_and_reset_leave_nothing() {
    let mut rig = beside_a_friend();
    let mut next = 0;
    let mut round = |rig: &mut Rig, streams: u64| {
        for _ in 0..streams / 8 {
            let mut payload = Vec::new();
            for _ in 0..8 {
                let id = StreamId::new(Side::Client, Dir::Uni, next);
                next += 1;
                payload.extend(encode(&[
                    Frame::Stream { id, offset: 3, data: b"x", fin: false, length_present: true },
                    Frame::ResetStream { id, code: 1, final_size: 9 },
                ]));
            }
            let seen = rig.inject(Level::OneRtt, &payload);
            assert_eq!(seen.close, None);
            while let Ok(Some(id)) = rig.victim.accept_stream(rig.key, Dir::Uni) {
                let _ = rig.victim.read(rig.key, id, &mut [0; 10]);
            }
            rig.acknowledge();
            rig.now += Duration::from_millis(1);
        }
    };
    round(&mut rig, 1000);
    flood(&mut rig, 16 << 10, |rig| round(rig, 20_000));
    assert_eq!(rig.victim.pool_stats().in_use, 0);
}

#[test]
fn promises_that_are_lowered_byte_by_byte_hold_no_more_than_they_promise() {
    let mut rig = beside_a_friend();
    let mut next = 0;
    let mut round = |rig: &mut Rig, streams: u64| {
        for _ in 0..streams {
            let id = StreamId::new(Side::Client, Dir::Uni, next);
            next += 1;
            // Every other byte, so that there are as many ranges as can be.
            for at in 0..20 {
                let part = |n: u64| Frame::Stream {
                    id,
                    offset: 40 * at + 2 * n,
                    data: b"x",
                    fin: false,
                    length_present: true,
                };
                let parts: Vec<Frame<'_>> = (0..20).map(part).collect();
                assert_eq!(rig.inject_frames(Level::OneRtt, &parts).close, None);
            }
            for reliable in (0..40_u64).rev() {
                let lower =
                    |n: u64| Frame::ResetStreamAt { id, code: 1, final_size: 800, reliable_size: 20 * reliable + n };
                let frames: Vec<Frame<'_>> = (0..20).rev().map(lower).collect();
                assert_eq!(rig.inject_frames(Level::OneRtt, &frames).close, None);
            }
            while let Ok(Some(id)) = rig.victim.accept_stream(rig.key, Dir::Uni) {
                let mut out = [0; 1000];
                while let Ok(Read::Bytes(_)) = rig.victim.read(rig.key, id, &mut out) {}
            }
            rig.acknowledge();
            rig.now += Duration::from_millis(1);
        }
    };
    round(&mut rig, 20);
    flood(&mut rig, 16 << 10, |rig| round(rig, 200));
    assert_eq!(rig.victim.pool_stats().in_use, 0);
}

#[test]
fn challenges_are_answered_four_at_a_time() {
    let mut rig = beside_a_friend();
    let mut sent = 0;
    flood(&mut rig, 16 << 10, |rig| {
        for batch in 0..50u64 {
            for n in 0..100u64 {
                rig.give(Level::OneRtt, &encode(&[Frame::PathChallenge((batch * 100 + n).to_be_bytes())]));
            }
            sent += rig.collect().datagrams.len();
            rig.acknowledge();
        }
    });
    assert!(sent <= 50 * 6, "{sent} datagrams");
}

#[test]
fn connection_ids_that_are_issued_and_retired_again_and_again_are_bounded() {
    let mut rig = beside_a_friend();
    let mut closed = None;
    flood(&mut rig, 24 << 10, |rig| {
        for n in 1..5000u64 {
            let token = ResetToken(core::array::from_fn(|i| (n >> (8 * (i % 8))) as u8));
            let frame = Frame::NewConnectionId { sequence: 10 + n, retire_prior_to: 10 + n, cid: cid(n), token };
            // Nothing is acknowledged, so the retirements pile up.
            let seen = rig.inject(Level::OneRtt, &encode(&[frame]));
            closed = closed.take().or(seen.close);
        }
    });
    assert_eq!(closed.map(|c| c.code), Some(0x9), "CONNECTION_ID_LIMIT_ERROR");
}

#[test]
fn retired_connection_ids_are_replaced_at_a_slow_rate() {
    let mut rig = beside_a_friend();
    let mut issued = 0;
    flood(&mut rig, 24 << 10, |rig| {
        for sequence in 1..200u64 {
            let seen = rig.inject(Level::OneRtt, &encode(&[Frame::RetireConnectionId { sequence }]));
            issued += seen.datagrams.len();
            if seen.close.is_some() {
                break;
            }
            rig.acknowledge();
        }
    });
    assert!(issued < 60, "{issued}");
    assert!(rig.victim.route_count() < 40);
}

/// A packet's worth of one-byte frames at these offsets of stream 0.
fn fragments(offsets: impl Iterator<Item = u64>) -> Vec<u8> {
    let byte = |at: u64| [(at * 31 % 251) as u8];
    let mut payload = [0; 1150];
    let mut w = Writer::new(&mut payload);
    for offset in offsets {
        let data = &byte(offset);
        Frame::Stream { id: StreamId(0), offset, data, fin: false, length_present: true }.encode(&mut w).unwrap();
    }
    w.written().to_vec()
}

/// One-byte frames that the forger packs together; eight bytes each.
const FRAGMENTS: u64 = 140;

#[test]
fn a_million_fragments_that_leave_gaps_everywhere_are_refused() {
    let mut rig = beside_a_friend();
    let mut code = None;
    flood(&mut rig, 700 << 10, |rig| {
        for n in (0..1_000_000).step_by(FRAGMENTS as usize) {
            let at = |n: u64| 1 + 2 * (n * 7919 % 130_000);
            rig.give(Level::OneRtt, &fragments((n..n + FRAGMENTS).map(at)));
            if n % 1400 == 0 {
                code = code.or(rig.collect().code());
            }
        }
    });
    assert_eq!(code, Some(0xa), "so many gaps are no accident");
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.victim.pool_stats().in_use, 0);
}

#[test]
fn a_million_fragments_in_disorder_hold_no_more_than_the_window_and_are_put_in_order() {
    // LS-STRM-29: blocks of 2,000 bytes whose bytes come in disorder, and nobody reads before all are there.
    const WINDOW: usize = 1 << 20;
    const BYTES: u64 = 1_000_000;
    let mut settings = Settings::default();
    (settings.stream_window, settings.stream_window_max) = (WINDOW as u64, WINDOW as u64);
    (settings.conn_window, settings.conn_window_max) = (2 * WINDOW as u64, 2 * WINDOW as u64);
    let mut rig = Rig::new(Plan { friend: true, settings, ..Plan::new(Side::Server, Stage::Confirmed) });
    let mut most = 0;
    flood(&mut rig, (WINDOW + (64 << 10)) as i64, |rig| {
        let at = |n: u64| n / 2000 * 2000 + n % 2000 * 1213 % 2000;
        for n in (0..BYTES).step_by(FRAGMENTS as usize) {
            rig.give(Level::OneRtt, &fragments((n..BYTES.min(n + FRAGMENTS)).map(at)));
            if n % 1400 == 0 {
                assert_eq!(rig.collect().code(), None);
                rig.acknowledge();
                most = most.max(rig.victim.pool_stats().in_use_bytes);
            }
        }
        assert_eq!(rig.collect().code(), None);
    });
    assert!((900_000..=WINDOW + 2 * 4096).contains(&most), "{most} bytes were held");
    assert_eq!(rig.victim.accept_stream(rig.key, Dir::Bi), Ok(Some(StreamId(0))));
    let mut bytes = vec![0; BYTES as usize + 1];
    assert_eq!(rig.victim.read(rig.key, StreamId(0), &mut bytes), Ok(Read::Bytes(BYTES as usize)));
    bytes.pop();
    assert!(bytes.iter().copied().eq((0..BYTES).map(|at| (at * 31 % 251) as u8)));
    assert_eq!(rig.victim.pool_stats().in_use, 0);
}

#[test]
fn gaps_in_packet_numbers_cost_a_fixed_amount() {
    let mut rig = beside_a_friend();
    flood(&mut rig, 24 << 10, |rig| {
        for n in 0..20_000u64 {
            rig.next_pn[2] += 1;
            rig.give(Level::OneRtt, &[0x01]);
            if n % 100 == 0 {
                let seen = rig.collect();
                assert!(seen.bytes() <= 3000, "{} bytes", seen.bytes());
            }
        }
    });
}

#[test]
fn a_batch_of_pings_gets_one_acknowledgement() {
    let mut rig = beside_a_friend();
    flood(&mut rig, 8 << 10, |rig| {
        for _ in 0..20 {
            for _ in 0..1000 {
                rig.give(Level::OneRtt, &[0x01; 30]);
            }
            let sent = rig.collect().datagrams.len();
            assert!(sent <= 2, "{sent} datagrams");
            rig.acknowledge();
        }
    });
}

#[test]
fn limits_that_are_raised_and_complaints_about_limits_cost_nothing() {
    let mut rig = beside_a_friend();
    flood(&mut rig, 8 << 10, |rig| {
        for n in 0..5000u64 {
            let payload = encode(&[
                Frame::MaxData { max: n << 30 },
                Frame::MaxStreams { dir: Dir::Bi, max: n << 30 },
                Frame::MaxStreams { dir: Dir::Uni, max: n },
                Frame::MaxStreamData { id: StreamId(0), max: n },
                Frame::DataBlocked { limit: n },
                Frame::StreamsBlocked { dir: Dir::Uni, limit: n },
                Frame::StreamDataBlocked { id: StreamId(2), limit: n },
                Frame::PathResponse(n.to_be_bytes()),
            ]);
            let sent = rig.inject(Level::OneRtt, &payload);
            assert_eq!(sent.close, None);
            assert!(sent.datagrams.len() <= 2);
            rig.acknowledge();
        }
    });
}

#[test]
fn datagrams_that_nobody_reads_are_dropped() {
    let mut rig = beside_a_friend();
    flood(&mut rig, 512 << 10, |rig| {
        for _ in 0..5000 {
            rig.give(Level::OneRtt, &encode(&[Frame::Datagram { data: &[7; 1000], length_present: true }]));
        }
        let _ = rig.collect();
    });
}

#[test]
fn packets_that_wait_for_keys_are_few() {
    let mut rig = Rig::new(Plan { friend: true, ..Plan::new(Side::Server, Stage::Handshake) });
    flood(&mut rig, 64 << 10, |rig| {
        for _ in 0..1000 {
            let packet = rig.forge(Level::OneRtt, &[0; 60_000]);
            rig.give_packet(Level::OneRtt, packet);
        }
        let _ = rig.collect();
    });
}

#[test]
fn connections_that_wait_for_a_decision_hold_little() {
    let mut rig = Rig::new(Plan {
        server: |part| {
            part.ask = true;
            part.handshakes_max = 20;
        },
        ..Plan::new(Side::Client, Stage::Initial)
    });
    let mut config = null_server(3, NullTlsServer::default(), &Settings::default());
    if let Some(part) = &mut config.server {
        part.ask = true;
        part.handshakes_max = 20;
    }
    let mut engine = Engine::new(config);
    core::mem::swap(&mut rig.victim, &mut engine);
    let ((), counts) = count(|| {
        for n in 0..20u64 {
            for _ in 0..100 {
                let mut datagram = initial(Version::V1, &cid(n), &[1; 60], &[], 60_000);
                rig.deliver_from(from(1), &mut datagram);
            }
        }
    });
    assert!(counts.live <= 20 * (20 << 10), "{} bytes", counts.live);
    assert_eq!(rig.victim.connections(), 20);
}

#[test]
fn forged_packets_change_nothing() {
    let mut rig = beside_a_friend();
    flood(&mut rig, 1 << 10, |rig| {
        for n in 0..5000usize {
            let mut packet = rig.forge(Level::OneRtt, &[0x1c; 40]);
            let at = 9 + n % (packet.len() - 9);
            packet[at] ^= 1 << (n % 8);
            rig.give_packet(Level::OneRtt, packet);
        }
        assert_eq!(rig.collect().close, None);
    });
}

/// What one datagram did to the counters, and that it allocated nothing.
#[track_caller]
fn refused(rig: &mut Rig, what: &str, mut datagram: Vec<u8>) -> EngineStats {
    let before = rig.victim.stats();
    let connections = rig.victim.connections();
    let ((), counts) = count(|| rig.deliver_from(from(77), &mut datagram));
    assert_eq!(counts.calls, 0, "{what}: a datagram that is refused allocates nothing");
    assert_eq!(rig.victim.connections(), connections, "{what}");
    let after = rig.victim.stats();
    assert_eq!(after.datagrams - before.datagrams, 1);
    difference(&after, &before)
}

fn difference(after: &EngineStats, before: &EngineStats) -> EngineStats {
    let mut d = EngineStats::default();
    d.malformed = after.malformed - before.malformed;
    d.gate_not_server = after.gate_not_server - before.gate_not_server;
    d.gate_cooldown = after.gate_cooldown - before.gate_cooldown;
    d.gate_size = after.gate_size - before.gate_size;
    d.gate_handshakes = after.gate_handshakes - before.gate_handshakes;
    d.gate_purgatory = after.gate_purgatory - before.gate_purgatory;
    d.gate_version = after.gate_version - before.gate_version;
    d.gate_retry = after.gate_retry - before.gate_retry;
    d.gate_not_authentic = after.gate_not_authentic - before.gate_not_authentic;
    d.bad_tokens = after.bad_tokens - before.bad_tokens;
    d.replies_dropped = after.replies_dropped - before.replies_dropped;
    d.accepted = after.accepted - before.accepted;
    d
}

#[test]
fn each_gate_counts_what_it_refuses_and_allocates_nothing() {
    let ok = |len| initial(Version::V1, &cid(5), &[1; 60], &[], len);
    let only = |change: fn(&mut EngineStats)| {
        let mut expected = EngineStats::default();
        change(&mut expected);
        expected
    };
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    let malformed = only(|s| s.malformed = 1);
    for len in [1, 5, 6, 7, 20] {
        let mut short = ok(1200);
        short.truncate(len);
        assert_eq!(refused(&mut rig, "a truncated long header", short), malformed, "{len}");
    }
    assert_eq!(refused(&mut rig, "a short header without its connection ID", vec![0x40; 8]), malformed);
    let mut lying = ok(1200);
    lying[24] = 0x7f;
    assert_eq!(refused(&mut rig, "a Length beyond the datagram", lying), malformed);
    let size = only(|s| s.gate_size = 1);
    //= rfc9000#14.1-3 type=test
    assert_eq!(refused(&mut rig, "an Initial in 1,199 bytes", ok(1199)), size);
    let near = initial(Version::V1, &Cid::new(&[1; 7]).unwrap(), &[1; 60], &[], 1200);
    assert_eq!(refused(&mut rig, "a connection ID of seven bytes", near), size);
    let version = only(|s| s.gate_version = 1);
    let mut unknown = ok(1200);
    unknown[1..5].copy_from_slice(&[0x1a; 4]);
    assert_eq!(refused(&mut rig, "a version that we do not speak", unknown.clone()), version);
    assert_eq!(refused(&mut rig, "the same again", unknown.clone()), version);
    unknown.truncate(1199);
    assert_eq!(refused(&mut rig, "the same in a small datagram", unknown), version);
    let replies = rig.collect().datagrams;
    //= rfc9000#5.2.2-3 type=test
    assert_eq!(replies.len(), 1, "one Version Negotiation for one peer and connection ID");
    rig.victim.set_cooldown(true);
    assert_eq!(refused(&mut rig, "an Initial during cooldown", ok(1200)), only(|s| s.gate_cooldown = 1));
    rig.victim.set_cooldown(false);
    let mut rig = Rig::at(Side::Client, Stage::Confirmed);
    assert_eq!(refused(&mut rig, "an Initial to a client", ok(1200)), only(|s| s.gate_not_server = 1));
    let mut rig =
        Rig::new(Plan { server: |s| s.retry = RetryPolicy::Always, ..Plan::new(Side::Server, Stage::Confirmed) });
    assert_eq!(refused(&mut rig, "an Initial without a token", ok(1200)), only(|s| s.gate_retry = 1));
    // One that is too long to be ours: over shorter ones null keys allocate to make a digest.
    let forged = initial(Version::V1, &cid(6), &[1; 60], &[0x55; 70], 1200);
    let refused_token = only(|s| (s.bad_tokens, s.gate_retry) = (1, 1));
    assert_eq!(refused(&mut rig, "an Initial with a token that is not ours", forged), refused_token);
    let retries = rig.collect().datagrams;
    assert_eq!(retries.len(), 2, "two Retries");
    assert!(retries.iter().all(|d| matches!(header::decode(d, 8), Ok(Header::Retry { .. }))));
    assert_eq!(rig.victim.connections(), 1, "and no state");
    // What looks well is opened before it is refused; nothing of it stays.
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    for n in 0..3 {
        let before = rig.victim.stats().gate_not_authentic;
        let mut bad = initial(Version::V1, &cid(7), &[1; 60], &[], 1200);
        bad[60] ^= 1;
        let ((), counts) = count(|| rig.deliver_from(from(77), &mut bad));
        assert_eq!(rig.victim.stats().gate_not_authentic, before + 1);
        assert_eq!((rig.victim.connections(), n == 0 || counts.live == 0), (1, true), "{counts:?}");
    }
    let mut rig = Rig::new(Plan { server: |s| s.handshakes_max = 1, ..Plan::new(Side::Server, Stage::Handshake) });
    assert_eq!(refused(&mut rig, "one handshake too many", ok(1200)), only(|s| s.gate_handshakes = 1));
}

#[test]
fn a_replay_of_the_first_initial_creates_nothing_for_thirty_seconds() {
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    rig.victim.close(rig.now, rig.key, 0, b"").unwrap();
    // LS-IN-07: thirty seconds from when the connection is gone.
    while rig.victim.connections() > 0 {
        rig.pass(Duration::from_millis(10));
    }
    assert_eq!(rig.victim.route_count(), 0);
    let (hello, gone) = (rig.hello.clone(), rig.now);
    while rig.now < gone + Duration::from_millis(29_990) {
        let stats = refused(&mut rig, "a replay", hello.clone());
        assert_eq!((stats.gate_purgatory, stats.accepted), (1, 0));
        rig.now += Duration::from_millis(500);
    }
    rig.now = gone + Duration::from_millis(30_010);
    rig.deliver(&mut hello.clone());
    assert_eq!(rig.victim.connections(), 1, "after that it is a new connection like any other");
}

#[test]
fn a_stateless_reset_is_shorter_than_what_it_answers() {
    //= rfc9000#10.3-4 type=test
    //= rfc9000#10.3-5 type=test
    //= rfc9000#10.3.3-1 type=test
    let mut rig = Rig::at(Side::Server, Stage::Confirmed);
    for len in [9, 20, 21, 22, 23, 40, 42, 43, 44, 100, 1200, 1500] {
        let mut datagram = vec![0x42; len];
        rig.deliver(&mut datagram);
        let answers = rig.collect().datagrams;
        //= rfc9000#10.3-7 type=test
        assert!(answers.iter().all(|a| a[0] >> 6 == 1), "a packet with a short header: {answers:02x?}");
        let answer: Vec<_> = answers.iter().map(Vec::len).collect();
        let expected = if len < 22 { vec![] } else { vec![(len - 1).min(42)] };
        assert_eq!(answer, expected, "to {len} bytes");
    }
}

#[test]
fn before_the_address_is_validated_three_times_as_much_goes_out_and_not_a_byte_more() {
    //= rfc9000#8.1-2 type=test
    //= rfc9000#14.1-4 type=test
    for len in [1200, 1234, 1350] {
        let mut settings = Settings::default();
        settings.mtu_discovery = false;
        let tls = NullTlsServer { certificate_len: 30_000, ..NullTlsServer::default() };
        let mut rig = Rig::new(Plan { tls, settings, ..Plan::new(Side::Server, Stage::Confirmed) });
        // The forger's hello once more, to another connection.
        let hello = rig.hello.clone();
        let fresh = cid(0x77);
        let (_, mut payload) = courser_testing::rig::packets(&hello).remove(0);
        let end = payload.iter().rposition(|b| *b != 0).unwrap() + 1;
        payload.truncate(end);
        let mut datagram = initial_from(Version::V1, &fresh, &rig.from, &payload, &[], len);
        rig.deliver_from(from(1), &mut datagram);
        let mut sent = rig.collect().bytes();
        for _ in 0..5 {
            rig.now += Duration::from_secs(1);
            sent += rig.collect().bytes();
        }
        assert_eq!(sent, 3 * len, "to {len} bytes");
        // More bytes from the client, useful or not, are worth three times as much again.
        let mut noise = initial_from(Version::V1, &fresh, &rig.from, &[0x01], &[], len);
        rig.deliver_from(from(1), &mut noise);
        let more = rig.collect().bytes();
        assert!(more <= 3 * len && more > 0, "{more}");
    }
}

#[test]
fn acknowledgements_with_many_ranges_cost_a_fixed_amount() {
    /// Packets that are sent, and the bytes that remembering one takes: half of them are never acknowledged. The list that
    /// holds them doubles when it grows.
    const PACKETS: u64 = 2000;
    const RECORD: i64 = 40;
    let mut rig = beside_a_friend();
    flood(&mut rig, PACKETS.next_power_of_two() as i64 * RECORD, |rig| {
        for n in 0..PACKETS {
            rig.victim.ping(rig.key).unwrap();
            assert_eq!(rig.collect().close, None);
            if n % 40 != 39 {
                continue;
            }
            // Every second packet, which the numbers that were skipped on purpose are not among.
            let newest: Vec<_> = rig.sent.iter().rev().flat_map(|r| (r.0..=r.1).rev().step_by(2)).take(200).collect();
            let mut bytes = [0; 1200];
            let mut w = Writer::new(&mut bytes);
            write_ack(&mut w, newest.iter().map(|n| (*n, *n)), 0, None, 1100).unwrap();
            let len = w.len();
            assert_eq!(rig.inject(Level::OneRtt, &bytes[..len]).close, None);
        }
    });
}
