//! The trace of one connection: text that waits to be handed over, and what the drafts want told only when it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use courser_core::ids::{Cid, Level, PacketNumber, Side, Space};
use courser_core::observe::{Event, Limit, Metrics, Start};
use courser_core::time::{Instant, micros};

use super::json::{self, Object};
use super::sink::{Chunk, Sink};
use super::{Counts, QlogConfig, events};

/// Text is handed over in pieces of about this size.
const CHUNK: usize = 16 << 10;
/// And at the latest after this time, when something happens.
const PATIENCE: Duration = Duration::from_secs(1);
/// Room for the last words of a file.
const LAST_WORDS: u64 = 1 << 10;
/// Acknowledged packets that are told in one event, at most.
pub(super) const ACKED_MAX: usize = 64;

/// One connection.
pub(super) struct Log {
    pub(super) side: Side,
    path: Arc<PathBuf>,
    /// The file has begun.
    begun: bool,
    text: Vec<u8>,
    /// Events in `text`.
    events: u64,
    /// Bytes of the file and of `text`.
    bytes: u64,
    bytes_max: u64,
    /// The limit was reached: nothing more is written.
    full: bool,
    /// Events that found no room, not told yet.
    lost: u64,
    started: Instant,
    handed_over: Instant,
    newest: Instant,
    /// Our ACK Delay fields are in this unit.
    pub(super) exponent: u32,
    /// The peer's.
    pub(super) peer_exponent: u32,
    /// Acknowledged packets that are told together.
    pub(super) acked: (Space, Vec<PacketNumber>),
    pub(super) metrics: Option<Metrics>,
    /// Spin bit of the newest packet received.
    pub(super) spin: bool,
    /// What was told to limit the connection.
    pub(super) limit: Option<Limit>,
}

impl Log {
    pub(super) fn new(config: &QlogConfig, now: Instant, wall: SystemTime, start: &Start<'_>) -> Self {
        let end = if start.side.is_client() { "client" } else { "server" };
        let mut log = Self {
            side: start.side,
            path: Arc::new(config.dir.join(format!("{}_{end}.sqlog", start.original_dcid))),
            begun: false,
            text: Vec::new(),
            events: 0,
            bytes: 0,
            bytes_max: config.file_bytes_max,
            full: false,
            lost: 0,
            started: now,
            handed_over: now,
            newest: now,
            exponent: start.params.ack_delay_exponent.into(),
            peer_exponent: 3,
            acked: (Space::Data, Vec::new()),
            metrics: None,
            spin: false,
            limit: None,
        };
        log.head(end, wall, &start.original_dcid);
        events::started(&mut log, now, start);
        log
    }

    /// The record that begins every file.
    fn head(&mut self, end: &str, wall: SystemTime, original: &Cid) {
        self.text.push(0x1e);
        json::object(&mut self.text, |o| {
            o.text("file_schema", "urn:ietf:params:qlog:file:sequential");
            o.text("serialization_format", "application/qlog+json-seq");
            o.text("title", concat!("courser ", env!("CARGO_PKG_VERSION")));
            o.object("trace", |o| {
                o.object("common_fields", |o| {
                    o.hex("group_id", original.as_slice()).text("time_format", "relative_to_epoch");
                    o.object("reference_time", |o| {
                        o.text("clock_type", "monotonic").text("epoch", "unknown");
                        o.text("wall_clock_time", &date(wall));
                    });
                });
                o.object("vantage_point", |o| _ = o.text("type", end));
                o.list("event_schemas", |l| {
                    l.text("urn:ietf:params:qlog:events:quic-13");
                    l.text("urn:ietf:params:qlog:events:http3-13");
                    l.text("urn:ietf:params:qlog:events:loglevel");
                });
            });
        });
        self.text.push(b'\n');
        self.bytes = self.text.len() as u64;
    }

    /// When the newest event happened.
    pub(super) fn newest(&self) -> Instant {
        self.newest
    }

    /// Writes an event of the core, as one or more of the drafts, or none.
    pub(super) fn on(&mut self, now: Instant, event: &Event<'_>) {
        self.newest = now;
        if self.full {
            return;
        }
        events::write(self, now, event);
    }

