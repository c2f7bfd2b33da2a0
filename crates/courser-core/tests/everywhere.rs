//! Every kind of frame in every kind of packet, in every state, to both ends, by a peer with keys: what the RFCs fix ends
//! in the code that they fix, and everything else is taken or ignored and harms nothing. Then sequences by chance.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::time::Duration;

use courser_core::config::Settings;
use courser_core::ids::{Dir, Level, Side, StreamId};
use courser_testing::Chance;
use courser_testing::kinds::{KINDS, Kind, Speaker};
use courser_testing::rig::{Plan, Rig, Seen, Stage, numbered};

const FINAL_SIZE: u64 = 0x6;
const FRAME_ENCODING: u64 = 0x7;
const PROTOCOL: u64 = 0xa;
/// The code with which the application of the end under test closes.
const OURS: u64 = 7;

/// What the connection has come to when the frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The ClientHello was sent or heard.
    Begun,
    /// There are Handshake keys.
    Shaking,
    /// The handshake is confirmed and nothing was said yet.
    Confirmed,
    /// Streams of both ends are open, one is finished, and data is on its way.
    Streaming,
    /// This end closed and its close is not forgotten yet.
    Closing,
    /// The peer closed.
    Draining,
}

const STATES: [State; 6] =
    [State::Begun, State::Shaking, State::Confirmed, State::Streaming, State::Closing, State::Draining];
const LEVELS: [Level; 4] = [Level::Initial, Level::ZeroRtt, Level::Handshake, Level::OneRtt];

/// What has to come of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Nothing is closed, and the connection goes on.
    GoesOn,
    /// The connection closes with that code.
    Code(u64),
    /// The handshake ends with an alert, or what is not complete or was heard before is kept or ignored.
    TlsOrGoesOn,
    /// The peer has closed: nothing is said any more.
    Silence,
    /// The close is said again, or nothing is.
    SameClose,
}

/// An end under test in that state.
fn in_state(victim: Side, state: State) -> Rig {
    let stage = match state {
        State::Begun => Stage::Initial,
        State::Shaking => Stage::Handshake,
        _ => Stage::Confirmed,
    };
    let mut settings = Settings::default();
    settings.ack_frequency = true;
    let mut rig = Rig::new(Plan { early: victim.is_server(), settings, ..Plan::new(victim, stage) });
    // Keys of early data are gone some time after the handshake.
    if stage == Stage::Confirmed {
        rig.pass(Duration::from_secs(1));
    }
    match state {
        State::Streaming => stream(&mut rig),
        State::Closing => {
            rig.victim.close(rig.now, rig.key, OURS, b"enough").unwrap();
            assert_eq!(rig.collect().code(), Some(OURS));
        }
        State::Draining => {
            let close = rig.inject(Level::OneRtt, &[0x1d, 3, 0]);
            assert_eq!(close.close, None, "who is closed by its peer says nothing");
        }
        State::Begun | State::Shaking | State::Confirmed => {}
    }
    rig
}

fn stream(rig: &mut Rig) {
    let theirs = |dir| StreamId::new(rig.side.peer(), dir, 0).0 as u8;
    let opened = [0x0a, theirs(Dir::Bi), 3, 1, 2, 3, 0x0b, theirs(Dir::Uni), 2, 1, 2];
    assert_eq!(rig.inject(Level::OneRtt, &opened).close, None);
    for dir in [Dir::Bi, Dir::Uni] {
        assert!(rig.victim.accept_stream(rig.key, dir).unwrap().is_some());
        if let Some(id) = rig.victim.open_stream(rig.key, dir).unwrap() {
            rig.victim.write(rig.key, id, &[5; 3000]).unwrap();
        }
    }
    assert_eq!(rig.collect().close, None);
}

/// Whether the end under test has the keys to read a packet of that level.
fn readable(victim: Side, state: State, level: Level) -> bool {
    match (state, level) {
        (State::Begun, Level::Initial) | (State::Shaking, Level::Handshake) => true,
        // A client's Initial keys go with its first Handshake packet.
        (State::Begun | State::Shaking, Level::ZeroRtt) | (State::Shaking, Level::Initial) => victim.is_server(),
        (State::Confirmed | State::Streaming, Level::OneRtt) => true,
        _ => false,
    }
}

