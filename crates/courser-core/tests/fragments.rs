//! Every second byte of a window, each in a frame of its own (G7): what that holds, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::config::Settings;
use courser_core::ids::{Dir, Level, Side, StreamId};
use courser_core::wire::frame::Frame;
use courser_testing::alloc::{Counting, now};
use courser_testing::rig::{Plan, Rig, Stage, encode};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Which fragment comes as the n-th, of so many.
type Order = fn(u64, u64) -> u64;

/// Gives fragments until the window is full or the connection closes: how many, the most that was held, and the code.
fn bomb(victim: Side, window: u64, order: Order) -> (u64, i64, Option<u64>) {
    let mut settings = Settings::default();
    (settings.stream_window, settings.stream_window_max) = (window, window);
    (settings.conn_window, settings.conn_window_max) = (window, window);
    settings.validate().unwrap();
    let mut rig = Rig::new(Plan { settings, ..Plan::new(victim, Stage::Confirmed) });
    let (id, before, count) = (StreamId::new(victim.peer(), Dir::Bi, 0), now().live, window / 2 - 1);
    let (mut most, mut given) = (0, 0);
    for first in (0..count).step_by(40) {
        let numbers = first..count.min(first + 40);
        given += numbers.end - numbers.start;
        let one = |n: u64| Frame::Stream {
            id,
            offset: 2 * order(n, count) + 1,
            data: b"x",
            fin: false,
            length_present: true,
        };
        rig.give(Level::OneRtt, &encode(&numbers.map(one).collect::<Vec<_>>()));
        let code = rig.collect().code();
        most = most.max(now().live - before);
        if code.is_some() {
            return (given, most, code);
        }
    }
    (given, most, None)
}

#[test]
fn every_second_byte_of_a_window_holds_four_windows_at_most_in_whatever_order_they_come() {
    let orders: [(&str, Order); 3] = [
        ("forwards", |n, _| n),
        ("backwards", |n, count| count - 1 - n),
        // An odd step that shares no factor with the number of fragments goes through all of them.
        ("scattered", |n, count| (n * 7_919 + 5) % count),
    ];
    for victim in [Side::Server, Side::Client] {
        for window in [64 << 10, 1 << 20] {
            for (name, order) in orders {
                let (given, most, code) = bomb(victim, window, order);
                println!("{victim:?}, window {window}, {name}: {given} fragments, {most} bytes at most, code {code:?}");
                assert!(most <= 4 * i64::try_from(window).unwrap(), "{victim:?} {window} {name}: {most} bytes");
                assert_eq!(
                    code,
                    Some(0xa),
                    "PROTOCOL_VIOLATION for what no honest peer makes, before the window is full"
                );
                // The worst honest path loses every second packet: a gap for 2,400 bytes. It is far from the limit.
                assert!(given > window / 1_200, "{victim:?} {window} {name}: {given} fragments");
            }
        }
    }
}
