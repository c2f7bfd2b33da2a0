//! Sections and instructions as peers send them, right and wrong ones.

use proptest::prelude::*;

use super::super::instructions::{put_capacity, put_insert_literal};
use super::super::prefix_int::put;
use super::super::testing::{hex, rows};
use super::super::text::put_text;
use super::*;

const EXAMPLES: &str = include_str!("../../../testdata/vectors/rfc9204-b-examples.tsv");

fn decoder(capacity: usize, blocked: usize) -> Decoder {
    Decoder::new(DecoderConfig {
        max_table_capacity: capacity,
        max_blocked_streams: blocked,
        ..DecoderConfig::default()
    })
}

fn decode(decoder: &mut Decoder, stream: u64, section: &[u8]) -> Result<(Decoded, String), ConnectionError> {
    let mut lines = Vec::new();
    let outcome = decoder.decode(StreamId(stream), section, |field| {
        lines.push(format!("{}={}", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value)));
    })?;
    Ok((outcome, lines.join(";")))
}

fn take(decoder: &mut Decoder) -> Vec<u8> {
    std::mem::take(decoder.instructions())
}

#[test]
fn the_examples_of_the_rfc_hold() {
    let mut decoder = decoder(220, 1);
    let mut seen = 0;
    for row in rows(EXAMPLES) {
        let bytes = hex(row[2]);
        match row[1] {
            "Encoder" => decoder.on_encoder_stream(&bytes).unwrap(),
            "Decoder" => {
                if row[0] == "B.4" {
                    // What came before was said already by then.
                    decoder.known = 3;
                    decoder.cancel(StreamId(8));
                }
                let said = take(&mut decoder);
                assert!(said.starts_with(&bytes), "{row:?}: {said:02x?}");
            }
            stream => {
                let stream = stream.parse().unwrap();
                // The section of B.4 is cancelled in the example; delivered in time it means what the table says.
                let outcome = decode(&mut decoder, stream, &bytes).unwrap();
                assert_eq!(outcome, (Decoded::Done, row[3].to_owned()), "{row:?}");
                if row[0] == "B.4" {
                    assert_eq!(take(&mut decoder), [0x88]);
                }
            }
        }
        assert_eq!(decoder.table.size(), row[4].parse::<usize>().unwrap(), "{row:?}");
        seen += 1;
    }
    assert_eq!(seen, 10);
    assert_eq!((decoder.table.oldest(), decoder.table.inserted()), (1, 5));
}

/// A decoder of 4096 bytes whose table has these lines.
fn with_lines(lines: &[(&str, &str)]) -> Decoder {
    let mut decoder = decoder(4096, 4);
    let mut bytes = hex("3fe11f");
    for (name, value) in lines {
        put_insert_literal(&mut bytes, name.as_bytes(), value.as_bytes());
    }
    decoder.on_encoder_stream(&bytes).unwrap();
    decoder
}

/// A section with that Required Insert Count, Base at the same place, and these lines.
fn section(required: u64, lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 0, 8, if required == 0 { 0 } else { required % 256 + 1 });
    put(&mut out, 0, 7, 0);
    out.extend_from_slice(lines);
    out
}

fn section_code(decoder: &mut Decoder, section: &[u8]) -> Option<Code> {
    decode(decoder, 0, section).err().map(|error| error.code)
}

fn stream_code(decoder: &mut Decoder, bytes: &[u8]) -> Option<Code> {
    decoder.on_encoder_stream(bytes).err().map(|error| error.code)
}

#[test]
//= rfc9204#3.1-1 type=test
fn a_static_index_beyond_the_table_fails_in_a_section() {
    for line in ["ff24", "5f5400", "7f5400"] {
        assert_eq!(section_code(&mut decoder(0, 0), &section(0, &hex(line))), Some(Code::QPACK_DECOMPRESSION_FAILED));
    }
    assert_eq!(section_code(&mut decoder(0, 0), &section(0, &hex("ff23"))), None);
    assert_eq!(section_code(&mut decoder(0, 0), &section(0, &hex("5f5300"))), None);
}