/// A row of RFC 9000, table 3: where a frame may stand. The bits are Initial, Handshake, 0-RTT, 1-RTT. `None`: unknown type.
fn table_3(frame_type: u64) -> Option<&'static str> {
    Some(match frame_type {
        0x00 | 0x01 | 0x1c => "IH01",
        0x02 | 0x03 | 0x06 => "IH_1",
        0x07 | 0x19 | 0x1b | 0x1e => "___1",
        0x04 | 0x05 | 0x08..=0x18 | 0x1a | 0x1d => "__01",
        // RFC 9221 section 3, and the drafts of the others.
        0x24 | 0x30 | 0x31 => "__01",
        0x1f | 0xaf => "___1",
        _ => return None,
    })
}

fn expected(victim: Side, state: State, level: Level, kind: &Kind) -> Expect {
    match state {
        State::Closing => return Expect::SameClose,
        State::Draining => return Expect::Silence,
        _ if !readable(victim, state, level) => return Expect::GoesOn,
        _ => {}
    }
    //= rfc9000#12.4-2 type=test
    //= rfc9000#12.4-3 type=test
    //= rfc9000#12.4-4 type=test
    if kind.name == "nothing" || kind.name.contains("with a type of") {
        return Expect::Code(PROTOCOL);
    }
    let Some(row) = table_3(kind.frame_type) else { return Expect::Code(FRAME_ENCODING) };
    let letter = match level {
        Level::Initial => 'I',
        Level::Handshake => 'H',
        Level::ZeroRtt => '0',
        Level::OneRtt => '1',
    };
    if !row.contains(letter) {
        return Expect::Code(PROTOCOL);
    }
    match kind.frame_type {
        // Only servers say these.
        0x07 | 0x1e if victim.is_server() => Expect::Code(PROTOCOL),
        0x06 => Expect::TlsOrGoesOn,
        0x1c | 0x1d => Expect::Silence,
        //= rfc9000#4.5-4 type=test
        // Two streams have carried data by then, and one of them its end: these frames say other ends.
        0x04 | 0x09 | 0x0b | 0x0d | 0x0f | 0x24 if state == State::Streaming => Expect::Code(FINAL_SIZE),
        _ => Expect::GoesOn,
    }
}

/// A number of a packet of that level that the end under test has sent.
fn acked(rig: &Rig, level: Level) -> Option<u64> {
    if level == Level::OneRtt {
        return rig.sent.last().map(|range| range.1);
    }
    let numbers = |d: &Vec<u8>| numbered(d).into_iter().filter(|p| p.0 == level).map(|p| p.1).collect::<Vec<_>>();
    rig.first.datagrams.iter().flat_map(numbers).max()
}

fn deliver(rig: &mut Rig, level: Level, payload: &[u8]) -> Seen {
    let packet = if rig.has_keys(level) { rig.forge(level, payload) } else { rig.forge_without_keys(level, payload) };
    rig.give_packet(level, packet);
    rig.collect()
}

fn check(victim: Side, state: State, level: Level, kind: &Kind) {
    let mut rig = in_state(victim, state);
    let what = format!("{} in {level:?} to a {victim:?} that is {state:?}", kind.name);
    let acked = acked(&rig, level);
    let payload = (kind.make)(Speaker { side: victim.peer(), acked: acked.unwrap_or(0) }, 0);
    let mut expect = expected(victim, state, level, kind);
    //= rfc9000#13.1-2 type=test
    if matches!(kind.frame_type, 0x02 | 0x03) && expect == Expect::GoesOn && acked.is_none() {
        // Nothing was sent that could be acknowledged. Whoever cannot read the packet does not know.
        let read = readable(victim, state, level);
        expect = if read { Expect::Code(PROTOCOL) } else { Expect::GoesOn };
    }
    let seen = deliver(&mut rig, level, &payload);
    match expect {
        Expect::Code(code) => assert_eq!(seen.code(), Some(code), "{what}"),
        Expect::SameClose => assert!(matches!(seen.code(), None | Some(OURS)), "{what}: {:?}", seen.close),
        Expect::Silence => assert_eq!(seen.bytes(), 0, "{what}"),
        Expect::TlsOrGoesOn => {
            assert!(seen.code().is_none_or(|code| (0x100..0x200).contains(&code)), "{what}: {:?}", seen.close);
        }
        Expect::GoesOn => goes_on(&mut rig, &seen, state, &what),
    }
    assert!(seen.datagrams.len() <= 20, "{what}: an answer of {} datagrams", seen.datagrams.len());
}

