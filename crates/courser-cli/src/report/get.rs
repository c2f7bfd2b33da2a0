//! What became of downloads.

use std::fmt::Write;

use courser_fetch::informational::Informational;
use courser_fetch::via::{Early, Told};
use courser_fetch::{Done, Timing};
use http::HeaderMap;
use serde::Serialize;

use crate::text;

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct GetReport {
    /// Whether each was done.
    pub ok: bool,
    /// With what the command ends.
    pub exit_code: u8,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// In the order of the command line.
    pub results: Vec<Fetched>,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct Fetched {
    /// What was asked for.
    pub url: String,
    /// Whether it was done.
    pub ok: bool,
    /// Where the answer came from, after redirects.
    pub final_url: Option<String>,
    /// The answer's status.
    pub status: Option<u16>,
    /// What carried it.
    pub protocol: Option<String>,
    /// Who told that the server has HTTP/3, where that carried the answer.
    pub http3_from: Option<Told>,
    /// From where.
    pub remote: Option<String>,
    /// What the server said before it answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub informational: Vec<Before>,
    /// Its fields.
    pub headers: Vec<(String, String)>,
    /// What came after its body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
    /// Bytes that are there.
    pub size: u64,
    /// Bytes of them that were there before.
    pub resumed_from: u64,
    /// Tries.
    pub tries: u32,
    /// Redirects that were followed.
    pub redirects: u32,
    /// Whether its connection was there already.
    pub connection_reused: bool,
    /// Whether the server took a request that was sent as 0-RTT; none when it was not.
    pub early_data: Option<Early>,
    /// The file that is whole now.
    pub file: Option<String>,
    /// How long it took, in seconds.
    pub timing: Timing,
    /// Why it was not done.
    pub error: Option<String>,
    /// With what a command ends that fetches this alone.
    pub exit_code: u8,
}

/// An informational response.
#[derive(Clone, Debug, Serialize)]
pub struct Before {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: Vec<(String, String)>,
}

impl Before {
    fn of(heard: &Informational) -> Self {
        Self { status: heard.status.as_u16(), headers: fields(&heard.headers) }
    }
}

/// Fields as text. Values keep their bytes where they are text, without anything that steers a terminal.
fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let clean = |bytes: &[u8]| -> String {
        String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    };
    headers.iter().map(|(n, v)| (n.as_str().to_owned(), clean(v.as_bytes()))).collect()
}

impl Fetched {
    /// Of one job.
    #[must_use]
    pub fn new(url: &str, done: &Done) -> Self {
        let head = done.head.as_ref();
        Self {
            url: url.to_owned(),
            ok: done.failed.is_none(),
            final_url: head.map(|h| h.url.to_string()),
            status: head.map(|h| h.status.as_u16()),
            protocol: head.map(|h| h.protocol.to_string()),
            http3_from: head.and_then(|h| h.told),
            remote: head.map(|h| h.remote.to_string()),
            informational: head.map(|h| h.informational.iter().map(Before::of).collect()).unwrap_or_default(),
            headers: head.map(|h| fields(&h.headers)).unwrap_or_default(),
            trailers: done.trailers.as_ref().map(fields).unwrap_or_default(),
            size: done.size,
            resumed_from: done.resumed_from,
            tries: done.tries,
            redirects: head.map_or(0, |h| h.redirects),
            connection_reused: head.is_some_and(|h| h.reused),
            early_data: head.and_then(|h| h.early),
            file: done.file.as_ref().map(|f| f.display().to_string()),
            timing: done.timing,
            error: done.failed.as_ref().map(ToString::to_string),
            exit_code: done.failed.as_ref().map_or(0, courser_fetch::Error::code),
        }
    }

