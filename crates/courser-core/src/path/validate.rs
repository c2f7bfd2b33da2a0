//! PATH_CHALLENGE and PATH_RESPONSE of one path (RFC 9000 section 8.2). Neither is repeated by loss recovery: a timer
//! makes a fresh challenge, and a lost response is asked for again by the peer's fresh challenge.

use core::time::Duration;

use crate::time::Instant;

/// Challenges of one validation, at most; the interval doubles after each.
const CHALLENGES_MAX: usize = 5;
/// Wait after the first challenge: the new path's round-trip time is not known yet.
const FIRST_WAIT: Duration = Duration::from_millis(333);
/// Responses that wait for a packet, at most; a peer has little reason for more than one.
const RESPONSES_MAX: usize = 4;

/// Our challenges on a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenges {
    /// Data of the challenges that were sent; any of them validates the path.
    sent: Vec<[u8; 8]>,
    /// Data of the challenge that waits for a packet.
    due: Option<[u8; 8]>,
    /// When the next one is made.
    next: Option<Instant>,
}

impl Challenges {
    /// Begins (or continues) a validation with unpredictable data.
    pub fn start(&mut self, data: [u8; 8]) {
        self.due = Some(data);
    }

    /// Data of the challenge that the next packet should carry.
    #[must_use]
    pub fn due(&self) -> Option<[u8; 8]> {
        self.due
    }

    /// The due challenge left.
    pub fn mark_sent(&mut self, now: Instant) {
        if let Some(data) = self.due.take() {
            self.sent.push(data);
            let doublings = u32::try_from(self.sent.len() - 1).unwrap_or(u32::MAX).min(16);
            self.next = Some(now + FIRST_WAIT * (1 << doublings));
        }
    }

    /// A PATH_RESPONSE came, on whatever path. Returns whether it validates this one.
    pub fn on_response(&mut self, data: [u8; 8]) -> bool {
        let ours = self.sent.contains(&data);
        if ours {
            *self = Self::default();
        }
        ours
    }

    /// When to look again.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// The deadline passed: `Some(true)` when a fresh challenge is wanted, `Some(false)` when the validation failed.
    pub fn on_timeout(&mut self, now: Instant) -> Option<bool> {
        if self.next.is_none_or(|at| now < at) {
            return None;
        }
        if self.sent.len() >= CHALLENGES_MAX {
            *self = Self::default();
            return Some(false);
        }
        self.next = None;
        Some(true)
    }

    /// Whether a validation is under way.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.due.is_some() || !self.sent.is_empty()
    }
}

/// Answers to the peer's challenges that wait for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Responses {
    data: [[u8; 8]; RESPONSES_MAX],
    len: u8,
}

impl Responses {
    /// The peer challenges; beyond four the oldest answer is given up.
    pub fn push(&mut self, data: [u8; 8]) {
        if usize::from(self.len) == RESPONSES_MAX {
            self.data.rotate_left(1);
            self.len -= 1;
        }
        self.data[usize::from(self.len)] = data;
        self.len += 1;
    }

    /// Data of the oldest answer.
    #[must_use]
    pub fn front(&self) -> Option<[u8; 8]> {
        (self.len > 0).then_some(self.data[0])
    }

    /// The oldest answer left.
    pub fn pop(&mut self) {
        if self.len > 0 {
            self.data.rotate_left(1);
            self.len -= 1;
        }
    }

    /// Forgets all; the path is gone.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_and_the_attempts_end() {
        let mut c = Challenges::default();
        let mut now = Instant::ZERO;
        let mut waits = vec![];
        c.start([1; 8]);
        loop {
            assert!(c.due().is_some());
            c.mark_sent(now);
            let at = c.deadline().unwrap();
            assert_eq!(c.on_timeout(at - Duration::from_micros(1)), None);
            waits.push((at - now).as_millis());
            now = at;
            match c.on_timeout(now) {
                Some(true) => c.start([waits.len() as u8; 8]),
                other => break assert_eq!(other, Some(false)),
            }
        }
        assert_eq!(waits, [333, 666, 1332, 2664, 5328]);
        assert!(!c.is_active());
    }

    #[test]
    fn any_challenge_of_the_validation_counts() {
        let mut c = Challenges::default();
        c.start([1; 8]);
        c.mark_sent(Instant::ZERO);
        c.start([2; 8]);
        c.mark_sent(Instant::ZERO);
        assert!(!c.on_response([3; 8]));
        assert!(c.on_response([1; 8]));
        assert!(!c.is_active() && !c.on_response([1; 8]));
    }

    #[test]
    fn answers_are_bounded_and_in_order() {
        let mut r = Responses::default();
        for n in 0..6 {
            r.push([n; 8]);
        }
        let mut seen = vec![];
        while let Some(d) = r.front() {
            seen.push(d[0]);
            r.pop();
        }
        assert_eq!(seen, [2, 3, 4, 5]);
    }
}
