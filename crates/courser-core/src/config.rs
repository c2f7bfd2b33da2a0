//! Settings and transport parameters.

use core::net::{SocketAddrV4, SocketAddrV6};
use core::time::Duration;

use crate::ids::{Cid, ResetToken, VARINT_MAX, Version};

/// The smallest datagram that every QUIC path carries, in bytes of UDP payload.
pub const MIN_DATAGRAM: u16 = 1200;

/// Which congestion controller a connection starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Congestion {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// NewReno (RFC 9002 section 7).
    NewReno,
    /// BBR, version 3 (draft-ietf-ccwg-bbr).
    Bbr,
    /// The same without some departures from the draft (a bit for each): for simulators that measure what each brings.
    #[doc(hidden)]
    BbrWithout(u16),
    /// Both CUBIC and BBR until the round trip is known, then one of them (seed: adaptive).
    Adaptive {
        /// BBR takes paths whose round trip is this long or longer, CUBIC the others.
        bbr_from: Duration,
    },
}

impl Congestion {
    /// The adaptive mode with its usual threshold.
    pub const ADAPTIVE: Self = Self::Adaptive { bbr_from: Duration::from_micros(1500) };
}

/// How stream data shares packets (seed: streams scheduling).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamSchedule {
    /// Round robin among the streams of the highest urgency, moving on after that many packets of one stream.
    RoundRobin(u16),
    /// One stream to its end before the next. Later streams wait for as long as an earlier one has something to send, which
    /// may be for ever.
    Sequential,
}

impl Default for StreamSchedule {
    fn default() -> Self {
        Self::RoundRobin(8)
    }
}

/// What an application may choose for a connection. Every field has a safe default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Versions to speak, best first.
    pub versions: Vec<Version>,
    /// The version that a client begins in; `None`: the best. A server may go on in a better one that is compatible, without
    /// a round trip more, so this is for one that more servers understand (RFC 9368 section 2.5).
    pub initial_version: Option<Version>,
    /// The connection ends after this time without an authenticated packet; zero: never.
    pub idle_timeout: Duration,
    /// The handshake must be done within this time.
    pub handshake_timeout: Duration,
    /// A PING is sent after this time without traffic; `None`: never.
    pub keep_alive: Option<Duration>,
    /// Two-way streams that the peer may have open at once.
    pub max_streams_bidi: u64,
    /// One-way streams that the peer may have open at once.
    pub max_streams_uni: u64,
    /// Receive credit of a stream at the start, in bytes.
    pub stream_window: u64,
    /// Receive credit of a stream after auto-tuning, in bytes.
    pub stream_window_max: u64,
    /// Receive credit of the connection at the start, in bytes.
    pub conn_window: u64,
    /// Receive credit of the connection after auto-tuning, in bytes.
    pub conn_window_max: u64,
    /// Bytes that one stream buffers for sending before a write takes less.
    pub send_window: u64,
    /// Largest datagram to send, in bytes of UDP payload.
    pub max_udp_payload: u16,
    /// Size of the first datagrams and of everything until a larger size is known to pass.
    pub initial_udp_payload: u16,
    /// Whether to search for a larger datagram size.
    pub mtu_discovery: bool,
    /// Congestion controller.
    pub congestion: Congestion,
    /// Whether sending is paced.
    pub pacing: bool,
    /// How streams share packets.
    pub schedule: StreamSchedule,
    /// Whether the connection may move to other addresses: a client when it is told to, or when the server prefers another
    /// address; a server when its peer does on purpose. A server always follows a peer whose translator moved it.
    pub migration: bool,
    /// IPv4 address that a server would rather be reached at; its packets have to reach the same engine, and its port is
    /// the one of the socket.
    pub preferred_v4: Option<SocketAddrV4>,
    /// The same for IPv6.
    pub preferred_v6: Option<SocketAddrV6>,
    /// After so long a silence both ends' connection IDs are replaced before anything is sent, so that nobody on the way can
    /// tell by them that it is the same connection (RFC 9000 section 9.5); `None`: they stay.
    pub rotate_after: Option<Duration>,
    /// Connection IDs that the peer may issue to us; 2 to 8.
    pub active_cid_limit: u8,
    /// After so long without a packet either way a connection drops its packet protection keys, which the next packet makes
    /// again from what they were made from, and empty buffers; `None`: it keeps the keys.
    pub dormant_after: Option<Duration>,
    /// The longest time an acknowledgement is held back.
    pub max_ack_delay: Duration,
    /// Whether the peer may say how often packets are acknowledged, and is told so when it offers the same (ACK frequency
    /// draft).
    pub ack_frequency: bool,
    /// Whether datagrams carry an ECT(0) mark.
    pub ecn: bool,
    /// Largest DATAGRAM frame to accept; zero: none.
    pub max_datagram_frame: u16,
    /// Whether the peer may reset streams and still deliver their beginning (RESET_STREAM_AT, draft).
    pub reset_stream_at: bool,
    /// Whether the QUIC bit may be greased (RFC 9287).
    pub grease: bool,
    /// Whether the spin bit may tell the round-trip time to observers; even then one path in sixteen takes no part.
    pub spin: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            versions: vec![Version::V1, Version::V2],
            initial_version: None,
            idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            keep_alive: None,
            max_streams_bidi: 128,
            max_streams_uni: 128,
            stream_window: 256 << 10,
            stream_window_max: 16 << 20,
            conn_window: 512 << 10,
            conn_window_max: 32 << 20,
            send_window: 1 << 20,
            max_udp_payload: 1472,
            initial_udp_payload: MIN_DATAGRAM,
            mtu_discovery: true,
            congestion: Congestion::Cubic,
            pacing: true,
            schedule: StreamSchedule::default(),
            migration: true,
            preferred_v4: None,
            preferred_v6: None,
            rotate_after: None,
            active_cid_limit: 4,
            dormant_after: Some(Duration::from_millis(100)),
            max_ack_delay: Duration::from_millis(25),
            ack_frequency: false,
            ecn: true,
            max_datagram_frame: 65_535,
            reset_stream_at: true,
            grease: true,
            spin: true,
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The field of [`Settings`].
    pub field: &'static str,
    /// What it has to be.
    pub expected: &'static str,
}

