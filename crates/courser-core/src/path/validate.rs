//! PATH_CHALLENGE and PATH_RESPONSE of one path (RFC 9000 section 8.2). Neither is repeated by loss recovery: a timer
//! makes a fresh challenge, and a lost response is asked for again by the peer's fresh challenge.

use core::time::Duration;

use crate::buf::lazy::{Lazy, Part};
use crate::time::Instant;

/// Times that one validation challenges, at most; the interval doubles after each.
const ROUNDS_MAX: u32 = 5;
/// Responses that wait for a packet, at most; a peer has little reason for more than one.
const RESPONSES_MAX: usize = 4;

/// A challenge that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    data: [u8; 8],
    /// Its datagram had the size that every path has to carry.
    full: bool,
}

/// What a PATH_RESPONSE showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers none of our challenges here.
    Foreign,
    /// The peer is there, but whether datagrams of the smallest allowed size pass is still open.
    Address,
    /// The path is validated.
    Path,
}

/// What the time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A fresh challenge.
    Again,
    /// The validation failed.
    Failed,
}

/// Our challenges on a path; memory of its own while it is validated.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Lazy<Validation>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Validation {
    /// The challenges that were sent; any of them validates the path.
    sent: Vec<Sent>,
    /// Data of the challenge that waits for a packet.
    due: Option<[u8; 8]>,
    /// Data of the one that follows it in a packet of its own.
    second: Option<[u8; 8]>,
    /// How often was challenged.
    rounds: u32,
    /// How long the first one is waited for.
    wait: Duration,
    /// When the next one is made.
    next: Option<Instant>,
    /// When the validation is given up.
    abandon: Option<Instant>,
}

impl Part for Validation {
    const UNUSED: &'static Self =
        &Self { sent: Vec::new(), due: None, second: None, rounds: 0, wait: Duration::ZERO, next: None, abandon: None };

    fn begin() -> Self {
        Self::UNUSED.clone()
    }

    fn is_unused(&self) -> bool {
        self == Self::UNUSED
    }
}

impl Challenges {
    /// Begins a validation with unpredictable data, to be given up at that time. `wait` is the path's probe timeout, after
    /// which the challenge is repeated.
    pub fn start(&mut self, data: [u8; 8], wait: Duration, abandon: Instant) {
        *self.0 = Validation { due: Some(data), rounds: 1, wait, abandon: Some(abandon), ..Validation::begin() };
    }

    /// Goes on with fresh data. Two challenges leave, as two packets do when a probe timeout expires: the next chance is far
    /// away.
    pub fn again(&mut self, data: [[u8; 8]; 2]) {
        self.0.rounds = self.0.rounds.saturating_add(1);
        [self.0.due, self.0.second] = data.map(Some);
    }

    /// Abandons the validation.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    /// Data of the challenge that the next packet should carry.
    #[must_use]
    pub fn due(&self) -> Option<[u8; 8]> {
        self.0.due
    }

    /// The due challenge left.
    pub fn mark_sent(&mut self, now: Instant) {
        if let Some(data) = self.0.due.take() {
            self.0.sent.push(Sent { data, full: true });
            self.0.due = self.0.second.take();
            //= rfc9000#9.4-3
            let wait = self.0.wait.saturating_mul(1 << self.0.rounds.saturating_sub(1).min(16));
            self.0.next = Some(now + wait).filter(|_| self.0.rounds < ROUNDS_MAX);
        }
    }

    /// The datagram of the challenge that left last was smaller than every path has to carry.
    pub fn mark_small(&mut self) {
        if let Some(last) = self.0.sent.last_mut() {
            last.full = false;
        }
    }

    /// A PATH_RESPONSE came, on whatever path.
    pub fn on_response(&mut self, data: [u8; 8]) -> Answer {
        //= rfc9000#8.2.2-4
        let Some(sent) = self.0.sent.iter().find(|s| s.data == data).copied() else { return Answer::Foreign };
        *self = Self::default();
        if sent.full { Answer::Path } else { Answer::Address }
    }

