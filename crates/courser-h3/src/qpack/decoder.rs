//! The decoder: reads the peer's encoder stream into the table and field sections into field lines (RFC 9204 section 2.2).
//!
//! A section that needs insertions that have not come is not kept here: its stream is noted, the caller keeps the bytes (best
//! in the stream's flow-control window) and calls again when [`Decoder::unblocked`] names it.
//!
//! What the encoder should know gathers in [`Decoder::instructions`]. Acknowledgments of sections go there at once. That
//! insertions came is said when the caller fetches the bytes, and only as far as no acknowledgment has said it.
//!
//! Memory: the table, the part of one instruction, one field line, the noted streams, and the decoder stream's bytes. Each
//! has a limit.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use courser_core::ids::StreamId;

use super::Field;
use super::blocked::Blocked;
use super::dynamic_table::{CAPACITY_MAX, DynamicTable, OVERHEAD};
use super::instructions::{DecoderInstruction, EncoderInstruction, Name, Part};
use super::prefix_int::{Cursor, Fault};
use super::static_table;
use super::text::{Text, length};
use crate::error::{Code, ConnectionError};

/// How many bytes of the decoder stream may wait for the transport. A peer that gives no credit for that stream and goes on
/// with requests ends its connection.
const WAITING_MAX: usize = 16 * 1024;

/// How many instructions may come that no field section follows; each section forgives as many as it may have lines. They
/// cost a peer a byte each and us up to a table of copying.
const IDLE_MAX: usize = 10_000;

/// Room for strings that is kept between calls; more is taken and given back for a field line that needs it.
const SCRATCH_KEPT: usize = 4096;

/// What a decoder permits its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderConfig {
    /// The largest dynamic table: SETTINGS_QPACK_MAX_TABLE_CAPACITY. At most 2^28.
    pub max_table_capacity: usize,
    /// How many streams may wait for insertions: SETTINGS_QPACK_BLOCKED_STREAMS.
    pub max_blocked_streams: usize,
    /// The largest field section by the measure of RFC 9114 section 4.2.2: names, values, and 32 bytes for each line.
    pub max_section_size: u64,
    /// The most field lines of a section.
    pub max_fields: usize,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self { max_table_capacity: 4096, max_blocked_streams: 16, max_section_size: 64 * 1024, max_fields: 256 }
    }
}

/// What became of a field section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// All lines were handed out.
    Done,
    /// It waits for insertions; [`Decoder::unblocked`] will name the stream. Nothing was handed out: call again with the same bytes.
    Blocked,
    /// It is well-formed as far as it was read, but larger than permitted: what was handed out is not all. The table is not
    /// touched by that.
    TooLarge,
}

/// See the module.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    table: DynamicTable,
    blocked: Blocked,
    /// How many insertions the encoder knows, or is told by `instructions`, to have come.
    known: u64,
    instructions: Vec<u8>,
    part: Part,
    /// Where strings are put together.
    scratch: Vec<u8>,
    /// Instructions for which no section has come.
    idle: usize,
    /// Something could not be told because too much waits: the next call that may fail does.
    overrun: bool,
}

/// The beginning of a section.
struct Prefix {
    required: u64,
    base: u64,
}