impl core::fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "setting `{}` must be {}", self.field, self.expected)
    }
}

impl core::error::Error for InvalidSetting {}

impl Settings {
    /// Checks every field against what the protocol allows.
    ///
    /// # Errors
    /// The first field that cannot be, with what it has to be.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let streams_max = 1 << 60;
        let checks = [
            ("initial_version", "one of the versions", self.initial_version.is_none_or(|v| self.versions.contains(&v))),
            (
                "versions",
                "one or two of v1 and v2",
                matches!(self.versions.len(), 1..=2) && self.versions.iter().all(|v| v.is_supported()),
            ),
            ("max_streams_bidi", "at most 2^60", self.max_streams_bidi <= streams_max),
            ("max_streams_uni", "at most 2^60", self.max_streams_uni <= streams_max),
            ("stream_window", "1 to stream_window_max", (1..=self.stream_window_max).contains(&self.stream_window)),
            ("stream_window_max", "at most 2^62 - 1", self.stream_window_max <= VARINT_MAX),
            ("conn_window", "1 to conn_window_max", (1..=self.conn_window_max).contains(&self.conn_window)),
            ("conn_window_max", "at most 2^62 - 1", self.conn_window_max <= VARINT_MAX),
            ("send_window", "at least 4096", self.send_window >= 4096),
            ("max_udp_payload", "1200 to 65527", (MIN_DATAGRAM..=65_527).contains(&self.max_udp_payload)),
            (
                "initial_udp_payload",
                "1200 to max_udp_payload",
                (MIN_DATAGRAM..=self.max_udp_payload).contains(&self.initial_udp_payload),
            ),
            ("active_cid_limit", "2 to 8", (2..=8).contains(&self.active_cid_limit)),
            (
                "dormant_after",
                "at least 1 ms",
                self.dormant_after.is_none_or(|after| after >= Duration::from_millis(1)),
            ),
            ("max_ack_delay", "below 2^14 ms", self.max_ack_delay < Duration::from_millis(1 << 14)),
            ("schedule", "a run of at least one packet", self.schedule != StreamSchedule::RoundRobin(0)),
        ];
        match checks.into_iter().find(|(_, _, holds)| !holds) {
            Some((field, expected, _)) => Err(InvalidSetting { field, expected }),
            None => Ok(()),
        }
    }
}

/// Where a server would like to be talked to after the handshake (RFC 9000 section 18.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreferredAddress {
    /// IPv4 address, when there is one.
    pub v4: Option<SocketAddrV4>,
    /// IPv6 address, when there is one.
    pub v6: Option<SocketAddrV6>,
    /// The connection ID to use there; sequence number 1.
    pub cid: Cid,
    /// Its stateless reset token.
    pub token: ResetToken,
}

