//! Field sections take no memory once both ends have seen as many as lie on the way.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::VecDeque;

use courser_core::ids::StreamId;
use courser_h3::qpack::{Decoded, Decoder, DecoderConfig, Encoder, EncoderConfig, Field};
use courser_testing::alloc::{Counting, count};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Messages of twenty lines: some alike, some of ten kinds, some new each time. Answers come eight messages later.
fn rounds(count: u64, from: u64, encoder: &mut Encoder, decoder: &mut Decoder, late: &mut VecDeque<Vec<u8>>) -> usize {
    let (mut section, mut lines, mut text) = (Vec::with_capacity(4096), 0, *b"value 0000000000000000");
    for stream in from..from + count {
        section.clear();
        let kinds = [stream % 10, stream, stream / 3, stream * 7919];
        let fields = (0..20_usize).map(|n| {
            const NAMES: [&[u8]; 5] = [b":path", b"user-agent", b"x-own", b"cookie", b"date"];
            (NAMES[n % 5], if n < 10 { 7 } else { kinds[n % 4] })
        });
        // Values are written into one buffer each, on the stack.
        let values: [([u8; 22], &[u8]); 20] = {
            let mut out = [([0; 22], &b""[..]); 20];
            for (slot, (name, number)) in out.iter_mut().zip(fields) {
                text[6..].fill(b'0');
                for (digit, at) in text[6..].iter_mut().rev().zip(0..) {
                    *digit = b'0' + u8::try_from(number / 10_u64.pow(at) % 10).unwrap();
                }
                *slot = (text, name);
            }
            out
        };
        encoder.encode(StreamId(stream * 4), values.iter().map(|(value, name)| Field::new(name, value)), &mut section);
        decoder.on_encoder_stream(encoder.instructions()).unwrap();
        encoder.instructions().clear();
        let outcome = decoder.decode(StreamId(stream * 4), &section, |_| lines += 1).unwrap();
        assert_eq!(outcome, Decoded::Done);
        let mut answer = late.pop_front().unwrap();
        encoder.on_decoder_stream(&answer).unwrap();
        answer.clear();
        answer.append(decoder.instructions());
        late.push_back(answer);
    }
    lines
}

#[test]
fn after_a_while_messages_are_encoded_and_decoded_without_an_allocation() {
    for capacity in [0, 4096] {
        let mut encoder = Encoder::new(EncoderConfig::default());
        encoder.set_peer_limits(capacity, 16).unwrap();
        let mut decoder = Decoder::new(DecoderConfig::default());
        let mut late: VecDeque<Vec<u8>> = (0..8).map(|_| Vec::with_capacity(64)).collect();
        rounds(2_000, 0, &mut encoder, &mut decoder, &mut late);
        let (lines, counts) = count(|| rounds(2_000, 2_000, &mut encoder, &mut decoder, &mut late));
        assert_eq!(lines, 40_000);
        // The section of each series is one.
        assert_eq!((counts.calls, counts.live), (1, 0), "capacity {capacity}");
    }
}
