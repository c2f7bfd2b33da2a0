//! Checksums of bulk data, with no protocol above the streams: the client sends bytes, the server answers with their MD5.
//!
//! `cargo run --release -p courser --example md5 -- [MIB [STREAMS]]`; 1,024 MiB over one stream by default.
//!
//! MD5 (RFC 1321) is here for its checksum that everybody can compare, not for security.
#![allow(
    dead_code,
    missing_docs,
    clippy::new_without_default,
    reason = "the test calls `transfer`, the program `main`"
)]

use std::error::Error;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use courser::certs::Throwaway;
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::{ClientOptions, Connection, Endpoint, ServerOptions};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let mib = args.next().transpose()?.unwrap_or(1024);
    let streams = args.next().transpose()?.unwrap_or(1).max(1);
    let (digests, took) = transfer(mib << 20, streams)?;
    for digest in digests {
        println!("{}", hex(&digest));
    }
    println!("{mib} MiB in {took:.2?}: {:.2} Gb/s", (mib << 23) as f64 / took.as_secs_f64() / 1e9);
    Ok(())
}

/// Sends `bytes` over each of `streams` streams to a server of its own, and compares what it computed with what was sent.
pub fn transfer(bytes: usize, streams: usize) -> Result<(Vec<[u8; 16]>, Duration)> {
    let identity = Throwaway::local()?;
    let credentials = Credentials::from_pem(identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes())?;
    let tls = ServerConfig::builder().certificate(credentials).alpn(["md5"]).build()?;
    let server = Endpoint::server("127.0.0.1:0".parse()?, ServerOptions::new(tls))?;
    let addr = server.local_addr();
    thread::spawn(move || serve(&server));

    let roots = Roots::empty().add_der(identity.certificate_der())?;
    let tls = ClientConfig::builder().roots(roots).alpn(["md5"]).build()?;
    let endpoint = Endpoint::client(ClientOptions::new(tls))?;
    let connection = endpoint.connect_to(addr, "localhost")?;
    let began = Instant::now();
    let senders: Vec<_> = (0..streams)
        .map(|n| {
            let connection = connection.clone();
            thread::spawn(move || send(&connection, n, bytes / streams))
        })
        .collect();
    let mut digests = Vec::new();
    for sender in senders {
        digests.push(sender.join().map_err(|_| "a sender panicked")??);
    }
    let took = began.elapsed();
    connection.close(0, b"");
    Ok((digests, took))
}

/// Sends one stream and compares the digests.
fn send(connection: &Connection, seed: usize, bytes: usize) -> Result<[u8; 16]> {
    let piece = bytes::Bytes::from((0..1 << 20).map(|i| (i * 31 + seed) as u8).collect::<Vec<u8>>());
    let (mut send, mut receive) = connection.open_bi()?;
    let mut ours = Md5::new();
    let mut left = bytes;
    while left > 0 {
        // Owned bytes go to the packets without a copy.
        let part = piece.slice(..piece.len().min(left));
        ours.update(&part);
        left -= part.len();
        send.write_chunk(part)?;
    }
    send.finish()?;
    let mut theirs = [0; 16];
    receive.read_exact(&mut theirs)?;
    let ours = ours.finish();
    if ours == theirs { Ok(ours) } else { Err("the digests differ".into()) }
}

fn serve(endpoint: &Endpoint) -> Result<()> {
    let connection = endpoint.accept_connection()?;
    loop {
        let (mut send, mut receive) = connection.accept_bi()?;
        thread::spawn(move || -> Result<()> {
            let mut digest = Md5::new();
            while let Some(chunk) = receive.read_chunk()? {
                digest.update(&chunk);
            }
            send.write_chunk(digest.finish().to_vec())?;
            Ok(send.finish()?)
        });
    }
}

pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// The MD5 digest of RFC 1321.
pub struct Md5 {
    state: [u32; 4],
    /// Bytes of a block that is not full.
    rest: Vec<u8>,
    len: u64,
}

impl Md5 {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

    pub fn new() -> Self {
        Self { state: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476], rest: Vec::new(), len: 0 }
    }

    pub fn update(&mut self, mut data: &[u8]) {
        self.len += data.len() as u64;
        if !self.rest.is_empty() {
            let (fill, behind) = data.split_at(data.len().min(64 - self.rest.len()));
            self.rest.extend_from_slice(fill);
            data = behind;
            if self.rest.len() == 64 {
                let block = std::mem::take(&mut self.rest);
                self.block(&block);
            }
        }
        let blocks = data.chunks_exact(64);
        self.rest.extend_from_slice(blocks.remainder());
        blocks.for_each(|b| self.block(b));
    }

    pub fn finish(mut self) -> [u8; 16] {
        let bits = self.len.wrapping_mul(8);
        let mut end = vec![0x80];
        end.resize(1 + (119 - self.len as usize % 64) % 64, 0);
        end.extend_from_slice(&bits.to_le_bytes());
        self.update(&end);
        let mut out = [0; 16];
        for (bytes, word) in out.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    fn block(&mut self, block: &[u8]) {
        let word = |i: usize| u32::from_le_bytes([block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]]);
        let [mut a, mut b, mut c, mut d] = self.state;
        for i in 0..64 {
            let (f, g) = match i / 16 {
                0 => ((b & c) | (!b & d), i),
                1 => ((d & b) | (!d & c), (5 * i + 1) % 16),
                2 => (b ^ c ^ d, (3 * i + 5) % 16),
                _ => (c ^ (b | !d), (7 * i) % 16),
            };
            let sum = a.wrapping_add(f).wrapping_add(SINES[i]).wrapping_add(word(g));
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(Self::SHIFTS[i / 16][i % 4]));
        }
        for (state, add) in self.state.iter_mut().zip([a, b, c, d]) {
            *state = state.wrapping_add(add);
        }
    }
}

/// `floor(2^32 * abs(sin(i + 1)))`.
static SINES: std::sync::LazyLock<[u32; 64]> =
    std::sync::LazyLock::new(|| std::array::from_fn(|i| (((i + 1) as f64).sin().abs() * 4_294_967_296.0) as u32));
