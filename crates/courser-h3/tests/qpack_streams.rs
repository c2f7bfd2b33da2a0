//! The two streams of QPACK in a connection (RFC 9204 section 4.2), with a peer that is made of bytes.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::ids::{Dir, Side, StreamId};
use courser_h3::testing::Memory;
use courser_h3::{Code, Config, Connection};
use http::Request;

/// A connection whose peer permits a table of 4096 bytes and 16 blocked streams.
fn greeted(side: Side, config: Config) -> (Connection, Memory) {
    let (mut connection, mut t) = (Connection::new(side, config, 1), Memory::new(side));
    connection.start(&mut t).unwrap();
    let (outcome, _) = receive(&mut connection, &mut t, side, 0, &[0, 4, 5, 1, 0x50, 0, 7, 16], false);
    assert_eq!(outcome, None);
    (connection, t)
}

/// Lets bytes arrive on a one-way stream of the peer; the code that the connection ended with.
fn receive(
    connection: &mut Connection,
    t: &mut Memory,
    side: Side,
    index: u64,
    bytes: &[u8],
    end: bool,
) -> (Option<Code>, StreamId) {
    let id = StreamId::new(side.peer(), Dir::Uni, index);
    t.receive(id, bytes, end);
    (connection.on_uni(t, id).err().map(|error| error.code), id)
}

#[test]
//= rfc9204#4.2-1 type=test
//= rfc9204#4.2-3 type=test
fn one_stream_of_each_kind_is_opened_and_none_is_closed() {
    for side in [Side::Client, Side::Server] {
        let (mut connection, mut t) = greeted(side, Config { grease: false, ..Config::default() });
        let (_, theirs) = receive(&mut connection, &mut t, side, 1, &[2, 0x3f, 0xe1, 0x1f], false);
        for round in 0..20 {
            // Both of ours are used: answers to insertions, and insertions for requests.
            let (outcome, _) = receive(&mut connection, &mut t, side, 1, &[0x41, b'a', 1, round], false);
            assert_eq!(outcome, None);
            if side.is_client() {
                let head = Request::get("https://a.example/").header("user-agent", "an agent").body(()).unwrap();
                assert!(connection.send_request(&mut t, &head.into_parts().0, true).unwrap().is_some());
            }
            connection.pump(&mut t).unwrap();
        }
        let ours = t.streams.iter().filter(|(id, _)| id.dir() == Dir::Uni && id.initiator() == side);
        let mut kinds: Vec<u8> = ours.clone().map(|(_, stream)| stream.outgoing[0]).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [0, 2, 3]);
        let used = ours.clone().filter(|(_, stream)| stream.outgoing.len() > 1).count();
        assert_eq!(used, if side.is_client() { 3 } else { 2 });
        assert!(ours.into_iter().all(|(_, stream)| !stream.finished && stream.reset.is_none()));
        assert_eq!(t.streams[&theirs].stopped, None);
    }
}

#[test]
//= rfc9204#4.2-2 type=test
fn a_second_stream_of_a_kind_ends_the_connection() {
    for side in [Side::Client, Side::Server] {
        for kind in [2, 3] {
            let (mut connection, mut t) = greeted(side, Config::default());
            assert_eq!(receive(&mut connection, &mut t, side, 1, &[kind], false).0, None);
            assert_eq!(receive(&mut connection, &mut t, side, 2, &[5 - kind], false).0, None);
            let outcome = receive(&mut connection, &mut t, side, 3, &[kind], false).0;
            assert_eq!(outcome, Some(Code::STREAM_CREATION_ERROR));
        }
    }
}

#[test]
//= rfc9204#4.2-4 type=test
fn the_end_of_such_a_stream_ends_the_connection() {
    for side in [Side::Client, Side::Server] {
        for kind in [2, 3] {
            let (mut connection, mut t) = greeted(side, Config::default());
            let outcome = receive(&mut connection, &mut t, side, 1, &[kind], true).0;
            assert_eq!(outcome, Some(Code::CLOSED_CRITICAL_STREAM));
            let (mut connection, mut t) = greeted(side, Config::default());
            let (outcome, id) = receive(&mut connection, &mut t, side, 1, &[kind], false);
            assert_eq!(outcome, None);
            t.stream(id).incoming_reset = Some(0x100);
            assert_eq!(connection.on_uni(&mut t, id).unwrap_err().code, Code::CLOSED_CRITICAL_STREAM);
        }
    }
}

#[test]
//= rfc9204#4.2-5 type=test
fn a_peer_may_open_them_where_the_settings_permit_no_table() {
    for side in [Side::Client, Side::Server] {
        let config = Config {
            qpack_table_capacity: 0,
            qpack_blocked_streams: 0,
            qpack_encoder_capacity: 0,
            qpack_encoder_blocked: 0,
            ..Config::default()
        };
        let (mut connection, mut t) = greeted(side, config);
        // With what is harmless: a capacity of zero, and the end of a stream that had no references.
        for (index, bytes) in [(1, [2, 0x20]), (2, [3, 0x44])] {
            let (outcome, id) = receive(&mut connection, &mut t, side, index, &bytes, false);
            assert_eq!((outcome, t.streams[&id].stopped), (None, None));
        }
    }
}
