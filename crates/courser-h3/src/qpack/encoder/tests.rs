//! What the encoder does with its permits, and what it makes of answers, right and wrong ones.

use super::super::testing::hex;
use super::super::{Decoded, Decoder, DecoderConfig};
use super::*;

fn encoder(capacity: u64, blocked: u64) -> Encoder {
    let mut encoder = Encoder::new(EncoderConfig::default());
    encoder.set_peer_limits(capacity, blocked).unwrap();
    encoder
}

fn encode(encoder: &mut Encoder, stream: u64, lines: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let fields = lines.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
    encoder.encode(StreamId(stream), fields, &mut out);
    out
}

fn take(encoder: &mut Encoder) -> Vec<u8> {
    std::mem::take(encoder.instructions())
}

fn answer_code(encoder: &mut Encoder, bytes: &str) -> Option<Code> {
    encoder.on_decoder_stream(&hex(bytes)).err().map(|error| error.code)
}

const HOST: (&str, &str) = (":authority", "www.example.com");

#[test]
fn the_examples_of_the_rfc_come_out() {
    // B.1, but Huffman coded.
    assert_eq!(encode(&mut encoder(0, 0), 0, &[(":path", "/index.html")]), hex("0000518860d5485f2bce9a68"));
    // B.2: the capacity, an insertion with a static name, a section that refers to it behind its Base.
    let mut encoder = encoder(500, 1);
    assert_eq!(encode(&mut encoder, 4, &[HOST]), hex("028010"));
    assert_eq!(take(&mut encoder), hex("3fd503c08cf1e3c2e5f23a6ba0ab90f4ff"));
    // Once it was taken, and acknowledged, before its Base.
    encoder.on_decoder_stream(&hex("84")).unwrap();
    assert_eq!(encode(&mut encoder, 8, &[HOST]), hex("020080"));
    assert_eq!(take(&mut encoder), b"");
}

#[test]
//= rfc9204#3.2.3-3 type=test
fn without_a_table_nothing_is_said_on_the_encoder_stream() {
    let mut unknown = Encoder::new(EncoderConfig::default());
    let mut none = encoder(0, 100);
    let mut unwilling = Encoder::new(EncoderConfig { max_table_capacity: 0, max_blocked_streams: 100 });
    unwilling.set_peer_limits(4096, 100).unwrap();
    for encoder in [&mut unknown, &mut none, &mut unwilling] {
        for stream in 0..10 {
            let section = encode(encoder, stream * 4, &[HOST, ("x-own", "a value")]);
            assert_eq!(section[..2], [0, 0]);
            assert_eq!(take(encoder), b"");
        }
    }
}

#[test]
//= rfc9204#3.2.3-1 type=test
//= rfc9204#4.3.1-1 type=test
fn the_capacity_is_the_smaller_of_both_limits() {
    for (peer, capacity) in [(500, "3fd503"), (4096, "3fe11f"), (1 << 40, "3fe11f")] {
        let mut encoder = encoder(peer, 1);
        encode(&mut encoder, 0, &[HOST]);
        assert!(take(&mut encoder).starts_with(&hex(capacity)), "{peer}");
    }
}

#[test]
//= rfc9204#3.2.3-2 type=test
//= rfc9204#4.3.1-3 type=test
fn a_remembered_capacity_has_to_stay() {
    let mut encoder = encoder(500, 1);
    encode(&mut encoder, 0, &[HOST]);
    take(&mut encoder);
    // The same again, with another number of streams, changes nothing in the table.
    encoder.set_peer_limits(500, 5).unwrap();
    encode(&mut encoder, 0, &[HOST]);
    assert_eq!(take(&mut encoder), b"");
    for other in [0, 499, 501, 4096] {
        assert_eq!(encoder.set_peer_limits(other, 5).unwrap_err().code, Code::QPACK_DECODER_STREAM_ERROR);
    }
    // From nothing it may grow.
    let mut late = super::tests::encoder(0, 0);
    late.set_peer_limits(500, 1).unwrap();
    assert_eq!(encode(&mut late, 0, &[HOST]), hex("028010"));
}

