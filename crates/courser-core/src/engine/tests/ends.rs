//! Connections that cannot go on: no packet number is left, or the network takes no datagrams of 1,200 bytes.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use super::pair::{Pair, Way};
use crate::config::Settings;
use crate::engine::{Engine, Event, Kind};
use crate::error::{CloseReason, TransportCode};
use crate::ids::{ConnKey, Dir, VARINT_MAX};
use crate::wire::frame::Frame;

/// Closes in a datagram; null keys hide nothing.
fn is_close(datagram: &[u8]) -> bool {
    let mut bytes = [0; 16];
    let mut w = crate::wire::Writer::new(&mut bytes);
    let code = TransportCode::NO_VIABLE_PATH;
    Frame::ConnectionClose { code, frame_type: 0, reason: b"" }.encode(&mut w).unwrap();
    let wanted = w.written();
    datagram.windows(wanted.len()).any(|w| w == wanted)
}

fn begin_numbers_at(engine: &mut Engine, key: ConnKey, next: u64) {
    let Kind::Live(conn) = &mut engine.table.get_mut(key).unwrap().kind else { panic!("no connection") };
    conn.begin_numbers_at(next);
}

#[test]
fn who_has_used_up_its_packet_numbers_ends_without_a_word() {
    //= rfc9000#12.3-3 type=test
    let settings = Settings { mtu_discovery: false, idle_timeout: Duration::from_secs(60), ..Settings::default() };
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    begin_numbers_at(&mut pair.client, client, VARINT_MAX - 200);
    let confirmed = |p: &mut Pair| p.events[0].iter().any(|(_, e)| *e == Event::Confirmed);
    assert!(pair.run_until(Duration::from_secs(5), confirmed));
    let told =
        |p: &Pair| p.events[0].iter().find_map(|(_, e)| if let Event::Closed(r) = e { Some(r.clone()) } else { None });
    assert_eq!(told(&pair), None);
    let largest = |p: &Pair| p.client.packet_log(client).unwrap().last_sent().map(|l| l.pn).max().unwrap();
    let mut last = 0;
    for _ in 0..1_000 {
        if pair.client.ping(client).is_err() {
            break;
        }
        pair.flush(Way::Up);
        pair.now += Duration::from_millis(1);
        last = pair.client.packet_log(client).map_or(last, |_| largest(&pair));
    }
    assert!((VARINT_MAX - 200..VARINT_MAX).contains(&last), "{last}");
    assert!(matches!(told(&pair), Some(CloseReason::Internal(_))), "{:?}", told(&pair));
    assert_eq!((pair.client.connections(), pair.client.route_count()), (0, 0));
    let sent = pair.sent[0];
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.sent[0], sent, "neither a close nor anything else");
    assert_eq!(pair.server.connections(), 1, "its peer was not told");
}

#[test]
fn where_1200_bytes_do_not_pass_there_is_no_connection() {
    //= rfc9000#14-1 type=test
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    pair.link_mtu = 1199;
    let client = pair.connect(&settings);
    let start = pair.now;
    let closed = |p: &mut Pair| p.events[0].contains(&(client, Event::Closed(CloseReason::NoPath)));
    assert!(pair.run_until(Duration::from_secs(5), closed), "{:?}", pair.events[0]);
    assert_eq!((pair.sent, pair.now), ([0, 0], start), "told at once, and nothing ever left");
    pair.run_for(Duration::from_secs(20));
    assert_eq!((pair.sent[0], pair.client.connections()), (0, 0));
}

#[test]
fn a_path_that_no_longer_takes_1200_bytes_carries_nothing_but_the_close() {
    //= rfc9000#14.2-4 type=test
    for mtu_discovery in [false, true] {
        let settings = Settings { mtu_discovery, ..Settings::default() };
        let mut pair = Pair::new(&settings);
        let client = pair.connect(&settings);
        let server = pair.establish();
        pair.transfer(client, server, &[1; 100_000]);
        pair.run_for(Duration::from_secs(1));
        pair.link_mtu = 1199;
        let refused = pair.client.stats().too_big;
        let left = Arc::new(Mutex::new(Vec::new()));
        let seen = left.clone();
        pair.filter = Box::new(move |way, _, datagram| {
            if way == Way::Up {
                seen.lock().unwrap().push(datagram.clone());
            }
            true
        });
        let id = pair.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        pair.client.write(client, id, &[2; 500_000]).unwrap();
        pair.run_for(Duration::from_secs(5));
        let left = left.lock().unwrap();
        assert!(
            !left.is_empty() && left.iter().all(|d| is_close(d)),
            "{:?}",
            left.iter().map(Vec::len).collect::<Vec<_>>()
        );
        assert!(pair.take(Way::Up).contains(&(client, Event::Closed(CloseReason::NoPath))));
        let told = pair.take(Way::Down).into_iter().find_map(|(_, e)| match e {
            Event::Closed(CloseReason::PeerTransport { code, .. }) => Some(code),
            _ => None,
        });
        assert_eq!(told, Some(TransportCode::NO_VIABLE_PATH));
        // A window of 1,472 bytes is refused as too large first, and then that of 1,200.
        assert!((1..=20).contains(&(pair.client.stats().too_big - refused)), "{:?}", pair.client.stats());
    }
}
