//! Sections and instructions as peers send them, right and wrong ones.

use super::super::testing::{hex, rows};
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
