//! A line for each event.

use std::fmt::Write;

use serde_json::Value;

use super::event::Event;
use crate::output::{Ink, Palette};
use crate::text::harmless;

/// Which events to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names, or parts of names; empty: all.
    pub names: Vec<String>,
    /// Not before, in milliseconds.
    pub from: Option<f64>,
    /// Not after, in milliseconds.
    pub to: Option<f64>,
}

impl Filter {
    /// Whether an event is to be shown.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        let named = self.names.is_empty() || self.names.iter().any(|n| event.name.contains(n.as_str()));
        named && self.from.is_none_or(|at| event.ms >= at) && self.to.is_none_or(|at| event.ms <= at)
    }
}

/// Frames that are shown of a packet.
const FRAMES_MAX: usize = 12;

/// The line of an event.
#[must_use]
pub fn line(event: &Event, p: Palette) -> String {
    let (ink, text) = match event.name.as_str() {
        "packet_sent" => (None, format!("→ {}", packet(event))),
        "packet_received" => (None, format!("← {}", packet(event))),
        "packet_lost" => (Some(Ink::Bad), format!("✗ lost {}", packet(event))),
        "packet_dropped" => {
            let why = event.text("/trigger").or_else(|| event.text("/details/reason")).unwrap_or("no reason");
            (Some(Ink::Warn), format!("✗ dropped {} {} B: {}", word(event.packet_type()), event.size(), word(why)))
        }
        "packets_acked" => (Some(Ink::Dim), format!("✓ acknowledged {}", members(&event.data))),
        "recovery_metrics_updated" | "stream_data_moved" | "datagram_data_moved" => {
            (Some(Ink::Dim), format!("· {} {}", word(&event.name), members(&event.data)))
        }
        "http3:frame_created" => (None, format!("⇒ {}", message_frame(event))),
        "http3:frame_parsed" => (None, format!("⇐ {}", message_frame(event))),
        "connection_closed" => (Some(Ink::Strong), format!("■ closed {}", members(&event.data))),
        name => (None, format!("· {} {}", word(name), members(&event.data))),
    };
    let text = text.trim_end();
    let text = ink.map_or_else(|| text.to_owned(), |ink| p.paint(ink, text));
    format!("{:>12.3}  {text}", event.ms)
}

/// A word of the file, safe to be shown.
fn word(text: &str) -> String {
    harmless(text.as_bytes())
}

fn packet(event: &Event) -> String {
    let mut s = word(event.packet_type());
    if let Some(pn) = event.number("/header/packet_number").or_else(|| event.number("/packet_number")) {
        let _ = write!(s, " {pn}");
    }
    if event.size() > 0 {
        let _ = write!(s, " {} B", event.size());
    }
    if event.data.get("is_mtu_probe_packet") == Some(&Value::Bool(true)) {
        s.push_str(" (probe of the size)");
    }
    for (i, frame) in event.frames().enumerate() {
        if i == FRAMES_MAX {
            s.push_str(" …");
            break;
        }
        s.push_str(if i == 0 { "  " } else { ", " });
        s.push_str(&one_frame(frame));
    }
    if let Some(trigger) = event.text("/trigger") {
        let _ = write!(s, "  [{}]", word(trigger));
    }
    s
}

fn one_frame(frame: &Value) -> String {
    let text = |key: &str| frame.get(key).and_then(Value::as_str);
    let number = |key: &str| frame.get(key).and_then(Value::as_u64);
    let mut s = word(text("frame_type").unwrap_or("?"));
    let length = frame.pointer("/raw/payload_length").or_else(|| frame.get("length")).and_then(Value::as_u64);
    if let Some(id) = number("stream_id") {
        let _ = write!(s, " {id}");
    }
    if let Some(offset) = number("offset") {
        let _ = write!(s, " @{offset}");
    }
    if let Some(length) = length {
        let _ = write!(s, "+{length}");
    }
    if frame.get("fin") == Some(&Value::Bool(true)) {
        s.push_str(" fin");
    }
    for key in ["maximum", "limit", "error_code", "sequence_number"] {
        if let Some(n) = number(key) {
            let _ = write!(s, " {n}");
        }
    }
    if let Some(ranges) = frame.get("acked_ranges").and_then(Value::as_array) {
        let all: Vec<String> = ranges.iter().rev().take(3).map(range).collect();
        let _ = write!(s, " {}{}", all.join(" "), if ranges.len() > 3 { " …" } else { "" });
    }
    if let Some(error) = text("error") {
        let _ = write!(s, " {}", word(error));
    }
    s
}