#[test]
//= rfc9204#3.1-2 type=test
fn a_static_index_beyond_the_table_fails_on_the_encoder_stream() {
    let code = stream_code(&mut with_lines(&[]), &hex("ff2400"));
    assert_eq!(code, Some(Code::QPACK_ENCODER_STREAM_ERROR));
    assert_eq!(stream_code(&mut with_lines(&[]), &hex("ff2300")), None);
}

#[test]
//= rfc9204#2.2.3-1 type=test
//= rfc9204#2.2.1-2 type=test
fn references_beyond_the_required_insert_count_fail_even_to_entries_that_are_there() {
    let lines = [("a", "1"), ("b", "2"), ("c", "3")];
    // Relative to a Base of 2, an entry of the table; behind it, as a line and as a name.
    assert_eq!(decode(&mut with_lines(&lines), 0, &hex("03008081")).unwrap().1, "b=2;a=1");
    for wrong in ["030010", "03000000", "02018081", "020180"] {
        let code = section_code(&mut with_lines(&lines), &hex(wrong));
        assert_eq!(code, Some(Code::QPACK_DECOMPRESSION_FAILED), "{wrong}");
    }
    // Without a count, no entry may be meant at all; nor one before the first.
    for wrong in ["000080", "000010", "000180", "030082", "03004200"] {
        let code = section_code(&mut with_lines(&lines), &hex(wrong));
        assert_eq!(code, Some(Code::QPACK_DECOMPRESSION_FAILED), "{wrong}");
    }
}

#[test]
//= rfc9204#2.2.3-1 type=test
//= rfc9204#2.2.3-2 type=test
fn references_to_evicted_entries_fail() {
    // Three entries of 34 bytes in a table that is made small enough for two, then for none.
    let evicted = |capacity: &str| {
        let mut decoder = with_lines(&[("a", "1"), ("b", "2"), ("c", "3")]);
        decoder.on_encoder_stream(&hex(capacity)).unwrap();
        decoder
    };
    assert_eq!(decode(&mut evicted("3f25"), 0, &section(3, &hex("81"))).unwrap().1, "b=2");
    assert_eq!(section_code(&mut evicted("3f25"), &section(3, &hex("82"))), Some(Code::QPACK_DECOMPRESSION_FAILED));
    assert_eq!(section_code(&mut evicted("20"), &section(3, &hex("80"))), Some(Code::QPACK_DECOMPRESSION_FAILED));
    // Duplicate and Insert with Name Reference of the second and the third entry counted from the newest.
    for (good, wrong) in [("01", "02"), ("8100", "8200")] {
        assert_eq!(stream_code(&mut evicted("3f25"), &hex(good)), None, "{good}");
        assert_eq!(stream_code(&mut evicted("3f25"), &hex(wrong)), Some(Code::QPACK_ENCODER_STREAM_ERROR), "{wrong}");
    }
    // Far away, and as far as numbers go.
    for wrong in ["1fe1ffffffffffffff3f", "bfc0ffffffffffffff3f00"] {
        assert_eq!(stream_code(&mut evicted("3f25"), &hex(wrong)), Some(Code::QPACK_ENCODER_STREAM_ERROR), "{wrong}");
    }
}

#[test]
//= rfc9204#3.2-1 type=test
fn an_entry_may_be_there_many_times() {
    let mut decoder = with_lines(&[("a", "1"), ("a", "1")]);
    decoder.on_encoder_stream(&hex("0000")).unwrap();
    assert_eq!(decode(&mut decoder, 0, &section(4, &hex("80818283"))).unwrap().1, "a=1;a=1;a=1;a=1");
}

