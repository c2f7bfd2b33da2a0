//! The QPACK encoder and decoder together, through their public interface.
#![allow(clippy::unwrap_used)]

use courser_core::ids::StreamId;
use courser_h3::qpack::{Decoded, Decoder, DecoderConfig, Encoder, EncoderConfig, Field};

type Line = (Vec<u8>, Vec<u8>);

fn request(path: &str) -> Vec<Line> {
    let lines = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "www.example.com"),
        (":path", path),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("referer", "https://www.example.com/"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("sec-fetch-dest", "image"),
        ("sec-fetch-mode", "no-cors"),
        ("sec-fetch-site", "same-origin"),
        ("priority", "u=4, i"),
    ];
    lines.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn encode(encoder: &mut Encoder, stream: u64, lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.encode(StreamId(stream), lines.iter().map(|line| Field::new(&line.0, &line.1)), &mut out);
    out
}

fn decode(decoder: &mut Decoder, stream: u64, section: &[u8]) -> (Decoded, Vec<Line>) {
    let mut lines = Vec::new();
    let each = |field: Field<'_>| lines.push((field.name.to_vec(), field.value.to_vec()));
    let outcome = decoder.decode(StreamId(stream), section, each).unwrap();
    (outcome, lines)
}

/// Bytes of sections and encoder stream for ten requests of a page.
fn ten_requests(capacity: u64) -> usize {
    let mut encoder = Encoder::new(EncoderConfig::default());
    let mut decoder = Decoder::new(DecoderConfig { max_table_capacity: 4096, ..DecoderConfig::default() });
    encoder.set_peer_limits(capacity, 16).unwrap();
    let mut bytes = 0;
    for n in 0..10 {
        let lines = request(&format!("/images/picture-{n}.avif"));
        let section = encode(&mut encoder, n * 4, &lines);
        let instructions = std::mem::take(encoder.instructions());
        bytes += section.len() + instructions.len();
        decoder.on_encoder_stream(&instructions).unwrap();
        assert_eq!(decode(&mut decoder, n * 4, &section), (Decoded::Done, lines));
        encoder.on_decoder_stream(&std::mem::take(decoder.instructions())).unwrap();
    }
    bytes
}

#[test]
fn ten_similar_requests_take_at_most_two_fifths_of_the_bytes_of_the_static_table_alone() {
    let (with, without) = (ten_requests(4096), ten_requests(0));
    assert!(with * 5 <= without * 2, "{with} against {without} bytes");
}
