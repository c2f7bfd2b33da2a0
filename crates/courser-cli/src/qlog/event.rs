//! A record as an event, whatever the version of the format calls it.
//!
//! Versions from 0.3 on differ in the names of namespaces (`transport:`, `recovery:`, `quic:`), in a few names of events,
//! and in how time is counted. Older ones are lists and are not understood.

use serde_json::Value;

/// An event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Milliseconds since the first event.
    pub ms: f64,
    /// Name as the newest version has it: without the namespace of the transport, with that of HTTP.
    pub name: String,
    /// What it tells.
    pub data: Value,
}

/// How time is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Clock {
    /// Since some point.
    #[default]
    Since,
    /// Since the event before.
    Step,
}

/// Turns records into events.
#[derive(Clone, Debug, Default)]
pub struct Normal {
    clock: Clock,
    /// Time of the first event, as the file has it.
    first: Option<f64>,
    /// The newest time, of files that count steps.
    sum: f64,
}

impl Normal {
    /// Takes what a head says of time.
    pub fn head(&mut self, head: &Value) {
        let formats = [
            head.pointer("/trace/common_fields/time_format"),
            head.pointer("/common_fields/time_format"),
            head.pointer("/trace/configuration/time_format"),
        ];
        if let Some(format) = formats.into_iter().flatten().find_map(Value::as_str) {
            let step = matches!(format, "delta" | "relative_to_previous_event");
            self.clock = if step { Clock::Step } else { Clock::Since };
        }
    }

    /// A record as an event; what is wrong with it otherwise.
    ///
    /// # Errors
    /// One sentence.
    pub fn event(&mut self, record: Value) -> Result<Event, &'static str> {
        let Value::Object(mut map) = record else {
            return Err("it is a list, as files before version 0.3 have them");
        };
        let time = map.get("time").and_then(Value::as_f64).ok_or("it has no time")?;
        let name = map.get("name").and_then(Value::as_str).ok_or("it has no name")?;
        let name = match name.rsplit_once(':') {
            // Some of its events are called like those of the transport.
            Some(("http3" | "http", _)) => name.to_owned(),
            Some((_, name)) => newest(name).to_owned(),
            None => newest(name).to_owned(),
        };
        let ms = match self.clock {
            Clock::Step => {
                self.sum += time;
                self.sum
            }
            Clock::Since => time,
        };
        let first = *self.first.get_or_insert(ms);
        Ok(Event { ms: ms - first, name, data: map.remove("data").unwrap_or_default() })
    }
}

/// The newest version's name of an event.
fn newest(name: &str) -> &str {
    match name {
        "metrics_updated" => "recovery_metrics_updated",
        "parameters_restored" => "parameters_restored",
        "data_moved" => "stream_data_moved",
        "datagrams_sent" => "udp_datagrams_sent",
        "datagrams_received" => "udp_datagrams_received",
        "loss_timer_updated" => "timer_updated",
        "key_retired" => "key_discarded",
        "path_assigned" => "tuple_assigned",
        other => other,
    }
}

impl Event {
    /// A number of the data, by its path.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<f64> {
        self.data.pointer(path).and_then(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()))
    }

    /// A text of the data, by its path.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.data.pointer(path).and_then(Value::as_str)
    }

    /// Bytes of a packet.
    #[must_use]
    pub fn size(&self) -> u64 {
        let found = ["/raw/length", "/header/packet_size", "/packet_size"].into_iter().find_map(|p| self.number(p));
        found.map_or(0, |n| n as u64)
    }

    /// Type of a packet.
    #[must_use]
    pub fn packet_type(&self) -> &str {
        ["/header/packet_type", "/packet_type"].into_iter().find_map(|p| self.text(p)).unwrap_or("?")
    }

    /// Frames of a packet.
    pub fn frames(&self) -> impl Iterator<Item = &Value> {
        self.data.get("frames").and_then(Value::as_array).into_iter().flatten()
    }

    /// Whether a packet has a frame of that type.
    #[must_use]
    pub fn has_frame(&self, kind: &str) -> bool {
        self.frames().any(|f| f.get("frame_type").and_then(Value::as_str) == Some(kind))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_times_of_old_and_new_files_mean_the_same() {
        let mut n = Normal::default();
        let e =
            n.event(json!({"time": 100.5, "name": "recovery:metrics_updated", "data": {"smoothed_rtt": 3}})).unwrap();
        assert_eq!((e.ms, e.name.as_str(), e.number("/smoothed_rtt")), (0.0, "recovery_metrics_updated", Some(3.0)));
        let e = n.event(json!({"time": 100.5, "name": "http3:parameters_set"})).unwrap();
        assert_eq!(e.name, "http3:parameters_set", "not the transport's");
        let e = n.event(json!({"time": 101, "name": "quic:packet_sent"})).unwrap();
        assert_eq!((e.ms, e.name.as_str(), e.size(), e.packet_type()), (0.5, "packet_sent", 0, "?"));
    }

    #[test]
    fn steps_are_added_up() {
        let mut n = Normal::default();
        n.head(&json!({"trace": {"common_fields": {"time_format": "relative_to_previous_event"}}}));
        let times: Vec<f64> = [5, 1, 2].map(|t| n.event(json!({"time": t, "name": "a"})).unwrap().ms).into();
        assert_eq!(times, [0.0, 1.0, 3.0]);
    }

    #[test]
    fn what_is_no_event_is_named() {
        let mut n = Normal::default();
        assert!(n.event(json!([1, "transport", "packet_sent"])).unwrap_err().contains("0.3"));
        assert!(n.event(json!({"name": "x"})).is_err());
        assert!(n.event(json!({"time": 1})).is_err());
    }
}
