//! The host's own echo programs: what the debug command line tests itself with, over each protocol.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(target_os = "linux")]

mod common;

use common::Place;
use courser_stack::host::Config;

#[test]
fn the_host_echoes_to_itself_over_each_protocol() {
    let place = Place::new(Config::default());
    for protocol in ["quic", "tcp"] {
        let said = place.ask(&format!("test echo server uri {protocol}://127.0.0.1:0"));
        let uri = said["text"].as_str().unwrap().strip_prefix("echoing at ").unwrap().to_owned();
        let report = place.ask(&format!("test echo client uri {uri} nclient 2/3 bytes 300K"));
        let streams = if protocol == "quic" { 6 } else { 2 };
        assert_eq!((report["streams"].as_u64(), report["bytes"].as_u64()), (Some(streams), Some(streams * 300 * 1024)));
        assert_eq!(report["verified"], true);
    }
    assert_eq!(place.host().applications(), 2, "the servers; the clients are gone");
    assert_eq!(place.ask("test echo stop")["text"], "2 echo servers ended");
    assert_eq!(place.host().applications(), 0);
}