    /// When to look again.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.0.next, self.0.abandon].into_iter().flatten().min()
    }

    /// What the time asks for.
    pub fn on_timeout(&mut self, now: Instant) -> Due {
        //= rfc9000#8.2.4-1
        if self.0.abandon.is_some_and(|at| at <= now) {
            *self = Self::default();
            return Due::Failed;
        }
        if self.0.next.is_some_and(|at| at <= now) {
            self.0.next = None;
            return Due::Again;
        }
        Due::Nothing
    }

    /// Whether a validation is under way.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.due.is_some() || !self.0.sent.is_empty()
    }
}

/// Answers to the peer's challenges that wait for a packet; memory of their own once the peer challenges.
#[derive(Clone, Debug, Default)]
pub struct Responses(Lazy<Waiting>);

#[derive(Clone, Debug)]
struct Waiting {
    data: [[u8; 8]; RESPONSES_MAX],
    len: u8,
}

impl Part for Waiting {
    const UNUSED: &'static Self = &Self { data: [[0; 8]; RESPONSES_MAX], len: 0 };

    fn begin() -> Self {
        Self::UNUSED.clone()
    }

    fn is_unused(&self) -> bool {
        self.len == 0
    }
}

impl Responses {
    /// The peer challenges; beyond four the oldest answer is given up.
    pub fn push(&mut self, data: [u8; 8]) {
        if usize::from(self.0.len) == RESPONSES_MAX {
            self.pop();
        }
        let waiting = &mut *self.0;
        waiting.data[usize::from(waiting.len)] = data;
        waiting.len += 1;
    }

    /// Data of the oldest answer.
    #[must_use]
    pub fn front(&self) -> Option<[u8; 8]> {
        (self.0.len > 0).then_some(self.0.data[0])
    }

    /// The oldest answer left.
    pub fn pop(&mut self) {
        if let Some(waiting) = self.0.get_mut()
            && waiting.len > 0
        {
            waiting.data.rotate_left(1);
            waiting.len -= 1;
        }
    }

    /// Forgets all; the path is gone.
    pub fn clear(&mut self) {
        self.0 = Lazy::new();
    }

    /// Gives the room back if nothing waits.
    pub fn shrink(&mut self) {
        self.0.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_and_the_attempts_end() {
        // LS-PATH-13
        //= rfc9000#8.2.4-1 type=test
        let mut c = Challenges::default();
        let (mut now, mut waits) = (Instant::ZERO, vec![]);
        c.start([1; 8], Duration::from_millis(333), now + Duration::from_secs(20));
        loop {
            for _ in 0..=usize::from(!waits.is_empty()) {
                assert!(c.due().is_some());
                c.mark_sent(now);
            }
            assert!(c.due().is_none(), "one challenge, then pairs of them");
            let at = c.deadline().unwrap();
            assert_eq!(c.on_timeout(at - Duration::from_micros(1)), Due::Nothing);
            waits.push((at - now).as_millis());
            now = at;
            match c.on_timeout(now) {
                Due::Again => c.again([[waits.len() as u8; 8], [waits.len() as u8 + 100; 8]]),
                other => break assert_eq!(other, Due::Failed),
            }
        }
        assert_eq!(waits, [333, 666, 1332, 2664, 20_000 - 4995]);
        assert!(!c.is_active() && c.deadline().is_none());
    }

    #[test]
    fn a_challenge_that_cannot_leave_is_given_up_too() {
        let mut c = Challenges::default();
        c.start([1; 8], Duration::from_millis(333), Instant::from_micros(5));
        assert_eq!(c.on_timeout(Instant::from_micros(4)), Due::Nothing);
        assert_eq!((c.on_timeout(Instant::from_micros(5)), c.due()), (Due::Failed, None));
    }

    #[test]
    fn any_challenge_of_the_validation_counts_and_a_small_one_shows_the_address_alone() {
        //= rfc9000#8.2.2-4 type=test
        for small in [false, true] {
            let mut c = Challenges::default();
            c.start([1; 8], Duration::from_millis(333), Instant::FAR_FUTURE);
            c.mark_sent(Instant::ZERO);
            if small {
                c.mark_small();
            }
            c.again([[2; 8], [4; 8]]);
            c.mark_sent(Instant::ZERO);
            c.mark_sent(Instant::ZERO);
            assert_eq!(c.on_response([3; 8]), Answer::Foreign);
            assert_eq!(c.on_response([1; 8]), if small { Answer::Address } else { Answer::Path });
            assert!(!c.is_active() && c.on_response([1; 8]) == Answer::Foreign);
        }
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
