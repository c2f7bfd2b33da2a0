//! Records of a trace, one at a time.
//!
//! Three forms are understood, told apart by how the file begins: JSON text sequences (a record separator in front of each
//! record), a record a line, and one JSON document with `traces` and their `events`. Records that cannot be read are
//! counted and skipped; a document ends where it breaks off.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What stands in front of each record of a sequence.
const SEPARATOR: u8 = 0x1e;
/// A record that is longer is not one of a trace.
const RECORD_MAX: usize = 16 << 20;
/// Bad records that are told one by one.
const TOLD_MAX: usize = 5;

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON text sequence.
    Sequence,
    /// A record a line.
    Lines,
    /// One document.
    Document,
}

/// Receives what a file holds.
pub trait Visit {
    /// The head of the file, or of a trace in it.
    fn head(&mut self, head: &Value);
    /// One event.
    fn event(&mut self, event: Value);
}

/// What reading came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that could not be read.
    pub bad: u64,
    /// The first few of them: where, and why.
    pub complaints: Vec<String>,
    /// Traces beyond the first, which are left out.
    pub other_traces: u64,
}

impl Tally {
    fn complain(&mut self, place: impl fmt::Display, why: impl fmt::Display) {
        self.bad += 1;
        if self.complaints.len() < TOLD_MAX {
            self.complaints.push(format!("{place}: {why}"));
        }
    }
}

/// Reads a whole file. `moved` is told how many bytes were taken so far, now and then.
///
/// # Errors
/// What the system says.
pub fn read(from: impl Read, visit: &mut dyn Visit, moved: &dyn Fn(u64)) -> io::Result<(Form, Tally)> {
    let taken = Cell::new(0);
    let mut from = BufReader::with_capacity(32 << 10, Counted { from, taken: &taken, moved });
    let mut tally = Tally::default();
    let first = loop {
        let Some(byte) = from.fill_buf()?.first().copied() else { return Ok((Form::Document, tally)) };
        if !byte.is_ascii_whitespace() {
            break byte;
        }
        from.consume(1);
    };
    if first == SEPARATOR {
        records(&mut from, SEPARATOR, visit, &mut tally)?;
        return Ok((Form::Sequence, tally));
    }
    // The first line of lines is a record by itself, that of a document usually is not.
    let mut line = Vec::new();
    let whole = take_until(&mut from, b'\n', &mut line)?;
    let rest = !from.fill_buf()?.is_empty();
    line.push(b'\n');
    if whole && rest && serde_json::from_slice::<IgnoredAny>(&line).is_ok() {
        let both = &mut io::Cursor::new(line).chain(from);
        records(both, b'\n', visit, &mut tally)?;
        return Ok((Form::Lines, tally));
    }
    let both = io::Cursor::new(line).chain(from);
    let mut json = serde_json::Deserializer::from_reader(both);
    let mut document = Document { visit, tally: &mut tally, traces: 0 };
    if let Err(e) = Document::deserialize(&mut document, &mut json) {
        if e.is_io() {
            return Err(e.into());
        }
        tally.complain("the document breaks off", e);
    }
    Ok((Form::Document, tally))
}

/// Counts what is read.
struct Counted<'a, R> {
    from: R,
    taken: &'a Cell<u64>,
    moved: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buf)?;
        self.taken.set(self.taken.get() + n as u64);
        (self.moved)(self.taken.get());
        Ok(n)
    }
}

/// Appends bytes up to a mark, which is dropped; false when there were too many, of which the rest is dropped too.
fn take_until(from: &mut impl BufRead, mark: u8, out: &mut Vec<u8>) -> io::Result<bool> {
    let mut fits = true;
    loop {
        let buf = from.fill_buf()?;
        if buf.is_empty() {
            return Ok(fits);
        }
        let end = buf.iter().position(|b| *b == mark);
        let part = &buf[..end.unwrap_or(buf.len())];
        fits &= out.len() + part.len() <= RECORD_MAX;
        if fits {
            out.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(fits);
        }
    }
}

fn records(from: &mut impl BufRead, mark: u8, visit: &mut dyn Visit, tally: &mut Tally) -> io::Result<()> {
    let mut record = Vec::new();
    let mut number = 0u64;
    let mut headed = false;
    loop {
        record.clear();
        let fits = take_until(from, mark, &mut record)?;
        let text = record.trim_ascii();
        if text.is_empty() && fits {
            if from.fill_buf()?.is_empty() {
                return Ok(());
            }
            continue;
        }
        number += 1;
        if !fits {
            tally.complain(format_args!("record {number}"), "it is too long");
            continue;
        }
        match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(map)) => {
                let value = Value::Object(map);
                let is_event = value.get("name").is_some() || value.get("data").is_some();
                if !is_event && !std::mem::replace(&mut headed, true) {
                    visit.head(&value);
                } else if is_event {
                    visit.event(value);
                } else {
                    tally.complain(format_args!("record {number}"), "it is no event");
                }
            }
            Ok(_) => tally.complain(format_args!("record {number}"), "it is no object"),
            Err(e) => tally.complain(format_args!("record {number}"), e),
        }
    }
}

/// Walks through a document without keeping it.
struct Document<'a> {
    visit: &'a mut dyn Visit,
    tally: &'a mut Tally,
    traces: u64,
}

