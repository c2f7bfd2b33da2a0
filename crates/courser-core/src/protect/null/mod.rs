//! An insecure provider for tests, simulation and fuzzing. **It protects nothing.**
//!
//! Packets carry their plaintext and a 16-byte checksum in place of the tag; headers are not masked; the secrets of the
//! handshake follow from bytes that everybody sees. In exchange it is quick, has no dependencies, is the same in every
//! run, and shows packets in the clear to tests that look at them. Like real keys, null keys of another level,
//! direction, version, phase or connection do not open a packet, and neither does a changed byte.
//!
//! [`NullTlsClient`] and [`NullTlsServer`] make sessions that exchange a well-formed ClientHello (padded to any size),
//! a server flight with a certificate of any size, Finished messages that check that both ends saw the same bytes, and
//! tickets. They can be told to retry, to refuse, and to accept or reject 0-RTT.

mod keys;
mod remembered;
mod tls;

pub use keys::{NullKeys, NullRandom};
pub use remembered::told_by;
pub use tls::{NullTlsClient, NullTlsServer};

/// A 128-bit checksum in two lanes. Not a cryptographic hash.
#[derive(Clone, Copy, Debug)]
struct Checksum {
    a: u64,
    b: u64,
}

impl Checksum {
    const fn new(seed: u64) -> Self {
        Self { a: seed ^ 0x6a09_e667_f3bc_c908, b: seed.rotate_left(32) ^ 0xbb67_ae85_84ca_a73b }
    }

    /// Each step is a bijection of the state, so two inputs of the same length that differ in one word never meet.
    const fn word(&mut self, w: u64) {
        let a = (self.a ^ w).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.a = a ^ (a >> 32);
        let b = (self.b.rotate_left(23) ^ w).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        self.b = b ^ (b >> 29);
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(chunks.remainder()) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last));
        // The length keeps neighbouring fields apart.
        self.word(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self
    }

    fn finish(mut self) -> [u8; 16] {
        self.word(1);
        self.word(2);
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.a.to_le_bytes());
        out[8..].copy_from_slice(&self.b.to_le_bytes());
        out
    }

    fn finish_32(self) -> [u8; 32] {
        let mut out = [0; 32];
        out[..16].copy_from_slice(&self.finish());
        out[16..].copy_from_slice(&self.bytes(b"second half").finish());
        out
    }
}

#[cfg(test)]
mod tests;
