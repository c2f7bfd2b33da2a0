//! A naive QPACK decoder that also watches the encoder: it sees everything that the encoder says and hears, and knows from
//! the RFC what the encoder may do. It shares no code with the product.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::qif::{Line, List};

const HUFFMAN: &str = include_str!("../../testdata/vectors/rfc7541-huffman.tsv");
const STATIC: &str = include_str!("../../testdata/vectors/rfc9204-static-table.tsv");

struct Outstanding {
    stream: u64,
    required: u64,
    references: BTreeSet<u64>,
}

/// See the module.
pub struct Referee {
    max_capacity: usize,
    max_blocked: usize,
    capacity: usize,
    entries: VecDeque<Line>,
    dropped: u64,
    known: u64,
    outstanding: Vec<Outstanding>,
    symbols: HashMap<(usize, u32), u16>,
    statics: Vec<Line>,
    /// Encoder instructions that were seen, by their kind: capacity, insert, duplicate.
    pub seen: [usize; 3],
}

fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| !line.starts_with('#')).skip(1).map(|line| line.split('\t').collect())
}

/// Reads an integer off the front.
fn int(bytes: &mut &[u8], bits: u32) -> u64 {
    let mask = (1_u64 << bits) - 1;
    let mut value = u64::from(bytes[0]) & mask;
    let mut at = 1;
    if value == mask {
        let mut shift = 0;
        loop {
            value += u64::from(bytes[at] & 0x7f) << shift;
            shift += 7;
            at += 1;
            if bytes[at - 1] & 0x80 == 0 {
                break;
            }
        }
    }
    *bytes = &bytes[at..];
    value
}

impl Referee {
    /// Of an encoder whose peer permits this.
    pub fn new(max_capacity: usize, max_blocked: usize) -> Self {
        let symbols = rows(HUFFMAN)
            .map(|row| ((row[2].parse().unwrap(), u32::from_str_radix(row[1], 16).unwrap()), row[0].parse().unwrap()));
        let statics = rows(STATIC).map(|row| (row[1].into(), row.get(2).copied().unwrap_or_default().into()));
        Self {
            max_capacity,
            max_blocked,
            capacity: 0,
            entries: VecDeque::new(),
            dropped: 0,
            known: 0,
            outstanding: Vec::new(),
            symbols: symbols.collect(),
            statics: statics.collect(),
            seen: [0; 3],
        }
    }

