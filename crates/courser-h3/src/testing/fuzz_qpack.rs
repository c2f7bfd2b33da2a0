//! The target for QPACK: an encoder and two decoders, by a script of what a peer sends and what is to be sent.
//!
//! Held to: no panic; lines that were encoded are decoded to themselves by a decoder that has read the encoder's stream, whatever
//! answers the encoder was given; errors have the code of their stream; one byte at a time a decoder says the same as with
//! whole pieces; what gathers stays within its limits.

use courser_core::ids::StreamId;

use crate::qpack::{Decoded, Decoder, DecoderConfig, Encoder, EncoderConfig, Field};
use crate::{Code, ConnectionError};

/// What a script says, one operation after the other.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// As many bytes as the next one says.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or_default()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}

const SECTION_MAX: u64 = 4096;

/// The decoders that a peer talks to, one of them in pieces of a byte, and the one of our encoder.
struct World {
    whole: Decoder,
    bytewise: Decoder,
    encoder: Encoder,
    mirror: Decoder,
}

/// What a decoder made of a section.
fn decode(decoder: &mut Decoder, stream: u64, section: &[u8]) -> (Result<Decoded, ConnectionError>, Vec<u8>) {
    let mut text = Vec::new();
    let outcome = decoder.decode(StreamId(stream), section, |field| {
        text.extend_from_slice(field.name);
        text.push(b'=');
        text.extend_from_slice(field.value);
        text.push(u8::from(field.sensitive));
    });
    (outcome, text)
}

fn check(error: &ConnectionError, expected: Code) {
    assert!(error.code == expected || error.code == Code::EXCESSIVE_LOAD, "{error}");
}

impl World {
    fn new(capacity: u8, blocked: u8) -> Self {
        let capacity = [0, 64, 200, 4096][usize::from(capacity % 4)];
        let blocked = usize::from(blocked % 4);
        let config = DecoderConfig {
            max_table_capacity: capacity,
            max_blocked_streams: blocked,
            max_section_size: SECTION_MAX,
            max_fields: 64,
        };
        let mut encoder = Encoder::new(EncoderConfig::default());
        let limits = encoder.set_peer_limits(capacity as u64, blocked as u64);
        assert_eq!(limits, Ok(()));
        let mirror = DecoderConfig { max_section_size: u64::MAX, max_fields: usize::MAX, ..config };
        Self { whole: Decoder::new(config), bytewise: Decoder::new(config), encoder, mirror: Decoder::new(mirror) }
    }

    /// The peer's encoder stream; whether it goes on.
    fn peer_inserts(&mut self, bytes: &[u8]) -> bool {
        let whole = self.whole.on_encoder_stream(bytes);
        let bytewise = bytes.iter().try_for_each(|byte| self.bytewise.on_encoder_stream(&[*byte]));
        assert_eq!(whole, bytewise);
        if let Err(error) = &whole {
            check(error, Code::QPACK_ENCODER_STREAM_ERROR);
        }
        whole.is_ok()
    }

    /// A section of the peer; whether it goes on.
    fn peer_sends(&mut self, stream: u8, section: &[u8]) -> bool {
        let whole = decode(&mut self.whole, u64::from(stream), section);
        let bytewise = decode(&mut self.bytewise, u64::from(stream), section);
        assert_eq!(whole, bytewise);
        assert!(whole.1.len() <= 2 * 4096, "what is handed out has a limit");
        if let Err(error) = &whole.0 {
            check(error, Code::QPACK_DECOMPRESSION_FAILED);
        }
        whole.0.is_ok()
    }

    /// A message of our own: names of one of a few, values from the script.
    fn send(&mut self, stream: u8, values: &[u8]) {
        const NAMES: [&[u8]; 6] = [b":path", b"cookie", b"x-own-name", b"user-agent", b"y", b"content-length"];
        let fields: Vec<Field<'_>> = values
            .chunks(9)
            .map(|chunk| {
                let (first, value) = chunk.split_first().unwrap_or((&0, &[]));
                Field { name: NAMES[usize::from(*first) % 6], value, sensitive: first & 0x80 != 0 }
            })
            .collect();
        let mut section = Vec::new();
        self.encoder.encode(StreamId(u64::from(stream)), fields.iter().copied(), &mut section);
        let told = self.mirror.on_encoder_stream(self.encoder.instructions());
        assert_eq!(told, Ok(()));
        self.encoder.instructions().clear();
        let mut fields = fields.into_iter();
        let outcome = self.mirror.decode(StreamId(u64::from(stream)), &section, |found| {
            let sent = fields.next();
            assert!(sent.is_some_and(|sent| {
                (sent.name, sent.value) == (found.name, found.value) && found.sensitive >= sent.sensitive
            }));
        });
        assert_eq!((outcome, fields.next()), (Ok(Decoded::Done), None));
        self.mirror.instructions().clear();
    }
}

/// QPACK by a script.
///
/// # Panics
/// When one of the rules does not hold.
pub fn qpack(data: &[u8]) {
    let mut script = Script(data);
    let mut world = World::new(script.byte().unwrap_or_default(), script.byte().unwrap_or_default());
    let (mut peer, mut answers) = (true, true);
    while let Some(operation) = script.byte() {
        let stream = operation >> 4;
        match operation % 8 {
            0 | 1 if peer => peer = world.peer_inserts(script.bytes()),
            2 | 3 if peer => peer = world.peer_sends(stream, script.bytes()),
            4 if answers => {
                let answer = world.encoder.on_decoder_stream(script.bytes());
                if let Err(error) = &answer {
                    check(error, Code::QPACK_DECODER_STREAM_ERROR);
                }
                answers = answer.is_ok();
            }
            5 | 6 => world.send(stream, script.bytes()),
            7 => {
                for decoder in [&mut world.whole, &mut world.bytewise] {
                    decoder.cancel(StreamId(u64::from(stream)));
                    while decoder.unblocked().is_some() {}
                }
                assert_eq!(world.whole.instructions(), world.bytewise.instructions());
            }
            _ => {}
        }
    }
}
