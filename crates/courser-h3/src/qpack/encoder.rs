//! The encoder: field lines into sections, and what the peer's decoder needs for them (RFC 9204 section 2.1).
//!
//! One pass: Base is the insert count before the section; what is inserted on the way is referred to behind it.
//! [`policy`](super::policy) says what is worth a place; what only may be is inserted when it comes again within the memory of
//! a small table of hashes. A line that is found among the oldest entries of a full table is duplicated, so that the old
//! entry can leave.
//!
//! Invariants, whatever the decoder does: no entry leaves that an outstanding section refers to or that was not
//! acknowledged; no more streams may have to wait than the decoder permitted; nothing refers to an insertion whose
//! instruction the transport did not take when the section began, so that flow control cannot make a knot of them.
//! Whatever does not work out under these rules becomes a literal.

use courser_core::ids::StreamId;

use super::Field;
use super::blocked::Blocked;
use super::dynamic_table::{CAPACITY_MAX, OVERHEAD, entry_size};
use super::index::{Hashes, IndexedTable};
use super::instructions::{
    DecoderInstruction, Part, put_capacity, put_duplicate, put_insert_literal, put_insert_relative, put_insert_static,
};
use super::policy::{Kind, kind};
use super::prefix_int::{Cursor, Fault, put};
use super::sections::{References, Sections};
use super::static_table;
use super::text::{length, put_text};
use crate::error::{Code, ConnectionError};

/// What an encoder spends of what its peer permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderConfig {
    /// The largest dynamic table. At most 2^28.
    pub max_table_capacity: usize,
    /// How many streams may have to wait for the encoder stream.
    pub max_blocked_streams: usize,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self { max_table_capacity: 4096, max_blocked_streams: 16 }
    }
}

/// Names that are shorter than this are written literally: a place for them saves too little.
const NAME_WORTH: usize = 6;

/// The hashes of lines that were seen lately and are not in the table; a new one takes the place of an old one.
#[derive(Debug, Default)]
struct Recent {
    lines: Vec<u32>,
}

impl Recent {
    const SIZE: usize = 32;

    /// Whether the line was seen; it is from now on.
    fn saw(&mut self, line: u32) -> bool {
        self.lines.resize(Self::SIZE, 0);
        let place = &mut self.lines[usize::try_from(line >> 8).unwrap_or_default() % Self::SIZE];
        std::mem::replace(place, line) == line
    }
}

/// See the module.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    /// The decoder's limit of the table's capacity, by which insert counts are encoded.
    peer_capacity: u64,
    max_blocked_streams: usize,
    table: IndexedTable,
    recent: Recent,
    sections: Sections,
    /// Streams that may have to wait at the decoder.
    risky: Blocked,
    /// How many insertions the decoder is known to have.
    known: u64,
    instructions: Vec<u8>,
    /// Whether the decoder was told the table's capacity.
    announced: bool,
    /// How many insertions the transport certainly has taken.
    taken: u64,
    part: Part,
    /// Cancellations that came since somebody asked.
    cancellations: u32,
}

/// A section that is being encoded.
struct Section {
    /// The insert count before it.
    base: u64,
    /// Entries below this may be referred to.
    reach: u64,
    /// Whether entries may be inserted.
    inserts: bool,
    /// The oldest entry that is referred to.
    oldest: u64,
    /// One more than the newest entry that is referred to.
    required: u64,
}

impl Section {
    fn refer(&mut self, index: u64) {
        self.oldest = self.oldest.min(index);
        self.required = self.required.max(index + 1);
    }
}

fn stream_error(reason: &'static str) -> ConnectionError {
    ConnectionError::new(Code::QPACK_DECODER_STREAM_ERROR, reason)
}

impl Encoder {
    /// An encoder that uses the static table alone, until it is told what the peer permits.
    #[must_use]
    pub fn new(mut config: EncoderConfig) -> Self {
        config.max_table_capacity = config.max_table_capacity.min(CAPACITY_MAX);
        Self {
            config,
            peer_capacity: 0,
            max_blocked_streams: 0,
            table: IndexedTable::default(),
            recent: Recent::default(),
            sections: Sections::default(),
            risky: Blocked::default(),
            known: 0,
            instructions: Vec::new(),
            announced: false,
            taken: 0,
            part: Part::default(),
            cancellations: 0,
        }
    }

