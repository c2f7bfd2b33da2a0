//! How long each part of an exchange took.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// The parts of one exchange; times from the same start, none where the part was not needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Until the name was resolved.
    #[serde(serialize_with = "seconds")]
    pub dns: Option<Duration>,
    /// Until the TCP connection stood; none with QUIC.
    #[serde(serialize_with = "seconds")]
    pub connect: Option<Duration>,
    /// Until TLS, or the QUIC handshake, was done; none with 0-RTT, which does not wait for it.
    #[serde(serialize_with = "seconds")]
    pub handshake: Option<Duration>,
    /// Until the header section of the answer was there.
    #[serde(serialize_with = "seconds")]
    pub first_byte: Option<Duration>,
    /// Until the last byte.
    #[serde(serialize_with = "seconds")]
    pub total: Option<Duration>,
}

fn seconds<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match d {
        // Microseconds are what the clock is good for.
        Some(d) => s.serialize_f64((d.as_secs_f64() * 1e6).round() / 1e6),
        None => s.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_and_what_was_not_needed_is_null() {
        let t = Timing { dns: Some(Duration::from_micros(1_500)), ..Timing::default() };
        let v = serde_json::to_value(t).unwrap();
        assert_eq!((v["dns"].as_f64(), v["connect"].is_null()), (Some(0.0015), true));
    }
}
