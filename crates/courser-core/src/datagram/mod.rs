//! DATAGRAM frames (RFC 9221): a bounded queue each way.
//!
//! Sending: [`DatagramQueue::push`] refuses when the queue is full, so that the application feels back-pressure; the
//! number that it returns comes back with the fate. Receiving: the oldest unread datagram makes room for the newest, as
//! with a socket buffer, and a counter tells.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::ApiMisuse;
use crate::spans::Fate;

/// Bytes that wait for sending, at most, unless a single datagram is larger.
const SEND_BYTES_MAX: usize = 256 << 10;
/// Bytes that wait for the application, at most.
const RECV_BYTES_MAX: usize = 256 << 10;
/// Fates that wait for the application, at most; older ones are dropped first.
const FATES_MAX: usize = 1024;
/// What a queued datagram costs besides its bytes; keeps floods of empty ones bounded.
const OVERHEAD: usize = 64;

/// DATAGRAM frames of one connection.
#[derive(Default)]
pub struct DatagramQueue {
    send: VecDeque<(u64, Bytes)>,
    send_bytes: usize,
    recv: VecDeque<Bytes>,
    recv_bytes: usize,
    fates: VecDeque<(u64, Fate)>,
    next: u64,
    /// Largest frame that the peer takes; zero before its transport parameters are known.
    peer_max: u64,
    /// Received datagrams that were dropped because the application did not read.
    pub dropped: u64,
}

