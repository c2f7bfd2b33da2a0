//! Packets from other addresses, one by one: what a server answers, to where, and when it moves.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::net::SocketAddr;
use core::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::{ConnStats, Event, SendOutcome, Train};
use courser_core::error::CloseReason;
use courser_core::ids::{Cid, Level, ResetToken, Side};
use courser_core::wire::frame::Frame;
use courser_testing::rig::{FORGER, Plan, Rig, Stage, encode, packets};

/// A datagram that left: to where, its length, data of its challenges and answers, whether it says more than a probe.
#[derive(Debug)]
struct Left {
    to: SocketAddr,
    len: usize,
    challenges: Vec<[u8; 8]>,
    responses: Vec<[u8; 8]>,
    more: bool,
}

fn collect(rig: &mut Rig) -> Vec<Left> {
    let (mut train, mut all) = (Train::new(), Vec::new());
    rig.victim.process(rig.now);
    while let Some(meta) = rig.victim.fill(rig.now, &mut train) {
        for datagram in train.bytes().chunks(meta.segment) {
            let mut left =
                Left { to: meta.to, len: datagram.len(), challenges: vec![], responses: vec![], more: false };
            for (_, payload) in packets(datagram) {
                read(&payload, &mut left);
            }
            all.push(left);
        }
        rig.victim.sent(rig.now, &meta, SendOutcome::Sent);
    }
    all
}

fn read(payload: &[u8], left: &mut Left) {
    use courser_core::wire::frame::{Extensions, frames};
    for frame in frames(payload, Level::OneRtt, Extensions::ALL) {
        match frame.unwrap() {
            Frame::PathChallenge(data) => left.challenges.push(data),
            Frame::PathResponse(data) => left.responses.push(data),
            Frame::Padding(_) | Frame::NewConnectionId { .. } => {}
            _ => left.more = true,
        }
    }
}

/// A server; its client has issued spare connection IDs.
fn server(change: impl FnOnce(&mut Settings)) -> Rig {
    let mut plan = Plan::new(Side::Server, Stage::Confirmed);
    plan.settings.mtu_discovery = false;
    change(&mut plan.settings);
    let mut rig = Rig::new(plan);
    rig.acknowledge_if_confirmed();
    assert_eq!(rig.victim.close_reason(rig.key).unwrap(), None);
    rig.acknowledge();
    collect(&mut rig);
    rig
}

fn elsewhere(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 7, 7, n], 777))
}

/// Delivers frames from an address, in a datagram of at least that size.
fn say(rig: &mut Rig, from: SocketAddr, frames: &[Frame<'_>], len: usize) {
    let mut payload = encode(frames);
    payload.resize(payload.len().max(len.saturating_sub(40)), 0);
    let mut packet = rig.forge(Level::OneRtt, &payload);
    rig.deliver_from(from, &mut packet);
}

fn stats(rig: &Rig) -> ConnStats {
    rig.victim.conn_stats(rig.key).unwrap()
}

fn remote(rig: &Rig) -> SocketAddr {
    rig.victim.remote(rig.key).unwrap()
}

#[test]
fn a_probe_is_answered_where_it_came_from_and_moves_nothing() {
    //= rfc9000#19.17-1 type=test
    //= rfc9000#8.2.2-1 type=test
    //= rfc9000#8.2.2-3 type=test
    //= rfc9000#8.2.2-5 type=test
    //= rfc9000#9.6.3-4 type=test
    //= rfc9000#8.2.2-2 type=test
    let mut rig = server(|_| {});
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([1, 2, 3, 4, 5, 6, 7, 8])], 1200);
    let left = collect(&mut rig);
    let there: Vec<&Left> = left.iter().filter(|l| l.to == elsewhere(1)).collect();
    assert_eq!(there.len(), 1, "{left:?}");
    assert_eq!(
        (there[0].responses.as_slice(), there[0].challenges.len(), there[0].more),
        (&[[1, 2, 3, 4, 5, 6, 7, 8]][..], 1, false)
    );
    assert!(there[0].len >= 1200);
    assert_eq!((remote(&rig), stats(&rig).migrations), (FORGER, 0));
}

