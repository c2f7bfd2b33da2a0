//! The edges of the rules: what is just not counted, and what must not teach anything.

use super::tests::{Rig, at, packet};
use super::*;
use crate::spans::{FrameKind, FrameSet};

fn send(rig: &mut Rig, t: u64, change: impl Fn(&mut SentPacket)) -> u64 {
    let pn = rig.r.next_pn(Space::Data);
    let mut sent = packet(at(t));
    change(&mut sent);
    rig.r.on_packet_sent(Space::Data, pn, &sent, &[]);
    pn
}

#[test]
fn only_lost_packets_above_the_smallest_size_speak_about_the_size() {
    let mut rig = Rig::with_rtt(40);
    for size in [1199, 1200, 1201, 1452, 1453] {
        send(&mut rig, 1000, |p| p.size = size);
    }
    // On a path that is not in use, nor when it was a probe, a loss says nothing about this one.
    send(&mut rig, 1000, |p| (p.size, p.path) = (1452, PathId(1)));
    send(&mut rig, 1000, |p| (p.size, p.mtu_probe) = (1500, true));
    (0..4).for_each(|_| _ = rig.send(1000));
    let out = rig.ack(1040, &[(10, 10)]);
    assert_eq!((rig.lost(), out.lost_large), (vec![0, 1, 2, 3, 4, 5, 6, 7], 3));
    assert_eq!(out.mtu_lost, Some((6, 1500)));
}

#[test]
fn what_was_never_lost_teaches_nothing_about_reordering() {
    let mut rig = Rig::with_rtt(40);
    (0..10).for_each(|_| _ = rig.send(1000));
    rig.ack(1040, &[(0, 9)]);
    (0..4).for_each(|_| _ = rig.send(2000));
    rig.ack(2040, &[(11, 13)]);
    assert_eq!(rig.lost(), [10], "three packets overtook it");
    // A packet of another path that was lost too soon says nothing about this path either.
    let stray = send(&mut rig, 3000, |p| p.path = PathId(1));
    (0..8).for_each(|_| _ = rig.send(3000));
    rig.ack(3040, &[(stray + 1, stray + 8)]);
    rig.ack(3041, &[(stray, stray)]);
    rig.fates.clear();
    let next = rig.send(4000);
    (0..3).for_each(|_| _ = rig.send(4000));
    rig.ack(4040, &[(next + 1, next + 3)]);
    assert_eq!(rig.lost(), [next], "the threshold is three as before");
}

#[test]
fn a_probe_repeats_the_oldest_packet_that_nobody_acknowledged() {
    let mut rig = Rig::with_rtt(40);
    let oldest = |rig: &mut Rig| {
        let mut frames = None;
        rig.r.repeat_oldest(Space::Data, &mut |set, _| frames = Some(set));
        frames
    };
    let of = |kind| FrameSet::of(&[kind]);
    assert_eq!(oldest(&mut rig), None);
    let kinds = [FrameKind::Ack, FrameKind::Ping, FrameKind::Stream, FrameKind::MaxData, FrameKind::Crypto];
    for kind in kinds {
        let asks = kind != FrameKind::Ack;
        send(&mut rig, 1000, |p| (p.frames, p.ack_eliciting, p.in_flight) = (of(kind), asks, asks));
    }
    assert_eq!(oldest(&mut rig), Some(of(FrameKind::Ping)), "an ACK asks for nothing");
    rig.ack(1040, &[(1, 1)]);
    assert_eq!(oldest(&mut rig), Some(of(FrameKind::Stream)), "what was acknowledged is settled");
    rig.ack(1041, &[(4, 4)]);
    let _ = rig.timeout(at(1100));
    assert_eq!(rig.lost(), [0, 2, 3], "after the time threshold");
    assert_eq!(oldest(&mut rig), None, "and what was lost is repeated by its owner");
}
