//! The transport as the command line asks for it.

use std::time::Duration;

use clap::ValueEnum;
use courser::net::socket::BUSY_POLL;
use courser::qlog::Qlog;
use courser_core::config::Settings;

/// Cipher suites by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// TLS_AES_128_GCM_SHA256.
    #[default]
    Aes128,
    /// TLS_AES_256_GCM_SHA384.
    Aes256,
    /// TLS_CHACHA20_POLY1305_SHA256.
    Chacha20,
}

/// Settings of connections and their socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Settings of every connection.
    pub settings: Settings,
    /// Whether trains of datagrams may leave in one call.
    pub offload: bool,
    /// Wanted socket buffers in bytes.
    pub socket_buffer: usize,
    /// How long to look for the next datagram before sleeping.
    pub busy_poll: Duration,
    /// The cipher suite to offer first.
    pub cipher: Cipher,
    /// Whether only that cipher suite is offered.
    pub cipher_only: bool,
    /// Where traces of connections go.
    pub qlog: Option<Qlog>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            offload: true,
            socket_buffer: 8 << 20,
            busy_poll: BUSY_POLL,
            cipher: Cipher::default(),
            cipher_only: false,
            qlog: None,
        }
    }
}

impl Tuning {
    /// Receive windows: at most so much; they start no larger than that.
    pub fn windows(&mut self, stream: u64, connection: u64) {
        let s = &mut self.settings;
        s.stream_window_max = stream.max(1);
        s.conn_window_max = connection.max(1);
        s.stream_window = s.stream_window.min(s.stream_window_max);
        s.conn_window = s.conn_window.min(s.conn_window_max);
    }

    /// Streams of each kind that the peer may have open at once.
    pub fn streams(&mut self, n: u64) {
        self.settings.max_streams_bidi = n;
        self.settings.max_streams_uni = n;
    }

    /// A job with so much time waits no longer than that for a handshake.
    pub fn patience(&mut self, timeout: Duration) {
        let s = &mut self.settings;
        s.handshake_timeout = s.handshake_timeout.min(timeout);
    }
}
