//! What a client with a ticket remembers.

use crate::config::{Settings, TransportParams};
use crate::ids::Side;
use crate::wire::params;

/// The encoded transport parameters of a server with these settings, for
/// [`NullTlsClient::remembered`](super::NullTlsClient::remembered).
#[must_use]
pub fn told_by(settings: &Settings) -> Vec<u8> {
    let told = TransportParams::limits_of(settings);
    let mut out = Vec::new();
    params::encode(&told, Side::Server, 1, &mut out);
    out
}
