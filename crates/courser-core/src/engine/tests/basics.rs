//! Handshake, transfer, close.

use core::time::Duration;

use super::pair::{Pair, Way};
use crate::config::Settings;
use crate::engine::Event;
use crate::error::CloseReason;

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn a_handshake_a_transfer_and_a_close() {
    let settings = Settings::default();
    let mut pair = Pair::new(&settings);
    let client = pair.connect(&settings);
    let server = pair.establish();
    let sent = data(300_000);
    assert!(pair.transfer(client, server, &sent) == sent);
    pair.client.close(pair.now, client, 7, b"bye").unwrap();
    pair.run_for(Duration::from_secs(60));
    let expected = CloseReason::PeerApplication { code: 7, reason: b"bye".to_vec() };
    assert!(pair.take(Way::Down).iter().any(|(_, e)| *e == Event::Closed(expected.clone())));
    pair.assert_legal();
    for engine in [&pair.client, &pair.server] {
        assert_eq!((engine.connections(), engine.route_count()), (0, 0));
        assert_eq!(engine.pool_stats().in_use, 0);
    }
}