#[test]
fn a_small_probe_gets_no_more_than_three_times_its_size_and_is_asked_again_in_full() {
    //= rfc9000#8.2.1-4 type=test
    //= rfc9000#8.2.1-5 type=test
    //= rfc9000#8.2.1-6 type=test
    //= rfc9000#8.2.2-6 type=test
    //= rfc9000#8.2.3-1 type=test
    let mut rig = server(|_| {});
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([5; 8])], 60);
    let left = collect(&mut rig);
    let first = left.iter().find(|l| l.to == elsewhere(1)).unwrap();
    assert!(first.len <= 3 * 60 && !first.challenges.is_empty(), "{first:?}");
    say(&mut rig, elsewhere(1), &[Frame::PathResponse(first.challenges[0])], 60);
    let left = collect(&mut rig);
    let second = left.iter().find(|l| l.to == elsewhere(1)).unwrap();
    assert!(second.len >= 1200 && second.challenges.len() == 1, "{second:?}");
}

#[test]
fn data_moves_the_connection_at_once_and_the_answer_is_sought_on_both_paths() {
    // LS-PATH-07
    //= rfc9000#9.3-1 type=test
    //= rfc9000#9.3.3-1 type=test
    //= rfc9000#9-4 type=test
    let mut rig = server(|_| {});
    say(&mut rig, elsewhere(1), &[Frame::Ping], 1200);
    let left = collect(&mut rig);
    assert_eq!(remote(&rig), elsewhere(1));
    for to in [elsewhere(1), FORGER] {
        let asked = left.iter().filter(|l| l.to == to).map(|l| l.challenges.len()).sum::<usize>();
        assert_eq!(asked, 1, "{to}: {left:?}");
    }
    assert!(left.iter().all(|l| l.to == elsewhere(1) || !l.more), "nothing but probes goes to the old address");
}

#[test]
fn an_answer_that_comes_with_data_validates_first_and_moves_once() {
    // LS-PATH-05
    let mut rig = server(|_| {});
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([5; 8])], 1200);
    let challenge = collect(&mut rig).iter().find_map(|l| l.challenges.first().copied()).unwrap();
    say(&mut rig, elsewhere(1), &[Frame::PathResponse(challenge), Frame::Ping], 1200);
    assert_eq!((remote(&rig), stats(&rig).migrations), (elsewhere(1), 1));
    let left = collect(&mut rig);
    assert!(left.iter().all(|l| l.to != elsewhere(1) || l.challenges.is_empty()), "it is validated: {left:?}");
}

#[test]
fn an_answer_counts_for_the_path_that_was_asked_whatever_way_it_comes() {
    // LS-PATH-14
    //= rfc9000#8.2.2-4 type=test
    let mut rig = server(|_| {});
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([5; 8])], 1200);
    let challenge = collect(&mut rig).iter().find_map(|l| l.challenges.first().copied()).unwrap();
    say(&mut rig, FORGER, &[Frame::PathResponse(challenge)], 100);
    say(&mut rig, elsewhere(1), &[Frame::Ping], 100);
    let left = collect(&mut rig);
    assert_eq!(remote(&rig), elsewhere(1));
    assert!(left.iter().all(|l| l.to != elsewhere(1) || l.challenges.is_empty()), "it was validated before: {left:?}");
}

#[test]
fn an_old_packet_from_elsewhere_moves_nothing() {
    let mut rig = server(|_| {});
    let mut late = rig.forge(Level::OneRtt, &encode(&[Frame::Ping]));
    say(&mut rig, FORGER, &[Frame::Ping], 100);
    rig.deliver_from(elsewhere(1), &mut late);
    collect(&mut rig);
    assert_eq!((remote(&rig), stats(&rig).migrations), (FORGER, 0));
}

