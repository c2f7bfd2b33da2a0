//! What users write: addresses, rules, quantities, configurations, and traces that they have read to them.

use courser::net::target::Target;
use courser_cli::args::{address, units as quantities};
use courser_cli::output::Palette;
use courser_cli::qlog::event::Normal;
use courser_cli::qlog::read::{Visit, read};
use courser_cli::qlog::summary::Collector;
use courser_cli::qlog::timeline;
use courser_stack::echo::Job;
use courser_stack::host::Place;
use courser_web::config::Config;

pub(crate) const ADDRESS_WORDS: &[&str] = &[
    "quic://",
    "tcp://",
    "udp://",
    "[",
    "]",
    "::",
    "%1",
    ":",
    "/",
    "*",
    "65535",
    "0",
    ".",
    "xn--",
    "255.255.255.255",
    "é",
];
pub(crate) const UNIT_WORDS: &[&str] = &[
    "18446744073709551615",
    "1e308",
    "nan",
    "inf",
    "-",
    ".",
    "K",
    "GiB",
    "T",
    "ms",
    "us",
    "h",
    "/",
    " ",
    "nclient ",
    "bytes ",
];
pub(crate) const CONFIG_WORDS: &[&str] = &[
    "[stack]\n",
    "[server]\n",
    "[[site]]\n",
    "[limits]\n",
    "[connect]\n",
    "=",
    "\"",
    "\n",
    "[",
    "]",
    "{",
    "}",
    "'''",
    "\"\"\"",
    "9223372036854775807",
    "-1",
    "true",
    "1979-05-27T07:32:00Z",
    "inf",
    "\\u0000",
    "allow",
    "names",
    "proxy",
    "files",
    "\u{1f40e}",
];
pub(crate) const QLOG_WORDS: &[&str] = &[
    "\u{1e}",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\n",
    "1e308",
    "-1",
    "null",
    "\"time\":",
    "\"name\":",
    "\"data\":",
    "\"events\":",
    "\"traces\":",
    "quic:packet_sent",
    "\"frames\":",
    "\\ud800",
    "\"delta\"",
    "\"raw\":{\"length\":1e19}",
];

/// The input as text, if it is one.
pub(crate) fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Targets of the command line.
pub(crate) fn target(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(target) = text.parse::<Target>() {
        assert!(target.port != 0);
        assert_eq!(target.to_string().parse(), Ok(target), "{text:?}");
    }
    if let Ok(target) = address::target_or_port(text, 443) {
        assert_eq!(target.to_string().parse(), Ok(target), "{text:?}");
    }
}

/// Rules of who may listen where.
pub(crate) fn listen_rule(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(place) = text.parse::<Place>() {
        let own = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let _ = place.has(courser_session::control::Protocol::Quic, own);
    }
}

/// Quantities of the command line, and the words of the host stack's test command.
pub(crate) fn units(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = quantities::size(text);
    let _ = quantities::duration(text);
    if let Ok(clients) = quantities::clients(text) {
        assert!((1..=1_000_000).contains(&clients.connections) && (1..=1_000_000).contains(&clients.streams));
    }
    let _ = courser_web::units::size(text);
    if let Ok(time) = courser_web::units::duration(text) {
        // For people, who do not want every digit.
        assert!(!courser_web::units::shown(time).is_empty());
    }
    let words: Vec<_> = text.split(' ').take(64).collect();
    if let Ok(job) = Job::parse(&words) {
        assert!(job.connections > 0 && job.streams > 0);
    }
}

/// The configuration of servers and of the host stack.
pub(crate) fn server_config(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Config::parse(text) {
        Ok(config) => {
            if let Err(mistake) = config.check() {
                assert!(!mistake.to_string().is_empty());
            }
        }
        Err(mistake) => {
            assert!(!mistake.to_string().is_empty());
            let lines = text.matches('\n').count() + 1;
            assert!(mistake.place.is_none_or(|(line, column)| (1..=lines).contains(&line) && column > 0), "{text:?}");
        }
    }
}

/// What becomes of a trace.
#[derive(Default)]
struct Reading {
    normal: Normal,
    collector: Collector,
    bad: u64,
}

impl Visit for Reading {
    fn head(&mut self, head: &serde_json::Value) {
        self.normal.head(head);
        self.collector.head(head);
    }

    fn event(&mut self, record: serde_json::Value) {
        let Ok(event) = self.normal.event(record) else {
            self.bad += 1;
            return;
        };
        let line = timeline::line(&event, Palette::PLAIN);
        assert!(!line.contains(|c: char| c.is_control()), "a trace moves the screen: {line:?}");
        self.collector.event(&event);
    }
}

/// Traces, of this program and of others.
pub(crate) fn qlog(data: &[u8]) {
    let mut reading = Reading::default();
    let (_, tally) = read(data, &mut reading, &|_| ()).unwrap();
    let summary = reading.collector.finish(tally.bad + reading.bad).text(Palette::PLAIN);
    assert!(!summary.contains(|c: char| c.is_control() && c != '\n'), "a trace moves the screen: {summary:?}");
}
