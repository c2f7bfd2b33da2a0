//! Encodes and decodes the messages of a page again and again: the work whose instructions are counted.
//!
//!     cargo build --release -p courser-h3 --example qpack_work
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/qpack_work dynamic 2000
//!
//! Twice the rounds less once the rounds is the cost of the rounds; a round is a request and its response, both encoded and
//! decoded, with their instructions and acknowledgments. `static` permits no table.

use std::error::Error;

use courser_core::ids::StreamId;
use courser_h3::qpack::{Decoder, DecoderConfig, Encoder, EncoderConfig, Field};

const REQUEST: [(&str, &str); 12] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "www.example.com"),
    (":path", "/"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://www.example.com/"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("sec-fetch-mode", "no-cors"),
    ("priority", "u=4, i"),
];

const RESPONSE: [(&str, &str); 8] = [
    (":status", "200"),
    ("server", "courser"),
    ("content-type", "image/avif"),
    ("content-length", "12345"),
    ("cache-control", "public, max-age=86400"),
    ("date", "Sat, 21 Nov 2026 12:00:00 GMT"),
    ("etag", "\"0123456789abcdef\""),
    ("last-modified", "Fri, 20 Nov 2026 12:00:00 GMT"),
];

/// One direction.
struct Way {
    encoder: Encoder,
    decoder: Decoder,
    section: Vec<u8>,
    bytes: usize,
}

impl Way {
    fn new(capacity: usize) -> Result<Self, Box<dyn Error>> {
        let mut encoder = Encoder::new(EncoderConfig::default());
        encoder.set_peer_limits(capacity.try_into()?, 16)?;
        let decoder = Decoder::new(DecoderConfig { max_table_capacity: capacity, ..DecoderConfig::default() });
        Ok(Self { encoder, decoder, section: Vec::new(), bytes: 0 })
    }

    /// Sends a message whose `at`-th line has its own value; the sum of what came.
    fn send(&mut self, stream: u64, lines: &[(&str, &str)], at: usize, own: &str) -> Result<usize, Box<dyn Error>> {
        self.section.clear();
        let fields = lines.iter().enumerate().map(|(n, (name, value))| {
            Field::new(name.as_bytes(), if n == at { own.as_bytes() } else { value.as_bytes() })
        });
        self.encoder.encode(StreamId(stream), fields, &mut self.section);
        self.bytes += self.section.len() + self.encoder.instructions().len();
        self.decoder.on_encoder_stream(self.encoder.instructions())?;
        self.encoder.instructions().clear();
        let mut sum = 0;
        self.decoder.decode(StreamId(stream), &self.section, |field| sum += field.name.len() + field.value.len())?;
        self.bytes += self.decoder.instructions().len();
        self.encoder.on_decoder_stream(self.decoder.instructions())?;
        self.decoder.instructions().clear();
        Ok(sum)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let capacity = if args.get(1).is_some_and(|word| word == "static") { 0 } else { 4096 };
    let rounds: u64 = args.get(2).map_or(Ok(1), |count| count.parse())?;
    let (mut up, mut down, mut sum) = (Way::new(capacity)?, Way::new(capacity)?, 0);
    let own = |n: u64| (format!("/images/picture-{n}.avif"), format!("\"{:016x}\"", n * 0x9e37_79b9_7f4a));
    let values: Vec<(String, String)> = (0..1000).map(own).collect();
    for (round, (path, tag)) in (0..rounds).zip(values.iter().cycle()) {
        sum += up.send(round * 4, &REQUEST, 3, path)?;
        sum += down.send(round * 4, &RESPONSE, 6, tag)?;
    }
    println!("{rounds} rounds, {} bytes up, {} bytes down, {sum} bytes of fields", up.bytes, down.bytes);
    Ok(())
}