#[test]
fn who_may_not_move_gets_no_answer() {
    // LS-PATH-06
    //= rfc9000#9-3 type=test
    let mut rig = server(|s| s.migration = false);
    let fresh = rig.victim.connection_ids(rig.key).unwrap().last().unwrap().cid;
    say(&mut rig, FORGER, &[Frame::Ping], 100);
    collect(&mut rig);
    rig.to = fresh;
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([5; 8])], 1200);
    let left = collect(&mut rig);
    assert!(left.iter().all(|l| l.to == FORGER), "no response, no challenge, no reset: {left:?}");
    assert_eq!((stats(&rig).paths_refused, remote(&rig)), (1, FORGER));
    assert_eq!(rig.victim.close_reason(rig.key).unwrap(), None);
}

#[test]
fn a_peer_without_spare_connection_ids_cannot_move_on_purpose() {
    //= rfc9000#9.5-2 type=test
    // The server stores two connection IDs of its client: one in use, one to spare.
    let mut rig = server(|s| s.active_cid_limit = 2);
    let ours: Vec<Cid> = rig.victim.connection_ids(rig.key).unwrap().iter().map(|i| i.cid).collect();
    say(&mut rig, FORGER, &[Frame::Ping], 100);
    for (at, cid) in [(1, ours[1]), (2, ours[2])] {
        rig.to = cid;
        say(&mut rig, elsewhere(at), &[Frame::Ping], 1200);
        collect(&mut rig);
    }
    let stats = stats(&rig);
    assert_eq!((stats.paths_opened, stats.paths_refused, remote(&rig)), (1, 1, elsewhere(1)));
}

#[test]
fn a_packet_from_elsewhere_brings_the_connection_id_that_a_path_to_there_needs() {
    // Whoever lost its address before its spare connection IDs arrived can send them from nowhere else.
    let mut rig = server(|s| s.active_cid_limit = 2);
    let ours: Vec<Cid> = rig.victim.connection_ids(rig.key).unwrap().iter().map(|i| i.cid).collect();
    let spare = |sequence: u64| {
        let (cid, token) = (Cid::new(&[sequence as u8; 8]).unwrap(), ResetToken([sequence as u8; 16]));
        Frame::NewConnectionId { sequence, retire_prior_to: 20, cid, token }
    };
    say(&mut rig, FORGER, &[spare(20)], 100);
    collect(&mut rig);
    rig.to = ours[1];
    let counts = |rig: &Rig| (stats(rig).paths_opened, stats(rig).paths_refused, remote(rig));
    say(&mut rig, elsewhere(1), &[Frame::Ping], 1200);
    collect(&mut rig);
    assert_eq!(counts(&rig), (0, 1, FORGER), "none is left");
    say(&mut rig, elsewhere(1), &[Frame::Ping, spare(21)], 1200);
    collect(&mut rig);
    assert_eq!(counts(&rig), (1, 1, elsewhere(1)));
    assert_eq!(rig.victim.close_reason(rig.key), Ok(None), "the frame may be read twice");
}

#[test]
fn a_client_hears_nobody_but_its_server() {
    // LS-PATH-09
    //= rfc9000#9-5 type=test
    //= rfc9000#9.6-1 type=test
    let mut rig = Rig::at(Side::Client, Stage::Confirmed);
    rig.acknowledge_if_confirmed();
    collect(&mut rig);
    let before = stats(&rig);
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([5; 8]), Frame::Ping], 1200);
    let left = collect(&mut rig);
    assert!(left.iter().all(|l| l.responses.is_empty()), "{left:?}");
    let after = stats(&rig).since(&before);
    assert_eq!((after.dropped_address, after.paths_opened, after.received.packets), (1, 0, 0));
}

#[test]
fn a_server_to_whom_nobody_answers_returns_to_the_validated_address() {
    //= rfc9000#9.3.2-1 type=test
    let mut rig = server(|s| s.idle_timeout = Duration::from_secs(60));
    say(&mut rig, elsewhere(1), &[Frame::Ping], 1200);
    collect(&mut rig);
    // Nobody answers anywhere: back to the address that was validated, and there it stays.
    rig.pass(Duration::from_secs(5));
    assert_eq!((remote(&rig), stats(&rig).paths_failed), (FORGER, 1));
}

