//! The SETTINGS frame (RFC 9114 section 7.2.4): what each end permits.
//!
//! Identifiers that are not known mean nothing; those of HTTP/2 and values that are out of range end the connection. A frame
//! holds at most [`SETTINGS_MAX`] settings in [`PAYLOAD_MAX`] bytes here.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use courser_core::ids::VARINT_MAX;
use courser_core::wire::Reader;

use crate::error::{Code, ConnectionError};
use crate::frame::{is_reserved, push_varint, reserved};

/// The longest payload of a SETTINGS frame that is read.
pub const PAYLOAD_MAX: usize = 4096;
/// The most settings that are read.
pub const SETTINGS_MAX: usize = 128;

/// Identifiers.
pub mod id {
    /// Memory for the peer's QPACK encoder.
    pub const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
    /// The largest field section.
    pub const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
    /// Streams that may wait for the QPACK encoder stream.
    pub const QPACK_BLOCKED_STREAMS: u64 = 0x07;
    /// Extended CONNECT is understood (RFC 9220).
    pub const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
    /// HTTP datagrams are understood (RFC 9297).
    pub const H3_DATAGRAM: u64 = 0x33;
    /// WebTransport is spoken, as its draft 2 says it; browsers still ask for it.
    pub const WT_ENABLED_DRAFT_2: u64 = 0x2b60_3742;
    /// How many WebTransport sessions may be open, as drafts 7 to 12 say it.
    pub const WT_MAX_SESSIONS_DRAFT_7: u64 = 0xc671_706a;
    /// How many WebTransport sessions may be open, as drafts 13 and 14 say it.
    pub const WT_MAX_SESSIONS_DRAFT_13: u64 = 0x14e9_cd29;
    /// WebTransport is spoken, as its newest draft says it.
    pub const WT_ENABLED: u64 = 0x2c7c_f000;
    /// One-way streams that a new WebTransport session may open.
    pub const WT_INITIAL_MAX_STREAMS_UNI: u64 = 0x2b64;
    /// Two-way streams that a new WebTransport session may open.
    pub const WT_INITIAL_MAX_STREAMS_BIDI: u64 = 0x2b65;
    /// Bytes that a new WebTransport session may send.
    pub const WT_INITIAL_MAX_DATA: u64 = 0x2b61;
}

/// What one end permits. The default is what holds without a SETTINGS frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of table that the other end's QPACK encoder may use.
    pub qpack_max_table_capacity: u64,
    /// Streams that may wait for the other end's QPACK encoder stream.
    pub qpack_blocked_streams: u64,
    /// The largest field section that is taken, with 32 bytes added per field line (RFC 9114 section 4.2.2).
    pub max_field_section_size: u64,
    /// Extended CONNECT is understood.
    pub connect_protocol: bool,
    /// HTTP datagrams are understood.
    pub datagrams: bool,
    /// How many WebTransport sessions may be open; 0 when WebTransport is not spoken.
    pub webtransport_sessions: u64,
    /// WebTransport is spoken as its newest draft has it: several sessions at a time need flow control there.
    pub webtransport_newest: bool,
    /// WebTransport flow control: one-way streams of a new session.
    pub wt_max_streams_uni: u64,
    /// WebTransport flow control: two-way streams of a new session.
    pub wt_max_streams_bidi: u64,
    /// WebTransport flow control: bytes of a new session.
    pub wt_max_data: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            qpack_max_table_capacity: 0,
            qpack_blocked_streams: 0,
            max_field_section_size: VARINT_MAX,
            connect_protocol: false,
            datagrams: false,
            webtransport_sessions: 0,
            webtransport_newest: false,
            wt_max_streams_uni: 0,
            wt_max_streams_bidi: 0,
            wt_max_data: 0,
        }
    }
}

fn wrong(reason: &'static str) -> ConnectionError {
    ConnectionError::new(Code::SETTINGS_ERROR, reason)
}

fn flag(value: u64, reason: &'static str) -> Result<bool, ConnectionError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(wrong(reason)),
    }
}