/// Which versions an endpoint chose and speaks (RFC 9368 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInformation {
    /// The version of the packet that carries this.
    pub chosen: Version,
    /// Versions that the endpoint speaks; best first from a client. At most 16 are kept.
    pub available: Vec<Version>,
}

/// Transport parameters (RFC 9000 section 18.2); absent ones have the RFC's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportParams {
    /// Destination connection ID of the client's first Initial; servers only.
    pub original_dcid: Option<Cid>,
    /// Idle timeout in milliseconds; zero: none.
    pub max_idle_timeout_ms: u64,
    /// Stateless reset token of the first connection ID; servers only.
    pub reset_token: Option<ResetToken>,
    /// Largest UDP payload that the endpoint takes.
    pub max_udp_payload: u64,
    /// Connection credit.
    pub max_data: u64,
    /// Credit of two-way streams that the sender of the parameters opens.
    pub max_stream_data_bidi_local: u64,
    /// Credit of two-way streams that the receiver of the parameters opens.
    pub max_stream_data_bidi_remote: u64,
    /// Credit of one-way streams.
    pub max_stream_data_uni: u64,
    /// Two-way streams that the receiver of the parameters may open.
    pub max_streams_bidi: u64,
    /// One-way streams that the receiver of the parameters may open.
    pub max_streams_uni: u64,
    /// ACK Delay fields are in units of 2^this microseconds.
    pub ack_delay_exponent: u8,
    /// Longest delay of an acknowledgement in milliseconds.
    pub max_ack_delay_ms: u64,
    /// The endpoint does not take migration to other addresses.
    pub disable_active_migration: bool,
    /// Where the server would like to be; servers only.
    pub preferred_address: Option<PreferredAddress>,
    /// Connection IDs that the endpoint stores.
    pub active_cid_limit: u64,
    /// Source connection ID of the endpoint's first Initial.
    pub initial_scid: Option<Cid>,
    /// Source connection ID of the Retry; servers only.
    pub retry_scid: Option<Cid>,
    /// Largest DATAGRAM frame (RFC 9221); zero: none.
    pub max_datagram_frame: u64,
    /// The endpoint takes packets with a greased QUIC bit (RFC 9287).
    pub grease_quic_bit: bool,
    /// Versions (RFC 9368).
    pub version_information: Option<VersionInformation>,
    /// Smallest ACK delay in microseconds (ACK frequency draft).
    pub min_ack_delay_us: Option<u64>,
    /// The endpoint takes RESET_STREAM_AT frames (draft on stream resets with partial delivery).
    pub reset_stream_at: bool,
}

impl TransportParams {
    /// The limits that an end with these settings tells about data, streams, connection IDs and datagrams; all else is absent.
    pub(crate) fn limits_of(settings: &Settings) -> Self {
        Self {
            max_data: settings.conn_window,
            max_stream_data_bidi_local: settings.stream_window,
            max_stream_data_bidi_remote: settings.stream_window,
            max_stream_data_uni: settings.stream_window,
            max_streams_bidi: settings.max_streams_bidi,
            max_streams_uni: settings.max_streams_uni,
            active_cid_limit: settings.active_cid_limit.into(),
            max_datagram_frame: settings.max_datagram_frame.into(),
            reset_stream_at: settings.reset_stream_at,
            ..Self::default()
        }
    }

    /// What a client keeps of a server's parameters for 0-RTT on a later connection (RFC 9000 section 7.4.1).
    #[must_use]
    pub fn remembered(&self) -> Self {
        let default = Self::default();
        //= rfc9000#7.4.1-2
        //= rfc9000#7.4.1-4
        //= reset-stream-at#3-2
        Self {
            original_dcid: None,
            reset_token: None,
            ack_delay_exponent: default.ack_delay_exponent,
            max_ack_delay_ms: default.max_ack_delay_ms,
            //= rfc9000#9.6.2-5
            preferred_address: None,
            initial_scid: None,
            retry_scid: None,
            version_information: None,
            min_ack_delay_us: None,
            ..self.clone()
        }
    }

    /// The first limit that is smaller here than it was `before`, or the first extension that is missing, by its name: 0-RTT that was sent within the
    /// earlier limits cannot be accepted then.
    #[must_use]
    pub fn reduced_limit(&self, before: &Self) -> Option<&'static str> {
        //= rfc9000#7.4.1-6
        //= rfc9221#3-6
        //= reset-stream-at#3-3
        let limits = |p: &Self| {
            [
                ("active_connection_id_limit", p.active_cid_limit),
                ("initial_max_data", p.max_data),
                ("initial_max_stream_data_bidi_local", p.max_stream_data_bidi_local),
                ("initial_max_stream_data_bidi_remote", p.max_stream_data_bidi_remote),
                ("initial_max_stream_data_uni", p.max_stream_data_uni),
                ("initial_max_streams_bidi", p.max_streams_bidi),
                ("initial_max_streams_uni", p.max_streams_uni),
                ("max_datagram_frame_size", p.max_datagram_frame),
                ("reset_stream_at", u64::from(p.reset_stream_at)),
            ]
        };
        limits(self).into_iter().zip(limits(before)).find(|(now, before)| now.1 < before.1).map(|(now, _)| now.0)
    }
}