#[test]
fn challenges_cannot_be_foreseen() {
    //= rfc9000#8.2.1-3 type=test
    // Several paths, and repetitions on each: no challenge tells anything of another one.
    let mut rig = server(|s| s.idle_timeout = Duration::from_secs(60));
    let mut seen: Vec<u64> = Vec::new();
    for n in 0..40 {
        say(&mut rig, elsewhere(n), &[Frame::PathChallenge([n; 8])], 1200);
        for _ in 0..4 {
            for left in collect(&mut rig) {
                seen.extend(left.challenges.into_iter().map(u64::from_be_bytes));
            }
            rig.now += Duration::from_millis(400);
        }
    }
    assert!(seen.len() >= 40, "{}", seen.len());
    for (at, a) in seen.iter().enumerate() {
        for b in &seen[at + 1..] {
            // Of 64 random bits fewer than eight are equal or differ once in a thousand million times.
            assert!((8..=56).contains(&(a ^ b).count_ones()), "{a:016x} and {b:016x}");
        }
    }
}

#[test]
fn a_challenge_is_answered_at_once_and_once() {
    for from in [FORGER, elsewhere(1)] {
        let mut rig = server(|s| s.idle_timeout = Duration::from_secs(60));
        say(&mut rig, from, &[Frame::PathChallenge([5; 8])], 1200);
        let mut answers = Vec::new();
        let asked_at = rig.now;
        // Nothing is acknowledged: everything that is worth it is sent again.
        for _ in 0..400 {
            for left in collect(&mut rig).iter().filter(|l| l.responses.contains(&[5; 8])) {
                answers.push((rig.now, left.to, left.responses.len()));
            }
            rig.now += Duration::from_millis(25);
        }
        //= rfc9000#8.2.2-2 type=test
        //= rfc9000#8.2.2-7 type=test
        assert_eq!(answers, [(asked_at, from, 1)]);
    }
}

#[test]
fn an_unproven_address_gets_no_more_than_three_times_what_came_from_there() {
    //= rfc9000#9.3-2 type=test
    let mut rig = server(|s| s.idle_timeout = Duration::from_secs(60));
    let id = rig.victim.open_stream(rig.key, courser_core::ids::Dir::Uni).unwrap().unwrap();
    let mut came = 0;
    let mut sent: Vec<Left> = Vec::new();
    for n in 0..30 {
        rig.victim.write(rig.key, id, &[7; 20_000]).unwrap();
        let mut packet = rig.forge(Level::OneRtt, &encode(&[Frame::Ping, Frame::Padding(60)]));
        if n % 10 == 0 {
            came += packet.len();
            rig.deliver_from(elsewhere(1), &mut packet);
            assert_eq!(remote(&rig), elsewhere(1), "the connection follows at once");
        }
        sent.extend(collect(&mut rig).into_iter().filter(|l| l.to == elsewhere(1)));
        let bytes: usize = sent.iter().map(|l| l.len).sum();
        assert!(bytes <= 3 * came, "{bytes} for {came}");
        rig.now += Duration::from_millis(5);
    }
    assert!(sent.iter().map(|l| l.len).sum::<usize>() > 2 * came, "the limit is what held it back");
    let challenge = sent.iter().rev().find_map(|l| l.challenges.last().copied()).unwrap();
    say(&mut rig, elsewhere(1), &[Frame::PathResponse(challenge)], 1200);
    let after: usize = collect(&mut rig).iter().filter(|l| l.to == elsewhere(1)).map(|l| l.len).sum();
    assert!(after > 1_000, "{after}: now it flows");
}

