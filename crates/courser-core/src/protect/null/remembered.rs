//! What a client with a ticket remembers.

use crate::config::{Settings, TransportParams};
use crate::ids::Side;
use crate::wire::params;

/// The encoded transport parameters of a server with these settings, for
/// [`NullTlsClient::remembered`](super::NullTlsClient::remembered).
#[must_use]
pub fn told_by(settings: &Settings) -> Vec<u8> {
    let told = TransportParams {
        max_data: settings.conn_window,
        max_stream_data_bidi_local: settings.stream_window,
        max_stream_data_bidi_remote: settings.stream_window,
        max_stream_data_uni: settings.stream_window,
        max_streams_bidi: settings.max_streams_bidi,
        max_streams_uni: settings.max_streams_uni,
        active_cid_limit: settings.active_cid_limit.into(),
        max_datagram_frame: settings.max_datagram_frame.into(),
        reset_stream_at: settings.reset_stream_at,
        ..TransportParams::default()
    };
    let mut out = Vec::new();
    params::encode(&told, Side::Server, 1, &mut out);
    out
}