#[test]
//= rfc9204#3.2.2-2 type=test
fn an_entry_larger_than_the_table_fails_as_soon_as_its_length_says_so() {
    // 40 bytes of capacity. Of a name or a value of 41 bytes only the length has come; one of 40 might still be legal.
    for (instruction, fits) in [("5f0a", false), ("5f09", true), ("c029", false), ("c028", true), ("c400", false)] {
        let mut decoder = decoder(4096, 0);
        let code = stream_code(&mut decoder, &hex(&format!("3f09{instruction}")));
        assert_eq!(code.is_none(), fits, "{instruction}");
    }
    let mut decoder = decoder(4096, 0);
    let mut bytes = hex("3f09");
    put_insert_literal(&mut bytes, b"\x01\x02\x03\x04", b"\x01\x02\x03\x04");
    assert_eq!(stream_code(&mut decoder, &bytes), None);
    put_insert_literal(&mut bytes, b"\x01\x02\x03\x04", b"\x01\x02\x03\x04\x05");
    assert_eq!(stream_code(&mut decoder, &bytes), Some(Code::QPACK_ENCODER_STREAM_ERROR));
    // Before any capacity was set nothing fits.
    assert_eq!(stream_code(&mut super::tests::decoder(4096, 0), &hex("4000")), Some(Code::QPACK_ENCODER_STREAM_ERROR));
}

#[test]
//= rfc9204#4.3.1-2 type=test
fn a_capacity_beyond_the_limit_fails() {
    assert_eq!(stream_code(&mut decoder(4096, 0), &hex("3fe11f")), None);
    for capacity in ["3fe21f", "3fe0ffffffffffffff3f"] {
        assert_eq!(stream_code(&mut decoder(4096, 0), &hex(capacity)), Some(Code::QPACK_ENCODER_STREAM_ERROR));
    }
    assert_eq!(stream_code(&mut decoder(0, 0), &hex("20")), None);
    assert_eq!(stream_code(&mut decoder(0, 0), &hex("21")), Some(Code::QPACK_ENCODER_STREAM_ERROR));
}

#[test]
//= rfc9204#2.1.2-2 type=test
fn more_blocked_streams_than_promised_fail() {
    let mut decoder = decoder(4096, 2);
    for stream in [0, 4, 0, 4] {
        assert_eq!(decode(&mut decoder, stream, &section(1, &hex("80"))).unwrap().0, Decoded::Blocked);
    }
    // A cancelled one waits no more, and makes room.
    decoder.cancel(StreamId(4));
    assert_eq!(decode(&mut decoder, 8, &section(1, &hex("80"))).unwrap().0, Decoded::Blocked);
    let error = decode(&mut decoder, 12, &section(1, &hex("80"))).unwrap_err();
    assert_eq!(error.code, Code::QPACK_DECOMPRESSION_FAILED);
    let mut none = super::tests::decoder(4096, 0);
    assert_eq!(section_code(&mut none, &section(1, &hex("80"))), Some(Code::QPACK_DECOMPRESSION_FAILED));
}

#[test]
fn blocked_streams_are_named_once_their_insertions_have_come() {
    let mut decoder = decoder(4096, 3);
    for (stream, required) in [(0, 2), (4, 1), (8, 3)] {
        assert_eq!(decode(&mut decoder, stream, &section(required, &hex("80"))).unwrap().0, Decoded::Blocked);
    }
    assert_eq!(decoder.unblocked(), None);
    decoder.on_encoder_stream(&hex("3fe11f416101314162")).unwrap();
    assert_eq!(decoder.unblocked(), Some(StreamId(4)));
    assert_eq!(decoder.unblocked(), None);
    decoder.on_encoder_stream(&hex("0132")).unwrap();
    assert_eq!(decoder.unblocked(), Some(StreamId(0)));
    assert_eq!(decoder.unblocked(), None);
    assert_eq!(decode(&mut decoder, 0, &section(2, &hex("8081"))).unwrap(), (Decoded::Done, "b=2;a=1".to_owned()));
}

/// The algorithm of RFC 9204 section 4.5.1.1, in wider numbers.
fn naive_required(encoded: u64, inserted: u64, max_entries: u64) -> Option<u64> {
    // Of all counts that a conformant encoder may mean, the one that is encoded so.
    let lowest = (inserted + 1).saturating_sub(max_entries).max(1);
    (lowest..=inserted + max_entries).find(|required| required % (2 * max_entries) + 1 == encoded)
}