#[test]
//= rfc9204#2.1.2-1 type=test
fn no_more_streams_may_wait_than_permitted() {
    let mut encoder = encoder(4096, 2);
    let section = |encoder: &mut Encoder, stream: u64| {
        let section = encode(encoder, stream, &[HOST]);
        take(encoder);
        section[0] != 0
    };
    assert!(section(&mut encoder, 0) && section(&mut encoder, 4));
    assert!(!section(&mut encoder, 8), "a third one");
    assert!(section(&mut encoder, 4), "one that may wait already");
    // One stream less, then one that counted twice, then nobody waits any more.
    encoder.on_decoder_stream(&hex("44")).unwrap();
    assert!(section(&mut encoder, 8) && !section(&mut encoder, 12));
    encoder.on_decoder_stream(&hex("01")).unwrap();
    for stream in 3..20 {
        assert!(section(&mut encoder, stream * 4));
    }
}

#[test]
//= rfc9204#2.1.3-1 type=test
fn while_instructions_wait_nothing_is_inserted_nor_referred_to_that_they_carry() {
    let mut encoder = encoder(4096, 10);
    assert_eq!(encode(&mut encoder, 0, &[HOST])[0], 2);
    let waiting = encoder.instructions().len();
    // The transport took a part.
    encoder.instructions().drain(..5);
    assert_eq!(encode(&mut encoder, 4, &[HOST, ("user-agent", "some agent")])[..2], [0, 0]);
    assert_eq!(encoder.instructions().len(), waiting - 5);
    take(&mut encoder);
    assert_eq!(
        encode(&mut encoder, 8, &[HOST, ("user-agent", "some agent")]),
        hex("03808010"),
        "one before, one behind"
    );
    // What was taken may be referred to while the rest waits, and what was acknowledged anyway.
    let section = encode(&mut encoder, 12, &[HOST, ("user-agent", "some agent"), ("accept", "nothing at all")]);
    assert_eq!(section[0], 2);
    assert_eq!(section[2], 0x81);
    encoder.on_decoder_stream(&hex("02")).unwrap();
    assert_eq!(encode(&mut encoder, 16, &[("user-agent", "some agent")]), hex("030080"));
}

#[test]
//= rfc9204#4.5.4-1 type=test
//= rfc9204#4.5.4-2 type=test
//= rfc9204#7.1.3-1 type=test
//= rfc9204#7.1.3-2 type=test
fn a_line_that_must_not_be_indexed_is_forwarded_as_such_a_literal() {
    // With a name of the static table, one of both in it, and its own name; the last two are in the dynamic table as well.
    for (name, value) in
        [(":path", "/secret"), (":method", "GET"), ("x-key", "a value"), (":authority", "www.example.com")]
    {
        let (mut first, mut second) = (encoder(4096, 10), encoder(4096, 10));
        let mut decoder = Decoder::new(DecoderConfig::default());
        for encoder in [&mut first, &mut second] {
            for stream in 0..3 {
                encode(encoder, stream * 4, &[(name, value)]);
            }
        }
        let field = Field { sensitive: true, ..Field::new(name.as_bytes(), value.as_bytes()) };
        let mut here = Vec::new();
        first.encode(StreamId(12), [field], &mut here);
        assert_eq!(here[..2], [0, 0], "{name}");
        assert!(matches!(here[2] & 0xf0, 0x70) || here[2] & 0xf0 == 0x30, "{name}: {:02x}", here[2]);
        let mut there = Vec::new();
        let outcome = decoder.decode(StreamId(12), &here, |field| second.encode(StreamId(12), [field], &mut there));
        assert_eq!(outcome, Ok(Decoded::Done));
        assert_eq!(there, here);
    }
}

