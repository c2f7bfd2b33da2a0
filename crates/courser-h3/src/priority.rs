//! Priorities (RFC 9218): the dictionary of the Priority field and of PRIORITY_UPDATE.
//!
//! The value is a structured-field dictionary (RFC 9651). Its whole syntax is checked, because a value that is no dictionary
//! counts as absent; only `u` and `i` have a meaning. No allocation, one pass, as long as the value is.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::io::Write as _;

use courser_core::stream::Priority;

/// What holds where nothing is said (RFC 9218 section 4).
pub const DEFAULT: Priority = Priority { urgency: 3, incremental: false };

/// The longest value of the field that is written.
pub const VALUE_MAX: usize = 6;

/// Reads a field value. Parameters that are absent, unknown, of another type or out of range count as their defaults; `None`
/// when the value is no dictionary.
//= rfc9218#4-1, rfc9218#4-2
#[must_use]
pub fn parse(value: &[u8]) -> Option<Priority> {
    let mut priority = DEFAULT;
    let mut p = Parser { rest: value };
    p.dictionary(|key, item| match (key, item) {
        // Of several members with the same key the last counts, even when it is then ignored.
        (b"u", Item::Integer(u)) => {
            priority.urgency = u8::try_from(u).ok().filter(|u| *u <= 7).unwrap_or(DEFAULT.urgency)
        }
        (b"u", _) => priority.urgency = DEFAULT.urgency,
        (b"i", Item::Boolean(i)) => priority.incremental = i,
        (b"i", _) => priority.incremental = DEFAULT.incremental,
        _ => {}
    })?;
    Some(priority)
}

/// Writes a field value: only what differs from the default. Returns the bytes and how many they are.
#[must_use]
pub fn format(priority: Priority) -> ([u8; VALUE_MAX], usize) {
    let mut out = [0; VALUE_MAX];
    let mut room = &mut out[..];
    let urgency = priority.urgency.min(7);
    let done = match (urgency != DEFAULT.urgency, priority.incremental) {
        (false, false) => Ok(()),
        (false, true) => room.write_all(b"i"),
        (true, false) => write!(room, "u={urgency}"),
        (true, true) => write!(room, "u={urgency},i"),
    };
    debug_assert!(done.is_ok(), "six bytes are enough");
    let left = room.len();
    (out, VALUE_MAX - left)
}

/// A bare item, as far as somebody asks for its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Integer(i64),
    Boolean(bool),
    /// Decimal, string, token, byte sequence, date, display string, or a list.
    Other,
}

