//! Writes that the pool cuts short: who waits for memory gets it, and nobody waits for itself.

use core::time::Duration;

use super::pair::{Pair, Way};
use crate::config::Settings;
use crate::engine::Event;
use crate::ids::{ConnKey, Dir, StreamId};
use crate::stream::StreamEvent;

/// Windows of so many bytes, which is far more than a connection that sent little may hold for sending.
fn wide(bytes: u64) -> Settings {
    let mut settings = Settings { mtu_discovery: false, ..Settings::default() };
    (settings.stream_window, settings.stream_window_max) = (bytes, bytes);
    (settings.conn_window, settings.conn_window_max) = (bytes, bytes);
    settings
}

/// A connection with a stream of the client on which something was sent.
fn with_stream(settings: &Settings) -> (Pair, ConnKey, ConnKey, StreamId) {
    let mut pair = Pair::new(settings);
    let client = pair.connect(settings);
    let server = pair.establish();
    let id = pair.client.open_stream(client, Dir::Bi).unwrap().unwrap();
    pair.client.write(client, id, b"first").unwrap();
    pair.run_for(Duration::from_millis(100));
    pair.take(Way::Down);
    (pair, client, server, id)
}

#[test]
fn who_writes_before_it_reads_on_may_write_however_much_it_has_not_read() {
    const WINDOW: usize = 16 << 20;
    let settings = wide(WINDOW as u64);
    let (mut pair, client, server, id) = with_stream(&settings);
    let block = vec![7; 1 << 20];
    let mut written = b"first".len();
    let filled = pair.run_until(Duration::from_secs(60), |p| {
        written += p.client.write(client, id, &block[..block.len().min(WINDOW - written)]).unwrap();
        p.server.env.pool.held(server.index) >= WINDOW
    });
    assert!(filled, "{written} bytes were written");
    // An echo: what it reads it has to write first.
    let mut sent = 0;
    let ok = pair.run_until(Duration::from_secs(10), |p| {
        // The application's turn comes behind that of the engine.
        p.server.process(p.now);
        sent += p.server.write(server, id, &block[..16 << 10]).unwrap();
        sent >= 4 << 20
    });
    assert!(ok, "{sent} bytes were taken while {WINDOW} lie unread");
}

#[test]
fn who_holds_nothing_and_was_refused_hears_of_room_although_nothing_comes() {
    let (mut pair, _, server, id) = with_stream(&wide(1 << 20));
    pair.run_for(Duration::from_secs(5));
    pair.take(Way::Down);
    let free = pair.server.env.pool.room_bytes();
    // Others hold everything.
    pair.server.env.pool.set_limit(0);
    assert_eq!(pair.server.write(server, id, b"answer"), Ok(0));
    let told = |pair: &mut Pair| {
        let writable =
            |(key, event): &(ConnKey, Event)| *key == server && *event == Event::Stream(StreamEvent::Writable(id));
        pair.take(Way::Down).iter().any(writable)
    };
    pair.run_for(Duration::from_secs(3));
    assert!(!told(&mut pair), "there is no room yet");
    pair.server.env.pool.set_limit(free);
    pair.run_for(Duration::from_millis(50));
    assert!(told(&mut pair), "there is room now");
    assert_eq!(pair.server.write(server, id, b"answer"), Ok(6));
}