#[test]
//= rfc9204#4.5.1.1-1 type=test
fn required_insert_counts_are_those_that_an_encoder_can_mean() {
    for capacity in [31, 32, 64, 100, 220, 320] {
        let max_entries = (capacity / 32) as u64;
        let mut decoder = decoder(capacity, 0);
        let mut bytes = Vec::new();
        put_capacity(&mut bytes, capacity as u64);
        decoder.on_encoder_stream(&bytes).unwrap();
        for inserted in 0..if max_entries == 0 { 1 } else { 40 } {
            for encoded in 1..=2 * max_entries + 3 {
                let found = decoder.required_insert_count(encoded).ok();
                let expected = if max_entries == 0 { None } else { naive_required(encoded, inserted, max_entries) };
                assert_eq!(found, expected, "{encoded} after {inserted} of {max_entries}");
            }
            if max_entries > 0 {
                decoder.on_encoder_stream(&hex("4000")).unwrap();
            }
        }
    }
    // The example of the RFC: 100 bytes, ten insertions, an encoded value of four.
    assert_eq!(naive_required(4, 10, 3), Some(9));
    assert_eq!(section_code(&mut decoder(100, 1), &hex("0700")), Some(Code::QPACK_DECOMPRESSION_FAILED));
}

#[test]
//= rfc9204#4.5.1.2-1 type=test
//= rfc9204#4.5.1.2-2 type=test
fn a_negative_base_fails() {
    let lines = [("a", "1"), ("b", "2")];
    // Two insertions required; Base is two less one less the delta.
    assert_eq!(
        decode(&mut with_lines(&lines), 0, &hex("03801011")).unwrap_err().code,
        Code::QPACK_DECOMPRESSION_FAILED
    );
    assert_eq!(decode(&mut with_lines(&lines), 0, &hex("03811011")).unwrap().1, "a=1;b=2");
    for wrong in ["0382", "0080", "0081", "03ffc0ffffffffffffff3f"] {
        assert_eq!(
            section_code(&mut with_lines(&lines), &hex(wrong)),
            Some(Code::QPACK_DECOMPRESSION_FAILED),
            "{wrong}"
        );
    }
    // Beyond all insertions it is useless, but nothing refers to it.
    assert_eq!(section_code(&mut with_lines(&lines), &hex("007f80ffffffffffffff3fc1")), None);
}

#[test]
//= rfc9204#2.2.2.1-1 type=test
fn a_section_that_needs_insertions_is_acknowledged_once_it_is_decoded() {
    let mut decoder = with_lines(&[("a", "1")]);
    take(&mut decoder);
    decode(&mut decoder, 4, &section(0, &hex("c1"))).unwrap();
    assert_eq!(take(&mut decoder), b"");
    decode(&mut decoder, 4, &section(1, &hex("80"))).unwrap();
    decode(&mut decoder, 8, &section(1, &hex("80"))).unwrap();
    assert_eq!(take(&mut decoder), [0x84, 0x88]);
    decode(&mut decoder, 12, &section(2, &hex("80"))).unwrap();
    assert_eq!(take(&mut decoder), b"");
}

#[test]
fn insertions_are_told_once_and_not_when_an_acknowledgment_tells_them() {
    let mut decoder = with_lines(&[("a", "1"), ("b", "2"), ("c", "3")]);
    decode(&mut decoder, 0, &section(2, &hex("80"))).unwrap();
    assert_eq!(take(&mut decoder), [0x80, 0x01]);
    assert_eq!(take(&mut decoder), b"");
    decoder.on_encoder_stream(&hex("00")).unwrap();
    decoder.on_encoder_stream(&hex("00")).unwrap();
    assert_eq!(take(&mut decoder), [0x02]);
}

#[test]
fn cancellations_are_told_where_references_are_possible() {
    let mut decoder = decoder(4096, 0);
    decoder.cancel(StreamId(8));
    assert_eq!(take(&mut decoder), [0x48]);
    let mut none = super::tests::decoder(0, 0);
    none.cancel(StreamId(8));
    assert_eq!(take(&mut none), b"");
}

