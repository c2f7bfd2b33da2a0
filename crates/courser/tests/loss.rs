//! The faces over a path that loses datagrams.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use common::{PATIENCE, endpoints, loopback, pattern};
use courser::Settings;
use courser_sim::LinkConfig;
use courser_sim::relay::Relay;

#[test]
fn a_close_behind_the_last_acknowledgement_loses_nothing() {
    for seed in 1..=3 {
        let mut settings = Settings::default();
        settings.idle_timeout = Duration::from_secs(2);
        let (server, client) = endpoints(settings);
        let link = LinkConfig::new().delay_us(2_000).loss(0.05);
        let relay = Relay::start(loopback(), server.local_addr(), link.clone(), link, seed).unwrap();
        let sent = pattern(seed, 300_000);
        let reading = thread::spawn(move || {
            let connection = server.accept().unwrap().accept().unwrap();
            let mut receive = connection.accept_uni().unwrap();
            // The close comes while most is unread here.
            let closed = connection.closed();
            receive.set_timeout(Some(PATIENCE));
            let mut all = Vec::new();
            receive.read_to_end(&mut all).unwrap();
            (all, closed)
        });
        let connection = client.connect_to(relay.addr(), "localhost").unwrap();
        let mut send = connection.open_uni().unwrap();
        send.set_timeout(Some(PATIENCE));
        // The receiver's window has room for all of it: nothing but the network delays the acknowledgements.
        for piece in sent.chunks(50_000) {
            send.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        send.finish().unwrap();
        send.wait_acked().unwrap();
        connection.close(9, b"done");
        drop((send, connection));
        let (all, closed) = reading.join().unwrap();
        assert!(all == sent, "seed {seed}: {} of {} bytes", all.len(), sent.len());
        // The close itself may be lost; then the server notices by silence.
        let told = closed.application() == Some((9, &b"done"[..]));
        assert!(told || closed.to_string().contains("idle"), "seed {seed}: {closed}");
        assert!(relay.stats().up.dropped() > 0, "seed {seed}: the path lost nothing");
    }
}