#[test]
//= rfc9204#7.1.3-2 type=test
fn what_lets_somebody_in_is_never_indexed_without_being_asked() {
    for (name, value) in
        [("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), ("cookie", "id=7"), ("proxy-authorization", "x")]
    {
        for capacity in [0, 4096] {
            let mut encoder = encoder(capacity, 10);
            for stream in 0..4 {
                let section = encode(&mut encoder, stream, &[(name, value)]);
                assert!(section[..2] == [0, 0] && matches!(section[2] & 0xf0, 0x70 | 0x30), "{name}: {section:02x?}");
                assert_eq!(take(&mut encoder), b"");
            }
        }
    }
}

#[test]
//= rfc9204#4.4.1-1 type=test
fn an_acknowledgment_of_no_section_fails() {
    assert_eq!(answer_code(&mut encoder(4096, 10), "84"), Some(Code::QPACK_DECODER_STREAM_ERROR));
    let mut encoder = encoder(4096, 10);
    encode(&mut encoder, 4, &[HOST]);
    encode(&mut encoder, 8, &[(":method", "GET")]);
    assert_eq!(answer_code(&mut encoder, "84"), None);
    assert_eq!(answer_code(&mut encoder, "84"), Some(Code::QPACK_DECODER_STREAM_ERROR), "a second time");
    assert_eq!(answer_code(&mut encoder, "88"), Some(Code::QPACK_DECODER_STREAM_ERROR), "without references");
    // A cancellation may come for any stream, but is the end of it.
    take(&mut encoder);
    encode(&mut encoder, 12, &[HOST]);
    assert_eq!(answer_code(&mut encoder, "4c4c50"), None);
    assert_eq!(answer_code(&mut encoder, "8c"), Some(Code::QPACK_DECODER_STREAM_ERROR), "after its cancellation");
}

#[test]
//= rfc9204#4.4.3-1 type=test
fn an_increment_of_nothing_or_of_too_much_fails() {
    for (increment, good) in [("00", false), ("01", true), ("02", true), ("03", false), ("0101", true), ("0102", false)]
    {
        let mut encoder = encoder(4096, 10);
        encode(&mut encoder, 4, &[HOST, ("user-agent", "some agent")]);
        let expected = (!good).then_some(Code::QPACK_DECODER_STREAM_ERROR);
        assert_eq!(answer_code(&mut encoder, increment), expected, "{increment}");
    }
    // What a section's acknowledgment said counts.
    let mut encoder = encoder(4096, 10);
    encode(&mut encoder, 4, &[HOST]);
    assert_eq!(answer_code(&mut encoder, "8401"), Some(Code::QPACK_DECODER_STREAM_ERROR));
}

#[test]
//= rfc9204#7.4-2 type=test
fn an_answer_of_more_than_62_bits_fails_and_a_long_one_may_come_in_pieces() {
    for first in ["ff", "7f", "3f"] {
        let code = answer_code(&mut encoder(4096, 10), &format!("{first}c0ffffffffffffffff"));
        assert_eq!(code, Some(Code::QPACK_DECODER_STREAM_ERROR), "{first}");
    }
    let mut encoder = encoder(4096, 10);
    let stream = 1 << 50;
    encode(&mut encoder, stream, &[HOST]);
    let mut answer = Vec::new();
    DecoderInstruction::Acknowledge(stream).put(&mut answer);
    for byte in answer {
        assert_eq!(encoder.known, 0);
        encoder.on_decoder_stream(&[byte]).unwrap();
    }
    assert_eq!(encoder.known, 1);
}

#[test]
fn a_decoder_that_never_answers_takes_bounded_memory() {
    let mut encoder = encoder(4096, 16);
    for stream in 0..5_000_u64 {
        let own = format!("value {}", stream % 1_000);
        encode(&mut encoder, stream * 4, &[HOST, ("x-own", &own), (":path", &own)]);
        take(&mut encoder);
        if stream == 100 {
            // The insertions were received; no section ever is acknowledged.
            encoder.on_decoder_stream(&hex("01")).unwrap();
        }
    }
    assert_eq!(encoder.sections.len(), crate::qpack::sections::SECTIONS_MAX);
    assert!(encoder.table.table().size() <= 4096);
    assert!(encoder.sections.memory() <= 96 * 1024, "{}", encoder.sections.memory());
    // From then on everything is literal.
    assert_eq!(encode(&mut encoder, 1 << 40, &[HOST])[..2], [0, 0]);
    assert_eq!(take(&mut encoder), b"");
    encoder.on_decoder_stream(&hex("80")).unwrap();
    assert_ne!(encode(&mut encoder, 1 << 40, &[HOST])[0], 0);
}

#[test]
fn a_prefix_of_more_than_two_bytes_moves_the_lines() {
    let mut encoder = encoder(1 << 20, 16);
    let mut decoder = Decoder::new(DecoderConfig { max_table_capacity: 1 << 20, ..DecoderConfig::default() });
    let mut long = false;
    for stream in 0..600_u64 {
        let own = format!("agent number {stream}");
        let mut section = vec![7, 7, 7];
        let fields = [(":method", "GET"), HOST, ("user-agent", own.as_str())];
        encoder.encode(
            StreamId(stream * 4),
            fields.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes())),
            &mut section,
        );
        assert_eq!(section[..3], [7, 7, 7]);
        decoder.on_encoder_stream(&take(&mut encoder)).unwrap();
        let mut seen = Vec::new();
        let each = |field: Field<'_>| seen.push((field.name.to_vec(), field.value.to_vec()));
        assert_eq!(decoder.decode(StreamId(stream * 4), &section[3..], each), Ok(Decoded::Done));
        assert_eq!(seen, fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
        encoder.on_decoder_stream(&std::mem::take(decoder.instructions())).unwrap();
        long |= section[3] == 0xff;
    }
    assert!(long, "insert counts beyond 254 take more than a byte");
}

#[test]
fn a_name_that_comes_with_ever_new_values_gets_an_entry() {
    let mut encoder = encoder(4096, 16);
    let mut sizes = Vec::new();
    for stream in 0..6_u64 {
        let section = encode(&mut encoder, stream * 4, &[("x-a-rather-long-name", &format!("{stream}"))]);
        sizes.push(section.len() + take(&mut encoder).len());
        assert_eq!(encoder.table.table().inserted(), u64::from(stream > 0));
    }
    assert!(sizes[2..].iter().all(|size| *size <= 6), "{sizes:?}");
    // One of five bytes is not worth it.
    for stream in 10..16_u64 {
        encode(&mut encoder, stream * 4, &[("x-own", &format!("{stream}"))]);
        assert_eq!(take(&mut encoder), b"");
    }
}

#[test]
fn what_drains_is_renewed() {
    let mut encoder = encoder(800, 16);
    let mut decoder = Decoder::new(DecoderConfig { max_table_capacity: 800, ..DecoderConfig::default() });
    let mut duplicates = 0;
    for stream in 0..200_u64 {
        let agent = format!("agent {stream}");
        let section = encode(&mut encoder, stream * 4, &[HOST, ("user-agent", &agent)]);
        let said = take(&mut encoder);
        duplicates += usize::from(said.first().is_some_and(|first| first & 0xe0 == 0));
        decoder.on_encoder_stream(&said).unwrap();
        assert_eq!(decoder.decode(StreamId(stream * 4), &section, |_| {}), Ok(Decoded::Done));
        encoder.on_decoder_stream(&std::mem::take(decoder.instructions())).unwrap();
        let host = Hashes::of(Some(0), HOST.0.as_bytes(), HOST.1.as_bytes());
        let found = encoder.table.find_line(host, HOST.0.as_bytes(), HOST.1.as_bytes(), u64::MAX);
        assert!(found.usable.is_some(), "it never leaves");
    }
    assert!(duplicates >= 10, "{duplicates}");
}