#[test]
fn a_line_that_must_not_be_indexed_says_so() {
    let mut decoder = with_lines(&[("a", "1")]);
    let mut seen = Vec::new();
    // With a name of the static table, of the dynamic one behind the Base, and its own; without the bit and with it.
    let whole = hex("02805101317101310001310801322161013331610134");
    decoder.decode(StreamId(0), &whole, |field| seen.push((field.name.to_vec(), field.sensitive))).unwrap();
    assert_eq!(seen.iter().map(|line| line.1).collect::<Vec<_>>(), [false, true, false, true, false, true]);
    seen.clear();
    // With a name before the Base.
    let before = section(1, &hex("400131600132"));
    decoder.decode(StreamId(0), &before, |field| seen.push((field.name.to_vec(), field.sensitive))).unwrap();
    assert_eq!(seen, [(b"a".to_vec(), false), (b"a".to_vec(), true)]);
}

#[test]
fn a_section_beyond_its_limits_is_too_large_and_acknowledged_all_the_same() {
    let mut decoder = with_lines(&[("name", "value")]);
    take(&mut decoder);
    decoder.config.max_section_size = 3 * 41;
    decoder.config.max_fields = 10;
    assert_eq!(decode(&mut decoder, 0, &section(1, &hex("808080"))).unwrap().0, Decoded::Done);
    let (outcome, lines) = decode(&mut decoder, 0, &section(1, &hex("80808080"))).unwrap();
    assert_eq!((outcome, lines.as_str()), (Decoded::TooLarge, "name=value;name=value;name=value"));
    assert_eq!(take(&mut decoder), [0x80, 0x80]);
    decoder.config.max_section_size = u64::MAX;
    decoder.config.max_fields = 3;
    assert_eq!(decode(&mut decoder, 0, &section(0, &hex("c1c1c1"))).unwrap().0, Decoded::Done);
    assert_eq!(decode(&mut decoder, 0, &section(0, &hex("c1c1c1c1"))).unwrap().0, Decoded::TooLarge);
}

#[test]
//= rfc9204#7.4-1 type=test
fn a_single_line_may_be_as_large_as_the_section() {
    let mut decoder = decoder(0, 0);
    let value = vec![b'v'; 64 * 1024 - 32 - 4];
    let mut lines = Vec::new();
    put_text(&mut lines, 0x20, 3, b"name");
    put_text(&mut lines, 0, 7, &value);
    let mut length = 0;
    let outcome = decoder.decode(StreamId(0), &section(0, &lines), |field| length = field.value.len()).unwrap();
    assert_eq!((outcome, length), (Decoded::Done, value.len()));
    assert!(decoder.scratch.capacity() <= SCRATCH_KEPT, "the room for it is given back");
}

#[test]
//= rfc9204#7.4-2 type=test
fn integers_of_more_than_62_bits_fail() {
    let huge = "c0ffffffffffffffff";
    for place in ["ff", "00ff", "0000ff", "000010ff", "0000270a", "00005f", "000020ff"] {
        let mut bytes = hex(place);
        bytes.extend_from_slice(&hex(huge));
        let code = section_code(&mut with_lines(&[("a", "1")]), &bytes);
        assert_eq!(code, Some(Code::QPACK_DECOMPRESSION_FAILED), "{place}");
    }
    for place in ["1f", "3f", "5f", "7f", "bf", "ff", "c0ff", "c07f"] {
        let mut bytes = hex(place);
        bytes.extend_from_slice(&hex(huge));
        let code = stream_code(&mut with_lines(&[("a", "1")]), &bytes);
        assert_eq!(code, Some(Code::QPACK_ENCODER_STREAM_ERROR), "{place}");
    }
}

#[test]
fn a_section_that_ends_within_a_line_fails() {
    let whole = hex("0000510b2f696e6465782e68746d6c");
    for end in 0..whole.len() {
        let expected = (end != 2).then_some(Code::QPACK_DECOMPRESSION_FAILED);
        assert_eq!(section_code(&mut decoder(0, 0), &whole[..end]), expected, "{end} bytes");
    }
}