impl Default for TransportParams {
    fn default() -> Self {
        Self {
            original_dcid: None,
            max_idle_timeout_ms: 0,
            reset_token: None,
            max_udp_payload: 65_527,
            max_data: 0,
            max_stream_data_bidi_local: 0,
            max_stream_data_bidi_remote: 0,
            max_stream_data_uni: 0,
            max_streams_bidi: 0,
            max_streams_uni: 0,
            ack_delay_exponent: 3,
            max_ack_delay_ms: 25,
            disable_active_migration: false,
            preferred_address: None,
            active_cid_limit: 2,
            initial_scid: None,
            retry_scid: None,
            max_datagram_frame: 0,
            grease_quic_bit: false,
            version_information: None,
            min_ack_delay_us: None,
            reset_stream_at: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn extensions_are_remembered_for_early_data_and_missed_when_they_are_gone() {
        //= reset-stream-at#3-2, reset-stream-at#3-3 type=test
        let with = TransportParams { reset_stream_at: true, ..TransportParams::default() };
        let without = TransportParams::default();
        assert!(with.remembered().reset_stream_at && !without.remembered().reset_stream_at);
        assert_eq!(without.reduced_limit(&with), Some("reset_stream_at"));
        assert_eq!((with.reduced_limit(&without), with.reduced_limit(&with)), (None, None));
        //= rfc9221#3-6 type=test
        let frames = |max| TransportParams { max_datagram_frame: max, ..TransportParams::default() };
        assert_eq!(frames(99).reduced_limit(&frames(100)), Some("max_datagram_frame_size"));
        assert_eq!(frames(100).reduced_limit(&frames(100)), None);
    }

    #[test]
    fn bad_settings_name_the_field() {
        let small = Settings { max_udp_payload: 1199, ..Settings::default() };
        let e = small.validate().unwrap_err();
        assert_eq!(e.field, "max_udp_payload");
        assert!(e.to_string().contains("1200"));
        let none = Settings { versions: vec![], ..Settings::default() };
        assert_eq!(none.validate().unwrap_err().field, "versions");
    }

    /// A server's parameters with a value of its own in each of them.
    fn told() -> TransportParams {
        let cid = |n| Cid::new(&[n; 8]);
        let token = ResetToken([9; 16]);
        TransportParams {
            original_dcid: cid(1),
            max_idle_timeout_ms: 2,
            reset_token: Some(token),
            max_udp_payload: 1_203,
            max_data: 4,
            max_stream_data_bidi_local: 5,
            max_stream_data_bidi_remote: 6,
            max_stream_data_uni: 7,
            max_streams_bidi: 8,
            max_streams_uni: 9,
            ack_delay_exponent: 10,
            max_ack_delay_ms: 11,
            disable_active_migration: true,
            preferred_address: Some(PreferredAddress { v4: None, v6: None, cid: cid(2).unwrap(), token }),
            active_cid_limit: 12,
            initial_scid: cid(3),
            retry_scid: cid(4),
            max_datagram_frame: 13,
            grease_quic_bit: true,
            version_information: Some(VersionInformation { chosen: Version::V2, available: vec![Version::V1] }),
            min_ack_delay_us: Some(14),
            reset_stream_at: true,
        }
    }

    #[test]
    fn what_belongs_to_one_connection_is_not_remembered_and_everything_else_is() {
        let default = TransportParams::default();
        //= rfc9000#7.4.1-4 type=test
        let expected = TransportParams {
            //= rfc9000#7.4.1-2 type=test
            ack_delay_exponent: default.ack_delay_exponent,
            max_ack_delay_ms: default.max_ack_delay_ms,
            initial_scid: None,
            original_dcid: None,
            preferred_address: None,
            retry_scid: None,
            reset_token: None,
            // Of the extensions: versions, and delays of acknowledgements.
            version_information: None,
            min_ack_delay_us: None,
            ..told()
        };
        assert_eq!(told().remembered(), expected);
    }
}