#[test]
fn a_server_without_a_proven_address_to_return_to_falls_silent() {
    //= rfc9000#9.3.2-2 type=test
    let mut rig = server(|s| {
        s.idle_timeout = Duration::from_secs(600);
        s.active_cid_limit = 2;
    });
    // The peer takes back every connection ID but one, so that nothing can be said to its old address any more.
    say(&mut rig, elsewhere(1), &[Frame::Ping], 1200);
    collect(&mut rig);
    let cid = Cid::new(&[0x42; 8]).unwrap();
    let token = courser_core::ids::ResetToken([0x42; 16]);
    let last = Frame::NewConnectionId { sequence: 40, retire_prior_to: 40, cid, token };
    say(&mut rig, elsewhere(1), &[last], 1200);
    assert_eq!(remote(&rig), elsewhere(1));
    let mut late = Vec::new();
    for _ in 0..400 {
        let closed = rig.victim.close_reason(rig.key).map(|reason| reason.is_some());
        let left = collect(&mut rig);
        late.extend(left.into_iter().filter(|_| closed != Ok(false)));
        rig.now += Duration::from_millis(25);
    }
    assert!(late.is_empty(), "not a word: {late:?}");
    assert!(rig.victim.conn_stats(rig.key).is_err() && rig.victim.connections() == 0, "all state is gone");
    assert_eq!(rig.victim.route_count(), 0);
    let closed = core::iter::from_fn(|| rig.victim.poll_event()).filter(|(_, e)| matches!(e, Event::Closed(_)));
    assert!(closed.eq([(rig.key, Event::Closed(CloseReason::NoPath))]), "and why");
}

#[test]
fn each_path_can_be_looked_at() {
    // LS-IF-43
    let mut rig = server(|_| {});
    let alone = rig.victim.paths(rig.key).unwrap();
    assert_eq!((alone.len(), alone[0].remote, alone[0].in_use, alone[0].validated), (1, FORGER, true, true));
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([5; 8])], 1200);
    let both = rig.victim.paths(rig.key).unwrap();
    let new = both.iter().find(|path| path.remote == elsewhere(1)).unwrap();
    assert_eq!((both.len(), new.in_use, new.validated, new.answering, new.rtt), (2, false, false, true, None));
    let left = collect(&mut rig);
    let new = rig.victim.paths(rig.key).unwrap()[1];
    assert_eq!((new.challenged, new.answering), (true, false));
    let challenge = left.iter().find(|l| l.to == elsewhere(1)).unwrap().challenges[0];
    say(&mut rig, elsewhere(1), &[Frame::PathResponse(challenge)], 1200);
    let new = rig.victim.paths(rig.key).unwrap()[1];
    assert_eq!((new.validated, new.challenged, new.mtu), (true, false, 1200));
}

/// When challenges left for an address, as long after the first one.
fn challenged(rig: &mut Rig, at: SocketAddr, step: Duration) -> Vec<Duration> {
    let (from, mut times) = (rig.now, Vec::new());
    for _ in 0..4_000 {
        let left = collect(rig);
        let mut all = left.iter().filter(|l| l.to == at && !l.challenges.is_empty()).peekable();
        times.extend(all.peek().map(|_| rig.now.since(from)));
        assert!(all.all(|l| l.challenges.len() == 1), "each in a packet of its own: {left:?}");
        rig.now += step;
    }
    times
}

