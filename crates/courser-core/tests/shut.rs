//! Floods of every kind of frame by a peer that acknowledges nothing, so that whatever is said in answer piles up: memory
//! stays within what was advertised and a little, or the connection ends with the code for it.
//!
//! Twenty thousand frames of each kind; `COURSER_FLOOD` says another number, a million in the form that runs before a
//! release.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::EngineConfig;
use courser_core::ids::{ConnKey, Dir, Level, Side, StreamId};
use courser_core::observe::{Event, Interest, Observer};
use courser_core::time::Instant;
use courser_core::wire::frame::Frame;
use courser_testing::alloc::{Counting, now};
use courser_testing::kinds::{KINDS, Kind, Speaker};
use courser_testing::rig::{Plan, Rig, Stage, encode};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is advertised: the credit of the connection. Streams have as much in each.
const WINDOW: u64 = 128 << 10;
/// What this end sets aside for DATAGRAM frames that nobody reads, for which there is no credit.
const DATAGRAMS: i64 = 256 << 10;
/// What may be held beyond that.
const BEYOND: i64 = 256 << 10;
/// Frames of a packet at most, and bytes.
const PER_PACKET: (usize, usize) = (40, 1100);
/// Packets between two looks.
const BATCH: u64 = 8;

fn frames() -> u64 {
    std::env::var("COURSER_FLOOD").map_or(20_000, |v| v.parse().unwrap())
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    (settings.stream_window, settings.stream_window_max) = (WINDOW, WINDOW);
    (settings.conn_window, settings.conn_window_max) = (WINDOW, WINDOW);
    settings.ack_frequency = true;
    settings
}

/// What became of a flood.
struct Outcome {
    sent: u64,
    most: i64,
    datagrams: usize,
    code: Option<u64>,
    /// The connection went without a word, because the peer said so.
    silent: bool,
}

fn flood(victim: Side, kind: &Kind, engine: fn(&mut EngineConfig)) -> Outcome {
    let mut rig = Rig::new(Plan { settings: settings(), engine, ..Plan::new(victim, Stage::Confirmed) });
    let speaker = Speaker { side: victim.peer(), acked: rig.sent.last().map_or(0, |range| range.0) };
    let before = now().live;
    let mut outcome = Outcome { sent: 0, most: 0, datagrams: 0, code: None, silent: false };
    let wanted = frames();
    while outcome.sent < wanted && outcome.code.is_none() && !outcome.silent {
        for _ in 0..BATCH {
            let mut payload = Vec::with_capacity(1500);
            for _ in 0..PER_PACKET.0 {
                payload.extend((kind.make)(speaker, outcome.sent));
                outcome.sent += 1;
                if kind.open_ended || payload.len() > PER_PACKET.1 || outcome.sent == wanted {
                    break;
                }
            }
            rig.give(Level::OneRtt, &payload);
        }
        let seen = rig.collect();
        outcome.code = seen.code();
        outcome.datagrams += seen.datagrams.len();
        outcome.silent = seen.datagrams.is_empty() && rig.victim.conn_stats(rig.key).is_err();
        drop(seen);
        rig.events = Vec::new();
        outcome.most = outcome.most.max(now().live - before);
        rig.now += Duration::from_millis(1);
    }
    // What is left must not outlive the connection.
    for _ in 0..6 {
        rig.pass(Duration::from_secs(60));
    }
    assert_eq!((rig.victim.connections(), rig.victim.pool_stats().in_use), (0, 0), "{}", kind.name);
    outcome
}

/// Codes with which a flood of that kind may end: those that the RFCs give for too much of it, or for any of it.
fn may_end(victim: Side, kind: &Kind) -> &'static [u64] {
    match kind.frame_type {
        _ if kind.name == "nothing" || kind.name.contains("with a type of") => &[0xa],
        // Other codes and ends for a stream that has one.
        0x04 | 0x24 => &[0x5, 0x6],
        // A message that is none, or more than is kept.
        0x06 => &[0xd, 0x10a, 0x132],
        0x07 | 0x1e if victim.is_server() => &[0xa],
        0x09 | 0x0b | 0x0d | 0x0f => &[0x3, 0x6],
        // Gaps without end.
        0x0c | 0x0e => &[0xa],
        0x18 => &[0x9],
        // Numbers that were never given out.
        0x19 => &[0xa],
        0x21 | 0xfa | 0x3fff_ffff_ffff_ffff => &[0x7],
        _ => &[],
    }
}

