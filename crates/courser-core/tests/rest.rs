//! What an idle connection gives back, and that nobody at the other end can tell.

use core::cell::Cell;
use core::time::Duration;

use courser_core::config::Settings;
use courser_core::crypto::{Material, Opener, Sealer};
use courser_core::ids::{Dir, Level, Side};
use courser_core::stream::Read;
use courser_core::wire::frame::Frame;
use courser_testing::alloc::{Counting, count};
use courser_testing::duo::Duo;
use courser_testing::keys::{Watch, Watched};
use courser_testing::rig::{Plan, Rig, Stage};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SECOND: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_millis(100);

thread_local! {
    /// Key objects that the engine under test made, Initial ones apart.
    static MADE: Cell<usize> = const { Cell::new(0) };
}

/// Counts keys.
struct Counted;

impl Watch for Counted {
    fn sealer(&self, _: &Material, made: Box<dyn Sealer>) -> Box<dyn Sealer> {
        MADE.set(MADE.get() + 1);
        made
    }

    fn opener(&self, _: &Material, made: Box<dyn Opener>) -> Box<dyn Opener> {
        MADE.set(MADE.get() + 1);
        made
    }
}

/// A connection that was confirmed just now.
fn confirmed(victim: Side, dormant_after: Option<Duration>) -> Rig {
    let mut plan = Plan::new(victim, Stage::Confirmed);
    (plan.settings.mtu_discovery, plan.settings.dormant_after) = (false, dormant_after);
    plan.engine = |config| config.keys = Box::new(Watched(Counted));
    Rig::new(plan)
}

/// A confirmed connection with nothing on its way, whose victim goes to rest after that time.
fn quiet(victim: Side, dormant_after: Option<Duration>) -> Rig {
    let mut rig = confirmed(victim, dormant_after);
    for _ in 0..3 {
        rig.collect();
        rig.acknowledge();
    }
    rig.collect();
    rig
}

/// Runs `f` and says how many key objects were made meanwhile.
fn made(f: impl FnOnce()) -> usize {
    let before = MADE.get();
    f();
    MADE.get() - before
}

#[test]
fn dormant_keys_are_made_again_by_the_next_packet_either_way() {
    for victim in [Side::Client, Side::Server] {
        let mut rig = quiet(victim, Some(AFTER));
        rig.pass(SECOND);
        let come = made(|| drop(rig.inject_frames(Level::OneRtt, &[Frame::Ping])));
        assert!((2..=3).contains(&come), "{victim:?} opens with keys of this phase and of the next: {come}");
        rig.pass(SECOND);
        let left = made(|| {
            rig.victim.ping(rig.key).unwrap();
            assert!(!rig.collect().datagrams.is_empty());
        });
        assert_eq!(left, 1, "{victim:?} seals with one key");
        rig.acknowledge();
        let busy = made(|| drop(rig.inject_frames(Level::OneRtt, &[Frame::Ping])));
        assert_eq!(busy, 0, "{victim:?} is awake");
    }
}

#[test]
fn who_is_woken_soon_rests_later_and_who_slept_long_begins_anew() {
    let mut rig = quiet(Side::Server, Some(AFTER));
    rig.pass(SECOND);
    let woken = |rig: &mut Rig, count: usize| {
        let pause = |rig: &mut Rig| {
            rig.pass(4 * AFTER);
            made(|| drop(rig.inject_frames(Level::OneRtt, &[Frame::Ping]))) > 0
        };
        (0..count).filter(|_| pause(rig)).count()
    };
    // Some of the first rests are short ones; then it is awake for once, twice, four times as long.
    let first = woken(&mut rig, 20);
    assert!((2..=8).contains(&first), "{first} of 20 found it at rest");
    assert_eq!(woken(&mut rig, 20), 0, "it stays awake for those who come every now and then");
    rig.pass(20 * SECOND);
    assert!((2..=6).contains(&woken(&mut rig, 20)), "whoever was idle for long may be idle again");
}

#[test]
fn an_acknowledgement_that_leaves_late_wakes_a_connection_for_a_moment() {
    for victim in [Side::Client, Side::Server] {
        let mut rig = quiet(victim, Some(AFTER));
        rig.pass(2 * SECOND);
        // It is held back for longer than a young connection is awake.
        rig.inject_frames(Level::OneRtt, &[Frame::Ping]);
        rig.pass(Duration::from_millis(25) + AFTER);
        let left = made(|| {
            rig.victim.ping(rig.key).unwrap();
            assert!(!rig.collect().datagrams.is_empty());
        });
        assert_eq!(left, 1, "{victim:?} slept again");
    }
}

#[test]
fn keys_stay_when_they_shall() {
    let mut rig = quiet(Side::Server, None);
    rig.pass(SECOND);
    assert_eq!(made(|| drop(rig.inject_frames(Level::OneRtt, &[Frame::Ping]))), 0);
}