    /// What the peer's SETTINGS permit: SETTINGS_QPACK_MAX_TABLE_CAPACITY and SETTINGS_QPACK_BLOCKED_STREAMS; before, what is
    /// remembered of them, for 0-RTT.
    ///
    /// # Errors
    /// A capacity that was not zero was changed.
    //= rfc9204#3.2.3-2
    pub fn set_peer_limits(
        &mut self,
        max_table_capacity: u64,
        max_blocked_streams: u64,
    ) -> Result<(), ConnectionError> {
        if self.peer_capacity != 0 && self.peer_capacity != max_table_capacity {
            return Err(stream_error("the capacity of the table differs from the remembered one"));
        }
        let blocked = usize::try_from(max_blocked_streams).unwrap_or(usize::MAX);
        self.max_blocked_streams = blocked.min(self.config.max_blocked_streams);
        if self.peer_capacity == 0 && max_table_capacity != 0 {
            self.peer_capacity = max_table_capacity;
            //= rfc9204#3.2.3-1
            //= rfc9204#4.3.1-1
            let permitted = usize::try_from(max_table_capacity).unwrap_or(usize::MAX);
            let capacity = permitted.min(self.config.max_table_capacity);
            if capacity > OVERHEAD {
                self.table.set_capacity(capacity);
            }
        }
        Ok(())
    }

