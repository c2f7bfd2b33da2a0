//! 0-RTT at a client: remembered settings, and what becomes of them.

use super::*;
use crate::{Code, Settings};

/// What a server with this configuration permits.
fn permits(config: &Config) -> Settings {
    config.settings(true)
}

/// A client that remembers `before` of a server that permits `now`; nothing was delivered yet.
fn resumed(before: Settings, now: Config) -> Pair {
    let mut pair = Pair::silent(Config::default(), now);
    pair.client.resume(before);
    pair.client.start(&mut pair.c).unwrap();
    pair.server.start(&mut pair.s).unwrap();
    pair
}

/// The code with which the client closes, when the server takes 0-RTT or not. It hears of that before or behind the SETTINGS.
fn outcome(before: Settings, now: Config, accepted: bool, first: bool) -> Option<Code> {
    let mut pair = resumed(before, now);
    if first {
        pair.client.on_early_data(&mut pair.c, accepted).unwrap();
    }
    pair.turn();
    if !first {
        let _ = pair.client.on_early_data(&mut pair.c, accepted);
    }
    let code = pair.client.error().map(|e| e.code);
    assert_eq!(pair.c.closed.as_ref().map(|(code, _)| *code), code.map(|code| code.0));
    code
}

#[test]
fn a_server_that_takes_early_data_reduces_nothing_and_leaves_nothing_out() {
    let rich = Config { datagrams: true, webtransport_sessions: 3, ..Config::default() };
    let but = |change: fn(&mut Config)| {
        let mut config = rich.clone();
        change(&mut config);
        config
    };
    let settings = Some(Code::SETTINGS_ERROR);
    let qpack = Some(Code::QPACK_DECODER_STREAM_ERROR);
    //= rfc9114#7.2.4.2-11 type=test
    //= rfc9114#7.2.4.2-12 type=test
    //= rfc9204#3.2.3-2 type=test
    //= rfc9297#2.1.1-5 type=test
    type Change = fn(&mut Config);
    let table: [(Change, Option<Code>); 14] = [
        (|_| {}, None),
        (|c| c.max_field_section_size -= 1, settings),
        (|c| c.max_field_section_size += 1, None),
        (|c| c.max_field_section_size = (1 << 62) - 1, settings),
        (|c| c.qpack_blocked_streams -= 1, settings),
        (|c| c.qpack_blocked_streams = 0, settings),
        (|c| c.qpack_blocked_streams += 1, None),
        (|c| c.qpack_table_capacity -= 1, qpack),
        (|c| c.qpack_table_capacity += 1, qpack),
        (|c| c.qpack_table_capacity = 0, qpack),
        (|c| c.connect_protocol = false, settings),
        (|c| c.datagrams = false, settings),
        (|c| c.webtransport_sessions = 2, settings),
        (|c| c.webtransport_sessions = 4, None),
    ];
    for (n, (change, expected)) in table.into_iter().enumerate() {
        for first in [true, false] {
            assert_eq!(outcome(permits(&rich), but(change), true, first), expected, "row {n}, {first}");
            assert_eq!(outcome(permits(&rich), but(change), false, first), None, "row {n}, rejected, {first}");
        }
    }
    // Without a memory of them, any settings may come.
    let mut pair = Pair::silent(Config::default(), rich);
    pair.client.on_early_data(&mut pair.c, true).unwrap();
    pair.server.start(&mut pair.s).unwrap();
    pair.turn();
    assert_eq!(pair.client.error(), None);
}

#[test]
fn what_is_remembered_holds_until_the_settings_come() {
    let small = Config { max_field_section_size: 200, ..Config::default() };
    let mut pair = resumed(permits(&small), Config { max_field_section_size: 5000, ..Config::default() });
    let mut large = get("https://a.example/");
    large.headers.insert("x-long", HeaderValue::try_from("l".repeat(300)).unwrap());
    //= rfc9114#7.2.4.2-6 type=test
    assert_eq!(pair.client.send_request(&mut pair.c, &large, true), Err(Error::TooLarge));
    let id = pair.client.send_request(&mut pair.c, &get("https://a.example/"), true).unwrap().unwrap();
    assert_eq!(pair.client.peer_settings(), None);
    pair.client.on_early_data(&mut pair.c, true).unwrap();
    assert_eq!(pair.client.send_request(&mut pair.c, &large, true), Err(Error::TooLarge));
    pair.turn();
    //= rfc9114#7.2.4.2-7 type=test
    assert!(pair.client.send_request(&mut pair.c, &large, true).is_ok());
    assert_eq!(pair.request(id).uri.host(), Some("a.example"));
}

#[test]
fn behind_a_rejection_the_defaults_hold() {
    let small = Config { max_field_section_size: 200, connect_protocol: false, ..Config::default() };
    let mut pair = resumed(permits(&small), Config::default());
    let mut large = get("https://a.example/");
    large.headers.insert("x-long", HeaderValue::try_from("l".repeat(300)).unwrap());
    assert_eq!(pair.client.send_request(&mut pair.c, &large, true), Err(Error::TooLarge));
    pair.client.on_early_data(&mut pair.c, false).unwrap();
    assert!(pair.client.send_request(&mut pair.c, &large, true).is_ok());
}

#[test]
fn nothing_that_is_sent_early_refers_to_a_table() {
    let mut pair = resumed(permits(&Config::default()), Config { qpack_table_capacity: 0, ..Config::default() });
    let mut head = get("https://a.example/");
    head.headers.insert("user-agent", HeaderValue::from_static("the same in each of them"));
    let ids: Vec<StreamId> =
        (0..3).map(|_| pair.client.send_request(&mut pair.c, &head, true).unwrap().unwrap()).collect();
    let own: Vec<StreamId> = pair.client.own_streams().collect();
    // The type of the stream, and nothing more.
    assert_eq!(pair.c.streams[&own[1]].outgoing, [2]);
    pair.client.on_early_data(&mut pair.c, false).unwrap();
    pair.turn();
    for id in ids {
        assert_eq!(pair.request(id).headers["user-agent"], "the same in each of them");
    }
}

#[test]
fn the_least_of_two_memories_is_kept_by_servers_of_both() {
    let a = Config { max_field_section_size: 300, datagrams: true, ..Config::default() }.settings(true);
    let b = Config { qpack_table_capacity: 100, connect_protocol: false, ..Config::default() }.settings(true);
    let least = a.least(&b);
    assert_eq!(least, b.least(&a));
    assert_eq!((least.max_field_section_size, least.qpack_max_table_capacity, least.datagrams), (300, 0, false));
    assert!(a.check_kept(&least).is_ok() && b.check_kept(&least).is_ok());
    assert!(a.check_kept(&b).is_err() && b.check_kept(&a).is_err());
    assert_eq!(a.least(&a), a);
}

#[test]
fn a_server_remembers_nothing() {
    let mut pair = Pair::silent(Config::default(), Config::default());
    pair.server.resume(Settings::default());
    assert!(pair.server.permitted().is_none());
}