fn judge(victim: Side, kind: &Kind, outcome: &Outcome, beyond: i64) {
    let what = format!("{} to a {victim:?}", kind.name);
    println!(
        "{what}: {} frames, {} datagrams in answer, {} KiB, closed {:x?}",
        outcome.sent,
        outcome.datagrams,
        outcome.most >> 10,
        outcome.code
    );
    let aside = if matches!(kind.frame_type, 0x30 | 0x31) { DATAGRAMS } else { WINDOW as i64 };
    assert!(outcome.most <= aside + beyond, "{what} holds {} bytes", outcome.most);
    assert_eq!(outcome.silent, matches!(kind.frame_type, 0x1c | 0x1d), "{what}");
    match outcome.code {
        Some(code) => assert!(may_end(victim, kind).contains(&code), "{what} ended with {code:#x}"),
        None => assert!(outcome.silent || outcome.sent >= frames(), "{what}"),
    }
}

#[test]
fn no_kind_of_frame_fills_memory_while_nothing_is_acknowledged() {
    for victim in [Side::Server, Side::Client] {
        for kind in KINDS {
            let outcome = flood(victim, kind, |_| {});
            judge(victim, kind, &outcome, BEYOND);
        }
    }
}

/// Every other byte of `gaps` bytes of each of that many streams; what the connection closes with.
fn fragments(rig: &mut Rig, streams: u64, gaps: u64) -> Option<u64> {
    for n in 0..streams {
        for first in (1..=gaps).step_by(40) {
            let one = |at: u64| Frame::Stream {
                id: StreamId::new(rig.side.peer(), Dir::Bi, n),
                offset: 2 * at,
                data: b"x",
                fin: false,
                length_present: true,
            };
            let payload = encode(&(first..=gaps.min(first + 39)).map(one).collect::<Vec<_>>());
            rig.give(Level::OneRtt, &payload);
        }
        if let Some(code) = rig.collect().code() {
            return Some(code);
        }
    }
    None
}

#[test]
fn gaps_of_many_streams_count_together() {
    for victim in [Side::Server, Side::Client] {
        let at = || Rig::new(Plan { settings: settings(), ..Plan::new(victim, Stage::Confirmed) });
        // Four thousand streams with one gap each come from a bad network, and so do some with many.
        let mut rig = at();
        assert_eq!(fragments(&mut rig, 128, 32), None, "4,096 gaps in 128 streams");
        // Whoever fills gaps may leave as many again.
        for n in 0..128 {
            let id = StreamId::new(victim.peer(), Dir::Bi, n);
            let whole = Frame::Stream { id, offset: 0, data: &[b'x'; 65], fin: false, length_present: true };
            assert_eq!(rig.inject_frames(Level::OneRtt, &[whole]).close, None);
        }
        for n in 0..64 {
            let id = StreamId::new(victim.peer(), Dir::Bi, n);
            let reset = Frame::ResetStream { id, code: 1, final_size: 65 };
            assert_eq!(rig.inject_frames(Level::OneRtt, &[reset]).close, None);
        }
        let mut rig = at();
        let before = now().live;
        assert_eq!(fragments(&mut rig, 128, 500), Some(0xa), "64,000 gaps in 128 streams");
        let held = now().live - before;
        assert!(held <= WINDOW as i64 + BEYOND, "{held} bytes");
    }
}

#[test]
fn a_small_cap_on_memory_ends_in_a_close_or_in_waiting_and_never_in_an_abort() {
    for kind in KINDS {
        let outcome = flood(Side::Server, kind, |config| config.memory_max = 512 << 10);
        judge(Side::Server, kind, &outcome, BEYOND);
    }
}

/// Bytes that logs of this file wrote.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// A log that has every event in words, in memory that it uses again.
struct Log(String);

impl Observer for Log {
    fn interest(&self) -> Interest {
        Interest::ALL
    }

    fn on(&mut self, now: Instant, key: ConnKey, event: &Event<'_>) {
        self.0.clear();
        write!(self.0, "{now:?} {key:?} {event:?}").unwrap();
        WRITTEN.fetch_add(self.0.len() as u64, Ordering::Relaxed);
    }
}

#[test]
fn the_most_detailed_log_changes_nothing_about_a_flood() {
    for victim in [Side::Server, Side::Client] {
        for kind in KINDS {
            let plain = flood(victim, kind, |_| {});
            let logged =
                flood(victim, kind, |config| config.observer = Some(Box::new(Log(String::with_capacity(1 << 16)))));
            judge(victim, kind, &logged, BEYOND);
            let seen = |o: &Outcome| (o.sent, o.datagrams, o.code, o.silent);
            assert_eq!(seen(&plain), seen(&logged), "{} to a {victim:?}", kind.name);
        }
    }
    let written = WRITTEN.load(Ordering::Relaxed);
    println!("{written} bytes of log");
    assert!(written > 1 << 20, "{written} bytes were logged");
}
