//! JSON text, written field by field into a byte buffer.
//!
//! Only what traces need: objects, lists, numbers, text, hexadecimal text. Everything that comes from a peer goes through
//! [`Object::text`] or [`Object::hex`], which escape it.

use std::time::Duration;

use courser_core::time::micros;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes a number.
pub(super) fn number(out: &mut Vec<u8>, mut v: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (v % 10) as u8;
        v /= 10;
        if v == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes microseconds as milliseconds, without digits that say nothing.
pub(super) fn milliseconds(out: &mut Vec<u8>, us: u64) {
    number(out, us / 1000);
    let rest = us % 1000;
    if rest > 0 {
        let digits = [b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8];
        let used = 3 - digits.iter().rev().take_while(|d| **d == b'0').count();
        out.push(b'.');
        out.extend_from_slice(&digits[..used]);
    }
}

/// Writes text with its quotation marks.
pub(super) fn text(out: &mut Vec<u8>, v: &str) {
    out.push(b'"');
    for c in v.bytes() {
        match c {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', c]),
            0..0x20 | 0x7f => {
                out.extend_from_slice(b"\\u00");
                hex_byte(out, c);
            }
            _ => out.push(c),
        }
    }
    out.push(b'"');
}

fn hex_byte(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    bytes.iter().for_each(|b| hex_byte(out, *b));
    out.push(b'"');
}

/// An object under construction.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
}

/// A list under construction.
pub(super) struct List<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
}

/// Writes an object.
pub(super) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out, any: false });
    out.push(b'}');
}

impl Object<'_> {
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn number(&mut self, key: &str, v: u64) -> &mut Self {
        number(self.key(key), v);
        self
    }

    /// A duration in milliseconds.
    pub(super) fn ms(&mut self, key: &str, v: Duration) -> &mut Self {
        milliseconds(self.key(key), micros(v));
        self
    }

    pub(super) fn flag(&mut self, key: &str, v: bool) -> &mut Self {
        self.key(key).extend_from_slice(if v { b"true" } else { b"false" });
        self
    }

    pub(super) fn text(&mut self, key: &str, v: &str) -> &mut Self {
        text(self.key(key), v);
        self
    }

    pub(super) fn hex(&mut self, key: &str, v: &[u8]) -> &mut Self {
        hex(self.key(key), v);
        self
    }

    /// A number in JSON's own notation, written by the program itself.
    pub(super) fn literal(&mut self, key: &str, v: &str) -> &mut Self {
        self.key(key).extend_from_slice(v.as_bytes());
        self
    }

    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        object(self.key(key), fill);
        self
    }

    pub(super) fn list(&mut self, key: &str, fill: impl FnOnce(&mut List<'_>)) -> &mut Self {
        let out = self.key(key);
        out.push(b'[');
        fill(&mut List { out, any: false });
        out.push(b']');
        self
    }
}

impl List<'_> {
    fn next(&mut self) -> &mut Vec<u8> {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
        self.out
    }

    pub(super) fn number(&mut self, v: u64) {
        number(self.next(), v);
    }

    pub(super) fn text(&mut self, v: &str) {
        text(self.next(), v);
    }

    pub(super) fn hex(&mut self, v: &[u8]) {
        hex(self.next(), v);
    }

    pub(super) fn object(&mut self, fill: impl FnOnce(&mut Object<'_>)) {
        object(self.next(), fill);
    }

    /// One or two numbers as a list of their own.
    pub(super) fn range(&mut self, first: u64, last: u64) {
        let out = self.next();
        out.push(b'[');
        number(out, first);
        if first != last {
            out.push(b',');
            number(out, last);
        }
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(fill: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        object(&mut out, fill);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_and_lists_are_separated() {
        let text = made(|o| {
            o.number("a", 0).number("b", u64::MAX).flag("c", true).hex("d", &[0, 255]);
            o.list("e", |l| {
                l.range(1, 1);
                l.range(2, 9);
                l.text("x");
                l.object(|o| {
                    o.literal("f", "1.5");
                });
            });
            o.list("g", |_| ());
        });
        assert_eq!(
            text,
            r#"{"a":0,"b":18446744073709551615,"c":true,"d":"00ff","e":[[1],[2,9],"x",{"f":1.5}],"g":[]}"#
        );
    }

    #[test]
    fn text_of_a_peer_cannot_leave_its_quotation_marks() {
        assert_eq!(made(|o| _ = o.text("a", "\"},\\\n\u{1e}\u{7f}é")), "{\"a\":\"\\\"},\\\\\\u000a\\u001e\\u007fé\"}");
    }

    #[test]
    fn milliseconds_have_the_digits_that_they_need() {
        for (us, expected) in [(0, "0"), (1, "0.001"), (10, "0.01"), (1_500, "1.5"), (2_000, "2"), (999_999, "999.999")]
        {
            let mut out = Vec::new();
            milliseconds(&mut out, us);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
