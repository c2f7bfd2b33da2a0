//! The "perf" protocol (draft-banks-quic-performance): a stream starts with the number of bytes that are wanted back,
//! in eight bytes of network order; the rest of the stream is load.

/// Application protocol name.
pub const ALPN: &[u8] = b"perf";
/// Length of the number at the start of a stream.
pub const HEAD_LEN: usize = 8;
/// Asks for bytes until the client has enough and says STOP_SENDING.
pub const UNLIMITED: u64 = u64::MAX;

/// The start of a stream that wants `count` bytes back.
#[must_use]
pub const fn head(count: u64) -> [u8; HEAD_LEN] {
    count.to_be_bytes()
}

/// Collects the head, however the stream's bytes are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadReader {
    bytes: [u8; HEAD_LEN],
    have: usize,
}

impl HeadReader {
    /// Takes what belongs to the head; returns how many bytes that was.
    pub fn take(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(HEAD_LEN - self.have);
        self.bytes[self.have..self.have + n].copy_from_slice(&data[..n]);
        self.have += n;
        n
    }

    /// The number, once it is complete.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        (self.have == HEAD_LEN).then(|| u64::from_be_bytes(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_read_however_it_is_cut() {
        for count in [0, 1, 1 << 40, UNLIMITED] {
            for cut in 0..=HEAD_LEN {
                let bytes = [&head(count)[..], b"load"].concat();
                let mut r = HeadReader::default();
                assert_eq!(r.take(&bytes[..cut]), cut);
                assert_eq!(r.count(), if cut == HEAD_LEN { Some(count) } else { None });
                assert_eq!(r.take(&bytes[cut..]), HEAD_LEN - cut);
                assert_eq!(r.count(), Some(count));
                assert_eq!(r.take(b"more"), 0);
            }
        }
    }

    #[test]
    fn the_head_is_in_network_order() {
        assert_eq!(head(0x0102_0304_0506_0708), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