    /// Appends the field section of a stream to `out`. What it needs gathers in [`Encoder::instructions`]; as long as bytes wait
    /// there from before, nothing is inserted: hand them to the transport before the next section, and before this one.
    //= rfc9204#2.1-1
    pub fn encode<'a>(&mut self, stream: StreamId, fields: impl IntoIterator<Item = Field<'a>>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        //= rfc9204#3.2.3-3
        if self.table.table().capacity() == 0 {
            for field in fields {
                put_without_table(&field, out);
            }
            return;
        }
        let mut section = self.begin(stream);
        for field in fields {
            self.put_field(&mut section, &field, out);
        }
        self.end(stream, &section, start, out);
    }

    fn begin(&mut self, stream: StreamId) -> Section {
        let base = self.table.table().inserted();
        //= rfc9204#2.1.3-1
        let clear = self.instructions.is_empty();
        if clear {
            self.taken = base;
        }
        //= rfc9204#2.1.2-1
        let may_wait = self.risky.len() < self.max_blocked_streams || self.risky.contains(stream);
        let reach = match (self.sections.is_full(), may_wait, clear) {
            (true, ..) => 0,
            (false, false, _) => self.known,
            (false, true, false) => self.taken.max(self.known),
            (false, true, true) => u64::MAX,
        };
        Section { base, reach, inserts: clear && !self.sections.is_full(), oldest: u64::MAX, required: 0 }
    }

    fn put_field(&mut self, section: &mut Section, field: &Field<'_>, out: &mut Vec<u8>) {
        let Field { name, value, sensitive } = *field;
        let entry = static_table::find_name(name);
        if let Some(line) = entry.and_then(|entry| static_table::find_value(entry, value))
            && !sensitive
        {
            return put(out, 0xc0, 6, u64::from(line));
        }
        let kind = if sensitive { Kind::Secret } else { kind(entry, name, value) };
        let hashes = match kind {
            //= rfc9204#4.5.4-1, rfc9204#4.5.4-2, rfc9204#7.1.3-1, rfc9204#7.1.3-2
            Kind::Secret => return put_literal(entry, field, true, out),
            Kind::Never if entry.is_some() => return put_literal(entry, field, false, out),
            _ => Hashes::of(entry, name, value),
        };
        if let Some(index) = self.find_or_insert(section, kind, entry, hashes, field) {
            section.refer(index);
            return match section.base.checked_sub(index + 1) {
                Some(relative) => put(out, 0x80, 6, relative),
                None => put(out, 0x10, 4, index - section.base),
            };
        }
        let named = if entry.is_none() { self.find_or_insert_name(section, hashes, name) } else { None };
        let Some(index) = named else { return put_literal(entry, field, false, out) };
        section.refer(index);
        match section.base.checked_sub(index + 1) {
            Some(relative) => put(out, 0x40, 4, relative),
            None => put(out, 0, 3, index - section.base),
        }
        put_text(out, 0, 7, value);
    }

    /// The entry that stands for the line, which may be inserted for that; `None` when there is none to refer to.
    fn find_or_insert(
        &mut self,
        section: &Section,
        kind: Kind,
        entry: Option<u8>,
        hashes: Hashes,
        field: &Field<'_>,
    ) -> Option<u64> {
        let found = self.table.find_line(hashes, field.name, field.value, section.reach);
        if let Some(usable) = found.usable {
            let renewed = match found.newest == found.usable && section.inserts && self.table.is_draining(usable) {
                true => self.duplicate(section, usable),
                false => None,
            };
            return Some(renewed.filter(|index| *index < section.reach).unwrap_or(usable));
        }
        if found.newest.is_some() || !section.inserts {
            return None;
        }
        let worth = match kind {
            Kind::Eager if entry_size(field.name, field.value) * 8 <= self.table.table().capacity() => true,
            Kind::Eager | Kind::Repeated => self.recent.saw(hashes.line),
            Kind::Never | Kind::Secret | Kind::Cookie => false,
        };
        let index = if worth { self.insert(section, entry, hashes, field) } else { None };
        index.filter(|index| *index < section.reach)
    }

    /// The entry that stands for the name alone. A name that comes again with ever new values gets an entry without one.
    fn find_or_insert_name(&mut self, section: &Section, hashes: Hashes, name: &[u8]) -> Option<u64> {
        let found = self.table.find_name(hashes, name, section.reach);
        if let Some(index) = found.filter(|index| !self.table.is_draining(*index)) {
            return Some(index);
        }
        let bare = Field::new(name, b"");
        if !section.inserts
            || name.len() < NAME_WORTH
            || self.table.find_name(hashes, name, u64::MAX) != found
            || !self.recent.saw(hashes.name)
        {
            return None;
        }
        self.insert(section, None, Hashes::of(None, name, b""), &bare).filter(|index| *index < section.reach)
    }

    /// Entries below this may be evicted, as far as the section and the decoder's answers go.
    fn evictable(&self, section: &Section) -> u64 {
        self.known.min(section.oldest)
    }

    fn insert(&mut self, section: &Section, entry: Option<u8>, hashes: Hashes, field: &Field<'_>) -> Option<u64> {
        let size = entry_size(field.name, field.value);
        if !self.table.has_room(size, self.evictable(section)) {
            return None;
        }
        let newest = self.table.table().inserted();
        let named = if entry.is_none() { self.table.find_name(hashes, field.name, u64::MAX) } else { None };
        self.announce();
        match (entry, named) {
            (Some(entry), _) => put_insert_static(&mut self.instructions, entry, field.value),
            (None, Some(index)) => put_insert_relative(&mut self.instructions, newest - index - 1, field.value),
            (None, None) => put_insert_literal(&mut self.instructions, field.name, field.value),
        }
        Some(self.table.insert(hashes, field.name, field.value))
    }

    fn duplicate(&mut self, section: &Section, of: u64) -> Option<u64> {
        let table = self.table.table();
        let (size, copy) = (table.size_of(of)?, table.inserted());
        // A copy that cannot be referred to yet must not drive the original out, which is referred to instead.
        let keep = if copy < section.reach { u64::MAX } else { of };
        if !self.table.has_room(size, self.evictable(section).min(keep)) {
            return None;
        }
        self.announce();
        put_duplicate(&mut self.instructions, copy - of - 1);
        self.table.duplicate(of)
    }

    /// The decoder's table has no capacity until it is told, which is when it is first needed. It is told once: nothing is
    /// evicted by a change.
    //= rfc9204#4.3.1-3
    fn announce(&mut self) {
        if !self.announced {
            self.announced = true;
            put_capacity(&mut self.instructions, length(self.table.table().capacity()));
        }
    }

    /// Writes the prefix in front of the section, and notes what it refers to.
    fn end(&mut self, stream: StreamId, section: &Section, start: usize, out: &mut Vec<u8>) {
        let required = section.required;
        if required == 0 {
            return;
        }
        let body = start + 2;
        let lines = out.len();
        let range = self.peer_capacity / length(OVERHEAD) * 2;
        put(out, 0, 8, required % range + 1);
        match section.base.checked_sub(required) {
            Some(past) => put(out, 0, 7, past),
            //= rfc9204#4.5.1.2-1
            None => put(out, 0x80, 7, required - section.base - 1),
        }
        // The prefix is behind the lines now; two bytes were left for it in front, which nearly always are enough.
        let prefix = out.len() - lines;
        if prefix == 2 {
            out.copy_within(lines.., start);
            out.truncate(lines);
        } else {
            out[body..].rotate_right(prefix);
            out.drain(start..body);
        }
        self.table.pin(section.oldest);
        self.sections.push(stream, References { oldest: section.oldest, required });
        if required > self.known {
            self.risky.add(stream, required);
        }
    }

    /// Bytes for the encoder stream: the caller takes off the front what the transport took.
    pub fn instructions(&mut self) -> &mut Vec<u8> {
        &mut self.instructions
    }

    /// Bytes of the peer's decoder stream, in order, in pieces of any size.
    ///
    /// # Errors
    /// What ends the connection.
    pub fn on_decoder_stream(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let mut part = std::mem::take(&mut self.part);
        let fed = part.feed(bytes, |bytes| self.obey_whole(bytes));
        self.part = part;
        fed
    }

    /// How many Stream Cancellations came since the last call: of streams without sections they cost a peer a byte and do nothing.
    pub fn take_cancellations(&mut self) -> u32 {
        std::mem::take(&mut self.cancellations)
    }

    fn obey_whole(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        let mut used = 0;
        loop {
            let mut cursor = Cursor::new(&bytes[used..]);
            match DecoderInstruction::read(&mut cursor) {
                Ok(instruction) => self.obey(instruction)?,
                Err(Fault::Short) => return Ok(used),
                //= rfc9204#7.4-2
                Err(Fault::Broken(reason)) => return Err(stream_error(reason)),
            }
            used = bytes.len() - cursor.rest().len();
        }
    }

    fn obey(&mut self, instruction: DecoderInstruction) -> Result<(), ConnectionError> {
        match instruction {
            DecoderInstruction::Acknowledge(stream) => {
                //= rfc9204#4.4.1-1
                let section = self.sections.pop(StreamId(stream));
                let section = section.ok_or_else(|| stream_error("an acknowledgment of no section"))?;
                self.table.unpin(section.oldest);
                self.learn(section.required);
            }
            DecoderInstruction::Cancel(stream) => {
                self.cancellations = self.cancellations.saturating_add(1);
                while let Some(section) = self.sections.pop(StreamId(stream)) {
                    self.table.unpin(section.oldest);
                }
                self.risky.remove(StreamId(stream));
            }
            DecoderInstruction::Increment(inserts) => {
                //= rfc9204#4.4.3-1
                let known = self.known.checked_add(inserts).filter(|known| *known <= self.table.table().inserted());
                let known = known.filter(|known| *known > self.known);
                self.learn(known.ok_or_else(|| stream_error("an increment of nothing, or of what was not sent"))?);
            }
        }
        Ok(())
    }

    /// The decoder has so many insertions.
    fn learn(&mut self, inserts: u64) {
        if inserts > self.known {
            self.known = inserts;
            self.risky.release(inserts);
        }
    }
}

/// A line that refers to the static table or to none.
fn put_without_table(field: &Field<'_>, out: &mut Vec<u8>) {
    let entry = static_table::find_name(field.name);
    match entry.and_then(|entry| static_table::find_value(entry, field.value)) {
        Some(line) if !field.sensitive => put(out, 0xc0, 6, u64::from(line)),
        _ => {
            let never = field.sensitive || kind(entry, field.name, field.value) == Kind::Secret;
            put_literal(entry, field, never, out);
        }
    }
}

/// A literal with the name of a static entry, or its own.
fn put_literal(entry: Option<u8>, field: &Field<'_>, never_indexed: bool, out: &mut Vec<u8>) {
    match entry {
        Some(entry) => put(out, if never_indexed { 0x70 } else { 0x50 }, 4, u64::from(entry)),
        None => put_text(out, if never_indexed { 0x30 } else { 0x20 }, 3, field.name),
    }
    put_text(out, 0, 7, field.value);
}

#[cfg(test)]
mod tests;