/// Where in the document.
#[derive(Clone, Copy)]
enum Place {
    Root,
    Traces,
    Trace,
    Events,
}

/// One level of it.
struct Level<'d, 'a>(&'d mut Document<'a>, Place);

impl Document<'_> {
    fn deserialize<'de, D: Deserializer<'de>>(&mut self, d: D) -> Result<(), D::Error> {
        Level(self, Place::Root).deserialize(d)
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.1 {
            Place::Root | Place::Trace => "an object",
            Place::Traces => "a list of traces",
            Place::Events => "a list of events",
        })
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Self(document, place) = self;
        let mut head = serde_json::Map::new();
        let mut told = false;
        while let Some(key) = map.next_key::<String>()? {
            match (place, key.as_str()) {
                (Place::Root, "traces") => map.next_value_seed(Level(document, Place::Traces))?,
                (Place::Trace, "events") if document.traces == 1 => {
                    document.visit.head(&Value::Object(std::mem::take(&mut head)));
                    told = true;
                    map.next_value_seed(Level(document, Place::Events))?;
                }
                (Place::Trace, "events") => _ = map.next_value::<IgnoredAny>()?,
                _ => _ = head.insert(key, map.next_value()?),
            }
        }
        // What stands behind the events is too late to be the head, but a root says its version anywhere.
        if matches!(place, Place::Root) || !told {
            document.visit.head(&Value::Object(head));
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        let Self(document, place) = self;
        if matches!(place, Place::Traces) {
            loop {
                document.traces += 1;
                if seq.next_element_seed(Level(document, Place::Trace))?.is_none() {
                    document.tally.other_traces = document.traces.saturating_sub(2);
                    return Ok(());
                }
            }
        }
        while let Some(event) = seq.next_element::<Value>()? {
            document.visit.event(event);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<Value>, Vec<Value>);

    impl Visit for Seen {
        fn head(&mut self, head: &Value) {
            self.0.push(head.clone());
        }
        fn event(&mut self, event: Value) {
            self.1.push(event);
        }
    }

    fn seen(text: &str) -> (Form, Tally, Seen) {
        let mut seen = Seen::default();
        let (form, tally) = read(text.as_bytes(), &mut seen, &|_| ()).unwrap();
        (form, tally, seen)
    }

    #[test]
    fn the_three_forms_give_the_same_events() {
        let (a, b) = (r#"{"time":1,"name":"quic:a","data":{}}"#, r#"{"time":2,"name":"quic:b","data":{}}"#);
        let head = r#"{"qlog_version":"0.3","trace":{"vantage_point":{"type":"client"}}}"#;
        for (text, expected) in [
            (format!("\u{1e}{head}\n\u{1e}{a}\n\u{1e}{b}\n"), Form::Sequence),
            (format!("{head}\n{a}\n{b}\n"), Form::Lines),
            (
                format!("{{\"qlog_version\":\"0.3\",\n\"traces\":[{{\"title\":\"x\",\"events\":[{a},\n{b}]}}]}}"),
                Form::Document,
            ),
            (
                format!("{{\"qlog_version\":\"0.3\",\"traces\":[{{\"title\":\"x\",\"events\":[{a},{b}]}}]}}"),
                Form::Document,
            ),
        ] {
            let (form, tally, seen) = seen(&text);
            assert_eq!((form, tally.bad, seen.1.len()), (expected, 0, 2), "{text}");
            assert_eq!(seen.1[1]["name"], "quic:b");
            assert!(!seen.0.is_empty());
        }
    }

    #[test]
    fn bad_records_are_counted_and_skipped() {
        let text = "\u{1e}{\"file_schema\":\"x\"}\n\u{1e}{\"time\":1,\"name\":\"a\",\"data\":{}}\n\u{1e}{\"time\":2,\"na\n\
                    \u{1e}[1]\n\u{1e}{\"odd\":1}\n\n\u{1e}{\"time\":3,\"name\":\"b\",\"data\":{}}\n\u{1e}{\"time\":4,";
        let (_, tally, seen) = seen(text);
        assert_eq!((tally.bad, seen.1.len()), (4, 2), "{tally:?}");
        assert!(tally.complaints[0].starts_with("record 3: "), "{tally:?}");
    }

    #[test]
    fn a_document_that_breaks_off_gives_what_it_has() {
        let (form, tally, seen) = seen("{\"traces\":[{\"events\":[{\"name\":\"a\",\"data\":{}},{\"name\":\"b\",");
        assert_eq!((form, tally.bad, seen.1.len()), (Form::Document, 1, 1));
        assert!(tally.complaints[0].contains("breaks off"));
    }

    #[test]
    fn only_the_first_trace_of_several_is_read() {
        let one = r#"{"events":[{"name":"a","data":{}}]}"#;
        let (_, tally, seen) = seen(&format!("{{\"traces\":[{one},{one},{one}]}}"));
        assert_eq!((tally.other_traces, seen.1.len()), (2, 1));
    }

    #[test]
    fn nothing_and_nonsense_do_no_harm() {
        assert_eq!(seen("").1, Tally::default());
        assert_eq!(seen("  \n ").1.bad, 0);
        assert_eq!(seen("hello").1.bad, 1);
        assert_eq!(seen("[1,2]").2.1.len(), 2, "a list without a head: events that are none, for others to judge");
    }
}
