//! Events of HTTP/3 as those of draft-ietf-quic-qlog-h3-events.
//!
//! They are made where HTTP/3 works, on the application's threads, and go to the worker as finished text, which the observer
//! puts in its place among the events of the transport. **Privacy.** Names of fields are written; of their values only those
//! of fields that say nothing about who asks and for what right: a list of what may be written, so that a field that nobody
//! thought of stays out. Of a path the query stays out.

use courser_core::ids::{Dir, StreamId};
use courser_core::stream::Priority;
use courser_h3::Settings;
use courser_h3::frame::{is_reserved, kind, stream_type};
use courser_h3::priority;
use courser_h3::qpack::Field;
use courser_h3::settings::id;
use courser_h3::watch::{Content, Told};

use super::json::{self, List, Object};

/// Fields whose values are written.
const OPEN: [&[u8]; 24] = [
    b":method",
    b":scheme",
    b":authority",
    b":path",
    b":status",
    b":protocol",
    b"accept",
    b"accept-encoding",
    b"accept-ranges",
    b"age",
    b"allow",
    b"alt-svc",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"date",
    b"last-modified",
    b"priority",
    b"range",
    b"server",
    b"user-agent",
    b"vary",
];
/// Fields of a section that are written, at most.
const FIELDS_MAX: usize = 64;
/// The longest name and value that is written, in bytes.
const TEXT_MAX: usize = 256;

/// An event as text: its name and its data.
pub(crate) fn event(told: &Told<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut put = |name: &str, fill: &mut dyn FnMut(&mut Object<'_>)| {
        out.extend_from_slice(b"\"name\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"data\":");
        json::object(&mut out, fill);
    };
    match *told {
        Told::Parameters { local, settings } => put("http3:parameters_set", &mut |o| {
            o.text("initiator", if local { "local" } else { "remote" });
            parameters(o, settings);
        }),
        Told::Restored(settings) => put("http3:parameters_restored", &mut |o| parameters(o, settings)),
        Told::StreamType { stream, kind } => put("http3:stream_type_set", &mut |o| type_of(o, stream, kind)),
        Told::Priority { stream, priority, local } => put("http3:priority_updated", &mut |o| {
            o.number("stream_id", stream.0).text("new", &value_of(priority));
            o.text("trigger", if local { "local" } else { "client_signal_received" });
        }),
        Told::Frame { created, stream, kind, len, content } => {
            put(if created { "http3:frame_created" } else { "http3:frame_parsed" }, &mut |o| {
                o.number("stream_id", stream.0).object("frame", |o| frame(o, kind, len, content));
            });
        }
        Told::Datagram { created, stream, len } => {
            put(if created { "http3:datagram_created" } else { "http3:datagram_parsed" }, &mut |o| {
                o.number("quarter_stream_id", stream.0 / 4);
                o.object("raw", |o| _ = o.number("payload_length", len as u64));
            });
        }
    }
    out
}

/// That so many events found no room on their way, as an event.
pub(crate) fn missing(lost: u64) -> Vec<u8> {
    let mut out = b"\"name\":\"loglevel:warning\",\"data\":".to_vec();
    let message = format!("{lost} events of HTTP/3 before this one are missing: the worker was slower than they came");
    json::object(&mut out, |o| _ = o.number("code", lost).text("message", &message));
    out
}

fn parameters(o: &mut Object<'_>, settings: &Settings) {
    o.number("max_field_section_size", settings.max_field_section_size);
    o.number("max_table_capacity", settings.qpack_max_table_capacity);
    o.number("blocked_streams_count", settings.qpack_blocked_streams);
    o.number("extended_connect", settings.connect_protocol.into());
    o.number("h3_datagram", settings.datagrams.into());
}

fn type_of(o: &mut Object<'_>, stream: StreamId, kind: Option<u64>) {
    o.number("stream_id", stream.0);
    let name = match (stream.dir(), kind) {
        (_, None) => "request",
        (Dir::Uni, Some(stream_type::CONTROL)) => "control",
        (Dir::Uni, Some(stream_type::PUSH)) => "push",
        (Dir::Uni, Some(stream_type::QPACK_ENCODER)) => "qpack_encode",
        (Dir::Uni, Some(stream_type::QPACK_DECODER)) => "qpack_decode",
        (Dir::Uni, Some(kind)) if is_reserved(kind) => "reserved",
        (_, Some(_)) => "unknown",
    };
    o.text("stream_type", name);
    if let (Some(kind), "unknown") = (kind, name) {
        o.number("stream_type_bytes", kind);
    }
}

fn value_of(priority: Priority) -> String {
    let (value, n) = priority::format(priority);
    String::from_utf8_lossy(value.get(..n).unwrap_or_default()).into_owned()
}

