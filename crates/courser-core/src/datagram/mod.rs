//! DATAGRAM frames (RFC 9221): a bounded queue each way.
//!
//! Sending: [`DatagramQueue::push`] refuses when the queue is full, so that the application feels back-pressure, and an event
//! tells when there is room again. Whoever gives a datagram a tag hears of its fate, exactly once: the first verdict counts.
//! Such datagrams and the fates that nobody has read are bounded together, by refusing more. Receiving: the oldest unread datagram makes room for the newest, as
//! with a socket buffer, and a counter tells.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::buf::lazy::{Lazy, Part};
use crate::error::ApiMisuse;
use crate::spans::Fate;

/// Bytes that wait for sending, at most, unless a single datagram is larger.
const SEND_BYTES_MAX: usize = 256 << 10;
/// Bytes that wait for the application, at most.
const RECV_BYTES_MAX: usize = 256 << 10;
/// Datagrams whose fate was asked for and has not been read, at most.
const TRACKED_MAX: usize = 1024;
/// What a queued datagram costs besides its bytes; keeps floods of empty ones bounded.
const OVERHEAD: usize = 64;

/// What an application is told of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramEvent {
    /// There is room again, after [`DatagramQueue::push`] had said no.
    Room,
    /// Fates wait, where there were none.
    Fates,
}

/// A datagram whose fate was asked for.
#[derive(Clone, Copy, Debug)]
struct Tracked {
    number: u64,
    tag: u64,
    /// Its fate was told; it only waits for those before it.
    told: bool,
}

/// What waits.
struct Waiting {
    send: VecDeque<(u64, Bytes)>,
    recv: VecDeque<Bytes>,
    /// In the order of their numbers.
    tracked: VecDeque<Tracked>,
    /// Tags with fates that the application has not read.
    fates: VecDeque<(u64, Fate)>,
    send_bytes: usize,
    recv_bytes: usize,
    /// How many of those that are tracked have not been told.
    untold: usize,
    /// Fates came where there were none, and the application was not told.
    fates_due: bool,
    /// A datagram was refused, and the application was not told of room since.
    refused: bool,
}

impl Waiting {
    const NONE: Self = Self {
        send: VecDeque::new(),
        recv: VecDeque::new(),
        tracked: VecDeque::new(),
        fates: VecDeque::new(),
        send_bytes: 0,
        recv_bytes: 0,
        untold: 0,
        fates_due: false,
        refused: false,
    };
}

impl Part for Waiting {
    const UNUSED: &'static Self = &Self::NONE;

    fn begin() -> Self {
        Self::NONE
    }

    fn is_unused(&self) -> bool {
        let empty = self.send.is_empty() && self.recv.is_empty() && self.tracked.is_empty() && self.fates.is_empty();
        empty && !self.refused
    }
}