impl Settings {
    /// What holds for a server that permitted this on one connection and `other` on another, whichever of them a ticket came
    /// from: the smaller of each. The QPACK table, whose capacity has to be an exact one, is unknown when they differ.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        let same = self.qpack_max_table_capacity == other.qpack_max_table_capacity;
        Self {
            qpack_max_table_capacity: if same { self.qpack_max_table_capacity } else { 0 },
            qpack_blocked_streams: self.qpack_blocked_streams.min(other.qpack_blocked_streams),
            max_field_section_size: self.max_field_section_size.min(other.max_field_section_size),
            connect_protocol: self.connect_protocol && other.connect_protocol,
            datagrams: self.datagrams && other.datagrams,
            webtransport_sessions: self.webtransport_sessions.min(other.webtransport_sessions),
            webtransport_newest: self.webtransport_newest && other.webtransport_newest,
            wt_max_streams_uni: self.wt_max_streams_uni.min(other.wt_max_streams_uni),
            wt_max_streams_bidi: self.wt_max_streams_bidi.min(other.wt_max_streams_bidi),
            wt_max_data: self.wt_max_data.min(other.wt_max_data),
        }
    }

    /// Whether a client that kept to what was `remembered` keeps to this too, as a server has to see to that takes 0-RTT.
    ///
    /// # Errors
    /// QPACK_DECODER_STREAM_ERROR when the table's capacity is another one, H3_SETTINGS_ERROR when a limit was reduced.
    pub fn check_kept(&self, remembered: &Self) -> Result<(), ConnectionError> {
        //= rfc9204#3.2.3-2
        let capacity = remembered.qpack_max_table_capacity;
        if capacity != 0 && capacity != self.qpack_max_table_capacity {
            let reason = "the server took 0-RTT and changed the capacity of its QPACK table";
            return Err(ConnectionError::new(Code::QPACK_DECODER_STREAM_ERROR, reason));
        }
        let kept = self.qpack_blocked_streams >= remembered.qpack_blocked_streams
            && self.max_field_section_size >= remembered.max_field_section_size
            && self.connect_protocol >= remembered.connect_protocol
            && self.webtransport_sessions >= remembered.webtransport_sessions
            && self.wt_max_streams_uni >= remembered.wt_max_streams_uni
            && self.wt_max_streams_bidi >= remembered.wt_max_streams_bidi
            && self.wt_max_data >= remembered.wt_max_data;
        //= rfc9114#7.2.4.2-11, rfc9297#2.1.1-5
        if kept && self.datagrams >= remembered.datagrams {
            return Ok(());
        }
        Err(wrong("the server took 0-RTT and reduced a limit"))
    }

    /// Whether the payload of a SETTINGS frame names this setting.
    #[must_use]
    pub fn names(payload: &[u8], id: u64) -> bool {
        let mut r = Reader::new(payload);
        while let (Some(named), Some(_)) = (r.varint(), r.varint()) {
            if named == id {
                return true;
            }
        }
        false
    }

    /// Appends the payload of a SETTINGS frame. With a seed, a reserved setting stands among the others.
    pub fn encode(&self, grease: Option<u64>, out: &mut Vec<u8>) {
        let mut put = |id: u64, value: u64| {
            push_varint(out, id);
            push_varint(out, value.min(VARINT_MAX));
        };
        let standard = Self::default();
        //= rfc9114#7.2.4.2-10
        if self.qpack_max_table_capacity != standard.qpack_max_table_capacity {
            put(id::QPACK_MAX_TABLE_CAPACITY, self.qpack_max_table_capacity);
        }
        if self.qpack_blocked_streams != standard.qpack_blocked_streams {
            put(id::QPACK_BLOCKED_STREAMS, self.qpack_blocked_streams);
        }
        if self.max_field_section_size != standard.max_field_section_size {
            put(id::MAX_FIELD_SECTION_SIZE, self.max_field_section_size);
        }
        if self.connect_protocol {
            put(id::ENABLE_CONNECT_PROTOCOL, 1);
        }
        //= rfc9297#2.1.1-1
        if self.datagrams {
            put(id::H3_DATAGRAM, 1);
        }
        if self.webtransport_sessions > 0 {
            put(id::WT_ENABLED_DRAFT_2, 1);
            put(id::WT_MAX_SESSIONS_DRAFT_7, self.webtransport_sessions);
            put(id::WT_MAX_SESSIONS_DRAFT_13, self.webtransport_sessions);
        }
        if self.webtransport_newest {
            put(id::WT_ENABLED, 1);
        }
        for (id, value) in [
            (id::WT_INITIAL_MAX_STREAMS_UNI, self.wt_max_streams_uni),
            (id::WT_INITIAL_MAX_STREAMS_BIDI, self.wt_max_streams_bidi),
            (id::WT_INITIAL_MAX_DATA, self.wt_max_data),
        ] {
            if value > 0 {
                put(id, value);
            }
        }
        //= rfc9114#7.2.4.1-1
        if let Some(seed) = grease {
            put(reserved(seed), seed >> 40);
        }
    }

    /// Reads the payload of a SETTINGS frame.
    ///
    /// # Errors
    /// H3_SETTINGS_ERROR for what must not be said, H3_FRAME_ERROR for a payload that is cut, H3_EXCESSIVE_LOAD for too many.
    pub fn decode(payload: &[u8]) -> Result<Self, ConnectionError> {
        let mut settings = Self::default();
        let (mut seen, mut count) = ([0; SETTINGS_MAX], 0);
        let mut r = Reader::new(payload);
        while !r.is_empty() {
            //= rfc9114#7.1-2
            let cut = || ConnectionError::new(Code::FRAME_ERROR, "a SETTINGS frame ends inside a setting");
            let (id, value) = (r.varint().ok_or_else(cut)?, r.varint().ok_or_else(cut)?);
            //= rfc9114#7.2.4-5
            if seen.get(..count).is_some_and(|seen| seen.contains(&id)) {
                return Err(wrong("a setting comes twice"));
            }
            let many = || ConnectionError::new(Code::EXCESSIVE_LOAD, "too many settings");
            *seen.get_mut(count).ok_or_else(many)? = id;
            count += 1;
            settings.set(id, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, id: u64, value: u64) -> Result<(), ConnectionError> {
        match id {
            id::QPACK_MAX_TABLE_CAPACITY => self.qpack_max_table_capacity = value,
            id::QPACK_BLOCKED_STREAMS => self.qpack_blocked_streams = value,
            id::MAX_FIELD_SECTION_SIZE => self.max_field_section_size = value,
            id::ENABLE_CONNECT_PROTOCOL => {
                self.connect_protocol = flag(value, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1")?;
            }
            //= rfc9297#2.1.1-2
            id::H3_DATAGRAM => self.datagrams = flag(value, "SETTINGS_H3_DATAGRAM is neither 0 nor 1")?,
            id::WT_ENABLED_DRAFT_2 | id::WT_ENABLED => {
                let on = flag(value, "the setting that enables WebTransport is neither 0 nor 1")?;
                self.webtransport_sessions = self.webtransport_sessions.max(on.into());
                self.webtransport_newest |= on && id == id::WT_ENABLED;
            }
            id::WT_MAX_SESSIONS_DRAFT_7 | id::WT_MAX_SESSIONS_DRAFT_13 => {
                self.webtransport_sessions = self.webtransport_sessions.max(value);
            }
            id::WT_INITIAL_MAX_STREAMS_UNI => self.wt_max_streams_uni = value,
            id::WT_INITIAL_MAX_STREAMS_BIDI => self.wt_max_streams_bidi = value,
            id::WT_INITIAL_MAX_DATA => self.wt_max_data = value,
            //= rfc9114#7.2.4.1-3
            0x00 | 0x02..=0x05 => return Err(wrong("a setting of HTTP/2")),
            //= rfc9114#7.2.4-6, rfc9114#7.2.4.1-2
            _ => debug_assert!(is_reserved(id) || id > 0x05),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(pairs: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, value) in pairs {
            push_varint(&mut out, *id);
            push_varint(&mut out, *value);
        }
        out
    }

    fn code(pairs: &[(u64, u64)]) -> Option<Code> {
        Settings::decode(&payload(pairs)).err().map(|e| e.code)
    }

    proptest! {
        #[test]
        fn settings_survive_the_wire(
            sizes in (0..=VARINT_MAX, 0..=VARINT_MAX, 0..=VARINT_MAX),
            flags in any::<(bool, bool, bool)>(),
            wt in (1..1000u64, 0..100u64, 0..100u64, 0..100u64),
            seed in any::<u64>(),
        ) {
            let settings = Settings {
                qpack_max_table_capacity: sizes.0,
                qpack_blocked_streams: sizes.1,
                max_field_section_size: sizes.2,
                connect_protocol: flags.0,
                datagrams: flags.1,
                webtransport_sessions: wt.0,
                webtransport_newest: flags.2,
                wt_max_streams_uni: wt.1,
                wt_max_streams_bidi: wt.2,
                wt_max_data: wt.3,
            };
            let mut out = Vec::new();
            settings.encode(Some(seed), &mut out);
            prop_assert_eq!(Settings::decode(&out), Ok(settings));
        }
    }

    #[test]
    fn what_must_not_be_said_ends_the_connection() {
        //= rfc9114#7.2.4.1-3 type=test
        for id in [0x00, 0x02, 0x03, 0x04, 0x05] {
            assert_eq!(code(&[(id, 0)]), Some(Code::SETTINGS_ERROR), "{id}");
        }
        //= rfc9297#2.1.1-2 type=test
        assert_eq!(code(&[(id::H3_DATAGRAM, 2)]), Some(Code::SETTINGS_ERROR));
        assert_eq!(code(&[(id::ENABLE_CONNECT_PROTOCOL, 2)]), Some(Code::SETTINGS_ERROR));
        assert_eq!(code(&[(id::WT_ENABLED, 2)]), Some(Code::SETTINGS_ERROR));
        //= rfc9114#7.2.4-5 type=test
        assert_eq!(code(&[(6, 1), (7, 1), (6, 1)]), Some(Code::SETTINGS_ERROR));
        assert_eq!(code(&[(0x21, 1), (0x21, 1)]), Some(Code::SETTINGS_ERROR));
    }

    #[test]
    fn a_payload_that_is_cut_anywhere_is_a_frame_error() {
        //= rfc9114#7.1-2 type=test
        let whole = payload(&[(0x3fff, 0x1234_5678)]);
        for cut in 1..whole.len() {
            assert_eq!(Settings::decode(&whole[..cut]).unwrap_err().code, Code::FRAME_ERROR, "{cut}");
        }
    }

    #[test]
    fn unknown_and_reserved_settings_mean_nothing_and_too_many_are_refused() {
        //= rfc9114#7.2.4-6 type=test
        //= rfc9114#7.2.4.1-2 type=test
        let mut pairs: Vec<(u64, u64)> = (0..127).map(|n| (0x1f * n + 0x21, n)).collect();
        pairs.push((0x0abc_def0, 1));
        assert_eq!(Settings::decode(&payload(&pairs)), Ok(Settings::default()));
        pairs.push((0x0abc_def1, 1));
        assert_eq!(code(&pairs), Some(Code::EXCESSIVE_LOAD));
    }

    #[test]
    fn only_what_differs_from_the_default_is_said() {
        //= rfc9114#7.2.4.2-10 type=test
        //= rfc9297#2.1.1-1 type=test
        let mut out = Vec::new();
        Settings::default().encode(None, &mut out);
        assert!(out.is_empty());
        Settings { datagrams: true, ..Settings::default() }.encode(None, &mut out);
        assert_eq!(out, [0x33, 1]);
        //= rfc9114#7.2.4.1-1 type=test
        out.clear();
        Settings::default().encode(Some(77 << 40 | 5), &mut out);
        let mut r = Reader::new(&out);
        assert!(is_reserved(r.varint().unwrap()) && r.varint() == Some(77));
    }
}