/// A frame of HTTP/3, with the fields that its trace shows.
fn message_frame(event: &Event) -> String {
    const FIELDS_MAX: usize = 16;
    let number = |path: &str| event.number(path).map(|n| n as u64);
    let mut s = word(event.text("/frame/frame_type").unwrap_or("?"));
    if let Some(id) = number("/stream_id") {
        let _ = write!(s, " on {id}");
    }
    if let Some(len) = number("/frame/raw/payload_length") {
        let _ = write!(s, " {len} B");
    }
    for key in ["id", "push_id", "frame_type_bytes", "stream_id"] {
        if let Some(n) = number(&format!("/frame/{key}")) {
            let _ = write!(s, " {n}");
        }
    }
    if let Some(value) = event.text("/frame/priority_field_value") {
        let _ = write!(s, " {}", word(value));
    }
    let fields = event.data.pointer("/frame/headers").or_else(|| event.data.pointer("/frame/settings"));
    for (i, field) in fields.and_then(Value::as_array).into_iter().flatten().enumerate() {
        if i == FIELDS_MAX {
            s.push_str(" …");
            break;
        }
        let name = field.get("name").and_then(Value::as_str).unwrap_or("?");
        let value = field.get("value").map(|v| v.as_str().map_or_else(|| word(&v.to_string()), word));
        let gap = if i == 0 { "  " } else { " " };
        let _ = write!(s, "{gap}{}={}", word(name), value.as_deref().unwrap_or("…"));
    }
    s
}

fn range(range: &Value) -> String {
    let ends: Vec<String> = range.as_array().into_iter().flatten().map(|v| word(&v.to_string())).collect();
    ends.join("–")
}

/// The members of an object as words.
fn members(data: &Value) -> String {
    const MEMBERS_MAX: usize = 16;
    let Some(map) = data.as_object() else { return String::new() };
    let shown = map.iter().take(MEMBERS_MAX).map(|(key, value)| match value {
        Value::String(s) => format!("{}={}", word(key), word(s)),
        other => format!("{}={}", word(key), word(&other.to_string())),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(name: &str, data: Value) -> String {
        line(&Event { ms: 12.3456, name: name.into(), data }, Palette::PLAIN)
    }

    #[test]
    fn a_packet_is_a_line_with_its_frames() {
        let data = json!({
            "header": {"packet_type": "1RTT", "packet_number": 7}, "raw": {"length": 1200},
            "frames": [
                {"frame_type": "ack", "acked_ranges": [[1, 4], [6]]},
                {"frame_type": "stream", "stream_id": 4, "offset": 100, "fin": true, "raw": {"payload_length": 50}},
                {"frame_type": "max_data", "maximum": 9},
            ],
        });
        assert_eq!(
            shown("packet_sent", data),
            "      12.346  → 1RTT 7 1200 B  ack 6 1–4, stream 4 @100+50 fin, max_data 9"
        );
        let lost = json!({"header": {"packet_type": "1RTT", "packet_number": 9}, "trigger": "time_threshold"});
        assert_eq!(shown("packet_lost", lost), "      12.346  ✗ lost 1RTT 9  [time_threshold]");
        assert_eq!(shown("mtu_updated", json!({"new": 1472})), "      12.346  · mtu_updated new=1472");
    }

    #[test]
    fn a_frame_of_http_is_a_line_with_the_fields_that_were_written() {
        let headers = json!([{"name": ":method", "value": "GET"}, {"name": "cookie"}]);
        let frame = json!({"frame_type": "headers", "headers": headers, "raw": {"payload_length": 20}});
        let text = shown("http3:frame_created", json!({"stream_id": 4, "frame": frame}));
        assert!(text.ends_with("⇒ headers on 4 20 B  :method=GET cookie=…"), "{text}");
        let frame = json!({"frame_type": "goaway", "id": 8, "raw": {"payload_length": 1}});
        let text = shown("http3:frame_parsed", json!({"stream_id": 3, "frame": frame}));
        assert!(text.ends_with("⇐ goaway on 3 1 B 8"), "{text}");
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        let data = json!({"reason": "\u{1b}[31m", "trigger": "\u{1b}x", "header": {"packet_type": "\u{1b}"}});
        for name in ["connection_closed", "packet_dropped", "packet_sent", "\u{1b}[2J"] {
            assert!(!shown(name, data.clone()).contains('\u{1b}'), "{name}");
        }
    }

    #[test]
    fn filters_look_at_names_and_times() {
        let event = |ms, name: &str| Event { ms, name: name.into(), data: Value::Null };
        let f = Filter { names: vec!["lost".into(), "key".into()], from: Some(5.0), to: Some(10.0) };
        assert!(f.takes(&event(5.0, "packet_lost")) && f.takes(&event(10.0, "key_updated")));
        assert!(!f.takes(&event(4.9, "packet_lost")) && !f.takes(&event(10.1, "packet_lost")));
        assert!(!f.takes(&event(6.0, "packet_sent")));
        assert!(Filter::default().takes(&event(0.0, "anything")));
    }
}