/// Nothing was closed, and who is connected still answers.
fn goes_on(rig: &mut Rig, seen: &Seen, state: State, what: &str) {
    assert_eq!(seen.close, None, "{what}");
    assert!(rig.victim.conn_stats(rig.key).is_ok(), "{what}: the connection is gone");
    if matches!(state, State::Confirmed | State::Streaming) {
        // A packet that must be acknowledged within a quarter of a second, whatever delay was asked for.
        let before = rig.victim.conn_stats(rig.key).unwrap().sent.packets;
        assert_eq!(rig.inject(Level::OneRtt, &[0x01]).close, None, "{what}: then a PING");
        rig.pass(Duration::from_millis(250));
        assert!(rig.victim.conn_stats(rig.key).unwrap().sent.packets > before, "{what}: nobody answers a PING");
    }
}

#[test]
fn every_frame_in_every_packet_in_every_state_to_both_ends_has_its_answer() {
    //= rfc9000#12.5-1 type=test
    //= rfc9000#12.5-2 type=test
    //= rfc9000#17.2.4-1 type=test
    //= rfc9000#19.7-4 type=test
    //= rfc9000#19.20-2 type=test
    let mut cells = 0;
    for kind in KINDS {
        for level in LEVELS {
            for state in STATES {
                for victim in [Side::Server, Side::Client] {
                    check(victim, state, level, kind);
                    cells += 1;
                }
            }
        }
    }
    println!("{cells} cells: {} kinds, {} packets, {} states, 2 ends", KINDS.len(), LEVELS.len(), STATES.len());
    assert!(KINDS.len() >= 30 && cells == KINDS.len() * 48);
}

/// What an application might call for a stream at any time.
fn use_stream(rig: &mut Rig, id: StreamId) {
    let key = rig.key;
    let _ = rig.victim.accept_stream(key, id.dir());
    let _ = rig.victim.write(key, id, b"some bytes");
    let _ = rig.collect();
    let _ = rig.victim.read(key, id, &mut [0; 100]);
    let _ = rig.victim.finish(key, id);
    let _ = rig.victim.stop_sending(key, id, 1);
    let _ = rig.victim.reset(key, id, 1);
    let _ = rig.victim.write(key, id, b"more");
    let _ = rig.victim.read(key, id, &mut [0; 100]);
}

#[test]
fn any_two_frames_for_one_stream_leave_a_stream_that_can_be_used() {
    let kinds: Vec<_> = KINDS
        .iter()
        .filter(|k| matches!(k.frame_type, 0x04 | 0x05 | 0x08..=0x0f | 0x11 | 0x15 | 0x24) && !k.name.contains("type"))
        .collect();
    assert!(kinds.len() >= 13);
    for victim in [Side::Server, Side::Client] {
        let speaker = Speaker { side: victim.peer(), acked: 0 };
        for first in &kinds {
            for second in &kinds {
                for apart in [true, false] {
                    let mut rig = Rig::at(victim, Stage::Confirmed);
                    let (mut one, two) = ((first.make)(speaker, 0), (second.make)(speaker, 0));
                    if apart || first.open_ended {
                        let _ = rig.inject(Level::OneRtt, &one);
                        one.clear();
                    }
                    one.extend(two);
                    let code = rig.inject(Level::OneRtt, &one).code();
                    // Only two ends that differ are a fault: STREAM with FIN and a byte at other offsets never are here.
                    assert!(code.is_none_or(|c| c == 0x5 || c == 0x6), "{} and {}: {code:?}", first.name, second.name);
                    for dir in [Dir::Bi, Dir::Uni] {
                        use_stream(&mut rig, StreamId::new(victim.peer(), dir, 0));
                    }
                    rig.acknowledge();
                    let _ = rig.collect();
                }
            }
        }
    }
}