/// Where the name or the whole of a field line comes from.
enum Line<'a> {
    Static(u64),
    Dynamic(u64),
    StaticName(u64, Text<'a>),
    DynamicName(u64, Text<'a>),
    Literal(Text<'a>, Text<'a>),
}

fn failed(reason: &'static str) -> ConnectionError {
    ConnectionError::new(Code::QPACK_DECOMPRESSION_FAILED, reason)
}

fn stream_error(reason: &'static str) -> ConnectionError {
    ConnectionError::new(Code::QPACK_ENCODER_STREAM_ERROR, reason)
}

/// A section is there as a whole: nothing can be missing.
//= rfc9204#7.4-2
fn section_fault(fault: Fault) -> ConnectionError {
    match fault {
        Fault::Short => failed("a field section that ends too early"),
        Fault::Broken(reason) => failed(reason),
    }
}

fn stream_fault(fault: Fault) -> ConnectionError {
    match fault {
        Fault::Short => stream_error("an instruction that ends too early"),
        Fault::Broken(reason) => stream_error(reason),
    }
}

impl Decoder {
    /// A decoder with an empty table.
    #[must_use]
    pub fn new(mut config: DecoderConfig) -> Self {
        config.max_table_capacity = config.max_table_capacity.min(CAPACITY_MAX);
        Self {
            config,
            table: DynamicTable::default(),
            blocked: Blocked::default(),
            known: 0,
            instructions: Vec::new(),
            part: Part::default(),
            scratch: Vec::new(),
            idle: 0,
            overrun: false,
        }
    }

    /// Bytes of the peer's encoder stream, in order, in pieces of any size.
    ///
    /// # Errors
    /// What ends the connection.
    pub fn on_encoder_stream(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.check_overrun()?;
        let mut part = std::mem::take(&mut self.part);
        let fed = part.feed(bytes, |bytes| self.execute_whole(bytes));
        self.part = part;
        fed
    }

    /// Executes the instructions that are there as a whole; says how many bytes they have.
    fn execute_whole(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        let mut used = 0;
        loop {
            let mut cursor = Cursor::new(bytes.get(used..).unwrap_or_default());
            let entries = self.table.inserted() - self.table.oldest();
            match EncoderInstruction::read(&mut cursor, self.table.capacity(), entries) {
                Ok(instruction) => self.execute(instruction)?,
                Err(Fault::Short) => return Ok(used),
                Err(fault) => return Err(stream_fault(fault)),
            }
            used = bytes.len() - cursor.rest().len();
        }
    }

    fn execute(&mut self, instruction: EncoderInstruction<'_>) -> Result<(), ConnectionError> {
        self.idle += 1;
        if self.idle > IDLE_MAX {
            return Err(ConnectionError::new(Code::EXCESSIVE_LOAD, "instructions for a table that no section uses"));
        }
        let Self { table, scratch, config, .. } = self;
        scratch.clear();
        match instruction {
            EncoderInstruction::SetCapacity(capacity) => {
                //= rfc9204#4.3.1-2
                let permitted =
                    usize::try_from(capacity).ok().filter(|capacity| *capacity <= config.max_table_capacity);
                table.set_capacity(permitted.ok_or_else(|| stream_error("a table larger than permitted"))?);
                return Ok(());
            }
            EncoderInstruction::Duplicate(relative) => {
                //= rfc9204#3.2-1
                let index = absolute(table.inserted(), relative);
                let there = index.is_some_and(|index| table.duplicate(index));
                return if there { Ok(()) } else { Err(stream_error("a duplicate of no entry")) };
            }
            EncoderInstruction::Insert(Name::Static(name), _) => scratch.extend_from_slice(name),
            EncoderInstruction::Insert(Name::Relative(relative), _) => {
                let entry = absolute(table.inserted(), relative).and_then(|index| table.get(index));
                scratch.extend_from_slice(entry.ok_or_else(|| stream_error("the name of no entry"))?.0);
            }
            EncoderInstruction::Insert(Name::Text(name), _) => name.append(scratch).map_err(stream_fault)?,
        }
        let name = scratch.len();
        if let EncoderInstruction::Insert(_, value) = instruction {
            value.append(scratch).map_err(stream_fault)?;
        }
        let (name, value) = scratch.split_at(name);
        //= rfc9204#3.2.2-2
        if table.insert(name, value) { Ok(()) } else { Err(stream_error("an entry larger than the table")) }
    }

    /// Decodes a field section of a stream and hands out its lines in order. A line's bytes are only valid during the call.
    ///
    /// # Errors
    /// What ends the connection; lines that were handed out before are worth nothing then.
    //= rfc9204#2.2-1
    pub fn decode(
        &mut self,
        stream: StreamId,
        section: &[u8],
        mut each: impl FnMut(Field<'_>),
    ) -> Result<Decoded, ConnectionError> {
        self.check_overrun()?;
        let mut cursor = Cursor::new(section);
        let prefix = self.prefix(&mut cursor)?;
        if prefix.required > self.table.inserted() {
            return self.block(stream, prefix.required);
        }
        self.idle = self.idle.saturating_sub(self.config.max_fields);
        let (mut size, mut fields, mut outcome) = (0_u64, 0, Decoded::Done);
        while !cursor.rest().is_empty() {
            let (line, sensitive) = read_line(&mut cursor, &prefix)?;
            let (name, value) = resolve(&self.table, &mut self.scratch, &line, prefix.required)?;
            size = size.saturating_add(length(name.len() + value.len() + OVERHEAD));
            fields += 1;
            if size > self.config.max_section_size || fields > self.config.max_fields {
                outcome = Decoded::TooLarge;
                break;
            }
            each(Field { name, value, sensitive });
        }
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        //= rfc9204#2.2.2.1-1
        if prefix.required > 0 {
            self.say(DecoderInstruction::Acknowledge(stream.0));
            self.known = self.known.max(prefix.required);
        }
        Ok(outcome)
    }

    fn block(&mut self, stream: StreamId, required: u64) -> Result<Decoded, ConnectionError> {
        //= rfc9204#2.1.2-2
        if self.blocked.len() >= self.config.max_blocked_streams && !self.blocked.contains(stream) {
            return Err(failed("more blocked streams than permitted"));
        }
        self.blocked.add(stream, required);
        Ok(Decoded::Blocked)
    }

    /// Required Insert Count and Base (RFC 9204 section 4.5.1).
    fn prefix(&self, cursor: &mut Cursor<'_>) -> Result<Prefix, ConnectionError> {
        let encoded = cursor.int(8).map_err(section_fault)?;
        let required = self.required_insert_count(encoded)?;
        let negative = cursor.peek().is_some_and(|first| first & 0x80 != 0);
        let delta = cursor.int(7).map_err(section_fault)?;
        //= rfc9204#4.5.1.2-2
        let base = if negative {
            required.checked_sub(delta).and_then(|past| past.checked_sub(1)).ok_or_else(|| failed("a negative Base"))?
        } else {
            required.checked_add(delta).ok_or_else(|| failed("a Base of more than 64 bits"))?
        };
        Ok(Prefix { required, base })
    }

    //= rfc9204#4.5.1.1-1
    fn required_insert_count(&self, encoded: u64) -> Result<u64, ConnectionError> {
        let Some(remainder) = encoded.checked_sub(1) else { return Ok(0) };
        let max_entries = length(self.config.max_table_capacity / OVERHEAD);
        let range = max_entries * 2;
        if encoded > range {
            return Err(failed("a Required Insert Count beyond the range"));
        }
        let max_value = self.table.inserted() + max_entries;
        let mut required = max_value / range * range + remainder;
        if required > max_value {
            required = required.checked_sub(range).ok_or_else(|| failed("a Required Insert Count that cannot be"))?;
        }
        if required == 0 { Err(failed("a Required Insert Count of zero in a long form")) } else { Ok(required) }
    }

    /// The next stream whose section does not wait any more: call [`Decoder::decode`] for it again.
    pub fn unblocked(&mut self) -> Option<StreamId> {
        self.blocked.pop_ready(self.table.inserted())
    }

    /// The stream was reset or nobody reads it any more before all of its sections were decoded.
    pub fn cancel(&mut self, stream: StreamId) {
        self.blocked.remove(stream);
        // Without a table there are no references that anybody counts.
        if self.config.max_table_capacity > 0 {
            self.say(DecoderInstruction::Cancel(stream.0));
        }
    }

    /// Bytes for the decoder stream: the caller takes off the front what the transport took.
    pub fn instructions(&mut self) -> &mut Vec<u8> {
        let news = self.table.inserted() - self.known;
        // An increment is never lost: without room it is said later.
        if news > 0 && self.instructions.len() < WAITING_MAX {
            self.known += news;
            self.say(DecoderInstruction::Increment(news));
        }
        &mut self.instructions
    }

    fn say(&mut self, instruction: DecoderInstruction) {
        if self.instructions.len() < WAITING_MAX {
            instruction.put(&mut self.instructions);
        } else {
            self.overrun = true;
        }
    }

    fn check_overrun(&self) -> Result<(), ConnectionError> {
        if self.overrun {
            return Err(ConnectionError::new(Code::EXCESSIVE_LOAD, "no credit for the decoder stream"));
        }
        Ok(())
    }
}

/// The absolute index of the entry that is `relative` entries before the one that ends at `base`.
fn absolute(base: u64, relative: u64) -> Option<u64> {
    base.checked_sub(relative)?.checked_sub(1)
}

/// Reads a representation (RFC 9204 sections 4.5.2 to 4.5.6), and whether it must not be indexed.
fn read_line<'a>(cursor: &mut Cursor<'a>, prefix: &Prefix) -> Result<(Line<'a>, bool), ConnectionError> {
    let first = cursor.peek().unwrap_or_default();
    let relative =
        |index: u64| absolute(prefix.base, index).ok_or_else(|| failed("a reference to before the first entry"));
    let past = |index: u64| prefix.base.checked_add(index).ok_or_else(|| failed("a reference beyond 64 bits"));
    // A string is within its section, whose size the caller limits.
    //= rfc9204#7.4-1
    let no_limit = usize::MAX;
    let line = match first {
        0xc0.. => (Line::Static(cursor.int(6).map_err(section_fault)?), false),
        0x80.. => (Line::Dynamic(relative(cursor.int(6).map_err(section_fault)?)?), false),
        0x40.. => {
            let name = cursor.int(4).map_err(section_fault)?;
            let value = cursor.text(7, no_limit).map_err(section_fault)?;
            let line = match first & 0x10 != 0 {
                true => Line::StaticName(name, value),
                false => Line::DynamicName(relative(name)?, value),
            };
            (line, first & 0x20 != 0)
        }
        0x20.. => {
            let name = cursor.text(3, no_limit).map_err(section_fault)?;
            let value = cursor.text(7, no_limit).map_err(section_fault)?;
            (Line::Literal(name, value), first & 0x10 != 0)
        }
        0x10.. => (Line::Dynamic(past(cursor.int(4).map_err(section_fault)?)?), false),
        _ => {
            let name = past(cursor.int(3).map_err(section_fault)?)?;
            let value = cursor.text(7, no_limit).map_err(section_fault)?;
            (Line::DynamicName(name, value), first & 0x08 != 0)
        }
    };
    Ok(line)
}

/// Name and value of a line. What is Huffman coded is put together in `scratch`.
fn resolve<'a>(
    table: &'a DynamicTable,
    scratch: &'a mut Vec<u8>,
    line: &Line<'a>,
    required: u64,
) -> Result<(&'a [u8], &'a [u8]), ConnectionError> {
    //= rfc9204#3.1-1
    let in_static = |index| static_table::get(index).ok_or_else(|| failed("no such entry in the static table"));
    //= rfc9204#2.2.3-1
    //= rfc9204#2.2.1-2
    let in_dynamic = |index| match index < required {
        true => table.get(index).ok_or_else(|| failed("a reference to an evicted entry")),
        false => Err(failed("a reference beyond the Required Insert Count")),
    };
    scratch.clear();
    let (name, value) = match *line {
        Line::Static(index) => return in_static(index),
        Line::Dynamic(index) => return in_dynamic(index),
        Line::StaticName(index, value) => (in_static(index)?.0, value),
        Line::DynamicName(index, value) => (in_dynamic(index)?.0, value),
        Line::Literal(name, value) => {
            let name_size = match name.huffman {
                true => name.append(scratch).map(|()| scratch.len()).map_err(section_fault)?,
                false => 0,
            };
            if value.huffman {
                value.append(scratch).map_err(section_fault)?;
            }
            let (decoded_name, decoded_value) = scratch.split_at(name_size);
            let pick = |text: Text<'a>, decoded| if text.huffman { decoded } else { text.bytes };
            return Ok((pick(name, decoded_name), pick(value, decoded_value)));
        }
    };
    if !value.huffman {
        return Ok((name, value.bytes));
    }
    value.append(scratch).map_err(section_fault)?;
    Ok((name, scratch))
}

#[cfg(test)]
mod tests;