#[test]
fn a_dormant_connection_answers_as_any_other() {
    let answer = |dormant_after| {
        let mut rig = quiet(Side::Server, dormant_after);
        let mut sizes = Vec::new();
        for _ in 0..3 {
            rig.pass(SECOND);
            let sent = rig.inject_frames(Level::OneRtt, &[Frame::Ping]).datagrams;
            rig.now += Duration::from_millis(25);
            let later = rig.collect().datagrams;
            sizes.push((sent.iter().map(Vec::len).collect::<Vec<_>>(), later.iter().map(Vec::len).collect::<Vec<_>>()));
        }
        sizes
    };
    let dormant = answer(Some(AFTER));
    assert!(dormant.iter().all(|(now, later)| now.len() + later.len() == 1), "{dormant:?}");
    assert_eq!(dormant, answer(None), "sizes and times");
}

#[test]
fn a_stranger_wakes_a_connection_once_in_a_while_and_no_more() {
    let mut rig = quiet(Side::Server, Some(AFTER));
    rig.pass(SECOND);
    let forged = rig.forge(Level::OneRtt, &[1; 20]);
    let woken = made(|| {
        for _ in 0..1000 {
            let mut copy = forged.clone();
            *copy.last_mut().unwrap() ^= 1;
            rig.deliver(&mut copy);
            rig.now += Duration::from_millis(1);
            rig.collect();
        }
    });
    assert_eq!(rig.victim.conn_stats(rig.key).unwrap().undecryptable, 1000);
    // Two keys for opening each time.
    let most = 2 * usize::try_from(SECOND.as_millis() / AFTER.as_millis()).unwrap();
    assert!((2..=most).contains(&woken), "{woken} key objects made in a second, by 1000 datagrams");
    rig.inject_frames(Level::OneRtt, &[Frame::Ping]);
    assert_eq!(rig.victim.conn_stats(rig.key).unwrap().undecryptable, 1000, "honest packets open as before");
}

#[test]
fn what_wakes_takes_memory_once_and_then_no_more() {
    let mut settings = Settings::default();
    settings.max_streams_uni = 4;
    let mut duo = Duo::null(&settings);
    let (client, server) = duo.connect(&settings);
    let id = duo.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    let (out, mut into, mut moved) = (vec![7; 64 << 10], vec![0; 64 << 10], 0);
    let mut round = |duo: &mut Duo| {
        duo.client.write(client, id, &out).unwrap();
        duo.round();
        while let Ok(Read::Bytes(n)) = duo.server.read(server, id, &mut into) {
            moved += n;
        }
        while duo.client.poll_event().is_some() || duo.server.poll_event().is_some() {}
    };
    (0..600).for_each(|_| round(&mut duo));
    for _ in 0..4 {
        for _ in 0..40 {
            duo.now += Duration::from_millis(50);
            duo.round();
        }
        // As long as any warm-up: histories see the gaps that senders leave on purpose.
        let ((), waking) = count(|| (0..1000).for_each(|_| round(&mut duo)));
        let datagrams = duo.datagrams;
        let ((), after) = count(|| (0..300).for_each(|_| round(&mut duo)));
        assert!(waking.calls > 0 && duo.datagrams - datagrams > 2000, "{waking:?}");
        assert_eq!(after.calls, 0);
    }
}

#[test]
fn a_connection_that_rests_holds_a_fraction_of_what_it_held() {
    let settings = Settings::default();
    let mut duo = Duo::null(&settings);
    let rest = |duo: &mut Duo| {
        for _ in 0..100 {
            duo.now += Duration::from_millis(50);
            duo.round();
            while duo.client.poll_event().is_some() || duo.server.poll_event().is_some() {}
        }
    };
    // What the engines need once, of whatever connection, is not counted.
    duo.connect(&settings);
    rest(&mut duo);
    let ((), made) = count(|| {
        for _ in 0..20 {
            duo.connect(&settings);
        }
    });
    let ((), rested) = count(|| rest(&mut duo));
    let (at_once, each) = (made.live / 40, (made.live + rested.live) / 40);
    assert!(each * 6 < at_once * 5, "{each} of {at_once} bytes at either end");
}

#[test]
fn what_follows_a_short_beginning_wakes_a_connection_for_a_moment_each() {
    for victim in [Side::Client, Side::Server] {
        let mut rig = confirmed(victim, Some(AFTER));
        rig.collect();
        rig.acknowledge();
        // A late acknowledgement with a search for larger datagrams behind it, and the same from the other end.
        for (at, pause) in [25, 15].into_iter().enumerate() {
            rig.pass(Duration::from_millis(pause));
            let woken = made(|| drop(rig.inject_frames(Level::OneRtt, &[Frame::Ping])));
            assert!(woken > 0, "{victim:?} rests before the {at}. thing that comes late");
            rig.collect();
        }
        rig.pass(Duration::from_millis(40));
        assert!(made(|| drop(rig.inject_frames(Level::OneRtt, &[Frame::Ping]))) > 0, "{victim:?} rests at last");
    }
}