    /// Writes one event.
    pub(super) fn event(&mut self, now: Instant, name: &str, data: impl FnOnce(&mut Object<'_>)) {
        self.bounded(now, |log| log.record(now, name, data));
    }

    /// Writes one event, unless the file is full, or gets full by it.
    fn bounded(&mut self, now: Instant, write: impl FnOnce(&mut Self)) {
        if self.full {
            return;
        }
        let before = self.text.len();
        write(self);
        let bytes = self.bytes + (self.text.len() - before) as u64;
        if bytes + LAST_WORDS <= self.bytes_max {
            self.bytes = bytes;
            self.events += 1;
            return;
        }
        self.text.truncate(before);
        self.full = true;
        let message = format!("the file has reached its limit of {} bytes: nothing more is written", self.bytes_max);
        self.record(now, "loglevel:warning", |o| _ = o.text("message", &message));
        self.events += 1;
    }

    /// Writes one event whose name and data are text already.
    pub(super) fn note(&mut self, now: Instant, text: &[u8]) {
        self.bounded(now, |log| {
            log.time(now);
            log.text.push(b',');
            log.text.extend_from_slice(text);
            log.text.extend_from_slice(b"}\n");
        });
    }

    fn time(&mut self, now: Instant) {
        self.text.extend_from_slice(b"\x1e{\"time\":");
        json::milliseconds(&mut self.text, micros(now.since(self.started)));
    }

    fn record(&mut self, now: Instant, name: &str, data: impl FnOnce(&mut Object<'_>)) {
        self.time(now);
        let out = &mut self.text;
        out.extend_from_slice(b",\"name\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"data\":");
        json::object(out, data);
        out.extend_from_slice(b"}\n");
    }

    /// Hands text over when there is enough of it, when it waited long, or at the end.
    pub(super) fn hand_over(&mut self, now: Instant, end: bool, sink: &Sink, counts: &Counts) {
        let due = self.text.len() >= CHUNK || now.since(self.handed_over) >= PATIENCE;
        if self.text.is_empty() || !(due || end) {
            return;
        }
        if end {
            events::settle_acked(self, now);
        }
        self.handed_over = now;
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 && !self.full {
            let message = format!("{lost} events before this one are missing: the disk was slower than they came");
            self.event(now, "loglevel:warning", |o| _ = o.number("code", lost).text("message", &message));
        }
        // The warning itself is no event that could be missed.
        let events = std::mem::take(&mut self.events) - u64::from(lost > 0 && !self.full);
        let bytes = std::mem::replace(&mut self.text, Vec::with_capacity(if end { 0 } else { CHUNK + CHUNK / 8 }));
        let chunk = Chunk { path: Arc::clone(&self.path), first: !self.begun, bytes };
        match sink.push(chunk) {
            Ok(()) => {
                if !std::mem::replace(&mut self.begun, true) {
                    counts.files.fetch_add(1, Ordering::Relaxed);
                }
                if self.full && events > 0 {
                    counts.full.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(mut back) => self.on_refused(&mut back.bytes, lost, events, counts),
        }
    }

    /// The queue had no room: events are lost. The head of a file that has not begun stays.
    fn on_refused(&mut self, text: &mut Vec<u8>, lost: u64, events: u64, counts: &Counts) {
        counts.dropped.fetch_add(events, Ordering::Relaxed);
        let keep = match (self.begun, text.iter().position(|b| *b == b'\n')) {
            (false, Some(end)) => end + 1,
            _ => 0,
        };
        self.bytes -= (text.len() - keep) as u64;
        text.truncate(keep);
        self.text = std::mem::take(text);
        self.lost = lost + events;
    }
}

/// The end of a connection that a packet of ours, or of the peer, names by its level.
pub(super) const fn key_type(side: Side, level: Level) -> &'static str {
    match (side, level) {
        (Side::Client, Level::Initial) => "client_initial_secret",
        (Side::Client, Level::ZeroRtt) => "client_0rtt_secret",
        (Side::Client, Level::Handshake) => "client_handshake_secret",
        (Side::Client, Level::OneRtt) => "client_1rtt_secret",
        (Side::Server, Level::Initial) => "server_initial_secret",
        (Side::Server, Level::ZeroRtt) => "server_0rtt_secret",
        (Side::Server, Level::Handshake) => "server_handshake_secret",
        (Side::Server, Level::OneRtt) => "server_1rtt_secret",
    }
}

/// A point in time as RFC 3339 has it.
fn date(wall: SystemTime) -> String {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years (146,097 days).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (h, m, s, ms) = (seconds / 3600, seconds / 60 % 60, seconds % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(date(UNIX_EPOCH + Duration::from_millis(1_234)), "1970-01-01T00:00:01.234Z");
    }
}