    /// The header section as it is printed, behind those that came before it.
    #[must_use]
    pub fn head(&self) -> String {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let section = |status: u16, headers: &[(String, String)]| {
            let mut out = format!("{protocol} {status}");
            for (name, value) in headers {
                let _ = write!(out, "\n{name}: {value}");
            }
            out
        };
        let mut out = String::new();
        for before in &self.informational {
            let _ = write!(out, "{}\n\n", section(before.status, &before.headers));
        }
        out + &section(self.status.unwrap_or(0), &self.headers)
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let total = self.timing.total.unwrap_or_default();
        let mut out =
            format!("{}: {} in {}", text::harmless(self.url.as_bytes()), text::size(self.size), text::time(total));
        let fetched = self.size.saturating_sub(self.resumed_from);
        if self.resumed_from > 0 {
            let _ = write!(out, ", {} of it were there", text::size(self.resumed_from));
        } else if total.as_secs_f64() > 0.0 && fetched > 0 {
            let _ = write!(out, " ({})", text::rate(fetched as f64 * 8e-9 / total.as_secs_f64()));
        }
        if let (Some(protocol), Some(status)) = (&self.protocol, self.status) {
            let _ = write!(out, ", {protocol} {status}");
        }
        for (n, one) in
            [(u64::from(self.redirects), "redirect"), (u64::from(self.tries.saturating_sub(1)), "further try")]
        {
            match (n, one) {
                (0, _) => {}
                (1, one) => drop(write!(out, ", 1 {one}")),
                (n, "further try") => drop(write!(out, ", {n} further tries")),
                (n, one) => drop(write!(out, ", {n} {one}s")),
            }
        }
        if let Some(file) = &self.file {
            let _ = write!(out, " → {}", text::harmless(file.as_bytes()));
        }
        out
    }

    /// How long each part took.
    #[must_use]
    pub fn parts(&self) -> String {
        let t = &self.timing;
        let parts = [
            ("name", t.dns),
            ("TCP", t.connect),
            ("handshake", t.handshake),
            ("first byte", t.first_byte),
            ("total", t.total),
        ];
        let told: Vec<_> = parts.iter().filter_map(|(n, d)| Some(format!("{n} {}", text::time((*d)?)))).collect();
        let reused = if self.connection_reused { " (on a connection that was there)" } else { "" };
        let early = match self.early_data {
            None => "",
            Some(Early::Accepted) => " (sent before the handshake)",
            Some(Early::Rejected) => " (sent before the handshake, and again behind it)",
        };
        let from = match self.http3_from {
            // Who asked for it knows.
            None | Some(Told::Option) => String::new(),
            Some(told) => format!("; HTTP/3 {told}"),
        };
        format!("  until: {}{reused}{early}{from}", told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_says_what_matters() {
        let mut done = Done { size: 3 << 20, tries: 3, file: Some("f\x1b".into()), ..Done::default() };
        done.timing.total = Some(Duration::from_secs(1));
        done.timing.dns = Some(Duration::from_millis(2));
        let f = Fetched::new("https://h/f", &done);
        let line = f.summary();
        assert_eq!(line, "https://h/f: 3.00 MiB in 1.00 s (25.2 Mb/s), 2 further tries → f\\u{1b}");
        assert_eq!(f.parts(), "  until: name 2.00 ms, total 1.00 s");
        done.resumed_from = 1 << 20;
        assert!(Fetched::new("https://h/f", &done).summary().contains("1.00 MiB of it were there"));
    }

    #[test]
    fn what_came_before_the_answer_and_who_told_of_http_3_is_shown() {
        let link = HeaderMap::from_iter([(http::header::LINK, http::HeaderValue::from_static("</x>"))]);
        let mut f = Fetched::new("https://h/f", &Done::default());
        f.informational = vec![Before::of(&Informational { status: http::StatusCode::EARLY_HINTS, headers: link })];
        (f.protocol, f.status) = (Some("HTTP/3".into()), Some(200));
        assert_eq!(f.head(), "HTTP/3 103\nlink: </x>\n\nHTTP/3 200");
        f.http3_from = Some(Told::HttpsRecord);
        assert!(f.parts().ends_with("; HTTP/3 known from an HTTPS record"), "{}", f.parts());
        let json = serde_json::to_value(&f).unwrap();
        assert!(json["early_data"].is_null() && !f.parts().contains("handshake"));
        for (early, said) in [(Early::Accepted, "(sent before the handshake)"), (Early::Rejected, "again behind it)")] {
            f.early_data = Some(early);
            assert!(f.parts().contains(said), "{}", f.parts());
        }
        assert_eq!(serde_json::to_value(&f).unwrap()["early_data"], "rejected");
        assert_eq!((&json["http3_from"], &json["informational"][0]["status"]), (&"https-record".into(), &103.into()));
    }

    #[test]
    fn fields_cannot_steer_a_terminal() {
        let mut headers = HeaderMap::new();
        headers.insert("x", http::HeaderValue::from_bytes(b"a\xc2\x9b\xff\tb").unwrap());
        let shown = &fields(&headers)[0].1;
        assert!(!shown.chars().any(char::is_control), "{shown}");
    }
}
