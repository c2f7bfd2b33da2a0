//! What must hold for any text that a program gives as an address or a user as a configuration, for fuzzers and for plain tests.

use super::{Config, uri::Target};

/// Reads an address.
///
/// # Panics
/// When one that is understood means something else once it is written anew.
pub fn address(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match Target::parse(text) {
        Ok(target) => {
            let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
            let again = format!("{}://{host}:{}", target.protocol.name(), target.port);
            assert_eq!(Target::parse(&again), Ok(target), "{again}");
        }
        Err(error) => assert!(error.to_string().contains("quic://HOST:PORT"), "the remedy is told"),
    }
}

/// Reads a configuration file of programs.
///
/// # Panics
/// When something is taken that is beyond its limit.
pub fn config(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match Config::parse(text) {
        Ok(config) => {
            assert!(config.look <= core::time::Duration::from_millis(10), "nobody looks around for longer");
            assert!(config.name.len() <= crate::control::NAME_MAX && !config.socket.as_os_str().is_empty());
        }
        Err(what) => assert!(!what.is_empty()),
    }
}