fn frame(o: &mut Object<'_>, kind: u64, len: u64, content: Content<'_>) {
    match (kind, content) {
        (kind::DATA, _) => _ = o.text("frame_type", "data"),
        (kind::HEADERS, Content::Fields(fields)) => {
            o.text("frame_type", "headers").list("headers", |l| {
                fields.iter().take(FIELDS_MAX).for_each(|field| one_field(l, field));
            });
        }
        (kind::SETTINGS, Content::Settings(settings)) => {
            o.text("frame_type", "settings").list("settings", |l| each_setting(l, settings));
        }
        (kind::GOAWAY, Content::Number(id)) => _ = o.text("frame_type", "goaway").number("id", id),
        (kind::MAX_PUSH_ID, Content::Number(id)) => _ = o.text("frame_type", "max_push_id").number("push_id", id),
        (kind::PRIORITY_UPDATE, Content::Priority(stream, priority)) => {
            o.text("frame_type", "priority_update").number("stream_id", stream.0);
            o.text("priority_field_value", &value_of(priority));
        }
        _ => {
            o.text("frame_type", if is_reserved(kind) { "reserved" } else { "unknown" });
            o.number("frame_type_bytes", kind);
        }
    }
    o.object("raw", |o| _ = o.number("payload_length", len));
}

fn each_setting(l: &mut List<'_>, settings: &Settings) {
    for (name, value) in [
        ("settings_qpack_max_table_capacity", settings.qpack_max_table_capacity),
        ("settings_max_field_section_size", settings.max_field_section_size),
        ("settings_qpack_blocked_streams", settings.qpack_blocked_streams),
        ("settings_enable_connect_protocol", settings.connect_protocol.into()),
        ("settings_h3_datagram", settings.datagrams.into()),
    ] {
        l.object(|o| _ = o.text("name", name).number("value", value));
    }
    // The draft has no names for those of WebTransport.
    for (id, value) in [
        (id::WT_MAX_SESSIONS_DRAFT_13, settings.webtransport_sessions),
        (id::WT_ENABLED, settings.webtransport_newest.into()),
        (id::WT_INITIAL_MAX_STREAMS_BIDI, settings.wt_max_streams_bidi),
        (id::WT_INITIAL_MAX_STREAMS_UNI, settings.wt_max_streams_uni),
        (id::WT_INITIAL_MAX_DATA, settings.wt_max_data),
    ] {
        if value > 0 {
            l.object(|o| _ = o.text("name", "unknown").number("name_bytes", id).number("value", value));
        }
    }
}

fn one_field(l: &mut List<'_>, field: &Field<'_>) {
    l.object(|o| {
        match std::str::from_utf8(field.name) {
            Ok(name) if name.len() <= TEXT_MAX => _ = o.text("name", name),
            _ => _ = o.hex("name_bytes", field.name.get(..TEXT_MAX).unwrap_or(field.name)),
        }
        if field.sensitive || !OPEN.contains(&field.name) || field.value.len() > TEXT_MAX {
            return;
        }
        let shown = match field.value.iter().position(|b| *b == b'?') {
            Some(query) if field.name == b":path" => &field.value[..query],
            _ => field.value,
        };
        match std::str::from_utf8(shown) {
            Ok(value) => _ = o.text("value", value),
            Err(_) => _ = o.hex("value_bytes", shown),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[Field<'_>]) -> String {
        let content = Content::Fields(fields);
        let told = Told::Frame { created: true, stream: StreamId(4), kind: kind::HEADERS, len: 9, content };
        String::from_utf8(event(&told)).unwrap()
    }

    #[test]
    fn values_that_could_be_secret_and_long_ones_stay_out_and_names_do_not() {
        let long = vec![b'a'; TEXT_MAX + 1];
        let text = headers(&[
            Field::new(b":path", b"/login?token=hunter2"),
            Field::new(b"authorization", b"Bearer hunter2"),
            Field::new(b"cookie", b"id=hunter2"),
            Field::new(b"x-api-key", b"hunter2"),
            Field { sensitive: true, ..Field::new(b"server", b"hunter2") },
            Field::new(b"vary", &long),
            Field::new(b"content-type", b"text/plain"),
        ]);
        assert!(!text.contains("hunter2") && !text.contains("aaaa"), "{text}");
        assert!(text.contains(r#"{"name":":path","value":"/login"}"#), "{text}");
        assert!(text.contains(r#"{"name":"x-api-key"},{"name":"server"},{"name":"vary"}"#), "{text}");
        assert!(text.contains(r#"{"name":"content-type","value":"text/plain"}"#), "{text}");
    }

    #[test]
    fn a_thousand_fields_of_a_peer_are_one_short_event() {
        let name = vec![0xff; 5000];
        let fields = vec![Field::new(&name, b"x"); 1000];
        assert!(headers(&fields).len() < 64 * 1024);
    }
}
