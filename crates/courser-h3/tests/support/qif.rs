//! Header lists as text (`.qif`), and files in which an encoder's output lies (RFC 9204 calls the format its own; the
//! offline interop of QPACK implementations uses it): records of a stream number in eight bytes, a length in four, and so
//! many bytes. Stream 0 is the encoder's stream, each other one carries a field section.
#![allow(dead_code, reason = "each program uses its part")]

use courser_core::ids::StreamId;
use courser_h3::ConnectionError;
use courser_h3::qpack::{Decoded, Decoder, DecoderConfig, Encoder, EncoderConfig, Field};

/// Name and value.
pub type Line = (Vec<u8>, Vec<u8>);
/// The lines of one message.
pub type List = Vec<Line>;
/// Stream and bytes.
pub type Record = (u64, Vec<u8>);

/// What the name of a file says: the decoder's limits, and whether every section was acknowledged at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Capacity of the table.
    pub capacity: usize,
    /// Streams that may be blocked.
    pub blocked: usize,
    /// Whether acknowledgments were given.
    pub acks: bool,
}

/// How the encoder's stream reaches the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As it was sent.
    InOrder,
    /// As it was sent, one byte at a time.
    Bytes,
    /// As late as the limit of blocked streams permits; behind the next section where that was acknowledged.
    Late,
}

/// Reads header lists.
pub fn lists(text: &str) -> Vec<List> {
    let mut all = vec![List::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.is_empty() {
            all.push(List::new());
        } else {
            let (name, value) = line.split_once('\t').unwrap_or((line, ""));
            all.last_mut().expect("there is one").push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
    }
    all.retain(|list| !list.is_empty());
    all
}

/// Reads records; what is cut off at the end is left out.
pub fn records(mut bytes: &[u8]) -> Vec<Record> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<12>() {
        let (stream, length) = head.split_at(8);
        let stream = u64::from_be_bytes(stream.try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let Some((body, rest)) = rest.split_at_checked(usize::try_from(length).expect("32 bits")) else { break };
        all.push((stream, body.to_vec()));
        bytes = rest;
    }
    all
}

/// Writes a record; an empty one is left out.
pub fn put_record(out: &mut Vec<u8>, stream: u64, body: &[u8]) {
    if !body.is_empty() {
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(&u32::try_from(body.len()).expect("records are small").to_be_bytes());
        out.extend_from_slice(body);
    }
}

/// A decoder that is being fed, and what it gave.
pub struct Reading {
    decoder: Decoder,
    limits: Limits,
    waiting: Vec<Record>,
    lists: Vec<(u64, List)>,
    /// The most streams that ever were blocked at once.
    pub most_blocked: usize,
}

impl Reading {
    /// A decoder with these limits.
    pub fn new(limits: Limits) -> Self {
        let decoder = Decoder::new(DecoderConfig {
            max_table_capacity: limits.capacity,
            max_blocked_streams: limits.blocked,
            max_section_size: u64::MAX,
            max_fields: usize::MAX,
        });
        Self { decoder, limits, waiting: Vec::new(), lists: Vec::new(), most_blocked: 0 }
    }

    /// The table begins with all of its capacity: so it was when the other encoders' files were made.
    pub fn with_capacity_at_once(mut self) -> Self {
        let mut instruction = vec![0x20];
        let mut rest = self.limits.capacity;
        if rest < 31 {
            instruction[0] |= u8::try_from(rest).expect("small");
        } else {
            instruction[0] |= 31;
            rest -= 31;
            while rest >= 128 {
                instruction.push(u8::try_from(rest % 128).expect("small") | 128);
                rest /= 128;
            }
            instruction.push(u8::try_from(rest).expect("small"));
        }
        self.decoder.on_encoder_stream(&instruction).expect("the capacity is permitted");
        self
    }

    fn section(&mut self, stream: u64, section: &[u8]) -> Result<(), ConnectionError> {
        let mut list = List::new();
        let each = |field: Field<'_>| list.push((field.name.to_vec(), field.value.to_vec()));
        match self.decoder.decode(StreamId(stream), section, each)? {
            Decoded::Done => self.lists.push((stream, list)),
            Decoded::Blocked => {
                assert!(list.is_empty(), "a blocked section hands nothing out");
                self.waiting.push((stream, section.to_vec()));
                self.most_blocked = self.most_blocked.max(self.waiting.len());
            }
            Decoded::TooLarge => panic!("there is no limit"),
        }
        Ok(())
    }

    fn encoder_stream(&mut self, bytes: &[u8], size: usize) -> Result<(), ConnectionError> {
        for piece in bytes.chunks(size) {
            self.decoder.on_encoder_stream(piece)?;
            while let Some(stream) = self.decoder.unblocked() {
                let at = self.waiting.iter().position(|waiting| waiting.0 == stream.0).expect("it waited");
                let (stream, section) = self.waiting.remove(at);
                self.section(stream, &section)?;
            }
        }
        Ok(())
    }

    /// Decodes everything; the lists by the number of their stream.
    pub fn run(mut self, records: &[Record], delivery: Delivery) -> Result<(Vec<List>, Self), ConnectionError> {
        let mut held = Vec::new();
        for (stream, body) in records {
            match (stream, delivery) {
                (0, Delivery::InOrder) => self.encoder_stream(body, body.len().max(1))?,
                (0, Delivery::Bytes) => self.encoder_stream(body, 1)?,
                (0, Delivery::Late) => {
                    held.extend_from_slice(body);
                    if self.limits.acks && !self.waiting.is_empty() {
                        self.encoder_stream(&std::mem::take(&mut held), 1)?;
                    }
                }
                _ => {
                    // One byte after the other, so that each section is decoded before anything it needs can leave.
                    if self.waiting.len() >= self.limits.blocked {
                        self.encoder_stream(&std::mem::take(&mut held), 1)?;
                    }
                    self.section(*stream, body)?;
                    if self.limits.acks {
                        // The encoder went on in the belief that this section was decoded.
                        self.encoder_stream(&std::mem::take(&mut held), 1)?;
                    }
                }
            }
            self.decoder.instructions().clear();
        }
        self.encoder_stream(&held, 1)?;
        assert!(self.waiting.is_empty(), "streams wait for insertions that never come");
        self.lists.sort_by_key(|list| list.0);
        let lists = std::mem::take(&mut self.lists).into_iter().map(|list| list.1).collect();
        Ok((lists, self))
    }
}

/// Encodes lists as the file of an encoder.
pub fn encode(lists: &[List], limits: Limits) -> Vec<u8> {
    let mut encoder =
        Encoder::new(EncoderConfig { max_table_capacity: limits.capacity, max_blocked_streams: limits.blocked });
    encoder.set_peer_limits(limits.capacity as u64, limits.blocked as u64).expect("the first limits");
    let mut reading = Reading::new(limits);
    let mut out = Vec::new();
    for (stream, list) in (1..).zip(lists) {
        let mut section = Vec::new();
        encoder.encode(StreamId(stream), list.iter().map(|line| Field::new(&line.0, &line.1)), &mut section);
        let instructions = std::mem::take(encoder.instructions());
        put_record(&mut out, 0, &instructions);
        put_record(&mut out, stream, &section);
        if limits.acks {
            reading.encoder_stream(&instructions, usize::MAX).expect("own instructions");
            reading.section(stream, &section).expect("own section");
            encoder.on_decoder_stream(&std::mem::take(reading.decoder.instructions())).expect("own answers");
        }
    }
    out
}