/// Walks over the syntax of structured fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parser<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip(&mut self, blank: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&blank) {
            self.next();
        }
    }

    fn take(&mut self, member: impl Fn(u8) -> bool) -> &'a [u8] {
        let n = self.rest.iter().position(|b| !member(*b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        taken
    }

    fn accept(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.next();
        }
        there
    }

    /// A whole dictionary; tells of each member.
    fn dictionary(&mut self, mut each: impl FnMut(&'a [u8], Item)) -> Option<()> {
        self.skip(|b| b == b' ');
        while self.peek().is_some() {
            let key = self.key()?;
            let item = if self.accept(b'=') { self.item_or_list()? } else { Item::Boolean(true) };
            self.parameters()?;
            each(key, item);
            self.skip(|b| b == b' ' || b == b'\t');
            if self.peek().is_none() {
                return Some(());
            }
            if !self.accept(b',') {
                return None;
            }
            self.skip(|b| b == b' ' || b == b'\t');
            // A comma promises another member.
            self.peek()?;
        }
        Some(())
    }

    /// A whole item: its value, when nothing but parameters follows.
    pub(crate) fn single_item(&mut self) -> Option<Item> {
        self.skip(|b| b == b' ');
        let item = self.bare()?;
        self.parameters()?;
        self.skip(|b| b == b' ');
        self.rest.is_empty().then_some(item)
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let first = self.peek()?;
        if !(first.is_ascii_lowercase() || first == b'*') {
            return None;
        }
        Some(self.take(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)))
    }

    fn item_or_list(&mut self) -> Option<Item> {
        if !self.accept(b'(') {
            return self.bare();
        }
        loop {
            self.skip(|b| b == b' ');
            if self.accept(b')') {
                return Some(Item::Other);
            }
            self.bare()?;
            self.parameters()?;
            if !matches!(self.peek()?, b' ' | b')') {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.accept(b';') {
            self.skip(|b| b == b' ');
            self.key()?;
            if self.accept(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn bare(&mut self) -> Option<Item> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b':' => self.binary(),
            b'?' => self.boolean(),
            b'@' => {
                self.next();
                matches!(self.number()?, Item::Integer(_)).then_some(Item::Other)
            }
            b'%' => self.display_string(),
            first if first.is_ascii_alphabetic() || first == b'*' => {
                self.take(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item> {
        let sign = if self.accept(b'-') { -1 } else { 1 };
        let whole = self.take(|b| b.is_ascii_digit());
        if self.accept(b'.') {
            let fraction = self.take(|b| b.is_ascii_digit());
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Item::Other);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        Some(Item::Integer(sign * whole.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))))
    }

    fn string(&mut self) -> Option<Item> {
        self.next();
        loop {
            match self.next()? {
                b'"' => return Some(Item::Other),
                b'\\' if matches!(self.next()?, b'"' | b'\\') => {}
                b'\\' => return None,
                0x20..=0x7e => {}
                _ => return None,
            }
        }
    }

    fn binary(&mut self) -> Option<Item> {
        self.next();
        self.take(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        self.accept(b':').then_some(Item::Other)
    }

    fn boolean(&mut self) -> Option<Item> {
        self.next();
        match self.next()? {
            b'0' => Some(Item::Boolean(false)),
            b'1' => Some(Item::Boolean(true)),
            _ => None,
        }
    }

    fn display_string(&mut self) -> Option<Item> {
        self.next();
        if !self.accept(b'"') {
            return None;
        }
        loop {
            match self.next()? {
                b'"' => return Some(Item::Other),
                b'%' => {
                    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                    if !(hex(self.next()?) && hex(self.next()?)) {
                        return None;
                    }
                }
                0x20..=0x7e => {}
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(urgency: u8, incremental: bool) -> Option<Priority> {
        Some(Priority { urgency, incremental })
    }

    #[test]
    fn values_mean_what_the_document_says() {
        //= rfc9218#4-1 type=test
        assert_eq!(parse(b""), Some(DEFAULT));
        assert_eq!(parse(b"u=5"), p(5, false));
        assert_eq!(parse(b"i"), p(3, true));
        assert_eq!(parse(b"u=0, i"), p(0, true));
        assert_eq!(parse(b"u=7,i=?0"), p(7, false));
        assert_eq!(parse(b" i=?1;x=y;z ,\tu=1;q=\"a\" "), p(1, true));
    }

    #[test]
    fn what_is_unknown_out_of_range_or_of_another_type_is_ignored() {
        //= rfc9218#4-2 type=test
        for value in ["u=8", "u=-1", "u=3.0", "u=?1", "u", "u=a", "u=(1 2)", "i=1", "i=\"x\"", "i=i", "x=9, y=(a b), z"]
        {
            assert_eq!(parse(value.as_bytes()), Some(DEFAULT), "{value}");
        }
        assert_eq!(parse(b"u=1, u=9"), Some(DEFAULT), "the last one counts");
        assert_eq!(parse(b"u=9, u=1"), p(1, false));
    }

    #[test]
    fn what_is_no_dictionary_is_nothing() {
        for value in
            ["u=", "=1", "u=1,", ",u=1", "U=1", "u=1;", "u=1 i", "u=?2", "u=\"", "u=:a", "u=--1", "u=1.", "é=1"]
        {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for urgency in 0..=7 {
            for incremental in [false, true] {
                let priority = Priority { urgency, incremental };
                let (bytes, n) = format(priority);
                assert_eq!(parse(&bytes[..n]), Some(priority));
            }
        }
        assert_eq!(format(DEFAULT).1, 0);
        assert_eq!(&format(Priority { urgency: 200, incremental: true }).0, b"u=7,i\0");
    }

    #[test]
    fn the_dictionaries_of_the_working_group_parse_as_they_should() {
        let mut seen = 0;
        for text in [include_str!("../testdata/dictionary.json"), include_str!("../testdata/param-dict.json")] {
            let cases: serde_json::Value = serde_json::from_str(text).unwrap();
            for case in cases.as_array().unwrap() {
                let lines: Vec<&str> = case["raw"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
                let must_fail = case["must_fail"].as_bool().unwrap_or(false);
                let may_fail = case["can_fail"].as_bool().unwrap_or(false);
                let parsed = parse(lines.join(", ").as_bytes());
                assert!(may_fail || parsed.is_none() == must_fail, "{case}");
                seen += 1;
            }
        }
        assert!(seen >= 40, "{seen} cases");
    }
}