    fn text(&self, bytes: &mut &[u8], bits: u32) -> Vec<u8> {
        let huffman = bytes[0] >> bits & 1 == 1;
        let length = usize::try_from(int(bytes, bits)).unwrap();
        let (string, rest) = bytes.split_at(length);
        *bytes = rest;
        if !huffman {
            return string.to_vec();
        }
        let (mut out, mut length, mut code) = (Vec::new(), 0, 0);
        for bit in string.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
            (length, code) = (length + 1, code << 1 | u32::from(bit));
            if let Some(symbol) = self.symbols.get(&(length, code)) {
                out.push(u8::try_from(*symbol).unwrap());
                (length, code) = (0, 0);
            }
        }
        assert!(length < 8 && code == (1 << length) - 1, "padding");
        out
    }

    fn inserted(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    fn entry(&self, index: u64) -> &Line {
        assert!(index >= self.dropped, "entry {index} was evicted");
        &self.entries[usize::try_from(index - self.dropped).unwrap()]
    }

    fn size(&self) -> usize {
        self.entries.iter().map(|line| line.0.len() + line.1.len() + 32).sum()
    }

    /// Evicts down to a size, if that is permitted.
    //= rfc9204#2.1.1-1 type=test
    //= rfc9204#3.2.2-1 type=test
    //= rfc9204#4.3.1-3 type=test
    fn evict(&mut self, size: usize) {
        while self.size() > size {
            assert!(self.dropped < self.known, "an entry leaves that was not acknowledged");
            let referred = self.outstanding.iter().any(|section| section.references.contains(&self.dropped));
            assert!(!referred, "an entry leaves that a section refers to");
            self.entries.pop_front();
            self.dropped += 1;
        }
    }

    fn insert(&mut self, line: Line) {
        let size = line.0.len() + line.1.len() + 32;
        assert!(size <= self.capacity, "an entry larger than the table");
        self.evict(self.capacity - size);
        self.entries.push_back(line);
    }

    /// Whole instructions of the encoder stream.
    pub fn encoder_says(&mut self, mut bytes: &[u8]) {
        let bytes = &mut bytes;
        while let Some(first) = bytes.first().copied() {
            if first & 0xe0 == 0x20 {
                let capacity = usize::try_from(int(bytes, 5)).unwrap();
                //= rfc9204#3.2.3-1 type=test
                //= rfc9204#4.3.1-1 type=test
                assert!(capacity <= self.max_capacity, "a capacity beyond the limit");
                self.evict(capacity);
                self.capacity = capacity;
                self.seen[0] += 1;
                continue;
            }
            let newest = self.inserted();
            let line = if first & 0x80 != 0 {
                let index = int(bytes, 6);
                let name = match first & 0x40 != 0 {
                    true => self.statics[usize::try_from(index).unwrap()].0.clone(),
                    false => self.entry(newest - 1 - index).0.clone(),
                };
                (name, self.text(bytes, 7))
            } else if first & 0x40 != 0 {
                (self.text(bytes, 5), self.text(bytes, 7))
            } else {
                self.seen[2] += 1;
                self.entry(newest - 1 - int(bytes, 5)).clone()
            };
            self.seen[1] += 1;
            self.insert(line);
        }
        //= rfc9204#3.2.3-3 type=test
        assert!(self.max_capacity > 0 || self.seen == [0; 3], "instructions without a table");
    }

    /// A section, whose insertions were said before: its lines, and whether each must not be indexed.
    pub fn encoder_sends(&mut self, stream: u64, mut bytes: &[u8]) -> Vec<(Line, bool)> {
        let bytes = &mut bytes;
        let encoded = int(bytes, 8);
        let negative = bytes[0] & 0x80 != 0;
        let delta = int(bytes, 7);
        let required = if encoded == 0 { 0 } else { self.required(encoded) };
        //= rfc9204#4.5.1.2-1 type=test
        let base = if negative { required.checked_sub(delta + 1).expect("a negative Base") } else { required + delta };
        let mut references = BTreeSet::new();
        let mut lines = Vec::new();
        while let Some(first) = bytes.first().copied() {
            lines.push(self.line(first, bytes, base, &mut references));
        }
        assert_eq!(references.last().map_or(0, |newest| newest + 1), required, "the lowest count is required");
        if required > 0 {
            self.outstanding.push(Outstanding { stream, required, references });
        }
        //= rfc9204#2.1.2-1 type=test
        let risky = self.outstanding.iter().filter(|section| section.required > self.known);
        let risky: BTreeSet<u64> = risky.map(|section| section.stream).collect();
        assert!(risky.len() <= self.max_blocked, "{} streams may block", risky.len());
        lines
    }

    /// The newest count that is encoded so and no larger than what was inserted.
    fn required(&self, encoded: u64) -> u64 {
        let range = (self.max_capacity / 32) as u64 * 2;
        let required = (0..=self.inserted()).rev().find(|count| count % range + 1 == encoded).expect("a count");
        assert!(required > 0 && self.inserted() - required < range / 2 + 1, "a decoder that has all would misread it");
        required
    }

    fn line(&self, first: u8, bytes: &mut &[u8], base: u64, references: &mut BTreeSet<u64>) -> (Line, bool) {
        let mut dynamic = |index: u64| {
            references.insert(index);
            self.entry(index).clone()
        };
        let fixed = |index: u64| self.statics[usize::try_from(index).unwrap()].clone();
        if first & 0x80 != 0 {
            let index = int(bytes, 6);
            (if first & 0x40 != 0 { fixed(index) } else { dynamic(base - 1 - index) }, false)
        } else if first & 0x40 != 0 {
            let index = int(bytes, 4);
            let name = if first & 0x10 != 0 { fixed(index).0 } else { dynamic(base - 1 - index).0 };
            ((name, self.text(bytes, 7)), first & 0x20 != 0)
        } else if first & 0x20 != 0 {
            ((self.text(bytes, 3), self.text(bytes, 7)), first & 0x10 != 0)
        } else if first & 0x10 != 0 {
            (dynamic(base + int(bytes, 4)), false)
        } else {
            let name = dynamic(base + int(bytes, 3)).0;
            ((name, self.text(bytes, 7)), first & 0x08 != 0)
        }
    }

    /// Whole instructions of the decoder stream.
    pub fn encoder_hears(&mut self, mut bytes: &[u8]) {
        let bytes = &mut bytes;
        while let Some(first) = bytes.first().copied() {
            if first & 0x80 != 0 {
                let stream = int(bytes, 7);
                let at = self.outstanding.iter().position(|section| section.stream == stream).expect("a section");
                self.known = self.known.max(self.outstanding.remove(at).required);
            } else if first & 0x40 != 0 {
                let stream = int(bytes, 6);
                self.outstanding.retain(|section| section.stream != stream);
            } else {
                self.known += int(bytes, 6);
                assert!(self.known <= self.inserted());
            }
        }
    }

    /// How many sections are not acknowledged.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }
}

/// The lines without what is said about them.
pub fn plain(lines: &[(Line, bool)]) -> List {
    lines.iter().map(|line| line.0.clone()).collect()
}