#[test]
fn an_instruction_that_never_ends_takes_a_bounded_room() {
    let mut decoder = with_lines(&[]);
    // A Huffman string that may just fit, in small pieces, without its end.
    decoder.on_encoder_stream(&hex("c0ff8077")).unwrap();
    for _ in 0..15_000 {
        decoder.on_encoder_stream(&[0xaa]).unwrap();
    }
    assert!(decoder.part.len() <= 15_360, "{}", decoder.part.len());
    // One that is longer fits into no entry.
    let code = stream_code(&mut with_lines(&[]), &hex("c0ff8178"));
    assert_eq!(code, Some(Code::QPACK_ENCODER_STREAM_ERROR));
}

#[test]
fn a_stream_of_duplicates_takes_no_more_room_than_the_table() {
    let mut decoder = with_lines(&[("name", "value")]);
    for _ in 0..1_000 {
        decoder.on_encoder_stream(&[0; 100]).unwrap();
        assert_eq!(section_code(&mut decoder, &section(0, &hex("d1"))), None);
        assert!(decoder.table.size() <= 4096 && decoder.table.memory() <= 4 * 4096);
        assert!(decoder.instructions.is_empty(), "an increment is made when it is fetched");
    }
    assert_eq!(take(&mut decoder), {
        let mut increment = Vec::new();
        DecoderInstruction::Increment(100_001).put(&mut increment);
        increment
    });
}

#[test]
fn a_peer_that_never_reads_its_decoder_stream_is_ended() {
    let mut decoder = with_lines(&[("a", "1")]);
    let mut outcome = Ok((Decoded::Done, String::new()));
    for stream in 0..20_000 {
        if stream % 2 == 0 {
            decoder.cancel(StreamId(stream));
        }
        outcome = decode(&mut decoder, stream, &section(1, &hex("80")));
        assert!(decoder.instructions.len() <= WAITING_MAX + 10);
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome.unwrap_err().code, Code::EXCESSIVE_LOAD);
    assert!(decoder.instructions.len() >= 16_000, "thousands of answers may wait");
    assert_eq!(decoder.on_encoder_stream(&[]).unwrap_err().code, Code::EXCESSIVE_LOAD);
}

proptest! {
    #[test]
    fn whatever_comes_nothing_panics_and_the_table_stays_within_its_capacity(
        stream in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8, 0x40..0x44_u8, 0x80..0x88_u8, 0xc0..=0xff_u8], 0..200),
        sections in prop::collection::vec(prop::collection::vec(prop_oneof![any::<u8>(), 0..20_u8], 0..40), 0..6),
        piece in 1..50_usize,
    ) {
        let mut decoder = with_lines(&[("a", "1"), ("b", "2")]);
        let mut sections = sections.iter();
        for piece in stream.chunks(piece) {
            if decoder.on_encoder_stream(piece).is_err() { break }
            if let Some(section) = sections.next() {
                let _ = decode(&mut decoder, 0, section);
            }
            prop_assert!(decoder.table.size() <= decoder.table.capacity() && decoder.blocked.len() <= 4);
        }
        for section in sections {
            let _ = decode(&mut decoder, 4, section);
        }
    }
}

#[test]
fn instructions_that_no_section_follows_end_the_connection_and_those_of_sections_never_do() {
    for instruction in [vec![0], hex("3fe11f"), insertion()] {
        let mut decoder = with_lines(&[("name", "value")]);
        // Two were executed, and the limit is reached by the next that is one too many.
        let fine = instruction.repeat(IDLE_MAX - 2);
        assert_eq!(stream_code(&mut decoder, &fine), None);
        assert_eq!(stream_code(&mut decoder, &instruction), Some(Code::EXCESSIVE_LOAD));
    }
    // The worst honest encoder inserts every line of every section.
    let mut decoder = with_lines(&[]);
    let fields = DecoderConfig::default().max_fields;
    for n in 1..=200 {
        assert_eq!(stream_code(&mut decoder, &insertion().repeat(fields)), None, "section {n}");
        let inserted = decoder.table.inserted();
        assert_eq!(section_code(&mut decoder, &section(inserted, &hex("80"))), None);
        take(&mut decoder);
    }
}

fn insertion() -> Vec<u8> {
    let mut bytes = Vec::new();
    put_insert_literal(&mut bytes, b"name", b"value");
    bytes
}