#[test]
fn challenges_are_repeated_no_sooner_than_a_probe_timeout_and_ever_later() {
    //= rfc9000#9.4-3 type=test
    // Nothing is known of a path to another address: what the first packet of a connection waits, and the peer's delay.
    let mut rig = server(|s| s.idle_timeout = Duration::from_secs(60));
    say(&mut rig, elsewhere(1), &[Frame::PathChallenge([5; 8])], 1200);
    let times = challenged(&mut rig, elsewhere(1), Duration::from_millis(2));
    assert_eq!(times.len(), 2, "{times:?}");
    assert!((1_024..1_030).contains(&times[1].as_millis()), "{times:?}");
    // On another port of a slow peer: what is known of its round-trip time holds.
    let mut rig = server(|s| s.idle_timeout = Duration::from_secs(60));
    for _ in 0..12 {
        rig.victim.ping(rig.key).unwrap();
        rig.collect();
        rig.now += Duration::from_millis(800);
        rig.acknowledge();
        rig.collect();
    }
    let known = stats(&rig);
    assert!(known.rtt > Duration::from_millis(500), "{known:?}");
    let pto = known.rtt + 4 * known.rtt_var + Duration::from_millis(25);
    let port = SocketAddr::new(FORGER.ip(), FORGER.port() + 1);
    say(&mut rig, port, &[Frame::PathChallenge([6; 8])], 1200);
    let times = challenged(&mut rig, port, Duration::from_millis(2));
    assert!(times.len() >= 2 && times[1] >= pto && times[1] < pto + Duration::from_millis(5), "{times:?}: {pto:?}");
    assert!(times.windows(3).all(|t| t[2] - t[1] >= 2 * (t[1] - t[0]) - Duration::from_millis(4)), "{times:?}");
}

#[test]
fn a_server_that_may_say_nothing_where_it_is_sleeps_until_it_hears_more() {
    // Data uses up what an unproven address may get. What then comes late from the old address is to be acknowledged, but
    // not there, and may not be where the connection is: no time changes that.
    let mut rig = server(|s| s.idle_timeout = Duration::from_secs(60));
    let id = rig.victim.open_stream(rig.key, courser_core::ids::Dir::Uni).unwrap().unwrap();
    rig.victim.write(rig.key, id, &[7; 30_000]).unwrap();
    let mut late: Vec<Vec<u8>> = (0..5).map(|_| rig.forge(Level::OneRtt, &encode(&[Frame::Ping]))).collect();
    say(&mut rig, elsewhere(1), &[Frame::Ping], 400);
    assert!(!collect(&mut rig).is_empty() && remote(&rig) == elsewhere(1));
    let (mut answers, mut received) = (0, 0);
    for packet in &mut late {
        rig.deliver_from(FORGER, packet);
        received += 1;
        for _ in 0..6 {
            answers += collect(&mut rig).iter().filter(|l| l.to == elsewhere(1) && l.more).count();
            rig.victim.process(rig.now);
            let next = rig.victim.deadline();
            assert!(next.is_none_or(|at| at > rig.now), "at {:?} there is work for {next:?}", rig.now);
            rig.now += Duration::from_millis(7);
        }
    }
    assert_eq!((answers, received, remote(&rig)), (0, 5, elsewhere(1)));
    say(&mut rig, elsewhere(1), &[Frame::Ping], 400);
    assert!(collect(&mut rig).iter().any(|l| l.to == elsewhere(1) && l.more));
}

#[test]
fn a_connection_whose_frames_nobody_acknowledges_does_not_ask_for_a_turn_without_end() {
    let mut rig = server(|s| s.idle_timeout = Duration::from_secs(600));
    // Each packet costs the server a RETIRE_CONNECTION_ID frame and a connection ID of its own, until neither finds room.
    for n in 1..=36_u8 {
        let (sequence, cid) = (100 + u64::from(n), Cid::new(&[n; 8]).unwrap());
        let renewed = Frame::NewConnectionId { sequence, retire_prior_to: sequence, cid, token: ResetToken([n; 16]) };
        say(&mut rig, FORGER, &[renewed, Frame::RetireConnectionId { sequence: n.min(32).into() }], 0);
        collect(&mut rig);
    }
    assert_eq!(rig.victim.close_reason(rig.key).unwrap(), None);
    let mut turns = 0;
    let until = rig.now + Duration::from_secs(5);
    while rig.victim.deadline().is_some_and(|at| at < until) {
        rig.now = rig.now.max(rig.victim.deadline().unwrap());
        collect(&mut rig);
        turns += 1;
        assert!(turns < 1_000, "at {:?} again: {:?}", rig.now, rig.victim.deadline());
    }
}
