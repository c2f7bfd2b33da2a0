//! G18: whatever an application calls, in whatever order, on whatever handle: nothing panics, nothing is left, and a model agrees.

use courser_core::config::Settings;
use courser_core::engine::Event;
use courser_core::ids::Dir;
use courser_core::stream::Read;
use courser_testing::caller::{Caller, Reached};
use courser_testing::duo::Duo;

/// Calls of one seed; a failure names its seed.
const CALLS: u64 = 10_000;

#[test]
fn random_calls_on_random_handles_do_what_a_model_says_and_leave_nothing() {
    // A release command makes ten million: see docs/testing.md.
    let calls: u64 = std::env::var("COURSER_CALLS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let first: u64 = std::env::var("COURSER_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut sum = Reached::default();
    for seed in first..first + calls.div_ceil(CALLS) {
        let ran = std::panic::catch_unwind(|| Caller::new(seed).run(CALLS));
        let Ok(ran) = ran else { panic!("seed {seed}") };
        sum.calls += ran.calls;
        sum.accepted += ran.accepted;
        sum.mistakes += ran.mistakes;
        sum.bytes += ran.bytes;
        sum.finished += ran.finished;
        sum.datagrams += ran.datagrams;
        sum.starved += ran.starved;
    }
    println!("{sum:?}");
    // It reached what it is about.
    assert!(sum.accepted > calls / 2_000 && sum.mistakes > calls / 20, "{sum:?}");
    assert!(sum.bytes > calls && sum.finished > calls / 10_000 && sum.datagrams > calls / 10_000, "{sum:?}");
}

#[test]
fn a_stream_that_the_peer_opened_has_room_before_anything_is_written_and_none_after_its_end() {
    let settings = Settings::default();
    let mut duo = Duo::null(&settings);
    let (client, server) = duo.connect(&settings);
    let id = duo.client.open_stream(client, Dir::Bi).unwrap().unwrap();
    let next = duo.client.open_stream(client, Dir::Bi).unwrap().unwrap();
    assert_eq!(duo.client.write(client, next, b"x"), Ok(1));
    (0..5).for_each(|_| duo.round());
    // It exists because a later one does, and nothing came on it.
    let room = duo.server.send_room(server, id).unwrap();
    let data = vec![0; 4 << 20];
    assert_eq!(duo.server.write(server, id, &data), Ok(room));
    assert!(room > 0);
    duo.server.finish(server, next).unwrap();
    assert_eq!(duo.server.send_room(server, next), Ok(0), "what was finished takes nothing");
}

#[test]
fn nothing_follows_the_end_of_a_connection_whatever_is_called_then() {
    let settings = Settings::default();
    let mut duo = Duo::null(&settings);
    let (client, server) = duo.connect(&settings);
    let id = duo.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    assert_eq!(duo.client.write(client, id, &[7; 1_500]), Ok(1_500));
    (0..5).for_each(|_| duo.round());
    duo.client.close(duo.now, client, 0, b"").unwrap();
    (0..5).for_each(|_| duo.round());
    let events: Vec<Event> = core::iter::from_fn(|| duo.server.poll_event()).map(|(_, event)| event).collect();
    assert!(matches!(events.last(), Some(Event::Closed(_))), "{events:?}");
    // What came can be read, in pieces: one that leaves something behind asks to be told of the rest.
    let mut piece = [0; 100];
    assert_eq!(duo.server.accept_stream(server, Dir::Uni), Ok(Some(id)));
    for _ in 0..14 {
        assert_eq!(duo.server.read(server, id, &mut piece), Ok(Read::Bytes(100)));
        duo.server.process(duo.now);
        assert_eq!(duo.server.poll_event(), None);
    }
}