impl DatagramQueue {
    /// Whether no received datagram waits for the application.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.recv.is_empty()
    }

    /// Sets the peer's limit on whole DATAGRAM frames.
    pub fn set_peer_max(&mut self, frame: u64) {
        self.peer_max = frame;
    }

    /// Largest payload that fits both the peer's limit and a packet with `packet_room` bytes of frames; `None` when the
    /// peer takes no datagrams.
    #[must_use]
    pub fn payload_max(&self, packet_room: usize) -> Option<usize> {
        if self.peer_max == 0 {
            return None;
        }
        let frame = usize::try_from(self.peer_max).unwrap_or(usize::MAX).min(packet_room);
        frame.checked_sub(1 + if frame > 65 { 2 } else { 1 })
    }

    /// Queues a datagram; `Ok(None)` when the queue is full, else the number under which its fate comes back.
    ///
    /// # Errors
    /// [`ApiMisuse::NotNegotiated`] or [`ApiMisuse::TooLarge`].
    pub fn push(&mut self, data: Bytes, packet_room: usize) -> Result<Option<u64>, ApiMisuse> {
        //= rfc9221#3-1
        //= rfc9221#3-2
        let max = self.payload_max(packet_room).ok_or(ApiMisuse::NotNegotiated)?;
        if data.len() > max {
            return Err(ApiMisuse::TooLarge);
        }
        if !self.send.is_empty() && self.send_bytes + data.len() + OVERHEAD > SEND_BYTES_MAX {
            return Ok(None);
        }
        self.send_bytes += data.len() + OVERHEAD;
        let number = self.next;
        self.next += 1;
        self.send.push_back((number, data));
        Ok(Some(number))
    }

    /// The datagram to send next.
    #[must_use]
    pub fn front(&self) -> Option<&Bytes> {
        self.send.front().map(|(_, data)| data)
    }

    /// Takes the front datagram for a packet; returns its number.
    pub fn pop(&mut self) -> Option<(u64, Bytes)> {
        let (number, data) = self.send.pop_front()?;
        self.send_bytes -= data.len() + OVERHEAD;
        Some((number, data))
    }

    /// Drops queued datagrams that fit no packet of `packet_room` bytes any more; they count as lost.
    pub fn drop_oversized(&mut self, packet_room: usize) {
        while let (Some(front), Some(max)) = (self.front(), self.payload_max(packet_room)) {
            if front.len() <= max {
                return;
            }
            if let Some((number, _)) = self.pop() {
                self.settle(Fate::Lost, number);
            }
        }
    }

    /// What became of a datagram; never repeated (RFC 9221 section 5). One that was declared lost and is acknowledged after
    /// all has two fates: the loss was false.
    pub fn settle(&mut self, fate: Fate, number: u64) {
        if self.fates.len() == FATES_MAX {
            self.fates.pop_front();
        }
        self.fates.push_back((number, fate));
    }

    /// The next fate that the application has not seen.
    pub fn poll_fate(&mut self) -> Option<(u64, Fate)> {
        self.fates.pop_front()
    }

    /// A datagram came. Returns whether the application has to be told, that is, whether it had read all others.
    pub fn on_datagram(&mut self, data: &[u8]) -> bool {
        let was_empty = self.recv.is_empty();
        let cost = data.len() + OVERHEAD;
        while !self.recv.is_empty() && self.recv_bytes + cost > RECV_BYTES_MAX {
            self.read();
            self.dropped += 1;
        }
        self.recv_bytes += cost;
        self.recv.push_back(Bytes::copy_from_slice(data));
        was_empty
    }

    /// The oldest received datagram.
    pub fn read(&mut self) -> Option<Bytes> {
        let data = self.recv.pop_front()?;
        self.recv_bytes -= data.len() + OVERHEAD;
        Some(data)
    }

    /// Datagrams that wait for sending.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.send.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> DatagramQueue {
        let mut q = DatagramQueue::default();
        q.set_peer_max(65_535);
        q
    }

    #[test]
    fn nothing_is_sent_to_a_peer_that_takes_none() {
        //= rfc9221#3-1 type=test
        let mut q = DatagramQueue::default();
        assert_eq!(q.push(Bytes::from_static(b"x"), 1200), Err(ApiMisuse::NotNegotiated));
    }

    #[test]
    fn the_largest_payload_is_exact() {
        //= rfc9221#3-2 type=test
        let mut q = queue();
        assert_eq!(q.payload_max(1200), Some(1197));
        assert_eq!(q.push(Bytes::from(vec![0; 1198]), 1200), Err(ApiMisuse::TooLarge));
        assert!(q.push(Bytes::from(vec![0; 1197]), 1200).unwrap().is_some());
        q.set_peer_max(20);
        assert_eq!(q.payload_max(1200), Some(18));
    }

    #[test]
    fn a_full_send_queue_pushes_back() {
        let mut q = queue();
        let mut taken = 0;
        while q.push(Bytes::from(vec![0; 1000]), 1200).unwrap().is_some() {
            taken += 1;
        }
        assert_eq!(taken, SEND_BYTES_MAX / (1000 + OVERHEAD));
        assert_eq!(q.pop().map(|(n, d)| (n, d.len())), Some((0, 1000)));
        assert_eq!(q.push(Bytes::from(vec![0; 1000]), 1200), Ok(Some(taken as u64)));
    }

    #[test]
    fn unread_datagrams_are_bounded_and_the_newest_stay() {
        let mut q = queue();
        assert!(q.on_datagram(&[0; 1000]));
        for i in 1..10_000u32 {
            assert!(!q.on_datagram(&i.to_be_bytes().repeat(250)));
        }
        assert!(q.recv_bytes <= RECV_BYTES_MAX);
        let mut last = Bytes::new();
        let mut read = 0;
        while let Some(d) = q.read() {
            last = d;
            read += 1;
        }
        assert_eq!(last[..4], 9_999u32.to_be_bytes());
        assert_eq!(q.dropped + read, 10_000);
        // Floods of empty datagrams are bounded too.
        for _ in 0..100_000 {
            q.on_datagram(&[]);
        }
        assert!(q.recv.len() <= RECV_BYTES_MAX / OVERHEAD);
    }

    #[test]
    fn shrinking_paths_drop_what_no_longer_fits() {
        let mut q = queue();
        let n = q.push(Bytes::from(vec![0; 1400]), 1450).unwrap().unwrap();
        q.push(Bytes::from(vec![0; 100]), 1450).unwrap().unwrap();
        q.drop_oversized(1200);
        assert_eq!(q.poll_fate(), Some((n, Fate::Lost)));
        assert_eq!(q.front().map(Bytes::len), Some(100));
    }
}