/// A payload of one to six frames; some are hurt.
fn sequence(chance: &mut Chance, speaker: Speaker) -> Vec<u8> {
    let mut payload = Vec::new();
    for _ in 0..=chance.below(6) {
        let kind = &KINDS[chance.below(KINDS.len() as u64) as usize];
        // Closes and frames of no type end everything: they are rarer than the others.
        let ends = matches!(kind.frame_type, 0x1c | 0x1d) || kind.frame_type > 0xaf || kind.name.contains("type");
        if ends && chance.below(40) != 0 {
            continue;
        }
        let bits = chance.below(20);
        let n = chance.below(1 << bits);
        payload.extend((kind.make)(speaker, n));
    }
    if chance.below(30) == 0 && !payload.is_empty() {
        let at = chance.below(payload.len() as u64) as usize;
        match chance.below(3) {
            0 => payload[at] ^= 1 << chance.below(8),
            1 => payload.truncate(at),
            _ => payload[at] = [0, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff][chance.below(7) as usize],
        }
    }
    payload
}

/// Sequences until the connection is closed or was used long enough; returns how many.
fn play(chance: &mut Chance, most: u64) -> u64 {
    let victim = if chance.below(2) == 0 { Side::Server } else { Side::Client };
    let state = STATES[chance.below(4) as usize];
    let mut rig = in_state(victim, state);
    let mut played = 0;
    let mut end = None;
    while played < most && end.is_none() {
        let level = LEVELS[chance.below(4) as usize];
        let level = if readable(victim, state, level) || chance.below(8) == 0 { level } else { Level::OneRtt };
        if rig.has_keys(level) {
            let acked = acked(&rig, level).unwrap_or(0);
            let payload = sequence(chance, Speaker { side: victim.peer(), acked });
            rig.give(level, &payload);
        }
        played += 1;
        if chance.below(4) == 0 {
            let seen = rig.collect();
            end = seen.code();
            assert!(seen.datagrams.len() <= 200, "an answer of {} datagrams", seen.datagrams.len());
        }
        match chance.below(16) {
            0 => use_stream(&mut rig, StreamId(chance.below(64))),
            1 => rig.acknowledge_if_confirmed(),
            2 => rig.now += Duration::from_millis(chance.below(50)),
            _ => {}
        }
        if rig.victim.conn_stats(rig.key).is_err() {
            break;
        }
    }
    if let Some(code) = end {
        assert!(code != 1 && (code <= 0x11 || (0x100..0x200).contains(&code)), "closed with {code:#x}");
    }
    assert!(rig.victim.pool_stats().in_use_bytes <= 4 << 20, "{:?}", rig.victim.pool_stats());
    for _ in 0..6 {
        rig.pass(Duration::from_secs(60));
    }
    assert_eq!((rig.victim.connections(), rig.victim.route_count(), rig.victim.pool_stats().in_use), (0, 0, 0));
    played
}

/// Ten thousand sequences; as many as `COURSER_SEQUENCES` says for whoever wants more, from the seed `COURSER_SEED`.
#[test]
fn sequences_of_frames_by_chance_end_in_codes_of_the_rfcs_and_leave_nothing() {
    let number = |name, default| std::env::var(name).map_or(default, |v: String| v.parse().unwrap());
    let (wanted, seed) = (number("COURSER_SEQUENCES", 10_000), number("COURSER_SEED", 1));
    let (mut played, mut connections) = (0, 0_u64);
    while played < wanted {
        let of = seed + connections;
        let mut chance = Chance(of.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let guard = OnPanic(of);
        played += play(&mut chance, 400);
        core::mem::forget(guard);
        connections += 1;
    }
    println!("{played} sequences over {connections} connections from seed {seed}");
}

/// Tells which seed failed.
struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        eprintln!("COURSER_SEED={} COURSER_SEQUENCES=1 plays this connection again", self.0);
    }
}