/// DATAGRAM frames of one connection.
#[derive(Default)]
pub struct DatagramQueue {
    waiting: Lazy<Waiting>,
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
        self.waiting.recv.is_empty()
    }

    /// Gives the room back that nothing needs.
    pub fn shrink(&mut self) {
        self.waiting.rest();
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

    /// Queues a datagram; `Ok(false)` when the queue is full. With a tag its fate is told.
    ///
    /// # Errors
    /// [`ApiMisuse::NotNegotiated`] or [`ApiMisuse::TooLarge`].
    pub fn push(&mut self, data: Bytes, tag: Option<u64>, packet_room: usize) -> Result<bool, ApiMisuse> {
        //= rfc9221#3-1
        //= rfc9221#3-2
        let max = self.payload_max(packet_room).ok_or(ApiMisuse::NotNegotiated)?;
        if data.len() > max {
            return Err(ApiMisuse::TooLarge);
        }
        let full = !self.waiting.send.is_empty() && self.waiting.send_bytes + data.len() + OVERHEAD > SEND_BYTES_MAX;
        if full || (tag.is_some() && self.places_taken() >= TRACKED_MAX) {
            self.waiting.refused = true;
            return Ok(false);
        }
        self.waiting.send_bytes += data.len() + OVERHEAD;
        let number = self.next;
        self.next += 1;
        self.waiting.untold += usize::from(tag.is_some());
        self.waiting.tracked.extend(tag.map(|tag| Tracked { number, tag, told: false }));
        self.waiting.send.push_back((number, data));
        Ok(true)
    }

    /// The datagram to send next.
    #[must_use]
    pub fn front(&self) -> Option<&Bytes> {
        self.waiting.send.front().map(|(_, data)| data)
    }

    /// Takes the front datagram for a packet; returns its number.
    pub fn pop(&mut self) -> Option<(u64, Bytes)> {
        let (number, data) = self.waiting.send.pop_front()?;
        self.waiting.send_bytes -= data.len() + OVERHEAD;
        Some((number, data))
    }

    /// Drops queued datagrams that fit no packet of `packet_room` bytes any more, or all if the peer takes none, which a rejection
    /// of 0-RTT may reveal; they count as lost.
    pub fn drop_oversized(&mut self, packet_room: usize) {
        let max = self.payload_max(packet_room);
        let fits = |data: &Bytes| max.is_some_and(|max| data.len() <= max);
        if (max.is_none() && self.peer_max > 0) || self.waiting.send.iter().all(|(_, data)| fits(data)) {
            return;
        }
        for _ in 0..self.waiting.send.len() {
            let Some((number, data)) = self.pop() else { return };
            if fits(&data) {
                self.waiting.send_bytes += data.len() + OVERHEAD;
                self.waiting.send.push_back((number, data));
            } else {
                self.settle(Fate::Lost, number);
            }
        }
    }

    /// What became of a datagram; it is never repeated (RFC 9221 section 5). The first verdict is the application's: what is
    /// acknowledged after it was declared lost stays lost to it.
    pub fn settle(&mut self, fate: Fate, number: u64) {
        let Ok(at) = self.waiting.tracked.binary_search_by_key(&number, |t| t.number) else { return };
        let Some(tracked) = self.waiting.tracked.get_mut(at).filter(|t| !t.told) else { return };
        tracked.told = true;
        let fate = if fate == Fate::Acked { Fate::Acked } else { Fate::Lost };
        let entry = (tracked.tag, fate);
        self.waiting.untold -= 1;
        while self.waiting.tracked.front().is_some_and(|t| t.told) {
            self.waiting.tracked.pop_front();
        }
        self.waiting.fates_due |= self.waiting.fates.is_empty();
        self.waiting.fates.push_back(entry);
    }

    /// Places taken by datagrams whose fate was asked for: those without one and fates that were not read, or all since the
    /// first without one, which are remembered.
    fn places_taken(&self) -> usize {
        self.waiting.tracked.len().max(self.waiting.untold + self.waiting.fates.len())
    }

    /// Whether somebody who was refused would not be refused now; half of the room is free, so that this is not told for
    /// each datagram.
    fn has_room_again(&self) -> bool {
        self.waiting.refused && self.waiting.send_bytes <= SEND_BYTES_MAX / 2 && self.places_taken() <= TRACKED_MAX / 2
    }

    /// Whether [`Self::poll_event`] has something.
    #[must_use]
    pub fn has_events(&self) -> bool {
        (self.waiting.fates_due && !self.waiting.fates.is_empty()) || self.has_room_again()
    }

    /// What the application is to be told.
    pub fn poll_event(&mut self) -> Option<DatagramEvent> {
        if self.waiting.fates_due {
            self.waiting.fates_due = false;
            if !self.waiting.fates.is_empty() {
                return Some(DatagramEvent::Fates);
            }
        }
        if self.has_room_again() {
            self.waiting.refused = false;
            return Some(DatagramEvent::Room);
        }
        None
    }

    /// The tag of the next datagram whose fate the application has not seen: acknowledged, or lost.
    pub fn poll_fate(&mut self) -> Option<(u64, Fate)> {
        self.waiting.fates.pop_front()
    }

    /// A datagram came. Returns whether the application has to be told, that is, whether it had read all others.
    pub fn on_datagram(&mut self, data: &[u8]) -> bool {
        let was_empty = self.waiting.recv.is_empty();
        let cost = data.len() + OVERHEAD;
        while !self.waiting.recv.is_empty() && self.waiting.recv_bytes + cost > RECV_BYTES_MAX {
            self.read();
            self.dropped += 1;
        }
        self.waiting.recv_bytes += cost;
        self.waiting.recv.push_back(Bytes::copy_from_slice(data));
        was_empty
    }

    /// The oldest received datagram.
    pub fn read(&mut self) -> Option<Bytes> {
        let data = self.waiting.recv.pop_front()?;
        self.waiting.recv_bytes -= data.len() + OVERHEAD;
        Some(data)
    }

    /// Datagrams that wait for sending.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.send.len()
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
        assert_eq!(q.push(Bytes::from_static(b"x"), None, 1200), Err(ApiMisuse::NotNegotiated));
    }

    #[test]
    fn the_largest_payload_is_exact() {
        //= rfc9221#3-2 type=test
        let mut q = queue();
        assert_eq!(q.payload_max(1200), Some(1197));
        assert_eq!(q.push(Bytes::from(vec![0; 1198]), None, 1200), Err(ApiMisuse::TooLarge));
        assert_eq!(q.push(Bytes::from(vec![0; 1197]), None, 1200), Ok(true));
        q.set_peer_max(20);
        assert_eq!(q.payload_max(1200), Some(18));
    }

    #[test]
    fn a_full_send_queue_pushes_back() {
        let mut q = queue();
        let mut taken = 0;
        while q.push(Bytes::from(vec![0; 1000]), None, 1200).unwrap() {
            taken += 1;
            assert!(!q.has_events(), "nobody was refused");
        }
        assert_eq!(taken, SEND_BYTES_MAX / (1000 + OVERHEAD));
        assert_eq!(q.pop().map(|(n, d)| (n, d.len())), Some((0, 1000)));
        assert_eq!(q.push(Bytes::from(vec![0; 1000]), None, 1200), Ok(true));
        // Whoever was refused is told once, when half of the room is free.
        assert_eq!(q.push(Bytes::from(vec![0; 1000]), None, 1200), Ok(false));
        let mut popped = 0;
        while !q.has_events() {
            q.pop().unwrap();
            popped += 1;
        }
        assert!((taken / 2..=taken / 2 + 1).contains(&popped), "{popped} of {taken}");
        assert_eq!((q.poll_event(), q.poll_event()), (Some(DatagramEvent::Room), None));
        q.pop().unwrap();
        assert!(!q.has_events());
    }

    #[test]
    fn each_fate_is_told_once_and_the_first_verdict_counts() {
        let mut q = queue();
        for tag in [Some(70), None, Some(71), Some(71), None, Some(73)] {
            assert_eq!(q.push(Bytes::from_static(b"x"), tag, 1200), Ok(true));
        }
        let numbers: Vec<u64> = core::iter::from_fn(|| q.pop()).map(|(number, _)| number).collect();
        let told = |q: &mut DatagramQueue| core::iter::from_fn(|| q.poll_fate()).collect::<Vec<_>>();
        // The second and fifth have no tag; the third is lost first and acknowledged then.
        q.settle(Fate::Lost, numbers[2]);
        assert_eq!((q.poll_event(), q.poll_event()), (Some(DatagramEvent::Fates), None));
        for (number, fate) in [(2, Fate::Acked), (1, Fate::Acked), (3, Fate::Acked), (4, Fate::Lost), (3, Fate::Lost)] {
            q.settle(fate, numbers[number]);
        }
        assert_eq!(told(&mut q), [(71, Fate::Lost), (71, Fate::Acked)]);
        q.settle(Fate::Discarded, numbers[0]);
        q.settle(Fate::Acked, numbers[5]);
        q.settle(Fate::Acked, numbers[0]);
        assert_eq!((q.poll_event(), q.poll_event()), (Some(DatagramEvent::Fates), None));
        assert_eq!(told(&mut q), [(70, Fate::Lost), (73, Fate::Acked)]);
        assert!(q.waiting.tracked.is_empty() && !q.has_events());
    }

    #[test]
    fn who_asks_for_fates_and_does_not_read_them_is_refused() {
        let mut q = queue();
        let push = |q: &mut DatagramQueue, tag| {
            let taken = q.push(Bytes::from_static(b"x"), tag, 1200).unwrap();
            q.pop().filter(|_| taken).map(|(number, _)| number)
        };
        for tag in 0..TRACKED_MAX as u64 {
            let number = push(&mut q, Some(tag)).unwrap();
            if tag % 2 == 0 {
                q.settle(Fate::Acked, number);
            }
        }
        let mut taken = TRACKED_MAX;
        while let Some(number) = push(&mut q, Some(taken as u64)) {
            q.settle(Fate::Acked, number);
            taken += 1;
        }
        assert_eq!((q.places_taken(), taken), (TRACKED_MAX, TRACKED_MAX));
        assert!(push(&mut q, None).is_some(), "others go on");
        assert_eq!(q.poll_event(), Some(DatagramEvent::Fates));
        assert!(q.poll_fate().is_some() && !q.has_events(), "one place is not worth an event");
        while q.poll_fate().is_some() {}
        (0..taken as u64).for_each(|number| q.settle(Fate::Lost, number));
        while q.poll_fate().is_some() {}
        assert_eq!((q.poll_event(), q.poll_event()), (Some(DatagramEvent::Room), None));
        assert!(push(&mut q, Some(7)).is_some());
    }

    #[test]
    fn unread_datagrams_are_bounded_and_the_newest_stay() {
        let mut q = queue();
        assert!(q.on_datagram(&[0; 1000]));
        for i in 1..10_000u32 {
            assert!(!q.on_datagram(&i.to_be_bytes().repeat(250)));
        }
        assert!(q.waiting.recv_bytes <= RECV_BYTES_MAX);
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
        assert!(q.waiting.recv.len() <= RECV_BYTES_MAX / OVERHEAD);
    }

    #[test]
    fn shrinking_paths_drop_what_no_longer_fits() {
        let mut q = queue();
        for (tag, len) in [(0, 1400), (1, 100), (2, 1300), (3, 90)] {
            assert_eq!(q.push(Bytes::from(vec![0; len]), Some(tag), 1450), Ok(true));
        }
        q.drop_oversized(1200);
        assert_eq!([q.poll_fate(), q.poll_fate()], [Some((0, Fate::Lost)), Some((2, Fate::Lost))]);
        assert_eq!(
            (q.waiting.send_bytes, q.waiting()),
            (190 + 2 * OVERHEAD, 2),
            "also from the middle: it would never leave"
        );
        assert_eq!([q.pop(), q.pop()].map(|d| d.map(|d| d.1.len())), [Some(100), Some(90)]);
    }
}
