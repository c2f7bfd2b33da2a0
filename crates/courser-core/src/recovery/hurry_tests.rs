//! Probes that leave before the timeout: when, how often, and that the timeout stays what it was.

use super::hurry::FIRST_FLIGHT;
use super::tests::{Rig, at, ms};
use super::timer::TimeoutOutcome;
use crate::ids::Space;

const INITIAL: TimeoutOutcome = TimeoutOutcome::Probe { space: Space::Initial, count: 1 };

/// A client at time 1000 whose first flight has left.
fn client() -> Rig {
    let mut rig = Rig::new();
    (rig.cx.handshake_confirmed, rig.cx.has_handshake_keys, rig.cx.peer_validated_address) = (false, false, false);
    rig.send_in(Space::Initial, 1000);
    rig.r.hurry(at(1000) + FIRST_FLIGHT);
    rig
}

#[test]
fn a_first_flight_is_repeated_once_before_the_timeout_which_then_counts_as_ever() {
    let mut rig = client();
    assert_eq!(rig.deadline(), Some(at(1000) + FIRST_FLIGHT));
    assert_eq!(rig.timeout(at(999) + FIRST_FLIGHT), TimeoutOutcome::NotDue);
    assert_eq!(rig.timeout(at(1000) + FIRST_FLIGHT), INITIAL);
    assert_eq!(rig.r.pto_count(), 0);
    rig.send_in(Space::Initial, 1125);
    // Three times 333 ms, then twice that: nobody can make it hurry again before something is acknowledged.
    for (n, due) in [(1, 1125 + 999), (2, 1125 + 999 + 1998)] {
        rig.r.hurry(at(1126));
        rig.r.on_unreadable(at(1200));
        assert_eq!(rig.deadline(), Some(at(due)));
        assert_eq!(rig.timeout(at(due)), TimeoutOutcome::Probe { space: Space::Initial, count: 2 });
        assert_eq!(rig.r.pto_count(), n);
        rig.send_in(Space::Initial, due);
    }
}

#[test]
fn an_answer_ends_the_hurry() {
    let mut rig = client();
    rig.ack_in(Space::Initial, 1040, &[(0, 0)]).unwrap();
    assert_eq!(rig.timeout(at(1000) + FIRST_FLIGHT), TimeoutOutcome::NotDue);
    let mut rig = client();
    _ = rig.r.discard(at(1040), Space::Initial, &mut |_, _| {});
    rig.send_in(Space::Handshake, 1040);
    assert_eq!(rig.deadline(), Some(at(1040 + 999)));
}

#[test]
fn nothing_leaves_early_while_nothing_is_in_flight_or_may_leave() {
    let mut rig = Rig::with_rtt(40);
    rig.r.hurry(at(5));
    assert_eq!((rig.deadline(), rig.timeout(at(9))), (None, TimeoutOutcome::NotDue));
    let mut rig = client();
    rig.cx.amplification_blocked = true;
    assert_eq!((rig.deadline(), rig.timeout(at(1500))), (None, TimeoutOutcome::NotDue));
}

#[test]
fn a_repeated_flight_is_answered_at_once_unless_it_is_the_rest_of_one() {
    let mut rig = client();
    rig.r.on_repeated(at(1019));
    assert_eq!(rig.deadline(), Some(at(1000) + FIRST_FLIGHT), "too soon to be an answer");
    rig.r.on_repeated(at(1060));
    assert_eq!(rig.timeout(at(1060)), INITIAL);
    rig.send_in(Space::Initial, 1060);
    rig.r.on_repeated(at(1200));
    assert_eq!(rig.timeout(at(1200)), TimeoutOutcome::NotDue, "once");
}

#[test]
fn what_cannot_be_read_yet_is_given_an_eighth_of_a_round_trip() {
    for (answer, probe) in [(1080, 1089), (1002, 1022)] {
        let mut rig = client();
        rig.r.on_unreadable(at(answer));
        assert_eq!(rig.timeout(at(probe)), TimeoutOutcome::NotDue);
        assert_eq!(rig.timeout(at(probe) + ms(1)), INITIAL);
    }
}

#[test]
fn who_is_heard_again_gets_a_probe_without_waiting_for_the_backed_off_timeout() {
    let mut rig = Rig::with_rtt(80);
    rig.send(1000);
    rig.r.on_heard_again(at(1100), &rig.rtt);
    assert!(rig.deadline() > Some(at(1100)), "no silence yet");
    let mut due = rig.deadline().unwrap();
    for _ in 0..4 {
        due = rig.deadline().unwrap();
        assert_eq!(rig.timeout(due), TimeoutOutcome::Probe { space: Space::Data, count: 2 });
        let pn = rig.r.next_pn(Space::Data);
        rig.r.on_packet_sent(Space::Data, pn, &super::tests::packet(due), &[]);
    }
    // The answer to the last probe may be on its way for 9/8 of a round trip.
    rig.r.on_heard_again(due + ms(10), &rig.rtt);
    assert_eq!(rig.deadline(), Some(due + ms(90)));
    assert_eq!(rig.timeout(due + ms(90)), TimeoutOutcome::Probe { space: Space::Data, count: 1 });
    assert_eq!(rig.r.pto_count(), 4, "the backoff stays");
    rig.r.on_heard_again(due + ms(200), &rig.rtt);
    assert!(rig.deadline() > Some(due + ms(1000)), "once in a silence");
    // What is acknowledged ends the silence, and a later one has a probe of its own.
    rig.ack(9000, &[(0, 4)]);
    rig.send(9001);
    let due = rig.deadline().unwrap();
    assert_eq!(rig.timeout(due), TimeoutOutcome::Probe { space: Space::Data, count: 2 });
    rig.send(9999);
    rig.r.on_heard_again(at(99_999), &rig.rtt);
    assert_eq!(rig.deadline().unwrap().min(at(99_999)), rig.deadline().unwrap());
    assert_eq!(rig.timeout(at(99_999)), TimeoutOutcome::Probe { space: Space::Data, count: 2 }, "whichever is sooner");
}

#[test]
fn a_first_flight_that_is_lost_says_nothing_about_congestion_and_a_later_one_does() {
    //= rfc9002#7.4-1 type=test
    for space in [Space::Initial, Space::Handshake] {
        let mut rig = Rig::new();
        rig.send_in(space, 1000);
        rig.send_in(space, 1125);
        rig.send_in(space, 1130);
        let out = rig.ack_in(space, 1165, &[(1, 1)]).unwrap();
        let tally = &out.paths[0];
        assert_eq!((out.lost, tally.lost_bytes, tally.released_bytes, tally.lost_sent), (1, 0, 1200, None));
        // What was sent after the first packet that arrived is lost like any other.
        (0..3).for_each(|_| _ = rig.send_in(space, 1200));
        let out = rig.ack_in(space, 1240, &[(5, 5)]).unwrap();
        assert_eq!((out.paths[0].lost_bytes, out.paths[0].released_bytes), (1200, 0));
    }
}
