//! Unpredictable bytes from the library's generator.

use courser_core::crypto::Random;

/// How much is taken from the generator at a time.
const BUFFER_LEN: usize = 512;

/// The generator of aws-lc-rs behind a small buffer, so that a few bytes per datagram cost a copy. Bytes that were
/// handed out are erased.
pub struct SystemRandom {
    buffer: [u8; BUFFER_LEN],
    used: usize,
}

impl SystemRandom {
    /// A generator with an empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: [0; BUFFER_LEN], used: BUFFER_LEN }
    }
}

impl Default for SystemRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for SystemRandom {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SystemRandom(..)")
    }
}

fn from_generator(out: &mut [u8]) {
    // Without random bytes every secret of the process would be known; there is nothing sensible left to do.
    aws_lc_rs::rand::fill(out).expect("the system has random bytes");
}

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) {
        if out.len() > BUFFER_LEN / 2 {
            return from_generator(out);
        }
        if BUFFER_LEN - self.used < out.len() {
            from_generator(&mut self.buffer);
            self.used = 0;
        }
        let taken = &mut self.buffer[self.used..self.used + out.len()];
        out.copy_from_slice(taken);
        taken.fill(0);
        self.used += out.len();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nothing_is_handed_out_twice() {
        let mut random = SystemRandom::new();
        let mut seen = HashSet::new();
        for n in 0..2000_usize {
            let mut out = vec![0; 8 + n % 300];
            random.fill(&mut out);
            assert!(seen.insert(out[..8].to_vec()), "draw {n}");
            assert!(random.buffer[..random.used].iter().all(|b| *b == 0), "used bytes are erased");
        }
        random.fill(&mut []);
    }
}
